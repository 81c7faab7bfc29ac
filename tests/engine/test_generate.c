/* SPDX-License-Identifier: MIT
 *
 * Generation: what is delivered, where it stops and what state the session is in afterwards. The model's weights are
 * random, so what it writes is taken from a first run. */
#include "tests/engine/engine_util.h"

enum { MAX = 400 };

static hearth_error err;

typedef struct story {
    char text[1 << 14];
    size_t n;
    hearth_token ids[MAX];
    size_t ends[MAX]; /* bytes delivered up to and with each token */
    uint32_t n_ids, flushes, stop_after;
    hearth_session *cancel;
} story;

static bool take(void *user, hearth_token id, const char *text, size_t n)
{
    story *l = user;
    cr_assert(l->n + n < sizeof l->text);
    memcpy(l->text + l->n, text, n);
    l->n += n;
    l->text[l->n] = 0;
    if (id < 0) {
        l->flushes++;
        cr_assert(n > 0, "an empty flush");
        return true;
    }
    cr_assert_eq(l->flushes, 0, "a token after the flush");
    cr_assert(l->n_ids < MAX);
    l->ends[l->n_ids] = l->n;
    l->ids[l->n_ids++] = id;
    if (l->cancel && l->n_ids == l->stop_after)
        hearth_session_cancel(l->cancel);
    return l->cancel || !l->stop_after || l->n_ids < l->stop_after;
}

/* One thread: what is tested here has no others. */
static hearth_model *open_model(void)
{
    char path[512];
    return util_open(util_golden(path, "llama.gguf"), (hearth_model_params){ .threads = 1 });
}

static const int32_t prompt[5] = { 1, 70, 80, 90, 100 };

static hearth_sampler *sampler(const hearth_model *m, uint64_t seed)
{
    hearth_sampler *p;
    hearth_sampler_params params = { .size = sizeof params, .temperature = seed ? 1.0f : 0.0f, .seed = seed };
    cr_assert_eq(hearth_sampler_open(&p, &params, util_n_vocab(m), &err), HEARTH_OK);
    return p;
}

static hearth_stop_reason generate(hearth_session *s, hearth_sampler *p, const int32_t *ids, size_t n,
                                   hearth_generate_params g, story *l)
{
    hearth_stop_reason why = (hearth_stop_reason)99;
    g.size = sizeof g;
    g.on_token = take;
    g.user = l;
    cr_assert_eq(hearth_generate(s, p, ids, n, &g, &why, &err), HEARTH_OK, "%s", err.text);
    return why;
}

/* A session's run from the prompt on: its log and, after it, its position. */
static hearth_stop_reason run(hearth_model *m, uint32_t n_ctx, uint64_t seed, hearth_generate_params g, story *l,
                              uint32_t *pos)
{
    hearth_session *s = util_session(m, n_ctx, 0, HEARTH_KV_F16);
    hearth_sampler *p = sampler(m, seed);
    hearth_stop_reason why = generate(s, p, prompt, 5, g, l);
    if (pos)
        *pos = hearth_session_position(s);
    hearth_sampler_close(&p);
    hearth_session_close(&s);
    return why;
}

Test(generate, length)
{
    hearth_model *m = open_model();
    static story l;
    uint32_t pos;

    cr_expect_eq(run(m, 256, 3, (hearth_generate_params){ .max_tokens = 40, .ignore_end = true }, &l, &pos),
                 HEARTH_STOP_LENGTH);
    cr_expect_eq(l.n_ids, 40);
    cr_expect_eq(pos, 45, "what was delivered is part of the session");
    /* The text is that of the ids, but for the space that begins a text. */
    char *text;
    size_t n;
    cr_assert_eq(hearth_detokenize(m, l.ids, 40, false, &text, &n, &err), HEARTH_OK);
    size_t skip = l.n > n ? l.n - n : 0;
    cr_expect(skip <= 1 && memcmp(l.text + skip, text, n) == 0, "\"%s\" against \"%.*s\"", l.text, (int)n, text);
    hearth_free(text);
    hearth_model_close(&m);
}

/* In two parts, with and without more ids between, generation goes on as if it had not stopped. */
Test(generate, goes_on_after_max_tokens)
{
    hearth_model *m = open_model();
    static story whole, parts, fed;
    hearth_generate_params g = { .max_tokens = 30, .ignore_end = true };

    run(m, 256, 0, g, &whole, NULL);
    hearth_session *s = util_session(m, 256, 0, HEARTH_KV_F16), *t = util_session(m, 256, 0, HEARTH_KV_F16);
    hearth_sampler *p = sampler(m, 0);
    g.max_tokens = 11;
    generate(s, p, prompt, 5, g, &parts);
    cr_expect_eq(hearth_session_position(s), 16);
    g.max_tokens = 19;
    generate(s, p, NULL, 0, g, &parts);
    cr_expect_eq(parts.n_ids, 30);
    cr_expect(memcmp(parts.ids, whole.ids, 30 * sizeof *parts.ids) == 0);

    /* The pending token is computed before what is fed next. */
    g.max_tokens = 11;
    generate(t, p, prompt, 5, g, &fed);
    int32_t next[2] = { 33, 44 }, all[18];
    cr_assert_eq(hearth_session_feed(t, next, 2, NULL, NULL, &err), HEARTH_OK);
    cr_expect_eq(hearth_session_position(t), 18);
    memcpy(all, prompt, sizeof prompt);
    memcpy(all + 5, fed.ids, 11 * sizeof *all);
    memcpy(all + 16, next, sizeof next);
    cr_assert_eq(hearth_session_rewind(s, 0, &err), HEARTH_OK);
    cr_assert_eq(hearth_session_feed(s, all, 18, NULL, NULL, &err), HEARTH_OK);
    cr_expect(memcmp(hearth_session_logits(s), hearth_session_logits(t), util_n_vocab(m) * sizeof(float)) == 0);
    /* A pending token can be taken back. */
    static story again;
    g.max_tokens = 1;
    generate(s, p, NULL, 0, g, &again);
    cr_expect_eq(hearth_session_position(s), 19);
    cr_expect_eq(hearth_session_rewind(s, 19, &err), HEARTH_OK);
    cr_expect_eq(hearth_session_rewind(s, 18, &err), HEARTH_OK);
    cr_expect_eq(hearth_session_position(s), 18);
    hearth_sampler_close(&p);
    hearth_session_close(&s);
    hearth_session_close(&t);
    hearth_model_close(&m);
}

Test(generate, end_of_the_context)
{
    hearth_model *m = open_model();
    static story l, more;
    hearth_session *s = util_session(m, 128, 0, HEARTH_KV_F16);
    hearth_sampler *p = sampler(m, 5);
    hearth_generate_params g = { .ignore_end = true };

    cr_expect_eq(generate(s, p, prompt, 5, g, &l), HEARTH_STOP_CONTEXT);
    cr_expect_eq(l.n_ids, 123);
    cr_expect_eq(hearth_session_position(s), 128);
    cr_expect_eq(generate(s, p, NULL, 0, g, &more), HEARTH_STOP_CONTEXT, "still full");
    cr_expect_eq(more.n_ids, 0);
    cr_expect_eq(hearth_session_feed(s, prompt, 1, NULL, NULL, &err), HEARTH_EFULL);

    /* max_tokens reached together with the end: the last token is pending, and there is room for it. */
    cr_assert_eq(hearth_session_rewind(s, 0, &err), HEARTH_OK);
    static story exact;
    g.max_tokens = 123;
    cr_expect_eq(generate(s, p, prompt, 5, g, &exact), HEARTH_STOP_LENGTH);
    cr_expect_eq(hearth_session_position(s), 128);
    cr_expect_eq(hearth_session_feed(s, prompt, 1, NULL, NULL, &err), HEARTH_EFULL);
    cr_expect_eq(generate(s, p, NULL, 0, g, &more), HEARTH_STOP_CONTEXT);
    cr_expect_eq(more.n_ids, 0);
    cr_expect_eq(hearth_session_position(s), 128);
    hearth_sampler_close(&p);
    hearth_session_close(&s);
    hearth_model_close(&m);
}

Test(generate, prompt_that_does_not_fit)
{
    hearth_model *m = open_model();
    hearth_session *s = util_session(m, 4, 0, HEARTH_KV_F16);
    hearth_sampler *p = sampler(m, 0);
    hearth_generate_params g = { .size = sizeof g };

    cr_expect_eq(hearth_generate(s, p, prompt, 5, &g, NULL, &err), HEARTH_EFULL);
    cr_expect_eq(hearth_generate(s, p, NULL, 0, &g, NULL, &err), HEARTH_EINVAL, "nothing was fed");
    cr_expect_eq(hearth_generate(s, p, prompt, 4, NULL, NULL, &err), HEARTH_OK, "no callback, no reason wanted");
    hearth_sampler_close(&p);
    hearth_session_close(&s);
    hearth_model_close(&m);
}

Test(generate, caller_and_cancel)
{
    hearth_model *m = open_model();
    static story l = { .stop_after = 7 };
    uint32_t pos;
    hearth_generate_params g = { .ignore_end = true };

    cr_expect_eq(run(m, 256, 3, g, &l, &pos), HEARTH_STOP_CALLER);
    cr_expect_eq(l.n_ids, 7);
    cr_expect_eq(pos, 12);

    static story c = { .stop_after = 9 }, none, on;
    hearth_session *s = util_session(m, 256, 0, HEARTH_KV_F16);
    hearth_sampler *p = sampler(m, 3);
    c.cancel = s;
    cr_expect_eq(generate(s, p, prompt, 5, g, &c), HEARTH_STOP_CANCEL);
    cr_expect_eq(c.n_ids, 9);
    cr_expect_eq(hearth_session_position(s), 14);
    cr_expect_eq(generate(s, p, prompt, 5, g, &none), HEARTH_STOP_CANCEL, "cancelled while the prompt is read");
    cr_expect_eq(none.n_ids, 0);
    hearth_session_uncancel(s);
    g.max_tokens = 3;
    cr_expect_eq(generate(s, p, NULL, 0, g, &on), HEARTH_STOP_LENGTH);
    cr_expect_eq(hearth_session_position(s), 17);
    hearth_sampler_close(&p);
    hearth_session_close(&s);
    hearth_model_close(&m);
}

Test(generate, end_token)
{
    hearth_model *m = open_model();
    uint32_t ended = 0;

    for (uint64_t seed = 1; seed < (util_sanitized() ? 8 : 30); seed++) {
        static story l, all;
        uint32_t pos;
        memset(&l, 0, sizeof l);
        memset(&all, 0, sizeof all);
        hearth_stop_reason why = run(m, 256, seed, (hearth_generate_params){ .max_tokens = 200 }, &l, &pos);
        run(m, 256, seed, (hearth_generate_params){ .max_tokens = 200, .ignore_end = true }, &all, NULL);
        cr_assert_eq(pos, 5 + l.n_ids);
        cr_assert(memcmp(l.ids, all.ids, l.n_ids * sizeof *l.ids) == 0);
        if (why == HEARTH_STOP_END) {
            ended++;
            cr_assert(hearth_token_is_end(m, all.ids[l.n_ids]), "seed %d", (int)seed);
        } else {
            cr_assert_eq(why, HEARTH_STOP_LENGTH);
        }
        for (uint32_t i = 0; i < l.n_ids; i++)
            cr_assert(!hearth_token_is_end(m, l.ids[i]));
    }
    cr_expect(ended > 0, "no run ever ended: the test shows nothing");
    hearth_model_close(&m);
}

/* Where a run with these stops must end: the stop that is complete first, byte by byte. */
static size_t cut_of(const char *text, size_t n, const char *const *stops, size_t n_stops)
{
    for (size_t end = 1; end <= n; end++) {
        size_t cut = SIZE_MAX;
        for (size_t s = 0; s < n_stops; s++) {
            size_t len = strlen(stops[s]);
            if (len && len <= end && memcmp(text + end - len, stops[s], len) == 0 && end - len < cut)
                cut = end - len;
        }
        if (cut != SIZE_MAX)
            return cut;
    }
    return SIZE_MAX;
}

static void expect_cut(hearth_model *m, const story *free_run, const char *const *stops, size_t n_stops)
{
    static story l;
    uint32_t pos;
    size_t cut = cut_of(free_run->text, free_run->n, stops, n_stops);

    memset(&l, 0, sizeof l);
    hearth_generate_params g = {
        .max_tokens = free_run->n_ids, .ignore_end = true, .stops = stops, .n_stops = n_stops
    };
    hearth_stop_reason why = run(m, 256, 7, g, &l, &pos);
    if (cut == SIZE_MAX) {
        cr_expect_eq(why, HEARTH_STOP_LENGTH);
        cr_expect(l.n == free_run->n && memcmp(l.text, free_run->text, l.n) == 0, "all is delivered in the end");
    } else {
        cr_expect_eq(why, HEARTH_STOP_TEXT, "stop \"%s\"", stops[0]);
        cr_expect(l.n == cut && memcmp(l.text, free_run->text, cut) == 0,
                  "stop \"%s\" (first of %zu): \"%s\", wanted %zu bytes", stops[0], n_stops, l.text, cut);
        cr_expect(l.n_ids <= free_run->n_ids && memcmp(l.ids, free_run->ids, l.n_ids * sizeof *l.ids) == 0);
        cr_expect(free_run->ends[l.n_ids - 1] > cut || l.n_ids == free_run->n_ids, "stopped late");
    }
    cr_expect_eq(pos, 5 + l.n_ids);
}

Test(generate, stop_texts)
{
    hearth_model *m = open_model();
    static story all;
    char a[64], b[64], c[80];
    uint32_t x = 1;

    run(m, 256, 7, (hearth_generate_params){ .max_tokens = 60, .ignore_end = true }, &all, NULL);
    cr_assert(all.n > 60);
    for (int i = 0; i < (util_sanitized() ? 6 : 120); i++) {
        x = x * 1664525 + 1013904223;
        size_t at = (x >> 8) % (all.n - 40), len = 1 + (x >> 20) % 12, at2 = (x >> 4) % (all.n - 40);
        snprintf(a, sizeof a, "%.*s", (int)len, all.text + at); /* somewhere in the text, mostly across tokens */
        snprintf(b, sizeof b, "%.*s", (int)(len + 3), all.text + at2);
        snprintf(c, sizeof c, "%.*s\x01", (int)(len + 9),
                 all.text + (at > 4 ? at - 4 : 0)); /* begins like a, never comes */
        expect_cut(m, &all, (const char *const[]){ a }, 1);
        expect_cut(m, &all, (const char *const[]){ c }, 1);
        expect_cut(m, &all, (const char *const[]){ c, a, b }, 3);
        expect_cut(m, &all, (const char *const[]){ b, "", a, c }, 4);
    }
    hearth_model_close(&m);
}

/* Bytes of unfinished characters are held; whatever comes is valid UTF-8 or can never become so. */
Test(generate, characters_are_whole)
{
    hearth_model *m = open_model();
    for (uint64_t seed = 1; seed < (util_sanitized() ? 2 : 6); seed++) {
        static story l;
        memset(&l, 0, sizeof l);
        run(m, 300, seed, (hearth_generate_params){ .max_tokens = 250, .ignore_end = true }, &l, NULL);
        for (uint32_t i = 0; i + 1 < l.n_ids; i++) {
            size_t end = l.ends[i];
            /* No piece ends inside what is a whole character in the full text. */
            size_t lead = end;
            while (lead > 0 && end - lead < 3 && ((unsigned char)l.text[lead - 1] & 0xc0) == 0x80)
                lead--;
            unsigned char first = lead ? (unsigned char)l.text[lead - 1] : 0;
            size_t need = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : first >= 0xc2 ? 2 : 1, have = end - lead + 1;
            bool whole = need > have;
            for (size_t k = have; whole && k < need; k++)
                whole = lead - 1 + k < l.n && ((unsigned char)l.text[lead - 1 + k] & 0xc0) == 0x80;
            cr_assert(!whole || need == 1, "seed %d: a character was split after byte %zu", (int)seed, end);
        }
    }
    hearth_model_close(&m);
}
