/* SPDX-License-Identifier: MIT
 * GGUF files as containers behind hearth.h: looking into them, and writing them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/hash.h"
#include "engine/gguf_write.h"
#include "engine/objects.h"
#include "engine/text.h"

enum { TYPE_I8 = 24, TYPE_I32 = 26 }; /* GGUF's ids */

struct hearth_file {
    ht_gguf *g;
    char **keys, **names; /* terminated copies */
    char (*types)[24];    /* of metadata */
    ht_pack *pack;        /* NULL: plain, or `fault` says why it cannot be read */
    ht_error fault;
};

static char *copy(ht_str s)
{
    char *p = malloc(s.n + 1);
    if (p) {
        memcpy(p, s.s, s.n);
        p[s.n] = 0;
    }
    return p;
}

static const char *kv_name(ht_kv_type t)
{
    static const char *const names[] = { "u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array",
                                         "u64", "i64", "f64" };
    return (unsigned)t < sizeof names / sizeof *names ? names[t] : "?";
}

hearth_status hearth_file_open(hearth_file **out, const char *path, hearth_error *error)
{
    ht_error *err = ht_err(error);
    *out = NULL;
    hearth_file *f = calloc(1, sizeof *f);
    if (!f)
        return (hearth_status)ht_fail(err, HT_ENOMEM, "file");
    ht_status st = ht_gguf_open(&f->g, path, err);
    if (st != HT_OK) {
        free(f);
        return (hearth_status)st;
    }
    uint64_t nk = ht_gguf_n_kv(f->g), nt = ht_gguf_n_tensors(f->g);
    f->keys = calloc(nk + 1, sizeof *f->keys);
    f->types = calloc(nk + 1, sizeof *f->types);
    f->names = calloc(nt + 1, sizeof *f->names);
    bool ok = f->keys && f->types && f->names;
    for (uint64_t i = 0; ok && i < nk; i++) {
        const ht_kv *kv = ht_gguf_kv_at(f->g, i);
        ok = (f->keys[i] = copy(kv->key)) != NULL;
        snprintf(f->types[i], sizeof f->types[i], kv->type == HT_KV_ARRAY ? "array of %s" : "%s",
                 kv_name(kv->type == HT_KV_ARRAY ? kv->elem : kv->type));
    }
    for (uint64_t i = 0; ok && i < nt; i++)
        ok = (f->names[i] = copy(ht_gguf_tensor_at(f->g, i)->name)) != NULL;
    if (!ok) {
        hearth_file_close(&f);
        return (hearth_status)ht_fail(err, HT_ENOMEM, "%s: names of %llu keys and %llu tensors", path,
                                      (unsigned long long)nk, (unsigned long long)nt);
    }
    if ((st = ht_pack_open(&f->pack, f->g, &f->fault)) == HT_ENOMEM) {
        hearth_file_close(&f);
        return (hearth_status)ht_fail(err, HT_ENOMEM, "%s: tables of a packed model", path);
    }
    f->fault.status = st; /* what else the file holds can be looked at all the same */
    *out = f;
    return HEARTH_OK;
}

void hearth_file_close(hearth_file **fp)
{
    hearth_file *f = fp ? *fp : NULL;
    if (!f)
        return;
    for (uint64_t i = 0; f->keys && f->keys[i]; i++)
        free(f->keys[i]);
    for (uint64_t i = 0; f->names && f->names[i]; i++)
        free(f->names[i]);
    free(f->keys);
    free(f->types);
    free(f->names);
    ht_pack_close(&f->pack);
    ht_gguf_close(&f->g);
    free(f);
    *fp = NULL;
}

uint32_t hearth_file_version(const hearth_file *f) { return ht_gguf_version(f->g); }
bool hearth_file_powerinfer(const hearth_file *f) { return ht_gguf_powerinfer(f->g); }
uint32_t hearth_file_parts(const hearth_file *f) { return ht_gguf_n_files(f->g); }

uint64_t hearth_file_bytes(const hearth_file *f)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < ht_gguf_n_files(f->g); i++)
        n += ht_gguf_file_bytes(f->g, i);
    return n;
}

uint64_t hearth_file_n_meta(const hearth_file *f) { return ht_gguf_n_kv(f->g); }

hearth_status hearth_file_meta(const hearth_file *f, uint64_t i, hearth_meta *out)
{
    if (i >= ht_gguf_n_kv(f->g))
        return HEARTH_EINVAL;
    *out = (hearth_meta){ f->keys[i], f->types[i], ht_gguf_kv_at(f->g, i)->n };
    return HEARTH_OK;
}

int64_t hearth_file_find_meta(const hearth_file *f, const char *key)
{
    const ht_kv *kv = ht_gguf_find(f->g, key);
    for (uint64_t i = 0; kv && i < ht_gguf_n_kv(f->g); i++)
        if (ht_gguf_kv_at(f->g, i) == kv)
            return (int64_t)i;
    return -1;
}

/* The shortest spelling that reads back as the same number, in the C locale whatever the process's is. */
static void put_float(ht_text *t, double v, bool f32)
{
    char buf[40];
    int n = 0;
    for (int digits = f32 ? 6 : 15; digits <= (f32 ? 9 : 17); digits++) {
        n = snprintf(buf, sizeof buf, "%.*g", digits, v);
        double back = strtod(buf, NULL); /* the same locale on both ways */
        if (f32 ? (float)back == (float)v : back == v)
            break;
    }
    for (int i = 0; i < n; i++)
        if (buf[i] == ',')
            buf[i] = '.';
    ht_text_put(t, buf, (size_t)n);
}

static void put_element(ht_text *t, const ht_kv *kv, ht_kv_type type, uint64_t i)
{
    char buf[32];
    int64_t v = 0;
    double d = 0.0;

    if (type == HT_KV_F32 || type == HT_KV_F64) {
        if (ht_kv_float(kv, i, &d))
            put_float(t, d, type == HT_KV_F32);
    } else if (ht_kv_int(kv, i, &v)) {
        if (type == HT_KV_BOOL)
            ht_text_put(t, v ? "true" : "false", v ? 4 : 5);
        else
            ht_text_put(t, buf, (size_t)snprintf(buf, sizeof buf, type == HT_KV_U64 ? "%llu" : "%lld", (long long)v));
    } else if (type == HT_KV_U64) { /* beyond int64 */
        uint64_t u;
        memcpy(&u, kv->data + i * 8, 8);
        ht_text_put(t, buf, (size_t)snprintf(buf, sizeof buf, "%llu", (unsigned long long)u));
    }
}

hearth_status hearth_file_meta_text(const hearth_file *f, uint64_t i, uint64_t max_elements, char **out, size_t *n)
{
    ht_text t = { 0 };
    ht_str s;

    if (i >= ht_gguf_n_kv(f->g))
        return HEARTH_EINVAL;
    const ht_kv *kv = ht_gguf_kv_at(f->g, i);
    ht_text_put(&t, "", 0);
    if (kv->type == HT_KV_STRING) {
        if (ht_kv_str(kv, &s))
            ht_text_put(&t, s.s, s.n);
    } else if (kv->type == HT_KV_ARRAY) {
        ht_str *all = NULL;
        if (kv->elem == HT_KV_STRING) {
            all = malloc((kv->n + 1) * sizeof *all);
            if (!all || !ht_kv_strings(kv, all))
                t.failed = true;
        }
        for (uint64_t e = 0; e < kv->n && !t.failed; e++) {
            if (e)
                ht_text_put(&t, ", ", 2);
            if (e == max_elements) {
                ht_text_put(&t, "\xe2\x80\xa6", 3);
                break;
            }
            if (all)
                ht_text_put(&t, all[e].s, all[e].n);
            else
                put_element(&t, kv, kv->elem, e);
        }
        free(all);
    } else {
        put_element(&t, kv, kv->type, 0);
    }
    if (t.failed) {
        free(t.s);
        return HEARTH_ENOMEM;
    }
    *out = t.s;
    *n = t.n;
    return HEARTH_OK;
}

hearth_status hearth_file_meta_each(const hearth_file *f, uint64_t i, hearth_meta_fn *element, void *user)
{
    ht_text t = { 0 };
    ht_str *all = NULL;
    hearth_status st = HEARTH_OK;

    if (i >= ht_gguf_n_kv(f->g) || ht_gguf_kv_at(f->g, i)->type != HT_KV_ARRAY)
        return HEARTH_EINVAL;
    const ht_kv *kv = ht_gguf_kv_at(f->g, i);
    if (kv->elem == HT_KV_STRING) {
        all = malloc((kv->n + 1) * sizeof *all);
        if (!all || !ht_kv_strings(kv, all)) {
            free(all);
            return HEARTH_ENOMEM;
        }
    }
    for (uint64_t e = 0; e < kv->n && st == HEARTH_OK; e++) {
        if (!all) {
            t.n = 0;
            put_element(&t, kv, kv->elem, e);
            st = t.failed ? HEARTH_ENOMEM : HEARTH_OK;
        }
        if (st == HEARTH_OK && !(all ? element(user, all[e].s, all[e].n) : element(user, t.s ? t.s : "", t.n)))
            st = HEARTH_ECANCELLED;
    }
    free(t.s);
    free(all);
    return st;
}

hearth_status hearth_file_meta_numbers(const hearth_file *f, uint64_t i, uint64_t first, uint64_t n, double *out)
{
    if (i >= ht_gguf_n_kv(f->g))
        return HEARTH_EINVAL;
    const ht_kv *kv = ht_gguf_kv_at(f->g, i);
    if (first > kv->n || n > kv->n - first)
        return HEARTH_EINVAL;
    for (uint64_t e = 0; e < n; e++) {
        int64_t v;
        if (ht_kv_int(kv, first + e, &v))
            out[e] = (double)v;
        else if (!ht_kv_float(kv, first + e, &out[e]))
            return HEARTH_EINVAL;
    }
    return HEARTH_OK;
}

uint64_t hearth_file_n_tensors(const hearth_file *f) { return ht_gguf_n_tensors(f->g); }

static bool can_decode(uint32_t type)
{
    const uint8_t nothing = 0;
    float none;
    return ht_type_decode(type, &nothing, 0, &none);
}

/* A tensor that the file holds packed, NULL: i is none. */
static const ht_pack_tensor *packed_at(const hearth_file *f, uint64_t i)
{
    const uint64_t n = ht_gguf_n_tensors(f->g);
    return f->pack && i >= n && i - n < f->pack->n_tensors ? &f->pack->tensors[i - n] : NULL;
}

hearth_status hearth_file_packed(const hearth_file *f, uint64_t *n, hearth_error *error)
{
    *n = f->pack ? f->pack->n_tensors : 0;
    if (f->fault.status != HT_OK && error)
        *ht_err(error) = f->fault;
    return (hearth_status)f->fault.status;
}

hearth_status hearth_file_tensor(const hearth_file *f, uint64_t i, hearth_tensor *out)
{
    const ht_pack_tensor *p = packed_at(f, i);
    if (p) {
        *out = (hearth_tensor){ .name = p->name, .type = ht_type_name(p->type), .n_dims = p->n_dims, .bytes = p->bytes,
                                .offset = p->block->tensor->offset, .readable = true };
        memcpy(out->ne, p->ne, sizeof out->ne);
        return HEARTH_OK;
    }
    if (i >= ht_gguf_n_tensors(f->g))
        return HEARTH_EINVAL;
    const ht_tensor *t = ht_gguf_tensor_at(f->g, i);
    *out = (hearth_tensor){ .name = f->names[i], .type = ht_type_name(t->type), .n_dims = t->n_dims, .bytes = t->bytes,
                            .offset = t->offset, .readable = t->data && can_decode(t->type) };
    memcpy(out->ne, t->ne, sizeof out->ne);
    return HEARTH_OK;
}

int64_t hearth_file_find_tensor(const hearth_file *f, const char *name)
{
    const ht_tensor *t = ht_gguf_find_tensor(f->g, name);
    if (t)
        return (int64_t)(t - ht_gguf_tensor_at(f->g, 0));
    const ht_pack_tensor *p = ht_pack_find(f->pack, name);
    return p ? (int64_t)(ht_gguf_n_tensors(f->g) + (uint64_t)(p - f->pack->tensors)) : -1;
}

/* Elements of a packed tensor, by whole tiles of rows. */
static ht_status read_packed(const ht_pack_tensor *t, uint64_t first, uint64_t n, float *dst, ht_error *err)
{
    const uint64_t k = t->ne[0], rows = t->ne[1] * t->ne[2], all = k * rows;
    const ht_type_info *type = ht_type_get(t->type);

    if (first > all || n > all - first || first % type->block || n % type->block)
        return ht_fail(err, HT_EINVAL, "elements %llu + %llu of tensor %s are no whole blocks of it",
                       (unsigned long long)first, (unsigned long long)n, t->name);
    uint8_t *tile = malloc(HT_NEURONS_TILE * t->row_bytes);
    ht_status st = tile ? HT_OK : ht_fail(err, HT_ENOMEM, "rows of %s", t->name);
    while (n && st == HT_OK) {
        const uint64_t base = first / k / HT_NEURONS_TILE * HT_NEURONS_TILE, left = rows - base;
        const uint64_t now = left < HT_NEURONS_TILE ? left : HT_NEURONS_TILE, end = (base + now) * k;
        const uint64_t m = n < end - first ? n : end - first;
        if ((st = ht_pack_read(t, base, now, tile, err)) == HT_OK)
            ht_type_dequant((ht_type)t->type, tile + ht_type_row_bytes(type, first - base * k), m, dst);
        first += m;
        dst += m;
        n -= m;
    }
    free(tile);
    return st;
}

hearth_status hearth_file_read_raw(const hearth_file *f, uint64_t i, uint64_t first, uint64_t n, void *dst,
                                   hearth_error *error)
{
    ht_error *err = ht_err(error);
    const ht_pack_tensor *p = packed_at(f, i);
    const ht_tensor *t = i < ht_gguf_n_tensors(f->g) ? ht_gguf_tensor_at(f->g, i) : NULL;
    uint32_t block = 1, block_bytes = 0;

    if (!p && !t)
        return (hearth_status)ht_fail(err, HT_EINVAL, "there is no tensor %llu", (unsigned long long)i);
    const uint64_t *ne = p ? p->ne : t->ne, rows = ne[1] * ne[2] * ne[3];
    if (first > rows || n > rows - first)
        return (hearth_status)ht_fail(err, HT_EINVAL, "rows %llu + %llu of tensor %llu are not there",
                                      (unsigned long long)first, (unsigned long long)n, (unsigned long long)i);
    ht_status st = ht_gguf_check_size(f->g, err);
    if (st != HT_OK || n == 0)
        return (hearth_status)st;
    if (p)
        return (hearth_status)ht_pack_read(p, first, n, dst, err);
    if (!t->data || !ht_type_geometry(t->type, &block, &block_bytes))
        return (hearth_status)ht_fail(err, HT_EUNSUPPORTED, "tensor %s has type %s, whose size is not known", f->names[i],
                                      ht_type_name(t->type));
    const uint64_t row = ne[0] / block * block_bytes;
    memcpy(dst, (const uint8_t *)t->data + first * row, n * row);
    return HEARTH_OK;
}

const void *hearth_file_data(const hearth_file *f, uint64_t i)
{
    return i < ht_gguf_n_tensors(f->g) ? ht_gguf_tensor_at(f->g, i)->data : NULL;
}

hearth_status hearth_file_read(const hearth_file *f, uint64_t i, uint64_t first, uint64_t n, float *dst,
                               hearth_error *error)
{
    ht_error *err = ht_err(error);
    const ht_pack_tensor *packed = packed_at(f, i);
    if (packed)
        return (hearth_status)read_packed(packed, first, n, dst, err);
    if (i >= ht_gguf_n_tensors(f->g))
        return (hearth_status)ht_fail(err, HT_EINVAL, "there is no tensor %llu", (unsigned long long)i);
    const ht_tensor *t = ht_gguf_tensor_at(f->g, i);
    uint64_t all = t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3];
    uint32_t block = 1, block_bytes = 0;
    if (!t->data || !ht_type_geometry(t->type, &block, &block_bytes) || !can_decode(t->type))
        return (hearth_status)ht_fail(err, HT_EUNSUPPORTED, "tensor %s has type %s, which cannot be decoded",
                                      f->names[i], ht_type_name(t->type));
    if (first > all || n > all - first || first % block || n % block)
        return (hearth_status)ht_fail(err, HT_EINVAL, "elements %llu + %llu of tensor %s are no whole blocks of it",
                                      (unsigned long long)first, (unsigned long long)n, f->names[i]);
    if (n)
        ht_type_decode(t->type, (const uint8_t *)t->data + first / block * block_bytes, n, dst);
    return HEARTH_OK;
}

hearth_status hearth_file_verify(const hearth_file *f, hearth_error *error)
{
    return (hearth_status)ht_gguf_verify(f->g, ht_err(error));
}

/* ---- Writing ----------------------------------------------------------------------------------------------------- */

struct hearth_writer { ht_gguf_writer *w; };

hearth_status hearth_writer_open(hearth_writer **out, const char *path, hearth_error *error)
{
    *out = NULL;
    hearth_writer *w = calloc(1, sizeof *w);
    if (!w)
        return (hearth_status)ht_fail(ht_err(error), HT_ENOMEM, "%s: writer", path);
    ht_status st = ht_gguf_writer_open(&w->w, path, ht_err(error));
    if (st != HT_OK) {
        free(w);
        return (hearth_status)st;
    }
    *out = w;
    return HEARTH_OK;
}

hearth_status hearth_writer_set_u32(hearth_writer *w, const char *key, uint32_t v)
{
    return (hearth_status)ht_gguf_writer_set_u32(w->w, key, v);
}

hearth_status hearth_writer_set_u64(hearth_writer *w, const char *key, uint64_t v)
{
    return (hearth_status)ht_gguf_writer_set_u64(w->w, key, v);
}

hearth_status hearth_writer_set_f32(hearth_writer *w, const char *key, float v)
{
    return (hearth_status)ht_gguf_writer_set_f32(w->w, key, v);
}

hearth_status hearth_writer_set_bool(hearth_writer *w, const char *key, bool v)
{
    return (hearth_status)ht_gguf_writer_set_bool(w->w, key, v);
}

hearth_status hearth_writer_set_str(hearth_writer *w, const char *key, const char *v)
{
    return (hearth_status)ht_gguf_writer_set_str(w->w, key, (ht_str){ v, strlen(v) });
}

hearth_status hearth_writer_set_f32s(hearth_writer *w, const char *key, const float *v, size_t n)
{
    return (hearth_status)ht_gguf_writer_set_array(w->w, key, HT_KV_F32, v, n);
}

hearth_status hearth_writer_set_i32s(hearth_writer *w, const char *key, const int32_t *v, size_t n)
{
    return (hearth_status)ht_gguf_writer_set_array(w->w, key, HT_KV_I32, v, n);
}

hearth_status hearth_writer_set_strs(hearth_writer *w, const char *key, const char *const *v, size_t n)
{
    ht_str *s = malloc((n + 1) * sizeof *s);
    if (!s)
        return HEARTH_ENOMEM;
    for (size_t i = 0; i < n; i++)
        s[i] = (ht_str){ v[i], strlen(v[i]) };
    ht_status st = ht_gguf_writer_set_strings(w->w, key, s, n);
    free(s);
    return (hearth_status)st;
}

hearth_status hearth_writer_declare(hearth_writer *w, const char *name, const char *type, uint32_t n_dims,
                                    const uint64_t *ne, hearth_error *error)
{
    int t = !strcmp(type, "i8") ? TYPE_I8 : !strcmp(type, "i32") ? TYPE_I32 : ht_type_by_name(type);
    if (t < 0 || (t != TYPE_I8 && t != TYPE_I32 && !ht_type_can_quantise((ht_type)t)))
        return (hearth_status)ht_fail(ht_err(error), HT_EUNSUPPORTED, "weights cannot be written as \"%.20s\"", type);
    return (hearth_status)ht_gguf_writer_declare(w->w, (ht_str){ name, strlen(name) }, (uint32_t)t, n_dims, ne,
                                                 ht_err(error));
}

hearth_status hearth_writer_copy(hearth_writer *w, const hearth_file *f, const char *const *except, size_t n_except)
{
    ht_status st = HT_OK;

    for (uint64_t i = 0; i < ht_gguf_n_kv(f->g) && st == HT_OK; i++) {
        bool left = !strncmp(f->keys[i], "split.", 6);
        for (size_t k = 0; k < n_except; k++)
            left |= !strncmp(f->keys[i], except[k], strlen(except[k]));
        if (!left)
            st = ht_gguf_writer_set_kv(w->w, ht_gguf_kv_at(f->g, i));
    }
    return (hearth_status)st;
}

hearth_status hearth_writer_declare_like(hearth_writer *w, const hearth_file *f, uint64_t i, hearth_error *error)
{
    const ht_pack_tensor *p = packed_at(f, i);

    if (p)
        return (hearth_status)ht_gguf_writer_declare(w->w, (ht_str){ p->name, strlen(p->name) }, p->type, p->n_dims, p->ne,
                                                     ht_err(error));
    if (i >= ht_gguf_n_tensors(f->g))
        return (hearth_status)ht_fail(ht_err(error), HT_EINVAL, "there is no tensor %llu", (unsigned long long)i);
    const ht_tensor *t = ht_gguf_tensor_at(f->g, i);
    return (hearth_status)ht_gguf_writer_declare(w->w, t->name, t->type, t->n_dims, t->ne, ht_err(error));
}

hearth_status hearth_writer_seal(hearth_writer *w)
{
    ht_gguf_writer_seal(w->w);
    return HEARTH_OK;
}

hearth_status hearth_writer_data(hearth_writer *w, const float *src, uint64_t n, hearth_error *error)
{
    return (hearth_status)ht_gguf_writer_floats(w->w, src, n, ht_err(error));
}

hearth_status hearth_writer_raw(hearth_writer *w, const void *src, size_t n, hearth_error *error)
{
    return (hearth_status)ht_gguf_writer_raw(w->w, src, n, ht_err(error));
}

hearth_status hearth_writer_close(hearth_writer **wp, hearth_error *error)
{
    hearth_writer *w = *wp;
    ht_status st = ht_gguf_writer_close(&w->w, ht_err(error));
    free(w);
    *wp = NULL;
    return (hearth_status)st;
}

void hearth_writer_abort(hearth_writer **wp)
{
    if (!wp || !*wp)
        return;
    ht_gguf_writer_abort(&(*wp)->w);
    free(*wp);
    *wp = NULL;
}

hearth_status hearth_encode(const char *type, const float *src, uint64_t n, void *dst, size_t *bytes)
{
    int t = ht_type_by_name(type);
    if (t < 0 || !ht_type_can_quantise((ht_type)t))
        return HEARTH_EUNSUPPORTED;
    const ht_type_info *info = ht_type_get((uint32_t)t);
    if (n % info->block)
        return HEARTH_EINVAL;
    *bytes = ht_type_row_bytes(info, n);
    if (dst)
        ht_type_quantise((ht_type)t, src, n, dst);
    return HEARTH_OK;
}
