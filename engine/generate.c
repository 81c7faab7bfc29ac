/* SPDX-License-Identifier: MIT
 * Generation behind hearth.h: feed, pick, deliver text without splitting characters or showing a stop text. */
#include <stdlib.h>
#include <string.h>

#include "engine/objects.h"

/* Text on its way to the caller: what may still turn out to be the beginning of a stop text is held. */
typedef struct outlet {
    const hearth_generate_params *p;
    char *held;
    size_t n;
} outlet;

/* There is room: at most the beginning of a stop text is left over when the next piece comes. */
static void hold(outlet *o, const char *text, size_t n)
{
    memcpy(o->held + o->n, text, n);
    o->n += n;
}

/* How many of the held bytes can be shown; *stopped where a stop text begins right after them. Of several stop texts
 * the one that is complete first counts (of two complete at once the longer), as if bytes came one by one: how the
 * text is cut into tokens must not matter. */
static size_t showable(const outlet *o, bool *stopped)
{
    size_t show = o->n, end = SIZE_MAX;
    *stopped = false;
    for (size_t s = 0; s < o->p->n_stops; s++) {
        size_t len = strlen(o->p->stops[s]);
        for (size_t at = 0; len && at < o->n; at++) {
            size_t left = o->n - at, k = left < len ? left : len;
            if (memcmp(o->held + at, o->p->stops[s], k) != 0)
                continue;
            if (k < len && !*stopped && at < show)
                show = at;
            if (k == len && (at + len < end || (at + len == end && at < show))) {
                show = at;
                end = at + len;
                *stopped = true;
            }
        }
    }
    return show;
}

/* Gives the caller what can be shown with this token. Returns false where the caller wants no more. */
static bool deliver(outlet *o, hearth_token id, size_t n)
{
    bool go_on = !o->p->on_token || o->p->on_token(o->p->user, id, o->held, n);
    memmove(o->held, o->held + n, o->n - n);
    o->n -= n;
    return go_on;
}

static ht_status generate(hearth_session *s, hearth_sampler *sampler, outlet *o, char *piece, size_t cap,
                          hearth_stop_reason *why, double t0, ht_error *err)
{
    const hearth_generate_params *p = o->p;
    ht_detok detok = { .started = true };
    ht_status st;
    double first = 0.0;
    uint32_t count = 0;

    for (;;) {
        if (s->state.pos >= s->state.n_ctx) { /* a token delivered now could not become part of the session */
            *why = HEARTH_STOP_CONTEXT;
            break;
        }
        hearth_token id = hearth_sampler_pick(sampler, hearth_session_logits(s));
        double now = ht_os_now();
        if (count++ == 0) {
            first = now;
            s->stats.first_token_seconds = now - t0;
        } else {
            s->stats.generated_tokens++;
            s->stats.decode_seconds += now - first;
            first = now;
        }
        if (!p->ignore_end && s->model->tok && ht_tokenizer_is_end(s->model->tok, id)) {
            *why = HEARTH_STOP_END;
            break;
        }
        size_t n = s->model->tok ? ht_detok_push(s->model->tok, &detok, id, false, piece, cap) : 0;
        bool stopped;
        hold(o, piece, n);
        n = showable(o, &stopped);
        s->pending = id;
        if (!deliver(o, id, n)) {
            *why = HEARTH_STOP_CALLER;
            return HT_OK;
        }
        if (stopped) {
            *why = HEARTH_STOP_TEXT;
            return HT_OK;
        }
        if (p->max_tokens && count >= p->max_tokens) {
            *why = HEARTH_STOP_LENGTH;
            break;
        }
        st = atomic_load(&s->cancel.asked) ? HT_ECANCELLED : ht_session_compute(s, &id, 1, NULL, NULL, err);
        if (st == HT_ECANCELLED) {
            *why = HEARTH_STOP_CANCEL;
            break;
        }
        if (st != HT_OK)
            return st;
        s->pending = -1;
    }
    char tail[8];
    hold(o, tail, ht_detok_flush(&detok, tail, sizeof tail));
    if (o->n)
        deliver(o, -1, o->n);
    return HT_OK;
}

hearth_status hearth_generate(hearth_session *s, hearth_sampler *sampler, const hearth_token *ids, size_t n_ids,
                              const hearth_generate_params *params, hearth_stop_reason *why, hearth_error *error)
{
    ht_error *err = ht_err(error);
    hearth_generate_params p;
    hearth_stop_reason reason = HEARTH_STOP_END;
    double t0 = ht_os_now();
    ht_status st;

    HT_PARAMS(&p, params);
    if (ht_sampler_n_vocab(sampler) > s->model->m.n_vocab)
        return (hearth_status)ht_fail(err, HT_EINVAL, "the sampler is for %u tokens, the model has %u",
                                      ht_sampler_n_vocab(sampler), s->model->m.n_vocab);
    if (n_ids || s->pending >= 0) {
        if (n_ids == 0) {
            st = ht_session_compute(s, &s->pending, 1, NULL, NULL, err);
            s->pending = st == HT_OK ? -1 : s->pending;
        } else {
            st = (ht_status)hearth_session_feed(s, ids, n_ids, NULL, NULL, error);
        }
        if (st == HT_ECANCELLED) {
            if (why)
                *why = HEARTH_STOP_CANCEL;
            return HEARTH_OK;
        }
        if (st != HT_OK)
            return (hearth_status)st;
    }
    if (!s->has_logits)
        return (hearth_status)ht_fail(err, HT_EINVAL, "nothing to go on from: feed at least one token first");

    outlet o = { .p = &p };
    size_t cap = (s->model->tok ? ht_tokenizer_max_piece(s->model->tok) : 0) + 16;
    size_t longest = 0;
    for (size_t i = 0; i < p.n_stops; i++) {
        size_t n = strlen(p.stops[i]);
        longest = n > longest ? n : longest;
    }
    char *piece = malloc(cap);
    o.held = malloc(longest + 2 * cap); /* what is held, a piece, the tail */
    if (!piece || !o.held) {
        free(piece);
        free(o.held);
        return (hearth_status)ht_fail(err, HT_ENOMEM, "generated text");
    }
    st = generate(s, sampler, &o, piece, cap, &reason, t0, err);
    free(piece);
    free(o.held);
    if (st == HT_OK && why)
        *why = reason;
    return (hearth_status)st;
}
