/* SPDX-License-Identifier: MIT
 * Packed models; see pack.h. docs/pack.md has the list of keys and tensors. */
#include "engine/pack.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_EXPERTS = 4096, MOST_DIM = 1 << 24, TYPE_I8 = 24, TYPE_I32 = 26 }; /* ids of GGUF */

/* How names of tensors end: of the stretches, and of the three matrices that they stand for. */
static const struct kind {
    const char *packed, *plain;
    uint32_t n_dims;
} kinds[] = { { "ffn", "", 2 }, { "ffn_exps", "_exps", 3 }, { "ffn_shexp", "_shexp", 2 } };
enum { N_KINDS = sizeof kinds / sizeof *kinds };

typedef struct reader {
    const ht_gguf *g;
    ht_pack *p;
    ht_error *err;
} reader;

static ht_status nonsense(const reader *r, const char *what)
{
    return ht_fail(r->err, HT_EFORMAT, "%s: the packed model makes no sense: %.100s", ht_gguf_path(r->g, 0), what);
}

/* Element i of an array of whole numbers, one for each block. */
static bool number(const reader *r, const char *key, uint32_t i, int64_t least, int64_t most, int64_t *out)
{
    const ht_kv *kv = ht_gguf_find(r->g, key);
    return kv && kv->type == HT_KV_ARRAY && kv->n == r->p->n_blocks && ht_kv_int(kv, i, out) && *out >= least &&
           *out <= most;
}

/* "hearth.blk.N.KIND"; NULL: it is none. */
static const struct kind *parse_name(ht_str name, uint32_t *layer)
{
    static const char head[] = "hearth.blk.";
    char text[64];

    for (size_t k = 0; k < N_KINDS; k++) {
        uint64_t v = 0;
        size_t i = sizeof head - 1, digits = i;
        if (name.n >= sizeof text || name.n < i || memcmp(name.s, head, i) != 0)
            return NULL;
        for (; i < name.n && i < digits + 8 && name.s[i] >= '0' && name.s[i] <= '9'; i++)
            v = v * 10 + (uint64_t)(name.s[i] - '0');
        const int n = snprintf(text, sizeof text, "%s%u.%s", head, (uint32_t)v, kinds[k].packed); /* no leading zeros */
        if ((size_t)n == name.n && memcmp(text, name.s, name.n) == 0) {
            *layer = (uint32_t)v;
            return &kinds[k];
        }
    }
    return NULL;
}

static ht_status read_order(const reader *r, ht_pack_block *b)
{
    char name[80];
    const uint32_t n = b->shape.n_ff / 32;

    snprintf(name, sizeof name, "%.*s.order", (int)b->tensor->name.n, b->tensor->name.s);
    const ht_tensor *t = ht_gguf_find_tensor(r->g, name);
    if (!t || t->type != TYPE_I32 || t->ne[0] != n || t->ne[1] != b->n_expert || t->ne[2] != 1 || t->ne[3] != 1 ||
        !t->data)
        return nonsense(r, name);
    const size_t bytes = (size_t)n * b->n_expert * sizeof *b->order;
    uint8_t *seen = malloc(n);
    b->order = malloc(bytes);
    if (!seen || !b->order) {
        free(seen);
        return ht_fail(r->err, HT_ENOMEM, "order of neurons");
    }
    memcpy(b->order, t->data, bytes);
    r->p->bytes += bytes;
    bool good = true;
    for (uint32_t e = 0; e < b->n_expert && good; e++)
        good = ht_packed_order_good(&b->shape, b->order + (size_t)e * n, seen);
    free(seen);
    return good ? HT_OK : nonsense(r, name);
}

/* The three tensors (two, without a gate) that a block stands for. */
static ht_status add_tensors(const reader *r, const ht_pack_block *b, const struct kind *kind)
{
    static const char *const roles[HT_N_ROLES] = { "gate", "up", "down" };

    for (int role = 0; role < HT_N_ROLES; role++) {
        const bool down = role == HT_ROLE_DOWN;
        if (b->shape.type[role] == HT_PACKED_NONE)
            continue;
        ht_pack_tensor *t = &r->p->tensors[r->p->n_tensors++];
        *t = (ht_pack_tensor){ .block = b, .role = (ht_role)role, .type = b->shape.type[role], .n_dims = kind->n_dims,
                               .ne = { down ? b->shape.n_ff : b->shape.d_model, down ? b->shape.d_model : b->shape.n_ff,
                                       b->n_expert, 1 } };
        snprintf(t->name, sizeof t->name, "blk.%u.ffn_%s%s.weight", b->layer, roles[role], kind->plain);
        t->row_bytes = ht_type_row_bytes(ht_type_get(t->type), t->ne[0]);
        t->bytes = t->row_bytes * t->ne[1] * t->ne[2];
        if (ht_gguf_find_tensor(r->g, t->name))
            return nonsense(r, "a tensor is there packed and plain");
    }
    return HT_OK;
}

static ht_status read_block(const reader *r, uint32_t i, ht_str name, uint32_t width)
{
    static const char *const types[HT_N_ROLES] = { "hearth.pack.gate_type", "hearth.pack.up_type",
                                                   "hearth.pack.down_type" };
    ht_pack_block *b = &r->p->blocks[i];
    const struct kind *kind = parse_name(name, &b->layer);
    uint32_t type[HT_N_ROLES];
    char text[64];
    int64_t v;

    if (!kind)
        return nonsense(r, "hearth.pack.blocks has a name of no block");
    snprintf(text, sizeof text, "%.*s", (int)name.n, name.s);
    for (int role = 0; role < HT_N_ROLES; role++) {
        if (!number(r, types[role], i, role == HT_ROLE_GATE ? -1 : 0, INT32_MAX, &v))
            return nonsense(r, types[role]);
        type[role] = v < 0 ? HT_PACKED_NONE : (uint32_t)v;
    }
    if (!number(r, "hearth.pack.n_expert", i, 1, kind->n_dims == 3 ? MOST_EXPERTS : 1, &v))
        return nonsense(r, "hearth.pack.n_expert");
    b->n_expert = (uint32_t)v;
    if (!number(r, "hearth.pack.n_ff", i, 1, MOST_DIM, &v) || !ht_packed_shape(&b->shape, type, (uint32_t)v, width))
        return nonsense(r, "types and shapes of a block");
    b->tensor = ht_gguf_find_tensor(r->g, text);
    const ht_tensor *t = b->tensor;
    if (!t || t->type != TYPE_I8 || t->ne[0] != b->shape.bytes || t->ne[1] != 1 || t->ne[2] != b->n_expert ||
        t->ne[3] != 1 || !t->data || (uintptr_t)t->data % 64)
        return nonsense(r, text);
    ht_status st = read_order(r, b);
    return st == HT_OK ? add_tensors(r, b, kind) : st;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const ht_pack_tensor *)a)->name, ((const ht_pack_tensor *)b)->name);
}

static ht_status read_all(const reader *r, const ht_kv *names)
{
    uint32_t width = 0;
    ht_status st;

    r->p->quality = -1.0f;
    if ((st = ht_gguf_u32(r->g, "hearth.pack.width", &width, r->err)) ||
        (st = ht_gguf_f32(r->g, "hearth.pack.quality", &r->p->quality, r->err)))
        return st;
    if (width == 0 || width > MOST_DIM || !isfinite(r->p->quality))
        return nonsense(r, "hearth.pack.width or hearth.pack.quality");
    r->p->n_blocks = (uint32_t)names->n;
    r->p->blocks = calloc(r->p->n_blocks, sizeof *r->p->blocks);
    r->p->tensors = calloc((size_t)HT_N_ROLES * r->p->n_blocks, sizeof *r->p->tensors);
    ht_str *text = calloc(r->p->n_blocks, sizeof *text);
    r->p->bytes = r->p->n_blocks * (sizeof *r->p->blocks + HT_N_ROLES * sizeof *r->p->tensors);
    if (!r->p->blocks || !r->p->tensors || !text) {
        free(text);
        ht_fail(r->err, HT_ENOMEM, "tables of a packed model");
        return HT_ENOMEM;
    }
    ht_kv_strings(names, text);
    for (uint32_t i = 0; i < r->p->n_blocks && st == HT_OK; i++)
        st = read_block(r, i, text[i], width);
    free(text);
    if (st != HT_OK)
        return st;
    qsort(r->p->tensors, r->p->n_tensors, sizeof *r->p->tensors, by_name);
    for (uint32_t i = 1; i < r->p->n_tensors; i++)
        if (by_name(&r->p->tensors[i - 1], &r->p->tensors[i]) == 0)
            return nonsense(r, "a block is there twice");
    return HT_OK;
}

ht_status ht_pack_open(ht_pack **out, const ht_gguf *g, ht_error *err)
{
    reader r = { .g = g, .err = err };
    uint32_t version = 0;
    ht_status st;

    *out = NULL;
    if (!ht_gguf_find(g, "hearth.pack.version"))
        return HT_OK;
    if ((st = ht_gguf_u32(g, "hearth.pack.version", &version, err)) != HT_OK)
        return st;
    if (version != HT_PACK_VERSION)
        return ht_fail(err, HT_EUNSUPPORTED,
                       "%s: packed models of version %u are unknown here; this program reads version %d",
                       ht_gguf_path(g, 0), version, HT_PACK_VERSION);
    const ht_kv *names = ht_gguf_find(g, "hearth.pack.blocks");
    if (!names || names->type != HT_KV_ARRAY || names->elem != HT_KV_STRING || names->n == 0 ||
        names->n > ht_gguf_n_tensors(g))
        return nonsense(&r, "hearth.pack.blocks");
    r.p = calloc(1, sizeof *r.p);
    st = r.p ? read_all(&r, names) : ht_fail(err, HT_ENOMEM, "tables of a packed model");
    if (st != HT_OK) {
        ht_pack_close(&r.p);
        return st;
    }
    *out = r.p;
    return HT_OK;
}

void ht_pack_close(ht_pack **pp)
{
    ht_pack *p = pp ? *pp : NULL;

    if (!p)
        return;
    for (uint32_t i = 0; p->blocks && i < p->n_blocks; i++)
        free(p->blocks[i].order);
    free(p->blocks);
    free(p->tensors);
    free(p);
    *pp = NULL;
}

const ht_pack_tensor *ht_pack_find(const ht_pack *p, const char *name)
{
    ht_pack_tensor key = { .n_dims = 0 };
    const size_t n = strlen(name);

    if (!p || n >= sizeof key.name)
        return NULL;
    memcpy(key.name, name, n + 1);
    return bsearch(&key, p->tensors, p->n_tensors, sizeof *p->tensors, by_name);
}

ht_part ht_pack_part(const ht_pack_tensor *t, uint32_t expert)
{
    const ht_pack_block *b = t->block;
    return ht_packed_part(&b->shape, t->role, (const uint8_t *)b->tensor->data + expert * b->shape.bytes,
                          b->order + (size_t)expert * (b->shape.n_ff / 32));
}

/* Outputs [first, first + n) of an expert's down projection: in place where they are whole tiles, else by a copy. */
static ht_status read_outputs(const ht_pack_tensor *t, const ht_part *p, uint32_t first, uint32_t n, uint8_t *dst,
                              ht_error *err)
{
    const uint32_t head = first % HT_NEURONS_TILE, tile = HT_NEURONS_TILE;
    ht_neurons g;

    if (!ht_neurons_of(&g, p))
        return ht_fail(err, HT_EFORMAT, "tensor %s cannot be read", t->name);
    if (head == 0) {
        ht_neurons_to_rows(&g, p->host, first, n, dst, t->row_bytes);
        return HT_OK;
    }
    uint8_t *rows = malloc(tile * t->row_bytes);
    if (!rows)
        return ht_fail(err, HT_ENOMEM, "rows of %s", t->name);
    const uint32_t base = first - head, now = n < tile - head ? n : tile - head;
    ht_neurons_to_rows(&g, p->host, base, head + now, rows, t->row_bytes);
    memcpy(dst, rows + head * t->row_bytes, now * t->row_bytes);
    free(rows);
    return now < n ? read_outputs(t, p, first + now, n - now, dst + now * t->row_bytes, err) : HT_OK;
}

ht_status ht_pack_read(const ht_pack_tensor *t, uint64_t first, uint64_t n, void *dst, ht_error *err)
{
    uint8_t *to = dst;
    ht_status st = HT_OK;

    for (uint64_t done = 0; done < n && st == HT_OK;) {
        const uint32_t expert = (uint32_t)((first + done) / t->ne[1]), row = (uint32_t)((first + done) % t->ne[1]);
        const uint32_t now = n - done < t->ne[1] - row ? (uint32_t)(n - done) : (uint32_t)t->ne[1] - row;
        const ht_part p = ht_pack_part(t, expert);
        if (t->role == HT_ROLE_DOWN)
            st = read_outputs(t, &p, row, now, to, err);
        for (uint32_t i = 0; t->role != HT_ROLE_DOWN && i < now; i++)
            memcpy(to + i * t->row_bytes, ht_part_row(&p, row + i), t->row_bytes);
        to += now * t->row_bytes;
        done += now;
    }
    return st;
}
