/* SPDX-License-Identifier: MIT
 * Every SIMD level of the vec kernels against ref, bit for bit: all sizes up to 130 and some larger, tame, wide and
 * special values, outputs filled with NaN, guard pages around every buffer. Case names in messages: kernel, level,
 * sizes. */
#include "tests/cpu/test_vec.h"

#include <stdio.h>

#define FOR_LEVELS(l)                                                                                                  \
    ht_vec_kernels vec[HT_N_ISA];                                                                                      \
    uint32_t n_levels = vec_levels(vec);                                                                               \
    for (uint32_t l = 1; l < n_levels; l++)

/* Sizes to run: 1 .. 130, then a few, 0 ends. */
static uint32_t size_after(uint32_t n)
{
    static const uint32_t more[] = { 160, 255, 256, 257, 576, 1000, 4096, 0 };
    if (n < 130) return n + 1;
    uint32_t i = 0;
    while (more[i] && more[i] <= n) i++;
    return more[i];
}

Test(vec, quantise_q8)
{
    FOR_LEVELS(l) for (uint32_t k = 32; k <= 1024; k += 32) for (wild w = TAME; w <= SPECIAL; w++) {
        guards g = { .n = 0 };
        uint64_t s = k * 3 + w;
        float *x = guard_floats(&g, &s, k, w);
        if (k % 64 == 0) memset(x, 0, 128);
        int8_t *qa = guard_alloc(&g, k), *qb = guard_alloc(&g, k);
        float *da = guard_alloc(&g, k / 32 * 4), *db = guard_alloc(&g, k / 32 * 4);
        int16_t *sa = guard_alloc(&g, k / 16 * 2), *sb = guard_alloc(&g, k / 16 * 2);
        vec[0].quantise_q8(x, k, qa, da, sa);
        vec[l].quantise_q8(x, k, qb, db, sb);
        cr_assert(memcmp(qa, qb, k) == 0 && memcmp(sa, sb, k / 8) == 0, "quantise_q8 %s k=%u", ht_isa_name(l), k);
        SAME_FLOATS(da, db, k / 32, "quantise_q8 %s k=%u", ht_isa_name(l), k);
        guard_free(&g);
    }
}

/* d, s and q of ref themselves: halves to even, sums, blocks of nothing and of NaN. */
Test(vec, quantise_q8_contract)
{
    ht_vec_kernels vec[HT_N_ISA];
    uint32_t n_levels = vec_levels(vec);
    for (uint32_t l = 0; l < n_levels; l++) {
        float x[128] = { 0 }, d[4];
        int8_t q[128];
        int16_t s[8];
        x[0] = 127.0f, x[1] = 0.5f, x[2] = 1.5f, x[3] = -2.5f, x[16] = -127.0f; /* d = 1 */
        x[64] = NAN, x[65] = 1.0f;
        x[96] = 1e-40f; /* 127 / max would be infinite */
        vec[l].quantise_q8(x, 128, q, d, s);
        cr_assert(d[0] == 1.0f && q[0] == 127 && q[1] == 0 && q[2] == 2 && q[3] == -2 && q[16] == -127);
        cr_assert(s[0] == 127 && s[1] == -127);
        cr_assert(d[1] == 0.0f && s[2] == 0 && q[40] == 0);
        cr_assert(d[2] != d[2] && q[64] == 0 && q[65] == 0 && s[4] == 0, "a block with NaN keeps NaN as its scale");
        cr_assert(d[3] == 0.0f && q[96] == 0);
        x[64] = INFINITY;
        vec[l].quantise_q8(x, 128, q, d, s);
        cr_assert(d[2] == INFINITY && q[64] == 0);
    }
}

Test(vec, norm)
{
    FOR_LEVELS(l) for (uint32_t k = 1; k; k = size_after(k)) for (int kind = HT_NORM_NONE; kind <= HT_NORM_L2; kind++)
        for (uint32_t bits = 0; bits < 16; bits++) {
            guards g = { .n = 0 };
            uint64_t s = k * 16 + bits;
            float *x = guard_floats(&g, &s, k, bits & 8 ? SPECIAL : TAME);
            float *w = bits & 1 ? guard_floats(&g, &s, k, TAME) : NULL;
            float *b = bits & 2 ? guard_floats(&g, &s, k, TAME) : NULL;
            float *a = guard_alloc(&g, k * 4), *y = bits & 4 ? guard_copy(&g, x, k * 4) : guard_alloc(&g, k * 4);
            vec[0].norm(kind, x, k, 1e-5f, w, b, a);
            vec[l].norm(kind, bits & 4 ? y : x, k, 1e-5f, w, b, y);
            SAME_FLOATS(a, y, k, "norm kind %d %s k=%u variant %u", kind, ht_isa_name(l), k, bits);
            guard_free(&g);
        }
}

Test(vec, glu)
{
    FOR_LEVELS(l) for (uint32_t n = 1; n; n = size_after(n)) for (int act = HT_ACT_SILU; act <= HT_ACT_IDENTITY; act++)
        for (uint32_t bits = 0; bits < 6; bits++) {
            guards g = { .n = 0 };
            uint64_t s = n * 6 + bits;
            wild w = (wild)(bits / 2);
            float *gate = bits & 1 ? guard_floats(&g, &s, n, w) : NULL, *u = guard_floats(&g, &s, n, w);
            float *a = guard_alloc(&g, n * 4), *b = n % 2 ? guard_copy(&g, u, n * 4) : guard_alloc(&g, n * 4);
            uint32_t ca = vec[0].glu(act, 0.5f, gate, u, n, a), cb = vec[l].glu(act, 0.5f, gate, n % 2 ? b : u, n, b);
            uint32_t count = 0;
            for (uint32_t i = 0; i < n; i++) count += a[i] != 0.0f;
            SAME_FLOATS(a, b, n, "glu act %d %s n=%u variant %u", act, ht_isa_name(l), n, bits);
            cr_assert(ca == count && cb == count, "glu act %d %s n=%u counts %u", act, ht_isa_name(l), n, cb);
            guard_free(&g);
        }
}

/* Sums of rows, with every count of tokens and rows that a tile may have. */
Test(vec, outer_of_columns)
{
    FOR_LEVELS(l) for (uint32_t n = 1; n; n = size_after(n)) for (uint32_t nt = 1; nt < 8; nt += n < 130 ? 2 : 1)
        for (uint32_t rows = 1; rows < 12; rows += 5) {
            guards g = { .n = 0 };
            uint64_t s = n * 100 + nt * 10 + rows;
            const size_t ldw = n + 3, ldh = rows + 1, ldy = n + 5;
            const size_t all_w = (rows - 1) * ldw + n, all_h = (nt - 1) * ldh + rows, all_y = (nt - 1) * ldy + n;
            float *w = guard_floats(&g, &s, (uint32_t)all_w, TAME), *h = guard_floats(&g, &s, (uint32_t)all_h, WIDE);
            float *y = guard_floats(&g, &s, (uint32_t)all_y, TAME);
            float *a = guard_copy(&g, y, all_y * 4), *b = guard_copy(&g, y, all_y * 4);
            vec[0].outer(a, ldy, h, ldh, nt, w, ldw, rows, n);
            vec[l].outer(b, ldy, h, ldh, nt, w, ldw, rows, n);
            SAME_FLOATS(a, b, (uint32_t)all_y, "outer %s n=%u tokens %u rows %u", ht_isa_name(l), n, nt, rows);
            guard_free(&g);
        }
}

/* Rows of every type as ht_type_dequant gives them. */
Test(vec, unpack_of_columns)
{
    FOR_LEVELS(l) for (uint32_t type = 0; type < HT_TYPE_MAX; type++) {
        const ht_type_info *t = ht_type_get(type);
        for (uint32_t k = t ? t->block : 0; k && k <= 1024; k += t->block < 32 ? 7 : t->block) {
            guards g = { .n = 0 };
            uint64_t s = type * 2000 + k;
            const size_t bytes = ht_type_row_bytes(t, k);
            uint8_t *w = guard_alloc(&g, bytes);
            for (size_t i = 0; i < bytes; i++) w[i] = (uint8_t)rng_next(&s);
            float *a = guard_alloc(&g, k * 4), *b = guard_alloc(&g, k * 4);
            ht_type_dequant((ht_type)type, w, k, a);
            vec[l].unpack((ht_type)type, w, k, b);
            SAME_FLOATS(a, b, k, "unpack %s of %s k=%u", ht_isa_name(l), t->name, k);
            guard_free(&g);
        }
    }
}

Test(vec, add_axpy_softcap_dot_softmax)
{
    FOR_LEVELS(l) for (uint32_t n = 1; n; n = size_after(n)) for (wild w = TAME; w <= SPECIAL; w++) {
        guards g = { .n = 0 };
        uint64_t s = n * 3 + w;
        float *x = guard_floats(&g, &s, n, w), *y = guard_floats(&g, &s, n, w);
        for (uint32_t c = 0; c < 7; c++) {
            float *a = guard_copy(&g, y, n * 4), *b = guard_copy(&g, y, n * 4);
            for (uint32_t v = 0; v < 2; v++) {
                const ht_vec_kernels *k = &vec[v ? l : 0];
                float *o = v ? b : a;
                if (c == 0) k->add(0.7f, x, 1.0f, o, n);
                if (c == 1) k->add(0.7f, x, 0.0f, o, n);
                if (c == 2) k->axpy(-1.3f, x, o, n);
                if (c == 3) k->softcap(o, n, 30.0f, 0.5f);
                if (c == 4) k->softcap(o, n, 0.0f, 0.5f);
                if (c == 5) k->softmax(o, n);
                if (c == 6) o[0] = k->dot(x, y, n);
            }
            SAME_FLOATS(a, b, n, "case %u %s n=%u", c, ht_isa_name(l), n);
        }
        guard_free(&g);
    }
}

Test(vec, rope)
{
    FOR_LEVELS(l) for (uint32_t n = 2; n <= 260; n += 2) for (uint32_t neox = 0; neox < 2; neox++) {
        guards g = { .n = 0 };
        uint64_t s = n;
        float *x = guard_floats(&g, &s, n, TAME), *t = guard_floats(&g, &s, n, TAME);
        float *a = guard_copy(&g, x, n * 4), *b = guard_copy(&g, x, n * 4);
        vec[0].rope(a, n, neox, t);
        vec[l].rope(b, n, neox, t);
        SAME_FLOATS(a, b, n, "rope %s n=%u neox %u", ht_isa_name(l), n, neox);
        for (uint32_t i = 0; i < n / 2; i++) {
            uint32_t i0 = neox ? i : 2 * i, i1 = neox ? i + n / 2 : 2 * i + 1;
            double c = t[i], sn = t[i + n / 2], x0 = x[i0], x1 = x[i1];
            cr_assert(fabs(a[i0] - (x0 * c - x1 * sn)) < 1e-5 && fabs(a[i1] - (x0 * sn + x1 * c)) < 1e-5);
        }
        guard_free(&g);
    }
}

static size_t kv_row_bytes(ht_type type, uint32_t n)
{
    return type == HT_F32 ? n * 4u : type == HT_F16 ? n * 2u : type == HT_Q8_0 ? n / 32 * 34u : n / 32 * 18u;
}

static const ht_type kv_types[] = { HT_F32, HT_F16, HT_Q8_0, HT_Q4_0 };

Test(vec, kv_store)
{
    FOR_LEVELS(l) for (uint32_t n = 1; n <= 320; n++) for (uint32_t c = 0; c < 12; c++) {
        uint32_t t = c % 4;
        wild w = (wild)(c / 4);
        if (t >= 2 && n % 32) continue;
        guards g = { .n = 0 };
        uint64_t s = n * 3 + w;
        float *x = guard_floats(&g, &s, n, w);
        size_t bytes = kv_row_bytes(kv_types[t], n);
        uint8_t *a = guard_alloc(&g, bytes), *b = guard_alloc(&g, bytes);
        vec[0].kv_store(kv_types[t], x, n, a);
        vec[l].kv_store(kv_types[t], x, n, b);
        cr_assert(memcmp(a, b, bytes) == 0, "kv_store type %u %s n=%u", kv_types[t], ht_isa_name(l), n);
        guard_free(&g);
    }
}

Test(vec, attend_join)
{
    FOR_LEVELS(l) for (uint32_t dim = 1; dim <= 576; dim += dim < 130 ? 1 : 62) {
        guards g = { .n = 0 };
        uint64_t s = dim;
        float *a = guard_floats(&g, &s, dim, TAME), *b = guard_floats(&g, &s, dim, dim % 7 ? TAME : SPECIAL), *join[2];
        float M[2], L[2];
        for (uint32_t v = 0; v < 2; v++) {
            const ht_vec_kernels *k = &vec[v ? l : 0];
            join[v] = guard_alloc(&g, dim * 4);
            k->attend_join(0.7f, 11.0f, a, &M[v], &L[v], join[v], dim, true);
            k->attend_join(2.2f, 13.0f, b, &M[v], &L[v], join[v], dim, false);
            k->attend_join(-1.8f, 11.0f, a, &M[v], &L[v], join[v], dim, false);
        }
        SAME_FLOATS(join[0], join[1], dim, "attend_join %s dim=%u", ht_isa_name(l), dim);
        SAME_FLOATS(&L[0], &L[1], 1, "attend_join l");
        SAME_FLOATS(&M[0], &M[1], 1, "attend_join m");
        guard_free(&g);
    }
}

Test(vec, conv)
{
    FOR_LEVELS(l) for (uint32_t n = 1; n <= 130; n++) for (uint32_t c = 4; c < 24; c++) {
        uint32_t taps = c / 4;
        guards g = { .n = 0 };
        uint64_t s = n * 8 + taps;
        float *x = guard_floats(&g, &s, n, TAME), *w = guard_floats(&g, &s, n * taps, TAME);
        float *bias = c & 1 ? guard_floats(&g, &s, n, TAME) : NULL;
        uint32_t stride = n + 3, n_state = taps > 1 ? (taps - 2) * stride + n : 0;
        float *sa = guard_floats(&g, &s, n_state, TAME), *sb = guard_copy(&g, sa, n_state * 4);
        float *s0 = guard_copy(&g, sa, n_state * 4);
        float *a = guard_alloc(&g, n * 4), *b = guard_alloc(&g, n * 4);
        vec[0].conv(x, a, n, taps, w, bias, sa, stride, c & 2);
        vec[l].conv(x, b, n, taps, w, bias, sb, stride, c & 2);
        SAME_FLOATS(a, b, n, "conv %s n=%u taps=%u", ht_isa_name(l), n, taps);
        SAME_FLOATS(sa, sb, n_state, "conv state %s n=%u taps=%u", ht_isa_name(l), n, taps);
        for (uint32_t i = 0; i < n; i++) { /* against the definition */
            double t = bias ? bias[i] : 0.0;
            for (uint32_t j = 0; j < taps; j++)
                t += (double)w[i * taps + j] * (j + 1 < taps ? s0[j * stride + i] : x[i]);
            if (c & 2) t /= 1.0 + exp(-t);
            cr_assert(fabs(t - a[i]) < 1e-5);
            for (uint32_t j = 0; j + 1 < taps; j++)
                cr_assert(sa[j * stride + i] == (j + 2 < taps ? s0[(j + 1) * stride + i] : x[i]));
        }
        guard_free(&g);
    }
}

Test(vec, delta)
{
    FOR_LEVELS(l) for (uint32_t v_dim = 1; v_dim <= 260; v_dim += v_dim < 70 ? 1 : 19)
        for (uint32_t k_dim = 1; k_dim <= 128; k_dim = k_dim * 5 + 3) {
            guards g = { .n = 0 };
            uint64_t s = v_dim * 999 + k_dim;
            float *q = guard_floats(&g, &s, k_dim, TAME), *k = guard_floats(&g, &s, k_dim, TAME);
            float *v = guard_floats(&g, &s, v_dim, TAME);
            float *Sa = guard_floats(&g, &s, k_dim * v_dim, TAME), *Sb = guard_copy(&g, Sa, (size_t)k_dim * v_dim * 4);
            float *S0 = guard_copy(&g, Sa, (size_t)k_dim * v_dim * 4);
            float *ta = guard_alloc(&g, v_dim * 4), *tb = guard_alloc(&g, v_dim * 4);
            float *a = guard_alloc(&g, v_dim * 4), *b = guard_alloc(&g, v_dim * 4);
            vec[0].delta(q, k, v, 0.9f, 0.4f, k_dim, v_dim, Sa, ta, a);
            vec[l].delta(q, k, v, 0.9f, 0.4f, k_dim, v_dim, Sb, tb, b);
            SAME_FLOATS(a, b, v_dim, "delta %s %u x %u", ht_isa_name(l), k_dim, v_dim);
            SAME_FLOATS(Sa, Sb, k_dim * v_dim, "delta state %s %u x %u", ht_isa_name(l), k_dim, v_dim);
            for (uint32_t j = 0; j < v_dim; j++) { /* S *= decay; d = beta (v - S^T k); S += k d^T; y = S^T q */
                double t = 0.0, y = 0.0, size = 1.0;
                for (uint32_t i = 0; i < k_dim; i++) t += 0.9f * (double)S0[i * v_dim + j] * k[i];
                double d = 0.4f * (v[j] - t);
                for (uint32_t i = 0; i < k_dim; i++) {
                    double e = 0.9f * (double)S0[i * v_dim + j] + k[i] * d;
                    y += e * q[i];
                    size += fabs(e * q[i]) + fabs(k[i] * q[i]) * k_dim;
                }
                cr_assert(fabs(y - a[j]) < 3e-6 * size, "delta %u x %u: %g, want %g", k_dim, v_dim, (double)a[j], y);
            }
            guard_free(&g);
        }
}
