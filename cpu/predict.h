/* SPDX-License-Identifier: MIT
 *
 * Kernels of predictors: the variants from their lists. Owner: no state. Threads: any. */
#ifndef HT_CPU_PREDICT_H
#define HT_CPU_PREDICT_H

#include "cpu/kernels.h"
#include "engine/base/signs.h"

#define HT_SIGNS(isa, fn) ht_signs_fn fn;
#include "cpu/signs.inc"
#undef HT_SIGNS

#endif
