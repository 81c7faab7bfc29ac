/* SPDX-License-Identifier: MIT
 *
 * The CPU executor: turns operations into tasks on the stream. See engine/base/exec.h for the rules and the numeric
 * contract, cpu/ops_*.c for the operations. Memory: all at open. */
#include "cpu/exec.h"

#include <stdlib.h>
#include <string.h>

enum { OP_RING = 512 };

static void run_chunk(const void *ctx, uint32_t chunk, uint32_t thread, uint32_t phase)
{
    const cpu_op *op = ctx;
    uint32_t j = 0;

    if (op->n_joined > 1) { /* joined operations have one phase each */
        while (chunk >= op->joined_start[j + 1])
            j++;
        chunk -= op->joined_start[j];
        op = op->joined[j];
    }
    op->phase[phase](op, chunk, thread);
}

static void run_phase0(const void *c, uint32_t i, uint32_t t) { run_chunk(c, i, t, 0); }
static void run_phase1(const void *c, uint32_t i, uint32_t t) { run_chunk(c, i, t, 1); }
static void run_phase2(const void *c, uint32_t i, uint32_t t) { run_chunk(c, i, t, 2); }
static void run_phase3(const void *c, uint32_t i, uint32_t t) { run_chunk(c, i, t, 3); }

static bool plan(cpu_op *op)
{
    switch (op->op.kind) {
    case HT_OP_MATMUL: return ht_cpu_plan_matmul(op);
    case HT_OP_FFN: return ht_cpu_plan_ffn(op);
    case HT_OP_ATTEND: return ht_cpu_plan_attend(op);
    case HT_OP_CONV: return ht_cpu_plan_conv(op);
    case HT_OP_DELTA: return ht_cpu_plan_delta(op);
    default: return ht_cpu_plan_small(op);
    }
}

/* Makes the ring's next slot free and fills it. */
static cpu_op *next_op(cpu_exec *x, const ht_op *op)
{
    cpu_op *slot = &x->ring[x->n_ops % OP_RING];

    if (x->n_ops >= OP_RING && ht_stream_completed(x->stream) <= slot->last_task)
        ht_stream_wait(x->stream, slot->last_task, NULL);
    x->n_ops++;
    memset(slot, 0, sizeof *slot);
    slot->op = *op;
    slot->x = x;
    return slot;
}

static void push(cpu_exec *x, cpu_op *first, cpu_op **group, uint32_t n_group)
{
    static ht_task_fn *const run[CPU_MAX_PHASES] = { run_phase0, run_phase1, run_phase2, run_phase3 };

    if (n_group > 1) {
        uint32_t total = 0;
        for (uint32_t j = 0; j < n_group; j++) {
            first->joined[j] = group[j];
            first->joined_start[j] = total;
            total += group[j]->n_chunks[0];
        }
        first->joined_start[n_group] = total;
        first->n_joined = n_group;
        uint64_t number = ht_stream_push(x->stream, run_phase0, first, total);
        for (uint32_t j = 0; j < n_group; j++)
            group[j]->last_task = number;
        return;
    }
    for (uint32_t p = 0; p < first->n_phases; p++)
        first->last_task = ht_stream_push(x->stream, run[p], first, first->n_chunks[p]);
}

static ht_status cpu_submit(ht_exec *e, const ht_op *ops, size_t n, ht_event *done)
{
    cpu_exec *x = (cpu_exec *)e;

    for (size_t i = 0; i < n; i++) { /* refuse before anything runs */
        cpu_op probe = { .op = ops[i], .x = x };
        if (ops[i].kind >= HT_N_OPS || ops[i].n_tok == 0 || !plan(&probe))
            return HT_EINVAL;
        if (ops[i].joined && (i == 0 || probe.n_phases != 1))
            return HT_EINVAL;
    }
    for (size_t i = 0; i < n;) {
        cpu_op *group[CPU_MAX_JOINED];
        uint32_t n_group = 0;
        do {
            group[n_group] = next_op(x, &ops[i++]);
            plan(group[n_group]);
            n_group++;
        } while (i < n && ops[i].joined && n_group < CPU_MAX_JOINED);
        push(x, group[0], group, n_group);
    }
    if (done)
        *done = ht_stream_pushed(x->stream);
    return HT_OK;
}

static ht_status cpu_wait(ht_exec *e, ht_event event, const ht_cancel *cancel)
{
    cpu_exec *x = (cpu_exec *)e;
    return event == 0 ? HT_OK : ht_stream_wait(x->stream, event - 1, cancel);
}

static void cpu_close(ht_exec *e)
{
    cpu_exec *x = (cpu_exec *)e;
    ht_stream_close(&x->stream);
    free(x->ring);
    free(x->scratch);
    free(x);
}

static size_t scratch_stride(uint32_t max_k, uint32_t max_head)
{
    size_t n = ht_gemm_scratch_bytes(max_k) + ht_cpu_ops_scratch_bytes(max_head);
    return (n + 4095) & ~(size_t)4095;
}

uint64_t ht_cpu_scratch_bytes(const ht_cpu_params *p)
{
    return (uint64_t)p->threads * scratch_stride(p->max_k, p->max_head) + OP_RING * sizeof(cpu_op);
}

static void pin(void *user, uint32_t thread) { ht_topology_pin(user, thread); }

ht_status ht_cpu_open(ht_exec **out, const ht_cpu_params *p, ht_error *err)
{
    static const ht_exec_ops ops = { "cpu", cpu_submit, cpu_wait, cpu_close };

    *out = NULL;
    if (p->threads == 0)
        return ht_fail(err, HT_EINVAL, "a CPU executor needs at least one thread");
    cpu_exec *x = calloc(1, sizeof *x);
    if (!x)
        return ht_fail(err, HT_ENOMEM, "CPU executor");
    x->base.ops = &ops;
    x->threads = p->threads;
    x->max_k = p->max_k;
    x->max_head = p->max_head;
    ht_kernels_init(&x->kernels, p->isa);
    x->scratch_stride = scratch_stride(p->max_k, p->max_head);
    x->scratch = aligned_alloc(4096, x->scratch_stride * p->threads);
    x->ring = calloc(OP_RING, sizeof *x->ring);
    if (!x->scratch || !x->ring) {
        size_t bytes = x->scratch_stride * p->threads;
        cpu_close(&x->base);
        return ht_fail(err, HT_ENOMEM, "scratch of %u threads: %zu bytes", p->threads, bytes);
    }
    bool bind = p->pin && p->topology;
    ht_status st = ht_stream_open(&x->stream, p->threads, bind ? pin : NULL, (void *)(uintptr_t)p->topology, err);
    if (st != HT_OK) {
        cpu_close(&x->base);
        return st;
    }
    *out = &x->base;
    return HT_OK;
}
