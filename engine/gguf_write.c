/* SPDX-License-Identifier: MIT
 *
 * Writing GGUF files; see gguf_write.h. Keys and declarations are gathered in memory; the first data (or close) writes
 * them all, and from then on bytes only stream.
 *
 * Owner: see gguf_write.h. Threads: one at a time. */
#include "engine/gguf_write.h"

#include <stdlib.h>

#include "engine/base/types.h"
#include "engine/gguf_impl.h"
#include "engine/outfile.h"

typedef unsigned long long ull;

enum { TYPE_I8 = 24 }; /* GGUF's id */

typedef struct entry {
    char *key; /* terminated; owned, like value */
    uint8_t *value; /* type and value as the file holds them */
    size_t key_n, value_n;
} entry;

typedef struct declared {
    char *name;
    size_t name_n;
    uint32_t type, n_dims;
    uint64_t ne[4], bytes, offset;
} declared;

struct ht_gguf_writer {
    ht_outfile out;
    entry *kvs;
    uint64_t n_kv, room_kv;
    declared *tensors;
    uint64_t n_tensors, room_tensors;
    uint64_t align;
    bool begun;        /* the header is written */
    bool sealed;       /* the last tensor is the checksum of all bytes before it */
    ht_hash hash;
    uint64_t at, done; /* the tensor that data goes to, and how many of its bytes are there */
    ht_error fault;    /* the first failure; status HT_OK: none */
};

/* Records the first failure and returns it. */
static ht_status stick(ht_gguf_writer *w, ht_error *err)
{
    if (err)
        *err = w->fault;
    return w->fault.status;
}

#define FAIL(w, err, ...) ((void)ht_fail(&(w)->fault, __VA_ARGS__), stick(w, err))

static void put_le(uint8_t *p, uint64_t v, size_t n)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

ht_status ht_gguf_writer_open(ht_gguf_writer **out, const char *path, ht_error *err)
{
    ht_gguf_writer *w = calloc(1, sizeof *w);

    *out = NULL;
    if (!w)
        return ht_fail(err, HT_ENOMEM, "%s: out of memory", path);
    w->align = HT_GGUF_DEFAULT_ALIGN;
    ht_status st = ht_outfile_open(&w->out, path, err);
    if (st != HT_OK)
        ht_gguf_writer_abort(&w);
    *out = w;
    return st;
}

void ht_gguf_writer_abort(ht_gguf_writer **pw)
{
    ht_gguf_writer *w = pw ? *pw : NULL;

    if (!w)
        return;
    ht_outfile_abort(&w->out);
    for (uint64_t i = 0; i < w->n_kv; i++) {
        free(w->kvs[i].key);
        free(w->kvs[i].value);
    }
    for (uint64_t i = 0; i < w->n_tensors; i++)
        free(w->tensors[i].name);
    free(w->kvs);
    free(w->tensors);
    free(w);
    *pw = NULL;
}

/* Room for one more element of an array of `size` bytes each; false without memory. */
static bool grow(void **array, uint64_t n, uint64_t *room, size_t size)
{
    if (n < *room)
        return true;
    uint64_t more = *room ? 2 * *room : 64;
    void *p = realloc(*array, (size_t)more * size);
    if (!p)
        return false;
    *array = p;
    *room = more;
    return true;
}

/* ---- metadata ---------------------------------------------------------------------------------------------------- */

static entry *find_entry(ht_gguf_writer *w, ht_str key)
{
    for (uint64_t i = 0; i < w->n_kv; i++)
        if (w->kvs[i].key_n == key.n && memcmp(w->kvs[i].key, key.s, key.n) == 0)
            return &w->kvs[i];
    return NULL;
}

/* Adds or replaces a key; takes `value` (n bytes; the first 4 are its type), which may be NULL: no memory. */
static ht_status put(ht_gguf_writer *w, ht_str key, uint8_t *value, size_t n)
{
    static const char align_key[] = "general.alignment";
    ht_gguf_show shown = ht_gguf_show_str(key);

    if (w->fault.status != HT_OK)
        goto fail;
    if (!value) {
        ht_fail(&w->fault, HT_ENOMEM, "%s: key '%s': out of memory", w->out.path, shown.s);
        goto fail;
    }
    if (key.n == 0 || key.n > HT_GGUF_MAX_KEY || w->begun) {
        ht_fail(&w->fault, HT_EINVAL, w->begun ? "%s: key '%s' comes after data" : "%s: key '%s': bad length",
                w->out.path, shown.s);
        goto fail;
    }
    if (key.n == sizeof align_key - 1 && memcmp(key.s, align_key, key.n) == 0) {
        uint32_t a = ht_gguf_le32(value) == HT_KV_U32 ? ht_gguf_le32(value + 4) : 0;
        if (a < HT_GGUF_MIN_ALIGN || a > HT_GGUF_MAX_ALIGN || (a & (a - 1)) != 0) {
            ht_fail(&w->fault, HT_EINVAL, "%s: key '%s' must be a u32 and a power of two from %d to %d", w->out.path,
                    align_key, HT_GGUF_MIN_ALIGN, HT_GGUF_MAX_ALIGN);
            goto fail;
        }
        w->align = a;
    }
    entry *e = find_entry(w, key);
    if (!e) {
        char *copy = malloc(key.n + 1);
        if (!copy || !grow((void **)&w->kvs, w->n_kv, &w->room_kv, sizeof *w->kvs)) {
            free(copy);
            ht_fail(&w->fault, HT_ENOMEM, "%s: key '%s': out of memory", w->out.path, shown.s);
            goto fail;
        }
        memcpy(copy, key.s, key.n);
        copy[key.n] = 0;
        e = &w->kvs[w->n_kv++];
        *e = (entry){ .key = copy, .key_n = key.n };
    }
    free(e->value);
    e->value = value;
    e->value_n = n;
    return HT_OK;

fail:
    free(value);
    return w->fault.status;
}

static ht_str str_of(const char *s)
{
    return (ht_str){ s, strlen(s) };
}

/* A type, then n raw bytes. */
static uint8_t *boxed(ht_kv_type type, const void *bytes, size_t n)
{
    uint8_t *p = malloc(4 + n);

    if (p) {
        put_le(p, type, 4);
        memcpy(p + 4, bytes, n);
    }
    return p;
}

ht_status ht_gguf_writer_set_scalar(ht_gguf_writer *w, const char *key, ht_kv_type type, const void *value)
{
    size_t n = type <= HT_KV_F64 ? ht_gguf_kv_bytes[type] : 0;

    if (n == 0 && w->fault.status == HT_OK)
        return FAIL(w, NULL, HT_EINVAL, "%s: key '%s': %s is no scalar type", w->out.path, key,
                    ht_gguf_kv_type_name(type));
    return put(w, str_of(key), boxed(type, value, n), 4 + n); /* little-endian hosts only, see ht_store64 */
}

ht_status ht_gguf_writer_set_u32(ht_gguf_writer *w, const char *key, uint32_t v)
{
    return ht_gguf_writer_set_scalar(w, key, HT_KV_U32, &v);
}

ht_status ht_gguf_writer_set_i32(ht_gguf_writer *w, const char *key, int32_t v)
{
    return ht_gguf_writer_set_scalar(w, key, HT_KV_I32, &v);
}

ht_status ht_gguf_writer_set_u64(ht_gguf_writer *w, const char *key, uint64_t v)
{
    return ht_gguf_writer_set_scalar(w, key, HT_KV_U64, &v);
}

ht_status ht_gguf_writer_set_f32(ht_gguf_writer *w, const char *key, float v)
{
    return ht_gguf_writer_set_scalar(w, key, HT_KV_F32, &v);
}

ht_status ht_gguf_writer_set_bool(ht_gguf_writer *w, const char *key, bool v)
{
    uint8_t b = v;
    return ht_gguf_writer_set_scalar(w, key, HT_KV_BOOL, &b);
}

ht_status ht_gguf_writer_set_str(ht_gguf_writer *w, const char *key, ht_str v)
{
    uint8_t *p = v.n < SIZE_MAX - 12 ? malloc(12 + v.n) : NULL;

    if (p) {
        put_le(p, HT_KV_STRING, 4);
        put_le(p + 4, v.n, 8);
        if (v.n > 0)
            memcpy(p + 12, v.s, v.n);
    }
    return put(w, str_of(key), p, 12 + v.n);
}

/* The head of an array and room for n bytes of elements behind it. */
static uint8_t *array_box(ht_kv_type elem, uint64_t n, uint64_t bytes)
{
    uint8_t *p = bytes < SIZE_MAX - 16 ? malloc((size_t)bytes + 16) : NULL;

    if (p) {
        put_le(p, HT_KV_ARRAY, 4);
        put_le(p + 4, elem, 4);
        put_le(p + 8, n, 8);
    }
    return p;
}

static ht_status put_array(ht_gguf_writer *w, ht_str key, ht_kv_type elem, const void *values, uint64_t n,
                           uint64_t bytes)
{
    uint8_t *p = array_box(elem, n, bytes);

    if (p && bytes > 0)
        memcpy(p + 16, values, (size_t)bytes);
    return put(w, key, p, (size_t)bytes + 16);
}

ht_status ht_gguf_writer_set_array(ht_gguf_writer *w, const char *key, ht_kv_type elem, const void *values, uint64_t n)
{
    size_t each = elem <= HT_KV_F64 ? ht_gguf_kv_bytes[elem] : 0;
    uint64_t bytes;

    if (w->fault.status == HT_OK && (each == 0 || __builtin_mul_overflow(n, each, &bytes)))
        return FAIL(w, NULL, HT_EINVAL, "%s: key '%s': no array of %llu %s", w->out.path, key, (ull)n,
                    ht_gguf_kv_type_name(elem));
    return put_array(w, str_of(key), elem, values, n, n * each);
}

ht_status ht_gguf_writer_set_strings(ht_gguf_writer *w, const char *key, const ht_str *values, uint64_t n)
{
    uint64_t bytes = 0, at = 16;

    for (uint64_t i = 0; i < n; i++)
        bytes += 8 + values[i].n;
    uint8_t *p = array_box(HT_KV_STRING, n, bytes);
    for (uint64_t i = 0; p && i < n; i++) {
        put_le(p + at, values[i].n, 8);
        if (values[i].n > 0)
            memcpy(p + at + 8, values[i].s, values[i].n);
        at += 8 + values[i].n;
    }
    return put(w, str_of(key), p, (size_t)bytes + 16);
}

ht_status ht_gguf_writer_set_kv(ht_gguf_writer *w, const ht_kv *kv)
{
    uint64_t bytes = 0;

    if (kv->type == HT_KV_STRING) {
        bytes = 8 + ht_gguf_le64(kv->data);
    } else if (kv->type == HT_KV_ARRAY && kv->elem == HT_KV_STRING) {
        for (uint64_t i = 0; i < kv->n; i++)
            bytes += 8 + ht_gguf_le64(kv->data + bytes);
    } else {
        bytes = kv->n * ht_gguf_kv_bytes[kv->type == HT_KV_ARRAY ? kv->elem : kv->type];
    }
    if (kv->type == HT_KV_ARRAY)
        return put_array(w, kv->key, kv->elem, kv->data, kv->n, bytes);
    return put(w, kv->key, boxed(kv->type, kv->data, (size_t)bytes), 4 + (size_t)bytes);
}

ht_status ht_gguf_writer_copy(ht_gguf_writer *w, const ht_gguf *g)
{
    ht_status st = w->fault.status;

    for (uint64_t i = 0; i < ht_gguf_n_kv(g) && st == HT_OK; i++) {
        const ht_kv *kv = ht_gguf_kv_at(g, i);
        if (kv->key.n < 6 || memcmp(kv->key.s, "split.", 6) != 0)
            st = ht_gguf_writer_set_kv(w, kv);
    }
    return st;
}

void ht_gguf_writer_drop(ht_gguf_writer *w, const char *key)
{
    entry *e = find_entry(w, str_of(key));

    if (!e || w->begun)
        return;
    if (strcmp(key, "general.alignment") == 0)
        w->align = HT_GGUF_DEFAULT_ALIGN;
    free(e->key);
    free(e->value);
    w->n_kv--;
    memmove(e, e + 1, (size_t)(w->kvs + w->n_kv - e) * sizeof *e);
}

/* ---- tensors ----------------------------------------------------------------------------------------------------- */

ht_status ht_gguf_writer_declare(ht_gguf_writer *w, ht_str name, uint32_t type, uint32_t n_dims, const uint64_t *ne,
                                 ht_error *err)
{
    ht_gguf_show shown = ht_gguf_show_str(name);
    declared d = { .name_n = name.n, .type = type, .n_dims = n_dims, .ne = { 1, 1, 1, 1 } };
    uint32_t block, block_bytes;
    uint64_t total = 1;

    if (w->fault.status != HT_OK)
        return stick(w, err);
    if (w->begun || name.n == 0 || name.n > HT_GGUF_MAX_NAME || n_dims > 4)
        return FAIL(w, err, HT_EINVAL, "%s: tensor '%s': comes after data, has no name or too many dimensions",
                    w->out.path, shown.s);
    if (!ht_type_geometry(type, &block, &block_bytes))
        return FAIL(w, err, HT_EUNSUPPORTED, "%s: tensor '%s': type %u (%s) cannot be written", w->out.path, shown.s,
                    type, ht_type_name(type));
    for (uint32_t i = 0; i < n_dims; i++) {
        d.ne[i] = ne[i];
        if (ne[i] > INT64_MAX || __builtin_mul_overflow(total, ne[i], &total) || total > INT64_MAX)
            return FAIL(w, err, HT_EINVAL, "%s: tensor '%s': more than 2^63-1 elements", w->out.path, shown.s);
    }
    if (d.ne[0] % block != 0 || __builtin_mul_overflow(total / block, block_bytes, &d.bytes) || d.bytes > INT64_MAX / 2)
        return FAIL(w, err, HT_EINVAL, "%s: tensor '%s': rows of %llu elements are not whole blocks of %u (type %s)",
                    w->out.path, shown.s, (ull)d.ne[0], block, ht_type_name(type));
    d.name = malloc(name.n);
    if (!d.name || !grow((void **)&w->tensors, w->n_tensors, &w->room_tensors, sizeof *w->tensors)) {
        free(d.name);
        return FAIL(w, err, HT_ENOMEM, "%s: tensor '%s': out of memory", w->out.path, shown.s);
    }
    memcpy(d.name, name.s, name.n);
    w->tensors[w->n_tensors++] = d;
    return HT_OK;
}

static int by_name(const void *a, const void *b)
{
    const declared *x = *(const declared *const *)a, *y = *(const declared *const *)b;
    if (x->name_n != y->name_n)
        return x->name_n < y->name_n ? -1 : 1;
    return memcmp(x->name, y->name, x->name_n);
}

static ht_status check_names(ht_gguf_writer *w)
{
    const declared **order = malloc(w->n_tensors ? (size_t)w->n_tensors * sizeof *order : 1);

    if (!order)
        return ht_fail(&w->fault, HT_ENOMEM, "%s: out of memory", w->out.path);
    for (uint64_t i = 0; i < w->n_tensors; i++)
        order[i] = &w->tensors[i];
    qsort(order, (size_t)w->n_tensors, sizeof *order, by_name);
    for (uint64_t i = 1; i < w->n_tensors && w->fault.status == HT_OK; i++)
        if (by_name(&order[i - 1], &order[i]) == 0) {
            ht_gguf_show s = ht_gguf_show_str((ht_str){ order[i]->name, order[i]->name_n });
            ht_fail(&w->fault, HT_EINVAL, "%s: tensor '%s' is declared twice", w->out.path, s.s);
        }
    free(order);
    return w->fault.status;
}

static uint64_t padding(uint64_t at, uint64_t align)
{
    return (align - at % align) % align;
}

static ht_status emit(ht_gguf_writer *w, const void *bytes, size_t n)
{
    return w->fault.status != HT_OK ? w->fault.status : ht_outfile_write(&w->out, bytes, n, &w->fault);
}

static ht_status emit_le(ht_gguf_writer *w, uint64_t v, size_t n)
{
    uint8_t b[8];

    put_le(b, v, n);
    return emit(w, b, n);
}

/* Header, metadata and tensor infos. Failures stick. */
static ht_status begin(ht_gguf_writer *w)
{
    static const uint64_t checksum_bytes = HT_GGUF_CHECKSUM_BYTES;
    static const char checksum[] = HT_GGUF_CHECKSUM;
    uint64_t offset = 0;

    if (w->begun || w->fault.status != HT_OK)
        return w->fault.status;
    if (w->sealed)
        ht_gguf_writer_declare(w, (ht_str){ checksum, sizeof checksum - 1 }, TYPE_I8, 1, &checksum_bytes, NULL);
    if (check_names(w) != HT_OK)
        return w->fault.status;
    w->begun = true;
    emit(w, "GGUF", 4);
    emit_le(w, 3, 4);
    emit_le(w, w->n_tensors, 8);
    emit_le(w, w->n_kv, 8);
    for (uint64_t i = 0; i < w->n_kv; i++) {
        emit_le(w, w->kvs[i].key_n, 8);
        emit(w, w->kvs[i].key, w->kvs[i].key_n);
        emit(w, w->kvs[i].value, w->kvs[i].value_n);
    }
    for (uint64_t i = 0; i < w->n_tensors; i++) {
        declared *d = &w->tensors[i];
        emit_le(w, d->name_n, 8);
        emit(w, d->name, d->name_n);
        emit_le(w, d->n_dims, 4);
        for (uint32_t j = 0; j < d->n_dims; j++)
            emit_le(w, d->ne[j], 8);
        emit_le(w, d->type, 4);
        emit_le(w, offset, 8);
        if (__builtin_add_overflow(offset, d->bytes + padding(d->bytes, w->align), &offset))
            ht_fail(&w->fault, HT_EINVAL, "%s: the tensors have more than 2^64 bytes", w->out.path);
    }
    if (w->fault.status == HT_OK)
        ht_outfile_zeros(&w->out, padding(w->out.bytes, w->align), &w->fault);
    return w->fault.status;
}

/* Ends the tensors that are full: pads them and goes on to the next that wants data. */
static ht_status advance(ht_gguf_writer *w)
{
    while (w->fault.status == HT_OK && w->at < w->n_tensors && w->done == w->tensors[w->at].bytes) {
        ht_outfile_zeros(&w->out, padding(w->out.bytes, w->align), &w->fault);
        w->at++;
        w->done = 0;
    }
    return w->fault.status;
}

ht_status ht_gguf_writer_raw(ht_gguf_writer *w, const void *bytes, uint64_t n, ht_error *err)
{
    const uint8_t *p = bytes;

    if (begin(w) != HT_OK)
        return stick(w, err);
    while (n > 0) {
        if (advance(w) != HT_OK)
            return stick(w, err);
        if (w->at == w->n_tensors - w->sealed)
            return FAIL(w, err, HT_EINVAL, "%s: %llu bytes of data more than declared", w->out.path, (ull)n);
        uint64_t part = w->tensors[w->at].bytes - w->done;
        part = part < n ? part : n;
        if (emit(w, p, (size_t)part) != HT_OK)
            return stick(w, err);
        w->done += part;
        p += part;
        n -= part;
    }
    return HT_OK;
}

ht_status ht_gguf_writer_floats(ht_gguf_writer *w, const float *values, uint64_t n, ht_error *err)
{
    enum { STEP = 4096 }; /* elements, a multiple of every block; at most 4 bytes each */
    uint8_t buffer[STEP * 4];

    if (begin(w) != HT_OK)
        return stick(w, err);
    while (n > 0) {
        if (advance(w) != HT_OK)
            return stick(w, err);
        if (w->at == w->n_tensors - w->sealed)
            return FAIL(w, err, HT_EINVAL, "%s: %llu elements of data more than declared", w->out.path, (ull)n);
        const declared *d = &w->tensors[w->at];
        const ht_type_info *t = ht_type_get(d->type);
        ht_gguf_show shown = ht_gguf_show_str((ht_str){ d->name, d->name_n });
        if (!t || !ht_type_can_quantise((ht_type)d->type))
            return FAIL(w, err, HT_EUNSUPPORTED, "%s: tensor '%s': no encoder for type %s", w->out.path, shown.s,
                        ht_type_name(d->type));
        uint64_t part = (d->bytes - w->done) / t->block_bytes * t->block;
        part = part < n ? part : n;
        part = part < STEP ? part : STEP;
        if (part % t->block != 0 || w->done % t->block_bytes != 0)
            return FAIL(w, err, HT_EINVAL, "%s: tensor '%s': data does not end on whole blocks of %u", w->out.path,
                        shown.s, t->block);
        ht_type_quantise((ht_type)d->type, values, part, buffer);
        uint64_t bytes = ht_type_row_bytes(t, part);
        if (emit(w, buffer, (size_t)bytes) != HT_OK)
            return stick(w, err);
        w->done += bytes;
        values += part;
        n -= part;
    }
    return HT_OK;
}

void ht_gguf_writer_seal(ht_gguf_writer *w)
{
    w->sealed = true;
    w->out.hash = &w->hash;
    ht_hash_begin(&w->hash, 0);
}

static void write_checksum(ht_gguf_writer *w)
{
    uint64_t h[2];

    ht_hash_end(&w->hash, h);
    emit_le(w, h[0], 8);
    emit_le(w, h[1], 8);
    w->done += HT_GGUF_CHECKSUM_BYTES;
    advance(w);
}

ht_status ht_gguf_writer_close(ht_gguf_writer **pw, ht_error *err)
{
    ht_gguf_writer *w = *pw;
    ht_status st;

    if (begin(w) == HT_OK && advance(w) == HT_OK && w->sealed && w->at == w->n_tensors - 1)
        write_checksum(w);
    if (w->fault.status == HT_OK && w->at < w->n_tensors) {
        const declared *d = &w->tensors[w->at];
        ht_gguf_show s = ht_gguf_show_str((ht_str){ d->name, d->name_n });
        ht_fail(&w->fault, HT_EINVAL, "%s: tensor '%s' lacks %llu bytes", w->out.path, s.s, (ull)(d->bytes - w->done));
    }
    st = stick(w, err);
    if (st == HT_OK)
        st = ht_outfile_close(&w->out, err);
    ht_gguf_writer_abort(pw);
    return st;
}
