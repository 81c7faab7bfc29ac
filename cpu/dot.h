/* SPDX-License-Identifier: MIT
 *
 * Declares every variant of the dot products from their lists. Owner: no state. Threads: any. */
#ifndef HT_CPU_DOT_H
#define HT_CPU_DOT_H

#include "cpu/kernels.h"

#define HT_DOT_Q8(type, isa, fn) ht_dot_q8_fn fn;
#include "cpu/dot_q8.inc"
#undef HT_DOT_Q8
#define HT_DOT_F32(type, isa, fn) ht_dot_f32_fn fn;
#include "cpu/dot_f32.inc"
#undef HT_DOT_F32

/* The best variant at or below `level`, or NULL where the type has none; its name goes to *name then. */
ht_dot_q8_fn *ht_dot_q8_pick(ht_type wanted, ht_isa level, const char **name);
ht_dot_f32_fn *ht_dot_f32_pick(ht_type wanted, ht_isa level, const char **name);

#endif
