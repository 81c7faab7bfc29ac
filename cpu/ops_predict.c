/* SPDX-License-Identifier: MIT
 *
 * The predict operation on the CPU: masks of the neurons that tokens may need. A token that is generated alone shares
 * its table of activations among threads, which then walk the tiles of the one-bit matrix; of a prompt each token is a
 * chunk. */
#include "cpu/exec.h"
#include "cpu/predict.h"

#include <string.h>

enum { CHUNK_BYTES = 32 << 10, TAKE_BYTES = 256 << 10, TILES = 32 /* in one go */ };

/* What a token's activations become, in HT_PREDICT_WORK bytes. */
typedef struct prepared {
    float base;
    uint32_t n_blocks;
    int8_t *table, *q;
    int16_t *m;
} prepared;

static prepared place(const ht_op_predict *p, void *work)
{
    uint8_t *at = work;
    prepared x = { .n_blocks = ht_signs_blocks(p->k) };

    x.table = (int8_t *)at + 64;
    x.q = x.table + (size_t)x.n_blocks * HT_SIGNS_TABLE;
    x.m = (int16_t *)(void *)(x.q + (size_t)x.n_blocks * HT_SIGNS_COLS);
    return x;
}

static void prepare(const ht_op_predict *p, uint32_t t, void *work)
{
    prepared x = place(p, work);

    x.base = ht_signs_quantise(p->x + (size_t)(p->tokens ? p->tokens[t] : t) * p->x_stride, p->k, x.q, x.m);
    ht_signs_table(x.q, x.n_blocks, x.table);
    memcpy(work, &x.base, sizeof x.base);
}

/* Bits of the neurons [n0, n0 + n), n at most 32. */
static uint32_t compare(const float *score, const float *threshold, uint32_t n)
{
    uint32_t word = 0;

    for (uint32_t i = 0; i < n; i++)
        word |= (uint32_t)(score[i] >= threshold[i]) << i;
    return word;
}

/* Words of tiles [first, first + n). */
static void signs_words(const cpu_op *op, const void *work, uint32_t first, uint32_t n, uint32_t *words)
{
    const ht_op_predict *p = &op->op.predict;
    const size_t stride = (size_t)ht_signs_blocks(p->k) * HT_SIGNS_BLOCK;
    prepared x = place(p, (void *)(uintptr_t)work);
    int32_t sum[TILES * HT_SIGNS_ROWS];

    memcpy(&x.base, work, sizeof x.base);
    for (uint32_t t = 0; t < n; t += TILES) {
        uint32_t now = n - t < TILES ? n - t : TILES;
        op->x->kernels.signs(sum, p->signs + (first + t) * stride, now, x.n_blocks, x.table, x.m);
        for (uint32_t i = 0; i < now; i++) {
            uint32_t n0 = (first + t + i) * HT_SIGNS_ROWS, rows = p->n - n0 < 32 ? p->n - n0 : 32;
            float score[HT_SIGNS_ROWS];
            for (uint32_t r = 0; r < HT_SIGNS_ROWS; r++)
                score[r] = x.base * (float)sum[i * HT_SIGNS_ROWS + r];
            words[t + i] = compare(score, p->threshold + n0, rows);
        }
    }
}

static void prepare_chunk(const cpu_op *op, uint32_t chunk, uint32_t thread)
{
    (void)chunk;
    (void)thread;
    prepare(&op->op.predict, 0, op->op.predict.work);
}

static void token_tiles(const cpu_op *op, uint32_t first, uint32_t n_chunks, uint32_t thread)
{
    const ht_op_predict *p = &op->op.predict;
    uint32_t t0 = first * op->grain[1], n = n_chunks * op->grain[1], tiles = ht_signs_tiles(p->n);
    uint32_t *words = (uint32_t *)(void *)cpu_work_space(op, thread);

    n = n < tiles - t0 ? n : tiles - t0;
    signs_words(op, p->work, t0, n, words);
    if (ht_stream_commit(op->x->stream, thread))
        memcpy(p->mask + t0, words, n * sizeof *words);
}

static void prompt_token(const cpu_op *op, uint32_t t, uint32_t thread)
{
    const ht_op_predict *p = &op->op.predict;
    void *work = cpu_work_space(op, thread);

    prepare(p, t, work);
    signs_words(op, work, 0, ht_signs_tiles(p->n), p->mask + (size_t)t * p->mask_stride);
}

static void scores_token(const cpu_op *op, uint32_t t, uint32_t thread)
{
    const ht_op_predict *p = &op->op.predict;
    const float *score = p->scores + (size_t)t * p->scores_stride;
    uint32_t *mask = p->mask + (size_t)t * p->mask_stride;

    (void)thread;
    for (uint32_t n0 = 0; n0 < p->n; n0 += 32)
        mask[n0 / 32] = compare(score + n0, p->threshold + n0, p->n - n0 < 32 ? p->n - n0 : 32);
}

bool ht_cpu_plan_predict(cpu_op *op)
{
    const ht_op_predict *p = &op->op.predict;
    const uint32_t tiles = ht_signs_tiles(p->n);

    if (p->n == 0 || !p->threshold || !p->mask)
        return false;
    op->n_phases = 1;
    op->n_chunks[0] = op->op.n_tok;
    if (p->scores) {
        op->phase[0] = scores_token;
        return true;
    }
    if (!p->signs || !p->x || p->k == 0 || HT_PREDICT_WORK(p->k) > 2 * CPU_TILE * sizeof(float) || p->k > op->x->max_k)
        return false;
    op->phase[0] = prompt_token;
    if (op->op.n_tok == 1) {
        size_t bytes = (size_t)ht_signs_blocks(p->k) * HT_SIGNS_BLOCK;
        if (!p->work)
            return false;
        op->phase[0] = prepare_chunk;
        op->n_phases = 2;
        op->range[1] = token_tiles;
        op->grain[1] = bytes < CHUNK_BYTES ? (uint32_t)(CHUNK_BYTES / bytes) : 1;
        op->n_chunks[1] = (tiles + op->grain[1] - 1) / op->grain[1];
        op->most[1] = (uint32_t)(TAKE_BYTES / (bytes * op->grain[1]));
        op->contested[1] = true;
    }
    return true;
}

/* Rows of one tile. */
static void signs_tile(const cpu_op *op, uint32_t tile, uint32_t thread)
{
    const ht_op_signs *s = &op->op.signs;
    float *row = cpu_work_space(op, thread);

    for (uint32_t r = tile * HT_SIGNS_ROWS; r < (tile + 1) * HT_SIGNS_ROWS; r++) {
        if (r < s->w.n)
            ht_type_dequant((ht_type)s->w.type, ht_part_row(&s->w, r), s->w.k, row);
        else
            for (uint32_t i = 0; i < s->w.k; i++)
                row[i] = -1.0f; /* rows behind the last: bits 0 */
        ht_signs_set_row(s->signs, s->w.k, r, row);
    }
}

bool ht_cpu_plan_signs(cpu_op *op)
{
    const ht_op_signs *s = &op->op.signs;

    if (!ht_type_get(s->w.type) || !s->w.host || !s->signs || s->w.n == 0 || s->w.k > 2 * CPU_TILE || s->w.k == 0)
        return false;
    op->n_phases = 1;
    op->phase[0] = signs_tile;
    op->n_chunks[0] = ht_signs_tiles(s->w.n);
    return true;
}
