/* SPDX-License-Identifier: MIT
 *
 * Many tokens at once, in plain C: token by token through the __ref dot products, which is what the contract says the
 * result must equal. Owner: no state. Threads: any. */
#include "cpu/dot.h"
#include "cpu/gemm.h"

void ht_gemm_q8__ref(float *y, size_t ldy, ht_type type, const void *w, size_t stride, uint32_t n_rows, const ht_q8 *x,
                     uint32_t n_tok, uint32_t k, void *scratch)
{
    const char *name;
    ht_dot_q8_fn *dot = ht_dot_q8_pick(type, HT_ISA_REF, &name);
    (void)scratch;
    for (size_t t = 0; t < n_tok; t++) {
        const size_t at = t * x->stride;
        dot(y + t * ldy, w, stride, NULL, n_rows, &(ht_q8_row){ x->q + at, x->d + at / 32, x->s + at / 16 }, k);
    }
}

void ht_gemm_f32__ref(float *y, size_t ldy, ht_type type, const void *w, size_t stride, uint32_t n_rows, const float *x,
                      size_t ldx, uint32_t n_tok, uint32_t k, void *scratch)
{
    const char *name;
    ht_dot_f32_fn *dot = ht_dot_f32_pick(type, HT_ISA_REF, &name);
    (void)scratch;
    for (size_t t = 0; t < n_tok; t++)
        dot(y + t * ldy, w, stride, NULL, n_rows, x + t * ldx, k);
}
