/* SPDX-License-Identifier: MIT
 * What a plan says: totals, rows, and all of it as JSON. Numbers are spelled without the C library, whose decimal point is the
 * locale's. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/objects.h"
#include "engine/plan_object.h"

const char *hearth_tier_name(hearth_tier t) { return t == HEARTH_TIER_VRAM ? "vram" : t == HEARTH_TIER_RAM ? "ram" : "disk"; }

hearth_status hearth_plan_get_info(const hearth_plan *p, hearth_plan_info *out)
{
    const ht_plan_made *w = &p->made;
    const hearth_plan_info i = { .model = p->name, .description = p->description, .device = p->gpu ? "cpu+gpu" : "cpu",
                                 .isa = p->isa, .io = p->io, .n_rows = w->n_rows, .threads = p->threads, .n_ctx = p->n_ctx,
                                 .depth = p->depth, .prompt_tokens = p->prompt, .batch = p->batch, .kv_type = ht_type_name(p->kv),
                                 .ram_budget_bytes = p->budget.ram_bytes, .vram_budget_bytes = p->budget.vram_bytes,
                                 .ram_bytes = w->plan.ram_bytes, .vram_bytes = p->gpu ? w->plan.vram_bytes : 0,
                                 .disk_bytes = w->plan.disk_bytes, .kv_bytes = w->kv_bytes, .weight_bytes = p->m.weight_bytes,
                                 .weight_bytes_per_token = w->weight_bytes_per_token, .fixed_bytes = p->fixed_bytes,
                                 .disk_bytes_per_token = w->disk_bytes_per_token, .decode_seconds = w->decode_s,
                                 .decode_full_seconds = w->decode_full_s, .prompt_seconds = w->prompt_s,
                                 .disk_bytes_per_s = w->plan.disk_bytes ? p->disk_bps : 0.0, .profiled = p->profiled };
    HT_RESULT(out, &i);
    return HEARTH_OK;
}

hearth_status hearth_plan_get_row(const hearth_plan *p, uint32_t i, hearth_plan_row *out)
{
    if (i >= p->made.n_rows)
        return HEARTH_EINVAL;
    const ht_plan_row *x = &p->made.rows[i];
    hearth_plan_row r = { .output = i == p->m.n_layer, .mixture = i < p->m.n_layer && p->m.layers[i].ffn.router.host,
                          .trunk = (hearth_tier)x->trunk, .trunk_bytes = x->trunk_bytes, .kv_bytes = x->kv_bytes,
                          .pieces = x->n_pieces, .trunk_seconds = x->trunk_s, .cpu_seconds = x->cpu_s, .gpu_seconds = x->gpu_s,
                          .disk_seconds = x->disk_s };
    memcpy(r.in, x->n_in, sizeof r.in);
    memcpy(r.in_bytes, x->in_bytes, sizeof r.in_bytes);
    HT_RESULT(out, &r);
    return HEARTH_OK;
}

const uint8_t *hearth_plan_pieces(const hearth_plan *p, uint32_t i)
{
    return i < p->made.n_rows ? p->made.plan.pieces + p->made.plan.first[i] : NULL;
}

/* ---- JSON ---- */

typedef struct text {
    char *s;
    size_t n, room;
    bool failed, first; /* first: nothing stands in this object or array yet */
} text;

static void put(text *t, const char *s, size_t n)
{
    if (t->failed)
        return;
    if (n + 1 > t->room - t->n) {
        const size_t room = 2 * t->room + n + 4096;
        char *more = realloc(t->s, room);
        if (!more) {
            t->failed = true;
            return;
        }
        t->s = more;
        t->room = room;
    }
    memcpy(t->s + t->n, s, n);
    t->n += n;
    t->s[t->n] = 0;
}

static void put_text(text *t, const char *s) { put(t, s, strlen(s)); }

static void put_uint(text *t, uint64_t v)
{
    char digits[24];
    size_t n = sizeof digits;

    do
        digits[--n] = (char)('0' + v % 10);
    while (v /= 10);
    put(t, digits + n, sizeof digits - n);
}

/* Nine decimals: a nanosecond. */
static void put_number(text *t, double v)
{
    if (!isfinite(v) || v < 0 || v > 1e17) {
        put_text(t, "null");
        return;
    }
    uint64_t whole = (uint64_t)v, rest = (uint64_t)((v - (double)whole) * 1e9 + 0.5);
    whole += rest / 1000000000u;
    rest %= 1000000000u;
    put_uint(t, whole);
    if (!rest)
        return;
    char digits[10] = ".";
    for (int i = 9; i > 0; i--, rest /= 10)
        digits[i] = (char)('0' + rest % 10);
    size_t n = 10;
    while (digits[n - 1] == '0')
        n--;
    put(t, digits, n);
}

static void name(text *t, const char *key)
{
    put_text(t, t->first ? "\"" : ",\"");
    t->first = false;
    put_text(t, key);
    put_text(t, "\":");
}

static void add_uint(text *t, const char *key, uint64_t v)
{
    name(t, key);
    put_uint(t, v);
}

static void add_number(text *t, const char *key, double v)
{
    name(t, key);
    put_number(t, v);
}

/* Text of a file is what it is: control characters and what is no ASCII become a question mark. */
static void add_string(text *t, const char *key, const char *s)
{
    name(t, key);
    put_text(t, "\"");
    for (; *s; s++) {
        if (*s == '"' || *s == '\\')
            put_text(t, "\\");
        put(t, *s < ' ' || *s > '~' ? "?" : s, 1);
    }
    put_text(t, "\"");
}

static void add_row(text *t, const hearth_plan *p, uint32_t i)
{
    hearth_plan_row r = { .size = sizeof r };
    char label[24] = "output";

    hearth_plan_get_row(p, i, &r);
    if (!r.output)
        snprintf(label, sizeof label, "blk.%u", i);
    put_text(t, i ? ",{" : "{");
    t->first = true;
    add_string(t, "name", label);
    add_string(t, "kind", r.output ? "output" : r.mixture ? "mixture" : "dense");
    add_string(t, "trunk_tier", hearth_tier_name(r.trunk));
    add_uint(t, "trunk_bytes", r.trunk_bytes);
    add_uint(t, "kv_bytes", r.kv_bytes);
    add_uint(t, "pieces", r.pieces);
    for (int k = HEARTH_TIER_VRAM; k >= 0; k--) {
        static const char *const counts[] = { "pieces_disk", "pieces_ram", "pieces_vram" };
        static const char *const bytes[] = { "piece_bytes_disk", "piece_bytes_ram", "piece_bytes_vram" };
        add_uint(t, counts[k], r.in[k]);
        add_uint(t, bytes[k], r.in_bytes[k]);
    }
    add_number(t, "trunk_seconds", r.trunk_seconds);
    add_number(t, "cpu_seconds", r.cpu_seconds);
    add_number(t, "gpu_seconds", r.gpu_seconds);
    add_number(t, "disk_seconds", r.disk_seconds);
    name(t, "piece_tiers"); /* a letter each */
    put_text(t, "\"");
    const uint8_t *tiers = hearth_plan_pieces(p, i);
    for (uint32_t k = 0; k < r.pieces; k++)
        put(t, &"drv"[tiers[k]], 1);
    put_text(t, "\"}");
    t->first = false;
}

hearth_status hearth_plan_json(const hearth_plan *p, char **out, size_t *n, hearth_error *error)
{
    hearth_plan_info i = { .size = sizeof i };
    text t = { .first = true };

    *out = NULL;
    hearth_plan_get_info(p, &i);
    put_text(&t, "{");
    add_string(&t, "name", i.model);
    add_string(&t, "description", i.description);
    add_string(&t, "device", i.device);
    add_string(&t, "isa", i.isa);
    add_uint(&t, "threads", i.threads);
    add_string(&t, "io", i.io);
    add_string(&t, "kv_type", i.kv_type);
    add_uint(&t, "context_tokens", i.n_ctx);
    add_uint(&t, "depth_tokens", i.depth);
    add_uint(&t, "prompt_tokens", i.prompt_tokens);
    add_uint(&t, "batch_tokens", i.batch);
    add_uint(&t, "ram_budget_bytes", i.ram_budget_bytes);
    add_uint(&t, "vram_budget_bytes", i.vram_budget_bytes);
    add_uint(&t, "ram_bytes", i.ram_bytes);
    add_uint(&t, "vram_bytes", i.vram_bytes);
    add_uint(&t, "disk_bytes", i.disk_bytes);
    add_uint(&t, "kv_bytes", i.kv_bytes);
    add_uint(&t, "fixed_bytes", i.fixed_bytes);
    add_uint(&t, "weight_bytes", i.weight_bytes);
    add_uint(&t, "weight_bytes_per_token", i.weight_bytes_per_token);
    add_number(&t, "disk_bytes_per_token", i.disk_bytes_per_token);
    add_number(&t, "disk_bytes_per_s", i.disk_bytes_per_s);
    add_number(&t, "decode_tokens_per_s", 1.0 / i.decode_seconds);
    add_number(&t, "decode_full_context_tokens_per_s", 1.0 / i.decode_full_seconds);
    add_number(&t, "prompt_tokens_per_s", i.prompt_tokens / i.prompt_seconds);
    add_number(&t, "time_to_first_token_ms", 1e3 * i.prompt_seconds);
    name(&t, "profiled");
    put_text(&t, i.profiled ? "true" : "false");
    name(&t, "layers");
    put_text(&t, "[");
    for (uint32_t k = 0; k < i.n_rows; k++)
        add_row(&t, p, k);
    put_text(&t, "]}");
    if (t.failed) {
        free(t.s);
        return (hearth_status)ht_fail(ht_err(error), HT_ENOMEM, "the plan as text");
    }
    *out = t.s;
    *n = t.n;
    return HEARTH_OK;
}
