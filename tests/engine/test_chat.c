/* SPDX-License-Identifier: MIT
 *
 * Prompts of conversations: each template family's exact text, how it is told from a template, and official templates
 * where the shared folder is at hand. */
#include <cjson/cJSON.h>

#include "engine/chat.h"
#include "tests/engine/engine_util.h"

static const hearth_message talk[] = {
    { "system", "Be kind." },
    { "user", "Hello" },
    { "assistant", "Hi there" },
    { "user", " Who are you " },
};

/* A template that holds the family's marks, and the prompt that it makes of `talk`. */
static const struct {
    const char *family, *tmpl, *want;
} families[] = {
    { "chatml", "{{'<|im_start|>' + message['role']}}<|im_end|>",
      "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nHi "
      "there<|im_end|>\n"
      "<|im_start|>user\n Who are you <|im_end|>\n<|im_start|>assistant\n" },
    { "llama3", "{{ bos_token }}<|start_header_id|>{{ role }}<|end_header_id|>\n\n{{ content }}<|eot_id|>",
      "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe "
      "kind.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
      "Hello<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nHi "
      "there<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
      "Who are you<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n" },
    { "llama4", "{{ bos_token }}<|header_start|>{{ role }}<|header_end|>",
      "<|begin_of_text|><|header_start|>system<|header_end|>\n\nBe "
      "kind.<|eot|><|header_start|>user<|header_end|>\n\nHello<|eot|>"
      "<|header_start|>assistant<|header_end|>\n\nHi there<|eot|><|header_start|>user<|header_end|>\n\nWho are "
      "you<|eot|>"
      "<|header_start|>assistant<|header_end|>\n\n" },
    { "gemma", "{{ bos_token }}<start_of_turn>{{ role }}<end_of_turn>",
      "<bos><start_of_turn>user\nBe kind.\n\nHello<end_of_turn>\n<start_of_turn>model\nHi there<end_of_turn>\n"
      "<start_of_turn>user\nWho are you<end_of_turn>\n<start_of_turn>model\n" },
    { "granite", "<|start_of_role|>{{ role }}<|end_of_role|>",
      "<|start_of_role|>system<|end_of_role|>Be "
      "kind.<|end_of_text|>\n<|start_of_role|>user<|end_of_role|>Hello<|end_of_text|>\n"
      "<|start_of_role|>assistant<|end_of_role|>Hi there<|end_of_text|>\n"
      "<|start_of_role|>user<|end_of_role|> Who are you <|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>" },
    { "phi3", "{{'<|user|>\n' + content + '<|end|>\n<|assistant|>\n'}}",
      "<|system|>\nBe kind.<|end|>\n<|user|>\nHello<|end|>\n<|assistant|>\nHi there<|end|>\n<|user|>\n Who are you "
      "<|end|>\n"
      "<|assistant|>\n" },
    { "phi4", "<|im_start|>user<|im_sep|>{{ content }}<|im_end|>",
      "<|im_start|>system<|im_sep|>Be "
      "kind.<|im_end|><|im_start|>user<|im_sep|>Hello<|im_end|><|im_start|>assistant<|im_sep|>"
      "Hi there<|im_end|><|im_start|>user<|im_sep|> Who are you <|im_end|><|im_start|>assistant<|im_sep|>" },
    { "glm4", "[gMASK]<sop><|user|>\n<|assistant|>",
      "[gMASK]<sop><|system|>\nBe kind.<|user|>\nHello<|assistant|>\nHi there<|user|>\n Who are you <|assistant|>\n" },
    { "zephyr", "<|user|>\n{{ content }}{{ eos_token }}<|assistant|>",
      "<|system|>\nBe kind.</s>\n<|user|>\nHello</s>\n<|assistant|>\nHi there</s>\n<|user|>\n Who are you "
      "</s>\n<|assistant|>\n" },
    { "llama2", "{{ bos_token }}[INST] <<SYS>> [/INST]",
      "<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nHello [/INST] Hi there </s><s>[INST] Who are you [/INST]" },
    { "mistral", "{{ bos_token }}[INST] {{ content }} [/INST]",
      "<s>[INST] Be kind.\n\nHello [/INST] Hi there</s>[INST] Who are you [/INST]" },
    { "mistral3", "{{ bos_token }}[INST] {{ content }}[/INST]",
      "<s>[INST] Hello[/INST] Hi there</s>[INST] Be kind.\n\nWho are you[/INST]" },
    { "mistral7", "{{ bos_token }}[SYSTEM_PROMPT]{{ s }}[/SYSTEM_PROMPT][INST]{{ content }}[/INST]",
      "<s>[SYSTEM_PROMPT]Be kind.[/SYSTEM_PROMPT][INST]Hello[/INST]Hi there</s>[INST] Who are you [/INST]" },
    { "vicuna", "{{ 'USER: ' + content }}{{ 'ASSISTANT: ' }}",
      "Be kind.\n\nUSER: Hello\nASSISTANT: Hi there</s>\nUSER:  Who are you \nASSISTANT:" },
    { "deepseek", "{{ 'User: ' + content }}{{ 'Assistant: ' + content }}",
      "Be kind.\n\nUser: Hello\n\nAssistant: Hi there<\xef\xbd\x9c"
      "end\xe2\x96\x81of\xe2\x96\x81sentence\xef\xbd\x9c>"
      "User:  Who are you \n\nAssistant:" },
    { "plain", "something of its own", "Be kind.\n\nUser: Hello\nAssistant: Hi there\nUser: Who are you\nAssistant:" },
    { "plain", NULL, "Be kind.\n\nUser: Hello\nAssistant: Hi there\nUser: Who are you\nAssistant:" },
};

Test(chat, families)
{
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        char *text;
        size_t n;
        ht_error err;
        cr_expect_str_eq(ht_chat_family_name(families[i].tmpl), families[i].family,
                         "row %zu is taken for another family", i);
        cr_assert_eq(ht_chat_format(families[i].tmpl, talk, 4, true, &text, &n, &err), HT_OK, "%s", err.text);
        cr_expect_str_eq(text, families[i].want, "%s", families[i].family);
        cr_expect_eq(n, strlen(text));
        free(text);
        /* Without the beginning of an answer the text is a prefix. */
        cr_assert_eq(ht_chat_format(families[i].tmpl, talk, 4, false, &text, &n, &err), HT_OK, "%s", err.text);
        cr_expect(strncmp(text, families[i].want, n) == 0, "%s", families[i].family);
        free(text);
        cr_assert_eq(ht_chat_format(families[i].tmpl, NULL, 0, false, &text, &n, &err), HT_OK);
        free(text);
    }
}

Test(chat, roles)
{
    const hearth_message odd = { "wizard", "x" }, developer[] = { { "developer", "Be kind." }, { "user", "Hello" } };
    char *text;
    size_t n;
    ht_error err;
    cr_expect_eq(ht_chat_format(NULL, &odd, 1, true, &text, &n, &err), HT_EINVAL);
    cr_expect(strstr(err.text, "wizard"), "%s", err.text);
    cr_assert_eq(ht_chat_format(NULL, developer, 2, true, &text, &n, &err), HT_OK);
    cr_expect_str_eq(text, "Be kind.\n\nUser: Hello\nAssistant:");
    free(text);
}

/* The prompt that a model file makes: BOS comes once, from the template or from the tokenizer. */
Test(chat, of_a_model)
{
    hearth_model *m = util_open_golden("llama", HEARTH_PRECISION_FAST);
    hearth_model_info info = { .size = sizeof info };
    hearth_error err;
    char *text;
    size_t n, n_ids;
    hearth_token *ids;

    hearth_model_get_info(m, &info);
    cr_expect_str_eq(info.chat_family, "plain");
    cr_expect(!info.has_chat_template);
    cr_assert_eq(hearth_chat_format(m, talk, 4, true, &text, &n, &err), HEARTH_OK);
    cr_assert_eq(hearth_tokenize(m, text, n, true, true, &ids, &n_ids, &err), HEARTH_OK);
    cr_expect(n_ids > 4 && (info.bos < 0 || !info.add_bos || (ids[0] == info.bos && ids[1] != info.bos)));
    hearth_free(text);
    hearth_free(ids);
    hearth_model_close(&m);
}

/* Official templates with the text that a Jinja engine makes of them. BOS is empty in those cases, and templates that
 * are none of our families, or need tools, are told apart below. */
Test(chat, official_templates)
{
    static const char *const known[] = { "teknium/OpenHermes", "bofenghuang/vigogne", "eachadea/vicuna", "Llama-3",
                                         "ChatGLM4",           "DeepSeek-V2",         "Mistral-Large" };
    const char *path = HEARTH_SHARED_DIR "/data/chat/chat_template_golden_dev.json";
    FILE *f = fopen(path, "rb");
    if (!f)
        cr_skip_test("%s is not there: only the literal prompts were compared", path);
    fseek(f, 0, SEEK_END);
    long size = ftell(f);
    rewind(f);
    char *json = calloc(1, (size_t)size + 1);
    cr_assert_eq(fread(json, 1, (size_t)size, f), (size_t)size);
    fclose(f);
    cJSON *all = cJSON_Parse(json), *c;
    hearth_message m[16];
    size_t n = 0, seen = 0;
    cJSON_ArrayForEach(c, cJSON_GetObjectItem(all, "conversation"))
    {
        cr_assert(n < 16);
        m[n].role = cJSON_GetObjectItem(c, "role")->valuestring;
        m[n++].content = cJSON_GetObjectItem(c, "content")->valuestring;
    }
    cJSON_ArrayForEach(c, cJSON_GetObjectItem(all, "cases"))
    {
        const char *name = cJSON_GetObjectItem(c, "name")->valuestring;
        bool ours = false;
        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
            ours |= strncmp(name, known[i], strlen(known[i])) == 0;
        if (!ours)
            continue;
        char *text, *out;
        size_t len;
        ht_error err;
        cr_assert_eq(ht_chat_format(cJSON_GetObjectItem(c, "template")->valuestring, m, n, true, &text, &len, &err),
                     HT_OK);
        out = text; /* without our BOS marks */
        for (const char *from = text;;) {
            size_t skip = strncmp(from, "<s>", 3) == 0 ? 3 : strncmp(from, "<|begin_of_text|>", 17) == 0 ? 17 : 0;
            from += skip;
            if (skip)
                continue;
            if (!(*out++ = *from++))
                break;
        }
        cr_expect_str_eq(text, cJSON_GetObjectItem(c, "expected_jinja")->valuestring, "%s", name);
        free(text);
        seen++;
    }
    cr_expect_eq(seen, sizeof known / sizeof *known);
    cJSON_Delete(all);
    free(json);
}
