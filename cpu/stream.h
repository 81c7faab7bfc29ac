/* SPDX-License-Identifier: MIT
 *
 * A queue of parallel tasks and the threads that run it. A task is a function over chunks 0..n-1; tasks run strictly in
 * order, the chunks of one task on whichever thread is free. The thread that waits helps, so n threads means n - 1
 * workers.
 *
 * Chunks are claimed one by one: a thread that loses its core for a moment holds back at most the chunk it is in, the
 * others take the rest. Waiting threads spin for a short while (a token has some hundred tasks, microseconds apart),
 * then sleep.
 *
 * Owner: ht_stream_open/close. Threads: one thread at a time pushes and waits. Nothing is allocated after open. */
#ifndef HT_CPU_STREAM_H
#define HT_CPU_STREAM_H

#include "engine/base/exec.h"

typedef struct ht_stream ht_stream;

/* thread: index of the thread that runs the chunk, < n_threads; 0 is the one that waits. */
typedef void ht_task_fn(const void *ctx, uint32_t chunk, uint32_t thread);

/* pin(user, thread) is called once on each worker as it starts (and never for thread 0, which is the application's). */
ht_status ht_stream_open(ht_stream **out, uint32_t n_threads, void (*pin)(void *user, uint32_t thread), void *user,
                         ht_error *err);
void ht_stream_close(ht_stream **s); /* waits for what was pushed */
uint32_t ht_stream_threads(const ht_stream *s);

/* Appends a task; helps with earlier ones when the queue is full. ctx must stay valid until the task is done.
 * Returns the task's number: the stream is past it when ht_stream_wait(number) returns. */
uint64_t ht_stream_push(ht_stream *s, ht_task_fn *fn, const void *ctx, uint32_t n_chunks);
uint64_t ht_stream_pushed(const ht_stream *s);    /* tasks pushed so far */
uint64_t ht_stream_completed(const ht_stream *s); /* tasks done so far */

/* Works until task `number` is done. With cancel asked for, what has not begun is dropped and everything pushed is done
 * when it returns HT_ECANCELLED. */
ht_status ht_stream_wait(ht_stream *s, uint64_t number, const ht_cancel *cancel);

#endif
