/* SPDX-License-Identifier: MIT
 * cpu/topology.c on this machine, under a restricted binding, on described machines (SMT, NUMA, hybrid cores, through
 * hwloc's own HWLOC_SYNTHETIC and HWLOC_XMLFILE) and on made-up cgroup trees. Criterion runs each test in its own
 * process: bindings and environment stay inside. */
#include <criterion/criterion.h>
#include <hwloc.h>
#include <hwloc/cpukinds.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cpu/topology.h"

static void check_sane(const ht_topology *t)
{
    uint32_t first = 0;
    cr_assert(t->n_pus >= 1 && t->n_pus <= HT_TOPOLOGY_MAX_PUS);
    cr_assert(t->n_cores >= 1 && t->n_cores <= t->n_pus && t->n_perf_cores >= 1 && t->n_perf_cores <= t->n_cores);
    cr_assert(t->n_numa >= 1 && t->n_numa <= t->n_pus);
    for (uint32_t i = 0; i < t->n_pus; i++) {
        const ht_pu *p = &t->pus[i];
        cr_assert(p->core < t->n_cores && p->numa < t->n_numa && p->kind <= HT_CORE_EFFICIENCY);
        first += p->smt == 0;
        cr_assert(i == 0 || p->smt >= t->pus[i - 1].smt, "siblings come after all first ones");
        for (uint32_t j = 0; j < i; j++) {
            cr_assert(t->pus[j].os_index != p->os_index);
            cr_assert(t->pus[j].core != p->core || t->pus[j].smt != p->smt);
        }
    }
    cr_assert(first == t->n_cores);
}

Test(topology, this_machine)
{
    static ht_topology t;
    ht_error err;
    struct timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    cr_assert(ht_topology_read(&t, &err) == HT_OK, "%s", err.text);
    clock_gettime(CLOCK_MONOTONIC, &b);
    check_sane(&t);
    double ms = (double)(b.tv_sec - a.tv_sec) * 1e3 + (double)(b.tv_nsec - a.tv_nsec) * 1e-6;
    cr_expect(ms < 250.0, "a read took %.1f ms; it was written to take below 10 on an idle machine", ms);

    cpu_set_t set;
    cr_assert(sched_getaffinity(0, sizeof set, &set) == 0);
    cr_assert(t.n_pus <= (uint32_t)CPU_COUNT(&set));
    for (uint32_t i = 0; i < t.n_pus; i++) cr_assert(CPU_ISSET(t.pus[i].os_index, &set));
    ht_topology_deinit(&t);
    cr_assert(t.hwloc == NULL && t.n_pus == 0);
    ht_topology_deinit(&t);
}

/* What a process under taskset sees, and that workers go where they are sent. */
Test(topology, bound)
{
    static ht_topology all, t;
    ht_error err;
    cr_assert(ht_topology_read(&all, &err) == HT_OK);
    hwloc_topology_t h;
    cr_assert(hwloc_topology_init(&h) == 0 && hwloc_topology_load(h) == 0);
    uint32_t step = all.n_pus > 8 ? all.n_pus / 8 : 1;
    for (uint32_t i = 0; i < all.n_pus; i += step) {
        hwloc_obj_t pu = hwloc_get_pu_obj_by_os_index(h, all.pus[i].os_index);
        cr_assert(pu != NULL);
        if (hwloc_set_cpubind(h, pu->cpuset, HWLOC_CPUBIND_PROCESS) != 0) cr_skip("no binding of processes here");
        cr_assert(ht_topology_read(&t, &err) == HT_OK);
        cr_assert(t.n_pus == 1 && t.n_cores == 1 && t.n_perf_cores == 1 && t.n_numa == 1);
        cr_assert(t.pus[0].os_index == all.pus[i].os_index && t.pus[0].smt == 0 && t.pus[0].core == 0);
        cr_assert(ht_topology_pin(&t, 5) && sched_getcpu() == (int)all.pus[i].os_index);
        ht_topology_deinit(&t);
        cr_assert(ht_topology_pin(&all, i) && sched_getcpu() == (int)all.pus[i].os_index);
    }
    hwloc_topology_destroy(h);
    ht_topology_deinit(&all);
    cr_assert(!ht_topology_pin(&all, 0));
}

/* Two packages with a memory node each, four cores, two threads. */
Test(topology, numa_and_smt)
{
    static ht_topology t;
    ht_error err;
    setenv("HWLOC_SYNTHETIC", "package:2 [numa] l3:1(size=8388608) core:4 pu:2", 1);
    cr_assert(ht_topology_read(&t, &err) == HT_OK);
    check_sane(&t);
    cr_assert(t.n_pus == 16 && t.n_cores == 8 && t.n_perf_cores == 8 && t.n_numa == 2 && t.l3_bytes == 8388608);
    for (uint32_t i = 0; i < 16; i++) {
        cr_assert(t.pus[i].os_index == i % 8 * 2 + i / 8 && t.pus[i].smt == i / 8);
        cr_assert(t.pus[i].core == i % 8 && t.pus[i].numa == i % 8 / 4);
    }
    ht_topology_deinit(&t);
}

/* Memory nodes inside a package. */
Test(topology, numa_in_package)
{
    static ht_topology t;
    ht_error err;
    setenv("HWLOC_SYNTHETIC", "package:1 group:2 [numa] core:3 pu:1", 1);
    cr_assert(ht_topology_read(&t, &err) == HT_OK);
    cr_assert(t.n_numa == 2 && t.pus[2].numa == 0 && t.pus[3].numa == 1);
    ht_topology_deinit(&t);
}

/* A machine of `n` kinds: per kind its processors, hwloc's rank, a core type or a Linux capacity. */
typedef struct kind_row {
    unsigned first, last;
    int efficiency;
    const char *name, *value;
} kind_row;

static void describe_kinds(const char *synthetic, const kind_row *rows, int n)
{
    static char path[64];
    snprintf(path, sizeof path, "/tmp/hearth-topology-%ld.xml", (long)getpid());
    hwloc_topology_t h;
    cr_assert(hwloc_topology_init(&h) == 0 && hwloc_topology_set_synthetic(h, synthetic) == 0);
    cr_assert(hwloc_topology_load(h) == 0);
    for (int i = 0; i < n; i++) {
        hwloc_bitmap_t set = hwloc_bitmap_alloc();
        hwloc_bitmap_set_range(set, rows[i].first, (int)rows[i].last);
        struct hwloc_info_s info = { (char *)(uintptr_t)rows[i].name, (char *)(uintptr_t)rows[i].value };
        cr_assert(hwloc_cpukinds_register(h, set, rows[i].efficiency, 1, &info, 0) == 0);
        hwloc_bitmap_free(set);
    }
    cr_assert(hwloc_topology_export_xml(h, path, 0) == 0);
    hwloc_topology_destroy(h);
    setenv("HWLOC_XMLFILE", path, 1);
}

static void read_described(ht_topology *t)
{
    ht_error err;
    cr_assert(ht_topology_read(t, &err) == HT_OK);
    unlink(getenv("HWLOC_XMLFILE"));
    check_sane(t);
}

/* Four small cores numbered before four large ones. */
Test(topology, hybrid)
{
    static ht_topology t;
    static const kind_row rows[] = { { 0, 3, 0, "CoreType", "IntelAtom" }, { 4, 5, 1, "CoreType", "IntelCore" },
                                     { 6, 7, 2, "CoreType", "IntelCore" } };
    describe_kinds("package:1 core:8 pu:1", rows, 3);
    read_described(&t);
    static const uint32_t order[] = { 6, 7, 4, 5, 0, 1, 2, 3 }; /* favoured cores first */
    cr_assert(t.n_cores == 8 && t.n_perf_cores == 4);
    for (uint32_t i = 0; i < 8; i++)
        cr_assert(t.pus[i].os_index == order[i] && t.pus[i].kind == (i < 4 ? HT_CORE_PERFORMANCE : HT_CORE_EFFICIENCY));
    ht_topology_deinit(&t);
}

/* By Linux's capacity: half as fast and more is no efficiency core. */
Test(topology, capacity)
{
    static ht_topology t;
    static const kind_row rows[] = { { 0, 3, 0, "LinuxCapacity", "290" }, { 4, 6, 1, "LinuxCapacity", "871" },
                                     { 7, 7, 2, "LinuxCapacity", "1024" } };
    describe_kinds("package:1 core:8 pu:1", rows, 3);
    read_described(&t);
    static const uint32_t order[] = { 7, 4, 5, 6, 0, 1, 2, 3 };
    cr_assert(t.n_perf_cores == 4);
    for (uint32_t i = 0; i < 8; i++) cr_assert(t.pus[i].os_index == order[i]);
    ht_topology_deinit(&t);
}

static void put(const char *root, const char *path, const char *text)
{
    char full[256];
    snprintf(full, sizeof full, "%s/%s", root, path);
    for (char *p = full + strlen(root) + 1; (p = strchr(p, '/')); p++) {
        *p = '\0';
        mkdir(full, 0700);
        *p = '/';
    }
    FILE *f = fopen(full, "w");
    cr_assert(f != NULL && fputs(text, f) >= 0 && fclose(f) == 0);
}

Test(topology, quota)
{
    char root[] = "/tmp/hearth-quota-XXXXXX", proc[64];
    cr_assert(mkdtemp(root) != NULL);
    snprintf(proc, sizeof proc, "%s/proc", root);
    cr_assert(ht_topology_quota(proc, root) == 0, "no such file: no limit");

    put(root, "proc", "0::/a/b\n");
    put(root, "a/b/cpu.max", "max 100000\n");
    cr_assert(ht_topology_quota(proc, root) == 0);
    put(root, "a/cpu.max", "150000 100000\n");
    cr_assert(ht_topology_quota(proc, root) == 2, "the group above counts; 1.5 is rounded up");
    put(root, "a/b/cpu.max", "50000 100000\n");
    cr_assert(ht_topology_quota(proc, root) == 1, "the smaller one counts");
    put(root, "proc", "0::/gone/elsewhere\n");
    put(root, "cpu.max", "400000 100000\n");
    cr_assert(ht_topology_quota(proc, root) == 4, "a path that is not mounted here");

    put(root, "proc", "12:cpuset:/x\n4:cpuacct,cpu:/c\n1:name=systemd:/\n");
    put(root, "cpuacct,cpu/c/cpu.cfs_quota_us", "-1\n");
    put(root, "cpuacct,cpu/c/cpu.cfs_period_us", "100000\n");
    cr_assert(ht_topology_quota(proc, root) == 0);
    put(root, "cpuacct,cpu/c/cpu.cfs_quota_us", "300000\n");
    cr_assert(ht_topology_quota(proc, root) == 3);
    put(root, "proc", "4:cpuacct,cpu:/c\n0::/a\n");
    cr_assert(ht_topology_quota(proc, root) == 2, "both kinds mounted");
    put(root, "proc", "4:cpu,cpuacct:/c\n");
    put(root, "cpu/c/cpu.cfs_quota_us", "100000\n");
    put(root, "cpu/c/cpu.cfs_period_us", "100000\n");
    cr_assert(ht_topology_quota(proc, root) == 1, "the mount's short name");
    put(root, "proc", "4:cpuacct,cpu:/d\n0::/a\n");
    put(root, "cpuacct,cpu/c/cpu.cfs_quota_us", "nonsense\n");
    put(root, "a/cpu.max", "-5 0\n");
    put(root, "cpu.max", "\n");
    cr_assert(ht_topology_quota(proc, root) == 0);

    char rm[64];
    static const char *const files[] = { "proc", "cpu.max", "a/cpu.max", "a/b/cpu.max", "a/b", "a",
                                         "cpuacct,cpu/c/cpu.cfs_quota_us", "cpuacct,cpu/c/cpu.cfs_period_us",
                                         "cpu/c/cpu.cfs_quota_us", "cpu/c/cpu.cfs_period_us", "cpu/c", "cpu",
                                         "cpuacct,cpu/c", "cpuacct,cpu", "" };
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        snprintf(rm, sizeof rm, "%s/%s", root, files[i]);
        cr_expect(remove(rm) == 0);
    }
}
