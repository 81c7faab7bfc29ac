/* SPDX-License-Identifier: MIT
 *
 * Float32 products with many tokens, AVX2: eight rows in lanes. See gemm_f32_body.h.
 * Owner: no state. Threads: any. */
#include <string.h>

#include "cpu/dot.h"
#include "cpu/gemm.h"
#include "cpu/gemm_avx2.h"
#include "cpu/gemm_tile.h"

enum { R = 8 };
typedef __m256 vec;

HT_INLINE vec v_load(const float *p)
{
    return _mm256_load_ps(p);
}
HT_INLINE void v_store(float *p, vec v)
{
    _mm256_store_ps(p, v);
}
HT_INLINE void v_store_n(float *p, vec v, uint32_t n)
{
    ht_store_lanes(p, v, n);
}
HT_INLINE vec v_set1(float f)
{
    return _mm256_set1_ps(f);
}
HT_INLINE vec v_fma(vec a, vec b, vec c)
{
    return _mm256_fmadd_ps(a, b, c);
}
HT_INLINE vec v_add(vec a, vec b)
{
    return _mm256_add_ps(a, b);
}

HT_INLINE void v_turn(vec v[8])
{
    __m256i t[8];
    for (int i = 0; i < 8; i++)
        t[i] = _mm256_castps_si256(v[i]);
    ht_transpose8(t);
    for (int i = 0; i < 8; i++)
        v[i] = _mm256_castsi256_ps(t[i]);
}

HT_INLINE void v_words(float *to, const uint8_t *from, uint32_t n, bool bf16)
{
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m128i h = _mm_loadu_si128((const __m128i *)(from + (size_t)i * 2));
        _mm256_storeu_ps(to + i, bf16 ? _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16))
                                      : _mm256_cvtph_ps(h));
    }
    for (; i < n; i++) {
        uint16_t h;
        memcpy(&h, from + (size_t)i * 2, 2);
        to[i] = bf16 ? ht_bf16_to_f32(h) : _cvtsh_ss(h);
    }
}

#define GEMM_F32 ht_gemm_f32__avx2
#define GEMM_ISA HT_ISA_AVX2
#include "cpu/gemm_f32_body.h"
