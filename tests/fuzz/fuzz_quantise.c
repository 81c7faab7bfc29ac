/* SPDX-License-Identifier: MIT
 *
 * Fuzz target of the number formats: the first byte picks a type, the rest are float32 values of any bits. They are
 * quantised, unpacked and dequantised; what comes back must be numbers, as close as the format can be. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/types.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    enum { K = 512 };
    float x[K] = { 0 }, y[K];
    uint8_t q[K * 4], again[K * 4];
    float largest = 0.0f;

    if (n < 1)
        return 0;
    uint32_t id = bytes[0] % HT_TYPE_MAX;
    const ht_type_info *t = ht_type_get(id);
    size_t copied = n - 1 < sizeof x ? n - 1 : sizeof x;
    memcpy(x, bytes + 1, copied);
    if (!t)
        return 0;
    size_t blocks = copied / t->block_bytes, most = K / t->block; /* any bytes are blocks too */
    ht_type_dequant((ht_type)id, bytes + 1, (blocks < most ? blocks : most) * t->block, y);
    if (!ht_type_can_quantise((ht_type)id) || !t->quantised)
        return 0;
    size_t size = ht_type_row_bytes(t, K);
    ht_type_quantise((ht_type)id, x, K, q);
    ht_type_dequant((ht_type)id, q, K, y);
    for (int i = 0; i < K; i++)
        if (isfinite(x[i]) && fabsf(x[i]) > largest)
            largest = fabsf(x[i]);
    /* within the range of the scales (f16) no value may stray: twice the largest is far beyond any rounding */
    for (int i = 0; i < K; i++) {
        if (isnan(y[i]) || (largest > 1e-3f && largest < 60000.0f && fabsf(y[i]) > 2.0f * largest))
            abort();
    }
    ht_type_quantise((ht_type)id, x, K, again);
    if (memcmp(q, again, size) != 0)
        abort();
    return 0;
}
