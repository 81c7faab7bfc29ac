/* SPDX-License-Identifier: MIT
 *
 * `hearth synth` through the command: files that open and generate, bytes that depend on the seed alone, and plans
 * that a second forward pass (synth_sim.h) finds kept. Threads: Criterion runs each test in its own process. */
#include <criterion/criterion.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/tools/synth_sim.h"

extern char **environ;

enum { MAX_ARGS = 24 };

/* A folder of this test's own, removed with what is known to be in it. */
typedef struct scratch { char dir[64], a[96], b[96]; } scratch;

static scratch scratch_open(void)
{
    scratch s = {.dir = "/tmp/hearth-synth-XXXXXX"};

    cr_assert_not_null(mkdtemp(s.dir));
    snprintf(s.a, sizeof s.a, "%s/a.gguf", s.dir);
    snprintf(s.b, sizeof s.b, "%s/b.gguf", s.dir);
    return s;
}

static void scratch_close(scratch *s)
{
    unlink(s->a);
    unlink(s->b);
    rmdir(s->dir);
}

/* Runs `hearth synth` with blank-separated flags, output thrown away; returns the exit status. */
static int synth(const char *shape, const char *out, const char *flags)
{
    char copy[256], *argv[MAX_ARGS] = {(char *)HEARTH_BIN, (char *)"synth"}, *rest = copy;
    posix_spawn_file_actions_t null;
    int n = 2, status = -1;
    pid_t pid;

    if (shape)
        argv[n++] = (char *)shape;
    if (out)
        argv[n++] = (char *)out;
    snprintf(copy, sizeof copy, "%s", flags);
    for (char *w; n < MAX_ARGS - 1 && (w = strsep(&rest, " ")) != NULL;)
        if (*w)
            argv[n++] = w;
    posix_spawn_file_actions_init(&null);
    posix_spawn_file_actions_addopen(&null, 1, "/dev/null", 1, 0);
    posix_spawn_file_actions_addopen(&null, 2, "/dev/null", 1, 0);
    cr_assert_eq(posix_spawn(&pid, HEARTH_BIN, &null, NULL, argv, environ), 0, "cannot start %s", HEARTH_BIN);
    posix_spawn_file_actions_destroy(&null);
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static bool same_bytes(const char *a, const char *b)
{
    FILE *f = fopen(a, "rb"), *g = fopen(b, "rb");
    int x = 0, y = 0;

    cr_assert(f && g);
    do {
        x = getc(f);
        y = getc(g);
    } while (x == y && x != EOF);
    fclose(f);
    fclose(g);
    return x == y;
}

static double near(double measured, double planned)
{
    return fabs(measured - planned) / planned;
}

Test(synth, every_small_shape_generates)
{
    static const char *const shapes[] = {"tiny-llama", "tiny-odd", "tiny-relu", "tiny-relu2", "tiny-qwen3", "tiny-moe",
                                         "tiny-relu-moe", "tiny-gpt-oss", "tiny-next"};
    scratch t = scratch_open();

    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        hearth_model_params mp = HEARTH_MODEL_PARAMS_INIT;
        hearth_session_params sp = HEARTH_SESSION_PARAMS_INIT;
        hearth_model *m = NULL;
        hearth_session *s = NULL;
        hearth_error err = {0};
        hearth_token id = 600, seen[16];

        mp.threads = 1;
        cr_assert_eq(synth(shapes[i], t.a, "--type q8_0 --threads 2"), 0, "%s", shapes[i]);
        cr_assert_eq(hearth_model_open(&m, t.a, &mp, &err), HEARTH_OK, "%s: %s", shapes[i], err.text);
        cr_assert_eq(hearth_session_open(&s, m, &sp, &err), HEARTH_OK, "%s: %s", shapes[i], err.text);
        for (int n = 0; n < 16; n++) { /* greedy decoding walks the chain: no word comes twice */
            hearth_model_info info = {.size = sizeof info};
            uint64_t state = 0;

            cr_assert_eq(hearth_model_get_info(m, &info), HEARTH_OK);
            cr_assert_eq(hearth_session_feed(s, &id, 1, NULL, NULL, &err), HEARTH_OK, "%s: %s", shapes[i], err.text);
            for (uint32_t k = 0; k < info.n_vocab; k++)
                cr_assert(isfinite(hearth_session_logits(s)[k]), "%s: logit %u", shapes[i], k);
            id = (hearth_token)sim_pick(hearth_session_logits(s), info.n_vocab, 0, &state);
            for (int k = 0; k < n; k++)
                cr_assert_neq(seen[k], id, "%s: token %d again after %d", shapes[i], id, n - k);
            seen[n] = id;
        }
        hearth_session_close(&s);
        hearth_model_close(&m);
    }
    scratch_close(&t);
}

Test(synth, seed_alone_decides_the_bytes)
{
    scratch t = scratch_open();
    const char *flags = "--type q4_0 --density 0.1 --routing-skew 1 --layers 2 --seed 12345678901234567890";
    char more[128];

    cr_assert_eq(synth("tiny-relu-moe", t.a, flags), 0);
    snprintf(more, sizeof more, "%s --threads 7", flags);
    cr_assert_eq(synth("tiny-relu-moe", t.b, more), 0);
    cr_assert(same_bytes(t.a, t.b), "the number of threads changed the file");
    cr_assert_eq(synth("tiny-relu-moe", t.b, "--type q4_0 --density 0.1 --routing-skew 1 --layers 2 --seed 2"), 0);
    cr_assert(!same_bytes(t.a, t.b), "the seed changed nothing");
    scratch_close(&t);
}

Test(synth, types_and_their_fallbacks)
{
    static const struct { const char *shape, *type, *attn_q, *embd; } cases[] = {
        {"tiny-llama", "f32", "F32", "F32"},     {"tiny-llama", "f16", "F16", "F16"},
        {"tiny-llama", "bf16", "BF16", "BF16"},  {"tiny-llama", "q4_1", "Q4_1", "Q4_1"},
        {"tiny-llama", "q5_0", "Q5_0", "Q5_0"},  {"tiny-llama", "q5_1", "Q5_1", "Q5_1"},
        {"tiny-llama", "q2_k", "Q2_K", "Q2_K"},  {"tiny-llama", "q3_k", "Q3_K", "Q3_K"},
        {"tiny-llama", "Q4_K", "Q4_K", "Q4_K"},  {"tiny-llama", "q5_k", "Q5_K", "Q5_K"},
        {"tiny-llama", "q6_k", "Q6_K", "Q6_K"},  {"tiny-llama", "iq4_nl", "IQ4_NL", "IQ4_NL"},
        {"tiny-llama", "iq4_xs", "IQ4_XS", "IQ4_XS"}, {"tiny-llama", "mxfp4", "MXFP4", "MXFP4"},
        {"tiny-llama", "tq2_0", "TQ2_0", "Q4_K"}, {"tiny-odd", "q4_k", "Q5_0", "Q5_0"},
        {"tiny-odd", "q6_k", "Q8_0", "Q8_0"},    {"tiny-odd", "q3_k", "IQ4_NL", "IQ4_NL"},
    };
    scratch t = scratch_open();
    size_t step = HEARTH_TEST_SANITIZE[0] ? 2 : 1;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i += step) {
        hearth_file *f = NULL;
        hearth_tensor q, e, n;
        char flags[64];

        snprintf(flags, sizeof flags, "--type %s --layers 1", cases[i].type);
        cr_assert_eq(synth(cases[i].shape, t.a, flags), 0, "%s", cases[i].type);
        cr_assert_eq(hearth_file_open(&f, t.a, NULL), HEARTH_OK);
        cr_assert_eq(hearth_file_tensor(f, (uint64_t)hearth_file_find_tensor(f, "blk.0.attn_q.weight"), &q), HEARTH_OK);
        cr_assert_eq(hearth_file_tensor(f, (uint64_t)hearth_file_find_tensor(f, "token_embd.weight"), &e), HEARTH_OK);
        cr_assert_eq(hearth_file_tensor(f, (uint64_t)hearth_file_find_tensor(f, "blk.0.ffn_norm.weight"), &n),
                     HEARTH_OK);
        cr_expect_str_eq(q.type, cases[i].attn_q);
        cr_expect_str_eq(e.type, cases[i].embd);
        cr_expect_str_eq(n.type, "F32");
        hearth_file_close(&f);
    }
    scratch_close(&t);
}

Test(synth, words_tokenise_to_themselves)
{
    hearth_model_params mp = HEARTH_MODEL_PARAMS_INIT;
    scratch t = scratch_open();
    hearth_model *m = NULL;
    hearth_token ids[3000], *back = NULL;
    char *text = NULL;
    size_t n, n_back;

    mp.vocab_only = true;
    cr_assert_eq(synth("tiny-llama", t.a, "--type q8_0 --vocab 20000 --layers 1"), 0);
    cr_assert_eq(hearth_model_open(&m, t.a, &mp, NULL), HEARTH_OK);
    for (int i = 0; i < 3000; i++)
        ids[i] = 361 + (i * 6151) % (20000 - 363);
    cr_assert_eq(hearth_detokenize(m, ids, 3000, false, &text, &n, NULL), HEARTH_OK);
    cr_assert_eq(hearth_tokenize(m, text, n, false, false, &back, &n_back, NULL), HEARTH_OK);
    cr_assert_eq(n_back, 3000);
    cr_assert_eq(memcmp(back, ids, sizeof ids), 0);
    hearth_free(text);
    hearth_free(back);
    /* any bytes come back too */
    static const char any[] = "Z\xc3\xa9! \xe4\xb8\x96\xff\x01\n42 quick foxes";

    cr_assert_eq(hearth_tokenize(m, any, sizeof any - 1, false, false, &back, &n_back, NULL), HEARTH_OK);
    cr_assert_eq(hearth_detokenize(m, back, n_back, false, &text, &n, NULL), HEARTH_OK);
    cr_assert(n == sizeof any - 1 && memcmp(text, any, n) == 0);
    hearth_free(text);
    hearth_free(back);
    hearth_model_close(&m);
    scratch_close(&t);
}

/* Density and overlap of every layer against the plan, on one kind of token stream. */
static void check_neurons(sim *s, sim_stream how, const char *what)
{
    double mean = 0;

    sim_reset(s);
    sim_run(s, how, 256, 3, NULL);
    for (uint32_t l = 0; l < s->n_layer; l++) {
        sim_layer *y = &s->layers[l];
        double density = y->n_active / y->n_computed, overlap = y->n_both / y->n_was;

        cr_expect_lt(near(density, sim_number(s, "hearth.synth.layer_density", l, NAN)), 0.15,
                     "%s layer %u: density %g", what, l, density);
        cr_expect_lt(near(overlap, sim_number(s, "hearth.synth.layer_overlap", l, NAN)), 0.15,
                     "%s layer %u: overlap %g", what, l, overlap);
        mean += density / s->n_layer;
    }
    cr_expect_lt(near(mean, sim_number(s, "hearth.synth.density", 0, NAN)), 0.05, "%s: mean density %g", what, mean);
}

Test(synth, planted_sparsity_is_there)
{
    static const struct { const char *shape, *flags; } cases[] = {
        {"tiny-relu", "--type f32 --density 0.1"},
        {"tiny-relu", "--type q4_0 --density 0.1 --seed 9"},
        {"tiny-relu", "--type q4_k --density 0.3 --overlap 0.6"},
        {"tiny-relu", "--type q8_0 --density 0.03 --overlap 0.3"},
        {"tiny-relu", "--type tq2_0 --density 0.1"},
        {"tiny-relu2", "--type q4_0 --density 0.1"},
        {"tiny-relu-moe", "--type q4_0 --density 0.1 --routing-skew 1"},
    };
    scratch t = scratch_open();
    /* Slow there, and the same code; under the thread sanitizer slowest, and one thread. */
    size_t step = strcmp(HEARTH_TEST_SANITIZE, "thread") == 0 ? sizeof cases / sizeof *cases : HEARTH_TEST_SANITIZE[0] ? 3 : 1;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i += step) {
        char what[128];
        sim s;

        cr_assert_eq(synth(cases[i].shape, t.a, cases[i].flags), 0);
        cr_assert(sim_open(&s, t.a, 256));
        for (int how = SIM_RANDOM; how <= SIM_SAMPLED; how++) {
            snprintf(what, sizeof what, "%s %s, stream %d", cases[i].shape, cases[i].flags, how);
            check_neurons(&s, (sim_stream)how, what);
        }
        sim_close(&s);
    }
    scratch_close(&t);
}

/* Cosine of two vectors of firing counts. */
static double likeness(const uint32_t *a, const uint32_t *b, size_t n)
{
    double ab = 0, aa = 0, bb = 0;

    for (size_t i = 0; i < n; i++) {
        ab += (double)a[i] * b[i];
        aa += (double)a[i] * a[i];
        bb += (double)b[i] * b[i];
    }
    return ab / sqrt(aa * bb);
}

Test(synth, topics_fire_other_neurons_and_batches_fire_more)
{
    static const char key[] = "hearth.synth.union";
    scratch t = scratch_open();
    uint32_t *first;
    sim s;

    cr_assert_eq(synth("tiny-relu", t.a, "--type q4_0 --density 0.1"), 0);
    cr_assert(sim_open(&s, t.a, 256));
    first = malloc(s.ff * sizeof *first);
    sim_run(&s, SIM_RANDOM, 256, 3, NULL); /* 128 tokens of each topic */
    for (uint32_t l = 0; l < s.n_layer; l++) {
        sim_layer *y = &s.layers[l];
        double other = likeness(y->fired[0], y->fired[1], s.ff), once = 0;

        for (uint32_t i = 0; i < s.ff; i++)
            once += y->fired[0][i] > 0;
        cr_expect(once / s.ff > y->n_active / y->n_computed * 1.5, "layer %u: union %g", l, once / s.ff);
        memcpy(first, y->fired[0], s.ff * sizeof *first);
        cr_expect_lt(other, 0.85, "layer %u: topics are alike: %g", l, other);
    }
    /* the same topic again, other words: alike */
    sim_layer *y = &s.layers[0];

    memcpy(first, y->fired[0], s.ff * sizeof *first);
    sim_reset(&s);
    sim_run(&s, SIM_RANDOM, 256, 4, NULL);
    cr_expect_gt(likeness(first, y->fired[0], s.ff), 0.95);
    double u[4] = {sim_number(&s, key, 0, 0), sim_number(&s, key, 3, 0), sim_number(&s, key, 7, 0), 0};

    cr_expect_lt(near(u[0], 0.1), 0.02);
    cr_expect(u[0] < u[1] && u[1] < u[2] && u[2] <= 1);
    free(first);
    sim_close(&s);
    scratch_close(&t);
}

Test(synth, the_engine_sees_the_same_density)
{
    hearth_model_params mp = HEARTH_MODEL_PARAMS_INIT;
    hearth_session_params sp = HEARTH_SESSION_PARAMS_INIT;
    hearth_sampler_params pp = HEARTH_SAMPLER_PARAMS_INIT;
    hearth_generate_params gp = HEARTH_GENERATE_PARAMS_INIT;
    hearth_stats stats = {.size = sizeof stats};
    scratch t = scratch_open();
    hearth_model *m = NULL;
    hearth_session *s = NULL;
    hearth_sampler *p = NULL;
    hearth_stop_reason why;
    hearth_token first = 500;

    cr_assert_eq(synth("tiny-relu", t.a, "--type q4_0 --density 0.08"), 0);
    mp.threads = 1;
    gp.max_tokens = 200;
    cr_assert_eq(hearth_model_open(&m, t.a, &mp, NULL), HEARTH_OK);
    cr_assert_eq(hearth_session_open(&s, m, &sp, NULL), HEARTH_OK);
    cr_assert_eq(hearth_sampler_open(&p, &pp, 1024, NULL), HEARTH_OK);
    cr_assert_eq(hearth_generate(s, p, &first, 1, &gp, &why, NULL), HEARTH_OK);
    cr_assert_eq(hearth_session_get_stats(s, &stats), HEARTH_OK);
    cr_expect_geq(stats.generated_tokens, 199);
    cr_expect_lt(near((double)stats.neurons_active / (double)stats.neurons_total, 0.08), 0.05);
    hearth_sampler_close(&p);
    hearth_session_close(&s);
    hearth_model_close(&m);
    scratch_close(&t);
}

static double routing(sim *s, uint32_t layer)
{
    return s->layers[layer].n_same / s->layers[layer].n_pairs / s->n_used;
}

Test(synth, planted_routing_is_there)
{
    scratch t = scratch_open();
    double mean = 0, planned = 0;
    sim s;

    cr_assert_eq(synth("tiny-moe", t.a, "--type q8_0 --routing-skew 1"), 0);
    cr_assert(sim_open(&s, t.a, 512));
    sim_run(&s, SIM_GREEDY, 512, 3, NULL);
    for (uint32_t l = 0; l < s.n_layer; l++) {
        double plan = sim_number(&s, "hearth.synth.layer_routing_overlap", l, NAN);

        cr_expect_lt(near(routing(&s, l), plan), 0.15, "layer %u: %g, planned %g", l, routing(&s, l), plan);
        mean += routing(&s, l);
        planned += plan;
    }
    cr_expect_lt(near(mean, planned), 0.08);
    sim_close(&s);

    cr_assert_eq(synth("tiny-moe", t.a, "--type q8_0 --routing-skew 0"), 0); /* no more than chance: 4 of 32 */
    cr_assert(sim_open(&s, t.a, 512));
    sim_run(&s, SIM_GREEDY, 512, 3, NULL);
    for (uint32_t l = 0; l < s.n_layer; l++)
        cr_expect_lt(routing(&s, l), 0.16, "layer %u: %g", l, routing(&s, l));
    sim_close(&s);
    scratch_close(&t);
}

Test(synth, wrong_usage)
{
    scratch t = scratch_open();

    cr_expect_eq(synth("no-such-shape", t.a, "--type q4_0"), 2);
    cr_expect_eq(synth("tiny-llama", t.a, ""), 2);
    cr_expect_eq(synth("tiny-llama", NULL, "--type q4_0"), 2);
    cr_expect_eq(synth("tiny-llama", t.a, "--type q9_z"), 2);
    cr_expect_eq(synth("tiny-llama", t.a, "--type q4_0 --density 0.1"), 2, "SiLU has no zeros");
    cr_expect_eq(synth("tiny-llama", t.a, "--type q4_0 --routing-skew 1"), 2, "no experts");
    cr_expect_eq(synth("tiny-relu", t.a, "--type q4_0 --overlap 0.4"), 2);
    cr_expect_eq(synth("tiny-relu", t.a, "--type q4_0 --density 1.5"), 2);
    cr_expect_eq(synth("tiny-relu", t.a, "--type q4_0 --density nan"), 2);
    cr_expect_eq(synth("tiny-relu", t.a, "--type q4_0 --layers 0"), 2);
    cr_expect_eq(synth("tiny-relu", t.a, "--type q4_0 --vocab 10"), 2);
    cr_expect_eq(synth("tiny-relu", t.a, "--type q4_0 --seed -1"), 2);
    cr_expect_eq(synth("tiny-relu", t.a, "--type"), 2);
    cr_expect_eq(synth("tiny-relu", t.a, "--tpye q4_0"), 2);
    cr_expect_eq(access(t.a, F_OK), -1, "a file was written");
    cr_expect_eq(synth("tiny-relu", "/nonexistent/x.gguf", "--type q4_0"), 1);
    cr_expect_eq(synth(NULL, NULL, "--list"), 0);
    cr_expect_eq(synth(NULL, NULL, "--help"), 0);
    scratch_close(&t);
}
