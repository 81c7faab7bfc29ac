/* SPDX-License-Identifier: MIT
 * Filters over sequences, with the arguments and answers of jinja2's; see jinja_impl.h. What is a generator there is an iterator
 * here: it is used up by the first look at it, and has no length. */
#include "engine/jinja_impl.h"

#define BIND(fn, min, ...)                                                                                             \
    static const char *const names[] = { __VA_ARGS__ };                                                                \
    ht_jv g[sizeof names / sizeof *names];                                                                             \
    ht_jbind(j, fn, a, names, sizeof names / sizeof *names, min, g)
#define GIVEN(i) (g[i].kind != HT_JABSENT)

static void nothing(ht_jj *j, const char *fn, const ht_jargs *a)
{
    if (a->n || a->n_kw)
        ht_jfail_here(j, HT_EINVAL, "the filter %s takes no arguments", fn);
}

/* ---- Attributes by path: "a.b.0" ---- */

static ht_jv by_path(ht_jj *j, ht_jv v, ht_jv path, ht_jv fallback)
{
    if (path.kind == HT_JABSENT || path.kind == JK_NONE)
        return v;
    if (path.kind != JK_STR) {
        v = ht_jitem(j, v, path);
        return v.kind == JK_UNDEF && fallback.kind != HT_JABSENT && fallback.kind != JK_NONE ? fallback : v;
    }
    for (size_t at = 0; at <= path.n;) {
        size_t end = at;
        bool number = true;
        int64_t i = 0;
        for (; end < path.n && path.s[end] != '.'; end++) {
            number &= path.s[end] >= '0' && path.s[end] <= '9' && end - at < 9;
            i = number ? i * 10 + (path.s[end] - '0') : 0;
        }
        number &= end > at;
        v = ht_jitem(j, v, number ? ht_jint(i) : ht_jstr(path.s + at, end - at));
        if (v.kind == JK_UNDEF && fallback.kind != HT_JABSENT && fallback.kind != JK_NONE)
            v = fallback;
        at = end + 1;
    }
    return v;
}

static const ht_jv absent = { .kind = HT_JABSENT };

static ht_jv folded(ht_jj *j, ht_jv v, bool case_sensitive)
{
    return !case_sensitive && v.kind == JK_STR ? ht_ju_lower(j, v) : v;
}

/* ---- Order ---- */

typedef struct keyed {
    ht_jv key, v;
} keyed;

static bool less(ht_jj *j, ht_jv a, ht_jv b) { return ht_jcmp(j, a, b, "<") == -1; }

/* Stable; reversed keeps the order of equals too. */
static void merge_sort(ht_jj *j, keyed *v, keyed *spare, size_t n, bool reversed)
{
    if (n < 2)
        return;
    size_t half = n / 2, i = 0, k = half, at = 0;
    merge_sort(j, v, spare, half, reversed);
    merge_sort(j, v + half, spare, n - half, reversed);
    while (i < half && k < n) {
        bool right = reversed ? less(j, v[i].key, v[k].key) : less(j, v[k].key, v[i].key);
        spare[at++] = right ? v[k++] : v[i++];
    }
    while (i < half)
        spare[at++] = v[i++];
    while (k < n)
        spare[at++] = v[k++];
    memcpy(v, spare, n * sizeof *v);
}

/* The elements in order; key: of an element, ready made. */
static ht_jv sorted(ht_jj *j, const ht_jlist *l, const ht_jv *keys, bool reversed)
{
    keyed *v = ht_jalloc(j, (2 * l->n + 1) * sizeof *v);
    for (size_t i = 0; i < l->n; i++)
        v[i] = (keyed){ keys[i], l->v[i] };
    merge_sort(j, v, v + l->n, l->n, reversed);
    ht_jv out = ht_jnew_list(j, l->n, JK_LIST);
    for (size_t i = 0; i < l->n; i++)
        ht_jappend(j, out.list, v[i].v);
    return out;
}

static ht_jv f_sort(ht_jj *j, ht_jv v, const ht_jargs *a)
{
    BIND("sort", 0, "reverse", "case_sensitive", "attribute");
    const ht_jlist *l = ht_jelements(j, v);
    bool sensitive = GIVEN(1) && ht_jtrue(g[1]);
    ht_jv *keys = ht_jalloc(j, (l->n + 1) * sizeof *keys);
    for (size_t i = 0; i < l->n; i++) {
        if (!GIVEN(2) || g[2].kind != JK_STR) {
            keys[i] = folded(j, by_path(j, l->v[i], g[2], absent), sensitive);
            continue;
        }
        keys[i] = ht_jnew_list(j, 2, JK_LIST); /* "a,b": by a, then by b */
        for (size_t at = 0; at <= g[2].n;) {
            const char *comma = memchr(g[2].s + at, ',', g[2].n - at);
            size_t end = comma ? (size_t)(comma - g[2].s) : g[2].n;
            ht_jappend(j, keys[i].list, folded(j, by_path(j, l->v[i], ht_jstr(g[2].s + at, end - at), absent), sensitive));
            at = end + 1;
        }
    }
    return sorted(j, l, keys, GIVEN(0) && ht_jtrue(g[0]));
}

static ht_jv f_dictsort(ht_jj *j, ht_jv v, const ht_jargs *a)
{
    BIND("dictsort", 0, "case_sensitive", "by", "reverse");
    if (v.kind == JK_UNDEF)
        ht_jfail_undefined(j, v);
    if (v.kind != JK_DICT)
        ht_jfail_here(j, HT_EINVAL, "dictsort needs a dict, not %s", ht_jtype_name(v));
    bool by_value = GIVEN(1) && ht_jis(g[1], "value");
    if (GIVEN(1) && !by_value && !ht_jis(g[1], "key"))
        ht_jfail_here(j, HT_EINVAL, "You can only sort by either \"key\" or \"value\"");
    ht_jview items = { v.dict, 'i' };
    const ht_jlist *l = ht_jelements(j, (ht_jv){ .kind = JK_VIEW, .view = &items });
    ht_jv *keys = ht_jalloc(j, (l->n + 1) * sizeof *keys);
    for (size_t i = 0; i < l->n; i++)
        keys[i] = folded(j, l->v[i].list->v[by_value], GIVEN(0) && ht_jtrue(g[0]));
    return sorted(j, l, keys, GIVEN(2) && ht_jtrue(g[2]));
}

static ht_jv f_unique(ht_jj *j, ht_jv v, const ht_jargs *a)
{
    BIND("unique", 0, "case_sensitive", "attribute");
    const ht_jlist *l = ht_jelements(j, v);
    ht_jv seen = ht_jnew_dict(j, JK_DICT), out = ht_jnew_list(j, 0, JK_LIST);
    for (size_t i = 0; i < l->n; i++) {
        ht_jv key = folded(j, by_path(j, l->v[i], g[1], absent), GIVEN(0) && ht_jtrue(g[0]));
        size_t n = seen.dict->n;
        ht_jset(j, seen.dict, key, ht_jnone());
        if (seen.dict->n > n)
            ht_jappend(j, out.list, l->v[i]);
    }
    return ht_jnew_iter(j, out.list, "generator");
}

static ht_jv least_or_most(ht_jj *j, ht_jv v, const ht_jargs *a, bool most)
{
    BIND(most ? "max" : "min", 0, "case_sensitive", "attribute");
    const ht_jlist *l = ht_jelements(j, v);
    ht_jv best = ht_jnone(), best_key = ht_jnone();
    if (!l->n)
        return ht_jundefined(j, "No aggregated item, sequence was empty.");
    for (size_t i = 0; i < l->n; i++) {
        ht_jv key = folded(j, by_path(j, l->v[i], g[1], absent), GIVEN(0) && ht_jtrue(g[0]));
        if (!i || (most ? ht_jcmp(j, key, best_key, ">") == 1 : less(j, key, best_key))) {
            best = l->v[i];
            best_key = key;
        }
    }
    return best;
}

static ht_jv f_min(ht_jj *j, ht_jv v, const ht_jargs *a) { return least_or_most(j, v, a, false); }
static ht_jv f_max(ht_jj *j, ht_jv v, const ht_jargs *a) { return least_or_most(j, v, a, true); }

static ht_jv f_groupby(ht_jj *j, ht_jv v, const ht_jargs *a)
{
    BIND("groupby", 1, "attribute", "default", "case_sensitive");
    const ht_jlist *l = ht_jelements(j, v);
    bool sensitive = GIVEN(2) && ht_jtrue(g[2]);
    ht_jv *keys = ht_jalloc(j, (l->n + 1) * sizeof *keys), out = ht_jnew_list(j, 0, JK_LIST), last = ht_jnone();
    for (size_t i = 0; i < l->n; i++)
        keys[i] = folded(j, by_path(j, l->v[i], g[0], g[1]), sensitive);
    ht_jv all = sorted(j, l, keys, false), group = { 0 };
    for (size_t i = 0; i < all.list->n; i++) {
        ht_jv raw = by_path(j, all.list->v[i], g[0], g[1]), key = folded(j, raw, sensitive);
        if (!i || !ht_jeq(j, key, last)) {
            ht_jv pair = ht_jnew_list(j, 2, JK_TUPLE);
            pair.markup = true; /* it has the attributes grouper and list */
            group = ht_jnew_list(j, 0, JK_LIST);
            ht_jappend(j, pair.list, raw);
            ht_jappend(j, pair.list, group);
            ht_jappend(j, out.list, pair);
            last = key;
        }
        ht_jappend(j, group.list, all.list->v[i]);
    }
    return out;
}

/* ---- One of them, or all ---- */

static ht_jv f_first(ht_jj *j, ht_jv v, const ht_jargs *a)
{
    nothing(j, "first", a);
    if (v.kind == JK_ITER)
        return v.iter->at < v.iter->n ? v.iter->v[v.iter->at++] : ht_jundefined(j, "No first item, sequence was empty.");
    if (v.kind == JK_STR && v.n)
        return ht_jitem(j, v, ht_jint(0));
    const ht_jlist *l = ht_jelements(j, v);
    return l->n ? l->v[0] : ht_jundefined(j, "No first item, sequence was empty.");
}

static void reversible(ht_jj *j, ht_jv v, const char *fn)
{
    if (v.kind == JK_ITER || v.kind == JK_LOOP || !ht_jiterable(v))
        ht_jfail_here(j, HT_EINVAL, "%s cannot be used with a %s", fn, ht_jtype_name(v));
}

static ht_jv f_last(ht_jj *j, ht_jv v, const ht_jargs *a)
{
    nothing(j, "last", a);
    reversible(j, v, "last");
    if (v.kind == JK_STR && v.n)
        return ht_jitem(j, v, ht_jint(-1));
    const ht_jlist *l = ht_jelements(j, v);
    return l->n ? l->v[l->n - 1] : ht_jundefined(j, "No last item, sequence was empty.");
}

static ht_jv f_length(ht_jj *j, ht_jv v, const ht_jargs *a)
{
    nothing(j, "length", a);
    return ht_jint(ht_jlength(j, v, NULL));
}

static ht_jv copied(ht_jj *j, const ht_jlist *l, bool reversed)
{
    ht_jv out = ht_jnew_list(j, l->n, JK_LIST);
    for (size_t i = 0; i < l->n; i++)
        ht_jappend(j, out.list, l->v[reversed ? l->n - 1 - i : i]);
    return out;
}

static ht_jv f_list(ht_jj *j, ht_jv v, const ht_jargs *a)
{
    nothing(j, "list", a);
    return copied(j, ht_jelements(j, v), false);
}

static ht_jv f_reverse(ht_jj *j, ht_jv v, const ht_jargs *a)
{
    nothing(j, "reverse", a);
    if (v.kind == JK_STR)
        return ht_jslice(j, v, ht_jnone(), ht_jnone(), ht_jint(-1));
    bool iterator = v.kind != JK_ITER && v.kind != JK_LOOP && v.kind != JK_UNDEF;
    ht_jv out = copied(j, ht_jelements(j, v), true);
    return iterator ? ht_jnew_iter(j, out.list, "list_reverseiterator") : out;
}

static ht_jv f_items(ht_jj *j, ht_jv v, const ht_jargs *a)
{
    nothing(j, "items", a);
    if (v.kind == JK_UNDEF)
        return ht_jnew_iter(j, ht_jnew_list(j, 0, JK_LIST).list, "generator");
    if (v.kind != JK_DICT)
        ht_jfail_here(j, HT_EINVAL, "Can only get item pairs from a mapping.");
    ht_jview items = { v.dict, 'i' };
    return ht_jnew_iter(j, ht_jelements(j, (ht_jv){ .kind = JK_VIEW, .view = &items }), "generator");
}

static ht_jv f_join(ht_jj *j, ht_jv v, const ht_jargs *a)
{
    BIND("join", 0, "d", "attribute");
    const ht_jlist *l = ht_jelements(j, v);
    ht_jv d = GIVEN(0) ? ht_jto_str(j, g[0]) : HT_JLIT("");
    ht_jbuf b = { 0 };
    for (size_t i = 0; i < l->n; i++) {
        if (i)
            ht_jput(j, &b, d.s, d.n);
        ht_jput_str(j, &b, by_path(j, l->v[i], g[1], absent));
    }
    return ht_jtaken(&b);
}

static ht_jv f_sum(ht_jj *j, ht_jv v, const ht_jargs *a)
{
    BIND("sum", 0, "attribute", "start");
    const ht_jlist *l = ht_jelements(j, v);
    ht_jv total = GIVEN(1) ? g[1] : ht_jint(0);
    if (total.kind == JK_STR)
        ht_jfail_here(j, HT_EINVAL, "sum() can't sum strings");
    for (size_t i = 0; i < l->n; i++)
        total = ht_jbinary(j, HT_JOP_ADD, total, by_path(j, l->v[i], g[0], absent));
    return total;
}

static ht_jv f_batch(ht_jj *j, ht_jv v, const ht_jargs *a)
{
    BIND("batch", 1, "linecount", "fill_with");
    const ht_jlist *l = ht_jelements(j, v);
    int64_t n = ht_jneed_int(j, g[0], "linecount");
    ht_jv out = ht_jnew_list(j, 0, JK_LIST), row = ht_jnew_list(j, 0, JK_LIST);
    for (size_t i = 0; i < l->n; i++) {
        if ((int64_t)row.list->n == n) {
            ht_jappend(j, out.list, row);
            row = ht_jnew_list(j, 0, JK_LIST);
        }
        ht_jappend(j, row.list, l->v[i]);
    }
    if (row.list->n) {
        while (GIVEN(1) && g[1].kind != JK_NONE && (int64_t)row.list->n < n)
            ht_jappend(j, row.list, g[1]);
        ht_jappend(j, out.list, row);
    }
    return ht_jnew_iter(j, out.list, "generator");
}

static ht_jv f_slice(ht_jj *j, ht_jv v, const ht_jargs *a)
{
    BIND("slice", 1, "slices", "fill_with");
    const ht_jlist *l = ht_jelements(j, v);
    int64_t n = ht_jneed_int(j, g[0], "slices"), each, extra;
    ht_jv out = ht_jnew_list(j, 0, JK_LIST);
    if (!n)
        ht_jfail_here(j, HT_EINVAL, "slice: integer division or modulo by zero");
    if (n < 0)
        return ht_jnew_iter(j, out.list, "generator");
    each = (int64_t)l->n / n;
    extra = (int64_t)l->n % n;
    for (int64_t i = 0, at = 0; i < n; i++) {
        int64_t end = at + each + (i < extra);
        ht_jv row = ht_jnew_list(j, 0, JK_LIST);
        for (; at < end; at++)
            ht_jappend(j, row.list, l->v[at]);
        if (GIVEN(1) && g[1].kind != JK_NONE && i >= extra)
            ht_jappend(j, row.list, g[1]);
        ht_jappend(j, out.list, row);
    }
    return ht_jnew_iter(j, out.list, "generator");
}

static ht_jv f_attr(ht_jj *j, ht_jv v, const ht_jargs *a)
{
    BIND("attr", 1, "name");
    if (g[0].kind != JK_STR)
        ht_jfail_here(j, HT_EINVAL, "attr needs the name of an attribute");
    if (v.kind == JK_UNDEF)
        ht_jfail_undefined(j, v);
    ht_jv got = ht_jattr(j, v, g[0]);
    /* Not the elements of a dictionary. */
    if (v.kind == JK_DICT && got.kind != JK_METHOD && !(got.kind == JK_UNDEF && got.undef->hint))
        return ht_jundefined_of(j, v, g[0]);
    return got;
}

/* ---- map, select and their kin ---- */

static ht_jv f_map(ht_jj *j, ht_jv v, const ht_jargs *a)
{
    ht_jv out = ht_jnew_list(j, 0, JK_LIST), attribute = absent, fallback = absent;
    if (!ht_jtrue(v))
        return ht_jnew_iter(j, out.list, "generator");
    const ht_jlist *l;
    for (size_t i = 0; !a->n && i < a->n_kw; i++) {
        if (ht_jis(a->kw[i].name, "attribute"))
            attribute = a->kw[i].v;
        else if (ht_jis(a->kw[i].name, "default"))
            fallback = a->kw[i].v;
        else
            ht_jfail_here(j, HT_EINVAL, "map: unexpected keyword argument %.*s", a->kw[i].name.n < 60 ? (int)a->kw[i].name.n : 60,
                          a->kw[i].name.s);
    }
    if (attribute.kind != HT_JABSENT) {
        l = ht_jelements(j, v);
        for (size_t i = 0; i < l->n; i++)
            ht_jappend(j, out.list, by_path(j, l->v[i], attribute, fallback));
        return ht_jnew_iter(j, out.list, "generator");
    }
    if (!a->n)
        ht_jfail_here(j, HT_EINVAL, "map requires a filter argument");
    const ht_jfilter *f = ht_jfind_filter(a->v[0]);
    if (!f)
        ht_jfail_here(j, HT_EUNSUPPORTED, "map: there is no filter of that name");
    const ht_jargs rest = { a->v + 1, a->n - 1, a->kw, a->n_kw };
    l = ht_jelements(j, v);
    for (size_t i = 0; i < l->n; i++) {
        ht_jenter(j);
        ht_jappend(j, out.list, f->call(j, l->v[i], &rest));
        j->depth--;
    }
    return ht_jnew_iter(j, out.list, "generator");
}

static ht_jv chosen(ht_jj *j, ht_jv v, const ht_jargs *a, bool keep, bool attribute)
{
    ht_jv out = ht_jnew_list(j, 0, JK_LIST);
    const ht_jtest *t = NULL;
    if (!ht_jtrue(v))
        return ht_jnew_iter(j, out.list, "generator");
    if (attribute && !a->n)
        ht_jfail_here(j, HT_EINVAL, "Missing parameter for attribute name");
    if (a->n > attribute) {
        t = ht_jfind_test(a->v[attribute]);
        if (!t)
            ht_jfail_here(j, HT_EUNSUPPORTED, "select: there is no test of that name");
    }
    const size_t skip = t ? 1 + (size_t)attribute : a->n;
    const ht_jargs rest = { a->v + skip, a->n - skip, a->kw, a->n_kw };
    const ht_jlist *l = ht_jelements(j, v);
    for (size_t i = 0; i < l->n; i++) {
        ht_jv x = attribute ? by_path(j, l->v[i], a->v[0], absent) : l->v[i];
        if ((t ? t->call(j, x, &rest) : ht_jtrue(x)) == keep)
            ht_jappend(j, out.list, l->v[i]);
    }
    return ht_jnew_iter(j, out.list, "generator");
}

static ht_jv f_select(ht_jj *j, ht_jv v, const ht_jargs *a) { return chosen(j, v, a, true, false); }
static ht_jv f_reject(ht_jj *j, ht_jv v, const ht_jargs *a) { return chosen(j, v, a, false, false); }
static ht_jv f_selectattr(ht_jj *j, ht_jv v, const ht_jargs *a) { return chosen(j, v, a, true, true); }
static ht_jv f_rejectattr(ht_jj *j, ht_jv v, const ht_jargs *a) { return chosen(j, v, a, false, true); }

const ht_jfilter ht_jfilters_seq[] = {
    { "attr", f_attr }, { "batch", f_batch }, { "count", f_length }, { "dictsort", f_dictsort }, { "first", f_first },
    { "groupby", f_groupby }, { "items", f_items }, { "join", f_join }, { "last", f_last }, { "length", f_length },
    { "list", f_list }, { "map", f_map }, { "max", f_max }, { "min", f_min }, { "reject", f_reject },
    { "rejectattr", f_rejectattr }, { "reverse", f_reverse }, { "select", f_select }, { "selectattr", f_selectattr },
    { "slice", f_slice }, { "sort", f_sort }, { "sum", f_sum }, { "unique", f_unique }, { 0 }
};

const ht_jfilter *ht_jfind_filter(ht_jv name)
{
    for (const ht_jfilter *f = ht_jfilters_text; f->name; f++)
        if (ht_jis(name, f->name))
            return f;
    for (const ht_jfilter *f = ht_jfilters_seq; f->name; f++)
        if (ht_jis(name, f->name))
            return f;
    return NULL;
}
