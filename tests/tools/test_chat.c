/* SPDX-License-Identifier: MIT
 * chat: questions from a pipe and from -p, the notice about a missing template, and that keeping the KV cache
 * between turns changes nothing. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/tools/command.h"

#define GREEDY "--temp", "0", "-n", "6"

static size_t lines(const char *text)
{
    size_t n = 0;
    for (; *text; text++)
        n += *text == '\n';
    return n;
}

Test(chat, one_question)
{
    shipped_model();
    outcome o = command_run("chat", "-p", "Who are you?", GREEDY);
    cr_assert_eq(o.status, 0, "%s", o.err);
    cr_assert_gt(o.n_out, 0);
    cr_assert_null(strstr(o.out, "Assistant:"));
    cr_assert_null(strstr(o.out, "User:"));
    cr_assert_leq(lines(o.err), 1);
    outcome_free(&o);
}

Test(chat, piped_conversation)
{
    shipped_model();
    static const char talk[] = "Who are you?\n\nWhere is the fox?\n/reset\nWho are you?\n/quit\nnever read\n";
    circumstances pipe = { .input = talk, .n_input = sizeof talk - 1 };
    outcome o = command_run_with(&pipe, "chat", GREEDY, "--json"),
            once = command_run("chat", "-p", "Who are you?", GREEDY, "--json");
    cr_assert_eq(o.status, 0, "%s", o.err);
    cr_assert_eq(lines(o.out), 3);
    /* After /reset the first question is new again: the same answer as alone. */
    cJSON *alone = outcome_json(&once);
    char *line = o.out;
    for (int i = 0; i < 3; i++) {
        char *end = strchr(line, '\n');
        *end = 0;
        cJSON *j = cJSON_Parse(line);
        cr_assert_not_null(j);
        if (i != 1)
            cr_assert_str_eq(cJSON_GetStringValue(cJSON_GetObjectItem(j, "text")),
                             cJSON_GetStringValue(cJSON_GetObjectItem(alone, "text")));
        if (i == 1) /* only what is new was computed */
            cr_assert_lt(json_number(j, "prompt_tokens"), 2 * json_number(alone, "prompt_tokens") + 12);
        cJSON_Delete(j);
        line = end + 1;
    }
    cJSON_Delete(alone);
    outcome_free(&o);
    outcome_free(&once);
}

Test(chat, kept_state_changes_nothing)
{
    const char *model = shipped_model();
    outcome inspected = command_run("inspect", model);
    bool template = strstr(inspected.out, "tokenizer.chat_template");
    outcome_free(&inspected);
    if (template)
        cr_skip("the model that ships has a chat template: its prompt cannot be written by hand here");
    static const char talk[] = "Tell me of the king.\nAnd the fox?\n";
    circumstances pipe = { .input = talk, .n_input = sizeof talk - 1 };
    outcome o = command_run_with(&pipe, "chat", GREEDY, "--json");
    cr_assert_eq(o.status, 0, "%s", o.err);
    char *second = strchr(o.out, '\n');
    *second++ = 0;
    cJSON *a = cJSON_Parse(o.out), *b = cJSON_Parse(second);
    cr_assert(a && b);
    char prompt[2000];
    snprintf(prompt, sizeof prompt, "User: Tell me of the king.\nAssistant: %s\nUser: And the fox?\nAssistant:",
             cJSON_GetStringValue(cJSON_GetObjectItem(a, "text")));
    outcome whole = command_run("run", "-p", prompt, "--special", GREEDY, "--stop", "\nUser:", "--json");
    cJSON *c = outcome_json(&whole);
    cr_assert_str_eq(cJSON_GetStringValue(cJSON_GetObjectItem(b, "text")),
                     cJSON_GetStringValue(cJSON_GetObjectItem(c, "text")));
    cJSON_Delete(a);
    cJSON_Delete(b);
    cJSON_Delete(c);
    outcome_free(&o);
    outcome_free(&whole);
}

Test(chat, outgrows_its_context)
{
    shipped_model();
    char talk[4000] = "";
    for (int i = 0; i < 12; i++)
        strcat(talk, "The fox and the king went to the sea and the fox said a word to the king?\n");
    circumstances pipe = { .input = talk, .n_input = strlen(talk) };
    outcome o = command_run_with(&pipe, "chat", GREEDY, "--ctx", "96");
    cr_assert_eq(o.status, 0, "%s", o.err);
    cr_assert(strstr(o.err, "dropped"));
    outcome_free(&o);
}
