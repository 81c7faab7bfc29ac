/* SPDX-License-Identifier: MIT
 *
 * Dot products with 8-bit activations, ARM: types whose weights come out of tables (IQ1, IQ2, IQ3), and TQ1_0. Included
 * after dot_q8_arm_body.h, which has KERNEL and the rest. The layouts are drawn in engine/base/unpack_iq.c. A step
 * takes eight blocks of 32, one block of the type; looking up is scalar loads, signs are decoded for eight blocks at a
 * time. */

/* Four entries of a table of eights. */
HT_INLINE weights four_of(const uint64_t *grid, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    return (weights){ vcombine_s8(vcreate_s8(grid[a]), vcreate_s8(grid[b])),
                      vcombine_s8(vcreate_s8(grid[c]), vcreate_s8(grid[d])) };
}

/* Eight entries of a table of fours. */
HT_INLINE weights eight_of(const uint32_t *grid, const uint32_t at[8])
{
    uint32x4_t lo = vdupq_n_u32(grid[at[0]]), hi = vdupq_n_u32(grid[at[4]]);
    lo = vsetq_lane_u32(grid[at[1]], lo, 1);
    lo = vsetq_lane_u32(grid[at[2]], lo, 2);
    lo = vsetq_lane_u32(grid[at[3]], lo, 3);
    hi = vsetq_lane_u32(grid[at[5]], hi, 1);
    hi = vsetq_lane_u32(grid[at[6]], hi, 2);
    hi = vsetq_lane_u32(grid[at[7]], hi, 3);
    return (weights){ vreinterpretq_s8_u32(lo), vreinterpretq_s8_u32(hi) };
}

/* Minus where a bit is set. */
HT_INLINE weights with_signs(weights w, uint32_t bits)
{
    const uint8x16x2_t m = ht_bit_masks(bits);
    const int8x16_t a = vreinterpretq_s8_u8(m.val[0]), b = vreinterpretq_s8_u8(m.val[1]);
    return (weights){ vsubq_s8(veorq_s8(w.lo, a), a), vsubq_s8(veorq_s8(w.hi, b), b) };
}

/* Seven stored signs in the low bits of every byte: the eighth makes the number of minuses even. */
HT_INLINE uint8x16_t add_eighth(uint8x16_t s)
{
    return vsliq_n_u8(s, vcntq_u8(s), 7);
}

/* Four words of 4 x 7 signs and 4 bits of scale: the signs, a byte for eight; the scales, 2 s + 1. */
HT_INLINE int32x4_t signs_and_scales(uint32x4_t w, uint32_t signs[4])
{
    uint32x4_t s = vandq_u32(w, vdupq_n_u32(0x7f));
    s = vorrq_u32(s, vandq_u32(vshlq_n_u32(w, 1), vdupq_n_u32(0x7f00)));
    s = vorrq_u32(s, vandq_u32(vshlq_n_u32(w, 2), vdupq_n_u32(0x7f0000)));
    s = vorrq_u32(s, vandq_u32(vshlq_n_u32(w, 3), vdupq_n_u32(0x7f000000)));
    vst1q_u32(signs, vreinterpretq_u32_u8(add_eighth(vreinterpretq_u8_u32(s))));
    return vreinterpretq_s32_u32(vaddq_u32(vshlq_n_u32(vshrq_n_u32(w, 28), 1), vdupq_n_u32(1)));
}

HT_INLINE uint32x4_t four_words(const uint8_t *p)
{
    return vreinterpretq_u32_u8(vld1q_u8(p));
}

/* Eight bytes, lo and hi nibble a scale of 16 elements each: 2 s + 1. */
HT_INLINE int16x8x2_t nibble_scales(const uint8_t *p)
{
    const uint8x8_t b = vld1_u8(p);
    const uint8x8x2_t both = vzip_u8(vand_u8(b, vdup_n_u8(15)), vshr_n_u8(b, 4));
    int16x8x2_t sc;
    for (int i = 0; i < 2; i++)
        sc.val[i] = vaddq_s16(vreinterpretq_s16_u16(vshll_n_u8(both.val[i], 1)), vdupq_n_s16(1));
    return sc;
}

HT_INLINE void times_halves_of(int32x4_t *v, weights w, const int8_t *x)
{
    v[0] = ht_mul16(w.lo, vld1q_s8(x));
    v[1] = ht_mul16(w.hi, vld1q_s8(x + 16));
}

HT_INLINE void step_iq2_xxs(const uint8_t *w, unsigned n, ht_xpart x, float *acc)
{
    uint32_t signs[8];
    int32x4_t v[8];
    int32x4x2_t sc;
    (void)n;
    /* each of the eight: 4 bytes of grid numbers, then the word */
    for (int i = 0; i < 2; i++)
        sc.val[i] =
            signs_and_scales(vuzp2q_u32(four_words(w + 2 + 32 * i), four_words(w + 18 + 32 * i)), signs + 4 * i);
    for (unsigned i = 0; i < 8; i++) {
        const uint8_t *p = w + 2 + 8 * i;
        v[i] = times_x(with_signs(four_of(ht_grid_iq2_xxs, p[0], p[1], p[2], p[3]), signs[i]), x.q + 32 * i, true);
    }
    ht_add_blocks(acc, ht_all_blocks(ht_half_at(w) * 0.125f), x, ht_times(ht_reduce(v), sc));
}

HT_INLINE void step_iq2_xs(const uint8_t *w, unsigned n, ht_xpart x, float *acc)
{
    uint32_t signs[8];
    int32x4_t v[16];
    (void)n;
    for (int i = 0; i < 2; i++) {
        const uint16x8_t a = vreinterpretq_u16_u8(vld1q_u8(w + 2 + 32 * i)),
                         b = vreinterpretq_u16_u8(vld1q_u8(w + 18 + 32 * i));
        const uint8x16_t s = vcombine_u8(vmovn_u16(vshrq_n_u16(a, 9)), vmovn_u16(vshrq_n_u16(b, 9)));
        vst1q_u32(signs + 4 * i, vreinterpretq_u32_u8(add_eighth(s)));
    }
    for (unsigned i = 0; i < 8; i++) {
        uint16_t g[4];
        memcpy(g, w + 2 + 8 * i, 8);
        times_halves_of(
            v + 2 * i,
            with_signs(four_of(ht_grid_iq2_xs, g[0] & 511u, g[1] & 511u, g[2] & 511u, g[3] & 511u), signs[i]),
            x.q + 32 * i);
    }
    ht_add_blocks(acc, ht_all_blocks(ht_half_at(w) * 0.125f), x, ht_reduce_scaled(v, nibble_scales(w + 66), x.s, 0));
}

HT_INLINE void step_iq2_s(const uint8_t *w, unsigned n, ht_xpart x, float *acc)
{
    int32x4_t v[16];
    (void)n;
    for (unsigned i = 0; i < 8; i++) {
        const uint8_t *p = w + 2 + 4 * i;
        const uint32_t h = w[66 + i];
        const weights g = four_of(ht_grid_iq2_s, p[0] | (h << 8 & 0x300), p[1] | (h << 6 & 0x300),
                                  p[2] | (h << 4 & 0x300), p[3] | (h << 2 & 0x300));
        times_halves_of(v + 2 * i, with_signs(g, ht_dword(w + 34 + 4 * i)), x.q + 32 * i);
    }
    ht_add_blocks(acc, ht_all_blocks(ht_half_at(w) * 0.125f), x, ht_reduce_scaled(v, nibble_scales(w + 74), x.s, 0));
}

HT_INLINE void step_iq3_xxs(const uint8_t *w, unsigned n, ht_xpart x, float *acc)
{
    uint32_t signs[8];
    int32x4_t v[8];
    int32x4x2_t sc;
    (void)n;
    for (int i = 0; i < 2; i++)
        sc.val[i] = signs_and_scales(four_words(w + 66 + 16 * i), signs + 4 * i);
    for (unsigned i = 0; i < 8; i++) {
        const uint8_t *p = w + 2 + 8 * i;
        const uint32_t at[8] = { p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7] };
        v[i] = times_x(with_signs(eight_of(ht_grid_iq3_xxs, at), signs[i]), x.q + 32 * i, true);
    }
    ht_add_blocks(acc, ht_all_blocks(ht_half_at(w) * 0.25f), x, ht_times(ht_reduce(v), sc));
}

HT_INLINE void step_iq3_s(const uint8_t *w, unsigned n, ht_xpart x, float *acc)
{
    const uint32_t nibble = ht_dword(w + 106), m4 = 0x0f0f0f0f;
    int32x4_t v[8];
    (void)n;
    for (unsigned i = 0; i < 8; i++) {
        const uint8_t *p = w + 2 + 8 * i;
        const uint32_t h = w[66 + i];
        const uint32_t at[8] = { p[0] | (h << 8 & 256), p[1] | (h << 7 & 256), p[2] | (h << 6 & 256),
                                 p[3] | (h << 5 & 256), p[4] | (h << 4 & 256), p[5] | (h << 3 & 256),
                                 p[6] | (h << 2 & 256), p[7] | (h << 1 & 256) };
        v[i] = times_x(with_signs(eight_of(ht_grid_iq3_s, at), ht_dword(w + 74 + 4 * i)), x.q + 32 * i, true);
    }
    /* lo, hi of byte j: scales of blocks 2 j, 2 j + 1 */
    const int32x4x2_t byte = widen(nibble & m4, nibble >> 4 & m4);
    int32x4x2_t sc = vzipq_s32(byte.val[0], byte.val[1]);
    for (int i = 0; i < 2; i++)
        sc.val[i] = vaddq_s32(vshlq_n_s32(sc.val[i], 1), vdupq_n_s32(1));
    ht_add_blocks(acc, ht_all_blocks(ht_half_at(w)), x, ht_times(ht_reduce(v), sc));
}

HT_INLINE void step_iq1_s(const uint8_t *w, unsigned n, ht_xpart x, float *acc)
{
    const uint16x8_t high = vreinterpretq_u16_u8(vld1q_u8(w + 34));
    const int32x4x2_t sums = ht_sums(x);
    int32x4_t v[8];
    (void)n;
    for (unsigned i = 0; i < 8; i++) {
        const uint8_t *p = w + 2 + 4 * i;
        const uint32_t h = ht_word(w + 34 + 2 * i);
        v[i] = times_x(four_of(ht_grid_iq1, p[0] | (h << 8 & 0x700), p[1] | (h << 5 & 0x700), p[2] | (h << 2 & 0x700),
                               p[3] | (h >> 1 & 0x700)),
                       x.q + 32 * i, true);
    }
    int32x4x2_t sum = ht_reduce(v), sc;
    for (int i = 0; i < 2; i++) {
        const uint32x4_t h = vmovl_u16(i ? vget_high_u16(high) : vget_low_u16(high));
        /* the +-1 of a block is the same for all of it */
        const int32x4_t delta = vsubq_s32(vdupq_n_s32(1), vreinterpretq_s32_u32(vshlq_n_u32(vshrq_n_u32(h, 15), 1)));
        const uint32x4_t s = vandq_u32(vshrq_n_u32(h, 12), vdupq_n_u32(7));
        sc.val[i] = vreinterpretq_s32_u32(vaddq_u32(vshlq_n_u32(s, 1), vdupq_n_u32(1)));
        sum.val[i] = vmlaq_s32(sum.val[i], sums.val[i], delta);
    }
    ht_add_blocks(acc, ht_all_blocks(ht_half_at(w) * 0.125f), x, ht_times(sum, sc));
}

HT_INLINE void step_iq1_m(const uint8_t *w, unsigned n, ht_xpart x, float *acc)
{
    static const uint64_t delta[2] = { 0x0101010101010101u, 0xffffffffffffffffu };
    static const int16_t places[8] = { 0, -3, -6, -9, 0, -3, -6, -9 };
    int32x4_t v[16];
    uint64_t s;
    int16x8x2_t sc;
    (void)n;
    for (unsigned i = 0; i < 8; i++) {
        const uint8_t *p = w + 4 * i;
        const uint32_t a = w[32 + 2 * i], b = w[33 + 2 * i];
        weights g = four_of(ht_grid_iq1, p[0] | (a << 8 & 0x700), p[1] | (a << 4 & 0x700), p[2] | (b << 8 & 0x700),
                            p[3] | (b << 4 & 0x700));
        const weights more = four_of(delta, a >> 3 & 1, a >> 7, b >> 3 & 1, b >> 7);
        g.lo = vaddq_s8(g.lo, more.lo);
        g.hi = vaddq_s8(g.hi, more.hi);
        times_halves_of(v + 2 * i, g, x.q + 32 * i);
    }
    memcpy(&s, w + 48, 8);
    for (int i = 0; i < 2; i++) { /* four words of four scales of 3 bits */
        const uint16x8_t word =
            vcombine_u16(vdup_n_u16((uint16_t)(s >> 32 * i)), vdup_n_u16((uint16_t)(s >> (32 * i + 16))));
        const uint16x8_t t = vandq_u16(vshlq_u16(word, vld1q_s16(places)), vdupq_n_u16(7));
        sc.val[i] = vreinterpretq_s16_u16(vaddq_u16(vshlq_n_u16(t, 1), vdupq_n_u16(1)));
    }
    const uint64_t d = (s >> 12 & 15) | (s >> 28 & 15) << 4 | (s >> 44 & 15) << 8 | (s >> 60) << 12;
    ht_add_blocks(acc, ht_all_blocks(ht_half((uint16_t)d) * 0.125f), x, ht_reduce_scaled(v, sc, x.s, 0));
}

/* Three times every byte, modulo 256: the next ternary digit comes to the top. */
HT_INLINE uint8x16_t next_digit(uint8x16_t s)
{
    return vaddq_u8(vaddq_u8(s, s), s);
}

/* The digit on top less 1: floor(3 s / 256) - 1. */
HT_INLINE int8x16_t top_digit(uint8x16_t s)
{
    const int8x16_t one = vreinterpretq_s8_u8(vcgeq_u8(s, vdupq_n_u8(86)));
    const int8x16_t two = vreinterpretq_s8_u8(vcgeq_u8(s, vdupq_n_u8(171)));
    return vsubq_s8(vsubq_s8(vdupq_n_s8(-1), one), two);
}

HT_INLINE void step_tq1_0(const uint8_t *w, unsigned n, ht_xpart x, float *acc)
{
    /* blocks 0..4: digits of 32 bytes; 5, 6 and half of 7: digits of 16; the rest: four digits of 4 */
    uint8x16_t a = vld1q_u8(w), b = vld1q_u8(w + 16), c = vld1q_u8(w + 32);
    int32x4_t v[8];
    (void)n;
    for (unsigned i = 0; i < 5; i++) {
        v[i] = times_x((weights){ top_digit(a), top_digit(b) }, x.q + 32 * i, true);
        a = next_digit(a);
        b = next_digit(b);
    }
    for (unsigned i = 5; i < 7; i++) {
        const uint8x16_t next = next_digit(c);
        v[i] = times_x((weights){ top_digit(c), top_digit(next) }, x.q + 32 * i, true);
        c = next_digit(next);
    }
    const uint32_t last = ht_dword(w + 48);
    const uint8x16_t d0 = vreinterpretq_u8_u32(vdupq_n_u32(last)), d1 = next_digit(d0), d2 = next_digit(d1),
                     d3 = next_digit(d2);
    const uint32x4_t even = vtrn1q_u32(vreinterpretq_u32_u8(d0), vreinterpretq_u32_u8(d1)),
                     odd = vtrn1q_u32(vreinterpretq_u32_u8(d2), vreinterpretq_u32_u8(d3));
    const uint8x16_t d = vreinterpretq_u8_u32(vcombine_u32(vget_low_u32(even), vget_low_u32(odd)));
    v[7] = times_x((weights){ top_digit(c), top_digit(d) }, x.q + 224, true);
    ht_add_blocks(acc, ht_all_blocks(ht_half_at(w + 52)), x, ht_reduce(v));
}

KERNEL(iq2_xxs, 66, false)
KERNEL(iq2_xs, 74, false)
KERNEL(iq2_s, 82, false)
KERNEL(iq3_xxs, 98, false)
KERNEL(iq3_s, 110, false)
KERNEL(iq1_s, 50, false)
KERNEL(iq1_m, 56, false)
KERNEL(tq1_0, 54, false)
