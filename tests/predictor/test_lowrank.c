/* SPDX-License-Identifier: MIT
 * Low-rank fits: planted matrices are found, the error is the least there is, weights and inputs count. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "predictor/predictor.h"

static uint64_t seed = 5;

static float rnd(void)
{
    float sum = 0;
    for (int i = 0; i < 4; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        sum += (float)(int32_t)(seed >> 32) * 0x1p-31f;
    }
    return sum;
}

static float *floats(size_t n)
{
    float *p = malloc(n * sizeof *p);
    for (size_t i = 0; i < n; i++)
        p[i] = rnd();
    return p;
}

/* Mean square of sqrt(weight) (w x - b a x) over inputs and neurons. */
static double loss(const float *x, size_t n_x, uint32_t d, const float *w, uint32_t n, const float *weight,
                   const float *a, const float *b, uint32_t r)
{
    double sum = 0;
    float *z = malloc(r * sizeof *z);
    for (size_t t = 0; t < n_x; t++) {
        for (uint32_t i = 0; i < r; i++) {
            double s = 0;
            for (uint32_t j = 0; j < d; j++)
                s += (double)a[i * d + j] * x[t * d + j];
            z[i] = (float)s;
        }
        for (uint32_t i = 0; i < n; i++) {
            double e = 0;
            for (uint32_t j = 0; j < d; j++)
                e += (double)w[i * d + j] * x[t * d + j];
            for (uint32_t j = 0; j < r; j++)
                e -= (double)b[i * r + j] * z[j];
            sum += (weight ? weight[i] : 1) * e * e;
        }
    }
    free(z);
    return sum / ((double)n_x * n);
}

Test(lowrank, a_planted_matrix_is_found)
{
    enum { D = 40, N = 70, R = 5, X = 300 };
    float *x = floats(X * D), *u = floats(N * R), *v = floats(R * D), *w = calloc(N * D, sizeof *w), a[R * D], b[N * R];
    ht_error err;
    for (int i = 0; i < N; i++)
        for (int k = 0; k < R; k++)
            for (int j = 0; j < D; j++)
                w[i * D + j] += u[i * R + k] * v[k * D + j];
    cr_assert_eq(ht_lowrank_fit(x, X, D, w, N, NULL, R, 1, a, b, &err), HT_OK, "%s", err.text);
    memset(u, 0, N * R * sizeof *u);
    double nothing = loss(x, X, D, w, N, NULL, a, u, R);
    cr_assert_lt(loss(x, X, D, w, N, NULL, a, b, R), 1e-6 * nothing);
    /* unit second moments of a x */
    for (int i = 0; i < R; i++) {
        double sum = 0;
        for (int t = 0; t < X; t++) {
            double z = 0;
            for (int j = 0; j < D; j++)
                z += (double)a[i * D + j] * x[t * D + j];
            sum += z * z;
        }
        cr_assert_float_eq(sum / X, 1, 0.02);
    }
    free(x), free(u), free(v), free(w);
}

/* No other matrices of that rank do better: those of the fit, moved a little in any direction, do worse; more rank does
 * better. */
Test(lowrank, the_error_is_the_least)
{
    enum { D = 24, N = 50, R = 6, X = 400 };
    float *x = floats(X * D), *w = floats(N * D), *weight = floats(N), a[2 * R * D], b[2 * R * N];
    ht_error err;
    for (int t = 0; t < X; t++) /* inputs with strong and weak directions */
        for (int j = 0; j < D; j++)
            x[t * D + j] *= expf(-0.2f * j);
    for (int i = 0; i < N; i++)
        weight[i] = i % 3 ? 0.1f : 4.0f;
    cr_assert_eq(ht_lowrank_fit(x, X, D, w, N, weight, R, 1, a, b, &err), HT_OK, "%s", err.text);
    double best = loss(x, X, D, w, N, weight, a, b, R);
    for (int trial = 0; trial < 40; trial++) {
        float a2[R * D], b2[N * R];
        float step = trial % 2 ? 0.02f : 0.1f;
        for (int i = 0; i < R * D; i++)
            a2[i] = a[i] * (1 + step * rnd());
        for (int i = 0; i < N * R; i++)
            b2[i] = b[i] * (1 + step * rnd());
        cr_assert_gt(loss(x, X, D, w, N, weight, a2, b2, R), 0.9999 * best);
    }
    /* the truncation without regard to inputs and weights, as a plain fit with white inputs gives, is no better */
    float *white = calloc(D * D, sizeof *white);
    for (int i = 0; i < D; i++)
        white[i * D + i] = 1;
    float pa[R * D], pb[N * R];
    cr_assert_eq(ht_lowrank_fit(white, D, D, w, N, NULL, R, 1, pa, pb, &err), HT_OK, "%s", err.text);
    cr_assert_gt(loss(x, X, D, w, N, weight, pa, pb, R), 1.2 * best);
    cr_assert_eq(ht_lowrank_fit(x, X, D, w, N, weight, 2 * R, 1, a, b, &err), HT_OK, "%s", err.text);
    cr_assert_lt(loss(x, X, D, w, N, weight, a, b, 2 * R), 0.5 * best);
    free(x), free(w), free(weight), free(white);
}

Test(lowrank, what_makes_no_sense_is_refused)
{
    float x[8] = { 0 }, w[8] = { 1 }, a[8], b[8];
    ht_error err;
    cr_assert_eq(ht_lowrank_fit(x, 2, 4, w, 2, NULL, 3, 1, a, b, &err), HT_EINVAL, "a rank beyond the matrix");
    cr_assert_eq(ht_lowrank_fit(x, 2, 4, w, 2, NULL, 0, 1, a, b, &err), HT_EINVAL);
    cr_assert_eq(ht_lowrank_fit(x, 0, 4, w, 2, NULL, 1, 1, a, b, &err), HT_EINVAL);
    cr_assert_eq(ht_lowrank_fit(x, 2, 4, w, 2, NULL, 1, 1, a, b, &err), HT_EINVAL, "inputs that are all zero");
    x[0] = NAN;
    cr_assert_eq(ht_lowrank_fit(x, 2, 4, w, 2, NULL, 1, 1, a, b, &err), HT_EINVAL);
    cr_assert_eq(ht_lookahead_fit(x, x, 2, 4, w, 2, NULL, 1, 1, a, b, &err), HT_EINVAL);
}

/* x = T before + noise: w x is then best guessed by w T, and by matrices of a rank that is less the better the more rank. */
Test(lowrank, looking_ahead)
{
    enum { D = 20, N = 30, X = 4000 };
    float *before = floats(X * D), *x = floats(X * D), *t = floats(D * D), *w = floats(N * D), *guess = calloc(N * D, sizeof *guess);
    float *a = malloc(D * D * sizeof *a), *b = malloc(N * D * sizeof *b);
    double last = INFINITY;
    ht_error err;
    for (int i = 0; i < X; i++)
        for (int r = 0; r < D; r++) {
            double s = 0.1 * x[i * D + r];
            for (int c = 0; c < D; c++)
                s += (double)t[r * D + c] * before[i * D + c];
            x[i * D + r] = (float)s;
        }
    for (int i = 0; i < N; i++)
        for (int c = 0; c < D; c++)
            for (int r = 0; r < D; r++)
                guess[i * D + c] += w[i * D + r] * t[r * D + c];
    for (uint32_t rank = 5; rank <= D; rank += 5) {
        cr_assert_eq(ht_lookahead_fit(before, x, X, D, w, N, NULL, rank, 1, a, b, &err), HT_OK, "%s", err.text);
        const double now = loss(before, X, D, guess, N, NULL, a, b, rank);
        cr_assert_lt(now, last, "rank %u: %g after %g", rank, now, last);
        last = now;
    }
    for (int i = 0; i < N; i++) /* all of it */
        for (int c = 0; c < D; c++) {
            double got = 0;
            for (int r = 0; r < D; r++)
                got += (double)b[i * D + r] * a[r * D + c];
            cr_assert_float_eq(got, guess[i * D + c], 0.15, "%d, %d: %g not %g", i, c, got, (double)guess[i * D + c]);
        }
    free(before), free(x), free(t), free(w), free(guess), free(a), free(b);
}
