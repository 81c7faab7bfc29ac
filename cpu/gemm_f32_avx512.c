/* SPDX-License-Identifier: MIT
 *
 * Float32 products with many tokens, AVX-512: sixteen rows in lanes. See gemm_f32_body.h.
 * Owner: no state. Threads: any. */
#include <string.h>

#include "cpu/dot.h"
#include "cpu/gemm.h"
#include "cpu/gemm_avx512.h"
#include "cpu/gemm_tile.h"

enum { R = 16 };
typedef __m512 vec;

HT_INLINE vec v_load(const float *p)
{
    return _mm512_load_ps(p);
}
HT_INLINE void v_store(float *p, vec v)
{
    _mm512_store_ps(p, v);
}
HT_INLINE void v_store_n(float *p, vec v, uint32_t n)
{
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), v);
}
HT_INLINE vec v_set1(float f)
{
    return _mm512_set1_ps(f);
}
HT_INLINE vec v_fma(vec a, vec b, vec c)
{
    return _mm512_fmadd_ps(a, b, c);
}
HT_INLINE vec v_add(vec a, vec b)
{
    return _mm512_add_ps(a, b);
}

HT_INLINE void v_turn(vec v[16])
{
    __m512i t[16];
    for (int i = 0; i < 16; i++)
        t[i] = _mm512_castps_si512(v[i]);
    ht_transpose16(t);
    for (int i = 0; i < 16; i++)
        v[i] = _mm512_castsi512_ps(t[i]);
}

HT_INLINE void v_words(float *to, const uint8_t *from, uint32_t n, bool bf16)
{
    for (uint32_t i = 0; i < n; i += 16) {
        const __mmask16 m = (__mmask16)(n - i >= 16 ? 0xffff : (1u << (n - i)) - 1);
        __m256i h = _mm256_maskz_loadu_epi16(m, from + (size_t)i * 2);
        _mm512_mask_storeu_ps(to + i, m,
                              bf16 ? _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16))
                                   : _mm512_cvtph_ps(h));
    }
}

#define GEMM_F32 ht_gemm_f32__avx512
#define GEMM_ISA HT_ISA_AVX512
#include "cpu/gemm_f32_body.h"
