/* SPDX-License-Identifier: MIT
 *
 * Stand-ins: a copy of every expert of a mixture at fewer bits, made from the file when the model opens and held in memory, from
 * which a token is computed where the expert itself is not here (the low-precision versions of HOBBIT, arXiv:2411.01433,
 * section 3). Only for who asks for it: results then depend on what was in memory.
 *
 * A matrix gets the type asked for, or where its rows are no whole blocks of it the nearest that fits (ht_type_fitting), or stays as
 * it is where that is no smaller. Dense blocks and shared experts have none.
 *
 * Owner: ht_standins_open/close; the model outlives it. Threads: any, once it is open. Nothing is allocated after open. */
#ifndef HT_STANDIN_H
#define HT_STANDIN_H

#include "engine/model.h"

typedef struct ht_standins ht_standins;

typedef struct ht_standins_params {
    ht_type type;
    uint32_t threads; /* that encode, the caller's among them; 0: one */
    bool (*progress)(void *user, const char *what, uint64_t done, uint64_t total); /* NULL allowed; false: cancel */
    void *progress_user;
} ht_standins_params;

/* Memory that they take. */
uint64_t ht_standins_bytes(const ht_model *m, ht_type type);

/* Reads every expert of every mixture once, through the page cache. EIO: the file cannot be read; ENOMEM, ECANCELLED. */
ht_status ht_standins_open(ht_standins **out, const ht_model *m, const ht_standins_params *params, ht_error *err);
void ht_standins_close(ht_standins *s); /* NULL allowed */

/* The parts of an expert's stand-in. False: it has none. */
bool ht_standins_parts(const ht_standins *s, uint32_t layer, uint32_t expert, ht_part out[HT_N_ROLES]);

#endif
