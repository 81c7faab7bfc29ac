/* SPDX-License-Identifier: MIT
 * What the profiler's tests share. Every function asserts on failure. */
#ifndef PROFILER_UTIL_H
#define PROFILER_UTIL_H

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "offline_profiler/profile.h"

/* A golden model whose hidden units are ReLU's, as GGUF does not say by itself. */
static inline hearth_model *util_open_relu(const char *name, const char *architecture)
{
    char path[512], override[100];
    const char *const overrides[] = { override };
    hearth_error err;
    hearth_model *m;
    snprintf(path, sizeof path, "%s/golden/%s.gguf", HEARTH_TEST_DATA, name);
    snprintf(override, sizeof override, "%s.hidden_activation=relu", architecture);
    hearth_model_params p = { .size = sizeof p, .threads = 2, .overrides = overrides, .n_overrides = 1 };
    cr_assert_eq(hearth_model_open(&m, path, &p, &err), HEARTH_OK, "%s", err.text);
    return m;
}

static inline const char *util_path(const char *name)
{
    static char paths[8][300];
    static unsigned next;
    char *path = paths[next++ % 8];
    snprintf(path, 300, "%s/hearth-profiler-%d-%s", P_tmpdir, (int)getpid(), name);
    return path;
}

static inline char *util_read(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    cr_assert_not_null(f, "%s", path);
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    char *bytes = malloc(*n + 1);
    cr_assert_eq(fread(bytes, 1, *n, f), *n);
    bytes[*n] = 0;
    fclose(f);
    return bytes;
}

static inline void util_write(const char *path, const void *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");
    cr_assert(f && fwrite(bytes, 1, n, f) == n && !fclose(f), "%s", path);
}

/* Text of about n bytes that is no two times the same. */
static inline char *util_text(size_t n)
{
    static const char *const words[] = { "the ",  "old ",   "fisherman ", "went ", "down ",   "to ", "sea, ",   "and ",
                                         "queen", "said: ", "come\n",     "back ", "before ", "it ", "is dark", ". " };
    char *text = malloc(n + 16);
    size_t at = 0;
    uint32_t state = 12345;
    while (at < n) {
        state = state * 1664525u + 1013904223u;
        const char *w = words[state >> 28];
        memcpy(text + at, w, strlen(w));
        at += strlen(w);
    }
    text[at] = 0;
    return text;
}

#endif
