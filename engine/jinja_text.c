/* SPDX-License-Identifier: MIT
 * Characters as Python's str sees them; see jinja_impl.h. Case and categories come from utf8proc, the rows of more than one
 * character from jinja_case.inc. */
#include <utf8proc.h>

#include "engine/jinja_impl.h"

size_t ht_ju_next(const char *s, size_t n, uint32_t *c)
{
    const uint8_t *p = (const uint8_t *)s;
    static const uint32_t least[5] = { 0, 0, 0x80, 0x800, 0x10000 };
    if (p[0] < 0x80) {
        *c = p[0];
        return 1;
    }
    size_t k = p[0] >= 0xF0 && p[0] < 0xF8 ? 4 : p[0] >= 0xE0 ? 3 : p[0] >= 0xC0 ? 2 : 0;
    *c = 0x110000;
    if (!k || k > n || p[0] >= 0xF8)
        return 1;
    uint32_t v = p[0] & (0x7Fu >> k);
    for (size_t i = 1; i < k; i++) {
        if ((p[i] & 0xC0) != 0x80)
            return 1;
        v = v << 6 | (p[i] & 63);
    }
    if (v < least[k] || v >= 0x110000 || (v >= 0xD800 && v < 0xE000))
        return 1;
    *c = v;
    return k;
}

size_t ht_ju_count(const char *s, size_t n)
{
    size_t k = 0;
    uint32_t c;
    for (size_t i = 0; i < n; k++)
        i += ht_ju_next(s + i, n - i, &c);
    return k;
}

size_t ht_ju_offset(const char *s, size_t n, size_t chars)
{
    size_t i = 0;
    uint32_t c;
    while (chars-- && i < n)
        i += ht_ju_next(s + i, n - i, &c);
    return i;
}

static int category(uint32_t c)
{
    return c < 0x110000 ? (int)utf8proc_category((utf8proc_int32_t)c) : UTF8PROC_CATEGORY_CN;
}

bool ht_ju_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool ht_ju_alpha(uint32_t c)
{
    if (c < 128)
        return (c | 32) >= 'a' && (c | 32) <= 'z';
    int k = category(c);
    return k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO;
}

bool ht_ju_digit(uint32_t c)
{
    if (c < 128)
        return c >= '0' && c <= '9';
    int k = category(c);
    return k == UTF8PROC_CATEGORY_ND || c == 0xB2 || c == 0xB3 || c == 0xB9;
}

bool ht_ju_alnum(uint32_t c)
{
    if (c < 128)
        return ht_ju_alpha(c) || ht_ju_digit(c);
    int k = category(c);
    return ht_ju_alpha(c) || k == UTF8PROC_CATEGORY_ND || k == UTF8PROC_CATEGORY_NL || k == UTF8PROC_CATEGORY_NO;
}

bool ht_ju_shown(uint32_t c)
{
    if (c < 128)
        return c >= 32 && c < 127;
    int k = category(c);
    return !(k == UTF8PROC_CATEGORY_CC || k == UTF8PROC_CATEGORY_CF || k == UTF8PROC_CATEGORY_CS ||
             k == UTF8PROC_CATEGORY_CO || k == UTF8PROC_CATEGORY_CN || k == UTF8PROC_CATEGORY_ZL ||
             k == UTF8PROC_CATEGORY_ZP || k == UTF8PROC_CATEGORY_ZS);
}

bool ht_ju_is_upper(uint32_t c) { return c < 128 ? c >= 'A' && c <= 'Z' : category(c) == UTF8PROC_CATEGORY_LU; }

bool ht_ju_is_lower(uint32_t c)
{
    return c < 128 ? c >= 'a' && c <= 'z' : category(c) == UTF8PROC_CATEGORY_LL || c == 0xAA || c == 0xBA;
}

bool ht_ju_is_title(uint32_t c) { return c >= 128 && category(c) == UTF8PROC_CATEGORY_LT; }

bool ht_ju_cased(uint32_t c) { return ht_ju_is_upper(c) || ht_ju_is_lower(c) || ht_ju_is_title(c); }

typedef struct wide {
    uint32_t c, to[3];
} wide;

#define HT_UPPER(...) static const wide upper[] = { __VA_ARGS__ };
#define HT_TITLE(...) static const wide title[] = { __VA_ARGS__ };
#include "engine/jinja_case.inc"

static bool put_wide(ht_jj *j, ht_jbuf *b, uint32_t c, const wide *rows, size_t n)
{
    size_t low = 0;
    while (n) {
        size_t half = n / 2;
        if (rows[low + half].c < c) {
            low += half + 1;
            n -= half + 1;
        } else {
            n = half;
        }
    }
    if (rows[low].c != c)
        return false;
    for (int i = 0; i < 3 && rows[low].to[i]; i++)
        ht_jputu(j, b, rows[low].to[i]);
    return true;
}

void ht_ju_upper(ht_jj *j, ht_jbuf *b, uint32_t c)
{
    if (c < 128)
        ht_jputc(j, b, (char)(c >= 'a' && c <= 'z' ? c - 32 : c));
    else if (!put_wide(j, b, c, upper, sizeof upper / sizeof *upper - 1))
        ht_jputu(j, b, (uint32_t)utf8proc_toupper((utf8proc_int32_t)c));
}

void ht_ju_title(ht_jj *j, ht_jbuf *b, uint32_t c)
{
    if (c < 128)
        ht_jputc(j, b, (char)(c >= 'a' && c <= 'z' ? c - 32 : c));
    else if (!put_wide(j, b, c, title, sizeof title / sizeof *title - 1))
        ht_jputu(j, b, (uint32_t)utf8proc_totitle((utf8proc_int32_t)c));
}

/* Whether a capital sigma at `at` ends a word: a cased letter before it, none behind it, marks that case ignores left out. */
static bool final_sigma(ht_jv s, size_t at, size_t behind)
{
    uint32_t c;
    bool before = false;
    for (size_t i = 0; i < at;) {
        i += ht_ju_next(s.s + i, at - i, &c);
        int k = category(c);
        bool ignored = k == UTF8PROC_CATEGORY_MN || k == UTF8PROC_CATEGORY_ME || k == UTF8PROC_CATEGORY_CF ||
                       k == UTF8PROC_CATEGORY_LM || k == UTF8PROC_CATEGORY_SK || c == '\'' || c == '.' || c == ':' ||
                       c == 0xB7 || c == 0x2019;
        if (!ignored)
            before = ht_ju_cased(c);
    }
    for (size_t i = behind; before && i < s.n;) {
        i += ht_ju_next(s.s + i, s.n - i, &c);
        int k = category(c);
        bool ignored = k == UTF8PROC_CATEGORY_MN || k == UTF8PROC_CATEGORY_ME || k == UTF8PROC_CATEGORY_CF ||
                       k == UTF8PROC_CATEGORY_LM || k == UTF8PROC_CATEGORY_SK || c == '\'' || c == '.' || c == ':' ||
                       c == 0xB7 || c == 0x2019;
        if (!ignored)
            return !ht_ju_cased(c);
    }
    return before;
}

ht_jv ht_ju_lower(ht_jj *j, ht_jv s)
{
    ht_jbuf b = { 0 };
    uint32_t c;
    ht_jsteps(j, s.n / 8);
    for (size_t i = 0, k; i < s.n; i += k) {
        k = ht_ju_next(s.s + i, s.n - i, &c);
        if (c < 128) {
            ht_jputc(j, &b, (char)(c >= 'A' && c <= 'Z' ? c + 32 : c));
        } else if (c >= 0x110000) {
            ht_jput(j, &b, s.s + i, k);
        } else if (c == 0x130) {
            ht_jputs(j, &b, "i\xCC\x87");
        } else if (c == 0x3A3) {
            ht_jsteps(j, s.n / 4);
            ht_jputu(j, &b, final_sigma(s, i, i + k) ? 0x3C2 : 0x3C3);
        } else {
            ht_jputu(j, &b, (uint32_t)utf8proc_tolower((utf8proc_int32_t)c));
        }
    }
    return ht_jtaken(&b);
}

static bool stripped(const char *s, size_t k, uint32_t c, const ht_jv *chars)
{
    if (!chars)
        return ht_ju_space(c);
    uint32_t d;
    for (size_t i = 0, m; i < chars->n; i += m) {
        m = ht_ju_next(chars->s + i, chars->n - i, &d);
        if (m == k && memcmp(chars->s + i, s, k) == 0)
            return true;
    }
    return false;
}

ht_jv ht_ju_strip(ht_jv s, const ht_jv *chars, bool left, bool right)
{
    uint32_t c;
    while (left && s.n) {
        size_t k = ht_ju_next(s.s, s.n, &c);
        if (!stripped(s.s, k, c, chars))
            break;
        s.s += k;
        s.n -= k;
    }
    while (right && s.n) {
        /* The last character begins at most three bytes before the last one. */
        size_t at = s.n - 1;
        for (size_t back = 1; back < 4 && back < s.n && ((uint8_t)s.s[s.n - back] & 0xC0) == 0x80; back++) {
            if (ht_ju_next(s.s + s.n - back - 1, back + 1, &c) == back + 1) {
                at = s.n - back - 1;
                break;
            }
        }
        ht_ju_next(s.s + at, s.n - at, &c);
        if (!stripped(s.s + at, s.n - at, c, chars))
            break;
        s.n = at;
    }
    return s;
}

bool ht_ju_line(ht_jv s, size_t *at, bool keep, ht_jv *line)
{
    uint32_t c;
    if (*at >= s.n)
        return false;
    *line = s;
    line->s = s.s + *at;
    for (size_t i = *at, k; i < s.n; i += k) {
        k = ht_ju_next(s.s + i, s.n - i, &c);
        if ((c >= 10 && c <= 13) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029) {
            size_t end = i + k;
            if (c == '\r' && end < s.n && s.s[end] == '\n')
                end++;
            line->n = (keep ? end : i) - *at;
            *at = end;
            return true;
        }
    }
    line->n = s.n - *at;
    *at = s.n;
    return true;
}
