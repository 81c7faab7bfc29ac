/* SPDX-License-Identifier: MIT
 * One-bit matrices: packing, activations and their tables; see signs.h. */
#include "engine/base/signs.h"

#include <math.h>
#include <string.h>

enum { Q_MAX = 7, M_MAX = 255 };

void ht_signs_set_row(uint8_t *signs, uint32_t k, uint32_t row, const float *w)
{
    uint8_t *at = signs + ht_signs_bytes(row / HT_SIGNS_ROWS * HT_SIGNS_ROWS, k) + row % HT_SIGNS_ROWS;

    for (uint32_t i = 0; i < k; i += HT_SIGNS_COLS, at += HT_SIGNS_BLOCK) {
        const uint32_t n = k - i < HT_SIGNS_COLS ? k - i : HT_SIGNS_COLS;
        uint32_t bits = 0;
        for (uint32_t c = 0; c < n; c++)
            bits |= (uint32_t)(w[i + c] >= 0.0f) << c;
        for (uint32_t b = 0; b < 4; b++)
            at[b * HT_SIGNS_ROWS] = (uint8_t)(bits >> 8 * b);
    }
}

static float largest(const float *x, uint32_t n)
{
    float max = 0.0f;

    for (uint32_t i = 0; i < n; i++) {
        float a = fabsf(x[i]);
        max = a > max ? a : max;
    }
    return max;
}

static void quantise_block(const float *x, uint32_t n, float inverse, int8_t *q)
{
    for (uint32_t i = 0; i < n; i++) {
        float v = nearbyintf(x[i] * inverse);
        q[i] = (int8_t)(v >= -Q_MAX ? v <= Q_MAX ? v : Q_MAX : -Q_MAX); /* NaN too */
    }
}

float ht_signs_quantise(const float *x, uint32_t k, int8_t *q, int16_t *m)
{
    const float max = largest(x, k), base = max / (Q_MAX * M_MAX);
    const uint32_t n_blocks = ht_signs_blocks(k);

    memset(q, 0, (size_t)n_blocks * HT_SIGNS_COLS);
    for (uint32_t b = 0; b < n_blocks; b++)
        m[b] = 1;
    if (!isfinite(max) || !(base >= 1e-30f)) /* nothing to tell, or below what float32 divides well */
        return 0.0f;
    for (uint32_t b = 0; b < n_blocks; b++) {
        const uint32_t i = b * HT_SIGNS_COLS, n = k - i < HT_SIGNS_COLS ? k - i : HT_SIGNS_COLS;
        float scale = ceilf(largest(x + i, n) / (Q_MAX * base));
        scale = scale > 1.0f ? scale < M_MAX ? scale : M_MAX : 1.0f;
        m[b] = (int16_t)scale;
        quantise_block(x + i, n, 1.0f / (scale * base), q + i);
    }
    return base;
}

void ht_signs_table(const int8_t *q, uint32_t n_blocks, int8_t *table)
{
    for (size_t g = 0; g < (size_t)n_blocks * 8; g++, q += 4, table += 16) {
        int sum[16] = { -q[0] - q[1] - q[2] - q[3] };
        for (int bit = 0; bit < 4; bit++)
            for (int j = 1 << bit; j < 2 << bit; j++)
                sum[j] = sum[j - (1 << bit)] + 2 * q[bit];
        for (int j = 0; j < 16; j++)
            table[j] = (int8_t)sum[j];
    }
}
