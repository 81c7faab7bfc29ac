/* SPDX-License-Identifier: MIT
 * Pins by hand; see plan_pins.h. */
#include "engine/plan_pins.h"

#include <string.h>

/* What a pin names. */
typedef struct place {
    uint32_t from, to;            /* layers, `to` counted; the output is n_layer */
    bool trunks, experts, blocks; /* of them */
} place;

static bool equals(const char *s, size_t n, const char *name) { return strlen(name) == n && !memcmp(s, name, n); }

static bool layer_number(const char **s, const char *end, uint32_t *out)
{
    const char *begin = *s;
    uint32_t v = 0;

    while (*s < end && **s >= '0' && **s <= '9' && v < 1000000)
        v = v * 10 + (uint32_t)(*(*s)++ - '0');
    *out = v;
    return *s > begin;
}

/* "blk.N" or "blk.N-M" */
static bool parse_layers(const char *s, size_t n, place *p)
{
    const char *end = s + n;

    if (n < 5 || memcmp(s, "blk.", 4) != 0)
        return false;
    s += 4;
    if (!layer_number(&s, end, &p->from))
        return false;
    p->to = p->from;
    if (s < end && *s == '-') {
        s++;
        if (!layer_number(&s, end, &p->to))
            return false;
    }
    p->trunks = p->experts = p->blocks = true;
    return s == end;
}

static bool parse_place(const char *s, size_t n, uint32_t n_layer, place *p)
{
    *p = (place){ .to = n_layer ? n_layer - 1 : 0 };
    if (equals(s, n, "experts"))
        p->experts = true;
    else if (equals(s, n, "ffn"))
        p->blocks = true;
    else if (equals(s, n, "attention"))
        p->trunks = true;
    else if (equals(s, n, "output"))
        *p = (place){ .from = n_layer, .to = n_layer, .trunks = true };
    else if (equals(s, n, "all"))
        *p = (place){ .to = n_layer, .trunks = true, .experts = true, .blocks = true };
    else
        return parse_layers(s, n, p);
    return true;
}

static void pin(ht_plan_layer *layers, ht_plan_piece *pieces, const ht_model *m, const place *p, uint8_t may)
{
    uint32_t first = 0;

    for (uint32_t l = 0; l <= m->n_layer; l++) {
        const bool mixture = l < m->n_layer && m->layers[l].ffn.router.host;
        const bool here = l >= p->from && l <= p->to;
        if (here && p->trunks && may != HT_MAY_DISK)
            layers[l].trunk.may = may;
        for (uint32_t i = 0; here && (mixture ? p->experts : p->blocks) && i < layers[l].n_pieces; i++)
            pieces[first + i].may = may;
        first += layers[l].n_pieces;
    }
}

ht_status ht_plan_pin(ht_plan_layer *layers, ht_plan_piece *pieces, const ht_model *m, bool gpu, bool disk,
                      const char *const *pins, size_t n_pins, ht_error *err)
{
    for (size_t i = 0; i < n_pins; i++) {
        const char *eq = strchr(pins[i], '='), *tier = eq ? eq + 1 : "";
        place p;
        const uint8_t may = !strcmp(tier, "vram")   ? HT_MAY_VRAM
                            : !strcmp(tier, "ram")  ? HT_MAY_RAM
                            : !strcmp(tier, "disk") ? HT_MAY_DISK
                                                    : 0;
        if (!eq || !may || !parse_place(pins[i], (size_t)(eq - pins[i]), m->n_layer, &p))
            return ht_fail(err, HT_EINVAL,
                           "\"%.80s\" is no pin: blk.0-7=vram, experts=disk; layers are blk.N, blk.N-M, experts, ffn, attention, "
                           "output and all, tiers vram, ram and disk",
                           pins[i]);
        if (p.from > p.to || p.to > m->n_layer || (p.to == m->n_layer && p.from < m->n_layer && !equals(pins[i], (size_t)(eq - pins[i]), "all")) ||
            (p.from == m->n_layer && !equals(pins[i], (size_t)(eq - pins[i]), "output")))
            return ht_fail(err, HT_EINVAL, "\"%.80s\": this model has layers 0 to %u", pins[i], m->n_layer - 1);
        if (may == HT_MAY_VRAM && !gpu)
            return ht_fail(err, HT_EINVAL, "\"%.80s\": there is no graphics card to pin to", pins[i]);
        if (may == HT_MAY_DISK && !disk)
            return ht_fail(err, HT_EINVAL, "\"%.80s\": this model is not streamed from disk (packed and PowerInfer's never are, others by --io or a small --ram)", pins[i]);
        pin(layers, pieces, m, &p, may);
    }
    return HT_OK;
}
