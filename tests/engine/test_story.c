/* SPDX-License-Identifier: MIT
 *
 * The models that ship: logits against PyTorch's over the same dequantised weights (tools/train/export.py), the
 * tokenizer against the library that trained it, and that what they write is English. */
#include <cjson/cJSON.h>
#include <criterion/parameterized.h>
#include <sys/stat.h>

#include "tests/engine/engine_util.h"

typedef struct shipped {
    char model[32], reference[16];
} shipped;

static shipped models[] = { { "hearth-story", "story" }, { "hearth-story-moe", "story-moe" } };

static hearth_error err;

static const char *file_in(const char *folder, const char *sub, const char *name)
{
    static char paths[4][700];
    static unsigned turn;
    char *path = paths[turn++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s%s", folder, sub, name);
    return path;
}

static const char *model_path(const shipped *p)
{
    char name[64];
    snprintf(name, sizeof name, "/%s.gguf", p->model);
    return file_in(HEARTH_MODEL_DIR, "", name);
}

static hearth_model *open_model(const shipped *p, hearth_precision precision)
{
    return util_open(model_path(p), (hearth_model_params){ .threads = 2, .precision = precision });
}

static uint32_t best_of(const float *v, uint32_t n)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < n; i++)
        best = v[i] > v[best] ? i : best;
    return best;
}

static double nats(const float *v, uint32_t n, int32_t id)
{
    double max = v[best_of(v, n)], sum = 0.0;
    for (uint32_t i = 0; i < n; i++)
        sum += exp((double)v[i] - max);
    return max + log(sum) - (double)v[id];
}

ParameterizedTestParameters(story, logits)
{
    return cr_make_param_array(shipped, models, sizeof models / sizeof *models);
}

/* With float activations they are PyTorch's; with 8-bit ones the loss is still near it. The sentences of the reference
 * are our own, not the training text's: only a trained model predicts them. */
ParameterizedTest(shipped *p, story, logits)
{
    uint64_t n, shape[2];
    int32_t *ids = util_read_ids(file_in(HEARTH_TEST_DATA, p->reference, "/tokens.npy"), &n);
    float *want = util_read_rows(file_in(HEARTH_TEST_DATA, p->reference, "/logits.npy"), shape);
    hearth_model *m = open_model(p, HEARTH_PRECISION_F32), *fast = open_model(p, HEARTH_PRECISION_FAST);
    uint32_t n_vocab = util_n_vocab(m);
    double worst = 0.0, loss = 0.0, fast_loss = 0.0;

    cr_assert(shape[0] == n && shape[1] == n_vocab && n > 8);
    float *got = util_logits(m, ids, n, 0, HEARTH_KV_F32), *quick = util_logits(fast, ids, n, 0, HEARTH_KV_F16);
    for (size_t i = 0; i < n * n_vocab; i++) {
        double d = fabs((double)got[i] - want[i]);
        worst = !(d <= worst) ? d : worst; /* NaN counts */
    }
    for (size_t r = 0; r < n; r++)
        cr_expect_eq(best_of(got + r * n_vocab, n_vocab), best_of(want + r * n_vocab, n_vocab), "row %zu", r);
    for (size_t r = 0; r + 1 < n; r++) {
        loss += nats(got + r * n_vocab, n_vocab, ids[r + 1]) / (double)(n - 1);
        fast_loss += nats(quick + r * n_vocab, n_vocab, ids[r + 1]) / (double)(n - 1);
    }
    cr_log_info("%s: worst %g, %.3f nats a token, %.3f with 8-bit activations", p->model, worst, loss, fast_loss);
    cr_expect(worst < 1e-3, "%s: off by %g", p->model, worst); /* logits go up to about 14 */
    cr_expect(loss < 4.0, "%s: %g nats a token; untrained: %g", p->model, loss, log(n_vocab));
    cr_expect(fabs(fast_loss - loss) < 0.05, "%s: %g nats, not %g, with 8-bit activations", p->model, fast_loss, loss);
    free(quick);
    free(got);
    free(want);
    free(ids);
    hearth_model_close(&fast);
    hearth_model_close(&m);
}

ParameterizedTestParameters(story, tokenizer)
{
    return cr_make_param_array(shipped, models, sizeof models / sizeof *models);
}

ParameterizedTest(shipped *p, story, tokenizer)
{
    FILE *f = fopen(file_in(HEARTH_TEST_DATA, p->reference, "/tokenizer.json"), "rb");
    char *json = calloc(1, 1 << 16);
    cr_assert(f && json && fread(json, 1, (1 << 16) - 1, f) > 0 && feof(f));
    fclose(f);
    cJSON *all = cJSON_Parse(json), *c;
    hearth_model *m = open_model(p, HEARTH_PRECISION_F32);
    int n_cases = 0;

    cJSON_ArrayForEach(c, all)
    {
        const char *text = cJSON_GetObjectItem(c, "text")->valuestring;
        const cJSON *want = cJSON_GetObjectItem(c, "ids"), *id;
        bool special = cJSON_IsTrue(cJSON_GetObjectItem(c, "special"));
        hearth_token *ids;
        size_t n_ids, n_text, i = 0;
        char *back;

        if (strstr(text, "zero")) /* cJSON ends it at its zero byte */
            continue;
        cr_assert_eq(hearth_tokenize(m, text, strlen(text), false, special, &ids, &n_ids, &err), HEARTH_OK, "%s",
                     err.text);
        cr_expect_eq(n_ids, (size_t)cJSON_GetArraySize(want), "\"%s\": %zu ids", text, n_ids);
        cJSON_ArrayForEach(id, want)
        {
            if (i < n_ids)
                cr_expect_eq(ids[i], id->valueint, "\"%s\": id %zu is %d", text, i, ids[i]);
            i++;
        }
        cr_assert_eq(hearth_detokenize(m, ids, n_ids, true, &back, &n_text, &err), HEARTH_OK, "%s", err.text);
        cr_expect(n_text == strlen(text) && memcmp(back, text, n_text) == 0, "\"%s\" came back as \"%.*s\"", text,
                  (int)n_text, back);
        hearth_free(back);
        hearth_free(ids);
        n_cases++;
    }
    cr_assert_gt(n_cases, 30);
    hearth_model_close(&m);
    cJSON_Delete(all);
    free(json);
}

/* ---- What they write --------------------------------------------------------------------------------------------- */

typedef struct page {
    char text[4000];
    size_t n;
} page;

static bool write_on(void *user, hearth_token id, const char *text, size_t n)
{
    page *p = user;
    (void)id;
    cr_assert(p->n + n < sizeof p->text);
    memcpy(p->text + p->n, text, n);
    p->n += n;
    p->text[p->n] = 0;
    return true;
}

/* Share of the words that are among the commonest of written English: about 0.3 of any book. */
static double common_words(const char *text, size_t *n_words)
{
    static const char *const common[] = { "the", "and",  "of",  "to",  "a",   "in",   "he",  "was",
                                          "it",  "that", "his", "her", "had", "with", "she", "for",
                                          "as",  "but",  "at",  "on",  "him", "they", "not" };
    char copy[4000];
    size_t n_common = 0;

    snprintf(copy, sizeof copy, "%s", text);
    *n_words = 0;
    for (char *at = copy, *word; (word = strtok_r(at, " \n.,;:!?\"", &at));) {
        ++*n_words;
        for (size_t i = 0; i < sizeof common / sizeof *common; i++)
            n_common += strcmp(word, common[i]) == 0;
    }
    return (double)n_common / (double)(*n_words ? *n_words : 1);
}

ParameterizedTestParameters(story, writes_english)
{
    return cr_make_param_array(shipped, models, sizeof models / sizeof *models);
}

ParameterizedTest(shipped *p, story, writes_english)
{
    static const char prompt[] = "Once upon a time there was a king who";
    static page paper;
    hearth_model *m = open_model(p, HEARTH_PRECISION_FAST);
    hearth_token *ids;
    size_t n_ids, n_words;
    hearth_sampler *sampler;
    hearth_sampler_params params = {
        .size = sizeof params, .temperature = 0.7f, .top_p = 0.95f, .repeat_penalty = 1.2f, .seed = 1
    };
    hearth_generate_params g = { .size = sizeof g, .max_tokens = 200, .on_token = write_on, .user = &paper };
    hearth_stop_reason why;
    hearth_stats stats = { .size = sizeof stats };

    paper.n = 0;
    cr_assert_eq(hearth_tokenize(m, prompt, sizeof prompt - 1, true, false, &ids, &n_ids, &err), HEARTH_OK);
    cr_assert_eq(hearth_sampler_open(&sampler, &params, util_n_vocab(m), &err), HEARTH_OK, "%s", err.text);
    hearth_session *s = util_session(m, 400, 0, HEARTH_KV_F16);
    cr_assert_eq(hearth_generate(s, sampler, ids, n_ids, &g, &why, &err), HEARTH_OK, "%s", err.text);
    double common = common_words(paper.text, &n_words);
    cr_assert_eq(hearth_session_get_stats(s, &stats), HEARTH_OK);
    double density = (double)stats.neurons_active / (double)stats.neurons_total;
    cr_log_info("%s: density %.4f; %.2f of %zu words are common: %s", p->model, density, common, n_words, paper.text);
    cr_expect_gt(n_words, 40, "%s", paper.text);
    cr_expect_gt(common, 0.2, "%s", paper.text);
    cr_expect(density > 0.01 && density < 0.12, "%s: density %g", p->model, density);
    hearth_session_close(&s);
    hearth_sampler_close(&sampler);
    hearth_free(ids);
    hearth_model_close(&m);
}

ParameterizedTestParameters(story, small)
{
    return cr_make_param_array(shipped, models, sizeof models / sizeof *models);
}

ParameterizedTest(shipped *p, story, small)
{
    struct stat st;
    cr_assert_eq(stat(model_path(p), &st), 0);
    cr_expect_leq(st.st_size, 16000000);
}
