/* SPDX-License-Identifier: MIT
 *
 * The parts of a report, one function each, in the files report*.c; each leaves itself out where the profile knows
 * nothing of it. Threads: one. */
#ifndef HT_REPORT_H
#define HT_REPORT_H

#include "offline_profiler/page.h"
#include "offline_profiler/profile.h"

void ht_report_neurons(ht_page *page, const hearth_profile *p);
void ht_report_layers(ht_page *page, const hearth_profile *p);
void ht_report_experts(ht_page *page, const hearth_profile *p);
void ht_report_predictors(ht_page *page, const hearth_profile *p);

/* What they share. */
static inline size_t ht_report_count(const hearth_profile_layer *l)
{
    return (size_t)l->n_ff * l->n_expert;
}
bool ht_report_any_neurons(const hearth_profile *p);
/* hearth_profile_cover; running out of memory fails the page. */
double ht_report_cover(ht_page *page, const hearth_profile *p, uint32_t layer, double share);
double ht_report_expert_overlap(const hearth_profile_layer *l); /* of a dense layer: negative */
ht_axis ht_report_layer_axis(const hearth_profile *p);
/* Bars of a share with a mark for what chance would give. */
void ht_report_bars(ht_page *page, const hearth_profile *p, const char *title, const char *note, const char *label,
                    double (*share)(const hearth_profile_layer *), double (*chance)(const hearth_profile_layer *));
/* An axis of shares from zero to a round number above the greatest. */
ht_axis ht_report_share_axis(const char *label, double greatest);

#endif
