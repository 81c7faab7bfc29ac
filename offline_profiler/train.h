/* SPDX-License-Identifier: MIT
 *
 * Training of predictors, in three steps: samples of what feed-forward blocks read and gave (train_sample.c),
 * predictors of every layer and what they would cost and miss at each price (train_fit.c), and the search for the price
 * (train.c) by scoring held-out text (train_score.c). Memory: each object frees its own. Threads: one. */
#ifndef HT_TRAIN_H
#define HT_TRAIN_H

#include "engine/base/status.h"
#include "offline_profiler/profile.h"
#include "predictor/predictor.h"

/* ---- Samples ---- */

typedef struct ht_sample_layer {
    float *input;     /* [tokens][d] */
    double *hh;       /* [n_expert][n_ff] sums of squared hidden units */
    uint32_t *chosen; /* [tokens][n_used] experts */
    float *hidden;    /* [tokens][n_used][n_ff], where that was asked for; of a dense block [tokens][n_ff] */
    hearth_block_info block;
} ht_sample_layer;

typedef struct ht_samples {
    uint32_t n_layer, d, tokens, room; /* tokens: that were taken */
    ht_sample_layer *layers;
    uint32_t skip;  /* tokens at the beginning of the pass that do not count: BOS */
    uint32_t begun; /* tokens before the window at hand */
} ht_samples;

/* Runs text windows, evenly spread, until `room` tokens are sampled. hidden: keeps hidden units too. */
hearth_status ht_samples_take(ht_samples *s, hearth_model *m, uint32_t room, bool hidden, const char *text, size_t n,
                              hearth_progress_fn *progress, void *user, hearth_error *err);
void ht_samples_free(ht_samples *s);

/* ---- Fits ---- */

enum { HT_PRICES = 13 };

/* What a predictor of a layer does at a price, per token and neuron of the experts chosen. */
typedef struct ht_trade {
    double predicted; /* share of neurons predicted */
    double missed;    /* share of the block's output energy that is missed */
    ht_mask_quality quality;
} ht_trade;

typedef struct ht_fit {
    const char *method; /* "sign" or "lowrank" */
    uint32_t rank;
    ht_estimate *estimate; /* [n_expert][n_ff] */
    float *low_a, *low_b;
    double bytes; /* of the predictor, read per token */
    ht_trade trade[HT_PRICES];
} ht_fit;

enum { HT_FITS = 4 };

typedef struct ht_fit_layer {
    uint32_t n_fits;
    ht_fit fits[HT_FITS];
    double *value;    /* [n_expert][n_ff] */
    uint32_t *tokens; /* [n_expert] that the expert was learnt from */
    double energy;    /* mean square of the block's output that one neuron adds to a token */
    double cut;
    int power;
    double row_bytes, neurons; /* of a neuron that is computed; neurons of the experts chosen */
    double rest; /* rows that an active neuron takes besides the one that is looked at: up and down, or down */
} ht_fit_layer;

/* Price k of the grid, times the layer's energy. */
double ht_price(uint32_t k);
ht_status ht_fit_layer_make(ht_fit_layer *f, hearth_model *m, const ht_samples *s, uint32_t layer, ht_error *err);
void ht_fit_layer_free(ht_fit_layer *f);
/* The threshold of a neuron at a price (times the layer's energy): what is hardly known is always computed. */
float ht_fit_threshold(const ht_fit_layer *f, const ht_fit *fit, uint32_t expert, size_t neuron, double price);
/* A trade between those of the grid. */
ht_trade ht_fit_at(const ht_fit *f, double price);

/* ---- Scores ---- */

typedef struct ht_scorer {
    uint32_t n_vocab, n_tokens, window;
    hearth_token *ids;
    bool bos;
    hearth_token bos_id;
    float *logits; /* [n_tokens][n_vocab] of the dense model, as logarithms of probabilities */
    uint32_t *best;
    bool (*go_on)(void *user); /* asked for every window; NULL: always */
    void *user;
} ht_scorer;

/* go_on and user are set by the caller before, everything else is zero. */
hearth_status ht_scorer_open(ht_scorer *s, hearth_model *dense, uint64_t most, const char *text, size_t n,
                             hearth_error *err);
void ht_scorer_close(ht_scorer *s);
typedef struct ht_score {
    double kl_mean, kl_p99, agreement, bytes;
    ht_mask_quality quality;
} ht_score;
/* Bytes of weights that a token reads which is computed alone: with one thread they depend on nothing else. */
hearth_status ht_scorer_bytes(const ht_scorer *s, hearth_model *m, double *bytes, hearth_error *err);
/* tokens: how many of the text, at most. `bytes` is 0. */
hearth_status ht_scorer_run(const ht_scorer *s, hearth_model *m, uint32_t tokens, ht_score *out, hearth_error *err);

/* ---- The search, what its two kinds share (train.c) ---- */

enum { HT_PROBE_TOKENS = 1024 };

typedef struct ht_search {
    hearth_profile *p;
    hearth_model *m;
    const char *path;
    hearth_train_params params;
    ht_fit_layer *layers;
    double *cost; /* [layer] loss per share of the layer's energy that is missed */
    ht_scorer scorer;
    float **threshold; /* [layer] of the trial at hand, owned by the profile */
    ht_error *err;
    uint32_t done, trials, d_model; /* trials: all that there will be */
} ht_search;

/* Progress; false: the caller cancelled, and err says so. */
bool ht_search_told(ht_search *s, const char *what, uint32_t done, uint32_t of);
/* Scores the profile as it stands. The bytes are counted with one thread: how rows are shared out moves them a little,
 * and a profile must not depend on it. */
hearth_status ht_search_trial(ht_search *s, uint32_t tokens, bool bytes, ht_score *score);
bool ht_search_good(const ht_search *s, const ht_score *r);
hearth_profile_point ht_search_point(const ht_score *r, double dense_bytes);
/* Sorts the points by bytes, and chooses the one that is like `best`. */
void ht_search_conclude(hearth_profile *p, hearth_profile_point best);
/* Layers without a measured cost (negative) take the mean; noise must not make one free. */
void ht_search_even_costs(double *cost, uint32_t n_layer);

/* ---- Thresholds (train_threshold.c, threshold_surface.c) ---- */

/* One layer's blocks: what cutting at levels of |act(gate)| and of |hidden unit| leaves and misses. */
typedef struct ht_cuts {
    ht_surface surface;
    float *gate, *hidden; /* [n_expert][HT_CUT_LEVELS] thresholds of the levels; an expert that is hardly known: 0 */
} ht_cuts;
enum { HT_CUT_LEVELS = 20 }; /* level k leaves out k / 20 of what is not zero */

ht_status ht_cuts_make(ht_cuts *c, hearth_model *m, const ht_samples *s, uint32_t layer, ht_error *err);
void ht_cuts_free(ht_cuts *c);
/* Between levels thresholds are interpolated. */
float ht_cut_at(const float *levels, double level);
hearth_status ht_search_thresholds(ht_search *s, const char *text, size_t n, const char *held_out, size_t n_held_out);

#endif
