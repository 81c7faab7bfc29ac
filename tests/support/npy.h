/* SPDX-License-Identifier: MIT
 *
 * NumPy's .npy files, as golden data comes: token ids and float32 arrays.
 *
 *   "\x93NUMPY" major minor   header length (u16 LE in version 1, u32 LE in 2 and 3)
 *   {'descr': '<i4', 'fortran_order': False, 'shape': (48,), }   padded with spaces, then a newline
 *   the elements
 *
 * Owner: arrays read are the caller's (free). Threads: any. */
#ifndef HT_TESTS_SUPPORT_NPY_H
#define HT_TESTS_SUPPORT_NPY_H

#include <stdint.h>

#include "engine/base/status.h"

/* A 1-D array of int32, int64 or uint32, every element within int32. */
ht_status ht_npy_read_i32(int32_t **out, uint64_t *n, const char *path, ht_error *err);

/* A float32 array in C order of two dimensions, shape[0] rows of shape[1]; a 1-D array counts as one row. */
ht_status ht_npy_read_f32(float **out, uint64_t shape[2], const char *path, ht_error *err);

#endif
