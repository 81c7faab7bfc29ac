/* SPDX-License-Identifier: MIT
 *
 * Reads the lists of tokenizer.ggml.*, checks them, and builds the tables of an ht_tokenizer: texts in one block of
 * memory, a hash table by text, a hash table of merges by pair of ids.
 *
 * Merges are given as text. Almost always both halves and the result are tokens; where one is not, it gets an id behind
 * the vocabulary, so that the merge still happens and what it gives is written out byte by byte at the end.
 *
 * Owner: fills the ht_tokenizer of its caller. Threads: one. */
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/tokenizer_impl.h"

const char *ht_tok_path(const ht_gguf *g)
{
    const char *path = ht_gguf_path(g, 0);
    size_t n = path ? strlen(path) : 0;
    /* the end of a long path, so that the fault itself stays in the message */
    return !path ? "" : n > 160 ? path + (n - 160) : path;
}

void ht_tok_note(ht_tokenizer *t, const char *fmt, ...)
{
    size_t n = strlen(t->note);
    va_list ap;

    if (n > 0 && n + 3 < sizeof t->note) {
        memcpy(t->note + n, "; ", 3);
        n += 2;
    }
    va_start(ap, fmt);
    vsnprintf(t->note + n, sizeof t->note - n, fmt, ap);
    va_end(ap);
}

ht_status ht_tok_fail(ht_error *err, ht_status st, const ht_kv *kv, const char *fmt, ...)
{
    char text[440];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (kv->offset == UINT64_MAX)
        return ht_fail(err, st, "%s", text);
    return ht_fail_at(err, st, kv->offset, "%s", text);
}

/* An excerpt of untrusted bytes that a terminal and a log can bear. */
typedef struct shown { char s[48]; } shown;

static shown show(ht_str s)
{
    shown out;
    size_t n = s.n < sizeof out.s - 4 ? s.n : sizeof out.s - 4;

    for (size_t i = 0; i < n; i++)
        out.s[i] = s.s[i] >= 32 && s.s[i] < 127 ? s.s[i] : '?';
    memcpy(out.s + n, s.n > n ? "..." : "", s.n > n ? 4 : 1);
    return out;
}

static uint64_t str_offset(const ht_kv *kv, ht_str s)
{
    return kv->offset + (uint64_t)((const uint8_t *)s.s - kv->data) - 8;
}

/* ---- texts by hash ----------------------------------------------------------------------------------------------- */

int32_t ht_tok_lookup(const ht_tokenizer *t, const char *s, size_t n)
{
    uint64_t h = ht_tok_hash(s, n);
    uint32_t tag = (uint32_t)(h >> 32);

    for (uint32_t i = (uint32_t)h & t->slot_mask;; i = (i + 1) & t->slot_mask) {
        const ht_tok_slot *slot = &t->slots[i];
        if (slot->id1 == 0)
            return -1;
        if (slot->tag == tag) {
            ht_tok_span x = t->text[slot->id1 - 1];
            if (x.len == n && memcmp(t->bytes + x.off, s, n) == 0)
                return (int32_t)(slot->id1 - 1);
        }
    }
}

static void slot_put(ht_tokenizer *t, uint32_t id)
{
    uint64_t h = ht_tok_hash(t->bytes + t->text[id].off, t->text[id].len);
    uint32_t i = (uint32_t)h & t->slot_mask;

    while (t->slots[i].id1)
        i = (i + 1) & t->slot_mask;
    t->slots[i] = (ht_tok_slot){ (uint32_t)(h >> 32), id + 1 };
}

static uint32_t power_of_two(uint64_t n)
{
    uint32_t p = 16;
    while (p < n)
        p *= 2;
    return p;
}

static bool add_bytes(ht_tokenizer *t, const char *s, size_t n)
{
    if (n > (size_t)INT32_MAX - t->n_bytes || !ht_tok_room((void **)&t->bytes, &t->cap_bytes, t->n_bytes + n, 1))
        return false;
    if (n > 0)
        memcpy(t->bytes + t->n_bytes, s, n);
    t->n_bytes += n;
    return true;
}

/* Id of a text, a new one behind the vocabulary where it has none; -1: no memory. */
static int32_t intern(ht_tokenizer *t, const char *s, size_t n)
{
    int32_t id = ht_tok_lookup(t, s, n);

    if (id >= 0)
        return id;
    size_t cap = t->cap_texts;
    uint32_t off = (uint32_t)t->n_bytes;
    if (t->n_texts == INT32_MAX - 1 || !ht_tok_room((void **)&t->text, &cap, (size_t)t->n_texts + 1, sizeof *t->text))
        return -1;
    t->cap_texts = (uint32_t)cap;
    if (!add_bytes(t, s, n))
        return -1;
    t->text[t->n_texts] = (ht_tok_span){ off, (uint32_t)n };
    t->n_texts++;
    if (t->n_texts > t->slot_mask / 4 * 3) {
        uint32_t slots = power_of_two((uint64_t)t->n_texts * 2);
        ht_tok_slot *bigger = calloc(slots, sizeof *bigger);
        if (!bigger)
            return -1;
        free(t->slots);
        t->slots = bigger;
        t->slot_mask = slots - 1;
        for (uint32_t i = 0; i < t->n_texts; i++)
            slot_put(t, i);
    } else {
        slot_put(t, t->n_texts - 1);
    }
    return (int32_t)(t->n_texts - 1);
}

/* ---- the lists --------------------------------------------------------------------------------------------------- */

static ht_status find_list(const ht_kv **out, const ht_gguf *g, const char *key, ht_kv_type a, ht_kv_type b,
                           const char *wanted, uint64_t n, ht_error *err)
{
    const ht_kv *kv = ht_gguf_find(g, key);

    *out = NULL;
    if (!kv)
        return HT_OK;
    if (kv->type != HT_KV_ARRAY || (kv->elem != a && kv->elem != b))
        return ht_tok_fail(err, HT_EFORMAT, kv, "%s: key '%s' has type %d (elements %d), wanted an array of %s",
                          ht_tok_path(g), key, (int)kv->type, kv->type == HT_KV_ARRAY ? (int)kv->elem : -1, wanted);
    if (n != UINT64_MAX && kv->n != n)
        return ht_tok_fail(err, HT_EFORMAT, kv, "%s: key '%s' has %llu elements, the vocabulary has %llu",
                          ht_tok_path(g), key, (unsigned long long)kv->n, (unsigned long long)n);
    *out = kv;
    return HT_OK;
}

static ht_status load_texts(ht_tokenizer *t, const ht_gguf *g, const ht_kv *kv, const ht_str *strs, ht_error *err)
{
    uint64_t total = 0;

    for (uint64_t i = 0; i < kv->n; i++) {
        if (strs[i].n > HT_TOK_MAX_TEXT)
            return ht_fail_at(err, HT_EFORMAT, str_offset(kv, strs[i]),
                              "%s: key 'tokenizer.ggml.tokens': token %llu has %zu bytes, more than %d", ht_tok_path(g),
                              (unsigned long long)i, strs[i].n, HT_TOK_MAX_TEXT);
        total += strs[i].n + (strs[i].n == 0 ? 24 : 0);
    }
    if (total > INT32_MAX / 4)
        return ht_tok_fail(err, HT_EUNSUPPORTED, kv,
                          "%s: key 'tokenizer.ggml.tokens' holds %llu bytes of text", ht_tok_path(g),
                          (unsigned long long)total);
    uint32_t n = (uint32_t)kv->n;
    uint32_t slots = power_of_two((uint64_t)n * 2);
    size_t cap = 0;
    /* pieces come behind the texts, and they are never longer */
    if (!ht_tok_room((void **)&t->bytes, &t->cap_bytes, (size_t)total * 2 + 64, 1) ||
        !ht_tok_room((void **)&t->text, &cap, (size_t)n + 256, sizeof *t->text))
        return ht_fail(err, HT_ENOMEM, "tokenizer: out of memory");
    t->cap_texts = (uint32_t)cap;
    t->slots = calloc(slots, sizeof *t->slots);
    t->piece = calloc(n, sizeof *t->piece);
    t->type = malloc(n);
    t->flags = calloc(n, 1);
    t->prio = calloc(n, sizeof *t->prio);
    if (!t->slots || !t->piece || !t->type || !t->flags || !t->prio)
        return ht_fail(err, HT_ENOMEM, "tokenizer: out of memory");
    t->slot_mask = slots - 1;
    for (uint32_t i = 0; i < n; i++) {
        ht_str s = strs[i];
        char name[24];
        if (s.n == 0) { /* as the field's reference names them, so that every token has a text of its own */
            s.n = (size_t)snprintf(name, sizeof name, "[EMPTY_%u]", (unsigned)i);
            s.s = name;
        }
        uint64_t h = ht_tok_hash(s.s, s.n);
        uint32_t at = (uint32_t)h & t->slot_mask, tag = (uint32_t)(h >> 32);
        for (; t->slots[at].id1; at = (at + 1) & t->slot_mask) {
            ht_tok_span x = t->text[t->slots[at].id1 - 1];
            if (t->slots[at].tag == tag && x.len == s.n && memcmp(t->bytes + x.off, s.s, s.n) == 0)
                return ht_fail_at(err, HT_EFORMAT, str_offset(kv, strs[i]),
                                  "%s: key 'tokenizer.ggml.tokens': '%s' is there twice, as token %u and %u",
                                  ht_tok_path(g), show(s).s, (unsigned)(t->slots[at].id1 - 1), (unsigned)i);
        }
        t->slots[at] = (ht_tok_slot){ tag, i + 1 };
        t->text[i] = (ht_tok_span){ (uint32_t)t->n_bytes, (uint32_t)s.n };
        memcpy(t->bytes + t->n_bytes, s.s, s.n);
        t->n_bytes += s.n;
    }
    t->n_texts = t->info.n_vocab = n;
    return HT_OK;
}

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The byte that "<0xNN>" stands for, or -1. */
static int byte_of(const char *s, size_t n)
{
    if (n != 6 || memcmp(s, "<0x", 3) != 0 || s[5] != '>' || hex(s[3]) < 0 || hex(s[4]) < 0)
        return -1;
    return hex(s[3]) * 16 + hex(s[4]);
}

static ht_status load_types(ht_tokenizer *t, const ht_gguf *g, const ht_kv *tokens, const ht_str *strs, ht_error *err)
{
    const char *key = "tokenizer.ggml.token_type";
    uint32_t n = t->info.n_vocab;
    const ht_kv *kv;
    ht_status st = find_list(&kv, g, key, HT_KV_I32, HT_KV_U32, "i32", n, err);

    memset(t->type, HT_TT_NORMAL, n);
    if (st != HT_OK || !kv)
        return st;
    for (uint32_t i = 0; i < n; i++) {
        int64_t v = 0;
        ht_kv_int(kv, i, &v);
        t->type[i] = v >= 0 && v <= HT_TT_BYTE ? (uint8_t)v : HT_TT_UNDEFINED;
        if (v == HT_TT_BYTE && byte_of(t->bytes + t->text[i].off, t->text[i].len) < 0)
            return ht_fail_at(err, HT_EFORMAT, str_offset(tokens, strs[i]),
                              "%s: key 'tokenizer.ggml.tokens': token %u is a byte token but reads '%s', not <0xNN>",
                              ht_tok_path(g), (unsigned)i, show(strs[i]).s);
    }
    return HT_OK;
}

/* A number that orders as the float does, the highest score first. */
static uint32_t score_order(double score)
{
    union { float f; uint32_t u; } x = { (float)score + 0.0f }; /* -0 and 0 are one score */
    if (x.f != x.f)
        return UINT32_MAX - 1;
    uint32_t up = x.u & 0x80000000u ? ~x.u : x.u | 0x80000000u;
    uint32_t down = ~up;
    return down >= UINT32_MAX - 1 ? UINT32_MAX - 2 : down;
}

static ht_status load_scores(ht_tokenizer *t, const ht_gguf *g, ht_error *err)
{
    const ht_kv *kv;
    ht_status st = find_list(&kv, g, "tokenizer.ggml.scores", HT_KV_F32, HT_KV_I32, "f32", t->info.n_vocab, err);

    if (st != HT_OK || t->kind != HT_TOK_SPM)
        return st;
    for (uint32_t i = 0; i < t->info.n_vocab; i++) {
        double v = 0.0;
        if (kv)
            ht_kv_float(kv, i, &v);
        /* plain text never becomes a control token */
        t->prio[i] = t->type[i] == HT_TT_CONTROL || t->type[i] == HT_TT_UNKNOWN ? UINT32_MAX : score_order(v);
    }
    return HT_OK;
}

/* ---- merges ------------------------------------------------------------------------------------------------------ */

static ht_status load_merges(ht_tokenizer *t, const ht_gguf *g, bool may_lack, ht_error *err)
{
    const char *key = "tokenizer.ggml.merges";
    const ht_kv *kv;
    ht_status st = find_list(&kv, g, key, HT_KV_STRING, HT_KV_STRING, "strings", UINT64_MAX, err);
    char stack[512], *joined = NULL;

    if (st != HT_OK)
        return st;
    if (!kv) {
        if (may_lack)
            return HT_OK;
        return ht_fail(err, HT_EFORMAT, "%s: key '%s' is missing", ht_tok_path(g), key);
    }
    if (kv->n > INT32_MAX / 4)
        return ht_tok_fail(err, HT_EUNSUPPORTED, kv, "%s: key '%s' has %llu elements", ht_tok_path(g), key,
                          (unsigned long long)kv->n);
    if (kv->n == 0)
        return HT_OK;
    uint32_t size = power_of_two(kv->n + kv->n / 2);
    t->merges = calloc(size, sizeof *t->merges);
    ht_str *strs = malloc((size_t)kv->n * sizeof *strs);
    if (!t->merges || !strs)
        goto no_memory;
    t->merge_mask = size - 1;
    ht_kv_strings(kv, strs);
    int32_t guess = 0;
    for (uint32_t rank = 0; rank < (uint32_t)kv->n; rank++) {
        const char *s = strs[rank].s;
        size_t n = strs[rank].n;
        const char *space = n > 1 ? memchr(s + 1, ' ', n - 1) : NULL;
        if (!space) /* names no pair: never applies */
            continue;
        if (n > HT_TOK_MAX_TEXT) {
            st = ht_fail_at(err, HT_EFORMAT, str_offset(kv, strs[rank]), "%s: key '%s': merge %u has %zu bytes",
                            ht_tok_path(g), key, (unsigned)rank, n);
            goto done;
        }
        size_t left = (size_t)(space - s);
        char *both = stack;
        if (n > sizeof stack) {
            if (!joined && !(joined = malloc(HT_TOK_MAX_TEXT)))
                goto no_memory;
            both = joined;
        }
        memcpy(both, s, left);
        memcpy(both + left, space + 1, n - left - 1);
        int32_t a = intern(t, s, left);
        int32_t b = n - left > 1 ? intern(t, space + 1, n - left - 1) : -1;
        if (n - left == 1)
            continue;
        /* tokens mostly stand in the order of their merges */
        int32_t m = guess + 1 < (int32_t)t->n_texts && t->text[guess + 1].len == n - 1 &&
                    memcmp(t->bytes + t->text[guess + 1].off, both, n - 1) == 0 ? guess + 1 : intern(t, both, n - 1);
        if (a < 0 || b < 0 || m < 0)
            goto no_memory;
        guess = m;
        uint64_t pair = (uint64_t)(uint32_t)(a + 1) << 32 | (uint32_t)(b + 1);
        uint32_t at = (uint32_t)ht_tok_pair_hash(pair) & t->merge_mask;
        while (t->merges[at].pair && t->merges[at].pair != pair)
            at = (at + 1) & t->merge_mask;
        if (!t->merges[at].pair) /* the first of equals counts */
            t->merges[at] = (ht_tok_merge){ pair, rank, (uint32_t)m };
    }
    st = HT_OK;
    goto done;

no_memory:
    st = ht_fail(err, HT_ENOMEM, "tokenizer: out of memory");
done:
    free(strs);
    free(joined);
    return st;
}

/* ---- bytes and pieces -------------------------------------------------------------------------------------------- */

/* The letter that stands for a byte in byte-level vocabularies: itself where it can be seen, else U+0100 and on. */
static uint32_t letter_of(uint32_t byte)
{
    if ((byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE)
        return byte;
    return byte <= 0x20 ? 0x100 + byte : byte <= 0xA0 ? 0x100 + 0x21 + (byte - 0x7F) : 0x143;
}

uint32_t ht_tok_letter(uint8_t byte, char out[2])
{
    uint32_t c = letter_of(byte);

    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    out[0] = (char)(0xC0 | c >> 6);
    out[1] = (char)(0x80 | (c & 0x3F));
    return 2;
}

static ht_status load_bytes(ht_tokenizer *t, ht_error *err)
{
    static const char digits[] = "0123456789ABCDEF";

    for (uint32_t b = 0; b < 256; b++) {
        if (t->kind == HT_TOK_BPE_BYTES) {
            char letter[2];
            uint32_t n = ht_tok_letter((uint8_t)b, letter);
            t->byte_id[b] = intern(t, letter, n);
            if (t->byte_id[b] < 0)
                return ht_fail(err, HT_ENOMEM, "tokenizer: out of memory");
            continue;
        }
        char name[6] = { '<', '0', 'x', digits[b >> 4], digits[b & 15], '>' };
        int32_t id = ht_tok_lookup(t, name, sizeof name);
        char raw = (char)b;
        if (id < 0)
            id = ht_tok_lookup(t, &raw, 1);
        t->byte_id[b] = id >= 0 && (uint32_t)id < t->info.n_vocab ? id : -1;
    }
    for (uint32_t i = 0; i < t->info.n_vocab && t->kind != HT_TOK_BPE_BYTES; i++)
        if (t->type[i] == HT_TT_BYTE) { /* written in another way: <0xff> */
            int b = byte_of(t->bytes + t->text[i].off, t->text[i].len);
            if (b >= 0 && t->byte_id[b] < 0)
                t->byte_id[b] = (int32_t)i;
        }
    return HT_OK;
}

/* What a token reads as, at out; never longer than its text. */
static size_t make_piece(const ht_tokenizer *t, uint32_t id, const int16_t *byte_of_letter, char *out)
{
    const char *s = t->bytes + t->text[id].off;
    size_t n = t->text[id].len, m = 0;

    switch ((ht_tok_type)t->type[id]) {
    case HT_TT_CONTROL: case HT_TT_USER: case HT_TT_UNKNOWN:
        memcpy(out, s, n);
        return n;
    case HT_TT_BYTE:
        out[0] = (char)byte_of(s, n);
        return 1;
    case HT_TT_UNUSED: case HT_TT_UNDEFINED:
        return 0;
    case HT_TT_NORMAL:
        break;
    }
    for (size_t i = 0; i < n; m++) {
        const uint8_t *p = (const uint8_t *)s + i;
        if (t->kind == HT_TOK_BPE_BYTES) {
            uint32_t c = p[0], len = 1;
            if (p[0] >= 0xC2 && p[0] <= 0xC5 && i + 1 < n && (p[1] & 0xC0) == 0x80) {
                c = (uint32_t)(p[0] & 0x1F) << 6 | (p[1] & 0x3F);
                len = 2;
            }
            if ((len == 2 || c < 0x80) && byte_of_letter[c] >= 0) {
                out[m] = (char)byte_of_letter[c];
                i += len;
                continue;
            }
        } else if ((t->kind == HT_TOK_SPM || t->escape_spaces) && n - i >= 3 && memcmp(p, "\xE2\x96\x81", 3) == 0) {
            out[m] = ' ';
            i += 3;
            continue;
        }
        out[m] = s[i++];
    }
    return m;
}

ht_status ht_tok_build_pieces(ht_tokenizer *t, ht_error *err)
{
    int16_t byte_of_letter[0x180];
    size_t total = 0;

    memset(byte_of_letter, -1, sizeof byte_of_letter);
    for (uint32_t b = 0; b < 256; b++)
        byte_of_letter[letter_of(b)] = (int16_t)b;
    for (uint32_t i = 0; i < t->info.n_vocab; i++)
        total += t->text[i].len;
    if (!ht_tok_room((void **)&t->bytes, &t->cap_bytes, t->n_bytes + total, 1))
        return ht_fail(err, HT_ENOMEM, "tokenizer: out of memory");
    t->max_piece = 1;
    for (uint32_t i = 0; i < t->info.n_vocab; i++) {
        size_t n = make_piece(t, i, byte_of_letter, t->bytes + t->n_bytes);
        t->piece[i] = (ht_tok_span){ (uint32_t)t->n_bytes, (uint32_t)n };
        t->n_bytes += n;
        if (t->text[i].len > t->max_piece)
            t->max_piece = t->text[i].len;
    }
    return HT_OK;
}

/* Where SentencePiece text can be cut without changing what merges give: before a U+2581 whose left neighbour stands
 * before an inner U+2581 in no token. */
static void find_joins(ht_tokenizer *t)
{
    for (uint32_t i = 0; i < t->info.n_vocab; i++) {
        const char *s = t->bytes + t->text[i].off;
        size_t n = t->text[i].len;
        if (t->prio[i] == UINT32_MAX)
            continue;
        if (n > t->max_text)
            t->max_text = (uint32_t)n;
        for (size_t k = 1; k + 3 <= n; k++)
            if (memcmp(s + k, "\xE2\x96\x81", 3) == 0)
                t->space_join[(uint8_t)s[k - 1]] = 1;
    }
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

ht_status ht_tok_load(ht_tokenizer *t, const ht_gguf *g, ht_error *err)
{
    static const char *const known[] = { "t5",         "bert",      "rwkv", "plamo2",
                                         "whitespace", "hybriddna", "none", "no_vocab" };
    const ht_kv *kv = ht_gguf_find(g, "tokenizer.ggml.model");
    const ht_pre_rule *rule = NULL;
    ht_str model = { "", 0 }, pre = { "", 0 };
    uint32_t pre_flags = 0;
    ht_status st;

    if (!kv)
        return ht_fail(err, HT_EUNSUPPORTED, "%s: the file has no tokenizer (key 'tokenizer.ggml.model' is missing)",
                       ht_tok_path(g));
    if ((st = ht_gguf_str(g, "tokenizer.ggml.model", &model, err)) != HT_OK ||
        (st = ht_gguf_str(g, "tokenizer.ggml.pre", &pre, err)) != HT_OK)
        return st;
    if (model.n == 5 && memcmp(model.s, "llama", 5) == 0) {
        t->kind = HT_TOK_SPM;
        t->add_space_prefix = true;
    } else if (model.n == 6 && memcmp(model.s, "gemma4", 6) == 0) {
        rule = ht_pre_rule_find("gemma4", 6);
    } else if (model.n == 4 && memcmp(model.s, "gpt2", 4) == 0) {
        rule = ht_pre_rule_find(pre.s, pre.n);
        if (!rule) {
            rule = ht_pre_rule_at(0);
            if (pre.n == 0)
                ht_tok_note(t, "key 'tokenizer.ggml.pre' is missing: text is split as 'default' does");
            else
                ht_tok_note(t, "pre-tokenizer '%s' is unknown: text is split as 'default' does", show(pre).s);
        }
    } else {
        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
            if (strlen(known[i]) == model.n && memcmp(known[i], model.s, model.n) == 0)
                return ht_tok_fail(err, HT_EUNSUPPORTED, kv,
                                  "%s: tokenizers of kind '%s' (key 'tokenizer.ggml.model') are not supported",
                                  ht_tok_path(g), known[i]);
        return ht_tok_fail(err, HT_EUNSUPPORTED, kv, "%s: unknown tokenizer '%s' (key 'tokenizer.ggml.model')",
                          ht_tok_path(g), show(model).s);
    }
    if (rule) {
        pre_flags = rule->flags;
        t->kind = pre_flags & HT_PRE_RAW ? HT_TOK_BPE_RAW : HT_TOK_BPE_BYTES;
        t->escape_spaces = pre_flags & HT_PRE_ESCAPE;
        t->ignore_merges = pre_flags & HT_PRE_IGNORE_MERGES;
        t->newline_words = pre_flags & HT_PRE_NEWLINES;
        if ((st = ht_pretok_open(&t->pretok, rule, err)) != HT_OK)
            return st;
    }
    if ((st = ht_gguf_bool(g, "tokenizer.ggml.add_space_prefix", &t->add_space_prefix, err)) != HT_OK)
        return st;

    st = find_list(&kv, g, "tokenizer.ggml.tokens", HT_KV_STRING, HT_KV_STRING, "strings", UINT64_MAX, err);
    if (st != HT_OK)
        return st;
    if (!kv)
        return ht_fail(err, HT_EFORMAT, "%s: key 'tokenizer.ggml.tokens' is missing", ht_tok_path(g));
    if (kv->n == 0 || kv->n > INT32_MAX / 4)
        return ht_tok_fail(err, HT_EFORMAT, kv, "%s: key 'tokenizer.ggml.tokens' has %llu elements",
                          ht_tok_path(g), (unsigned long long)kv->n);
    ht_str *strs = malloc((size_t)kv->n * sizeof *strs);
    if (!strs)
        return ht_fail(err, HT_ENOMEM, "tokenizer: out of memory");
    ht_kv_strings(kv, strs);
    st = load_texts(t, g, kv, strs, err);
    if (st == HT_OK)
        st = load_types(t, g, kv, strs, err);
    free(strs);
    if (st != HT_OK || (st = ht_tok_load_special(t, g, pre_flags, err)) != HT_OK ||
        (st = load_scores(t, g, err)) != HT_OK) /* it must know which tokens are control tokens */
        return st;
    if (t->kind == HT_TOK_SPM)
        find_joins(t);
    else if ((st = load_merges(t, g, pre.n == 7 && memcmp(pre.s, "kimi-k2", 7) == 0, err)) != HT_OK)
        return st;
    if ((st = load_bytes(t, err)) != HT_OK)
        return st;
    return ht_tok_build_pieces(t, err);
}
