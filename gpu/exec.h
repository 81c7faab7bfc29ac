/* SPDX-License-Identifier: MIT
 *
 * Inside the GPU executor. A list of operations is gone through twice by the same code (gpu_queue), so that what was
 * accepted is what runs: first everything is checked, and tables that kernels read are filled; then they are uploaded, and
 * the second pass launches. */
#ifndef HT_GPU_EXEC_H
#define HT_GPU_EXEC_H

#include "engine/base/types.h"
#include "gpu/device.h"
#include "gpu/kernels/args.h"

/* A weight type as devices hold it. */
typedef struct gpu_type {
    uint32_t block, bytes, align; /* elements, bytes of a block; where rows begin */
    bool quantised;
} gpu_type;
gpu_type gpu_type_of(uint32_t type);

enum { GPU_SLOTS = 32, GPU_TABLE = 128 << 10 /* bytes of tables of one submit */, GPU_COUNTS = 64 };

/* A counter of the device and the one of the caller that it is added to. */
typedef struct gpu_count {
    _Atomic uint64_t *to;
    const uint32_t *from; /* in the slot's tables on the host, after they were fetched */
} gpu_count;

/* A submit. */
typedef struct gpu_slot {
    ht_gpu_event event;
    gpu_count count[GPU_COUNTS];
    uint32_t n_counts; /* to be collected when the event is reached */
} gpu_slot;

typedef struct gpu_exec {
    ht_exec base;
    ht_gpu *g;
    uint64_t scratch, scratch_bytes; /* on the device */
    /* Tables that kernels read (offsets of pages): a slot for each submit, used anew when that one is done. */
    uint64_t tables;
    uint8_t *tables_host;
    bool tables_pinned;
    uint64_t n_submits;
    gpu_slot slots[GPU_SLOTS];
    ht_gpu_event last;      /* of the newest submit */
    ht_status failed;       /* sticks: what runs after a launch that failed would be wrong */
} gpu_exec;

/* One pass over operations. */
typedef struct gpu_queue {
    gpu_exec *x;
    bool dry;       /* check and fill tables, launch nothing */
    ht_status st;   /* the first failure */
    uint32_t slot;  /* of the tables */
    uint32_t table; /* bytes of it in use */
} gpu_queue;

/* Is it there: n rows of `row` bytes, `stride` bytes apart, from p on? p NULL: only where n == 0. */
bool gpu_has(const gpu_queue *q, const void *p, uint64_t n, uint64_t stride, uint64_t row);
/* The same of floats; NULL is allowed where `optional`. */
bool gpu_has_floats(const gpu_queue *q, const float *p, uint64_t n, uint64_t stride, uint64_t k, bool optional);
/* Activations of n tokens and k elements, their 8-bit form too where they have one. */
bool gpu_has_act(const gpu_queue *q, const ht_act *a, uint64_t n, uint64_t k);
/* A matrix held as rows that kernels can use, `n_rows` of them. */
bool gpu_has_part(const gpu_queue *q, const ht_part *p);

/* Launches kernel with grid (gx, gy, gz) and pointers from `ptr`, n_ptr of them. */
void gpu_run(gpu_queue *q, uint32_t kernel, uint64_t gx, uint64_t gy, uint64_t gz, const void *args, uint32_t args_bytes,
             const uint64_t *ptr, uint32_t n_ptr);
#define GPU_RUN(q, kernel, gx, gy, gz, args, ...)                                                                      \
    do {                                                                                                               \
        const uint64_t ptr_[] = { __VA_ARGS__ };                                                                       \
        gpu_run(q, kernel, gx, gy, gz, &(args), sizeof(args), ptr_, sizeof ptr_ / sizeof *ptr_);                       \
    } while (0)

static inline uint64_t gpu_addr(const void *p) { return (uint64_t)(uintptr_t)p; }
static inline uint64_t gpu_blocks(uint64_t n, uint32_t per) { return (n + per - 1) / per; }

/* `bytes` of a table for this submit: its address; *host is to be filled where it is not NULL (in a dry run). */
uint64_t gpu_table(gpu_queue *q, uint32_t bytes, void **host);

/* A counter that kernels may add to, and that is added to *to when the submit is done; its address. */
uint64_t gpu_counter(gpu_queue *q, _Atomic uint64_t *to);

/* The kernels of a type; 0xffffffff: there is none. */
typedef struct gpu_type_kernels {
    uint32_t mv1, mv8, fv, embed;
} gpu_type_kernels;
gpu_type_kernels gpu_kernels_of(uint32_t type);

/* Products of a part with tokens; the rest of the arguments in `a`, whose n, k, row_bytes and n_tok are set here. */
typedef struct gpu_product {
    const ht_part *w;
    const ht_act *x;
    float *y;
    const float *bias;
    uint64_t rows, tokens, weights; /* addresses or 0 */
    uint32_t n_tok;
    product_args a;
} gpu_product;
void gpu_run_product(gpu_queue *q, gpu_product p);
void gpu_run_quantise(gpu_queue *q, const ht_act *x, uint32_t n_tok, uint32_t k);

/* Operations: false where one cannot be run. */
bool gpu_op_small(gpu_queue *q, const ht_op *op);  /* exec_small.c */
bool gpu_op_matmul(gpu_queue *q, const ht_op *op); /* exec_product.c */
bool gpu_op_embed(gpu_queue *q, const ht_op *op);
bool gpu_op_attend(gpu_queue *q, const ht_op *op); /* exec_attend.c */
bool gpu_op_kv_write(gpu_queue *q, const ht_op *op);
bool gpu_op_state(gpu_queue *q, const ht_op *op);  /* exec_state.c: conv, delta, predict */
bool gpu_op_ffn(gpu_queue *q, const ht_op *op);    /* exec_ffn.c */

#endif
