/* SPDX-License-Identifier: MIT
 *
 * Where skipping neurons stops to pay, by weight type: the one place for these figures.
 *
 * gather: speed of a dot product with a list of rows over that with all rows, both from memory (hearth-micro --only rows_q8
 * and dot_q8, k 4096, a tenth of the rows, one core of an EPYC with AVX2, other work beside it: Q4_0 0.51, Q4_K 0.53, Q5_K 0.56,
 * Q4_1, Q5_0, TQ2_0 0.61, Q6_K 0.65, Q5_1 0.67, MXFP4 0.69, IQ4_NL, IQ4_XS 0.71, Q8_0 0.75, Q2_K, Q3_K 0.94), rounded
 * down. The slower a kernel, the less it minds where rows lie. Denser lists are read faster, so this errs to the safe side.
 * neurons: time of the down phase neuron-major over that from the file's rows, in decodes of a relu-7b layer at 5 to 100 %
 * (one thread of the same machine, one run): at 40, 60, 80 % Q4_0 0.68 0.81 1.20, Q8_0 0.51 0.78 1.21, Q4_K 0.70 0.93 1.31,
 * Q6_K 0.76 1.33 2.63, F16 0.43 0.50 0.80, rounded down; for other types 0.4. */
#include "cpu/cpu.h"

static float gather_below(ht_type type)
{
    switch (type) {
    case HT_Q4_1:
    case HT_Q5_0:
    case HT_Q5_1:
    case HT_Q5_K:
    case HT_TQ2_0: return 0.55f;
    case HT_Q8_0:
    case HT_Q6_K:
    case HT_IQ4_NL:
    case HT_IQ4_XS:
    case HT_MXFP4: return 0.65f;
    case HT_Q2_K:
    case HT_Q3_K: return 0.7f;
    default: return 0.5f; /* Q4_0, Q4_K, what is not measured */
    }
}

static float neurons_below(ht_type type)
{
    switch (type) {
    case HT_Q4_0:
    case HT_Q8_0: return 0.6f;
    case HT_Q4_K: return 0.5f;
    case HT_F16: return 0.75f;
    default: return 0.4f;
    }
}

ht_crossover ht_cpu_crossover(ht_type type)
{
    return (ht_crossover){ .gather = gather_below(type), .neurons = neurons_below(type) };
}
