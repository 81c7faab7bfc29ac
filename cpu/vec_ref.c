/* SPDX-License-Identifier: MIT
 * The vec kernels in plain C for the baseline of the target: the definition that the other levels are tested against.
 * Threads: any; no state. */
#define HT_VEC(name) name##__ref
#include "cpu/vec_body.h"
