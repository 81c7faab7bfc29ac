/* SPDX-License-Identifier: MIT
 *
 * The task queue of the CPU executor; see stream.h.
 *
 * A task lives in a slot of a ring. A thread that lost its core may look at a task long done, so each worker says in
 * its seat which task it is at, and a slot is filled anew only when no seat is at its old task. A worker sits down
 * in three steps: it reads how many tasks are done, writes that number into its seat, and reads it again. Had the count
 * moved on, it stands up again; else whoever moves it on later sees the seat taken (both sides are sequentially
 * consistent).
 *
 * Chunks that a thread has taken but not finished are its turn: seat.turn is odd while they may still be run by
 * another, and a compare-and-swap from odd to even decides who writes. A helper reads the rest of the turn between two
 * looks at that word. */
#include "cpu/stream.h"

#include <stdlib.h>
#include <string.h>

#include "engine/base/os.h"

enum {
    RING = 256,         /* tasks; a power of two */
    PAUSE_US = 10,      /* waiting: busy for as long, */
    YIELD_US = 60,      /* then giving way to whoever wants this core for as long, then asleep */
    OVERDUE_US = 50,    /* chunks in the works for so long while others have none left are run by another too */
    CANCEL_LOOK_US = 10000 /* a waiting thread that sleeps looks at the wish to cancel as often */
};

#define NOWHERE UINT64_MAX /* a seat that is at no task */

/* Races by design: a thread whose chunks others have run reads inputs that change meanwhile, and throws its result
 * away. The thread sanitizer cannot know, so under it nobody helps. */
#if defined(__SANITIZE_THREAD__)
enum { HELP = 0 };
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
enum { HELP = 0 };
#else
enum { HELP = 1 };
#endif
#else
enum { HELP = 1 };
#endif

typedef struct slot {
    _Alignas(64) ht_task task;
    _Alignas(64) _Atomic uint32_t left; /* chunks not finished */
} slot;

/* Chunks that belong to one thread: first << 32 | end. */
typedef struct run {
    _Alignas(64) _Atomic uint64_t chunks;
} run;

typedef struct seat {
    _Alignas(64) _Atomic uint64_t at; /* task that this worker may look at */
    _Atomic uint64_t turn;            /* odd: the chunks below are in the works and not yet committed */
    _Atomic uint64_t turn_task;
    _Atomic uint32_t turn_first, turn_n;
    /* Of this thread alone: the turn that it would commit, its own or one that it repeats; NULL: not contested. */
    _Atomic uint64_t *contest;
    uint64_t contest_value;
    bool committed;
    ht_stream *s;
    ht_os_thread thread;
    uint32_t index;
} seat;

struct ht_stream {
    _Alignas(64) _Atomic uint64_t pushed;    /* tasks published */
    _Alignas(64) _Atomic uint64_t completed; /* tasks done, in order */
    _Alignas(64) _Atomic uint32_t bell;      /* changes whenever a sleeper should look again */
    _Atomic uint32_t sleepers;
    _Atomic bool dropping; /* a cancelled wait: take chunks without running them */
    _Atomic bool closing;
    uint32_t n_threads, n_workers;
    void (*pin)(void *, uint32_t);
    void *pin_user;
    uint64_t retired; /* tasks before this one are retired, as far as the pushing thread knows */
    seat *seats;      /* [n_threads] */
    run *runs;        /* [RING][n_threads] */
    slot ring[RING];
};

static inline void pause_cpu(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void ring_bell(ht_stream *s)
{
    if (atomic_load(&s->sleepers) == 0)
        return;
    atomic_fetch_add(&s->bell, 1);
    ht_os_wake(&s->bell, true);
}

static double us_since(double t0) { return (ht_os_now() - t0) * 1e6; }

/* ---- Chunks ---- */

static inline uint64_t pack(uint32_t first, uint32_t end) { return (uint64_t)first << 32 | end; }
static inline uint32_t first_of(uint64_t r) { return (uint32_t)(r >> 32); }
static inline uint32_t length_of(uint64_t r)
{
    uint32_t first = first_of(r), end = (uint32_t)r;
    return first < end ? end - first : 0;
}

/* Fills this thread's empty run with half of the longest other one. No run ever holds the same chunks twice, so a
 * compare-and-swap cannot be fooled. */
static bool steal(ht_stream *s, run *runs, uint32_t thread)
{
    for (;;) {
        uint32_t victim = thread, most = 0;
        uint64_t r = 0;
        for (uint32_t i = 1; i < s->n_threads; i++) {
            uint32_t other = (thread + i) % s->n_threads;
            uint64_t c = atomic_load_explicit(&runs[other].chunks, memory_order_relaxed);
            if (length_of(c) > most) {
                most = length_of(c);
                victim = other;
                r = c;
            }
        }
        if (most == 0)
            return false;
        uint32_t end = (uint32_t)r, middle = end - (most + 1) / 2;
        if (atomic_compare_exchange_strong_explicit(&runs[victim].chunks, &r, pack(first_of(r), middle),
                                                    memory_order_relaxed, memory_order_relaxed)) {
            atomic_store_explicit(&runs[thread].chunks, pack(middle, end), memory_order_relaxed);
            return true;
        }
    }
}

/* Takes chunks; false: none are left. */
static bool take(ht_stream *s, const ht_task *t, run *runs, uint32_t thread, uint32_t *first, uint32_t *n)
{
    bool drop = atomic_load_explicit(&s->dropping, memory_order_relaxed);
    uint64_t r = atomic_load_explicit(&runs[thread].chunks, memory_order_relaxed);

    for (;;) {
        uint32_t left = length_of(r), want = (left + 1) / 2;
        if (left == 0) {
            if (!steal(s, runs, thread))
                return false;
            r = atomic_load_explicit(&runs[thread].chunks, memory_order_relaxed);
            continue;
        }
        want = drop ? left : want > t->most ? t->most : want;
        if (t->span && !drop && want > 1)
            want = t->span(t->ctx, first_of(r), want);
        if (atomic_compare_exchange_strong_explicit(&runs[thread].chunks, &r, pack(first_of(r) + want, (uint32_t)r),
                                                    memory_order_relaxed, memory_order_relaxed)) {
            *first = first_of(r);
            *n = want;
            return true;
        }
    }
}

static void finish(ht_stream *s, slot *sl, uint64_t number, uint32_t n, uint32_t thread)
{
    if (atomic_fetch_sub_explicit(&sl->left, n, memory_order_acq_rel) != n)
        return;
    s->seats[thread].contest = NULL;
    if (sl->task.tail && !atomic_load_explicit(&s->dropping, memory_order_relaxed))
        sl->task.tail(sl->task.ctx, thread);
    atomic_store(&s->completed, number + 1);
    ring_bell(s);
}

static void run_own(ht_stream *s, slot *sl, uint64_t number, uint32_t thread, uint32_t first, uint32_t n)
{
    seat *me = &s->seats[thread];

    if (!HELP || !sl->task.contested || s->n_threads == 1) {
        me->contest = NULL;
        sl->task.fn(sl->task.ctx, first, n, thread);
        finish(s, sl, number, n, thread);
        return;
    }
    uint64_t open = atomic_load_explicit(&me->turn, memory_order_relaxed) + 1;
    atomic_thread_fence(memory_order_release); /* who sees what follows sees that the last turn has ended */
    atomic_store_explicit(&me->turn_task, number, memory_order_relaxed);
    atomic_store_explicit(&me->turn_first, first, memory_order_relaxed);
    atomic_store_explicit(&me->turn_n, n, memory_order_relaxed);
    atomic_store_explicit(&me->turn, open, memory_order_release);
    me->contest = &me->turn;
    me->contest_value = open;
    me->committed = false;
    sl->task.fn(sl->task.ctx, first, n, thread);
    if (me->committed)
        finish(s, sl, number, n, thread);
}

bool ht_stream_commit(ht_stream *s, uint32_t thread)
{
    seat *me = &s->seats[thread];
    uint64_t open = me->contest_value;

    if (!me->contest)
        return true;
    me->committed = atomic_compare_exchange_strong_explicit(me->contest, &open, open + 1, memory_order_acq_rel,
                                                            memory_order_acquire);
    return me->committed;
}

/* Nothing is left to take: waits a little for the others, then runs what one of them does not get done. False: the task
 * is done, or what is missing cannot be helped with. */
static bool help(ht_stream *s, slot *sl, uint64_t number, uint32_t thread)
{
    seat *me = &s->seats[thread];

    for (int round = 0; round < 2; round++) {
        double t0 = ht_os_now(), us = 0.0;
        while (us < OVERDUE_US) {
            for (int i = 0; i < 16; i++) {
                if (atomic_load_explicit(&s->completed, memory_order_acquire) > number)
                    return false;
                pause_cpu();
            }
            if (us > PAUSE_US)
                ht_os_yield();
            us = us_since(t0);
        }
        for (uint32_t i = 1; i < s->n_threads; i++) {
            seat *other = &s->seats[(thread + i) % s->n_threads];
            uint64_t turn = atomic_load_explicit(&other->turn, memory_order_acquire);
            uint32_t first = atomic_load_explicit(&other->turn_first, memory_order_relaxed);
            uint32_t n = atomic_load_explicit(&other->turn_n, memory_order_relaxed);
            uint64_t task = atomic_load_explicit(&other->turn_task, memory_order_relaxed);
            atomic_thread_fence(memory_order_acquire);
            if (turn % 2 == 0 || task != number || atomic_load_explicit(&other->turn, memory_order_relaxed) != turn)
                continue;
            me->contest = &other->turn;
            me->contest_value = turn;
            me->committed = false;
            sl->task.fn(sl->task.ctx, first, n, thread);
            if (me->committed)
                finish(s, sl, number, n, thread);
            return true;
        }
    }
    return false;
}

/* The waiting thread alone looks at the wish to cancel, which may be gone once it has returned. */
static void look_at(ht_stream *s, const ht_cancel *cancel)
{
    if (cancel && cancel->tick)
        cancel->tick(cancel->user);
    if (cancel && atomic_load_explicit(&cancel->asked, memory_order_relaxed))
        atomic_store(&s->dropping, true);
}

/* Runs chunks of task `number`, which cannot be retired meanwhile, until none is left. */
static void work_on(ht_stream *s, uint64_t number, uint32_t thread, const ht_cancel *cancel)
{
    slot *sl = &s->ring[number % RING];
    run *runs = s->runs + number % RING * s->n_threads;
    uint32_t first, n;

    do {
        while (take(s, &sl->task, runs, thread, &first, &n)) {
            look_at(s, cancel);
            if (atomic_load_explicit(&s->dropping, memory_order_relaxed))
                finish(s, sl, number, n, thread);
            else
                run_own(s, sl, number, thread, first, n);
        }
    } while (HELP && sl->task.contested && help(s, sl, number, thread));
}

/* ---- Waiting ---- */

typedef bool ready_fn(const ht_stream *s, uint64_t number);

static bool is_done(const ht_stream *s, uint64_t number) { return atomic_load(&s->completed) > number; }

static bool is_there(const ht_stream *s, uint64_t number)
{
    return atomic_load(&s->completed) >= number &&
           (atomic_load(&s->pushed) > atomic_load(&s->completed) || atomic_load(&s->closing));
}

/* Waits until ready(number): busy, then giving way, then asleep, or for `limit_us` of sleep where that is not 0. */
static void await(ht_stream *s, ready_fn *ready, uint64_t number, uint32_t limit_us)
{
    double t0 = 0.0;

    for (uint32_t spins = 0;; spins++) {
        if (ready(s, number))
            return;
        if (spins == 0)
            t0 = ht_os_now();
        double us = spins % 16 == 15 ? us_since(t0) : 0.0;
        if (us < PAUSE_US) {
            pause_cpu();
            continue;
        }
        while (us < PAUSE_US + YIELD_US) {
            if (ready(s, number))
                return;
            ht_os_yield();
            us = us_since(t0);
        }
        break;
    }
    do {
        uint32_t bell = atomic_load(&s->bell);
        atomic_fetch_add(&s->sleepers, 1);
        if (!ready(s, number))
            ht_os_wait(&s->bell, bell, limit_us);
        atomic_fetch_sub(&s->sleepers, 1);
    } while (limit_us == 0 && !ready(s, number));
}

static void worker_main(void *arg)
{
    seat *me = arg;
    ht_stream *s = me->s;

    if (s->pin)
        s->pin(s->pin_user, me->index);
    for (uint64_t next = 0;;) {
        await(s, is_there, next, 0);
        uint64_t now = atomic_load(&s->completed);
        if (atomic_load(&s->pushed) <= now) {
            if (atomic_load(&s->closing))
                return;
            continue;
        }
        atomic_store(&me->at, now);
        next = now + 1;
        if (atomic_load(&s->completed) == now)
            work_on(s, now, me->index, NULL);
        else
            next = now; /* done meanwhile: look again at once */
        atomic_store_explicit(&me->at, NOWHERE, memory_order_release);
    }
}

/* The waiting thread works until `number` tasks are done. */
static void help_until(ht_stream *s, uint64_t number, const ht_cancel *cancel)
{
    for (uint64_t done, tried = NOWHERE; (done = atomic_load_explicit(&s->completed, memory_order_acquire)) < number;) {
        look_at(s, cancel);
        if (done != tried)
            work_on(s, done, 0, cancel);
        else
            await(s, is_done, done, cancel ? CANCEL_LOOK_US : 0);
        tried = done;
    }
}

/* ---- The stream ---- */

/* Of the tasks before `done` those that no worker looks at any more. */
static uint64_t count_retired(const ht_stream *s)
{
    uint64_t done = atomic_load(&s->completed);
    for (uint32_t i = 1; i <= s->n_workers; i++) {
        uint64_t at = atomic_load(&s->seats[i].at);
        if (at < done)
            done = at;
    }
    return done;
}

void ht_stream_retire(ht_stream *s, uint64_t number)
{
    help_until(s, number + 1, NULL);
    for (double t0 = 0.0; s->retired <= number;) {
        s->retired = count_retired(s);
        if (s->retired > number)
            return;
        t0 = t0 == 0.0 ? ht_os_now() : t0;
        if (us_since(t0) < PAUSE_US)
            pause_cpu();
        else if (us_since(t0) < PAUSE_US + YIELD_US)
            ht_os_yield();
        else /* it has lost its core: nobody will ring */
            ht_os_wait(&s->bell, atomic_load(&s->bell), 100);
    }
}

uint64_t ht_stream_bytes(uint32_t n_threads)
{
    return sizeof(ht_stream) + (uint64_t)n_threads * (sizeof(seat) + RING * sizeof(run));
}

ht_status ht_stream_open(ht_stream **out, uint32_t n_threads, void (*pin)(void *, uint32_t), void *user, ht_error *err)
{
    *out = NULL;
    ht_stream *s = aligned_alloc(64, sizeof *s);
    if (!s)
        return ht_fail(err, HT_ENOMEM, "task queue: %zu bytes", sizeof *s);
    memset(s, 0, sizeof *s);
    s->n_threads = n_threads;
    s->pin = pin;
    s->pin_user = user;
    s->seats = aligned_alloc(64, n_threads * sizeof *s->seats);
    s->runs = aligned_alloc(64, (size_t)RING * n_threads * sizeof *s->runs);
    if (!s->seats || !s->runs) {
        ht_stream_close(&s);
        return ht_fail(err, HT_ENOMEM, "task queue: %u threads", n_threads);
    }
    memset(s->seats, 0, n_threads * sizeof *s->seats);
    memset(s->runs, 0, (size_t)RING * n_threads * sizeof *s->runs);
    for (uint32_t i = 0; i < n_threads; i++)
        atomic_store(&s->seats[i].at, NOWHERE);
    for (uint32_t i = 1; i < n_threads; i++) {
        seat *w = &s->seats[i];
        w->s = s;
        w->index = i;
        if (ht_os_thread_start(&w->thread, worker_main, w, "hearth") != HT_OK) {
            ht_stream_close(&s);
            return ht_fail(err, HT_ENOMEM, "starting compute thread %u of %u failed", i + 1, n_threads);
        }
        s->n_workers++;
    }
    *out = s;
    return HT_OK;
}

void ht_stream_close(ht_stream **sp)
{
    ht_stream *s = *sp;
    if (!s)
        return;
    help_until(s, atomic_load(&s->pushed), NULL);
    atomic_store(&s->closing, true);
    ring_bell(s);
    for (uint32_t i = 1; i <= s->n_workers; i++)
        ht_os_thread_join(&s->seats[i].thread);
    free(s->runs);
    free(s->seats);
    free(s);
    *sp = NULL;
}

uint32_t ht_stream_threads(const ht_stream *s) { return s->n_threads; }

uint64_t ht_stream_pushed(const ht_stream *s) { return atomic_load_explicit(&s->pushed, memory_order_relaxed); }

uint64_t ht_stream_completed(const ht_stream *s) { return atomic_load_explicit(&s->completed, memory_order_acquire); }

uint64_t ht_stream_push(ht_stream *s, const ht_task *t)
{
    uint64_t number = atomic_load_explicit(&s->pushed, memory_order_relaxed);
    slot *sl = &s->ring[number % RING];
    run *runs = s->runs + number % RING * s->n_threads;

    if (number >= RING)
        ht_stream_retire(s, number - RING);
    sl->task = *t;
    sl->task.most = t->most ? t->most : 1;
    atomic_store_explicit(&sl->left, t->n_chunks, memory_order_relaxed);
    for (uint32_t i = 0; i < s->n_threads; i++) {
        uint32_t first = (uint32_t)((uint64_t)t->n_chunks * i / s->n_threads);
        uint32_t end = (uint32_t)((uint64_t)t->n_chunks * (i + 1) / s->n_threads);
        atomic_store_explicit(&runs[i].chunks, pack(first, end), memory_order_relaxed);
    }
    atomic_store(&s->pushed, number + 1);
    ring_bell(s);
    return number;
}

ht_status ht_stream_wait(ht_stream *s, uint64_t number, const ht_cancel *cancel)
{
    bool asked = cancel && atomic_load_explicit(&cancel->asked, memory_order_relaxed);

    if (!asked) {
        help_until(s, number + 1, cancel);
        /* Workers may have finished everything before this thread looked: who asked is told so all the same. */
        asked = cancel && atomic_load_explicit(&cancel->asked, memory_order_relaxed);
    }
    if (asked || atomic_load(&s->dropping)) {
        atomic_store(&s->dropping, true);
        help_until(s, atomic_load(&s->pushed), NULL);
        atomic_store(&s->dropping, false);
        return HT_ECANCELLED;
    }
    return HT_OK;
}
