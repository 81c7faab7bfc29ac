/* SPDX-License-Identifier: MIT
 * Inside the CPU executor: what its operations share. Not for other rooms. */
#ifndef HT_CPU_EXEC_H
#define HT_CPU_EXEC_H

#include "cpu/cpu.h"
#include "cpu/kernels.h"
#include "cpu/stream.h"

typedef struct cpu_exec cpu_exec;
typedef struct cpu_op cpu_op;

/* One phase of an operation: a task over chunks, or, where it has a single chunk, the tail of the task before it. */
typedef void cpu_phase_fn(const cpu_op *op, uint32_t chunk, uint32_t thread);
typedef void cpu_range_fn(const cpu_op *op, uint32_t first, uint32_t n, uint32_t thread); /* n neighbouring chunks */

enum { CPU_MAX_PHASES = 5, CPU_MAX_JOINED = 4 };

/* A phase in the queue: a task's ctx, or a link of its chain of tails. */
typedef struct cpu_step {
    const cpu_op *op;
    uint32_t phase;
    const struct cpu_step *tail; /* what the thread that ends the task, or the tail before, runs next */
} cpu_step;

/* An operation in the queue, with what was decided when it was submitted. */
struct cpu_op {
    ht_op op;
    cpu_exec *x;
    cpu_phase_fn *phase[CPU_MAX_PHASES];
    cpu_range_fn *range[CPU_MAX_PHASES]; /* instead of phase: several chunks in one go */
    uint32_t n_chunks[CPU_MAX_PHASES];
    uint32_t n_phases;
    uint32_t grain[CPU_MAX_PHASES];  /* rows, tokens or channels per chunk */
    uint32_t tokens[CPU_MAX_PHASES]; /* tokens per chunk of a prompt's product */
    uint32_t most[CPU_MAX_PHASES];   /* chunks that a thread takes at once, at most; 0: one */
    uint32_t within[CPU_MAX_PHASES]; /* a range lies within a multiple of as many chunks; 0: no bounds */
    bool contested[CPU_MAX_PHASES];  /* see cpu/stream.h */
    cpu_step step[CPU_MAX_PHASES];
    /* Operations that run as one task with this one. */
    const cpu_op *joined[CPU_MAX_JOINED];
    uint32_t joined_start[CPU_MAX_JOINED + 1];
    uint32_t n_joined;
    uint64_t last_task;
};

struct cpu_exec {
    ht_exec base;
    ht_kernels kernels;
    ht_stream *stream;
    uint32_t threads;
    uint32_t max_k, max_head;
    uint8_t *scratch; /* [threads][scratch_stride], 64-byte aligned */
    size_t scratch_stride;
    size_t unpack_at, unpack_bytes; /* of it: rows of down projections that are held neuron-major only */
    cpu_op *ring;
    uint64_t n_ops;
    /* The task to be pushed next: it waits for the tails that the operations submitted next may turn out to be. */
    ht_task open;
    cpu_step *last_step; /* its last tail, or its own step; NULL: there is none */
};

static inline void *cpu_scratch(const cpu_exec *x, uint32_t thread) { return x->scratch + thread * x->scratch_stride; }
/* Bytes of scratch that operations other than products may use: scores and partial sums of attention, gate and up
 * tiles. */
size_t ht_cpu_ops_scratch_bytes(uint32_t max_head);

static inline float *cpu_work_space(const cpu_op *op, uint32_t thread)
{
    return (float *)(void *)((uint8_t *)cpu_scratch(op->x, thread) + ht_gemm_scratch_bytes(op->x->max_k));
}

/* Two tiles of results in it. */
enum { CPU_TILE = 16384 /* floats */ };
static inline float *cpu_tile(const cpu_op *op, uint32_t thread, uint32_t i)
{
    return cpu_work_space(op, thread) + (size_t)i * CPU_TILE;
}

size_t ht_cpu_attend_scratch_bytes(uint32_t max_head);

/* Planning: sets phases, chunks and grains; false: the operation cannot be run (its fields contradict one another). */
bool ht_cpu_plan_matmul(cpu_op *op);
bool ht_cpu_plan_ffn(cpu_op *op);
bool ht_cpu_plan_ffn_sparse(cpu_op *op); /* of a single token */
bool ht_cpu_plan_transpose(cpu_op *op);
bool ht_cpu_plan_attend(cpu_op *op);
bool ht_cpu_plan_kv_write(cpu_op *op);
bool ht_cpu_plan_conv(cpu_op *op);
bool ht_cpu_plan_delta(cpu_op *op);
bool ht_cpu_plan_predict(cpu_op *op);
bool ht_cpu_plan_signs(cpu_op *op);
bool ht_cpu_plan_small(cpu_op *op); /* all the others */

/* y[t * ldy + i] over rows [row0, row0 + n) and columns [col0, col0 + k) of w, for n_tok tokens of x: the one way to a
 * product. first_tok: row of x of the first token. */
void ht_cpu_product(const cpu_exec *x, const ht_part *w, uint32_t row0, uint32_t n, uint32_t col0, uint32_t k,
                    const ht_act *act, uint32_t first_tok, uint32_t n_tok, float *y, size_t ldy, void *scratch);

/* The same for one token and listed rows of the whole of w, rows NULL: row0 and those after it. */
void ht_cpu_rows(const cpu_exec *x, const ht_part *w, const uint32_t *rows, uint32_t row0, uint32_t n, const ht_act *act,
                 uint32_t tok, float *y);

/* Rows per chunk for products with one token, by the bytes of a row; *most: chunks that a thread takes at once. */
uint32_t ht_cpu_token_rows(size_t row_bytes, uint32_t *most);
/* Tokens per chunk of a prompt's products with rows of k: all of them, but in very large batches. */
uint32_t ht_cpu_prompt_tokens(uint32_t k);

#endif
