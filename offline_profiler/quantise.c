/* SPDX-License-Identifier: MIT
 * Encoding in threads and writing; see quantise.h. */
#include "offline_profiler/quantise.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/os.h"
#include "offline_profiler/profile.h"

enum { MAX_THREADS = 64, PIECE = 1 << 22 /* elements encoded at once */, SLICE = 1 << 15, COPY = 4 << 20 };

typedef struct slice {
    const ht_quantise *q;
    uint64_t source, first, n, row; /* elements; row: of one row */
    uint32_t type;
    uint8_t *dst;
    ht_error err;
} slice;

static void encode_slice(void *arg)
{
    slice *s = arg;
    const ht_type_info *t = ht_type_get(s->type);
    uint64_t rows = SLICE / s->row ? SLICE / s->row : 1;
    float *values = malloc(rows * s->row * sizeof *values);

    s->err = (ht_error){ .status = HT_OK };
    if (!values) {
        ht_fail(&s->err, HT_ENOMEM, "rows of %llu elements", (unsigned long long)s->row);
        return;
    }
    for (uint64_t at = 0; at < s->n && s->err.status == HT_OK;) {
        const uint64_t left = s->n - at, n = left < rows * s->row ? left : rows * s->row;
        if (hearth_file_read(s->q->file, s->source, s->first + at, n, values, (hearth_error *)(void *)&s->err))
            break;
        for (uint64_t i = 0; i < n; i++)
            if (!isfinite(values[i])) {
                ht_fail(&s->err, HT_EFORMAT, "tensor %s: element %llu is no finite number",
                        s->q->sources[s->source].name, (unsigned long long)s->first + at + i);
                break;
            }
        ht_type_quantise((ht_type)s->type, values, n, s->dst + ht_type_row_bytes(t, at));
        at += n;
    }
    free(values);
}

ht_status ht_quantise_encode(const ht_quantise *q, uint32_t source, uint64_t first, uint64_t n, uint32_t type, void *dst,
                             ht_error *err)
{
    const uint64_t row = q->sources[source].ne[0], rows = n / row;
    const ht_type_info *t = ht_type_get(type);
    slice s[MAX_THREADS];
    ht_os_thread threads[MAX_THREADS];
    uint32_t n_slices = 0, started = 0;
    const uint64_t share = (rows + q->threads - 1) / q->threads;

    for (uint64_t r = 0; r < rows; r += share) {
        const uint64_t k = rows - r < share ? rows - r : share;
        s[n_slices++] = (slice){ .q = q, .source = source, .first = first + r * row, .n = k * row, .row = row, .type = type,
                                 .dst = (uint8_t *)dst + ht_type_row_bytes(t, r * row) };
    }
    for (uint32_t i = 1; i < n_slices && ht_os_thread_start(&threads[i], encode_slice, &s[i], "quantise") == HT_OK; i++)
        started = i;
    for (uint32_t i = 0; i < n_slices; i = i == 0 ? started + 1 : i + 1)
        encode_slice(&s[i]); /* the first, and those for which there was no thread */
    for (uint32_t i = 1; i <= started; i++)
        ht_os_thread_join(&threads[i]);
    for (uint32_t i = 0; i < n_slices; i++)
        if (s[i].err.status != HT_OK) {
            if (err)
                *err = s[i].err;
            return s[i].err.status;
        }
    return HT_OK;
}

static bool goes_on(const ht_quantise *q, uint64_t done, uint64_t total)
{
    return !q->p.progress || q->p.progress(q->p.progress_user, "encoding", done, total);
}

/* Elements of a piece: whole rows. */
static uint64_t piece_of(const ht_source *s)
{
    const uint64_t rows = PIECE / s->ne[0];
    return (rows ? rows : 1) * s->ne[0];
}

static ht_status write_target(const ht_quantise *q, hearth_writer *w, const ht_target *t, uint8_t *buffer, uint64_t *done,
                              hearth_error *err)
{
    const ht_source *s = &q->sources[t->source];
    hearth_status st = HEARTH_OK;

    if (s->bytes == 0)
        return HT_OK;
    if (s->kind == HT_SOURCE_COPY || t->type == s->type) {
        const uint64_t row = s->bytes / (s->elements / s->ne[0]), step = row < COPY ? COPY / row : 1;
        const uint64_t first = t->first / s->ne[0], n = t->n / s->ne[0];
        for (uint64_t at = 0; at < n && st == HEARTH_OK; at += step) {
            const uint64_t k = n - at < step ? n - at : step;
            if ((st = hearth_file_read_raw(q->file, t->source, first + at, k, buffer, err)) == HEARTH_OK)
                st = hearth_writer_raw(w, buffer, (size_t)(k * row), err);
            *done += k * row;
            if (!goes_on(q, *done, q->r.bytes_out))
                return ht_fail(ht_profile_err(err), HT_ECANCELLED, "cancelled by the caller");
        }
        return (ht_status)st;
    }
    const uint64_t piece = piece_of(s);
    for (uint64_t at = 0; at < t->n && st == HEARTH_OK; at += piece) {
        const uint64_t k = t->n - at < piece ? t->n - at : piece;
        const size_t bytes = ht_type_row_bytes(ht_type_get(t->type), k);
        st = (hearth_status)ht_quantise_encode(q, t->source, t->first + at, k, t->type, buffer, ht_profile_err(err));
        if (st == HEARTH_OK)
            st = hearth_writer_raw(w, buffer, bytes, err);
        *done += bytes;
        if (!goes_on(q, *done, q->r.bytes_out))
            return ht_fail(ht_profile_err(err), HT_ECANCELLED, "cancelled by the caller");
    }
    return (ht_status)st;
}

/* How files of the ggml family number a whole model's type. */
static int file_type(uint32_t type)
{
    static const struct { uint32_t type, number; } list[] = {
        { HT_F32, 0 },   { HT_F16, 1 },   { HT_Q4_0, 2 },  { HT_Q4_1, 3 },    { HT_Q8_0, 7 },    { HT_Q5_0, 8 },
        { HT_Q5_1, 9 },  { HT_Q2_K, 10 }, { HT_Q3_K, 11 }, { HT_Q4_K, 14 },   { HT_Q5_K, 16 },   { HT_Q6_K, 18 },
        { HT_IQ4_NL, 25 }, { HT_IQ4_XS, 30 }, { HT_BF16, 32 }, { HT_TQ1_0, 36 }, { HT_TQ2_0, 37 }, { HT_MXFP4, 38 },
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++)
        if (list[i].type == type)
            return (int)list[i].number;
    return -1;
}

static hearth_status declare(const ht_quantise *q, hearth_writer *w, hearth_error *err)
{
    hearth_status st = HEARTH_OK;
    for (uint32_t i = 0; i < q->n_targets && st == HEARTH_OK; i++) {
        const ht_target *t = &q->targets[i];
        const ht_source *s = &q->sources[t->source];
        st = s->kind == HT_SOURCE_COPY || (t->type == s->type && !t->name[0])
                 ? hearth_writer_declare_like(w, q->file, t->source, err)
                 : hearth_writer_declare(w, t->name[0] ? t->name : s->name, ht_type_name(t->type), t->n_dims, t->ne, err);
    }
    return st;
}

ht_status ht_quantise_write(ht_quantise *q, const char *path, ht_error *err)
{
    hearth_error *error = (hearth_error *)(void *)err;
    hearth_writer *w = NULL;
    uint64_t done = 0, most = COPY;
    hearth_status st;

    for (uint32_t i = 0; i < q->n_targets; i++) {
        const ht_source *s = &q->sources[q->targets[i].source];
        const uint64_t row = s->bytes ? s->bytes / (s->elements / s->ne[0]) : 0;
        const uint64_t n = s->kind == HT_SOURCE_COPY ? row : ht_type_row_bytes(ht_type_get(q->targets[i].type), piece_of(s));
        most = row > most ? row : most;
        most = n > most ? n : most;
    }
    uint8_t *buffer = malloc(most);
    if (!buffer)
        return ht_fail(err, HT_ENOMEM, "%llu bytes for encoding", (unsigned long long)most);
    if ((st = hearth_writer_open(&w, path, error)) == HEARTH_OK) {
        const int number = file_type(q->widths[0]);
        hearth_writer_copy(w, q->file, NULL, 0);
        if (number >= 0)
            hearth_writer_set_u32(w, "general.file_type", (uint32_t)number);
        hearth_writer_set_u32(w, "general.quantization_version", 2);
        st = declare(q, w, error);
    }
    for (uint32_t i = 0; i < q->n_targets && st == HEARTH_OK; i++)
        st = (hearth_status)write_target(q, w, &q->targets[i], buffer, &done, error);
    if (st == HEARTH_OK)
        st = hearth_writer_close(&w, error);
    hearth_writer_abort(&w);
    free(buffer);
    return (ht_status)st;
}

static ht_status start(ht_quantise *q, const char *in, ht_error *err)
{
    const int type = q->p.type ? ht_type_by_name(q->p.type) : -1;
    hearth_hardware hw = { .size = sizeof hw };
    hearth_status st;

    if (type < 0 || !ht_type_can_quantise((ht_type)type))
        return ht_fail(err, HT_EUNSUPPORTED, "weights cannot be written as \"%.20s\"", q->p.type ? q->p.type : "");
    q->widths[0] = (uint32_t)type;
    q->n_widths = 1;
    q->threads = q->p.threads;
    if (!q->threads && hearth_hardware_read(&hw, false, NULL, NULL) == HEARTH_OK)
        q->threads = hw.default_threads;
    q->threads = q->threads < 1 ? 1 : q->threads > MAX_THREADS ? MAX_THREADS : q->threads;
    if ((st = hearth_file_open(&q->file, in, (hearth_error *)(void *)err)) != HEARTH_OK)
        return (ht_status)st;
    return ht_quantise_sources(q, err);
}

hearth_status hearth_quantise(const char *in, const char *out, const hearth_quantise_params *params,
                              hearth_quantise_result *result, hearth_error *error)
{
    ht_error *err = ht_profile_err(error);
    ht_quantise q = { 0 };
    char trial[4200];
    ht_status st;

    ht_profile_params(&q.p, sizeof q.p, params);
    if ((size_t)snprintf(trial, sizeof trial, "%s.trial", out) >= sizeof trial)
        return (hearth_status)ht_fail(err, HT_EINVAL, "the output's path is too long");
    if ((st = start(&q, in, err)) == HT_OK && q.p.per_expert)
        st = ht_quantise_choose(&q, in, trial, err);
    if (st == HT_OK && (st = ht_quantise_targets(&q, err)) == HT_OK)
        st = ht_quantise_write(&q, out, err);
    if (st == HT_OK && result) {
        for (uint32_t i = 0; i < q.n_widths; i++)
            q.r.widths[i] = ht_type_name(q.widths[i]);
        q.r.n_widths = q.n_widths;
        ht_profile_result(result, &q.r, sizeof q.r);
    }
    ht_quantise_free(&q);
    return (hearth_status)st;
}
