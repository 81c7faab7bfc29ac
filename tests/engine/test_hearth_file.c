/* SPDX-License-Identifier: MIT
 *
 * Files as containers through hearth.h: writing one, reading it back, looking into golden ones. */
#include "tests/engine/engine_util.h"

static hearth_error err;
static char path[64];

static void expect_meta(const hearth_file *f, const char *key, const char *type, uint64_t n, const char *want)
{
    hearth_meta m;
    char *text;
    size_t len;
    int64_t i = hearth_file_find_meta(f, key);
    cr_assert(i >= 0, "%s", key);
    cr_assert_eq(hearth_file_meta(f, (uint64_t)i, &m), HEARTH_OK);
    cr_expect_str_eq(m.key, key);
    cr_expect_str_eq(m.type, type, "%s", key);
    cr_expect_eq(m.n, n);
    cr_assert_eq(hearth_file_meta_text(f, (uint64_t)i, 3, &text, &len), HEARTH_OK);
    cr_expect(len == strlen(want) && memcmp(text, want, len) == 0, "%s: \"%.*s\"", key, (int)len, text);
    hearth_free(text);
}

Test(hearth_file, written_and_read)
{
    enum { K = 64, N = 5 };
    const float floats[3] = { 0.5f, -1.25f, 1e-9f };
    const int32_t ints[5] = { 1, -2, 3, 4, 5 };
    const char *const strs[2] = { "a", "b\nc" };
    const uint64_t ne[2] = { K, N }, one[1] = { 7 };
    float v[K * N], small[7], back[K * N];
    hearth_writer *w;
    hearth_file *f;
    hearth_tensor t;
    size_t bytes;

    snprintf(path, sizeof path, P_tmpdir "/hearth-file-%d.gguf", (int)getpid());
    for (int i = 0; i < K * N; i++)
        v[i] = (float)(i % 17) / 16.0f;
    for (int i = 0; i < 7; i++)
        small[i] = (float)i;
    cr_assert_eq(hearth_writer_open(&w, path, &err), HEARTH_OK, "%s", err.text);
    cr_expect_eq(hearth_writer_set_str(w, "general.name", "a file"), HEARTH_OK);
    cr_expect_eq(hearth_writer_set_u32(w, "u32", UINT32_MAX), HEARTH_OK);
    cr_expect_eq(hearth_writer_set_u64(w, "u64", UINT64_MAX), HEARTH_OK);
    cr_expect_eq(hearth_writer_set_f32(w, "f32", 0.1f), HEARTH_OK);
    cr_expect_eq(hearth_writer_set_bool(w, "bool", true), HEARTH_OK);
    cr_expect_eq(hearth_writer_set_f32s(w, "f32s", floats, 3), HEARTH_OK);
    cr_expect_eq(hearth_writer_set_i32s(w, "i32s", ints, 5), HEARTH_OK);
    cr_expect_eq(hearth_writer_set_strs(w, "strs", strs, 2), HEARTH_OK);
    cr_expect_eq(hearth_writer_declare(w, "bad", "q9_9", 2, ne, &err), HEARTH_EUNSUPPORTED);
    cr_assert_eq(hearth_writer_declare(w, "small", "f32", 1, one, &err), HEARTH_OK, "%s", err.text);
    cr_assert_eq(hearth_writer_declare(w, "matrix", "q8_0", 2, ne, &err), HEARTH_OK, "%s", err.text);
    cr_assert_eq(hearth_writer_data(w, small, 7, &err), HEARTH_OK, "%s", err.text);
    cr_assert_eq(hearth_writer_data(w, v, K, &err), HEARTH_OK, "%s", err.text);
    /* The rest encoded beforehand. */
    cr_assert_eq(hearth_encode("q8_0", v + K, K * (N - 1), NULL, &bytes), HEARTH_OK);
    cr_assert_eq(bytes, 34u * 2 * (N - 1));
    void *raw = malloc(bytes);
    cr_assert_eq(hearth_encode("q8_0", v + K, K * (N - 1), raw, &bytes), HEARTH_OK);
    cr_expect_eq(hearth_encode("q8_0", v, 33, raw, &bytes), HEARTH_EINVAL);
    cr_expect_eq(hearth_encode("nothing", v, 32, raw, &bytes), HEARTH_EUNSUPPORTED);
    cr_assert_eq(hearth_writer_raw(w, raw, 34u * 2 * (N - 1), &err), HEARTH_OK, "%s", err.text);
    free(raw);
    cr_expect_neq(access(path, F_OK), 0, "the file is there before close");
    cr_assert_eq(hearth_writer_close(&w, &err), HEARTH_OK, "%s", err.text);

    cr_assert_eq(hearth_file_open(&f, path, &err), HEARTH_OK, "%s", err.text);
    cr_expect_eq(hearth_file_version(f), 3);
    cr_expect_eq(hearth_file_parts(f), 1);
    cr_expect_eq(hearth_file_n_meta(f), 8);
    expect_meta(f, "general.name", "string", 1, "a file");
    expect_meta(f, "u32", "u32", 1, "4294967295");
    expect_meta(f, "u64", "u64", 1, "18446744073709551615");
    expect_meta(f, "f32", "f32", 1, "0.1");
    expect_meta(f, "bool", "bool", 1, "true");
    expect_meta(f, "f32s", "array of f32", 3, "0.5, -1.25, 1e-09");
    expect_meta(f, "i32s", "array of i32", 5, "1, -2, 3, \xe2\x80\xa6");
    expect_meta(f, "strs", "array of string", 2, "a, b\nc");
    cr_expect_eq(hearth_file_find_meta(f, "nothing"), -1);
    cr_expect_eq(hearth_file_find_tensor(f, "nothing"), -1);
    cr_expect_eq(hearth_file_n_tensors(f), 2);
    cr_expect_eq(hearth_file_find_tensor(f, "matrix"), 1);
    cr_assert_eq(hearth_file_tensor(f, 1, &t), HEARTH_OK);
    cr_expect_str_eq(t.type, "Q8_0");
    cr_expect(t.n_dims == 2 && t.ne[0] == K && t.ne[1] == N && t.ne[2] == 1 && t.readable && t.bytes == 34 * 2 * N);
    cr_assert_eq(hearth_file_read(f, 1, 0, K * N, back, &err), HEARTH_OK, "%s", err.text);
    for (int i = 0; i < K * N; i++)
        cr_assert_float_eq(back[i], v[i], 0.01);
    cr_assert_eq(hearth_file_read(f, 1, K + 32, 32, back, &err), HEARTH_OK);
    cr_assert_float_eq(back[3], v[K + 35], 0.01);
    cr_assert_eq(hearth_file_read(f, 0, 2, 5, back, &err), HEARTH_OK);
    cr_expect(back[0] == 2.0f && back[4] == 6.0f);
    cr_expect_eq(hearth_file_read(f, 1, 3, 32, back, &err), HEARTH_EINVAL, "not on a block");
    cr_expect_eq(hearth_file_read(f, 1, 0, K * N + 32, back, &err), HEARTH_EINVAL, "beyond the end");
    cr_expect_eq(hearth_file_read(f, 1, UINT64_MAX - 31, 64, back, &err), HEARTH_EINVAL);
    cr_expect_eq(hearth_file_read(f, 2, 0, 1, back, &err), HEARTH_EINVAL);
    cr_expect_eq(hearth_file_tensor(f, 2, &t), HEARTH_EINVAL);
    hearth_meta meta;
    cr_expect_eq(hearth_file_meta(f, 8, &meta), HEARTH_EINVAL);
    hearth_file_close(&f);
    hearth_file_close(&f);
    remove(path);
}

Test(hearth_file, abort_leaves_nothing)
{
    hearth_writer *w;
    snprintf(path, sizeof path, P_tmpdir "/hearth-file-%d.gguf", (int)getpid());
    cr_assert_eq(hearth_writer_open(&w, path, &err), HEARTH_OK);
    hearth_writer_set_u32(w, "x", 1);
    hearth_writer_abort(&w);
    hearth_writer_abort(&w);
    cr_expect_neq(access(path, F_OK), 0);
    cr_expect_eq(hearth_writer_open(&w, "/nonexistent/folder/x.gguf", &err), HEARTH_EIO);
    cr_expect_null(w);
}

Test(hearth_file, every_golden_file)
{
    static const char *const names[] = {
        "llama", "gemma2", "gpt_oss", "qwen3_next", "bitnet_b158_relu2", "quant-Q2_K"
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char full[512], file[64];
        hearth_file *f;
        snprintf(file, sizeof file, "%s.gguf", names[i]);
        cr_assert_eq(hearth_file_open(&f, util_golden(full, file), &err), HEARTH_OK, "%s", err.text);
        for (uint64_t k = 0; k < hearth_file_n_meta(f); k++) {
            hearth_meta m;
            char *text;
            size_t n;
            hearth_file_meta(f, k, &m);
            cr_assert_eq(hearth_file_find_meta(f, m.key), (int64_t)k);
            cr_assert_eq(hearth_file_meta_text(f, k, UINT64_MAX, &text, &n), HEARTH_OK);
            hearth_free(text);
        }
        for (uint64_t k = 0; k < hearth_file_n_tensors(f); k++) {
            hearth_tensor t;
            float row[4096];
            hearth_file_tensor(f, k, &t);
            cr_assert_eq(hearth_file_find_tensor(f, t.name), (int64_t)k);
            cr_assert(t.readable && t.ne[0] <= 4096);
            cr_assert_eq(hearth_file_read(f, k, 0, t.ne[0], row, &err), HEARTH_OK, "%s", err.text);
        }
        hearth_file_close(&f);
    }
    hearth_file *f;
    cr_expect_eq(hearth_file_open(&f, "/nonexistent", &err), HEARTH_EIO);
    cr_expect_null(f);
}
