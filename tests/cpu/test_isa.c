/* SPDX-License-Identifier: MIT
 * SIMD levels: names go both ways, and what is found can be run. */
#include <criterion/criterion.h>
#include <string.h>

#include "cpu/isa.h"

Test(isa, names_go_both_ways)
{
    for (int i = 0; i < HT_N_ISA; i++)
        cr_expect_eq(ht_isa_by_name(ht_isa_name((ht_isa)i)), i, "%s", ht_isa_name((ht_isa)i));
    cr_expect_eq(ht_isa_by_name("sse9"), -1);
    cr_expect_eq(ht_isa_by_name(""), -1);
    cr_expect_str_eq(ht_isa_name((ht_isa)HT_N_ISA), "unknown");
}

Test(isa, best_is_the_last_that_runs)
{
    const ht_isa best = ht_isa_best();
    cr_log_info("best level: %s", ht_isa_name(best));
    cr_expect(ht_isa_runs(best) && ht_isa_runs(HT_ISA_REF) && !ht_isa_runs(HT_N_ISA));
    for (int i = 0; i < HT_N_ISA; i++) {
        cr_expect(i <= (int)best || !ht_isa_runs((ht_isa)i), "%s", ht_isa_name((ht_isa)i));
        for (int j = 0; j < i; j++) /* what a level builds on runs where it does */
            cr_expect(!ht_isa_runs((ht_isa)i) || !ht_isa_has((ht_isa)i, (ht_isa)j) || ht_isa_runs((ht_isa)j), "%s without %s",
                      ht_isa_name((ht_isa)i), ht_isa_name((ht_isa)j));
    }
#if defined(__x86_64__)
    cr_expect(!ht_isa_runs(HT_ISA_NEON));
    if (ht_isa_runs(HT_ISA_AVX2))
        cr_expect(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"));
#ifdef HEARTH_EMULATE
    for (ht_isa isa = HT_ISA_AVXVNNI; isa <= HT_ISA_AVX512VNNI; isa++)
        cr_expect_eq(ht_isa_runs(isa), ht_isa_runs(HT_ISA_AVX2), "%s", ht_isa_name(isa));
#else
    if (ht_isa_runs(HT_ISA_AVX512))
        cr_expect(__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq"));
    if (ht_isa_runs(HT_ISA_AVX512VNNI))
        cr_expect(__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi"));
#endif
#else
    cr_expect(!ht_isa_runs(HT_ISA_AVX2));
#if defined(__aarch64__)
    cr_expect(ht_isa_runs(HT_ISA_NEON)); /* the baseline of every build */
#endif
#endif
}

/* The words that these processors report; bits that no level asks for differ from model to model. XCR0 as Linux sets it. */
Test(isa, from_the_words_of_known_processors)
{
    enum { R = HT_ISA_BIT(REF), A2 = R | HT_ISA_BIT(AVX2), V = HT_ISA_BIT(AVXVNNI), A5 = HT_ISA_BIT(AVX512),
           A5V = A5 | HT_ISA_BIT(AVX512VNNI) };
    static const struct {
        const char *name;
        ht_cpuid words; /* ecx1, eax7, ebx7, ecx7, eax7_1, xcr0 */
        unsigned set;
    } known[] = {
        { "nothing at all", { 0 }, R },
        { "Sandy Bridge", { 0x1fbae3ff, 0, 0, 0, 0, 0x7 }, R },
        { "Haswell", { 0x7ffafbff, 0, 0x000027ab, 0, 0, 0x7 }, A2 },
        { "Skylake-X", { 0x7ffefbff, 0, 0xd39ffffb, 0x00000008, 0, 0x2ff }, A2 | A5 },
        { "Cascade Lake: VNNI, no VBMI", { 0x7ffefbff, 0, 0xd39ffffb, 0x00000808, 0, 0x2ff }, A2 | A5 },
        { "Ice Lake", { 0x7ffafbff, 0, 0xf2bf27ef, 0x40405f4e, 0, 0x2e7 }, A2 | A5V },
        { "Alder Lake", { 0x7ffafbff, 1, 0x239ca7eb, 0x98c007ac, 0x00400810, 0x207 }, A2 | V },
        { "Sapphire Rapids", { 0x7ffefbff, 1, 0xf3bfbffb, 0xfb417ffe, 0x00001c30, 0x602e7 }, A2 | V | A5V },
        { "Zen 2", { 0x7ed8320b, 0, 0x219c91a9, 0x00400004, 0, 0x207 }, A2 },
        { "Zen 3", { 0x7ef8320b, 0, 0x219c97a9, 0x0040068c, 0, 0x207 }, A2 },
        { "Zen 4", { 0x7ef8320b, 1, 0xf1bf97a9, 0x00405fce, 0x00000020, 0x2e7 }, A2 | A5V },
        { "Zen 5", { 0x7ef8320b, 1, 0xf1bf97a9, 0x08405fce, 0x00000030, 0x2e7 }, A2 | V | A5V },
        /* Machines that give the state of registers only in part, or say nothing of it. */
        { "Zen 5, no zmm state", { 0x7ef8320b, 1, 0xf1bf97a9, 0x08405fce, 0x00000030, 0x7 }, A2 | V },
        { "Ice Lake, no state of zmm16..31", { 0x7ffafbff, 0, 0xf2bf27ef, 0x40405f4e, 0, 0x67 }, A2 },
        { "Ice Lake, no ymm state", { 0x7ffafbff, 0, 0xf2bf27ef, 0x40405f4e, 0, 0x3 }, R },
        { "Ice Lake, no xgetbv", { 0x77fafbff, 0, 0xf2bf27ef, 0x40405f4e, 0, 0 }, R },
        { "Haswell without FMA", { 0x7ffaebff, 0, 0x000027ab, 0, 0, 0x7 }, R },
        /* An old CPU answers a subleaf beyond its last with what it likes. */
        { "Haswell, subleaf 1 is not its own", { 0x7ffafbff, 0, 0x000027ab, 0, 0xffffffff, 0x7 }, A2 },
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        cr_expect_eq(ht_isa_from_cpuid(&known[i].words), known[i].set, "%s: %#x, not %#x", known[i].name,
                     ht_isa_from_cpuid(&known[i].words), known[i].set);
}

/* AT_HWCAP and AT_HWCAP2 put together from the features that these processors have. */
Test(isa, from_the_hwcaps_of_arm_processors)
{
    enum { R = HT_ISA_BIT(REF), N = R | HT_ISA_BIT(NEON), D = N | HT_ISA_BIT(DOTPROD), I = D | HT_ISA_BIT(I8MM) };
    static const struct {
        const char *name;
        uint64_t hwcap, hwcap2;
        unsigned set;
    } known[] = {
        { "nothing at all", 0, 0, R },
        { "Cortex-A72", 0xff, 0, N },
        { "Neoverse N1", 0x10119fff, 0, D },
        { "Neoverse V1", 0x1073ffff, 0x1e001, I },
        { "i8mm without dotprod", 0xff, 1 << 13, N },
        { "every bit but asimd", ~(uint64_t)2, ~(uint64_t)0, R },
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        cr_expect_eq(ht_isa_from_hwcap(known[i].hwcap, known[i].hwcap2), known[i].set, "%s", known[i].name);
}

Test(isa, levels_include_what_they_build_on)
{
    for (int i = 0; i < HT_N_ISA; i++) {
        cr_expect(ht_isa_has((ht_isa)i, (ht_isa)i) && ht_isa_has((ht_isa)i, HT_ISA_REF));
        for (int j = i + 1; j < HT_N_ISA; j++)
            cr_expect(!ht_isa_has((ht_isa)i, (ht_isa)j), "%s has %s", ht_isa_name((ht_isa)i), ht_isa_name((ht_isa)j));
    }
    /* The line is no ladder: Skylake-X has no AVX-VNNI, Zen 4 neither. */
    cr_expect(!ht_isa_has(HT_ISA_AVX512, HT_ISA_AVXVNNI) && !ht_isa_has(HT_ISA_AVX512VNNI, HT_ISA_AVXVNNI));
    cr_expect(ht_isa_has(HT_ISA_AVX512VNNI, HT_ISA_AVX2) && ht_isa_has(HT_ISA_I8MM, HT_ISA_NEON));
    cr_expect(!ht_isa_has(HT_ISA_I8MM, HT_ISA_AVX2) && !ht_isa_has(HT_ISA_REF, HT_N_ISA));
}
