/* SPDX-License-Identifier: MIT
 *
 * The flags of the command line: one table per group of flags, one parser for every command, help text from the same
 * tables.
 *
 * A command names the tables that it takes, its own first: a flag found there hides one of the same name further on
 * (bench reads `--threads 1,2`, every other command one number). Values of a flag that a later version brings stand in
 * its table as well, so that they are refused by name and never guessed at.
 * Owner: nothing is copied; every string of ht_options points into argv. Threads: one. */
#ifndef HT_TOOLS_OPTIONS_H
#define HT_TOOLS_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { HT_MAX_TEXTS = 32, HT_MAX_POSITIONALS = 4 };

/* A flag that may be repeated. */
typedef struct ht_texts {
    const char *v[HT_MAX_TEXTS];
    size_t n;
} ht_texts;

typedef struct ht_size {
    uint64_t bytes;
    bool given;
} ht_size;

typedef struct ht_number {
    double v;
    bool given;
} ht_number;

typedef struct ht_integer {
    int64_t v;
    bool given;
} ht_integer;

/* Every value that a flag of any command can set; zero is "not given". */
typedef struct ht_options {
    const char *positional[HT_MAX_POSITIONALS];
    size_t n_positional;
    bool from_stdin; /* "-" stood among the positionals */
    bool help;       /* --help or -h; nothing after it was read */

    /* running a model */
    ht_integer threads, ctx, batch;
    const char *device, *precision, *io, *prefetch, *on_miss, *sparsity, *kv_type, *isa, *profile;
    ht_size ram, vram;
    ht_number route_bias;
    bool deterministic;
    ht_texts overrides;

    /* sampling */
    ht_integer n_predict, top_k, seed;
    ht_number temperature, top_p, min_p, repeat_penalty;
    ht_texts stops;

    /* talking */
    bool json, quiet, verbose;
    const char *log;

    /* single commands */
    const char *prompt, *file, *out, *tokens, *tensor, *against, *system;
    const char *list_prompt, *list_predict, *list_threads, *routing_trace;
    ht_integer repeats, windows, depth;
    bool bos, special, quick, pack, unpack;
    const char *report;
    ht_integer max_tokens;
    bool density_only, restart;
    ht_number quality, density;
    const char *type, *widths;
    bool per_expert, pure;
    ht_size target;
    const char *budgets, *trace, *after;
    bool warm, predictors;
    ht_texts pins;
    const char *rates;
    ht_integer prompt_tokens;
    bool stored, refresh;
    const char *template, *template_name;
    bool generation_prompt;
} ht_options;

typedef enum ht_flag_kind {
    HT_FLAG_SWITCH,   /* bool */
    HT_FLAG_TEXT,     /* const char * */
    HT_FLAG_TEXTS,    /* ht_texts */
    HT_FLAG_INTEGER,  /* ht_integer, within [min, max] */
    HT_FLAG_NUMBER,   /* ht_number, within [min, max] */
    HT_FLAG_SIZE,     /* ht_size: 512M, 6G; K/M/G = 1024^n */
    HT_FLAG_CHOICE    /* const char *, one of `choices` */
} ht_flag_kind;

typedef struct ht_flag {
    char letter;         /* 'p' for -p, 0 for none */
    const char *name;    /* "threads" for --threads, NULL for none */
    const char *value;   /* how help calls the value */
    ht_flag_kind kind;
    size_t offset;       /* in ht_options */
    double min, max;
    const char *choices; /* "auto|cpu" */
    const char *later;   /* "cuda|opencl": values of a later version; "*": the whole flag is one */
    const char *text;    /* help; the default in it where there is one */
} ht_flag;

/* Tables end with {0}. machine: of these only threads and ram. */
extern const ht_flag ht_flags_machine[], ht_flags_model[], ht_flags_sampling[], ht_flags_talk[];

enum { HT_MAX_TABLES = 5 };

typedef struct ht_command {
    const char *name;
    const char *arguments; /* "[MODEL] -p TEXT | -f FILE | -" */
    const char *summary;   /* one line for `hearth help` */
    const char *text;      /* a paragraph for `hearth help COMMAND`, or NULL; the whole page with run_raw */
    size_t min_positional, max_positional;
    bool takes_stdin;      /* "-" is an argument of its own */
    const ht_flag *tables[HT_MAX_TABLES];
    /* accepted, because every command that runs a model takes them, without effect here */
    const ht_flag *idle[HT_MAX_TABLES];
    int (*run)(const ht_options *o);
    int (*run_raw)(int argc, char **argv); /* parses by itself; argv[0] is the command's name */
} ht_command;

/* Fills o from argv[1..]. Returns true, or false with a sentence in why (no newline). */
bool ht_options_parse(const ht_command *c, int argc, char **argv, ht_options *o, char *why, size_t why_bytes);

/* Writes the flags of a command, wrapped, to stdout. */
void ht_options_help(const ht_command *c);

/* A paragraph, wrapped, to stdout. */
void ht_options_paragraph(const char *text);

/* "512M" -> bytes; false where it is no size. */
bool ht_options_size(const char *text, uint64_t *bytes);

/* The name among names[0..n) that was most likely meant, or NULL where nothing is near. */
const char *ht_options_nearest(const char *typed, const char *const *names, size_t n);

#endif
