/* SPDX-License-Identifier: MIT
 *
 * Writing GGUF files (version 3), front to back without going back: metadata, declarations of all tensors, then
 * their data in the order declared. The file appears under its name only when close succeeds (see outfile.h).
 *
 * A failure sticks: after it every call returns the same status and close fails, so that the many set calls need no
 * checks of their own. The layout is drawn in gguf.h; tensors start at multiples of general.alignment (32 where not
 * set), the last one is padded too, as readers of the ggml family want it.
 *
 * Owner: the writer copies what it is given. Threads: one at a time. */
#ifndef HT_GGUF_WRITE_H
#define HT_GGUF_WRITE_H

#include "engine/gguf.h"

typedef struct ht_gguf_writer ht_gguf_writer;

ht_status ht_gguf_writer_open(ht_gguf_writer **out, const char *path, ht_error *err);
/* Ends the file and takes the writer away, with or without success. On failure nothing is left on disk. */
ht_status ht_gguf_writer_close(ht_gguf_writer **w, ht_error *err);
void ht_gguf_writer_abort(ht_gguf_writer **w); /* NULL and *NULL allowed */

/* Metadata, before the first data. A key that is there already is replaced in its place. HT_EINVAL: an empty key or one
 * above 65535 bytes, a type that does not fit, a bad general.alignment. */
ht_status ht_gguf_writer_set_u32(ht_gguf_writer *w, const char *key, uint32_t v);
ht_status ht_gguf_writer_set_i32(ht_gguf_writer *w, const char *key, int32_t v);
ht_status ht_gguf_writer_set_u64(ht_gguf_writer *w, const char *key, uint64_t v);
ht_status ht_gguf_writer_set_f32(ht_gguf_writer *w, const char *key, float v);
ht_status ht_gguf_writer_set_bool(ht_gguf_writer *w, const char *key, bool v);
ht_status ht_gguf_writer_set_str(ht_gguf_writer *w, const char *key, ht_str v);
/* A scalar or n elements of any type but string and array; values: host integers or floats of that width, bool as
 * bytes. */
ht_status ht_gguf_writer_set_scalar(ht_gguf_writer *w, const char *key, ht_kv_type type, const void *value);
ht_status ht_gguf_writer_set_array(ht_gguf_writer *w, const char *key, ht_kv_type elem, const void *values, uint64_t n);
ht_status ht_gguf_writer_set_strings(ht_gguf_writer *w, const char *key, const ht_str *values, uint64_t n);
ht_status ht_gguf_writer_set_kv(ht_gguf_writer *w, const ht_kv *kv); /* as another file has it */
/* All keys of a file, overrides included, but for split.*. */
ht_status ht_gguf_writer_copy(ht_gguf_writer *w, const ht_gguf *g);
void ht_gguf_writer_drop(ht_gguf_writer *w, const char *key); /* takes a key out again, if it is there */

/* The next tensor: any type with a known geometry. HT_EINVAL: no name, more than 4 dimensions, rows that are no whole
 * blocks, after the first data. Two of the same name fail at the first data. */
ht_status ht_gguf_writer_declare(ht_gguf_writer *w, ht_str name, uint32_t type, uint32_t n_dims, const uint64_t *ne,
                                 ht_error *err);
/* A last tensor HT_GGUF_CHECKSUM holds the hash (engine/base/hash.h, seed 0) of all bytes before it. Before any data. */
#define HT_GGUF_CHECKSUM "hearth.checksum"
enum { HT_GGUF_CHECKSUM_BYTES = 16 };
void ht_gguf_writer_seal(ht_gguf_writer *w);
/* The next n bytes of data; they may run across tensors, padding is put between them. */
ht_status ht_gguf_writer_raw(ht_gguf_writer *w, const void *bytes, uint64_t n, ht_error *err);
/* The next n elements, encoded to the declared types (ht_type_can_quantise); n ends on whole blocks of each tensor. */
ht_status ht_gguf_writer_floats(ht_gguf_writer *w, const float *values, uint64_t n, ht_error *err);

#endif
