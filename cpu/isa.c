/* SPDX-License-Identifier: MIT
 * SIMD levels: what this CPU and its operating system can run. Owner: no state. Threads: any. */
#include "cpu/isa.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>

/* Register state that the OS saves and restores (XCR0). Without it the instructions fault, whatever cpuid says. */
static uint32_t saved_state(void)
{
    uint32_t lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return lo;
}

static ht_isa best_x86(void)
{
    enum { XMM_YMM = 0x06, XMM_YMM_ZMM = 0xe6, AVX_VNNI = 1 << 4 };
    uint32_t a, b, c, d, n7, b7, c7;

    if (!__get_cpuid(1, &a, &b, &c, &d))
        return HT_ISA_REF;
    const uint32_t want1 = bit_OSXSAVE | bit_AVX | bit_FMA | bit_F16C;
    if ((c & want1) != want1)
        return HT_ISA_REF;
    uint32_t state = saved_state();
    if ((state & XMM_YMM) != XMM_YMM)
        return HT_ISA_REF;
    if (!__get_cpuid_count(7, 0, &n7, &b7, &c7, &d))
        return HT_ISA_REF;
    const uint32_t want7 = bit_AVX2 | bit_BMI | bit_BMI2;
    if ((b7 & want7) != want7)
        return HT_ISA_REF;

    const uint32_t want512 = bit_AVX512F | bit_AVX512BW | bit_AVX512VL | bit_AVX512DQ;
    const uint32_t want512c = bit_AVX512VNNI | bit_AVX512VBMI;
    if ((state & XMM_YMM_ZMM) == XMM_YMM_ZMM && (b7 & want512) == want512)
        return (c7 & want512c) == want512c ? HT_ISA_AVX512VNNI : HT_ISA_AVX512;
    /* A subleaf that the CPU does not have reads as zero, or as the last one of an old CPU: leaf 7 tells how many. */
    if (n7 >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & AVX_VNNI))
        return HT_ISA_AVXVNNI;
    return HT_ISA_AVX2;
}
#endif

ht_isa ht_isa_best(void)
{
#if defined(__x86_64__)
    return best_x86();
#else
    return HT_ISA_REF;
#endif
}

static const char *const isa_names[HT_N_ISA] = {
#define X(id, name, has) name,
    HT_ISA_LIST(X)
#undef X
};

static const unsigned isa_sets[HT_N_ISA] = {
#define X(id, name, has) HT_ISA_BIT(id) | (has),
    HT_ISA_LIST(X)
#undef X
};

bool ht_isa_has(ht_isa level, ht_isa of)
{
    return (unsigned)level < HT_N_ISA && (unsigned)of < HT_N_ISA && (isa_sets[level] >> of & 1);
}

const char *ht_isa_name(ht_isa isa)
{
    return (unsigned)isa < HT_N_ISA ? isa_names[isa] : "unknown";
}

int ht_isa_by_name(const char *name)
{
    for (int i = 0; i < HT_N_ISA; i++)
        if (!strcmp(name, isa_names[i]))
            return i;
    return -1;
}
