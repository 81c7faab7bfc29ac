/* SPDX-License-Identifier: MIT
 *
 * Dot products of weight rows with one token's activations, in plain C: the meaning of the numeric contract
 * (engine/base/exec.h), written out. Every other variant gives these bits.
 *
 * Quantised weights go through the canonical form of engine/base/types.h, 256 elements at a time.
 * Owner: no state. Threads: any. */
#include "cpu/dot.h"

#include <math.h>
#include <string.h>

#include "cpu/dot_tree.h"

enum { CHUNK = 256 }; /* a multiple of every type's block */

static float row_q8(ht_type type, const uint8_t *w, const ht_q8_row *x, uint32_t k)
{
    const ht_type_info *info = ht_type_get(type);
    int8_t q[CHUNK];
    int16_t sc[CHUNK / 16], mn[CHUNK / 16];
    float d[CHUNK / 32], dm[CHUNK / 32];
    float acc[16] = { 0 };

    for (uint32_t i0 = 0; i0 < k; i0 += CHUNK) {
        uint32_t n = k - i0 < CHUNK ? k - i0 : CHUNK;
        ht_type_unpack(type, w + ht_type_row_bytes(info, i0), n, &(ht_canon){ q, sc, mn, d, dm });
        for (uint32_t c = 0; c < n / 32; c++) {
            const uint32_t b = i0 / 32 + c;
            int32_t isum = 0, msum = 0;
            for (uint32_t h = 2 * c; h < 2 * c + 2; h++) {
                int32_t sum = 0;
                for (uint32_t i = 0; i < 16; i++)
                    sum += q[16 * h + i] * x->q[i0 + 16 * h + i];
                isum += sc[h] * sum;
                if (info->has_min)
                    msum += mn[h] * x->s[i0 / 16 + h];
            }
            float *a = &acc[b % 16];
            *a = fmaf(d[c] * x->d[b], (float)isum, *a);
            if (info->has_min)
                *a = fmaf(dm[c] * x->d[b], (float)msum, *a);
        }
    }
    return ht_tree16(acc);
}

static float row_f32(ht_type type, const uint8_t *w, const float *x, uint32_t k)
{
    const ht_type_info *info = ht_type_get(type);
    float v[CHUNK], acc[32] = { 0 };

    for (uint32_t i0 = 0; i0 < k; i0 += CHUNK) {
        uint32_t n = k - i0 < CHUNK ? k - i0 : CHUNK;
        ht_type_dequant(type, w + ht_type_row_bytes(info, i0), n, v);
        for (uint32_t i = 0; i < n; i++)
            acc[i % 32] = fmaf(v[i], x[i0 + i], acc[i % 32]); /* CHUNK is a multiple of 32 */
    }
    return ht_tree32(acc);
}

#define HT_DOT_Q8_REF(type, fn)                                                                                        \
    void fn(float *y, const void *w, size_t stride, const uint32_t *rows, uint32_t n_rows, const ht_q8_row *x,         \
            uint32_t k)                                                                                                \
    {                                                                                                                  \
        for (uint32_t i = 0; i < n_rows; i++)                                                                          \
            y[i] = row_q8(HT_##type, ht_row_at(w, stride, rows, i), x, k);                                             \
    }
#define HT_DOT_F32_REF(type, fn)                                                                                       \
    void fn(float *y, const void *w, size_t stride, const uint32_t *rows, uint32_t n_rows, const float *x, uint32_t k) \
    {                                                                                                                  \
        for (uint32_t i = 0; i < n_rows; i++)                                                                          \
            y[i] = row_f32(HT_##type, ht_row_at(w, stride, rows, i), x, k);                                            \
    }
#define HT_IF_REF_REF(x) x
#define HT_IF_REF_AVX2(x)
#define HT_IF_REF_AVX512(x)
#define HT_IF_REF_AVX512VNNI(x)
#define HT_IF_REF_NEON(x)
#define HT_IF_REF_DOTPROD(x)
#define HT_DOT_Q8(type, isa, fn) HT_IF_REF_##isa(HT_DOT_Q8_REF(type, fn))
#include "cpu/dot_q8.inc"
#undef HT_DOT_Q8
#define HT_DOT_F32(type, isa, fn) HT_IF_REF_##isa(HT_DOT_F32_REF(type, fn))
#include "cpu/dot_f32.inc"
#undef HT_DOT_F32
