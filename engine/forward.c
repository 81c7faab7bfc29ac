/* SPDX-License-Identifier: MIT
 * A pass over all layers; see forward.h. */
#include "engine/forward.h"

#include <math.h>
#include <string.h>

#include "cpu/cpu.h"
#include "engine/base/types.h"
#include "engine/predict.h"

enum { LAYERS_AHEAD = 4 }; /* of a prompt, queued before the first is done */
/* Bytes of neuron-major parts that are built after a token, at most: some milliseconds. */
enum { BUILD_BYTES = 2 << 20 };

/* Carves 64-byte aligned pieces from one block; with base NULL it only counts. */
typedef struct carver {
    uint8_t *base;
    size_t used;
} carver;

static void *carve(carver *c, size_t n, size_t size)
{
    void *p = c->base ? c->base + c->used : NULL;
    c->used += (n * size + 63) & ~(size_t)63;
    return p;
}

/* n rows of k floats, with room for their 8-bit form where `quantised` and k allows it. */
static ht_act carve_act(carver *c, size_t n, uint32_t k, bool quantised)
{
    ht_act a = { .f = carve(c, n * k, sizeof(float)), .stride = k };
    if (quantised) {
        a.q8.q = carve(c, n * k, 1);
        a.q8.d = carve(c, n * (k / 32 + 1), sizeof(float));
        a.q8.s = carve(c, n * (k / 16 + 1), sizeof(int16_t));
        a.q8.stride = k % 32 ? 0 : k;
    }
    return a;
}

static void layout(ht_forward *f, carver *c, bool streamed)
{
    const ht_model *m = f->m;
    size_t n = f->batch, slots = n * m->max_used;
    bool q8 = !f->f32;
    uint32_t kv = m->max_kv;

    f->x = carve(c, n * m->d_model, sizeof(float));
    f->xn = carve_act(c, n, m->d_model, q8);
    f->y = carve(c, n * m->d_model, sizeof(float));
    f->y2 = carve(c, n * m->d_model, sizeof(float));
    f->q = carve(c, n * m->max_q, sizeof(float));
    f->qn = carve(c, n * m->max_q, sizeof(float));
    f->k = carve(c, n * kv, sizeof(float));
    f->v = carve(c, n * kv, sizeof(float));
    f->ao = carve_act(c, n, m->max_attn_out, q8);
    /* A streamed prompt's experts are computed in groups: there is room for two that are chosen by every token. */
    f->slots = (uint32_t)(streamed && m->max_used > 2 ? (2 * n > m->max_used ? 2 * n : m->max_used) : slots);
    f->h = carve_act(c, f->slots, m->max_ff, q8);
    f->gathered = carve_act(c, m->max_expert > 1 ? f->slots : 0, m->d_model, q8);
    f->conv_in = carve(c, n * m->max_conv, sizeof(float));
    f->conv_out = carve(c, n * m->max_conv, sizeof(float));
    f->z = carve(c, n * m->max_inner, sizeof(float));
    f->ba = carve(c, n * 2 * m->max_v_heads, sizeof(float));
    f->inner = carve_act(c, n, m->max_inner, q8);
    f->router = carve(c, n * m->max_expert, sizeof(float));
    f->shared_gate = carve(c, n, sizeof(float));
    f->expert_ids = carve(c, slots, sizeof(uint32_t));
    f->expert_weights = carve(c, slots, sizeof(float));
    f->item_tokens = carve(c, slots, sizeof(uint32_t));
    f->item_weights = carve(c, slots, sizeof(float));
    f->items = carve(c, (size_t)m->n_layer + m->max_expert + m->max_used, sizeof *f->items);
    f->clusters = carve(c, m->max_expert, sizeof *f->clusters);
    f->item_counts = carve(c, m->max_expert, sizeof *f->item_counts);
    f->rows = carve(c, m->positions.host ? n : 0, sizeof *f->rows);
    f->rope_at = carve(c, m->n_ropes + 1, sizeof(size_t));
    size_t rope = 0;
    for (uint32_t i = 0; i < m->n_ropes; i++) {
        if (f->rope_at)
            f->rope_at[i] = rope;
        rope += n * m->ropes[i].n_rot;
    }
    f->rope = carve(c, rope, sizeof(float));
    f->logits = carve(c, (size_t)f->logit_rows * m->n_vocab, sizeof(float));
    f->loads = carve(c, m->n_layer, sizeof *f->loads);
    f->ffn_work = f->sparse || m->columns || m->pack
                      ? carve(c, 1, ht_ffn_work_bytes(m->max_used, m->max_ff, m->d_model))
                      : NULL;
    if (m->predict && m->predict->masks) {
        uint32_t rank = m->predict->max_rank;
        f->mask_words = (m->max_ff + 31) / 32;
        f->mask = carve(c, (size_t)f->slots * f->mask_words, sizeof(uint32_t));
        f->scores = carve(c, rank ? n * m->max_ff : 0, sizeof(float));
        f->low = carve_act(c, n, rank, q8);
        f->before = carve_act(c, m->predict->residual ? n : 0, m->d_model, q8);
        f->predict_work = carve(c, 1, HT_PREDICT_WORK(m->d_model));
    }
    if (streamed) {
        if (m->embed.host != m->output.host) {
            f->embed_ids = carve(c, n, sizeof *f->embed_ids);
            f->embed_rows = carve(c, n, m->embed.stride);
        }
        if (m->pack && f->sparse) {
            f->open = carve(c, (size_t)m->max_used * m->max_ff, sizeof(float));
            f->masked = carve(c, m->max_used, 1);
            f->mask_words = (m->max_ff + 31) / 32;
            if (!m->predict || !m->predict->masks)
                f->mask = carve(c, (size_t)m->max_used * f->mask_words, sizeof(uint32_t));
        }
        f->guess = carve_act(c, 1, m->d_model, q8);
        f->guess_router = carve(c, m->max_expert, sizeof(float));
        f->guess_weights = carve(c, m->max_used, sizeof(float));
        f->guess_ids = carve(c, m->max_used, sizeof(uint32_t));
        f->miss_scores = carve(c, m->max_expert, sizeof(float));
        f->miss_low = carve(c, m->max_used, sizeof(bool));
        f->foretold_ids = carve(c, m->max_used, sizeof(uint32_t));
    }
}

uint64_t ht_forward_bytes(const ht_model *m, bool streamed, bool f32, bool sparse, uint32_t batch, uint32_t logit_rows)
{
    ht_forward f = { .m = m, .f32 = f32, .sparse = sparse, .batch = batch, .logit_rows = logit_rows };
    carver count = { 0 };
    layout(&f, &count, streamed);
    return count.used;
}

ht_status ht_forward_open(ht_forward *f, const ht_model *m, ht_store *store, ht_exec *exec, const ht_mem *mem, bool f32,
                          bool sparse, uint32_t batch, uint32_t rope_ctx, uint32_t logit_rows, ht_error *err)
{
    memset(f, 0, sizeof *f);
    f->m = m;
    f->store = store;
    f->exec = exec;
    f->mem = mem;
    f->f32 = f32;
    f->sparse = sparse;
    f->batch = batch;
    f->rope_ctx = rope_ctx;
    f->logit_rows = logit_rows;
    f->bytes = (size_t)ht_forward_bytes(m, store->disk != NULL, f32, sparse, batch, logit_rows);
    f->memory = ht_mem_alloc(mem, f->bytes);
    if (!f->memory)
        return ht_fail(err, HT_ENOMEM, "scratch for %u tokens at once: %zu bytes", batch, f->bytes);
    carver c = { f->memory, 0 };
    layout(f, &c, store->disk != NULL);
    memset(f->loads, 0, m->n_layer * sizeof *f->loads);
    for (uint32_t i = 0; i < m->n_layer; i++)
        f->loads[i].density = -1.0f;
    return HT_OK;
}

void ht_forward_close(ht_forward *f)
{
    ht_mem_free(f->mem, f->memory, f->bytes);
    f->memory = NULL;
}

/* Angles are float32 products, as the references compute them; their cosine and sine are exact to the last bit of
 * float. */
static void fill_rope(ht_forward *f, uint32_t pos0, uint32_t n)
{
    for (uint32_t i = 0; i < f->m->n_ropes; i++) {
        const ht_rope *r = &f->m->ropes[i];
        const float *freq = r->inv_freq_long && f->rope_ctx > r->original_ctx ? r->inv_freq_long : r->inv_freq;
        uint32_t half = r->n_rot / 2;
        for (uint32_t t = 0; t < n; t++) {
            float *row = f->rope + f->rope_at[i] + (size_t)t * r->n_rot;
            for (uint32_t j = 0; j < half; j++) {
                double angle = (double)((float)(pos0 + t) * freq[j]);
                row[j] = (float)cos(angle) * r->factor;
                row[half + j] = (float)sin(angle) * r->factor;
            }
        }
    }
}

/* Logits of tokens [first, first + n) of the pass. */
static ht_status logits(ht_forward *f, uint32_t first, uint32_t n, const ht_cancel *cancel, ht_error *err)
{
    const ht_model *m = f->m;
    ht_op op[3];
    uint32_t n_ops = 2;
    ht_event done;
    ht_status st;

    op[0] = (ht_op){ .kind = HT_OP_NORM, .n_tok = n };
    op[0].norm = (ht_op_norm){ .x = f->x + (size_t)first * m->d_model,
                               .x_stride = m->d_model,
                               .k = m->d_model,
                               .group = m->d_model,
                               .kind = m->arch->norm,
                               .eps = m->norm_eps,
                               .weight = m->output_norm.w,
                               .bias = m->output_norm.b,
                               .out = f->xn };
    op[1] = (ht_op){ .kind = HT_OP_MATMUL, .n_tok = n };
    op[1].matmul = (ht_op_matmul){
        .w = m->output, .bias = m->output_b, .x = f->xn, .y = f->logits, .y_stride = m->n_vocab, .scale = m->logit_scale
    };
    if (m->final_softcap > 0.0f) {
        op[2] = (ht_op){ .kind = HT_OP_SOFTCAP, .n_tok = n };
        op[2].softcap = (ht_op_softcap){
            .y = f->logits, .y_stride = m->n_vocab, .k = m->n_vocab, .cap = m->final_softcap, .scale = 1.0f
        };
        n_ops = 3;
    }
    if ((st = f->exec->ops->submit(f->exec, op, n_ops, &done)) != HT_OK)
        return ht_fail(err, st, "the %s executor cannot compute this model's logits", f->exec->ops->name);
    if ((st = f->exec->ops->wait(f->exec, done, cancel)) != HT_OK)
        return ht_fail(err, st, "cancelled");
    return HT_OK;
}

bool ht_layer_prefers_neurons(const ht_neuron_block *b, float density)
{
    return b && density < ht_cpu_crossover(b->g.type).neurons;
}

void ht_forward_tend(ht_forward *f)
{
    uint64_t left = BUILD_BYTES;
    ht_status st = HT_OK;

    for (uint32_t i = 0; i < 2 * f->m->n_layer && left && st == HT_OK; i++) {
        const ht_neuron_block *b = ht_store_block(f->store, i / 2, i % 2);
        const float density = f->loads[i / 2].density;
        if (!b || density < 0.0f || !ht_layer_prefers_neurons(b, density))
            continue;
        for (uint64_t n = 1; n && left && st == HT_OK; left -= n < left ? n : left)
            n = ht_store_build(f->store, f->exec, i / 2, i % 2, left, NULL, &st);
    }
}

/* Rows of an embedding that is not in memory. */
static ht_status fetch_rows(ht_forward *f, ht_op_embed *op, uint32_t n, ht_error *err)
{
    ht_status st;

    if (!f->embed_rows)
        return HT_OK;
    if ((st = ht_disk_rows(f->store->disk, &op->table, op->ids, n, f->embed_rows, err)) != HT_OK)
        return st;
    for (uint32_t i = 0; i < n; i++)
        f->embed_ids[i] = (int32_t)i;
    op->ids = f->embed_ids;
    op->table.host = f->embed_rows;
    op->table.n = n;
    return HT_OK;
}

/* Queues the embeddings of ids; with learnt positions, their sum with these. */
static ht_status embed(ht_forward *f, uint32_t pos0, const int32_t *ids, uint32_t n, ht_error *err)
{
    const ht_model *m = f->m;
    ht_op op[3];
    uint32_t n_ops = 1;
    ht_status st;

    op[0] = (ht_op){ .kind = HT_OP_EMBED, .n_tok = n };
    op[0].embed =
        (ht_op_embed){ .table = m->embed, .ids = ids, .scale = m->embed_scale, .out = f->x, .out_stride = m->d_model };
    if ((st = fetch_rows(f, &op[0].embed, n, err)) != HT_OK)
        return st;
    if (m->positions.host) {
        if (pos0 > m->n_positions || n > m->n_positions - pos0)
            return ht_fail(err, HT_EINVAL, "this model has learnt %u positions, and no more can be computed",
                           m->n_positions);
        for (uint32_t t = 0; t < n; t++)
            f->rows[t] = (int32_t)(pos0 + t + m->arch->position_offset);
        op[1] = (ht_op){ .kind = HT_OP_EMBED, .n_tok = n };
        op[1].embed = (ht_op_embed){
            .table = m->positions, .ids = f->rows, .scale = 1.0f, .out = f->y, .out_stride = m->d_model
        };
        op[2] = (ht_op){ .kind = HT_OP_ADD, .n_tok = n };
        op[2].add = (ht_op_add){ .x = f->y, .y = f->x, .x_stride = m->d_model, .y_stride = m->d_model, .k = m->d_model,
                                 .ax = 1.0f, .ay = 1.0f };
        n_ops = 3;
    }
    if (f->exec->ops->submit(f->exec, op, n_ops, NULL) != HT_OK)
        return ht_fail(err, HT_EINVAL, "the %s executor cannot read embeddings of this type", f->exec->ops->name);
    return HT_OK;
}

ht_status ht_forward_run(ht_forward *f, ht_state *s, const int32_t *ids, uint32_t n, ht_logits_fn *on_logits,
                         void *user, const ht_cancel *cancel, ht_error *err)
{
    const ht_model *m = f->m;
    ht_event ahead[LAYERS_AHEAD];
    ht_status st;

    f->pass_pos = s->pos;
    fill_rope(f, s->pos, n);
    if ((st = embed(f, s->pos, ids, n, err)) != HT_OK)
        return st;
    for (uint32_t il = 0; il < m->n_layer; il++) {
        /* Where the queue is full, submitting works without a look at the wish to stop. */
        if (cancel && atomic_load_explicit(&cancel->asked, memory_order_relaxed)) {
            st = ht_fail(err, HT_ECANCELLED, "cancelled");
            goto drain;
        }
        /* A prompt's layers take long: this thread stays near them, waiting, for there the wish is looked at. */
        ht_event *layer = &ahead[il % LAYERS_AHEAD];
        if (n > 1 && il >= LAYERS_AHEAD && (st = f->exec->ops->wait(f->exec, *layer, cancel)) != HT_OK) {
            st = ht_fail(err, st, "cancelled");
            goto drain;
        }
        if ((st = ht_layer_run(f, s, il, n, cancel, layer, err)) != HT_OK)
            goto drain;
    }
    if (!on_logits) {
        if ((st = logits(f, n - 1, 1, cancel, err)) != HT_OK)
            goto drain;
    } else {
        for (uint32_t t = 0; t < n; t += f->logit_rows) {
            uint32_t rows = n - t < f->logit_rows ? n - t : f->logit_rows;
            if ((st = logits(f, t, rows, cancel, err)) != HT_OK)
                goto drain;
            if (!on_logits(user, t, rows, f->logits)) {
                ht_store_release(f->store, &f->ticket);
                return ht_fail(err, HT_ECANCELLED, "cancelled by the caller");
            }
        }
    }
    ht_store_release(f->store, &f->ticket);
    s->pos += n;
    f->n_single += n == 1;
    if (n == 1 && f->sparse)
        ht_forward_tend(f);
    return HT_OK;

drain:; /* what was queued refers to our buffers: let it end, or be dropped where that was asked for */
    ht_event done;
    ht_op nothing = { .kind = HT_OP_ADD, .n_tok = 1 };
    nothing.add = (ht_op_add){ .x = f->y, .y = f->y2, .x_stride = 1, .y_stride = 1, .k = 1, .ax = 0.0f, .ay = 0.0f };
    if (f->exec->ops->submit(f->exec, &nothing, 1, &done) == HT_OK)
        f->exec->ops->wait(f->exec, done, cancel);
    ht_store_release(f->store, &f->ticket);
    return st;
}
