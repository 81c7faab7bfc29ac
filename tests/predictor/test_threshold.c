/* SPDX-License-Identifier: MIT
 * Thresholds: the regression, what neurons are expected to add, and where they are cut. */
#include <criterion/criterion.h>
#include <math.h>

#include "predictor/predictor.h"

static uint64_t seed = 11;

static double uniform(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (double)(seed >> 11) * 0x1p-53;
}

static double normal(void)
{
    double u = 1 - uniform();
    return sqrt(-2 * log(u)) * cos(6.283185307179586 * uniform());
}

Test(threshold, regression_finds_what_was_planted)
{
    ht_moments m = { 0 };
    for (int i = 0; i < 200000; i++) {
        double s = 5 + 3 * normal();
        ht_moments_add(&m, s, 2 * s - 7 + 0.5 * normal());
    }
    ht_estimate e = ht_estimate_fit(&m);
    cr_assert_float_eq(e.slope, 2, 0.01);
    cr_assert_float_eq(e.offset, -7, 0.05);
    cr_assert_float_eq(e.sigma, 0.5, 0.01);
}

Test(threshold, regression_of_little_or_nothing)
{
    ht_moments none = { 0 }, same = { 0 };
    ht_estimate e = ht_estimate_fit(&none);
    cr_assert(e.slope == 0 && e.offset == 0 && e.sigma == 0);
    for (int i = 0; i < 10; i++)
        ht_moments_add(&same, 3, i);
    e = ht_estimate_fit(&same);
    cr_assert(e.slope == 0 && fabsf(e.offset - 4.5f) < 1e-6f, "a constant score tells the mean");
}

/* Against sampling. */
Test(threshold, expected_square)
{
    for (int power = 1; power <= 2; power++)
        for (double z = -1.5; z < 3; z += 0.9) {
            double sum = 0;
            const int n = 400000;
            for (int i = 0; i < n; i++)
                sum += pow(fmax(0, z + normal()), 2 * power);
            double want = sum / n, got = ht_expected_square(z, power);
            cr_assert(fabs(got - want) < 0.05 * want + 0.005, "z %g power %d: %g, not %g", z, power, got, want);
        }
    for (int power = 1; power <= 2; power++)
        for (double z = -11; z < 20; z += 0.5)
            cr_assert_gt(ht_expected_square(z + 0.5, power), 0.999999 * ht_expected_square(z, power));
}

/* At the threshold a neuron is worth the price, counted by sampling. */
Test(threshold, neurons_are_cut_where_they_are_worth_the_price)
{
    const ht_estimate e = { .slope = 0.5f, .offset = -1.0f, .sigma = 0.8f };
    for (int power = 1; power <= 2; power++)
        for (int c = 0; c < 2; c++) {
            const double value = 3, price = 0.2, cut = c * 0.3;
            double t = ht_threshold(&e, value, price, cut, power), sum = 0;
            const int n = 1000000;
            for (int i = 0; i < n; i++)
                sum += value * pow(fmax(0, 0.5 * t - 1 + 0.8 * normal() - cut), 2 * power);
            cr_assert_float_eq(sum / n, price, 0.01);
        }
}

Test(threshold, edges)
{
    const ht_estimate e = { .slope = 1, .offset = 0, .sigma = 1 }, blind = { .slope = 0, .offset = -1, .sigma = 1 };
    cr_assert_eq(ht_threshold(&e, 1, 0, 0, 1), -INFINITY, "free neurons are always taken");
    cr_assert_eq(ht_threshold(&e, 0, 1, 0, 1), INFINITY, "worthless ones never");
    cr_assert_eq(ht_threshold(&e, INFINITY, 1, 0, 1), -INFINITY);
    cr_assert_eq(ht_threshold(&e, NAN, 1, 0, 1), INFINITY);
    cr_assert_eq(ht_threshold(&blind, 100, 1, 0, 1), -INFINITY, "a blind score: by the mean");
    cr_assert_eq(ht_threshold(&blind, 1, 1, 0, 1), INFINITY);
    cr_assert_eq(ht_threshold(&e, 1, 1e-300, 0, 1), -INFINITY);
    cr_assert(isfinite(ht_threshold(&e, 1, 1e30, 0, 2)));
    const ht_estimate sure = { .slope = 1, .offset = 0, .sigma = 0 };
    cr_assert_float_eq(ht_threshold(&sure, 1, 4, 0, 1), 2, 1e-3, "a score without error: value * g^2 = price");
}

Test(threshold, quality_of_masks)
{
    ht_mask_quality none = { 0 }, q = { 100, 10, 20, 8 };
    cr_assert(ht_mask_recall(&none) == 1 && ht_mask_precision(&none) == 1);
    cr_assert(ht_mask_recall(&q) == 0.8 && ht_mask_precision(&q) == 0.4);
}
