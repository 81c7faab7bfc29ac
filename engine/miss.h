/* SPDX-License-Identifier: MIT
 *
 * What a token of a streamed mixture does about experts that are not in memory, where the user gave up exactness for speed:
 * prefers those that are (route bias), computes stand-ins in their place, or leaves the lightest out. Tokens one by one only: a
 * prompt reads its experts once for all of its tokens, and stays exact. With the rule all zero nothing here does anything.
 *
 * Owner: no state but counters of the pass's object. Threads: as the pass. Nothing is allocated. */
#ifndef HT_MISS_H
#define HT_MISS_H

#include "engine/forward.h"

/* Before anybody is told of the choice of layer il: takes the experts of the one token again, by the router's scores and what is
 * at hand (the cache-prior of Skliar et al., arXiv:2412.00099, section 3.2: score + bias * range of the scores for those in memory). The
 * best one stays whatever is here. Weights are those that the router gives to the experts that are taken. */
void ht_miss_route(ht_forward *f, uint32_t il);
/* The same for the guess of a layer's experts, so that nothing is read ahead that would not be taken. */
void ht_miss_guess(ht_forward *f, uint32_t il);

/* What becomes of the experts of layer il that are not here: left out of items and clusters, whose new number is returned, or
 * marked in f->miss_low. n: how many there are. */
uint32_t ht_miss_settle(ht_forward *f, uint32_t il, ht_ffn_item *items, uint32_t n);

#endif
