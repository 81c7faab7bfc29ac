/* SPDX-License-Identifier: MIT
 *
 * An interpreter for the language of chat templates: Jinja as jinja2's ImmutableSandboxedEnvironment runs it with trim_blocks,
 * lstrip_blocks and the loopcontrols extension, with the functions and the tojson filter that chat-template libraries add.
 * docs/templates.md says what is there and what is not.
 *
 * A template is code from a file of unknown origin. It sees the variables that it is given and nothing else, cannot change
 * them, and is bounded: in steps, in bytes of memory and in depth. Whatever is beyond that, and whatever jinja2 would refuse,
 * ends in a sentence that names the construct and the line.
 *
 * How it works: jinja_lex.c cuts the text into tokens, jinja_expr.c and jinja_parse.c make a tree of them, jinja_eval.c and
 * jinja_op.c walk it over values (jinja_value.c). Filters, tests, methods and functions are tables of C functions. Everything lies
 * in one arena that is freed at the end, so an error leaves by longjmp to ht_jinja_run and nothing is lost.
 *
 * No state between calls; any thread. */
#ifndef HT_JINJA_H
#define HT_JINJA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/base/status.h"

typedef struct ht_jj ht_jj; /* one run; jinja_impl.h */

typedef struct ht_jinja_limits {
    uint64_t steps; /* 0: 30 million; a step is a node of the tree, an element or 64 bytes of a text */
    uint64_t bytes; /* 0: 256 MiB, and 64 for each byte of the input */
    int64_t now;    /* for strftime_now: seconds since 1970, local time */
} ht_jinja_limits;

/* A variable as text, or NULL: the template sees it unless the JSON brings one of that name. */
typedef struct ht_jinja_var {
    const char *name, *text;
} ht_jinja_var;

/* Runs body(j, user) with an arena of its own, and frees it. Errors inside end it and are returned. */
ht_status ht_jinja_run(void (*body)(ht_jj *j, void *user), void *user, const ht_jinja_limits *limits, size_t n_input,
                       ht_error *err);

/* What a template is given. JSON is an object of variables or an array of messages; what the JSON names wins over the rest. */
typedef struct ht_jinja_input {
    const char *text; /* the template */
    size_t n_text;
    const char *json; /* NULL: none */
    size_t n_json;
    const ht_jinja_var *vars;
    size_t n_vars;
    const char *const *roles, *const *contents; /* [n_messages]; NULL: none */
    size_t n_messages;
    const char *tools; /* a JSON array, or NULL */
    bool generation;   /* add_generation_prompt where the JSON has none */
} ht_jinja_input;

/* *out: malloc'ed, terminated too. Fails: EFORMAT (the template or the JSON is no such), EUNSUPPORTED (a construct that is not
 * known, or a limit), EINVAL (the template refused, or an operation that its values do not allow), ENOMEM. */
ht_status ht_jinja_render(const ht_jinja_input *in, const ht_jinja_limits *limits, char **out, size_t *len, ht_error *err);

#endif
