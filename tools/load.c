/* SPDX-License-Identifier: MIT
 * Models, sessions, samplers, prompts and id lists from the flags; see load.h. */
#include "tools/load.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/npy.h"

/* ---- The model that ships ---- */

/* The first GGUF file by name in a folder, the ending left out: story.gguf comes before story-moe.gguf. */
static bool first_model(const char *folder, char *path, size_t path_bytes)
{
    char best[256] = "";
    DIR *d = opendir(folder);
    if (!d)
        return false;
    for (struct dirent *e; (e = readdir(d));) {
        size_t n = strlen(e->d_name);
        if (n <= 5 || n >= sizeof best || strcmp(e->d_name + n - 5, ".gguf") != 0)
            continue;
        e->d_name[n - 5] = 0;
        if (!best[0] || strcmp(e->d_name, best) < 0)
            memcpy(best, e->d_name, n - 4);
    }
    closedir(d);
    return best[0] && (size_t)snprintf(path, path_bytes, "%s/%s.gguf", folder, best) < path_bytes;
}

bool ht_load_shipped(char *path, size_t path_bytes)
{
    static const char *const beside[] = { "../share/hearth/models", "../models" };
    char exe[3000], folder[4000];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    char *slash = n > 0 ? (exe[n] = 0, strrchr(exe, '/')) : NULL;
    if (slash) {
        *slash = 0;
        for (size_t i = 0; i < sizeof beside / sizeof *beside; i++) {
            snprintf(folder, sizeof folder, "%s/%s", exe, beside[i]);
            if (first_model(folder, path, path_bytes))
                return true;
        }
    }
    return first_model(HEARTH_SOURCE_MODELS, path, path_bytes) || first_model(HEARTH_INSTALL_MODELS, path, path_bytes);
}

int ht_load_path(const ht_options *o, char *path, size_t path_bytes)
{
    if (o->n_positional) {
        if ((size_t)snprintf(path, path_bytes, "%s", o->positional[0]) >= path_bytes)
            return ht_usage_error("the path of the model is too long");
        return HT_EXIT_OK;
    }
    if (ht_load_shipped(path, path_bytes))
        return HT_EXIT_OK;
    return ht_usage_error("the model that ships was not found; name a GGUF file");
}

/* ---- Opening ---- */

static bool is(const char *value, const char *name)
{
    return value && !strcmp(value, name);
}

/* KIND/NAME and an ending, in the cache folder. */
static bool cached_as(const char *kind, const char *name, const char *ending, bool make, char *path, size_t path_bytes)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char folder[3000];
    int n;
    if (cache && cache[0] == '/') /* relative ones are to be ignored, says the XDG base directory specification */
        n = snprintf(folder, sizeof folder, "%s/hearth/%s", cache, kind);
    else if (home && home[0] == '/')
        n = snprintf(folder, sizeof folder, "%s/.cache/hearth/%s", home, kind);
    else
        return false;
    if (n < 0 || (size_t)n >= sizeof folder)
        return false;
    for (char *p = folder + 1; make && *p; p++)
        if (*p == '/') {
            *p = 0;
            mkdir(folder, 0700);
            *p = '/';
        }
    if (make && mkdir(folder, 0700) && errno != EEXIST)
        return false;
    n = snprintf(path, path_bytes, "%s/%s%s", folder, name, ending);
    return n > 0 && (size_t)n < path_bytes;
}

static bool cached(const char *kind, const char *fingerprint, bool make, char *path, size_t path_bytes)
{
    return cached_as(kind, fingerprint, ".gguf", make, path, path_bytes);
}

bool ht_load_rates_path(const ht_options *o, char *path, size_t path_bytes)
{
    char name[80], threads[24] = "default";
    if (o->rates)
        return (size_t)snprintf(path, path_bytes, "%s", o->rates) < path_bytes;
    if (o->threads.given)
        snprintf(threads, sizeof threads, "%lld", (long long)o->threads.v);
    snprintf(name, sizeof name, "%s-threads-%.30s-%s", threads, o->isa ? o->isa : "best", is(o->precision, "f32") ? "f32" : "fast");
    return !strchr(name, '/') && cached_as("hardware", name, ".txt", true, path, path_bytes);
}

bool ht_load_cached_profile(const char *fingerprint, bool make, char *path, size_t path_bytes)
{
    return cached("profiles", fingerprint, make, path, path_bytes);
}

/* A streamed model remembers which experts it used; a profile says so before its first run. */
static int use_heat(const ht_loaded *l, const ht_options *o)
{
    hearth_error err = { 0 };
    char model[33], path[3200];
    if (!l->info.expert_bytes)
        return HT_EXIT_OK;
    if (hearth_model_fingerprint(l->model, model, &err) != HEARTH_OK)
        return ht_call_failed(&err, false);
    const bool found = ht_load_cached_profile(model, false, path, sizeof path) && !access(path, F_OK);
    if ((o->profile || found) && hearth_model_hints(l->model, o->profile ? o->profile : path, &err) != HEARTH_OK) {
        if (o->profile)
            return ht_call_failed(&err, false);
        ht_detail("the profile in the cache folder is not used: %s", err.text);
    }
    if (cached("heat", model, true, path, sizeof path) && hearth_model_heat(l->model, path, &err) != HEARTH_OK)
        return ht_call_failed(&err, false);
    return HT_EXIT_OK;
}

/* A profile that was named must be right. Predictors of one in the cache folder are used where that is asked for only. */
static int check_profile(const ht_loaded *l, const ht_options *o)
{
    hearth_error err = { 0 };
    hearth_profile *profile = NULL;
    char model[33], found[3200];
    const char *path = o->profile;
    const bool predicted = is(o->sparsity, "predicted");
    if (!path && l->info.own_predictors) { /* a profile must be named to take their place */
        ht_detail("neurons are chosen by the predictors of the file itself");
        return HT_EXIT_OK;
    }
    if (!path && !predicted && !o->verbose && !o->log)
        return HT_EXIT_OK;
    if (hearth_model_fingerprint(l->model, model, &err) != HEARTH_OK)
        return ht_call_failed(&err, false);
    const hearth_model_info *own = &l->info;
    if (!path && own->packed) { /* carries its own */
        if (predicted && own->pack_quality < 0)
            return ht_usage_error("this model was packed without --quality: it holds no predictors (--profile FILE names "
                                  "some)");
        path = l->path;
    }
    if (!path) {
        if (!ht_load_cached_profile(model, false, found, sizeof found) || access(found, F_OK))
            return predicted ? ht_usage_error(
                                   "--sparsity predicted needs a profile of this model: `hearth profile` makes one, "
                                   "--profile FILE names one")
                             : HT_EXIT_OK;
        path = found;
    }
    hearth_status st = hearth_profile_read(&profile, path, model, &err);
    if (st != HEARTH_OK && (o->profile || predicted))
        return ht_call_failed(&err, false);
    if (st != HEARTH_OK) {
        ht_detail("the profile in the cache folder is not used: %s", err.text);
        return HT_EXIT_OK;
    }
    hearth_profile_info info = { .size = sizeof info };
    hearth_profile_get_info(profile, &info);
    ht_detail("profile %s: %llu tokens, density %.1f %%", path, (unsigned long long)info.tokens, 100 * info.density);
    hearth_profile_close(&profile);
    if (predicted && hearth_model_predict(l->model, path, &err) != HEARTH_OK)
        return ht_call_failed(&err, false);
    return HT_EXIT_OK;
}

bool ht_load_inexact(const ht_options *o)
{
    return (o->on_miss && !is(o->on_miss, "wait")) || o->route_bias.v > 0;
}

hearth_io ht_load_io(const ht_options *o)
{
    return is(o->io, "mmap")     ? HEARTH_IO_MMAP
           : is(o->io, "direct") ? HEARTH_IO_DIRECT
           : is(o->io, "cached") ? HEARTH_IO_CACHED
                                 : HEARTH_IO_AUTO;
}

/* --on-miss: wait, low[:TYPE], skip[:SHARE]. */
static int parse_on_miss(const char *text, hearth_model_params *p)
{
    const char *colon = strchr(text, ':'), *more = colon ? colon + 1 : NULL;
    const size_t n = colon ? (size_t)(colon - text) : strlen(text);
    size_t bytes;

    if (n == 4 && !strncmp(text, "wait", n) && !more)
        return HT_EXIT_OK;
    if (n == 3 && !strncmp(text, "low", n)) {
        if (more && hearth_encode(more, NULL, 256, NULL, &bytes) != HEARTH_OK)
            return ht_usage_error("--on-miss low: \"%.40s\" is no weight type that can be written", more);
        p->on_miss = HEARTH_MISS_LOW;
        p->stand_in = more;
        return HT_EXIT_OK;
    }
    if (n == 4 && !strncmp(text, "skip", n)) {
        char *end = NULL;
        const double share = more && *more >= '0' && *more <= '9' ? strtod(more, &end) : 0.1;
        if (more && (!end || *end || !(share > 0 && share <= 1)))
            return ht_usage_error("--on-miss skip takes a share above 0, up to 1, not '%.40s'", more);
        p->on_miss = HEARTH_MISS_SKIP;
        p->skip_share = (float)share;
        return HT_EXIT_OK;
    }
    return ht_usage_error("--on-miss takes wait, low[:TYPE] or skip[:SHARE], not '%.40s'", text);
}

int ht_load_model(ht_loaded *l, const char *path, const ht_options *o, const ht_load_how *how)
{
    memset(l, 0, sizeof *l);
    if (!path) {
        int status = ht_load_path(o, l->path, sizeof l->path);
        if (status)
            return status;
    } else if ((size_t)snprintf(l->path, sizeof l->path, "%s", path) >= sizeof l->path) {
        return ht_usage_error("the path of the model is too long");
    }
    hearth_model_params p = HEARTH_MODEL_PARAMS_INIT;
    p.threads = how->threads ? how->threads : (uint32_t)o->threads.v;
    p.precision = how->precision;
    if (o->precision)
        p.precision = is(o->precision, "f32") ? HEARTH_PRECISION_F32 : HEARTH_PRECISION_FAST;
    if (how->dense || is(o->sparsity, "off"))
        p.sparsity = HEARTH_SPARSITY_OFF;
    else if (is(o->sparsity, "exact"))
        p.sparsity = HEARTH_SPARSITY_EXACT;

    if (o->on_miss && !how->dense) {
        int status = parse_on_miss(o->on_miss, &p);
        if (status)
            return status;
    }
    p.route_bias = how->dense ? 0.0f : (float)o->route_bias.v;
    p.ignore_predictors = how->no_own_predictors;
    p.io = ht_load_io(o);
    p.prefetch = is(o->prefetch, "on")    ? HEARTH_PREFETCH_ON
                 : is(o->prefetch, "off") ? HEARTH_PREFETCH_OFF
                                          : HEARTH_PREFETCH_AUTO;
    p.deterministic = o->deterministic;
    p.vocab_only = how->vocab_only;
    p.ram_bytes = o->ram.bytes;
    if (o->ram.given && !o->ram.bytes)
        p.ram_bytes = 1; /* a budget of nothing is not "what is free" */
    p.isa = o->isa;
    p.overrides = o->overrides.v;
    p.n_overrides = o->overrides.n;
    p.log = ht_console_log;
    p.progress = ht_console_progress;
    if (o->vram.given)
        ht_say("--vram %llu: this version has no graphics executor; the CPU runs the model",
               (unsigned long long)o->vram.bytes);

    hearth_error err = { 0 };
    double begin = ht_now();
    hearth_status st = hearth_model_open(&l->model, l->path, &p, &err);
    ht_console_progress_end();
    if (st != HEARTH_OK)
        return ht_call_failed(&err, true);
    l->load_ms = 1e3 * (ht_now() - begin);
    hearth_bind_thread(l->model, true); /* the main thread is the command's own */
    l->info.size = sizeof l->info;
    st = hearth_model_get_info(l->model, &l->info);
    if (st != HEARTH_OK) {
        ht_complain("%s", hearth_status_text(st));
        ht_load_close(l);
        return HT_EXIT_FAILED;
    }
    ht_detail("%s: %s; opened in %.1f ms; %s, %u threads, %s", l->path, l->info.description ? l->info.description : "",
              l->load_ms, l->info.device, l->info.threads, l->info.isa);
    int status = how->vocab_only || how->no_profile ? HT_EXIT_OK : check_profile(l, o);
    if (!status)
        status = use_heat(l, o);
    if (status)
        ht_load_close(l);
    return status;
}

void ht_load_close(ht_loaded *l)
{
    if (l->model)
        hearth_bind_thread(l->model, false);
    hearth_model_close(&l->model);
}

int ht_load_session(hearth_session **s, const ht_loaded *l, const ht_options *o, uint32_t n_ctx)
{
    hearth_session_params p = HEARTH_SESSION_PARAMS_INIT;
    hearth_error err = { 0 };
    p.n_ctx = o->ctx.given ? (uint32_t)o->ctx.v : n_ctx;
    if (is(o->kv_type, "f32"))
        p.kv_type = HEARTH_KV_F32;
    else if (is(o->kv_type, "q8_0"))
        p.kv_type = HEARTH_KV_Q8_0;
    else if (is(o->kv_type, "q4_0"))
        p.kv_type = HEARTH_KV_Q4_0;
    p.batch = (uint32_t)o->batch.v;
    *s = NULL;
    if (hearth_session_open(s, l->model, &p, &err) != HEARTH_OK)
        return ht_call_failed(&err, false);
    return HT_EXIT_OK;
}

int ht_load_sampler(hearth_sampler **sampler, const ht_loaded *l, const ht_options *o, uint64_t *seed)
{
    hearth_sampler_params p = HEARTH_SAMPLER_PARAMS_INIT;
    hearth_error err = { 0 };
    uint32_t random = 0;
    p.temperature = l->info.temperature >= 0 ? l->info.temperature : 0.8f;
    p.top_p = l->info.top_p >= 0 ? l->info.top_p : 0.95f;
    p.repeat_penalty = l->info.repeat_penalty >= 0 ? l->info.repeat_penalty : 1.0f;
    p.top_k = 40;
    p.min_p = 0.05f;
    if (o->temperature.given)
        p.temperature = (float)o->temperature.v;
    if (o->top_k.given)
        p.top_k = (uint32_t)o->top_k.v;
    if (o->top_p.given)
        p.top_p = (float)o->top_p.v;
    if (o->min_p.given)
        p.min_p = (float)o->min_p.v;
    if (o->repeat_penalty.given)
        p.repeat_penalty = (float)o->repeat_penalty.v;
    else if (o->temperature.given && o->temperature.v <= 0)
        p.repeat_penalty = 1; /* greedy means the best token, not the best after a penalty that nobody asked for */
    if (o->seed.given)
        p.seed = (uint64_t)o->seed.v;
    else if (getrandom(&random, sizeof random, GRND_NONBLOCK) == (ssize_t)sizeof random)
        p.seed = random;
    else
        p.seed = (uint32_t)(1e9 * ht_now());
    *seed = p.seed;
    ht_detail("sampling: temperature %g, top-k %u, top-p %g, min-p %g, repeat penalty %g, seed %llu",
              (double)p.temperature, p.top_k, (double)p.top_p, (double)p.min_p, (double)p.repeat_penalty,
              (unsigned long long)p.seed);
    if (hearth_sampler_open(sampler, &p, l->info.n_vocab, &err) != HEARTH_OK)
        return ht_call_failed(&err, false);
    return HT_EXIT_OK;
}

/* ---- Prompts and ids ---- */

int ht_load_file(const char *path, char **text, size_t *n)
{
    bool is_stdin = !strcmp(path, "-");
    FILE *f = is_stdin ? stdin : fopen(path, "rb");
    size_t used = 0, room = 1 << 16;
    char *buf = NULL;
    if (!f) {
        ht_complain("cannot read %s: %s", path, strerror(errno));
        return HT_EXIT_FAILED;
    }
    for (;;) {
        char *more = realloc(buf, room + 1);
        if (!more) {
            ht_complain("%s does not fit in memory", path);
            goto fail;
        }
        buf = more;
        used += fread(buf + used, 1, room - used, f);
        if (used < room)
            break;
        room *= 2;
    }
    if (ferror(f)) {
        ht_complain("cannot read %s: %s", is_stdin ? "stdin" : path, strerror(errno));
        goto fail;
    }
    if (!is_stdin)
        fclose(f);
    buf[used] = 0;
    *text = buf;
    *n = used;
    return HT_EXIT_OK;

fail:
    if (!is_stdin)
        fclose(f);
    free(buf);
    return ht_interrupted() ? HT_EXIT_INTERRUPTED : HT_EXIT_FAILED;
}

int ht_load_prompt(const ht_options *o, char **text, size_t *n, bool *given)
{
    *text = NULL;
    *n = 0;
    *given = o->prompt || o->file || o->from_stdin;
    if (!!o->prompt + !!o->file + o->from_stdin > 1)
        return ht_usage_error("-p TEXT, -f FILE and - exclude each other");
    if (o->prompt) {
        *n = strlen(o->prompt);
        *text = strdup(o->prompt);
        if (!*text) {
            ht_complain("out of memory");
            return HT_EXIT_FAILED;
        }
        return HT_EXIT_OK;
    }
    return *given ? ht_load_file(o->file ? o->file : "-", text, n) : HT_EXIT_OK;
}

static int parse_tokens(const char *list, hearth_token **ids, size_t *n)
{
    size_t count = 0;
    hearth_token *v = malloc((strlen(list) / 2 + 1) * sizeof *v); /* an id and its separator are two bytes at least */
    if (!v) {
        ht_complain("out of memory");
        return HT_EXIT_FAILED;
    }
    for (const char *p = list; *p;) {
        char *end;
        if (*p == ',' || isspace((unsigned char)*p)) {
            p++;
            continue;
        }
        long long id = strtoll(p, &end, 10);
        if (id < 0 || id > INT32_MAX) {
            free(v);
            return ht_usage_error("--tokens: %.*s is no token id", (int)strcspn(p, ", \t\r\n"), p);
        }
        v[count++] = (hearth_token)id;
        p = end;
    }
    *ids = v;
    *n = count;
    return HT_EXIT_OK;
}

int ht_load_tokens(const char *list, hearth_token **ids, size_t *n)
{
    *ids = NULL;
    *n = 0;
    if (list[strspn(list, "0123456789, \t\r\n")] == 0)
        return parse_tokens(list, ids, n);
    char why[200];
    switch (ht_npy_read_ids(list, ids, n, why, sizeof why)) {
    case HT_NPY_OK: return HT_EXIT_OK;
    case HT_NPY_UNREADABLE:
        if (strchr(list, ',') || strchr("-0123456789", list[0])) /* meant as a list */
            return ht_usage_error("--tokens %s is no list of token ids as 1,2,3", list);
        ht_complain("--tokens %s: %s", list, why);
        return HT_EXIT_FAILED;
    default: return ht_usage_error("--tokens %s: %s; a list is written as 1,2,3", list, why);
    }
}

int ht_load_check_output(const char *flag, const char *path, const char *const *inputs, size_t n_inputs)
{
    struct stat out, in;
    char folder[4200];

    if (!path || !*path)
        return HT_EXIT_OK;
    for (size_t i = 0; i < n_inputs; i++)
        if (inputs[i] && !strcmp(inputs[i], path))
            return ht_usage_error("%s %s: that file has another use in this command", flag, path);
    if (!stat(path, &out)) {
        if (S_ISDIR(out.st_mode))
            return ht_usage_error("%s %s is a folder", flag, path);
        for (size_t i = 0; i < n_inputs; i++)
            if (S_ISREG(out.st_mode) && inputs[i] && !stat(inputs[i], &in) && in.st_dev == out.st_dev &&
                in.st_ino == out.st_ino)
                return ht_usage_error("%s %s: that file has another use in this command", flag, path);
        return HT_EXIT_OK;
    }
    const char *slash = strrchr(path, '/');
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");
    if (!access(folder, W_OK))
        return HT_EXIT_OK;
    ht_complain("%s %s: cannot write there: %s", flag, path, strerror(errno));
    return HT_EXIT_FAILED;
}

void ht_remove_file(const char *path)
{
    struct stat st;
    if (!lstat(path, &st) && S_ISREG(st.st_mode))
        remove(path);
}
