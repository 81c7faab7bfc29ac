/* SPDX-License-Identifier: MIT
 *
 * The rows of a synthetic model's tensors: what the plan says, drawn from the row's own random stream. Rows that
 * carry a threshold, and the embeddings, are scaled to their exact length, so that small models keep to the plan
 * too. Threads: any; nothing is shared but the read-only model. */
#include <math.h>
#include <string.h>

#include "tools/synth_model.h"

static void fill(float *dst, size_t n, double v)
{
    for (size_t i = 0; i < n; i++)
        dst[i] = (float)v;
}

static void scale(float *x, size_t n, double by)
{
    float f = (float)by;

    for (size_t i = 0; i < n; i++)
        x[i] *= f;
}

static double length(const float *x, size_t n)
{
    double sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * x[i];
    return sqrt(sum);
}

/* Normal deviates with a root mean square of exactly rms. */
static void exact_normals(const synth_model *m, uint64_t key, double rms, float *dst, size_t n)
{
    synth_normals_fill(m->normals, key, 1, dst, n);
    scale(dst, n, rms * sqrt((double)n) / length(dst, n));
}

/* Root mean square of the whole stream where the random channels have `rest`. */
static double stream_rms(const synth_model *m, double rest)
{
    double n = m->shape.d - m->n_reserved;

    return sqrt((m->n_reserved + n * rest * rest) / m->shape.d);
}

/* ---- Vocabulary -------------------------------------------------------------------------------------------------- */

static void embedding_rest(const synth_model *m, uint32_t id, float *dst)
{
    exact_normals(m, synth_key(synth_key(m->key, 2), id), 1, dst, m->shape.d - m->n_reserved);
}

static void cluster_vector(const synth_model *m, uint32_t id, double rms, float *dst)
{
    exact_normals(m, synth_key(synth_key(m->key, 3), m->vocab.cluster[id]), rms, dst, SYNTH_BLOCK);
}

static void embedding_row(const synth_model *m, uint32_t id, float *dst)
{
    fill(dst + SYNTH_CONST, SYNTH_BLOCK, 1);
    fill(dst + SYNTH_TOPIC, SYNTH_BLOCK, synth_vocab_topic(&m->vocab, id) ? -1 : 1);
    if (m->vocab.n_clusters)
        cluster_vector(m, id, 1, dst + SYNTH_CLUSTER);
    embedding_rest(m, id, dst + m->n_reserved);
}

/* Logits: a word is likely after the word before it in the chain, and after words of its topic and cluster; the rest is
 * noise. Bytes, syllables and control tokens are pushed down, so that generated text is words. */
static void output_row(const synth_model *m, const synth_tensor *t, uint32_t id, float *dst, float *scratch)
{
    const synth_vocab *v = &m->vocab;
    size_t n = m->shape.d - m->n_reserved;
    double rms = stream_rms(m, m->final_rms), unit = SYNTH_BLOCK * m->final_rms / rms;
    double noise = m->logit_std * m->logit_std / n;
    float *rest = dst + m->n_reserved;

    memset(dst, 0, m->n_reserved * sizeof *dst);
    synth_normals_fill(m->normals, synth_key(t->key, id), 1, rest, n);
    if (v->before[id] < 0) {
        fill(dst + SYNTH_CONST, SYNTH_BLOCK, -30 / unit);
        scale(rest, n, sqrt(noise));
        return;
    }
    uint32_t before = (uint32_t)v->before[id];
    bool topic = synth_vocab_topic(v, id);
    double target = m->logit_target - (synth_vocab_topic(v, before) == topic ? m->topic_logit : -m->topic_logit);

    fill(dst + SYNTH_TOPIC, SYNTH_BLOCK, (topic ? -1 : 1) * m->topic_logit / unit);
    if (v->n_clusters) {
        target -= v->cluster[before] == v->cluster[id] ? m->cluster_logit : 0;
        cluster_vector(m, id, m->cluster_logit / unit, dst + SYNTH_CLUSTER);
    }
    /* rest = a × embedding before + b × noise, with the variance that the noise alone would have where that is
     * enough */
    double a = fmax(0, target) * rms / n, b = sqrt(fmax(0.2 * noise, noise - a * a));

    embedding_rest(m, before, scratch);
    for (size_t i = 0; i < n; i++)
        rest[i] = (float)b * rest[i] + (float)a * scratch[i];
}

/* ---- Rows that read the stream ----------------------------------------------------------------------------------- */

/* Two neighbouring powers of two that a block of FP4 holds exactly, mixed so that the sum is right. */
static void fill_fp4(float *dst, double v)
{
    double low = exp2(floor(log2(fmax(fabs(v), 1e-30))));
    int n = (int)lrint(SYNTH_BLOCK * (fabs(v) / low - 1));

    fill(dst, (size_t)n, copysign(2 * low, v));
    fill(dst + n, (size_t)(SYNTH_BLOCK - n), copysign(low, v));
}

/* A block of 32 weights that adds 32 × v, in a form that the tensor's type keeps. */
static void fill_threshold(const synth_model *m, const synth_tensor *t, float *dst, double v, double level)
{
    if (m->ternary && t->type == m->options.type) {
        double n = fmin(SYNTH_BLOCK, round(fabs(v) * SYNTH_BLOCK / level));

        fill(dst, SYNTH_BLOCK, 0);
        fill(dst, (size_t)n, copysign(level, v));
    } else if (m->fp4 && t->type == m->options.type && v != 0) {
        fill_fp4(dst, v);
    } else {
        fill(dst, SYNTH_BLOCK, v);
    }
}

static void read_row(const synth_model *m, const synth_tensor *t, uint64_t row, float *dst)
{
    size_t n = m->shape.d - m->n_reserved;
    float *rest = dst + m->n_reserved;
    double level = sqrt(1.5 / n);

    memset(dst, 0, m->n_reserved * sizeof *dst);
    if (m->ternary && t->type == m->options.type)
        synth_ternary_fill(synth_key(t->key, row), (float)level, rest, n);
    else
        synth_normals_fill(m->normals, synth_key(t->key, row), (float)(1 / sqrt((double)n)), rest, n);
    if (t->role != SYNTH_R_GATE || !m->t_const)
        return;
    /* A neuron fires where rest · x > t × |rest|: the reserved channels, kappa times as strong in ffn_norm, add -t. */
    size_t at = (size_t)t->layer * t->rows + row;
    double unit = length(rest, n) / (SYNTH_BLOCK * m->kappa);

    fill_threshold(m, t, dst + SYNTH_CONST, -m->t_const[at] * unit, level);
    fill_threshold(m, t, dst + SYNTH_TOPIC, -m->t_topic[at] * unit, level);
}

/* A router reads ffn_norm's output, or (early) the layer's input as it is. */
static void router_row(const synth_model *m, const synth_tensor *t, uint64_t row, float *dst)
{
    const synth_layer *l = &m->layers[t->layer];
    size_t n = m->shape.d - m->n_reserved;
    bool early = m->shape.flags & SYNTH_ROUTER_EARLY;
    double eta = l->rest_rms / stream_rms(m, l->rest_rms);
    double rest = early ? l->input_rms : eta, fixed = early ? 1 : m->kappa * eta, cluster = early ? 1 : eta;
    size_t at = (size_t)t->layer * t->rows + row;

    memset(dst, 0, m->n_reserved * sizeof *dst);
    exact_normals(m, synth_key(t->key, row), sqrt((1 - l->cluster_share) / n) / rest, dst + m->n_reserved, n);
    if (!m->options.routed)
        return;
    fill(dst + SYNTH_CONST, SYNTH_BLOCK, m->b_const[at] / (SYNTH_BLOCK * fixed));
    fill(dst + SYNTH_TOPIC, SYNTH_BLOCK, m->b_topic[at] / (SYNTH_BLOCK * fixed));
    exact_normals(m, synth_key(synth_key(t->key, row), 1), sqrt(l->cluster_share / SYNTH_BLOCK) / cluster,
                  dst + SYNTH_CLUSTER, SYNTH_BLOCK);
}

/* ---- Rows that write to it, and the rest ------------------------------------------------------------------------- */

static void write_row(const synth_model *m, const synth_tensor *t, uint64_t row, double std, float *dst)
{
    size_t n = t->ne[0];

    if (row % t->ne[1] < m->n_reserved)
        memset(dst, 0, n * sizeof *dst);
    else if (m->ternary && t->type == m->options.type)
        synth_ternary_fill(synth_key(t->key, row), (float)(std * sqrt(1.5)), dst, n);
    else
        synth_normals_fill(m->normals, synth_key(t->key, row), (float)std, dst, n);
}

/* Norm weights: near 1 on the random channels; `fixed` on the constant and topic channels, `cluster` on the
 * cluster's. */
static void norm_row(const synth_model *m, const synth_tensor *t, double fixed, double cluster, float *dst)
{
    synth_normals_fill(m->normals, t->key, 0.05f, dst, t->ne[0]);
    for (size_t i = 0; i < t->ne[0]; i++)
        dst[i] += 1;
    fill(dst, m->n_reserved, cluster);
    fill(dst, 2 * SYNTH_BLOCK, fixed);
}

static void bias_row(const synth_model *m, const synth_tensor *t, uint64_t row, float *dst)
{
    synth_normals_fill(m->normals, synth_key(t->key, row), 0.02f, dst, t->ne[0]);
    /* what is added to the stream leaves the reserved channels alone */
    if (t->role == SYNTH_R_BIAS_OUT && t->ne[0] == m->shape.d)
        memset(dst, 0, m->n_reserved * sizeof *dst);
}

void synth_row_fill(const synth_model *m, const synth_tensor *t, uint64_t row, float *dst, float *scratch)
{
    const synth_layer *l = &m->layers[t->layer];

    switch (t->role) {
    case SYNTH_R_EMBEDDING: embedding_row(m, (uint32_t)row, dst); break;
    case SYNTH_R_OUTPUT: output_row(m, t, (uint32_t)row, dst, scratch); break;
    case SYNTH_R_NORM_ATTN: norm_row(m, t, 0, 0, dst); break;
    case SYNTH_R_NORM_FFN: norm_row(m, t, m->kappa * l->rest_rms, l->rest_rms, dst); break;
    case SYNTH_R_NORM_OUT: norm_row(m, t, m->final_rms, m->final_rms, dst); break;
    case SYNTH_R_ONES:
        synth_normals_fill(m->normals, t->key, 0.05f, dst, t->ne[0]);
        for (size_t i = 0; i < t->ne[0]; i++)
            dst[i] += 1;
        break;
    case SYNTH_R_READ:
    case SYNTH_R_GATE: read_row(m, t, row, dst); break;
    case SYNTH_R_ATTN_OUT: write_row(m, t, row, l->out_std, dst); break;
    case SYNTH_R_DOWN: write_row(m, t, row, l->down_std, dst); break;
    case SYNTH_R_DOWN_SHARED: write_row(m, t, row, l->shared_std, dst); break;
    case SYNTH_R_ROUTER: router_row(m, t, row, dst); break;
    case SYNTH_R_BIAS:
    case SYNTH_R_BIAS_OUT: bias_row(m, t, row, dst); break;
    case SYNTH_R_SINKS: synth_normals_fill(m->normals, t->key, 0.5f, dst, t->ne[0]); break;
    case SYNTH_R_CONV:
        synth_normals_fill(m->normals, synth_key(t->key, row), (float)(1 / sqrt((double)t->ne[0])), dst, t->ne[0]);
        break;
    case SYNTH_R_SSM_A: /* -exp(A_log), with decay rates from 1 to 16 */
        for (size_t i = 0; i < t->ne[0]; i++)
            dst[i] = (float)-(1 + 15 * synth_uniform(t->key, i));
        break;
    case SYNTH_R_SSM_DT: /* time steps from 0.001 to 0.1, through the inverse of softplus */
        for (size_t i = 0; i < t->ne[0]; i++)
            dst[i] = (float)log(expm1(0.001 * pow(100, synth_uniform(t->key, i))));
        break;
    }
}
