/* SPDX-License-Identifier: MIT
 * Writing models in other widths: types, bytes, what is left alone; a width for each expert. */
#include <criterion/criterion.h>

#include "engine/base/types.h"
#include "tests/offline_profiler/profiler_util.h"

static const char *golden(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/golden/%s.gguf", HEARTH_TEST_DATA, name);
    return path;
}

static const char *story_moe(void)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/../../models/hearth-story-moe.gguf", HEARTH_TEST_DATA);
    return path;
}

static hearth_file *open_file(const char *path)
{
    hearth_file *f;
    hearth_error err;
    cr_assert_eq(hearth_file_open(&f, path, &err), HEARTH_OK, "%s", err.text);
    return f;
}

static hearth_quantise_result make(const char *in, const char *out, const hearth_quantise_params *p)
{
    hearth_quantise_result r = { .size = sizeof r };
    hearth_error err = { 0 };
    cr_assert_eq(hearth_quantise(in, out, p, &r, &err), HEARTH_OK, "%s", err.text);
    return r;
}

static hearth_status refused(const char *in, const hearth_quantise_params *p, const char *says)
{
    const char *out = util_path("refused.gguf");
    hearth_quantise_result r = { .size = sizeof r };
    hearth_error err = { 0 };
    hearth_status st = hearth_quantise(in, out, p, &r, &err);
    cr_assert_neq(st, HEARTH_OK);
    cr_assert(strstr(err.text, says), "%s", err.text);
    cr_assert_neq(access(out, F_OK), 0);
    return st;
}

/* Every tensor of `out` holds what encoding the input's floats by itself gives, or the input's bytes. */
static void compare_files(const char *in, const char *out, const char *type)
{
    hearth_file *a = open_file(in), *b = open_file(out);
    uint32_t encoded = 0;
    cr_assert_eq(hearth_file_n_tensors(a), hearth_file_n_tensors(b));
    for (uint64_t i = 0; i < hearth_file_n_tensors(a); i++) {
        hearth_tensor x, y;
        hearth_file_tensor(a, i, &x);
        hearth_file_tensor(b, i, &y);
        cr_assert_str_eq(x.name, y.name);
        for (int d = 0; d < 4; d++)
            cr_assert_eq(x.ne[d], y.ne[d]);
        const uint64_t n = x.ne[0] * x.ne[1] * x.ne[2] * x.ne[3];
        uint8_t *want = malloc(y.bytes), *got = malloc(y.bytes);
        cr_assert_eq(hearth_file_read_raw(b, i, 0, n / x.ne[0], got, NULL), HEARTH_OK);
        if (strcmp(x.type, y.type)) {
            float *values = malloc(n * sizeof *values);
            cr_assert_str_eq(y.type, type, "%s", y.name);
            cr_assert_eq(hearth_file_read(a, i, 0, n, values, NULL), HEARTH_OK);
            ht_type_quantise((ht_type)ht_type_by_name(type), values, n, want);
            free(values);
            encoded++;
        } else {
            cr_assert_eq(hearth_file_read_raw(a, i, 0, n / x.ne[0], want, NULL), HEARTH_OK);
        }
        cr_assert_arr_eq(got, want, y.bytes, "%s", y.name);
        free(want);
        free(got);
    }
    cr_assert_gt(encoded, 0);
    hearth_file_close(&a);
    hearth_file_close(&b);
}

Test(quantise, encodes_matrices_and_nothing_else)
{
    const char *in = golden("llama"), *out = util_path("q8.gguf");
    hearth_quantise_params p = { .size = sizeof p, .type = "q8_0", .threads = 3 };
    hearth_quantise_result r = make(in, out, &p);
    compare_files(in, out, "Q8_0");
    cr_assert_lt(r.bytes_out, r.bytes_in);
    hearth_file *f = open_file(out);
    double v;
    int64_t key = hearth_file_find_meta(f, "general.file_type");
    cr_assert(key >= 0 && hearth_file_meta_numbers(f, (uint64_t)key, 0, 1, &v) == HEARTH_OK);
    cr_assert_eq((int)v, 7);
    hearth_tensor t;
    for (uint64_t i = 0; i < hearth_file_n_tensors(f); i++) {
        hearth_file_tensor(f, i, &t);
        cr_assert(t.n_dims > 1 || !strcmp(t.type, "F32"), "%s is %s", t.name, t.type);
    }
    hearth_file_close(&f);
    remove(out);
}

Test(quantise, threads_change_no_byte)
{
    const char *one = util_path("one.gguf"), *many = util_path("many.gguf");
    size_t n1, n2;
    hearth_quantise_params p = { .size = sizeof p, .type = "q4_0", .threads = 1 };
    make(story_moe(), one, &p);
    p.threads = 5;
    make(story_moe(), many, &p);
    char *a = util_read(one, &n1), *b = util_read(many, &n2);
    cr_assert_eq(n1, n2);
    cr_assert_eq(memcmp(a, b, n1), 0);
    free(a);
    free(b);
    remove(one);
    remove(many);
}

Test(quantise, rows_that_do_not_fit_get_another_type_and_the_output_keeps_six_bits)
{
    const char *out = util_path("k.gguf");
    hearth_quantise_params p = { .size = sizeof p, .type = "q4_k", .threads = 2 };
    hearth_quantise_result r = make(story_moe(), out, &p);
    hearth_file *f = open_file(out);
    hearth_tensor t;
    cr_assert_eq(r.fallbacks, 6);
    cr_assert_str_eq(r.fallback, "Q4_0");
    hearth_file_tensor(f, (uint64_t)hearth_file_find_tensor(f, "token_embd.weight"), &t);
    cr_assert_str_eq(t.type, "Q6_K"); /* tied: it is the output matrix */
    hearth_file_tensor(f, (uint64_t)hearth_file_find_tensor(f, "blk.3.ffn_down_exps.weight"), &t);
    cr_assert_str_eq(t.type, "Q4_0");
    hearth_file_tensor(f, (uint64_t)hearth_file_find_tensor(f, "blk.3.ffn_up_exps.weight"), &t);
    cr_assert_str_eq(t.type, "Q4_K");
    hearth_file_tensor(f, (uint64_t)hearth_file_find_tensor(f, "blk.3.ffn_gate_inp.weight"), &t);
    cr_assert_str_eq(t.type, "F32");
    hearth_file_close(&f);
    p.pure = true;
    make(story_moe(), out, &p);
    f = open_file(out);
    hearth_file_tensor(f, (uint64_t)hearth_file_find_tensor(f, "token_embd.weight"), &t);
    cr_assert_str_eq(t.type, "Q4_K");
    hearth_file_close(&f);
    remove(out);
}

static bool never(void *user, const char *what, uint64_t done, uint64_t total)
{
    (void)user;
    (void)what;
    (void)done;
    (void)total;
    return false;
}

Test(quantise, refuses_what_makes_no_sense)
{
    char *text = util_text(20000);
    hearth_quantise_params p = { .size = sizeof p, .type = "q9_9" };
    cr_assert_eq(refused(golden("llama"), &p, "q9_9"), HEARTH_EUNSUPPORTED);
    p.type = "iq2_xxs"; /* known, without an encoder */
    cr_assert_eq(refused(golden("llama"), &p, "iq2_xxs"), HEARTH_EUNSUPPORTED);
    p.type = "q8_0";
    cr_assert_eq(refused("/nowhere/model.gguf", &p, "/nowhere/model.gguf"), HEARTH_EIO);
    p.progress = never;
    cr_assert_eq(refused(golden("llama"), &p, "cancelled"), HEARTH_ECANCELLED);
    p.progress = NULL;
    char pwri[512]; /* its container's name tells the activation, and would be lost */
    snprintf(pwri, sizeof pwri, "%s/powerinfer/llama.gguf", HEARTH_TEST_DATA);
    cr_assert_eq(refused(pwri, &p, "PowerInfer"), HEARTH_EUNSUPPORTED);
    p.per_expert = true;
    cr_assert_eq(refused(golden("llama"), &p, "mixture"), HEARTH_EINVAL);
    cr_assert_eq(refused(story_moe(), &p, "a loss or a size"), HEARTH_EINVAL);
    p.quality = 0.01;
    cr_assert_eq(refused(story_moe(), &p, "a text"), HEARTH_EINVAL);
    p.text = p.held_out = text;
    p.n_text = p.n_held_out = 60;
    cr_assert_eq(refused(story_moe(), &p, "too short"), HEARTH_EINVAL);
    p.n_text = p.n_held_out = 20000;
    p.type = "q2_k";
    cr_assert_eq(refused(story_moe(), &p, "no width below"), HEARTH_EINVAL);
    p.type = "q4_0";
    p.widths = (const char *const[]){ "q8_0" };
    p.n_widths = 1;
    cr_assert_eq(refused(story_moe(), &p, "go down"), HEARTH_EINVAL);
    free(text);
}

/* Loss of a file against the input by the library's own sessions: mean KL over some tokens. */
static double loss_of(const char *path, const char *against, const char *text, size_t n_text)
{
    hearth_model *m[2];
    hearth_session *s[2];
    hearth_token *ids;
    hearth_error err = { 0 };
    size_t n;
    double sum = 0;
    const char *paths[] = { against, path };
    for (int i = 0; i < 2; i++) {
        hearth_model_params p = { .size = sizeof p, .threads = 2, .sparsity = HEARTH_SPARSITY_OFF };
        hearth_session_params sp = { .size = sizeof sp, .n_ctx = 512 };
        cr_assert_eq(hearth_model_open(&m[i], paths[i], &p, &err), HEARTH_OK, "%s", err.text);
        cr_assert_eq(hearth_session_open(&s[i], m[i], &sp, &err), HEARTH_OK, "%s", err.text);
    }
    hearth_model_info info = { .size = sizeof info };
    hearth_model_get_info(m[0], &info);
    cr_assert_eq(hearth_tokenize(m[0], text, n_text, true, false, &ids, &n, &err), HEARTH_OK);
    n = n < 200 ? n : 200;
    for (size_t t = 0; t < n; t++) {
        double log_z[2], z;
        for (int i = 0; i < 2; i++) {
            cr_assert_eq(hearth_session_feed(s[i], &ids[t], 1, NULL, NULL, &err), HEARTH_OK, "%s", err.text);
            const float *l = hearth_session_logits(s[i]);
            z = 0;
            for (uint32_t v = 0; v < info.n_vocab; v++)
                z += exp((double)l[v]);
            log_z[i] = log(z);
        }
        const float *a = hearth_session_logits(s[0]), *b = hearth_session_logits(s[1]);
        for (uint32_t v = 0; v < info.n_vocab; v++)
            sum += exp((double)a[v] - log_z[0]) * ((double)a[v] - log_z[0] - ((double)b[v] - log_z[1]));
    }
    for (int i = 0; i < 2; i++) {
        hearth_session_close(&s[i]);
        hearth_model_close(&m[i]);
    }
    hearth_free(ids);
    return sum / (double)n;
}

/* A file whose experts lie apart: all to one type, or some of them lowered further, each by itself. */
static void lower_again(const char *in, const char *text, hearth_quantise_params p)
{
    const char *out = util_path("again.gguf");
    const char *const widths[] = { "q4_0" };
    hearth_quantise_params plain = { .size = sizeof plain, .type = "q4_0", .threads = 2 };
    const hearth_quantise_result all = make(in, out, &plain);

    cr_assert_lt(all.bytes_out, all.bytes_in);
    p.widths = widths;
    p.target_bytes = (all.bytes_out + all.bytes_in) / 2;
    p.sample_tokens = 32;
    const hearth_quantise_result r = make(in, out, &p);
    cr_assert_leq(r.bytes_out, p.target_bytes);
    cr_assert_eq(r.experts[0] + r.experts[1], 6 * 16, "every expert was given a width, stacked or not");
    cr_assert_gt(r.experts[1], 0);
    hearth_file *f = open_file(out), *g = open_file(in);
    cr_assert_geq(hearth_file_n_tensors(f), hearth_file_n_tensors(g)); /* none is lost */
    hearth_file_close(&f);
    hearth_file_close(&g);
    cr_assert_geq(loss_of(out, story_moe(), text + 6000, 6000), 0);
    remove(out);
}

Test(quantise, a_width_for_each_expert_keeps_its_bounds)
{
    if (strcmp(HEARTH_TEST_SANITIZE, "thread") == 0) /* hundreds of trials: many minutes */
        cr_skip_test("the address sanitizer's build runs it");
    const bool slow = HEARTH_TEST_SANITIZE[0] != 0; /* of few tokens then */
    const char *out = util_path("experts.gguf");
    const char *const widths[] = { "q4_0" };
    char *text = util_text(12000);
    hearth_quantise_params p = { .size = sizeof p, .type = "q8_0", .threads = 2, .per_expert = true, .widths = widths,
                                 .n_widths = 1, .text = text, .n_text = 6000, .held_out = text + 6000,
                                 .n_held_out = 6000, .sample_tokens = slow ? 32 : 64, .check_tokens = slow ? 48 : 256 };
    p.target_bytes = 9u << 20;
    hearth_quantise_result r = make(story_moe(), out, &p);
    cr_assert_leq(r.bytes_out, p.target_bytes);
    cr_assert_gt(r.bytes_out, p.target_bytes - (1u << 17)); /* no more is lowered than is needed */
    cr_assert_eq(r.experts[0] + r.experts[1], 6 * 16);
    cr_assert_gt(r.experts[0], 0);
    cr_assert_gt(r.experts[1], 0);

    /* The curve: the input loses nothing, the chosen point is there, bytes fall. */
    uint32_t chosen = 0;
    cr_assert_lt(r.points[0].kl_mean, 1e-9);
    for (uint32_t i = 0; i < r.n_points; i++) {
        chosen += r.points[i].chosen;
        cr_assert(i == 0 || r.points[i].bytes < r.points[i - 1].bytes);
        cr_assert(!r.points[i].chosen || r.points[i].bytes == r.bytes_out);
    }
    cr_assert_eq(chosen, 1);
    const double lowest = r.points[r.n_points - 1].kl_mean;

    /* The file: lowered experts are tensors of their own, and it runs, with a loss between nothing and everything. */
    hearth_file *f = open_file(out);
    uint64_t own[2] = { 0 };
    for (uint64_t i = 0; i < hearth_file_n_tensors(f); i++) {
        hearth_tensor t;
        unsigned layer, expert;
        hearth_file_tensor(f, i, &t);
        if (sscanf(t.name, "blk.%u.ffn_up.%u.weight", &layer, &expert) == 2)
            own[!strcmp(t.type, "Q4_0")]++;
    }
    hearth_file_close(&f);
    cr_assert_gt(own[0], 0);
    cr_assert_gt(own[1], 0);
    cr_assert_leq(own[1], r.experts[1]);
    const double loss = loss_of(out, story_moe(), text + 6000, 6000);
    cr_assert(loss > 0 && loss < lowest * 3, "%g of %g", loss, lowest);
    lower_again(out, text, p);

    /* By loss: what is chosen stays under it, one step more (where it was measured) does not. */
    p.target_bytes = 0;
    p.quality = lowest / 2;
    r = make(story_moe(), out, &p);
    for (uint32_t i = 0; i < r.n_points; i++)
        cr_assert(!r.points[i].chosen || r.points[i].kl_mean <= p.quality);
    cr_assert(r.experts[0] > 0 && r.experts[1] > 0);
    remove(out);
    free(text);
}

/* A tensor without elements is copied, whatever its name. */
Test(quantise, empty_tensors)
{
    const char *in = util_path("empty.gguf"), *out = util_path("empty-out.gguf");
    hearth_writer *w;
    hearth_error err = { 0 };
    const uint64_t none[] = { 0, 2 }, some[] = { 32, 2 };
    float values[64];
    for (int i = 0; i < 64; i++)
        values[i] = (float)i;
    cr_assert_eq(hearth_writer_open(&w, in, &err), HEARTH_OK, "%s", err.text);
    hearth_writer_set_str(w, "general.architecture", "llama");
    cr_assert_eq(hearth_writer_declare(w, "blk.0.empty.weight", "f32", 2, none, &err), HEARTH_OK, "%s", err.text);
    cr_assert_eq(hearth_writer_declare(w, "blk.0.some.weight", "f32", 2, some, &err), HEARTH_OK, "%s", err.text);
    cr_assert_eq(hearth_writer_data(w, values, 64, &err), HEARTH_OK, "%s", err.text);
    cr_assert_eq(hearth_writer_close(&w, &err), HEARTH_OK, "%s", err.text);
    hearth_quantise_params p = { .size = sizeof p, .type = "q8_0", .threads = 2 };
    hearth_quantise_result r = make(in, out, &p);
    cr_assert_eq(r.encoded, 1);
    cr_assert_eq(r.tensors, 2);
    remove(in);
    remove(out);
}

Test(quantise, replaced_weights_count_until_they_are_taken_back)
{
    hearth_model *m;
    hearth_session *s;
    hearth_error err = { 0 };
    hearth_model_params p = { .size = sizeof p, .threads = 1 };
    const hearth_token ids[] = { 1, 5, 9, 12, 40 };
    cr_assert_eq(hearth_model_open(&m, story_moe(), &p, &err), HEARTH_OK, "%s", err.text);
    cr_assert_eq(hearth_model_replace(m, 0, 0, HEARTH_ROLE_UP, "q8_0", "", 0, &err), HEARTH_EINVAL); /* not off */
    hearth_model_close(&m);
    p.sparsity = HEARTH_SPARSITY_OFF;
    cr_assert_eq(hearth_model_open(&m, story_moe(), &p, &err), HEARTH_OK, "%s", err.text);
    hearth_model_info info = { .size = sizeof info };
    hearth_block_info block = { .size = sizeof block };
    hearth_model_get_info(m, &info);
    hearth_model_get_block(m, 0, &block);
    cr_assert_eq(hearth_session_open(&s, m, NULL, &err), HEARTH_OK);
    float *first = malloc(info.n_vocab * sizeof *first);
    const size_t n = (size_t)block.n_ff * info.d_model * 2;
    uint8_t *zeros = calloc(1, n);

    cr_assert_eq(hearth_session_feed(s, ids, 5, NULL, NULL, &err), HEARTH_OK);
    memcpy(first, hearth_session_logits(s), info.n_vocab * sizeof *first);
    for (uint32_t e = 0; e < block.n_expert; e++)
        cr_assert_eq(hearth_model_replace(m, 0, e, HEARTH_ROLE_UP, "f16", zeros, n, &err), HEARTH_OK, "%s", err.text);
    hearth_session_rewind(s, 0, &err);
    cr_assert_eq(hearth_session_feed(s, ids, 5, NULL, NULL, &err), HEARTH_OK);
    cr_assert_neq(memcmp(first, hearth_session_logits(s), info.n_vocab * sizeof *first), 0);
    for (uint32_t e = 0; e < block.n_expert; e++)
        cr_assert_eq(hearth_model_replace(m, 0, e, HEARTH_ROLE_UP, NULL, NULL, 0, &err), HEARTH_OK);
    hearth_session_rewind(s, 0, &err);
    cr_assert_eq(hearth_session_feed(s, ids, 5, NULL, NULL, &err), HEARTH_OK);
    cr_assert_eq(memcmp(first, hearth_session_logits(s), info.n_vocab * sizeof *first), 0);

    cr_assert_eq(hearth_model_replace(m, 0, 0, HEARTH_ROLE_UP, "f16", zeros, n - 2, &err), HEARTH_EINVAL);
    cr_assert_eq(hearth_model_replace(m, 0, 0, HEARTH_ROLE_UP, "q7", zeros, n, &err), HEARTH_EINVAL);
    cr_assert_eq(hearth_model_replace(m, 99, 0, HEARTH_ROLE_UP, "f16", zeros, n, &err), HEARTH_EINVAL);
    cr_assert_eq(hearth_model_replace(m, 0, 99, HEARTH_ROLE_UP, "f16", zeros, n, &err), HEARTH_EINVAL);
    hearth_session_close(&s);
    hearth_model_close(&m);
    free(first);
    free(zeros);
}
