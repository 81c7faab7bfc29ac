/* SPDX-License-Identifier: MIT
 * hearth quantize as users type it. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/tools/command.h"

static const char *moe(void)
{
    static char path[600];
    snprintf(path, sizeof path, "%s/../../models/hearth-story-moe.gguf", HEARTH_TEST_DATA);
    return path;
}

Test(quantize, a_smaller_model_that_runs)
{
    const char *out = scratch_file("q4.gguf", NULL, 0);
    outcome o = command_run("quantize", shipped_model(), out, "--type", "q4_0", "--json");
    cJSON *j = outcome_json(&o);
    cr_assert_eq(o.status, 0, "%s", o.err);
    cr_assert_lt(json_number(j, "tensor_bytes_out"), json_number(j, "tensor_bytes_in"));
    cr_assert_gt(json_number(j, "weights_encoded"), 1e6);
    cr_assert_eq(json_number(j, "tensors_of_other_type"), 0);
    outcome r = command_run("run", out, "-p", "Once upon a time", "-n", "8", "--temp", "0");
    cr_assert_eq(r.status, 0, "%s", r.err);
    cr_assert_gt(r.n_out, 4);
    outcome t = command_run("quantize", shipped_model(), out, "--type", "q4_0"); /* again, over it */
    cr_assert_eq(t.status, 0, "%s", t.err);
    cr_assert(strstr(t.out, "encoded to Q4_0"), "%s", t.out);
    cJSON_Delete(j);
    outcome_free(&o);
    outcome_free(&r);
    outcome_free(&t);
    remove(out);
}

Test(quantize, wrong_usage_is_told)
{
    const char *out = scratch_file("w.gguf", NULL, 0), *in = shipped_model();
    const struct {
        const char *args[12], *says;
        int status;
    } cases[] = {
        { { "quantize", in, out, NULL }, "--type is missing", 2 },
        { { "quantize", in, "--type", "q8_0", NULL }, "two files", 2 },
        { { "quantize", in, out, "--type", "q3", NULL }, "no weight type", 2 },
        { { "quantize", in, in, "--type", "q4_0", NULL }, "OUT.gguf", 2 },
        { { "quantize", in, out, "--type", "q4_0", "--quality", "0.1", NULL }, "--per-expert", 2 },
        { { "quantize", moe(), out, "--type", "q4_0", "--per-expert", "--quality", "0", NULL }, "more than 0", 2 },
        { { "quantize", moe(), out, "--type", "q8_0", "--per-expert", "--quality", "1", "--size", "5M", NULL }, "not both", 2 },
        { { "quantize", in, out, "--type", "q4_0", "--per-expert", "-f", in, NULL }, "mixture", 2 },
        { { "quantize", "/nowhere.gguf", out, "--type", "q4_0", NULL }, "/nowhere.gguf", 1 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        outcome o = command_run_v(&(circumstances){ 0 }, cases[i].args);
        cr_assert_eq(o.status, cases[i].status, "%zu: %d, %s", i, o.status, o.err);
        cr_assert(strstr(o.err, cases[i].says), "%zu: %s", i, o.err);
        cr_assert_neq(access(out, F_OK), 0);
        outcome_free(&o);
    }
}

Test(quantize, experts_by_text_the_model_writes)
{
    const char *out = scratch_file("e.gguf", NULL, 0);
    if (HEARTH_TEST_SANITIZE[0])
        cr_skip_test("sanitizers take minutes to write so long a text");
    outcome o = command_run("quantize", moe(), out, "--type", "q8_0", "--per-expert", "--widths", "q4_0", "--size", "9M",
                            "--tokens", "32", "--json");
    cr_assert_eq(o.status, 0, "%s", o.err);
    cJSON *j = outcome_json(&o), *experts = cJSON_GetObjectItem(j, "experts");
    cr_assert_gt(json_number(experts, "Q8_0"), 0);
    cr_assert_gt(json_number(experts, "Q4_0"), 0);
    cr_assert_leq(json_number(j, "tensor_bytes_out"), 9 << 20);
    outcome r = command_run("run", out, "-p", "Once upon a time", "-n", "8", "--temp", "0");
    cr_assert_eq(r.status, 0, "%s", r.err);
    cJSON_Delete(j);
    outcome_free(&o);
    outcome_free(&r);
    remove(out);
}
