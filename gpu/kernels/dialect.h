/* SPDX-License-Identifier: MIT
 *
 * The dialect in which kernels are written once: these macros map it to CUDA C, OpenCL C 1.2 and plain C. docs/gpu.md
 * teaches it; in short:
 *
 *   KERNEL(name, threads, args_t)    begins a kernel of blocks of that many threads; `a` is its argument struct, by value
 *   KERNEL_END                       ends it
 *   PTR(i, T, x);                    pointer argument i as `GLOBAL T *x`; may be NULL
 *   PTR_RO(i, T, x);                 the same of what nobody writes while the kernel runs
 *   SHARED(T, x, n);                 an array of the block
 *   PRIVATE(T, x); PRIVATE_N(T, x, n);  a variable, an array of each thread that outlives a phase: MY(x), MY(x)[i]
 *   EACH { ... }                     a phase: what every thread does; TID is its number. `continue` ends a thread's part
 *   SYNC                             between two phases of which the second reads what the first wrote, shared or global
 *   TREE16(x, i, tmp), TREE32        between phases: MY(x)[i] becomes the sum over each 16 (32) threads, in the order of
 *                                    the numeric contract (engine/base/exec.h); tmp: TREE_TMP(tmp);
 *   BLOCK_X, BLOCK_Y, BLOCK_Z        number of the block
 *
 * What stands outside of phases is the same for all threads of a block: uniform variables, loops and conditions around
 * phases. In plain C a phase is a loop over the threads, forwards or backwards (a missing SYNC shows as a difference
 * between the two), so that only MY() keeps a thread's values from phase to phase. */
#ifndef HT_GPU_DIALECT_H
#define HT_GPU_DIALECT_H

#if defined(__OPENCL_VERSION__) /* ---- OpenCL C ------------------------------------------------------------------- */

#pragma OPENCL FP_CONTRACT OFF
typedef char int8_t;
typedef uchar uint8_t;
typedef short int16_t;
typedef ushort uint16_t;
typedef int int32_t;
typedef uint uint32_t;
typedef ulong uint64_t;
#define fmaf fma
#define sqrtf sqrt
#define fabsf fabs
#define ceilf ceil
#define rintf rint
#define GLOBAL __global
#define FN static inline
#define UNROLL
#define KERNEL(name, nt, args_t)                                                                                       \
    __kernel __attribute__((reqd_work_group_size(nt, 1, 1))) void ht_k_##name(                                        \
        __global uchar *p0, __global uchar *p1, __global uchar *p2, __global uchar *p3, __global uchar *p4,            \
        __global uchar *p5, __global uchar *p6, __global uchar *p7, __global uchar *p8, __global uchar *p9,            \
        const ulong16 offset, const args_t a)                                                                          \
    {                                                                                                                  \
        enum { NT = nt };
#define KERNEL_END }
#define PTR(i, T, name) __global T *name = (__global T *)(p##i + offset.s##i)
#define PTR_RO(i, T, name) __global const T *name = (__global const T *)(p##i + offset.s##i)
#define SHARED(T, name, n) __local T name[n]
#define TREE_TMP(name) __local float name[NT]
#define PRIVATE(T, name) T name
#define PRIVATE_N(T, name, n) T name[n]
#define MY(name) name
#define EACH for (int each_once = 1; each_once; each_once = 0)
#define SYNC barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);
#define TID ((uint32_t)get_local_id(0))
#define BLOCK_X ((uint32_t)get_group_id(0))
#define BLOCK_Y ((uint32_t)get_group_id(1))
#define BLOCK_Z ((uint32_t)get_group_id(2))
#define TREE16(v, i, tmp)                                                                                              \
    do {                                                                                                               \
        tmp[TID] = v[i];                                                                                               \
        barrier(CLK_LOCAL_MEM_FENCE);                                                                                  \
        v[i] = ht_tree16_of(tmp + TID / 16 * 16);                                                                      \
        barrier(CLK_LOCAL_MEM_FENCE);                                                                                  \
    } while (0)
#define TREE32(v, i, tmp)                                                                                              \
    do {                                                                                                               \
        tmp[TID] = v[i];                                                                                               \
        barrier(CLK_LOCAL_MEM_FENCE);                                                                                  \
        v[i] = ht_tree32_of(tmp + TID / 32 * 32);                                                                      \
        barrier(CLK_LOCAL_MEM_FENCE);                                                                                  \
    } while (0)
#define SHARED_ARG __local
#define ADD_COUNT(p, n) atomic_add((p), (n))

FN float half_at(__global const uchar *p) { return vload_half(0, (__global const half *)p); }
FN void half_put(__global uchar *p, float f) { vstore_half_rte(f, 0, (__global half *)p); }

FN int dp4a(uint a, uint b, int c)
{
    const int4 m = convert_int4(as_char4(a)) * convert_int4(as_char4(b));
    return c + m.x + m.y + m.z + m.w;
}

#elif defined(__CUDACC__) /* ---- CUDA C --------------------------------------------------------------------------- */

#include <math.h>
#include <stdint.h>
#define GLOBAL
#define FN static __device__ __forceinline__
#define UNROLL _Pragma("unroll")
#define KERNEL(name, nt, args_t)                                                                                       \
    extern "C" __global__ void __launch_bounds__(nt)                                                                   \
        ht_k_##name(void *p0, void *p1, void *p2, void *p3, void *p4, void *p5, void *p6, void *p7, void *p8, void *p9,       \
             const args_t a)                                                                                           \
    {                                                                                                                  \
        enum { NT = nt };
#define KERNEL_END }
#define PTR(i, T, name) T *name = (T *)p##i
#define PTR_RO(i, T, name) const T *__restrict__ name = (const T *)p##i
#define SHARED(T, name, n) __shared__ T name[n]
#define TREE_TMP(name)
#define PRIVATE(T, name) T name
#define PRIVATE_N(T, name, n) T name[n]
#define MY(name) name
#define EACH for (int each_once = 1; each_once; each_once = 0)
#define SYNC __syncthreads();
#define TID ((uint32_t)threadIdx.x)
#define BLOCK_X ((uint32_t)blockIdx.x)
#define BLOCK_Y ((uint32_t)blockIdx.y)
#define BLOCK_Z ((uint32_t)blockIdx.z)
#define TREE16(v, i, tmp)                                                                                              \
    do {                                                                                                               \
        v[i] += __shfl_xor_sync(0xffffffffu, v[i], 8);                                                                 \
        v[i] += __shfl_xor_sync(0xffffffffu, v[i], 4);                                                                 \
        v[i] += __shfl_xor_sync(0xffffffffu, v[i], 2);                                                                 \
        v[i] += __shfl_xor_sync(0xffffffffu, v[i], 1);                                                                 \
    } while (0)
#define TREE32(v, i, tmp)                                                                                              \
    do {                                                                                                               \
        v[i] += __shfl_xor_sync(0xffffffffu, v[i], 16);                                                                \
        TREE16(v, i, tmp);                                                                                             \
    } while (0)
#define SHARED_ARG
#define ADD_COUNT(p, n) atomicAdd((p), (n))

FN float half_at(const uint8_t *p)
{
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(*(const uint16_t *)p));
    return f;
}

FN void half_put(uint8_t *p, float f)
{
    uint16_t h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f));
    *(uint16_t *)p = h;
}

FN int32_t dp4a(uint32_t a, uint32_t b, int32_t c) { return __dp4a((int32_t)a, (int32_t)b, c); }

#else /* ---- plain C ----------------------------------------------------------------------------------------------- */

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "engine/base/types.h"
#include "gpu/plain/plain.h"
#define GLOBAL
#define FN static inline
#define UNROLL
#define KERNEL(name, nt, args_t)                                                                                       \
    void ht_plain_##name(const ht_plain_block *block, void *const *ptr, const void *args)                              \
    {                                                                                                                  \
        enum { NT = nt };                                                                                              \
        const args_t a = *(const args_t *)args;
#define KERNEL_END }
#define PTR(i, T, name) T *name = (T *)ptr[i]
#define PTR_RO(i, T, name) const T *name = (const T *)ptr[i]
/* What nobody wrote is no number. */
#define SHARED(T, name, n)                                                                                             \
    T name[n];                                                                                                         \
    memset(name, 0xff, sizeof name)
#define TREE_TMP(name) float name[NT]
#define PRIVATE(T, name)                                                                                               \
    T name[NT];                                                                                                        \
    memset(name, 0xff, sizeof name)
#define PRIVATE_N(T, name, n)                                                                                          \
    T name[NT][n];                                                                                                     \
    memset(name, 0xff, sizeof name)
#define MY(name) name[TID]
#define EACH                                                                                                           \
    for (uint32_t each_i = 0; each_i < NT; each_i++)                                                                   \
        for (uint32_t TID = block->backwards ? NT - 1 - each_i : each_i, each_once = 1; each_once; each_once = 0)
#define SYNC
#define BLOCK_X (block->x)
#define BLOCK_Y (block->y)
#define BLOCK_Z (block->z)
#define TREE16(v, i, tmp)                                                                                              \
    do {                                                                                                               \
        EACH tmp[TID] = v[TID][i];                                                                                     \
        EACH v[TID][i] = ht_tree16_of(tmp + TID / 16 * 16);                                                            \
    } while (0)
#define TREE32(v, i, tmp)                                                                                              \
    do {                                                                                                               \
        EACH tmp[TID] = v[TID][i];                                                                                     \
        EACH v[TID][i] = ht_tree32_of(tmp + TID / 32 * 32);                                                            \
    } while (0)
#define SHARED_ARG
#define ADD_COUNT(p, n) (*(p) += (n))

FN float half_at(const uint8_t *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return ht_f16_to_f32(h);
}

FN void half_put(uint8_t *p, float f)
{
    const uint16_t h = ht_f32_to_f16(f);
    memcpy(p, &h, sizeof h);
}

FN int32_t dp4a(uint32_t a, uint32_t b, int32_t c)
{
    for (int i = 0; i < 32; i += 8)
        c += (int8_t)(a >> i & 255) * (int8_t)(b >> i & 255);
    return c;
}

#endif

/* a[i] + a[i+8], + [i+4], + [i+2], + [i+1] */
FN float ht_tree16_of(SHARED_ARG const float *a)
{
    const float b0 = (a[0] + a[8]) + (a[4] + a[12]), b1 = (a[1] + a[9]) + (a[5] + a[13]);
    const float b2 = (a[2] + a[10]) + (a[6] + a[14]), b3 = (a[3] + a[11]) + (a[7] + a[15]);
    return (b0 + b2) + (b1 + b3);
}

FN float ht_tree32_of(SHARED_ARG const float *a)
{
    float b[16];
    for (int i = 0; i < 16; i++)
        b[i] = a[i] + a[i + 16];
    const float b0 = (b[0] + b[8]) + (b[4] + b[12]), b1 = (b[1] + b[9]) + (b[5] + b[13]);
    const float b2 = (b[2] + b[10]) + (b[6] + b[14]), b3 = (b[3] + b[11]) + (b[7] + b[15]);
    return (b0 + b2) + (b1 + b3);
}

#endif
