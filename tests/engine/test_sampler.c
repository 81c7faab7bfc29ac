/* SPDX-License-Identifier: MIT
 *
 * Sampling: draws against exact probabilities, edges of every parameter, logits that are no numbers. */
#include "tests/engine/engine_util.h"

static hearth_error err;

static hearth_sampler *open_sampler(hearth_sampler_params p, uint32_t n)
{
    hearth_sampler *s;
    p.size = sizeof p;
    cr_assert_eq(hearth_sampler_open(&s, &p, n, &err), HEARTH_OK, "%s", err.text);
    return s;
}

/* Draws often and compares with probabilities by a chi-squared statistic; outcomes of probability 0 must not occur. */
static void expect_distribution(hearth_sampler_params p, const float *logits, uint32_t n, const double *want,
                                const char *what)
{
    enum { DRAWS = 40000 };
    hearth_sampler *s = open_sampler(p, n);
    uint32_t count[64] = { 0 }, classes = 0;
    double chi = 0.0;

    cr_assert(n <= 64);
    for (int i = 0; i < DRAWS; i++) {
        hearth_token t = hearth_sampler_pick(s, logits);
        cr_assert(t >= 0 && (uint32_t)t < n);
        count[t]++;
    }
    for (uint32_t i = 0; i < n; i++) {
        if (want[i] == 0.0) {
            cr_expect_eq(count[i], 0, "%s: token %u was drawn", what, i);
            continue;
        }
        double e = want[i] * DRAWS;
        chi += (count[i] - e) * (count[i] - e) / e;
        classes++;
    }
    /* Mean classes - 1, standard deviation sqrt(2 (classes - 1)); the seed is fixed, so this holds always or never. */
    cr_expect(chi < classes + 5.0 * sqrt(2.0 * classes), "%s: chi squared %g of %u classes", what, chi, classes);
    hearth_sampler_close(&s);
}

static void softmax(const float *logits, uint32_t n, double temperature, const bool *keep, double *out)
{
    double sum = 0.0;
    for (uint32_t i = 0; i < n; i++)
        sum += out[i] = !keep || keep[i] ? exp(logits[i] / temperature) : 0.0;
    for (uint32_t i = 0; i < n; i++)
        out[i] /= sum;
}

static const float eight[8] = { 0.5f, 2.0f, -1.0f, 1.0f, 0.0f, 1.5f, -3.0f, 0.25f };

Test(sampler, distribution)
{
    double want[8];
    softmax(eight, 8, 1.0, NULL, want);
    expect_distribution((hearth_sampler_params){ .temperature = 1.0f, .seed = 1 }, eight, 8, want, "temperature 1");
    softmax(eight, 8, 0.5, NULL, want);
    expect_distribution((hearth_sampler_params){ .temperature = 0.5f, .seed = 2 }, eight, 8, want, "temperature 0.5");
    softmax(eight, 8, 3.0, NULL, want);
    expect_distribution((hearth_sampler_params){ .temperature = 3.0f, .seed = 3 }, eight, 8, want, "temperature 3");
}

Test(sampler, top_k)
{
    double want[8];
    const bool three[8] = { false, true, false, true, false, true, false, false };
    softmax(eight, 8, 1.0, three, want);
    expect_distribution((hearth_sampler_params){ .temperature = 1.0f, .top_k = 3, .seed = 4 }, eight, 8, want,
                        "top_k 3");
    softmax(eight, 8, 1.0, NULL, want);
    expect_distribution((hearth_sampler_params){ .temperature = 1.0f, .top_k = 8, .seed = 5 }, eight, 8, want,
                        "top_k n");
    expect_distribution((hearth_sampler_params){ .temperature = 1.0f, .top_k = 1000, .seed = 6 }, eight, 8, want,
                        "top_k beyond n");
    const double one[8] = { 0, 1, 0, 0, 0, 0, 0, 0 };
    expect_distribution((hearth_sampler_params){ .temperature = 2.0f, .top_k = 1, .seed = 7 }, eight, 8, one,
                        "top_k 1");
}

Test(sampler, top_p)
{
    /* Probabilities 0.4, 0.3, 0.2, 0.1: the fewest best ones that reach top_p. */
    const float l[4] = { logf(0.2f), logf(0.4f), logf(0.1f), logf(0.3f) };
    const double two[4] = { 0, 4.0 / 7, 0, 3.0 / 7 }, three[4] = { 2.0 / 9, 4.0 / 9, 0, 3.0 / 9 },
                 all[4] = { 0.2, 0.4, 0.1, 0.3 };
    const double best[4] = { 0, 1, 0, 0 };
    expect_distribution((hearth_sampler_params){ .temperature = 1.0f, .top_p = 0.65f, .seed = 1 }, l, 4, two,
                        "top_p 0.65");
    expect_distribution((hearth_sampler_params){ .temperature = 1.0f, .top_p = 0.75f, .seed = 2 }, l, 4, three,
                        "top_p 0.75");
    expect_distribution((hearth_sampler_params){ .temperature = 1.0f, .top_p = 1e-6f, .seed = 3 }, l, 4, best,
                        "top_p tiny");
    expect_distribution((hearth_sampler_params){ .temperature = 1.0f, .top_p = 1.0f, .seed = 4 }, l, 4, all, "top_p 1");
    expect_distribution((hearth_sampler_params){ .temperature = 1.0f, .top_p = 0.0f, .seed = 5 }, l, 4, all,
                        "top_p 0: off");
}

Test(sampler, min_p)
{
    const float l[4] = { logf(0.2f), logf(0.4f), logf(0.1f), logf(0.3f) };
    const double three[4] = { 2.0 / 9, 4.0 / 9, 0, 3.0 / 9 }, best[4] = { 0, 1, 0, 0 };
    expect_distribution((hearth_sampler_params){ .temperature = 1.0f, .min_p = 0.4f, .seed = 1 }, l, 4, three,
                        "min_p 0.4");
    expect_distribution((hearth_sampler_params){ .temperature = 1.0f, .min_p = 1.0f, .seed = 2 }, l, 4, best,
                        "min_p 1");
    expect_distribution((hearth_sampler_params){ .temperature = 1.0f, .min_p = 7.0f, .seed = 3 }, l, 4, best,
                        "min_p beyond 1");
}

Test(sampler, greedy_takes_the_lowest_of_equals)
{
    float l[100];
    for (int i = 0; i < 100; i++)
        l[i] = i == 17 || i == 60 ? 3.0f : -1.0f;
    hearth_sampler *s = open_sampler((hearth_sampler_params){ .temperature = 0.0f }, 100);
    for (int i = 0; i < 3; i++)
        cr_expect_eq(hearth_sampler_pick(s, l), 17);
    hearth_sampler_close(&s);
    s = open_sampler((hearth_sampler_params){ .temperature = 1.0f, .top_k = 1, .seed = 5 }, 100);
    cr_expect_eq(hearth_sampler_pick(s, l), 17, "top_k 1 is greedy, ties too");
    hearth_sampler_close(&s);
}

Test(sampler, seed_decides)
{
    hearth_token a[200], b[200], c[200];
    hearth_sampler *s[3] = { open_sampler((hearth_sampler_params){ .temperature = 1.0f, .seed = 42 }, 8),
                             open_sampler((hearth_sampler_params){ .temperature = 1.0f, .seed = 42 }, 8),
                             open_sampler((hearth_sampler_params){ .temperature = 1.0f, .seed = 43 }, 8) };
    for (int i = 0; i < 200; i++) {
        a[i] = hearth_sampler_pick(s[0], eight);
        b[i] = hearth_sampler_pick(s[1], eight);
        c[i] = hearth_sampler_pick(s[2], eight);
    }
    cr_expect(memcmp(a, b, sizeof a) == 0);
    cr_expect(memcmp(a, c, sizeof a) != 0);
    for (int i = 0; i < 3; i++)
        hearth_sampler_close(&s[i]);
}

Test(sampler, repeat_penalty)
{
    /* 2 / 1.5 < 1.4, then 1.4 / 1.5 < 1: each pick is the best of what is left after dividing; negative ones multiply.
     */
    const float l[4] = { 2.0f, 1.4f, 1.0f, -0.1f };
    hearth_sampler *s = open_sampler((hearth_sampler_params){ .repeat_penalty = 1.5f }, 4);
    cr_expect_eq(hearth_sampler_pick(s, l), 0);
    cr_expect_eq(hearth_sampler_pick(s, l), 1);
    cr_expect_eq(hearth_sampler_pick(s, l), 0, "2 / 1.5 is above 1.4 / 1.5 and 1");
    hearth_sampler_close(&s);

    s = open_sampler((hearth_sampler_params){ .repeat_penalty = 3.0f, .repeat_window = 1 }, 4);
    for (int i = 0; i < 6; i++)
        cr_expect_eq(hearth_sampler_pick(s, l), i % 2, "a window of one forgets what was before");
    hearth_sampler_close(&s);

    const float neg[2] = { -1.0f, -1.5f };
    s = open_sampler((hearth_sampler_params){ .repeat_penalty = 2.0f }, 2);
    cr_expect_eq(hearth_sampler_pick(s, neg), 0);
    cr_expect_eq(hearth_sampler_pick(s, neg), 1, "-1 times 2 is below -1.5");
    cr_expect_eq(hearth_sampler_pick(s, neg), 0);
    hearth_sampler_close(&s);
}

Test(sampler, logits_that_are_no_numbers)
{
    static const float temperatures[] = { 0.0f, 0.8f };
    for (int t = 0; t < 2; t++)
        for (uint32_t k = 0; k < 3; k++) {
            hearth_sampler_params p = { .temperature = temperatures[t],
                                        .top_k = k,
                                        .top_p = 0.9f,
                                        .min_p = 0.05f,
                                        .repeat_penalty = 1.2f,
                                        .seed = 1 };
            const float nan[4] = { NAN, NAN, NAN, NAN }, one[4] = { NAN, -5.0f, NAN, -INFINITY };
            const float inf[4] = { 1.0f, INFINITY, 2.0f, NAN },
                        lowest[4] = { -INFINITY, -INFINITY, -INFINITY, -INFINITY };
            hearth_sampler *s = open_sampler(p, 4);
            for (int i = 0; i < 20; i++) {
                hearth_token id = hearth_sampler_pick(s, nan);
                cr_expect(id >= 0 && id < 4);
                cr_expect_eq(hearth_sampler_pick(s, one), 1);
                cr_expect_eq(hearth_sampler_pick(s, inf), 1);
                id = hearth_sampler_pick(s, lowest);
                cr_expect(id >= 0 && id < 4);
            }
            hearth_sampler_close(&s);
        }
}

Test(sampler, for_another_model)
{
    hearth_model *m = util_open_golden("llama", HEARTH_PRECISION_FAST);
    hearth_session *s = util_session(m, 32, 32, HEARTH_KV_F16);
    hearth_sampler *p = open_sampler((hearth_sampler_params){ 0 }, util_n_vocab(m) + 1);
    hearth_generate_params g = { .size = sizeof g, .max_tokens = 2 };
    int32_t id = 1;

    cr_expect_eq(hearth_generate(s, p, &id, 1, &g, NULL, &err), HEARTH_EINVAL,
                 "there are no logits for its last token");
    cr_expect_eq(hearth_session_position(s), 0, "refused before anything is computed");
    hearth_sampler_close(&p);
    hearth_session_close(&s);
    hearth_model_close(&m);
}

Test(sampler, large_vocabulary)
{
    enum { N = 150000 };
    float *l = malloc(N * sizeof *l);
    uint64_t x = 1;
    uint32_t best = 0;
    for (uint32_t i = 0; i < N; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        l[i] = (float)(x >> 40) * 0x1p-24f * 20.0f;
        best = l[i] > l[best] ? i : best;
    }
    hearth_sampler *s = open_sampler((hearth_sampler_params){ .temperature = 1e-8f, .seed = 1 }, N);
    cr_expect_eq(hearth_sampler_pick(s, l), (hearth_token)best, "close to 0 is greedy");
    hearth_sampler_close(&s);
    /* The best forty by sorting are what top_k 40 may draw. */
    bool *seen = calloc(N, 1);
    s = open_sampler((hearth_sampler_params){ .temperature = 50.0f, .top_k = 40, .seed = 2 }, N);
    for (int i = 0; i < (util_sanitized() ? 60 : 300); i++)
        seen[hearth_sampler_pick(s, l)] = true;
    for (uint32_t i = 0; i < N; i++) {
        uint32_t above = 0;
        for (uint32_t j = 0; seen[i] && j < N; j++)
            above += l[j] > l[i];
        cr_expect(above < 40);
    }
    hearth_sampler_close(&s);
    free(seen);
    free(l);
}

Test(sampler, parameters)
{
    static const hearth_sampler_params bad[] = {
        { .temperature = -1.0f },
        { .temperature = NAN },
        { .temperature = INFINITY },
        { .top_p = -0.1f },
        { .top_p = NAN },
        { .min_p = -1.0f },
        { .min_p = NAN },
        { .repeat_penalty = -1.0f },
        { .repeat_penalty = NAN },
    };
    hearth_sampler *s;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        hearth_sampler_params p = bad[i];
        p.size = sizeof p;
        cr_expect_eq(hearth_sampler_open(&s, &p, 8, &err), HEARTH_EINVAL, "row %zu", i);
        cr_expect_null(s);
    }
    cr_expect_eq(hearth_sampler_open(&s, NULL, 0, &err), HEARTH_EINVAL);
    cr_expect_eq(hearth_sampler_open(&s, NULL, 8, &err), HEARTH_OK, "all defaults: greedy");
    cr_expect_eq(hearth_sampler_pick(s, eight), 1);
    hearth_sampler_close(&s);
    hearth_sampler_close(&s);
    hearth_sampler_close(NULL);
    s = open_sampler((hearth_sampler_params){ .repeat_penalty = 1.1f, .repeat_window = UINT32_MAX }, 8);
    cr_expect_eq(hearth_sampler_pick(s, eight), 1);
    hearth_sampler_close(&s);
    s = open_sampler((hearth_sampler_params){ .temperature = 1.0f }, 1);
    cr_expect_eq(hearth_sampler_pick(s, eight), 0, "a vocabulary of one");
    hearth_sampler_close(&s);
}
