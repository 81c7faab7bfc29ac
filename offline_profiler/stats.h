/* SPDX-License-Identifier: MIT
 *
 * Statistics of active neurons, gathered while a model computes. A block is the feed-forward block of a layer (a
 * mixture with all its experts), or the shared block beside one; blocks are met, and sized, as the trace tells of them.
 * Per token a block's active neurons are a set of bits; overlaps and unions are ANDs and ORs of sets.
 *
 * Everything counts for a window at first, and joins the totals when the window is complete: a run that ends in the
 * middle of one, and goes on later from the totals, counts each token once.
 *
 * Owner: ht_stats_open/close. Threads: one. */
#ifndef HT_STATS_H
#define HT_STATS_H

#include <stdio.h>

#include "engine/base/status.h"
#include "offline_profiler/profile.h"

enum { HT_STATS_LEVELS = HEARTH_PROFILE_UNIONS - 1 }; /* unions of 2, 4, … 64 */

/* Sums over tokens, exact. */
enum {
    HT_SUM_TOKENS,
    HT_SUM_ACTIVE,    /* active neurons */
    HT_SUM_SQUARES,   /* of active neurons of each token */
    HT_SUM_KEPT,      /* active on the token before too */
    HT_SUM_FOLLOWING, /* active neurons of tokens that have one before them */
    HT_SUM_EXPERTS_KEPT,
    HT_SUM_EXPERTS_FOLLOWING,
    HT_SUM_UNION,                                   /* [LEVELS] sizes of unions */
    HT_SUM_GROUPS = HT_SUM_UNION + HT_STATS_LEVELS, /* [LEVELS] how many */
    HT_N_SUMS = HT_SUM_GROUPS + HT_STATS_LEVELS
};

typedef struct ht_stats_block {
    uint32_t layer, shared, n_ff, n_expert, n_used;
    uint32_t n_before; /* experts of the mixture before this one; 0: there is none */
    uint32_t words;    /* of 64 bits for one expert's neurons */
    /* totals */
    uint64_t sums[HT_N_SUMS];
    uint32_t *count;        /* [n_expert * n_ff] tokens on which it was active; NULL: density only */
    double *magnitude;      /* [n_expert * n_ff] sum of |hidden| */
    uint32_t *expert_count; /* [n_expert], mixtures */
    uint32_t *next;         /* [n_before][n_expert] tokens that chose both */
    /* the window's share of them */
    uint64_t new_sums[HT_N_SUMS];
    uint32_t *new_count;
    float *new_magnitude;
    uint32_t *ids; /* [window][n_used] experts chosen, mixtures */
    /* sets of bits */
    uint64_t *before;     /* [n_used][words] of the token before */
    uint32_t *before_ids; /* [n_used] */
    bool has_before;
    uint64_t *levels; /* [LEVELS][n_expert * words] unions that wait for their other half */
    bool waiting[HT_STATS_LEVELS];
} ht_stats_block;

typedef struct ht_stats {
    uint32_t window, n_skip; /* tokens of a window; of its first tokens that do not count (BOS) */
    bool density_only;
    ht_stats_block *blocks;
    uint32_t n_blocks, room;
    uint64_t bytes; /* allocated */
    /* of the block that the trace is telling of */
    uint32_t open;             /* UINT32_MAX: none */
    uint32_t position, n_pass; /* of the pass */
    uint64_t *bits;            /* [n_pass][n_used][words] */
    uint32_t *bits_ids;        /* [n_pass][n_used] */
    uint32_t *filled;          /* [n_pass] experts told of, [n_pass] neurons found active */
    uint64_t *whole;           /* [n_expert * words] one token's set over all experts */
    size_t bits_room, ids_room, pass_room, whole_room;
    bool out_of_memory, mismatch; /* mismatch: what a part says of the blocks is not what is computed */
} ht_stats;

void ht_stats_open(ht_stats *s, uint32_t window, uint32_t n_skip, bool density_only);
void ht_stats_close(ht_stats *s);

/* A block of that shape, with zeros; NULL: out of memory. */
ht_stats_block *ht_stats_add(ht_stats *s, const ht_stats_block *shape);

void ht_stats_begin_window(ht_stats *s);
/* A hearth_trace_fn over a ht_stats; false: out of memory, or a mismatch. */
bool ht_stats_listen(void *stats, const hearth_trace *t);
/* The window is complete: n tokens of it count. */
void ht_stats_end_window(ht_stats *s, uint32_t n);

/* The totals as a profile's layers; p has as many layers as the model. */
ht_status ht_stats_profile(const ht_stats *s, hearth_profile *p, ht_error *err);

/* The totals as bytes, through a function that writes or reads n of them (false: failed). load makes the blocks anew.
 */
typedef bool ht_stats_io(void *user, void *bytes, size_t n);
bool ht_stats_save(const ht_stats *s, ht_stats_io *write, void *user);
/* HT_EFORMAT where shapes make no sense; most_bytes bounds what is allocated for them. */
ht_status ht_stats_load(ht_stats *s, ht_stats_io *read, void *user, uint64_t most_bytes, ht_error *err);

#endif
