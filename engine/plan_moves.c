/* SPDX-License-Identifier: MIT
 * Local search over placements: repairs what does not fit, improves what does. See plan.h. */
#include <math.h>

#include "engine/plan_impl.h"

enum { TRUNK = -1, ALL_PAIRS = 256 /* so many pieces and trunks at most have all their pairs tried */ };

/* Something that is placed: a piece of a layer, or its trunk. */
typedef struct item { uint32_t layer; int32_t piece; } item;

/* What a move changes, to take it back. */
typedef struct mark {
    item x;
    uint8_t tier;
    ht_plan_sums sums;
    double seconds;
    uint64_t vram, ram_trunks, ram_pieces;
    uint32_t in_vram, on_disk;
} mark;

static bool fits(const ht_plan_state *s)
{
    return ht_plan_vram(s) <= s->p->vram_bytes && ht_plan_ram(s) <= s->p->ram_bytes;
}

static uint8_t *tier_of(const ht_plan_state *s, item x)
{
    return x.piece == TRUNK ? &s->trunk[x.layer] : &s->tier[s->first[x.layer] + (uint32_t)x.piece];
}

static const ht_plan_piece *piece_of(const ht_plan_state *s, item x)
{
    const ht_plan_layer *l = &s->p->layers[x.layer];
    return x.piece == TRUNK ? &l->trunk : &l->pieces[x.piece];
}

static bool may(const ht_plan_state *s, item x, uint8_t tier)
{
    const uint8_t all = piece_of(s, x)->may;
    return (x.piece == TRUNK ? all & ~HT_MAY_DISK : all) >> tier & 1;
}

/* Hops on either side of a layer. */
static double hops(const ht_plan_state *s, uint32_t l)
{
    const bool at = s->trunk[l] == HT_TIER_VRAM, before = l > 0 && s->trunk[l - 1] == HT_TIER_VRAM,
               after = l + 1 < s->p->n_layers && s->trunk[l + 1] == HT_TIER_VRAM;
    return s->p->hop_seconds * ((before != at) + (after != at));
}

static double layer_seconds(const ht_plan_state *s, uint32_t l)
{
    return ht_plan_layer_seconds(s->p, l, s->trunk[l] == HT_TIER_VRAM, &s->sums[l]);
}

static mark move(ht_plan_state *s, item x, uint8_t to)
{
    uint8_t *tier = tier_of(s, x);
    const ht_plan_piece *y = piece_of(s, x);
    ht_plan_sums *sums = &s->sums[x.layer];
    const mark m = { x, *tier, *sums, s->seconds, s->vram, s->ram_trunks, s->ram_pieces, s->in_vram, s->on_disk };

    s->seconds -= layer_seconds(s, x.layer) + hops(s, x.layer);
    if (x.piece == TRUNK) {
        const uint64_t mirror = s->p->layers[x.layer].mirror_bytes;
        if (to == HT_TIER_VRAM) {
            s->vram += y->bytes;
            s->ram_trunks += mirror - y->bytes;
            s->in_vram++;
        } else {
            s->vram -= y->bytes;
            s->ram_trunks += y->bytes - mirror;
            s->in_vram--;
        }
    } else {
        switch (m.tier) {
        case HT_TIER_VRAM: sums->gpu -= y->gpu_seconds; sums->n_gpu--; s->vram -= y->bytes; s->in_vram--; break;
        case HT_TIER_RAM: sums->cpu -= y->cpu_seconds; s->ram_pieces -= y->bytes; break;
        default: sums->cpu -= y->cpu_seconds; sums->disk -= y->disk_seconds; s->on_disk--;
        }
        switch (to) {
        case HT_TIER_VRAM: sums->gpu += y->gpu_seconds; sums->n_gpu++; s->vram += y->bytes; s->in_vram++; break;
        case HT_TIER_RAM: sums->cpu += y->cpu_seconds; s->ram_pieces += y->bytes; break;
        default: sums->cpu += y->cpu_seconds; sums->disk += y->disk_seconds; s->on_disk++;
        }
    }
    *tier = to;
    s->seconds += layer_seconds(s, x.layer) + hops(s, x.layer);
    return m;
}

static void take_back(ht_plan_state *s, const mark *m)
{
    *tier_of(s, m->x) = m->tier;
    s->sums[m->x.layer] = m->sums;
    s->seconds = m->seconds;
    s->vram = m->vram;
    s->ram_trunks = m->ram_trunks;
    s->ram_pieces = m->ram_pieces;
    s->in_vram = m->in_vram;
    s->on_disk = m->on_disk;
}

static bool better(double now, double before) { return now < before - 1e-9 * before; }

/* Of a layer the piece in `tier` of the least worth (last), or of the greatest. False: none is there. */
static bool border(const ht_plan_state *s, const uint32_t *order, uint32_t layer, uint8_t tier, bool last, item *x)
{
    const uint32_t n = s->p->layers[layer].n_pieces;
    order += s->first[layer];
    for (uint32_t j = 0; j < n; j++) {
        const uint32_t i = order[last ? n - 1 - j : j];
        if (s->tier[s->first[layer] + i] == tier) {
            *x = (item){ layer, (int32_t)i };
            return true;
        }
    }
    return false;
}

/* The best of moving x to `to` by what it costs for each byte moved. */
typedef struct bid {
    item x;
    uint8_t to;
    double price; /* seconds per byte; INFINITY: none yet */
} bid;

static void offer(ht_plan_state *s, item x, uint8_t to, bid *best)
{
    if (*tier_of(s, x) == to || !may(s, x, (uint8_t)to))
        return;
    const double before = s->seconds;
    const mark m = move(s, x, (uint8_t)to);
    const double price = (s->seconds - before) / ((double)piece_of(s, x)->bytes + 1.0);
    if (price < best->price)
        *best = (bid){ x, to, price };
    take_back(s, &m);
}

static bool room_in_vram(const ht_plan_state *s, item x)
{
    const uint64_t need = s->vram + piece_of(s, x)->bytes + s->p->vram_fixed;
    return need <= s->p->vram_bytes;
}

static bool free_vram(ht_plan_state *s, const uint32_t *order)
{
    while (ht_plan_vram(s) > s->p->vram_bytes) {
        bid best = { .price = INFINITY };
        for (uint32_t l = 0; l < s->p->n_layers; l++) {
            item x;
            if (border(s, order, l, HT_TIER_VRAM, true, &x)) {
                offer(s, x, HT_TIER_RAM, &best);
                if (!may(s, x, HT_TIER_RAM))
                    offer(s, x, HT_TIER_DISK, &best);
            }
            if (s->trunk[l] == HT_TIER_VRAM)
                offer(s, (item){ l, TRUNK }, HT_TIER_RAM, &best);
        }
        if (!isfinite(best.price))
            return false;
        move(s, best.x, best.to);
    }
    return true;
}

static bool free_ram(ht_plan_state *s, const uint32_t *order)
{
    while (ht_plan_ram(s) > s->p->ram_bytes) {
        bid best = { .price = INFINITY };
        for (uint32_t l = 0; l < s->p->n_layers; l++) {
            item x;
            const item trunk = { l, TRUNK };
            if (border(s, order, l, HT_TIER_RAM, true, &x))
                offer(s, x, HT_TIER_DISK, &best);
            if (border(s, order, l, HT_TIER_RAM, false, &x) && room_in_vram(s, x))
                offer(s, x, HT_TIER_VRAM, &best);
            if (s->trunk[l] == HT_TIER_RAM && room_in_vram(s, trunk))
                offer(s, trunk, HT_TIER_VRAM, &best);
        }
        if (!isfinite(best.price))
            return false;
        move(s, best.x, best.to);
    }
    return true;
}

/* The least of RAM: pieces on disk, trunks in VRAM as far as it goes. */
static bool least_ram(ht_plan_state *s, const uint32_t *order)
{
    for (uint32_t l = 0; l < s->p->n_layers; l++)
        for (uint32_t i = 0; i < s->p->layers[l].n_pieces; i++) {
            const item x = { l, (int32_t)i };
            if (*tier_of(s, x) != HT_TIER_DISK && may(s, x, HT_TIER_DISK))
                move(s, x, HT_TIER_DISK);
        }
    return free_ram(s, order);
}

bool ht_plan_repair(ht_plan_state *s, const uint32_t *order)
{
    const bool done = free_vram(s, order) && (free_ram(s, order) || least_ram(s, order));
    ht_plan_recount(s);
    return done;
}

/* Moves to faster tiers while they help, the most for each byte first. */
static void fill(ht_plan_state *s, const uint32_t *order, int64_t *work)
{
    while (*work > 0) {
        bid best = { .price = 0.0 };
        bool any = false;
        for (uint32_t l = 0; l < s->p->n_layers; l++) {
            const struct { uint8_t from, to; } ways[] = { { HT_TIER_RAM, HT_TIER_VRAM }, { HT_TIER_DISK, HT_TIER_RAM },
                                                          { HT_TIER_DISK, HT_TIER_VRAM } };
            item x;
            for (int i = 0; i <= 3; i++) {
                bid b = best;
                if (i == 3 ? s->trunk[l] != HT_TIER_RAM : !border(s, order, l, ways[i].from, false, &x))
                    continue;
                x = i == 3 ? (item){ l, TRUNK } : x;
                const uint8_t to = i == 3 ? HT_TIER_VRAM : ways[i].to;
                *work -= 1;
                offer(s, x, to, &b);
                if (b.price < best.price) {
                    const mark m = move(s, b.x, b.to);
                    if (fits(s)) {
                        best = b;
                        any = true;
                    }
                    take_back(s, &m);
                }
            }
        }
        if (!any)
            return;
        move(s, best.x, best.to);
    }
}

static void singles(ht_plan_state *s, int64_t *work)
{
    for (uint32_t l = 0; l < s->p->n_layers; l++)
        for (int32_t i = TRUNK; i < (int32_t)s->p->layers[l].n_pieces && *work > 0; i++)
            for (uint32_t to = HT_TIER_DISK; to <= HT_TIER_VRAM; to++) {
                const item x = { l, i };
                if (*tier_of(s, x) == to || !may(s, x, (uint8_t)to))
                    continue;
                *work -= 1;
                const double before = s->seconds;
                const mark m = move(s, x, (uint8_t)to);
                if (!fits(s) || !better(s->seconds, before))
                    take_back(s, &m);
            }
}

/* Two items change tiers. */
static bool exchange(ht_plan_state *s, item a, item b, int64_t *work)
{
    const uint8_t ta = *tier_of(s, a), tb = *tier_of(s, b);
    if (ta == tb || !may(s, a, tb) || !may(s, b, ta))
        return false;
    *work -= 1;
    const double before = s->seconds;
    const mark first = move(s, a, tb), second = move(s, b, ta);
    if (fits(s) && better(s->seconds, before))
        return true;
    take_back(s, &second);
    take_back(s, &first);
    return false;
}

static void all_pairs(ht_plan_state *s, int64_t *work)
{
    const uint32_t n = s->p->n_layers;
    for (uint32_t k = 0; k < n; k++)
        for (int32_t i = TRUNK; i < (int32_t)s->p->layers[k].n_pieces; i++)
            for (uint32_t l = k; l < n && *work > 0; l++)
                for (int32_t j = l == k ? i + 1 : TRUNK; j < (int32_t)s->p->layers[l].n_pieces; j++)
                    exchange(s, (item){ k, i }, (item){ l, j }, work);
}

/* Of two layers those pieces that stand at the borders of their tiers, and the trunks. */
static void border_pairs(ht_plan_state *s, const uint32_t *order, int64_t *work)
{
    const uint32_t n = s->p->n_layers;
    for (uint32_t k = 0; k < n; k++)
        for (uint32_t l = 0; l < n && *work > 0; l++)
            for (uint32_t fast = HT_TIER_RAM; fast <= HT_TIER_VRAM; fast++) {
                item a, b;
                for (uint32_t slow = HT_TIER_DISK; slow < fast; slow++)
                    if (border(s, order, k, (uint8_t)fast, true, &a) && border(s, order, l, (uint8_t)slow, false, &b))
                        exchange(s, a, b, work);
                if (k < l && fast == HT_TIER_VRAM)
                    exchange(s, (item){ k, TRUNK }, (item){ l, TRUNK }, work);
            }
}

/* A layer's share of VRAM and its trunk set at once, the rest repaired and filled up. */
static void shares(ht_plan_state *s, ht_plan_state *other, const uint32_t *order, int64_t *work)
{
    enum { QUARTERS = 4 };
    for (uint32_t l = 0; l < s->p->n_layers; l++)
        for (uint32_t trunk = HT_TIER_RAM; trunk <= HT_TIER_VRAM; trunk++)
            for (uint32_t k = 0; k <= QUARTERS && *work > 0; k++) {
                const uint32_t n = s->p->layers[l].n_pieces, fast = n * k / QUARTERS;
                const item root = { l, TRUNK };
                if (!may(s, root, (uint8_t)trunk) || (k && fast == n * (k - 1) / QUARTERS))
                    continue;
                ht_plan_copy(other, s);
                if (*tier_of(other, root) != trunk)
                    move(other, root, (uint8_t)trunk);
                for (uint32_t j = 0; j < n; j++) {
                    const item x = { l, (int32_t)order[s->first[l] + j] };
                    const uint8_t tier = *tier_of(other, x);
                    if (j < fast && tier != HT_TIER_VRAM && may(other, x, HT_TIER_VRAM))
                        move(other, x, HT_TIER_VRAM);
                    else if (j >= fast && tier == HT_TIER_VRAM && may(other, x, HT_TIER_RAM))
                        move(other, x, HT_TIER_RAM);
                }
                *work -= s->first[s->p->n_layers] / 4 + 8;
                if (!ht_plan_repair(other, order))
                    continue;
                fill(other, order, work);
                if (better(other->seconds, s->seconds) && fits(other)) {
                    ht_plan_copy(s, other);
                    ht_plan_recount(s);
                }
            }
}

void ht_plan_improve(ht_plan_state *s, ht_plan_state *other, const uint32_t *order, int64_t *work)
{
    double before;

    fill(s, order, work);
    do {
        before = s->seconds;
        singles(s, work);
        if (s->first[s->p->n_layers] + s->p->n_layers <= ALL_PAIRS)
            all_pairs(s, work);
        else
            border_pairs(s, order, work);
        shares(s, other, order, work);
        ht_plan_recount(s); /* the sums were changed in steps */
    } while (better(s->seconds, before) && *work > 0);
}
