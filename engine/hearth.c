/* SPDX-License-Identifier: MIT
 * Models behind hearth.h: opening, closing, describing. Sessions are in session.c, text in text.c, generation in
 * generate.c. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/hints.h"
#include "engine/objects.h"
#include "engine/template.h"

_Static_assert(sizeof(hearth_error) == sizeof(ht_error) && offsetof(hearth_error, text) == offsetof(ht_error, text),
               "the public error is the internal one");
#define X(name, value, text) _Static_assert((int)HT_##name == (int)HEARTH_##name, #name);
HT_STATUS_LIST(X)
#undef X

const char *hearth_status_text(hearth_status st)
{
    return ht_status_text((ht_status)st);
}

const char *hearth_version(void)
{
    return HEARTH_VERSION;
}

void hearth_free(void *p)
{
    free(p);
}

uint64_t hearth_peak_rss(void)
{
    return ht_os_peak_rss();
}

void ht_model_log(const hearth_model *m, hearth_log_level level, const char *fmt, ...)
{
    char text[400];
    va_list ap;
    if (!m->log)
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    m->log(m->log_user, level, text);
}

/* A terminated copy of a string key; *out stays NULL where the key is absent. */
static ht_status copy_key(const ht_gguf *g, const char *key, char **out, ht_error *err)
{
    ht_str s = { NULL, 0 };
    ht_status st = ht_gguf_str(g, key, &s, err);
    if (st != HT_OK || !s.s)
        return st;
    *out = malloc(s.n + 1);
    if (!*out)
        return ht_fail(err, HT_ENOMEM, "%s", key);
    memcpy(*out, s.s, s.n);
    (*out)[s.n] = 0;
    return HT_OK;
}

ht_status ht_model_override(ht_gguf *g, const char *const *overrides, size_t n, ht_error *err)
{
    char key[256];
    for (size_t i = 0; i < n; i++) {
        const char *eq = strchr(overrides[i], '=');
        size_t length = eq ? (size_t)(eq - overrides[i]) : 0;
        if (!eq || length == 0 || length >= sizeof key)
            return ht_fail(err, HT_EINVAL, "override \"%.80s\" is not KEY=VALUE", overrides[i]);
        memcpy(key, overrides[i], length);
        key[length] = 0;
        ht_status st = ht_gguf_override(g, key, eq + 1, err);
        if (st != HT_OK)
            return st;
        /* In a file this would be something newer than this version; here it is a slip of the caller's. */
        static const char activation[] = ".hidden_activation";
        ht_activation act;
        float param;
        if (length >= sizeof activation && !strcmp(key + length - (sizeof activation - 1), activation) &&
            !ht_activation_parse(eq + 1, strlen(eq + 1), &act, &param))
            return ht_fail(err, HT_EINVAL, "override hidden_activation: \"%.40s\" is no activation (silu, gelu, gelu_tanh, relu, "
                                           "relu2, fatrelu:T, drelu)", eq + 1);
    }
    return HT_OK;
}

/* Starts reading the weights, while vocabulary and tables are built. Only what fits is read ahead: of a file larger
 * than the memory the first part, and what comes after takes its place as the pager thinks best. */
static ht_status read_ahead(hearth_model *m, ht_error *err)
{
    uint64_t most = ht_os_ram_available();
    ht_ahead_range *ranges;
    uint32_t n;
    bool whole;

    most -= most / 8;
    if (m->budget.ram_bytes && m->budget.ram_bytes < most)
        most = m->budget.ram_bytes;
    ht_status st = ht_ahead_plan(m->gguf, most, &ranges, &n, &whole, err);
    if (st != HT_OK)
        return st;
    ht_ahead_vectors(m->gguf);
    for (uint32_t i = 0; i < n && whole; i++)
        ht_os_prefer_large(ranges[i].data, (size_t)ranges[i].bytes);
    return ht_ahead_open(&m->ahead, ranges, n, HT_AHEAD_THREADS, NULL, NULL, err);
}

static ht_status open_vocabulary(hearth_model *m, bool needed, ht_error *err)
{
    ht_error why;
    ht_status st = ht_tokenizer_open(&m->tok, m->gguf, &why);
    if (st == HT_OK)
        return st;
    /* A file without any vocabulary can still compute on token ids. */
    if (!needed && st == HT_EUNSUPPORTED && !ht_gguf_find(m->gguf, "tokenizer.ggml.model"))
        return HT_OK;
    if (err)
        *err = why;
    return st;
}

/* With all (performance) cores in use, binding keeps threads apart and on the fast ones; with fewer, two programs
 * would be bound to the same ones: the system places them better. */
static bool binds(const hearth_model *m)
{
    return m->threads >= m->topology.n_perf_cores && m->threads <= m->topology.n_cores;
}

static ht_status open_executor(hearth_model *m, const hearth_model_params *p, ht_error *err)
{
    ht_status st = ht_topology_read(&m->topology, err);
    if (st != HT_OK)
        return st;
    ht_isa best = ht_isa_best();
    m->isa = best;
    if (p->isa) {
        int isa = ht_isa_by_name(p->isa);
        if (isa < 0)
            return ht_fail(err, HT_EINVAL, "\"%.40s\" is no SIMD level of this program", p->isa);
        if (!ht_isa_runs((ht_isa)isa))
            return ht_fail(err, HT_EINVAL, "this processor has no %s; its best level is %s", p->isa, ht_isa_name(best));
        m->isa = (ht_isa)isa;
    }
    uint32_t allowed = m->topology.n_pus;
    m->threads = p->threads ? p->threads : m->topology.n_perf_cores;
    if (!p->threads && m->topology.quota && m->threads > m->topology.quota)
        m->threads = m->topology.quota;
    if (m->threads > allowed) {
        ht_model_log(m, HEARTH_LOG_WARN, "%u threads asked for, this process may use %u processors: using %u",
                     m->threads, allowed, allowed);
        m->threads = allowed;
    }
    ht_cpu_params cpu = { .threads = m->threads,
                          .isa = m->isa,
                          .max_k = m->m.max_k,
                          .max_head = m->m.max_head,
                          .unpack_bytes = m->m.unpack_bytes,
                          .pin = binds(m),
                          .topology = &m->topology };
    m->exec_bytes = ht_cpu_scratch_bytes(&cpu);
    return ht_cpu_open(&m->exec, &cpu, err);
}

/* Down projections neuron-major, for a model whose activations are often zero: half of what weights and tables leave,
 * so that contexts have room. */
static ht_status set_sparse(hearth_model *m, hearth_progress_fn *progress, void *user, ht_error *err)
{
    uint64_t left = m->budget.ram_bytes, taken = m->m.weight_bytes + m->exec_bytes + m->table_bytes;
    ht_status st;

    m->sparse = true;
    if (m->store.disk)
        return HT_OK;
    if (!left) {
        left = ht_os_ram_available();
        left -= left / 8;
    }
    if ((st = ht_store_reserve(&m->store, m->f32, left > taken ? (left - taken) / 2 : 0, err)) != HT_OK)
        return st;
    if (m->sparsity != HEARTH_SPARSITY_EXACT || !m->store.planned)
        return HT_OK;
    const double t0 = ht_os_now();
    uint64_t built = 0;
    for (uint32_t i = 0; i < 2 * m->m.n_layer; i++)
        for (uint64_t n = 1; n;) {
            n = ht_store_build(&m->store, m->exec, i / 2, i % 2, 32 << 20, NULL, &st);
            built += n;
            if (st != HT_OK)
                return ht_fail(err, st, "a down projection of layer %u cannot be transposed", i / 2);
            if (n && progress && !progress(user, "preparing", built, m->store.planned))
                return ht_fail(err, HT_ECANCELLED, "cancelled");
        }
    ht_model_log(m, HEARTH_LOG_INFO, "down projections are held neuron-major too: %.0f MiB, made in %.1f s",
                 (double)m->store.planned / (1 << 20), ht_os_now() - t0);
    return HT_OK;
}

static bool wants_sparse(const hearth_model *m, const hearth_model_params *p)
{
    return p->sparsity != HEARTH_SPARSITY_OFF && ht_activation_has_zeros(m->m.act);
}

static ht_status open_sparse(hearth_model *m, const hearth_model_params *p, ht_error *err)
{
    m->sparsity = p->sparsity;
    return wants_sparse(m, p) ? set_sparse(m, p->progress, p->progress_user, err) : HT_OK;
}

/* A PowerInfer model was made to be run with its predictors: that the file is such a one is the user's wish. */
static bool wants_own_predictors(const hearth_model *m, const hearth_model_params *p)
{
    return ht_activation_has_zeros(m->m.act) && p->sparsity == HEARTH_SPARSITY_AUTO && !p->ignore_predictors;
}

static ht_status open_own_predictors(hearth_model *m, const hearth_model_params *p, ht_error *err)
{
    if (!wants_own_predictors(m, p))
        return HT_OK;
    m->table_bytes += m->m.max_ff * sizeof(float); /* its thresholds */
    ht_status st = ht_predict_own(&m->m.predict, &m->m, err);
    m->own_predictors = m->m.predict != NULL;
    return st;
}

uint64_t ht_model_weights_taken(const hearth_model *m)
{
    return m->store.disk ? m->needs.held + m->needs.floor : m->m.weight_bytes;
}

void ht_model_settle(hearth_model *m, const ht_cancel *cancel)
{
    const uint64_t slots = atomic_load(&m->slots), bound = atomic_load(&m->trim_to);

    if (bound < m->store.planned)
        ht_store_trim(&m->store, bound);
    if (m->store.disk && slots && slots != ht_disk_budget(m->store.disk))
        ht_disk_set_budget(m->store.disk, slots, cancel);
}

static void settle_if_free(hearth_model *m)
{
    if (!ht_os_try_lock(&m->lock))
        return;
    ht_model_settle(m, NULL);
    ht_os_unlock(&m->lock);
}

void ht_model_share_budget(hearth_model *m)
{
    if (!m->store.disk)
        return;
    const uint64_t taken = m->needs.held + m->exec_bytes + m->table_bytes + m->reserved;
    const uint64_t left = m->budget.ram_bytes > taken ? m->budget.ram_bytes - taken : 0;
    atomic_store(&m->slots, left > m->needs.floor ? left < m->needs.all ? left : m->needs.all : m->needs.floor);
    settle_if_free(m);
}

void ht_model_trim(hearth_model *m, uint64_t bytes)
{
    atomic_store(&m->trim_to, bytes);
    settle_if_free(m);
}

uint64_t ht_model_planned(const hearth_model *m)
{
    const uint64_t planned = m->store.planned, bound = atomic_load(&m->trim_to);
    return planned < bound ? planned : bound;
}

/* What there is for a model of which no budget is named. */
static uint64_t free_memory(void)
{
    const uint64_t free_bytes = ht_os_ram_available();
    return free_bytes - free_bytes / 8;
}

/* Weights, tables, and a session of a usual length. */
static bool fits(const hearth_model *m, uint64_t limit)
{
    enum { USUAL_CONTEXT = 2048, LEAST_BATCH = 16 };
    const ht_model *w = &m->m;
    const uint32_t n = w->n_ctx_train < USUAL_CONTEXT ? w->n_ctx_train : USUAL_CONTEXT;
    const uint64_t kv = (n + HT_KV_PAGE - 1) / HT_KV_PAGE * ht_state_set_bytes(w, m->f32 ? HT_F32 : HT_F16);

    return w->weight_bytes + m->table_bytes + m->exec_bytes + ht_state_fixed_bytes(w) + kv +
               ht_forward_bytes(w, false, m->f32, false, LEAST_BATCH, 1) <= limit;
}

hearth_status hearth_model_heat(hearth_model *m, const char *path, hearth_error *error)
{
    ht_error *err = ht_err(error), why;
    char *copy, fingerprint[33];
    ht_status st;

    if (!m->store.disk)
        return HEARTH_OK;
    if (ht_os_is_special(path)) { /* writing to a pipe waits for who reads it */
        ht_model_log(m, HEARTH_LOG_WARN, "%s is no regular file: which experts are used most is not kept", path);
        return HEARTH_OK;
    }
    if ((st = (ht_status)hearth_model_fingerprint(m, fingerprint, error)) != HT_OK)
        return (hearth_status)st;
    copy = malloc(strlen(path) + 1);
    if (!copy)
        return (hearth_status)ht_fail(err, HT_ENOMEM, "path of the heat file");
    strcpy(copy, path);
    ht_os_lock(&m->lock);
    memcpy(m->fingerprint, fingerprint, sizeof fingerprint);
    ht_gguf_forget(m->gguf);
    free(m->heat);
    m->heat = copy;
    m->heat_written = ht_os_now();
    if ((st = ht_disk_read_heat(m->store.disk, path, m->fingerprint, &why)) == HT_OK)
        st = ht_disk_plan_fill(m->store.disk, err);
    else if (st == HT_ENOMEM)
        ht_fail(err, st, "%s", why.text);
    else if (st != HT_EIO) /* the first run has none */
        ht_model_log(m, HEARTH_LOG_WARN, "%s", why.text);
    ht_disk_fill(m->store.disk);
    ht_os_unlock(&m->lock);
    return st == HT_ENOMEM ? HEARTH_ENOMEM : HEARTH_OK;
}

hearth_status hearth_model_hints(hearth_model *m, const char *profile, hearth_error *error)
{
    ht_error *err = ht_err(error);
    ht_hints *hints = NULL;
    char fingerprint[33];
    ht_status st;

    if (!m->store.disk)
        return HEARTH_OK;
    if ((st = (ht_status)hearth_model_fingerprint(m, fingerprint, error)) != HT_OK)
        return (hearth_status)st;
    float *heat = calloc((size_t)m->m.n_layer * m->m.max_expert, sizeof *heat);
    if (!heat)
        return (hearth_status)ht_fail(err, HT_ENOMEM, "frequencies of the experts");
    ht_os_lock(&m->lock);
    st = ht_hints_open(&hints, profile, &m->m, fingerprint, err);
    if (st == HT_OK && ht_hints_heat(hints, m->m.max_expert, heat)) {
        ht_disk_set_heat(m->store.disk, heat);
        if ((st = ht_disk_plan_fill(m->store.disk, err)) == HT_OK)
            ht_disk_fill(m->store.disk);
    }
    ht_gguf_forget(m->gguf); /* what the fingerprint touched */
    ht_os_unlock(&m->lock);
    ht_hints_close(&hints);
    free(heat);
    return (hearth_status)st;
}

void ht_model_keep_heat(hearth_model *m, bool at_end)
{
    static const double PERIOD = 300.0; /* seconds */
    ht_error why;

    if (!m->heat || !m->store.disk || !ht_disk_get_counts(m->store.disk).wanted || (!at_end && ht_os_now() - m->heat_written < PERIOD))
        return;
    m->heat_written = ht_os_now();
    if (ht_disk_write_heat(m->store.disk, m->heat, m->fingerprint, &why) != HT_OK)
        ht_model_log(m, HEARTH_LOG_WARN, "%s", why.text);
}

/* How a streamed model is read where nobody says: by what is faster on this disk and file, the page cache being allowed what the
 * budget leaves of the free memory. Nothing is measured where every expert is read but once. */
static ht_io choose_io(const hearth_model *m, uint64_t slots)
{
    enum { READ = 1 << 20 };
    const uint64_t available = ht_os_ram_available();
    ht_reader_choice choice;

    if (slots >= m->needs.all)
        return HT_IO_DIRECT;
    const uint64_t room = available > m->budget.ram_bytes ? available - m->budget.ram_bytes : 0;
    if (ht_reader_choose(&choice, ht_gguf_path(m->gguf, 0), READ, room, NULL) != HT_OK)
        return HT_IO_DIRECT;
    ht_model_log(m, HEARTH_LOG_INFO, "reads %s the page cache: %.0f MB/s by it, %.0f through it, %.0f of what it holds",
                 choice.io == HT_IO_DIRECT ? "pass by" : "go through", choice.direct_bytes_per_s * 1e-6,
                 choice.cached_bytes_per_s * 1e-6, choice.again_bytes_per_s * 1e-6);
    return choice.io;
}

/* What tokens do about experts that are not here, where that makes a difference. */
static ht_status check_miss(const hearth_model_params *p, ht_miss_rule *rule, ht_type *type, ht_error *err)
{
    const char *name = p->stand_in ? p->stand_in : "q2_k";
    const int id = ht_type_by_name(name);

    if ((unsigned)p->on_miss > HEARTH_MISS_SKIP)
        return ht_fail(err, HT_EINVAL, "there is no such way to meet a missing expert: %d", (int)p->on_miss);
    if (p->on_miss == HEARTH_MISS_LOW && (id < 0 || !ht_type_can_quantise((ht_type)id)))
        return ht_fail(err, HT_EINVAL, "experts' stand-ins cannot be written as \"%.20s\"", name);
    if (!(p->skip_share >= 0.0f && p->skip_share <= 1.0f) || !(p->route_bias >= 0.0f && p->route_bias <= 1e6f))
        return ht_fail(err, HT_EINVAL, "a share to be skipped is from 0 to 1, a route bias 0 or more");
    *rule = (ht_miss_rule){ .on_miss = (ht_on_miss)p->on_miss, .skip_share = p->skip_share > 0.0f ? p->skip_share : 0.1f,
                            .route_bias = p->route_bias };
    *type = p->on_miss == HEARTH_MISS_LOW ? (ht_type)id : HT_F32;
    return HT_OK;
}

static ht_status open_standins(hearth_model *m, const hearth_model_params *p, ht_type type, ht_error *err)
{
    const ht_standins_params params = { .type = type, .threads = m->threads, .progress = p->progress,
                                        .progress_user = p->progress_user };
    const double t0 = ht_os_now();
    ht_part parts[HT_N_ROLES];
    uint32_t without = 0;
    ht_status st = ht_standins_open(&m->store.standins, &m->m, &params, err);

    if (st != HT_OK)
        return st;
    for (uint32_t il = 0; il < m->m.n_layer; il++)
        without += m->m.layers[il].ffn.router.host && !ht_standins_parts(m->store.standins, il, 0, parts);
    if (without)
        ht_model_log(m, HEARTH_LOG_WARN, "experts of %u layers are packed or of uneven shapes, and have no stand-ins: tokens wait for them",
                     without);
    ht_model_log(m, HEARTH_LOG_INFO, "stand-ins of experts in %s: %.0f MiB, made in %.1f s", ht_type_name(type),
                 (double)m->standin_bytes / (1 << 20), ht_os_now() - t0);
    return HT_OK;
}

/* Reads what is held of a model that does not fit, and makes room for its experts. */
static ht_status open_disk(hearth_model *m, const hearth_model_params *p, const ht_disk_params *hooks, ht_error *err)
{
    ht_disk_params disk = hooks ? *hooks : (ht_disk_params){ 0 };
    ht_type low = HT_F32;
    ht_status st;

    disk.predictors = wants_own_predictors(m, p);
    st = ht_disk_needs_of(&m->needs, &m->m, disk.predictors, err);
    if (st != HT_OK || (st = check_miss(p, &m->store.miss, &low, err)) != HT_OK)
        return st;
    if (!m->budget.ram_bytes)
        m->budget.ram_bytes = free_memory();
    m->standin_bytes = m->store.miss.on_miss == HT_MISS_LOW ? ht_standins_bytes(&m->m, low) : 0;
    m->needs.tables += m->standin_bytes; /* counted as they are: there for good */
    m->table_bytes += m->needs.tables;
    const uint64_t needed = m->needs.held + m->needs.floor + m->table_bytes + m->exec_bytes +
                            ht_state_fixed_bytes(&m->m) + ht_state_set_bytes(&m->m, HT_Q4_0) +
                            ht_forward_bytes(&m->m, true, m->f32, wants_sparse(m, p), 1, 1);
    if (needed > m->budget.ram_bytes) {
        m->table_bytes -= m->needs.tables;
        /* Rounded so that the sentence agrees with itself. */
        const double least = ceil((double)needed / (1 << 20) * 10) / 10;
        const double given = floor((double)m->budget.ram_bytes / (1 << 20) * 10) / 10;
        char standins[64] = "";
        if (m->standin_bytes)
            snprintf(standins, sizeof standins, " %.1f of stand-ins,", (double)m->standin_bytes / (1 << 20));
        return ht_fail(err, HT_ENOMEM,
                       "streaming this model from disk takes at least %.1f MiB: %.1f of weights that every token needs, "
                       "%.1f of %s,%s the rest for tables and scratch; that is %.1f MiB more than the %.1f there are (--ram)",
                       least, (double)m->needs.held / (1 << 20), (double)m->needs.floor / (1 << 20),
                       m->m.max_expert > 1 ? "the experts that one token uses" : "two feed-forward blocks", standins, least - given,
                       given);
    }
    const uint64_t left = m->budget.ram_bytes - (needed - m->needs.floor);
    disk.budget = left < m->needs.all ? left : m->needs.all;
    disk.io = p->io == HEARTH_IO_CACHED           ? HT_IO_CACHED
              : p->io == HEARTH_IO_DIRECT || hooks ? HT_IO_DIRECT
                                                   : choose_io(m, disk.budget);
    disk.progress = p->progress;
    disk.progress_user = p->progress_user;
    m->store.prefetch = p->prefetch == HEARTH_PREFETCH_OFF  ? HT_PREFETCH_OFF
                        : p->prefetch == HEARTH_PREFETCH_ON ? HT_PREFETCH_ON
                                                            : HT_PREFETCH_AUTO;
    if ((st = ht_disk_open(&m->store.disk, &m->m, &disk, err)) != HT_OK) {
        m->table_bytes -= m->needs.tables; /* the pager may have the model yet */
        return st;
    }
    if (m->standin_bytes && (st = open_standins(m, p, low, err)) != HT_OK)
        return st;
    ht_gguf_forget(m->gguf);
    if ((st = ht_disk_plan_fill(m->store.disk, err)) != HT_OK)
        return st;
    ht_disk_fill(m->store.disk);
    const char *what = m->m.max_expert > 1 ? "experts" : "feed-forward blocks";
    ht_model_log(m, HEARTH_LOG_INFO, "%s come from the disk: %.0f MiB of weights are held, %.0f of %.0f MiB are for %s", what,
                 (double)m->needs.held / (1 << 20), (double)disk.budget / (1 << 20), (double)m->needs.all / (1 << 20), what);
    return HT_OK;
}

static ht_status describe(hearth_model *m, ht_error *err)
{
    char text[200];
    ht_status st;

    if ((st = copy_key(m->gguf, "general.name", &m->name, err)) ||
        (st = copy_key(m->gguf, "hearth.demo_prompt", &m->demo_prompt, err)) ||
        (st = copy_key(m->gguf, "tokenizer.chat_template", &m->chat_template, err)))
        return st;
    if (m->m.arch) {
        const ht_model *w = &m->m;
        int n = snprintf(text, sizeof text, "%s, %u layers, d %u, %s", w->arch->name, w->n_layer, w->d_model,
                         ht_type_name(w->layers[0].ffn.experts[0][HT_ROLE_UP].type));
        if (ht_gguf_powerinfer(m->gguf))
            snprintf(text + n, sizeof text - (size_t)n, ", PowerInfer");
        if (w->max_expert > 1)
            snprintf(text + n, sizeof text - (size_t)n, ", %u of %u experts", w->max_used, w->max_expert);
    } else {
        snprintf(text, sizeof text, "vocabulary only");
    }
    m->description = malloc(strlen(text) + 1);
    if (!m->description)
        return ht_fail(err, HT_ENOMEM, "model description");
    strcpy(m->description, text);
    return HT_OK;
}

/* Sentences about keys and tensors name the file too. */
static void name_file(ht_error *err, const char *path)
{
    char text[sizeof err->text];
    if (!err || strncmp(err->text, path, strlen(path)) == 0)
        return;
    uint64_t offset = err->offset;
    memcpy(text, err->text, sizeof text);
    ht_fail(err, err->status, "%.200s: %.290s", path, text); /* a path's control characters must not get through */
    err->offset = offset;
}

hearth_status hearth_model_open(hearth_model **out, const char *path, const hearth_model_params *params,
                                hearth_error *error)
{
    return ht_model_open(out, path, params, NULL, error);
}

/* Whether a file is streamed, as far as its size tells. */
static bool too_large(const hearth_model *m, const hearth_model_params *p)
{
    const uint64_t limit = m->budget.ram_bytes ? m->budget.ram_bytes : free_memory();
    uint64_t bytes = 0;

    for (uint64_t i = 0; i < ht_gguf_n_tensors(m->gguf); i++)
        bytes += ht_gguf_tensor_at(m->gguf, i)->bytes;
    return p->io == HEARTH_IO_DIRECT || p->io == HEARTH_IO_CACHED || (p->io == HEARTH_IO_AUTO && bytes > limit);
}

static bool inexact(const ht_miss_rule *rule) { return rule->on_miss != HT_MISS_WAIT || rule->route_bias > 0.0f; }

static ht_status open_weights(hearth_model *m, const hearth_model_params *p, const ht_disk_params *hooks, bool streamed,
                              ht_error *err)
{
    ht_miss_rule rule = { 0 };
    ht_type low = HT_F32;
    ht_status st = check_miss(p, &rule, &low, err);

    if (st != HT_OK || (st = open_executor(m, p, err)) != HT_OK)
        return st;
    if (p->io == HEARTH_IO_AUTO && m->budget.ram_bytes && !fits(m, m->budget.ram_bytes))
        streamed = true;
    if (streamed) {
        ht_ahead_close(&m->ahead);
        st = open_disk(m, p, hooks, err);
        if (st == HT_ENOMEM && !m->store.disk && p->io == HEARTH_IO_AUTO && !p->ram_bytes) { /* nobody named a limit */
            ht_model_log(m, HEARTH_LOG_WARN, "too little memory is free to stream the model, the system pages it in: %s",
                         err ? err->text : "");
            m->budget.ram_bytes = 0;
        } else if (st != HT_OK) {
            return st;
        }
    }
    if (!m->store.disk && inexact(&rule))
        ht_model_log(m, HEARTH_LOG_WARN, "all of the model is in memory or left to the pager: nothing is missed, and it stays exact");
    if ((st = open_sparse(m, p, err)) != HT_OK)
        return st;
    return open_own_predictors(m, p, err);
}

hearth_status ht_model_open(hearth_model **out, const char *path, const hearth_model_params *params,
                            const ht_disk_params *hooks, hearth_error *error)
{
    ht_error *err = ht_err(error);
    hearth_model_params p;
    ht_status st;

    HT_PARAMS(&p, params);
    *out = NULL;
    hearth_model *m = calloc(1, sizeof *m);
    if (!m)
        return (hearth_status)ht_fail(err, HT_ENOMEM, "model");
    atomic_store(&m->trim_to, UINT64_MAX);
    m->mem = *ht_mem_default();
    if (p.allocator && (!p.allocator->alloc || !p.allocator->free)) {
        st = ht_fail(err, HT_EINVAL, "an allocator needs both of its functions");
        goto fail;
    }
    if (p.allocator)
        m->mem = (ht_mem){ p.allocator->user, p.allocator->alloc, p.allocator->free };
    m->log = p.log;
    m->log_user = p.log_user;
    m->f32 = p.precision == HEARTH_PRECISION_F32;
    m->budget.ram_bytes = p.ram_bytes;
    if ((st = ht_gguf_open(&m->gguf, path, err)) || (st = ht_model_override(m->gguf, p.overrides, p.n_overrides, err)))
        goto fail;
    if (p.progress && !p.progress(p.progress_user, "opening", 0, 1)) {
        st = ht_fail(err, HT_ECANCELLED, "cancelled");
        goto fail;
    }
    const bool streamed = !p.vocab_only && too_large(m, &p);
    if (!p.vocab_only && p.io != HEARTH_IO_MMAP && !streamed && (st = read_ahead(m, err)) != HT_OK)
        goto fail;
    if ((st = open_vocabulary(m, p.vocab_only, err)) != HT_OK)
        goto fail;
    if (!p.vocab_only) {
        if ((st = ht_model_load(&m->m, m->gguf, err)) != HT_OK)
            goto fail;
        if (m->tok && ht_tokenizer_info(m->tok)->n_vocab > m->m.n_vocab) {
            st = ht_fail(err, HT_EFORMAT, "%s: the vocabulary has %u tokens, token_embd.weight only %u rows", path,
                         ht_tokenizer_info(m->tok)->n_vocab, m->m.n_vocab);
            goto fail;
        }
        m->table_bytes = ht_gguf_table_bytes(m->gguf) + m->m.table_bytes + (m->tok ? ht_tokenizer_bytes(m->tok) : 0);
        ht_store_open(&m->store, &m->m);
        if ((st = open_weights(m, &p, hooks, streamed, err)) != HT_OK)
            goto fail;
    }
    if ((st = describe(m, err)) != HT_OK)
        goto fail;
    /* Made with a loss that may be spent: that is what its owner asked for. */
    if (p.sparsity == HEARTH_SPARSITY_AUTO && !p.ignore_predictors && m->m.pack && m->m.pack->quality >= 0.0f) {
        ht_error why = { 0 };
        st = (ht_status)hearth_model_predict(m, path, (hearth_error *)(void *)&why);
        m->own_predictors = st == HT_OK;
        if (st == HT_EMISMATCH || st == HT_ENOMEM) { /* another model by overrides, a small budget: it runs without them */
            ht_model_log(m, HEARTH_LOG_WARN, "the model's own predictors are not used: %s", why.text);
        } else if (st != HT_OK) {
            if (err)
                *err = why;
            goto fail;
        }
    }
    if (p.progress)
        p.progress(p.progress_user, "opening", 1, 1);
    *out = m;
    return HEARTH_OK;

fail:
    if (st == HT_EFORMAT || st == HT_EUNSUPPORTED)
        name_file(err, path);
    hearth_model_close(&m);
    return (hearth_status)st;
}

bool hearth_bind_thread(const hearth_model *m, bool bind)
{
    if (!m->exec || !binds(m))
        return false;
    return bind ? ht_topology_pin(&m->topology, 0) : ht_topology_unpin(&m->topology);
}

void hearth_model_close(hearth_model **mp)
{
    hearth_model *m = mp ? *mp : NULL;
    if (!m)
        return;
    ht_ahead_close(&m->ahead);
    if (m->exec)
        ht_model_keep_heat(m, true);
    if (m->exec)
        m->exec->ops->close(m->exec);
    ht_topology_deinit(&m->topology);
    ht_store_close(&m->store);
    ht_model_forget_replaced(m);
    ht_predict_close(&m->m.predict);
    ht_model_free(&m->m);
    ht_tokenizer_close(&m->tok);
    ht_gguf_close(&m->gguf);
    free(m->heat);
    free(m->name);
    free(m->description);
    free(m->demo_prompt);
    free(m->chat_template);
    free(m);
    *mp = NULL;
}

hearth_status hearth_model_get_info(const hearth_model *m, hearth_model_info *out)
{
    const ht_model *w = &m->m;
    hearth_model_info i = { .architecture = w->arch ? w->arch->name : "",
                            .name = m->name ? m->name : "",
                            .description = m->description,
                            .n_vocab = w->n_vocab,
                            .n_ctx_train = w->n_ctx_train,
                            .n_layer = w->n_layer,
                            .d_model = w->d_model,
                            .n_expert = w->max_expert > 1 ? w->max_expert : 0,
                            .n_expert_used = w->max_expert > 1 ? w->max_used : 0,
                            .n_params = w->n_params,
                            .weight_bytes = w->weight_bytes,
                            .weight_bytes_per_token = w->bytes_per_token,
                            .neuron_bytes = m->store.planned,
                            .packed = w->pack != NULL,
                            .pack_quality = w->pack ? w->pack->quality : -1.0f,
                            .predicts = w->predict != NULL,
                            .bos = -1,
                            .eos = -1,
                            .eot = -1,
                            .threads = m->threads,
                            .isa = ht_isa_name(m->isa),
                            .device = "cpu",
                            .chat_family = m->chat_template ? ht_tool_family(m->chat_template, strlen(m->chat_template))
                                                            : "plain",
                            .temperature = -1.0f,
                            .top_p = -1.0f,
                            .repeat_penalty = -1.0f,
                            .demo_prompt = m->demo_prompt,
                            .recurrent = w->recurrent,
                            .precision = m->f32 ? HEARTH_PRECISION_F32 : HEARTH_PRECISION_FAST,
                            .own_predictors = m->own_predictors };
    i.io = "mmap";
    if (m->store.disk) {
        i.held_bytes = m->needs.held;
        i.expert_bytes = m->needs.all;
        const uint64_t slots = atomic_load(&m->slots); /* a pass may be settling on it just now */
        i.expert_cache_bytes = slots ? slots : ht_disk_budget(m->store.disk);
        i.stand_in_bytes = m->standin_bytes;
        i.io = ht_disk_reader_info(m->store.disk).direct ? "direct" : "cached";
    }
    if (m->tok) {
        const ht_vocab_info *v = ht_tokenizer_info(m->tok);
        i.n_vocab = w->arch ? w->n_vocab : v->n_vocab;
        i.bos = v->bos;
        i.eos = v->eos;
        i.eot = v->eot;
        i.add_bos = v->add_bos;
        i.add_eos = v->add_eos;
    }
    i.has_chat_template = m->chat_template != NULL;
    ht_gguf_f32(m->gguf, "hearth.sampling.temperature", &i.temperature, NULL);
    ht_gguf_f32(m->gguf, "hearth.sampling.top_p", &i.top_p, NULL);
    ht_gguf_f32(m->gguf, "hearth.sampling.repeat_penalty", &i.repeat_penalty, NULL);
    HT_RESULT(out, &i);
    return HEARTH_OK;
}

hearth_status hearth_model_predict(hearth_model *m, const char *profile, hearth_error *error)
{
    ht_error *err = ht_err(error);
    char fingerprint[33];
    ht_predict *p;
    ht_status st;

    if (!m->exec || m->sparsity == HEARTH_SPARSITY_OFF)
        return (hearth_status)ht_fail(err, HT_EINVAL,
                                      "neurons are foretold where they can be skipped: not with sparsity off");
    ht_os_lock(&m->budget_lock);
    bool busy = m->reserved || (m->m.predict && !m->own_predictors);
    ht_os_unlock(&m->budget_lock);
    if (busy)
        return (hearth_status)ht_fail(err, HT_EBUSY, "predictors are chosen once, before the model's first session");
    const double t0 = ht_os_now();
    if ((st = (ht_status)hearth_model_fingerprint(m, fingerprint, error)) != HT_OK ||
        (st = ht_predict_open(&p, profile, &m->m, fingerprint, err)) != HT_OK)
        return (hearth_status)st;
    if (p->masks && !ht_activation_has_zeros(m->m.act))
        st = ht_fail(err, HT_EINVAL, "%s foretells zeros, and the activation %s has none", profile,
                     ht_activation_name(m->m.act));
    const uint64_t freed = m->m.predict ? m->m.predict->bytes : 0;
    uint64_t taken = ht_model_weights_taken(m) + m->exec_bytes + m->table_bytes - freed, budget = m->budget.ram_bytes;
    if (st == HT_OK && budget && (budget < taken || budget - taken < p->bytes))
        st = ht_fail(err, HT_ENOMEM, "the signs of the weights, for predictors, take %.0f MiB more than the budget",
                     (double)(p->bytes + taken - budget) / (1 << 20));
    if (st == HT_OK && budget) { /* neuron-major parts yield */
        ht_os_lock(&m->lock);
        ht_store_trim(&m->store, budget - taken - p->bytes);
        ht_os_unlock(&m->lock);
    }
    if (st != HT_OK || (st = ht_predict_prepare(p, &m->m, m->exec, err)) != HT_OK) {
        ht_predict_close(&p);
        return (hearth_status)st;
    }
    if (m->store.disk) /* experts were looked at in the mapping */
        ht_gguf_forget(m->gguf);
    m->table_bytes += p->bytes - (m->m.predict ? m->m.predict->bytes : 0);
    ht_predict_close(&m->m.predict); /* the file's own */
    m->m.predict = p;
    m->own_predictors = false;
    if (p->thresholds && !m->sparse && (st = set_sparse(m, NULL, NULL, err)) != HT_OK) {
        m->m.predict = NULL;
        m->sparse = false;
        m->table_bytes -= p->bytes;
        ht_store_close(&m->store);
        ht_store_open(&m->store, &m->m);
        ht_predict_close(&p);
        return (hearth_status)st;
    }
    ht_os_lock(&m->budget_lock);
    ht_model_share_budget(m);
    ht_os_unlock(&m->budget_lock);
    if (p->bytes)
        ht_model_log(m, HEARTH_LOG_INFO, "signs of the weights, for predictors: %.0f MiB, made in %.1f s",
                     (double)p->bytes / (1 << 20), ht_os_now() - t0);
    return HEARTH_OK;
}
