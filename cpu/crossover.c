/* SPDX-License-Identifier: MIT
 *
 * Where skipping neurons stops to pay, by weight type: the one place for these figures.
 *
 * gather: speed of a dot product with a list of rows over that with all rows, both from memory (hearth-micro --only rows_q8
 * and dot_q8, k 4096, a tenth of the rows, one core of an EPYC with AVX2, other work beside it: Q4_0 0.51, Q4_K 0.53, Q5_K 0.56,
 * Q4_1, Q5_0, TQ2_0 0.61, Q6_K 0.65, Q5_1 0.67, MXFP4 0.69, IQ4_NL, IQ4_XS 0.71, Q8_0 0.75, Q2_K, Q3_K 0.94), rounded
 * down. The slower a kernel, the less it minds where rows lie. Denser lists are read faster, so this errs to the safe side.
 * neurons: an estimate from whole decodes of Q4_0, not yet measured by type. */
#include "cpu/cpu.h"

ht_crossover ht_cpu_crossover(ht_type type)
{
    const float neurons = 0.4f;

    switch (type) {
    case HT_Q4_1:
    case HT_Q5_0:
    case HT_Q5_1:
    case HT_Q5_K:
    case HT_TQ2_0: return (ht_crossover){ .gather = 0.55f, .neurons = neurons };
    case HT_Q8_0:
    case HT_Q6_K:
    case HT_IQ4_NL:
    case HT_IQ4_XS:
    case HT_MXFP4: return (ht_crossover){ .gather = 0.65f, .neurons = neurons };
    case HT_Q2_K:
    case HT_Q3_K: return (ht_crossover){ .gather = 0.7f, .neurons = neurons };
    default: return (ht_crossover){ .gather = 0.5f, .neurons = neurons }; /* Q4_0, Q4_K, what is not measured */
    }
}
