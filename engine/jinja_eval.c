/* SPDX-License-Identifier: MIT
 * Walks the tree: statements write to the current text, expressions make values; see jinja_impl.h.
 *
 * Scopes are chains of names: a loop's body, a macro, a call block, a with, a filter block and a block set have one of their own,
 * branches of an if have not. A macro sees the scope that it was defined in as it is when it is called. */
#include "engine/jinja_impl.h"

typedef enum flow { GO_ON, BREAK, CONTINUE } flow;

static flow run(ht_jj *j, const ht_jnodes *body);

void ht_jenter(ht_jj *j)
{
    if (++j->depth > HT_JDEPTH)
        ht_jfail_here(j, HT_EUNSUPPORTED, "calls and values nest deeper than %d", HT_JDEPTH);
}

/* ---- Names ---- */

static ht_jscope *new_scope(ht_jj *j, ht_jscope *up)
{
    ht_jscope *s = ht_jalloc(j, sizeof *s);
    s->up = up;
    return s;
}

static void define(ht_jj *j, ht_jscope *s, const ht_jsym *sym, ht_jv v)
{
    for (size_t i = 0; i < s->n; i++)
        if (s->v[i].sym == sym) {
            s->v[i].v = v;
            return;
        }
    if (s->n == s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 4;
        s->v = ht_jgrow(j, s->v, s->n * sizeof *s->v, cap * sizeof *s->v);
        s->cap = cap;
    }
    s->v[s->n++] = (ht_jvar){ sym, v };
}

static ht_jv name_value(ht_jj *j, const ht_jsym *sym)
{
    for (const ht_jscope *s = j->scope; s; s = s->up)
        for (size_t i = 0; i < s->n; i++)
            if (s->v[i].sym == sym)
                return s->v[i].v;
    const ht_jv name = ht_jstr(sym->s, sym->n), *v = j->context ? ht_jget(j, j->context, name) : NULL;
    if (v)
        return *v;
    const ht_jfunc *f = ht_jfind_func(sym);
    return f ? (ht_jv){ .kind = JK_FUNC, .func = f } : ht_jundefined_name(j, name);
}

static void assign(ht_jj *j, const ht_jnode *to, ht_jv v, ht_jscope *scope)
{
    if (to->type == JN_NAME) {
        define(j, scope, to->sym, v);
        return;
    }
    if (to->type == JN_NSREF) {
        ht_jv ns = name_value(j, to->sym);
        if (ns.kind != JK_NS)
            ht_jfail_here(j, HT_EINVAL, "cannot assign attribute on non-namespace object");
        ht_jset(j, ns.dict, to->v, v);
        return;
    }
    if (v.kind == JK_UNDEF || !ht_jiterable(v))
        ht_jfail_here(j, HT_EINVAL, "a %s cannot be unpacked", ht_jtype_name(v));
    const ht_jlist *l = ht_jelements(j, v);
    if (l->n != to->list.n)
        ht_jfail_here(j, HT_EINVAL, "%zu values cannot be unpacked into %zu names", l->n, to->list.n);
    for (size_t i = 0; i < l->n; i++)
        assign(j, to->list.v[i], l->v[i], scope);
}

/* ---- Calls ---- */

static void arguments(ht_jj *j, const ht_jnode *n, const ht_jv *caller, ht_jargs *out)
{
    const ht_jlist *more = NULL;
    const ht_jdict *named = NULL;
    size_t n_v = n->list.n, n_kw = n->kw.n;
    ht_jv *v = n_v ? ht_jalloc(j, n_v * sizeof *v) : NULL;
    for (size_t i = 0; i < n_v; i++)
        v[i] = ht_jeval(j, n->list.v[i]);
    ht_jkw *kw = n_kw || caller ? ht_jalloc(j, (n_kw + 1) * sizeof *kw) : NULL;
    for (size_t i = 0; i < n_kw; i++) {
        kw[i].name = ht_jstr(n->kw.v[i]->sym->s, n->kw.v[i]->sym->n);
        kw[i].v = ht_jeval(j, n->kw.v[i]->a);
    }
    if (n->b) {
        more = ht_jelements(j, ht_jeval(j, n->b));
        v = ht_jgrow(j, v, n_v * sizeof *v, (n_v + more->n + 1) * sizeof *v);
        for (size_t i = 0; i < more->n; i++)
            v[n_v++] = more->v[i];
    }
    if (n->c) {
        ht_jv d = ht_jeval(j, n->c);
        if (d.kind != JK_DICT)
            ht_jfail_here(j, HT_EINVAL, "** needs a dict, not %s", ht_jtype_name(d));
        named = d.dict;
        kw = ht_jgrow(j, kw, n_kw * sizeof *kw, (n_kw + named->n + 1) * sizeof *kw);
        for (size_t i = 0; i < named->n; i++) {
            if (named->e[i].key.kind != JK_STR)
                ht_jfail_here(j, HT_EINVAL, "names of arguments are texts");
            kw[n_kw++] = (ht_jkw){ named->e[i].key, named->e[i].value };
        }
    }
    if (caller)
        kw[n_kw++] = (ht_jkw){ HT_JLIT("caller"), *caller };
    for (size_t i = 0; i < n_kw; i++)
        for (size_t k = 0; k < i; k++)
            if (ht_jeq(j, kw[i].name, kw[k].name))
                ht_jfail_here(j, HT_EINVAL, "the argument %.*s is given twice", kw[i].name.n < 60 ? (int)kw[i].name.n : 60, kw[i].name.s);
    *out = (ht_jargs){ v, n_v, kw, n_kw };
}

static ht_jv call(ht_jj *j, const ht_jnode *n, const ht_jv *caller)
{
    ht_jargs a;
    ht_jv f = ht_jeval(j, n->a);
    arguments(j, n, caller, &a);
    j->line = n->line;
    return ht_jinvoke(j, f, &a);
}

static bool named(const ht_jsym *sym, const char *name) { return sym->n == strlen(name) && memcmp(sym->s, name, sym->n) == 0; }

/* The text that body makes in a scope. */
static ht_jv captured(ht_jj *j, const ht_jnodes *body, ht_jscope *scope)
{
    ht_jbuf text = { 0 }, *out = j->out_buf;
    ht_jscope *before = j->scope;
    ht_jenter(j);
    j->out_buf = &text;
    j->scope = scope;
    run(j, body);
    j->scope = before;
    j->out_buf = out;
    j->depth--;
    return ht_jtaken(&text);
}

ht_jv ht_jmacro_call(ht_jj *j, const ht_jmacro *m, const ht_jargs *a)
{
    const ht_jnode *n = m->node;
    ht_jscope *scope = new_scope(j, m->scope), *before = j->scope;
    const size_t n_params = n->list.n, first_default = n_params - n->kw.n;
    const char *what = m->name ? m->name->s : "caller";
    const int what_n = m->name ? (m->name->n < 60 ? (int)m->name->n : 60) : 6;
    bool *used = a->n_kw ? ht_jalloc(j, a->n_kw) : NULL, explicit = false;
    const uint32_t line = j->line;

    ht_jenter(j);
    j->scope = scope;
    for (size_t i = 0; i < n_params; i++) {
        const ht_jsym *sym = n->list.v[i]->sym;
        ht_jv v = { .kind = HT_JABSENT };
        explicit |= named(sym, "caller");
        if (i < a->n)
            v = a->v[i];
        for (size_t k = 0; v.kind == HT_JABSENT && k < a->n_kw; k++)
            if (a->kw[k].name.n == sym->n && memcmp(a->kw[k].name.s, sym->s, sym->n) == 0) {
                v = a->kw[k].v;
                used[k] = true;
            }
        if (v.kind == HT_JABSENT && i >= first_default)
            v = ht_jeval(j, n->kw.v[i - first_default]);
        if (v.kind == HT_JABSENT) {
            ht_jbuf hint = { 0 };
            ht_jputs(j, &hint, "parameter ");
            ht_jput_repr(j, &hint, ht_jstr(sym->s, sym->n));
            ht_jputs(j, &hint, " was not provided");
            v = ht_jundefined(j, ht_jcstr(j, ht_jtaken(&hint)));
        }
        define(j, scope, sym, v);
    }
    if ((n->catches & HT_JCATCH_CALLER) && !explicit) {
        ht_jv undefined_caller = ht_jundefined(j, "No caller defined");
        for (size_t k = 0; k < a->n_kw; k++)
            if (!used[k] && ht_jis(a->kw[k].name, "caller")) {
                undefined_caller = a->kw[k].v;
                used[k] = true;
            }
        define(j, scope, ht_jintern(j, "caller", 6), undefined_caller);
    }
    ht_jv rest = ht_jnew_dict(j, JK_DICT);
    for (size_t k = 0; k < a->n_kw; k++)
        if (!used[k])
            ht_jset(j, rest.dict, a->kw[k].name, a->kw[k].v);
    j->line = line;
    if (n->catches & HT_JCATCH_KWARGS) {
        define(j, scope, ht_jintern(j, "kwargs", 6), rest);
    } else if (rest.dict->n) {
        ht_jv k = rest.dict->e[0].key;
        ht_jfail_here(j, HT_EINVAL, "the macro %.*s takes no argument %.*s", what_n, what, k.n < 60 ? (int)k.n : 60, k.s);
    }
    if (n->catches & HT_JCATCH_VARARGS) {
        ht_jv more = ht_jnew_list(j, 0, JK_TUPLE);
        for (size_t i = n_params; i < a->n; i++)
            ht_jappend(j, more.list, a->v[i]);
        define(j, scope, ht_jintern(j, "varargs", 7), more);
    } else if (a->n > n_params) {
        ht_jfail_here(j, HT_EINVAL, "the macro %.*s takes not more than %zu arguments", what_n, what, n_params);
    }
    j->scope = before;
    ht_jv text = captured(j, &n->body, scope);
    j->line = line;
    j->depth--;
    return text;
}

static ht_jv filtered(ht_jj *j, const ht_jnode *n, const ht_jv *text)
{
    ht_jargs a;
    ht_jv v = !n->a ? (text ? *text : HT_JLIT("")) : text && n->a->type == JN_FILTER ? filtered(j, n->a, text) : ht_jeval(j, n->a);
    const ht_jfilter *f = n->entry;
    arguments(j, n, NULL, &a);
    j->line = n->line;
    if (!f)
        ht_jfail_here(j, HT_EUNSUPPORTED, "there is no filter '%.*s'", n->v.n < 60 ? (int)n->v.n : 60, n->v.s);
    return f->call(j, v, &a);
}

/* ---- Expressions ---- */

static ht_jv sequence(ht_jj *j, const ht_jnode *n)
{
    ht_jv l = ht_jnew_list(j, n->list.n, n->type == JN_LIST ? JK_LIST : JK_TUPLE);
    for (size_t i = 0; i < n->list.n; i++)
        ht_jappend(j, l.list, ht_jeval(j, n->list.v[i]));
    return l;
}

static ht_jv dictionary(ht_jj *j, const ht_jnode *n)
{
    ht_jv d = ht_jnew_dict(j, JK_DICT);
    for (size_t i = 0; i + 1 < n->list.n; i += 2) {
        ht_jv key = ht_jeval(j, n->list.v[i]), v = ht_jeval(j, n->list.v[i + 1]);
        j->line = n->line;
        ht_jset(j, d.dict, key, v);
    }
    return d;
}

static ht_jv item(ht_jj *j, const ht_jnode *n)
{
    ht_jv v = ht_jeval(j, n->a), parts[3] = { ht_jnone(), ht_jnone(), ht_jnone() };
    if (n->b->type != JN_SLICE) {
        parts[0] = ht_jeval(j, n->b);
        j->line = n->line;
        return ht_jitem(j, v, parts[0]);
    }
    const ht_jnode *at[3] = { n->b->a, n->b->b, n->b->c };
    for (int i = 0; i < 3; i++)
        if (at[i])
            parts[i] = ht_jeval(j, at[i]);
    j->line = n->line;
    /* jinja2 computes literals when it reads them, and there a slice of what has none is undefined. */
    if ((n->a->type == JN_CONST && v.kind != JK_STR) || n->a->type == JN_DICT)
        return ht_jundefined(j, "the literal cannot be sliced");
    return ht_jslice(j, v, parts[0], parts[1], parts[2]);
}

static ht_jv tested(ht_jj *j, const ht_jnode *n)
{
    ht_jargs a;
    ht_jv v = ht_jeval(j, n->a);
    const ht_jtest *t = n->entry;
    arguments(j, n, NULL, &a);
    j->line = n->line;
    if (!t)
        ht_jfail_here(j, HT_EUNSUPPORTED, "there is no test '%.*s'", n->v.n < 60 ? (int)n->v.n : 60, n->v.s);
    return ht_jbool(t->call(j, v, &a));
}

static ht_jv compared(ht_jj *j, const ht_jnode *n)
{
    ht_jv left = ht_jeval(j, n->a);
    for (size_t i = 0; i < n->list.n; i++) {
        ht_jv right = ht_jeval(j, n->list.v[i]->a);
        j->line = n->list.v[i]->line;
        if (!ht_jcompare(j, n->list.v[i]->op, left, right))
            return ht_jbool(false);
        left = right;
    }
    return ht_jbool(true);
}

static ht_jv joined(ht_jj *j, const ht_jnode *n)
{
    ht_jbuf b = { 0 };
    ht_jv *parts = ht_jalloc(j, n->list.n * sizeof *parts);
    for (size_t i = 0; i < n->list.n; i++)
        parts[i] = ht_jeval(j, n->list.v[i]);
    for (size_t i = 0; i < n->list.n; i++)
        ht_jput_str(j, &b, parts[i]);
    return ht_jtaken(&b);
}

static ht_jv conditional(ht_jj *j, const ht_jnode *n)
{
    if (ht_jtrue(ht_jeval(j, n->a)))
        return ht_jeval(j, n->b);
    return n->c ? ht_jeval(j, n->c)
                : ht_jundefined(j, "the inline if-expression evaluated to false and no else section was defined.");
}

static ht_jv evaluate(ht_jj *j, const ht_jnode *n)
{
    ht_jv a, b;
    switch ((ht_jtype)n->type) {
    case JN_CONST: return n->v;
    case JN_NAME: return name_value(j, n->sym);
    case JN_LIST:
    case JN_TUPLE: return sequence(j, n);
    case JN_DICT: return dictionary(j, n);
    case JN_ATTR:
        a = ht_jeval(j, n->a);
        j->line = n->line;
        return ht_jattr(j, a, n->v);
    case JN_ITEM: return item(j, n);
    case JN_CALL: return call(j, n, NULL);
    case JN_FILTER: return filtered(j, n, NULL);
    case JN_TEST: return tested(j, n);
    case JN_UNARY:
        a = ht_jeval(j, n->a);
        return ht_junary(j, n->op, a);
    case JN_BINARY:
        a = ht_jeval(j, n->a);
        b = ht_jeval(j, n->b);
        j->line = n->line;
        return ht_jbinary(j, n->op, a, b);
    case JN_CONCAT: return joined(j, n);
    case JN_COMPARE: return compared(j, n);
    case JN_AND:
        a = ht_jeval(j, n->a);
        return ht_jtrue(a) ? ht_jeval(j, n->b) : a;
    case JN_OR:
        a = ht_jeval(j, n->a);
        return ht_jtrue(a) ? a : ht_jeval(j, n->b);
    case JN_NOT: return ht_jbool(!ht_jtrue(ht_jeval(j, n->a)));
    case JN_COND: return conditional(j, n);
    default: ht_jfail_here(j, HT_EUNSUPPORTED, "an expression of an unknown kind");
    }
}

ht_jv ht_jeval(ht_jj *j, const ht_jnode *n)
{
    ht_jenter(j);
    ht_jsteps(j, 1);
    j->line = n->line;
    ht_jv v = evaluate(j, n);
    j->depth--;
    return v;
}

/* ---- Loops ---- */

/* The next element that passes the loop's filter, which is asked as late as possible: the body may change what it sees. */
static bool advance(ht_jj *j, ht_jloop *l, ht_jv *out)
{
    while (l->at < l->n_items) {
        ht_jv v = l->items[l->at++];
        if (l->node->c) {
            ht_jscope *before = j->scope;
            j->scope = new_scope(j, l->scope);
            assign(j, l->node->a, v, j->scope);
            bool keep = ht_jtrue(ht_jeval(j, l->node->c));
            j->scope = before;
            if (!keep)
                continue;
        }
        *out = v;
        return true;
    }
    return false;
}

static bool peek(ht_jj *j, ht_jloop *l)
{
    if (!l->has_after && !l->ended) {
        l->has_after = advance(j, l, &l->after);
        l->ended = !l->has_after;
    }
    return l->has_after;
}

static int64_t loop_length(ht_jj *j, ht_jloop *l)
{
    if (l->length >= 0)
        return l->length;
    if (!l->node->c) {
        l->length = (int64_t)l->n_items;
        return l->length;
    }
    ht_jlist rest = { 0 };
    ht_jv v;
    while (advance(j, l, &v))
        ht_jappend(j, &rest, v);
    l->items = rest.v;
    l->n_items = rest.n;
    l->at = 0;
    l->length = (int64_t)rest.n + l->index0 + 1 + l->has_after;
    return l->length;
}

static ht_jv loop_method(ht_jj *j, ht_jv self, const char *name, const ht_jargs *a)
{
    ht_jloop *l = self.loop;
    if (a->n_kw)
        ht_jfail_here(j, HT_EINVAL, "loop.%s takes no named arguments", name);
    if (name[1] == 'y') { /* cycle */
        if (!a->n)
            ht_jfail_here(j, HT_EINVAL, "no items for cycling given");
        return a->v[(size_t)l->index0 % a->n];
    }
    ht_jv now = ht_jnew_list(j, a->n, JK_TUPLE);
    for (size_t i = 0; i < a->n; i++)
        ht_jappend(j, now.list, a->v[i]);
    bool changed = !l->changed_set || !ht_jeq(j, l->changed, now);
    l->changed = now;
    l->changed_set = true;
    return ht_jbool(changed);
}

ht_jv ht_jloop_attr(ht_jj *j, ht_jloop *l, ht_jv name, bool *there)
{
    *there = true;
    if (ht_jis(name, "index"))
        return ht_jint(l->index0 + 1);
    if (ht_jis(name, "index0"))
        return ht_jint(l->index0);
    if (ht_jis(name, "first"))
        return ht_jbool(l->index0 == 0);
    if (ht_jis(name, "last"))
        return ht_jbool(!peek(j, l));
    if (ht_jis(name, "length"))
        return ht_jint(loop_length(j, l));
    if (ht_jis(name, "revindex"))
        return ht_jint(loop_length(j, l) - l->index0);
    if (ht_jis(name, "revindex0"))
        return ht_jint(loop_length(j, l) - l->index0 - 1);
    if (ht_jis(name, "depth"))
        return ht_jint(l->depth0 + 1);
    if (ht_jis(name, "depth0"))
        return ht_jint(l->depth0);
    if (ht_jis(name, "previtem"))
        return l->index0 == 0 ? ht_jundefined(j, "there is no previous item") : l->before;
    if (ht_jis(name, "nextitem"))
        return peek(j, l) ? l->after : ht_jundefined(j, "there is no next item");
    if (ht_jis(name, "cycle") || ht_jis(name, "changed")) {
        ht_jmethod *m = ht_jalloc(j, sizeof *m);
        *m = (ht_jmethod){ { .kind = JK_LOOP, .loop = l }, ht_jis(name, "cycle") ? "cycle" : "changed", loop_method };
        return (ht_jv){ .kind = JK_METHOD, .method = m };
    }
    *there = false;
    return ht_jnone();
}

static void loop_over(ht_jj *j, const ht_jnode *n, ht_jv source, int64_t depth0, ht_jscope *outer)
{
    ht_jscope *before = j->scope;
    ht_jloop *l = ht_jalloc(j, sizeof *l);
    const ht_jsym *loop_name = ht_jintern(j, "loop", 4);
    bool any = false;
    ht_jv v;

    const ht_jlist *items = ht_jelements(j, source);
    *l = (ht_jloop){ .node = n, .scope = outer, .items = items->v, .n_items = items->n, .index0 = -1, .length = -1, .depth0 = depth0 };
    for (;;) {
        if (l->has_after) {
            v = l->after;
            l->has_after = false;
        } else if (l->ended || !advance(j, l, &v)) {
            break;
        }
        any = true;
        l->index0++;
        l->before = l->current;
        l->current = v;
        ht_jsteps(j, 1);
        j->scope = new_scope(j, outer);
        define(j, j->scope, loop_name, (ht_jv){ .kind = JK_LOOP, .loop = l });
        assign(j, n->a, v, j->scope);
        flow f = run(j, &n->body);
        j->scope = before;
        if (f == BREAK)
            break;
    }
    if (!any && n->other.n) {
        j->scope = new_scope(j, outer);
        run(j, &n->other);
        j->scope = before;
    }
}

ht_jv ht_jloop_call(ht_jj *j, ht_jloop *l, ht_jv items)
{
    if (!l->node->flag)
        ht_jfail_here(j, HT_EINVAL, "the loop is not marked as recursive");
    ht_jbuf text = { 0 }, *out = j->out_buf;
    ht_jenter(j);
    j->out_buf = &text;
    loop_over(j, l->node, items, l->depth0 + 1, l->scope);
    j->out_buf = out;
    j->depth--;
    return ht_jtaken(&text);
}

/* ---- Statements ---- */

static flow branch(ht_jj *j, const ht_jnode *n)
{
    for (size_t i = 0; i < n->list.n; i++)
        if (ht_jtrue(ht_jeval(j, n->list.v[i]->a)))
            return run(j, &n->list.v[i]->body);
    return run(j, &n->other);
}

static void define_macro(ht_jj *j, const ht_jnode *n)
{
    ht_jmacro *m = ht_jalloc(j, sizeof *m);
    *m = (ht_jmacro){ n, n->sym, j->scope };
    define(j, j->scope, n->sym, (ht_jv){ .kind = JK_MACRO, .macro = m });
}

static void call_block(ht_jj *j, const ht_jnode *n)
{
    ht_jmacro *m = ht_jalloc(j, sizeof *m);
    *m = (ht_jmacro){ n, NULL, j->scope };
    ht_jv caller = { .kind = JK_MACRO, .macro = m };
    ht_jput_str(j, j->out_buf, call(j, n->a, &caller));
}

static flow scoped(ht_jj *j, const ht_jnode *n)
{
    ht_jscope *before = j->scope, *scope = new_scope(j, before);
    for (size_t i = 0; i < n->list.n; i++) /* of a with; all are computed outside of it */
        assign(j, n->list.v[i], ht_jeval(j, n->kw.v[i]), scope);
    j->scope = scope;
    flow f = run(j, &n->body);
    j->scope = before;
    return f;
}

static flow statement(ht_jj *j, const ht_jnode *n)
{
    ht_jv v;
    switch ((ht_jtype)n->type) {
    case JN_DATA: ht_jput(j, j->out_buf, n->v.s, n->v.n); return GO_ON;
    case JN_OUTPUT: ht_jput_str(j, j->out_buf, ht_jeval(j, n->a)); return GO_ON;
    case JN_FOR:
        v = ht_jeval(j, n->b);
        j->line = n->line;
        loop_over(j, n, v, 0, j->scope);
        return GO_ON;
    case JN_IF: return branch(j, n);
    case JN_SET:
        v = ht_jeval(j, n->b);
        j->line = n->line;
        assign(j, n->a, v, j->scope);
        return GO_ON;
    case JN_SETBLOCK:
        v = captured(j, &n->body, new_scope(j, j->scope));
        assign(j, n->a, n->b ? filtered(j, n->b, &v) : v, j->scope);
        return GO_ON;
    case JN_FILTERBLOCK:
        v = captured(j, &n->body, new_scope(j, j->scope));
        ht_jput_str(j, j->out_buf, filtered(j, n->b, &v));
        return GO_ON;
    case JN_MACRO: define_macro(j, n); return GO_ON;
    case JN_CALLBLOCK: call_block(j, n); return GO_ON;
    case JN_WITH:
    case JN_SCOPE: return scoped(j, n);
    case JN_BREAK: return BREAK;
    case JN_CONTINUE: return CONTINUE;
    default: ht_jfail_here(j, HT_EUNSUPPORTED, "a statement of an unknown kind");
    }
}

static flow run(ht_jj *j, const ht_jnodes *body)
{
    flow f = GO_ON;
    ht_jenter(j);
    for (size_t i = 0; i < body->n && f == GO_ON; i++) {
        ht_jsteps(j, 1);
        j->line = body->v[i]->line;
        f = statement(j, body->v[i]);
    }
    j->depth--;
    return f;
}

void ht_jexec(ht_jj *j, const ht_jnodes *body)
{
    j->scope = new_scope(j, NULL);
    run(j, body);
}
