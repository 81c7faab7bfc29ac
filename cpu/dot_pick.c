/* SPDX-License-Identifier: MIT
 *
 * The choice among the variants of a dot product: the last row of the list that the SIMD level allows.
 * Owner: no state. Threads: any. */
#include "cpu/dot.h"

ht_dot_q8_fn *ht_dot_q8_pick(ht_type wanted, ht_isa level, const char **name)
{
    ht_dot_q8_fn *best = NULL;
#define HT_DOT_Q8(type, isa, fn)                                                                                       \
    if (HT_##type == wanted && ht_isa_has(level, HT_ISA_##isa))                                                                  \
        best = fn, *name = #fn;
#include "cpu/dot_q8.inc"
#undef HT_DOT_Q8
    return best;
}

ht_dot_f32_fn *ht_dot_f32_pick(ht_type wanted, ht_isa level, const char **name)
{
    ht_dot_f32_fn *best = NULL;
#define HT_DOT_F32(type, isa, fn)                                                                                      \
    if (HT_##type == wanted && ht_isa_has(level, HT_ISA_##isa))                                                                  \
        best = fn, *name = #fn;
#include "cpu/dot_f32.inc"
#undef HT_DOT_F32
    return best;
}
