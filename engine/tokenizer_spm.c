/* SPDX-License-Identifier: MIT
 *
 * SentencePiece BPE: spaces become U+2581, one is put in front of a text, and the merge loop runs over it.
 *
 * Merges know no words: in principle the whole text is one. It is cut before each U+2581 that no token can reach across
 * from the left; merges on the two sides cannot meet, so the ids are the same, and words repeat.
 *
 * Owner: ht_tok_work belongs to the call. Threads: any. */
#include "engine/tokenizer_impl.h"

bool ht_tok_escape(ht_tok_work *w, const char *text, size_t n, bool prefix, size_t *n_out)
{
    size_t spaces = prefix, m = 0;

    for (size_t i = 0; i < n; i++)
        spaces += text[i] == ' ';
    if (!ht_tok_room((void **)&w->buf, &w->cap_buf, n + 2 * spaces + 1, 1))
        return false;
    if (prefix) {
        memcpy(w->buf, "\xE2\x96\x81", 3);
        m = 3;
    }
    for (size_t i = 0; i < n; i++) {
        if (text[i] == ' ') {
            memcpy(w->buf + m, "\xE2\x96\x81", 3);
            m += 3;
        } else {
            w->buf[m++] = text[i];
        }
    }
    *n_out = m;
    return true;
}

ht_status ht_tok_encode_spm(const ht_tokenizer *t, ht_tok_work *w, const char *text, size_t n, bool prefix,
                            ht_error *err)
{
    size_t m, from = 0;

    if (!ht_tok_escape(w, text, n, prefix, &m) || m > INT32_MAX)
        return ht_fail(err, HT_ENOMEM, "tokenizer: out of memory for %zu bytes of text", n);
    for (size_t i = 1; i <= m; i++) {
        if (i < m) {
            if (w->buf[i] != '\xE2' || m - i < 3 || memcmp(w->buf + i, "\xE2\x96\x81", 3) != 0 ||
                t->space_join[(uint8_t)w->buf[i - 1]])
                continue;
        }
        if (!ht_tok_merge_word(t, w, w->buf + from, (uint32_t)(i - from)))
            return ht_fail(err, HT_ENOMEM, "tokenizer: out of memory for %zu bytes of text", n);
        from = i;
    }
    return HT_OK;
}
