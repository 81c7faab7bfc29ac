/* SPDX-License-Identifier: MIT
 *
 * Pre-tokenizers of byte-pair vocabularies: text is cut into words before merging, by the regular expressions that
 * tokenizer.ggml.pre stands for (pretok_rules.c lists them).
 *
 * Several expressions are applied one after another: each cuts the pieces that the one before left, and sees nothing
 * beyond the piece at hand. What an expression does not match stays a piece of its own.
 *
 * Owner: ht_pretok owns its compiled expressions. Threads: read-only once open. */
#ifndef HT_PRETOK_H
#define HT_PRETOK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/base/status.h"

typedef struct ht_pretok ht_pretok;

enum {
    HT_PRE_IGNORE_MERGES = 1, /* a word that is a token needs no merges */
    HT_PRE_ADD_BOS = 2,       /* BOS is added unless the file says otherwise */
    HT_PRE_RAW = 4,           /* merges run over UTF-8 characters, not over letters for bytes */
    HT_PRE_ESCAPE = 8,        /* spaces become U+2581 first */
    HT_PRE_NEWLINES = 16,     /* a word of newlines that is a token is that token */
    HT_PRE_NO_BOS = 32        /* no default BOS id */
};

enum { HT_PRE_MAX_STEPS = 6 };

/* How a step cuts: by its expression, or runs of digits into threes counted from the right. */
typedef enum ht_pre_how {
    HT_PRE_REGEX,
    HT_PRE_THREES_ANY,   /* runs of \p{N}, each group a piece, the first 1 to 3 long */
    HT_PRE_THREES_CUT,   /* runs of decimal digits: cut where a multiple of 3 remains, and nowhere else */
    HT_PRE_THREES_WORD   /* as THREES_ANY for decimal digits, runs that a letter follows left whole */
} ht_pre_how;

typedef struct ht_pre_step {
    ht_pre_how how;
    const char *regex;
} ht_pre_step;

typedef struct ht_pre_rule {
    const char *names; /* separated and surrounded by single spaces */
    uint32_t flags;
    ht_pre_step steps[HT_PRE_MAX_STEPS]; /* up to the first with neither expression nor way */
} ht_pre_rule;

/* The rule of that name; NULL where unknown. */
const ht_pre_rule *ht_pre_rule_find(const char *name, size_t n);
const ht_pre_rule *ht_pre_rule_at(size_t i); /* NULL behind the last; the first is "default" */

ht_status ht_pretok_open(ht_pretok **out, const ht_pre_rule *rule, ht_error *err);
void ht_pretok_close(ht_pretok **p);

/* Called with each word, in order, without gaps; false ends the split (its caller knows why). */
typedef bool (*ht_pretok_word)(void *arg, size_t start, size_t n);

/* text must be valid UTF-8. False: no memory, or a word was refused. */
bool ht_pretok_split(const ht_pretok *p, const char *text, size_t n, ht_pretok_word word, void *arg);

#endif
