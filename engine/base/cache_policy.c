/* SPDX-License-Identifier: MIT
 * Which experts stay in memory; see cache_policy.h.
 *
 * Every held unit has a key: what leaves is the unit with the largest key + layer offset, ties by the oldest use. Keys of a
 * layer change when it is used (HEAT) or when a unit is (the others); the layer's first to leave is kept until something
 * in it changes, so that finding room looks at each layer once and at the units of a few. */
#include "engine/base/cache_policy.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* HEAT. What leaves is the unit whose next use is expected to be farthest away, in rounds of all layers: the part of a round
 * until its layer is computed again, and unless it is used then, 1 / (its share of uses per round) rounds.
 *   share   a mean of moving averages of different memory, which know what the text is about now and what the model is like
 *   then    what the most similar of the last tokens used: those whose experts, in the layers so far, were most like this
 *           one's. A layer that is still to come for this token is foretold a few layers before; a layer that was used, for
 *           the next token, then and again twice as the token becomes clearer
 * Waiting has an end: nobody keeps a place for longer than places last, which is in proportion to the tokens whose experts
 * all would find room (PATIENCE). The constants are from a search over recorded routing; docs/experts.md tells of it. */
enum { AVERAGES = 3, MEMORY = 256, SIMILAR = 38 };
static const float DECAY[AVERAGES] = { 0.385f, 0.949f, 0.9804f }, PART[AVERAGES] = { 0.17f, 0.73f, 0.1f };
static const float PROMPT = 0.39f; /* what a token of a prompt is worth */
static const float FLOOR = 0.09f;  /* of a share: nothing is never used */
static const double ROUND = 1.23;  /* what a whole round is worth */
static const float PATIENCE = 1.8f;
static const float FORGET = 1.0f / 18.6f;                              /* of likeness, per layer */
static const float SHARP = 7.8f, DOUBT = 0.21f;                        /* what likeness is worth; weight of the share */
static const float SHARP_NEXT = 7.2f, DOUBT_NEXT = 0.55f;              /* the same where it is about the next token */
static const uint32_t AGAIN[] = { 0, 4, 16 }, AHEAD[] = { 1, 2, 4, 8, 16 }; /* layers ago, and to come */
/* A unit that is only foreseen counts as used every other time. */
static const double FORESEEN = 1.0;

enum { NONE = -1, DIRTY = -2 };

typedef struct layer {
    uint64_t unit_bytes;
    double offset;      /* added to the keys of its units */
    float seen[AVERAGES]; /* what the moving averages of a unit that is always used would be */
    int32_t first;      /* unit that leaves first; NONE: all are pinned or away; DIRTY: not known */
    uint32_t n_used;    /* by the last token */
} layer;

struct ht_cache {
    ht_cache_kind kind;
    uint32_t n_layer, n_expert, n_unit;
    uint64_t budget, used, clock, random;
    uint32_t now;       /* the layer used last */
    uint64_t cycle;     /* bytes that one token uses */
    float longest;      /* rounds that waiting for a unit may count */
    layer *layers;      /* [n_layer] */
    double *key;        /* [n_unit] */
    uint64_t *last;     /* [n_unit] clock of the last use */
    float *average[AVERAGES]; /* [n_unit] moving averages of uses */
    float *share, *wait; /* [n_unit] and 1 / share */
    /* The last tokens: what they used, and how like they are to the one that is computed. */
    uint64_t *taken;    /* [MEMORY][n_layer][words] bits of experts */
    uint32_t words, token, n_token; /* token: the one computed, a place in the ring; n_token: that are remembered before it */
    float alike[MEMORY], likeness;  /* likeness: of a token to itself */
    bool follows[MEMORY];           /* the token before it in the ring is the one before it in the text */
    bool in_token;
    uint32_t n_prompt, prompt_layer; /* tokens of a prompt that are being remembered, as far as this layer; 0: none */
    float *then;        /* [n_expert] scratch */
    uint32_t *count;    /* [n_unit] */
    uint32_t *pins;     /* [n_unit] */
    uint32_t *held_at;  /* [n_unit] place in held + 1; 0: not held */
    uint32_t *held;     /* [n_held] */
    uint32_t n_held;
};

/* ---- Keys ---- */

static void set_share(ht_cache *c, uint32_t unit)
{
    const layer *l = &c->layers[unit / c->n_expert];
    float share = FLOOR;
    for (int i = 0; i < AVERAGES; i++)
        share += l->seen[i] > 0.0f ? PART[i] * c->average[i][unit] / l->seen[i] : 0.0f;
    c->share[unit] = share < 1.0f ? share : 1.0f;
    c->wait[unit] = 1.0f / c->share[unit];
}

/* then: chance of being used the next time that its layer is computed. */
static double heat_key(const ht_cache *c, uint32_t unit, float then)
{
    const float wait = c->wait[unit] < c->longest ? c->wait[unit] : c->longest;
    return then < 1.0f ? (double)((1.0f - then) * wait) : 0.0;
}

static void set_patience(ht_cache *c)
{
    c->longest = c->cycle ? PATIENCE * (float)((double)c->budget / (double)c->cycle) : INFINITY;
}

static void count_cycle(ht_cache *c, layer *l, uint32_t n)
{
    if (l->n_used == n)
        return;
    c->cycle += n * l->unit_bytes - l->n_used * l->unit_bytes;
    l->n_used = n;
    set_patience(c);
}

static void set_key(ht_cache *c, uint32_t unit, double key)
{
    c->key[unit] = key;
    c->layers[unit / c->n_expert].first = DIRTY;
}

/* The layer just computed is a whole round away, the one after it is next. */
static void set_offsets(ht_cache *c, uint32_t now)
{
    c->now = now;
    for (uint32_t i = 0; i < c->n_layer; i++) {
        const uint32_t ahead = i > now ? i - now : i + c->n_layer - now;
        c->layers[i].offset = c->kind == HT_CACHE_HEAT ? ROUND * ahead / c->n_layer : 0.0;
    }
}

static bool leaves_before(const ht_cache *c, uint32_t a, uint32_t b)
{
    const double ka = c->key[a] + c->layers[a / c->n_expert].offset, kb = c->key[b] + c->layers[b / c->n_expert].offset;
    return ka > kb || (ka == kb && c->last[a] < c->last[b]);
}

static int32_t first_of_layer(ht_cache *c, uint32_t il)
{
    layer *l = &c->layers[il];
    if (l->first != DIRTY)
        return l->first;
    l->first = NONE;
    for (uint32_t u = il * c->n_expert; u < (il + 1) * c->n_expert; u++)
        if (c->held_at[u] && !c->pins[u] && (l->first == NONE || leaves_before(c, u, (uint32_t)l->first)))
            l->first = (int32_t)u;
    return l->first;
}

static int32_t any_unit(ht_cache *c)
{
    if (!c->n_held)
        return NONE;
    c->random ^= c->random << 13;
    c->random ^= c->random >> 7;
    c->random ^= c->random << 17;
    for (uint32_t i = 0, at = (uint32_t)(c->random % c->n_held); i < c->n_held; i++, at++)
        if (!c->pins[c->held[at % c->n_held]])
            return (int32_t)c->held[at % c->n_held];
    return NONE;
}

static int32_t first_to_leave(ht_cache *c)
{
    int32_t best = NONE;
    if (c->kind == HT_CACHE_RANDOM)
        return any_unit(c);
    for (uint32_t il = 0; il < c->n_layer; il++) {
        const int32_t u = first_of_layer(c, il);
        if (u != NONE && (best == NONE || leaves_before(c, (uint32_t)u, (uint32_t)best)))
            best = u;
    }
    return best;
}

/* ---- Holding ---- */

static void hold(ht_cache *c, uint32_t unit)
{
    c->held[c->n_held] = unit;
    c->held_at[unit] = ++c->n_held;
    c->used += c->layers[unit / c->n_expert].unit_bytes;
    c->layers[unit / c->n_expert].first = DIRTY;
}

static void drop(ht_cache *c, uint32_t unit)
{
    const uint32_t at = c->held_at[unit] - 1, moved = c->held[--c->n_held];
    c->held[at] = moved;
    c->held_at[moved] = at + 1;
    c->held_at[unit] = 0;
    c->used -= c->layers[unit / c->n_expert].unit_bytes;
    c->layers[unit / c->n_expert].first = DIRTY;
}

bool ht_cache_holds(const ht_cache *c, uint32_t unit) { return c->held_at[unit] != 0; }

void ht_cache_remove(ht_cache *c, uint32_t unit)
{
    if (c->held_at[unit])
        drop(c, unit);
}

void ht_cache_pin(ht_cache *c, uint32_t unit, bool pinned)
{
    if (pinned)
        c->pins[unit]++;
    else if (c->pins[unit])
        c->pins[unit]--;
    c->layers[unit / c->n_expert].first = DIRTY;
}

/* ---- Similar tokens ---- */

static uint64_t *taken(const ht_cache *c, uint32_t token, uint32_t il)
{
    return c->taken + ((size_t)token * c->n_layer + il) * c->words;
}

static void begin_token(ht_cache *c, bool follows)
{
    c->token = (c->token + 1) % MEMORY;
    c->n_token += c->n_token < MEMORY - 1;
    memset(taken(c, c->token, 0), 0, (size_t)c->n_layer * c->words * sizeof *c->taken);
    memset(c->alike, 0, sizeof c->alike);
    c->likeness = 0.0f;
    c->follows[c->token] = follows;
}

static uint32_t before(const ht_cache *c, uint32_t ago)
{
    return (c->token + MEMORY - ago) % MEMORY;
}

void ht_cache_remember(ht_cache *c, uint32_t layer, const uint32_t *experts, uint32_t n_tokens, uint32_t n_used)
{
    const uint32_t n = n_tokens < MEMORY ? n_tokens : MEMORY - 1;

    if (c->kind != HT_CACHE_HEAT || !n)
        return;
    if (n != c->n_prompt || layer <= c->prompt_layer)
        for (uint32_t i = 0; i < n; i++)
            begin_token(c, i > 0);
    c->n_prompt = n;
    c->prompt_layer = layer;
    experts += (size_t)(n_tokens - n) * n_used;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t *bits = taken(c, before(c, n - 1 - i), layer);
        for (uint32_t k = 0; k < n_used; k++)
            bits[experts[i * n_used + k] / 64] |= 1ull << experts[i * n_used + k] % 64;
    }
}

/* The token computed takes these in layer il. */
static void compare(ht_cache *c, uint32_t il, const uint32_t *experts, uint32_t n)
{
    uint64_t *now = taken(c, c->token, il);

    for (uint32_t i = 0; i < n; i++)
        now[experts[i] / 64] |= 1ull << experts[i] % 64;
    c->likeness += 1.0f - FORGET * c->likeness;
    for (uint32_t ago = 1; ago <= c->n_token; ago++) {
        const uint32_t t = before(c, ago);
        const uint64_t *then = taken(c, t, il);
        int same = 0;
        for (uint32_t w = 0; w < c->words; w++)
            same += __builtin_popcountll(now[w] & then[w]);
        c->alike[t] += (float)same / (float)n - FORGET * c->alike[t];
    }
}

/* How like a token must be to count among the most similar: that of the SIMILAR-th, near enough, by a histogram. */
static float least_alike(const ht_cache *c)
{
    enum { BINS = 64 };
    uint32_t bins[BINS] = { 0 }, n = 0, b = BINS;

    if (c->n_token <= SIMILAR)
        return 0.0f;
    for (uint32_t ago = 1; ago <= c->n_token; ago++) {
        const uint32_t at = (uint32_t)(c->alike[before(c, ago)] / c->likeness * BINS);
        bins[at < BINS ? at : BINS - 1]++;
    }
    while (b > 0 && n < SIMILAR)
        n += bins[--b];
    return (float)b / BINS * c->likeness;
}

typedef struct likely {
    uint32_t token[MEMORY], n;
    float weight[MEMORY], doubt;
} likely;

/* What layer il will be asked for when it is computed next: its keys. */
static void foretell(ht_cache *c, uint32_t il, const likely *by)
{
    const uint32_t base = il * c->n_expert;
    float sum = by->doubt;

    if (!c->layers[il].unit_bytes)
        return;
    for (uint32_t e = 0; e < c->n_expert; e++)
        c->then[e] = by->doubt * c->share[base + e];
    for (uint32_t i = 0; i < by->n; i++) {
        const uint64_t *bits = taken(c, by->token[i], il);
        sum += by->weight[i];
        for (uint32_t w = 0; w < c->words; w++)
            for (uint64_t b = bits[w]; b; b &= b - 1)
                c->then[w * 64 + (uint32_t)__builtin_ctzll(b)] += by->weight[i];
    }
    sum = 1.0f / sum;
    for (uint32_t e = 0; e < c->n_expert; e++)
        c->key[base + e] = heat_key(c, base + e, c->then[e] * sum);
    c->layers[il].first = DIRTY;
}

static void foretell_some(ht_cache *c, uint32_t il)
{
    likely now = { .doubt = DOUBT }, next = { .doubt = DOUBT_NEXT };
    const float least = least_alike(c);

    for (uint32_t ago = 1; ago <= c->n_token; ago++) {
        const uint32_t t = before(c, ago), after = before(c, ago - 1);
        if (c->alike[t] < least)
            continue;
        const float likeness = c->alike[t] / c->likeness - 0.5f;
        now.token[now.n] = t;
        now.weight[now.n++] = expf(SHARP * likeness);
        if (ago > 1 && c->follows[after]) { /* of the last one what follows is being computed */
            next.token[next.n] = after;
            next.weight[next.n++] = expf(SHARP_NEXT * likeness);
        }
    }
    for (size_t i = 0; i < sizeof AGAIN / sizeof *AGAIN; i++)
        if (AGAIN[i] <= il)
            foretell(c, il - AGAIN[i], &next);
    for (size_t i = 0; i < sizeof AHEAD / sizeof *AHEAD; i++)
        if (il + AHEAD[i] < c->n_layer)
            foretell(c, il + AHEAD[i], &now);
}

/* ---- Use ---- */

/* n_tokens 0: one token, or a batch of which no more is known. */
static void warm_up(ht_cache *c, uint32_t il, const uint32_t *experts, const uint32_t *counts, uint32_t n,
                    uint32_t n_tokens, bool batch)
{
    const uint32_t base = il * c->n_expert;
    layer *l = &c->layers[il];

    for (int a = 0; a < AVERAGES; a++) {
        const float kept = n_tokens ? powf(DECAY[a], (float)n_tokens) : DECAY[a];
        const float worth = n_tokens ? PROMPT * (1.0f - kept) / (1.0f - DECAY[a]) : 1.0f;
        for (uint32_t e = 0; e < c->n_expert; e++)
            c->average[a][base + e] *= kept;
        for (uint32_t i = 0; i < n; i++)
            c->average[a][base + experts[i]] += n_tokens ? worth * (float)counts[i] / (float)n_tokens : worth;
        l->seen[a] = l->seen[a] * kept + worth;
    }
    for (uint32_t u = base; u < base + c->n_expert; u++) {
        set_share(c, u);
        c->key[u] = heat_key(c, u, c->share[u]);
    }
    l->first = DIRTY;
    if (batch) {
        c->in_token = false;
    } else {
        if (!c->in_token || il <= c->now)
            begin_token(c, c->in_token || c->n_prompt);
        c->in_token = true;
        c->n_prompt = 0;
        count_cycle(c, l, n);
        compare(c, il, experts, n);
        foretell_some(c, il);
    }
    set_offsets(c, il);
}

static void use(ht_cache *c, uint32_t il, const uint32_t *experts, const uint32_t *counts, uint32_t n, uint32_t n_tokens,
                bool batch)
{
    const uint32_t base = il * c->n_expert;

    if (!n)
        return;
    for (uint32_t i = 0; i < n; i++) {
        c->last[base + experts[i]] = ++c->clock;
        c->count[base + experts[i]]++;
        if (c->kind == HT_CACHE_LFU)
            c->key[base + experts[i]] = -(double)c->count[base + experts[i]];
    }
    if (c->kind == HT_CACHE_HEAT)
        warm_up(c, il, experts, counts, n, n_tokens, batch);
    c->layers[il].first = DIRTY;
}

void ht_cache_use(ht_cache *c, uint32_t layer, const uint32_t *experts, uint32_t n, bool batch)
{
    use(c, layer, experts, NULL, n, 0, batch);
}

void ht_cache_use_prompt(ht_cache *c, uint32_t layer, const uint32_t *experts, const uint32_t *counts, uint32_t n,
                         uint32_t n_tokens)
{
    use(c, layer, experts, counts, n, n_tokens, true);
}

/* ---- Room ---- */

uint32_t ht_cache_admit(ht_cache *c, uint32_t unit, bool ahead, uint32_t *out, uint32_t max)
{
    const layer *l = &c->layers[unit / c->n_expert];
    const uint64_t bytes = l->unit_bytes;
    const double worth = FORESEEN + l->offset;
    uint32_t n = 0;

    if (c->held_at[unit])
        return 0;
    if (!bytes || bytes > c->budget)
        return UINT32_MAX;
    while (c->used > c->budget - bytes) {
        const int32_t u = n < max ? first_to_leave(c) : NONE;
        const bool worse = u != NONE && (!ahead || c->kind != HT_CACHE_HEAT ||
                                         c->key[u] + c->layers[(uint32_t)u / c->n_expert].offset > worth);
        if (!worse) {
            while (n) /* as if nothing had been tried */
                hold(c, out[--n]);
            return UINT32_MAX;
        }
        drop(c, (uint32_t)u);
        out[n++] = (uint32_t)u;
    }
    hold(c, unit);
    return n;
}

uint32_t ht_cache_set_budget(ht_cache *c, uint64_t budget, uint32_t *out, uint32_t max)
{
    uint32_t n = 0;
    c->budget = budget;
    set_patience(c);
    while (c->used > budget && n < max) {
        const int32_t u = first_to_leave(c);
        if (u == NONE)
            break;
        drop(c, (uint32_t)u);
        out[n++] = (uint32_t)u;
    }
    return n;
}

void ht_cache_set_next_use(ht_cache *c, uint32_t unit, uint64_t at)
{
    if (c->kind == HT_CACHE_BELADY)
        set_key(c, unit, (double)at);
}

/* ---- Heat ---- */

void ht_cache_get_heat(const ht_cache *c, float *heat)
{
    const int slow = AVERAGES - 1;
    for (uint32_t u = 0; u < c->n_unit; u++) {
        const layer *l = &c->layers[u / c->n_expert];
        heat[u] = l->seen[slow] > 0.0f ? c->average[slow][u] / l->seen[slow] : 0.0f;
    }
}

void ht_cache_set_heat(ht_cache *c, const float *heat)
{
    for (uint32_t i = 0; i < c->n_layer; i++)
        for (int a = 0; a < AVERAGES; a++)
            c->layers[i].seen[a] = 1.0f / (1.0f - DECAY[a]);
    for (uint32_t u = 0; u < c->n_unit; u++) {
        const float h = heat[u] >= 0.0f && heat[u] <= 1.0f ? heat[u] : 0.0f;
        for (int a = 0; a < AVERAGES; a++)
            c->average[a][u] = h * c->layers[u / c->n_expert].seen[a];
        set_share(c, u);
        if (c->kind == HT_CACHE_HEAT)
            set_key(c, u, heat_key(c, u, c->share[u]));
    }
}

static size_t token_bytes(const ht_cache *c) { return 1 + (size_t)c->n_layer * ((c->n_expert + 7) / 8); }

size_t ht_cache_tokens_bytes(const ht_cache *c) { return c->n_token * token_bytes(c); }

void ht_cache_get_tokens(const ht_cache *c, uint8_t *out)
{
    for (uint32_t ago = c->n_token; ago-- > 0;) {
        *out++ = c->follows[before(c, ago)];
        for (uint32_t il = 0; il < c->n_layer; il++)
            for (uint32_t e = 0; e < c->n_expert; e += 8)
                *out++ = (uint8_t)(taken(c, before(c, ago), il)[e / 64] >> e % 64);
    }
}

bool ht_cache_set_tokens(ht_cache *c, const uint8_t *tokens, size_t bytes)
{
    const size_t n = bytes / token_bytes(c), from = n < MEMORY ? 0 : n - (MEMORY - 1);

    if (c->kind != HT_CACHE_HEAT || bytes % token_bytes(c))
        return false;
    c->in_token = false;
    c->n_token = 0;
    tokens += from * token_bytes(c);
    for (size_t i = from; i < n; i++) {
        begin_token(c, i > from && *tokens == 1);
        tokens++;
        for (uint32_t il = 0; il < c->n_layer; il++)
            for (uint32_t e = 0; e < c->n_expert; e += 8) {
                const uint32_t left = c->n_expert - e;
                taken(c, c->token, il)[e / 64] |= (uint64_t)(*tokens++ & (left < 8 ? (1u << left) - 1 : 255u)) << e % 64;
            }
    }
    return true;
}

/* ---- Open and close ---- */

uint64_t ht_cache_bytes(uint32_t n_layer, uint32_t n_expert)
{
    const uint64_t unit = sizeof(double) + sizeof(uint64_t) + (AVERAGES + 2) * sizeof(float) + 4 * sizeof(uint32_t);
    const uint64_t tokens = MEMORY * (((uint64_t)n_expert + 63) / 64) * sizeof(uint64_t);
    return sizeof(ht_cache) + n_layer * (sizeof(layer) + tokens + n_expert * unit) + n_expert * sizeof(float);
}

ht_status ht_cache_open(ht_cache **out, const ht_cache_params *p, ht_error *err)
{
    const uint64_t n = (uint64_t)p->n_layer * p->n_expert;
    ht_cache *c;

    *out = NULL;
    if (n == 0 || n > INT32_MAX)
        return ht_fail(err, HT_EINVAL, "a cache of %u layers of %u experts", p->n_layer, p->n_expert);
    c = calloc(1, sizeof *c);
    if (!c)
        return ht_fail(err, HT_ENOMEM, "expert cache");
    c->kind = p->kind;
    c->n_layer = p->n_layer;
    c->n_expert = p->n_expert;
    c->n_unit = (uint32_t)n;
    c->budget = p->budget;
    c->random = p->seed * 2 + 0x9E3779B97F4A7C15u;
    c->layers = calloc(p->n_layer, sizeof *c->layers);
    c->key = calloc(n, sizeof *c->key);
    c->last = calloc(n, sizeof *c->last);
    bool averages = true;
    for (int a = 0; a < AVERAGES; a++)
        averages &= (c->average[a] = calloc(n, sizeof *c->average[a])) != NULL;
    c->share = calloc(n, sizeof *c->share);
    c->wait = calloc(n, sizeof *c->wait);
    c->words = (p->n_expert + 63) / 64;
    c->taken = calloc(p->kind == HT_CACHE_HEAT ? (size_t)MEMORY * p->n_layer * c->words : 1, sizeof *c->taken);
    c->then = calloc(p->n_expert, sizeof *c->then);
    c->count = calloc(n, sizeof *c->count);
    c->pins = calloc(n, sizeof *c->pins);
    c->held_at = calloc(n, sizeof *c->held_at);
    c->held = calloc(n, sizeof *c->held);
    if (!c->layers || !c->key || !c->last || !averages || !c->share || !c->wait || !c->taken || !c->then || !c->count ||
        !c->pins || !c->held_at || !c->held) {
        ht_cache_close(c);
        return ht_fail(err, HT_ENOMEM, "expert cache of %llu units", (unsigned long long)n);
    }
    for (uint32_t i = 0; i < p->n_layer; i++) {
        c->layers[i].unit_bytes = p->unit_bytes[i];
        c->layers[i].first = DIRTY;
    }
    set_patience(c);
    for (uint32_t u = 0; u < c->n_unit; u++) {
        set_share(c, u);
        c->key[u] = c->kind == HT_CACHE_HEAT ? heat_key(c, u, c->share[u]) : c->kind == HT_CACHE_BELADY ? INFINITY : 0.0;
    }
    set_offsets(c, p->n_layer - 1);
    *out = c;
    return HT_OK;
}

void ht_cache_close(ht_cache *c)
{
    if (!c)
        return;
    free(c->layers);
    free(c->key);
    free(c->last);
    for (int a = 0; a < AVERAGES; a++)
        free(c->average[a]);
    free(c->share);
    free(c->wait);
    free(c->taken);
    free(c->then);
    free(c->count);
    free(c->pins);
    free(c->held_at);
    free(c->held);
    free(c);
}
