/* SPDX-License-Identifier: MIT
 * All kernels: what each of the three mappings compiles. */
#include "gpu/kernels/small.h"
#include "gpu/kernels/product.h"
#include "gpu/kernels/attend.h"
#include "gpu/kernels/state.h"
#include "gpu/kernels/ffn.h"
