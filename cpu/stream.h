/* SPDX-License-Identifier: MIT
 *
 * A queue of parallel tasks and the threads that run it. A task is a function over chunks 0..n-1; tasks run strictly in
 * order, the chunks of one task on whichever thread is free. The thread that waits helps, so n threads means n - 1
 * workers.
 *
 * Sharing out: every thread owns an equal run of neighbouring chunks, so that it streams through one stretch of
 * memory, and takes from its front, fewer at a time towards the end; who is through takes half of what is left of the
 * longest other run. So a thread that is slow, or that loses its core, does less of the task.
 *
 * Stragglers: a thread that loses its core in the middle of chunks would hold back everybody until the system runs it
 * again, milliseconds later. Where a task is `contested`, others then run the same chunks once more; who is first to
 * ask ht_stream_commit writes the result. Its function computes into memory of its own thread, asks, and writes to
 * shared memory only when told so; it must bear that its inputs change under it once others have walked on.
 *
 * Tails: what one thread does in a microsecond is no task of its own, but the tail of the one before: the thread that
 * finishes the last chunk runs it before the task counts as done.
 *
 * Owner: ht_stream_open/close. Threads: one thread at a time pushes and waits. Nothing is allocated after open. */
#ifndef HT_CPU_STREAM_H
#define HT_CPU_STREAM_H

#include "engine/base/exec.h"

typedef struct ht_stream ht_stream;

/* Runs chunks [first, first + n). thread: who runs them, < n_threads; 0 is the one that waits. */
typedef void ht_task_fn(const void *ctx, uint32_t first, uint32_t n, uint32_t thread);
/* How many of the chunks [first, first + n) may be run in one go, at least 1. Must depend on nothing else. */
typedef uint32_t ht_task_span(const void *ctx, uint32_t first, uint32_t n);
typedef void ht_task_tail(const void *ctx, uint32_t thread);

/* ctx stays valid until the task is done, and of tasks that are contested or have a span until it is retired. */
typedef struct ht_task {
    ht_task_fn *fn;
    ht_task_span *span; /* NULL: any number */
    ht_task_tail *tail; /* NULL: none */
    const void *ctx;
    uint32_t n_chunks;
    uint32_t most;  /* chunks that a thread takes at once, at most; 0 counts as 1 */
    bool contested; /* fn asks ht_stream_commit before it writes */
} ht_task;

/* pin(user, thread) is called once on each worker as it starts (and never for thread 0, which is the application's). */
ht_status ht_stream_open(ht_stream **out, uint32_t n_threads, void (*pin)(void *user, uint32_t thread), void *user,
                         ht_error *err);
void ht_stream_close(ht_stream **s); /* waits for what was pushed */
uint32_t ht_stream_threads(const ht_stream *s);
uint64_t ht_stream_bytes(uint32_t n_threads); /* memory of a stream */

/* Appends a task; helps with earlier ones when the queue is full. Returns the task's number: the stream is past it when
 * ht_stream_wait(number) returns. */
uint64_t ht_stream_push(ht_stream *s, const ht_task *t);
uint64_t ht_stream_pushed(const ht_stream *s);    /* tasks pushed so far */
uint64_t ht_stream_completed(const ht_stream *s); /* tasks done so far */

/* Called by a contested task's function on `thread` once, after computing and before writing: true if it is the one that
 * writes; false: another did, and nothing may be written. True in tasks that are not contested. */
bool ht_stream_commit(ht_stream *s, uint32_t thread);

/* Works until task `number` is done. With cancel asked for, chunks that have not begun are dropped and everything
 * pushed is done when it returns HT_ECANCELLED. */
ht_status ht_stream_wait(ht_stream *s, uint64_t number, const ht_cancel *cancel);

/* Waits until task `number` is retired: done, and no thread looks at it or anything before it any more. */
void ht_stream_retire(ht_stream *s, uint64_t number);

#endif
