/* SPDX-License-Identifier: MIT
 * template: conversations as an array and as an object, templates of one's own, what wins over what, refusals and exit status. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/tools/command.h"

static void file_of(char *path, const char *text)
{
    strcpy(path, "/tmp/hearth-template-XXXXXX");
    int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
}

static outcome with(const char *tmpl, const char *json)
{
    char t[40], j[40];
    file_of(t, tmpl);
    file_of(j, json);
    outcome o = command_run("template", "-f", j, "--template", t);
    unlink(t);
    unlink(j);
    return o;
}

Test(template, prompts)
{
    shipped_model();
    outcome o = with("{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}>{% endif %}",
                     "[{\"role\": \"user\", \"content\": \"hi\\n\"}]");
    cr_assert_eq(o.status, 0, "%s", o.err);
    cr_expect(strstr(o.out, "[user]hi\n") && o.out[o.n_out - 1] == '\n', "%s", o.out);
    outcome_free(&o);
    o = with("{{ bos_token }}{{ x.y }}{{ tools is defined }}{% if add_generation_prompt %}>{% endif %}",
             "{\"messages\": [], \"bos_token\": \"<B>\", \"x\": {\"y\": 1.0}, \"add_generation_prompt\": true}");
    cr_assert_eq(o.status, 0, "%s", o.err);
    cr_expect_str_eq(o.out, "<B>1.0False>");
    outcome_free(&o);
}

Test(template, without_one)
{
    shipped_model();
    static const char talk[] = "[{\"role\": \"user\", \"content\": \" hi \"}]";
    circumstances pipe = { .input = talk, .n_input = sizeof talk - 1 };
    outcome o = command_run_with(&pipe, "template", "-", "--generation-prompt", "--json");
    cr_assert_eq(o.status, 0, "%s", o.err);
    cJSON *j = outcome_json(&o);
    cr_expect(cJSON_GetStringValue(cJSON_GetObjectItem(j, "text")));
    cJSON_Delete(j);
    outcome_free(&o);
}

Test(template, refusals)
{
    shipped_model();
    outcome o = with("a\n{{ raise_exception('roles must alternate') }}", "[]");
    cr_expect_eq(o.status, 1);
    cr_expect_eq(o.n_out, 0);
    cr_expect(strstr(o.err, "roles must alternate") && strstr(o.err, "line 2"), "%s", o.err);
    outcome_free(&o);
    o = with("{% nosuch %}", "[]");
    cr_expect_eq(o.status, 1);
    cr_expect(strstr(o.err, "nosuch") && strstr(o.err, "line 1"), "%s", o.err);
    outcome_free(&o);
    o = with("x", "[1,");
    cr_expect_eq(o.status, 1);
    cr_expect(strstr(o.err, "JSON"), "%s", o.err);
    outcome_free(&o);
    o = command_run("template");
    cr_expect_eq(o.status, 2);
    outcome_free(&o);
    o = command_run("template", "-f", "/nowhere/chat.json");
    cr_expect_eq(o.status, 1);
    outcome_free(&o);
}
