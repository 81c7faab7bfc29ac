/* SPDX-License-Identifier: MIT
 *
 * Gathering while a model computes; see stats.h. The loops over neurons are plain C in steps of 64, so that the
 * compiler makes vectors of them: a neuron costs a fraction of a nanosecond, its weights a hundred times that. */
#include "offline_profiler/stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { NONE = UINT32_MAX };

void ht_stats_open(ht_stats *s, uint32_t window, uint32_t n_skip, bool density_only)
{
    *s = (ht_stats){ .window = window, .n_skip = n_skip, .density_only = density_only, .open = NONE };
}

static void free_block(ht_stats_block *b)
{
    free(b->count);
    free(b->magnitude);
    free(b->expert_count);
    free(b->next);
    free(b->new_count);
    free(b->new_magnitude);
    free(b->ids);
    free(b->before);
    free(b->before_ids);
    free(b->levels);
}

void ht_stats_close(ht_stats *s)
{
    for (uint32_t i = 0; i < s->n_blocks; i++)
        free_block(&s->blocks[i]);
    free(s->blocks);
    free(s->bits);
    free(s->bits_ids);
    free(s->filled);
    free(s->whole);
    *s = (ht_stats){ 0 };
}

static void *zeroed(ht_stats *s, size_t n, size_t size, bool *good)
{
    void *p = calloc(n ? n : 1, size);
    *good &= p != NULL;
    s->bytes += p ? n * size : 0;
    return p;
}

ht_stats_block *ht_stats_add(ht_stats *s, const ht_stats_block *shape)
{
    size_t neurons = (size_t)shape->n_expert * shape->n_ff, words = (shape->n_ff + 63) / 64;
    bool good = true, mixture = shape->n_expert > 1;

    if (s->n_blocks == s->room) {
        uint32_t room = 2 * s->room + 64;
        ht_stats_block *more = realloc(s->blocks, room * sizeof *more);
        if (!more)
            return NULL;
        s->blocks = more;
        s->room = room;
    }
    ht_stats_block *b = &s->blocks[s->n_blocks];
    *b = (ht_stats_block){ .layer = shape->layer,
                           .shared = shape->shared,
                           .n_ff = shape->n_ff,
                           .n_expert = shape->n_expert,
                           .n_used = shape->n_used,
                           .words = (uint32_t)words };
    for (uint32_t i = 0; i < s->n_blocks; i++)
        if (mixture && s->blocks[i].n_expert > 1)
            b->n_before = s->blocks[i].n_expert;
    if (!s->density_only) {
        b->count = zeroed(s, neurons, sizeof *b->count, &good);
        b->magnitude = zeroed(s, neurons, sizeof *b->magnitude, &good);
        b->new_count = zeroed(s, neurons, sizeof *b->new_count, &good);
        b->new_magnitude = zeroed(s, neurons, sizeof *b->new_magnitude, &good);
    }
    if (mixture) {
        b->expert_count = zeroed(s, b->n_expert, sizeof *b->expert_count, &good);
        b->ids = zeroed(s, (size_t)s->window * b->n_used, sizeof *b->ids, &good);
        if (b->n_before)
            b->next = zeroed(s, (size_t)b->n_before * b->n_expert, sizeof *b->next, &good);
    }
    b->before = zeroed(s, (size_t)b->n_used * words, sizeof *b->before, &good);
    b->before_ids = zeroed(s, b->n_used, sizeof *b->before_ids, &good);
    b->levels = zeroed(s, (size_t)HT_STATS_LEVELS * b->n_expert * words, sizeof *b->levels, &good);
    if (!good) {
        free_block(b);
        return NULL;
    }
    s->n_blocks++;
    return b;
}

/* ---- Sets of bits ------------------------------------------------------------------------------------------------ */

/* Without the instruction, in steps that the compiler can make vectors of. */
static uint64_t ones(uint64_t v)
{
    v -= v >> 1 & 0x5555555555555555u;
    v = (v & 0x3333333333333333u) + (v >> 2 & 0x3333333333333333u);
    v = (v + (v >> 4)) & 0x0f0f0f0f0f0f0f0fu;
    v += v >> 8;
    v += v >> 16;
    return (v + (v >> 32)) & 0x7f;
}

static uint64_t count_bits(const uint64_t *a, size_t n)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += ones(a[i]);
    return sum;
}

static uint64_t count_common(const uint64_t *a, const uint64_t *b, size_t n)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += ones(a[i] & b[i]);
    return sum;
}

/* 64 bytes of 0 or 1 as bits: a product moves eight of them side by side. */
static uint64_t pack(const uint8_t flags[64])
{
    uint64_t bits = 0;
    for (int i = 0; i < 8; i++) {
        uint64_t eight = 0;
        for (int j = 7; j >= 0; j--)
            eight = eight << 8 | flags[8 * i + j];
        bits |= (eight * 0x0102040810204080u >> 56) << (8 * i);
    }
    return bits;
}

static uint64_t add_64(const float *h, uint32_t *count, float *magnitude)
{
    uint8_t flags[64];
    for (int i = 0; i < 64; i++)
        flags[i] = h[i] != 0.0f;
    for (int i = 0; count && i < 64; i++)
        count[i] += h[i] != 0.0f;
    for (int i = 0; count && i < 64; i++)
        magnitude[i] += fabsf(h[i]);
    return pack(flags);
}

/* One token's hidden units of one expert: which are active, and how strongly. count NULL: only which. */
static uint64_t add_row(const float *h, uint32_t n, uint64_t *bits, uint32_t *count, float *magnitude)
{
    uint32_t i = 0;
    for (; i + 64 <= n; i += 64)
        bits[i / 64] = add_64(h + i, count ? count + i : NULL, count ? magnitude + i : NULL);
    if (i < n)
        bits[i / 64] = 0;
    for (; i < n; i++) {
        bits[i / 64] |= (uint64_t)(h[i] != 0.0f) << i % 64;
        if (count) {
            count[i] += h[i] != 0.0f;
            magnitude[i] += fabsf(h[i]);
        }
    }
    return count_bits(bits, (n + 63) / 64);
}

/* ---- One token of a block ---------------------------------------------------------------------------------------- */

static void compare_with_before(ht_stats_block *b, const uint64_t *sets, const uint32_t *ids, uint64_t active)
{
    for (uint32_t i = 0, j = 0; i < b->n_used && j < b->n_used;) { /* both ascending */
        if (ids[i] < b->before_ids[j]) {
            i++;
        } else if (ids[i] > b->before_ids[j]) {
            j++;
        } else {
            b->new_sums[HT_SUM_KEPT] +=
                count_common(sets + (size_t)i++ * b->words, b->before + (size_t)j++ * b->words, b->words);
            b->new_sums[HT_SUM_EXPERTS_KEPT]++;
        }
    }
    b->new_sums[HT_SUM_FOLLOWING] += active;
    b->new_sums[HT_SUM_EXPERTS_FOLLOWING] += b->n_used;
}

/* A set of one token, then unions of two, four, …: each waits for its other half, as the digits of a counter carry. */
static void add_to_unions(ht_stats_block *b, const uint64_t *set)
{
    size_t n = (size_t)b->n_expert * b->words;

    for (int k = 0; k < HT_STATS_LEVELS; k++) {
        uint64_t *level = b->levels + (size_t)k * n;
        if (!b->waiting[k]) {
            memcpy(level, set, n * sizeof *level);
            b->waiting[k] = true;
            return;
        }
        for (size_t i = 0; i < n; i++)
            level[i] |= set[i];
        b->new_sums[HT_SUM_UNION + k] += count_bits(level, n);
        b->new_sums[HT_SUM_GROUPS + k]++;
        b->waiting[k] = false;
        set = level;
    }
}

static void add_token(ht_stats *s, ht_stats_block *b, const uint64_t *sets, const uint32_t *ids, uint64_t active)
{
    const uint64_t *whole = sets;

    b->new_sums[HT_SUM_TOKENS]++;
    b->new_sums[HT_SUM_ACTIVE] += active;
    b->new_sums[HT_SUM_SQUARES] += active * active;
    if (b->has_before)
        compare_with_before(b, sets, ids, active);
    memcpy(b->before, sets, (size_t)b->n_used * b->words * sizeof *sets);
    memcpy(b->before_ids, ids, b->n_used * sizeof *ids);
    b->has_before = true;
    if (b->n_expert > 1) {
        memset(s->whole, 0, (size_t)b->n_expert * b->words * sizeof *s->whole);
        for (uint32_t i = 0; i < b->n_used; i++)
            memcpy(s->whole + (size_t)ids[i] * b->words, sets + (size_t)i * b->words, b->words * sizeof *sets);
        whole = s->whole;
    }
    add_to_unions(b, whole);
}

/* ---- Blocks of a pass -------------------------------------------------------------------------------------------- */

static void end_block(ht_stats *s)
{
    if (s->open == NONE)
        return;
    ht_stats_block *b = &s->blocks[s->open];
    for (uint32_t p = 0; p < s->n_pass; p++)
        if (s->filled[p] == b->n_used)
            add_token(s, b, s->bits + (size_t)p * b->n_used * b->words, s->bits_ids + (size_t)p * b->n_used,
                      s->filled[s->n_pass + p]);
    s->open = NONE;
}

static bool room_for(ht_stats *s, void **p, size_t *room, size_t n, size_t size)
{
    if (n <= *room)
        return true;
    void *more = realloc(*p, n * size);
    if (!more)
        return false;
    s->bytes += (n - *room) * size;
    *p = more;
    *room = n;
    return true;
}

static bool begin_block(ht_stats *s, const hearth_trace *t)
{
    ht_stats_block shape = { .layer = t->layer,
                             .shared = t->expert == HEARTH_TRACE_SHARED,
                             .n_ff = t->n_ff,
                             .n_expert = t->n_expert ? t->n_expert : 1,
                             .n_used = t->n_used ? t->n_used : 1 };
    ht_stats_block *b = NULL;

    for (uint32_t i = 0; i < s->n_blocks && !b; i++)
        if (s->blocks[i].layer == shape.layer && s->blocks[i].shared == shape.shared)
            b = &s->blocks[i];
    if (!b && !(b = ht_stats_add(s, &shape)))
        return false;
    if (b->n_ff != shape.n_ff || b->n_expert != shape.n_expert || b->n_used != shape.n_used ||
        (uint64_t)t->position + t->n_pass > s->window) {
        s->mismatch = true;
        return false;
    }
    size_t sets = (size_t)t->n_pass * b->n_used;
    if (!room_for(s, (void **)&s->bits, &s->bits_room, sets * b->words, sizeof *s->bits) ||
        !room_for(s, (void **)&s->bits_ids, &s->ids_room, sets, sizeof *s->bits_ids) ||
        !room_for(s, (void **)&s->filled, &s->pass_room, 2 * (size_t)t->n_pass, sizeof *s->filled) ||
        !room_for(s, (void **)&s->whole, &s->whole_room, (size_t)b->n_expert * b->words, sizeof *s->whole))
        return false;
    memset(s->filled, 0, 2 * (size_t)t->n_pass * sizeof *s->filled);
    s->open = (uint32_t)(b - s->blocks);
    s->position = t->position;
    s->n_pass = t->n_pass;
    if (b->ids)
        memcpy(b->ids + (size_t)t->position * b->n_used, t->expert_ids, sets * sizeof *b->ids);
    return true;
}

bool ht_stats_listen(void *stats, const hearth_trace *t)
{
    ht_stats *s = stats;
    uint32_t shared = t->expert == HEARTH_TRACE_SHARED, expert = shared ? 0 : t->expert;

    if (s->open == NONE || s->blocks[s->open].layer != t->layer || s->blocks[s->open].shared != shared ||
        s->position != t->position) {
        end_block(s);
        if (!begin_block(s, t)) {
            s->out_of_memory = !s->mismatch;
            return false;
        }
    }
    ht_stats_block *b = &s->blocks[s->open];
    for (uint32_t i = 0; i < t->n_tokens; i++) {
        uint32_t p = t->tokens ? t->tokens[i] : i;
        if (t->position + p < s->n_skip || s->filled[p] == b->n_used)
            continue;
        size_t slot = (size_t)p * b->n_used + s->filled[p]++, first = (size_t)expert * b->n_ff;
        s->bits_ids[slot] = expert;
        s->filled[s->n_pass + p] +=
            (uint32_t)add_row(t->hidden + i * t->hidden_stride, b->n_ff, s->bits + slot * b->words,
                              b->count ? b->new_count + first : NULL, b->count ? b->new_magnitude + first : NULL);
    }
    return true;
}

/* ---- Windows ----------------------------------------------------------------------------------------------------- */

void ht_stats_begin_window(ht_stats *s)
{
    s->open = NONE;
    for (uint32_t i = 0; i < s->n_blocks; i++) {
        ht_stats_block *b = &s->blocks[i];
        size_t neurons = (size_t)b->n_expert * b->n_ff;
        memset(b->new_sums, 0, sizeof b->new_sums);
        memset(b->waiting, 0, sizeof b->waiting);
        b->has_before = false;
        if (b->count) {
            memset(b->new_count, 0, neurons * sizeof *b->new_count);
            memset(b->new_magnitude, 0, neurons * sizeof *b->new_magnitude);
        }
    }
}

static void add_routing(const ht_stats *s, ht_stats_block *b, const ht_stats_block *before, uint32_t n)
{
    for (uint32_t t = s->n_skip; t < s->n_skip + n; t++) {
        const uint32_t *ids = b->ids + (size_t)t * b->n_used;
        for (uint32_t i = 0; i < b->n_used; i++)
            b->expert_count[ids[i]]++;
        for (uint32_t j = 0; before && j < before->n_used; j++) {
            uint32_t *row = b->next + (size_t)before->ids[(size_t)t * before->n_used + j] * b->n_expert;
            for (uint32_t i = 0; i < b->n_used; i++)
                row[ids[i]]++;
        }
    }
}

void ht_stats_end_window(ht_stats *s, uint32_t n)
{
    const ht_stats_block *before = NULL;

    end_block(s);
    for (uint32_t i = 0; i < s->n_blocks; i++) {
        ht_stats_block *b = &s->blocks[i];
        size_t neurons = (size_t)b->n_expert * b->n_ff;
        for (int j = 0; j < HT_N_SUMS; j++)
            b->sums[j] += b->new_sums[j];
        for (size_t j = 0; b->count && j < neurons; j++)
            b->count[j] += b->new_count[j];
        for (size_t j = 0; b->count && j < neurons; j++)
            b->magnitude[j] += (double)b->new_magnitude[j];
        if (b->ids) {
            add_routing(s, b, before, n);
            before = b;
        }
    }
}
