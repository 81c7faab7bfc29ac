/* SPDX-License-Identifier: MIT
 *
 * Float functions and 8-bit activations on the device: the very code of the CPU (engine/base/vmath.h), for the same
 * bits. */
#ifndef HT_GPU_MATH_H
#define HT_GPU_MATH_H

#include "gpu/kernels/dialect.h"

#if defined(__CUDACC__)
#pragma push_macro("inline")
#define inline __device__ __forceinline__
#endif
#include "engine/base/vmath.h"
#if defined(__CUDACC__)
#pragma pop_macro("inline")
#endif

/* Largest |x| of 32 as bits: no number above infinity above all numbers. */
FN uint32_t ht_amax_bits(GLOBAL const float *x)
{
    uint32_t m = 0;
    for (uint32_t i = 0; i < 32; i++) {
        const uint32_t v = ht_f32_bits(x[i]) & 0x7fffffffu;
        m = v > m ? v : m;
    }
    return m;
}

/* One block of ht_q8. 127 / amax, not 1 / d: rounded once. Where no such quotient is, the integers are 0 and d keeps
 * what is no number, so that the fault is seen. */
FN void ht_quantise_block(GLOBAL const float *x, GLOBAL int8_t *q, GLOBAL float *d, GLOBAL int16_t *s)
{
    const uint32_t amax = ht_amax_bits(x);
    const float id = 127.0f / ht_f32_from_bits(amax);
    const uint32_t null = amax >= 0x7f800000u || !(id <= 3.402823466e+38f);
    int32_t sum[2] = { 0, 0 };

    *d = !null ? ht_f32_from_bits(amax) / 127.0f : amax >= 0x7f800000u ? ht_f32_from_bits(amax) : 0.0f;
    for (uint32_t i = 0; i < 32; i++) {
        const int8_t v = null ? 0 : (int8_t)(uint8_t)ht_f32_bits(x[i] * id + 12582912.0f);
        q[i] = v;
        sum[i / 16] += v;
    }
    s[0] = (int16_t)sum[0];
    s[1] = (int16_t)sum[1];
}

/* Numbers of ht_activation: gpu/exec.c asserts them. */
enum { ACT_SILU, ACT_GELU_TANH, ACT_GELU_ERF, ACT_RELU, ACT_RELU2, ACT_FATRELU, ACT_DRELU, ACT_OAI, ACT_SIGMOID, ACT_IDENTITY };

FN float ht_open_above(float x, float t) { return x <= t ? 0.0f : x; }

/* act(x) without what it is multiplied by */
FN float ht_act_alone(uint32_t act, float param, float x)
{
    if (act == ACT_SILU) return ht_siluf(x);
    if (act == ACT_GELU_TANH) return ht_gelu_tanhf(x);
    if (act == ACT_GELU_ERF) return ht_gelu_erff(x);
    if (act == ACT_RELU || act == ACT_DRELU) return ht_open_above(x, 0.0f);
    if (act == ACT_RELU2) {
        const float r = ht_open_above(x, 0.0f);
        return r * r;
    }
    if (act == ACT_FATRELU) return ht_open_above(x, param);
    if (act == ACT_OAI) {
        const float g = x > 7.0f ? 7.0f : x;
        return g / (1.0f + ht_expf(-1.702f * g));
    }
    return act == ACT_SIGMOID ? ht_sigmoidf(x) : x;
}

/* act(g) * u. What is shut is zero whatever u is. */
FN float ht_act_times(uint32_t act, float param, float g, float u)
{
    const float y = ht_act_alone(act, param, g);
    if (act == ACT_OAI) {
        float v = u > 7.0f ? 7.0f : u;
        v = v < -7.0f ? -7.0f : v;
        return y * (v + 1.0f);
    }
    if (act == ACT_DRELU)
        u = ht_open_above(u, 0.0f);
    if (act == ACT_RELU || act == ACT_RELU2 || act == ACT_FATRELU || act == ACT_DRELU)
        return y == 0.0f ? 0.0f : y * u;
    return y * u;
}

#endif
