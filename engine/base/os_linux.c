/* SPDX-License-Identifier: MIT
 * Linux behind os.h: files, memory, threads, futexes. */
#include "engine/base/os.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

double ht_os_now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

ht_status ht_os_map_open(ht_os_map *m, const char *path, ht_error *err)
{
    struct stat st;

    *m = (ht_os_map){ .fd = -1 };
    /* O_NONBLOCK: a FIFO in a model's place must be refused below, not waited for. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return ht_fail(err, HT_EIO, "%s: %s", path, strerror(errno));
    if (fstat(fd, &st) != 0) {
        ht_status s = ht_fail(err, HT_EIO, "%s: %s", path, strerror(errno));
        close(fd);
        return s;
    }
    if (!S_ISREG(st.st_mode)) {
        close(fd);
        return ht_fail(err, HT_EIO, "%s: not a regular file", path);
    }
    if (st.st_size > 0) {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED) {
            ht_status s = ht_fail(err, errno == ENOMEM ? HT_ENOMEM : HT_EIO, "%s: mapping %lld bytes: %s", path,
                                  (long long)st.st_size, strerror(errno));
            close(fd);
            return s;
        }
        m->data = p;
    }
    m->bytes = (uint64_t)st.st_size;
    m->fd = fd;
    return HT_OK;
}

void ht_os_map_close(ht_os_map *m)
{
    if (m->data) {
        munmap((void *)(uintptr_t)m->data, (size_t)m->bytes);
        close(m->fd);
    } else if (m->fd > 0) {
        close(m->fd);
    }
    *m = (ht_os_map){ .fd = -1 };
}

uint64_t ht_os_map_size_now(const ht_os_map *m)
{
    struct stat st;
    return m->data && fstat(m->fd, &st) == 0 ? (uint64_t)st.st_size : UINT64_MAX;
}

/* madvise over the pages that hold [p, p + bytes). */
static int advise(const void *p, size_t bytes, int advice)
{
    size_t lead = (uintptr_t)p % ht_os_page();
    return madvise((uint8_t *)(uintptr_t)p - lead, bytes + lead, advice);
}

void ht_os_will_need(const void *p, size_t bytes) { advise(p, bytes, MADV_WILLNEED); }

bool ht_os_populate(const void *p, size_t bytes)
{
#ifdef MADV_POPULATE_READ
    if (advise(p, bytes, MADV_POPULATE_READ) == 0)
        return true;
    if (errno != EINVAL) /* a system older than the advice: Linux 5.14 */
        return errno != EFAULT && errno != EHWPOISON;
#endif
    ht_os_will_need(p, bytes);
    return true;
}

void ht_os_prefer_large(const void *p, size_t bytes)
{
#ifdef MADV_HUGEPAGE
    advise(p, bytes, MADV_HUGEPAGE);
#else
    (void)p;
    (void)bytes;
#endif
}

bool ht_os_is_special(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && !S_ISREG(st.st_mode);
}

void *ht_os_reserve(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

void ht_os_release(void *p, size_t bytes)
{
    if (p)
        munmap(p, bytes);
}

static void stamp(const struct stat *st, ht_os_stamp *out)
{
    *out = (ht_os_stamp){ .bytes = (uint64_t)st->st_size,
                          .device = (uint64_t)st->st_dev,
                          .inode = (uint64_t)st->st_ino,
                          .written_ns = (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec };
}

bool ht_os_stamp_fd(int fd, ht_os_stamp *out)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return false;
    stamp(&st, out);
    return true;
}

bool ht_os_stamp_path(const char *path, ht_os_stamp *out)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return false;
    stamp(&st, out);
    return true;
}

bool ht_os_read_at(int fd, uint64_t offset, void *to, size_t bytes)
{
    for (size_t done = 0; done < bytes;) {
        const ssize_t n = pread(fd, (uint8_t *)to + done, bytes - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        done += (size_t)n;
    }
    return true;
}

void ht_os_decommit(void *p, size_t bytes) { madvise(p, bytes, MADV_DONTNEED); }

void ht_os_hwcap(uint64_t *hwcap, uint64_t *hwcap2)
{
    *hwcap = getauxval(AT_HWCAP);
    *hwcap2 = getauxval(AT_HWCAP2);
}

size_t ht_os_page(void) { return (size_t)sysconf(_SC_PAGESIZE); }

double ht_os_disk_bandwidth(const char *path)
{
    enum { PIECE = 1 << 20, MOST = 256 << 20 };
    struct stat st;
    double result = 0.0;
    bool direct = true;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_DIRECT);

    if (fd < 0) {
        direct = false;
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    }
    void *buf = aligned_alloc(4096, PIECE);
    if (fd >= 0 && buf && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size >= PIECE) {
        if (!direct)
            posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        uint64_t got = 0;
        double t0 = ht_os_now(), t = t0;
        for (off_t at = 0; at + PIECE <= st.st_size && got < MOST && t - t0 < 0.5; at += PIECE) {
            ssize_t n = pread(fd, buf, PIECE, at);
            if (n <= 0)
                break;
            got += (uint64_t)n;
            t = ht_os_now();
        }
        result = t > t0 ? (double)got / (t - t0) : 0.0;
    }
    free(buf);
    if (fd >= 0)
        close(fd);
    return result;
}

/* One number from a small file of the kernel's; false where there is none ("max" too). */
static bool read_u64(const char *path, uint64_t *out)
{
    char buf[64];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, buf, sizeof buf - 1);
    close(fd);
    if (n <= 0 || buf[0] < '0' || buf[0] > '9')
        return false;
    buf[n] = 0;
    *out = strtoull(buf, NULL, 10);
    return true;
}

static uint64_t meminfo(const char *field)
{
    char line[128];
    uint64_t kib = 0;
    FILE *f = fopen("/proc/meminfo", "re");
    if (!f)
        return 0;
    size_t n = strlen(field);
    while (fgets(line, sizeof line, f))
        if (strncmp(line, field, n) == 0 && line[n] == ':') {
            kib = strtoull(line + n + 1, NULL, 10);
            break;
        }
    fclose(f);
    return kib * 1024;
}

/* Bytes of file pages that a group's use counts although they go as soon as memory is wanted: a container that has read
 * files for a while always stands at its limit. */
static uint64_t cgroup_cache(const char *stat_path, bool v2)
{
    char line[128], name[64];
    unsigned long long v, sum = 0;
    FILE *f = fopen(stat_path, "re");
    if (!f)
        return 0;
    while (fgets(line, sizeof line, f))
        if (sscanf(line, "%63s %llu", name, &v) == 2 &&
            (strcmp(name, v2 ? "inactive_file" : "total_inactive_file") == 0 ||
             strcmp(name, v2 ? "active_file" : "total_active_file") == 0))
            sum += v;
    fclose(f);
    return sum;
}

/* The folder of this process's memory cgroup: v2 "0::/path", v1 "N:memory:/path". Inside a container the path may
 * not be visible: then the root of the mounted hierarchy is the container's own. */
static bool cgroup_limit(uint64_t *limit, uint64_t *used)
{
    char line[512], path[PATH_MAX];
    bool found = false;
    FILE *f = fopen("/proc/self/cgroup", "re");
    if (!f)
        return false;
    while (!found && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = 0;
        bool v2 = strncmp(line, "0::", 3) == 0;
        char *v1 = strstr(line, ":memory:");
        if (!v2 && !v1)
            continue;
        const char *sub = v2 ? line + 3 : v1 + 8;
        const char *root = v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory";
        const char *lim = v2 ? "memory.max" : "memory.limit_in_bytes";
        const char *use = v2 ? "memory.current" : "memory.usage_in_bytes";
        for (int own = 1; own >= 0 && !found; own--) {
            snprintf(path, sizeof path, "%s%s/%s", root, own ? sub : "", lim);
            if (!read_u64(path, limit))
                continue;
            snprintf(path, sizeof path, "%s%s/%s", root, own ? sub : "", use);
            if (!(found = read_u64(path, used)))
                continue;
            snprintf(path, sizeof path, "%s%s/memory.stat", root, own ? sub : "");
            uint64_t cache = cgroup_cache(path, v2);
            *used -= cache < *used ? cache : *used;
        }
    }
    fclose(f);
    return found;
}

uint64_t ht_os_ram_total(void)
{
    uint64_t total = meminfo("MemTotal"), limit, used;
    return cgroup_limit(&limit, &used) && limit < total ? limit : total;
}

uint64_t ht_os_ram_available(void)
{
    uint64_t available = meminfo("MemAvailable"), limit, used;
    if (cgroup_limit(&limit, &used) && limit < ht_os_ram_total() + 1) {
        uint64_t left = limit > used ? limit - used : 0;
        if (left < available)
            return left;
    }
    return available;
}

uint64_t ht_os_peak_rss(void)
{
    struct rusage ru;
    return getrusage(RUSAGE_SELF, &ru) == 0 ? (uint64_t)ru.ru_maxrss * 1024 : 0;
}

struct start {
    void (*fn)(void *);
    void *arg;
};

static void *run_thread(void *p)
{
    struct start s = *(struct start *)p;
    free(p);
    s.fn(s.arg);
    return NULL;
}

ht_status ht_os_thread_start(ht_os_thread *t, void (*fn)(void *), void *arg, const char *name)
{
    struct start *s = malloc(sizeof *s);
    sigset_t all, old;
    pthread_t h;

    if (!s)
        return HT_ENOMEM;
    *s = (struct start){ fn, arg };
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = pthread_create(&h, NULL, run_thread, s);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc != 0) {
        free(s);
        return HT_ENOMEM;
    }
    pthread_setname_np(h, name);
    t->handle = (uintptr_t)h;
    return HT_OK;
}

void ht_os_thread_join(ht_os_thread *t) { pthread_join((pthread_t)t->handle, NULL); }

void ht_os_yield(void) { sched_yield(); }

/* Three states (Drepper, "Futexes Are Tricky", mutex 2): 0 free, 1 held, 2 held and somebody may be waiting. */
void ht_os_lock(ht_os_mutex *m)
{
    uint32_t c = 0;
    if (atomic_compare_exchange_strong(&m->state, &c, 1))
        return;
    if (c != 2)
        c = atomic_exchange(&m->state, 2);
    while (c != 0) {
        ht_os_wait(&m->state, 2, 0);
        c = atomic_exchange(&m->state, 2);
    }
}

bool ht_os_try_lock(ht_os_mutex *m)
{
    uint32_t c = 0;
    return atomic_compare_exchange_strong(&m->state, &c, 1);
}

void ht_os_unlock(ht_os_mutex *m)
{
    if (atomic_exchange(&m->state, 0) == 2)
        ht_os_wake(&m->state, false);
}

void ht_os_wait(_Atomic uint32_t *word, uint32_t expected, uint32_t timeout_us)
{
    struct timespec ts = { timeout_us / 1000000, (long)(timeout_us % 1000000) * 1000 };
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, timeout_us ? &ts : NULL, NULL, 0);
}

void ht_os_wake(_Atomic uint32_t *word, bool all)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, all ? INT_MAX : 1, NULL, NULL, 0);
}
