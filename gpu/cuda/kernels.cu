/* SPDX-License-Identifier: MIT
 * The kernels in CUDA C. Compiled without fused multiply-adds of the compiler's own (-fmad=false): the numeric contract says
 * where they are. */
#include "gpu/kernels/all.h"
