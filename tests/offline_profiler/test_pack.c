/* SPDX-License-Identifier: MIT
 *
 * Packed models: the same logits bits as the plain file, whatever is skipped, however prompts are cut and with how many
 * threads; the same fingerprint; the plain file comes back byte for byte; damage of every kind is found, interruption
 * leaves nothing. Profiles are made up here: what fires most is for the order of groups only. */
#include "tests/offline_profiler/profiler_util.h"

enum { N_IDS = 150, FEW_IDS = 18 };

/* Tokens that are computed: sanitizers make each fifty times as slow, and need but one pass of each kind. */
static uint32_t n_ids(void) { return HEARTH_TEST_SANITIZE[0] ? FEW_IDS : N_IDS; }

/* A model, with an activation that has zeros where its own has none. */
static hearth_model *open_model(const char *path, const char *override, hearth_model_params p)
{
    hearth_error err;
    hearth_model *m;
    p.size = sizeof p;
    p.overrides = &override;
    p.n_overrides = override != NULL;
    cr_assert_eq(hearth_model_open(&m, path, &p, &err), HEARTH_OK, "%s", err.text);
    return m;
}

/* As a profiler would have made it; groups fire unevenly. */
static hearth_profile *made_up(const hearth_model *m)
{
    hearth_model_info info = { .size = sizeof info };
    uint32_t state = 7;

    hearth_model_get_info(m, &info);
    hearth_profile *p = ht_profile_new(info.n_layer);
    cr_assert(p && hearth_model_fingerprint(m, p->model, NULL) == HEARTH_OK);
    p->tokens = 100;
    p->window = 16;
    for (uint32_t i = 0; i < info.n_layer; i++) {
        hearth_block_info b = { .size = sizeof b };
        hearth_profile_layer *l = &p->layers[i];
        hearth_model_get_block(m, i, &b);
        l->n_ff = b.n_ff;
        l->n_expert = b.n_expert;
        l->n_used = b.n_used;
        l->shared_n_ff = b.shared_n_ff;
        float *v[4];
        for (int k = 0; k < 4; k++) {
            const size_t n = k < 2 ? (size_t)b.n_ff * b.n_expert : b.shared_n_ff;
            v[k] = n ? ht_profile_alloc(p, n, sizeof(float)) : NULL;
            for (size_t j = 0; j < n; j++) {
                state = state * 1664525u + 1013904223u;
                v[k][j] = (float)((j / 32 * 7919 + 13) % 64) / 128 + (float)(state >> 24) / 1024;
            }
        }
        l->frequency = v[0];
        l->magnitude = v[1];
        l->shared_frequency = v[2];
        l->shared_magnitude = v[3];
        float *experts = ht_profile_alloc(p, b.n_expert, sizeof(float));
        l->expert_frequency = b.n_expert > 1 ? experts : NULL;
    }
    return p;
}

typedef struct rows {
    float *to;
    uint32_t n_vocab;
} rows;

static bool keep_row(void *user, size_t i, const float *logits)
{
    const rows *r = user;
    memcpy(r->to + i * r->n_vocab, logits, r->n_vocab * sizeof *logits);
    return true;
}

/* Logits of n_ids() tokens, [n_ids()][n_vocab]; free. */
static float *logits_of(hearth_model *m, uint32_t batch, uint32_t *n_vocab)
{
    hearth_session_params p = { .size = sizeof p, .n_ctx = N_IDS, .batch = batch };
    hearth_model_info info = { .size = sizeof info };
    hearth_token ids[N_IDS];
    hearth_session *s;
    hearth_error err;

    hearth_model_get_info(m, &info);
    rows r = { malloc((size_t)n_ids() * info.n_vocab * sizeof(float)), info.n_vocab };
    for (uint32_t i = 0; i < n_ids(); i++)
        ids[i] = (hearth_token)((i * 2654435761u >> 7) % info.n_vocab);
    cr_assert_eq(hearth_session_open(&s, m, &p, &err), HEARTH_OK, "%s", err.text);
    cr_assert_eq(hearth_session_feed(s, ids, n_ids(), keep_row, &r, &err), HEARTH_OK, "%s", err.text);
    hearth_session_close(&s);
    *n_vocab = info.n_vocab;
    return r.to;
}

static void same_logits(const char *plain, const char *packed, const char *override, const char *name)
{
    static const struct {
        hearth_sparsity sparsity;
        uint32_t threads, batch;
    } ways[] = { { HEARTH_SPARSITY_OFF, 1, 1 },   { HEARTH_SPARSITY_OFF, 2, 512 },  { HEARTH_SPARSITY_OFF, 3, 7 },
                 { HEARTH_SPARSITY_EXACT, 1, 1 }, { HEARTH_SPARSITY_EXACT, 2, 13 }, { HEARTH_SPARSITY_AUTO, 3, 1 } };

    for (int f32 = 0; f32 < 2; f32++) {
        hearth_model_params how = { .threads = 2, .sparsity = HEARTH_SPARSITY_OFF, .precision = (hearth_precision)f32 };
        hearth_model *m = open_model(plain, override, how);
        uint32_t n_vocab;
        float *want = logits_of(m, 512, &n_vocab);
        hearth_model_close(&m);
        for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
            how.threads = ways[i].threads;
            how.sparsity = ways[i].sparsity;
            m = open_model(packed, override, how);
            float *got = logits_of(m, ways[i].batch, &n_vocab);
            cr_expect_arr_eq(got, want, (size_t)n_ids() * n_vocab * sizeof *want, "%s: %s, sparsity %d, %u threads, passes of %u",
                             name, f32 ? "f32" : "fast", (int)ways[i].sparsity, ways[i].threads, ways[i].batch);
            free(got);
            hearth_model_close(&m);
        }
        free(want);
    }
}

/* The rest of the public face: what a packed model says of itself, its tensors, its rows of weights. */
static void same_model(const char *plain, const char *packed, const char *override, const char *name)
{
    hearth_model *a = open_model(plain, override, (hearth_model_params){ .threads = 1 });
    hearth_model *b = open_model(packed, override, (hearth_model_params){ .threads = 1 });
    hearth_model_info ia = { .size = sizeof ia }, ib = { .size = sizeof ib };
    char fa[33], fb[33];

    hearth_model_get_info(a, &ia);
    hearth_model_get_info(b, &ib);
    cr_expect(!ia.packed && ib.packed && ib.pack_quality < 0 && !ib.predicts, "%s", name);
    cr_expect_eq(ib.neuron_bytes, 0, "%s: nothing is transposed", name);
    cr_expect_eq(ia.n_params, ib.n_params, "%s", name);
    cr_expect_eq(hearth_model_fingerprint(a, fa, NULL), HEARTH_OK);
    cr_expect_eq(hearth_model_fingerprint(b, fb, NULL), HEARTH_OK);
    cr_expect_str_eq(fa, fb, "%s", name);
    for (int role = 0; role < 3; role++) {
        hearth_block_info info = { .size = sizeof info };
        hearth_model_get_block(a, 0, &info);
        const uint32_t k = role == HEARTH_ROLE_DOWN ? info.n_ff : ia.d_model;
        float *x = malloc(7 * k * sizeof *x), *y = malloc(7 * k * sizeof *y);
        if (role || info.gated) {
            cr_expect_eq(hearth_model_read_rows(a, 0, info.n_expert - 1, (hearth_role)role, 30, 7, x, NULL), HEARTH_OK);
            cr_expect_eq(hearth_model_read_rows(b, 0, info.n_expert - 1, (hearth_role)role, 30, 7, y, NULL), HEARTH_OK);
            cr_expect_arr_eq(x, y, 7 * k * sizeof *x, "%s: rows of role %d", name, role);
        }
        free(x);
        free(y);
    }
    hearth_model_close(&a);
    hearth_model_close(&b);

    hearth_file *f, *g;
    uint64_t n_packed;
    cr_assert_eq(hearth_file_open(&f, plain, NULL), HEARTH_OK);
    cr_assert_eq(hearth_file_open(&g, packed, NULL), HEARTH_OK);
    cr_expect(hearth_file_packed(f, &n_packed, NULL) == HEARTH_OK && n_packed == 0);
    cr_expect(hearth_file_packed(g, &n_packed, NULL) == HEARTH_OK && n_packed > 0);
    for (uint64_t i = 0; i < hearth_file_n_tensors(f); i++) {
        hearth_tensor t, u;
        hearth_file_tensor(f, i, &t);
        const int64_t at = hearth_file_find_tensor(g, t.name);
        cr_assert(at >= 0 && hearth_file_tensor(g, (uint64_t)at, &u) == HEARTH_OK, "%s: %s", name, t.name);
        cr_expect(!strcmp(t.type, u.type) && t.n_dims == u.n_dims && t.bytes == u.bytes && !memcmp(t.ne, u.ne, sizeof t.ne));
        const uint64_t n = t.ne[0] * t.ne[1] * t.ne[2];
        float *x = malloc(n * sizeof *x), *y = malloc(n * sizeof *y);
        cr_expect_eq(hearth_file_read(f, i, 0, n, x, NULL), HEARTH_OK);
        const uint64_t cut = n / 2 / 256 * 256; /* in two pieces, anywhere in a row */
        cr_expect_eq(hearth_file_read(g, (uint64_t)at, 0, cut, y, NULL), HEARTH_OK);
        cr_expect_eq(hearth_file_read(g, (uint64_t)at, cut, n - cut, y + cut, NULL), HEARTH_OK);
        cr_expect_arr_eq(x, y, n * sizeof *x, "%s: %s", name, t.name);
        free(x);
        free(y);
    }
    hearth_file_close(&f);
    hearth_file_close(&g);
}

static const char *pack(const char *plain, const char *override, const char *name)
{
    hearth_model *m = open_model(plain, override, (hearth_model_params){ .threads = 1 });
    hearth_profile *p = made_up(m);
    const char *out = util_path(name);
    hearth_error err;

    cr_assert_eq(hearth_profile_pack(p, m, plain, NULL, out, &err), HEARTH_OK, "%s: %s", name, err.text);
    hearth_profile_close(&p);
    hearth_model_close(&m);
    return out;
}

static void comes_back(const char *plain, const char *packed, const char *name)
{
    const char *back = util_path("back.gguf");
    hearth_error err;
    size_t n, m;

    cr_assert_eq(hearth_unpack(packed, back, NULL, NULL, &err), HEARTH_OK, "%s: %s", name, err.text);
    char *x = util_read(plain, &n), *y = util_read(back, &m);
    cr_expect_eq(n, m, "%s: %zu bytes, not %zu", name, m, n);
    cr_expect(n == m && !memcmp(x, y, n), "%s: the file is not the same", name);
    free(x);
    free(y);
    remove(back);
}

static void check(const char *golden, const char *architecture)
{
    char path[512], override[100];

    snprintf(path, sizeof path, "%s/%s.gguf", HEARTH_TEST_DATA, golden);
    snprintf(override, sizeof override, "%s.hidden_activation=relu", architecture ? architecture : "");
    const char *with = architecture ? override : NULL, *packed = pack(path, with, "packed.gguf");
    same_logits(path, packed, with, golden);
    same_model(path, packed, with, golden);
    comes_back(path, packed, golden);
    remove(packed);
}

/* ---- Quantised types: a small model with two segments, random weights ---- */

static const struct matrix {
    const char *name;
    uint64_t k, n; /* n 0: a vector of k */
    bool ffn;
} matrices[] = {
    { "token_embd.weight", 256, 96, false },       { "output_norm.weight", 256, 0, false },
    { "blk.0.attn_norm.weight", 256, 0, false },   { "blk.0.attn_q.weight", 256, 256, false },
    { "blk.0.attn_k.weight", 256, 256, false },    { "blk.0.attn_v.weight", 256, 256, false },
    { "blk.0.attn_output.weight", 256, 256, false }, { "blk.0.ffn_norm.weight", 256, 0, false },
    { "blk.0.ffn_gate.weight", 256, 2304, true },  { "blk.0.ffn_down.weight", 2304, 256, true },
    { "blk.0.ffn_up.weight", 256, 2304, true },
};
enum { N_MATRICES = sizeof matrices / sizeof *matrices };

static const char *write_quantised(const char *type, const char *down, uint32_t align)
{
    const char *path = util_path("plain.gguf");
    uint32_t state = 99;
    hearth_writer *w;
    hearth_error err;

    cr_assert_eq(hearth_writer_open(&w, path, &err), HEARTH_OK, "%s", err.text);
    hearth_writer_set_str(w, "general.architecture", "llama");
    if (align)
        hearth_writer_set_u32(w, "general.alignment", align);
    hearth_writer_set_u32(w, "llama.block_count", 1);
    hearth_writer_set_u32(w, "llama.context_length", 256);
    hearth_writer_set_u32(w, "llama.embedding_length", 256);
    hearth_writer_set_u32(w, "llama.feed_forward_length", 2304);
    hearth_writer_set_u32(w, "llama.attention.head_count", 4);
    hearth_writer_set_f32(w, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    hearth_writer_set_str(w, "llama.hidden_activation", "relu");
    for (size_t i = 0; i < N_MATRICES; i++) {
        const struct matrix *m = &matrices[i];
        const char *of = !m->ffn ? "f32" : strstr(m->name, "down") ? down : type;
        cr_assert_eq(hearth_writer_declare(w, m->name, of, m->n ? 2 : 1, (uint64_t[]){ m->k, m->n }, &err), HEARTH_OK, "%s",
                     err.text);
    }
    for (size_t i = 0; i < N_MATRICES; i++) {
        const size_t n = (size_t)(matrices[i].k * (matrices[i].n ? matrices[i].n : 1));
        float *v = malloc(n * sizeof *v);
        for (size_t j = 0; j < n; j++) {
            state = state * 1664525u + 1013904223u;
            v[j] = matrices[i].n ? ((float)(state >> 16) / 65536 - 0.55f) / 4 : 1.0f; /* gates mostly shut */
        }
        cr_assert_eq(hearth_writer_data(w, v, n, &err), HEARTH_OK, "%s", err.text);
        free(v);
    }
    cr_assert_eq(hearth_writer_close(&w, &err), HEARTH_OK, "%s", err.text);
    return path;
}

Test(pack, quantised_types_keep_their_bits, .timeout = 600)
{
    static const char *const types[][2] = { { "q4_0", "q4_0" }, { "q8_0", "q8_0" }, { "q4_k", "q6_k" }, { "q6_k", "q4_k" },
                                            { "bf16", "f32" } };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        const char *plain = write_quantised(types[i][0], types[i][1], i == 1 ? 128 : 0);
        const char *packed = pack(plain, NULL, "packed.gguf");
        same_logits(plain, packed, NULL, types[i][1]);
        same_model(plain, packed, NULL, types[i][1]);
        comes_back(plain, packed, types[i][1]);
        remove(plain);
        remove(packed);
    }
}

Test(pack, dense_blocks)
{
    check("golden/llama_relu", "llama");
    check("golden/llama", NULL); /* SiLU: every neuron counts */
}

Test(pack, without_a_gate)
{
    check("golden/arcee", NULL);
    check("golden/nemotron", NULL);
}

Test(pack, mixtures)
{
    check("golden/smallthinker", NULL);
    check("golden/qwen2_moe", "qwen2moe");
}

Test(pack, biases)
{
    check("golden/gpt_oss", NULL);
}

/* ---- What is refused ---- */

Test(pack, what_cannot_be_packed)
{
    const char *plain = write_quantised("q4_0", "q4_0", 0), *packed = pack(plain, NULL, "packed.gguf");
    const char *out = util_path("not-there.gguf");
    hearth_model *m = open_model(packed, NULL, (hearth_model_params){ .threads = 1 });
    hearth_profile *p = made_up(m);
    hearth_error err;

    cr_expect_eq(hearth_profile_pack(p, m, packed, NULL, out, &err), HEARTH_EINVAL); /* twice */
    cr_expect_eq(hearth_unpack(plain, out, NULL, NULL, &err), HEARTH_EINVAL);
    p->model[0] = p->model[0] == '0' ? '1' : '0';
    cr_expect_eq(hearth_profile_pack(p, m, plain, NULL, out, &err), HEARTH_EMISMATCH);
    cr_expect_neq(access(out, F_OK), 0);
    hearth_profile_close(&p);
    hearth_model_close(&m);
    remove(plain);
    remove(packed);

    plain = write_quantised("q4_0", "q5_0", 0);
    m = open_model(plain, NULL, (hearth_model_params){ .threads = 1 });
    p = made_up(m);
    cr_expect_eq(hearth_profile_pack(p, m, plain, NULL, out, &err), HEARTH_EUNSUPPORTED);
    cr_expect_neq(access(out, F_OK), 0);
    hearth_profile_close(&p);
    hearth_model_close(&m);
    remove(plain);
}

static bool stop_half_way(void *user, const char *what, uint64_t done, uint64_t total)
{
    (void)user;
    (void)what;
    return done < total / 2;
}

Test(pack, interrupted_leaves_nothing)
{
    const char *plain = write_quantised("q8_0", "q8_0", 0), *packed = pack(plain, NULL, "packed.gguf");
    const char *out = util_path("not-there.gguf");
    hearth_model *m = open_model(plain, NULL, (hearth_model_params){ .threads = 1 });
    hearth_profile *p = made_up(m);
    hearth_pack_params params = { .size = sizeof params, .progress = stop_half_way };

    cr_expect_eq(hearth_profile_pack(p, m, plain, &params, out, NULL), HEARTH_ECANCELLED);
    cr_expect_neq(access(out, F_OK), 0);
    cr_expect_eq(hearth_unpack(packed, out, stop_half_way, NULL, NULL), HEARTH_ECANCELLED);
    cr_expect_neq(access(out, F_OK), 0);
    hearth_profile_close(&p);
    hearth_model_close(&m);
    remove(plain);
    remove(packed);
}

/* ---- Hostile files ---- */

/* Where a text lies in a file. */
static size_t find(const char *bytes, size_t n, const char *text)
{
    const size_t k = strlen(text);
    for (size_t i = 0; i + k <= n; i++)
        if (!memcmp(bytes + i, text, k))
            return i;
    cr_assert_fail("no %s", text);
    return 0;
}

/* One value after a key is another: behind the key's name come its type (4 bytes), of arrays type and number (12). */
Test(pack, what_contradicts_itself_is_refused)
{
    static const struct {
        const char *key;
        size_t at; /* of the byte behind the key */
        uint8_t value;
        hearth_status want;
    } cases[] = {
        { "hearth.pack.version", 4, 2, HEARTH_EUNSUPPORTED },
        { "hearth.pack.version", 4, 0, HEARTH_EUNSUPPORTED },
        { "hearth.pack.width", 5, 2, HEARTH_EFORMAT },
        { "hearth.pack.n_ff", 16, 1, HEARTH_EFORMAT },
        { "hearth.pack.n_ff", 17, 8, HEARTH_EFORMAT },
        { "hearth.pack.n_ff", 19, 0x80, HEARTH_EFORMAT },
        { "hearth.pack.n_expert", 16, 2, HEARTH_EFORMAT },
        { "hearth.pack.n_expert", 16, 0, HEARTH_EFORMAT },
        { "hearth.pack.down_type", 16, 10, HEARTH_EFORMAT },
        { "hearth.pack.down_type", 16, 8, HEARTH_EFORMAT },
        { "hearth.pack.up_type", 16, 99, HEARTH_EFORMAT },
        { "hearth.pack.up_type", 19, 0xff, HEARTH_EFORMAT },
        { "hearth.pack.gate_type", 16, 99, HEARTH_EFORMAT },
        { "hearth.pack.gate_type", 19, 0x70, HEARTH_EFORMAT },
        { "hearth.pack.blocks", 24 + 11, '1', HEARTH_EFORMAT },
        { "hearth.pack.blocks", 24 + 13, 'x', HEARTH_EFORMAT },
        { "hearth.blk.0.ffn.order", 0, 4, HEARTH_EFORMAT },
    };
    const char *plain = write_quantised("q4_0", "q4_0", 0), *packed = pack(plain, NULL, "packed.gguf");
    const char *bad = util_path("bad.gguf"), *out = util_path("not-there.gguf");
    size_t n;
    char *bytes = util_read(packed, &n);
    hearth_error err;
    hearth_model *m;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint64_t n_packed;
        hearth_file *f;
        char *p = bytes + find(bytes, n, cases[i].key) + strlen(cases[i].key) + cases[i].at;
        const char was = *p;
        *p = (char)cases[i].value;
        util_write(bad, bytes, n);
        *p = was;
        hearth_status st = hearth_model_open(&m, bad, NULL, &err);
        cr_expect(st == cases[i].want || (i + 1 == sizeof cases / sizeof *cases && st != HEARTH_OK), "case %zu: %d, %s", i,
                  (int)st, st ? err.text : "");
        hearth_model_close(&m);
        if (hearth_file_open(&f, bad, NULL) == HEARTH_OK) { /* the rest can be looked at */
            cr_expect_neq(hearth_file_packed(f, &n_packed, &err), HEARTH_OK, "case %zu", i);
            cr_expect_eq(n_packed, 0);
            hearth_file_close(&f);
        }
        cr_expect_neq(hearth_unpack(bad, out, NULL, NULL, &err), HEARTH_OK, "case %zu", i);
    }
    /* An order that names a group twice, or one that is not there; damage that only the sum of bytes shows. */
    hearth_file *f;
    hearth_tensor t;
    cr_assert_eq(hearth_file_open(&f, packed, NULL), HEARTH_OK);
    hearth_file_tensor(f, (uint64_t)hearth_file_find_tensor(f, "hearth.blk.0.ffn.order"), &t);
    const uint64_t order = t.offset;
    hearth_file_tensor(f, (uint64_t)hearth_file_find_tensor(f, "hearth.blk.0.ffn"), &t);
    const uint64_t weights = t.offset;
    hearth_file_close(&f);
    for (int i = 0; i < 2; i++) {
        char was[4];
        memcpy(was, bytes + order, 4);
        memcpy(bytes + order, i ? bytes + order + 4 : "\xff\xff\x00\x00", 4);
        util_write(bad, bytes, n);
        memcpy(bytes + order, was, 4);
        cr_expect_eq(hearth_model_open(&m, bad, NULL, &err), HEARTH_EFORMAT, "order %d", i);
    }
    bytes[weights + 1000] ^= 4;
    util_write(bad, bytes, n);
    bytes[weights + 1000] ^= 4;
    cr_expect_eq(hearth_unpack(bad, out, NULL, NULL, &err), HEARTH_EFORMAT);
    cr_expect_neq(access(out, F_OK), 0);
    /* Cut anywhere: an error, never a crash. */
    for (size_t cut = n; cut > 64; cut = cut * 9 / 10) {
        util_write(bad, bytes, cut - 1);
        if (hearth_model_open(&m, bad, NULL, &err) == HEARTH_OK)
            cr_expect_eq(cut, n, "cut to %zu of %zu", cut - 1, n); /* the last tensor's padding */
        hearth_model_close(&m);
    }
    free(bytes);
    remove(plain);
    remove(packed);
    remove(bad);
}

/* Any byte of the head may be any other: what opens can be computed with. */
Test(pack, no_byte_is_trusted, .timeout = 600)
{
    static const char *const names[] = { "golden/llama_relu", "golden/smallthinker" };
    const char *bad = util_path("bad.gguf");
    const hearth_token ids[] = { 1, 2, 3 };
    uint32_t state = 31;

    for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
        char path[512];
        size_t n, opened = 0;
        snprintf(path, sizeof path, "%s/%s.gguf", HEARTH_TEST_DATA, names[k]);
        const char *packed = pack(path, NULL, "packed.gguf");
        char *bytes = util_read(packed, &n);
        const size_t first = find(bytes, n, "hearth.pack.version"); /* from there keys, then what is said of tensors */
        size_t end = n;
        for (size_t i = first; i + 17 < n; i++)
            if (!memcmp(bytes + i, "hearth.blk.0.magn", 17))
                end = i;
        for (int i = 0; i < 300; i++) {
            state = state * 1664525u + 1013904223u;
            const size_t at = first + (state >> 8) % (end - first);
            const char was = bytes[at];
            hearth_model *m;
            hearth_session *s;
            state = state * 1664525u + 1013904223u;
            bytes[at] = i % 2 ? (char)(state >> 24) : (char)(was ^ 1 << (state >> 29));
            util_write(bad, bytes, n);
            bytes[at] = was;
            if (hearth_model_open(&m, bad, &(hearth_model_params){ .size = sizeof(hearth_model_params), .threads = 1 }, NULL))
                continue;
            opened++;
            if (hearth_session_open(&s, m, &(hearth_session_params){ .size = sizeof(hearth_session_params), .n_ctx = 8, .batch = 2 },
                                    NULL) == HEARTH_OK)
                hearth_session_feed(s, ids, 3, NULL, NULL, NULL);
            hearth_session_close(&s);
            hearth_model_close(&m);
        }
        cr_expect_gt(opened, 0);
        free(bytes);
        remove(packed);
    }
    remove(bad);
}

/* Metadata that is no longer what was packed does not come out as if it were; before anything is written. */
Test(pack, damaged_metadata_is_not_given_back)
{
    static const char *const keys[] = { "general.architecture", "tokenizer.ggml.tokens", "tokenizer.ggml.scores",
                                        "llama.block_count", "hearth.pack.source_keys_hash" };
    const char *plain = write_quantised("q8_0", "q8_0", 0), *packed = pack(plain, NULL, "packed.gguf");
    const char *bad = util_path("bad.gguf"), *out = util_path("not-there.gguf");
    hearth_error err;
    size_t n, tried = 0;
    char *bytes = util_read(packed, &n);

    for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
        const size_t length = strlen(keys[k]);
        size_t at = 0;
        while (at + length < n && memcmp(bytes + at, keys[k], length) != 0)
            at++;
        if (at + length == n)
            continue; /* this model has no such key */
        tried++;
        at += length + 4 + (strstr(keys[k], "ggml") ? 12 + 8 : strstr(keys[k], "count") ? 0 : 8); /* first byte of a value */
        bytes[at] ^= 1;
        util_write(bad, bytes, n);
        bytes[at] ^= 1;
        cr_expect_eq(hearth_unpack(bad, out, NULL, NULL, &err), HEARTH_EFORMAT, "%s", keys[k]);
        cr_expect_neq(access(out, F_OK), 0);
    }
    cr_expect_geq(tried, 3u);
    cr_expect_eq(hearth_unpack(packed, out, NULL, NULL, &err), HEARTH_OK, "%s", err.text);
    free(bytes);
    remove(plain);
    remove(packed);
    remove(bad);
    remove(out);
}

/* Before anything is learnt it is known whether a file can be packed. */
Test(pack, can_be_asked_before)
{
    const char *plain = write_quantised("q8_0", "q8_0", 0), *packed = pack(plain, NULL, "packed.gguf");
    hearth_error err;
    hearth_model *m = open_model(plain, NULL, (hearth_model_params){ .threads = 1 });

    cr_expect_eq(hearth_pack_check(m, plain, &err), HEARTH_OK, "%s", err.text);
    cr_expect_eq(hearth_pack_check(m, packed, &err), HEARTH_EINVAL);
    cr_expect_eq(hearth_pack_check(m, "/nowhere/model.gguf", &err), HEARTH_EIO);
    hearth_model_close(&m);
    remove(plain);
    remove(packed);
}

/* ---- Predictors inside ---- */

/* A profile with a predictor that names every neuron, or none, as a model made with a quality has it. */
Test(pack, predictors_go_with_the_model)
{
    const char *plain = write_quantised("q4_0", "q4_0", 0), *packed = util_path("packed.gguf");
    hearth_model *m = open_model(plain, NULL, (hearth_model_params){ .threads = 1 });
    hearth_profile *p = made_up(m), *inside;
    hearth_pack_params params = { .size = sizeof params, .quality = 0.05 };
    hearth_profile_point point = { .kl_mean = 0.01f, .speed = 1.5f };
    hearth_profiler *profiler;
    hearth_model_info info = { .size = sizeof info };
    hearth_error err;
    uint32_t n_vocab;

    float *threshold = ht_profile_alloc(p, 2304, sizeof *threshold);
    for (int i = 0; i < 2304; i++)
        threshold[i] = i < 1000 ? -INFINITY : INFINITY;
    p->layers[0].method = "sign";
    p->layers[0].threshold = threshold;
    p->points = &point;
    p->n_points = 1;
    cr_assert_eq(hearth_profile_pack(p, m, plain, &params, packed, &err), HEARTH_OK, "%s", err.text);
    float *dense = logits_of(m, 512, &n_vocab);
    hearth_model_close(&m);

    m = open_model(packed, NULL, (hearth_model_params){ .threads = 2 });
    hearth_model_get_info(m, &info);
    cr_expect(info.predicts && fabsf(info.pack_quality - 0.05f) < 1e-6f);
    cr_expect_eq(hearth_profiler_open(&profiler, m, NULL, &err), HEARTH_EINVAL); /* would learn of the predictors */
    float *a = logits_of(m, 512, &n_vocab), *b = logits_of(m, 1, &n_vocab);
    const size_t bytes = (size_t)n_ids() * n_vocab * sizeof *a;
    cr_expect_arr_eq(a, b, bytes, "predicted, in passes of any length");
    cr_expect(memcmp(a, dense, bytes) != 0, "neurons are left out");
    free(a);
    free(b);
    cr_expect_eq(hearth_model_predict(m, packed, &err), HEARTH_OK, "%s", err.text); /* its own may be replaced */
    cr_expect_eq(hearth_model_predict(m, packed, &err), HEARTH_EBUSY);
    hearth_model_close(&m);
    for (int s = HEARTH_SPARSITY_OFF; s <= HEARTH_SPARSITY_EXACT; s++) { /* only `auto` may lose */
        m = open_model(packed, NULL, (hearth_model_params){ .threads = 2, .sparsity = (hearth_sparsity)s });
        a = logits_of(m, 7, &n_vocab);
        cr_expect_arr_eq(a, dense, bytes);
        free(a);
        hearth_model_close(&m);
    }
    cr_assert_eq(hearth_profile_read(&inside, packed, p->model, &err), HEARTH_OK, "%s", err.text);
    cr_expect_str_eq(inside->layers[0].method, "sign");
    cr_expect_arr_eq(inside->layers[0].frequency, p->layers[0].frequency, 2304 * sizeof(float));
    hearth_profile_close(&inside);
    hearth_profile_close(&p);
    comes_back(plain, packed, "with predictors");
    free(dense);
    remove(plain);
    remove(packed);
}
