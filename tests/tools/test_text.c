/* SPDX-License-Identifier: MIT
 * tokenize and detokenize: bytes verbatim from flag, file and pipe, and the way back. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "tests/tools/command.h"

static const char story[] = "Once upon a time there was a fox, who lived (so they say) in 1874.\n\tIt's "
                            "\xc3\xa9t\xc3\xa9 \xf0\x9f\xa6\x8a!\n\n";

Test(text, the_way_there_and_back)
{
    shipped_model();
    outcome ids = command_run("tokenize", "-p", story);
    cr_assert_eq(ids.status, 0, "%s", ids.err);
    cr_assert_eq(ids.n_err, 0);
    cr_assert_eq(ids.out[ids.n_out - 1], '\n');
    cr_assert_eq(strchr(ids.out, '\n'), ids.out + ids.n_out - 1);
    ids.out[ids.n_out - 1] = 0;
    cr_assert_eq(strspn(ids.out, "0123456789 "), ids.n_out - 1);
    outcome text = command_run("detokenize", "--tokens", ids.out);
    cr_assert_eq(text.status, 0, "%s", text.err);
    cr_assert_str_eq(text.out, story);
    /* Commas as well as spaces, and from a pipe. */
    for (char *p = ids.out; *p; p++)
        if (*p == ' ')
            *p = ',';
    outcome commas = command_run("detokenize", "--tokens", ids.out);
    cr_assert_str_eq(commas.out, story);
    outcome piped =
        command_run_with((&(circumstances){ .input = ids.out, .n_input = strlen(ids.out) }), "detokenize", "-");
    cr_assert_str_eq(piped.out, story);
    outcome_free(&ids);
    outcome_free(&text);
    outcome_free(&commas);
    outcome_free(&piped);
}

Test(text, flag_file_and_pipe_agree)
{
    shipped_model();
    circumstances pipe = { .input = story, .n_input = sizeof story - 1 };
    outcome flag = command_run("tokenize", "-p", story);
    outcome file = command_run("tokenize", "-f", scratch_file("story.txt", story, sizeof story - 1));
    outcome bare = command_run_with(&pipe, "tokenize", "-");
    outcome dash = command_run_with(&pipe, "tokenize", "-f", "-");
    outcome device = command_run_with(&pipe, "tokenize", "-f", "/dev/stdin");
    cr_assert_eq(flag.status, 0);
    cr_assert_str_eq(flag.out, file.out);
    cr_assert_str_eq(flag.out, bare.out);
    cr_assert_str_eq(flag.out, dash.out);
    cr_assert_str_eq(flag.out, device.out);
    outcome_free(&flag);
    outcome_free(&file);
    outcome_free(&bare);
    outcome_free(&dash);
    outcome_free(&device);
}

Test(text, any_bytes_survive)
{
    shipped_model();
    char bytes[512];
    for (int i = 0; i < 512; i++)
        bytes[i] = (char)(i < 256 ? i : (i * 167 + 13) & 255);
    circumstances pipe = { .input = bytes, .n_input = sizeof bytes };
    outcome ids = command_run_with(&pipe, "tokenize", "-");
    cr_assert_eq(ids.status, 0);
    circumstances back = { .input = ids.out, .n_input = ids.n_out };
    outcome text = command_run_with(&back, "detokenize", "-");
    cr_assert_eq(text.status, 0, "%s", text.err);
    cr_assert_eq(text.n_out, sizeof bytes);
    cr_assert_arr_eq(text.out, bytes, sizeof bytes);
    outcome_free(&ids);
    outcome_free(&text);
}

Test(text, nothing_is_nothing)
{
    shipped_model();
    outcome o = command_run("tokenize", "-p", ""), d = command_run("detokenize", "--tokens", "");
    cr_assert_eq(o.status, 0);
    cr_assert_str_eq(o.out, "\n");
    cr_assert_eq(d.status, 0);
    cr_assert_eq(d.n_out, 0);
    outcome_free(&o);
    outcome_free(&d);
}

Test(text, bos_only_when_asked)
{
    shipped_model();
    outcome plain = command_run("tokenize", "-p", "fox"), bos = command_run("tokenize", "-p", "fox", "--bos");
    cr_assert_eq(bos.status, 0);
    cr_assert_geq(bos.n_out, plain.n_out);
    outcome_free(&plain);
    outcome_free(&bos);
}

Test(text, json)
{
    shipped_model();
    outcome o = command_run("tokenize", "--json", "-p", story);
    cJSON *j = outcome_json(&o), *tokens = cJSON_GetObjectItem(j, "tokens");
    cr_assert(cJSON_IsArray(tokens));
    cr_assert_gt(cJSON_GetArraySize(tokens), 10);
    cJSON_Delete(j);
    outcome_free(&o);
    /* Half a character is no UTF-8, and JSON holds nothing else. */
    circumstances pipe = { .input = "a\xc3", .n_input = 2 };
    outcome half = command_run_with(&pipe, "tokenize", "-");
    circumstances back = { .input = half.out, .n_input = half.n_out };
    outcome text = command_run_with(&back, "detokenize", "-", "--json");
    j = outcome_json(&text);
    cr_assert_str_eq(cJSON_GetStringValue(cJSON_GetObjectItem(j, "text")), "a\xef\xbf\xbd");
    cJSON_Delete(j);
    outcome_free(&half);
    outcome_free(&text);
}

Test(text, ids_that_are_none)
{
    shipped_model();
    static const struct {
        const char *list;
        int status;
    } bad[] = { { "1,2,99999999", 2 }, { "999999999999", 2 }, { "1;2", 2 },
                { "-1", 2 },           { "1,x", 2 },          { "/nowhere.npy", 1 } };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        outcome o = command_run("detokenize", "--tokens", bad[i].list);
        cr_assert_eq(o.status, bad[i].status, "%s: %d", bad[i].list, o.status);
        cr_assert_eq(o.n_out, 0);
        outcome_free(&o);
    }
}
