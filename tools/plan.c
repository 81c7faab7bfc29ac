/* SPDX-License-Identifier: MIT
 *
 * hearth plan: where every layer and expert of a model would be, and how fast that is, before it is loaded. The plan is the
 * library's; here are the profile that it may go by, the table and the files. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/commands.h"
#include "tools/report.h"

#define AT(member) offsetof(ht_options, member)

static const ht_flag own_flags[] = {
    { 'p', NULL, "N", HT_FLAG_INTEGER, AT(prompt_tokens), 1, 1 << 20, NULL, NULL,
      "length of the prompt whose time is foretold; default 512" },
    { 'd', "depth", "N", HT_FLAG_INTEGER, AT(depth), 0, 1 << 24, NULL, NULL,
      "positions that the context holds when a token is generated; default 0" },
    { 0, "pin", "LAYERS=TIER", HT_FLAG_TEXTS, AT(pins), 0, 0, NULL, NULL,
      "where something has to be: blk.0-7=vram, experts=disk; layers are blk.N, blk.N-M, experts, ffn, attention, output and all, "
      "tiers vram, ram and disk; may be repeated, the last one counts" },
    { 0, "html", "FILE", HT_FLAG_TEXT, AT(report), 0, 0, NULL, NULL, "draw the plan as a page" },
    { 0, "rates", "FILE", HT_FLAG_TEXT, AT(rates), 0, 0, NULL, NULL,
      "the file that keeps this machine's figures; default: one in the cache folder" },
    { 0, "stored", NULL, HT_FLAG_SWITCH, AT(stored), 0, 0, NULL, NULL, "measure nothing: only what that file has" },
    { 0 },
};

static double mib(uint64_t bytes)
{
    return (double)bytes / 1048576;
}

static bool is(const char *value, const char *name)
{
    return value && !strcmp(value, name);
}

/* ---- Profile ---- */

typedef struct uses {
    hearth_profile *profile;
    hearth_plan_use *v;
    uint32_t n;
} uses;

/* The profile that was named, which must be right, or one in the cache folder, if any. */
static int read_profile(const char *model, const ht_options *o, uses *u)
{
    hearth_model_params mp = HEARTH_MODEL_PARAMS_INIT;
    hearth_profile_info info = { .size = sizeof info };
    hearth_error err = { 0 };
    hearth_model *m = NULL;
    char fingerprint[33], found[3200];
    const char *path = o->profile;

    mp.vocab_only = true;
    mp.overrides = o->overrides.v;
    mp.n_overrides = o->overrides.n;
    hearth_status st = hearth_model_open(&m, model, &mp, &err);
    if (st == HEARTH_OK)
        st = hearth_model_fingerprint(m, fingerprint, &err);
    hearth_model_close(&m);
    if (st != HEARTH_OK && o->profile)
        return ht_call_failed(&err, true);
    if (st != HEARTH_OK) /* a file without a vocabulary has no profile */
        return HT_EXIT_OK;
    if (!path && (!ht_load_cached_profile(fingerprint, false, found, sizeof found) || access(found, F_OK)))
        return HT_EXIT_OK;
    if (hearth_profile_read(&u->profile, path ? path : found, fingerprint, &err) != HEARTH_OK) {
        if (path)
            return ht_call_failed(&err, false);
        ht_detail("the profile in the cache folder is not used: %s", err.text);
        return HT_EXIT_OK;
    }
    hearth_profile_get_info(u->profile, &info);
    u->v = calloc(info.n_layer ? info.n_layer : 1, sizeof *u->v);
    if (!u->v) {
        ht_complain("out of memory");
        return HT_EXIT_FAILED;
    }
    u->n = info.n_layer;
    for (uint32_t i = 0; i < u->n; i++) {
        hearth_profile_layer l = { .size = sizeof l };
        hearth_profile_get_layer(u->profile, i, &l);
        u->v[i] = (hearth_plan_use){ .density = (double)l.density, .expert_overlap = (double)l.expert_overlap,
                                     .expert_frequency = l.expert_frequency, .frequency = l.n_expert == 1 ? l.frequency : NULL };
    }
    return HT_EXIT_OK;
}

/* ---- Table ---- */

static bool alike(const hearth_plan_row *a, const hearth_plan_row *b)
{
    return a->mixture == b->mixture && a->output == b->output && a->trunk == b->trunk && a->trunk_bytes == b->trunk_bytes &&
           a->kv_bytes == b->kv_bytes && !memcmp(a->in, b->in, sizeof a->in) && !memcmp(a->in_bytes, b->in_bytes, sizeof a->in_bytes);
}

static double row_ms(const hearth_plan_row *r)
{
    double work = r->cpu_seconds > r->gpu_seconds ? r->cpu_seconds : r->gpu_seconds;
    work = r->disk_seconds > work ? r->disk_seconds : work;
    return 1e3 * (r->trunk_seconds + work);
}

/* One line for neighbours that are alike. */
static void print_rows(const hearth_plan *p, uint32_t n)
{
    puts("layers      kind     attention      MiB  KV MiB  pieces  vram MiB   ram MiB  disk MiB  ms each");
    for (uint32_t i = 0, k; i < n; i = k) {
        hearth_plan_row r = { .size = sizeof r }, next = { .size = sizeof next };
        char name[40] = "output";
        double ms;

        hearth_plan_get_row(p, i, &r);
        ms = row_ms(&r);
        for (k = i + 1; k < n; k++) {
            hearth_plan_get_row(p, k, &next);
            if (!alike(&r, &next))
                break;
            ms += row_ms(&next);
        }
        if (!r.output && k == i + 1)
            snprintf(name, sizeof name, "blk.%u", i);
        else if (!r.output)
            snprintf(name, sizeof name, "blk.%u-%u", i, k - 1);
        printf("%-11s %-8s %-9s %8.1f %7.1f %7u %9.1f %9.1f %9.1f %8.3f\n", name, r.output ? "" : r.mixture ? "mixture" : "dense",
               hearth_tier_name(r.trunk), mib(r.trunk_bytes), mib(r.kv_bytes), r.pieces, mib(r.in_bytes[HEARTH_TIER_VRAM]),
               mib(r.in_bytes[HEARTH_TIER_RAM]), mib(r.in_bytes[HEARTH_TIER_DISK]), ms / (k - i));
    }
}

static int print_table(const hearth_plan *p)
{
    hearth_plan_info i = { .size = sizeof i };

    hearth_plan_get_info(p, &i);
    printf("%s%s%s; %s, %u thread%s, %s; context %u, KV %s%s\n\n", i.model, i.model[0] ? ": " : "", i.description, i.device,
           i.threads, i.threads == 1 ? "" : "s", i.isa, i.n_ctx, i.kv_type, i.profiled ? "; by its profile" : "");
    print_rows(p, i.n_rows);
    printf("\n%-24s %.1f of %.1f MiB: context %.1f, tables and scratch %.1f\n", "RAM", mib(i.ram_bytes), mib(i.ram_budget_bytes),
           mib(i.kv_bytes), mib(i.fixed_bytes));
    if (i.vram_bytes)
        printf("%-24s %.1f of %.1f MiB\n", "VRAM", mib(i.vram_bytes), mib(i.vram_budget_bytes));
    if (i.disk_bytes)
        printf("%-24s %.1f MiB of weights; %.1f MiB a token at %.0f MB/s\n", "disk", mib(i.disk_bytes),
               i.disk_bytes_per_token / 1048576, 1e-6 * i.disk_bytes_per_s);
    printf("%-24s %.2f tokens/s at position %u", "generating", 1 / i.decode_seconds, i.depth);
    if (i.n_ctx > i.depth + 1)
        printf(", %.2f at %u", 1 / i.decode_full_seconds, i.n_ctx - 1);
    printf("\n%-24s %.1f tokens/s, %.0f ms to the first token after %u\n", "prompt", i.prompt_tokens / i.prompt_seconds,
           1e3 * i.prompt_seconds, i.prompt_tokens);
    return ht_stdout_done(HT_EXIT_OK);
}

/* ---- The command ---- */

static void set_params(const ht_options *o, const uses *u, hearth_model_params *mp, hearth_plan_params *pp)
{
    mp->threads = (uint32_t)o->threads.v;
    mp->precision = is(o->precision, "f32") ? HEARTH_PRECISION_F32 : HEARTH_PRECISION_FAST;
    mp->sparsity = is(o->sparsity, "off") ? HEARTH_SPARSITY_OFF : HEARTH_SPARSITY_AUTO;
    mp->io = ht_load_io(o);
    mp->ram_bytes = o->ram.given && !o->ram.bytes ? 1 : o->ram.bytes;
    mp->isa = o->isa;
    mp->overrides = o->overrides.v;
    mp->n_overrides = o->overrides.n;
    mp->progress = ht_console_progress;
    pp->n_ctx = (uint32_t)o->ctx.v;
    pp->kv_type = is(o->kv_type, "f32")    ? HEARTH_KV_F32
                  : is(o->kv_type, "q8_0") ? HEARTH_KV_Q8_0
                  : is(o->kv_type, "q4_0") ? HEARTH_KV_Q4_0
                                           : HEARTH_KV_F16;
    pp->batch = (uint32_t)o->batch.v;
    pp->prompt_tokens = (uint32_t)o->prompt_tokens.v;
    pp->depth = (uint32_t)o->depth.v;
    pp->vram_bytes = is(o->device, "cpu") ? 0 : o->vram.bytes;
    pp->pins = o->pins.v;
    pp->n_pins = o->pins.n;
    pp->stored_only = o->stored;
    pp->uses = u->v;
    pp->n_uses = u->n;
}

static int run(const ht_options *o)
{
    hearth_model_params mp = HEARTH_MODEL_PARAMS_INIT;
    hearth_plan_params pp = HEARTH_PLAN_PARAMS_INIT;
    hearth_error err = { 0 };
    hearth_plan *plan = NULL;
    char model[4096], rates[4096], *text = NULL;
    const char *inputs[3] = { model, o->profile, o->rates };
    uses u = { 0 };
    size_t n;
    int status = ht_load_path(o, model, sizeof model);

    if (status || (status = ht_load_check_output("--html", o->report, inputs, 3)) || (status = read_profile(model, o, &u)))
        goto done;
    set_params(o, &u, &mp, &pp);
    if (ht_load_rates_path(o, rates, sizeof rates))
        pp.rates = rates;
    const hearth_status st = hearth_plan_open(&plan, model, &mp, &pp, &err);
    ht_console_progress_end();
    if (st != HEARTH_OK)
        status = ht_call_failed(&err, !pp.rates || strncmp(err.text, pp.rates, strlen(pp.rates)) != 0);
    else if (o->report && hearth_plan_report(plan, o->report, &err) != HEARTH_OK)
        status = ht_call_failed(&err, false);
    else if (o->json && hearth_plan_json(plan, &text, &n, &err) != HEARTH_OK)
        status = ht_call_failed(&err, false);
    else if (o->json)
        status = ht_stdout_done(puts(text) < 0 ? HT_EXIT_FAILED : HT_EXIT_OK);
    else
        status = print_table(plan);
done:
    hearth_free(text);
    hearth_plan_close(&plan);
    hearth_profile_close(&u.profile);
    free(u.v);
    return status;
}

const ht_command ht_command_plan = {
    .name = "plan",
    .arguments = "[MODEL] [--ram SIZE] [--ctx N] [--pin LAYERS=TIER] [--html FILE]",
    .summary = "where weights go for a budget, and how fast that is",
    .text =
        "Opens the model's metadata only. The first plan on a machine measures it for some seconds and keeps the figures in the cache "
        "folder (`hearth hardware --refresh` measures anew). Where the budget holds no plan the sentence says what is missing, and "
        "the exit status is 1. docs/plan.md tells more.",
    .max_positional = 1,
    .tables = { own_flags, ht_flags_model, ht_flags_talk },
    .run = run,
};
