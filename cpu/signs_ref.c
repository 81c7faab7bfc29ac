/* SPDX-License-Identifier: MIT
 * Products of one-bit matrices in plain C. Owner: no state. Threads: any. */
#include "cpu/predict.h"

void ht_signs__ref(int32_t *sum, const uint8_t *signs, uint32_t n_tiles, uint32_t n_blocks, const int8_t *table,
                   const int16_t *m)
{
    for (uint32_t t = 0; t < n_tiles; t++)
        for (uint32_t r = 0; r < HT_SIGNS_ROWS; r++) {
            int32_t total = 0;
            for (uint32_t b = 0; b < n_blocks; b++) {
                const uint8_t *at = signs + ((size_t)t * n_blocks + b) * HT_SIGNS_BLOCK + r;
                const int8_t *entries = table + (size_t)b * HT_SIGNS_TABLE;
                int32_t block = 0;
                for (uint32_t g = 0; g < 8; g++)
                    block += entries[16 * g + (at[g / 2 * HT_SIGNS_ROWS] >> (g % 2 * 4) & 15)];
                total += m[b] * block;
            }
            sum[t * HT_SIGNS_ROWS + r] = total;
        }
}
