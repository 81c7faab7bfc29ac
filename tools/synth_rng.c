/* SPDX-License-Identifier: MIT
 *
 * Random streams of the model synthesiser; see the header. */
#include "tools/synth_rng.h"

#include <math.h>
#include <string.h>

uint64_t synth_key_text(uint64_t key, const char *name)
{
    for (; *name; name++)
        key = synth_key(key, (unsigned char)*name);
    return key;
}

double synth_normal_tail(double t)
{
    return 0.5 * erfc(t * 0.70710678118654752440);
}

/* Rational approximation after P. J. Acklam (relative error 1.2e-9), then one Halley step. */
double synth_normal_quantile(double p)
{
    static const double a[6] = { -3.969683028665376e+01, 2.209460984245205e+02,  -2.759285104469687e+02,
                                 1.383577518672690e+02,  -3.066479806614716e+01, 2.506628277459239e+00 };
    static const double b[5] = { -5.447609879822406e+01, 1.615858368580409e+02, -1.556989798598866e+02,
                                 6.680131188771972e+01, -1.328068155288572e+01 };
    static const double c[6] = { -7.784894002430293e-03, -3.223964580411365e-01, -2.400758277161838e+00,
                                 -2.549732539343734e+00, 4.374664141464968e+00,  2.938163982698783e+00 };
    static const double d[4] = { 7.784695709041462e-03, 3.224671290700398e-01, 2.445134137142996e+00,
                                 3.754408661907416e+00 };
    double x;

    if (p <= 0)
        return -40;
    if (p >= 1)
        return 40;
    if (p < 0.02425 || p > 1 - 0.02425) {
        double q = sqrt(-2 * log(p < 0.5 ? p : 1 - p));

        x = (((((c[0] * q + c[1]) * q + c[2]) * q + c[3]) * q + c[4]) * q + c[5]) /
            ((((d[0] * q + d[1]) * q + d[2]) * q + d[3]) * q + 1);
        if (p > 0.5)
            x = -x;
    } else {
        double q = p - 0.5, r = q * q;

        x = (((((a[0] * r + a[1]) * r + a[2]) * r + a[3]) * r + a[4]) * r + a[5]) * q /
            (((((b[0] * r + b[1]) * r + b[2]) * r + b[3]) * r + b[4]) * r + 1);
    }
    double e = synth_normal_tail(-x) - p;
    double u = e * 2.50662827463100050242 * exp(x * x / 2);

    return x - u / (1 + x * u / 2);
}

void synth_normals_init(float table[SYNTH_NORMALS])
{
    double q[SYNTH_NORMALS / 2], sum = 0;

    for (uint32_t i = 0; i < SYNTH_NORMALS / 2; i++) {
        q[i] = synth_normal_quantile((i + 0.5) / SYNTH_NORMALS);
        sum += 2 * q[i] * q[i];
    }
    double scale = sqrt(SYNTH_NORMALS / sum); /* variance exactly 1 */

    for (uint32_t i = 0; i < SYNTH_NORMALS / 2; i++) {
        table[i] = (float)(q[i] * scale);
        table[SYNTH_NORMALS - 1 - i] = -table[i];
    }
}

void synth_normals_fill(const float table[SYNTH_NORMALS], uint64_t key, float scale, float *dst, size_t n)
{
    size_t i = 0;
    uint64_t w = 0;

    for (; i + 5 <= n; i += 5, w++) {
        uint64_t z = synth_word(key, w);

        dst[i] = scale * table[z >> 52];
        dst[i + 1] = scale * table[z >> 40 & 4095];
        dst[i + 2] = scale * table[z >> 28 & 4095];
        dst[i + 3] = scale * table[z >> 16 & 4095];
        dst[i + 4] = scale * table[z >> 4 & 4095];
    }
    if (i < n) {
        uint64_t z = synth_word(key, w);

        for (; i < n; i++, z <<= 12)
            dst[i] = scale * table[z >> 52];
    }
}

void synth_ternary_fill(uint64_t key, float scale, float *dst, size_t n)
{
    const float level[3] = { -scale, 0, scale };

    for (size_t i = 0; i < n; i += 4) {
        uint64_t z = synth_word(key, i / 4);

        for (size_t k = i; k < n && k < i + 4; k++, z <<= 16)
            dst[k] = level[(z >> 48) * 3 >> 16];
    }
}

void synth_shuffle(uint64_t key, uint32_t *p, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t j = (uint32_t)(((synth_word(key, i) >> 32) * (i + 1)) >> 32);

        p[i] = p[j];
        p[j] = i;
    }
}
