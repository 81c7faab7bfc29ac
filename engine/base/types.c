/* SPDX-License-Identifier: MIT
 *
 * Names and geometry of number formats, and the two 16-bit float formats; see types.h. Unpacking is in unpack*.c,
 * writing in quantise*.c.
 *
 * Owner: no state. Threads: any. */
#include "engine/base/types.h"

#include <string.h>

/* Types that exist in GGUF files but are not computed with: name, id, elements per block, bytes per block (0: not
 * known). 36 was IQ4_NL_4_4 for a short while; every file in the wild that has it is of bitnet.cpp, whose I2_S it
 * is. */
#define OTHER_LIST(X)                                                                                                  \
    X(Q8_1, 9, 32, 36)                                                                                                 \
    X(Q8_K, 15, 256, 292)                                                                                              \
    X(I8, 24, 1, 1)                                                                                                    \
    X(I16, 25, 1, 2)                                                                                                   \
    X(I32, 26, 1, 4)                                                                                                   \
    X(I64, 27, 1, 8)                                                                                                   \
    X(F64, 28, 1, 8)                                                                                                   \
    X(I2_S, 36, 0, 0)                                                                                                  \
    X(NVFP4, 40, 64, 36)                                                                                               \
    X(Q1_0, 41, 128, 18)                                                                                               \
    X(Q2_0, 42, 64, 18)

static const struct {
    const char *name;
    uint16_t block, block_bytes;
} geometry[HT_TYPE_MAX] = {
#define X(name, id, n, bytes) [id] = { #name, n, bytes },
    HT_TYPE_LIST(X) OTHER_LIST(X)
#undef X
};

#define FLOAT(name, n, bytes) [HT_##name] = { #name, n, bytes, false, false, false }
#define QUANT(name, n, bytes, has_min, half) [HT_##name] = { #name, n, bytes, true, has_min, half }

static const ht_type_info infos[HT_TYPE_MAX] = {
    FLOAT(F32, 1, 4),
    FLOAT(F16, 1, 2),
    FLOAT(BF16, 1, 2),
    QUANT(Q4_0, 32, 18, false, false),
    QUANT(Q4_1, 32, 20, true, false),
    QUANT(Q5_0, 32, 22, false, false),
    QUANT(Q5_1, 32, 24, true, false),
    QUANT(Q8_0, 32, 34, false, false),
    QUANT(Q2_K, 256, 84, true, true),
    QUANT(Q3_K, 256, 110, false, true),
    QUANT(Q4_K, 256, 144, true, false),
    QUANT(Q5_K, 256, 176, true, false),
    QUANT(Q6_K, 256, 210, false, true),
    QUANT(IQ2_XXS, 256, 66, false, false),
    QUANT(IQ2_XS, 256, 74, false, true),
    QUANT(IQ3_XXS, 256, 98, false, false),
    QUANT(IQ1_S, 256, 50, false, false),
    QUANT(IQ4_NL, 32, 18, false, false),
    QUANT(IQ3_S, 256, 110, false, false),
    QUANT(IQ2_S, 256, 82, false, true),
    QUANT(IQ4_XS, 256, 136, false, false),
    QUANT(IQ1_M, 256, 56, false, true),
    QUANT(TQ1_0, 256, 54, false, false),
    QUANT(TQ2_0, 256, 66, false, false),
    QUANT(MXFP4, 32, 17, false, false),
};

const ht_type_info *ht_type_get(uint32_t id)
{
    return id < HT_TYPE_MAX && infos[id].name ? &infos[id] : NULL;
}

int ht_type_by_name(const char *name)
{
    for (int id = 0; id < HT_TYPE_MAX; id++) {
        const char *a = infos[id].name, *b = name;
        if (!a)
            continue;
        while (*a && *b && *a == (*b >= 'a' && *b <= 'z' ? *b - 'a' + 'A' : *b)) {
            a++;
            b++;
        }
        if (!*a && !*b)
            return id;
    }
    return -1;
}

const char *ht_type_name(uint32_t id)
{
    return ht_type_exists(id) ? geometry[id].name : "unknown";
}

bool ht_type_exists(uint32_t id)
{
    return id < HT_TYPE_MAX && geometry[id].name;
}

bool ht_type_geometry(uint32_t id, uint32_t *block, uint32_t *block_bytes)
{
    if (!ht_type_exists(id) || geometry[id].block == 0)
        return false;
    *block = geometry[id].block;
    *block_bytes = geometry[id].block_bytes;
    return true;
}

float ht_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exp = h >> 10 & 31, man = h & 0x3ff;
    union { uint32_t u; float f; } v;

    if (exp == 31) {
        v.u = sign | 0x7f800000 | man << 13;
    } else if (exp > 0) {
        v.u = sign | (exp + 112) << 23 | man << 13;
    } else {
        v.f = (float)man * 0x1p-24f; /* subnormal: exact */
        v.u |= sign;
    }
    return v.f;
}

uint16_t ht_f32_to_f16(float f)
{
    union { float f; uint32_t u; } v = { f };
    uint32_t sign = v.u >> 16 & 0x8000, a = v.u & 0x7fffffff;

    if (a > 0x7f800000) /* NaN: quiet, payload kept as far as it fits */
        return (uint16_t)(sign | 0x7e00 | (a >> 13 & 0x3ff));
    if (a >= 0x477ff000) /* 65520 and above round to infinity */
        return (uint16_t)(sign | 0x7c00);
    if (a >= 0x38800000) { /* normal; a carry out of the mantissa raises the exponent, as it must */
        a += 0xfff + (a >> 13 & 1);
        return (uint16_t)(sign | ((a >> 13) - (112 << 10)));
    }
    if (a < 0x33000000) /* below half of the smallest subnormal */
        return (uint16_t)sign;
    uint32_t man = (a & 0x7fffff) | 0x800000, shift = 126 - (a >> 23); /* man * 2^-shift in units of 2^-24 */
    uint32_t half = 1u << (shift - 1), kept = man >> shift, rest = man & ((1u << shift) - 1);
    kept += rest > half || (rest == half && (kept & 1));
    return (uint16_t)(sign | kept);
}
