/* SPDX-License-Identifier: MIT
 * What hearth inspect tells of a packed model beside its tensors. Threads: one. */
#ifndef HT_INSPECT_PACK_H
#define HT_INSPECT_PACK_H

#include <cjson/cJSON.h>

#include "engine/hearth.h"

/* A table on stdout: blocks, how they lie, and how few groups make up 80 % of what fires. Nothing for a plain file. Not 0:
 * the file is damaged (told). */
int ht_inspect_print_packed(const hearth_file *f);
/* The same as "packed": an object, null for a plain file. False: out of memory, or damaged. */
bool ht_inspect_add_packed(cJSON *j, const hearth_file *f);

#endif
