/* SPDX-License-Identifier: MIT
 *
 * Predictors at run time: what a profile holds of each layer (thresholds, small matrices), ready for the executor's
 * operations. Under `--sparsity predicted` a layer's feed-forward block computes the neurons that its predictor names
 * (or whose gate is large enough) and takes the others as zero, token by token, in prompts too: so a batch split changes
 * nothing.
 *
 * Owner: ht_predict_open/close; the model outlives it, the profile's file stays open with it. Threads: read-only once
 * prepared. */
#ifndef HT_PREDICT_H
#define HT_PREDICT_H

#include "engine/base/exec.h"
#include "engine/gguf.h"
#include "engine/model.h"

/* EXACT: no predictor; what is provably zero is skipped. SIGN: engine/base/signs.h, from the gate's own signs (of the
 * up projection where there is no gate). LOW_RANK: score = b (a x). THRESHOLD: gates are computed, and neurons are left
 * out whose activated gate or hidden unit is small (ht_op_ffn.gate_least, h_least); for activations without zeros. */
typedef enum ht_predict_kind {
    HT_PREDICT_EXACT,
    HT_PREDICT_SIGN,
    HT_PREDICT_LOW_RANK,
    HT_PREDICT_THRESHOLD
} ht_predict_kind;

typedef struct ht_predict_layer {
    ht_predict_kind kind;
    const float *threshold; /* [n_expert][n_ff] of scores */
    const float *gate_least, *hidden_least; /* [n_expert], 0 or more */
    uint8_t *signs;         /* [n_expert] of signs_bytes */
    size_t signs_bytes;
    ht_part a, b; /* rank rows of d_model; n_ff rows of rank */
    bool relu;     /* score = b relu(a x) */
    bool residual; /* x is the residual stream as it stands before the block's norm */
} ht_predict_layer;

typedef struct ht_predict {
    ht_gguf *file;            /* NULL: the predictors are the model file's own */
    uint32_t n_layer, max_rank;
    bool residual;            /* of some layer */
    bool masks, thresholds;   /* which kinds there are */
    ht_predict_layer *layers;
    uint8_t *signs;
    float *own_thresholds;    /* [largest n_ff], all layers', of the file's own predictors */
    uint64_t bytes;           /* of memory beside the file's mapping */
    uint64_t bytes_per_token; /* of predictors that one token reads */
} ht_predict;

/* Reads the predictors of a profile. fingerprint: of the model that it must be of. Fails: EFORMAT (damaged, or
 * nonsense), EUNSUPPORTED (of a newer version, or with a predictor that this model cannot have), EMISMATCH (of another
 * model), EINVAL (it holds no predictor), EIO, ENOMEM. */
ht_status ht_predict_open(ht_predict **out, const char *path, const ht_model *m, const char *fingerprint,
                          ht_error *err);
/* Those that the model's file brings itself (docs/powerinfer.md); *out NULL where no layer has one. Fails: ENOMEM. */
ht_status ht_predict_own(ht_predict **out, const ht_model *m, ht_error *err);
void ht_predict_close(ht_predict **p);
/* Whether a file is a profile (or a packed model, which carries its own) that this version reads, whole, and of this model:
 * kind, version, checksum and model, in this order, for each tells more than the next. Fails as ht_predict_open does. */
ht_status ht_predict_check(const ht_gguf *g, const char *path, const char *fingerprint, ht_error *err);
/* Packs the signs that predictors need from the model's weights, by all threads of the executor. */
ht_status ht_predict_prepare(ht_predict *p, const ht_model *m, ht_exec *exec, ht_error *err);

/* Whether masks are made of it. */
static inline bool ht_predict_masks(const ht_predict_layer *l)
{
    return l->kind == HT_PREDICT_SIGN || l->kind == HT_PREDICT_LOW_RANK;
}

/* The part of an expert whose sign its neurons' activity follows. */
static inline const ht_part *ht_predict_source(const ht_ffn *ff, uint32_t expert)
{
    const ht_part *parts = ff->experts[expert];
    return parts[HT_ROLE_GATE].host ? &parts[HT_ROLE_GATE] : &parts[HT_ROLE_UP];
}

#endif
