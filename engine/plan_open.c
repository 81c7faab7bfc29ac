/* SPDX-License-Identifier: MIT
 * Plans behind hearth.h: a model's metadata, what a session of it would take, this machine's figures, and the solved plan. The
 * sizes are counted as hearth.c and session.c count them when a model is really opened. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/objects.h"
#include "engine/plan_object.h"
#include "engine/state.h"

enum { DEFAULT_BATCH = 512, STREAM_BATCH = 2048, SCRATCH_GOAL = 128 << 20, STREAM_SCRATCH_GOAL = 1 << 30, USUAL_CONTEXT = 4096,
       LEAST_CONTEXT = 512, MAX_CONTEXT = 1 << 28, DISK_READ = 1 << 20, DEFAULT_PROMPT = 512, MAX_PROMPT = 1 << 24 };

/* What opening a plan goes by. */
typedef struct planner {
    hearth_plan *p;
    hearth_model_params model;
    hearth_plan_params params;
    ht_topology topology;
    ht_tokenizer *tok;
    ht_rates rates;
    ht_disk_needs needs;
    ht_plan_setting s;
    bool streamed;
    uint64_t limit;      /* of RAM */
    uint64_t exec_bytes, table_bytes, set_bytes;
    uint32_t rows;
} planner;

/* ---- Figures ---- */

static ht_status setting_of(uint32_t threads_asked, const char *isa_name, const ht_topology *t, uint32_t *threads, ht_isa *isa,
                            ht_error *err)
{
    *isa = ht_isa_best();
    if (isa_name) {
        const int asked = ht_isa_by_name(isa_name);
        if (asked < 0)
            return ht_fail(err, HT_EINVAL, "\"%.40s\" is no SIMD level of this program", isa_name);
        if (!ht_isa_runs((ht_isa)asked))
            return ht_fail(err, HT_EINVAL, "this processor has no %s; its best level is %s", isa_name, ht_isa_name(*isa));
        *isa = (ht_isa)asked;
    }
    *threads = threads_asked ? threads_asked : t->n_perf_cores;
    if (!threads_asked && t->quota && *threads > t->quota)
        *threads = t->quota;
    *threads = *threads > t->n_pus ? t->n_pus : *threads;
    return HT_OK;
}

/* The file's figures, where they are of this machine and whole; what is wanted beside is measured and kept there. */
static ht_status get_rates(ht_rates *r, const ht_topology *t, const char *path, const ht_rates_want *want, bool again, bool stored_only,
                           hearth_progress_fn *progress, void *user, ht_error *err)
{
    ht_error why = { 0 };
    ht_status st = path ? ht_rates_read(r, path, &why) : HT_OK;

    if (stored_only)
        return st == HT_OK ? HT_OK : ht_fail(err, st, "%s", why.text);
    if (st == HT_ENOMEM || (st == HT_EIO && ht_os_is_special(path)))
        return ht_fail(err, st, "%s", why.text);
    if (!again && ht_rates_have(r, want))
        return HT_OK;
    if ((st = ht_rates_measure(r, t, want, again, progress, user, err)) != HT_OK)
        return st;
    return path ? ht_rates_write(r, path, err) : HT_OK;
}

static void list_rates(hearth_rates *out, const ht_rates *r)
{
    enum { MOST = sizeof out->types / sizeof *out->types, MOST_KV = sizeof out->kv / sizeof *out->kv };

    for (uint32_t t = 0; t < HT_TYPE_MAX; t++) {
        const ht_type_rates *x = &r->types[t];
        if (x->read_bps > 0 && out->n_types < MOST)
            out->types[out->n_types++] = (hearth_type_rates){
                .type = ht_type_name(t), .read_bytes_per_s = x->read_bps, .short_bytes_per_s = x->short_bps,
                .cached_bytes_per_s = x->cached_bps,
                .gathered_bytes_per_s = x->gather_bps,
                .prompt_macs_per_s = { x->prompt_mps[0], x->prompt_mps[1], x->prompt_mps[2] }
            };
        if (r->kv[t].prompt_mps > 0 && out->n_kv < MOST_KV)
            out->kv[out->n_kv++] = (hearth_kv_rates){ .type = ht_type_name(t), .element_seconds = r->kv[t].element_s,
                                                      .query_seconds = r->kv[t].query_s,
                                                      .prompt_macs_per_s = r->kv[t].prompt_mps };
    }
}

hearth_status hearth_rates_read(hearth_rates *out, const hearth_rates_params *params, hearth_error *error)
{
    static const ht_type common[] = { HT_F16, HT_Q4_0, HT_Q8_0, HT_Q4_K, HT_Q6_K };
    ht_error *err = ht_err(error);
    hearth_rates_params p;
    ht_rates_want want = { .kv = 1ull << HT_F16 | 1ull << HT_Q8_0 };
    uint32_t threads = 0;
    ht_isa isa = HT_ISA_REF;
    ht_reader_choice disk;

    HT_PARAMS(&p, params);
    ht_topology *t = calloc(1, sizeof *t);
    ht_rates *r = calloc(1, sizeof *r);
    hearth_rates *h = calloc(1, sizeof *h);
    ht_status st = t && r && h ? ht_topology_read(t, err) : ht_fail(err, HT_ENOMEM, "figures of this machine");
    if (st != HT_OK || !t || !r || !h || (st = setting_of(p.threads, p.isa, t, &threads, &isa, err)) != HT_OK)
        goto done;
    for (size_t i = 0; i < sizeof common / sizeof *common; i++)
        want.types |= 1ull << common[i];
    if (p.precision == HEARTH_PRECISION_F32)
        want.kv = 1ull << HT_F32;
    ht_rates_init(r, t, threads, isa, p.precision == HEARTH_PRECISION_F32);
    if ((st = get_rates(r, t, p.path, &want, p.again, p.stored_only, p.progress, p.progress_user, err)) != HT_OK)
        goto done;
    if (p.disk && !p.stored_only && ht_reader_choose(&disk, p.disk, DISK_READ, 0, err) == HT_OK) {
        r->disk_direct_bps = disk.direct_bytes_per_s;
        r->disk_cached_bps = disk.cached_bytes_per_s;
        if (p.path && (st = ht_rates_write(r, p.path, err)) != HT_OK)
            goto done;
    }
    memcpy(h->cpu, r->cpu, sizeof h->cpu);
    memcpy(h->isa, r->isa, sizeof h->isa);
    h->threads = threads;
    h->precision = p.precision;
    h->task_seconds = r->task_s;
    h->wait_seconds = r->wait_s;
    h->op_seconds = r->op_s;
    h->element_seconds = r->element_s;
    h->memory_bytes_per_s = r->memory_bps;
    h->disk_direct_bytes_per_s = r->disk_direct_bps;
    h->disk_cached_bytes_per_s = r->disk_cached_bps;
    list_rates(h, r);
    HT_RESULT(out, h);
done:
    if (t)
        ht_topology_deinit(t);
    free(t);
    free(r);
    free(h);
    return (hearth_status)st;
}

/* ---- Sizes ---- */

static uint64_t free_memory(void)
{
    const uint64_t bytes = ht_os_ram_available();
    return bytes - bytes / 8;
}

/* hearth.c: whether weights, tables and a session of a usual length fit. */
static bool fits(const planner *k)
{
    enum { USUAL = 2048, LEAST_BATCH = 16 };
    const ht_model *w = &k->p->m;
    const uint32_t n = w->n_ctx_train < USUAL ? w->n_ctx_train : USUAL;
    const uint64_t kv = (n + HT_KV_PAGE - 1) / HT_KV_PAGE * ht_state_set_bytes(w, k->s.f32 ? HT_F32 : HT_F16);

    return w->weight_bytes + k->table_bytes + k->exec_bytes + ht_state_fixed_bytes(w) + kv +
               ht_forward_bytes(w, false, k->s.f32, false, LEAST_BATCH, 1) <= k->limit;
}

static uint64_t weights_taken(const planner *k)
{
    return k->streamed ? k->needs.held + k->needs.floor : k->p->m.weight_bytes;
}

static uint64_t scratch_of(const planner *k, uint32_t batch)
{
    return ht_forward_bytes(&k->p->m, k->streamed, k->s.f32, k->s.sparse, batch, k->rows) + ht_state_partial_bytes(&k->p->m, 1);
}

static uint64_t context_of(const planner *k, uint32_t n)
{
    return ((uint64_t)n + HT_KV_PAGE - 1) / HT_KV_PAGE * k->set_bytes;
}

/* session.c: as large a batch as a share of what is left allows; the context comes before it. */
static void choose_batch(planner *k)
{
    const ht_model *w = &k->p->m;
    const uint64_t taken = weights_taken(k) + k->exec_bytes + k->table_bytes;
    const uint64_t share = k->limit > taken ? (k->limit - taken) / 4 : 0;
    const uint64_t most = k->streamed ? STREAM_SCRATCH_GOAL : SCRATCH_GOAL;
    const uint64_t goal = (k->model.ram_bytes || k->streamed) && share < most ? share : most;
    uint32_t batch = k->params.batch ? k->params.batch : k->streamed ? STREAM_BATCH : DEFAULT_BATCH;

    while (!k->params.batch && batch > 16 && scratch_of(k, batch) - ht_state_partial_bytes(w, 1) > goal)
        batch /= 2;
    while (!k->params.batch && batch > 16 && (k->model.ram_bytes || k->streamed) &&
           taken + scratch_of(k, batch) + ht_state_fixed_bytes(w) + context_of(k, k->params.n_ctx ? k->params.n_ctx : 1) > k->limit)
        batch /= 2;
    k->s.batch = batch > 1u << 16 ? 1u << 16 : batch;
}

static void choose_context(planner *k)
{
    const ht_model *w = &k->p->m;
    const uint64_t taken = weights_taken(k) + k->exec_bytes + k->table_bytes + scratch_of(k, k->s.batch) + ht_state_fixed_bytes(w);
    uint64_t left = k->limit > taken ? k->limit - taken : 0;

    k->s.n_ctx = k->params.n_ctx;
    if (k->s.n_ctx)
        return;
    if (k->streamed) { /* what is not for the context is for experts */
        const uint64_t usual = USUAL_CONTEXT / HT_KV_PAGE * k->set_bytes, share = left / 8;
        left = share > usual ? share : left < usual ? left : usual;
    }
    const uint64_t n = k->set_bytes ? left / k->set_bytes * HT_KV_PAGE : w->n_ctx_train;
    k->s.n_ctx = n < w->n_ctx_train ? (uint32_t)n : w->n_ctx_train;
    if (k->s.n_ctx < LEAST_CONTEXT) /* the refusal names a length that is of use */
        k->s.n_ctx = w->n_ctx_train < LEAST_CONTEXT ? w->n_ctx_train : LEAST_CONTEXT;
}

static ht_status size_up(planner *k, ht_error *err)
{
    const ht_model *w = &k->p->m;
    const ht_cpu_params cpu = { .threads = k->rates.threads, .max_k = w->max_k, .max_head = w->max_head, .unpack_bytes = w->unpack_bytes };
    uint64_t tensors = 0, placed = 0;
    ht_status st;

    k->exec_bytes = ht_cpu_scratch_bytes(&cpu);
    k->table_bytes = ht_gguf_table_bytes(k->p->gguf) + w->table_bytes + (k->tok ? ht_tokenizer_bytes(k->tok) : 0);
    k->limit = k->model.ram_bytes ? k->model.ram_bytes : free_memory();
    k->rows = (4u << 20) / (w->n_vocab * 4u);
    k->rows = k->rows < 1 ? 1 : k->rows > 64 ? 64 : k->rows;
    for (uint64_t i = 0; i < ht_gguf_n_tensors(k->p->gguf); i++)
        tensors += ht_gguf_tensor_at(k->p->gguf, i)->bytes;
    k->s.streamable = k->model.io != HEARTH_IO_MMAP;
    k->streamed = k->s.streamable && (k->model.io != HEARTH_IO_AUTO || tensors > k->limit || (k->model.ram_bytes && !fits(k)));
    for (size_t i = 0; i < k->params.n_pins && k->s.streamable; i++) { /* that is what it takes */
        const char *eq = strchr(k->params.pins[i], '=');
        k->streamed |= eq && !strcmp(eq, "=disk");
    }
    k->s.streamed = k->streamed;
    if (k->streamed) {
        const bool predictors = ht_activation_has_zeros(w->act) && k->model.sparsity == HEARTH_SPARSITY_AUTO && !k->model.ignore_predictors;
        if ((st = ht_disk_needs_of(&k->needs, w, predictors, err)) != HT_OK)
            return st;
        k->table_bytes += k->needs.tables;
    }
    k->set_bytes = ht_state_set_bytes(w, k->s.kv) + ht_state_set_table_bytes(w) +
                   (ht_state_partial_bytes(w, 1) * HT_KV_PAGE + HT_ATTEND_SPAN - 1) / HT_ATTEND_SPAN;
    choose_batch(k);
    choose_context(k);
    if (k->s.n_ctx > MAX_CONTEXT || (w->n_positions && k->s.n_ctx > w->n_positions))
        return ht_fail(err, HT_EINVAL, "a context of %u is beyond what this model can have", k->s.n_ctx);
    if (k->params.depth >= k->s.n_ctx)
        return ht_fail(err, HT_EINVAL, "a depth of %u is beyond the context of %u", k->params.depth, k->s.n_ctx);
    /* What is neither trunk nor piece: the embedding, vectors; and of the lists of pages what KV itself is not. */
    placed = ht_plan_weight_bytes(w);
    const uint64_t whole = k->streamed ? k->needs.held + ht_plan_piece_bytes(w) : w->weight_bytes;
    k->s.fixed_bytes = k->table_bytes + k->exec_bytes + scratch_of(k, k->s.batch) + (whole > placed ? whole - placed : 0) +
                       ((uint64_t)k->s.n_ctx + HT_KV_PAGE - 1) / HT_KV_PAGE * (k->set_bytes - ht_state_set_bytes(w, k->s.kv));
    k->s.floor_bytes = k->needs.floor;
    return HT_OK;
}

/* ---- Disk ---- */

/* As the store reads: a token's experts together and then waiting, a dense block's parts while the one before is computed. */
static double disk_rate(const planner *k, bool direct)
{
    const ht_model *w = &k->p->m;
    uint64_t bytes = 0, units = 0;
    uint32_t used = 1;
    bool mixture = false;

    for (uint32_t il = 0; il < w->n_layer; il++) {
        units += w->layers[il].ffn.n_expert;
        mixture |= w->layers[il].ffn.router.host != NULL;
        used = w->layers[il].ffn.n_used > used ? w->layers[il].ffn.n_used : used;
    }
    bytes = units ? ht_plan_piece_bytes(w) / units / 3 : 0; /* gate, up and down are reads of their own */
    return ht_rates_disk(ht_gguf_path(k->p->gguf, 0), direct, (size_t)bytes, mixture ? 3 * (used + 1) / 2 : 6, mixture);
}

static void read_disk(planner *k)
{
    const ht_rates *r = &k->rates;
    const uint64_t available = ht_os_ram_available();
    bool direct = k->model.io != HEARTH_IO_CACHED;
    ht_reader_choice c;

    k->p->io = "mmap";
    if (!k->streamed)
        return;
    k->s.disk_bps = direct ? r->disk_direct_bps : r->disk_cached_bps;
    if (!k->params.stored_only) {
        double now = 0.0;
        if (k->model.io == HEARTH_IO_AUTO &&
            ht_reader_choose(&c, ht_gguf_path(k->p->gguf, 0), DISK_READ, available > k->limit ? available - k->limit : 0, NULL) == HT_OK &&
            c.io == HT_IO_CACHED) {
            direct = false;
            now = c.expected_bytes_per_s;
        }
        now = now > 0 ? now : disk_rate(k, direct);
        k->s.disk_bps = now > 0 ? now : k->s.disk_bps;
    }
    k->p->io = direct ? "direct" : "cached";
}

/* ---- Opening ---- */

static ht_type kv_of(const planner *k)
{
    const hearth_kv_type t = k->params.kv_type;
    ht_type kv = k->s.f32              ? HT_F32
                 : t == HEARTH_KV_F32  ? HT_F32
                 : t == HEARTH_KV_Q8_0 ? HT_Q8_0
                 : t == HEARTH_KV_Q4_0 ? HT_Q4_0
                                       : HT_F16;
    return ht_state_type_fits(&k->p->m, kv) ? kv : HT_F16;
}

static ht_status describe(hearth_plan *p, ht_error *err)
{
    const ht_model *w = &p->m;
    ht_str name = { NULL, 0 };
    ht_status st = ht_gguf_str(p->gguf, "general.name", &name, err);

    if (st != HT_OK)
        return st;
    snprintf(p->name, sizeof p->name, "%.*s", name.n > sizeof p->name - 1 ? (int)sizeof p->name - 1 : (int)name.n, name.s ? name.s : "");
    const int n = snprintf(p->description, sizeof p->description, "%s, %u layers, d %u, %s", w->arch->name, w->n_layer, w->d_model,
                           ht_type_name(w->layers[0].ffn.experts[0][HT_ROLE_UP].type));
    if (w->max_expert > 1)
        snprintf(p->description + n, sizeof p->description - (size_t)n, ", %u of %u experts", w->max_used, w->max_expert);
    return HT_OK;
}

static ht_status take_uses(planner *k, ht_error *err)
{
    const uint32_t n = k->p->m.n_layer;

    if (!k->params.uses)
        return HT_OK;
    if (k->params.n_uses != n)
        return ht_fail(err, HT_EINVAL, "the profile is of %u layers, the model has %u", k->params.n_uses, n);
    ht_plan_use *use = calloc(n, sizeof *use);
    if (!use)
        return ht_fail(err, HT_ENOMEM, "a plan of %u layers", n);
    for (uint32_t i = 0; i < n; i++)
        use[i] = (ht_plan_use){ .density = k->params.uses[i].density, .expert_overlap = k->params.uses[i].expert_overlap,
                                .expert_frequency = k->params.uses[i].expert_frequency, .frequency = k->params.uses[i].frequency };
    k->s.use = use;
    k->p->profiled = true;
    return HT_OK;
}

static ht_status open_model(planner *k, const char *path, ht_error *err)
{
    hearth_plan *p = k->p;
    ht_error why;
    ht_status st;

    if ((st = ht_gguf_open(&p->gguf, path, err)) || (st = ht_model_override(p->gguf, k->model.overrides, k->model.n_overrides, err)))
        return st;
    if ((st = ht_tokenizer_open(&k->tok, p->gguf, &why)) != HT_OK && st != HT_EUNSUPPORTED)
        return ht_fail(err, st, "%s", why.text);
    return ht_model_load(&p->m, p->gguf, err);
}

static ht_status open_plan(planner *k, const char *path, ht_error *err)
{
    hearth_plan *p = k->p;
    uint32_t threads = 0;
    ht_isa isa = HT_ISA_REF;
    ht_status st;

    if ((st = ht_topology_read(&k->topology, err)) || (st = open_model(k, path, err)) || (st = describe(p, err)) ||
        (st = setting_of(k->model.threads, k->model.isa, &k->topology, &threads, &isa, err)) || (st = take_uses(k, err)))
        return st;
    k->s.m = &p->m;
    k->s.r = &k->rates;
    k->s.f32 = k->model.precision == HEARTH_PRECISION_F32;
    k->s.sparse = k->model.sparsity != HEARTH_SPARSITY_OFF && ht_activation_has_zeros(p->m.act);
    k->s.kv = kv_of(k);
    k->s.depth = k->params.depth;
    k->s.prompt = k->params.prompt_tokens ? k->params.prompt_tokens : DEFAULT_PROMPT;
    k->s.pins = k->params.pins;
    k->s.n_pins = k->params.n_pins;
    k->s.cache_bytes = k->topology.l3_bytes ? k->topology.l3_bytes : k->topology.l2_bytes;
    if (k->s.prompt > MAX_PROMPT)
        return ht_fail(err, HT_EINVAL, "a prompt of %u tokens is beyond %d", k->s.prompt, MAX_PROMPT);
    const ht_rates_want want = ht_plan_wants(&p->m, k->s.kv);
    ht_rates_init(&k->rates, &k->topology, threads, isa, k->s.f32);
    if ((st = get_rates(&k->rates, &k->topology, k->params.rates, &want, false, k->params.stored_only, k->model.progress,
                        k->model.progress_user, err)))
        return st;
    if ((st = size_up(k, err)) != HT_OK)
        return st;
    read_disk(k);
    k->s.budget = (ht_budget){ .ram_bytes = k->limit, .vram_bytes = k->params.vram_bytes };
    if ((st = ht_plan_make(&p->made, &k->s, err)) != HT_OK)
        return st;
    p->threads = threads;
    p->isa = ht_isa_name(isa);
    p->n_ctx = k->s.n_ctx;
    p->depth = k->s.depth;
    p->prompt = k->s.prompt;
    p->batch = k->s.batch;
    p->kv = k->s.kv;
    p->budget = k->s.budget;
    p->fixed_bytes = k->s.fixed_bytes;
    p->disk_bps = k->s.disk_bps;
    p->gpu = k->rates.gpu.read_bps > 0 && p->made.plan.vram_bytes > 0;
    return HT_OK;
}

hearth_status hearth_plan_open(hearth_plan **out, const char *path, const hearth_model_params *model, const hearth_plan_params *params,
                               hearth_error *error)
{
    ht_error *err = ht_err(error);
    ht_status st;

    *out = NULL;
    planner *k = calloc(1, sizeof *k);
    hearth_plan *p = calloc(1, sizeof *p);
    if (!k || !p) {
        free(k);
        free(p);
        return (hearth_status)ht_fail(err, HT_ENOMEM, "a plan");
    }
    HT_PARAMS(&k->model, model);
    HT_PARAMS(&k->params, params);
    k->p = p;
    if ((st = open_plan(k, path, err)) != HT_OK)
        hearth_plan_close(&p);
    ht_tokenizer_close(&k->tok);
    ht_topology_deinit(&k->topology);
    free((void *)(uintptr_t)k->s.use);
    free(k);
    *out = p;
    return (hearth_status)st;
}

void hearth_plan_close(hearth_plan **pp)
{
    hearth_plan *p = pp ? *pp : NULL;

    if (!p)
        return;
    ht_plan_drop(&p->made);
    ht_model_free(&p->m);
    ht_gguf_close(&p->gguf);
    free(p);
    *pp = NULL;
}
