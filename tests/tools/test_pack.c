/* SPDX-License-Identifier: MIT
 * profile --pack and --unpack, and what the other commands make of a packed model. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/tools/command.h"

static const char text[] = "Once upon a time there was a little girl who had a red ball.\nShe liked to play in the park.\n";

/* The model that ships, packed without predictors. */
static const char *packed_model(void)
{
    const char *out = scratch_file("packed.gguf", NULL, 0);
    outcome o = command_run("profile", shipped_model(), "-p", text, "--pack", "-o", out, "--quiet");
    cr_assert_eq(o.status, 0, "%s", o.err);
    cr_expect(strstr(o.out, "packed model"), "%s", o.out);
    outcome_free(&o);
    return out;
}

static void same_words(const char *a, const char *b)
{
    outcome x = command_run("run", a, "-p", "Once upon a time", "-n", "24", "--temp", "0", "--quiet");
    outcome y = command_run("run", b, "-p", "Once upon a time", "-n", "24", "--temp", "0", "--quiet");
    cr_expect(x.status == 0 && y.status == 0, "%s%s", x.err, y.err);
    cr_expect(x.n_out > 20 && !strcmp(x.out, y.out), "%s\n%s", x.out, y.out);
    outcome_free(&x);
    outcome_free(&y);
}

Test(pack, there_and_back, .timeout = 120)
{
    const char *plain = shipped_model(), *packed = packed_model(), *back = scratch_file("back.gguf", NULL, 0);
    size_t n, m;

    same_words(plain, packed);
    outcome o = command_run("profile", packed, "--unpack", "-o", back);
    cr_assert_eq(o.status, 0, "%s", o.err);
    cr_expect(strstr(o.out, back), "%s", o.out);
    outcome_free(&o);
    char *x = read_whole(plain, &n), *y = read_whole(back, &m);
    cr_expect(n == m && !memcmp(x, y, n), "%zu bytes, %zu", n, m);
    free(x);
    free(y);
}

Test(pack, inspect_shows_it, .timeout = 120)
{
    const char *plain = shipped_model(), *packed = packed_model();
    const char *a = scratch_file("a.npy", NULL, 0), *b = scratch_file("b.npy", NULL, 0);
    size_t n, m;

    outcome o = command_run("inspect", packed);
    cr_expect(o.status == 0 && strstr(o.out, "hearth.blk.0.ffn") && strstr(o.out, "% of groups"), "%s", o.out);
    outcome_free(&o);
    o = command_run("inspect", packed, "--json");
    cJSON *j = outcome_json(&o), *blocks = cJSON_GetObjectItem(cJSON_GetObjectItem(j, "packed"), "blocks");
    cr_assert_gt(cJSON_GetArraySize(blocks), 0);
    const double share = json_number(cJSON_GetArrayItem(blocks, 0), "share_of_groups_for_80_percent");
    cr_expect(share > 0 && share <= 0.8 + 1e-9, "%g", share); /* even use would be 0.8 */
    cJSON_Delete(j);
    outcome_free(&o);
    static const char *const names[] = { "blk.0.ffn_down.weight", "blk.1.ffn_up.weight", "blk.0.ffn_gate.weight" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        outcome p = command_run("inspect", plain, "--tensor", names[i], "-o", a);
        outcome q = command_run("inspect", packed, "--tensor", names[i], "-o", b);
        cr_expect(p.status == 0 && q.status == 0, "%s%s", p.err, q.err);
        char *x = read_whole(a, &n), *y = read_whole(b, &m);
        cr_expect(n == m && !memcmp(x, y, n), "%s", names[i]);
        free(x);
        free(y);
        outcome_free(&p);
        outcome_free(&q);
    }
}

Test(pack, refused, .timeout = 120)
{
    const char *packed = packed_model(), *out = scratch_file("not-there.gguf", NULL, 0);
    static const char *const relu = "llama.hidden_activation=relu";
    const struct {
        int status;
        outcome o;
    } runs[] = {
        { 2, command_run("run", packed, "--sparsity", "predicted", "-p", "x", "-n", "1") },
        { 2, command_run("profile", packed, "--unpack") },
        { 2, command_run("profile", packed, "--unpack", "-p", "x", "-o", out) },
        { 2, command_run("profile", packed, "--pack", "-p", text, "-o", out, "--override", relu) },
        { 2, command_run("profile", packed, "--pack", "-p", text, "-o", out) },
        { 2, command_run("profile", shipped_model(), "--unpack", "-o", out) },
    };
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        outcome o = runs[i].o;
        cr_expect(o.status == runs[i].status && o.n_err > 10, "run %zu: %d, %s", i, o.status, o.err);
        outcome_free(&o);
    }
    cr_expect_neq(access(out, F_OK), 0);
    char part[400];
    snprintf(part, sizeof part, "%s.part", out); /* refused before anything is learnt */
    cr_expect_neq(access(part, F_OK), 0);
}
