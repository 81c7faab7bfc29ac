/* SPDX-License-Identifier: MIT
 * Numbers read and written as Python does, whatever the locale; see jinja_impl.h.
 *
 * The C library reads and writes the decimal point of the process's locale, which a library cannot change. So a text is read
 * as an integer with an exponent, which has no point, and what was written has its point replaced. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/jinja_impl.h"

/* ---- Reading ---- */

double ht_jdecimal(const char *digits, size_t n, long exponent)
{
    /* 800 digits decide every double; further ones count as one that is not zero. */
    char text[840];
    while (n && *digits == '0') {
        digits++;
        n--;
    }
    if (!n)
        return 0;
    size_t kept = n < 800 ? n : 800;
    memcpy(text, digits, kept);
    exponent += (long)(n - kept);
    if (kept < n) {
        text[kept - 1] = text[kept - 1] == '0' ? '1' : text[kept - 1];
    }
    exponent = exponent > 100000 ? 100000 : exponent < -100000 ? -100000 : exponent;
    snprintf(text + kept, sizeof text - kept, "e%ld", exponent);
    return strtod(text, NULL);
}

bool ht_jas_double(ht_jv v, double *f)
{
    switch (v.kind) {
    case JK_BOOL: *f = v.b; return true;
    case JK_INT: *f = (double)v.i; return true;
    case JK_FLOAT: *f = v.f; return true;
    case JK_BIG:
        *f = ht_jdecimal(v.s + (v.s[0] == '-'), v.n - (v.s[0] == '-'), 0);
        *f = v.s[0] == '-' ? -*f : *f;
        return true;
    default: return false;
    }
}

bool ht_jas_int(ht_jv v, int64_t *i)
{
    if (v.kind == JK_BOOL)
        *i = v.b;
    else if (v.kind == JK_INT)
        *i = v.i;
    else
        return false;
    return true;
}

int64_t ht_jneed_int(ht_jj *j, ht_jv v, const char *what)
{
    int64_t i = 0;
    if (v.kind == JK_UNDEF)
        ht_jfail_undefined(j, v);
    if (!ht_jas_int(v, &i))
        ht_jfail_here(j, HT_EINVAL, "%s has to be an integer, not %s", what, ht_jtype_name(v));
    return i;
}

/* Digits with single underscores between them, from *at on, to out. */
static bool take_digits(ht_jv s, size_t *at, char *out, size_t *n)
{
    size_t from = *at;
    while (*at < s.n) {
        char c = s.s[*at];
        if (c >= '0' && c <= '9')
            out[(*n)++] = c;
        else if (!(c == '_' && *at > from && s.s[*at - 1] != '_' && *at + 1 < s.n && s.s[*at + 1] >= '0' && s.s[*at + 1] <= '9'))
            break;
        ++*at;
    }
    return *at > from;
}

static bool word(ht_jv s, size_t at, const char *w)
{
    size_t n = strlen(w);
    if (s.n - at != n)
        return false;
    for (size_t i = 0; i < n; i++)
        if ((s.s[at + i] | 32) != w[i])
            return false;
    return true;
}

bool ht_jparse_float(ht_jv s, double *out)
{
    s = ht_ju_strip(s, NULL, true, true);
    size_t at = 0, n = 0;
    bool minus = false;
    long exponent = 0;
    if (!s.n || s.n > 4000)
        return false;
    if (s.s[0] == '-' || s.s[0] == '+')
        minus = s.s[at++] == '-';
    if (word(s, at, "inf") || word(s, at, "infinity") || word(s, at, "nan")) {
        *out = (s.s[at] | 32) == 'n' ? (double)NAN : minus ? -(double)INFINITY : (double)INFINITY;
        return true;
    }
    char digits[4001];
    bool some = take_digits(s, &at, digits, &n);
    if (at < s.n && s.s[at] == '.') {
        at++;
        size_t before = n;
        some |= take_digits(s, &at, digits, &n);
        exponent = -(long)(n - before);
    }
    if (!some)
        return false;
    if (at < s.n && (s.s[at] | 32) == 'e') {
        at++;
        bool down = at < s.n && s.s[at] == '-';
        at += at < s.n && (s.s[at] == '-' || s.s[at] == '+');
        char e[4001];
        size_t n_e = 0;
        long v = 0;
        if (!take_digits(s, &at, e, &n_e))
            return false;
        for (size_t i = 0; i < n_e && v < 1000000; i++)
            v = v * 10 + (e[i] - '0');
        exponent += down ? -v : v;
    }
    if (at != s.n)
        return false;
    double f = ht_jdecimal(digits, n, exponent);
    *out = minus ? -f : f;
    return true;
}

bool ht_jparse_int(ht_jj *j, ht_jv s, int base, ht_jv *out)
{
    s = ht_ju_strip(s, NULL, true, true);
    size_t at = 0;
    bool minus = false, big = false, some = false, bar = false;
    uint64_t v = 0;
    if (s.n && (s.s[0] == '-' || s.s[0] == '+'))
        minus = s.s[at++] == '-';
    if (at + 2 < s.n + 1 && at + 1 < s.n && s.s[at] == '0') {
        char c = (char)(s.s[at + 1] | 32);
        int other = c == 'x' ? 16 : c == 'o' ? 8 : c == 'b' ? 2 : 0;
        if (other && (base == other || base == 0)) {
            base = other;
            at += 2;
            at += at < s.n && s.s[at] == '_';
        }
    }
    bool zeros = base == 0 && at < s.n && s.s[at] == '0';
    base = base ? base : 10;
    size_t first = at;
    for (; at < s.n; at++) {
        char c = s.s[at];
        int d = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'z' ? (c | 32) - 'a' + 10 : 99;
        if (c == '_' && some && !bar) {
            bar = true;
            continue;
        }
        if (d >= base)
            return false;
        bar = false;
        some = true;
        big |= __builtin_mul_overflow(v, (uint64_t)base, &v) || __builtin_add_overflow(v, (uint64_t)d, &v);
    }
    if (!some || bar || (zeros && v))
        return false;
    big |= v > (uint64_t)INT64_MAX + minus;
    if (!big) {
        *out = ht_jint(minus ? (int64_t)(0 - v) : (int64_t)v);
        return true;
    }
    if (base != 10 || s.n - first > 4300)
        ht_jfail_here(j, HT_EUNSUPPORTED, "an integer of more than 64 bits");
    ht_jbuf b = { 0 };
    if (minus)
        ht_jputc(j, &b, '-');
    while (first < s.n && (s.s[first] == '0' || s.s[first] == '_'))
        first++;
    for (; first < s.n; first++)
        if (s.s[first] != '_')
            ht_jputc(j, &b, s.s[first]);
    *out = ht_jtaken(&b);
    out->kind = JK_BIG;
    return true;
}

/* ---- Writing ---- */

/* The digits of %.*e and its exponent, without sign and point; -> how many digits. */
static int scientific(double f, int precision, char *digits, int *exponent)
{
    char text[1200];
    int n = 0;
    snprintf(text, sizeof text, "%.*e", precision, fabs(f));
    const char *p = text;
    for (; *p && *p != 'e'; p++)
        if (*p >= '0' && *p <= '9')
            digits[n++] = *p;
    *exponent = *p ? atoi(p + 1) : 0;
    return n;
}

void ht_jput_float(ht_jj *j, ht_jbuf *b, double f)
{
    char digits[32] = "";
    int exponent = 0, n = 0;
    if (isnan(f) || isinf(f)) {
        ht_jputs(j, b, isnan(f) ? "nan" : f < 0 ? "-inf" : "inf");
        return;
    }
    if (signbit(f))
        ht_jputc(j, b, '-');
    f = fabs(f);
    /* The fewest digits that read back as the same number. 15 always survive, but for the smallest numbers. */
    for (int p = f < 1e-290 ? 0 : 14; p <= 16; p++) {
        n = scientific(f, p, digits, &exponent);
        if (ht_jdecimal(digits, (size_t)n, exponent - (n - 1)) == f)
            break;
    }
    while (n > 1 && digits[n - 1] == '0')
        n--;
    if (exponent < -4 || exponent >= 16) {
        ht_jputc(j, b, digits[0]);
        if (n > 1) {
            ht_jputc(j, b, '.');
            ht_jput(j, b, digits + 1, (size_t)n - 1);
        }
        ht_jprint(j, b, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
        return;
    }
    if (exponent < 0) {
        ht_jputs(j, b, "0.");
        for (int i = -1; i > exponent; i--)
            ht_jputc(j, b, '0');
        ht_jput(j, b, digits, (size_t)n);
        return;
    }
    for (int i = 0; i < n || i <= exponent; i++) {
        if (i == exponent + 1)
            ht_jputc(j, b, '.');
        ht_jputc(j, b, i < n ? digits[i] : '0');
    }
    if (n <= exponent + 1)
        ht_jputs(j, b, ".0");
}

void ht_jput_double(ht_jj *j, ht_jbuf *b, char how, int precision, bool alternate, double f)
{
    char fmt[] = { '%', '#', '.', '*', how, 0 }, text[1600];
    if (!alternate)
        memmove(fmt + 1, fmt + 2, sizeof fmt - 2);
    if (precision > 1000)
        ht_jfail_here(j, HT_EUNSUPPORTED, "a precision of more than 1000 digits");
    if (isnan(f) || isinf(f)) { /* without a sign for nan */
        const char *s = isnan(f) ? "nan" : f < 0 ? "-inf" : "inf";
        for (; *s; s++)
            ht_jputc(j, b, (char)(how >= 'A' && how <= 'Z' && *s >= 'a' ? *s - 32 : *s));
        return;
    }
    int n = snprintf(text, sizeof text, fmt, precision, f);
    for (int i = 0; i < n; i++) {
        char c = text[i];
        bool known = (c >= '0' && c <= '9') || c == '-' || c == '+' || c == 'e' || c == 'E';
        if (known)
            ht_jputc(j, b, c);
        else if (!i || (text[i - 1] >= '0' && text[i - 1] <= '9')) /* a locale's point may be of several bytes */
            ht_jputc(j, b, '.');
    }
}

double ht_jround(double f, int64_t digits)
{
    char text[1600], out[1600];
    size_t n = 0;
    if (!isfinite(f) || digits > 323)
        return f;
    if (digits < -308)
        return f * 0;
    if (digits < 0) { /* to tens, hundreds: halves to even */
        double unit = ht_jdecimal("1", 1, (long)-digits), r = nearbyint(f / unit) * unit;
        return isfinite(r) ? r : f;
    }
    snprintf(text, sizeof text, "%.*f", (int)digits, fabs(f));
    for (const char *p = text; *p; p++)
        if (*p >= '0' && *p <= '9')
            out[n++] = *p;
    double r = ht_jdecimal(out, n, -(long)digits);
    return signbit(f) ? -r : r;
}
