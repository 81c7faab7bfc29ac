/* SPDX-License-Identifier: MIT
 * Weights on their way to a device: which types stay as they are, the canonical form of the others, whole parts. */
#include <stdlib.h>
#include <string.h>

#include "engine/base/types.h"
#include "gpu/exec.h"

int ht_gpu_type(uint32_t type)
{
    const ht_type_info *t = ht_type_get(type);

    switch (type) {
#define HT_GPU_QUANT(name, id, has_min) case id: return (int)type;
#define HT_GPU_FLOAT(name, id) case id: return (int)type;
#include "gpu/kernels/types.inc"
#undef HT_GPU_QUANT
#undef HT_GPU_FLOAT
    default: return t && t->quantised ? (t->has_min ? HT_GPU_CANON_MIN : HT_GPU_CANON) : -1;
    }
}

/* Elements and bytes of a block, and the alignment that kernels want; block 0: unknown. */
gpu_type gpu_type_of(uint32_t type)
{
    const ht_type_info *t = ht_type_get(type);

    switch (type) {
    case HT_GPU_CANON: return (gpu_type){ 32, 40, 4, true };
    case HT_GPU_CANON_MIN: return (gpu_type){ 32, 48, 4, true };
    case HT_MXFP4: return (gpu_type){ 32, 17, 1, true };
    case HT_F32: return (gpu_type){ 1, 4, 4, false };
    case HT_Q4_K: case HT_Q5_K: return (gpu_type){ 256, t->block_bytes, 4, true };
    default:
        return t && ht_gpu_type(type) == (int)type ? (gpu_type){ t->block, t->block_bytes, 2, t->quantised }
                                                    : (gpu_type){ 0 };
    }
}

size_t ht_gpu_row_bytes(uint32_t type, uint32_t k)
{
    const gpu_type t = gpu_type_of(type);
    return t.block && k % t.block == 0 ? (size_t)k / t.block * t.bytes : 0;
}

static void put_f32(uint8_t *p, float f) { memcpy(p, &f, 4); }

static void put_pair(uint8_t *p, const int16_t *two) { memcpy(p, two, 4); }

void ht_gpu_row(uint32_t type, const void *src, uint32_t k, void *dst)
{
    enum { STEP = 256 };
    const ht_type_info *t = ht_type_get(type);
    const uint8_t *s = src;
    uint8_t *to = dst;
    int8_t q[STEP];
    int16_t sc[STEP / 16], mn[STEP / 16];
    float d[STEP / 32], dm[STEP / 32];

    if (ht_gpu_type(type) == (int)type) {
        memcpy(dst, src, ht_gpu_row_bytes(type, k));
        return;
    }
    for (uint32_t i = 0; i < k; i += STEP) {
        const uint32_t n = k - i < STEP ? k - i : STEP;
        ht_type_unpack((ht_type)type, s, n, &(ht_canon){ q, sc, mn, d, dm });
        s += ht_type_row_bytes(t, n);
        for (uint32_t b = 0; b < n / 32; b++) {
            put_f32(to, d[b]);
            if (t->has_min) {
                put_f32(to + 4, dm[b]);
                put_pair(to + 12, mn + 2 * b);
            }
            put_pair(to + (t->has_min ? 8 : 4), sc + 2 * b);
            memcpy(to + (t->has_min ? 16 : 8), q + 32 * b, 32);
            to += t->has_min ? 48 : 40;
        }
    }
}

/* Rows [first, first + n) of the part into `to`, as the device holds them. */
static void rows_into(const ht_part *p, uint32_t first, uint32_t n, size_t row_bytes, uint8_t *to)
{
    for (uint32_t r = 0; r < n; r++)
        ht_gpu_row(p->type, ht_part_row(p, first + r), p->k, to + r * row_bytes);
}

ht_status ht_gpu_upload_part(ht_gpu *g, const ht_part *part, ht_part *out, ht_error *err)
{
    enum { PIECE = 8 << 20 };
    const int type = ht_gpu_type(part->type);
    const size_t row = type < 0 ? 0 : ht_gpu_row_bytes((uint32_t)type, part->k);
    uint64_t addr;
    ht_status st;

    if (!row || !part->host || !part->n || part->layout == HT_LAYOUT_NEURONS)
        return ht_fail(err, HT_EUNSUPPORTED, "a matrix of type %s, %u x %u, cannot go to a GPU", ht_type_name(part->type),
                       part->n, part->k);
    const uint32_t at_once = row > PIECE ? 1 : (uint32_t)(PIECE / row);
    uint8_t *piece = malloc((part->n < at_once ? part->n : at_once) * row);
    if (!piece)
        return ht_fail(err, HT_ENOMEM, "a piece of an upload, %zu bytes", at_once * row);
    if ((st = ht_gpu_alloc(g, (uint64_t)part->n * row, &addr, err)) != HT_OK) {
        free(piece);
        return st;
    }
    for (uint32_t r = 0; r < part->n && st == HT_OK; r += at_once) {
        const uint32_t n = part->n - r < at_once ? part->n - r : at_once;
        ht_gpu_event e;
        rows_into(part, r, n, row, piece);
        st = ht_gpu_upload(g, HT_GPU_TRANSFER, addr + (uint64_t)r * row, piece, n * row, err);
        if (st == HT_OK && (st = ht_gpu_record(g, HT_GPU_TRANSFER, &e, err)) == HT_OK)
            st = ht_gpu_wait(g, e, err);
    }
    free(piece);
    if (st != HT_OK) {
        ht_gpu_free(g, addr);
        return st;
    }
    *out = *part;
    out->type = (uint32_t)type;
    out->stride = row;
    out->host = NULL;
    out->order = NULL;
    out->device = addr;
    return HT_OK;
}
