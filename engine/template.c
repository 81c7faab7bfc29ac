/* SPDX-License-Identifier: MIT
 * Prompts of conversations and tool calls of answers behind hearth.h; see template.h. */
#include "engine/template.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/jinja.h"
#include "engine/objects.h"

const char ht_template_plain[] =
    "{% for m in messages %}"
    "{% if m.role == 'system' or m.role == 'developer' %}{{ m.content | trim }}{{ '\\n\\n' }}"
    "{% elif m.role == 'user' %}User: {{ m.content | trim }}{{ '\\n' }}"
    "{% elif m.role == 'assistant' %}Assistant: {{ m.content | trim }}{{ '\\n' }}"
    "{% else %}{{ raise_exception('without a chat template there is no role \"' ~ m.role ~ '\"') }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}";

enum { N_VARS = 4 };

/* Texts of the model's special tokens under the names that templates use; to be freed. */
static ht_status token_texts(const hearth_model *m, ht_jinja_var *vars, ht_error *err)
{
    static const char *const names[N_VARS] = { "bos_token", "eos_token", "unk_token", "pad_token" };
    ht_token ids[N_VARS] = { -1, -1, -1, -1 };
    if (m && m->tok) {
        const ht_vocab_info *v = ht_tokenizer_info(m->tok);
        ids[0] = v->bos;
        ids[1] = v->eos;
        ids[2] = v->unk;
        ids[3] = v->pad;
    }
    for (int i = 0; i < N_VARS; i++) {
        const char *bytes = "";
        size_t n = ids[i] >= 0 ? ht_tokenizer_piece(m->tok, ids[i], true, &bytes) : 0;
        char *s = NULL;
        if (ids[i] >= 0) {
            s = malloc(n + 1);
            if (!s)
                return ht_fail(err, HT_ENOMEM, "text of a token");
            memcpy(s, bytes, n);
            s[n] = 0;
        }
        vars[i] = (ht_jinja_var){ names[i], s };
    }
    return HT_OK;
}

/* The template to take: that of the params, a named one of the model, or the model's own. */
static ht_status choose(const hearth_model *m, const hearth_template_params *p, ht_jinja_input *in, ht_error *err)
{
    if (p->text) {
        in->text = p->text;
        in->n_text = p->n_text;
        return HT_OK;
    }
    if (p->name && m) {
        ht_str s = { NULL, 0 };
        char key[200] = "tokenizer.chat_template.";
        if (strlen(p->name) < 100)
            strcat(key, p->name);
        if (ht_gguf_str(m->gguf, key, &s, NULL) != HT_OK || !s.s)
            return ht_fail(err, HT_EINVAL, "the file has no chat template named \"%.60s\"", p->name);
        in->text = s.s;
        in->n_text = s.n;
        return HT_OK;
    }
    in->text = m && m->chat_template ? m->chat_template : ht_template_plain;
    in->n_text = strlen(in->text);
    return HT_OK;
}

static ht_status render(const hearth_model *m, const hearth_template_params *p, const char *const *roles,
                        const char *const *contents, size_t n_messages, char **text, size_t *n, ht_error *err)
{
    ht_jinja_input in = { .json = p->json, .n_json = p->n_json, .roles = roles, .contents = contents, .n_messages = n_messages,
                          .tools = p->tools, .generation = p->add_generation_prompt };
    ht_jinja_limits limits = { .steps = p->max_steps, .bytes = p->max_bytes, .now = p->now ? p->now : (int64_t)time(NULL) };
    ht_jinja_var vars[N_VARS] = { 0 };
    ht_status st = choose(m, p, &in, err);
    if (st == HT_OK && (st = token_texts(m, vars, err)) == HT_OK) {
        in.vars = vars;
        in.n_vars = N_VARS;
        st = ht_jinja_render(&in, &limits, text, n, err);
    }
    for (int i = 0; i < N_VARS; i++)
        free((char *)vars[i].text);
    return st;
}

hearth_status hearth_template_render(const hearth_model *m, const hearth_template_params *params, char **text, size_t *n,
                                     hearth_error *error)
{
    ht_error *err = ht_err(error);
    hearth_template_params p = HEARTH_TEMPLATE_PARAMS_INIT;
    ht_status st;

    HT_PARAMS(&p, params);
    if (!m && !p.text)
        return (hearth_status)ht_fail(err, HT_EINVAL, "neither a model nor a template is given");
    if (!p.json && !p.messages)
        return (hearth_status)ht_fail(err, HT_EINVAL, "no conversation is given");
    const char **both = p.messages ? malloc((2 * p.n_messages + 1) * sizeof *both) : NULL;
    if (p.messages && !both)
        return (hearth_status)ht_fail(err, HT_ENOMEM, "%zu messages", p.n_messages);
    for (size_t i = 0; p.messages && i < p.n_messages; i++) {
        both[i] = p.messages[i].role ? p.messages[i].role : "";
        both[p.n_messages + i] = p.messages[i].content ? p.messages[i].content : "";
    }
    st = render(m, &p, both, both ? both + p.n_messages : NULL, p.n_messages, text, n, err);
    free(both);
    return (hearth_status)st;
}

/* The system message as the beginning of the first user message, for templates that know no system role. */
static ht_status folded(const hearth_model *m, const hearth_message *messages, size_t n_messages,
                        const hearth_template_params *how, char **text, size_t *n, ht_error *err)
{
    hearth_template_params p = *how;
    const size_t a = strlen(messages[0].content), b = strlen(messages[1].content);
    hearth_message *rest = malloc((n_messages - 1) * sizeof *rest);
    char *both = malloc(a + b + 3);
    ht_status st = HT_ENOMEM;
    if (rest && both) {
        memcpy(both, messages[0].content, a);
        memcpy(both + a, "\n\n", 2);
        memcpy(both + a + 2, messages[1].content, b + 1);
        memcpy(rest, messages + 1, (n_messages - 1) * sizeof *rest);
        rest[0].content = both;
        p.messages = rest;
        p.n_messages = n_messages - 1;
        st = (ht_status)hearth_template_render(m, &p, text, n, (hearth_error *)err);
    } else {
        ht_fail(err, HT_ENOMEM, "prompt of %zu messages", n_messages);
    }
    free(rest);
    free(both);
    return st;
}

hearth_status hearth_chat_format(const hearth_model *m, const hearth_message *messages, size_t n_messages,
                                 bool add_generation_prompt, char **text, size_t *n, hearth_error *error)
{
    static const hearth_message none[1];
    hearth_template_params p = HEARTH_TEMPLATE_PARAMS_INIT;
    p.messages = messages ? messages : none;
    p.n_messages = n_messages;
    p.add_generation_prompt = add_generation_prompt;
    hearth_status st = hearth_template_render(m, &p, text, n, error);
    if (st != HEARTH_EINVAL || !messages || n_messages < 2 || !messages[0].content || !messages[1].content || strcmp(messages[0].role, "system") != 0 ||
        strcmp(messages[1].role, "user") != 0)
        return st;
    /* If that is refused too, the first refusal is what counts. */
    ht_error other = { 0 };
    return folded(m, messages, n_messages, &p, text, n, &other) == HT_OK ? HEARTH_OK : st;
}

hearth_status hearth_tool_calls(const hearth_model *m, const char *family, const char *text, size_t n, char **json,
                                size_t *n_json, hearth_error *error)
{
    const char *tmpl = m && m->chat_template ? m->chat_template : "";
    return (hearth_status)ht_tool_calls(family ? family : ht_tool_family(tmpl, strlen(tmpl)), text, n, json, n_json,
                                        ht_err(error));
}

const char *hearth_tool_family(const char *chat_template, size_t n) { return ht_tool_family(chat_template, n); }
