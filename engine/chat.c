/* SPDX-License-Identifier: MIT
 * Prompts of conversations; see chat.h. A family is data: what stands before and after a message of each role. */
#include "engine/chat.h"

#include <stdlib.h>
#include <string.h>

#include "engine/text.h"

typedef struct family {
    const char *name;
    const char *mark[3];       /* all must occur in the template (NULL: no more) */
    const char *begin;         /* once, at the start */
    const char *before[3];     /* of system, user, assistant; system NULL: put before the first user message */
    const char *after[3];
    const char *generate;      /* what begins the answer */
    bool trim;                 /* the template strips white space around contents */
    const char *system_glue;   /* between a folded system message and the user's */
    bool fold_last;            /* a folded system message goes to the last user message, not to the next */
} family;

#define CHATML(x) "<|im_start|>" x "\n"

/* Order matters: the first whose marks all occur. */
/* clang-format off */
static const family families[] = {
    { "gpt-oss", { "<|start|>", "<|channel|>", "<|message|>" }, "",
      { "<|start|>system<|message|>", "<|start|>user<|message|>", "<|start|>assistant<|channel|>final<|message|>" },
      { "<|end|>", "<|end|>", "<|end|>" }, "<|start|>assistant", false, NULL, false },
    { "chatml", { "<|im_start|>" }, "", { CHATML("system"), CHATML("user"), CHATML("assistant") },
      { "<|im_end|>\n", "<|im_end|>\n", "<|im_end|>\n" }, CHATML("assistant"), false, NULL, false },
    { "llama3", { "<|start_header_id|>", "<|end_header_id|>" }, "<|begin_of_text|>",
      { "<|start_header_id|>system<|end_header_id|>\n\n", "<|start_header_id|>user<|end_header_id|>\n\n",
      "<|start_header_id|>assistant<|end_header_id|>\n\n" }, { "<|eot_id|>", "<|eot_id|>", "<|eot_id|>" },
      "<|start_header_id|>assistant<|end_header_id|>\n\n", true, NULL, false },
    { "gemma", { "<start_of_turn>" }, "<bos>", { NULL, "<start_of_turn>user\n", "<start_of_turn>model\n" },
      { NULL, "<end_of_turn>\n", "<end_of_turn>\n" }, "<start_of_turn>model\n", true, "\n\n", false },
    { "granite", { "<|start_of_role|>", "<|end_of_role|>" }, "", { "<|start_of_role|>system<|end_of_role|>",
      "<|start_of_role|>user<|end_of_role|>", "<|start_of_role|>assistant<|end_of_role|>" }, { "<|end_of_text|>\n",
      "<|end_of_text|>\n", "<|end_of_text|>\n" }, "<|start_of_role|>assistant<|end_of_role|>", false, NULL, false },
    { "llama4", { "<|header_start|>", "<|header_end|>" }, "<|begin_of_text|>",
      { "<|header_start|>system<|header_end|>\n\n", "<|header_start|>user<|header_end|>\n\n",
        "<|header_start|>assistant<|header_end|>\n\n" },
      { "<|eot|>", "<|eot|>", "<|eot|>" }, "<|header_start|>assistant<|header_end|>\n\n", true, NULL, false },
    { "command-r", { "<|START_OF_TURN_TOKEN|>" }, "<BOS_TOKEN>",
      { "<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>", "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>",
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>" },
      { "<|END_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>" },
      "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>", true, NULL, false },
    { "deepseek3", { "<\xef\xbd\x9c" "User\xef\xbd\x9c>", "<\xef\xbd\x9c" "Assistant\xef\xbd\x9c>" },
      "<\xef\xbd\x9c" "begin\xe2\x96\x81of\xe2\x96\x81sentence\xef\xbd\x9c>", { "", "<\xef\xbd\x9cUser\xef\xbd\x9c>",
      "<\xef\xbd\x9c" "Assistant\xef\xbd\x9c>" }, { "", "",
      "<\xef\xbd\x9c" "end\xe2\x96\x81of\xe2\x96\x81sentence\xef\xbd\x9c>" }, "<\xef\xbd\x9c" "Assistant\xef\xbd\x9c>",
      false, NULL, false },
    { "phi4", { "<|im_sep|>" }, "", { "<|im_start|>system<|im_sep|>", "<|im_start|>user<|im_sep|>",
      "<|im_start|>assistant<|im_sep|>" }, { "<|im_end|>", "<|im_end|>", "<|im_end|>" },
      "<|im_start|>assistant<|im_sep|>", false, NULL, false },
    { "phi3", { "<|assistant|>", "<|end|>" }, "", { "<|system|>\n", "<|user|>\n", "<|assistant|>\n" },
      { "<|end|>\n", "<|end|>\n", "<|end|>\n" }, "<|assistant|>\n", false, NULL, false },
    { "glm4", { "[gMASK]<sop>" }, "[gMASK]<sop>", { "<|system|>\n", "<|user|>\n", "<|assistant|>\n" }, { "", "", "" },
      "<|assistant|>\n", false, NULL, false },
    { "exaone", { "[|system|]", "[|assistant|]", "[|endofturn|]" }, "", { "[|system|]", "[|user|]", "[|assistant|]" },
      { "[|endofturn|]\n", "\n", "[|endofturn|]\n" }, "[|assistant|]", true, NULL, false },
    { "zephyr", { "<|user|>", "<|assistant|>" }, "", { "<|system|>\n", "<|user|>\n", "<|assistant|>\n" },
      { "</s>\n", "</s>\n", "</s>\n" }, "<|assistant|>\n", false, NULL, false },
    { "mistral7", { "[SYSTEM_PROMPT]" }, "<s>", { "[SYSTEM_PROMPT]", "[INST]", "" },
      { "[/SYSTEM_PROMPT]", "[/INST]", "</s>" }, "", false, NULL, false },
    { "llama2", { "[INST]", "<<SYS>>" }, "", { NULL, "<s>[INST] ", " " }, { NULL, " [/INST]", " </s>" }, "", true, NULL,
      false },
    { "mistral", { "[INST]", " [/INST]" }, "<s>", { NULL, "[INST] ", " " }, { NULL, " [/INST]", "</s>" }, "", true,
      "\n\n", false },
    { "mistral3", { "[INST]", "[/INST]" }, "<s>", { NULL, "[INST] ", " " }, { NULL, "[/INST]", "</s>" }, "", true,
      "\n\n", true },
    { "vicuna", { "USER: ", "ASSISTANT: " }, "", { "", "USER: ", "ASSISTANT: " }, { "\n\n", "\n", "</s>\n" },
      "ASSISTANT:", false, NULL, false },
    { "alpaca", { "### Instruction:", "### Response:" }, "", { "", "### Instruction:\n", "### Response:\n" },
      { "\n\n", "\n\n", "\n\n" }, "### Response:\n", false, NULL, false },
    { "deepseek", { "'User: '", "'Assistant: '" }, "", { "", "User: ", "Assistant: " }, { "\n\n", "\n\n",
      "<\xef\xbd\x9c" "end\xe2\x96\x81of\xe2\x96\x81sentence\xef\xbd\x9c>" }, "Assistant:", false, NULL, false },
};
/* clang-format on */

static const family plain = {
    "plain", { NULL }, "", { "", "User: ", "Assistant: " }, { "\n\n", "\n", "\n" }, "Assistant:", true, NULL, false
};

static const family *family_of(const char *tmpl)
{
    if (!tmpl)
        return &plain;
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        const family *f = &families[i];
        bool all = true;
        for (int k = 0; k < 3 && f->mark[k]; k++)
            all &= strstr(tmpl, f->mark[k]) != NULL;
        if (!all)
            continue;
        /* phi-4 writes chatml's marks with a separator of its own. */
        if (strcmp(f->name, "chatml") == 0 && strstr(tmpl, "<|im_sep|>"))
            continue;
        return f;
    }
    return &plain;
}

const char *ht_chat_family_name(const char *chat_template) { return family_of(chat_template)->name; }

static void puts_(ht_text *t, const char *s) { ht_text_put(t, s, strlen(s)); }

static bool space(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

static void put_content(ht_text *t, const family *f, const char *s)
{
    size_t n = strlen(s);
    while (f->trim && n && space(*s))
        s++, n--;
    while (f->trim && n && space(s[n - 1]))
        n--;
    ht_text_put(t, s, n);
}

static int role_of(const char *role)
{
    if (strcmp(role, "system") == 0 || strcmp(role, "developer") == 0)
        return 0;
    return strcmp(role, "user") == 0 ? 1 : strcmp(role, "assistant") == 0 ? 2 : -1;
}

ht_status ht_chat_format(const char *chat_template, const hearth_message *messages, size_t n,
                         bool add_generation_prompt, char **out, size_t *len, ht_error *err)
{
    const family *f = family_of(chat_template);
    const char *folded = NULL; /* a system message that waits for the user's, in families without a system turn */
    ht_text t = { 0 };

    ht_text_put(&t, "", 0);
    /* BOS is written only where the template itself does so. */
    if (f->begin[0] && (strstr(chat_template ? chat_template : "", "bos_token") ||
                        strstr(chat_template ? chat_template : "", f->begin)))
        puts_(&t, f->begin);
    for (size_t i = 0; i < n; i++) {
        int role = role_of(messages[i].role);
        if (role < 0) {
            free(t.s);
            return ht_fail(err, HT_EINVAL, "message %zu has the role \"%.40s\"; known are system, user, assistant", i,
                           messages[i].role);
        }
        if (role == 0 && !f->before[0]) {
            folded = messages[i].content;
            continue;
        }
        puts_(&t, f->before[role]);
        bool later = false; /* is there another user message after this one? */
        for (size_t j = i + 1; f->fold_last && j < n; j++)
            later |= role_of(messages[j].role) == 1;
        if (role == 1 && folded && !later) {
            bool sys = strcmp(f->name, "llama2") == 0;
            if (sys)
                puts_(&t, "<<SYS>>\n");
            put_content(&t, f, folded);
            puts_(&t, sys ? "\n<</SYS>>\n\n" : f->system_glue ? f->system_glue : "\n\n");
            folded = NULL;
        }
        put_content(&t, f, messages[i].content);
        puts_(&t, f->after[role]);
    }
    if (add_generation_prompt)
        puts_(&t, f->generate);
    if (t.failed) {
        free(t.s);
        return ht_fail(err, HT_ENOMEM, "prompt of %zu messages", n);
    }
    *out = t.s;
    *len = t.n;
    return HT_OK;
}
