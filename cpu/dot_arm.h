/* SPDX-License-Identifier: MIT
 *
 * What the ARM dot products share: products of 16 and 32 bytes, sums across lanes, the final tree, the walk over rows.
 * A file compiled with dotprod gets sdot here, others smull and sadalp. Owner: no state. Threads: any. */
#ifndef HT_CPU_DOT_ARM_H
#define HT_CPU_DOT_ARM_H

#include <arm_neon.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "cpu/kernels.h"

#define HT_INLINE static inline __attribute__((always_inline))

/* Four partial sums of 16 products, of 32, and of 32 where no weight is larger than 64: four products fit in 16 bits
 * then, two always do (x is never -128, see quantise_q8). */
#if defined(__ARM_FEATURE_DOTPROD)
HT_INLINE int32x4_t ht_mul16(int8x16_t w, int8x16_t x)
{
    return vdotq_s32(vdupq_n_s32(0), w, x);
}
HT_INLINE int32x4_t ht_mul32(int8x16_t w0, int8x16_t w1, int8x16_t x0, int8x16_t x1)
{
    return vdotq_s32(ht_mul16(w0, x0), w1, x1);
}
HT_INLINE int32x4_t ht_mul32_64(int8x16_t w0, int8x16_t w1, int8x16_t x0, int8x16_t x1)
{
    return ht_mul32(w0, w1, x0, x1);
}
#else
HT_INLINE int16x8_t ht_mul16_words(int8x16_t w, int8x16_t x)
{
    return vmlal_high_s8(vmull_s8(vget_low_s8(w), vget_low_s8(x)), w, x);
}
HT_INLINE int32x4_t ht_mul16(int8x16_t w, int8x16_t x)
{
    return vpaddlq_s16(ht_mul16_words(w, x));
}
HT_INLINE int32x4_t ht_mul32(int8x16_t w0, int8x16_t w1, int8x16_t x0, int8x16_t x1)
{
    return vpadalq_s16(ht_mul16(w0, x0), ht_mul16_words(w1, x1));
}
HT_INLINE int32x4_t ht_mul32_64(int8x16_t w0, int8x16_t w1, int8x16_t x0, int8x16_t x1)
{
    int16x8_t p = ht_mul16_words(w0, x0);
    p = vmlal_s8(p, vget_low_s8(w1), vget_low_s8(x1));
    return vpaddlq_s16(vmlal_high_s8(p, w1, x1));
}
#endif

/* Lane i: the sum of the four lanes of v_i. */
HT_INLINE int32x4_t ht_sum4(int32x4_t v0, int32x4_t v1, int32x4_t v2, int32x4_t v3)
{
    return vpaddq_s32(vpaddq_s32(v0, v1), vpaddq_s32(v2, v3));
}

/* The tree of the numeric contract over accumulators 0..15. */
HT_INLINE float ht_tree_q(float32x4_t a0, float32x4_t a1, float32x4_t a2, float32x4_t a3)
{
    float32x4_t b = vaddq_f32(vaddq_f32(a0, a2), vaddq_f32(a1, a3));
    float32x2_t c = vadd_f32(vget_low_f32(b), vget_high_f32(b));
    return vget_lane_f32(c, 0) + vget_lane_f32(c, 1);
}

/* Eight blocks of activations. */
typedef struct ht_xpart {
    const int8_t *q;  /* 32 of block b at q + 32 b */
    const float *d;   /* [8] */
    const int16_t *s; /* [16] */
} ht_xpart;

HT_INLINE uint16_t ht_word(const uint8_t *p)
{
    uint16_t v;
    memcpy(&v, p, 2);
    return v;
}
HT_INLINE uint32_t ht_dword(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}

HT_INLINE float ht_half(uint16_t h)
{
    return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(h))), 0);
}
HT_INLINE float ht_half_at(const uint8_t *p)
{
    return ht_half(ht_word(p));
}

/* Sums of eight blocks of 32 from their partial sums. */
HT_INLINE int32x4x2_t ht_reduce(const int32x4_t v[8])
{
    return (int32x4x2_t){ { ht_sum4(v[0], v[1], v[2], v[3]), ht_sum4(v[4], v[5], v[6], v[7]) } };
}

/* The same from halves of 16, each less c times its sum of x and then times its scale. */
HT_INLINE int32x4x2_t ht_reduce_scaled(const int32x4_t v[16], int16x8x2_t sc, const int16_t *s, int c)
{
    int32x4_t h[4];
    for (int i = 0; i < 4; i++) {
        int16x4_t by = i % 2 ? vget_high_s16(sc.val[i / 2]) : vget_low_s16(sc.val[i / 2]);
        h[i] = ht_sum4(v[4 * i], v[4 * i + 1], v[4 * i + 2], v[4 * i + 3]);
        if (c)
            h[i] = vmlsq_n_s32(h[i], vmovl_s16(vld1_s16(s + 4 * i)), c);
        h[i] = vmulq_s32(h[i], vmovl_s16(by));
    }
    return (int32x4x2_t){ { vpaddq_s32(h[0], h[1]), vpaddq_s32(h[2], h[3]) } };
}

/* Sums of x of eight blocks. */
HT_INLINE int32x4x2_t ht_sums(ht_xpart x)
{
    return (int32x4x2_t){ { vpaddlq_s16(vld1q_s16(x.s)), vpaddlq_s16(vld1q_s16(x.s + 8)) } };
}

/* v - c * sum(x) */
HT_INLINE int32x4x2_t ht_less_sums(int32x4x2_t v, ht_xpart x, int c)
{
    const int32x4x2_t s = ht_sums(x);
    return (int32x4x2_t){ { vmlsq_n_s32(v.val[0], s.val[0], c), vmlsq_n_s32(v.val[1], s.val[1], c) } };
}

HT_INLINE int32x4x2_t ht_times(int32x4x2_t a, int32x4x2_t b)
{
    return (int32x4x2_t){ { vmulq_s32(a.val[0], b.val[0]), vmulq_s32(a.val[1], b.val[1]) } };
}

/* acc[0..8) + (d * x.d) * sum */
HT_INLINE void ht_add_blocks(float *acc, float32x4x2_t d, ht_xpart x, int32x4x2_t sum)
{
    for (int i = 0; i < 2; i++) {
        float32x4_t scale = vmulq_f32(d.val[i], vld1q_f32(x.d + 4 * i));
        vst1q_f32(acc + 4 * i, vfmaq_f32(vld1q_f32(acc + 4 * i), scale, vcvtq_f32_s32(sum.val[i])));
    }
}

HT_INLINE float32x4x2_t ht_all_blocks(float d)
{
    return (float32x4x2_t){ { vdupq_n_f32(d), vdupq_n_f32(d) } };
}

/* 0xff in every byte whose bit is set, lowest first. */
HT_INLINE uint8x16x2_t ht_bit_masks(uint32_t bits)
{
    const uint8x16_t v = vreinterpretq_u8_u32(vdupq_n_u32(bits));
    const uint8x16_t bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201u));
    const uint8x16_t at = vcombine_u8(vdup_n_u8(0), vdup_n_u8(1));
    return (uint8x16x2_t){ { vtstq_u8(vqtbl1q_u8(v, at), bit),
                             vtstq_u8(vqtbl1q_u8(v, vaddq_u8(at, vdupq_n_u8(2))), bit) } };
}

/* Adds n blocks (8, or fewer at the end of a row: what is missing has zero x) of weights at w to acc[0..8). */
typedef void ht_step_fn(const uint8_t *w, unsigned n, ht_xpart x, float *acc);

/* One kernel. bytes: of 8 blocks. tails: whether a row may end within 8 blocks. Four rows take turns, so that a step's
 * x comes from the first-level cache; the accumulators live in memory, a step is long enough to hide the way there and
 * back. */
HT_INLINE void ht_dot_q8_rows(float *y, const void *w, size_t stride, const uint32_t *rows, uint32_t n_rows,
                              const ht_q8_row *x, uint32_t k, unsigned bytes, bool tails, ht_step_fn *step)
{
    const uint32_t n_full = k / 256, n_tail = tails ? k % 256 / 32 : 0;
    int8_t tq[256];
    float td[8];
    int16_t ts[16];

    if (n_tail) {
        const size_t at = (size_t)n_full * 256;
        memset(tq, 0, sizeof tq);
        memset(td, 0, sizeof td);
        memset(ts, 0, sizeof ts);
        memcpy(tq, x->q + at, (size_t)n_tail * 32);
        memcpy(td, x->d + at / 32, n_tail * sizeof *td);
        memcpy(ts, x->s + at / 16, n_tail * 2 * sizeof *ts);
    }
    for (uint32_t i = 0; i < n_rows; i += 4) {
        const uint32_t n = n_rows - i < 4 ? n_rows - i : 4;
        const uint8_t *rows_at[4], *ahead[4]; /* the next four rows */
        _Alignas(16) float acc[4][16] = { { 0 } };
        for (uint32_t r = 0; r < n; r++) {
            rows_at[r] = ht_row_at(w, stride, rows, i + r);
            ahead[r] = i + 8 <= n_rows ? ht_row_at(w, stride, rows, i + 4 + r) : rows_at[r];
        }
        for (uint32_t b = 0; b < n_full; b++) {
            const ht_xpart part = { x->q + (size_t)b * 256, x->d + (size_t)b * 8, x->s + (size_t)b * 16 };
            for (uint32_t r = 0; r < n; r++) {
                const size_t at = (size_t)b * bytes;
                for (unsigned o = 0; o < bytes; o += 64)
                    __builtin_prefetch(ahead[r] + at + o);
                step(rows_at[r] + at, 8, part, acc[r] + b % 2 * 8);
            }
        }
        for (uint32_t r = 0; r < n; r++) {
            if (n_tail)
                step(rows_at[r] + (size_t)n_full * bytes, n_tail, (ht_xpart){ tq, td, ts }, acc[r] + n_full % 2 * 8);
            y[i + r] =
                ht_tree_q(vld1q_f32(acc[r]), vld1q_f32(acc[r] + 4), vld1q_f32(acc[r] + 8), vld1q_f32(acc[r] + 12));
        }
    }
}

#endif
