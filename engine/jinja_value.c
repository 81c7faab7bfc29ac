/* SPDX-License-Identifier: MIT
 * Values as Python has them: truth, equality, order, texts, lists, dictionaries; see jinja_impl.h. */
#include <math.h>

#include "engine/jinja_impl.h"

ht_jv ht_jtext(const char *s) { return ht_jstr(s, strlen(s)); }

bool ht_jis(ht_jv v, const char *text) { return v.kind == JK_STR && v.n == strlen(text) && memcmp(v.s, text, v.n) == 0; }

/* ---- Undefined ---- */

static ht_jv undefined(ht_jj *j, const char *hint, ht_jv name, const char *owner)
{
    ht_jundef *u = ht_jalloc(j, sizeof *u);
    *u = (ht_jundef){ .hint = hint, .n_hint = hint ? strlen(hint) : 0, .name = name, .owner = owner };
    return (ht_jv){ .kind = JK_UNDEF, .undef = u };
}

ht_jv ht_jundefined(ht_jj *j, const char *hint) { return undefined(j, hint, ht_jnone(), NULL); }

ht_jv ht_jundefined_name(ht_jj *j, ht_jv name) { return undefined(j, NULL, name, NULL); }

ht_jv ht_jundefined_of(ht_jj *j, ht_jv owner, ht_jv name) { return undefined(j, NULL, name, ht_jtype_name(owner)); }

void ht_jfail_undefined(ht_jj *j, ht_jv v)
{
    const ht_jundef *u = v.undef;
    ht_jbuf name = { 0 };
    if (u->hint)
        ht_jfail_here(j, HT_EINVAL, "%s", u->hint);
    ht_jput_repr(j, &name, u->name);
    int n = name.n < 80 ? (int)name.n : 80;
    if (!u->owner)
        ht_jfail_here(j, HT_EINVAL, "%.*s is undefined", n, name.s);
    ht_jfail_here(j, HT_EINVAL, "%s has no %s %.*s", u->owner, u->name.kind == JK_STR ? "attribute" : "element", n, name.s);
}

const char *ht_jtype_name(ht_jv v)
{
    switch ((ht_jkind)v.kind) {
    case JK_UNDEF: return "Undefined";
    case JK_NONE: return "None";
    case JK_BOOL: return "bool";
    case JK_INT:
    case JK_BIG: return "int";
    case JK_FLOAT: return "float";
    case JK_STR: return v.markup ? "Markup" : "str";
    case JK_LIST: return "list";
    case JK_TUPLE: return "tuple";
    case JK_DICT: return "dict";
    case JK_RANGE: return "range";
    case JK_ITER: return v.iter->what;
    case JK_VIEW: return v.view->what == 'k' ? "dict_keys" : v.view->what == 'v' ? "dict_values" : "dict_items";
    case JK_NS: return "Namespace";
    case JK_MACRO: return "Macro";
    case JK_FUNC: return "function";
    case JK_METHOD: return "builtin_function_or_method";
    case JK_LOOP: return "LoopContext";
    case JK_CYCLER: return "Cycler";
    case JK_JOINER: return "Joiner";
    }
    return "object";
}

/* ---- Truth, equality, order ---- */

bool ht_jtrue(ht_jv v)
{
    switch ((ht_jkind)v.kind) {
    case JK_UNDEF:
    case JK_NONE: return false;
    case JK_BOOL: return v.b;
    case JK_INT: return v.i != 0;
    case JK_FLOAT: return v.f != 0;
    case JK_STR: return v.n != 0;
    case JK_LIST:
    case JK_TUPLE: return v.list->n != 0;
    case JK_DICT: return v.dict->n != 0;
    case JK_RANGE: return v.range->n != 0;
    case JK_VIEW: return v.view->dict->n != 0;
    default: return true;
    }
}

static bool number(ht_jv v) { return v.kind == JK_BOOL || v.kind == JK_INT || v.kind == JK_FLOAT || v.kind == JK_BIG; }

static ht_jv plain(ht_jv v) { return v.kind == JK_BOOL ? ht_jint(v.b) : v; }

/* -1, 0, 1; 2 where one is no number. */
static int order_numbers(ht_jv a, ht_jv b)
{
    a = plain(a);
    b = plain(b);
    if (a.kind == JK_INT && b.kind == JK_INT)
        return (a.i > b.i) - (a.i < b.i);
    if (a.kind == JK_BIG && b.kind == JK_BIG) {
        bool minus = a.s[0] == '-';
        if (minus != (b.s[0] == '-'))
            return minus ? -1 : 1;
        int r = a.n != b.n ? (a.n > b.n ? 1 : -1) : memcmp(a.s, b.s, a.n);
        r = (r > 0) - (r < 0);
        return minus ? -r : r;
    }
    if (a.kind == JK_BIG && b.kind == JK_INT)
        return a.s[0] == '-' ? -1 : 1;
    if (a.kind == JK_INT && b.kind == JK_BIG)
        return -order_numbers(b, a);
    double x = 0, y = 0;
    ht_jas_double(a, &x);
    ht_jas_double(b, &y);
    if (isnan(x) || isnan(y))
        return 2;
    if (x != y || (a.kind == JK_FLOAT && b.kind == JK_FLOAT))
        return (x > y) - (x < y);
    /* An integer that the double rounds: 2^53 + 1 is not 2.0^53. */
    double f = a.kind == JK_FLOAT ? a.f : b.f;
    if (a.kind == JK_BIG || b.kind == JK_BIG || f >= 9223372036854775808.0)
        return a.kind == JK_FLOAT ? 1 : -1;
    int64_t i = a.kind == JK_FLOAT ? b.i : a.i, g = (int64_t)f;
    int r = (i > g) - (i < g);
    return a.kind == JK_FLOAT ? -r : r;
}

static bool equal_lists(ht_jj *j, const ht_jlist *a, const ht_jlist *b)
{
    if (a == b)
        return true;
    if (a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n; i++)
        if (!ht_jeq(j, a->v[i], b->v[i]))
            return false;
    return true;
}

static bool equal_dicts(ht_jj *j, const ht_jdict *a, const ht_jdict *b)
{
    if (a == b)
        return true;
    if (a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n; i++) {
        const ht_jv *other = ht_jget(j, b, a->e[i].key);
        if (!other || !ht_jeq(j, a->e[i].value, *other))
            return false;
    }
    return true;
}

/* keys() and items() are sets. */
static bool equal_views(ht_jj *j, const ht_jview *a, const ht_jview *b)
{
    if (a == b)
        return true;
    if (a->what != b->what || a->what == 'v' || a->dict->n != b->dict->n)
        return false;
    for (size_t i = 0; i < a->dict->n; i++) {
        const ht_jv *other = ht_jget(j, b->dict, a->dict->e[i].key);
        if (!other || (a->what == 'i' && !ht_jeq(j, a->dict->e[i].value, *other)))
            return false;
    }
    return true;
}

bool ht_jeq(ht_jj *j, ht_jv a, ht_jv b)
{
    ht_jsteps(j, 1);
    if (number(a) && number(b))
        return order_numbers(a, b) == 0;
    if (a.kind != b.kind)
        return false;
    switch ((ht_jkind)a.kind) {
    case JK_UNDEF:
    case JK_NONE: return true;
    case JK_STR:
        ht_jsteps(j, a.n / 256);
        return a.n == b.n && (a.s == b.s || memcmp(a.s, b.s, a.n) == 0);
    case JK_LIST:
    case JK_TUPLE:
    case JK_DICT: {
        ht_jenter(j);
        bool r = a.kind == JK_DICT ? equal_dicts(j, a.dict, b.dict) : equal_lists(j, a.list, b.list);
        j->depth--;
        return r;
    }
    case JK_RANGE:
        return a.range->n == b.range->n && (!a.range->n || (a.range->start == b.range->start &&
                                                            (a.range->n == 1 || a.range->step == b.range->step)));
    case JK_VIEW: return equal_views(j, a.view, b.view);
    case JK_METHOD: return a.method->call == b.method->call && a.method->name == b.method->name &&
                           a.method->self.kind == b.method->self.kind && a.method->self.s == b.method->self.s;
    default: return (const void *)a.s == (const void *)b.s;
    }
}

int ht_jcmp(ht_jj *j, ht_jv a, ht_jv b, const char *op)
{
    ht_jsteps(j, 1);
    if (number(a) && number(b))
        return order_numbers(a, b);
    if (a.kind == JK_STR && b.kind == JK_STR) { /* UTF-8 sorts as its code points do */
        size_t n = a.n < b.n ? a.n : b.n;
        ht_jsteps(j, n / 256);
        int r = n ? memcmp(a.s, b.s, n) : 0;
        if (!r)
            r = (a.n > b.n) - (a.n < b.n);
        return (r > 0) - (r < 0);
    }
    if (a.kind == b.kind && (a.kind == JK_LIST || a.kind == JK_TUPLE)) {
        ht_jenter(j);
        int r = 0;
        size_t n = a.list->n < b.list->n ? a.list->n : b.list->n, i = 0;
        while (i < n && ht_jeq(j, a.list->v[i], b.list->v[i]))
            i++;
        r = i < n ? ht_jcmp(j, a.list->v[i], b.list->v[i], op) : (a.list->n > b.list->n) - (a.list->n < b.list->n);
        j->depth--;
        return r;
    }
    if (a.kind == JK_UNDEF)
        ht_jfail_undefined(j, a);
    if (b.kind == JK_UNDEF)
        ht_jfail_undefined(j, b);
    ht_jfail_here(j, HT_EINVAL, "'%s' is not supported between %s and %s", op, ht_jtype_name(a), ht_jtype_name(b));
}

/* ---- Lists and dictionaries ---- */

ht_jv ht_jnew_list(ht_jj *j, size_t cap, ht_jkind kind)
{
    ht_jlist *l = ht_jalloc(j, sizeof *l);
    if (cap) {
        if (cap > SIZE_MAX / sizeof *l->v / 2)
            ht_jfail_here(j, HT_ENOMEM, "the template takes too much memory");
        l->v = ht_jalloc(j, cap * sizeof *l->v);
        l->cap = cap;
    }
    return (ht_jv){ .kind = (uint8_t)kind, .list = l };
}

void ht_jappend(ht_jj *j, ht_jlist *l, ht_jv v)
{
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 4;
        l->v = ht_jgrow(j, l->v, l->n * sizeof *l->v, cap * sizeof *l->v);
        l->cap = cap;
    }
    l->v[l->n++] = v;
}

ht_jv ht_jnew_dict(ht_jj *j, ht_jkind kind)
{
    return (ht_jv){ .kind = (uint8_t)kind, .dict = ht_jalloc(j, sizeof(ht_jdict)) };
}

/* What nests too deep passes: hash() says so. */
static bool hashable(ht_jv v, int depth)
{
    if (v.kind == JK_TUPLE) {
        for (size_t i = 0; i < v.list->n && depth < HT_JDEPTH; i++)
            if (!hashable(v.list->v[i], depth + 1))
                return false;
        return true;
    }
    return v.kind != JK_LIST && v.kind != JK_DICT && !(v.kind == JK_VIEW && v.view->what != 'v');
}

bool ht_jhashable(ht_jv v) { return hashable(v, 0); }

static uint32_t mix(uint32_t h, const void *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        h = (h ^ ((const uint8_t *)p)[i]) * 16777619u;
    return h;
}

/* Equal keys have equal hashes: 1, 1.0 and True are one key. */
static uint32_t hash(ht_jj *j, ht_jv v)
{
    uint32_t h = 2166136261u;
    double f = 0;
    switch ((ht_jkind)v.kind) {
    case JK_UNDEF: return 17;
    case JK_NONE: return 19;
    case JK_BOOL:
    case JK_INT:
    case JK_BIG:
    case JK_FLOAT:
        ht_jas_double(v, &f);
        f = f == 0 ? 0 : f;
        return mix(h, &f, sizeof f);
    case JK_STR:
        ht_jsteps(j, v.n / 64);
        return mix(h, v.s, v.n);
    case JK_TUPLE:
        ht_jenter(j);
        for (size_t i = 0; i < v.list->n; i++) {
            uint32_t k = hash(j, v.list->v[i]);
            h = mix(h, &k, sizeof k);
        }
        j->depth--;
        return h;
    case JK_RANGE: return mix(h, &v.range->n, sizeof v.range->n);
    case JK_METHOD: return 23;
    default: return mix(h, &v.s, sizeof v.s);
    }
}

static const ht_jentry *find(ht_jj *j, const ht_jdict *d, ht_jv key, uint32_t h)
{
    if (!d->index) {
        for (size_t i = 0; i < d->n; i++)
            if (d->e[i].hash == h && ht_jeq(j, d->e[i].key, key))
                return &d->e[i];
        return NULL;
    }
    for (size_t at = h % d->n_index; d->index[at]; at = (at + 1) % d->n_index) {
        const ht_jentry *e = &d->e[d->index[at] - 1];
        ht_jsteps(j, 1);
        if (e->hash == h && ht_jeq(j, e->key, key))
            return e;
    }
    return NULL;
}

static void index_entry(ht_jdict *d, size_t i)
{
    size_t at = d->e[i].hash % d->n_index;
    while (d->index[at])
        at = (at + 1) % d->n_index;
    d->index[at] = (uint32_t)(i + 1);
}

const ht_jv *ht_jget(ht_jj *j, const ht_jdict *d, ht_jv key)
{
    const ht_jentry *e = d->n ? find(j, d, key, hash(j, key)) : NULL;
    return e ? &e->value : NULL;
}

void ht_jset(ht_jj *j, ht_jdict *d, ht_jv key, ht_jv value)
{
    if (!ht_jhashable(key))
        ht_jfail_here(j, HT_EINVAL, "unhashable type: '%s'", ht_jtype_name(key));
    const uint32_t h = hash(j, key);
    ht_jentry *there = (ht_jentry *)find(j, d, key, h);
    if (there) {
        there->value = value;
        return;
    }
    if (d->n == d->cap) {
        size_t cap = d->cap ? 2 * d->cap : 4;
        d->e = ht_jgrow(j, d->e, d->n * sizeof *d->e, cap * sizeof *d->e);
        d->cap = cap;
        if (cap > 8) {
            d->n_index = 2 * cap + 1;
            d->index = ht_jalloc(j, d->n_index * sizeof *d->index);
            for (size_t i = 0; i < d->n; i++)
                index_entry(d, i);
        }
    }
    d->e[d->n++] = (ht_jentry){ key, value, h };
    if (d->index)
        index_entry(d, d->n - 1);
}

/* ---- Iteration ---- */

bool ht_jiterable(ht_jv v)
{
    switch ((ht_jkind)v.kind) {
    case JK_UNDEF:
    case JK_STR:
    case JK_LIST:
    case JK_TUPLE:
    case JK_DICT:
    case JK_RANGE:
    case JK_ITER:
    case JK_VIEW:
    case JK_LOOP: return true;
    default: return false;
    }
}

static ht_jlist *characters(ht_jj *j, ht_jv s)
{
    ht_jlist *l = ht_jnew_list(j, ht_ju_count(s.s, s.n), JK_LIST).list;
    uint32_t c;
    for (size_t i = 0, k; i < s.n; i += k) {
        k = ht_ju_next(s.s + i, s.n - i, &c);
        ht_jv one = ht_jstr(s.s + i, k);
        ht_jappend(j, l, one);
    }
    return l;
}

static ht_jlist *viewed(ht_jj *j, const ht_jdict *d, char what)
{
    ht_jlist *l = ht_jnew_list(j, d->n, JK_LIST).list;
    for (size_t i = 0; i < d->n; i++) {
        ht_jv v = what == 'k' ? d->e[i].key : d->e[i].value;
        if (what == 'i') {
            v = ht_jnew_list(j, 2, JK_TUPLE);
            ht_jappend(j, v.list, d->e[i].key);
            ht_jappend(j, v.list, d->e[i].value);
        }
        ht_jappend(j, l, v);
    }
    return l;
}

ht_jlist *ht_jelements(ht_jj *j, ht_jv v)
{
    ht_jlist *l;
    switch ((ht_jkind)v.kind) {
    case JK_UNDEF: return ht_jnew_list(j, 0, JK_LIST).list;
    case JK_STR: return characters(j, v);
    case JK_LIST:
    case JK_TUPLE: return v.list;
    case JK_DICT: return viewed(j, v.dict, 'k');
    case JK_VIEW: return viewed(j, v.view->dict, v.view->what);
    case JK_RANGE:
        l = ht_jnew_list(j, (size_t)v.range->n, JK_LIST).list;
        for (int64_t i = 0; i < v.range->n; i++)
            ht_jappend(j, l, ht_jint(v.range->start + i * v.range->step));
        return l;
    case JK_ITER:
        l = ht_jnew_list(j, 0, JK_LIST).list;
        *l = (ht_jlist){ v.iter->v + v.iter->at, v.iter->n - v.iter->at, v.iter->n - v.iter->at };
        v.iter->at = v.iter->n;
        return l;
    default: ht_jfail_here(j, HT_EINVAL, "a %s cannot be iterated", ht_jtype_name(v));
    }
}

ht_jv ht_jnew_iter(ht_jj *j, ht_jlist *l, const char *what)
{
    ht_jiter *it = ht_jalloc(j, sizeof *it);
    *it = (ht_jiter){ l->v, l->n, 0, what };
    return (ht_jv){ .kind = JK_ITER, .iter = it };
}

int64_t ht_jlength(ht_jj *j, ht_jv v, bool *known)
{
    if (known)
        *known = true;
    switch ((ht_jkind)v.kind) {
    case JK_UNDEF: return 0;
    case JK_STR:
        ht_jsteps(j, v.n / 64);
        return (int64_t)ht_ju_count(v.s, v.n);
    case JK_LIST:
    case JK_TUPLE: return (int64_t)v.list->n;
    case JK_DICT: return (int64_t)v.dict->n;
    case JK_RANGE: return v.range->n;
    case JK_VIEW: return (int64_t)v.view->dict->n;
    case JK_LOOP: {
        bool there;
        return ht_jloop_attr(j, v.loop, HT_JLIT("length"), &there).i;
    }
    default: break;
    }
    if (!known)
        ht_jfail_here(j, HT_EINVAL, "a %s has no length", ht_jtype_name(v));
    *known = false;
    return 0;
}

/* ---- Texts ---- */

static void put_quoted(ht_jj *j, ht_jbuf *b, ht_jv v)
{
    bool single = memchr(v.s, '\'', v.n) != NULL, twofold = memchr(v.s, '"', v.n) != NULL;
    char quote = single && !twofold ? '"' : '\'';
    uint32_t c;
    ht_jputc(j, b, quote);
    for (size_t i = 0, k; i < v.n; i += k) {
        k = ht_ju_next(v.s + i, v.n - i, &c);
        if (c == (uint32_t)quote || c == '\\') {
            ht_jputc(j, b, '\\');
            ht_jputc(j, b, (char)c);
        } else if (c == '\n' || c == '\r' || c == '\t') {
            ht_jputs(j, b, c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t");
        } else if (c >= 0x110000 || ht_ju_shown(c)) {
            ht_jput(j, b, v.s + i, k);
        } else {
            ht_jprint(j, b, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", c);
        }
    }
    ht_jputc(j, b, quote);
}

static void put_items(ht_jj *j, ht_jbuf *b, const ht_jlist *l)
{
    for (size_t i = 0; i < l->n; i++) {
        if (i)
            ht_jputs(j, b, ", ");
        ht_jput_repr(j, b, l->v[i]);
    }
}

static void put_dict(ht_jj *j, ht_jbuf *b, const ht_jdict *d)
{
    ht_jputc(j, b, '{');
    for (size_t i = 0; i < d->n; i++) {
        if (i)
            ht_jputs(j, b, ", ");
        ht_jput_repr(j, b, d->e[i].key);
        ht_jputs(j, b, ": ");
        ht_jput_repr(j, b, d->e[i].value);
    }
    ht_jputc(j, b, '}');
}

static void put_object(ht_jj *j, ht_jbuf *b, ht_jv v)
{
    switch ((ht_jkind)v.kind) {
    case JK_RANGE:
        ht_jprint(j, b, "range(%lld, %lld", (long long)v.range->start, (long long)v.range->stop);
        if (v.range->step != 1)
            ht_jprint(j, b, ", %lld", (long long)v.range->step);
        ht_jputc(j, b, ')');
        break;
    case JK_VIEW:
        ht_jputs(j, b, ht_jtype_name(v));
        ht_jputs(j, b, "([");
        put_items(j, b, viewed(j, v.view->dict, v.view->what));
        ht_jputs(j, b, "])");
        break;
    case JK_NS:
        ht_jputs(j, b, "<Namespace ");
        put_dict(j, b, v.dict);
        ht_jputc(j, b, '>');
        break;
    case JK_MACRO:
        ht_jputs(j, b, "<Macro ");
        if (v.macro->name)
            put_quoted(j, b, ht_jstr(v.macro->name->s, v.macro->name->n));
        else
            ht_jputs(j, b, "anonymous");
        ht_jputc(j, b, '>');
        break;
    case JK_LOOP: {
        bool there;
        ht_jprint(j, b, "<LoopContext %lld/%lld>", (long long)v.loop->index0 + 1,
                  (long long)ht_jloop_attr(j, v.loop, HT_JLIT("length"), &there).i);
        break;
    }
    default: ht_jprint(j, b, "<%s object>", ht_jtype_name(v)); break;
    }
}

void ht_jput_repr(ht_jj *j, ht_jbuf *b, ht_jv v)
{
    ht_jenter(j);
    switch ((ht_jkind)v.kind) {
    case JK_UNDEF: ht_jputs(j, b, "Undefined"); break;
    case JK_NONE: ht_jputs(j, b, "None"); break;
    case JK_BOOL: ht_jputs(j, b, v.b ? "True" : "False"); break;
    case JK_INT: ht_jprint(j, b, "%lld", (long long)v.i); break;
    case JK_BIG: ht_jput(j, b, v.s, v.n); break;
    case JK_FLOAT: ht_jput_float(j, b, v.f); break;
    case JK_STR:
        if (v.markup)
            ht_jputs(j, b, "Markup(");
        put_quoted(j, b, v);
        if (v.markup)
            ht_jputc(j, b, ')');
        break;
    case JK_LIST:
        ht_jputc(j, b, '[');
        put_items(j, b, v.list);
        ht_jputc(j, b, ']');
        break;
    case JK_TUPLE:
        ht_jputc(j, b, '(');
        put_items(j, b, v.list);
        ht_jputs(j, b, v.list->n == 1 ? ",)" : ")");
        break;
    case JK_DICT: put_dict(j, b, v.dict); break;
    default: put_object(j, b, v); break;
    }
    j->depth--;
}

void ht_jput_str(ht_jj *j, ht_jbuf *b, ht_jv v)
{
    if (v.kind == JK_STR)
        ht_jput(j, b, v.s, v.n);
    else if (v.kind != JK_UNDEF)
        ht_jput_repr(j, b, v);
}

ht_jv ht_jto_str(ht_jj *j, ht_jv v)
{
    ht_jbuf b = { 0 };
    if (v.kind == JK_STR)
        return v;
    ht_jput_str(j, &b, v);
    return ht_jtaken(&b);
}

ht_jv ht_jescape(ht_jj *j, ht_jv v)
{
    if (v.kind == JK_STR && v.markup)
        return v;
    ht_jbuf b = { 0 };
    v = ht_jto_str(j, v);
    for (size_t i = 0; i < v.n; i++) {
        switch (v.s[i]) {
        case '&': ht_jputs(j, &b, "&amp;"); break;
        case '<': ht_jputs(j, &b, "&lt;"); break;
        case '>': ht_jputs(j, &b, "&gt;"); break;
        case '"': ht_jputs(j, &b, "&#34;"); break;
        case '\'': ht_jputs(j, &b, "&#39;"); break;
        default: ht_jputc(j, &b, v.s[i]); break;
        }
    }
    v = ht_jtaken(&b);
    v.markup = true;
    return v;
}
