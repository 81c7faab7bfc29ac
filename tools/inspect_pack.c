/* SPDX-License-Identifier: MIT
 * Packed models in hearth inspect; see inspect_pack.h. */
#include "tools/inspect_pack.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/commands.h"
#include "tools/report.h"

static const double covered = 0.8;

typedef struct block {
    char name[64];
    uint32_t n_ff, n_expert, layer;
    uint64_t expert_bytes, at;
    double share; /* of the groups, hottest first as they lie, that make up 80 % of what fires; negative: not known */
    char matrices[128];
} block;

typedef struct names {
    const hearth_file *f;
    block *b;
    uint64_t n, most;
} names;

static bool add_name(void *user, const char *text, size_t n)
{
    names *l = user;
    if (l->n == l->most || n >= sizeof l->b->name)
        return false;
    memcpy(l->b[l->n++].name, text, n);
    return true;
}

static double number(const hearth_file *f, const char *key, uint64_t i)
{
    const int64_t at = hearth_file_find_meta(f, key);
    double v = -1;
    return at >= 0 && hearth_file_meta_numbers(f, (uint64_t)at, i, 1, &v) == HEARTH_OK ? v : -1;
}

/* All elements of a tensor as floats; NULL: it is not there, has another size, or there is no memory. */
static float *read_all(const hearth_file *f, const char *name, uint64_t n)
{
    const int64_t at = hearth_file_find_tensor(f, name);
    hearth_tensor t;

    if (at < 0 || hearth_file_tensor(f, (uint64_t)at, &t) != HEARTH_OK || t.ne[0] * t.ne[1] * t.ne[2] * t.ne[3] != n)
        return NULL;
    float *v = malloc((n + 1) * sizeof *v);
    if (v && hearth_file_read(f, (uint64_t)at, 0, n, v, NULL) != HEARTH_OK) {
        free(v);
        v = NULL;
    }
    return v;
}

/* How far into an expert's groups, as they lie, 80 % of its firing goes; the mean over experts by what they fire. */
static double share_of_groups(const hearth_file *f, const block *b)
{
    const uint64_t n = b->n_ff / 32;
    const bool shared = strstr(b->name, "_shexp") != NULL;
    char name[128];
    double groups = 0, fired = 0;

    snprintf(name, sizeof name, "hearth.blk.%u.%s", b->layer, shared ? "shared_frequency" : "frequency");
    float *often = read_all(f, name, (uint64_t)b->n_ff * b->n_expert);
    snprintf(name, sizeof name, "%s.order", b->name);
    float *order = read_all(f, name, n * b->n_expert); /* small whole numbers: exact */
    double *sum = calloc(n + 1, sizeof *sum);
    for (uint32_t e = 0; often && order && sum && e < b->n_expert; e++) {
        double all = 0, so_far = 0;
        uint64_t i = 0;
        memset(sum, 0, n * sizeof *sum);
        for (uint64_t j = 0; j < b->n_ff; j++) {
            const double v = (double)often[e * b->n_ff + j];
            sum[(uint64_t)order[e * n + j / 32] % n] += v; /* checked where the file was opened */
            all += v;
        }
        while (i < n && so_far < covered * all)
            so_far += sum[i++];
        groups += all * (double)i / (double)n;
        fired += all;
    }
    free(often);
    free(order);
    free(sum);
    return fired > 0 ? groups / fired : -1;
}

/* "gate and up Q4_0, down Q4_0, neuron-major". */
static void name_types(const hearth_file *f, block *b)
{
    static const char *const roles[] = { "gate", "up", "down" };
    const char *kind = strchr(strstr(b->name, "ffn"), '_');
    char name[80];
    size_t n = 0;

    for (int r = 0; r < 3; r++) {
        hearth_tensor t;
        snprintf(name, sizeof name, "blk.%u.ffn_%s%s.weight", b->layer, roles[r], kind ? kind : "");
        const int64_t at = hearth_file_find_tensor(f, name);
        if (at >= 0 && hearth_file_tensor(f, (uint64_t)at, &t) == HEARTH_OK && n < sizeof b->matrices)
            n += (size_t)snprintf(b->matrices + n, sizeof b->matrices - n, "%s%s %s", n ? ", " : "", roles[r], t.type);
    }
}

/* The blocks of a packed file, malloc'ed; *n 0 for a plain one. False: damaged, or out of memory. */
static bool read_blocks(const hearth_file *f, block **out, uint64_t *n, hearth_error *err)
{
    uint64_t n_packed;
    names l = { .f = f };
    hearth_meta m;

    *out = NULL;
    *n = 0;
    if (hearth_file_packed(f, &n_packed, err) != HEARTH_OK)
        return false;
    const int64_t at = hearth_file_find_meta(f, "hearth.pack.blocks");
    if (!n_packed || at < 0 || hearth_file_meta(f, (uint64_t)at, &m) != HEARTH_OK)
        return true;
    l.most = m.n;
    l.b = calloc(m.n + 1, sizeof *l.b);
    if (!l.b || hearth_file_meta_each(f, (uint64_t)at, add_name, &l) != HEARTH_OK) {
        free(l.b);
        snprintf(err->text, sizeof err->text, "out of memory");
        return false;
    }
    for (uint64_t i = 0; i < l.n; i++) {
        block *b = &l.b[i];
        hearth_tensor t = { 0 };
        const int64_t tensor = hearth_file_find_tensor(f, b->name);
        if (tensor >= 0)
            hearth_file_tensor(f, (uint64_t)tensor, &t);
        b->layer = (uint32_t)strtoul(b->name + strlen("hearth.blk."), NULL, 10);
        b->n_ff = (uint32_t)number(f, "hearth.pack.n_ff", i);
        b->n_expert = (uint32_t)number(f, "hearth.pack.n_expert", i);
        b->expert_bytes = t.ne[0];
        b->at = t.offset;
        b->share = share_of_groups(f, b);
        name_types(f, b);
    }
    *out = l.b;
    *n = l.n;
    return true;
}

int ht_inspect_print_packed(const hearth_file *f)
{
    hearth_error err = { 0 };
    uint64_t n;
    block *b;

    if (!read_blocks(f, &b, &n, &err)) {
        ht_complain("%s", err.text);
        return HT_EXIT_MODEL;
    }
    if (n) {
        const double quality = number(f, "hearth.pack.quality", 0);
        printf("\npacked: %llu feed-forward blocks, each expert one stretch: gate rows, scales of down, then up and down rows "
               "of each neuron\n",
               (unsigned long long)n);
        if (quality >= 0)
            printf("predictors for a mean KL divergence of %g, used by --sparsity auto\n", quality);
        else
            puts("no predictors: computed exactly");
        puts("  block                     experts  neurons       bytes each  80 % of firing in  matrices");
    }
    for (uint64_t i = 0; i < n; i++) {
        printf("  %-25s %7u %8u %16llu  ", b[i].name, b[i].n_expert, b[i].n_ff, (unsigned long long)b[i].expert_bytes);
        if (b[i].share >= 0)
            printf("%5.1f %% of groups  ", 100 * b[i].share);
        else
            printf("%17s  ", "-");
        puts(b[i].matrices);
    }
    free(b);
    return 0;
}

bool ht_inspect_add_packed(cJSON *j, const hearth_file *f)
{
    hearth_error err = { 0 };
    uint64_t n;
    block *b;

    if (!read_blocks(f, &b, &n, &err)) {
        ht_complain("%s", err.text);
        return false;
    }
    cJSON *packed = n ? cJSON_AddObjectToObject(j, "packed") : cJSON_AddNullToObject(j, "packed"), *blocks = NULL;
    if (n) {
        const double quality = number(f, "hearth.pack.quality", 0);
        ht_report_number(packed, "quality", quality >= 0 ? quality : NAN);
        blocks = cJSON_AddArrayToObject(packed, "blocks");
    }
    for (uint64_t i = 0; i < n; i++) {
        cJSON *one = cJSON_CreateObject();
        ht_report_text(one, "tensor", b[i].name, strlen(b[i].name));
        cJSON_AddNumberToObject(one, "n_expert", b[i].n_expert);
        cJSON_AddNumberToObject(one, "n_ff", b[i].n_ff);
        cJSON_AddNumberToObject(one, "expert_bytes", (double)b[i].expert_bytes);
        cJSON_AddNumberToObject(one, "offset", (double)b[i].at);
        ht_report_number(one, "share_of_groups_for_80_percent", b[i].share >= 0 ? b[i].share : NAN);
        ht_report_text(one, "matrices", b[i].matrices, strlen(b[i].matrices));
        cJSON_AddItemToArray(blocks, one);
    }
    free(b);
    return packed != NULL;
}
