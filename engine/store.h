/* SPDX-License-Identifier: MIT
 *
 * The store owns where every weight byte is and hands out leased views of clusters. This version has one way: the
 * mapped file, which the system pages in; every lease is ready at once. The layer code already asks the way a streaming
 * store needs: want early, lease when computing, release when done, so that neither knows tiers or files.
 *
 *   want:    these clusters will be computed, soon (deadline_layer: the layer that needs them). Never blocks.
 *   lease:   views of the parts of one wanted cluster; they stay where they are until release. LATER: not here yet.
 *   release: every lease of the ticket ends.
 *
 * Owner: ht_store_open/close; the model and its file outlive it. Threads: one ticket belongs to one thread;
 * different tickets may be used at the same time. */
#ifndef HT_STORE_H
#define HT_STORE_H

#include "engine/model.h"

typedef struct ht_store {
    const ht_model *m;
} ht_store;

typedef struct ht_ticket {
    const ht_cluster *clusters; /* the caller's, until release */
    uint32_t n;
} ht_ticket;

void ht_store_open(ht_store *s, const ht_model *m);
void ht_store_close(ht_store *s);

ht_status ht_store_want(ht_store *s, const ht_cluster *clusters, uint32_t n, uint32_t deadline_layer, ht_ticket *t);
/* out[role] for the neurons of cluster `which`: gate (host NULL where there is none), up, down. */
ht_status ht_store_lease(ht_store *s, ht_ticket *t, uint32_t which, ht_part out[HT_N_ROLES]);
void ht_store_release(ht_store *s, ht_ticket *t);

#endif
