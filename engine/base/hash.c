/* SPDX-License-Identifier: MIT
 * MurmurHash3_x64_128 in pieces; see hash.h. */
#include "engine/base/hash.h"

#include <string.h>

static const uint64_t C1 = 0x87c37b91114253d5u, C2 = 0x4cf5ad432745937fu;

static uint64_t rotl(uint64_t v, int by)
{
    return v << by | v >> (64 - by);
}

static uint64_t read_le(const uint8_t *p, size_t n)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    if (n == 8) {
        uint64_t whole;
        memcpy(&whole, p, 8);
        return whole;
    }
#endif
    uint64_t v = 0;
    for (size_t i = n; i-- > 0;)
        v = v << 8 | p[i];
    return v;
}

static uint64_t mix_low(uint64_t k)
{
    return rotl(k * C1, 31) * C2;
}
static uint64_t mix_high(uint64_t k)
{
    return rotl(k * C2, 33) * C1;
}

static uint64_t finish(uint64_t k)
{
    k = (k ^ k >> 33) * 0xff51afd7ed558ccdu;
    k = (k ^ k >> 33) * 0xc4ceb9fe1a85ec53u;
    return k ^ k >> 33;
}

static void block(ht_hash *s, const uint8_t *p)
{
    uint64_t a = s->h[0], b = s->h[1];

    a = rotl(a ^ mix_low(read_le(p, 8)), 27) + b;
    a = a * 5 + 0x52dce729;
    b = rotl(b ^ mix_high(read_le(p + 8, 8)), 31) + a;
    b = b * 5 + 0x38495ab5;
    s->h[0] = a;
    s->h[1] = b;
}

void ht_hash_begin(ht_hash *s, uint32_t seed)
{
    *s = (ht_hash){ .h = { seed, seed } };
}

void ht_hash_add(ht_hash *s, const void *bytes, size_t n)
{
    const uint8_t *p = bytes;
    size_t held = s->bytes % 16;

    if (n == 0)
        return;
    s->bytes += n;
    if (held) {
        size_t take = n < 16 - held ? n : 16 - held;
        memcpy(s->rest + held, p, take);
        if (held + take < 16)
            return;
        block(s, s->rest);
        p += take;
        n -= take;
    }
    for (; n >= 16; p += 16, n -= 16)
        block(s, p);
    if (n)
        memcpy(s->rest, p, n);
}

void ht_hash_end(const ht_hash *s, uint64_t out[2])
{
    size_t held = s->bytes % 16;
    uint64_t a = s->h[0], b = s->h[1];

    if (held > 8)
        b ^= mix_high(read_le(s->rest + 8, held - 8));
    if (held)
        a ^= mix_low(read_le(s->rest, held < 8 ? held : 8));
    a ^= s->bytes;
    b ^= s->bytes;
    a += b;
    b += a;
    a = finish(a);
    b = finish(b);
    a += b;
    b += a;
    out[0] = a;
    out[1] = b;
}
