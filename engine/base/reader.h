/* SPDX-License-Identifier: MIT
 *
 * Reads of files beside the computing thread: what is wanted now before what may be wanted soon.
 *
 * A reader has two lanes. Demand reads go to the disk at once, in the order given; ahead reads only while no demand read
 * waits to be handed out and fewer than `depth_ahead` pieces are under way, so that a demand read never queues behind more
 * than those. A read is cut into pieces of at most `piece` bytes; many pieces are under way at a time. Done by io_uring
 * where the kernel lets us and the disk copies by itself, else by threads that call pread; both give the same bytes. Every
 * length is checked: a short read goes on where it stopped, and an end of file before the last byte wanted is HT_EIO with
 * file and offset.
 *
 * Direct reads (O_DIRECT) pass the page cache by: offset, length and address are rounded to HT_READ_ALIGN, hence the slack
 * in the buffer. A file system that refuses them, or asks for more (STATX_DIOALIGN, EINVAL), is read through the page
 * cache, said once by ht_reader_get_info.
 *
 * Owner: ht_reader_open/close; a ht_read and its buffer are the caller's and stay until its state is not QUEUED. Threads:
 * one thread at a time calls a reader's functions; `state` of a read may be looked at from any. Pieces are handed out
 * inside these functions only: submit and poll now and then while more is queued than fits under way. Nothing is allocated
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
    size_t bytes;    /* 0: done at once */
    uint8_t *to;     /* HT_READ_ALIGN-aligned, ht_read_room(bytes) bytes; all of them may be written to */
    /* The reader's. All zero before the first submit. */
    uint8_t *data;      /* the first byte wanted, within `to`: to + offset % HT_READ_ALIGN; valid from submit on */
    _Atomic int state;  /* ht_read_state; DONE with acquire: the bytes are there */
    struct ht_read *next, *prev; /* of its lane */
    size_t sent;        /* bytes of the rounded range that were handed out */
    uint32_t under_way; /* pieces */
    int error;          /* FAILED: an errno; 0: the file ended */
    uint64_t error_at;  /* FAILED: where in the file */
    bool ahead, queued, dropped, failed;
} ht_read;

static inline size_t ht_read_room(size_t bytes)
{
    return (bytes + 2 * (size_t)HT_READ_ALIGN - 1) / HT_READ_ALIGN * HT_READ_ALIGN;
}

typedef struct ht_reader ht_reader;

typedef struct ht_reader_params {
    const char *const *paths; /* [n_paths], copied */
    uint32_t n_paths;
    ht_io io;                 /* DIRECT or CACHED */
    bool no_uring;            /* threads, whatever the kernel offers */
    bool force_uring;         /* for measurements: io_uring for CACHED too */
    uint32_t threads;         /* of these; 0: a default */
    uint32_t depth;           /* pieces under way at most, 1024 at most; 0: a default */
    uint32_t depth_ahead;     /* while this many pieces are under way, no ahead piece is handed out; 0: a default */
    uint32_t piece;           /* bytes, a multiple of HT_READ_ALIGN, 1 GiB at most; 0: a default */
    /* For tests: called before each piece is read, by whatever way; returns an errno (the piece fails so), or 0; *bytes
     * may be lowered (a short read; of direct ones by less than HT_READ_ALIGN: the file's end). NULL: nothing. */
    int (*fault)(void *user, uint32_t file, uint64_t offset, size_t *bytes);
    void *fault_user;
} ht_reader_params;

/* HT_EIO: a file cannot be opened; HT_ENOMEM; HT_EINVAL: params. */
ht_status ht_reader_open(ht_reader **out, const ht_reader_params *params, ht_error *err);
/* Waits for what is under way; drops the rest. NULL allowed. */
void ht_reader_close(ht_reader *r);

/* Queues a read whose state is not QUEUED. Does not wait for the disk. */
void ht_reader_submit(ht_reader *r, ht_read *x, bool ahead);
/* An ahead read that is wanted now. No effect on others. */
void ht_reader_hurry(ht_reader *r, ht_read *x);
/* Takes back a queued read: what is under way of it still arrives, then its state is IDLE; the buffer is the reader's
 * until then. Returns true where it is not QUEUED at once (IDLE, or DONE or FAILED before). */
bool ht_reader_drop(ht_reader *r, ht_read *x);
/* Takes note of what has arrived and hands out more. wait_us: 0 does not wait; else until a read has ended (DONE, FAILED,
 * or IDLE after drop) or nothing is queued, at most that long. Returns the number of reads that have ended and were not
 * counted before. */
uint32_t ht_reader_poll(ht_reader *r, uint32_t wait_us);
/* Waits until the read is DONE, FAILED or IDLE, at most wait_us (HT_LATER then; 0 does not wait). HT_OK: DONE or IDLE.
 * HT_EIO: `err` names file and offset; asked again, the same again. */
ht_status ht_reader_wait(ht_reader *r, ht_read *x, uint32_t wait_us, ht_error *err);

typedef struct ht_reader_info {
    bool uring, direct;        /* what is used, after what was refused; direct: for every file */
    uint64_t bytes, pieces;    /* read from the files so far, rounding counted */
    double busy_seconds;       /* with at least one piece under way, as this thread saw it */
} ht_reader_info;
ht_reader_info ht_reader_get_info(const ht_reader *r);

/* What HT_IO_AUTO is for a file: reads parts of it for about a tenth of a second both ways (a slow disk: two reads), each
 * place once, its pages taken out of the page cache before. */
typedef struct ht_reader_choice {
    ht_io io;                      /* DIRECT or CACHED */
    double direct_bytes_per_s;     /* 0: refused, or nothing read */
    double cached_bytes_per_s;     /* of bytes that are not in the page cache; 0: nothing read */
    double again_bytes_per_s;      /* of bytes that are */
    double expected_bytes_per_s;   /* of the way chosen */
} ht_reader_choice;
/* read_bytes: size of the reads to come (experts, rows). room: bytes of this file that the page cache may be expected to
 * keep beside what the caller itself takes; what is found there need not come from the disk. HT_EIO: the file cannot be
 * opened or read; HT_ENOMEM. */
ht_status ht_reader_choose(ht_reader_choice *out, const char *path, size_t read_bytes, uint64_t room, ht_error *err);

#endif
