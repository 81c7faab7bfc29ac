/* SPDX-License-Identifier: MIT
 *
 * The store's neuron-major parts: planned within a budget, built piece by piece, leased once complete, given up from
 * the end, kept back where a weight is no number. That products agree is in test_bits.c and tests/cpu. */
#include "cpu/cpu.h"
#include "engine/store.h"
#include "tests/engine/engine_util.h"

static ht_gguf *g;
static ht_model m;
static ht_store s;
static ht_exec *exec;

static void begin(const char *name)
{
    char path[512], file[64];
    ht_error err;

    snprintf(file, sizeof file, "%s.gguf", name);
    cr_assert_eq(ht_gguf_open(&g, util_golden(path, file), &err), HT_OK, "%s", err.text);
    cr_assert_eq(ht_model_load(&m, g, &err), HT_OK, "%s", err.text);
    const ht_cpu_params cpu = { .threads = 2, .isa = ht_isa_best(), .max_k = m.max_k, .max_head = m.max_head };
    cr_assert_eq(ht_cpu_open(&exec, &cpu, &err), HT_OK, "%s", err.text);
    ht_store_open(&s, &m);
}

static void end(void)
{
    ht_store_close(&s);
    exec->ops->close(exec);
    ht_model_free(&m);
    ht_gguf_close(&g);
}

static ht_part lease(uint32_t layer, uint32_t expert)
{
    const ht_cluster c = { .layer = layer, .expert = expert, .n = m.layers[layer].ffn.n_ff };
    ht_part parts[HT_N_ROLES], down_t;
    ht_ticket t;

    cr_assert_eq(ht_store_want(&s, &c, 1, false, NULL, &t), HT_OK);
    cr_assert_eq(ht_store_lease(&s, &t, 0, parts, &down_t, NULL), HT_OK);
    ht_store_release(&s, &t);
    cr_expect_not_null(parts[HT_ROLE_DOWN].host);
    return down_t;
}

static uint64_t build(uint32_t layer, uint64_t bytes)
{
    ht_status st;
    const uint64_t n = ht_store_build(&s, exec, layer, false, bytes, NULL, &st);
    cr_assert_eq(st, HT_OK);
    return n;
}

Test(store, parts_come_and_go)
{
    begin("smallthinker");
    const uint32_t last = m.n_layer - 1;
    cr_assert_eq(ht_store_reserve(&s, false, 1 << 30, NULL), HT_OK);
    const uint64_t all = s.planned;
    cr_expect_gt(all, 0);
    cr_expect_null(lease(0, 0).host);
    cr_expect_gt(build(last, 1), 0); /* a first piece of the first expert */
    cr_expect_null(lease(last, 0).host);
    for (uint32_t il = 0; il < m.n_layer; il++)
        while (build(il, 5000))
            ;
    cr_expect_eq(s.built, all);
    for (uint32_t e = 0; e < m.layers[last].ffn.n_expert; e++) { /* the file's rows come back */
        const ht_part t = lease(last, e), down = m.layers[last].ffn.experts[e][HT_ROLE_DOWN];
        ht_neurons shape;
        cr_assert_not_null(t.host);
        cr_expect_eq(t.layout, HT_LAYOUT_NEURONS);
        cr_assert(ht_neurons_shape(&shape, (ht_type)t.type, t.n, t.k));
        uint8_t *rows = malloc((size_t)down.n * down.stride);
        ht_neurons_to_rows(&shape, t.host, 0, down.n, rows, down.stride);
        cr_expect_arr_eq(rows, down.host, (size_t)down.n * down.stride, "expert %u", e);
        free(rows);
    }
    ht_store_trim(&s, all - 1);
    cr_expect(s.planned < all && s.built == s.planned);
    cr_expect_null(lease(last, 0).host);
    cr_expect_eq(build(last, 5000), 0);
    if (m.n_layer > 1)
        cr_expect_not_null(lease(0, 0).host);
    ht_store_trim(&s, 0);
    cr_expect(s.planned == 0 && s.built == 0);
    cr_expect_null(lease(0, 0).host);
    end();
}

Test(store, budgets_and_types)
{
    begin("llama_relu");
    cr_assert_eq(ht_store_reserve(&s, false, 100, NULL), HT_OK);
    cr_expect_eq(s.planned, 0);
    cr_expect_eq(build(0, 1000), 0);
    cr_expect_null(lease(0, 0).host);
    end();
    begin("bitnet_b158_relu2"); /* a type without the form, or one whose products need 8-bit activations */
    cr_assert_eq(ht_store_reserve(&s, true, 1 << 30, NULL), HT_OK);
    for (uint32_t i = 0; i < m.n_layer; i++)
        cr_expect(!ht_type_get(m.layers[i].ffn.experts[0][HT_ROLE_DOWN].type)->quantised ||
                  !ht_store_block(&s, i, false));
    end();
}
