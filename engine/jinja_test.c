/* SPDX-License-Identifier: MIT
 * Tests (`x is odd`); see jinja_impl.h. */
#include <math.h>

#include "engine/jinja_impl.h"

static ht_jv one(ht_jj *j, const ht_jargs *a)
{
    if (a->n != 1 || a->n_kw)
        ht_jfail_here(j, HT_EINVAL, "this test takes one argument");
    return a->v[0];
}

static void none(ht_jj *j, const ht_jargs *a)
{
    if (a->n || a->n_kw)
        ht_jfail_here(j, HT_EINVAL, "this test takes no arguments");
}

/* Whether v can be the name of anything; what cannot be looked up at all is refused. */
static bool named(ht_jj *j, ht_jv v)
{
    if (!ht_jhashable(v))
        ht_jfail_here(j, HT_EINVAL, "unhashable type: '%s'", ht_jtype_name(v));
    return v.kind == JK_STR;
}

#define KIND(name, expression)                                                                                         \
    static bool t_##name(ht_jj *j, ht_jv v, const ht_jargs *a)                                                         \
    {                                                                                                                  \
        none(j, a);                                                                                                    \
        return expression;                                                                                             \
    }

KIND(defined, v.kind != JK_UNDEF)
KIND(undefined, v.kind == JK_UNDEF)
KIND(none, v.kind == JK_NONE)
KIND(boolean, v.kind == JK_BOOL)
KIND(true, v.kind == JK_BOOL && v.b)
KIND(false, v.kind == JK_BOOL && !v.b)
KIND(integer, v.kind == JK_INT || v.kind == JK_BIG)
KIND(float, v.kind == JK_FLOAT)
KIND(number, v.kind == JK_BOOL || v.kind == JK_INT || v.kind == JK_BIG || v.kind == JK_FLOAT)
KIND(string, v.kind == JK_STR)
KIND(mapping, v.kind == JK_DICT)
KIND(iterable, ht_jiterable(v))
KIND(sequence, v.kind == JK_UNDEF || v.kind == JK_STR || v.kind == JK_LIST || v.kind == JK_TUPLE || v.kind == JK_DICT ||
                   v.kind == JK_RANGE)
KIND(callable, v.kind == JK_UNDEF || v.kind == JK_MACRO || v.kind == JK_FUNC || v.kind == JK_METHOD || v.kind == JK_LOOP ||
                   v.kind == JK_JOINER)
KIND(escaped, v.kind == JK_STR && v.markup)
KIND(lower, ht_jmethod_str(j, ht_jto_str(j, v), "islower", a).b)
KIND(upper, ht_jmethod_str(j, ht_jto_str(j, v), "isupper", a).b)
KIND(filter, named(j, v) && ht_jfind_filter(v))
KIND(test, named(j, v) && ht_jfind_test(v))

static bool divides(ht_jj *j, ht_jv v, ht_jv by)
{
    return ht_jeq(j, ht_jbinary(j, HT_JOP_MOD, v, by), ht_jint(0));
}

static bool t_odd(ht_jj *j, ht_jv v, const ht_jargs *a)
{
    none(j, a);
    return ht_jeq(j, ht_jbinary(j, HT_JOP_MOD, v, ht_jint(2)), ht_jint(1));
}

static bool t_even(ht_jj *j, ht_jv v, const ht_jargs *a)
{
    none(j, a);
    return divides(j, v, ht_jint(2));
}

static bool t_divisibleby(ht_jj *j, ht_jv v, const ht_jargs *a)
{
    static const char *const names[] = { "num" };
    ht_jv g[1];
    ht_jbind(j, "divisibleby", a, names, 1, 1, g);
    return divides(j, v, g[0]);
}

static bool t_eq(ht_jj *j, ht_jv v, const ht_jargs *a) { return ht_jeq(j, v, one(j, a)); }
static bool t_ne(ht_jj *j, ht_jv v, const ht_jargs *a) { return !ht_jeq(j, v, one(j, a)); }
static bool t_lt(ht_jj *j, ht_jv v, const ht_jargs *a) { return ht_jcompare(j, HT_JOP_LT, v, one(j, a)); }
static bool t_le(ht_jj *j, ht_jv v, const ht_jargs *a) { return ht_jcompare(j, HT_JOP_LE, v, one(j, a)); }
static bool t_gt(ht_jj *j, ht_jv v, const ht_jargs *a) { return ht_jcompare(j, HT_JOP_GT, v, one(j, a)); }
static bool t_ge(ht_jj *j, ht_jv v, const ht_jargs *a) { return ht_jcompare(j, HT_JOP_GE, v, one(j, a)); }
static bool t_in(ht_jj *j, ht_jv v, const ht_jargs *a) { return ht_jcontains(j, v, one(j, a)); }

static bool t_sameas(ht_jj *j, ht_jv v, const ht_jargs *a)
{
    ht_jv w = one(j, a);
    if (v.kind != w.kind)
        return false;
    switch ((ht_jkind)v.kind) {
    case JK_LIST:
    case JK_TUPLE: return v.list == w.list;
    case JK_DICT:
    case JK_NS: return v.dict == w.dict;
    case JK_UNDEF: return v.undef == w.undef;
    default: return ht_jeq(j, v, w);
    }
}

static const ht_jtest tests[] = {
    { "boolean", t_boolean }, { "callable", t_callable }, { "defined", t_defined }, { "divisibleby", t_divisibleby },
    { "eq", t_eq }, { "equalto", t_eq }, { "==", t_eq }, { "escaped", t_escaped }, { "even", t_even }, { "false", t_false },
    { "filter", t_filter }, { "float", t_float }, { "ge", t_ge }, { ">=", t_ge }, { "gt", t_gt }, { "greaterthan", t_gt },
    { ">", t_gt }, { "in", t_in }, { "integer", t_integer }, { "iterable", t_iterable }, { "le", t_le }, { "<=", t_le },
    { "lt", t_lt }, { "lessthan", t_lt }, { "<", t_lt }, { "lower", t_lower }, { "mapping", t_mapping }, { "ne", t_ne },
    { "!=", t_ne }, { "none", t_none }, { "number", t_number }, { "odd", t_odd }, { "sameas", t_sameas },
    { "sequence", t_sequence }, { "string", t_string }, { "test", t_test }, { "true", t_true }, { "undefined", t_undefined },
    { "upper", t_upper }, { 0 }
};

const ht_jtest *ht_jfind_test(ht_jv name)
{
    for (const ht_jtest *t = tests; t->name; t++)
        if (ht_jis(name, t->name))
            return t;
    return NULL;
}
