/* SPDX-License-Identifier: MIT
 * SIMD levels of the CPU executor. A level includes all before it. Threads: any; no state. */
#ifndef HT_CPU_ISA_H
#define HT_CPU_ISA_H

/* name as --isa spells it; slow to fast */
#define HT_ISA_LIST(X) X(REF, "ref") X(AVX2, "avx2") X(AVX512, "avx512") X(AVX512VNNI, "avx512vnni")

typedef enum ht_isa {
#define X(id, name) HT_ISA_##id,
    HT_ISA_LIST(X)
#undef X
    HT_N_ISA
} ht_isa;

ht_isa ht_isa_best(void);                 /* what this CPU and OS can run */
const char *ht_isa_name(ht_isa isa);
int ht_isa_by_name(const char *name);     /* -1: no such level */

#endif
