/* SPDX-License-Identifier: MIT
 * Which tensors are encoded, to which type, and how experts are cut apart; see quantise.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "offline_profiler/quantise.h"

/* Small or delicate: in float whatever is asked for. */
static const char *const kept[] = { "ffn_gate_inp", "ssm_conv1d", "shortconv.conv", "position_embd", "token_types", "_norm",
                                    "ssm_a",        "ssm_d",      "attn_rel_b",     "altup",         "hearth." };

static bool ends_with(const char *s, const char *end)
{
    const size_t n = strlen(s), k = strlen(end);
    return n >= k && strcmp(s + n - k, end) == 0;
}

/* Experts stacked in one tensor: which layer and role. */
static bool parse_experts(ht_source *s)
{
    static const struct {
        const char *tail;
        hearth_role role;
        bool fused;
    } names[] = { { "ffn_gate_exps.weight", HEARTH_ROLE_GATE, false },
                  { "ffn_up_exps.weight", HEARTH_ROLE_UP, false },
                  { "ffn_down_exps.weight", HEARTH_ROLE_DOWN, false },
                  { "ffn_gate_up_exps.weight", HEARTH_ROLE_GATE, true } };
    unsigned layer;
    int at = 0;

    if (s->n_dims != 3 || sscanf(s->name, "blk.%5u.%n", &layer, &at) != 1 || at == 0)
        return false;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(s->name + at, names[i].tail) == 0) {
            s->role = names[i].role;
            s->fused = names[i].fused;
            s->layer = layer;
            s->n_expert = s->ne[2] <= UINT16_MAX ? (uint32_t)s->ne[2] : 0;
            return s->n_expert != 0 && (!s->fused || s->ne[1] % 2 == 0);
        }
    return false;
}

/* An expert by itself, as cut_apart() writes them. */
static bool parse_expert(ht_source *s)
{
    static const struct { const char *format; hearth_role role; } names[] = {
        { "blk.%5u.ffn_gate.%5u.weight%n", HEARTH_ROLE_GATE },
        { "blk.%5u.ffn_up.%5u.weight%n", HEARTH_ROLE_UP },
        { "blk.%5u.ffn_down.%5u.weight%n", HEARTH_ROLE_DOWN },
    };
    unsigned layer, expert;

    for (size_t i = 0; s->n_dims == 2 && i < sizeof names / sizeof *names; i++) {
        int end = 0;
        if (sscanf(s->name, names[i].format, &layer, &expert, &end) != 2 || end == 0 || s->name[end] || expert >= UINT16_MAX)
            continue;
        s->role = names[i].role;
        s->layer = layer;
        s->expert = expert;
        s->n_expert = expert + 1; /* at least */
        return true;
    }
    return false;
}

static ht_source_kind kind_of(ht_source *s, bool readable, bool tied)
{
    if (!readable || s->elements == 0 || s->n_dims < 2 || s->ne[1] < 2 || !ends_with(s->name, ".weight"))
        return HT_SOURCE_COPY;
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        if (strstr(s->name, kept[i]))
            return HT_SOURCE_COPY;
    if (strcmp(s->name, "output.weight") == 0 || (tied && strcmp(s->name, "token_embd.weight") == 0))
        return HT_SOURCE_OUTPUT;
    return parse_experts(s) ? HT_SOURCE_EXPERTS : parse_expert(s) ? HT_SOURCE_EXPERT : HT_SOURCE_MATRIX;
}

ht_status ht_quantise_sources(ht_quantise *q, ht_error *err)
{
    const uint64_t n = hearth_file_n_tensors(q->file);
    const bool tied = hearth_file_find_tensor(q->file, "output.weight") < 0;

    if (hearth_file_find_meta(q->file, "hearth.pack.version") >= 0)
        return ht_fail(err, HT_EUNSUPPORTED, "the model is packed: unpack it first");
    if (hearth_file_powerinfer(q->file)) /* the container's name tells the activation */
        return ht_fail(err, HT_EUNSUPPORTED, "PowerInfer's files cannot be re-encoded in this version");
    q->sources = n && n < UINT32_MAX ? calloc((size_t)n, sizeof *q->sources) : NULL;
    if (!q->sources)
        return n ? ht_fail(err, HT_ENOMEM, "%llu tensors", (unsigned long long)n)
                 : ht_fail(err, HT_EINVAL, "the file holds no tensors");
    for (uint64_t i = 0; i < n; i++) {
        ht_source *s = &q->sources[q->n_sources++];
        hearth_tensor t;
        hearth_file_tensor(q->file, i, &t);
        *s = (ht_source){ .n_dims = t.n_dims, .bytes = t.bytes, .elements = 1 };
        for (int d = 0; d < 4; d++) {
            s->ne[d] = t.ne[d];
            s->elements *= t.ne[d];
        }
        const int type = ht_type_by_name(t.type);
        s->type = type < 0 ? UINT32_MAX : (uint32_t)type;
        if (!(s->name = malloc(strlen(t.name) + 1)))
            return ht_fail(err, HT_ENOMEM, "tensor names");
        memcpy(s->name, t.name, strlen(t.name) + 1);
        s->kind = kind_of(s, t.readable && type >= 0, tied);
        q->r.bytes_in += s->bytes;
        if (s->kind == HT_SOURCE_EXPERTS || s->kind == HT_SOURCE_EXPERT) {
            q->n_layer = s->layer + 1 > q->n_layer ? s->layer + 1 : q->n_layer;
            q->n_expert = s->n_expert > q->n_expert ? s->n_expert : q->n_expert;
        }
    }
    return HT_OK;
}

void ht_quantise_free(ht_quantise *q)
{
    for (uint32_t i = 0; i < q->n_sources; i++)
        free(q->sources[i].name);
    free(q->sources);
    free(q->targets);
    free(q->choice);
    hearth_file_close(&q->file);
}

/* The output matrix decides between tokens: at least 6 bits. */
static uint32_t output_type(const ht_quantise *q, uint32_t type, uint64_t k)
{
    const ht_type_info *t = ht_type_get(type);
    if (q->p.pure || !t->quantised || t->block_bytes * 256u / t->block >= 210)
        return type;
    return k % 256 == 0 ? HT_Q6_K : HT_Q8_0;
}

static ht_target *add_target(ht_quantise *q, uint32_t source, uint32_t type, ht_error *err)
{
    const ht_source *s = &q->sources[source];
    if (q->n_targets == q->room) {
        const uint32_t room = 2 * q->room + 64;
        ht_target *p = realloc(q->targets, room * sizeof *p);
        if (!p) {
            ht_fail(err, HT_ENOMEM, "tensors to be written");
            return NULL;
        }
        q->targets = p;
        q->room = room;
    }
    ht_target *t = &q->targets[q->n_targets++];
    *t = (ht_target){ .source = source, .type = type, .n = s->elements, .n_dims = s->n_dims };
    memcpy(t->ne, s->ne, sizeof t->ne);
    return t;
}

static void count(ht_quantise *q, const ht_target *t)
{
    const ht_source *s = &q->sources[t->source];
    if (s->kind == HT_SOURCE_COPY) {
        q->r.bytes_out += s->bytes;
    } else {
        q->r.bytes_out += ht_type_row_bytes(ht_type_get(t->type), t->n);
        if (t->type != s->type) {
            q->r.weights += t->n;
            q->r.encoded++;
        }
    }
    q->r.tensors++;
}

/* The type for rows of a source, noting where another than `asked` had to be taken. */
static uint32_t choose(ht_quantise *q, const ht_source *s, uint32_t asked)
{
    const uint32_t type = ht_type_fitting(asked, s->ne[0]);
    if (type != asked) {
        q->r.fallbacks++;
        q->r.fallback = ht_type_name(type);
    }
    return type;
}

/* A tensor for each expert, of fused ones two. */
static ht_status cut_apart(ht_quantise *q, uint32_t source, ht_error *err)
{
    static const char *const role_name[] = { "gate", "up", "down" };
    const ht_source *s = &q->sources[source];
    const uint64_t rows = s->fused ? s->ne[1] / 2 : s->ne[1], n = rows * s->ne[0];

    for (uint32_t half = 0; half <= (uint32_t)s->fused; half++)
        for (uint32_t e = 0; e < s->n_expert; e++) {
            const uint32_t role = s->fused ? (half ? HEARTH_ROLE_UP : HEARTH_ROLE_GATE) : s->role;
            ht_target *t = add_target(q, source, choose(q, s, q->widths[ht_quantise_width(q, s->layer, e)]), err);
            if (!t)
                return HT_ENOMEM;
            t->n_dims = 2;
            t->ne[1] = rows;
            t->ne[2] = 1;
            t->first = (uint64_t)e * s->ne[1] * s->ne[0] + half * n;
            t->n = n;
            snprintf(t->name, sizeof t->name, "blk.%u.ffn_%s.%u.weight", s->layer, role_name[role], e);
            count(q, t);
        }
    return HT_OK;
}

/* All experts of a layer have one width. */
static bool even(const ht_quantise *q, const ht_source *s)
{
    for (uint32_t e = 1; e < s->n_expert; e++)
        if (ht_quantise_width(q, s->layer, e) != ht_quantise_width(q, s->layer, 0))
            return false;
    return true;
}

ht_status ht_quantise_targets(ht_quantise *q, ht_error *err)
{
    q->n_targets = 0;
    q->r.bytes_out = q->r.weights = 0;
    q->r.tensors = q->r.encoded = q->r.fallbacks = 0;
    q->r.fallback = NULL;
    for (uint32_t i = 0; i < q->n_sources; i++) {
        const ht_source *s = &q->sources[i];
        uint32_t type = s->type;
        if (s->kind == HT_SOURCE_EXPERTS && !even(q, s)) {
            ht_status st = cut_apart(q, i, err);
            if (st != HT_OK)
                return st;
            continue;
        }
        if (s->kind == HT_SOURCE_EXPERTS)
            type = choose(q, s, q->widths[ht_quantise_width(q, s->layer, 0)]);
        else if (s->kind == HT_SOURCE_EXPERT)
            type = choose(q, s, q->widths[ht_quantise_width(q, s->layer, s->expert)]);
        else if (s->kind == HT_SOURCE_OUTPUT)
            type = choose(q, s, output_type(q, q->widths[0], s->ne[0]));
        else if (s->kind == HT_SOURCE_MATRIX)
            type = choose(q, s, q->widths[0]);
        const ht_target *t = add_target(q, i, type, err);
        if (!t)
            return HT_ENOMEM;
        count(q, t);
    }
    return HT_OK;
}
