/* SPDX-License-Identifier: MIT
 *
 * The operating system layer: maps, address space, memory figures, threads, locks, sleeping. */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/os.h"

static ht_error err;

Test(os, maps)
{
    char path[64];
    ht_os_map m;
    snprintf(path, sizeof path, P_tmpdir "/hearth-os-%d", (int)getpid());
    FILE *f = fopen(path, "wb");
    cr_assert_not_null(f);
    for (int i = 0; i < 10000; i++)
        fputc(i & 255, f);
    fclose(f);
    cr_assert_eq(ht_os_map_open(&m, path, &err), HT_OK, "%s", err.text);
    cr_expect_eq(m.bytes, 10000);
    for (int i = 0; i < 10000; i++)
        cr_assert_eq(m.data[i], i & 255);
    ht_os_prefer_large(m.data, 10000);
    ht_os_will_need(m.data + 5000, 100);
    cr_expect(ht_os_populate(m.data, 10000) && ht_os_populate(m.data + 5000, 100));
    cr_expect_eq(ht_os_map_size_now(&m), 10000);
    cr_assert_eq(truncate(path, 5000), 0);
    cr_expect_eq(ht_os_map_size_now(&m), 5000, "a file that was cut");
    ht_os_map_close(&m);
    ht_os_map_close(&m);
    cr_assert_eq(truncate(path, 0), 0);
    cr_assert_eq(ht_os_map_open(&m, path, &err), HT_OK, "an empty file: %s", err.text);
    cr_expect(m.bytes == 0 && !m.data);
    ht_os_map_close(&m);
    cr_expect(!ht_os_is_special(path));
    remove(path);
    cr_expect_eq(ht_os_map_open(&m, path, &err), HT_EIO);
    cr_expect(strstr(err.text, path), "%s", err.text);
    cr_expect_eq(ht_os_map_open(&m, "/", &err), HT_EIO, "a folder");
    cr_expect_eq(ht_os_map_open(&m, "/dev/null", &err), HT_EIO, "a device");
    cr_expect(ht_os_is_special("/dev/null") && ht_os_is_special("/") && !ht_os_is_special(path));
    cr_assert_eq(mkfifo(path, 0600), 0);
    cr_expect_eq(ht_os_map_open(&m, path, &err), HT_EIO, "a pipe without a writer is refused, not waited for");
    remove(path);
    ht_os_map zero = { 0 };
    ht_os_map_close(&zero);
}

Test(os, address_space)
{
    size_t page = ht_os_page(), bytes = 1000 * page;
    cr_assert(page >= 4096 && (page & (page - 1)) == 0);
    uint8_t *p = ht_os_reserve(bytes);
    cr_assert_not_null(p);
    for (size_t i = 0; i < bytes; i += page)
        cr_assert_eq(p[i], 0);
    memset(p, 1, bytes);
    ht_os_decommit(p + page, 10 * page);
    cr_expect(p[page - 1] == 1 && p[page] == 0 && p[11 * page - 1] == 0 && p[11 * page] == 1);
    ht_os_release(p, bytes);
    ht_os_release(NULL, 0);
    cr_expect_null(ht_os_reserve((size_t)1 << 60));
}

Test(os, figures)
{
    double t = ht_os_now();
    uint64_t total = ht_os_ram_total(), free_now = ht_os_ram_available(), peak = ht_os_peak_rss();
    cr_expect(total > 64u << 20 && free_now <= total, "%llu of %llu", (unsigned long long)free_now,
              (unsigned long long)total);
    cr_expect(peak > 1u << 20 && peak < total);
    cr_expect(ht_os_now() >= t);
    cr_expect_eq(ht_os_disk_bandwidth("/nonexistent"), 0.0);
}

typedef struct shared {
    ht_os_mutex lock;
    uint64_t n;
    _Atomic uint32_t word, awake;
    _Atomic bool blocked;
} shared;

static void count(void *arg)
{
    shared *s = arg;
    for (int i = 0; i < 20000; i++) {
        ht_os_lock(&s->lock);
        s->n++;
        ht_os_unlock(&s->lock);
    }
}

Test(os, lock)
{
    shared s = { 0 };
    ht_os_thread t[4];
    for (int i = 0; i < 4; i++)
        cr_assert_eq(ht_os_thread_start(&t[i], count, &s, "count"), HT_OK);
    for (int i = 0; i < 4; i++)
        ht_os_thread_join(&t[i]);
    cr_expect_eq(s.n, 80000);
    cr_expect_eq(s.lock.state, 0);
}

static void sleeper(void *arg)
{
    shared *s = arg;
    sigset_t set;
    pthread_sigmask(SIG_BLOCK, NULL, &set);
    atomic_store(&s->blocked, sigismember(&set, SIGINT) == 1 && sigismember(&set, SIGUSR1) == 1);
    while (atomic_load(&s->word) == 0)
        ht_os_wait(&s->word, 0, 0);
    atomic_fetch_add(&s->awake, 1);
}

Test(os, wait_and_wake)
{
    shared s = { 0 };
    ht_os_thread t[3];
    for (int i = 0; i < 3; i++)
        cr_assert_eq(ht_os_thread_start(&t[i], sleeper, &s, "a name longer than fifteen characters"), HT_OK);
    usleep(20000);
    cr_expect_eq(s.awake, 0);
    atomic_store(&s.word, 1);
    ht_os_wake(&s.word, true);
    for (int i = 0; i < 3; i++)
        ht_os_thread_join(&t[i]);
    cr_expect_eq(s.awake, 3);
    cr_expect(s.blocked, "signals belong to the application's threads");
    double t0 = ht_os_now();
    ht_os_wait(&s.word, 1, 30000);
    cr_expect(ht_os_now() - t0 > 0.02, "a limit of 30 ms");
    ht_os_wait(&s.word, 5, 0); /* another value: does not sleep */
    ht_os_yield();
}
