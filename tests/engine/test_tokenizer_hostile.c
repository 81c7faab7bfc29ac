/* SPDX-License-Identifier: MIT
 *
 * Damaged vocabularies are refused with a sentence and a byte offset; no text is too odd or too large; random bytes
 * come back as they went in. */
#include <time.h>

#include "tests/engine/test_tokenizer.h"

typedef enum fault {
    F_NONE, F_NO_TOKENS, F_TOKENS_TYPE, F_NO_MERGES, F_MERGES_TYPE, F_SHORT_SCORES, F_SCORES_U8, F_SCORES_SCALAR,
    F_SHORT_TYPES, F_TYPES_F32, F_BOS_RANGE, F_EOS_RANGE, F_EOS_TEXT, F_ADD_BOS_TEXT, F_TWICE, F_BYTE_MINUS, F_BYTE_ZZ,
    F_BYTE_SHORT, F_LONG_TOKEN, F_NO_TEXTS, F_MODEL_NUMBER, F_PRE_NUMBER, N_FAULTS
} fault;

static ht_status open_with(fault f, const char *model, ht_error *err)
{
    const char *texts[] = { "<unk>", "<s>", "</s>", "<0x41>", "a", "b", NULL };
    static const char *const merges[] = { "a b", NULL };
    static const char *const none[] = { NULL };
    static const int32_t types[] = { 2, 3, 3, 6, 1, 1 };
    static const float scores[] = { 0, 0, 0, 0, -1, -2 };
    ht_tokenizer *t = NULL;
    char *big = NULL;
    build x = { 0 };

    if (f == F_MODEL_NUMBER)
        build_id(&x, "tokenizer.ggml.model", 7);
    else
        build_text(&x, "tokenizer.ggml.model", model);
    if (f == F_PRE_NUMBER)
        build_id(&x, "tokenizer.ggml.pre", 7);
    if (f == F_TWICE)
        texts[5] = "a";
    if (f == F_BYTE_MINUS)
        texts[3] = "<0x-1>";
    if (f == F_BYTE_ZZ)
        texts[3] = "<0xZZ>";
    if (f == F_BYTE_SHORT)
        texts[3] = "<0x";
    if (f == F_LONG_TOKEN) {
        big = calloc(70001, 1);
        cr_assert_not_null(big);
        memset(big, 'x', 70000);
        texts[5] = big;
    }
    if (f == F_TOKENS_TYPE)
        build_numbers(&x, "tokenizer.ggml.tokens", HT_KV_I32, types, 6, 4);
    else if (f != F_NO_TOKENS)
        build_texts(&x, "tokenizer.ggml.tokens", f == F_NO_TEXTS ? none : texts);
    if (f == F_MERGES_TYPE)
        build_numbers(&x, "tokenizer.ggml.merges", HT_KV_I32, types, 6, 4);
    else if (f != F_NO_MERGES)
        build_texts(&x, "tokenizer.ggml.merges", merges);
    if (f == F_SCORES_SCALAR)
        build_id(&x, "tokenizer.ggml.scores", 3);
    else
        build_numbers(&x, "tokenizer.ggml.scores", f == F_SCORES_U8 ? HT_KV_U8 : HT_KV_F32, scores,
                      f == F_SHORT_SCORES ? 5 : 6, f == F_SCORES_U8 ? 1 : 4);
    build_numbers(&x, "tokenizer.ggml.token_type", f == F_TYPES_F32 ? HT_KV_F32 : HT_KV_I32, types,
                  f == F_SHORT_TYPES ? 5 : 6, 4);
    build_id(&x, "tokenizer.ggml.bos_token_id", f == F_BOS_RANGE ? 6 : 1);
    if (f == F_EOS_TEXT)
        build_text(&x, "tokenizer.ggml.eos_token_id", "2");
    else
        build_id(&x, "tokenizer.ggml.eos_token_id", f == F_EOS_RANGE ? 0x7FFFFFFF : 2);
    if (f == F_ADD_BOS_TEXT)
        build_text(&x, "tokenizer.ggml.add_bos_token", "yes");
    memset(err, 0, sizeof *err);
    ht_status st = build_open(&x, &t, err);
    cr_assert_eq(st == HT_OK, t != NULL);
    ht_tokenizer_close(&t);
    free(big);
    return st;
}

Test(tokenizer_hostile, faults_are_refused)
{
    static const char *const models[] = { "llama", "gpt2", "gemma4" };

    for (int m = 0; m < 3; m++) {
        for (int f = 0; f < N_FAULTS; f++) {
            ht_error err;
            bool bpe_only = f == F_NO_MERGES || f == F_MERGES_TYPE;
            ht_status want = f == F_NONE || (m == 0 && bpe_only) ? HT_OK : HT_EFORMAT;
            ht_status st = open_with((fault)f, models[m], &err);
            cr_assert_eq(st, want, "%s, fault %d: %d %s", models[m], f, (int)st, err.text);
            if (want != HT_OK) {
                cr_assert_not_null(strstr(err.text, "tokenizer.ggml."), "%s", err.text);
                if (f != F_NO_TOKENS && f != F_NO_MERGES)
                    cr_assert(err.offset > 0 && err.offset < 200000, "fault %d: offset %llu", f,
                              (unsigned long long)err.offset);
            }
        }
    }
}

Test(tokenizer_hostile, other_kinds_are_named)
{
    static const char *const models[] = { "t5", "bert", "rwkv", "plamo2", "none", "of-tomorrow", "" };
    ht_error err;

    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        cr_assert_eq(open_with(F_NONE, models[i], &err), HT_EUNSUPPORTED, "%s", models[i]);
        cr_assert_not_null(strstr(err.text, models[i]), "%s", err.text);
    }
    build x = { 0 };
    ht_tokenizer *t;
    build_text(&x, "general.architecture", "llama");
    cr_assert_eq(build_open(&x, &t, &err), HT_EUNSUPPORTED);
}

Test(tokenizer_hostile, absent_ids_and_odd_padding_open)
{
    static const char *const texts[] = { "a", "b", NULL };
    static const char *const merges[] = { NULL };
    build x = { 0 };
    ht_tokenizer *t;
    ht_error err = { 0 };

    build_text(&x, "tokenizer.ggml.model", "gpt2");
    build_text(&x, "tokenizer.ggml.pre", "gpt-2");
    build_texts(&x, "tokenizer.ggml.tokens", texts);
    build_texts(&x, "tokenizer.ggml.merges", merges);
    build_id(&x, "tokenizer.ggml.eos_token_id", UINT32_MAX); /* minus one: none */
    build_id(&x, "tokenizer.ggml.padding_token_id", 5);
    cr_assert_eq(build_open(&x, &t, &err), HT_OK, "%s", err.text);
    cr_assert(ht_tokenizer_info(t)->eos == -1 && ht_tokenizer_info(t)->pad == -1 && ht_tokenizer_info(t)->bos == -1);
    cr_assert_not_null(ht_tokenizer_note(t));
    ht_tokenizer_close(&t);
}

Test(tokenizer_hostile, an_added_key_has_no_offset)
{
    ht_gguf *g = NULL;
    ht_tokenizer *t = NULL;
    ht_error err = { 0 };

    cr_assert_eq(ht_gguf_open(&g, HEARTH_TEST_DATA "/tokenizer/spm.gguf", &err), HT_OK, "%s", err.text);
    cr_assert_eq(ht_gguf_override(g, "tokenizer.ggml.eot_token_id", "1000000", &err), HT_OK, "%s", err.text);
    cr_assert_eq(ht_tokenizer_open(&t, g, &err), HT_EFORMAT);
    cr_assert_null(strstr(err.text, "at byte"), "%s", err.text);
    cr_assert(err.offset == UINT64_MAX && t == NULL);
    ht_gguf_close(&g);
}

/* ---- any text ---------------------------------------------------------------------------------------------------- */

static uint64_t rng_next(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s;
}

/* Random bytes, and valid characters torn and mixed with them. */
static size_t random_text(uint64_t *s, char *out, size_t cap)
{
    static const char *const bits[] = { " ", "  ", "\n", "a", "the", "'s", "123", "...", "\t\r\n", "\xC3\xA9",
                                        "\xCC\x81", "\xE2\x96\x81", "\xE2\x80\x83", "\xEF\xBF\xBD",
                                        "\xE6\x88\x91", "\xF0\x9F\xA6\x99" };
    size_t n = 0, len = rng_next(s) % (cap - 8);
    bool raw = rng_next(s) % 4 == 0;

    while (n < len) {
        if (raw || rng_next(s) % 6 == 0) {
            out[n++] = (char)rng_next(s);
        } else {
            const char *b = bits[rng_next(s) % (sizeof bits / sizeof *bits)];
            memcpy(out + n, b, strlen(b));
            n += strlen(b);
        }
    }
    return n;
}

static void check_round_trip(const char *file, const char *pre, int texts)
{
    char path[512], text[700];
    uint64_t seed = 88172645463325252u;

    snprintf(path, sizeof path, HEARTH_TEST_DATA "/tokenizer/%s", file);
    ht_tokenizer *t = vocab_open(path, pre);
    for (int i = 0; i < texts; i++) {
        size_t n = random_text(&seed, text, sizeof text), len;
        ht_token *ids;
        size_t n_ids = encode(t, text, n, false, &ids);
        for (size_t k = 0; k < n_ids; k++)
            cr_assert(ids[k] >= 0 && (uint32_t)ids[k] < ht_tokenizer_info(t)->n_vocab);
        char *back = detok(t, ids, n_ids, true, &len);
        if (strcmp(file, "spm.gguf") != 0) {
            cr_assert(len == n && memcmp(back, text, n) == 0, "%s %s: text %d is another one", file, pre ? pre : "", i);
        } else { /* U+2581 reads as the space it stands for */
            size_t m = 0;
            for (size_t k = 0; k < n; m++) {
                bool block = n - k >= 3 && memcmp(text + k, "\xE2\x96\x81", 3) == 0;
                text[m] = block ? ' ' : text[k];
                k += block ? 3 : 1;
            }
            cr_assert(len == m && memcmp(back, text, m) == 0, "spm: text %d is another one", i);
        }
        free(back);
        free(ids);
    }
    ht_tokenizer_close(&t);
}

Test(tokenizer_hostile, random_bytes_come_back)
{
    static const char *const pres[] = { "default", "gpt-2",    "llama-bpe", "qwen35",   "deepseek-llm", "deepseek-v3",
                                        "tekken",  "kimi-k2",  "superbpe",  "tiny_aya", "afmoe",        "chameleon",
                                        "bloom",   "exaone-moe" };

    for (size_t i = 0; i < sizeof pres / sizeof *pres; i++)
        check_round_trip("gpt-2.gguf", pres[i], 300);
    check_round_trip("spm.gguf", NULL, 1000);
}

Test(tokenizer_hostile, streams_give_whole_characters)
{
    ht_tokenizer *t = vocab_open(HEARTH_TEST_DATA "/tokenizer/gpt-2.gguf", NULL);
    static const char text[] = "na\xC3\xAFve \xF0\x9F\xA6\x99\xE6\x88\x91 \xE2\x80\x94";
    ht_token *ids;
    size_t n = encode(t, text, sizeof text - 1, false, &ids), m = 0;
    char out[256];
    ht_detok d = { 0 };

    for (size_t i = 0; i < n; i++) {
        size_t k = ht_detok_push(t, &d, ids[i], false, out + m, sizeof out - m);
        if (k > 0) {
            uint8_t first = (uint8_t)out[m];
            cr_assert(first < 0x80 || first >= 0xC2, "text begins inside of a character");
        }
        m += k;
    }
    cr_assert_eq(ht_detok_flush(&d, out + m, sizeof out - m), 0);
    cr_assert(m == sizeof text - 1 && memcmp(out, text, m) == 0);
    free(ids);
    ht_tokenizer_close(&t);
}

/* Long runs: no backtracking, no quadratic merging. A quadratic step would take minutes here. */
static void check_large(const char *file, const char *pre, const char *unit, size_t n, const char *end)
{
    char path[512];
    size_t len = strlen(unit), total = n / len * len;
    char *text = malloc(total + strlen(end) + 1);
    struct timespec a, b;
    ht_token *ids;

    cr_assert_not_null(text);
    snprintf(path, sizeof path, HEARTH_TEST_DATA "/tokenizer/%s", file);
    ht_tokenizer *t = vocab_open(path, pre);
    for (size_t i = 0; i < total; i += len)
        memcpy(text + i, unit, len);
    strcpy(text + total, end);
    total += strlen(end);
    clock_gettime(CLOCK_MONOTONIC, &a);
    size_t n_ids = encode(t, text, total, false, &ids);
    clock_gettime(CLOCK_MONOTONIC, &b);
    double s = (double)(b.tv_sec - a.tv_sec) + 1e-9 * (double)(b.tv_nsec - a.tv_nsec);
    cr_assert_gt(n_ids, 0);
    cr_assert_lt(s, 60.0, "%s %s '%s': %.1f s", file, pre ? pre : "", unit, s);
    free(ids);
    free(text);
    ht_tokenizer_close(&t);
}

Test(tokenizer_hostile, large_runs, .timeout = 600)
{
    static const char *const units[] = { " ", "a", "A", "1", "\n", ".", "'s", "\xCC\x81", "\xFF", "ab ", "  x",
                                         "\xE6\x88\x91", " \n", "\xC3" };
    static const char *const pres[] = { "gpt-2", "llama-bpe", "deepseek-llm", "gpt-4o", "superbpe", "tiny_aya", "afmoe",
                                        "exaone-moe", "jais-2", "chameleon" };

    for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
        check_large("spm.gguf", NULL, units[u], 400000, "x");
        for (size_t p = 0; p < sizeof pres / sizeof *pres; p++)
            check_large("gpt-2.gguf", pres[p], units[u], 400000, "x");
    }
}

Test(tokenizer_hostile, too_long_a_text_is_an_error)
{
    ht_tokenizer *t = vocab_open(HEARTH_TEST_DATA "/tokenizer/spm.gguf", NULL);
    ht_error err = { 0 };
    ht_token *ids;
    size_t n;

    /* the length alone decides: not a byte of it is read */
    cr_assert_eq(ht_tokenizer_encode(t, "x", SIZE_MAX, false, &ids, &n, &err), HT_EINVAL);
    cr_assert(ids == NULL && n == 0);
    cr_assert_eq(ht_tokenizer_encode(t, NULL, 0, true, &ids, &n, &err), HT_OK);
    cr_assert_eq(n, 0);
    free(ids);
    ht_tokenizer_close(&t);
}
