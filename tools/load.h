/* SPDX-License-Identifier: MIT
 *
 * What the commands that run a model do before they differ: find the file, read the prompt or the ids, open model,
 * session and sampler as the flags say. Every function returns an exit status and has already told what went wrong. */
#ifndef HT_TOOLS_LOAD_H
#define HT_TOOLS_LOAD_H

#include "offline_profiler/hearth_profiler.h"
#include "tools/console.h"

typedef struct ht_loaded {
    hearth_model *model;
    hearth_model_info info;
    char path[4096];
    double load_ms;
} ht_loaded;

/* What a command changes of what the flags say. */
typedef struct ht_load_how {
    hearth_precision precision; /* where --precision is not given */
    bool vocab_only;
    bool dense;                 /* exact: sparsity off, no --on-miss, no --route-bias, whatever the flags say */
    bool no_profile;            /* --profile is another model's */
    uint32_t threads;           /* 0: as --threads says */
    bool no_own_predictors;     /* a PowerInfer model's own are left alone */
} ht_load_how;

/* Where the profile of a model lies if nobody says otherwise: $XDG_CACHE_HOME/hearth/profiles/FINGERPRINT.gguf, in
 * ~/.cache where that is not set; false: there is no such place. make: its folders are made. */
bool ht_load_cached_profile(const char *fingerprint, bool make, char *path, size_t path_bytes);

/* Where the figures of this machine are kept for these flags: --rates, else a file in hardware/ of the same cache folder; false:
 * there is no such place. */
bool ht_load_rates_path(const ht_options *o, char *path, size_t path_bytes);

/* The MODEL that was given, else the one that ships: found beside the executable (../share/hearth/models of an
 * installation, ../models of a build tree), then where this build was configured or is to be installed. */
int ht_load_path(const ht_options *o, char *path, size_t path_bytes);
/* The model that ships, or false. */
bool ht_load_shipped(char *path, size_t path_bytes);
/* Whether tokens may differ by what is in memory: --on-miss, --route-bias. */
bool ht_load_inexact(const ht_options *o);
/* --io. */
hearth_io ht_load_io(const ht_options *o);
/* Opens path, or what ht_load_path finds where path is NULL. */
int ht_load_model(ht_loaded *l, const char *path, const ht_options *o, const ht_load_how *how);
void ht_load_close(ht_loaded *l);
/* n_ctx: the context where --ctx is not given, 0 for the library's choice. */
int ht_load_session(hearth_session **s, const ht_loaded *l, const ht_options *o, uint32_t n_ctx);
/* Flags first, then what the file suggests, then the defaults of the help text. *seed: the one in use. */
int ht_load_sampler(hearth_sampler **sampler, const ht_loaded *l, const ht_options *o, uint64_t *seed);

/* -p TEXT, -f FILE ("-": stdin) or a bare "-": the bytes as they are, with a terminating zero behind them; free.
 * given: false where none was named (text NULL then). Two of them are wrong usage. */
int ht_load_prompt(const ht_options *o, char **text, size_t *n, bool *given);
/* Everything that can be read from path ("-": stdin), zero-terminated; free. */
int ht_load_file(const char *path, char **text, size_t *n);
/* --tokens: "1,2,3" (spaces do as well) or the path of a .npy file; free. */
int ht_load_tokens(const char *list, hearth_token **ids, size_t *n);
/* Whether an output can be written, before any work: wrong usage where it would take the place of one of `inputs` (NULL
 * ones are skipped) or is a folder; a failure where its folder is not there or may not be written to. path NULL or "":
 * nothing to check. */
int ht_load_check_output(const char *flag, const char *path, const char *const *inputs, size_t n_inputs);
/* Removes an output that was not finished, if it is a plain file (and not /dev/stdout or the like). */
void ht_remove_file(const char *path);

#endif
