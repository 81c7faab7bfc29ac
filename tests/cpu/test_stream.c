/* SPDX-License-Identifier: MIT
 *
 * The task queue: order, every chunk exactly once, reuse of the ring, sleeping threads, cancelling. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cpu/stream.h"
#include "engine/base/os.h"

static bool sanitized(void)
{
    return HEARTH_TEST_SANITIZE[0] != 0;
}

static ht_stream *open_stream(uint32_t threads)
{
    ht_stream *s;
    ht_error err;
    cr_assert_eq(ht_stream_open(&s, threads, NULL, NULL, &err), HT_OK, "%s", err.text);
    cr_assert_eq(ht_stream_threads(s), threads);
    return s;
}

/* A task that checks that all of the one before it is done: plain writes, so that a race detector sees missing order.
 */
typedef struct step {
    const struct step *before;
    uint32_t n;
    uint32_t *value; /* [n], each written by its chunk */
    _Atomic uint32_t bad;
    uint32_t max_thread;
} step;

static void chain(const void *ctx, uint32_t chunk, uint32_t n, uint32_t thread)
{
    step *l = (step *)(uintptr_t)ctx;
    uint32_t sum = 0;
    if (n != 1)
        atomic_fetch_add(&l->bad, 1);
    for (uint32_t i = 0; l->before && i < l->before->n; i++)
        sum += l->before->value[i];
    if (l->before && sum != l->before->n)
        atomic_fetch_add(&l->bad, 1);
    if (thread >= l->max_thread || l->value[chunk] != 0)
        atomic_fetch_add(&l->bad, 1);
    l->value[chunk]++;
}

static uint64_t push(ht_stream *s, ht_task_fn *fn, const void *ctx, uint32_t n_chunks)
{
    return ht_stream_push(s, &(ht_task){ .fn = fn, .ctx = ctx, .n_chunks = n_chunks });
}

/* n tasks of varying size, waiting every `period` of them. */
static void run_chain(uint32_t threads, uint32_t n, uint32_t period)
{
    ht_stream *s = open_stream(threads);
    step *links = calloc(n, sizeof *links);
    uint32_t *values = calloc((size_t)n * 17, sizeof *values);

    for (uint32_t i = 0; i < n; i++) {
        links[i].before = i ? &links[i - 1] : NULL;
        links[i].n = 1 + i * 7 % 17;
        links[i].value = values + (size_t)i * 17;
        links[i].max_thread = threads;
        uint64_t number = push(s, chain, &links[i], links[i].n);
        cr_assert_eq(number, i);
        cr_assert_eq(ht_stream_pushed(s), i + 1);
        if (period && i % period == period - 1)
            cr_assert_eq(ht_stream_wait(s, number, NULL), HT_OK);
    }
    cr_assert_eq(ht_stream_wait(s, n - 1, NULL), HT_OK);
    cr_assert_eq(ht_stream_completed(s), n);
    for (uint32_t i = 0; i < n; i++) {
        cr_assert_eq(links[i].bad, 0, "task %u of %u threads", i, threads);
        for (uint32_t k = 0; k < links[i].n; k++)
            cr_assert_eq(links[i].value[k], 1);
    }
    cr_assert_eq(ht_stream_wait(s, 0, NULL), HT_OK, "what is long done");
    ht_stream_close(&s);
    cr_assert_null(s);
    free(values);
    free(links);
}

Test(stream, order_one_thread)
{
    run_chain(1, 5000, 0);
}
Test(stream, order_two_threads)
{
    run_chain(2, sanitized() ? 1500 : 5000, 0);
}
Test(stream, order_waiting_often)
{
    run_chain(2, sanitized() ? 1100 : 3500, 3);
}
Test(stream, order_more_threads_than_cores)
{
    run_chain(9, sanitized() ? 1100 : 1500, 100);
}

static void add_one(const void *ctx, uint32_t first, uint32_t n, uint32_t thread)
{
    (void)first;
    (void)thread;
    atomic_fetch_add((_Atomic uint32_t *)(uintptr_t)ctx, n);
}

static void rest(unsigned ms)
{
    struct timespec t = { 0, (long)ms * 1000000 };
    nanosleep(&t, NULL);
}

/* Threads that have gone to sleep wake for the next task, again and again. */
Test(stream, sleeps_and_wakes)
{
    ht_stream *s = open_stream(3);
    _Atomic uint32_t n = 0;
    for (int i = 0; i < 20; i++) {
        rest(10);
        cr_assert_eq(ht_stream_wait(s, push(s, add_one, (void *)&n, 50), NULL), HT_OK);
        cr_assert_eq(n, 50u * ((uint32_t)i + 1));
    }
    ht_stream_close(&s);
}

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

Test(stream, idle_threads_use_no_time)
{
    ht_stream *s = open_stream(4);
    _Atomic uint32_t n = 0;
    ht_stream_wait(s, push(s, add_one, (void *)&n, 10), NULL);
    rest(sanitized() ? 400 : 100); /* spinning ends */
    double t0 = cpu_seconds();
    rest(300);
    cr_expect(cpu_seconds() - t0 < 0.05, "%g s of processor time while idle", cpu_seconds() - t0);
    ht_stream_close(&s);
}

Test(stream, close_finishes_what_was_pushed)
{
    for (uint32_t threads = 1; threads < 4; threads++) {
        ht_stream *s = open_stream(threads);
        _Atomic uint32_t n = 0;
        for (int i = 0; i < 40; i++)
            push(s, add_one, (void *)&n, 5);
        ht_stream_close(&s);
        cr_expect_eq(n, 200);
    }
    ht_stream *none = NULL;
    ht_stream_close(&none);
}

Test(stream, opening_and_closing)
{
    for (int i = 0; i < (sanitized() ? 30 : 300); i++) {
        ht_stream *s = open_stream(1 + (uint32_t)i % 5);
        if (i % 3 == 0) {
            _Atomic uint32_t n = 0;
            ht_stream_wait(s, push(s, add_one, (void *)&n, 3), NULL);
            cr_assert_eq(n, 3);
        }
        ht_stream_close(&s);
    }
}

/* ---- Cancelling -------------------------------------------------------------------------------------------------- */

typedef struct slow {
    ht_cancel cancel;
    _Atomic uint32_t ran;
    uint32_t ask_at;
} slow;

static void run_slow(const void *ctx, uint32_t first, uint32_t n, uint32_t thread)
{
    slow *w = (slow *)(uintptr_t)ctx;
    (void)first;
    (void)n;
    (void)thread;
    if (atomic_fetch_add(&w->ran, 1) + 1 == w->ask_at)
        atomic_store(&w->cancel.asked, true);
}

Test(stream, cancel)
{
    for (uint32_t threads = 1; threads < 5; threads++)
        for (int round = 0; round < (sanitized() ? 10 : 60); round++) {
            ht_stream *s = open_stream(threads);
            slow w = { .ask_at = 1 + (uint32_t)round * 13 };
            uint64_t last = 0;
            for (int i = 0; i < 300; i++)
                last = push(s, run_slow, &w, 7);
            cr_assert_eq(ht_stream_wait(s, last, &w.cancel), HT_ECANCELLED);
            cr_assert_eq(ht_stream_completed(s), 300, "the queue is empty after a cancel");
            cr_assert(w.ran >= w.ask_at && w.ran <= 2100);
            /* What is pushed next runs whole. */
            _Atomic uint32_t n = 0;
            cr_assert_eq(ht_stream_wait(s, push(s, add_one, (void *)&n, 77), NULL), HT_OK);
            cr_assert_eq(n, 77);
            ht_stream_close(&s);
        }
}

Test(stream, cancel_asked_before)
{
    ht_stream *s = open_stream(1);
    slow w = { .ask_at = 0 };
    atomic_store(&w.cancel.asked, true);
    uint64_t last = push(s, run_slow, &w, 7);
    cr_expect_eq(ht_stream_wait(s, last, &w.cancel), HT_ECANCELLED);
    cr_expect_eq(w.ran, 0, "nothing is run that had not begun");
    cr_expect_eq(ht_stream_completed(s), 1);
    ht_stream_close(&s);
}

/* In the middle of a long task too: chunks that have not begun are not run. */
Test(stream, cancel_between_chunks)
{
    ht_stream *s = open_stream(1);
    slow w = { .ask_at = 123 };
    uint64_t last = push(s, run_slow, &w, 100000);
    cr_expect_eq(ht_stream_wait(s, last, &w.cancel), HT_ECANCELLED);
    cr_expect_eq(w.ran, 123, "%u chunks were run, of which the 123rd asked to stop", w.ran);
    ht_stream_close(&s);
}

/* ---- Sharing out ------------------------------------------------------------------------------------------------- */

typedef struct tally {
    uint32_t n, most, within;
    _Atomic uint32_t *ran; /* [n] */
    _Atomic uint32_t bad, tails;
} tally;

static void count_chunks(const void *ctx, uint32_t first, uint32_t n, uint32_t thread)
{
    tally *t = (tally *)(uintptr_t)ctx;
    (void)thread;
    if (n == 0 || n > t->most || first + n > t->n || first / t->within != (first + n - 1) / t->within)
        atomic_fetch_add(&t->bad, 1);
    for (uint32_t i = first; i < first + n && i < t->n; i++)
        atomic_fetch_add(&t->ran[i], 1);
}

static uint32_t within(const void *ctx, uint32_t first, uint32_t n)
{
    const tally *t = ctx;
    uint32_t left = t->within - first % t->within;
    return n < left ? n : left;
}

static void count_tail(const void *ctx, uint32_t thread)
{
    tally *t = (tally *)(uintptr_t)ctx;
    (void)thread;
    for (uint32_t i = 0; i < t->n; i++)
        if (atomic_load_explicit(&t->ran[i], memory_order_relaxed) != 1)
            atomic_fetch_add(&t->bad, 1);
    atomic_fetch_add(&t->tails, 1);
}

/* Every chunk once, several at a time within their bounds, the tail once and after all of them. */
Test(stream, runs_and_tails)
{
    static const uint32_t sizes[] = { 1, 2, 3, 7, 64, 1000 };
    for (uint32_t threads = 1; threads < 6; threads++) {
        ht_stream *s = open_stream(threads);
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
            for (uint32_t most = 1; most < 40; most += 6) {
                tally t = { .n = sizes[i], .most = most, .within = 1 + most * 3 % 11 };
                t.ran = calloc(t.n, sizeof *t.ran);
                ht_task task = { .fn = count_chunks, .span = within, .tail = count_tail, .ctx = &t, .n_chunks = t.n,
                                 .most = most };
                uint64_t number = ht_stream_push(s, &task);
                cr_assert_eq(ht_stream_wait(s, number, NULL), HT_OK);
                ht_stream_retire(s, number);
                cr_expect_eq(t.bad, 0);
                cr_expect_eq(t.tails, 1);
                for (uint32_t c = 0; c < t.n; c++)
                    cr_assert_eq(t.ran[c], 1);
                free(t.ran);
            }
        ht_stream_close(&s);
    }
}

/* ---- Stragglers -------------------------------------------------------------------------------------------------- */

typedef struct race {
    ht_stream *s;
    uint32_t n;
    _Atomic uint32_t begun; /* runs of chunk 0 */
    _Atomic bool release;
    _Atomic uint32_t *written; /* [n] */
} race;

/* Who runs chunk 0 first stands still until a later task is done, as if it had lost its core. */
static void run_race(const void *ctx, uint32_t first, uint32_t n, uint32_t thread)
{
    race *r = (race *)(uintptr_t)ctx;
    if (first == 0 && atomic_fetch_add(&r->begun, 1) == 0)
        while (!atomic_load(&r->release))
            ht_os_yield();
    if (!ht_stream_commit(r->s, thread))
        return;
    for (uint32_t i = first; i < first + n; i++)
        atomic_fetch_add(&r->written[i], 1);
}

static void release(const void *ctx, uint32_t first, uint32_t n, uint32_t thread)
{
    race *r = (race *)(uintptr_t)ctx;
    (void)first;
    (void)n;
    (void)thread;
    atomic_store(&r->release, true);
}

Test(stream, chunks_of_a_straggler_are_run_by_another)
{
    if (strcmp(HEARTH_TEST_SANITIZE, "thread") == 0)
        return; /* nobody helps there: see cpu/stream.c */
    for (uint32_t threads = 2; threads < 5; threads++)
        for (int round = 0; round < 20; round++) {
            race r = { .n = 50 };
            r.s = open_stream(threads);
            r.written = calloc(r.n, sizeof *r.written);
            ht_stream_push(r.s, &(ht_task){ .fn = run_race, .ctx = &r, .n_chunks = r.n, .most = 3, .contested = true });
            uint64_t last = push(r.s, release, &r, 1);
            cr_assert_eq(ht_stream_wait(r.s, last, NULL), HT_OK);
            ht_stream_retire(r.s, last);
            cr_expect(r.begun >= 2, "chunk 0 ran %u times", r.begun);
            for (uint32_t i = 0; i < r.n; i++)
                cr_assert_eq(r.written[i], 1, "chunk %u was written %u times", i, r.written[i]);
            ht_stream_close(&r.s);
            free(r.written);
        }
}

/* A straggler's slot is not filled anew under its eyes. */
Test(stream, ring_waits_for_stragglers)
{
    if (strcmp(HEARTH_TEST_SANITIZE, "thread") == 0)
        return;
    race r = { .n = 10 };
    _Atomic uint32_t n = 0;
    r.s = open_stream(3);
    r.written = calloc(r.n, sizeof *r.written);
    for (int i = 0; i < 5; i++) {
        atomic_store(&r.begun, 0);
        atomic_store(&r.release, false);
        ht_stream_push(r.s, &(ht_task){ .fn = run_race, .ctx = &r, .n_chunks = r.n, .contested = true });
        for (int k = 0; k < 150; k++)
            push(r.s, add_one, (void *)&n, 2);
        push(r.s, release, &r, 1);
        for (int k = 0; k < 400; k++)
            push(r.s, add_one, (void *)&n, 2);
        uint64_t last = ht_stream_pushed(r.s) - 1;
        cr_assert_eq(ht_stream_wait(r.s, last, NULL), HT_OK);
        ht_stream_retire(r.s, last);
    }
    cr_expect_eq(n, 5 * 550 * 2);
    for (uint32_t i = 0; i < r.n; i++)
        cr_expect_eq(r.written[i], 5);
    ht_stream_close(&r.s);
    free(r.written);
}

/* ---- Pinning ----------------------------------------------------------------------------------------------------- */

static void note_pin(void *user, uint32_t thread)
{
    atomic_fetch_add((_Atomic uint32_t *)user, 1u << (8 * thread));
}

Test(stream, pins_each_worker_once)
{
    _Atomic uint32_t seen = 0;
    ht_stream *s;
    cr_assert_eq(ht_stream_open(&s, 4, note_pin, (void *)&seen, NULL), HT_OK);
    _Atomic uint32_t n = 0;
    ht_stream_wait(s, push(s, add_one, (void *)&n, 1000), NULL);
    ht_stream_close(&s);
    cr_expect_eq(seen, 0x01010100u, "%08x: each worker once, never thread 0", seen);
}
