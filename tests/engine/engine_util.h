/* SPDX-License-Identifier: MIT
 *
 * What the engine's tests share: paths, opening models, logits of a sequence. Every function asserts on failure. */
#ifndef ENGINE_UTIL_H
#define ENGINE_UTIL_H

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/hearth.h"
#include "tests/support/npy.h"

/* Sanitizer builds run these tests too, ten times slower: heavy loops shrink there. */
static inline bool util_sanitized(void)
{
    return HEARTH_TEST_SANITIZE[0] != 0;
}

static inline const char *util_golden(char buf[512], const char *file)
{
    snprintf(buf, 512, "%s/golden/%s", HEARTH_TEST_DATA, file);
    return buf;
}

static inline const char *util_shared(char buf[512], const char *file)
{
    snprintf(buf, 512, "%s/golden/%s", HEARTH_SHARED_DIR, file);
    return buf;
}

static inline bool util_have_shared(void)
{
    return access(HEARTH_SHARED_DIR "/golden/MANIFEST.md", R_OK) == 0;
}

static inline hearth_model *util_open(const char *path, hearth_model_params p)
{
    hearth_model *m;
    hearth_error err;
    p.size = sizeof p;
    cr_assert_eq(hearth_model_open(&m, path, &p, &err), HEARTH_OK, "%s", err.text);
    return m;
}

/* A small packed golden model with two threads. */
static inline hearth_model *util_open_golden(const char *name, hearth_precision precision)
{
    char path[512], file[64];
    snprintf(file, sizeof file, "%s.gguf", name);
    return util_open(util_golden(path, file), (hearth_model_params){ .threads = 2, .precision = precision });
}

static inline hearth_session *util_session(hearth_model *m, uint32_t n_ctx, uint32_t batch, hearth_kv_type kv)
{
    hearth_session *s;
    hearth_error err;
    hearth_session_params p = { .size = sizeof p, .n_ctx = n_ctx, .batch = batch, .kv_type = kv };
    cr_assert_eq(hearth_session_open(&s, m, &p, &err), HEARTH_OK, "%s", err.text);
    return s;
}

static inline uint32_t util_n_vocab(const hearth_model *m)
{
    hearth_model_info info = { .size = sizeof info };
    cr_assert_eq(hearth_model_get_info(m, &info), HEARTH_OK);
    return info.n_vocab;
}

struct util_rows {
    float *to;
    uint32_t n_vocab;
};

static inline bool util_store_row(void *user, size_t i, const float *logits)
{
    struct util_rows *r = user;
    memcpy(r->to + i * r->n_vocab, logits, r->n_vocab * sizeof *logits);
    return true;
}

/* Logits after each of n ids, [n][n_vocab], in a context of n; free. */
static inline float *util_logits(hearth_model *m, const int32_t *ids, size_t n, uint32_t batch, hearth_kv_type kv)
{
    struct util_rows rows = { NULL, util_n_vocab(m) };
    hearth_session *s = util_session(m, (uint32_t)n, batch, kv);
    hearth_error err;
    rows.to = malloc(n * rows.n_vocab * sizeof(float));
    cr_assert_not_null(rows.to);
    cr_assert_eq(hearth_session_feed(s, ids, n, util_store_row, &rows, &err), HEARTH_OK, "%s", err.text);
    hearth_session_close(&s);
    return rows.to;
}

static inline int32_t *util_read_ids(const char *path, uint64_t *n)
{
    int32_t *ids;
    ht_error err;
    cr_assert_eq(ht_npy_read_i32(&ids, n, path, &err), HT_OK, "%s", err.text);
    return ids;
}

static inline float *util_read_rows(const char *path, uint64_t shape[2])
{
    float *v;
    ht_error err;
    cr_assert_eq(ht_npy_read_f32(&v, shape, path, &err), HT_OK, "%s", err.text);
    return v;
}

#endif
