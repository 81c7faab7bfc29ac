/* SPDX-License-Identifier: MIT
 *
 * Statistics against a plain count of what single tokens tell, set by set; and runs that are interrupted, resumed and
 * refused. */
#include "offline_profiler/stats.h"
#include "tests/offline_profiler/profiler_util.h"

static hearth_error err;

/* ---- A plain count ---- */

enum { MAX_TOKENS = 400, MAX_BLOCKS = 8 };

typedef struct plain_block {
    uint32_t layer, shared, n_ff, n_expert, n_used;
    float *hidden;    /* [MAX_TOKENS][n_expert][n_ff], zero where the expert was not chosen */
    uint32_t *chosen; /* [MAX_TOKENS][n_expert] 0 or 1 */
} plain_block;

typedef struct plain {
    plain_block blocks[MAX_BLOCKS];
    uint32_t n_blocks;
    size_t token; /* of the text, that is computed now; SIZE_MAX: BOS */
} plain;

static bool note(void *user, const hearth_trace *t)
{
    plain *p = user;
    uint32_t shared = t->expert == HEARTH_TRACE_SHARED, b = 0;
    cr_assert(t->n_pass == 1 && t->n_tokens == 1);
    while (b < p->n_blocks && (p->blocks[b].layer != t->layer || p->blocks[b].shared != shared))
        b++;
    plain_block *k = &p->blocks[b];
    if (b == p->n_blocks) {
        cr_assert_lt(p->n_blocks++, MAX_BLOCKS);
        *k = (plain_block){ .layer = t->layer,
                            .shared = shared,
                            .n_ff = t->n_ff,
                            .n_expert = t->n_expert ? t->n_expert : 1,
                            .n_used = t->n_used ? t->n_used : 1 };
        k->hidden = calloc((size_t)MAX_TOKENS * k->n_expert * k->n_ff, sizeof *k->hidden);
        k->chosen = calloc((size_t)MAX_TOKENS * k->n_expert, sizeof *k->chosen);
    }
    if (p->token == SIZE_MAX)
        return true;
    uint32_t e = shared ? 0 : t->expert;
    memcpy(k->hidden + (p->token * k->n_expert + e) * k->n_ff, t->hidden, k->n_ff * sizeof *t->hidden);
    k->chosen[p->token * k->n_expert + e] = 1;
    return true;
}

static void listen_plainly(plain *p, hearth_model *m, const hearth_token *ids, size_t n, uint32_t window)
{
    hearth_model_info info = { .size = sizeof info };
    hearth_session_params sp = { .size = sizeof sp, .n_ctx = window, .batch = 1 };
    hearth_session *s;
    hearth_model_get_info(m, &info);
    uint32_t bos = info.add_bos && info.bos >= 0;
    *p = (plain){ 0 };
    cr_assert_eq(hearth_session_open(&s, m, &sp, &err), HEARTH_OK, "%s", err.text);
    hearth_session_trace(s, note, p);
    for (size_t i = 0; i < n; i++) {
        if (i % (window - bos) == 0) {
            cr_assert_eq(hearth_session_rewind(s, 0, &err), HEARTH_OK);
            p->token = SIZE_MAX;
            if (bos)
                cr_assert_eq(hearth_session_feed(s, &info.bos, 1, NULL, NULL, &err), HEARTH_OK);
        }
        p->token = i;
        cr_assert_eq(hearth_session_feed(s, ids + i, 1, NULL, NULL, &err), HEARTH_OK, "%s", err.text);
    }
    hearth_session_close(&s);
}

static void close_plain(plain *p)
{
    for (uint32_t i = 0; i < p->n_blocks; i++) {
        free(p->blocks[i].hidden);
        free(p->blocks[i].chosen);
    }
}

static void expect_near(double got, double want, const char *what, uint32_t layer)
{
    cr_expect(fabs(got - want) <= 1e-6 * (1 + fabs(want)), "%s of layer %u: %.9g, not %.9g", what, layer, got, want);
}

/* Each figure by its definition, tokens of one window following one another. */
static void expect_block(const plain_block *k, const plain_block *before, const hearth_profile_layer *l, size_t n,
                         size_t per_window)
{
    size_t neurons = (size_t)k->n_expert * k->n_ff, active_all = 0, kept = 0, following = 0, experts_kept = 0,
           pairs = 0;
    double squares = 0, computed = (double)k->n_used * k->n_ff;
    for (size_t t = 0; t < n; t++) {
        const float *h = k->hidden + t * neurons, *last = h - neurons;
        size_t active = 0;
        bool follows = t % per_window != 0;
        for (size_t i = 0; i < neurons; i++) {
            active += h[i] != 0;
            kept += follows && h[i] != 0 && last[i] != 0;
        }
        active_all += active;
        squares += (double)active * (double)active;
        following += follows ? active : 0;
        pairs += follows ? k->n_used : 0;
        for (uint32_t e = 0; e < k->n_expert; e++)
            experts_kept += follows && k->chosen[t * k->n_expert + e] && k->chosen[(t - 1) * k->n_expert + e];
    }
    double mean = (double)active_all / (double)n;
    if (k->shared) {
        expect_near((double)l->shared_density, mean / computed, "shared density", k->layer);
        expect_near((double)l->shared_overlap, (double)kept / (double)following, "shared overlap", k->layer);
    } else {
        expect_near((double)l->density, mean / computed, "density", k->layer);
        expect_near((double)l->density_spread, sqrt(squares / (double)n - mean * mean) / computed, "spread", k->layer);
        expect_near((double)l->overlap, (double)kept / (double)following, "overlap", k->layer);
    }
    for (int level = 0; level < HEARTH_PROFILE_UNIONS && !k->shared; level++) {
        size_t group = (size_t)1 << level, groups = 0, sum = 0;
        for (size_t w = 0; w < n; w += per_window)
            for (size_t g = w; g + group <= w + per_window && g + group <= n; g += group, groups++)
                for (size_t i = 0; i < neurons; i++) {
                    bool any = false;
                    for (size_t t = g; t < g + group; t++)
                        any |= k->hidden[t * neurons + i] != 0;
                    sum += any;
                }
        double want = groups ? (double)sum / ((double)groups * (double)neurons) : -1;
        expect_near((double)l->unions[level], want, "union", k->layer);
    }
    const float *frequency = k->shared ? l->shared_frequency : l->frequency,
                *magnitude = k->shared ? l->shared_magnitude : l->magnitude;
    for (size_t i = 0; frequency && i < neurons; i++) {
        size_t count = 0;
        double sum = 0;
        for (size_t t = 0; t < n; t++) {
            count += k->hidden[t * neurons + i] != 0;
            sum += fabs((double)k->hidden[t * neurons + i]);
        }
        expect_near((double)frequency[i], (double)count / (double)n, "frequency", k->layer);
        expect_near((double)magnitude[i], count ? sum / (double)count : 0, "magnitude", k->layer);
    }
    if (k->n_expert == 1)
        return;
    expect_near((double)l->expert_overlap, (double)experts_kept / (double)pairs, "expert overlap", k->layer);
    for (uint32_t e = 0; e < k->n_expert; e++) {
        size_t count = 0;
        for (size_t t = 0; t < n; t++)
            count += k->chosen[t * k->n_expert + e];
        expect_near((double)l->expert_frequency[e], (double)count / (double)n, "expert frequency", k->layer);
    }
    if (!before) {
        cr_expect_null(l->next_share);
        return;
    }
    cr_assert(l->next_share && l->n_before == before->n_expert && l->n_next == k->n_expert);
    for (uint32_t from = 0; from < l->n_before; from++)
        for (uint32_t j = 0; j < l->n_next; j++) {
            uint32_t to = (uint32_t)l->next_expert[from * l->n_next + j];
            size_t both = 0, first = 0;
            for (size_t t = 0; t < n; t++) {
                first += before->chosen[t * before->n_expert + from];
                both += before->chosen[t * before->n_expert + from] && k->chosen[t * k->n_expert + to];
            }
            expect_near((double)l->next_share[from * l->n_next + j], first ? (double)both / (double)first : 0,
                        "transition", k->layer);
            cr_expect(!j || l->next_share[from * l->n_next + j] <= l->next_share[from * l->n_next + j - 1]);
        }
}

static hearth_profiler *profiled(hearth_model *m, hearth_profiler_params params, const char *text)
{
    hearth_profiler *p;
    params.size = sizeof params;
    cr_assert_eq(hearth_profiler_open(&p, m, &params, &err), HEARTH_OK, "%s", err.text);
    cr_assert_eq(hearth_profiler_run(p, text, strlen(text), &err), HEARTH_OK, "%s", err.text);
    return p;
}

static void check_statistics(const char *name, const char *architecture)
{
    enum { N = 250, WINDOW = 96 };
    hearth_model *m = util_open_relu(name, architecture);
    hearth_model_info info = { .size = sizeof info };
    char *text = util_text(3000);
    hearth_token *ids;
    size_t n_ids;
    plain want;

    hearth_model_get_info(m, &info);
    cr_assert_eq(hearth_tokenize(m, text, strlen(text), false, false, &ids, &n_ids, &err), HEARTH_OK);
    cr_assert_geq(n_ids, N);
    listen_plainly(&want, m, ids, N, WINDOW);
    static const uint32_t batches[] = { 0, 40, 1 };
    for (size_t b = 0; b < sizeof batches / sizeof *batches; b++)
        for (int only = 0; only < 2; only++) {
            hearth_profiler *p =
                profiled(m,
                         (hearth_profiler_params){
                             .max_tokens = N, .window = WINDOW, .batch = batches[b], .density_only = only },
                         text);
            hearth_profile *r;
            hearth_profile_info i = { .size = sizeof i };
            cr_assert_eq(hearth_profiler_profile(p, &r, &err), HEARTH_OK, "%s", err.text);
            hearth_profile_get_info(r, &i);
            cr_expect(i.tokens == N && i.n_layer == info.n_layer && i.window == WINDOW && i.density_only == only);
            const plain_block *before = NULL;
            for (uint32_t k = 0; k < want.n_blocks; k++) {
                const plain_block *block = &want.blocks[k];
                hearth_profile_layer l = { .size = sizeof l };
                cr_assert_eq(hearth_profile_get_layer(r, block->layer, &l), HEARTH_OK);
                cr_expect_eq(l.frequency == NULL, only);
                if (!block->shared)
                    cr_assert(l.n_ff == block->n_ff && l.n_expert == block->n_expert && l.n_used == block->n_used);
                expect_block(block, before, &l, N, WINDOW - (info.add_bos && info.bos >= 0));
                before = block->n_expert > 1 ? block : before;
            }
            hearth_profile_close(&r);
            hearth_profiler_close(&p);
        }
    close_plain(&want);
    hearth_free(ids);
    free(text);
    hearth_model_close(&m);
}

Test(profiler, counts_what_single_tokens_tell)
{
    check_statistics("llama_relu", "llama"); /* 160 neurons: no whole number of words */
    check_statistics("nemotron", "nemotron");
}
Test(profiler, counts_experts)
{
    check_statistics("smallthinker", "smallthinker");
    check_statistics("qwen2_moe", "qwen2moe");   /* a shared block beside the mixture */
    check_statistics("qwen3_next", "qwen3next"); /* recurrent */
}

/* ---- Sittings ---- */

static bool same_profile(const hearth_profile *a, const hearth_profile *b)
{
    const char *pa = util_path("same-a.gguf"), *pb = util_path("same-b.gguf");
    size_t na, nb;
    cr_assert_eq(hearth_profile_write(a, pa, &err), HEARTH_OK, "%s", err.text);
    cr_assert_eq(hearth_profile_write(b, pb, &err), HEARTH_OK, "%s", err.text);
    char *x = util_read(pa, &na), *y = util_read(pb, &nb);
    bool same = na == nb && !memcmp(x, y, na);
    free(x);
    free(y);
    remove(pa);
    remove(pb);
    return same;
}

typedef struct stopper {
    int calls_left;
    uint64_t last;
} stopper;

static bool stop(void *user, const char *what, uint64_t done, uint64_t total)
{
    stopper *s = user;
    cr_assert_str_eq(what, "profiling");
    cr_assert(done <= total && done >= s->last);
    s->last = done;
    return s->calls_left-- > 0;
}

/* Cancels its own session from within: what Ctrl-C does at any moment. */
static bool cancel_session(void *user, const char *what, uint64_t done, uint64_t total)
{
    hearth_profiler **p = user;
    (void)what;
    (void)total;
    if (done >= 150)
        hearth_session_cancel(hearth_profiler_session(*p));
    return true;
}

static void check_sittings(const char *name, const char *architecture)
{
    enum { N = 600, WINDOW = 64 };
    hearth_model *m = util_open_relu(name, architecture);
    char *text = util_text(6000);
    const char *part = util_path("sittings.part");
    hearth_profiler_params params = { .size = sizeof params, .max_tokens = N, .window = WINDOW, .part_tokens = 100 };
    hearth_profiler *whole = profiled(m, params, text), *p;
    hearth_profile *want, *got = NULL;
    uint64_t last = 0;
    int sittings = 0;

    cr_assert_eq(hearth_profiler_profile(whole, &want, &err), HEARTH_OK);
    remove(part);
    params.part = part;
    for (hearth_status st = HEARTH_ECANCELLED; st == HEARTH_ECANCELLED; sittings++) {
        stopper s = { .calls_left = sittings % 3 }; /* 0: stops before anything is done */
        hearth_profiler_state state = { .size = sizeof state };
        params.progress = sittings == 4 ? cancel_session : stop;
        params.progress_user = sittings == 4 ? (void *)&p : &s;
        cr_assert_eq(hearth_profiler_open(&p, m, &params, &err), HEARTH_OK, "%s", err.text);
        st = hearth_profiler_run(p, text, strlen(text), &err);
        cr_assert(st == HEARTH_OK || st == HEARTH_ECANCELLED, "%s", err.text);
        hearth_profiler_get_state(p, &state);
        cr_assert(state.tokens_resumed == last && state.tokens >= last && state.tokens_total == N);
        last = state.tokens;
        if (st == HEARTH_OK)
            cr_assert_eq(hearth_profiler_profile(p, &got, &err), HEARTH_OK);
        hearth_profiler_close(&p);
        cr_assert_lt(sittings, 100);
    }
    cr_expect_gt(sittings, 5);
    cr_expect(same_profile(want, got), "%s: sittings change the profile", name);
    /* Complete, and kept: one more run has nothing to do. */
    hearth_profile_close(&got);
    params.progress = NULL;
    p = profiled(m, params, text);
    hearth_profiler_state state = { .size = sizeof state };
    hearth_profiler_get_state(p, &state);
    cr_expect_eq(state.tokens_resumed, N);
    cr_assert_eq(hearth_profiler_profile(p, &got, &err), HEARTH_OK);
    cr_expect(same_profile(want, got));
    hearth_profiler_close(&p);
    hearth_profile_close(&got);
    hearth_profile_close(&want);
    hearth_profiler_close(&whole);
    remove(part);
    free(text);
    hearth_model_close(&m);
}

Test(profiler, sittings_add_up)
{
    check_sittings("llama_relu", "llama");
    check_sittings("qwen2_moe", "qwen2moe");
}

/* Leaves a part of some windows. */
static void leave_part(hearth_model *m, const char *part, const char *text, hearth_profiler_params params)
{
    stopper s = { .calls_left = 3 };
    hearth_profiler *p;
    params.size = sizeof params;
    params.part = part;
    params.progress = stop;
    params.progress_user = &s;
    cr_assert_eq(hearth_profiler_open(&p, m, &params, &err), HEARTH_OK, "%s", err.text);
    cr_assert_eq(hearth_profiler_run(p, text, strlen(text), &err), HEARTH_ECANCELLED);
    hearth_profiler_close(&p);
    cr_assert_eq(access(part, R_OK), 0);
}

static hearth_status go_on(hearth_model *m, const char *part, const char *text, hearth_profiler_params params)
{
    hearth_profiler *p;
    params.size = sizeof params;
    params.part = part;
    err.text[0] = 0;
    cr_assert_eq(hearth_profiler_open(&p, m, &params, &err), HEARTH_OK, "%s", err.text);
    hearth_status st = hearth_profiler_run(p, text, strlen(text), &err);
    hearth_profiler_close(&p);
    return st;
}

Test(profiler, parts_of_others_are_refused)
{
    hearth_model *m = util_open_relu("llama_relu", "llama"), *other = util_open_relu("nemotron", "nemotron");
    const char *part = util_path("others.part");
    char *text = util_text(4000), *text2 = util_text(4000);
    hearth_profiler_params params = { .max_tokens = 500, .window = 64 }, p2 = params;

    text2[100] = 'Z';
    leave_part(m, part, text, params);
    cr_expect_eq(go_on(other, part, text, params), HEARTH_EMISMATCH);
    cr_expect(strstr(err.text, "another model"), "%s", err.text);
    cr_expect_eq(go_on(m, part, text2, params), HEARTH_EMISMATCH);
    cr_expect(strstr(err.text, "another text"), "%s", err.text);
    p2.window = 65;
    cr_expect_eq(go_on(m, part, text, p2), HEARTH_EMISMATCH);
    p2 = params;
    p2.density_only = true;
    cr_expect_eq(go_on(m, part, text, p2), HEARTH_EMISMATCH);
    p2 = params;
    p2.kv_type = HEARTH_KV_Q8_0;
    cr_expect_eq(go_on(m, part, text, p2), HEARTH_EMISMATCH);
    p2.restart = true;
    cr_expect_eq(go_on(m, part, text, p2), HEARTH_OK, "%s", err.text);
    remove(part);
    free(text);
    free(text2);
    hearth_model_close(&m);
    hearth_model_close(&other);
}

Test(profiler, damaged_parts_are_refused)
{
    hearth_model *m = util_open_relu("llama_relu", "llama");
    const char *part = util_path("damaged.part");
    char *text = util_text(4000);
    hearth_profiler_params params = { .max_tokens = 500, .window = 64 };
    size_t n;

    leave_part(m, part, text, params);
    char *bytes = util_read(part, &n);
    for (size_t cut = 0; cut < n; cut += cut < 200 ? 1 : n / 37) {
        util_write(part, bytes, cut);
        cr_assert_eq(go_on(m, part, text, params), HEARTH_EFORMAT, "cut at %zu", cut);
    }
    for (size_t at = 0; at < n; at += at < 100 ? 1 : n / 101) {
        bytes[at] ^= 0x10;
        util_write(part, bytes, n);
        cr_assert_eq(go_on(m, part, text, params), HEARTH_EFORMAT, "byte %zu", at);
        cr_assert(err.text[0]);
        bytes[at] ^= 0x10;
    }
    util_write(part, bytes, n);
    cr_assert_eq(go_on(m, part, text, params), HEARTH_OK, "%s", err.text);
    remove(part);
    cr_assert_eq(go_on(m, "/nowhere/at/all.part", text, params), HEARTH_EIO);
    free(bytes);
    free(text);
    hearth_model_close(&m);
}

Test(profiler, refuses_what_makes_no_sense)
{
    hearth_model *m = util_open_relu("llama_relu", "llama");
    hearth_profiler_params params = { .size = sizeof params, .window = 1 };
    hearth_profiler *p;
    hearth_profile *r;

    cr_expect_eq(hearth_profiler_open(&p, m, &params, &err), HEARTH_EINVAL);
    cr_expect_null(p);
    params.window = 1 << 20;
    cr_expect_eq(hearth_profiler_open(&p, m, &params, &err), HEARTH_EINVAL);
    cr_assert_eq(hearth_profiler_open(&p, m, NULL, &err), HEARTH_OK, "%s", err.text);
    cr_expect_eq(hearth_profiler_profile(p, &r, &err), HEARTH_EINVAL);
    cr_expect_eq(hearth_profiler_run(p, "", 0, &err), HEARTH_EINVAL);
    cr_expect_eq(hearth_profiler_run(p, "once more", 9, &err), HEARTH_EINVAL);
    hearth_profiler_close(&p);
    hearth_profiler_close(&p);
    hearth_model_close(&m);
}

/* A long text costs no more than the tokens asked for. */
Test(profiler, takes_the_beginning_of_a_text)
{
    hearth_model *m = util_open_relu("llama_relu", "llama");
    char *text = util_text(20000);
    hearth_profiler *p = profiled(m, (hearth_profiler_params){ .max_tokens = 100, .window = 64 }, text), *q;
    hearth_profile *a, *b;
    hearth_profile_info info = { .size = sizeof info };
    cr_assert_eq(hearth_profiler_profile(p, &a, &err), HEARTH_OK);
    hearth_profile_get_info(a, &info);
    cr_expect(info.tokens == 100 && info.text_bytes > 50 && info.text_bytes < 1000);
    text[2000] = 0;
    q = profiled(m, (hearth_profiler_params){ .max_tokens = 100, .window = 64 }, text);
    cr_assert_eq(hearth_profiler_profile(q, &b, &err), HEARTH_OK);
    cr_expect(same_profile(a, b));
    hearth_profile_close(&a);
    hearth_profile_close(&b);
    hearth_profiler_close(&p);
    hearth_profiler_close(&q);
    free(text);
    hearth_model_close(&m);
}
