/* SPDX-License-Identifier: MIT
 *
 * Low-rank predictors: activation-aware singular value decomposition by subspace iteration; see predictor.h. Loops are
 * over rows with the innermost one along memory, which compilers vectorise without reordering a sum. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "predictor/predictor.h"

enum { SPARE = 8 /* directions beyond the rank */, ROUNDS = 4, SWEEPS = 30 };
static const double least_ridge = 1e-4, ridge_share = 0.05; /* of the mean variance; times d / n_x where inputs are few */

static float *zeros(size_t n)
{
    return calloc(n ? n : 1, sizeof(float));
}

static void axpy(float a, const float *x, float *y, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] += a * x[i];
}

static double dot(const float *x, const float *y, size_t n)
{
    double sum[4] = { 0 };

    for (size_t i = 0; i < n; i++)
        sum[i % 4] += (double)x[i] * y[i];
    return sum[0] + sum[1] + sum[2] + sum[3];
}

void ht_multiply(const float *a, const float *b, float *y, size_t m, size_t k, size_t n)
{
    for (size_t i = 0; i < m; i++) {
        memset(y + i * n, 0, n * sizeof *y);
        for (size_t j = 0; j < k; j++)
            axpy(a[i * k + j], b + j * n, y + i * n, n);
    }
}

/* y [k][n] += a' b for a row block: a [m][k] with weights per row, b [m][n]. */
static void multiply_transposed(const float *a, const float *b, const float *weight, float *y, size_t m, size_t k,
                                size_t n)
{
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < k; j++)
            axpy((weight ? weight[i] : 1.0f) * a[i * k + j], b + i * n, y + j * n, n);
}

/* c [d][d] = x' y / n_x */
static void moments(const float *x, const float *y, size_t n_x, uint32_t d, float *c)
{
    memset(c, 0, (size_t)d * d * sizeof *c);
    multiply_transposed(x, y, NULL, c, n_x, d, d);
    for (size_t i = 0; i < (size_t)d * d; i++)
        c[i] /= (float)n_x;
}

/* c = l l', in place, l lower triangular, after a ridge on the diagonal (a share of its mean). False: not positive. */
static bool cholesky(float *c, uint32_t d, double ridge)
{
    double trace = 0;

    for (uint32_t i = 0; i < d; i++)
        trace += c[(size_t)i * d + i];
    if (!(trace > 0) || !isfinite(trace))
        return false;
    for (uint32_t i = 0; i < d; i++)
        c[(size_t)i * d + i] += (float)(ridge * trace / d);
    for (uint32_t i = 0; i < d; i++) {
        float *row = c + (size_t)i * d;
        for (uint32_t j = 0; j <= i; j++) {
            double v = row[j] - dot(row, c + (size_t)j * d, j);
            if (j < i)
                row[j] = (float)(v / c[(size_t)j * d + j]);
            else if (v > 0)
                row[j] = (float)sqrt(v);
            else
                return false;
        }
        memset(row + i + 1, 0, (d - i - 1) * sizeof *row);
    }
    return true;
}

/* v [d][r] becomes l^-1 v. */
static void solve(const float *l, float *v, uint32_t d, uint32_t r)
{
    for (uint32_t i = 0; i < d; i++) {
        float *row = v + (size_t)i * r;
        for (uint32_t j = 0; j < i; j++)
            axpy(-l[(size_t)i * d + j], v + (size_t)j * r, row, r);
        for (uint32_t c = 0; c < r; c++)
            row[c] /= l[(size_t)i * d + i];
    }
}

/* v [d][r] becomes l'^-1 v. */
static void solve_transposed(const float *l, float *v, uint32_t d, uint32_t r)
{
    for (uint32_t i = d; i-- > 0;) {
        float *row = v + (size_t)i * r;
        for (uint32_t c = 0; c < r; c++)
            row[c] /= l[(size_t)i * d + i];
        for (uint32_t j = 0; j < i; j++)
            axpy(-l[(size_t)i * d + j], row, v + (size_t)j * r, r);
    }
}

/* The rows of q [r][d] become orthonormal; one that the others span becomes zero. */
static void orthonormalise(float *q, uint32_t r, uint32_t d)
{
    for (uint32_t i = 0; i < r; i++) {
        float *row = q + (size_t)i * d;
        double before = sqrt(dot(row, row, d));
        for (int twice = 0; twice < 2; twice++)
            for (uint32_t j = 0; j < i; j++)
                axpy((float)-dot(row, q + (size_t)j * d, d), q + (size_t)j * d, row, d);
        double norm = sqrt(dot(row, row, d));
        for (uint32_t c = 0; c < d; c++)
            row[c] = norm > 1e-5 * before ? (float)(row[c] / norm) : 0.0f;
    }
}

static void transpose(const float *a, float *t, size_t m, size_t n)
{
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++)
            t[j * m + i] = a[i * n + j];
}

/* Eigenvectors of the symmetric s [r][r] by cyclic Jacobi rotations: rows of u, values on the diagonal of s. */
static void jacobi(double *s, double *u, uint32_t r)
{
    for (uint32_t i = 0; i < r; i++)
        for (uint32_t j = 0; j < r; j++)
            u[i * r + j] = i == j;
    for (int sweep = 0; sweep < SWEEPS; sweep++) {
        double off = 0, all = 0;
        for (uint32_t i = 0; i < r; i++)
            for (uint32_t j = 0; j < r; j++)
                *(i == j ? &all : &off) += s[i * r + j] * s[i * r + j];
        if (off <= 1e-18 * all)
            return;
        for (uint32_t p = 0; p + 1 < r; p++)
            for (uint32_t q = p + 1; q < r; q++) {
                double apq = s[p * r + q];
                if (fabs(apq) < 1e-300)
                    continue;
                double theta = (s[q * r + q] - s[p * r + p]) / (2 * apq);
                double t = (theta >= 0 ? 1 : -1) / (fabs(theta) + sqrt(theta * theta + 1));
                double c = 1 / sqrt(t * t + 1), n = t * c;
                for (uint32_t k = 0; k < r; k++) {
                    double a = s[k * r + p], b = s[k * r + q];
                    s[k * r + p] = c * a - n * b;
                    s[k * r + q] = n * a + c * b;
                }
                for (uint32_t k = 0; k < r; k++) {
                    double a = s[p * r + k], b = s[q * r + k];
                    s[p * r + k] = c * a - n * b;
                    s[q * r + k] = n * a + c * b;
                    a = u[p * r + k], b = u[q * r + k];
                    u[p * r + k] = c * a - n * b;
                    u[q * r + k] = n * a + c * b;
                }
            }
    }
}

/* What one fit works with: w [n][d], l [d][d], q [r][d] the subspace, lq [d][r] = l q', p [n][r] = w l q'. */
typedef struct fit {
    const float *w, *weight;
    uint32_t n, d, r;
    float *l, *q, *qt, *lq, *p;
} fit;

static void project(fit *f)
{
    transpose(f->q, f->qt, f->r, f->d);
    ht_multiply(f->l, f->qt, f->lq, f->d, f->d, f->r);
    ht_multiply(f->w, f->lq, f->p, f->n, f->d, f->r);
}

/* q = (l' w' weight p)': one application of the matrix whose eigenvectors are wanted. */
static void apply(fit *f)
{
    project(f);
    memset(f->lq, 0, (size_t)f->r * f->d * sizeof *f->lq);
    multiply_transposed(f->w, f->p, f->weight, f->lq, f->n, f->d, f->r);
    memset(f->qt, 0, (size_t)f->r * f->d * sizeof *f->qt);
    multiply_transposed(f->l, f->lq, NULL, f->qt, f->d, f->d, f->r);
    transpose(f->qt, f->q, f->d, f->r);
}

/* The directions of the subspace turned to singular vectors, largest first. False: out of memory. */
static bool align(fit *f)
{
    const uint32_t r = f->r;
    double *s = calloc((size_t)r * r, sizeof *s), *u = calloc((size_t)r * r, sizeof *u);
    float *turned = zeros((size_t)r * f->d);
    bool *taken = calloc(r, sizeof *taken), ok = s && u && turned && taken;

    if (ok) {
        project(f);
        for (uint32_t t = 0; t < f->n; t++)
            for (uint32_t i = 0; i < r; i++) {
                double a = (f->weight ? f->weight[t] : 1.0f) * f->p[(size_t)t * r + i];
                for (uint32_t j = 0; j < r; j++)
                    s[i * r + j] += a * f->p[(size_t)t * r + j];
            }
        jacobi(s, u, r);
        for (uint32_t k = 0; k < r; k++) {
            uint32_t best = UINT32_MAX;
            for (uint32_t i = 0; i < r; i++)
                if (!taken[i] && (best == UINT32_MAX || s[i * r + i] > s[best * r + best]))
                    best = i;
            taken[best] = true;
            for (uint32_t i = 0; i < r; i++)
                axpy((float)u[best * r + i], f->q + (size_t)i * f->d, turned + (size_t)k * f->d, f->d);
        }
        memcpy(f->q, turned, (size_t)r * f->d * sizeof *turned);
        project(f);
    }
    free(s);
    free(u);
    free(turned);
    free(taken);
    return ok;
}

static float normal(uint64_t *seed) /* near enough: the sum of twelve uniform numbers */
{
    double sum = -6;

    for (int i = 0; i < 12; i++) {
        *seed = *seed * 6364136223846793005u + 1442695040888963407u;
        sum += (double)(*seed >> 11) * 0x1p-53;
    }
    return (float)sum;
}

ht_status ht_lowrank_fit(const float *x, size_t n_x, uint32_t d, const float *w, uint32_t n, const float *weight,
                         uint32_t rank, uint64_t seed, float *a, float *b, ht_error *err)
{
    const uint32_t least = n < d ? n : d;
    fit f = { .w = w, .weight = weight, .n = n, .d = d, .r = rank + SPARE < least ? rank + SPARE : least };
    ht_status st = HT_OK;

    if (rank == 0 || rank > least || n_x == 0)
        return ht_fail(err, HT_EINVAL, "a predictor of rank %u for %u neurons of %u inputs", rank, n, d);
    f.l = zeros((size_t)d * d);
    f.lq = zeros((size_t)f.r * d);
    f.q = zeros((size_t)f.r * d);
    f.qt = zeros((size_t)f.r * d);
    f.p = zeros((size_t)n * f.r);
    if (!f.l || !f.lq || !f.q || !f.qt || !f.p) {
        st = ht_fail(err, HT_ENOMEM, "a predictor of rank %u for %u neurons", rank, n);
        goto end;
    }
    moments(x, x, n_x, d, f.l);
    if (!cholesky(f.l, d, least_ridge)) {
        st = ht_fail(err, HT_EINVAL, "the inputs of a layer are zero or not finite");
        goto end;
    }
    for (size_t i = 0; i < (size_t)f.r * d; i++)
        f.q[i] = normal(&seed);
    for (int round = 0; round < ROUNDS; round++) {
        orthonormalise(f.q, f.r, d);
        apply(&f);
    }
    orthonormalise(f.q, f.r, d);
    if (!align(&f)) {
        st = ht_fail(err, HT_ENOMEM, "a predictor of rank %u", rank);
        goto end;
    }
    for (uint32_t i = 0; i < n; i++)
        memcpy(b + (size_t)i * rank, f.p + (size_t)i * f.r, rank * sizeof *b);
    transpose(f.q, f.qt, f.r, d);
    solve_transposed(f.l, f.qt, d, f.r);
    for (uint32_t i = 0; i < rank; i++)
        for (uint32_t j = 0; j < d; j++)
            a[(size_t)i * d + j] = f.qt[(size_t)j * f.r + i];
end:
    free(f.l);
    free(f.lq);
    free(f.q);
    free(f.qt);
    free(f.p);
    return st;
}

ht_status ht_lookahead_fit(const float *before, const float *x, size_t n_x, uint32_t d, const float *w, uint32_t n,
                           const float *weight, uint32_t rank, uint64_t seed, float *a, float *b, ht_error *err)
{
    float *c = zeros((size_t)d * d), *map = zeros((size_t)d * d), *guess = zeros(n_x * d);
    float *of_x = zeros((size_t)rank * d);
    ht_status st = HT_OK;

    if (!c || !map || !guess || !of_x) {
        st = ht_fail(err, HT_ENOMEM, "a look-ahead predictor of %u inputs", d);
        goto end;
    }
    if (n_x)
        moments(before, before, n_x, d, c);
    if (!n_x || !cholesky(c, d, least_ridge + ridge_share * d / (double)n_x)) {
        st = ht_fail(err, HT_EINVAL, "the inputs of a layer are zero or not finite");
        goto end;
    }
    moments(before, x, n_x, d, map); /* (l l')^-1 E[before x'], rows of `before` */
    solve(c, map, d, d);
    solve_transposed(c, map, d, d);
    ht_multiply(before, map, guess, n_x, d, d);
    if ((st = ht_lowrank_fit(guess, n_x, d, w, n, weight, rank, seed, of_x, b, err)) != HT_OK)
        goto end;
    for (uint32_t i = 0; i < rank; i++) /* a = of_x map' */
        for (uint32_t j = 0; j < d; j++)
            a[(size_t)i * d + j] = (float)dot(of_x + (size_t)i * d, map + (size_t)j * d, d);
end:
    free(c);
    free(map);
    free(guess);
    free(of_x);
    return st;
}
