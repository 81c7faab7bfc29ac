/* SPDX-License-Identifier: MIT
 *
 * Reads of files beside the computing thread: what is wanted now before what may be wanted soon.
 *
 * A reader has two lanes. Demand reads go to the disk at once, in the order given; ahead reads only while no demand read
 * waits, a few at a time, so that a demand read never queues behind more than those. A read is cut into pieces of at most
 * `piece` bytes; many pieces are under way at a time. Done by io_uring where the kernel lets us, else by threads that
 * call pread; both give the same bytes. Every length is checked: a short read goes on where it stopped, and an end of
 * file before the last byte wanted is HT_EIO with file and offset.
 *
 * Direct reads (O_DIRECT) pass the page cache by: offset, length and address are rounded to the alignment that the file
 * system asks for (STATX_DIOALIGN, else 4096), hence the slack in the buffer. A file system that refuses them (EINVAL) is
 * read through the page cache, said once by ht_reader_get_info.
 *
 * Owner: ht_reader_open/close; a ht_read and its buffer are the caller's and stay until it is done or dropped. Threads:
 * one thread at a time calls a reader's functions; `state` of a read may be looked at from any. Nothing is allocated
 * after open. */
#ifndef HT_BASE_READER_H
#define HT_BASE_READER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/base/status.h"

/* AUTO: the faster of the others, measured. */
typedef enum ht_io { HT_IO_AUTO, HT_IO_DIRECT, HT_IO_CACHED, HT_IO_MMAP } ht_io;

#define HT_READ_ALIGN 4096u

typedef enum ht_read_state { HT_READ_IDLE, HT_READ_QUEUED, HT_READ_DONE, HT_READ_FAILED } ht_read_state;

typedef struct ht_read {
    /* The caller's. */
    uint32_t file;   /* index of the paths given to open */
    uint64_t offset; /* of the first byte wanted */
    size_t bytes;
    uint8_t *to;     /* HT_READ_ALIGN-aligned, ht_read_room(bytes) bytes */
    /* The reader's. */
    uint8_t *data;       /* the first byte wanted, within `to`; valid from submit on */
    _Atomic int state;   /* ht_read_state; DONE with acquire: the bytes are there */
    struct ht_read *next;
    size_t sent, here;   /* bytes of the rounded range that were handed out, that arrived */
    bool ahead, dropped;
} ht_read;

static inline size_t ht_read_room(size_t bytes)
{
    return (bytes + 2 * (size_t)HT_READ_ALIGN - 1) / HT_READ_ALIGN * HT_READ_ALIGN;
}

typedef struct ht_reader ht_reader;

typedef struct ht_reader_params {
    const char *const *paths; /* [n_paths] */
    uint32_t n_paths;
    ht_io io;                 /* DIRECT or CACHED */
    bool no_uring;            /* threads, whatever the kernel offers */
    uint32_t threads;         /* of these; 0: a default */
    uint32_t depth;           /* pieces under way at most; 0: a default */
    uint32_t piece;           /* bytes, a multiple of HT_READ_ALIGN; 0: a default */
    /* For tests: called before each piece is read, by whatever way; returns an errno (the piece fails so), or 0; *bytes
     * may be lowered (a short read). NULL: nothing. */
    int (*fault)(void *user, uint32_t file, uint64_t offset, size_t *bytes);
    void *fault_user;
} ht_reader_params;

/* HT_EIO: a file cannot be opened; HT_ENOMEM. */
ht_status ht_reader_open(ht_reader **out, const ht_reader_params *params, ht_error *err);
/* Waits for what is under way; drops the rest. NULL allowed. */
void ht_reader_close(ht_reader *r);

/* Queues a read whose state is not QUEUED. Does not wait for the disk. */
void ht_reader_submit(ht_reader *r, ht_read *read, bool ahead);
/* An ahead read that is wanted now. No effect on others. */
void ht_reader_hurry(ht_reader *r, ht_read *read);
/* Takes back a queued read: what is under way of it still arrives, then its state is IDLE; the buffer is the reader's
 * until then. Returns true where it is IDLE at once. */
bool ht_reader_drop(ht_reader *r, ht_read *read);
/* Takes note of what has arrived and hands out more. wait_us: 0 does not wait; else until something arrived, at most that
 * long. Returns the number of reads that are done or failed now and were not before. */
uint32_t ht_reader_poll(ht_reader *r, uint32_t wait_us);
/* Waits until the read is DONE, FAILED or IDLE, at most wait_us (HT_LATER then). HT_EIO: `err` names file and offset. */
ht_status ht_reader_wait(ht_reader *r, ht_read *read, uint32_t wait_us, ht_error *err);

typedef struct ht_reader_info {
    bool uring, direct;        /* what is used, after what was refused */
    uint64_t bytes, pieces;    /* read from the files so far, rounding counted */
    double busy_seconds;       /* with at least one piece under way, as this thread saw it */
} ht_reader_info;
ht_reader_info ht_reader_get_info(const ht_reader *r);

#endif
