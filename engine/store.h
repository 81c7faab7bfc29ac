/* SPDX-License-Identifier: MIT
 *
 * The store owns where every weight byte is and hands out leased views of clusters. There are two ways: the mapped file,
 * which the system pages in, where every lease is ready at once; and, for models larger than the memory, slots that are
 * filled from the file (engine/disk.h). The layer code asks alike for both: want early, lease when computing, release
 * when done; it knows no tiers and no files.
 *
 *   want:    these clusters will be computed, in this order. As many as there is room for are pinned and read; never blocks
 *            but where others that were only foreseen have to yield.
 *   lease:   views of the parts of one wanted cluster; they stay where they are until release. LATER: not here yet.
 *   poll:    waits for something to arrive.
 *   done:    leases of the first clusters end, whose operations are done: there is room for more.
 *   release: every lease of the ticket ends.
 *
 * Beside the file the store may hold down projections in their neuron-major form (engine/base/neurons.h), for models
 * whose activations are often zero: ht_store_reserve sets address space aside, ht_store_build fills it piece by piece,
 * leases have them once a block is complete. A block is all experts of a layer, or its shared expert.
 *
 * Owner: ht_store_open/close; the model and its file outlive it. Threads: one ticket belongs to one thread;
 * different tickets may be used at the same time; reserve, build and leases one at a time. */
#ifndef HT_STORE_H
#define HT_STORE_H

#include "engine/base/neurons.h"
#include "engine/disk.h"
#include "engine/model.h"
#include "engine/standin.h"

/* Neuron-major parts of a layer's experts, one after the other. */
typedef struct ht_neuron_block {
    ht_neurons g;
    size_t at;               /* of the first in the reservation */
    size_t each;             /* bytes from one expert's to the next's */
    uint32_t n_expert;       /* 0: none are planned (type, budget) */
    uint32_t expert, output; /* what is to be built next; expert == n_expert: complete */
    _Atomic bool refused;    /* some weight is no finite number: the file's rows are used for good */
} ht_neuron_block;

typedef enum ht_prefetch { HT_PREFETCH_AUTO, HT_PREFETCH_OFF, HT_PREFETCH_ON } ht_prefetch;

/* Whether guesses of the next layer's experts pay: counts when it was decided last. */
typedef struct ht_store_judge {
    uint64_t missed, foreseen, used, bytes;
    double waited, at; /* seconds of waiting, and when it was decided last */
    int32_t left; /* layers until it is decided again */
    bool on;
} ht_store_judge;

/* What a token does about experts that are not here (engine/miss.h). All zero: it waits, and nothing changes its bits. */
typedef enum ht_on_miss { HT_MISS_WAIT, HT_MISS_LOW, HT_MISS_SKIP } ht_on_miss;
typedef struct ht_miss_rule {
    ht_on_miss on_miss;
    float skip_share; /* SKIP: share of the weights of a token's experts that may be left out in a layer */
    float route_bias; /* experts at hand are preferred by this share of the range of the router's scores; 0: not */
} ht_miss_rule;
enum { HT_N_MISSING = 17 };

typedef struct ht_store {
    const ht_model *m;
    ht_disk *disk;           /* NULL: the mapped file. Owned */
    ht_standins *standins;   /* NULL: none. Owned */
    ht_miss_rule miss;
    bool in_parts;           /* what is wanted from now on may come in parts: the caller asks for the rest by ht_store_need */
    ht_prefetch prefetch;
    ht_store_judge judge;
    uint64_t guessed, guessed_right; /* experts of layers that were guessed; of them right */
    uint64_t missing[HT_N_MISSING]; /* layers of single tokens by how many units had to be read for them; the last: as many or more */
    ht_neuron_block *blocks; /* [n_layer][2]: the experts', the shared expert's; NULL: nothing is reserved */
    uint8_t *memory;
    size_t reserved;         /* bytes of address space */
    _Atomic uint64_t planned, built; /* bytes of the blocks that are planned; of them built, whole experts counted */
} ht_store;

/* Clusters [from, to) are wanted now; those before are done, for those after there is no room yet. All zero: none. */
typedef struct ht_ticket {
    const ht_cluster *clusters; /* the caller's, until release */
    uint32_t n, from, to;
    uint64_t bytes;             /* of slots that are pinned */
    bool few;                   /* a token's: all are pinned at once, there is always room */
    const bool *low;            /* [n] leased from stand-ins, never pinned; the caller's; NULL: none */
    const ht_cancel *cancel;    /* NULL allowed */
} ht_ticket;

void ht_store_open(ht_store *s, const ht_model *m);
void ht_store_close(ht_store *s);

/* counts: by how many tokens of the pass each cluster's expert was chosen; NULL: by all. */
void ht_store_used(ht_store *s, const ht_cluster *clusters, const uint32_t *counts, uint32_t n, uint32_t n_tokens);
/* Which experts [n_tokens][n_used] each token of a prompt took: what follows is foretold by those most like it. */
void ht_store_remember(ht_store *s, uint32_t layer, const uint32_t *experts, uint32_t n_tokens, uint32_t n_used);
/* batch: a pass of several tokens. cancel: looked at where reads have to be waited for, until release; NULL allowed. EINVAL: a
 * cluster that the model has not. */
ht_status ht_store_want(ht_store *s, const ht_cluster *clusters, uint32_t n, bool batch, const ht_cancel *cancel, ht_ticket *t);
/* The same for a token some of whose experts (low[i]) are computed from stand-ins, which they must have; they are read behind
 * everything else, for later tokens. low NULL: none. */
ht_status ht_store_want_some(ht_store *s, const ht_cluster *clusters, const bool *low, uint32_t n, const ht_cancel *cancel,
                             ht_ticket *t);
/* Goes on where there was no room. HT_ENOMEM: there is none for a single one though nothing is wanted: the budget is too
 * small. HT_ECANCELLED. */
ht_status ht_store_more(ht_store *s, ht_ticket *t);
/* out[role] for the neurons of cluster `which`: gate (host NULL where there is none), up, down. *down_t: the down
 * projection neuron-major, host NULL where it is not there or the cluster is not the whole expert. Of a packed file down is
 * neuron-major itself, and a cluster begins at a multiple of 32 neurons (of 256, where blocks are; else EINVAL). HT_LATER; HT_EIO: err (NULL
 * allowed) names file and offset. */
ht_status ht_store_lease(ht_store *s, ht_ticket *t, uint32_t which, ht_part out[HT_N_ROLES], ht_part *down_t,
                         ht_error *err);
/* Whether a leased cluster is not all here: its gate rows and scales are, and what was asked for. */
bool ht_store_is_part(const ht_store *s, const ht_ticket *t, uint32_t which);
/* Asks for the neurons in mask of such a one; it is leased anew when they are here. HT_LATER: poll, then ask again. */
ht_status ht_store_need(ht_store *s, const ht_ticket *t, uint32_t which, const uint32_t *mask);
/* What will be needed after this layer is read behind what is needed now: the next layer's experts that were guessed, or
 * (experts NULL) what the next layers need for certain: all experts of a long prompt's next layer, dense blocks. */
void ht_store_foresee_next(ht_store *s, uint32_t layer, const uint32_t *experts, uint32_t n);
/* What became of a guess, experts [n] each: the ones foreseen, the ones used. Only counted. */
void ht_store_judge_guess(ht_store *s, const uint32_t *guessed, const uint32_t *used, uint32_t n);
/* Whether guessing the next layer's experts is worth its while. Called once a layer. */
bool ht_store_guesses(ht_store *s);
/* Waits until something arrives, at most some milliseconds. */
void ht_store_poll(ht_store *s);
void ht_store_done(ht_store *s, ht_ticket *t, uint32_t n);
void ht_store_release(ht_store *s, ht_ticket *t);
/* The shared expert's, which is held for good. */
ht_part ht_store_shared_down_t(const ht_store *s, uint32_t layer);

/* Plans neuron-major parts for as many layers, in order, as fit into `budget` bytes; of float types only where f32, for
 * then quantised ones are multiplied with activations that are not. HT_OK with nothing reserved where no layer has a
 * type that can be. */
ht_status ht_store_reserve(ht_store *s, bool f32, uint64_t budget, ht_error *err);
/* Gives up planned blocks, the last layers' first, until `planned` is at most `bytes`: others need the memory more. No
 * lease may be open. */
void ht_store_trim(ht_store *s, uint64_t bytes);
/* The block of a layer (shared: of its shared expert), NULL: none is planned. */
ht_neuron_block *ht_store_block(const ht_store *s, uint32_t layer, bool shared);
bool ht_store_block_ready(const ht_neuron_block *b);
/* Builds up to about `bytes` more of a block, on the executor; waits for it. Returns the bytes built, 0: complete,
 * refused or failed (*st). */
uint64_t ht_store_build(ht_store *s, ht_exec *exec, uint32_t layer, bool shared, uint64_t bytes,
                        const ht_cancel *cancel, ht_status *st);

#endif
