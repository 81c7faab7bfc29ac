/* SPDX-License-Identifier: MIT
 *
 * The vocabulary of a synthetic model: byte-level BPE ("gpt2") with a token for each byte, then the syllables "ba" …
 * "zu", the same with a leading space, and words of two and three syllables, each of them one merge of two earlier
 * tokens, so that a generated word tokenises to itself; last come <|bos|> and <|eos|>. Beside it the chain: a tour
 * through all words, which the output matrix makes the likeliest continuation, so that greedy decoding wanders instead
 * of repeating itself. It stays in one topic (half of the words) for `topic_run` tokens and, where there are clusters,
 * in one cluster with chance `stay`.
 *
 * Owner: the synth_vocab owns its arrays. Threads: one until it is made. */
#include <stdlib.h>
#include <string.h>

#include "tools/synth_model.h"

enum { N_BYTES = 256, N_SYLLABLES = 21 * 5, TYPE_NORMAL = 1, TYPE_CONTROL = 3, WORD_BYTES = 32 };

static const char space[] = "\xc4\xa0"; /* how byte-level BPE spells a blank: U+0120 */

/* The character that stands for a byte in byte-level BPE: printable ones stand for themselves, the others are
 * counted up from U+0100. Returns its length. */
static size_t byte_text(uint32_t byte, char out[8])
{
    uint32_t c = byte;

    if (!((byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174)) {
        c = 256;
        for (uint32_t b = 0; b < byte; b++)
            c += !((b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174);
    }
    if (c < 128) {
        out[0] = (char)c;
        out[1] = 0;
        return 1;
    }
    out[0] = (char)(0xc0 | c >> 6);
    out[1] = (char)(0x80 | (c & 63));
    out[2] = 0;
    return 2;
}

static void syllable(uint32_t i, char out[4])
{
    out[0] = "bcdfghjklmnpqrstvwxyz"[i / 5];
    out[1] = "aeiou"[i % 5];
    out[2] = 0;
}

typedef struct build {
    synth_vocab *v;
    uint32_t n;
    char *text, *merge;
} build;

static void add(build *b, const char *left, const char *right, int32_t type)
{
    synth_vocab *v = b->v;
    size_t nl = strlen(left), nr = strlen(right);

    v->tokens[b->n] = b->text;
    v->types[b->n++] = type;
    memcpy(b->text, left, nl);
    memcpy(b->text + nl, right, nr + 1);
    b->text += nl + nr + 1;
    if (nr) {
        v->merges[v->n_merges++] = b->merge;
        memcpy(b->merge, left, nl);
        b->merge[nl] = ' ';
        memcpy(b->merge + nl + 1, right, nr + 1);
        b->merge += nl + nr + 2;
    }
}

/* Words in an order that mixes the syllables: step through them by a stride that shares no factor with their number
 * (105^2 = 3^2 5^2 7^2, 105^3 alike). */
static void add_words(build *b, uint32_t n_end)
{
    const uint32_t pairs = N_SYLLABLES * N_SYLLABLES;
    char left[WORD_BYTES], s[4];
    size_t n;

    for (uint32_t i = 0; i < N_SYLLABLES && b->n < n_end; i++) {
        syllable(i, s);
        add(b, space, s, TYPE_NORMAL);
    }
    for (uint32_t i = 0; i < pairs && b->n < n_end; i++) {
        uint32_t k = (uint32_t)((uint64_t)i * 4021 % pairs);

        memcpy(left, space, n = sizeof space - 1);
        syllable(k / N_SYLLABLES, left + n);
        syllable(k % N_SYLLABLES, s);
        add(b, left, s, TYPE_NORMAL);
    }
    for (uint64_t i = 0; b->n < n_end; i++) {
        uint32_t k = (uint32_t)(i * 432433 % ((uint64_t)pairs * N_SYLLABLES));

        memcpy(left, space, n = sizeof space - 1);
        syllable(k / pairs, left + n);
        syllable(k / N_SYLLABLES % N_SYLLABLES, left + n + 2);
        syllable(k % N_SYLLABLES, s);
        add(b, left, s, TYPE_NORMAL);
    }
}

static void add_all(synth_vocab *v)
{
    build b = { v, 0, v->text, v->merge_text };
    char left[8], right[8], s[4];

    for (uint32_t i = 0; i < N_BYTES; i++) {
        byte_text(i, left);
        add(&b, left, "", TYPE_NORMAL);
    }
    for (uint32_t i = 0; i < N_SYLLABLES; i++) {
        syllable(i, s);
        memcpy(left, (char[2]){ s[0], 0 }, 2);
        memcpy(right, (char[2]){ s[1], 0 }, 2);
        add(&b, left, right, TYPE_NORMAL);
    }
    v->first_word = b.n;
    v->first_control = v->n - 2;
    v->split = v->first_word + (v->first_control - v->first_word) / 2;
    add_words(&b, v->first_control);
    v->bos = (int32_t)b.n;
    add(&b, "<|bos|>", "", TYPE_CONTROL);
    v->eos = (int32_t)b.n;
    add(&b, "<|eos|>", "", TYPE_CONTROL);
}

/* The words of each topic, those of one cluster side by side; `at` and `left` say where a cluster's unused words
 * are. */
typedef struct pool {
    uint32_t *words[2], *at[2], *left[2], remaining[2], *open[2], n_open[2], *place[2];
} pool;

static bool pool_init(pool *p, const synth_vocab *v, uint32_t k)
{
    for (int t = 0; t < 2; t++) {
        uint32_t lo = t ? v->split : v->first_word, hi = t ? v->first_control : v->split;

        p->words[t] = calloc(hi - lo + 1, sizeof(uint32_t));
        p->at[t] = calloc(k, sizeof(uint32_t));
        p->left[t] = calloc(k, sizeof(uint32_t));
        p->open[t] = calloc(k, sizeof(uint32_t));
        p->place[t] = calloc(k, sizeof(uint32_t));
        if (!p->words[t] || !p->at[t] || !p->left[t] || !p->open[t] || !p->place[t])
            return false;
        for (uint32_t i = lo; i < hi; i++)
            p->left[t][v->cluster[i]]++;
        for (uint32_t c = 1; c < k; c++)
            p->at[t][c] = p->at[t][c - 1] + p->left[t][c - 1];
        memset(p->left[t], 0, k * sizeof(uint32_t));
        for (uint32_t i = lo; i < hi; i++) {
            uint32_t c = v->cluster[i];

            p->words[t][p->at[t][c] + p->left[t][c]++] = i;
        }
        for (uint32_t c = 0; c < k; c++)
            if (p->left[t][c]) {
                p->place[t][c] = p->n_open[t];
                p->open[t][p->n_open[t]++] = c;
            }
        p->remaining[t] = hi - lo;
    }
    return true;
}

static void pool_deinit(pool *p)
{
    for (int t = 0; t < 2; t++) {
        free(p->words[t]);
        free(p->at[t]);
        free(p->left[t]);
        free(p->open[t]);
        free(p->place[t]);
    }
}

static uint32_t pool_take(pool *p, int t, uint32_t c, uint64_t random)
{
    uint32_t *words = p->words[t] + p->at[t][c], n = p->left[t][c];
    uint32_t i = (uint32_t)((random >> 32) * n >> 32), w = words[i];

    words[i] = words[n - 1];
    p->left[t][c]--;
    p->remaining[t]--;
    if (n == 1) { /* the cluster is used up */
        uint32_t last = p->open[t][--p->n_open[t]], at = p->place[t][c];

        p->open[t][at] = last;
        p->place[t][last] = at;
    }
    return w;
}

static bool chain_build(synth_vocab *v, uint32_t k, double stay, uint32_t topic_run, uint64_t key)
{
    pool p = { 0 };
    bool ok = pool_init(&p, v, k);
    uint32_t total = v->first_control - v->first_word, c = 0, first = 0, last = 0;
    int t = 0;

    for (uint32_t i = 0; ok && i < total; i++) {
        uint64_t step = synth_key(key, i);
        bool same = i > 0 && synth_uniform(step, 0) < stay;

        if (i % topic_run == 0) {
            t = (int)(i / topic_run & 1);
            same = false;
        }
        if (p.remaining[t] == 0) {
            t = !t;
            same = false;
        }
        if (!same || p.left[t][c] == 0)
            c = p.open[t][(synth_word(step, 1) >> 32) * p.n_open[t] >> 32];
        uint32_t w = pool_take(&p, t, c, synth_word(step, 2));

        if (i == 0)
            first = w;
        else {
            v->after[last] = (int32_t)w;
            v->before[w] = (int32_t)last;
        }
        last = w;
    }
    if (ok) {
        v->after[last] = (int32_t)first;
        v->before[first] = (int32_t)last;
    }
    pool_deinit(&p);
    return ok;
}

hearth_status synth_vocab_init(synth_vocab *v, uint32_t n, uint32_t n_clusters, double stay, uint32_t topic_run,
                               uint64_t key)
{
    uint32_t k = n_clusters ? n_clusters : 1;

    *v = (synth_vocab){ .n = n, .n_clusters = n_clusters };
    if (n < N_BYTES + N_SYLLABLES + 32)
        return HEARTH_EINVAL;
    v->text = malloc((size_t)n * 12);
    v->tokens = calloc(n, sizeof *v->tokens);
    v->types = calloc(n, sizeof *v->types);
    v->merge_text = malloc((size_t)n * 12);
    v->merges = calloc(n, sizeof *v->merges);
    v->cluster = calloc(n, sizeof *v->cluster);
    v->before = malloc(n * sizeof *v->before);
    v->after = malloc(n * sizeof *v->after);
    if (!v->text || !v->tokens || !v->types || !v->merge_text || !v->merges || !v->cluster || !v->before || !v->after)
        return HEARTH_ENOMEM;
    add_all(v);
    for (uint32_t i = 0; i < n; i++) {
        v->before[i] = v->after[i] = -1;
        v->cluster[i] = (uint32_t)((synth_word(synth_key(key, 1), i) >> 32) * k >> 32);
    }
    return chain_build(v, k, n_clusters ? stay : 0, topic_run, synth_key(key, 2)) ? HEARTH_OK : HEARTH_ENOMEM;
}

void synth_vocab_deinit(synth_vocab *v)
{
    free(v->text);
    free(v->tokens);
    free(v->types);
    free(v->merge_text);
    free(v->merges);
    free(v->cluster);
    free(v->before);
    free(v->after);
    *v = (synth_vocab){ 0 };
}
