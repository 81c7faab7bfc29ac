/* SPDX-License-Identifier: MIT
 * tools/bench/stream: what it counts of a mixture of some megabytes. Speeds are not looked at. Its cgroups need root and the
 * first version of the memory controller. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/tools/command.h"

#define STREAM HEARTH_TEST_DATA "/../../tools/bench/stream"
#define DISK HEARTH_BUILD_DIR "/tools/hearth-disk"
#define CGROUP "/sys/fs/cgroup/memory/memory.limit_in_bytes"

static outcome stream(const char *const *args)
{
    circumstances c = { .program = STREAM };
    return command_run_v(&c, args);
}

Test(bench_stream, wrong_usage_is_told)
{
    outcome o = command_run_with((&(circumstances){ .program = "/bin/sh" }), "-c", "command -v python3");
    const int python = o.status;
    outcome_free(&o);
    if (python)
        cr_skip("there is no python3");
    o = stream((const char *const[]){ "nothing.gguf", "--ways", "magic", NULL });
    cr_expect_eq(o.status, 2, "%s", o.err);
    cr_expect(strstr(o.err, "magic"), "%s", o.err);
    outcome_free(&o);
    o = stream((const char *const[]){ "nothing.gguf", "--routing", "trace", NULL });
    cr_expect_eq(o.status, 2, "%s", o.err);
    outcome_free(&o);
    o = stream((const char *const[]){ HEARTH_MODEL_DIR "/hearth-story.gguf", "--hearth", HEARTH_BIN, NULL });
    cr_expect_eq(o.status, 1, "%s", o.err);
    cr_expect(strstr(o.err, "mixture"), "%s", o.err);
    outcome_free(&o);
}

Test(bench_stream, samples_and_a_bound)
{
    if (geteuid() != 0 || access(CGROUP, R_OK) != 0 || access(DISK, X_OK) != 0)
        cr_skip("this needs root, a memory cgroup and hearth-disk");
    const char *model = scratch_file("mixture.gguf", NULL, 0), *csv = scratch_file("stream.csv", NULL, 0);
    outcome o = command_run("synth", "qwen3-30b-a3b", model, "--type", "q4_0", "--layers", "1", "--vocab", "1024", "--quiet");
    cr_assert_eq(o.status, 0, "%s", o.err);
    outcome_free(&o);
    for (int samples = 1; samples >= 0; samples--) { /* 0: only tells */
        o = stream((const char *const[]){ model, "--hearth", HEARTH_BIN, "--disk", DISK, "--points", "compute,decode,prompt",
                                          "--limits", "40", "--ways", "on,off", "--tokens", "4", "--prompt", "16", "--headroom",
                                          "40", "--samples", samples ? "1" : "0", "--csv", csv, NULL });
        cr_assert_eq(o.status, 0, "%s", o.err);
        cr_expect(strstr(o.out, "1 layers of 128 experts, 2.53 MiB each, reads of 864 KiB"), "%s", o.out);
        cr_expect(strstr(o.out, "| 40 % planted | off | 1 | "), "%s", o.out);
        cr_expect(strstr(o.out, "40 % planted, on / off: "), "%s", o.out);
        cr_expect(strstr(o.out, "40 % prompt: first token after "), "%s", o.out);
        outcome_free(&o);
    }
    unlink(model);
}
