/* SPDX-License-Identifier: MIT
 * From the text of a template to tokens, as jinja2's lexer with trim_blocks and lstrip_blocks; see jinja_impl.h.
 *
 * White space around tags: `-` takes all of it on its side; `+` leaves it; else one newline behind a block or a comment goes, and
 * white space before one, where it begins its line. */
#include "engine/jinja_impl.h"

typedef struct lexer {
    ht_jj *j;
    const char *s;
    size_t n, at;
    uint32_t line;
    bool fresh; /* what came last ended with a newline */
} lexer;

static ht_jtoken *add(lexer *l, ht_jtok type)
{
    ht_jj *j = l->j;
    if (j->n_tokens == j->cap_tokens) {
        size_t cap = 2 * j->cap_tokens + 256;
        j->tokens = ht_jgrow(j, j->tokens, j->n_tokens * sizeof *j->tokens, cap * sizeof *j->tokens);
        j->cap_tokens = cap;
    }
    ht_jtoken *t = &j->tokens[j->n_tokens++];
    *t = (ht_jtoken){ .type = (uint8_t)type, .line = l->line };
    return t;
}

_Noreturn static void broken(lexer *l, const char *what)
{
    l->j->line = l->line;
    ht_jfail_here(l->j, HT_EFORMAT, "%s", what);
}

static void advance(lexer *l, size_t to)
{
    for (; l->at < to; l->at++)
        l->line += l->s[l->at] == '\n';
}

static size_t spaces(const lexer *l, size_t at)
{
    uint32_t c;
    while (at < l->n) {
        size_t k = ht_ju_next(l->s + at, l->n - at, &c);
        if (!ht_ju_space(c))
            break;
        at += k;
    }
    return at;
}

static bool starts(const lexer *l, size_t at, const char *text)
{
    size_t n = strlen(text);
    return l->n - at >= n && memcmp(l->s + at, text, n) == 0;
}

/* Text up to `to`, without what the tag there takes of it; sign is the tag's, strips: it is no variable. */
static void put_data(lexer *l, size_t to, char sign, bool strips)
{
    ht_jv text = ht_jstr(l->s + l->at, to - l->at);
    if (sign == '-') {
        text = ht_ju_strip(text, NULL, false, true);
    } else if (sign != '+' && strips) {
        size_t line = text.n;
        while (line && text.s[line - 1] != '\n')
            line--;
        if ((line || l->fresh) && spaces(l, l->at + line) >= to)
            text.n = line;
    }
    if (text.n)
        add(l, JT_DATA)->v = text;
    advance(l, to);
}

static char sign_at(const lexer *l, size_t at)
{
    return at < l->n && (l->s[at] == '-' || l->s[at] == '+') ? l->s[at] : 0;
}

/* The end of a block or comment, `mark` at `at`: where the text goes on, 0 where it is none. */
static size_t tag_end(const lexer *l, size_t at, const char *mark)
{
    char sign = sign_at(l, at);
    size_t m = at + (sign != 0);
    if (m > l->n || !starts(l, m, mark))
        return 0;
    m += 2;
    if (sign == '-')
        return spaces(l, m);
    if (!sign && m < l->n && l->s[m] == '\n')
        m++;
    return m;
}

static void ended(lexer *l, size_t to)
{
    l->fresh = to && l->s[to - 1] == '\n';
    advance(l, to);
}

static void comment(lexer *l)
{
    uint32_t line = l->line;
    for (size_t at = l->at; at + 2 <= l->n; at++) {
        if (l->s[at] != '#' && l->s[at] != '-' && l->s[at] != '+')
            continue;
        size_t end = tag_end(l, at, "#}");
        if (end) {
            ended(l, end);
            return;
        }
    }
    l->line = line;
    broken(l, "a comment has no end");
}

/* Behind "raw": the text as it is, up to endraw. */
static void raw(lexer *l)
{
    for (size_t at = l->at; at + 2 <= l->n; at++) {
        if (!starts(l, at, "{%"))
            continue;
        char sign = sign_at(l, at + 2);
        size_t m = spaces(l, at + 2 + (sign != 0));
        if (!starts(l, m, "endraw"))
            continue;
        size_t end = tag_end(l, spaces(l, m + 6), "%}");
        if (!end)
            continue;
        put_data(l, at, sign, true);
        ended(l, end);
        return;
    }
    broken(l, "raw has no endraw");
}

/* Where the text goes on if {% raw %} stands at `at`, else 0. */
static size_t raw_begin(const lexer *l, size_t at, char sign)
{
    size_t m = spaces(l, at + 2 + (sign != 0));
    if (!starts(l, m, "raw"))
        return 0;
    m = spaces(l, m + 3);
    if (starts(l, m, "-%}"))
        return spaces(l, m + 3);
    return starts(l, m, "%}") ? m + 2 : 0;
}

/* ---- Inside a tag ---- */

static void put_escape(lexer *l, ht_jbuf *b, size_t *at, size_t end, size_t digits)
{
    uint32_t c = 0;
    for (size_t i = 0; i < digits; i++) {
        char x = *at < end ? l->s[*at] : 0;
        uint32_t d = x >= '0' && x <= '9' ? (uint32_t)(x - '0') : (x | 32) >= 'a' && (x | 32) <= 'f' ? (uint32_t)(x | 32) - 'a' + 10 : 16;
        if (d > 15)
            broken(l, "a string has a broken escape");
        c = c << 4 | d;
        ++*at;
    }
    /* Two halves of a surrogate pair are one character; half a pair cannot be written. */
    if (c >= 0xD800 && c < 0xDC00 && *at + 6 <= end && l->s[*at] == '\\' && l->s[*at + 1] == 'u') {
        uint32_t low = 0;
        size_t k = *at + 2;
        for (int i = 0; i < 4; i++, k++) {
            char x = l->s[k];
            uint32_t d = x >= '0' && x <= '9' ? (uint32_t)(x - '0') : (x | 32) >= 'a' && (x | 32) <= 'f' ? (uint32_t)(x | 32) - 'a' + 10 : 0;
            low = low << 4 | d;
        }
        if (low >= 0xDC00 && low < 0xE000) {
            c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
            *at = k;
        }
    }
    if (c >= 0x110000)
        broken(l, "a string has an escape beyond Unicode");
    ht_jputu(l->j, b, c >= 0xD800 && c < 0xE000 ? 0xFFFD : c);
}

static void string(lexer *l)
{
    ht_jbuf b = { 0 };
    char quote = l->s[l->at];
    size_t at = l->at + 1, end = at;
    while (end < l->n && l->s[end] != quote)
        end += l->s[end] == '\\' ? 2 : 1;
    if (end >= l->n)
        broken(l, "a string has no end");
    static const char plain[] = "\\'\"abfnrtv", made[] = "\\'\"\a\b\f\n\r\t\v";
    while (at < end) {
        if (l->s[at] != '\\') {
            size_t from = at;
            while (at < end && l->s[at] != '\\')
                at++;
            ht_jput(l->j, &b, l->s + from, at - from);
            continue;
        }
        char c = l->s[++at];
        const char *known = c ? strchr(plain, c) : NULL;
        at++;
        if (known) {
            ht_jputc(l->j, &b, made[known - plain]);
        } else if (c == 'x' || c == 'u' || c == 'U') {
            put_escape(l, &b, &at, end, c == 'x' ? 2 : c == 'u' ? 4 : 8);
        } else if (c >= '0' && c <= '7') {
            uint32_t v = (uint32_t)(c - '0');
            for (int i = 0; i < 2 && at < end && l->s[at] >= '0' && l->s[at] <= '7'; i++)
                v = v << 3 | (uint32_t)(l->s[at++] - '0');
            ht_jputu(l->j, &b, v);
        } else if (c == 'N') {
            broken(l, "names of characters (\\N) are not known here");
        } else if (c != '\n') { /* an escape that is none stays as it is */
            ht_jputc(l->j, &b, '\\');
            ht_jputc(l->j, &b, c);
        }
    }
    add(l, JT_STR)->v = ht_jtaken(&b);
    advance(l, end + 1);
}

static bool digit_of(char c, int base)
{
    if (base == 16)
        return (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'f');
    return c >= '0' && c < '0' + base;
}

/* Digits with single underscores between them: their end, or `at`. */
static size_t digits(const lexer *l, size_t at, int base, bool leading_bar)
{
    size_t end = at;
    if (leading_bar && at + 1 < l->n && l->s[at] == '_' && digit_of(l->s[at + 1], base))
        at++;
    while (at < l->n && digit_of(l->s[at], base)) {
        end = ++at;
        if (at + 1 < l->n && l->s[at] == '_' && digit_of(l->s[at + 1], base))
            at++;
    }
    return end;
}

static ht_jv without_bars(lexer *l, size_t from, size_t to)
{
    ht_jbuf b = { 0 };
    for (size_t i = from; i < to; i++)
        if (l->s[i] != '_')
            ht_jputc(l->j, &b, l->s[i]);
    return ht_jtaken(&b);
}

static void number(lexer *l)
{
    size_t at = l->at, end = digits(l, at, 10, false);
    bool is_float = false;
    if (!(at && l->s[at - 1] == '.')) {
        size_t m = end;
        if (m + 1 < l->n && l->s[m] == '.' && digit_of(l->s[m + 1], 10)) {
            m = digits(l, m + 1, 10, false);
            is_float = true;
            end = m;
        }
        if (m < l->n && (l->s[m] | 32) == 'e') {
            size_t e = m + 1 + (m + 1 < l->n && (l->s[m + 1] == '+' || l->s[m + 1] == '-'));
            size_t after = digits(l, e, 10, false);
            if (after > e) {
                is_float = true;
                end = after;
            }
        }
    }
    ht_jv v = { .kind = JK_FLOAT };
    if (is_float) {
        double f = 0;
        ht_jparse_float(without_bars(l, at, end), &f);
        v.f = f;
    } else {
        int base = 10;
        char c = l->s[at] == '0' && at + 1 < l->n ? (char)(l->s[at + 1] | 32) : 0;
        int other = c == 'b' ? 2 : c == 'o' ? 8 : c == 'x' ? 16 : 0;
        if (other && digits(l, at + 2, other, true) > at + 2) {
            base = other;
            end = digits(l, at + 2, other, true);
        } else if (l->s[at] == '0') { /* zeros only */
            for (end = at + 1; end < l->n && (l->s[end] == '0' || (l->s[end] == '_' && end + 1 < l->n && l->s[end + 1] == '0')); end++)
                ;
        }
        ht_jparse_int(l->j, without_bars(l, at, end), base, &v);
    }
    add(l, JT_NUMBER)->v = v;
    advance(l, end);
}

static bool name(lexer *l)
{
    size_t at = l->at;
    uint32_t c;
    while (at < l->n) {
        size_t k = ht_ju_next(l->s + at, l->n - at, &c);
        if (c != '_' && !ht_ju_alnum(c))
            break;
        at += k;
    }
    if (at == l->at)
        return false;
    ht_jtoken *t = add(l, JT_NAME);
    t->sym = ht_jintern(l->j, l->s + l->at, at - l->at);
    advance(l, at);
    return true;
}

static void operator(lexer *l, char *stack, size_t *depth)
{
    static const char twos[] = "//**==!=>=<=", ones[] = "+-/*%~[](){}><=.:|,;";
    char c = l->s[l->at];
    char text[100];
    for (size_t i = 0; i + 1 < sizeof twos; i += 2)
        if (starts(l, l->at, (char[]){ twos[i], twos[i + 1], 0 })) {
            add(l, JT_OP)->op = (uint8_t)(c + HT_JTWO);
            advance(l, l->at + 2);
            return;
        }
    if (!c || !strchr(ones, c)) {
        ht_jv one = ht_jstr(l->s + l->at, 1);
        uint32_t u;
        one.n = ht_ju_next(l->s + l->at, l->n - l->at, &u);
        ht_fail(&l->j->error, HT_EFORMAT, "the character '%.*s' means nothing there", (int)one.n, one.s);
        strcpy(text, l->j->error.text);
        broken(l, text);
    }
    if (c == '(' || c == '[' || c == '{') {
        if (*depth == HT_JNEST)
            broken(l, "brackets nest too deep");
        stack[(*depth)++] = c == '(' ? ')' : c == '[' ? ']' : '}';
    } else if (c == ')' || c == ']' || c == '}') {
        if (!*depth || stack[*depth - 1] != c) {
            ht_fail(&l->j->error, HT_EFORMAT, "a '%c' closes nothing", c);
            strcpy(text, l->j->error.text);
            broken(l, text);
        }
        --*depth;
    }
    add(l, JT_OP)->op = (uint8_t)c;
    advance(l, l->at + 1);
}

static void tag(lexer *l, bool block)
{
    char stack[HT_JNEST];
    size_t depth = 0;
    for (;;) {
        advance(l, spaces(l, l->at));
        if (l->at >= l->n) {
            add(l, JT_EOF); /* the parser says what is missing */
            return;
        }
        if (!depth) {
            size_t end = 0;
            if (block)
                end = tag_end(l, l->at, "%}");
            else if (starts(l, l->at, "-}}"))
                end = spaces(l, l->at + 3);
            else if (starts(l, l->at, "}}"))
                end = l->at + 2;
            if (end) {
                add(l, block ? JT_BLOCK_END : JT_VAR_END);
                ended(l, end);
                return;
            }
        }
        char c = l->s[l->at];
        if (c >= '0' && c <= '9')
            number(l);
        else if (c == '"' || c == '\'')
            string(l);
        else if (!name(l))
            operator(l, stack, &depth);
    }
}

void ht_jlex(ht_jj *j, const char *text, size_t n)
{
    ht_jbuf b = { 0 };
    lexer l = { .j = j, .line = 1, .fresh = true };
    for (size_t i = 0; i < n;) { /* one kind of newline */
        const char *end = memchr(text + i, '\r', n - i);
        const size_t to = end ? (size_t)(end - text) : n;
        ht_jput(j, &b, text + i, to - i);
        i = to;
        if (end) {
            ht_jputc(j, &b, '\n');
            i += i + 1 < n && text[i + 1] == '\n' ? 2 : 1;
        }
    }
    l.s = b.n ? b.s : "";
    l.n = b.n;
    if (l.n && l.s[l.n - 1] == '\n')
        l.n--;
    while (l.at < l.n) {
        size_t at = l.at;
        while (at + 1 < l.n && !(l.s[at] == '{' && (l.s[at + 1] == '{' || l.s[at + 1] == '%' || l.s[at + 1] == '#')))
            at++;
        if (at + 1 >= l.n) {
            put_data(&l, l.n, '+', false);
            break;
        }
        char kind = l.s[at + 1], sign = sign_at(&l, at + 2);
        size_t verbatim = kind == '%' ? raw_begin(&l, at, sign) : 0;
        put_data(&l, at, sign, kind != '{');
        l.fresh = false;
        if (verbatim) {
            ended(&l, verbatim);
            raw(&l);
        } else if (kind == '#') {
            advance(&l, at + 2 + (sign != 0));
            comment(&l);
        } else {
            add(&l, kind == '{' ? JT_VAR : JT_BLOCK);
            advance(&l, at + 2 + (sign != 0));
            tag(&l, kind == '%');
        }
    }
    add(&l, JT_EOF);
    add(&l, JT_EOF);
}
