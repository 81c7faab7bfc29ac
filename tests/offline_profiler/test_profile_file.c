/* SPDX-License-Identifier: MIT
 *
 * Profile files: what is written is read, and nothing else is: other models, newer versions, damage to any bit or byte,
 * and nonsense under a good checksum each end in a status and a sentence. */
#include "engine/gguf_write.h"
#include "tests/offline_profiler/profile_sample.h"

static hearth_error err;

static bool same_floats(const float *a, const float *b, size_t n)
{
    bool same = !a == !b;
    for (size_t i = 0; same && a && i < n; i++)
        same = a[i] == b[i];
    return same;
}

static void expect_same_layer(const hearth_profile_layer *a, const hearth_profile_layer *b, uint32_t i)
{
    size_t n = (size_t)a->n_ff * a->n_expert, pairs = (size_t)a->n_before * a->n_next;
    cr_assert(a->n_ff == b->n_ff && a->n_expert == b->n_expert && a->n_used == b->n_used &&
                  a->shared_n_ff == b->shared_n_ff && a->n_before == b->n_before && a->n_next == b->n_next,
              "layer %u", i);
    cr_expect(same_floats(a->unions, b->unions, HEARTH_PROFILE_UNIONS) && a->density == b->density &&
                  a->density_spread == b->density_spread && a->overlap == b->overlap &&
                  a->expert_overlap == b->expert_overlap && a->shared_density == b->shared_density &&
                  a->shared_overlap == b->shared_overlap && a->recall == b->recall && a->precision == b->precision &&
                  a->predicted_density == b->predicted_density,
              "layer %u", i);
    cr_expect(same_floats(a->frequency, b->frequency, n) && same_floats(a->magnitude, b->magnitude, n) &&
                  same_floats(a->expert_frequency, b->expert_frequency, a->n_expert) &&
                  same_floats(a->next_expert, b->next_expert, pairs) &&
                  same_floats(a->next_share, b->next_share, pairs) &&
                  same_floats(a->shared_frequency, b->shared_frequency, a->shared_n_ff) &&
                  same_floats(a->shared_magnitude, b->shared_magnitude, a->shared_n_ff),
              "layer %u", i);
    cr_expect(!a->method == !b->method && (!a->method || !strcmp(a->method, b->method)));
}

Test(profile_file, is_read_as_it_was_written)
{
    static const struct {
        uint32_t n_layer, n_ff, n_expert;
        bool predicted;
    } shapes[] = { { 1, 64, 1, false }, { 4, 40, 6, true }, { 5, 33, 4, false }, { 3, 100, 1, true } };
    for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++) {
        hearth_profile *p = sample_profile(shapes[k].n_layer, shapes[k].n_ff, shapes[k].n_expert, shapes[k].predicted),
                       *q;
        const char *path = util_path("round.gguf");
        hearth_profile_info a = { .size = sizeof a }, b = { .size = sizeof b };
        cr_assert_eq(hearth_profile_write(p, path, &err), HEARTH_OK, "%s", err.text);
        cr_assert_eq(hearth_profile_read(&q, path, SAMPLE_MODEL, &err), HEARTH_OK, "%s", err.text);
        hearth_profile_get_info(p, &a);
        hearth_profile_get_info(q, &b);
        cr_expect(!strcmp(a.model, b.model) && !strcmp(a.name, b.name) && !strcmp(a.description, b.description) &&
                  !strcmp(a.created_by, b.created_by) && a.tokens == b.tokens && a.text_bytes == b.text_bytes &&
                  a.n_layer == b.n_layer && a.window == b.window && a.density == b.density &&
                  a.n_points == b.n_points && a.chosen == b.chosen);
        for (uint32_t i = 0; i < a.n_layer; i++)
            expect_same_layer(&p->layers[i], &q->layers[i], i);
        for (uint32_t i = 0; i < a.n_points; i++)
            cr_expect(same_floats(&p->points[i].kl_mean, &q->points[i].kl_mean, sizeof *p->points / sizeof(float)));
        hearth_profile_close(&q);
        cr_assert_eq(hearth_profile_read(&q, path, NULL, &err), HEARTH_OK, "%s", err.text);
        hearth_profile_close(&q);
        hearth_profile_close(&p);
        remove(path);
    }
}

static hearth_status verdict(const char *path, const char *model)
{
    hearth_profile *p;
    err.text[0] = 0;
    hearth_status st = hearth_profile_read(&p, path, model, &err);
    cr_assert((st == HEARTH_OK) == (p != NULL));
    cr_assert(st == HEARTH_OK || err.text[0], "no sentence for %d", st);
    hearth_profile_close(&p);
    return st;
}

Test(profile_file, of_another_model)
{
    hearth_profile *p = sample_profile(2, 32, 1, false);
    const char *path = util_path("other.gguf");
    cr_assert_eq(hearth_profile_write(p, path, &err), HEARTH_OK);
    cr_expect_eq(verdict(path, "ffffffffffffffffffffffffffffffff"), HEARTH_EMISMATCH);
    cr_expect(strstr(err.text, "another model") && strstr(err.text, "Sample"), "%s", err.text);
    hearth_profile_close(&p);
    remove(path);
}

Test(profile_file, that_is_none)
{
    char path[512];
    snprintf(path, sizeof path, "%s/golden/llama.gguf", HEARTH_TEST_DATA);
    cr_expect_eq(verdict(path, NULL), HEARTH_EFORMAT);
    cr_expect(strstr(err.text, "no profile"), "%s", err.text);
    const char *text = util_path("text.gguf");
    util_write(text, "Once upon a time", 16);
    cr_expect_eq(verdict(text, NULL), HEARTH_EFORMAT);
    util_write(text, "", 0);
    cr_expect_eq(verdict(text, NULL), HEARTH_EFORMAT);
    remove(text);
    cr_expect_eq(verdict("/nowhere/profile.gguf", NULL), HEARTH_EIO);
}

/* The sample with some of its keys or numbers changed, sealed as it should be. */
static const char *rewritten(const char *name, const char *key, double number)
{
    const char *from = util_path("rewrite-from.gguf"), *to = util_path(name);
    hearth_profile *p = sample_profile(3, 32, 4, true);
    ht_gguf *g;
    ht_gguf_writer *w;
    ht_error e;
    cr_assert_eq(hearth_profile_write(p, from, &err), HEARTH_OK, "%s", err.text);
    hearth_profile_close(&p);
    cr_assert_eq(ht_gguf_open(&g, from, &e), HT_OK, "%s", e.text);
    cr_assert_eq(ht_gguf_writer_open(&w, to, &e), HT_OK, "%s", e.text);
    ht_gguf_writer_copy(w, g);
    if (isnan(number))
        ht_gguf_writer_drop(w, key);
    else
        ht_gguf_writer_set_u32(w, key, (uint32_t)number);
    ht_gguf_writer_seal(w);
    uint64_t n = ht_gguf_n_tensors(g) - 1; /* the last is the old checksum */
    for (uint64_t i = 0; i < n; i++) {
        const ht_tensor *t = ht_gguf_tensor_at(g, i);
        ht_gguf_writer_declare(w, t->name, t->type, t->n_dims, t->ne, NULL);
    }
    for (uint64_t i = 0; i < n; i++)
        ht_gguf_writer_raw(w, ht_gguf_tensor_at(g, i)->data, ht_gguf_tensor_at(g, i)->bytes, NULL);
    cr_assert_eq(ht_gguf_writer_close(&w, &e), HT_OK, "%s", e.text);
    ht_gguf_close(&g);
    remove(from);
    return to;
}

Test(profile_file, of_a_newer_version)
{
    const char *path = rewritten("newer.gguf", "hearth.profile.version", 2);
    cr_expect_eq(verdict(path, SAMPLE_MODEL), HEARTH_EUNSUPPORTED);
    cr_expect(strstr(err.text, "newer version (2"), "%s", err.text);
    remove(path);
    path = rewritten("none.gguf", "hearth.profile.version", 0);
    cr_expect_eq(verdict(path, SAMPLE_MODEL), HEARTH_EFORMAT);
    remove(path);
    path = rewritten("same.gguf", "hearth.profile.window", 512);
    cr_expect_eq(verdict(path, SAMPLE_MODEL), HEARTH_OK, "%s", err.text);
    remove(path);
}

Test(profile_file, with_keys_missing)
{
    static const char *const keys[] = { "general.type",
                                        "hearth.profile.version",
                                        "hearth.profile.model",
                                        "hearth.profile.model_name",
                                        "hearth.profile.created_by",
                                        "hearth.profile.tokens",
                                        "hearth.profile.text_bytes",
                                        "hearth.profile.window",
                                        "hearth.profile.density_only",
                                        "hearth.profile.n_ff",
                                        "hearth.profile.n_expert",
                                        "hearth.profile.n_used",
                                        "hearth.profile.shared_n_ff",
                                        "hearth.profile.curve.chosen",
                                        "hearth.profile.curve.kl_p99" };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const char *path = rewritten("missing.gguf", keys[i], NAN);
        cr_expect_eq(verdict(path, SAMPLE_MODEL), HEARTH_EFORMAT, "without %s", keys[i]);
        remove(path);
        path = rewritten("scalar.gguf", keys[i], 7); /* a number where an array or a text belongs, or a wrong one */
        hearth_status st = verdict(path, SAMPLE_MODEL);
        bool number = strstr(keys[i], "tokens") || strstr(keys[i], "bytes") || strstr(keys[i], "window") ||
                      strstr(keys[i], "chosen");
        cr_expect(number ? st == HEARTH_OK : st == HEARTH_EFORMAT || st == HEARTH_EUNSUPPORTED, "%s: %d", keys[i], st);
        remove(path);
    }
}

/* A change to a profile in memory that a reader must not believe. */
typedef void spoil_fn(hearth_profile *p, hearth_profile_layer *l);
/* clang-format off */
static void set(const float *v, float to) { *(float *)(uintptr_t)v = to; }
static void frequency_high(hearth_profile *p, hearth_profile_layer *l) { (void)p; set(l->frequency + 3, 1.5f); }
static void frequency_low(hearth_profile *p, hearth_profile_layer *l) { (void)p; set(l->frequency + 3, -0.1f); }
static void frequency_nan(hearth_profile *p, hearth_profile_layer *l) { (void)p; set(l->frequency + 3, NAN); }
static void magnitude_inf(hearth_profile *p, hearth_profile_layer *l) { (void)p; set(l->magnitude, INFINITY); }
static void no_magnitude(hearth_profile *p, hearth_profile_layer *l) { (void)p; l->magnitude = NULL; }
static void no_neurons(hearth_profile *p, hearth_profile_layer *l) { (void)p; l->frequency = l->magnitude = NULL; }
static void no_experts(hearth_profile *p, hearth_profile_layer *l) { (void)p; l->expert_frequency = NULL; }
static void more_used(hearth_profile *p, hearth_profile_layer *l) { (void)p; l->n_used = 99; }
static void none_used(hearth_profile *p, hearth_profile_layer *l) { (void)p; l->n_used = 0; }
static void far_expert(hearth_profile *p, hearth_profile_layer *l) { (void)p; set(l->next_expert, 4); }
static void half_expert(hearth_profile *p, hearth_profile_layer *l) { (void)p; set(l->next_expert, 1.5f); }
static void fewer_before(hearth_profile *p, hearth_profile_layer *l) { (void)p; l->n_before = 3; }
static void no_shares(hearth_profile *p, hearth_profile_layer *l) { (void)p; l->next_share = NULL; }
static void density_high(hearth_profile *p, hearth_profile_layer *l) { (void)p; l->density = 2; }
static void overlap_nan(hearth_profile *p, hearth_profile_layer *l) { (void)p; l->overlap = NAN; }
static void model_short(hearth_profile *p, hearth_profile_layer *l) { (void)l; p->model[31] = 0; }
static void model_text(hearth_profile *p, hearth_profile_layer *l) { (void)l; p->model[0] = 'x'; }
static void chosen_far(hearth_profile *p, hearth_profile_layer *l) { (void)l; p->chosen = 1000; }
static void point_nan(hearth_profile *p, hearth_profile_layer *l) { (void)l; p->points[2].speed = NAN; }
static void gate_nan(hearth_profile *p, hearth_profile_layer *l) { (void)p; set(l->gate_threshold + 1, NAN); }
static void hidden_low(hearth_profile *p, hearth_profile_layer *l) { (void)p; set(l->hidden_threshold, -0.1f); }
static char long_name[] = "a method whose name is longer than any method's name";
static void method_long(hearth_profile *p, hearth_profile_layer *l) { (void)p; l->method = long_name; }
/* clang-format on */

Test(profile_file, nonsense_is_not_believed)
{
    static spoil_fn *const spoils[] = { frequency_high, frequency_low, frequency_nan, magnitude_inf, no_magnitude,
                                        no_neurons,     no_experts,    more_used,     none_used,     far_expert,
                                        half_expert,    fewer_before,  no_shares,     density_high,  overlap_nan,
                                        model_short,    model_text,    chosen_far,    point_nan,     method_long,
                                        gate_nan,       hidden_low };
    for (size_t i = 0; i < sizeof spoils / sizeof *spoils; i++) {
        hearth_profile *p = sample_profile(4, 32, 4, true);
        const char *path = util_path("nonsense.gguf");
        spoils[i](p, &p->layers[2]);
        cr_assert_eq(hearth_profile_write(p, path, &err), HEARTH_OK, "%s", err.text);
        cr_expect_eq(verdict(path, NULL), HEARTH_EFORMAT, "change %zu is believed", i);
        hearth_profile_close(&p);
        remove(path);
    }
}

Test(profile_file, damage_is_found)
{
    const char *path = util_path("whole.gguf"), *damaged = util_path("damaged.gguf");
    hearth_profile *p = sample_profile(2, 16, 3, true);
    size_t n, step = HEARTH_TEST_SANITIZE[0] ? 7 : 1;
    cr_assert_eq(hearth_profile_write(p, path, &err), HEARTH_OK);
    hearth_profile_close(&p);
    char *bytes = util_read(path, &n);
    for (size_t at = 0; at < n; at += step)
        for (int bit = 0; bit < 8; bit += HEARTH_TEST_SANITIZE[0] ? 3 : 1) {
            bytes[at] ^= (char)(1 << bit);
            util_write(damaged, bytes, n);
            hearth_status st = verdict(damaged, SAMPLE_MODEL);
            cr_assert(st == HEARTH_EFORMAT || st == HEARTH_EUNSUPPORTED || st == HEARTH_EMISMATCH,
                      "byte %zu, bit %d: status %d", at, bit, st);
            bytes[at] ^= (char)(1 << bit);
        }
    for (size_t cut = 0; cut + 16 < n; cut += step) { /* behind the checksum there is padding */
        util_write(damaged, bytes, cut);
        cr_assert_neq(verdict(damaged, SAMPLE_MODEL), HEARTH_OK, "cut at %zu of %zu", cut, n);
    }
    free(bytes);
    remove(path);
    remove(damaged);
}

Test(profile_file, cannot_be_written)
{
    hearth_profile *p = sample_profile(2, 16, 1, false);
    cr_expect_eq(hearth_profile_write(p, "/nowhere/profile.gguf", &err), HEARTH_EIO);
    cr_expect_eq(hearth_profile_report(p, "/nowhere/profile.html", &err), HEARTH_EIO);
    hearth_profile_close(&p);
}

Test(profile_file, cover)
{
    hearth_profile *p = ht_profile_new(2);
    float *f = ht_profile_alloc(p, 10, sizeof *f), *g = ht_profile_alloc(p, 10, sizeof *g);
    for (int i = 0; i < 10; i++) {
        f[i] = 0.5f; /* all alike */
        g[i] = i == 7 ? 1.0f : 0.0f;
    }
    p->layers[0] = (hearth_profile_layer){ .n_ff = 10, .n_expert = 1, .n_used = 1, .frequency = f };
    p->layers[1] = (hearth_profile_layer){ .n_ff = 10, .n_expert = 1, .n_used = 1, .frequency = g };
    cr_expect_float_eq(hearth_profile_cover(p, 0, 0.8), 0.8, 1e-9);
    cr_expect_float_eq(hearth_profile_cover(p, 1, 0.8), 0.1, 1e-9);
    cr_expect_float_eq(hearth_profile_cover(p, UINT32_MAX, 0.5), 0.25, 1e-9); /* of 6: the one, and four halves */
    cr_expect_lt(hearth_profile_cover(p, 2, 0.8), 0);
    hearth_profile_close(&p);
}
