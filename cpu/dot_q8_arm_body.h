/* SPDX-License-Identifier: MIT
 *
 * Dot products with 8-bit activations, ARM: the body that dot_q8_neon.c and dot_q8_dotprod.c compile, each for its own
 * level. Before inclusion: HT_LEVEL(name), which appends the level. A step takes eight blocks, for eight of the sixteen
 * float accumulators of the contract. Every block's weights are brought into natural order, multiplied as signed bytes,
 * and summed across lanes four blocks at a time. Where a type's weights are less a constant, its share of sum(x) is
 * taken off at the end. Owner: no state. Threads: any. */
#include "cpu/dot.h"
#include "cpu/dot_arm.h"

/* ---- blocks of 32 ---------------------------------------------------------------------------------------------- */

/* Block j of n; behind the end of a row zeros. */
HT_INLINE const uint8_t *block(const uint8_t *w, unsigned n, unsigned j, unsigned S)
{
    static const uint8_t none[64];
    return j < n ? w + j * S : none;
}

/* The f16 at `off` of eight blocks of S bytes. */
HT_INLINE float32x4x2_t halves(const uint8_t *w, unsigned n, unsigned S, unsigned off)
{
    uint16x4_t lo = vdup_n_u16(ht_word(block(w, n, 0, S) + off)), hi = vdup_n_u16(ht_word(block(w, n, 4, S) + off));
    lo = vset_lane_u16(ht_word(block(w, n, 1, S) + off), lo, 1);
    lo = vset_lane_u16(ht_word(block(w, n, 2, S) + off), lo, 2);
    lo = vset_lane_u16(ht_word(block(w, n, 3, S) + off), lo, 3);
    hi = vset_lane_u16(ht_word(block(w, n, 5, S) + off), hi, 1);
    hi = vset_lane_u16(ht_word(block(w, n, 6, S) + off), hi, 2);
    hi = vset_lane_u16(ht_word(block(w, n, 7, S) + off), hi, 3);
    return (float32x4x2_t){ { vcvt_f32_f16(vreinterpret_f16_u16(lo)), vcvt_f32_f16(vreinterpret_f16_u16(hi)) } };
}

/* 32 weights. */
typedef struct weights {
    int8x16_t lo, hi;
} weights;

HT_INLINE weights signed_weights(uint8x16_t lo, uint8x16_t hi)
{
    return (weights){ vreinterpretq_s8_u8(lo), vreinterpretq_s8_u8(hi) };
}

/* 16 bytes: low nibbles are elements 0..15, high ones 16..31. */
HT_INLINE weights nibbles(const uint8_t *p)
{
    const uint8x16_t q = vld1q_u8(p);
    return signed_weights(vandq_u8(q, vdupq_n_u8(15)), vshrq_n_u8(q, 4));
}

HT_INLINE weights lookup(int8x16_t values, const uint8_t *p)
{
    const uint8x16_t q = vld1q_u8(p);
    return (weights){ vqtbl1q_s8(values, vandq_u8(q, vdupq_n_u8(15))), vqtbl1q_s8(values, vshrq_n_u8(q, 4)) };
}

/* Products with the block of x; small: no weight above 64. */
HT_INLINE int32x4_t times_x(weights w, const int8_t *x, bool small)
{
    const int8x16_t x0 = vld1q_s8(x), x1 = vld1q_s8(x + 16);
    return small ? ht_mul32_64(w.lo, w.hi, x0, x1) : ht_mul32(w.lo, w.hi, x0, x1);
}

HT_INLINE void step_q4_0(const uint8_t *w, unsigned n, ht_xpart x, float *acc)
{
    int32x4_t v[8];
    for (unsigned j = 0; j < 8; j++)
        v[j] = times_x(nibbles(block(w, n, j, 18) + 2), x.q + 32 * j, true);
    ht_add_blocks(acc, halves(w, n, 18, 0), x, ht_less_sums(ht_reduce(v), x, 8));
}

HT_INLINE void step_q4_1(const uint8_t *w, unsigned n, ht_xpart x, float *acc)
{
    int32x4_t v[8];
    for (unsigned j = 0; j < 8; j++)
        v[j] = times_x(nibbles(block(w, n, j, 20) + 4), x.q + 32 * j, true);
    ht_add_blocks(acc, halves(w, n, 20, 0), x, ht_reduce(v));
    ht_add_blocks(acc, halves(w, n, 20, 2), x, ht_sums(x));
}

/* Nibbles at p and a fifth bit each from the 32 bits at `high`. */
HT_INLINE weights five_bits(const uint8_t *p, const uint8_t *high)
{
    const uint8x16x2_t fifth = ht_bit_masks(ht_dword(high));
    const uint8x16_t q = vld1q_u8(p), m15 = vdupq_n_u8(15);
    /* from a mask the upper nibble would be full: of it only bit 4 */
    return signed_weights(vorrq_u8(vandq_u8(q, m15), vandq_u8(fifth.val[0], vdupq_n_u8(16))),
                          vorrq_u8(vshrq_n_u8(q, 4), vandq_u8(fifth.val[1], vdupq_n_u8(16))));
}

HT_INLINE void step_q5_0(const uint8_t *w, unsigned n, ht_xpart x, float *acc)
{
    int32x4_t v[8];
    for (unsigned j = 0; j < 8; j++) {
        const uint8_t *p = block(w, n, j, 22);
        v[j] = times_x(five_bits(p + 6, p + 2), x.q + 32 * j, true);
    }
    ht_add_blocks(acc, halves(w, n, 22, 0), x, ht_less_sums(ht_reduce(v), x, 16));
}

HT_INLINE void step_q5_1(const uint8_t *w, unsigned n, ht_xpart x, float *acc)
{
    int32x4_t v[8];
    for (unsigned j = 0; j < 8; j++) {
        const uint8_t *p = block(w, n, j, 24);
        v[j] = times_x(five_bits(p + 8, p + 4), x.q + 32 * j, true);
    }
    ht_add_blocks(acc, halves(w, n, 24, 0), x, ht_reduce(v));
    ht_add_blocks(acc, halves(w, n, 24, 2), x, ht_sums(x));
}

HT_INLINE void step_q8_0(const uint8_t *w, unsigned n, ht_xpart x, float *acc)
{
    int32x4_t v[8];
    for (unsigned j = 0; j < 8; j++) {
        const uint8_t *p = block(w, n, j, 34) + 2;
        v[j] = times_x(signed_weights(vld1q_u8(p), vld1q_u8(p + 16)), x.q + 32 * j, false);
    }
    ht_add_blocks(acc, halves(w, n, 34, 0), x, ht_reduce(v));
}

HT_INLINE void step_iq4_nl(const uint8_t *w, unsigned n, ht_xpart x, float *acc)
{
    const int8x16_t values = vld1q_s8(ht_values_iq4_nl);
    int32x4_t v[8];
    for (unsigned j = 0; j < 8; j++)
        v[j] = times_x(lookup(values, block(w, n, j, 18) + 2), x.q + 32 * j, false);
    ht_add_blocks(acc, halves(w, n, 18, 0), x, ht_reduce(v));
}

/* 2^(e - 128) of the first bytes of four blocks from j: exponent e - 1, or a subnormal where e < 2. */
HT_INLINE float32x4_t powers(const uint8_t *w, unsigned n, unsigned j)
{
    uint32x4_t e = vdupq_n_u32(*block(w, n, j, 17));
    e = vsetq_lane_u32(*block(w, n, j + 1, 17), e, 1);
    e = vsetq_lane_u32(*block(w, n, j + 2, 17), e, 2);
    e = vsetq_lane_u32(*block(w, n, j + 3, 17), e, 3);
    uint32x4_t normal = vshlq_n_u32(vsubq_u32(e, vdupq_n_u32(1)), 23);
    uint32x4_t sub = vshlq_u32(vdupq_n_u32(0x200000), vreinterpretq_s32_u32(e));
    return vreinterpretq_f32_u32(vbslq_u32(vcltq_u32(e, vdupq_n_u32(2)), sub, normal));
}

HT_INLINE void step_mxfp4(const uint8_t *w, unsigned n, ht_xpart x, float *acc)
{
    const int8x16_t values = vld1q_s8(ht_values_mxfp4);
    int32x4_t v[8];
    for (unsigned j = 0; j < 8; j++)
        v[j] = times_x(lookup(values, block(w, n, j, 17) + 1), x.q + 32 * j, true);
    ht_add_blocks(acc, (float32x4x2_t){ { powers(w, n, 0), powers(w, n, 4) } }, x, ht_reduce(v));
}

/* ---- blocks of 256 --------------------------------------------------------------------------------------------- */

/* Eight bytes as two vectors of integers. */
HT_INLINE int32x4x2_t widen(uint32_t a, uint32_t b)
{
    const uint16x8_t v = vmovl_u8(vcreate_u8((uint64_t)b << 32 | a));
    return (int32x4x2_t){ { vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(v))),
                            vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(v))) } };
}

/* Q4_K, Q5_K: acc + (d * x.d) * (scale * isum) - (dmin * x.d) * (minimum * sum(x)); 12 bytes of 6-bit numbers: see
 * unpack.c. */
HT_INLINE void add_wide(float *acc, const uint8_t *w, ht_xpart x, int32x4x2_t isum)
{
    const uint32_t a = ht_dword(w + 4), b = ht_dword(w + 8), c = ht_dword(w + 12);
    const uint32_t m6 = 0x3f3f3f3f, m4 = 0x0f0f0f0f, top = 0x30303030;
    ht_add_blocks(acc, ht_all_blocks(ht_half_at(w)), x, ht_times(isum, widen(a & m6, (c & m4) | (a >> 2 & top))));
    ht_add_blocks(acc, ht_all_blocks(-ht_half_at(w + 2)), x,
                  ht_times(ht_sums(x), widen(b & m6, (c >> 4 & m4) | (b >> 2 & top))));
}

HT_INLINE void step_q4_k(const uint8_t *w, unsigned n, ht_xpart x, float *acc)
{
    const uint8x16_t m15 = vdupq_n_u8(15);
    int32x4_t v[8];
    (void)n;
    for (unsigned j = 0; j < 4; j++) {
        const uint8x16_t a = vld1q_u8(w + 16 + 32 * j), b = vld1q_u8(w + 32 + 32 * j);
        v[2 * j] = times_x(signed_weights(vandq_u8(a, m15), vandq_u8(b, m15)), x.q + 64 * j, true);
        v[2 * j + 1] = times_x(signed_weights(vshrq_n_u8(a, 4), vshrq_n_u8(b, 4)), x.q + 64 * j + 32, true);
    }
    add_wide(acc, w, x, ht_reduce(v));
}

/* Bit b of every byte, at bit 0. */
HT_INLINE uint8x16_t bit_of(uint8x16_t v, unsigned b)
{
    return vandq_u8(vshlq_u8(v, vdupq_n_s8((int8_t) - (int)b)), vdupq_n_u8(1));
}

HT_INLINE void step_q5_k(const uint8_t *w, unsigned n, ht_xpart x, float *acc)
{
    const uint8x16_t h0 = vld1q_u8(w + 16), h1 = vld1q_u8(w + 32);
    int32x4_t v[8];
    (void)n;
    for (unsigned j = 0; j < 4; j++) {
        const uint8x16_t a = vld1q_u8(w + 48 + 32 * j), b = vld1q_u8(w + 64 + 32 * j);
        /* an insertion above bit 4 replaces the upper nibble */
        v[2 * j] = times_x(signed_weights(vsliq_n_u8(a, bit_of(h0, 2 * j), 4), vsliq_n_u8(b, bit_of(h1, 2 * j), 4)),
                           x.q + 64 * j, true);
        v[2 * j + 1] = times_x(signed_weights(vsliq_n_u8(vshrq_n_u8(a, 4), bit_of(h0, 2 * j + 1), 4),
                                              vsliq_n_u8(vshrq_n_u8(b, 4), bit_of(h1, 2 * j + 1), 4)),
                               x.q + 64 * j + 32, true);
    }
    add_wide(acc, w, x, ht_reduce(v));
}

/* Sixteen scales, bytes to 16 bits. */
HT_INLINE int16x8x2_t scales(int8x16_t sc)
{
    return (int16x8x2_t){ { vmovl_s8(vget_low_s8(sc)), vmovl_s8(vget_high_s8(sc)) } };
}

/* The halves of 32 weights with their block of x. */
HT_INLINE void times_halves(int32x4_t *v, uint8x16_t lo, uint8x16_t hi, const int8_t *x)
{
    v[0] = ht_mul16(vreinterpretq_s8_u8(lo), vld1q_s8(x));
    v[1] = ht_mul16(vreinterpretq_s8_u8(hi), vld1q_s8(x + 16));
}

HT_INLINE void step_q6_k(const uint8_t *w, unsigned n, ht_xpart x, float *acc)
{
    const uint8x16_t m3 = vdupq_n_u8(3), m48 = vdupq_n_u8(0x30);
    int32x4_t v[16];
    (void)n;
    for (unsigned h = 0; h < 2; h++) {
        uint8x16_t q[4][2];
        for (unsigned i = 0; i < 2; i++) {
            const uint8x16_t a = vld1q_u8(w + 64 * h + 16 * i), b = vld1q_u8(w + 64 * h + 32 + 16 * i);
            const uint8x16_t bits = vld1q_u8(w + 128 + 32 * h + 16 * i);
            q[0][i] = vsliq_n_u8(a, vandq_u8(bits, m3), 4);
            q[1][i] = vsliq_n_u8(b, vandq_u8(vshrq_n_u8(bits, 2), m3), 4);
            q[2][i] = vorrq_u8(vshrq_n_u8(a, 4), vandq_u8(bits, m48));
            q[3][i] = vorrq_u8(vshrq_n_u8(b, 4), vandq_u8(vshrq_n_u8(bits, 2), m48));
        }
        for (unsigned j = 0; j < 4; j++)
            times_halves(v + 8 * h + 2 * j, q[j][0], q[j][1], x.q + 128 * h + 32 * j);
    }
    const int16x8x2_t sc = scales(vreinterpretq_s8_u8(vld1q_u8(w + 192)));
    ht_add_blocks(acc, ht_all_blocks(ht_half_at(w + 208)), x, ht_reduce_scaled(v, sc, x.s, 32));
}

HT_INLINE uint8x16_t two_bits(uint8x16_t v, unsigned j)
{
    return vandq_u8(vshlq_u8(v, vdupq_n_s8((int8_t)(-2 * (int)j))), vdupq_n_u8(3));
}

HT_INLINE void step_q2_k(const uint8_t *w, unsigned n, ht_xpart x, float *acc)
{
    const uint8x16_t bytes = vld1q_u8(w);
    int32x4_t v[16];
    (void)n;
    for (unsigned h = 0; h < 2; h++) {
        const uint8x16_t a = vld1q_u8(w + 16 + 32 * h), b = vld1q_u8(w + 32 + 32 * h);
        for (unsigned j = 0; j < 4; j++)
            times_halves(v + 8 * h + 2 * j, two_bits(a, j), two_bits(b, j), x.q + 128 * h + 32 * j);
    }
    const int16x8x2_t sc = scales(vreinterpretq_s8_u8(vandq_u8(bytes, vdupq_n_u8(15))));
    const int16x8x2_t mn = scales(vreinterpretq_s8_u8(vshrq_n_u8(bytes, 4)));
    int32x4x2_t m;
    for (int i = 0; i < 2; i++) {
        const int16x8_t s = vld1q_s16(x.s + 8 * i);
        m.val[i] = vpaddq_s32(vmull_s16(vget_low_s16(mn.val[i]), vget_low_s16(s)), vmull_high_s16(mn.val[i], s));
    }
    ht_add_blocks(acc, ht_all_blocks(ht_half_at(w + 80)), x, ht_reduce_scaled(v, sc, x.s, 0));
    ht_add_blocks(acc, ht_all_blocks(-ht_half_at(w + 82)), x, m);
}

HT_INLINE void step_q3_k(const uint8_t *w, unsigned n, ht_xpart x, float *acc)
{
    static const int32_t places[4] = { 0, -2, -4, -6 };
    const uint8x16_t h0 = vld1q_u8(w), h1 = vld1q_u8(w + 16);
    int32x4_t v[16];
    (void)n;
    for (unsigned h = 0; h < 2; h++) {
        const uint8x16_t a = vld1q_u8(w + 32 + 32 * h), b = vld1q_u8(w + 48 + 32 * h);
        for (unsigned j = 0; j < 4; j++)
            times_halves(v + 8 * h + 2 * j, vsliq_n_u8(two_bits(a, j), bit_of(h0, 4 * h + j), 2),
                         vsliq_n_u8(two_bits(b, j), bit_of(h1, 4 * h + j), 2), x.q + 128 * h + 32 * j);
    }
    /* low 4 bits of scales 0..7 and 8..15 in the nibbles of 8 bytes, high 2 bits in 4 bytes */
    const uint8x8_t s = vld1_u8(w + 96);
    const uint8x16_t low = vcombine_u8(vand_u8(s, vdup_n_u8(15)), vshr_n_u8(s, 4));
    const uint8x16_t high = vreinterpretq_u8_u32(vshlq_u32(vdupq_n_u32(ht_dword(w + 104)), vld1q_s32(places)));
    const uint8x16_t sc = vsubq_u8(vsliq_n_u8(low, vandq_u8(high, vdupq_n_u8(3)), 4), vdupq_n_u8(32));
    ht_add_blocks(acc, ht_all_blocks(ht_half_at(w + 108)), x,
                  ht_reduce_scaled(v, scales(vreinterpretq_s8_u8(sc)), x.s, 4));
}

HT_INLINE void step_tq2_0(const uint8_t *w, unsigned n, ht_xpart x, float *acc)
{
    int32x4_t v[8];
    (void)n;
    for (unsigned h = 0; h < 2; h++) {
        const uint8x16_t a = vld1q_u8(w + 32 * h), b = vld1q_u8(w + 32 * h + 16);
        for (unsigned j = 0; j < 4; j++)
            v[4 * h + j] = times_x(signed_weights(two_bits(a, j), two_bits(b, j)), x.q + 128 * h + 32 * j, true);
    }
    ht_add_blocks(acc, ht_all_blocks(ht_half_at(w + 64)), x, ht_less_sums(ht_reduce(v), x, 1));
}

HT_INLINE void step_iq4_xs(const uint8_t *w, unsigned n, ht_xpart x, float *acc)
{
    static const int32_t fours[8] = { 0, -4, -8, -12, -16, -20, -24, -28 },
                         twos[8] = { 0, -2, -4, -6, -8, -10, -12, -14 };
    const uint32x4_t low = vdupq_n_u32(ht_dword(w + 4)), high = vdupq_n_u32(ht_word(w + 2));
    const int8x16_t values = vld1q_s8(ht_values_iq4_nl);
    int32x4_t v[8];
    int32x4x2_t sc;
    (void)n;
    for (unsigned j = 0; j < 8; j++)
        v[j] = times_x(lookup(values, w + 8 + 16 * j), x.q + 32 * j, false);
    for (int i = 0; i < 2; i++) {
        uint32x4_t a = vandq_u32(vshlq_u32(low, vld1q_s32(fours + 4 * i)), vdupq_n_u32(15));
        uint32x4_t b = vandq_u32(vshlq_u32(high, vld1q_s32(twos + 4 * i)), vdupq_n_u32(3));
        sc.val[i] = vsubq_s32(vreinterpretq_s32_u32(vsliq_n_u32(a, b, 4)), vdupq_n_s32(32));
    }
    ht_add_blocks(acc, ht_all_blocks(ht_half_at(w)), x, ht_times(ht_reduce(v), sc));
}

#define KERNEL(name, S, tails)                                                                                         \
    void HT_LEVEL(ht_dot_q8_##name)(float *y, const void *w, size_t stride, const uint32_t *rows, uint32_t n_rows,     \
                                    const ht_q8_row *x, uint32_t k)                                                    \
    {                                                                                                                  \
        ht_dot_q8_rows(y, w, stride, rows, n_rows, x, k, S, tails, step_##name);                                       \
    }
KERNEL(q4_0, 8 * 18, true)
KERNEL(q4_1, 8 * 20, true)
KERNEL(q5_0, 8 * 22, true)
KERNEL(q5_1, 8 * 24, true)
KERNEL(q8_0, 8 * 34, true)
KERNEL(iq4_nl, 8 * 18, true)
KERNEL(mxfp4, 8 * 17, true)
KERNEL(q2_k, 84, false)
KERNEL(q3_k, 110, false)
KERNEL(q4_k, 144, false)
KERNEL(q5_k, 176, false)
KERNEL(q6_k, 210, false)
KERNEL(iq4_xs, 136, false)
KERNEL(tq2_0, 66, false)
