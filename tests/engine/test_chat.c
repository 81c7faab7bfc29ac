/* SPDX-License-Identifier: MIT
 *
 * Prompts of conversations of models without a template; templates are tested in test_jinja.c and test_template.c. */
#include "tests/engine/engine_util.h"

static const hearth_message talk[] = {
    { "system", "Be kind." },
    { "user", "Hello" },
    { "assistant", "Hi there" },
    { "user", " Who are you " },
};

static char *format(const hearth_model *m, const hearth_message *messages, size_t n_messages, hearth_status want,
                    hearth_error *err)
{
    char *text = NULL;
    size_t n = 0;
    cr_assert_eq(hearth_chat_format(m, messages, n_messages, true, &text, &n, err), want, "%s", err->text);
    return text;
}

/* Without a template of its own a model gets the plain form. */
Test(chat, plain)
{
    const hearth_message odd = { "wizard", "x" }, developer[] = { { "developer", "Be kind." }, { "user", "Hello" } };
    hearth_model *m = util_open_golden("llama", HEARTH_PRECISION_FAST);
    hearth_error err = { 0 };
    char *text = format(m, talk, 4, HEARTH_OK, &err);
    cr_expect_str_eq(text, "Be kind.\n\nUser: Hello\nAssistant: Hi there\nUser: Who are you\nAssistant:");
    hearth_free(text);
    text = format(m, developer, 2, HEARTH_OK, &err);
    cr_expect_str_eq(text, "Be kind.\n\nUser: Hello\nAssistant:");
    hearth_free(text);
    format(m, &odd, 1, HEARTH_EINVAL, &err);
    cr_expect(strstr(err.text, "wizard"), "%s", err.text);
    hearth_model_close(&m);
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
