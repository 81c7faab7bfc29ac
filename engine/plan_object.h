/* SPDX-License-Identifier: MIT
 * What a hearth_plan is. Included by the files that implement it only. */
#ifndef HT_PLAN_OBJECT_H
#define HT_PLAN_OBJECT_H

#include "engine/hearth.h"
#include "engine/plan_model.h"

struct hearth_plan {
    ht_gguf *gguf;
    ht_model m;
    ht_plan_made made;
    char name[128], description[200];
    const char *isa, *io;
    uint32_t threads, n_ctx, depth, prompt, batch;
    ht_type kv;
    ht_budget budget;
    uint64_t fixed_bytes;
    double disk_bps;
    bool gpu, profiled;
};

#endif
