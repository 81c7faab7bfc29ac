/* SPDX-License-Identifier: MIT
 *
 * The hot vec kernels, written once for 8 lanes (AVX2, and NEON by pairs) and 16 lanes (AVX-512) on the primitives of
 * vec_lanes.h: kernels over units of 32 elements held in UV vectors. Same sums in the same order as the plain forms
 * in vec_body.h. Included by the vec_<isa>.c of these levels with HT_VEC_LANES set. Threads: any; no state. */
#include "cpu/vec_common.h"
#include "cpu/vec_lanes.h"

static float HT_VEC(ht_dot)(const float *a, const float *b, uint32_t n)
{
    vf acc[UV];
    for (int v = 0; v < UV; v++) acc[v] = vf_zero();
    uint32_t i = 0;
    for (; i + 32 <= n; i += 32)
        for (int v = 0; v < UV; v++) acc[v] = vf_fma(vf_load(a + i + v * LANES), vf_load(b + i + v * LANES), acc[v]);
    for (int v = 0; v < UV && i < n; v++, i += LANES) {
        if (n - i >= LANES) {
            acc[v] = vf_fma(vf_load(a + i), vf_load(b + i), acc[v]);
        } else {
            vmask m = vm_first(n - i);
            acc[v] = vf_fma_m(vf_load_m(a + i, m), vf_load_m(b + i, m), acc[v], m);
            break;
        }
    }
    return vf_tree32(acc);
}

/* Whole blocks of 32 in vectors, the rest one by one into the same accumulators. */
static float HT_VEC(sum)(const float *x, uint32_t n)
{
    vf acc[UV];
    float a[32];
    for (int v = 0; v < UV; v++) acc[v] = vf_zero();
    uint32_t i = 0;
    for (; i + 32 <= n; i += 32)
        for (int v = 0; v < UV; v++) acc[v] = vf_add(acc[v], vf_load(x + i + v * LANES));
    if (i == n) return vf_tree32(acc);
    for (int v = 0; v < UV; v++) vf_store(a + v * LANES, acc[v]);
    for (uint32_t l = 0; i < n; i++, l++) a[l] += x[i];
    return ht_vec_tree32(a);
}

static float HT_VEC(sum_dev2)(const float *x, uint32_t n, float mean)
{
    vf acc[UV], vmean = vf_set1(mean);
    float a[32];
    for (int v = 0; v < UV; v++) acc[v] = vf_zero();
    uint32_t i = 0;
    for (; i + 32 <= n; i += 32)
        for (int v = 0; v < UV; v++) {
            vf dev = vf_sub(vf_load(x + i + v * LANES), vmean);
            acc[v] = vf_fma(dev, dev, acc[v]);
        }
    if (i == n) return vf_tree32(acc);
    for (int v = 0; v < UV; v++) vf_store(a + v * LANES, acc[v]);
    for (uint32_t l = 0; i < n; i++, l++) a[l] = fmaf(x[i] - mean, x[i] - mean, a[l]);
    return ht_vec_tree32(a);
}

static float HT_VEC(max)(const float *x, uint32_t n)
{
    vf top[4];
    float a[LANES], m = -INFINITY;
    for (int v = 0; v < 4; v++) top[v] = vf_set1(-INFINITY);
    uint32_t i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES)
        for (int v = 0; v < 4; v++) top[v] = vf_max(vf_load(x + i + v * LANES), top[v]);
    top[0] = vf_max(vf_max(top[0], top[1]), vf_max(top[2], top[3]));
    for (; i + LANES <= n; i += LANES) top[0] = vf_max(vf_load(x + i), top[0]);
    vf_store(a, top[0]);
    for (; i < n; i++) m = x[i] > m ? x[i] : m;
    for (i = 0; i < LANES; i++) m = a[i] > m ? a[i] : m;
    return m;
}

static float HT_VEC(sum16)(const float *x, uint32_t j0, uint32_t j1)
{
    enum { V = 16 / LANES };
    float a[16] = { 0 };
    vf acc[V];
    uint32_t j = j0;
    for (; j < j1 && j % 16; j++) a[j % 16] += x[j];
    for (int v = 0; v < V; v++) acc[v] = vf_load(a + v * LANES);
    for (; j + 16 <= j1; j += 16)
        for (int v = 0; v < V; v++) acc[v] = vf_add(acc[v], vf_load(x + j + v * LANES));
    for (int v = 0; v < V; v++) vf_store(a + v * LANES, acc[v]);
    for (; j < j1; j++) a[j % 16] += x[j];
    return ht_vec_tree16(a);
}

#if defined(__aarch64__)
/* vec_neon.c has a ht_quantise_q8 of its own. */
#elif HT_VEC_LANES == 8

static void HT_VEC(ht_quantise_q8)(const float *x, uint32_t k, int8_t *q, float *d, int16_t *s)
{
    const __m256i abs_mask = _mm256_set1_epi32(0x7fffffff);
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7); /* undoes the packs' order by halves */
    for (uint32_t b = 0; b < k / 32; b++, x += 32, q += 32) {
        __m256 v0 = _mm256_loadu_ps(x), v1 = _mm256_loadu_ps(x + 8);
        __m256 v2 = _mm256_loadu_ps(x + 16), v3 = _mm256_loadu_ps(x + 24);
        /* Largest magnitude by its bits: NaN above infinity above numbers. */
        __m256i m0 = _mm256_max_epu32(_mm256_and_si256(_mm256_castps_si256(v0), abs_mask),
                                      _mm256_and_si256(_mm256_castps_si256(v1), abs_mask));
        __m256i m1 = _mm256_max_epu32(_mm256_and_si256(_mm256_castps_si256(v2), abs_mask),
                                      _mm256_and_si256(_mm256_castps_si256(v3), abs_mask));
        m0 = _mm256_max_epu32(m0, m1);
        __m128i m = _mm_max_epu32(_mm256_castsi256_si128(m0), _mm256_extracti128_si256(m0, 1));
        m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0x4e));
        m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0xb1));
        uint32_t amax = (uint32_t)_mm_cvtsi128_si32(m);
        float db = ht_f32_from_bits(amax) / 127.0f;
        float id = 127.0f / ht_f32_from_bits(amax);
        if (__builtin_expect(amax >= 0x7f800000u || !(id <= FLT_MAX), 0)) {
            d[b] = ht_vec_null_block_d(amax);
            s[2 * b] = s[2 * b + 1] = 0;
            memset(q, 0, 32);
            continue;
        }
        __m256 vid = _mm256_set1_ps(id);
        __m256i q0 = _mm256_cvtps_epi32(_mm256_mul_ps(v0, vid)), q1 = _mm256_cvtps_epi32(_mm256_mul_ps(v1, vid));
        __m256i q2 = _mm256_cvtps_epi32(_mm256_mul_ps(v2, vid)), q3 = _mm256_cvtps_epi32(_mm256_mul_ps(v3, vid));
        __m256i all = _mm256_packs_epi16(_mm256_packs_epi32(q0, q1), _mm256_packs_epi32(q2, q3));
        all = _mm256_permutevar8x32_epi32(all, order);
        _mm256_storeu_si256((__m256i *)q, all);
        /* Sums of 8 bytes made unsigned by + 128. */
        __m256i sum = _mm256_sad_epu8(_mm256_xor_si256(all, _mm256_set1_epi8((char)0x80)), _mm256_setzero_si256());
        sum = _mm256_add_epi64(sum, _mm256_bsrli_epi128(sum, 8));
        d[b] = db;
        s[2 * b] = (int16_t)(_mm_cvtsi128_si32(_mm256_castsi256_si128(sum)) - 2048);
        s[2 * b + 1] = (int16_t)(_mm_cvtsi128_si32(_mm256_extracti128_si256(sum, 1)) - 2048);
    }
}

#else

static void HT_VEC(ht_quantise_q8)(const float *x, uint32_t k, int8_t *q, float *d, int16_t *s)
{
    const __m512i abs_mask = _mm512_set1_epi32(0x7fffffff);
    for (uint32_t b = 0; b < k / 32; b++, x += 32, q += 32) {
        __m512 v0 = _mm512_loadu_ps(x), v1 = _mm512_loadu_ps(x + 16);
        __m512i mm = _mm512_max_epu32(_mm512_and_si512(_mm512_castps_si512(v0), abs_mask),
                                      _mm512_and_si512(_mm512_castps_si512(v1), abs_mask));
        __m256i m8 = _mm256_max_epu32(_mm512_castsi512_si256(mm), _mm512_extracti64x4_epi64(mm, 1));
        __m128i m = _mm_max_epu32(_mm256_castsi256_si128(m8), _mm256_extracti128_si256(m8, 1));
        m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0x4e));
        m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0xb1));
        uint32_t amax = (uint32_t)_mm_cvtsi128_si32(m);
        float db = ht_f32_from_bits(amax) / 127.0f;
        float id = 127.0f / ht_f32_from_bits(amax);
        if (__builtin_expect(amax >= 0x7f800000u || !(id <= FLT_MAX), 0)) {
            d[b] = ht_vec_null_block_d(amax);
            s[2 * b] = s[2 * b + 1] = 0;
            memset(q, 0, 32);
            continue;
        }
        __m512 vid = _mm512_set1_ps(id);
        __m128i q0 = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(v0, vid)));
        __m128i q1 = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(v1, vid)));
        __m256i all = _mm256_inserti128_si256(_mm256_castsi128_si256(q0), q1, 1);
        _mm256_storeu_si256((__m256i *)q, all);
        __m256i sum = _mm256_sad_epu8(_mm256_xor_si256(all, _mm256_set1_epi8((char)0x80)), _mm256_setzero_si256());
        sum = _mm256_add_epi64(sum, _mm256_bsrli_epi128(sum, 8));
        d[b] = db;
        s[2 * b] = (int16_t)(_mm_cvtsi128_si32(_mm256_castsi256_si128(sum)) - 2048);
        s[2 * b + 1] = (int16_t)(_mm_cvtsi128_si32(_mm256_extracti128_si256(sum, 1)) - 2048);
    }
}

#endif

static void HT_VEC(store_f16)(const float *x, uint32_t n, void *row)
{
    uint8_t *p = row;
    uint32_t i = 0;
    for (; i + LANES <= n; i += LANES) vf_store_f16(p + (size_t)i * 2, vf_load(x + i));
    for (; i < n; i++) {
        uint16_t h = ht_vec_f32_to_f16(x[i]);
        memcpy(p + (size_t)i * 2, &h, 2);
    }
}

/* One block of columns of the state: nv (a constant) vectors. First pass: tmp += (S * decay) k without writing S; the
 * second repeats the product with decay, which costs less than storing it. */
HT_INLINE void delta_columns(const float *q, const float *k, const float *v, float decay, float beta, uint32_t k_dim,
                             uint32_t v_dim, int nv, float *S, float *tmp, float *y)
{
    vf acc[8], d[8];
    vf vdecay = vf_set1(decay);
    for (int l = 0; l < nv; l++) acc[l] = vf_zero();
    for (uint32_t i = 0; i < k_dim; i++) {
        const float *row = S + (size_t)i * v_dim;
        vf ki = vf_set1(k[i]);
        for (int l = 0; l < nv; l++) acc[l] = vf_fma(vf_mul(vf_load(row + l * LANES), vdecay), ki, acc[l]);
    }
    for (int l = 0; l < nv; l++) {
        d[l] = vf_mul(vf_sub(vf_load(v + l * LANES), acc[l]), vf_set1(beta));
        vf_store(tmp + l * LANES, d[l]);
        acc[l] = vf_zero();
    }
    for (uint32_t i = 0; i < k_dim; i++) {
        float *row = S + (size_t)i * v_dim;
        vf ki = vf_set1(k[i]), qi = vf_set1(q[i]);
        for (int l = 0; l < nv; l++) {
            vf s = vf_fma(ki, d[l], vf_mul(vf_load(row + l * LANES), vdecay));
            vf_store(row + l * LANES, s);
            acc[l] = vf_fma(s, qi, acc[l]);
        }
    }
    for (int l = 0; l < nv; l++) vf_store(y + l * LANES, acc[l]);
}

static void HT_VEC(ht_delta)(const float *q, const float *k, const float *v, float decay, float beta, uint32_t k_dim,
                             uint32_t v_dim, float *S, float *tmp, float *y)
{
    enum { NV = LANES == 8 ? 4 : 8 }; /* AVX2: 4 sums, 4 differences and the rest fit 16 registers */
    uint32_t j = 0;
    for (; j + NV * LANES <= v_dim; j += NV * LANES)
        delta_columns(q, k, v + j, decay, beta, k_dim, v_dim, NV, S + j, tmp + j, y + j);
    for (; j + LANES <= v_dim; j += LANES)
        delta_columns(q, k, v + j, decay, beta, k_dim, v_dim, 1, S + j, tmp + j, y + j);
    for (; j < v_dim; j++) {
        float t = 0.0f, sum = 0.0f;
        for (uint32_t i = 0; i < k_dim; i++) t = fmaf(S[(size_t)i * v_dim + j] * decay, k[i], t);
        tmp[j] = t = (v[j] - t) * beta;
        for (uint32_t i = 0; i < k_dim; i++) {
            float *s = S + (size_t)i * v_dim + j;
            *s = fmaf(k[i], t, *s * decay);
            sum = fmaf(*s, q[i], sum);
        }
        y[j] = sum;
    }
}

#include "cpu/vec_columns_body.h"
