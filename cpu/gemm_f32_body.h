/* SPDX-License-Identifier: MIT
 *
 * Weights of any type times many tokens of float32 activations: the body that a file of an instruction set compiles
 * with its own vectors (AVX2 has its own, with two vectors of rows). Before inclusion: GEMM_F32 (the function's name),
 * GEMM_ISA, R (rows in a vector), vec, and the inline functions v_load, v_store (aligned), v_store_n (n lanes,
 * unaligned), v_set1, v_fma, v_add, v_turn (R vectors of R floats transposed), v_words (16-bit floats of either kind to
 * float, n of them).
 *
 * The contract has 32 accumulators per product, i mod 32. A tile of R rows, rows in lanes, is stored in stretches of
 * CHUNK elements ordered [i mod 32][i / 32]: an accumulator is loaded once per stretch, kept in a register for its 8
 * elements and put back. The accumulators of SIDE tokens, one stretch of the tile and the tokens' x fit in the
 * first-level cache together.
 *
 * BIG elements of a tile are unpacked at a time, so that scratch has an upper bound. Longer rows go through SUPER
 * tokens at a time, whose accumulators wait in scratch between parts, and are unpacked once for each such group. Owner:
 * no state; the scratch is the caller's (gemm_tile.h). Threads: any. */
enum { CHUNK = HT_GEMM_F32_CHUNK, BIG = HT_GEMM_F32_BIG, SUPER = HT_GEMM_F32_SUPER, SIDE = HT_GEMM_F32_SIDE };

/* Elements [at, at + n) of a row as floats; what follows up to a multiple of R is zero. */
static void load_row(ht_type type, const uint8_t *row, uint32_t at, uint32_t n, float *to)
{
    row += ht_type_row_bytes(ht_type_get(type), at);
    switch (type) {
    case HT_F32: memcpy(to, row, (size_t)n * 4); break;
    case HT_F16:
    case HT_BF16: v_words(to, row, n, type == HT_BF16); break;
    default: ht_type_dequant(type, row, n, to); break;
    }
    for (uint32_t i = n; i % R; i++)
        to[i] = 0.0f;
}

static void unpack(float *tile, ht_type type, const uint8_t *w, size_t stride, uint32_t n_rows, uint32_t at, uint32_t n)
{
    _Alignas(64) float f[R][CHUNK];

    for (uint32_t c = 0; c < n; c += CHUNK, tile += CHUNK * R) {
        const uint32_t len = n - c < CHUNK ? n - c : CHUNK;
        for (uint32_t r = 0; r < R; r++) /* lanes of missing rows repeat the last */
            load_row(type, w + (r < n_rows ? r : n_rows - 1) * stride, at + c, len, f[r]);
        for (uint32_t i = 0; i < len; i += R) {
            vec v[R];
            for (int r = 0; r < R; r++)
                v[r] = v_load(f[r] + i);
            v_turn(v);
            for (uint32_t j = 0; j < R; j++)
                v_store(tile + ((i + j) % 32 * (CHUNK / 32) + (i + j) / 32) * R, v[j]);
        }
    }
}

/* One stretch: len elements, n tokens; n (and len where it is CHUNK) are constants. acc: [32][SIDE][R]. */
HT_INLINE void stretch_times(const float *tile, const float *x, size_t ldx, float *acc, uint32_t len, uint32_t n)
{
    for (uint32_t r = 0; r < 32 && r < len; r++) {
        const uint32_t count = (len - r + 31) / 32;
        const float *w = tile + (size_t)r * (CHUNK / 32) * R;
        vec a[SIDE];
        for (uint32_t t = 0; t < n; t++)
            a[t] = v_load(acc + (r * SIDE + t) * R);
        for (uint32_t j = 0; j < count; j++) {
            const vec v = v_load(w + j * R);
            for (uint32_t t = 0; t < n; t++)
                a[t] = v_fma(v, v_set1(x[t * ldx + 32 * j + r]), a[t]);
        }
        for (uint32_t t = 0; t < n; t++)
            v_store(acc + (r * SIDE + t) * R, a[t]);
    }
}

static void times_side(const float *tile, const float *x, size_t ldx, float *acc, uint32_t n)
{
    uint32_t c = 0;
    for (; c + CHUNK <= n; c += CHUNK)
        stretch_times(tile + (size_t)c * R, x + c, ldx, acc, CHUNK, SIDE);
    if (c < n)
        stretch_times(tile + (size_t)c * R, x + c, ldx, acc, n - c, SIDE);
}

static void times_one(const float *tile, const float *x, float *acc, uint32_t n)
{
    uint32_t c = 0;
    for (; c + CHUNK <= n; c += CHUNK)
        stretch_times(tile + (size_t)c * R, x + c, 0, acc, CHUNK, 1);
    if (c < n)
        stretch_times(tile + (size_t)c * R, x + c, 0, acc, n - c, 1);
}

static vec tree(const float *acc)
{
    vec a[16];
    for (int i = 0; i < 16; i++)
        a[i] = v_add(v_load(acc + i * SIDE * R), v_load(acc + (i + 16) * SIDE * R));
    for (int half = 8; half; half /= 2)
        for (int i = 0; i < half; i++)
            a[i] = v_add(a[i], a[i + half]);
    return a[0];
}

/* Up to SUPER tokens with up to R rows. */
static void group_times(float *y, size_t ldy, ht_type type, const uint8_t *w, size_t stride, uint32_t n_rows,
                        const float *x, size_t ldx, uint32_t n_tok, uint32_t k, float *tile, bool unpacked)
{
    float *acc = tile + (size_t)BIG * R; /* [SUPER / SIDE][32][SIDE][R] */
    const size_t each = 32 * SIDE * R;

    for (uint32_t at = 0; at < k; at += BIG) {
        const uint32_t n = k - at < BIG ? k - at : BIG;
        if (!unpacked)
            unpack(tile, type, w, stride, n_rows, at, n);
        for (uint32_t i = 0; i < n_tok; i += SIDE) {
            float *a = k > BIG ? acc + i / SIDE * each : acc;
            const uint32_t n_now = n_tok - i < SIDE ? n_tok - i : SIDE;
            if (at == 0)
                memset(a, 0, each * sizeof *a);
            if (n_now == SIDE)
                times_side(tile, x + i * ldx + at, ldx, a, n);
            else
                for (uint32_t t = 0; t < n_now; t++)
                    times_one(tile, x + (i + t) * ldx + at, a + t * R, n);
            if (at + n < k)
                continue;
            for (uint32_t t = 0; t < n_now; t++)
                v_store_n(y + (i + t) * ldy, tree(a + t * R), n_rows);
        }
    }
}

void GEMM_F32(float *y, size_t ldy, ht_type type, const void *w, size_t stride, uint32_t n_rows, const float *x,
              size_t ldx, uint32_t n_tok, uint32_t k, void *scratch)
{
    const char *name;
    ht_dot_f32_fn *dot = ht_dot_f32_pick(type, GEMM_ISA, &name);
    const uint32_t enough = ht_type_get(type)->quantised ? 2 : 4; /* fewer tokens do not pay for the unpacking */

    for (uint32_t r = 0; r < n_rows; r += R) {
        const uint8_t *rows = (const uint8_t *)w + r * stride;
        const uint32_t n = n_rows - r < R ? n_rows - r : R;
        if (n_tok < enough) {
            for (size_t t = 0; t < n_tok; t++)
                dot(y + t * ldy + r, rows, stride, NULL, n, x + t * ldx, k);
            continue;
        }
        for (uint32_t i = 0; i < n_tok; i += SUPER)
            group_times(y + i * ldy + r, ldy, type, rows, stride, n, x + i * ldx, ldx,
                        n_tok - i < SUPER ? n_tok - i : SUPER, k, scratch, i > 0 && k <= BIG);
    }
}
