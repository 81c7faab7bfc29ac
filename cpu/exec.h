/* SPDX-License-Identifier: MIT
 * Inside the CPU executor: what its operations share. Not for other rooms. */
#ifndef HT_CPU_EXEC_H
#define HT_CPU_EXEC_H

#include "cpu/cpu.h"
#include "cpu/kernels.h"
#include "cpu/stream.h"

typedef struct cpu_exec cpu_exec;
typedef struct cpu_op cpu_op;

/* One phase of an operation: a task over chunks. */
typedef void cpu_phase_fn(const cpu_op *op, uint32_t chunk, uint32_t thread);

enum { CPU_MAX_PHASES = 4, CPU_MAX_JOINED = 4 };

/* An operation in the queue, with what was decided when it was submitted. */
struct cpu_op {
    ht_op op;
    cpu_exec *x;
    cpu_phase_fn *phase[CPU_MAX_PHASES];
    uint32_t n_chunks[CPU_MAX_PHASES];
    uint32_t n_phases;
    uint32_t grain[CPU_MAX_PHASES]; /* rows, tokens or channels per chunk */
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
    cpu_op *ring;
    uint64_t n_ops;
};

static inline void *cpu_scratch(const cpu_exec *x, uint32_t thread) { return x->scratch + thread * x->scratch_stride; }
/* Bytes of scratch that operations other than products may use: scores and partial sums of attention, gate and up
 * tiles. */
size_t ht_cpu_ops_scratch_bytes(uint32_t max_head);

/* Planning: sets phases, chunks and grains; false: the operation cannot be run (its fields contradict one another). */
bool ht_cpu_plan_matmul(cpu_op *op);
bool ht_cpu_plan_ffn(cpu_op *op);
bool ht_cpu_plan_attend(cpu_op *op);
bool ht_cpu_plan_conv(cpu_op *op);
bool ht_cpu_plan_delta(cpu_op *op);
bool ht_cpu_plan_small(cpu_op *op); /* all the others */

/* y[t * ldy + i] over rows [row0, row0 + n) and columns [col0, col0 + k) of w, for n_tok tokens of x: the one way to a
 * product. first_tok: row of x of the first token. */
void ht_cpu_product(const cpu_exec *x, const ht_part *w, uint32_t row0, uint32_t n, uint32_t col0, uint32_t k,
                    const ht_act *act, uint32_t first_tok, uint32_t n_tok, float *y, size_t ldy, void *scratch);

#endif
