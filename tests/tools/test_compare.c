/* SPDX-License-Identifier: MIT
 * tools/bench/compare and the probe beside it: a small run with a stand-in for another engine. Speeds are not looked
 * at, only that everything arrives where it is told. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/tools/command.h"

#define COMPARE HEARTH_TEST_DATA "/../../tools/bench/compare"
#define PROBE HEARTH_BUILD_DIR "/tools/hearth-probe"

static const char other[] = "#!/bin/sh\n"
                            "case \"$*\" in\n"
                            "*--help*) echo '--n-depth --no-warmup' ;;\n"
                            "*broken*) echo 'no such model' >&2; exit 3 ;;\n"
                            "*) echo '[{\"n_prompt\": 8, \"n_gen\": 0, \"avg_ts\": 50.5}, {\"n_prompt\": 0, \"n_gen\": "
                            "4, \"avg_ts\": 12.5}]' ;;\n"
                            "esac\n";

static outcome compare(const char *const *args)
{
    circumstances c = { .program = COMPARE };
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

/* The stand-in's LABEL=COMMAND; static. */
static const char *stand_in(void)
{
    static char spec[400];
    const char *path = scratch_file("llama-bench", other, sizeof other - 1);
    cr_assert_eq(chmod(path, 0755), 0);
    snprintf(spec, sizeof spec, "other=%s", path);
    return spec;
}

static size_t count(const char *text, const char *part)
{
    size_t n = 0;
    for (const char *p = text; (p = strstr(p, part)); p += strlen(part))
        n++;
    return n;
}

Test(compare, help_names_the_tests)
{
    needs_python();
    outcome o = compare((const char *const[]){ "--help", NULL });
    cr_assert_eq(o.status, 0, "%s", o.err);
    cr_assert(strstr(o.out, "--llama-bench") && strstr(o.out, "busy"), "%s", o.out);
    outcome_free(&o);
    o = compare((const char *const[]){ "--tests", "nothing", "x.gguf", NULL });
    cr_assert_eq(o.status, 2);
    outcome_free(&o);
}

Test(compare, rounds_are_added_and_told)
{
    needs_python();
    const char *model = shipped_model(), *csv = scratch_file("out.csv", NULL, 0),
               *svg = scratch_file("out.svg", NULL, 0);
    const char *engine = stand_in();
    const char *const run[] = { model,
                                "--hearth",
                                HEARTH_BIN,
                                "--llama-bench",
                                engine,
                                "--probe",
                                PROBE,
                                "--probe-mib",
                                "1",
                                "--threads",
                                "1",
                                "--prompt",
                                "8",
                                "--tokens",
                                "4",
                                "--rounds",
                                "1",
                                "--tests",
                                "decode,prefill,start",
                                "--csv",
                                csv,
                                "--svg",
                                svg,
                                NULL };
    for (int i = 0; i < 2; i++) {
        outcome o = compare(run);
        cr_assert_eq(o.status, 0, "%s", o.err);
        outcome_free(&o);
    }
    size_t n;
    char *text = read_whole(csv, &n), *chart = read_whole(svg, &n);
    cr_assert_eq(count(text, ",other,1,decode,12.5\n"), 2, "%s", text);
    cr_assert_eq(count(text, ",other,1,prefill,50.5\n"), 2);
    cr_assert_eq(count(text, ",hearth,1,decode,"), 2);
    cr_assert_eq(count(text, ",hearth,1,start_s,"), 2);
    cr_assert_eq(count(text, ",hearth,1,resident_bytes,"), 2);
    cr_assert_eq(count(text, ",probe,1,bandwidth,"), 2);
    cr_assert_eq(count(text, ",file,,bytes_per_token,"), 1);
    /* Round 1 asks hearth first, round 2 the other. */
    const char *second = strstr(text, ",2,hearth-story,");
    cr_assert(second && !strncmp(second + strlen(",2,hearth-story,"), "other", 5), "%s", text);
    cr_assert_null(strstr(text, "/"), "no path belongs into the file: %s", text);
    cr_assert(strstr(chart, "</svg>") && strstr(chart, "hearth-story, 1 thread<"), "%s", chart);
    free(text);
    free(chart);
    outcome o = compare((const char *const[]){ "--csv", csv, "--rounds", "0", "--markdown", NULL });
    cr_assert_eq(o.status, 0, "%s", o.err);
    cr_assert(strstr(o.out, "| hearth-story | 1 |") && strstr(o.out, "12.5 (12.5-12.5)"), "%s", o.out);
    outcome_free(&o);
}

Test(compare, an_engine_that_fails_is_left_out)
{
    needs_python();
    const char *model = shipped_model();
    char engine[500];
    snprintf(engine, sizeof engine, "%s --broken", stand_in());
    outcome o = compare((const char *const[]){ model, "--hearth", HEARTH_BIN, "--llama-bench", engine, "--probe", PROBE,
                                               "--probe-mib", "1", "--threads", "1", "--prompt", "8", "--tokens", "4",
                                               "--rounds", "1", NULL });
    cr_assert_eq(o.status, 0, "%s", o.err);
    cr_assert(strstr(o.err, "no such model") && strstr(o.err, "other is left out"), "%s", o.err);
    cr_assert_null(strstr(o.out, "other"), "%s", o.out);
    outcome_free(&o);
}

Test(probe, reads_and_computes)
{
    const char *model = shipped_model();
    circumstances c = { .program = PROBE };
    outcome o = command_run_with(&c, "--threads", "1,2", "--mib", "2", "--passes", "2", "--file", model, "--gather",
                                 "576,4096", "--peaks");
    cr_assert_eq(o.status, 0, "%s", o.err);
    cJSON *j = outcome_json(&o), *row;
    size_t n = 0;
    cJSON_ArrayForEach(row, cJSON_GetObjectItem(j, "threads"))
    {
        cr_assert_eq(json_number(row, "threads"), (double)++n);
        cr_assert_gt(json_number(cJSON_GetObjectItem(row, "sequential"), "bytes_per_s"), 0);
        cr_assert_gt(json_number(cJSON_GetObjectItem(row, "file"), "bytes_per_s"), 0);
        cr_assert_eq(cJSON_GetArraySize(cJSON_GetObjectItem(row, "gather")), 2);
    }
    cr_assert_eq(n, 2);
    cJSON_Delete(j);
    outcome_free(&o);
    o = command_run_with(&c, "--gather", "100");
    cr_assert_eq(o.status, 1);
    cr_assert(strstr(o.err, "64"), "%s", o.err);
    outcome_free(&o);
}
