/* SPDX-License-Identifier: MIT
 * Running text through a model, window by window, while statistics listen; see hearth_profiler.h. */
#include <stdlib.h>
#include <string.h>

#include "engine/base/hash.h"
#include "engine/base/os.h"
#include "offline_profiler/part.h"

enum { DEFAULT_TOKENS = 200000, DEFAULT_WINDOW = 512, DEFAULT_PART_TOKENS = 16384, MOST_WINDOW = 1 << 16 };

struct hearth_profiler {
    hearth_model *model;
    hearth_model_info info;
    hearth_profiler_params params;
    char *part; /* a copy; NULL: none */
    hearth_session *session;
    ht_stats stats;
    ht_part_state state;        /* of what is complete */
    hearth_token *ids, *window; /* of the text; of a window with its BOS */
    size_t n_ids;
    uint64_t text_bytes, resumed;
    double begun, seconds;
    bool ran;
};

hearth_status hearth_profiler_open(hearth_profiler **out, hearth_model *m, const hearth_profiler_params *params,
                                   hearth_error *error)
{
    ht_error *err = ht_profile_err(error);
    hearth_session_params sp = HEARTH_SESSION_PARAMS_INIT;
    hearth_profiler *p = calloc(1, sizeof *p);
    hearth_status st;

    *out = NULL;
    if (!p)
        return (hearth_status)ht_fail(err, HT_ENOMEM, "profiler");
    p->model = m;
    ht_profile_params(&p->params, sizeof p->params, params);
    p->info.size = sizeof p->info;
    if ((st = hearth_model_get_info(m, &p->info)) || (st = hearth_model_fingerprint(m, p->state.model, error)))
        goto fail;
    uint32_t bos = p->info.add_bos && p->info.bos >= 0;
    if (p->info.predicts) {
        st = (hearth_status)ht_fail(err, HT_EINVAL, "the model's predictors are in use: open it with sparsity off or exact");
        goto fail;
    }
    if (!p->params.window)
        p->params.window =
            p->info.n_ctx_train && p->info.n_ctx_train < DEFAULT_WINDOW ? p->info.n_ctx_train : DEFAULT_WINDOW;
    if (p->params.window <= 1 + bos || p->params.window > MOST_WINDOW) {
        st = (hearth_status)ht_fail(err, HT_EINVAL, "a window of %u tokens: it takes %u to %d", p->params.window,
                                    2 + bos, MOST_WINDOW);
        goto fail;
    }
    if (!p->params.max_tokens)
        p->params.max_tokens = DEFAULT_TOKENS;
    if (p->params.max_tokens > INT32_MAX) {
        st = (hearth_status)ht_fail(err, HT_EINVAL, "a profile of more than %d tokens", INT32_MAX);
        goto fail;
    }
    if (!p->params.part_tokens)
        p->params.part_tokens = DEFAULT_PART_TOKENS;
    ht_stats_open(&p->stats, p->params.window, bos, p->params.density_only);
    p->window = malloc(p->params.window * sizeof *p->window);
    p->part = p->params.part ? strdup(p->params.part) : NULL;
    if (!p->window || (p->params.part && !p->part)) {
        st = (hearth_status)ht_fail(err, HT_ENOMEM, "profiler");
        goto fail;
    }
    sp.n_ctx = p->params.window;
    sp.batch = p->params.batch ? p->params.batch : p->params.window < 512 ? p->params.window : 0;
    sp.kv_type = p->params.kv_type;
    if ((st = hearth_session_open(&p->session, m, &sp, error)) != HEARTH_OK)
        goto fail;
    hearth_session_trace(p->session, ht_stats_listen, &p->stats);
    *out = p;
    return HEARTH_OK;

fail:
    hearth_profiler_close(&p);
    return st;
}

void hearth_profiler_close(hearth_profiler **pp)
{
    hearth_profiler *p = pp ? *pp : NULL;
    if (!p)
        return;
    hearth_session_close(&p->session);
    ht_stats_close(&p->stats);
    hearth_free(p->ids);
    free(p->window);
    free(p->part);
    free(p);
    *pp = NULL;
}

hearth_session *hearth_profiler_session(hearth_profiler *p)
{
    return p->session;
}

/* Where the text may be cut near `n`: behind a line's end, so that no word is torn. */
static size_t cut_text(const char *text, size_t n, size_t most)
{
    if (n <= most)
        return n;
    for (size_t i = most; i > most / 2; i--)
        if (text[i - 1] == '\n')
            return i;
    while (most > 1 && ((unsigned char)text[most] & 0xc0) == 0x80)
        most--;
    return most;
}

/* The first max_tokens tokens: of a long text only as much is read as that takes. */
static hearth_status tokenize(hearth_profiler *p, const char *text, size_t n, hearth_error *err)
{
    uint64_t want = p->params.max_tokens;
    size_t take = want < SIZE_MAX / 8 ? cut_text(text, n, 8 * (size_t)want) : n;
    hearth_status st;

    for (;;) {
        if ((st = hearth_tokenize(p->model, text, take, false, false, &p->ids, &p->n_ids, err)) != HEARTH_OK)
            return st;
        if (p->n_ids >= want || take == n)
            break;
        hearth_free(p->ids);
        p->ids = NULL;
        take = take > n / 2 ? n : cut_text(text, n, 2 * take);
    }
    p->text_bytes = take;
    if (p->n_ids > want) {
        char *used;
        size_t n_used;
        p->n_ids = (size_t)want;
        if ((st = hearth_detokenize(p->model, p->ids, p->n_ids, true, &used, &n_used, err)) != HEARTH_OK)
            return st;
        p->text_bytes = n_used;
        hearth_free(used);
    }
    if (p->n_ids == 0)
        return (hearth_status)ht_fail(ht_profile_err(err), HT_EINVAL, "there is no token in the text");
    return HEARTH_OK;
}

/* Everything that decides the numbers beside the model itself; speed and threads do not. */
static void hash_settings(hearth_profiler *p)
{
    const uint32_t settings[4] = { p->params.window, p->params.density_only, (uint32_t)p->info.precision,
                                   (uint32_t)p->params.kv_type };
    uint64_t n = p->n_ids;
    ht_hash s;

    ht_hash_begin(&s, 3);
    ht_hash_add(&s, settings, sizeof settings);
    ht_hash_add(&s, &n, sizeof n);
    ht_hash_add(&s, p->ids, p->n_ids * sizeof *p->ids);
    ht_hash_end(&s, p->state.settings);
}

static ht_status save(hearth_profiler *p, ht_error *err)
{
    return p->part && p->state.tokens > p->resumed ? ht_part_save(p->part, &p->state, &p->stats, err) : HT_OK;
}

/* The window of the text that begins at state.tokens. */
static hearth_status compute_window(hearth_profiler *p, hearth_error *err)
{
    uint32_t n_skip = p->stats.n_skip;
    size_t left = p->n_ids - (size_t)p->state.tokens, room = p->params.window - n_skip, n = left < room ? left : room;
    hearth_status st = hearth_session_rewind(p->session, 0, err);

    if (st != HEARTH_OK)
        return st;
    if (n_skip)
        p->window[0] = p->info.bos;
    memcpy(p->window + n_skip, p->ids + p->state.tokens, n * sizeof *p->ids);
    ht_stats_begin_window(&p->stats);
    st = hearth_session_feed(p->session, p->window, n + n_skip, NULL, NULL, err);
    if (st == HEARTH_ECANCELLED && p->stats.out_of_memory)
        return (hearth_status)ht_fail(ht_profile_err(err), HT_ENOMEM, "out of memory for the statistics");
    if (st == HEARTH_ECANCELLED && p->stats.mismatch)
        return (hearth_status)ht_fail(ht_profile_err(err), HT_EMISMATCH,
                                      "%s: the unfinished profile does not fit the model", p->part ? p->part : "part");
    if (st != HEARTH_OK)
        return st;
    ht_stats_end_window(&p->stats, (uint32_t)n);
    p->state.tokens += n;
    p->state.windows++;
    return HEARTH_OK;
}

hearth_status hearth_profiler_run(hearth_profiler *p, const char *text, size_t n, hearth_error *error)
{
    ht_error *err = ht_profile_err(error);
    hearth_status st;
    bool found = false;

    if (p->ran)
        return (hearth_status)ht_fail(err, HT_EINVAL, "a profiler reads one text");
    p->ran = true;
    if ((st = tokenize(p, text, n, error)) != HEARTH_OK)
        return st;
    hash_settings(p);
    if (p->part && !p->params.restart &&
        (st = (hearth_status)ht_part_load(p->part, &p->state, &p->stats, &found, err)) != HEARTH_OK)
        return st;
    if (p->state.tokens > p->n_ids)
        return (hearth_status)ht_fail(err, HT_EFORMAT, "%s: the unfinished profile is damaged", p->part);
    p->resumed = p->state.tokens;
    p->begun = ht_os_now();
    uint64_t saved = p->state.tokens;
    while (p->state.tokens < p->n_ids) {
        if (p->params.progress &&
            !p->params.progress(p->params.progress_user, "profiling", p->state.tokens, p->n_ids)) {
            st = (hearth_status)ht_fail(err, HT_ECANCELLED, "cancelled by the caller");
            break;
        }
        if ((st = compute_window(p, error)) != HEARTH_OK)
            break;
        if (p->state.tokens - saved >= p->params.part_tokens) {
            if ((st = (hearth_status)save(p, err)) != HEARTH_OK)
                break;
            saved = p->state.tokens;
        }
    }
    p->seconds = ht_os_now() - p->begun;
    if (st == HEARTH_OK && p->params.progress)
        p->params.progress(p->params.progress_user, "profiling", p->n_ids, p->n_ids);
    if (st == HEARTH_ECANCELLED || st == HEARTH_OK) {
        ht_error why;
        ht_status kept = save(p, &why); /* a finished one too: the profile may fail to be written */
        if (kept != HT_OK) {
            if (err)
                *err = why;
            return (hearth_status)kept;
        }
    }
    return st;
}

hearth_status hearth_profiler_get_state(const hearth_profiler *p, hearth_profiler_state *out)
{
    hearth_profiler_state s = { .tokens = p->state.tokens,
                                .tokens_total = p->n_ids,
                                .tokens_resumed = p->resumed,
                                .seconds = p->seconds,
                                .bytes = p->stats.bytes };
    ht_profile_result(out, &s, sizeof s);
    return HEARTH_OK;
}

hearth_status hearth_profiler_profile(hearth_profiler *p, hearth_profile **out, hearth_error *error)
{
    ht_error *err = ht_profile_err(error);

    *out = NULL;
    if (!p->state.tokens)
        return (hearth_status)ht_fail(err, HT_EINVAL, "nothing was profiled yet");
    hearth_profile *r = ht_profile_new(p->info.n_layer);
    ht_status st = r ? ht_stats_profile(&p->stats, r, err) : HT_ENOMEM;
    if (r && st == HT_OK) {
        char by[40];
        snprintf(by, sizeof by, "hearth %s", hearth_version());
        memcpy(r->model, p->state.model, sizeof r->model);
        r->tokens = p->state.tokens;
        r->text_bytes = p->text_bytes;
        r->window = p->params.window;
        r->name = ht_profile_text(r, p->info.name, strlen(p->info.name));
        r->description = ht_profile_text(r, p->info.description, strlen(p->info.description));
        r->created_by = ht_profile_text(r, by, strlen(by));
        if (!r->name || !r->description || !r->created_by)
            st = ht_fail(err, HT_ENOMEM, "profile");
        else if (p->state.tokens < p->n_ids) /* of a run that was cut short: its share of the text */
            r->text_bytes = (uint64_t)((double)p->text_bytes * (double)p->state.tokens / (double)p->n_ids);
    } else if (!r) {
        ht_fail(err, HT_ENOMEM, "profile");
    }
    if (st != HT_OK) {
        hearth_profile_close(&r);
        return (hearth_status)st;
    }
    *out = r;
    return HEARTH_OK;
}
