/* SPDX-License-Identifier: MIT
 * Dot products with 8-bit activations for any 64-bit ARM. Owner: no state. Threads: any. */
#include "engine/base/unpack_impl.h"

#define HT_LEVEL(name) name##__neon
#include "cpu/dot_q8_arm_body.h"
#include "cpu/dot_q8_iq_arm_body.h"
