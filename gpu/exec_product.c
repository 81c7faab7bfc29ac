/* SPDX-License-Identifier: MIT
 * Products with weights on a GPU, and embedding rows. */
#include "gpu/exec.h"

gpu_type_kernels gpu_kernels_of(uint32_t type)
{
    enum { NONE = -1 };

    switch (type) {
#define HT_GPU_QUANT(name, id, has_min)                                                                                \
    case id: return (gpu_type_kernels){ HT_K_mv1_##name, HT_K_mv8_##name, HT_K_fv_##name, HT_K_embed_##name };
#define HT_GPU_FLOAT(name, id)                                                                                         \
    case id: return (gpu_type_kernels){ (uint32_t)NONE, (uint32_t)NONE, HT_K_fv_##name, HT_K_embed_##name };
#include "gpu/kernels/types.inc"
#undef HT_GPU_QUANT
#undef HT_GPU_FLOAT
    default: return (gpu_type_kernels){ (uint32_t)NONE, (uint32_t)NONE, (uint32_t)NONE, (uint32_t)NONE };
    }
}

void gpu_run_product(gpu_queue *q, gpu_product p)
{
    const gpu_type_kernels kernels = gpu_kernels_of(p.w->type);
    const bool by_8_bits = gpu_type_of(p.w->type).quantised && p.x->q8.stride;
    const uint32_t kernel = !by_8_bits ? kernels.fv : p.n_tok == 1 ? kernels.mv1 : kernels.mv8;
    const uint32_t tokens = !by_8_bits ? 4 : p.n_tok == 1 ? 1 : 8, rows = by_8_bits ? 8 : 4;
    const ht_q8 *x = &p.x->q8;

    p.a.n = p.w->n;
    p.a.k = p.w->k;
    p.a.n_tok = p.n_tok;
    p.a.row_bytes = (uint32_t)p.w->stride;
    p.a.x_stride = by_8_bits ? x->stride : p.x->stride;
    GPU_RUN(q, kernel, gpu_blocks(p.w->n, rows), gpu_blocks(p.n_tok, tokens), 1, p.a, p.w->device,
            by_8_bits ? gpu_addr(x->q) : gpu_addr(p.x->f), by_8_bits ? gpu_addr(x->d) : 0,
            by_8_bits ? gpu_addr(x->s) : 0, gpu_addr(p.y), gpu_addr(p.bias), p.rows, p.tokens, p.weights);
}

bool gpu_op_matmul(gpu_queue *q, const ht_op *op)
{
    const ht_op_matmul *m = &op->matmul;

    if (!gpu_has_part(q, &m->w) || !gpu_has_act(q, &m->x, op->n_tok, m->w.k) ||
        !gpu_has_floats(q, m->bias, 1, 0, m->w.n, true) ||
        !gpu_has_floats(q, m->y, op->n_tok, m->y_stride, m->w.n, false))
        return false;
    gpu_run_product(q, (gpu_product){ .w = &m->w, .x = &m->x, .y = m->y, .bias = m->bias, .n_tok = op->n_tok,
                                      .a = { .y_stride = m->y_stride, .scale = m->scale, .clamp = m->clamp } });
    return true;
}

bool gpu_op_embed(gpu_queue *q, const ht_op *op)
{
    const ht_op_embed *e = &op->embed;
    const embed_args a = { .k = e->table.k, .row_bytes = (uint32_t)e->table.stride, .out_stride = e->out_stride,
                           .scale = e->scale };

    if (!gpu_has_part(q, &e->table) || gpu_addr(e->ids) % 4 || !gpu_has(q, e->ids, op->n_tok, 4, 4) ||
        !gpu_has_floats(q, e->out, op->n_tok, e->out_stride, e->table.k, false))
        return false;
    GPU_RUN(q, gpu_kernels_of(e->table.type).embed, gpu_blocks(e->table.k, 256), op->n_tok, 1, a, e->table.device,
            gpu_addr(e->ids), gpu_addr(e->out));
    return true;
}
