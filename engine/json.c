/* SPDX-License-Identifier: MIT
 * JSON to values and back, as Python's json module has it: keys keep their order, integers stay integers. Strict: no comments, no
 * NaN, no commas too many; 200 levels. See jinja_impl.h. */
#include <math.h>

#include "engine/jinja_impl.h"

typedef struct reader {
    ht_jj *j;
    const char *s;
    size_t n, at;
    int depth;
} reader;

enum { DEPTH = 200 };

_Noreturn static void broken(reader *r, const char *what)
{
    size_t line = 1;
    for (size_t i = 0; i < r->at && i < r->n; i++)
        line += r->s[i] == '\n';
    ht_jfail(r->j, HT_EFORMAT, "JSON, line %zu: %s", line, what);
}

static void space(reader *r)
{
    while (r->at < r->n && (r->s[r->at] == ' ' || r->s[r->at] == '\n' || r->s[r->at] == '\r' || r->s[r->at] == '\t'))
        r->at++;
}

static int hex4(const reader *r, size_t at)
{
    int v = 0;
    if (at + 4 > r->n)
        return -1;
    for (size_t i = at; i < at + 4; i++) {
        char c = r->s[i];
        int d = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
        if (d < 0)
            return -1;
        v = v << 4 | d;
    }
    return v;
}

static void escape(reader *r, ht_jbuf *b)
{
    static const char marks[] = "\"\\/bfnrt", made[] = "\"\\/\b\f\n\r\t";
    if (r->at >= r->n)
        broken(r, "a text has no end");
    char c = r->s[r->at++];
    const char *known = c ? strchr(marks, c) : NULL;
    if (known) {
        ht_jputc(r->j, b, made[known - marks]);
        return;
    }
    int v = c == 'u' ? hex4(r, r->at) : -1;
    if (v < 0)
        broken(r, "a text has a broken escape");
    r->at += 4;
    if (v >= 0xD800 && v < 0xDC00 && r->at + 6 <= r->n && r->s[r->at] == '\\' && r->s[r->at + 1] == 'u') {
        int low = hex4(r, r->at + 2);
        if (low >= 0xDC00 && low < 0xE000) {
            r->at += 6;
            ht_jputu(r->j, b, 0x10000 + (((uint32_t)v - 0xD800) << 10) + ((uint32_t)low - 0xDC00));
            return;
        }
    }
    /* Half a surrogate pair is no character. */
    ht_jputu(r->j, b, v >= 0xD800 && v < 0xE000 ? 0xFFFD : (uint32_t)v);
}

static ht_jv text(reader *r)
{
    ht_jbuf b = { 0 };
    size_t from = ++r->at;
    while (r->at < r->n && r->s[r->at] != '"' && r->s[r->at] != '\\' && (uint8_t)r->s[r->at] >= 0x20)
        r->at++;
    if (r->at < r->n && r->s[r->at] == '"') { /* as it stands: no copy */
        r->at++;
        ht_jsteps(r->j, (r->at - from) / 64);
        return ht_jstr(r->s + from, r->at - 1 - from);
    }
    ht_jput(r->j, &b, r->s + from, r->at - from);
    for (;;) {
        from = r->at;
        while (r->at < r->n && r->s[r->at] != '"' && r->s[r->at] != '\\' && (uint8_t)r->s[r->at] >= 0x20)
            r->at++;
        ht_jput(r->j, &b, r->s + from, r->at - from);
        if (r->at >= r->n)
            broken(r, "a text has no end");
        char c = r->s[r->at++];
        if (c == '"')
            return ht_jtaken(&b);
        if (c != '\\')
            broken(r, "a text has a control character");
        escape(r, &b);
    }
}

static bool digit(const reader *r, size_t at) { return at < r->n && r->s[at] >= '0' && r->s[at] <= '9'; }

static ht_jv number(reader *r)
{
    size_t from = r->at, at = r->at;
    bool whole = true;
    at += r->s[at] == '-';
    if (!digit(r, at))
        broken(r, "a value was expected");
    if (r->s[at] == '0')
        at++;
    else
        while (digit(r, at))
            at++;
    if (at < r->n && r->s[at] == '.' && digit(r, at + 1)) {
        whole = false;
        for (at++; digit(r, at);)
            at++;
    }
    if (at < r->n && (r->s[at] | 32) == 'e') {
        size_t e = at + 1;
        e += e < r->n && (r->s[e] == '+' || r->s[e] == '-');
        if (digit(r, e)) {
            whole = false;
            for (at = e; digit(r, at);)
                at++;
        }
    }
    ht_jv s = ht_jstr(r->s + from, at - from), v = ht_jnone();
    r->at = at;
    if (whole) {
        ht_jparse_int(r->j, s, 10, &v);
        return v;
    }
    double f = 0;
    if (!ht_jparse_float(s, &f))
        broken(r, "a number is too long");
    return ht_jfloat(f);
}

static ht_jv value(reader *r);

static ht_jv array(reader *r)
{
    ht_jv l = ht_jnew_list(r->j, 0, JK_LIST);
    r->at++;
    space(r);
    if (r->at < r->n && r->s[r->at] == ']') {
        r->at++;
        return l;
    }
    for (;;) {
        ht_jappend(r->j, l.list, value(r));
        space(r);
        char c = r->at < r->n ? r->s[r->at] : 0;
        if (c != ',' && c != ']')
            broken(r, "',' or ']' was expected");
        r->at++;
        if (c == ']')
            return l;
    }
}

static ht_jv object(reader *r)
{
    ht_jv d = ht_jnew_dict(r->j, JK_DICT);
    r->at++;
    space(r);
    if (r->at < r->n && r->s[r->at] == '}') {
        r->at++;
        return d;
    }
    for (;;) {
        space(r);
        if (r->at >= r->n || r->s[r->at] != '"')
            broken(r, "the name of a member was expected");
        ht_jv key = text(r);
        space(r);
        if (r->at >= r->n || r->s[r->at] != ':')
            broken(r, "':' was expected");
        r->at++;
        ht_jset(r->j, d.dict, key, value(r));
        space(r);
        char c = r->at < r->n ? r->s[r->at] : 0;
        if (c != ',' && c != '}')
            broken(r, "',' or '}' was expected");
        r->at++;
        if (c == '}')
            return d;
    }
}

static bool word(reader *r, const char *w)
{
    size_t n = strlen(w);
    bool is = r->n - r->at >= n && memcmp(r->s + r->at, w, n) == 0;
    r->at += is ? n : 0;
    return is;
}

static ht_jv value(reader *r)
{
    ht_jv v;
    space(r);
    if (r->at >= r->n)
        broken(r, "a value was expected");
    char c = r->s[r->at];
    if (++r->depth > DEPTH)
        broken(r, "values nest deeper than 200");
    if (c == '{')
        v = object(r);
    else if (c == '[')
        v = array(r);
    else if (c == '"')
        v = text(r);
    else if (word(r, "true"))
        v = ht_jbool(true);
    else if (word(r, "false"))
        v = ht_jbool(false);
    else if (word(r, "null"))
        v = ht_jnone();
    else
        v = number(r);
    r->depth--;
    return v;
}

ht_jv ht_jjson_parse(ht_jj *j, const char *s, size_t n, size_t *at, bool whole)
{
    reader r = { .j = j, .s = s, .n = n, .at = *at };
    ht_jv v = value(&r);
    if (whole) {
        space(&r);
        if (r.at < r.n)
            broken(&r, "something follows the value");
    }
    *at = r.at;
    return v;
}

bool ht_jjson_try(ht_jj *j, const char *s, size_t n, size_t *at, ht_jv *out)
{
    jmp_buf before;
    memcpy(&before, &j->out, sizeof before);
    volatile bool ok = false;
    if (setjmp(j->out) == 0) { /* NOLINT(cert-err52-cpp) */
        *out = ht_jjson_parse(j, s, n, at, false);
        ok = true;
    }
    memcpy(&j->out, &before, sizeof before);
    if (ok)
        return true;
    if (j->status == HT_ENOMEM || j->steps > j->max_steps)
        longjmp(j->out, 1);
    j->status = HT_OK;
    return false;
}

/* ---- Writing ---- */

void ht_jjson_put_str(ht_jj *j, ht_jbuf *b, const char *s, size_t n, bool ascii)
{
    uint32_t c;
    ht_jputc(j, b, '"');
    for (size_t i = 0, k, from = 0; i <= n; i += k) {
        k = i < n ? ht_ju_next(s + i, n - i, &c) : 1;
        bool plain = i < n && c != '"' && c != '\\' && c >= 0x20 && !(ascii && c >= 0x7F);
        if (plain)
            continue;
        ht_jput(j, b, s + from, i - from);
        from = i + k;
        if (i == n)
            break;
        switch (c) {
        case '"': ht_jputs(j, b, "\\\""); break;
        case '\\': ht_jputs(j, b, "\\\\"); break;
        case '\n': ht_jputs(j, b, "\\n"); break;
        case '\r': ht_jputs(j, b, "\\r"); break;
        case '\t': ht_jputs(j, b, "\\t"); break;
        case '\f': ht_jputs(j, b, "\\f"); break;
        case '\b': ht_jputs(j, b, "\\b"); break;
        default:
            if (c >= 0x110000)
                ht_jputs(j, b, "\\ufffd");
            else if (c >= 0x10000)
                ht_jprint(j, b, "\\u%04x\\u%04x", 0xD800 + ((c - 0x10000) >> 10), 0xDC00 + ((c - 0x10000) & 0x3FF));
            else
                ht_jprint(j, b, "\\u%04x", c);
            break;
        }
    }
    ht_jputc(j, b, '"');
}

static void newline(ht_jj *j, ht_jbuf *b, const ht_jjson_how *how, int level)
{
    if (!how->indented)
        return;
    ht_jputc(j, b, '\n');
    for (int i = 0; i < level; i++)
        ht_jput(j, b, how->indent.s, how->indent.n);
}

static void put_float(ht_jj *j, ht_jbuf *b, double f)
{
    if (isnan(f))
        ht_jputs(j, b, "NaN");
    else if (isinf(f))
        ht_jputs(j, b, f < 0 ? "-Infinity" : "Infinity");
    else
        ht_jput_float(j, b, f);
}

static void put(ht_jj *j, ht_jbuf *b, ht_jv v, const ht_jjson_how *how, int level);

static void put_key(ht_jj *j, ht_jbuf *b, ht_jv key, const ht_jjson_how *how)
{
    ht_jbuf t = { 0 };
    if (key.kind == JK_STR) {
        ht_jjson_put_str(j, b, key.s, key.n, how->ascii);
        return;
    }
    if (key.kind == JK_NONE)
        ht_jputs(j, &t, "null");
    else if (key.kind == JK_BOOL)
        ht_jputs(j, &t, key.b ? "true" : "false");
    else if (key.kind == JK_FLOAT)
        put_float(j, &t, key.f);
    else if (key.kind == JK_INT || key.kind == JK_BIG)
        ht_jput_repr(j, &t, key);
    else
        ht_jfail_here(j, HT_EINVAL, "tojson: keys must be texts or numbers, not %s", ht_jtype_name(key));
    ht_jjson_put_str(j, b, t.s, t.n, how->ascii);
}

static void put_dict(ht_jj *j, ht_jbuf *b, const ht_jdict *d, const ht_jjson_how *how, int level)
{
    const ht_jentry **e = ht_jalloc(j, (d->n + 1) * sizeof *e);
    for (size_t i = 0; i < d->n; i++) {
        size_t at = i;
        for (; how->sort && at && ht_jcmp(j, d->e[i].key, e[at - 1]->key, "<") == -1; at--)
            e[at] = e[at - 1];
        e[at] = &d->e[i];
    }
    if (!d->n) {
        ht_jputs(j, b, "{}");
        return;
    }
    ht_jputc(j, b, '{');
    for (size_t i = 0; i < d->n; i++) {
        if (i)
            ht_jput(j, b, how->item_sep.s, how->item_sep.n);
        newline(j, b, how, level + 1);
        put_key(j, b, e[i]->key, how);
        ht_jput(j, b, how->key_sep.s, how->key_sep.n);
        put(j, b, e[i]->value, how, level + 1);
    }
    newline(j, b, how, level);
    ht_jputc(j, b, '}');
}

static void put(ht_jj *j, ht_jbuf *b, ht_jv v, const ht_jjson_how *how, int level)
{
    ht_jenter(j);
    ht_jsteps(j, 1);
    switch ((ht_jkind)v.kind) {
    case JK_NONE: ht_jputs(j, b, "null"); break;
    case JK_BOOL: ht_jputs(j, b, v.b ? "true" : "false"); break;
    case JK_INT:
    case JK_BIG: ht_jput_repr(j, b, v); break;
    case JK_FLOAT: put_float(j, b, v.f); break;
    case JK_STR: ht_jjson_put_str(j, b, v.s, v.n, how->ascii); break;
    case JK_LIST:
    case JK_TUPLE:
        if (!v.list->n) {
            ht_jputs(j, b, "[]");
            break;
        }
        ht_jputc(j, b, '[');
        for (size_t i = 0; i < v.list->n; i++) {
            if (i)
                ht_jput(j, b, how->item_sep.s, how->item_sep.n);
            newline(j, b, how, level + 1);
            put(j, b, v.list->v[i], how, level + 1);
        }
        newline(j, b, how, level);
        ht_jputc(j, b, ']');
        break;
    case JK_DICT: put_dict(j, b, v.dict, how, level); break;
    default: ht_jfail_here(j, HT_EINVAL, "tojson: a value of type %s is not JSON serializable", ht_jtype_name(v));
    }
    j->depth--;
}

void ht_jjson_put(ht_jj *j, ht_jbuf *b, ht_jv v, const ht_jjson_how *how) { put(j, b, v, how, 0); }
