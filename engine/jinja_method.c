/* SPDX-License-Identifier: MIT
 * Methods of values, and which of them the sandbox refuses; those of texts are in jinja_method_str.c. See jinja_impl.h. */
#include <math.h>

#include "engine/jinja_impl.h"

void ht_jbind(ht_jj *j, const char *fn, const ht_jargs *a, const char *const *names, size_t n_names, size_t n_min, ht_jv *out)
{
    if (a->n > n_names)
        ht_jfail_here(j, HT_EINVAL, "%s takes at most %zu arguments", fn, n_names);
    for (size_t i = 0; i < n_names; i++)
        out[i] = i < a->n ? a->v[i] : (ht_jv){ .kind = HT_JABSENT };
    for (size_t k = 0; k < a->n_kw; k++) {
        size_t i = 0;
        while (i < n_names && !ht_jis(a->kw[k].name, names[i]))
            i++;
        if (i == n_names || out[i].kind != HT_JABSENT)
            ht_jfail_here(j, HT_EINVAL, "%s has no use for the argument %.*s", fn,
                          a->kw[k].name.n < 60 ? (int)a->kw[k].name.n : 60, a->kw[k].name.s);
        out[i] = a->kw[k].v;
    }
    for (size_t i = 0; i < n_min; i++)
        if (out[i].kind == HT_JABSENT)
            ht_jfail_here(j, HT_EINVAL, "%s needs the argument %s", fn, names[i]);
}

static void takes(ht_jj *j, const char *fn, const ht_jargs *a, size_t least, size_t most)
{
    if (a->n < least || a->n > most || a->n_kw)
        ht_jfail_here(j, HT_EINVAL, "%s takes %zu to %zu arguments without names", fn, least, most);
}

static ht_jv of_dict(ht_jj *j, ht_jv self, const char *name, const ht_jargs *a)
{
    if (!strcmp(name, "get")) {
        takes(j, "get", a, 1, 2);
        if (!ht_jhashable(a->v[0]))
            ht_jfail_here(j, HT_EINVAL, "unhashable type: '%s'", ht_jtype_name(a->v[0]));
        const ht_jv *v = ht_jget(j, self.dict, a->v[0]);
        return v ? *v : a->n > 1 ? a->v[1] : ht_jnone();
    }
    takes(j, name, a, 0, !strcmp(name, "fromkeys") ? 2 : 0);
    if (!strcmp(name, "copy")) {
        ht_jv d = ht_jnew_dict(j, JK_DICT);
        for (size_t i = 0; i < self.dict->n; i++)
            ht_jset(j, d.dict, self.dict->e[i].key, self.dict->e[i].value);
        return d;
    }
    if (!strcmp(name, "fromkeys")) {
        ht_jv d = ht_jnew_dict(j, JK_DICT);
        if (!a->n)
            ht_jfail_here(j, HT_EINVAL, "fromkeys needs an argument");
        const ht_jlist *keys = ht_jelements(j, a->v[0]);
        for (size_t i = 0; i < keys->n; i++)
            ht_jset(j, d.dict, keys->v[i], a->n > 1 ? a->v[1] : ht_jnone());
        return d;
    }
    ht_jview *v = ht_jalloc(j, sizeof *v);
    *v = (ht_jview){ self.dict, name[0] };
    return (ht_jv){ .kind = JK_VIEW, .view = v };
}

static ht_jv of_list(ht_jj *j, ht_jv self, const char *name, const ht_jargs *a)
{
    int64_t n = 0;
    if (!strcmp(name, "copy")) {
        takes(j, name, a, 0, 0);
        ht_jv l = ht_jnew_list(j, self.list->n, JK_LIST);
        for (size_t i = 0; i < self.list->n; i++)
            ht_jappend(j, l.list, self.list->v[i]);
        return l;
    }
    const ht_jlist *l = ht_jelements(j, self);
    bool count = !strcmp(name, "count");
    takes(j, name, a, 1, count ? 1 : 3);
    int64_t from = a->n > 1 ? ht_jneed_int(j, a->v[1], "a place") : 0, to = a->n > 2 ? ht_jneed_int(j, a->v[2], "a place") : INT64_MAX;
    from += from < 0 ? (int64_t)l->n : 0;
    to += to < 0 ? (int64_t)l->n : 0;
    for (size_t i = from > 0 ? (size_t)from : 0; i < l->n && (int64_t)i < to; i++)
        if (ht_jeq(j, l->v[i], a->v[0])) {
            if (!count)
                return ht_jint((int64_t)i);
            n++;
        }
    if (!count)
        ht_jfail_here(j, HT_EINVAL, "index: there is no such element");
    return ht_jint(n);
}

static ht_jv of_number(ht_jj *j, ht_jv self, const char *name, const ht_jargs *a)
{
    takes(j, name, a, 0, 0);
    if (!strcmp(name, "is_integer"))
        return ht_jbool(self.kind != JK_FLOAT || (isfinite(self.f) && floor(self.f) == self.f));
    if (!strcmp(name, "conjugate"))
        return self.kind == JK_BOOL ? ht_jint(self.b) : self;
    int64_t i = 0, n = 0;
    if (!ht_jas_int(self, &i))
        ht_jfail_here(j, HT_EUNSUPPORTED, "the method '%s' is not known here", name);
    for (uint64_t u = i < 0 ? 0 - (uint64_t)i : (uint64_t)i; u; u >>= 1)
        n += !strcmp(name, "bit_count") ? (int64_t)(u & 1) : 1;
    return ht_jint(n);
}

static ht_jv of_cycler(ht_jj *j, ht_jv self, const char *name, const ht_jargs *a)
{
    takes(j, name, a, 0, 0);
    ht_jcycler *c = self.cycler;
    ht_jv v = c->v[c->at];
    if (name[0] == 'r') {
        c->at = 0;
        return ht_jnone();
    }
    c->at = (c->at + 1) % c->n;
    return v;
}

static ht_jv unknown(ht_jj *j, ht_jv self, const char *name, const ht_jargs *a)
{
    (void)a;
    ht_jfail_here(j, HT_EUNSUPPORTED, "the method '%s' of %s is not known here", name, ht_jtype_name(self));
}

typedef struct row {
    const char *name;
    ht_jmethod_fn *call; /* NULL: changes its object, which templates may not */
} row;

static const row dict_rows[] = { { "get", of_dict }, { "items", of_dict }, { "keys", of_dict }, { "values", of_dict },
                                 { "copy", of_dict }, { "fromkeys", of_dict }, { "clear", NULL }, { "pop", NULL },
                                 { "popitem", NULL }, { "setdefault", NULL }, { "update", NULL }, { 0 } };
static const row list_rows[] = { { "index", of_list }, { "count", of_list }, { "copy", of_list }, { "append", NULL },
                                 { "clear", NULL }, { "extend", NULL }, { "insert", NULL }, { "pop", NULL },
                                 { "remove", NULL }, { "reverse", NULL }, { "sort", NULL }, { 0 } };
static const row tuple_rows[] = { { "index", of_list }, { "count", of_list }, { 0 } };
static const row int_rows[] = { { "bit_length", of_number }, { "bit_count", of_number }, { "conjugate", of_number },
                                { "as_integer_ratio", unknown }, { "to_bytes", unknown }, { "from_bytes", unknown }, { 0 } };
static const row float_rows[] = { { "is_integer", of_number }, { "conjugate", of_number }, { "as_integer_ratio", unknown },
                                  { "hex", unknown }, { "fromhex", unknown }, { 0 } };
static const row cycler_rows[] = { { "next", of_cycler }, { "reset", of_cycler }, { 0 } };
static const row view_rows[] = { { "isdisjoint", unknown }, { "mapping", unknown }, { 0 } };
static const row iter_rows[] = { { "send", unknown }, { "throw", unknown }, { "close", unknown }, { 0 } };
static const row str_more[] = { { "encode", unknown }, { "maketrans", unknown }, { "translate", unknown }, { 0 } };

static const row *find(const row *rows, ht_jv name)
{
    for (; rows && rows->name; rows++)
        if (ht_jis(name, rows->name))
            return rows;
    return NULL;
}

ht_jmethod_fn *ht_jfind_method(ht_jv self, ht_jv name, const char **stored, bool *refused)
{
    const row *rows = NULL;
    *refused = false;
    switch ((ht_jkind)self.kind) {
    case JK_STR:
        for (const char *const *p = ht_jstr_methods; *p; p++)
            if (ht_jis(name, *p)) {
                *stored = *p;
                return ht_jmethod_str;
            }
        rows = str_more;
        break;
    case JK_DICT: rows = dict_rows; break;
    case JK_LIST: rows = list_rows; break;
    case JK_TUPLE:
    case JK_RANGE: rows = tuple_rows; break;
    case JK_BOOL:
    case JK_INT:
    case JK_BIG: rows = int_rows; break;
    case JK_FLOAT: rows = float_rows; break;
    case JK_CYCLER: rows = cycler_rows; break;
    case JK_VIEW: rows = view_rows; break;
    case JK_ITER: rows = iter_rows; break;
    default: break;
    }
    const row *r = find(rows, name);
    if (!r)
        return NULL;
    *stored = r->name;
    *refused = !r->call;
    return r->call;
}
