/* SPDX-License-Identifier: MIT
 *
 * Fuzz target: bytes as a model. What opens is read as a whole: vocabulary, shapes, weights of every layer; where it is
 * small, three tokens are computed in two passes. Nothing may crash, hang or take memory out of proportion. */
#include <stdint.h>
#include <stdlib.h>

#include "cpu/cpu.h"
#include "engine/forward.h"
#include "engine/predict.h"
#include "engine/tokenizer.h"

enum { SMALL = 8 << 20, N_CTX = 8, BATCH = 2 };

static void compute(const ht_model *m, bool f32, ht_isa isa)
{
    ht_cpu_params cpu = { .threads = 1, .isa = isa, .max_k = m->max_k, .max_head = m->max_head,
                          .unpack_bytes = m->unpack_bytes };
    int32_t ids[3] = { 0, (int32_t)m->n_vocab - 1, (int32_t)(m->n_vocab / 2) };
    ht_type kv = f32 || !ht_state_type_fits(m, HT_Q8_0) ? HT_F32 : HT_Q8_0;
    ht_exec *exec;
    ht_store store;
    ht_state s;
    ht_forward f;

    if (ht_forward_bytes(m, false, f32, true, BATCH, 1) > SMALL || ht_state_fixed_bytes(m) > SMALL ||
        ht_state_set_bytes(m, kv) > SMALL || ht_cpu_scratch_bytes(&cpu) > SMALL || m->weight_bytes > SMALL ||
        m->n_layer > 64)
        return;
    if (ht_cpu_open(&exec, &cpu, NULL) != HT_OK)
        return;
    ht_store_open(&store, m);
    if (ht_state_open(&s, m, ht_mem_default(), kv, N_CTX, NULL) == HT_OK) {
        if (ht_forward_open(&f, m, &store, exec, ht_mem_default(), f32, true, BATCH, N_CTX, 1, NULL) == HT_OK) {
            if (ht_state_reserve(&s, 3, NULL) == HT_OK &&
                ht_forward_run(&f, &s, ids, 2, NULL, NULL, NULL, NULL) == HT_OK)
                ht_forward_run(&f, &s, ids + 2, 1, NULL, NULL, NULL, NULL);
            ht_forward_close(&f);
        }
        ht_state_close(&s);
    }
    ht_store_close(&store);
    exec->ops->close(exec);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    ht_gguf *g;
    ht_tokenizer *t;
    ht_model m;
    ht_error err;

    if (ht_gguf_open_memory(&g, bytes, n, &err) != HT_OK)
        return 0;
    if (ht_tokenizer_open(&t, g, &err) == HT_OK)
        ht_tokenizer_close(&t);
    if (ht_model_load(&m, g, &err) == HT_OK) {
        uint8_t how = bytes[n - 1] ^ bytes[n / 2];
        if (how & 4 || ht_predict_own(&m.predict, &m, NULL) != HT_OK)
            m.predict = NULL;
        compute(&m, how & 1, how & 2 ? HT_ISA_REF : ht_isa_best());
        ht_predict_close(&m.predict);
        ht_model_free(&m);
    }
    ht_gguf_close(&g);
    return 0;
}
