/* SPDX-License-Identifier: MIT
 *
 * Every operation of the CPU executor against naive C in double precision, on odd sizes: ragged last chunks, several
 * threads, outputs filled with NaN beforehand. (That every kernel has the bits of the contract is test_vec*.c and
 * test_check_*.c.) */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/cpu.h"

enum { MAX_K = 6000, MAX_HEAD = 128 };

static uint64_t seed = 1;

static float rnd(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (float)(int32_t)(seed >> 32) * 0x1p-31f;
}

static float *floats(size_t n)
{
    float *p = malloc((n + 1) * sizeof *p);
    for (size_t i = 0; i < n; i++)
        p[i] = rnd();
    return p;
}

static float *nans(size_t n)
{
    float *p = malloc((n + 1) * sizeof *p);
    memset(p, 0xff, (n + 1) * sizeof *p);
    return p;
}

static ht_exec *open_exec(uint32_t threads)
{
    ht_exec *x;
    ht_error err;
    ht_cpu_params p = { .threads = threads, .isa = ht_isa_best(), .max_k = MAX_K, .max_head = MAX_HEAD };
    cr_assert_eq(ht_cpu_open(&x, &p, &err), HT_OK, "%s", err.text);
    return x;
}

static void run(ht_exec *x, const ht_op *ops, size_t n)
{
    ht_event done;
    cr_assert_eq(x->ops->submit(x, ops, n, &done), HT_OK, "operation %d", ops[0].kind);
    cr_assert_eq(x->ops->wait(x, done, NULL), HT_OK);
}

static void near(const float *got, const double *want, size_t n, double scale, const char *what)
{
    for (size_t i = 0; i < n; i++)
        cr_assert(fabs(got[i] - want[i]) <= scale * (1e-6 + 2e-6 * fabs(want[i])), "%s: element %zu is %.9g, not %.9g",
                  what, i, (double)got[i], want[i]);
}

static ht_act plain(float *f, uint32_t stride)
{
    return (ht_act){ .f = f, .stride = stride };
}

static ht_part part_f32(const float *w, uint32_t n, uint32_t k)
{
    return (ht_part){ .type = HT_F32, .n = n, .k = k, .stride = (size_t)k * 4, .host = w };
}

static void for_threads(void (*test)(ht_exec *))
{
    for (uint32_t t = 1; t <= 3; t++) {
        ht_exec *x = open_exec(t);
        test(x);
        x->ops->close(x);
    }
}

/* ---- Rows -------------------------------------------------------------------------------------------------------- */

static void embed(ht_exec *x)
{
    enum { V = 11, K = 70, N = 5 };
    float *w = floats(V * K), *y = nans(N * (K + 3));
    const int32_t ids[N] = { 3, 0, 10, 3, 7 };
    double want[N * K];
    for (int scaled = 0; scaled < 2; scaled++) {
        ht_op op = { .kind = HT_OP_EMBED, .n_tok = N };
        op.embed = (ht_op_embed){
            .table = part_f32(w, V, K), .ids = ids, .scale = scaled ? 8.0f : 1.0f, .out = y, .out_stride = K + 3
        };
        run(x, &op, 1);
        for (int t = 0; t < N; t++) {
            for (int i = 0; i < K; i++)
                want[i] = (double)w[ids[t] * K + i] * op.embed.scale;
            near(y + t * (K + 3), want, K, 1, "embed");
            cr_assert(isnan(y[t * (K + 3) + K]), "embed wrote beyond its row");
        }
    }
    free(w);
    free(y);
}
Test(ops, embed)
{
    for_threads(embed);
}

static void norm(ht_exec *x)
{
    enum { N = 7, HEADS = 3, G = 26, K = HEADS * G, APART = G + 9, STRIDE = HEADS * APART };
    float *in = floats(N * STRIDE), *w = floats(K), *b = floats(K), *y = nans(N * K);
    for (int kind = HT_NORM_NONE; kind <= HT_NORM_L2; kind++)
        for (int bits = 0; bits < 16; bits++) {
            bool grouped = bits & 1, full = (bits & 2) && grouped, apart = (bits & 4) && grouped, bias = bits & 8;
            uint32_t group = grouped ? G : K;
            ht_op op = { .kind = HT_OP_NORM, .n_tok = N };
            op.norm = (ht_op_norm){ .x = in,
                                    .x_stride = STRIDE,
                                    .k = K,
                                    .group = group,
                                    .x_group = apart ? APART : 0,
                                    .weight_full = full,
                                    .kind = (ht_norm_kind)kind,
                                    .eps = 1e-3f,
                                    .weight = kind ? w : NULL,
                                    .bias = kind && bias ? b : NULL,
                                    .out = plain(y, K) };
            memset(y, 0xff, N * K * sizeof *y);
            run(x, &op, 1);
            for (int t = 0; t < N; t++)
                for (uint32_t g = 0; g < K; g += group) {
                    const float *v = in + t * STRIDE + (apart ? g / group * APART : g);
                    double mean = 0, sq = 0, want[K];
                    for (uint32_t i = 0; i < group; i++)
                        mean += v[i] / (double)group;
                    mean = kind == HT_NORM_LAYER ? mean : 0;
                    for (uint32_t i = 0; i < group; i++)
                        sq += (v[i] - mean) * (v[i] - mean);
                    double r = kind == HT_NORM_NONE ? 1 : 1 / sqrt((kind == HT_NORM_L2 ? sq : sq / group) + 1e-3f);
                    for (uint32_t i = 0; i < group; i++) {
                        uint32_t at = full ? g + i : i;
                        want[i] = (v[i] - mean) * r * (kind ? w[at] : 1) + (kind && bias ? b[at] : 0);
                    }
                    near(y + t * K + g, want, group, 2, "norm");
                }
        }
    free(in);
    free(w);
    free(b);
    free(y);
}
Test(ops, norm)
{
    for_threads(norm);
}

static void norm_in_place_with_q8(ht_exec *x)
{
    enum { N = 3, K = 96 };
    float *v = floats(N * K), *copy = malloc(N * K * sizeof *copy), *w = floats(K);
    int8_t q[N * K];
    float d[N * K / 32];
    int16_t s[N * K / 16];
    memcpy(copy, v, N * K * sizeof *v);
    memset(d, 0xff, sizeof d);
    ht_op op = { .kind = HT_OP_NORM, .n_tok = N };
    op.norm = (ht_op_norm){ .x = v,
                            .x_stride = K,
                            .k = K,
                            .group = K,
                            .kind = HT_NORM_RMS,
                            .eps = 1e-5f,
                            .weight = w,
                            .out = { .f = v, .stride = K, .q8 = { q, d, s, K } } };
    run(x, &op, 1);
    for (int t = 0; t < N; t++) {
        double sq = 0, want[K];
        for (int i = 0; i < K; i++)
            sq += (double)copy[t * K + i] * copy[t * K + i];
        for (int i = 0; i < K; i++)
            want[i] = copy[t * K + i] / sqrt(sq / K + 1e-5f) * w[i];
        near(v + t * K, want, K, 2, "norm in place");
    }
    for (int i = 0; i < N * K; i++)
        cr_assert(fabsf(q[i] * d[i / 32] - v[i]) <= d[i / 32] * 0.5001f, "element %d of the 8-bit form", i);
    for (int i = 0; i < N * K / 16; i++) {
        int sum = 0;
        for (int j = 0; j < 16; j++)
            sum += q[i * 16 + j];
        cr_assert_eq(s[i], sum);
    }
    /* The same from an operation of its own. */
    int8_t q2[N * K];
    float d2[N * K / 32];
    int16_t s2[N * K / 16];
    ht_op again = { .kind = HT_OP_QUANTISE, .n_tok = N };
    again.quantise = (ht_op_quantise){ .x = { .f = v, .stride = K, .q8 = { q2, d2, s2, K } }, .k = K };
    run(x, &again, 1);
    cr_assert(memcmp(q, q2, sizeof q) == 0 && memcmp(d, d2, sizeof d) == 0 && memcmp(s, s2, sizeof s) == 0);
    free(v);
    free(copy);
    free(w);
}
Test(ops, norm_in_place_and_quantise)
{
    for_threads(norm_in_place_with_q8);
}

static double act(ht_activation a, double g, double param)
{
    switch (a) {
    case HT_ACT_SILU: return g / (1 + exp(-g));
    case HT_ACT_GELU_TANH: return 0.5 * g * (1 + tanh(sqrt(2 / M_PI) * (g + 0.044715 * g * g * g)));
    case HT_ACT_GELU_ERF: return 0.5 * g * (1 + erf(g / sqrt(2)));
    case HT_ACT_RELU: return g > 0 ? g : 0;
    case HT_ACT_RELU2: return g > 0 ? g * g : 0;
    case HT_ACT_FATRELU: return g > param ? g : 0;
    case HT_ACT_SIGMOID: return 1 / (1 + exp(-g));
    default: return g;
    }
}

static double glu(ht_activation a, double g, double u, double param)
{
    if (a == HT_ACT_DRELU)
        return (g > 0 ? g : 0) * (u > 0 ? u : 0);
    if (a == HT_ACT_SWIGLU_OAI) {
        double c = u > 7 ? 7 : u < -7 ? -7 : u, m = g > 7 ? 7 : g;
        return (c + 1) * m / (1 + exp(-1.702 * m));
    }
    return act(a, g, param) * u;
}

static void add_gate_softcap(ht_exec *x)
{
    enum { N = 5, K = 77, WIDE = 8192 * 2 + 5 };
    float *a = floats(N * (K + 2)), *y = floats(N * (K + 4)), *was = malloc(N * (K + 4) * sizeof *was);
    double want[K];

    memcpy(was, y, N * (K + 4) * sizeof *y);
    ht_op op = { .kind = HT_OP_ADD, .n_tok = N };
    op.add = (ht_op_add){ .x = a, .y = y, .x_stride = K + 2, .y_stride = K + 4, .k = K, .ax = 0.5f, .ay = 2.0f };
    run(x, &op, 1);
    for (int t = 0; t < N; t++) {
        for (int i = 0; i < K; i++)
            want[i] = 0.5 * a[t * (K + 2) + i] + 2.0 * was[t * (K + 4) + i];
        near(y + t * (K + 4), want, K, 1, "add");
        cr_assert(memcmp(y + t * (K + 4) + K, was + t * (K + 4) + K, 16) == 0, "add wrote beyond");
    }
    memset(y, 0xff, N * (K + 4) * sizeof *y);
    op.add.ay = 0.0f;
    run(x, &op, 1);
    cr_assert_eq(y[1], 0.5f * a[1], "what was there does not count where ay is 0");

    /* Gates: in groups lying apart, and one per row. */
    enum { GROUPS = 3, G = 20, APART = 33, GK = GROUPS * G };
    static const ht_activation acts[] = { HT_ACT_SIGMOID, HT_ACT_SILU, HT_ACT_GELU_TANH };
    float *gate = floats(N * GROUPS * APART), *gy = floats(N * GK), *gwas = malloc(N * GK * sizeof *gwas);
    memcpy(gwas, gy, N * GK * sizeof *gy);
    for (int k = 0; k < 6; k++) {
        bool per_row = k >= 3;
        memcpy(gy, gwas, N * GK * sizeof *gy);
        ht_op g = { .kind = HT_OP_GATE, .n_tok = N };
        g.gate = (ht_op_gate){ .gate = gate,
                               .y = gy,
                               .gate_stride = GROUPS * APART,
                               .y_stride = GK,
                               .k = GK,
                               .group = G,
                               .gate_group = APART,
                               .act = acts[k % 3],
                               .per_row = per_row };
        run(x, &g, 1);
        for (int t = 0; t < N; t++) {
            for (int i = 0; i < GK; i++)
                want[i] = act(acts[k % 3], gate[t * GROUPS * APART + (per_row ? 0 : i / G * APART + i % G)], 0) *
                          gwas[t * GK + i];
            near(gy + t * GK, want, GK, 4, "gate");
        }
    }

    float *l = floats(2 * WIDE), *lw = malloc(2 * WIDE * sizeof *lw);
    for (int i = 0; i < 2 * WIDE; i++)
        lw[i] = l[i] *= 90.0f;
    ht_op cap = { .kind = HT_OP_SOFTCAP, .n_tok = 2 };
    cap.softcap = (ht_op_softcap){ .y = l, .y_stride = WIDE, .k = WIDE, .cap = 30.0f, .scale = 0.5f };
    run(x, &cap, 1);
    for (int i = 0; i < 2 * WIDE; i++)
        cr_assert_float_eq(l[i], 0.5 * 30 * tanh(lw[i] / 30), 1e-4, "soft cap of element %d", i);
    free(a);
    free(y);
    free(was);
    free(gate);
    free(gy);
    free(gwas);
    free(l);
    free(lw);
}
Test(ops, add_gate_softcap)
{
    for_threads(add_gate_softcap);
}

static void rope(ht_exec *x)
{
    enum { N = 3, HEADS = 3, DIM = 22, ROT = 14, STRIDE = HEADS * DIM + 5 };
    float *table = floats(N * (ROT + 2)), *v = floats(N * STRIDE), *was = malloc(N * STRIDE * sizeof *was);
    for (int neox = 0; neox < 2; neox++) {
        memcpy(was, v, N * STRIDE * sizeof *v);
        ht_op op = { .kind = HT_OP_ROPE, .n_tok = N };
        op.rope = (ht_op_rope){ .x = v,
                                .x_stride = STRIDE,
                                .n_head = HEADS,
                                .head_dim = DIM,
                                .n_rot = ROT,
                                .neox = neox,
                                .table = table,
                                .table_stride = ROT + 2 };
        run(x, &op, 1);
        for (int t = 0; t < N; t++)
            for (int h = 0; h < HEADS; h++) {
                double want[DIM];
                const float *in = was + t * STRIDE + h * DIM, *cs = table + t * (ROT + 2);
                for (int i = 0; i < DIM; i++)
                    want[i] = in[i];
                for (int i = 0; i < ROT / 2; i++) {
                    int p = neox ? i : 2 * i, q = neox ? i + ROT / 2 : 2 * i + 1;
                    want[p] = (double)in[p] * cs[i] - (double)in[q] * cs[ROT / 2 + i];
                    want[q] = (double)in[p] * cs[ROT / 2 + i] + (double)in[q] * cs[i];
                }
                near(v + t * STRIDE + h * DIM, want, DIM, 2, "rope");
            }
    }
    free(table);
    free(v);
    free(was);
}
Test(ops, rope)
{
    for_threads(rope);
}

/* ---- Products ---------------------------------------------------------------------------------------------------- */

static void matmul(ht_exec *x)
{
    static const uint32_t rows[] = { 1, 7, 33, 130, 515 }, toks[] = { 1, 2, 5, 19 };
    enum { K = 45 };
    for (size_t r = 0; r < 5; r++)
        for (size_t n = 0; n < 4; n++) {
            uint32_t R = rows[r], N = toks[n];
            float *w = floats(R * K), *b = floats(R), *in = floats(N * (K + 3)), *y = nans(N * (R + 2));
            double *want = malloc(R * sizeof *want);
            bool extra = (r + n) % 2;
            ht_op op = { .kind = HT_OP_MATMUL, .n_tok = N };
            op.matmul = (ht_op_matmul){ .w = part_f32(w, R, K),
                                        .bias = extra ? b : NULL,
                                        .x = plain(in, K + 3),
                                        .y = y,
                                        .y_stride = R + 2,
                                        .scale = extra ? 0.5f : 1.0f,
                                        .clamp = extra ? 0.75f : 0.0f };
            run(x, &op, 1);
            for (uint32_t t = 0; t < N; t++) {
                for (uint32_t i = 0; i < R; i++) {
                    want[i] = 0;
                    for (uint32_t k = 0; k < K; k++)
                        want[i] += (double)w[i * K + k] * in[t * (K + 3) + k];
                    if (extra) {
                        want[i] = (want[i] + b[i]) * 0.5;
                        want[i] = want[i] > 0.75 ? 0.75 : want[i] < -0.75 ? -0.75 : want[i];
                    }
                }
                near(y + t * (R + 2), want, R, 4, "matmul");
                cr_assert(isnan(y[t * (R + 2) + R]), "matmul wrote beyond its row");
            }
            free(w);
            free(b);
            free(in);
            free(y);
            free(want);
        }
}
Test(ops, matmul)
{
    for_threads(matmul);
}

/* So many tokens that they are several chunks. */
static void matmul_many_tokens(ht_exec *x)
{
    enum { N = 701, K = MAX_K, ROWS = 3 };
    float *w = floats(ROWS * K), *in = floats((size_t)N * K), *y = nans(N * ROWS), bias[ROWS] = { 1, 2, 3 };
    double *want = calloc(N * ROWS, sizeof *want);
    ht_op op = { .kind = HT_OP_MATMUL, .n_tok = N };
    op.matmul = (ht_op_matmul){
        .w = part_f32(w, ROWS, K), .bias = bias, .x = plain(in, K), .y = y, .y_stride = ROWS, .scale = 1.0f
    };
    for (size_t t = 0; t < N; t++)
        for (size_t r = 0; r < ROWS; r++) {
            want[t * ROWS + r] = bias[r];
            for (size_t i = 0; i < K; i++)
                want[t * ROWS + r] += (double)w[r * K + i] * in[t * K + i];
        }
    run(x, &op, 1);
    near(y, want, N * ROWS, 60, "many tokens");
    free(w);
    free(in);
    free(y);
    free(want);
}
Test(ops, matmul_many_tokens)
{
    for_threads(matmul_many_tokens);
}

/* Joined operations give what they give one after the other; more than a group holds too. */
static void joined(ht_exec *x)
{
    enum { K = 64, N = 3, OPS = 6 };
    float *in = floats(N * K), *w[OPS], *y[OPS], *alone[OPS];
    ht_op ops[OPS];
    for (uint32_t i = 0; i < OPS; i++) {
        uint32_t rows = 10 + 37 * i;
        w[i] = floats(rows * K);
        y[i] = nans(N * rows);
        alone[i] = nans(N * rows);
        ops[i] = (ht_op){ .kind = HT_OP_MATMUL, .n_tok = N, .joined = i > 0 };
        ops[i].matmul = (ht_op_matmul){
            .w = part_f32(w[i], rows, K), .x = plain(in, K), .y = y[i], .y_stride = rows, .scale = 1.0f
        };
    }
    run(x, ops, OPS);
    for (uint32_t i = 0; i < OPS; i++) {
        ht_op one = ops[i];
        one.joined = false;
        one.matmul.y = alone[i];
        run(x, &one, 1);
        cr_assert(memcmp(alone[i], y[i], N * one.matmul.y_stride * sizeof(float)) == 0, "joined operation %u", i);
    }
    for (uint32_t i = 0; i < OPS; i++) {
        free(w[i]);
        free(y[i]);
        free(alone[i]);
    }
    free(in);
}
Test(ops, joined)
{
    for_threads(joined);
}

/* ---- Feed-forward ------------------------------------------------------------------------------------------------ */

static void ffn_case(ht_exec *x, uint32_t n_tok, uint32_t n_ff, uint32_t d, ht_activation a, bool gate, bool biased,
                     bool h_norm)
{
    float *w[3] = { floats((size_t)n_ff * d), floats((size_t)n_ff * d), floats((size_t)n_ff * d) };
    float *b[3] = { floats(n_ff), floats(n_ff), floats(d) }, *hw = floats(n_ff);
    float *in = floats((size_t)n_tok * d), *h = nans((size_t)n_tok * n_ff), *y = nans((size_t)n_tok * d);
    double *hh = malloc(n_ff * sizeof *hh), *want = malloc(d * sizeof *want);
    _Atomic uint64_t active = 0, all = 0;
    uint64_t nonzero = 0;
    ht_ffn_item it = { .n_tokens = n_tok };

    it.part[HT_ROLE_UP] = part_f32(w[HT_ROLE_UP], n_ff, d);
    it.part[HT_ROLE_DOWN] = part_f32(w[HT_ROLE_DOWN], d, n_ff);
    if (gate)
        it.part[HT_ROLE_GATE] = part_f32(w[HT_ROLE_GATE], n_ff, d);
    for (int r = 0; biased && r < 3; r++)
        it.bias[r] = b[r];
    ht_op op = { .kind = HT_OP_FFN, .n_tok = n_tok };
    op.ffn = (ht_op_ffn){ .items = &it,
                          .n_items = 1,
                          .n_ff = n_ff,
                          .d_model = d,
                          .x = plain(in, d),
                          .h = plain(h, n_ff),
                          .act = a,
                          .act_param = 0.25f,
                          .h_norm = h_norm ? hw : NULL,
                          .h_norm_eps = 1e-5f,
                          .y = y,
                          .y_stride = d,
                          .n_active = &active,
                          .n_neurons = &all };
    run(x, &op, 1);
    for (uint32_t t = 0; t < n_tok; t++) {
        double sq = 0;
        for (uint32_t i = 0; i < n_ff; i++) {
            double g = biased ? b[HT_ROLE_GATE][i] : 0, u = biased ? b[HT_ROLE_UP][i] : 0;
            for (uint32_t k = 0; k < d; k++) {
                g += (double)w[HT_ROLE_GATE][(size_t)i * d + k] * in[(size_t)t * d + k];
                u += (double)w[HT_ROLE_UP][(size_t)i * d + k] * in[(size_t)t * d + k];
            }
            hh[i] = gate ? glu(a, g, u, 0.25) : act(a, u, 0.25);
            nonzero += hh[i] != 0;
            sq += hh[i] * hh[i];
        }
        for (uint32_t i = 0; h_norm && i < n_ff; i++)
            hh[i] *= hw[i] / sqrt(sq / n_ff + 1e-5f);
        double size = 0;
        for (uint32_t i = 0; i < d; i++) {
            want[i] = biased ? b[HT_ROLE_DOWN][i] : 0;
            for (uint32_t k = 0; k < n_ff; k++)
                want[i] += (double)w[HT_ROLE_DOWN][(size_t)i * n_ff + k] * hh[k];
            size = fmax(size, fabs(want[i]));
        }
        for (uint32_t i = 0; i < d; i++)
            cr_assert(fabs(y[(size_t)t * d + i] - want[i]) <= 2e-5 * (1 + d / 300.0) * (1 + size),
                      "ffn %u x %u, %u tokens, activation %d: %g, not %g", n_ff, d, n_tok, a,
                      (double)y[(size_t)t * d + i], want[i]);
    }
    cr_assert_eq(all, (uint64_t)n_tok * n_ff);
    cr_assert(llabs((int64_t)active - (int64_t)nonzero) <= 1, "%llu active, not %llu", (unsigned long long)active,
              (unsigned long long)nonzero);
    for (int r = 0; r < 3; r++) {
        free(w[r]);
        free(b[r]);
    }
    free(hw);
    free(in);
    free(h);
    free(y);
    free(hh);
    free(want);
}

static void ffn_dense(ht_exec *x)
{
    for (int a = HT_ACT_SILU; a <= HT_ACT_SWIGLU_OAI; a++)
        ffn_case(x, 1 + (uint32_t)a % 3 * 4, 75 + (uint32_t)a, 50, (ht_activation)a, true, a % 2, a % 3 == 0);
    ffn_case(x, 1, 101, 33, HT_ACT_RELU2, false, true, false);
    ffn_case(x, 6, 64, 17, HT_ACT_GELU_TANH, false, false, false);
    ffn_case(x, 2, HT_SEGMENT + 37, 9, HT_ACT_RELU, true, false, false); /* two segments, the second ragged */
    ffn_case(x, 530, 40, 20, HT_ACT_SILU, true, true, false);            /* more tokens than a tile holds */
    ffn_case(x, 701, MAX_K, 5, HT_ACT_SILU, true, true, false);          /* several chunks of tokens, down and */
    ffn_case(x, 701, 5, MAX_K, HT_ACT_SILU, true, true, false);          /* up */
}
Test(ops, ffn_dense)
{
    for_threads(ffn_dense);
}

/* Three experts over some of the tokens each, against the sum written out. */
/* The same mixture in two operations has the same bits: of one token in any order, of several one after the other. */
static void in_parts(ht_exec *x, ht_op op, ht_ffn_item *it, uint32_t n_tok, uint32_t n_items)
{
    const size_t n = (size_t)n_tok * op.ffn.d_model;
    float *whole = malloc(n * sizeof(float));
    ht_op parts[3] = { op, op, op };

    memcpy(whole, op.ffn.y, n * sizeof(float));
    memset(op.ffn.y, 0xff, n * sizeof(float));
    parts[n_tok == 1].ffn.n_items = 1;
    parts[n_tok != 1].ffn.items = it + 1;
    parts[n_tok != 1].ffn.n_items = n_items - 1;
    parts[0].ffn.stage = parts[1].ffn.stage = n_tok == 1 ? HT_FFN_OUTPUTS : HT_FFN_ALL;
    parts[1].ffn.accumulate = n_tok != 1;
    parts[2].ffn.stage = HT_FFN_SUM;
    run(x, parts, n_tok == 1 ? 3 : 2);
    cr_expect_arr_eq(op.ffn.y, whole, n * sizeof(float), "%u tokens", n_tok);
    free(whole);
}

static void ffn_mixture(ht_exec *x)
{
    enum { E = 3, FF = 41, D = 38 };
    for (uint32_t n_tok = 1; n_tok <= 9; n_tok += 4) {
        float *w[E][3], *in = floats(n_tok * D), *h = nans((size_t)n_tok * E * FF), *y = nans(n_tok * D);
        float *gathered = nans((size_t)n_tok * E * D), weights[E][9];
        uint32_t tokens[E][9], slot = 0;
        ht_ffn_item it[E];
        double *want = calloc(n_tok * D, sizeof *want);
        for (uint32_t e = 0; e < E; e++) {
            it[e] = (ht_ffn_item){ .tokens = tokens[e], .weights = weights[e], .slot = slot };
            for (int r = 0; r < 3; r++)
                w[e][r] = floats(FF * D);
            it[e].part[HT_ROLE_GATE] = part_f32(w[e][HT_ROLE_GATE], FF, D);
            it[e].part[HT_ROLE_UP] = part_f32(w[e][HT_ROLE_UP], FF, D);
            it[e].part[HT_ROLE_DOWN] = part_f32(w[e][HT_ROLE_DOWN], D, FF);
            for (uint32_t t = 0; t < n_tok; t++)
                if (n_tok == 1 || (t + e) % 3 != 0) {
                    tokens[e][it[e].n_tokens] = t;
                    weights[e][it[e].n_tokens++] = rnd();
                }
            slot += it[e].n_tokens;
            for (uint32_t j = 0; j < it[e].n_tokens; j++) {
                const float *v = in + tokens[e][j] * D;
                for (uint32_t i = 0; i < FF; i++) {
                    double g = 0, u = 0;
                    for (uint32_t k = 0; k < D; k++) {
                        g += (double)w[e][HT_ROLE_GATE][i * D + k] * v[k];
                        u += (double)w[e][HT_ROLE_UP][i * D + k] * v[k];
                    }
                    double hid = glu(HT_ACT_SILU, g, u, 0);
                    for (uint32_t o = 0; o < D; o++)
                        want[tokens[e][j] * D + o] += weights[e][j] * (double)w[e][HT_ROLE_DOWN][o * FF + i] * hid;
                }
            }
        }
        ht_op op = { .kind = HT_OP_FFN, .n_tok = n_tok };
        op.ffn = (ht_op_ffn){ .items = it,
                              .n_items = E,
                              .n_ff = FF,
                              .d_model = D,
                              .x = plain(in, D),
                              .h = plain(h, FF),
                              .gathered = plain(gathered, D),
                              .act = HT_ACT_SILU,
                              .y = y,
                              .y_stride = D };
        run(x, &op, 1);
        near(y, want, n_tok * D, 30, "mixture");
        in_parts(x, op, it, n_tok, E);
        for (int e = 0; e < E; e++)
            for (int r = 0; r < 3; r++)
                free(w[e][r]);
        free(in);
        free(h);
        free(y);
        free(gathered);
        free(want);
    }
}
Test(ops, ffn_mixture)
{
    for_threads(ffn_mixture);
}

static void route(ht_exec *x)
{
    enum { N = 6, E = 13, K = 4 };
    float *logits = floats(N * (E + 1)), *bias = floats(E), weights[N * K];
    uint32_t ids[N * K];
    logits[3] = logits[7] = logits[9] = 5.0f; /* ties go to the lower id */
    for (int gating = HT_GATE_SOFTMAX; gating <= HT_GATE_SOFTMAX_TOPK; gating++)
        for (int bits = 0; bits < 4; bits++) {
            bool renorm = bits & 1, biased = bits & 2;
            memset(weights, 0xff, sizeof weights);
            ht_op op = { .kind = HT_OP_ROUTE, .n_tok = N };
            op.route = (ht_op_route){ .logits = logits,
                                      .logits_stride = E + 1,
                                      .n_expert = E,
                                      .k = K,
                                      .gating = (ht_gating)gating,
                                      .renormalise = renorm,
                                      .scale = 2.5f,
                                      .select_bias = biased ? bias : NULL,
                                      .ids = ids,
                                      .weights = weights };
            run(x, &op, 1);
            for (int t = 0; t < N; t++) {
                double p[E], sum = 0, want[K], total = 0;
                bool taken[E] = { false };
                for (int e = 0; e < E; e++)
                    sum += exp(logits[t * (E + 1) + e]);
                for (int e = 0; e < E; e++)
                    p[e] = gating == HT_GATE_SOFTMAX   ? exp(logits[t * (E + 1) + e]) / sum
                           : gating == HT_GATE_SIGMOID ? 1 / (1 + exp(-logits[t * (E + 1) + e]))
                                                       : logits[t * (E + 1) + e];
                for (int i = 0; i < K; i++) {
                    int best = -1;
                    for (int e = 0; e < E; e++)
                        if (!taken[e] &&
                            (best < 0 || p[e] + (biased ? bias[e] : 0) > p[best] + (biased ? bias[best] : 0)))
                            best = e;
                    taken[best] = true;
                }
                int n = 0;
                for (int e = 0; e < E; e++)
                    if (taken[e]) {
                        cr_assert_eq(ids[t * K + n], (uint32_t)e, "gating %d token %d", gating, t);
                        want[n] = gating == HT_GATE_SOFTMAX_TOPK ? exp(p[e]) : p[e];
                        total += want[n++];
                    }
                for (int i = 0; i < K; i++)
                    want[i] = want[i] / (renorm || gating == HT_GATE_SOFTMAX_TOPK ? total : 1) * 2.5;
                near(weights + t * K, want, K, 4, "router weights");
            }
        }
    free(logits);
    free(bias);
}
Test(ops, route)
{
    for_threads(route);
}

/* ---- Sequences --------------------------------------------------------------------------------------------------- */

static void attend(ht_exec *x)
{
    enum { POS = 150, N = 23, HEADS = 6, KV = 2, KD = 20, VD = 24, PAGES = 2, ALL = POS + N };
    static const ht_type types[] = { HT_F32, HT_F16 };
    float *k = floats(ALL * KV * KD), *v = floats(ALL * KV * VD), *q = floats(N * HEADS * KD), *sinks = floats(HEADS);
    float *out = nans(N * HEADS * VD);
    for (int i = 0; i < 2; i++)
        for (int bits = 0; bits < 8; bits++) {
            const ht_type_info *ti = ht_type_get(types[i]);
            ht_kv_view kv = { .type = types[i],
                              .n_kv = KV,
                              .k_dim = KD,
                              .v_dim = VD,
                              .k_row_bytes = ht_type_row_bytes(ti, KD),
                              .v_row_bytes = ht_type_row_bytes(ti, (VD + 15) / 16 * 16) };
            kv.v_offset = (KV * HT_KV_PAGE * kv.k_row_bytes + 63) & ~(size_t)63;
            size_t bytes = kv.v_offset + KV * HT_KV_PAGE * kv.v_row_bytes;
            void *pages[PAGES];
            for (int p = 0; p < PAGES; p++)
                memset(pages[p] = malloc(bytes), 0xff, bytes);
            kv.pages = pages;
            uint32_t window = bits & 1 ? 40 : 0;
            float cap = bits & 2 ? 1.5f : 0.0f;
            ht_op ops[3] = { { .kind = HT_OP_KV_WRITE, .n_tok = POS },
                             { .kind = HT_OP_KV_WRITE, .n_tok = N },
                             { .kind = HT_OP_ATTEND, .n_tok = N } };
            ops[0].kv_write = (ht_op_kv_write){ .kv = kv, .k = k, .v = v, .k_stride = KV * KD, .v_stride = KV * VD };
            ops[1].kv_write = (ht_op_kv_write){ .kv = kv,
                                                .k = k + POS * KV * KD,
                                                .v = v + POS * KV * VD,
                                                .k_stride = KV * KD,
                                                .v_stride = KV * VD,
                                                .pos0 = POS };
            ops[2].attend = (ht_op_attend){ .kv = kv,
                                            .q = q,
                                            .q_stride = HEADS * KD,
                                            .n_head = HEADS,
                                            .scale = 0.7f,
                                            .softcap = cap,
                                            .window = window,
                                            .sinks = bits & 4 ? sinks : NULL,
                                            .pos0 = POS,
                                            .out = plain(out, HEADS * VD) };
            memset(out, 0xff, N * HEADS * VD * sizeof *out);
            run(x, ops, 3);
            for (int t = 0; t < N; t++)
                for (int h = 0; h < HEADS; h++) {
                    double s[ALL], sum = bits & 4 ? exp(sinks[h]) : 0, want[VD] = { 0 };
                    int kh = h / (HEADS / KV), last = POS + t,
                        first = window && last + 1 > (int)window ? last + 1 - (int)window : 0;
                    for (int j = first; j <= last; j++) {
                        s[j] = 0;
                        for (int d = 0; d < KD; d++)
                            s[j] += (double)q[(t * HEADS + h) * KD + d] * k[(j * KV + kh) * KD + d];
                        s[j] *= 0.7f;
                        s[j] = exp(cap > 0 ? cap * tanh(s[j] / cap) : s[j]);
                        sum += s[j];
                    }
                    for (int d = 0; d < VD; d++)
                        for (int j = first; j <= last; j++)
                            want[d] += s[j] / sum * v[(j * KV + kh) * VD + d];
                    near(out + (t * HEADS + h) * VD, want, VD, types[i] == HT_F16 ? 2000 : 4, "attention");
                }
            for (int p = 0; p < PAGES; p++)
                free(pages[p]);
        }
    free(k);
    free(v);
    free(q);
    free(sinks);
    free(out);
}
Test(ops, attend)
{
    for_threads(attend);
}

/* Contexts of several spans: the same bits token by token, all at once, in parts, and with spans shared out among threads,
 * for every KV type, windows that end in any span, and any number of threads. */
static void attend_long(ht_exec *x)
{
    enum { ALL = 1300, N = 70, HEADS = 10, KV = 2, D = 32, PAGES = (ALL + 127) / 128, SPANS = 3, OUT = N * HEADS * D };
    static const ht_type types[] = { HT_F32, HT_F16, HT_Q8_0, HT_Q4_0 };
    static const uint32_t windows[] = { 0, 40, 700 };
    static float first[4][3][OUT]; /* of the first executor */
    static bool begun[4][3];
    size_t n_partial = (size_t)SPANS * 4 * HEADS * HT_ATTEND_PARTIAL(D);
    seed = 77; /* every executor sees the same */
    float *k = floats(ALL * KV * D), *v = floats(ALL * KV * D), *q = floats(N * HEADS * D), *sinks = floats(HEADS);
    float *out = nans(OUT), *partial = nans(n_partial);

    for (uint32_t ty = 0; ty < 4; ty++) {
        size_t row = ht_type_row_bytes(ht_type_get(types[ty]), D);
        ht_kv_view kv = { .type = types[ty], .n_kv = KV, .k_dim = D, .v_dim = D, .k_row_bytes = row, .v_row_bytes = row,
                          .v_offset = KV * HT_KV_PAGE * row };
        void *pages[PAGES];
        for (int p = 0; p < PAGES; p++)
            memset(pages[p] = malloc(2 * kv.v_offset), 0xff, 2 * kv.v_offset);
        kv.pages = pages;
        ht_op write = { .kind = HT_OP_KV_WRITE, .n_tok = ALL };
        write.kv_write = (ht_op_kv_write){ .kv = kv, .k = k, .v = v, .k_stride = KV * D, .v_stride = KV * D };
        run(x, &write, 1);
        for (uint32_t w = 0; w < 3; w++)
            for (uint32_t way = 0; way < 5; way++) {
                /* tokens at once, and whether there is memory for partial sums */
                static const struct { uint32_t n; bool shared; } ways[] = { { 1, 0 }, { N, 0 }, { 1, 1 }, { 4, 1 }, { 33, 1 } };
                memset(out, 0xff, OUT * sizeof *out);
                for (uint32_t t = 0; t < N; t += ways[way].n) {
                    ht_op op = { .kind = HT_OP_ATTEND, .n_tok = N - t < ways[way].n ? N - t : ways[way].n };
                    op.attend = (ht_op_attend){ .kv = kv, .q = q + t * HEADS * D, .q_stride = HEADS * D, .n_head = HEADS,
                                                .scale = 0.3f, .window = windows[w], .sinks = sinks,
                                                .pos0 = ALL - N + t, .out = plain(out + t * HEADS * D, HEADS * D),
                                                .partial = ways[way].shared ? partial : NULL, .n_partial = n_partial };
                    run(x, &op, 1);
                }
                if (!begun[ty][w])
                    memcpy(first[ty][w], out, sizeof first[ty][w]);
                begun[ty][w] = true;
                cr_assert(!memcmp(first[ty][w], out, sizeof first[ty][w]), "type %u window %u way %u", types[ty],
                          windows[w], way);
            }
        for (int p = 0; p < PAGES; p++)
            free(pages[p]);
    }
    free(k), free(v), free(q), free(sinks), free(out), free(partial);
}
Test(ops, attend_long)
{
    for_threads(attend_long);
}

static void conv(ht_exec *x)
{
    enum { N = 9, C = 300, TAPS = 4 }; /* 300 channels: the second chunk is ragged */
    float *in = floats(N * C), *w = floats(C * TAPS), *b = floats(C), *state = floats((TAPS - 1) * C), *y = nans(N * C);
    float *past = malloc((TAPS - 1 + N) * C * sizeof *past);
    memcpy(past, state, (TAPS - 1) * C * sizeof *past);
    memcpy(past + (TAPS - 1) * C, in, N * C * sizeof *past);
    for (int t = 0; t < N; t += 3) { /* in three passes: the state carries over */
        ht_op op = { .kind = HT_OP_CONV, .n_tok = 3 };
        op.conv = (ht_op_conv){ .x = in + t * C,
                                .y = y + t * C,
                                .x_stride = C,
                                .y_stride = C,
                                .n = C,
                                .taps = TAPS,
                                .w = w,
                                .bias = b,
                                .state = state,
                                .silu = true };
        run(x, &op, 1);
    }
    for (int t = 0; t < N; t++) {
        double want[C];
        for (int c = 0; c < C; c++) {
            double s = b[c];
            for (int j = 0; j < TAPS; j++)
                s += (double)w[c * TAPS + j] * past[(t + j) * C + c];
            want[c] = s / (1 + exp(-s));
        }
        near(y + t * C, want, C, 4, "convolution");
    }
    cr_assert(memcmp(state, past + N * C, (TAPS - 1) * C * sizeof *state) == 0, "the state is the last inputs");
    free(in);
    free(w);
    free(b);
    free(state);
    free(y);
    free(past);
}
Test(ops, conv)
{
    for_threads(conv);
}

static void delta_case(ht_exec *x, bool tiled, bool grouped)
{
    enum { N = 5, NK = 2, NV = 4, KD = 18, VD = 10, PER = NV / NK, STRIDE = 2 * NK * KD + NV * VD };
    float *qkv = floats(N * STRIDE), *ab = floats(N * 2 * NV), *a = floats(NV), *dt = floats(NV),
          *state = floats(NV * KD * VD);
    float *y = nans(N * NV * VD);
    double *S = malloc(NV * KD * VD * sizeof *S);
    for (int i = 0; i < NV * KD * VD; i++)
        S[i] = state[i];
    for (int i = 0; i < NV; i++)
        a[i] = -fabsf(a[i]);
    ht_op op = { .kind = HT_OP_DELTA, .n_tok = N };
    op.delta = (ht_op_delta){ .q = qkv,
                              .k = qkv + NK * KD,
                              .v = qkv + 2 * NK * KD,
                              .qkv_stride = STRIDE,
                              .beta = ab,
                              .alpha = ab + (grouped ? PER : NV),
                              .ab_stride = 2 * NV,
                              .ab_group = grouped ? PER : 0,
                              .a_coef = a,
                              .dt_bias = dt,
                              .n_k = NK,
                              .n_v = NV,
                              .k_dim = KD,
                              .v_dim = VD,
                              .tiled = tiled,
                              .state = state,
                              .y = y,
                              .y_stride = NV * VD };
    run(x, &op, 1);
    for (int t = 0; t < N; t++)
        for (int h = 0; h < NV; h++) {
            int kh = tiled ? h % NK : h / PER, at = grouped ? 2 * PER * (h / PER) + h % PER : h;
            const float *q = qkv + t * STRIDE + kh * KD, *k = q + NK * KD, *v = qkv + t * STRIDE + 2 * NK * KD + h * VD;
            double qq = 0, kk = 0, want[VD], z = (double)op.delta.alpha[t * 2 * NV + at] + dt[h];
            double decay = exp(a[h] * log1p(exp(z))), beta = 1 / (1 + exp(-(double)op.delta.beta[t * 2 * NV + at]));
            double *M = S + h * KD * VD;
            for (int i = 0; i < KD; i++) {
                qq += (double)q[i] * q[i];
                kk += (double)k[i] * k[i];
            }
            qq = 1 / sqrt(qq + 1e-6) / sqrt(KD);
            kk = 1 / sqrt(kk + 1e-6);
            for (int j = 0; j < VD; j++) {
                double d = v[j];
                for (int i = 0; i < KD; i++)
                    d -= (M[i * VD + j] *= decay) * k[i] * kk;
                want[j] = 0;
                for (int i = 0; i < KD; i++) {
                    M[i * VD + j] += k[i] * kk * beta * d;
                    want[j] += M[i * VD + j] * q[i] * qq;
                }
            }
            near(y + t * NV * VD + h * VD, want, VD, 8, "delta rule");
        }
    near(state, S, NV * KD * VD, 8, "state of the delta rule");
    free(qkv);
    free(ab);
    free(a);
    free(dt);
    free(state);
    free(y);
    free(S);
}

static void delta(ht_exec *x)
{
    for (int i = 0; i < 4; i++)
        delta_case(x, i & 1, i & 2);
}
Test(ops, delta)
{
    for_threads(delta);
}

/* ---- The queue --------------------------------------------------------------------------------------------------- */

/* More operations than the executor's ring, each reading what the one before wrote. */
Test(ops, long_queues)
{
    ht_exec *x = open_exec(3);
    enum { K = 40, OPS = 2000 };
    float a[K] = { 0 }, one[K];
    for (int i = 0; i < K; i++)
        one[i] = 1.0f;
    ht_op op = { .kind = HT_OP_ADD, .n_tok = 1 };
    op.add = (ht_op_add){ .x = one, .y = a, .x_stride = K, .y_stride = K, .k = K, .ax = 1.0f, .ay = 1.0f };
    ht_event done = 0;
    for (int i = 0; i < OPS; i++)
        cr_assert_eq(x->ops->submit(x, &op, 1, &done), HT_OK);
    cr_assert_eq(x->ops->wait(x, done, NULL), HT_OK);
    for (int i = 0; i < K; i++)
        cr_assert_eq(a[i], (float)OPS);
    x->ops->close(x);
}

/* One bad operation of a list: nothing of it is run. */
Test(ops, refused)
{
    ht_exec *x = open_exec(1);
    float y[4] = { 1, 2, 3, 4 }, v[4] = { 0 };
    ht_op good = { .kind = HT_OP_ADD, .n_tok = 1 };
    good.add = (ht_op_add){ .x = v, .y = y, .x_stride = 4, .y_stride = 4, .k = 4, .ax = 1.0f };
    ht_op bad[8];
    for (int i = 0; i < 8; i++)
        bad[i] = (ht_op){ .kind = HT_OP_MATMUL, .n_tok = 1 };
    bad[0].matmul.w = (ht_part){ .type = HT_F32, .n = 1, .k = 1 };        /* no weights */
    bad[1].matmul.w = (ht_part){ .type = 26, .n = 1, .k = 1, .host = v }; /* no such type */
    bad[2].matmul.w = part_f32(v, 1, MAX_K + 1);                          /* beyond the scratch */
    bad[3] = good;
    bad[3].n_tok = 0;
    bad[4].kind = HT_N_OPS;
    bad[5] = good;
    bad[5].kind = HT_OP_NORM;
    bad[5].norm = (ht_op_norm){ .x = v, .k = 4, .group = 3, .out = plain(y, 4) };
    bad[6].kind = HT_OP_FFN;
    bad[7].kind = HT_OP_ATTEND;
    bad[7].attend.kv = (ht_kv_view){ .n_kv = 3 };
    bad[7].attend.n_head = 4;
    for (int i = 0; i < 8; i++) {
        ht_op two[2] = { good, bad[i] };
        ht_event done = 0;
        cr_expect_eq(x->ops->submit(x, two, 2, &done), HT_EINVAL, "operation %d", i);
        cr_expect_eq(y[0], 1.0f, "part of a refused list was run");
    }
    good.joined = true;
    cr_expect_eq(x->ops->submit(x, &good, 1, NULL), HT_EINVAL, "nothing to be joined with");
    x->ops->close(x);
}
