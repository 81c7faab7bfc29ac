/* SPDX-License-Identifier: MIT
 * What the machine has, behind hearth.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/objects.h"
#include "gpu/gpu.h"

enum { PROBE_BYTES = 512 << 20 };

/* The names of the levels that run here, space-separated. */
static void list_levels(char *to, size_t bytes)
{
    size_t n = 0;
    for (int i = 0; i < HT_N_ISA && n < bytes; i++)
        if (ht_isa_runs((ht_isa)i))
            n += (size_t)snprintf(to + n, bytes - n, "%s%s", n ? " " : "", ht_isa_name((ht_isa)i));
}

/* Devices behind plug-ins, and which plug-ins are not there. */
static ht_status list_gpus(hearth_hardware *h, ht_error *err)
{
    ht_gpu_list *list = calloc(1, sizeof *list);
    size_t n = 0;

    if (!list)
        return ht_fail(err, HT_ENOMEM, "list of GPUs");
    ht_gpu_find(list, NULL);
    for (uint32_t i = 0; i < list->n && i < sizeof h->gpu / sizeof *h->gpu; i++) {
        const ht_gpu_info *g = &list->gpu[i];
        hearth_gpu *to = &h->gpu[h->n_gpus++];
        memcpy(to->name, g->name, sizeof to->name);
        memcpy(to->driver, g->driver, sizeof to->driver);
        memcpy(to->version, g->version, sizeof to->version);
        to->index = g->index;
        to->units = g->units;
        to->memory_bytes = g->memory_bytes;
        to->most_bytes = g->most_bytes;
        to->unified = g->unified;
        to->processor = g->processor;
        to->exact = g->exact;
        if (n < sizeof h->gpus)
            n += (size_t)snprintf(h->gpus + n, sizeof h->gpus - n, "%s%s (%s)", n ? ", " : "", g->name, g->driver);
    }
    if (!h->n_gpus)
        snprintf(h->gpus, sizeof h->gpus, "none found");
    memcpy(h->gpus_missing, list->missing, sizeof h->gpus_missing);
    free(list);
    return HT_OK;
}

hearth_status hearth_hardware_read(hearth_hardware *out, bool measure, const char *path, hearth_error *error)
{
    ht_error *err = ht_err(error);
    ht_topology *t = calloc(1, sizeof *t);
    hearth_hardware h = { 0 };

    if (!t)
        return (hearth_status)ht_fail(err, HT_ENOMEM, "hardware description");
    ht_status st = ht_topology_read(t, err);
    if (st != HT_OK) {
        free(t);
        return (hearth_status)st;
    }
    snprintf(h.cpu, sizeof h.cpu, "%s", t->model);
    h.packages = t->n_packages;
    h.cores = t->n_cores;
    h.performance_cores = t->n_perf_cores;
    h.hardware_threads = t->n_pus;
    h.numa_nodes = t->n_numa;
    h.default_threads = t->quota && t->quota < t->n_perf_cores ? t->quota : t->n_perf_cores;
    h.isa = ht_isa_name(ht_isa_best());
    list_levels(h.isa_all, sizeof h.isa_all);
    h.l1d_bytes = t->l1d_bytes;
    h.l2_bytes = t->l2_bytes;
    h.l3_bytes = t->l3_bytes;
    h.ram_total_bytes = ht_os_ram_total();
    h.ram_available_bytes = ht_os_ram_available();
    if ((st = list_gpus(&h, err)) != HT_OK) {
        ht_topology_deinit(t);
        free(t);
        return (hearth_status)st;
    }
    if (measure) {
        /* Four times the last-level cache would be safest; on machines with huge shared caches that is more than a
         * probe may take, and a slice of it is all one tenant gets. */
        size_t bytes = PROBE_BYTES;
        if (bytes > h.ram_available_bytes / 4)
            bytes = (size_t)(h.ram_available_bytes / 4);
        h.memory_read_bps_1 = ht_cpu_read_bandwidth(t, 1, bytes);
        h.memory_read_bps_all =
            h.default_threads > 1 ? ht_cpu_read_bandwidth(t, h.default_threads, bytes) : h.memory_read_bps_1;
        if (path)
            h.disk_read_bps = ht_os_disk_bandwidth(path);
    }
    ht_topology_deinit(t);
    free(t);
    HT_RESULT(out, &h);
    return HEARTH_OK;
}
