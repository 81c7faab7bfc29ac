/* SPDX-License-Identifier: MIT
 * Rotation frequencies: plain, linear, YaRN (arXiv:2309.00071), Llama 3 factors, longrope (arXiv:2402.13753). See
 * model.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/model.h"

#define MAX_FREQ 1e6f /* radians per position; a sane file has at most 1 */

/* The dimension whose wave makes `turns` rotations over the original context (YaRN, appendix A.2). */
static double correction_dim(double turns, uint32_t n_rot, double base, double ctx)
{
    return n_rot * log(ctx / (turns * 2.0 * M_PI)) / (2.0 * log(base));
}

/* Blends interpolated and unchanged frequencies. The file cannot say whether the bounds are to be whole numbers; the
 * reference's default, rounding outward, is used. */
static void apply_yarn(ht_rope *r, double base, double factor, double ctx, double fast, double slow)
{
    double low = floor(correction_dim(fast, r->n_rot, base, ctx)),
           high = ceil(correction_dim(slow, r->n_rot, base, ctx));

    low = low < 0 ? 0 : low;
    high = high > r->n_rot - 1.0 ? r->n_rot - 1.0 : high;
    if (low == high)
        high += 0.001;
    for (uint32_t i = 0; i < r->n_rot / 2; i++) {
        double ramp = (i - low) / (high - low);
        ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
        double f = r->inv_freq[i];
        r->inv_freq[i] = (float)(f / factor * ramp + f * (1.0 - ramp));
    }
}

static float *plain(ht_loader *ld, uint32_t n_rot, double base)
{
    float *f = ht_model_alloc(ld->m, n_rot / 2, sizeof *f);
    for (uint32_t i = 0; f && i < n_rot / 2; i++)
        f[i] = (float)(1.0 / pow(base, 2.0 * i / n_rot));
    return f;
}

static ht_status load_scaling(ht_loader *ld, ht_rope *r, float base)
{
    ht_str type = { "", 0 };
    char key[160];
    float factor = 1.0f, fast = 32.0f, slow = 1.0f, attn = 0.0f, yarn_attn = 0.0f;
    uint32_t ctx = ld->m->n_ctx_train;
    ht_status st;

    if ((st = ht_gguf_str(ld->g, ht_load_key(ld, key, "rope.scaling.type"), &type, ld->err)) ||
        (st = ht_load_f32(ld, "rope.scale_linear", &factor)) ||
        (st = ht_load_f32(ld, "rope.scaling.factor", &factor)) ||
        (st = ht_load_f32(ld, "rope.scaling.yarn_beta_fast", &fast)) ||
        (st = ht_load_f32(ld, "rope.scaling.yarn_beta_slow", &slow)) ||
        (st = ht_load_f32(ld, "rope.scaling.attn_factor", &attn)) ||
        (st = ht_load_f32(ld, "rope.scaling.yarn_attn_factor", &yarn_attn)) ||
        (st = ht_load_u32(ld, "rope.scaling.original_context_length", 0, &ctx)))
        return st;
    if (factor == 0.0f)
        factor = 1.0f;
    r->original_ctx = ctx ? ctx : ld->m->n_ctx_train;
    bool none = type.n == 0 || (type.n == 4 && memcmp(type.s, "none", 4) == 0);
    if (type.n == 6 && memcmp(type.s, "linear", 6) == 0) {
        for (uint32_t i = 0; i < r->n_rot / 2; i++)
            r->inv_freq[i] /= factor;
    } else if (type.n == 4 && memcmp(type.s, "yarn", 4) == 0) {
        if (!(fast > 0.0f) || !(slow > 0.0f) || !(base > 1.0f))
            return ht_fail(ld->err, HT_EFORMAT, "%s.rope.scaling: yarn betas %g and %g must be positive", ld->arch,
                           (double)fast, (double)slow);
        apply_yarn(r, base, factor, r->original_ctx, fast, slow);
        r->factor = yarn_attn > 0.0f ? yarn_attn
                    : attn > 0.0f    ? attn
                    : factor > 1.0f  ? 0.1f * logf(factor) + 1.0f
                                     : 1.0f;
    } else if (!none && !(type.n == 8 && memcmp(type.s, "longrope", 8) == 0)) {
        return ht_fail(ld->err, HT_EUNSUPPORTED, "%s is \"%.*s\"; known are none, linear, yarn, longrope", key,
                       type.n > 40 ? 40 : (int)type.n, type.s);
    }

    /* Tensors of factors: Llama 3 (one set), longrope (short and long). */
    const float *one, *lng, *shrt;
    uint32_t half = r->n_rot / 2;
    if ((st = ht_load_vector(ld, "rope_freqs.weight", 0, half, false, &one)) ||
        (st = ht_load_vector(ld, "rope_factors_long.weight", 0, half, false, &lng)) ||
        (st = ht_load_vector(ld, "rope_factors_short.weight", 0, half, false, &shrt)))
        return st;
    if (lng) {
        r->inv_freq_long = ht_model_alloc(ld->m, half, sizeof(float));
        if (!r->inv_freq_long)
            return ht_fail(ld->err, HT_ENOMEM, "rope tables");
        for (uint32_t i = 0; i < half; i++)
            r->inv_freq_long[i] = r->inv_freq[i] / lng[i];
        if (attn > 0.0f)
            r->factor = attn;
    }
    const float *div = shrt ? shrt : one;
    for (uint32_t i = 0; div && i < half; i++)
        r->inv_freq[i] /= div[i];
    return HT_OK;
}

ht_status ht_load_rope(ht_loader *ld, uint32_t n_rot, bool windowed, int *index)
{
    ht_model *m = ld->m;
    float base = 10000.0f, base_swa;
    bool bare = windowed && m->arch->rope_swa_plain;
    ht_status st;

    if ((st = ht_load_f32(ld, "rope.freq_base", &base)) != HT_OK)
        return st;
    base_swa = m->arch->swa_base > 0.0f ? m->arch->swa_base : base;
    if ((st = ht_load_f32(ld, "rope.freq_base_swa", &base_swa)) != HT_OK)
        return st;
    if (bare)
        base = base_swa;
    if (!(base > 0.0f))
        return ht_fail(ld->err, HT_EFORMAT, "%s.rope.freq_base is %g", ld->arch, (double)base);
    if (!m->ropes && !(m->ropes = ht_model_alloc(m, m->n_layer, sizeof *m->ropes)))
        return ht_fail(ld->err, HT_ENOMEM, "rope tables");

    ht_rope r = { .n_rot = n_rot, .factor = 1.0f, .original_ctx = m->n_ctx_train };
    if (!(r.inv_freq = plain(ld, n_rot, base)))
        return ht_fail(ld->err, HT_ENOMEM, "rope tables");
    if (!bare && (st = load_scaling(ld, &r, base)) != HT_OK)
        return st;
    for (uint32_t i = 0; i < m->n_ropes; i++) { /* the same frequencies: share */
        const ht_rope *o = &m->ropes[i];
        size_t bytes = n_rot / 2 * sizeof(float);
        if (o->n_rot == n_rot && o->factor == r.factor && !o->inv_freq_long == !r.inv_freq_long &&
            memcmp(o->inv_freq, r.inv_freq, bytes) == 0) {
            *index = (int)i;
            return HT_OK;
        }
    }
    for (uint32_t i = 0; i < n_rot / 2; i++) { /* positions times this must stay finite */
        float f = fmaxf(fabsf(r.inv_freq[i]), r.inv_freq_long ? fabsf(r.inv_freq_long[i]) : 0.0f);
        if (!(r.inv_freq[i] <= MAX_FREQ) || !(f <= MAX_FREQ))
            return ht_fail(ld->err, HT_EFORMAT,
                           "%s.rope.freq_base %g and its scaling give dimension %u no usable frequency (%g)", ld->arch,
                           (double)base, 2 * i, (double)f);
    }
    *index = (int)m->n_ropes;
    m->ropes[m->n_ropes++] = r;
    return HT_OK;
}
