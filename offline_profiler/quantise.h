/* SPDX-License-Identifier: MIT
 *
 * Writing a model in other widths: what becomes of each tensor (quantise_plan.c), encoding in threads (quantise.c), a width for
 * each expert (quantise_experts.c). Memory: each object frees its own. Threads: one; encoding starts its own. */
#ifndef HT_QUANTISE_H
#define HT_QUANTISE_H

#include "engine/base/status.h"
#include "engine/base/types.h"
#include "offline_profiler/hearth_profiler.h"

/* Whose matrix a tensor (or a run of its rows) is. */
typedef enum ht_source_kind {
    HT_SOURCE_COPY, HT_SOURCE_MATRIX, HT_SOURCE_OUTPUT,
    HT_SOURCE_EXPERTS, /* all experts of a layer, stacked */
    HT_SOURCE_EXPERT   /* one, in a tensor of its own */
} ht_source_kind;

typedef struct ht_source {
    char *name;
    ht_source_kind kind;
    uint32_t type, n_dims, role; /* role: of experts, hearth_role; fused gate and up: GATE with `fused` */
    bool fused;
    uint32_t layer, n_expert;    /* of experts */
    uint32_t expert;             /* of one */
    uint64_t ne[4], bytes, elements;
} ht_source;

/* What is written: a run of rows of a source. */
typedef struct ht_target {
    uint32_t source;
    uint32_t type;       /* ht_type, or any id where it is copied whole */
    uint64_t first, n;   /* elements of the source */
    uint64_t ne[4];
    uint32_t n_dims;
    char name[80];       /* of an expert's own tensor; "": the source's name */
} ht_target;

typedef struct ht_quantise {
    hearth_file *file;
    ht_source *sources;
    uint32_t n_sources;
    ht_target *targets;
    uint32_t n_targets, room;
    uint32_t threads;
    uint32_t n_layer, n_expert;  /* of mixtures: layers are numbered as in the file, the largest number of experts */
    /* Widths of experts: [n_layer * n_expert] indices into widths; NULL: all have the first. */
    uint32_t widths[HEARTH_QUANTISE_WIDTHS];
    uint32_t n_widths;
    uint8_t *choice;
    hearth_quantise_params p;
    hearth_quantise_result r;
} ht_quantise;

/* Reads names and shapes. */
ht_status ht_quantise_sources(ht_quantise *q, ht_error *err);
/* Fills the targets for the type and choice; counts bytes, weights and fallbacks into the result. */
ht_status ht_quantise_targets(ht_quantise *q, ht_error *err);
void ht_quantise_free(ht_quantise *q);
/* The layer's width `index` of an expert's matrices. */
static inline uint32_t ht_quantise_width(const ht_quantise *q, uint32_t layer, uint32_t expert)
{
    return q->choice ? q->choice[(size_t)layer * q->n_expert + expert] : 0;
}

/* Encodes n elements (whole rows of k) of a source from `first` on into dst, in threads. HT_EFORMAT: no finite number. */
ht_status ht_quantise_encode(const ht_quantise *q, uint32_t source, uint64_t first, uint64_t n, uint32_t type, void *dst,
                             ht_error *err);
/* Writes all targets to a file. */
ht_status ht_quantise_write(ht_quantise *q, const char *path, ht_error *err);

/* Chooses a width for each expert; the curve goes into the result. in: the input's path, trial: a path for a file of the base
 * width, removed at the end. */
ht_status ht_quantise_choose(ht_quantise *q, const char *in, const char *trial, ht_error *err);

#endif
