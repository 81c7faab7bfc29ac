/* SPDX-License-Identifier: MIT
 *
 * The parser of one GGUF file: walks header, key-values and tensor infos once, checks every count, length, type and
 * offset against the bytes that are really there, and lists what it found. Nothing is copied: the lists point into
 * the file.
 *
 * The order of checks matters for hostile files: a count is compared with what could fit into the rest of the file
 * before memory is taken for it, and every sum and product that a file controls goes through an overflow check or a
 * subtraction from a known bound.
 *
 * Owner: the caller owns both the file and the lists. Threads: any. */
#include <stdlib.h>

#include "engine/base/types.h"
#include "engine/gguf_impl.h"

/* smallest key-value: key length 8, one key byte, type 4, one byte of value; smallest tensor info: name length 8,
 * n_dims 4, type 4, offset 8 */
enum { MIN_KV_BYTES = 14, MIN_TENSOR_BYTES = 24 };

typedef unsigned long long ull;

typedef struct cursor {
    const uint8_t *bytes;
    uint64_t pos, n;
    const char *path; /* short form */
    ht_error *err;
} cursor;

static uint64_t left(const cursor *c)
{
    return c->n - c->pos;
}

static ht_status cut_off(const cursor *c, const char *what, uint64_t need)
{
    return ht_fail_at(c->err, HT_EFORMAT, c->pos, "%s: %s needs %llu bytes, but the file ends after %llu", c->path,
                      what, (ull)need, (ull)left(c));
}

static ht_status take_u32(cursor *c, const char *what, uint32_t *out)
{
    if (left(c) < 4)
        return cut_off(c, what, 4);
    *out = ht_gguf_le32(c->bytes + c->pos);
    c->pos += 4;
    return HT_OK;
}

static ht_status take_u64(cursor *c, const char *what, uint64_t *out)
{
    if (left(c) < 8)
        return cut_off(c, what, 8);
    *out = ht_gguf_le64(c->bytes + c->pos);
    c->pos += 8;
    return HT_OK;
}

/* A string; `what` for messages, lengths above `max` are refused. */
static ht_status take_str(cursor *c, const char *what, uint64_t max, ht_str *out)
{
    uint64_t at = c->pos, n = 0;
    ht_status st = take_u64(c, what, &n);

    if (st != HT_OK)
        return st;
    if (n > left(c))
        return ht_fail_at(c->err, HT_EFORMAT, at, "%s: %s: length %llu, but only %llu bytes follow", c->path, what,
                          (ull)n, (ull)left(c));
    if (n > max)
        return ht_fail_at(c->err, HT_EFORMAT, at, "%s: %s: length %llu is above %llu", c->path, what, (ull)n, (ull)max);
    out->s = (const char *)c->bytes + c->pos;
    out->n = (size_t)n;
    c->pos += n;
    return HT_OK;
}

static ht_status take_header(cursor *c, ht_gguf_parsed *out)
{
    ht_status st;

    if (left(c) < 4)
        return cut_off(c, "magic", 4);
    const uint8_t *m = c->bytes;
    out->powerinfer = memcmp(m, "PWRI", 4) == 0;
    if (!out->powerinfer && memcmp(m, "GGUF", 4) != 0) {
        ht_gguf_show s = ht_gguf_show_str((ht_str){ (const char *)m, 4 });
        bool old = memcmp(m, "lmgg", 4) == 0 || memcmp(m, "fmgg", 4) == 0 || memcmp(m, "tjgg", 4) == 0;
        return ht_fail_at(c->err, HT_EFORMAT, 0, "%s: magic is \"%s\", wanted \"GGUF\"%s", c->path, s.s,
                          old ? " (a GGML file of before August 2023)" : "");
    }
    c->pos = 4;
    if ((st = take_u32(c, "version", &out->version)) != HT_OK)
        return st;
    if (out->version != 2 && out->version != 3) {
        if (out->version != 0 && (out->version & 0xffff) == 0)
            return ht_fail_at(c->err, HT_EUNSUPPORTED, 4, "%s: version is 0x%08x: a big-endian file", c->path,
                              out->version);
        return ht_fail_at(c->err, HT_EUNSUPPORTED, 4, "%s: version is %u, supported are 2 and 3", c->path,
                          out->version);
    }
    if ((st = take_u64(c, "n_tensors", &out->n_tensors)) != HT_OK || (st = take_u64(c, "n_kv", &out->n_kv)) != HT_OK)
        return st;
    if (out->n_kv > left(c) / MIN_KV_BYTES)
        return ht_fail_at(c->err, HT_EFORMAT, 16, "%s: n_kv is %llu, but only %llu bytes follow", c->path,
                          (ull)out->n_kv, (ull)left(c));
    if (out->n_tensors > left(c) / MIN_TENSOR_BYTES)
        return ht_fail_at(c->err, HT_EFORMAT, 8, "%s: n_tensors is %llu, but only %llu bytes follow", c->path,
                          (ull)out->n_tensors, (ull)left(c));
    if (out->n_kv > HT_GGUF_MAX_KV)
        return ht_fail_at(c->err, HT_EUNSUPPORTED, 16, "%s: n_kv is %llu, supported are up to %d", c->path,
                          (ull)out->n_kv, HT_GGUF_MAX_KV);
    if (out->n_tensors > HT_GGUF_MAX_TENSORS)
        return ht_fail_at(c->err, HT_EUNSUPPORTED, 8, "%s: n_tensors is %llu, supported are up to %d", c->path,
                          (ull)out->n_tensors, HT_GGUF_MAX_TENSORS);
    return HT_OK;
}

static ht_status take_array(cursor *c, ht_kv *kv, const char *key)
{
    uint64_t at = c->pos;
    uint32_t elem = 0;
    ht_status st;

    if ((st = take_u32(c, "array element type", &elem)) != HT_OK)
        return st;
    /* Refused here, so that no depth of nesting recurses. No known model uses them. */
    if (elem == HT_KV_ARRAY)
        return ht_fail_at(c->err, HT_EUNSUPPORTED, at, "%s: key '%s': arrays of arrays are not supported", c->path,
                          key);
    if (elem > HT_KV_F64)
        return ht_fail_at(c->err, HT_EFORMAT, at, "%s: key '%s': array element type is %u, known are 0 to 12", c->path,
                          key, elem);
    kv->elem = (ht_kv_type)elem;
    at = c->pos;
    if ((st = take_u64(c, "array length", &kv->n)) != HT_OK)
        return st;
    uint64_t each = elem == HT_KV_STRING ? 8 : ht_gguf_kv_bytes[elem];
    if (kv->n > left(c) / each)
        return ht_fail_at(c->err, HT_EFORMAT, at, "%s: key '%s': array length is %llu, but only %llu bytes follow",
                          c->path, key, (ull)kv->n, (ull)left(c));
    kv->offset = c->pos;
    kv->data = c->bytes + c->pos;
    if (elem != HT_KV_STRING) {
        c->pos += kv->n * each;
        return HT_OK;
    }
    for (uint64_t i = 0; i < kv->n; i++) {
        uint64_t n = 0;
        if (left(c) >= 8)
            n = ht_gguf_le64(c->bytes + c->pos);
        if (left(c) < 8 || n > left(c) - 8)
            return ht_fail_at(c->err, HT_EFORMAT, c->pos,
                              "%s: key '%s': string %llu of the array: length %llu, but only %llu bytes follow",
                              c->path, key, (ull)i, (ull)n, (ull)(left(c) < 8 ? left(c) : left(c) - 8));
        c->pos += 8 + n;
    }
    return HT_OK;
}

static ht_status take_kv(cursor *c, ht_kv *kv)
{
    uint64_t at = c->pos;
    uint32_t type = 0;
    ht_status st;

    if ((st = take_str(c, "key", HT_GGUF_MAX_KEY, &kv->key)) != HT_OK)
        return st;
    if (kv->key.n == 0)
        return ht_fail_at(c->err, HT_EFORMAT, at, "%s: key: length is 0", c->path);
    ht_gguf_show show = ht_gguf_show_str(kv->key);
    at = c->pos;
    if ((st = take_u32(c, "value type", &type)) != HT_OK)
        return st;
    if (type > HT_KV_F64)
        return ht_fail_at(c->err, HT_EFORMAT, at, "%s: key '%s': value type is %u, known are 0 to 12", c->path, show.s,
                          type);
    kv->type = kv->elem = (ht_kv_type)type;
    kv->n = 1;
    kv->offset = c->pos;
    kv->data = c->bytes + c->pos;
    if (type == HT_KV_ARRAY)
        return take_array(c, kv, show.s);
    if (type == HT_KV_STRING) {
        ht_str s;
        return take_str(c, show.s, UINT64_MAX, &s);
    }
    if (left(c) < ht_gguf_kv_bytes[type])
        return cut_off(c, show.s, ht_gguf_kv_bytes[type]);
    c->pos += ht_gguf_kv_bytes[type];
    return HT_OK;
}

static ht_status read_alignment(const cursor *c, const ht_gguf_parsed *p, uint64_t *out)
{
    static const char key[] = "general.alignment";

    *out = HT_GGUF_DEFAULT_ALIGN;
    for (uint64_t i = 0; i < p->n_kv; i++) {
        const ht_kv *kv = &p->kvs[i];
        if (kv->key.n != sizeof key - 1 || memcmp(kv->key.s, key, sizeof key - 1) != 0)
            continue;
        if (kv->type != HT_KV_U32)
            return ht_fail_at(c->err, HT_EFORMAT, kv->offset, "%s: key '%s' has type %s, wanted u32", c->path, key,
                              ht_gguf_kv_type_name(kv->type));
        uint32_t a = ht_gguf_le32(kv->data);
        if (a < HT_GGUF_MIN_ALIGN || a > HT_GGUF_MAX_ALIGN || (a & (a - 1)) != 0)
            return ht_fail_at(c->err, HT_EFORMAT, kv->offset,
                              "%s: key '%s' is %u, wanted a power of two from %d to %d", c->path, key, a,
                              HT_GGUF_MIN_ALIGN, HT_GGUF_MAX_ALIGN);
        *out = a;
    }
    return HT_OK;
}

/* Shape and type: fills ne and bytes. */
static ht_status take_shape(cursor *c, ht_tensor *t, const char *name)
{
    uint64_t at = c->pos, total = 1, dims_at;
    uint32_t block = 0, block_bytes = 0;
    ht_status st;

    if ((st = take_u32(c, "n_dims", &t->n_dims)) != HT_OK)
        return st;
    if (t->n_dims > 4)
        return ht_fail_at(c->err, HT_EFORMAT, at, "%s: tensor '%s': n_dims is %u, supported are up to 4", c->path, name,
                          t->n_dims);
    dims_at = c->pos;
    for (int i = 0; i < 4; i++)
        t->ne[i] = 1;
    for (uint32_t i = 0; i < t->n_dims; i++) {
        at = c->pos;
        if ((st = take_u64(c, "dimension", &t->ne[i])) != HT_OK)
            return st;
        /* Empty tensors exist, but their other dimensions must still be possible ones. */
        if (t->ne[i] > INT64_MAX || __builtin_mul_overflow(total, t->ne[i] ? t->ne[i] : 1, &total) || total > INT64_MAX)
            return ht_fail_at(c->err, HT_EFORMAT, at,
                              "%s: tensor '%s': dimension %u is %llu: more than 2^63-1 elements", c->path, name, i,
                              (ull)t->ne[i]);
    }
    at = c->pos;
    if ((st = take_u32(c, "tensor type", &t->type)) != HT_OK)
        return st;
    if (!ht_type_exists(t->type))
        return ht_fail_at(c->err, HT_EFORMAT, at, "%s: tensor '%s': type is %u: no such type, or one that was removed",
                          c->path, name, t->type);
    if (!ht_type_geometry(t->type, &block, &block_bytes))
        return HT_OK; /* listed, but its size is not known: bytes stays 0 */
    if (t->ne[0] % block != 0)
        return ht_fail_at(c->err, HT_EFORMAT, dims_at,
                          "%s: tensor '%s': rows of %llu elements are not whole blocks of %u (type %s)", c->path, name,
                          (ull)t->ne[0], block, ht_type_name(t->type));
    t->bytes = 0;
    if (t->ne[0] && t->ne[1] && t->ne[2] && t->ne[3] && __builtin_mul_overflow(total / block, block_bytes, &t->bytes))
        return ht_fail_at(c->err, HT_EFORMAT, dims_at, "%s: tensor '%s': %llu elements of type %s overflow 64 bits",
                          c->path, name, (ull)total, ht_type_name(t->type));
    return HT_OK;
}

static ht_status take_tensor(cursor *c, ht_tensor *t)
{
    ht_status st;

    t->info_offset = c->pos;
    if ((st = take_str(c, "tensor name", HT_GGUF_MAX_NAME, &t->name)) != HT_OK)
        return st;
    ht_gguf_show show = ht_gguf_show_str(t->name);
    if ((st = take_shape(c, t, show.s)) != HT_OK)
        return st;
    /* relative to the data section, whose start is known after the last info; `place` makes it absolute */
    return take_u64(c, "tensor offset", &t->offset);
}

/* Byte offset of the offset field, the last of the info. */
static uint64_t offset_at(const ht_tensor *t)
{
    return t->info_offset + 8 + t->name.n + 4 + 8 * (uint64_t)t->n_dims + 4;
}

static ht_status place(const cursor *c, ht_tensor *t, uint64_t data_at, uint64_t align)
{
    uint64_t room = data_at < c->n ? c->n - data_at : 0;
    ht_gguf_show show = ht_gguf_show_str(t->name);

    if (t->offset % align != 0)
        return ht_fail_at(c->err, HT_EFORMAT, offset_at(t),
                          "%s: tensor '%s': offset %llu is not a multiple of the alignment %llu", c->path, show.s,
                          (ull)t->offset, (ull)align);
    if (t->offset > room || t->bytes > room - t->offset)
        return ht_fail_at(c->err, HT_EFORMAT, offset_at(t),
                          "%s: tensor '%s': %llu bytes at offset %llu, but the data section has %llu bytes", c->path,
                          show.s, (ull)t->bytes, (ull)t->offset, (ull)room);
    t->offset += data_at;
    t->data = t->bytes > 0 ? c->bytes + t->offset : NULL;
    return HT_OK;
}

static int by_offset(const void *a, const void *b)
{
    const ht_tensor *x = *(const ht_tensor *const *)a, *y = *(const ht_tensor *const *)b;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

/* No two tensors may share bytes: with that, the sizes of all tensors add up to no more than the file. */
static ht_status check_overlap(const cursor *c, const ht_tensor *tensors, uint64_t n)
{
    ht_status st = HT_OK;
    uint64_t end = 0, i = 0;

    while (i < n && (tensors[i].bytes == 0 || tensors[i].offset >= end)) {
        if (tensors[i].bytes)
            end = tensors[i].offset + tensors[i].bytes;
        i++;
    }
    if (i == n) /* in file order, as every known tool writes them */
        return HT_OK;
    const ht_tensor **order = malloc((size_t)n * sizeof *order);
    if (!order)
        return ht_fail(c->err, HT_ENOMEM, "%s: out of memory", c->path);
    uint64_t m = 0;
    for (i = 0; i < n; i++)
        if (tensors[i].bytes > 0)
            order[m++] = &tensors[i];
    qsort(order, (size_t)m, sizeof *order, by_offset);
    for (i = 1; i < m && st == HT_OK; i++)
        if (order[i]->offset < order[i - 1]->offset + order[i - 1]->bytes) {
            ht_gguf_show a = ht_gguf_show_str(order[i]->name), b = ht_gguf_show_str(order[i - 1]->name);
            st = ht_fail_at(c->err, HT_EFORMAT, offset_at(order[i]), "%s: tensor '%s' overlaps tensor '%s'", c->path,
                            a.s, b.s);
        }
    free(order);
    return st;
}

ht_status ht_gguf_parse(ht_gguf_parsed *out, const ht_gguf_file *f, uint32_t index, ht_error *err)
{
    cursor c = { f->map.data, 0, f->map.bytes, ht_gguf_short(f->path), err };
    ht_gguf_parsed p = { 0 };
    uint64_t align = 0;
    ht_status st = take_header(&c, &p);

    if (st != HT_OK)
        return st;
    /* calloc: pages that a lying count would cover are never touched */
    p.kvs = calloc(p.n_kv ? (size_t)p.n_kv : 1, sizeof *p.kvs);
    p.tensors = calloc(p.n_tensors ? (size_t)p.n_tensors : 1, sizeof *p.tensors);
    if (!p.kvs || !p.tensors) {
        st = ht_fail(err, HT_ENOMEM, "%s: no memory for %llu keys and %llu tensors", c.path, (ull)p.n_kv,
                     (ull)p.n_tensors);
        goto fail;
    }
    for (uint64_t i = 0; i < p.n_kv; i++)
        if ((st = take_kv(&c, &p.kvs[i])) != HT_OK)
            goto fail;
    if ((st = read_alignment(&c, &p, &align)) != HT_OK)
        goto fail;
    for (uint64_t i = 0; i < p.n_tensors; i++) {
        p.tensors[i].file = index;
        if ((st = take_tensor(&c, &p.tensors[i])) != HT_OK)
            goto fail;
    }
    uint64_t data_at = c.pos + (align - c.pos % align) % align;
    for (uint64_t i = 0; i < p.n_tensors; i++)
        if ((st = place(&c, &p.tensors[i], data_at, align)) != HT_OK)
            goto fail;
    if ((st = check_overlap(&c, p.tensors, p.n_tensors)) != HT_OK)
        goto fail;
    *out = p;
    return HT_OK;

fail:
    free(p.kvs);
    free(p.tensors);
    return st;
}
