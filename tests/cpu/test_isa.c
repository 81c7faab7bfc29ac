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
    if (best >= HT_ISA_AVX2)
        cr_expect(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"));
    if (best >= HT_ISA_AVX512)
        cr_expect(__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vnni") &&
                  __builtin_cpu_supports("avx512vbmi"));
#else
    cr_expect_eq((int)best, (int)HT_ISA_REF);
#endif
}
