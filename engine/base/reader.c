/* SPDX-License-Identifier: MIT
 * Two lanes of reads, cut into pieces; see reader.h. */
#include "engine/base/reader.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/os.h"
#include "engine/base/os_read.h"
#include "engine/base/read_pool.h"

_Static_assert(HT_READ_ALIGN == HT_OS_DIRECT_ALIGN, "buffers fit direct reads");

enum { MAX_DEPTH = 1024, NONE = UINT32_MAX >> 1 };
enum { DEPTH = 64, DEPTH_AHEAD = 4, THREADS = 8, PIECE = 1 << 20 };
enum { REPEATS = 1000 };               /* of one piece, after EINTR and its like */
static const double REFUSED_MOST = 10; /* seconds for which the kernel may have no memory for a read */

typedef struct source {
    char *path;
    ht_os_file f;
} source;

/* What is under way: one read of the system at a time. */
typedef struct piece {
    ht_read *read;
    uint64_t at; /* place in the file that goes to to[0] */
    uint8_t *to;
    size_t bytes, need; /* asked for; that must arrive */
    size_t most;        /* that may arrive: a test's short read */
    size_t had;         /* of `need`, by an earlier read whose end was not aligned */
    uint32_t repeats;
    bool direct;
    int result;    /* of a piece in `made`: -errno */
    uint32_t next; /* in `unused` or `made` */
} piece;

typedef struct lane {
    ht_read *head, *tail; /* reads of which something is left to hand out */
} lane;

struct ht_reader {
    source *files;
    uint32_t n_files;
    lane demand, ahead;
    piece *pieces; /* [depth] */
    uint32_t depth, depth_ahead, piece_bytes, under_way;
    uint32_t unused, made; /* pieces: free; that end without the disk */
    ht_os_ring *ring;      /* one of these two */
    ht_read_pool *pool;
    uint32_t ended;       /* reads, since they were counted last */
    double refused_since; /* 0: the kernel takes what it is given */
    double busy_since;
    ht_reader_info info;
    int (*fault)(void *user, uint32_t file, uint64_t offset, size_t *bytes);
    void *fault_user;
};

/* ---- Lanes ---- */

static void lane_add(lane *l, ht_read *x)
{
    x->next = NULL;
    x->prev = l->tail;
    *(l->tail ? &l->tail->next : &l->head) = x;
    l->tail = x;
    x->queued = true;
}

static void lane_remove(ht_reader *r, ht_read *x)
{
    lane *l = x->ahead ? &r->ahead : &r->demand;
    if (!x->queued)
        return;
    *(x->prev ? &x->prev->next : &l->head) = x->next;
    *(x->next ? &x->next->prev : &l->tail) = x->prev;
    x->next = x->prev = NULL;
    x->queued = false;
}

static void end(ht_reader *r, ht_read *x, ht_read_state state)
{
    r->ended++;
    atomic_store_explicit(&x->state, state, memory_order_release); /* the caller may free it from here on */
}

/* Nothing is under way of a read that will hand out no more. */
static void end_if_over(ht_reader *r, ht_read *x)
{
    if (!x->under_way && !x->queued)
        end(r, x, x->dropped ? HT_READ_IDLE : x->failed ? HT_READ_FAILED : HT_READ_DONE);
}

static void fail(ht_reader *r, ht_read *x, int error, uint64_t at)
{
    x->failed = true;
    x->error = error;
    x->error_at = at;
    lane_remove(r, x);
}

/* ---- Pieces ---- */

static void start(ht_reader *r, piece *p)
{
    uint32_t slot = (uint32_t)(p - r->pieces);
    ht_os_file *f = &r->files[p->read->file].f;

    p->direct = f->direct;
    p->most = p->bytes;
    int error = r->fault ? r->fault(r->fault_user, p->read->file, p->at, &p->most) : 0;
    if (error) {
        p->result = -error;
        p->next = r->made;
        r->made = slot;
    } else if (r->ring) {
        ht_os_ring_read(r->ring, f, p->to, p->bytes, p->at, slot);
    } else {
        ht_read_pool_read(r->pool, f, p->to, p->bytes, p->at, slot);
    }
}

/* Hands out the next piece of a read. */
static void hand_out(ht_reader *r, ht_read *x)
{
    const size_t lead = x->offset % HT_READ_ALIGN, all = lead + x->bytes;
    size_t from = x->sent, to = all - from > r->piece_bytes ? from + r->piece_bytes : all;
    piece *p = &r->pieces[r->unused];

    r->unused = p->next;
    if (!r->under_way++)
        r->busy_since = ht_os_now();
    x->under_way++;
    x->sent = to;
    if (to == all)
        lane_remove(r, x);
    size_t need = to - from, bytes = (need + HT_READ_ALIGN - 1) / HT_READ_ALIGN * HT_READ_ALIGN;
    if (!r->files[x->file].f.direct) {
        bytes = need; /* the exact bytes: a page less, often */
        if (from == 0) {
            from = lead;
            need = bytes = to - lead;
        }
    }
    *p = (piece){ .read = x, .at = x->offset - lead + from, .to = x->to + from, .bytes = bytes, .need = need };
    start(r, p);
}

static void hand_out_all(ht_reader *r)
{
    while (r->under_way < r->depth) {
        if (r->demand.head)
            hand_out(r, r->demand.head);
        else if (r->ahead.head && r->under_way < r->depth_ahead)
            hand_out(r, r->ahead.head);
        else
            return;
    }
}

static void finish(ht_reader *r, piece *p)
{
    ht_read *x = p->read;
    p->next = r->unused;
    r->unused = (uint32_t)(p - r->pieces);
    if (!--r->under_way)
        r->info.busy_seconds += ht_os_now() - r->busy_since;
    x->under_way--;
    end_if_over(r, x);
}

/* A piece's read has ended with so many bytes or with -errno: is the piece through, failed, or to be read again? */
static void arrive(ht_reader *r, piece *p, int64_t result)
{
    ht_read *x = p->read;
    source *s = &r->files[x->file];

    size_t got = result < 0 ? 0 : (uint64_t)result < p->most ? (size_t)result : p->most;
    if (result > 0) {
        r->info.bytes += (uint64_t)result;
        r->info.pieces++;
    }
    if (x->dropped || x->failed || got >= p->need) {
        finish(r, p);
        return;
    }
    if (result < 0) {
        int error = (int)-result;
        bool again = error == EINTR || error == EAGAIN || error == ECANCELED;
        if ((error == EINVAL || error == EOPNOTSUPP) && p->direct) { /* the file system refuses direct reads */
            if (s->f.direct)
                ht_os_file_use_cache(&s->f);
            again = true;
        }
        if (again && p->repeats++ < REPEATS) {
            start(r, p);
            return;
        }
        fail(r, x, error, p->at);
        finish(r, p);
        return;
    }
    /* Short: go on behind what came, at a multiple of the alignment where direct reads ask for it. What came beyond
     * that comes once more, and where not even a byte more than that comes the file has ended. */
    if (got <= p->had) {
        fail(r, x, 0, p->at + got);
        finish(r, p);
        return;
    }
    size_t whole = p->direct ? got / HT_READ_ALIGN * HT_READ_ALIGN : got;
    p->had = got - whole;
    p->at += whole;
    p->to += whole;
    p->bytes -= whole;
    p->need -= whole;
    start(r, p);
}

/* ---- The system ---- */

static bool next_ended(ht_reader *r, uint32_t *slot, int64_t *result)
{
    if (r->made != NONE) {
        *slot = r->made;
        *result = r->pieces[*slot].result;
        r->made = r->pieces[*slot].next;
        return true;
    }
    return r->ring ? ht_os_ring_next(r->ring, slot, result) : ht_read_pool_next(r->pool, slot, result);
}

static void take_note(ht_reader *r)
{
    uint32_t slot;
    int64_t result;
    while (next_ended(r, &slot, &result))
        arrive(r, &r->pieces[slot], result);
}

/* Starts what was handed out; waits until something has ended, at most wait_us. */
static void enter(ht_reader *r, uint32_t wait_us)
{
    if (r->pool) {
        ht_read_pool_wait(r->pool, wait_us);
        return;
    }
    int error = ht_os_ring_enter(r->ring, wait_us);
    if (!error) {
        r->refused_since = 0;
        return;
    }
    /* EAGAIN, EBUSY: short of memory for the moment. Anything else is not foreseen, and no read may wait for it. */
    double now = ht_os_now();
    if (r->refused_since == 0)
        r->refused_since = now;
    if ((error == EAGAIN || error == EBUSY) && now - r->refused_since < REFUSED_MOST) {
        _Atomic uint32_t never = 0;
        if (wait_us)
            ht_os_wait(&never, 0, wait_us < 1000 ? wait_us : 1000);
        return;
    }
    for (uint32_t slot; ht_os_ring_take_back(r->ring, &slot);) {
        r->pieces[slot].repeats = REPEATS;
        r->pieces[slot].result = -error;
        r->pieces[slot].next = r->made;
        r->made = slot;
    }
}

/* Everything that can be done without waiting. */
static void advance(ht_reader *r)
{
    do {
        take_note(r);
        hand_out_all(r);
        if (r->ring)
            enter(r, 0);
    } while (r->made != NONE);
}

/* What is left of a time, for one call of the system; 0: it is over. */
static uint32_t left_us(double deadline)
{
    double us = (deadline - ht_os_now()) * 1e6;
    return us <= 0 ? 0 : us < 1e6 ? (uint32_t)us + 1 : 1000000;
}

/* ---- For the caller ---- */

ht_status ht_reader_open(ht_reader **out, const ht_reader_params *params, ht_error *err)
{
    ht_status st = HT_OK;
    const uint32_t piece = params->piece ? params->piece : PIECE, depth = params->depth ? params->depth : DEPTH;

    *out = NULL;
    if ((params->io != HT_IO_DIRECT && params->io != HT_IO_CACHED) || piece % HT_READ_ALIGN || piece > 1u << 30 ||
        depth > MAX_DEPTH)
        return ht_fail(err, HT_EINVAL, "reader: way %d, pieces of %u bytes, %u under way", (int)params->io, piece,
                       depth);
    ht_reader *r = calloc(1, sizeof *r);
    if (!r)
        return ht_fail(err, HT_ENOMEM, "reader");
    r->depth = depth;
    r->depth_ahead = params->depth_ahead ? params->depth_ahead : DEPTH_AHEAD;
    r->piece_bytes = piece;
    r->fault = params->fault;
    r->fault_user = params->fault_user;
    r->made = NONE;
    r->files = calloc(params->n_paths ? params->n_paths : 1, sizeof *r->files);
    r->pieces = calloc(depth, sizeof *r->pieces);
    if (!r->files || !r->pieces) {
        st = ht_fail(err, HT_ENOMEM, "reader: %u files, %u pieces", params->n_paths, depth);
        goto failed;
    }
    for (uint32_t i = 0; i < depth; i++)
        r->pieces[i].next = i + 1;
    for (uint32_t i = 0; i < params->n_paths; i++) {
        source *s = &r->files[i];
        if ((st = ht_os_file_open(&s->f, params->paths[i], params->io == HT_IO_DIRECT, err)) != HT_OK)
            goto failed;
        r->n_files++;
        size_t n = strlen(params->paths[i]) + 1;
        if (!(s->path = malloc(n))) {
            st = ht_fail(err, HT_ENOMEM, "reader: a path of %zu bytes", n);
            goto failed;
        }
        memcpy(s->path, params->paths[i], n);
    }
    /* Through the page cache a processor has to copy: done by threads of ours (which of both is faster was not measured). */
    if (!params->no_uring && (ht_reader_get_info(r).direct || params->force_uring))
        ht_os_ring_open(&r->ring, depth); /* refused: threads */
    if (!r->ring &&
        (st = ht_read_pool_open(&r->pool, params->threads ? params->threads : THREADS, depth, err)) != HT_OK)
        goto failed;
    *out = r;
    return HT_OK;

failed:
    ht_reader_close(r);
    return st;
}

void ht_reader_close(ht_reader *r)
{
    if (!r)
        return;
    while (r->demand.head)
        ht_reader_drop(r, r->demand.head);
    while (r->ahead.head)
        ht_reader_drop(r, r->ahead.head);
    while (r->under_way) {
        enter(r, 1000000);
        take_note(r);
    }
    ht_read_pool_close(r->pool);
    ht_os_ring_close(r->ring);
    for (uint32_t i = 0; i < r->n_files; i++) {
        ht_os_file_close(&r->files[i].f);
        free(r->files[i].path);
    }
    free(r->files);
    free(r->pieces);
    free(r);
}

void ht_reader_submit(ht_reader *r, ht_read *x, bool ahead)
{
    if (atomic_load_explicit(&x->state, memory_order_relaxed) == HT_READ_QUEUED)
        return;
    x->data = x->to + x->offset % HT_READ_ALIGN;
    x->sent = 0;
    x->under_way = 0;
    x->ahead = ahead;
    x->queued = x->dropped = x->failed = false;
    atomic_store_explicit(&x->state, HT_READ_QUEUED, memory_order_relaxed);
    if (x->file >= r->n_files || x->bytes > (uint64_t)INT64_MAX - 2 * HT_READ_ALIGN ||
        x->offset > (uint64_t)INT64_MAX - 2 * HT_READ_ALIGN - x->bytes) {
        fail(r, x, EINVAL, x->offset);
        end_if_over(r, x);
    } else if (!x->bytes) {
        end_if_over(r, x);
    } else {
        lane_add(ahead ? &r->ahead : &r->demand, x);
        advance(r);
    }
}

void ht_reader_hurry(ht_reader *r, ht_read *x)
{
    if (atomic_load_explicit(&x->state, memory_order_relaxed) != HT_READ_QUEUED || !x->ahead)
        return;
    bool queued = x->queued;
    lane_remove(r, x);
    x->ahead = false;
    if (queued) {
        lane_add(&r->demand, x);
        advance(r);
    }
}

bool ht_reader_drop(ht_reader *r, ht_read *x)
{
    if (atomic_load_explicit(&x->state, memory_order_relaxed) != HT_READ_QUEUED)
        return true;
    x->dropped = true;
    lane_remove(r, x);
    if (x->under_way)
        return false;
    end_if_over(r, x);
    r->ended--; /* the caller knows */
    return true;
}

uint32_t ht_reader_poll(ht_reader *r, uint32_t wait_us)
{
    advance(r);
    if (wait_us && !r->ended && r->under_way) {
        const double deadline = ht_os_now() + wait_us * 1e-6;
        for (uint32_t us = wait_us; us && !r->ended && r->under_way; us = left_us(deadline)) {
            enter(r, us);
            advance(r);
        }
    }
    uint32_t n = r->ended;
    r->ended = 0;
    return n;
}

ht_status ht_reader_wait(ht_reader *r, ht_read *x, uint32_t wait_us, ht_error *err)
{
    const double deadline = wait_us ? ht_os_now() + wait_us * 1e-6 : 0;
    advance(r);
    for (;;) {
        int state = atomic_load_explicit(&x->state, memory_order_acquire);
        if (state == HT_READ_FAILED)
            break;
        if (state != HT_READ_QUEUED)
            return HT_OK;
        uint32_t us = wait_us ? left_us(deadline) : 0;
        if (!us)
            return HT_LATER;
        enter(r, us);
        advance(r);
    }
    if (x->file >= r->n_files)
        return ht_fail_at(err, HT_EIO, x->offset, "a read of file %u of %u", x->file, r->n_files);
    const char *path = r->files[x->file].path;
    if (!x->error)
        return ht_fail_at(err, HT_EIO, x->error_at, "%s: the file ends within a read of %zu bytes at %llu; was it cut?",
                          path, x->bytes, (unsigned long long)x->offset);
    return ht_fail_at(err, HT_EIO, x->error_at, "%s: a read of %zu bytes at %llu failed: %s", path, x->bytes,
                      (unsigned long long)x->offset, strerror(x->error));
}

ht_reader_info ht_reader_get_info(const ht_reader *r)
{
    ht_reader_info info = r->info;
    info.uring = r->ring != NULL;
    info.direct = r->n_files > 0;
    for (uint32_t i = 0; i < r->n_files; i++)
        info.direct = info.direct && r->files[i].f.direct;
    if (r->under_way)
        info.busy_seconds += ht_os_now() - r->busy_since;
    return info;
}
