/* SPDX-License-Identifier: MIT
 *
 * The vec kernels of cpu/kernels.h, written once in plain C and compiled per SIMD level: vec_<isa>.c defines
 * HT_VEC(name) and includes this file. Where a compiler makes slow code of the plain form, vec_simd.h has the same
 * arithmetic in intrinsics and defines HT_VEC_LANES; the plain form then is what ref runs. The order of every sum is
 * fixed: accumulators i mod 32 (mod 16 over positions), then the tree. Threads: any; no state. */
#include "cpu/vec_common.h"

#if !defined(HT_VEC_LANES)

static float HT_VEC(ht_dot)(const float *a, const float *b, uint32_t n)
{
    float acc[32] = { 0 };
    uint32_t i = 0;
    for (; i + 32 <= n; i += 32)
        for (uint32_t l = 0; l < 32; l++) acc[l] = fmaf(a[i + l], b[i + l], acc[l]);
    for (uint32_t l = 0; i < n; i++, l++) acc[l] = fmaf(a[i], b[i], acc[l]);
    return ht_vec_tree32(acc);
}

static void HT_VEC(ht_quantise_q8)(const float *x, uint32_t k, int8_t *q, float *d, int16_t *s)
{
    for (uint32_t b = 0; b < k / 32; b++, x += 32, q += 32) {
        uint32_t amax = ht_vec_amax_bits32(x);
        float db = ht_f32_from_bits(amax) / 127.0f;
        float id = 127.0f / ht_f32_from_bits(amax); /* not 1 / db: rounded once, nearer to the true quotient */
        if (amax >= 0x7f800000u || !(id <= FLT_MAX)) {
            d[b] = ht_vec_null_block_d(amax);
            s[2 * b] = s[2 * b + 1] = 0;
            memset(q, 0, 32);
            continue;
        }
        int32_t sum[2] = { 0, 0 };
        for (uint32_t i = 0; i < 32; i++) {
            q[i] = (int8_t)(uint8_t)ht_f32_bits(x[i] * id + 12582912.0f); /* nearest even, |x * id| <= 127.5 */
            sum[i / 16] += q[i];
        }
        d[b] = db;
        s[2 * b] = (int16_t)sum[0];
        s[2 * b + 1] = (int16_t)sum[1];
    }
}

static void HT_VEC(store_f16)(const float *x, uint32_t n, void *row)
{
    uint8_t *p = row;
    for (uint32_t i = 0; i < n; i++) {
        uint16_t h = ht_vec_f32_to_f16(x[i]);
        memcpy(p + (size_t)i * 2, &h, 2);
    }
}

static void HT_VEC(ht_delta)(const float *q, const float *k, const float *v, float decay, float beta, uint32_t k_dim,
                             uint32_t v_dim, float *S, float *tmp, float *y)
{
    for (uint32_t j = 0; j < v_dim; j++) tmp[j] = 0.0f;
    for (uint32_t i = 0; i < k_dim; i++) {
        const float *row = S + (size_t)i * v_dim;
        for (uint32_t j = 0; j < v_dim; j++) tmp[j] = fmaf(row[j] * decay, k[i], tmp[j]);
    }
    for (uint32_t j = 0; j < v_dim; j++) tmp[j] = (v[j] - tmp[j]) * beta;
    for (uint32_t j = 0; j < v_dim; j++) y[j] = 0.0f;
    for (uint32_t i = 0; i < k_dim; i++) {
        float *row = S + (size_t)i * v_dim;
        for (uint32_t j = 0; j < v_dim; j++) {
            row[j] = fmaf(k[i], tmp[j], row[j] * decay);
            y[j] = fmaf(row[j], q[i], y[j]);
        }
    }
}

static float HT_VEC(sum)(const float *x, uint32_t n)
{
    float acc[32] = { 0 };
    uint32_t i = 0;
    for (; i + 32 <= n; i += 32)
        for (uint32_t l = 0; l < 32; l++) acc[l] += x[i + l];
    for (uint32_t l = 0; i < n; i++, l++) acc[l] += x[i];
    return ht_vec_tree32(acc);
}

/* sum of (x - mean)^2 */
static float HT_VEC(sum_dev2)(const float *x, uint32_t n, float mean)
{
    float acc[32] = { 0 };
    uint32_t i = 0;
    for (; i + 32 <= n; i += 32)
        for (uint32_t l = 0; l < 32; l++) acc[l] = fmaf(x[i + l] - mean, x[i + l] - mean, acc[l]);
    for (uint32_t l = 0; i < n; i++, l++) acc[l] = fmaf(x[i] - mean, x[i] - mean, acc[l]);
    return ht_vec_tree32(acc);
}

/* Largest element; NaN does not count; -infinity of none. */
static float HT_VEC(max)(const float *x, uint32_t n)
{
    float m = -INFINITY;
    for (uint32_t i = 0; i < n; i++) m = x[i] > m ? x[i] : m;
    return m;
}

/* Sum of x[j0 .. j1) by j mod 16. */
static float HT_VEC(sum16)(const float *x, uint32_t j0, uint32_t j1)
{
    float acc[16] = { 0 };
    for (uint32_t j = j0; j < j1; j++) acc[j % 16] += x[j];
    return ht_vec_tree16(acc);
}

#endif /* plain forms */

/* out = (x - mean) * r, then * w, then + b fused with the product before it. Only layer norm has a mean; x - 0 is x. */
static void HT_VEC(ht_norm)(ht_norm_kind kind, const float *x, uint32_t k, float eps, const float *weight,
                            const float *bias, float *out)
{
    float mean = 0.0f, r = 1.0f;
    if (kind == HT_NORM_LAYER) {
        mean = HT_VEC(sum)(x, k) / (float)k;
        r = 1.0f / sqrtf(HT_VEC(sum_dev2)(x, k, mean) / (float)k + eps);
    } else if (kind == HT_NORM_RMS) {
        r = 1.0f / sqrtf(HT_VEC(ht_dot)(x, x, k) / (float)k + eps);
    } else if (kind == HT_NORM_L2) {
        r = 1.0f / sqrtf(HT_VEC(ht_dot)(x, x, k) + eps);
    } else {
        if (out != x) memcpy(out, x, (size_t)k * sizeof *x);
        return;
    }
    if (weight && bias) {
        HT_IVDEP
        for (uint32_t i = 0; i < k; i++) out[i] = fmaf((x[i] - mean) * r, weight[i], bias[i]);
    } else if (weight) {
        HT_IVDEP
        for (uint32_t i = 0; i < k; i++) out[i] = (x[i] - mean) * r * weight[i];
    } else if (bias) {
        HT_IVDEP
        for (uint32_t i = 0; i < k; i++) out[i] = fmaf(x[i] - mean, r, bias[i]);
    } else {
        HT_IVDEP
        for (uint32_t i = 0; i < k; i++) out[i] = (x[i] - mean) * r;
    }
}

/* Comparisons are written so that NaN passes through. */
HT_INLINE float HT_VEC(act_fatrelu)(float x, float t) { return x <= t ? 0.0f : x; }

HT_INLINE float HT_VEC(act_relu2)(float x)
{
    float r = HT_VEC(act_fatrelu)(x, 0.0f);
    return r * r;
}

HT_INLINE float HT_VEC(act_oai_gate)(float x)
{
    float g = x > 7.0f ? 7.0f : x;
    return g / (1.0f + ht_expf(-1.702f * g));
}

HT_INLINE float HT_VEC(act_oai_up)(float x)
{
    float u = x > 7.0f ? 7.0f : x;
    u = u < -7.0f ? -7.0f : u;
    return u + 1.0f;
}

/* One loop per activation, so that the switch is outside; x is the element act applies to, v what it multiplies. */
#define GLU_LOOP(with_gate, without)                                                                                   \
    if (g) {                                                                                                           \
        HT_IVDEP                                                                                                       \
        for (uint32_t i = 0; i < n; i++) {                                                                             \
            float x = g[i], v = u[i], y = (with_gate);                                                                 \
            h[i] = y;                                                                                                  \
            live += y != 0.0f;                                                                                         \
        }                                                                                                              \
    } else {                                                                                                           \
        HT_IVDEP                                                                                                       \
        for (uint32_t i = 0; i < n; i++) {                                                                             \
            float x = u[i], y = (without);                                                                             \
            h[i] = y;                                                                                                  \
            live += y != 0.0f;                                                                                         \
        }                                                                                                              \
    }                                                                                                                  \
    break
#define GLU_CASE(id, f)                                                                                                \
    case id: GLU_LOOP((f) * v, (f))
/* Activations with exact zeros: zero whatever it is multiplied by, so that an up row need not be read. */
#define GLU_SHUT(a, b) ((a) == 0.0f ? 0.0f : (a) * (b))
#define GLU_CASE_SHUT(id, f)                                                                                           \
    case id: GLU_LOOP(GLU_SHUT((f), v), (f))

static uint32_t HT_VEC(ht_glu)(ht_activation act, float param, const float *g, const float *u, uint32_t n, float *h)
{
    uint32_t live = 0;
    switch (act) {
    GLU_CASE(HT_ACT_SILU, ht_siluf(x));
    GLU_CASE(HT_ACT_GELU_TANH, ht_gelu_tanhf(x));
    GLU_CASE(HT_ACT_GELU_ERF, ht_gelu_erff(x));
    GLU_CASE_SHUT(HT_ACT_RELU, HT_VEC(act_fatrelu)(x, 0.0f));
    GLU_CASE_SHUT(HT_ACT_RELU2, HT_VEC(act_relu2)(x));
    GLU_CASE_SHUT(HT_ACT_FATRELU, HT_VEC(act_fatrelu)(x, param));
    GLU_CASE(HT_ACT_SIGMOID, ht_sigmoidf(x));
    GLU_CASE(HT_ACT_IDENTITY, x);
    case HT_ACT_DRELU:
        GLU_LOOP(GLU_SHUT(HT_VEC(act_fatrelu)(x, 0.0f), HT_VEC(act_fatrelu)(v, 0.0f)), HT_VEC(act_fatrelu)(x, 0.0f));
    case HT_ACT_SWIGLU_OAI:
        GLU_LOOP(HT_VEC(act_oai_gate)(x) * HT_VEC(act_oai_up)(v), HT_VEC(act_oai_gate)(x));
    }
    return live;
}

#undef GLU_CASE
#undef GLU_CASE_SHUT
#undef GLU_SHUT
#undef GLU_LOOP

static void HT_VEC(ht_add)(float ax, const float *x, float ay, float *y, uint32_t n)
{
    if (ay == 0.0f) {
        HT_IVDEP
        for (uint32_t i = 0; i < n; i++) y[i] = ax * x[i];
    } else {
        HT_IVDEP
        for (uint32_t i = 0; i < n; i++) y[i] = fmaf(ax, x[i], ay * y[i]);
    }
}

static void HT_VEC(ht_axpy)(float w, const float *x, float *y, uint32_t n)
{
    HT_IVDEP
    for (uint32_t i = 0; i < n; i++) y[i] = fmaf(w, x[i], y[i]);
}

#if !defined(HT_VEC_LANES)
static void HT_VEC(ht_unpack)(ht_type type, const void *src, uint32_t k, float *dst)
{
    ht_type_dequant(type, src, k, dst);
}

static void HT_VEC(ht_outer)(float *y, size_t ldy, const float *h, size_t ldh, uint32_t n_tok, const float *w, size_t ldw,
                             uint32_t n_rows, uint32_t n)
{
    for (uint32_t t = 0; t < n_tok; t++)
        for (uint32_t r = 0; r < n_rows; r++) HT_VEC(ht_axpy)(h[t * ldh + r], w + r * ldw, y + t * ldy, n);
}
#endif

static void HT_VEC(ht_softcap)(float *y, uint32_t n, float cap, float scale)
{
    if (cap > 0.0f) {
        for (uint32_t i = 0; i < n; i++) y[i] = cap * ht_tanhf(y[i] / cap) * scale;
    } else {
        for (uint32_t i = 0; i < n; i++) y[i] *= scale;
    }
}

static void HT_VEC(ht_rope)(float *x, uint32_t n_rot, bool neox, const float *cos_sin)
{
    uint32_t half = n_rot / 2;
    const float *c = cos_sin, *s = cos_sin + half;
    uint32_t step = neox ? 1 : 2, other = neox ? half : 1;
    if (neox) {
        HT_IVDEP
        for (uint32_t i = 0; i < half; i++) {
            float a = x[i], b = x[i + other];
            x[i] = fmaf(a, c[i], -(b * s[i]));
            x[i + other] = fmaf(a, s[i], b * c[i]);
        }
    } else {
        HT_IVDEP
        for (uint32_t i = 0; i < half; i++) {
            float a = x[step * i], b = x[step * i + 1];
            x[step * i] = fmaf(a, c[i], -(b * s[i]));
            x[step * i + 1] = fmaf(a, s[i], b * c[i]);
        }
    }
}

static void HT_VEC(ht_kv_store)(ht_type type, const float *x, uint32_t n, void *row)
{
    uint8_t *p = row;
    if (type == HT_F32) {
        memcpy(p, x, (size_t)n * 4);
    } else if (type == HT_F16) {
        HT_VEC(store_f16)(x, n, row);
    } else if (type == HT_Q8_0) {
        for (uint32_t b = 0; b < n / 32; b++) ht_vec_store_q8_0(x + 32 * (size_t)b, p + (size_t)b * HT_KV_Q8_0_BYTES);
    } else {
        for (uint32_t b = 0; b < n / 32; b++) ht_vec_store_q4_0(x + 32 * (size_t)b, p + (size_t)b * HT_KV_Q4_0_BYTES);
    }
}

void HT_VEC(ht_exp_sum)(float *x, uint32_t j0, uint32_t j1, float *m_out, float *l_out)
{
    float m = HT_VEC(max)(x + j0, j1 - j0) + 0.0f; /* + 0: one zero, whichever of both an order meets first */
    for (uint32_t j = j0; j < j1; j++) x[j] = ht_expf(x[j] - m);
    *m_out = m;
    *l_out = HT_VEC(sum16)(x, j0, j1);
}

static void HT_VEC(ht_attend_join)(float m, float l, const float *o, float *M, float *L, float *O, uint32_t v_dim,
                                   bool first)
{
    if (first) {
        *M = m;
        *L = l;
        memcpy(O, o, (size_t)v_dim * sizeof *o);
        return;
    }
    float top = m > *M ? m : *M;
    /* Equal first: two pages without any position would give infinity - infinity. */
    float a = *M == top ? 1.0f : ht_expf(*M - top);
    float b = m == top ? 1.0f : ht_expf(m - top);
    *M = top;
    *L = fmaf(l, b, *L * a);
    HT_IVDEP
    for (uint32_t i = 0; i < v_dim; i++) O[i] = fmaf(o[i], b, O[i] * a);
}

static void HT_VEC(ht_softmax)(float *x, uint32_t n)
{
    float m, l;
    HT_VEC(ht_exp_sum)(x, 0, n, &m, &l);
    float r = 1.0f / l;
    for (uint32_t i = 0; i < n; i++) x[i] *= r;
}

/* One tap count per copy of the loop: with the count known the compiler vectorises over channels. Products are added in
 * order of time, the bias last. */
HT_INLINE void HT_VEC(conv_taps)(const float *x, float *y, uint32_t n, uint32_t taps, const float *w, const float *bias,
                                 float *state, uint32_t state_stride, bool silu)
{
    HT_IVDEP
    for (uint32_t c = 0; c < n; c++) {
        float in = x[c], acc = 0.0f;
        const float *wc = w + (size_t)c * taps;
        for (uint32_t t = 0; t + 1 < taps; t++) acc = fmaf(wc[t], state[(size_t)t * state_stride + c], acc);
        acc = fmaf(wc[taps - 1], in, acc);
        if (bias) acc += bias[c];
        for (uint32_t t = 0; t + 2 < taps; t++)
            state[(size_t)t * state_stride + c] = state[(size_t)(t + 1) * state_stride + c];
        if (taps > 1) state[(size_t)(taps - 2) * state_stride + c] = in;
        y[c] = silu ? ht_siluf(acc) : acc;
    }
}

static void HT_VEC(ht_conv)(const float *x, float *y, uint32_t n, uint32_t taps, const float *w, const float *bias,
                            float *state, uint32_t state_stride, bool silu)
{
    if (taps == 4 && silu && !bias) {
        HT_VEC(conv_taps)(x, y, n, 4, w, NULL, state, state_stride, true);
    } else if (taps == 4 && silu) {
        HT_VEC(conv_taps)(x, y, n, 4, w, bias, state, state_stride, true);
    } else if (taps == 3 && !silu && !bias) {
        HT_VEC(conv_taps)(x, y, n, 3, w, NULL, state, state_stride, false);
    } else {
        HT_VEC(conv_taps)(x, y, n, taps, w, bias, state, state_stride, silu);
    }
}

static uint64_t HT_VEC(ht_read)(const uint64_t *x, size_t n)
{
    uint64_t acc[32] = { 0 }, all = 0;
    for (size_t i = 0; i + 32 <= n; i += 32) {
        for (size_t l = 0; l < 32; l += 8) __builtin_prefetch(x + i + 512 + l);
        for (size_t l = 0; l < 32; l++) acc[l] ^= x[i + l];
    }
    for (size_t l = 0; l < 32; l++) all ^= acc[l];
    return all;
}

const ht_vec_kernels HT_VEC(ht_vec_kernels) = {
    .quantise_q8 = HT_VEC(ht_quantise_q8),
    .norm = HT_VEC(ht_norm),
    .glu = HT_VEC(ht_glu),
    .add = HT_VEC(ht_add),
    .axpy = HT_VEC(ht_axpy),
    .unpack = HT_VEC(ht_unpack),
    .outer = HT_VEC(ht_outer),
    .softcap = HT_VEC(ht_softcap),
    .rope = HT_VEC(ht_rope),
    .dot = HT_VEC(ht_dot),
    .kv_store = HT_VEC(ht_kv_store),
    .attend_join = HT_VEC(ht_attend_join),
    .softmax = HT_VEC(ht_softmax),
    .conv = HT_VEC(ht_conv),
    .delta = HT_VEC(ht_delta),
    .read = HT_VEC(ht_read),
};
