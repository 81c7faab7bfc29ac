/* SPDX-License-Identifier: MIT
 *
 * Reading ahead: threads that walk a model's weights in the order in which the first pass needs them, bring them into
 * the page cache and enter them in the process's page tables, while the executor's threads compute what is there. A
 * cold file is then read in large pieces, several on their way at once, and never one fault at a time; of a warm one the
 * page tables are filled ahead of the computing.
 *
 * What is walked: the matrices and vectors of each layer, layers in order, then what stands outside layers (output).
 * Not walked: stacks of experts, of which a pass needs a few only, and the embedding's rows where the output has a
 * matrix of its own. The walk ends by itself; it never asks for more than it was allowed.
 *
 * Owner: ht_ahead_open/close; the mapped file outlives it. Threads: open, close: one; busy, failed: any. */
#ifndef HT_AHEAD_H
#define HT_AHEAD_H

#include "engine/base/os.h"
#include "engine/gguf.h"

/* Windows end at multiples of this address: large enough for any disk's sequential speed, small enough to stop within
 * milliseconds. Two threads keep a disk busy and leave the processors to the computing. */
enum { HT_AHEAD_WINDOW = 4 << 20, HT_AHEAD_THREADS = 2 };

typedef struct ht_ahead_range { const uint8_t *data; uint64_t bytes; } ht_ahead_range;

/* Brings a window into memory, blocking; false where the file cannot be read. */
typedef bool ht_ahead_fn(void *user, const uint8_t *data, size_t bytes);

typedef struct ht_ahead {
    ht_ahead_range *ranges; /* owned */
    uint32_t n, at;         /* at: the range that the next window is of */
    uint64_t done;          /* bytes of it that are handed out */
    ht_ahead_fn *read;
    void *user;
    ht_os_mutex lock;       /* over at, done */
    ht_os_thread threads[HT_AHEAD_THREADS];
    uint32_t n_threads;
    _Atomic bool stop, failed;
    _Atomic uint32_t walking; /* threads that have not ended */
} ht_ahead;

/* Asks for the vectors (norms, biases), which opening a model reads at once and all over the file: before the walk keeps
 * the disk busy they come in a moment, and afterwards each would wait behind windows. */
void ht_ahead_vectors(const ht_gguf *g);

/* The ranges of a file, adjacent ones joined, at most `most` bytes in all: *ranges is malloc'ed and the caller's.
 * *whole: none were left out. Fails: ENOMEM. */
ht_status ht_ahead_plan(const ht_gguf *g, uint64_t most, ht_ahead_range **ranges, uint32_t *n, bool *whole,
                        ht_error *err);

/* Starts the walk over `ranges` (malloc'ed; taken over in every case) with up to n_threads threads. read NULL:
 * ht_os_populate. Fails: ENOMEM where a thread cannot be started; nothing is read then. */
ht_status ht_ahead_open(ht_ahead *a, ht_ahead_range *ranges, uint32_t n, uint32_t n_threads, ht_ahead_fn *read, void *user,
                        ht_error *err);
/* Stops and joins; zero-initialised objects too. */
void ht_ahead_close(ht_ahead *a);
/* Waits for the walk's end (tests, measurements). */
void ht_ahead_wait(ht_ahead *a);
/* Whether the walk goes on: what lies outside it (rows of the embedding) is then worth asking for before it is needed,
 * for a fault would wait behind windows. */
bool ht_ahead_busy(const ht_ahead *a);
/* Whether a window could not be read: the disk fails, or the file was cut. */
bool ht_ahead_failed(const ht_ahead *a);

#endif
