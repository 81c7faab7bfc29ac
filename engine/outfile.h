/* SPDX-License-Identifier: MIT
 *
 * A file that appears whole or not at all: bytes go to PATH.N.part beside the target, which closing renames over it and
 * aborting removes. Devices and pipes (/dev/null, /dev/stdout) are written directly. Bytes are only appended, never
 * revised.
 *
 * Owner: the caller's struct; close and abort leave it empty. Threads: one at a time. */
#ifndef HT_OUTFILE_H
#define HT_OUTFILE_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "engine/base/hash.h"
#include "engine/base/status.h"

typedef struct ht_outfile {
    FILE *f;
    char *path, *part; /* part: NULL where written directly */
    uint64_t bytes;    /* written so far */
    ht_hash *hash;     /* gets every byte too; NULL: nobody asked. The caller's */
} ht_outfile;

ht_status ht_outfile_open(ht_outfile *o, const char *path, ht_error *err);
ht_status ht_outfile_write(ht_outfile *o, const void *bytes, size_t n, ht_error *err);
ht_status ht_outfile_zeros(ht_outfile *o, uint64_t n, ht_error *err);
ht_status ht_outfile_close(ht_outfile *o, ht_error *err); /* on failure the part is removed */
void ht_outfile_abort(ht_outfile *o);                     /* zero-initialised objects too */

#endif
