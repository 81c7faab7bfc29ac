/* SPDX-License-Identifier: MIT
 * From a model to a plan's problem, and from its solution to seconds and bytes; see plan_model.h. */
#include "engine/plan_model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/neurons.h"
#include "engine/plan_pins.h"
#include "engine/state.h"

enum { RUNS = 16, LEAST_RUN = 256 }; /* of a dense block that a graphics card may share: runs of its neurons */

typedef struct maker {
    const ht_plan_setting *s;
    const ht_rates *r;
    ht_plan_made *out;
    double large;  /* weights in large pages are read faster by this */
    double cached; /* share of a token's weights that the last-level cache still holds */
    uint32_t n_pieces;
} maker;

static uint64_t bytes_of(const ht_part *p)
{
    return p->host ? (uint64_t)p->n * ht_type_row_bytes(ht_type_get(p->type), p->k) : 0;
}

static double macs_of(const ht_part *p) { return p->host ? (double)p->n * p->k : 0.0; }

/* ---- One token ---- */

/* What a row takes by itself is spread over its length. */
static double part_s(const maker *w, const ht_part *p)
{
    if (!p->host)
        return 0.0;
    const ht_type_rates *t = &w->r->types[p->type];
    const double most = HT_RATES_ROW / (double)HT_RATES_SHORT_ROW, lengths = HT_RATES_ROW / (double)p->k;
    const double brief = lengths < 1.0 ? 0.0 : lengths > most ? 1.0 : (lengths - 1.0) / (most - 1.0);
    const double memory = (1.0 / t->read_bps + brief * (1.0 / t->short_bps - 1.0 / t->read_bps)) / w->large;

    return (double)bytes_of(p) * (w->cached / t->cached_bps + (1.0 - w->cached) * memory);
}

static double small_s(const maker *w, uint32_t ops, double floats) { return ops * w->r->op_s + floats * w->r->element_s; }

static double attend_s(const maker *w, const ht_attn *a, uint32_t position)
{
    const ht_kv_rates *k = &w->r->kv[w->s->kv];
    const uint32_t seen = a->window && position + 1 > a->window ? a->window : position + 1;

    return (double)seen * a->n_kv * (a->k_dim + a->v_dim) * (k->element_s + k->query_s * a->n_head / a->n_kv);
}

static uint64_t shared_bytes(const ht_ffn *f)
{
    return bytes_of(&f->shared[0]) + bytes_of(&f->shared[1]) + bytes_of(&f->shared[2]) + bytes_of(&f->shared_gate);
}

/* Sharing out, small operations, waiting: what a layer takes beside its bytes. */
static double overhead_s(const maker *w, const ht_layer *l)
{
    const ht_model *m = w->s->m;
    const ht_attn *a = &l->attn;
    double s = 2 * w->r->task_s; /* gate and up, down */

    s += small_s(w, 6, 8.0 * m->d_model);
    if (a->q.host)
        s += 3 * w->r->task_s + small_s(w, 3 + (a->q_norm.w != NULL) + (a->k_norm.w != NULL),
                                        2.0 * (a->n_head + 2.0 * a->n_kv) * a->k_dim);
    if (l->delta.qkv.host) /* projections, convolution, rule, output */
        s += 4 * w->r->task_s +
             small_s(w, 4, 4.0 * l->delta.qkv.n + 3.0 * (double)l->delta.n_v * l->delta.k_dim * l->delta.v_dim);
    if (l->ffn.router.host)
        s += w->r->task_s + w->r->wait_s + small_s(w, 3, 4.0 * l->ffn.n_expert + (double)l->ffn.n_used * m->d_model);
    if (l->ffn.shared_n_ff)
        s += 2 * w->r->task_s + small_s(w, 2, 2.0 * m->d_model);
    return s;
}

static double trunk_parts_s(const maker *w, const ht_layer *l)
{
    const ht_attn *a = &l->attn;
    const ht_delta *d = &l->delta;
    const ht_ffn *f = &l->ffn;
    const ht_part *all[] = { &a->q, &a->k, &a->v, &a->o, &d->qkv, &d->z, &d->ba, &d->beta, &d->alpha, &d->o, &f->router,
                             &f->shared[0], &f->shared[1], &f->shared[2], &f->shared_gate };
    double s = 0;

    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        s += part_s(w, all[i]);
    return s;
}

static uint64_t trunk_bytes(const ht_layer *l)
{
    const ht_attn *a = &l->attn;
    const ht_delta *d = &l->delta;

    return bytes_of(&a->q) + bytes_of(&a->k) + bytes_of(&a->v) + bytes_of(&a->o) + bytes_of(&d->qkv) + bytes_of(&d->z) +
           bytes_of(&d->ba) + bytes_of(&d->beta) + bytes_of(&d->alpha) + bytes_of(&d->o) + bytes_of(&l->ffn.router) +
           shared_bytes(&l->ffn);
}

/* A layer's share of a context of n positions. */
static uint64_t kv_bytes(const maker *w, const ht_layer *l, uint32_t n)
{
    const ht_attn *a = &l->attn;
    const ht_type_info *t = ht_type_get(w->s->kv);

    return a->q.host ? ((uint64_t)n + HT_KV_PAGE - 1) / HT_KV_PAGE * HT_KV_PAGE * a->n_kv *
                           (ht_type_row_bytes(t, a->k_dim) + ht_type_row_bytes(t, (a->v_dim + 15) / 16 * 16))
                     : 4 * ((uint64_t)l->delta.n_v * l->delta.k_dim * l->delta.v_dim);
}

/* Seconds of a whole expert or block where `density` of its neurons are active (1: nothing is skipped). */
static double block_s(const maker *w, const ht_part part[HT_N_ROLES], double density)
{
    const ht_part *gate = &part[HT_ROLE_GATE], *up = &part[HT_ROLE_UP], *down = &part[HT_ROLE_DOWN];
    const double all = part_s(w, gate) + part_s(w, up) + part_s(w, down);

    if (density >= 1.0)
        return all;
    /* Without a gate the up rows are what is scanned. */
    const double rest = gate->host ? (double)bytes_of(up) * density / w->r->types[up->type].gather_bps : 0.0;
    const double scan = part_s(w, gate->host ? gate : up);
    const double some = scan + rest + (double)bytes_of(down) * density / w->r->types[down->type].gather_bps;
    return some < all ? some : all;
}

static double density_of(const maker *w, uint32_t il)
{
    const ht_plan_use *u = w->s->use ? &w->s->use[il] : NULL;

    return w->s->sparse && u && u->density >= 0.0 && u->density < 1.0 ? u->density : 1.0;
}

static double gpu_s(const maker *w, double bytes) { return w->r->gpu.read_bps > 0 ? bytes / w->r->gpu.read_bps : 1e6; }

/* ---- Pieces ---- */

/* What is on disk costs its reading, and computing that nothing hides; that of dense blocks begins behind the trunk. */
static double disk_s(const maker *w, double bytes, double use, double cpu, double hidden)
{
    const double rate = w->s->disk_bps > 0 ? w->s->disk_bps : 1e6;
    const double s = use * bytes / rate - hidden;

    return (s > 0 ? s : 0) + cpu;
}

/* Reads are whole pages, with slack on both sides. */
static uint64_t slot_of(const maker *w, uint64_t bytes) { return bytes && w->s->streamed ? (bytes + 3 * 4096u) / 4096 * 4096 : bytes; }

/* How often an expert is taken. */
static double use_of(const maker *w, uint32_t il, uint32_t e)
{
    const ht_ffn *f = &w->s->m->layers[il].ffn;
    const ht_plan_use *u = w->s->use ? &w->s->use[il] : NULL;
    const double use = u && u->expert_frequency ? (double)u->expert_frequency[e] : -1.0;

    return use >= 0.0 && use <= 1.0 ? use : (double)f->n_used / f->n_expert;
}

/* The chance, beyond chance, that the token before had it, so that it is still in a slot. Where no profile says it: recorded routing
 * of Qwen3-30B-A3B has a next-token overlap of 0.38 on average, of which 0.06 are chance. */
static double again_of(const maker *w, uint32_t il)
{
    static const double USUAL = 0.3;
    const ht_ffn *f = &w->s->m->layers[il].ffn;
    const ht_plan_use *u = w->s->use ? &w->s->use[il] : NULL;
    const double even = (double)f->n_used / f->n_expert;

    if (!u || u->expert_overlap < 0.0)
        return f->n_used < f->n_expert ? USUAL : 0.0;
    return u->expert_overlap > even && u->expert_overlap <= 1.0 && even < 1.0 ? (u->expert_overlap - even) / (1.0 - even) : 0.0;
}

static void mixture_pieces(maker *w, uint32_t il, ht_plan_piece *x)
{
    const ht_ffn *f = &w->s->m->layers[il].ffn;
    const double density = density_of(w, il), again = again_of(w, il);

    for (uint32_t e = 0; e < f->n_expert; e++) {
        const ht_part *p = f->experts[e];
        const uint64_t bytes = bytes_of(&p[0]) + bytes_of(&p[1]) + bytes_of(&p[2]);
        const double use = use_of(w, il, e), cpu = use * block_s(w, p, density);
        x[e] = (ht_plan_piece){ .bytes = slot_of(w, bytes), .cpu_seconds = cpu, .gpu_seconds = use * gpu_s(w, (double)bytes),
                                .disk_seconds = disk_s(w, (double)bytes, use * (1.0 - again), cpu * (1.0 - again), 0.0),
                                .may = HT_MAY_ALL };
    }
}

static uint32_t dense_runs(const maker *w, const ht_ffn *f)
{
    uint32_t n = w->r->gpu.read_bps > 0 ? f->n_ff / LEAST_RUN : 1;
    return n < 1 ? 1 : n > RUNS ? RUNS : n;
}

static void dense_pieces(maker *w, uint32_t il, double trunk_s, ht_plan_piece *x, uint32_t n)
{
    const ht_ffn *f = &w->s->m->layers[il].ffn;
    const ht_part *p = f->experts[0];
    const ht_plan_use *u = w->s->use ? &w->s->use[il] : NULL;
    const uint64_t bytes = bytes_of(&p[0]) + bytes_of(&p[1]) + bytes_of(&p[2]);
    const double density = density_of(w, il);

    for (uint32_t i = 0; i < n; i++) {
        const uint64_t first = (uint64_t)f->n_ff * i / n, end = (uint64_t)f->n_ff * (i + 1) / n;
        const double share = (double)(end - first) / f->n_ff;
        double active = density, sum = 0;
        if (density < 1.0 && u && u->frequency) { /* of these neurons, as they are stored */
            for (uint64_t j = first; j < end; j++)
                sum += (double)u->frequency[j];
            active = end > first ? fmin(1.0, fmax(0.0, sum / (double)(end - first))) : density;
        }
        const double cpu = share * block_s(w, p, active), part = share * (double)bytes;
        x[i] = (ht_plan_piece){ .bytes = slot_of(w, (uint64_t)part), .cpu_seconds = cpu, .gpu_seconds = gpu_s(w, part * active),
                                .disk_seconds = disk_s(w, part, 1.0, 0.0, share * trunk_s), .may = HT_MAY_ALL };
    }
}

static uint32_t pieces_of(const maker *w, const ht_ffn *f) { return f->router.host ? f->n_expert : dense_runs(w, f); }

static void make_layer(maker *w, uint32_t il, ht_plan_piece **next)
{
    const ht_model *m = w->s->m;
    const ht_layer *l = &m->layers[il];
    ht_plan_layer *out = &w->out->layers[il];
    ht_plan_row *row = &w->out->rows[il];
    const double parts = trunk_parts_s(w, l);

    row->trunk_bytes = trunk_bytes(l);
    row->kv_bytes = kv_bytes(w, l, w->s->n_ctx);
    const double attend = l->attn.q.host ? attend_s(w, &l->attn, w->s->depth) : 0.0;
    out->trunk = (ht_plan_piece){ .bytes = row->trunk_bytes + row->kv_bytes,
                                  .cpu_seconds = parts + attend + overhead_s(w, l),
                                  .gpu_seconds = gpu_s(w, (double)row->trunk_bytes + (double)kv_bytes(w, l, w->s->depth)) +
                                                 12 * w->r->gpu.launch_s,
                                  .may = HT_MAY_RAM | HT_MAY_VRAM };
    out->mirror_bytes = row->kv_bytes;
    out->pieces = *next;
    out->n_pieces = pieces_of(w, &l->ffn);
    if (l->ffn.router.host)
        mixture_pieces(w, il, *next);
    else
        dense_pieces(w, il, out->trunk.cpu_seconds, *next, out->n_pieces);
    *next += out->n_pieces;
}

/* Embedding row, last norm, logits, and picking the greatest of them. */
static void make_output(maker *w)
{
    const ht_model *m = w->s->m;
    ht_plan_layer *out = &w->out->layers[m->n_layer];
    ht_plan_row *row = &w->out->rows[m->n_layer];

    row->trunk_bytes = bytes_of(&m->output);
    out->trunk = (ht_plan_piece){ .bytes = row->trunk_bytes,
                                  .cpu_seconds = part_s(w, &m->output) + w->r->task_s + w->r->wait_s +
                                                 small_s(w, 4, 6.0 * m->d_model + m->n_vocab),
                                  .gpu_seconds = gpu_s(w, (double)row->trunk_bytes) + 2 * w->r->gpu.launch_s,
                                  .may = HT_MAY_RAM | HT_MAY_VRAM };
}

/* ---- The whole ---- */

static ht_status make_problem(maker *w, ht_error *err)
{
    const ht_plan_setting *s = w->s;
    const ht_model *m = s->m;
    ht_plan_made *out = w->out;
    ht_plan_problem *p = &out->problem;

    for (uint32_t il = 0; il < m->n_layer; il++)
        w->n_pieces += pieces_of(w, &m->layers[il].ffn);
    out->layers = calloc((size_t)m->n_layer + 1, sizeof *out->layers);
    out->rows = calloc((size_t)m->n_layer + 1, sizeof *out->rows);
    out->pieces = calloc((size_t)w->n_pieces + 1, sizeof *out->pieces);
    if (!out->layers || !out->rows || !out->pieces)
        return ht_fail(err, HT_ENOMEM, "a plan of %u layers", m->n_layer);
    ht_plan_piece *next = out->pieces;
    for (uint32_t il = 0; il < m->n_layer; il++)
        make_layer(w, il, &next);
    make_output(w);
    out->n_rows = m->n_layer + 1;
    for (uint32_t i = 0; i < out->n_rows; i++)
        out->kv_bytes += out->rows[i].kv_bytes;
    *p = (ht_plan_problem){ .layers = out->layers, .n_layers = out->n_rows, .ram_bytes = s->budget.ram_bytes,
                            .vram_bytes = w->r->gpu.read_bps > 0 ? s->budget.vram_bytes : 0,
                            .ram_fixed = s->fixed_bytes,
                            .vram_fixed = w->r->gpu.read_bps > 0 ? w->r->gpu.fixed_bytes : 1, .ram_slots = s->floor_bytes,
                            .join_seconds = w->r->gpu.join_s, .hop_seconds = w->r->gpu.hop_s };
    if (!s->streamable)
        p->ram_bytes = UINT64_MAX / 4;
    return ht_plan_pin(out->layers, out->pieces, m, w->r->gpu.read_bps > 0, s->streamed, s->pins, s->n_pins, err);
}

/* A sentence on what is missing, and what helps. */
static ht_status refuse(const maker *w, const ht_error *why, ht_error *err)
{
    const ht_plan_made *out = w->out;
    const uint64_t missing = out->plan.short_bytes;
    const bool large = missing >= 1u << 30;
    const double unit = large ? 1 << 30 : 1 << 20, much = ceil(10.0 * (double)missing / unit) / 10.0;
    uint64_t weights = 0;

    if (!missing)
        return ht_fail(err, HT_ENOMEM, "%s", why->text);
    for (uint32_t i = 0; i < out->n_rows; i++)
        weights += out->rows[i].trunk_bytes;
    if (out->kv_bytes >= missing)
        return ht_fail(err, HT_ENOMEM, "this needs %.1f %s more memory for context %u: lower --ctx or --kv-type, or raise --ram",
                       much, large ? "GiB" : "MiB", w->s->n_ctx);
    return ht_fail(err, HT_ENOMEM,
                   "this needs %.1f %s more memory, whatever the context: weights that every token needs take %.0f MiB, tables, "
                   "scratch and the least of slots %.0f MiB: raise --ram",
                   much, large ? "GiB" : "MiB", (double)weights / (1 << 20),
                   (double)(w->s->fixed_bytes + w->s->floor_bytes) / (1 << 20));
}

/* The chance that a piece which stays on disk has to be read for a token. */
static double needed(const maker *w, uint32_t il, uint32_t e)
{
    return w->s->m->layers[il].ffn.router.host ? use_of(w, il, e) * (1.0 - again_of(w, il)) : 1.0;
}

static void fill_rows(maker *w)
{
    ht_plan_made *out = w->out;

    for (uint32_t l = 0; l < out->n_rows; l++) {
        const ht_plan_layer *y = &out->layers[l];
        ht_plan_row *row = &out->rows[l];
        row->trunk = (ht_tier)out->plan.trunk[l];
        row->trunk_s = row->trunk == HT_TIER_VRAM ? y->trunk.gpu_seconds : y->trunk.cpu_seconds;
        row->n_pieces = y->n_pieces;
        for (uint32_t i = 0; i < y->n_pieces; i++) {
            const ht_plan_piece *x = &y->pieces[i];
            const uint8_t tier = out->plan.pieces[out->plan.first[l] + i];
            row->n_in[tier]++;
            row->in_bytes[tier] += x->bytes;
            row->gpu_s += tier == HT_TIER_VRAM ? x->gpu_seconds : 0.0;
            row->cpu_s += tier != HT_TIER_VRAM ? x->cpu_seconds : 0.0;
            row->disk_s += tier == HT_TIER_DISK ? x->disk_seconds : 0.0;
            if (tier == HT_TIER_DISK)
                out->disk_bytes_per_token += (double)x->bytes * needed(w, l, i);
        }
    }
}

/* The solver takes expectations layer by layer: of a mixture that is too kind, for where nothing is missing nothing is hidden,
 * and what is missing takes longer than the rest. What the time of a token is beyond it. */
static double misses_s(const maker *w)
{
    double sum = 0;

    for (uint32_t l = 0; l < w->s->m->n_layer; l++) {
        const ht_ffn *f = &w->s->m->layers[l].ffn;
        const ht_plan_row *row = &w->out->rows[l];
        const double here = row->cpu_s > row->gpu_s ? row->cpu_s : row->gpu_s;
        double missed = 0;
        if (!f->router.host || !row->n_in[HT_TIER_DISK])
            continue;
        for (uint32_t i = 0; i < row->n_pieces; i++)
            if (w->out->plan.pieces[w->out->plan.first[l] + i] == HT_TIER_DISK)
                missed += needed(w, l, i);
        const double none = pow(1.0 - fmin(1.0, missed / f->n_used), f->n_used);
        const double solved = here > row->disk_s ? here : row->disk_s, real = none * here + row->disk_s;
        sum += real > solved ? real - solved : 0.0;
    }
    return sum;
}

/* Where more of the context is attended to. */
static double deeper_s(const maker *w, uint32_t from, uint32_t to)
{
    double s = 0;

    for (uint32_t il = 0; il < w->s->m->n_layer; il++) {
        const ht_attn *a = &w->s->m->layers[il].attn;
        if (a->q.host && w->out->rows[il].trunk != HT_TIER_VRAM)
            s += attend_s(w, a, to) - attend_s(w, a, from);
        else if (a->q.host)
            s += gpu_s(w, (double)kv_bytes(w, &w->s->m->layers[il], to)) - gpu_s(w, (double)kv_bytes(w, &w->s->m->layers[il], from));
    }
    return s;
}

ht_rates_want ht_plan_wants(const ht_model *m, ht_type kv)
{
    ht_rates_want want = { .types = 1ull << m->output.type, .kv = 1ull << kv };

    for (uint32_t il = 0; il < m->n_layer; il++) {
        const ht_layer *l = &m->layers[il];
        const ht_attn *a = &l->attn;
        const ht_delta *d = &l->delta;
        const ht_ffn *f = &l->ffn;
        const ht_part *all[] = { &a->q, &a->k, &a->v, &a->o, &d->qkv, &d->z, &d->ba, &d->beta, &d->alpha, &d->o, &f->router,
                                 &f->shared[0], &f->shared[1], &f->shared[2], &f->shared_gate };
        for (size_t i = 0; i < sizeof all / sizeof *all; i++)
            if (all[i]->host)
                want.types |= 1ull << all[i]->type;
        for (uint32_t e = 0; e < f->n_expert; e++)
            for (int r = 0; r < HT_N_ROLES; r++)
                if (f->experts[e][r].host)
                    want.types |= 1ull << f->experts[e][r].type;
    }
    return want;
}

uint64_t ht_plan_piece_bytes(const ht_model *m)
{
    uint64_t sum = 0;

    for (uint32_t il = 0; il < m->n_layer; il++)
        for (uint32_t e = 0; e < m->layers[il].ffn.n_expert; e++) {
            const ht_part *p = m->layers[il].ffn.experts[e];
            sum += bytes_of(&p[0]) + bytes_of(&p[1]) + bytes_of(&p[2]);
        }
    return sum;
}

uint64_t ht_plan_weight_bytes(const ht_model *m)
{
    uint64_t sum = bytes_of(&m->output) + ht_plan_piece_bytes(m);

    for (uint32_t il = 0; il < m->n_layer; il++)
        sum += trunk_bytes(&m->layers[il]);
    return sum;
}

/* ---- Prompts ---- */

/* Of a matrix that n tokens meet: a straight line between the numbers of tokens that were measured. */
static double many_s(const maker *w, const ht_part *p, double n)
{
    if (!p->host || n <= 0.0)
        return 0.0;
    const ht_type_rates *t = &w->r->types[p->type];
    const double macs = macs_of(p), one = part_s(w, p);
    double n0 = 1, s0 = one;

    if (n <= 1.0)
        return one * n;
    for (uint32_t i = 0; i < HT_RATES_PROMPTS; i++) {
        const double n1 = ht_rates_prompt_tokens[i], s1 = n1 * macs / t->prompt_mps[i];
        if (n <= n1)
            return s0 + (s1 - s0) * (n - n0) / (n1 - n0);
        n0 = n1;
        s0 = s1;
    }
    return n * macs / t->prompt_mps[HT_RATES_PROMPTS - 1];
}

/* Pairs of a query at positions [first, first + n) and what it sees. */
static double pairs(uint32_t first, uint32_t n, uint32_t window)
{
    double sum = 0;

    for (uint32_t i = first; i < first + n; i++)
        sum += window && i + 1 > window ? window : i + 1;
    return sum;
}

/* A layer for n tokens from position `first` on; what it has to read goes to *disk_bytes. */
static double layer_prompt_s(const maker *w, uint32_t il, uint32_t first, uint32_t n, double *disk_bytes)
{
    const ht_layer *l = &w->s->m->layers[il];
    const ht_attn *a = &l->attn;
    const ht_delta *d = &l->delta;
    const ht_ffn *f = &l->ffn;
    const ht_part *all[] = { &a->q, &a->k, &a->v, &a->o, &d->qkv, &d->z, &d->ba, &d->beta, &d->alpha, &d->o, &f->router,
                             &f->shared[0], &f->shared[1], &f->shared[2], &f->shared_gate };
    const ht_plan_row *row = &w->out->rows[il];
    const double even = (double)f->n_used / f->n_expert, gpu_mps = w->r->gpu.prompt_mps;
    double trunk = overhead_s(w, l) + n * 20.0 * w->s->m->d_model * w->r->element_s / w->r->threads, cpu = 0, gpu = 0, macs = 0;

    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        trunk += many_s(w, all[i], n);
        macs += macs_of(all[i]) * n;
    }
    if (a->q.host) {
        const double seen = pairs(first, n, a->window) * a->n_head * (a->k_dim + a->v_dim);
        trunk += seen / w->r->kv[w->s->kv].prompt_mps;
        macs += seen;
    }
    if (row->trunk == HT_TIER_VRAM && gpu_mps > 0)
        trunk = macs / gpu_mps;
    const double used = f->router.host ? f->n_expert * (1.0 - pow(1.0 - even, n)) : 1.0; /* experts that anybody takes */
    const double tokens = f->router.host ? n * f->n_used / used : n;
    const ht_plan_layer *y = &w->out->layers[il];
    for (uint32_t i = 0; i < y->n_pieces; i++) {
        const uint8_t tier = w->out->plan.pieces[w->out->plan.first[il] + i];
        const ht_part *p = f->experts[f->router.host ? i : 0];
        const double share = f->router.host ? used / f->n_expert : 1.0 / y->n_pieces;
        if (tier == HT_TIER_VRAM && gpu_mps > 0)
            gpu += share * tokens * (macs_of(&p[0]) + macs_of(&p[1]) + macs_of(&p[2])) / gpu_mps;
        else
            cpu += share * (many_s(w, &p[0], tokens) + many_s(w, &p[1], tokens) + many_s(w, &p[2], tokens));
        if (tier == HT_TIER_DISK)
            *disk_bytes += share * (double)(bytes_of(&p[0]) + bytes_of(&p[1]) + bytes_of(&p[2]));
    }
    return trunk + (cpu > gpu ? cpu : gpu);
}

static double prompt_s(const maker *w)
{
    const ht_plan_setting *s = w->s;
    const uint32_t batch = s->batch ? s->batch : 512;
    double sum = 0;

    for (uint32_t at = 0; at < s->prompt; at += batch) {
        const uint32_t n = s->prompt - at < batch ? s->prompt - at : batch;
        double compute = 0, bytes = 0;
        for (uint32_t il = 0; il < s->m->n_layer; il++)
            compute += layer_prompt_s(w, il, at, n, &bytes);
        const double reading = bytes > 0 ? bytes / (s->disk_bps > 0 ? s->disk_bps : 1e6) : 0.0;
        sum += reading > compute ? reading : compute;
    }
    return sum + w->out->rows[s->m->n_layer].trunk_s;
}

/* ---- Making ---- */

/* The two largest dense blocks. */
static uint64_t through_bytes(const maker *w)
{
    const ht_model *m = w->s->m;
    uint64_t most[2] = { 0, 0 };

    for (uint32_t il = 0; il < m->n_layer; il++) {
        const ht_part *p = m->layers[il].ffn.experts[0];
        const uint64_t bytes = m->layers[il].ffn.router.host ? 0 : slot_of(w, bytes_of(&p[0]) + bytes_of(&p[1]) + bytes_of(&p[2]));
        if (bytes > most[0]) {
            most[1] = most[0];
            most[0] = bytes;
        } else if (bytes > most[1]) {
            most[1] = bytes;
        }
    }
    return most[0] + most[1];
}

ht_status ht_plan_make(ht_plan_made *out, const ht_plan_setting *s, ht_error *err)
{
    maker w = { .s = s, .r = s->r, .out = out };
    ht_error why = { 0 };
    ht_status st;

    memset(out, 0, sizeof *out);
    const ht_rates_want want = ht_plan_wants(s->m, s->kv);
    if (!ht_rates_have(s->r, &want))
        return ht_fail(err, HT_EINVAL, "this machine's figures for the model's weights are missing: hearth hardware measures them");
    w.large = s->streamed && s->r->large_gain >= 1.0 ? s->r->large_gain : 1.0;
    out->weight_bytes_per_token = s->m->bytes_per_token;
    const double cache = (double)s->cache_bytes, bytes = (double)s->m->bytes_per_token;
    w.cached = bytes <= 0.75 * cache ? 1.0 : bytes >= 1.5 * cache ? 0.0 : (1.5 * cache - bytes) / (0.75 * cache);
    if ((st = make_problem(&w, err)) != HT_OK)
        goto fail;
    if ((st = ht_plan_solve(&out->plan, &out->problem, &why)) != HT_OK) {
        st = st == HT_ENOMEM ? refuse(&w, &why, err) : ht_fail(err, st, "%s", why.text);
        goto fail;
    }
    /* Dense blocks come in turns: two of them are on their way through, and hold nothing for the next token. */
    const uint64_t through = out->plan.disk_bytes ? through_bytes(&w) : 0;
    if (through) {
        ht_plan_deinit(&out->plan);
        out->problem.ram_fixed += through;
        out->problem.ram_slots -= through < out->problem.ram_slots ? through : out->problem.ram_slots;
        if (ht_plan_solve(&out->plan, &out->problem, &why) != HT_OK) {
            st = refuse(&w, &why, err);
            goto fail;
        }
    }
    if (!s->streamed && out->plan.disk_bytes) { /* the model would be opened as mapped, and the context refused */
        out->plan.short_bytes = out->plan.disk_bytes;
        st = refuse(&w, &why, err);
        goto fail;
    }
    fill_rows(&w);
    out->decode_s = out->plan.seconds + misses_s(&w);
    out->decode_full_s = out->decode_s + deeper_s(&w, s->depth, s->n_ctx ? s->n_ctx - 1 : 0);
    out->prompt_s = prompt_s(&w);
    return HT_OK;

fail:
    ht_plan_drop(out);
    return st;
}

void ht_plan_drop(ht_plan_made *p)
{
    ht_plan_deinit(&p->plan);
    free(p->layers);
    free(p->pieces);
    free(p->rows);
    memset(p, 0, sizeof *p);
}
