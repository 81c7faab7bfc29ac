/* SPDX-License-Identifier: MIT
 *
 * Number formats of weights: ids as GGUF numbers them, their geometry, and the one description from which everything
 * else follows: ht_type_unpack() turns blocks of any quantised type into one canonical form of small integers and
 * scales. Dequantisation, the plain-C dot product and prefill all work on that form.
 *
 * The canonical form of a row of k elements, in sub-blocks of 16 and blocks of 32:
 *
 *     w[i] = (D[i/32] * sc[i/16]) * q[i]  +  Dm[i/32] * mn[i/16]
 *
 * q, sc, mn are small integers, D and Dm float32; the second term exists for types with a minimum only. Evaluated as
 * written (two products, one product, one sum, each rounded to float32) it gives the bits of ggml's reference
 * dequantiser for every type, because all but the last multiplication are exact in 24 bits.
 *
 * Owner: no state. Threads: any. */
#ifndef HT_BASE_TYPES_H
#define HT_BASE_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/base/status.h"

/* name, GGUF id, elements per block, bytes per block */
#define HT_TYPE_LIST(X)                                                                                                \
    X(F32, 0, 1, 4)                                                                                                    \
    X(F16, 1, 1, 2)                                                                                                    \
    X(Q4_0, 2, 32, 18)                                                                                                 \
    X(Q4_1, 3, 32, 20)                                                                                                 \
    X(Q5_0, 6, 32, 22)                                                                                                 \
    X(Q5_1, 7, 32, 24)                                                                                                 \
    X(Q8_0, 8, 32, 34)                                                                                                 \
    X(Q2_K, 10, 256, 84)                                                                                               \
    X(Q3_K, 11, 256, 110)                                                                                              \
    X(Q4_K, 12, 256, 144)                                                                                              \
    X(Q5_K, 13, 256, 176)                                                                                              \
    X(Q6_K, 14, 256, 210)                                                                                              \
    X(IQ2_XXS, 16, 256, 66)                                                                                            \
    X(IQ2_XS, 17, 256, 74)                                                                                             \
    X(IQ3_XXS, 18, 256, 98)                                                                                            \
    X(IQ1_S, 19, 256, 50)                                                                                              \
    X(IQ4_NL, 20, 32, 18)                                                                                              \
    X(IQ3_S, 21, 256, 110)                                                                                             \
    X(IQ2_S, 22, 256, 82)                                                                                              \
    X(IQ4_XS, 23, 256, 136)                                                                                            \
    X(IQ1_M, 29, 256, 56)                                                                                              \
    X(BF16, 30, 1, 2)                                                                                                  \
    X(TQ1_0, 34, 256, 54)                                                                                              \
    X(TQ2_0, 35, 256, 66)                                                                                              \
    X(MXFP4, 39, 32, 17)

typedef enum ht_type {
#define X(name, id, n, bytes) HT_##name = id,
    HT_TYPE_LIST(X)
#undef X
} ht_type;

enum { HT_TYPE_MAX = 64 }; /* ids are below this */

typedef struct ht_type_info {
    const char *name;     /* "Q4_K"; NULL for an id that is not supported */
    uint16_t block;       /* elements per block */
    uint16_t block_bytes; /* bytes per block */
    bool quantised;       /* integers with scales: has a canonical form */
    bool has_min;         /* the Dm * mn term exists */
    bool half_scales;     /* sc differs between the two halves of a block of 32 */
} ht_type_info;

/* Geometry of a type, or NULL where the id is unknown or unsupported. Any id may be asked: it may come from a file. */
const ht_type_info *ht_type_get(uint32_t id);

/* The type of that name, case-insensitive ("q4_k"), or -1. */
int ht_type_by_name(const char *name);

/* Name of any GGUF type id, supported or not ("Q8_1", "NVFP4", …), or "unknown". For messages and inspect. */
const char *ht_type_name(uint32_t id);

/* Is the id in use by GGUF, supported here or not? Removed ids (4, 5, 31 to 33, 37, 38) are not. */
bool ht_type_exists(uint32_t id);

/* Elements and bytes per block of any existing type, supported or not ("I32", "NVFP4"); false where it is not known,
 * as for I2_S, whose scale is kept outside of its blocks. */
bool ht_type_geometry(uint32_t id, uint32_t *block, uint32_t *block_bytes);

/* Bytes of a row of k elements; k must be a multiple of the block. */
static inline size_t ht_type_row_bytes(const ht_type_info *t, uint64_t k)
{
    return (size_t)(k / t->block) * t->block_bytes;
}

/* Canonical form of k elements (multiple of the type's block): arrays owned by the caller, sizes in brackets. */
typedef struct ht_canon {
    int8_t *q;   /* [k] */
    int16_t *sc; /* [k/16] */
    int16_t *mn; /* [k/16], written where has_min */
    float *d;    /* [k/32] */
    float *dm;   /* [k/32], written where has_min */
} ht_canon;

/* src: k elements of a quantised type; 2-byte alignment or none is enough. */
void ht_type_unpack(ht_type type, const void *src, uint64_t k, const ht_canon *out);

/* dst[0..k) = float32 values of k elements of any type, bit for bit as ggml's reference. k: multiple of the block. */
void ht_type_dequant(ht_type type, const void *src, uint64_t k, float *dst);

/* The same for types that exist but are not computed with: I8 to I64, F64 (rounded to nearest) and NVFP4 (without
 * the scale that its files keep in a tensor of its own). Supported types are passed on. False where there is no
 * decoder. */
bool ht_type_decode(uint32_t id, const void *src, uint64_t k, float *dst);

/* float32 to any type that can be written (ht_type_can_quantise), rounding to nearest; k: multiple of the block. */
bool ht_type_can_quantise(ht_type type);
void ht_type_quantise(ht_type type, const float *src, uint64_t k, void *dst);
/* The same where somebody waits for it: several times as fast for Q2_K to Q6_K, with a little more error (not byte for byte). */
void ht_type_quantise_coarse(ht_type type, const float *src, uint64_t k, void *dst);
/* The type that rows of k get where `type` was asked for: rows that are no whole blocks of 256 get its sibling with blocks
 * of 32, else F16. */
uint32_t ht_type_fitting(uint32_t type, uint64_t k);

float ht_f16_to_f32(uint16_t h);
uint16_t ht_f32_to_f16(float f); /* nearest even; overflow to infinity; NaN stays NaN */
static inline float ht_bf16_to_f32(uint16_t h)
{
    union { uint32_t u; float f; } v = { (uint32_t)h << 16 };
    return v.f;
}

#endif
