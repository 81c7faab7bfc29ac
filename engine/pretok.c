/* SPDX-License-Identifier: MIT
 *
 * Cutting text into words: runs the steps of a rule over it. Expressions run in PCRE2, compiled to machine code where
 * the system allows that; runs of digits that are cut from the right are cut by hand, because the expressions that say
 * so look ahead over the whole run at each of its groups.
 *
 * No match error loses text: where PCRE2 gives up, the rest of the piece is one word.
 *
 * Owner: see pretok.h. Threads: compiled expressions are shared, each split has its own match data. */
#define PCRE2_CODE_UNIT_WIDTH 8

#include <pcre2.h>
#include <stdlib.h>
#include <utf8proc.h>

#include "engine/pretok.h"

typedef struct step {
    ht_pre_how how;
    pcre2_code *code;
    bool jit;
} step;

struct ht_pretok {
    step steps[HT_PRE_MAX_STEPS];
    uint32_t n_steps;
    pcre2_match_context *limits;
};

ht_status ht_pretok_open(ht_pretok **out, const ht_pre_rule *rule, ht_error *err)
{
    ht_pretok *p = calloc(1, sizeof *p);

    *out = NULL;
    if (!p)
        return ht_fail(err, HT_ENOMEM, "pre-tokenizer: out of memory");
    p->limits = pcre2_match_context_create(NULL);
    if (!p->limits)
        goto no_memory;
    /* A run of ten million spaces is tried space by space: linear, but more steps than PCRE2 grants by itself. */
    pcre2_set_match_limit(p->limits, UINT32_MAX);
    pcre2_set_depth_limit(p->limits, UINT32_MAX);
    for (; p->n_steps < HT_PRE_MAX_STEPS; p->n_steps++) {
        const ht_pre_step *from = &rule->steps[p->n_steps];
        step *to = &p->steps[p->n_steps];
        int code = 0;
        PCRE2_SIZE at = 0;

        to->how = from->how;
        if (from->how != HT_PRE_REGEX)
            continue;
        if (!from->regex)
            break;
        to->code = pcre2_compile((PCRE2_SPTR)from->regex, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &code, &at,
                                 NULL);
        if (!to->code) {
            if (code == PCRE2_ERROR_NOMEMORY)
                goto no_memory;
            ht_fail(err, HT_EUNSUPPORTED, "pre-tokenizer%s: this libpcre2 refuses its expression (error %d at %zu)",
                    rule->names, code, (size_t)at);
            ht_pretok_close(&p);
            return HT_EUNSUPPORTED;
        }
        to->jit = pcre2_jit_compile(to->code, PCRE2_JIT_COMPLETE) == 0;
    }
    *out = p;
    return HT_OK;

no_memory:
    ht_pretok_close(&p);
    return ht_fail(err, HT_ENOMEM, "pre-tokenizer: out of memory");
}

void ht_pretok_close(ht_pretok **p)
{
    if (!p || !*p)
        return;
    for (uint32_t i = 0; i < HT_PRE_MAX_STEPS; i++)
        pcre2_code_free((*p)->steps[i].code);
    pcre2_match_context_free((*p)->limits);
    free(*p);
    *p = NULL;
}

/* ---- splitting --------------------------------------------------------------------------------------------------- */

typedef struct run {
    const ht_pretok *p;
    const char *text;
    pcre2_match_data *match;
    ht_pretok_word word;
    void *arg;
} run;

static bool split(const run *r, uint32_t i, size_t a, size_t b);

static int32_t char_at(const run *r, size_t at, size_t end, size_t *len)
{
    utf8proc_int32_t c = -1;
    utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)r->text + at, (utf8proc_ssize_t)(end - at), &c);

    *len = n > 0 ? (size_t)n : 1;
    return n > 0 ? c : -1;
}

static bool is_digit(int32_t c, bool any_number)
{
    if (c >= 0 && c < 128)
        return c >= '0' && c <= '9';
    utf8proc_category_t k = utf8proc_category(c);
    return k == UTF8PROC_CATEGORY_ND ||
           (any_number && (k == UTF8PROC_CATEGORY_NL || k == UTF8PROC_CATEGORY_NO));
}

/* A word character as Unicode's annex on regular expressions has it: alphabetic, mark, number, connector. */
static bool is_word(int32_t c)
{
    utf8proc_category_t k = utf8proc_category(c);
    if ((k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_NO) || k == UTF8PROC_CATEGORY_PC)
        return true;
    /* circled and squared letters: symbols that are alphabetic */
    return (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) || (c >= 0x1F150 && c <= 0x1F169) ||
           (c >= 0x1F170 && c <= 0x1F189);
}

/* Runs of digits, cut into threes from their right end. */
static bool split_threes(const run *r, uint32_t i, size_t a, size_t b)
{
    ht_pre_how how = r->p->steps[i].how;
    size_t from = a; /* first byte not yet given on */
    size_t len;

    for (size_t at = a; at < b;) {
        int32_t c = char_at(r, at, b, &len);
        if (!is_digit(c, how == HT_PRE_THREES_ANY)) {
            at += len;
            continue;
        }
        size_t start = at, digits = 0;
        while (at < b && is_digit(c = char_at(r, at, b, &len), how == HT_PRE_THREES_ANY)) {
            at += len;
            digits++;
        }
        if (how == HT_PRE_THREES_WORD && at < b && is_word(c))
            continue;
        if (how == HT_PRE_THREES_CUT && digits < 3)
            continue;
        if (how != HT_PRE_THREES_CUT && start > from) {
            if (!split(r, i + 1, from, start))
                return false;
            from = start;
        }
        for (size_t pos = start; pos < at; digits--) {
            if (digits % 3 == 0 && pos > from) {
                if (!split(r, i + 1, from, pos))
                    return false;
                from = pos;
            }
            char_at(r, pos, b, &len);
            pos += len;
        }
        if (how != HT_PRE_THREES_CUT) {
            if (!split(r, i + 1, from, at))
                return false;
            from = at;
        }
    }
    return from == b || split(r, i + 1, from, b);
}

static bool split(const run *r, uint32_t i, size_t a, size_t b)
{
    if (i == r->p->n_steps)
        return r->word(r->arg, a, b - a);
    const step *s = &r->p->steps[i];
    if (s->how != HT_PRE_REGEX)
        return split_threes(r, i, a, b);

    PCRE2_SPTR subject = (PCRE2_SPTR)r->text + a;
    size_t n = b - a;
    size_t from = 0; /* first byte not yet given on */
    for (size_t at = 0; at < n;) {
        int rc = s->jit ? pcre2_jit_match(s->code, subject, n, at, 0, r->match, r->p->limits)
                        : PCRE2_ERROR_JIT_STACKLIMIT;
        if (rc == PCRE2_ERROR_JIT_STACKLIMIT || rc == PCRE2_ERROR_JIT_BADOPTION)
            rc = pcre2_match(s->code, subject, n, at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, r->match, r->p->limits);
        if (rc == PCRE2_ERROR_NOMEMORY)
            return false;
        if (rc < 0) /* no match, or PCRE2 gave up: what is left is one piece */
            break;
        const PCRE2_SIZE *ov = pcre2_get_ovector_pointer(r->match);
        /* copied: the steps below use the same match data */
        size_t start = ov[0], end = ov[1];
        if (end <= start) {
            size_t len;
            char_at(r, a + start, b, &len);
            at = start + len;
            continue;
        }
        if (start > from && !split(r, i + 1, a + from, a + start))
            return false;
        if (!split(r, i + 1, a + start, a + end))
            return false;
        at = from = end;
    }
    return from == n || split(r, i + 1, a + from, b);
}

bool ht_pretok_split(const ht_pretok *p, const char *text, size_t n, ht_pretok_word word, void *arg)
{
    run r = { p, text, pcre2_match_data_create(1, NULL), word, arg };

    if (!r.match)
        return false;
    bool done = n == 0 || split(&r, 0, 0, n);
    pcre2_match_data_free(r.match);
    return done;
}
