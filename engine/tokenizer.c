/* SPDX-License-Identifier: MIT
 *
 * Opening and closing vocabularies, questions to them, and the frame of an encode call. See tokenizer_impl.h for how
 * the work is divided.
 *
 * Owner: an ht_tokenizer owns all it holds. Threads: read-only once open. */
#include <stdlib.h>

#include "engine/tokenizer_impl.h"

ht_status ht_tokenizer_open(ht_tokenizer **out, const ht_gguf *g, ht_error *err)
{
    ht_tokenizer *t = calloc(1, sizeof *t);
    ht_status st;

    *out = NULL;
    if (!t)
        return ht_fail(err, HT_ENOMEM, "tokenizer: out of memory");
    if ((st = ht_tok_load(t, g, err)) != HT_OK) {
        ht_tokenizer_close(&t);
        return st;
    }
    *out = t;
    return HT_OK;
}

void ht_tokenizer_close(ht_tokenizer **tp)
{
    if (!tp || !*tp)
        return;
    ht_tokenizer *t = *tp;
    free(t->text);
    free(t->piece);
    free(t->type);
    free(t->flags);
    free(t->prio);
    free(t->bytes);
    free(t->slots);
    free(t->merges);
    free(t->classes);
    ht_pretok_close(&t->pretok);
    free(t);
    *tp = NULL;
}

const ht_vocab_info *ht_tokenizer_info(const ht_tokenizer *t)
{
    return &t->info;
}

uint64_t ht_tokenizer_bytes(const ht_tokenizer *t)
{
    uint64_t vocab = t->info.n_vocab;
    return sizeof *t + t->cap_bytes + (uint64_t)t->cap_texts * sizeof *t->text +
           vocab * (sizeof *t->piece + sizeof *t->type + sizeof *t->flags + sizeof *t->prio) +
           ((uint64_t)t->slot_mask + 1) * sizeof *t->slots +
           (t->merges ? ((uint64_t)t->merge_mask + 1) * sizeof *t->merges : 0) +
           (uint64_t)t->n_classes * sizeof *t->classes;
}

const char *ht_tokenizer_note(const ht_tokenizer *t)
{
    return t->note[0] ? t->note : NULL;
}

bool ht_tokenizer_is_end(const ht_tokenizer *t, ht_token id)
{
    return id >= 0 && (uint32_t)id < t->info.n_vocab && (t->flags[id] & HT_TF_END);
}

bool ht_tokenizer_is_control(const ht_tokenizer *t, ht_token id)
{
    return id >= 0 && (uint32_t)id < t->info.n_vocab && t->type[id] == HT_TT_CONTROL;
}

ht_token ht_tokenizer_find(const ht_tokenizer *t, const char *text, size_t n)
{
    int32_t id = ht_tok_lookup(t, text, n);
    return id >= 0 && (uint32_t)id < t->info.n_vocab ? id : -1;
}

ht_status ht_tokenizer_encode(const ht_tokenizer *t, const char *text, size_t n, bool special, ht_token **ids,
                              size_t *n_ids, ht_error *err)
{
    ht_tok_work w = { 0 };
    ht_tok_frag *frags = NULL;
    size_t n_frags = 0;
    bool prefix = t->add_space_prefix;
    ht_status st = HT_OK;

    *ids = NULL;
    *n_ids = 0;
    /* positions have 32 bits, and a space can become three bytes */
    if (n > INT32_MAX / 3)
        return ht_fail(err, HT_EINVAL, "text of %zu bytes is too long to tokenise at once (at most %d)", n,
                       INT32_MAX / 3);
    if (n > 0 && (st = ht_tok_cut(t, text, n, special, &frags, &n_frags, err)) != HT_OK)
        return st;
    /* about one token in three bytes; and there are words to remember in longer texts only */
    if (!ht_tok_room((void **)&w.ids, &w.cap_ids, n / 3 + 16, sizeof *w.ids))
        st = ht_fail(err, HT_ENOMEM, "tokenizer: out of memory for %zu bytes of text", n);
    if (n > 512)
        w.seen = calloc(HT_TOK_SEEN, sizeof *w.seen);
    for (size_t i = 0; i < n_frags && st == HT_OK; i++) {
        const ht_tok_frag *f = &frags[i];
        if (f->id >= 0) {
            if (!ht_tok_push(&w, f->id))
                st = ht_fail(err, HT_ENOMEM, "tokenizer: out of memory for %zu bytes of text", n);
            prefix = t->add_space_prefix;
        } else {
            st = t->kind == HT_TOK_SPM
                     ? ht_tok_encode_spm(t, &w, text + f->start, f->end - f->start, prefix, err)
                     : ht_tok_encode_bpe(t, &w, text + f->start, f->end - f->start, err);
            prefix = false;
        }
    }
    free(frags);
    free(w.syms);
    ht_tok_queue_free(&w);
    free(w.seen);
    free(w.buf);
    if (st != HT_OK) {
        free(w.ids);
        return st;
    }
    *ids = w.ids;
    *n_ids = w.n_ids;
    return HT_OK;
}
