/* SPDX-License-Identifier: MIT
 * Products with weights on the CPU: the matmul operation, and ht_cpu_product, which every other operation uses too. */
#include "cpu/exec.h"

enum { CHUNK_BYTES = 32 << 10, TAKE_BYTES = 256 << 10 }; /* of weights, one token */
/* Of a prompt's chunk of weights, at most, where its fewest rows times 64 tokens are not more: below a millisecond on
 * the machines of today, so that who cancels need not wait on the slowest. */
enum { CHUNK_PRODUCTS = 64 << 20 };

/* How many rows from `row` on, n at most, lie one after the other. */
static uint32_t run_of(const ht_part *w, uint32_t row, uint32_t n)
{
    uint32_t g = row / 32, run = 32 - row % 32;

    if (!w->order)
        return n;
    for (; run < n && w->order[g + 1] == w->order[g] + 1; g++)
        run += 32;
    return run < n ? run : n;
}

/* Rows that lie one after the other. */
static void product(const cpu_exec *x, const ht_part *w, uint32_t row0, uint32_t n, uint32_t col0, uint32_t k,
                    const ht_act *act, uint32_t first_tok, uint32_t n_tok, float *y, size_t ldy, void *scratch)
{
    const ht_kernels *kn = &x->kernels;
    const ht_type_info *t = ht_type_get(w->type);
    const uint8_t *rows = (const uint8_t *)ht_part_row(w, row0) + ht_type_row_bytes(t, col0);

    if (t->quantised && act->q8.stride) {
        const ht_q8 *q = &act->q8;
        size_t at = (size_t)first_tok * q->stride + col0;
        if (n_tok > 1) {
            ht_q8 part = { q->q + at, q->d + at / 32, q->s + at / 16, q->stride };
            kn->gemm_q8(y, ldy, (ht_type)w->type, rows, w->stride, n, &part, n_tok, k, scratch);
        } else {
            ht_q8_row row = { q->q + at, q->d + at / 32, q->s + at / 16 };
            kn->dot_q8[w->type](y, rows, w->stride, NULL, n, &row, k);
        }
    } else {
        const float *f = act->f + (size_t)first_tok * act->stride + col0;
        if (n_tok > 1)
            kn->gemm_f32(y, ldy, (ht_type)w->type, rows, w->stride, n, f, act->stride, n_tok, k, scratch);
        else
            kn->dot_f32[w->type](y, rows, w->stride, NULL, n, f, k);
    }
}

void ht_cpu_product(const cpu_exec *x, const ht_part *w, uint32_t row0, uint32_t n, uint32_t col0, uint32_t k,
                    const ht_act *act, uint32_t first_tok, uint32_t n_tok, float *y, size_t ldy, void *scratch)
{
    for (uint32_t i = 0, now; i < n; i += now) {
        now = run_of(w, row0 + i, n - i);
        product(x, w, row0 + i, now, col0, k, act, first_tok, n_tok, y + i, ldy, scratch);
    }
}

/* Listed rows of base, or the first n. */
static void some_rows(const cpu_exec *x, const ht_part *w, const uint8_t *base, const uint32_t *rows, uint32_t n,
                      const ht_act *act, uint32_t tok, float *y)
{

    if (ht_type_get(w->type)->quantised && act->q8.stride) {
        const size_t at = (size_t)tok * act->q8.stride;
        const ht_q8_row row = { act->q8.q + at, act->q8.d + at / 32, act->q8.s + at / 16 };
        x->kernels.dot_q8[w->type](y, base, w->stride, rows, n, &row, w->k);
    } else {
        x->kernels.dot_f32[w->type](y, base, w->stride, rows, n, act->f + (size_t)tok * act->stride, w->k);
    }
}

void ht_cpu_rows(const cpu_exec *x, const ht_part *w, const uint32_t *rows, uint32_t row0, uint32_t n, const ht_act *act,
                 uint32_t tok, float *y)
{
    enum { AT_ONCE = 512 };
    uint32_t place[AT_ONCE];

    if (!w->order) {
        some_rows(x, w, (const uint8_t *)w->host + (rows ? 0 : (size_t)row0 * w->stride), rows, n, act, tok, y);
        return;
    }
    for (uint32_t i = 0, now; i < n; i += now) {
        now = rows ? (n - i < AT_ONCE ? n - i : AT_ONCE) : run_of(w, row0 + i, n - i);
        for (uint32_t r = 0; rows && r < now; r++)
            place[r] = w->order[rows[i + r] / 32] * 32 + rows[i + r] % 32;
        some_rows(x, w, rows ? w->host : ht_part_row(w, row0 + i), rows ? place : NULL, now, act, tok, y + i);
    }
}

/* Chunks small enough for an even end of a task; taken at once: tens of microseconds of work, for kernels are faster in
 * long calls. */
uint32_t ht_cpu_token_rows(size_t row_bytes, uint32_t *most)
{
    size_t rows = row_bytes ? CHUNK_BYTES / row_bytes / 8 * 8 : 64;

    rows = rows < 8 ? 8 : rows > 256 ? 256 : rows;
    size_t n = row_bytes ? TAKE_BYTES / (rows * row_bytes) : 1;
    *most = n < 1 ? 1 : n > CPU_TILE / rows ? (uint32_t)(CPU_TILE / rows) : (uint32_t)n;
    return (uint32_t)rows;
}

/* Bias, scale and clamp of results [r0, r0 + n) of one token. */
static void finish_rows(const ht_op_matmul *m, uint32_t r0, uint32_t n, const float *from, float *y)
{
    for (uint32_t i = 0; i < n; i++) {
        float v = m->bias ? from[i] + m->bias[r0 + i] : from[i];
        v *= m->scale;
        if (m->clamp > 0.0f)
            v = v < -m->clamp ? -m->clamp : v > m->clamp ? m->clamp : v;
        y[i] = v;
    }
}

static void token_range(const cpu_op *op, uint32_t first, uint32_t n_chunks, uint32_t thread)
{
    const ht_op_matmul *m = &op->op.matmul;
    uint32_t r0 = first * op->grain[0], n = n_chunks * op->grain[0];
    float *y = cpu_tile(op, thread, 0);

    n = n < m->w.n - r0 ? n : m->w.n - r0;
    ht_cpu_product(op->x, &m->w, r0, n, 0, m->w.k, &m->x, 0, 1, y, n, cpu_scratch(op->x, thread));
    if (ht_stream_commit(op->x->stream, thread))
        finish_rows(m, r0, n, y, m->y + r0);
}

static void prompt_chunk(const cpu_op *op, uint32_t chunk, uint32_t thread)
{
    const ht_op_matmul *m = &op->op.matmul;
    uint32_t per_block = (m->w.n + op->grain[0] - 1) / op->grain[0], r0 = chunk % per_block * op->grain[0];
    uint32_t n = m->w.n - r0 < op->grain[0] ? m->w.n - r0 : op->grain[0], t0 = chunk / per_block * op->tokens[0];
    uint32_t nt = op->op.n_tok - t0 < op->tokens[0] ? op->op.n_tok - t0 : op->tokens[0];

    ht_cpu_product(op->x, &m->w, r0, n, 0, m->w.k, &m->x, t0, nt, m->y + (size_t)t0 * m->y_stride + r0, m->y_stride,
                   cpu_scratch(op->x, thread));
    if (!m->bias && m->scale == 1.0f && m->clamp <= 0.0f)
        return;
    for (uint32_t t = t0; t < t0 + nt; t++) {
        float *y = m->y + (size_t)t * m->y_stride + r0;
        finish_rows(m, r0, n, y, y);
    }
}

uint32_t ht_cpu_prompt_tokens(uint32_t k)
{
    uint32_t t = CHUNK_PRODUCTS / (16 * k) / 16 * 16;
    return t < 64 ? 64 : t;
}

/* What arranging the tokens costs is shared by 64 rows (gemm_tile.h), at the price of fewer tokens in a chunk. */
static uint32_t least_rows(uint32_t n, uint32_t k, uint32_t threads)
{
    return k <= 4096 && n / (8 * threads) >= 64 ? 64 : 16;
}

/* Rows per chunk of a prompt: the tiles of a product are 16 rows. At least eight chunks per thread. */
static uint32_t rows_per_chunk(uint32_t n, uint32_t k, uint32_t threads, uint32_t n_tok)
{
    uint64_t grain = CHUNK_PRODUCTS / ((uint64_t)k * n_tok);
    uint32_t fair = (n + 8 * threads - 1) / (8 * threads);

    grain = grain > 256 ? 256 : grain;
    grain = grain > fair ? fair : grain;
    grain = (grain + 15) / 16 * 16;
    return grain < 16 ? 16 : (uint32_t)grain;
}

bool ht_cpu_plan_matmul(cpu_op *op)
{
    const ht_op_matmul *m = &op->op.matmul;

    if (!ht_type_get(m->w.type) || !m->w.host || m->w.n == 0 || m->w.k == 0 || m->w.k > op->x->max_k)
        return false;
    op->n_phases = 1;
    if (op->op.n_tok == 1) {
        op->range[0] = token_range;
        op->contested[0] = true;
        op->grain[0] = ht_cpu_token_rows(m->w.stride, &op->most[0]);
    } else {
        op->phase[0] = prompt_chunk;
        op->tokens[0] = ht_cpu_prompt_tokens(m->w.k * (least_rows(m->w.n, m->w.k, op->x->threads) / 16));
        op->tokens[0] = op->tokens[0] < op->op.n_tok ? op->tokens[0] : op->op.n_tok;
        op->grain[0] = rows_per_chunk(m->w.n, m->w.k, op->x->threads, op->tokens[0]);
    }
    op->n_chunks[0] = (m->w.n + op->grain[0] - 1) / op->grain[0];
    if (op->op.n_tok > 1)
        op->n_chunks[0] *= (op->op.n_tok + op->tokens[0] - 1) / op->tokens[0];
    return true;
}
