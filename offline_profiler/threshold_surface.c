/* SPDX-License-Identifier: MIT
 *
 * What cutting small neurons of a layer leaves and misses, measured on samples; see train.h and docs/predictors.md. The
 * thresholds of a level leave out its share of what is not zero. Every neuron of a token belongs to one cell of a grid,
 * the highest levels at which its gate and its hidden unit still pass; its product with its down column is added to
 * the cell's sum, and sums over corners of the grid are the block's output at every pair of levels: one down
 * projection measures them all. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/vmath.h"
#include "offline_profiler/train.h"

enum {
    L = HT_CUT_LEVELS,
    CELLS = L * L,
    SLICE = 64,         /* outputs at a time: the cells' sums stay in the cache */
    BLOCK = 128,        /* neurons whose gate rows are held as floats */
    FEW = 32,           /* tokens that tell too little */
    QUANTILES = 200000, /* values that thresholds are taken from */
    NOWHERE = 0xffff    /* the cell of a hidden unit that is zero */
};

typedef struct expert {
    hearth_model *m;
    const ht_sample_layer *s;
    ht_cuts *c;
    uint32_t layer, id, d, n_ff, n;
    bool gated;
    float *x;                        /* [n][d] */
    float *a;                        /* [n][n_ff] |act(gate)|; NULL without a gate */
    const float **h;                 /* [n] rows of hidden units */
    uint16_t *cell;                  /* [n][n_ff] */
    float *w, *wt, *out;             /* rows, their columns; [n][BLOCK] */
    float *sums, *sorted;            /* [CELLS][SLICE]; [QUANTILES] */
    uint64_t *seen_rows, *seen_kept; /* counts by level of the gate [L], by cell [CELLS]; the layer's */
} expert;

static float activate(const hearth_block_info *b, float x)
{
    const char *name = b->activation;
    const float r = x > 0 ? x : 0;

    if (!strcmp(name, "silu"))
        return ht_siluf(x);
    if (!strcmp(name, "gelu_tanh"))
        return ht_gelu_tanhf(x);
    if (!strcmp(name, "gelu"))
        return ht_gelu_erff(x);
    if (!strcmp(name, "fatrelu"))
        return x > b->activation_param ? x : 0;
    return !strcmp(name, "relu2") ? r * r : r;
}

static bool known(const char *name)
{
    static const char *const names[] = { "silu", "gelu_tanh", "gelu", "relu", "relu2", "fatrelu", "drelu" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(name, names[i]))
            return true;
    return false;
}

static void free_expert(expert *e)
{
    free(e->x);
    free(e->a);
    free((void *)e->h);
    free(e->cell);
    free(e->w);
    free(e->wt);
    free(e->out);
    free(e->sums);
    free(e->sorted);
}

/* Inputs and hidden units of the tokens that chose expert e->id. */
static bool open_expert(expert *e, const ht_samples *s)
{
    const hearth_block_info *b = &e->s->block;
    const size_t longest = e->n_ff > e->d ? e->n_ff : e->d;
    const size_t held = BLOCK * (size_t)e->d > SLICE * (size_t)e->n_ff ? BLOCK * (size_t)e->d : SLICE * (size_t)e->n_ff;

    e->h = (const float **)malloc((s->tokens + 1) * sizeof *e->h);
    uint32_t *rows = malloc((s->tokens + 1) * sizeof *rows);
    for (uint32_t t = 0; e->h && rows && t < s->tokens; t++)
        for (uint32_t j = 0; j < b->n_used; j++)
            if (b->n_expert == 1 || e->s->chosen[(size_t)t * b->n_used + j] == e->id) {
                rows[e->n] = t;
                e->h[e->n++] = e->s->hidden + ((size_t)t * b->n_used + j) * e->n_ff;
                break;
            }
    const size_t n = e->n + 1;
    e->x = malloc(n * e->d * sizeof *e->x);
    e->a = e->gated ? malloc(n * e->n_ff * sizeof *e->a) : NULL;
    e->cell = malloc(n * e->n_ff * sizeof *e->cell);
    e->w = malloc((held + longest) * sizeof *e->w);
    e->wt = malloc((held + longest) * sizeof *e->wt);
    e->out = malloc(n * BLOCK * sizeof *e->out);
    e->sums = malloc((size_t)CELLS * SLICE * sizeof *e->sums);
    e->sorted = malloc(QUANTILES * sizeof *e->sorted);
    const bool good =
        e->h && rows && e->x && (e->a || !e->gated) && e->cell && e->w && e->wt && e->out && e->sums && e->sorted;
    for (uint32_t t = 0; good && t < e->n; t++)
        memcpy(e->x + (size_t)t * e->d, e->s->input + (size_t)rows[t] * e->d, e->d * sizeof *e->x);
    free(rows);
    return good;
}

static ht_status read_gates(expert *e, ht_error *err)
{
    for (uint32_t r = 0; r < e->n_ff; r += BLOCK) {
        const uint32_t k = e->n_ff - r < BLOCK ? e->n_ff - r : BLOCK;
        const hearth_status st =
            hearth_model_read_rows(e->m, e->layer, e->id, HEARTH_ROLE_GATE, r, k, e->w, (hearth_error *)(void *)err);
        if (st != HEARTH_OK)
            return (ht_status)st;
        for (uint32_t i = 0; i < k; i++)
            for (uint32_t j = 0; j < e->d; j++)
                e->wt[(size_t)j * k + i] = e->w[(size_t)i * e->d + j];
        ht_multiply(e->x, e->wt, e->out, e->n, e->d, k);
        for (uint32_t t = 0; t < e->n; t++)
            for (uint32_t i = 0; i < k; i++)
                e->a[(size_t)t * e->n_ff + r + i] = fabsf(activate(&e->s->block, e->out[(size_t)t * k + i]));
    }
    return HT_OK;
}

static int ascending(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Thresholds of the levels, of |values| that are not zero; rows of n_ff. */
static void levels_of(expert *e, const float *values, float *to)
{
    const size_t all = (size_t)e->n * e->n_ff, step = all / QUANTILES + 1;
    size_t n = 0;

    for (size_t i = 0; i < all && n < QUANTILES; i += step) {
        const float v = fabsf(values ? values[i] : e->h[i / e->n_ff][i % e->n_ff]);
        e->sorted[n] = v;
        n += v > 0 && isfinite(v);
    }
    qsort(e->sorted, n, sizeof *e->sorted, ascending);
    for (uint32_t k = 0; k < L; k++)
        to[k] = n && k ? e->sorted[n * k / L] : 0;
}

/* The highest level that a value passes. */
static uint32_t level_of(const float *levels, float v)
{
    uint32_t lo = 0, hi = L;

    while (hi - lo > 1) {
        const uint32_t mid = (lo + hi) / 2;
        if (v >= levels[mid])
            lo = mid;
        else
            hi = mid;
    }
    return lo;
}

static void place_neurons(expert *e)
{
    const float *gate = e->c->gate + (size_t)e->id * L, *hidden = e->c->hidden + (size_t)e->id * L;

    for (uint32_t t = 0; t < e->n; t++)
        for (uint32_t j = 0; j < e->n_ff; j++) {
            const size_t at = (size_t)t * e->n_ff + j;
            const float h = fabsf(e->h[t][j]);
            const uint32_t g = e->gated ? level_of(gate, e->a[at]) : 0;
            e->cell[at] = NOWHERE;
            if (e->gated ? e->a[at] > 0 : true)
                e->seen_rows[g]++;
            if (!(h > 0))
                continue;
            e->cell[at] = (uint16_t)(g * L + level_of(hidden, h));
            e->seen_kept[e->cell[at]]++;
        }
}

/* Cells become what passes both levels. */
static void add_corners(float *sums, uint32_t width)
{
    for (uint32_t g = 0; g < L; g++)
        for (uint32_t h = L - 1; h-- > 0;)
            for (uint32_t o = 0; o < width; o++)
                sums[(g * L + h) * width + o] += sums[(g * L + h + 1) * width + o];
    for (uint32_t g = L - 1; g-- > 0;)
        for (uint32_t i = 0; i < L * width; i++)
            sums[g * L * width + i] += sums[(g + 1) * L * width + i];
}

/* Errors of the block's output at every pair of levels, and its energy, added to those of the layer. */
static ht_status add_errors(expert *e, double *energy, ht_error *err)
{
    double *error = e->c->surface.error;

    for (uint32_t first = 0; first < e->d; first += SLICE) {
        const uint32_t k = e->d - first < SLICE ? e->d - first : SLICE;
        const hearth_status st = hearth_model_read_rows(e->m, e->layer, e->id, HEARTH_ROLE_DOWN, first, k, e->w,
                                                        (hearth_error *)(void *)err);
        if (st != HEARTH_OK)
            return (ht_status)st;
        for (uint32_t j = 0; j < e->n_ff; j++)
            for (uint32_t o = 0; o < SLICE; o++)
                e->wt[(size_t)j * SLICE + o] = o < k ? e->w[(size_t)o * e->n_ff + j] : 0;
        for (uint32_t t = 0; t < e->n; t++) {
            memset(e->sums, 0, (size_t)CELLS * SLICE * sizeof *e->sums);
            for (uint32_t j = 0; j < e->n_ff; j++) {
                const uint16_t cell = e->cell[(size_t)t * e->n_ff + j];
                if (cell == NOWHERE)
                    continue;
                const float h = e->h[t][j], *w = e->wt + (size_t)j * SLICE;
                float *to = e->sums + (size_t)cell * SLICE;
                for (uint32_t o = 0; o < SLICE; o++)
                    to[o] += h * w[o];
            }
            add_corners(e->sums, SLICE);
            for (uint32_t o = 0; o < k; o++)
                *energy += (double)e->sums[o] * e->sums[o];
            for (uint32_t i = 1; i < CELLS; i++) {
                float miss = 0;
                for (uint32_t o = 0; o < SLICE; o++) {
                    const float v = e->sums[o] - e->sums[(size_t)i * SLICE + o];
                    miss += v * v;
                }
                error[i] += (double)miss;
            }
        }
    }
    return HT_OK;
}

static ht_status one_expert(expert *e, const ht_samples *s, double *energy, ht_error *err)
{
    ht_status st = HT_OK;

    if (!open_expert(e, s))
        st = ht_fail(err, HT_ENOMEM, "samples of layer %u", e->layer);
    else if (e->n >= FEW && (!e->gated || (st = read_gates(e, err)) == HT_OK)) {
        if (e->gated)
            levels_of(e, e->a, e->c->gate + (size_t)e->id * L);
        levels_of(e, NULL, e->c->hidden + (size_t)e->id * L);
        place_neurons(e);
        st = add_errors(e, energy, err);
    }
    free_expert(e);
    return st;
}

/* Counts and sums become shares. */
static void finish(ht_cuts *c, const uint64_t *rows, uint64_t *kept, double tokens_neurons, double energy)
{
    ht_surface *s = &c->surface;
    double left = 0;

    for (uint32_t g = 0; g < L; g++)
        for (uint32_t h = L - 1; h-- > 0;)
            kept[g * L + h] += kept[g * L + h + 1];
    for (uint32_t g = L - 1; g-- > 0;)
        for (uint32_t h = 0; h < L; h++)
            kept[g * L + h] += kept[(g + 1) * L + h];
    for (uint32_t g = L; g-- > 0;) {
        left += (double)rows[g];
        if (g < s->n_gate)
            s->rows[g] = tokens_neurons > 0 ? left / tokens_neurons : 1;
    }
    for (uint32_t i = 0; i < CELLS; i++) {
        s->density[i] = tokens_neurons > 0 ? (double)kept[i] / tokens_neurons : 1;
        s->error[i] = energy > 0 ? s->error[i] / energy : 0;
    }
}

ht_status ht_cuts_make(ht_cuts *c, hearth_model *m, const ht_samples *s, uint32_t layer, ht_error *err)
{
    const ht_sample_layer *sl = &s->layers[layer];
    const hearth_block_info *b = &sl->block;
    uint64_t rows[L] = { 0 }, *kept = calloc(CELLS, sizeof *kept);
    double energy = 0, samples = 0;
    ht_status st = HT_OK;

    memset(c, 0, sizeof *c);
    c->surface = (ht_surface){ .n_gate = b->gated ? L : 1,
                               .n_hidden = L,
                               .neurons = (double)b->n_ff * b->n_used,
                               .up_bytes = b->gated ? (double)b->row_bytes : 0,
                               .down_bytes = (double)b->row_bytes,
                               .cost = 1,
                               .rows = calloc(L, sizeof(double)),
                               .density = calloc(CELLS, sizeof(double)),
                               .error = calloc(CELLS, sizeof(double)) };
    c->gate = calloc((size_t)b->n_expert * L + 1, sizeof *c->gate);
    c->hidden = calloc((size_t)b->n_expert * L + 1, sizeof *c->hidden);
    if (!kept || !c->surface.rows || !c->surface.density || !c->surface.error || !c->gate || !c->hidden)
        st = ht_fail(err, HT_ENOMEM, "thresholds of layer %u", layer);
    else if (!known(b->activation) || !b->plain)
        st = ht_fail(err, HT_EUNSUPPORTED, "thresholds are not known for %s",
                     b->plain ? b->activation : "gates with a bias or hidden units with a norm");
    for (uint32_t i = 0; i < b->n_expert && st == HT_OK; i++) {
        expert e = { .m = m,
                     .s = sl,
                     .c = c,
                     .layer = layer,
                     .id = i,
                     .d = s->d,
                     .n_ff = b->n_ff,
                     .gated = b->gated,
                     .seen_rows = rows,
                     .seen_kept = kept };
        st = one_expert(&e, s, &energy, err);
        samples += e.n >= FEW ? (double)e.n * b->n_ff : 0;
    }
    if (st == HT_OK)
        finish(c, rows, kept, samples, energy);
    free(kept);
    if (st != HT_OK)
        ht_cuts_free(c);
    return st;
}

void ht_cuts_free(ht_cuts *c)
{
    free(c->surface.rows);
    free(c->surface.density);
    free(c->surface.error);
    free(c->gate);
    free(c->hidden);
    memset(c, 0, sizeof *c);
}

float ht_cut_at(const float *levels, double level)
{
    const uint32_t k = (uint32_t)level, next = k + 1 < L ? k + 1 : k;
    return levels[k] + (float)(level - k) * (levels[next] - levels[k]);
}
