/* SPDX-License-Identifier: MIT
 * Python's two ways to format: "%s" % values and "{}".format(values); see jinja_impl.h. */
#include <math.h>

#include "engine/jinja_impl.h"

typedef struct spec {
    ht_jv fill;
    char align, sign, type, comma;
    bool alternate, zero;
    int64_t width, precision; /* precision -1: none */
} spec;

/* Digits of |i| in a base. */
static ht_jv digits(ht_jj *j, ht_jv v, int base, bool large, bool *minus)
{
    char text[72];
    size_t at = sizeof text;
    if (v.kind == JK_BIG) {
        if (base != 10)
            ht_jfail_here(j, HT_EUNSUPPORTED, "an integer of more than 64 bits");
        *minus = v.s[0] == '-';
        return ht_jstr(v.s + *minus, v.n - *minus);
    }
    int64_t i = 0;
    ht_jas_int(v, &i);
    *minus = i < 0;
    uint64_t u = i < 0 ? 0 - (uint64_t)i : (uint64_t)i;
    do {
        text[--at] = (large ? "0123456789ABCDEF" : "0123456789abcdef")[u % (unsigned)base];
    } while (u /= (unsigned)base);
    ht_jbuf b = { 0 };
    ht_jput(j, &b, text + at, sizeof text - at);
    return ht_jtaken(&b);
}

static ht_jv grouped(ht_jj *j, ht_jv body, char comma, size_t every)
{
    ht_jbuf b = { 0 };
    size_t whole = 0;
    while (whole < body.n && ((body.s[whole] >= '0' && body.s[whole] <= '9') || (every == 4 && body.s[whole] >= 'A' && body.s[whole] != 'e')))
        whole++;
    for (size_t i = 0; i < body.n; i++) {
        if (i && i < whole && (whole - i) % every == 0)
            ht_jputc(j, &b, comma);
        ht_jputc(j, &b, body.s[i]);
    }
    return ht_jtaken(&b);
}

/* Sign, prefix and body in a field. */
static void put_field(ht_jj *j, ht_jbuf *out, const spec *f, const char *sign, ht_jv body)
{
    size_t n = strlen(sign) + ht_ju_count(body.s, body.n);
    int64_t more = f->width > (int64_t)n ? f->width - (int64_t)n : 0;
    if (more > 1 << 24)
        ht_jfail_here(j, HT_ENOMEM, "the template takes too much memory");
    int64_t left = f->align == '>' ? more : f->align == '^' ? more / 2 : 0, inner = f->align == '=' ? more : 0;
    for (int64_t i = 0; i < left; i++)
        ht_jput(j, out, f->fill.s, f->fill.n);
    ht_jputs(j, out, sign);
    for (int64_t i = 0; i < inner; i++)
        ht_jput(j, out, f->fill.s, f->fill.n);
    ht_jput(j, out, body.s, body.n);
    for (int64_t i = left + inner; i < more; i++)
        ht_jput(j, out, f->fill.s, f->fill.n);
}

static void sign_of(char *sign, const spec *f, bool minus)
{
    sign[0] = minus ? '-' : f->sign == '+' || f->sign == ' ' ? f->sign : 0;
    sign[1] = 0;
}

static void put_int(ht_jj *j, ht_jbuf *out, const spec *f, ht_jv v, bool percent)
{
    char sign[8];
    bool minus, large = f->type == 'X';
    int base = f->type == 'x' || f->type == 'X' ? 16 : f->type == 'o' ? 8 : f->type == 'b' ? 2 : 10;
    ht_jv body = digits(j, v, base, large, &minus);
    sign_of(sign, f, minus);
    if (f->alternate && base != 10) {
        size_t n = strlen(sign);
        sign[n] = '0';
        sign[n + 1] = f->type;
        sign[n + 2] = 0;
    }
    if (percent && f->precision > (int64_t)body.n) {
        ht_jbuf b = { 0 };
        if (f->precision > 1 << 20)
            ht_jfail_here(j, HT_EUNSUPPORTED, "a precision of more than 1000000 digits");
        for (int64_t i = (int64_t)body.n; i < f->precision; i++)
            ht_jputc(j, &b, '0');
        ht_jput(j, &b, body.s, body.n);
        body = ht_jtaken(&b);
    }
    spec g = *f;
    if (f->comma) {
        size_t every = base == 10 ? 3 : 4;
        if (f->align == '=' && f->fill.n == 1 && f->fill.s[0] == '0') { /* zeros are grouped as well */
            ht_jbuf b = { 0 };
            int64_t width = f->width - (int64_t)strlen(sign), n = (int64_t)body.n;
            while (n + (n - 1) / (int64_t)every < width && n < 1 << 20) {
                ht_jputc(j, &b, '0');
                n++;
            }
            ht_jput(j, &b, body.s, body.n);
            body = ht_jtaken(&b);
        }
        body = grouped(j, body, f->comma, every);
    }
    put_field(j, out, &g, sign, body);
}

static void put_float(ht_jj *j, ht_jbuf *out, const spec *f, double d)
{
    char sign[8];
    ht_jbuf b = { 0 };
    char type = f->type;
    int64_t precision = f->precision < 0 ? 6 : f->precision;
    sign_of(sign, f, signbit(d) && !isnan(d));
    d = fabs(d);
    if (type == '%')
        d *= 100;
    if (!type && f->precision < 0) {
        ht_jput_float(j, &b, d);
    } else if (!type) { /* as g, but with a digit behind the point, and an exponent from the precision on */
        ht_jput_double(j, &b, 'g', precision ? (int)precision : 1, f->alternate, d);
        ht_jv body = ht_jtaken(&b);
        if (isfinite(d) && !memchr(body.s, '.', body.n) && !memchr(body.s, 'e', body.n)) {
            if ((int64_t)body.n >= (precision ? precision : 1)) {
                b.n = 0;
                ht_jput_double(j, &b, 'e', (int)(precision ? precision : 1) - 1, false, d);
                /* without zeros at the end of the mantissa */
                ht_jv t = ht_jtaken(&b);
                size_t e = 0;
                while (e < t.n && t.s[e] != 'e')
                    e++;
                size_t keep = e;
                if (memchr(t.s, '.', e))
                    while (keep && (t.s[keep - 1] == '0' || t.s[keep - 1] == '.') && keep > 1) {
                        bool point = t.s[--keep] == '.';
                        if (point)
                            break;
                    }
                ht_jbuf c = { 0 };
                ht_jput(j, &c, t.s, keep);
                ht_jput(j, &c, t.s + e, t.n - e);
                b = c;
            } else {
                ht_jputs(j, &b, ".0");
            }
        }
    } else {
        char how = type == '%' ? 'f' : type == 'n' ? 'g' : type;
        ht_jput_double(j, &b, how, (int)(precision > 100000 ? 100000 : precision), f->alternate, d);
    }
    if (type == '%')
        ht_jputc(j, &b, '%');
    ht_jv body = ht_jtaken(&b);
    if (f->comma)
        body = grouped(j, body, f->comma, 3);
    put_field(j, out, f, sign, body);
}

static ht_jv shortened(ht_jv s, int64_t precision)
{
    if (precision >= 0)
        s.n = ht_ju_offset(s.s, s.n, (size_t)precision);
    return s;
}

/* ---- "%s" % values ---- */

typedef struct percent {
    ht_jj *j;
    ht_jv fmt;
    size_t at;
    ht_jv values;
    size_t used;
    bool named;
} percent;

static ht_jv next_value(percent *p)
{
    if (p->values.kind == JK_TUPLE) {
        if (p->used >= p->values.list->n)
            ht_jfail_here(p->j, HT_EINVAL, "not enough arguments for format string");
        return p->values.list->v[p->used++];
    }
    if (p->used++)
        ht_jfail_here(p->j, HT_EINVAL, "not enough arguments for format string");
    return p->values;
}

static int64_t star_or_number(percent *p)
{
    int64_t n = 0;
    if (p->at < p->fmt.n && p->fmt.s[p->at] == '*') {
        p->at++;
        return ht_jneed_int(p->j, next_value(p), "* of a format");
    }
    while (p->at < p->fmt.n && p->fmt.s[p->at] >= '0' && p->fmt.s[p->at] <= '9' && n < 1 << 28)
        n = n * 10 + (p->fmt.s[p->at++] - '0');
    return n;
}

static ht_jv by_name(percent *p)
{
    size_t from = ++p->at;
    int depth = 1;
    while (p->at < p->fmt.n && depth) {
        depth += p->fmt.s[p->at] == '(' ? 1 : p->fmt.s[p->at] == ')' ? -1 : 0;
        p->at++;
    }
    if (depth)
        ht_jfail_here(p->j, HT_EINVAL, "incomplete format key");
    if (p->values.kind != JK_DICT)
        ht_jfail_here(p->j, HT_EINVAL, "format requires a mapping");
    const ht_jv *v = ht_jget(p->j, p->values.dict, ht_jstr(p->fmt.s + from, p->at - from - 1));
    if (!v)
        ht_jfail_here(p->j, HT_EINVAL, "the format names a key that is not there");
    p->named = true;
    return *v;
}

static void put_conversion(percent *p, ht_jbuf *out, spec *f, ht_jv v)
{
    ht_jj *j = p->j;
    ht_jbuf b = { 0 };
    double d;
    if (v.kind == JK_UNDEF && f->type != 's' && f->type != 'r' && f->type != 'a')
        ht_jfail_undefined(j, v);
    if (f->zero && f->align != '<' && !strchr("srac", f->type)) {
        f->align = '=';
        f->fill = HT_JLIT("0");
    }
    switch (f->type) {
    case 's':
    case 'r':
    case 'a':
        if (f->type == 's')
            ht_jput_str(j, &b, p->fmt.markup ? ht_jescape(j, v) : v);
        else
            ht_jput_repr(j, &b, v);
        put_field(j, out, f, "", shortened(ht_jtaken(&b), f->precision));
        return;
    case 'c':
        if (v.kind == JK_STR && ht_ju_count(v.s, v.n) == 1) {
            put_field(j, out, f, "", v);
            return;
        }
        ht_jputu(j, &b, (uint32_t)ht_jneed_int(j, v, "%c"));
        put_field(j, out, f, "", ht_jtaken(&b));
        return;
    case 'd':
    case 'i':
    case 'u':
        if (v.kind == JK_FLOAT) {
            if (!isfinite(v.f) || fabs(v.f) >= 9.2e18)
                ht_jfail_here(j, HT_EINVAL, "the number is too large for %%d");
            v = ht_jint((int64_t)v.f);
        }
        f->type = 'd';
        break;
    case 'x':
    case 'X':
    case 'o': break;
    case 'e':
    case 'E':
    case 'f':
    case 'F':
    case 'g':
    case 'G':
        if (!ht_jas_double(v, &d))
            ht_jfail_here(j, HT_EINVAL, "%%%c needs a number, not %s", f->type, ht_jtype_name(v));
        put_float(j, out, f, d);
        return;
    default: ht_jfail_here(j, HT_EINVAL, "unsupported format character '%c'", f->type);
    }
    if (v.kind != JK_INT && v.kind != JK_BOOL && v.kind != JK_BIG)
        ht_jfail_here(j, HT_EINVAL, "%%%c needs an integer, not %s", f->type, ht_jtype_name(v));
    put_int(j, out, f, v, true);
}

ht_jv ht_jpercent(ht_jj *j, ht_jv fmt, ht_jv values)
{
    percent p = { .j = j, .fmt = fmt, .values = values };
    ht_jbuf out = { 0 };
    while (p.at < fmt.n) {
        const char *mark = memchr(fmt.s + p.at, '%', fmt.n - p.at);
        size_t to = mark ? (size_t)(mark - fmt.s) : fmt.n;
        ht_jput(j, &out, fmt.s + p.at, to - p.at);
        p.at = to + 1;
        if (!mark)
            break;
        spec f = { .fill = HT_JLIT(" "), .align = '>', .precision = -1 };
        ht_jv v = { .kind = HT_JABSENT };
        if (p.at < fmt.n && fmt.s[p.at] == '(')
            v = by_name(&p);
        for (; p.at < fmt.n && strchr("-+ #0", fmt.s[p.at]) && fmt.s[p.at]; p.at++) {
            char c = fmt.s[p.at];
            if (c == '-')
                f.align = '<';
            else if (c == '#')
                f.alternate = true;
            else if (c == '0')
                f.zero = true;
            else if (f.sign != '+')
                f.sign = c;
        }
        f.width = star_or_number(&p);
        if (f.width < 0) {
            f.align = '<';
            f.width = -f.width;
        }
        if (p.at < fmt.n && fmt.s[p.at] == '.') {
            p.at++;
            f.precision = star_or_number(&p);
            f.precision = f.precision < 0 ? 0 : f.precision;
        }
        while (p.at < fmt.n && (fmt.s[p.at] == 'l' || fmt.s[p.at] == 'h' || fmt.s[p.at] == 'L'))
            p.at++;
        if (p.at >= fmt.n)
            ht_jfail_here(j, HT_EINVAL, "incomplete format");
        f.type = fmt.s[p.at++];
        if (f.type == '%') {
            ht_jputc(j, &out, '%');
            continue;
        }
        put_conversion(&p, &out, &f, v.kind == HT_JABSENT ? next_value(&p) : v);
    }
    size_t given = values.kind == JK_TUPLE ? values.list->n : 1;
    bool mapping = values.kind == JK_DICT || values.kind == JK_LIST || values.kind == JK_RANGE || values.kind == JK_UNDEF;
    if (p.used < given && !p.named && !mapping)
        ht_jfail_here(j, HT_EINVAL, "not all arguments converted during string formatting");
    ht_jv v = ht_jtaken(&out);
    v.markup = fmt.markup;
    return v;
}

/* ---- "{}".format(values) ---- */

typedef struct braces {
    ht_jj *j;
    const ht_jargs *a;
    size_t next;
    bool counted, numbered;
} braces;

static bool all_digits(ht_jv s)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.s[i] < '0' || s.s[i] > '9')
            return false;
    return s.n > 0 && s.n < 10;
}

static int64_t to_int(ht_jv s)
{
    int64_t n = 0;
    for (size_t i = 0; i < s.n; i++)
        n = n * 10 + (s.s[i] - '0');
    return n;
}

static ht_jv field_value(braces *f, ht_jv name)
{
    ht_jj *j = f->j;
    size_t at = 0;
    while (at < name.n && name.s[at] != '.' && name.s[at] != '[')
        at++;
    ht_jv first = ht_jstr(name.s, at), v = ht_jnone();
    if (!first.n || all_digits(first)) {
        *(first.n ? &f->numbered : &f->counted) = true;
        if (f->numbered && f->counted)
            ht_jfail_here(j, HT_EINVAL, "format: fields with and without numbers");
        size_t i = first.n ? (size_t)to_int(first) : f->next++;
        if (i >= f->a->n)
            ht_jfail_here(j, HT_EINVAL, "format: there is no value %zu", i);
        v = f->a->v[i];
    } else {
        bool there = false;
        for (size_t i = 0; i < f->a->n_kw && !there; i++)
            if (f->a->kw[i].name.kind == JK_STR && f->a->kw[i].name.n == first.n && memcmp(f->a->kw[i].name.s, first.s, first.n) == 0) {
                v = f->a->kw[i].v;
                there = true;
            }
        if (!there)
            ht_jfail_here(j, HT_EINVAL, "format: there is no value '%.*s'", first.n < 60 ? (int)first.n : 60, first.s);
    }
    while (at < name.n) {
        size_t from = at + 1;
        bool attr = name.s[at] == '.';
        for (at = from; at < name.n && (attr ? name.s[at] != '.' && name.s[at] != '[' : name.s[at] != ']');)
            at++;
        ht_jv part = ht_jstr(name.s + from, at - from);
        v = attr ? ht_jattr(j, v, part) : ht_jitem(j, v, all_digits(part) ? ht_jint(to_int(part)) : part);
        at += !attr;
    }
    return v;
}

static spec read_spec(ht_jj *j, ht_jv s)
{
    spec f = { .fill = HT_JLIT(" "), .precision = -1 };
    uint32_t c;
    size_t at = 0, k = s.n ? ht_ju_next(s.s, s.n, &c) : 0;
    if (k && k < s.n && strchr("<>=^", s.s[k])) {
        f.fill = ht_jstr(s.s, k);
        f.align = s.s[k];
        at = k + 1;
    } else if (s.n && strchr("<>=^", s.s[0])) {
        f.align = s.s[0];
        at = 1;
    }
    if (at < s.n && s.s[at] && strchr("+- ", s.s[at]))
        f.sign = s.s[at++];
    if (at < s.n && s.s[at] == '#') {
        f.alternate = true;
        at++;
    }
    if (at < s.n && s.s[at] == '0') {
        f.zero = true;
        at++;
    }
    while (at < s.n && s.s[at] >= '0' && s.s[at] <= '9' && f.width < 1 << 28)
        f.width = f.width * 10 + (s.s[at++] - '0');
    if (at < s.n && (s.s[at] == ',' || s.s[at] == '_'))
        f.comma = s.s[at++];
    if (at < s.n && s.s[at] == '.') {
        f.precision = 0;
        if (++at >= s.n || s.s[at] < '0' || s.s[at] > '9')
            ht_jfail_here(j, HT_EINVAL, "Format specifier missing precision");
        while (at < s.n && s.s[at] >= '0' && s.s[at] <= '9' && f.precision < 1 << 28)
            f.precision = f.precision * 10 + (s.s[at++] - '0');
    }
    if (at < s.n)
        f.type = s.s[at++];
    if (at < s.n)
        ht_jfail_here(j, HT_EINVAL, "Invalid format specifier");
    return f;
}

static void put_formatted(ht_jj *j, ht_jbuf *out, ht_jv v, ht_jv how)
{
    ht_jbuf b = { 0 };
    double d = 0;
    bool number = v.kind == JK_INT || v.kind == JK_BIG || v.kind == JK_FLOAT || v.kind == JK_BOOL;
    if (!how.n) {
        ht_jput_str(j, out, v);
        return;
    }
    spec f = read_spec(j, how);
    if (!number) {
        if (v.kind != JK_STR || (f.type && f.type != 's') || f.align == '=' || f.sign || f.comma || f.alternate)
            ht_jfail_here(j, HT_EINVAL, "unsupported format string passed to %s.__format__", ht_jtype_name(v));
        if (f.zero && !f.align)
            f.fill = HT_JLIT("0");
        f.align = f.align ? f.align : '<';
        put_field(j, out, &f, "", shortened(v, f.precision));
        return;
    }
    if (f.zero && !f.align) {
        f.align = '=';
        f.fill = HT_JLIT("0");
    }
    f.align = f.align ? f.align : '>';
    bool floating = v.kind == JK_FLOAT || (f.type && strchr("eEfFgG%", f.type));
    if (floating) {
        if (f.type && !strchr("eEfFgG%n", f.type))
            ht_jfail_here(j, HT_EINVAL, "Unknown format code '%c' for object of type 'float'", f.type);
        ht_jas_double(v, &d);
        put_float(j, out, &f, d);
        return;
    }
    if (v.kind == JK_BOOL && !f.type) { /* as the integer that it is */
        put_field(j, out, &f, "", v.b ? HT_JLIT("1") : HT_JLIT("0"));
        return;
    }
    if (f.precision >= 0)
        ht_jfail_here(j, HT_EINVAL, "Precision not allowed in integer format specifier");
    if (f.type == 'c') {
        ht_jputu(j, &b, (uint32_t)ht_jneed_int(j, v, "c"));
        put_field(j, out, &f, "", ht_jtaken(&b));
        return;
    }
    if (f.type && !strchr("bdoxXn", f.type))
        ht_jfail_here(j, HT_EINVAL, "Unknown format code '%c' for object of type 'int'", f.type);
    put_int(j, out, &f, v, false);
}

static void put_braces(braces *f, ht_jbuf *out, ht_jv fmt, int depth)
{
    ht_jj *j = f->j;
    for (size_t i = 0; i < fmt.n;) {
        char c = fmt.s[i];
        if ((c == '{' || c == '}') && i + 1 < fmt.n && fmt.s[i + 1] == c) {
            ht_jputc(j, out, c);
            i += 2;
            continue;
        }
        if (c == '}')
            ht_jfail_here(j, HT_EINVAL, "Single '}' encountered in format string");
        if (c != '{') {
            ht_jputc(j, out, c);
            i++;
            continue;
        }
        size_t from = ++i, name_end, level = 1;
        bool bracket = false;
        while (i < fmt.n && (bracket || (fmt.s[i] != '!' && fmt.s[i] != ':' && fmt.s[i] != '}'))) {
            bracket = fmt.s[i] == '[' ? true : fmt.s[i] == ']' ? false : bracket;
            i++;
        }
        name_end = i;
        char conversion = 0;
        if (i + 1 < fmt.n && fmt.s[i] == '!') {
            conversion = fmt.s[i + 1];
            i += 2;
        }
        ht_jv how = HT_JLIT("");
        if (i < fmt.n && fmt.s[i] == ':') {
            size_t begin = ++i;
            while (i < fmt.n && level) {
                level += fmt.s[i] == '{' ? 1 : fmt.s[i] == '}' ? -1 : 0;
                i += level != 0;
            }
            how = ht_jstr(fmt.s + begin, i - begin);
        }
        if (i >= fmt.n || fmt.s[i] != '}')
            ht_jfail_here(j, HT_EINVAL, "expected '}' before end of string");
        i++;
        ht_jv v = field_value(f, ht_jstr(fmt.s + from, name_end - from));
        if (conversion) {
            ht_jbuf b = { 0 };
            if (conversion == 'r' || conversion == 'a')
                ht_jput_repr(j, &b, v);
            else if (conversion == 's')
                ht_jput_str(j, &b, v);
            else
                ht_jfail_here(j, HT_EINVAL, "Unknown conversion specifier");
            v = ht_jtaken(&b);
        }
        if (memchr(how.s, '{', how.n)) {
            ht_jbuf b = { 0 };
            if (depth > 0)
                ht_jfail_here(j, HT_EINVAL, "Max string recursion exceeded");
            put_braces(f, &b, how, depth + 1);
            how = ht_jtaken(&b);
        }
        put_formatted(j, out, v, how);
    }
}

ht_jv ht_jstr_format(ht_jj *j, ht_jv fmt, const ht_jargs *a)
{
    braces f = { .j = j, .a = a };
    ht_jbuf out = { 0 };
    put_braces(&f, &out, fmt, 0);
    ht_jv v = ht_jtaken(&out);
    v.markup = fmt.markup;
    return v;
}
