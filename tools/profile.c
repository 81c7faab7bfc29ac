/* SPDX-License-Identifier: MIT
 *
 * hearth profile: runs a text through a model and keeps what it learnt of its neurons and experts. The work is the
 * library's (offline_profiler); here are flags, files and the summary. An unfinished run is kept in OUT.part; the same
 * command goes on from it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tools/commands.h"
#include "tools/report.h"

#define AT(member) offsetof(ht_options, member)

static const ht_flag own_flags[] = {
    { 'f', "file", "TEXT", HT_FLAG_TEXT, AT(file), 0, 0, NULL, NULL, "the text is in this file or pipe; - is stdin" },
    { 'p', "prompt", "TEXT", HT_FLAG_TEXT, AT(prompt), 0, 0, NULL, NULL, "the text itself" },
    { 'o', "out", "OUT.gguf", HT_FLAG_TEXT, AT(out), 0, 0, NULL, NULL,
      "write the profile there; default: the cache folder, $XDG_CACHE_HOME/hearth/profiles" },
    { 0, "tokens", "N", HT_FLAG_INTEGER, AT(max_tokens), 1, INT32_MAX, NULL, NULL,
      "use at most the first N tokens of the text; default 200000" },
    { 0, "ctx", "N", HT_FLAG_INTEGER, AT(ctx), 3, 1 << 16, NULL, NULL,
      "length of a window in tokens, each computed from an empty context; default 512" },
    { 0, "density-only", NULL, HT_FLAG_SWITCH, AT(density_only), 0, 0, NULL, NULL,
      "a quick look: a row of figures on stdout, nothing for single neurons, and no file unless -o names one" },
    { 0, "report", "FILE.html", HT_FLAG_TEXT, AT(report), 0, 0, NULL, NULL,
      "draw the profile as a page that a browser shows without any network" },
    { 0, "restart", NULL, HT_FLAG_SWITCH, AT(restart), 0, 0, NULL, NULL,
      "begin anew although an unfinished profile is there" },
    { 0, "quality", "X", HT_FLAG_NUMBER, AT(quality), 0, 10, NULL, NULL,
      "the loss that predictors may spend: mean KL divergence in nat against the dense model, on the last tenth of the "
      "text, "
      "which nothing is learnt from; 0: no predictor is looked for; default 0.01" },
    { 0, "density", "D", HT_FLAG_NUMBER, AT(density), 0.05, 1, NULL, NULL,
      "make thresholds that leave a share D of the hidden units, 0.05 to 1, whatever the loss (which is measured, at other "
      "densities too); of any activation, also of one without zeros; in place of --quality" },
    { 0, "pack", NULL, HT_FLAG_SWITCH, AT(pack), 0, 0, NULL, NULL,
      "write to -o a self-contained model instead of the profile alone: laid out for sparse execution and for reading from "
      "disk, neurons that fire often first, the profile inside; the same logits, bit for bit. With --quality predictors go "
      "with it, and `--sparsity auto` uses them" },
    { 0, "unpack", NULL, HT_FLAG_SWITCH, AT(unpack), 0, 0, NULL, NULL,
      "no text, no profile: write to -o the plain file that a packed MODEL was made from, byte for byte" },
    { 0 },
};

typedef struct paths {
    char out[4096]; /* "": nowhere */
    char part[4200];
} paths;

static int choose_paths(const ht_options *o, const ht_loaded *l, paths *p)
{
    char model[33], cached[3200];
    hearth_error err = { 0 };
    if (o->out && (size_t)snprintf(p->out, sizeof p->out, "%s", o->out) >= sizeof p->out)
        return ht_usage_error("the path of -o is too long");
    if (o->out) {
        const char *read[] = { l->path, o->file, NULL, NULL };
        snprintf(p->part, sizeof p->part, "%s.part", p->out);
        int status = ht_load_check_output("-o", p->out, read, 2);
        if (!status)
            status = ht_load_check_output("-o (an unfinished profile)", p->part, read, 2);
        read[2] = p->out;
        read[3] = p->part;
        return status ? status : ht_load_check_output("--report", o->report, read, 4);
    }
    if (hearth_model_fingerprint(l->model, model, &err) != HEARTH_OK)
        return ht_call_failed(&err, false);
    if (!ht_load_cached_profile(model, true, cached, sizeof cached)) {
        ht_complain("the cache folder cannot be made (set HOME or XDG_CACHE_HOME, or name an output with -o)");
        return HT_EXIT_FAILED;
    }
    /* A quick look never takes the place of what is known. */
    snprintf(p->out, sizeof p->out, "%s", o->density_only ? "" : cached);
    snprintf(p->part, sizeof p->part, "%s%s.part", cached, o->density_only ? ".density" : "");
    const char *taken[] = { l->path, o->file, p->out, p->part };
    return ht_load_check_output("--report", o->report, taken, 4);
}

/* ---- What is printed ---- */

typedef struct outcome_files {
    const char *out, *report, *part; /* NULL: not written */
    bool packed;                     /* out is a model */
} outcome_files;

static double percent(double v)
{
    return 100 * v;
}

/* "12.4 %" or "-" in a column of its own. */
static void cell(double v)
{
    if (v < 0)
        fputs("        -", stdout);
    else
        printf(" %6.1f %%", percent(v));
}

static uint64_t never_active(const hearth_profile_layer *l)
{
    uint64_t n = 0;
    for (size_t i = 0; l->frequency && i < (size_t)l->n_ff * l->n_expert; i++)
        n += l->frequency[i] <= 0;
    return n;
}

static void print_table(const hearth_profile *p, const hearth_profile_info *info)
{
    bool mixture = false, neurons = false;
    for (uint32_t i = 0; i < info->n_layer; i++) {
        hearth_profile_layer l = { .size = sizeof l };
        hearth_profile_get_layer(p, i, &l);
        mixture |= l.n_expert > 1;
        neurons |= l.frequency != NULL;
    }
    printf("layer   neurons  density   spread  overlap  union-8 union-64%s%s\n", neurons ? "  80 % by    never" : "",
           mixture ? "  experts  overlap" : "");
    for (uint32_t i = 0; i < info->n_layer; i++) {
        hearth_profile_layer l = { .size = sizeof l };
        hearth_profile_get_layer(p, i, &l);
        printf("%5u %9llu", i, (unsigned long long)l.n_ff * l.n_expert);
        cell((double)l.density);
        cell((double)l.density_spread);
        cell((double)l.overlap);
        cell((double)l.unions[3]);
        cell((double)l.unions[6]);
        if (neurons) {
            cell(hearth_profile_cover(p, i, 0.8));
            cell(l.frequency ? (double)never_active(&l) / ((double)l.n_ff * l.n_expert) : -1);
        }
        if (mixture && l.n_expert > 1) {
            printf("  %2u of %-3u", l.n_used, l.n_expert);
            cell((double)l.expert_overlap);
        }
        putchar('\n');
    }
}

static void print_curve(const hearth_profile *p, const hearth_profile_info *info)
{
    float below = INFINITY;
    puts("density  KL mean   KL 99 %  same likeliest  MB/token  of dense");
    for (uint32_t n = 0; n < info->n_points; n++) { /* the densest that was not told yet */
        hearth_profile_point q = { .density = -1 };
        uint32_t i = 0;
        for (uint32_t k = 0; k < info->n_points; k++) {
            hearth_profile_point other;
            hearth_profile_get_point(p, k, &other);
            if (other.density < below && other.density >= q.density) {
                q = other;
                i = k;
            }
        }
        if (q.density < 0)
            break;
        below = q.density;
        printf("%5.1f %%  %7.4f  %8.3f  %12.1f %%  %8.2f  %6.1f %%%s\n", percent((double)q.density), (double)q.kl_mean,
               (double)q.kl_p99, percent((double)q.top1_agreement), (double)q.weight_bytes_per_token / (1 << 20),
               100 / (double)q.speed, i == info->chosen ? "  chosen" : "");
    }
}

/* What is foreseen for fetching early. */
static void print_ahead(const hearth_profile *p, const hearth_profile_info *info)
{
    bool any = false;

    for (uint32_t i = 0; i < info->n_layer; i++) {
        hearth_profile_layer l = { .size = sizeof l };
        hearth_profile_get_layer(p, i, &l);
        if (l.ahead_recall < 0.0f)
            continue;
        if (!any)
            puts("layer  foreseen   recall  precision  (from the layer before, for fetching early)");
        any = true;
        printf("%5u", i);
        cell((double)l.ahead_density);
        cell((double)l.ahead_recall);
        cell((double)l.ahead_precision);
        putchar('\n');
    }
}

static void print_predictors(const hearth_profile *p, const hearth_profile_info *info)
{
    hearth_profile_point point = { .kl_mean = -1 };

    if (hearth_profile_get_point(p, info->chosen, &point) != HEARTH_OK || info->chosen >= info->n_points)
        return;
    puts("layer  predictor  computed   recall  precision");
    for (uint32_t i = 0; i < info->n_layer; i++) {
        hearth_profile_layer l = { .size = sizeof l };
        hearth_profile_get_layer(p, i, &l);
        printf("%5u  %-9s", i, l.method ? l.method : "-");
        cell((double)l.predicted_density);
        cell((double)l.recall);
        cell((double)l.precision);
        putchar('\n');
    }
    printf("predictors: KL divergence %.4f mean, %.3f at the 99th percentile; the likeliest token agrees on %.1f %%; "
           "%.2f MB of weights per token, %.1f %% of a dense token's\n",
           (double)point.kl_mean, (double)point.kl_p99, percent((double)point.top1_agreement),
           (double)point.weight_bytes_per_token / (1 << 20), 100 / (double)point.speed);
    if (point.density >= 0) /* what other densities would cost */
        print_curve(p, info);
}

/* One line that can be sent to others. */
static void print_row(const hearth_profile *p, const hearth_profile_info *info)
{
    puts("| model | | fingerprint | tokens | density | by layer, % | overlap, % | union of 8, % |\n"
         "| --- | --- | --- | --- | --- | --- | --- | --- |");
    printf("| %s | %s | %.8s | %llu | %.1f %% |", info->name, info->description, info->model,
           (unsigned long long)info->tokens, percent(info->density));
    for (int what = 0; what < 3; what++) {
        for (uint32_t i = 0; i < info->n_layer; i++) {
            hearth_profile_layer l = { .size = sizeof l };
            hearth_profile_get_layer(p, i, &l);
            double v = (double)(what == 0 ? l.density : what == 1 ? l.overlap : l.unions[3]);
            if (v < 0)
                fputs(" -", stdout);
            else
                printf(" %.1f", percent(v));
        }
        fputs(" |", stdout);
    }
    putchar('\n');
}

static void number_or_null(cJSON *j, const char *name, double v)
{
    ht_report_number(j, name, v < 0 ? NAN : v);
}

static cJSON *json_layer(const hearth_profile *p, uint32_t i)
{
    hearth_profile_layer l = { .size = sizeof l };
    cJSON *j = cJSON_CreateObject(), *unions = cJSON_CreateObject();
    hearth_profile_get_layer(p, i, &l);
    cJSON_AddNumberToObject(j, "layer", i);
    cJSON_AddNumberToObject(j, "n_ff", l.n_ff);
    cJSON_AddNumberToObject(j, "n_expert", l.n_expert);
    cJSON_AddNumberToObject(j, "n_used", l.n_used);
    number_or_null(j, "activation_density", (double)l.density);
    number_or_null(j, "density_spread", (double)l.density_spread);
    number_or_null(j, "overlap", (double)l.overlap);
    for (int k = 0; k < HEARTH_PROFILE_UNIONS; k++) {
        char name[8];
        snprintf(name, sizeof name, "%d", 1 << k);
        number_or_null(unions, name, (double)l.unions[k]);
    }
    cJSON_AddItemToObject(j, "union", unions);
    number_or_null(j, "share_for_80_percent", hearth_profile_cover(p, i, 0.8));
    number_or_null(j, "never_active", l.frequency ? (double)never_active(&l) / ((double)l.n_ff * l.n_expert) : -1);
    if (l.n_expert > 1)
        number_or_null(j, "expert_overlap", (double)l.expert_overlap);
    if (l.shared_n_ff) {
        cJSON_AddNumberToObject(j, "shared_n_ff", l.shared_n_ff);
        number_or_null(j, "shared_activation_density", (double)l.shared_density);
    }
    if (l.method) {
        ht_report_text(j, "method", l.method, strlen(l.method));
        number_or_null(j, "predictor_recall", (double)l.recall);
        number_or_null(j, "predictor_precision", (double)l.precision);
    }
    if (l.ahead_recall >= 0.0f) {
        number_or_null(j, "look_ahead_recall", (double)l.ahead_recall);
        number_or_null(j, "look_ahead_precision", (double)l.ahead_precision);
        number_or_null(j, "look_ahead_density", (double)l.ahead_density);
    }
    return j;
}

static void add_path(cJSON *j, const char *name, const char *path)
{
    if (path)
        ht_report_text(j, name, path, strlen(path));
    else
        cJSON_AddNullToObject(j, name);
}

static cJSON *json_point(const hearth_profile *p, uint32_t i)
{
    cJSON *j = cJSON_CreateObject();
    hearth_profile_point q = { .kl_mean = -1 };
    hearth_profile_get_point(p, i, &q);
    number_or_null(j, "activation_density", (double)q.density);
    number_or_null(j, "kl_divergence_mean", (double)q.kl_mean);
    number_or_null(j, "kl_divergence_p99", (double)q.kl_p99);
    number_or_null(j, "top1_agreement", (double)q.top1_agreement);
    number_or_null(j, "weight_bytes_per_token", (double)q.weight_bytes_per_token);
    return j;
}

static int print_json(const ht_loaded *l, const hearth_profile *p, const hearth_profiler_state *s,
                      const outcome_files *files)
{
    hearth_profile_info info = { .size = sizeof info };
    cJSON *j = cJSON_CreateObject(), *layers = cJSON_CreateArray();
    hearth_profile_get_info(p, &info);
    cJSON_AddStringToObject(j, "fingerprint", info.model);
    cJSON_AddNumberToObject(j, "tokens", (double)info.tokens);
    cJSON_AddNumberToObject(j, "tokens_resumed", (double)s->tokens_resumed);
    cJSON_AddBoolToObject(j, "interrupted", info.tokens < s->tokens_total);
    cJSON_AddNumberToObject(j, "text_bytes", (double)info.text_bytes);
    cJSON_AddNumberToObject(j, "ctx", info.window);
    ht_report_number(j, "seconds", s->seconds);
    ht_report_positive(j, "prompt_tokens_per_s",
                       s->seconds > 0 ? (double)(s->tokens - s->tokens_resumed) / s->seconds : NAN);
    number_or_null(j, "activation_density", info.density);
    number_or_null(j, "share_for_80_percent", hearth_profile_cover(p, UINT32_MAX, 0.8));
    for (uint32_t i = 0; i < info.n_layer; i++)
        cJSON_AddItemToArray(layers, json_layer(p, i));
    cJSON_AddItemToObject(j, "layers", layers);
    hearth_profile_point point = { .kl_mean = -1 };
    bool chosen = info.chosen < info.n_points && hearth_profile_get_point(p, info.chosen, &point) == HEARTH_OK;
    cJSON *curve = cJSON_AddArrayToObject(j, "curve");
    for (uint32_t i = 0; i < info.n_points; i++)
        cJSON_AddItemToArray(curve, json_point(p, i));
    number_or_null(j, "kl_divergence_mean", chosen ? (double)point.kl_mean : -1);
    number_or_null(j, "kl_divergence_p99", chosen ? (double)point.kl_p99 : -1);
    number_or_null(j, "top1_agreement", chosen ? (double)point.top1_agreement : -1);
    add_path(j, "profile", files->packed ? NULL : files->out);
    add_path(j, "packed", files->packed ? files->out : NULL);
    add_path(j, "report", files->report);
    add_path(j, "part", files->part);
    ht_report_model(j, l);
    if (chosen)
        cJSON_ReplaceItemInObject(j, "weight_bytes_per_token",
                                  cJSON_CreateNumber((double)point.weight_bytes_per_token));
    return ht_report_print(j);
}

static int print(const ht_options *o, const ht_loaded *l, const hearth_profile *p, const hearth_profiler_state *s,
                 const outcome_files *files)
{
    hearth_profile_info info = { .size = sizeof info };
    struct stat st;
    hearth_profile_get_info(p, &info);
    if (o->json)
        return print_json(l, p, s, files);
    if (o->density_only) {
        print_row(p, &info);
    } else {
        printf("%s: %llu tokens, %.1f KB of text, windows of %u; %.0f tokens/s\n", info.name[0] ? info.name : l->path,
               (unsigned long long)info.tokens, (double)info.text_bytes / 1024, info.window,
               s->seconds > 0 ? (double)(s->tokens - s->tokens_resumed) / s->seconds : 0.0);
        print_table(p, &info);
        double cover = hearth_profile_cover(p, UINT32_MAX, 0.8);
        printf("density %.1f %%", percent(info.density));
        if (cover >= 0)
            printf("; %.1f %% of all neurons make up 80 %% of all activations", percent(cover));
        putchar('\n');
        print_predictors(p, &info);
        print_ahead(p, &info);
    }
    if (files->out && !stat(files->out, &st))
        printf("%s %s (%.1f KB)\n", files->packed ? "packed model" : "profile", files->out, (double)st.st_size / 1024);
    if (files->report && !stat(files->report, &st))
        printf("report %s (%.1f KB)\n", files->report, (double)st.st_size / 1024);
    return ht_stdout_done(HT_EXIT_OK);
}

/* ---- The run ---- */

static const double held_out_share = 0.1;
enum { HELD_OUT_BYTES = 256 << 10 };
static const char *const too_short = "the text is too short to keep whole lines of it for measuring them";
static const char *const from_disk =
    "they are looked for in models that fit into memory, and this one is read from disk as it is needed";

/* Whether predictors are looked for. */
static bool wants_predictors(const ht_options *o)
{
    return !o->density_only && !(o->quality.given && o->quality.v <= 0) &&
           !(o->pack && !o->quality.given && !o->density.given);
}

/* Bytes at the end of a text that are kept for measuring predictors: whole lines. */
static size_t held_out_bytes(const ht_options *o, const char *text, size_t n)
{
    size_t keep = (size_t)((double)n * held_out_share);

    if (!wants_predictors(o))
        return 0;
    keep = keep < HELD_OUT_BYTES ? keep : HELD_OUT_BYTES;
    while (keep && text[n - keep - 1] != '\n')
        keep--;
    return keep;
}

/* What foresees active neurons for fetching early. */
static int look_ahead(const ht_options *o, const ht_loaded *l, hearth_profile *p, const char *text, size_t n)
{
    hearth_profile_info info = { .size = sizeof info };
    hearth_error err = { 0 };

    if (o->density_only || (o->quality.given && o->quality.v <= 0))
        return HT_EXIT_OK;
    hearth_profile_get_info(p, &info);
    hearth_status st = hearth_profile_look_ahead(p, l->model, text, info.text_bytes < n ? (size_t)info.text_bytes : n,
                                                 ht_console_progress, NULL, &err);
    ht_console_progress_end();
    if (st == HEARTH_ECANCELLED && ht_interrupted())
        return HT_EXIT_INTERRUPTED;
    return st == HEARTH_OK ? HT_EXIT_OK : ht_call_failed(&err, false);
}

/* Looks for predictors, where the text is long enough. */
static int train(const ht_options *o, const ht_loaded *l, hearth_profile *p, const paths *at, const char *text,
                 size_t n, size_t held_out)
{
    hearth_train_params params = HEARTH_TRAIN_PARAMS_INIT;
    hearth_model_params model = HEARTH_MODEL_PARAMS_INIT;
    hearth_error err = { 0 };
    char scratch[4300];

    if (!held_out) {
        if (wants_predictors(o))
            ht_say("no predictors: %s", too_short);
        return HT_EXIT_OK;
    }
    if (strcmp(l->info.io, "mmap") != 0) {
        ht_say("no predictors: %s", from_disk);
        return HT_EXIT_OK;
    }
    snprintf(scratch, sizeof scratch, "%s.trial", at->part);
    model.threads = l->info.threads;
    model.precision = l->info.precision;
    model.ram_bytes = o->ram.bytes;
    model.isa = o->isa;
    model.io = ht_load_io(o);
    model.overrides = o->overrides.v;
    model.n_overrides = o->overrides.n;
    params.model = &model;
    params.quality = o->quality.v;
    params.density = o->density.v;
    params.scratch = scratch;
    params.progress = ht_console_progress;
    hearth_profile_info info = { .size = sizeof info };
    hearth_profile_get_info(p, &info);
    size_t learn = info.text_bytes < n - held_out ? (size_t)info.text_bytes : n - held_out;
    hearth_status st =
        hearth_profile_train(p, l->model, l->path, &params, text, learn, text + n - held_out, held_out, &err);
    ht_console_progress_end();
    if ((st == HEARTH_EINVAL || st == HEARTH_EUNSUPPORTED) && !o->density.given) {
        /* texts too short, a block that thresholds do not fit: the statistics stand all the same */
        ht_say("no predictors: %s", err.text);
        return HT_EXIT_OK;
    }
    if (st == HEARTH_ECANCELLED && ht_interrupted())
        return HT_EXIT_INTERRUPTED;
    if (st == HEARTH_EINVAL || st == HEARTH_EUNSUPPORTED) /* the same command would end here again */
        ht_remove_file(at->part);
    return st == HEARTH_OK ? HT_EXIT_OK : ht_call_failed(&err, false);
}

static hearth_kv_type kv_type(const char *name)
{
    if (name && !strcmp(name, "f32"))
        return HEARTH_KV_F32;
    if (name && !strcmp(name, "q8_0"))
        return HEARTH_KV_Q8_0;
    return name && !strcmp(name, "q4_0") ? HEARTH_KV_Q4_0 : HEARTH_KV_F16;
}

static hearth_status pack(const ht_options *o, const ht_loaded *l, const hearth_profile *p, const paths *at,
                          hearth_error *err)
{
    hearth_pack_params params = HEARTH_PACK_PARAMS_INIT;

    params.quality = o->quality.given ? o->quality.v : 0;
    params.progress = ht_console_progress;
    hearth_status st = hearth_profile_pack(p, l->model, l->path, &params, at->out, err);
    ht_console_progress_end();
    return st;
}

static int unpack(const ht_options *o)
{
    hearth_error err = { 0 };
    char path[4096];

    if (!o->out || o->file || o->prompt || o->pack)
        return ht_usage_error("--unpack takes a packed MODEL and -o OUT.gguf, and no text");
    int status = ht_load_path(o, path, sizeof path);
    if (!status)
        status = ht_load_check_output("-o", o->out, &(const char *){ path }, 1);
    if (status)
        return status;
    ht_interrupt_arm(true);
    hearth_status st = hearth_unpack(path, o->out, ht_console_progress, NULL, &err);
    ht_console_progress_end();
    if (st == HEARTH_ECANCELLED && ht_interrupted())
        return HT_EXIT_INTERRUPTED;
    if (st != HEARTH_OK)
        return ht_call_failed(&err, st == HEARTH_EFORMAT || st == HEARTH_EUNSUPPORTED);
    if (o->json) {
        cJSON *j = cJSON_CreateObject();
        ht_report_text(j, "model", path, strlen(path));
        ht_report_text(j, "unpacked", o->out, strlen(o->out));
        return ht_report_print(j);
    }
    printf("plain model %s\n", o->out);
    return ht_stdout_done(HT_EXIT_OK);
}

/* Files, then the summary, of what was done. */
static int finish(const ht_options *o, const ht_loaded *l, hearth_profiler *profiler, const paths *at, bool complete,
                  const char *text, size_t n, size_t held_out)
{
    hearth_profiler_state s = { .size = sizeof s };
    outcome_files files = { 0 };
    hearth_profile *p = NULL;
    hearth_error err = { 0 };
    int status = HT_EXIT_OK;

    hearth_profiler_get_state(profiler, &s);
    if (!complete && !s.tokens) {
        ht_complain("interrupted before the first window was done");
        return HT_EXIT_INTERRUPTED;
    }
    if (hearth_profiler_profile(profiler, &p, &err) != HEARTH_OK)
        return ht_call_failed(&err, false);
    if (complete && !(status = train(o, l, p, at, text, n, held_out)))
        status = look_ahead(o, l, p, text, n - held_out);
    if (status == HT_EXIT_INTERRUPTED) { /* the statistics are whole, and kept */
        complete = false;
        status = HT_EXIT_OK;
    }
    if (complete && !status) {
        hearth_status st = HEARTH_OK;
        if (o->pack)
            st = pack(o, l, p, at, &err);
        else if (at->out[0])
            st = hearth_profile_write(p, at->out, &err);
        if (st == HEARTH_OK)
            files.out = at->out[0] ? at->out : NULL;
        else if (st == HEARTH_ECANCELLED && ht_interrupted())
            complete = false; /* statistics are kept in the part */
        else
            status = ht_call_failed(&err, false);
        if (o->pack && (st == HEARTH_EUNSUPPORTED || st == HEARTH_EINVAL)) /* weights that cannot be packed, whatever is learnt */
            ht_remove_file(at->part);
        files.packed = o->pack && files.out;
        if (!status && complete)
            ht_remove_file(at->part);
        if (!status && o->report && hearth_profile_report(p, o->report, &err) != HEARTH_OK)
            status = ht_call_failed(&err, false);
        else if (!status)
            files.report = o->report;
    } else if (!complete) {
        files.part = at->part;
        ht_say("interrupted: %llu of %llu tokens are kept in %s; the same command goes on from there",
               (unsigned long long)s.tokens, (unsigned long long)s.tokens_total, at->part);
    }
    ht_detail("statistics took %.1f MB of memory", (double)s.bytes / (1 << 20));
    if (!status)
        status = print(o, l, p, &s, &files);
    hearth_profile_close(&p);
    return status ? status : complete ? HT_EXIT_OK : HT_EXIT_INTERRUPTED;
}

static int profile(const ht_options *o, const ht_loaded *l, const char *text, size_t n)
{
    hearth_profiler_params params = HEARTH_PROFILER_PARAMS_INIT;
    hearth_profiler *p = NULL;
    hearth_error err = { 0 };
    paths at = { 0 };
    int status = o->density.given && !wants_predictors(o)
                     ? ht_usage_error("--density makes thresholds: it goes neither with --density-only nor with --quality 0")
                     : choose_paths(o, l, &at);

    if (status)
        return status;
    const size_t held_out = held_out_bytes(o, text, n);
    if (o->density.given && (!held_out || strcmp(l->info.io, "mmap") != 0)) { /* before anything is learnt for nothing */
        ht_complain("no thresholds: %s", held_out ? from_disk : too_short);
        return HT_EXIT_FAILED;
    }
    if (o->pack && hearth_pack_check(l->model, l->path, &err) != HEARTH_OK)
        return ht_call_failed(&err, false);
    params.max_tokens = (uint64_t)o->max_tokens.v;
    params.window = (uint32_t)o->ctx.v;
    params.batch = (uint32_t)o->batch.v;
    params.kv_type = kv_type(o->kv_type);
    params.density_only = o->density_only;
    params.part = at.part;
    params.restart = o->restart;
    params.progress = ht_console_progress;
    if (hearth_profiler_open(&p, l->model, &params, &err) != HEARTH_OK)
        return ht_call_failed(&err, false);
    ht_interrupt_session(hearth_profiler_session(p));
    hearth_status st = hearth_profiler_run(p, text, n - held_out, &err);
    ht_interrupt_session(NULL);
    ht_console_progress_end();
    hearth_profiler_state s = { .size = sizeof s };
    hearth_profiler_get_state(p, &s);
    if (s.tokens_resumed)
        ht_say("went on from %s at token %llu", at.part, (unsigned long long)s.tokens_resumed);
    if (st == HEARTH_OK || (st == HEARTH_ECANCELLED && ht_interrupted())) {
        status = finish(o, l, p, &at, st == HEARTH_OK, text, n, held_out);
    } else {
        status = ht_call_failed(&err, false);
        if (st == HEARTH_EMISMATCH || st == HEARTH_EFORMAT)
            ht_complain("--restart begins anew, -o OUT.gguf keeps both");
    }
    hearth_profiler_close(&p);
    return status;
}

static int run(const ht_options *o)
{
    ht_load_how how = { .precision = HEARTH_PRECISION_FAST, .no_profile = true,
                         .no_own_predictors = true };
    ht_loaded l = { 0 };
    size_t n = 0;
    char *text = NULL;
    bool given;

    if (o->unpack)
        return unpack(o);
    if (o->density.given && o->quality.given)
        return ht_usage_error("--density or --quality, not both");
    if (o->pack && (!o->out || o->density_only || o->overrides.n))
        return ht_usage_error(o->out ? "--pack keeps the file's own metadata and learns of single neurons: neither --override "
                                       "nor --density-only goes with it"
                                     : "--pack writes a model: name it with -o OUT.gguf");
    int status = ht_load_prompt(o, &text, &n, &given);
    if (!status && !given)
        status = ht_usage_error("profile needs a text: -f TEXT, - for stdin, or -p");
    if (status)
        return status;
    ht_interrupt_arm(true);
    if (!(status = ht_load_model(&l, NULL, o, &how)))
        status = profile(o, &l, text, n);
    ht_load_close(&l);
    free(text);
    return status;
}

const ht_command ht_command_profile = {
    .name = "profile",
    .arguments = "[MODEL] -f TEXT [-o OUT.gguf] [--pack]",
    .summary = "learn from a text which neurons and experts of a model matter",
    .text =
        "Runs the text through the model in windows of --ctx tokens and gathers, for each layer: the density (share of "
        "neurons that are not zero) and its spread from token to token, the overlap (share of a token's active neurons "
        "that were active on the token before), the union over 2 to 64 tokens; for each neuron how often and how "
        "strongly it fires; for each expert how often it is chosen and what follows it. Prompts are computed in "
        "batches; the figures are those of decoding. Then it looks for predictors, which --sparsity predicted uses "
        "(docs/predictors.md): where the activation has zeros, of which neurons are zero; where it has none (SiLU, GELU), "
        "thresholds below which gates and hidden units count as zero. The profile is a small GGUF file that belongs to the model "
        "(docs/profile.md). Of dense blocks it also learns which neurons the layer before foretells, for fetching early. Ctrl-C (or SIGTERM) keeps what was done in OUT.gguf.part and prints it; the same command goes on from "
        "there. --pack writes a model laid out by what was learnt (docs/pack.md), which needs nothing beside it; --unpack gives "
        "back the plain file.",
    .max_positional = 1,
    .takes_stdin = true,
    .tables = { own_flags, ht_flags_model, ht_flags_talk },
    .idle = { ht_flags_sampling },
    .run = run,
};
