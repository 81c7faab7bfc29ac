/* SPDX-License-Identifier: MIT
 *
 * A width for each expert (EdgeMoE, arXiv:2308.14352, section 4.2: "expert-wise bitwidth adaptation"): every expert is encoded
 * alone to each width and the loss of the whole model is measured, as mean KL divergence against the input. Losses of experts
 * are then taken to add up: the steps along each expert's lower convex hull of (bytes, loss), sorted by loss per byte saved, are the
 * best lowering for every size between. How many steps are taken is found by measuring the whole, on text that the
 * experts were not tried on. Where EdgeMoE knows two widths and lowers the K least sensitive experts, there may be several here.
 *
 * An expert that the sample never chooses loses nothing by being lowered and goes first: the sample should be of the kind of text that the
 * model is for. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/os.h"
#include "offline_profiler/profile.h"
#include "offline_profiler/quantise.h"
#include "offline_profiler/train.h"

enum { SAMPLE_TOKENS = 1024, CHECK_TOKENS = 4096, N_ROLES = 3, LOWER = 3 /* widths tried below the first */, BISECTIONS = 12 };

/* A matrix of an expert: n elements of a source, from `first` on. */
typedef struct matrix { uint32_t source; bool there; uint64_t first, n; } matrix;

/* One expert's way down: from a width to a smaller one. */
typedef struct step {
    uint32_t layer, expert;
    uint8_t to;
    uint64_t saved;
    double slope; /* loss per byte saved */
} step;

typedef struct chooser {
    ht_quantise *q;
    matrix (*of)[N_ROLES]; /* [n_layer * n_expert] */
    uint64_t *bytes;       /* [n_layer][n_widths] of an expert */
    double *loss;          /* [n_layer * n_expert][n_widths] */
    uint32_t *n_expert;    /* [n_layer]; 0: no mixture */
    step *steps;
    uint32_t n_steps;
    uint8_t *now;          /* choice that the model at hand has */
    void **blobs;          /* [n_layer * n_expert] what its parts point to */
    ht_scorer check;
    uint32_t trials, trial;
    bool wrote; /* the file of the first width */
} chooser;

static hearth_error *outer(ht_error *e) { return (hearth_error *)(void *)e; }

static bool go_on(void *user)
{
    const chooser *c = user;
    return !c->q->p.progress || c->q->p.progress(c->q->p.progress_user, "trying experts", c->trial, c->trials);
}

static matrix *matrices_of(const chooser *c, uint32_t layer, uint32_t expert)
{
    return c->of[(size_t)layer * c->q->n_expert + expert];
}

static ht_status find_matrices(chooser *c, ht_error *err)
{
    const ht_quantise *q = c->q;

    for (uint32_t i = 0; i < q->n_sources; i++) {
        const ht_source *s = &q->sources[i];
        if (s->kind != HT_SOURCE_EXPERTS && s->kind != HT_SOURCE_EXPERT)
            continue;
        const bool stacked = s->kind == HT_SOURCE_EXPERTS;
        const uint64_t all = s->ne[0] * s->ne[1], n = s->fused ? all / 2 : all;
        if (c->n_expert[s->layer] < s->n_expert)
            c->n_expert[s->layer] = s->n_expert;
        for (uint32_t e = stacked ? 0 : s->expert; e < s->n_expert; e++) {
            matrix *m = matrices_of(c, s->layer, e);
            const uint64_t first = stacked ? e * all : 0;
            m[s->role] = (matrix){ i, true, first, n };
            if (s->fused)
                m[HEARTH_ROLE_UP] = (matrix){ i, true, first + n, n };
        }
    }
    for (uint32_t l = 0; l < q->n_layer; l++)
        for (uint32_t e = 0; e < c->n_expert[l]; e++)
            for (int r = 0; r < N_ROLES; r++) {
                const matrix *first = &matrices_of(c, l, 0)[r], *m = &matrices_of(c, l, e)[r];
                if (m->there != first->there || (m->there && m->n != first->n) ||
                    (r != HEARTH_ROLE_GATE && !m->there))
                    return ht_fail(err, HT_EFORMAT, "layer %u has matrices of different numbers of experts, or of different shapes",
                                   l);
            }
    return HT_OK;
}

static uint64_t expert_bytes(const chooser *c, uint32_t layer, uint32_t type)
{
    uint64_t sum = 0;
    for (int r = 0; r < N_ROLES; r++) {
        const matrix *m = &matrices_of(c, layer, 0)[r]; /* all of the layer have one shape */
        if (m->there) {
            const uint32_t fit = ht_type_fitting(type, c->q->sources[m->source].ne[0]);
            sum += ht_type_row_bytes(ht_type_get(fit), m->n);
        }
    }
    return sum;
}

/* The first layer with experts stands for all where widths are compared. */
static uint32_t first_mixture(const chooser *c)
{
    uint32_t l = 0;
    while (l < c->q->n_layer && !c->n_expert[l])
        l++;
    return l;
}

static ht_status find_widths(chooser *c, ht_error *err)
{
    static const char *const usual[] = { "q8_0", "q6_k", "q5_k", "q4_k", "q3_k", "q2_k" };
    ht_quantise *q = c->q;
    const uint32_t l = first_mixture(c);
    const char *const *names = q->p.widths ? q->p.widths : usual;
    const size_t n = q->p.widths ? q->p.n_widths : sizeof usual / sizeof *usual;
    uint64_t last = expert_bytes(c, l, q->widths[0]);

    for (size_t i = 0; i < n; i++) {
        const int type = ht_type_by_name(names[i]);
        if (type < 0 || !ht_type_can_quantise((ht_type)type))
            return ht_fail(err, HT_EUNSUPPORTED, "experts cannot be written as \"%.20s\"", names[i]);
        const uint64_t bytes = expert_bytes(c, l, (uint32_t)type);
        if (bytes >= last) {
            if (q->p.widths)
                return ht_fail(err, HT_EINVAL, "experts of %s are not smaller than those before: widths go down", names[i]);
            continue;
        }
        if (q->n_widths == (q->p.widths ? HEARTH_QUANTISE_WIDTHS : 1 + LOWER)) {
            if (q->p.widths)
                return ht_fail(err, HT_EINVAL, "more than %d widths", HEARTH_QUANTISE_WIDTHS - 1);
            break;
        }
        q->widths[q->n_widths++] = (uint32_t)type;
        last = bytes;
    }
    if (q->n_widths < 2)
        return ht_fail(err, HT_EINVAL, "there is no width below %s to lower experts to", ht_type_name(q->widths[0]));
    return HT_OK;
}

static ht_status make_tables(chooser *c, ht_error *err)
{
    ht_quantise *q = c->q;
    const size_t experts = (size_t)q->n_layer * q->n_expert;
    ht_status st;

    c->of = calloc(experts, sizeof *c->of);
    c->n_expert = calloc(q->n_layer, sizeof *c->n_expert);
    if (!c->of || !c->n_expert)
        return ht_fail(err, HT_ENOMEM, "tables of %u layers", q->n_layer);
    if ((st = find_matrices(c, err)) != HT_OK || (st = find_widths(c, err)) != HT_OK)
        return st;
    c->bytes = calloc((size_t)q->n_layer * q->n_widths, sizeof *c->bytes);
    c->loss = calloc(experts * q->n_widths, sizeof *c->loss);
    c->steps = calloc(experts * q->n_widths, sizeof *c->steps);
    c->now = calloc(experts, 1);
    c->blobs = calloc(experts, sizeof *c->blobs);
    if (!c->bytes || !c->loss || !c->steps || !c->now || !c->blobs || !(q->choice = calloc(experts, 1)))
        return ht_fail(err, HT_ENOMEM, "tables of %zu experts", experts);
    for (uint32_t l = 0; l < q->n_layer; l++)
        for (uint32_t w = 0; w < q->n_widths; w++)
            c->bytes[(size_t)l * q->n_widths + w] = expert_bytes(c, l, q->widths[w]);
    return HT_OK;
}

/* Gives the model at hand an expert of width w (UINT8_MAX: the file's own). */
static ht_status put_expert(chooser *c, hearth_model *m, uint32_t layer, uint32_t expert, uint8_t w, ht_error *err)
{
    const size_t at = (size_t)layer * c->q->n_expert + expert;
    const bool own = w == UINT8_MAX;
    const uint32_t asked = own ? 0 : c->q->widths[w];
    uint8_t *blob = own ? NULL : malloc(expert_bytes(c, layer, asked) + 1);
    size_t used = 0;
    ht_status st = HT_OK;

    if (!own && !blob)
        return ht_fail(err, HT_ENOMEM, "an expert of layer %u", layer);
    for (int r = 0; r < N_ROLES && st == HT_OK; r++) {
        const matrix *x = &matrices_of(c, layer, expert)[r];
        if (!x->there)
            continue;
        const uint32_t type = own ? 0 : ht_type_fitting(asked, c->q->sources[x->source].ne[0]);
        const size_t n = own ? 0 : ht_type_row_bytes(ht_type_get(type), x->n);
        if (!own)
            st = ht_quantise_encode(c->q, x->source, x->first, x->n, type, blob + used, err);
        if (st == HT_OK)
            st = (ht_status)hearth_model_replace(m, layer, expert, (hearth_role)r, own ? NULL : ht_type_name(type),
                                                 own ? NULL : blob + used, n, outer(err));
        used += n;
    }
    if (st != HT_OK) { /* nothing may point to what is freed now */
        for (int r = 0; r < N_ROLES; r++)
            if (matrices_of(c, layer, expert)[r].there)
                hearth_model_replace(m, layer, expert, (hearth_role)r, NULL, NULL, 0, NULL);
        free(blob);
        blob = NULL;
    }
    free(c->blobs[at]);
    c->blobs[at] = blob;
    return st;
}

static ht_status open_model(const ht_quantise *q, const char *path, hearth_model **m, ht_error *err)
{
    hearth_model_params p = HEARTH_MODEL_PARAMS_INIT;
    p.sparsity = HEARTH_SPARSITY_OFF;
    p.io = HEARTH_IO_MMAP; /* weights are replaced in memory */
    p.threads = q->threads;
    p.ram_bytes = q->p.ram_bytes;
    return (ht_status)hearth_model_open(m, path, &p, outer(err));
}

/* The loss of each expert at each width, alone. */
static ht_status try_experts(chooser *c, hearth_model *m, const ht_scorer *sample, ht_error *err)
{
    const ht_quantise *q = c->q;
    ht_status st = HT_OK;

    for (uint32_t l = 0; l < q->n_layer; l++)
        for (uint32_t e = 0; e < c->n_expert[l]; e++) {
            for (uint32_t w = 0; w < q->n_widths && st == HT_OK; w++, c->trial++) {
                double *loss = &c->loss[((size_t)l * q->n_expert + e) * q->n_widths + w];
                const ht_source *s = &q->sources[matrices_of(c, l, e)[HEARTH_ROLE_UP].source];
                ht_score score = { 0 };
                if (w == 0 && ht_type_fitting(q->widths[0], s->ne[0]) == s->type)
                    continue; /* as it is in the input */
                if ((st = put_expert(c, m, l, e, (uint8_t)w, err)) == HT_OK)
                    st = (ht_status)ht_scorer_run(sample, m, sample->n_tokens, &score, outer(err));
                *loss = score.kl_mean;
            }
            if (st != HT_OK || (st = put_expert(c, m, l, e, UINT8_MAX, err)) != HT_OK)
                return st == HT_ECANCELLED ? ht_fail(err, st, "cancelled by the caller") : st;
        }
    return HT_OK;
}

static int by_slope(const void *a, const void *b)
{
    const step *x = a, *y = b;
    if (x->slope != y->slope)
        return x->slope < y->slope ? -1 : 1;
    if (x->layer != y->layer)
        return x->layer < y->layer ? -1 : 1;
    if (x->expert != y->expert)
        return x->expert < y->expert ? -1 : 1;
    return (int)x->to - y->to;
}

/* Steps along each expert's lower hull. A smaller width that loses less than a wider one (noise) is one cheap step. */
static void make_steps(chooser *c)
{
    const ht_quantise *q = c->q;

    for (uint32_t l = 0; l < q->n_layer; l++)
        for (uint32_t e = 0; e < c->n_expert[l]; e++) {
            const double *loss = &c->loss[((size_t)l * q->n_expert + e) * q->n_widths];
            const uint64_t *bytes = &c->bytes[(size_t)l * q->n_widths];
            for (uint32_t at = 0; at + 1 < q->n_widths;) {
                uint32_t best = at + 1;
                double slope = INFINITY;
                for (uint32_t w = at + 1; w < q->n_widths; w++) {
                    const double s = fmax(loss[w] - loss[at], 0) / (double)(bytes[at] - bytes[w]);
                    if (s <= slope) {
                        slope = s;
                        best = w;
                    }
                }
                c->steps[c->n_steps++] = (step){ l, e, (uint8_t)best, bytes[at] - bytes[best], slope };
                at = best;
            }
        }
    qsort(c->steps, c->n_steps, sizeof *c->steps, by_slope);
}

static uint64_t bytes_after(const chooser *c, uint64_t base, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        base -= c->steps[i].saved;
    return base;
}

static void take_steps(const chooser *c, uint32_t n, uint8_t *choice)
{
    memset(choice, 0, (size_t)c->q->n_layer * c->q->n_expert);
    for (uint32_t i = 0; i < n; i++) {
        uint8_t *x = &choice[(size_t)c->steps[i].layer * c->q->n_expert + c->steps[i].expert];
        *x = c->steps[i].to > *x ? c->steps[i].to : *x;
    }
}

/* The loss of the whole with n steps taken, as a point of the curve. */
static ht_status measure(chooser *c, hearth_model *m, uint64_t base, uint32_t n, double *kl, ht_error *err)
{
    ht_quantise *q = c->q;
    ht_score score = { 0 };
    ht_status st = HT_OK;

    for (uint32_t i = 0; i < q->r.n_points; i++)
        if (q->r.points[i].lowered == n) {
            *kl = q->r.points[i].kl_mean;
            return HT_OK;
        }
    take_steps(c, n, q->choice);
    for (uint32_t l = 0; l < q->n_layer; l++)
        for (uint32_t e = 0; e < c->n_expert[l] && st == HT_OK; e++) {
            const size_t at = (size_t)l * q->n_expert + e;
            if (c->now[at] == q->choice[at])
                continue;
            st = put_expert(c, m, l, e, q->choice[at] ? q->choice[at] : UINT8_MAX, err);
            c->now[at] = q->choice[at];
        }
    if (st == HT_OK)
        st = (ht_status)ht_scorer_run(&c->check, m, c->check.n_tokens, &score, outer(err));
    if (st != HT_OK)
        return st == HT_ECANCELLED ? ht_fail(err, st, "cancelled by the caller") : st;
    c->trial++;
    *kl = score.kl_mean;
    if (q->r.n_points < HEARTH_QUANTISE_POINTS)
        q->r.points[q->r.n_points++] = (hearth_quantise_point){ .bytes = bytes_after(c, base, n),
                                                                .lowered = n,
                                                                .kl_mean = score.kl_mean,
                                                                .kl_p99 = score.kl_p99,
                                                                .top1_agreement = score.agreement };
    return HT_OK;
}

/* As many steps as the loss allows; it grows with them but for noise. */
static ht_status search_quality(chooser *c, hearth_model *m, uint64_t base, uint32_t *n, ht_error *err)
{
    const double most = c->q->p.quality;
    uint32_t good = 0, bad = c->n_steps;
    double kl = 0;
    ht_status st;

    if ((st = measure(c, m, base, 0, &kl, err)) != HT_OK)
        return st;
    if (kl > most)
        return ht_fail(err, HT_EINVAL, "%s for every expert has a loss of %.5f already, more than %g: take a wider type",
                       ht_type_name(c->q->widths[0]), kl, most);
    if ((st = measure(c, m, base, c->n_steps, &kl, err)) != HT_OK)
        return st;
    if (kl <= most)
        good = c->n_steps;
    for (int i = 0; i < BISECTIONS && bad - good > 1 + c->n_steps / 512 && good < c->n_steps; i++) {
        const uint32_t mid = good + (bad - good) / 2;
        if ((st = measure(c, m, base, mid, &kl, err)) != HT_OK)
            return st;
        *(kl <= most ? &good : &bad) = mid;
    }
    *n = good;
    return HT_OK;
}

static ht_status search_size(chooser *c, hearth_model *m, uint64_t base, uint32_t *n, ht_error *err)
{
    const uint64_t target = c->q->p.target_bytes, least = bytes_after(c, base, c->n_steps);
    double kl = 0;
    ht_status st = HT_OK;

    if (least > target)
        return ht_fail(err, HT_EINVAL, "with every expert at %s the tensors have %.1f MiB, more than %.1f",
                       ht_type_name(c->q->widths[c->q->n_widths - 1]), (double)least / (1 << 20),
                       (double)target / (1 << 20));
    for (*n = 0; bytes_after(c, base, *n) > target;)
        ++*n;
    for (uint32_t i = 0; i <= 4 && st == HT_OK; i++) /* the curve, for who wants another size */
        st = measure(c, m, base, (uint32_t)((uint64_t)c->n_steps * i / 4), &kl, err);
    return st == HT_OK ? measure(c, m, base, *n, &kl, err) : st;
}

static int by_bytes(const void *a, const void *b)
{
    const hearth_quantise_point *x = a, *y = b;
    return x->bytes < y->bytes ? 1 : x->bytes > y->bytes ? -1 : 0;
}

static void conclude(chooser *c, uint32_t n)
{
    ht_quantise *q = c->q;

    take_steps(c, n, q->choice);
    for (uint32_t i = 0; i < q->r.n_points; i++)
        q->r.points[i].chosen = q->r.points[i].lowered == n;
    qsort(q->r.points, q->r.n_points, sizeof *q->r.points, by_bytes);
    for (uint32_t l = 0; l < q->n_layer; l++)
        for (uint32_t e = 0; e < c->n_expert[l]; e++)
            q->r.experts[ht_quantise_width(q, l, e)]++;
}

static void put_back(chooser *c, hearth_model *m)
{
    for (uint32_t l = 0; c->blobs && l < c->q->n_layer; l++)
        for (uint32_t e = 0; e < c->n_expert[l]; e++)
            if (c->blobs[(size_t)l * c->q->n_expert + e])
                put_expert(c, m, l, e, UINT8_MAX, NULL);
}

/* Everything at the first width: the input itself where it has it already. */
static ht_status open_base(chooser *c, const char *in, const char *trial, hearth_model **m, uint64_t *base, ht_error *err)
{
    uint8_t *choice = c->q->choice;
    ht_status st;

    c->q->choice = NULL;
    st = ht_quantise_targets(c->q, err);
    *base = c->q->r.bytes_out;
    const bool same = c->q->r.encoded == 0;
    if (st == HT_OK && !same) {
        st = ht_quantise_write(c->q, trial, err);
        c->wrote = st == HT_OK;
    }
    c->q->choice = choice;
    return st == HT_OK ? open_model(c->q, same ? in : trial, m, err) : st;
}

ht_status ht_quantise_choose(ht_quantise *q, const char *in, const char *trial, ht_error *err)
{
    chooser c = { .q = q };
    ht_scorer sample = { .go_on = go_on, .user = &c };
    const hearth_quantise_params *p = &q->p;
    hearth_model *m = NULL;
    uint64_t base = 0, mixtures = 0;
    uint32_t n = 0;
    ht_status st = HT_OK;

    c.check = sample;
    if (!q->n_layer)
        return ht_fail(err, HT_EINVAL, "a width for each expert needs a mixture");
    if (!(p->quality > 0) && !p->target_bytes)
        return ht_fail(err, HT_EINVAL, "a width for each expert needs a loss or a size to go for");
    if (!p->text || !p->held_out)
        return ht_fail(err, HT_EINVAL, "a width for each expert needs a text to try experts on");
    if ((st = make_tables(&c, err)) != HT_OK)
        goto end;
    for (uint32_t l = 0; l < q->n_layer; l++)
        mixtures += c.n_expert[l];
    c.trials = (uint32_t)(mixtures * q->n_widths);
    if ((st = open_model(q, in, &m, err)) != HT_OK)
        goto end;
    const uint64_t sample_tokens = p->sample_tokens ? p->sample_tokens : SAMPLE_TOKENS;
    const uint64_t check_tokens = p->check_tokens ? p->check_tokens : CHECK_TOKENS;
    if ((st = (ht_status)ht_scorer_open(&sample, m, sample_tokens, p->text, p->n_text, outer(err))) != HT_OK ||
        (st = (ht_status)ht_scorer_open(&c.check, m, check_tokens, p->held_out, p->n_held_out, outer(err))) != HT_OK ||
        (st = try_experts(&c, m, &sample, err)) != HT_OK)
        goto end;
    make_steps(&c);
    put_back(&c, m);
    hearth_model_close(&m);
    c.trials = c.trial + BISECTIONS;
    if ((st = open_base(&c, in, trial, &m, &base, err)) == HT_OK)
        st = p->quality > 0 ? search_quality(&c, m, base, &n, err) : search_size(&c, m, base, &n, err);
    if (st == HT_OK)
        conclude(&c, n);
end:
    if (m)
        put_back(&c, m);
    hearth_model_close(&m);
    if (c.wrote)
        remove(trial);
    ht_scorer_close(&sample);
    ht_scorer_close(&c.check);
    for (size_t i = 0; c.blobs && i < (size_t)q->n_layer * q->n_expert; i++)
        free(c.blobs[i]);
    free(c.of);
    free(c.n_expert);
    free(c.bytes);
    free(c.loss);
    free(c.steps);
    free(c.now);
    free(c.blobs);
    return st;
}
