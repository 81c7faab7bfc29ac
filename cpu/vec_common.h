/* SPDX-License-Identifier: MIT
 *
 * What vec_body.h and vec_simd.h share: the trees of the numeric contract, half floats by integer arithmetic, and one
 * 32-block of each KV type. Included by vec_<isa>.c only. Threads: any; no state. */
#ifndef HT_CPU_VEC_COMMON_H
#define HT_CPU_VEC_COMMON_H

#include <float.h>
#include <string.h>

#include "cpu/vec.h"
#include "engine/base/vmath.h"

/* The iterations of the next loop are independent although pointers may be equal (in place). */
#if defined(__clang__)
#pragma clang diagnostic ignored "-Wpass-failed" /* a loop that it cannot vectorise is no fault */
#define HT_IVDEP _Pragma("clang loop vectorize(assume_safety)")
#else
#define HT_IVDEP _Pragma("GCC ivdep")
#endif

#define HT_INLINE static inline __attribute__((always_inline))

enum { HT_KV_Q8_0_BYTES = 34, HT_KV_Q4_0_BYTES = 18 };

/* a[i] + a[i+16], + [i+8], + [i+4], + [i+2], + [i+1] */
HT_INLINE float ht_vec_tree32(float *a)
{
    for (uint32_t i = 0; i < 16; i++) a[i] += a[i + 16];
    for (uint32_t i = 0; i < 8; i++) a[i] += a[i + 8];
    for (uint32_t i = 0; i < 4; i++) a[i] += a[i + 4];
    return (a[0] + a[2]) + (a[1] + a[3]);
}

HT_INLINE float ht_vec_tree16(float *a)
{
    for (uint32_t i = 0; i < 8; i++) a[i] += a[i + 8];
    for (uint32_t i = 0; i < 4; i++) a[i] += a[i + 4];
    return (a[0] + a[2]) + (a[1] + a[3]);
}

/* Exact; a signalling NaN becomes quiet, as vcvtph2ps makes it. */
HT_INLINE float ht_vec_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    uint32_t mag = (uint32_t)(h & 0x7fffu) << 13; /* at float32's places, exponent not yet rebased */
    float normal = ht_f32_from_bits(mag + (112u << 23));
    float special = ht_f32_from_bits((mag + (224u << 23)) | (mag > 0x0f800000u ? 0x400000u : 0u));
    /* A subnormal half is mantissa * 2^-24: made normal by a subtraction of what the implicit one adds. */
    float tiny = ht_f32_from_bits(mag + (113u << 23)) - 0x1p-14f;
    float r = mag < 0x00800000u ? tiny : (mag < 0x0f800000u ? normal : special);
    return ht_f32_from_bits(ht_f32_bits(r) | sign);
}

/* Nearest even; overflow to infinity; a NaN keeps its upper payload bits and becomes quiet, as vcvtps2ph makes it. */
HT_INLINE uint16_t ht_vec_f32_to_f16(float f)
{
    uint32_t sign = (ht_f32_bits(f) >> 16) & 0x8000u;
    uint32_t mag = ht_f32_bits(f) & 0x7fffffffu;
    uint32_t normal = (mag - (112u << 23) + 0xfffu + ((mag >> 13) & 1u)) >> 13;
    /* Below 2^-14: adding 0.5 rounds at 2^-24, the step of subnormal halves. */
    uint32_t tiny = ht_f32_bits(ht_f32_from_bits(mag) + 0.5f) - 0x3f000000u;
    uint32_t nan = 0x7e00u | ((mag >> 13) & 0x3ffu);
    uint32_t h = mag < 0x38800000u ? tiny : normal;
    h = mag >= 0x477ff000u ? 0x7c00u : h; /* 65520 and above */
    h = mag > 0x7f800000u ? nan : h;
    return (uint16_t)(h | sign);
}

HT_INLINE uint16_t ht_vec_u16_at(const void *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return h;
}

/* Largest |x| of a block as its bits: NaN above infinity above all numbers, whatever the order. */
HT_INLINE uint32_t ht_vec_amax_bits32(const float *x)
{
    uint32_t m = 0;
    for (uint32_t i = 0; i < 32; i++) {
        uint32_t a = ht_f32_bits(x[i]) & 0x7fffffffu;
        m = a > m ? a : m;
    }
    return m;
}

/* The scale of a block whose integers are all zero: it holds NaN or infinity (d keeps it, so that every product with
 * the block is NaN and the fault is seen in the logits), or nothing that 1/d could be taken of. */
HT_INLINE float ht_vec_null_block_d(uint32_t amax_bits)
{
    return amax_bits >= 0x7f800000u ? ht_f32_from_bits(amax_bits) : 0.0f;
}

/* GGUF Q8_0: f16 d, 32 int8. d = max|x| / 127, q = nearest-even of x * (1 / d) with d before its rounding to half.
 * (ggml's reference rounds halves away from zero; only exact halves differ.) */
HT_INLINE void ht_vec_store_q8_0(const float *x, uint8_t *dst)
{
    uint32_t amax = ht_vec_amax_bits32(x);
    float d = ht_f32_from_bits(amax) / 127.0f;
    float id = 1.0f / d;
    int8_t q[32];
    if (amax >= 0x7f800000u || !(id <= FLT_MAX)) {
        d = ht_vec_null_block_d(amax);
        memset(q, 0, sizeof q);
    } else {
        for (uint32_t i = 0; i < 32; i++) q[i] = (int8_t)(uint8_t)ht_f32_bits(x[i] * id + 12582912.0f);
    }
    uint16_t h = ht_vec_f32_to_f16(d);
    memcpy(dst, &h, 2);
    memcpy(dst + 2, q, 32);
}

/* GGUF Q4_0: f16 d, 16 bytes of two nibbles (i, i + 16); w = d * (nibble - 8). d = m / -8 for m the value of largest
 * magnitude (the first of equals), nibble = min(15, floor(x / d + 8.5)): ggml's reference rounding. */
HT_INLINE void ht_vec_store_q4_0(const float *x, uint8_t *dst)
{
    uint32_t amax = ht_vec_amax_bits32(x);
    float m = 0.0f;
    for (uint32_t i = 32; i-- > 0;) m = (ht_f32_bits(x[i]) & 0x7fffffffu) == amax ? x[i] : m;
    float d = m / -8.0f;
    float id = 1.0f / d;
    uint8_t q[32];
    if (amax >= 0x7f800000u || !(fabsf(id) <= FLT_MAX)) {
        d = ht_vec_null_block_d(amax);
        memset(q, 8, sizeof q);
    } else {
        for (uint32_t i = 0; i < 32; i++) {
            int32_t v = (int32_t)(x[i] * id + 8.5f);
            q[i] = (uint8_t)(v < 15 ? v : 15);
        }
    }
    uint16_t h = ht_vec_f32_to_f16(d);
    memcpy(dst, &h, 2);
    for (uint32_t i = 0; i < 16; i++) dst[2 + i] = (uint8_t)(q[i] | q[i + 16] << 4);
}

#endif
