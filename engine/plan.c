/* SPDX-License-Identifier: MIT
 * The plan solver: prices per byte, and the walk over the layers. See plan.h. */
#include "engine/plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/plan_impl.h"

enum { SHARES = 32 /* shares of a layer in VRAM that are tried at one price */, BISECTIONS = 14 };
/* Placements that moves look at: a few milliseconds of a second for a large problem, whose prices alone come within some
 * tenths of a percent; as many as there are for a small one, where single pieces count. */
enum { WORK_LARGE = 100000, WORK_SMALL = 2000000, SMALL = 256 /* pieces */, STARTS = 12 };

/* Pieces that may go to VRAM or RAM freely, in order of worth, as prefix sums. */
typedef struct curve {
    uint32_t n;
    double *cpu, *gpu, *disk; /* [n + 1] */
    double *bytes;            /* [n + 1] */
    ht_plan_sums pinned;      /* of the others, where they are pinned */
    double pinned_vram, pinned_ram;
} curve;

/* What a layer does at given prices. */
typedef struct choice {
    double cost;
    uint32_t vram, ram; /* the first `vram` pieces of the curve in VRAM, those up to `ram` in RAM */
} choice;

typedef struct solver {
    const ht_plan_problem *p;
    uint32_t *first, *order;
    curve *curves;
    double *numbers;   /* of the curves */
    choice *choices;   /* [n_layers][2]: trunk in RAM, in VRAM */
    uint8_t *from;     /* [n_layers][2]: where the layer before has its trunk */
    ht_plan_state best, now, spare;
    bool no_gpu;
} solver;

static bool sane(const ht_plan_piece *x, bool trunk)
{
    const uint8_t may = trunk ? x->may & (HT_MAY_RAM | HT_MAY_VRAM) : x->may;
    return may && !(x->may & ~HT_MAY_ALL) && x->cpu_seconds >= 0 && x->gpu_seconds >= 0 && x->disk_seconds >= 0 &&
           isfinite(x->cpu_seconds) && isfinite(x->gpu_seconds) && isfinite(x->disk_seconds) && x->bytes < 1ull << 60;
}

static ht_status check(const ht_plan_problem *p, ht_error *err)
{
    uint64_t n = 0;
    bool good = p->n_layers > 0 && p->join_seconds >= 0 && p->hop_seconds >= 0 && p->fixed_seconds >= 0 &&
                isfinite(p->join_seconds) && isfinite(p->hop_seconds) && isfinite(p->fixed_seconds);
    for (uint32_t l = 0; good && l < p->n_layers; l++) {
        good = sane(&p->layers[l].trunk, true);
        for (uint32_t i = 0; good && i < p->layers[l].n_pieces; i++)
            good = sane(&p->layers[l].pieces[i], false);
        n += p->layers[l].n_pieces;
    }
    return good && n < UINT32_MAX ? HT_OK : ht_fail(err, HT_EINVAL, "the plan's figures make no sense");
}

/* Seconds saved per byte by not leaving a piece where it is slowest. */
static double worth(const ht_plan_piece *x)
{
    return (x->cpu_seconds + x->disk_seconds) / ((double)x->bytes + 1.0);
}

/* Sorts by worth, the greatest first; places of equal worth stay in order (heapsort over (worth, place)). */
static bool before(const ht_plan_piece *x, uint32_t a, uint32_t b)
{
    const double wa = worth(&x[a]), wb = worth(&x[b]);
    return wa > wb || (wa == wb && a < b);
}

static void sift(const ht_plan_piece *x, uint32_t *heap, uint32_t at, uint32_t n)
{
    for (uint32_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && before(x, heap[child], heap[child + 1]))
            child++;
        if (!before(x, heap[at], heap[child]))
            return;
        const uint32_t t = heap[at];
        heap[at] = heap[child];
        heap[child] = t;
    }
}

static void sort_by_worth(const ht_plan_piece *x, uint32_t *order, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        order[i] = i;
    for (uint32_t i = n / 2; i-- > 0;)
        sift(x, order, i, n);
    for (uint32_t i = n; i-- > 1;) {
        const uint32_t t = order[0];
        order[0] = order[i];
        order[i] = t;
        sift(x, order, 0, i);
    }
}

static uint8_t best_tier(uint8_t may) /* where a piece goes that is not free */
{
    return may & HT_MAY_RAM ? HT_TIER_RAM : may & HT_MAY_DISK ? HT_TIER_DISK : HT_TIER_VRAM;
}

/* A piece is free where it may go everywhere; the prices know no other. Moves then try what the rest may do. */
static bool is_free(const ht_plan_piece *x) { return x->may == HT_MAY_ALL; }

static void make_curve(const solver *v, uint32_t l)
{
    const ht_plan_layer *layer = &v->p->layers[l];
    const uint32_t *order = v->order + v->first[l];
    curve *c = &v->curves[l];
    for (uint32_t j = 0; j < layer->n_pieces; j++) {
        const ht_plan_piece *x = &layer->pieces[order[j]];
        if (is_free(x)) {
            const uint32_t n = c->n++;
            c->cpu[n + 1] = c->cpu[n] + x->cpu_seconds;
            c->gpu[n + 1] = c->gpu[n] + x->gpu_seconds;
            c->disk[n + 1] = c->disk[n] + x->disk_seconds;
            c->bytes[n + 1] = c->bytes[n] + (double)x->bytes;
            continue;
        }
        switch (best_tier(x->may)) {
        case HT_TIER_VRAM: c->pinned.gpu += x->gpu_seconds; c->pinned.n_gpu++; c->pinned_vram += (double)x->bytes; break;
        case HT_TIER_RAM: c->pinned.cpu += x->cpu_seconds; c->pinned_ram += (double)x->bytes; break;
        default: c->pinned.cpu += x->cpu_seconds; c->pinned.disk += x->disk_seconds;
        }
    }
}

/* The first place in [low, c->n] from which on reading what follows takes no longer than `seconds`. */
static uint32_t enough(const curve *c, uint32_t low, double seconds)
{
    uint32_t high = c->n;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (c->disk[c->n] - c->disk[middle] + c->pinned.disk <= seconds)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* The first place from which on a byte of RAM costs more than the reading that it saves. */
static uint32_t worthwhile(const curve *c, double ram_price)
{
    uint32_t low = 0, high = c->n;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (c->disk[middle + 1] - c->disk[middle] > ram_price * (c->bytes[middle + 1] - c->bytes[middle]))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The layer's best choice with its trunk in RAM or VRAM. */
static choice choose(const solver *v, uint32_t l, bool gpu, double vram_price, double ram_price)
{
    const ht_plan_problem *p = v->p;
    const ht_plan_layer *layer = &p->layers[l];
    const curve *c = &v->curves[l];
    const uint32_t until = ram_price > 0 ? worthwhile(c, ram_price) : c->n;
    const double trunk = gpu ? vram_price * (double)layer->trunk.bytes + ram_price * (double)layer->mirror_bytes
                             : ram_price * (double)layer->trunk.bytes;
    choice best = { .cost = INFINITY };
    uint32_t last = UINT32_MAX;

    if (!(layer->trunk.may & (gpu ? HT_MAY_VRAM : HT_MAY_RAM)) || (gpu && v->no_gpu))
        return best;
    for (uint32_t k = 0; k <= SHARES; k++) {
        const uint32_t n = v->no_gpu ? 0 : (uint32_t)((uint64_t)c->n * k / SHARES);
        if (n == last)
            continue;
        last = n;
        ht_plan_sums s = { c->pinned.cpu + c->cpu[c->n] - c->cpu[n], c->pinned.gpu + c->gpu[n], 0, c->pinned.n_gpu + n };
        const uint32_t e = ram_price > 0 ? enough(c, n, s.cpu > s.gpu ? s.cpu : s.gpu) : c->n;
        uint32_t ram = e < until ? e : until;
        ram = ram < n ? n : ram;
        s.disk = c->pinned.disk + c->disk[c->n] - c->disk[ram];
        const double cost = ht_plan_layer_seconds(p, l, gpu, &s) + trunk + vram_price * c->bytes[n] +
                            ram_price * (c->bytes[ram] - c->bytes[n]);
        if (cost < best.cost)
            best = (choice){ cost, n, ram };
    }
    return best;
}

/* Every layer's choice at these prices into v->now. False: some layer has none. */
static bool walk(solver *v, double vram_price, double ram_price)
{
    const ht_plan_problem *p = v->p;
    ht_plan_state *s = &v->now;
    double at[2] = { 0.0, INFINITY }; /* before the first layer: the host */

    for (uint32_t l = 0; l < p->n_layers; l++) {
        double to[2];
        for (int gpu = 0; gpu < 2; gpu++) {
            choice *c = &v->choices[2 * l + (uint32_t)gpu];
            *c = choose(v, l, gpu, vram_price, ram_price);
            const double stay = at[gpu], hop = at[!gpu] + p->hop_seconds;
            v->from[2 * l + (uint32_t)gpu] = (uint8_t)(stay <= hop ? gpu : !gpu);
            to[gpu] = (stay <= hop ? stay : hop) + c->cost;
        }
        at[0] = to[0];
        at[1] = to[1];
    }
    int gpu = at[1] + p->hop_seconds < at[0];
    if (!isfinite(at[gpu]))
        return false;
    for (uint32_t l = p->n_layers; l-- > 0; gpu = v->from[2 * l + (uint32_t)gpu]) {
        const choice *c = &v->choices[2 * l + (uint32_t)gpu];
        const uint32_t *order = v->order + v->first[l];
        uint8_t *tier = s->tier + v->first[l];
        uint32_t n = 0;
        s->trunk[l] = gpu ? HT_TIER_VRAM : HT_TIER_RAM;
        for (uint32_t j = 0; j < p->layers[l].n_pieces; j++) {
            const ht_plan_piece *x = &p->layers[l].pieces[order[j]];
            if (!is_free(x)) {
                tier[order[j]] = best_tier(x->may);
                continue;
            }
            tier[order[j]] = n < c->vram ? HT_TIER_VRAM : n < c->ram ? HT_TIER_RAM : HT_TIER_DISK;
            n++;
        }
    }
    ht_plan_recount(s);
    return true;
}

static bool vram_holds(const ht_plan_state *s) { return ht_plan_vram(s) <= s->p->vram_bytes; }
static bool ram_holds(const ht_plan_state *s) { return ht_plan_ram(s) <= s->p->ram_bytes; }

/* The least VRAM price at which the budget of VRAM holds, v->now at it; the price is returned, negative: none is known. */
static double price_vram(solver *v, double ram_price, double guess)
{
    if (!walk(v, 0.0, ram_price))
        return -1.0;
    if (vram_holds(&v->now))
        return 0.0;
    double low = 0.0, high = guess;
    for (int i = 0; walk(v, high, ram_price) && !vram_holds(&v->now); i++) {
        if (i == 200)
            return -1.0;
        low = high;
        high *= 8.0;
    }
    for (int i = 0; i < BISECTIONS; i++) {
        const double middle = low > 0 ? sqrt(low * high) : high / 8.0;
        if (!walk(v, middle, ram_price))
            return -1.0;
        if (vram_holds(&v->now))
            high = middle;
        else
            low = middle;
    }
    walk(v, high, ram_price);
    return high;
}

/* Takes v->now, repaired and improved, where it is better than the best. */
static void take(solver *v, int64_t *work, bool *found)
{
    if (!ht_plan_repair(&v->now, v->order))
        return;
    ht_plan_improve(&v->now, &v->spare, v->order, work);
    if (!*found || v->now.seconds < v->best.seconds)
        ht_plan_copy(&v->best, &v->now);
    *found = true;
}

/* Starts that need no price. The first: all in RAM; the others: trunks and pieces in VRAM or RAM by the bits of a counter's hash. */
static void plain_start(solver *v, uint32_t start)
{
    const ht_plan_problem *p = v->p;
    uint64_t x = start;
    for (uint32_t l = 0; l < p->n_layers; l++)
        for (int32_t i = -1; i < (int32_t)p->layers[l].n_pieces; i++) {
            const bool trunk = i < 0;
            const uint8_t may = trunk ? p->layers[l].trunk.may & ~HT_MAY_DISK : p->layers[l].pieces[i].may;
            x = (x ^ x >> 29) * 0xbf58476d1ce4e5b9u + (start ? 0x94d049bb133111ebu : 0);
            uint8_t to = best_tier(may);
            if (start && (x >> 60 & 3) < start % 4 && may & HT_MAY_VRAM)
                to = HT_TIER_VRAM;
            *(trunk ? &v->now.trunk[l] : &v->now.tier[v->first[l] + (uint32_t)i]) = to;
        }
    ht_plan_recount(&v->now);
}

static void search(solver *v, int64_t *work, bool *found)
{
    const ht_plan_problem *p = v->p;
    double total = 0.0;
    for (uint32_t l = 0; l < p->n_layers; l++)
        total += p->layers[l].trunk.cpu_seconds + v->curves[l].cpu[v->curves[l].n] + v->curves[l].disk[v->curves[l].n];
    const double guess = (total + 1e-9) / ((double)p->vram_bytes + (double)p->ram_bytes + 1.0);

    double vram = price_vram(v, 0.0, guess);
    if (vram >= 0 && !ram_holds(&v->now)) {
        double low = 0.0, high = guess;
        for (int i = 0; i < 60 && vram >= 0 && !ram_holds(&v->now); i++) {
            low = i ? high / 8.0 : 0.0;
            vram = price_vram(v, high, vram > 0 ? vram : guess);
            if (vram < 0 || ram_holds(&v->now))
                break;
            high *= 8.0;
        }
        for (int i = 0; i < BISECTIONS && vram >= 0; i++) {
            const double middle = low > 0 ? sqrt(low * high) : high / 8.0;
            vram = price_vram(v, middle, vram > 0 ? vram : guess);
            if (ram_holds(&v->now))
                high = middle;
            else
                low = middle;
        }
        if (vram >= 0)
            vram = price_vram(v, high, vram > 0 ? vram : guess);
    }
    if (vram >= 0)
        take(v, work, found);
}

static bool make_state(solver *v, ht_plan_state *s)
{
    const uint32_t n = v->p->n_layers, pieces = v->first[n];
    *s = (ht_plan_state){ .p = v->p, .first = v->first };
    s->trunk = calloc(n, 1);
    s->tier = calloc((size_t)pieces + 1, 1);
    s->sums = calloc(n, sizeof *s->sums);
    return s->trunk && s->tier && s->sums;
}

static void drop_state(ht_plan_state *s)
{
    free(s->trunk);
    free(s->tier);
    free(s->sums);
}

static void close_solver(solver *v)
{
    drop_state(&v->best);
    drop_state(&v->now);
    drop_state(&v->spare);
    free(v->first);
    free(v->order);
    free(v->curves);
    free(v->numbers);
    free(v->choices);
    free(v->from);
}

static bool open_solver(solver *v, const ht_plan_problem *p)
{
    const uint32_t n = p->n_layers;
    *v = (solver){ .p = p };
    v->first = calloc((size_t)n + 1, sizeof *v->first);
    v->curves = calloc(n, sizeof *v->curves);
    v->choices = calloc(2 * (size_t)n, sizeof *v->choices);
    v->from = calloc(2 * (size_t)n, 1);
    if (!v->first || !v->curves || !v->choices || !v->from)
        return false;
    for (uint32_t l = 0; l < n; l++)
        v->first[l + 1] = v->first[l] + p->layers[l].n_pieces;
    v->order = calloc((size_t)v->first[n] + 1, sizeof *v->order);
    v->numbers = calloc(4 * ((size_t)v->first[n] + n), sizeof *v->numbers);
    if (!v->order || !v->numbers || !make_state(v, &v->best) || !make_state(v, &v->now) || !make_state(v, &v->spare))
        return false;
    double *numbers = v->numbers;
    for (uint32_t l = 0; l < n; l++) {
        const size_t m = (size_t)p->layers[l].n_pieces + 1;
        sort_by_worth(p->layers[l].pieces, v->order + v->first[l], p->layers[l].n_pieces);
        v->curves[l] = (curve){ .cpu = numbers, .gpu = numbers + m, .disk = numbers + 2 * m, .bytes = numbers + 3 * m };
        numbers += 4 * m;
        make_curve(v, l);
    }
    return true;
}

static ht_status hand_over(ht_plan *out, const solver *v, ht_error *err)
{
    const uint32_t n = v->p->n_layers;
    out->n_layers = n;
    out->trunk = calloc(n, 1);
    out->pieces = calloc((size_t)v->first[n] + 1, 1);
    out->first = calloc((size_t)n + 1, sizeof *out->first);
    if (!out->trunk || !out->pieces || !out->first)
        return ht_fail(err, HT_ENOMEM, "the plan");
    memcpy(out->trunk, v->best.trunk, n);
    memcpy(out->pieces, v->best.tier, v->first[n]);
    memcpy(out->first, v->first, ((size_t)n + 1) * sizeof *out->first);
    ht_plan_price(out, v->p);
    return HT_OK;
}

ht_status ht_plan_solve(ht_plan *out, const ht_plan_problem *p, ht_error *err)
{
    solver v;
    bool found = false;

    *out = (ht_plan){ 0 };
    ht_status st = check(p, err);
    if (st != HT_OK)
        return st;
    if (!open_solver(&v, p)) {
        close_solver(&v);
        return ht_fail(err, HT_ENOMEM, "the plan");
    }
    const bool small = v.first[p->n_layers] + p->n_layers <= SMALL;
    int64_t work = small ? WORK_SMALL : WORK_LARGE;
    search(&v, &work, &found);
    for (uint32_t i = 0; i < STARTS && (small || !found); i++) {
        plain_start(&v, i);
        take(&v, &work, &found);
    }
    if (found) {
        st = hand_over(out, &v, err);
        if (st != HT_OK)
            ht_plan_deinit(out);
    } else { /* v.now is what repairing made of it: the least of RAM */
        const uint64_t ram = ht_plan_ram(&v.now);
        out->short_bytes = ram > p->ram_bytes ? ram - p->ram_bytes : 0;
        st = ht_fail(err, HT_ENOMEM, "%.1f MiB of memory more are needed", (double)out->short_bytes / (1 << 20));
    }
    close_solver(&v);
    return st;
}
