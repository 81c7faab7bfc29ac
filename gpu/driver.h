/* SPDX-License-Identifier: MIT
 *
 * The driver table: what a GPU plug-in exports, and all that the room gpu knows of CUDA or OpenCL. A plug-in is a shared
 * object (hearth-cuda.so, hearth-opencl.so) with one symbol, HT_GPU_DRIVER_SYMBOL; it opens its vendor's library itself
 * when asked for devices, so that it loads on a machine without one. docs/gpu.md draws the whole.
 *
 * Addresses are 64-bit numbers that grow by bytes within an allocation; 0 is none. Of CUDA they are those of the device,
 * of OpenCL (buffer << 40 | offset): nobody but the driver looks inside.
 * Queues run what they are given in order; different queues have no order but by join(). Host memory given to upload and
 * download must stay valid until an event recorded after it is reached.
 * Threads: count and describe any; of one device one thread at a time (gpu/device.c holds a lock).
 * Errors: HT_ENOMEM where memory is refused, HT_EDEVICE where the device failed or is lost, with a sentence. */
#ifndef HT_GPU_DRIVER_H
#define HT_GPU_DRIVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/base/status.h"
#include "gpu/gpu.h"

#define HT_GPU_ABI 1u
#define HT_GPU_DRIVER_SYMBOL "ht_gpu_driver_table"
enum { HT_GPU_PTRS = 10, HT_GPU_EVENTS = 256 };

/* Numbers of kernels. */
typedef enum ht_gpu_kernel {
#define HT_GPU_KERNEL(name, threads, args) HT_K_##name,
#include "gpu/kernels/list.inc"
#undef HT_GPU_KERNEL
    HT_N_GPU_KERNELS
} ht_gpu_kernel;

/* A kernel's name, threads per block, size of its arguments. */
typedef struct ht_gpu_kernel_info {
    const char *name;
    uint32_t threads, args_bytes;
} ht_gpu_kernel_info;

/* FNV-1a over all of that: a plug-in of another build is told apart. */
static inline uint64_t ht_gpu_hash_kernels(const ht_gpu_kernel_info *k, uint32_t n)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (uint32_t i = 0; i < n; i++) {
        for (const char *s = k[i].name; *s; s++)
            h = (h ^ (uint8_t)*s) * 0x100000001b3u;
        h = (h ^ k[i].threads) * 0x100000001b3u;
        h = (h ^ k[i].args_bytes) * 0x100000001b3u;
    }
    return h;
}

typedef struct ht_gpu_launch {
    uint32_t kernel;            /* ht_gpu_kernel */
    uint32_t grid[3];           /* blocks; none is 0 */
    uint32_t args_bytes;
    uint32_t shared_bytes;      /* of shared memory beside what the kernel declares */
    const void *args;           /* its argument struct, copied */
    uint64_t ptr[HT_GPU_PTRS];  /* addresses; 0: NULL */
} ht_gpu_launch;

typedef struct ht_gpu_open_args {
    uint32_t index;        /* of the device, below what count() said */
    const char *cache_dir; /* folder for compiled kernels, NULL: none is kept */
} ht_gpu_open_args;

typedef struct ht_gpu_driver {
    uint32_t abi, bytes;        /* HT_GPU_ABI, sizeof(ht_gpu_driver) */
    uint32_t n_kernels, n_ptrs; /* HT_N_GPU_KERNELS, HT_GPU_PTRS: made from the same list */
    const char *name;           /* "cuda" */
    uint64_t (*kernels_hash)(void); /* ht_gpu_hash_kernels of its list */
    /* Devices, in the vendor's order. EUNSUPPORTED with the reason where there is no vendor library. */
    ht_status (*count)(uint32_t *n, ht_error *err);
    ht_status (*describe)(uint32_t index, ht_gpu_info *out, ht_error *err);
    ht_status (*open)(void **dev, const ht_gpu_open_args *args, ht_error *err);
    void (*close)(void *dev); /* waits for what is under way; frees what was not */
    /* Device memory that is free, of all programs; EUNSUPPORTED: it cannot be told. */
    ht_status (*free_bytes)(void *dev, uint64_t *bytes, ht_error *err);
    ht_status (*alloc)(void *dev, uint64_t bytes, uint64_t *addr, ht_error *err);
    void (*free)(void *dev, uint64_t addr);
    /* Host memory that transfers reach fast (pinned). */
    ht_status (*host_alloc)(void *dev, size_t bytes, void **p, ht_error *err);
    void (*host_free)(void *dev, void *p);
    ht_status (*upload)(void *dev, uint32_t queue, uint64_t to, const void *from, size_t bytes, ht_error *err);
    ht_status (*download)(void *dev, uint32_t queue, void *to, uint64_t from, size_t bytes, ht_error *err);
    ht_status (*copy)(void *dev, uint32_t queue, uint64_t to, uint64_t from, size_t bytes, ht_error *err);
    ht_status (*launch)(void *dev, uint32_t queue, const ht_gpu_launch *l, ht_error *err);
    /* Events are slots below HT_GPU_EVENTS; recording again forgets what was. HT_LATER: not reached yet. */
    ht_status (*record)(void *dev, uint32_t queue, uint32_t slot, ht_error *err);
    ht_status (*query)(void *dev, uint32_t slot, ht_error *err);
    ht_status (*wait)(void *dev, uint32_t slot, ht_error *err);
    ht_status (*join)(void *dev, uint32_t queue, uint32_t slot, ht_error *err); /* the queue waits for it */
} ht_gpu_driver;

#endif
