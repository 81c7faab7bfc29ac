/* SPDX-License-Identifier: MIT
 * Statements: from tokens to a tree; see jinja_impl.h. */
#include <stdio.h>

#include "engine/jinja_impl.h"

static ht_jnodes statements(ht_jj *j, const char *const *ends, const char *opened, uint32_t line);

static const ht_jtoken *take(ht_jj *j)
{
    const ht_jtoken *t = ht_jtop(j);
    j->line = t->line;
    if (j->token + 1 < j->n_tokens)
        j->token++;
    return t;
}

static void block_end(ht_jj *j)
{
    if (ht_jtop(j)->type != JT_BLOCK_END)
        ht_junexpected(j, "'%}'");
    take(j);
}

/* Statements up to {% end %}, which is taken up to its name; block_end follows. */
static ht_jnodes body_to(ht_jj *j, ht_jnode *n, const char *end, const char *other, const char *third)
{
    const char *const ends[] = { end, other, third, NULL };
    block_end(j);
    ht_jnodes l = statements(j, ends, end, n->line);
    for (size_t i = 0; i < l.n; i++)
        ht_jover(j, n, l.v[i]);
    return l;
}

/* ---- What is assigned to ---- */

static ht_jnode *one_target(ht_jj *j, bool spaces)
{
    if (ht_jis_op(ht_jtop(j), '(')) {
        take(j);
        ht_jnode *n = ht_jnew_node(j, JN_TUPLE, j->line);
        if (++j->nest > HT_JNEST)
            ht_jfail_here(j, HT_EUNSUPPORTED, "expressions nest deeper than %d", HT_JNEST);
        while (!ht_jis_op(ht_jtop(j), ')')) {
            ht_jadd(j, &n->list, one_target(j, spaces));
            if (!ht_jskip_op(j, ','))
                break;
        }
        ht_jexpect_op(j, ')', "')'");
        j->nest--;
        return n;
    }
    if (ht_jtop(j)->type != JT_NAME)
        ht_junexpected(j, "a name to assign to");
    const ht_jtoken *t = take(j);
    static const char *const constants[] = { "true", "True", "false", "False", "none", "None" };
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++)
        if (ht_jis_name(t, constants[i]))
            ht_jfail_here(j, HT_EFORMAT, "%s cannot be assigned to", constants[i]);
    ht_jnode *n = ht_jnew_node(j, JN_NAME, t->line);
    n->sym = t->sym;
    if (spaces && ht_jis_op(ht_jtop(j), '.')) {
        take(j);
        if (ht_jtop(j)->type != JT_NAME)
            ht_junexpected(j, "the name of an attribute");
        const ht_jtoken *attr = take(j);
        n->type = JN_NSREF;
        n->v = ht_jstr(attr->sym->s, attr->sym->n);
    } else if (!spaces && (ht_jis_op(ht_jtop(j), '.') || ht_jis_op(ht_jtop(j), '['))) {
        ht_junexpected(j, "a name alone");
    }
    return n;
}

static ht_jnode *target(ht_jj *j, bool spaces)
{
    uint32_t line = ht_jtop(j)->line;
    ht_jnode *first = one_target(j, spaces), *n = NULL;
    while (ht_jis_op(ht_jtop(j), ',')) {
        take(j);
        if (!n) {
            n = ht_jnew_node(j, JN_TUPLE, line);
            ht_jadd(j, &n->list, first);
        }
        if (!spaces && ht_jis_name(ht_jtop(j), "in"))
            break;
        ht_jadd(j, &n->list, one_target(j, spaces));
    }
    return n ? n : first;
}

/* ---- Statements ---- */

static ht_jnode *parse_for(ht_jj *j, ht_jnode *n)
{
    n->a = target(j, false);
    if (!ht_jskip_name(j, "in"))
        ht_junexpected(j, "'in'");
    n->b = ht_jparse_tuple(j, false, false, "recursive");
    if (ht_jskip_name(j, "if"))
        n->c = ht_jparse_expr(j, true);
    n->flag = ht_jskip_name(j, "recursive");
    ht_jover(j, ht_jover(j, n, n->b), n->c);
    j->loops++;
    n->body = body_to(j, n, "endfor", "else", NULL);
    j->loops--;
    if (ht_jskip_name(j, "else"))
        n->other = body_to(j, n, "endfor", NULL, NULL);
    take(j);
    return n;
}

static ht_jnode *parse_if(ht_jj *j, ht_jnode *n)
{
    do {
        ht_jnode *branch = ht_jnew_node(j, JN_KW, j->line);
        branch->a = ht_jparse_tuple(j, false, false, NULL);
        ht_jover(j, branch, branch->a);
        branch->body = body_to(j, branch, "elif", "else", "endif");
        ht_jadd(j, &n->list, branch);
        ht_jover(j, n, branch);
    } while (ht_jskip_name(j, "elif"));
    if (ht_jskip_name(j, "else"))
        n->other = body_to(j, n, "endif", NULL, NULL);
    take(j);
    return n;
}

static ht_jnode *parse_set(ht_jj *j, ht_jnode *n)
{
    n->a = target(j, true);
    if (ht_jskip_op(j, '=')) {
        n->b = ht_jparse_tuple(j, true, false, NULL);
        return ht_jover(j, n, n->b);
    }
    n->type = JN_SETBLOCK;
    n->b = ht_jparse_filters(j, NULL, false);
    ht_jover(j, n, n->b);
    n->body = body_to(j, n, "endset", NULL, NULL);
    take(j);
    return n;
}

static void signature(ht_jj *j, ht_jnode *n)
{
    ht_jexpect_op(j, '(', "'('");
    while (!ht_jis_op(ht_jtop(j), ')')) {
        if (n->list.n)
            ht_jexpect_op(j, ',', "',' or ')'");
        ht_jnode *name = one_target(j, false);
        if (name->type != JN_NAME)
            ht_jfail_here(j, HT_EFORMAT, "a parameter is a name");
        ht_jadd(j, &n->list, name);
        if (ht_jskip_op(j, '=')) {
            ht_jadd(j, &n->kw, ht_jparse_expr(j, true));
            ht_jover(j, n, n->kw.v[n->kw.n - 1]);
        } else if (n->kw.n) {
            ht_jfail_here(j, HT_EFORMAT, "a parameter without a default follows one that has one");
        }
    }
    ht_jexpect_op(j, ')', "')'");
}

/* The body of a macro or call block: which of kwargs, varargs and caller it names is known afterwards. */
static void macro_body(ht_jj *j, ht_jnode *n, const char *end, uint8_t before)
{
    const uint32_t loops = j->loops;
    j->loops = 0;
    n->body = body_to(j, n, end, NULL, NULL);
    j->loops = loops;
    take(j);
    n->catches = j->catches;
    j->catches |= before;
}

static ht_jnode *parse_macro(ht_jj *j, ht_jnode *n)
{
    const uint8_t before = j->catches;
    if (ht_jtop(j)->type != JT_NAME)
        ht_junexpected(j, "the name of a macro");
    n->sym = take(j)->sym;
    j->catches = 0;
    signature(j, n);
    macro_body(j, n, "endmacro", before);
    return n;
}

static ht_jnode *parse_callblock(ht_jj *j, ht_jnode *n)
{
    const uint8_t before = j->catches;
    j->catches = 0;
    if (ht_jis_op(ht_jtop(j), '('))
        signature(j, n);
    const uint8_t own = j->catches;
    n->a = ht_jparse_expr(j, true);
    if (n->a->type != JN_CALL)
        ht_jfail_here(j, HT_EFORMAT, "a call block calls something");
    ht_jover(j, n, n->a);
    const uint8_t called = (uint8_t)(before | j->catches);
    j->catches = own;
    macro_body(j, n, "endcall", called);
    return n;
}

static ht_jnode *parse_with(ht_jj *j, ht_jnode *n)
{
    while (ht_jtop(j)->type != JT_BLOCK_END) {
        if (n->list.n)
            ht_jexpect_op(j, ',', "',' or '%}'");
        ht_jadd(j, &n->list, one_target(j, false));
        ht_jexpect_op(j, '=', "'='");
        ht_jadd(j, &n->kw, ht_jparse_expr(j, true));
        ht_jover(j, n, n->kw.v[n->kw.n - 1]);
    }
    n->body = body_to(j, n, "endwith", NULL, NULL);
    take(j);
    return n;
}

static ht_jnode *statement(ht_jj *j)
{
    static const char *const refused[] = { "extends", "block", "include", "import", "from", "autoescape", "do", "trans", "debug" };
    if (ht_jtop(j)->type != JT_NAME)
        ht_junexpected(j, "the name of a statement");
    const ht_jtoken *t = take(j);
    const uint32_t line = t->line;
    if (ht_jis_name(t, "for"))
        return parse_for(j, ht_jnew_node(j, JN_FOR, line));
    if (ht_jis_name(t, "if"))
        return parse_if(j, ht_jnew_node(j, JN_IF, line));
    if (ht_jis_name(t, "set"))
        return parse_set(j, ht_jnew_node(j, JN_SET, line));
    if (ht_jis_name(t, "macro"))
        return parse_macro(j, ht_jnew_node(j, JN_MACRO, line));
    if (ht_jis_name(t, "call"))
        return parse_callblock(j, ht_jnew_node(j, JN_CALLBLOCK, line));
    if (ht_jis_name(t, "with"))
        return parse_with(j, ht_jnew_node(j, JN_WITH, line));
    ht_jnode *n = NULL;
    if (ht_jis_name(t, "filter")) {
        n = ht_jnew_node(j, JN_FILTERBLOCK, line);
        n->b = ht_jparse_filters(j, NULL, true);
        ht_jover(j, n, n->b);
        n->body = body_to(j, n, "endfilter", NULL, NULL);
        take(j);
    } else if (ht_jis_name(t, "generation")) {
        n = ht_jnew_node(j, JN_SCOPE, line);
        const uint32_t loops = j->loops;
        j->loops = 0;
        n->body = body_to(j, n, "endgeneration", NULL, NULL);
        j->loops = loops;
        take(j);
    } else if (ht_jis_name(t, "break") || ht_jis_name(t, "continue")) {
        if (!j->loops)
            ht_jfail_here(j, HT_EFORMAT, "%s stands outside a loop", t->sym->n == 5 ? "break" : "continue");
        n = ht_jnew_node(j, t->sym->n == 5 ? JN_BREAK : JN_CONTINUE, line);
    } else if (ht_jis_name(t, "print")) {
        n = ht_jnew_node(j, JN_OUTPUT, line);
        n->a = ht_jnew_node(j, JN_CONCAT, line); /* one after the other */
        do {
            ht_jnode *part = ht_jparse_expr(j, true);
            ht_jadd(j, &n->a->list, part);
            ht_jover(j, n->a, part);
        } while (ht_jskip_op(j, ','));
        ht_jover(j, n, n->a);
    } else {
        for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
            if (ht_jis_name(t, refused[i]))
                ht_jfail_here(j, HT_EUNSUPPORTED, "the statement '%s' is not known here", refused[i]);
        ht_jfail_here(j, HT_EUNSUPPORTED, "unknown statement '%.*s'", t->sym->n < 60 ? (int)t->sym->n : 60, t->sym->s);
    }
    return n;
}

/* Up to a statement of one of these names, whose name is next then; ends NULL: up to the end of the template. */
static ht_jnodes statements(ht_jj *j, const char *const *ends, const char *opened, uint32_t line)
{
    ht_jnodes l = { 0 };
    if (++j->nest > HT_JNEST)
        ht_jfail_here(j, HT_EUNSUPPORTED, "blocks nest deeper than %d", HT_JNEST);
    for (;;) {
        const ht_jtoken *t = take(j);
        ht_jnode *n;
        switch (t->type) {
        case JT_DATA:
            n = ht_jnew_node(j, JN_DATA, t->line);
            n->v = t->v;
            ht_jadd(j, &l, n);
            continue;
        case JT_VAR:
            n = ht_jnew_node(j, JN_OUTPUT, t->line);
            n->a = ht_jparse_tuple(j, true, false, NULL);
            ht_jover(j, n, n->a);
            if (ht_jtop(j)->type != JT_VAR_END)
                ht_junexpected(j, "'}}'");
            take(j);
            ht_jadd(j, &l, n);
            continue;
        case JT_BLOCK:
            for (const char *const *e = ends; e && *e; e++)
                if (ht_jis_name(ht_jtop(j), *e)) {
                    j->nest--;
                    return l;
                }
            ht_jadd(j, &l, statement(j));
            block_end(j);
            continue;
        default:
            if (!ends) {
                j->nest--;
                return l;
            }
            j->line = line;
            ht_jfail_here(j, HT_EFORMAT, "the block that begins here has no %s", opened);
        }
    }
}

/* ---- Filters and tests that nobody knows ---- */

static void check(ht_jj *j, const ht_jnode *n, bool soft);

static void check_all(ht_jj *j, const ht_jnodes *l, bool soft)
{
    for (size_t i = 0; i < l->n; i++)
        check(j, l->v[i], soft);
}

/* jinja2 refuses them when it reads the template, but for branches of an if, which may never be taken. */
static void check(ht_jj *j, const ht_jnode *n, bool soft)
{
    if (!n)
        return;
    if ((n->type == JN_FILTER || n->type == JN_TEST) && !n->entry && !soft) {
        j->line = n->line;
        ht_jfail_here(j, HT_EUNSUPPORTED, "there is no %s '%.*s'", n->type == JN_FILTER ? "filter" : "test",
                      n->v.n < 60 ? (int)n->v.n : 60, n->v.s);
    }
    bool inner = n->type == JN_FOR || n->type == JN_MACRO || n->type == JN_CALLBLOCK || n->type == JN_FILTERBLOCK ||
                 n->type == JN_SETBLOCK || n->type == JN_WITH || n->type == JN_SCOPE;
    bool below = n->type == JN_IF || n->type == JN_COND || (soft && !inner);
    check(j, n->a, below);
    check(j, n->b, below);
    check(j, n->c, below);
    check_all(j, &n->list, below);
    check_all(j, &n->kw, below);
    check_all(j, &n->body, below);
    check_all(j, &n->other, below);
}

ht_jnodes ht_jparse(ht_jj *j)
{
    ht_jnodes l = statements(j, NULL, NULL, 1);
    check_all(j, &l, false);
    return l;
}
