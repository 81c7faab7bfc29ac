/* SPDX-License-Identifier: MIT
 *
 * Products of one-bit matrices by byte shuffles: 32 rows in a register, a nibble of each looked up in the table of
 * its four columns. Sums of four lookups fit bytes (4 * 4 * 7 = 112), a block's fit words, m joins in dwords.
 * Owner: no state. Threads: any. */
#include <immintrin.h>

#include "cpu/predict.h"

static inline __m256i lookup(const int8_t *entries, __m256i nibbles)
{
    const __m128i t = _mm_loadu_si128((const __m128i *)(const void *)entries);
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(t), nibbles);
}

/* The sums of a block: rows 0-7 and 16-23 in the words of *lo, rows 8-15 and 24-31 in those of *hi. */
static inline void block_sums(const uint8_t *at, const int8_t *t, __m256i *lo, __m256i *hi)
{
    const __m256i low = _mm256_set1_epi8(15), ones = _mm256_set1_epi8(1);
    __m256i half[2];

    for (int h = 0; h < 2; h++, at += 64, t += 64) {
        const __m256i a = _mm256_loadu_si256((const __m256i *)(const void *)at);
        const __m256i b = _mm256_loadu_si256((const __m256i *)(const void *)(at + 32));
        __m256i s = lookup(t, _mm256_and_si256(a, low));
        s = _mm256_add_epi8(s, lookup(t + 16, _mm256_and_si256(_mm256_srli_epi16(a, 4), low)));
        s = _mm256_add_epi8(s, lookup(t + 32, _mm256_and_si256(b, low)));
        half[h] = _mm256_add_epi8(s, lookup(t + 48, _mm256_and_si256(_mm256_srli_epi16(b, 4), low)));
    }
    *lo = _mm256_maddubs_epi16(ones, _mm256_unpacklo_epi8(half[0], half[1]));
    *hi = _mm256_maddubs_epi16(ones, _mm256_unpackhi_epi8(half[0], half[1]));
}

void ht_signs__avx2(int32_t *sum, const uint8_t *signs, uint32_t n_tiles, uint32_t n_blocks, const int8_t *table,
                    const int16_t *m)
{
    for (uint32_t tile = 0; tile < n_tiles; tile++, sum += HT_SIGNS_ROWS) {
        __m256i acc[4];
        for (int i = 0; i < 4; i++)
            acc[i] = _mm256_setzero_si256();
        for (uint32_t b = 0; b < n_blocks; b += 2, signs += 2 * HT_SIGNS_BLOCK) {
            const int8_t *t = table + (size_t)b * HT_SIGNS_TABLE;
            const int two = b + 1 < n_blocks;
            const uint32_t scales = (uint16_t)m[b] | (two ? (uint32_t)(uint16_t)m[b + 1] << 16 : 0);
            const __m256i by = _mm256_set1_epi32((int)scales);
            __m256i lo[2], hi[2];
            block_sums(signs, t, &lo[0], &hi[0]);
            lo[1] = hi[1] = _mm256_setzero_si256();
            if (two)
                block_sums(signs + HT_SIGNS_BLOCK, t + HT_SIGNS_TABLE, &lo[1], &hi[1]);
            acc[0] = _mm256_add_epi32(acc[0], _mm256_madd_epi16(_mm256_unpacklo_epi16(lo[0], lo[1]), by));
            acc[1] = _mm256_add_epi32(acc[1], _mm256_madd_epi16(_mm256_unpackhi_epi16(lo[0], lo[1]), by));
            acc[2] = _mm256_add_epi32(acc[2], _mm256_madd_epi16(_mm256_unpacklo_epi16(hi[0], hi[1]), by));
            acc[3] = _mm256_add_epi32(acc[3], _mm256_madd_epi16(_mm256_unpackhi_epi16(hi[0], hi[1]), by));
        }
        signs -= n_blocks % 2 ? HT_SIGNS_BLOCK : 0;
        for (int i = 0; i < 4; i++) { /* rows 4 i .. 4 i + 3 and 16 more */
            _mm_storeu_si128((__m128i *)(void *)(sum + 4 * i), _mm256_castsi256_si128(acc[i]));
            _mm_storeu_si128((__m128i *)(void *)(sum + 16 + 4 * i), _mm256_extracti128_si256(acc[i], 1));
        }
    }
}
