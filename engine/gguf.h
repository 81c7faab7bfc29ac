/* SPDX-License-Identifier: MIT
 *
 * GGUF files, v2 and v3, single or split: reading. Every byte is untrusted: counts, lengths, offsets and types are
 * checked against the file's size before they are used; a fault is HT_EFORMAT (or HT_EUNSUPPORTED for an unknown
 * version or big endian file) with field, value and byte offset. Memory taken is proportional to the bytes really
 * present.
 *
 *   file:   "GGUF" (PowerInfer's files: "PWRI") u32 version, u64 n_tensors, u64 n_kv, n_kv key-values, n_tensors tensor infos, pad, data
 *   string: u64 length, bytes (no terminator)          kv: string key, u32 type, value
 *   array:  u32 element type, u64 n, values            tensor: string name, u32 n_dims, u64 dims[], u32 type, u64
 *   offset
 *
 * Owner: ht_gguf owns the mapping; views point into it and live until ht_gguf_close. Threads: opened files are
 * read-only. */
#ifndef HT_GGUF_H
#define HT_GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/base/status.h"

typedef enum ht_kv_type {
    HT_KV_U8, HT_KV_I8, HT_KV_U16, HT_KV_I16, HT_KV_U32, HT_KV_I32, HT_KV_F32, HT_KV_BOOL,
    HT_KV_STRING, HT_KV_ARRAY, HT_KV_U64, HT_KV_I64, HT_KV_F64
} ht_kv_type;

typedef struct ht_str { const char *s; size_t n; } ht_str; /* not terminated, any bytes */

typedef struct ht_kv {
    ht_str key;
    ht_kv_type type;
    ht_kv_type elem;     /* element type where type is HT_KV_ARRAY */
    uint64_t n;          /* elements of an array; 1 otherwise */
    const uint8_t *data; /* first byte of the value (of the first element); strings: of the length field */
    uint64_t offset;     /* byte offset of the value in its file */
} ht_kv;

typedef struct ht_tensor {
    ht_str name;
    uint32_t type;       /* GGUF type id; may be one that ht_type_get() does not know */
    uint32_t n_dims;     /* 0..4 */
    uint64_t ne[4];      /* ne[0] is the row length; unused dimensions are 1 */
    uint64_t bytes;      /* 0 for an empty tensor, and where the type's geometry is not known */
    const void *data;    /* in the mapping; NULL where bytes is 0 */
    uint32_t file;       /* which file of a split set */
    uint64_t offset;     /* byte offset of the data in that file */
    uint64_t info_offset;/* byte offset of the tensor info, for messages */
} ht_tensor;

typedef struct ht_gguf ht_gguf;

/* Opens `path`, and the rest of its split set where split.count > 1 (path must then be the first of the set). */
ht_status ht_gguf_open(ht_gguf **out, const char *path, ht_error *err);
/* The same from memory (fuzzing, tests); the bytes stay the caller's and must outlive the object. */
ht_status ht_gguf_open_memory(ht_gguf **out, const void *bytes, size_t n, ht_error *err);
void ht_gguf_close(ht_gguf **g); /* NULL and *NULL allowed */

const char *ht_gguf_path(const ht_gguf *g, uint32_t file);
uint32_t ht_gguf_n_files(const ht_gguf *g);
int ht_gguf_fd(const ht_gguf *g, uint32_t file); /* -1 for memory */
/* Where a byte of the mapping lies: which file, and at which offset. False: in none. */
bool ht_gguf_locate(const ht_gguf *g, const void *p, uint32_t *file, uint64_t *offset);
uint32_t ht_gguf_version(const ht_gguf *g);
/* Whether the file (the first of a set) begins with "PWRI": PowerInfer's name for a model whose neurons are to be skipped. */
bool ht_gguf_powerinfer(const ht_gguf *g);
uint64_t ht_gguf_file_bytes(const ht_gguf *g, uint32_t file);
/* HT_EIO where a file is shorter now than when it was opened: touching its end would end the process. */
ht_status ht_gguf_check_size(const ht_gguf *g, ht_error *err);
/* Reads the whole file and compares it with the checksum at its end (ht_gguf_writer_seal). EFORMAT: it differs, or there is
 * none. */
ht_status ht_gguf_verify(const ht_gguf *g, ht_error *err);
/* The mapped pages are no longer this process's: they come back when they are touched. */
void ht_gguf_forget(const ht_gguf *g);
uint64_t ht_gguf_table_bytes(const ht_gguf *g); /* memory taken beside the mapping */

uint64_t ht_gguf_n_kv(const ht_gguf *g);
const ht_kv *ht_gguf_kv_at(const ht_gguf *g, uint64_t i);
const ht_kv *ht_gguf_find(const ht_gguf *g, const char *key); /* NULL where absent; O(log n) */
uint64_t ht_gguf_n_tensors(const ht_gguf *g);
const ht_tensor *ht_gguf_tensor_at(const ht_gguf *g, uint64_t i);
const ht_tensor *ht_gguf_find_tensor(const ht_gguf *g, const char *name);

/* Adds or replaces a scalar as `--override KEY=VALUE` asks: the key's own type where it exists (else: string for
 * *.hidden_activation, bool/int/float by its spelling). */
ht_status ht_gguf_override(ht_gguf *g, const char *key, const char *value, ht_error *err);

/* Typed reads. A missing key leaves *out as it is (the caller's default) and returns HT_OK; a key of another kind, or a
 * value out of range, is HT_EFORMAT. *_need variants fail on a missing key too. Any integer type is accepted where an
 * integer is asked for; any float or integer for a float. */
ht_status ht_gguf_u32(const ht_gguf *g, const char *key, uint32_t *out, ht_error *err);
ht_status ht_gguf_need_u32(const ht_gguf *g, const char *key, uint32_t *out, ht_error *err);
ht_status ht_gguf_u64(const ht_gguf *g, const char *key, uint64_t *out, ht_error *err);
ht_status ht_gguf_f32(const ht_gguf *g, const char *key, float *out, ht_error *err);
ht_status ht_gguf_bool(const ht_gguf *g, const char *key, bool *out, ht_error *err);
ht_status ht_gguf_str(const ht_gguf *g, const char *key, ht_str *out, ht_error *err);

/* Element i of a value or array, converted; false where it is not of that kind or out of range. Strings in arrays are
 * found by walking: use ht_gguf_strings for whole vocabularies. */
bool ht_kv_int(const ht_kv *kv, uint64_t i, int64_t *out);
bool ht_kv_float(const ht_kv *kv, uint64_t i, double *out);
bool ht_kv_str(const ht_kv *kv, ht_str *out);
/* Fills out[0..kv->n) with the strings of a string array (already checked at open). */
bool ht_kv_strings(const ht_kv *kv, ht_str *out);

#endif
