/* SPDX-License-Identifier: MIT
 *
 * What tokens may do about experts that are not in memory: nothing of it happens unasked, and where it happens it is counted;
 * prompts are exact; stand-ins are what the encoder makes of the experts. */
#include <errno.h>

#include "engine/base/types.h"
#include "engine/miss.h"
#include "engine/objects.h"
#include "tests/engine/engine_util.h"

enum { PROMPT = 10, TOKENS = 34 };

static hearth_model *open_with(const char *path, hearth_model_params p, const ht_disk_params *hooks)
{
    hearth_model *m;
    hearth_error err;

    p.size = sizeof p;
    p.threads = 2;
    p.prefetch = p.prefetch ? p.prefetch : HEARTH_PREFETCH_OFF;
    cr_assert_eq(ht_model_open(&m, path, &p, hooks, &err), HEARTH_OK, "%s", err.text);
    return m;
}

/* A session with the smallest cache (all: the largest). */
static hearth_session *session(hearth_model *m, bool all)
{
    hearth_session *s = util_session(m, 64, 16, HEARTH_KV_F16);

    if (m->store.disk && !all) {
        atomic_store(&m->slots, m->needs.floor); /* or the next pass settles on more */
        ht_disk_set_budget(m->store.disk, m->needs.floor, NULL);
    }
    return s;
}

static void feed(hearth_session *s, uint32_t from, uint32_t n, float *to, uint32_t n_vocab)
{
    struct util_rows rows = { to + (size_t)from * n_vocab, n_vocab };
    int32_t ids[TOKENS];
    hearth_error err;

    for (uint32_t i = 0; i < n; i++)
        ids[i] = (int32_t)(((from + i) * (from + i) * 7 + 3 * (from + i) + 1) % n_vocab);
    cr_assert_eq(hearth_session_feed(s, ids, n, util_store_row, &rows, &err), HEARTH_OK, "%s", err.text);
}

/* A prompt, then tokens one by one. */
static float *logits_of(const char *path, hearth_model_params p, bool all, size_t *bytes, hearth_stats *stats)
{
    hearth_model *m = open_with(path, p, NULL);
    const uint32_t v = util_n_vocab(m);
    hearth_session *s = session(m, all);
    float *to = malloc((size_t)TOKENS * v * sizeof *to);

    cr_assert_not_null(to);
    feed(s, 0, PROMPT, to, v);
    for (uint32_t i = PROMPT; i < TOKENS; i++)
        feed(s, i, 1, to, v);
    *stats = (hearth_stats){ .size = sizeof *stats };
    hearth_session_get_stats(s, stats);
    *bytes = (size_t)TOKENS * v * sizeof *to;
    hearth_session_close(&s);
    hearth_model_close(&m);
    return to;
}

static const char *moe(char path[512]) { return util_golden(path, "qwen3_moe.gguf"); }
static const char demo[] = HEARTH_MODEL_DIR "/hearth-story-moe.gguf";

/* Wider than the experts are, stand-ins are the experts themselves: taking them changes no bit, whichever are taken. */
Test(miss, stand_ins_of_the_same_width)
{
    static const char *const names[] = { "qwen3_moe.gguf", "smallthinker.gguf", "qwen2_moe.gguf", "gpt_oss.gguf" };
    char path[512];
    size_t n, n2;
    hearth_stats stats;

    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        for (int f32 = 0; f32 < 2; f32++) {
            util_golden(path, names[i]);
            hearth_model_params p = { .io = HEARTH_IO_MMAP, .precision = f32 ? HEARTH_PRECISION_F32 : HEARTH_PRECISION_FAST };
            float *want = logits_of(path, p, true, &n, &stats);
            cr_expect_eq(stats.experts_stood_in, 0u);
            p.io = HEARTH_IO_DIRECT;
            p.on_miss = HEARTH_MISS_LOW;
            p.stand_in = "f32";
            p.prefetch = f32 ? HEARTH_PREFETCH_ON : HEARTH_PREFETCH_OFF;
            float *got = logits_of(path, p, false, &n2, &stats);
            cr_assert_eq(n, n2);
            cr_expect_arr_eq(got, want, n, "%s", names[i]);
            cr_expect_gt(stats.experts_stood_in, 0u, "%s", names[i]);
            cr_expect_geq(stats.experts_wanted - stats.experts_hit, stats.experts_stood_in);
            free(want);
            free(got);
        }
}

/* Narrower ones are what the encoder makes of the experts; prompts do not see them. */
Test(miss, narrow_stand_ins)
{
    hearth_model_params p = { .io = HEARTH_IO_DIRECT };
    hearth_stats stats;
    size_t n, n2;

    float *want = logits_of(demo, p, false, &n, &stats);
    p.on_miss = HEARTH_MISS_LOW;
    float *got = logits_of(demo, p, false, &n2, &stats);
    cr_assert_eq(n, n2);
    const size_t row = n / TOKENS;
    cr_expect_arr_eq(got, want, PROMPT * row);
    cr_expect(memcmp(got + PROMPT * row / sizeof *got, want + PROMPT * row / sizeof *want, n - PROMPT * row) != 0);
    cr_expect_gt(stats.experts_stood_in, 0u);
    free(want);
    free(got);

    hearth_model *m = open_with(demo, p, NULL);
    hearth_model_info info = { .size = sizeof info };
    hearth_model_get_info(m, &info);
    cr_expect_gt(info.stand_in_bytes, 0u);
    cr_expect_lt(info.stand_in_bytes, info.expert_bytes / 2);
    for (uint32_t r = 0; r < HT_N_ROLES; r++) {
        enum { LAYER = 3, EXPERT = 7 };
        ht_part low[HT_N_ROLES];
        const ht_part *own = &m->m.layers[LAYER].ffn.experts[EXPERT][r];
        cr_assert(ht_standins_parts(m->store.standins, LAYER, EXPERT, low));
        cr_expect_eq(low[r].type, r == HT_ROLE_DOWN ? HT_Q4_0 : HT_Q2_K); /* rows of 128 and of 256 */
        const uint64_t k = (uint64_t)own->n * own->k;
        const size_t bytes = ht_type_row_bytes(ht_type_get(low[r].type), k);
        float *values = malloc(k * sizeof *values);
        uint8_t *coded = malloc(bytes);
        cr_assert(values && coded);
        ht_type_dequant((ht_type)own->type, own->host, k, values);
        ht_type_quantise_coarse((ht_type)low[r].type, values, k, coded);
        cr_expect_arr_eq(low[r].host, coded, bytes, "role %u", r);
        free(values);
        free(coded);
    }
    hearth_model_close(&m);
}

/* A token does not wait, and so does not see a disk that fails behind it. */
static int all_fail(void *user, uint32_t file, uint64_t offset, size_t *bytes)
{
    (void)file;
    (void)offset;
    (void)bytes;
    return *(bool *)user ? EIO : 0;
}

Test(miss, stand_ins_without_a_disk)
{
    char path[512];
    bool fail = false;
    const ht_disk_params hooks = { .fault = all_fail, .fault_user = &fail };
    hearth_model *m = open_with(moe(path), (hearth_model_params){ .io = HEARTH_IO_DIRECT, .on_miss = HEARTH_MISS_LOW }, &hooks);
    const uint32_t v = util_n_vocab(m);
    hearth_session *s = session(m, false);
    float *to = malloc((size_t)TOKENS * v * sizeof *to);

    cr_assert_not_null(to);
    feed(s, 0, PROMPT, to, v);
    fail = true;
    for (uint32_t i = PROMPT; i < TOKENS; i++)
        feed(s, i, 1, to, v);
    fail = false; /* and takes the experts again when it is well */
    for (uint32_t i = PROMPT; i < TOKENS; i++) {
        hearth_error err;
        cr_assert_eq(hearth_session_rewind(s, PROMPT, &err), HEARTH_OK, "%s", err.text);
        feed(s, PROMPT, 1, to, v);
    }
    free(to);
    hearth_session_close(&s);
    hearth_model_close(&m);
}

/* Shares: next to nothing leaves nothing out; all of it leaves one expert of each layer at least. */
Test(miss, skipping)
{
    static const float shares[] = { 1e-6f, 0.3f, 1.0f };
    hearth_model_params p = { .io = HEARTH_IO_DIRECT };
    hearth_stats stats;
    uint64_t before = 0;
    size_t n, n2;

    float *want = logits_of(demo, p, false, &n, &stats);
    for (int i = 0; i < 3; i++) {
        p.on_miss = HEARTH_MISS_SKIP;
        p.skip_share = shares[i];
        float *got = logits_of(demo, p, false, &n2, &stats);
        cr_expect_arr_eq(got, want, i ? n / TOKENS * PROMPT : n, "share %g", (double)shares[i]);
        cr_expect(i == 0 || memcmp(got, want, n) != 0);
        cr_expect(i ? stats.experts_skipped > before : stats.experts_skipped == 0);
        cr_expect_leq(stats.skipped_share, (double)shares[i] * (double)stats.mixtures + 1e-3);
        cr_expect_eq(stats.mixtures, (uint64_t)(TOKENS - PROMPT) * 6);
        cr_expect_leq(stats.experts_skipped, stats.mixtures); /* one of two stays */
        cr_expect_leq(stats.experts_skipped, stats.experts_wanted - stats.experts_hit);
        before = stats.experts_skipped;
        for (size_t k = 0; k < n / sizeof *got; k++)
            cr_assert(isfinite(got[k]));
        free(got);
    }
    free(want);
}

/* Whatever is in memory is taken by a large bias, what is all in memory changes nothing by any. */
Test(miss, bias)
{
    static const char *const names[] = { "qwen3_moe.gguf", "smallthinker.gguf", "ernie4_5_moe.gguf", "glm4moe.gguf", "dots1.gguf" };
    char path[512];
    hearth_stats exact, stats;
    size_t n, n2;

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        util_golden(path, names[i]);
        if (access(path, R_OK))
            continue;
        hearth_model_params p = { .io = HEARTH_IO_DIRECT };
        float *want = logits_of(path, p, false, &n, &exact);
        p.route_bias = 1e-9f;
        float *got = logits_of(path, p, false, &n2, &stats);
        cr_expect_arr_eq(got, want, n, "%s", names[i]);
        cr_expect_eq(stats.experts_rerouted, 0u);
        free(got);
        p.route_bias = 10.0f;
        got = logits_of(path, p, false, &n2, &stats);
        cr_expect_arr_eq(got, want, n / TOKENS * PROMPT, "%s", names[i]);
        cr_expect_gt(stats.experts_hit, exact.experts_hit, "%s", names[i]);
        cr_expect_gt(stats.experts_rerouted, 0u, "%s", names[i]);
        for (size_t k = 0; k < n / sizeof *got; k++)
            cr_assert(isfinite(got[k]));
        free(got);
        free(want);
    }
}

/* Weights of a changed choice are what the router's operation gives to these experts; listeners hear them. */
typedef struct heard { uint32_t n, changed; hearth_session *s; } heard;
static bool listen(void *user, const hearth_route *r)
{
    heard *h = user;
    float sum = 0, all = 0, top = -INFINITY;

    for (uint32_t e = 0; e < r->n_expert; e++)
        top = fmaxf(top, r->router_logits[e]);
    for (uint32_t i = 0; i < r->n_used; i++) {
        sum += expf(r->router_logits[r->expert_ids[i]] - top);
        all += r->expert_weights[i];
    }
    for (uint32_t i = 0; i < r->n_used; i++) /* softmax, renormalised over the chosen */
        cr_expect_float_eq(r->expert_weights[i], expf(r->router_logits[r->expert_ids[i]] - top) / sum, 1e-5);
    cr_expect_float_eq(all, 1.0f, 1e-5);
    h->n++;
    return true;
}

Test(miss, weights_of_a_changed_choice)
{
    char path[512];
    heard h = { 0 };
    hearth_model *m = open_with(moe(path), (hearth_model_params){ .io = HEARTH_IO_DIRECT, .route_bias = 0.5f }, NULL);
    const uint32_t v = util_n_vocab(m);
    hearth_session *s = session(m, false);
    float *to = malloc((size_t)TOKENS * v * sizeof *to);
    hearth_stats stats = { .size = sizeof stats };

    cr_assert_not_null(to);
    feed(s, 0, PROMPT, to, v);
    hearth_session_route(s, listen, &h);
    for (uint32_t i = PROMPT; i < TOKENS; i++)
        feed(s, i, 1, to, v);
    hearth_session_get_stats(s, &stats);
    cr_expect_eq(h.n, (TOKENS - PROMPT) * m->m.n_layer);
    cr_expect_gt(stats.experts_rerouted, 0u);
    free(to);
    hearth_session_close(&s);
    hearth_model_close(&m);
}

/* ---- opening ---- */

static bool stop_at_stand_ins(void *user, const char *what, uint64_t done, uint64_t total)
{
    (void)user;
    (void)done;
    (void)total;
    return strcmp(what, "encoding stand-ins") != 0;
}

static bool told;
static void note(void *user, hearth_log_level level, const char *sentence)
{
    (void)user;
    told |= level == HEARTH_LOG_WARN && strstr(sentence, "nothing is missed");
}

Test(miss, opening)
{
    const struct { hearth_model_params p; hearth_status want; const char *says; } cases[] = {
        { { .on_miss = (hearth_on_miss)3 }, HEARTH_EINVAL, "missing expert" },
        { { .on_miss = HEARTH_MISS_LOW, .stand_in = "q9" }, HEARTH_EINVAL, "q9" },
        { { .on_miss = HEARTH_MISS_LOW, .stand_in = "iq1_s" }, HEARTH_EINVAL, "iq1_s" },
        { { .on_miss = HEARTH_MISS_SKIP, .skip_share = 1.5f }, HEARTH_EINVAL, "share" },
        { { .on_miss = HEARTH_MISS_SKIP, .skip_share = NAN }, HEARTH_EINVAL, "share" },
        { { .route_bias = -1 }, HEARTH_EINVAL, "bias" },
        { { .route_bias = INFINITY }, HEARTH_EINVAL, "bias" },
        { { .on_miss = HEARTH_MISS_LOW, .progress = stop_at_stand_ins }, HEARTH_ECANCELLED, "cancelled" },
        { { .on_miss = HEARTH_MISS_LOW, .stand_in = "f32", .ram_bytes = 12 << 20 }, HEARTH_ENOMEM, "stand-ins" },
    };
    hearth_model *m;
    hearth_error err;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        hearth_model_params p = cases[i].p;
        p.size = sizeof p;
        p.io = HEARTH_IO_DIRECT;
        p.threads = 1;
        cr_expect_eq(hearth_model_open(&m, demo, &p, &err), cases[i].want, "%zu: %s", i, err.text);
        cr_expect(strstr(err.text, cases[i].says), "%zu: %s", i, err.text);
        cr_expect_null(m);
    }
    hearth_model_params p = { .size = sizeof p, .threads = 1, .io = HEARTH_IO_MMAP, .on_miss = HEARTH_MISS_SKIP, .log = note };
    cr_assert_eq(hearth_model_open(&m, demo, &p, &err), HEARTH_OK, "%s", err.text);
    cr_expect(told);
    hearth_model_close(&m);
    p.size = offsetof(hearth_model_params, on_miss); /* who was built before these were there */
    p.io = HEARTH_IO_DIRECT;
    p.log = NULL;
    cr_assert_eq(hearth_model_open(&m, demo, &p, &err), HEARTH_OK, "%s", err.text);
    cr_expect_eq(m->store.miss.on_miss, HT_MISS_WAIT);
    hearth_model_close(&m);
}

/* Stand-ins count: with a budget there is less for experts by what they take, and the sum stays under it. */
Test(miss, budgets)
{
    hearth_error err;
    uint64_t plain = 0;

    for (int low = 0; low < 2; low++) {
        hearth_model *m;
        hearth_model_params p = { .size = sizeof p, .threads = 1, .io = HEARTH_IO_DIRECT, .ram_bytes = 12 << 20,
                                  .on_miss = low ? HEARTH_MISS_LOW : HEARTH_MISS_WAIT };
        cr_assert_eq(hearth_model_open(&m, demo, &p, &err), HEARTH_OK, "%s", err.text);
        hearth_session *s = util_session(m, 64, 16, HEARTH_KV_F16);
        hearth_model_info info = { .size = sizeof info };
        hearth_model_get_info(m, &info);
        cr_expect_leq(m->needs.held + m->exec_bytes + m->table_bytes + m->reserved + info.expert_cache_bytes, p.ram_bytes);
        cr_expect(!low || info.expert_cache_bytes + info.stand_in_bytes <= plain + 4096,
                  "%llu and %llu, %llu", (unsigned long long)info.expert_cache_bytes, (unsigned long long)info.stand_in_bytes,
                  (unsigned long long)plain);
        plain = info.expert_cache_bytes;
        hearth_session_close(&s);
        hearth_model_close(&m);
    }
}
