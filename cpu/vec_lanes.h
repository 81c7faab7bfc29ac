/* SPDX-License-Identifier: MIT
 *
 * A thin layer of vector primitives, 8 lanes (AVX2; NEON in vec_lanes_neon.h) or 16 lanes (AVX-512) as HT_VEC_LANES
 * says: what vec_simd.h and attend_simd.h are written in. Included by the files of one SIMD level only. Threads: any; no
 * state. */
#ifndef HT_CPU_VEC_LANES_H
#define HT_CPU_VEC_LANES_H

#include "cpu/vec_common.h"

enum { LANES = HT_VEC_LANES, UV = 32 / HT_VEC_LANES };

#if defined(__aarch64__)
#include "cpu/vec_lanes_neon.h"
#elif HT_VEC_LANES == 8

#include <immintrin.h>

typedef __m256 vf;
HT_INLINE vf vf_zero(void) { return _mm256_setzero_ps(); }
HT_INLINE vf vf_set1(float x) { return _mm256_set1_ps(x); }
HT_INLINE vf vf_load(const float *p) { return _mm256_loadu_ps(p); }
HT_INLINE void vf_store(float *p, vf a) { _mm256_storeu_ps(p, a); }
HT_INLINE vf vf_add(vf a, vf b) { return _mm256_add_ps(a, b); }
HT_INLINE vf vf_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
HT_INLINE vf vf_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
HT_INLINE vf vf_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
HT_INLINE vf vf_max(vf a, vf b) { return _mm256_max_ps(a, b); } /* a > b ? a : b */
HT_INLINE vf vf_load_f16(const uint8_t *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)); }
HT_INLINE void vf_store_f16(uint8_t *p, vf a)
{
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}
HT_INLINE vf vf_load_i8(const uint8_t *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}
/* Nibbles of vector v of a Q4_0 block, less 8. qs: the block's 16 bytes. */
HT_INLINE vf vf_load_i4(const uint8_t *qs, int v)
{
    __m128i b = _mm_loadl_epi64((const __m128i *)(qs + v % 2 * 8));
    if (v >= 2) b = _mm_srli_epi16(b, 4);
    b = _mm_sub_epi8(_mm_and_si128(b, _mm_set1_epi8(15)), _mm_set1_epi8(8));
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(b));
}

/* The first n < LANES lanes only. */
typedef __m256i vmask;
HT_INLINE vmask vm_first(uint32_t n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
HT_INLINE vf vf_load_m(const float *p, vmask m) { return _mm256_maskload_ps(p, m); }
HT_INLINE void vf_store_m(float *p, vmask m, vf a) { _mm256_maskstore_ps(p, m, a); }
HT_INLINE vf vf_fma_m(vf a, vf b, vf c, vmask m)
{
    return _mm256_blendv_ps(c, _mm256_fmadd_ps(a, b, c), _mm256_castsi256_ps(m));
}

HT_INLINE float vf_tree32(const vf *a)
{
    __m256 s = _mm256_add_ps(_mm256_add_ps(a[0], a[2]), _mm256_add_ps(a[1], a[3]));
    __m128 h = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    h = _mm_add_ps(h, _mm_movehl_ps(h, h));
    return _mm_cvtss_f32(_mm_add_ss(h, _mm_movehdup_ps(h)));
}

#else

#include <immintrin.h>

typedef __m512 vf;
HT_INLINE vf vf_zero(void) { return _mm512_setzero_ps(); }
HT_INLINE vf vf_set1(float x) { return _mm512_set1_ps(x); }
HT_INLINE vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
HT_INLINE void vf_store(float *p, vf a) { _mm512_storeu_ps(p, a); }
HT_INLINE vf vf_add(vf a, vf b) { return _mm512_add_ps(a, b); }
HT_INLINE vf vf_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
HT_INLINE vf vf_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
HT_INLINE vf vf_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
HT_INLINE vf vf_max(vf a, vf b) { return _mm512_max_ps(a, b); } /* a > b ? a : b */
HT_INLINE vf vf_load_f16(const uint8_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }
HT_INLINE void vf_store_f16(uint8_t *p, vf a)
{
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
HT_INLINE vf vf_load_i8(const uint8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
HT_INLINE vf vf_load_i4(const uint8_t *qs, int v)
{
    __m128i b = _mm_loadu_si128((const __m128i *)qs);
    if (v >= 1) b = _mm_srli_epi16(b, 4);
    b = _mm_sub_epi8(_mm_and_si128(b, _mm_set1_epi8(15)), _mm_set1_epi8(8));
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(b));
}

typedef __mmask16 vmask;
HT_INLINE vmask vm_first(uint32_t n) { return (__mmask16)((1u << n) - 1u); }
HT_INLINE vf vf_load_m(const float *p, vmask m) { return _mm512_maskz_loadu_ps(m, p); }
HT_INLINE void vf_store_m(float *p, vmask m, vf a) { _mm512_mask_storeu_ps(p, m, a); }
HT_INLINE vf vf_fma_m(vf a, vf b, vf c, vmask m) { return _mm512_mask3_fmadd_ps(a, b, c, m); }

HT_INLINE float vf_tree32(const vf *a)
{
    __m512 s = _mm512_add_ps(a[0], a[1]);
    __m256 f = _mm256_add_ps(_mm512_castps512_ps256(s), _mm512_extractf32x8_ps(s, 1));
    __m128 h = _mm_add_ps(_mm256_castps256_ps128(f), _mm256_extractf128_ps(f, 1));
    h = _mm_add_ps(h, _mm_movehl_ps(h, h));
    return _mm_cvtss_f32(_mm_add_ss(h, _mm_movehdup_ps(h)));
}

#endif

#endif
