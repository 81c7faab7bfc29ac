/* SPDX-License-Identifier: MIT
 * The neuron-major form of down projections; see neurons.h. Tiles of HT_NEURONS_TILE outputs by 256 neurons are taken
 * apart into one byte per weight and put together the other way; both ways eight outputs at a time, by the same transposition.
 *
 * On the way to the neuron-major form memory is what takes the time: neurons' rows are some KB apart, so that a tile
 * writes to as many pages as it has neurons. Each piece is put together in the first-level cache and leaves in whole
 * lines, past the caches where they are whole; the file's rows are fetched one tile ahead. */
#include "engine/base/neurons.h"

#include <string.h>
#if defined(__x86_64__)
#include <emmintrin.h>
#endif

enum { TILE = HT_NEURONS_TILE, SPAN = 256 }; /* outputs and neurons of a tile; SPAN: a multiple of every block */
enum { FLOATS = 128 };                       /* neurons of a tile of float weights */

static size_t up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

bool ht_neurons_shape(ht_neurons *g, ht_type type, uint32_t n_ff, uint32_t d_model)
{
    const ht_type_info *t = ht_type_get(type);
    size_t width = up(d_model, TILE), planes;

    if (!t || n_ff == 0 || d_model == 0 || n_ff % t->block)
        return false;
    *g = (ht_neurons){ .type = type, .n_ff = n_ff, .d_model = d_model, .width = (uint32_t)width };
    switch (type) {
    case HT_Q4_0: g->row_bytes = width / 2; break;
    case HT_Q4_K: g->row_bytes = width / 2; break;
    case HT_Q6_K: g->row_bytes = width / 4 * 3; break;
    case HT_Q8_0: g->row_bytes = width; break;
    case HT_F16:
    case HT_BF16:
    case HT_F32: g->row_bytes = width * t->block_bytes; break;
    default: return false;
    }
    if (t->quantised) {
        g->d_stride = width * (type == HT_Q4_K ? 4 : 2);
        planes = n_ff / t->block * g->d_stride;
        if (t->block == 256) {
            g->sc_at = planes;
            g->sc_stride = 2 * width;
            planes += n_ff / 32 * g->sc_stride;
        }
        g->rows_at = planes;
    }
    g->stride = up(g->row_bytes, 64);
    g->bytes = g->rows_at + n_ff * g->stride;
    return true;
}

bool ht_neurons_of(ht_neurons *g, const ht_part *p)
{
    if (p->layout != HT_LAYOUT_NEURONS || (uintptr_t)p->host % 64 || !ht_neurons_shape(g, (ht_type)p->type, p->n, p->k))
        return false;
    g->order = p->order;
    if (!p->stride)
        return !p->order; /* in memory, as shaped */
    if (p->stride < g->row_bytes || p->stride % 64 || p->rows_at < g->rows_at || p->rows_at % 64)
        return false;
    g->bytes = p->stride == g->stride && p->rows_at == g->rows_at ? g->bytes : 0;
    g->stride = p->stride;
    g->rows_at = p->rows_at;
    return true;
}

size_t ht_part_extent(const ht_part *p)
{
    ht_neurons g;

    if (p->n == 0)
        return 0;
    if (p->layout != HT_LAYOUT_NEURONS)
        return (size_t)(p->n - 1) * p->stride + ht_type_row_bytes(ht_type_get(p->type), p->k);
    return ht_neurons_of(&g, p) ? g.rows_at + (size_t)(p->n - 1) * g.stride + g.row_bytes : 0;
}

ht_neurons ht_neurons_range(const ht_neurons *g, uint32_t first, uint32_t n)
{
    ht_neurons r = *g;

    r.n_ff = n;
    r.bytes = 0;
    if (g->order) {
        r.order += first / 32;
        return r;
    }
    r.d_at += first / ht_type_get(g->type)->block * g->d_stride;
    r.sc_at += first / 32 * g->sc_stride;
    r.rows_at += first * g->stride;
    return r;
}

/* ---- quantised: the weights of a block as one byte each, and back ---- */

static void block_to_codes(ht_type type, const uint8_t *restrict b, uint8_t *restrict c)
{
    switch (type) {
    case HT_Q4_0:
        for (int i = 0; i < 16; i++) {
            c[i] = b[2 + i] & 15;
            c[i + 16] = b[2 + i] >> 4;
        }
        break;
    case HT_Q8_0: memcpy(c, b + 2, 32); break;
    case HT_Q4_K:
        for (int j = 0; j < 4; j++)
            for (int i = 0; i < 32; i++) {
                c[64 * j + i] = b[16 + 32 * j + i] & 15;
                c[64 * j + 32 + i] = b[16 + 32 * j + i] >> 4;
            }
        break;
    default: /* Q6_K */
        for (int h = 0; h < 2; h++)
            for (int i = 0; i < 32; i++) {
                const uint8_t lo = b[64 * h + i], next = b[64 * h + 32 + i], hi = b[128 + 32 * h + i];
                c[128 * h + i] = (uint8_t)((lo & 15) | (hi & 3) << 4);
                c[128 * h + 32 + i] = (uint8_t)((next & 15) | (hi & 12) << 2);
                c[128 * h + 64 + i] = (uint8_t)(lo >> 4 | (hi & 0x30));
                c[128 * h + 96 + i] = (uint8_t)(next >> 4 | (hi & 0xc0) >> 2);
            }
    }
}

static void codes_to_block(ht_type type, const uint8_t *restrict c, uint8_t *restrict b)
{
    switch (type) { /* loops that compilers turn into vectors */
    case HT_Q4_0:
        for (int i = 0; i < 16; i++)
            b[2 + i] = (uint8_t)(c[i] | c[i + 16] << 4);
        break;
    case HT_Q8_0: memcpy(b + 2, c, 32); break;
    case HT_Q4_K:
        for (int j = 0; j < 4; j++)
            for (int i = 0; i < 32; i++)
                b[16 + 32 * j + i] = (uint8_t)(c[64 * j + i] | c[64 * j + 32 + i] << 4);
        break;
    default: /* Q6_K */
        for (int h = 0; h < 2; h++)
            for (int i = 0; i < 32; i++) {
                const uint8_t *q = c + 128 * h + i;
                b[64 * h + i] = (uint8_t)((q[0] & 15) | q[64] << 4);
                b[64 * h + 32 + i] = (uint8_t)((q[32] & 15) | q[96] << 4);
                b[128 + 32 * h + i] = (uint8_t)(q[0] >> 4 | q[32] >> 4 << 2 | q[64] >> 4 << 4 | q[96] >> 4 << 6);
            }
    }
}

/* ---- the codes of TILE outputs of one neuron as a piece of its row, and back ---- */

static void codes_to_piece(ht_type type, const uint8_t *restrict c, uint8_t *restrict p)
{
    if (type == HT_Q8_0) {
        memcpy(p, c, TILE);
        return;
    }
    for (int h = 0; h < 2; h++) /* loops that compilers turn into vectors */
        for (int i = 0; i < 32; i++)
            p[32 * h + i] = (uint8_t)((c[64 * h + i] & 15) | c[64 * h + 32 + i] << 4);
    if (type != HT_Q6_K)
        return;
    for (int i = 0; i < 32; i++)
        p[64 + i] = (uint8_t)(c[i] >> 4 | c[32 + i] >> 4 << 2 | c[64 + i] >> 4 << 4 | c[96 + i] >> 4 << 6);
}

static void piece_to_codes(ht_type type, const uint8_t *restrict p, uint8_t *restrict c)
{
    if (type == HT_Q8_0) {
        memcpy(c, p, TILE);
        return;
    }
    for (int h = 0; h < 2; h++)
        for (int i = 0; i < 32; i++) {
            c[64 * h + i] = p[32 * h + i] & 15;
            c[64 * h + 32 + i] = p[32 * h + i] >> 4;
        }
    if (type != HT_Q6_K)
        return;
    for (int i = 0; i < 32; i++) {
        c[i] |= (uint8_t)((p[64 + i] & 3) << 4);
        c[32 + i] |= (uint8_t)((p[64 + i] & 12) << 2);
        c[64 + i] |= p[64 + i] & 0x30;
        c[96 + i] |= (uint8_t)((p[64 + i] & 0xc0) >> 2);
    }
}

/* Bytes of a piece; the piece of output o begins at o / TILE of them. */
static size_t piece_bytes(const ht_neurons *g)
{
    return g->row_bytes / (g->width / TILE);
}

static bool finite_f16(const uint8_t *p)
{
    return (p[1] & 0x7c) != 0x7c;
}

/* ---- scales of one block of one output ---- */

static const uint8_t *block_d(ht_type type, const uint8_t *b)
{
    return type == HT_Q6_K ? b + 208 : b;
}

/* The place of a block's scales among those of its type. */
static uint32_t block_place(const ht_neurons *g, uint32_t block)
{
    const uint32_t groups = ht_type_get(g->type)->block / 32;
    return ht_neurons_group(g, block * groups) / groups;
}

/* Scales of a tile on the way to their planes, which are some KB apart. */
typedef struct tile_scales {
    uint8_t d[8][2 * TILE]; /* of eight blocks of 32; of one of 256: d, dmin */
    uint8_t sc[16][TILE];   /* of 256 neurons: scales by 16, or scale and minimum by 32 */
} tile_scales;

/* Those of output r, block i of the tile. */
static bool scales_from(ht_type type, const uint8_t *b, uint32_t i, uint32_t r, tile_scales *to)
{
    const uint8_t *d = block_d(type, b), *s = b + 4; /* s: 8 scales and 8 minima of 6 bits, see unpack.c */
    bool good = finite_f16(d);

    memcpy(to->d[i] + 2 * r, d, 2);
    if (type == HT_Q6_K)
        for (int l = 0; l < 16; l++)
            to->sc[l][r] = b[192 + l];
    if (type != HT_Q4_K)
        return good;
    memcpy(to->d[1] + 2 * r, b + 2, 2);
    for (int l = 0; l < 8; l++) {
        to->sc[2 * l][r] = l < 4 ? s[l] & 63 : (uint8_t)((s[l + 4] & 15) | s[l - 4] >> 6 << 4);
        to->sc[2 * l + 1][r] = l < 4 ? s[l + 4] & 63 : (uint8_t)(s[l + 4] >> 4 | s[l] >> 6 << 4);
    }
    return good && finite_f16(b + 2);
}

/* n outputs from o on, neurons [j, j + m). */
static void put_scales(const ht_neurons *g, const tile_scales *from, uint32_t per, uint32_t o, uint32_t n, uint32_t j,
                       uint32_t m, uint8_t *to)
{
    uint8_t *plane = to + g->d_at + 2 * (size_t)o, *sc = to + g->sc_at + o;
    const uint32_t block = block_place(g, j / per); /* the first */

    for (uint32_t i = 0; i < m / per; i++)
        memcpy(plane + block_place(g, j / per + i) * g->d_stride, from->d[i], 2 * (size_t)n);
    if (g->type == HT_Q4_K)
        memcpy(plane + block * g->d_stride + 2 * (size_t)g->width, from->d[1], 2 * (size_t)n);
    for (uint32_t i = 0; per == 256 && i < 16; i++)
        memcpy(sc + (16 * (size_t)block + i) * g->width, from->sc[i], n);
}

static void scales_to(const ht_neurons *g, const uint8_t *from, uint32_t block, uint32_t o, uint8_t *b)
{
    block = block_place(g, block);
    const uint8_t *plane = from + g->d_at + block * g->d_stride + 2 * (size_t)o, *sc = from + g->sc_at + o;

    memcpy(b + (g->type == HT_Q6_K ? 208 : 0), plane, 2);
    if (ht_type_get(g->type)->block != 256)
        return;
    sc += (size_t)block * 8 * g->sc_stride;
    if (g->type == HT_Q6_K) {
        for (int i = 0; i < 16; i++)
            b[192 + i] = sc[(size_t)i * g->width];
        return;
    }
    uint8_t *s = b + 4;
    memcpy(b + 2, plane + 2 * (size_t)g->width, 2);
    for (int i = 0; i < 4; i++) {
        const uint8_t *lo = sc + (size_t)i * g->sc_stride, *hi = sc + (size_t)(i + 4) * g->sc_stride;
        s[i] = (uint8_t)(lo[0] | hi[0] >> 4 << 6);
        s[i + 4] = (uint8_t)(lo[g->width] | hi[g->width] >> 4 << 6);
        s[i + 8] = (uint8_t)((hi[0] & 15) | (hi[g->width] & 15) << 4);
    }
}

/* ---- tiles: outputs [o, o + n), neurons [j, j + m); back: rows of output o on ---- */

/* Byte j of word i becomes byte i of word j. Written out, for it stays in registers then. */
static inline void transpose8(uint64_t x[8])
{
    uint64_t t;
#define SWAP(i, apart, keep)                                                                                           \
    t = (x[i] >> 8 * (apart) ^ x[(i) + (apart)]) & (keep);                                                             \
    x[(i) + (apart)] ^= t;                                                                                             \
    x[i] ^= t << 8 * (apart);
#define SWAPS(a, b, c, d, apart, keep) SWAP(a, apart, keep) SWAP(b, apart, keep) SWAP(c, apart, keep) SWAP(d, apart, keep)
    SWAPS(0, 1, 2, 3, 4, 0x00000000ffffffffu)
    SWAPS(0, 1, 4, 5, 2, 0x0000ffff0000ffffu)
    SWAPS(0, 2, 4, 6, 1, 0x00ff00ff00ff00ffu)
#undef SWAPS
#undef SWAP
}

/* n bytes, a multiple of 32, to `to`, which is 32-byte aligned. Whole lines go past the caches: nobody reads them soon,
 * and a line need not be fetched to be written. streams_done() before anyone may. */
static void put_piece(uint8_t *to, const uint8_t *from, size_t n)
{
#if defined(__x86_64__)
    if (n % 64 == 0 && (uintptr_t)to % 64 == 0) {
        for (size_t i = 0; i < n; i += 16)
            _mm_stream_si128((__m128i *)(void *)(to + i), _mm_load_si128((const __m128i *)(const void *)(from + i)));
        return;
    }
#endif
    memcpy(to, from, n);
}

static void streams_done(void)
{
#if defined(__x86_64__)
    _mm_sfence();
#endif
}

static void fetch(const uint8_t *p, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += 64)
        __builtin_prefetch(p + i, 0, 2);
}

static bool tile_from(const ht_neurons *g, const uint8_t *rows, size_t row_stride, uint32_t o, uint32_t n, uint32_t j,
                      uint32_t m, uint8_t *to)
{
    const ht_type_info *t = ht_type_get(g->type);
    const uint32_t per = t->block, ahead = g->n_ff - j - m < SPAN ? g->n_ff - j - m : SPAN; /* of the next tile */
    const size_t piece = piece_bytes(g), bytes = ht_type_row_bytes(t, m), next = ht_type_row_bytes(t, ahead);
    _Alignas(64) uint8_t codes[SPAN][TILE], eight[8][SPAN], whole[TILE];
    tile_scales scales;
    bool good = true;

    for (uint32_t r0 = 0; r0 < TILE; r0 += 8) {
        for (uint32_t r = r0; r < r0 + 8; r++) {
            if (r >= n) {
                memset(eight[r - r0], 0, m);
                continue;
            }
            const uint8_t *b = rows + (size_t)(o + r) * row_stride + ht_type_row_bytes(t, j);
            fetch(b + bytes, next);
            for (uint32_t i = 0; i < m; i += per, b += t->block_bytes) {
                block_to_codes(g->type, b, eight[r - r0] + i);
                good &= scales_from(g->type, b, i / per, r, &scales);
            }
        }
        for (uint32_t i = 0; i < m; i += 8) {
            uint64_t x[8];
            for (uint32_t r = 0; r < 8; r++)
                memcpy(&x[r], eight[r] + i, 8);
            transpose8(x);
            for (uint32_t l = 0; l < 8; l++)
                memcpy(codes[i + l] + r0, &x[l], 8);
        }
    }
    put_scales(g, &scales, per, o, n, j, m, to);
    for (uint32_t i = 0; i < m; i++) {
        codes_to_piece(g->type, codes[i], whole);
        put_piece(to + g->rows_at + (size_t)ht_neurons_place(g, j + i) * g->stride + o / TILE * piece, whole, piece);
    }
    return good;
}

/* The way of tile_from, backwards: eight outputs' codes side by side, then whole blocks of each. */
static void tile_to(const ht_neurons *g, const uint8_t *from, uint32_t o, uint32_t n, uint32_t j, uint32_t m,
                    uint8_t *rows, size_t row_stride)
{
    const ht_type_info *t = ht_type_get(g->type);
    const size_t piece = piece_bytes(g);
    const uint8_t *first = from + g->rows_at + o / TILE * piece;
    _Alignas(64) uint8_t codes[SPAN][TILE], eight[8][SPAN];

    for (uint32_t i = 0; i < m; i++) {
        if (i + 8 < m) /* rows are some KB apart: nobody else foresees them */
            fetch(first + (size_t)ht_neurons_place(g, j + i + 8) * g->stride, piece);
        piece_to_codes(g->type, first + (size_t)ht_neurons_place(g, j + i) * g->stride, codes[i]);
    }
    for (uint32_t r0 = 0; r0 < n; r0 += 8) {
        for (uint32_t i = 0; i < m; i += 8) {
            uint64_t x[8];
            for (uint32_t l = 0; l < 8; l++)
                memcpy(&x[l], codes[i + l] + r0, 8);
            transpose8(x);
            for (uint32_t r = 0; r < 8; r++)
                memcpy(eight[r] + i, &x[r], 8);
        }
        for (uint32_t r = r0; r < n && r < r0 + 8; r++) {
            uint8_t *b = rows + r * row_stride + ht_type_row_bytes(t, j);
            for (uint32_t i = 0; i < m; i += t->block, b += t->block_bytes) {
                codes_to_block(g->type, eight[r - r0] + i, b);
                scales_to(g, from, (j + i) / t->block, o + r, b);
            }
        }
    }
}

/* ---- float types ---- */

/* Tiles of float weights as numbers of SIZE bytes; EXPONENT: its bits in one. */
#define FLOATS_FROM(name, number, EXPONENT)                                                                            \
    static bool name(const ht_neurons *g, const uint8_t *rows, size_t row_stride, uint32_t o, uint32_t n, uint32_t j,  \
                     uint32_t m, uint8_t *to)                                                                          \
    {                                                                                                                  \
        _Alignas(64) number w[FLOATS][TILE] = { { 0 } }, row[8][FLOATS];                                               \
        number wild = 0;                                                                                               \
        for (uint32_t r0 = 0; r0 < n; r0 += 8) {                                                                       \
            const uint32_t some = n - r0 < 8 ? n - r0 : 8;                                                             \
            for (uint32_t r = 0; r < some; r++) {                                                                      \
                const uint8_t *p = rows + (size_t)(o + r0 + r) * row_stride + (size_t)j * sizeof(number);              \
                memcpy(row[r], p, m * sizeof(number));                                                                 \
                fetch(p + sizeof row[r], j + 2 * FLOATS <= g->n_ff ? sizeof row[r] : 0);                               \
                for (uint32_t i = 0; i < m; i++)                                                                       \
                    wild |= (number)((row[r][i] & (EXPONENT)) == (EXPONENT));                                          \
            }                                                                                                          \
            for (uint32_t i = 0; i < m; i++)                                                                           \
                for (uint32_t r = 0; r < some; r++)                                                                    \
                    w[i][r0 + r] = row[r][i];                                                                          \
        }                                                                                                              \
        for (uint32_t i = 0; i < m; i++)                                                                               \
            put_piece(to + g->rows_at + (size_t)ht_neurons_place(g, j + i) * g->stride + o * sizeof(number),          \
                      (const uint8_t *)w[i], sizeof w[i]);                                                                                    \
        return !wild;                                                                                                  \
    }
FLOATS_FROM(f32_from, uint32_t, 0x7f800000u)
FLOATS_FROM(f16_from, uint16_t, 0x7c00)
FLOATS_FROM(bf16_from, uint16_t, 0x7f80)

static bool floats_from(const ht_neurons *g, const uint8_t *rows, size_t row_stride, uint32_t o, uint32_t n, uint32_t j,
                        uint32_t m, uint8_t *to)
{
    bool good = true;

    for (uint32_t i = j; i < j + m; i += FLOATS) {
        const uint32_t some = j + m - i < FLOATS ? j + m - i : FLOATS;
        good &= g->type == HT_F32   ? f32_from(g, rows, row_stride, o, n, i, some, to)
                : g->type == HT_F16 ? f16_from(g, rows, row_stride, o, n, i, some, to)
                                    : bf16_from(g, rows, row_stride, o, n, i, some, to);
    }
    return good;
}

/* Back: the rows of eight outputs at a time, of FLOATS neurons that lie in the first-level cache. */
#define FLOATS_TO(name, number)                                                                                        \
    static void name(const ht_neurons *g, const uint8_t *from, uint32_t o, uint32_t n, uint32_t j, uint32_t m,         \
                     uint8_t *rows, size_t row_stride)                                                                 \
    {                                                                                                                  \
        _Alignas(64) number w[FLOATS][TILE], row[8][FLOATS];                                                           \
        for (uint32_t i = 0; i < m; i++)                                                                               \
            memcpy(w[i], from + g->rows_at + (size_t)ht_neurons_place(g, j + i) * g->stride + o * sizeof(number),      \
                   TILE * sizeof(number));                                                                             \
        for (uint32_t r0 = 0; r0 < n; r0 += 8) {                                                                       \
            for (uint32_t i = 0; i < m; i++)                                                                           \
                for (uint32_t r = 0; r < 8; r++)                                                                       \
                    row[r][i] = w[i][r0 + r];                                                                          \
            for (uint32_t r = r0; r < n && r < r0 + 8; r++)                                                            \
                memcpy(rows + r * row_stride + (size_t)j * sizeof(number), row[r - r0], m * sizeof(number));           \
        }                                                                                                              \
    }
FLOATS_TO(four_byte_to, uint32_t)
FLOATS_TO(two_byte_to, uint16_t)

static void floats_to(const ht_neurons *g, const uint8_t *from, uint32_t o, uint32_t n, uint32_t j, uint32_t m,
                      uint8_t *rows, size_t row_stride)
{
    for (uint32_t i = j; i < j + m; i += FLOATS) {
        const uint32_t some = j + m - i < FLOATS ? j + m - i : FLOATS;
        if (ht_type_get(g->type)->block_bytes == 4)
            four_byte_to(g, from, o, n, i, some, rows, row_stride);
        else
            two_byte_to(g, from, o, n, i, some, rows, row_stride);
    }
}

/* ---- all ---- */

/* Scales behind the last output of a tile. */
static void clear_scales(const ht_neurons *g, uint32_t o, uint32_t n, uint8_t *to)
{
    const uint32_t per_d = ht_type_get(g->type)->block, halves = (uint32_t)(g->d_stride / (2 * (size_t)g->width));

    for (uint32_t p = 0; p < g->n_ff / per_d * halves; p++)
        memset(to + g->d_at + block_place(g, p / halves) * g->d_stride + 2 * ((size_t)(p % halves) * g->width + o), 0,
               2 * (size_t)n);
    for (uint32_t p = 0; g->sc_stride && p < g->n_ff / 16; p++)
        memset(to + g->sc_at + ht_neurons_group(g, p / 2) * g->sc_stride + (size_t)(p % 2) * g->width + o, 0, n);
}

bool ht_neurons_from_rows(const ht_neurons *g, const void *rows, size_t row_stride, uint32_t first, uint32_t n,
                          void *to)
{
    const bool quantised = ht_type_get(g->type)->quantised;
    bool good = true;

    for (uint32_t o = first; o < first + n; o += TILE) {
        const uint32_t now = first + n - o < TILE ? first + n - o : TILE;
        for (uint32_t j = 0; j < g->n_ff; j += SPAN) {
            const uint32_t m = g->n_ff - j < SPAN ? g->n_ff - j : SPAN;
            good &= quantised ? tile_from(g, rows, row_stride, o, now, j, m, to)
                              : floats_from(g, rows, row_stride, o, now, j, m, to);
        }
        if (quantised && now < TILE)
            clear_scales(g, o + now, TILE - now, to);
    }
    streams_done();
    return good;
}

void ht_neurons_to_rows(const ht_neurons *g, const void *from, uint32_t first, uint32_t n, void *rows,
                        size_t row_stride)
{
    const bool quantised = ht_type_get(g->type)->quantised;

    for (uint32_t o = first; o < first + n; o += TILE) {
        const uint32_t now = first + n - o < TILE ? first + n - o : TILE;
        for (uint32_t j = 0; j < g->n_ff; j += SPAN) {
            const uint32_t m = g->n_ff - j < SPAN ? g->n_ff - j : SPAN;
            if (quantised)
                tile_to(g, from, o, now, j, m, (uint8_t *)rows + (size_t)(o - first) * row_stride, row_stride);
            else
                floats_to(g, from, o, now, j, m, (uint8_t *)rows + (size_t)(o - first) * row_stride, row_stride);
        }
    }
}
