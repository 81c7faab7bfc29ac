/* SPDX-License-Identifier: MIT
 * The command with PowerInfer's models: it runs them with their own predictors, says how these did, shows what the file is,
 * and refuses what is no model. */
#include <criterion/criterion.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/tools/command.h"

static const char *model(void) { return HEARTH_TEST_DATA "/powerinfer/llama.gguf"; }

/* Runs and gives what was printed; free. */
static char *printed(const char *sparsity, const char *key, const char *value)
{
    outcome o = command_run("run", model(), "-p", "once upon a time", "-n", "12", "--temp", "0", "--sparsity", sparsity,
                            "--override", key, "--threads", value);
    cr_assert_eq(o.status, 0, "%s", o.err);
    char *text = strdup(o.out);
    outcome_free(&o);
    return text;
}

Test(powerinfer, predictors_are_used_unless_told_otherwise)
{
    const char *own = "powerinfer.sparse_threshold=0.25", *all = "powerinfer.sparse_threshold=-1e9";
    char *automatic = printed("auto", own, "1"), *predicted = printed("predicted", own, "2");
    char *exact = printed("exact", own, "1"), *off = printed("off", own, "2"), *open = printed("auto", all, "1");

    cr_expect_str_eq(automatic, predicted);
    cr_expect_str_eq(exact, off);
    cr_expect_str_eq(open, off);
    cr_expect_str_neq(automatic, off);
    free(automatic);
    free(predicted);
    free(exact);
    free(off);
    free(open);
}

Test(powerinfer, perplexity_says_how_predictors_did)
{
    const char *text = scratch_file("text.txt", "a quick brown fox and a dog and a quick brown fox and a dog", 59);
    outcome o = command_run("perplexity", model(), "-f", text, "--ctx", "16", "--json", "--against", "dense");
    cJSON *j = outcome_json(&o);
    const double recall = json_number(j, "predictor_recall"), precision = json_number(j, "predictor_precision");

    cr_expect(recall > 0.2 && recall < 0.8, "%g", recall);
    cr_expect(precision > 0.2 && precision < 0.8, "%g", precision);
    cr_expect_gt(json_number(j, "kl_divergence_mean"), 0.0);
    cJSON_Delete(j);
    outcome_free(&o);
}

Test(powerinfer, inspect)
{
    outcome o = command_run("inspect", model()), j = command_run("inspect", model(), "--json");

    cr_expect_not_null(strstr(o.out, "PWRI"), "%s", o.out);
    cr_expect_not_null(strstr(o.out, "powerinfer.sparse_threshold"));
    cr_expect_not_null(strstr(o.out, "blk.1.fc2.weight"));
    cr_expect_not_null(strstr(j.out, "\"powerinfer\""));
    outcome_free(&o);
    outcome_free(&j);
}

/* MODEL.generated.gpuidx: the same container, no model. */
Test(powerinfer, a_list_for_a_gpu_is_no_model)
{
    static const char key[] = "general.architecture", value[] = "generic.gpu_index";
    char bytes[256] = "PWRI";
    size_t n = 4;
    const uint64_t counts[2] = { 0, 1 }, key_n = sizeof key - 1, value_n = sizeof value - 1;
    const uint32_t version = 3, string = 8;

#define PUT(from, size)                                                                                                \
    do {                                                                                                               \
        memcpy(bytes + n, from, size);                                                                                 \
        n += size;                                                                                                     \
    } while (0)
    PUT(&version, 4);
    PUT(counts, 16);
    PUT(&key_n, 8);
    PUT(key, key_n);
    PUT(&string, 4);
    PUT(&value_n, 8);
    PUT(value, value_n);
#undef PUT
    const char *path = scratch_file("model.generated.gpuidx", bytes, (n + 31) / 32 * 32);
    outcome o = command_run("run", path, "-p", "x", "-n", "1");
    cr_expect_eq(o.status, 3, "%d: %s", o.status, o.err);
    cr_expect_not_null(strstr(o.err, "gpuidx"), "%s", o.err);
    outcome_free(&o);
    o = command_run("inspect", path);
    cr_expect_eq(o.status, 0, "%s", o.err);
    outcome_free(&o);
}
