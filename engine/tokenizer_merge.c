/* SPDX-License-Identifier: MIT
 *
 * The merge loop: neighbours are merged, best pair first, left-most among equals, until no two neighbours make a token.
 * SentencePiece and byte-pair vocabularies differ in what makes a pair good (score of the result; rank of the merge)
 * and in how the result is found (by its text; by the pair of ids).
 *
 * Short words, nearly all there are, are merged in place by scanning for the best pair. Long ones go through a queue of
 * candidates (tokenizer_queue.c) and a linked list of symbols, O(n log n).
 *
 * Owner: ht_tok_work belongs to one encode call. Threads: any. */
#include <stdlib.h>

#include "engine/tokenizer_impl.h"

enum { SHORT_WORD = 48 };

bool ht_tok_room(void **p, size_t *cap, size_t need, size_t item)
{
    if (need <= *cap)
        return true;
    size_t bigger = *cap + *cap / 2;
    if (bigger < need)
        bigger = need;
    if (bigger < 64)
        bigger = 64;
    if (bigger > SIZE_MAX / item)
        return false;
    void *q = realloc(*p, bigger * item);
    if (!q)
        return false;
    *p = q;
    *cap = bigger;
    return true;
}

bool ht_tok_push(ht_tok_work *w, ht_token id)
{
    if (w->n_ids == w->cap_ids && !ht_tok_room((void **)&w->ids, &w->cap_ids, w->n_ids + 1, sizeof *w->ids))
        return false;
    w->ids[w->n_ids++] = id;
    return true;
}

/* ---- pairs ------------------------------------------------------------------------------------------------------- */

/* What merging two neighbours gives and how soon; UINT32_MAX: never. a, b: their ids; text, n: their text. */
static inline uint32_t pair_find(const ht_tokenizer *t, int32_t a, int32_t b, const char *text, uint32_t n,
                                 uint32_t *merged)
{
    if (t->kind == HT_TOK_SPM) {
        if (n > t->max_text)
            return UINT32_MAX;
        int32_t id = ht_tok_lookup(t, text, n);
        if (id < 0)
            return UINT32_MAX;
        *merged = (uint32_t)id;
        return t->prio[id];
    }
    if (a < 0 || b < 0 || !t->merge_mask)
        return UINT32_MAX;
    uint64_t pair = (uint64_t)(uint32_t)(a + 1) << 32 | (uint32_t)(b + 1);
    for (uint32_t at = (uint32_t)ht_tok_pair_hash(pair) & t->merge_mask;; at = (at + 1) & t->merge_mask) {
        const ht_tok_merge *m = &t->merges[at];
        if (m->pair == pair) {
            *merged = m->merged;
            return m->rank;
        }
        if (!m->pair)
            return UINT32_MAX;
    }
}

/* The first symbol of text: its bytes, and its id or -1. */
static inline uint32_t symbol_first(const ht_tokenizer *t, const char *text, uint32_t n, int32_t *id)
{
    if (t->kind == HT_TOK_BPE_BYTES) {
        *id = t->byte_id[(uint8_t)text[0]];
        return 1;
    }
    uint32_t len = ht_tok_utf8((const uint8_t *)text, n);
    if (len == 0) { /* no character: a symbol of its own, which no token has */
        *id = -1;
        return 1;
    }
    *id = ht_tok_lookup(t, text, len);
    if (*id >= 0 && t->kind == HT_TOK_SPM && t->prio[*id] == UINT32_MAX)
        *id = -1;
    return len;
}

/* Puts out what a symbol has become; byte by byte where it is no token, as unknown where bytes have no tokens. */
static bool symbol_emit(const ht_tokenizer *t, ht_tok_work *w, int32_t id, const char *text, uint32_t n)
{
    uint32_t known = 0;

    if (id >= 0 && (uint32_t)id < t->info.n_vocab)
        return ht_tok_push(w, id);
    for (uint32_t i = 0; i < n; i++) {
        int32_t b = t->byte_id[(uint8_t)text[i]];
        known += b >= 0 && (uint32_t)b < t->info.n_vocab;
    }
    if (known < n && (t->kind != HT_TOK_BPE_BYTES || n == 1))
        return t->info.unk < 0 || ht_tok_push(w, t->info.unk);
    for (uint32_t i = 0; i < n; i++) {
        int32_t b = t->byte_id[(uint8_t)text[i]];
        if (b < 0 || (uint32_t)b >= t->info.n_vocab)
            b = t->info.unk;
        if (b >= 0 && !ht_tok_push(w, b))
            return false;
    }
    return true;
}

/* ---- short words ------------------------------------------------------------------------------------------------- */

static bool merge_short(const ht_tokenizer *t, ht_tok_work *w, const char *text, uint32_t n)
{
    int32_t id[SHORT_WORD];
    uint32_t start[SHORT_WORD + 1], rank[SHORT_WORD], merged[SHORT_WORD]; /* of the pair i, i + 1 */
    uint32_t m = 0;

    for (uint32_t at = 0; at < n; m++) {
        start[m] = at;
        at += symbol_first(t, text + at, n - at, &id[m]);
    }
    start[m] = n;
    for (uint32_t i = 0; i + 1 < m; i++)
        rank[i] = pair_find(t, id[i], id[i + 1], text + start[i], start[i + 2] - start[i], &merged[i]);
    while (m > 1) {
        uint32_t best = UINT32_MAX, k = 0;
        for (uint32_t i = 0; i + 1 < m; i++)
            if (rank[i] < best) {
                best = rank[i];
                k = i;
            }
        if (best == UINT32_MAX)
            break;
        id[k] = (int32_t)merged[k];
        for (uint32_t i = k + 1; i + 1 < m; i++) {
            id[i] = id[i + 1];
            start[i] = start[i + 1];
            rank[i - 1] = rank[i];
            merged[i - 1] = merged[i];
        }
        m--;
        start[m] = n;
        if (k + 1 < m)
            rank[k] = pair_find(t, id[k], id[k + 1], text + start[k], start[k + 2] - start[k], &merged[k]);
        if (k > 0)
            rank[k - 1] = pair_find(t, id[k - 1], id[k], text + start[k - 1], start[k + 1] - start[k - 1],
                                    &merged[k - 1]);
    }
    for (uint32_t i = 0; i < m; i++)
        if (!symbol_emit(t, w, id[i], text + start[i], start[i + 1] - start[i]))
            return false;
    return true;
}

/* ---- long words -------------------------------------------------------------------------------------------------- */

/* The candidate of symbol i and the one behind it. */
static bool candidate(const ht_tokenizer *t, const ht_tok_sym *s, const char *text, uint32_t n, uint32_t i,
                      ht_tok_cand *c)
{
    uint32_t j = s[i].next;
    if (j == UINT32_MAX)
        return false;
    uint32_t end = s[j].next == UINT32_MAX ? n : s[s[j].next].start;
    uint32_t rank = pair_find(t, s[i].id, s[j].id, text + s[i].start, end - s[i].start, &c->merged);
    c->key = (uint64_t)rank << 32 | i;
    c->size = end - s[i].start;
    return rank != UINT32_MAX;
}

static bool merge_long(const ht_tokenizer *t, ht_tok_work *w, const char *text, uint32_t n)
{
    uint32_t m = 0;
    ht_tok_cand c;

    for (uint32_t at = 0; at < n; m++) {
        int32_t id;
        uint32_t len = symbol_first(t, text + at, n - at, &id);
        if (!ht_tok_room((void **)&w->syms, &w->cap_syms, (size_t)m + 1, sizeof *w->syms))
            return false;
        w->syms[m] = (ht_tok_sym){ at, m - 1, m + 1, id }; /* m - 1 is UINT32_MAX for the first */
        at += len;
    }
    ht_tok_sym *s = w->syms;
    s[m - 1].next = UINT32_MAX;
    ht_tok_queue_begin(w, m);
    for (uint32_t i = 0; i + 1 < m; i++)
        if (candidate(t, s, text, n, i, &c) && !ht_tok_queue_add(w, c))
            return false;
    while (ht_tok_queue_pop(w, &c)) {
        uint32_t i = (uint32_t)c.key, j;

        /* Out of date where either side has grown since: the left one is gone, or both together are longer now. */
        if (s[i].id == HT_SYM_DEAD || (j = s[i].next) == UINT32_MAX)
            continue;
        uint32_t k = s[j].next;
        if ((k == UINT32_MAX ? n : s[k].start) - s[i].start != c.size)
            continue;
        s[i].id = (int32_t)c.merged;
        s[i].next = k;
        s[j].id = HT_SYM_DEAD;
        if (k != UINT32_MAX)
            s[k].prev = i;
        if (s[i].prev != UINT32_MAX && candidate(t, s, text, n, s[i].prev, &c) && !ht_tok_queue_add(w, c))
            return false;
        if (candidate(t, s, text, n, i, &c) && !ht_tok_queue_add(w, c))
            return false;
    }
    for (uint32_t i = 0; i != UINT32_MAX; i = s[i].next) {
        uint32_t end = s[i].next == UINT32_MAX ? n : s[s[i].next].start;
        if (!symbol_emit(t, w, s[i].id, text + s[i].start, end - s[i].start))
            return false;
    }
    return true;
}

/* ---- words ------------------------------------------------------------------------------------------------------- */

bool ht_tok_merge_word(const ht_tokenizer *t, ht_tok_work *w, const char *text, uint32_t n)
{
    if (n > SHORT_WORD)
        return merge_long(t, w, text, n);
    if (!w->seen || n > 24)
        return merge_short(t, w, text, n);

    uint64_t key[3] = { 0, 0, 0 };
    memcpy(key, text, n);
    uint64_t h = ht_tok_mum(key[0] ^ 0xA0761D6478BD642Fu ^ n, key[1] ^ 0xE7037ED1A0B428DBu);
    h = ht_tok_mum(h ^ key[2], 0x8EBC6AF09C88C6E3u);
    ht_tok_seen *e = &w->seen[h % HT_TOK_SEEN];
    if (e->n == n && e->word[0] == key[0] && e->word[1] == key[1] && e->word[2] == key[2]) {
        for (uint32_t i = 0; i < e->n_ids; i++)
            if (!ht_tok_push(w, e->ids[i]))
                return false;
        return true;
    }
    size_t before = w->n_ids;
    if (!merge_short(t, w, text, n))
        return false;
    size_t got = w->n_ids - before;
    if (got <= sizeof e->ids / sizeof *e->ids) {
        memcpy(e->word, key, sizeof key);
        e->n = (uint8_t)n;
        e->n_ids = (uint8_t)got;
        if (got > 0)
            memcpy(e->ids, w->ids + before, got * sizeof *e->ids);
    }
    return true;
}
