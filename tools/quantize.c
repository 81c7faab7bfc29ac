/* SPDX-License-Identifier: MIT
 *
 * hearth quantize: writes a model with weights of another type, and of a mixture, where asked, with a width for each expert.
 * The work is the library's (offline_profiler/quantise.c); here are flags, the text to try experts on, and the summary. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/commands.h"
#include "tools/report.h"

#define AT(member) offsetof(ht_options, member)

enum { OWN_TOKENS = 5500, OWN_WINDOW = 256, MAX_WIDTHS = HEARTH_QUANTISE_WIDTHS };

static const ht_flag own_flags[] = {
    { 0, "type", "T", HT_FLAG_TEXT, AT(type), 0, 0, NULL, NULL,
      "type of the matrices: f32 f16 bf16 q8_0 q6_k q5_k q4_k q3_k q2_k q5_1 q5_0 q4_1 q4_0 iq4_nl iq4_xs mxfp4 tq2_0" },
    { 0, "pure", NULL, HT_FLAG_SWITCH, AT(pure), 0, 0, NULL, NULL,
      "the output matrix gets the type as well; else it keeps 6 bits at least" },
    { 0, "per-expert", NULL, HT_FLAG_SWITCH, AT(per_expert), 0, 0, NULL, NULL,
      "mixtures: every expert is tried alone at narrower widths, and those that matter least are lowered, as far as "
      "--quality or --size says" },
    { 0, "quality", "X", HT_FLAG_NUMBER, AT(quality), 0, 10, NULL, NULL,
      "with --per-expert: the loss that the file may have against the input, as mean KL divergence in nat; default 0.01" },
    { 0, "size", "SIZE", HT_FLAG_SIZE, AT(target), 0, 0, NULL, NULL,
      "with --per-expert: bytes that its tensors may have, in place of --quality" },
    { 0, "widths", "A,B,…", HT_FLAG_TEXT, AT(widths), 0, 0, NULL, NULL,
      "with --per-expert: the types that experts may be lowered to, falling; default: the next three below --type" },
    { 'f', "file", "TEXT", HT_FLAG_TEXT, AT(file), 0, 0, NULL, NULL,
      "with --per-expert: text of the kind that the model is for; experts are tried on its beginning, the loss is measured on "
      "its last tenth or more; default: text that the model writes itself" },
    { 0, "tokens", "N", HT_FLAG_INTEGER, AT(max_tokens), 32, 1 << 20, NULL, NULL,
      "with --per-expert: tokens that each expert is tried on; default 1024" },
    { 0 },
};

/* "q5_0,q4_0" cut at commas in place. False: too many. */
static bool split(char *list, const char **names, size_t *n)
{
    for (*n = 0; list && *list;) {
        char *comma = strchr(list, ',');
        if (*n == MAX_WIDTHS)
            return false;
        names[(*n)++] = list;
        if (!comma)
            break;
        *comma = 0;
        list = comma + 1;
    }
    return true;
}

/* ---- Text that the model writes ---- */

typedef struct writing {
    hearth_token *ids;
    size_t n;
} writing;

static bool keep(void *user, hearth_token token, const char *text, size_t n)
{
    writing *w = user;
    (void)text;
    (void)n;
    if (token >= 0 && w->n < OWN_TOKENS)
        w->ids[w->n++] = token;
    return w->n < OWN_TOKENS && !ht_interrupted();
}

/* Windows at temperature 1, each from the beginning of a text: what the model thinks likely. */
static int write_windows(const ht_loaded *l, const ht_options *o, writing *w)
{
    hearth_generate_params g = HEARTH_GENERATE_PARAMS_INIT;
    hearth_sampler_params sp = HEARTH_SAMPLER_PARAMS_INIT;
    hearth_sampler *sampler = NULL;
    hearth_session *session = NULL;
    hearth_error err = { 0 };
    hearth_stop_reason why;
    hearth_token first = l->info.bos >= 0 ? l->info.bos : l->info.eos >= 0 ? l->info.eos : 0;
    int status = ht_load_session(&session, l, o, OWN_WINDOW + 2);

    sp.temperature = 1;
    sp.seed = 1;
    g.max_tokens = OWN_WINDOW;
    g.on_token = keep;
    g.user = w;
    if (!status && hearth_sampler_open(&sampler, &sp, l->info.n_vocab, &err) != HEARTH_OK)
        status = ht_call_failed(&err, false);
    ht_interrupt_session(session);
    for (int tries = 0; !status && w->n < OWN_TOKENS && tries < 100 && !ht_interrupted(); tries++) {
        if (hearth_session_rewind(session, 0, &err) != HEARTH_OK ||
            hearth_generate(session, sampler, &first, 1, &g, &why, &err) != HEARTH_OK)
            status = ht_call_failed(&err, false);
        ht_console_progress(NULL, "writing a text", w->n, OWN_TOKENS);
    }
    ht_console_progress_end();
    ht_interrupt_session(NULL);
    hearth_sampler_close(&sampler);
    hearth_session_close(&session);
    return status ? status : ht_interrupted() ? HT_EXIT_INTERRUPTED : HT_EXIT_OK;
}

static int own_text(const ht_options *o, const char *in, char **text, size_t *n)
{
    ht_load_how how = { .precision = HEARTH_PRECISION_FAST, .no_profile = true };
    writing w = { .ids = malloc(OWN_TOKENS * sizeof *w.ids) };
    ht_loaded l = { 0 };
    hearth_error err = { 0 };
    char *own = NULL;
    int status = w.ids ? ht_load_model(&l, in, o, &how) : HT_EXIT_FAILED;

    if (!status && !(status = write_windows(&l, o, &w))) {
        if (hearth_detokenize(l.model, w.ids, w.n, false, &own, n, &err) != HEARTH_OK)
            status = ht_call_failed(&err, false);
        else if (!(*text = malloc(*n + 1)))
            status = HT_EXIT_FAILED;
        else
            memcpy(*text, own, *n);
    }
    hearth_free(own);
    ht_load_close(&l);
    free(w.ids);
    return status;
}

/* ---- The summary ---- */

static double mib(uint64_t bytes) { return (double)bytes / (1 << 20); }

static void print_curve(const hearth_quantise_result *r)
{
    if (!r->n_points)
        return;
    puts("  tensors, MB   lowered   KL mean    KL p99   same token");
    for (uint32_t i = 0; i < r->n_points; i++) {
        const hearth_quantise_point *p = &r->points[i];
        printf("%c %11.2f  %8u  %8.5f  %8.4f  %9.1f %%\n", p->chosen ? '*' : ' ', mib(p->bytes), p->lowered, p->kl_mean,
               p->kl_p99, 100 * p->top1_agreement);
    }
    fputs("experts:", stdout);
    for (uint32_t i = 0; i < r->n_widths; i++)
        printf("%s %llu of %s", i ? "," : "", (unsigned long long)r->experts[i], r->widths[i]);
    putchar('\n');
}

static int print_json(const hearth_quantise_result *r, const char *in, const char *out, double seconds)
{
    cJSON *j = cJSON_CreateObject(), *points = cJSON_CreateArray(), *widths = cJSON_CreateObject();

    ht_report_text(j, "model", in, strlen(in));
    ht_report_text(j, "out", out, strlen(out));
    ht_report_text(j, "type", r->widths[0], strlen(r->widths[0]));
    ht_report_number(j, "tensor_bytes_in", (double)r->bytes_in);
    ht_report_number(j, "tensor_bytes_out", (double)r->bytes_out);
    ht_report_number(j, "tensors", r->tensors);
    ht_report_number(j, "tensors_encoded", r->encoded);
    ht_report_number(j, "tensors_of_other_type", r->fallbacks);
    ht_report_number(j, "weights_encoded", (double)r->weights);
    ht_report_number(j, "seconds", seconds);
    for (uint32_t i = 0; i < r->n_points; i++) {
        cJSON *p = cJSON_CreateObject();
        ht_report_number(p, "tensor_bytes", (double)r->points[i].bytes);
        ht_report_number(p, "lowered", r->points[i].lowered);
        ht_report_number(p, "kl_divergence_mean", r->points[i].kl_mean);
        ht_report_number(p, "kl_divergence_p99", r->points[i].kl_p99);
        ht_report_number(p, "top1_agreement", r->points[i].top1_agreement);
        cJSON_AddBoolToObject(p, "chosen", r->points[i].chosen);
        cJSON_AddItemToArray(points, p);
    }
    for (uint32_t i = 0; r->n_points && i < r->n_widths; i++)
        cJSON_AddNumberToObject(widths, r->widths[i], (double)r->experts[i]);
    cJSON_AddItemToObject(j, "curve", points);
    cJSON_AddItemToObject(j, "experts", widths);
    return ht_report_print(j);
}

static int print(const ht_options *o, const hearth_quantise_result *r, double seconds)
{
    const char *in = o->positional[0], *out = o->positional[1];

    if (o->json)
        return print_json(r, in, out, seconds);
    print_curve(r);
    printf("%s: %u tensors, %u of them encoded to %s%s; %.1f MB became %.1f MB (%.1f %%) in %.1f s\n", out, r->tensors,
           r->encoded, r->widths[0], r->n_widths > 1 ? " or less" : "", mib(r->bytes_in), mib(r->bytes_out),
           r->bytes_in ? 100 * (double)r->bytes_out / (double)r->bytes_in : 0, seconds);
    if (r->fallbacks)
        printf("%u tensors have rows that are no whole blocks of their type; they got %s or the like\n", r->fallbacks,
               r->fallback);
    return ht_stdout_done(HT_EXIT_OK);
}

/* ---- The command ---- */

static bool progress(void *user, const char *what, uint64_t done, uint64_t total)
{
    return ht_console_progress(user, what, done, total) && !ht_interrupted();
}

static int check(const ht_options *o)
{
    const char *read[] = { o->n_positional ? o->positional[0] : NULL, o->file };

    if (o->n_positional != 2)
        return ht_usage_error("quantize needs two files: IN.gguf OUT.gguf");
    if (!o->type)
        return ht_usage_error("--type is missing: the weight type of OUT.gguf, as q4_k");
    size_t bytes;
    if (hearth_encode(o->type, NULL, 256, NULL, &bytes) != HEARTH_OK)
        return ht_usage_error("--type %.40s: no weight type that can be written", o->type);
    if (!o->per_expert && (o->quality.given || o->target.given || o->widths || o->file))
        return ht_usage_error("--quality, --size, --widths and -f belong to --per-expert");
    if (o->quality.given && o->target.given)
        return ht_usage_error("--quality or --size, not both");
    if ((o->quality.given && o->quality.v <= 0) || (o->target.given && !o->target.bytes))
        return ht_usage_error("%s: more than 0 was expected", o->quality.given ? "--quality" : "--size");
    if (!*o->positional[1])
        return ht_usage_error("OUT.gguf: a name was expected");
    return ht_load_check_output("OUT.gguf", o->positional[1], read, 2);
}

static int quantise(const ht_options *o, char *widths, char *text, size_t n_text)
{
    hearth_quantise_params p = HEARTH_QUANTISE_PARAMS_INIT;
    hearth_quantise_result r = { .size = sizeof r };
    hearth_error err = { 0 };
    const char *names[MAX_WIDTHS];
    const double begin = ht_now();

    p.type = o->type;
    p.pure = o->pure;
    p.threads = (uint32_t)o->threads.v;
    p.ram_bytes = o->ram.bytes;
    p.progress = progress;
    p.per_expert = o->per_expert;
    p.sample_tokens = (uint64_t)o->max_tokens.v;
    p.quality = o->target.given ? 0 : o->quality.given ? o->quality.v : 0.01;
    p.target_bytes = o->target.bytes;
    if (widths) {
        size_t bytes;
        if (!split(widths, names, &p.n_widths))
            return ht_usage_error("--widths: at most %d types", MAX_WIDTHS - 1);
        for (size_t i = 0; i < p.n_widths; i++)
            if (hearth_encode(names[i], NULL, 256, NULL, &bytes) != HEARTH_OK)
                return ht_usage_error("--widths: \"%.40s\" is no weight type that can be written", names[i]);
        p.widths = names;
    }
    if (o->per_expert) { /* short texts: a half to measure on */
        const size_t held_out = n_text / 10 > 24576 ? n_text / 10 : n_text / 2 < 24576 ? n_text / 2 : 24576;
        p.text = text;
        p.n_text = n_text - held_out;
        p.held_out = text + p.n_text;
        p.n_held_out = held_out;
    }
    hearth_status st = hearth_quantise(o->positional[0], o->positional[1], &p, &r, &err);
    ht_console_progress_end();
    if (st == HEARTH_ECANCELLED && ht_interrupted())
        return HT_EXIT_INTERRUPTED;
    return st == HEARTH_OK ? print(o, &r, ht_now() - begin) : ht_call_failed(&err, true);
}

static int run(const ht_options *o)
{
    char *text = NULL, *widths = NULL;
    size_t n = 0;
    int status = check(o);

    if (status)
        return status;
    ht_interrupt_arm(true);
    if (o->widths && !(widths = malloc(strlen(o->widths) + 1))) {
        ht_complain("out of memory");
        return HT_EXIT_FAILED;
    }
    if (widths)
        memcpy(widths, o->widths, strlen(o->widths) + 1);
    if (o->per_expert)
        status = o->file ? ht_load_file(o->file, &text, &n) : own_text(o, o->positional[0], &text, &n);
    if (!status)
        status = quantise(o, widths, text, n);
    free(text);
    free(widths);
    return status;
}

const ht_command ht_command_quantize = {
    .name = "quantize",
    .arguments = "IN.gguf OUT.gguf --type T",
    .summary = "re-encode the weights of a model to another type",
    .text = "Every matrix gets the type, but routers, convolutions and vectors, which stay as they are, and the output matrix, "
            "which keeps 6 bits at least (--pure: no exception). Rows that are no whole blocks of the type get one with "
            "blocks of 32, else f16. What has the type already is copied. Metadata is kept; a split set becomes one file. "
            "--per-expert measures what each expert loses at narrower widths, alone, and lowers the least sensitive ones; "
            "such experts are tensors of their own in the file (blk.N.ffn_up.E.weight). OUT.gguf appears when it is whole.",
    .min_positional = 0,
    .max_positional = 2,
    .tables = { own_flags, ht_flags_machine, ht_flags_talk },
    .run = run,
};
