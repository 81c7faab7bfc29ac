/* SPDX-License-Identifier: MIT
 * cache-sim, run --trace and bench --routing-trace: what is recorded replays, published figures are met, damage is refused. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/tools/command.h"

static const char *mixture(void)
{
    const char *path = HEARTH_MODEL_DIR "/hearth-story-moe.gguf";
    if (access(path, R_OK) != 0)
        cr_skip_test("%s is not there", path);
    return path;
}

static const char *recorded(void)
{
    const char *path = scratch_file("routes.csv", NULL, 0);
    outcome o = command_run("run", mixture(), "-p", "The king had a daughter", "-n", "40", "--temp", "0", "--quiet",
                            "--trace", path);
    cr_assert_eq(o.status, 0, "%s", o.err);
    outcome_free(&o);
    return path;
}

static double rate(const cJSON *results, double budget, const char *policy, const char *name)
{
    const cJSON *r;
    cJSON_ArrayForEach(r, results)
        if (json_number(r, "budget_bytes") == budget &&
            !strcmp(cJSON_GetObjectItem(r, "policy")->valuestring, policy))
            return json_number(r, name);
    cr_assert_fail("no %s at %.0f", policy, budget);
    return NAN;
}

Test(cache_sim, published_points_of_a_real_trace)
{
    static const char *const trace = HEARTH_SHARED_DIR "/data/traces/qwen.route.csv",
                            *const curve = HEARTH_SHARED_DIR "/data/traces/qwen-curve.csv";
    char line[200], policy[20];
    double mib, cumulative, decode, read;
    FILE *f = fopen(curve, "r");
    if (!f || access(trace, R_OK) != 0) {
        if (f)
            fclose(f);
        cr_skip_test("%s and the trace beside it are not there", curve);
    }
    outcome o = command_run("cache-sim", trace, "--json", "--budgets",
                            "250M,500M,750M,1000M,1500M,2000M,2500M,3000M,4000M,6000M,8000M");
    cr_assert_eq(o.status, 0, "%s", o.err);
    cJSON *j = outcome_json(&o), *results = cJSON_GetObjectItem(j, "results");
    int points = 0;
    while (fgets(line, sizeof line, f)) {
        if (sscanf(line, "%lf,%19[a-z],%lf,%lf,%lf", &mib, policy, &cumulative, &decode, &read) != 5 ||
            (strcmp(policy, "lru") != 0 && strcmp(policy, "belady") != 0))
            continue;
        cr_expect_float_eq(100 * rate(results, mib * 1048576, policy, "expert_hit_rate"), cumulative, 0.2, "%s", line);
        cr_expect_float_eq(100 * rate(results, mib * 1048576, policy, "expert_hit_rate_decode"), decode, 0.2, "%s", line);
        points++;
    }
    cr_expect_eq(points, 22);
    fclose(f);
    cJSON_Delete(j);
    outcome_free(&o);
}

Test(cache_sim, what_run_records_replays)
{
    const char *trace = recorded(), *page = scratch_file("page.html", NULL, 0);
    outcome o = command_run("cache-sim", trace, "--json", "--html", page, "--warm");
    cr_assert_eq(o.status, 0, "%s", o.err);
    cJSON *j = outcome_json(&o);
    cr_expect_eq(json_number(j, "n_layer"), 6);
    cr_expect_eq(json_number(j, "n_expert"), 16);
    cr_expect_eq(json_number(j, "generated_tokens"), 39, "the last token is not computed");
    cr_expect_eq(cJSON_GetArraySize(cJSON_GetObjectItem(j, "results")), 25);
    const cJSON *r;
    cJSON_ArrayForEach(r, cJSON_GetObjectItem(j, "results"))
        cr_expect(json_number(r, "expert_hit_rate") >= 0 && json_number(r, "expert_hit_rate") <= 1);
    cJSON_Delete(j);
    outcome_free(&o);
    size_t n;
    char *html = read_whole(page, &n);
    cr_expect(strstr(html, "<svg") && strstr(html, "belady") && !strstr(html, "http://") && !strstr(html, "https://"));
    free(html);
    o = command_run("cache-sim", trace, "--predictors", "--json");
    cr_expect_eq(o.status, 0, "%s", o.err);
    j = outcome_json(&o);
    cr_expect_eq(cJSON_GetArraySize(cJSON_GetObjectItem(j, "predictors")), 4);
    cJSON_Delete(j);
    outcome_free(&o);
}

Test(cache_sim, recorded_routing_overrules_the_router)
{
    const char *trace = recorded();
    outcome o = command_run("bench", mixture(), "-p", "8", "-n", "8", "-r", "1", "--quick", "--json", "--routing-trace",
                            trace);
    cr_assert_eq(o.status, 0, "%s", o.err);
    cJSON *j = outcome_json(&o);
    const cJSON *name = cJSON_GetObjectItem(cJSON_GetArrayItem(j, 0), "routing_trace");
    cr_expect(name && !strcmp(name->valuestring, trace));
    cJSON_Delete(j);
    outcome_free(&o);
    o = command_run("bench", shipped_model(), "-p", "8", "-n", "8", "-r", "1", "--quick", "--routing-trace", trace);
    cr_expect_eq(o.status, 1, "a dense model");
    cr_expect(strstr(o.err, "mixture"), "%s", o.err);
    outcome_free(&o);
}

/* A record tells which model it is of; another model's is replayed where its shape fits, and that is told. */
Test(cache_sim, routing_of_another_model)
{
    static const struct {
        const char *shape, *says;
        int status;
    } cases[] = {
        { "n_layer=6 n_expert=16 n_expert_used=2", "does not tell", 0 },
        { "n_layer=6 n_expert=16 n_expert_used=2 fingerprint=00112233445566778899aabbccddeeff", "another model", 0 },
        { "n_layer=7 n_expert=12 n_expert_used=3", "7 layers", 0 },
        { "n_layer=5 n_expert=16 n_expert_used=2", "5 layers", 1 },
        { "n_layer=6 n_expert=32 n_expert_used=2", "of 32", 1 },
        { "n_layer=6 n_expert=16 n_expert_used=1", "1 of 16", 1 },
        { "n_layer=6 n_expert=16 n_expert_used=2 fingerprint=0011", "fingerprint", 1 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[4000];
        int n = snprintf(text, sizeof text, "# route_trace v1\n# model=m arch=a %s\n", cases[i].shape);
        for (int l = 0; l < 5; l++)
            n += snprintf(text + n, sizeof text - (size_t)n, "# layer=%d expert_bytes=100 dense_bytes=0\n", l);
        for (int l = 0; l < 5; l++)
            n += snprintf(text + n, sizeof text - (size_t)n, "0,1,0,%d,0,3,0.5,0,100\n", l);
        outcome o = command_run("bench", mixture(), "-p", "0", "-n", "2", "-r", "1", "--quick", "--routing-trace",
                                scratch_file("other.csv", text, (size_t)n));
        cr_expect_eq(o.status, cases[i].status, "%zu: %s", i, o.err);
        cr_expect(strstr(o.err, cases[i].says), "%zu: %s", i, o.err);
        outcome_free(&o);
    }
    outcome o = command_run("bench", mixture(), "-p", "0", "-n", "2", "-r", "1", "--quick", "--routing-trace", recorded());
    cr_expect_eq(o.status, 0, "%s", o.err);
    cr_expect_not(strstr(o.err, "recorded routing"), "%s", o.err);
    outcome_free(&o);
}

Test(cache_sim, damage_is_refused_with_its_line)
{
    static const char head[] = "# route_trace v1\n# model=m arch=a n_layer=2 n_expert=4 n_expert_used=2\n"
                               "# layer=0 expert_bytes=100 dense_bytes=0\n";
    static const struct {
        const char *rows, *says;
    } bad[] = {
        { "0,1,0,0,0,4,0.5,0,100\n", "line 4" },  { "0,1,0,2,0,1,0.5,0,100\n", "line 4" },
        { "0,1,0,0,2,1,0.5,0,100\n", "slot" },    { "0,2,0,0,0,1,0.5,0,100\n", "phase" },
        { "0,1,0,0,0,1,x,0,100\n", "weight" },    { "0,1,0,0\n", "layer" },
        { "hello\n", "no row" },                  { "", "no rows" },
        { "0,1,0,1,0,1,0.5,0,100\n", "layer 1" }, { "0,1,0,0,0,1,0.5,0,1\n0,1,0,0,1,1,0.5,0,1\n", "twice" },
    };
    char text[1000];
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int n = snprintf(text, sizeof text, "%s%s", head, bad[i].rows);
        outcome o = command_run("cache-sim", scratch_file("bad.csv", text, (size_t)n));
        cr_expect_eq(o.status, 1, "%s: %d %s", bad[i].rows, o.status, o.err);
        cr_expect(strstr(o.err, bad[i].says), "%s: %s", bad[i].rows, o.err);
        outcome_free(&o);
    }
    outcome o = command_run("cache-sim", recorded(), "--budgets", "10%,200%");
    cr_expect_eq(o.status, 2, "%s", o.err);
    outcome_free(&o);
}
