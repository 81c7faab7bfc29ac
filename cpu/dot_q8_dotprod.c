/* SPDX-License-Identifier: MIT
 * Dot products with 8-bit activations for ARM with dotprod. Owner: no state. Threads: any. */
#if !defined(__ARM_FEATURE_DOTPROD)
#error "compile with -march=armv8.2-a+dotprod"
#endif
#include "engine/base/unpack_impl.h"

#define HT_LEVEL(name) name##__dotprod
#include "cpu/dot_q8_arm_body.h"
#include "cpu/dot_q8_iq_arm_body.h"
