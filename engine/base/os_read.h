/* SPDX-License-Identifier: MIT
 *
 * What the operating system offers to read files by offset (os_read_linux.c): descriptors that may pass the page cache
 * by, a blocking read, and a ring of reads that the kernel does beside us (io_uring). Errors of single reads are errno
 * values; engine/base/reader.h makes sentences of them. */
#ifndef HT_BASE_OS_READ_H
#define HT_BASE_OS_READ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/base/status.h"

typedef struct ht_os_file {
    int fd;      /* -1: not open */
    bool direct; /* reads pass the page cache by: offset, length and address must be multiples of HT_OS_DIRECT_ALIGN */
} ht_os_file;

enum { HT_OS_DIRECT_ALIGN = 4096 };

/* Opens a regular file for reads in no particular order. direct is a wish: where the system refuses it, or asks for
 * more alignment than above, f->direct is false. HT_EIO: no such file, or no regular one. */
ht_status ht_os_file_open(ht_os_file *f, const char *path, bool direct, ht_error *err);
void ht_os_file_close(ht_os_file *f); /* fd -1 allowed */
/* Goes through the page cache from now on; reads under way end as they began. */
void ht_os_file_use_cache(ht_os_file *f);
/* One read, blocking: how many bytes came (fewer than asked for at the file's end, seldom elsewhere), or -errno. Looks
 * at nothing of f but its descriptor, so that threads may read while another calls ht_os_file_use_cache. */
int64_t ht_os_file_read(const ht_os_file *f, void *to, size_t bytes, uint64_t offset);
uint64_t ht_os_file_bytes(const ht_os_file *f); /* its size now; 0 where it cannot be told */
/* Lets clean pages of a range leave the page cache (measurements). bytes 0: to the end. */
void ht_os_file_forget(const ht_os_file *f, uint64_t offset, uint64_t bytes);
/* Processor seconds of this process so far, those that the kernel spends for it counted (measurements). */
double ht_os_cpu_seconds(void);

/* The ring. At most `entries` reads may be between ht_os_ring_read and ht_os_ring_next. Threads: one at a time. */
typedef struct ht_os_ring ht_os_ring;

/* Returns 0 or an errno: ENOSYS, EPERM (refused by policy), ENOMEM, ... */
int ht_os_ring_open(ht_os_ring **out, uint32_t entries);
void ht_os_ring_close(ht_os_ring *ring); /* no read under way; NULL allowed */
/* Notes a read down; ht_os_ring_enter starts it. */
void ht_os_ring_read(ht_os_ring *ring, const ht_os_file *f, void *to, size_t bytes, uint64_t offset, uint32_t tag);
/* Starts what was noted down and waits until a read has ended, at most wait_us (0: does not wait); less where a signal
 * came. Returns 0 or an errno; what could not be started stays noted down. */
int ht_os_ring_enter(ht_os_ring *ring, uint32_t wait_us);
/* Takes the last read that was noted down and not started back; false: there is none. */
bool ht_os_ring_take_back(ht_os_ring *ring, uint32_t *tag);
/* A read that has ended: bytes or -errno; false: none. No system call. -ECANCELED: the thread that started it has
 * ended. */
bool ht_os_ring_next(ht_os_ring *ring, uint32_t *tag, int64_t *result);

#endif
