/* SPDX-License-Identifier: MIT
 *
 * The kernel table: the last row of each variant list that the SIMD level allows. Owner: no state. Threads: any. */
#include "cpu/kernels.h"

#include <string.h>

#include "cpu/attend.h"
#include "cpu/dot.h"
#include "cpu/down.h"
#include "cpu/gemm.h"
#include "cpu/gemm_tile.h"
#include "cpu/predict.h"
#include "cpu/vec.h"

void ht_kernels_init(ht_kernels *k, ht_isa isa)
{
    const char *name;

    memset(k, 0, sizeof *k);
    k->isa = isa;
    for (int t = 0; t < HT_TYPE_MAX; t++) {
        k->dot_q8[t] = ht_dot_q8_pick((ht_type)t, isa, &name);
        k->dot_f32[t] = ht_dot_f32_pick((ht_type)t, isa, &name);
    }
#define HT_DOWN(type, level, fn)                                                                                       \
    if (ht_isa_has(isa, HT_ISA_##level))                                                                               \
        k->down[HT_##type] = fn;
#include "cpu/down.inc"
#undef HT_DOWN
#define HT_GEMM_Q8(level, fn)                                                                                          \
    if (ht_isa_has(isa, HT_ISA_##level))                                                                               \
        k->gemm_q8 = fn;
#define HT_GEMM_F32(level, fn)                                                                                         \
    if (ht_isa_has(isa, HT_ISA_##level))                                                                               \
        k->gemm_f32 = fn;
#include "cpu/gemm.inc"
#undef HT_GEMM_Q8
#undef HT_GEMM_F32
#define HT_ATTEND(level, fn)                                                                                           \
    if (ht_isa_has(isa, HT_ISA_##level))                                                                               \
        k->attend = fn;
#include "cpu/attend.inc"
#undef HT_ATTEND
#define HT_SIGNS(level, fn)                                                                                            \
    if (ht_isa_has(isa, HT_ISA_##level))                                                                               \
        k->signs = fn;
#include "cpu/signs.inc"
#undef HT_SIGNS
    ht_vec_kernels_init(&k->vec, isa);
}

size_t ht_gemm_scratch_bytes(uint32_t k)
{
    const size_t q8 = ht_gemm_q8_bytes(k), f32 = ht_gemm_f32_bytes();
    return q8 > f32 ? q8 : f32;
}

size_t ht_down_scratch_floats(void) { return (size_t)HT_DOWN_LEVELS * HT_DOWN_SLICE; }

size_t ht_attend_scratch_bytes(uint32_t k_dim)
{
    const size_t scores = (size_t)HT_ATTEND_QUERIES * HT_ATTEND_STRIDE, weights = (size_t)HT_ATTEND_SIDE * HT_ATTEND_STRIDE;
    return (scores + weights + ht_attend_tile_floats(k_dim) + (size_t)HT_ATTEND_QUERIES * k_dim) * sizeof(float);
}
