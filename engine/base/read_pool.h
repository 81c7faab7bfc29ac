/* SPDX-License-Identifier: MIT
 *
 * Threads that read: what engine/base/reader.h uses where the system has no ring of reads, or where the processor has
 * to copy. The same four steps as a ht_os_ring: read, wait, next.
 *
 * Owner: open/close. Threads: read, wait, next, close: one at a time. Nothing is allocated after open. */
#ifndef HT_BASE_READ_POOL_H
#define HT_BASE_READ_POOL_H

#include "engine/base/os_read.h"

typedef struct ht_read_pool ht_read_pool;

/* entries: reads at most between ht_read_pool_read and ht_read_pool_next. Fewer threads than asked for are no error,
 * none is: HT_ENOMEM. */
ht_status ht_read_pool_open(ht_read_pool **out, uint32_t threads, uint32_t entries, ht_error *err);
void ht_read_pool_close(ht_read_pool *p); /* waits for all reads; NULL allowed */
/* Starts a read; f and the buffer stay until it has ended. */
void ht_read_pool_read(ht_read_pool *p, const ht_os_file *f, void *to, size_t bytes, uint64_t offset, uint32_t tag);
/* Waits until a read has ended, at most wait_us; may return for no reason. */
void ht_read_pool_wait(ht_read_pool *p, uint32_t wait_us);
/* A read that has ended: bytes or -errno; false: none. */
bool ht_read_pool_next(ht_read_pool *p, uint32_t *tag, int64_t *result);

#endif
