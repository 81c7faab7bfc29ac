/* SPDX-License-Identifier: MIT
 * run: what reaches stdout, what JSON says, how it ends. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/tools/command.h"

#define PROMPT "-p", "Once upon a time"
#define GREEDY "--temp", "0"

Test(run, stdout_gets_the_completion_only)
{
    shipped_model();
    outcome a = command_run("run", PROMPT, GREEDY, "-n", "12"),
            b = command_run("run", PROMPT, GREEDY, "-n", "12", "--verbose");
    outcome j = command_run("run", PROMPT, GREEDY, "-n", "12", "--json");
    cr_assert_eq(a.status, 0, "%s", a.err);
    cr_assert_gt(a.n_out, 0);
    cr_assert_eq(a.n_err, 0, "stderr is no terminal and has: %s", a.err);
    cr_assert_str_eq(a.out, b.out);
    cr_assert_gt(b.n_err, 0);
    cJSON *object = outcome_json(&j);
    cr_assert_str_eq(cJSON_GetStringValue(cJSON_GetObjectItem(object, "text")), a.out);
    cJSON_Delete(object);
    outcome_free(&a);
    outcome_free(&b);
    outcome_free(&j);
}

Test(run, json_has_the_names_of_the_contract)
{
    static const char *const numbers[] = {
        "prompt_tokens", "prompt_tokens_per_s", "generated_tokens", "decode_tokens_per_s",    "time_to_first_token_ms",
        "load_ms",       "peak_rss_bytes",      "peak_vram_bytes",  "weight_bytes_per_token", "activation_density",
        "threads"
    };
    static const char *const present[] = { "energy_joules_per_token",      "predictor_recall",
                                           "predictor_precision",          "expert_hit_rate",
                                           "expert_prefetch_hit_rate",     "disk_bytes_read",
                                           "memory_bandwidth_bytes_per_s", "bandwidth_fraction" };
    shipped_model();
    outcome o = command_run("run", PROMPT, GREEDY, "-n", "8", "--json", "--threads", "1");
    cJSON *j = outcome_json(&o);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        json_number(j, numbers[i]);
    for (size_t i = 0; i < sizeof present / sizeof *present; i++)
        cr_assert(cJSON_HasObjectItem(j, present[i]), "%s", present[i]);
    cr_assert(cJSON_IsString(cJSON_GetObjectItem(j, "model")));
    cr_assert_str_eq(cJSON_GetStringValue(cJSON_GetObjectItem(j, "device")), "cpu");
    cr_assert_eq(json_number(j, "threads"), 1);
    double made = json_number(j, "generated_tokens"), density = json_number(j, "activation_density");
    cr_assert(made > 0 && made <= 8);
    cr_assert_eq(cJSON_GetArraySize(cJSON_GetObjectItem(j, "tokens")), made);
    cr_assert(density > 0 && density <= 1);
    cr_assert(json_number(j, "time_to_first_token_ms") > json_number(j, "load_ms"));
    cr_assert_gt(json_number(j, "peak_rss_bytes"), 1e6);
    cJSON_Delete(j);
    outcome_free(&o);
}

Test(run, sparsity_and_devices_change_no_token)
{
    shipped_model();
    setenv("XDG_CACHE_HOME", HEARTH_BUILD_DIR "/cache", 1); /* streamed models keep what they used there */
    outcome o = command_run("run", PROMPT, GREEDY, "-n", "16");
    static const char *const ways[][2] = { { "--sparsity", "off" },
                                           { "--sparsity", "exact" },
                                           { "--device", "cpu" },
                                           { "--io", "mmap" },
                                           { "--io", "direct" },
                                           { "--io", "cached" },
                                           { "--batch", "1" },
                                           { "--threads", "1" },
                                           { "--deterministic", "--quiet" },
                                           { "--ram", "2G" } };
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        outcome w = command_run("run", PROMPT, GREEDY, "-n", "16", ways[i][0], ways[i][1]);
        cr_assert_eq(w.status, 0, "%s: %s", ways[i][0], w.err);
        cr_assert_str_eq(w.out, o.out, "%s %s", ways[i][0], ways[i][1]);
        outcome_free(&w);
    }
    outcome_free(&o);
}

Test(run, streamed_models_tell_of_their_experts)
{
    static const char *const names[] = { "expert_hit_rate", "disk_bytes_read", "io_wait_seconds", "expert_cache_bytes" };
    shipped_model();
    setenv("XDG_CACHE_HOME", HEARTH_BUILD_DIR "/cache", 1);
    outcome o = command_run("run", PROMPT, GREEDY, "-n", "8", "--json", "--io", "direct", "--prefetch", "on");
    cJSON *j = outcome_json(&o);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        json_number(j, names[i]);
    double hits = json_number(j, "expert_hit_rate");
    cr_expect(hits >= 0 && hits <= 1, "%g", hits);
    cr_expect_gt(json_number(j, "disk_bytes_read"), 0);
    cJSON_Delete(j);
    outcome_free(&o);
    o = command_run("run", PROMPT, GREEDY, "-n", "8", "--ram", "1M");
    cr_expect_neq(o.status, 0);
    cr_expect(strstr(o.err, "MiB more"), "%s", o.err);
    outcome_free(&o);
}

Test(run, vram_is_no_error_and_is_said_once)
{
    shipped_model();
    outcome o = command_run("run", PROMPT, GREEDY, "-n", "2", "--vram", "1");
    cr_assert_eq(o.status, 0);
    cr_assert_eq(strchr(o.err, '\n'), o.err + o.n_err - 1, "one line was expected: %s", o.err);
    outcome_free(&o);
}

Test(run, a_seed_repeats_itself)
{
    shipped_model();
    outcome a = command_run("run", PROMPT, "--seed", "7", "-n", "12"),
            b = command_run("run", PROMPT, "--seed", "7", "-n", "12");
    cr_assert_eq(a.status, 0);
    cr_assert_str_eq(a.out, b.out);
    outcome_free(&a);
    outcome_free(&b);
}

Test(run, prompts_from_files_and_pipes)
{
    shipped_model();
    static const char text[] = "The king and the fox\nwent out ";
    circumstances pipe = { .input = text, .n_input = sizeof text - 1 };
    outcome flag = command_run("run", "-p", text, GREEDY, "-n", "8");
    outcome file = command_run("run", "-f", scratch_file("prompt", text, sizeof text - 1), GREEDY, "-n", "8");
    outcome dash = command_run_with(&pipe, "run", "-", GREEDY, "-n", "8");
    cr_assert_eq(flag.status, 0);
    cr_assert_str_eq(flag.out, file.out);
    cr_assert_str_eq(flag.out, dash.out);
    outcome_free(&flag);
    outcome_free(&file);
    outcome_free(&dash);
}

Test(run, stop_texts_are_not_printed)
{
    shipped_model();
    outcome all = command_run("run", PROMPT, GREEDY, "-n", "16");
    cr_assert_eq(all.status, 0);
    /* A text from the middle of what comes without it. */
    char stop[4] = { 0 };
    memcpy(stop, all.out + all.n_out / 2, 3);
    outcome some = command_run("run", PROMPT, GREEDY, "-n", "16", "--stop", stop);
    cr_assert_eq(some.status, 0);
    cr_assert_lt(some.n_out, all.n_out);
    cr_assert_null(strstr(some.out, stop));
    cr_assert_eq(strncmp(all.out, some.out, some.n_out), 0);
    outcome_free(&all);
    outcome_free(&some);
}

Test(run, a_full_context_ends_it)
{
    shipped_model();
    outcome o = command_run("run", PROMPT, GREEDY, "--ctx", "24", "--json");
    cJSON *j = outcome_json(&o);
    cr_assert_leq(json_number(j, "prompt_tokens") + json_number(j, "generated_tokens"), 24 + 1);
    cJSON_Delete(j);
    outcome_free(&o);
    outcome small = command_run("run", PROMPT, "--ctx", "2", "-n", "1");
    cr_assert_eq(small.status, 1);
    cr_assert_eq(small.n_out, 0);
    outcome_free(&small);
}

Test(run, none_generated)
{
    shipped_model();
    outcome o = command_run("run", PROMPT, "-n", "0");
    cr_assert_eq(o.status, 0);
    cr_assert_eq(o.n_out, 0);
    outcome_free(&o);
}

Test(run, control_c_keeps_what_was_made)
{
    shipped_model();
    circumstances c = { .interrupt_after = 4 };
    outcome o = command_run_with(&c, "run", PROMPT, "--seed", "1", "--ctx", "100000", "-n", "90000");
    cr_assert_eq(o.status, 130, "status %d: %s", o.status, o.err);
    cr_assert_geq(o.n_out, 4);
    outcome_free(&o);
}

Test(run, a_closed_pipe_ends_it_quietly)
{
    shipped_model();
    circumstances c = { .close_after = 4 };
    outcome o = command_run_with(&c, "run", PROMPT, "--seed", "1", "--ctx", "100000", "-n", "90000");
    cr_assert(o.status == 1000 + 13 || o.status == 1, "status %d", o.status);
    outcome_free(&o);
}

Test(run, a_full_disk_is_told)
{
    shipped_model();
    circumstances c = { .stdout_to = "/dev/full" };
    outcome o = command_run_with(&c, "run", PROMPT, GREEDY, "-n", "4");
    cr_assert_eq(o.status, 1, "status %d", o.status);
    cr_assert(strstr(o.err, "stdout"));
    outcome_free(&o);
}

Test(run, log_and_quiet)
{
    shipped_model();
    const char *log = scratch_file("log", NULL, 0);
    outcome o = command_run("run", PROMPT, GREEDY, "-n", "2", "--log", log, "--quiet", "--vram", "1");
    size_t n;
    cr_assert_eq(o.status, 0);
    cr_assert_eq(o.n_err, 0, "%s", o.err);
    char *text = read_whole(log, &n);
    cr_assert(strstr(text, "--vram"));
    free(text);
    outcome_free(&o);
    o = command_run("run", PROMPT, "--log", "/nowhere/log");
    cr_assert_eq(o.status, 1);
    outcome_free(&o);
    if (access("/dev/full", W_OK) == 0) { /* a log that cannot be written is told once and stops nothing */
        o = command_run("run", PROMPT, GREEDY, "-n", "2", "--log", "/dev/full");
        cr_assert_eq(o.status, 0);
        const char *told = strstr(o.err, "log could not be written");
        cr_assert(told && !strstr(told + 1, "log could not"), "%s", o.err);
        outcome_free(&o);
    }
}

Test(run, what_fails_at_run_time_is_one)
{
    shipped_model();
    outcome absent = command_run("run", "/nowhere/model.gguf", "-p", "x"),
            file = command_run("run", "-f", "/nowhere/text");
    outcome budget = command_run("run", PROMPT, "--ram", "64K"), folder = command_run("run", "-f", "/tmp");
    cr_assert_eq(absent.status, 1);
    cr_assert(strstr(absent.err, "/nowhere/model.gguf"));
    cr_assert_eq(file.status, 1);
    cr_assert_eq(budget.status, 1, "%s", budget.err);
    cr_assert_eq(folder.status, 1);
    outcome_free(&absent);
    outcome_free(&file);
    outcome_free(&budget);
    outcome_free(&folder);
}

Test(run, options_the_library_refuses_are_two)
{
    shipped_model();
    outcome isa = command_run("run", PROMPT, "--isa", "mmx"),
            override = command_run("run", PROMPT, "--override", "nonsense");
    cr_assert_eq(isa.status, 2, "%s", isa.err);
    cr_assert_eq(override.status, 2, "%s", override.err);
    outcome_free(&isa);
    outcome_free(&override);
}

Test(run, a_budget_too_small_is_named)
{
    shipped_model();
    static const char *const sizes[] = { "0", "1K", "1M" };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        outcome o = command_run("run", "-p", "Once", "-n", "1", "--ram", sizes[i]);
        cr_assert_eq(o.status, 1, "--ram %s: status %d", sizes[i], o.status);
        cr_assert(strstr(o.err, "--ram"), "--ram %s: %s", sizes[i], o.err);
        outcome_free(&o);
    }
}
