/* SPDX-License-Identifier: MIT
 * Accuracy of engine/base/vmath.h against double libm, the limits that its comments promise, and special values. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>

#include "engine/base/vmath.h"

static double d_sigmoid(double x) { return 1.0 / (1.0 + exp(-x)); }
static double d_silu(double x) { return x / (1.0 + exp(-x)); }
static double d_softplus(double x) { return x > 20.0 ? x : log1p(exp(x)); }
static double d_gelu_erf(double x) { return 0.5 * x * erfc(-x / sqrt(2.0)); }
static double d_gelu_tanh(double x) { return x / (1.0 + exp(-2.0 * 0.7978845608028654 * (x + 0.044715 * x * x * x))); }

/* Distance in units of the last place of the right float. */
static double ulps(float got, double want)
{
    int e;
    frexp(want, &e);
    double u = ldexp(1.0, e - 24 > -149 ? e - 24 : -149);
    return fabs((double)got - want) / u;
}

typedef struct accuracy {
    const char *name;
    float (*f)(float);
    double (*d)(double);
    float lo, hi;
    double ulp; /* at most; 0: not asked */
    double abs;
} accuracy;

Test(vmath, accuracy)
{
    static const accuracy rows[] = {
        { "exp", ht_expf, exp, -87.33f, 88.72f, 1.0, 0 },
        { "exp", ht_expf, exp, -1.0f, 1.0f, 0.9, 2e-7 },
        { "tanh", ht_tanhf, tanh, -10.0f, 10.0f, 1.5, 1e-7 },
        { "tanh", ht_tanhf, tanh, -1e-3f, 1e-3f, 0.6, 0 },
        { "tanh", ht_tanhf, tanh, -1e-30f, 1e-30f, 0.6, 0 },
        { "sigmoid", ht_sigmoidf, d_sigmoid, -87.0f, 87.0f, 2.5, 1e-7 },
        { "silu", ht_siluf, d_silu, -87.0f, 87.0f, 2.5, 0 },
        { "gelu_tanh", ht_gelu_tanhf, d_gelu_tanh, -1.0f, 10.0f, 6.0, 5.5e-7 },
        { "gelu_tanh", ht_gelu_tanhf, d_gelu_tanh, -10.0f, 4.0f, 0, 4e-7 },
        { "gelu_erf", ht_gelu_erff, d_gelu_erf, -1.0f, 10.0f, 5.0, 2.5e-7 },
        { "gelu_erf", ht_gelu_erff, d_gelu_erf, -13.0f, 4.0f, 0, 2.5e-7 },
        { "log1p", ht_log1pf, log1p, -0.999f, 10.0f, 1.0, 0 },
        { "log1p", ht_log1pf, log1p, -1e-3f, 1e-3f, 1.0, 0 },
        { "log1p", ht_log1pf, log1p, -1e-30f, 1e-30f, 1.0, 0 },
        { "log1p", ht_log1pf, log1p, 1.0f, 1e30f, 1.0, 0 },
        { "softplus", ht_softplusf, d_softplus, -80.0f, 30.0f, 2.0, 0 },
    };
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        const accuracy *a = &rows[r];
        double worst = 0.0, worst_abs = 0.0;
        float at = 0.0f;
        enum { N = 300000 };
        for (int i = 0; i <= N; i++) {
            float x = (float)(a->lo + ((double)a->hi - a->lo) * i / N);
            float y = a->f(x);
            double want = a->d(x), u = ulps(y, want);
            if (u > worst) worst = u, at = x;
            if (fabs(y - want) > worst_abs) worst_abs = fabs(y - want);
        }
        cr_expect(a->ulp == 0 || worst <= a->ulp, "row %zu, %s: %.2f ulp at %a", r, a->name, worst, (double)at);
        cr_expect(a->abs == 0 || worst_abs <= a->abs, "row %zu, %s: %g off", r, a->name, worst_abs);
    }
}

Test(vmath, special_values)
{
    cr_assert(ht_expf(0.0f) == 1.0f && ht_expf(-0.0f) == 1.0f);
    cr_assert(ht_expf(-87.34f) == 0.0f && ht_expf(-1e30f) == 0.0f && ht_expf(-INFINITY) == 0.0f);
    cr_assert(ht_expf(-87.33f) > 0.0f && ht_expf(88.72f) < INFINITY);
    cr_assert(ht_expf(88.73f) == INFINITY && ht_expf(1e30f) == INFINITY && ht_expf(INFINITY) == INFINITY);
    cr_assert(ht_tanhf(INFINITY) == 1.0f && ht_tanhf(-INFINITY) == -1.0f && ht_tanhf(50.0f) == 1.0f);
    cr_assert(ht_tanhf(0.0f) == 0.0f && signbit(ht_tanhf(-0.0f)));
    cr_assert(ht_sigmoidf(INFINITY) == 1.0f && ht_sigmoidf(-INFINITY) == 0.0f && ht_sigmoidf(0.0f) == 0.5f);
    cr_assert(ht_siluf(0.0f) == 0.0f && ht_siluf(1e30f) == 1e30f && ht_siluf(-1e30f) == 0.0f);
    cr_assert(ht_gelu_tanhf(0.0f) == 0.0f && ht_gelu_tanhf(1e4f) == 1e4f && ht_gelu_tanhf(-1e4f) == 0.0f);
    cr_assert(ht_gelu_erff(0.0f) == 0.0f && ht_gelu_erff(1e4f) == 1e4f && ht_gelu_erff(-1e4f) == 0.0f);
    cr_assert(ht_log1pf(-1.0f) == -INFINITY && isnan(ht_log1pf(-1.5f)) && ht_log1pf(INFINITY) == INFINITY);
    cr_assert(ht_softplusf(20.5f) == 20.5f && ht_softplusf(-INFINITY) == 0.0f && ht_softplusf(INFINITY) == INFINITY);
    float (*const all[])(float) = { ht_expf, ht_tanhf, ht_sigmoidf, ht_siluf, ht_gelu_tanhf, ht_gelu_erff, ht_log1pf,
                                    ht_softplusf };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        for (int sign = -1; sign <= 1; sign += 2)
            cr_expect(isnan(all[i](copysignf(NAN, (float)sign))), "function %zu loses NaN", i);
}
