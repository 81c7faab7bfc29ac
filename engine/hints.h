/* SPDX-License-Identifier: MIT
 *
 * What a profile foretells for fetching early: how often experts are chosen, and which neurons of a layer the input of the
 * layer before makes active. Hints change when bytes are read, never what is computed: no token depends on them, so that
 * a profile from the cache folder may be used without being asked for.
 *
 * Owner: ht_hints_open/close; the profile's file stays mapped with it. Threads: read-only once open. */
#ifndef HT_HINTS_H
#define HT_HINTS_H

#include "engine/base/exec.h"
#include "engine/gguf.h"
#include "engine/model.h"

typedef struct ht_hints_layer {
    const float *expert_frequency; /* [n_expert] share of the text's tokens that chose it; NULL: not known */
    const float *frequency;        /* [n_expert][n_ff] share of the text's tokens that it fired on; NULL: not known */
    /* Look-ahead: neuron j is foreseen where (ahead_b ahead_a x)[j] >= ahead_threshold[j], x: the input of the feed-forward
     * block of the layer before. rank rows of d_model, n_ff rows of rank; host NULL: none is known. */
    ht_part ahead_a, ahead_b;
    const float *ahead_threshold; /* [n_ff] */
} ht_hints_layer;

typedef struct ht_hints {
    ht_gguf *file;
    const ht_model *m;
    uint32_t max_rank, max_n_ff; /* of layers that look ahead; 0: none does */
    ht_hints_layer *layers;      /* [m->n_layer] */
} ht_hints;

/* Reads the hints of a profile, or of a packed model. fingerprint: of the model that it must be of. What it does not hold is
 * not known; what it holds is checked. Fails: EFORMAT (damaged, or nonsense), EUNSUPPORTED (of a newer version), EMISMATCH (of
 * another model), EIO, ENOMEM. */
ht_status ht_hints_open(ht_hints **out, const char *path, const ht_model *m, const char *fingerprint, ht_error *err);
void ht_hints_close(ht_hints **h);

/* heat[layer * n_expert + e], each 0..1: how often an expert was chosen, as ht_cache_set_heat takes it; 0 where it is not
 * known, in dense layers, and behind a layer's last expert. n_expert: the most of any layer. False: of no layer known. */
bool ht_hints_heat(const ht_hints *h, uint32_t n_expert, float *heat);

/* Buffers of the look-ahead operations, the caller's, good until they are done. */
typedef struct ht_hints_work {
    ht_act low;     /* [max_rank], with room for its 8-bit form where the executor computes with one */
    float *scores;  /* [max_n_ff] */
    uint32_t *mask; /* [(max_n_ff + 31) / 32] the answer: bit n % 32 of word n / 32: neuron n of layer il is foreseen */
} ht_hints_work;
enum { HT_HINTS_OPS = 4 };
/* Operations that foresee the active neurons of layer il from x, the input of the block of layer il - 1 (one token, as that
 * block reads it). Returns how many; 0: nothing is known. Submitted beside that block they cost rank * (d_model + n_ff) bytes. */
uint32_t ht_hints_ahead(const ht_hints *h, uint32_t il, const ht_act *x, const ht_hints_work *w, ht_op ops[HT_HINTS_OPS]);

/* Whether a group of 32 neurons (what lies together in a packed file) has a foreseen one. */
static inline bool ht_hints_group(const uint32_t *mask, uint32_t group)
{
    return mask[group] != 0;
}

#endif
