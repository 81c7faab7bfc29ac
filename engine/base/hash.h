/* SPDX-License-Identifier: MIT
 *
 * A 128-bit hash of bytes that come in pieces: MurmurHash3_x64_128 of Austin Appleby (public domain). It tells
 * models apart and finds damage; it is no protection against somebody who wants two files to agree.
 *
 * Owner: the caller's struct. Threads: any; one struct belongs to one thread. */
#ifndef HT_BASE_HASH_H
#define HT_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

typedef struct ht_hash {
    uint64_t h[2], bytes;
    uint8_t rest[16]; /* bytes % 16 of them wait for a whole block */
} ht_hash;

void ht_hash_begin(ht_hash *s, uint32_t seed);
void ht_hash_add(ht_hash *s, const void *bytes, size_t n);
/* The hash of what was added so far; more may be added after it. */
void ht_hash_end(const ht_hash *s, uint64_t out[2]);

#endif
