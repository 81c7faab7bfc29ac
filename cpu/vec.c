/* SPDX-License-Identifier: MIT
 * Choice of the vec kernels (cpu/vec_body.h, compiled once per SIMD level). Threads: any; no state. */
#include "cpu/vec.h"

void ht_vec_kernels_init(ht_vec_kernels *v, ht_isa isa)
{
    *v = ht_vec_kernels__ref;
#if defined(__x86_64__)
    if (ht_isa_has(isa, HT_ISA_AVX2)) *v = ht_vec_kernels__avx2;
    if (ht_isa_has(isa, HT_ISA_AVX512)) *v = ht_vec_kernels__avx512;
#elif defined(__aarch64__)
    if (ht_isa_has(isa, HT_ISA_NEON)) *v = ht_vec_kernels__neon;
#else
    (void)isa;
#endif
}
