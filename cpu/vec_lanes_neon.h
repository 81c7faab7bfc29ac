/* SPDX-License-Identifier: MIT
 *
 * The primitives of vec_lanes.h for ARM: 8 lanes in two registers. ARM has 32 of 4 lanes where AVX2 has 16 of 8.
 * Included by vec_lanes.h. Threads: any; no state. */
#ifndef HT_CPU_VEC_LANES_NEON_H
#define HT_CPU_VEC_LANES_NEON_H

#include <arm_neon.h>

#include "cpu/vec_common.h"

typedef struct vf { float32x4_t lo, hi; } vf;
HT_INLINE vf vf_set1(float x) { return (vf){ vdupq_n_f32(x), vdupq_n_f32(x) }; }
HT_INLINE vf vf_zero(void) { return vf_set1(0.0f); }
HT_INLINE vf vf_load(const float *p) { return (vf){ vld1q_f32(p), vld1q_f32(p + 4) }; }
HT_INLINE void vf_store(float *p, vf a)
{
    vst1q_f32(p, a.lo);
    vst1q_f32(p + 4, a.hi);
}
HT_INLINE vf vf_add(vf a, vf b) { return (vf){ vaddq_f32(a.lo, b.lo), vaddq_f32(a.hi, b.hi) }; }
HT_INLINE vf vf_sub(vf a, vf b) { return (vf){ vsubq_f32(a.lo, b.lo), vsubq_f32(a.hi, b.hi) }; }
HT_INLINE vf vf_mul(vf a, vf b) { return (vf){ vmulq_f32(a.lo, b.lo), vmulq_f32(a.hi, b.hi) }; }
HT_INLINE vf vf_fma(vf a, vf b, vf c) { return (vf){ vfmaq_f32(c.lo, a.lo, b.lo), vfmaq_f32(c.hi, a.hi, b.hi) }; }
HT_INLINE vf vf_max(vf a, vf b) /* a > b ? a : b */
{
    return (vf){ vbslq_f32(vcgtq_f32(a.lo, b.lo), a.lo, b.lo), vbslq_f32(vcgtq_f32(a.hi, b.hi), a.hi, b.hi) };
}

HT_INLINE vf vf_load_f16(const uint8_t *p)
{
    const float16x8_t h = vreinterpretq_f16_u8(vld1q_u8(p));
    return (vf){ vcvt_f32_f16(vget_low_f16(h)), vcvt_high_f32_f16(h) };
}
HT_INLINE void vf_store_f16(uint8_t *p, vf a)
{
    vst1q_u8(p, vreinterpretq_u8_f16(vcvt_high_f16_f32(vcvt_f16_f32(a.lo), a.hi)));
}

HT_INLINE vf vf_of_bytes(int8x8_t b)
{
    const int16x8_t w = vmovl_s8(b);
    return (vf){ vcvtq_f32_s32(vmovl_s16(vget_low_s16(w))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(w))) };
}
HT_INLINE vf vf_load_i8(const uint8_t *p) { return vf_of_bytes(vreinterpret_s8_u8(vld1_u8(p))); }
/* Nibbles of vector v of a Q4_0 block, less 8. qs: the block's 16 bytes. */
HT_INLINE vf vf_load_i4(const uint8_t *qs, int v)
{
    const uint8x8_t b = vld1_u8(qs + v % 2 * 8), q = v >= 2 ? vshr_n_u8(b, 4) : vand_u8(b, vdup_n_u8(15));
    return vf_of_bytes(vsub_s8(vreinterpret_s8_u8(q), vdup_n_s8(8)));
}

/* The first n < 8 lanes only; the mask is n. */
typedef uint32_t vmask;
HT_INLINE vmask vm_first(uint32_t n) { return n; }
HT_INLINE vf vf_load_m(const float *p, vmask n)
{
    float f[8] = { 0 };
    memcpy(f, p, n * sizeof *f);
    return vf_load(f);
}
HT_INLINE void vf_store_m(float *p, vmask n, vf a)
{
    float f[8];
    vf_store(f, a);
    memcpy(p, f, n * sizeof *f);
}
HT_INLINE vf vf_fma_m(vf a, vf b, vf c, vmask n)
{
    static const uint32_t lanes[8] = { 0, 1, 2, 3, 4, 5, 6, 7 };
    const vf f = vf_fma(a, b, c);
    return (vf){ vbslq_f32(vcltq_u32(vld1q_u32(lanes), vdupq_n_u32(n)), f.lo, c.lo),
                 vbslq_f32(vcltq_u32(vld1q_u32(lanes + 4), vdupq_n_u32(n)), f.hi, c.hi) };
}

HT_INLINE float vf_tree32(const vf *a)
{
    const vf s = vf_add(vf_add(a[0], a[2]), vf_add(a[1], a[3]));
    const float32x4_t q = vaddq_f32(s.lo, s.hi);
    const float32x2_t d = vadd_f32(vget_low_f32(q), vget_high_f32(q));
    return vget_lane_f32(d, 0) + vget_lane_f32(d, 1);
}

#endif
