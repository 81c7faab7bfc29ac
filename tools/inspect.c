/* SPDX-License-Identifier: MIT
 *
 * hearth inspect: what a GGUF file holds, whatever its architecture: metadata and tensors as tables or JSON, or one
 * tensor as float32 .npy. Only the container is read, no model is made of it. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/commands.h"
#include "tools/inspect_pack.h"
#include "tools/npy.h"
#include "tools/report.h"

#define AT(member) offsetof(ht_options, member)

static const ht_flag own_flags[] = {
    { 0, "tensor", "NAME", HT_FLAG_TEXT, AT(tensor), 0, 0, NULL, NULL,
      "only this tensor; with -o its elements are written" },
    { 'o', "output", "OUT.npy", HT_FLAG_TEXT, AT(out), 0, 0, NULL, NULL,
      "where --tensor is written: float32, row-major, in numpy's order of dimensions" },
    { 0 },
};

/* "4096 x 32000", or numpy's "(32000, 4096)". */
static const char *shape_text(const hearth_tensor *t, char *buf, size_t bytes)
{
    size_t n = 0;
    buf[0] = 0;
    for (uint32_t d = 0; d < t->n_dims && n < bytes; d++)
        n += (size_t)snprintf(buf + n, bytes - n, d ? " x %" PRIu64 : "%" PRIu64, t->ne[d]);
    return buf;
}

static uint64_t elements(const hearth_tensor *t)
{
    uint64_t n = 1;
    for (uint32_t d = 0; d < t->n_dims; d++)
        n *= t->ne[d];
    return n;
}

/* Prints text from a file: what a terminal could take as a command is shown as '?', line breaks as \n. Whole
 * characters. */
static void print_clean(const char *text, size_t n, size_t most)
{
    size_t i = 0;
    while (i < n && i < most) {
        bool shown;
        size_t len = ht_shown_character(text + i, n - i, &shown);
        if (shown)
            fwrite(text + i, 1, len, stdout);
        else
            fputs(text[i] == '\n' ? "\\n" : "?", stdout);
        i += len;
    }
    if (i < n)
        fputs("...", stdout);
}

static const char *size_text(uint64_t bytes, char *buf, size_t room)
{
    double v = (double)bytes;
    const char *unit = " KMGT";
    while (v >= 1024 && unit[1] != 'T') {
        v /= 1024;
        unit++;
    }
    if (*unit == ' ')
        snprintf(buf, room, "%" PRIu64 " B", bytes);
    else
        snprintf(buf, room, "%.1f %cB", v, *unit);
    return buf;
}

static int print_tables(const hearth_file *f, const char *path, int64_t only)
{
    char size[32], shape[128];
    uint64_t n_meta = hearth_file_n_meta(f), n_tensors = hearth_file_n_tensors(f);
    if (only < 0) {
        fputs("file     ", stdout);
        print_clean(path, strlen(path), 4096);
        printf("\nformat   %s version %u, %u part%s, %s\n",
               hearth_file_powerinfer(f) ? "PowerInfer's GGUF (PWRI)" : "GGUF", hearth_file_version(f), hearth_file_parts(f),
               hearth_file_parts(f) == 1 ? "" : "s", size_text(hearth_file_bytes(f), size, sizeof size));
        printf("\n%" PRIu64 " metadata\n", n_meta);
    }
    for (uint64_t i = 0; only < 0 && i < n_meta; i++) {
        hearth_meta m;
        char *text = NULL, type[64];
        size_t n = 0;
        if (hearth_file_meta(f, i, &m) != HEARTH_OK || hearth_file_meta_text(f, i, 8, &text, &n) != HEARTH_OK) {
            ht_complain("metadata %" PRIu64 " cannot be read", i);
            return HT_EXIT_MODEL;
        }
        bool array = !strncmp(m.type, "array", 5);
        snprintf(type, sizeof type, array ? "%s[%" PRIu64 "]" : "%s", m.type, m.n);
        fputs("  ", stdout);
        print_clean(m.key, strlen(m.key), 200);
        printf("%*s %-22s ", strlen(m.key) < 44 ? (int)(44 - strlen(m.key)) : 0, "", type);
        print_clean(text, n, 100);
        putchar('\n');
        hearth_free(text);
    }
    if (only < 0)
        printf("\n%" PRIu64 " tensors (row length first)\n", n_tensors);
    for (uint64_t i = 0; i < n_tensors; i++) {
        hearth_tensor t;
        if (only >= 0 && (uint64_t)only < n_tensors && i != (uint64_t)only)
            continue;
        if (only >= 0)
            i = (uint64_t)only; /* one that is held packed comes after all others */
        if (hearth_file_tensor(f, i, &t) != HEARTH_OK) {
            ht_complain("tensor %" PRIu64 " cannot be read", i);
            return HT_EXIT_MODEL;
        }
        fputs("  ", stdout);
        print_clean(t.name, strlen(t.name), 200);
        printf("%*s %-8s %-22s %10s  at %" PRIu64 "%s\n", strlen(t.name) < 44 ? (int)(44 - strlen(t.name)) : 0, "",
               t.type, shape_text(&t, shape, sizeof shape), size_text(t.bytes, size, sizeof size), t.offset,
               t.readable ? "" : "  (its elements cannot be decoded)");
    }
    if (only < 0 && ht_inspect_print_packed(f))
        return HT_EXIT_MODEL;
    return ht_stdout_done(HT_EXIT_OK);
}

/* A scalar of metadata with its own JSON type. */
static void add_scalar(cJSON *j, const char *name, const char *type, const char *text, size_t n)
{
    if (!strcmp(type, "bool")) {
        cJSON_AddBoolToObject(j, name, !strcmp(text, "true"));
    } else if (type[0] == 'u' || type[0] == 'i') {
        cJSON_AddRawToObject(j, name, text); /* as written: 64-bit integers are no doubles */
    } else if (type[0] == 'f') {
        ht_report_number(j, name, strtod(text, NULL));
    } else {
        ht_report_text(j, name, text, n);
    }
}

/* Spelled here, not as cJSON nodes: vocabularies have hundreds of thousands of elements. */
typedef struct list {
    char *s;
    size_t n, room;
    bool strings;
} list;

static bool add_element(void *user, const char *text, size_t n)
{
    list *l = user;
    bool number = n && !text[strspn(text, "0123456789+-.e")], truth = n == 4 || n == 5;
    if (l->n + 6 * n + 8 > l->room) {
        size_t room = 2 * (l->n + 6 * n + 8);
        char *more = realloc(l->s, room);
        if (!more)
            return false;
        l->s = more;
        l->room = room;
    }
    if (l->n > 1)
        l->s[l->n++] = ',';
    if (l->strings)
        l->n += ht_report_quote(l->s + l->n, text, n);
    else if (number || (truth && (!strcmp(text, "true") || !strcmp(text, "false"))))
        l->n += (size_t)sprintf(l->s + l->n, "%s", text);
    else
        l->n += (size_t)sprintf(l->s + l->n, "null"); /* JSON has no NaN and no infinity */
    return true;
}

static bool add_array(cJSON *j, const hearth_file *f, uint64_t i, const char *type)
{
    list l = { malloc(64), 1, 64, strstr(type, "string") != NULL };
    if (!l.s)
        return false;
    l.s[0] = '[';
    bool ok = hearth_file_meta_each(f, i, add_element, &l) == HEARTH_OK;
    if (ok) {
        memcpy(l.s + l.n, "]", 2);
        cJSON_AddRawToObject(j, "value", l.s);
    }
    free(l.s);
    return ok;
}

static cJSON *meta_json(const hearth_file *f, uint64_t i)
{
    hearth_meta m;
    char *text = NULL;
    size_t n = 0;
    if (hearth_file_meta(f, i, &m) != HEARTH_OK)
        return NULL;
    bool array = !strncmp(m.type, "array", 5);
    cJSON *j = cJSON_CreateObject();
    ht_report_text(j, "key", m.key, strlen(m.key));
    cJSON_AddStringToObject(j, "type", m.type);
    if (array)
        cJSON_AddNumberToObject(j, "n", (double)m.n);
    bool ok = array ? add_array(j, f, i, m.type) : hearth_file_meta_text(f, i, 1, &text, &n) == HEARTH_OK;
    if (ok && !array)
        add_scalar(j, "value", m.type, text, n);
    hearth_free(text);
    if (!ok) {
        cJSON_Delete(j);
        return NULL;
    }
    return j;
}

static cJSON *tensor_json(const hearth_file *f, uint64_t i)
{
    hearth_tensor t;
    if (hearth_file_tensor(f, i, &t) != HEARTH_OK)
        return NULL;
    cJSON *j = cJSON_CreateObject(), *shape = cJSON_CreateArray();
    ht_report_text(j, "name", t.name, strlen(t.name));
    cJSON_AddStringToObject(j, "type", t.type);
    for (uint32_t d = t.n_dims; d-- > 0;)
        cJSON_AddItemToArray(shape, cJSON_CreateNumber((double)t.ne[d]));
    cJSON_AddItemToObject(j, "shape", shape);
    cJSON_AddNumberToObject(j, "elements", (double)elements(&t));
    cJSON_AddNumberToObject(j, "bytes", (double)t.bytes);
    cJSON_AddNumberToObject(j, "offset", (double)t.offset);
    return j;
}

static int print_json(const hearth_file *f, const char *path, int64_t only)
{
    if (only >= 0)
        return ht_report_print(tensor_json(f, (uint64_t)only));
    cJSON *j = cJSON_CreateObject(), *metas = cJSON_CreateArray(), *tensors = cJSON_CreateArray();
    ht_report_text(j, "model", path, strlen(path));
    cJSON_AddNumberToObject(j, "version", hearth_file_version(f));
    if (hearth_file_powerinfer(f))
        cJSON_AddBoolToObject(j, "powerinfer", true);
    cJSON_AddNumberToObject(j, "parts", hearth_file_parts(f));
    cJSON_AddNumberToObject(j, "bytes", (double)hearth_file_bytes(f));
    bool ok = true;
    for (uint64_t i = 0; i < hearth_file_n_meta(f) && ok; i++)
        ok = cJSON_AddItemToArray(metas, meta_json(f, i));
    for (uint64_t i = 0; i < hearth_file_n_tensors(f) && ok; i++)
        ok = cJSON_AddItemToArray(tensors, tensor_json(f, i));
    cJSON_AddItemToObject(j, "metadata", metas);
    cJSON_AddItemToObject(j, "tensors", tensors);
    ok = ok && ht_inspect_add_packed(j, f);
    if (!ok) {
        cJSON_Delete(j);
        j = NULL; /* which is told as out of memory */
    }
    return ht_report_print(j);
}

/* Tensor i to a .npy file, in pieces of whole blocks. */
static int write_tensor(const hearth_file *f, uint64_t i, const char *path)
{
    enum { PIECE = 1 << 18 }; /* a multiple of every type's block */
    hearth_tensor t;
    hearth_error err = { 0 };
    uint64_t shape[4];
    if (hearth_file_tensor(f, i, &t) != HEARTH_OK || t.n_dims > 4) {
        ht_complain("the tensor cannot be read");
        return HT_EXIT_MODEL;
    }
    if (!t.readable) {
        ht_complain("%s: the type %s cannot be decoded", t.name, t.type);
        return HT_EXIT_MODEL;
    }
    uint64_t n = elements(&t);
    for (uint32_t d = 0; d < t.n_dims; d++)
        shape[d] = t.ne[t.n_dims - 1 - d];
    float *piece = malloc(PIECE * sizeof *piece);
    FILE *out = piece ? fopen(path, "wb") : NULL;
    if (!out) {
        ht_complain("cannot write %s: %s", path, strerror(errno));
        free(piece);
        return HT_EXIT_FAILED;
    }
    int status = HT_EXIT_OK;
    bool written = !ht_npy_write_head(out, shape, t.n_dims);
    for (uint64_t at = 0; at < n && written && !status; at += PIECE) {
        size_t part = n - at < PIECE ? (size_t)(n - at) : PIECE;
        if (hearth_file_read(f, i, at, part, piece, &err) != HEARTH_OK)
            status = ht_call_failed(&err, true);
        else
            written = fwrite(piece, sizeof *piece, part, out) == part;
    }
    if (fclose(out))
        written = false;
    if (!written) {
        ht_complain("cannot write %s", path);
        status = HT_EXIT_FAILED;
    }
    if (status)
        ht_remove_file(path);
    free(piece);
    return status;
}

static int run(const ht_options *o)
{
    hearth_file *f = NULL;
    hearth_error err = { 0 };
    char path[4096];
    int64_t only = -1;

    if (o->out && !o->tensor)
        return ht_usage_error("-o writes one tensor: name it with --tensor");
    int status = ht_load_path(o, path, sizeof path);
    if (status)
        return status;
    if (hearth_file_open(&f, path, &err) != HEARTH_OK)
        return ht_call_failed(&err, true);
    if (o->tensor && (only = hearth_file_find_tensor(f, o->tensor)) < 0)
        status = ht_usage_error("%s has no tensor %s", path, o->tensor);
    else if (o->out)
        status = ht_load_check_output("-o", o->out, &(const char *){ path }, 1);
    if (!status && o->out)
        status = write_tensor(f, (uint64_t)only, o->out);
    if (!status && (o->json || !o->out))
        status = o->json ? print_json(f, path, only) : print_tables(f, path, only);
    hearth_file_close(&f);
    return status;
}

const ht_command ht_command_inspect = {
    .name = "inspect",
    .arguments = "[MODEL]",
    .summary = "metadata and tensors of any GGUF file",
    .text = "Tables show the dimensions in the file's order, row length first; --json and .npy files give the shape as "
            "numpy "
            "would.",
    .max_positional = 1,
    .tables = { own_flags, ht_flags_talk },
    .idle = { ht_flags_model, ht_flags_sampling },
    .run = run,
};
