/* SPDX-License-Identifier: MIT
 * tools/bench/sparse: a bound and a surface of models of some kilobytes. Speeds are not looked at, only that everything is
 * counted and arrives where it is told. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/tools/command.h"

#define SPARSE HEARTH_TEST_DATA "/../../tools/bench/sparse"
#define PROBE HEARTH_BUILD_DIR "/tools/hearth-probe"

static outcome sparse(const char *const *args)
{
    circumstances c = { .program = SPARSE };
    return command_run_v(&c, args);
}

static void needs_python(void)
{
    outcome o = command_run_with((&(circumstances){ .program = "/bin/sh" }), "-c", "command -v python3");
    int status = o.status;
    outcome_free(&o);
    if (status)
        cr_skip("there is no python3");
}

/* The folder of scratch files; static. */
static const char *folder(void)
{
    static char path[400];
    snprintf(path, sizeof path, "%s", scratch_file("nothing", NULL, 0));
    *strrchr(path, '/') = '\0';
    return path;
}

static size_t count(const char *text, const char *part)
{
    size_t n = 0;
    for (const char *p = text; (p = strstr(p, part)); p += strlen(part))
        n++;
    return n;
}

Test(bench_sparse, a_surface_grows_from_call_to_call)
{
    needs_python();
    const char *csv = scratch_file("surface.csv", NULL, 0), *svg = scratch_file("surface.svg", NULL, 0);
    for (int rounds = 1; rounds <= 2; rounds++) {
        outcome o = sparse((const char *const[]){ "surface", "--hearth", HEARTH_BIN, "--folder", folder(), "--shape",
                                                  "tiny-relu", "--types", "q8_0", "--density", "10,100", "--overlap",
                                                  "30", "--threads", "1", "--tokens", "2", "--rounds",
                                                  rounds == 1 ? "1" : "2", "--csv", csv, "--svg", svg, NULL });
        cr_assert_eq(o.status, 0, "%s", o.err);
        cr_assert(strstr(o.out, "q8_0 overlap 30 % 1 threads, exact / off: 10 % "), "%s", o.out);
        outcome_free(&o);
    }
    size_t n;
    char *text = read_whole(csv, &n), *chart = read_whole(svg, &n);
    cr_assert_eq(count(text, ",tiny-relu-1 q8_0 10 30,exact,1,decode,"), 2, "%s", text);
    cr_assert_eq(count(text, ",tiny-relu-1 q8_0 100 30,off,1,decode,"), 2, "%s", text);
    /* Round 1 asks off first, round 2 exact. */
    const char *second = strstr(text, ",2,tiny-relu-1 q8_0 10 30,");
    cr_assert(second && strstr(second, ",exact,") < strstr(second, ",off,"), "%s", text);
    cr_assert(strstr(chart, "</svg>") && strstr(chart, "<polyline"), "%s", chart);
    char made[500];
    snprintf(made, sizeof made, "%s/tiny-relu-1-q8_0-d10-o30.gguf", folder());
    cr_expect(access(made, F_OK), "%s is still there", made);
    free(text);
    free(chart);
}

Test(bench_sparse, a_bound_counts_as_the_engine_does)
{
    needs_python();
    const char *csv = scratch_file("bound.csv", NULL, 0);
    outcome o = sparse((const char *const[]){ "bound", "--hearth", HEARTH_BIN, "--probe", PROBE, "--probe-mib", "1",
                                              "--folder", folder(), "--shape", "tiny-relu", "--layers", "4",
                                              "--threads", "1", "--tokens", "8", "--rounds", "1", "--csv", csv, NULL });
    cr_assert_eq(o.status, 0, "%s", o.err);
    outcome_free(&o);
    size_t n;
    char *text = read_whole(csv, &n);
    for (int exact = 0; exact < 2; exact++) {
        double bytes[3] = { 0 };
        static const char *const tests[] = { "sequential_bytes", "gathered_bytes", "engine_bytes" };
        for (int i = 0; i < 3; i++) {
            char key[60];
            snprintf(key, sizeof key, ",%s,1,%s,", exact ? "exact" : "off", tests[i]);
            const char *at = strstr(text, key);
            cr_assert(at, "%s: %s", key, text);
            bytes[i] = strtod(at + strlen(key), NULL);
        }
        const double ratio = (bytes[0] + bytes[1]) / bytes[2];
        cr_expect(ratio > 0.9 && ratio < 1.1, "%s: %.0f counted, %.0f told", exact ? "exact" : "off",
                  bytes[0] + bytes[1], bytes[2]);
    }
    free(text);
}

Test(bench_sparse, wrong_arguments)
{
    needs_python();
    outcome o = sparse((const char *const[]){ "bound", "--modes", "off,predicted", NULL });
    cr_assert_eq(o.status, 2);
    outcome_free(&o);
    o = sparse((const char *const[]){ "everything", NULL });
    cr_assert_eq(o.status, 2);
    outcome_free(&o);
}
