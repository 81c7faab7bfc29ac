/* SPDX-License-Identifier: MIT
 *
 * What the parts of the interpreter share; jinja.h says what they are. Everything here lives in the arena of one run: nothing is
 * freed by itself, and pointers are valid until the run ends. Functions do not return where something fails. */
#ifndef HT_JINJA_IMPL_H
#define HT_JINJA_IMPL_H

#include <setjmp.h>
#include <string.h>

#include "engine/jinja.h"

/* ---- Values ---- */

typedef enum ht_jkind {
    JK_UNDEF, JK_NONE, JK_BOOL, JK_INT, JK_FLOAT,
    JK_BIG,    /* an integer of more than 64 bits, as its digits: it can be compared and written, not computed with */
    JK_STR, JK_LIST, JK_TUPLE, JK_DICT,
    JK_RANGE,
    JK_ITER,   /* an iterator: a list and a place in it */
    JK_VIEW,   /* keys(), values() and items() of a dictionary */
    JK_NS, JK_MACRO, JK_FUNC, JK_METHOD, JK_LOOP, JK_CYCLER, JK_JOINER
} ht_jkind;

typedef struct ht_jlist ht_jlist;
typedef struct ht_jdict ht_jdict;
typedef struct ht_jundef ht_jundef;
typedef struct ht_jrange ht_jrange;
typedef struct ht_jiter ht_jiter;
typedef struct ht_jview ht_jview;
typedef struct ht_jmacro ht_jmacro;
typedef struct ht_jfunc ht_jfunc;
typedef struct ht_jmethod ht_jmethod;
typedef struct ht_jloop ht_jloop;
typedef struct ht_jcycler ht_jcycler;

typedef struct ht_jv {
    uint8_t kind;
    bool markup; /* a text that counts as escaped */
    union {
        bool b;
        int64_t i;
        double f;
        const char *s; /* n bytes, not terminated */
        ht_jlist *list;
        ht_jdict *dict; /* JK_DICT and JK_NS */
        const ht_jundef *undef;
        const ht_jrange *range;
        ht_jiter *iter;
        const ht_jview *view;
        const ht_jmacro *macro;
        const ht_jfunc *func;
        const ht_jmethod *method;
        ht_jloop *loop;
        ht_jcycler *cycler; /* JK_JOINER too */
    };
    size_t n; /* of JK_STR and JK_BIG */
} ht_jv;

struct ht_jlist {
    ht_jv *v;
    size_t n, cap;
};

typedef struct ht_jentry {
    ht_jv key, value;
    uint32_t hash;
} ht_jentry;

struct ht_jdict { /* in the order of insertion; nothing is ever removed */
    ht_jentry *e;
    size_t n, cap;
    uint32_t *index; /* [n_index] entry + 1; NULL while there are few */
    size_t n_index;
};

struct ht_jundef {
    const char *hint; /* the whole message, or NULL: made of the rest */
    size_t n_hint;
    ht_jv name;
    const char *owner; /* type of the object that lacks it; NULL: a variable */
};

struct ht_jrange {
    int64_t start, stop, step, n;
};

struct ht_jiter {
    ht_jv *v;
    size_t n, at;
    const char *what; /* "generator" */
};

struct ht_jview {
    const ht_jdict *dict;
    char what; /* 'k', 'v', 'i' */
};

typedef struct ht_jsym { /* a name; the same name is the same pointer */
    const char *s;
    size_t n;
    struct ht_jsym *next;
} ht_jsym;

typedef struct ht_jkw {
    ht_jv name;
    ht_jv v;
} ht_jkw;

typedef struct ht_jargs {
    const ht_jv *v;
    size_t n;
    const ht_jkw *kw;
    size_t n_kw;
} ht_jargs;

typedef ht_jv ht_jcall(ht_jj *j, const ht_jargs *a);
struct ht_jfunc {
    const char *name;
    ht_jcall *call;
};
struct ht_jmethod {
    ht_jv self;
    const char *name;
    ht_jv (*call)(ht_jj *j, ht_jv self, const char *name, const ht_jargs *a);
};
struct ht_jcycler {
    const ht_jv *v;
    size_t n, at;
    ht_jv sep;
    bool used;
};

/* ---- Tree ---- */

typedef enum ht_jtype {
    /* expressions */
    JN_CONST, JN_NAME, JN_LIST, JN_TUPLE, JN_DICT, JN_ATTR, JN_ITEM, JN_SLICE, JN_CALL, JN_FILTER, JN_TEST, JN_UNARY, JN_BINARY,
    JN_CONCAT, JN_COMPARE, JN_AND, JN_OR, JN_NOT, JN_COND, JN_NSREF, JN_KW,
    /* statements */
    JN_DATA, JN_OUTPUT, JN_FOR, JN_IF, JN_SET, JN_SETBLOCK, JN_MACRO, JN_CALLBLOCK, JN_FILTERBLOCK, JN_WITH, JN_SCOPE, JN_BREAK, JN_CONTINUE
} ht_jtype;

typedef struct ht_jnode ht_jnode;
typedef struct ht_jnodes {
    ht_jnode **v;
    size_t n, cap;
} ht_jnodes;

/* Which member holds what is said where jinja_parse.c and jinja_expr.c make a node. */
struct ht_jnode {
    uint8_t type, op;
    bool flag;
    uint8_t catches; /* of a macro: HT_JCATCH_ */
    uint16_t depth; /* of the tree below */
    uint32_t line;
    ht_jnode *a, *b, *c;
    ht_jnodes list, kw, body, other;
    const ht_jsym *sym;
    const void *entry; /* the filter's or test's row; NULL: there is none of that name */
    ht_jv v;
};
enum { HT_JCATCH_KWARGS = 1, HT_JCATCH_VARARGS = 2, HT_JCATCH_CALLER = 4 };

enum { HT_JOP_ADD = 1, HT_JOP_SUB, HT_JOP_MUL, HT_JOP_DIV, HT_JOP_FLOORDIV, HT_JOP_MOD, HT_JOP_POW, HT_JOP_EQ, HT_JOP_NE,
       HT_JOP_LT, HT_JOP_LE, HT_JOP_GT, HT_JOP_GE, HT_JOP_IN, HT_JOP_NOTIN };

/* ---- Tokens ---- */

typedef enum ht_jtok {
    JT_EOF, JT_DATA, JT_VAR, JT_VAR_END, JT_BLOCK, JT_BLOCK_END, JT_NAME, JT_STR, JT_NUMBER, JT_OP
} ht_jtok;
/* Operators of two characters are their first and 128 more: '*' + 128 is **. */
enum { HT_JTWO = 128 };

typedef struct ht_jtoken {
    uint8_t type, op;
    uint32_t line;
    ht_jv v;            /* of data, strings and numbers */
    const ht_jsym *sym; /* of names */
} ht_jtoken;

/* ---- A run ---- */

typedef struct ht_jvar {
    const ht_jsym *sym;
    ht_jv v;
} ht_jvar;

typedef struct ht_jscope {
    struct ht_jscope *up;
    ht_jvar *v;
    size_t n, cap;
} ht_jscope;

typedef struct ht_jbuf { /* a text that grows in the arena */
    char *s;
    size_t n, cap;
} ht_jbuf;

struct ht_jmacro {
    const ht_jnode *node;
    const ht_jsym *name; /* NULL: a call block's */
    ht_jscope *scope;
};

struct ht_jloop {
    ht_jj *j;
    const ht_jnode *node;
    ht_jscope *scope;
    ht_jv source;
    ht_jv *items;
    size_t n_items, at; /* at: the next to be looked at */
    bool has_after, ended, changed_set;
    ht_jv after, current, before, changed;
    int64_t index0, length, depth0; /* length -1: not known */
};

typedef struct ht_jblock {
    struct ht_jblock *next;
    size_t n;
    _Alignas(16) char bytes[];
} ht_jblock;

enum { HT_JSYMS = 256, HT_JDEPTH = 1000, HT_JTREE = 400, HT_JNEST = 100 };

struct ht_jj {
    jmp_buf out;
    ht_status status;
    ht_error error;
    /* the arena */
    ht_jblock *blocks;
    char *at, *end;
    uint64_t bytes, max_bytes, steps, max_steps;
    /* symbols and tokens */
    ht_jsym *syms[HT_JSYMS];
    ht_jtoken *tokens;
    size_t n_tokens, cap_tokens, token; /* token: the parser's place */
    uint32_t nest, loops, in_macro;
    bool soft; /* filters and tests that are not known fail when they are met */
    uint8_t catches;
    /* evaluation */
    uint32_t line;
    uint32_t depth;
    ht_jscope *scope;
    ht_jdict *context;
    ht_jbuf *out_buf;
    int64_t now;
};

/* jinja_mem.c */
_Noreturn void ht_jfail(ht_jj *j, ht_status st, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* The sentence ends with the line. */
_Noreturn void ht_jfail_here(ht_jj *j, ht_status st, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void *ht_jalloc(ht_jj *j, size_t n);                         /* zeroed */
void *ht_jgrow(ht_jj *j, void *p, size_t old, size_t n);     /* as realloc; what is new is not zeroed */
void ht_jsteps(ht_jj *j, uint64_t n);
void ht_jput(ht_jj *j, ht_jbuf *b, const char *s, size_t n);
void ht_jputs(ht_jj *j, ht_jbuf *b, const char *s);
void ht_jputc(ht_jj *j, ht_jbuf *b, char c);
void ht_jputu(ht_jj *j, ht_jbuf *b, uint32_t c); /* a code point */
__attribute__((format(printf, 3, 4))) void ht_jprint(ht_jj *j, ht_jbuf *b, const char *fmt, ...);
ht_jv ht_jtaken(const ht_jbuf *b);
const ht_jsym *ht_jintern(ht_jj *j, const char *s, size_t n);
char *ht_jcstr(ht_jj *j, ht_jv v);

/* jinja_text.c: UTF-8; a byte that is none counts as one character */
size_t ht_ju_next(const char *s, size_t n, uint32_t *c); /* length of the first character; *c >= 0x110000: no character */
size_t ht_ju_count(const char *s, size_t n);
size_t ht_ju_offset(const char *s, size_t n, size_t chars); /* byte offset of a character, n at most */
bool ht_ju_space(uint32_t c);
bool ht_ju_alnum(uint32_t c);
bool ht_ju_digit(uint32_t c);
bool ht_ju_shown(uint32_t c);
void ht_ju_upper(ht_jj *j, ht_jbuf *b, uint32_t c);
void ht_ju_title(ht_jj *j, ht_jbuf *b, uint32_t c);
ht_jv ht_ju_lower(ht_jj *j, ht_jv s);
bool ht_ju_is_upper(uint32_t c);
bool ht_ju_is_lower(uint32_t c);
bool ht_ju_is_title(uint32_t c);
bool ht_ju_cased(uint32_t c);
bool ht_ju_alpha(uint32_t c);
ht_jv ht_ju_strip(ht_jv s, const ht_jv *chars, bool left, bool right);
/* Lines of a text as str.splitlines cuts them: *at goes on, *n without the end unless keep. */
bool ht_ju_line(ht_jv s, size_t *at, bool keep, ht_jv *line);

/* jinja_value.c */
static inline ht_jv ht_jnone(void) { return (ht_jv){ .kind = JK_NONE }; }
static inline ht_jv ht_jbool(bool b) { return (ht_jv){ .kind = JK_BOOL, .b = b }; }
static inline ht_jv ht_jint(int64_t i) { return (ht_jv){ .kind = JK_INT, .i = i }; }
static inline ht_jv ht_jfloat(double f) { return (ht_jv){ .kind = JK_FLOAT, .f = f }; }
static inline ht_jv ht_jstr(const char *s, size_t n) { return (ht_jv){ .kind = JK_STR, .s = s, .n = n }; }
#define HT_JLIT(text) ht_jstr(text, sizeof(text) - 1)
ht_jv ht_jtext(const char *s); /* a terminated one that lives long enough */
ht_jv ht_jundefined(ht_jj *j, const char *hint);
ht_jv ht_jundefined_name(ht_jj *j, ht_jv name);
ht_jv ht_jundefined_of(ht_jj *j, ht_jv owner, ht_jv name);
_Noreturn void ht_jfail_undefined(ht_jj *j, ht_jv v);
const char *ht_jtype_name(ht_jv v);
bool ht_jis(ht_jv v, const char *text);
bool ht_jtrue(ht_jv v);
bool ht_jeq(ht_jj *j, ht_jv a, ht_jv b);
int ht_jcmp(ht_jj *j, ht_jv a, ht_jv b, const char *op); /* -1, 0, 1; 2: not ordered (NaN) */
ht_jv ht_jnew_list(ht_jj *j, size_t cap, ht_jkind kind);
void ht_jappend(ht_jj *j, ht_jlist *l, ht_jv v);
ht_jv ht_jnew_dict(ht_jj *j, ht_jkind kind);
void ht_jset(ht_jj *j, ht_jdict *d, ht_jv key, ht_jv value);
const ht_jv *ht_jget(ht_jj *j, const ht_jdict *d, ht_jv key); /* NULL: not there; the key must be hashable */
bool ht_jhashable(ht_jv v);
/* Elements of anything that can be iterated (an iterator is used up); fails on others. */
ht_jlist *ht_jelements(ht_jj *j, ht_jv v);
bool ht_jiterable(ht_jv v);
int64_t ht_jlength(ht_jj *j, ht_jv v, bool *known); /* known NULL: fails where there is none */
ht_jv ht_jnew_iter(ht_jj *j, ht_jlist *l, const char *what);
void ht_jput_str(ht_jj *j, ht_jbuf *b, ht_jv v);
void ht_jput_repr(ht_jj *j, ht_jbuf *b, ht_jv v);
ht_jv ht_jto_str(ht_jj *j, ht_jv v); /* soft_str: markup stays markup */
ht_jv ht_jescape(ht_jj *j, ht_jv v);

/* jinja_number.c */
void ht_jput_float(ht_jj *j, ht_jbuf *b, double f);
bool ht_jparse_float(ht_jv s, double *out);          /* as float(str) */
bool ht_jparse_int(ht_jj *j, ht_jv s, int base, ht_jv *out); /* as int(str, base) */
double ht_jdecimal(const char *digits, size_t n, long exponent); /* digits * 10^exponent, whatever the locale */
/* printf-like with one double; the point is a point whatever the locale. */
void ht_jput_double(ht_jj *j, ht_jbuf *b, char how, int precision, bool alternate, double f);
double ht_jround(double f, int64_t digits);
bool ht_jas_double(ht_jv v, double *f); /* of bool, int, float */
bool ht_jas_int(ht_jv v, int64_t *i);   /* of bool, int */
int64_t ht_jneed_int(ht_jj *j, ht_jv v, const char *what);

/* jinja_format.c */
ht_jv ht_jpercent(ht_jj *j, ht_jv fmt, ht_jv values);
ht_jv ht_jstr_format(ht_jj *j, ht_jv fmt, const ht_jargs *a);

/* jinja_op.c */
ht_jv ht_jbinary(ht_jj *j, int op, ht_jv a, ht_jv b);
ht_jv ht_junary(ht_jj *j, int op, ht_jv a);
bool ht_jcompare(ht_jj *j, int op, ht_jv a, ht_jv b);
bool ht_jcontains(ht_jj *j, ht_jv item, ht_jv in);
ht_jv ht_jattr(ht_jj *j, ht_jv v, ht_jv name);
ht_jv ht_jitem(ht_jj *j, ht_jv v, ht_jv key);
ht_jv ht_jslice(ht_jj *j, ht_jv v, ht_jv start, ht_jv stop, ht_jv step);
ht_jv ht_jinvoke(ht_jj *j, ht_jv f, const ht_jargs *a);

/* jinja_eval.c */
ht_jv ht_jeval(ht_jj *j, const ht_jnode *n);
void ht_jexec(ht_jj *j, const ht_jnodes *body);
ht_jv ht_jmacro_call(ht_jj *j, const ht_jmacro *m, const ht_jargs *a);
ht_jv ht_jloop_attr(ht_jj *j, ht_jloop *l, ht_jv name, bool *there);
ht_jv ht_jloop_call(ht_jj *j, ht_jloop *l, ht_jv items);
void ht_jenter(ht_jj *j); /* one level deeper, or a sentence */

/* jinja_lex.c, jinja_expr.c, jinja_parse.c */
void ht_jlex(ht_jj *j, const char *text, size_t n);
ht_jnodes ht_jparse(ht_jj *j);
ht_jnode *ht_jnew_node(ht_jj *j, ht_jtype type, uint32_t line);
ht_jnode *ht_jover(ht_jj *j, ht_jnode *n, const ht_jnode *child); /* n is over child now (NULL: nothing): how deep it is */
void ht_jadd(ht_jj *j, ht_jnodes *l, ht_jnode *n);
const ht_jtoken *ht_jtop(ht_jj *j);
const ht_jtoken *ht_jpeek(ht_jj *j);
bool ht_jis_name(const ht_jtoken *t, const char *name);
bool ht_jis_op(const ht_jtoken *t, int op);
bool ht_jskip_name(ht_jj *j, const char *name);
bool ht_jskip_op(ht_jj *j, int op);
void ht_jexpect_op(ht_jj *j, int op, const char *what);
_Noreturn void ht_junexpected(ht_jj *j, const char *wanted);
ht_jnode *ht_jparse_expr(ht_jj *j, bool with_if);
ht_jnode *ht_jparse_tuple(ht_jj *j, bool with_if, bool parentheses, const char *stop);
ht_jnode *ht_jparse_primary(ht_jj *j);
ht_jnode *ht_jparse_unary(ht_jj *j, bool with_filter);
/* Filters behind a node (NULL: the text of a block). first: the first one comes without a bar. */
ht_jnode *ht_jparse_filters(ht_jj *j, ht_jnode *node, bool first);
void ht_jparse_call(ht_jj *j, ht_jnode *call);

/* Tables: filters, tests and functions by name. */
typedef struct ht_jfilter {
    const char *name;
    ht_jv (*call)(ht_jj *j, ht_jv v, const ht_jargs *a);
} ht_jfilter;
typedef struct ht_jtest {
    const char *name;
    bool (*call)(ht_jj *j, ht_jv v, const ht_jargs *a);
} ht_jtest;
extern const ht_jfilter ht_jfilters_text[], ht_jfilters_seq[];
const ht_jfilter *ht_jfind_filter(ht_jv name);
const ht_jtest *ht_jfind_test(ht_jv name);
const ht_jfunc *ht_jfind_func(const ht_jsym *name);
/* Methods of values; NULL: the type has no attribute of that name. *refused: it has, and templates may not use it. */
typedef ht_jv ht_jmethod_fn(ht_jj *j, ht_jv self, const char *name, const ht_jargs *a);
ht_jmethod_fn *ht_jfind_method(ht_jv self, ht_jv name, const char **stored, bool *refused);
ht_jmethod_fn ht_jmethod_str;
extern const char *const ht_jstr_methods[];

/* Arguments by place or name: out[i] is that of names[i], kind 255 where it was not given. */
enum { HT_JABSENT = 255 };
void ht_jbind(ht_jj *j, const char *fn, const ht_jargs *a, const char *const *names, size_t n_names, size_t n_min, ht_jv *out);

/* json.c */
/* *at goes on behind the value; whole: nothing but white space may follow. */
ht_jv ht_jjson_parse(ht_jj *j, const char *s, size_t n, size_t *at, bool whole);
/* The same where text may be anything: false, with nothing said, where there is no JSON value at *at. */
bool ht_jjson_try(ht_jj *j, const char *s, size_t n, size_t *at, ht_jv *out);
typedef struct ht_jjson_how {
    bool ascii, sort, indented;
    ht_jv indent, item_sep, key_sep;
} ht_jjson_how;
void ht_jjson_put(ht_jj *j, ht_jbuf *b, ht_jv v, const ht_jjson_how *how);
void ht_jjson_put_str(ht_jj *j, ht_jbuf *b, const char *s, size_t n, bool ascii);

#endif
