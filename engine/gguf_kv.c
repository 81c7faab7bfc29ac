/* SPDX-License-Identifier: MIT
 *
 * Metadata values of GGUF files: typed reads, and the values that --override puts in their place.
 *
 * Owner: overrides belong to the ht_gguf. Threads: reads from any; ht_gguf_override before the object is shared. */
#include <locale.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/gguf_impl.h"

const uint8_t ht_gguf_kv_bytes[13] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };

const char *ht_gguf_kv_type_name(uint32_t type)
{
    static const char *const names[] = { "u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                         "bool", "string", "array", "u64", "i64", "f64" };
    return type < sizeof names / sizeof *names ? names[type] : "unknown";
}

/* ---- elements ---------------------------------------------------------------------------------------------------- */

bool ht_kv_int(const ht_kv *kv, uint64_t i, int64_t *out)
{
    ht_kv_type t = kv->type == HT_KV_ARRAY ? kv->elem : kv->type;

    if (i >= kv->n)
        return false;
    const uint8_t *p = kv->data + i * ht_gguf_kv_bytes[t];
    switch (t) {
    case HT_KV_U8: *out = p[0]; return true;
    case HT_KV_I8: *out = (int8_t)p[0]; return true;
    case HT_KV_U16: *out = (uint16_t)(p[0] | p[1] << 8); return true;
    case HT_KV_I16: *out = (int16_t)(p[0] | p[1] << 8); return true;
    case HT_KV_U32: *out = ht_gguf_le32(p); return true;
    case HT_KV_I32: *out = (int32_t)ht_gguf_le32(p); return true;
    case HT_KV_I64: *out = (int64_t)ht_gguf_le64(p); return true;
    case HT_KV_U64: *out = (int64_t)ht_gguf_le64(p); return *out >= 0;
    case HT_KV_BOOL: *out = p[0] != 0; return true;
    case HT_KV_F32: case HT_KV_F64: case HT_KV_STRING: case HT_KV_ARRAY: break;
    }
    return false;
}

bool ht_kv_float(const ht_kv *kv, uint64_t i, double *out)
{
    ht_kv_type t = kv->type == HT_KV_ARRAY ? kv->elem : kv->type;
    int64_t v;

    if (i >= kv->n)
        return false;
    const uint8_t *p = kv->data + i * ht_gguf_kv_bytes[t];
    if (t == HT_KV_F32) {
        union { uint32_t u; float f; } x = { ht_gguf_le32(p) };
        *out = (double)x.f;
        return true;
    }
    if (t == HT_KV_F64) {
        union { uint64_t u; double d; } x = { ht_gguf_le64(p) };
        *out = x.d;
        return true;
    }
    if (t == HT_KV_U64) {
        *out = (double)ht_gguf_le64(p);
        return true;
    }
    if (t == HT_KV_BOOL || !ht_kv_int(kv, i, &v))
        return false;
    *out = (double)v;
    return true;
}

bool ht_kv_str(const ht_kv *kv, ht_str *out)
{
    if (kv->type != HT_KV_STRING)
        return false;
    *out = (ht_str){ (const char *)kv->data + 8, (size_t)ht_gguf_le64(kv->data) };
    return true;
}

bool ht_kv_strings(const ht_kv *kv, ht_str *out)
{
    const uint8_t *p = kv->data;

    if (kv->type != HT_KV_ARRAY || kv->elem != HT_KV_STRING)
        return false;
    for (uint64_t i = 0; i < kv->n; i++) {
        out[i] = (ht_str){ (const char *)p + 8, (size_t)ht_gguf_le64(p) };
        p += 8 + out[i].n;
    }
    return true;
}

/* ---- typed reads ------------------------------------------------------------------------------------------------- */

/* A fault of a value; with its offset unless it came from an override. */
__attribute__((format(printf, 3, 4))) static ht_status fail_value(ht_error *err, const ht_kv *kv, const char *fmt, ...)
{
    char text[400];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (kv->offset == UINT64_MAX)
        return ht_fail(err, HT_EFORMAT, "%s", text);
    return ht_fail_at(err, HT_EFORMAT, kv->offset, "%s", text);
}

static ht_status wrong_kind(const ht_gguf *g, const char *key, const ht_kv *kv, const char *wanted, ht_error *err)
{
    const char *path = ht_gguf_short(g->files[0].path);

    if (kv->type == HT_KV_ARRAY)
        return fail_value(err, kv, "%s: key '%s' is an array of %s, wanted %s", path, key,
                          ht_gguf_kv_type_name(kv->elem), wanted);
    return fail_value(err, kv, "%s: key '%s' has type %s, wanted %s", path, key,
                      ht_gguf_kv_type_name(kv->type), wanted);
}

static ht_status read_uint(const ht_gguf *g, const char *key, uint64_t max, uint64_t *out, ht_error *err)
{
    const ht_kv *kv = ht_gguf_find(g, key);
    const char *path = ht_gguf_short(g->files[0].path);
    int64_t v = 0;
    uint64_t u;

    if (!kv)
        return HT_OK;
    if (kv->type == HT_KV_U64) {
        u = ht_gguf_le64(kv->data);
    } else {
        if (kv->type == HT_KV_ARRAY || kv->type == HT_KV_BOOL || !ht_kv_int(kv, 0, &v))
            return wrong_kind(g, key, kv, "an integer", err);
        if (v < 0)
            return fail_value(err, kv, "%s: key '%s' is %lld, which is negative", path, key,
                              (long long)v);
        u = (uint64_t)v;
    }
    if (u > max)
        return fail_value(err, kv, "%s: key '%s' is %llu, the largest possible is %llu", path, key,
                          (unsigned long long)u, (unsigned long long)max);
    *out = u;
    return HT_OK;
}

ht_status ht_gguf_u32(const ht_gguf *g, const char *key, uint32_t *out, ht_error *err)
{
    uint64_t u = *out;
    ht_status st = read_uint(g, key, UINT32_MAX, &u, err);

    if (st == HT_OK)
        *out = (uint32_t)u;
    return st;
}

ht_status ht_gguf_need_u32(const ht_gguf *g, const char *key, uint32_t *out, ht_error *err)
{
    if (!ht_gguf_find(g, key))
        return ht_fail(err, HT_EFORMAT, "%s: key '%s' is missing", ht_gguf_short(g->files[0].path), key);
    *out = 0;
    return ht_gguf_u32(g, key, out, err);
}

ht_status ht_gguf_u64(const ht_gguf *g, const char *key, uint64_t *out, ht_error *err)
{
    return read_uint(g, key, UINT64_MAX, out, err);
}

ht_status ht_gguf_f32(const ht_gguf *g, const char *key, float *out, ht_error *err)
{
    const ht_kv *kv = ht_gguf_find(g, key);
    double d;

    if (!kv)
        return HT_OK;
    if (kv->type == HT_KV_ARRAY || !ht_kv_float(kv, 0, &d))
        return wrong_kind(g, key, kv, "a number", err);
    if (kv->type == HT_KV_F64 && isfinite(d) && fabs(d) > 3.4028234663852886e38)
        return fail_value(err, kv, "%s: key '%s' is %g, which is beyond float32",
                          ht_gguf_short(g->files[0].path), key, d);
    *out = (float)d;
    return HT_OK;
}

ht_status ht_gguf_bool(const ht_gguf *g, const char *key, bool *out, ht_error *err)
{
    const ht_kv *kv = ht_gguf_find(g, key);

    if (!kv)
        return HT_OK;
    if (kv->type != HT_KV_BOOL)
        return wrong_kind(g, key, kv, "a bool", err);
    *out = kv->data[0] != 0;
    return HT_OK;
}

ht_status ht_gguf_str(const ht_gguf *g, const char *key, ht_str *out, ht_error *err)
{
    const ht_kv *kv = ht_gguf_find(g, key);

    if (!kv)
        return HT_OK;
    if (!ht_kv_str(kv, out))
        return wrong_kind(g, key, kv, "a string", err);
    return HT_OK;
}

/* ---- overrides --------------------------------------------------------------------------------------------------- */

/* A whole decimal integer: sign and magnitude. False for anything else, beyond 64 bits too. */
static bool spells_int(const char *s, bool *negative, uint64_t *magnitude)
{
    uint64_t v = 0;

    *negative = *s == '-';
    if (*s == '-' || *s == '+')
        s++;
    if (!*s)
        return false;
    for (; *s; s++) {
        if (*s < '0' || *s > '9' || __builtin_mul_overflow(v, 10u, &v) ||
            __builtin_add_overflow(v, (uint64_t)(*s - '0'), &v))
            return false;
    }
    *magnitude = v;
    return true;
}

/* A whole finite number in the C locale's spelling, whatever the process's locale is. */
static bool spells_float(const char *s, double *out)
{
    char *end;

    if (!((*s >= '0' && *s <= '9') || *s == '-' || *s == '+' || *s == '.'))
        return false; /* no leading blanks, no "nan", no "inf" */
    locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (!c)
        return false;
    *out = strtod_l(s, &end, c);
    freelocale(c);
    return *end == 0 && end != s && isfinite(*out);
}

static bool spells_bool(const char *s, bool *out)
{
    *out = strcmp(s, "true") == 0;
    return *out || strcmp(s, "false") == 0;
}

static void put_le(uint8_t *p, uint64_t v, size_t n)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

/* The value as a file would hold it, for every type but strings and arrays. */
static bool encode(ht_kv_type type, const char *s, uint8_t out[8])
{
    static const uint64_t int_max[13] = { UINT8_MAX, INT8_MAX,  UINT16_MAX, INT16_MAX, UINT32_MAX, INT32_MAX, 0, 1,
                                          0,         0,         UINT64_MAX, INT64_MAX, 0 };
    bool is_signed = type == HT_KV_I8 || type == HT_KV_I16 || type == HT_KV_I32 || type == HT_KV_I64;
    bool negative, b;
    uint64_t u;
    double d;

    if (type == HT_KV_F32 || type == HT_KV_F64) {
        if (!spells_float(s, &d) || (type == HT_KV_F32 && fabs(d) > 3.4028234663852886e38))
            return false;
        union { float f; uint32_t u; } x = { .f = type == HT_KV_F32 ? (float)d : 0.0f };
        union { double d; uint64_t u; } y = { .d = d };
        put_le(out, type == HT_KV_F32 ? x.u : y.u, ht_gguf_kv_bytes[type]);
        return true;
    }
    if (type == HT_KV_BOOL && spells_bool(s, &b)) {
        out[0] = b;
        return true;
    }
    if (!spells_int(s, &negative, &u) || (negative && !is_signed && u > 0))
        return false;
    if (u > int_max[type] + (negative && is_signed))
        return false;
    put_le(out, negative ? 0 - u : u, ht_gguf_kv_bytes[type]);
    return true;
}

static ht_kv_type guess_type(const char *key, const char *value)
{
    static const char activation[] = ".hidden_activation";
    size_t n = strlen(key);
    bool b, negative;
    uint64_t u;
    double d;

    if (n >= sizeof activation - 1 && strcmp(key + n - (sizeof activation - 1), activation) == 0)
        return HT_KV_STRING;
    if (spells_bool(value, &b))
        return HT_KV_BOOL;
    if (spells_int(value, &negative, &u))
        return negative || u <= INT64_MAX ? HT_KV_I64 : HT_KV_U64;
    if (spells_float(value, &d))
        return HT_KV_F64;
    return HT_KV_STRING;
}

ht_status ht_gguf_override(ht_gguf *g, const char *key, const char *value, ht_error *err)
{
    const ht_kv *old = ht_gguf_find(g, key);
    ht_kv_type type = old ? old->type : guess_type(key, value);
    size_t key_n = strlen(key), value_n = strlen(value);
    size_t bytes_n = type == HT_KV_STRING ? 8 + value_n : 8;
    ht_gguf_show shown = ht_gguf_show_str((ht_str){ value, value_n });
    uint8_t scalar[8] = { 0 };

    if (key_n == 0 || key_n > HT_GGUF_MAX_KEY)
        return ht_fail(err, HT_EINVAL, "override: a key has 1 to %d bytes, not %zu", HT_GGUF_MAX_KEY, key_n);
    if (type == HT_KV_ARRAY)
        return ht_fail(err, HT_EINVAL, "override: key '%s' of %s is an array, which cannot be replaced", key,
                       ht_gguf_short(g->files[0].path));
    if (type != HT_KV_STRING && !encode(type, value, scalar))
        return ht_fail(err, HT_EINVAL, "override: '%s' is no value for key '%s' of type %s", shown.s, key,
                       ht_gguf_kv_type_name(type));

    ht_gguf_extra *e = calloc(1, sizeof *e + bytes_n + key_n);
    if (!e)
        return ht_fail(err, HT_ENOMEM, "override: out of memory");
    if (type == HT_KV_STRING) {
        put_le(e->bytes, value_n, 8);
        memcpy(e->bytes + 8, value, value_n);
    } else {
        memcpy(e->bytes, scalar, 8);
    }
    if (old) {
        /* the object is ours to change, find() only promises not to */
        ((ht_kv *)(uintptr_t)old)->data = e->bytes;
    } else {
        memcpy(e->bytes + bytes_n, key, key_n);
        e->kv = (ht_kv){ { (const char *)e->bytes + bytes_n, key_n }, type, type, 1, e->bytes, UINT64_MAX };
        if (ht_gguf_index_add(g, &e->kv) != HT_OK) {
            free(e);
            return ht_fail(err, HT_ENOMEM, "override: out of memory");
        }
        e->added = true;
    }
    ht_gguf_extra **tail = &g->extra;
    while (*tail)
        tail = &(*tail)->next;
    *tail = e;
    return HT_OK;
}

void ht_gguf_extra_free(ht_gguf *g)
{
    while (g->extra) {
        ht_gguf_extra *next = g->extra->next;
        free(g->extra);
        g->extra = next;
    }
}
