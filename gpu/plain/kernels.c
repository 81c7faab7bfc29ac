/* SPDX-License-Identifier: MIT
 * The kernels' bodies in plain C. */
#include "gpu/plain/plain.h"

#define HT_GPU_KERNEL(name, threads, args) ht_plain_fn ht_plain_##name;
#include "gpu/kernels/list.inc"
#undef HT_GPU_KERNEL

#include "gpu/kernels/all.h"

#define HT_GPU_KERNEL(name, threads, args) ht_plain_##name,
ht_plain_fn *const ht_plain_kernels[] = {
#include "gpu/kernels/list.inc"
};
