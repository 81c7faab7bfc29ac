/* SPDX-License-Identifier: MIT
 * What the opaque handles of hearth.h are. Included by the files that implement that header only. */
#ifndef HT_OBJECTS_H
#define HT_OBJECTS_H

#include "cpu/cpu.h"
#include "engine/ahead.h"
#include "engine/base/os.h"
#include "engine/base/plan.h"
#include "engine/forward.h"
#include "engine/hearth.h"
#include "engine/predict.h"
#include "engine/tokenizer.h"

struct hearth_model {
    ht_gguf *gguf;
    ht_model m;
    ht_tokenizer *tok;    /* NULL: the file has no vocabulary */
    ht_exec *exec;        /* NULL: vocab_only */
    ht_store store;
    ht_topology topology;
    ht_mem mem;
    ht_budget budget;     /* 0: what is free */
    uint64_t reserved;    /* of it by open sessions: whole contexts, scratch */
    uint64_t exec_bytes;  /* scratch of the executor's threads */
    ht_disk_needs needs;  /* of a streamed model; tables: stand-ins too */
    uint64_t standin_bytes;
    uint64_t table_bytes; /* vocabulary, names, vectors as float32: what opening took beside the mapping */
    ht_ahead ahead;       /* of the file, for the first pass */
    _Atomic uint64_t slots;   /* bytes that sessions leave to a streamed model's experts; 0: not said yet */
    _Atomic uint64_t trim_to; /* and to neuron-major parts; UINT64_MAX: nothing is to be given up */
    ht_os_mutex budget_lock; /* over reserved: sessions open and close in any thread */
    ht_os_mutex lock;     /* one session computes at a time */
    uint32_t threads;
    ht_isa isa;
    bool f32;
    bool sparse;          /* what is zero, or taken as zero, is left out */
    hearth_sparsity sparsity; /* as it was asked for */
    ht_part (**replaced)[HT_N_ROLES]; /* [n_layer] the file's own parts, where some were replaced; NULL: nowhere */
    bool own_predictors;  /* those of the file itself, which others may replace */
    hearth_log_fn *log;
    void *log_user;
    char *heat;           /* path, NULL: none */
    char fingerprint[33]; /* where there is heat */
    double heat_written;  /* ht_os_now() */
    char *name, *description, *demo_prompt, *chat_template;
};

struct hearth_session {
    hearth_model *model;
    ht_state state;
    ht_forward forward;
    ht_cancel cancel;
    ht_token pending;     /* delivered, not yet computed; -1: none */
    bool has_logits, spoilt; /* spoilt: a cancelled pass left recurrent state half-way */
    uint32_t last_row;    /* row of forward.logits that belongs to the last token */
    uint64_t reserved;    /* its share of the model's budget */
    hearth_stats stats;
};

/* Frees what hearth_model_replace keeps. */
void ht_model_forget_replaced(hearth_model *m);

/* Opens a model with hooks under its reads (tests): fault, fault_user and no_uring of hooks, NULL: none. */
hearth_status ht_model_open(hearth_model **out, const char *path, const hearth_model_params *params,
                            const ht_disk_params *hooks, hearth_error *error);

/* "KEY=VALUE" each, as if the file said so. */
ht_status ht_model_override(ht_gguf *g, const char *const *overrides, size_t n, ht_error *err);

/* What weights take of the budget in any case: all of them, or, of a streamed model, what is held and the smallest cache. */
uint64_t ht_model_weights_taken(const hearth_model *m);
/* A streamed model's experts get what its sessions leave: at once, or, while a pass is under way, before the next one, which is
 * the first that touches a new session's memory. budget_lock is held. */
void ht_model_share_budget(hearth_model *m);
/* Neuron-major parts beyond so many bytes are given up, at once or before the next pass. */
void ht_model_trim(hearth_model *m, uint64_t bytes);
/* Bytes of neuron-major parts that will be left. */
uint64_t ht_model_planned(const hearth_model *m);
/* Does what waited for the model's lock, which is held. */
void ht_model_settle(hearth_model *m, const ht_cancel *cancel);

/* Writes the heat file, where there is one and it is due. at_end: it always is. */
void ht_model_keep_heat(hearth_model *m, bool at_end);

/* The vocabulary that a sampler was opened for. */
uint32_t ht_sampler_n_vocab(const hearth_sampler *s);

/* A sentence to the model's log callback, if it has one. */
void ht_model_log(const hearth_model *m, hearth_log_level level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Computes ids in passes of the session's batch; no checks, no statistics. Takes the model's lock. */
ht_status ht_session_compute(hearth_session *s, const hearth_token *ids, size_t n, hearth_logits_fn *on_logits,
                             void *user, ht_error *err);

/* The caller's error as ours: same layout, same values (checked in hearth.c). */
static inline ht_error *ht_err(hearth_error *e) { return (ht_error *)(void *)e; }

/* Copies a versioned struct of the caller's into *dst, members beyond its size zero. */
#define HT_PARAMS(dst, src)                                                                                            \
    do {                                                                                                               \
        memset((dst), 0, sizeof *(dst));                                                                               \
        if (src)                                                                                                       \
            memcpy((dst), (src), (src)->size < sizeof *(dst) ? (src)->size : sizeof *(dst));                           \
    } while (0)

/* The other way: fills the caller's struct up to the size it gave. */
#define HT_RESULT(dst, src)                                                                                            \
    do {                                                                                                               \
        size_t ht_n = (dst)->size < sizeof *(dst) ? (dst)->size : sizeof *(dst);                                       \
        memcpy((char *)(dst) + sizeof(size_t), (const char *)(src) + sizeof(size_t),                                   \
               ht_n < sizeof(size_t) ? 0 : ht_n - sizeof(size_t));                                                     \
    } while (0)

#endif
