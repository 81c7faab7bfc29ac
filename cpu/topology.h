/* SPDX-License-Identifier: MIT
 *
 * The processors this process may use, in the order threads should take them, and their caches. Read once at start
 * through hwloc; only processors of the process's binding (taskset, cpuset) are counted, never more.
 *
 * Owner: the caller owns the struct; ht_topology_read fills it, ht_topology_deinit frees what it holds
 * (zero-initialised structs too). Threads: read-only after ht_topology_read, any thread may then use and pin by it. */
#ifndef HT_CPU_TOPOLOGY_H
#define HT_CPU_TOPOLOGY_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/base/status.h"

enum { HT_TOPOLOGY_MAX_PUS = 1024 };

typedef enum ht_core_kind { HT_CORE_PERFORMANCE, HT_CORE_EFFICIENCY } ht_core_kind;

/* One hardware thread. */
typedef struct ht_pu {
    uint32_t os_index; /* as the OS and taskset number it */
    uint32_t core;     /* 0 .. n_cores-1 */
    uint16_t numa;     /* 0 .. n_numa-1 */
    uint8_t kind;      /* ht_core_kind */
    uint8_t smt;       /* 0: first of its core, 1: its first sibling, ... */
} ht_pu;

typedef struct ht_topology {
    /* [n_pus] in the order threads take them: first one per core, performance cores before efficiency cores, node by
     * node; then their siblings alike. */
    ht_pu pus[HT_TOPOLOGY_MAX_PUS];
    uint32_t n_pus;        /* hardware threads, at least 1 */
    uint32_t n_cores;      /* physical cores with at least one of them */
    uint32_t n_perf_cores; /* of these, performance cores; n_cores where all are alike */
    uint32_t n_packages;   /* sockets */
    uint32_t n_numa;       /* memory nodes that they belong to */
    uint32_t quota;        /* a cgroup's limit in whole processors, rounded up; 0: none. It does not say which ones */
    uint64_t l1d_bytes, l2_bytes, l3_bytes; /* of the first processor, as it shares them with others; 0: not known */
    char model[128];       /* "" where the OS does not tell */
    void *hwloc;           /* for pinning */
} ht_topology;

/* Fails: HT_ENOMEM; HT_EUNSUPPORTED where the OS shows no processor. */
ht_status ht_topology_read(ht_topology *t, ht_error *err);
void ht_topology_deinit(ht_topology *t);

/* Binds the calling thread to pus[thread % n_pus]. False where the OS refuses; the thread then runs anywhere. */
bool ht_topology_pin(const ht_topology *t, uint32_t thread);
/* Lets the calling thread run on all of pus[] again. */
bool ht_topology_unpin(const ht_topology *t);

/* The quota alone. proc_cgroup: the text of /proc/self/cgroup's file, cgroup_root: where cgroups are mounted. */
uint32_t ht_topology_quota(const char *proc_cgroup, const char *cgroup_root);

#endif
