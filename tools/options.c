/* SPDX-License-Identifier: MIT
 * The parser behind options.h: finds a flag in a command's tables, checks its value, stores it by its offset. */
#include "tools/options.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool fail(char *why, size_t why_bytes, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

static bool fail(char *why, size_t why_bytes, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(why, why_bytes, fmt, ap);
    va_end(ap);
    return false;
}

/* ---- Nearest name ---- */

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Edits that turn a into b, a swap of two neighbours counted as one; names longer than the rows never come near
 * anything. */
static size_t edits(const char *a, const char *b)
{
    enum { MOST = 40 };
    size_t na = strlen(a), nb = strlen(b), row[3][MOST + 1];
    if (na > MOST || nb > MOST)
        return MOST;
    for (size_t j = 0; j <= nb; j++)
        row[0][j] = row[1][j] = j;
    for (size_t i = 1; i <= na; i++) {
        size_t *cur = row[i % 3], *up = row[(i + 2) % 3], *upper = row[(i + 1) % 3];
        cur[0] = i;
        for (size_t j = 1; j <= nb; j++) {
            cur[j] = smaller(smaller(up[j], cur[j - 1]) + 1, up[j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                cur[j] = smaller(cur[j], upper[j - 2] + 1);
        }
    }
    return row[na % 3][nb];
}

const char *ht_options_nearest(const char *typed, const char *const *names, size_t n)
{
    const char *best = NULL;
    size_t length = strlen(typed), best_edits = 2 + length / 4;
    for (size_t i = 0; i < n; i++) {
        size_t e = edits(typed, names[i]);
        /* "perp" means perplexity, however many letters are missing. */
        if (e > 1 && length >= 3 && !strncmp(names[i], typed, length))
            e = 1;
        if (e < best_edits && e < strlen(names[i])) {
            best = names[i];
            best_edits = e;
        }
    }
    return best;
}

/* ---- Values ---- */

bool ht_options_size(const char *text, uint64_t *bytes)
{
    char *end;
    /* strtod also knows signs, hexadecimal numbers, inf and nan. */
    if (!strchr("0123456789.", text[0]) || !text[0] || text[strspn(text, "0123456789")] == 'x')
        return false;
    double v = strtod(text, &end);
    int shift = 0;
    switch (*end) {
    case 'k':
    case 'K':
        shift = 10;
        end++;
        break;
    case 'm':
    case 'M':
        shift = 20;
        end++;
        break;
    case 'g':
    case 'G':
        shift = 30;
        end++;
        break;
    case 't':
    case 'T':
        shift = 40;
        end++;
        break;
    default: break;
    }
    if (shift && *end == 'i')
        end++;
    if (*end == 'b' || *end == 'B')
        end++;
    v = ldexp(v, shift);
    if (*end || !(v >= 0) || v >= 0x1p62)
        return false;
    *bytes = (uint64_t)v;
    return true;
}

/* Whether `one` (n bytes) stands in "a|b|c". */
static bool listed(const char *list, const char *one, size_t n)
{
    for (const char *p = list; p && *p;) {
        size_t len = strcspn(p, "|");
        if (len == n && !strncmp(p, one, n))
            return true;
        p += len + (p[len] == '|');
    }
    return false;
}

static bool store(const ht_flag *f, const char *shown, const char *value, ht_options *o, char *why, size_t why_bytes)
{
    void *at = (char *)o + f->offset;
    char *end;
    if (f->later && !strcmp(f->later, "*"))
        return fail(why, why_bytes, "%s is not in this version", shown);
    /* cuda:1 is refused by the name cuda. */
    if (f->later && value && listed(f->later, value, strcspn(value, ":")))
        return fail(why, why_bytes, "%s %s is not in this version (it takes %s)", shown, value, f->choices);
    if (f->kind == HT_FLAG_SWITCH) {
        *(bool *)at = true;
        return true;
    }
    if (!value)
        return fail(why, why_bytes, "%s needs a value: %s", shown, f->value);
    switch (f->kind) {
    case HT_FLAG_SWITCH: break;
    case HT_FLAG_TEXT: *(const char **)at = value; return true;
    case HT_FLAG_TEXTS: {
        ht_texts *t = at;
        if (t->n == HT_MAX_TEXTS)
            return fail(why, why_bytes, "%s may be given %d times at most", shown, HT_MAX_TEXTS);
        t->v[t->n++] = value;
        return true;
    }
    case HT_FLAG_INTEGER: {
        errno = 0;
        long long v = strtoll(value, &end, 10);
        if (end == value || *end || errno || (double)v < f->min || (double)v > f->max)
            return fail(why, why_bytes, "%s takes a whole number from %.0f to %.0f, not '%s'", shown, f->min, f->max,
                        value);
        *(ht_integer *)at = (ht_integer){ v, true };
        return true;
    }
    case HT_FLAG_NUMBER: {
        double v = strtod(value, &end);
        if (end == value || *end || !(v >= f->min && v <= f->max))
            return fail(why, why_bytes, "%s takes a number from %g to %g, not '%s'", shown, f->min, f->max, value);
        *(ht_number *)at = (ht_number){ v, true };
        return true;
    }
    case HT_FLAG_SIZE: {
        ht_size s = { 0, true };
        if (!ht_options_size(value, &s.bytes))
            return fail(why, why_bytes, "%s takes a size as 512M or 6G, not '%s'", shown, value);
        *(ht_size *)at = s;
        return true;
    }
    case HT_FLAG_CHOICE:
        if (!listed(f->choices, value, strlen(value)))
            return fail(why, why_bytes, "%s takes %s, not '%s'", shown, f->choices, value);
        *(const char **)at = value;
        return true;
    }
    return false;
}

/* ---- Finding flags ---- */

/* Table k of a command, the effective ones first; NULL after the last. */
static const ht_flag *table(const ht_command *c, size_t k)
{
    size_t n = 0;
    while (n < HT_MAX_TABLES && c->tables[n])
        n++;
    if (k < n)
        return c->tables[k];
    return k - n < HT_MAX_TABLES ? c->idle[k - n] : NULL;
}

static const ht_flag *find_name(const ht_command *c, const char *name, size_t n)
{
    const ht_flag *t;
    for (size_t k = 0; (t = table(c, k)); k++)
        for (; t->text; t++)
            if (t->name && strlen(t->name) == n && !strncmp(t->name, name, n))
                return t;
    return NULL;
}

static const ht_flag *find_letter(const ht_command *c, char letter)
{
    const ht_flag *t;
    for (size_t k = 0; (t = table(c, k)); k++)
        for (; t->text; t++)
            if (t->letter == letter)
                return t;
    return NULL;
}

static bool unknown(const ht_command *c, const char *typed, char *why, size_t why_bytes)
{
    enum { MOST = 100 };
    const char *names[MOST];
    size_t n = 0;
    const ht_flag *t;
    for (size_t k = 0; (t = table(c, k)); k++)
        for (; t->text; t++)
            if (t->name && n < MOST)
                names[n++] = t->name;
    char bare[64];
    snprintf(bare, sizeof bare, "%.*s", (int)strcspn(typed + strspn(typed, "-"), "="), typed + strspn(typed, "-"));
    const char *near = typed[1] == '-' || bare[1] ? ht_options_nearest(bare, names, n) : NULL;
    if (near)
        return fail(why, why_bytes, "%s has no flag %.80s; did you mean --%s?", c->name, typed, near);
    return fail(why, why_bytes, "%s has no flag %.80s; see: hearth help %s", c->name, typed, c->name);
}

bool ht_options_parse(const ht_command *c, int argc, char **argv, ht_options *o, char *why, size_t why_bytes)
{
    bool flags_end = false;
    memset(o, 0, sizeof *o);
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i], *value = NULL;
        const ht_flag *f;
        char shown[80];
        if (!flags_end && !strcmp(a, "--")) {
            flags_end = true;
            continue;
        }
        if (!flags_end && !strcmp(a, "-") && c->takes_stdin) {
            o->from_stdin = true;
            continue;
        }
        if (!flags_end && (!strcmp(a, "--help") || !strcmp(a, "-h"))) {
            o->help = true;
            return true;
        }
        if (flags_end || a[0] != '-' || !a[1]) {
            if (o->n_positional == c->max_positional)
                return fail(why, why_bytes, "%s takes %s%zu argument%s, and '%.80s' is one more", c->name,
                            c->max_positional ? "at most " : "", c->max_positional, c->max_positional == 1 ? "" : "s",
                            a);
            o->positional[o->n_positional++] = a;
            continue;
        }
        if (a[1] == '-') {
            size_t n = strcspn(a + 2, "=");
            f = find_name(c, a + 2, n);
            if (!f)
                return unknown(c, a, why, why_bytes);
            snprintf(shown, sizeof shown, "--%s", f->name);
            if (a[2 + n] == '=')
                value = a + 2 + n + 1;
        } else {
            f = find_letter(c, a[1]);
            if (!f)
                return unknown(c, a, why, why_bytes);
            snprintf(shown, sizeof shown, "-%c", f->letter);
            if (a[2])
                value = a + 2; /* -n128 */
        }
        if (f->kind == HT_FLAG_SWITCH && value)
            return fail(why, why_bytes, "%s takes no value", shown);
        if (f->kind != HT_FLAG_SWITCH && !value && i + 1 < argc)
            value = argv[++i];
        if (!store(f, shown, value, o, why, why_bytes))
            return false;
    }
    if (o->n_positional < c->min_positional)
        return fail(why, why_bytes, "usage: hearth %s %s", c->name, c->arguments);
    return true;
}

/* ---- Help ---- */

/* Prints text wrapped at 100 columns, every line but the first indented. */
static void wrapped(const char *text, int column, int indent)
{
    for (bool first = true; *text; first = false) {
        int n = (int)strcspn(text, " ");
        if (!first && column + 1 + n > 100) {
            printf("\n%*s", indent, "");
            column = indent;
        } else if (!first) {
            putchar(' ');
            column++;
        }
        printf("%.*s", n, text);
        column += n;
        text += n + (text[n] == ' ');
    }
    putchar('\n');
}

void ht_options_paragraph(const char *text)
{
    wrapped(text, 0, 0);
}

static void print_flag(const ht_flag *f)
{
    char left[80];
    char names[64];
    if (f->letter && f->name)
        snprintf(names, sizeof names, "-%c, --%s", f->letter, f->name);
    else if (f->letter)
        snprintf(names, sizeof names, "-%c", f->letter);
    else
        snprintf(names, sizeof names, "    --%s", f->name);
    snprintf(left, sizeof left, "  %s%s%s", names, f->value ? " " : "", f->value ? f->value : "");
    int n = printf("%-30s", left);
    if (n > 30)
        printf("\n%-30s", "");
    printf("  ");
    wrapped(f->text, 32, 32);
}

void ht_options_help(const ht_command *c)
{
    const ht_flag *t;
    size_t n_effective = 0;
    bool first = true, idle = false;
    while (n_effective < HT_MAX_TABLES && c->tables[n_effective])
        n_effective++;
    for (size_t k = 0; (t = table(c, k)); k++) {
        for (; t->text; t++) {
            /* Flags of a later version and flags hidden by an earlier table are not offered. */
            if ((t->later && !strcmp(t->later, "*")) ||
                (t->name ? find_name(c, t->name, strlen(t->name)) : find_letter(c, t->letter)) != t ||
                (t->letter && find_letter(c, t->letter) != t))
                continue;
            if (k >= n_effective) {
                idle = true;
                continue;
            }
            if (first)
                puts("\nFlags:");
            first = false;
            print_flag(t);
        }
    }
    if (!idle)
        return;
    char line[1000] = "Taken as by every command that runs a model, but without effect here:";
    size_t used = strlen(line);
    for (size_t k = n_effective; (t = table(c, k)); k++)
        for (; t->text; t++) {
            bool by_name = t->name && find_name(c, t->name, strlen(t->name)) == t;
            bool by_letter = !t->name && find_letter(c, t->letter) == t;
            if ((t->later && !strcmp(t->later, "*")) || (!by_name && !by_letter) || used > sizeof line - 60)
                continue;
            used += (size_t)(by_name ? snprintf(line + used, sizeof line - used, " --%s", t->name)
                                     : snprintf(line + used, sizeof line - used, " -%c", t->letter));
        }
    putchar('\n');
    wrapped(line, 0, 0);
}
