/* SPDX-License-Identifier: MIT
 *
 * AVX-512 and AVX-VNNI on a processor with AVX2: for the build where tests run every x86 level (HEARTH_EMULATE). The
 * kernels' sources are compiled for AVX2 with this header in front and first on the include path. An instruction that works
 * within halves of a register runs as AVX2's on each half, the others are written out element by element after Intel's
 * description of their operation: same bits, and the same bytes of memory touched. What a kernel uses and is missing here
 * fails to compile: add it.
 *
 * Rounding: as AVX2's, to nearest even; fused multiply-adds are fused. Aligned loads and stores of 64 bytes trap where the
 * address is not aligned. Owner: no state. Threads: any. */
#ifndef HT_TESTS_EMULATE_IMMINTRIN_H
#define HT_TESTS_EMULATE_IMMINTRIN_H

#include_next <immintrin.h>

#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__) || !defined(__AVX2__) || !defined(__FMA__) || !defined(__F16C__)
#error "compile for AVX2, FMA and F16C"
#endif
/* What the kernels' files ask for. */
#define __AVX512F__ 1
#define __AVX512BW__ 1
#define __AVX512VL__ 1
#define __AVX512DQ__ 1
#define __AVX512VNNI__ 1
#define __AVX512VBMI__ 1
#define __AVXVNNI__ 1

#define EMU static inline __attribute__((always_inline, unused))

/* Elements of a register. */
typedef union emu {
    __m512i v;
    __m512 f;
    __m256i half[2];
    __m256 fhalf[2];
    __m128i lane[4];
    uint8_t u8[64];
    int8_t i8[64];
    uint16_t u16[32];
    uint32_t u32[16];
    int32_t i32[16];
    uint64_t u64[8];
    float f32[16];
} emu;

EMU __m512i emu_join(__m256i lo, __m256i hi)
{
    return (emu){ .half = { lo, hi } }.v;
}
EMU __m512 emu_fjoin(__m256 lo, __m256 hi)
{
    return (emu){ .fhalf = { lo, hi } }.f;
}
EMU __m256i emu_lo(__m512i a)
{
    return (emu){ .v = a }.half[0];
}
EMU __m256i emu_hi(__m512i a)
{
    return (emu){ .v = a }.half[1];
}
EMU __m256 emu_flo(__m512 a)
{
    return (emu){ .f = a }.fhalf[0];
}
EMU __m256 emu_fhi(__m512 a)
{
    return (emu){ .f = a }.fhalf[1];
}

/* ---- within halves: AVX2's own ---------------------------------------------------------------------------------- */

/* The names of the compiler's header are functions or macros; ours take their place through macros at the end. */
#define EMU_2(name)                                                                                                    \
    EMU __m512i emu512_##name(__m512i a, __m512i b)                                                                    \
    {                                                                                                                  \
        return emu_join(_mm256_##name(emu_lo(a), emu_lo(b)), _mm256_##name(emu_hi(a), emu_hi(b)));                     \
    }
EMU_2(add_epi8)
EMU_2(add_epi16)
EMU_2(add_epi32)
EMU_2(sub_epi8)
EMU_2(sub_epi16)
EMU_2(sub_epi32)
EMU_2(madd_epi16)
EMU_2(maddubs_epi16)
EMU_2(max_epu32)
EMU_2(mullo_epi16)
EMU_2(mullo_epi32)
EMU_2(packs_epi32)
EMU_2(shuffle_epi8)
EMU_2(sllv_epi32)
EMU_2(sllv_epi64)
EMU_2(srlv_epi32)
EMU_2(srlv_epi64)
EMU_2(unpackhi_epi32)
EMU_2(unpackhi_epi8)
EMU_2(unpacklo_epi8)
EMU_2(unpackhi_epi64)
EMU_2(unpacklo_epi32)
EMU_2(unpacklo_epi64)

#define EMU_1(name)                                                                                                    \
    EMU __m512i emu512_##name(__m512i a)                                                                               \
    {                                                                                                                  \
        return emu_join(_mm256_##name(emu_lo(a)), _mm256_##name(emu_hi(a)));                                           \
    }
EMU_1(abs_epi8)

#define EMU_SHIFT(name)                                                                                                \
    EMU __m512i emu512_##name(__m512i a, unsigned n)                                                                   \
    {                                                                                                                  \
        return emu_join(_mm256_##name(emu_lo(a), (int)n), _mm256_##name(emu_hi(a), (int)n));                           \
    }
EMU_SHIFT(slli_epi16)
EMU_SHIFT(slli_epi32)
EMU_SHIFT(srli_epi16)
EMU_SHIFT(srli_epi32)

#define EMU_F2(name)                                                                                                   \
    EMU __m512 emu512_##name(__m512 a, __m512 b)                                                                       \
    {                                                                                                                  \
        return emu_fjoin(_mm256_##name(emu_flo(a), emu_flo(b)), _mm256_##name(emu_fhi(a), emu_fhi(b)));                \
    }
EMU_F2(add_ps)
EMU_F2(max_ps)
EMU_F2(min_ps)
EMU_F2(mul_ps)
EMU_F2(sub_ps)

#define EMU_F3(name)                                                                                                   \
    EMU __m512 emu512_##name(__m512 a, __m512 b, __m512 c)                                                             \
    {                                                                                                                  \
        return emu_fjoin(_mm256_##name(emu_flo(a), emu_flo(b), emu_flo(c)),                                            \
                         _mm256_##name(emu_fhi(a), emu_fhi(b), emu_fhi(c)));                                           \
    }
EMU_F3(fmadd_ps)
EMU_F3(fnmadd_ps)

EMU __m512i emu512_and_si512(__m512i a, __m512i b)
{
    return a & b;
}
EMU __m512i emu512_or_si512(__m512i a, __m512i b)
{
    return a | b;
}
EMU __m512i emu512_xor_si512(__m512i a, __m512i b)
{
    return a ^ b;
}

/* Widening: of the lower and the upper half of a half. */
#define EMU_WIDEN(name)                                                                                                \
    EMU __m512i emu512_##name(__m256i a)                                                                               \
    {                                                                                                                  \
        return emu_join(_mm256_##name(_mm256_castsi256_si128(a)), _mm256_##name(_mm256_extracti128_si256(a, 1)));      \
    }
EMU_WIDEN(cvtepi16_epi32)
EMU_WIDEN(cvtepu16_epi32)
EMU_WIDEN(cvtepi8_epi16)
EMU_WIDEN(cvtepu8_epi16)

#define EMU_WIDEN_8_32(name)                                                                                           \
    EMU __m512i emu512_##name(__m128i a)                                                                               \
    {                                                                                                                  \
        return emu_join(_mm256_##name(a), _mm256_##name(_mm_srli_si128(a, 8)));                                        \
    }
EMU_WIDEN_8_32(cvtepi8_epi32)
EMU_WIDEN_8_32(cvtepu8_epi32)

EMU __m512 emu512_cvtepi32_ps(__m512i a)
{
    return emu_fjoin(_mm256_cvtepi32_ps(emu_lo(a)), _mm256_cvtepi32_ps(emu_hi(a)));
}
EMU __m512i emu512_cvtps_epi32(__m512 a)
{
    return emu_join(_mm256_cvtps_epi32(emu_flo(a)), _mm256_cvtps_epi32(emu_fhi(a)));
}
EMU __m512 emu512_cvtph_ps(__m256i a)
{
    return emu_fjoin(_mm256_cvtph_ps(_mm256_castsi256_si128(a)), _mm256_cvtph_ps(_mm256_extracti128_si256(a, 1)));
}
/* Any way but nearest even does not compile. Bit 3, exceptions masked, has no meaning to AVX's. */
#define emu512_cvtps_ph(a, how)                                                                                        \
    emu_narrow_halves(a, (int)sizeof(char[((how) & 7) == _MM_FROUND_TO_NEAREST_INT ? 1 : -1]))
EMU __m256i emu_narrow_halves(__m512 a, int nearest)
{
    (void)nearest;
    __m128i lo = _mm256_cvtps_ph(emu_flo(a), _MM_FROUND_TO_NEAREST_INT);
    __m128i hi = _mm256_cvtps_ph(emu_fhi(a), _MM_FROUND_TO_NEAREST_INT);
    return _mm256_inserti128_si256(_mm256_castsi128_si256(lo), hi, 1);
}

/* ---- constants, casts, memory ------------------------------------------------------------------------------------ */

EMU __m512i emu512_setzero_si512(void)
{
    return (__m512i){ 0 };
}
EMU __m512 emu512_setzero_ps(void)
{
    return (__m512){ 0 };
}
EMU __m512i emu512_set1_epi8(char a)
{
    return emu_join(_mm256_set1_epi8(a), _mm256_set1_epi8(a));
}
EMU __m512i emu512_set1_epi16(short a)
{
    return emu_join(_mm256_set1_epi16(a), _mm256_set1_epi16(a));
}
EMU __m512i emu512_set1_epi32(int a)
{
    return emu_join(_mm256_set1_epi32(a), _mm256_set1_epi32(a));
}
EMU __m512i emu512_set1_epi64(long long a)
{
    return emu_join(_mm256_set1_epi64x(a), _mm256_set1_epi64x(a));
}
EMU __m512 emu512_set1_ps(float a)
{
    return emu_fjoin(_mm256_set1_ps(a), _mm256_set1_ps(a));
}
#define emu512_setr_epi32(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p)                                              \
    emu_join(_mm256_setr_epi32(a, b, c, d, e, f, g, h), _mm256_setr_epi32(i, j, k, l, m, n, o, p))
#define emu512_setr_epi64(a, b, c, d, e, f, g, h)                                                                      \
    emu_join(_mm256_setr_epi64x(a, b, c, d), _mm256_setr_epi64x(e, f, g, h))

EMU __m512i emu512_castps_si512(__m512 a)
{
    return (__m512i)a;
}
EMU __m512 emu512_castsi512_ps(__m512i a)
{
    return (__m512)a;
}
/* The upper part of these is undefined: filled with what shows in a result. */
EMU __m512i emu512_castsi256_si512(__m256i a)
{
    return emu_join(a, _mm256_set1_epi8(0x55));
}
EMU __m512i emu512_castsi128_si512(__m128i a)
{
    return emu512_castsi256_si512(_mm256_inserti128_si256(_mm256_set1_epi8(0x55), a, 0));
}
EMU __m512 emu512_castps128_ps512(__m128 a)
{
    return (__m512)emu512_castsi128_si512((__m128i)a);
}
EMU __m256i emu512_castsi512_si256(__m512i a)
{
    return emu_lo(a);
}
EMU __m128i emu512_castsi512_si128(__m512i a)
{
    return _mm256_castsi256_si128(emu_lo(a));
}
EMU __m256 emu512_castps512_ps256(__m512 a)
{
    return emu_flo(a);
}

EMU __m512i emu512_loadu_si512(const void *p)
{
    emu r;
    memcpy(&r, p, sizeof r);
    return r.v;
}
EMU void emu512_storeu_si512(void *p, __m512i a)
{
    memcpy(p, &a, sizeof a);
}
EMU __m512i emu512_load_si512(const void *p)
{
    if ((uintptr_t)p % 64)
        __builtin_trap();
    return emu512_loadu_si512(p);
}
EMU void emu512_store_si512(void *p, __m512i a)
{
    if ((uintptr_t)p % 64)
        __builtin_trap();
    emu512_storeu_si512(p, a);
}
#define emu512_loadu_ps(p) emu512_castsi512_ps(emu512_loadu_si512(p))
#define emu512_storeu_ps(p, a) emu512_storeu_si512(p, emu512_castps_si512(a))
#define emu512_load_ps(p) emu512_castsi512_ps(emu512_load_si512(p))
#define emu512_store_ps(p, a) emu512_store_si512(p, emu512_castps_si512(a))

/* The n elements of `each` bytes whose bits are set; the others keep theirs, and their memory is not touched. */
EMU __m512i emu_load_masked(emu r, uint64_t mask, const void *p, int n, size_t each)
{
    for (int i = 0; i < n; i++)
        if (mask >> i & 1)
            memcpy(r.u8 + (size_t)i * each, (const char *)p + (size_t)i * each, each);
    return r.v;
}
EMU __m512i emu512_mask_loadu_epi8(__m512i a, __mmask64 m, const void *p)
{
    return emu_load_masked((emu){ .v = a }, m, p, 64, 1);
}
EMU __m512i emu512_mask_loadu_epi64(__m512i a, __mmask8 m, const void *p)
{
    return emu_load_masked((emu){ .v = a }, m, p, 8, 8);
}
EMU __m512i emu512_maskz_loadu_epi8(__mmask64 m, const void *p)
{
    return emu_load_masked((emu){ .u8 = { 0 } }, m, p, 64, 1);
}
EMU __m512i emu512_maskz_loadu_epi16(__mmask32 m, const void *p)
{
    return emu_load_masked((emu){ .u8 = { 0 } }, m, p, 32, 2);
}
EMU __m512 emu512_maskz_loadu_ps(__mmask16 m, const void *p)
{
    return (__m512)emu_load_masked((emu){ .u8 = { 0 } }, m, p, 16, 4);
}
EMU __m256i emu256_maskz_loadu_epi16(__mmask16 m, const void *p)
{
    return emu_lo(emu_load_masked((emu){ .u8 = { 0 } }, m, p, 16, 2));
}
EMU void emu512_mask_storeu_ps(void *p, __mmask16 m, __m512 a)
{
    const emu v = { .f = a };
    for (int i = 0; i < 16; i++)
        if (m >> i & 1)
            memcpy((char *)p + 4 * i, &v.f32[i], 4);
}

/* ---- element by element ------------------------------------------------------------------------------------------ */

/* r[i] = `value` for each of n elements of kind T whose bit of m is set, else what `from` has there. */
#define EMU_EACH(T, n, m, from, value)                                                                                 \
    emu r = { .v = from };                                                                                             \
    for (unsigned i = 0; i < (n); i++)                                                                                 \
        r.T[i] = (m) >> i & 1 ? (value) : r.T[i];                                                                      \
    return r.v
#define EMU_ALL (~0ull)

EMU __m512i emu512_mask_permutexvar_epi8(__m512i from, __mmask64 m, __m512i at, __m512i a)
{
    const emu w = { .v = at }, x = { .v = a };
    EMU_EACH(u8, 64, m, from, x.u8[w.u8[i] % 64]);
}
EMU __m512i emu512_mask_permutexvar_epi16(__m512i from, __mmask32 m, __m512i at, __m512i a)
{
    const emu w = { .v = at }, x = { .v = a };
    EMU_EACH(u16, 32, m, from, x.u16[w.u16[i] % 32]);
}
EMU __m512i emu512_permutexvar_epi32(__m512i at, __m512i a)
{
    const emu w = { .v = at }, x = { .v = a };
    EMU_EACH(u32, 16, EMU_ALL, a, x.u32[w.u32[i] % 16]);
}
EMU __m512i emu512_permutex2var_epi64(__m512i a, __m512i at, __m512i b)
{
    const emu w = { .v = at }, x = { .v = a }, y = { .v = b };
    EMU_EACH(u64, 8, EMU_ALL, a, w.u64[i] & 8 ? y.u64[w.u64[i] % 8] : x.u64[w.u64[i] % 8]);
}
#define emu512_permutexvar_epi8(at, a) emu512_mask_permutexvar_epi8(emu512_setzero_si512(), EMU_ALL, at, a)
#define emu512_permutexvar_epi16(at, a) emu512_mask_permutexvar_epi16(emu512_setzero_si512(), (__mmask32)EMU_ALL, at, a)
#define emu512_maskz_permutexvar_epi8(m, at, a) emu512_mask_permutexvar_epi8(emu512_setzero_si512(), m, at, a)
#define emu512_permutexvar_ps(at, a) emu512_castsi512_ps(emu512_permutexvar_epi32(at, emu512_castps_si512(a)))

EMU __m512i emu512_mask_add_epi8(__m512i from, __mmask64 m, __m512i a, __m512i b)
{
    const emu x = { .v = a }, y = { .v = b };
    EMU_EACH(u8, 64, m, from, (uint8_t)(x.u8[i] + y.u8[i]));
}
EMU __m512i emu512_mask_sub_epi8(__m512i from, __mmask64 m, __m512i a, __m512i b)
{
    const emu x = { .v = a }, y = { .v = b };
    EMU_EACH(u8, 64, m, from, (uint8_t)(x.u8[i] - y.u8[i]));
}
EMU __m512i emu512_mask_blend_epi64(__mmask8 m, __m512i a, __m512i b)
{
    const emu y = { .v = b };
    EMU_EACH(u64, 8, m, a, y.u64[i]);
}
EMU __m512i emu512_mask_sllv_epi32(__m512i from, __mmask16 m, __m512i a, __m512i n)
{
    const emu x = { .v = a }, y = { .v = n };
    EMU_EACH(u32, 16, m, from, y.u32[i] < 32 ? x.u32[i] << y.u32[i] : 0);
}
EMU __m512i emu512_rolv_epi64(__m512i a, __m512i n)
{
    const emu x = { .v = a }, y = { .v = n };
    EMU_EACH(u64, 8, EMU_ALL, a, x.u64[i] << y.u64[i] % 64 | x.u64[i] >> (64 - y.u64[i] % 64) % 64);
}
EMU __m512i emu512_rolv_epi32(__m512i a, __m512i n)
{
    const emu x = { .v = a }, y = { .v = n };
    EMU_EACH(u32, 16, EMU_ALL, a, x.u32[i] << y.u32[i] % 32 | x.u32[i] >> (32 - y.u32[i] % 32) % 32);
}
EMU __m256i emu256_rolv_epi32(__m256i a, __m256i n)
{
    return emu_lo(emu512_rolv_epi32(emu_join(a, a), emu_join(n, n)));
}

/* Bit `4 a + 2 b + c` of table for every bit of a, b, c. */
EMU __m512i emu512_ternarylogic_epi32(__m512i a, __m512i b, __m512i c, int table)
{
    __m512i r = { 0 };
    for (int i = 0; i < 8; i++)
        if (table >> i & 1)
            r |= (i & 4 ? a : ~a) & (i & 2 ? b : ~b) & (i & 1 ? c : ~c);
    return r;
}
EMU __m256i emu256_ternarylogic_epi32(__m256i a, __m256i b, __m256i c, int table)
{
    return emu_lo(emu512_ternarylogic_epi32(emu_join(a, a), emu_join(b, b), emu_join(c, c), table));
}

EMU __mmask64 emu512_test_epi8_mask(__m512i a, __m512i b)
{
    const emu x = { .v = a & b };
    __mmask64 m = 0;
    for (int i = 0; i < 64; i++)
        m |= (__mmask64)(x.u8[i] != 0) << i;
    return m;
}
EMU __mmask64 emu512_movepi8_mask(__m512i a)
{
    return emu512_test_epi8_mask(a, emu512_set1_epi8((char)0x80));
}
EMU __mmask16 emu512_cmplt_epi32_mask(__m512i a, __m512i b)
{
    const emu x = { .v = a }, y = { .v = b };
    unsigned m = 0;
    for (int i = 0; i < 16; i++)
        m |= (unsigned)(x.i32[i] < y.i32[i]) << i;
    return (__mmask16)m;
}

EMU __m512 emu512_mask3_fmadd_ps(__m512 a, __m512 b, __m512 c, __mmask16 m)
{
    const emu sum = { .f = emu512_fmadd_ps(a, b, c) };
    emu r = { .f = c };
    for (int i = 0; i < 16; i++)
        if (m >> i & 1)
            r.u32[i] = sum.u32[i];
    return r.f;
}
EMU __m512 emu512_shuffle_ps(__m512 a, __m512 b, int how)
{
    const emu x = { .f = a }, y = { .f = b };
    emu r;
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 4; j++)
            r.u32[i + j] = (j < 2 ? x : y).u32[i + (how >> 2 * j & 3)];
    return r.f;
}
EMU __m512i emu512_shuffle_i64x2(__m512i a, __m512i b, int how)
{
    const emu x = { .v = a }, y = { .v = b };
    return (emu){ .lane = { x.lane[how & 3], x.lane[how >> 2 & 3], y.lane[how >> 4 & 3], y.lane[how >> 6 & 3] } }.v;
}
EMU __m512i emu512_broadcast_i32x4(__m128i a)
{
    return (emu){ .lane = { a, a, a, a } }.v;
}
EMU __m512i emu512_broadcast_i64x4(__m256i a)
{
    return emu_join(a, a);
}
EMU __m512i emu512_inserti64x4(__m512i a, __m256i b, int at)
{
    return at & 1 ? emu_join(emu_lo(a), b) : emu_join(b, emu_hi(a));
}
EMU __m256i emu512_extracti64x4_epi64(__m512i a, int at)
{
    return at & 1 ? emu_hi(a) : emu_lo(a);
}
EMU __m256 emu512_extractf32x8_ps(__m512 a, int at)
{
    return at & 1 ? emu_fhi(a) : emu_flo(a);
}
EMU __m128i emu512_cvtepi32_epi8(__m512i a)
{
    const emu x = { .v = a };
    emu r;
    for (int i = 0; i < 16; i++)
        r.u8[i] = (uint8_t)x.u32[i];
    return r.lane[0];
}

/* a plus four products of unsigned bytes of b and signed ones of c. */
EMU __m512i emu512_dpbusd_epi32(__m512i a, __m512i b, __m512i c)
{
    const emu x = { .v = b }, y = { .v = c };
    emu r = { .v = a };
    for (int i = 0; i < 16; i++) {
        int sum = 0; /* of the four: fits */
        for (int j = 4 * i; j < 4 * i + 4; j++)
            sum += x.u8[j] * y.i8[j];
        r.u32[i] += (uint32_t)sum; /* wraps */
    }
    return r.v;
}
EMU __m256i emu256_dpbusd_avx_epi32(__m256i a, __m256i b, __m256i c)
{
    return emu_lo(emu512_dpbusd_epi32(emu_join(a, a), emu_join(b, b), emu_join(c, c)));
}

/* ---- the names ----------------------------------------------------------------------------------------------------- */

#undef _mm256_dpbusd_avx_epi32
#define _mm256_dpbusd_avx_epi32 emu256_dpbusd_avx_epi32
#undef _mm256_maskz_loadu_epi16
#define _mm256_maskz_loadu_epi16 emu256_maskz_loadu_epi16
#undef _mm256_rolv_epi32
#define _mm256_rolv_epi32 emu256_rolv_epi32
#undef _mm256_ternarylogic_epi32
#define _mm256_ternarylogic_epi32 emu256_ternarylogic_epi32
#undef _mm512_abs_epi8
#define _mm512_abs_epi8 emu512_abs_epi8
#undef _mm512_add_epi16
#define _mm512_add_epi16 emu512_add_epi16
#undef _mm512_add_epi32
#define _mm512_add_epi32 emu512_add_epi32
#undef _mm512_add_epi8
#define _mm512_add_epi8 emu512_add_epi8
#undef _mm512_add_ps
#define _mm512_add_ps emu512_add_ps
#undef _mm512_and_si512
#define _mm512_and_si512 emu512_and_si512
#undef _mm512_broadcast_i32x4
#define _mm512_broadcast_i32x4 emu512_broadcast_i32x4
#undef _mm512_broadcast_i64x4
#define _mm512_broadcast_i64x4 emu512_broadcast_i64x4
#undef _mm512_castps128_ps512
#define _mm512_castps128_ps512 emu512_castps128_ps512
#undef _mm512_castps512_ps256
#define _mm512_castps512_ps256 emu512_castps512_ps256
#undef _mm512_castps_si512
#define _mm512_castps_si512 emu512_castps_si512
#undef _mm512_castsi128_si512
#define _mm512_castsi128_si512 emu512_castsi128_si512
#undef _mm512_castsi256_si512
#define _mm512_castsi256_si512 emu512_castsi256_si512
#undef _mm512_castsi512_ps
#define _mm512_castsi512_ps emu512_castsi512_ps
#undef _mm512_castsi512_si128
#define _mm512_castsi512_si128 emu512_castsi512_si128
#undef _mm512_castsi512_si256
#define _mm512_castsi512_si256 emu512_castsi512_si256
#undef _mm512_cmplt_epi32_mask
#define _mm512_cmplt_epi32_mask emu512_cmplt_epi32_mask
#undef _mm512_cvtepi16_epi32
#define _mm512_cvtepi16_epi32 emu512_cvtepi16_epi32
#undef _mm512_cvtepi32_epi8
#define _mm512_cvtepi32_epi8 emu512_cvtepi32_epi8
#undef _mm512_cvtepi32_ps
#define _mm512_cvtepi32_ps emu512_cvtepi32_ps
#undef _mm512_cvtepi8_epi16
#define _mm512_cvtepi8_epi16 emu512_cvtepi8_epi16
#undef _mm512_cvtepi8_epi32
#define _mm512_cvtepi8_epi32 emu512_cvtepi8_epi32
#undef _mm512_cvtepu16_epi32
#define _mm512_cvtepu16_epi32 emu512_cvtepu16_epi32
#undef _mm512_cvtepu8_epi16
#define _mm512_cvtepu8_epi16 emu512_cvtepu8_epi16
#undef _mm512_cvtepu8_epi32
#define _mm512_cvtepu8_epi32 emu512_cvtepu8_epi32
#undef _mm512_cvtph_ps
#define _mm512_cvtph_ps emu512_cvtph_ps
#undef _mm512_cvtps_epi32
#define _mm512_cvtps_epi32 emu512_cvtps_epi32
#undef _mm512_cvtps_ph
#define _mm512_cvtps_ph emu512_cvtps_ph
#undef _mm512_dpbusd_epi32
#define _mm512_dpbusd_epi32 emu512_dpbusd_epi32
#undef _mm512_extractf32x8_ps
#define _mm512_extractf32x8_ps emu512_extractf32x8_ps
#undef _mm512_extracti64x4_epi64
#define _mm512_extracti64x4_epi64 emu512_extracti64x4_epi64
#undef _mm512_fmadd_ps
#define _mm512_fmadd_ps emu512_fmadd_ps
#undef _mm512_fnmadd_ps
#define _mm512_fnmadd_ps emu512_fnmadd_ps
#undef _mm512_inserti64x4
#define _mm512_inserti64x4 emu512_inserti64x4
#undef _mm512_load_ps
#define _mm512_load_ps emu512_load_ps
#undef _mm512_load_si512
#define _mm512_load_si512 emu512_load_si512
#undef _mm512_loadu_ps
#define _mm512_loadu_ps emu512_loadu_ps
#undef _mm512_loadu_si512
#define _mm512_loadu_si512 emu512_loadu_si512
#undef _mm512_madd_epi16
#define _mm512_madd_epi16 emu512_madd_epi16
#undef _mm512_maddubs_epi16
#define _mm512_maddubs_epi16 emu512_maddubs_epi16
#undef _mm512_mask3_fmadd_ps
#define _mm512_mask3_fmadd_ps emu512_mask3_fmadd_ps
#undef _mm512_mask_add_epi8
#define _mm512_mask_add_epi8 emu512_mask_add_epi8
#undef _mm512_mask_blend_epi64
#define _mm512_mask_blend_epi64 emu512_mask_blend_epi64
#undef _mm512_mask_loadu_epi64
#define _mm512_mask_loadu_epi64 emu512_mask_loadu_epi64
#undef _mm512_mask_loadu_epi8
#define _mm512_mask_loadu_epi8 emu512_mask_loadu_epi8
#undef _mm512_mask_permutexvar_epi16
#define _mm512_mask_permutexvar_epi16 emu512_mask_permutexvar_epi16
#undef _mm512_mask_permutexvar_epi8
#define _mm512_mask_permutexvar_epi8 emu512_mask_permutexvar_epi8
#undef _mm512_mask_sub_epi8
#define _mm512_mask_sub_epi8 emu512_mask_sub_epi8
#undef _mm512_movepi8_mask
#define _mm512_movepi8_mask emu512_movepi8_mask
#undef _mm512_mask_sllv_epi32
#define _mm512_mask_sllv_epi32 emu512_mask_sllv_epi32
#undef _mm512_mask_storeu_ps
#define _mm512_mask_storeu_ps emu512_mask_storeu_ps
#undef _mm512_maskz_loadu_epi16
#define _mm512_maskz_loadu_epi16 emu512_maskz_loadu_epi16
#undef _mm512_maskz_loadu_epi8
#define _mm512_maskz_loadu_epi8 emu512_maskz_loadu_epi8
#undef _mm512_maskz_loadu_ps
#define _mm512_maskz_loadu_ps emu512_maskz_loadu_ps
#undef _mm512_maskz_permutexvar_epi8
#define _mm512_maskz_permutexvar_epi8 emu512_maskz_permutexvar_epi8
#undef _mm512_max_epu32
#define _mm512_max_epu32 emu512_max_epu32
#undef _mm512_max_ps
#define _mm512_max_ps emu512_max_ps
#undef _mm512_min_ps
#define _mm512_min_ps emu512_min_ps
#undef _mm512_mul_ps
#define _mm512_mul_ps emu512_mul_ps
#undef _mm512_mullo_epi16
#define _mm512_mullo_epi16 emu512_mullo_epi16
#undef _mm512_mullo_epi32
#define _mm512_mullo_epi32 emu512_mullo_epi32
#undef _mm512_or_si512
#define _mm512_or_si512 emu512_or_si512
#undef _mm512_packs_epi32
#define _mm512_packs_epi32 emu512_packs_epi32
#undef _mm512_permutex2var_epi64
#define _mm512_permutex2var_epi64 emu512_permutex2var_epi64
#undef _mm512_permutexvar_epi16
#define _mm512_permutexvar_epi16 emu512_permutexvar_epi16
#undef _mm512_permutexvar_epi32
#define _mm512_permutexvar_epi32 emu512_permutexvar_epi32
#undef _mm512_permutexvar_epi8
#define _mm512_permutexvar_epi8 emu512_permutexvar_epi8
#undef _mm512_permutexvar_ps
#define _mm512_permutexvar_ps emu512_permutexvar_ps
#undef _mm512_rolv_epi32
#define _mm512_rolv_epi32 emu512_rolv_epi32
#undef _mm512_rolv_epi64
#define _mm512_rolv_epi64 emu512_rolv_epi64
#undef _mm512_set1_epi16
#define _mm512_set1_epi16 emu512_set1_epi16
#undef _mm512_set1_epi32
#define _mm512_set1_epi32 emu512_set1_epi32
#undef _mm512_set1_epi64
#define _mm512_set1_epi64 emu512_set1_epi64
#undef _mm512_set1_epi8
#define _mm512_set1_epi8 emu512_set1_epi8
#undef _mm512_set1_ps
#define _mm512_set1_ps emu512_set1_ps
#undef _mm512_setr_epi32
#define _mm512_setr_epi32 emu512_setr_epi32
#undef _mm512_setr_epi64
#define _mm512_setr_epi64 emu512_setr_epi64
#undef _mm512_setzero_ps
#define _mm512_setzero_ps emu512_setzero_ps
#undef _mm512_setzero_si512
#define _mm512_setzero_si512 emu512_setzero_si512
#undef _mm512_shuffle_epi8
#define _mm512_shuffle_epi8 emu512_shuffle_epi8
#undef _mm512_shuffle_i64x2
#define _mm512_shuffle_i64x2 emu512_shuffle_i64x2
#undef _mm512_shuffle_ps
#define _mm512_shuffle_ps emu512_shuffle_ps
#undef _mm512_slli_epi16
#define _mm512_slli_epi16 emu512_slli_epi16
#undef _mm512_slli_epi32
#define _mm512_slli_epi32 emu512_slli_epi32
#undef _mm512_sllv_epi32
#define _mm512_sllv_epi32 emu512_sllv_epi32
#undef _mm512_sllv_epi64
#define _mm512_sllv_epi64 emu512_sllv_epi64
#undef _mm512_srli_epi16
#define _mm512_srli_epi16 emu512_srli_epi16
#undef _mm512_srli_epi32
#define _mm512_srli_epi32 emu512_srli_epi32
#undef _mm512_srlv_epi32
#define _mm512_srlv_epi32 emu512_srlv_epi32
#undef _mm512_srlv_epi64
#define _mm512_srlv_epi64 emu512_srlv_epi64
#undef _mm512_store_ps
#define _mm512_store_ps emu512_store_ps
#undef _mm512_store_si512
#define _mm512_store_si512 emu512_store_si512
#undef _mm512_storeu_ps
#define _mm512_storeu_ps emu512_storeu_ps
#undef _mm512_storeu_si512
#define _mm512_storeu_si512 emu512_storeu_si512
#undef _mm512_sub_epi16
#define _mm512_sub_epi16 emu512_sub_epi16
#undef _mm512_sub_epi32
#define _mm512_sub_epi32 emu512_sub_epi32
#undef _mm512_sub_epi8
#define _mm512_sub_epi8 emu512_sub_epi8
#undef _mm512_sub_ps
#define _mm512_sub_ps emu512_sub_ps
#undef _mm512_ternarylogic_epi32
#define _mm512_ternarylogic_epi32 emu512_ternarylogic_epi32
#undef _mm512_test_epi8_mask
#define _mm512_test_epi8_mask emu512_test_epi8_mask
#undef _mm512_unpackhi_epi8
#define _mm512_unpackhi_epi8 emu512_unpackhi_epi8
#undef _mm512_unpacklo_epi8
#define _mm512_unpacklo_epi8 emu512_unpacklo_epi8
#undef _mm512_unpackhi_epi32
#define _mm512_unpackhi_epi32 emu512_unpackhi_epi32
#undef _mm512_unpackhi_epi64
#define _mm512_unpackhi_epi64 emu512_unpackhi_epi64
#undef _mm512_unpacklo_epi32
#define _mm512_unpacklo_epi32 emu512_unpacklo_epi32
#undef _mm512_unpacklo_epi64
#define _mm512_unpacklo_epi64 emu512_unpacklo_epi64
#undef _mm512_xor_si512
#define _mm512_xor_si512 emu512_xor_si512

#endif
