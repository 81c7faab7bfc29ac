/* SPDX-License-Identifier: MIT
 *
 * Packed models (docs/pack.md): what a GGUF file says of feed-forward blocks that it holds as stretches of experts
 * (engine/base/packed.h), checked, and the tensors of the plain file that they stand for. Of these each can be found by
 * its name, read as the plain file has it, and leased as a part.
 *
 * Owner: ht_pack_open/close; the ht_gguf outlives it. Threads: read-only once open. */
#ifndef HT_PACK_H
#define HT_PACK_H

#include "engine/base/packed.h"
#include "engine/gguf.h"

enum { HT_PACK_VERSION = 1 };

/* A block is the dense one of a layer, its mixture or the shared expert beside one. */
typedef struct ht_pack_block {
    const ht_tensor *tensor; /* [bytes of an expert][1][n_expert] */
    ht_packed shape;
    uint32_t layer, n_expert;
    uint32_t *order;         /* [n_expert][n_ff/32] a copy: what was checked is what is used. Owned */
} ht_pack_block;

/* A tensor of the plain file. */
typedef struct ht_pack_tensor {
    char name[64];
    const ht_pack_block *block;
    ht_role role;
    uint32_t type, n_dims;
    uint64_t ne[4], bytes;
    size_t row_bytes;
} ht_pack_tensor;

typedef struct ht_pack {
    ht_pack_block *blocks;
    ht_pack_tensor *tensors; /* sorted by name */
    uint32_t n_blocks, n_tensors;
    float quality;           /* that its predictors may spend; negative: it was made without */
    uint64_t bytes;          /* of memory */
} ht_pack;

/* *out: NULL where the file is no packed model. Fails: EFORMAT (it contradicts itself), EUNSUPPORTED (of a newer
 * version), ENOMEM. */
ht_status ht_pack_open(ht_pack **out, const ht_gguf *g, ht_error *err);
void ht_pack_close(ht_pack **p);

const ht_pack_tensor *ht_pack_find(const ht_pack *p, const char *name); /* NULL, also for p NULL: it is not packed */
ht_part ht_pack_part(const ht_pack_tensor *t, uint32_t expert);
/* The bytes that the plain file has for rows [first, first + n), rows of all experts counted on. Multiples of
 * HT_NEURONS_TILE rows are read fastest. ENOMEM. */
ht_status ht_pack_read(const ht_pack_tensor *t, uint64_t first, uint64_t n, void *dst, ht_error *err);

#endif
