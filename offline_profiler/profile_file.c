/* SPDX-License-Identifier: MIT
 *
 * Profiles as GGUF files: writing, and reading with every value checked. docs/profile.md has the list of keys and
 * tensors. A reader believes nothing: kind and version first, then the checksum over all bytes, then the model, then
 * shapes and ranges of whatever is there, for a program may have written nonsense with a good checksum. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "offline_profiler/profile.h"

enum { VERSION = 1, MOST_LAYERS = 1 << 16, MOST_POINTS = 1 << 16 };

#define KEY(name) "hearth.profile." name

/* Arrays of one float for each layer. */
static const struct {
    const char *key;
    size_t offset;
    float most; /* 0: no limit */
} layer_floats[] = {
#define ROW(name, member, most)                                                                                        \
    {                                                                                                                  \
        KEY(name), offsetof(hearth_profile_layer, member), most                                                        \
    }
    ROW("density", density, 1),
    ROW("density_spread", density_spread, 1),
    ROW("overlap", overlap, 1),
    ROW("union_1", unions[0], 1),
    ROW("union_2", unions[1], 1),
    ROW("union_4", unions[2], 1),
    ROW("union_8", unions[3], 1),
    ROW("union_16", unions[4], 1),
    ROW("union_32", unions[5], 1),
    ROW("union_64", unions[6], 1),
    ROW("expert_overlap", expert_overlap, 1),
    ROW("shared_density", shared_density, 1),
    ROW("shared_overlap", shared_overlap, 1),
    ROW("recall", recall, 1),
    ROW("precision", precision, 1),
    ROW("predicted_density", predicted_density, 1),
    ROW("ahead_recall", ahead_recall, 1), /* not in the first profiles */
    ROW("ahead_precision", ahead_precision, 1),
    ROW("ahead_density", ahead_density, 1),
#undef ROW
};

static const struct {
    const char *key;
    size_t offset;
} layer_integers[] = {
    { KEY("n_ff"), offsetof(hearth_profile_layer, n_ff) },
    { KEY("n_expert"), offsetof(hearth_profile_layer, n_expert) },
    { KEY("n_used"), offsetof(hearth_profile_layer, n_used) },
    { KEY("shared_n_ff"), offsetof(hearth_profile_layer, shared_n_ff) },
};

static const struct {
    const char *key;
    size_t offset;
} point_floats[] = {
    { KEY("curve.kl_mean"), offsetof(hearth_profile_point, kl_mean) },
    { KEY("curve.kl_p99"), offsetof(hearth_profile_point, kl_p99) },
    { KEY("curve.top1_agreement"), offsetof(hearth_profile_point, top1_agreement) },
    { KEY("curve.weight_bytes_per_token"), offsetof(hearth_profile_point, weight_bytes_per_token) },
    { KEY("curve.speed"), offsetof(hearth_profile_point, speed) },
    { KEY("curve.density"), offsetof(hearth_profile_point, density) }, /* not in the first profiles */
};

/* Arrays of one number for each neuron, expert or pair, as tensors. */
enum { EXPERT_ID = -1, ANY_NUMBER = -2 /* infinities too */ };
typedef enum shape { PER_NEURON, PER_EXPERT, PER_NEXT, PER_SHARED } shape;
static const struct {
    const char *name;
    size_t offset;
    shape shape;
    float most; /* 0: no limit; negative: see below */
} layer_tensors[] = {
    { "frequency", offsetof(hearth_profile_layer, frequency), PER_NEURON, 1 },
    { "magnitude", offsetof(hearth_profile_layer, magnitude), PER_NEURON, 0 },
    { "predict_threshold", offsetof(hearth_profile_layer, threshold), PER_NEURON, ANY_NUMBER },
    { "gate_threshold", offsetof(hearth_profile_layer, gate_threshold), PER_EXPERT, 0 },
    { "hidden_threshold", offsetof(hearth_profile_layer, hidden_threshold), PER_EXPERT, 0 },
    { "expert_frequency", offsetof(hearth_profile_layer, expert_frequency), PER_EXPERT, 1 },
    { "transition_expert", offsetof(hearth_profile_layer, next_expert), PER_NEXT, EXPERT_ID },
    { "transition", offsetof(hearth_profile_layer, next_share), PER_NEXT, 1 },
    { "shared_frequency", offsetof(hearth_profile_layer, shared_frequency), PER_SHARED, 1 },
    { "shared_magnitude", offsetof(hearth_profile_layer, shared_magnitude), PER_SHARED, 0 },
};

#define COUNT(a) (sizeof(a) / sizeof *(a))
#define FIELD(type, object, offset) (*(type *)(void *)((char *)(object) + (offset)))

static const char *tensor_name(char name[80], uint32_t layer, const char *what)
{
    snprintf(name, 80, "hearth.blk.%u.%s", layer, what);
    return name;
}

/* ---- Writing ----------------------------------------------------------------------------------------------------- */

static void write_floats(hearth_writer *w, const hearth_profile *p, float *row)
{
    for (size_t k = 0; k < COUNT(layer_floats); k++) {
        bool known = false;
        for (uint32_t i = 0; i < p->n_layer; i++) {
            row[i] = FIELD(float, &p->layers[i], layer_floats[k].offset);
            known |= row[i] >= 0.0f;
        }
        if (known)
            hearth_writer_set_f32s(w, layer_floats[k].key, row, p->n_layer);
    }
    for (size_t k = 0; p->n_points && k < COUNT(point_floats); k++) {
        for (uint32_t i = 0; i < p->n_points; i++)
            row[i] = FIELD(float, &p->points[i], point_floats[k].offset);
        hearth_writer_set_f32s(w, point_floats[k].key, row, p->n_points);
    }
}

hearth_status ht_profile_write_keys(hearth_writer *w, const hearth_profile *p, hearth_error *err)
{
    size_t n = p->n_layer > p->n_points ? p->n_layer : p->n_points;
    float *row = malloc((n + 1) * sizeof *row);
    int32_t *whole = malloc((n + 1) * sizeof *whole);
    const char **methods = calloc(n + 1, sizeof *methods);
    hearth_status st = HEARTH_OK;
    bool known = false;

    if (row && whole && methods) {
        hearth_writer_set_u32(w, KEY("version"), VERSION);
        hearth_writer_set_str(w, KEY("model"), p->model);
        hearth_writer_set_str(w, KEY("model_name"), p->name);
        hearth_writer_set_str(w, KEY("model_description"), p->description);
        hearth_writer_set_str(w, KEY("created_by"), p->created_by);
        hearth_writer_set_u64(w, KEY("tokens"), p->tokens);
        hearth_writer_set_u64(w, KEY("text_bytes"), p->text_bytes);
        hearth_writer_set_u32(w, KEY("window"), p->window);
        hearth_writer_set_bool(w, KEY("density_only"), p->density_only);
        for (size_t k = 0; k < COUNT(layer_integers); k++) {
            for (uint32_t i = 0; i < p->n_layer; i++)
                whole[i] = (int32_t)FIELD(uint32_t, &p->layers[i], layer_integers[k].offset);
            hearth_writer_set_i32s(w, layer_integers[k].key, whole, p->n_layer);
        }
        write_floats(w, p, row);
        if (p->n_points)
            hearth_writer_set_u32(w, KEY("curve.chosen"), p->chosen);
        for (uint32_t i = 0; i < p->n_layer; i++) {
            known |= p->layers[i].method != NULL;
            methods[i] = p->layers[i].method ? p->layers[i].method : "";
        }
        if (known)
            st = hearth_writer_set_strs(w, KEY("method"), methods,
                                        p->n_layer); /* the others' failures stick to the writer */
    }
    bool good = row && whole && methods && st == HEARTH_OK;
    free(row);
    free(whole);
    free((void *)methods);
    return good ? HEARTH_OK : (hearth_status)ht_fail(ht_profile_err(err), HT_ENOMEM, "profile");
}

/* Elements of a tensor, and its two sides. */
static uint64_t sides(const hearth_profile_layer *l, shape s, uint64_t ne[2])
{
    ne[0] = ne[1] = 0;
    switch (s) {
    case PER_NEURON: ne[0] = l->n_ff, ne[1] = l->n_expert; break;
    case PER_EXPERT: ne[0] = l->n_expert, ne[1] = 1; break;
    case PER_NEXT: ne[0] = l->n_next, ne[1] = l->n_before; break;
    case PER_SHARED: ne[0] = l->shared_n_ff, ne[1] = 1; break;
    }
    return ne[0] * ne[1];
}

static hearth_status write_rows(hearth_writer *w, uint32_t layer, const char *what, const char *type, const float *v,
                                uint64_t k, uint64_t n, bool data, hearth_error *err)
{
    const uint64_t ne[2] = { k, n };
    char name[80];

    return data ? hearth_writer_data(w, v, k * n, err)
                : hearth_writer_declare(w, tensor_name(name, layer, what), type, 2, ne, err);
}

/* In 8 bits, where its rows are whole blocks. */
static hearth_status write_matrix(hearth_writer *w, uint32_t layer, const char *what, const float *v, uint64_t k,
                                  uint64_t n, bool data, hearth_error *err)
{
    return write_rows(w, layer, what, k % 32 ? "f32" : "q8_0", v, k, n, data, err);
}

/* Declares a layer's tensors, or writes them. */
static hearth_status write_layer(hearth_writer *w, const hearth_profile_layer *l, uint32_t layer, bool data,
                                 hearth_error *err)
{
    hearth_status st = HEARTH_OK;

    for (size_t k = 0; k < COUNT(layer_tensors) && st == HEARTH_OK; k++) {
        const float *v = FIELD(const float *, l, layer_tensors[k].offset);
        uint64_t ne[2], n = sides(l, layer_tensors[k].shape, ne);
        char name[80];
        if (v && n)
            st = data ? hearth_writer_data(w, v, n, err)
                      : hearth_writer_declare(w, tensor_name(name, layer, layer_tensors[k].name), "f32", 2, ne, err);
    }
    if (st == HEARTH_OK && l->rank && l->low_a)
        st = write_matrix(w, layer, "predict_a.weight", l->low_a, l->inputs, l->rank, data, err);
    if (st == HEARTH_OK && l->rank && l->low_b)
        st = write_matrix(w, layer, "predict_b.weight", l->low_b, l->rank, l->n_ff, data, err);
    if (st != HEARTH_OK || !l->ahead_rank || !l->ahead_a || !l->ahead_b || !l->ahead_threshold)
        return st;
    if ((st = write_matrix(w, layer, "ahead_a.weight", l->ahead_a, l->inputs, l->ahead_rank, data, err)) == HEARTH_OK &&
        (st = write_matrix(w, layer, "ahead_b.weight", l->ahead_b, l->ahead_rank, l->n_ff, data, err)) == HEARTH_OK)
        st = write_rows(w, layer, "ahead_threshold", "f32", l->ahead_threshold, l->n_ff, 1, data, err);
    return st;
}

hearth_status ht_profile_write_layers(hearth_writer *w, const hearth_profile *p, bool data, hearth_error *err)
{
    hearth_status st = HEARTH_OK;

    for (uint32_t i = 0; i < p->n_layer && st == HEARTH_OK; i++)
        st = write_layer(w, &p->layers[i], i, data, err);
    return st;
}

hearth_status hearth_profile_write(const hearth_profile *p, const char *path, hearth_error *err)
{
    hearth_writer *w;
    hearth_status st = hearth_writer_open(&w, path, err);

    if (st != HEARTH_OK)
        return st;
    hearth_writer_set_str(w, "general.type", "hearth.profile");
    if ((st = ht_profile_write_keys(w, p, err)) == HEARTH_OK)
        st = hearth_writer_seal(w);
    for (int data = 0; data < 2 && st == HEARTH_OK; data++) /* all declarations, then all data, in one order */
        st = ht_profile_write_layers(w, p, data, err);
    if (st == HEARTH_OK)
        return hearth_writer_close(&w, err);
    hearth_writer_abort(&w);
    return st;
}

/* ---- Reading ----------------------------------------------------------------------------------------------------- */

typedef struct reader {
    hearth_file *f;
    const char *path;
    hearth_error *err;
} reader;

static hearth_status damaged(const reader *r, const char *what)
{
    ht_fail(ht_profile_err(r->err), HT_EFORMAT, "%s: the profile makes no sense: %s", r->path, what);
    return HEARTH_EFORMAT;
}

static hearth_status no_memory(const reader *r)
{
    ht_fail(ht_profile_err(r->err), HT_ENOMEM, "%s: out of memory", r->path);
    return HEARTH_ENOMEM;
}

/* n numbers under a key into v; false where they are not there as such. */
static bool numbers(const reader *r, const char *key, uint64_t n, double *v)
{
    int64_t i = hearth_file_find_meta(r->f, key);
    hearth_meta meta;
    return i >= 0 && hearth_file_meta(r->f, (uint64_t)i, &meta) == HEARTH_OK && meta.n == n &&
           hearth_file_meta_numbers(r->f, (uint64_t)i, 0, n, v) == HEARTH_OK;
}

static bool whole(const reader *r, const char *key, double most, uint64_t *out)
{
    double v;
    if (!numbers(r, key, 1, &v) || !(v >= 0 && v <= most) || v != floor(v))
        return false;
    *out = (uint64_t)v;
    return true;
}

/* A terminated copy of a string key, n bytes, that belongs to the caller: hearth_free. EFORMAT without a sentence:
 * there is none; *s is NULL then. */
static hearth_status text(const reader *r, const char *key, char **s, size_t *n)
{
    int64_t i = hearth_file_find_meta(r->f, key);
    hearth_meta meta;

    *s = NULL;
    *n = 0;
    if (i < 0 || hearth_file_meta(r->f, (uint64_t)i, &meta) != HEARTH_OK || strcmp(meta.type, "string") != 0)
        return HEARTH_EFORMAT;
    return hearth_file_meta_text(r->f, (uint64_t)i, 1, s, n) == HEARTH_OK ? HEARTH_OK : no_memory(r);
}

static hearth_status read_kind(const reader *r)
{
    ht_error *err = ht_profile_err(r->err);
    uint64_t version;
    size_t n;
    char *kind;
    hearth_status st = text(r, "general.type", &kind, &n);
    /* A packed model carries its profile; that every byte of its weights is as it was is looked at when it is unpacked. */
    const bool packed = hearth_file_find_meta(r->f, "hearth.pack.version") >= 0;
    bool profile = packed || (kind && !strcmp(kind, "hearth.profile"));

    hearth_free(kind);
    if (st == HEARTH_ENOMEM)
        return st;
    if (!profile)
        return (hearth_status)ht_fail(err, HT_EFORMAT, "%s: this GGUF file is no profile", r->path);
    if (!whole(r, KEY("version"), UINT32_MAX, &version) || version == 0)
        return damaged(r, KEY("version"));
    if (version > VERSION)
        return (hearth_status)ht_fail(err, HT_EUNSUPPORTED,
                                      "%s: the profile is of a newer version (%llu, this program reads %d)", r->path,
                                      (unsigned long long)version, VERSION);
    return packed ? HEARTH_OK : hearth_file_verify(r->f, r->err);
}

static hearth_status read_head(const reader *r, const char *model, hearth_profile *p)
{
    static const double exact = 9007199254740992.0; /* 2^53 */
    static const char *const keys[] = { KEY("model"), KEY("model_name"), KEY("model_description"), KEY("created_by") };
    uint64_t window = 0, only = 0;
    size_t n;

    for (size_t i = 0; i < COUNT(keys); i++) {
        char *s;
        hearth_status st = text(r, keys[i], &s, &n);
        if (st != HEARTH_OK)
            return st == HEARTH_ENOMEM ? st : damaged(r, keys[i]);
        char *copy = ht_profile_text(p, s, n);
        hearth_free(s);
        if (!copy)
            return no_memory(r);
        if (i == 0 && (n != 32 || strspn(copy, "0123456789abcdef") != 32))
            return damaged(r, keys[i]);
        switch (i) {
        case 0: memcpy(p->model, copy, sizeof p->model); break;
        case 1: p->name = copy; break;
        case 2: p->description = copy; break;
        default: p->created_by = copy; break;
        }
    }
    if (model && strcmp(model, p->model) != 0)
        return (hearth_status)ht_fail(ht_profile_err(r->err), HT_EMISMATCH,
                                      "%s: the profile is of another model: %.80s%s(%s; the model here is %s)", r->path,
                                      p->name, *p->name ? " " : "", p->model, model);
    if (!whole(r, KEY("tokens"), exact, &p->tokens) || !whole(r, KEY("text_bytes"), exact, &p->text_bytes))
        return damaged(r, KEY("tokens"));
    if (!whole(r, KEY("window"), UINT32_MAX, &window) || !whole(r, KEY("density_only"), 1, &only))
        return damaged(r, KEY("window"));
    p->window = (uint32_t)window;
    p->density_only = only != 0;
    return HEARTH_OK;
}

/* Into v, which has room for the layers. */
static hearth_status read_layers(const reader *r, hearth_profile *p, double *v)
{
    for (size_t k = 0; k < COUNT(layer_integers); k++) {
        if (!numbers(r, layer_integers[k].key, p->n_layer, v))
            return damaged(r, layer_integers[k].key);
        for (uint32_t i = 0; i < p->n_layer; i++) {
            if (!(v[i] >= 0 && v[i] <= INT32_MAX) || v[i] != floor(v[i]))
                return damaged(r, layer_integers[k].key);
            FIELD(uint32_t, &p->layers[i], layer_integers[k].offset) = (uint32_t)v[i];
        }
    }
    for (uint32_t i = 0; i < p->n_layer; i++)
        if (p->layers[i].n_used > p->layers[i].n_expert || (p->layers[i].n_ff && !p->layers[i].n_used))
            return damaged(r, KEY("n_used"));
    for (size_t k = 0; k < COUNT(layer_floats); k++) {
        if (hearth_file_find_meta(r->f, layer_floats[k].key) < 0)
            continue;
        if (!numbers(r, layer_floats[k].key, p->n_layer, v))
            return damaged(r, layer_floats[k].key);
        for (uint32_t i = 0; i < p->n_layer; i++) {
            if (!isfinite(v[i]) || (layer_floats[k].most > 0 && v[i] > (double)layer_floats[k].most))
                return damaged(r, layer_floats[k].key);
            FIELD(float, &p->layers[i], layer_floats[k].offset) = (float)v[i];
        }
    }
    return HEARTH_OK;
}

typedef struct method_list {
    hearth_profile *p;
    uint32_t n;
    bool out_of_memory;
} method_list;

static bool add_method(void *user, const char *s, size_t n)
{
    method_list *l = user;
    if (l->n >= l->p->n_layer || n > 40)
        return false;
    char *copy = n ? ht_profile_text(l->p, s, n) : NULL;
    l->out_of_memory = n && !copy;
    l->p->layers[l->n++].method = copy;
    return !l->out_of_memory;
}

static hearth_status read_methods(const reader *r, hearth_profile *p)
{
    int64_t i = hearth_file_find_meta(r->f, KEY("method"));
    method_list l = { .p = p };
    hearth_meta meta;

    if (i < 0)
        return HEARTH_OK;
    if (hearth_file_meta(r->f, (uint64_t)i, &meta) != HEARTH_OK || strcmp(meta.type, "array of string") != 0)
        return damaged(r, KEY("method"));
    hearth_status st = hearth_file_meta_each(r->f, (uint64_t)i, add_method, &l);
    if (st == HEARTH_ENOMEM || l.out_of_memory)
        return no_memory(r);
    return st == HEARTH_OK && l.n == p->n_layer ? HEARTH_OK : damaged(r, KEY("method"));
}

static hearth_status read_curve(const reader *r, hearth_profile *p)
{
    int64_t at = hearth_file_find_meta(r->f, point_floats[0].key);
    uint64_t chosen;
    hearth_meta meta;

    if (at < 0)
        return HEARTH_OK;
    if (hearth_file_meta(r->f, (uint64_t)at, &meta) != HEARTH_OK || meta.n > MOST_POINTS ||
        !whole(r, KEY("curve.chosen"), (double)meta.n, &chosen))
        return damaged(r, point_floats[0].key);
    p->n_points = (uint32_t)meta.n;
    p->chosen = (uint32_t)chosen;
    p->points = ht_profile_alloc(p, p->n_points, sizeof *p->points);
    double *v = malloc((p->n_points + 1) * sizeof *v);
    hearth_status st = p->points && v ? HEARTH_OK : no_memory(r);
    for (size_t k = 0; k < COUNT(point_floats) && st == HEARTH_OK; k++) {
        if (point_floats[k].offset == offsetof(hearth_profile_point, density) &&
            hearth_file_find_meta(r->f, point_floats[k].key) < 0)
            for (uint32_t i = 0; i < p->n_points; i++)
                v[i] = -1;
        else if (!numbers(r, point_floats[k].key, p->n_points, v))
            st = damaged(r, point_floats[k].key);
        for (uint32_t i = 0; i < p->n_points && st == HEARTH_OK; i++) {
            const bool speed = point_floats[k].offset == offsetof(hearth_profile_point, speed);
            if (!isfinite((float)v[i]) || (speed && v[i] == 0))
                st = damaged(r, point_floats[k].key);
            FIELD(float, &p->points[i], point_floats[k].offset) = (float)v[i];
        }
    }
    free(v);
    return st;
}

static bool makes_sense(float v, float most, const hearth_profile_layer *l)
{
    if (most == ANY_NUMBER)
        return !isnan(v);
    if (!isfinite(v) || v < 0.0f)
        return false;
    if (most == EXPERT_ID)
        return v < (float)l->n_expert && v == floorf(v);
    return most <= 0.0f || v <= most;
}

static hearth_status read_tensor(const reader *r, hearth_profile *p, uint32_t layer, size_t k)
{
    hearth_profile_layer *l = &p->layers[layer];
    uint64_t ne[2];
    hearth_tensor t;
    char name[80];
    int64_t at = hearth_file_find_tensor(r->f, tensor_name(name, layer, layer_tensors[k].name));

    if (at < 0)
        return HEARTH_OK;
    if (hearth_file_tensor(r->f, (uint64_t)at, &t) != HEARTH_OK || !t.readable)
        return damaged(r, name);
    if (layer_tensors[k].shape == PER_NEXT &&
        !l->n_next) { /* the file says how many; the mixture before is checked later */
        if (!t.ne[0] || t.ne[0] > l->n_expert || !t.ne[1] || t.ne[1] > INT32_MAX)
            return damaged(r, name);
        l->n_next = (uint32_t)t.ne[0];
        l->n_before = (uint32_t)t.ne[1];
    }
    uint64_t n = sides(l, layer_tensors[k].shape, ne);
    if (!n || t.ne[0] != ne[0] || t.ne[1] != ne[1] || t.ne[2] != 1 || t.ne[3] != 1)
        return damaged(r, name);
    float *v = ht_profile_alloc(p, (size_t)n, sizeof *v);
    if (!v)
        return no_memory(r);
    hearth_status st = hearth_file_read(r->f, (uint64_t)at, 0, n, v, r->err);
    if (st != HEARTH_OK)
        return st;
    for (uint64_t i = 0; i < n; i++)
        if (!makes_sense(v[i], layer_tensors[k].most, l))
            return damaged(r, name);
    FIELD(const float *, l, layer_tensors[k].offset) = v;
    return HEARTH_OK;
}

/* What has to be there together, and rows of followers for each expert of the mixture before. */
static hearth_status check_layers(const reader *r, const hearth_profile *p)
{
    uint32_t before = 0;
    for (uint32_t i = 0; i < p->n_layer; i++) {
        const hearth_profile_layer *l = &p->layers[i];
        if (!l->frequency != !l->magnitude || !l->shared_frequency != !l->shared_magnitude ||
            !l->next_expert != !l->next_share || (l->n_expert > 1 && !l->expert_frequency) ||
            (l->next_share && l->n_before != before) || (!p->density_only && l->n_ff && !l->frequency))
            return damaged(r, "tensors of a layer are missing");
        if (l->n_expert > 1)
            before = l->n_expert;
    }
    return HEARTH_OK;
}

static hearth_status read_profile(const reader *r, const char *model, hearth_profile **out)
{
    int64_t at = hearth_file_find_meta(r->f, KEY("n_ff"));
    hearth_meta meta;
    hearth_status st;

    if ((st = read_kind(r)) != HEARTH_OK)
        return st;
    if (at < 0 || hearth_file_meta(r->f, (uint64_t)at, &meta) != HEARTH_OK || !meta.n || meta.n > MOST_LAYERS)
        return damaged(r, KEY("n_ff"));
    hearth_profile *p = *out = ht_profile_new((uint32_t)meta.n);
    double *v = malloc(meta.n * sizeof *v);
    if (!p || !v)
        st = no_memory(r);
    if (st == HEARTH_OK && (st = read_head(r, model, p)) == HEARTH_OK && (st = read_layers(r, p, v)) == HEARTH_OK &&
        (st = read_methods(r, p)) == HEARTH_OK)
        st = read_curve(r, p);
    for (uint32_t i = 0; st == HEARTH_OK && i < p->n_layer; i++)
        for (size_t k = 0; st == HEARTH_OK && k < COUNT(layer_tensors); k++)
            st = read_tensor(r, p, i, k);
    if (st == HEARTH_OK)
        st = check_layers(r, p);
    free(v);
    return st;
}

hearth_status hearth_profile_read(hearth_profile **out, const char *path, const char *model, hearth_error *err)
{
    reader r = { .path = path, .err = err };
    hearth_status st = hearth_file_open(&r.f, path, err);

    *out = NULL;
    if (st != HEARTH_OK)
        return st;
    st = read_profile(&r, model, out);
    if (st != HEARTH_OK)
        hearth_profile_close(out);
    hearth_file_close(&r.f);
    return st;
}
