/* SPDX-License-Identifier: MIT
 * Recorded routing as a file: text, "route_trace v1", read and written by other programs too.
 *
 *   # route_trace v1
 *   # model=NAME arch=NAME n_layer=48 n_expert=128 n_expert_used=8 fingerprint=HEX
 *   # layer=0 expert_bytes=3059712 dense_bytes=11953152        (one line a layer)
 *   turn,phase,step,layer,slot,expert,weight,residency,expert_bytes
 *   0,0,0,0,0,49,0.221297,0,3059712
 *
 * The fingerprint (hearth_model_fingerprint) may be left out. phase 0 is a prompt, 1 is generated; step is the position; residency and the last column are what some cache did at that
 * moment: written as 0 and the expert's size, and not read. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/os.h"
#include "offline_profiler/routes.h"

enum { MAX_LINE = 4096, MAX_LAYERS = 4096, MAX_EXPERTS = 65536, MAX_USED = 256, MAX_UNITS = 1 << 19 };

/* ---- Reading ---- */

/* "key=123" within a line; false: not there, or no number up to most. */
static bool number_of(const char *line, const char *key, uint64_t most, uint64_t *out)
{
    const size_t n = strlen(key);
    for (const char *p = line; (p = strstr(p, key)); p += n) {
        if ((p != line && p[-1] != ' ') || p[n] != '=')
            continue;
        char *end;
        if (p[n + 1] < '0' || p[n + 1] > '9')
            return false;
        errno = 0;
        unsigned long long v = strtoull(p + n + 1, &end, 10);
        if (errno || v > most || (*end && *end != ' ' && *end != '\n' && *end != '\r'))
            return false;
        *out = v;
        return true;
    }
    return false;
}

static void word_of(const char *line, const char *key, char *out, size_t room)
{
    const char *p = strstr(line, key);
    size_t n = 0;
    if (p)
        for (p += strlen(key); p[n] && !strchr(" \r\n", p[n]) && n + 1 < room; n++)
            out[n] = p[n];
    out[n] = 0;
}

static ht_status read_shape(hearth_routes *r, const char *line, const char *path, ht_error *err)
{
    uint64_t layers, experts, used;
    if (!number_of(line, "n_layer", MAX_LAYERS, &layers) || !number_of(line, "n_expert", MAX_EXPERTS, &experts) ||
        !number_of(line, "n_expert_used", experts < MAX_USED ? experts : MAX_USED, &used) || !layers || !experts || !used)
        return ht_fail(err, HT_EFORMAT, "%s: n_layer, n_expert or n_expert_used is missing or makes no sense", path);
    if (layers * experts > MAX_UNITS)
        return ht_fail(err, HT_EFORMAT, "%s: %llu layers of %llu experts are more than any model has", path,
                       (unsigned long long)layers, (unsigned long long)experts);
    if (r->n_layer)
        return ht_fail(err, HT_EFORMAT, "%s: two lines tell the model's shape", path);
    word_of(line, "model=", r->model, sizeof r->model);
    word_of(line, "arch=", r->arch, sizeof r->arch);
    word_of(line, " fingerprint=", r->fingerprint, sizeof r->fingerprint);
    if (r->fingerprint[0] && (strlen(r->fingerprint) != 32 || r->fingerprint[strspn(r->fingerprint, "0123456789abcdef")]))
        return ht_fail(err, HT_EFORMAT, "%s: the fingerprint is not 32 hexadecimal digits", path);
    r->n_layer = (uint32_t)layers;
    r->n_expert = (uint32_t)experts;
    r->n_used = (uint32_t)used;
    r->expert_bytes = calloc(layers, sizeof *r->expert_bytes);
    r->dense_bytes = calloc(layers, sizeof *r->dense_bytes);
    return r->expert_bytes && r->dense_bytes ? HT_OK : ht_fail(err, HT_ENOMEM, "%s", path);
}

/* A decimal number as printf's %g writes it, whatever the locale. */
static bool read_weight(const char **p, float *out)
{
    double v = 0, scale = 1;
    const char *s = *p;
    bool any = false;
    for (; *s >= '0' && *s <= '9'; s++, any = true)
        v = 10 * v + (*s - '0');
    if (*s == '.')
        for (s++; *s >= '0' && *s <= '9'; s++, any = true)
            v += (*s - '0') * (scale /= 10);
    if (any && *s == 'e' && (s[1] == '-' || s[1] == '+')) {
        const bool small = s[1] == '-';
        int e = 0;
        for (s += 2; *s >= '0' && *s <= '9' && e < 100; s++)
            e = 10 * e + (*s - '0');
        while (e-- > 0)
            v = small ? v / 10 : v * 10;
    }
    *p = s;
    *out = (float)v;
    return any && v <= 1e6;
}

static ht_status read_row(hearth_routes *r, const char *line, const char *path, size_t at, ht_error *err)
{
    static const char *const names[] = { "turn", "phase", "step", "layer", "slot", "expert" };
    const uint64_t most[] = { UINT32_MAX - 1, 1, UINT32_MAX - 1, r->n_layer - 1, r->n_used - 1, r->n_expert - 1 };
    uint64_t v[6];
    ht_route_row row = { 0 };

    for (int i = 0; i < 6; i++) {
        char *end = NULL;
        errno = 0;
        v[i] = *line >= '0' && *line <= '9' ? strtoull(line, &end, 10) : UINT64_MAX;
        if (!end || *end != ',' || errno || v[i] > most[i])
            return ht_fail(err, HT_EFORMAT, "%s, line %zu: %s must be a number up to %llu", path, at, names[i],
                           (unsigned long long)most[i]);
        line = end + 1;
    }
    if (!read_weight(&line, &row.weight) || !strchr(",\r\n", *line))
        return ht_fail(err, HT_EFORMAT, "%s, line %zu: the weight is no number", path, at);
    row.turn = (uint32_t)v[0];
    row.generated = v[1] == 1;
    row.step = (uint32_t)v[2];
    row.layer = (uint32_t)v[3];
    row.slot = (uint32_t)v[4];
    row.expert = (uint32_t)v[5];
    if (r->n_rows == r->room) {
        size_t room = 2 * r->room + 4096;
        ht_route_row *more = realloc(r->rows, room * sizeof *more);
        if (!more)
            return ht_fail(err, HT_ENOMEM, "%s: %zu rows", path, room);
        r->rows = more;
        r->room = room;
    }
    r->rows[r->n_rows++] = row;
    return HT_OK;
}

static int by_row(const void *a, const void *b)
{
    const ht_route_row *x = a, *y = b;
    const uint32_t kx[] = { x->turn, x->generated, x->step, x->layer, x->slot },
                   ky[] = { y->turn, y->generated, y->step, y->layer, y->slot };
    for (int i = 0; i < 5; i++)
        if (kx[i] != ky[i])
            return kx[i] < ky[i] ? -1 : 1;
    return 0;
}

static ht_status read_lines(hearth_routes *r, FILE *f, const char *path, ht_error *err)
{
    char line[MAX_LINE];
    ht_status st = HT_OK;

    if (!fgets(line, sizeof line, f) || strncmp(line, "# route_trace v1", 16) != 0)
        return ht_fail(err, HT_EFORMAT, "%s is no recorded routing: its first line is not '# route_trace v1'", path);
    for (size_t at = 2; st == HT_OK && fgets(line, sizeof line, f); at++) {
        uint64_t layer, bytes, dense = 0;
        if (strlen(line) + 1 == sizeof line)
            return ht_fail(err, HT_EFORMAT, "%s, line %zu is too long", path, at);
        if (line[0] == '#' && strstr(line, "n_layer=")) {
            st = read_shape(r, line, path, err);
        } else if (line[0] == '#' && number_of(line, "layer", UINT32_MAX, &layer)) {
            if (layer >= r->n_layer || !number_of(line, "expert_bytes", 1ull << 40, &bytes))
                return ht_fail(err, HT_EFORMAT, "%s, line %zu: a layer that there is not, or no expert_bytes", path, at);
            number_of(line, "dense_bytes", 1ull << 50, &dense);
            r->expert_bytes[layer] = bytes;
            r->dense_bytes[layer] = dense;
        } else if (line[0] >= '0' && line[0] <= '9') {
            if (!r->n_layer)
                return ht_fail(err, HT_EFORMAT, "%s, line %zu: a row before the line with n_layer", path, at);
            st = read_row(r, line, path, at, err);
        } else if (line[0] != '#' && strncmp(line, "turn,", 5) != 0 && line[0] != '\n' && line[0] != '\r') {
            return ht_fail(err, HT_EFORMAT, "%s, line %zu is no row", path, at);
        }
    }
    if (st == HT_OK && ferror(f))
        st = ht_fail(err, HT_EIO, "%s: cannot read: %s", path, strerror(errno));
    if (st != HT_OK)
        return st;
    if (!r->n_rows || !r->rows) {
        ht_fail(err, HT_EFORMAT, "%s holds no rows", path);
        return HT_EFORMAT;
    }
    qsort(r->rows, r->n_rows, sizeof *r->rows, by_row);
    for (size_t k = 0; k < r->n_rows; k++) {
        const ht_route_row *w = &r->rows[k];
        if (!r->expert_bytes[w->layer])
            return ht_fail(err, HT_EFORMAT, "%s: layer %u has rows but no expert_bytes", path, w->layer);
        for (size_t j = k; j-- > 0 && r->rows[j].layer == w->layer && r->rows[j].step == w->step &&
                           r->rows[j].turn == w->turn && r->rows[j].generated == w->generated;)
            if (r->rows[j].expert == w->expert || r->rows[j].slot == w->slot)
                return ht_fail(err, HT_EFORMAT, "%s: step %u of layer %u names expert %u or a slot twice", path, w->step,
                               w->layer, w->expert);
    }
    return HT_OK;
}

hearth_status hearth_routes_read(hearth_routes **out, const char *path, hearth_error *error)
{
    ht_error *err = ht_profile_err(error);
    hearth_routes *r = calloc(1, sizeof *r);
    ht_status st;

    *out = NULL;
    if (!r)
        return (hearth_status)ht_fail(err, HT_ENOMEM, "%s", path);
    FILE *f = fopen(path, "rbe");
    if (!f) {
        st = ht_fail(err, HT_EIO, "%s: cannot open: %s", path, strerror(errno));
    } else {
        errno = 0;
        st = read_lines(r, f, path, err);
        fclose(f);
    }
    if (st != HT_OK)
        hearth_routes_close(&r);
    *out = r;
    return (hearth_status)st;
}

/* ---- Writing ---- */

/* One line of text; the stream remembers a failure. */
static void put_line(FILE *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void put_line(FILE *f, const char *fmt, ...)
{
    char line[MAX_LINE];
    va_list ap;
    va_start(ap, fmt);
    const int n = vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    fwrite(line, 1, n < 0 ? 0 : n < (int)sizeof line ? (size_t)n : sizeof line - 1, f);
}

static void write_rows(const hearth_routes *r, const ht_route_row *rows, FILE *f)
{
    put_line(f, "# route_trace v1\n# model=%s arch=%s n_layer=%u n_expert=%u n_expert_used=%u%s%s\n",
             r->model[0] ? r->model : "unnamed", r->arch, r->n_layer, r->n_expert, r->n_used,
             r->fingerprint[0] ? " fingerprint=" : "", r->fingerprint);
    for (uint32_t i = 0; i < r->n_layer; i++)
        put_line(f, "# layer=%u expert_bytes=%llu dense_bytes=%llu\n", i, (unsigned long long)r->expert_bytes[i],
                (unsigned long long)r->dense_bytes[i]);
    put_line(f, "turn,phase,step,layer,slot,expert,weight,residency,expert_bytes\n");
    for (size_t k = 0; k < r->n_rows; k++) {
        const ht_route_row *w = &rows[k];
        const double clean = w->weight > 0.0f && w->weight < 1000.0f ? (double)w->weight : 0.0;
        const uint64_t millionths = (uint64_t)(clean * 1e6 + 0.5); /* printf would write the locale's point */
        put_line(f, "%u,%d,%u,%u,%u,%u,%u.%06u,0,%llu\n", w->turn, w->generated, w->step, w->layer, w->slot, w->expert,
                (unsigned)(millionths / 1000000), (unsigned)(millionths % 1000000),
                (unsigned long long)r->expert_bytes[w->layer]);
    }
}

hearth_status hearth_routes_write(const hearth_routes *r, const char *path, hearth_error *error)
{
    ht_error *err = ht_profile_err(error);
    const bool direct = ht_os_is_special(path);
    const size_t n = strlen(path) + 5;
    char *fresh = malloc(n);
    ht_route_row *rows = malloc((r->n_rows + 1) * sizeof *rows);
    ht_status st = HT_OK;

    if (!fresh || !rows) {
        st = ht_fail(err, HT_ENOMEM, "%s", path);
        goto done;
    }
    if (r->n_rows)
        memcpy(rows, r->rows, r->n_rows * sizeof *rows);
    qsort(rows, r->n_rows, sizeof *rows, by_row); /* a prompt was heard layer by layer */
    snprintf(fresh, n, "%s%s", path, direct ? "" : ".new");
    errno = 0;
    FILE *f = fopen(fresh, "wbe");
    bool good = f != NULL;
    if (f) {
        write_rows(r, rows, f);
        good = !ferror(f);
        good &= fclose(f) == 0;
    }
    if (!good || (!direct && rename(fresh, path) != 0)) {
        st = ht_fail(err, HT_EIO, "%s: cannot write: %s", path, strerror(errno));
        if (!direct && f)
            remove(fresh);
    }
done:
    free(rows);
    free(fresh);
    return (hearth_status)st;
}
