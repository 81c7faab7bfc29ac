/* SPDX-License-Identifier: MIT
 *
 * What the files gguf*.c share: the opened object, one parsed file, and small helpers for messages. Nobody else
 * includes this; see gguf.h for the interface and the byte layout.
 *
 * Owner: ht_gguf owns the mappings, the tables and the values given by --override. Threads: built by one, then
 * read-only. */
#ifndef HT_GGUF_IMPL_H
#define HT_GGUF_IMPL_H

#include <string.h>

#include "engine/base/os.h"
#include "engine/gguf.h"

/* Bounds no real model comes near (the largest have a few thousand tensors); they keep the tables of a hostile file
 * of any size below 100 MB and its check below a second. */
enum {
    HT_GGUF_MAX_KV = 1 << 18,
    HT_GGUF_MAX_TENSORS = 1 << 19,
    HT_GGUF_MAX_KEY = 65535,   /* as the specification says */
    HT_GGUF_MAX_NAME = 65536,  /* the specification says 64; some tools write longer */
    HT_GGUF_MAX_FILES = 4096,
    HT_GGUF_MIN_ALIGN = 8,     /* the specification: a multiple of 8 */
    HT_GGUF_MAX_ALIGN = 1 << 24,
    HT_GGUF_DEFAULT_ALIGN = 32
};

/* One file: its name and its bytes. */
typedef struct ht_gguf_file {
    char *path; /* owned; "(memory)" for memory */
    ht_os_map map;
    bool borrowed; /* the bytes are the caller's */
} ht_gguf_file;

/* What the parser makes of one file. Both arrays are malloc'ed and belong to the receiver. */
typedef struct ht_gguf_parsed {
    uint32_t version;
    bool powerinfer;
    ht_kv *kvs;
    uint64_t n_kv;
    ht_tensor *tensors;
    uint64_t n_tensors;
} ht_gguf_parsed;

/* Entry of a lookup table sorted by hash. A sorted table, not open addressing: its worst case does not depend on the
 * keys, which a hostile file chooses. `name` is the first member of its ht_kv or ht_tensor. */
typedef struct ht_gguf_entry {
    uint64_t hash;
    const ht_str *name;
} ht_gguf_entry;

typedef struct ht_gguf_extra ht_gguf_extra; /* one value given by --override */

struct ht_gguf {
    ht_gguf_file *files;
    uint32_t n_files;
    uint32_t version;
    bool powerinfer;
    ht_kv *kvs;
    uint64_t n_kv;
    ht_tensor *tensors;
    uint64_t n_tensors;
    ht_gguf_entry *kv_index;     /* [n_kv] */
    ht_gguf_entry *tensor_index; /* [n_tensors] */
    ht_gguf_extra *extra;        /* list, newest last */
    uint64_t n_extra;            /* how many of them are added keys */
};

struct ht_gguf_extra {
    ht_gguf_extra *next;
    ht_kv kv;        /* meaningful where added */
    bool added;      /* a new key; else `bytes` is the new value of a key of the file */
    uint8_t bytes[]; /* the value as a file would hold it, then the key where added */
};

/* gguf_parse.c: checks and lists one file; `index` is its number in the set. On failure *out holds nothing. */
ht_status ht_gguf_parse(ht_gguf_parsed *out, const ht_gguf_file *f, uint32_t index, ht_error *err);

/* gguf_kv.c */
extern const uint8_t ht_gguf_kv_bytes[13]; /* of a scalar of each ht_kv_type; 0 for strings and arrays */
const char *ht_gguf_kv_type_name(uint32_t type);
void ht_gguf_extra_free(ht_gguf *g);

/* gguf.c */
uint64_t ht_gguf_hash(const char *s, size_t n);
ht_status ht_gguf_index_add(ht_gguf *g, const ht_kv *kv); /* kv stays where it is */

/* An excerpt of untrusted bytes that a terminal and a log can bear. */
typedef struct ht_gguf_show { char s[72]; } ht_gguf_show;
ht_gguf_show ht_gguf_show_str(ht_str s);

/* The end of a path where the whole would push the fault itself out of the message. */
static inline const char *ht_gguf_short(const char *path)
{
    size_t n = strlen(path); /* NOLINT: the analyser loses the first path where the list of files grows */
    return n > 160 ? path + (n - 160) : path;
}

static inline uint32_t ht_gguf_le32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint64_t ht_gguf_le64(const uint8_t *p)
{
    return (uint64_t)ht_gguf_le32(p) | (uint64_t)ht_gguf_le32(p + 4) << 32;
}

#endif
