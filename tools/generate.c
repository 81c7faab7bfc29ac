/* SPDX-License-Identifier: MIT
 * Streaming, keeping and timing of one generation; see generate.h. */
#include "tools/generate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool keep(void **v, size_t *room, size_t need, size_t each)
{
    if (need <= *room)
        return true;
    size_t more = 2 * need + 256;
    void *p = realloc(*v, more * each);
    if (!p)
        return false;
    *v = p;
    *room = more;
    return true;
}

/* How a streamed model's experts are found, every other second (--verbose). */
static void tell_experts(ht_generation *g)
{
    enum { SECONDS = 2 };
    hearth_stats now = { .size = sizeof now };
    char text[200];

    if (g->last - g->told < SECONDS || hearth_session_get_stats(g->session, &now) != HEARTH_OK)
        return;
    g->told = g->last;
    ht_report_since(&now, &g->before);
    ht_report_stream_text(text, sizeof text, &now);
    if (text[0])
        ht_detail("%zu tokens, %s", g->n_ids, text);
}

static bool on_token(void *user, hearth_token token, const char *text, size_t n)
{
    ht_generation *g = user;
    if (token >= 0) {
        g->last = ht_now();
        tell_experts(g);
        if (g->first <= 0) {
            g->first = g->last;
            g->joules_first = ht_energy_read(&g->energy);
        }
        if (!keep((void **)&g->ids, &g->ids_room, g->n_ids + 1, sizeof *g->ids)) {
            g->out_of_memory = true;
            return false;
        }
        g->ids[g->n_ids++] = token;
    }
    if (!n)
        return true;
    if (!keep((void **)&g->text, &g->text_room, g->n_text + n + 1, 1)) {
        g->out_of_memory = true;
        return false;
    }
    memcpy(g->text + g->n_text, text, n);
    g->n_text += n;
    g->text[g->n_text] = 0;
    if (!g->silent && (fwrite(text, 1, n, stdout) != n || fflush(stdout))) {
        g->broken = true;
        return false;
    }
    return true;
}

int ht_generation_run(ht_generation *g, const ht_options *o, hearth_session *s, hearth_sampler *sampler,
                      const hearth_token *ids, size_t n, const ht_texts *stops)
{
    hearth_error err = { 0 };
    hearth_generate_params p = HEARTH_GENERATE_PARAMS_INIT;
    hearth_stats before = { .size = sizeof before };
    hearth_status st;
    hearth_session_get_stats(s, &before);
    *g = (ht_generation){ .ids = g->ids,
                          .ids_room = g->ids_room,
                          .text = g->text,
                          .text_room = g->text_room,
                          .begin = g->begin,
                          .why = HEARTH_STOP_LENGTH,
                          .session = s,
                          .before = before,
                          .told = ht_now(),
                          .silent = o->json };
    p.max_tokens = o->n_predict.given && o->n_predict.v > 0 ? (uint32_t)o->n_predict.v : 0;
    p.stops = stops->v;
    p.n_stops = stops->n;
    p.on_token = on_token;
    p.user = g;
    ht_energy_open(&g->energy);
    ht_interrupt_session(s);
    if (o->n_predict.given && o->n_predict.v == 0)
        st = hearth_session_feed(s, ids, n, NULL, NULL, &err); /* -n 0: reading the prompt is all there is to do */
    else
        st = hearth_generate(s, sampler, ids, n, &p, &g->why, &err);
    ht_interrupt_session(NULL);
    if (g->first > 0)
        g->joules_last = ht_energy_read(&g->energy);
    ht_console_progress_end();

    g->stats.size = sizeof g->stats;
    hearth_session_get_stats(s, &g->stats);
    g->stats.prompt_tokens -= before.prompt_tokens;
    g->stats.prompt_seconds -= before.prompt_seconds;
    g->stats.neurons_active -= before.neurons_active;
    g->stats.neurons_total -= before.neurons_total;
    g->stats.single_passes -= before.single_passes;
    g->stats.weight_bytes_read -= before.weight_bytes_read;
    ht_report_since(&g->stats, &before);
    if (st == HEARTH_ECANCELLED && ht_interrupted()) {
        g->why = HEARTH_STOP_CANCEL;
        return HT_EXIT_OK;
    }
    if (st != HEARTH_OK)
        return ht_call_failed(&err, false);
    if (g->broken)
        return ht_stdout_done(HT_EXIT_FAILED);
    if (g->out_of_memory) {
        ht_complain("out of memory");
        return HT_EXIT_FAILED;
    }
    return HT_EXIT_OK;
}

static double rate(double n, double seconds)
{
    return n > 0 && seconds > 0 ? n / seconds : NAN;
}

static const char *stop_name(hearth_stop_reason why)
{
    switch (why) {
    case HEARTH_STOP_END: return "end";
    case HEARTH_STOP_LENGTH: return "length";
    case HEARTH_STOP_TEXT: return "stop_text";
    case HEARTH_STOP_CONTEXT: return "context";
    case HEARTH_STOP_CANCEL: return "interrupted";
    default: return "caller";
    }
}

/* Steps lie between tokens: one less than there are. */
static double decode_rate(const ht_generation *g)
{
    return g->n_ids > 1 ? rate((double)g->n_ids - 1, g->last - g->first) : NAN;
}

int ht_generation_report(const ht_generation *g, const ht_loaded *l, uint64_t seed)
{
    cJSON *j = cJSON_CreateObject();
    double joules = g->joules_last - g->joules_first;
    bool known = g->joules_first >= 0 && joules > 0 && g->n_ids > 1;
    ht_report_text(j, "text", g->text ? g->text : "", g->n_text);
    ht_report_tokens(j, "tokens", g->ids, g->n_ids);
    cJSON_AddNumberToObject(j, "prompt_tokens", (double)g->stats.prompt_tokens);
    ht_report_number(j, "prompt_tokens_per_s", rate((double)g->stats.prompt_tokens, g->stats.prompt_seconds));
    cJSON_AddNumberToObject(j, "generated_tokens", (double)g->n_ids);
    ht_report_number(j, "decode_tokens_per_s", decode_rate(g));
    ht_report_number(j, "time_to_first_token_ms", g->first > 0 ? 1e3 * (g->first - g->begin) : NAN);
    ht_report_number(j, "activation_density", rate((double)g->stats.neurons_active, (double)g->stats.neurons_total));
    ht_report_number(j, "energy_joules_per_token", known ? joules / ((double)g->n_ids - 1) : NAN);
    /* Measuring them takes seconds: bench does. */
    cJSON_AddNullToObject(j, "memory_bandwidth_bytes_per_s");
    cJSON_AddNullToObject(j, "bandwidth_fraction");
    cJSON_AddStringToObject(j, "stop_reason", stop_name(g->why));
    cJSON_AddNumberToObject(j, "seed", (double)seed);
    cJSON_AddNumberToObject(j, "kv_bytes", (double)g->stats.kv_bytes);
    cJSON_AddNumberToObject(j, "scratch_bytes", (double)(g->stats.scratch_bytes + g->stats.thread_scratch_bytes));
    ht_report_model(j, l);
    if (g->stats.single_passes) /* what was skipped is not counted */
        cJSON_ReplaceItemInObject(
            j, "weight_bytes_per_token",
            cJSON_CreateNumber((double)g->stats.weight_bytes_read / (double)g->stats.single_passes));
    ht_report_recall(j, &g->stats);
    ht_report_stream(j, l, &g->stats);
    return ht_report_print(j);
}

void ht_generation_say(const ht_generation *g, const ht_loaded *l)
{
    char first[48] = "", density[48] = "", prompt[32] = "", decode[32] = "", experts[200];
    double prompt_rate = rate((double)g->stats.prompt_tokens, g->stats.prompt_seconds);
    if (isfinite(prompt_rate))
        snprintf(prompt, sizeof prompt, " at %.1f/s", prompt_rate);
    if (isfinite(decode_rate(g)))
        snprintf(decode, sizeof decode, " at %.1f/s", decode_rate(g));
    if (g->first > 0)
        snprintf(first, sizeof first, ", first after %.2f s", g->first - g->begin);
    if (g->stats.neurons_active < g->stats.neurons_total)
        snprintf(density, sizeof density, ", %.1f %% of neurons active",
                 100 * (double)g->stats.neurons_active / (double)g->stats.neurons_total);
    ht_say("read %llu tokens%s, wrote %zu%s%s%s, %u thread%s", (unsigned long long)g->stats.prompt_tokens, prompt,
           g->n_ids, decode, first, density, l->info.threads, l->info.threads == 1 ? "" : "s");
    ht_report_stream_text(experts, sizeof experts, &g->stats);
    if (experts[0])
        ht_detail("%s", experts);
}

void ht_generation_free(ht_generation *g)
{
    free(g->ids);
    free(g->text);
    memset(g, 0, sizeof *g);
}
