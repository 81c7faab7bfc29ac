/* SPDX-License-Identifier: MIT
 *
 * Sequence state below the sessions: pages, sizes, an application's allocator. */
#include "engine/state.h"
#include "tests/engine/engine_util.h"

typedef struct heap {
    long live;
    uint64_t bytes, most;
} heap;

static void *heap_alloc(void *user, size_t bytes, size_t align)
{
    heap *h = user;
    h->live++;
    h->bytes += bytes;
    h->most = h->bytes > h->most ? h->bytes : h->most;
    return aligned_alloc(align, (bytes + align - 1) / align * align);
}

static void heap_free(void *user, void *p, size_t bytes)
{
    heap *h = user;
    h->live--;
    h->bytes -= bytes;
    free(p);
}

static void check(const char *name, ht_type type, bool fits)
{
    char path[512], file[64];
    ht_error err;
    ht_gguf *g;
    ht_model m;
    ht_state s;
    heap h = { 0 };
    ht_mem mem = { &h, heap_alloc, heap_free };

    snprintf(file, sizeof file, "%s.gguf", name);
    cr_assert_eq(ht_gguf_open(&g, util_golden(path, file), &err), HT_OK, "%s", err.text);
    cr_assert_eq(ht_model_load(&m, g, &err), HT_OK, "%s", err.text);
    cr_expect_eq(ht_state_type_fits(&m, type), fits, "%s %s", name, ht_type_name(type));
    if (fits) {
        cr_assert_eq(ht_state_open(&s, &m, &mem, type, 1000, &err), HT_OK, "%s", err.text);
        cr_expect_eq(s.max_sets, 8);
        cr_expect_eq(ht_state_bytes(&s), ht_state_fixed_bytes(&m));
        static const uint32_t grow[] = { 0, 1, 128, 129, 129, 500, 1000 };
        for (size_t i = 0; i < sizeof grow / sizeof *grow; i++) {
            cr_assert_eq(ht_state_reserve(&s, grow[i], &err), HT_OK);
            cr_expect(s.n_sets == (grow[i] + 127) / 128);
            cr_expect_eq(ht_state_bytes(&s), ht_state_fixed_bytes(&m) + s.n_sets * ht_state_set_bytes(&m, type));
        }
        for (uint32_t il = 0; il < m.n_layer; il++) { /* every byte of every page is ours alone */
            const ht_kv_view *v = &s.views[il];
            cr_assert_eq(m.layers[il].attn.q.host != NULL, s.pages[il] != NULL);
            for (uint32_t p = 0; s.pages[il] && p < s.n_sets; p++)
                memset(v->pages[p], (int)il + 1, v->v_offset + (size_t)v->n_kv * HT_KV_PAGE * v->v_row_bytes);
            if (s.delta[il])
                memset(s.delta[il], (int)il + 1,
                       sizeof(float) * m.layers[il].delta.n_v * m.layers[il].delta.k_dim * m.layers[il].delta.v_dim);
        }
        for (uint32_t il = 0; il < m.n_layer; il++)
            for (uint32_t p = 0; s.pages[il] && p < s.n_sets; p++) {
                const uint8_t *b = s.views[il].pages[p];
                size_t n = s.views[il].v_offset + (size_t)s.views[il].n_kv * HT_KV_PAGE * s.views[il].v_row_bytes;
                cr_assert(b[0] == il + 1 && b[n - 1] == il + 1 && (uintptr_t)b % 64 == 0);
            }
        s.pos = 700;
        cr_expect_eq(ht_state_truncate(&s, 701, &err), HT_EINVAL);
        cr_expect_eq(ht_state_truncate(&s, 200, &err), m.recurrent ? HT_EUNSUPPORTED : HT_OK);
        cr_expect_eq(s.n_sets, m.recurrent ? 8 : 2);
        cr_expect_eq(ht_state_truncate(&s, 0, &err), HT_OK);
        cr_expect(s.n_sets == 0 && s.pos == 0);
        for (size_t i = 0; i < s.recurrent_floats; i++)
            cr_assert_eq(s.recurrent[i], 0.0f);
        ht_state_close(&s);
        ht_state_close(&s);
        cr_expect(h.live == 0 && h.bytes == 0, "%ld blocks, %llu bytes left", h.live, (unsigned long long)h.bytes);
    }
    ht_model_free(&m);
    ht_gguf_close(&g);
}

Test(state, pages)
{
    check("llama", HT_F16, true);
    check("llama", HT_F32, true);
    check("llama", HT_Q8_0, false); /* heads of 16 */
    check("qwen3", HT_Q8_0, true);
    check("qwen3", HT_Q4_0, true);
    check("qwen3_next", HT_F16, true);
    check("gemma2", HT_Q4_0, true);
}

/* The allocator of the application serves what is big, and gets all of it back with the sizes it gave. */
Test(state, allocator_of_the_application)
{
    char path[512];
    heap h = { 0 };
    hearth_allocator a = { &h, heap_alloc, heap_free };
    int32_t ids[200];
    hearth_error err;
    hearth_model *m =
        util_open(util_golden(path, "qwen3_next.gguf"), (hearth_model_params){ .threads = 2, .allocator = &a });
    hearth_session *s = util_session(m, 300, 0, HEARTH_KV_F16);
    hearth_stats st = { .size = sizeof st };
    for (int i = 0; i < 200; i++)
        ids[i] = i;
    cr_assert_eq(hearth_session_feed(s, ids, 200, NULL, NULL, &err), HEARTH_OK, "%s", err.text);
    hearth_session_get_stats(s, &st);
    cr_expect(h.bytes >= st.kv_bytes + st.scratch_bytes, "%llu bytes asked for, %llu used", (unsigned long long)h.bytes,
              (unsigned long long)(st.kv_bytes + st.scratch_bytes));
    hearth_session_close(&s);
    hearth_model_close(&m);
    cr_expect(h.live == 0 && h.bytes == 0);
}
