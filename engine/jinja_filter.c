/* SPDX-License-Identifier: MIT
 * Filters over texts and numbers, with the arguments and answers of jinja2's; those over sequences are in jinja_filter_seq.c. See
 * jinja_impl.h. */
#include <math.h>
#include <stdio.h>

#include "engine/jinja_impl.h"

#define BIND(fn, min, ...)                                                                                             \
    static const char *const names[] = { __VA_ARGS__ };                                                                \
    ht_jv g[sizeof names / sizeof *names];                                                                             \
    ht_jbind(j, fn, a, names, sizeof names / sizeof *names, min, g)
#define GIVEN(i) (g[i].kind != HT_JABSENT)

static const ht_jargs no_args = { 0 };

static ht_jv nothing(ht_jj *j, const char *fn, const ht_jargs *a)
{
    if (a->n || a->n_kw)
        ht_jfail_here(j, HT_EINVAL, "the filter %s takes no arguments", fn);
    return ht_jnone();
}

static ht_jv need_text(ht_jj *j, ht_jv v, const char *fn)
{
    if (v.kind == JK_UNDEF)
        ht_jfail_undefined(j, v);
    if (v.kind != JK_STR)
        ht_jfail_here(j, HT_EINVAL, "%s needs a text, not %s", fn, ht_jtype_name(v));
    return v;
}

/* soft_str(value).method(arguments) */
static ht_jv method(ht_jj *j, ht_jv v, const char *name, const ht_jv *args, size_t n)
{
    return ht_jmethod_str(j, ht_jto_str(j, v), name, &(ht_jargs){ args, n, NULL, 0 });
}

static ht_jv f_upper(ht_jj *j, ht_jv v, const ht_jargs *a)
{
    nothing(j, "upper", a);
    return method(j, v, "upper", NULL, 0);
}

static ht_jv f_lower(ht_jj *j, ht_jv v, const ht_jargs *a)
{
    nothing(j, "lower", a);
    return method(j, v, "lower", NULL, 0);
}

static ht_jv f_capitalize(ht_jj *j, ht_jv v, const ht_jargs *a)
{
    nothing(j, "capitalize", a);
    return method(j, v, "capitalize", NULL, 0);
}

/* Words begin behind hyphens, brackets and white space: jinja2's own rule, not str.title's. */
static ht_jv f_title(ht_jj *j, ht_jv v, const ht_jargs *a)
{
    ht_jbuf b = { 0 };
    uint32_t c;
    nothing(j, "title", a);
    v = ht_jto_str(j, v);
    bool first = true;
    size_t from = 0;
    for (size_t i = 0, k; i <= v.n; i += k) {
        bool end = i == v.n;
        k = end ? 1 : ht_ju_next(v.s + i, v.n - i, &c);
        bool cut = !end && (c == '-' || c == '(' || c == '{' || c == '[' || c == '<' || ht_ju_space(c));
        if (!end && !cut && first) {
            if (c < 0x110000)
                ht_ju_upper(j, &b, c);
            else
                ht_jput(j, &b, v.s + i, k);
            from = i + k;
            first = false;
        } else if (end || cut) {
            if (!first) {
                ht_jv low = ht_ju_lower(j, ht_jstr(v.s + from, i - from));
                ht_jput(j, &b, low.s, low.n);
            }
            if (cut)
                ht_jput(j, &b, v.s + i, k);
            first = true;
        }
    }
    bool markup = v.markup;
    v = ht_jtaken(&b);
    v.markup = markup;
    return v;
}

static ht_jv f_trim(ht_jj *j, ht_jv v, const ht_jargs *a)
{
    BIND("trim", 0, "chars");
    return method(j, v, "strip", g, GIVEN(0));
}

static ht_jv f_replace(ht_jj *j, ht_jv v, const ht_jargs *a)
{
    BIND("replace", 2, "old", "new", "count");
    for (int i = 0; i < 2; i++)
        g[i] = ht_jto_str(j, g[i]);
    bool count = GIVEN(2) && g[2].kind != JK_NONE;
    ht_jv s = ht_jto_str(j, v);
    s.markup = false;
    return ht_jmethod_str(j, s, "replace", &(ht_jargs){ g, 2 + count, NULL, 0 });
}

static ht_jv f_string(ht_jj *j, ht_jv v, const ht_jargs *a)
{
    nothing(j, "string", a);
    return ht_jto_str(j, v);
}

static ht_jv f_center(ht_jj *j, ht_jv v, const ht_jargs *a)
{
    BIND("center", 0, "width");
    if (!GIVEN(0))
        g[0] = ht_jint(80);
    return method(j, v, "center", g, 1);
}

static ht_jv f_default(ht_jj *j, ht_jv v, const ht_jargs *a)
{
    BIND("default", 0, "default_value", "boolean");
    if (v.kind == JK_UNDEF || (GIVEN(1) && ht_jtrue(g[1]) && !ht_jtrue(v)))
        return GIVEN(0) ? g[0] : HT_JLIT("");
    return v;
}

static ht_jv f_escape(ht_jj *j, ht_jv v, const ht_jargs *a)
{
    nothing(j, "escape", a);
    return ht_jescape(j, v);
}

static ht_jv f_forceescape(ht_jj *j, ht_jv v, const ht_jargs *a)
{
    nothing(j, "forceescape", a);
    v = ht_jto_str(j, v);
    v.markup = false;
    return ht_jescape(j, v);
}

static ht_jv f_safe(ht_jj *j, ht_jv v, const ht_jargs *a)
{
    nothing(j, "safe", a);
    v = ht_jto_str(j, v);
    v.markup = true;
    return v;
}

static ht_jv f_indent(ht_jj *j, ht_jv v, const ht_jargs *a)
{
    BIND("indent", 0, "width", "first", "blank");
    ht_jbuf b = { 0 }, by = { 0 };
    ht_jv line;
    v = need_text(j, v, "indent");
    bool first = GIVEN(1) && ht_jtrue(g[1]), blank = GIVEN(2) && ht_jtrue(g[2]);
    if (GIVEN(0) && g[0].kind == JK_STR) {
        ht_jput(j, &by, g[0].s, g[0].n);
    } else {
        int64_t width = GIVEN(0) ? ht_jneed_int(j, g[0], "the width of indent") : 4;
        for (int64_t i = 0; i < width; i++)
            ht_jputc(j, &by, ' ');
    }
    bool markup = v.markup;
    ht_jput(j, &b, v.s, v.n);
    ht_jputc(j, &b, '\n');
    v = ht_jtaken(&b);
    b = (ht_jbuf){ 0 };
    size_t at = 0;
    for (size_t i = 0; ht_ju_line(v, &at, false, &line); i++) {
        if (i)
            ht_jputc(j, &b, '\n');
        if (i ? blank || line.n : first)
            ht_jput(j, &b, by.s, by.n);
        ht_jput(j, &b, line.s, line.n);
    }
    v = ht_jtaken(&b);
    v.markup = markup;
    return v;
}

static ht_jv f_truncate(ht_jj *j, ht_jv v, const ht_jargs *a)
{
    BIND("truncate", 0, "length", "killwords", "end", "leeway");
    int64_t length = GIVEN(0) ? ht_jneed_int(j, g[0], "length") : 255;
    ht_jv end = GIVEN(2) ? need_text(j, g[2], "truncate") : HT_JLIT("...");
    int64_t leeway = GIVEN(3) && g[3].kind != JK_NONE ? ht_jneed_int(j, g[3], "leeway") : 5;
    int64_t n_end = (int64_t)ht_ju_count(end.s, end.n);
    if (length < n_end || leeway < 0)
        ht_jfail_here(j, HT_EINVAL, "truncate: the length is too small");
    if (ht_jlength(j, v, NULL) <= length + leeway)
        return v;
    v = need_text(j, v, "truncate");
    v.n = ht_ju_offset(v.s, v.n, (size_t)(length - n_end));
    if (!(GIVEN(1) && ht_jtrue(g[1]))) {
        const char *space = v.n ? memrchr(v.s, ' ', v.n) : NULL;
        v.n = space ? (size_t)(space - v.s) : v.n;
    }
    return ht_jbinary(j, HT_JOP_ADD, v, end);
}

static ht_jv f_wordcount(ht_jj *j, ht_jv v, const ht_jargs *a)
{
    int64_t n = 0;
    uint32_t c;
    bool inside = false;
    nothing(j, "wordcount", a);
    v = ht_jto_str(j, v);
    for (size_t i = 0; i < v.n;) {
        i += ht_ju_next(v.s + i, v.n - i, &c);
        bool word = c == '_' || ht_ju_alnum(c);
        n += word && !inside;
        inside = word;
    }
    return ht_jint(n);
}

static ht_jv f_striptags(ht_jj *j, ht_jv v, const ht_jargs *a)
{
    ht_jbuf b = { 0 }, words = { 0 };
    nothing(j, "striptags", a);
    v = ht_jto_str(j, v);
    for (size_t i = 0; i < v.n;) { /* comments first, then tags */
        const char *p = memmem(v.s + i, v.n - i, "<!--", 4), *end = p ? memmem(p, v.n - (size_t)(p - v.s), "-->", 3) : NULL;
        size_t to = end ? (size_t)(p - v.s) : v.n;
        ht_jput(j, &b, v.s + i, to - i);
        i = end ? (size_t)(end - v.s) + 3 : v.n;
    }
    v = ht_jtaken(&b);
    b = (ht_jbuf){ 0 };
    for (size_t i = 0; i < v.n;) {
        const char *p = memchr(v.s + i, '<', v.n - i), *end = p ? memchr(p, '>', v.n - (size_t)(p - v.s)) : NULL;
        size_t to = end ? (size_t)(p - v.s) : v.n;
        ht_jput(j, &b, v.s + i, to - i);
        i = end ? (size_t)(end - v.s) + 1 : v.n;
    }
    v = ht_jmethod_str(j, ht_jtaken(&b), "split", &no_args);
    for (size_t i = 0; i < v.list->n; i++) {
        if (i)
            ht_jputc(j, &words, ' ');
        ht_jput(j, &words, v.list->v[i].s, v.list->v[i].n);
    }
    static const struct { const char *mark; char c; } entities[] = { { "&lt;", '<' }, { "&gt;", '>' }, { "&amp;", '&' },
        { "&quot;", '"' }, { "&#34;", '"' }, { "&#39;", '\'' } };
    v = ht_jtaken(&words);
    b = (ht_jbuf){ 0 };
    for (size_t i = 0; i < v.n;) {
        size_t k = 0, n = 0;
        for (; k < sizeof entities / sizeof *entities; k++) {
            n = strlen(entities[k].mark);
            if (v.n - i >= n && memcmp(v.s + i, entities[k].mark, n) == 0)
                break;
        }
        if (k == sizeof entities / sizeof *entities) {
            ht_jputc(j, &b, v.s[i++]);
        } else {
            ht_jputc(j, &b, entities[k].c);
            i += n;
        }
    }
    return ht_jtaken(&b);
}

static void put_url(ht_jj *j, ht_jbuf *b, ht_jv v, bool slash)
{
    v = ht_jto_str(j, v);
    for (size_t i = 0; i < v.n; i++) {
        uint8_t c = (uint8_t)v.s[i];
        bool plain = (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') || (c && strchr("_.-~", c)) || (slash && c == '/');
        if (plain)
            ht_jputc(j, b, (char)c);
        else if (!slash && c == ' ')
            ht_jputc(j, b, '+');
        else
            ht_jprint(j, b, "%%%02X", c);
    }
}

static ht_jv f_urlencode(ht_jj *j, ht_jv v, const ht_jargs *a)
{
    ht_jbuf b = { 0 };
    nothing(j, "urlencode", a);
    if (v.kind == JK_STR || !ht_jiterable(v)) {
        put_url(j, &b, v, true);
        return ht_jtaken(&b);
    }
    ht_jview items = { v.dict, 'i' };
    const ht_jlist *l = ht_jelements(j, v.kind == JK_DICT ? (ht_jv){ .kind = JK_VIEW, .view = &items } : v);
    for (size_t i = 0; i < l->n; i++) {
        const ht_jlist *pair = ht_jelements(j, l->v[i]);
        if (pair->n != 2)
            ht_jfail_here(j, HT_EINVAL, "urlencode needs pairs");
        if (i)
            ht_jputc(j, &b, '&');
        put_url(j, &b, pair->v[0], false);
        ht_jputc(j, &b, '=');
        put_url(j, &b, pair->v[1], false);
    }
    return ht_jtaken(&b);
}

static ht_jv f_format(ht_jj *j, ht_jv v, const ht_jargs *a)
{
    if (a->n && a->n_kw)
        ht_jfail_here(j, HT_EINVAL, "can't handle positional and keyword arguments at the same time");
    ht_jv values = ht_jnew_list(j, a->n, JK_TUPLE);
    for (size_t i = 0; i < a->n; i++)
        ht_jappend(j, values.list, a->v[i]);
    if (a->n_kw) {
        values = ht_jnew_dict(j, JK_DICT);
        for (size_t i = 0; i < a->n_kw; i++)
            ht_jset(j, values.dict, a->kw[i].name, a->kw[i].v);
    }
    return ht_jpercent(j, ht_jto_str(j, v), values);
}

/* ---- Numbers ---- */

static ht_jv f_abs(ht_jj *j, ht_jv v, const ht_jargs *a)
{
    nothing(j, "abs", a);
    if (v.kind == JK_FLOAT)
        return ht_jfloat(fabs(v.f));
    if (v.kind == JK_BOOL)
        return ht_jint(v.b);
    if (v.kind == JK_BIG || v.kind == JK_INT) {
        bool minus = v.kind == JK_BIG ? v.s[0] == '-' : v.i < 0;
        return minus ? ht_junary(j, '-', v) : v;
    }
    if (v.kind == JK_UNDEF)
        ht_jfail_undefined(j, v);
    ht_jfail_here(j, HT_EINVAL, "abs needs a number, not %s", ht_jtype_name(v));
}

static bool whole(ht_jj *j, double f, ht_jv *out)
{
    if (!isfinite(f))
        return false;
    f = trunc(f);
    if (fabs(f) < 9.2e18) {
        *out = ht_jint((int64_t)f);
        return true;
    }
    ht_jbuf b = { 0 };
    ht_jput_double(j, &b, 'f', 0, false, f);
    *out = ht_jtaken(&b);
    out->kind = JK_BIG;
    return true;
}

static ht_jv f_int(ht_jj *j, ht_jv v, const ht_jargs *a)
{
    BIND("int", 0, "default", "base");
    ht_jv out = ht_jnone();
    double f = 0;
    int64_t base = GIVEN(1) ? ht_jneed_int(j, g[1], "base") : 10;
    if (v.kind == JK_UNDEF)
        ht_jfail_undefined(j, v);
    if (v.kind == JK_INT || v.kind == JK_BIG)
        return v;
    if (v.kind == JK_BOOL)
        return ht_jint(v.b);
    if (v.kind == JK_FLOAT) {
        if (whole(j, v.f, &out))
            return out;
        if (isinf(v.f)) /* jinja2 lets the overflow through */
            ht_jfail_here(j, HT_EINVAL, "cannot convert float infinity to integer");
        return GIVEN(0) ? g[0] : ht_jint(0);
    }
    if (v.kind == JK_STR && (base == 0 || (base >= 2 && base <= 36)) && ht_jparse_int(j, v, (int)base, &out))
        return out;
    if (v.kind == JK_STR && ht_jparse_float(v, &f) && whole(j, f, &out))
        return out;
    return GIVEN(0) ? g[0] : ht_jint(0);
}

static ht_jv f_float(ht_jj *j, ht_jv v, const ht_jargs *a)
{
    BIND("float", 0, "default");
    double f = 0;
    if (v.kind == JK_UNDEF)
        ht_jfail_undefined(j, v);
    if (v.kind == JK_STR ? ht_jparse_float(v, &f) : ht_jas_double(v, &f))
        return ht_jfloat(f);
    return GIVEN(0) ? g[0] : ht_jfloat(0);
}

static ht_jv f_round(ht_jj *j, ht_jv v, const ht_jargs *a)
{
    BIND("round", 0, "precision", "method");
    double f = 0;
    int64_t precision = GIVEN(0) ? ht_jneed_int(j, g[0], "the precision of round") : 0;
    if (v.kind == JK_UNDEF)
        ht_jfail_undefined(j, v);
    bool common = !GIVEN(1) || ht_jis(g[1], "common"), up = GIVEN(1) && ht_jis(g[1], "ceil");
    if (!common && !up && !ht_jis(g[1], "floor"))
        ht_jfail_here(j, HT_EINVAL, "method must be common, ceil or floor");
    if (!ht_jas_double(v, &f))
        ht_jfail_here(j, HT_EINVAL, "round needs a number, not %s", ht_jtype_name(v));
    if (common && v.kind == JK_FLOAT)
        return ht_jfloat(ht_jround(f, precision));
    if (common) { /* an integer stays one; tens and hundreds are rounded half to even */
        int64_t i = 0, unit = 1;
        if (!ht_jas_int(v, &i) || precision >= 0)
            return v.kind == JK_BOOL ? ht_jint(v.b) : v;
        for (; precision < 0; precision++)
            if (__builtin_mul_overflow(unit, (int64_t)10, &unit))
                return ht_jint(0);
        int64_t r = i % unit, q = i / unit;
        if (r < 0) {
            r += unit;
            q--;
        }
        if (r > unit - r || (r == unit - r && q & 1))
            q++;
        return ht_jint(q * unit);
    }
    double unit = pow(10, (double)precision);
    double r = up ? ceil(f * unit) : floor(f * unit);
    if (!isfinite(r))
        ht_jfail_here(j, HT_EINVAL, "round: the number is too large");
    return ht_jfloat(r / unit);
}

static ht_jv f_filesizeformat(ht_jj *j, ht_jv v, const ht_jargs *a)
{
    static const char *const decimal[] = { "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB" };
    static const char *const binary[] = { "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB" };
    BIND("filesizeformat", 0, "binary");
    ht_jbuf b = { 0 };
    double f = 0;
    bool two = GIVEN(0) && ht_jtrue(g[0]);
    const double base = two ? 1024 : 1000;
    if (v.kind == JK_STR ? !ht_jparse_float(v, &f) : !ht_jas_double(v, &f))
        ht_jfail_here(j, HT_EINVAL, "filesizeformat needs a number, not %s", ht_jtype_name(v));
    if (f == 1)
        return HT_JLIT("1 Byte");
    if (f < base) {
        ht_jprint(j, &b, "%.0f Bytes", trunc(f));
        return ht_jtaken(&b);
    }
    int i = 0;
    double unit = base * base;
    for (; i < 7 && f >= unit; i++)
        unit *= base;
    ht_jput_double(j, &b, 'f', 1, false, base * f / unit);
    ht_jputc(j, &b, ' ');
    ht_jputs(j, &b, two ? binary[i] : decimal[i]);
    return ht_jtaken(&b);
}

static ht_jv f_tojson(ht_jj *j, ht_jv v, const ht_jargs *a)
{
    BIND("tojson", 0, "ensure_ascii", "indent", "separators", "sort_keys");
    ht_jjson_how how = { .item_sep = HT_JLIT(", "), .key_sep = HT_JLIT(": ") };
    ht_jbuf b = { 0 };
    how.ascii = GIVEN(0) && ht_jtrue(g[0]);
    how.sort = GIVEN(3) && ht_jtrue(g[3]);
    if (GIVEN(1) && g[1].kind != JK_NONE) {
        ht_jbuf by = { 0 };
        how.indented = true;
        how.item_sep = HT_JLIT(",");
        if (g[1].kind == JK_STR) {
            how.indent = g[1];
        } else {
            for (int64_t i = ht_jneed_int(j, g[1], "indent"); i > 0; i--)
                ht_jputc(j, &by, ' ');
            how.indent = ht_jtaken(&by);
        }
    }
    if (GIVEN(2) && g[2].kind != JK_NONE) {
        const ht_jlist *l = ht_jelements(j, g[2]);
        if (l->n != 2)
            ht_jfail_here(j, HT_EINVAL, "tojson: separators are two texts");
        how.item_sep = need_text(j, l->v[0], "tojson");
        how.key_sep = need_text(j, l->v[1], "tojson");
    }
    ht_jjson_put(j, &b, v, &how);
    return ht_jtaken(&b);
}

const ht_jfilter ht_jfilters_text[] = {
    { "abs", f_abs }, { "capitalize", f_capitalize }, { "center", f_center }, { "d", f_default }, { "default", f_default },
    { "e", f_escape }, { "escape", f_escape }, { "filesizeformat", f_filesizeformat }, { "float", f_float },
    { "forceescape", f_forceescape }, { "format", f_format }, { "indent", f_indent }, { "int", f_int }, { "lower", f_lower },
    { "replace", f_replace }, { "round", f_round }, { "safe", f_safe }, { "string", f_string }, { "striptags", f_striptags },
    { "title", f_title }, { "tojson", f_tojson }, { "trim", f_trim }, { "truncate", f_truncate }, { "upper", f_upper },
    { "urlencode", f_urlencode }, { "wordcount", f_wordcount }, { 0 }
};
