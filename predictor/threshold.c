/* SPDX-License-Identifier: MIT
 * Thresholds from what neurons are worth; see predictor.h. */
#include <math.h>

#include "predictor/predictor.h"

ht_estimate ht_estimate_fit(const ht_moments *m)
{
    ht_estimate e = { 0 };

    if (m->n < 1)
        return e;
    double s = m->s / m->n, g = m->g / m->n;
    double ss = m->ss / m->n - s * s, gg = m->gg / m->n - g * g, sg = m->sg / m->n - s * g;
    double slope = ss > 1e-12 * (m->ss / m->n) ? sg / ss : 0;

    e.slope = (float)slope;
    e.offset = (float)(g - slope * s);
    e.sigma = (float)sqrt(fmax(gg - slope * sg, 0));
    return e;
}

static double tail(double z) /* the normal distribution's mass below z */
{
    return 0.5 * erfc(-z * 0.70710678118654752440);
}

double ht_expected_square(double z, int power)
{
    double phi = 0.39894228040143267794 * exp(-z * z / 2), z2 = z * z;
    double v = power == 1 ? (1 + z2) * tail(z) + z * phi : (z2 * z2 + 6 * z2 + 3) * tail(z) + (z2 + 5) * z * phi;

    return fmax(v, 0); /* cancellation far below zero */
}

/* z with ht_expected_square(z) = v > 0. */
static double inverse(double v, int power)
{
    double lo = -12, hi = 1;

    if (ht_expected_square(lo, power) >= v)
        return -INFINITY;
    while (ht_expected_square(hi, power) < v)
        hi *= 2;
    for (int i = 0; i < 60; i++) {
        double mid = (lo + hi) / 2;
        if (ht_expected_square(mid, power) < v)
            lo = mid;
        else
            hi = mid;
    }
    return (lo + hi) / 2;
}

float ht_threshold(const ht_estimate *e, double value, double price, double cut, int power)
{
    const double sigma = fmax(e->sigma, 1e-6), unit = pow(sigma, 2 * power);

    if (!(price > 0))
        return -INFINITY;
    if (!(value > 0) || !isfinite(value))
        return value > 0 ? -INFINITY : INFINITY;
    if (!(e->slope > 0))
        return value * unit * ht_expected_square((e->offset - cut) / sigma, power) >= price ? -INFINITY : INFINITY;
    double z = inverse(price / (value * unit), power);
    return (float)((z * sigma + cut - e->offset) / e->slope);
}
