/* SPDX-License-Identifier: MIT
 *
 * NumPy's .npy files as far as the command needs them: token ids in, float32 arrays out.
 *
 *   "\x93NUMPY" major minor   header length (u16 LE in version 1, u32 LE from 2 on)
 *   {'descr': '<i4', 'fortran_order': False, 'shape': (48,), }   padded with spaces to a multiple of 64, then a newline
 *   the elements
 *
 * A file is read as coming from a stranger: every length is checked against the bytes that are there. */
#ifndef HT_TOOLS_NPY_H
#define HT_TOOLS_NPY_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef enum ht_npy_status { HT_NPY_OK, HT_NPY_UNREADABLE, HT_NPY_UNFIT } ht_npy_status;

/* A 1-D array of any integer type as int32 ids, each 0 or more; *ids: free. why: a phrase on failure. */
ht_npy_status ht_npy_read_ids(const char *path, int32_t **ids, size_t *n, char *why, size_t why_bytes);

/* The head of a float32 array in C order; its elements follow in f. 0, or -1 where f could not take it. */
int ht_npy_write_head(FILE *f, const uint64_t *shape, uint32_t n_dims);

#endif
