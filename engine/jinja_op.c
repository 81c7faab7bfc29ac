/* SPDX-License-Identifier: MIT
 * Operators, attributes, elements, slices and calls, with the refusals of jinja2's immutable sandbox; see jinja_impl.h. */
#include <math.h>

#include "engine/jinja_impl.h"

/* ---- Arithmetic ---- */

static const char *op_name(int op)
{
    static const char *const names[] = { "", "+", "-", "*", "/", "//", "%", "**", "==", "!=", "<", "<=", ">", ">=", "in", "not in" };
    return names[op];
}

_Noreturn static void unfit(ht_jj *j, int op, ht_jv a, ht_jv b)
{
    if (a.kind == JK_UNDEF)
        ht_jfail_undefined(j, a);
    if (b.kind == JK_UNDEF)
        ht_jfail_undefined(j, b);
    if (a.kind == JK_BIG || b.kind == JK_BIG)
        ht_jfail_here(j, HT_EUNSUPPORTED, "an integer of more than 64 bits");
    ht_jfail_here(j, HT_EINVAL, "%s cannot be used with %s and %s", op_name(op), ht_jtype_name(a), ht_jtype_name(b));
}

static ht_jv add_texts(ht_jj *j, ht_jv a, ht_jv b)
{
    bool markup = a.markup || b.markup;
    if (markup) {
        a = ht_jescape(j, a);
        b = ht_jescape(j, b);
    }
    char *s = ht_jalloc(j, a.n + b.n + 1);
    if (a.n)
        memcpy(s, a.s, a.n);
    if (b.n)
        memcpy(s + a.n, b.s, b.n);
    ht_jv v = ht_jstr(s, a.n + b.n);
    v.markup = markup;
    return v;
}

static ht_jv add_lists(ht_jj *j, ht_jv a, ht_jv b)
{
    ht_jv v = ht_jnew_list(j, a.list->n + b.list->n, (ht_jkind)a.kind);
    for (size_t i = 0; i < a.list->n; i++)
        ht_jappend(j, v.list, a.list->v[i]);
    for (size_t i = 0; i < b.list->n; i++)
        ht_jappend(j, v.list, b.list->v[i]);
    return v;
}

static ht_jv repeat(ht_jj *j, ht_jv a, int64_t times)
{
    size_t n = a.kind == JK_STR ? a.n : a.list->n, k = times > 0 ? (size_t)times : 0;
    if (n && k > ((size_t)1 << 40) / n)
        ht_jfail_here(j, HT_ENOMEM, "the template takes too much memory");
    if (a.kind == JK_STR) {
        char *s = ht_jalloc(j, n * k + 1);
        ht_jsteps(j, k / 8 + n * k / 64);
        for (size_t i = 0; i < k && n; i++)
            memcpy(s + i * n, a.s, n);
        ht_jv v = ht_jstr(s, n * k);
        v.markup = a.markup;
        return v;
    }
    ht_jv v = ht_jnew_list(j, n * k, (ht_jkind)a.kind);
    ht_jsteps(j, n * k);
    for (size_t i = 0; i < n * k; i++)
        v.list->v[i] = a.list->v[i % n];
    v.list->n = n * k;
    return v;
}

_Noreturn static void by_zero(ht_jj *j) { ht_jfail_here(j, HT_EINVAL, "division by zero"); }

_Noreturn static void too_large(ht_jj *j) { ht_jfail_here(j, HT_EUNSUPPORTED, "an integer of more than 64 bits"); }

static ht_jv int_power(ht_jj *j, int64_t a, int64_t b)
{
    int64_t r = 1;
    if (b < 0) {
        if (!a)
            by_zero(j);
        return ht_jfloat(pow((double)a, (double)b));
    }
    for (bool over = false; b; b >>= 1) {
        if (b & 1)
            over |= __builtin_mul_overflow(r, a, &r);
        if (over)
            too_large(j);
        if (b > 1 && __builtin_mul_overflow(a, a, &a))
            too_large(j);
    }
    return ht_jint(r);
}

static ht_jv ints(ht_jj *j, int op, int64_t a, int64_t b)
{
    int64_t r = 0;
    bool over = false;
    switch (op) {
    case HT_JOP_ADD: over = __builtin_add_overflow(a, b, &r); break;
    case HT_JOP_SUB: over = __builtin_sub_overflow(a, b, &r); break;
    case HT_JOP_MUL: over = __builtin_mul_overflow(a, b, &r); break;
    case HT_JOP_DIV:
        if (!b)
            by_zero(j);
        return ht_jfloat((double)a / (double)b);
    case HT_JOP_POW: return int_power(j, a, b);
    default:
        if (!b)
            by_zero(j);
        if (b == -1) {
            over = op == HT_JOP_FLOORDIV && a == INT64_MIN;
            r = op == HT_JOP_FLOORDIV && !over ? -a : 0;
            break;
        }
        r = op == HT_JOP_FLOORDIV ? a / b : a % b;
        if (a % b && (a < 0) != (b < 0))
            r += op == HT_JOP_FLOORDIV ? -1 : b;
        break;
    }
    if (over)
        too_large(j);
    return ht_jint(r);
}

static ht_jv floats(ht_jj *j, int op, double a, double b)
{
    double m, q;
    switch (op) {
    case HT_JOP_ADD: return ht_jfloat(a + b);
    case HT_JOP_SUB: return ht_jfloat(a - b);
    case HT_JOP_MUL: return ht_jfloat(a * b);
    case HT_JOP_DIV:
        if (b == 0)
            by_zero(j);
        return ht_jfloat(a / b);
    case HT_JOP_POW:
        if (a == 0 && b < 0)
            by_zero(j);
        if (a < 0 && isfinite(a) && isfinite(b) && b != floor(b))
            ht_jfail_here(j, HT_EUNSUPPORTED, "complex numbers are not known here");
        m = pow(a, b);
        if (isinf(m) && isfinite(a) && isfinite(b))
            ht_jfail_here(j, HT_EINVAL, "numerical result out of range");
        return ht_jfloat(m);
    default:
        if (b == 0)
            by_zero(j);
        m = fmod(a, b);
        q = (a - m) / b;
        if (m != 0) {
            if ((b < 0) != (m < 0)) {
                m += b;
                q -= 1;
            }
        } else {
            m = copysign(0.0, b);
        }
        if (op == HT_JOP_MOD)
            return ht_jfloat(m);
        if (q == 0)
            return ht_jfloat(copysign(0.0, a / b));
        return ht_jfloat(q - floor(q) > 0.5 ? floor(q) + 1 : floor(q));
    }
}

ht_jv ht_jbinary(ht_jj *j, int op, ht_jv a, ht_jv b)
{
    int64_t x, y;
    double f, g;
    if (op == HT_JOP_ADD) {
        if (a.kind == JK_STR && b.kind == JK_STR)
            return add_texts(j, a, b);
        if (a.kind == b.kind && (a.kind == JK_LIST || a.kind == JK_TUPLE))
            return add_lists(j, a, b);
    }
    if (op == HT_JOP_MUL) {
        bool left = a.kind == JK_STR || a.kind == JK_LIST || a.kind == JK_TUPLE;
        bool right = b.kind == JK_STR || b.kind == JK_LIST || b.kind == JK_TUPLE;
        if (left && ht_jas_int(b, &y))
            return repeat(j, a, y);
        if (right && ht_jas_int(a, &x))
            return repeat(j, b, x);
    }
    if (op == HT_JOP_MOD && a.kind == JK_STR)
        return ht_jpercent(j, a, b);
    if (ht_jas_int(a, &x) && ht_jas_int(b, &y))
        return ints(j, op, x, y);
    if ((a.kind == JK_FLOAT || b.kind == JK_FLOAT) && ht_jas_double(a, &f) && ht_jas_double(b, &g))
        return floats(j, op, f, g);
    unfit(j, op, a, b);
}

ht_jv ht_junary(ht_jj *j, int op, ht_jv a)
{
    int64_t x;
    if (ht_jas_int(a, &x)) {
        if (op == '-' && x == INT64_MIN)
            too_large(j);
        return ht_jint(op == '-' ? -x : x);
    }
    if (a.kind == JK_FLOAT)
        return ht_jfloat(op == '-' ? -a.f : a.f);
    if (a.kind == JK_BIG) {
        if (op == '+')
            return a;
        if (ht_jis((ht_jv){ .kind = JK_STR, .s = a.s, .n = a.n }, "9223372036854775808"))
            return ht_jint(INT64_MIN);
        ht_jbuf b = { 0 };
        if (a.s[0] != '-')
            ht_jputc(j, &b, '-');
        ht_jput(j, &b, a.s + (a.s[0] == '-'), a.n - (a.s[0] == '-'));
        ht_jv v = ht_jtaken(&b);
        v.kind = JK_BIG;
        return v;
    }
    if (a.kind == JK_UNDEF)
        ht_jfail_undefined(j, a);
    ht_jfail_here(j, HT_EINVAL, "unary %c cannot be used with %s", op, ht_jtype_name(a));
}

bool ht_jcontains(ht_jj *j, ht_jv item, ht_jv in)
{
    if (in.kind == JK_STR) {
        if (item.kind == JK_UNDEF)
            ht_jfail_undefined(j, item);
        if (item.kind != JK_STR)
            ht_jfail_here(j, HT_EINVAL, "'in' needs a text on its left side, not %s", ht_jtype_name(item));
        ht_jsteps(j, in.n / 32);
        return !item.n || (in.n && memmem(in.s, in.n, item.s, item.n));
    }
    if (in.kind == JK_DICT || (in.kind == JK_VIEW && in.view->what == 'k')) {
        if (!ht_jhashable(item))
            ht_jfail_here(j, HT_EINVAL, "unhashable type: '%s'", ht_jtype_name(item));
        return ht_jget(j, in.kind == JK_DICT ? in.dict : in.view->dict, item) != NULL;
    }
    if (!ht_jiterable(in))
        ht_jfail_here(j, HT_EINVAL, "a %s contains nothing", ht_jtype_name(in));
    if (in.kind == JK_ITER) {
        while (in.iter->at < in.iter->n)
            if (ht_jeq(j, in.iter->v[in.iter->at++], item))
                return true;
        return false;
    }
    const ht_jlist *l = ht_jelements(j, in);
    for (size_t i = 0; i < l->n; i++)
        if (ht_jeq(j, l->v[i], item))
            return true;
    return false;
}

bool ht_jcompare(ht_jj *j, int op, ht_jv a, ht_jv b)
{
    int r;
    switch (op) {
    case HT_JOP_EQ: return ht_jeq(j, a, b);
    case HT_JOP_NE: return !ht_jeq(j, a, b);
    case HT_JOP_IN: return ht_jcontains(j, a, b);
    case HT_JOP_NOTIN: return !ht_jcontains(j, a, b);
    default: break;
    }
    r = ht_jcmp(j, a, b, op_name(op));
    if (r == 2)
        return false;
    return op == HT_JOP_LT ? r < 0 : op == HT_JOP_LE ? r <= 0 : op == HT_JOP_GT ? r > 0 : r >= 0;
}

/* ---- Attributes and elements ---- */

static ht_jv unsafe(ht_jj *j, ht_jv v, ht_jv name)
{
    ht_jbuf b = { 0 };
    ht_jputs(j, &b, "access to attribute ");
    ht_jput_repr(j, &b, name);
    ht_jprint(j, &b, " of '%s' object is unsafe.", ht_jtype_name(v));
    return ht_jundefined(j, ht_jcstr(j, ht_jtaken(&b)));
}

static ht_jv macro_attr(ht_jj *j, const ht_jmacro *m, ht_jv name, bool *there)
{
    *there = true;
    if (ht_jis(name, "name"))
        return m->name ? ht_jstr(m->name->s, m->name->n) : ht_jnone();
    if (ht_jis(name, "arguments")) {
        ht_jv v = ht_jnew_list(j, m->node->list.n, JK_TUPLE);
        for (size_t i = 0; i < m->node->list.n; i++)
            ht_jappend(j, v.list, ht_jstr(m->node->list.v[i]->sym->s, m->node->list.v[i]->sym->n));
        return v;
    }
    if (ht_jis(name, "catch_kwargs"))
        return ht_jbool(m->node->catches & HT_JCATCH_KWARGS);
    if (ht_jis(name, "catch_varargs"))
        return ht_jbool(m->node->catches & HT_JCATCH_VARARGS);
    if (ht_jis(name, "caller"))
        return ht_jbool(m->node->catches & HT_JCATCH_CALLER);
    *there = false;
    return ht_jnone();
}

/* What Python's getattr finds, as far as the sandbox lets it: *there false where there is no such attribute. */
static ht_jv python_attr(ht_jj *j, ht_jv v, ht_jv name, bool *there)
{
    const char *stored = NULL;
    bool refused = false;
    *there = true;
    if (name.n > 4 && memcmp(name.s, "__", 2) == 0 && memcmp(name.s + name.n - 2, "__", 2) == 0)
        return unsafe(j, v, name);
    if (v.kind == JK_NS) {
        const ht_jv *got = ht_jget(j, v.dict, name);
        *there = got != NULL;
        return got ? *got : ht_jnone();
    }
    if (v.kind == JK_LOOP)
        return ht_jloop_attr(j, v.loop, name, there);
    if (v.kind == JK_MACRO)
        return macro_attr(j, v.macro, name, there);
    if (v.kind == JK_TUPLE && v.markup && (ht_jis(name, "grouper") || ht_jis(name, "list"))) /* a group of groupby */
        return v.list->v[name.s[0] == 'l'];
    if (v.kind == JK_CYCLER && ht_jis(name, "current"))
        return v.cycler->v[v.cycler->at];
    if (v.kind == JK_BOOL || v.kind == JK_INT || v.kind == JK_FLOAT) {
        bool whole = v.kind != JK_FLOAT;
        if (ht_jis(name, "real") || (whole && ht_jis(name, "numerator")))
            return v.kind == JK_BOOL ? ht_jint(v.b) : v;
        if (ht_jis(name, "imag"))
            return whole ? ht_jint(0) : ht_jfloat(0);
        if (whole && ht_jis(name, "denominator"))
            return ht_jint(1);
    }
    if (v.kind == JK_RANGE) {
        if (ht_jis(name, "start"))
            return ht_jint(v.range->start);
        if (ht_jis(name, "stop"))
            return ht_jint(v.range->stop);
        if (ht_jis(name, "step"))
            return ht_jint(v.range->step);
    }
    ht_jmethod_fn *call = ht_jfind_method(v, name, &stored, &refused);
    if (refused)
        return unsafe(j, v, name);
    *there = call != NULL;
    if (!call)
        return ht_jnone();
    ht_jmethod *m = ht_jalloc(j, sizeof *m);
    *m = (ht_jmethod){ v, stored, call };
    return (ht_jv){ .kind = JK_METHOD, .method = m };
}

/* What Python's [] finds. */
static ht_jv python_item(ht_jj *j, ht_jv v, ht_jv key, bool *there)
{
    int64_t i, n;
    *there = false;
    if (v.kind == JK_DICT) {
        const ht_jv *got = ht_jhashable(key) ? ht_jget(j, v.dict, key) : NULL;
        *there = got != NULL;
        return got ? *got : ht_jnone();
    }
    if (!ht_jas_int(key, &i) || (v.kind != JK_LIST && v.kind != JK_TUPLE && v.kind != JK_STR && v.kind != JK_RANGE))
        return ht_jnone();
    n = ht_jlength(j, v, NULL);
    i += i < 0 ? n : 0;
    if (i < 0 || i >= n)
        return ht_jnone();
    *there = true;
    if (v.kind == JK_RANGE)
        return ht_jint(v.range->start + i * v.range->step);
    if (v.kind != JK_STR)
        return v.list->v[i];
    uint32_t c;
    size_t at = ht_ju_offset(v.s, v.n, (size_t)i);
    ht_jv one = ht_jstr(v.s + at, ht_ju_next(v.s + at, v.n - at, &c));
    one.markup = v.markup;
    return one;
}

ht_jv ht_jattr(ht_jj *j, ht_jv v, ht_jv name)
{
    bool there;
    if (v.kind == JK_UNDEF)
        ht_jfail_undefined(j, v);
    ht_jv got = python_attr(j, v, name, &there);
    if (!there)
        got = python_item(j, v, name, &there);
    return there ? got : ht_jundefined_of(j, v, name);
}

ht_jv ht_jitem(ht_jj *j, ht_jv v, ht_jv key)
{
    bool there;
    if (v.kind == JK_UNDEF)
        ht_jfail_undefined(j, v);
    ht_jv got = python_item(j, v, key, &there);
    if (!there && key.kind == JK_STR)
        got = python_attr(j, v, key, &there);
    return there ? got : ht_jundefined_of(j, v, key);
}

static int64_t bound(ht_jj *j, ht_jv v, int64_t n, int64_t least, int64_t most, int64_t absent)
{
    int64_t i;
    if (v.kind == JK_NONE)
        return absent;
    i = ht_jneed_int(j, v, "an index of a slice");
    i += i < 0 ? n : 0;
    return i < least ? least : i > most ? most : i;
}

ht_jv ht_jslice(ht_jj *j, ht_jv v, ht_jv start, ht_jv stop, ht_jv step)
{
    if (v.kind == JK_UNDEF)
        ht_jfail_undefined(j, v);
    if (v.kind != JK_STR && v.kind != JK_LIST && v.kind != JK_TUPLE && v.kind != JK_RANGE)
        ht_jfail_here(j, HT_EINVAL, "a %s cannot be sliced", ht_jtype_name(v));
    const int64_t n = ht_jlength(j, v, NULL), by = step.kind == JK_NONE ? 1 : ht_jneed_int(j, step, "the step of a slice");
    if (!by)
        ht_jfail_here(j, HT_EINVAL, "the step of a slice is zero");
    const int64_t least = by > 0 ? 0 : -1, most = by > 0 ? n : n - 1;
    int64_t a = bound(j, start, n, least, most, by > 0 ? 0 : n - 1), b = bound(j, stop, n, least, most, by > 0 ? n : -1);
    int64_t count = by > 0 ? (b > a ? (b - a - 1) / by + 1 : 0) : (a > b ? (a - b - 1) / -(by + (by == INT64_MIN)) + 1 : 0);
    if (v.kind == JK_RANGE) {
        ht_jrange *r = ht_jalloc(j, sizeof *r);
        int64_t s = v.range->step;
        *r = (ht_jrange){ v.range->start + a * s, v.range->start + b * s, s * (by > n ? n + 1 : by < -n ? -n - 1 : by), count };
        return (ht_jv){ .kind = JK_RANGE, .range = r };
    }
    if (v.kind == JK_STR) {
        if (by == 1) {
            size_t from = ht_ju_offset(v.s, v.n, (size_t)a), to = from + ht_ju_offset(v.s + from, v.n - from, (size_t)count);
            ht_jv part = ht_jstr(v.s + from, to - from);
            part.markup = v.markup;
            return part;
        }
        const ht_jlist *l = ht_jelements(j, v);
        ht_jbuf buf = { 0 };
        for (int64_t i = 0; i < count; i++)
            ht_jput(j, &buf, l->v[a + i * by].s, l->v[a + i * by].n);
        ht_jsteps(j, (uint64_t)count);
        ht_jv part = ht_jtaken(&buf);
        part.markup = v.markup;
        return part;
    }
    ht_jv out = ht_jnew_list(j, (size_t)count, (ht_jkind)v.kind);
    for (int64_t i = 0; i < count; i++)
        ht_jappend(j, out.list, v.list->v[a + i * by]);
    return out;
}

/* ---- Calls ---- */

ht_jv ht_jinvoke(ht_jj *j, ht_jv f, const ht_jargs *a)
{
    switch ((ht_jkind)f.kind) {
    case JK_FUNC: return f.func->call(j, a);
    case JK_METHOD: return f.method->call(j, f.method->self, f.method->name, a);
    case JK_MACRO: return ht_jmacro_call(j, f.macro, a);
    case JK_LOOP:
        if (a->n != 1 || a->n_kw)
            ht_jfail_here(j, HT_EINVAL, "loop() takes one argument");
        return ht_jloop_call(j, f.loop, a->v[0]);
    case JK_JOINER:
        if (f.cycler->used)
            return f.cycler->sep;
        f.cycler->used = true;
        return HT_JLIT("");
    case JK_UNDEF: ht_jfail_undefined(j, f);
    default: ht_jfail_here(j, HT_EINVAL, "a %s cannot be called", ht_jtype_name(f));
    }
}
