/* SPDX-License-Identifier: MIT
 *
 * The fixed tree that joins the accumulators of a dot product (numeric contract, engine/base/exec.h), in plain C. The
 * SIMD variants write the same order with shuffles. Threads: any; no state. */
#ifndef HT_CPU_DOT_TREE_H
#define HT_CPU_DOT_TREE_H

/* a[i] + a[i+8], then + [i+4], + [i+2], + [i+1]. a is used up. */
static inline float ht_tree16(float a[16])
{
    for (unsigned half = 8; half; half /= 2)
        for (unsigned i = 0; i < half; i++)
            a[i] = a[i] + a[i + half];
    return a[0];
}

/* a[i] + a[i+16], then as above. */
static inline float ht_tree32(float a[32])
{
    for (unsigned i = 0; i < 16; i++)
        a[i] = a[i] + a[i + 16];
    return ht_tree16(a);
}

#endif
