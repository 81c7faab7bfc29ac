/* SPDX-License-Identifier: MIT
 * What disk.c, disk_open.c, disk_hold.c, disk_parts.c and disk_heat.c share. Nobody else includes this. */
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
    bool foreseen;           /* needed soon */
    bool early, guess;       /* read because it was foreseen, and not needed yet; of these the uncertain ones */
    bool ahead, fresh;       /* counted in ahead_bytes; none of its reads was submitted since it has this slot */
    bool whole;              /* all of it is here or on its way, not only parts */
    uint32_t layer, slot, pins;
    size_t at[HT_N_ROLES];   /* first byte of a part within its read */
    size_t whole_bytes;      /* of the only read of a unit that may come in parts, when it comes as a whole */
    uint32_t n_pages, head;  /* pages of it; those of gate rows and scales. 0: it comes as a whole */
    size_t bits_at;          /* first word of its pages in ht_disk.pages: which are here or on their way */
    uint32_t pieces;         /* list of further reads, number + 1; 0: none */
} ht_disk_unit;

/* A read of some pages. */
typedef struct ht_disk_piece {
    ht_read read;
    uint32_t next; /* number + 1 */
} ht_disk_piece;

typedef struct ht_disk_layer {
    uint32_t first; /* unit of its expert 0 */
    uint32_t class;
    uint32_t rest;  /* tokens for which its units come as a whole: parts were no cheaper */
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
    uint64_t *pages, *wanted;       /* bits of the units' pages; scratch for one unit's. NULL: no unit comes in parts */
    ht_disk_piece *pieces;
    uint32_t free_pieces, n_free;
    bool parts_always;              /* tests: however little it saves */
    ht_disk_counts counts;
};

/* disk.c. The policy's number of a unit; room for a unit and its reads, false: none. */
uint32_t ht_disk_id(const ht_disk *d, const ht_disk_unit *u);
bool ht_disk_bring(ht_disk *d, ht_disk_unit *u, bool lane_ahead, bool uncertain);
/* The same; not whole: of a unit that may come in parts the head. */
bool ht_disk_bring_some(ht_disk *d, ht_disk_unit *u, bool lane_ahead, bool uncertain, bool whole);

/* Something more of a unit that was here is on its way. */
void ht_disk_is_coming(ht_disk *d, ht_disk_unit *u);
uint8_t *ht_disk_slot(const ht_disk *d, const ht_disk_unit *u);

/* disk_parts.c. Memory for the pages of a layer's units, and for the reads of pages. */
uint64_t ht_disk_parts_bytes(const ht_model *m, uint32_t layer, size_t slot_bytes);
uint64_t ht_disk_pieces_bytes(void);
ht_status ht_disk_plan_parts(ht_disk *d, ht_error *err);
/* A unit that was absent is to be read: what its first read takes. */
void ht_disk_begin_unit(ht_disk *d, ht_disk_unit *u, bool whole);
/* Reads what is missing of a unit. HT_LATER: too much is on its way. */
ht_status ht_disk_complete(ht_disk *d, ht_disk_unit *u, uint8_t *slot);
void ht_disk_drop_pieces(ht_disk *d, ht_disk_unit *u);

/* The reads of a unit one after the other: *at is 0 before the first. */
static inline ht_read *ht_disk_next_read(const ht_disk *d, ht_disk_unit *u, uint32_t *at)
{
    if (*at < u->n_reads)
        return &u->read[(*at)++];
    const uint32_t piece = *at == u->n_reads ? u->pieces : d->pieces[*at - u->n_reads - 1].next;
    if (!piece)
        return NULL;
    *at = u->n_reads + piece;
    return &d->pieces[piece - 1].read;
}

/* disk_hold.c */
ht_status ht_disk_held_bytes(uint64_t *bytes, const ht_model *m, bool predictors, ht_error *err);
ht_status ht_disk_hold(ht_disk *d, ht_model *m, const ht_disk_params *p, ht_error *err);

#endif
