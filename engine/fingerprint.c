/* SPDX-License-Identifier: MIT
 *
 * The fingerprint of a model: a sum of hashes, one for each key and each tensor that matter, so that their order and
 * the files that they lie in do not. Of a tensor's bytes some pieces spread over it are read: enough to tell two
 * quantisations or two trainings apart, and milliseconds for any size. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/hash.h"
#include "engine/objects.h"

enum { WHOLE = 2048, PIECES = 3, PIECE = 256 }; /* bytes: tensors read as a whole; pieces of larger ones */

static void add_number(ht_hash *s, uint64_t v)
{
    uint8_t b[8];
    for (int i = 0; i < 8; i++)
        b[i] = (uint8_t)(v >> (8 * i));
    ht_hash_add(s, b, sizeof b);
}

static void add_text(ht_hash *s, ht_str text)
{
    add_number(s, text.n);
    ht_hash_add(s, text.s, text.n);
}

static void collect(uint64_t sum[2], const ht_hash *s)
{
    uint64_t h[2];
    ht_hash_end(s, h);
    sum[0] += h[0];
    sum[1] += h[1];
}

/* The values that the layers are built from: numbers as double or int64, so that a u32 in one file is a u64 in another.
 */
static void add_value(ht_hash *s, const ht_kv *kv)
{
    ht_str text;
    add_number(s, kv->n);
    for (uint64_t i = 0; i < kv->n; i++) {
        int64_t v;
        double d;
        if (ht_kv_int(kv, i, &v)) {
            add_number(s, (uint64_t)v);
        } else if (ht_kv_float(kv, i, &d)) {
            uint64_t bits;
            memcpy(&bits, &d, sizeof bits);
            add_number(s, bits);
        } else if (kv->n == 1 && ht_kv_str(kv, &text)) {
            add_text(s, text);
        }
    }
}

static bool matters(ht_str key, ht_str arch)
{
    static const char general[] = "general.architecture";
    return (key.n == sizeof general - 1 && !memcmp(key.s, general, key.n)) ||
           (key.n > arch.n && !memcmp(key.s, arch.s, arch.n) && key.s[arch.n] == '.');
}

static const uint8_t *piece(const ht_tensor *t, uint64_t i)
{
    return (const uint8_t *)t->data + (t->bytes - PIECE) / (PIECES - 1) * i;
}

/* A cold file is read at a thousand places: all at once, not one after the other. */
static void ask_for_tensor(const ht_tensor *t)
{
    if (t->data && t->bytes <= WHOLE)
        ht_os_will_need(t->data, (size_t)t->bytes);
    for (uint64_t i = 0; t->data && t->bytes > WHOLE && i < PIECES; i++)
        ht_os_will_need(piece(t, i), PIECE);
}

static void add_tensor(ht_hash *s, const ht_tensor *t)
{
    const uint8_t *bytes = t->data;

    add_text(s, t->name);
    add_number(s, t->type);
    for (uint32_t i = 0; i < 4; i++)
        add_number(s, t->ne[i]);
    if (!bytes)
        return;
    if (t->bytes <= WHOLE) {
        ht_hash_add(s, bytes, (size_t)t->bytes);
        return;
    }
    for (uint64_t i = 0; i < PIECES; i++)
        ht_hash_add(s, piece(t, i), PIECE);
}

/* Bytes [at, at + n) of a tensor as the plain file has it. */
static ht_status add_packed_bytes(ht_hash *s, const ht_pack_tensor *t, uint64_t at, size_t n, uint8_t *rows, ht_error *err)
{
    const uint64_t first = at / t->row_bytes, last = (at + n - 1) / t->row_bytes;
    ht_status st = HT_OK;

    for (uint64_t r = first; r <= last && st == HT_OK; r++) {
        const size_t from = r == first ? (size_t)(at % t->row_bytes) : 0;
        const size_t to = r == last ? (size_t)((at + n - 1) % t->row_bytes) + 1 : t->row_bytes;
        if ((st = ht_pack_read(t, r, 1, rows, err)) == HT_OK)
            ht_hash_add(s, rows + from, to - from);
    }
    return st;
}

/* As add_tensor would the plain file's: packing changes no model. */
static ht_status add_packed(ht_hash *s, const ht_pack_tensor *t, ht_error *err)
{
    uint8_t *row = malloc(t->row_bytes);
    ht_status st = row ? HT_OK : ht_fail(err, HT_ENOMEM, "fingerprint");

    add_text(s, (ht_str){ t->name, strlen(t->name) });
    add_number(s, t->type);
    for (uint32_t i = 0; i < 4; i++)
        add_number(s, t->ne[i]);
    for (uint64_t i = 0; i < (t->bytes <= WHOLE ? 1 : PIECES) && st == HT_OK; i++)
        st = t->bytes <= WHOLE ? add_packed_bytes(s, t, 0, (size_t)t->bytes, row, err)
                               : add_packed_bytes(s, t, (t->bytes - PIECE) / (PIECES - 1) * i, PIECE, row, err);
    free(row);
    return st;
}

hearth_status hearth_model_fingerprint(const hearth_model *m, char out[33], hearth_error *error)
{
    const ht_gguf *g = m->gguf;
    uint64_t sum[2] = { 0, 0 };
    ht_str arch = { "", 0 };
    ht_hash s;
    ht_status st = ht_gguf_check_size(g, ht_err(error)); /* before bytes are touched that may be gone */

    if (st != HT_OK)
        return (hearth_status)st;
    for (uint64_t i = 0; i < ht_gguf_n_tensors(g); i++)
        ask_for_tensor(ht_gguf_tensor_at(g, i));
    ht_gguf_str(g, "general.architecture", &arch, NULL);
    for (uint64_t i = 0; i < ht_gguf_n_kv(g); i++) {
        const ht_kv *kv = ht_gguf_kv_at(g, i);
        if (!matters(kv->key, arch))
            continue;
        ht_hash_begin(&s, 1);
        add_text(&s, kv->key);
        add_value(&s, kv);
        collect(sum, &s);
    }
    const ht_pack *pack = m->m.pack; /* its stretches, and the profile inside, are none of the model's tensors */
    ht_pack *own = NULL;
    if (!pack && (st = ht_pack_open(&own, g, ht_err(error))) != HT_OK) /* opened for its vocabulary only */
        return (hearth_status)st;
    pack = pack ? pack : own;
    for (uint64_t i = 0; i < ht_gguf_n_tensors(g); i++) {
        const ht_tensor *t = ht_gguf_tensor_at(g, i);
        if (pack && t->name.n > 7 && memcmp(t->name.s, "hearth.", 7) == 0)
            continue;
        ht_hash_begin(&s, 2);
        add_tensor(&s, t);
        collect(sum, &s);
    }
    if (ht_gguf_powerinfer(g)) { /* the name of the container changes the activation */
        ht_hash_begin(&s, 3);
        collect(sum, &s);
    }
    for (uint32_t i = 0; pack && i < pack->n_tensors && st == HT_OK; i++) {
        ht_hash_begin(&s, 2);
        st = add_packed(&s, &pack->tensors[i], ht_err(error));
        collect(sum, &s);
        if (m->store.disk) /* a row of a down projection lies all over its stretch: pages that count under the budget */
            ht_gguf_forget(g);
    }
    ht_pack_close(&own);
    if (st != HT_OK)
        return (hearth_status)st;
    snprintf(out, 33, "%016llx%016llx", (unsigned long long)sum[0], (unsigned long long)sum[1]);
    return HEARTH_OK;
}
