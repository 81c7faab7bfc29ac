/* SPDX-License-Identifier: MIT
 *
 * Fuzz target of the GGUF reader: opens the bytes as a file and touches everything that a reader of models would:
 * keys, values, strings, typed reads, overrides, tensors, and some blocks of each tensor dequantised. Built with
 * libFuzzer (clang, -DHEARTH_FUZZ=ON) or with replay.c, which runs the corpus as a test. */
#include <stdlib.h>
#include <string.h>

#include "engine/base/types.h"
#include "engine/gguf.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static volatile uint64_t sink;

static void touch(const void *p, size_t n)
{
    const uint8_t *b = p;
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += b[i];
    sink += sum;
}

static void use_value(const ht_gguf *g, const ht_kv *kv)
{
    char key[256];
    int64_t i;
    double d;
    ht_str s;

    touch(kv->key.s, kv->key.n);
    for (uint64_t j = 0; j < kv->n && j < 4096; j++)
        sink += ht_kv_int(kv, j, &i) + ht_kv_float(kv, j, &d);
    if (kv->n > 0)
        sink += ht_kv_int(kv, kv->n - 1, &i) + ht_kv_int(kv, kv->n, &i) + ht_kv_float(kv, kv->n - 1, &d);
    if (ht_kv_str(kv, &s))
        touch(s.s, s.n);
    if (kv->type == HT_KV_ARRAY && kv->elem == HT_KV_STRING) {
        ht_str *all = malloc(kv->n ? (size_t)kv->n * sizeof *all : 1);
        if (all && ht_kv_strings(kv, all))
            for (uint64_t j = 0; j < kv->n; j++)
                touch(all[j].s, all[j].n);
        free(all);
    }
    if (kv->key.n < sizeof key && !memchr(kv->key.s, 0, kv->key.n)) {
        uint32_t u = 0;
        uint64_t v = 0;
        float f = 0;
        bool b = false;
        ht_error err;
        memcpy(key, kv->key.s, kv->key.n);
        key[kv->key.n] = 0;
        if (ht_gguf_find(g, key) != kv)
            abort(); /* our own bug: the table lost a key */
        ht_gguf_u32(g, key, &u, &err);
        ht_gguf_u64(g, key, &v, &err);
        ht_gguf_f32(g, key, &f, &err);
        ht_gguf_bool(g, key, &b, &err);
        ht_gguf_str(g, key, &s, &err);
        sink += u + v + b;
    }
}

static void use_tensor(const ht_gguf *g, const ht_tensor *t)
{
    const ht_type_info *info = ht_type_get(t->type);
    float y[1024];

    touch(t->name.s, t->name.n);
    if (t->bytes > ht_gguf_file_bytes(g, t->file) || (t->bytes > 0) != (t->data != NULL))
        abort();
    if (t->bytes == 0)
        return;
    touch(t->data, 1);
    touch((const uint8_t *)t->data + t->bytes - 1, 1);
    if (!info)
        return;
    uint64_t row = ht_type_row_bytes(info, t->ne[0]), k = t->ne[0] < 1024 ? t->ne[0] : 1024;
    if (row * t->ne[1] * t->ne[2] * t->ne[3] != t->bytes)
        abort();
    ht_type_dequant((ht_type)t->type, t->data, k, y);
    touch(y, (size_t)k * sizeof *y);
    ht_type_dequant((ht_type)t->type, (const uint8_t *)t->data + t->bytes - info->block_bytes, info->block, y);
    touch(y, info->block * sizeof *y);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    ht_gguf *g;
    ht_error err;
    ht_status st = ht_gguf_open_memory(&g, bytes, n, &err);

    if (st != HT_OK) {
        if (g || !memchr(err.text, 0, sizeof err.text) || err.status != st ||
            (err.offset != UINT64_MAX && err.offset > n))
            abort();
        return 0;
    }
    for (uint64_t i = 0; i < ht_gguf_n_kv(g); i++)
        use_value(g, ht_gguf_kv_at(g, i));
    for (uint64_t i = 0; i < ht_gguf_n_tensors(g); i++)
        use_tensor(g, ht_gguf_tensor_at(g, i));
    ht_gguf_override(g, "general.architecture", "fuzz", &err);
    ht_gguf_override(g, "fuzz.number", "12", &err);
    ht_gguf_override(g, "fuzz.number", "-1.5", &err);
    for (uint64_t i = 0; i < ht_gguf_n_kv(g); i++)
        use_value(g, ht_gguf_kv_at(g, i));
    ht_gguf_close(&g);
    return 0;
}
