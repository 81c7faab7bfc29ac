/* SPDX-License-Identifier: MIT
 *
 * Reads of files in two lanes: every way gives the file's bytes, the order of lanes, dropping, faults. No test depends
 * on how fast the disk is. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/os.h"
#include "engine/base/reader.h"

enum { FILE_BYTES = 3000123, OTHER_BYTES = 70001 };

static ht_error err;
static char paths[2][512];
static const char *const path_list[2] = { paths[0], paths[1] };

static uint8_t byte_at(uint32_t file, uint64_t i)
{
    uint64_t x = (i + 1) * (file ? 0x9e3779b97f4a7c15u : 0xc2b2ae3d27d4eb4fu);
    return (uint8_t)(x >> 56 ^ x >> 31);
}

static void write_file(uint32_t file, size_t bytes)
{
    /* Beside the tests and not in a folder for temporary files, which may lie in memory. */
    snprintf(paths[file], sizeof paths[file], HEARTH_BUILD_DIR "/test-reader-%d-%u", (int)getpid(), file);
    FILE *f = fopen(paths[file], "wb");
    cr_assert_not_null(f, "%s", paths[file]);
    for (size_t i = 0; i < bytes; i++)
        fputc(byte_at(file, i), f);
    cr_assert_eq(fclose(f), 0);
}

static void make_files(void)
{
    write_file(0, FILE_BYTES);
    write_file(1, OTHER_BYTES);
}

static void remove_files(void)
{
    remove(paths[0]);
    remove(paths[1]);
}

TestSuite(reader, .init = make_files, .fini = remove_files);

/* The four ways. A kernel without io_uring tries threads twice. */
static const struct way {
    ht_io io;
    bool no_uring;
} ways[] = { { HT_IO_DIRECT, false }, { HT_IO_DIRECT, true }, { HT_IO_CACHED, false }, { HT_IO_CACHED, true } };
enum { N_WAYS = sizeof ways / sizeof *ways };

static ht_reader *open_reader(int way, ht_reader_params p)
{
    ht_reader *r;
    p.paths = path_list;
    p.n_paths = 2;
    p.io = ways[way].io;
    p.no_uring = ways[way].no_uring;
    p.force_uring = !p.no_uring;
    cr_assert_eq(ht_reader_open(&r, &p, &err), HT_OK, "%s", err.text);
    cr_expect(!(p.no_uring && ht_reader_get_info(r).uring));
    cr_expect(!(p.io == HT_IO_CACHED && ht_reader_get_info(r).direct));
    return r;
}

/* A read with its buffer, and a page behind it that nobody may write to. */
static void set(ht_read *x, uint32_t file, uint64_t offset, size_t bytes)
{
    size_t room = ht_read_room(bytes);
    *x = (ht_read){ .file = file, .offset = offset, .bytes = bytes };
    x->to = aligned_alloc(HT_READ_ALIGN, room + HT_READ_ALIGN);
    cr_assert_not_null(x->to);
    memset(x->to, 0xee, room + HT_READ_ALIGN);
}

static void check_bytes(const ht_read *x)
{
    size_t room = ht_read_room(x->bytes), wrong = 0;
    for (size_t i = 0; i < x->bytes; i++)
        wrong += x->data[i] != byte_at(x->file, x->offset + i);
    cr_assert_eq(wrong, 0, "%zu of %zu bytes at %llu of file %u", wrong, x->bytes, (unsigned long long)x->offset,
                 x->file);
    for (size_t i = 0; i < HT_READ_ALIGN; i++)
        wrong += x->to[room + i] != 0xee;
    cr_assert_eq(wrong, 0, "%zu bytes at %llu: wrote behind the buffer", x->bytes, (unsigned long long)x->offset);
}

static void finish(ht_reader *r, ht_read *x)
{
    ht_status st;
    while ((st = ht_reader_wait(r, x, 100000, &err)) == HT_LATER)
        ;
    cr_assert_eq(st, HT_OK, "%s", err.text);
    cr_assert_eq(x->state, HT_READ_DONE);
    check_bytes(x);
    free(x->to);
}

static ht_status outcome(ht_reader *r, ht_read *x)
{
    ht_status st;
    while ((st = ht_reader_wait(r, x, 100000, &err)) == HT_LATER)
        ;
    return st;
}

static uint64_t seed;
static uint64_t below(uint64_t n)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (seed >> 33) % n;
}

Test(reader, exact_places)
{
    static const struct {
        uint64_t offset;
        size_t bytes;
    } cases[] = { { 0, 1 },
                  { 0, 4096 },
                  { 1, 4096 },
                  { 4095, 1 },
                  { 4095, 2 },
                  { 4096, 8192 },
                  { 8191, 16385 },
                  { 16384, 16384 },
                  { 0, FILE_BYTES },
                  { 77, FILE_BYTES - 77 },
                  { FILE_BYTES - 1, 1 },
                  { FILE_BYTES - 4097, 4097 },
                  { FILE_BYTES / 4096 * 4096, FILE_BYTES % 4096 },
                  { 5, 0 },
                  { FILE_BYTES, 0 } };
    for (int w = 0; w < N_WAYS; w++)
        for (uint32_t piece = 4096; piece <= 1 << 20; piece *= 16) {
            ht_reader *r = open_reader(w, (ht_reader_params){ .piece = piece, .depth = 3 });
            for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
                ht_read x;
                set(&x, 0, cases[i].offset, cases[i].bytes);
                ht_reader_submit(r, &x, i % 2);
                finish(r, &x);
            }
            ht_reader_close(r);
        }
}

/* Reads of both files come and go in both lanes, are hurried and dropped; whatever is done has the file's bytes. */
static void churn(ht_reader *r, uint32_t total)
{
    enum { AT_ONCE = 24 };
    ht_read reads[AT_ONCE];
    uint32_t submitted = 0, dropped = 0, at_once = 0, done = 0, ended = 0;
    bool used[AT_ONCE] = { false };
    while (done + dropped < total) {
        for (uint32_t i = 0; i < AT_ONCE; i++) {
            ht_read *x = &reads[i];
            if (!used[i] && submitted < total) {
                uint32_t file = below(4) == 0;
                uint64_t bytes_of = file ? OTHER_BYTES : FILE_BYTES, at = below(bytes_of);
                uint64_t most = below(8) == 0 ? bytes_of : 100000, bytes = 1 + below(most);
                set(x, file, at, bytes < bytes_of - at ? bytes : bytes_of - at);
                ht_reader_submit(r, x, below(2));
                submitted++;
                used[i] = true;
            } else if (used[i] && x->state == HT_READ_QUEUED) {
                if (below(16) == 0)
                    ht_reader_hurry(r, x);
                if (below(400) == 0 && ht_reader_drop(r, x) && x->state == HT_READ_IDLE)
                    at_once++;
            }
            if (used[i] && x->state != HT_READ_QUEUED) {
                if (x->state == HT_READ_DONE) {
                    check_bytes(x);
                    done++;
                } else {
                    cr_assert_eq(x->state, HT_READ_IDLE);
                    dropped++;
                }
                free(x->to);
                used[i] = false;
            }
        }
        ended += ht_reader_poll(r, below(2) ? 1000 : 0);
    }
    ended += ht_reader_poll(r, 0);
    cr_expect_eq(ended, done + dropped - at_once, "every end is counted once");
    cr_expect(done > total / 2);
}

Test(reader, many_random_reads)
{
    const bool slow = HEARTH_TEST_SANITIZE[0];
    for (int w = 0; w < N_WAYS; w++) {
        seed = 7 + (uint64_t)w;
        ht_reader *r = open_reader(w, (ht_reader_params){ .piece = 16384, .depth = 8, .threads = 3 });
        churn(r, slow ? 150 : 600);
        ht_reader_info info = ht_reader_get_info(r);
        cr_expect(info.bytes > 0 && info.pieces > 0 && info.busy_seconds > 0);
        ht_reader_close(r);
    }
}

static uint32_t open_files(void)
{
    uint32_t n = 0;
    for (int fd = 0; fd < 1024; fd++) {
        struct stat st;
        n += fstat(fd, &st) == 0;
    }
    return n;
}

Test(reader, thousands_of_reads_and_readers_leave_nothing_behind)
{
    const uint32_t files = open_files();
    const bool slow = HEARTH_TEST_SANITIZE[0];
    ht_read x;
    set(&x, 0, 0, 5000);
    uint64_t peak = 0;
    for (int w = 0; w < N_WAYS; w++) {
        ht_reader *r = open_reader(w, (ht_reader_params){ 0 });
        for (int i = 0; i < (slow ? 500 : 4000); i++) {
            x.offset = below(FILE_BYTES - 5000);
            ht_reader_submit(r, &x, i % 3 == 0);
            cr_assert_eq(outcome(r, &x), HT_OK, "%s", err.text);
            if (i == 100 && w == 0)
                peak = ht_os_peak_rss();
        }
        check_bytes(&x);
        ht_reader_close(r);
        for (int i = 0; i < 50; i++)
            ht_reader_close(open_reader(w, (ht_reader_params){ .depth = 4, .threads = 2 }));
        cr_expect_eq(open_files(), files);
    }
    if (!slow)
        cr_expect_lt(ht_os_peak_rss() - peak, 4u << 20);
    free(x.to);
}

/* ---- Lanes ---- */

enum { MOST_SEEN = 4000 };

/* What the readers' hook has seen, and what it shall do. */
typedef struct script {
    uint64_t seen[MOST_SEEN];
    uint32_t n;
    int (*act)(struct script *s, uint32_t file, uint64_t offset, size_t *bytes);
    uint64_t fault_at;
    int fault;
    uint32_t times;
} script;

static int hook(void *user, uint32_t file, uint64_t offset, size_t *bytes)
{
    script *s = user;
    if (s->n < MOST_SEEN)
        s->seen[s->n] = offset;
    s->n++;
    return s->act ? s->act(s, file, offset, bytes) : 0;
}

static uint32_t place(const script *s, uint64_t offset)
{
    for (uint32_t i = 0; i < s->n && i < MOST_SEEN; i++)
        if (s->seen[i] == offset)
            return i;
    return UINT32_MAX;
}

enum { PIECE = 4096, EACH = 16 * PIECE };

Test(reader, demand_overtakes_ahead)
{
    for (int w = 0; w < N_WAYS; w++) {
        script s = { .n = 0 };
        ht_reader *r = open_reader(
            w, (ht_reader_params){ .piece = PIECE, .depth = 8, .depth_ahead = 3, .fault = hook, .fault_user = &s });
        ht_read x[5];
        for (int i = 0; i < 5; i++) {
            set(&x[i], 0, (uint64_t)i * EACH, EACH);
            ht_reader_submit(r, &x[i], i < 3); /* 0, 1, 2 ahead; 3, 4 demand */
            if (i == 2)
                cr_expect_leq(s.n, 16 * 3, "ahead of reads");
        }
        uint32_t before = place(&s, 3 * EACH);
        ht_reader_hurry(r, &x[2]);
        ht_reader_hurry(r, &x[3]); /* is in a hurry already */
        for (int i = 0; i < 5; i++)
            finish(r, &x[i]);
        cr_assert_eq(s.n, 5 * 16);
        /* From the first piece of demand to the last one, in the order given, nothing else was handed out, but for the
         * hurried read behind them. */
        for (uint32_t i = 0; i < 32; i++)
            cr_expect_eq(s.seen[before + i], 3 * EACH + (uint64_t)i * PIECE);
        uint32_t late = place(&s, 2 * EACH);
        if (late > before) /* not handed out before it was hurried: before the rest of the others then */
            for (uint32_t i = 0; i < 16; i++)
                cr_expect_eq(s.seen[before + 32 + i], 2 * EACH + (uint64_t)i * PIECE);
        ht_reader_close(r);
    }
}

Test(reader, ahead_takes_a_few_pieces_only)
{
    /* One thread and no call that takes note: what is handed out by submit is all there can be. */
    for (int w = 0; w < N_WAYS; w++) {
        script s = { .n = 0 };
        ht_reader *r = open_reader(
            w, (ht_reader_params){ .piece = PIECE, .depth = 8, .depth_ahead = 3, .fault = hook, .fault_user = &s });
        ht_read x, y;
        set(&x, 0, 0, EACH);
        set(&y, 0, EACH, EACH);
        ht_reader_submit(r, &x, true);
        cr_expect_eq(s.n, 3);
        ht_reader_submit(r, &y, false);
        uint32_t n = place(&s, EACH);
        cr_expect(n >= 3 && n <= 16);
        finish(r, &y);
        finish(r, &x);
        ht_reader_close(r);
    }
}

Test(reader, drop)
{
    for (int w = 0; w < N_WAYS; w++) {
        script s = { .n = 0 };
        ht_reader *r =
            open_reader(w, (ht_reader_params){ .piece = PIECE, .depth = 2, .fault = hook, .fault_user = &s });
        ht_read x[3];
        for (int i = 0; i < 3; i++)
            set(&x[i], 0, (uint64_t)i * EACH, EACH);
        ht_reader_submit(r, &x[0], false);
        ht_reader_submit(r, &x[1], false);
        ht_reader_submit(r, &x[2], true);
        cr_expect(ht_reader_drop(r, &x[2]), "nothing of it is under way");
        cr_expect_eq(x[2].state, HT_READ_IDLE);
        cr_expect_eq(ht_reader_wait(r, &x[2], 0, &err), HT_OK, "nothing to wait for");
        if (!ht_reader_drop(r, &x[0])) {
            cr_expect_eq(x[0].state, HT_READ_QUEUED);
            cr_expect_eq(outcome(r, &x[0]), HT_OK);
        }
        cr_expect(x[0].state == HT_READ_IDLE, "it was too long to be over");
        cr_expect_eq(place(&s, 2 * EACH), UINT32_MAX);
        cr_expect_lt(s.n, 32);
        /* The same reads once more. */
        ht_reader_submit(r, &x[0], true);
        ht_reader_submit(r, &x[2], false);
        for (int i = 0; i < 3; i++)
            finish(r, &x[i]);
        cr_expect(ht_reader_drop(r, &x[0]) && x[0].state == HT_READ_DONE, "done is done");
        ht_reader_close(r);
    }
}

Test(reader, waiting_has_an_end)
{
    ht_reader *r = open_reader(0, (ht_reader_params){ .piece = PIECE, .depth = 1 });
    ht_read x;
    cr_expect_eq(ht_reader_poll(r, 1000000000), 0, "nothing to wait for");
    set(&x, 0, 0, FILE_BYTES);
    ht_reader_submit(r, &x, false);
    cr_expect_eq(ht_reader_wait(r, &x, 0, &err), HT_LATER);
    cr_expect_eq(ht_reader_wait(r, &x, 1, &err), HT_LATER, "700 pieces one after another");
    ht_reader_submit(r, &x, false); /* is queued already */
    finish(r, &x);
    ht_reader_close(r);
    ht_reader_close(NULL);
}

Test(reader, close_with_reads_under_way)
{
    for (int w = 0; w < N_WAYS; w++)
        for (int n = 1; n <= 40; n += 13) {
            ht_reader *r = open_reader(w, (ht_reader_params){ .piece = 16384, .depth = 8, .threads = 2 });
            ht_read x[40];
            for (int i = 0; i < n; i++) {
                set(&x[i], 0, below(FILE_BYTES - 200000), 200000);
                ht_reader_submit(r, &x[i], i % 4 == 3);
            }
            ht_reader_close(r);
            for (int i = 0; i < n; i++) {
                cr_expect(x[i].state == HT_READ_DONE || x[i].state == HT_READ_IDLE);
                if (x[i].state == HT_READ_DONE)
                    check_bytes(&x[i]);
                free(x[i].to);
            }
        }
}

/* ---- Threads ---- */

static void watch(void *arg)
{
    ht_read *x = arg;
    while (atomic_load_explicit(&x->state, memory_order_acquire) == HT_READ_QUEUED)
        ht_os_yield();
    check_bytes(x);
}

Test(reader, another_thread_looks_at_the_state)
{
    for (int w = 0; w < N_WAYS; w++) {
        ht_reader *r = open_reader(w, (ht_reader_params){ .piece = 65536 });
        ht_os_thread t;
        ht_read x;
        set(&x, 0, 12345, 1000000);
        ht_reader_submit(r, &x, false);
        cr_assert_eq(ht_os_thread_start(&t, watch, &x, "watch"), HT_OK);
        cr_assert_eq(outcome(r, &x), HT_OK, "%s", err.text);
        ht_os_thread_join(&t);
        free(x.to);
        ht_reader_close(r);
    }
}

typedef struct handed {
    ht_reader *r;
    ht_read *x;
    int n;
} handed;

static void submit_all(void *arg)
{
    handed *h = arg;
    for (int i = 0; i < h->n; i++)
        ht_reader_submit(h->r, &h->x[i], i % 2);
}

Test(reader, the_thread_that_submitted_ends)
{
    for (int w = 0; w < N_WAYS; w++)
        for (int round = 0; round < 10; round++) {
            ht_reader *r = open_reader(w, (ht_reader_params){ .piece = 65536 });
            ht_os_thread t;
            ht_read x[16];
            for (int i = 0; i < 16; i++)
                set(&x[i], 0, below(FILE_BYTES - 300000), 300000);
            handed h = { r, x, 16 };
            cr_assert_eq(ht_os_thread_start(&t, submit_all, &h, "submit"), HT_OK);
            ht_os_thread_join(&t);
            for (int i = 0; i < 16; i++)
                finish(r, &x[i]);
            ht_reader_close(r);
        }
}

/* ---- Faults ---- */

static int shorten(script *s, uint32_t file, uint64_t offset, size_t *bytes)
{
    (void)s;
    (void)file;
    (void)offset;
    if (*bytes > 3 * HT_READ_ALIGN)
        *bytes = HT_READ_ALIGN + 1 + below(*bytes - HT_READ_ALIGN - 1);
    return 0;
}

Test(reader, short_reads_go_on)
{
    for (int w = 0; w < N_WAYS; w++) {
        script s = { .act = shorten };
        seed = 99;
        ht_reader *r =
            open_reader(w, (ht_reader_params){ .piece = 65536, .depth = 8, .fault = hook, .fault_user = &s });
        churn(r, 100);
        ht_reader_close(r);
    }
}

static int one_byte(script *s, uint32_t file, uint64_t offset, size_t *bytes)
{
    (void)s;
    (void)file;
    (void)offset;
    *bytes = 1;
    return 0;
}

Test(reader, a_byte_at_a_time)
{
    script s = { .act = one_byte };
    ht_reader *r = open_reader(3, (ht_reader_params){ .fault = hook, .fault_user = &s });
    ht_read x;
    set(&x, 0, 4000, 2000);
    ht_reader_submit(r, &x, false);
    finish(r, &x);
    cr_expect_eq(s.n, 2000);
    ht_reader_close(r);
}

static int fail_at(script *s, uint32_t file, uint64_t offset, size_t *bytes)
{
    (void)bytes;
    if (file != 0 || offset / PIECE != s->fault_at / PIECE || s->times == 0)
        return 0;
    s->times--;
    return s->fault;
}

/* A read over the whole file of which one piece fails; reads beside it do not; after the fault the same read is right.
 */
Test(reader, a_failing_piece)
{
    for (int w = 0; w < N_WAYS; w++)
        for (uint32_t k = 0; k < 4; k++) {
            script s = { .act = fail_at, .fault = EIO, .times = 1, .fault_at = (uint64_t)k * 200 * PIECE };
            ht_reader *r =
                open_reader(w, (ht_reader_params){ .piece = PIECE, .depth = 8, .fault = hook, .fault_user = &s });
            ht_read x, beside, other;
            set(&x, 0, 5, FILE_BYTES - 5);
            set(&beside, 0, 100000, 50000);
            set(&other, 1, 0, OTHER_BYTES);
            ht_reader_submit(r, &x, false);
            ht_reader_submit(r, &beside, false);
            ht_reader_submit(r, &other, true);
            cr_assert_eq(outcome(r, &x), HT_EIO);
            cr_expect_eq(x.state, HT_READ_FAILED);
            cr_expect(strstr(err.text, paths[0]) && strstr(err.text, strerror(EIO)), "%s", err.text);
            cr_expect_eq(err.offset / PIECE, k * 200u, "%s", err.text);
            err.text[0] = 0;
            cr_expect_eq(ht_reader_wait(r, &x, 0, &err), HT_EIO, "asked again, the same");
            cr_expect(strstr(err.text, paths[0]));
            finish(r, &beside);
            finish(r, &other);
            ht_reader_submit(r, &x, false);
            finish(r, &x);
            ht_reader_close(r);
        }
}

Test(reader, interrupted_and_busy_are_repeated)
{
    static const int errors[] = { EINTR, EAGAIN, ECANCELED };
    for (int w = 0; w < N_WAYS; w++)
        for (int e = 0; e < 3; e++) {
            script s = { .act = fail_at, .fault = errors[e], .times = 20, .fault_at = 8 * PIECE };
            ht_reader *r = open_reader(w, (ht_reader_params){ .piece = PIECE, .fault = hook, .fault_user = &s });
            ht_read x;
            set(&x, 0, 0, EACH);
            ht_reader_submit(r, &x, false);
            finish(r, &x);
            cr_expect_eq(s.times, 0);
            s.times = UINT32_MAX; /* for ever: an error, no endless loop */
            set(&x, 0, 0, EACH);
            ht_reader_submit(r, &x, false);
            cr_expect_eq(outcome(r, &x), HT_EIO);
            cr_expect(strstr(err.text, strerror(errors[e])), "%s", err.text);
            free(x.to);
            ht_reader_close(r);
        }
}

Test(reader, direct_reads_refused)
{
    for (int w = 0; w < N_WAYS; w++) {
        script s = { .act = fail_at, .fault = EINVAL, .times = 1, .fault_at = 8 * PIECE };
        ht_reader *r =
            open_reader(w, (ht_reader_params){ .piece = PIECE, .depth = 4, .fault = hook, .fault_user = &s });
        const bool direct = ht_reader_get_info(r).direct;
        ht_read x;
        set(&x, 0, 77, FILE_BYTES - 77);
        ht_reader_submit(r, &x, false);
        if (direct) {
            finish(r, &x);
            cr_expect(!ht_reader_get_info(r).direct, "through the page cache from then on");
            s.times = 1;
            set(&x, 0, 78, FILE_BYTES - 78);
            ht_reader_submit(r, &x, false);
        }
        cr_expect_eq(outcome(r, &x), HT_EIO, "the page cache has no such excuse");
        cr_expect(strstr(err.text, strerror(EINVAL)), "%s", err.text);
        free(x.to);
        ht_reader_close(r);
    }
}

Test(reader, a_file_that_is_cut)
{
    enum { CUT = 1000001 };
    for (int w = 0; w < N_WAYS; w++) {
        write_file(0, FILE_BYTES);
        ht_reader *r = open_reader(w, (ht_reader_params){ .piece = 65536 });
        ht_read x, y, z;
        set(&x, 0, 500000, CUT - 500000); /* all that is left */
        set(&y, 0, 500000, CUT - 500000 + 1);
        set(&z, 0, 2000000, 10);
        cr_assert_eq(truncate(paths[0], CUT), 0);
        ht_reader_submit(r, &x, false);
        finish(r, &x);
        ht_reader_submit(r, &y, false);
        cr_expect_eq(outcome(r, &y), HT_EIO);
        cr_expect(strstr(err.text, paths[0]) && strstr(err.text, "ends"), "%s", err.text);
        cr_expect_eq(err.offset, CUT, "%s", err.text);
        ht_reader_submit(r, &z, false);
        cr_expect_eq(outcome(r, &z), HT_EIO);
        free(y.to);
        free(z.to);
        ht_reader_close(r);
    }
}

Test(reader, a_file_that_is_replaced)
{
    for (int w = 0; w < N_WAYS; w++) {
        char other[600];
        write_file(0, FILE_BYTES);
        ht_reader *r = open_reader(w, (ht_reader_params){ 0 });
        snprintf(other, sizeof other, "%s.new", paths[0]);
        FILE *f = fopen(other, "wb");
        cr_assert(f && fputc('x', f) == 'x' && fclose(f) == 0);
        cr_assert_eq(rename(other, paths[0]), 0);
        ht_read x;
        set(&x, 0, 1000, 2000000);
        ht_reader_submit(r, &x, false);
        finish(r, &x); /* what was opened is still there */
        ht_reader_close(r);
    }
}

Test(reader, what_cannot_be_read)
{
    const char *bad[] = { "/nonexistent/model.gguf", "/", "/dev/null" };
    ht_reader *r;
    for (int i = 0; i < 3; i++) {
        ht_reader_params p = { .paths = (const char *[]){ paths[0], bad[i] }, .n_paths = 2, .io = HT_IO_DIRECT };
        cr_expect_eq(ht_reader_open(&r, &p, &err), HT_EIO);
        cr_expect(!r && strstr(err.text, bad[i]), "%s", err.text);
    }
    ht_reader_params p = { .paths = path_list, .n_paths = 2, .io = HT_IO_MMAP };
    cr_expect_eq(ht_reader_open(&r, &p, &err), HT_EINVAL);
    p.io = HT_IO_CACHED;
    p.piece = 4097;
    cr_expect_eq(ht_reader_open(&r, &p, &err), HT_EINVAL);
    p.piece = 0;
    cr_assert_eq(ht_reader_open(&r, &p, &err), HT_OK, "%s", err.text);
    ht_read x;
    set(&x, 2, 0, 10);
    ht_reader_submit(r, &x, false);
    cr_expect_eq(ht_reader_poll(r, 1000000), 1);
    cr_expect_eq(ht_reader_wait(r, &x, 0, &err), HT_EIO, "no such file");
    x.file = 0;
    x.offset = UINT64_MAX - 5;
    ht_reader_submit(r, &x, true);
    cr_expect_eq(ht_reader_wait(r, &x, 0, &err), HT_EIO, "no such place");
    x.offset = INT64_MAX - 20000;
    ht_reader_submit(r, &x, true);
    cr_expect_eq(outcome(r, &x), HT_EIO, "behind the end");
    free(x.to);
    ht_reader_close(r);
}

/* ---- What is faster ---- */

Test(reader, choose)
{
    ht_reader_choice c;
    cr_expect_eq(ht_reader_choose(&c, "/nonexistent", 1 << 20, 0, &err), HT_EIO);
    const uint64_t rooms[] = { 0, FILE_BYTES / 2, UINT64_MAX };
    const size_t sizes[] = { 1, 100000, 1 << 20, SIZE_MAX };
    for (int i = 0; i < 3; i++)
        for (int k = 0; k < 4; k++) {
            cr_assert_eq(ht_reader_choose(&c, paths[0], sizes[k], rooms[i], &err), HT_OK, "%s", err.text);
            cr_expect(c.io == HT_IO_DIRECT || c.io == HT_IO_CACHED);
            cr_expect(k == 3 || c.cached_bytes_per_s > 0, "a file of 3 MB has places of %zu bytes", sizes[k]);
            cr_expect(!(c.io == HT_IO_DIRECT && k < 3) || c.direct_bytes_per_s > 0);
            cr_expect(c.expected_bytes_per_s >= c.direct_bytes_per_s || c.io == HT_IO_DIRECT);
        }
    write_file(1, 0);
    cr_expect_eq(ht_reader_choose(&c, paths[1], 1 << 20, 0, &err), HT_OK, "an empty file: %s", err.text);
}
