/* SPDX-License-Identifier: MIT
 *
 * The CPU executor's one public header: opening it, and what the engine may ask of the CPU.
 * Threads: see engine/base/exec.h. */
#ifndef HT_CPU_CPU_H
#define HT_CPU_CPU_H

#include "cpu/isa.h"
#include "cpu/topology.h"
#include "engine/base/exec.h"
#include "engine/base/types.h"

typedef struct ht_cpu_params {
    uint32_t threads;  /* 1 .. */
    ht_isa isa;        /* at most this level */
    uint32_t max_k;    /* longest row of any weight matrix, elements: sizes each thread's scratch */
    uint32_t max_head; /* largest head dimension of attention or recurrent state */
    size_t unpack_bytes; /* of packed files: HT_NEURONS_TILE rows of a segment of the widest down projection; else 0 */
    bool pin;          /* bind workers to the processors of `topology` in its order */
    const ht_topology *topology; /* borrowed as long as the executor; NULL: no pinning */
} ht_cpu_params;

ht_status ht_cpu_open(ht_exec **out, const ht_cpu_params *params, ht_error *err);
uint64_t ht_cpu_scratch_bytes(const ht_cpu_params *params); /* what open takes for the scratch of all threads */

/* Sequential read speed in bytes per second over a buffer of `bytes` with n threads, all but the caller's bound as a
 * model's are (else they would share whatever the caller is bound to), median of several passes. Takes
 * about 0.1 s per thread count; 0 where memory for it is refused. */
double ht_cpu_read_bandwidth(const ht_topology *topology, uint32_t threads, size_t bytes);

/* Where skipping neurons stops to pay: shares of active ones. Measured by type, see cpu/crossover.c. */
typedef struct ht_crossover {
    float gather;  /* of a run of rows: where more are open, all of them are scanned */
    float neurons; /* of a block: where more are active, the down projection is read from the file's rows */
} ht_crossover;

ht_crossover ht_cpu_crossover(ht_type type);

#endif
