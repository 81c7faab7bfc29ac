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

Test(isa, best_is_a_level)
{
    const ht_isa best = ht_isa_best();
    cr_expect_lt((int)best, (int)HT_N_ISA);
    cr_log_info("best level: %s", ht_isa_name(best));
#if defined(__x86_64__)
    if (ht_isa_has(best, HT_ISA_AVX2))
        cr_expect(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"));
    if (ht_isa_has(best, HT_ISA_AVX512))
        cr_expect(__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq"));
    if (ht_isa_has(best, HT_ISA_AVX512VNNI))
        cr_expect(__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi"));
    cr_expect(!ht_isa_has(best, HT_ISA_NEON));
#else
    cr_expect(!ht_isa_has(best, HT_ISA_AVX2));
#endif
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
