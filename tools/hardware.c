/* SPDX-License-Identifier: MIT
 * hearth hardware: what was found on this machine, and how fast its memory and disk are. */
#include <stdio.h>
#include <string.h>

#include "tools/commands.h"
#include "tools/report.h"

#define AT(member) offsetof(ht_options, member)

static const ht_flag own_flags[] = {
    { 0, "quick", NULL, HT_FLAG_SWITCH, AT(quick), 0, 0, NULL, NULL,
      "leave the bandwidths out, which take a second or two" },
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

static int print_table(const hearth_hardware *h, bool measured)
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
    printf("%-22s %s\n", "GPUs", h->gpus[0] ? h->gpus : "none");
    print_bytes("memory", h->ram_total_bytes);
    print_bytes("memory available", h->ram_available_bytes);
    if (measured) {
        print_rate("memory read, 1 thread", h->memory_read_bps_1);
        snprintf(name, sizeof name, "memory read, %u thread%s", h->default_threads, h->default_threads == 1 ? "" : "s");
        print_rate(name, h->memory_read_bps_all);
        print_rate("disk read", h->disk_read_bps);
    }
    return ht_stdout_done(HT_EXIT_OK);
}

static int print_json(const hearth_hardware *h)
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
    return ht_report_print(j);
}

static int run(const ht_options *o)
{
    hearth_hardware h = { .size = sizeof h };
    hearth_error err = { 0 };
    char path[4096];
    const char *disk = NULL;
    if (!o->quick) {
        if (o->n_positional)
            disk = o->positional[0];
        else if (ht_load_shipped(path, sizeof path))
            disk = path;
        ht_say("measuring memory%s, about two seconds", disk ? " and disk" : "");
    }
    if (hearth_hardware_read(&h, !o->quick, disk, &err) != HEARTH_OK)
        return ht_call_failed(&err, false);
    return o->json ? print_json(&h) : print_table(&h, !o->quick);
}

const ht_command ht_command_hardware = {
    .name = "hardware",
    .arguments = "[FILE]",
    .summary = "cores, SIMD level, caches, NUMA nodes, GPUs, bandwidths",
    .text =
        "The disk measured is the one that holds FILE, which is read past the page cache where possible; without one, "
        "the disk of the model that ships.",
    .max_positional = 1,
    .tables = { own_flags, ht_flags_talk },
    .idle = { ht_flags_model },
    .run = run,
};
