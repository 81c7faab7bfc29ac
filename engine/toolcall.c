/* SPDX-License-Identifier: MIT
 * Calls of tools in answers, by the formats that model families were trained on; see template.h.
 *
 *   hermes       <tool_call>{"name": N, "arguments": {…}}</tool_call>         (Hermes, Qwen 2.5, Qwen 3, SmolLM 3)
 *   qwen3-coder  <tool_call><function=N><parameter=P>V</parameter></function></tool_call>
 *   seed         the same within <seed:tool_call>
 *   minimax      <invoke name="N"><parameter name="P">V</parameter></invoke>
 *   glm4.5       <tool_call>N<arg_key>P</arg_key><arg_value>V</arg_value></tool_call>
 *   chatglm4     N and a line end, then {…}
 *   llama3       {"name": N, "parameters": {…}}, after <|python_tag|> or alone; <function=N>{…}</function>; N.call(a="b")
 *   pythonic     [N(a="b"), …]                                                (Llama 4)
 *   lfm2         <|tool_call_start|>[N(a="b"), …]<|tool_call_end|>
 *   mistral      [TOOL_CALLS][{"name": N, "arguments": {…}, "id": I}, …] and [TOOL_CALLS]N[CALL_ID]I[ARGS]{…}
 *   deepseek     <｜tool▁call▁begin｜>function<｜tool▁sep｜>N, then {…} in a block of code; or N<｜tool▁sep｜>{…}
 *   kimi         <|tool_call_begin|>functions.N:0<|tool_call_argument_begin|>{…}<|tool_call_end|>
 *   harmony      <|channel|>commentary to=functions.N …<|message|>{…}<|call|> (gpt-oss)
 *   granite      <|tool_call|>[{"name": N, "arguments": {…}}, …]              (Granite; phi-4 closes it with <|/tool_call|>)
 *   command-r    <|START_ACTION|>[{"tool_name": N, "parameters": {…}}, …]<|END_ACTION|>
 *   nemotron     <TOOLCALL>[…]</TOOLCALL>
 *   yandex       [TOOL_CALL_START]N and a line end, then {…}
 *   functionary  >>>N and a line end, then {…}; >>>all is plain text
 *
 * Where a value stands as bare text (qwen3-coder, glm4.5), it is taken as JSON if it is any, else as a text. */
#include <stdlib.h>

#include "engine/jinja_impl.h"
#include "engine/template.h"

#define BAR "\xEF\xBD\x9C" /* ｜ */
#define LOW "\xE2\x96\x81" /* ▁ */

static const struct {
    const char *family, *marks[2];
} families[] = { /* the first whose marks all occur */
    { "harmony", { "<|channel|>", "<|message|>" } },
    { "deepseek", { "<" BAR "tool" LOW "call" LOW "begin" BAR ">" } },
    { "kimi", { "<|tool_call_argument_begin|>" } },
    { "seed", { "<seed:tool_call>" } },
    { "minimax", { "<minimax:tool_call>" } },
    { "lfm2", { "<|tool_call_start|>" } },
    { "glm4.5", { "<arg_key>" } },
    { "qwen3-coder", { "<function=", "<parameter=" } },
    { "hermes", { "<tool_call>" } },
    { "mistral", { "[TOOL_CALLS]" } },
    { "command-r", { "<|START_ACTION|>" } },
    { "granite", { "<|tool_call|>" } },
    { "nemotron", { "<TOOLCALL>" } },
    { "yandex", { "[TOOL_CALL_START]" } },
    { "functionary", { ">>>all" } },
    { "pythonic", { "[func_name1(" } },
    { "llama3", { "<|python_tag|>" } },
    { "llama3", { "<|start_header_id|>", "parameters" } },
    { "chatglm4", { "[gMASK]", "'tools'" } },
    { "chatglm4", { "[gMASK]", "tools" } },
};
enum { N_FAMILIES = sizeof families / sizeof *families };

const char *ht_tool_family(const char *chat_template, size_t n)
{
    for (size_t i = 0; i < N_FAMILIES; i++) {
        bool all = true;
        for (int k = 0; k < 2 && families[i].marks[k]; k++)
            all &= n && memmem(chat_template, n, families[i].marks[k], strlen(families[i].marks[k])) != NULL;
        if (all)
            return families[i].family;
    }
    return "none";
}

typedef struct answer {
    ht_jj *j;
    const char *s;
    size_t n, at;
    ht_jbuf content, reasoning;
    ht_jv calls;
} answer;

static bool here(const answer *a, const char *mark)
{
    size_t n = strlen(mark);
    return a->n - a->at >= n && memcmp(a->s + a->at, mark, n) == 0;
}

static bool skip(answer *a, const char *mark)
{
    bool is = here(a, mark);
    a->at += is ? strlen(mark) : 0;
    return is;
}

static void space(answer *a)
{
    while (a->at < a->n && (a->s[a->at] == ' ' || a->s[a->at] == '\n' || a->s[a->at] == '\r' || a->s[a->at] == '\t'))
        a->at++;
}

/* Where the next mark begins, or the end. */
static size_t next(const answer *a, const char *mark)
{
    const char *p = a->at < a->n ? memmem(a->s + a->at, a->n - a->at, mark, strlen(mark)) : NULL;
    return p ? (size_t)(p - a->s) : a->n;
}

static ht_jv trimmed(const answer *a, size_t from, size_t to)
{
    return ht_ju_strip(ht_jstr(a->s + from, to - from), NULL, true, true);
}

/* ---- One call ---- */

static void add_call(answer *a, ht_jv name, ht_jv arguments, ht_jv id)
{
    ht_jv call = ht_jnew_dict(a->j, JK_DICT);
    ht_jset(a->j, call.dict, HT_JLIT("name"), name);
    ht_jset(a->j, call.dict, HT_JLIT("arguments"), arguments);
    if (id.kind == JK_STR && id.n)
        ht_jset(a->j, call.dict, HT_JLIT("id"), id);
    ht_jappend(a->j, a->calls.list, call);
}

static ht_jv member(ht_jj *j, ht_jv object, const char *const *names)
{
    for (; *names; names++) {
        const ht_jv *v = ht_jget(j, object.dict, ht_jtext(*names));
        if (v)
            return *v;
    }
    return ht_jnone();
}

/* Arguments may come as the text of their JSON. */
static bool arguments_of(answer *a, ht_jv *v)
{
    size_t at = 0;
    if (v->kind == JK_NONE) {
        *v = ht_jnew_dict(a->j, JK_DICT);
        return true;
    }
    if (v->kind == JK_STR && (!ht_jjson_try(a->j, v->s, v->n, &at, v)))
        return false;
    return v->kind == JK_DICT;
}

/* {"name": …, "arguments": …}, or a list of them: all or none. */
static bool add_object(answer *a, ht_jv v, bool really)
{
    static const char *const names[] = { "name", "tool_name", "function", NULL };
    static const char *const args[] = { "arguments", "parameters", "args", NULL };
    static const char *const ids[] = { "id", "tool_call_id", "call_id", NULL };
    if (v.kind == JK_LIST) {
        for (size_t i = 0; i < v.list->n; i++)
            if (v.list->v[i].kind != JK_DICT || !add_object(a, v.list->v[i], false))
                return false;
        for (size_t i = 0; really && i < v.list->n; i++)
            add_object(a, v.list->v[i], true);
        return v.list->n > 0;
    }
    if (v.kind != JK_DICT)
        return false;
    ht_jv name = member(a->j, v, names), id = member(a->j, v, ids);
    if (name.kind == JK_DICT) { /* {"type": "function", "function": {…}} */
        v = name;
        name = member(a->j, v, names);
    }
    ht_jv arguments = member(a->j, v, args);
    if (name.kind != JK_STR || !name.n || !arguments_of(a, &arguments))
        return false;
    if (really)
        add_call(a, name, arguments, id);
    return true;
}

static bool json_calls(answer *a)
{
    size_t at = a->at;
    ht_jv v;
    if (!ht_jjson_try(a->j, a->s, a->n, &at, &v) || !add_object(a, v, true))
        return false;
    a->at = at;
    return true;
}

/* A name that ends before `end`, then a JSON object. */
static bool named_json(answer *a, ht_jv name, ht_jv id)
{
    size_t at = a->at;
    ht_jv v;
    if (!name.n || memchr(name.s, '\n', name.n) || !ht_jjson_try(a->j, a->s, a->n, &at, &v) || v.kind != JK_DICT)
        return false;
    a->at = at;
    add_call(a, name, v, id);
    return true;
}

static ht_jv bare_value(answer *a, ht_jv s)
{
    size_t at = 0;
    ht_jv v;
    ht_jv t = ht_ju_strip(s, NULL, true, true);
    if (t.n && t.s[0] != '"' && ht_jjson_try(a->j, t.s, t.n, &at, &v) && at == t.n)
        return v;
    return s;
}

/* ---- Formats with marks for each argument ---- */

static ht_jv without_newlines(ht_jv s)
{
    if (s.n && s.s[0] == '\n') {
        s.s++;
        s.n--;
    }
    if (s.n && s.s[s.n - 1] == '\n')
        s.n--;
    return s;
}

/* <function=N><parameter=P>V</parameter></function>, or with `name="…"` (minimax). */
static bool function_tags(answer *a, const char *open, const char *close, const char *parameter, const char *quote)
{
    ht_jv args = ht_jnew_dict(a->j, JK_DICT);
    space(a);
    if (!skip(a, open))
        return false;
    size_t end = next(a, quote), from = a->at;
    if (end == a->n)
        return false;
    ht_jv name = trimmed(a, from, end);
    a->at = end + strlen(quote);
    for (space(a); skip(a, parameter); space(a)) {
        end = next(a, quote);
        if (end == a->n)
            return false;
        ht_jv key = trimmed(a, a->at, end);
        a->at = end + strlen(quote);
        end = next(a, "</parameter>");
        size_t stop = end;
        if (end == a->n) { /* forgotten: up to the end of the function */
            stop = next(a, close);
            if (stop == a->n)
                return false;
        }
        ht_jset(a->j, args.dict, key, bare_value(a, without_newlines(ht_jstr(a->s + a->at, stop - a->at))));
        a->at = end == a->n ? stop : end + 12;
    }
    if (!skip(a, close) || !name.n)
        return false;
    add_call(a, name, args, ht_jnone());
    return true;
}

static bool arg_tags(answer *a)
{
    ht_jv args = ht_jnew_dict(a->j, JK_DICT);
    size_t end = next(a, "</tool_call>"), key = next(a, "<arg_key>"), stop = key < end ? key : end;
    ht_jv name = trimmed(a, a->at, stop);
    if (end == a->n || !name.n || memchr(name.s, '\n', name.n) || memchr(name.s, '{', name.n))
        return false;
    a->at = stop;
    for (space(a); skip(a, "<arg_key>"); space(a)) {
        size_t k = next(a, "</arg_key>");
        if (k == a->n)
            return false;
        ht_jv at = trimmed(a, a->at, k);
        a->at = k + 10;
        space(a);
        if (!skip(a, "<arg_value>"))
            return false;
        k = next(a, "</arg_value>");
        if (k == a->n)
            return false;
        ht_jset(a->j, args.dict, at, bare_value(a, ht_jstr(a->s + a->at, k - a->at)));
        a->at = k + 12;
    }
    add_call(a, name, args, ht_jnone());
    return true;
}

/* ---- [N(a="b")]: an expression of the template language, whose literals are Python's ---- */

static ht_jv name_of(ht_jj *j, const ht_jnode *n)
{
    if (n->type == JN_NAME)
        return ht_jstr(n->sym->s, n->sym->n);
    if (n->type != JN_ATTR)
        ht_jfail(j, HT_EINVAL, "no name");
    ht_jbuf b = { 0 };
    ht_jv head = name_of(j, n->a);
    ht_jput(j, &b, head.s, head.n);
    ht_jputc(j, &b, '.');
    ht_jput(j, &b, n->v.s, n->v.n);
    return ht_jtaken(&b);
}

static void python_call(answer *a, const ht_jnode *n, ht_jv calls)
{
    static const char *const plain[] = { "call", NULL };
    if (n->type != JN_CALL || n->list.n || n->b || n->c)
        ht_jfail(a->j, HT_EINVAL, "no call");
    ht_jv call = ht_jnew_dict(a->j, JK_DICT), args = ht_jnew_dict(a->j, JK_DICT), name;
    const ht_jnode *f = n->a;
    if (f->type == JN_ATTR && ht_jis(f->v, plain[0])) /* brave_search.call(query="…") */
        f = f->a;
    name = name_of(a->j, f);
    for (size_t i = 0; i < n->kw.n; i++) {
        ht_jv v = ht_jeval(a->j, n->kw.v[i]->a);
        ht_jbuf scratch = { 0 };
        static const ht_jjson_how how = { .item_sep = { .kind = JK_STR, .s = ",", .n = 1 }, .key_sep = { .kind = JK_STR, .s = ":", .n = 1 } };
        ht_jjson_put(a->j, &scratch, v, &how); /* names and calls among the values are refused */
        ht_jset(a->j, args.dict, ht_jstr(n->kw.v[i]->sym->s, n->kw.v[i]->sym->n), v);
    }
    ht_jset(a->j, call.dict, HT_JLIT("name"), name);
    ht_jset(a->j, call.dict, HT_JLIT("arguments"), args);
    ht_jappend(a->j, calls.list, call);
}

static void parse_python(answer *a, ht_jv text, ht_jv calls)
{
    ht_jj *j = a->j;
    ht_jbuf b = { 0 };
    ht_jputs(j, &b, "{{ ");
    ht_jput(j, &b, text.s, text.n);
    ht_jputs(j, &b, " }}");
    j->tokens = NULL;
    j->n_tokens = j->cap_tokens = j->token = 0;
    j->nest = 0;
    j->scope = NULL;
    ht_jlex(j, b.s, b.n);
    ht_jnodes tree = ht_jparse(j);
    if (tree.n != 1 || tree.v[0]->type != JN_OUTPUT)
        ht_jfail(j, HT_EINVAL, "no call");
    const ht_jnode *n = tree.v[0]->a;
    if (n->type != JN_LIST && n->type != JN_TUPLE) {
        python_call(a, n, calls);
        return;
    }
    for (size_t i = 0; i < n->list.n; i++)
        python_call(a, n->list.v[i], calls);
}

static bool python_calls(answer *a, ht_jv text)
{
    ht_jj *j = a->j;
    jmp_buf before;
    const uint32_t depth = j->depth;
    ht_jv calls = ht_jnew_list(j, 0, JK_LIST);
    volatile bool ok = false;
    memcpy(&before, &j->out, sizeof before);
    if (setjmp(j->out) == 0) { /* NOLINT(cert-err52-cpp): as ht_jinja_run */
        parse_python(a, text, calls);
        ok = calls.list->n > 0;
    }
    memcpy(&j->out, &before, sizeof before);
    j->depth = depth;
    if (!ok) {
        if (j->status == HT_ENOMEM || j->steps > j->max_steps)
            longjmp(j->out, 1);
        j->status = HT_OK;
        return false;
    }
    for (size_t i = 0; i < calls.list->n; i++)
        ht_jappend(j, a->calls.list, calls.list->v[i]);
    return true;
}

/* ---- Families ---- */

/* Text up to the first `open`, then calls between open and close. One that cannot be read stays in the content. */
static void marked(answer *a, const char *open, const char *close, bool (*call)(answer *a))
{
    while (a->at < a->n) {
        size_t mark = next(a, open);
        ht_jput(a->j, &a->content, a->s + a->at, mark - a->at);
        if (mark == a->n)
            break;
        a->at = mark + strlen(open);
        space(a);
        const size_t n_calls = a->calls.list->n;
        bool ok = call(a);
        if (ok) {
            space(a);
            if (close)
                skip(a, close);
            space(a);
            continue;
        }
        a->calls.list->n = n_calls;
        ht_jputs(a->j, &a->content, open);
        a->at = mark + strlen(open);
    }
    a->at = a->n;
}

static bool coder(answer *a)
{
    if (!function_tags(a, "<function=", "</function>", "<parameter=", ">"))
        return json_calls(a); /* some answer as hermes does */
    for (space(a); here(a, "<function="); space(a))
        if (!function_tags(a, "<function=", "</function>", "<parameter=", ">"))
            break;
    return true;
}

static bool invokes(answer *a)
{
    size_t n = 0;
    for (space(a); here(a, "<invoke name=\""); space(a), n++)
        if (!function_tags(a, "<invoke name=\"", "</invoke>", "<parameter name=\"", "\">"))
            return false;
    return n > 0;
}

static bool glm(answer *a) { return arg_tags(a) || json_calls(a); }

static bool mistral(answer *a)
{
    if (json_calls(a))
        return true;
    size_t args = next(a, "[ARGS]"), id = next(a, "[CALL_ID]"), brace = next(a, "{");
    size_t stop = args < brace ? args : brace;
    if (stop == a->n)
        return false;
    ht_jv name = trimmed(a, a->at, id < stop ? id : stop), call_id = ht_jnone();
    if (id < stop)
        call_id = trimmed(a, id + 9, stop);
    a->at = args < brace ? args + 6 : brace;
    return named_json(a, name, call_id);
}

static bool deepseek(answer *a)
{
    static const char sep[] = "<" BAR "tool" LOW "sep" BAR ">";
    size_t cut = next(a, sep);
    if (cut == a->n)
        return false;
    ht_jv name = trimmed(a, a->at, cut);
    a->at = cut + sizeof sep - 1;
    if (ht_jis(name, "function")) {
        size_t end = next(a, "\n");
        name = trimmed(a, a->at, end);
        a->at = end;
    }
    space(a);
    if (skip(a, "```json") || skip(a, "```"))
        space(a);
    if (!named_json(a, name, ht_jnone()))
        return false;
    space(a);
    skip(a, "```");
    return true;
}

static bool kimi(answer *a)
{
    size_t cut = next(a, "<|tool_call_argument_begin|>");
    if (cut == a->n)
        return false;
    ht_jv id = trimmed(a, a->at, cut), name = id;
    if (name.n > 10 && memcmp(name.s, "functions.", 10) == 0) {
        name.s += 10;
        name.n -= 10;
    }
    const char *colon = name.n ? memrchr(name.s, ':', name.n) : NULL;
    if (colon)
        name.n = (size_t)(colon - name.s);
    a->at = cut + strlen("<|tool_call_argument_begin|>");
    return named_json(a, name, id);
}

static bool first_line_name(answer *a)
{
    size_t end = next(a, "\n"), brace = next(a, "{");
    ht_jv name = trimmed(a, a->at, end < brace ? end : brace);
    a->at = end < brace ? end : brace;
    return named_json(a, name, ht_jnone());
}

static bool lfm(answer *a)
{
    size_t end = next(a, "<|tool_call_end|>");
    ht_jv text = trimmed(a, a->at, end);
    if (!python_calls(a, text) && !json_calls(a))
        return false;
    a->at = end;
    return true;
}

static bool llama_tag(answer *a)
{
    if (json_calls(a)) {
        for (space(a); skip(a, ";") && (space(a), json_calls(a)); space(a))
            ;
        return true;
    }
    size_t end = next(a, "<|eo");
    if (!python_calls(a, trimmed(a, a->at, end)))
        return false;
    a->at = end;
    return true;
}

static bool llama_function(answer *a)
{
    size_t end = next(a, ">");
    ht_jv name = trimmed(a, a->at, end);
    if (end == a->n)
        return false;
    a->at = end + 1;
    if (!named_json(a, name, ht_jnone()))
        return false;
    space(a);
    return true;
}

static void llama(answer *a)
{
    space(a);
    if (here(a, "{") && json_calls(a)) {
        for (space(a); skip(a, ";") && (space(a), json_calls(a)); space(a))
            ;
        for (int i = 0; i < 3; i++)
            (void)(skip(a, "<|eot_id|>") || skip(a, "<|eom_id|>"));
        ht_jput(a->j, &a->content, a->s + a->at, a->n - a->at);
        a->at = a->n;
    } else if (next(a, "<|python_tag|>") < a->n) {
        marked(a, "<|python_tag|>", "<|eom_id|>", llama_tag);
    } else {
        marked(a, "<function=", "</function>", llama_function);
    }
}

/* Channels of gpt-oss: each message has a header up to <|message|> and ends with <|end|>, <|call|> or <|return|>. */
static void harmony(answer *a)
{
    ht_jj *j = a->j;
    bool header = here(a, "<|channel|>") || here(a, "<|start|>");
    if (!header) {
        ht_jput(j, &a->content, a->s, a->n);
        return;
    }
    while (a->at < a->n) {
        size_t text = next(a, "<|message|>"), from = a->at;
        ht_jv head = ht_jstr(a->s + from, text - from);
        if (text == a->n)
            break;
        a->at = text + 11;
        size_t end = a->n, mark;
        static const char *const ends[] = { "<|end|>", "<|call|>", "<|return|>", "<|start|>" };
        for (int i = 0; i < 4; i++)
            end = (mark = next(a, ends[i])) < end ? mark : end;
        const char *to = memmem(head.s, head.n, "to=", 3);
        ht_jv body = ht_jstr(a->s + a->at, end - a->at);
        bool called = false;
        if (to) {
            size_t k = (size_t)(to - head.s) + 3, e = k;
            while (e < head.n && head.s[e] != ' ' && head.s[e] != '<' && head.s[e] != '\n')
                e++;
            ht_jv name = ht_jstr(head.s + k, e - k), v;
            if (name.n > 10 && memcmp(name.s, "functions.", 10) == 0) {
                name.s += 10;
                name.n -= 10;
            }
            size_t at = 0;
            called = name.n && ht_jjson_try(j, body.s, body.n, &at, &v) && v.kind == JK_DICT;
            if (called)
                add_call(a, name, v, ht_jnone());
        }
        if (!called) {
            bool thought = memmem(head.s, head.n, "analysis", 8) != NULL;
            ht_jbuf *b = thought ? &a->reasoning : &a->content;
            if (b->n)
                ht_jputc(j, b, '\n');
            ht_jput(j, b, body.s, body.n);
        }
        a->at = end;
        for (int i = 0; i < 3; i++)
            skip(a, ends[i]);
    }
    a->at = a->n;
}

static void functionary(answer *a)
{
    skip(a, ">>>");
    while (a->at < a->n) {
        size_t line = next(a, "\n"), end = next(a, "\n>>>"), from = a->at;
        ht_jv name = trimmed(a, a->at, line);
        a->at = line < a->n ? line + 1 : a->n;
        end = end < a->at ? a->at : end;
        if (ht_jis(name, "all")) {
            ht_jput(a->j, &a->content, a->s + a->at, end - a->at);
        } else if (!named_json(a, name, ht_jnone())) {
            ht_jput(a->j, &a->content, a->s + from, end - from);
        }
        a->at = end < a->n ? end + 4 : a->n;
    }
}

/* What stands before the answer: <think>…</think>; the prompt may have opened it. */
static void thoughts(answer *a, const char *open, const char *close)
{
    size_t before = a->at;
    space(a);
    bool opened = skip(a, open);
    size_t end = next(a, close);
    if (end == a->n) {
        if (opened) { /* cut short */
            ht_jv t = trimmed(a, a->at, a->n);
            ht_jput(a->j, &a->reasoning, t.s, t.n);
            a->at = a->n;
        } else {
            a->at = before;
        }
        return;
    }
    ht_jv t = trimmed(a, a->at, end);
    ht_jput(a->j, &a->reasoning, t.s, t.n);
    a->at = end + strlen(close);
    space(a);
}

static void take_apart(answer *a, const char *family)
{
    static const struct {
        const char *family, *open, *close;
        bool (*call)(answer *a);
    } rows[] = {
        { "hermes", "<tool_call>", "</tool_call>", json_calls },
        { "qwen3-coder", "<tool_call>", "</tool_call>", coder },
        { "seed", "<seed:tool_call>", "</seed:tool_call>", coder },
        { "minimax", "<minimax:tool_call>", "</minimax:tool_call>", invokes },
        { "glm4.5", "<tool_call>", "</tool_call>", glm },
        { "lfm2", "<|tool_call_start|>", "<|tool_call_end|>", lfm },
        { "mistral", "[TOOL_CALLS]", NULL, mistral },
        { "deepseek", "<" BAR "tool" LOW "call" LOW "begin" BAR ">", "<" BAR "tool" LOW "call" LOW "end" BAR ">", deepseek },
        { "kimi", "<|tool_call_begin|>", "<|tool_call_end|>", kimi },
        { "command-r", "<|START_ACTION|>", "<|END_ACTION|>", json_calls },
        { "nemotron", "<TOOLCALL>", "</TOOLCALL>", json_calls },
        { "yandex", "[TOOL_CALL_START]", NULL, first_line_name },
    };
    if (!strcmp(family, "mistral"))
        thoughts(a, "[THINK]", "[/THINK]");
    else if (!strcmp(family, "seed"))
        thoughts(a, "<seed:think>", "</seed:think>");
    else if (strcmp(family, "harmony") != 0)
        thoughts(a, "<think>", "</think>");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (!strcmp(family, rows[i].family)) {
            marked(a, rows[i].open, rows[i].close, rows[i].call);
            return;
        }
    if (!strcmp(family, "granite")) {
        bool bar = next(a, "<|tool_call|>") < a->n;
        marked(a, bar ? "<|tool_call|>" : "<tool_call>", bar ? "<|/tool_call|>" : "</tool_call>", json_calls);
    } else if (!strcmp(family, "harmony")) {
        harmony(a);
    } else if (!strcmp(family, "llama3")) {
        llama(a);
    } else if (!strcmp(family, "functionary")) {
        functionary(a);
    } else if (!strcmp(family, "pythonic") || !strcmp(family, "chatglm4")) {
        size_t from = a->at;
        ht_jv text = trimmed(a, a->at, a->n);
        bool ok;
        if (family[0] == 'p') {
            ok = text.n && text.s[0] == '[' && python_calls(a, text);
        } else {
            space(a);
            ok = first_line_name(a);
            space(a);
            ok = ok && a->at == a->n;
            a->calls.list->n = ok ? a->calls.list->n : 0;
        }
        a->at = from;
        if (!ok)
            ht_jput(a->j, &a->content, a->s + from, a->n - from);
    } else {
        ht_jput(a->j, &a->content, a->s + a->at, a->n - a->at);
    }
}

typedef struct job {
    const char *family, *text;
    size_t n, len;
    char *out;
} job;

/* Marks around the calls, which are not part of what the model says. */
static ht_jv tidy(ht_jj *j, ht_jv s)
{
    static const char *const marks[] = { "<" BAR "tool" LOW "calls" LOW "begin" BAR ">", "<" BAR "tool" LOW "calls" LOW "end" BAR ">",
                                         "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>" };
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
        ht_jv v[2] = { ht_jtext(marks[i]), HT_JLIT("") };
        s = ht_jmethod_str(j, s, "replace", &(ht_jargs){ v, 2, NULL, 0 });
    }
    return ht_ju_strip(s, NULL, true, true);
}

static void body(ht_jj *j, void *user)
{
    job *w = user;
    static const ht_jjson_how how = { .item_sep = { .kind = JK_STR, .s = ", ", .n = 2 }, .key_sep = { .kind = JK_STR, .s = ": ", .n = 2 } };
    answer a = { .j = j, .s = w->text, .n = w->n, .calls = ht_jnew_list(j, 0, JK_LIST) };
    ht_jbuf out = { 0 };
    take_apart(&a, w->family);
    ht_jv all = ht_jnew_dict(j, JK_DICT), content = ht_jtaken(&a.content), thought = ht_jtaken(&a.reasoning);
    ht_jset(j, all.dict, HT_JLIT("content"), a.calls.list->n ? tidy(j, content) : content);
    if (thought.n)
        ht_jset(j, all.dict, HT_JLIT("reasoning_content"), thought);
    if (a.calls.list->n)
        ht_jset(j, all.dict, HT_JLIT("tool_calls"), a.calls);
    ht_jjson_put(j, &out, all, &how);
    w->out = malloc(out.n + 1);
    if (!w->out)
        ht_jfail(j, HT_ENOMEM, "an answer of %zu bytes", out.n);
    memcpy(w->out, out.s, out.n);
    w->out[out.n] = 0;
    w->len = out.n;
}

ht_status ht_tool_calls(const char *family, const char *text, size_t n, char **json, size_t *n_json, ht_error *err)
{
    job w = { .family = family, .text = text, .n = n };
    bool known = !strcmp(family, "none") || !strcmp(family, "plain");
    for (size_t i = 0; i < N_FAMILIES; i++)
        known |= !strcmp(family, families[i].family);
    if (!known)
        return ht_fail(err, HT_EINVAL, "there is no format of tool calls \"%.60s\"", family);
    ht_status st = ht_jinja_run(body, &w, NULL, n, err);
    if (st != HT_OK)
        return st;
    *json = w.out;
    *n_json = w.len;
    return HT_OK;
}
