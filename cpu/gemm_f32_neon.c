/* SPDX-License-Identifier: MIT
 *
 * Float32 products with many tokens, ARM: eight rows in the lanes of two registers. See gemm_f32_body.h.
 * Owner: no state. Threads: any. */
#include <arm_neon.h>
#include <string.h>

#include "cpu/dot.h"
#include "cpu/gemm.h"
#include "cpu/gemm_tile.h"

#define HT_INLINE static inline __attribute__((always_inline))

enum { R = 8 };
typedef float32x4x2_t vec;

HT_INLINE vec v_load(const float *p)
{
    return (vec){ { vld1q_f32(p), vld1q_f32(p + 4) } };
}
HT_INLINE void v_store(float *p, vec v)
{
    vst1q_f32(p, v.val[0]);
    vst1q_f32(p + 4, v.val[1]);
}
HT_INLINE void v_store_n(float *p, vec v, uint32_t n)
{
    float f[R];
    v_store(f, v);
    memcpy(p, f, (n < R ? n : R) * sizeof *f);
}
HT_INLINE vec v_set1(float f)
{
    return (vec){ { vdupq_n_f32(f), vdupq_n_f32(f) } };
}
HT_INLINE vec v_fma(vec a, vec b, vec c)
{
    return (vec){ { vfmaq_f32(c.val[0], a.val[0], b.val[0]), vfmaq_f32(c.val[1], a.val[1], b.val[1]) } };
}
HT_INLINE vec v_add(vec a, vec b)
{
    return (vec){ { vaddq_f32(a.val[0], b.val[0]), vaddq_f32(a.val[1], b.val[1]) } };
}

/* Four rows of four, transposed. */
HT_INLINE void turn4(float32x4_t v[4])
{
    const float64x2_t a = vreinterpretq_f64_f32(vtrn1q_f32(v[0], v[1])),
                      b = vreinterpretq_f64_f32(vtrn2q_f32(v[0], v[1]));
    const float64x2_t c = vreinterpretq_f64_f32(vtrn1q_f32(v[2], v[3])),
                      d = vreinterpretq_f64_f32(vtrn2q_f32(v[2], v[3]));
    v[0] = vreinterpretq_f32_f64(vtrn1q_f64(a, c));
    v[1] = vreinterpretq_f32_f64(vtrn1q_f64(b, d));
    v[2] = vreinterpretq_f32_f64(vtrn2q_f64(a, c));
    v[3] = vreinterpretq_f32_f64(vtrn2q_f64(b, d));
}

HT_INLINE void v_turn(vec v[8])
{
    float32x4_t t[2][2][4]; /* [half of the columns][half of the rows] */
    for (int c = 0; c < 2; c++)
        for (int r = 0; r < 2; r++) {
            for (int i = 0; i < 4; i++)
                t[c][r][i] = v[4 * r + i].val[c];
            turn4(t[c][r]);
        }
    for (int i = 0; i < 8; i++)
        v[i] = (vec){ { t[i / 4][0][i % 4], t[i / 4][1][i % 4] } };
}

HT_INLINE float32x4_t four_words(uint16x4_t h, bool bf16)
{
    return bf16 ? vreinterpretq_f32_u32(vshll_n_u16(h, 16)) : vcvt_f32_f16(vreinterpret_f16_u16(h));
}

HT_INLINE void v_words(float *to, const uint8_t *from, uint32_t n, bool bf16)
{
    uint32_t i = 0;
    for (; i + 4 <= n; i += 4)
        vst1q_f32(to + i, four_words(vreinterpret_u16_u8(vld1_u8(from + (size_t)i * 2)), bf16));
    for (; i < n; i++) {
        uint16_t h;
        memcpy(&h, from + (size_t)i * 2, 2);
        to[i] = vgetq_lane_f32(four_words(vdup_n_u16(h), bf16), 0);
    }
}

#define GEMM_F32 ht_gemm_f32__neon
#define GEMM_ISA HT_ISA_NEON
#include "cpu/gemm_f32_body.h"
