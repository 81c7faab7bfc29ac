/* SPDX-License-Identifier: MIT
 *
 * `hearth synth`: command line, summary. The work is in synth_plan.c (what is planted), synth_rows.c (the weights) and
 * synth_write.c (threads, file). Threads: one; the writer starts its own. */
#include "tools/synth.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/console.h"
#include "tools/synth_model.h"

const char hearth_synth_help[] =
    "usage: hearth synth SHAPE OUT.gguf --type T [flags]\n"
    "       hearth synth --list\n"
    "\n"
    "Writes a model with random weights of a known shape, for benchmarks and tests. It holds a working tokenizer, its "
    "words\n"
    "mean nothing, and greedy decoding wanders through all of them. The seed and every parameter are in the file, "
    "under\n"
    "hearth.synth.*; the same ones give the same file byte for byte, with any number of threads.\n"
    "\n"
    "  --type T           weight type: f32 f16 bf16 q4_0 q4_1 q5_0 q5_1 q8_0 q2_k q3_k q4_k q5_k q6_k iq4_nl iq4_xs "
    "mxfp4\n"
    "                     tq2_0 …; norms, biases and routers stay f32\n"
    "  --layers N         cut the depth to N layers\n"
    "  --vocab N          cut the vocabulary to N tokens (at least 512)\n"
    "  --seed S           another model of the same kind (default 1)\n"
    "  --density D        ReLU shapes: plant activation sparsity, a share D of the neurons firing on a token on "
    "average, spread\n"
    "                     unevenly over layers and, by a power law, over neurons\n"
    "  --overlap O        share of a token's active neurons that is active at the next token too (default 0.45)\n"
    "  --routing-skew S   mixtures: plant routing; 0 is uniform, 1 as in recorded routing of Qwen3-30B-A3B\n"
    "  --threads N        default: the processors that this process may use\n"
    "  --json             the summary as one JSON object\n"
    "  --quiet, --verbose, --log FILE   how much goes to stderr\n"
    "  --list             print the shapes\n";

typedef struct arguments {
    const char *shape, *out, *type, *log;
    double layers, vocab, density, overlap, skew, threads;
    uint64_t seed;
    bool json, quiet, list, help, seeded, verbose;
} arguments;

enum { OPT_TEXT, OPT_COUNT, OPT_NUMBER, OPT_SEED, OPT_SWITCH };

static const struct {
    const char *name;
    int kind;
    size_t offset;
    double least, most;
} options[] = {
    { "--type", OPT_TEXT, offsetof(arguments, type), 0, 0 },
    { "--layers", OPT_COUNT, offsetof(arguments, layers), 1, SYNTH_MAX_LAYERS },
    { "--vocab", OPT_COUNT, offsetof(arguments, vocab), 512, 1000000 },
    { "--seed", OPT_SEED, offsetof(arguments, seed), 0, 0 },
    { "--density", OPT_NUMBER, offsetof(arguments, density), 0.001, 1 },
    { "--overlap", OPT_NUMBER, offsetof(arguments, overlap), 0, 1 },
    { "--routing-skew", OPT_NUMBER, offsetof(arguments, skew), 0, 3 },
    { "--threads", OPT_COUNT, offsetof(arguments, threads), 1, 256 },
    { "--json", OPT_SWITCH, offsetof(arguments, json), 0, 0 },
    { "--quiet", OPT_SWITCH, offsetof(arguments, quiet), 0, 0 },
    { "--verbose", OPT_SWITCH, offsetof(arguments, verbose), 0, 0 },
    { "--log", OPT_TEXT, offsetof(arguments, log), 0, 0 },
    { "--list", OPT_SWITCH, offsetof(arguments, list), 0, 0 },
    { "--help", OPT_SWITCH, offsetof(arguments, help), 0, 0 },
};

/* Sets one option; a sentence is printed and 2 returned where the value makes no sense. */
static int set_option(arguments *a, size_t i, const char *value)
{
    void *to = (char *)a + options[i].offset;
    char *end;

    if (options[i].kind == OPT_TEXT) {
        *(const char **)to = value;
        return 0;
    }
    errno = 0;
    if (options[i].kind == OPT_SEED) {
        a->seed = strtoull(value, &end, 0);
        a->seeded = true;
        if (*value == 0 || *value == '-' || *end || errno)
            return ht_usage_error("%s %s: a whole number from 0 to 2^64 - 1 was expected", options[i].name, value);
        return 0;
    }
    double v = strtod(value, &end);

    if (*value == 0 || *end || !(v >= options[i].least && v <= options[i].most) ||
        (options[i].kind == OPT_COUNT && v != floor(v)))
        return ht_usage_error("%s %s: a %snumber from %g to %g was expected", options[i].name, value,
                              options[i].kind == OPT_COUNT ? "whole " : "", options[i].least, options[i].most);
    *(double *)to = v;
    return 0;
}

static int parse(int argc, char **argv, arguments *a)
{
    for (int i = 1; i < argc; i++) {
        const char *s = argv[i];
        size_t k, n = sizeof options / sizeof *options, len = strcspn(s, "=");

        if (s[0] != '-' || s[1] != '-') {
            if (strcmp(s, "-h") == 0)
                a->help = true;
            else if (s[0] == '-')
                return ht_usage_error("unknown flag %s; see: hearth help synth", s);
            else if (!a->shape)
                a->shape = s;
            else if (!a->out)
                a->out = s;
            else
                return ht_usage_error("one SHAPE and one OUT.gguf were expected, not also %s", s);
            continue;
        }
        for (k = 0; k < n; k++)
            if (strlen(options[k].name) == len && strncmp(options[k].name, s, len) == 0)
                break;
        if (k == n)
            return ht_usage_error("unknown flag %.*s; see: hearth help synth", (int)len, s);
        if (options[k].kind == OPT_SWITCH) {
            if (s[len])
                return ht_usage_error("%s takes no value", options[k].name);
            *(bool *)((char *)a + options[k].offset) = true;
        } else if (s[len] || i + 1 < argc) {
            int st = set_option(a, k, s[len] ? s + len + 1 : argv[++i]);

            if (st)
                return st;
        } else {
            return ht_usage_error("%s needs a value", options[k].name);
        }
    }
    return 0;
}

static void list_shapes(bool json)
{
    for (size_t i = 0; i < synth_n_shapes; i++) {
        const synth_shape *s = &synth_shapes[i];

        if (json)
            printf("%s{\"name\": \"%s\", \"architecture\": \"%s\", \"layers\": %u, \"d_model\": %u, \"vocab\": %u, "
                   "\"experts\": %u, \"about\": \"%s\"}%s\n",
                   i ? " " : "[", s->name, s->arch, s->n_layer, s->d, s->n_vocab, s->n_expert, s->about,
                   i + 1 < synth_n_shapes ? "," : "]");
        else
            printf("%-18s %3u layers  d %-5u %s\n", s->name, s->n_layer, s->d, s->about);
    }
}

static void print_json_text(const char *s)
{
    putchar('"');
    for (; *s; s++) {
        if (*s == '"' || *s == '\\')
            putchar('\\');
        if ((unsigned char)*s < 32)
            printf("\\u%04x", (unsigned)*s);
        else
            putchar(*s);
    }
    putchar('"');
}

static double layer_mean(const synth_model *m, size_t offset)
{
    double sum = 0, x;

    for (uint32_t l = 0; l < m->shape.n_layer; l++) {
        memcpy(&x, (const char *)&m->layers[l] + offset, sizeof x);
        sum += x;
    }
    return sum / m->shape.n_layer;
}

static void summary(const synth_model *m, const arguments *a, const synth_totals *t, double seconds)
{
    const synth_options *o = &m->options;
    double density = layer_mean(m, offsetof(synth_layer, density)),
           overlap = layer_mean(m, offsetof(synth_layer, overlap));
    double routing = layer_mean(m, offsetof(synth_layer, routing_overlap));

    if (a->json) {
        printf("{\"model\": ");
        print_json_text(a->out);
        printf(", \"shape\": \"%s\", \"architecture\": \"%s\", \"type\": \"%s\", \"layers\": %u, \"vocab\": %u, "
               "\"tensors\": %zu, \"weights\": %llu, \"weight_bytes\": %llu, \"seed\": %llu, \"seconds\": %.3f, "
               "\"threads\": %u, \"tensors_of_other_type\": %llu",
               m->shape.name, m->shape.arch, o->type, m->shape.n_layer, m->shape.n_vocab, m->n_tensors,
               (unsigned long long)t->weights, (unsigned long long)t->bytes, (unsigned long long)o->seed, seconds,
               o->threads, (unsigned long long)m->n_fallback);
        if (o->sparse)
            printf(", \"density\": %.5f, \"overlap\": %.5f", density, overlap);
        if (o->routed)
            printf(", \"routing_skew\": %g, \"routing_overlap\": %.5f", o->skew, routing);
        puts("}");
        return;
    }
    printf("%s: %s (%s), %u layers, %zu tensors, %.3f G weights of %s, %.2f GiB, seed %llu\n", a->out, m->shape.name,
           m->shape.arch, m->shape.n_layer, m->n_tensors, (double)t->weights * 1e-9, o->type,
           (double)t->bytes / (1 << 30), (unsigned long long)o->seed);
    if (m->n_fallback)
        printf("%llu tensors have another type: %s\n", (unsigned long long)m->n_fallback, m->fallback);
    if (o->sparse)
        printf("planted: density %.1f %%, overlap %.1f %%\n", 100 * density, 100 * overlap);
    if (o->routed)
        printf("planted: routing skew %g, overlap of chosen experts %.1f %%\n", o->skew, 100 * routing);
    printf("%.1f s, %.0f M weights/s with %u threads\n", seconds, (double)t->weights * 1e-6 / seconds, o->threads);
}

/* Checks what was asked and copies it into the model. Returns an exit status. */
static int prepare(const arguments *a, synth_model *m)
{
    const synth_shape *s = synth_shape_find(a->shape);
    size_t bytes;
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);

    if (!s)
        return ht_usage_error("no shape is called %s; see: hearth synth --list", a->shape);
    if (!a->type)
        return ht_usage_error("--type is missing");
    if (strlen(a->type) < sizeof m->type)
        for (size_t i = 0; a->type[i]; i++)
            m->type[i] = (char)(a->type[i] >= 'A' && a->type[i] <= 'Z' ? a->type[i] + 32 : a->type[i]);
    if (hearth_encode(m->type, NULL, 256, NULL, &bytes) != HEARTH_OK)
        return ht_usage_error("--type %s: no weight type that can be written", a->type);
    m->shape = *s;
    if (a->layers > 0)
        m->shape.n_layer = (uint32_t)a->layers;
    if (a->vocab > 0)
        m->shape.n_vocab = (uint32_t)a->vocab;
    m->options = (synth_options){ .type = m->type,
                                  .seed = a->seeded ? a->seed : 1,
                                  .sparse = a->density >= 0,
                                  .density = fmax(a->density, 0),
                                  .overlap = a->overlap >= 0 ? a->overlap : 0.45,
                                  .routed = a->skew >= 0,
                                  .skew = fmax(a->skew, 0),
                                  .threads = a->threads > 0 ? (uint32_t)a->threads
                                             : cpus > 0     ? (uint32_t)cpus
                                                            : 1 };
    if (m->options.sparse && s->act != SYNTH_RELU && s->act != SYNTH_RELU2)
        return ht_usage_error("--density: the activation of %s has no zeros; take a relu shape", s->name);
    if (a->overlap >= 0 && !m->options.sparse)
        return ht_usage_error("--overlap needs --density");
    if (m->options.routed && !s->n_expert)
        return ht_usage_error("--routing-skew: %s has no experts", s->name);
    return 0;
}

/* Everything after the command line: plans, writes, reports. Returns an exit status. */
static int run(const arguments *a)
{
    synth_model *m = calloc(1, sizeof *m);
    synth_totals totals = { 0 };
    hearth_error err = { .offset = UINT64_MAX };
    hearth_status done;
    double start = ht_now();
    int st = HT_EXIT_OK;

    if (!m) {
        ht_complain("out of memory");
        return HT_EXIT_FAILED;
    }
    if ((st = prepare(a, m)) == HT_EXIT_OK) {
        ht_interrupt_arm(true);
        done = synth_plan_solve(m);
        if (done == HEARTH_OK)
            done = synth_tensors_list(m);
        if (done == HEARTH_OK)
            done = synth_write(m, a->out, ht_console_progress, &totals, &err);
        ht_console_progress_end();
        if (done == HEARTH_ECANCELLED) {
            st = HT_EXIT_INTERRUPTED;
        } else if (done != HEARTH_OK) {
            ht_complain("%s", err.text[0] ? err.text : hearth_status_text(done));
            st = HT_EXIT_FAILED;
        } else {
            summary(m, a, &totals, ht_now() - start);
            st = ht_stdout_done(HT_EXIT_OK);
        }
    }
    synth_model_deinit(m);
    free(m);
    return st;
}

int hearth_cmd_synth(int argc, char **argv)
{
    arguments a = { .density = -1, .overlap = -1, .skew = -1 };
    ht_options console = { 0 };
    int st = parse(argc, argv, &a);

    if (st)
        return st;
    if (a.help) {
        fputs(hearth_synth_help, stdout);
        return ht_stdout_done(HT_EXIT_OK);
    }
    if (a.list) {
        list_shapes(a.json);
        return ht_stdout_done(HT_EXIT_OK);
    }
    if (!a.shape || !a.out)
        return ht_usage_error("synth: SHAPE and OUT.gguf were expected; see: hearth help synth");
    console.quiet = a.quiet;
    console.verbose = a.verbose;
    console.log = a.log;
    if ((st = ht_console_open(&console)) == HT_EXIT_OK)
        st = run(&a);
    ht_console_close();
    return st;
}
