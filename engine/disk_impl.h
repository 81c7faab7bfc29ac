/* SPDX-License-Identifier: MIT
 * What disk.c, disk_hold.c and disk_heat.c share. Nobody else includes this. */
#ifndef HT_DISK_IMPL_H
#define HT_DISK_IMPL_H

#include "engine/base/cache_policy.h"
#include "engine/base/os.h"
#include "engine/disk.h"

/* One expert of one layer. */
typedef struct ht_disk_unit {
    ht_read read[HT_N_ROLES];
    uint8_t n_reads;
    uint8_t of[HT_N_ROLES];  /* which read holds a part; UINT8_MAX: there is no such part */
    uint8_t presence;        /* ht_presence */
    bool failed;             /* a read of it; whoever pins it is told */
    bool foreseen, guess;    /* needed soon; read because of an uncertain foresight, and not needed yet */
    bool ahead, fresh;       /* counted in ahead_bytes; none of its reads was submitted since it has this slot */
    uint32_t layer, slot, pins;
    size_t at[HT_N_ROLES];   /* first byte of a part within its read */
} ht_disk_unit;

typedef struct ht_disk_layer {
    uint32_t first; /* unit of its expert 0 */
    uint32_t class;
} ht_disk_layer;

/* Slots of one size. */
typedef struct ht_disk_class {
    size_t bytes;
    uint8_t *memory; /* [n] */
    uint32_t *free;  /* [n]: warm ones (committed) from the front, cold ones from the back */
    uint32_t n, n_warm, n_cold;
} ht_disk_class;

struct ht_disk {
    ht_model *m;
    ht_reader *reader;
    ht_cache *cache;
    ht_disk_unit *units;
    uint32_t n_units, n_expert, n_files;
    uint32_t *coming, n_coming;     /* units on their way */
    uint32_t *foreseen, n_foreseen;
    uint32_t *leaving, *free_slots;
    uint32_t *fill, n_fill, fill_at; /* hottest first. All five in one block, each [n_units] */
    ht_disk_layer *layers;
    ht_disk_class *classes;
    uint32_t n_classes;
    ht_os_stamp *stamps;            /* [n_files] when it was opened */
    uint8_t *memory;
    size_t reserved;
    uint64_t budget, committed, used, ahead_bytes, foreseen_bytes;
    uint8_t *held;
    size_t held_reserved;
    ht_disk_counts counts;
};

/* disk.c. The policy's number of a unit; room for a unit and its reads, false: none. */
uint32_t ht_disk_id(const ht_disk *d, const ht_disk_unit *u);
bool ht_disk_bring(ht_disk *d, ht_disk_unit *u, bool lane_ahead, bool uncertain);

/* disk_hold.c */
ht_status ht_disk_held_bytes(uint64_t *bytes, const ht_model *m, bool predictors, ht_error *err);
ht_status ht_disk_hold(ht_disk *d, ht_model *m, const ht_disk_params *p, ht_error *err);

#endif
