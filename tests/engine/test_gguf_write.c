/* SPDX-License-Identifier: MIT
 *
 * The GGUF writer: the bytes it makes, copies of other files, every refusal, and that no half-made file is ever
 * left. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/types.h"
#include "engine/gguf_write.h"

#define STR(s) ((ht_str){ (s), sizeof(s) - 1 })

static char folder[64], path[256];
static ht_error err;

static void make_folder(void)
{
    strcpy(folder, P_tmpdir "/hearth-write-XXXXXX");
    cr_assert_not_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/out.gguf", folder);
}

static int files_left(void)
{
    DIR *d = opendir(folder);
    struct dirent *e;
    int n = 0;
    while ((e = readdir(d)))
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

static void remove_folder(void)
{
    remove(path);
    cr_expect_eq(rmdir(folder), 0, "something was left behind");
}

TestSuite(gguf_write, .init = make_folder, .fini = remove_folder);

static ht_gguf_writer *begin(void)
{
    ht_gguf_writer *w;
    cr_assert_eq(ht_gguf_writer_open(&w, path, &err), HT_OK, "%s", err.text);
    return w;
}

static size_t read_all(uint8_t *p, size_t room)
{
    FILE *f = fopen(path, "rb");
    cr_assert_not_null(f);
    size_t n = fread(p, 1, room, f);
    fclose(f);
    return n;
}

static void expect_bytes(const uint8_t *want, size_t n)
{
    uint8_t got[1024];
    size_t m = read_all(got, sizeof got);
    cr_assert_eq(m, n, "%d bytes, wanted %d", (int)m, (int)n);
    for (size_t i = 0; i < n; i++)
        cr_assert_eq(got[i], want[i], "byte %d is %02x, wanted %02x", (int)i, got[i], want[i]);
}

Test(gguf_write, an_empty_file)
{
    static const uint8_t want[32] = { 'G', 'G', 'U', 'F', 3 };
    ht_gguf_writer *w = begin();
    cr_expect_eq(ht_gguf_writer_close(&w, &err), HT_OK);
    expect_bytes(want, sizeof want);
}

Test(gguf_write, the_bytes_of_a_small_file)
{
    static const uint8_t want[] = {
        'G', 'G', 'U', 'F', 3, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0,
        /* "k": u32 0x01020304 */
        1, 0, 0, 0, 0, 0, 0, 0, 'k', 4, 0, 0, 0, 4, 3, 2, 1,
        /* "s": string "hi" */
        1, 0, 0, 0, 0, 0, 0, 0, 's', 8, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 'h', 'i',
        /* "a": array of 2 strings */
        1, 0, 0, 0, 0, 0, 0, 0, 'a', 9, 0, 0, 0, 8, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 'x',
        /* tensor "t": 2 dimensions, {2, 1}, F32, offset 0; tensor "u": 1 dimension, F16, offset 32 */
        1, 0, 0, 0, 0, 0, 0, 0, 't', 2, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        1, 0, 0, 0, 0, 0, 0, 0, 'u', 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 32, 0, 0, 0, 0, 0, 0, 0,
        /* to a multiple of 32 */
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        /* 1.0f, 2.0f */
        0, 0, 0x80, 0x3f, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        /* f16 3.0 */
        0, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    };
    static const uint64_t ne[2] = { 2, 1 }, one[1] = { 1 };
    static const ht_str words[2] = { { "", 0 }, { "x", 1 } };
    static const float values[3] = { 1.0f, 2.0f, 3.0f };
    ht_gguf_writer *w = begin();

    cr_expect_eq(ht_gguf_writer_set_str(w, "k", STR("first a string")), HT_OK);
    cr_expect_eq(ht_gguf_writer_set_str(w, "s", STR("hi")), HT_OK);
    cr_expect_eq(ht_gguf_writer_set_bool(w, "gone", true), HT_OK);
    cr_expect_eq(ht_gguf_writer_set_strings(w, "a", words, 2), HT_OK);
    cr_expect_eq(ht_gguf_writer_set_u32(w, "k", 0x01020304), HT_OK); /* replaced in its place */
    ht_gguf_writer_drop(w, "gone");
    ht_gguf_writer_drop(w, "never there");
    cr_expect_eq(ht_gguf_writer_declare(w, STR("t"), HT_F32, 2, ne, &err), HT_OK);
    cr_expect_eq(ht_gguf_writer_declare(w, STR("u"), HT_F16, 1, one, &err), HT_OK);
    cr_expect_eq(files_left(), 1, "only the part is there before close");
    cr_expect_neq(access(path, F_OK), 0);
    cr_expect_eq(ht_gguf_writer_floats(w, values, 3, &err), HT_OK, "%s", err.text); /* across both tensors */
    cr_expect_eq(ht_gguf_writer_close(&w, &err), HT_OK, "%s", err.text);
    cr_expect_eq(files_left(), 1);
    expect_bytes(want, sizeof want);
}

/* A copy through reader and writer: the same keys, types, bytes. */
Test(gguf_write, a_copy_equals_its_source)
{
    ht_gguf *a, *b;
    ht_gguf_writer *w = begin();

    cr_assert_eq(ht_gguf_open(&a, HEARTH_TEST_DATA "/quant/quant.gguf", &err), HT_OK, "%s", err.text);
    cr_assert_eq(ht_gguf_override(a, "added.by.override", "12", &err), HT_OK);
    cr_assert_eq(ht_gguf_override(a, "split.no", "0", &err), HT_OK);
    cr_expect_eq(ht_gguf_writer_copy(w, a), HT_OK);
    for (uint64_t i = 0; i < ht_gguf_n_tensors(a); i++) {
        const ht_tensor *t = ht_gguf_tensor_at(a, i);
        cr_assert_eq(ht_gguf_writer_declare(w, t->name, t->type, t->n_dims, t->ne, &err), HT_OK, "%s", err.text);
    }
    for (uint64_t i = 0; i < ht_gguf_n_tensors(a); i++) { /* in crumbs */
        const ht_tensor *t = ht_gguf_tensor_at(a, i);
        for (uint64_t at = 0; at < t->bytes; at += 1000) {
            uint64_t n = t->bytes - at < 1000 ? t->bytes - at : 1000;
            cr_assert_eq(ht_gguf_writer_raw(w, (const uint8_t *)t->data + at, n, &err), HT_OK);
        }
    }
    cr_assert_eq(ht_gguf_writer_close(&w, &err), HT_OK, "%s", err.text);
    cr_assert_eq(ht_gguf_open(&b, path, &err), HT_OK, "%s", err.text);
    cr_expect_eq(ht_gguf_n_kv(b) + 1, ht_gguf_n_kv(a), "all but split.no");
    for (uint64_t i = 0; i < ht_gguf_n_kv(b); i++) {
        const ht_kv *x = ht_gguf_kv_at(a, i), *y = ht_gguf_kv_at(b, i);
        cr_assert(x->key.n == y->key.n && memcmp(x->key.s, y->key.s, x->key.n) == 0);
        cr_assert(x->type == y->type && x->elem == y->elem && x->n == y->n);
    }
    for (uint64_t i = 0; i < ht_gguf_n_tensors(a); i++) {
        const ht_tensor *x = ht_gguf_tensor_at(a, i), *y = ht_gguf_tensor_at(b, i);
        cr_assert(x->bytes == y->bytes && x->type == y->type && memcmp(x->data, y->data, x->bytes) == 0);
    }
    ht_gguf_close(&a);
    ht_gguf_close(&b);
}

Test(gguf_write, string_arrays_and_alignment_of_another_file)
{
    static const ht_str words[4] = { { "one", 3 }, { "", 0 }, { "three", 5 }, { "a longer one", 12 } };
    uint8_t first[512], second[512];
    ht_gguf *g;
    ht_gguf_writer *w = begin();

    ht_gguf_writer_set_u32(w, "general.alignment", 128);
    ht_gguf_writer_set_strings(w, "words", words, 4);
    ht_gguf_writer_set_str(w, "empty", STR(""));
    cr_assert_eq(ht_gguf_writer_close(&w, &err), HT_OK);
    size_t n = read_all(first, sizeof first);
    cr_expect_eq(n, 256);
    cr_assert_eq(ht_gguf_open(&g, path, &err), HT_OK, "%s", err.text);
    w = begin();
    cr_expect_eq(ht_gguf_writer_copy(w, g), HT_OK);
    cr_assert_eq(ht_gguf_writer_close(&w, &err), HT_OK); /* over the file that is still mapped */
    cr_expect_eq(read_all(second, sizeof second), n);
    cr_expect_eq(memcmp(first, second, n), 0);
    w = begin();
    cr_expect_eq(ht_gguf_writer_copy(w, g), HT_OK);
    ht_gguf_writer_drop(w, "general.alignment");
    cr_assert_eq(ht_gguf_writer_close(&w, &err), HT_OK);
    cr_expect_eq(read_all(second, sizeof second), 160, "a multiple of 32 again");
    ht_gguf_close(&g);
}

Test(gguf_write, floats_in_any_pieces_give_the_same_bytes)
{
    static float x[8 * 512];
    static uint8_t once[8192], pieces[8192];
    static const uint64_t ne[3][2] = { { 512, 3 }, { 256, 8 }, { 512, 1 } };
    static const size_t steps[] = { 256, 512, 1024, 4096 };
    size_t n = 0;

    for (int i = 0; i < 8 * 512; i++)
        x[i] = (float)((i * 7919) % 1000 - 500) * 0.01f;
    for (int s = 3; s >= 0; s--) {
        ht_gguf_writer *w = begin();
        ht_gguf_writer_declare(w, STR("a"), HT_Q4_K, 2, ne[0], &err);
        ht_gguf_writer_declare(w, STR("b"), HT_Q6_K, 2, ne[1], &err);
        ht_gguf_writer_declare(w, STR("c"), HT_Q4_0, 2, ne[2], &err);
        for (size_t at = 0; at < 8 * 512; at += steps[s])
            cr_assert_eq(ht_gguf_writer_floats(w, x + at, steps[s], &err), HT_OK, "%s", err.text);
        cr_assert_eq(ht_gguf_writer_close(&w, &err), HT_OK, "%s", err.text);
        if (s == 3) {
            n = read_all(once, sizeof once);
        } else {
            cr_expect_eq(read_all(pieces, sizeof pieces), n);
            cr_expect_eq(memcmp(once, pieces, n), 0, "steps of %d", (int)steps[s]);
        }
    }
}

/* ---- refusals ---------------------------------------------------------------------------------------------------- */

static void expect_failure(ht_gguf_writer *w, ht_status st, const char *words)
{
    cr_expect_eq(ht_gguf_writer_close(&w, &err), st, "%s: %s", words, err.text);
    cr_expect(strstr(err.text, words) && strstr(err.text, "out.gguf"), "wanted \"%s\" in: %s", words, err.text);
    cr_expect_null(w);
    cr_expect_eq(files_left(), 0, "%s: something was left behind", words);
}

Test(gguf_write, bad_keys_stick_until_close)
{
    static char long_key[65537];
    ht_gguf_writer *w = begin();
    cr_expect_eq(ht_gguf_writer_set_u32(w, "", 1), HT_EINVAL);
    cr_expect_eq(ht_gguf_writer_set_u32(w, "good", 1), HT_EINVAL, "the first failure sticks");
    expect_failure(w, HT_EINVAL, "bad length");

    memset(long_key, 'k', 65536);
    w = begin();
    cr_expect_eq(ht_gguf_writer_set_u32(w, long_key, 1), HT_EINVAL);
    expect_failure(w, HT_EINVAL, "bad length");

    w = begin();
    cr_expect_eq(ht_gguf_writer_set_u32(w, "general.alignment", 48), HT_EINVAL);
    expect_failure(w, HT_EINVAL, "general.alignment");
    w = begin();
    cr_expect_eq(ht_gguf_writer_set_u64(w, "general.alignment", 32), HT_EINVAL);
    expect_failure(w, HT_EINVAL, "general.alignment");

    w = begin();
    cr_expect_eq(ht_gguf_writer_set_scalar(w, "k", HT_KV_STRING, "x"), HT_EINVAL);
    expect_failure(w, HT_EINVAL, "no scalar");
    w = begin();
    cr_expect_eq(ht_gguf_writer_set_array(w, "k", HT_KV_ARRAY, "x", 1), HT_EINVAL);
    expect_failure(w, HT_EINVAL, "no array");
}

Test(gguf_write, bad_tensors)
{
    static const uint64_t ne[5] = { 32, 1, 1, 1, 1 }, odd[1] = { 33 }, huge[2] = { 1ull << 62, 4 };
    ht_gguf_writer *w = begin();
    cr_expect_eq(ht_gguf_writer_declare(w, STR(""), HT_F32, 1, ne, &err), HT_EINVAL);
    expect_failure(w, HT_EINVAL, "no name");
    w = begin();
    cr_expect_eq(ht_gguf_writer_declare(w, STR("t"), HT_F32, 5, ne, &err), HT_EINVAL);
    expect_failure(w, HT_EINVAL, "too many dimensions");
    w = begin();
    cr_expect_eq(ht_gguf_writer_declare(w, STR("t"), HT_Q4_0, 1, odd, &err), HT_EINVAL);
    expect_failure(w, HT_EINVAL, "whole blocks of 32");
    w = begin();
    cr_expect_eq(ht_gguf_writer_declare(w, STR("t"), HT_F32, 2, huge, &err), HT_EINVAL);
    expect_failure(w, HT_EINVAL, "2^63-1");
    w = begin();
    cr_expect_eq(ht_gguf_writer_declare(w, STR("t"), 4, 1, ne, &err), HT_EUNSUPPORTED);
    expect_failure(w, HT_EUNSUPPORTED, "type 4");
    w = begin();
    ht_gguf_writer_declare(w, STR("t"), HT_F32, 1, ne, &err);
    ht_gguf_writer_declare(w, STR("t"), HT_F32, 1, ne, &err);
    expect_failure(w, HT_EINVAL, "'t' is declared twice");
}

Test(gguf_write, data_that_does_not_fit)
{
    static const uint64_t ne[1] = { 64 };
    static const float x[65];
    ht_gguf_writer *w = begin();
    ht_gguf_writer_declare(w, STR("t"), HT_F32, 1, ne, &err);
    cr_expect_eq(ht_gguf_writer_raw(w, x, 255, &err), HT_OK);
    expect_failure(w, HT_EINVAL, "lacks 1 bytes");
    w = begin();
    ht_gguf_writer_declare(w, STR("t"), HT_F32, 1, ne, &err);
    expect_failure(w, HT_EINVAL, "lacks 256 bytes");
    w = begin();
    ht_gguf_writer_declare(w, STR("t"), HT_F32, 1, ne, &err);
    cr_expect_eq(ht_gguf_writer_raw(w, x, 257, &err), HT_EINVAL);
    expect_failure(w, HT_EINVAL, "more than declared");
    w = begin();
    ht_gguf_writer_declare(w, STR("t"), HT_Q4_0, 1, ne, &err);
    cr_expect_eq(ht_gguf_writer_floats(w, x, 33, &err), HT_EINVAL);
    expect_failure(w, HT_EINVAL, "whole blocks");
    w = begin();
    ht_gguf_writer_declare(w, STR("t"), HT_Q4_0, 1, ne, &err);
    cr_expect_eq(ht_gguf_writer_floats(w, x, 65, &err), HT_EINVAL);
    expect_failure(w, HT_EINVAL, "more than declared");
    w = begin();
    ht_gguf_writer_declare(w, STR("t"), 26, 1, ne, &err);
    cr_expect_eq(ht_gguf_writer_floats(w, x, 64, &err), HT_EUNSUPPORTED);
    expect_failure(w, HT_EUNSUPPORTED, "no encoder for type I32");
    w = begin();
    ht_gguf_writer_declare(w, STR("t"), HT_F32, 1, ne, &err);
    cr_expect_eq(ht_gguf_writer_raw(w, x, 256, &err), HT_OK);
    cr_expect_eq(ht_gguf_writer_declare(w, STR("late"), HT_F32, 1, ne, &err), HT_EINVAL);
    expect_failure(w, HT_EINVAL, "after data");
    w = begin();
    cr_expect_eq(ht_gguf_writer_raw(w, x, 0, &err), HT_OK);
    cr_expect_eq(ht_gguf_writer_set_u32(w, "late", 1), HT_EINVAL);
    expect_failure(w, HT_EINVAL, "after data");
}

Test(gguf_write, abort_leaves_nothing_and_an_old_file_alone)
{
    ht_gguf_writer *w = begin();
    ht_gguf_writer_abort(&w);
    cr_expect(!w && files_left() == 0);
    ht_gguf_writer_abort(&w);
    ht_gguf_writer_abort(NULL);

    FILE *f = fopen(path, "wb");
    fputs("precious", f);
    fclose(f);
    w = begin();
    ht_gguf_writer_set_u32(w, "k", 1);
    ht_gguf_writer_abort(&w);
    uint8_t bytes[64];
    cr_expect(read_all(bytes, sizeof bytes) == 8 && memcmp(bytes, "precious", 8) == 0);
    w = begin(); /* two writers of one name do not meet in one part */
    ht_gguf_writer *v = begin();
    cr_expect_eq(ht_gguf_writer_close(&w, &err), HT_OK);
    cr_expect_eq(ht_gguf_writer_close(&v, &err), HT_OK);
    cr_expect_eq(read_all(bytes, sizeof bytes), 32);
    cr_expect_eq(files_left(), 1);
}

Test(gguf_write, errors_of_the_system)
{
    char bad[300];
    ht_gguf_writer *w;
    snprintf(bad, sizeof bad, "%s/no/such/folder/x.gguf", folder);
    cr_expect_eq(ht_gguf_writer_open(&w, bad, &err), HT_EIO);
    cr_expect(!w && strstr(err.text, "no/such/folder"), "%s", err.text);
    cr_expect_eq(ht_gguf_writer_open(&w, folder, &err), HT_EIO, "a folder");
    cr_expect_null(w);

    if (access("/dev/full", W_OK) == 0) { /* a disk without room, found out on the last flush or before */
        static const uint64_t ne[1] = { 1 << 16 };
        static const float x[1 << 16];
        for (int big = 0; big < 2; big++) {
            cr_assert_eq(ht_gguf_writer_open(&w, "/dev/full", &err), HT_OK);
            ht_gguf_writer_set_u32(w, "k", 1);
            if (big) {
                ht_gguf_writer_declare(w, STR("t"), HT_F32, 1, ne, &err);
                cr_expect_eq(ht_gguf_writer_raw(w, x, sizeof x, &err), HT_EIO);
            }
            cr_expect_eq(ht_gguf_writer_close(&w, &err), HT_EIO);
            cr_expect(strstr(err.text, "/dev/full"), "%s", err.text);
        }
        cr_expect_eq(access("/dev/full", W_OK), 0, "the device is still there");
    }
    cr_assert_eq(ht_gguf_writer_open(&w, "/dev/null", &err), HT_OK);
    cr_expect_eq(ht_gguf_writer_close(&w, &err), HT_OK);
    FILE *f = fopen("/dev/null", "rb");
    cr_expect(f && fgetc(f) == EOF, "devices are written, not replaced");
    fclose(f);
}
