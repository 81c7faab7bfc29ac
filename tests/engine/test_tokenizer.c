/* SPDX-License-Identifier: MIT
 *
 * Tokenizers against others: vocabularies with known ids, and the cuts of Hugging Face's `tokenizers` for every
 * pre-tokenizer (tools/gen/tokenizer_splits.py, tools/gen/tokenizer_vocabs.py). */
#include <cjson/cJSON.h>

#include "engine/pretok.h"
#include "tests/engine/test_tokenizer.h"

static cJSON *json_read(const char *path)
{
    size_t n;
    char *s = file_read(path, &n);
    cJSON *j = cJSON_ParseWithLength(s, n);

    cr_assert_not_null(j, "%s", path);
    free(s);
    return j;
}

/* Every case of one golden file; the vocabulary is the file named in it, in dir. */
static void check_cases(const char *name)
{
    char path[512];
    const cJSON *c;

    snprintf(path, sizeof path, HEARTH_TEST_DATA "/tokenizer/%s.json", name);
    cJSON *j = json_read(path);
    snprintf(path, sizeof path, HEARTH_TEST_DATA "/tokenizer/%s", cJSON_GetObjectItem(j, "gguf")->valuestring);
    ht_tokenizer *t = vocab_open(path, NULL);
    int n = 0;
    cJSON_ArrayForEach(c, cJSON_GetObjectItem(j, "cases")) {
        const char *text = cJSON_GetObjectItem(c, "text")->valuestring;
        const cJSON *want = cJSON_GetObjectItem(c, "ids");
        ht_token *ids;
        size_t n_ids = encode(t, text, strlen(text), false, &ids), len;
        cr_assert_eq((int)n_ids, cJSON_GetArraySize(want), "%s: %s", name, text);
        for (int i = 0; i < (int)n_ids; i++)
            cr_assert_eq(ids[i], cJSON_GetArrayItem(want, i)->valueint, "%s: %s: id %d", name, text, i);
        char *back = detok(t, ids, n_ids, false, &len);
        cr_assert(len == strlen(text) && memcmp(back, text, len) == 0, "%s: %s reads %.*s", name, text, (int)len, back);
        free(back);
        free(ids);
        n++;
    }
    cr_assert_gt(n, 0);
    ht_tokenizer_close(&t);
    cJSON_Delete(j);
}

Test(tokenizer, golden_spm) { check_cases("spm"); }
Test(tokenizer, golden_gpt2) { check_cases("gpt-2"); }
Test(tokenizer, golden_qwen2) { check_cases("qwen2"); }
Test(tokenizer, golden_llama_bpe) { check_cases("llama-bpe"); }

/* A vocabulary of the field with its texts (.inp) and their ids (.out, a line each). */
static void check_vectors(const char *name)
{
    static const char between[] = "\n__ggml_vocab_test__\n";
    char path[512];
    size_t n_in, n_out;
    int n = 0;

    snprintf(path, sizeof path, HEARTH_SHARED_DIR "/data/tokenizer/ggml-vocab-%s.gguf.inp", name);
    if (!file_exists(path))
        cr_skip("no vectors of other projects here: %s is missing", path);
    char *in = file_read(path, &n_in);
    memcpy(strstr(path, ".inp"), ".out", 4);
    char *out = file_read(path, &n_out);
    *strstr(path, ".out") = 0;
    ht_tokenizer *t = vocab_open(path, NULL);
    for (char *text = in, *line = out, *end; (end = strstr(text, between)) != NULL; text = end + strlen(between)) {
        *end = 0;
        char *stop = strchr(line, '\n');
        cr_assert_not_null(stop, "%s: more texts than lines", name);
        *stop = 0;
        while (*line == ' ')
            line++;
        for (size_t k = strlen(line); k > 0 && line[k - 1] == ' '; k--)
            line[k - 1] = 0;
        char *got = encode_text(t, text, false);
        cr_assert_str_eq(got, line, "%s: text %d '%s': %s, wanted %s", name, n, text, got, line);
        free(got);
        line = stop + 1;
        n++;
    }
    cr_assert_eq(n, 46, "%s: %d texts", name, n);
    free(in);
    free(out);
    ht_tokenizer_close(&t);
}

Test(tokenizer, vectors_gpt2) { check_vectors("gpt-2"); }
Test(tokenizer, vectors_qwen2) { check_vectors("qwen2"); }
Test(tokenizer, vectors_phi3) { check_vectors("phi-3"); }
Test(tokenizer, vectors_falcon) { check_vectors("falcon"); }
Test(tokenizer, vectors_mpt) { check_vectors("mpt"); }
Test(tokenizer, vectors_deepseek_coder) { check_vectors("deepseek-coder"); }

/* ---- pre-tokenizers ---------------------------------------------------------------------------------------------- */

typedef struct cuts {
    const cJSON *want; /* the next length */
    size_t at;
    bool same;
} cuts;

static bool compare(void *arg, size_t start, size_t n)
{
    cuts *c = arg;
    c->same = c->same && start == c->at && c->want && c->want->valueint == (int)n;
    c->at = start + n;
    if (c->want)
        c->want = c->want->next;
    return true;
}

Test(pretok, cuts_as_tokenizers_does)
{
    cJSON *j = json_read(HEARTH_TEST_DATA "/tokenizer/splits.json");
    const cJSON *rule, *want, *hex;
    int rules = 0;

    cJSON_ArrayForEach(rule, cJSON_GetObjectItem(j, "rules")) {
        const ht_pre_rule *r = ht_pre_rule_find(rule->string, strlen(rule->string));
        cr_assert_not_null(r, "%s", rule->string);
        ht_pretok *p = NULL;
        ht_error err = { 0 };
        cr_assert_eq(ht_pretok_open(&p, r, &err), HT_OK, "%s", err.text);
        want = rule->child;
        cJSON_ArrayForEach(hex, cJSON_GetObjectItem(j, "texts")) {
            size_t n = strlen(hex->valuestring) / 2;
            char *text = malloc(n + 1);
            cr_assert_not_null(text);
            for (size_t i = 0; i < n; i++) {
                char digits[3] = { hex->valuestring[2 * i], hex->valuestring[2 * i + 1], 0 };
                text[i] = (char)strtol(digits, NULL, 16);
            }
            cuts c = { want->child, 0, true };
            cr_assert(ht_pretok_split(p, text, n, compare, &c));
            cr_assert(c.same && !c.want && c.at == n, "%s cuts %s otherwise", rule->string, hex->valuestring);
            free(text);
            want = want->next;
        }
        ht_pretok_close(&p);
        rules++;
    }
    cr_assert_eq(rules, 34);
    cJSON_Delete(j);
}

Test(pretok, every_rule_opens_by_every_name)
{
    int names = 0;

    for (size_t i = 0; ht_pre_rule_at(i); i++) {
        const ht_pre_rule *r = ht_pre_rule_at(i);
        ht_pretok *p = NULL;
        ht_error err = { 0 };
        cr_assert_eq(ht_pretok_open(&p, r, &err), HT_OK, "%s", err.text);
        ht_pretok_close(&p);
        cr_assert_null(p);
        for (const char *s = r->names + 1; *s; names++) {
            size_t n = strcspn(s, " ");
            cr_assert_eq(ht_pre_rule_find(s, n), r, "%.*s", (int)n, s);
            s += n + 1;
        }
    }
    cr_assert_geq(names, 80);
    cr_assert_null(ht_pre_rule_find("", 0));
    cr_assert_null(ht_pre_rule_find("gpt-2 phi-2", 11));
    cr_assert_null(ht_pre_rule_find("gpt-", 4));
}

Test(tokenizer, unknown_pre_is_noted)
{
    ht_tokenizer *t = vocab_open(HEARTH_TEST_DATA "/tokenizer/gpt-2.gguf", "of-tomorrow");
    cr_assert_not_null(ht_tokenizer_note(t));
    cr_assert_not_null(strstr(ht_tokenizer_note(t), "of-tomorrow"), "%s", ht_tokenizer_note(t));
    ht_tokenizer_close(&t);
    t = vocab_open(HEARTH_TEST_DATA "/tokenizer/gpt-2.gguf", NULL);
    cr_assert_null(ht_tokenizer_note(t));
    ht_tokenizer_close(&t);
}
