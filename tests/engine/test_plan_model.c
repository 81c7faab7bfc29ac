/* SPDX-License-Identifier: MIT
 * Plans of small golden models with figures that are given: what lies where, what it costs, how budgets, pins and profiles change
 * it, and what refusals say. Nothing here is measured. */
#include <math.h>
#include <unistd.h>

#include "engine/plan_model.h"
#include "engine/plan_pins.h"
#include "engine/state.h"
#include "tests/engine/engine_util.h"

static ht_gguf *file;
static ht_model model;
static ht_rates rates;

static void load(const char *name)
{
    char path[512], full[64];
    ht_error err;
    snprintf(full, sizeof full, "%s.gguf", name);
    cr_assert_eq(ht_gguf_open(&file, util_golden(path, full), &err), HT_OK, "%s", err.text);
    cr_assert_eq(ht_model_load(&model, file, &err), HT_OK, "%s", err.text);
    rates = (ht_rates){ .threads = 2, .task_s = 1e-6, .wait_s = 2e-6, .op_s = 1e-7, .element_s = 1e-10 };
    for (uint32_t t = 0; t < HT_TYPE_MAX; t++) {
        rates.types[t] = (ht_type_rates){ 1e9, 1e9, 4e9, 5e8, { 1e10, 2e10, 4e10 } };
        rates.kv[t] = (ht_kv_rates){ 1e-9, 1e-10, 1e10 };
    }
}

static void unload(void)
{
    ht_model_free(&model);
    ht_gguf_close(&file);
}

static ht_plan_setting setting(void)
{
    return (ht_plan_setting){ .m = &model, .r = &rates, .budget = { .ram_bytes = 1 << 30 }, .streamable = true, .streamed = true, .n_ctx = 256,
                              .prompt = 64, .batch = 64, .kv = HT_F16, .disk_bps = 1e8, .fixed_bytes = 1000 };
}

static ht_plan_made make(const ht_plan_setting *s)
{
    ht_plan_made p;
    ht_error err = { 0 };
    cr_assert_eq(ht_plan_make(&p, s, &err), HT_OK, "%s", err.text);
    return p;
}

/* All bytes of a token at one rate, and nothing else. */
Test(plan_model, bytes_by_their_rate)
{
    load("llama");
    ht_plan_setting s = setting();
    rates.task_s = rates.wait_s = rates.op_s = rates.element_s = 1e-15;
    rates.kv[HT_F16] = (ht_kv_rates){ 1e-18, 1e-18, 1e18 };
    ht_plan_made p = make(&s);
    const double bytes = (double)ht_plan_weight_bytes(&model);

    cr_expect_float_eq(p.decode_s, bytes / 1e9, 1e-9, "%g of %g", p.decode_s, bytes / 1e9);
    cr_expect_eq(p.plan.disk_bytes, 0);
    cr_expect_eq(p.n_rows, model.n_layer + 1);
    cr_expect_eq(p.kv_bytes, 2 * ht_state_set_bytes(&model, HT_F16));
    ht_plan_drop(&p);
    s.cache_bytes = 1 << 30; /* the last-level cache holds it all */
    p = make(&s);
    cr_expect_float_eq(p.decode_s, bytes / 4e9, 1e-9);
    ht_plan_drop(&p);
    unload();
}

Test(plan_model, attention_grows_with_the_context)
{
    load("llama");
    ht_plan_setting s = setting();
    ht_plan_made p = make(&s);
    double more = 0;

    for (uint32_t i = 0; i < model.n_layer; i++) {
        const ht_attn *a = &model.layers[i].attn;
        more += 255.0 * a->n_kv * (a->k_dim + a->v_dim) * (1e-9 + 1e-10 * a->n_head / a->n_kv);
    }
    cr_expect_float_eq(p.decode_full_s - p.decode_s, more, 1e-12);
    const double shallow = p.decode_s, brief = p.prompt_s;
    ht_plan_drop(&p);
    s.depth = 255;
    s.prompt = 128;
    p = make(&s);
    cr_expect_float_eq(p.decode_s - shallow, more, 1e-12);
    cr_expect_gt(p.prompt_s, 1.9 * brief - 1e-3);
    ht_plan_drop(&p);
    unload();
}

/* Less memory never makes a plan faster, never takes more than there is, and what does not fit is on disk. */
Test(plan_model, budgets_hold)
{
    static const char *const names[] = { "olmoe", "qwen3_moe", "llama", "qwen3_next" };

    for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
        char path[512], full[64];
        snprintf(full, sizeof full, "%s.gguf", names[k]);
        if (access(util_golden(path, full), R_OK))
            continue;
        load(names[k]);
        ht_plan_setting s = setting();
        ht_plan_made p = make(&s);
        const uint64_t whole = p.plan.ram_bytes, pieces = ht_plan_piece_bytes(&model);
        double last = p.decode_s;
        ht_plan_drop(&p);
        uint32_t streamed = 0;
        for (uint32_t i = 0; i <= 8; i++) {
            ht_error err;
            s.budget.ram_bytes = whole - pieces * i / 8;
            const ht_status st = ht_plan_make(&p, &s, &err);
            if (st != HT_OK) { /* slots are pages: the least is a little more */
                cr_expect_eq(st, HT_ENOMEM);
                cr_expect(strstr(err.text, "more memory"), "%s", err.text);
                continue;
            }
            cr_expect_leq(p.plan.ram_bytes, s.budget.ram_bytes);
            cr_expect_geq(p.decode_s, last * 0.999, "%s, %u of 8: %g after %g", names[k], i, p.decode_s, last);
            cr_expect_eq(p.plan.disk_bytes > 0, i > 0, "%s, %u of 8", names[k], i);
            streamed += p.plan.disk_bytes > 0;
            last = p.decode_s;
            ht_plan_drop(&p);
        }
        cr_expect(streamed >= 4 || !model.layers[0].ffn.router.host); /* two dense blocks are always on their way */
        unload();
    }
}

/* What a profile calls rare goes to the disk first, and what is read again and again costs less. */
Test(plan_model, rare_experts_leave_first)
{
    load("olmoe");
    ht_plan_setting s = setting();
    const uint32_t n = model.layers[0].ffn.n_expert;
    float *share = calloc(n, sizeof *share);
    ht_plan_use *use = calloc(model.n_layer, sizeof *use);

    cr_assert(share && use);
    for (uint32_t e = 0; e < n; e++)
        share[e] = e % 2 ? 0.01f : 0.6f;
    for (uint32_t i = 0; i < model.n_layer; i++)
        use[i] = (ht_plan_use){ .density = -1, .expert_overlap = -1, .expert_frequency = share };
    ht_plan_made p = make(&s);
    const uint64_t half = p.plan.ram_bytes - ht_plan_piece_bytes(&model) / 2;
    ht_plan_drop(&p);
    s.budget.ram_bytes = half;
    p = make(&s);
    const double even = p.decode_s;
    ht_plan_drop(&p);
    s.use = use;
    p = make(&s);
    cr_expect_lt(p.decode_s, even);
    for (uint32_t i = 0; i < model.n_layer; i++)
        for (uint32_t e = 0; e < n; e += 2) /* of hot ones no more than one is away: slots are whole pages */
            cr_expect(p.plan.pieces[p.plan.first[i] + e] == HT_TIER_RAM || p.rows[i].n_in[HT_TIER_DISK] > n / 2, "expert %u of layer %u", e, i);
    ht_plan_drop(&p);
    for (uint32_t i = 0; i < model.n_layer; i++)
        use[i].expert_frequency = NULL, use[i].expert_overlap = 0.9;
    p = make(&s);
    cr_expect_lt(p.decode_s, even);
    ht_plan_drop(&p);
    free(share);
    free(use);
    unload();
}

/* Neurons that a profile knows to be silent cost less, where the activation has zeros. */
Test(plan_model, silent_neurons_cost_less)
{
    load("llama");
    ht_plan_setting s = setting();
    ht_plan_use *use = calloc(model.n_layer, sizeof *use);

    cr_assert_not_null(use);
    for (uint32_t i = 0; i < model.n_layer; i++)
        use[i] = (ht_plan_use){ .density = 0.1, .expert_overlap = -1 };
    ht_plan_made p = make(&s);
    const double dense = p.decode_s;
    ht_plan_drop(&p);
    s.use = use;
    p = make(&s);
    cr_expect_float_eq(p.decode_s, dense, 1e-12);
    ht_plan_drop(&p);
    s.sparse = true;
    p = make(&s);
    cr_expect_lt(p.decode_s, dense);
    ht_plan_drop(&p);
    free(use);
    unload();
}

Test(plan_model, a_graphics_card_takes_what_pays)
{
    load("olmoe");
    ht_plan_setting s = setting();
    rates.gpu = (ht_gpu_rates){ .read_bps = 2e10, .prompt_mps = 1e12, .launch_s = 1e-9, .join_s = 1e-9, .hop_s = 1e-9, .fixed_bytes = 1000 };
    s.budget.vram_bytes = 1 << 30;
    ht_plan_made p = make(&s);
    for (uint32_t i = 0; i < p.n_rows; i++)
        cr_expect_eq(p.rows[i].trunk, HT_TIER_VRAM);
    const double fast = p.decode_s;
    const uint64_t most = p.plan.vram_bytes;
    ht_plan_drop(&p);
    s.budget.vram_bytes = most / 2;
    p = make(&s);
    cr_expect_leq(p.plan.vram_bytes, most / 2);
    cr_expect_gt(p.plan.vram_bytes, 0);
    cr_expect_gt(p.decode_s, fast);
    ht_plan_drop(&p);
    s.budget.vram_bytes = 10; /* too small for anything */
    p = make(&s);
    cr_expect_eq(p.plan.vram_bytes, 0);
    ht_plan_drop(&p);
    unload();
}

Test(plan_model, pins_are_kept)
{
    load("olmoe");
    ht_plan_setting s = setting();
    s.pins = (const char *const[]){ "experts=ram", "blk.1=disk", "blk.0-0=ram" };
    s.n_pins = 3;
    ht_plan_made p = make(&s);
    cr_expect_eq(p.rows[0].n_in[HT_TIER_RAM], p.rows[0].n_pieces);
    cr_expect_eq(p.rows[1].n_in[HT_TIER_DISK], p.rows[1].n_pieces);
    cr_expect_eq(p.rows[1].trunk, HT_TIER_RAM);
    ht_plan_drop(&p);
    unload();
}

Test(plan_model, pins_that_make_no_sense)
{
    static const char *const bad[] = { "", "=", "blk=ram", "blk.=ram", "blk.0", "blk.0=", "blk.0=tape", "blk.0-=ram", "blk.5-2=ram",
                                       "blk.99=ram", "blk.0-99=ram", "blk.99999999999=ram", "blk.0x=ram", "experts =ram", "blk.0=vram",
                                       "heads=ram", "blk.-1=ram" };
    load("olmoe");
    ht_plan_setting s = setting();
    ht_plan_made p;
    ht_error err;

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        s.pins = &bad[i];
        s.n_pins = 1;
        cr_expect_eq(ht_plan_make(&p, &s, &err), HT_EINVAL, "%s", bad[i]);
    }
    s.streamed = false;
    s.pins = (const char *const[]){ "experts=disk" };
    cr_expect_eq(ht_plan_make(&p, &s, &err), HT_EINVAL);
    unload();
}

Test(plan_model, refusals_say_what_helps)
{
    load("llama");
    ht_plan_setting s = setting();
    ht_plan_made p;
    ht_error err;

    s.n_ctx = 1 << 20;
    s.budget.ram_bytes = 64 << 20;
    cr_assert_eq(ht_plan_make(&p, &s, &err), HT_ENOMEM);
    cr_expect(strstr(err.text, "more memory for context 1048576: lower --ctx or --kv-type, or raise --ram"), "%s", err.text);
    s.n_ctx = 128;
    s.budget.ram_bytes = 2000;
    cr_assert_eq(ht_plan_make(&p, &s, &err), HT_ENOMEM);
    cr_expect(strstr(err.text, "raise --ram"), "%s", err.text);
    memset(rates.types, 0, sizeof rates.types);
    cr_assert_eq(ht_plan_make(&p, &s, &err), HT_EINVAL);
    cr_expect(strstr(err.text, "hearth hardware"), "%s", err.text);
    unload();
}
