/* SPDX-License-Identifier: MIT
 *
 * Law 1: the logits' bits do not depend on threads, SIMD level or how a prompt is cut into passes, nor on what is
 * skipped because it is zero. Below the public header, so that more threads than processors can be asked for. */
#include "cpu/cpu.h"
#include "engine/forward.h"
#include "tests/engine/engine_util.h"

enum { N_IDS = 61 };

/* OFF computes all; UP skips without neuron-major parts; EXACT has them from the start; AUTO builds them on the way. */
typedef enum skip { OFF, UP, EXACT, AUTO, N_SKIPS } skip;

typedef struct setting {
    ht_isa isa;
    uint32_t threads, batch;
    bool f32;
    ht_type kv;
    skip skip;
} setting;

struct rows {
    float *to;
    size_t base;
    uint32_t n_vocab;
};

static bool store(void *user, uint32_t first, uint32_t n, const float *logits)
{
    struct rows *r = user;
    memcpy(r->to + (r->base + first) * r->n_vocab, logits, (size_t)n * r->n_vocab * sizeof(float));
    return true;
}

static void compute(const ht_model *m, const int32_t *ids, setting w, float *out)
{
    ht_cpu_params cpu = { .threads = w.threads, .isa = w.isa, .max_k = m->max_k, .max_head = m->max_head };
    struct rows rows = { out, 0, m->n_vocab };
    ht_exec *exec;
    ht_store weights;
    ht_state state;
    ht_forward f;
    ht_error err;

    cr_assert_eq(ht_cpu_open(&exec, &cpu, &err), HT_OK, "%s", err.text);
    ht_store_open(&weights, m);
    cr_assert_eq(ht_state_open(&state, m, ht_mem_default(), w.kv, N_IDS, &err), HT_OK, "%s", err.text);
    cr_assert_eq(
        ht_forward_open(&f, m, &weights, exec, ht_mem_default(), w.f32, w.skip != OFF, w.batch, N_IDS, 5, &err), HT_OK,
        "%s", err.text);
    if (w.skip >= EXACT)
        cr_assert_eq(ht_store_reserve(&weights, w.f32, 1 << 30, &err), HT_OK, "%s", err.text);
    for (uint32_t i = 0; w.skip == EXACT && i < 2 * m->n_layer; i++) {
        ht_status st = HT_OK;
        while (ht_store_build(&weights, exec, i / 2, i % 2, 10000, NULL, &st))
            ;
        cr_assert_eq(st, HT_OK);
        const ht_neuron_block *b = ht_store_block(&weights, i / 2, i % 2);
        cr_expect(!b || ht_store_block_ready(b));
    }
    cr_assert_eq(ht_state_reserve(&state, N_IDS, &err), HT_OK, "%s", err.text);
    for (uint32_t i = 0; i < N_IDS; i += w.batch) {
        uint32_t n = N_IDS - i < w.batch ? N_IDS - i : w.batch;
        rows.base = i;
        cr_assert_eq(ht_forward_run(&f, &state, ids + i, n, store, &rows, NULL, &err), HT_OK, "%s", err.text);
    }
    ht_forward_close(&f);
    ht_state_close(&state);
    ht_store_close(&weights);
    exec->ops->close(exec);
}

static void check(const char *name)
{
    static const ht_type kvs[] = { HT_F16, HT_F32, HT_Q8_0, HT_Q4_0 };
    char path[512], file[64];
    int32_t ids[N_IDS];
    ht_gguf *g;
    ht_model m;
    ht_error err;

    snprintf(file, sizeof file, "%s.gguf", name);
    cr_assert_eq(ht_gguf_open(&g, util_golden(path, file), &err), HT_OK, "%s", err.text);
    cr_assert_eq(ht_model_load(&m, g, &err), HT_OK, "%s", err.text);
    for (uint32_t i = 0; i < N_IDS; i++)
        ids[i] = (int32_t)((i * 2654435761u >> 7) % m.n_vocab);
    size_t bytes = (size_t)N_IDS * m.n_vocab * sizeof(float);
    float *want = malloc(bytes), *got = malloc(bytes);

    for (int f32 = 0; f32 < 2; f32++)
        for (size_t k = 0; k < sizeof kvs / sizeof *kvs; k++) {
            if (!ht_state_type_fits(&m, kvs[k]) || (f32 && kvs[k] != HT_F32))
                continue;
            compute(&m, ids, (setting){ HT_ISA_REF, 1, 1, f32, kvs[k], OFF }, want);
            for (size_t i = 0; i < (size_t)N_IDS * m.n_vocab; i++)
                cr_assert(isfinite(want[i]));
            for (int isa = HT_ISA_REF; isa < HT_N_ISA; isa++) {
                if (!ht_isa_runs((ht_isa)isa))
                    continue;
                static const struct {
                    uint32_t threads, batch;
                } cuts[] = { { 1, 512 }, { 2, 7 }, { 3, 1 }, { 3, 512 } };
                for (int way = OFF; way < (ht_activation_has_zeros(m.act) ? N_SKIPS : 1); way++)
                    for (size_t c = 0; c < sizeof cuts / sizeof *cuts; c++) {
                        if (way != OFF && (cuts[c].batch == 512 || kvs[k] != (f32 ? HT_F32 : HT_F16)))
                            continue;
                        if ((kvs[k] != HT_F16 && kvs[k] != HT_F32 && c % 2) || (util_sanitized() && (c + k + isa) % 3))
                            continue;
                        compute(&m, ids,
                                (setting){ (ht_isa)isa, cuts[c].threads, cuts[c].batch, f32, kvs[k], (skip)way }, got);
                        cr_expect(memcmp(got, want, bytes) == 0,
                                  "%s: %s, %u threads, passes of %u, %s KV, %s, skip %d differ", name,
                                  ht_isa_name((ht_isa)isa), cuts[c].threads, cuts[c].batch, ht_type_name(kvs[k]),
                                  f32 ? "f32" : "fast", way);
                    }
            }
        }
    free(want);
    free(got);
    ht_model_free(&m);
    ht_gguf_close(&g);
}

Test(bits, dense)
{
    check("llama");
}
Test(bits, dense_quantised)
{
    check("quant-Q2_K");
}
Test(bits, ternary_sub_norms)
{
    check("bitnet_b158_relu2");
}
Test(bits, relu)
{
    check("llama_relu");
    check("llama_relu2");
}
Test(bits, relu2_without_gate)
{
    check("arcee");
    check("nemotron");
}
Test(bits, relu_mixture)
{
    check("smallthinker");
}
Test(bits, windows_and_soft_caps)
{
    check("gemma2");
}
Test(bits, fused_matrices)
{
    check("phi3_swa");
}
Test(bits, mixture)
{
    check("qwen3_moe");
}
Test(bits, mixture_with_biases_and_sinks)
{
    check("gpt_oss");
}
Test(bits, mixture_with_shared_expert)
{
    check("qwen2_moe");
}
Test(bits, recurrent_mixture)
{
    check("qwen3_next");
}
Test(bits, recurrent_dense)
{
    check("qwen3_5");
}
