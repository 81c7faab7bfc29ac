/* SPDX-License-Identifier: MIT
 *
 * Float functions of the token path. libm's differ from machine to machine; these are straight-line code of IEEE
 * additions, multiplications, divisions, fmaf and bit moves, so that a plain C, an AVX2 and an AVX-512 build give the
 * same bits and the compiler can vectorise a loop over them. The sign and payload of a NaN result are not part of that
 * promise.
 *
 * Build rule: -ffp-contract=off and no fast-math. Errors are measured in tests/cpu/test_vec_vmath.c against double
 * libm.
 * Owner: no state. Threads: any. */
#ifndef HT_BASE_VMATH_H
#define HT_BASE_VMATH_H

#if !defined(__OPENCL_VERSION__) /* the GPU's kernels are compiled with this file too (gpu/kernels/math.h) */
#include <math.h>
#include <stdint.h>
#endif

static inline uint32_t ht_f32_bits(float f)
{
    union { float f; uint32_t u; } v = { .f = f };
    return v.u;
}

static inline float ht_f32_from_bits(uint32_t u)
{
    union { uint32_t u; float f; } v = { .u = u };
    return v.f;
}

/* e^x, 1 ulp. x < -87.33: 0 (no subnormal results); x > 88.72: infinity; exp(0) = 1. */
static inline float ht_expf(float x)
{
    /* Adding 1.5 * 2^23 leaves the nearest integer in the low bits of the sum. */
    float t = fmaf(x, 0x1.715476p+0f, 12582912.0f);
    float n = t - 12582912.0f;
    float r = fmaf(n, -0x1.62e4p-1f, x); /* ln 2 in two parts: n * the first is exact */
    r = fmaf(n, -0x1.7f7d1cp-20f, r);
    float p = 0x1.9df866p-13f;
    p = fmaf(p, r, 0x1.6d4cecp-10f);
    p = fmaf(p, r, 0x1.111310p-7f);
    p = fmaf(p, r, 0x1.5554e8p-5f);
    p = fmaf(p, r, 0x1.555554p-3f);
    p = fmaf(p, r, 0.5f);
    p = fmaf(r * r, p, r) + 1.0f;
    /* The bits above n in t vanish in the shift, so this adds n to the exponent. */
    float e = ht_f32_from_bits(ht_f32_bits(p) + (ht_f32_bits(t) << 23));
    e = x <= 88.72f ? e : x + INFINITY; /* infinity, or NaN for NaN */
    return x < -87.33f ? 0.0f : e;
}

/* ln(1 + x), accurate near 0. -1: -infinity; below: NaN. */
static inline float ht_log1pf(float x)
{
    float u = 1.0f + x;
    float c = (x >= 1.0f ? 1.0f - (u - x) : x - (u - 1.0f)) / u; /* what the sum lost */
    uint32_t i = ht_f32_bits(u) + (0x3f800000u - 0x3f3504f3u);   /* mantissa to [sqrt 0.5, sqrt 2) */
    float k = (float)((int32_t)(i >> 23) - 127);
    float f = ht_f32_from_bits((i & 0x7fffffu) + 0x3f3504f3u) - 1.0f;
    float p = 0x1.147262p-4f;
    p = fmaf(p, f, -0x1.de0114p-4f);
    p = fmaf(p, f, 0x1.e6bfecp-4f);
    p = fmaf(p, f, -0x1.fc28dap-4f);
    p = fmaf(p, f, 0x1.233ba4p-3f);
    p = fmaf(p, f, -0x1.555c44p-3f);
    p = fmaf(p, f, 0x1.99a476p-3f);
    p = fmaf(p, f, -0x1.000006p-2f);
    p = fmaf(p, f, 0x1.555548p-2f);
    p = fmaf(f * f, fmaf(p, f, -0.5f), fmaf(k, 0x1.7f7d1cp-20f, c)) + f;
    p = fmaf(k, 0x1.62e4p-1f, p);
    p = x > -1.0f ? p : (x == -1.0f ? -INFINITY : NAN);
    return x < INFINITY ? p : x + INFINITY;
}

/* 1 / (1 + e^-x) */
static inline float ht_sigmoidf(float x) { return 1.0f / (1.0f + ht_expf(-x)); }

/* x * sigmoid(x) */
static inline float ht_siluf(float x) { return x / (1.0f + ht_expf(-x)); }

static inline float ht_tanhf(float x)
{
    float a = ht_f32_from_bits(ht_f32_bits(x) & 0x7fffffffu);
    float u = a * a;
    float p = 0x1.189a76p-9f;
    p = fmaf(p, u, -0x1.0bfc64p-7f);
    p = fmaf(p, u, 0x1.639406p-6f);
    p = fmaf(p, u, -0x1.b9f046p-5f);
    p = fmaf(p, u, 0x1.111076p-3f);
    p = fmaf(p, u, -0x1.555554p-2f);
    float near = fmaf(a * u, p, a);
    float far = 1.0f - 2.0f / (ht_expf(2.0f * a) + 1.0f);
    float r = a < 0.625f ? near : far;
    return ht_f32_from_bits(ht_f32_bits(r) | (ht_f32_bits(x) & 0x80000000u));
}

/* 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), written as x * sigmoid(2 ...): nothing cancels for negative x. */
static inline float ht_gelu_tanhf(float x)
{
    float u = x * fmaf(x * x, -0x1.2444f6p-4f, -0x1.988454p+0f);
    return x / (1.0f + ht_expf(u));
}

/* x * Phi(x), Phi the normal distribution. Its lower tail is exp(-x^2 / 2) * P(1 / (1 + 0.35 |x|)), P fitted over |x| <
 * 13.3 to 3.3e-8 relative. */
static inline float ht_gelu_erff(float x)
{
    float a = ht_f32_from_bits(ht_f32_bits(x) & 0x7fffffffu);
    float t = 1.0f / fmaf(a, 0.35f, 1.0f);
    float p = -0x1.dd0422p-6f;
    p = fmaf(p, t, 0x1.2689b0p-3f);
    p = fmaf(p, t, -0x1.0584b2p-2f);
    p = fmaf(p, t, 0x1.45361cp-3f);
    p = fmaf(p, t, -0x1.763fbep-6f);
    p = fmaf(p, t, 0x1.afaf54p-4f);
    p = fmaf(p, t, 0x1.eaf59cp-4f);
    p = fmaf(p, t, 0x1.1e6da4p-3f);
    p = fmaf(p, t, 0x1.1df1f6p-3f);
    float q = p * t * ht_expf(-0.5f * (a * a));
    float above = fmaf(-x, q, x);
    float below = x * q;
    return x > 0.0f ? above : below;
}

/* ln(1 + e^x); x itself above 20, as PyTorch's. */
static inline float ht_softplusf(float x)
{
    float a = ht_f32_from_bits(ht_f32_bits(x) & 0x7fffffffu);
    float r = (x > 0.0f ? x : 0.0f) + ht_log1pf(ht_expf(-a));
    return x > 20.0f ? x : r;
}

#endif
