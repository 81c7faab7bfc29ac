/* SPDX-License-Identifier: MIT
 * Samples of what feed-forward blocks read and gave; see train.h. */
#include <stdlib.h>
#include <string.h>

#include "offline_profiler/train.h"

enum { WINDOW = 512 };

static bool listen(void *user, const hearth_trace *t)
{
    ht_samples *s = user;

    if (t->expert == HEARTH_TRACE_SHARED)
        return true;
    ht_sample_layer *l = &s->layers[t->layer];
    for (uint32_t i = 0; i < t->n_tokens; i++) {
        const uint32_t at = t->tokens ? t->tokens[i] : i, position = t->position + at;
        if (position < s->skip || s->begun + position - s->skip >= s->room)
            continue;
        const uint32_t row = s->begun + position - s->skip;
        const float *h = t->hidden + i * t->hidden_stride;
        double *hh = l->hh + (size_t)t->expert * t->n_ff;
        memcpy(l->input + (size_t)row * s->d, t->input + at * t->input_stride, s->d * sizeof(float));
        for (uint32_t j = 0; j < t->n_used; j++)
            l->chosen[(size_t)row * t->n_used + j] = t->expert_ids[(size_t)at * t->n_used + j];
        for (uint32_t j = 0; j < t->n_ff; j++)
            hh[j] += (double)h[j] * h[j];
        uint32_t place = 0;
        while (place < t->n_used && t->expert_ids[(size_t)at * t->n_used + place] != t->expert)
            place++;
        if (l->hidden && place < l->block.n_used)
            memcpy(l->hidden + ((size_t)row * l->block.n_used + place) * t->n_ff, h, t->n_ff * sizeof *h);
    }
    return true;
}

static bool make_room(ht_samples *s, hearth_model *m, bool hidden)
{
    s->layers = calloc(s->n_layer, sizeof *s->layers);
    for (uint32_t i = 0; s->layers && i < s->n_layer; i++) {
        ht_sample_layer *l = &s->layers[i];
        l->block.size = sizeof l->block;
        hearth_model_get_block(m, i, &l->block);
        l->input = calloc((size_t)s->room * s->d, sizeof *l->input);
        l->hh = calloc((size_t)l->block.n_expert * l->block.n_ff, sizeof *l->hh);
        l->chosen = calloc((size_t)s->room * l->block.n_used, sizeof *l->chosen);
        if (hidden)
            l->hidden = calloc((size_t)s->room * l->block.n_used * l->block.n_ff, sizeof *l->hidden);
        if (!l->input || !l->hh || !l->chosen || (hidden && !l->hidden))
            return false;
    }
    return s->layers != NULL;
}

hearth_status ht_samples_take(ht_samples *s, hearth_model *m, uint32_t room, bool hidden, const char *text, size_t n,
                              hearth_progress_fn *progress, void *user, hearth_error *error)
{
    ht_error *err = ht_profile_err(error);
    hearth_model_info info = { .size = sizeof info };
    hearth_session_params sp = HEARTH_SESSION_PARAMS_INIT;
    hearth_session *session = NULL;
    hearth_token *ids = NULL, window[WINDOW];
    size_t n_ids = 0;
    hearth_status st;

    memset(s, 0, sizeof *s);
    hearth_model_get_info(m, &info);
    if ((st = hearth_tokenize(m, text, n, false, false, &ids, &n_ids, error)) != HEARTH_OK)
        return st;
    s->n_layer = info.n_layer;
    s->d = info.d_model;
    s->room = room < n_ids ? room : (uint32_t)n_ids;
    s->skip = info.add_bos && info.bos >= 0;
    sp.n_ctx = info.n_ctx_train && info.n_ctx_train < WINDOW ? info.n_ctx_train : WINDOW;
    if (sp.n_ctx <= s->skip + 1) {
        st = (hearth_status)ht_fail(err, HT_EINVAL, "a context of %u is too short to learn from", sp.n_ctx);
        goto end;
    }
    const uint32_t per = sp.n_ctx - s->skip, windows = (s->room + per - 1) / per;
    if (s->room < 64) {
        st = (hearth_status)ht_fail(err, HT_EINVAL, "a text of %zu tokens is too short to learn from", n_ids);
        goto end;
    }
    if (!make_room(s, m, hidden)) {
        st = (hearth_status)ht_fail(err, HT_ENOMEM, "samples of %u tokens", s->room);
        goto end;
    }
    if ((st = hearth_session_open(&session, m, &sp, error)) != HEARTH_OK)
        goto end;
    hearth_session_trace(session, listen, s);
    for (uint32_t w = 0; w < windows && st == HEARTH_OK; w++) {
        size_t first = windows > 1 ? (size_t)((double)(n_ids - per) * w / (windows - 1)) : 0;
        size_t k = s->room - s->begun < per ? s->room - s->begun : per;
        k = n_ids - first < k ? n_ids - first : k;
        if (progress && !progress(user, "learning", w, windows)) {
            st = (hearth_status)ht_fail(err, HT_ECANCELLED, "cancelled by the caller");
            break;
        }
        window[0] = info.bos;
        memcpy(window + s->skip, ids + first, k * sizeof *ids);
        if ((st = hearth_session_rewind(session, 0, error)) == HEARTH_OK)
            st = hearth_session_feed(session, window, k + s->skip, NULL, NULL, error);
        s->begun += (uint32_t)k;
    }
    s->tokens = s->begun;
end:
    hearth_session_close(&session);
    hearth_free(ids);
    if (st != HEARTH_OK)
        ht_samples_free(s);
    return st;
}

void ht_samples_free(ht_samples *s)
{
    for (uint32_t i = 0; s->layers && i < s->n_layer; i++) {
        free(s->layers[i].input);
        free(s->layers[i].hh);
        free(s->layers[i].chosen);
        free(s->layers[i].hidden);
    }
    free(s->layers);
    s->layers = NULL;
}
