/* SPDX-License-Identifier: MIT
 *
 * Damaged and hostile GGUF files: every class of sections A and B of the list of known reader vulnerabilities, made
 * here byte by byte, and the handcrafted files of tests/data/malformed. Each must be refused with the offset of the
 * field at fault. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "engine/gguf.h"

/* ---- making files ------------------------------------------------------------------------------------------------ */

typedef struct bytes { uint8_t *p; size_t n, room; } bytes;

static void put(bytes *b, const void *p, size_t n)
{
    if (b->n + n > b->room) {
        b->room = 2 * (b->n + n) + 256;
        b->p = realloc(b->p, b->room);
        cr_assert_not_null(b->p);
    }
    memcpy(b->p + b->n, p, n);
    b->n += n;
}

static void u32(bytes *b, uint32_t v) { put(b, &v, 4); }
static void u64(bytes *b, uint64_t v) { put(b, &v, 8); }
static void str(bytes *b, const char *s) { u64(b, strlen(s)); put(b, s, strlen(s)); }

static void zeros(bytes *b, size_t n)
{
    static const uint8_t zero[256];
    for (; n > 256; n -= 256)
        put(b, zero, 256);
    put(b, zero, n);
}

static bytes header(uint64_t n_tensors, uint64_t n_kv)
{
    bytes b = { 0 };
    put(&b, "GGUF", 4);
    u32(&b, 3);
    u64(&b, n_tensors);
    u64(&b, n_kv);
    return b;
}

static void tensor(bytes *b, const char *name, uint32_t n_dims, const uint64_t *ne, uint32_t type, uint64_t offset)
{
    str(b, name);
    u32(b, n_dims);
    for (uint32_t i = 0; i < n_dims && i < 8; i++)
        u64(b, ne[i]);
    u32(b, type);
    u64(b, offset);
}

static void data(bytes *b, size_t n)
{
    zeros(b, (32 - b->n % 32) % 32);
    zeros(b, n);
}

/* Opens exactly these bytes: a heap block of that size, so that the address sanitizer sees each byte beyond. */
static ht_status open_bytes(ht_gguf **g, const void *p, size_t n, ht_error *err)
{
    uint8_t *copy = malloc(n ? n : 1);
    memcpy(copy, p, n);
    ht_status st = ht_gguf_open_memory(g, copy, n, err);
    if (st != HT_OK)
        free(copy);
    return st; /* the few good ones leak their copy on purpose: the views point into it */
}

static void refused(bytes *b, ht_status want, uint64_t offset, const char *words)
{
    ht_gguf *g = (ht_gguf *)1;
    ht_error err = { 0 };
    ht_status st = open_bytes(&g, b->p, b->n, &err);

    cr_expect_eq(st, want, "%s: status %d (%s)", words, st, err.text);
    cr_expect_eq(err.offset, offset, "%s: offset %llu, wanted %llu (%s)", words, (unsigned long long)err.offset,
                 (unsigned long long)offset, err.text);
    cr_expect(st != HT_OK && strstr(err.text, words), "wanted \"%s\" in: %s", words, err.text);
    cr_expect(st != HT_OK && strstr(err.text, "(memory)"), "no file named: %s", err.text);
    cr_expect(st == HT_OK || !g);
    free(b->p);
    *b = (bytes){ 0 };
}

static void accepted(bytes *b, uint64_t n_kv, uint64_t n_tensors)
{
    ht_gguf *g;
    ht_error err;
    ht_status st = ht_gguf_open_memory(&g, b->p, b->n, &err);
    cr_assert_eq(st, HT_OK, "%s", err.text);
    cr_expect_eq(ht_gguf_n_kv(g), n_kv);
    cr_expect_eq(ht_gguf_n_tensors(g), n_tensors);
    ht_gguf_close(&g);
    cr_expect_null(g);
    free(b->p);
    *b = (bytes){ 0 };
}

static volatile uint64_t sink;

/* Touches everything that a reader hands out. */
static void walk(const ht_gguf *g)
{
    for (uint64_t i = 0; i < ht_gguf_n_kv(g); i++) {
        const ht_kv *kv = ht_gguf_kv_at(g, i);
        ht_str s;
        int64_t v;
        double d;
        for (size_t j = 0; j < kv->key.n; j++)
            sink += (uint8_t)kv->key.s[j];
        for (uint64_t j = 0; j < kv->n && j < 1000; j++)
            sink += ht_kv_int(kv, j, &v) + ht_kv_float(kv, j, &d);
        if (ht_kv_str(kv, &s))
            for (size_t j = 0; j < s.n; j++)
                sink += (uint8_t)s.s[j];
        if (kv->type == HT_KV_ARRAY && kv->elem == HT_KV_STRING) {
            ht_str *all = malloc((kv->n ? kv->n : 1) * sizeof *all);
            cr_assert(ht_kv_strings(kv, all));
            for (uint64_t j = 0; j < kv->n; j++)
                sink += all[j].n ? (uint8_t)all[j].s[all[j].n - 1] : 0;
            free(all);
        }
    }
    for (uint64_t i = 0; i < ht_gguf_n_tensors(g); i++) {
        const ht_tensor *t = ht_gguf_tensor_at(g, i);
        cr_assert_eq(t->data == NULL, t->bytes == 0);
        if (t->bytes)
            sink += ((const uint8_t *)t->data)[0] + ((const uint8_t *)t->data)[t->bytes - 1];
    }
}

/* ---- A: header, counts, lengths, arrays -------------------------------------------------------------------------- */

Test(gguf_hostile, files_shorter_than_a_header)
{
    bytes b = header(0, 0);

    for (size_t n = 0; n < 24; n++) {
        bytes cut = { malloc(24), n, 24 };
        memcpy(cut.p, b.p, n);
        uint64_t at = n < 4 ? 0 : n < 8 ? 4 : n < 16 ? 8 : 16;
        refused(&cut, HT_EFORMAT, at, "the file ends");
    }
    accepted(&b, 0, 0);
}

Test(gguf_hostile, magic_and_version)
{
    static const struct { const char *magic; ht_status st; const char *words; } magics[] = {
        { "FUGG", HT_EFORMAT, "magic" },      { "\0\0\0\0", HT_EFORMAT, "magic" },
        { "tjgg", HT_EFORMAT, "a GGML file" }, { "IRWP", HT_EFORMAT, "magic" },
    };
    for (size_t i = 0; i < sizeof magics / sizeof *magics; i++) {
        bytes b = header(0, 0);
        memcpy(b.p, magics[i].magic, 4);
        refused(&b, magics[i].st, 0, magics[i].words);
    }
    static const uint32_t versions[] = { 0, 1, 4, 1000, 0xffffffff };
    for (size_t i = 0; i < sizeof versions / sizeof *versions; i++) {
        bytes b = header(0, 0);
        memcpy(b.p + 4, &versions[i], 4);
        refused(&b, HT_EUNSUPPORTED, 4, "version");
    }
    bytes b = header(0, 0);
    memcpy(b.p + 4, "\0\0\0\3", 4);
    refused(&b, HT_EUNSUPPORTED, 4, "big-endian");
    b = header(0, 0);
    b.p[4] = 2;
    accepted(&b, 0, 0);
    b = header(0, 0);
    memcpy(b.p, "PWRI", 4); /* PowerInfer's name of the same layout */
    accepted(&b, 0, 0);
}

Test(gguf_hostile, counts_beyond_the_file)
{
    static const uint64_t counts[] = { 1, 1000, 1ull << 32, (1ull << 60) + 1, 1ull << 63, UINT64_MAX / 96 + 1,
                                       UINT64_MAX / 48 + 1, UINT64_MAX / 368, UINT64_MAX - 1, UINT64_MAX };
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        bytes b = header(counts[i], 0);
        refused(&b, HT_EFORMAT, 8, "n_tensors");
        b = header(0, counts[i]);
        refused(&b, HT_EFORMAT, 16, "n_kv");
        b = header(counts[i] + 1000, counts[i]);
        zeros(&b, 13); /* one byte less than the smallest key-value */
        refused(&b, HT_EFORMAT, 16, "n_kv");
    }
}

Test(gguf_hostile, more_entries_than_any_model_has)
{
    bytes b = header(0, (1 << 18) + 1);
    for (uint32_t i = 0; i < (1 << 18) + 1; i++) {
        u64(&b, 1);
        zeros(&b, 6);
    }
    refused(&b, HT_EUNSUPPORTED, 16, "n_kv");
    b = header((1 << 19) + 1, 0);
    zeros(&b, 24 * ((1 << 19) + 1));
    refused(&b, HT_EUNSUPPORTED, 8, "n_tensors");
}

static const uint64_t lengths[] = { 1ull << 30, 1ull << 31, 0xffffffff, 1ull << 32, 1ull << 61, (1ull << 61) + 1,
                                    (1ull << 62) + 1, 1ull << 63, UINT64_MAX - 40, UINT64_MAX - 8,
                                    UINT64_MAX - 1, UINT64_MAX };
enum { N_LENGTHS = sizeof lengths / sizeof *lengths };

Test(gguf_hostile, string_lengths_beyond_the_file)
{
    for (size_t i = 0; i < N_LENGTHS; i++) {
        bytes b = header(0, 1);
        u64(&b, lengths[i]);
        zeros(&b, 200);
        refused(&b, HT_EFORMAT, 24, "key: length");

        b = header(0, 1);
        str(&b, "k");
        u32(&b, HT_KV_STRING);
        u64(&b, lengths[i]);
        zeros(&b, 200);
        refused(&b, HT_EFORMAT, 24 + 9 + 4, "length");

        b = header(1, 0);
        u64(&b, lengths[i]);
        zeros(&b, 200);
        refused(&b, HT_EFORMAT, 24, "tensor name: length");
    }
}

Test(gguf_hostile, array_lengths_beyond_the_file)
{
    for (uint32_t elem = 0; elem <= HT_KV_F64; elem++)
        for (size_t i = 0; i < N_LENGTHS && elem != HT_KV_ARRAY; i++) {
            bytes b = header(0, 1);
            str(&b, "k");
            u32(&b, HT_KV_ARRAY);
            u32(&b, elem);
            u64(&b, lengths[i]);
            zeros(&b, 200);
            refused(&b, HT_EFORMAT, 24 + 9 + 8, "array length");
        }
    bytes b = header(0, 1); /* fits by its count, but the second string does not */
    str(&b, "k");
    u32(&b, HT_KV_ARRAY);
    u32(&b, HT_KV_STRING);
    u64(&b, 3);
    str(&b, "good");
    u64(&b, UINT64_MAX - 7);
    u64(&b, 0);
    refused(&b, HT_EFORMAT, 24 + 9 + 16 + 12, "string 1 of the array");
}

Test(gguf_hostile, arrays_of_unknown_types_and_of_arrays)
{
    static const uint32_t types[] = { 13, 14, 100, 0x7fffffff, 0x80000000, 0xffffffff };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        bytes b = header(0, 1);
        str(&b, "k");
        u32(&b, HT_KV_ARRAY);
        u32(&b, types[i]);
        u64(&b, 1ull << 60);
        zeros(&b, 64);
        refused(&b, HT_EFORMAT, 24 + 9 + 4, "array element type");
        b = header(0, 1);
        str(&b, "k");
        u32(&b, types[i]);
        zeros(&b, 64);
        refused(&b, HT_EFORMAT, 24 + 9, "value type");
    }
    bytes b = header(0, 1);
    str(&b, "deep");
    u32(&b, HT_KV_ARRAY);
    for (int i = 0; i < 20000; i++) {
        u32(&b, HT_KV_ARRAY);
        u64(&b, 1);
    }
    refused(&b, HT_EUNSUPPORTED, 24 + 12 + 4, "arrays of arrays");
}

Test(gguf_hostile, keys)
{
    bytes b = header(0, 1);
    u64(&b, 0);
    u32(&b, HT_KV_U8);
    zeros(&b, 8);
    refused(&b, HT_EFORMAT, 24, "length is 0");

    b = header(0, 3);
    str(&b, "a");
    u32(&b, HT_KV_U8);
    zeros(&b, 1);
    str(&b, "b");
    u32(&b, HT_KV_U8);
    zeros(&b, 1);
    uint64_t at = b.n;
    str(&b, "a");
    u32(&b, HT_KV_STRING);
    str(&b, "x");
    refused(&b, HT_EFORMAT, at, "key 'a' occurs twice");

    for (int more = 0; more <= 1; more++) {
        b = header(0, 1);
        u64(&b, 65535 + (uint64_t)more);
        zeros(&b, 65535 + (size_t)more);
        u32(&b, HT_KV_BOOL);
        zeros(&b, 1);
        if (more)
            refused(&b, HT_EFORMAT, 24, "above 65535");
        else
            accepted(&b, 1, 0);
    }
    b = header(0, 1); /* what a terminal would obey must not reach it */
    str(&b, "\033[2Jkey\n\377");
    u32(&b, 77);
    zeros(&b, 8);
    refused(&b, HT_EFORMAT, 24 + 8 + 9, "'?[2Jkey?" "?'");
}

/* ---- B: tensors -------------------------------------------------------------------------------------------------- */

/* Offset of a field of the only tensor "t" behind an empty metadata part. */
enum { INFO = 24, N_DIMS = INFO + 9, DIMS = N_DIMS + 4 };

Test(gguf_hostile, dimensions)
{
    static const uint64_t ones[8] = { 1, 1, 1, 1, 1, 1, 1, 1 };
    static const uint32_t n_dims[] = { 5, 6, 255, 1u << 31, UINT32_MAX };
    for (size_t i = 0; i < sizeof n_dims / sizeof *n_dims; i++) {
        bytes b = header(1, 0);
        tensor(&b, "t", n_dims[i], ones, 0, 0);
        data(&b, 64);
        refused(&b, HT_EFORMAT, N_DIMS, "n_dims");
    }
    static const struct { uint64_t ne[4]; uint32_t n, type; int bad; } wraps[] = {
        { { 1ull << 63 }, 1, 0, 0 },
        { { UINT64_MAX }, 1, 0, 0 },
        { { 1, 1, UINT64_MAX }, 3, 0, 2 },
        { { 1ull << 32, 1ull << 31 }, 2, 0, 1 },
        { { 1ull << 32, 1ull << 32 }, 2, 0, 1 },
        { { 1ull << 32, 1ull << 32, 16 }, 3, 0, 1 },
        { { 8589934588, 8589934588 }, 2, 0, 1 },
        { { 1334335, 1334335, 1334335, 1334335 }, 4, 27, 3 },
        { { 0, (1ull << 62), 4 }, 3, 0, 2 },
        { { (1ull << 62), 4, 0 }, 3, 0, 1 },
    };
    for (size_t i = 0; i < sizeof wraps / sizeof *wraps; i++) {
        bytes b = header(1, 0);
        tensor(&b, "t", wraps[i].n, wraps[i].ne, wraps[i].type, 0);
        data(&b, 4096);
        refused(&b, HT_EFORMAT, DIMS + 8 * (uint64_t)wraps[i].bad, "more than 2^63-1 elements");
    }
    /* element count below 2^63, byte count beyond 64 bits */
    static const uint64_t many[1] = { 1ull << 62 };
    bytes b = header(1, 0);
    tensor(&b, "t", 1, many, 28, 0);
    data(&b, 4096);
    refused(&b, HT_EFORMAT, DIMS, "overflow 64 bits");
}

Test(gguf_hostile, rows_that_are_no_whole_blocks)
{
    static const uint64_t ne[2] = { 48, 32 };
    bytes b = header(1, 0);
    tensor(&b, "t", 2, ne, 2, 0);
    data(&b, 4096);
    refused(&b, HT_EFORMAT, DIMS, "whole blocks of 32 (type Q4_0)");
}

Test(gguf_hostile, types)
{
    static const uint32_t types[] = { 4, 5, 31, 32, 33, 37, 38, 43, 64, 1000, 1u << 31, UINT32_MAX };
    static const uint64_t ne[1] = { 256 };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        bytes b = header(1, 0);
        tensor(&b, "t", 1, ne, types[i], 0);
        data(&b, 4096);
        refused(&b, HT_EFORMAT, DIMS + 8, "no such type");
    }
}

Test(gguf_hostile, data_outside_of_the_file)
{
    static const uint64_t ne[1] = { 64 };
    const uint64_t at = DIMS + 8 + 4;
    static const uint64_t offsets[] = { 32, 64, 256, 1ull << 32, 1ull << 62, 1ull << 63, UINT64_MAX - 255,
                                        UINT64_MAX - 31 };
    for (size_t i = 0; i < sizeof offsets / sizeof *offsets; i++) {
        bytes b = header(1, 0);
        tensor(&b, "t", 1, ne, 0, offsets[i]);
        data(&b, 256);
        refused(&b, HT_EFORMAT, at, "data section has 256 bytes");
    }
    bytes b = header(1, 0);
    tensor(&b, "t", 1, ne, 0, 0);
    data(&b, 255);
    refused(&b, HT_EFORMAT, at, "256 bytes at offset 0");
    b = header(1, 0); /* no data section at all, not even the padding before it */
    tensor(&b, "t", 1, ne, 0, 0);
    refused(&b, HT_EFORMAT, at, "data section has 0 bytes");
    static const uint64_t odd[] = { 1, 16, 31, 33, UINT64_MAX };
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        b = header(1, 0);
        tensor(&b, "t", 1, ne, 0, odd[i]);
        data(&b, 4096);
        refused(&b, HT_EFORMAT, at, "not a multiple of the alignment 32");
    }
    /* sizes whose sum, or whose padding, wraps to something small */
    static const uint64_t half[1] = { (1ull << 62) - 8 }, pad[3] = { 4, 1073741823, 1073741825 };
    b = header(2, 0);
    tensor(&b, "a", 1, half, 25, 0);
    tensor(&b, "b", 1, half, 25, 1ull << 63);
    data(&b, 4096);
    refused(&b, HT_EFORMAT, at, "data section has 4096 bytes");
    b = header(1, 0);
    tensor(&b, "t", 3, pad, 0, 0);
    data(&b, 4096);
    refused(&b, HT_EFORMAT, at + 16, "data section has 4096 bytes");
    static const uint64_t long_row[1] = { (1ull << 32) + 32 };
    b = header(1, 0);
    tensor(&b, "t", 1, long_row, 2, 0);
    data(&b, 4096);
    refused(&b, HT_EFORMAT, at, "data section has 4096 bytes");
}

Test(gguf_hostile, tensors_that_share_bytes_or_names)
{
    static const uint64_t ne[1] = { 64 };
    bytes b = header(3, 0);
    tensor(&b, "a", 1, ne, 0, 256);
    tensor(&b, "b", 1, ne, 0, 0);
    uint64_t at = b.n + 9 + 4 + 8 + 4;
    tensor(&b, "c", 1, ne, 0, 480);
    data(&b, 4096);
    refused(&b, HT_EFORMAT, at, "tensor 'c' overlaps tensor 'a'");

    b = header(2, 0); /* out of file order is fine */
    tensor(&b, "a", 1, ne, 0, 256);
    tensor(&b, "b", 1, ne, 0, 0);
    data(&b, 512);
    accepted(&b, 0, 2);

    b = header(2, 0);
    tensor(&b, "a", 1, ne, 0, 0);
    at = b.n;
    tensor(&b, "a", 1, ne, 0, 256);
    data(&b, 512);
    refused(&b, HT_EFORMAT, at, "tensor 'a' occurs twice");
}

Test(gguf_hostile, alignment)
{
    static const uint32_t bad[] = { 0, 1, 2, 3, 4, 7, 12, 33, 1u << 25, 1u << 31, UINT32_MAX };
    const uint64_t at = 24 + 8 + 17 + 4;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        bytes b = header(0, 1);
        str(&b, "general.alignment");
        u32(&b, HT_KV_U32);
        u32(&b, bad[i]);
        refused(&b, HT_EFORMAT, at, "general.alignment");
    }
    bytes b = header(0, 1);
    str(&b, "general.alignment");
    u32(&b, HT_KV_U64);
    u64(&b, 32);
    refused(&b, HT_EFORMAT, at, "has type u64, wanted u32");
    b = header(0, 1);
    str(&b, "general.alignment");
    u32(&b, HT_KV_STRING);
    str(&b, "32");
    refused(&b, HT_EFORMAT, at, "has type string, wanted u32");
    static const uint64_t ne[1] = { 8 };
    b = header(1, 1); /* offsets made for 32, alignment 64 */
    str(&b, "general.alignment");
    u32(&b, HT_KV_U32);
    u32(&b, 64);
    uint64_t info = b.n;
    tensor(&b, "t", 1, ne, 0, 32);
    zeros(&b, 4096);
    refused(&b, HT_EFORMAT, info + 9 + 4 + 8 + 4, "alignment 64");
}

Test(gguf_hostile, empty_tensors_are_no_fault)
{
    static const struct { uint64_t ne[4]; uint32_t n, type; } empty[] = {
        { { 0 }, 1, 0 }, { { 32, 0, 5 }, 3, 2 }, { { 0, 7 }, 2, 12 }, { { 1, 1, 1, 0 }, 4, 27 },
    };
    for (size_t i = 0; i < sizeof empty / sizeof *empty; i++) {
        bytes b = header(1, 0);
        tensor(&b, "t", empty[i].n, empty[i].ne, empty[i].type, 0);
        ht_gguf *g;
        cr_assert_eq(ht_gguf_open_memory(&g, b.p, b.n, NULL), HT_OK);
        cr_expect_eq(ht_gguf_tensor_at(g, 0)->bytes, 0);
        cr_expect_null(ht_gguf_tensor_at(g, 0)->data);
        ht_gguf_close(&g);
        free(b.p);
    }
}

Test(gguf_hostile, long_names)
{
    static const uint64_t ne[1] = { 8 };
    static const size_t sizes[] = { 0, 1, 63, 64, 65, 4096, 65536, 65537 };
    static char name[65538];
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        memset(name, 'n', sizes[i]);
        name[sizes[i]] = 0;
        bytes b = header(1, 0);
        tensor(&b, name, 1, ne, 0, 0);
        data(&b, 32);
        if (sizes[i] > 65536)
            refused(&b, HT_EFORMAT, 24, "above 65536");
        else
            accepted(&b, 0, 1);
    }
}

/* ---- many at once ------------------------------------------------------------------------------------------------ */

/* A small file with some of everything. */
static bytes rich_file(void)
{
    static const uint64_t ne[2][2] = { { 32, 3 }, { 16, 2 } };
    bytes b = header(2, 9);
    str(&b, "general.architecture");
    u32(&b, HT_KV_STRING);
    str(&b, "llama");
    str(&b, "general.alignment");
    u32(&b, HT_KV_U32);
    u32(&b, 32);
    str(&b, "split.count");
    u32(&b, HT_KV_U16);
    put(&b, "\1\0", 2);
    str(&b, "a.bool");
    u32(&b, HT_KV_BOOL);
    put(&b, "\1", 1);
    str(&b, "a.f64");
    u32(&b, HT_KV_F64);
    u64(&b, 0x3ff0000000000000);
    str(&b, "a.i8s");
    u32(&b, HT_KV_ARRAY);
    u32(&b, HT_KV_I8);
    u64(&b, 3);
    put(&b, "\1\2\3", 3);
    str(&b, "a.strings");
    u32(&b, HT_KV_ARRAY);
    u32(&b, HT_KV_STRING);
    u64(&b, 3);
    str(&b, "one");
    str(&b, "");
    str(&b, "three");
    str(&b, "a.none");
    u32(&b, HT_KV_ARRAY);
    u32(&b, HT_KV_STRING);
    u64(&b, 0);
    str(&b, "a.u64");
    u32(&b, HT_KV_U64);
    u64(&b, UINT64_MAX);
    tensor(&b, "first", 2, ne[0], 2, 0);
    tensor(&b, "second", 2, ne[1], 0, 64);
    data(&b, 64 + 128);
    return b;
}

Test(gguf_hostile, every_prefix_is_refused)
{
    bytes b = rich_file();
    for (size_t n = 0; n < b.n; n++) {
        ht_gguf *g;
        ht_error err;
        cr_assert_eq(open_bytes(&g, b.p, n, &err), HT_EFORMAT, "%d bytes of %d: accepted", (int)n, (int)b.n);
        cr_assert_leq(err.offset, n, "offset %llu of %d", (unsigned long long)err.offset, (int)n);
    }
    accepted(&b, 9, 2);
}

Test(gguf_hostile, every_byte_changed_is_survived)
{
    static const uint8_t values[] = { 0, 1, 2, 8, 9, 0x20, 0x7f, 0x80, 0xfe, 0xff };
    bytes b = rich_file();
    for (size_t at = 0; at < b.n; at++) {
        uint8_t was = b.p[at];
        for (size_t i = 0; i < sizeof values; i++) {
            ht_gguf *g;
            ht_error err;
            b.p[at] = values[i];
            if (ht_gguf_open_memory(&g, b.p, b.n, &err) == HT_OK) {
                walk(g);
                ht_gguf_close(&g);
            } else {
                cr_assert(err.text[0] && (err.offset <= b.n || err.offset == UINT64_MAX), "%s", err.text);
            }
        }
        b.p[at] = was;
    }
    free(b.p);
}

/* The check of any file takes less than a second: many entries, each sharing a long prefix with the others. */
Test(gguf_hostile, many_entries_do_not_take_long)
{
    enum { N = 100000 };
    static const uint64_t ne[1] = { 0 };
    bytes b = header(N, N);
    char name[128];
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof name, "%064d.%06d", 0, i);
        str(&b, name);
        u32(&b, HT_KV_U8);
        zeros(&b, 1);
    }
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof name, "%064d.%06d", 1, i);
        tensor(&b, name, 1, ne, 0, 0);
    }
    clock_t start = clock();
    accepted(&b, N, N);
    double s = (double)(clock() - start) / CLOCKS_PER_SEC;
    cr_expect_lt(s, 5.0, "%.2f s", s); /* 0.1 s; room for sanitizers on a busy machine */
}

Test(gguf_hostile, handcrafted_files)
{
    static const char *const must_open[] = { "ok_HEADER_EMPTY", "ok_KV_" };
    DIR *dir = opendir(HEARTH_TEST_DATA "/malformed");
    struct dirent *e;
    int seen = 0;

    cr_assert_not_null(dir);
    while ((e = readdir(dir))) {
        char path[4096];
        ht_gguf *g;
        ht_error err = { 0 };
        size_t n = strlen(e->d_name);
        if (n < 5 || strcmp(e->d_name + n - 5, ".gguf") != 0)
            continue;
        snprintf(path, sizeof path, HEARTH_TEST_DATA "/malformed/%s", e->d_name);
        ht_status st = ht_gguf_open(&g, path, &err);
        if (strncmp(e->d_name, "bad_", 4) == 0) {
            cr_expect(st == HT_EFORMAT || st == HT_EUNSUPPORTED, "%s: %d", e->d_name, st);
            cr_expect(strstr(err.text, e->d_name) && strstr(err.text, "(at byte "), "%s", err.text);
            cr_expect_neq(err.offset, UINT64_MAX, "%s", err.text);
        }
        for (size_t i = 0; i < sizeof must_open / sizeof *must_open; i++)
            if (strncmp(e->d_name, must_open[i], strlen(must_open[i])) == 0)
                cr_expect_eq(st, HT_OK, "%s", err.text);
        if (st == HT_OK)
            walk(g);
        ht_gguf_close(&g);
        seen++;
    }
    closedir(dir);
    cr_expect_eq(seen, 29);
}

Test(gguf_hostile, things_that_are_no_files)
{
    char dir[] = P_tmpdir "/hearth-gguf-XXXXXX", path[256];
    ht_gguf *g;
    ht_error err;

    cr_assert_not_null(mkdtemp(dir));
    cr_expect_eq(ht_gguf_open(&g, dir, &err), HT_EIO, "%s", err.text);
    snprintf(path, sizeof path, "%s/missing.gguf", dir);
    cr_expect_eq(ht_gguf_open(&g, path, &err), HT_EIO);
    cr_expect(strstr(err.text, "missing.gguf"));
    snprintf(path, sizeof path, "%s/pipe.gguf", dir);
    cr_assert_eq(mkfifo(path, 0600), 0);
    cr_expect_eq(ht_gguf_open(&g, path, &err), HT_EIO, "a pipe must not be waited for");
    remove(path);
    snprintf(path, sizeof path, "%s/empty.gguf", dir);
    fclose(fopen(path, "w"));
    cr_expect_eq(ht_gguf_open(&g, path, &err), HT_EFORMAT);
    cr_expect_eq(err.offset, 0);
    cr_expect_null(g);
    remove(path);
    rmdir(dir);
}

Test(gguf_hostile, an_error_object_is_optional)
{
    bytes b = header(0, 77);
    ht_gguf *g;
    cr_expect_eq(ht_gguf_open_memory(&g, b.p, b.n, NULL), HT_EFORMAT);
    cr_expect_eq(ht_gguf_open(&g, "/nowhere/at/all", NULL), HT_EIO);
    ht_gguf_close(&g);
    ht_gguf_close(NULL);
    free(b.p);
}
