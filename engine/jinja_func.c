/* SPDX-License-Identifier: MIT
 * Functions that every template sees, and ht_jinja_render; see jinja_impl.h. */
#include <stdlib.h>

#include "engine/jinja_impl.h"

static ht_jv g_range(ht_jj *j, const ht_jargs *a)
{
    if (!a->n || a->n > 3 || a->n_kw)
        ht_jfail_here(j, HT_EINVAL, "range takes one to three integers");
    int64_t v[3] = { 0, 0, 1 };
    for (size_t i = 0; i < a->n; i++)
        v[a->n == 1 ? 1 : i] = ht_jneed_int(j, a->v[i], "an end or the step of range");
    ht_jrange *r = ht_jalloc(j, sizeof *r);
    if (!v[2])
        ht_jfail_here(j, HT_EINVAL, "range() arg 3 must not be zero");
    uint64_t span = v[2] > 0 ? (v[1] > v[0] ? (uint64_t)v[1] - (uint64_t)v[0] : 0) : v[0] > v[1] ? (uint64_t)v[0] - (uint64_t)v[1] : 0;
    uint64_t by = v[2] > 0 ? (uint64_t)v[2] : 0 - (uint64_t)v[2], n = span ? (span - 1) / by + 1 : 0;
    if (n > 100000)
        ht_jfail_here(j, HT_EINVAL, "Range too big. The sandbox blocks ranges larger than MAX_RANGE (100000).");
    *r = (ht_jrange){ v[0], v[1], v[2], (int64_t)n };
    return (ht_jv){ .kind = JK_RANGE, .range = r };
}

/* dict and namespace: a dictionary or pairs, then names. */
static ht_jv made(ht_jj *j, const ht_jargs *a, ht_jkind kind, const char *fn)
{
    ht_jv d = ht_jnew_dict(j, kind);
    if (a->n > 1)
        ht_jfail_here(j, HT_EINVAL, "%s takes at most one argument without a name", fn);
    if (a->n && a->v[0].kind == JK_DICT) {
        for (size_t i = 0; i < a->v[0].dict->n; i++)
            ht_jset(j, d.dict, a->v[0].dict->e[i].key, a->v[0].dict->e[i].value);
    } else if (a->n) {
        const ht_jlist *l = ht_jelements(j, a->v[0]);
        for (size_t i = 0; i < l->n; i++) {
            const ht_jlist *pair = ht_jelements(j, l->v[i]);
            if (pair->n != 2)
                ht_jfail_here(j, HT_EINVAL, "%s: element %zu is no pair", fn, i);
            ht_jset(j, d.dict, pair->v[0], pair->v[1]);
        }
    }
    for (size_t i = 0; i < a->n_kw; i++)
        ht_jset(j, d.dict, a->kw[i].name, a->kw[i].v);
    return d;
}

static ht_jv g_dict(ht_jj *j, const ht_jargs *a) { return made(j, a, JK_DICT, "dict"); }
static ht_jv g_namespace(ht_jj *j, const ht_jargs *a) { return made(j, a, JK_NS, "namespace"); }

static ht_jv g_cycler(ht_jj *j, const ht_jargs *a)
{
    if (!a->n || a->n_kw)
        ht_jfail_here(j, HT_EINVAL, "at least one item has to be provided");
    ht_jcycler *c = ht_jalloc(j, sizeof *c);
    c->v = a->v;
    c->n = a->n;
    return (ht_jv){ .kind = JK_CYCLER, .cycler = c };
}

static ht_jv g_joiner(ht_jj *j, const ht_jargs *a)
{
    static const char *const names[] = { "sep" };
    ht_jv g[1];
    ht_jbind(j, "joiner", a, names, 1, 0, g);
    ht_jcycler *c = ht_jalloc(j, sizeof *c);
    c->sep = g[0].kind == HT_JABSENT ? HT_JLIT(", ") : g[0];
    return (ht_jv){ .kind = JK_JOINER, .cycler = c };
}

static ht_jv g_raise(ht_jj *j, const ht_jargs *a)
{
    static const char *const names[] = { "message" };
    ht_jv g[1];
    ht_jbind(j, "raise_exception", a, names, 1, 1, g);
    ht_jv s = ht_jto_str(j, g[0]);
    ht_jfail(j, HT_EINVAL, "the chat template refuses (line %u): %.*s", j->line, s.n < 300 ? (int)s.n : 300, s.s);
}

/* ---- The clock ---- */

typedef struct date {
    int64_t days, year;
    int month, day, hour, minute, second, weekday, yearday; /* month from 0, Monday is 1, yearday from 0 */
} date;

/* Days since 1970 to a date of the Gregorian calendar, counted in years that begin in March. */
static date date_of(int64_t now)
{
    date d = { 0 };
    int64_t s = now % 86400;
    d.days = now / 86400;
    if (s < 0) {
        s += 86400;
        d.days--;
    }
    d.hour = (int)(s / 3600);
    d.minute = (int)(s / 60 % 60);
    d.second = (int)(s % 60);
    d.weekday = (int)(((d.days + 4) % 7 + 7) % 7);
    int64_t z = d.days + 719468, era = (z >= 0 ? z : z - 146096) / 146097, doe = z - era * 146097;
    int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365, doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    int64_t mp = (5 * doy + 2) / 153;
    d.day = (int)(doy - (153 * mp + 2) / 5 + 1);
    d.month = (int)(mp < 10 ? mp + 2 : mp - 10);
    d.year = yoe + era * 400 + (d.month <= 1);
    static const int before[] = { 0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334 };
    bool leap = (d.year % 4 == 0 && d.year % 100 != 0) || d.year % 400 == 0;
    d.yearday = before[d.month] + d.day - 1 + (leap && d.month > 1);
    return d;
}

static int iso_week(const date *d, int64_t *year)
{
    int wd = (d->weekday + 6) % 7; /* Monday is 0 */
    int week = (d->yearday - wd + 10) / 7;
    *year = d->year;
    bool leap_before = ((d->year - 1) % 4 == 0 && (d->year - 1) % 100 != 0) || (d->year - 1) % 400 == 0;
    bool leap = (d->year % 4 == 0 && d->year % 100 != 0) || d->year % 400 == 0;
    if (week < 1) {
        --*year;
        int yd = d->yearday + (leap_before ? 366 : 365);
        return (yd - wd + 10) / 7;
    }
    if (week == 53 && d->yearday - wd + 3 >= (leap ? 366 : 365)) {
        ++*year;
        return 1;
    }
    return week;
}

static const char *const days[] = { "Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday" };
static const char *const months[] = { "January", "February", "March", "April", "May", "June", "July", "August", "September",
                                      "October", "November", "December" };

static void put_time(ht_jj *j, ht_jbuf *b, const date *d, char c, bool bare)
{
    int64_t iso;
    const int twelve = d->hour % 12 ? d->hour % 12 : 12;
    const char *two = bare ? "%d" : "%02d";
    switch (c) {
    case 'Y': ht_jprint(j, b, "%lld", (long long)d->year); break;
    case 'y': ht_jprint(j, b, "%02d", (int)(((d->year % 100) + 100) % 100)); break;
    case 'C': ht_jprint(j, b, "%02d", (int)(d->year / 100)); break;
    case 'm': ht_jprint(j, b, two, d->month + 1); break;
    case 'B': ht_jputs(j, b, months[d->month]); break;
    case 'b':
    case 'h': ht_jput(j, b, months[d->month], 3); break;
    case 'd': ht_jprint(j, b, two, d->day); break;
    case 'e': ht_jprint(j, b, bare ? "%d" : "%2d", d->day); break;
    case 'A': ht_jputs(j, b, days[d->weekday]); break;
    case 'a': ht_jput(j, b, days[d->weekday], 3); break;
    case 'H': ht_jprint(j, b, two, d->hour); break;
    case 'k': ht_jprint(j, b, bare ? "%d" : "%2d", d->hour); break;
    case 'I': ht_jprint(j, b, two, twelve); break;
    case 'l': ht_jprint(j, b, bare ? "%d" : "%2d", twelve); break;
    case 'M': ht_jprint(j, b, two, d->minute); break;
    case 'S': ht_jprint(j, b, two, d->second); break;
    case 'f': ht_jputs(j, b, "000000"); break;
    case 'p': ht_jputs(j, b, d->hour < 12 ? "AM" : "PM"); break;
    case 'P': ht_jputs(j, b, d->hour < 12 ? "am" : "pm"); break;
    case 'j': ht_jprint(j, b, bare ? "%d" : "%03d", d->yearday + 1); break;
    case 'u': ht_jprint(j, b, "%d", d->weekday ? d->weekday : 7); break;
    case 'w': ht_jprint(j, b, "%d", d->weekday); break;
    case 'U': ht_jprint(j, b, two, (d->yearday + 7 - d->weekday) / 7); break;
    case 'W': ht_jprint(j, b, two, (d->yearday + 7 - (d->weekday + 6) % 7) / 7); break;
    case 'V': ht_jprint(j, b, two, iso_week(d, &iso)); break;
    case 'G':
        iso_week(d, &iso);
        ht_jprint(j, b, "%lld", (long long)iso);
        break;
    case 's': ht_jprint(j, b, "%lld", (long long)d->days * 86400 + d->hour * 3600 + d->minute * 60 + d->second); break;
    case 'n': ht_jputc(j, b, '\n'); break;
    case 't': ht_jputc(j, b, '\t'); break;
    case 'Z':
    case 'z': break; /* Python's clock has no zone there */
    case '%': ht_jputc(j, b, '%'); break;
    default:
        ht_jputc(j, b, '%');
        if (c)
            ht_jputc(j, b, c);
        break;
    }
}

static void put_date(ht_jj *j, ht_jbuf *b, const date *d, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (s[i] != '%') {
            ht_jputc(j, b, s[i]);
            continue;
        }
        bool bare = i + 2 < n && s[i + 1] == '-';
        i += bare;
        char c = ++i < n ? s[i] : 0;
        switch (c) {
        case 'c': put_date(j, b, d, "%a %b %e %H:%M:%S %Y", 20); break;
        case 'x':
        case 'D': put_date(j, b, d, "%m/%d/%y", 8); break;
        case 'X':
        case 'T': put_date(j, b, d, "%H:%M:%S", 8); break;
        case 'F': put_date(j, b, d, "%Y-%m-%d", 8); break;
        case 'R': put_date(j, b, d, "%H:%M", 5); break;
        case 'r': put_date(j, b, d, "%I:%M:%S %p", 11); break;
        default: put_time(j, b, d, c, bare); break;
        }
    }
}

static ht_jv g_strftime(ht_jj *j, const ht_jargs *a)
{
    static const char *const names[] = { "format" };
    ht_jv g[1];
    ht_jbuf b = { 0 };
    ht_jbind(j, "strftime_now", a, names, 1, 1, g);
    if (g[0].kind != JK_STR)
        ht_jfail_here(j, HT_EINVAL, "strftime_now needs a text, not %s", ht_jtype_name(g[0]));
    date d = date_of(j->now);
    put_date(j, &b, &d, g[0].s, g[0].n);
    return ht_jtaken(&b);
}

static ht_jv g_lipsum(ht_jj *j, const ht_jargs *a)
{
    (void)a;
    ht_jfail_here(j, HT_EUNSUPPORTED, "the function 'lipsum' is not known here");
}

static const ht_jfunc functions[] = { { "range", g_range }, { "dict", g_dict }, { "namespace", g_namespace },
                                      { "cycler", g_cycler }, { "joiner", g_joiner }, { "raise_exception", g_raise },
                                      { "strftime_now", g_strftime }, { "lipsum", g_lipsum } };

const ht_jfunc *ht_jfind_func(const ht_jsym *name)
{
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        if (strlen(functions[i].name) == name->n && memcmp(functions[i].name, name->s, name->n) == 0)
            return &functions[i];
    return NULL;
}

/* ---- The whole ---- */

typedef struct render {
    const ht_jinja_input *in;
    char *out;
    size_t len;
} render;

static void set_default(ht_jj *j, ht_jdict *d, const char *name, ht_jv v)
{
    if (!ht_jget(j, d, ht_jtext(name)))
        ht_jset(j, d, ht_jtext(name), v);
}

static ht_jv messages(ht_jj *j, const ht_jinja_input *in)
{
    ht_jv l = ht_jnew_list(j, in->n_messages, JK_LIST);
    for (size_t i = 0; i < in->n_messages; i++) {
        ht_jv m = ht_jnew_dict(j, JK_DICT);
        ht_jset(j, m.dict, HT_JLIT("role"), ht_jtext(in->roles[i]));
        ht_jset(j, m.dict, HT_JLIT("content"), ht_jtext(in->contents[i]));
        ht_jappend(j, l.list, m);
    }
    return l;
}

static void body(ht_jj *j, void *user)
{
    render *r = user;
    const ht_jinja_input *in = r->in;
    ht_jbuf out = { 0 };
    size_t at = 0;
    ht_jv context = ht_jnew_dict(j, JK_DICT);
    if (in->json) {
        ht_jv v = ht_jjson_parse(j, in->json, in->n_json, &at, true);
        if (v.kind == JK_DICT)
            context = v;
        else if (v.kind == JK_LIST)
            ht_jset(j, context.dict, HT_JLIT("messages"), v);
        else
            ht_jfail(j, HT_EFORMAT, "a conversation is a JSON array of messages, or an object with the member \"messages\"");
    }
    if (in->roles)
        set_default(j, context.dict, "messages", messages(j, in));
    if (in->tools) {
        at = 0;
        set_default(j, context.dict, "tools", ht_jjson_parse(j, in->tools, strlen(in->tools), &at, true));
    }
    if (in->generation)
        set_default(j, context.dict, "add_generation_prompt", ht_jbool(true));
    for (size_t i = 0; i < in->n_vars; i++)
        if (in->vars[i].text)
            set_default(j, context.dict, in->vars[i].name, ht_jtext(in->vars[i].text));
    j->context = context.dict;
    ht_jlex(j, in->text, in->n_text);
    ht_jnodes tree = ht_jparse(j);
    j->out_buf = &out;
    ht_jexec(j, &tree);
    r->out = malloc(out.n + 1);
    if (!r->out)
        ht_jfail(j, HT_ENOMEM, "a prompt of %zu bytes", out.n);
    if (out.n)
        memcpy(r->out, out.s, out.n);
    r->out[out.n] = 0;
    r->len = out.n;
}

ht_status ht_jinja_render(const ht_jinja_input *in, const ht_jinja_limits *limits, char **out, size_t *len, ht_error *err)
{
    render r = { .in = in };
    size_t n_input = in->n_text + in->n_json + (in->tools ? strlen(in->tools) : 0);
    for (size_t i = 0; in->roles && i < in->n_messages; i++)
        n_input += strlen(in->contents[i]);
    ht_status st = ht_jinja_run(body, &r, limits, n_input, err);
    if (st != HT_OK)
        return st;
    *out = r.out;
    *len = r.len;
    return HT_OK;
}
