/* SPDX-License-Identifier: MIT
 * Text and tokens behind hearth.h. */
#include <stdlib.h>
#include <string.h>

#include "engine/objects.h"

static ht_status need_vocabulary(const hearth_model *m, ht_error *err)
{
    return m->tok ? HT_OK
                  : ht_fail(err, HT_EUNSUPPORTED, "this file has no vocabulary (tokenizer.ggml.model is missing)");
}

hearth_status hearth_tokenize(const hearth_model *m, const char *text, size_t n, bool add_bos, bool special,
                              hearth_token **ids, size_t *n_ids, hearth_error *error)
{
    ht_error *err = ht_err(error);
    ht_token *body = NULL;
    size_t n_body = 0;
    ht_status st = need_vocabulary(m, err);

    if (st != HT_OK || (st = ht_tokenizer_encode(m->tok, text, n, special, &body, &n_body, err)) != HT_OK)
        return (hearth_status)st;
    const ht_vocab_info *v = ht_tokenizer_info(m->tok);
    bool bos = add_bos && v->add_bos && v->bos >= 0, eos = add_bos && v->add_eos && v->eos >= 0;
    /* A template may have written BOS itself. */
    if (bos && special && n_body && body[0] == v->bos)
        bos = false;
    hearth_token *all = malloc((n_body + 2) * sizeof *all);
    if (!all) {
        free(body);
        return (hearth_status)ht_fail(err, HT_ENOMEM, "%zu token ids", n_body);
    }
    size_t k = 0;
    if (bos)
        all[k++] = v->bos;
    if (n_body)
        memcpy(all + k, body, n_body * sizeof *all);
    k += n_body;
    if (eos)
        all[k++] = v->eos;
    free(body);
    *ids = all;
    *n_ids = k;
    return HEARTH_OK;
}

hearth_status hearth_detokenize(const hearth_model *m, const hearth_token *ids, size_t n_ids, bool special, char **text,
                                size_t *n, hearth_error *error)
{
    ht_error *err = ht_err(error);
    ht_detok d = { 0 };
    ht_status st = need_vocabulary(m, err);

    if (st != HT_OK)
        return (hearth_status)st;
    size_t piece = ht_tokenizer_max_piece(m->tok) + 16, cap = piece + n_ids * 4, len = 0;
    char *out = malloc(cap);
    for (size_t i = 0; out && i < n_ids; i++) {
        if (ids[i] < 0 || (uint32_t)ids[i] >= ht_tokenizer_info(m->tok)->n_vocab) {
            free(out);
            return (hearth_status)ht_fail(err, HT_EINVAL, "token id %d is outside 0..%u", ids[i],
                                          ht_tokenizer_info(m->tok)->n_vocab - 1);
        }
        if (cap - len < piece) {
            char *p = realloc(out, cap *= 2);
            if (!p)
                free(out);
            out = p;
        }
        if (out)
            len += ht_detok_push(m->tok, &d, ids[i], special, out + len, cap - len);
    }
    if (!out)
        return (hearth_status)ht_fail(err, HT_ENOMEM, "text of %zu tokens", n_ids);
    len += ht_detok_flush(&d, out + len, cap - len);
    *text = out;
    *n = len;
    return HEARTH_OK;
}

bool hearth_token_is_end(const hearth_model *m, hearth_token id) { return m->tok && ht_tokenizer_is_end(m->tok, id); }
