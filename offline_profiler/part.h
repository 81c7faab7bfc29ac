/* SPDX-License-Identifier: MIT
 *
 * The state of an unfinished run in a file, so that another sitting goes on from it. A private format of this version,
 * in the machine's own byte order, not for exchange:
 *
 *   "hearthpt" u32 version, char fingerprint[32], u64 settings[2], u64 tokens, u64 windows, the statistics, u64
 * checksum[2]
 *
 * It is written to PATH.new and renamed, so that PATH is whole at every moment.
 *
 * Owner: no state. Threads: one at a time on a path. */
#ifndef HT_PART_H
#define HT_PART_H

#include "offline_profiler/stats.h"

typedef struct ht_part_state {
    char model[33];
    uint64_t settings[2]; /* a hash of the text's tokens and of what else decides the numbers */
    uint64_t tokens, windows;
} ht_part_state;

ht_status ht_part_save(const char *path, const ht_part_state *state, const ht_stats *stats, ht_error *err);
/* want->model and want->settings say what is expected. *found false: there is no such file, nothing is changed. Fails:
 * HT_EMISMATCH, HT_EFORMAT, HT_EIO, HT_ENOMEM; stats may then hold blocks. */
ht_status ht_part_load(const char *path, ht_part_state *want, ht_stats *stats, bool *found, ht_error *err);

#endif
