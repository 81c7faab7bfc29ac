/* SPDX-License-Identifier: MIT
 * Streamed models in a memory cgroup (v1) hardly larger than --ram: right text, never killed, a peak below what was given. */
#include <criterion/criterion.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/tools/command.h"

static const char mixture[] = HEARTH_MODEL_DIR "/hearth-story-moe.gguf";

/* What the program takes besides what --ram is about: its code, its libraries, its threads' stacks. */
enum { PROGRAM = 16 << 20 };

static bool put(const char *dir, const char *file, const char *text)
{
    char path[600];
    snprintf(path, sizeof path, "%s/%s", dir, file);
    FILE *f = fopen(path, "w");
    const bool written = f && fputs(text, f) >= 0;
    return f ? !fclose(f) && written : false;
}

static double get(const char *dir, const char *file)
{
    char path[600];
    double v = -1;
    snprintf(path, sizeof path, "%s/%s", dir, file);
    FILE *f = fopen(path, "r");
    if (f && fscanf(f, "%lf", &v) != 1)
        v = -1;
    if (f)
        fclose(f);
    return v;
}

/* A group of ours below the one this process is in; false: there is no such controller, or it is not ours to use. */
static bool make_group(char dir[500])
{
    char line[400], own[300] = "";
    FILE *f = fopen("/proc/self/cgroup", "r");

    while (f && fgets(line, sizeof line, f)) {
        const char *at = strstr(line, ":memory:");
        if (at)
            snprintf(own, sizeof own, "%.*s", (int)strcspn(at + 8, "\n"), at + 8);
    }
    if (f)
        fclose(f);
    if (!own[0])
        return false;
    snprintf(dir, 500, "/sys/fs/cgroup/memory%s%shearth-test-%d", own, own[strlen(own) - 1] == '/' ? "" : "/", (int)getpid());
    return mkdir(dir, 0755) == 0;
}

/* The mixture's answer with so much memory, in the group. */
static void within(const char *dir, uint64_t ram, const char *want, const char *io)
{
    char text[64], line[1200];

    snprintf(text, sizeof text, "%llu", (unsigned long long)ram + PROGRAM);
    if (!put(dir, "memory.limit_in_bytes", text))
        cr_skip_test("memory.limit_in_bytes cannot be written");
    put(dir, "memory.max_usage_in_bytes", "0");
    snprintf(line, sizeof line,
             "echo $$ > %s/cgroup.procs && exec %s run %s -p 'Once upon a time' -n 24 --temp 0 --json --ctx 256 --io %s --ram %llu",
             dir, HEARTH_BIN, mixture, io, (unsigned long long)ram);
    outcome o = command_run_with((&(circumstances){ .program = "/bin/sh" }), "-c", line);
    cr_assert_eq(o.status, 0, "%llu bytes, %s: %d, %s", (unsigned long long)ram, io, o.status, o.err);
    cJSON *j = outcome_json(&o);
    const cJSON *got = cJSON_GetObjectItem(j, "text");
    cr_assert(cJSON_IsString(got));
    cr_expect_str_eq(got->valuestring, want, "%llu bytes, %s", (unsigned long long)ram, io);
    cr_expect_lt(json_number(j, "peak_rss_bytes"), (double)(ram + PROGRAM), "%llu bytes, %s", (unsigned long long)ram, io);
    cr_expect_leq(get(dir, "memory.max_usage_in_bytes"), (double)(ram + PROGRAM));
    cJSON_Delete(j);
    outcome_free(&o);
}

Test(limit, memory_of_a_group, .timeout = 300)
{
    char dir[500];
    double least;

    shipped_model();
    if (HEARTH_TEST_SANITIZE[0])
        cr_skip_test("sanitizers take memory of their own");
    if (!make_group(dir))
        cr_skip_test("there is no memory controller of cgroup v1 that may be used here");
    setenv("XDG_CACHE_HOME", HEARTH_BUILD_DIR "/cache", 1);
    outcome o = command_run("run", mixture, "-p", "x", "--ram", "1000000", "--ctx", "256");
    const char *at = strstr(o.err, "at least ");
    cr_assert(o.status && at, "%s", o.err);
    least = strtod(at + 9, NULL);
    outcome_free(&o);
    o = command_run("run", mixture, "-p", "Once upon a time", "-n", "24", "--temp", "0", "--json", "--ctx", "256");
    cJSON *j = outcome_json(&o);
    const char *want = cJSON_GetObjectItem(j, "text")->valuestring;
    for (int i = 0; i < 4; i++)
        for (int io = 0; io < 2; io++)
            within(dir, (uint64_t)((least + 4 + 4 * i) * (1 << 20)), want, io ? "cached" : "direct");
    cJSON_Delete(j);
    outcome_free(&o);
    rmdir(dir);
}
