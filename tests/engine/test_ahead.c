/* SPDX-License-Identifier: MIT
 *
 * Reading ahead, without a clock: which ranges are planned, in which order and within which budget; that the walk hands
 * out every byte once; that closing stops and joins. And what a session says of a file that was cut. */
#include <sys/stat.h>

#include "engine/ahead.h"
#include "engine/gguf.h"
#include "tests/engine/engine_util.h"

static ht_gguf *open_golden(const char *file)
{
    char path[512];
    ht_gguf *g;
    ht_error err;
    cr_assert_eq(ht_gguf_open(&g, util_golden(path, file), &err), HT_OK, "%s", err.text);
    return g;
}

static uint64_t sum_of(const ht_ahead_range *r, uint32_t n)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += r[i].bytes;
    return sum;
}

/* Where in the walk a tensor's first byte comes; UINT64_MAX: it is not walked. */
static uint64_t place_of(const ht_gguf *g, const char *name, const ht_ahead_range *r, uint32_t n)
{
    const ht_tensor *t = ht_gguf_find_tensor(g, name);
    uint64_t before = 0;
    cr_assert_not_null(t, "%s", name);
    for (uint32_t i = 0; i < n; i++) {
        const uint8_t *p = t->data;
        if (p >= r[i].data && p + t->bytes <= r[i].data + r[i].bytes)
            return before + (uint64_t)(p - r[i].data);
        before += r[i].bytes;
    }
    return UINT64_MAX;
}

Test(ahead, layers_in_order_then_output)
{
    ht_gguf *g = open_golden("llama.gguf");
    ht_ahead_range *r;
    uint32_t n;
    bool whole;
    cr_assert_eq(ht_ahead_plan(g, UINT64_MAX, &r, &n, &whole, NULL), HT_OK);
    cr_expect(whole && n > 0);
    cr_expect(place_of(g, "blk.0.attn_q.weight", r, n) < place_of(g, "blk.1.attn_q.weight", r, n));
    cr_expect(place_of(g, "blk.1.ffn_down.weight", r, n) < place_of(g, "output.weight", r, n));
    cr_expect(place_of(g, "output.weight", r, n) != UINT64_MAX);
    for (uint64_t i = 0; i < ht_gguf_n_tensors(g); i++) {
        const ht_tensor *t = ht_gguf_tensor_at(g, i);
        char name[96];
        snprintf(name, sizeof name, "%.*s", (int)t->name.n, t->name.s);
        if (strcmp(name, "token_embd.weight") != 0)
            cr_expect(place_of(g, name, r, n) != UINT64_MAX, "%s", name);
    }
    free(r);
    ht_gguf_close(&g);
}

Test(ahead, no_experts_and_no_embedding_beside_an_output)
{
    ht_gguf *g = open_golden("mixtral.gguf");
    ht_ahead_range *r;
    uint32_t n;
    bool whole;
    cr_assert_eq(ht_ahead_plan(g, UINT64_MAX, &r, &n, &whole, NULL), HT_OK);
    cr_expect_eq(place_of(g, "blk.0.ffn_up_exps.weight", r, n), UINT64_MAX);
    cr_expect(place_of(g, "blk.0.attn_q.weight", r, n) != UINT64_MAX);
    if (ht_gguf_find_tensor(g, "output.weight"))
        cr_expect_eq(place_of(g, "token_embd.weight", r, n), UINT64_MAX);
    free(r);
    ht_gguf_close(&g);
}

Test(ahead, budget)
{
    ht_gguf *g = open_golden("llama.gguf");
    ht_ahead_range *all, *r;
    uint32_t n_all, n;
    bool whole;
    cr_assert_eq(ht_ahead_plan(g, UINT64_MAX, &all, &n_all, &whole, NULL), HT_OK);
    uint64_t most[] = { 0, 1, sum_of(all, n_all) / 2, sum_of(all, n_all) - 1 };
    for (size_t i = 0; i < sizeof most / sizeof *most; i++) {
        cr_assert_eq(ht_ahead_plan(g, most[i], &r, &n, &whole, NULL), HT_OK);
        cr_expect(!whole && sum_of(r, n) <= most[i] && sum_of(r, n) + 64 > most[i], "%llu of %llu",
                  (unsigned long long)sum_of(r, n), (unsigned long long)most[i]);
        cr_expect(n == 0 || r[0].data == all[0].data, "the first part is what is needed first");
        free(r);
    }
    cr_assert_eq(ht_ahead_plan(g, sum_of(all, n_all), &r, &n, &whole, NULL), HT_OK);
    cr_expect(whole);
    free(r);
    free(all);
    ht_gguf_close(&g);
}

/* ---- The walk, over addresses that nobody touches ---- */

enum { MAX_SEEN = 64 };

typedef struct record {
    ht_ahead_range seen[MAX_SEEN];
    uint32_t n;
    ht_os_mutex lock;
    _Atomic uint32_t entered, go; /* go: windows may end */
    uint32_t fail_at;             /* 0: never */
} record;

static bool note(void *user, const uint8_t *data, size_t bytes)
{
    record *r = user;
    uint32_t me = atomic_fetch_add(&r->entered, 1) + 1;
    ht_os_wake(&r->entered, true);
    while (!atomic_load(&r->go))
        ht_os_wait(&r->go, 0, 0);
    ht_os_lock(&r->lock);
    if (r->n < MAX_SEEN)
        r->seen[r->n++] = (ht_ahead_range){ data, bytes };
    ht_os_unlock(&r->lock);
    return me != r->fail_at;
}

static ht_ahead_range *two_ranges(void)
{
    ht_ahead_range *r = malloc(2 * sizeof *r);
    cr_assert_not_null(r);
    r[0] = (ht_ahead_range){ (const uint8_t *)(uintptr_t)(100u << 20) + 12345, 3 * (uint64_t)HT_AHEAD_WINDOW };
    r[1] = (ht_ahead_range){ (const uint8_t *)(uintptr_t)(64u << 20), 1000 }; /* later, though lower */
    return r;
}

Test(ahead, hands_out_windows_in_order)
{
    static record rec;
    ht_ahead a;
    atomic_store(&rec.go, 1);
    cr_assert_eq(ht_ahead_open(&a, two_ranges(), 2, 1, note, &rec, NULL), HT_OK);
    ht_ahead_wait(&a);
    cr_expect(!ht_ahead_busy(&a) && !ht_ahead_failed(&a));
    cr_assert_eq(rec.n, 5, "%u windows", rec.n);
    const uint8_t *at = (const uint8_t *)(uintptr_t)(100u << 20) + 12345;
    for (uint32_t i = 0; i < 4; i++) {
        cr_expect(rec.seen[i].data == at && rec.seen[i].bytes <= HT_AHEAD_WINDOW);
        at += rec.seen[i].bytes;
        if (i < 3)
            cr_expect_eq((uintptr_t)at % HT_AHEAD_WINDOW, 0);
    }
    cr_expect_eq(sum_of(rec.seen, 4), 3 * (uint64_t)HT_AHEAD_WINDOW);
    cr_expect(rec.seen[4].data == (const uint8_t *)(uintptr_t)(64u << 20) && rec.seen[4].bytes == 1000);
    ht_ahead_close(&a);
    ht_ahead_close(&a);
}

typedef struct closing { ht_ahead *a; record *rec; } closing;

/* Lets the window under way end as soon as the walk was told to stop. */
static void let_go(void *arg)
{
    closing *c = arg;
    while (!atomic_load(&c->a->stop))
        ht_os_yield();
    atomic_store(&c->rec->go, 1);
    ht_os_wake(&c->rec->go, true);
}

/* Closing while a window is under way waits for it and asks for no more. */
Test(ahead, close_joins)
{
    static record rec;
    ht_ahead a;
    ht_os_thread other;
    cr_assert_eq(ht_ahead_open(&a, two_ranges(), 2, 1, note, &rec, NULL), HT_OK);
    while (atomic_load(&rec.entered) == 0)
        ht_os_wait(&rec.entered, 0, 0);
    cr_expect(ht_ahead_busy(&a));
    closing both = { &a, &rec };
    cr_assert_eq(ht_os_thread_start(&other, let_go, &both, "let-go"), HT_OK);
    ht_ahead_close(&a);
    cr_expect(!ht_ahead_busy(&a));
    cr_expect_eq(rec.n, 1, "%u windows", rec.n);
    ht_os_thread_join(&other);
}

Test(ahead, a_failed_window_ends_the_walk)
{
    static record rec = { .fail_at = 2 };
    ht_ahead a;
    atomic_store(&rec.go, 1);
    cr_assert_eq(ht_ahead_open(&a, two_ranges(), 2, 1, note, &rec, NULL), HT_OK);
    ht_ahead_wait(&a);
    cr_expect(ht_ahead_failed(&a));
    cr_expect_eq(rec.n, 2);
    ht_ahead_close(&a);
    ht_ahead zero = { 0 };
    ht_ahead_close(&zero);
}

/* A file that is cut while a model has it open is a sentence at the next pass. */
Test(ahead, a_cut_file_is_named)
{
    char path[64], golden[512], command[700];
    hearth_error err;
    int32_t ids[3] = { 1, 2, 3 };
    snprintf(path, sizeof path, P_tmpdir "/hearth-cut-%d.gguf", (int)getpid());
    snprintf(command, sizeof command, "cp '%s' '%s'", util_golden(golden, "llama.gguf"), path);
    cr_assert_eq(system(command), 0);
    hearth_model *m = util_open(path, (hearth_model_params){ .threads = 1 });
    hearth_session *s = util_session(m, 64, 16, HEARTH_KV_F16);
    cr_assert_eq(hearth_session_feed(s, ids, 3, NULL, NULL, &err), HEARTH_OK, "%s", err.text);
    cr_assert_eq(truncate(path, 4096), 0);
    cr_expect_eq(hearth_session_feed(s, ids, 3, NULL, NULL, &err), HEARTH_EIO);
    cr_expect(strstr(err.text, "cut") && strstr(err.text, "4096"), "%s", err.text);
    cr_expect_eq(hearth_session_position(s), 3, "the session is as it was");
    hearth_session_close(&s);
    hearth_model_close(&m);
    remove(path);
}
