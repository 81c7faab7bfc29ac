/* SPDX-License-Identifier: MIT
 * profile: what it prints and leaves, where it leaves it, how it is interrupted and goes on; and --profile of the
 * commands that run a model. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "offline_profiler/hearth_profiler.h"
#include "tests/tools/command.h"

extern char **environ;

static const char *const relu = "llama.hidden_activation=relu";

static const char *model(void)
{
    return HEARTH_TEST_DATA "/golden/llama_relu.gguf";
}

/* A file of about n bytes of words. */
static const char *text_file(size_t n)
{
    static const char *const words[] = { "old ", "king ", "sat ", "by ", "the ", "sea\n", "and ", "wept. " };
    char *text = malloc(n + 16);
    size_t at = 0;
    uint32_t state = 7;
    cr_assert_not_null(text);
    while (at < n) {
        state = state * 1664525u + 1013904223u;
        const char *w = words[state >> 29];
        memcpy(text + at, w, strlen(w));
        at += strlen(w);
    }
    const char *path = scratch_file("text.txt", text, at);
    free(text);
    return path;
}

/* An empty cache folder of this test. */
static const char *own_cache(void)
{
    static char path[400];
    snprintf(path, sizeof path, "%s.cache", scratch_file("place", NULL, 0));
    mkdir(path, 0700);
    setenv("XDG_CACHE_HOME", path, 1);
    return path;
}

static const char *cached_profile(char path[600], const char *cache)
{
    hearth_model *m;
    hearth_error err;
    hearth_model_params p = { .size = sizeof p, .vocab_only = true, .overrides = &relu, .n_overrides = 1 };
    char fingerprint[33];
    cr_assert_eq(hearth_model_open(&m, model(), &p, &err), HEARTH_OK, "%s", err.text);
    cr_assert_eq(hearth_model_fingerprint(m, fingerprint, &err), HEARTH_OK);
    hearth_model_close(&m);
    snprintf(path, 600, "%s/hearth/profiles/%s.gguf", cache, fingerprint);
    return path;
}

static bool exists(const char *path)
{
    return access(path, F_OK) == 0;
}

Test(profile, says_what_it_found_and_leaves_a_file)
{
    own_cache();
    const char *text = text_file(3000), *out = scratch_file("out.gguf", NULL, 0),
               *page = scratch_file("page.html", NULL, 0);
    outcome o = command_run("profile", model(), "--override", relu, "-f", text, "-o", out, "--report", page, "--tokens",
                            "500", "--ctx", "100", "--json");
    hearth_profile_info info = { .size = sizeof info };
    hearth_profile_layer layer = { .size = sizeof layer };
    hearth_profile *p;
    hearth_error err;
    char part[600];
    size_t n;

    cr_assert_eq(o.status, 0, "%s", o.err);
    cJSON *j = outcome_json(&o), *layers = cJSON_GetObjectItem(j, "layers");
    cr_assert_eq(hearth_profile_read(&p, out, cJSON_GetStringValue(cJSON_GetObjectItem(j, "fingerprint")), &err),
                 HEARTH_OK, "%s", err.text);
    hearth_profile_get_info(p, &info);
    cr_expect_eq(json_number(j, "tokens"), 500);
    cr_expect_eq(json_number(j, "ctx"), 100);
    cr_expect_eq(info.tokens, 500);
    cr_expect_float_eq(json_number(j, "activation_density"), info.density, 1e-6);
    cr_assert_eq(cJSON_GetArraySize(layers), (int)info.n_layer);
    for (uint32_t i = 0; i < info.n_layer; i++) {
        const cJSON *row = cJSON_GetArrayItem(layers, (int)i);
        hearth_profile_get_layer(p, i, &layer);
        cr_expect_float_eq(json_number(row, "activation_density"), (double)layer.density, 1e-6);
        cr_expect_float_eq(json_number(row, "overlap"), (double)layer.overlap, 1e-6);
        cr_expect_float_eq(json_number(cJSON_GetObjectItem(row, "union"), "8"), (double)layer.unions[3], 1e-6);
    }
    hearth_profile_close(&p);
    cJSON_Delete(j);
    char *html = read_whole(page, &n);
    cr_expect(n > 10000 && strstr(html, "</html>"));
    free(html);
    snprintf(part, sizeof part, "%s.part", out);
    cr_expect_not(exists(part), "the part is left behind");
    outcome_free(&o);

    o = command_run("profile", model(), "--override", relu, "-f", text, "-o", out, "--tokens", "500");
    cr_assert_eq(o.status, 0, "%s", o.err);
    cr_expect(strstr(o.out, "density") && strstr(o.out, "union-8") && strstr(o.out, out), "%s", o.out);
    outcome_free(&o);
}

Test(profile, is_kept_in_the_cache_folder)
{
    const char *cache = own_cache(), *text = text_file(2000);
    char path[600];
    size_t n;

    cached_profile(path, cache);
    outcome o = command_run("profile", model(), "--override", relu, "-f", text, "--density-only");
    cr_assert_eq(o.status, 0, "%s", o.err);
    cr_expect(strstr(o.out, "| --- |"), "%s", o.out);
    cr_expect_not(exists(path), "a quick look leaves a profile");
    outcome_free(&o);
    o = command_run("profile", model(), "--override", relu, "-f", text);
    cr_assert_eq(o.status, 0, "%s", o.err);
    cr_assert(exists(path), "no %s", path);
    outcome_free(&o);

    o = command_run("run", model(), "--override", relu, "-p", "the king", "-n", "2", "--verbose");
    cr_expect_eq(o.status, 0);
    cr_expect(strstr(o.err, path), "%s", o.err);
    outcome_free(&o);
    /* Without the override it is another model. */
    o = command_run("run", model(), "-p", "the king", "-n", "2", "--verbose");
    cr_expect_eq(o.status, 0);
    cr_expect_not(strstr(o.err, path), "%s", o.err);
    outcome_free(&o);

    /* One that is damaged is told of where one asks, and in nobody's way. */
    char *bytes = read_whole(path, &n);
    bytes[n / 2] ^= 4;
    FILE *f = fopen(path, "wb");
    cr_assert(f && fwrite(bytes, 1, n, f) == n && !fclose(f));
    free(bytes);
    o = command_run("run", model(), "--override", relu, "-p", "the king", "-n", "2", "--verbose");
    cr_expect_eq(o.status, 0);
    cr_expect(strstr(o.err, "not used") && strstr(o.err, "damaged"), "%s", o.err);
    outcome_free(&o);
    o = command_run("run", model(), "--override", relu, "-p", "the king", "-n", "2");
    cr_expect_eq(o.status, 0);
    cr_expect_eq(o.n_err, 0, "%s", o.err);
    outcome_free(&o);
}

static void run_with(const char *profile, int status, const char *sentence)
{
    outcome o[] = {
        command_run("run", model(), "--override", relu, "-p", "the king", "-n", "2", "--profile", profile),
        command_run("chat", model(), "--override", relu, "-p", "the king", "-n", "2", "--profile", profile),
        command_run("bench", model(), "--override", relu, "-p", "4", "-n", "2", "-r", "1", "--profile", profile),
        command_run("perplexity", model(), "--override", relu, "-p", "the old king sat by the sea", "--against",
                    "dense", "--profile", profile),
        command_run("logits", model(), "--override", relu, "--tokens", "5,6", "-o", "/dev/null", "--precision", "fast",
                    "--profile", profile),
    };
    for (size_t i = 0; i < sizeof o / sizeof *o; i++) {
        cr_expect_eq(o[i].status, status, "command %zu: %d, %s", i, o[i].status, o[i].err);
        cr_expect(strstr(o[i].err, sentence), "command %zu: %s", i, o[i].err);
        outcome_free(&o[i]);
    }
}

Test(profile, that_is_named_must_be_right)
{
    static const char nemotron[] = HEARTH_TEST_DATA "/golden/nemotron.gguf";
    own_cache();
    const char *text = text_file(2000), *own = scratch_file("own.gguf", NULL, 0),
               *other = scratch_file("other.gguf", NULL, 0);
    size_t n;
    outcome o = command_run("profile", model(), "--override", relu, "-f", text, "-o", own);
    cr_assert_eq(o.status, 0, "%s", o.err);
    outcome_free(&o);
    o = command_run("profile", nemotron, "-f", text, "-o", other);
    cr_assert_eq(o.status, 0, "%s", o.err);
    outcome_free(&o);
    run_with(own, 0, "");
    run_with(other, 1, "another model");
    run_with(model(), 1, "no profile");
    run_with("/nowhere/profile.gguf", 1, "/nowhere/profile.gguf");
    char *bytes = read_whole(own, &n);
    bytes[n - 100] ^= 1;
    const char *damaged = scratch_file("damaged.gguf", bytes, n);
    free(bytes);
    run_with(damaged, 1, "damaged");
}

Test(profile, wrong_usage)
{
    own_cache();
    outcome o = command_run("profile", model());
    cr_expect_eq(o.status, 2);
    cr_expect(strstr(o.err, "-f TEXT"), "%s", o.err);
    outcome_free(&o);
    o = command_run("profile", model(), "-f", "/nowhere/text.txt");
    cr_expect_eq(o.status, 1);
    outcome_free(&o);
    o = command_run("profile", model(), "-p", "");
    cr_expect_eq(o.status, 2);
    outcome_free(&o);
    o = command_run("profile", "/nowhere/model.gguf", "-p", "x");
    cr_expect_eq(o.status, 1);
    outcome_free(&o);
    o = command_run("profile", model(), "-p", "the old king", "-o", "/nowhere/out.gguf");
    cr_expect_eq(o.status, 1);
    cr_expect(strstr(o.err, "/nowhere/out.gguf"), "%s", o.err);
    outcome_free(&o);
    unsetenv("XDG_CACHE_HOME");
    unsetenv("HOME");
    o = command_run("profile", model(), "-p", "the old king");
    cr_expect_eq(o.status, 1);
    cr_expect(strstr(o.err, "-o"), "%s", o.err);
    outcome_free(&o);
}

/* ---- Ctrl-C ---- */

/* Runs the command until its part is there, then interrupts it; its exit status. */
static int interrupted(int by, const char *const *args, const char *part, const char *out, const char *errors)
{
    posix_spawn_file_actions_t files;
    const char *argv[20] = { HEARTH_BIN };
    int status;
    pid_t pid;

    for (size_t i = 0; args[i]; i++)
        argv[i + 1] = args[i];
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, 1, out, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    posix_spawn_file_actions_addopen(&files, 2, errors, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    cr_assert_eq(posix_spawn(&pid, HEARTH_BIN, &files, NULL, (char *const *)(uintptr_t)argv, environ), 0);
    posix_spawn_file_actions_destroy(&files);
    while (!exists(part)) {
        cr_assert_eq(waitpid(pid, &status, WNOHANG), 0, "it ended before its first part");
        nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
    }
    kill(pid, by);
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

Test(profile, survives_an_interruption)
{
    const char *quality = HEARTH_TEST_SANITIZE[0] ? "0" : "0.01"; /* trials of predictors take minutes then */
    own_cache();
    char text[300], out[300], part[320], page[320], whole[300];
    size_t n;
    snprintf(text, sizeof text, "%s", text_file(HEARTH_TEST_SANITIZE[0] ? 120000 : 600000));
    snprintf(out, sizeof out, "%s", scratch_file("stopped.gguf", NULL, 0));
    snprintf(whole, sizeof whole, "%s", scratch_file("whole.gguf", NULL, 0));
    snprintf(part, sizeof part, "%s.part", out);
    snprintf(page, sizeof page, "%s.html", out);
    const char *const args[] = { "profile",  model(), "--override", relu,      "-f",        text,    "-o", out,
                                 "--report", page,    "--tokens",   "1000000", "--quality", quality, NULL };
    const char *said = scratch_file("said.txt", NULL, 0), *errors = scratch_file("errors.txt", NULL, 0);
    int status = interrupted(SIGINT, args, part, said, errors);
    if (status == 0)
        cr_skip("this machine was done before it could be interrupted");
    cr_assert_eq(status, 130);
    char *o = read_whole(said, &n), *e = read_whole(errors, &n);
    cr_expect(strstr(o, "density"), "what was done is not told: %s", o);
    cr_expect(strstr(e, "interrupted") && strstr(e, part), "%s", e);
    cr_expect_not(exists(out), "an unfinished profile was written");
    cr_expect_not(exists(page));
    cr_assert(exists(part));
    free(o);
    free(e);

    outcome again = command_run_v(&(circumstances){ 0 }, args);
    cr_assert_eq(again.status, 0, "%s", again.err);
    cr_expect(strstr(again.err, "went on from"), "%s", again.err);
    cr_expect(exists(out) && exists(page) && !exists(part));
    outcome_free(&again);
    again = command_run("profile", model(), "--override", relu, "-f", text, "-o", whole, "--tokens", "1000000",
                        "--quality", quality);
    cr_assert_eq(again.status, 0, "%s", again.err);
    outcome_free(&again);
    size_t n_out, n_whole;
    char *a = read_whole(out, &n_out), *b = read_whole(whole, &n_whole);
    cr_expect(n_out == n_whole && !memcmp(a, b, n_out), "the interruption left its mark");
    free(a);
    free(b);
}

/* A whole text has to be read before predictors are looked for: SIGTERM in the middle leaves the part, and nothing else. */
Test(profile, survives_being_terminated)
{
    own_cache();
    char text[300], out[300], part[320];
    size_t n;
    snprintf(text, sizeof text, "%s", text_file(HEARTH_TEST_SANITIZE[0] ? 120000 : 600000));
    snprintf(out, sizeof out, "%s", scratch_file("terminated.gguf", NULL, 0));
    snprintf(part, sizeof part, "%s.part", out);
    const char *const args[] = { "profile", model(), "--override", relu, "-f", text, "-o", out, "--tokens", "1000000", NULL };
    const char *said = scratch_file("said.txt", NULL, 0), *errors = scratch_file("errors.txt", NULL, 0);
    int status = interrupted(SIGTERM, args, part, said, errors);
    if (status == 0)
        cr_skip("this machine was done before it could be terminated");
    cr_assert_eq(status, 130);
    char *e = read_whole(errors, &n), trial[340];
    cr_expect(strstr(e, "interrupted") && strstr(e, part), "%s", e);
    snprintf(trial, sizeof trial, "%s.trial", part);
    cr_expect(exists(part) && !exists(out) && !exists(trial));
    free(e);
}

/* Thresholds that were asked for and cannot be measured are no success, and nothing is learnt for them in vain. */
Test(profile, of_a_text_too_short_for_thresholds)
{
    const char *out = scratch_file("short.gguf", NULL, 0);
    char part[400];
    own_cache();
    snprintf(part, sizeof part, "%s.part", out);
    outcome o = command_run("profile", model(), "-p", "the old king", "--density", "0.5", "-o", out);
    cr_expect_eq(o.status, 1);
    cr_expect(strstr(o.err, "too short") && o.n_out == 0, "%s%s", o.out, o.err);
    outcome_free(&o);
    const char *few = scratch_file("few.txt", "a b\nc d\ne f\ng h\ni j\nk l\nm n\no p\n", 32);
    o = command_run("profile", model(), "-f", few, "--density", "0.5", "-o", out);
    cr_expect_eq(o.status, 1);
    cr_expect(strstr(o.err, "too short") && o.n_out == 0, "%s%s", o.out, o.err);
    outcome_free(&o);
    cr_expect(!exists(out) && !exists(part));
}

/* Outputs never take the place of what is read, and are looked at before any work. */
Test(profile, outputs_that_would_destroy_something)
{
    own_cache();
    size_t n, n_after;
    char *bytes = read_whole(model(), &n);
    char copy[300], part[320], folder[300];
    snprintf(copy, sizeof copy, "%s", scratch_file("copy.gguf", bytes, n));
    snprintf(part, sizeof part, "%s.part", copy);
    snprintf(folder, sizeof folder, "%s", scratch_file("folder", NULL, 0));
    cr_assert_eq(mkdir(folder, 0700), 0);
    const char *text = text_file(2000), *linked = scratch_file("linked.gguf", NULL, 0);
    cr_assert_eq(symlink(copy, linked), 0);
    const struct {
        const char *out, *report;
        int status;
    } bad[] = {
        { copy, NULL, 2 },
        { text, NULL, 2 },
        { linked, NULL, 2 },
        { folder, NULL, 2 },
        { "/nonexistent/p.gguf", NULL, 1 },
        { "fresh.gguf", copy, 2 },
        { "fresh.gguf", text, 2 },
        { "fresh.gguf", "fresh.gguf", 2 },
        { "fresh.gguf", "fresh.gguf.part", 2 },
        { "fresh.gguf", "/nonexistent/r.html", 1 },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        outcome o = command_run("profile", copy, "--override", relu, "-f", text, "-o", bad[i].out,
                                bad[i].report ? "--report" : "--quiet", bad[i].report ? bad[i].report : "--json");
        cr_expect_eq(o.status, bad[i].status, "case %zu: %d %s", i, o.status, o.err);
        cr_expect(!exists("fresh.gguf") && !exists("fresh.gguf.part") && !exists(part), "case %zu", i);
        outcome_free(&o);
    }
    outcome o = command_run("logits", copy, "--override", relu, "--tokens", "1,2", "-o", copy);
    cr_expect_eq(o.status, 2, "%s", o.err);
    outcome_free(&o);
    o = command_run("inspect", copy, "--tensor", "output_norm.weight", "-o", linked);
    cr_expect_eq(o.status, 2, "%s", o.err);
    outcome_free(&o);
    char *after = read_whole(copy, &n_after);
    cr_expect(n == n_after && !memcmp(bytes, after, n), "the model was touched");
    free(after);
    free(bytes);
    remove(linked);
    rmdir(folder);
}
