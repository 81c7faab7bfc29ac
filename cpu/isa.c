/* SPDX-License-Identifier: MIT
 * SIMD levels: what this CPU and its operating system can run. Owner: no state. Threads: any. */
#include "cpu/isa.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "engine/base/os.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

/* Bits of the words of ht_cpuid. */
enum {
    ECX1_FMA = 1 << 12, ECX1_OSXSAVE = 1 << 27, ECX1_AVX = 1 << 28, ECX1_F16C = 1 << 29,
    EBX7_BMI1 = 1 << 3, EBX7_AVX2 = 1 << 5, EBX7_BMI2 = 1 << 8, EBX7_AVX512F = 1 << 16, EBX7_AVX512DQ = 1 << 17,
    EBX7_AVX512BW = 1 << 30,
    ECX7_AVX512VBMI = 1 << 1, ECX7_AVX512VNNI = 1 << 11,
    EAX7_1_AVXVNNI = 1 << 4,
    XCR0_YMM = 0x06, /* xmm, ymm */
    XCR0_ZMM = 0xe6  /* and masks, zmm0..15, zmm16..31 */
};
#define EBX7_AVX512VL (1u << 31) /* beyond an int */

static bool all_of(uint32_t word, uint32_t bits)
{
    return (word & bits) == bits;
}

unsigned ht_isa_from_cpuid(const ht_cpuid *w)
{
    unsigned set = HT_ISA_BIT(REF);

    /* Without its state saved an instruction faults, whatever cpuid says. */
    if (!all_of(w->ecx1, ECX1_OSXSAVE | ECX1_AVX | ECX1_FMA | ECX1_F16C) || !all_of(w->xcr0, XCR0_YMM) ||
        !all_of(w->ebx7, EBX7_AVX2 | EBX7_BMI1 | EBX7_BMI2))
        return set;
    set |= HT_ISA_BIT(AVX2);
    /* A subleaf that the CPU does not have reads as zero, or as the last one of an old CPU: leaf 7 tells how many. */
    if (w->eax7 >= 1 && all_of(w->eax7_1, EAX7_1_AVXVNNI))
        set |= HT_ISA_BIT(AVXVNNI);
    if (!all_of(w->xcr0, XCR0_ZMM) || !all_of(w->ebx7, EBX7_AVX512F | EBX7_AVX512DQ | EBX7_AVX512BW | EBX7_AVX512VL))
        return set;
    set |= HT_ISA_BIT(AVX512);
    if (all_of(w->ecx7, ECX7_AVX512VNNI | ECX7_AVX512VBMI))
        set |= HT_ISA_BIT(AVX512VNNI);
    return set;
}

unsigned ht_isa_from_hwcap(uint64_t hwcap, uint64_t hwcap2)
{
    enum { ASIMD = 1 << 1, ASIMDDP = 1 << 20, I8MM = 1 << 13 };
    unsigned set = HT_ISA_BIT(REF);

    if (!(hwcap & ASIMD))
        return set;
    set |= HT_ISA_BIT(NEON);
    if (!(hwcap & ASIMDDP))
        return set;
    set |= HT_ISA_BIT(DOTPROD);
    return hwcap2 & I8MM ? set | HT_ISA_BIT(I8MM) : set;
}

/* HT_ISA_BIT of every level that runs here. */
static unsigned levels(void)
{
#if defined(__x86_64__)
    ht_cpuid w = { 0 };
    uint32_t a, b, c, d;
    if (__get_cpuid(1, &a, &b, &w.ecx1, &d) && (w.ecx1 & ECX1_OSXSAVE))
        __asm__ volatile("xgetbv" : "=a"(w.xcr0), "=d"(d) : "c"(0));
    if (__get_cpuid_count(7, 0, &w.eax7, &w.ebx7, &w.ecx7, &d) && w.eax7 >= 1)
        __get_cpuid_count(7, 1, &w.eax7_1, &b, &c, &d);
    unsigned set = ht_isa_from_cpuid(&w);
#ifdef HEARTH_EMULATE /* a test build: the levels above AVX2 are compiled for AVX2 */
    if (set & HT_ISA_BIT(AVX2))
        set |= HT_ISA_BIT(AVXVNNI) | HT_ISA_BIT(AVX512) | HT_ISA_BIT(AVX512VNNI);
#endif
    return set;
#elif defined(__aarch64__)
    uint64_t hwcap, hwcap2;
    ht_os_hwcap(&hwcap, &hwcap2);
    return ht_isa_from_hwcap(hwcap, hwcap2);
#else
    return HT_ISA_BIT(REF);
#endif
}

ht_isa ht_isa_best(void)
{
    const unsigned set = levels();
    int best = HT_N_ISA - 1;
    while (!(set >> best & 1))
        best--;
    return (ht_isa)best;
}

bool ht_isa_runs(ht_isa level)
{
    return (unsigned)level < HT_N_ISA && (levels() >> level & 1);
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
