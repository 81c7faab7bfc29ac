/* SPDX-License-Identifier: MIT
 * Reading and writing of .npy files; see npy.h. */
#include "tools/npy.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static const char magic[6] = { '\x93', 'N', 'U', 'M', 'P', 'Y' };

/* A header's text after "'key':", or NULL. */
static const char *value_of(const char *head, const char *key)
{
    char quoted[40];
    snprintf(quoted, sizeof quoted, "'%s'", key);
    const char *p = strstr(head, quoted);
    if (!p)
        return NULL;
    p += strlen(quoted);
    p += strspn(p, " ");
    if (*p != ':')
        return NULL;
    p++;
    return p + strspn(p, " ");
}

static int64_t element(const unsigned char *p, int width, bool is_signed, bool big)
{
    uint64_t v = 0;
    for (int i = 0; i < width; i++)
        v |= (uint64_t)p[big ? width - 1 - i : i] << (8 * i);
    if (is_signed && width < 8 && (v >> (8 * width - 1)))
        v |= ~(uint64_t)0 << (8 * width);
    if (!is_signed && v > INT64_MAX)
        return INT64_MAX;
    return (int64_t)v;
}

/* Reads the elements behind a header that has been understood. */
static ht_npy_status read_elements(FILE *f, uint64_t count, int width, bool is_signed, bool big, int32_t **ids,
                                   char *why, size_t why_bytes)
{
    /* The header is not believed: memory grows with what is there. */
    size_t room = 0;
    int32_t *v = NULL;
    unsigned char block[1024 * 8];
    for (uint64_t done = 0; done < count;) {
        size_t part = count - done < 1024 ? (size_t)(count - done) : 1024;
        if (fread(block, (size_t)width, part, f) != part) {
            snprintf(why, why_bytes, "ends after less than the %" PRIu64 " elements of its header", count);
            free(v);
            return HT_NPY_UNFIT;
        }
        if (done + part > room) {
            room = 2 * room + 1024;
            int32_t *more = realloc(v, room * sizeof *v);
            if (!more) {
                snprintf(why, why_bytes, "out of memory");
                free(v);
                return HT_NPY_UNREADABLE;
            }
            v = more;
        }
        for (size_t i = 0; i < part; i++) {
            int64_t id = element(block + i * (size_t)width, width, is_signed, big);
            if (id < 0 || id > INT32_MAX) {
                snprintf(why, why_bytes, "element %" PRIu64 " is no token id", done + i);
                free(v);
                return HT_NPY_UNFIT;
            }
            v[done + i] = (int32_t)id;
        }
        done += part;
    }
    *ids = v;
    return HT_NPY_OK;
}

static ht_npy_status read_open(FILE *f, int32_t **ids, size_t *n, char *why, size_t why_bytes)
{
    unsigned char fixed[8], length[4] = { 0 };
    char head[4097];
    if (fread(fixed, 1, 8, f) != 8 || memcmp(fixed, magic, 6)) {
        snprintf(why, why_bytes, "is no .npy file");
        return HT_NPY_UNFIT;
    }
    size_t wide = fixed[6] == 1 ? 2 : 4;
    if (fixed[6] < 1 || fixed[6] > 3 || fread(length, 1, wide, f) != wide) {
        snprintf(why, why_bytes, "has .npy version %d.%d, which is not known", fixed[6], fixed[7]);
        return HT_NPY_UNFIT;
    }
    uint32_t n_head = length[0] | (uint32_t)length[1] << 8 | (uint32_t)length[2] << 16 | (uint32_t)length[3] << 24;
    if (n_head >= sizeof head || fread(head, 1, n_head, f) != n_head) {
        snprintf(why, why_bytes, "has a damaged header");
        return HT_NPY_UNFIT;
    }
    head[n_head] = 0;
    const char *descr = value_of(head, "descr"), *shape = value_of(head, "shape");
    if (!descr || !shape || strlen(head) != n_head || descr[0] != '\'' || shape[0] != '(') {
        snprintf(why, why_bytes, "has a damaged header");
        return HT_NPY_UNFIT;
    }
    char order = descr[1], kind = descr[2], width = (char)(descr[3] - '0');
    bool known =
        strchr("<>|=", order) && (kind == 'i' || kind == 'u') && (width == 1 || width == 2 || width == 4 || width == 8);
    if (!order || !known || descr[4] != '\'') {
        snprintf(why, why_bytes, "holds no integers");
        return HT_NPY_UNFIT;
    }
    char *end;
    errno = 0;
    unsigned long long count = strtoull(shape + 1, &end, 10);
    if (errno || end == shape + 1 || end[0] != ',' || end[1 + strspn(end + 1, " ")] != ')' || count > INT32_MAX) {
        snprintf(why, why_bytes, "is not one-dimensional");
        return HT_NPY_UNFIT;
    }
    *n = (size_t)count;
    return read_elements(f, count, width, kind == 'i', order == '>', ids, why, why_bytes);
}

ht_npy_status ht_npy_read_ids(const char *path, int32_t **ids, size_t *n, char *why, size_t why_bytes)
{
    *ids = NULL;
    *n = 0;
    FILE *f = fopen(path, "rb");
    if (!f) {
        snprintf(why, why_bytes, "%s", strerror(errno));
        return HT_NPY_UNREADABLE;
    }
    ht_npy_status st = read_open(f, ids, n, why, why_bytes);
    fclose(f);
    return st;
}

int ht_npy_write_head(FILE *f, const uint64_t *shape, uint32_t n_dims)
{
    char head[256];
    int n = snprintf(head, sizeof head, "{'descr': '<f4', 'fortran_order': False, 'shape': (");
    for (uint32_t i = 0; i < n_dims && n < 200; i++)
        n += snprintf(head + n, sizeof head - (size_t)n,
                      n_dims == 1 ? "%" PRIu64 ","
                      : i         ? ", %" PRIu64
                                  : "%" PRIu64,
                      shape[i]);
    n += snprintf(head + n, sizeof head - (size_t)n, "), }");
    /* magic, version, length and header together fill a multiple of 64 bytes. */
    while ((10 + n + 1) % 64)
        head[n++] = ' ';
    head[n++] = '\n';
    unsigned char fixed[10] = { 0, 0, 0, 0, 0, 0, 1, 0, (unsigned char)(n & 255), (unsigned char)(n >> 8) };
    memcpy(fixed, magic, 6);
    return fwrite(fixed, 1, 10, f) == 10 && fwrite(head, 1, (size_t)n, f) == (size_t)n ? 0 : -1;
}
