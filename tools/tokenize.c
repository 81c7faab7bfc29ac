/* SPDX-License-Identifier: MIT
 * hearth tokenize and hearth detokenize: text to ids and back, with the file's own vocabulary and nothing else of
 * it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/commands.h"
#include "tools/report.h"

#define AT(member) offsetof(ht_options, member)

static const ht_flag tokenize_flags[] = {
    { 'p', "prompt", "TEXT", HT_FLAG_TEXT, AT(prompt), 0, 0, NULL, NULL, "the text" },
    { 'f', "file", "FILE", HT_FLAG_TEXT, AT(file), 0, 0, NULL, NULL,
      "the text is in this file or pipe, byte for byte; - is stdin" },
    { 0, "bos", NULL, HT_FLAG_SWITCH, AT(bos), 0, 0, NULL, NULL,
      "add the tokens that begin and end a text where the file asks for them" },
    { 0, "special", NULL, HT_FLAG_SWITCH, AT(special), 0, 0, NULL, NULL,
      "texts of control tokens are those tokens (otherwise plain text)" },
    { 0 },
};

static const ht_flag detokenize_flags[] = {
    { 0, "tokens", "LIST", HT_FLAG_TEXT, AT(tokens), 0, 0, NULL, NULL,
      "token ids as 1,2,3 or '1 2 3', or the path of a one-dimensional integer .npy file" },
    { 'f', "file", "FILE", HT_FLAG_TEXT, AT(file), 0, 0, NULL, NULL, "the ids are in this text file; - is stdin" },
    { 0, "special", NULL, HT_FLAG_SWITCH, AT(special), 0, 0, NULL, NULL, "spell out control tokens" },
    { 0 },
};

static int tokenize(const ht_options *o)
{
    ht_load_how how = { .vocab_only = true };
    ht_loaded l = { 0 };
    hearth_error err = { 0 };
    hearth_token *ids = NULL;
    size_t n_text = 0, n = 0;
    char *text = NULL;
    bool given;

    int status = ht_load_prompt(o, &text, &n_text, &given);
    if (!status && !given)
        status = ht_usage_error("tokenize needs a text: -p TEXT, -f FILE or - for stdin");
    if (status)
        return status;
    if ((status = ht_load_model(&l, NULL, o, &how)))
        goto done;
    if (hearth_tokenize(l.model, text, n_text, o->bos, o->special, &ids, &n, &err) != HEARTH_OK) {
        status = ht_call_failed(&err, false);
        goto done;
    }
    if (o->json) {
        cJSON *j = cJSON_CreateObject();
        ht_report_tokens(j, "tokens", ids, n);
        cJSON_AddNumberToObject(j, "prompt_tokens", (double)n);
        ht_report_text(j, "model", l.path, strlen(l.path));
        status = ht_report_print(j);
        goto done;
    }
    for (size_t i = 0; i < n; i++)
        printf(i ? " %d" : "%d", ids[i]);
    putchar('\n');
    status = ht_stdout_done(HT_EXIT_OK);
done:
    hearth_free(ids);
    ht_load_close(&l);
    free(text);
    return status;
}

static int detokenize(const ht_options *o)
{
    ht_load_how how = { .vocab_only = true };
    ht_loaded l = { 0 };
    hearth_error err = { 0 };
    hearth_token *ids = NULL;
    size_t n = 0, n_text = 0;
    char *list = NULL, *text = NULL;
    int status;

    if (!!o->tokens + !!o->file + o->from_stdin != 1)
        return ht_usage_error("detokenize needs one of --tokens LIST, -f FILE and - for stdin");
    if (o->tokens) {
        status = ht_load_tokens(o->tokens, &ids, &n);
    } else if (!(status = ht_load_file(o->file ? o->file : "-", &list, &n_text))) {
        if (strlen(list) != n_text || list[strspn(list, "0123456789, \t\r\n")])
            status = ht_usage_error("%s holds no list of token ids", o->file ? o->file : "stdin");
        else
            status = ht_load_tokens(list, &ids, &n);
    }
    if (status)
        goto done;
    if ((status = ht_load_model(&l, NULL, o, &how)))
        goto done;
    for (size_t i = 0; i < n; i++)
        if ((uint32_t)ids[i] >= l.info.n_vocab) {
            status = ht_usage_error("token %d is not in the vocabulary of %u", ids[i], l.info.n_vocab);
            goto done;
        }
    if (hearth_detokenize(l.model, ids, n, o->special, &text, &n_text, &err) != HEARTH_OK) {
        status = ht_call_failed(&err, false);
        goto done;
    }
    if (o->json) {
        cJSON *j = cJSON_CreateObject();
        ht_report_text(j, "text", text, n_text);
        ht_report_tokens(j, "tokens", ids, n);
        ht_report_text(j, "model", l.path, strlen(l.path));
        status = ht_report_print(j);
    } else {
        fwrite(text, 1, n_text, stdout);
        status = ht_stdout_done(HT_EXIT_OK);
    }
done:
    hearth_free(text);
    ht_load_close(&l);
    free(ids);
    free(list);
    return status;
}

const ht_command ht_command_tokenize = {
    .name = "tokenize",
    .arguments = "[MODEL] -p TEXT | -f FILE | -",
    .summary = "token ids of a text, space-separated on one line",
    .text = "No BOS or EOS unless --bos is given; texts of control tokens are plain text unless --special is given. A "
            "file that "
            "holds nothing but a vocabulary will do.",
    .max_positional = 1,
    .takes_stdin = true,
    .tables = { tokenize_flags, ht_flags_talk },
    .idle = { ht_flags_model, ht_flags_sampling },
    .run = tokenize,
};

const ht_command ht_command_detokenize = {
    .name = "detokenize",
    .arguments = "[MODEL] --tokens LIST | -f FILE | -",
    .summary = "the text of token ids",
    .text = "Prints the bytes and nothing else, no newline either.",
    .max_positional = 1,
    .takes_stdin = true,
    .tables = { detokenize_flags, ht_flags_talk },
    .idle = { ht_flags_model, ht_flags_sampling },
    .run = detokenize,
};
