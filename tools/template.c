/* SPDX-License-Identifier: MIT
 * hearth template: the prompt that a chat template makes of a conversation in JSON. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tools/commands.h"
#include "tools/report.h"

#define AT(member) offsetof(ht_options, member)

static const ht_flag own_flags[] = {
    { 'f', "file", "CHAT.json", HT_FLAG_TEXT, AT(file), 0, 0, NULL, NULL,
      "the conversation: an array of messages, or an object with messages, tools, add_generation_prompt and any other variables "
      "of the template; - is stdin" },
    { 0, "template", "FILE", HT_FLAG_TEXT, AT(template), 0, 0, NULL, NULL, "take the template in this file, not the model's" },
    { 0, "template-name", "NAME", HT_FLAG_TEXT, AT(template_name), 0, 0, NULL, NULL,
      "take the model's template of that name, as tool_use" },
    { 0, "generation-prompt", NULL, HT_FLAG_SWITCH, AT(generation_prompt), 0, 0, NULL, NULL,
      "begin an answer at the end, where the JSON does not say (add_generation_prompt)" },
    { 0 },
};

static int run(const ht_options *o)
{
    ht_load_how how = { .vocab_only = true };
    ht_loaded l = { 0 };
    hearth_error err = { 0 };
    hearth_template_params p = HEARTH_TEMPLATE_PARAMS_INIT;
    char *json = NULL, *text = NULL, *tmpl = NULL;
    size_t n_json = 0, n_text = 0, n_tmpl = 0;
    bool given;

    if (o->template && o->template_name)
        return ht_usage_error("--template and --template-name exclude each other");
    int status = ht_load_prompt(o, &json, &n_json, &given);
    if (!status && !given)
        status = ht_usage_error("template needs a conversation: -f CHAT.json or - for stdin");
    if (!status && o->template)
        status = ht_load_file(o->template, &tmpl, &n_tmpl);
    if (!status)
        status = ht_load_model(&l, NULL, o, &how);
    if (status)
        goto done;
    time_t now = time(NULL);
    struct tm local = { 0 };
    localtime_r(&now, &local);
    p.now = (int64_t)now + local.tm_gmtoff;
    p.text = tmpl;
    p.n_text = n_tmpl;
    p.name = o->template_name;
    p.json = json;
    p.n_json = n_json;
    p.add_generation_prompt = o->generation_prompt;
    if (!tmpl && !o->template_name && !l.info.has_chat_template)
        ht_say("%s has no chat template: the conversation is written as User: and Assistant:", l.path);
    if (hearth_template_render(l.model, &p, &text, &n_text, &err) != HEARTH_OK) {
        ht_complain("%s", err.text); /* a refusal is no wrong usage */
        status = HT_EXIT_FAILED;
        goto done;
    }
    if (o->json) {
        cJSON *j = cJSON_CreateObject();
        ht_report_text(j, "text", text, n_text);
        ht_report_text(j, "model", l.path, strlen(l.path));
        status = ht_report_print(j);
    } else {
        fwrite(text, 1, n_text, stdout);
        status = ht_stdout_done(HT_EXIT_OK);
    }
done:
    hearth_free(text);
    ht_load_close(&l);
    free(tmpl);
    free(json);
    return status;
}

const ht_command ht_command_template = {
    .name = "template",
    .arguments = "[MODEL] -f CHAT.json [--template FILE]",
    .summary = "the prompt that a chat template makes of a conversation",
    .text = "Runs the model's chat template over a conversation and prints what the model would read, byte for byte. The JSON is an "
            "array of messages, or an object whose members are the template's variables; they win over those of the model "
            "(bos_token, eos_token, unk_token, pad_token). What the JSON leaves out is undefined in the template. A template that "
            "refuses the conversation, or has a construct that is not known here, is exit status 1 and a sentence with the line.",
    .max_positional = 1,
    .takes_stdin = true,
    .tables = { own_flags, ht_flags_talk },
    .idle = { ht_flags_model, ht_flags_sampling },
    .run = run,
};
