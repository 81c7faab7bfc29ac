/* SPDX-License-Identifier: MIT
 *
 * Sessions through hearth.h: feeding, rewinding, cancelling, full contexts, many objects side by side. */
#include <dirent.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "tests/engine/engine_util.h"

static hearth_error err;

static void ids_of(int32_t *ids, size_t n, uint32_t seed)
{
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)(((uint32_t)i * 2654435761u + seed * 40503u) >> 8) % 380;
}

static void feed(hearth_session *s, const int32_t *ids, size_t n)
{
    cr_assert_eq(hearth_session_feed(s, ids, n, NULL, NULL, &err), HEARTH_OK, "%s", err.text);
}

/* Asserts that the session's logits are these bits. */
static void expect_logits(const hearth_session *s, const float *want, uint32_t n_vocab, const char *what)
{
    const float *got = hearth_session_logits(s);
    cr_assert_not_null(got, "%s", what);
    cr_expect(memcmp(got, want, n_vocab * sizeof *want) == 0, "%s: other logits", what);
}

static void check_feeding(const char *name)
{
    enum { N = 150 }; /* more than a page of KV */
    int32_t ids[N];
    hearth_model *m = util_open_golden(name, HEARTH_PRECISION_FAST);
    uint32_t v = util_n_vocab(m);
    hearth_session *s = util_session(m, 200, 64, HEARTH_KV_F16);

    ids_of(ids, N, 1);
    float *rows = malloc((size_t)N * v * sizeof *rows);
    struct util_rows to = { rows, v };
    cr_assert_null(hearth_session_logits(s), "logits before the first token");
    cr_assert_eq(hearth_session_feed(s, ids, N, util_store_row, &to, &err), HEARTH_OK, "%s", err.text);
    cr_expect_eq(hearth_session_position(s), N);
    expect_logits(s, rows + (size_t)(N - 1) * v, v, "after a feed with a callback");

    cr_assert_eq(hearth_session_rewind(s, 0, &err), HEARTH_OK, "%s", err.text);
    cr_expect_null(hearth_session_logits(s), "logits of nothing");
    feed(s, ids, N);
    expect_logits(s, rows + (size_t)(N - 1) * v, v, "again, after going back to 0");

    cr_assert_eq(hearth_session_rewind(s, 0, &err), HEARTH_OK);
    for (size_t i = 0, step = 1; i < N; i += step, step = step % 50 + 13) {
        size_t n = N - i < step ? N - i : step;
        feed(s, ids + i, n);
        expect_logits(s, rows + (i + n - 1) * v, v, "in pieces");
    }
    cr_assert_eq(hearth_session_rewind(s, N, &err), HEARTH_OK);
    expect_logits(s, rows + (size_t)(N - 1) * v, v, "going back to where one is changes nothing");
    free(rows);
    hearth_session_close(&s);
    hearth_model_close(&m);
}

Test(session, feeding)
{
    check_feeding("llama");
}
Test(session, feeding_recurrent)
{
    check_feeding("qwen3_next");
}

Test(session, rewind)
{
    enum { N = 140 };
    int32_t a[N], b[N];
    hearth_model *m = util_open_golden("llama", HEARTH_PRECISION_FAST);
    uint32_t v = util_n_vocab(m);
    hearth_session *s = util_session(m, 160, 0, HEARTH_KV_F16), *fresh = util_session(m, 160, 0, HEARTH_KV_F16);

    ids_of(a, N, 2);
    memcpy(b, a, sizeof b);
    ids_of(b + 100, N - 100, 3);
    feed(s, a, N);
    cr_assert_eq(hearth_session_rewind(s, N + 1, &err), HEARTH_EINVAL);
    cr_assert_eq(hearth_session_position(s), N);
    cr_assert_eq(hearth_session_rewind(s, 100, &err), HEARTH_OK);
    cr_expect_null(hearth_session_logits(s));
    cr_expect_eq(hearth_session_position(s), 100);
    feed(s, b + 100, N - 100);
    feed(fresh, b, N);
    expect_logits(s, hearth_session_logits(fresh), v, "another end of the same beginning");
    hearth_session_close(&s);
    hearth_session_close(&fresh);
    hearth_model_close(&m);
}

Test(session, rewind_recurrent)
{
    int32_t ids[40];
    hearth_model *m = util_open_golden("qwen3_5", HEARTH_PRECISION_FAST);
    hearth_session *s = util_session(m, 64, 0, HEARTH_KV_F16);

    ids_of(ids, 40, 4);
    feed(s, ids, 40);
    cr_expect_eq(hearth_session_rewind(s, 20, &err), HEARTH_EUNSUPPORTED);
    cr_expect_eq(hearth_session_position(s), 40);
    cr_expect_not_null(hearth_session_logits(s));
    cr_expect_eq(hearth_session_rewind(s, 0, &err), HEARTH_OK);
    cr_expect_eq(hearth_session_position(s), 0);
    hearth_session_close(&s);
    hearth_model_close(&m);
}

Test(session, full_context)
{
    int32_t ids[130];
    hearth_model *m = util_open_golden("llama", HEARTH_PRECISION_FAST);
    uint32_t v = util_n_vocab(m);
    hearth_session *s = util_session(m, 128, 0, HEARTH_KV_F16);
    float before[512];

    ids_of(ids, 130, 5);
    cr_assert(v <= 512);
    cr_expect_eq(hearth_session_context(s), 128);
    cr_expect_eq(hearth_session_feed(s, ids, 129, NULL, NULL, &err), HEARTH_EFULL);
    cr_expect(strstr(err.text, "128"), "%s", err.text);
    cr_expect_eq(hearth_session_position(s), 0);
    feed(s, ids, 127);
    memcpy(before, hearth_session_logits(s), v * sizeof *before);
    cr_expect_eq(hearth_session_feed(s, ids, 2, NULL, NULL, &err), HEARTH_EFULL);
    expect_logits(s, before, v, "a feed that is refused changes nothing");
    feed(s, ids, 1);
    cr_expect_eq(hearth_session_feed(s, ids, 1, NULL, NULL, &err), HEARTH_EFULL);
    cr_expect_eq(hearth_session_feed(s, ids, 0, NULL, NULL, &err), HEARTH_OK, "nothing always fits");
    ids[0] = -1;
    cr_expect_eq(hearth_session_feed(s, ids, 1, NULL, NULL, &err), HEARTH_EINVAL);
    ids[0] = (int32_t)v;
    cr_expect_eq(hearth_session_feed(s, ids, 1, NULL, NULL, &err), HEARTH_EINVAL);
    hearth_session_close(&s);
    s = util_session(m, 1, 0, HEARTH_KV_F16);
    feed(s, ids + 1, 1);
    cr_expect_eq(hearth_session_position(s), 1);
    hearth_session_close(&s);
    hearth_model_close(&m);
}

Test(session, parameters)
{
    hearth_model *m = util_open_golden("llama", HEARTH_PRECISION_FAST);
    hearth_session *s;
    hearth_session_params p = { .size = offsetof(hearth_session_params, kv_type), .n_ctx = 40, .batch = UINT32_MAX };
    hearth_model_info info = { .size = offsetof(hearth_model_info, description), .description = "kept" };

    cr_assert_eq(hearth_session_open(&s, m, &p, &err), HEARTH_OK, "members beyond the size are not read: %s", err.text);
    cr_expect_eq(hearth_session_context(s), 40);
    hearth_session_close(&s);
    cr_assert_eq(hearth_session_open(&s, m, NULL, &err), HEARTH_OK, "%s", err.text);
    hearth_session_close(&s);
    hearth_session_close(&s);
    hearth_session_close(NULL);
    p = (hearth_session_params){ .size = sizeof p, .n_ctx = UINT32_MAX };
    cr_expect_eq(hearth_session_open(&s, m, &p, &err), HEARTH_EINVAL);
    cr_expect_null(s);
    p = (hearth_session_params){ .size = sizeof p, .n_ctx = 64, .batch = UINT32_MAX };
    hearth_status st = hearth_session_open(&s, m, &p, NULL);
    cr_expect(st == HEARTH_OK || st == HEARTH_ENOMEM);
    hearth_session_close(&s);
    cr_assert_eq(hearth_model_get_info(m, &info), HEARTH_OK);
    cr_expect_str_eq(info.description, "kept", "members beyond the size are not written");
    cr_expect_str_eq(info.architecture, "llama");
    hearth_model_close(&m);
}

Test(session, budget)
{
    char path[512];
    hearth_session *s;
    hearth_stats st = { .size = sizeof st };
    int32_t ids[300];
    hearth_model *m =
        util_open(util_golden(path, "llama.gguf"), (hearth_model_params){ .threads = 1, .ram_bytes = 4 << 20 });
    hearth_session_params p = { .size = sizeof p, .n_ctx = 1 << 16, .batch = 32 };

    cr_expect_eq(hearth_session_open(&s, m, &p, &err), HEARTH_ENOMEM, "a context beyond the budget");
    cr_expect(strstr(err.text, "MiB"), "%s", err.text);
    p.n_ctx = 512;
    cr_assert_eq(hearth_session_open(&s, m, &p, &err), HEARTH_OK, "%s", err.text);
    cr_assert_eq(hearth_session_get_stats(s, &st), HEARTH_OK);
    uint64_t empty = st.kv_bytes;
    ids_of(ids, 300, 6);
    feed(s, ids, 10);
    hearth_session_get_stats(s, &st);
    uint64_t one = st.kv_bytes - empty;
    feed(s, ids, 290);
    hearth_session_get_stats(s, &st);
    cr_expect(one > 0 && st.kv_bytes == empty + 3 * one, "KV is taken as the conversation grows");
    cr_assert_eq(hearth_session_rewind(s, 5, &err), HEARTH_OK);
    hearth_session_get_stats(s, &st);
    cr_expect_eq(st.kv_bytes, empty + one, "and given back");
    cr_expect_eq(st.prompt_tokens, 300);
    hearth_session_close(&s);
    hearth_model_close(&m);
}

Test(session, budget_is_shared)
{
    enum { MOST = 64, RAM = 4 << 20 };
    char path[512];
    hearth_session *s[MOST];
    hearth_session_params p = { .size = sizeof p, .n_ctx = 512, .batch = 32 };
    hearth_model *m =
        util_open(util_golden(path, "llama.gguf"), (hearth_model_params){ .threads = 1, .ram_bytes = RAM });
    hearth_stats st = { .size = sizeof st };
    int32_t ids[400];
    uint64_t used = 0;
    int n = 0;

    ids_of(ids, 400, 12);
    while (n < MOST && hearth_session_open(&s[n], m, &p, &err) == HEARTH_OK)
        n++;
    cr_assert(n > 0 && n < MOST, "%d sessions in %d bytes", n, RAM);
    cr_expect_eq(err.status, HEARTH_ENOMEM);
    for (int i = 0; i < n; i++) { /* what was granted can be taken */
        feed(s[i], ids, 400);
        hearth_session_get_stats(s[i], &st);
        used += st.kv_bytes + st.scratch_bytes;
    }
    cr_expect(st.thread_scratch_bytes > 0);
    used += st.thread_scratch_bytes; /* once for all */
    cr_expect(used <= RAM, "%llu bytes", (unsigned long long)used);
    hearth_session_close(&s[0]);
    cr_assert_eq(hearth_session_open(&s[0], m, &p, &err), HEARTH_OK, "a session's share comes back: %s", err.text);
    for (int i = 0; i < n; i++)
        hearth_session_close(&s[i]);
    hearth_model_close(&m);
}

/* A batch that is chosen is never too large for a budget in which a smaller one fits. */
Test(session, batch_gives_way_to_context)
{
    char path[512];
    uint64_t lo = 0, hi = 64 << 20;
    hearth_session *s;

    util_golden(path, "llama.gguf");
    while (lo + 1 < hi) { /* the least budget with the least batch */
        const uint64_t mid = lo + (hi - lo) / 2;
        const hearth_session_params p = { .size = sizeof p, .n_ctx = 8192, .batch = 16 };
        hearth_model *m = util_open(path, (hearth_model_params){ .threads = 1, .ram_bytes = mid });
        if (hearth_session_open(&s, m, &p, &err) == HEARTH_OK)
            hi = mid;
        else
            lo = mid;
        hearth_session_close(&s);
        hearth_model_close(&m);
    }
    for (uint64_t ram = hi; ram < 2 * hi; ram += hi / 16) {
        const hearth_session_params p = { .size = sizeof p, .n_ctx = 8192 };
        hearth_model *m = util_open(path, (hearth_model_params){ .threads = 1, .ram_bytes = ram });
        cr_expect_eq(hearth_session_open(&s, m, &p, &err), HEARTH_OK, "%llu bytes, of which %llu are enough: %s",
                     (unsigned long long)ram, (unsigned long long)hi, err.text);
        hearth_session_close(&s);
        hearth_model_close(&m);
    }
}

/* Rotations of phi3_longrope change with the context's length; one that only a budget cut must compute the same. */
Test(session, budget_changes_no_bit)
{
    static const char path[] = HEARTH_TEST_DATA "/shapes/phi3_longrope.gguf";
    int32_t ids[20];
    uint64_t lo = 0, hi = 1 << 30;
    uint32_t n_ctx = 0;
    hearth_session *s;
    hearth_model *m = util_open(path, (hearth_model_params){ .threads = 1 });
    uint32_t v = util_n_vocab(m);

    for (int i = 0; i < 20; i++)
        ids[i] = i % 7;
    s = util_session(m, 0, 32, HEARTH_KV_F16);
    cr_assert_gt(hearth_session_context(s), 256);
    feed(s, ids, 20);
    float *want = malloc(v * sizeof *want);
    memcpy(want, hearth_session_logits(s), v * sizeof *want);
    hearth_session_close(&s);
    hearth_model_close(&m);
    while (lo + 1 < hi && !n_ctx) { /* a budget that leaves room for a short context */
        uint64_t mid = lo + (hi - lo) / 2;
        hearth_session_params p = { .size = sizeof p, .batch = 32 };
        hearth_model_params mp = { .size = sizeof mp, .threads = 1, .ram_bytes = mid };
        if (hearth_model_open(&m, path, &mp, &err) != HEARTH_OK || hearth_session_open(&s, m, &p, &err) != HEARTH_OK)
            lo = mid;
        else if (hearth_session_context(s) > 256)
            hi = mid;
        else {
            n_ctx = hearth_session_context(s);
            feed(s, ids, 20);
            expect_logits(s, want, v, "under a small budget");
        }
        hearth_session_close(&s);
        hearth_model_close(&m);
    }
    cr_expect_gt(n_ctx, 0, "no budget gives a short context");
    free(want);
}

Test(session, messages_have_no_control_characters)
{
    char dir[] = "/tmp/hearth-test-XXXXXX", path[64];
    hearth_model *m;

    cr_assert_not_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/a\nb.gguf", dir);
    FILE *f = fopen(path, "w");
    cr_assert_not_null(f);
    fputs("GGUF\001\001\001\001", f);
    fclose(f);
    cr_expect_eq(hearth_model_open(&m, path, NULL, &err), HEARTH_EUNSUPPORTED);
    for (const char *c = err.text; *c; c++)
        cr_expect((unsigned char)*c >= 0x20, "%s", err.text);
    remove(path);
    remove(dir);
}

/* ---- Cancelling ---- */

static bool stop_at(void *user, size_t index, const float *logits)
{
    (void)logits;
    return index < *(size_t *)user;
}

Test(session, cancelled_by_the_callback)
{
    int32_t ids[100];
    size_t at = 70;
    hearth_model *m = util_open_golden("llama", HEARTH_PRECISION_FAST);
    hearth_session *s = util_session(m, 128, 32, HEARTH_KV_F16), *fresh = util_session(m, 128, 32, HEARTH_KV_F16);

    ids_of(ids, 100, 7);
    cr_expect_eq(hearth_session_feed(s, ids, 100, stop_at, &at, &err), HEARTH_ECANCELLED);
    cr_expect_eq(hearth_session_position(s), 64, "the last pass that was completed");
    cr_expect_null(hearth_session_logits(s));
    feed(s, ids + 64, 36);
    feed(fresh, ids, 100);
    expect_logits(s, hearth_session_logits(fresh), util_n_vocab(m), "going on after a cancel");
    hearth_session_close(&s);
    hearth_session_close(&fresh);
    hearth_model_close(&m);
}

Test(session, cancel_stays_until_taken_back)
{
    int32_t ids[10];
    hearth_model *m = util_open_golden("llama", HEARTH_PRECISION_FAST);
    hearth_session *s = util_session(m, 128, 0, HEARTH_KV_F16);

    ids_of(ids, 10, 8);
    hearth_session_cancel(s);
    cr_expect_eq(hearth_session_feed(s, ids, 10, NULL, NULL, &err), HEARTH_ECANCELLED);
    cr_expect_eq(hearth_session_feed(s, ids, 10, NULL, NULL, &err), HEARTH_ECANCELLED);
    cr_expect_eq(hearth_session_position(s), 0);
    hearth_session_uncancel(s);
    feed(s, ids, 10);
    hearth_session_close(&s);
    hearth_model_close(&m);
}

Test(session, cancelled_recurrent)
{
    int32_t ids[10];
    hearth_model *m = util_open_golden("qwen3_next", HEARTH_PRECISION_FAST);
    hearth_session *s = util_session(m, 128, 0, HEARTH_KV_F16), *fresh = util_session(m, 128, 0, HEARTH_KV_F16);

    ids_of(ids, 10, 9);
    feed(s, ids, 5);
    hearth_session_cancel(s);
    cr_expect_eq(hearth_session_feed(s, ids + 5, 5, NULL, NULL, &err), HEARTH_ECANCELLED);
    hearth_session_uncancel(s);
    cr_expect_eq(hearth_session_feed(s, ids + 5, 5, NULL, NULL, &err), HEARTH_EINVAL,
                 "a state half-way is not computed with");
    cr_expect_eq(hearth_session_rewind(s, hearth_session_position(s), &err), HEARTH_EUNSUPPORTED);
    cr_expect_eq(hearth_session_rewind(s, 0, &err), HEARTH_OK, "%s", err.text);
    feed(s, ids, 10);
    feed(fresh, ids, 10);
    expect_logits(s, hearth_session_logits(fresh), util_n_vocab(m), "after going back to 0");
    hearth_session_close(&s);
    hearth_session_close(&fresh);
    hearth_model_close(&m);
}

static void *cancel_soon(void *arg)
{
    struct timespec ts = { 0, 20 * 1000000 };
    nanosleep(&ts, NULL);
    hearth_session_cancel(arg);
    return NULL;
}

Test(session, cancelled_by_another_thread)
{
    enum { N = 8000 };
    int32_t *ids = malloc(N * sizeof *ids);
    hearth_model *m = util_open_golden("mixtral", HEARTH_PRECISION_F32);
    hearth_session *s = util_session(m, N, 16, HEARTH_KV_F32);
    pthread_t t;

    ids_of(ids, N, 10);
    for (int i = 0; i < N; i++)
        ids[i] %= 300;
    cr_assert_eq(pthread_create(&t, NULL, cancel_soon, s), 0);
    hearth_status st = hearth_session_feed(s, ids, N, NULL, NULL, &err);
    pthread_join(t, NULL);
    cr_expect_eq(st, HEARTH_ECANCELLED, "%s", hearth_status_text(st));
    uint32_t at = hearth_session_position(s);
    cr_expect(at < N && at % 16 == 0, "stopped at %u", at);
    hearth_session_uncancel(s);
    feed(s, ids + at, 16);
    cr_expect_eq(hearth_session_position(s), at + 16);
    hearth_session_close(&s);
    hearth_model_close(&m);
    free(ids);
}

/* ---- Side by side ------------------------------------------------------------------------------------------------ */

enum { STEPS = 60 };

typedef struct run {
    hearth_model *m;
    uint32_t seed;
    int32_t out[STEPS];
    _Atomic bool ok;
} run;

static bool collect(void *user, hearth_token id, const char *text, size_t n)
{
    run *r = user;
    (void)text;
    (void)n;
    if (id >= 0)
        r->out[r->seed++ % STEPS] = id;
    return true;
}

static void *generate(void *arg)
{
    run *r = arg;
    hearth_session *s = NULL;
    hearth_sampler *p = NULL;
    hearth_session_params sp = { .size = sizeof sp, .n_ctx = 128 };
    hearth_sampler_params pp = { .size = sizeof pp, .temperature = 0.9f, .seed = r->seed };
    hearth_generate_params gp = {
        .size = sizeof gp, .max_tokens = STEPS, .ignore_end = true, .on_token = collect, .user = r
    };
    int32_t ids[9];

    ids_of(ids, 9, r->seed);
    r->seed = 0;
    r->ok = hearth_session_open(&s, r->m, &sp, NULL) == HEARTH_OK &&
            hearth_sampler_open(&p, &pp, util_n_vocab(r->m), NULL) == HEARTH_OK &&
            hearth_generate(s, p, ids, 9, &gp, NULL, NULL) == HEARTH_OK && r->seed == STEPS;
    hearth_sampler_close(&p);
    hearth_session_close(&s);
    return NULL;
}

static void check_side_by_side(hearth_model *a, hearth_model *b)
{
    run alone[2] = { { .m = a, .seed = 1 }, { .m = b, .seed = 2 } },
        both[2] = { { .m = a, .seed = 1 }, { .m = b, .seed = 2 } };
    pthread_t t[2];

    for (int i = 0; i < 2; i++)
        generate(&alone[i]);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(pthread_create(&t[i], NULL, generate, &both[i]), 0);
    for (int i = 0; i < 2; i++) {
        pthread_join(t[i], NULL);
        cr_assert(alone[i].ok && both[i].ok);
        cr_expect(memcmp(alone[i].out, both[i].out, sizeof alone[i].out) == 0, "session %d got other tokens than alone",
                  i);
    }
}

Test(session, two_sessions_of_a_model_in_two_threads)
{
    hearth_model *m = util_open_golden("llama", HEARTH_PRECISION_FAST);
    check_side_by_side(m, m);
    hearth_model_close(&m);
}

Test(session, two_models_in_two_threads)
{
    hearth_model *a = util_open_golden("qwen3_moe", HEARTH_PRECISION_FAST),
                 *b = util_open_golden("qwen3_next", HEARTH_PRECISION_F32);
    check_side_by_side(a, b);
    hearth_model_close(&a);
    hearth_model_close(&b);
}

static int entries(const char *folder)
{
    int n = 0;
    DIR *d = opendir(folder);
    cr_assert_not_null(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

Test(session, opening_and_closing_leaves_nothing)
{
    int32_t ids[3] = { 5, 6, 7 };
    int fds = 0, threads = 0;

    for (int i = 0; i < (util_sanitized() ? 20 : 100); i++) {
        hearth_model *m = util_open_golden("qwen3_next", HEARTH_PRECISION_FAST);
        hearth_session *s = util_session(m, 64, 0, HEARTH_KV_F16);
        feed(s, ids, 3);
        hearth_session_close(&s);
        hearth_model_close(&m);
        cr_assert_null(m);
        if (i == 1) {
            fds = entries("/proc/self/fd");
            threads = entries("/proc/self/task");
        }
    }
    cr_expect_eq(entries("/proc/self/fd"), fds);
    cr_expect_eq(entries("/proc/self/task"), threads);
}
