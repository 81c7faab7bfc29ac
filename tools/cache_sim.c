/* SPDX-License-Identifier: MIT
 *
 * hearth cache-sim: what a cache of experts would hold, of recorded routing. The replay is the library's; here are the
 * budgets, the tables and the files. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/commands.h"
#include "tools/report.h"

#define AT(member) offsetof(ht_options, member)

static const ht_flag own_flags[] = {
    { 0, "budgets", "LIST", HT_FLAG_TEXT, AT(budgets), 0, 0, NULL, NULL,
      "sizes of the cache, as 250M,6G or 10%,25% of all experts; default 10%,15%,20%,25%,33%" },
    { 0, "warm", NULL, HT_FLAG_SWITCH, AT(warm), 0, 0, NULL, NULL,
      "as a second start: heat is known from a first replay, and the cache is filled with the hottest" },
    { 0, "after", "TRACE", HT_FLAG_TEXT, AT(after), 0, 0, NULL, NULL, "the same, heat being of this earlier record" },
    { 0, "predictors", NULL, HT_FLAG_SWITCH, AT(predictors), 0, 0, NULL, NULL,
      "tell how well a layer's experts are foreseen from the layers and tokens before, in place of the caches" },
    { 0, "html", "FILE", HT_FLAG_TEXT, AT(report), 0, 0, NULL, NULL, "draw the hit-rate curves as a page" },
    { 0 },
};

enum { MAX_BUDGETS = 32, N_POLICIES = HEARTH_CACHE_RANDOM + 1 };

/* "250M" or "10%"; false: neither. */
static bool parse_budget(const char *text, uint64_t all, uint64_t *bytes)
{
    char *end = NULL;
    if (!strchr(text, '%'))
        return ht_options_size(text, bytes) && *bytes > 0;
    double v = *text >= '0' && *text <= '9' ? strtod(text, &end) : -1;
    if (!end || v <= 0 || v > 100 || strcmp(end, "%") != 0)
        return false;
    *bytes = (uint64_t)(v / 100 * (double)all);
    return *bytes > 0;
}

static int parse_budgets(const char *list, uint64_t all, uint64_t *budgets, size_t *n)
{
    char one[64];
    *n = 0;
    for (const char *p = list;; p++) {
        const size_t len = strcspn(p, ",");
        if (*n == MAX_BUDGETS)
            return ht_usage_error("--budgets takes %d sizes at most", MAX_BUDGETS);
        snprintf(one, sizeof one, "%.*s", len < 60 ? (int)len : 60, p);
        if (!parse_budget(one, all, &budgets[*n]))
            return ht_usage_error("--budgets takes sizes as 250M or shares as 10%%, not '%s'", one);
        ++*n;
        p += len;
        if (!*p)
            return HT_EXIT_OK;
    }
}

static double percent(uint64_t a, uint64_t b)
{
    return b ? 100.0 * (double)a / (double)b : 0;
}

/* How much of the way from LRU to the optimum, in percent; NAN-free: 0 where there is no way. */
static double closes(const hearth_cache_result *of_budget, const hearth_cache_result *r)
{
    const double lru = percent(of_budget[HEARTH_CACHE_LRU].decode_hits, of_budget[HEARTH_CACHE_LRU].decode_uses),
                 best = percent(of_budget[HEARTH_CACHE_BELADY].decode_hits, of_budget[HEARTH_CACHE_BELADY].decode_uses);
    return best > lru ? 100 * (percent(r->decode_hits, r->decode_uses) - lru) / (best - lru) : 0;
}

static void print_table(const hearth_routes_info *info, const hearth_cache_result *results, size_t n_budgets, bool warm)
{
    printf("%s, %s: %u layers of %u experts, %u used; %llu tokens of prompt, %llu generated; all experts %.1f MiB\n\n",
           info->model, info->architecture, info->n_layer, info->n_expert, info->n_used,
           (unsigned long long)info->prompt_tokens, (unsigned long long)info->generated_tokens,
           (double)info->expert_bytes / 1048576);
    printf("budget MiB  of all  policy   hits %%  generated %%  MiB/token  closes %%%s\n", warm ? "  first 16 %" : "");
    for (size_t i = 0; i < n_budgets * N_POLICIES; i++) {
        const hearth_cache_result *r = &results[i];
        printf("%10.1f  %5.1f%%  %-7s %7.3f %12.3f %10.3f %9.1f", (double)r->budget / 1048576,
               percent(r->budget, info->expert_bytes), hearth_cache_policy_name(r->policy), percent(r->hits, r->uses),
               percent(r->decode_hits, r->decode_uses),
               info->generated_tokens ? (double)r->decode_bytes / 1048576 / (double)info->generated_tokens : 0.0,
               closes(results + i / N_POLICIES * N_POLICIES, r));
        if (warm)
            printf(" %11.3f", percent(r->first_hits, r->first_uses));
        putchar('\n');
        if ((i + 1) % N_POLICIES == 0 && i + 1 < n_budgets * N_POLICIES)
            putchar('\n');
    }
    puts("\ncloses: of the way from lru to belady, the offline optimum, by hits of generated tokens");
}

static cJSON *json_of(const hearth_routes_info *info)
{
    cJSON *j = cJSON_CreateObject();
    ht_report_text(j, "model", info->model, strlen(info->model));
    ht_report_text(j, "architecture", info->architecture, strlen(info->architecture));
    cJSON_AddNumberToObject(j, "n_layer", info->n_layer);
    cJSON_AddNumberToObject(j, "n_expert", info->n_expert);
    cJSON_AddNumberToObject(j, "n_expert_used", info->n_used);
    cJSON_AddNumberToObject(j, "prompt_tokens", (double)info->prompt_tokens);
    cJSON_AddNumberToObject(j, "generated_tokens", (double)info->generated_tokens);
    cJSON_AddNumberToObject(j, "expert_bytes", (double)info->expert_bytes);
    return j;
}

static int print_json(const hearth_routes_info *info, const hearth_cache_result *results, size_t n_budgets, bool warm)
{
    cJSON *j = json_of(info), *rows = cJSON_AddArrayToObject(j, "results");
    cJSON_AddBoolToObject(j, "warm", warm);
    for (size_t i = 0; i < n_budgets * N_POLICIES; i++) {
        const hearth_cache_result *r = &results[i];
        cJSON *row = cJSON_CreateObject();
        cJSON_AddStringToObject(row, "policy", hearth_cache_policy_name(r->policy));
        cJSON_AddNumberToObject(row, "budget_bytes", (double)r->budget);
        ht_report_number(row, "expert_hit_rate", percent(r->hits, r->uses) / 100);
        ht_report_number(row, "expert_hit_rate_decode", percent(r->decode_hits, r->decode_uses) / 100);
        ht_report_number(row, "expert_hit_rate_first_tokens", percent(r->first_hits, r->first_uses) / 100);
        cJSON_AddNumberToObject(row, "bytes_read", (double)r->bytes);
        ht_report_number(row, "bytes_read_per_token",
                         info->generated_tokens ? (double)r->decode_bytes / (double)info->generated_tokens : 0);
        ht_report_number(row, "gap_closed", closes(results + i / N_POLICIES * N_POLICIES, r) / 100);
        cJSON_AddItemToArray(rows, row);
    }
    return ht_report_print(j);
}

static int caches(const ht_options *o, const hearth_routes *routes, const hearth_routes *earlier, const hearth_routes_info *info)
{
    uint64_t budgets[MAX_BUDGETS];
    hearth_error err = { 0 };
    size_t n = 0, done = 0;
    int status = parse_budgets(o->budgets ? o->budgets : "10%,15%,20%,25%,33%", info->expert_bytes, budgets, &n);
    if (status)
        return status;
    hearth_cache_result *results = calloc(n * N_POLICIES + 1, sizeof *results);
    if (!results) {
        ht_complain("out of memory");
        return HT_EXIT_FAILED;
    }
    for (size_t i = 0; i < n * N_POLICIES && !status; i++) {
        results[i].size = sizeof results[i];
        if (hearth_routes_simulate(routes, (hearth_cache_policy)(i % N_POLICIES), budgets[i / N_POLICIES], earlier,
                                   &results[i], &err) != HEARTH_OK)
            status = ht_call_failed(&err, false);
        else if (!ht_console_progress(NULL, "replaying", ++done, n * N_POLICIES))
            status = HT_EXIT_INTERRUPTED;
    }
    ht_console_progress_end();
    if (!status && o->report && hearth_routes_report(routes, results, n * N_POLICIES, o->report, &err) != HEARTH_OK)
        status = ht_call_failed(&err, false);
    if (!status && o->json)
        status = print_json(info, results, n, earlier != NULL);
    else if (!status) {
        print_table(info, results, n, earlier != NULL);
        status = ht_stdout_done(HT_EXIT_OK);
    }
    free(results);
    return status;
}

static int predictors(const ht_options *o, const hearth_routes *routes, const hearth_routes_info *info)
{
    hearth_error err = { 0 };
    cJSON *j = json_of(info), *rows = cJSON_AddArrayToObject(j, "predictors");

    if (!o->json)
        printf("share of a layer's experts among those foreseen first, while the layer before is computed; and the bytes\n"
               "that reading all of them takes, by those used (k is %u)\n\n"
               "foreseen by  of k %%  bytes  of 1.5k %%  bytes  of 2k %%  bytes\n",
               info->n_used);
    for (int k = 0; hearth_foresight_name((hearth_foresight)k); k++) {
        hearth_foresight_result r = { .size = sizeof r };
        if (hearth_routes_foresee(routes, (hearth_foresight)k, &r, &err) != HEARTH_OK) {
            cJSON_Delete(j);
            return ht_call_failed(&err, false);
        }
        const double used = r.used_bytes ? (double)r.used_bytes : 1;
        if (!o->json)
            printf("%-11s %7.2f %6.2f %10.2f %6.2f %8.2f %6.2f\n", hearth_foresight_name(r.kind),
                   percent(r.hits[0], r.uses), (double)r.foreseen_bytes[0] / used, percent(r.hits[1], r.uses),
                   (double)r.foreseen_bytes[1] / used, percent(r.hits[2], r.uses), (double)r.foreseen_bytes[2] / used);
        cJSON *row = cJSON_CreateObject();
        cJSON_AddStringToObject(row, "foreseen_by", hearth_foresight_name(r.kind));
        ht_report_number(row, "recall_k", percent(r.hits[0], r.uses) / 100);
        ht_report_number(row, "recall_1_5k", percent(r.hits[1], r.uses) / 100);
        ht_report_number(row, "recall_2k", percent(r.hits[2], r.uses) / 100);
        ht_report_number(row, "bytes_k", (double)r.foreseen_bytes[0] / used);
        ht_report_number(row, "bytes_1_5k", (double)r.foreseen_bytes[1] / used);
        ht_report_number(row, "bytes_2k", (double)r.foreseen_bytes[2] / used);
        cJSON_AddItemToArray(rows, row);
    }
    if (o->json)
        return ht_report_print(j);
    cJSON_Delete(j);
    return ht_stdout_done(HT_EXIT_OK);
}

static int run(const ht_options *o)
{
    hearth_routes *routes = NULL, *earlier = NULL;
    hearth_routes_info info = { .size = sizeof info };
    hearth_error err = { 0 };
    const char *trace = o->positional[0];
    int status = ht_load_check_output("--html", o->report, &trace, 1);

    if (status)
        return status;
    if (o->predictors && o->report)
        return ht_usage_error("--html draws caches, not --predictors");
    if (o->warm && o->after)
        return ht_usage_error("--warm is --after the same record: give one of them");
    if (hearth_routes_read(&routes, trace, &err) != HEARTH_OK)
        return ht_call_failed(&err, false);
    if (o->after && hearth_routes_read(&earlier, o->after, &err) != HEARTH_OK) {
        hearth_routes_close(&routes);
        return ht_call_failed(&err, false);
    }
    hearth_routes_get_info(routes, &info);
    status = o->predictors ? predictors(o, routes, &info) : caches(o, routes, o->warm ? routes : earlier, &info);
    hearth_routes_close(&earlier);
    hearth_routes_close(&routes);
    return status;
}

const ht_command ht_command_cache_sim = {
    .name = "cache-sim",
    .arguments = "TRACE [--budgets LIST] [--html FILE]",
    .summary = "replay recorded routing through cache policies",
    .text =
        "TRACE is what `hearth run --trace FILE` records. For each budget the least recently used, the least frequently "
        "used, the engine's own policy (heat), Belady's offline optimum and a random choice replay it: a prompt is one batch, "
        "each expert of a layer once; then token by token. docs/experts.md tells more.",
    .min_positional = 1,
    .max_positional = 1,
    .tables = { own_flags, ht_flags_talk },
    .run = run,
};
