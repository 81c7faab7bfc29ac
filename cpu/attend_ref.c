/* SPDX-License-Identifier: MIT
 *
 * Attention in plain C, query by query: the definition that the other variants are tested against.
 * Owner: no state. Threads: any. */
#include <string.h>

#include "cpu/attend.h"
#include "cpu/vec.h"
#include "cpu/vec_common.h"

enum { N = HT_KV_GROUP };

static float half_at(const uint8_t *p, uint32_t i)
{
    return ht_vec_f16_to_f32(ht_vec_u16_at(p + (size_t)i * 2));
}

static int32_t nibble(uint8_t b, bool high)
{
    return (high ? b >> 4 : b & 15) - 8;
}

/* Dimension i of the block (of 32) at b, for the 16 positions of a group. */
static void k_row(ht_type type, const uint8_t *b, uint32_t i, float *w)
{
    if (type == HT_F32) {
        memcpy(w, b + (size_t)i * N * 4, N * 4);
        return;
    }
    for (uint32_t l = 0; l < N; l++)
        w[l] = type == HT_F16    ? half_at(b, i * N + l)
               : type == HT_Q8_0 ? (float)(int8_t)b[HT_KV_K_HEAD + i * N + l]
                                 : (float)nibble(b[HT_KV_K_HEAD + i % N * N + l], i >= N);
}

/* Scores of the 16 positions of the group at k, before scale and cap. */
static void group_scores(ht_type type, const uint8_t *k, uint32_t k_dim, const float *q, float *s)
{
    const bool scaled = type != HT_F32 && type != HT_F16;

    memset(s, 0, N * sizeof *s);
    for (uint32_t i = 0; i < k_dim; i += 32) {
        const uint8_t *b = k + ht_kv_group_bytes(type, i);
        float acc[N] = { 0 }, w[N];
        for (uint32_t d = 0; d < 32 && i + d < k_dim; d++) {
            k_row(type, b, d, w);
            for (uint32_t l = 0; l < N; l++)
                acc[l] = fmaf(q[i + d], w[l], acc[l]);
        }
        for (uint32_t l = 0; l < N; l++)
            s[l] = scaled ? fmaf(half_at(b, l), acc[l], s[l]) : s[l] + acc[l];
    }
}

/* o[0..16) += p * dimensions [16 c, 16 c + 16) of position j of a page. */
static void add_value(ht_type type, const uint8_t *v, uint32_t c, uint32_t j, float p, float *o)
{
    if (type == HT_F32 || type == HT_F16) {
        const uint8_t *row = v + ((size_t)c * HT_KV_PAGE + j) * (type == HT_F32 ? 4 : 2) * N;
        float w[N] = { 0 };
        if (type == HT_F32)
            memcpy(w, row, sizeof w);
        for (uint32_t l = 0; l < N; l++)
            o[l] = fmaf(p, type == HT_F32 ? w[l] : half_at(row, l), o[l]);
        return;
    }
    const uint8_t *b = v + c / 2 * (size_t)(type == HT_Q8_0 ? HT_KV_V_Q8 : HT_KV_V_Q4);
    const uint8_t *row = b + HT_KV_V_HEAD + ((type == HT_Q8_0 ? c % 2 * HT_KV_PAGE : 0) + j) * (size_t)N;
    const float pd = p * half_at(b, j);
    for (uint32_t l = 0; l < N; l++)
        o[l] = fmaf(pd, type == HT_Q8_0 ? (float)(int8_t)row[l] : (float)nibble(row[l], c % 2), o[l]);
}

void ht_attend__ref(const ht_attend_span *s)
{
    float *scores = s->scratch; /* [HT_ATTEND_SPAN] */

    for (uint32_t n = 0; n < s->n_q; n++) {
        ht_attend_query *q = &s->query[n];
        if (q->j0 == q->j1)
            continue;
        for (uint32_t j = q->j0 / N * N; j < q->j1; j += N)
            group_scores(s->type, s->k[j / HT_KV_PAGE] + j % HT_KV_PAGE / N * ht_kv_group_bytes(s->type, s->k_dim),
                         s->k_dim, q->q, scores + j);
        for (uint32_t j = q->j0; j < q->j1; j++)
            scores[j] = s->cap > 0.0f ? s->cap * ht_tanhf(s->scale * scores[j] / s->cap) : scores[j] * s->scale;
        ht_exp_sum__ref(scores, q->j0, q->j1, &q->m, &q->l);
        memset(q->o, 0, (s->v_dim + N - 1) / N * N * sizeof *q->o);
        for (uint32_t c = 0; c * N < s->v_dim; c++)
            for (uint32_t j = q->j0; j < q->j1; j++)
                add_value(s->type, s->v[j / HT_KV_PAGE], c, j % HT_KV_PAGE, scores[j], q->o + (size_t)c * N);
    }
}
