/* SPDX-License-Identifier: MIT
 * Methods of texts; places in a text count characters. See jinja_impl.h. */
#include "engine/jinja_impl.h"

const char *const ht_jstr_methods[] = {
    "capitalize", "casefold", "center", "count", "endswith", "expandtabs", "find", "format", "format_map", "index", "isalnum",
    "isalpha", "isascii", "isdecimal", "isdigit", "isidentifier", "islower", "isnumeric", "isprintable", "isspace", "istitle",
    "isupper", "join", "ljust", "lower", "lstrip", "partition", "removeprefix", "removesuffix", "replace", "rfind", "rindex",
    "rjust", "rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "swapcase", "title", "upper",
    "zfill", NULL };

static bool is(const char *name, const char *other) { return !strcmp(name, other); }

static ht_jv need_text(ht_jj *j, ht_jv v, const char *name)
{
    if (v.kind == JK_UNDEF)
        ht_jfail_undefined(j, v);
    if (v.kind != JK_STR)
        ht_jfail_here(j, HT_EINVAL, "%s needs a text, not %s", name, ht_jtype_name(v));
    return v;
}

static const char *find_in(const char *s, size_t n, ht_jv what)
{
    return what.n == 0 ? s : n ? memmem(s, n, what.s, what.n) : NULL;
}

static ht_jv marked(ht_jv v, bool markup)
{
    v.markup = markup;
    return v;
}

/* ---- Case ---- */

static ht_jv upper(ht_jj *j, ht_jv s)
{
    ht_jbuf b = { 0 };
    uint32_t c;
    ht_jsteps(j, s.n / 8);
    for (size_t i = 0, k; i < s.n; i += k) {
        k = ht_ju_next(s.s + i, s.n - i, &c);
        if (c < 0x110000)
            ht_ju_upper(j, &b, c);
        else
            ht_jput(j, &b, s.s + i, k);
    }
    return ht_jtaken(&b);
}

/* title: every word; else the first character alone (capitalize). */
static ht_jv title(ht_jj *j, ht_jv s, bool words)
{
    ht_jbuf b = { 0 };
    uint32_t c;
    ht_jv low = ht_ju_lower(j, s);
    bool inside = false;
    for (size_t i = 0, at = 0, k; i < s.n; i += k) {
        k = ht_ju_next(s.s + i, s.n - i, &c);
        /* The same character of the text in small letters; U+0130 becomes two. */
        uint32_t d;
        size_t m = ht_ju_next(low.s + at, low.n - at, &d) + (c == 0x130 ? 2 : 0);
        if (!inside && c < 0x110000)
            ht_ju_title(j, &b, c);
        else
            ht_jput(j, &b, low.s + at, m);
        at += m;
        inside = words ? ht_ju_cased(c) : true;
    }
    return ht_jtaken(&b);
}

static ht_jv swapcase(ht_jj *j, ht_jv s)
{
    ht_jbuf b = { 0 };
    uint32_t c;
    for (size_t i = 0, k; i < s.n; i += k) {
        k = ht_ju_next(s.s + i, s.n - i, &c);
        ht_jv one = ht_jstr(s.s + i, k);
        if (ht_ju_is_upper(c))
            one = ht_ju_lower(j, one);
        else if (ht_ju_is_lower(c))
            one = upper(j, one);
        ht_jput(j, &b, one.s, one.n);
    }
    return ht_jtaken(&b);
}

/* ---- What a text is made of ---- */

static bool consists(ht_jv s, const char *name)
{
    uint32_t c;
    bool any = false, before = false;
    if (is(name, "isascii") || is(name, "isprintable")) {
        for (size_t i = 0; i < s.n;) {
            i += ht_ju_next(s.s + i, s.n - i, &c);
            if (is(name, "isascii") ? c > 127 : !ht_ju_shown(c))
                return false;
        }
        return true;
    }
    for (size_t i = 0; i < s.n;) {
        i += ht_ju_next(s.s + i, s.n - i, &c);
        bool cased = ht_ju_cased(c);
        if (is(name, "islower") || is(name, "isupper")) {
            if (cased && (is(name, "islower") ? !ht_ju_is_lower(c) : !ht_ju_is_upper(c)))
                return false;
            any |= cased;
        } else if (is(name, "istitle")) {
            bool big = ht_ju_is_upper(c) || ht_ju_is_title(c);
            if (cased && big == before)
                return false;
            any |= cased;
            before = cased;
        } else {
            bool fits = is(name, "isalnum")     ? ht_ju_alnum(c)
                        : is(name, "isalpha")   ? ht_ju_alpha(c)
                        : is(name, "isspace")   ? ht_ju_space(c)
                        : is(name, "isnumeric") ? ht_ju_alnum(c) && !ht_ju_alpha(c)
                        : is(name, "isidentifier")
                            ? ht_ju_alpha(c) || c == '_' || (any && ht_ju_digit(c))
                            : ht_ju_digit(c) && !(is(name, "isdecimal") && (c == 0xB2 || c == 0xB3 || c == 0xB9));
            if (!fits)
                return false;
            any = true;
        }
    }
    return any;
}

/* ---- Cutting ---- */

static void push(ht_jj *j, ht_jlist *l, ht_jv s, size_t from, size_t to)
{
    ht_jappend(j, l, marked(ht_jstr(s.s + from, to - from), s.markup));
}

static void reverse(ht_jlist *l)
{
    for (size_t i = 0; i < l->n / 2; i++) {
        ht_jv v = l->v[i];
        l->v[i] = l->v[l->n - 1 - i];
        l->v[l->n - 1 - i] = v;
    }
}

static ht_jv split_spaces(ht_jj *j, ht_jv s, int64_t most, bool right)
{
    ht_jv l = ht_jnew_list(j, 0, JK_LIST);
    uint32_t c;
    s = ht_ju_strip(s, NULL, !right, right); /* what is left over keeps the white space of its other side */
    if (right) {
        size_t end = s.n;
        while (end && most--) {
            ht_jv head = ht_jstr(s.s, end);
            size_t at = end;
            /* Back to the last white space; characters are found by trimming from the right. */
            while (at && ht_ju_strip(ht_jstr(s.s, at), NULL, false, true).n == at) {
                at--;
                while (at && ((uint8_t)s.s[at] & 0xC0) == 0x80)
                    at--;
            }
            push(j, l.list, s, at, end);
            end = ht_ju_strip(ht_jstr(head.s, at), NULL, false, true).n;
        }
        if (end)
            push(j, l.list, s, 0, end);
        reverse(l.list);
        return l;
    }
    for (size_t i = 0; i < s.n;) {
        size_t from = i, end = i;
        if (!most--) {
            push(j, l.list, s, from, s.n);
            break;
        }
        while (end < s.n) {
            size_t k = ht_ju_next(s.s + end, s.n - end, &c);
            if (ht_ju_space(c))
                break;
            end += k;
        }
        push(j, l.list, s, from, end);
        for (i = end; i < s.n;) {
            size_t k = ht_ju_next(s.s + i, s.n - i, &c);
            if (!ht_ju_space(c))
                break;
            i += k;
        }
    }
    return l;
}

static ht_jv split(ht_jj *j, ht_jv s, const ht_jargs *a, bool right)
{
    static const char *const names[] = { "sep", "maxsplit" };
    ht_jv v[2];
    ht_jbind(j, right ? "rsplit" : "split", a, names, 2, 0, v);
    int64_t most = v[1].kind == HT_JABSENT ? -1 : ht_jneed_int(j, v[1], "maxsplit");
    ht_jsteps(j, s.n / 16);
    if (v[0].kind == HT_JABSENT || v[0].kind == JK_NONE)
        return split_spaces(j, s, most < 0 ? INT64_MAX : most, right);
    ht_jv sep = need_text(j, v[0], "split"), l = ht_jnew_list(j, 0, JK_LIST);
    if (!sep.n)
        ht_jfail_here(j, HT_EINVAL, "split: empty separator");
    if (right) {
        size_t end = s.n;
        for (size_t at = s.n; most && at >= sep.n;) {
            if (memcmp(s.s + at - sep.n, sep.s, sep.n) == 0) {
                push(j, l.list, s, at, end);
                end = at -= sep.n;
                most--;
            } else {
                at--;
            }
        }
        push(j, l.list, s, 0, end);
        reverse(l.list);
        return l;
    }
    size_t from = 0;
    for (const char *p; most && (p = find_in(s.s + from, s.n - from, sep)); most--) {
        push(j, l.list, s, from, (size_t)(p - s.s));
        from = (size_t)(p - s.s) + sep.n;
    }
    push(j, l.list, s, from, s.n);
    return l;
}

static ht_jv partition(ht_jj *j, ht_jv s, ht_jv sep, bool right)
{
    ht_jv t = ht_jnew_list(j, 3, JK_TUPLE);
    const char *p = NULL;
    if (!sep.n)
        ht_jfail_here(j, HT_EINVAL, "partition: empty separator");
    if (right) {
        for (size_t at = s.n; !p && at >= sep.n; at--)
            if (memcmp(s.s + at - sep.n, sep.s, sep.n) == 0)
                p = s.s + at - sep.n;
    } else {
        p = find_in(s.s, s.n, sep);
    }
    if (!p) {
        ht_jappend(j, t.list, right ? HT_JLIT("") : s);
        ht_jappend(j, t.list, HT_JLIT(""));
        ht_jappend(j, t.list, right ? s : HT_JLIT(""));
        return t;
    }
    size_t at = (size_t)(p - s.s);
    push(j, t.list, s, 0, at);
    ht_jappend(j, t.list, sep);
    push(j, t.list, s, at + sep.n, s.n);
    return t;
}

static ht_jv splitlines(ht_jj *j, ht_jv s, const ht_jargs *a)
{
    static const char *const names[] = { "keepends" };
    ht_jv v[1], l = ht_jnew_list(j, 0, JK_LIST), line;
    ht_jbind(j, "splitlines", a, names, 1, 0, v);
    size_t at = 0;
    while (ht_ju_line(s, &at, v[0].kind != HT_JABSENT && ht_jtrue(v[0]), &line))
        ht_jappend(j, l.list, line);
    return l;
}

/* ---- Finding ---- */

/* Bytes of the part of s that the places a->v[1] and a->v[2] name; false: it lies outside. */
static bool part(ht_jj *j, ht_jv s, const ht_jargs *a, size_t *from, size_t *to)
{
    *from = 0;
    *to = s.n;
    if (a->n < 2)
        return true;
    int64_t n = (int64_t)ht_ju_count(s.s, s.n), x = 0, y = n;
    if (a->v[1].kind != JK_NONE)
        x = ht_jneed_int(j, a->v[1], "a place");
    if (a->n > 2 && a->v[2].kind != JK_NONE)
        y = ht_jneed_int(j, a->v[2], "a place");
    x += x < 0 ? n : 0;
    y += y < 0 ? n : 0;
    x = x < 0 ? 0 : x;
    y = y < 0 ? 0 : y > n ? n : y;
    if (x > y)
        return false;
    *from = ht_ju_offset(s.s, s.n, (size_t)x);
    *to = *from + ht_ju_offset(s.s + *from, s.n - *from, (size_t)(y - x));
    return true;
}

static bool begins_or_ends(ht_jj *j, ht_jv s, const ht_jargs *a, bool ends)
{
    size_t from, to;
    const ht_jlist one = { (ht_jv *)&a->v[0], 1, 1 }, *l = a->v[0].kind == JK_TUPLE ? a->v[0].list : &one;
    bool inside = part(j, s, a, &from, &to);
    for (size_t i = 0; i < l->n; i++) {
        ht_jv t = need_text(j, l->v[i], ends ? "endswith" : "startswith");
        if (inside && t.n <= to - from && memcmp(ends ? s.s + to - t.n : s.s + from, t.s, t.n) == 0)
            return true;
    }
    return false;
}

static ht_jv find(ht_jj *j, ht_jv s, const ht_jargs *a, const char *name)
{
    size_t from, to;
    bool right = name[0] == 'r';
    ht_jv what = need_text(j, a->v[0], name);
    const char *p = NULL;
    ht_jsteps(j, s.n / 16);
    if (part(j, s, a, &from, &to)) {
        if (!right)
            p = find_in(s.s + from, to - from, what);
        for (size_t at = to; right && !p && at >= from + what.n; at--)
            if (memcmp(s.s + at - what.n, what.s, what.n) == 0)
                p = s.s + at - what.n;
    }
    if (p)
        return ht_jint((int64_t)ht_ju_count(s.s, (size_t)(p - s.s)));
    if (name[right] == 'i')
        ht_jfail_here(j, HT_EINVAL, "%s: substring not found", name);
    return ht_jint(-1);
}

static ht_jv count(ht_jj *j, ht_jv s, const ht_jargs *a)
{
    size_t from, to;
    int64_t n = 0;
    ht_jv what = need_text(j, a->v[0], "count");
    if (!part(j, s, a, &from, &to))
        return ht_jint(0);
    if (!what.n)
        return ht_jint((int64_t)ht_ju_count(s.s + from, to - from) + 1);
    for (const char *p; (p = find_in(s.s + from, to - from, what)); n++)
        from = (size_t)(p - s.s) + what.n;
    return ht_jint(n);
}

static ht_jv replace(ht_jj *j, ht_jv s, const ht_jargs *a)
{
    ht_jv old = need_text(j, a->v[0], "replace"), new = need_text(j, a->v[1], "replace");
    int64_t most = a->n > 2 ? ht_jneed_int(j, a->v[2], "the count of replace") : -1;
    ht_jbuf b = { 0 };
    size_t from = 0;
    uint32_t c;
    ht_jsteps(j, s.n / 16);
    if (s.markup)
        new = ht_jescape(j, new);
    if (!old.n) {
        for (; most && from <= s.n; most--) {
            ht_jput(j, &b, new.s, new.n);
            ht_jsteps(j, 1);
            if (from == s.n)
                return marked(ht_jtaken(&b), s.markup);
            size_t k = ht_ju_next(s.s + from, s.n - from, &c);
            ht_jput(j, &b, s.s + from, k);
            from += k;
        }
    } else {
        for (const char *p; most && (p = find_in(s.s + from, s.n - from, old)); most--) {
            size_t at = (size_t)(p - s.s);
            ht_jput(j, &b, s.s + from, at - from);
            ht_jput(j, &b, new.s, new.n);
            ht_jsteps(j, 1);
            from = at + old.n;
        }
    }
    ht_jput(j, &b, s.s + from, s.n - from);
    return marked(ht_jtaken(&b), s.markup);
}

/* ---- Width ---- */

static ht_jv pad(ht_jj *j, ht_jv s, const ht_jargs *a, const char *name)
{
    int64_t width = ht_jneed_int(j, a->v[0], "a width"), n = (int64_t)ht_ju_count(s.s, s.n);
    ht_jv fill = a->n > 1 ? need_text(j, a->v[1], name) : HT_JLIT(" ");
    ht_jbuf b = { 0 };
    if (ht_ju_count(fill.s, fill.n) != 1)
        ht_jfail_here(j, HT_EINVAL, "%s fills with one character", name);
    if (width <= n)
        return s;
    int64_t more = width - n, left = name[0] == 'l' ? 0 : name[0] == 'r' ? more : more / 2 + (more & width & 1);
    if (more > (int64_t)1 << 32)
        ht_jfail_here(j, HT_ENOMEM, "the template takes too much memory");
    for (int64_t i = 0; i < left; i++)
        ht_jput(j, &b, fill.s, fill.n);
    ht_jput(j, &b, s.s, s.n);
    for (int64_t i = left; i < more; i++)
        ht_jput(j, &b, fill.s, fill.n);
    ht_jsteps(j, (uint64_t)more / 8);
    return marked(ht_jtaken(&b), s.markup);
}

static ht_jv zfill(ht_jj *j, ht_jv s, int64_t width)
{
    ht_jbuf b = { 0 };
    int64_t n = (int64_t)ht_ju_count(s.s, s.n);
    size_t sign = s.n && (s.s[0] == '-' || s.s[0] == '+');
    if (width > (int64_t)1 << 32)
        ht_jfail_here(j, HT_ENOMEM, "the template takes too much memory");
    ht_jput(j, &b, s.s, sign);
    for (; n < width; n++)
        ht_jputc(j, &b, '0');
    ht_jput(j, &b, s.s + sign, s.n - sign);
    return ht_jtaken(&b);
}

static ht_jv expandtabs(ht_jj *j, ht_jv s, const ht_jargs *a)
{
    static const char *const names[] = { "tabsize" };
    ht_jv v[1];
    ht_jbuf b = { 0 };
    ht_jbind(j, "expandtabs", a, names, 1, 0, v);
    int64_t size = v[0].kind == HT_JABSENT ? 8 : ht_jneed_int(j, v[0], "tabsize"), column = 0;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.s[i];
        if (c == '\t') {
            for (int64_t k = size > 0 ? size - column % size : 0; k > 0; k--, column++)
                ht_jputc(j, &b, ' ');
            continue;
        }
        ht_jputc(j, &b, c);
        column = c == '\n' || c == '\r' ? 0 : column + (((uint8_t)c & 0xC0) != 0x80);
    }
    return ht_jtaken(&b);
}

static ht_jv join(ht_jj *j, ht_jv s, ht_jv items)
{
    const ht_jlist *l = ht_jelements(j, items);
    ht_jbuf b = { 0 };
    for (size_t i = 0; i < l->n; i++) {
        if (l->v[i].kind != JK_STR)
            ht_jfail_here(j, HT_EINVAL, "join: element %zu is a %s, not a text", i, ht_jtype_name(l->v[i]));
        if (i)
            ht_jput(j, &b, s.s, s.n);
        ht_jv t = s.markup ? ht_jescape(j, l->v[i]) : l->v[i];
        ht_jput(j, &b, t.s, t.n);
    }
    return marked(ht_jtaken(&b), s.markup);
}

ht_jv ht_jmethod_str(ht_jj *j, ht_jv s, const char *name, const ht_jargs *a)
{
    if (is(name, "split") || is(name, "rsplit"))
        return split(j, s, a, name[0] == 'r');
    if (is(name, "splitlines"))
        return splitlines(j, s, a);
    if (is(name, "format"))
        return ht_jstr_format(j, s, a);
    if (is(name, "expandtabs"))
        return expandtabs(j, s, a);
    size_t least = 0, most = 0;
    if (strstr(" startswith endswith find rfind index rindex count ", name))
        least = 1, most = 3;
    else if (is(name, "replace"))
        least = 2, most = 3;
    else if (strstr(" strip lstrip rstrip ", name))
        most = 1;
    else if (strstr(" center ljust rjust ", name))
        least = 1, most = 2;
    else if (strstr(" zfill join partition rpartition removeprefix removesuffix format_map ", name))
        least = most = 1;
    if (a->n < least || a->n > most || a->n_kw)
        ht_jfail_here(j, HT_EINVAL, "%s takes %zu to %zu arguments without names", name, least, most);
    if (is(name, "lower") || is(name, "casefold"))
        return marked(ht_ju_lower(j, s), s.markup);
    if (is(name, "upper"))
        return marked(upper(j, s), s.markup);
    if (is(name, "title") || is(name, "capitalize"))
        return marked(title(j, s, name[0] == 't'), s.markup);
    if (is(name, "swapcase"))
        return marked(swapcase(j, s), s.markup);
    if (is(name, "strip") || is(name, "lstrip") || is(name, "rstrip")) {
        ht_jv chars = a->n && a->v[0].kind != JK_NONE ? need_text(j, a->v[0], name) : ht_jnone();
        ht_jsteps(j, s.n / 64);
        return ht_ju_strip(s, chars.kind == JK_STR ? &chars : NULL, name[0] != 'r', name[0] != 'l');
    }
    if (is(name, "startswith") || is(name, "endswith"))
        return ht_jbool(begins_or_ends(j, s, a, name[0] == 'e'));
    if (is(name, "find") || is(name, "rfind") || is(name, "index") || is(name, "rindex"))
        return find(j, s, a, name);
    if (is(name, "count"))
        return count(j, s, a);
    if (is(name, "replace"))
        return replace(j, s, a);
    if (is(name, "center") || is(name, "ljust") || is(name, "rjust"))
        return pad(j, s, a, name);
    if (is(name, "zfill"))
        return zfill(j, s, ht_jneed_int(j, a->v[0], "a width"));
    if (is(name, "join"))
        return join(j, s, a->v[0]);
    if (is(name, "partition") || is(name, "rpartition"))
        return partition(j, s, need_text(j, a->v[0], name), name[0] == 'r');
    if (is(name, "removeprefix") || is(name, "removesuffix")) {
        ht_jv t = need_text(j, a->v[0], name);
        bool end = name[6] == 's';
        if (t.n && t.n <= s.n && memcmp(end ? s.s + s.n - t.n : s.s, t.s, t.n) == 0) {
            s.s += end ? 0 : t.n;
            s.n -= t.n;
        }
        return s;
    }
    if (is(name, "format_map")) {
        if (a->v[0].kind != JK_DICT)
            ht_jfail_here(j, HT_EINVAL, "format_map needs a dict, not %s", ht_jtype_name(a->v[0]));
        const ht_jdict *d = a->v[0].dict;
        ht_jkw *kw = ht_jalloc(j, (d->n + 1) * sizeof *kw);
        for (size_t i = 0; i < d->n; i++)
            kw[i] = (ht_jkw){ d->e[i].key, d->e[i].value };
        return ht_jstr_format(j, s, &(ht_jargs){ NULL, 0, kw, d->n });
    }
    return ht_jbool(consists(s, name)); /* the is… methods are what is left */
}
