/* SPDX-License-Identifier: MIT
 *
 * The vec kernels of down projections in rows of neurons, on the primitives of vec_lanes.h: unpacking of the types that
 * such files use, and sums of rows with as many accumulators in registers as there are. Included by vec_simd.h. Threads:
 * any; no state. */

static void HT_VEC(ht_unpack)(ht_type type, const void *src, uint32_t k, float *dst)
{
    const uint8_t *p = src;
    uint32_t i = 0;

    switch (type) {
    case HT_F16:
        for (; i + LANES <= k; i += LANES) vf_store(dst + i, vf_load_f16(p + 2 * (size_t)i));
        for (; i < k; i++) dst[i] = ht_vec_f16_to_f32(ht_vec_u16_at(p + 2 * (size_t)i));
        break;
    case HT_Q8_0:
        for (; i < k; i += 32, p += 34) {
            const vf d = vf_set1(ht_vec_f16_to_f32(ht_vec_u16_at(p)));
            for (int v = 0; v < UV; v++) vf_store(dst + i + v * LANES, vf_mul(d, vf_load_i8(p + 2 + v * LANES)));
        }
        break;
    case HT_Q4_0:
        for (; i < k; i += 32, p += 18) {
            const vf d = vf_set1(ht_vec_f16_to_f32(ht_vec_u16_at(p)));
            for (int v = 0; v < UV; v++) vf_store(dst + i + v * LANES, vf_mul(d, vf_load_i4(p + 2, v)));
        }
        break;
    default: ht_type_dequant(type, src, k, dst);
    }
}

/* nt tokens, nv vectors of outputs, both constants. */
HT_INLINE void outer_tile(float *y, size_t ldy, const float *h, size_t ldh, int nt, const float *w, size_t ldw,
                          uint32_t n_rows, int nv)
{
    vf acc[4][8];
    for (int t = 0; t < nt; t++)
        for (int v = 0; v < nv; v++) acc[t][v] = vf_load(y + (size_t)t * ldy + v * LANES);
    for (uint32_t r = 0; r < n_rows; r++, w += ldw)
        for (int t = 0; t < nt; t++) {
            const vf a = vf_set1(h[(size_t)t * ldh + r]);
            for (int v = 0; v < nv; v++) acc[t][v] = vf_fma(a, vf_load(w + v * LANES), acc[t][v]);
        }
    for (int t = 0; t < nt; t++)
        for (int v = 0; v < nv; v++) vf_store(y + (size_t)t * ldy + v * LANES, acc[t][v]);
}

static void HT_VEC(ht_outer)(float *y, size_t ldy, const float *h, size_t ldh, uint32_t n_tok, const float *w, size_t ldw,
                             uint32_t n_rows, uint32_t n)
{
    enum { TOKENS = 4, NARROW = 2, WIDE = 8 };
    uint32_t t = 0;

    for (; t + TOKENS <= n_tok; t += TOKENS, y += TOKENS * ldy, h += TOKENS * ldh) {
        uint32_t i = 0;
        for (; i + NARROW * LANES <= n; i += NARROW * LANES)
            outer_tile(y + i, ldy, h, ldh, TOKENS, w + i, ldw, n_rows, NARROW);
        for (; i + LANES <= n; i += LANES) outer_tile(y + i, ldy, h, ldh, TOKENS, w + i, ldw, n_rows, 1);
        for (; i < n; i++)
            for (uint32_t u = 0; u < TOKENS; u++)
                for (uint32_t r = 0; r < n_rows; r++)
                    y[u * ldy + i] = fmaf(h[u * ldh + r], w[r * ldw + i], y[u * ldy + i]);
    }
    for (; t < n_tok; t++, y += ldy, h += ldh) {
        uint32_t i = 0;
        for (; i + WIDE * LANES <= n; i += WIDE * LANES) outer_tile(y + i, ldy, h, ldh, 1, w + i, ldw, n_rows, WIDE);
        for (; i + LANES <= n; i += LANES) outer_tile(y + i, ldy, h, ldh, 1, w + i, ldw, n_rows, 1);
        for (; i < n; i++)
            for (uint32_t r = 0; r < n_rows; r++) y[i] = fmaf(h[r], w[r * ldw + i], y[i]);
    }
}
