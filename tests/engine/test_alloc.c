/* SPDX-License-Identifier: MIT
 *
 * Every allocation of the library fails once: opening, computing and generating must then return an error, leave
 * nothing behind and not crash. tests/CMakeLists.txt links this room with --wrap for the functions below, which catches
 * the calls of the static library and of the tests, not those of shared libraries. */
#include <limits.h>
#include <stdatomic.h>

#include "offline_profiler/hearth_profiler.h"
#include "tests/engine/engine_util.h"

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__real_aligned_alloc(size_t align, size_t n);
char *__real_strdup(const char *s);
void __real_free(void *p);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_aligned_alloc(size_t align, size_t n);
char *__wrap_strdup(const char *s);
void __wrap_free(void *p);

static _Atomic long countdown = LONG_MAX; /* allocations that still succeed */
static _Atomic long live, failed;
static _Atomic bool forever; /* all after the first fail too */

static bool refuse(void)
{
    long left = atomic_load(&countdown);
    if (left == LONG_MAX)
        return false;
    left = atomic_fetch_sub(&countdown, 1);
    bool no = left == 0 || (left < 0 && atomic_load(&forever));
    if (no)
        atomic_fetch_add(&failed, 1);
    return no;
}

static void *counted(void *p)
{
    if (p)
        atomic_fetch_add(&live, 1);
    return p;
}

void *__wrap_malloc(size_t n)
{
    return refuse() ? NULL : counted(__real_malloc(n));
}
void *__wrap_calloc(size_t n, size_t size)
{
    return refuse() ? NULL : counted(__real_calloc(n, size));
}
void *__wrap_aligned_alloc(size_t align, size_t n)
{
    return refuse() ? NULL : counted(__real_aligned_alloc(align, n));
}
char *__wrap_strdup(const char *s)
{
    return refuse() ? NULL : counted(__real_strdup(s));
}

void *__wrap_realloc(void *p, size_t n)
{
    if (refuse())
        return NULL;
    void *q = __real_realloc(p, n);
    return p ? q : counted(q);
}

void __wrap_free(void *p)
{
    if (p)
        atomic_fetch_sub(&live, 1);
    __real_free(p);
}

static bool ignore(void *user, hearth_token id, const char *text, size_t n)
{
    (void)user;
    (void)id;
    (void)text;
    (void)n;
    return true;
}

/* A whole life; the first status that is no success. */
static hearth_status live_once(const char *path, bool f32, hearth_error *err)
{
    static const hearth_message talk[] = { { "system", "Be short." }, { "user", "hello and the rest" } };
    hearth_model_params mp = { .size = sizeof mp,
                               .threads = 2,
                               .precision = f32 ? HEARTH_PRECISION_F32 : HEARTH_PRECISION_FAST };
    hearth_session_params sp = { .size = sizeof sp, .n_ctx = 300, .batch = 64 };
    const char *const stops[] = { "zzzzzz" };
    hearth_generate_params gp = {
        .size = sizeof gp, .max_tokens = 150, .ignore_end = true, .stops = stops, .n_stops = 1, .on_token = ignore
    };
    hearth_sampler_params pp = { .size = sizeof pp, .temperature = 1.0f, .seed = 1 };
    hearth_model *m = NULL;
    hearth_session *s = NULL;
    hearth_sampler *p = NULL;
    hearth_token *ids = NULL;
    char *text = NULL, *prompt = NULL;
    size_t n = 0, n_ids = 0;
    hearth_status st;

    if ((st = hearth_model_open(&m, path, &mp, err)) == HEARTH_OK &&
        (st = hearth_session_open(&s, m, &sp, err)) == HEARTH_OK &&
        (st = hearth_sampler_open(&p, &pp, util_n_vocab(m), err)) == HEARTH_OK &&
        (st = hearth_chat_format(m, talk, 2, true, &prompt, &n, err)) == HEARTH_OK &&
        (st = hearth_tokenize(m, prompt, n, true, true, &ids, &n_ids, err)) == HEARTH_OK &&
        (st = hearth_detokenize(m, ids, n_ids, false, &text, &n, err)) == HEARTH_OK)
        st = hearth_generate(s, p, ids, n_ids < 80 ? n_ids : 80, &gp, NULL, err);
    hearth_free(prompt);
    hearth_free(text);
    hearth_free(ids);
    hearth_sampler_close(&p);
    hearth_session_close(&s);
    hearth_model_close(&m);
    return st;
}

/* The same of a profile: made in two sittings, written, read, drawn. */
static hearth_status profile_once(const char *path, bool f32, hearth_error *err)
{
    static const char text[] =
        "the rest and hello, the hello; and the rest of the rest said hello to the other rest. "
        "Then the rest was hello and the hello was the rest of the day, and the other hello too.";
    hearth_model_params mp = { .size = sizeof mp,
                               .threads = 1,
                               .precision = f32 ? HEARTH_PRECISION_F32 : HEARTH_PRECISION_FAST };
    char out[300], part[320], page[320];
    snprintf(out, sizeof out, "%s/hearth-alloc-%d.gguf", P_tmpdir, (int)getpid());
    snprintf(part, sizeof part, "%s.part", out);
    snprintf(page, sizeof page, "%s.html", out);
    hearth_profiler_params pp = { .size = sizeof pp, .window = 32, .part_tokens = 40, .part = part };
    hearth_model *m = NULL;
    hearth_profiler *p = NULL;
    hearth_profile *made = NULL, *read = NULL;
    hearth_status st = hearth_model_open(&m, path, &mp, err);
    for (int sitting = 0; sitting < 2 && st == HEARTH_OK; sitting++) {
        hearth_profiler_close(&p);
        if ((st = hearth_profiler_open(&p, m, &pp, err)) == HEARTH_OK)
            st = hearth_profiler_run(p, text, sizeof text - 1, err);
    }
    if (st == HEARTH_OK && (st = hearth_profiler_profile(p, &made, err)) == HEARTH_OK &&
        (st = hearth_profile_write(made, out, err)) == HEARTH_OK &&
        (st = hearth_profile_read(&read, out, NULL, err)) == HEARTH_OK)
        st = hearth_profile_report(read, page, err);
    hearth_profile_close(&made);
    hearth_profile_close(&read);
    hearth_profiler_close(&p);
    hearth_model_close(&m);
    remove(out);
    remove(part);
    remove(page);
    return st;
}

static void check_life(const char *seed, bool f32, hearth_status (*live_once)(const char *, bool, hearth_error *))
{
    char path[512];
    hearth_error err = { 0 };

    snprintf(path, sizeof path, "%s/../fuzz/corpus/model/%s.gguf", HEARTH_TEST_DATA, seed);
    cr_assert_eq(live_once(path, f32, &err), HEARTH_OK, "%s", err.text);
    long before = atomic_load(&live);
    for (long n = 0; n < 100000; n += util_sanitized() ? 7 : 1) {
        err.text[0] = 0;
        atomic_store(&failed, 0);
        atomic_store(&forever, n % 2 == 1);
        atomic_store(&countdown, n);
        hearth_status st = live_once(path, f32, &err);
        atomic_store(&countdown, LONG_MAX);
        cr_expect_eq(atomic_load(&live), before, "%s: allocation %ld: %ld blocks leaked (%s)", seed, n,
                     atomic_load(&live) - before, err.text);
        if (atomic_load(&failed) == 0) {
            cr_assert_eq(st, HEARTH_OK, "%s", err.text);
            cr_assert(n > 40, "%s: only %ld allocations: are they wrapped?", seed, n);
            return;
        }
        cr_expect(st == HEARTH_ENOMEM, "%s: allocation %ld: %s, \"%s\"", seed, n, hearth_status_text(st), err.text);
        cr_expect(st == HEARTH_OK || err.text[0], "%s: allocation %ld: no sentence", seed, n);
        before = atomic_load(&live);
    }
    cr_assert_fail("%s: it never ends", seed);
}

static void check(const char *seed, bool f32)
{
    check_life(seed, f32, live_once);
}

Test(alloc, profile)
{
    check_life("llama", false, profile_once);
}
Test(alloc, profile_of_a_mixture)
{
    check_life("mixture", false, profile_once);
}
Test(alloc, dense)
{
    check("llama", false);
}
Test(alloc, dense_f32)
{
    check("fused", true);
}
Test(alloc, mixture)
{
    check("mixture", false);
}
Test(alloc, recurrent)
{
    check("delta", false);
}
