/* SPDX-License-Identifier: MIT
 *
 * Reading good GGUF files: every kind of value, typed reads and overrides, tensors, split sets. The files are made
 * with the writer (test_gguf_write.c looks at the bytes themselves); damaged ones are in test_gguf_hostile.c. */
#include <criterion/criterion.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/types.h"
#include "engine/gguf.h"
#include "engine/gguf_write.h"

#define STR(s) ((ht_str){ (s), sizeof(s) - 1 })

static char folder[64];

static void make_folder(void)
{
    strcpy(folder, P_tmpdir "/hearth-gguf-XXXXXX");
    cr_assert_not_null(mkdtemp(folder));
}

static void remove_folder(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    cr_expect_eq(system(command), 0);
}

TestSuite(gguf, .init = make_folder, .fini = remove_folder);

static const char *in_folder(char *path, const char *name)
{
    snprintf(path, 256, "%s/%s", folder, name);
    return path;
}

static void write_rich(const char *path, uint32_t align)
{
    static const int16_t i16s[] = { -1, 2, -32768 };
    static const uint8_t bools[] = { 1, 0, 1 };
    static const double f64s[] = { 0.5, -1e300 };
    static const float values[96] = { 1.0f, -2.0f, 3.0f };
    static const ht_str words[] = { { "alpha", 5 }, { "", 0 }, { "nul\0inside", 10 } };
    static const uint64_t ne[3][4] = { { 32, 3 }, { 8, 2, 2, 1 }, { 16, 0 } };
    ht_gguf_writer *w;
    ht_error err;
    int8_t i8 = -7;
    uint8_t u8 = 200;
    int16_t i16 = -300;
    uint16_t u16 = 65535;
    int64_t i64 = INT64_MIN;
    double f64 = 1e-300;

    cr_assert_eq(ht_gguf_writer_open(&w, path, &err), HT_OK, "%s", err.text);
    ht_gguf_writer_set_str(w, "general.architecture", STR("llama"));
    ht_gguf_writer_set_u32(w, "general.alignment", align);
    ht_gguf_writer_set_scalar(w, "v.u8", HT_KV_U8, &u8);
    ht_gguf_writer_set_scalar(w, "v.i8", HT_KV_I8, &i8);
    ht_gguf_writer_set_scalar(w, "v.u16", HT_KV_U16, &u16);
    ht_gguf_writer_set_scalar(w, "v.i16", HT_KV_I16, &i16);
    ht_gguf_writer_set_u32(w, "v.u32", 4000000000u);
    ht_gguf_writer_set_i32(w, "v.i32", -5);
    ht_gguf_writer_set_f32(w, "v.f32", 0.1f);
    ht_gguf_writer_set_bool(w, "v.bool", true);
    ht_gguf_writer_set_u64(w, "v.u64", UINT64_MAX);
    ht_gguf_writer_set_scalar(w, "v.i64", HT_KV_I64, &i64);
    ht_gguf_writer_set_scalar(w, "v.f64", HT_KV_F64, &f64);
    ht_gguf_writer_set_array(w, "a.i16", HT_KV_I16, i16s, 3);
    ht_gguf_writer_set_array(w, "a.bool", HT_KV_BOOL, bools, 3);
    ht_gguf_writer_set_array(w, "a.f64", HT_KV_F64, f64s, 2);
    ht_gguf_writer_set_array(w, "a.none", HT_KV_U32, NULL, 0);
    ht_gguf_writer_set_strings(w, "a.str", words, 3);
    cr_assert_eq(ht_gguf_writer_declare(w, STR("q"), HT_Q8_0, 2, ne[0], &err), HT_OK, "%s", err.text);
    cr_assert_eq(ht_gguf_writer_declare(w, STR("empty"), HT_F16, 2, ne[2], &err), HT_OK, "%s", err.text);
    cr_assert_eq(ht_gguf_writer_declare(w, STR("ints"), 26, 4, ne[1], &err), HT_OK, "%s", err.text);
    cr_assert_eq(ht_gguf_writer_declare(w, STR("scalar"), HT_F32, 0, NULL, &err), HT_OK, "%s", err.text);
    cr_assert_eq(ht_gguf_writer_floats(w, values, 96, &err), HT_OK, "%s", err.text);
    cr_assert_eq(ht_gguf_writer_raw(w, values, 32 * 4, &err), HT_OK, "%s", err.text);
    cr_assert_eq(ht_gguf_writer_floats(w, values + 1, 1, &err), HT_OK, "%s", err.text);
    cr_assert_eq(ht_gguf_writer_close(&w, &err), HT_OK, "%s", err.text);
    cr_assert_null(w);
}

static ht_gguf *open_good(const char *path)
{
    ht_gguf *g;
    ht_error err;
    cr_assert_eq(ht_gguf_open(&g, path, &err), HT_OK, "%s", err.text);
    return g;
}

Test(gguf, values_of_every_kind)
{
    char path[256];
    write_rich(in_folder(path, "rich.gguf"), 64);
    ht_gguf *g = open_good(path);
    int64_t i;
    double d;
    ht_str s, words[3];

    cr_expect_eq(ht_gguf_version(g), 3);
    cr_expect_eq(ht_gguf_n_files(g), 1);
    cr_expect_str_eq(ht_gguf_path(g, 0), path);
    cr_expect(ht_gguf_fd(g, 0) >= 0 && ht_gguf_fd(g, 1) == -1);
    cr_expect_eq(ht_gguf_n_kv(g), 18);
    static const struct { const char *key; int64_t v; } ints[] = {
        { "v.u8", 200 }, { "v.i8", -7 }, { "v.u16", 65535 }, { "v.i16", -300 }, { "v.u32", 4000000000 },
        { "v.i32", -5 },
        { "v.i64", INT64_MIN }, { "v.bool", 1 },
    };
    for (size_t k = 0; k < sizeof ints / sizeof *ints; k++) {
        const ht_kv *kv = ht_gguf_find(g, ints[k].key);
        cr_expect(kv && ht_kv_int(kv, 0, &i) && i == ints[k].v, "%s", ints[k].key);
        cr_expect(!ht_kv_int(kv, 1, &i) && !ht_kv_str(kv, &s) && !ht_kv_strings(kv, words), "%s", ints[k].key);
    }
    cr_expect_not(ht_kv_int(ht_gguf_find(g, "v.u64"), 0, &i), "2^64-1 is no int64");
    cr_expect(ht_kv_float(ht_gguf_find(g, "v.u64"), 0, &d) && d == 0x1p64);
    cr_expect(ht_kv_float(ht_gguf_find(g, "v.f32"), 0, &d) && d == (double)0.1f);
    cr_expect(ht_kv_float(ht_gguf_find(g, "v.f64"), 0, &d) && d == 1e-300);
    cr_expect(ht_kv_float(ht_gguf_find(g, "v.i8"), 0, &d) && d == -7.0);
    cr_expect_not(ht_kv_float(ht_gguf_find(g, "v.bool"), 0, &d));
    cr_expect_not(ht_kv_int(ht_gguf_find(g, "v.f32"), 0, &i));
    cr_expect(ht_kv_str(ht_gguf_find(g, "general.architecture"), &s) && s.n == 5 && memcmp(s.s, "llama", 5) == 0);

    const ht_kv *kv = ht_gguf_find(g, "a.i16");
    cr_expect(kv && kv->type == HT_KV_ARRAY && kv->elem == HT_KV_I16 && kv->n == 3);
    cr_expect(ht_kv_int(kv, 0, &i) && i == -1);
    cr_expect(ht_kv_int(kv, 2, &i) && i == -32768 && !ht_kv_int(kv, 3, &i));
    cr_expect(ht_kv_int(ht_gguf_find(g, "a.bool"), 2, &i) && i == 1);
    cr_expect(ht_kv_float(ht_gguf_find(g, "a.f64"), 1, &d) && d == -1e300);
    cr_expect_eq(ht_gguf_find(g, "a.none")->n, 0);
    cr_expect(ht_kv_strings(ht_gguf_find(g, "a.str"), words));
    cr_expect(words[0].n == 5 && words[1].n == 0 && words[2].n == 10 && memcmp(words[2].s, "nul\0inside", 10) == 0);
    cr_expect_not(ht_kv_str(ht_gguf_find(g, "a.str"), &s));
    cr_expect_null(ht_gguf_find(g, "a.st"));
    cr_expect_null(ht_gguf_find(g, ""));
    for (uint64_t k = 0; k < ht_gguf_n_kv(g); k++)
        cr_expect_not_null(ht_gguf_kv_at(g, k));
    cr_expect_null(ht_gguf_kv_at(g, ht_gguf_n_kv(g)));
    ht_gguf_close(&g);
    cr_expect_null(g);
}

Test(gguf, tensors)
{
    char path[256];
    for (uint32_t align = 8; align <= 4096; align *= 8) {
        write_rich(in_folder(path, "rich.gguf"), align);
        ht_gguf *g = open_good(path);
        cr_expect_eq(ht_gguf_n_tensors(g), 4);
        const ht_tensor *q = ht_gguf_find_tensor(g, "q"), *e = ht_gguf_find_tensor(g, "empty");
        const ht_tensor *t = ht_gguf_find_tensor(g, "ints"), *s = ht_gguf_find_tensor(g, "scalar");
        cr_assert(q && e && t && s);
        cr_expect(q == ht_gguf_tensor_at(g, 0) && !ht_gguf_tensor_at(g, 4) && !ht_gguf_find_tensor(g, "Q"));
        cr_expect(q->type == HT_Q8_0 && q->n_dims == 2);
        cr_expect(q->ne[0] == 32 && q->ne[1] == 3 && q->ne[2] == 1 && q->ne[3] == 1);
        cr_expect(q->bytes == 3 * 34 && q->offset % align == 0 && (uintptr_t)q->data % align == 0);
        cr_expect(e->bytes == 0 && !e->data);
        cr_expect(t->bytes == 128 && t->type == 26 && t->ne[2] == 2);
        cr_expect(s->bytes == 4 && s->n_dims == 0 && s->ne[0] == 1);
        float y[96];
        ht_type_dequant(HT_Q8_0, q->data, 96, y);
        cr_expect(fabsf(y[2] - 3.0f) < 0.01f && y[40] == 0.0f);
        memcpy(y, s->data, 4);
        cr_expect_eq(y[0], -2.0f);
        cr_expect_eq(ht_gguf_file_bytes(g, 0) % align, 0, "the last tensor is padded too");
        ht_gguf_close(&g);
    }
}

Test(gguf, typed_reads)
{
    char path[256];
    write_rich(in_folder(path, "rich.gguf"), 32);
    ht_gguf *g = open_good(path);
    ht_error err;
    uint32_t u = 17;
    uint64_t v = 18;
    float f = 19.0f;
    bool b = true;
    ht_str s = { "default", 7 };

    cr_expect(ht_gguf_u32(g, "none", &u, &err) == HT_OK && u == 17);
    cr_expect(ht_gguf_u64(g, "none", &v, &err) == HT_OK && v == 18);
    cr_expect(ht_gguf_f32(g, "none", &f, &err) == HT_OK && f == 19.0f);
    cr_expect(ht_gguf_bool(g, "none", &b, &err) == HT_OK && b);
    cr_expect(ht_gguf_str(g, "none", &s, &err) == HT_OK && s.n == 7);
    cr_expect_eq(ht_gguf_need_u32(g, "none", &u, &err), HT_EFORMAT);
    cr_expect(strstr(err.text, "'none'") && strstr(err.text, "rich.gguf"), "%s", err.text);

    cr_expect(ht_gguf_u32(g, "v.u8", &u, &err) == HT_OK && u == 200);
    cr_expect(ht_gguf_need_u32(g, "v.u32", &u, &err) == HT_OK && u == 4000000000u);
    cr_expect(ht_gguf_u64(g, "v.u64", &v, &err) == HT_OK && v == UINT64_MAX);
    cr_expect(ht_gguf_f32(g, "v.f32", &f, &err) == HT_OK && f == 0.1f);
    cr_expect(ht_gguf_f32(g, "v.i32", &f, &err) == HT_OK && f == -5.0f);
    cr_expect(ht_gguf_f32(g, "v.f64", &f, &err) == HT_OK && f == 0.0f);
    cr_expect(ht_gguf_bool(g, "v.bool", &b, &err) == HT_OK && b);
    cr_expect(ht_gguf_str(g, "general.architecture", &s, &err) == HT_OK && s.n == 5);

    static const char *const not_u32[] = { "v.i8", "v.i64", "v.u64", "v.f32", "v.bool", "a.i16", "a.str",
                                           "general.architecture" };
    for (size_t i = 0; i < sizeof not_u32 / sizeof *not_u32; i++) {
        u = 5;
        cr_expect(ht_gguf_u32(g, not_u32[i], &u, &err) == HT_EFORMAT && u == 5, "%s", not_u32[i]);
        cr_expect(err.offset == ht_gguf_find(g, not_u32[i])->offset && strstr(err.text, not_u32[i]), "%s", err.text);
    }
    cr_expect_eq(ht_gguf_f32(g, "a.f64", &f, &err), HT_EFORMAT);
    cr_expect_eq(ht_gguf_f32(g, "v.bool", &f, &err), HT_EFORMAT);
    cr_expect_eq(ht_gguf_override(g, "v.f64", "1e300", &err), HT_OK);
    cr_expect_eq(ht_gguf_f32(g, "v.f64", &f, &err), HT_EFORMAT, "beyond float32");
    cr_expect_eq(ht_gguf_bool(g, "v.u8", &b, &err), HT_EFORMAT);
    cr_expect_eq(ht_gguf_str(g, "v.u8", &s, &err), HT_EFORMAT);
    cr_expect_eq(ht_gguf_str(g, "a.str", &s, NULL), HT_EFORMAT);
    ht_gguf_close(&g);
}

/* Types that only other programs compute with are listed, so that any file can be looked at. */
Test(gguf, tensors_of_foreign_types)
{
    static const uint64_t ne[1] = { 256 };
    static const uint8_t zeros[2048];
    char path[256];
    ht_gguf_writer *w;

    cr_assert_eq(ht_gguf_writer_open(&w, in_folder(path, "foreign.gguf"), NULL), HT_OK);
    ht_gguf_writer_declare(w, STR("q8_k"), 15, 1, ne, NULL);
    ht_gguf_writer_declare(w, STR("nvfp4"), 40, 1, ne, NULL);
    ht_gguf_writer_declare(w, STR("i2_s"), 40, 1, ne, NULL); /* becomes 36 below: of unknown size */
    cr_assert_eq(ht_gguf_writer_raw(w, zeros, 292 + 2 * 144, NULL), HT_OK);
    cr_assert_eq(ht_gguf_writer_close(&w, NULL), HT_OK);
    FILE *f = fopen(path, "r+b");
    cr_assert_eq(fseek(f, 24 + (8 + 4 + 4 + 8 + 12) + (8 + 5 + 4 + 8 + 12) + 8 + 4 + 4 + 8, SEEK_SET), 0);
    fputc(36, f);
    fclose(f);
    ht_gguf *g = open_good(path);
    const ht_tensor *t = ht_gguf_tensor_at(g, 0);
    cr_expect(t->bytes == 292 && t->data && !ht_type_get(t->type));
    t = ht_gguf_tensor_at(g, 1);
    cr_expect(t->bytes == 144 && t->data);
    t = ht_gguf_tensor_at(g, 2);
    cr_expect(t->type == 36 && t->bytes == 0 && !t->data && t->offset > 0);
    cr_expect_str_eq(ht_type_name(t->type), "I2_S");
    ht_gguf_close(&g);
}

Test(gguf, overrides)
{
    char path[256];
    write_rich(in_folder(path, "rich.gguf"), 32);
    ht_gguf *g = open_good(path);
    ht_error err;
    uint32_t u = 0;
    uint64_t v = 0, n = ht_gguf_n_kv(g);
    float f = 0;
    bool b = true;
    ht_str s;
    int64_t i;

    /* keys of the file: their own type */
    cr_expect_eq(ht_gguf_override(g, "v.u8", "255", &err), HT_OK);
    cr_expect_eq(ht_gguf_override(g, "v.i8", "-128", &err), HT_OK);
    cr_expect_eq(ht_gguf_override(g, "v.f32", "2.5e-3", &err), HT_OK);
    cr_expect_eq(ht_gguf_override(g, "v.f64", "7", &err), HT_OK);
    cr_expect_eq(ht_gguf_override(g, "v.bool", "false", &err), HT_OK);
    cr_expect_eq(ht_gguf_override(g, "v.i64", "-9223372036854775808", &err), HT_OK);
    cr_expect_eq(ht_gguf_override(g, "v.u64", "18446744073709551615", &err), HT_OK);
    cr_expect_eq(ht_gguf_override(g, "general.architecture", "a longer name", &err), HT_OK);
    cr_expect(ht_gguf_u32(g, "v.u8", &u, &err) == HT_OK && u == 255);
    cr_expect(ht_kv_int(ht_gguf_find(g, "v.i8"), 0, &i) && i == -128);
    cr_expect(ht_gguf_f32(g, "v.f32", &f, &err) == HT_OK && f == 2.5e-3f);
    cr_expect(ht_gguf_f32(g, "v.f64", &f, &err) == HT_OK && f == 7.0f);
    cr_expect(ht_gguf_bool(g, "v.bool", &b, &err) == HT_OK && !b);
    cr_expect(ht_kv_int(ht_gguf_find(g, "v.i64"), 0, &i) && i == INT64_MIN);
    cr_expect_eq(ht_gguf_str(g, "general.architecture", &s, &err), HT_OK);
    cr_expect(s.n == 13 && memcmp(s.s, "a longer name", 13) == 0);
    cr_expect_eq(ht_gguf_n_kv(g), n);

    static const char *const bad[][2] = {
        { "v.u8", "256" }, { "v.u8", "-1" },  { "v.i8", "-129" }, { "v.i8", "128" },   { "v.u32", "1.5" },
        { "v.u32", "" },   { "v.u32", " 1" }, { "v.u32", "1 " },  { "v.f32", "1e39" }, { "v.f32", "nan" },
        { "v.f32", "1,5" }, { "v.f64", "1e999" }, { "v.bool", "yes" }, { "v.bool", "2" }, { "a.i16", "1" },
        { "v.u64", "18446744073709551616" }, { "", "1" },
    };
    for (size_t k = 0; k < sizeof bad / sizeof *bad; k++)
        cr_expect_eq(ht_gguf_override(g, bad[k][0], bad[k][1], &err), HT_EINVAL, "%s=%s", bad[k][0], bad[k][1]);
    cr_expect(ht_gguf_u32(g, "v.u8", &u, &err) == HT_OK && u == 255, "a refused override changes nothing");

    /* new keys: by their spelling */
    static const struct { const char *key, *value; ht_kv_type type; } added[] = {
        { "n.int", "42", HT_KV_I64 },        { "n.neg", "-42", HT_KV_I64 },
        { "n.big", "18446744073709551615", HT_KV_U64 }, { "n.float", "0.5", HT_KV_F64 },
        { "n.exp", "1e5", HT_KV_F64 },       { "n.true", "true", HT_KV_BOOL },
        { "n.word", "linear", HT_KV_STRING }, { "llama.hidden_activation", "relu", HT_KV_STRING },
        { "x.hidden_activation", "1", HT_KV_STRING }, { "n.ip", "1.2.3", HT_KV_STRING },
    };
    enum { N = sizeof added / sizeof *added };
    for (size_t k = 0; k < N; k++) {
        cr_assert_eq(ht_gguf_override(g, added[k].key, added[k].value, &err), HT_OK, "%s", err.text);
        const ht_kv *kv = ht_gguf_find(g, added[k].key);
        cr_assert_not_null(kv, "%s", added[k].key);
        cr_expect_eq(kv->type, added[k].type, "%s: %d", added[k].key, kv->type);
        cr_expect_eq(kv, ht_gguf_kv_at(g, n + k));
    }
    cr_expect_eq(ht_gguf_n_kv(g), n + N);
    cr_expect_null(ht_gguf_kv_at(g, n + N));
    cr_expect(ht_gguf_u32(g, "n.int", &u, &err) == HT_OK && u == 42);
    cr_expect(ht_gguf_u64(g, "n.big", &v, &err) == HT_OK && v == UINT64_MAX);
    cr_expect(ht_gguf_str(g, "llama.hidden_activation", &s, &err) == HT_OK && s.n == 4);
    cr_expect_eq(ht_gguf_u32(g, "n.neg", &u, &err), HT_EFORMAT);
    cr_expect_eq(err.offset, UINT64_MAX, "an override has no place in the file");
    /* and again, now that it is there */
    cr_expect_eq(ht_gguf_override(g, "n.int", "43", &err), HT_OK);
    cr_expect(ht_gguf_u32(g, "n.int", &u, &err) == HT_OK && u == 43);
    cr_expect_eq(ht_gguf_override(g, "n.int", "0.5", &err), HT_EINVAL);
    for (uint64_t k = 0; k < n; k++) { /* all keys of the file are still found */
        const ht_kv *kv = ht_gguf_kv_at(g, k);
        char key[64];
        snprintf(key, sizeof key, "%.*s", (int)kv->key.n, kv->key.s);
        cr_expect_eq(ht_gguf_find(g, key), kv, "%s", key);
    }
    ht_gguf_close(&g);
}

/* ---- split sets -------------------------------------------------------------------------------------------------- */

static void write_part(const char *name, int no, int count, int total, const char *tensor)
{
    static const float values[32] = { 1.0f };
    static const uint64_t ne[1] = { 32 };
    uint16_t n = (uint16_t)no, c = (uint16_t)count;
    char path[256];
    ht_gguf_writer *w;

    cr_assert_eq(ht_gguf_writer_open(&w, in_folder(path, name), NULL), HT_OK);
    if (no == 0)
        ht_gguf_writer_set_str(w, "general.architecture", STR("llama"));
    ht_gguf_writer_set_scalar(w, "split.no", HT_KV_U16, &n);
    ht_gguf_writer_set_scalar(w, "split.count", HT_KV_U16, &c);
    ht_gguf_writer_set_i32(w, "split.tensors.count", total);
    if (tensor) {
        ht_gguf_writer_declare(w, (ht_str){ tensor, strlen(tensor) }, HT_F32, 1, ne, NULL);
        ht_gguf_writer_raw(w, values, sizeof values, NULL);
    }
    cr_assert_eq(ht_gguf_writer_close(&w, NULL), HT_OK);
}

static ht_status open_set(const char *name, ht_error *err)
{
    char path[256];
    ht_gguf *g;
    ht_status st = ht_gguf_open(&g, in_folder(path, name), err);
    cr_expect_eq(st == HT_OK, g != NULL);
    ht_gguf_close(&g);
    return st;
}

Test(gguf, split_sets)
{
    char path[256], other[256];
    ht_error err;
    static const char first[] = "m-00001-of-00003.gguf", second[] = "m-00002-of-00003.gguf",
                      third[] = "m-00003-of-00003.gguf";

    write_part(first, 0, 3, 2, NULL); /* the first often has keys only */
    write_part(second, 1, 3, 2, "a");
    write_part(third, 2, 3, 2, "b");
    ht_gguf *g = open_good(in_folder(path, first));
    cr_expect_eq(ht_gguf_n_files(g), 3);
    cr_expect_eq(ht_gguf_n_tensors(g), 2);
    cr_expect_str_eq(ht_gguf_path(g, 2), in_folder(other, third));
    const ht_tensor *b = ht_gguf_find_tensor(g, "b");
    cr_assert_not_null(b);
    cr_expect_eq(b->file, 2);
    cr_expect(ht_gguf_fd(g, 2) >= 0 && ht_gguf_file_bytes(g, 2) >= b->offset + b->bytes);
    float v = 0;
    cr_expect_eq(pread(ht_gguf_fd(g, 2), &v, 4, (off_t)b->offset), 4);
    cr_expect(v == 1.0f && *(const float *)b->data == 1.0f);
    ht_gguf_close(&g);

    cr_expect_eq(open_set(second, &err), HT_EUNSUPPORTED);
    cr_expect(strstr(err.text, "part 2") && strstr(err.text, "of 3"), "%s", err.text);
    cr_assert_eq(rename(path, in_folder(other, "renamed.gguf")), 0);
    cr_expect_eq(open_set("renamed.gguf", &err), HT_EFORMAT);
    cr_expect(strstr(err.text, "-00001-of-00003.gguf"), "%s", err.text);

    write_part(first, 0, 3, 5, NULL);
    cr_expect_eq(open_set(first, &err), HT_EFORMAT);
    cr_expect(strstr(err.text, "split.tensors.count is 5"), "%s", err.text);
    write_part(first, 0, 3, 3, "a");
    cr_expect_eq(open_set(first, &err), HT_EFORMAT);
    cr_expect(strstr(err.text, "tensor 'a' occurs twice") && strstr(err.text, second), "%s", err.text);
    write_part(first, 0, 3, 2, NULL);
    write_part(third, 1, 3, 2, "b");
    cr_expect_eq(open_set(first, &err), HT_EFORMAT);
    cr_expect(strstr(err.text, third) && strstr(err.text, "split.no is 1"), "%s", err.text);
    write_part(third, 2, 4, 2, "b");
    cr_expect_eq(open_set(first, &err), HT_EFORMAT);
    write_rich(in_folder(path, third), 32);
    cr_expect_eq(open_set(first, &err), HT_EFORMAT, "a part without split keys");
    remove(path);
    cr_expect_eq(open_set(first, &err), HT_EIO);
    cr_expect(strstr(err.text, third), "the missing file is named: %s", err.text);

    ht_gguf_writer *w;
    cr_assert_eq(ht_gguf_writer_open(&w, in_folder(path, "odd.gguf"), NULL), HT_OK);
    ht_gguf_writer_set_i32(w, "split.count", -3);
    cr_assert_eq(ht_gguf_writer_close(&w, NULL), HT_OK);
    cr_expect_eq(open_set("odd.gguf", &err), HT_EFORMAT);
    cr_expect(strstr(err.text, "'split.count' (type i32) is no count"), "%s", err.text);
    write_part("m-00001-of-65535.gguf", 0, 65535, 2, NULL);
    cr_expect_eq(open_set("m-00001-of-65535.gguf", &err), HT_EUNSUPPORTED);
}

Test(gguf, a_set_of_one_is_a_plain_file)
{
    write_part("any name", 0, 1, 1, "a");
    cr_expect_eq(open_set("any name", NULL), HT_OK);
}

Test(gguf, a_split_set_cannot_come_from_memory)
{
    char path[256], buffer[4096];
    ht_gguf *g;
    ht_error err;

    write_part("m-00001-of-00002.gguf", 0, 2, 1, NULL);
    FILE *f = fopen(in_folder(path, "m-00001-of-00002.gguf"), "rb");
    size_t n = fread(buffer, 1, sizeof buffer, f);
    fclose(f);
    cr_expect_eq(ht_gguf_open_memory(&g, buffer, n, &err), HT_EUNSUPPORTED);
    cr_expect_null(g);
}

/* Every file that other programs made and that lies around. */
Test(gguf, files_of_the_shared_folder)
{
    FILE *list = popen("find " HEARTH_SHARED_DIR "/golden " HEARTH_SHARED_DIR "/data/weights " HEARTH_SHARED_DIR
                       "/data/tokenizer -name '*.gguf' 2>/dev/null", "r");
    char path[4096];
    int seen = 0;

    while (list && fgets(path, sizeof path, list)) {
        path[strcspn(path, "\n")] = 0;
        ht_gguf *g = open_good(path);
        cr_expect_not_null(ht_gguf_find(g, "general.architecture"), "%s", path);
        for (uint64_t i = 0; i < ht_gguf_n_tensors(g); i++)
            cr_expect_gt(ht_gguf_tensor_at(g, i)->bytes, 0, "%s", path);
        ht_gguf_close(&g);
        seen++;
    }
    if (list)
        pclose(list);
    if (seen == 0)
        cr_skip("no GGUF files in " HEARTH_SHARED_DIR);
    cr_expect_gt(seen, 50);
}
