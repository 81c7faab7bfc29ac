/* SPDX-License-Identifier: MIT
 * Products with weights on the CPU: the matmul operation, and ht_cpu_product, which every other operation uses too. */
#include "cpu/exec.h"

void ht_cpu_product(const cpu_exec *x, const ht_part *w, uint32_t row0, uint32_t n, uint32_t col0, uint32_t k,
                    const ht_act *act, uint32_t first_tok, uint32_t n_tok, float *y, size_t ldy, void *scratch)
{
    const ht_kernels *kn = &x->kernels;
    const ht_type_info *t = ht_type_get(w->type);
    const uint8_t *rows = (const uint8_t *)w->host + (size_t)row0 * w->stride + ht_type_row_bytes(t, col0);

    if (t->quantised && act->q8.stride) {
        const ht_q8 *q = &act->q8;
        size_t at = (size_t)first_tok * q->stride + col0;
        if (n_tok > 1) {
            ht_q8 part = { q->q + at, q->d + at / 32, q->s + at / 16, q->stride };
            kn->gemm_q8(y, ldy, (ht_type)w->type, rows, w->stride, n, &part, n_tok, k, scratch);
        } else {
            ht_q8_row row = { q->q + at, q->d + at / 32, q->s + at / 16 };
            kn->dot_q8[w->type](y, rows, w->stride, n, &row, k);
        }
    } else {
        const float *f = act->f + (size_t)first_tok * act->stride + col0;
        if (n_tok > 1)
            kn->gemm_f32(y, ldy, (ht_type)w->type, rows, w->stride, n, f, act->stride, n_tok, k, scratch);
        else
            kn->dot_f32[w->type](y, rows, w->stride, n, f, k);
    }
}

static void matmul_chunk(const cpu_op *op, uint32_t chunk, uint32_t thread)
{
    const ht_op_matmul *m = &op->op.matmul;
    uint32_t r0 = chunk * op->grain[0], n = m->w.n - r0 < op->grain[0] ? m->w.n - r0 : op->grain[0];

    ht_cpu_product(op->x, &m->w, r0, n, 0, m->w.k, &m->x, 0, op->op.n_tok, m->y + r0, m->y_stride,
                   cpu_scratch(op->x, thread));
    if (!m->bias && m->scale == 1.0f && m->clamp <= 0.0f)
        return;
    for (uint32_t t = 0; t < op->op.n_tok; t++) {
        float *y = m->y + (size_t)t * m->y_stride + r0;
        for (uint32_t i = 0; i < n; i++) {
            float v = m->bias ? y[i] + m->bias[r0 + i] : y[i];
            v *= m->scale;
            if (m->clamp > 0.0f)
                v = v < -m->clamp ? -m->clamp : v > m->clamp ? m->clamp : v;
            y[i] = v;
        }
    }
}

/* Rows per chunk: about 64 KiB of weights so that a thread streams, but at least four chunks per thread so that the
 * others can take over from one that is held up. */
static uint32_t rows_per_chunk(uint32_t n, size_t stride, uint32_t threads, uint32_t n_tok)
{
    uint32_t unit = n_tok > 1 ? 16 : 8;
    size_t grain = stride ? 65536 / stride : 64;
    uint32_t fair = (n + 4 * threads - 1) / (4 * threads);

    if (grain > 256)
        grain = 256;
    if (grain > fair)
        grain = fair;
    grain = (grain + unit - 1) / unit * unit;
    return grain < unit ? unit : (uint32_t)grain;
}

bool ht_cpu_plan_matmul(cpu_op *op)
{
    const ht_op_matmul *m = &op->op.matmul;

    if (!ht_type_get(m->w.type) || !m->w.host || m->w.n == 0 || m->w.k == 0 || m->w.k > op->x->max_k)
        return false;
    op->n_phases = 1;
    op->phase[0] = matmul_chunk;
    op->grain[0] = rows_per_chunk(m->w.n, m->w.stride, op->x->threads, op->op.n_tok);
    op->n_chunks[0] = (m->w.n + op->grain[0] - 1) / op->grain[0];
    return true;
}
