/* SPDX-License-Identifier: MIT
 *
 * libFuzzer target of the tokenizer. The first byte says what the rest is:
 *   even  a GGUF file: opened, and where it holds a vocabulary, a text of its own bytes is encoded and read back
 *   odd   a pre-tokenizer (second byte) and a text: encoded over all bytes and a few merges, it must come back the same
 *
 * Owner: nothing outlives a call. Threads: one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/pretok.h"
#include "engine/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

typedef struct file { uint8_t b[32768]; size_t n; uint64_t n_kv; } file;

static void put(file *f, const void *p, size_t n)
{
    if (n > sizeof f->b - f->n)
        abort();
    memcpy(f->b + f->n, p, n);
    f->n += n;
}

static void put_str(file *f, const char *s, size_t n)
{
    uint64_t len = n;
    put(f, &len, 8);
    put(f, s, n);
}

static void put_key(file *f, const char *key, uint32_t type)
{
    put_str(f, key, strlen(key));
    put(f, &type, 4);
    f->n_kv++;
}

static void put_list(file *f, const char *key, uint64_t n)
{
    put_key(f, key, HT_KV_ARRAY);
    put(f, &(uint32_t){ HT_KV_STRING }, 4);
    put(f, &n, 8);
}

/* All 256 letters (or byte tokens, for vocabularies of characters), and some merges over them. */
static ht_tokenizer *vocabulary(const char *pre, size_t n_pre, bool raw)
{
    static const char *const pairs[][2] = { { "a", "a" }, { "aa", "aa" }, { "a", "b" }, { "\xC4\xA0", "a" },
                                            { "'", "s" }, { "\xC4\xA0", "\xC4\xA0" }, { "1", "2" },
                                            { "\xC4\x8A", "\xC4\x8A" } };
    enum { N = sizeof pairs / sizeof *pairs };
    static file f; /* 32 KiB are too much for a stack */
    uint32_t version = 3, other = 0;
    uint64_t none = 0;
    char s[16];

    f.n = 0;
    f.n_kv = 0;
    put(&f, "GGUF", 4);
    put(&f, &version, 4);
    put(&f, &none, 8);
    put(&f, &none, 8);
    put_key(&f, "tokenizer.ggml.model", HT_KV_STRING);
    put_str(&f, "gpt2", 4);
    put_key(&f, "tokenizer.ggml.pre", HT_KV_STRING);
    put_str(&f, pre, n_pre);
    put_list(&f, "tokenizer.ggml.tokens", 256 + N);
    for (uint32_t b = 0; b < 256; b++) {
        if (raw) {
            put_str(&f, s, (size_t)snprintf(s, sizeof s, "<0x%02X>", (unsigned)b));
            continue;
        }
        bool seen = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b != 0xAD);
        uint32_t c = seen ? b : 256 + other++;
        s[0] = c < 128 ? (char)c : (char)(0xC0 | c >> 6);
        s[1] = (char)(0x80 | (c & 63));
        put_str(&f, s, c < 128 ? 1 : 2);
    }
    for (int i = 0; i < N; i++)
        put_str(&f, s, (size_t)snprintf(s, sizeof s, "%s%s", pairs[i][0], pairs[i][1]));
    put_key(&f, "tokenizer.ggml.token_type", HT_KV_ARRAY);
    put(&f, &(uint32_t){ HT_KV_I32 }, 4);
    put(&f, &(uint64_t){ 256 + N }, 8);
    for (int i = 0; i < 256 + N; i++)
        put(&f, &(int32_t){ raw && i < 256 ? 6 : 1 }, 4); /* byte tokens, normal ones */
    put_list(&f, "tokenizer.ggml.merges", N);
    for (int i = 0; i < N; i++)
        put_str(&f, s, (size_t)snprintf(s, sizeof s, "%s %s", pairs[i][0], pairs[i][1]));
    memcpy(f.b + 16, &f.n_kv, 8);

    ht_gguf *g = NULL;
    ht_tokenizer *t = NULL;
    if (ht_gguf_open_memory(&g, f.b, f.n, NULL) != HT_OK || ht_tokenizer_open(&t, g, NULL) != HT_OK)
        abort();
    ht_gguf_close(&g);
    return t;
}

/* Encodes and reads back; `whole`: the text must be the same again. */
static void there_and_back(const ht_tokenizer *t, const char *text, size_t n, bool special, bool whole)
{
    ht_token *ids;
    size_t n_ids, m = 0, cap = ht_tokenizer_max_piece(t) + 8;
    char *out = malloc(cap);
    ht_detok d = { 0 };
    bool same = true;

    if (!out || ht_tokenizer_encode(t, text, n, special, &ids, &n_ids, NULL) != HT_OK)
        abort();
    for (size_t i = 0; i <= n_ids; i++) {
        if (i < n_ids && (ids[i] < 0 || (uint32_t)ids[i] >= ht_tokenizer_info(t)->n_vocab))
            abort();
        size_t k = i < n_ids ? ht_detok_push(t, &d, ids[i], true, out, cap) : ht_detok_flush(&d, out, cap);
        if (k > cap)
            abort();
        same = same && k <= n - m && memcmp(out, text + m, k) == 0;
        m += same ? k : 0;
    }
    if (whole && (!same || m != n))
        abort();
    free(out);
    free(ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n < 2)
        return 0;
    if (data[0] & 1) {
        const ht_pre_rule *rule = NULL;
        for (size_t i = 0; ht_pre_rule_at(i); i++)
            if (i <= data[1])
                rule = ht_pre_rule_at(i);
        size_t len = strcspn(rule->names + 1, " ");
        bool escape = rule->flags & HT_PRE_ESCAPE; /* U+2581 reads as a space: not the same again */
        ht_tokenizer *t = vocabulary(rule->names + 1, len, rule->flags & HT_PRE_RAW);
        there_and_back(t, (const char *)data + 2, n - 2, data[0] & 2, !escape);
        ht_tokenizer_close(&t);
        return 0;
    }
    ht_gguf *g = NULL;
    ht_tokenizer *t = NULL;
    ht_error err;
    if (ht_gguf_open_memory(&g, data + 1, n - 1, &err) == HT_OK && ht_tokenizer_open(&t, g, &err) == HT_OK) {
        size_t tail = n < 600 ? n : 600;
        there_and_back(t, (const char *)data + n - tail, tail, data[0] & 2, false);
        for (uint32_t i = 0; i < ht_tokenizer_info(t)->n_vocab; i++) {
            const char *s;
            if (ht_tokenizer_piece(t, (ht_token)i, true, &s) > ht_tokenizer_max_piece(t))
                abort();
        }
    }
    ht_tokenizer_close(&t);
    ht_gguf_close(&g);
    return 0;
}
