/* SPDX-License-Identifier: MIT
 * Weights on their way to a device: which types stay as they are, the canonical form of the others, whole parts. */
#include <stdlib.h>
#include <string.h>

#include "engine/base/neurons.h"
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

enum { PIECE = 4 << 20 }; /* of an upload; two are under way */

/* A piece of an upload is made while the one before is on its way. */
typedef struct upload {
    ht_gpu *g;
    ht_gpu_event event[2];
    uint32_t n;
} upload;

/* Where the next piece is made: what was there is on the device. */
static ht_status next_piece(upload *u, uint8_t **at, ht_error *err)
{
    *at = u->g->staging + (size_t)(u->n % 2) * PIECE;
    return ht_gpu_wait(u->g, u->event[u->n % 2], err);
}

static ht_status send_piece(upload *u, uint64_t to, const uint8_t *from, size_t bytes, ht_error *err)
{
    ht_status st = ht_gpu_upload(u->g, HT_GPU_TRANSFER, to, from, bytes, err);
    return st == HT_OK ? ht_gpu_record(u->g, HT_GPU_TRANSFER, &u->event[u->n++ % 2], err) : st;
}

/* Rows [first, first + n) of the part into `to`, as the device holds them. */
static void rows_into(const ht_part *p, uint32_t first, uint32_t n, size_t row_bytes, uint8_t *to)
{
    if (!p->order && p->stride == row_bytes && ht_gpu_type(p->type) == (int)p->type) {
        memcpy(to, ht_part_row(p, first), n * row_bytes);
        return;
    }
    for (uint32_t r = 0; r < n; r++)
        ht_gpu_row(p->type, ht_part_row(p, first + r), p->k, to + r * row_bytes);
}

static ht_status send_rows(upload *u, const ht_part *p, uint64_t to, size_t row, ht_error *err)
{
    const uint32_t at_once = (uint32_t)(PIECE / row);
    uint8_t *piece;
    ht_status st = HT_OK;

    for (uint32_t r = 0; r < p->n && st == HT_OK; r += at_once) {
        const uint32_t n = p->n - r < at_once ? p->n - r : at_once;
        if ((st = next_piece(u, &piece, err)) != HT_OK)
            break;
        rows_into(p, r, n, row, piece);
        st = send_piece(u, to + (uint64_t)r * row, piece, n * row, err);
    }
    return st;
}

static ht_status send_bytes(upload *u, const uint8_t *from, uint64_t bytes, uint64_t to, ht_error *err)
{
    uint8_t *piece;
    ht_status st = HT_OK;

    for (uint64_t i = 0; i < bytes && st == HT_OK; i += PIECE) {
        const size_t n = bytes - i < PIECE ? (size_t)(bytes - i) : PIECE;
        if ((st = next_piece(u, &piece, err)) != HT_OK)
            break;
        memcpy(piece, from + i, n);
        st = send_piece(u, to + i, piece, n, err);
    }
    return st;
}

/* Host memory through which weights go, made when it is first wanted. */
static ht_status have_staging(ht_gpu *g, ht_error *err)
{
    if (g->staging)
        return HT_OK;
    g->staging = ht_gpu_host_alloc(g, 2 * (size_t)PIECE);
    g->staging_pinned = g->staging != NULL;
    if (!g->staging)
        g->staging = malloc(2 * (size_t)PIECE);
    return g->staging ? HT_OK : ht_fail(err, HT_ENOMEM, "pieces of uploads, %zu bytes", 2 * (size_t)PIECE);
}

ht_status ht_gpu_upload_part(ht_gpu *g, const ht_part *part, ht_part *out, ht_error *err)
{
    const bool neurons = part->layout == HT_LAYOUT_NEURONS;
    const int type = ht_gpu_type(part->type);
    const size_t row = type < 0 || neurons ? 0 : ht_gpu_row_bytes((uint32_t)type, part->k);
    upload u = { .g = g };
    ht_neurons form;
    uint64_t addr = 0;

    const bool fits = neurons ? !part->order && ht_neurons_shape(&form, (ht_type)part->type, part->n, part->k) &&
                                    part->rows_at == form.rows_at && part->stride == form.stride
                              : row && row <= PIECE;
    if (!fits || !part->host || !part->n)
        return ht_fail(err, HT_EUNSUPPORTED, "a matrix of type %s, %u x %u, cannot go to a GPU so", ht_type_name(part->type),
                       part->n, part->k);
    const uint64_t bytes = neurons ? form.bytes : (uint64_t)part->n * row;
    ht_os_lock(&g->staging_lock);
    ht_status st = have_staging(g, err);
    if (st == HT_OK)
        st = ht_gpu_alloc(g, bytes, &addr, err);
    if (st == HT_OK)
        st = neurons ? send_bytes(&u, part->host, bytes, addr, err) : send_rows(&u, part, addr, row, err);
    for (uint32_t i = 0; i < 2; i++) { /* also after a failure: what is under way reads the pieces */
        const ht_status end = ht_gpu_wait(g, u.event[i], st == HT_OK ? err : NULL);
        st = st == HT_OK ? end : st;
    }
    ht_os_unlock(&g->staging_lock);
    if (st != HT_OK) {
        ht_gpu_free(g, addr);
        return st;
    }
    *out = *part;
    if (!neurons) {
        out->type = (uint32_t)type;
        out->stride = row;
    }
    out->host = NULL;
    out->order = NULL;
    out->device = addr;
    return HT_OK;
}
