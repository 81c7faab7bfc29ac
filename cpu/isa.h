/* SPDX-License-Identifier: MIT
 * SIMD levels of the CPU executor. Threads: any; no state. */
#ifndef HT_CPU_ISA_H
#define HT_CPU_ISA_H

#include <stdbool.h>
#include <stdint.h>

/* X(level, name as --isa spells it, the levels before it whose instructions it has too). Slow to fast. x86: AVX512 is F, BW,
 * VL and DQ (Skylake-X on), AVX512VNNI adds VNNI and VBMI (Ice Lake, Zen 4 on), AVXVNNI is VNNI in AVX's encoding without
 * AVX-512 (Alder Lake on). ARM: DOTPROD is Armv8.2's sdot, I8MM Armv8.6's smmla. */
#define HT_ISA_LIST(X)                                                                                                 \
    X(REF, "ref", 0)                                                                                                   \
    X(AVX2, "avx2", HT_ISA_BIT(REF))                                                                                   \
    X(AVXVNNI, "avxvnni", HT_ISA_BIT(REF) | HT_ISA_BIT(AVX2))                                                          \
    X(AVX512, "avx512", HT_ISA_BIT(REF) | HT_ISA_BIT(AVX2))                                                            \
    X(AVX512VNNI, "avx512vnni", HT_ISA_BIT(REF) | HT_ISA_BIT(AVX2) | HT_ISA_BIT(AVX512))                               \
    X(NEON, "neon", HT_ISA_BIT(REF))                                                                                   \
    X(DOTPROD, "dotprod", HT_ISA_BIT(REF) | HT_ISA_BIT(NEON))                                                          \
    X(I8MM, "i8mm", HT_ISA_BIT(REF) | HT_ISA_BIT(NEON) | HT_ISA_BIT(DOTPROD))

typedef enum ht_isa {
#define X(id, name, has) HT_ISA_##id,
    HT_ISA_LIST(X)
#undef X
    HT_N_ISA
} ht_isa;
#define HT_ISA_BIT(id) (1u << HT_ISA_##id)

ht_isa ht_isa_best(void);                 /* the last of the levels that run here */
bool ht_isa_runs(ht_isa level);           /* whether this CPU and OS (or the emulation of a test build) can run it */
bool ht_isa_has(ht_isa level, ht_isa of); /* whether kernels of `of` run at `level`; true for itself */
const char *ht_isa_name(ht_isa isa);
int ht_isa_by_name(const char *name);     /* -1: no such level */

/* What an x86-64 says of itself: cpuid's leaf 1 (ecx), leaf 7 (eax: its last subleaf), leaf 7 subleaf 1, and XCR0, the register
 * state that the OS saves and restores. Zero where the CPU has no such leaf, or where the OS has not enabled xgetbv. */
typedef struct ht_cpuid {
    uint32_t ecx1, eax7, ebx7, ecx7, eax7_1, xcr0;
} ht_cpuid;

unsigned ht_isa_from_cpuid(const ht_cpuid *words); /* HT_ISA_BIT of every level that runs there */

/* The same for 64-bit ARM, whose kernel says what runs (AT_HWCAP, AT_HWCAP2). */
unsigned ht_isa_from_hwcap(uint64_t hwcap, uint64_t hwcap2);

#endif
