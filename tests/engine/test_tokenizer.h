/* SPDX-License-Identifier: MIT
 *
 * What the tests of the tokenizer share: GGUF files built in memory, files opened, texts encoded.
 *
 * Owner: the test. Threads: one. */
#ifndef HT_TEST_TOKENIZER_H
#define HT_TEST_TOKENIZER_H

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/tokenizer.h"

/* A metadata-only GGUF file under construction. */
typedef struct build {
    uint8_t *b;
    size_t n, cap;
    uint64_t n_kv;
} build;

static inline void build_bytes(build *x, const void *p, size_t n)
{
    if (x->n + n > x->cap) {
        x->cap = (x->n + n) * 2;
        x->b = realloc(x->b, x->cap);
        cr_assert_not_null(x->b);
    }
    if (n > 0)
        memcpy(x->b + x->n, p, n);
    x->n += n;
}

static inline void build_u32(build *x, uint32_t v) { build_bytes(x, &v, 4); }
static inline void build_u64(build *x, uint64_t v) { build_bytes(x, &v, 8); }

static inline void build_str(build *x, const char *s, size_t n)
{
    build_u64(x, n);
    build_bytes(x, s, n);
}

static inline void build_key(build *x, const char *key, uint32_t type)
{
    if (x->n == 0) {
        build_bytes(x, "GGUF", 4);
        build_u32(x, 3);
        build_u64(x, 0);
        build_u64(x, 0);
    }
    x->n_kv++;
    memcpy(x->b + 16, &x->n_kv, 8);
    build_str(x, key, strlen(key));
    build_u32(x, type);
}

static inline void build_text(build *x, const char *key, const char *value)
{
    build_key(x, key, HT_KV_STRING);
    build_str(x, value, strlen(value));
}

static inline void build_id(build *x, const char *key, uint32_t value)
{
    build_key(x, key, HT_KV_U32);
    build_u32(x, value);
}

static inline void build_bool(build *x, const char *key, bool value)
{
    uint8_t v = value;
    build_key(x, key, HT_KV_BOOL);
    build_bytes(x, &v, 1);
}

/* An array of strings, up to NULL. */
static inline void build_texts(build *x, const char *key, const char *const *s)
{
    uint64_t n = 0;
    while (s[n])
        n++;
    build_key(x, key, HT_KV_ARRAY);
    build_u32(x, HT_KV_STRING);
    build_u64(x, n);
    for (uint64_t i = 0; i < n; i++)
        build_str(x, s[i], strlen(s[i]));
}

static inline void build_numbers(build *x, const char *key, ht_kv_type elem, const void *values, uint64_t n,
                                 size_t size)
{
    build_key(x, key, HT_KV_ARRAY);
    build_u32(x, elem);
    build_u64(x, n);
    build_bytes(x, values, n * size);
}

/* Opens what was built and frees it. */
static inline ht_status build_open(build *x, ht_tokenizer **t, ht_error *err)
{
    ht_gguf *g = NULL;
    ht_status st = ht_gguf_open_memory(&g, x->b, x->n, err);

    *t = NULL;
    if (st == HT_OK)
        st = ht_tokenizer_open(t, g, err);
    ht_gguf_close(&g);
    free(x->b);
    *x = (build){ 0 };
    return st;
}

static inline bool file_exists(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (f)
        fclose(f);
    return f != NULL;
}

static inline char *file_read(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    cr_assert_not_null(f, "%s", path);
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    char *s = malloc(*n + 1);
    cr_assert_not_null(s);
    cr_assert_eq(fread(s, 1, *n, f), *n);
    s[*n] = 0;
    fclose(f);
    return s;
}

/* The vocabulary of a file, with another pre-tokenizer where pre is given. */
static inline ht_tokenizer *vocab_open(const char *path, const char *pre)
{
    ht_gguf *g = NULL;
    ht_tokenizer *t = NULL;
    ht_error err = { 0 };

    cr_assert_eq(ht_gguf_open(&g, path, &err), HT_OK, "%s", err.text);
    if (pre)
        cr_assert_eq(ht_gguf_override(g, "tokenizer.ggml.pre", pre, &err), HT_OK, "%s", err.text);
    cr_assert_eq(ht_tokenizer_open(&t, g, &err), HT_OK, "%s", err.text);
    ht_gguf_close(&g);
    return t;
}

static inline size_t encode(const ht_tokenizer *t, const char *text, size_t n, bool special, ht_token **ids)
{
    ht_error err = { 0 };
    size_t n_ids = 0;

    cr_assert_eq(ht_tokenizer_encode(t, text, n, special, ids, &n_ids, &err), HT_OK, "%s", err.text);
    return n_ids;
}

/* The ids of a text, as "1 2 3". */
static inline char *encode_text(const ht_tokenizer *t, const char *text, bool special)
{
    ht_token *ids;
    size_t n = encode(t, text, strlen(text), special, &ids), m = 0;
    char *s = malloc(n * 12 + 1);

    cr_assert_not_null(s);
    s[0] = 0;
    for (size_t i = 0; i < n; i++)
        m += (size_t)sprintf(s + m, "%s%d", i ? " " : "", (int)ids[i]);
    free(ids);
    return s;
}

/* What a stream of ids reads as; *n bytes, freed by the caller. */
static inline char *detok(const ht_tokenizer *t, const ht_token *ids, size_t n_ids, bool special, size_t *n)
{
    size_t cap = ht_tokenizer_max_piece(t) + 8;
    char *out = malloc(n_ids * cap + 8);
    ht_detok d = { 0 };

    cr_assert_not_null(out);
    *n = 0;
    for (size_t i = 0; i < n_ids; i++) {
        size_t k = ht_detok_push(t, &d, ids[i], special, out + *n, cap);
        cr_assert_leq(k, cap);
        *n += k;
    }
    *n += ht_detok_flush(&d, out + *n, 8);
    return out;
}

#endif
