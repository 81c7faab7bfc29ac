/* SPDX-License-Identifier: MIT
 *
 * Kernels as plain C: the third mapping of gpu/kernels/dialect.h. It runs every body on the processor, under sanitizers
 * too, for tests. Device memory is one malloc for each allocation, so that reaching beyond one is seen. */
#ifndef HT_GPU_PLAIN_H
#define HT_GPU_PLAIN_H

#include <stdbool.h>
#include <stdint.h>

/* The block that runs. */
typedef struct ht_plain_block {
    uint32_t x, y, z;
    bool backwards; /* threads from the last to the first: what needs a SYNC and has none differs */
} ht_plain_block;

typedef void ht_plain_fn(const ht_plain_block *block, void *const *ptr, const void *args);

/* The kernels in the order of gpu/kernels/list.inc. */
extern ht_plain_fn *const ht_plain_kernels[];

struct ht_gpu_driver;
/* Drivers over them: one device each, "plain" with threads forwards and backwards. */
extern const struct ht_gpu_driver ht_plain_driver, ht_plain_backwards_driver;

#endif
