/* SPDX-License-Identifier: MIT
 *
 * A profile as a page: figures of the whole, curves and maps of the neurons, a chart for each statistic of the layers,
 * experts where there are some, predictors and what they cost where the profile knows, and everything as a table. A part
 * that the profile knows nothing of is left out. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "offline_profiler/page.h"
#include "offline_profiler/profile.h"

enum { POINTS = 160, BINS = 120 };

static const double union_ticks[HEARTH_PROFILE_UNIONS] = { 1, 2, 4, 8, 16, 32, 64 };

static size_t neurons(const hearth_profile_layer *l) { return (size_t)l->n_ff * l->n_expert; }

static bool any_neurons(const hearth_profile *p)
{
    for (uint32_t i = 0; i < p->n_layer; i++)
        if (p->layers[i].frequency)
            return true;
    return false;
}

/* What the overlap would be if every token drew its neurons anew, each by its own frequency. */
static double chance_overlap(const hearth_profile_layer *l)
{
    double sum = 0, squares = 0;
    for (size_t i = 0; l->frequency && i < neurons(l); i++) {
        sum += (double)l->frequency[i];
        squares += (double)l->frequency[i] * (double)l->frequency[i];
    }
    return sum > 0 ? squares / sum : -1;
}

static double never_active(const hearth_profile_layer *l)
{
    size_t n = 0;
    for (size_t i = 0; l->frequency && i < neurons(l); i++)
        n += l->frequency[i] <= 0.0f;
    return l->frequency && neurons(l) ? (double)n / (double)neurons(l) : -1;
}

static const char *layer_name(char out[24], uint32_t i)
{
    snprintf(out, 24, "layer %u", i);
    return out;
}

/* ---- Head -------------------------------------------------------------------------------------------------------- */

static void tile(ht_page *p, double v, const char *text)
{
    if (v < 0)
        return;
    ht_page_add(p, v < 0.0995 ? "<div class=\"tile\"><b>%.2f %%</b><span>%s</span></div>\n"
                              : "<div class=\"tile\"><b>%.1f %%</b><span>%s</span></div>\n",
                100 * v, text);
}

/* Of the layers that know it, weighted by their neurons. */
static double mean_of(const hearth_profile *p, size_t offset)
{
    double sum = 0, weight = 0;
    for (uint32_t i = 0; i < p->n_layer; i++) {
        float v = *(const float *)(const void *)((const char *)&p->layers[i] + offset);
        if (v >= 0.0f) {
            sum += (double)v * (double)neurons(&p->layers[i]);
            weight += (double)neurons(&p->layers[i]);
        }
    }
    return weight > 0 ? sum / weight : -1;
}

static void head(ht_page *page, const hearth_profile *p)
{
    hearth_profile_info info = { .size = sizeof info };
    double all = 0;
    hearth_profile_get_info(p, &info);
    for (uint32_t i = 0; i < p->n_layer; i++)
        all += (double)neurons(&p->layers[i]);
    const char *name = p->name[0] ? p->name : "a model without a name";
    ht_page_add(page, "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
                      "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">"
                      "<title>Profile of %s</title>\n<style>\n", name);
    ht_page_raw(page, ht_report_style);
    ht_report_colours(page);
    ht_page_add(page, "</style></head>\n<body><main class=\"%s\">\n<h1>%s</h1><p class=\"soft\">%s</p>\n",
                p->n_layer > 16 ? "many" : "few", name, p->description);
    ht_page_add(page, "<p class=\"facts\">%.0f tokens of %.1f KB of text in windows of %u, by %s; model <code>%s</code></p>\n",
                (double)p->tokens, (double)p->text_bytes / 1024, p->window, p->created_by, p->model);
    ht_page_raw(page, "<div class=\"tiles\">\n");
    tile(page, info.density, "of the neurons computed for a token are active");
    tile(page, hearth_profile_cover(p, UINT32_MAX, 0.8), "of all neurons make up 80 % of all activations");
    tile(page, mean_of(p, offsetof(hearth_profile_layer, overlap)), "of active neurons were active a token before");
    tile(page, mean_of(p, offsetof(hearth_profile_layer, unions[3])), "of all neurons are active within 8 tokens");
    ht_page_add(page, "<div class=\"tile\"><b>%.0f</b><span>neurons in %u layers</span></div>\n</div>\n", all, p->n_layer);
}

/* ---- Neurons ----------------------------------------------------------------------------------------------------- */

static int descending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

/* Frequencies of each layer, most frequent first: [layer] rows of their own length. */
static float **sorted_layers(const hearth_profile *p)
{
    float **rows = calloc(p->n_layer, sizeof *rows);
    for (uint32_t i = 0; rows && i < p->n_layer; i++) {
        const hearth_profile_layer *l = &p->layers[i];
        if (!l->frequency)
            continue;
        rows[i] = malloc(neurons(l) * sizeof **rows);
        if (!rows[i])
            continue; /* the layer is left out */
        memcpy(rows[i], l->frequency, neurons(l) * sizeof **rows);
        qsort(rows[i], neurons(l), sizeof **rows, descending);
    }
    return rows;
}

static void frequency_curves(ht_page *page, const hearth_profile *p, float **rows)
{
    double least = 0.1, x[POINTS], y[POINTS];
    for (uint32_t i = 0; i < p->n_layer; i++) /* one token in all; rarer than 0.001 % is the edge */
        for (size_t j = 0; rows[i] && j < neurons(&p->layers[i]); j++)
            if (rows[i][j] > 0.0f && (double)rows[i][j] < least)
                least = (double)rows[i][j];
    least = pow(10, floor(log10(least < 1e-5 ? 1e-5 : least)));
    ht_chart c = ht_chart_begin(page, "How often neurons fire",
                                "Neurons of each layer in the order of how often they fire; the steeper, the more uneven.",
                                (ht_axis){ .label = "neurons, most active first", .max = 1, .percent = true },
                                (ht_axis){ .label = "share of tokens", .min = least, .max = 1, .log = true, .percent = true });
    for (uint32_t i = 0; i < p->n_layer; i++) {
        size_t n = neurons(&p->layers[i]);
        char class[8], name[24];
        if (!rows[i])
            continue;
        for (size_t k = 0; k < POINTS; k++) {
            size_t j = k * (n - 1) / (POINTS - 1);
            x[k] = (double)j / (double)n;
            y[k] = (double)rows[i][j];
        }
        ht_chart_line(&c, ht_page_layer_class(class, i, p->n_layer), layer_name(name, i), POINTS, x, y);
    }
    ht_chart_end(&c);
    ht_page_layers(page, p->n_layer);
    ht_page_raw(page, "</figure>\n");
}

static void cumulative_curves(ht_page *page, const hearth_profile *p, float **rows)
{
    static const double even[2] = { 0, 1 }, eighty[2] = { 0.8, 0.8 };
    double x[POINTS], y[POINTS];
    ht_chart c = ht_chart_begin(page, "How few do most of the work",
                                "Share of a layer's activations that its most active neurons make up. Dashed: even use, and 80 %.",
                                (ht_axis){ .label = "neurons, most active first", .max = 1, .percent = true },
                                (ht_axis){ .label = "share of activations", .max = 1, .percent = true });
    ht_chart_line(&c, "even", "all neurons used alike", 2, even, even);
    ht_chart_line(&c, "even", "80 % of activations", 2, even, eighty);
    for (uint32_t i = 0; i < p->n_layer; i++) {
        size_t n = neurons(&p->layers[i]), j = 0;
        double all = 0, sum = 0;
        char class[8], name[64];
        for (size_t k = 0; rows[i] && k < n; k++)
            all += (double)rows[i][k];
        if (!rows[i] || all <= 0)
            continue;
        for (size_t k = 0; k < POINTS; k++) {
            size_t upto = k * n / (POINTS - 1);
            for (; j < upto; j++)
                sum += (double)rows[i][j];
            x[k] = (double)upto / (double)n;
            y[k] = sum / all;
        }
        snprintf(name, sizeof name, "layer %u: %d of 100 neurons make up 80 %%", i,
                 (int)(100 * hearth_profile_cover(p, i, 0.8) + 0.5));
        ht_chart_line(&c, ht_page_layer_class(class, i, p->n_layer), name, POINTS, x, y);
    }
    ht_chart_end(&c);
    ht_page_layers(page, p->n_layer);
    ht_page_raw(page, "</figure>\n");
}

static void rank_map(ht_page *page, const hearth_profile *p, float **rows)
{
    uint32_t bins = p->n_layer > 60 ? BINS / 2 : BINS;
    double *values = malloc((size_t)p->n_layer * bins * sizeof *values);
    if (!values)
        return;
    for (uint32_t i = 0; i < p->n_layer; i++)
        for (uint32_t b = 0; b < bins; b++) {
            size_t n = neurons(&p->layers[i]), from = n * b / bins, to = n * (b + 1) / bins;
            double sum = 0;
            for (size_t j = from; rows[i] && j < to; j++)
                sum += (double)rows[i][j];
            values[(size_t)i * bins + b] = rows[i] && to > from ? sum / (double)(to - from) : -1;
        }
    ht_page_heat(page, "Layers and ranks",
                 "Each row is a layer, its neurons from the most active to the least; colour is how often they fire.",
                 &(ht_heat){ .rows = p->n_layer, .columns = bins, .values = values, .min = 1e-4, .max = 1, .log = true,
                             .row_label = "layer", .column_label = "rank", .first = "most active neuron",
                             .last = "least active", .unit = "of tokens" });
    free(values);
}

static void neuron_section(ht_page *page, const hearth_profile *p)
{
    float **rows = any_neurons(p) ? sorted_layers(p) : NULL;
    if (!rows)
        return;
    ht_page_raw(page, "<h2>Neurons</h2>\n<div class=\"grid2\">\n");
    frequency_curves(page, p, rows);
    cumulative_curves(page, p, rows);
    rank_map(page, p, rows);
    ht_page_raw(page, "</div>\n");
    for (uint32_t i = 0; i < p->n_layer; i++)
        free(rows[i]);
    free((void *)rows);
}

/* ---- Layers ------------------------------------------------------------------------------------------------------ */

/* The next round number above. */
static double round_up(double v)
{
    static const double steps[] = { 1, 1.5, 2, 3, 4, 5, 6, 8, 10 };
    double power = pow(10, floor(log10(v > 1e-6 ? v : 1e-6)));
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
        if (v <= steps[i] * power * (1 + 1e-9))
            return steps[i] * power;
    return 10 * power;
}

static ht_axis layer_axis(const hearth_profile *p)
{
    return (ht_axis){ .label = "layer", .min = -0.6, .max = p->n_layer - 0.4 };
}

static ht_axis share_axis(const char *label, double greatest)
{
    return (ht_axis){ .label = label, .max = greatest > 0.85 ? 1 : round_up(greatest), .percent = true };
}

static void density_bars(ht_page *page, const hearth_profile *p)
{
    double greatest = 0.001;
    for (uint32_t i = 0; i < p->n_layer; i++) {
        const hearth_profile_layer *l = &p->layers[i];
        double top = (double)l->density + (l->density_spread > 0 ? (double)l->density_spread : 0);
        greatest = top > greatest ? top : greatest;
    }
    ht_chart c = ht_chart_begin(page, "Density",
                                "Share of the neurons computed for a token that are active; whiskers: one standard deviation "
                                "over tokens.",
                                layer_axis(p), share_axis("active", greatest));
    for (uint32_t i = 0; i < p->n_layer; i++) {
        const hearth_profile_layer *l = &p->layers[i];
        char name[80], class[8];
        if (l->density < 0)
            continue;
        snprintf(name, sizeof name, "layer %u: %d.%02d %% active", i, (int)(100 * (double)l->density),
                 (int)(10000 * (double)l->density) % 100);
        ht_chart_bar(&c, ht_page_layer_class(class, i, p->n_layer), name, i, 0.72, (double)l->density,
                     (double)l->density_spread);
    }
    ht_chart_end(&c);
    ht_page_raw(page, "</figure>\n");
}

/* Bars of a share with a mark for what chance would give. */
static void bars_and_chance(ht_page *page, const hearth_profile *p, const char *title, const char *note,
                            const char *label, double (*share)(const hearth_profile_layer *),
                            double (*chance)(const hearth_profile_layer *))
{
    double greatest = 0.001;
    for (uint32_t i = 0; i < p->n_layer; i++)
        greatest = fmax(greatest, fmax(share(&p->layers[i]), chance(&p->layers[i])));
    ht_chart c = ht_chart_begin(page, title, note, layer_axis(p), share_axis(label, greatest));
    for (uint32_t i = 0; i < p->n_layer; i++) {
        double v = share(&p->layers[i]), by_chance = chance(&p->layers[i]);
        char name[120];
        if (v < 0)
            continue;
        int n = snprintf(name, sizeof name, "layer %u: %d %%", i, (int)(100 * v + 0.5));
        if (by_chance >= 0)
            snprintf(name + n, sizeof name - (size_t)n, ", by chance %d %%", (int)(100 * by_chance + 0.5));
        ht_chart_bar(&c, "two", name, i, 0.72, v, 0);
        if (by_chance >= 0)
            ht_chart_mark(&c, "", name, i, 0.72, by_chance);
    }
    ht_chart_end(&c);
    ht_page_raw(page, "</figure>\n");
}

static double overlap_of(const hearth_profile_layer *l) { return (double)l->overlap; }
static double expert_overlap_of(const hearth_profile_layer *l) { return l->n_expert > 1 ? (double)l->expert_overlap : -1; }

/* Two tokens whose experts are drawn by their own frequencies. */
static double expert_chance(const hearth_profile_layer *l)
{
    double sum = 0, squares = 0;
    for (uint32_t e = 0; l->expert_frequency && e < l->n_expert; e++) {
        sum += (double)l->expert_frequency[e];
        squares += (double)l->expert_frequency[e] * (double)l->expert_frequency[e];
    }
    return sum > 0 ? squares / sum : -1;
}

static void union_curves(ht_page *page, const hearth_profile *p)
{
    ht_chart c = ht_chart_begin(page, "Union over a batch",
                                "Share of a layer's neurons that at least one of N consecutive tokens needs.",
                                (ht_axis){ .label = "consecutive tokens", .min = 1, .max = 64, .log = true,
                                           .ticks = union_ticks, .n_ticks = HEARTH_PROFILE_UNIONS },
                                (ht_axis){ .label = "of all neurons", .max = 1, .percent = true });
    for (uint32_t i = 0; i < p->n_layer; i++) {
        double y[HEARTH_PROFILE_UNIONS];
        size_t n = 0;
        char class[8], name[24];
        while (n < HEARTH_PROFILE_UNIONS && p->layers[i].unions[n] >= 0.0f) {
            y[n] = (double)p->layers[i].unions[n];
            n++;
        }
        if (n > 1)
            ht_chart_line(&c, ht_page_layer_class(class, i, p->n_layer), layer_name(name, i), n, union_ticks, y);
    }
    ht_chart_end(&c);
    ht_page_layers(page, p->n_layer);
    ht_page_raw(page, "</figure>\n");
}

static int by_frequency(const void *a, const void *b)
{
    const float *x = a, *y = b;
    return (x[0] < y[0]) - (x[0] > y[0]);
}

/* Mean magnitude of a layer's neurons in groups of like frequency; how many groups have one. */
static size_t strengths(const hearth_profile_layer *l, double x[BINS], double y[BINS])
{
    size_t n = neurons(l), bins = n < BINS / 3 ? n : BINS / 3, used = 0;
    float *pairs = malloc((n + 1) * 2 * sizeof *pairs);
    if (!pairs)
        return 0;
    for (size_t i = 0; i < n; i++) {
        pairs[2 * i] = l->frequency[i];
        pairs[2 * i + 1] = l->magnitude[i];
    }
    qsort(pairs, n, 2 * sizeof *pairs, by_frequency);
    for (size_t b = 0; b < bins; b++) {
        double sum = 0, weight = 0;
        for (size_t i = n * b / bins; i < n * (b + 1) / bins; i++) {
            sum += (double)pairs[2 * i] * (double)pairs[2 * i + 1];
            weight += (double)pairs[2 * i];
        }
        if (sum > 0) {
            x[used] = ((double)b + 0.5) / (double)bins;
            y[used++] = sum / weight;
        }
    }
    free(pairs);
    return used;
}

static void strength_curves(ht_page *page, const hearth_profile *p)
{
    double x[BINS], y[BINS], least = 1e30, most = 0;
    for (uint32_t i = 0; i < p->n_layer; i++) {
        size_t n = p->layers[i].frequency ? strengths(&p->layers[i], x, y) : 0;
        for (size_t k = 0; k < n; k++) {
            least = fmin(least, y[k]);
            most = fmax(most, y[k]);
        }
    }
    if (most <= 0)
        return;
    ht_chart c = ht_chart_begin(page, "How strongly they fire",
                                "Mean |hidden unit| of neurons while they are active, in groups of like frequency.",
                                (ht_axis){ .label = "neurons, most active first", .max = 1, .percent = true },
                                (ht_axis){ .label = "mean magnitude", .min = pow(10, floor(log10(least))),
                                           .max = pow(10, ceil(log10(most) + 1e-9)), .log = true });
    for (uint32_t i = 0; i < p->n_layer; i++) {
        size_t n = p->layers[i].frequency ? strengths(&p->layers[i], x, y) : 0;
        char class[8], name[24];
        if (n)
            ht_chart_line(&c, ht_page_layer_class(class, i, p->n_layer), layer_name(name, i), n, x, y);
    }
    ht_chart_end(&c);
    ht_page_layers(page, p->n_layer);
    ht_page_raw(page, "</figure>\n");
}

static void layer_section(ht_page *page, const hearth_profile *p)
{
    ht_page_raw(page, "<h2>Layers</h2>\n<div class=\"grid2\">\n");
    density_bars(page, p);
    bars_and_chance(page, p, "Overlap",
                    "Share of a token's active neurons that the token before had too; line: what their frequencies alone "
                    "would give.",
                    "kept", overlap_of, chance_overlap);
    union_curves(page, p);
    strength_curves(page, p);
    ht_page_raw(page, "</div>\n");
}

/* ---- Experts ----------------------------------------------------------------------------------------------------- */

static double best_follower(const hearth_profile_layer *l)
{
    double sum = 0;
    for (uint32_t e = 0; l->next_share && e < l->n_before; e++)
        sum += (double)l->next_share[(size_t)e * l->n_next];
    return l->next_share && l->n_before ? sum / l->n_before : -1;
}

static double most_chosen(const hearth_profile_layer *l)
{
    float most = -1;
    for (uint32_t e = 0; l->next_share && l->expert_frequency && e < l->n_expert; e++)
        most = l->expert_frequency[e] > most ? l->expert_frequency[e] : most;
    return (double)most;
}

static void expert_section(ht_page *page, const hearth_profile *p)
{
    uint32_t most = 0;
    for (uint32_t i = 0; i < p->n_layer; i++)
        if (p->layers[i].expert_frequency && p->layers[i].n_expert > most)
            most = p->layers[i].n_expert;
    double *values = most > 1 ? malloc((size_t)p->n_layer * most * sizeof *values) : NULL;
    if (!values)
        return;
    for (uint32_t i = 0; i < p->n_layer; i++)
        for (uint32_t e = 0; e < most; e++) {
            const hearth_profile_layer *l = &p->layers[i];
            bool there = l->expert_frequency && l->n_expert > 1 && e < l->n_expert;
            values[(size_t)i * most + e] =
                there ? (double)l->expert_frequency[e] * l->n_expert / l->n_used : -1;
        }
    char last[32];
    snprintf(last, sizeof last, "expert %u", most - 1);
    ht_page_raw(page, "<h2>Experts</h2>\n<div class=\"grid2\">\n");
    ht_page_heat(page, "Routing", "How often each expert is chosen, as a multiple of even use.",
                 &(ht_heat){ .rows = p->n_layer, .columns = most, .values = values, .min = 0.125, .max = 8, .log = true,
                             .row_label = "layer", .column_label = "expert", .first = "expert 0", .last = last,
                             .unit = "use", .chance = 1 });
    bars_and_chance(page, p, "Experts kept", "Share of a token's experts that the token before had too; line: by chance.",
                    "kept", expert_overlap_of, expert_chance);
    bars_and_chance(page, p, "Foretold by the layer before",
                    "How often the expert that most often follows an expert is chosen indeed, mean over the experts before; "
                    "line: the expert most often chosen, whatever was before.",
                    "chosen", best_follower, most_chosen);
    ht_page_raw(page, "</div>\n");
    free(values);
}

/* ---- Predictors and their price ---------------------------------------------------------------------------------- */

static void predictor_lines(ht_page *page, const hearth_profile *p)
{
    static const char *const classes[] = { "one", "two" }, *const names[] = { "recall", "precision" };
    ht_chart c = ht_chart_begin(page, "Recall and precision",
                                "Recall: share of the active neurons that the predictor names; precision: share of those it names "
                                "that are active.",
                                layer_axis(p), (ht_axis){ .label = "share", .max = 1, .percent = true });
    for (uint32_t i = 0; i < p->n_layer; i++) {
        const hearth_profile_layer *l = &p->layers[i];
        char name[120];
        if (l->recall < 0.0f || l->precision < 0.0f)
            continue;
        snprintf(name, sizeof name, "layer %u, %.40s: recall %d.%d %%, precision %d.%d %%", i, l->method ? l->method : "?",
                 (int)(100 * (double)l->recall), (int)(1000 * (double)l->recall) % 10, (int)(100 * (double)l->precision),
                 (int)(1000 * (double)l->precision) % 10);
        ht_chart_dot(&c, "two", name, i, (double)l->precision, 4.5);
        ht_chart_dot(&c, "one", name, i, (double)l->recall, 4.5);
    }
    ht_chart_end(&c);
    ht_page_legend(page, 2, classes, names);
    ht_page_raw(page, "</figure>\n");
}

static double predicted_of(const hearth_profile_layer *l) { return (double)l->predicted_density; }
static double density_of(const hearth_profile_layer *l) { return (double)l->density; }

static int by_speed(const void *a, const void *b)
{
    const hearth_profile_point *x = a, *y = b;
    return (x->speed > y->speed) - (x->speed < y->speed);
}

/* One of the two losses over speed. */
static void loss_line(const ht_chart *c, const hearth_profile_point *points, uint32_t n, bool p99)
{
    double *x = malloc((n + 1) * sizeof *x), *y = malloc((n + 1) * sizeof *y);
    uint32_t used = 0;
    for (uint32_t i = 0; x && y && i < n; i++) {
        float v = p99 ? points[i].kl_p99 : points[i].kl_mean;
        if (v < 0.0f || points[i].speed < 0.0f)
            continue;
        x[used] = (double)points[i].speed;
        y[used++] = (double)v;
    }
    if (x && y && used)
        ht_chart_line(c, p99 ? "two dashed" : "one", p99 ? "99th percentile" : "mean", used, x, y);
    free(x);
    free(y);
}

static void loss_curve(ht_page *page, const hearth_profile *p)
{
    static const char *const classes[] = { "one", "two dashed" };
    static const char *const names[] = { "mean KL divergence", "99th percentile" };
    hearth_profile_point *sorted = malloc((p->n_points + 1) * sizeof *sorted);
    double least = 1e-2, most = 1e-3, slow = 1e9, fast = 0;
    if (!sorted)
        return;
    if (p->n_points)
        memcpy(sorted, p->points, p->n_points * sizeof *sorted);
    qsort(sorted, p->n_points, sizeof *sorted, by_speed);
    for (uint32_t i = 0; i < p->n_points; i++) {
        const hearth_profile_point *q = &sorted[i];
        if (q->kl_mean > 0.0f)
            least = fmin(least, (double)q->kl_mean);
        most = fmax(most, fmax((double)q->kl_mean, (double)q->kl_p99));
        if (q->speed > 0.0f) {
            slow = fmin(slow, (double)q->speed);
            fast = fmax(fast, (double)q->speed);
        }
    }
    if (fast <= 0) { /* nothing of it is known */
        free(sorted);
        return;
    }
    double margin = fmax(0.05, 0.06 * (fast - slow));
    ht_chart c = ht_chart_begin(
        page, "Loss against speed",
        "Each point is a setting, measured on text that it was not made from; the ringed one is chosen.",
        (ht_axis){ .label = "speed, of the dense model's", .min = fmax(0, slow - margin), .max = fast + margin },
        (ht_axis){ .label = "KL divergence, nat", .min = pow(10, floor(log10(fmax(least, 1e-9)))),
                   .max = pow(10, ceil(log10(most))), .log = true });
    loss_line(&c, sorted, p->n_points, true);
    loss_line(&c, sorted, p->n_points, false);
    for (uint32_t i = 0; i < p->n_points; i++) {
        const hearth_profile_point *q = &p->points[i];
        char name[160];
        if (q->speed <= 0.0f || q->kl_mean < 0.0f)
            continue;
        snprintf(name, sizeof name, "%d.%02d x the dense speed, mean KL %d.%04d nat%s", (int)q->speed,
                 (int)(100 * (double)q->speed) % 100, (int)q->kl_mean, (int)(10000 * (double)q->kl_mean) % 10000,
                 i == p->chosen ? ", chosen" : "");
        ht_chart_dot(&c, i == p->chosen ? "one chosen" : "one", name, (double)q->speed, (double)q->kl_mean,
                     i == p->chosen ? 7 : 4);
    }
    ht_chart_end(&c);
    ht_page_legend(page, 2, classes, names);
    ht_page_raw(page, "</figure>\n");
    free(sorted);
}

static void predictor_section(ht_page *page, const hearth_profile *p)
{
    bool known = p->n_points > 0, sizes = false, recall = false;
    for (uint32_t i = 0; i < p->n_layer; i++) {
        recall |= p->layers[i].recall >= 0.0f;
        sizes |= p->layers[i].predicted_density >= 0.0f;
    }
    if (!known && !recall && !sizes)
        return;
    ht_page_raw(page, "<h2>Predictors</h2>\n<div class=\"grid2\">\n");
    if (recall)
        predictor_lines(page, p);
    if (sizes)
        bars_and_chance(page, p, "Named active", "Share of the neurons that the predictor lets be computed; line: those that are active.",
                        "named", predicted_of, density_of);
    if (known)
        loss_curve(page, p);
    ht_page_raw(page, "</div>\n");
}

/* ---- Table ------------------------------------------------------------------------------------------------------- */

static void share_cell(ht_page *page, double v)
{
    if (v < 0)
        ht_page_raw(page, "<td>–</td>");
    else
        ht_page_add(page, "<td>%.1f %%</td>", 100 * v);
}

static void table(ht_page *page, const hearth_profile *p)
{
    bool mixture = false, shared = false, neuron = any_neurons(p), predicted = false;
    for (uint32_t i = 0; i < p->n_layer; i++) {
        mixture |= p->layers[i].n_expert > 1;
        shared |= p->layers[i].shared_n_ff > 0;
        predicted |= p->layers[i].method != NULL;
    }
    ht_page_raw(page, "<h2>Figures</h2>\n<div class=\"scroll\"><table><thead><tr><th>layer</th><th>neurons</th>");
    ht_page_raw(page, mixture ? "<th>experts</th><th>experts kept</th>" : "");
    ht_page_raw(page, "<th>density</th><th>spread</th><th>overlap</th><th>union of 8</th><th>union of 64</th>");
    ht_page_raw(page, neuron ? "<th>80 % by</th><th>never active</th>" : "");
    ht_page_raw(page, shared ? "<th>shared density</th>" : "");
    ht_page_raw(page, predicted ? "<th>predictor</th><th>recall</th><th>precision</th>" : "");
    ht_page_raw(page, "</tr></thead><tbody>\n");
    for (uint32_t i = 0; i < p->n_layer; i++) {
        const hearth_profile_layer *l = &p->layers[i];
        ht_page_add(page, "<tr><td>%u</td><td>%.0f</td>", i, (double)neurons(l));
        if (mixture && l->n_expert > 1)
            ht_page_add(page, "<td>%u of %u</td>", l->n_used, l->n_expert);
        else if (mixture)
            ht_page_raw(page, "<td>–</td>");
        if (mixture)
            share_cell(page, expert_overlap_of(l));
        share_cell(page, (double)l->density);
        share_cell(page, (double)l->density_spread);
        share_cell(page, (double)l->overlap);
        share_cell(page, (double)l->unions[3]);
        share_cell(page, (double)l->unions[6]);
        if (neuron) {
            share_cell(page, hearth_profile_cover(p, i, 0.8));
            share_cell(page, never_active(l));
        }
        if (shared)
            share_cell(page, (double)l->shared_density);
        if (predicted) {
            ht_page_add(page, "<td>%s</td>", l->method ? l->method : "");
            share_cell(page, (double)l->recall);
            share_cell(page, (double)l->precision);
        }
        ht_page_raw(page, "</tr>\n");
    }
    ht_page_raw(page, "</tbody></table></div>\n");
}

static const char words[] =
    "<h2>Words</h2>\n<dl>"
    "<dt>active</dt><dd>a neuron whose hidden unit is not zero after activation; what is zero needs no further weights</dd>"
    "<dt>density</dt><dd>share of the neurons computed for a token that are active (of a mixture: those of the experts "
    "chosen)</dd>"
    "<dt>spread</dt><dd>standard deviation of the density from token to token</dd>"
    "<dt>overlap</dt><dd>share of a token's active neurons that were active on the token before</dd>"
    "<dt>union of N</dt><dd>share of all neurons of the layer, all experts, that one of N consecutive tokens needs</dd>"
    "<dt>80 % by</dt><dd>the smallest share of neurons that makes up 80 % of all activations; 80 % if all were used alike</dd>"
    "</dl>\n</main></body></html>\n";

hearth_status hearth_profile_report(const hearth_profile *p, const char *path, hearth_error *err)
{
    ht_page page = { 0 };
    head(&page, p);
    neuron_section(&page, p);
    layer_section(&page, p);
    expert_section(&page, p);
    predictor_section(&page, p);
    table(&page, p);
    ht_page_raw(&page, words);
    return (hearth_status)ht_page_close(&page, path, ht_profile_err(err));
}
