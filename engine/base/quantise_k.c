/* SPDX-License-Identifier: MIT
 *
 * Encoders of the formats whose blocks have sub-blocks with small integer scales (Q2_K to Q6_K, IQ4_XS), and IQ4_NL.
 * All minimise the squared error of the sub-block, unweighted:
 *
 *   without a minimum, x ~ s q:      try some scales near the one that uses the whole range; for each the integers q
 * are
 *                                    the nearest ones, and the best s for these is <x,q>/<q,q>, which takes
 *                                    <x,q>^2/<q,q> off the error. The largest such gain wins.
 *   with a minimum, x ~ s q + m:     the same with the least-squares line through (q, x); m is at most 0, as the
 * formats
 *                                    can store no other.
 *
 * Then the scales themselves are rounded to integers of a common float, and the q are chosen again for what is
 * stored. The loops run over 16 values without a carry between them, so that they vectorise without reordering float
 * sums.
 *
 * The coarse encoders of Q2_K to Q6_K try few scales and do not go back to them: for copies that are made while somebody waits.
 *
 * Owner: no state. Threads: any. */
#include "engine/base/quantise_impl.h"
#include "engine/base/unpack_impl.h"

/* Sum of 16 values as a tree. */
static float sum16(const float *v)
{
    float a[8], b[4];

    for (int i = 0; i < 8; i++)
        a[i] = v[i] + v[i + 8];
    for (int i = 0; i < 4; i++)
        b[i] = a[i] + a[i + 4];
    return (b[0] + b[2]) + (b[1] + b[3]);
}

/* The value of largest magnitude, with its sign. */
static float extreme(const float *x, int n)
{
    float lo = 0.0f, hi = 0.0f;

    for (int j = 0; j < n; j++) {
        lo = x[j] < lo ? x[j] : lo;
        hi = x[j] > hi ? x[j] : hi;
    }
    return -lo > hi ? lo : hi;
}

/* ---- x ~ s q ----------------------------------------------------------------------------------------------------- */

/* The best s for 16 values and integers of -top .. top-1, of those up to 0.1 far levels off by steps of 0.1 apart. */
static float search_scale16(const float *restrict x, float top, int far, int apart)
{
    float m = extreme(x, 16), best = 0.0f, scale = 0.0f;

    if (m == 0.0f)
        return 0.0f;
    for (int t = -far; t <= far; t += apart) {
        float is = -(top + 0.1f * (float)t) / m, xq[16], qq[16];
        for (int j = 0; j < 16; j++) {
            float q = ht_round(ht_clamp(is * x[j], -top, top - 1.0f));
            xq[j] = x[j] * q;
            qq[j] = q * q;
        }
        float a = sum16(xq), b = sum16(qq);
        if (b > 0.0f && a * a > best * b) {
            best = a * a / b;
            scale = a / b;
        }
    }
    return scale;
}

/* Rounds n scales to integers of lo .. -lo-1 times a common d, which is stored at p as f16; the integers go to sc.
 * Returns the d stored. */
static float round_scales(const float *scale, int n, float lo, uint8_t *p, int *sc)
{
    float m = extreme(scale, n);
    float is = m != 0.0f ? lo / m : 0.0f;

    for (int i = 0; i < n; i++)
        sc[i] = (int)ht_round(ht_clamp(is * scale[i], lo, -lo - 1.0f));
    return ht_put_f16(p, m != 0.0f ? m / lo : 0.0f);
}

/* q[j] = nearest integer to x[j] / s within lo .. hi, minus lo; the q of 0 where s is 0 */
static void nearest(uint8_t *restrict q, const float *restrict x, int n, float s, float lo, float hi)
{
    float is = s != 0.0f ? 1.0f / s : 0.0f;

    is = ht_abs(is) <= 3.0e38f ? is : 0.0f; /* s below 2^-126 or so */
    for (int j = 0; j < n; j++)
        q[j] = (uint8_t)(int)(ht_round(ht_clamp(is * x[j], lo, hi)) - lo);
}

/* 64 bytes of 2 bits: see pairs_of_bits() in unpack.c */
static void pack_pairs(uint8_t *restrict dst, const uint8_t *restrict q)
{
    for (int n = 0; n < 2; n++, q += 128)
        for (int l = 0; l < 32; l++) {
            uint32_t low = (q[l] & 3u) | (q[l + 32] & 3u) << 2;
            dst[32 * n + l] = (uint8_t)(low | (q[l + 64] & 3u) << 4 | (q[l + 96] & 3u) << 6);
        }
}

static void encode_q3_k(const float *src, uint8_t *dst, int far, int apart)
{
    float scale[16];
    uint8_t q[256];
    int sc[16];

    for (int i = 0; i < 16; i++)
        scale[i] = search_scale16(src + 16 * i, 4.0f, far, apart);
    float d = round_scales(scale, 16, -32.0f, dst + 108, sc);
    for (int i = 0; i < 16; i++)
        nearest(q + 16 * i, src + 16 * i, 16, d * (float)sc[i], -4.0f, 3.0f);

    memset(dst, 0, 108);
    for (int i = 0; i < 8; i++)
        for (int l = 0; l < 32; l++)
            dst[l] = (uint8_t)(dst[l] | (q[32 * i + l] >> 2) << i);
    pack_pairs(dst + 32, q);
    for (int i = 0; i < 16; i++) {
        int v = sc[i] + 32;
        dst[96 + i % 8] = (uint8_t)(dst[96 + i % 8] | (v & 15) << (i / 8 * 4));
        dst[104 + i % 4] = (uint8_t)(dst[104 + i % 4] | (v >> 4) << (i / 4 * 2));
    }
}

void ht_quantise_q3_k(const float *src, uint8_t *dst) { encode_q3_k(src, dst, 9, 1); }
void ht_quantise_q3_k_coarse(const float *src, uint8_t *dst) { encode_q3_k(src, dst, 6, 6); }

static void encode_q6_k(const float *src, uint8_t *dst, int far, int apart)
{
    float scale[16];
    uint8_t q[256];
    int sc[16];

    for (int i = 0; i < 16; i++)
        scale[i] = search_scale16(src + 16 * i, 32.0f, far, apart);
    float d = round_scales(scale, 16, -128.0f, dst + 208, sc);
    for (int i = 0; i < 16; i++) {
        nearest(q + 16 * i, src + 16 * i, 16, d * (float)sc[i], -32.0f, 31.0f);
        dst[192 + i] = (uint8_t)sc[i];
    }
    for (int n = 0; n < 2; n++) {
        const uint8_t *restrict p = q + 128 * n;
        uint8_t *restrict lo = dst + 64 * n, *restrict hi = dst + 128 + 32 * n;
        for (int l = 0; l < 32; l++) {
            lo[l] = (uint8_t)((p[l] & 15) | (p[l + 64] & 15) << 4);
            lo[l + 32] = (uint8_t)((p[l + 32] & 15) | (p[l + 96] & 15) << 4);
            hi[l] = (uint8_t)(p[l] >> 4 | (p[l + 32] >> 4) << 2 | (p[l + 64] >> 4) << 4 | (p[l + 96] >> 4) << 6);
        }
    }
}

void ht_quantise_q6_k(const float *src, uint8_t *dst) { encode_q6_k(src, dst, 9, 1); }
void ht_quantise_q6_k_coarse(const float *src, uint8_t *dst) { encode_q6_k(src, dst, 6, 6); }

/* ---- x ~ s q + m ------------------------------------------------------------------------------------------------- */

typedef struct line { float s, m; } line; /* s >= 0, m <= 0 */

/* The best line for n (16 or 32) values and integers of 0 .. top. `first`, `step`: the numbers of levels tried are
 * top + first + step * t. */
static line search_line(const float *restrict x, int n, float top, float first, float step, int tries)
{
    float lo = 0.0f, hi = x[0], part[16] = { 0 }, part2[16] = { 0 };
    line best = { 0.0f, 0.0f };

    for (int j = 0; j < n; j++) {
        lo = x[j] < lo ? x[j] : lo;
        hi = x[j] > hi ? x[j] : hi;
    }
    if (hi <= lo) { /* all the same, and not above 0 */
        best.m = lo;
        return best;
    }
    for (int i = 0; i < n; i += 16)
        for (int j = 0; j < 16; j++) {
            part[j] += x[i + j];
            part2[j] += x[i + j] * x[i + j];
        }
    float sum_x = sum16(part), sum_xx = sum16(part2), least = 3.4e38f, count = (float)n;

    for (int t = 0; t < tries; t++) {
        float is = (top + first + step * (float)t) / (hi - lo), qx[16] = { 0 }, qs[16] = { 0 }, qq[16] = { 0 };
        for (int i = 0; i < n; i += 16)
            for (int j = 0; j < 16; j++) {
                float q = ht_round(ht_clamp(is * (x[i + j] - lo), 0.0f, top));
                qs[j] += q;
                qq[j] += q * q;
                qx[j] += q * x[i + j];
            }
        float sum_q = sum16(qs), sum_qq = sum16(qq), sum_qx = sum16(qx);
        float det = count * sum_qq - sum_q * sum_q;
        if (det <= 0.0f)
            continue;
        line l = { (count * sum_qx - sum_x * sum_q) / det, (sum_qq * sum_x - sum_q * sum_qx) / det };
        if (l.m > 0.0f) {
            l.m = 0.0f;
            l.s = sum_qx / sum_qq;
        }
        float err = sum_xx + l.s * (l.s * sum_qq + 2.0f * (l.m * sum_q - sum_qx)) + l.m * (count * l.m - 2.0f * sum_x);
        if (err < least && l.s > 0.0f) {
            least = err;
            best = l;
        }
    }
    if (least == 3.4e38f) /* no integers apart from each other: the plain line */
        best = (line){ (hi - lo) / top, lo };
    return best;
}

/* Rounds lines to integers of 0 .. top times common d and dmin, stored as f16; the values stored are returned. */
static void round_lines(const line *l, int n, float top, uint8_t *p_d, uint8_t *p_min, int *sc, int *mn, float *d,
                        float *dmin)
{
    float s = 0.0f, m = 0.0f;

    for (int i = 0; i < n; i++) {
        s = l[i].s > s ? l[i].s : s;
        m = -l[i].m > m ? -l[i].m : m;
    }
    *d = ht_put_f16(p_d, s / top);
    *dmin = ht_put_f16(p_min, m / top);
    float is = *d > 0.0f ? 1.0f / *d : 0.0f, im = *dmin > 0.0f ? 1.0f / *dmin : 0.0f;
    for (int i = 0; i < n; i++) {
        sc[i] = (int)ht_round(ht_clamp(is * l[i].s, 0.0f, top));
        mn[i] = (int)ht_round(ht_clamp(-im * l[i].m, 0.0f, top));
    }
}

/* Squared error of n values with the stored line: s q - m. */
static float line_error(const float *restrict x, int n, float s, float m, float top)
{
    float is = s > 0.0f ? 1.0f / s : 0.0f, part[16] = { 0 };

    is = is <= 3.0e38f ? is : 0.0f;
    for (int i = 0; i < n; i += 16)
        for (int j = 0; j < 16; j++) {
            float e = s * ht_round(ht_clamp(is * (x[i + j] + m), 0.0f, top)) - m - x[i + j];
            part[j] += e * e;
        }
    return sum16(part);
}

/* Moves the two integers of a sub-block to the best neighbours: rounding one of them wants the other to follow. */
static void refine_line(const float *x, int n, float d, float dmin, float top, int most, int *sc, int *mn)
{
    int sc0 = *sc, mn0 = *mn;
    float least = line_error(x, n, d * (float)sc0, dmin * (float)mn0, top);

    for (int i = sc0 - 1; i <= sc0 + 1; i++)
        for (int j = mn0 - 1; j <= mn0 + 1; j++) {
            if (i < 0 || i > most || j < 0 || j > most || (i == sc0 && j == mn0))
                continue;
            float err = line_error(x, n, d * (float)i, dmin * (float)j, top);
            if (err < least) {
                least = err;
                *sc = i;
                *mn = j;
            }
        }
}

/* The best d and dmin for given integers: least squares over the whole block. Keeps what was there where that fails. */
static void refit_lines(const float *restrict x, const uint8_t *restrict q, int n, const int *sc, const int *mn,
                        uint8_t *p_d, uint8_t *p_min, float *d, float *dmin)
{
    float aa = 0.0f, ab = 0.0f, bb = 0.0f, ax = 0.0f, bx = 0.0f;

    for (int i = 0; i < 256 / n; i++, x += n, q += n) {
        float sq[16] = { 0 }, sqq[16] = { 0 }, sx[16] = { 0 }, sqx[16] = { 0 };
        float s = (float)sc[i], m = (float)mn[i];
        for (int k = 0; k < n; k += 16)
            for (int j = 0; j < 16; j++) {
                float v = (float)q[k + j];
                sq[j] += v;
                sqq[j] += v * v;
                sx[j] += x[k + j];
                sqx[j] += v * x[k + j];
            }
        aa += s * s * sum16(sqq);
        ab -= s * m * sum16(sq);
        bb += m * m * (float)n;
        ax += s * sum16(sqx);
        bx -= m * sum16(sx);
    }
    float det = aa * bb - ab * ab;
    float a = bb > 0.0f ? (bb * ax - ab * bx) / det : ax / aa, b = bb > 0.0f ? (aa * bx - ab * ax) / det : 0.0f;
    if (a > 0.0f && a < 65504.0f && b >= 0.0f && b < 65504.0f) {
        *d = ht_put_f16(p_d, a);
        *dmin = ht_put_f16(p_min, b);
    }
}

static void nearest_line(uint8_t *restrict q, const float *restrict x, int n, float s, float m, float top)
{
    float is = s > 0.0f ? 1.0f / s : 0.0f;

    is = is <= 3.0e38f ? is : 0.0f;
    for (int j = 0; j < n; j++)
        q[j] = (uint8_t)(int)ht_round(ht_clamp(is * (x[j] + m), 0.0f, top));
}

static void encode_q2_k(const float *src, uint8_t *dst, bool coarse)
{
    line l[16];
    uint8_t q[256];
    int sc[16], mn[16];
    float d, dmin;

    for (int i = 0; i < 16; i++)
        l[i] = coarse ? search_line(src + 16 * i, 16, 3.0f, -0.4f, 0.4f, 3) : search_line(src + 16 * i, 16, 3.0f, -0.6f, 0.1f, 16);
    round_lines(l, 16, 15.0f, dst + 80, dst + 82, sc, mn, &d, &dmin);
    for (int i = 0; i < 16; i++) {
        if (!coarse)
            refine_line(src + 16 * i, 16, d, dmin, 3.0f, 15, &sc[i], &mn[i]);
        nearest_line(q + 16 * i, src + 16 * i, 16, d * (float)sc[i], dmin * (float)mn[i], 3.0f);
    }
    refit_lines(src, q, 16, sc, mn, dst + 80, dst + 82, &d, &dmin);
    for (int i = 0; i < 16; i++) {
        if (!coarse)
            refine_line(src + 16 * i, 16, d, dmin, 3.0f, 15, &sc[i], &mn[i]);
        dst[i] = (uint8_t)(sc[i] | mn[i] << 4);
        nearest_line(q + 16 * i, src + 16 * i, 16, d * (float)sc[i], dmin * (float)mn[i], 3.0f);
    }
    pack_pairs(dst + 16, q);
}

void ht_quantise_q2_k(const float *src, uint8_t *dst) { encode_q2_k(src, dst, false); }
void ht_quantise_q2_k_coarse(const float *src, uint8_t *dst) { encode_q2_k(src, dst, true); }

/* What Q4_K and Q5_K share: d, dmin, 8 + 8 integers of 6 bits at dst; the integers of the values to q. */
static void quantise_lines32(const float *src, uint8_t *dst, uint8_t *q, float top, float first, float step, int tries,
                             bool coarse)
{
    line l[8];
    int sc[8], mn[8];
    float d, dmin;

    for (int i = 0; i < 8; i++)
        l[i] = search_line(src + 32 * i, 32, top, first, step, tries);
    round_lines(l, 8, 63.0f, dst, dst + 2, sc, mn, &d, &dmin);
    for (int i = 0; i < 8; i++) {
        if (!coarse)
            refine_line(src + 32 * i, 32, d, dmin, top, 63, &sc[i], &mn[i]);
        nearest_line(q + 32 * i, src + 32 * i, 32, d * (float)sc[i], dmin * (float)mn[i], top);
    }
    refit_lines(src, q, 32, sc, mn, dst, dst + 2, &d, &dmin);
    for (int i = 0; i < 8; i++) {
        if (!coarse)
            refine_line(src + 32 * i, 32, d, dmin, top, 63, &sc[i], &mn[i]);
        nearest_line(q + 32 * i, src + 32 * i, 32, d * (float)sc[i], dmin * (float)mn[i], top);
    }
    for (int i = 0; i < 4; i++) {
        dst[4 + i] = (uint8_t)(sc[i] | sc[i + 4] >> 4 << 6);
        dst[8 + i] = (uint8_t)(mn[i] | mn[i + 4] >> 4 << 6);
        dst[12 + i] = (uint8_t)((sc[i + 4] & 15) | (mn[i + 4] & 15) << 4);
    }
}

static void pack_wide_nibbles(uint8_t *restrict dst, const uint8_t *restrict q)
{
    for (int i = 0; i < 4; i++, dst += 32, q += 64)
        for (int l = 0; l < 32; l++)
            dst[l] = (uint8_t)((q[l] & 15) | (q[l + 32] & 15) << 4);
}

static void encode_q4_k(const float *src, uint8_t *dst, bool coarse)
{
    uint8_t q[256];

    quantise_lines32(src, dst, q, 15.0f, coarse ? -0.5f : -1.0f, coarse ? 0.5f : 0.1f, coarse ? 3 : 20, coarse);
    pack_wide_nibbles(dst + 16, q);
}

void ht_quantise_q4_k(const float *src, uint8_t *dst) { encode_q4_k(src, dst, false); }
void ht_quantise_q4_k_coarse(const float *src, uint8_t *dst) { encode_q4_k(src, dst, true); }

static void encode_q5_k(const float *src, uint8_t *dst, bool coarse)
{
    uint8_t q[256];

    quantise_lines32(src, dst, q, 31.0f, coarse ? -0.5f : -0.9f, coarse ? 0.5f : 0.1f, coarse ? 3 : 16, coarse);
    for (int l = 0; l < 32; l++) {
        uint32_t bits = 0;
        for (int i = 0; i < 8; i++)
            bits |= (uint32_t)(q[32 * i + l] >> 4) << i;
        dst[16 + l] = (uint8_t)bits;
    }
    pack_wide_nibbles(dst + 48, q);
}

void ht_quantise_q5_k(const float *src, uint8_t *dst) { encode_q5_k(src, dst, false); }
void ht_quantise_q5_k_coarse(const float *src, uint8_t *dst) { encode_q5_k(src, dst, true); }

/* ---- x ~ s v[q], v: the 16 values of IQ4 ------------------------------------------------------------------------- */

/* The middles between neighbouring values. */
static const float middles[15] = { -115.5f, -93.5f, -74.0f, -57.0f, -42.0f, -28.5f, -16.0f, -4.5f,
                                   7.0f,    19.0f,  31.5f,  45.5f,  61.0f,  79.0f,  101.0f };

/* Numbers of the values nearest to x * is. */
static void nearest_value(uint8_t *restrict q, const float *restrict x, float is)
{
    int n[32] = { 0 };

    for (int k = 0; k < 15; k++)
        for (int j = 0; j < 32; j++)
            n[j] += x[j] * is > middles[k];
    for (int j = 0; j < 32; j++)
        q[j] = (uint8_t)n[j];
}

/* The best s for 32 values. The trial values are found in 1/64ths as int16, which is 8 to a vector; that the places of
 * change are up to 1/128 off does not matter for a trial. */
static float search_scale_iq4(const float *restrict x)
{
    float m = extreme(x, 32), best = 0.0f, scale = 0.0f;

    if (m == 0.0f)
        return 0.0f;
    for (int t = -7; t <= 7; t++) {
        float is = ((float)ht_values_iq4_nl[0] + (float)t) / m * 64.0f, xv[16] = { 0 };
        int16_t r[32], v[32];
        int vv = 0;
        for (int j = 0; j < 32; j++) {
            r[j] = (int16_t)ht_clamp(x[j] * is, -16000.0f, 16000.0f);
            v[j] = ht_values_iq4_nl[0];
        }
        for (int k = 0; k < 15; k++) { /* the value is built up from the steps between values */
            int16_t step = (int16_t)(ht_values_iq4_nl[k + 1] - ht_values_iq4_nl[k]);
            int16_t middle = (int16_t)(middles[k] * 64.0f);
            for (int j = 0; j < 32; j++)
                v[j] = (int16_t)(v[j] + (r[j] > middle ? step : 0));
        }
        for (int j = 0; j < 32; j++)
            vv += v[j] * v[j];
        for (int i = 0; i < 32; i += 16)
            for (int j = 0; j < 16; j++)
                xv[j] += x[i + j] * (float)v[i + j];
        float a = sum16(xv), b = (float)vv;
        if (a * a > best * b) {
            best = a * a / b;
            scale = a / b;
        }
    }
    return scale;
}

static void pack_values(uint8_t *dst, const float *x, float s)
{
    uint8_t q[32];
    float is = s != 0.0f ? 1.0f / s : 0.0f;

    nearest_value(q, x, ht_abs(is) <= 3.0e38f ? is : 0.0f);
    for (int j = 0; j < 16; j++)
        dst[j] = (uint8_t)(q[j] | q[j + 16] << 4);
}

void ht_quantise_iq4_nl(const float *src, uint8_t *dst)
{
    pack_values(dst + 2, src, ht_put_f16(dst, search_scale_iq4(src)));
}

void ht_quantise_iq4_xs(const float *src, uint8_t *dst)
{
    float scale[8];
    int sc[8];

    for (int i = 0; i < 8; i++)
        scale[i] = search_scale_iq4(src + 32 * i);
    float d = round_scales(scale, 8, -32.0f, dst, sc);
    memset(dst + 2, 0, 6);
    uint32_t high = 0;
    for (int i = 0; i < 8; i++) {
        uint32_t v = (uint32_t)(sc[i] + 32);
        dst[4 + i / 2] = (uint8_t)(dst[4 + i / 2] | (v & 15) << (i % 2 * 4));
        high |= (v >> 4) << (2 * i);
        pack_values(dst + 8 + 16 * i, src + 32 * i, d * (float)sc[i]);
    }
    ht_put16(dst + 2, high);
}
