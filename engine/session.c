/* SPDX-License-Identifier: MIT
 * Sessions behind hearth.h: one conversation's state, and computing its tokens. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/objects.h"

enum { DEFAULT_BATCH = 512, STREAM_BATCH = 2048, SCRATCH_GOAL = 128 << 20, STREAM_SCRATCH_GOAL = 1 << 30,
       USUAL_CONTEXT = 4096, MAX_CONTEXT = 1 << 28 };

static ht_type kv_type_of(hearth_kv_type t)
{
    switch (t) {
    case HEARTH_KV_F32: return HT_F32;
    case HEARTH_KV_Q8_0: return HT_Q8_0;
    case HEARTH_KV_Q4_0: return HT_Q4_0;
    default: return HT_F16;
    }
}

/* Tenths of MiB, for sentences: what is needed is rounded up, what there is down, so that they agree. */
static double mib_up(uint64_t bytes) { return ceil((double)bytes / (1 << 20) * 10) / 10; }
static double mib_down(uint64_t bytes) { return floor((double)bytes / (1 << 20) * 10) / 10; }

/* How many positions fit beside weights, scratch and the model's other sessions; the trained length where that is less.
 * Without a budget the answer leaves an eighth of what is free: KV is taken only as the conversation grows. */
static ht_status choose_context(const hearth_model *m, uint32_t asked, uint64_t scratch, uint64_t set_bytes,
                                uint32_t *n_ctx, ht_error *err)
{
    const ht_model *w = &m->m;
    const uint64_t weights = ht_model_weights_taken(m);
    uint64_t fixed = scratch + m->exec_bytes + m->table_bytes + ht_state_fixed_bytes(w);
    uint64_t budget = m->budget.ram_bytes, left, sets;
    uint32_t want = asked ? asked : w->n_ctx_train;

    if (asked > MAX_CONTEXT)
        return ht_fail(err, HT_EINVAL, "a context of %u is beyond the limit of %d", asked, MAX_CONTEXT);
    if (w->n_positions && asked > w->n_positions)
        return ht_fail(err, HT_EINVAL, "a context of %u is beyond the %u positions that this model has learnt", asked,
                       w->n_positions);
    /* Without a budget memory that is built up is no longer free. */
    fixed += budget ? ht_model_planned(m) : m->store.planned - m->store.built;
    if (budget) {
        fixed += m->reserved;
        left = budget > fixed + weights ? budget - fixed - weights : 0;
    } else {
        left = ht_os_ram_available();
        left = left - left / 8 > fixed + weights ? left - left / 8 - fixed - weights : 0;
    }
    if (m->store.disk && !asked) { /* what is not for the context is for experts */
        const uint64_t usual = (uint64_t)(USUAL_CONTEXT / HT_KV_PAGE) * set_bytes, share = left / 8;
        left = share > usual ? share : left < usual ? left : usual;
    }
    sets = set_bytes ? left / set_bytes : left ? UINT32_MAX : 0;
    uint64_t fit = sets > UINT32_MAX / HT_KV_PAGE ? UINT32_MAX : sets * HT_KV_PAGE;
    /* Scratch and recurrent state are touched as a whole: a file that asks for absurd ones must fail here. */
    if (fixed > (budget ? budget : ht_os_ram_available()))
        return ht_fail(err, HT_ENOMEM, "%.1f MiB of scratch and tables do not fit %s of %.1f MiB", mib_up(fixed),
                       budget ? "the budget (--ram)" : "the free memory",
                       mib_down(budget ? budget : ht_os_ram_available()));
    if (fit < want && asked && budget) {
        uint64_t kv = (uint64_t)(want + HT_KV_PAGE - 1) / HT_KV_PAGE * set_bytes;
        return ht_fail(
            err, HT_ENOMEM,
            "a context of %u needs %.1f MiB beside %.1f MiB of weights and %.1f MiB of scratch, %.1f MiB more than "
            "the budget: lower --ctx or --kv-type, or raise --ram",
            asked, mib_up(kv), mib_up(weights), mib_up(fixed), mib_up(kv) + mib_up(weights) + mib_up(fixed) - mib_down(budget));
    }
    if (fit < want && !asked) {
        if (budget && fit == 0)
            return ht_fail(err, HT_ENOMEM,
                           "%.1f MiB of weights, %.1f MiB of scratch and %.1f MiB for the shortest context do not fit %.1f MiB (--ram)",
                           mib_up(weights), mib_up(fixed), mib_up(set_bytes), mib_down(budget));
        want = fit < 2048 ? (w->n_ctx_train < 2048 ? w->n_ctx_train : 2048) : (uint32_t)fit;
        if (budget && fit < want)
            want = (uint32_t)fit;
    }
    *n_ctx = want;
    return HT_OK;
}

/* What a budget has to hold beside neuron-major parts for a context of n. */
static uint64_t needed(const hearth_model *m, uint64_t n, uint64_t scratch, uint64_t set_bytes)
{
    return scratch + m->exec_bytes + m->table_bytes + ht_state_fixed_bytes(&m->m) + m->reserved + ht_model_weights_taken(m) +
           (n + HT_KV_PAGE - 1) / HT_KV_PAGE * set_bytes;
}

/* Contexts come before neuron-major parts, which only make decoding faster: gives up as many of them as a budget has no
 * room for beside a context of the length asked for, or a usual one. */
static void make_room(hearth_model *m, uint32_t asked, uint64_t scratch, uint64_t set_bytes)
{
    const uint64_t budget = m->budget.ram_bytes;
    uint64_t n = asked ? asked : m->m.n_ctx_train < 4096 ? m->m.n_ctx_train : 4096;

    if (!budget || !ht_model_planned(m) || n > MAX_CONTEXT)
        return;
    const uint64_t taken = needed(m, n, scratch, set_bytes);
    const uint64_t left = budget > taken ? budget - taken : 0;
    if (ht_model_planned(m) > left)
        ht_model_trim(m, left);
}

/* What a session's scratch may take where the caller names no batch: a quarter of what a budget leaves beside the weights.
 * The batch changes no bit, only how fast a prompt is read. A streamed model reads each expert once a batch: large ones pay. */
static uint64_t scratch_goal(const hearth_model *m)
{
    const uint64_t taken = ht_model_weights_taken(m) + m->exec_bytes + m->table_bytes + ht_model_planned(m);
    const uint64_t budget = m->budget.ram_bytes, share = budget > taken ? (budget - taken) / 4 : 0;
    const uint64_t most = m->store.disk ? STREAM_SCRATCH_GOAL : SCRATCH_GOAL;
    return budget && share < most ? share : most;
}

hearth_status hearth_session_open(hearth_session **out, hearth_model *m, const hearth_session_params *params,
                                  hearth_error *error)
{
    ht_error *err = ht_err(error);
    hearth_session_params p;
    ht_status st;
    uint32_t n_ctx = 0, batch, rows;

    HT_PARAMS(&p, params);
    *out = NULL;
    if (!m->exec)
        return (hearth_status)ht_fail(err, HT_EINVAL, "the model was opened for its vocabulary only");
    ht_type kv = m->f32 ? HT_F32 : kv_type_of(p.kv_type);
    if (!ht_state_type_fits(&m->m, kv)) {
        ht_model_log(m, HEARTH_LOG_WARN, "heads of this model are no multiple of 32: its KV cache is f16, not %s",
                     ht_type_name(kv));
        kv = HT_F16;
    }
    rows = (4u << 20) / (m->m.n_vocab * 4u);
    rows = rows < 1 ? 1 : rows > 64 ? 64 : rows;
    batch = p.batch ? p.batch : m->store.disk ? STREAM_BATCH : DEFAULT_BATCH;
    while (!p.batch && batch > 16 && ht_forward_bytes(&m->m, m->store.disk != NULL, m->f32, m->sparse, batch, rows) > scratch_goal(m))
        batch /= 2;
    if (batch > (1u << 16))
        batch = 1u << 16;
    hearth_session *s = calloc(1, sizeof *s);
    if (!s)
        return (hearth_status)ht_fail(err, HT_ENOMEM, "session");
    s->model = m;
    s->pending = -1;
    s->cancel.tick = ht_stream_tick;
    s->cancel.user = &s->forward;
    uint64_t set_bytes = ht_state_set_bytes(&m->m, kv) + ht_state_set_table_bytes(&m->m);
    uint64_t span = ht_state_partial_bytes(&m->m, 1); /* grows by a span, a page's share of it goes with the page */
    uint64_t scratch = ht_forward_bytes(&m->m, m->store.disk != NULL, m->f32, m->sparse, batch, rows) + span;
    set_bytes += (span * HT_KV_PAGE + HT_ATTEND_SPAN - 1) / HT_ATTEND_SPAN;
    ht_os_lock(&m->budget_lock);
    /* The context comes before a large batch, as far as the caller says how long it is. */
    while (!p.batch && batch > 16 && m->budget.ram_bytes && p.n_ctx <= MAX_CONTEXT &&
           needed(m, p.n_ctx ? p.n_ctx : 1, scratch, set_bytes) > m->budget.ram_bytes) {
        batch /= 2;
        scratch = ht_forward_bytes(&m->m, m->store.disk != NULL, m->f32, m->sparse, batch, rows) + span;
    }
    make_room(m, p.n_ctx, scratch, set_bytes);
    st = choose_context(m, p.n_ctx, scratch, set_bytes, &n_ctx, err);
    if (st == HT_OK) {
        uint64_t sets = (n_ctx + (uint64_t)HT_KV_PAGE - 1) / HT_KV_PAGE;
        s->reserved = scratch + ht_state_fixed_bytes(&m->m) + sets * set_bytes;
        m->reserved += s->reserved;
        ht_model_share_budget(m);
    }
    ht_os_unlock(&m->budget_lock);
    /* Rotations that depend on the context's length go by what was asked for, never by what a budget made of it: a plan
     * changes no bit. */
    uint32_t rope_ctx = p.n_ctx ? p.n_ctx : m->m.n_ctx_train;
    if (st == HT_OK)
        st = ht_state_open(&s->state, &m->m, &m->mem, kv, n_ctx, err);
    if (st == HT_OK)
        st = ht_forward_open(&s->forward, &m->m, &m->store, m->exec, &m->mem, m->f32, m->sparse, batch, rope_ctx, rows,
                             err);
    if (st != HT_OK) {
        hearth_session_close(&s);
        return (hearth_status)st;
    }
    *out = s;
    return HEARTH_OK;
}

void hearth_session_close(hearth_session **sp)
{
    hearth_session *s = sp ? *sp : NULL;
    if (!s)
        return;
    if (s->forward.mem)
        ht_forward_close(&s->forward);
    ht_state_close(&s->state);
    ht_os_lock(&s->model->budget_lock);
    s->model->reserved -= s->reserved;
    ht_model_share_budget(s->model);
    ht_os_unlock(&s->model->budget_lock);
    free(s);
    *sp = NULL;
}

struct rows_to_caller {
    hearth_logits_fn *fn;
    void *user;
    size_t base;
    uint32_t n_vocab;
};

static bool deliver_rows(void *user, uint32_t first, uint32_t n, const float *logits)
{
    struct rows_to_caller *r = user;
    for (uint32_t i = 0; i < n; i++)
        if (!r->fn(r->user, r->base + first + i, logits + (size_t)i * r->n_vocab))
            return false;
    return true;
}

/* One pass; what it read from the disk is this session's. The model's lock is held. */
static ht_status pass(hearth_session *s, const hearth_token *ids, uint32_t n, ht_logits_fn *on_logits, void *user,
                      ht_error *err)
{
    _Static_assert(sizeof s->stats.layers_missing / sizeof *s->stats.layers_missing == HT_N_MISSING, "as the store counts them");
    ht_disk *disk = s->model->store.disk;
    const ht_disk_counts before = disk ? ht_disk_get_counts(disk) : (ht_disk_counts){ 0 };
    uint64_t missing[HT_N_MISSING];
    memcpy(missing, s->model->store.missing, sizeof missing);
    const uint64_t guessed = s->model->store.guessed, right = s->model->store.guessed_right;
    const ht_status st = ht_forward_run(&s->forward, &s->state, ids, n, on_logits, user, &s->cancel, err);

    if (!disk)
        return st;
    const ht_disk_counts now = ht_disk_get_counts(disk);
    s->stats.disk_bytes_read += now.bytes - before.bytes;
    s->stats.io_wait_seconds += now.wait_seconds - before.wait_seconds;
    s->stats.experts_foreseen += now.foreseen - before.foreseen;
    s->stats.experts_foreseen_hit += now.used - before.used;
    if (n == 1) {
        s->stats.experts_wanted += now.wanted - before.wanted;
        s->stats.experts_hit += now.hits - before.hits;
        s->stats.experts_guessed += s->model->store.guessed - guessed;
        s->stats.experts_guessed_right += s->model->store.guessed_right - right;
        for (uint32_t i = 0; i < HT_N_MISSING; i++)
            s->stats.layers_missing[i] += s->model->store.missing[i] - missing[i];
    }
    ht_model_keep_heat(s->model, false);
    return st;
}

ht_status ht_session_compute(hearth_session *s, const hearth_token *ids, size_t n, hearth_logits_fn *on_logits,
                             void *user, ht_error *err)
{
    struct rows_to_caller rows = { on_logits, user, 0, s->model->m.n_vocab };
    ht_status st = HT_OK;

    if (s->spoilt)
        return ht_fail(err, HT_EINVAL, "a cancelled pass left this model's state half-way: rewind to 0 first");
    /* A cut file and a failing disk are found here, with a sentence, where the look comes before the touch. */
    if ((st = ht_gguf_check_size(s->model->gguf, err)) != HT_OK)
        return st;
    if (s->model->store.disk && (st = ht_disk_check(s->model->store.disk, err)) != HT_OK)
        return st;
    if (ht_ahead_failed(&s->model->ahead))
        return ht_fail(err, HT_EIO, "%s: the weights cannot be read from the disk", ht_gguf_path(s->model->gguf, 0));
    if (ht_ahead_busy(&s->model->ahead)) {
        const ht_part *embed = &s->model->m.embed;
        for (size_t i = 0; i < n; i++)
            ht_os_will_need((const uint8_t *)embed->host + (size_t)ids[i] * embed->stride, embed->stride);
    }
    if ((st = ht_state_reserve(&s->state, s->state.pos + (uint32_t)n, err)) != HT_OK)
        return st;
    for (size_t i = 0; i < n && st == HT_OK; i += s->forward.batch) {
        uint32_t k = n - i < s->forward.batch ? (uint32_t)(n - i) : s->forward.batch;
        rows.base = i;
        ht_os_lock(&s->model->lock);
        ht_model_settle(s->model, &s->cancel);
        st = pass(s, ids + i, k, on_logits ? deliver_rows : NULL, &rows, err);
        ht_os_unlock(&s->model->lock);
        s->has_logits = st == HT_OK;
        s->last_row = on_logits ? (k - 1) % s->forward.logit_rows : 0;
        s->spoilt |= st != HT_OK && s->model->m.recurrent;
    }
    return st;
}

hearth_status hearth_session_feed(hearth_session *s, const hearth_token *ids, size_t n, hearth_logits_fn *on_logits,
                                  void *user, hearth_error *error)
{
    ht_error *err = ht_err(error);
    size_t pending = s->pending >= 0;
    ht_status st;

    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || (uint32_t)ids[i] >= s->model->m.n_vocab)
            return (hearth_status)ht_fail(err, HT_EINVAL, "token id %d is outside 0..%u", ids[i],
                                          s->model->m.n_vocab - 1);
    if (n + pending > s->state.n_ctx - s->state.pos)
        return (hearth_status)ht_fail(err, HT_EFULL, "%zu more tokens do not fit the context: %u of %u are in use", n,
                                      s->state.pos + (uint32_t)pending, s->state.n_ctx);
    if (n == 0)
        return HEARTH_OK;
    double t0 = ht_os_now();
    if (pending) {
        if ((st = ht_session_compute(s, &s->pending, 1, NULL, NULL, err)) != HT_OK)
            return (hearth_status)st;
        s->pending = -1;
    }
    st = ht_session_compute(s, ids, n, on_logits, user, err);
    if (st == HT_OK) {
        s->stats.prompt_tokens += n;
        s->stats.prompt_seconds += ht_os_now() - t0;
    }
    return (hearth_status)st;
}

const float *hearth_session_logits(const hearth_session *s)
{
    return s->has_logits ? s->forward.logits + (size_t)s->last_row * s->model->m.n_vocab : NULL;
}

uint32_t hearth_session_position(const hearth_session *s) { return s->state.pos + (s->pending >= 0); }

uint32_t hearth_session_context(const hearth_session *s) { return s->state.n_ctx; }

hearth_status hearth_session_rewind(hearth_session *s, uint32_t n, hearth_error *error)
{
    if (n == hearth_session_position(s) && !s->spoilt)
        return HEARTH_OK;
    if (s->spoilt && n != 0)
        return (hearth_status)ht_fail(ht_err(error), HT_EUNSUPPORTED,
                                      "a cancelled pass left this model's state half-way: it can only go back to 0");
    ht_status st = ht_state_truncate(&s->state, n, ht_err(error));
    if (st == HT_OK) {
        s->pending = -1;
        s->has_logits = false;
        s->spoilt &= n != 0;
    }
    return (hearth_status)st;
}

void hearth_session_cancel(hearth_session *s) { atomic_store(&s->cancel.asked, true); }

void hearth_session_uncancel(hearth_session *s) { atomic_store(&s->cancel.asked, false); }

hearth_status hearth_session_trace(hearth_session *s, hearth_trace_fn *fn, void *user)
{
    s->forward.trace = fn;
    s->forward.trace_user = user;
    return HEARTH_OK;
}

hearth_status hearth_session_route(hearth_session *s, hearth_route_fn *fn, void *user)
{
    s->forward.route = fn;
    s->forward.route_user = user;
    return HEARTH_OK;
}

hearth_status hearth_session_get_stats(const hearth_session *s, hearth_stats *out)
{
    hearth_stats r = s->stats;
    for (uint32_t i = 0; i < s->model->m.n_layer; i++) {
        r.neurons_active += atomic_load(&s->forward.loads[i].n_active);
        r.neurons_total += atomic_load(&s->forward.loads[i].n_neurons);
    }
    const ht_model *w = &s->model->m;
    r.single_passes = s->forward.n_single;
    r.weight_bytes_read =
        s->forward.n_single * (w->bytes_per_token - w->ffn_bytes_per_token) + atomic_load(&s->forward.n_bytes);
    if (w->predict)
        r.weight_bytes_read += s->forward.n_single * w->predict->bytes_per_token;
    r.mask_neurons = atomic_load(&s->forward.counts.neurons);
    r.mask_active = atomic_load(&s->forward.counts.active);
    r.mask_predicted = atomic_load(&s->forward.counts.predicted);
    r.mask_hit = atomic_load(&s->forward.counts.hit);
    r.experts_stood_in = s->forward.missed.stood_in;
    r.experts_skipped = s->forward.missed.skipped;
    r.experts_rerouted = s->forward.missed.rerouted;
    r.mixtures = s->forward.missed.mixtures;
    r.skipped_share = s->forward.missed.skipped_share;
    r.kv_bytes = ht_state_bytes(&s->state);
    r.scratch_bytes = s->forward.bytes + s->state.partial_bytes;
    r.thread_scratch_bytes = s->model->exec_bytes;
    HT_RESULT(out, &r);
    return HEARTH_OK;
}
