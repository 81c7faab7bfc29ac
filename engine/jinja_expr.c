/* SPDX-License-Identifier: MIT
 * Expressions: from tokens to a tree, by jinja2's grammar and precedence; see jinja_impl.h.
 *
 * if else, or, and, not, comparisons, + -, ~, * / // %, unary and what is behind a primary (. [] () | is), **: the last is weaker
 * than a unary minus there, and goes from left to right. */
#include "engine/jinja_impl.h"

const ht_jtoken *ht_jtop(ht_jj *j) { return &j->tokens[j->token]; }

const ht_jtoken *ht_jpeek(ht_jj *j)
{
    return &j->tokens[j->token + (j->token + 1 < j->n_tokens)];
}

static const ht_jtoken *take(ht_jj *j)
{
    const ht_jtoken *t = ht_jtop(j);
    j->line = t->line;
    if (j->token + 1 < j->n_tokens)
        j->token++;
    return t;
}

bool ht_jis_name(const ht_jtoken *t, const char *name)
{
    return t->type == JT_NAME && strlen(name) == t->sym->n && memcmp(t->sym->s, name, t->sym->n) == 0;
}

bool ht_jis_op(const ht_jtoken *t, int op) { return t->type == JT_OP && t->op == op; }

bool ht_jskip_name(ht_jj *j, const char *name)
{
    bool is = ht_jis_name(ht_jtop(j), name);
    if (is)
        take(j);
    return is;
}

bool ht_jskip_op(ht_jj *j, int op)
{
    bool is = ht_jis_op(ht_jtop(j), op);
    if (is)
        take(j);
    return is;
}

void ht_junexpected(ht_jj *j, const char *wanted)
{
    const ht_jtoken *t = ht_jtop(j);
    char what[80];
    j->line = t->line;
    ht_error e;
    switch (t->type) {
    case JT_NAME: ht_fail(&e, HT_EFORMAT, "'%.*s'", t->sym->n < 40 ? (int)t->sym->n : 40, t->sym->s); break;
    case JT_OP:
        ht_fail(&e, HT_EFORMAT, "'%c%.1s'", t->op & 127,
                t->op < HT_JTWO ? "" : t->op == '*' + HT_JTWO ? "*" : t->op == '/' + HT_JTWO ? "/" : "=");
        break;
    case JT_STR: ht_fail(&e, HT_EFORMAT, "a string"); break;
    case JT_NUMBER: ht_fail(&e, HT_EFORMAT, "a number"); break;
    case JT_VAR_END: ht_fail(&e, HT_EFORMAT, "the end of the expression"); break;
    case JT_BLOCK_END: ht_fail(&e, HT_EFORMAT, "the end of the statement"); break;
    case JT_EOF: ht_fail(&e, HT_EFORMAT, "the end of the template"); break;
    default: ht_fail(&e, HT_EFORMAT, "text"); break;
    }
    memcpy(what, e.text, sizeof what - 1);
    what[sizeof what - 1] = 0;
    ht_jfail_here(j, HT_EFORMAT, "%s was expected, %s stands there", wanted, what);
}

void ht_jexpect_op(ht_jj *j, int op, const char *what)
{
    if (!ht_jskip_op(j, op))
        ht_junexpected(j, what);
}

ht_jnode *ht_jnew_node(ht_jj *j, ht_jtype type, uint32_t line)
{
    ht_jnode *n = ht_jalloc(j, sizeof *n);
    n->type = (uint8_t)type;
    n->line = line;
    return n;
}

ht_jnode *ht_jover(ht_jj *j, ht_jnode *n, const ht_jnode *child)
{
    if (child && child->depth >= n->depth) {
        if (child->depth >= HT_JTREE) {
            j->line = n->line;
            ht_jfail_here(j, HT_EUNSUPPORTED, "an expression or block nests deeper than %d", HT_JTREE);
        }
        n->depth = (uint16_t)(child->depth + 1);
    }
    return n;
}

void ht_jadd(ht_jj *j, ht_jnodes *l, ht_jnode *n)
{
    if (l->n == l->cap) {
        size_t cap = 2 * l->cap + 4;
        l->v = ht_jgrow(j, l->v, l->n * sizeof *l->v, cap * sizeof *l->v);
        l->cap = cap;
    }
    l->v[l->n++] = n;
}

static void nest(ht_jj *j)
{
    if (++j->nest > HT_JNEST)
        ht_jfail_here(j, HT_EUNSUPPORTED, "expressions nest deeper than %d", HT_JNEST);
}

static ht_jnode *binary(ht_jj *j, ht_jtype type, int op, uint32_t line, ht_jnode *a, ht_jnode *b)
{
    ht_jnode *n = ht_jnew_node(j, type, line);
    n->op = (uint8_t)op;
    n->a = a;
    n->b = b;
    return ht_jover(j, ht_jover(j, n, a), b);
}

static ht_jnode *constant(ht_jj *j, uint32_t line, ht_jv v)
{
    ht_jnode *n = ht_jnew_node(j, JN_CONST, line);
    n->v = v;
    return n;
}

static void add_over(ht_jj *j, ht_jnode *n, ht_jnodes *l, ht_jnode *child)
{
    ht_jadd(j, l, child);
    ht_jover(j, n, child);
}

/* ---- Behind a primary ---- */

void ht_jparse_call(ht_jj *j, ht_jnode *call)
{
    ht_jexpect_op(j, '(', "'('");
    nest(j);
    for (bool first = true; !ht_jis_op(ht_jtop(j), ')'); first = false) {
        if (!first) {
            ht_jexpect_op(j, ',', "',' or ')'");
            if (ht_jis_op(ht_jtop(j), ')'))
                break;
        }
        const ht_jtoken *t = ht_jtop(j);
        if (ht_jis_op(t, '*')) {
            if (call->b || call->c)
                ht_junexpected(j, "an argument");
            take(j);
            call->b = ht_jparse_expr(j, true);
            ht_jover(j, call, call->b);
        } else if (ht_jis_op(t, '*' + HT_JTWO)) {
            if (call->c)
                ht_junexpected(j, "an argument");
            take(j);
            call->c = ht_jparse_expr(j, true);
            ht_jover(j, call, call->c);
        } else if (t->type == JT_NAME && ht_jis_op(ht_jpeek(j), '=')) {
            if (call->c)
                ht_junexpected(j, "')'");
            take(j);
            take(j);
            ht_jnode *kw = ht_jnew_node(j, JN_KW, t->line);
            kw->sym = t->sym;
            kw->a = ht_jparse_expr(j, true);
            ht_jover(j, kw, kw->a);
            add_over(j, call, &call->kw, kw);
        } else {
            if (call->b || call->c || call->kw.n)
                ht_junexpected(j, "a named argument");
            add_over(j, call, &call->list, ht_jparse_expr(j, true));
        }
    }
    ht_jexpect_op(j, ')', "')'");
    j->nest--;
}

static ht_jnode *subscribed(ht_jj *j)
{
    const ht_jtoken *t = ht_jtop(j);
    ht_jnode *parts[3] = { NULL, NULL, NULL };
    if (!ht_jis_op(t, ':')) {
        parts[0] = ht_jparse_expr(j, true);
        if (!ht_jis_op(ht_jtop(j), ':'))
            return parts[0];
    }
    ht_jnode *n = ht_jnew_node(j, JN_SLICE, t->line);
    for (int i = 1; i < 3 && ht_jskip_op(j, ':'); i++)
        if (!ht_jis_op(ht_jtop(j), ':') && !ht_jis_op(ht_jtop(j), ']') && !ht_jis_op(ht_jtop(j), ','))
            parts[i] = ht_jparse_expr(j, true);
    n->a = parts[0];
    n->b = parts[1];
    n->c = parts[2];
    return ht_jover(j, ht_jover(j, ht_jover(j, n, n->a), n->b), n->c);
}

static ht_jnode *subscript(ht_jj *j, ht_jnode *node)
{
    const ht_jtoken *t = take(j);
    if (t->op == '.') {
        const ht_jtoken *name = take(j);
        if (name->type == JT_NAME) {
            ht_jnode *n = binary(j, JN_ATTR, 0, t->line, node, NULL);
            n->v = ht_jstr(name->sym->s, name->sym->n);
            return n;
        }
        if (name->type != JT_NUMBER || name->v.kind != JK_INT) {
            j->token--;
            ht_junexpected(j, "a name or a number behind '.'");
        }
        return binary(j, JN_ITEM, 0, t->line, node, constant(j, name->line, name->v));
    }
    nest(j);
    ht_jnode *key = NULL, *tuple = NULL;
    for (size_t n = 0; !ht_jis_op(ht_jtop(j), ']'); n++) {
        if (n)
            ht_jexpect_op(j, ',', "',' or ']'");
        ht_jnode *part = subscribed(j);
        if (n == 1) {
            tuple = ht_jnew_node(j, JN_TUPLE, t->line);
            add_over(j, tuple, &tuple->list, key);
        }
        key = part;
        if (n)
            add_over(j, tuple, &tuple->list, part);
    }
    ht_jexpect_op(j, ']', "']'");
    j->nest--;
    if (!key)
        key = ht_jnew_node(j, JN_TUPLE, t->line);
    return binary(j, JN_ITEM, 0, t->line, node, tuple ? tuple : key);
}

static ht_jnode *call(ht_jj *j, ht_jnode *node)
{
    ht_jnode *n = ht_jnew_node(j, JN_CALL, ht_jtop(j)->line);
    n->a = node;
    ht_jover(j, n, node);
    ht_jparse_call(j, n);
    return n;
}

static ht_jnode *postfix(ht_jj *j, ht_jnode *node)
{
    for (;;) {
        const ht_jtoken *t = ht_jtop(j);
        if (ht_jis_op(t, '.') || ht_jis_op(t, '['))
            node = subscript(j, node);
        else if (ht_jis_op(t, '('))
            node = call(j, node);
        else
            return node;
    }
}

/* A name that may have dots in it. */
static ht_jv dotted(ht_jj *j, const char *what)
{
    ht_jbuf b = { 0 };
    do {
        if (ht_jtop(j)->type != JT_NAME)
            ht_junexpected(j, what);
        const ht_jtoken *t = take(j);
        if (b.n)
            ht_jputc(j, &b, '.');
        ht_jput(j, &b, t->sym->s, t->sym->n);
    } while (ht_jskip_op(j, '.'));
    return ht_jtaken(&b);
}

static ht_jnode *test(ht_jj *j, ht_jnode *node)
{
    uint32_t line = take(j)->line;
    bool negated = ht_jskip_name(j, "not");
    ht_jnode *n = ht_jnew_node(j, JN_TEST, line);
    n->a = node;
    ht_jover(j, n, node);
    n->v = dotted(j, "the name of a test");
    n->entry = ht_jfind_test(n->v);
    const ht_jtoken *t = ht_jtop(j);
    if (ht_jis_op(t, '(')) {
        ht_jparse_call(j, n);
    } else if (t->type == JT_STR || t->type == JT_NUMBER || ht_jis_op(t, '[') || ht_jis_op(t, '{') ||
               (t->type == JT_NAME && !ht_jis_name(t, "else") && !ht_jis_name(t, "or") && !ht_jis_name(t, "and"))) {
        if (ht_jis_name(t, "is"))
            ht_jfail_here(j, HT_EFORMAT, "tests cannot be chained with is");
        nest(j);
        add_over(j, n, &n->list, postfix(j, ht_jparse_primary(j)));
        j->nest--;
    }
    return negated ? binary(j, JN_NOT, 0, line, n, NULL) : n;
}

ht_jnode *ht_jparse_filters(ht_jj *j, ht_jnode *node, bool first)
{
    for (;; first = false) {
        const ht_jtoken *t = ht_jtop(j);
        if (first || ht_jis_op(t, '|')) {
            if (!first)
                take(j);
            ht_jnode *n = ht_jnew_node(j, JN_FILTER, t->line);
            n->a = node;
            ht_jover(j, n, node);
            n->v = dotted(j, "the name of a filter");
            n->entry = ht_jfind_filter(n->v);
            if (ht_jis_op(ht_jtop(j), '('))
                ht_jparse_call(j, n);
            node = n;
        } else if (node && ht_jis_name(t, "is")) {
            node = test(j, node);
        } else if (node && ht_jis_op(t, '(')) {
            node = call(j, node);
        } else {
            return node;
        }
    }
}

/* ---- Primaries ---- */

static ht_jnode *list(ht_jj *j)
{
    ht_jnode *n = ht_jnew_node(j, JN_LIST, take(j)->line);
    while (!ht_jis_op(ht_jtop(j), ']')) {
        if (n->list.n)
            ht_jexpect_op(j, ',', "',' or ']'");
        if (ht_jis_op(ht_jtop(j), ']'))
            break;
        add_over(j, n, &n->list, ht_jparse_expr(j, true));
    }
    ht_jexpect_op(j, ']', "']'");
    return n;
}

static ht_jnode *dict(ht_jj *j)
{
    ht_jnode *n = ht_jnew_node(j, JN_DICT, take(j)->line);
    while (!ht_jis_op(ht_jtop(j), '}')) {
        if (n->list.n)
            ht_jexpect_op(j, ',', "',' or '}'");
        if (ht_jis_op(ht_jtop(j), '}'))
            break;
        add_over(j, n, &n->list, ht_jparse_expr(j, true));
        ht_jexpect_op(j, ':', "':'");
        add_over(j, n, &n->list, ht_jparse_expr(j, true));
    }
    ht_jexpect_op(j, '}', "'}'");
    return n;
}

ht_jnode *ht_jparse_primary(ht_jj *j)
{
    const ht_jtoken *t = ht_jtop(j);
    ht_jnode *n;
    if (t->type == JT_NAME) {
        take(j);
        if (ht_jis_name(t, "true") || ht_jis_name(t, "True"))
            return constant(j, t->line, ht_jbool(true));
        if (ht_jis_name(t, "false") || ht_jis_name(t, "False"))
            return constant(j, t->line, ht_jbool(false));
        if (ht_jis_name(t, "none") || ht_jis_name(t, "None"))
            return constant(j, t->line, ht_jnone());
        if (ht_jis_name(t, "kwargs"))
            j->catches |= HT_JCATCH_KWARGS;
        if (ht_jis_name(t, "varargs"))
            j->catches |= HT_JCATCH_VARARGS;
        if (ht_jis_name(t, "caller"))
            j->catches |= HT_JCATCH_CALLER;
        n = ht_jnew_node(j, JN_NAME, t->line);
        n->sym = t->sym;
        return n;
    }
    if (t->type == JT_STR) { /* strings side by side are one */
        take(j);
        if (ht_jtop(j)->type != JT_STR)
            return constant(j, t->line, t->v);
        ht_jbuf b = { 0 };
        ht_jput(j, &b, t->v.s, t->v.n);
        while (ht_jtop(j)->type == JT_STR) {
            const ht_jtoken *more = take(j);
            ht_jput(j, &b, more->v.s, more->v.n);
        }
        return constant(j, t->line, ht_jtaken(&b));
    }
    if (t->type == JT_NUMBER) {
        take(j);
        return constant(j, t->line, t->v);
    }
    nest(j);
    if (ht_jis_op(t, '(')) {
        take(j);
        n = ht_jparse_tuple(j, true, true, ")");
        ht_jexpect_op(j, ')', "')'");
    } else if (ht_jis_op(t, '[')) {
        n = list(j);
    } else if (ht_jis_op(t, '{')) {
        n = dict(j);
    } else {
        ht_junexpected(j, "an expression");
    }
    j->nest--;
    return n;
}

ht_jnode *ht_jparse_unary(ht_jj *j, bool with_filter)
{
    const ht_jtoken *t = ht_jtop(j);
    ht_jnode *n;
    if (ht_jis_op(t, '-') || ht_jis_op(t, '+')) {
        take(j);
        nest(j);
        n = binary(j, JN_UNARY, t->op, t->line, ht_jparse_unary(j, false), NULL);
        j->nest--;
    } else {
        n = ht_jparse_primary(j);
    }
    n = postfix(j, n);
    return with_filter ? ht_jparse_filters(j, n, false) : n;
}

/* ---- Operators ---- */

static ht_jnode *power(ht_jj *j)
{
    ht_jnode *n = ht_jparse_unary(j, true);
    while (ht_jis_op(ht_jtop(j), '*' + HT_JTWO)) {
        uint32_t line = take(j)->line;
        n = binary(j, JN_BINARY, HT_JOP_POW, line, n, ht_jparse_unary(j, true));
    }
    return n;
}

static ht_jnode *product(ht_jj *j)
{
    ht_jnode *n = power(j);
    for (;;) {
        const ht_jtoken *t = ht_jtop(j);
        int op = ht_jis_op(t, '*')             ? HT_JOP_MUL
                 : ht_jis_op(t, '/')           ? HT_JOP_DIV
                 : ht_jis_op(t, '/' + HT_JTWO) ? HT_JOP_FLOORDIV
                 : ht_jis_op(t, '%')           ? HT_JOP_MOD
                                               : 0;
        if (!op)
            return n;
        take(j);
        n = binary(j, JN_BINARY, op, t->line, n, power(j));
    }
}

static ht_jnode *concat(ht_jj *j)
{
    ht_jnode *first = product(j), *n = NULL;
    while (ht_jis_op(ht_jtop(j), '~')) {
        uint32_t line = take(j)->line;
        if (!n) {
            n = ht_jnew_node(j, JN_CONCAT, line);
            add_over(j, n, &n->list, first);
        }
        add_over(j, n, &n->list, product(j));
    }
    return n ? n : first;
}

static ht_jnode *sum(ht_jj *j)
{
    ht_jnode *n = concat(j);
    for (;;) {
        const ht_jtoken *t = ht_jtop(j);
        int op = ht_jis_op(t, '+') ? HT_JOP_ADD : ht_jis_op(t, '-') ? HT_JOP_SUB : 0;
        if (!op)
            return n;
        take(j);
        n = binary(j, JN_BINARY, op, t->line, n, concat(j));
    }
}

static int comparison(ht_jj *j)
{
    const ht_jtoken *t = ht_jtop(j);
    if (t->type == JT_OP) {
        switch (t->op) {
        case '<': return HT_JOP_LT;
        case '>': return HT_JOP_GT;
        case '<' + HT_JTWO: return HT_JOP_LE;
        case '>' + HT_JTWO: return HT_JOP_GE;
        case '=' + HT_JTWO: return HT_JOP_EQ;
        case '!' + HT_JTWO: return HT_JOP_NE;
        default: return 0;
        }
    }
    if (ht_jis_name(t, "in"))
        return HT_JOP_IN;
    if (ht_jis_name(t, "not") && ht_jis_name(ht_jpeek(j), "in")) {
        take(j);
        return HT_JOP_NOTIN;
    }
    return 0;
}

static ht_jnode *compare(ht_jj *j)
{
    ht_jnode *first = sum(j), *n = NULL;
    for (int op; (op = comparison(j));) {
        uint32_t line = take(j)->line;
        if (!n) {
            n = ht_jnew_node(j, JN_COMPARE, line);
            n->a = first;
            ht_jover(j, n, first);
        }
        ht_jnode *kw = ht_jnew_node(j, JN_KW, line);
        kw->op = (uint8_t)op;
        kw->a = sum(j);
        ht_jover(j, kw, kw->a);
        add_over(j, n, &n->list, kw);
    }
    return n ? n : first;
}

static ht_jnode *negation(ht_jj *j)
{
    if (!ht_jis_name(ht_jtop(j), "not"))
        return compare(j);
    uint32_t line = take(j)->line;
    nest(j);
    ht_jnode *n = binary(j, JN_NOT, 0, line, negation(j), NULL);
    j->nest--;
    return n;
}

static ht_jnode *conjunction(ht_jj *j)
{
    ht_jnode *n = negation(j);
    while (ht_jis_name(ht_jtop(j), "and")) {
        uint32_t line = take(j)->line;
        n = binary(j, JN_AND, 0, line, n, negation(j));
    }
    return n;
}

static ht_jnode *disjunction(ht_jj *j)
{
    ht_jnode *n = conjunction(j);
    while (ht_jis_name(ht_jtop(j), "or")) {
        uint32_t line = take(j)->line;
        n = binary(j, JN_OR, 0, line, n, conjunction(j));
    }
    return n;
}

ht_jnode *ht_jparse_expr(ht_jj *j, bool with_if)
{
    nest(j);
    ht_jnode *n = disjunction(j);
    while (with_if && ht_jis_name(ht_jtop(j), "if")) {
        uint32_t line = take(j)->line;
        ht_jnode *c = ht_jnew_node(j, JN_COND, line);
        c->b = n;
        c->a = disjunction(j);
        if (ht_jskip_name(j, "else"))
            c->c = ht_jparse_expr(j, true);
        n = ht_jover(j, ht_jover(j, ht_jover(j, c, c->a), c->b), c->c);
    }
    j->nest--;
    return n;
}

ht_jnode *ht_jparse_tuple(ht_jj *j, bool with_if, bool parentheses, const char *stop)
{
    ht_jnode *tuple = NULL, *first = NULL;
    const uint32_t line = ht_jtop(j)->line;
    for (;;) {
        const ht_jtoken *t = ht_jtop(j);
        bool end = t->type == JT_VAR_END || t->type == JT_BLOCK_END || ht_jis_op(t, ')') || (stop && ht_jis_name(t, stop));
        if (end)
            break;
        ht_jnode *n = ht_jparse_expr(j, with_if);
        if (!first)
            first = n;
        if (tuple)
            add_over(j, tuple, &tuple->list, n);
        if (!ht_jis_op(ht_jtop(j), ','))
            break;
        take(j);
        if (!tuple) {
            tuple = ht_jnew_node(j, JN_TUPLE, line);
            add_over(j, tuple, &tuple->list, first);
        }
    }
    if (tuple)
        return tuple;
    if (first)
        return first;
    if (!parentheses)
        ht_junexpected(j, "an expression");
    return ht_jnew_node(j, JN_TUPLE, line);
}
