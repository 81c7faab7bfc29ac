/* SPDX-License-Identifier: MIT
 * A page in memory: text, numbers, and how it becomes a file; see page.h. */
#include "offline_profiler/page.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/os.h"

static void put(ht_page *p, const char *s, size_t n)
{
    if (p->failed)
        return;
    if (n > p->room - p->n) {
        size_t room = 2 * p->room + n + 4096;
        char *more = realloc(p->s, room);
        if (!more) {
            p->failed = true;
            return;
        }
        p->s = more;
        p->room = room;
    }
    memcpy(p->s + p->n, s, n);
    p->n += n;
}

void ht_page_raw(ht_page *p, const char *markup)
{
    put(p, markup, strlen(markup));
}

/* Names come from model files: markup is text here, and control characters are nothing. */
static void put_escaped(ht_page *p, const char *s)
{
    for (; *s; s++) {
        switch (*s) {
        case '&': ht_page_raw(p, "&amp;"); break;
        case '<': ht_page_raw(p, "&lt;"); break;
        case '>': ht_page_raw(p, "&gt;"); break;
        case '"': ht_page_raw(p, "&quot;"); break;
        case '\'': ht_page_raw(p, "&#39;"); break;
        default:
            if ((unsigned char)*s >= 0x20 && *s != 0x7f)
                put(p, s, 1);
        }
    }
}

static void put_integer(ht_page *p, unsigned long long v)
{
    char digits[24];
    size_t n = sizeof digits;
    do
        digits[--n] = (char)('0' + v % 10);
    while (v /= 10);
    put(p, digits + n, sizeof digits - n);
}

/* printf would write the locale's decimal point. */
static void put_number(ht_page *p, double v, int decimals)
{
    unsigned long long scale = 1;
    if (!isfinite(v) || fabs(v) > 1e15) {
        ht_page_raw(p, "-");
        return;
    }
    for (int i = 0; i < decimals; i++)
        scale *= 10;
    unsigned long long whole = (unsigned long long)floor(fabs(v) * (double)scale + 0.5);
    if (v < 0 && whole)
        put(p, "-", 1);
    put_integer(p, whole / scale);
    if (!decimals)
        return;
    put(p, ".", 1);
    for (scale /= 10; scale; scale /= 10) {
        char digit = (char)('0' + whole / scale % 10);
        put(p, &digit, 1);
    }
}

void ht_page_add(ht_page *p, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    while (*fmt) {
        size_t n = strcspn(fmt, "%");
        put(p, fmt, n);
        fmt += n;
        if (!*fmt)
            break;
        fmt++;
        if (*fmt == 's') {
            put_escaped(p, va_arg(ap, const char *));
        } else if (*fmt == 'd') {
            int v = va_arg(ap, int);
            if (v < 0)
                put(p, "-", 1);
            put_integer(p, v < 0 ? 0ull - (unsigned long long)v : (unsigned long long)v);
        } else if (*fmt == 'u') {
            put_integer(p, va_arg(ap, unsigned));
        } else if (*fmt == '.') {
            put_number(p, va_arg(ap, double), fmt[1] - '0');
            fmt += 2;
        } else {
            put(p, "%", 1);
        }
        fmt++;
    }
    va_end(ap);
}

static bool write_whole(const ht_page *p, const char *path)
{
    FILE *f = fopen(path, "wbe");
    bool good = f && fwrite(p->s, 1, p->n, f) == p->n;
    int why = errno;
    if (f && fclose(f) != 0 && good)
        return false;
    if (!good)
        errno = why;
    return good;
}

ht_status ht_page_close(ht_page *p, const char *path, ht_error *err)
{
    size_t n = strlen(path) + 5;
    char *fresh = malloc(n);
    ht_status st = HT_OK;

    if (p->failed || !fresh) {
        st = ht_fail(err, HT_ENOMEM, "%s: out of memory for the page", path);
    } else {
        snprintf(fresh, n, "%s.new", path);
        bool direct = ht_os_is_special(path);
        errno = 0;
        if (!write_whole(p, direct ? path : fresh) || (!direct && rename(fresh, path) != 0)) {
            st = ht_fail(err, HT_EIO, "%s: cannot write: %s", path, strerror(errno));
            if (!direct)
                remove(fresh);
        }
    }
    free(fresh);
    free(p->s);
    *p = (ht_page){ 0 };
    return st;
}
