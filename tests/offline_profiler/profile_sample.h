/* SPDX-License-Identifier: MIT
 * A profile with everything that one can hold, made up. */
#ifndef PROFILE_SAMPLE_H
#define PROFILE_SAMPLE_H

#include "tests/offline_profiler/profiler_util.h"

#define SAMPLE_MODEL "0123456789abcdef0123456789abcdef"

static inline float *sample_values(hearth_profile *p, size_t n, float scale, uint32_t seed)
{
    float *v = ht_profile_alloc(p, n, sizeof *v);
    uint32_t state = seed * 747796405u + 1;
    for (size_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        float even = (float)(state >> 8) / 16777216.0f;
        v[i] = scale * even * even * even; /* few large ones */
    }
    return v;
}

/* The first layer is dense; the others are mixtures of n_expert (1: dense too) with a shared block. */
static inline hearth_profile *sample_profile(uint32_t n_layer, uint32_t n_ff, uint32_t n_expert, bool predicted)
{
    static char lowrank[] = "lowrank", sign[] = "sign";
    hearth_profile *p = ht_profile_new(n_layer);
    cr_assert_not_null(p);
    memcpy(p->model, SAMPLE_MODEL, 33);
    p->name = ht_profile_text(p, "Sample", 6);
    p->description = ht_profile_text(p, "made up", 7);
    p->created_by = ht_profile_text(p, "a test", 6);
    p->tokens = 123456;
    p->text_bytes = 456789;
    p->window = 512;
    for (uint32_t i = 0; i < n_layer; i++) {
        hearth_profile_layer *l = &p->layers[i];
        bool mixture = i && n_expert > 1;
        float t = (float)i / (float)n_layer;
        l->n_ff = n_ff;
        l->n_expert = mixture ? n_expert : 1;
        l->n_used = mixture ? 2 : 1;
        size_t n = (size_t)l->n_ff * l->n_expert;
        float *frequency = sample_values(p, n, 0.3f + 0.4f * t, i + 1);
        frequency[0] = 1.0f;
        frequency[n - 1] = 0.0f;
        l->frequency = frequency;
        l->magnitude = sample_values(p, n, 2.0f, i + 1000);
        l->density = 0.05f + 0.1f * t;
        l->density_spread = 0.02f;
        l->overlap = 0.2f + 0.3f * t;
        for (int k = 0; k < HEARTH_PROFILE_UNIONS; k++)
            l->unions[k] = 1.0f - powf(1.0f - l->density, (float)(1 << k));
        if (mixture) {
            l->expert_overlap = 0.4f;
            l->expert_frequency = sample_values(p, n_expert, 1.0f, i + 50);
            l->shared_n_ff = 2 * n_ff;
            l->shared_density = 0.25f;
            l->shared_overlap = 0.3f;
            l->shared_frequency = sample_values(p, l->shared_n_ff, 0.9f, i + 70);
            l->shared_magnitude = sample_values(p, l->shared_n_ff, 0.9f, i + 90);
        }
        if (mixture && i > 1) {
            l->n_before = n_expert;
            l->n_next = 3;
            float *ids = ht_profile_alloc(p, (size_t)3 * n_expert, sizeof *ids);
            float *share = ht_profile_alloc(p, (size_t)3 * n_expert, sizeof *share);
            for (uint32_t e = 0; e < 3 * n_expert; e++) {
                ids[e] = (float)((e * 7 + i) % n_expert);
                share[e] = 0.5f / (float)(1 + e % 3);
            }
            l->next_expert = ids;
            l->next_share = share;
        }
        if (predicted) {
            l->method = i % 3 ? lowrank : sign;
            l->recall = 0.99f - 0.06f * t;
            l->precision = 0.7f + 0.2f * t;
            l->predicted_density = l->density / l->precision;
            if (i % 3 == 2) {
                static const char threshold[] = "threshold";
                l->method = threshold;
                l->recall = l->precision = -1;
                l->gate_threshold = sample_values(p, l->n_expert, 0.4f, i + 110);
                l->hidden_threshold = sample_values(p, l->n_expert, 0.2f, i + 130);
            }
        }
    }
    if (predicted) {
        p->n_points = 9;
        p->chosen = 5;
        p->points = ht_profile_alloc(p, p->n_points, sizeof *p->points);
        for (uint32_t i = 0; i < p->n_points; i++)
            p->points[i] = (hearth_profile_point){ .kl_mean = 0.0004f * powf(2.0f, (float)i),
                                                   .kl_p99 = 0.004f * powf(2.1f, (float)i),
                                                   .top1_agreement = 0.999f,
                                                   .weight_bytes_per_token = 1e9f,
                                                   .speed = 1.0f + 0.2f * (float)i,
                                                   .density = 1.0f - 0.1f * (float)i };
    }
    return p;
}

#endif
