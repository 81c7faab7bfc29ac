/* SPDX-License-Identifier: MIT
 *
 * Predictors of one layer: their estimates of every neuron, and what they cost and miss at each price, counted over the
 * samples; see train.h and docs/predictors.md. An expert is learnt from the tokens that chose it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/signs.h"
#include "offline_profiler/train.h"

enum { BLOCK = 128 /* neurons whose weights are held as floats */, FEW = 32 /* tokens that tell too little */ };
static const double most_products = 1.2e10; /* of a low-rank matrix with its inputs: what is worth fitting */

double ht_price(uint32_t k)
{
    return pow(10, -3 + k / 4.0);
}

/* What is at hand while an expert is learnt. */
typedef struct expert {
    hearth_model *m;
    const ht_sample_layer *s;
    ht_fit_layer *f;
    uint32_t layer, id, d, n_ff, n; /* n: tokens */
    float *x, *signed_x;            /* [n][d]: inputs, and what is left of them in four bits */
    float *g, *score;               /* [n][n_ff] */
    float *w, *wt, *out;            /* [BLOCK][d], [d][BLOCK], [n][BLOCK] */
    float *norm;                    /* [n_ff] squared length of the neuron's down column */
} expert;

static double contribution(const ht_fit_layer *f, float g)
{
    double v = g - f->cut;
    return v <= 0 ? 0 : f->power == 1 ? v * v : v * v * v * v;
}

static void free_expert(expert *e)
{
    free(e->x);
    free(e->signed_x);
    free(e->g);
    free(e->score);
    free(e->w);
    free(e->wt);
    free(e->out);
    free(e->norm);
}

/* Inputs of the tokens that chose expert e->id. */
static ht_status open_expert(expert *e, const ht_samples *s, ht_error *err)
{
    const hearth_block_info *b = &e->s->block;
    uint32_t *rows = malloc((s->tokens + 1) * sizeof *rows);

    e->d = s->d;
    e->n_ff = b->n_ff;
    for (uint32_t t = 0; rows && t < s->tokens; t++) {
        bool mine = b->n_expert == 1;
        for (uint32_t j = 0; !mine && j < b->n_used; j++)
            mine = e->s->chosen[(size_t)t * b->n_used + j] == e->id;
        rows[e->n] = t;
        e->n += mine;
    }
    const size_t n = e->n + 1;
    e->x = malloc(n * e->d * sizeof(float));
    e->signed_x = malloc(n * e->d * sizeof(float));
    e->g = malloc(n * e->n_ff * sizeof(float));
    e->score = malloc(n * e->n_ff * sizeof(float));
    e->w = malloc((size_t)BLOCK * e->d * sizeof(float));
    e->wt = malloc((size_t)BLOCK * e->d * sizeof(float));
    e->out = malloc(n * BLOCK * sizeof(float));
    e->norm = calloc(e->n_ff, sizeof(float));
    int8_t *q = malloc((size_t)ht_signs_blocks(e->d) * HT_SIGNS_COLS);
    int16_t *m = malloc(ht_signs_blocks(e->d) * sizeof *m);
    bool good = rows && e->x && e->signed_x && e->g && e->score && e->w && e->wt && e->out && e->norm && q && m;
    for (uint32_t t = 0; good && t < e->n; t++) {
        const float *x = e->s->input + (size_t)rows[t] * e->d;
        const float base = ht_signs_quantise(x, e->d, q, m);
        memcpy(e->x + (size_t)t * e->d, x, e->d * sizeof *x);
        for (uint32_t i = 0; i < e->d; i++)
            e->signed_x[(size_t)t * e->d + i] = base * (float)(m[i / HT_SIGNS_COLS] * q[i]);
    }
    free(rows);
    free(q);
    free(m);
    if (good)
        return HT_OK;
    ht_fail(err, HT_ENOMEM, "samples of layer %u", e->layer);
    return HT_ENOMEM;
}

/* to [n][n_ff] = from [n][d] times the transposed weights, or their signs. */
static ht_status products(expert *e, const float *from, bool signs, float *to, ht_error *err)
{
    const hearth_role role = e->s->block.gated ? HEARTH_ROLE_GATE : HEARTH_ROLE_UP;

    for (uint32_t r = 0; r < e->n_ff; r += BLOCK) {
        const uint32_t k = e->n_ff - r < BLOCK ? e->n_ff - r : BLOCK;
        hearth_status st = hearth_model_read_rows(e->m, e->layer, e->id, role, r, k, e->w, (hearth_error *)(void *)err);
        if (st != HEARTH_OK)
            return (ht_status)st;
        for (uint32_t i = 0; i < k; i++)
            for (uint32_t j = 0; j < e->d; j++) {
                const float w = e->w[(size_t)i * e->d + j];
                e->wt[(size_t)j * k + i] = !signs ? w : w >= 0 ? 1.0f : -1.0f;
            }
        ht_multiply(from, e->wt, e->out, e->n, e->d, k);
        for (uint32_t t = 0; t < e->n; t++)
            memcpy(to + (size_t)t * e->n_ff + r, e->out + (size_t)t * k, k * sizeof *to);
    }
    return HT_OK;
}

static ht_status column_norms(expert *e, ht_error *err)
{
    float *row = malloc(e->n_ff * sizeof *row);
    hearth_status st = HEARTH_OK;

    if (!row)
        return ht_fail(err, HT_ENOMEM, "norms");
    for (uint32_t i = 0; i < e->d && st == HEARTH_OK; i++) {
        st = hearth_model_read_rows(e->m, e->layer, e->id, HEARTH_ROLE_DOWN, i, 1, row, (hearth_error *)(void *)err);
        for (uint32_t j = 0; j < e->n_ff && st == HEARTH_OK; j++)
            e->norm[j] += row[j] * row[j];
    }
    free(row);
    return (ht_status)st;
}

/* What a unit of a neuron's gate is worth, and the energy that it gave. Neurons that never fired take the average. */
static void values(expert *e)
{
    const size_t at = (size_t)e->id * e->n_ff;
    double hh = 0, gg = 0;

    for (uint32_t i = 0; i < e->n_ff; i++) {
        double sum = 0;
        for (uint32_t t = 0; t < e->n; t++)
            sum += contribution(e->f, e->g[(size_t)t * e->n_ff + i]);
        e->f->value[at + i] = sum > 0 ? e->s->hh[at + i] / sum : -1;
        hh += e->s->hh[at + i];
        gg += sum;
        e->f->energy += e->s->hh[at + i] * e->norm[i];
    }
    for (uint32_t i = 0; i < e->n_ff; i++) {
        double *v = &e->f->value[at + i];
        *v = (*v < 0 ? gg > 0 ? hh / gg : 1 : *v) * e->norm[i];
    }
}

static void estimates(const expert *e, ht_fit *fit)
{
    for (uint32_t i = 0; i < e->n_ff; i++) {
        ht_moments m = { 0 };
        for (uint32_t t = 0; t < e->n; t++)
            ht_moments_add(&m, e->score[(size_t)t * e->n_ff + i], e->g[(size_t)t * e->n_ff + i]);
        fit->estimate[(size_t)e->id * e->n_ff + i] = ht_estimate_fit(&m);
    }
}

/* Adds an expert's tokens to what the fit costs and misses. energy: of the layer, per token and neuron. */
static void trades(const expert *e, ht_fit *fit, double energy)
{
    const ht_fit_layer *f = e->f;

    for (uint32_t i = 0; i < e->n_ff; i++) {
        const size_t at = (size_t)e->id * e->n_ff + i;
        float cut[HT_PRICES];
        for (uint32_t k = 0; k < HT_PRICES; k++)
            cut[k] = ht_fit_threshold(f, fit, e->id, at, ht_price(k) * energy);
        for (uint32_t t = 0; t < e->n; t++) {
            const float s = e->score[(size_t)t * e->n_ff + i];
            const double c = contribution(f, e->g[(size_t)t * e->n_ff + i]);
            for (uint32_t k = 0; k < HT_PRICES; k++) {
                ht_trade *trade = &fit->trade[k];
                const bool in = s >= cut[k];
                trade->quality.neurons++;
                trade->quality.predicted += in;
                trade->quality.active += c > 0;
                trade->quality.hit += in && c > 0;
                trade->missed += in ? 0 : c * f->value[at];
            }
        }
    }
}

float ht_fit_threshold(const ht_fit_layer *f, const ht_fit *fit, uint32_t expert, size_t neuron, double price)
{
    if (f->tokens[expert] < FEW)
        return -INFINITY;
    return ht_threshold(&fit->estimate[neuron], f->value[neuron], price, f->cut, f->power);
}

static ht_status low_rank_scores(expert *e, ht_fit *fit, ht_error *err)
{
    const uint32_t r = fit->rank, d = e->d;
    const size_t larger = d > e->n_ff ? d : e->n_ff;
    float *z = malloc((size_t)e->n * r * sizeof *z), *t = malloc(larger * r * sizeof *t);

    if (z && t) {
        for (uint32_t i = 0; i < r; i++)
            for (uint32_t j = 0; j < d; j++)
                t[(size_t)j * r + i] = fit->low_a[(size_t)i * d + j];
        ht_multiply(e->x, t, z, e->n, d, r);
        for (uint32_t i = 0; i < e->n_ff; i++)
            for (uint32_t j = 0; j < r; j++)
                t[(size_t)j * e->n_ff + i] = fit->low_b[(size_t)i * r + j];
        ht_multiply(z, t, e->score, e->n, r, e->n_ff);
    }
    bool good = z && t;
    free(z);
    free(t);
    return good ? HT_OK : ht_fail(err, HT_ENOMEM, "a predictor of rank %u", r);
}

static ht_fit *new_fit(ht_fit_layer *f, const char *method, uint32_t rank, size_t neurons, ht_error *err)
{
    ht_fit *fit = &f->fits[f->n_fits];

    *fit = (ht_fit){ .method = method, .rank = rank, .estimate = calloc(neurons ? neurons : 1, sizeof *fit->estimate) };
    if (!fit->estimate) {
        ht_fail(err, HT_ENOMEM, "estimates of %zu neurons", neurons);
        return NULL;
    }
    f->n_fits++;
    return fit;
}

static void drop_fit(ht_fit *fit)
{
    free(fit->estimate);
    free(fit->low_a);
    free(fit->low_b);
    *fit = (ht_fit){ 0 };
}

/* Of a dense block: ranks of a sixteenth, an eighth and a quarter of the inputs. */
static ht_status low_ranks(expert *e, ht_error *err)
{
    float *weight = malloc(e->n_ff * sizeof *weight), *w = malloc((size_t)e->n_ff * e->d * sizeof *w);
    const hearth_role role = e->s->block.gated ? HEARTH_ROLE_GATE : HEARTH_ROLE_UP;
    ht_status st;

    if (!weight || !w) {
        free(weight);
        free(w);
        return ht_fail(err, HT_ENOMEM, "low-rank predictors");
    }
    st = (ht_status)hearth_model_read_rows(e->m, e->layer, 0, role, 0, e->n_ff, w, (hearth_error *)(void *)err);
    for (uint32_t i = 0; i < e->n_ff; i++)
        weight[i] = (float)(e->f->value[i] / (e->f->energy + 1e-30));
    for (uint32_t divisor = 16; st == HT_OK && divisor >= 4 && e->f->n_fits < HT_FITS; divisor /= 2) {
        const uint32_t rank = e->d / divisor / 32 * 32;
        if (rank == 0 || rank > e->n_ff || (double)rank * e->n_ff * e->d > most_products)
            continue;
        ht_fit *fit = new_fit(e->f, "lowrank", rank, e->n_ff, err);
        if (!fit) {
            st = HT_ENOMEM;
            break;
        }
        fit->low_a = calloc((size_t)rank * e->d + 1, sizeof(float));
        fit->low_b = calloc((size_t)rank * e->n_ff + 1, sizeof(float));
        fit->bytes = (double)rank * (e->d + e->n_ff) * 34 / 32 + 4.0 * e->n_ff;
        if (!fit->low_a || !fit->low_b) {
            st = ht_fail(err, HT_ENOMEM, "a predictor of rank %u", rank);
            break;
        }
        st = ht_lowrank_fit(e->x, e->n, e->d, w, e->n_ff, weight, rank, e->layer + 1, fit->low_a, fit->low_b, err);
        if (st == HT_EINVAL) { /* inputs that no matrix follows from: signs will do */
            drop_fit(fit);
            e->f->n_fits--;
            st = HT_OK;
            break;
        }
        if (st != HT_OK || (st = low_rank_scores(e, fit, err)) != HT_OK)
            break;
        estimates(e, fit);
        trades(e, fit, e->f->energy);
    }
    free(weight);
    free(w);
    return st;
}

/* Shares of the sums. */
static void finish(ht_fit_layer *f, double energy_sum)
{
    for (uint32_t i = 0; i < f->n_fits; i++)
        for (uint32_t k = 0; k < HT_PRICES; k++) {
            ht_trade *t = &f->fits[i].trade[k];
            t->predicted = t->quality.neurons ? (double)t->quality.predicted / (double)t->quality.neurons : 0;
            t->missed = energy_sum > 0 ? t->missed / energy_sum : 0;
        }
}

/* One expert: what its neurons are worth, or (when that is known of all) its predictors. */
static ht_status fit_expert(ht_fit_layer *f, hearth_model *m, const ht_samples *s, uint32_t layer, uint32_t id,
                            bool for_values, ht_error *err)
{
    expert e = { .m = m, .s = &s->layers[layer], .f = f, .layer = layer, .id = id };
    ht_status st = open_expert(&e, s, err);

    f->tokens[id] = e.n;
    if (st != HT_OK || e.n < 2)
        goto end;
    if ((st = products(&e, e.x, false, e.g, err)) != HT_OK)
        goto end;
    if (for_values) { /* NOLINT: the analyser loses e.x in products, which keeps it */
        if ((st = column_norms(&e, err)) == HT_OK)
            values(&e);
        goto end;
    }
    if ((st = products(&e, e.signed_x, true, e.score, err)) != HT_OK)
        goto end;
    estimates(&e, &f->fits[0]);
    trades(&e, &f->fits[0], f->energy);
    if (e.s->block.n_expert == 1)
        st = low_ranks(&e, err);
end:
    free_expert(&e);
    return st;
}

ht_status ht_fit_layer_make(ht_fit_layer *f, hearth_model *m, const ht_samples *s, uint32_t layer, ht_error *err)
{
    const ht_sample_layer *sl = &s->layers[layer];
    const hearth_block_info *b = &sl->block;
    const size_t neurons = (size_t)b->n_ff * b->n_expert;
    ht_status st = HT_OK;

    memset(f, 0, sizeof *f);
    f->power = strcmp(b->activation, "relu2") == 0 ? 2 : 1;
    f->cut = strcmp(b->activation, "fatrelu") == 0 ? b->activation_param : 0;
    f->row_bytes = (double)b->row_bytes;
    f->neurons = (double)b->n_ff * b->n_used;
    f->value = calloc(neurons ? neurons : 1, sizeof *f->value);
    f->rest = b->gated ? 2 : 1;
    f->tokens = calloc(b->n_expert ? b->n_expert : 1, sizeof *f->tokens);
    ht_fit *sign = f->value && f->tokens ? new_fit(f, "sign", 0, neurons, err) : NULL;
    if (!sign)
        return ht_fail(err, HT_ENOMEM, "predictors of layer %u", layer);
    sign->bytes = (double)ht_signs_bytes(b->n_ff, s->d) * b->n_used + 4.0 * f->neurons;
    /* Values first, for prices are shares of the energy of the layer as a whole. */
    for (int round = 0; round < 2 && st == HT_OK; round++) {
        for (uint32_t i = 0; i < b->n_expert && st == HT_OK; i++)
            st = fit_expert(f, m, s, layer, i, round == 0, err);
        if (round == 0)
            f->energy /= (double)s->tokens * f->neurons;
    }
    finish(f, f->energy * s->tokens * f->neurons);
    return st;
}

void ht_fit_layer_free(ht_fit_layer *f)
{
    for (uint32_t i = 0; i < f->n_fits; i++)
        drop_fit(&f->fits[i]);
    free(f->value);
    free(f->tokens);
    memset(f, 0, sizeof *f);
}

ht_trade ht_fit_at(const ht_fit *f, double price)
{
    double at = (log10(price) + 3) * 4;
    at = at < 0 ? 0 : at > HT_PRICES - 1 ? HT_PRICES - 1 : at;
    const uint32_t k = at >= HT_PRICES - 1 ? HT_PRICES - 2 : (uint32_t)at;
    const double b = at - k, a = 1 - b;
    ht_trade t = f->trade[b < 0.5 ? k : k + 1];

    t.predicted = a * f->trade[k].predicted + b * f->trade[k + 1].predicted;
    t.missed = a * f->trade[k].missed + b * f->trade[k + 1].missed;
    return t;
}
