/* SPDX-License-Identifier: MIT
 *
 * Reading of .npy files; see npy.h.
 *
 * Owner: see npy.h. Threads: one object, one thread. */
#include "tests/support/npy.h"

#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/os.h"

enum { MAX_DIMS = 4 };

typedef struct header {
    char descr[4]; /* "<i4" */
    bool fortran;
    uint32_t n_dims;
    uint64_t shape[MAX_DIMS];
    uint64_t count;   /* elements */
    uint64_t data_at; /* byte offset of the first */
} header;

/* ---- header ------------------------------------------------------------------------------------------------------ */

/* A cursor over the header's text, [p, end). */
typedef struct text { const char *p, *end; } text;

static void skip_blanks(text *t)
{
    while (t->p < t->end && (*t->p == ' ' || *t->p == '\n' || *t->p == '\t'))
        t->p++;
}

static bool take(text *t, char c)
{
    skip_blanks(t);
    if (t->p == t->end || *t->p != c)
        return false;
    t->p++;
    return true;
}

/* A quoted string of fewer than n characters. */
static bool take_string(text *t, char *out, size_t n)
{
    skip_blanks(t);
    if (t->p == t->end || (*t->p != '\'' && *t->p != '"'))
        return false;
    char quote = *t->p++;
    size_t k = 0;
    for (; t->p < t->end && *t->p != quote; t->p++) {
        if (k + 1 >= n)
            return false;
        out[k++] = *t->p;
    }
    out[k] = 0;
    return take(t, quote);
}

static bool take_word(text *t, const char *word)
{
    size_t n = strlen(word);

    skip_blanks(t);
    if ((size_t)(t->end - t->p) < n || memcmp(t->p, word, n) != 0)
        return false;
    t->p += n;
    return true;
}

/* "(3, 4)", "(3,)" or "()" */
static bool take_shape(text *t, header *h)
{
    if (!take(t, '('))
        return false;
    h->n_dims = 0;
    h->count = 1;
    while (!take(t, ')')) {
        uint64_t v = 0;
        const char *first = t->p; /* blanks were skipped by take */
        while (t->p < t->end && *t->p >= '0' && *t->p <= '9')
            if (__builtin_mul_overflow(v, 10u, &v) || __builtin_add_overflow(v, (uint64_t)(*t->p++ - '0'), &v))
                return false;
        if (t->p == first || h->n_dims == MAX_DIMS || __builtin_mul_overflow(h->count, v, &h->count))
            return false;
        h->shape[h->n_dims++] = v;
        if (!take(t, ',')) {
            if (!take(t, ')'))
                return false;
            break;
        }
    }
    return true;
}

static bool parse_dict(text t, header *h)
{
    bool descr = false, fortran = false, shape = false;
    char key[24];

    if (!take(&t, '{'))
        return false;
    while (!take(&t, '}')) {
        if (!take_string(&t, key, sizeof key) || !take(&t, ':'))
            return false;
        if (strcmp(key, "descr") == 0 && !descr) {
            descr = take_string(&t, h->descr, sizeof h->descr);
            if (!descr)
                return false;
        } else if (strcmp(key, "fortran_order") == 0 && !fortran) {
            h->fortran = take_word(&t, "True");
            fortran = true;
            if (!h->fortran && !take_word(&t, "False"))
                return false;
        } else if (strcmp(key, "shape") == 0 && !shape) {
            shape = take_shape(&t, h);
            if (!shape)
                return false;
        } else {
            return false;
        }
        if (!take(&t, ',')) {
            if (!take(&t, '}'))
                return false;
            break;
        }
    }
    return descr && fortran && shape;
}

static ht_status read_header(const ht_os_map *m, header *h, const char *path, ht_error *err)
{
    const uint8_t *b = m->data;

    *h = (header){ 0 };
    if (m->bytes < 12 || memcmp(b, "\x93NUMPY", 6) != 0)
        return ht_fail_at(err, HT_EFORMAT, 0, "%s: no .npy file", path);
    if (b[6] < 1 || b[6] > 3)
        return ht_fail_at(err, HT_EUNSUPPORTED, 6, "%s: .npy version %d.%d", path, b[6], b[7]);
    uint64_t start = b[6] == 1 ? 10 : 12;
    uint64_t n = b[6] == 1 ? (uint64_t)b[8] | (uint64_t)b[9] << 8
                           : (uint64_t)b[8] | (uint64_t)b[9] << 8 | (uint64_t)b[10] << 16 | (uint64_t)b[11] << 24;
    if (n > m->bytes - start)
        return ht_fail_at(err, HT_EFORMAT, 8, "%s: header length %" PRIu64 ", but only %" PRIu64 " bytes follow", path,
                          n, m->bytes - start);
    if (!parse_dict((text){ (const char *)b + start, (const char *)b + start + n }, h))
        return ht_fail_at(err, HT_EFORMAT, start, "%s: a header that is not understood", path);
    h->data_at = start + n;
    return HT_OK;
}

/* The bytes of h->count elements of that width, or a failure. */
static ht_status check_data(const ht_os_map *m, const header *h, uint64_t width, const char *path, ht_error *err)
{
    if (h->count > (m->bytes - h->data_at) / width)
        return ht_fail_at(err, HT_EFORMAT, h->data_at, "%s: %" PRIu64 " elements promised, but only %" PRIu64 " bytes",
                          path, h->count, m->bytes - h->data_at);
    return HT_OK;
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

static ht_status copy_i32(int32_t **out, uint64_t *n, const ht_os_map *m, const char *path, ht_error *err)
{
    header h;
    ht_status st = read_header(m, &h, path, err);

    if (st != HT_OK)
        return st;
    bool i8 = strcmp(h.descr, "<i8") == 0, u4 = strcmp(h.descr, "<u4") == 0;
    if (!i8 && !u4 && strcmp(h.descr, "<i4") != 0)
        return ht_fail(err, HT_EUNSUPPORTED, "%s: element type '%s', wanted <i4, <i8 or <u4", path, h.descr);
    if (h.n_dims != 1)
        return ht_fail(err, HT_EUNSUPPORTED, "%s: %u dimensions, wanted 1", path, h.n_dims);
    size_t width = i8 ? 8 : 4;
    if ((st = check_data(m, &h, width, path, err)) != HT_OK)
        return st;
    int32_t *v = malloc(h.count ? (size_t)h.count * sizeof *v : 1);
    if (!v)
        return ht_fail(err, HT_ENOMEM, "%s: out of memory", path);
    for (uint64_t i = 0; i < h.count; i++) {
        const uint8_t *p = m->data + h.data_at + i * width;
        int64_t x;
        int32_t y;
        uint32_t z;
        if (i8) {
            memcpy(&x, p, 8);
        } else if (u4) {
            memcpy(&z, p, 4);
            x = z;
        } else {
            memcpy(&y, p, 4);
            x = y;
        }
        if (x < INT32_MIN || x > INT32_MAX) {
            free(v);
            return ht_fail_at(err, HT_EFORMAT, h.data_at + i * width, "%s: element %" PRIu64 " is %" PRId64, path, i,
                              x);
        }
        v[i] = (int32_t)x;
    }
    *out = v;
    *n = h.count;
    return HT_OK;
}

ht_status ht_npy_read_i32(int32_t **out, uint64_t *n, const char *path, ht_error *err)
{
    ht_os_map m;
    ht_status st = ht_os_map_open(&m, path, err);

    *out = NULL;
    *n = 0;
    if (st != HT_OK)
        return st;
    st = copy_i32(out, n, &m, path, err);
    ht_os_map_close(&m);
    return st;
}

static ht_status copy_f32(float **out, uint64_t shape[2], const ht_os_map *m, const char *path, ht_error *err)
{
    header h;
    ht_status st = read_header(m, &h, path, err);

    if (st != HT_OK)
        return st;
    if (strcmp(h.descr, "<f4") != 0)
        return ht_fail(err, HT_EUNSUPPORTED, "%s: element type '%s', wanted <f4", path, h.descr);
    if (h.n_dims < 1 || h.n_dims > 2 || (h.fortran && h.n_dims > 1))
        return ht_fail(err, HT_EUNSUPPORTED, "%s: %u dimensions%s, wanted 1 or 2 in C order", path, h.n_dims,
                       h.fortran ? " in Fortran order" : "");
    if ((st = check_data(m, &h, sizeof(float), path, err)) != HT_OK)
        return st;
    float *v = malloc(h.count ? (size_t)h.count * sizeof *v : 1);
    if (!v)
        return ht_fail(err, HT_ENOMEM, "%s: out of memory", path);
    memcpy(v, m->data + h.data_at, (size_t)h.count * sizeof *v);
    *out = v;
    shape[0] = h.n_dims == 2 ? h.shape[0] : 1;
    shape[1] = h.shape[h.n_dims - 1];
    return HT_OK;
}

ht_status ht_npy_read_f32(float **out, uint64_t shape[2], const char *path, ht_error *err)
{
    ht_os_map m;
    ht_status st = ht_os_map_open(&m, path, err);

    *out = NULL;
    shape[0] = shape[1] = 0;
    if (st != HT_OK)
        return st;
    st = copy_f32(out, shape, &m, path, err);
    ht_os_map_close(&m);
    return st;
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */
