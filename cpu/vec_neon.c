/* SPDX-License-Identifier: MIT
 * The vec kernels for 64-bit ARM: those of vec_simd.h on the primitives of vec_lanes_neon.h, and the one that is no loop
 * over such. Threads: any; no state. */
#define HT_VEC(name) name##__neon
#define HT_VEC_LANES 8
#include "cpu/vec_lanes.h"

HT_INLINE uint32x4_t magnitude(float32x4_t a) { return vandq_u32(vreinterpretq_u32_f32(a), vdupq_n_u32(0x7fffffff)); }

static void HT_VEC(ht_quantise_q8)(const float *x, uint32_t k, int8_t *q, float *d, int16_t *s)
{
    for (uint32_t b = 0; b < k / 32; b++, x += 32, q += 32) {
        float32x4_t v[8];
        int16x4_t w[8];
        for (int i = 0; i < 8; i++) v[i] = vld1q_f32(x + 4 * i);
        /* Largest magnitude by its bits: NaN above infinity above numbers. */
        uint32x4_t m = magnitude(v[0]);
        for (int i = 1; i < 8; i++) m = vmaxq_u32(m, magnitude(v[i]));
        const uint32_t amax = vmaxvq_u32(m);
        const float id = 127.0f / ht_f32_from_bits(amax);
        if (__builtin_expect(amax >= 0x7f800000u || !(id <= FLT_MAX), 0)) {
            d[b] = ht_vec_null_block_d(amax);
            s[2 * b] = s[2 * b + 1] = 0;
            memset(q, 0, 32);
            continue;
        }
        for (int i = 0; i < 8; i++) w[i] = vmovn_s32(vcvtnq_s32_f32(vmulq_n_f32(v[i], id)));
        d[b] = ht_f32_from_bits(amax) / 127.0f;
        for (int h = 0; h < 2; h++) {
            const int8x16_t all = vcombine_s8(vmovn_s16(vcombine_s16(w[4 * h], w[4 * h + 1])),
                                              vmovn_s16(vcombine_s16(w[4 * h + 2], w[4 * h + 3])));
            vst1q_s8(q + 16 * h, all);
            s[2 * b + (uint32_t)h] = vaddlvq_s8(all);
        }
    }
}

#include "cpu/vec_simd.h"
#include "cpu/vec_body.h"
