/* SPDX-License-Identifier: MIT
 *
 * GGUF files: opening a file or a split set, and looking things up in it. The bytes of one file are checked and
 * listed by gguf_parse.c; typed reads and overrides are in gguf_kv.c; see gguf.h for the layout.
 *
 * Owner: ht_gguf owns mappings and tables. Threads: opened files are read-only. */
#include <stdio.h>
#include <stdlib.h>

#include "engine/base/hash.h"
#include "engine/gguf_impl.h"
#include "engine/gguf_write.h"

typedef unsigned long long ull;

ht_gguf_show ht_gguf_show_str(ht_str s)
{
    ht_gguf_show out;
    size_t n = s.n < sizeof out.s - 1 ? s.n : sizeof out.s - 4;

    for (size_t i = 0; i < n; i++)
        out.s[i] = s.s[i] >= 0x20 && s.s[i] < 0x7f ? s.s[i] : '?';
    if (n < s.n) {
        memcpy(out.s + n, "...", 3);
        n += 3;
    }
    out.s[n] = 0;
    return out;
}

uint64_t ht_gguf_hash(const char *s, size_t n)
{
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a, 64 bits */
    for (size_t i = 0; i < n; i++)
        h = (h ^ (uint8_t)s[i]) * 0x100000001b3u;
    return h;
}

/* ---- lookup ------------------------------------------------------------------------------------------------------ */

static int compare(uint64_t h, const ht_str *s, const ht_gguf_entry *e)
{
    if (h != e->hash)
        return h < e->hash ? -1 : 1;
    if (s->n != e->name->n)
        return s->n < e->name->n ? -1 : 1;
    return memcmp(s->s, e->name->s, s->n);
}

static int by_hash(const void *a, const void *b)
{
    const ht_gguf_entry *x = a;
    return compare(x->hash, x->name, b);
}

static const ht_str *lookup(const ht_gguf_entry *index, uint64_t n, const char *name)
{
    ht_str s = { name, strlen(name) };
    uint64_t h = ht_gguf_hash(s.s, s.n), lo = 0, hi = n;

    while (lo < hi) {
        uint64_t mid = lo + (hi - lo) / 2;
        int d = compare(h, &s, &index[mid]);
        if (d == 0)
            return index[mid].name;
        if (d < 0)
            hi = mid;
        else
            lo = mid + 1;
    }
    return NULL;
}

static ht_gguf_entry entry_of(const ht_str *name)
{
    return (ht_gguf_entry){ ht_gguf_hash(name->s, name->n), name };
}

/* The two tables, and the proof that no name occurs twice. */
static ht_status build_index(ht_gguf *g, ht_error *err)
{
    g->kv_index = malloc((g->n_kv ? (size_t)g->n_kv : 1) * sizeof *g->kv_index);
    g->tensor_index = malloc((g->n_tensors ? (size_t)g->n_tensors : 1) * sizeof *g->tensor_index);
    if (!g->kv_index || !g->tensor_index)
        return ht_fail(err, HT_ENOMEM, "%s: out of memory", ht_gguf_short(g->files[0].path));
    for (uint64_t i = 0; i < g->n_kv; i++)
        g->kv_index[i] = entry_of(&g->kvs[i].key);
    for (uint64_t i = 0; i < g->n_tensors; i++)
        g->tensor_index[i] = entry_of(&g->tensors[i].name);
    qsort(g->kv_index, (size_t)g->n_kv, sizeof *g->kv_index, by_hash);
    qsort(g->tensor_index, (size_t)g->n_tensors, sizeof *g->tensor_index, by_hash);

    for (uint64_t i = 1; i < g->n_kv; i++)
        if (by_hash(&g->kv_index[i - 1], &g->kv_index[i]) == 0) {
            const ht_kv *a = (const ht_kv *)g->kv_index[i - 1].name, *b = (const ht_kv *)g->kv_index[i].name;
            const ht_kv *second = a->offset > b->offset ? a : b;
            ht_gguf_show s = ht_gguf_show_str(second->key);
            return ht_fail_at(err, HT_EFORMAT, (uint64_t)((const uint8_t *)second->key.s - g->files[0].map.data) - 8,
                              "%s: key '%s' occurs twice", ht_gguf_short(g->files[0].path), s.s);
        }
    for (uint64_t i = 1; i < g->n_tensors; i++)
        if (by_hash(&g->tensor_index[i - 1], &g->tensor_index[i]) == 0) {
            const ht_tensor *a = (const ht_tensor *)g->tensor_index[i - 1].name;
            const ht_tensor *b = (const ht_tensor *)g->tensor_index[i].name;
            const ht_tensor *second = a > b ? a : b;
            ht_gguf_show s = ht_gguf_show_str(second->name);
            return ht_fail_at(err, HT_EFORMAT, second->info_offset, "%s: tensor '%s' occurs twice",
                              ht_gguf_short(g->files[second->file].path), s.s);
        }
    return HT_OK;
}

/* ---- split sets -------------------------------------------------------------------------------------------------- */

/* An integer of a file whose keys are not indexed yet. A missing key gives `absent`. */
static ht_status early_int(const ht_kv *kvs, uint64_t n_kv, const char *key, int64_t absent, int64_t *out,
                           const char *path, ht_error *err)
{
    size_t n = strlen(key);

    *out = absent;
    for (uint64_t i = 0; i < n_kv; i++)
        if (kvs[i].key.n == n && memcmp(kvs[i].key.s, key, n) == 0) {
            if (kvs[i].type == HT_KV_ARRAY || !ht_kv_int(&kvs[i], 0, out) || *out < 0)
                return ht_fail_at(err, HT_EFORMAT, kvs[i].offset, "%s: key '%s' (type %s) is no count", path, key,
                                  ht_gguf_kv_type_name(kvs[i].type));
            return HT_OK;
        }
    return HT_OK;
}

/* The path of file `no` (from 0) of a set, given that of the first; NULL where the name does not follow the pattern.
 * The caller frees. *bad is set for a name that is no first of `count`. */
static char *split_path(const char *first, uint32_t no, uint32_t count, bool *bad)
{
    char tail[48], other[48];
    size_t n = strlen(first);
    int m = snprintf(tail, sizeof tail, "-%05u-of-%05u.gguf", 1u, count);

    *bad = n < (size_t)m || strcmp(first + n - (size_t)m, tail) != 0;
    if (*bad)
        return NULL;
    int k = snprintf(other, sizeof other, "-%05u-of-%05u.gguf", no + 1, count);
    char *path = malloc(n - (size_t)m + (size_t)k + 1);
    if (path) {
        memcpy(path, first, n - (size_t)m);
        memcpy(path + n - (size_t)m, other, (size_t)k + 1);
    }
    return path;
}

/* Maps and parses file `no` and appends its tensors; its keys (only split.* are there) are checked and dropped. */
static ht_status add_part(ht_gguf *g, uint32_t no, uint32_t count, ht_error *err)
{
    ht_gguf_parsed p = { 0 };
    int64_t part_no = 0, part_count = 0;
    bool bad;
    const char *first = ht_gguf_short(g->files[0].path);
    char *path = split_path(g->files[0].path, no, count, &bad);

    if (bad)
        return ht_fail(err, HT_EFORMAT, "%s: split.count is %u, but the name does not end in -00001-of-%05u.gguf",
                       first, count, count);
    if (!path)
        return ht_fail(err, HT_ENOMEM, "%s: out of memory", first);
    const char *shown = ht_gguf_short(path); /* of the string that becomes the file's own */
    g->files[no] = (ht_gguf_file){ .path = path, .map.fd = -1 };
    g->n_files = no + 1;
    ht_status st = ht_os_map_open(&g->files[no].map, path, err);
    if (st == HT_OK)
        st = ht_gguf_parse(&p, &g->files[no], no, err);
    if (st == HT_OK)
        st = early_int(p.kvs, p.n_kv, "split.no", -1, &part_no, shown, err);
    if (st == HT_OK)
        st = early_int(p.kvs, p.n_kv, "split.count", -1, &part_count, shown, err);
    if (st == HT_OK && (part_no != no || part_count != count))
        st = ht_fail(err, HT_EFORMAT, "%s: split.no is %lld of split.count %lld, wanted %u of %u", shown,
                     (long long)part_no, (long long)part_count, no, count);
    if (st == HT_OK && p.n_tensors > HT_GGUF_MAX_TENSORS - g->n_tensors)
        st = ht_fail(err, HT_EUNSUPPORTED, "%s: the set has more than %d tensors", shown, HT_GGUF_MAX_TENSORS);
    if (st == HT_OK && p.n_tensors > 0) {
        ht_tensor *t = realloc(g->tensors, (size_t)(g->n_tensors + p.n_tensors) * sizeof *t);
        if (t) {
            memcpy(t + g->n_tensors, p.tensors, (size_t)p.n_tensors * sizeof *t);
            g->tensors = t;
            g->n_tensors += p.n_tensors;
        } else {
            st = ht_fail(err, HT_ENOMEM, "%s: out of memory", shown);
        }
    }
    free(p.kvs);
    free(p.tensors);
    return st;
}

static ht_status open_rest(ht_gguf *g, ht_error *err)
{
    const char *path = ht_gguf_short(g->files[0].path);
    int64_t no = 0, count = 1, total = -1;
    ht_status st;

    if ((st = early_int(g->kvs, g->n_kv, "split.count", 1, &count, path, err)) != HT_OK)
        return st;
    if (count <= 1)
        return HT_OK;
    if (count > HT_GGUF_MAX_FILES)
        return ht_fail(err, HT_EUNSUPPORTED, "%s: split.count is %lld, supported are up to %d", path, (long long)count,
                       HT_GGUF_MAX_FILES);
    if ((st = early_int(g->kvs, g->n_kv, "split.no", 0, &no, path, err)) != HT_OK ||
        (st = early_int(g->kvs, g->n_kv, "split.tensors.count", -1, &total, path, err)) != HT_OK)
        return st;
    if (g->files[0].borrowed)
        return ht_fail(err, HT_EUNSUPPORTED, "%s: split.count is %lld: a split set cannot be opened from memory", path,
                       (long long)count);
    if (no != 0)
        return ht_fail(err, HT_EUNSUPPORTED, "%s: part %lld of a split set of %lld: open its first file instead", path,
                       (long long)no + 1, (long long)count);
    ht_gguf_file *files = realloc(g->files, (size_t)count * sizeof *files);
    if (!files)
        return ht_fail(err, HT_ENOMEM, "%s: out of memory", path);
    g->files = files;
    for (uint32_t i = 1; i < (uint32_t)count; i++)
        if ((st = add_part(g, i, (uint32_t)count, err)) != HT_OK)
            return st;
    if (total >= 0 && (uint64_t)total != g->n_tensors)
        return ht_fail(err, HT_EFORMAT, "%s: split.tensors.count is %lld, but the %lld files hold %llu tensors", path,
                       (long long)total, (long long)count, (ull)g->n_tensors);
    return HT_OK;
}

/* ---- open and close ---------------------------------------------------------------------------------------------- */

/* *g holds one file, mapped or borrowed, and nothing else. */
static ht_status open_first(ht_gguf *g, ht_error *err)
{
    ht_gguf_parsed p;
    ht_status st = ht_gguf_parse(&p, &g->files[0], 0, err);

    if (st != HT_OK)
        return st;
    g->version = p.version;
    g->powerinfer = p.powerinfer;
    g->kvs = p.kvs;
    g->n_kv = p.n_kv;
    g->tensors = p.tensors;
    g->n_tensors = p.n_tensors;
    if ((st = open_rest(g, err)) != HT_OK)
        return st;
    return build_index(g, err);
}

/* An object with one file of that name, not opened yet; NULL without memory. */
static ht_gguf *alloc_object(const char *path)
{
    ht_gguf *g = calloc(1, sizeof *g);

    if (!g)
        return NULL;
    g->files = calloc(1, sizeof *g->files);
    if (g->files) {
        g->n_files = 1;
        g->files[0].map.fd = -1;
        g->files[0].path = strdup(path);
    }
    if (!g->files || !g->files[0].path)
        ht_gguf_close(&g);
    return g;
}

ht_status ht_gguf_open(ht_gguf **out, const char *path, ht_error *err)
{
    ht_gguf *g = alloc_object(path);

    *out = NULL;
    if (!g)
        return ht_fail(err, HT_ENOMEM, "%s: out of memory", ht_gguf_short(path));
    ht_status st = ht_os_map_open(&g->files[0].map, path, err);
    if (st == HT_OK)
        st = open_first(g, err);
    if (st != HT_OK)
        ht_gguf_close(&g);
    *out = g;
    return st;
}

ht_status ht_gguf_open_memory(ht_gguf **out, const void *bytes, size_t n, ht_error *err)
{
    ht_gguf *g = alloc_object("(memory)");

    *out = NULL;
    if (!g)
        return ht_fail(err, HT_ENOMEM, "(memory): out of memory");
    g->files[0].map = (ht_os_map){ bytes, n, -1 };
    g->files[0].borrowed = true;
    ht_status st = open_first(g, err);
    if (st != HT_OK)
        ht_gguf_close(&g);
    *out = g;
    return st;
}

void ht_gguf_close(ht_gguf **pg)
{
    ht_gguf *g = pg ? *pg : NULL;

    if (!g)
        return;
    ht_gguf_extra_free(g);
    for (uint32_t i = 0; i < g->n_files; i++) {
        if (!g->files[i].borrowed)
            ht_os_map_close(&g->files[i].map);
        free(g->files[i].path);
    }
    free(g->files);
    free(g->kvs);
    free(g->tensors);
    free(g->kv_index);
    free(g->tensor_index);
    free(g);
    *pg = NULL;
}

/* ---- access ------------------------------------------------------------------------------------------------------ */

const char *ht_gguf_path(const ht_gguf *g, uint32_t file)
{
    return file < g->n_files ? g->files[file].path : "(no such file)";
}

uint32_t ht_gguf_n_files(const ht_gguf *g)
{
    return g->n_files;
}

int ht_gguf_fd(const ht_gguf *g, uint32_t file)
{
    return file < g->n_files ? g->files[file].map.fd : -1;
}

uint32_t ht_gguf_version(const ht_gguf *g)
{
    return g->version;
}

bool ht_gguf_powerinfer(const ht_gguf *g)
{
    return g->powerinfer;
}

uint64_t ht_gguf_file_bytes(const ht_gguf *g, uint32_t file)
{
    return file < g->n_files ? g->files[file].map.bytes : 0;
}

bool ht_gguf_locate(const ht_gguf *g, const void *p, uint32_t *file, uint64_t *offset)
{
    const uintptr_t at = (uintptr_t)p;

    for (uint32_t i = 0; i < g->n_files; i++) {
        const ht_os_map *map = &g->files[i].map;
        const uintptr_t begin = (uintptr_t)map->data;
        if (!map->data || at < begin || at - begin >= map->bytes)
            continue;
        *file = i;
        *offset = at - begin;
        return true;
    }
    return false;
}

ht_status ht_gguf_check_size(const ht_gguf *g, ht_error *err)
{
    for (uint32_t i = 0; i < g->n_files; i++) {
        uint64_t now = g->files[i].borrowed ? UINT64_MAX : ht_os_map_size_now(&g->files[i].map);
        if (now < g->files[i].map.bytes)
            return ht_fail(err, HT_EIO, "%s: the file was cut from %llu to %llu bytes while it was open",
                           ht_gguf_short(g->files[i].path), (ull)g->files[i].map.bytes, (ull)now);
    }
    return HT_OK;
}

void ht_gguf_forget(const ht_gguf *g)
{
    const size_t page = ht_os_page();

    for (uint32_t i = 0; i < g->n_files; i++)
        if (!g->files[i].borrowed && g->files[i].map.data)
            ht_os_decommit((void *)(uintptr_t)g->files[i].map.data, (size_t)((g->files[i].map.bytes + page - 1) / page * page));
}

uint64_t ht_gguf_table_bytes(const ht_gguf *g)
{
    return g->n_kv * (sizeof *g->kvs + sizeof *g->kv_index) +
           g->n_tensors * (sizeof *g->tensors + sizeof *g->tensor_index);
}

uint64_t ht_gguf_n_kv(const ht_gguf *g)
{
    return g->n_kv + g->n_extra;
}

const ht_kv *ht_gguf_kv_at(const ht_gguf *g, uint64_t i)
{
    if (i < g->n_kv)
        return &g->kvs[i];
    i -= g->n_kv;
    for (const ht_gguf_extra *e = g->extra; e; e = e->next)
        if (e->added && i-- == 0)
            return &e->kv;
    return NULL;
}

const ht_kv *ht_gguf_find(const ht_gguf *g, const char *key)
{
    return (const ht_kv *)lookup(g->kv_index, g->n_kv + g->n_extra, key);
}

uint64_t ht_gguf_n_tensors(const ht_gguf *g)
{
    return g->n_tensors;
}

const ht_tensor *ht_gguf_tensor_at(const ht_gguf *g, uint64_t i)
{
    return i < g->n_tensors ? &g->tensors[i] : NULL;
}

const ht_tensor *ht_gguf_find_tensor(const ht_gguf *g, const char *name)
{
    return (const ht_tensor *)lookup(g->tensor_index, g->n_tensors, name);
}

ht_status ht_gguf_index_add(ht_gguf *g, const ht_kv *kv)
{
    uint64_t n = g->n_kv + g->n_extra;
    ht_gguf_entry *index = realloc(g->kv_index, (size_t)(n + 1) * sizeof *index);

    if (!index)
        return HT_ENOMEM;
    index[n] = entry_of(&kv->key);
    qsort(index, (size_t)n + 1, sizeof *index, by_hash);
    g->kv_index = index;
    g->n_extra++;
    return HT_OK;
}

ht_status ht_gguf_verify(const ht_gguf *g, ht_error *err)
{
    const ht_tensor *t = ht_gguf_find_tensor(g, HT_GGUF_CHECKSUM);
    const char *path = ht_gguf_path(g, 0);
    uint64_t bytes = ht_gguf_file_bytes(g, 0), h[2];
    ht_hash hash;
    bool same = true;

    if (!t || !t->data || t->bytes != HT_GGUF_CHECKSUM_BYTES || t->file || ht_gguf_n_files(g) != 1)
        return ht_fail(err, HT_EFORMAT, "%s: the file has no checksum at its end", path);
    ht_status st = ht_gguf_check_size(g, err);
    if (st != HT_OK)
        return st;
    const uint8_t *sum = t->data, *file = sum - t->offset;
    ht_hash_begin(&hash, 0);
    ht_hash_add(&hash, file, (size_t)t->offset);
    ht_hash_end(&hash, h);
    for (uint32_t i = 0; i < HT_GGUF_CHECKSUM_BYTES; i++)
        same &= sum[i] == (uint8_t)(h[i / 8] >> (8 * (i % 8)));
    for (uint64_t i = t->offset + t->bytes; i < bytes; i++)
        same &= file[i] == 0;
    return same ? HT_OK
                : ht_fail(err, HT_EFORMAT, "%s: the file is damaged: its bytes do not match its checksum",
                                         path);
}
