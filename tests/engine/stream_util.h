/* SPDX-License-Identifier: MIT
 *
 * What the tests of streamed models share: the same tokens through a model opened in some way, with some of its experts'
 * memory. Every function asserts on failure. */
#ifndef STREAM_UTIL_H
#define STREAM_UTIL_H

#include "engine/disk_impl.h"
#include "engine/objects.h"
#include "tests/engine/engine_util.h"

enum { BUDGETS = 8, TOKENS = 22, PROMPT = 9 };

typedef struct how {
    hearth_model_params p;
    ht_disk_params hooks;
    uint32_t budget;  /* of BUDGETS: 0 the floor, BUDGETS - 1 everything */
    bool chunks;      /* the prompt in pieces */
} how;

static inline hearth_model *open_how(const char *path, how h)
{
    hearth_model *m;
    hearth_error err;

    h.p.size = sizeof h.p;
    cr_assert_eq(ht_model_open(&m, path, &h.p, &h.hooks, &err), HEARTH_OK, "%s", err.text);
    return m;
}

static inline hearth_session *session_how(hearth_model *m, how h)
{
    hearth_session *s = util_session(m, 64, h.chunks ? 4 : 16, HEARTH_KV_F16);

    if (m->store.disk)
        m->slots = m->needs.floor + (m->needs.all - m->needs.floor) * h.budget / (BUDGETS - 1);
    return s;
}

static inline void feed(hearth_session *s, const int32_t *ids, size_t n, float *to, uint32_t n_vocab)
{
    struct util_rows rows = { to, n_vocab };
    hearth_error err;
    cr_assert_eq(hearth_session_feed(s, ids, n, util_store_row, &rows, &err), HEARTH_OK, "%s", err.text);
}

/* A prompt, tokens one by one, another turn, the last tokens once more after going back. */
static inline float *logits_of(const char *path, how h, size_t *bytes, hearth_stats *stats)
{
    hearth_model *m = open_how(path, h);
    hearth_session *s = session_how(m, h);
    const uint32_t n_vocab = util_n_vocab(m);
    int32_t ids[TOKENS];
    hearth_error err;
    float *all = malloc((TOKENS + 3) * (size_t)n_vocab * sizeof *all);

    cr_assert_not_null(all);
    for (uint32_t i = 0; i < TOKENS; i++)
        ids[i] = (int32_t)((i * i * 7 + 3 * i + 1) % n_vocab);
    feed(s, ids, PROMPT, all, n_vocab);
    for (uint32_t i = PROMPT; i < TOKENS - 4; i++)
        feed(s, ids + i, 1, all + (size_t)i * n_vocab, n_vocab);
    feed(s, ids + TOKENS - 4, 4, all + (size_t)(TOKENS - 4) * n_vocab, n_vocab);
    memset(all + (size_t)TOKENS * n_vocab, 0, 3 * (size_t)n_vocab * sizeof *all);
    if (hearth_session_rewind(s, TOKENS - 3, &err) == HEARTH_OK)
        feed(s, ids + TOKENS - 3, 3, all + (size_t)TOKENS * n_vocab, n_vocab);
    *bytes = (TOKENS + 3) * (size_t)n_vocab * sizeof *all;
    if (stats) {
        *stats = (hearth_stats){ .size = sizeof *stats };
        hearth_session_get_stats(s, stats);
    }
    hearth_session_close(&s);
    hearth_model_close(&m);
    return all;
}

/* The logits of `path`, streamed in many ways, are those of `plain` in memory, which `base` says how to open. thorough: every
 * budget, each in eight ways; else two. */
static inline void same_bits_as(const char *plain, const char *path, const char *name, how base, bool thorough)
{
    size_t n, n2;

    for (int f32 = 0; f32 < 2; f32++) {
        how h = base;
        h.p.threads = 2;
        h.p.io = HEARTH_IO_MMAP;
        h.p.precision = f32 ? HEARTH_PRECISION_F32 : 0;
        float *want = logits_of(plain, h, &n, NULL);
        for (uint32_t i = 0; i < BUDGETS; i += thorough && !util_sanitized() ? 1 : BUDGETS - 1)
            for (uint32_t way = 0; way < 8; way++) {
                if ((!thorough || util_sanitized()) && way != (i ? 6 : 1))
                    continue;
                h.budget = i;
                h.chunks = way & 4;
                h.p.threads = 1 + (way & 1);
                h.p.io = way & 2 ? HEARTH_IO_CACHED : HEARTH_IO_DIRECT;
                h.p.prefetch = (way ^ i) & 1 ? HEARTH_PREFETCH_ON : HEARTH_PREFETCH_OFF;
                h.hooks.no_uring = (way + i) & 1;
                float *got = logits_of(path, h, &n2, NULL);
                cr_assert_eq(n, n2);
                cr_expect_arr_eq(got, want, n, "%s, %s, budget %u, way %u", name, f32 ? "f32" : "fast", i, way);
                free(got);
            }
        free(want);
    }
}

static inline void same_bits(const char *path, const char *name, bool thorough)
{
    same_bits_as(path, path, name, (how){ 0 }, thorough);
}

#endif
