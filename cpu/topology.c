/* SPDX-License-Identifier: MIT
 * Processors, caches and limits through hwloc (see topology.h). I/O devices, distances and everything else that takes
 * long to discover is left out: a read takes a few milliseconds. Threads: no state. */
#include "cpu/topology.h"

#include <hwloc.h>
#include <hwloc/cpukinds.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_KINDS = 16, LINE_BYTES = 4096 };

/* What one hwloc CPU kind means here. */
typedef struct cpu_kind {
    const char *core_type; /* "IntelCore", "IntelAtom", NULL: not told */
    unsigned long capacity; /* Linux's relative speed, 1024 = fastest; 0: not told */
    int efficiency;        /* hwloc's rank: the larger, the faster */
} cpu_kind;

typedef struct sort_pu {
    ht_pu pu;
    int efficiency;
    unsigned logical;
} sort_pu;

/* ---- cgroup quota ---- */

/* The smaller of two limits, 0 being none. */
static uint32_t quota_min(uint32_t a, uint32_t b)
{
    if (a == 0 || b == 0) return a ? a : b;
    return a < b ? a : b;
}

static uint32_t quota_of(long long quota, long long period)
{
    if (quota <= 0 || period <= 0) return 0;
    long long n = quota / period + (quota % period != 0);
    return n > HT_TOPOLOGY_MAX_PUS ? HT_TOPOLOGY_MAX_PUS : (uint32_t)n;
}

/* The first line of dir/name, false where there is none. */
static bool line_read(const char *dir, const char *name, char *line, size_t line_bytes)
{
    char path[LINE_BYTES + 64];
    if (snprintf(path, sizeof path, "%s/%s", dir, name) >= (int)sizeof path) return false;
    FILE *f = fopen(path, "re");
    if (!f) return false;
    bool ok = fgets(line, (int)line_bytes, f) != NULL;
    fclose(f);
    return ok;
}

/* Limits of one group: cgroup v2 has "quota period" or "max period" in cpu.max, v1 two files (-1: no limit). */
static uint32_t quota_of_dir(const char *dir)
{
    char line[128];
    long long quota, period;
    if (line_read(dir, "cpu.max", line, sizeof line) && sscanf(line, "%lld %lld", &quota, &period) == 2)
        return quota_of(quota, period);
    if (line_read(dir, "cpu.cfs_quota_us", line, sizeof line) && sscanf(line, "%lld", &quota) == 1 &&
        line_read(dir, "cpu.cfs_period_us", line, sizeof line) && sscanf(line, "%lld", &period) == 1)
        return quota_of(quota, period);
    return 0;
}

/* A group's limit and those of the groups above it, up to `root`. In a container the path may name a group that is not
 * visible under the mount: then only the groups that are there count. */
static uint32_t quota_of_path(const char *root, const char *path)
{
    char dir[LINE_BYTES];
    int n = snprintf(dir, sizeof dir, "%s%s", root, path);
    if (n < 0 || n >= (int)sizeof dir) return quota_of_dir(root);
    size_t root_len = strlen(root);
    uint32_t quota = 0;
    for (;;) {
        quota = quota_min(quota, quota_of_dir(dir));
        char *slash = strrchr(dir, '/');
        if (!slash || (size_t)(slash - dir) < root_len) return quota;
        *slash = '\0';
    }
}

/* True where the comma-separated list holds the word. */
static bool list_has(const char *list, const char *word)
{
    size_t n = strlen(word);
    for (const char *p = list; *p; p += strcspn(p, ",")) {
        p += *p == ',';
        if (strcspn(p, ",") == n && memcmp(p, word, n) == 0) return true;
        if (*p == '\0') break;
    }
    return false;
}

uint32_t ht_topology_quota(const char *proc_cgroup, const char *cgroup_root)
{
    FILE *f = fopen(proc_cgroup, "re");
    if (!f) return 0;
    char line[LINE_BYTES], root[LINE_BYTES];
    uint32_t quota = 0;
    /* Lines "id:controllers:path"; v2 has id 0 and no controllers. v1 mounts are named by their controllers. */
    while (fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = '\0';
        char *list = strchr(line, ':');
        char *path = list ? strchr(list + 1, ':') : NULL;
        if (!path) continue;
        *path++ = '\0';
        list++;
        if (*list && !list_has(list, "cpu")) continue;
        int n = snprintf(root, sizeof root, "%s%s%s", cgroup_root, *list ? "/" : "", list);
        if (n < 0 || n >= (int)sizeof root) continue;
        quota = quota_min(quota, quota_of_path(root, path));
        if (!*list) continue;
        /* v1's mount may name its controllers in another order; then "cpu" is a link to it. */
        n = snprintf(root, sizeof root, "%s/cpu", cgroup_root);
        if (n >= 0 && n < (int)sizeof root) quota = quota_min(quota, quota_of_path(root, path));
    }
    fclose(f);
    return quota;
}

/* ---- processors ---- */

static uint32_t kinds_read(hwloc_topology_t h, cpu_kind *kinds)
{
    int n = hwloc_cpukinds_get_nr(h, 0);
    if (n < 0) n = 0;
    if (n > MAX_KINDS) n = MAX_KINDS;
    for (int i = 0; i < n; i++) {
        unsigned n_infos = 0;
        struct hwloc_info_s *infos = NULL;
        kinds[i] = (cpu_kind){ .efficiency = -1 };
        if (hwloc_cpukinds_get_info(h, (unsigned)i, NULL, &kinds[i].efficiency, &n_infos, &infos, 0) != 0) continue;
        for (unsigned j = 0; j < n_infos; j++) {
            if (strcmp(infos[j].name, "CoreType") == 0) kinds[i].core_type = infos[j].value;
            if (strcmp(infos[j].name, "LinuxCapacity") == 0) kinds[i].capacity = strtoul(infos[j].value, NULL, 10);
        }
    }
    return (uint32_t)n;
}

/* Kinds differ by clock speed alone too (favoured cores): a kind counts as efficiency cores only where the core type
 * says so, or where Linux rates it below half of the fastest. */
static ht_core_kind kind_of(const cpu_kind *k, const cpu_kind *fastest)
{
    if (k->core_type && fastest->core_type)
        return strcmp(k->core_type, fastest->core_type) == 0 ? HT_CORE_PERFORMANCE : HT_CORE_EFFICIENCY;
    return k->capacity * 2 < fastest->capacity ? HT_CORE_EFFICIENCY : HT_CORE_PERFORMANCE;
}

static int pu_order(const void *pa, const void *pb)
{
    const sort_pu *a = pa, *b = pb;
    if (a->pu.smt != b->pu.smt) return a->pu.smt < b->pu.smt ? -1 : 1;
    if (a->pu.kind != b->pu.kind) return a->pu.kind < b->pu.kind ? -1 : 1;
    if (a->pu.numa != b->pu.numa) return a->pu.numa < b->pu.numa ? -1 : 1;
    if (a->efficiency != b->efficiency) return a->efficiency > b->efficiency ? -1 : 1;
    return a->logical < b->logical ? -1 : a->logical > b->logical;
}

/* The processors in `allowed`, in hwloc's order (by place), cores and nodes numbered as they are met. */
static uint32_t pus_collect(hwloc_topology_t h, hwloc_const_cpuset_t allowed, sort_pu *out, ht_topology *t)
{
    cpu_kind kinds[MAX_KINDS];
    uint32_t n_kinds = kinds_read(h, kinds), n = 0;
    int kind_index[HT_TOPOLOGY_MAX_PUS];
    const cpu_kind none = { .efficiency = -1 };
    const cpu_kind *fastest = &none;
    hwloc_obj_t core_before = NULL, numa_before = NULL, package_before = NULL;
    uint8_t smt = 0;

    for (hwloc_obj_t pu = NULL; n < HT_TOPOLOGY_MAX_PUS && (pu = hwloc_get_next_obj_by_type(h, HWLOC_OBJ_PU, pu));) {
        if (!hwloc_bitmap_isset(allowed, pu->os_index)) continue;
        hwloc_obj_t core = hwloc_get_ancestor_obj_by_type(h, HWLOC_OBJ_CORE, pu);
        bool sibling = core && core == core_before;
        t->n_cores += !sibling;
        smt = sibling ? (uint8_t)(smt + (smt < UINT8_MAX)) : 0;
        core_before = core;
        hwloc_obj_t package = hwloc_get_ancestor_obj_by_type(h, HWLOC_OBJ_PACKAGE, pu);
        t->n_packages += t->n_packages == 0 || (package && package != package_before);
        package_before = package ? package : package_before;
        hwloc_obj_t numa = NULL;
        while ((numa = hwloc_get_next_obj_by_type(h, HWLOC_OBJ_NUMANODE, numa)) &&
               !hwloc_bitmap_isset(numa->cpuset, pu->os_index))
            continue;
        t->n_numa += t->n_numa == 0 || (numa && numa != numa_before);
        numa_before = numa ? numa : numa_before;
        int kind = n_kinds ? hwloc_cpukinds_get_by_cpuset(h, pu->cpuset, 0) : -1;
        if (kind >= (int)n_kinds) kind = -1;
        if (kind >= 0 && kinds[kind].efficiency >= fastest->efficiency) fastest = &kinds[kind];
        kind_index[n] = kind;
        out[n] = (sort_pu){ .pu = { .os_index = pu->os_index, .core = t->n_cores - 1, .numa = (uint16_t)(t->n_numa - 1),
                                    .smt = smt },
                            .efficiency = kind >= 0 ? kinds[kind].efficiency : -1, .logical = pu->logical_index };
        n++;
    }
    for (uint32_t i = 0; i < n; i++) {
        out[i].pu.kind = kind_index[i] < 0 ? HT_CORE_PERFORMANCE : kind_of(&kinds[kind_index[i]], fastest);
        t->n_perf_cores += out[i].pu.smt == 0 && out[i].pu.kind == HT_CORE_PERFORMANCE;
    }
    return n;
}

static uint64_t cache_bytes(hwloc_topology_t h, hwloc_obj_t pu, hwloc_obj_type_t type)
{
    hwloc_obj_t o = hwloc_get_ancestor_obj_by_type(h, type, pu);
    return o ? o->attr->cache.size : 0;
}

static void describe_first(hwloc_topology_t h, ht_topology *t)
{
    hwloc_obj_t pu = hwloc_get_pu_obj_by_os_index(h, t->pus[0].os_index);
    if (!pu) return;
    t->l1d_bytes = cache_bytes(h, pu, HWLOC_OBJ_L1CACHE);
    t->l2_bytes = cache_bytes(h, pu, HWLOC_OBJ_L2CACHE);
    t->l3_bytes = cache_bytes(h, pu, HWLOC_OBJ_L3CACHE);
    const char *model = NULL;
    for (hwloc_obj_t o = pu; o && !model; o = o->parent) model = hwloc_obj_get_info_by_name(o, "CPUModel");
    if (model) snprintf(t->model, sizeof t->model, "%s", model);
}

static int hwloc_start(hwloc_topology_t h)
{
    static const hwloc_obj_type_t wanted[] = { HWLOC_OBJ_PACKAGE, HWLOC_OBJ_CORE, HWLOC_OBJ_L1CACHE, HWLOC_OBJ_L2CACHE,
                                               HWLOC_OBJ_L3CACHE };
    unsigned long flags = 0;
#if HWLOC_API_VERSION >= 0x00020500
    flags |= HWLOC_TOPOLOGY_FLAG_DONT_CHANGE_BINDING;
#endif
#if HWLOC_API_VERSION >= 0x00020800
    flags |= HWLOC_TOPOLOGY_FLAG_NO_DISTANCES | HWLOC_TOPOLOGY_FLAG_NO_MEMATTRS;
#endif
    if (hwloc_topology_set_flags(h, flags) != 0 ||
        hwloc_topology_set_all_types_filter(h, HWLOC_TYPE_FILTER_KEEP_NONE) != 0)
        return -1;
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++)
        if (hwloc_topology_set_type_filter(h, wanted[i], HWLOC_TYPE_FILTER_KEEP_ALL) != 0) return -1;
    /* Memory nodes smaller than a package hang on groups: without these they would seem to span all of it. */
    if (hwloc_topology_set_type_filter(h, HWLOC_OBJ_GROUP, HWLOC_TYPE_FILTER_KEEP_STRUCTURE) != 0) return -1;
    return hwloc_topology_load(h);
}

ht_status ht_topology_read(ht_topology *t, ht_error *err)
{
    hwloc_topology_t h;
    *t = (ht_topology){ 0 };
    if (hwloc_topology_init(&h) != 0) return ht_fail(err, HT_ENOMEM, "processor topology");
    t->hwloc = h;
    sort_pu *found = malloc(HT_TOPOLOGY_MAX_PUS * sizeof *found);
    hwloc_bitmap_t bound = hwloc_bitmap_alloc();
    ht_status st = HT_OK;
    if (!found || !bound) {
        st = ht_fail(err, HT_ENOMEM, "processor topology");
        goto done;
    }
    if (hwloc_start(h) != 0) {
        st = ht_fail(err, HT_EUNSUPPORTED, "hwloc cannot read this machine's processors");
        goto done;
    }
    /* What hwloc allows (cpuset), less what the process is not bound to (taskset). Where the OS does not tell a
     * binding, or the topology is a described one, all that is allowed. */
    hwloc_const_cpuset_t allowed = hwloc_topology_get_allowed_cpuset(h);
    if (!hwloc_topology_is_thissystem(h) || hwloc_get_cpubind(h, bound, HWLOC_CPUBIND_PROCESS) != 0)
        hwloc_bitmap_copy(bound, allowed);
    hwloc_bitmap_and(bound, bound, allowed);
    t->n_pus = pus_collect(h, bound, found, t);
    if (t->n_pus == 0) {
        st = ht_fail(err, HT_EUNSUPPORTED, "hwloc shows no processor that this process may use");
        goto done;
    }
    qsort(found, t->n_pus, sizeof *found, pu_order);
    for (uint32_t i = 0; i < t->n_pus; i++) t->pus[i] = found[i].pu;
    describe_first(h, t);
    t->quota = ht_topology_quota("/proc/self/cgroup", "/sys/fs/cgroup");
done:
    hwloc_bitmap_free(bound);
    free(found);
    if (st != HT_OK) ht_topology_deinit(t);
    return st;
}

void ht_topology_deinit(ht_topology *t)
{
    if (t->hwloc) hwloc_topology_destroy(t->hwloc);
    *t = (ht_topology){ 0 };
}

bool ht_topology_pin(const ht_topology *t, uint32_t thread)
{
    if (t->n_pus == 0) return false;
    hwloc_obj_t pu = hwloc_get_pu_obj_by_os_index(t->hwloc, t->pus[thread % t->n_pus].os_index);
    return pu && hwloc_set_cpubind(t->hwloc, pu->cpuset, HWLOC_CPUBIND_THREAD) == 0;
}

bool ht_topology_unpin(const ht_topology *t)
{
    hwloc_bitmap_t all = t->hwloc ? hwloc_bitmap_alloc() : NULL;
    if (!all) return false;
    for (uint32_t i = 0; i < t->n_pus; i++) hwloc_bitmap_set(all, t->pus[i].os_index);
    bool done = hwloc_set_cpubind(t->hwloc, all, HWLOC_CPUBIND_THREAD) == 0;
    hwloc_bitmap_free(all);
    return done;
}
