/* SPDX-License-Identifier: MIT
 *
 * Models streamed from their file: whatever is in memory, however it is read and whatever is foreseen, logits are those of
 * the same model fully resident, bit by bit; faults end with a sentence and leave the model usable; memory stays under the
 * budget. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "tests/engine/stream_util.h"

static void golden(const char *name, bool thorough)
{
    char path[512], file[64];
    snprintf(file, sizeof file, "%s.gguf", name);
    same_bits(util_golden(path, file), name, thorough);
}

Test(stream, demo_mixture) { same_bits(HEARTH_MODEL_DIR "/hearth-story-moe.gguf", "story-moe", false); }
Test(stream, smallthinker) { golden("smallthinker", true); }
Test(stream, mixtral) { golden("mixtral", true); }
Test(stream, shared_experts) { golden("qwen2_moe", true); }
Test(stream, qwen3_moe) { golden("qwen3_moe", true); }
Test(stream, biases) { golden("gpt_oss", true); }
Test(stream, recurrent) { golden("qwen3_next", false); }
Test(stream, others)
{
    golden("olmoe", false);
    golden("granitemoe", false);
}
Test(stream, dense)
{
    golden("llama", true);
    golden("llama_relu2", false);
    golden("bitnet", false);
    golden("phi3", false);
    golden("falcon", false);
    golden("gpt2", false);
    same_bits(HEARTH_MODEL_DIR "/hearth-story.gguf", "story", false);
}

/* Weights that are looked at besides the computing, and those that must not be exchanged. */
Test(stream, what_else_reads_weights)
{
    char path[512];
    hearth_model *m[2];
    hearth_error err = { 0 };
    char name[2][33];
    float row[2][4096];

    util_golden(path, "qwen3_moe.gguf");
    for (int i = 0; i < 2; i++) {
        hearth_model_params p = { .size = sizeof p, .threads = 1, .sparsity = HEARTH_SPARSITY_OFF,
                                  .io = i ? HEARTH_IO_DIRECT : HEARTH_IO_MMAP };
        cr_assert_eq(hearth_model_open(&m[i], path, &p, &err), HEARTH_OK, "%s", err.text);
        cr_assert_eq(hearth_model_fingerprint(m[i], name[i], &err), HEARTH_OK);
        cr_assert_eq(hearth_model_read_rows(m[i], 0, 1, HEARTH_ROLE_DOWN, 0, 1, row[i], &err), HEARTH_OK, "%s", err.text);
    }
    hearth_block_info b = { .size = sizeof b };
    hearth_model_get_block(m[1], 0, &b);
    cr_assert(b.n_ff <= 4096 && memcmp(row[0], row[1], b.n_ff * sizeof(float)) == 0);
    cr_assert_str_eq(name[0], name[1]);
    cr_assert_eq(hearth_model_replace(m[1], 0, 1, HEARTH_ROLE_DOWN, NULL, NULL, 0, &err), HEARTH_EINVAL);
    cr_assert_eq(hearth_model_replace(m[0], 0, 1, HEARTH_ROLE_DOWN, NULL, NULL, 0, &err), HEARTH_OK);
    hearth_model_close(&m[0]);
    hearth_model_close(&m[1]);
}

/* ---- faults ---- */

typedef struct trouble {
    uint64_t n;               /* reads so far */
    uint64_t fail_from, fail_to; /* these fail */
    bool shorten;
    hearth_session *cancel;   /* cancelled by the read that would fail */
} trouble;

static int make_trouble(void *user, uint32_t file, uint64_t offset, size_t *bytes)
{
    trouble *t = user;

    (void)file;
    (void)offset;
    const bool now = t->n >= t->fail_from && t->n < t->fail_to;
    t->n++;
    if (t->shorten && *bytes > 8192 && t->n % 3)
        *bytes = 4096;
    if (now && t->cancel) {
        hearth_session_cancel(t->cancel);
        return 0;
    }
    return now ? EIO : 0;
}

static const char *moe_path(char path[512]) { return util_golden(path, "qwen3_moe.gguf"); }

Test(stream, short_reads)
{
    char path[512];
    size_t n, n2;
    how h = { .p = { .threads = 1, .io = HEARTH_IO_MMAP } };
    float *want = logits_of(moe_path(path), h, &n, NULL);
    for (int uring = 0; uring < 2; uring++) {
        trouble t = { .shorten = true };
        h.p.io = uring ? HEARTH_IO_DIRECT : HEARTH_IO_CACHED;
        h.hooks = (ht_disk_params){ .no_uring = !uring, .fault = make_trouble, .fault_user = &t };
        float *got = logits_of(path, h, &n2, NULL);
        cr_expect_arr_eq(got, want, n, "uring %d", uring);
        cr_expect_gt(t.n, 0);
        free(got);
    }
    free(want);
}

/* Whichever read fails: a sentence with file and offset, and the same session goes on when the disk is well again. */
Test(stream, a_failing_disk)
{
    enum { N = 12 };
    char path[512];
    hearth_error err;
    hearth_model *m = util_open(moe_path(path), (hearth_model_params){ .threads = 1, .io = HEARTH_IO_MMAP });
    const uint32_t v = util_n_vocab(m);
    int32_t ids[N];
    float *want = malloc((size_t)N * v * sizeof *want), *got = malloc((size_t)N * v * sizeof *got);
    hearth_session *s = util_session(m, 64, 16, HEARTH_KV_F16);

    for (uint32_t i = 0; i < N; i++)
        ids[i] = (int32_t)(i * 5 % v);
    feed(s, ids, N, want, v);
    hearth_session_close(&s);
    hearth_model_close(&m);
    uint32_t failed = 0;
    for (uint64_t at = 0; at < 40; at += util_sanitized() ? 7 : 1)
        for (int what = 0; what < 2; what++) {
            trouble t = { .fail_from = UINT64_MAX, .fail_to = UINT64_MAX };
            how h = { .p = { .threads = 2, .io = HEARTH_IO_DIRECT, .prefetch = HEARTH_PREFETCH_ON },
                      .hooks = { .fault = make_trouble, .fault_user = &t } };
            m = open_how(path, h);
            s = session_how(m, h);
            t.fail_from = t.n + at;
            t.fail_to = t.fail_from + (what ? 1 : 3);
            t.cancel = what ? s : NULL;
            uint32_t done = 0, faults = 0;
            while (done < N) {
                const uint32_t n = done ? 1 : N / 2;
                struct util_rows rows = { got + (size_t)done * v, v };
                const hearth_status st = hearth_session_feed(s, ids + done, n, util_store_row, &rows, &err);
                if (st == HEARTH_OK) {
                    done += n;
                    continue;
                }
                cr_assert_lt(++faults, 6u, "read %d: %s", (int)at, err.text);
                cr_assert_eq(st, what ? HEARTH_ECANCELLED : HEARTH_EIO, "read %d: %s", (int)at, err.text);
                cr_expect(what || (strstr(err.text, "qwen3_moe.gguf") && err.offset != UINT64_MAX), "%s", err.text);
                hearth_session_uncancel(s);
            }
            failed += faults;
            cr_expect_arr_eq(got, want, (size_t)N * v * sizeof *want, "read %d", (int)at);
            hearth_session_close(&s);
            hearth_model_close(&m);
        }
    cr_expect_gt(failed, 0u);
    free(want);
    free(got);
}

/* Conversations come and go while another one computes: what they take or return waits for no pass. Opened from within a
 * pass's read, where a wait would never end. */
typedef struct visitor {
    hearth_model *m;
    uint32_t left, seen;
} visitor;

static int visit(void *user, uint32_t file, uint64_t offset, size_t *bytes)
{
    visitor *v = user;
    hearth_session_params p = { .size = sizeof p, .n_ctx = 64, .batch = 4 };
    hearth_session *s;
    hearth_error err;

    (void)file;
    (void)offset;
    (void)bytes;
    if (v->m && v->left) {
        v->left--;
        cr_assert_eq(hearth_session_open(&s, v->m, &p, &err), HEARTH_OK, "%s", err.text);
        hearth_session_close(&s);
        v->seen++;
    }
    return 0;
}

Test(stream, conversations_come_and_go_during_a_pass)
{
    char path[512];
    visitor v = { .left = 20 };
    how h = { .p = { .threads = 1, .io = HEARTH_IO_DIRECT }, .hooks = { .fault = visit, .fault_user = &v } };
    hearth_model *m = open_how(moe_path(path), h);
    hearth_session *s = session_how(m, h);
    int32_t ids[10] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 };
    hearth_error err;

    v.m = m;
    for (int i = 0; i < 10; i++)
        cr_assert_eq(hearth_session_feed(s, ids + i, 1, NULL, NULL, &err), HEARTH_OK, "%s", err.text);
    cr_expect_gt(v.seen, 0u);
    v.m = NULL;
    cr_assert_eq(hearth_session_feed(s, ids, 1, NULL, NULL, &err), HEARTH_OK, "%s", err.text);
    cr_expect_eq(m->slots, ht_disk_budget(m->store.disk));
    hearth_session_close(&s);
    hearth_model_close(&m);
}

/* A disk that gives a page at a time, and that seldom: right answers, and who cancels is heard between any two. */
typedef struct slow {
    hearth_session *s;
    uint64_t n, cancel_at;
} slow;

static int slowly(void *user, uint32_t file, uint64_t offset, size_t *bytes)
{
    slow *t = user;
    _Atomic uint32_t never = 0;

    (void)file;
    (void)offset;
    if (*bytes > 8192)
        *bytes = 8192;
    if (t->s && t->n++ == t->cancel_at)
        hearth_session_cancel(t->s);
    if (t->s && t->n % 16 == 0)
        ht_os_wait(&never, 0, 1000);
    return 0;
}

Test(stream, a_slow_disk, .timeout = 300)
{
    enum { N = 9 };
    char path[512];
    int32_t ids[N] = { 3, 1, 4, 1, 5, 9, 2, 6, 5 };
    hearth_error err;
    hearth_model *m = util_open(moe_path(path), (hearth_model_params){ .threads = 1, .io = HEARTH_IO_MMAP });
    const uint32_t v = util_n_vocab(m);
    float *want = util_logits(m, ids, N, 16, HEARTH_KV_F16), *got = malloc((size_t)N * v * sizeof *got);

    hearth_model_close(&m);
    for (uint64_t at = 0; at < 300; at += 43)
        for (int prefetch = 0; prefetch < 2; prefetch++) {
            slow t = { .cancel_at = at };
            how h = { .p = { .threads = 1, .io = HEARTH_IO_DIRECT, .prefetch = prefetch ? HEARTH_PREFETCH_ON : HEARTH_PREFETCH_OFF },
                      .hooks = { .fault = slowly, .fault_user = &t } };
            m = open_how(path, h);
            hearth_session *s = session_how(m, h);
            t.s = s;
            uint32_t done = 0, stops = 0;
            while (done < N) {
                const uint32_t n = done ? 1 : 4;
                struct util_rows rows = { got + (size_t)done * v, v };
                const hearth_status st = hearth_session_feed(s, ids + done, n, util_store_row, &rows, &err);
                if (st == HEARTH_OK) {
                    done += n;
                    continue;
                }
                cr_assert_eq(st, HEARTH_ECANCELLED, "%s", err.text);
                cr_assert_eq(++stops, 1u);
                hearth_session_uncancel(s);
            }
            cr_expect_arr_eq(got, want, (size_t)N * v * sizeof *want, "cancelled at read %d", (int)at);
            hearth_session_close(&s);
            hearth_model_close(&m);
        }
    free(want);
    free(got);
}

/* A file system that takes the flag for direct reads and then refuses them. */
static int refuse_direct(void *user, uint32_t file, uint64_t offset, size_t *bytes)
{
    uint32_t *n = user;

    (void)file;
    (void)offset;
    (void)bytes;
    return (*n)++ == 0 ? EINVAL : 0;
}

Test(stream, direct_reads_refused)
{
    char path[512];
    size_t n, n2;
    how h = { .p = { .threads = 1, .io = HEARTH_IO_MMAP } };
    float *want = logits_of(moe_path(path), h, &n, NULL);
    uint32_t reads = 0;

    h.p.io = HEARTH_IO_DIRECT;
    h.hooks = (ht_disk_params){ .fault = refuse_direct, .fault_user = &reads };
    float *got = logits_of(path, h, &n2, NULL);
    cr_expect_arr_eq(got, want, n, "after EINVAL");
    free(got);
    free(want);
}

/* What a small budget is told agrees with itself, and speaks of what the model has. */
static void refused(const char *file, const char *has, const char *has_not)
{
    char path[512];
    hearth_error err;
    uint32_t n = 0;

    for (uint64_t ram = 10000; ram < 8u << 20; ram += 33333) {
        hearth_model *m;
        hearth_model_params p = { .size = sizeof p, .threads = 1, .ram_bytes = ram, .io = HEARTH_IO_DIRECT };
        if (hearth_model_open(&m, util_golden(path, file), &p, &err) == HEARTH_OK) {
            hearth_model_close(&m);
            break;
        }
        const char *least = strstr(err.text, "at least "), *more = strstr(err.text, "that is ");
        const char *given = strstr(err.text, "than the ");
        double a, b, c;
        cr_assert(least && more && given, "%s", err.text);
        a = strtod(least + 9, NULL);
        b = strtod(more + 8, NULL);
        c = strtod(given + 9, NULL);
        cr_expect(b > 0.05 && fabs(a - b - c) < 0.01 && c * (1 << 20) <= (double)ram, "%s", err.text);
        cr_expect(strstr(err.text, has) && !strstr(err.text, has_not), "%s", err.text);
        n++;
    }
    cr_expect_gt(n, 3u);
}

Test(stream, small_budgets_are_told)
{
    refused("qwen3_moe.gguf", "experts", "blocks");
    refused("llama.gguf", "blocks", "experts");
}

static void copy_file(const char *from, const char *to)
{
    char buf[1 << 16];
    size_t n;
    FILE *a = fopen(from, "rb"), *b = fopen(to, "wb");
    cr_assert(a && b);
    while ((n = fread(buf, 1, sizeof buf, a)) > 0)
        cr_assert_eq(fwrite(buf, 1, n, b), n);
    fclose(a);
    fclose(b);
}

Test(stream, a_file_that_changes)
{
    static const char file[] = HEARTH_BUILD_DIR "/stream-changes.gguf", other[] = HEARTH_BUILD_DIR "/stream-other.gguf";
    char path[512];
    struct stat st;
    int32_t ids[2] = { 1, 2 };
    hearth_error err;

    for (int how_changed = 0; how_changed < 3; how_changed++) {
        copy_file(moe_path(path), file);
        how h = { .p = { .threads = 1, .io = HEARTH_IO_DIRECT } };
        hearth_model *m = open_how(file, h);
        hearth_session *s = session_how(m, h);
        cr_assert_eq(hearth_session_feed(s, ids, 1, NULL, NULL, &err), HEARTH_OK, "%s", err.text);
        cr_assert_eq(stat(file, &st), 0);
        if (how_changed == 0) {
            cr_assert_eq(truncate(file, st.st_size / 2), 0);
        } else if (how_changed == 1) {
            const struct timespec times[2] = { { 1, 0 }, { 1, 0 } };
            cr_assert_eq(utimensat(AT_FDCWD, file, times, 0), 0);
        } else { /* another file under this name: the old one is still read */
            copy_file(HEARTH_MODEL_DIR "/hearth-story.gguf", other);
            cr_assert_eq(rename(other, file), 0);
        }
        const hearth_status got = hearth_session_feed(s, ids + 1, 1, NULL, NULL, &err);
        cr_expect_eq(got, how_changed < 2 ? HEARTH_EIO : HEARTH_OK, "%d: %s", how_changed, err.text);
        cr_expect(got == HEARTH_OK || strstr(err.text, "stream-changes.gguf"), "%s", err.text);
        hearth_session_close(&s);
        hearth_model_close(&m);
        remove(file);
    }
}

/* ---- budgets ---- */

/* Memory that is accounted for never exceeds the budget, and too small a one is refused with what it would take. */
Test(stream, budgets_are_kept)
{
    static const char path[] = HEARTH_MODEL_DIR "/hearth-story-moe.gguf";
    hearth_session_params sp = { .size = sizeof sp, .n_ctx = 64, .batch = 16 };
    hearth_session *s, *more;
    hearth_error err;
    int32_t ids[40];
    uint32_t opened = 0;

    for (uint32_t i = 0; i < 40; i++)
        ids[i] = (int32_t)(i * 11 % 500);
    for (uint64_t ram = 1 << 20; ram < 40u << 20; ram += 1 << 20) {
        hearth_model *m;
        hearth_model_params p = { .size = sizeof p, .threads = 1, .ram_bytes = ram };
        if (hearth_model_open(&m, path, &p, &err) != HEARTH_OK) {
            cr_expect_eq(err.status, HEARTH_ENOMEM, "%s", err.text);
            cr_expect(strstr(err.text, "MiB more"), "%s", err.text);
            cr_assert_eq(opened, 0, "a larger budget does too: %s", err.text);
            continue;
        }
        opened++;
        if (!m->store.disk || hearth_session_open(&s, m, &sp, &err) != HEARTH_OK) {
            hearth_model_close(&m);
            continue;
        }
        const ht_disk *d = m->store.disk;
        const uint64_t fixed = m->needs.held + m->exec_bytes + m->table_bytes;
        cr_assert_eq(hearth_session_feed(s, ids, 20, NULL, NULL, &err), HEARTH_OK, "%s", err.text);
        for (uint32_t i = 20; i < 40; i++) {
            cr_assert_eq(hearth_session_feed(s, ids + i, 1, NULL, NULL, &err), HEARTH_OK, "%s", err.text);
            cr_expect(d->committed <= d->budget && d->used <= d->budget);
            cr_expect(fixed + m->reserved + d->committed <= ram);
        }
        const uint64_t alone = d->budget;
        if (hearth_session_open(&more, m, &sp, &err) == HEARTH_OK) { /* a second conversation takes from the experts */
            cr_expect(d->budget < alone || d->budget == m->needs.all);
            cr_expect(fixed + m->reserved + d->committed <= ram);
            cr_assert_eq(hearth_session_feed(more, ids, 20, NULL, NULL, &err), HEARTH_OK, "%s", err.text);
            hearth_session_close(&more);
            cr_expect_eq(d->budget, alone);
        }
        hearth_session_close(&s);
        hearth_model_close(&m);
    }
    cr_expect_gt(opened, 2u);
}

/* ---- heat ---- */

Test(stream, heat_is_kept)
{
    static const char heat[] = HEARTH_BUILD_DIR "/stream-heat.gguf";
    char path[512];
    how h = { .p = { .threads = 1, .io = HEARTH_IO_DIRECT } };
    int32_t ids[12] = { 1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 1, 2 };
    hearth_error err;
    float *before, *after;

    remove(heat);
    hearth_model *m = open_how(moe_path(path), h);
    cr_assert_eq(hearth_model_heat(m, heat, &err), HEARTH_OK, "%s", err.text);
    hearth_session *s = session_how(m, h);
    for (int i = 0; i < 12; i++)
        cr_assert_eq(hearth_session_feed(s, ids + i, 1, NULL, NULL, &err), HEARTH_OK, "%s", err.text);
    const size_t n = (size_t)m->m.n_layer * m->m.max_expert;
    before = malloc(n * sizeof *before);
    after = malloc(n * sizeof *after);
    ht_cache_get_heat(m->store.disk->cache, before);
    hearth_session_close(&s);
    hearth_model_close(&m);
    cr_assert_eq(access(heat, R_OK), 0);
    m = open_how(path, h);
    cr_assert_eq(hearth_model_heat(m, heat, &err), HEARTH_OK, "%s", err.text);
    ht_cache_get_heat(m->store.disk->cache, after);
    for (size_t i = 0; i < n; i++)
        cr_assert(fabsf(before[i] - after[i]) < 1e-5f, "%zu: %g, %g", i, (double)before[i], (double)after[i]);
    hearth_model_close(&m);
    FILE *f = fopen(heat, "r+b"); /* a damaged one is none */
    cr_assert_not_null(f);
    fseek(f, -100, SEEK_END);
    fputc(0x5a, f);
    fclose(f);
    m = open_how(path, h);
    cr_assert_eq(hearth_model_heat(m, heat, &err), HEARTH_OK, "%s", err.text);
    hearth_model_close(&m);
    m = open_how(HEARTH_MODEL_DIR "/hearth-story-moe.gguf", h); /* of another model */
    cr_assert_eq(hearth_model_heat(m, heat, &err), HEARTH_OK, "%s", err.text);
    hearth_model_close(&m);
    remove(heat);
    free(before);
    free(after);
}
