/* SPDX-License-Identifier: MIT
 *
 * Predictors: which neurons of a feed-forward block a token needs, guessed from the block's input. Here is what is
 * learnt offline, in plain C; at run time a predictor is operations of an executor (products, HT_OP_PREDICT).
 *
 *  - sign: score = <signs of the neuron's gate row, four-bit input> (engine/base/signs.h). Nothing is trained but
 * thresholds.
 *  - low rank: score = B (A x), two small matrices that approximate the gate where inputs really lie.
 *  - look ahead: the same from the input of the layer before, for fetching early.
 *
 * All of them estimate the neuron's pre-activation g (its gate's value, or its up value where there is no gate), and
 * all are cut by the same rule: leave a neuron out where what it is expected to add to the block's output, squared, is
 * worth less than a price. docs/predictors.md derives it.
 *
 * Owner: the caller owns all memory; functions that need scratch allocate and free it and return HT_ENOMEM. Threads:
 * any; no shared state. */
#ifndef HT_PREDICTOR_H
#define HT_PREDICTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/base/status.h"

/* ---- Thresholds -------------------------------------------------------------------------------------------------- */

/* Running sums over tokens of one neuron's score s and pre-activation g. Zero to begin. */
typedef struct ht_moments {
    double n, s, g, ss, gg, sg;
} ht_moments;

static inline void ht_moments_add(ht_moments *m, double s, double g)
{
    m->n += 1;
    m->s += s;
    m->g += g;
    m->ss += s * s;
    m->gg += g * g;
    m->sg += s * g;
}

/* g given s: normal about slope * s + offset, with deviation sigma. */
typedef struct ht_estimate {
    float slope, offset, sigma;
} ht_estimate;

/* The regression of g on s. Fewer than two tokens or a constant score: slope 0. */
ht_estimate ht_estimate_fit(const ht_moments *m);

/* E[max(0, z + normal)^(2 power)], power 1 (ReLU) or 2 (ReLU squared): what a neuron with estimate z is expected to
 * add, squared, in units of sigma^(2 power). Increasing in z. */
double ht_expected_square(double z, int power);

/* The least score at which a neuron is worth `price`: value * E[max(0, g - cut)^(2 power)] >= price. value: mean square
 * that the neuron adds to the output per unit of max(0, g - cut)^(2 power); cut: FATReLU's threshold, else 0.
 * -INFINITY: always worth it, INFINITY: never. A neuron whose score tells nothing (slope <= 0) is always or never. */
float ht_threshold(const ht_estimate *e, double value, double price, double cut, int power);

/* How a mask did. */
typedef struct ht_mask_quality {
    uint64_t neurons, active, predicted, hit; /* hit: active and predicted */
} ht_mask_quality;
static inline double ht_mask_recall(const ht_mask_quality *q)
{
    return q->active ? (double)q->hit / (double)q->active : 1.0;
}
static inline double ht_mask_precision(const ht_mask_quality *q)
{
    return q->predicted ? (double)q->hit / (double)q->predicted : 1.0;
}

/* ---- Densities of blocks whose activation has no zeros ------------------------------------------------------------ */

/* What a block gives up where small neurons are left out, on a grid of two thresholds' levels: of the gate, which saves up
 * rows and down columns (CATS, arXiv:2404.08763), and of the hidden unit, which saves down columns (TEAL,
 * arXiv:2408.14690). Level 0 leaves out nothing. */
typedef struct ht_surface {
    uint32_t n_gate, n_hidden;   /* levels, level 0 with them; n_gate 1: a block without a gate */
    double neurons;              /* that a token computes: the weight of its density */
    double up_bytes, down_bytes; /* of a neuron; up_bytes 0 without a gate */
    double cost;                 /* loss per error, positive */
    double *rows;                /* [n_gate] share of neurons whose up rows are read */
    double *density;             /* [n_gate][n_hidden] share of hidden units that are not zero; decreasing */
    double *error;               /* [n_gate][n_hidden] of the block's output, squared, as a share of its energy */
} ht_surface;

/* Levels, between two of the grid where they are no whole numbers. */
typedef struct ht_level {
    double gate, hidden;
} ht_level;

/* Levels of n blocks at which the mean density is `density`: greedily, always the step that costs least loss per byte
 * that it saves (TEAL, section 4.3, algorithm 1, which takes steps of equal bytes); the last step goes as far as
 * needed. A density that the grid does not reach: all last levels. */
void ht_allocate(const ht_surface *s, uint32_t n, double density, ht_level *level);
/* A grid between its points, linear; the share of up rows. */
double ht_surface_at(const ht_surface *s, const double *grid, ht_level at);
double ht_surface_rows(const ht_surface *s, double gate);

/* ---- Matrices, low rank ---------------------------------------------------------------------------------------------------- */

/* y [m][n] = a [m][k] b [k][n] */
void ht_multiply(const float *a, const float *b, float *y, size_t m, size_t k, size_t n);

/* A [rank][d], B [n][rank] with the least sum over neurons of weight * E[(g - B A x)^2] over the n_x inputs x
 * [n_x][d], where g = w x, w [n][d]: the truncated singular value decomposition of diag(sqrt(weight)) w L, L the
 * Cholesky factor of the inputs' second moments (activation-aware SVD: ASVD, arXiv:2312.05821; SVD-LLM,
 * arXiv:2403.07378, section 3.1), found by subspace iteration (Halko, Martinsson, Tropp, SIAM Review 53, 2011,
 * algorithm 4.4). A x has unit second moments. weight NULL: 1. rank <= min(n, d). `seed` draws the first subspace. */
ht_status ht_lowrank_fit(const float *x, size_t n_x, uint32_t d, const float *w, uint32_t n, const float *weight,
                         uint32_t rank, uint64_t seed, float *a, float *b, ht_error *err);

/* A [rank][d], B [n][rank] for which B A before is nearest to w x, where `before` [n_x][d] are the inputs of the layer before
 * that whose inputs are x [n_x][d]: the regression of x on `before` (with a ridge, the larger the fewer inputs there are), and
 * ht_lowrank_fit of w over what it guesses, taken back through it: reduced-rank regression (Izenman, Journal of Multivariate
 * Analysis 5, 1975). The other arguments and errors are those of ht_lowrank_fit. Memory: three matrices of d x d, and a copy of x. */
ht_status ht_lookahead_fit(const float *before, const float *x, size_t n_x, uint32_t d, const float *w, uint32_t n,
                           const float *weight, uint32_t rank, uint64_t seed, float *a, float *b, ht_error *err);

#endif
