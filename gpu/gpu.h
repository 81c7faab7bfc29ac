/* SPDX-License-Identifier: MIT
 *
 * The room gpu's public header: devices, their memory under a limit, and an executor (engine/base/exec.h) on each.
 *
 * Devices are reached through plug-ins that are looked for when devices are listed; a machine without any GPU software has
 * none, which is no error. All numbers keep the numeric contract: a device that rounds as IEEE 754 says (ht_gpu_info.exact)
 * gives the CPU executor's bits.
 *
 * Memory: addresses are 64-bit numbers, a byte apart within an allocation; in an operation they stand where the CPU has
 * pointers (ht_gpu_ptr). Every allocation is counted against the limit, the executor's own included.
 * Threads: any; a device does one thing at a time.
 * Errors: HT_ENOMEM over the limit or refused by the device; HT_EDEVICE where the device failed or was lost, from then on
 * for everything but closing and freeing. */
#ifndef HT_GPU_GPU_H
#define HT_GPU_GPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/base/cluster.h"
#include "engine/base/exec.h"
#include "engine/base/status.h"

enum { HT_GPU_MOST = 16, HT_GPU_QUEUES = 2 };

/* Queues: the executor's, and one for transfers beside it. */
enum { HT_GPU_COMPUTE, HT_GPU_TRANSFER };

/* Types of ht_part.type that only devices know: the canonical form of other quantised types (engine/base/types.h). */
enum { HT_GPU_CANON = 62, HT_GPU_CANON_MIN = 63 };

typedef struct ht_gpu_info {
    char name[128];            /* "NVIDIA GeForce RTX 4070" */
    char driver[16];           /* plug-in: "cuda", "opencl" */
    char version[64];          /* of the vendor's software, and the device's level */
    uint32_t index;            /* among the plug-in's devices */
    uint64_t memory_bytes, free_bytes; /* free: known of an open device only, where it can be told; else 0 */
    uint64_t most_bytes;       /* of one allocation */
    uint32_t units;            /* multiprocessors, compute units */
    bool unified;              /* shares the host's memory: an integrated GPU, or a processor */
    bool processor;            /* is the processor, behind OpenCL: for tests; to be taken only where it was asked for */
    bool exact;                /* rounds as IEEE 754 says: the bits of the CPU */
} ht_gpu_info;

typedef struct ht_gpu_list {
    ht_gpu_info gpu[HT_GPU_MOST];
    uint32_t n;
    char missing[512]; /* what is not there and why: "cuda: libcuda.so.1 was not found; ..."; empty: nothing */
} ht_gpu_list;

/* Finds plug-ins and devices. folder: where plug-ins lie, NULL: beside the library and in the folders of an installation
 * (docs/gpu.md). Takes some milliseconds, with a vendor's library up to a second. Never fails. */
void ht_gpu_find(ht_gpu_list *out, const char *folder);

typedef struct ht_gpu ht_gpu;

typedef struct ht_gpu_params {
    const char *driver;    /* "cuda" or "opencl" */
    uint32_t index;        /* of its devices */
    uint64_t limit_bytes;  /* of device memory, never exceeded; 0: none may be taken until ht_gpu_set_limit */
    const char *cache_dir; /* for compiled kernels; NULL: none is kept */
    const char *folder;    /* as ht_gpu_find has it */
} ht_gpu_params;

ht_status ht_gpu_open(ht_gpu **out, const ht_gpu_params *p, ht_error *err);
/* After its executors were closed. What was not freed is freed. NULL is allowed. */
void ht_gpu_close(ht_gpu **g);
const ht_gpu_info *ht_gpu_about(const ht_gpu *g);
bool ht_gpu_lost(const ht_gpu *g);

/* Bytes in use now and at most so far, executors included. A limit below what is in use stops new allocations only. */
uint64_t ht_gpu_used(const ht_gpu *g);
uint64_t ht_gpu_peak(const ht_gpu *g);
uint64_t ht_gpu_limit(const ht_gpu *g);
void ht_gpu_set_limit(ht_gpu *g, uint64_t bytes);

/* At least `bytes` (more than 0), aligned to 256; rounded up to that they are counted. */
ht_status ht_gpu_alloc(ht_gpu *g, uint64_t bytes, uint64_t *addr, ht_error *err);
/* What uses it must be done. 0 is allowed. */
void ht_gpu_free(ht_gpu *g, uint64_t addr);
/* Bytes from addr to the end of its allocation; 0: it lies in none. */
uint64_t ht_gpu_room(const ht_gpu *g, uint64_t addr);

/* Host memory from which and to which transfers are fast; where the system refuses it, ordinary memory. Not counted. */
void *ht_gpu_host_alloc(ht_gpu *g, size_t bytes);
void ht_gpu_host_free(ht_gpu *g, void *p);

typedef uint64_t ht_gpu_event; /* grows; 0: reached from the start */

/* Transfers, in the order of their queue; they return at once. Host memory must stay valid until an event after them is
 * reached. Ranges are checked: HT_EINVAL. */
ht_status ht_gpu_upload(ht_gpu *g, uint32_t queue, uint64_t to, const void *from, size_t bytes, ht_error *err);
ht_status ht_gpu_download(ht_gpu *g, uint32_t queue, void *to, uint64_t from, size_t bytes, ht_error *err);
ht_status ht_gpu_copy(ht_gpu *g, uint32_t queue, uint64_t to, uint64_t from, size_t bytes, ht_error *err);
/* All that was given to the queue so far. */
ht_status ht_gpu_record(ht_gpu *g, uint32_t queue, ht_gpu_event *event, ht_error *err);
ht_status ht_gpu_reached(ht_gpu *g, ht_gpu_event event, ht_error *err); /* HT_OK, or HT_LATER */
ht_status ht_gpu_wait(ht_gpu *g, ht_gpu_event event, ht_error *err);
/* What is given to the queue from now on waits for the event. */
ht_status ht_gpu_join(ht_gpu *g, uint32_t queue, ht_gpu_event event, ht_error *err);

/* What a plan needs to know of a device; bytes and operations a second, seconds. */
typedef struct ht_gpu_figures {
    double read_bps;     /* of its memory, by a kernel that reads it in order */
    double upload_bps, download_bps; /* between it and pinned host memory, large pieces */
    double submit_s;     /* one launch of next to nothing, until the host knows that it is done */
    double launch_s;     /* one of many launches in a row */
} ht_gpu_figures;
/* Measures for about a tenth of a second, in half of the memory that the limit leaves, at most 256 MiB. HT_ENOMEM: it
 * leaves less than 2 MiB. */
ht_status ht_gpu_measure(ht_gpu *g, ht_gpu_figures *out, ht_error *err);

/* ---- weights ---- */

/* The type in which a device holds weights of `type`: itself, or, of quantised types without kernels, their canonical
 * form, which loses nothing. -1: not supported. */
int ht_gpu_type(uint32_t type);
/* Bytes of a row of k elements of a type of the device (ht_gpu_type); 0: unknown, or k is no multiple of its block. */
size_t ht_gpu_row_bytes(uint32_t type, uint32_t k);
/* Row of k elements of `type` as the device holds it, ht_gpu_row_bytes(ht_gpu_type(type), k) bytes. */
void ht_gpu_row(uint32_t type, const void *src, uint32_t k, void *dst);
/* Takes a part to the device: allocates, converts what needs it, uploads and waits. *out is the part there, its `host`
 * NULL; free out->device. Packed orders of rows are straightened; neuron-major parts are taken as they are, in the form that
 * is made in memory only. One at a time; others wait. HT_EUNSUPPORTED: no device can hold it so. */
ht_status ht_gpu_upload_part(ht_gpu *g, const ht_part *part, ht_part *out, ht_error *err);

/* ---- the executor ---- */

typedef struct ht_gpu_exec_params {
    uint64_t scratch_bytes; /* of device memory: gate and up rows of a feed-forward block, partial sums of attention; at
                               least one row of a block's hidden units must fit */
} ht_gpu_exec_params;

/* Operations as engine/base/exec.h has them, of at most 65,535 tokens. Its events are the device's (ht_gpu_event): a transfer
 * may join them. What stands for a pointer is an address of this device (ht_gpu_ptr), with these
 * exceptions, which are read by submit and lie in host memory: ht_op_ffn.items, ht_kv_view.pages (whose entries are addresses
 * of one allocation). Of counters n_active and n_neurons are kept, the former when the submit was waited for, n_bytes and
 * counts are left as they are. Parts are used by their `device` and must be held as rows, a down projection also
 * as rows of neurons or neuron-major; other lists and weights of an item are device memory. What a list names (tokens, rows
 * of a table) is the caller's word, as everywhere. Refused: HT_OP_TRANSPOSE, HT_OP_SIGNS. Every address is checked against the allocations: HT_EINVAL. */
ht_status ht_gpu_exec_open(ht_exec **out, ht_gpu *g, const ht_gpu_exec_params *p, ht_error *err);

/* An address where an operation has a pointer. */
static inline void *ht_gpu_ptr(uint64_t addr) { return (void *)(uintptr_t)addr; }

#endif
