/* SPDX-License-Identifier: MIT
 *
 * Weights that are read from the file into memory of ours, for models that do not fit: which experts are here, which are
 * on their way, which leave.
 *
 * A unit is one expert of one layer (a dense feed-forward block is one expert): its gate, up and down parts, one to three
 * contiguous reads. Units of one layer have slots of one size. All other weights are held: read once when the model opens,
 * into memory that the page cache cannot take back, and the model's parts point there from then on. The mapping of the
 * file is only looked at for metadata, and rows of an embedding that is not the output are read one by one.
 *
 *   absent -> coming (reads under way) -> here -> absent (another unit needs the room: engine/base/cache_policy.h)
 *
 * A unit that is pinned, foreseen or coming does not leave. Slots are cut from one reservation of address space; what is
 * committed of it never exceeds the budget.
 *
 * Owner: ht_disk_open/close; model and file outlive it. Threads: one at a time (the model's lock). Nothing is allocated
 * after open. */
#ifndef HT_DISK_H
#define HT_DISK_H

#include "engine/base/exec.h"
#include "engine/base/reader.h"
#include "engine/model.h"

typedef struct ht_disk ht_disk;

typedef struct ht_disk_params {
    ht_io io;            /* DIRECT or CACHED */
    bool no_uring;
    bool predictors;     /* the file's own are used: they are held */
    bool parts_always;   /* experts come in parts however little that saves (tests) */
    uint64_t budget;     /* bytes of slots, at first */
    int (*fault)(void *user, uint32_t file, uint64_t offset, size_t *bytes); /* as ht_reader_params */
    void *fault_user;
    bool (*progress)(void *user, const char *what, uint64_t done, uint64_t total); /* NULL allowed; false: cancel */
    void *progress_user;
} ht_disk_params;

/* What a model takes here, in bytes, before anything is opened. predictors: as above. */
typedef struct ht_disk_needs {
    uint64_t held;   /* dense weights */
    uint64_t tables; /* of this object */
    uint64_t floor;  /* of slots at least: one token's cycle of a mixture, two blocks of dense layers */
    uint64_t all;    /* of slots for every unit */
} ht_disk_needs;
ht_status ht_disk_needs_of(ht_disk_needs *out, const ht_model *m, bool predictors, ht_error *err);

/* Reads the weights to be held and re-points the model's parts to them. EIO: a file cannot be read, or is no longer the
 * one that was mapped; ENOMEM; ECANCELLED. The model is unusable where it fails. */
ht_status ht_disk_open(ht_disk **out, ht_model *m, const ht_disk_params *params, ht_error *err);
void ht_disk_close(ht_disk *d); /* NULL allowed */

/* Another budget for slots; no unit may be pinned. Waits for what is under way where it has to leave; false where that was
 * cancelled (NULL allowed): the budget stays as it was. */
bool ht_disk_set_budget(ht_disk *d, uint64_t bytes, const ht_cancel *cancel);
uint64_t ht_disk_budget(const ht_disk *d);

/* HT_EIO where a file was cut or written to since it was opened; one that another took the name of is open still. Asked at each
 * pass. */
ht_status ht_disk_check(const ht_disk *d, ht_error *err);

/* Units of one layer, each once, that a pass of n_tokens computes now: heat. counts: by how many tokens each was chosen; NULL: by
 * all. */
void ht_disk_use(ht_disk *d, const ht_cluster *clusters, const uint32_t *counts, uint32_t n, uint32_t n_tokens);

void ht_disk_remember(ht_disk *d, uint32_t layer, const uint32_t *experts, uint32_t n_tokens, uint32_t n_used); /* see store.h */

typedef enum ht_presence { HT_ABSENT, HT_COMING, HT_HERE } ht_presence;
ht_presence ht_disk_presence(const ht_disk *d, uint32_t layer, uint32_t expert);
size_t ht_disk_unit_bytes(const ht_disk *d, uint32_t layer); /* of its slot */

/* One that is not absent does not leave between keep true and keep false, which is said as often. */
void ht_disk_keep(ht_disk *d, uint32_t layer, uint32_t expert, bool kept);
/* Pins a unit and has it read where it is absent; whole: what is missing of it too, else of a unit that may come in parts at
 * least the head (disk_parts.c). HT_ENOMEM: there is no room, for all else is pinned; HT_ECANCELLED: cancelled
 * (NULL allowed) while what was on its way had to be waited for. Nothing is changed then. */
ht_status ht_disk_pin(ht_disk *d, uint32_t layer, uint32_t expert, bool whole, const ht_cancel *cancel);
void ht_disk_unpin(ht_disk *d, uint32_t layer, uint32_t expert);
/* Whether a layer's units may come in parts, gate rows and scales, then what is needed of the rest, and that is worth its while
 * where such a share of neurons is active (negative: not known). Asked once a token. */
bool ht_disk_parts_pay(ht_disk *d, uint32_t layer, float density);
/* Whether a unit's head only is here or on its way, and what ht_disk_need asked for. */
bool ht_disk_is_part(const ht_disk *d, uint32_t layer, uint32_t expert);
/* Of a pinned unit whose head is here: reads what is missing of the neurons in mask. HT_LATER: not now, poll first. */
ht_status ht_disk_need(ht_disk *d, uint32_t layer, uint32_t expert, const uint32_t *mask);
/* The parts of a pinned unit. HT_LATER: on its way. HT_EIO: `err` (NULL allowed) names file and offset; the next pin tries again. */
ht_status ht_disk_parts(ht_disk *d, uint32_t layer, uint32_t expert, ht_part out[HT_N_ROLES], ht_error *err);
/* Takes note of what has arrived; waits for something to arrive, at most wait_us. Counted as waiting. */
void ht_disk_poll(ht_disk *d, uint32_t wait_us);

/* A unit that will be needed soon is read behind all that is needed now, and stays until ht_disk_forget of its layer or
 * until somebody needs the room. certain: it will be needed, else it may only take the place of what is worth less.
 * False: not now. */
bool ht_disk_foresee(ht_disk *d, uint32_t layer, uint32_t expert, bool certain, bool whole);
void ht_disk_forget(ht_disk *d, uint32_t layer);
uint64_t ht_disk_foreseen_bytes(const ht_disk *d); /* on their way behind what is needed now, by foresight or to fill slots */

/* A unit that is needed now and not waited for (it is computed from something else, or left out): counted as wanted and not
 * here. keep: what is being read of it is read on, for later, when its layer is forgotten. */
void ht_disk_pass_by(ht_disk *d, uint32_t layer, uint32_t expert, bool keep);
/* Reads an absent unit behind everything else, where it is worth more than what leaves for it, and only a part of the cache at a
 * time. */
void ht_disk_read_later(ht_disk *d, uint32_t layer, uint32_t expert);

/* Rows ids[i] of a matrix that lies in the file, into to[n][w->stride]. */
ht_status ht_disk_rows(ht_disk *d, const ht_part *w, const int32_t *ids, uint32_t n, uint8_t *to, ht_error *err);

/* disk_heat.c. Which experts were used lately, to and from a file; whatever it holds is checked. EMISMATCH: of another
 * model; EFORMAT, EUNSUPPORTED, EIO, ENOMEM: the object stays as it was. */
ht_status ht_disk_read_heat(ht_disk *d, const char *path, const char *fingerprint, ht_error *err);
ht_status ht_disk_write_heat(const ht_disk *d, const char *path, const char *fingerprint, ht_error *err);
/* As heat to begin with: [n_layer][most experts of any layer]: how often each was chosen, 0..1. */
void ht_disk_set_heat(ht_disk *d, const float *heat);
/* From now on ht_disk_fill reads units into slots that are not used yet, hottest first, behind everything else. */
ht_status ht_disk_plan_fill(ht_disk *d, ht_error *err);
void ht_disk_fill(ht_disk *d);

typedef struct ht_disk_counts {
    uint64_t wanted, hits;       /* units pinned that were not pinned before; of them here */
    uint64_t missed;             /* of them, those that had to be read for it, foreseen or not */
    uint64_t foreseen, used;     /* units read ahead because they were foreseen as uncertain; of them needed next */
    uint64_t bytes;              /* read from the files, rounding counted */
    double wait_seconds;         /* in ht_disk_poll, waiting */
} ht_disk_counts;
ht_disk_counts ht_disk_get_counts(const ht_disk *d);
uint64_t ht_disk_missed(const ht_disk *d); /* of the counts */
ht_reader_info ht_disk_reader_info(const ht_disk *d);

#endif
