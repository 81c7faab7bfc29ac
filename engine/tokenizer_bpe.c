/* SPDX-License-Identifier: MIT
 *
 * Byte-pair encoding by rank: the pre-tokenizer cuts text into words, each word goes through the merge loop.
 *
 * Bytes that are no UTF-8 count as U+FFFD while text is cut, one each; what is merged are the bytes themselves.
 *
 * Owner: ht_tok_work belongs to the call. Threads: any. */
#include <stdlib.h>

#include "engine/tokenizer_impl.h"

typedef struct words {
    const ht_tokenizer *t;
    ht_tok_work *w;
    const char *text;   /* the original bytes */
    size_t at;          /* where the next word starts in them */
    const size_t *bad;  /* where the bytes that are no UTF-8 lie in the text that is cut, in order */
    size_t n_bad, k;
} words;

/* The token that a whole word is, or -1. */
static int32_t whole_word(const ht_tokenizer *t, const char *s, size_t n)
{
    char letters[512];
    size_t m = 0;
    int32_t id;

    if (t->kind != HT_TOK_BPE_BYTES) {
        id = ht_tok_lookup(t, s, n);
    } else {
        if (n > sizeof letters / 2) {
            if (n > t->max_piece)
                return -1;
            char *long_word = malloc(2 * n);
            if (!long_word)
                return -2;
            for (size_t i = 0; i < n; i++)
                m += ht_tok_letter((uint8_t)s[i], long_word + m);
            id = ht_tok_lookup(t, long_word, m);
            free(long_word);
        } else {
            for (size_t i = 0; i < n; i++)
                m += ht_tok_letter((uint8_t)s[i], letters + m);
            id = ht_tok_lookup(t, letters, m);
        }
    }
    /* plain text never becomes a control token */
    return id >= 0 && ((uint32_t)id >= t->info.n_vocab || t->type[id] == HT_TT_CONTROL) ? -1 : id;
}

static bool one_word(void *arg, size_t start, size_t n)
{
    words *x = arg;
    const ht_tokenizer *t = x->t;
    size_t bytes = n;

    for (; x->k < x->n_bad && x->bad[x->k] < start + n; x->k++)
        bytes -= 2; /* U+FFFD is three bytes long, stood for one */
    const char *s = x->text + x->at;
    x->at += bytes;
    if (t->ignore_merges || (t->newline_words && s[0] == '\n')) {
        int32_t id = whole_word(t, s, bytes);
        if (id == -2)
            return false;
        if (id >= 0)
            return ht_tok_push(x->w, id);
    }
    return ht_tok_merge_word(t, x->w, s, (uint32_t)bytes);
}

/* Text with U+FFFD for each byte that is no UTF-8, and their places; *out is NULL where there are none. */
static bool make_valid(const char *text, size_t n, char **out, size_t *n_out, size_t **bad, size_t *n_bad)
{
    size_t count = 0, m = 0, k = 0;
    uint32_t len;

    *out = NULL;
    *bad = NULL;
    *n_bad = 0;
    for (size_t i = 0; i < n; i += len ? len : 1) {
        len = ht_tok_utf8((const uint8_t *)text + i, n - i);
        count += len == 0;
    }
    if (count == 0)
        return true;
    *out = malloc(n + 2 * count);
    *bad = malloc(count * sizeof **bad);
    if (!*out || !*bad)
        return false;
    for (size_t i = 0; i < n;) {
        len = ht_tok_utf8((const uint8_t *)text + i, n - i);
        if (len == 0) {
            (*bad)[k++] = m;
            memcpy(*out + m, "\xEF\xBF\xBD", 3);
            m += 3;
            i++;
        } else {
            memcpy(*out + m, text + i, len);
            m += len;
            i += len;
        }
    }
    *n_out = m;
    *n_bad = count;
    return true;
}

ht_status ht_tok_encode_bpe(const ht_tokenizer *t, ht_tok_work *w, const char *text, size_t n, ht_error *err)
{
    char *valid = NULL;
    size_t *bad = NULL, n_bad = 0, n_valid = 0;
    bool done = false;

    if (t->escape_spaces) {
        if (!ht_tok_escape(w, text, n, false, &n))
            goto out;
        text = w->buf;
    }
    if (make_valid(text, n, &valid, &n_valid, &bad, &n_bad)) {
        words x = { t, w, text, 0, bad, n_bad, 0 };
        done = ht_pretok_split(t->pretok, valid ? valid : text, valid ? n_valid : n, one_word, &x);
    }
    free(valid);
    free(bad);
out:
    return done ? HT_OK : ht_fail(err, HT_ENOMEM, "tokenizer: out of memory for %zu bytes of text", n);
}
