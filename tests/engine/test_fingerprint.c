/* SPDX-License-Identifier: MIT
 *
 * The fingerprint of a model follows what is computed and nothing else; and the checksum of sealed files finds damage
 * to every bit. */
#include <sys/stat.h>

#include "engine/gguf_write.h"
#include "tests/engine/engine_util.h"

static hearth_error err;

static const char *temporary(const char *name)
{
    static char paths[4][256];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, 256, "%s/hearth-fingerprint-%d-%s.gguf", P_tmpdir, (int)getpid(), name);
    return path;
}

static const char *fingerprint(const char *path, const char *override)
{
    static char texts[8][33];
    static unsigned next;
    char *text = texts[next++ % 8];
    hearth_model *m =
        util_open(path, (hearth_model_params){ .threads = 1, .overrides = &override, .n_overrides = override != NULL });
    cr_assert_eq(hearth_model_fingerprint(m, text, &err), HEARTH_OK, "%s", err.text);
    cr_assert_eq(strspn(text, "0123456789abcdef"), 32, "'%s'", text);
    hearth_model_close(&m);
    return text;
}

typedef struct rewrite {
    bool backwards;          /* tensors in the opposite order */
    const char *key, *value; /* a string key set anew */
    const char *tensor;      /* whose byte at `at` is turned over */
    uint64_t at;
} rewrite;

/* The golden llama written anew. */
static const char *written(const char *name, rewrite how)
{
    char path[512];
    const char *to = temporary(name);
    ht_gguf *g;
    ht_gguf_writer *w;
    ht_error e;
    cr_assert_eq(ht_gguf_open(&g, util_golden(path, "llama.gguf"), &e), HT_OK, "%s", e.text);
    cr_assert_eq(ht_gguf_writer_open(&w, to, &e), HT_OK, "%s", e.text);
    ht_gguf_writer_copy(w, g);
    if (how.key)
        ht_gguf_writer_set_str(w, how.key, (ht_str){ how.value, strlen(how.value) });
    uint64_t n = ht_gguf_n_tensors(g);
    for (uint64_t i = 0; i < n; i++) {
        const ht_tensor *t = ht_gguf_tensor_at(g, how.backwards ? n - 1 - i : i);
        ht_gguf_writer_declare(w, t->name, t->type, t->n_dims, t->ne, NULL);
    }
    for (uint64_t i = 0; i < n; i++) {
        const ht_tensor *t = ht_gguf_tensor_at(g, how.backwards ? n - 1 - i : i);
        uint8_t *bytes = malloc(t->bytes);
        memcpy(bytes, t->data, t->bytes);
        if (how.tensor && t->name.n == strlen(how.tensor) && !memcmp(t->name.s, how.tensor, t->name.n)) {
            uint64_t at = how.at < t->bytes ? how.at : t->bytes - 1;
            bytes[at] ^= 1;
        }
        ht_gguf_writer_raw(w, bytes, t->bytes, NULL);
        free(bytes);
    }
    cr_assert_eq(ht_gguf_writer_close(&w, &e), HT_OK, "%s", e.text);
    ht_gguf_close(&g);
    return to;
}

Test(fingerprint, follows_what_is_computed)
{
    char path[512], own[33];
    strcpy(own, fingerprint(util_golden(path, "llama.gguf"), NULL));
    cr_expect_str_eq(own, fingerprint(path, NULL), "not the same twice");
    const char *copy = written("copy", (rewrite){ 0 });
    cr_expect_str_eq(own, fingerprint(copy, NULL), "another path");
    cr_expect_str_neq(own, fingerprint(copy, "llama.hidden_activation=relu"), "another activation");
    cr_expect_str_neq(own, fingerprint(copy, "llama.rope.freq_base=5000"), "another rotation");
    cr_expect_str_eq(own, fingerprint(copy, "general.name=other"), "another name by override");
    remove(copy);
    static const rewrite same[] = { { .backwards = true },
                                    { .key = "general.name", .value = "other" },
                                    { .key = "tokenizer.chat_template", .value = "{{ x }}" } };
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        const char *file = written("same", same[i]);
        cr_expect_str_eq(own, fingerprint(file, NULL), "variant %zu", i);
        remove(file);
    }
    static const rewrite other[] = { { .tensor = "blk.0.ffn_up.weight", .at = 0 },
                                     { .tensor = "blk.1.attn_q.weight", .at = UINT64_MAX },
                                     { .tensor = "blk.0.attn_norm.weight", .at = 9 },
                                     { .key = "llama.hidden_activation", .value = "relu" } };
    for (size_t i = 0; i < sizeof other / sizeof *other; i++) {
        const char *file = written("other", other[i]);
        cr_expect_str_neq(own, fingerprint(file, NULL), "variant %zu", i);
        remove(file);
    }
}

Test(fingerprint, tells_models_apart)
{
    static const char *const names[] = { "llama",  "llama_relu", "llama_relu2", "arcee", "mistral",
                                         "qwen3",  "mixtral",    "olmoe",       "phi3",  "llama_rope_linear",
                                         "gemma2", "gemma3",     "qwen2_moe",   "bitnet" };
    enum { COUNT = sizeof names / sizeof *names };
    char all[COUNT][33], path[512], file[64];
    for (int i = 0; i < COUNT; i++) {
        snprintf(file, sizeof file, "%s.gguf", names[i]);
        strcpy(all[i], fingerprint(util_golden(path, file), NULL));
        for (int j = 0; j < i; j++)
            cr_expect_str_neq(all[i], all[j], "%s and %s", names[i], names[j]);
    }
}

Test(fingerprint, needs_the_vocabulary_only)
{
    char path[512], text[33];
    hearth_model *m = util_open(util_golden(path, "llama.gguf"), (hearth_model_params){ .vocab_only = true });
    cr_assert_eq(hearth_model_fingerprint(m, text, &err), HEARTH_OK);
    cr_expect_str_eq(text, fingerprint(path, NULL));
    hearth_model_close(&m);
}

/* ---- Sealed files ---- */

static void write_sealed(const char *path, bool too_much)
{
    static const float values[6] = { 1, 2, 3, 4, 5, 6 };
    static const char *const words[] = { "a", "bc" };
    static const uint64_t ne[2] = { 3, 2 };
    hearth_writer *w;
    cr_assert_eq(hearth_writer_open(&w, path, &err), HEARTH_OK, "%s", err.text);
    hearth_writer_set_u64(w, "hearth.test.big", 1ull << 40);
    hearth_writer_set_f32s(w, "hearth.test.floats", values, 6);
    hearth_writer_set_bool(w, "hearth.test.yes", true);
    hearth_writer_set_strs(w, "hearth.test.words", words, 2);
    cr_assert_eq(hearth_writer_seal(w), HEARTH_OK);
    cr_assert_eq(hearth_writer_declare(w, "values", "f32", 2, ne, &err), HEARTH_OK, "%s", err.text);
    cr_assert_eq(hearth_writer_data(w, values, 6, &err), HEARTH_OK, "%s", err.text);
    if (too_much) {
        cr_assert_eq(hearth_writer_raw(w, values, 16, &err), HEARTH_EINVAL);
        hearth_writer_abort(&w);
        return;
    }
    cr_assert_eq(hearth_writer_close(&w, &err), HEARTH_OK, "%s", err.text);
}

static uint8_t *read_file(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    cr_assert_not_null(f);
    uint8_t *bytes = malloc(1 << 20);
    *n = fread(bytes, 1, 1 << 20, f);
    fclose(f);
    return bytes;
}

static hearth_status verdict(const char *path, const uint8_t *bytes, size_t n)
{
    FILE *out = fopen(path, "wb");
    hearth_file *f;
    cr_assert(out && fwrite(bytes, 1, n, out) == n && !fclose(out));
    hearth_status st = hearth_file_open(&f, path, &err);
    if (st == HEARTH_OK)
        st = hearth_file_verify(f, &err);
    hearth_file_close(&f);
    return st;
}

Test(seal, finds_every_bit)
{
    const char *path = temporary("sealed"), *damaged = temporary("damaged");
    size_t n;
    write_sealed(path, false);
    uint8_t *bytes = read_file(path, &n);
    cr_assert_eq(verdict(damaged, bytes, n), HEARTH_OK, "%s", err.text);
    for (size_t i = 0; i < n; i++)
        for (int b = 0; b < 8; b++) {
            bytes[i] ^= (uint8_t)(1 << b);
            hearth_status st = verdict(damaged, bytes, n);
            bytes[i] ^= (uint8_t)(1 << b);
            cr_assert(st == HEARTH_EFORMAT || st == HEARTH_EUNSUPPORTED, "byte %zu bit %d: %d", i, b, st);
            cr_assert(err.text[0]);
        }
    for (size_t cut = 0; cut + 16 < n; cut++) /* the last 16 bytes are padding */
        cr_assert_neq(verdict(damaged, bytes, cut), HEARTH_OK, "cut at %zu of %zu", cut, n);
    free(bytes);
    write_sealed(path, true);
    remove(path);
    remove(damaged);
}

Test(seal, missing_is_an_error)
{
    char path[512];
    hearth_file *f;
    cr_assert_eq(hearth_file_open(&f, util_golden(path, "llama.gguf"), &err), HEARTH_OK);
    cr_assert_eq(hearth_file_verify(f, &err), HEARTH_EFORMAT);
    cr_assert(strstr(err.text, "no checksum"));
    hearth_file_close(&f);
}

Test(seal, numbers_of_metadata)
{
    const char *path = temporary("numbers");
    double v[6];
    hearth_file *f;
    write_sealed(path, false);
    cr_assert_eq(hearth_file_open(&f, path, &err), HEARTH_OK);
    uint64_t floats = (uint64_t)hearth_file_find_meta(f, "hearth.test.floats"),
             words = (uint64_t)hearth_file_find_meta(f, "hearth.test.words");
    cr_assert_eq(hearth_file_meta_numbers(f, floats, 2, 4, v), HEARTH_OK);
    cr_expect(v[0] == 3 && v[3] == 6);
    cr_expect_eq(hearth_file_meta_numbers(f, floats, 2, 5, v), HEARTH_EINVAL);
    cr_expect_eq(hearth_file_meta_numbers(f, words, 0, 1, v), HEARTH_EINVAL);
    cr_expect_eq(hearth_file_meta_numbers(f, 1000, 0, 1, v), HEARTH_EINVAL);
    cr_assert_eq(hearth_file_meta_numbers(f, (uint64_t)hearth_file_find_meta(f, "hearth.test.big"), 0, 1, v),
                 HEARTH_OK);
    cr_expect(v[0] == 1099511627776.0);
    cr_assert_eq(hearth_file_meta_numbers(f, (uint64_t)hearth_file_find_meta(f, "hearth.test.yes"), 0, 1, v),
                 HEARTH_OK);
    cr_expect(v[0] == 1);
    hearth_file_close(&f);
    remove(path);
}
