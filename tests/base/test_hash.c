/* SPDX-License-Identifier: MIT
 *
 * The hash against the verification value that its author's test suite (SMHasher, "Murmur3F") publishes: keys 0, 01,
 * 0102, … of length i hashed with seed 256 - i, and the 256 hashes hashed once more. */
#include <criterion/criterion.h>
#include <string.h>

#include "engine/base/hash.h"

static void hash(const void *bytes, size_t n, uint32_t seed, size_t piece, uint8_t out[16])
{
    ht_hash s;
    uint64_t h[2];

    ht_hash_begin(&s, seed);
    for (size_t i = 0; i < n; i += piece)
        ht_hash_add(&s, (const uint8_t *)bytes + i, n - i < piece ? n - i : piece);
    ht_hash_end(&s, h);
    for (int i = 0; i < 16; i++)
        out[i] = (uint8_t)(h[i / 8] >> (8 * (i % 8)));
}

Test(hash, verification_value)
{
    static const size_t pieces[] = { 1000000, 1, 7, 16, 17, 33 };
    uint8_t key[256], all[256 * 16], end[16];

    for (size_t p = 0; p < sizeof pieces / sizeof *pieces; p++) {
        for (uint32_t i = 0; i < 256; i++) {
            key[i] = (uint8_t)i;
            hash(key, i, 256 - i, pieces[p], all + (size_t)16 * i);
        }
        hash(all, sizeof all, 0, pieces[p], end);
        uint32_t v = end[0] | end[1] << 8 | end[2] << 16 | (uint32_t)end[3] << 24;
        cr_assert_eq(v, 0x6384ba69u, "pieces of %zu: %08x", pieces[p], v);
    }
}

Test(hash, may_be_read_on_the_way)
{
    ht_hash s;
    uint64_t first[2], again[2], more[2];

    ht_hash_begin(&s, 0);
    ht_hash_add(&s, "neurons", 7);
    ht_hash_end(&s, first);
    ht_hash_end(&s, again);
    cr_assert_eq(memcmp(first, again, sizeof first), 0);
    ht_hash_add(&s, " that fire", 10);
    ht_hash_end(&s, more);
    cr_assert_neq(memcmp(first, more, sizeof first), 0);
}
