/* SPDX-License-Identifier: MIT
 * A run of the interpreter: its arena, its bounds, how it ends, texts that grow, and symbols; see jinja_impl.h. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/jinja_impl.h"

enum { BLOCK = 64 << 10 };

static void leave(ht_jj *j, ht_status st)
{
    j->status = st;
    longjmp(j->out, 1);
}

void ht_jfail(ht_jj *j, ht_status st, const char *fmt, ...)
{
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    ht_fail(&j->error, st, "%s", text);
    leave(j, st);
    __builtin_unreachable();
}

void ht_jfail_here(ht_jj *j, ht_status st, const char *fmt, ...)
{
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    ht_fail(&j->error, st, "chat template, line %u: %s", j->line, text);
    leave(j, st);
    __builtin_unreachable();
}

void ht_jsteps(ht_jj *j, uint64_t n)
{
    j->steps += n;
    if (j->steps > j->max_steps)
        ht_jfail_here(j, HT_EUNSUPPORTED, "the template takes more than %llu steps", (unsigned long long)j->max_steps);
}

static void *take(ht_jj *j, size_t n)
{
    n = (n + 15) & ~(size_t)15;
    if ((size_t)(j->end - j->at) < n) {
        const size_t room = n > BLOCK / 4 ? n : BLOCK;
        if (room > j->max_bytes - j->bytes)
            ht_jfail_here(j, HT_ENOMEM, "the template takes more than %llu MiB of memory",
                          (unsigned long long)(j->max_bytes >> 20));
        ht_jblock *b = malloc(sizeof *b + room);
        if (!b)
            ht_jfail(j, HT_ENOMEM, "chat template: %zu bytes", room);
        b->next = j->blocks;
        b->n = room;
        j->blocks = b;
        j->bytes += room;
        if (room > BLOCK / 4 && room != BLOCK && (size_t)(j->end - j->at) > 1024)
            return b->bytes; /* a block of its own; what is left of the last one goes on */
        j->at = b->bytes;
        j->end = b->bytes + room;
    }
    void *p = j->at;
    j->at += n;
    return p;
}

void *ht_jalloc(ht_jj *j, size_t n)
{
    if (n > SIZE_MAX / 2)
        ht_jfail_here(j, HT_ENOMEM, "the template takes too much memory");
    void *p = take(j, n);
    ht_jsteps(j, 1 + n / 256);
    return memset(p, 0, n);
}

void *ht_jgrow(ht_jj *j, void *p, size_t old, size_t n)
{
    if (n > SIZE_MAX / 2)
        ht_jfail_here(j, HT_ENOMEM, "the template takes too much memory");
    const size_t held = (old + 15) & ~(size_t)15;
    /* What was taken last grows in place. */
    if (p && (char *)p + held == j->at && n > held && (size_t)(j->end - (char *)p) >= n + 15) {
        j->at = (char *)p + ((n + 15) & ~(size_t)15);
        return p;
    }
    ht_jsteps(j, 1 + old / 256);
    void *q = take(j, n);
    if (p)
        memcpy(q, p, old);
    return q;
}

void ht_jput(ht_jj *j, ht_jbuf *b, const char *s, size_t n)
{
    if (!n)
        return;
    ht_jsteps(j, n / 64);
    if (n > b->cap - b->n) {
        const size_t cap = b->n + n < 128 ? 128 : (b->n + n) / 2 * 3;
        b->s = ht_jgrow(j, b->s, b->cap, cap);
        b->cap = cap;
    }
    memcpy(b->s + b->n, s, n);
    b->n += n;
}

void ht_jputs(ht_jj *j, ht_jbuf *b, const char *s) { ht_jput(j, b, s, strlen(s)); }

void ht_jputc(ht_jj *j, ht_jbuf *b, char c) { ht_jput(j, b, &c, 1); }

void ht_jputu(ht_jj *j, ht_jbuf *b, uint32_t c)
{
    char s[4];
    if (c < 0x80) {
        ht_jputc(j, b, (char)c);
    } else if (c < 0x800) {
        s[0] = (char)(0xC0 | c >> 6);
        s[1] = (char)(0x80 | (c & 63));
        ht_jput(j, b, s, 2);
    } else if (c < 0x10000) {
        s[0] = (char)(0xE0 | c >> 12);
        s[1] = (char)(0x80 | (c >> 6 & 63));
        s[2] = (char)(0x80 | (c & 63));
        ht_jput(j, b, s, 3);
    } else {
        s[0] = (char)(0xF0 | c >> 18);
        s[1] = (char)(0x80 | (c >> 12 & 63));
        s[2] = (char)(0x80 | (c >> 6 & 63));
        s[3] = (char)(0x80 | (c & 63));
        ht_jput(j, b, s, 4);
    }
}

void ht_jprint(ht_jj *j, ht_jbuf *b, const char *fmt, ...)
{
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (n > 0)
        ht_jput(j, b, text, (size_t)n < sizeof text ? (size_t)n : sizeof text - 1);
}

ht_jv ht_jtaken(const ht_jbuf *b) { return ht_jstr(b->n ? b->s : "", b->n); }

char *ht_jcstr(ht_jj *j, ht_jv v)
{
    char *s = ht_jalloc(j, v.n + 1);
    if (v.n)
        memcpy(s, v.s, v.n);
    return s;
}

const ht_jsym *ht_jintern(ht_jj *j, const char *s, size_t n)
{
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < n; i++)
        h = (h ^ (uint8_t)s[i]) * 16777619u;
    ht_jsym **at = &j->syms[h % HT_JSYMS];
    for (ht_jsym *y = *at; y; y = y->next)
        if (y->n == n && memcmp(y->s, s, n) == 0)
            return y;
    ht_jsym *y = ht_jalloc(j, sizeof *y);
    y->s = s;
    y->n = n;
    y->next = *at;
    return *at = y;
}

ht_status ht_jinja_run(void (*body)(ht_jj *j, void *user), void *user, const ht_jinja_limits *limits, size_t n_input,
                       ht_error *err)
{
    /* What is changed after setjmp is read through the pointer only. */
    ht_jj *j = calloc(1, sizeof *j);
    if (!j)
        return ht_fail(err, HT_ENOMEM, "chat template: %zu bytes", sizeof *j);
    j->max_steps = limits && limits->steps ? limits->steps : 30000000;
    j->max_bytes = limits && limits->bytes ? limits->bytes : (256ull << 20) + 64 * (uint64_t)n_input;
    j->now = limits ? limits->now : 0;
    j->line = 1;
    if (setjmp(j->out) == 0) /* NOLINT(cert-err52-cpp): the arena owns everything */
        body(j, user);
    const ht_status st = j->status;
    if (st != HT_OK && err)
        *err = j->error;
    for (ht_jblock *b = j->blocks, *next; b; b = next) {
        next = b->next;
        free(b);
    }
    free(j);
    return st;
}
