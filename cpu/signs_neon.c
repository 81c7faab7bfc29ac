/* SPDX-License-Identifier: MIT
 *
 * Products of one-bit matrices by table lookups: 16 rows in a register, a nibble of each looked up in the table of
 * its four columns. Sums of four lookups fit bytes (4 * 4 * 7 = 112), a block's fit words, m joins in dwords.
 * Owner: no state. Threads: any. */
#include <arm_neon.h>

#include "cpu/predict.h"

/* Four groups of a block, of 16 rows. */
static inline int8x16_t half_sum(const uint8_t *at, const int8_t *t)
{
    const uint8x16_t low = vdupq_n_u8(15), a = vld1q_u8(at), b = vld1q_u8(at + HT_SIGNS_ROWS);
    int8x16_t s = vqtbl1q_s8(vld1q_s8(t), vandq_u8(a, low));

    s = vaddq_s8(s, vqtbl1q_s8(vld1q_s8(t + 16), vshrq_n_u8(a, 4)));
    s = vaddq_s8(s, vqtbl1q_s8(vld1q_s8(t + 32), vandq_u8(b, low)));
    return vaddq_s8(s, vqtbl1q_s8(vld1q_s8(t + 48), vshrq_n_u8(b, 4)));
}

void ht_signs__neon(int32_t *sum, const uint8_t *signs, uint32_t n_tiles, uint32_t n_blocks, const int8_t *table,
                    const int16_t *m)
{
    for (uint32_t tile = 0; tile < n_tiles; tile++, signs += (size_t)n_blocks * HT_SIGNS_BLOCK)
        for (uint32_t r = 0; r < HT_SIGNS_ROWS; r += 16, sum += 16) {
            int32x4_t acc[4];
            for (int i = 0; i < 4; i++)
                acc[i] = vdupq_n_s32(0);
            for (uint32_t b = 0; b < n_blocks; b++) {
                const uint8_t *at = signs + (size_t)b * HT_SIGNS_BLOCK + r;
                const int8_t *t = table + (size_t)b * HT_SIGNS_TABLE;
                const int8x16_t lo = half_sum(at, t), hi = half_sum(at + 2 * HT_SIGNS_ROWS, t + 64);
                const int16x8_t s0 = vaddl_s8(vget_low_s8(lo), vget_low_s8(hi)), s1 = vaddl_high_s8(lo, hi);
                acc[0] = vmlal_n_s16(acc[0], vget_low_s16(s0), m[b]);
                acc[1] = vmlal_high_n_s16(acc[1], s0, m[b]);
                acc[2] = vmlal_n_s16(acc[2], vget_low_s16(s1), m[b]);
                acc[3] = vmlal_high_n_s16(acc[3], s1, m[b]);
            }
            for (int i = 0; i < 4; i++)
                vst1q_s32(sum + 4 * i, acc[i]);
        }
}
