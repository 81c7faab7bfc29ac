/* SPDX-License-Identifier: MIT
 * Answers taken apart: tool calls in the formats of model families, thoughts, and what only looks like a call. */
#include "engine/template.h"
#include "tests/engine/engine_util.h"

#define BAR "\xEF\xBD\x9C"
#define LOW "\xE2\x96\x81"
#define OSLO "{\"content\": \"\", \"tool_calls\": [{\"name\": \"f\", \"arguments\": {\"city\": \"Oslo\", \"n\": 2}}]}"

static const struct {
    const char *family, *text, *want;
} rows[] = {
    { "none", "plain {\"name\": 1}", "{\"content\": \"plain {\\\"name\\\": 1}\"}" },
    { "hermes", "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"city\": \"Oslo\", \"n\": 2}}\n</tool_call>", OSLO },
    { "hermes", "<think>\nhm\n</think>\n\nI look.\n<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>\n<tool_call>{\"name\": \"g\", \"arguments\": \"{\\\"a\\\": 1}\"}",
      "{\"content\": \"I look.\", \"reasoning_content\": \"hm\", \"tool_calls\": [{\"name\": \"f\", \"arguments\": {}}, {\"name\": \"g\", \"arguments\": {\"a\": 1}}]}" },
    { "hermes", "said <tool_call>nothing</tool_call>", "{\"content\": \"said <tool_call>nothing</tool_call>\"}" },
    { "hermes", "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\":", "{\"content\": \"<tool_call>{\\\"name\\\": \\\"f\\\", \\\"arguments\\\": {\\\"a\\\":\"}" },
    { "qwen3-coder", "<tool_call>\n<function=f>\n<parameter=city>\nOslo\n</parameter>\n<parameter=n>\n2\n</parameter>\n</function>\n</tool_call>", OSLO },
    { "seed", "<seed:tool_call>\n<function=f><parameter=city>Oslo</parameter><parameter=n>2</parameter></function>\n</seed:tool_call>", OSLO },
    { "minimax", "<minimax:tool_call>\n<invoke name=\"f\">\n<parameter name=\"city\">Oslo</parameter>\n<parameter name=\"n\">2</parameter>\n</invoke>\n</minimax:tool_call>", OSLO },
    { "glm4.5", "<tool_call>f\n<arg_key>city</arg_key>\n<arg_value>Oslo</arg_value>\n<arg_key>n</arg_key>\n<arg_value>2</arg_value>\n</tool_call>", OSLO },
    { "chatglm4", "f\n{\"city\": \"Oslo\", \"n\": 2}", OSLO },
    { "chatglm4", "Hello\nyou {\"a\": 1}", "{\"content\": \"Hello\\nyou {\\\"a\\\": 1}\"}" },
    { "llama3", "{\"name\": \"f\", \"parameters\": {\"city\": \"Oslo\", \"n\": 2}}<|eom_id|>", OSLO },
    { "llama3", "<|python_tag|>{\"name\": \"f\", \"parameters\": {\"city\": \"Oslo\", \"n\": 2}}", OSLO },
    { "llama3", "<|python_tag|>f.call(city=\"Oslo\", n=2)<|eom_id|>", OSLO },
    { "llama3", "<function=f>{\"city\": \"Oslo\", \"n\": 2}</function>", OSLO },
    { "llama3", "{ is a brace", "{\"content\": \"{ is a brace\"}" },
    { "pythonic", "[f(city='Oslo', n=2), a.g(x=[1, {'k': None}], y=True)]",
      "{\"content\": \"\", \"tool_calls\": [{\"name\": \"f\", \"arguments\": {\"city\": \"Oslo\", \"n\": 2}}, {\"name\": \"a.g\", \"arguments\": {\"x\": [1, {\"k\": null}], \"y\": true}}]}" },
    { "pythonic", "[f(range)]", "{\"content\": \"[f(range)]\"}" },
    { "pythonic", "[f(x=raise_exception('no'))]", "{\"content\": \"[f(x=raise_exception('no'))]\"}" },
    { "lfm2", "<|tool_call_start|>[f(city=\"Oslo\", n=2)]<|tool_call_end|>", OSLO },
    { "mistral", "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"city\": \"Oslo\", \"n\": 2}}]", OSLO },
    { "mistral", "[TOOL_CALLS]f[CALL_ID]abc123def[ARGS]{\"n\": 2}[TOOL_CALLS]g[ARGS]{}",
      "{\"content\": \"\", \"tool_calls\": [{\"name\": \"f\", \"arguments\": {\"n\": 2}, \"id\": \"abc123def\"}, {\"name\": \"g\", \"arguments\": {}}]}" },
    { "deepseek", "<" BAR "tool" LOW "calls" LOW "begin" BAR "><" BAR "tool" LOW "call" LOW "begin" BAR ">function<" BAR "tool" LOW "sep" BAR ">f\n```json\n{\"city\": \"Oslo\", \"n\": 2}\n```<" BAR "tool" LOW "call" LOW "end" BAR "><" BAR "tool" LOW "calls" LOW "end" BAR ">", OSLO },
    { "deepseek", "<" BAR "tool" LOW "calls" LOW "begin" BAR "><" BAR "tool" LOW "call" LOW "begin" BAR ">f<" BAR "tool" LOW "sep" BAR ">{\"city\": \"Oslo\", \"n\": 2}<" BAR "tool" LOW "call" LOW "end" BAR ">", OSLO },
    { "kimi", "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{\"n\": 2}<|tool_call_end|><|tool_calls_section_end|>",
      "{\"content\": \"\", \"tool_calls\": [{\"name\": \"f\", \"arguments\": {\"n\": 2}, \"id\": \"functions.f:0\"}]}" },
    { "harmony", "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{\"city\": \"Oslo\", \"n\": 2}<|call|>",
      "{\"content\": \"\", \"reasoning_content\": \"hm\", \"tool_calls\": [{\"name\": \"f\", \"arguments\": {\"city\": \"Oslo\", \"n\": 2}}]}" },
    { "harmony", "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Yes.<|return|>",
      "{\"content\": \"Yes.\", \"reasoning_content\": \"hm\"}" },
    { "granite", "<|tool_call|>[{\"name\": \"f\", \"arguments\": {\"city\": \"Oslo\", \"n\": 2}}]", OSLO },
    { "granite", "<|tool_call|>[{\"name\": \"f\", \"arguments\": {\"city\": \"Oslo\", \"n\": 2}}]<|/tool_call|>", OSLO },
    { "command-r", "<|START_ACTION|>[{\"tool_call_id\": \"0\", \"tool_name\": \"f\", \"parameters\": {}}]<|END_ACTION|>",
      "{\"content\": \"\", \"tool_calls\": [{\"name\": \"f\", \"arguments\": {}, \"id\": \"0\"}]}" },
    { "nemotron", "<TOOLCALL>[{\"name\": \"f\", \"arguments\": {\"city\": \"Oslo\", \"n\": 2}}]</TOOLCALL>", OSLO },
    { "yandex", "[TOOL_CALL_START]f\n{\"city\": \"Oslo\", \"n\": 2}", OSLO },
    { "functionary", ">>>all\nLet me see.\n>>>f\n{\"n\": 2}", "{\"content\": \"Let me see.\", \"tool_calls\": [{\"name\": \"f\", \"arguments\": {\"n\": 2}}]}" },
};

Test(toolcall, formats)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *json = NULL;
        size_t n = 0;
        ht_error err = { 0 };
        cr_assert_eq(ht_tool_calls(rows[i].family, rows[i].text, strlen(rows[i].text), &json, &n, &err), HT_OK, "%s", err.text);
        cr_expect_str_eq(json, rows[i].want, "row %zu, %s: %s, not %s", i, rows[i].family, json, rows[i].want);
        cr_expect_eq(n, strlen(json));
        free(json);
        /* Every beginning of it is an answer too, as it stands while it streams. */
        for (size_t k = 0; k < strlen(rows[i].text); k++) {
            cr_assert_eq(ht_tool_calls(rows[i].family, rows[i].text, k, &json, &n, &err), HT_OK, "%s", err.text);
            free(json);
        }
    }
    char *json;
    size_t n;
    ht_error err = { 0 };
    cr_expect_eq(ht_tool_calls("elvish", "x", 1, &json, &n, &err), HT_EINVAL);
    cr_expect(strstr(err.text, "elvish"));
}

Test(toolcall, families_of_templates)
{
    static const char *const found[][2] = {
        { "{{ '<tool_call>' }}", "hermes" }, { "<tool_call><function=x><parameter=y>", "qwen3-coder" },
        { "<tool_call><arg_key>", "glm4.5" }, { "[TOOL_CALLS]", "mistral" }, { "<|start|><|channel|><|message|>", "harmony" },
        { "<|tool_call|>", "granite" }, { "<|python_tag|>", "llama3" }, { "{{ x }}", "none" }, { "", "none" },
        { "<" BAR "tool" LOW "call" LOW "begin" BAR ">", "deepseek" }, { "[TOOL_CALL_START]", "yandex" },
        { "[gMASK]<sop>{{ item['tools'] }}", "chatglm4" },
    };
    for (size_t i = 0; i < sizeof found / sizeof *found; i++)
        cr_expect_str_eq(ht_tool_family(found[i][0], strlen(found[i][0])), found[i][1], "%s", found[i][0]);
}

/* A call that a template writes is read back: name and arguments as they were. */
Test(toolcall, round_trip)
{
    static const char *const templates[][2] = {
        { "hermes", "{% for c in calls %}<tool_call>\n{{ c | tojson }}\n</tool_call>{% endfor %}" },
        { "mistral", "[TOOL_CALLS] {{ calls | tojson }}" },
        { "granite", "<|tool_call|>{{ calls | tojson }}" },
        { "glm4.5", "{% for c in calls %}<tool_call>{{ c.name }}\n{% for k, v in c.arguments.items() %}<arg_key>{{ k }}</arg_key>\n<arg_value>{{ v if v is string else v | tojson }}</arg_value>\n{% endfor %}</tool_call>{% endfor %}" },
        { "qwen3-coder", "{% for c in calls %}<tool_call>\n<function={{ c.name }}>\n{% for k, v in c.arguments.items() %}<parameter={{ k }}>\n{{ v if v is string else v | tojson }}\n</parameter>\n{% endfor %}</function>\n</tool_call>{% endfor %}" },
        { "yandex", "{% for c in calls %}[TOOL_CALL_START]{{ c.name }}\n{{ c.arguments | tojson }}{% endfor %}" },
    };
    static const char call[] = "{\"name\": \"look_up\", \"arguments\": {\"text\": \"Z\xC3\xBCrich & \\\"so\\\"\\nline\", \"n\": -1.5, \"deep\": {\"l\": [1, null, true]}, \"e\": \"\"}}";
    char vars[1000], want[1000];
    snprintf(vars, sizeof vars, "{\"calls\": [%s, %s]}", call, call);
    snprintf(want, sizeof want, "{\"content\": \"\", \"tool_calls\": [%s, %s]}", call, call);
    for (size_t i = 0; i < sizeof templates / sizeof *templates; i++) {
        hearth_template_params p = HEARTH_TEMPLATE_PARAMS_INIT;
        hearth_error err = { 0 };
        char *text = NULL, *json = NULL;
        size_t n = 0, n_json = 0;
        p.text = templates[i][1];
        p.n_text = strlen(p.text);
        p.json = vars;
        p.n_json = strlen(vars);
        cr_assert_eq(hearth_template_render(NULL, &p, &text, &n, &err), HEARTH_OK, "%s", err.text);
        cr_assert_eq(hearth_tool_calls(NULL, templates[i][0], text, n, &json, &n_json, &err), HEARTH_OK, "%s", err.text);
        cr_expect_str_eq(json, want, "%s: %s, not %s", templates[i][0], json, want);
        hearth_free(text);
        hearth_free(json);
    }
}
