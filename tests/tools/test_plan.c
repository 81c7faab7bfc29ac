/* SPDX-License-Identifier: MIT
 * hearth plan, with figures from a file: the table, the JSON, the page, budgets and refusals. Nothing is measured. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/hearth.h"
#include "tests/tools/command.h"

/* Figures of this machine's own key, for every type that the models which ship have. */
static const char *rates(void)
{
    static const char *const types[] = { "F32", "F16", "Q4_0", "Q5_0", "Q8_0", "Q4_K", "Q5_K", "Q6_K", "MXFP4" };
    static const char *const kvs[] = { "F32", "F16", "Q8_0", "Q4_0" };
    hearth_hardware hw = { .size = sizeof hw };
    hearth_error err;
    char text[6000], cpu[128];
    size_t n;

    cr_assert_eq(hearth_hardware_read(&hw, false, NULL, &err), HEARTH_OK, "%s", err.text);
    snprintf(cpu, sizeof cpu, "%s", hw.cpu);
    for (char *c = cpu; *c; c++)
        *c = *c < ' ' || *c > '~' ? '?' : *c;
    n = (size_t)snprintf(text, sizeof text,
                         "hearth rates 1\nversion %s\ncpu %s\nthreads 1\nisa %s\nprecision fast\ntask_fs 2000000000\nwait_fs 1000000000\n"
                         "op_fs 200000000\nelement_fs 100000\ndisk_direct_bps 500000000\ndisk_cached_bps 400000000\n",
                         hearth_version(), cpu, hw.isa);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        n += (size_t)snprintf(text + n, sizeof text - n,
                              "type %s read_bps 10000000000 short_bps 9000000000 cached_bps 30000000000 gather_bps 6000000000 prompt16_mps 20000000000 "
                              "prompt64_mps 40000000000 prompt512_mps 60000000000\n",
                              types[i]);
    for (size_t i = 0; i < sizeof kvs / sizeof *kvs; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, "kv %s element_fs 100000 query_fs 3000 prompt_mps 30000000000\n", kvs[i]);
    n += (size_t)snprintf(text + n, sizeof text - n, "end\n");
    return scratch_file("rates.txt", text, n);
}

static const char *mixture(void)
{
    const char *path = HEARTH_MODEL_DIR "/hearth-story-moe.gguf";
    if (access(path, R_OK) != 0)
        cr_skip_test("%s is not there", path);
    return path;
}

#define PLAN(...) command_run("plan", __VA_ARGS__, "--threads", "1", "--stored", "--quiet")

Test(plan, table_json_and_page)
{
    const char *figures = rates(), *page = scratch_file("plan.html", NULL, 0), *model = shipped_model();
    outcome o = PLAN(model, "--rates", figures, "--html", page);
    size_t n;

    cr_assert_eq(o.status, 0, "%s", o.err);
    cr_expect(strstr(o.out, "blk.0") && strstr(o.out, "output") && strstr(o.out, "tokens/s at position 0"), "%s", o.out);
    outcome_free(&o);
    char *html = read_whole(page, &n);
    cr_assert_not_null(html);
    cr_expect(strstr(html, "<title>Plan of ") && strstr(html, "prefers-color-scheme:dark") && strstr(html, "</html>"));
    cr_expect_not(strstr(html, "http://") && strstr(html, "<script"), "the page wants something from outside");
    free(html);

    o = PLAN(model, "--rates", figures, "--json", "--ctx", "512", "-p", "128");
    cr_assert_eq(o.status, 0, "%s", o.err);
    cJSON *j = outcome_json(&o);
    cr_expect_gt(json_number(j, "decode_tokens_per_s"), 0);
    cr_expect_leq(json_number(j, "decode_full_context_tokens_per_s"), json_number(j, "decode_tokens_per_s"));
    cr_expect_eq(json_number(j, "prompt_tokens"), 128);
    cr_expect_eq(json_number(j, "context_tokens"), 512);
    cr_expect_float_eq(json_number(j, "time_to_first_token_ms"), 1e3 * 128 / json_number(j, "prompt_tokens_per_s"), 1e-3);
    double bytes = json_number(j, "fixed_bytes"), kv = 0;
    const cJSON *layer;
    cJSON_ArrayForEach(layer, cJSON_GetObjectItem(j, "layers"))
    {
        bytes += json_number(layer, "trunk_bytes") + json_number(layer, "kv_bytes") + json_number(layer, "piece_bytes_ram");
        kv += json_number(layer, "kv_bytes");
        cr_expect_eq(strlen(cJSON_GetObjectItem(layer, "piece_tiers")->valuestring), (size_t)json_number(layer, "pieces"));
    }
    cr_expect_eq(bytes, json_number(j, "ram_bytes"), "%g of %g", bytes, json_number(j, "ram_bytes"));
    cr_expect_eq(kv, json_number(j, "kv_bytes"));
    cr_expect_eq(json_number(j, "disk_bytes"), 0);
    cJSON_Delete(j);
    outcome_free(&o);
}

/* The same command twice says the same. */
Test(plan, is_a_pure_function)
{
    const char *figures = rates(), *model = mixture();
    outcome a = PLAN(model, "--rates", figures, "--json", "--ram", "100M"), b = PLAN(model, "--rates", figures, "--json", "--ram", "100M");

    cr_assert_eq(a.status, 0, "%s", a.err);
    cr_expect_str_eq(a.out, b.out);
    outcome_free(&a);
    outcome_free(&b);
}

Test(plan, small_budgets_and_pins)
{
    const char *figures = rates(), *model = mixture();
    outcome o = PLAN(model, "--rates", figures, "--json", "--ctx", "256");
    cr_assert_eq(o.status, 0, "%s", o.err);
    cJSON *j = outcome_json(&o);
    const double whole = json_number(j, "ram_bytes"), fast = json_number(j, "decode_tokens_per_s");
    char ram[40];
    cJSON_Delete(j);
    outcome_free(&o);

    o = PLAN(model, "--rates", figures, "--json", "--ctx", "256", "--io", "direct", "--pin", "experts=disk");
    cr_assert_eq(o.status, 0, "%s", o.err);
    j = outcome_json(&o);
    cr_expect_gt(json_number(j, "disk_bytes"), 0);
    cr_expect_lt(json_number(j, "decode_tokens_per_s"), fast);
    cr_expect_eq(json_number(j, "disk_bytes_per_s"), 5e8);
    cJSON_Delete(j);
    outcome_free(&o);

    snprintf(ram, sizeof ram, "%.0f", 0.8 * whole);
    o = PLAN(model, "--rates", figures, "--json", "--ctx", "256", "--ram", ram);
    if (o.status == 0) {
        j = outcome_json(&o);
        cr_expect_leq(json_number(j, "ram_bytes"), 0.8 * whole);
        cr_expect_leq(json_number(j, "decode_tokens_per_s"), fast);
        cJSON_Delete(j);
    }
    outcome_free(&o);

    o = PLAN(model, "--rates", figures, "--ctx", "100000", "--ram", "60M");
    cr_expect_eq(o.status, 1, "%s", o.out);
    cr_expect(strstr(o.err, "more memory") && strstr(o.err, "--ram"), "%s", o.err);
    outcome_free(&o);
    o = PLAN(model, "--rates", figures, "--ram", "0");
    cr_expect_eq(o.status, 1);
    outcome_free(&o);
}

Test(plan, refusals)
{
    const char *figures = rates(), *model = shipped_model(), *junk = scratch_file("junk.txt", "hearth rates 1\n", 15);
    const char *no_model = scratch_file("no.gguf", "GGUF", 4);
    outcome o = PLAN(model, "--rates", figures, "--pin", "blk.0=tape");

    cr_expect_eq(o.status, 2);
    cr_expect(strstr(o.err, "is no pin"), "%s", o.err);
    outcome_free(&o);
    o = PLAN(model, "--rates", figures, "--pin", "blk.0=vram");
    cr_expect_eq(o.status, 2);
    cr_expect(strstr(o.err, "graphics card"), "%s", o.err);
    outcome_free(&o);
    o = PLAN(model, "--rates", junk);
    cr_expect_eq(o.status, 1);
    cr_expect(strstr(o.err, junk), "%s", o.err);
    outcome_free(&o);
    o = PLAN(no_model, "--rates", figures);
    cr_expect_eq(o.status, 3);
    outcome_free(&o);
    o = PLAN(model, "--rates", figures, "--html", model);
    cr_expect_eq(o.status, 2);
    outcome_free(&o);
    o = PLAN(model, "--rates", figures, "--ctx", "64", "-d", "64");
    cr_expect_eq(o.status, 2);
    outcome_free(&o);
}
