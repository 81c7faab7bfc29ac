/* SPDX-License-Identifier: MIT
 *
 * Chat templates: what jinja2 made of the templates of tests/data/template/golden.json (tools/gen/jinja.py writes it) and of the
 * given cases where the shared folder is at hand, bounds, and templates that are damaged at random. */
#include <cjson/cJSON.h>

#include "engine/jinja.h"
#include "tests/engine/engine_util.h"

static ht_status render(const char *tmpl, size_t n, const char *json, int64_t now, uint64_t steps, char **text, size_t *len,
                        ht_error *err)
{
    ht_jinja_input in = { .text = tmpl, .n_text = n, .json = json, .n_json = json ? strlen(json) : 0 };
    ht_jinja_limits limits = { .now = now, .steps = steps };
    *text = NULL;
    return ht_jinja_render(&in, &limits, text, len, err);
}

static cJSON *read_json(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return NULL;
    fseek(f, 0, SEEK_END);
    long size = ftell(f);
    rewind(f);
    char *s = calloc(1, (size_t)size + 1);
    cr_assert_eq(fread(s, 1, (size_t)size, f), (size_t)size);
    fclose(f);
    cJSON *j = cJSON_Parse(s);
    free(s);
    cr_assert(j, "%s is no JSON", path);
    return j;
}

static const char *text_of(const cJSON *c, const char *name) { return cJSON_GetStringValue(cJSON_GetObjectItem(c, name)); }

Test(jinja, golden)
{
    cJSON *all = read_json(HEARTH_TEST_DATA "/template/golden.json"), *c;
    cr_assert(all);
    int64_t now = (int64_t)cJSON_GetNumberValue(cJSON_GetObjectItem(all, "now"));
    const char *variables = text_of(all, "variables");
    size_t seen = 0;
    cJSON_ArrayForEach(c, cJSON_GetObjectItem(all, "cases"))
    {
        const char *tmpl = text_of(c, "template"), *want = text_of(c, "want");
        char *text;
        size_t n = 0;
        ht_error err = { 0 };
        ht_status st = render(tmpl, strlen(tmpl), variables, now, 0, &text, &n, &err);
        seen++;
        if (!want) {
            cr_expect_neq(st, HT_OK, "%s was rendered; jinja2: %s", tmpl, text_of(c, "fails"));
            cr_expect(strstr(err.text, "line ") && err.text[0], "%s: no line in \"%s\"", tmpl, err.text);
        } else if (st != HT_OK) {
            cr_expect(false, "%s: %s", tmpl, err.text);
        } else {
            cr_expect_str_eq(text, want, "%s: \"%s\", jinja2 \"%s\"", tmpl, text, want);
            cr_expect_eq(n, strlen(want));
        }
        free(text);
    }
    cr_expect_gt(seen, 100);
    cJSON_Delete(all);
}

/* Cases of another engine's tests; those that jinja2 itself answers otherwise are marked. */
Test(jinja, given_cases)
{
    const char *path = HEARTH_SHARED_DIR "/data/chat/jinja_golden_dev.json";
    cJSON *all = read_json(path), *c;
    if (!all)
        cr_skip_test("%s is not there", path);
    cJSON_ArrayForEach(c, all)
    {
        const char *tmpl = text_of(c, "template"), *want = text_of(c, "expect");
        char *text, *vars = cJSON_PrintUnformatted(cJSON_GetObjectItem(c, "vars"));
        size_t n = 0;
        ht_error err = { 0 };
        ht_status st = render(tmpl, strlen(tmpl), vars, 0, 0, &text, &n, &err);
        if (cJSON_IsTrue(cJSON_GetObjectItem(c, "python_jinja_agrees"))) {
            cr_expect_eq(st, HT_OK, "%s: %s", tmpl, err.text);
            cr_expect(text && strcmp(text, want) == 0, "%s: \"%s\", not \"%s\"", tmpl, text ? text : "", want);
        } else {
            cr_expect_neq(st, HT_OK, "%s", tmpl);
        }
        cJSON_free(vars);
        free(text);
    }
    cJSON_Delete(all);
}

Test(jinja, given_templates)
{
    const char *path = HEARTH_SHARED_DIR "/data/chat/chat_template_golden_dev.json";
    cJSON *all = read_json(path), *c, *m;
    size_t seen = 0;
    if (!all)
        cr_skip_test("%s is not there", path);
    cJSON_ArrayForEach(c, cJSON_GetObjectItem(all, "cases"))
    {
        cJSON *vars = cJSON_CreateObject(), *messages = cJSON_Duplicate(cJSON_GetObjectItem(all, "conversation"), true);
        cJSON_ArrayForEach(m, cJSON_GetObjectItem(c, "extra_conversation"))
            cJSON_AddItemToArray(messages, cJSON_Duplicate(m, true));
        cJSON_AddItemToObject(vars, "messages", messages);
        cJSON_AddTrueToObject(vars, "add_generation_prompt");
        cJSON_AddStringToObject(vars, "bos_token", text_of(c, "bos"));
        cJSON_AddStringToObject(vars, "eos_token", text_of(c, "eos"));
        char *text, *json = cJSON_PrintUnformatted(vars);
        const char *tmpl = text_of(c, "template");
        size_t n = 0;
        ht_error err = { 0 };
        ht_status st = render(tmpl, strlen(tmpl), json, 0, 0, &text, &n, &err);
        if (cJSON_IsTrue(cJSON_GetObjectItem(c, "python_jinja_agrees"))) {
            cr_expect_eq(st, HT_OK, "%s: %s", text_of(c, "name"), err.text);
            cr_expect(text && strcmp(text, text_of(c, "expected_jinja")) == 0, "%s", text_of(c, "name"));
            seen++;
        }
        cJSON_Delete(vars);
        cJSON_free(json);
        free(text);
    }
    cr_expect_geq(seen, 8);
    cJSON_Delete(all);
}

/* What never ends, or would take all memory or the whole stack. */
Test(jinja, bounded)
{
    static const struct {
        const char *tmpl, *says;
    } rows[] = {
        { "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "deeper" },
        { "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}", "takes more than" },
        { "{{ 'x' * 99999999999 }}", "memory" },
        { "{{ [1] * 9999999999 }}", "memory" },
        { "{% set ns = namespace(s='x') %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}", "memory" },
        { "{{ range(0, 9999999999) | list }}", "Range too big" },
        { "{{ '%999999999d' % 1 }}", "" },
        { "{{ 'x'.center(9999999999) }}", "memory" },
        { "{{ 9223372036854775807 + 1 }}", "64 bits" },
        { "{{ 2 ** 200 }}", "64 bits" },
        { "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}", "deeper" },
        { "{% set ns = namespace() %}{% set ns.a = [ns] %}{{ ns.a == [ns] }}{{ ns.a | tojson }}", "tojson" },
        { "{% set ns = namespace(l=[]) %}{% for i in range(3000) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l }}", "deeper" },
        { "{% set ns = namespace(t=(1,)) %}{% for i in range(90000) %}{% set ns.t = (ns.t,) %}{% endfor %}{{ {ns.t: 1} }}", "deeper" },
        { "{% for v in [1] recursive %}{{ loop([1]) }}{% endfor %}", "deeper" },
    };
    char *text;
    size_t n;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        ht_error err = { 0 };
        cr_expect_neq(render(rows[i].tmpl, strlen(rows[i].tmpl), NULL, 0, 0, &text, &n, &err), HT_OK, "%s", rows[i].tmpl);
        cr_expect(strstr(err.text, rows[i].says) && strstr(err.text, "line 1"), "%s: %s", rows[i].tmpl, err.text);
    }
    static const char *const nests[][2] = { { "(", ")" }, { "[", "]" }, { "not ", "" }, { "-", "" }, { "f(", ")" }, { "x[", "]" } };
    for (size_t i = 0; i < sizeof nests / sizeof *nests; i++) {
        char *deep = calloc(1, 60010);
        ht_error err = { 0 };
        strcpy(deep, "{{ ");
        char *at = deep + 3;
        for (int k = 0; k < 10000; k++)
            at = stpcpy(at, nests[i][0]);
        cr_expect_neq(render(deep, strlen(deep), NULL, 0, 0, &text, &n, &err), HT_OK);
        cr_expect(strstr(err.text, "deep"), "%s: %s", nests[i][0], err.text);
        free(deep);
    }
    static const char *const chains[] = { "+1", ".a", "[0]", "|e", " if 1 else 1", " and 1", " is odd", "~1", "<1" };
    for (size_t i = 0; i < sizeof chains / sizeof *chains; i++) {
        char *longer = calloc(1, 200010), *at = stpcpy(longer, "{{ 1");
        ht_error err = { 0 };
        for (int k = 0; k < 12000; k++)
            at = stpcpy(at, chains[i]);
        strcpy(at, " }}");
        render(longer, strlen(longer), NULL, 0, 0, &text, &n, &err); /* a text or a sentence */
        free(text);
        free(longer);
    }
    ht_error err = { 0 };
    cr_expect_neq(render("{% for i in range(1000) %}x{% endfor %}", 39, NULL, 0, 100, &text, &n, &err), HT_OK);
    cr_expect(strstr(err.text, "100 steps"), "%s", err.text);
}

Test(jinja, says_where)
{
    char *text;
    size_t n;
    ht_error err = { 0 };
    static const char tmpl[] = "a\n{% if true %}\n{{ messages[0].role }}\n{% endif %}\n{{ raise_exception('alternate!') }}";
    cr_expect_eq(render(tmpl, sizeof tmpl - 1, "{\"messages\": [{\"role\": \"user\"}]}", 0, 0, &text, &n, &err), HT_EINVAL);
    cr_expect_str_eq(err.text, "the chat template refuses (line 5): alternate!");
    static const char unknown[] = "a\n\n{% trans %}x{% endtrans %}";
    cr_expect_eq(render(unknown, sizeof unknown - 1, NULL, 0, 0, &text, &n, &err), HT_EUNSUPPORTED);
    cr_expect_str_eq(err.text, "chat template, line 3: the statement 'trans' is not known here");
    static const char *const jsons[] = { "", "{", "[1", "{\"a\" 1}", "{\"a\":}", "{a: 1}", "[1,]", "nul", "\"\x01\"", "\"\\q\"", "1 2",
                                         "3", "01", "NaN", "\"abc", "{\"a\":1,}", "[\"\\ud8\"]" };
    for (size_t i = 0; i < sizeof jsons / sizeof *jsons; i++)
        cr_expect_eq(render("x", 1, jsons[i], 0, 0, &text, &n, &err), HT_EFORMAT, "%s", jsons[i]);
    char deep[1000];
    memset(deep, '[', sizeof deep - 1);
    deep[sizeof deep - 1] = 0;
    cr_expect_eq(render("x", 1, deep, 0, 0, &text, &n, &err), HT_EFORMAT);
    cr_expect(strstr(err.text, "deeper"), "%s", err.text);
}

/* Golden templates with bytes changed, doubled or left out: a text or a sentence, never more. */
Test(jinja, damaged)
{
    cJSON *all = read_json(HEARTH_TEST_DATA "/template/golden.json");
    cJSON *cases = cJSON_GetObjectItem(all, "cases");
    const char *variables = text_of(all, "variables");
    static const char bits[] = "{}%#-+()[]|'\".,:~*/<>=! \n\\0127aefilnorst_\xC3\xFF";
    uint64_t r = 88172645463325252u;
    const int n_cases = cJSON_GetArraySize(cases), rounds = HEARTH_TEST_SANITIZE[0] ? 3000 : 20000;
    for (int i = 0; i < rounds; i++) {
        char tmpl[2000], *text;
        size_t n = 0;
        ht_error err = { 0 };
        r ^= r << 13, r ^= r >> 7, r ^= r << 17;
        const char *from = text_of(cJSON_GetArrayItem(cases, (int)(r % (uint64_t)n_cases)), "template");
        size_t len = strlen(from) < 1500 ? strlen(from) : 1500;
        memcpy(tmpl, from, len);
        for (uint64_t k = r >> 20 & 3; len && k < 4; k++) {
            r ^= r << 13, r ^= r >> 7, r ^= r << 17;
            size_t at = (r >> 8) % len, m = (r >> 40) % 20;
            if (r % 3 == 0) {
                tmpl[at] = bits[(r >> 32) % (sizeof bits - 1)];
            } else if (r % 3 == 1) {
                m = m > len - at ? len - at : m;
                memmove(tmpl + at, tmpl + at + m, len - at - m);
                len -= m;
            } else if (at >= m) {
                memmove(tmpl + at + m, tmpl + at, len - at);
                memcpy(tmpl + at, tmpl + at - m, m);
                len += m;
            }
        }
        ht_status st = render(tmpl, len, variables, 0, 200000, &text, &n, &err);
        cr_assert(st == HT_OK ? text != NULL : err.text[0] != 0);
        free(text);
    }
    cJSON_Delete(all);
}
