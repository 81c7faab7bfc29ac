/* SPDX-License-Identifier: MIT
 * perplexity, logits, bench, hardware: figures that must not depend on how they are computed, and the forms they
 * come in. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cpu/isa.h"
#include "tests/tools/command.h"

static const char passage[] = "There was once a fisherman who lived with his wife in a little hut close by the sea. He "
                              "went out every day with his hook "
                              "and line to fish, and he fished and fished. One day he was sitting with his hook, "
                              "looking into the clear water, and he sat "
                              "and sat. At last down went the line to the bottom of the water, and when he drew it up "
                              "he found a great flounder on the "
                              "hook. And the flounder said to him, \"Fisherman, listen to me; let me go, I am not a "
                              "real fish but an enchanted prince. What "
                              "good shall I be to you if you land me? I shall not taste well; so put me back into the "
                              "water again, and let me swim away.\" "
                              "\"Well,\" said the fisherman, \"no need of so many words about the matter, as you can "
                              "speak I had much rather let you swim "
                              "away.\" Then he put him back into the clear water, and the flounder sank to the bottom, "
                              "leaving a long streak of blood behind.";

static const char *passage_file(void)
{
    return scratch_file("passage.txt", passage, sizeof passage - 1);
}

/* The figure of the passage with four more arguments. */
static double perplexity(const char *file, const char *a, const char *b, const char *c, const char *d)
{
    outcome o = command_run("perplexity", "-f", file, "--ctx", "64", "--json", a, b, c, d);
    cJSON *j = outcome_json(&o);
    double v = json_number(j, "perplexity");
    cr_assert_gt(json_number(j, "perplexity_stderr"), 0);
    cr_assert(fabs(log(v) - json_number(j, "nll")) < 1e-9);
    cJSON_Delete(j);
    outcome_free(&o);
    return v;
}

/* The same bits however it is computed: `ways` are flag and value; value NULL: every SIMD level that runs here. */
static void same_figure(const char *precision, const char *const ways[][2], size_t n)
{
    shipped_model();
    const char *file = passage_file();
    double first = perplexity(file, "--precision", precision, "--batch", "64");
    cr_assert_gt(first, 1);
    for (size_t i = 0; i < n; i++)
        for (int level = 0; level < (ways[i][1] ? 1 : HT_N_ISA); level++) {
            const char *value = ways[i][1] ? ways[i][1] : ht_isa_name((ht_isa)level);
            if (!ways[i][1] && !ht_isa_runs((ht_isa)level))
                continue;
            double v = perplexity(file, "--precision", precision, ways[i][0], value);
            cr_assert_eq(v, first, "%s %s: %.17g, not %.17g", ways[i][0], value, v, first);
        }
}

Test(perplexity, is_the_same_however_it_is_computed)
{
    static const char *const ways[][2] = {
        { "--chunk", "1" },   { "--chunk", "7" }, { "--chunk", "512" },    { "--threads", "1" },
        { "--threads", "2" }, { "--isa", NULL },  { "--sparsity", "off" }, { "--sparsity", "exact" },
    };
    same_figure("fast", ways, sizeof ways / sizeof *ways);
}

Test(perplexity, f32_is_the_same_however_it_is_computed)
{
    static const char *const ways[][2] = {
        { "--chunk", "1" }, { "--chunk", "7" }, { "--threads", "1" }, { "--isa", NULL }
    };
    same_figure("f32", ways, sizeof ways / sizeof *ways);
}

Test(perplexity, against_itself_and_against_dense)
{
    const char *model = shipped_model(), *file = passage_file();
    const char *const others[] = { "dense", model };
    for (int i = 0; i < 2; i++) {
        outcome o = command_run("perplexity", "-f", file, "--ctx", "64", "--json", "--against", others[i]);
        cJSON *j = outcome_json(&o);
        cr_assert_eq(json_number(j, "top1_agreement"), 1);
        cr_assert_lt(fabs(json_number(j, "kl_divergence_mean")), 1e-9);
        cr_assert_lt(fabs(json_number(j, "kl_divergence_p99")), 1e-9);
        cr_assert_float_eq(json_number(j, "perplexity_against"), json_number(j, "perplexity"), 1e-9);
        cJSON_Delete(j);
        outcome_free(&o);
    }
}

/* What is just enough for one model is not for two, twice as much is. */
Test(perplexity, against_shares_the_budget)
{
    shipped_model();
    const char *file = passage_file();
    char ram[16];
    int least = 0;
    for (int mib = 4; mib <= 64 && !least; mib++) {
        snprintf(ram, sizeof ram, "%dM", mib);
        outcome o = command_run("perplexity", "-f", file, "--ctx", "64", "--windows", "1", "--threads", "1", "--ram", ram);
        least = o.status == 0 ? mib : 0;
        outcome_free(&o);
    }
    cr_assert_gt(least, 0);
    for (int times = 1; times <= 2; times++) {
        snprintf(ram, sizeof ram, "%dM", times * least);
        outcome o = command_run("perplexity", "-f", file, "--ctx", "64", "--windows", "1", "--threads", "1", "--ram", ram,
                                "--against", "dense");
        cr_expect_eq(o.status, times == 1, "--ram %s: status %d, %s", ram, o.status, o.err);
        outcome_free(&o);
    }
}

/* What --on-miss and --route-bias cost, token by token; wait costs nothing. */
Test(perplexity, prices_what_is_done_about_missing_experts)
{
    static const struct {
        const char *flag, *value, *counter;
    } ways[] = { { "--on-miss", "wait", NULL },
                 { "--on-miss", "low:q2_k", "stand_in_uses" },
                 { "--on-miss", "skip:0.4", "experts_skipped" },
                 { "--route-bias", "0.5", "experts_rerouted" } };
    const char *model = HEARTH_MODEL_DIR "/hearth-story-moe.gguf", *file = passage_file();
    if (access(model, R_OK) != 0)
        cr_skip_test("%s is not there", model);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        outcome o = command_run("perplexity", model, "-f", file, "--ctx", "64", "--windows", "2", "--json", "--against", "dense",
                                "--io", "direct", "--prefetch", "off", "--ram", "26M", "--batch", "1", ways[i].flag,
                                ways[i].value);
        cr_assert_eq(o.status, 0, "%s", o.err);
        cJSON *j = outcome_json(&o);
        const double kl = json_number(j, "kl_divergence_mean");
        cr_expect(ways[i].counter ? kl > 1e-6 && kl < 1 : fabs(kl) < 1e-9, "%s %s: %g", ways[i].flag, ways[i].value, kl);
        cr_expect_lt(json_number(j, "expert_hit_rate"), 1);
        cr_expect_gt(json_number(j, "disk_bytes_read_per_token"), 0);
        cr_expect(!ways[i].counter || json_number(j, ways[i].counter) > 0, "%s", ways[i].value);
        cr_expect(json_number(j, "skipped_weight_share") <= 0.4);
        cJSON_Delete(j);
        outcome_free(&o);
    }
}

Test(perplexity, scores_the_second_half_of_whole_windows)
{
    shipped_model();
    const char *file = passage_file();
    outcome o = command_run("perplexity", "-f", file, "--ctx", "32", "--json"),
            t = command_run("tokenize", "-f", file, "--json", "--bos");
    cJSON *j = outcome_json(&o), *tokens = outcome_json(&t);
    int n = cJSON_GetArraySize(cJSON_GetObjectItem(tokens, "tokens"));
    cr_assert_eq(json_number(j, "windows"), n / 32);
    cr_assert_eq(json_number(j, "tokens_scored"), n / 32 * 15); /* positions 16 to 30 foretell tokens 17 to 31 */
    cJSON_Delete(j);
    cJSON_Delete(tokens);
    outcome_free(&o);
    outcome_free(&t);
}

Test(perplexity, windows_limits_what_is_scored)
{
    shipped_model();
    const char *file = passage_file();
    outcome two = command_run("perplexity", "-f", file, "--ctx", "32", "--windows", "2", "--json");
    outcome all = command_run("perplexity", "-f", file, "--ctx", "32", "--json");
    outcome more = command_run("perplexity", "-f", file, "--ctx", "32", "--windows", "100000", "--json");
    cJSON *j2 = outcome_json(&two), *j = outcome_json(&all), *jm = outcome_json(&more);
    cr_assert_eq(json_number(j2, "windows"), 2);
    cr_assert_eq(json_number(j2, "tokens_scored"), 2 * 15);
    cr_assert_eq(json_number(j2, "prompt_tokens"), 2 * 31);
    cr_assert_neq(json_number(j2, "perplexity"), json_number(j, "perplexity"));
    cr_assert_eq(json_number(jm, "windows"), json_number(j, "windows")); /* more than there are: all, and said so */
    cr_assert_eq(json_number(jm, "perplexity"), json_number(j, "perplexity"));
    cr_assert(strstr(more.err, "100000"));
    cJSON_Delete(j2);
    cJSON_Delete(j);
    cJSON_Delete(jm);
    outcome_free(&two);
    outcome_free(&all);
    outcome_free(&more);
    static const char *const bad[] = { "0", "-1", "x", "" };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        outcome o = command_run("perplexity", "-f", file, "--windows", bad[i]);
        cr_assert_eq(o.status, 2, "--windows '%s'", bad[i]);
        outcome_free(&o);
    }
}

Test(perplexity, the_reference_figure)
{
    FILE *there = fopen(HEARTH_SHARED_DIR "/data/weights/stories260K-f32.gguf", "rb");
    if (!there)
        cr_skip_test("the shared data are not here");
    fclose(there);
    outcome o =
        command_run("perplexity", HEARTH_SHARED_DIR "/data/weights/stories260K-f32.gguf", "-f",
                    HEARTH_SHARED_DIR "/data/text/tinystories_dev.txt", "--ctx", "256", "--windows", "40", "--json");
    cJSON *j = outcome_json(&o);
    cr_assert_eq(json_number(j, "windows"), 40);
    cr_assert_float_eq(json_number(j, "perplexity"), 3.93755, 5e-4); /* a float64 reference's, over the same windows */
    cJSON_Delete(j);
    outcome_free(&o);
}

Test(perplexity, a_short_text_is_one_window)
{
    shipped_model();
    outcome o = command_run("perplexity", "-p", "The fox went out on a chilly night.");
    cr_assert_eq(o.status, 0, "%s", o.err);
    cr_assert(strstr(o.out, "perplexity"));
    cr_assert_gt(o.n_err, 0);
    outcome_free(&o);
    o = command_run("perplexity", "-p", "a");
    cr_assert_eq(o.status, 2);
    outcome_free(&o);
}

Test(logits, rows_follow_the_ids)
{
    shipped_model();
    const char *three = scratch_file("three.npy", NULL, 0), *two = scratch_file("two.npy", NULL, 0);
    outcome o = command_run("logits", "--tokens", "5,6,7", "-o", three),
            p = command_run("logits", "--tokens", "5 6", "-o", two);
    cr_assert_eq(o.status, 0, "%s", o.err);
    cr_assert_eq(o.n_out + o.n_err, 0);
    cr_assert_eq(p.status, 0);
    size_t n3, n2;
    char *a = read_whole(three, &n3), *b = read_whole(two, &n2);
    cr_assert_eq(memcmp(a, "\x93NUMPY\x01", 7), 0);
    cr_assert(strstr(a + 10, "'descr': '<f4', 'fortran_order': False, 'shape': (3, "));
    unsigned long vocab = strtoul(strstr(a + 10, "(3, ") + 4, NULL, 10);
    size_t head = 10 + (unsigned char)a[8] + 256u * (unsigned char)a[9];
    cr_assert_eq(head % 64, 0);
    cr_assert_eq(n3, head + 3 * 4 * vocab);
    cr_assert_eq(n2, head + 2 * 4 * vocab);
    cr_assert_eq(memcmp(a + head, b + head, 2 * 4 * vocab), 0); /* what follows changes nothing before it */
    float v;
    memcpy(&v, a + head, 4);
    cr_assert(isfinite(v));
    free(a);
    free(b);
    outcome_free(&o);
    outcome_free(&p);
}

Test(logits, json_tells_what_was_written)
{
    shipped_model();
    const char *out = scratch_file("told.npy", NULL, 0);
    outcome o = command_run("logits", "--tokens", "5,6,7", "-o", out, "--json");
    cJSON *j = outcome_json(&o);
    cr_assert_eq(json_number(j, "prompt_tokens"), 3);
    cr_assert_gt(json_number(j, "n_vocab"), 0);
    cr_assert_str_eq(cJSON_GetStringValue(cJSON_GetObjectItem(j, "output")), out);
    cJSON_Delete(j);
    outcome_free(&o);
}

Test(logits, ids_from_a_npy_file)
{
    shipped_model();
    enum { HEAD = 128, KIND = 22 }; /* bytes before the elements; where the 'i' of <i8 stands */
    char npy[HEAD + 24] = "\x93NUMPY\x01\x00\x76\x00{'descr': '<i8', 'fortran_order': False, 'shape': (3,), }";
    memset(npy + 10 + strlen(npy + 10), ' ', HEAD - 10 - strlen(npy + 10));
    npy[HEAD - 1] = '\n';
    int64_t ids[3] = { 5, 6, 7 };
    memcpy(npy + HEAD, ids, sizeof ids);
    const char *in = scratch_file("ids.npy", npy, HEAD + sizeof ids), *a = scratch_file("a.npy", NULL, 0),
               *b = scratch_file("b.npy", NULL, 0);
    outcome o = command_run("logits", "--tokens", in, "-o", a), p = command_run("logits", "--tokens", "5,6,7", "-o", b);
    cr_assert_eq(o.status, 0, "%s", o.err);
    size_t na, nb;
    char *x = read_whole(a, &na), *y = read_whole(b, &nb);
    cr_assert_eq(na, nb);
    cr_assert_eq(memcmp(x, y, na), 0);
    free(x);
    free(y);
    outcome_free(&o);
    outcome_free(&p);
    /* Floats, two dimensions, and less than the header says. */
    npy[KIND] = 'f';
    o = command_run("logits", "--tokens", scratch_file("f.npy", npy, HEAD + sizeof ids), "-o", a);
    cr_assert_eq(o.status, 2, "%s", o.err);
    outcome_free(&o);
    npy[KIND] = 'i';
    o = command_run("logits", "--tokens", scratch_file("s.npy", npy, HEAD + 8), "-o", a);
    cr_assert_eq(o.status, 2, "%s", o.err);
    outcome_free(&o);
}

Test(logits, nothing_is_left_of_a_failure)
{
    shipped_model();
    const char *out = scratch_file("none.npy", NULL, 0);
    outcome o = command_run("logits", "--tokens", "5,99999999", "-o", out);
    cr_assert_eq(o.status, 2);
    cr_assert_null(fopen(out, "rb"));
    outcome_free(&o);
    o = command_run("logits", "--tokens", "5,6,7", "--ctx", "2", "-o", out);
    cr_assert_eq(o.status, 1);
    cr_assert_null(fopen(out, "rb"));
    outcome_free(&o);
    o = command_run("logits", "--tokens", "5", "-o", "/nowhere/x.npy");
    cr_assert_eq(o.status, 1);
    outcome_free(&o);
    o = command_run("logits", "--tokens", "5,6", "-o", "/dev/full");
    cr_assert_eq(o.status, 1);
    FILE *device = fopen("/dev/full", "rb");
    cr_assert_not_null(device, "/dev/full was removed");
    fclose(device);
    outcome_free(&o);
}

Test(bench, one_row_per_setting)
{
    shipped_model();
    outcome o = command_run("bench", "-p", "0,8", "-n", "4", "-r", "2", "--threads", "1", "--json");
    cJSON *rows = outcome_json(&o);
    cr_assert(cJSON_IsArray(rows));
    cr_assert_eq(cJSON_GetArraySize(rows), 2);
    const cJSON *none = cJSON_GetArrayItem(rows, 0), *both = cJSON_GetArrayItem(rows, 1);
    cr_assert(cJSON_IsNull(cJSON_GetObjectItem(none, "prompt_tokens_per_s")));
    cr_assert(cJSON_IsNull(cJSON_GetObjectItem(none, "time_to_first_token_ms")));
    cr_assert_gt(json_number(none, "decode_tokens_per_s"), 0);
    cr_assert_gt(json_number(both, "prompt_tokens_per_s"), 0);
    cr_assert_gt(json_number(both, "time_to_first_token_ms"), 0);
    cr_assert_gt(json_number(both, "weight_bytes_per_token"), 0);
    cr_assert_gt(json_number(both, "memory_bandwidth_bytes_per_s"), 0);
    cr_assert_gt(json_number(both, "bandwidth_fraction"), 0);
    cr_assert_eq(json_number(both, "threads"), 1);
    cr_assert(cJSON_HasObjectItem(both, "energy_joules_per_token"));
    cJSON_Delete(rows);
    outcome_free(&o);
}

/* Stored bytes by the table of tensors: all of them, one row of the embedding (and all of it again where it is the output
 * matrix as well), the chosen share of the experts. */
static double bytes_by_table(const cJSON *j, double used_share)
{
    const cJSON *t;
    double sum = 0, embedding = 0, rows = 1;
    bool output = false;
    cJSON_ArrayForEach(t, cJSON_GetObjectItem(j, "tensors"))
    {
        const char *name = cJSON_GetStringValue(cJSON_GetObjectItem(t, "name"));
        double bytes = json_number(t, "bytes");
        output = output || !strcmp(name, "output.weight");
        if (!strcmp(name, "token_embd.weight")) {
            embedding = bytes;
            rows = cJSON_GetArrayItem(cJSON_GetObjectItem(t, "shape"), 0)->valuedouble;
        } else {
            sum += strstr(name, "_exps.") ? bytes * used_share : bytes;
        }
    }
    return sum + embedding / rows + (output ? 0 : embedding);
}

Test(run, weight_bytes_are_those_of_the_table)
{
    static const struct {
        const char *name, *used, *experts;
    } models[] = { { "llama", NULL, NULL },
                   { "qwen2", NULL, NULL },
                   { "gemma2", NULL, NULL },
                   { "gpt_oss", "gpt-oss.expert_used_count", "gpt-oss.expert_count" },
                   { "qwen3_moe", "qwen3moe.expert_used_count", "qwen3moe.expert_count" } };
    size_t tried = 0;
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        char path[300];
        double used = 1, experts = 1;
        snprintf(path, sizeof path, "%s/golden/%s.gguf", HEARTH_TEST_DATA, models[i].name);
        FILE *there = fopen(path, "rb");
        if (!there)
            continue;
        fclose(there);
        outcome o = command_run("inspect", path, "--json"), r = command_run("run", path, "-p", "a", "-n", "1", "--json");
        cJSON *j = outcome_json(&o), *k = outcome_json(&r), *e;
        cJSON_ArrayForEach(e, cJSON_GetObjectItem(j, "metadata"))
        {
            const char *key = cJSON_GetStringValue(cJSON_GetObjectItem(e, "key"));
            if (models[i].used && !strcmp(key, models[i].used))
                used = json_number(e, "value");
            if (models[i].experts && !strcmp(key, models[i].experts))
                experts = json_number(e, "value");
        }
        cr_assert_eq(json_number(k, "weight_bytes_per_token"), bytes_by_table(j, used / experts), "%s: %.0f, not %.0f",
                     models[i].name, json_number(k, "weight_bytes_per_token"), bytes_by_table(j, used / experts));
        cJSON_Delete(j);
        cJSON_Delete(k);
        outcome_free(&o);
        outcome_free(&r);
        tried++;
    }
    cr_assert_gt(tried, 0);
}

Test(bench, a_table_for_people)
{
    shipped_model();
    outcome o = command_run("bench", "-p", "8", "-n", "0", "-r", "1");
    cr_assert_eq(o.status, 0, "%s", o.err);
    cr_assert(strstr(o.out, "prompt t/s"));
    outcome_free(&o);
    o = command_run("bench", "-p", "0", "-n", "0");
    cr_assert_eq(o.status, 2);
    outcome_free(&o);
}

Test(hardware, table_and_json)
{
    outcome o = command_run("hardware", "--quick"), j = command_run("hardware", "--json", "--quick");
    cr_assert_eq(o.status, 0, "%s", o.err);
    cr_assert(strstr(o.out, "SIMD level"));
    cJSON *object = outcome_json(&j);
    cr_assert_geq(json_number(object, "cores"), 1);
    cr_assert_geq(json_number(object, "threads"), 1);
    cr_assert_gt(json_number(object, "ram_total_bytes"), 0);
    cr_assert(strstr(o.out, "GPUs"));
    cr_assert(cJSON_IsArray(cJSON_GetObjectItem(object, "gpu_devices")));
    cr_assert(cJSON_HasObjectItem(object, "gpu_plugins_missing"));
    cJSON_Delete(object);
    outcome_free(&o);
    outcome_free(&j);
}
