/* SPDX-License-Identifier: MIT
 * hearth hardware: what was found on this machine, and how fast its memory and disk are. */
#include <stdio.h>
#include <string.h>

#include "tools/commands.h"
#include "tools/report.h"

#define AT(member) offsetof(ht_options, member)

static const ht_flag own_flags[] = {
    { 0, "quick", NULL, HT_FLAG_SWITCH, AT(quick), 0, 0, NULL, NULL,
      "leave out all that is measured, which takes seconds" },
    { 0, "refresh", NULL, HT_FLAG_SWITCH, AT(refresh), 0, 0, NULL, NULL,
      "measure what plans go by anew, although it is kept from an earlier run" },
    { 0, "rates", "FILE", HT_FLAG_TEXT, AT(rates), 0, 0, NULL, NULL,
      "the file that keeps these figures; default: one in the cache folder" },
    { 0, "threads", "N", HT_FLAG_INTEGER, AT(threads), 1, 1024, NULL, NULL,
      "compute threads that they are of; default: the performance cores that the process may use" },
    { 0, "isa", "NAME", HT_FLAG_TEXT, AT(isa), 0, 0, NULL, NULL, "at most this SIMD level; default: the best found" },
    { 0, "precision", "P", HT_FLAG_CHOICE, AT(precision), 0, 0, "fast|f32", NULL, "of activations: fast or f32; default fast" },
    { 0 },
};

static void print_bytes(const char *name, uint64_t bytes)
{
    if (!bytes)
        printf("%-22s unknown\n", name);
    else if (bytes >= 1ull << 30)
        printf("%-22s %.1f GB\n", name, (double)bytes / (1ull << 30));
    else if (bytes >= 1 << 20)
        printf("%-22s %.1f MB\n", name, (double)bytes / (1 << 20));
    else
        printf("%-22s %llu KB\n", name, (unsigned long long)(bytes >> 10));
}

static void print_rate(const char *name, double bps)
{
    if (bps > 0)
        printf("%-22s %.2f GB/s\n", name, 1e-9 * bps);
    else
        printf("%-22s not measured\n", name);
}

static void print_rates(const hearth_rates *r)
{
    printf("\n%u thread%s, %s, %s: sharing out an operation %.1f us, waiting for it %.1f us\n\n", r->threads, r->threads == 1 ? "" : "s", r->isa,
           r->precision == HEARTH_PRECISION_F32 ? "f32" : "fast", 1e6 * r->task_seconds, 1e6 * r->wait_seconds);
    puts("weights    GB/s  from cache  rows picked   prompts of 16, 64, 512: GMAC/s");
    for (uint32_t i = 0; i < r->n_types; i++) {
        const hearth_type_rates *t = &r->types[i];
        printf("%-8s %6.2f %11.2f %12.2f %15.1f %8.1f %8.1f\n", t->type, 1e-9 * t->read_bytes_per_s, 1e-9 * t->cached_bytes_per_s,
               1e-9 * t->gathered_bytes_per_s, 1e-9 * t->prompt_macs_per_s[0], 1e-9 * t->prompt_macs_per_s[1],
               1e-9 * t->prompt_macs_per_s[2]);
    }
    puts("\nKV       ns of 1000 elements  and for each head   prompts: GMAC/s");
    for (uint32_t i = 0; i < r->n_kv; i++)
        printf("%-8s %19.2f %14.2f %17.1f\n", r->kv[i].type, 1e12 * r->kv[i].element_seconds, 1e12 * r->kv[i].query_seconds,
               1e-9 * r->kv[i].prompt_macs_per_s);
}

static void print_gpus(const hearth_hardware *h)
{
    if (!h->n_gpus)
        printf("%-22s none found\n", "GPUs");
    for (uint32_t i = 0; i < h->n_gpus; i++) {
        const hearth_gpu *g = &h->gpu[i];
        printf("%-22s %s, %.1f GB%s, %u units, %s device %u, %s\n", i ? "" : "GPUs", g->name,
               (double)g->memory_bytes / (1ull << 30), g->unified ? " shared with the processor" : "", g->units,
               g->driver, g->index, g->version);
        if (g->processor)
            printf("%-22s (the processor itself, slower so than without OpenCL)\n", "");
    }
    if (h->gpus_missing[0])
        printf("%-22s %s\n", "without", h->gpus_missing);
}

static int print_table(const hearth_hardware *h, const hearth_rates *rates, bool measured)
{
    char name[40];
    printf("%-22s %s\n", "processor", h->cpu);
    printf("%-22s %u package%s, %u core%s (%u performance), %u hardware threads\n", "cores", h->packages,
           h->packages == 1 ? "" : "s", h->cores, h->cores == 1 ? "" : "s", h->performance_cores, h->hardware_threads);
    printf("%-22s %u\n", "default threads", h->default_threads);
    printf("%-22s %s (runs here: %s)\n", "SIMD level", h->isa, h->isa_all);
    print_bytes("L1 data cache", h->l1d_bytes);
    print_bytes("L2 cache", h->l2_bytes);
    print_bytes("L3 cache", h->l3_bytes);
    printf("%-22s %u\n", "NUMA nodes", h->numa_nodes);
    print_gpus(h);
    print_bytes("memory", h->ram_total_bytes);
    print_bytes("memory available", h->ram_available_bytes);
    if (measured) {
        print_rate("memory read, 1 thread", h->memory_read_bps_1);
        snprintf(name, sizeof name, "memory read, %u thread%s", h->default_threads, h->default_threads == 1 ? "" : "s");
        print_rate(name, h->memory_read_bps_all);
        print_rate("disk read", h->disk_read_bps);
        print_rate("disk, 1 MiB reads", rates->disk_direct_bytes_per_s);
        print_rates(rates);
    }
    return ht_stdout_done(HT_EXIT_OK);
}

static void add_rates(cJSON *to, const hearth_rates *r)
{
    cJSON *j = cJSON_AddObjectToObject(to, "rates"), *types = cJSON_CreateArray(), *kv = cJSON_CreateArray();
    cJSON_AddNumberToObject(j, "threads", r->threads);
    cJSON_AddStringToObject(j, "isa", r->isa);
    cJSON_AddStringToObject(j, "precision", r->precision == HEARTH_PRECISION_F32 ? "f32" : "fast");
    ht_report_positive(j, "task_seconds", r->task_seconds);
    ht_report_positive(j, "wait_seconds", r->wait_seconds);
    ht_report_positive(j, "operation_seconds", r->op_seconds);
    ht_report_positive(j, "element_seconds", r->element_seconds);
    ht_report_positive(j, "memory_bandwidth_bytes_per_s", r->memory_bytes_per_s);
    ht_report_positive(j, "disk_direct_bytes_per_s", r->disk_direct_bytes_per_s);
    ht_report_positive(j, "disk_cached_bytes_per_s", r->disk_cached_bytes_per_s);
    for (uint32_t i = 0; i < r->n_types; i++) {
        static const char *const prompts[] = { "prompt_16_macs_per_s", "prompt_64_macs_per_s", "prompt_512_macs_per_s" };
        cJSON *t = cJSON_CreateObject();
        cJSON_AddStringToObject(t, "type", r->types[i].type);
        ht_report_positive(t, "read_bytes_per_s", r->types[i].read_bytes_per_s);
        ht_report_positive(t, "short_rows_bytes_per_s", r->types[i].short_bytes_per_s);
        ht_report_positive(t, "cached_bytes_per_s", r->types[i].cached_bytes_per_s);
        ht_report_positive(t, "gathered_bytes_per_s", r->types[i].gathered_bytes_per_s);
        for (int k = 0; k < 3; k++)
            ht_report_positive(t, prompts[k], r->types[i].prompt_macs_per_s[k]);
        cJSON_AddItemToArray(types, t);
    }
    for (uint32_t i = 0; i < r->n_kv; i++) {
        cJSON *t = cJSON_CreateObject();
        cJSON_AddStringToObject(t, "type", r->kv[i].type);
        ht_report_positive(t, "element_seconds", r->kv[i].element_seconds);
        ht_report_positive(t, "query_seconds", r->kv[i].query_seconds);
        ht_report_positive(t, "prompt_macs_per_s", r->kv[i].prompt_macs_per_s);
        cJSON_AddItemToArray(kv, t);
    }
    cJSON_AddItemToObject(j, "weights", types);
    cJSON_AddItemToObject(j, "kv", kv);
}

static int print_json(const hearth_hardware *h, const hearth_rates *rates)
{
    cJSON *j = cJSON_CreateObject();
    ht_report_text(j, "cpu", h->cpu, strlen(h->cpu));
    cJSON_AddNumberToObject(j, "packages", h->packages);
    cJSON_AddNumberToObject(j, "cores", h->cores);
    cJSON_AddNumberToObject(j, "performance_cores", h->performance_cores);
    cJSON_AddNumberToObject(j, "hardware_threads", h->hardware_threads);
    cJSON_AddNumberToObject(j, "threads", h->default_threads);
    cJSON_AddNumberToObject(j, "numa_nodes", h->numa_nodes);
    cJSON_AddStringToObject(j, "isa", h->isa);
    cJSON_AddStringToObject(j, "isa_all", h->isa_all);
    cJSON_AddNumberToObject(j, "l1d_bytes", (double)h->l1d_bytes);
    cJSON_AddNumberToObject(j, "l2_bytes", (double)h->l2_bytes);
    cJSON_AddNumberToObject(j, "l3_bytes", (double)h->l3_bytes);
    cJSON_AddNumberToObject(j, "ram_total_bytes", (double)h->ram_total_bytes);
    cJSON_AddNumberToObject(j, "ram_available_bytes", (double)h->ram_available_bytes);
    ht_report_positive(j, "memory_bandwidth_1_thread_bytes_per_s", h->memory_read_bps_1);
    ht_report_positive(j, "memory_bandwidth_bytes_per_s", h->memory_read_bps_all);
    ht_report_positive(j, "disk_bandwidth_bytes_per_s", h->disk_read_bps);
    ht_report_text(j, "gpus", h->gpus, strlen(h->gpus));
    if (rates)
        add_rates(j, rates);
    cJSON *list = cJSON_AddArrayToObject(j, "gpu_devices");
    for (uint32_t i = 0; i < h->n_gpus; i++) {
        const hearth_gpu *g = &h->gpu[i];
        cJSON *d = cJSON_CreateObject();
        ht_report_text(d, "name", g->name, strlen(g->name));
        ht_report_text(d, "driver", g->driver, strlen(g->driver));
        cJSON_AddNumberToObject(d, "index", g->index);
        ht_report_text(d, "version", g->version, strlen(g->version));
        cJSON_AddNumberToObject(d, "memory_bytes", (double)g->memory_bytes);
        cJSON_AddNumberToObject(d, "largest_allocation_bytes", (double)g->most_bytes);
        cJSON_AddNumberToObject(d, "units", g->units);
        cJSON_AddBoolToObject(d, "unified_memory", g->unified);
        cJSON_AddBoolToObject(d, "processor", g->processor);
        cJSON_AddBoolToObject(d, "exact", g->exact);
        cJSON_AddItemToArray(list, d);
    }
    ht_report_text(j, "gpu_plugins_missing", h->gpus_missing, strlen(h->gpus_missing));
    return ht_report_print(j);
}

static int run(const ht_options *o)
{
    hearth_hardware h = { .size = sizeof h };
    hearth_rates rates = { .size = sizeof rates };
    hearth_rates_params rp = HEARTH_RATES_PARAMS_INIT;
    hearth_error err = { 0 };
    char path[4096], kept[4096];
    const char *disk = NULL;
    if (!o->quick) {
        if (o->n_positional)
            disk = o->positional[0];
        else if (ht_load_shipped(path, sizeof path))
            disk = path;
        ht_say("measuring memory%s, some seconds", disk ? " and disk" : "");
    }
    rp.threads = (uint32_t)o->threads.v;
    rp.isa = o->isa;
    rp.precision = o->precision && !strcmp(o->precision, "f32") ? HEARTH_PRECISION_F32 : HEARTH_PRECISION_FAST;
    rp.disk = disk;
    rp.again = o->refresh;
    rp.progress = ht_console_progress;
    if (ht_load_rates_path(o, kept, sizeof kept))
        rp.path = kept;
    if (hearth_hardware_read(&h, !o->quick, disk, &err) != HEARTH_OK)
        return ht_call_failed(&err, false);
    const hearth_status st = o->quick ? HEARTH_OK : hearth_rates_read(&rates, &rp, &err);
    ht_console_progress_end();
    if (st != HEARTH_OK)
        return ht_call_failed(&err, false);
    return o->json ? print_json(&h, o->quick ? NULL : &rates) : print_table(&h, &rates, !o->quick);
}

const ht_command ht_command_hardware = {
    .name = "hardware",
    .arguments = "[FILE]",
    .summary = "cores, SIMD level, caches, NUMA nodes, GPUs, bandwidths",
    .text =
        "The disk measured is the one that holds FILE, which is read past the page cache where possible; without one, "
        "the disk of the model that ships. The figures that plans go by (`hearth help plan`) are measured once and kept in the cache "
        "folder.",
    .max_positional = 1,
    .tables = { own_flags, ht_flags_talk },
    .idle = { ht_flags_model },
    .run = run,
};
