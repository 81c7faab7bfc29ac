/* SPDX-License-Identifier: MIT
 *
 * hearth bench: how fast a model reads and writes here.
 *
 * A setting is a triple (prompt tokens, generated tokens, threads). Every repeat visits all settings once, so that a
 * machine that slows down meanwhile slows all of them; the median over the repeats is told. Inside the timed
 * windows: for the prompt, computing p random ids from an empty context, the last position's logits included; for
 * decoding, n steps of one token each after a first token from an empty context, greedy sampling and detokenising
 * included. With --depth both begin behind so many positions of random ids. Outside: opening the model, the first touch
 * of its pages, a warm-up, and filling the depth. One model is open at a time: its mapping counts in peak memory, two
 * would count twice. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/commands.h"
#include "tools/report.h"

#define AT(member) offsetof(ht_options, member)

static const ht_flag own_flags[] = {
    { 'p', NULL, "N[,N]", HT_FLAG_TEXT, AT(list_prompt), 0, 0, NULL, NULL,
      "prompt lengths to measure, 0 leaves that half out; default 512" },
    { 'n', NULL, "N[,N]", HT_FLAG_TEXT, AT(list_predict), 0, 0, NULL, NULL,
      "numbers of tokens to generate, 0 leaves that half out; default 128" },
    { 'r', "repeats", "N", HT_FLAG_INTEGER, AT(repeats), 1, 1000, NULL, NULL,
      "how often every setting is measured; the median is told; default 3" },
    { 0, "threads", "N[,N]", HT_FLAG_TEXT, AT(list_threads), 0, 0, NULL, NULL,
      "compute threads; default: the performance cores that the process may use" },
    { 'd', "depth", "N", HT_FLAG_INTEGER, AT(depth), 0, 1 << 24, NULL, NULL,
      "positions that the context holds before prompt and generation begin; default 0" },
    { 0, "ctx", "N", HT_FLAG_INTEGER, AT(ctx), 1, 1 << 30, NULL, NULL,
      "context length; default: what the setting needs" },
    { 0, "quick", NULL, HT_FLAG_SWITCH, AT(quick), 0, 0, NULL, NULL,
      "leave the memory's bandwidth out, which takes a second or two" },
    { 0, "routing-trace", "FILE", HT_FLAG_TEXT, AT(routing_trace), 0, 0, NULL, NULL,
      "overrule a mixture's router by recorded routing (`hearth run --trace`), token by token, over and over" },
    { 0 },
};

enum { MAX_LIST = 16, MAX_REPEATS = 1000, PAGE = 128 /* positions by which a context grows */ };

typedef struct list {
    uint32_t v[MAX_LIST];
    size_t n;
} list;

typedef struct row {
    uint32_t n_prompt, n_generate, threads, used; /* used: of the threads asked for */
    double *prompt_s, *decode_s, *first_ms;       /* one per repeat */
    double joules, steps;                         /* joules < 0: unreadable */
    uint64_t active, neurons, passes, weight_bytes, kv_bytes, scratch_bytes, weight_bytes_per_token, peak_rss;
    double kv_read; /* bytes of keys and values that a step reads, all positions being seen; 0 without --depth */
    double load_ms, prompt_wait;
    uint64_t prompt_disk_bytes; /* of streamed models, all repeats together */
    hearth_stats experts; /* of streamed models: only the figures of ht_report_stream */
} row;

static bool parse_list(const char *text, uint32_t least, list *l)
{
    l->n = 0;
    for (const char *p = text;; p++) {
        char *end;
        unsigned long v = strtoul(p, &end, 10);
        if (end == p || *p == '-' || *p == '+' || v < least || v > 1 << 24 || l->n == MAX_LIST)
            return false;
        l->v[l->n++] = (uint32_t)v;
        p = end;
        if (!*p)
            return true;
        if (*p != ',')
            return false;
    }
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, size_t n)
{
    qsort(v, n, sizeof *v, ascending);
    return n % 2 ? v[n / 2] : 0.5 * (v[n / 2 - 1] + v[n / 2]);
}

/* Ids that look like nothing in particular, the same in every run (a linear congruential generator, Knuth's
 * constants). */
static void random_ids(const ht_loaded *l, hearth_token *ids, size_t n)
{
    uint64_t x = 20240607;
    for (size_t i = 0; i < n; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        ids[i] = (hearth_token)((x >> 33) % l->info.n_vocab);
    }
}

typedef struct steps {
    double first, last;
    uint32_t n;
} steps;

static bool on_token(void *user, hearth_token token, const char *text, size_t n)
{
    steps *s = user;
    (void)text;
    (void)n;
    if (token < 0)
        return true;
    s->last = ht_now();
    if (!s->n++)
        s->first = s->last;
    return true;
}

/* The context back to `depth` positions; a recurrent state must be computed anew. */
static hearth_status to_depth(hearth_session *s, const hearth_token *ids, uint32_t depth, bool filled,
                              hearth_error *err)
{
    hearth_status st;
    if (filled && (st = hearth_session_rewind(s, depth, err)) != HEARTH_EUNSUPPORTED)
        return st;
    if ((st = hearth_session_rewind(s, 0, err)) != HEARTH_OK || !depth)
        return st;
    return hearth_session_feed(s, ids, depth, NULL, NULL, err);
}

/* n tokens after one; seconds per step in *seconds. */
static hearth_status decode(const ht_loaded *l, hearth_session *s, const hearth_token *ids, uint32_t n, uint32_t depth,
                            double *seconds, hearth_error *err)
{
    hearth_sampler_params sp = HEARTH_SAMPLER_PARAMS_INIT;
    hearth_generate_params gp = HEARTH_GENERATE_PARAMS_INIT;
    hearth_stop_reason why = HEARTH_STOP_LENGTH;
    hearth_sampler *sampler = NULL;
    steps t = { 0 };
    gp.max_tokens = n + 1; /* n steps lie between n + 1 tokens */
    gp.ignore_end = true;
    gp.on_token = on_token;
    gp.user = &t;
    hearth_status st = to_depth(s, ids, depth, true, err);
    if (st == HEARTH_OK)
        st = hearth_sampler_open(&sampler, &sp, l->info.n_vocab, err);
    if (st == HEARTH_OK)
        st = hearth_generate(s, sampler, ids, 1, &gp, &why, err);
    hearth_sampler_close(&sampler);
    if (st == HEARTH_OK && (why == HEARTH_STOP_CANCEL || t.n < 2)) {
        err->status = HEARTH_ECANCELLED;
        snprintf(err->text, sizeof err->text, "the generation ended after %u of %u tokens", t.n, n + 1);
        return HEARTH_ECANCELLED;
    }
    *seconds = t.n > 1 ? (t.last - t.first) / (t.n - 1) : NAN;
    return st;
}

static void count_memory(row *w, const hearth_stats *s)
{
    uint64_t scratch = s->scratch_bytes + s->thread_scratch_bytes;
    w->kv_bytes = s->kv_bytes > w->kv_bytes ? s->kv_bytes : w->kv_bytes;
    w->scratch_bytes = scratch > w->scratch_bytes ? scratch : w->scratch_bytes;
}

static hearth_status measure(const ht_loaded *l, hearth_session *s, const hearth_token *ids, row *w, size_t repeat,
                             uint32_t depth, ht_energy *energy, hearth_error *err)
{
    hearth_status st = HEARTH_OK;
    hearth_stats before = { .size = sizeof before }, after = { .size = sizeof after };
    if (w->n_prompt) {
        if ((st = to_depth(s, ids, depth, true, err)) != HEARTH_OK)
            return st;
        hearth_session_get_stats(s, &before);
        double begin = ht_now();
        if ((st = hearth_session_feed(s, ids, w->n_prompt, NULL, NULL, err)) != HEARTH_OK)
            return st;
        w->prompt_s[repeat] = ht_now() - begin;
        /* The first token is picked from these logits: choosing it is a millisecond at most, and is in the decode
         * half. */
        w->first_ms[repeat] = 1e3 * w->prompt_s[repeat];
        hearth_session_get_stats(s, &after);
        count_memory(w, &after);
        ht_report_since(&after, &before);
        w->prompt_disk_bytes += after.disk_bytes_read;
        w->prompt_wait += after.io_wait_seconds;
    }
    if (w->n_generate) {
        hearth_session_get_stats(s, &before);
        double joules = ht_energy_read(energy);
        if ((st = decode(l, s, ids, w->n_generate, depth, &w->decode_s[repeat], err)) != HEARTH_OK)
            return st;
        double used = ht_energy_read(energy);
        hearth_session_get_stats(s, &after);
        w->joules = used < 0 || w->joules < 0 ? -1 : w->joules + used - joules;
        w->steps += w->n_generate + 1;
        hearth_stats now = after;
        ht_report_since(&now, &before);
        ht_report_add(&w->experts, &now);
        w->active += after.neurons_active - before.neurons_active;
        w->neurons += after.neurons_total - before.neurons_total;
        count_memory(w, &after);
        w->passes += after.single_passes - before.single_passes;
        w->weight_bytes += after.weight_bytes_read - before.weight_bytes_read;
        if (w->passes) /* what was skipped is not counted */
            w->weight_bytes_per_token = w->weight_bytes / w->passes;
        if (depth) { /* pages are taken whole: the share of them that an average step reads */
            uint32_t pages = (depth + w->n_generate + 1 + PAGE - 1) / PAGE;
            w->kv_read = (double)after.kv_bytes * (depth + 0.5 * w->n_generate) / ((double)pages * PAGE);
        }
    }
    w->peak_rss = hearth_peak_rss();
    return HEARTH_OK;
}

/* Another model's routing is allowed, where the shapes fit, and told. */
static hearth_status replay(hearth_routes *routes, hearth_session *s, const ht_loaded *l, hearth_error *err)
{
    hearth_routes_info info = { .size = sizeof info };
    char own[33];
    hearth_status st = hearth_routes_replay(routes, s, l->model, err);

    if (st != HEARTH_OK || (st = hearth_model_fingerprint(l->model, own, err)) != HEARTH_OK)
        return st;
    hearth_routes_get_info(routes, &info);
    if (strcmp(info.fingerprint, own) != 0)
        ht_say("the recorded routing %s (%s, %s, %u layers of %u experts, %u used): layers and experts are taken by their numbers",
               info.fingerprint[0] ? "is of another model" : "does not tell exactly which model it is of", info.model, info.architecture, info.n_layer,
               info.n_expert, info.n_used);
    return HEARTH_OK;
}

/* All settings of one thread count, with one model. */
static int visit(const ht_options *o, uint32_t threads, row *rows, size_t n_rows, size_t repeat, size_t n_repeats,
                 ht_loaded *l, hearth_session **s, hearth_routes *routes, ht_energy *energy, size_t *done)
{
    hearth_error err = { 0 };
    uint32_t need = 8, longest = 1, depth = o->depth.given ? (uint32_t)o->depth.v : 0;
    for (size_t i = 0; i < n_rows; i++) {
        if (rows[i].n_prompt > longest)
            longest = rows[i].n_prompt;
        if (rows[i].n_generate + 2 > need)
            need = rows[i].n_generate + 2;
    }
    if (longest > need)
        need = longest;
    need += depth;
    if (depth > longest)
        longest = depth;
    int status;
    hearth_token *ids = malloc(longest * sizeof *ids);
    if (!ids) {
        ht_complain("out of memory");
        return HT_EXIT_FAILED;
    }
    if (!l->model) {
        ht_load_how how = { .precision = HEARTH_PRECISION_FAST, .threads = threads };
        double unused;
        if ((status = ht_load_model(l, NULL, o, &how)) || (status = ht_load_session(s, l, o, need)))
            goto done;
        if (routes && replay(routes, *s, l, &err) != HEARTH_OK) {
            status = ht_call_failed(&err, false);
            goto done;
        }
        random_ids(l, ids, longest);
        ht_interrupt_session(*s);
        /* Touches every page of the weights. */
        if (decode(l, *s, ids, 2, 0, &unused, &err) != HEARTH_OK ||
            to_depth(*s, ids, depth, false, &err) != HEARTH_OK) {
            status = ht_call_failed(&err, false);
            goto done;
        }
    }
    random_ids(l, ids, longest);
    status = HT_EXIT_OK;
    for (size_t i = 0; i < n_rows && !status; i++) {
        if (rows[i].threads != threads)
            continue;
        rows[i].used = l->info.threads;
        rows[i].load_ms = l->load_ms;
        rows[i].weight_bytes_per_token = l->info.weight_bytes_per_token;
        if (measure(l, *s, ids, &rows[i], repeat, depth, energy, &err) != HEARTH_OK)
            status = ht_call_failed(&err, false);
        else if (!ht_console_progress(NULL, "bench", ++*done, n_rows * n_repeats))
            status = HT_EXIT_INTERRUPTED;
    }
done:
    ht_interrupt_session(NULL);
    free(ids);
    return status;
}

/* What a row says, in the units of its JSON names. */
typedef struct figures {
    double prompt, prompt_min, prompt_max, decode, decode_min, decode_max, first_ms, bandwidth, fraction, joules,
        density;
} figures;

static figures figure(row *w, size_t n_repeats, const hearth_hardware *hw)
{
    figures f = { NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN };
    /* The library measures one thread and the default number; what lies between would be a guess. */
    f.bandwidth = w->used == hw->default_threads ? hw->memory_read_bps_all : w->used == 1 ? hw->memory_read_bps_1 : NAN;
    if (!(f.bandwidth > 0))
        f.bandwidth = NAN;
    if (w->n_prompt) {
        f.prompt = w->n_prompt / median(w->prompt_s, n_repeats); /* sorts */
        f.prompt_max = w->n_prompt / w->prompt_s[0];
        f.prompt_min = w->n_prompt / w->prompt_s[n_repeats - 1];
        f.first_ms = median(w->first_ms, n_repeats);
    }
    if (w->n_generate) {
        f.decode = 1 / median(w->decode_s, n_repeats);
        f.decode_max = 1 / w->decode_s[0];
        f.decode_min = 1 / w->decode_s[n_repeats - 1];
        f.fraction = f.decode * ((double)w->weight_bytes_per_token + w->kv_read) / f.bandwidth;
        if (w->joules > 0)
            f.joules = w->joules / w->steps;
        if (w->neurons)
            f.density = (double)w->active / (double)w->neurons;
    }
    return f;
}

static int print_json(const ht_options *o, const ht_loaded *l, row *rows, size_t n_rows, size_t n_repeats, const hearth_hardware *hw)
{
    cJSON *all = cJSON_CreateArray();
    for (size_t i = 0; i < n_rows; i++) {
        row *w = &rows[i];
        figures f = figure(w, n_repeats, hw);
        cJSON *j = cJSON_CreateObject();
        cJSON_AddNumberToObject(j, "prompt_tokens", w->n_prompt);
        ht_report_number(j, "prompt_tokens_per_s", f.prompt);
        ht_report_number(j, "prompt_tokens_per_s_min", f.prompt_min);
        ht_report_number(j, "prompt_tokens_per_s_max", f.prompt_max);
        ht_report_number(j, "time_to_first_token_ms", f.first_ms);
        if (w->prompt_disk_bytes) {
            cJSON_AddNumberToObject(j, "prompt_disk_bytes_read", (double)w->prompt_disk_bytes / (double)n_repeats);
            cJSON_AddNumberToObject(j, "prompt_io_wait_seconds", w->prompt_wait / (double)n_repeats);
        }
        cJSON_AddNumberToObject(j, "generated_tokens", w->n_generate);
        if (w->kv_read > 0)
            cJSON_AddNumberToObject(j, "kv_bytes_read_per_token", w->kv_read);
        ht_report_number(j, "decode_tokens_per_s", f.decode);
        ht_report_number(j, "decode_tokens_per_s_min", f.decode_min);
        ht_report_number(j, "decode_tokens_per_s_max", f.decode_max);
        cJSON_AddNumberToObject(j, "repeats", (double)n_repeats);
        ht_report_number(j, "activation_density", f.density);
        ht_report_number(j, "memory_bandwidth_bytes_per_s", f.bandwidth);
        ht_report_number(j, "bandwidth_fraction", f.fraction);
        ht_report_number(j, "energy_joules_per_token", f.joules);
        cJSON_AddNumberToObject(j, "kv_bytes", (double)w->kv_bytes);
        cJSON_AddNumberToObject(j, "scratch_bytes", (double)w->scratch_bytes);
        if (o->routing_trace) /* whose experts these were */
            ht_report_text(j, "routing_trace", o->routing_trace, strlen(o->routing_trace));
        ht_report_model(j, l);
        if (w->n_generate)
            ht_report_stream(j, l, &w->experts);
        cJSON_ReplaceItemInObject(j, "threads", cJSON_CreateNumber(w->used));
        cJSON_ReplaceItemInObject(j, "weight_bytes_per_token", cJSON_CreateNumber((double)w->weight_bytes_per_token));
        cJSON_ReplaceItemInObject(j, "load_ms", cJSON_CreateNumber(w->load_ms));
        cJSON_ReplaceItemInObject(j, "peak_rss_bytes", cJSON_CreateNumber((double)w->peak_rss));
        cJSON_AddItemToArray(all, j);
    }
    return ht_report_print(all);
}

static void cell(double v, const char *fmt, int width)
{
    char text[40] = "-";
    if (isfinite(v))
        snprintf(text, sizeof text, fmt, v);
    printf(" %*s", width, text);
}

static int print_table(const ht_loaded *l, row *rows, size_t n_rows, size_t n_repeats, const hearth_hardware *hw)
{
    printf("%s\n%s, %s, median of %zu\n\n", l->path, l->info.description, l->info.isa, n_repeats);
    puts("prompt generate threads  prompt t/s  first ms  decode t/s  GB/s read  of memory  peak MB  J/token");
    for (size_t i = 0; i < n_rows; i++) {
        row *w = &rows[i];
        figures f = figure(w, n_repeats, hw);
        printf("%6u %8u %7u ", w->n_prompt, w->n_generate, w->used);
        cell(f.prompt, "%.1f", 10);
        cell(f.first_ms, "%.1f", 9);
        cell(f.decode, "%.2f", 11);
        cell(1e-9 * f.decode * ((double)w->weight_bytes_per_token + w->kv_read), "%.2f", 10);
        cell(100 * f.fraction, "%.0f %%", 10);
        cell((double)w->peak_rss / 1048576, "%.0f", 8);
        cell(f.joules, "%.3f", 8);
        putchar('\n');
    }
    printf("\nweights read per token: %.1f MB", (double)rows[n_rows - 1].weight_bytes_per_token / 1e6);
    if (rows[n_rows - 1].weight_bytes_per_token < l->info.weight_bytes_per_token)
        printf(" of %.1f MB, the rest skipped%s", (double)l->info.weight_bytes_per_token / 1e6,
               rows[n_rows - 1].experts.experts_stood_in ? ", or computed from fewer bits" : "");
    if (hw->memory_read_bps_1 > 0)
        printf("; memory read bandwidth measured: %.2f GB/s with 1 thread, %.2f GB/s with %u",
               1e-9 * hw->memory_read_bps_1, 1e-9 * hw->memory_read_bps_all, hw->default_threads);
    putchar('\n');
    for (size_t i = 0; i < n_rows; i++) {
        char text[200];
        ht_report_stream_text(text, sizeof text, &rows[i].experts);
        if (text[0])
            printf("%u threads, all steps: %s\n", rows[i].used, text);
    }
    return ht_stdout_done(HT_EXIT_OK);
}

static int measure_all(const ht_options *o, const list *threads, hearth_routes *routes, row *rows, size_t n_rows,
                       size_t n_repeats)
{
    ht_loaded l = { 0 };
    hearth_session *s = NULL;
    hearth_error err = { 0 };
    hearth_hardware hw = { .size = sizeof hw };
    ht_energy energy;
    size_t done = 0;
    int status = HT_EXIT_OK;

    ht_energy_open(&energy);
    for (size_t r = 0; r < n_repeats && !status; r++)
        for (size_t t = 0; t < threads->n && !status; t++) {
            status = visit(o, threads->v[t], rows, n_rows, r, n_repeats, &l, &s, routes, &energy, &done);
            bool last = r + 1 == n_repeats && t + 1 == threads->n;
            if (threads->n > 1 && !last) {
                hearth_session_close(&s);
                ht_load_close(&l);
            }
        }
    ht_console_progress_end();
    hearth_session_close(&s);
    /* After the model has let its threads go, and after its memory was counted. */
    if (!status && hearth_hardware_read(&hw, !o->quick, NULL, &err) != HEARTH_OK)
        status = ht_call_failed(&err, false);
    if (!status && ht_interrupted())
        status = HT_EXIT_INTERRUPTED;
    if (!status)
        status = o->json ? print_json(o, &l, rows, n_rows, n_repeats, &hw) : print_table(&l, rows, n_rows, n_repeats, &hw);
    ht_load_close(&l);
    return status;
}

static int run(const ht_options *o)
{
    list prompts, generate, threads = { .n = 1 };
    hearth_hardware hw = { .size = sizeof hw };
    hearth_error err = { 0 };
    size_t n_repeats = o->repeats.given ? (size_t)o->repeats.v : 3;
    static const char form[] = "takes numbers as 512 or 1,512";

    if (!parse_list(o->list_prompt ? o->list_prompt : "512", 0, &prompts))
        return ht_usage_error("-p %s, not '%s'", form, o->list_prompt);
    if (!parse_list(o->list_predict ? o->list_predict : "128", 0, &generate))
        return ht_usage_error("-n %s, not '%s'", form, o->list_predict);
    if (o->list_threads) {
        if (!parse_list(o->list_threads, 1, &threads))
            return ht_usage_error("--threads %s, not '%s'", form, o->list_threads);
    } else {
        if (hearth_hardware_read(&hw, false, NULL, &err) != HEARTH_OK)
            return ht_call_failed(&err, false);
        threads.v[0] = hw.default_threads ? hw.default_threads : 1;
    }
    hearth_routes *routes = NULL;
    if (o->routing_trace && hearth_routes_read(&routes, o->routing_trace, &err) != HEARTH_OK)
        return ht_call_failed(&err, false);
    size_t n_rows = prompts.n * generate.n * threads.n, i = 0;
    row *rows = calloc(n_rows, sizeof *rows);
    double *times = calloc(3 * n_rows * n_repeats, sizeof *times);
    int status = HT_EXIT_FAILED;
    if (!rows || !times) {
        ht_complain("out of memory");
        goto done;
    }
    for (size_t t = 0; t < threads.n; t++)
        for (size_t p = 0; p < prompts.n; p++)
            for (size_t g = 0; g < generate.n; g++, i++) {
                rows[i] = (row){ .n_prompt = prompts.v[p], .n_generate = generate.v[g], .threads = threads.v[t] };
                rows[i].prompt_s = times + 3 * i * n_repeats;
                rows[i].decode_s = rows[i].prompt_s + n_repeats;
                rows[i].first_ms = rows[i].decode_s + n_repeats;
                if (!rows[i].n_prompt && !rows[i].n_generate) {
                    status = ht_usage_error("-p 0 and -n 0 together leave nothing to measure");
                    goto done;
                }
            }
    ht_interrupt_arm(true);
    status = measure_all(o, &threads, routes, rows, n_rows, n_repeats);
done:
    hearth_routes_close(&routes);
    free(times);
    free(rows);
    return status;
}

const ht_command ht_command_bench = {
    .name = "bench",
    .arguments = "[MODEL] [-p N,…] [-n N,…] [-r N]",
    .summary = "measure prompt and generation speed, memory and energy",
    .text =
        "One row for each combination of -p, -n and --threads; each is measured -r times, taking turns, and the median "
        "is told. "
        "The prompt is random tokens, read from an empty context; generation is greedy and starts after one token; "
        "with "
        "--depth both start behind so many positions. The "
        "share of memory bandwidth is weight_bytes_per_token (with --depth and the keys and values of all positions) "
        "times "
        "the speed, over the read bandwidth measured at the "
        "end "
        "with as many threads (known for 1 and for the default number). Energy is what the processor packages' "
        "counters "
        "say, where they may be read.",
    .max_positional = 1,
    .tables = { own_flags, ht_flags_model, ht_flags_talk },
    .idle = { ht_flags_sampling },
    .run = run,
};
