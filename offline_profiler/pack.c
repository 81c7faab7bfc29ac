/* SPDX-License-Identifier: MIT
 *
 * Packed models: writing one from a plain file and a profile, and the way back (docs/pack.md; how an expert lies:
 * engine/base/packed.h). Everything streams: of the model one group of neurons and the scales of one expert are in memory
 * beside the mapped file. Owner: everything ends with the call. Threads: one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/hash.h"
#include "engine/base/packed.h"
#include "offline_profiler/profile.h"

enum { VERSION = 1, N_KINDS = 3, HASH_BYTES = 4 << 20 };
#define KEY(name) "hearth.pack." name

/* What is told of the source: its tensors' names and bytes, their order aside. */
typedef struct sum { uint64_t h[2]; } sum;

typedef struct block {
    char name[64]; /* of its tensor */
    int64_t matrix[HT_N_ROLES]; /* tensors of the source, -1: none */
    ht_packed shape;
    uint32_t n_expert, n_dims;
    uint32_t *order; /* [n_expert][n_ff/32] */
} block;

typedef struct packer {
    const hearth_profile *p;
    hearth_file *f;
    const char *path;
    hearth_writer *w;
    block *blocks;
    uint32_t n_blocks, width;
    int32_t *block_of; /* [tensors of the source] -1: it stays as it is */
    uint8_t *form, *bundles, *planes; /* a group neuron-major, its bundles, an expert's scales */
    uint64_t done, total;
    hearth_progress_fn *progress;
    void *user;
    hearth_error *err;
} packer;

static hearth_status fail(const packer *k, ht_status st, const char *what)
{
    return (hearth_status)ht_fail(ht_profile_err(k->err), st, "%s: %s", k->path, what);
}

static hearth_status step(packer *k, const char *what, uint64_t bytes)
{
    k->done += bytes;
    return k->progress && !k->progress(k->user, what, k->done, k->total) ? fail(k, HT_ECANCELLED, "cancelled") : HEARTH_OK;
}

static void sum_add(sum *s, ht_hash *one)
{
    uint64_t h[2];
    ht_hash_end(one, h);
    s->h[0] += h[0];
    s->h[1] += h[1];
}

static void sum_begin(ht_hash *one, const char *name)
{
    ht_hash_begin(one, 3);
    ht_hash_add(one, name, strlen(name) + 1);
}

static const char *sum_text(const sum *s, char text[33])
{
    snprintf(text, 33, "%016llx%016llx", (unsigned long long)s->h[0], (unsigned long long)s->h[1]);
    return text;
}

/* ---- Which blocks ---- */

/* A matrix of the source, of n_dims dimensions; -1: it is not there, or of a kind that stays as it is. */
static int64_t find_matrix(const packer *k, uint32_t layer, const char *role, const char *ending, uint32_t n_dims,
                           hearth_tensor *t, uint32_t *type)
{
    char name[64];

    snprintf(name, sizeof name, "blk.%u.ffn_%s%s.weight", layer, role, ending);
    const int64_t i = hearth_file_find_tensor(k->f, name);
    if (i < 0 || hearth_file_tensor(k->f, (uint64_t)i, t) != HEARTH_OK || !t->readable)
        return -1;
    const int known = ht_type_by_name(t->type);
    *type = known < 0 ? HT_PACKED_NONE : (uint32_t)known;
    return known >= 0 && t->n_dims == n_dims && t->ne[0] <= UINT32_MAX && t->ne[1] <= UINT32_MAX && t->ne[2] <= 4096 ? i : -1;
}

/* Block `kind` of a layer; false: there is none that could be packed. */
static bool find_block(const packer *k, uint32_t layer, uint32_t kind, block *b)
{
    static const char *const packed[N_KINDS] = { "ffn", "ffn_exps", "ffn_shexp" };
    static const char *const ending[N_KINDS] = { "", "_exps", "_shexp" };
    hearth_tensor gate = { 0 }, up = { 0 }, down = { 0 };
    uint32_t type[HT_N_ROLES] = { HT_PACKED_NONE };
    char name[64];

    memset(b, 0, sizeof *b);
    b->n_dims = kind == 1 ? 3 : 2;
    b->matrix[HT_ROLE_GATE] = find_matrix(k, layer, "gate", ending[kind], b->n_dims, &gate, &type[HT_ROLE_GATE]);
    b->matrix[HT_ROLE_UP] = find_matrix(k, layer, "up", ending[kind], b->n_dims, &up, &type[HT_ROLE_UP]);
    b->matrix[HT_ROLE_DOWN] = find_matrix(k, layer, "down", ending[kind], b->n_dims, &down, &type[HT_ROLE_DOWN]);
    snprintf(name, sizeof name, "blk.%u.ffn_gate%s.weight", layer, ending[kind]);
    const bool gated = b->matrix[HT_ROLE_GATE] >= 0;
    if (b->matrix[HT_ROLE_UP] < 0 || b->matrix[HT_ROLE_DOWN] < 0 || (!gated && hearth_file_find_tensor(k->f, name) >= 0))
        return false;
    if (!gated)
        type[HT_ROLE_GATE] = HT_PACKED_NONE;
    /* Gate and up in one matrix do not fit this shape, and stay. */
    if (up.ne[0] != down.ne[1] || up.ne[1] != down.ne[0] || up.ne[2] != down.ne[2] ||
        (gated && memcmp(gate.ne, up.ne, sizeof up.ne) != 0) || (k->width && up.ne[0] != k->width) ||
        !ht_packed_shape(&b->shape, type, (uint32_t)up.ne[1], (uint32_t)up.ne[0]))
        return false;
    b->n_expert = (uint32_t)up.ne[2];
    snprintf(b->name, sizeof b->name, "hearth.blk.%u.%s", layer, packed[kind]);
    return true;
}

typedef struct heat { float v; uint32_t group; } heat;

static int hot_first(const void *pa, const void *pb)
{
    const heat *a = pa, *b = pb;
    return a->v != b->v ? (a->v < b->v ? 1 : -1) : a->group < b->group ? -1 : a->group > b->group;
}

/* Groups of every expert by how often their neurons fire; in order where the profile does not know. */
static hearth_status order_block(const packer *k, const hearth_profile_layer *l, bool shared, block *b)
{
    const uint32_t n_ff = b->shape.n_ff, group = b->shape.group, n = n_ff / group, at_once = group / 32;
    const float *all = shared ? l->shared_frequency : l->frequency;
    const bool known = all && (shared ? l->shared_n_ff == n_ff && b->n_expert == 1
                                      : l->n_ff == n_ff && l->n_expert == b->n_expert);
    heat *h = malloc(n * sizeof *h);

    b->order = malloc((size_t)b->n_expert * (n_ff / 32) * sizeof *b->order);
    if (!h || !b->order) {
        free(h);
        return fail(k, HT_ENOMEM, "out of memory");
    }
    for (uint32_t e = 0; e < b->n_expert; e++) {
        for (uint32_t i = 0; i < n; i++) {
            h[i] = (heat){ 0.0f, i };
            for (uint32_t j = 0; known && j < group; j++)
                h[i].v += all[(size_t)e * n_ff + i * group + j];
        }
        qsort(h, n, sizeof *h, hot_first);
        for (uint32_t place = 0; place < n; place++)
            for (uint32_t j = 0; j < at_once; j++)
                b->order[(size_t)e * (n_ff / 32) + h[place].group * at_once + j] = place * at_once + j;
    }
    free(h);
    return HEARTH_OK;
}

static hearth_status plan(packer *k)
{
    const uint64_t n = hearth_file_n_tensors(k->f);
    size_t form = 0, bundles = 0, planes = 0;
    hearth_status st = HEARTH_OK;

    k->block_of = malloc((n + 1) * sizeof *k->block_of);
    k->blocks = calloc((size_t)N_KINDS * k->p->n_layer, sizeof *k->blocks);
    if (!k->block_of || !k->blocks)
        return fail(k, HT_ENOMEM, "out of memory");
    for (uint64_t i = 0; i < n; i++)
        k->block_of[i] = -1;
    for (uint32_t i = 0; i < N_KINDS * k->p->n_layer && st == HEARTH_OK; i++) {
        block *b = &k->blocks[k->n_blocks];
        ht_neurons g;
        if (!find_block(k, i / N_KINDS, i % N_KINDS, b))
            continue;
        k->width = b->shape.d_model;
        for (int r = 0; r < HT_N_ROLES; r++)
            if (b->matrix[r] >= 0)
                k->block_of[b->matrix[r]] = (int32_t)k->n_blocks;
        k->n_blocks++;
        st = order_block(k, &k->p->layers[i / N_KINDS], i % N_KINDS == 2, b);
        ht_neurons_shape(&g, (ht_type)b->shape.type[HT_ROLE_DOWN], b->shape.group, b->shape.d_model);
        form = g.bytes > form ? g.bytes : form;
        bundles = b->shape.group * b->shape.stride > bundles ? b->shape.group * b->shape.stride : bundles;
        planes = b->shape.down.rows_at > planes ? b->shape.down.rows_at : planes;
    }
    if (st != HEARTH_OK)
        return st;
    if (k->n_blocks == 0)
        return fail(k, HT_EUNSUPPORTED,
                    "no feed-forward block can be packed: their down projections have types without a neuron-major form, or "
                    "they are not stored as matrices of their own");
    k->form = aligned_alloc(64, (form + 63) / 64 * 64);
    k->bundles = malloc(bundles + 1);
    k->planes = malloc(planes + 1);
    return k->form && k->bundles && k->planes ? HEARTH_OK : fail(k, HT_ENOMEM, "out of memory");
}

/* ---- Keys and declarations ---- */

static void set_numbers(packer *k, const char *key, int32_t *v, int role, size_t offset)
{
    for (uint32_t i = 0; i < k->n_blocks; i++) {
        uint32_t x;
        memcpy(&x, (const char *)&k->blocks[i] + offset, sizeof x);
        v[i] = role >= 0 ? (int32_t)k->blocks[i].shape.type[role] : (int32_t)x; /* no gate: -1 */
    }
    hearth_writer_set_i32s(k->w, key, v, k->n_blocks);
}

static bool add_element(void *user, const char *text, size_t n)
{
    ht_hash_add(user, &n, sizeof n);
    ht_hash_add(user, text, n);
    return true;
}

/* A key's value, every byte of it: strings as they are, numbers as doubles (and those that a double cannot hold as text). */
static hearth_status add_value(const packer *k, uint64_t i, uint64_t n, ht_hash *one)
{
    enum { AT_ONCE = 512 };
    double v[AT_ONCE];
    char *text = NULL;
    size_t bytes = 0;
    hearth_status st;

    for (uint64_t first = 0; first < n; first += AT_ONCE) {
        const uint64_t now = n - first < AT_ONCE ? n - first : AT_ONCE;
        if (hearth_file_meta_numbers(k->f, i, first, now, v) != HEARTH_OK)
            break; /* no numbers */
        ht_hash_add(one, v, now * sizeof *v);
    }
    if ((st = hearth_file_meta_each(k->f, i, add_element, one)) != HEARTH_EINVAL)
        return st;
    if ((st = hearth_file_meta_text(k->f, i, 1, &text, &bytes)) == HEARTH_OK)
        add_element(one, text, bytes);
    hearth_free(text);
    return st;
}

/* The sum over the source's keys: of the source, and of what a packed file has besides its own. */
static hearth_status sum_keys(packer *k, uint32_t align, sum *all)
{
    ht_hash one;
    hearth_status st = HEARTH_OK;

    for (uint64_t i = 0; i < hearth_file_n_meta(k->f) && st == HEARTH_OK; i++) {
        hearth_meta m;
        hearth_file_meta(k->f, i, &m);
        if (!strncmp(m.key, KEY(""), strlen(KEY(""))) || !strncmp(m.key, "hearth.profile.", 15) ||
            !strcmp(m.key, "general.alignment"))
            continue;
        sum_begin(&one, m.key);
        ht_hash_add(&one, m.type, strlen(m.type) + 1);
        ht_hash_add(&one, &m.n, sizeof m.n);
        if ((st = add_value(k, i, m.n, &one)) == HEARTH_OK)
            sum_add(all, &one);
    }
    sum_begin(&one, "general.alignment"); /* a packed file has its own, and keeps the source's elsewhere */
    ht_hash_add(&one, &align, sizeof align);
    sum_add(all, &one);
    return st == HEARTH_OK ? st : fail(k, HT_ENOMEM, "out of memory");
}

/* What leads back: names of the source's tensors in their order, its alignment, the sum of its bytes. */
static hearth_status source_keys(packer *k)
{
    const uint64_t n = hearth_file_n_tensors(k->f);
    const int64_t at = hearth_file_find_meta(k->f, "general.alignment");
    const char **names = calloc(n + 1, sizeof *names);
    uint32_t align = 64;
    double own = 0;
    char text[33];
    sum all = { { 0, 0 } }, keys = { { 0, 0 } };
    hearth_status st = HEARTH_OK;

    if (!names) {
        fail(k, HT_ENOMEM, "out of memory");
        return HEARTH_ENOMEM;
    }
    for (uint64_t i = 0; i < n && st == HEARTH_OK; i++) {
        hearth_tensor t;
        ht_hash one;
        hearth_file_tensor(k->f, i, &t);
        const uint8_t *bytes = hearth_file_data(k->f, i);
        names[i] = t.name;
        sum_begin(&one, t.name);
        for (uint64_t done = 0; done < t.bytes && bytes && st == HEARTH_OK; done += HASH_BYTES) {
            const uint64_t now = t.bytes - done < HASH_BYTES ? t.bytes - done : HASH_BYTES;
            ht_hash_add(&one, bytes + done, (size_t)now);
            st = step(k, "packing", now);
        }
        sum_add(&all, &one);
    }
    if (st == HEARTH_OK)
        st = hearth_writer_set_strs(k->w, KEY("source_order"), names, n);
    free((void *)names);
    if (at >= 0)
        hearth_file_meta_numbers(k->f, (uint64_t)at, 0, 1, &own);
    for (uint32_t i = 0; i < k->n_blocks; i++)
        align = ht_packed_align(&k->blocks[i].shape) > align ? ht_packed_align(&k->blocks[i].shape) : align;
    hearth_writer_set_u32(k->w, KEY("source_alignment"), (uint32_t)own);
    hearth_writer_set_str(k->w, KEY("source_hash"), sum_text(&all, text));
    if (st == HEARTH_OK)
        st = sum_keys(k, (uint32_t)own, &keys);
    hearth_writer_set_str(k->w, KEY("source_keys_hash"), sum_text(&keys, text));
    hearth_writer_set_u32(k->w, "general.alignment", align);
    return st;
}

static hearth_status set_keys(packer *k, const hearth_profile *inside, double quality)
{
    const char **names = calloc(k->n_blocks + 1, sizeof *names);
    int32_t *v = calloc(k->n_blocks + 1, sizeof *v);
    hearth_status st;

    if (!names || !v) {
        free((void *)names);
        free(v);
        fail(k, HT_ENOMEM, "out of memory");
        return HEARTH_ENOMEM;
    }
    if ((st = hearth_writer_copy(k->w, k->f, NULL, 0)) == HEARTH_OK) {
        hearth_writer_set_u32(k->w, KEY("version"), VERSION);
        hearth_writer_set_str(k->w, KEY("model"), k->p->model);
        if (quality >= 0)
            hearth_writer_set_f32(k->w, KEY("quality"), (float)quality);
        for (uint32_t i = 0; i < k->n_blocks; i++)
            names[i] = k->blocks[i].name;
        hearth_writer_set_strs(k->w, KEY("blocks"), names, k->n_blocks);
        set_numbers(k, KEY("gate_type"), v, HT_ROLE_GATE, 0);
        set_numbers(k, KEY("up_type"), v, HT_ROLE_UP, 0);
        set_numbers(k, KEY("down_type"), v, HT_ROLE_DOWN, 0);
        set_numbers(k, KEY("n_ff"), v, -1, offsetof(block, shape.n_ff));
        set_numbers(k, KEY("n_expert"), v, -1, offsetof(block, n_expert));
        hearth_writer_set_u32(k->w, KEY("width"), k->width);
        if ((st = source_keys(k)) == HEARTH_OK)
            st = ht_profile_write_keys(k->w, inside, k->err);
    }
    free((void *)names);
    free(v);
    return st;
}

/* Tensors in the order of the source, a block where its first matrix was. */
static hearth_status each_tensor(packer *k, hearth_status (*plain)(packer *, uint64_t),
                                 hearth_status (*packed)(packer *, block *))
{
    const uint64_t n = hearth_file_n_tensors(k->f);
    hearth_status st = HEARTH_OK;

    for (uint64_t i = 0; i < n && st == HEARTH_OK; i++) {
        const int32_t of = k->block_of[i];
        bool first = true;
        if (of < 0) {
            st = plain(k, i);
            continue;
        }
        for (int r = 0; r < HT_N_ROLES; r++)
            first &= k->blocks[of].matrix[r] < 0 || (uint64_t)k->blocks[of].matrix[r] >= i;
        if (first)
            st = packed(k, &k->blocks[of]);
    }
    return st;
}

static hearth_status declare_plain(packer *k, uint64_t i)
{
    return hearth_writer_declare_like(k->w, k->f, i, k->err);
}

static hearth_status declare_block(packer *k, block *b)
{
    const uint64_t ne[3] = { b->shape.bytes, 1, b->n_expert }, groups[2] = { b->shape.n_ff / 32, b->n_expert };
    char name[80];

    snprintf(name, sizeof name, "%s.order", b->name);
    hearth_status st = hearth_writer_declare(k->w, b->name, "i8", 3, ne, k->err);
    return st == HEARTH_OK ? hearth_writer_declare(k->w, name, "i32", 2, groups, k->err) : st;
}

/* ---- Data ---- */

static hearth_status write_plain(packer *k, uint64_t i)
{
    hearth_tensor t;
    hearth_status st = HEARTH_OK;

    hearth_file_tensor(k->f, i, &t);
    const uint8_t *bytes = hearth_file_data(k->f, i);
    for (uint64_t done = 0; done < t.bytes && st == HEARTH_OK; done += HASH_BYTES) {
        const uint64_t now = t.bytes - done < HASH_BYTES ? t.bytes - done : HASH_BYTES;
        if ((st = hearth_writer_raw(k->w, bytes + done, (size_t)now, k->err)) == HEARTH_OK)
            st = step(k, "packing", now);
    }
    return st;
}

static hearth_status write_zeros(packer *k, size_t n)
{
    static const uint8_t zeros[HT_PACKED_PAGE];
    return n ? hearth_writer_raw(k->w, zeros, n, k->err) : HEARTH_OK; /* never more than a page */
}

/* Group u of an expert's down projection, neuron-major, into k->form. */
static hearth_status form_group(packer *k, const block *b, const uint8_t *down, uint32_t u, ht_neurons *g)
{
    const ht_type_info *t = ht_type_get(b->shape.type[HT_ROLE_DOWN]);
    const size_t row = ht_type_row_bytes(t, b->shape.n_ff);

    ht_neurons_shape(g, (ht_type)b->shape.type[HT_ROLE_DOWN], b->shape.group, b->shape.d_model);
    if (!ht_neurons_from_rows(g, down + ht_type_row_bytes(t, u * b->shape.group), row, 0, b->shape.d_model, k->form))
        return fail(k, HT_EUNSUPPORTED, "a down projection holds a weight that is no finite number: leaving out what is "
                                        "multiplied by zero would change results");
    return HEARTH_OK;
}

static hearth_status write_scales(packer *k, const block *b, const uint8_t *down, const uint32_t *source)
{
    const uint32_t group = b->shape.group, n = b->shape.n_ff / group;
    const ht_neurons *all = &b->shape.down;
    hearth_status st = HEARTH_OK;
    ht_neurons g;

    if (all->rows_at == 0)
        return HEARTH_OK;
    memset(k->planes, 0, all->rows_at);
    for (uint32_t u = 0; u < n && st == HEARTH_OK; u++) {
        if ((st = form_group(k, b, down, source[u], &g)) != HEARTH_OK)
            break;
        memcpy(k->planes + all->d_at + u * g.d_stride, k->form + g.d_at, g.d_stride); /* a group is one block */
        if (g.sc_stride)
            memcpy(k->planes + all->sc_at + (size_t)u * (group / 32) * g.sc_stride, k->form + g.sc_at,
                   group / 32 * g.sc_stride);
    }
    return st == HEARTH_OK ? hearth_writer_raw(k->w, k->planes, all->rows_at, k->err) : st;
}

static hearth_status write_bundles(packer *k, const block *b, const uint8_t *up, const uint8_t *down,
                                   const uint32_t *source)
{
    const ht_packed *s = &b->shape;
    hearth_status st = HEARTH_OK;
    ht_neurons g;

    for (uint32_t u = 0; u < s->n_ff / s->group && st == HEARTH_OK; u++) {
        if ((st = form_group(k, b, down, source[u], &g)) != HEARTH_OK)
            break;
        memset(k->bundles, 0, s->group * s->stride);
        for (uint32_t j = 0; j < s->group; j++) {
            uint8_t *to = k->bundles + j * s->stride;
            memcpy(to, up + ((size_t)source[u] * s->group + j) * s->up_row, s->up_row);
            memcpy(to + s->down_at, k->form + g.rows_at + j * g.stride, g.row_bytes);
        }
        st = hearth_writer_raw(k->w, k->bundles, s->group * s->stride, k->err);
    }
    return st;
}

static hearth_status write_expert(packer *k, const block *b, uint32_t e)
{
    const ht_packed *s = &b->shape;
    const uint32_t n = s->n_ff / s->group, at_once = s->group / 32, *order = b->order + (size_t)e * (s->n_ff / 32);
    const size_t down_row = ht_type_row_bytes(ht_type_get(s->type[HT_ROLE_DOWN]), s->n_ff);
    const uint8_t *matrix[HT_N_ROLES];
    hearth_status st = HEARTH_OK;

    for (int r = 0; r < HT_N_ROLES; r++)
        matrix[r] = b->matrix[r] < 0 ? NULL : hearth_file_data(k->f, (uint64_t)b->matrix[r]);
    uint32_t *source = calloc(n + 1, sizeof *source); /* of the group at each place */
    if (!source)
        return fail(k, HT_ENOMEM, "out of memory");
    for (uint32_t u = 0; u < n; u++)
        source[order[u * at_once] / at_once] = u;
    const size_t piece = s->group * s->gate_row;
    for (uint32_t u = 0; u < n && matrix[HT_ROLE_GATE] && st == HEARTH_OK; u++)
        st = hearth_writer_raw(k->w, matrix[HT_ROLE_GATE] + ((size_t)e * n + source[u]) * piece, piece, k->err);
    if (st == HEARTH_OK)
        st = write_zeros(k, s->scales_at - s->n_ff * s->gate_row);
    const uint8_t *up = matrix[HT_ROLE_UP] + (size_t)e * s->n_ff * s->up_row;
    const uint8_t *down = matrix[HT_ROLE_DOWN] + (size_t)e * s->d_model * down_row;
    if (st == HEARTH_OK && (st = write_scales(k, b, down, source)) == HEARTH_OK &&
        (st = write_bundles(k, b, up, down, source)) == HEARTH_OK)
        st = write_zeros(k, s->bytes - s->bundles_at - s->n_ff * s->stride);
    free(source);
    return st == HEARTH_OK ? step(k, "packing", s->n_ff * (s->gate_row + s->up_row) + s->d_model * down_row) : st;
}

static hearth_status write_block(packer *k, block *b)
{
    hearth_status st = HEARTH_OK;

    for (uint32_t e = 0; e < b->n_expert && st == HEARTH_OK; e++)
        st = write_expert(k, b, e);
    return st == HEARTH_OK ? hearth_writer_raw(k->w, b->order, (size_t)b->n_expert * (b->shape.n_ff / 32) * sizeof *b->order,
                                               k->err)
                           : st;
}

/* ---- Packing ---- */

/* A source must hold nothing of what is added. */
static hearth_status check_source(packer *k)
{
    if (hearth_file_powerinfer(k->f)) /* the container's name tells the activation, and is lost */
        return fail(k, HT_EUNSUPPORTED, "PowerInfer's files cannot be packed in this version");
    for (uint64_t i = 0; i < hearth_file_n_tensors(k->f); i++) {
        hearth_tensor t;
        hearth_file_tensor(k->f, i, &t);
        if (!strncmp(t.name, "hearth.", 7))
            return fail(k, HT_EINVAL, "the file holds tensors of hearth's already: it is packed, or no plain model");
        k->total += 2 * t.bytes;
    }
    for (uint64_t i = 0; i < hearth_file_n_meta(k->f); i++) {
        hearth_meta m;
        hearth_file_meta(k->f, i, &m);
        if (!strncmp(m.key, KEY(""), 12) || !strncmp(m.key, "hearth.profile.", 15))
            return fail(k, HT_EINVAL, "the file is packed already, or a profile");
    }
    return HEARTH_OK;
}

/* The profile as it goes into the file: without predictors where none may be used. */
static hearth_profile_layer *bare_layers(const hearth_profile *p)
{
    hearth_profile_layer *l = malloc(p->n_layer * sizeof *l);

    if (l)
        memcpy(l, p->layers, p->n_layer * sizeof *l);
    for (uint32_t i = 0; l && i < p->n_layer; i++) {
        l[i].method = NULL;
        l[i].threshold = l[i].low_a = l[i].low_b = l[i].gate_threshold = l[i].hidden_threshold = NULL;
        l[i].recall = l[i].precision = l[i].predicted_density = -1;
    }
    return l;
}

static hearth_status pack(packer *k, const hearth_profile *inside, double quality, const char *out)
{
    hearth_status st;

    if ((st = check_source(k)) != HEARTH_OK || (st = plan(k)) != HEARTH_OK ||
        (st = hearth_writer_open(&k->w, out, k->err)) != HEARTH_OK)
        return st;
    if ((st = set_keys(k, inside, quality)) == HEARTH_OK &&
        (st = each_tensor(k, declare_plain, declare_block)) == HEARTH_OK &&
        (st = ht_profile_write_layers(k->w, inside, false, k->err)) == HEARTH_OK &&
        (st = each_tensor(k, write_plain, write_block)) == HEARTH_OK &&
        (st = ht_profile_write_layers(k->w, inside, true, k->err)) == HEARTH_OK)
        return hearth_writer_close(&k->w, k->err);
    hearth_writer_abort(&k->w);
    return st;
}

static void free_packer(packer *k)
{
    for (uint32_t i = 0; i < k->n_blocks; i++)
        free(k->blocks[i].order);
    free(k->blocks);
    free(k->block_of);
    free(k->form);
    free(k->bundles);
    free(k->planes);
    hearth_file_close(&k->f);
}

hearth_status hearth_profile_pack(const hearth_profile *p, hearth_model *m, const char *path,
                                  const hearth_pack_params *params, const char *out, hearth_error *err)
{
    hearth_pack_params q;
    char model[33];
    hearth_status st = hearth_model_fingerprint(m, model, err);

    ht_profile_params(&q, sizeof q, params);
    packer k = { .p = p, .path = path, .progress = q.progress, .user = q.progress_user, .err = err };
    if (st != HEARTH_OK)
        return st;
    if (strcmp(model, p->model) != 0)
        return fail(&k, HT_EMISMATCH, "the profile is of another model");
    hearth_profile inside = *p;
    const bool predictors = q.quality > 0 && p->chosen < p->n_points;
    for (uint32_t i = 0; predictors && i < p->n_layer; i++)
        if (p->layers[i].method && strcmp(p->layers[i].method, "lowrank") == 0 && !p->layers[i].low_a)
            return fail(&k, HT_EINVAL, "matrices of low-rank predictors are not read back from a profile's file: pack it where it was "
                                       "trained");
    if (!predictors) {
        inside.n_points = inside.chosen = 0;
        if (!(inside.layers = bare_layers(p)))
            return fail(&k, HT_ENOMEM, "out of memory");
    }
    if ((st = hearth_file_open(&k.f, path, err)) == HEARTH_OK)
        st = pack(&k, &inside, predictors ? q.quality : -1, out);
    if (!predictors)
        free(inside.layers);
    free_packer(&k);
    return st;
}

hearth_status hearth_pack_check(const hearth_model *m, const char *path, hearth_error *err)
{
    hearth_model_info info = { .size = sizeof info };

    hearth_model_get_info(m, &info);
    hearth_profile *p = ht_profile_new(info.n_layer);
    packer k = { .p = p, .path = path, .err = err };
    if (!p)
        return fail(&k, HT_ENOMEM, "out of memory");
    hearth_status st = hearth_file_open(&k.f, path, err);
    if (st == HEARTH_OK && (st = check_source(&k)) == HEARTH_OK)
        st = plan(&k);
    free_packer(&k);
    hearth_profile_close(&p);
    return st;
}

/* ---- The way back ---- */

typedef struct name_list {
    int64_t *tensor;
    const hearth_file *f;
    uint64_t n, most;
} name_list;

static bool add_name(void *user, const char *text, size_t n)
{
    name_list *l = user;
    char name[4096];

    if (l->n == l->most || n >= sizeof name || memchr(text, 0, n) || (n >= 7 && !memcmp(text, "hearth.", 7)))
        return false;
    memcpy(name, text, n);
    name[n] = 0;
    l->tensor[l->n] = hearth_file_find_tensor(l->f, name);
    return l->tensor[l->n++] >= 0;
}

/* Every tensor of the plain file, in its order. */
static hearth_status source_order(packer *k, uint64_t n_packed, name_list *l)
{
    const int64_t at = hearth_file_find_meta(k->f, KEY("source_order"));

    l->f = k->f;
    l->most = n_packed;
    for (uint64_t i = 0; i < hearth_file_n_tensors(k->f); i++) {
        hearth_tensor t;
        hearth_file_tensor(k->f, i, &t);
        l->most += strncmp(t.name, "hearth.", 7) != 0;
    }
    l->tensor = calloc(l->most + 1, sizeof *l->tensor);
    if (!l->tensor)
        return fail(k, HT_ENOMEM, "out of memory");
    const hearth_status st = at < 0 ? HEARTH_EINVAL : hearth_file_meta_each(k->f, (uint64_t)at, add_name, l);
    if (st == HEARTH_ENOMEM)
        return fail(k, HT_ENOMEM, "out of memory");
    return st == HEARTH_OK && l->n == l->most
               ? HEARTH_OK
               : fail(k, HT_EFORMAT, "hearth.pack.source_order does not name the tensors that are there");
}

static hearth_status unpack_tensor(packer *k, uint64_t i, sum *all)
{
    hearth_tensor t;
    ht_hash one;
    hearth_status st = HEARTH_OK;

    hearth_file_tensor(k->f, i, &t);
    const uint8_t *bytes = hearth_file_data(k->f, i);
    const uint64_t rows = t.ne[1] * t.ne[2] * t.ne[3], row = rows && t.bytes / rows ? t.bytes / rows : 1;
    sum_begin(&one, t.name);
    if (!bytes && t.bytes && !(k->form = malloc(HT_NEURONS_TILE * row + 1)))
        return fail(k, HT_ENOMEM, "out of memory");
    for (uint64_t done = 0, now; done < t.bytes && st == HEARTH_OK; done += now) {
        const uint64_t most = bytes ? HASH_BYTES : HT_NEURONS_TILE * row;
        const uint8_t *from = bytes ? bytes + done : k->form;
        now = t.bytes - done < most ? t.bytes - done : most;
        if (!bytes && (st = hearth_file_read_raw(k->f, i, done / row, now / row, k->form, k->err)) != HEARTH_OK)
            break;
        ht_hash_add(&one, from, (size_t)now);
        if ((st = hearth_writer_raw(k->w, from, (size_t)now, k->err)) == HEARTH_OK)
            st = step(k, "unpacking", now);
    }
    sum_add(all, &one);
    free(k->form);
    k->form = NULL;
    return st;
}

/* Whether something is what was packed: its sum, which the file keeps under a key. */
static hearth_status check_sum(packer *k, const char *key, const sum *all)
{
    const int64_t at = hearth_file_find_meta(k->f, key);
    char text[33], *kept = NULL;
    size_t n = 0;

    const bool good = at >= 0 && hearth_file_meta_text(k->f, (uint64_t)at, 1, &kept, &n) == HEARTH_OK &&
                      !strcmp(kept, sum_text(all, text));
    hearth_free(kept);
    return good ? HEARTH_OK : fail(k, HT_EFORMAT, "the file is damaged: what it was packed from does not come out of it");
}

static hearth_status unpack(packer *k, const char *out)
{
    static const char *const added[] = { KEY(""), "hearth.profile.", "general.alignment" };
    const int64_t at = hearth_file_find_meta(k->f, KEY("source_alignment"));
    name_list l = { 0 };
    uint64_t n_packed;
    double align = 0;
    sum all = { { 0, 0 } }, keys = { { 0, 0 } };
    hearth_status st = hearth_file_packed(k->f, &n_packed, k->err);

    if (st != HEARTH_OK)
        return st;
    if (n_packed == 0)
        return fail(k, HT_EINVAL, "is no packed model");
    if (at < 0 || hearth_file_meta_numbers(k->f, (uint64_t)at, 0, 1, &align) != HEARTH_OK || !(align >= 0 && align <= INT32_MAX))
        return fail(k, HT_EFORMAT, "hearth.pack.source_alignment is no number");
    if ((st = sum_keys(k, (uint32_t)align, &keys)) != HEARTH_OK ||
        (st = check_sum(k, KEY("source_keys_hash"), &keys)) != HEARTH_OK)
        return st;
    if ((st = source_order(k, n_packed, &l)) != HEARTH_OK || (st = hearth_writer_open(&k->w, out, k->err)) != HEARTH_OK) {
        free(l.tensor);
        return st;
    }
    st = hearth_writer_copy(k->w, k->f, added, align > 0 ? 2 : 3);
    if (align > 0) /* in its old place */
        hearth_writer_set_u32(k->w, "general.alignment", (uint32_t)align);
    for (uint64_t i = 0; i < l.n && st == HEARTH_OK; i++) {
        hearth_tensor t;
        hearth_file_tensor(k->f, (uint64_t)l.tensor[i], &t);
        k->total += t.bytes;
        st = hearth_writer_declare_like(k->w, k->f, (uint64_t)l.tensor[i], k->err);
    }
    for (uint64_t i = 0; i < l.n && st == HEARTH_OK; i++)
        st = unpack_tensor(k, (uint64_t)l.tensor[i], &all);
    free(l.tensor);
    if (st == HEARTH_OK && (st = check_sum(k, KEY("source_hash"), &all)) == HEARTH_OK)
        return hearth_writer_close(&k->w, k->err);
    hearth_writer_abort(&k->w);
    return st;
}

hearth_status hearth_unpack(const char *path, const char *out, hearth_progress_fn *progress, void *user, hearth_error *err)
{
    packer k = { .path = path, .progress = progress, .user = user, .err = err };
    hearth_status st = hearth_file_open(&k.f, path, err);

    if (st == HEARTH_OK)
        st = unpack(&k, out);
    hearth_file_close(&k.f);
    return st;
}
