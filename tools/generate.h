/* SPDX-License-Identifier: MIT
 *
 * One generation as run and chat make it: streams the text to stdout, keeps it with its ids, times it, reports it. */
#ifndef HT_TOOLS_GENERATE_H
#define HT_TOOLS_GENERATE_H

#include "tools/report.h"

typedef struct ht_generation {
    hearth_token *ids;
    size_t n_ids, ids_room;
    char *text;
    size_t n_text, text_room;
    hearth_stop_reason why;
    hearth_stats stats;      /* of this generation alone */
    double begin;            /* ht_now() from which the first token is timed */
    double first, last;      /* ht_now() at the first and the last token; 0 before */
    ht_energy energy;
    double joules_first, joules_last;
    const hearth_session *session;
    hearth_stats before;     /* at its begin */
    double told;             /* ht_now() of the last line about experts (--verbose) */
    bool silent, out_of_memory, broken;
} ht_generation;

/* Feeds ids and generates as the flags say. g is overwritten, except for begin, which the caller sets, and for its
 * memory, which is used again. Ctrl-C is HT_EXIT_OK here with why HEARTH_STOP_CANCEL. */
int ht_generation_run(ht_generation *g, const ht_options *o, hearth_session *s, hearth_sampler *sampler,
                      const hearth_token *ids, size_t n, const ht_texts *stops);
/* One JSON object on stdout. */
int ht_generation_report(const ht_generation *g, const ht_loaded *l, uint64_t seed);
/* How fast it was, on stderr. */
void ht_generation_say(const ht_generation *g, const ht_loaded *l);
void ht_generation_free(ht_generation *g);

#endif
