/* SPDX-License-Identifier: MIT
 *
 * The GPU executor: lists of operations become launches on the device's compute queue. See gpu/exec.h and
 * engine/base/exec.h. Memory: all at open. */
#include "gpu/exec.h"

#include <stdlib.h>
#include <string.h>

/* What kernels know by number (gpu/kernels/math.h, small.h, attend.h, ffn.h). */
_Static_assert(HT_ACT_SILU == 0 && HT_ACT_GELU_TANH == 1 && HT_ACT_GELU_ERF == 2 && HT_ACT_RELU == 3 && HT_ACT_RELU2 == 4 &&
                   HT_ACT_FATRELU == 5 && HT_ACT_DRELU == 6 && HT_ACT_SWIGLU_OAI == 7 && HT_ACT_SIGMOID == 8 &&
                   HT_ACT_IDENTITY == 9,
               "activations");
_Static_assert(HT_NORM_NONE == 0 && HT_NORM_RMS == 1 && HT_NORM_LAYER == 2 && HT_NORM_L2 == 3, "norms");
_Static_assert(HT_GATE_SOFTMAX == 0 && HT_GATE_SIGMOID == 1 && HT_GATE_SOFTMAX_TOPK == 2, "gating");
_Static_assert(HT_KV_PAGE == 128 && HT_ATTEND_SPAN == 512 && HT_ATTEND_PARTIAL(17) == 48, "pages, spans, partial sums");

/* ---- checks ---- */

bool gpu_has(const gpu_queue *q, const void *p, uint64_t n, uint64_t stride, uint64_t row)
{
    uint64_t last;

    if (n == 0 || row == 0)
        return true;
    if (!p || __builtin_mul_overflow(n - 1, stride, &last) || __builtin_add_overflow(last, row, &last))
        return false;
    return ht_gpu_room(q->x->g, gpu_addr(p)) >= last;
}

bool gpu_has_floats(const gpu_queue *q, const float *p, uint64_t n, uint64_t stride, uint64_t k, bool optional)
{
    return (optional && !p) || (gpu_addr(p) % 4 == 0 && gpu_has(q, p, n, stride * 4, k * 4));
}

bool gpu_has_act(const gpu_queue *q, const ht_act *a, uint64_t n, uint64_t k)
{
    const ht_q8 *b = &a->q8;

    if (!gpu_has_floats(q, a->f, n, a->stride, k, false))
        return false;
    return !b->stride || (b->stride % 32 == 0 && k % 32 == 0 && gpu_addr(b->q) % 4 == 0 && gpu_addr(b->d) % 4 == 0 &&
                          gpu_addr(b->s) % 2 == 0 && gpu_has(q, b->q, n, b->stride, k) &&
                          gpu_has(q, b->d, n, b->stride / 32 * 4, k / 32 * 4) &&
                          gpu_has(q, b->s, n, b->stride / 16 * 2, k / 16 * 2));
}

bool gpu_has_part(const gpu_queue *q, const ht_part *p)
{
    const gpu_type t = gpu_type_of(p->type);

    return t.block && p->layout == HT_LAYOUT_ROWS && !p->order && p->n && p->k && p->k % t.block == 0 && p->device &&
           p->stride <= UINT32_MAX && p->stride % t.align == 0 && p->device % t.align == 0 &&
           p->stride >= ht_gpu_row_bytes(p->type, p->k) &&
           gpu_has(q, ht_gpu_ptr(p->device), p->n, p->stride, ht_gpu_row_bytes(p->type, p->k));
}

/* ---- launches ---- */

static void fail(gpu_queue *q, ht_status st)
{
    if (q->st == HT_OK)
        q->st = st;
}

void gpu_run(gpu_queue *q, uint32_t kernel, uint64_t gx, uint64_t gy, uint64_t gz, const void *args, uint32_t args_bytes,
             const uint64_t *ptr, uint32_t n_ptr)
{
    ht_gpu_launch l = { .kernel = kernel, .grid = { (uint32_t)gx, (uint32_t)gy, (uint32_t)gz }, .args = args,
                        .args_bytes = args_bytes };

    if (q->st != HT_OK)
        return;
    if (kernel >= HT_N_GPU_KERNELS || gx == 0 || gx > INT32_MAX || gy == 0 || gy > 65535 || gz == 0 || gz > 65535) {
        fail(q, HT_EINVAL);
        return;
    }
    if (q->dry)
        return;
    memcpy(l.ptr, ptr, n_ptr * sizeof *ptr);
    fail(q, ht_gpu_launch_kernel(q->x->g, &l, NULL));
}

uint64_t gpu_table(gpu_queue *q, uint32_t bytes, void **host)
{
    const uint32_t at = q->table;

    *host = NULL;
    if (bytes > GPU_TABLE - q->table) {
        fail(q, HT_EINVAL);
        return q->x->tables;
    }
    q->table += (bytes + 63) / 64 * 64;
    if (q->dry)
        *host = q->x->tables_host + q->slot * (size_t)GPU_TABLE + at;
    return q->x->tables + q->slot * (uint64_t)GPU_TABLE + at;
}

uint64_t gpu_counter(gpu_queue *q, _Atomic uint64_t *to)
{
    gpu_slot *slot = &q->x->slots[q->slot];
    uint32_t *host;
    const uint64_t at = gpu_table(q, sizeof *host, (void **)&host);

    if (host && slot->n_counts == GPU_COUNTS) {
        fail(q, HT_EINVAL);
    } else if (host) {
        *host = 0;
        slot->count[slot->n_counts++] = (gpu_count){ to, host };
    }
    return at;
}

/* What a submit that is done has counted. */
static void collect(gpu_slot *slot)
{
    for (uint32_t i = 0; i < slot->n_counts; i++)
        atomic_fetch_add_explicit(slot->count[i].to, *slot->count[i].from, memory_order_relaxed);
    slot->n_counts = 0;
}

/* Queues fetching a submit's tables: its counters are among them. */
static ht_status fetch_counts(gpu_exec *x, uint32_t slot, uint32_t bytes)
{
    if (!x->slots[slot].n_counts)
        return HT_OK;
    return ht_gpu_download(x->g, HT_GPU_COMPUTE, x->tables_host + slot * (size_t)GPU_TABLE,
                           x->tables + slot * (uint64_t)GPU_TABLE, bytes, NULL);
}

/* ---- the executor ---- */

static bool queue_op(gpu_queue *q, const ht_op *op)
{
    switch (op->kind) {
    case HT_OP_EMBED: return gpu_op_embed(q, op);
    case HT_OP_MATMUL: return gpu_op_matmul(q, op);
    case HT_OP_ATTEND: return gpu_op_attend(q, op);
    case HT_OP_KV_WRITE: return gpu_op_kv_write(q, op);
    case HT_OP_FFN: return gpu_op_ffn(q, op);
    case HT_OP_CONV:
    case HT_OP_DELTA:
    case HT_OP_PREDICT: return gpu_op_state(q, op);
    default: return gpu_op_small(q, op);
    }
}

static ht_status gpu_submit(ht_exec *e, const ht_op *ops, size_t n, ht_event *done)
{
    gpu_exec *x = (gpu_exec *)e;
    const uint32_t slot = (uint32_t)(x->n_submits % GPU_SLOTS);
    gpu_queue q = { .x = x, .dry = true, .slot = slot };
    ht_status st;

    if (x->failed != HT_OK)
        return x->failed;
    if ((st = ht_gpu_wait(x->g, x->slots[slot].event, NULL)) != HT_OK) /* who used these tables is done */
        return x->failed = st;
    collect(&x->slots[slot]);
    for (size_t i = 0; i < n; i++) { /* refuse before anything runs */
        if (ops[i].kind >= HT_N_OPS || ops[i].n_tok == 0 || !queue_op(&q, &ops[i]) || q.st != HT_OK) {
            x->slots[slot].n_counts = 0;
            return HT_EINVAL;
        }
    }
    const uint32_t bytes = q.table;
    q = (gpu_queue){ .x = x, .slot = slot };
    if (bytes)
        fail(&q, ht_gpu_upload(x->g, HT_GPU_COMPUTE, x->tables + slot * (uint64_t)GPU_TABLE,
                               x->tables_host + slot * (size_t)GPU_TABLE, bytes, NULL));
    for (size_t i = 0; i < n; i++)
        queue_op(&q, &ops[i]);
    fail(&q, fetch_counts(x, slot, bytes));
    fail(&q, ht_gpu_record(x->g, HT_GPU_COMPUTE, &x->last, NULL));
    if (q.st != HT_OK) {
        x->slots[slot].n_counts = 0;
        return x->failed = q.st;
    }
    x->slots[slot].event = x->last;
    x->n_submits++;
    if (done)
        *done = x->last;
    return HT_OK;
}

/* A device cannot be stopped: where cancel is asked for, what was launched is waited for, and the queue is empty. */
static ht_status gpu_wait(ht_exec *e, ht_event event, const ht_cancel *cancel)
{
    gpu_exec *x = (gpu_exec *)e;
    const double begin = ht_os_now();
    bool cancelled = false;
    ht_status st;

    while ((st = ht_gpu_reached(x->g, event, NULL)) == HT_LATER) {
        if (!cancelled && cancel && atomic_load_explicit(&cancel->asked, memory_order_relaxed)) {
            cancelled = true;
            event = x->last;
        }
        ht_gpu_pause(begin);
    }
    for (uint32_t i = 0; i < GPU_SLOTS && st == HT_OK; i++)
        if (x->slots[i].event <= event)
            collect(&x->slots[i]);
    return st == HT_OK && cancelled ? HT_ECANCELLED : st;
}

static void gpu_close(ht_exec *e)
{
    gpu_exec *x = (gpu_exec *)e;

    ht_gpu_wait(x->g, x->last, NULL);
    if (x->scratch)
        ht_gpu_free(x->g, x->scratch);
    if (x->tables)
        ht_gpu_free(x->g, x->tables);
    if (x->tables_pinned)
        ht_gpu_host_free(x->g, x->tables_host);
    else
        free(x->tables_host);
    free(x);
}

ht_status ht_gpu_exec_open(ht_exec **out, ht_gpu *g, const ht_gpu_exec_params *p, ht_error *err)
{
    static const ht_exec_ops ops = { "gpu", gpu_submit, gpu_wait, gpu_close };
    gpu_exec *x = calloc(1, sizeof *x);
    ht_status st;

    *out = NULL;
    if (!x)
        return ht_fail(err, HT_ENOMEM, "GPU executor");
    x->base.ops = &ops;
    x->g = g;
    x->scratch_bytes = p->scratch_bytes;
    x->tables_host = ht_gpu_host_alloc(g, (size_t)GPU_SLOTS * GPU_TABLE);
    x->tables_pinned = x->tables_host != NULL;
    if (!x->tables_host)
        x->tables_host = malloc((size_t)GPU_SLOTS * GPU_TABLE);
    if (!x->tables_host) {
        st = ht_fail(err, HT_ENOMEM, "tables of a GPU executor");
        goto fail;
    }
    if ((st = ht_gpu_alloc(g, (size_t)GPU_SLOTS * GPU_TABLE, &x->tables, err)) != HT_OK)
        goto fail;
    if (p->scratch_bytes && (st = ht_gpu_alloc(g, p->scratch_bytes, &x->scratch, err)) != HT_OK)
        goto fail;
    *out = &x->base;
    return HT_OK;

fail:
    gpu_close(&x->base);
    return st;
}
