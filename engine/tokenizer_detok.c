/* SPDX-License-Identifier: MIT
 *
 * Ids back to text: pieces of single tokens, and a stream that never cuts a UTF-8 character.
 *
 * Owner: pieces belong to the tokenizer; ht_detok is plain data of its caller. Threads: any; one stream, one thread. */
#include "engine/tokenizer_impl.h"

size_t ht_tokenizer_piece(const ht_tokenizer *t, ht_token id, bool special, const char **bytes)
{
    *bytes = "";
    if (id < 0 || (uint32_t)id >= t->info.n_vocab)
        return 0;
    if (t->type[id] == HT_TT_CONTROL || t->type[id] == HT_TT_UNKNOWN) {
        if (!special)
            return 0;
    }
    *bytes = t->bytes + t->piece[id].off;
    return t->piece[id].len;
}

size_t ht_tokenizer_max_piece(const ht_tokenizer *t)
{
    return t->max_piece;
}

/* May these bytes still become a character? n >= 1, and they are none yet. */
static bool may_become(const uint8_t *p, size_t n)
{
    static const uint8_t second[4][2] = { { 0xA0, 0xBF }, { 0x80, 0x9F }, { 0x90, 0xBF }, { 0x80, 0x8F } };
    size_t need = p[0] < 0xC2 || p[0] > 0xF4 ? 0 : p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : 4;
    int odd = p[0] == 0xE0 ? 0 : p[0] == 0xED ? 1 : p[0] == 0xF0 ? 2 : p[0] == 0xF4 ? 3 : -1;

    if (n >= need)
        return false;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xC0) != 0x80)
            return false;
    return n < 2 || odd < 0 || (p[1] >= second[odd][0] && p[1] <= second[odd][1]);
}

static size_t put(char *out, size_t cap, size_t at, const char *s, size_t n)
{
    if (at + n > cap)
        n = cap - at;
    if (n > 0)
        memcpy(out + at, s, n);
    return at + n;
}

size_t ht_detok_push(const ht_tokenizer *t, ht_detok *d, ht_token id, bool special, char *out, size_t cap)
{
    const char *s;
    size_t n = ht_tokenizer_piece(t, id, special, &s);
    size_t m = 0;

    if (n == 0)
        return 0;
    if (!d->started) {
        d->started = true;
        if (t->kind == HT_TOK_SPM && t->add_space_prefix && s[0] == ' ' && t->type[id] == HT_TT_NORMAL) {
            s++;
            n--;
        }
    }
    for (size_t i = 0; i < n;) {
        if (d->n_held == 0) {
            uint32_t len = ht_tok_utf8((const uint8_t *)s + i, n - i);
            if (len > 0) {
                m = put(out, cap, m, s + i, len);
                i += len;
                continue;
            }
        }
        d->held[d->n_held++] = s[i];
        if (ht_tok_utf8((const uint8_t *)d->held, d->n_held) > 0) {
            m = put(out, cap, m, d->held, d->n_held);
            d->n_held = 0;
            i++;
        } else if (may_become((const uint8_t *)d->held, d->n_held)) {
            i++;
        } else if (d->n_held == 1) {
            m = put(out, cap, m, d->held, 1);
            d->n_held = 0;
            i++;
        } else { /* this byte ended what was held: it begins anew */
            m = put(out, cap, m, d->held, d->n_held - 1u);
            d->n_held = 0;
        }
    }
    return m;
}

size_t ht_detok_flush(ht_detok *d, char *out, size_t cap)
{
    size_t m = put(out, cap, 0, d->held, d->n_held);

    d->n_held = 0;
    return m;
}
