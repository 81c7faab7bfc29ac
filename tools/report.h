/* SPDX-License-Identifier: MIT
 *
 * Figures and texts as JSON, under the names that the outside relies on, and what the machine tells of a process:
 * energy and bytes read. Built on cJSON, which copies what it is given. Threads: one. */
#ifndef HT_TOOLS_REPORT_H
#define HT_TOOLS_REPORT_H

#include <cjson/cJSON.h>

#include "tools/load.h"

/* Bytes of any kind as a JSON string: what is no UTF-8 becomes U+FFFD. */
size_t ht_report_quote(char *out, const char *text, size_t n); /* to out[6 n + 3], not terminated; returns the length */
void ht_report_text(cJSON *object, const char *name, const char *text, size_t n);
/* A number, or null where it is not finite or not positive. */
void ht_report_positive(cJSON *object, const char *name, double v);
/* A number, or null where it is not finite. */
void ht_report_number(cJSON *object, const char *name, double v);
void ht_report_tokens(cJSON *object, const char *name, const hearth_token *ids, size_t n);
/* model, device, threads, isa and what is not measured in this version (null). */
void ht_report_model(cJSON *object, const ht_loaded *l);
/* Recall and precision of predictors in prompts, in place of the nulls of ht_report_model. */
void ht_report_recall(cJSON *object, const hearth_stats *stats);
/* Of a streamed model how experts were found, in place of the nulls of ht_report_model; bytes read from the disk by its
 * passes, and seconds of waiting for them. */
void ht_report_stream(cJSON *object, const ht_loaded *l, const hearth_stats *stats);
/* *after -= *before, *sum += *s, for the figures of ht_report_stream. */
void ht_report_since(hearth_stats *after, const hearth_stats *before);
void ht_report_add(hearth_stats *sum, const hearth_stats *s);
/* "experts: 93.1 % at hand, ..." or "" where the model is not streamed. */
void ht_report_stream_text(char *text, size_t bytes, const hearth_stats *stats);
/* Prints on one line to stdout and deletes; an exit status. */
int ht_report_print(cJSON *object);

/* Energy that the processor packages have used so far, in joules, or a negative number where it cannot be read. It
 * grows from call to call: the counter's wrap-around is followed as long as it is read often enough (minutes). */
typedef struct ht_energy {
    double joules;
    uint64_t last[8];
    unsigned n;
} ht_energy;
void ht_energy_open(ht_energy *e);
double ht_energy_read(ht_energy *e);

/* Bytes that this process made the disks deliver, or a negative number. */
double ht_disk_bytes_read(void);

#endif
