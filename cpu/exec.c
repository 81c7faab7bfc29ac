/* SPDX-License-Identifier: MIT
 *
 * The CPU executor: turns operations into tasks on the stream. See engine/base/exec.h for the rules and the numeric
 * contract, cpu/ops_*.c for the operations. Memory: all at open. */
#include "cpu/exec.h"

#include <stdlib.h>
#include <string.h>

enum { OP_RING = 512 };

/* The joined operation that chunk `first` belongs to; its number within that operation, and how many follow there. */
static const cpu_op *locate(const cpu_op *op, uint32_t *first, uint32_t *n)
{
    uint32_t j = 0;

    if (op->n_joined < 2)
        return op;
    while (*first >= op->joined_start[j + 1])
        j++;
    if (*n > op->joined_start[j + 1] - *first)
        *n = op->joined_start[j + 1] - *first;
    *first -= op->joined_start[j];
    return op->joined[j];
}

static void run_chunks(const void *ctx, uint32_t first, uint32_t n, uint32_t thread)
{
    const cpu_step *step = ctx;
    const cpu_op *op = locate(step->op, &first, &n);

    if (op->range[step->phase])
        op->range[step->phase](op, first, n, thread);
    else
        for (uint32_t i = first; i < first + n; i++)
            op->phase[step->phase](op, i, thread);
}

/* A range stays in one operation, and there within the bounds that it asks for. */
static uint32_t span(const void *ctx, uint32_t first, uint32_t n)
{
    const cpu_step *step = ctx;
    const cpu_op *op = locate(step->op, &first, &n);
    uint32_t within = op->within[step->phase];

    return within && n > within - first % within ? within - first % within : n;
}

static void run_tails(const void *ctx, uint32_t thread)
{
    for (const cpu_step *step = ((const cpu_step *)ctx)->tail; step; step = step->tail) {
        if (step->op->range[step->phase])
            step->op->range[step->phase](step->op, 0, 1, thread);
        else
            step->op->phase[step->phase](step->op, 0, thread);
    }
}

static bool plan(cpu_op *op)
{
    switch (op->op.kind) {
    case HT_OP_MATMUL: return ht_cpu_plan_matmul(op);
    case HT_OP_FFN: return ht_cpu_plan_ffn(op);
    case HT_OP_ATTEND: return ht_cpu_plan_attend(op);
    case HT_OP_KV_WRITE: return ht_cpu_plan_kv_write(op);
    case HT_OP_CONV: return ht_cpu_plan_conv(op);
    case HT_OP_DELTA: return ht_cpu_plan_delta(op);
    case HT_OP_PREDICT: return ht_cpu_plan_predict(op);
    case HT_OP_TRANSPOSE: return ht_cpu_plan_transpose(op);
    case HT_OP_SIGNS: return ht_cpu_plan_signs(op);
    default: return ht_cpu_plan_small(op);
    }
}

static void push_open(cpu_exec *x)
{
    if (x->last_step)
        ht_stream_push(x->stream, &x->open);
    x->last_step = NULL;
}

/* Makes the ring's next slot free and fills it. */
static cpu_op *next_op(cpu_exec *x, const ht_op *op)
{
    cpu_op *slot = &x->ring[x->n_ops % OP_RING];

    if (x->n_ops >= OP_RING) {
        if (slot->last_task >= ht_stream_pushed(x->stream))
            push_open(x);
        ht_stream_retire(x->stream, slot->last_task);
    }
    x->n_ops++;
    memset(slot, 0, sizeof *slot);
    slot->op = *op;
    slot->x = x;
    return slot;
}

static cpu_step *new_step(cpu_op *op, uint32_t phase)
{
    op->step[phase] = (cpu_step){ .op = op, .phase = phase };
    return &op->step[phase];
}

/* Opens a task; what was open is pushed. */
static void open_task(cpu_exec *x, cpu_op *op, uint32_t phase, ht_task t)
{
    push_open(x);
    x->last_step = new_step(op, phase);
    x->open = t;
    x->open.fn = run_chunks;
    x->open.tail = run_tails;
    x->open.ctx = x->last_step;
}

/* A single chunk goes with the open task as a tail, anything else begins a new one. */
static void add_phase(cpu_exec *x, cpu_op *op, uint32_t phase)
{
    if (op->n_chunks[phase] == 1 && x->last_step) {
        cpu_step *step = new_step(op, phase);
        x->last_step->tail = step;
        x->last_step = step;
    } else {
        ht_task t = { .n_chunks = op->n_chunks[phase], .most = op->most[phase], .contested = op->contested[phase] };
        t.span = op->within[phase] ? span : NULL;
        open_task(x, op, phase, t);
    }
    op->last_task = ht_stream_pushed(x->stream);
}

static void add_group(cpu_exec *x, cpu_op **group, uint32_t n_group)
{
    cpu_op *first = group[0];
    ht_task t = { .most = UINT32_MAX, .contested = true, .span = span };

    for (uint32_t j = 0; j < n_group; j++) {
        uint32_t most = group[j]->most[0] ? group[j]->most[0] : 1;
        first->joined[j] = group[j];
        first->joined_start[j] = t.n_chunks;
        t.n_chunks += group[j]->n_chunks[0];
        t.most = t.most < most ? t.most : most;
        t.contested &= group[j]->contested[0];
    }
    first->joined_start[n_group] = t.n_chunks;
    if (t.n_chunks == n_group) { /* small things all: side by side or in a row is the same */
        for (uint32_t j = 0; j < n_group; j++)
            add_phase(x, group[j], 0);
        return;
    }
    first->n_joined = n_group;
    open_task(x, first, 0, t);
    for (uint32_t j = 0; j < n_group; j++)
        group[j]->last_task = ht_stream_pushed(x->stream);
}

static ht_status cpu_submit(ht_exec *e, const ht_op *ops, size_t n, ht_event *done)
{
    cpu_exec *x = (cpu_exec *)e;

    for (size_t i = 0, phases = 0; i < n; i++) { /* refuse before anything runs */
        cpu_op probe = { .op = ops[i], .x = x };
        if (ops[i].kind >= HT_N_OPS || ops[i].n_tok == 0 || !plan(&probe))
            return HT_EINVAL;
        if (ops[i].joined && (phases != 1 || probe.n_phases != 1))
            return HT_EINVAL;
        phases = probe.n_phases;
    }
    for (size_t i = 0; i < n;) {
        cpu_op *group[CPU_MAX_JOINED];
        uint32_t n_group = 0;
        do {
            group[n_group] = next_op(x, &ops[i++]);
            plan(group[n_group]);
            n_group++;
        } while (i < n && ops[i].joined && n_group < CPU_MAX_JOINED);
        if (n_group > 1)
            add_group(x, group, n_group);
        for (uint32_t p = 0; n_group == 1 && p < group[0]->n_phases; p++)
            add_phase(x, group[0], p);
    }
    if (done)
        *done = ht_stream_pushed(x->stream) + (x->last_step != NULL);
    return HT_OK;
}

static ht_status cpu_wait(ht_exec *e, ht_event event, const ht_cancel *cancel)
{
    cpu_exec *x = (cpu_exec *)e;

    if (event == 0)
        return HT_OK;
    if (event > ht_stream_pushed(x->stream))
        push_open(x);
    ht_status st = ht_stream_wait(x->stream, event - 1, cancel);
    if (st == HT_ECANCELLED) { /* what was submitted later goes too */
        push_open(x);
        event = ht_stream_pushed(x->stream);
        ht_stream_wait(x->stream, event - 1, cancel);
    }
    ht_stream_retire(x->stream, event - 1); /* the operations' memory is the caller's again */
    return st;
}

static void cpu_close(ht_exec *e)
{
    cpu_exec *x = (cpu_exec *)e;
    if (x->stream)
        push_open(x);
    ht_stream_close(&x->stream);
    free(x->ring);
    free(x->scratch);
    free(x);
}

static size_t unpack_at(const ht_cpu_params *p)
{
    size_t n = ht_gemm_scratch_bytes(p->max_k) + ht_cpu_ops_scratch_bytes(p->max_head);
    return (n + 4095) & ~(size_t)4095;
}

static size_t scratch_stride(const ht_cpu_params *p)
{
    return unpack_at(p) + ((p->unpack_bytes + 4095) & ~(size_t)4095);
}

uint64_t ht_cpu_scratch_bytes(const ht_cpu_params *p)
{
    return (uint64_t)p->threads * scratch_stride(p) + OP_RING * sizeof(cpu_op) +
           ht_stream_bytes(p->threads);
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
    x->scratch_stride = scratch_stride(p);
    x->unpack_at = unpack_at(p);
    x->unpack_bytes = p->unpack_bytes;
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
