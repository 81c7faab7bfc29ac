/* SPDX-License-Identifier: MIT
 * Linux behind os_read.h: O_DIRECT, pread, io_uring by its system calls. */
#include "engine/base/os_read.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- Files ---- */

/* Whether the file system says of this file that our alignment does. One that says nothing (before Linux 6.1) is tried:
 * EINVAL tells then. */
static bool direct_fits(int fd)
{
#ifdef STATX_DIOALIGN
    struct statx sx;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &sx) == 0 && (sx.stx_mask & STATX_DIOALIGN))
        return sx.stx_dio_offset_align != 0 && HT_OS_DIRECT_ALIGN % sx.stx_dio_offset_align == 0 &&
               sx.stx_dio_mem_align != 0 && HT_OS_DIRECT_ALIGN % sx.stx_dio_mem_align == 0;
#else
    (void)fd;
#endif
    return true;
}

ht_status ht_os_file_open(ht_os_file *f, const char *path, bool direct, ht_error *err)
{
    /* O_NONBLOCK: a FIFO in a model's place must be refused below, not waited for. */
    const int flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK;
    struct stat st;

    *f = (ht_os_file){ .fd = -1 };
    int fd = direct ? open(path, flags | O_DIRECT) : -1;
    f->direct = fd >= 0;
    if (fd < 0)
        fd = open(path, flags);
    if (fd < 0)
        return ht_fail(err, HT_EIO, "%s: %s", path, strerror(errno));
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return ht_fail(err, HT_EIO, "%s: not a regular file", path);
    }
    f->fd = fd;
    if (f->direct && !direct_fits(fd))
        ht_os_file_use_cache(f);
    /* Parts of a file are read where they are wanted; without this the kernel takes two neighbouring reads for a scan
     * and reads megabytes behind them. */
    if (!f->direct)
        posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
    return HT_OK;
}

void ht_os_file_close(ht_os_file *f)
{
    if (f->fd >= 0)
        close(f->fd);
    *f = (ht_os_file){ .fd = -1 };
}

void ht_os_file_use_cache(ht_os_file *f)
{
    int flags = fcntl(f->fd, F_GETFL);
    if (flags >= 0)
        fcntl(f->fd, F_SETFL, flags & ~O_DIRECT);
    posix_fadvise(f->fd, 0, 0, POSIX_FADV_RANDOM);
    f->direct = false;
}

int64_t ht_os_file_read(const ht_os_file *f, void *to, size_t bytes, uint64_t offset)
{
    ssize_t n = pread(f->fd, to, bytes, (off_t)offset);
    return n < 0 ? -(int64_t)errno : (int64_t)n;
}

uint64_t ht_os_file_bytes(const ht_os_file *f)
{
    struct stat st;
    return fstat(f->fd, &st) == 0 ? (uint64_t)st.st_size : 0;
}

void ht_os_file_forget(const ht_os_file *f, uint64_t offset, uint64_t bytes)
{
    posix_fadvise(f->fd, (off_t)offset, (off_t)bytes, POSIX_FADV_DONTNEED);
}

double ht_os_cpu_seconds(void)
{
    struct rusage ru;
    if (getrusage(RUSAGE_SELF, &ru) != 0)
        return 0.0;
    return (double)(ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) +
           1e-6 * (double)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec);
}

/* ---- The ring ---- */

/* Two rings shared with the kernel. Each has one writer: we move the submission ring's tail and the completion ring's
 * head, the kernel the other two. An entry is written before the index that publishes it (release) and read after it
 * (acquire). */
struct ht_os_ring {
    int fd;
    void *rings; /* both of them, one mapping */
    size_t rings_bytes;
    struct io_uring_sqe *sqes;
    size_t sqes_bytes;
    _Atomic uint32_t *sq_head, *sq_tail, *cq_head, *cq_tail;
    uint32_t *sq_array; /* which entry is at each place of the submission ring */
    uint32_t sq_mask, cq_mask;
    struct io_uring_cqe *cqes;
};

static int last_error(void)
{
    const int error = errno;
    return error ? error : EIO;
}

static int setup(ht_os_ring *ring, uint32_t entries)
{
    struct io_uring_params p = { .flags = IORING_SETUP_CLAMP };
    const uint32_t wanted = IORING_FEAT_SINGLE_MMAP | IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG; /* Linux 5.11 */

    ring->fd = (int)syscall(SYS_io_uring_setup, entries, &p);
    if (ring->fd < 0)
        return last_error();
    if ((p.features & wanted) != wanted || p.sq_entries < entries)
        return ENOSYS;
    size_t sq = p.sq_off.array + p.sq_entries * sizeof(uint32_t);
    size_t cq = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
    ring->rings_bytes = sq > cq ? sq : cq;
    ring->sqes_bytes = p.sq_entries * sizeof(struct io_uring_sqe);
    void *m = mmap(NULL, ring->rings_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring->fd,
                   (off_t)IORING_OFF_SQ_RING);
    if (m == MAP_FAILED)
        return last_error();
    ring->rings = m;
    m = mmap(NULL, ring->sqes_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring->fd,
             (off_t)IORING_OFF_SQES);
    if (m == MAP_FAILED)
        return last_error();
    ring->sqes = m;
    uint8_t *base = ring->rings;
    ring->sq_head = (_Atomic uint32_t *)(void *)(base + p.sq_off.head);
    ring->sq_tail = (_Atomic uint32_t *)(void *)(base + p.sq_off.tail);
    ring->cq_head = (_Atomic uint32_t *)(void *)(base + p.cq_off.head);
    ring->cq_tail = (_Atomic uint32_t *)(void *)(base + p.cq_off.tail);
    ring->sq_array = (uint32_t *)(void *)(base + p.sq_off.array);
    ring->cqes = (struct io_uring_cqe *)(void *)(base + p.cq_off.cqes);
    ring->sq_mask = p.sq_entries - 1;
    ring->cq_mask = p.cq_entries - 1;
    return 0;
}

static struct io_uring_sqe *next_entry(ht_os_ring *ring, uint32_t *tail)
{
    *tail = atomic_load_explicit(ring->sq_tail, memory_order_relaxed);
    uint32_t i = *tail & ring->sq_mask;
    ring->sq_array[i] = i;
    memset(&ring->sqes[i], 0, sizeof ring->sqes[i]);
    return &ring->sqes[i];
}

/* A ring that was set up may still be of no use: a filter of system calls may forbid to enter it. */
static int probe(ht_os_ring *ring)
{
    uint32_t tail, tag;
    int64_t result;
    struct io_uring_sqe *e = next_entry(ring, &tail);
    e->opcode = IORING_OP_NOP;
    atomic_store_explicit(ring->sq_tail, tail + 1, memory_order_release);
    int error = ht_os_ring_enter(ring, 1000000);
    if (error)
        return error;
    return ht_os_ring_next(ring, &tag, &result) && result == 0 ? 0 : ENOSYS;
}

int ht_os_ring_open(ht_os_ring **out, uint32_t entries)
{
    *out = NULL;
    ht_os_ring *ring = calloc(1, sizeof *ring);
    if (!ring)
        return ENOMEM;
    int error = setup(ring, entries);
    if (!error)
        error = probe(ring);
    if (error) {
        ht_os_ring_close(ring);
        return error;
    }
    *out = ring;
    return 0;
}

void ht_os_ring_close(ht_os_ring *ring)
{
    if (!ring)
        return;
    if (ring->sqes)
        munmap(ring->sqes, ring->sqes_bytes);
    if (ring->rings)
        munmap(ring->rings, ring->rings_bytes);
    if (ring->fd >= 0)
        close(ring->fd);
    free(ring);
}

void ht_os_ring_read(ht_os_ring *ring, const ht_os_file *f, void *to, size_t bytes, uint64_t offset, uint32_t tag)
{
    uint32_t tail;
    struct io_uring_sqe *e = next_entry(ring, &tail);
    e->opcode = IORING_OP_READ;
    e->fd = f->fd;
    e->addr = (uint64_t)(uintptr_t)to;
    e->len = (uint32_t)bytes;
    e->off = offset;
    e->user_data = tag;
    /* What is in the page cache would be copied on the spot, by the thread that computes: the kernel's own may do it. */
    if (!f->direct)
        e->flags = IOSQE_ASYNC;
    atomic_store_explicit(ring->sq_tail, tail + 1, memory_order_release);
}

int ht_os_ring_enter(ht_os_ring *ring, uint32_t wait_us)
{
    struct __kernel_timespec ts = { wait_us / 1000000, (long long)(wait_us % 1000000) * 1000 };
    struct io_uring_getevents_arg arg = { .ts = (uint64_t)(uintptr_t)&ts };
    uint32_t todo = atomic_load_explicit(ring->sq_tail, memory_order_relaxed) -
                    atomic_load_explicit(ring->sq_head, memory_order_acquire);

    if (!todo && !wait_us)
        return 0;
    long n = wait_us ? syscall(SYS_io_uring_enter, ring->fd, todo, 1, IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG,
                               &arg, sizeof arg)
                     : syscall(SYS_io_uring_enter, ring->fd, todo, 0, 0, NULL, 0);
    return n >= 0 || errno == ETIME || errno == EINTR ? 0 : errno;
}

bool ht_os_ring_take_back(ht_os_ring *ring, uint32_t *tag)
{
    uint32_t tail = atomic_load_explicit(ring->sq_tail, memory_order_relaxed);
    if (tail == atomic_load_explicit(ring->sq_head, memory_order_acquire))
        return false;
    *tag = (uint32_t)ring->sqes[(tail - 1) & ring->sq_mask].user_data;
    /* Without a polling thread the kernel looks at the tail in ht_os_ring_enter only. */
    atomic_store_explicit(ring->sq_tail, tail - 1, memory_order_release);
    return true;
}

bool ht_os_ring_next(ht_os_ring *ring, uint32_t *tag, int64_t *result)
{
    uint32_t head = atomic_load_explicit(ring->cq_head, memory_order_relaxed);
    if (head == atomic_load_explicit(ring->cq_tail, memory_order_acquire))
        return false;
    const struct io_uring_cqe *c = &ring->cqes[head & ring->cq_mask];
    *tag = (uint32_t)c->user_data;
    *result = c->res;
    atomic_store_explicit(ring->cq_head, head + 1, memory_order_release);
    return true;
}
