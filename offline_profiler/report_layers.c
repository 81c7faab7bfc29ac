/* SPDX-License-Identifier: MIT
 * Reports: charts with a place for each layer, and experts; see report.h. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "offline_profiler/report.h"

enum { BINS = 40 };

static const double union_ticks[HEARTH_PROFILE_UNIONS] = { 1, 2, 4, 8, 16, 32, 64 };

static const char *layer_name(char out[24], uint32_t i)
{
    snprintf(out, 24, "layer %u", i);
    return out;
}

/* What the overlap would be if every token drew its neurons anew, each by its own frequency. */
static double chance_overlap(const hearth_profile_layer *l)
{
    double sum = 0, squares = 0;
    for (size_t i = 0; l->frequency && i < ht_report_count(l); i++) {
        sum += (double)l->frequency[i];
        squares += (double)l->frequency[i] * (double)l->frequency[i];
    }
    return sum > 0 ? squares / sum : -1;
}

ht_axis ht_report_layer_axis(const hearth_profile *p)
{
    return (ht_axis){ .label = "layer", .min = -0.6, .max = p->n_layer - 0.4 };
}

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

ht_axis ht_report_share_axis(const char *label, double greatest)
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
    ht_chart c =
        ht_chart_begin(page, "Density",
                       "Share of the neurons computed for a token that are active; whiskers: one standard deviation "
                       "over tokens.",
                       ht_report_layer_axis(p), ht_report_share_axis("active", greatest));
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
void ht_report_bars(ht_page *page, const hearth_profile *p, const char *title, const char *note, const char *label,
                    double (*share)(const hearth_profile_layer *), double (*chance)(const hearth_profile_layer *))
{
    double greatest = 0.001;
    for (uint32_t i = 0; i < p->n_layer; i++)
        greatest = fmax(greatest, fmax(share(&p->layers[i]), chance(&p->layers[i])));
    ht_chart c = ht_chart_begin(page, title, note, ht_report_layer_axis(p), ht_report_share_axis(label, greatest));
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

static double overlap_of(const hearth_profile_layer *l)
{
    return (double)l->overlap;
}
static void union_curves(ht_page *page, const hearth_profile *p)
{
    ht_chart c = ht_chart_begin(page, "Union over a batch",
                                "Share of a layer's neurons that at least one of N consecutive tokens needs.",
                                (ht_axis){ .label = "consecutive tokens",
                                           .min = 1,
                                           .max = 64,
                                           .log = true,
                                           .ticks = union_ticks,
                                           .n_ticks = HEARTH_PROFILE_UNIONS },
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
static size_t strengths(ht_page *page, const hearth_profile_layer *l, double x[BINS], double y[BINS])
{
    size_t n = ht_report_count(l), bins = n < BINS ? n : BINS, used = 0;
    float *pairs = malloc((n + 1) * 2 * sizeof *pairs);
    if (!pairs) {
        ht_page_fail(page);
        return 0;
    }
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
        size_t n = p->layers[i].frequency ? strengths(page, &p->layers[i], x, y) : 0;
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
                                (ht_axis){ .label = "mean magnitude",
                                           .min = pow(10, floor(log10(least))),
                                           .max = pow(10, ceil(log10(most) + 1e-9)),
                                           .log = true });
    for (uint32_t i = 0; i < p->n_layer; i++) {
        size_t n = p->layers[i].frequency ? strengths(page, &p->layers[i], x, y) : 0;
        char class[8], name[24];
        if (n)
            ht_chart_line(&c, ht_page_layer_class(class, i, p->n_layer), layer_name(name, i), n, x, y);
    }
    ht_chart_end(&c);
    ht_page_layers(page, p->n_layer);
    ht_page_raw(page, "</figure>\n");
}

void ht_report_layers(ht_page *page, const hearth_profile *p)
{
    ht_page_raw(page, "<h2>Layers</h2>\n<div class=\"grid2\">\n");
    density_bars(page, p);
    ht_report_bars(
        page, p, "Overlap",
        "Share of a token's active neurons that the token before had too; line: what their frequencies alone "
        "would give.",
        "kept", overlap_of, chance_overlap);
    union_curves(page, p);
    strength_curves(page, p);
    ht_page_raw(page, "</div>\n");
}

double ht_report_expert_overlap(const hearth_profile_layer *l)
{
    return l->n_expert > 1 ? (double)l->expert_overlap : -1;
}

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

void ht_report_experts(ht_page *page, const hearth_profile *p)
{
    uint32_t most = 0;
    for (uint32_t i = 0; i < p->n_layer; i++)
        if (p->layers[i].expert_frequency && p->layers[i].n_expert > most)
            most = p->layers[i].n_expert;
    double *values = most > 1 ? malloc((size_t)p->n_layer * most * sizeof *values) : NULL;
    if (!values) {
        if (most > 1)
            ht_page_fail(page);
        return;
    }
    for (uint32_t i = 0; i < p->n_layer; i++)
        for (uint32_t e = 0; e < most; e++) {
            const hearth_profile_layer *l = &p->layers[i];
            bool there = l->expert_frequency && l->n_expert > 1 && e < l->n_expert;
            values[(size_t)i * most + e] = there ? (double)l->expert_frequency[e] * l->n_expert / l->n_used : -1;
        }
    char last[32];
    snprintf(last, sizeof last, "expert %u", most - 1);
    ht_page_raw(page, "<h2>Experts</h2>\n<div class=\"grid2\">\n");
    ht_page_heat(page, "Routing", "How often each expert is chosen, as a multiple of even use.",
                 &(ht_heat){ .rows = p->n_layer,
                             .columns = most,
                             .values = values,
                             .min = 0.125,
                             .max = 8,
                             .log = true,
                             .row_label = "layer",
                             .column_label = "expert",
                             .first = "expert 0",
                             .last = last,
                             .unit = "use",
                             .chance = 1 });
    ht_report_bars(page, p, "Experts kept",
                   "Share of a token's experts that the token before had too; line: by chance.", "kept",
                   ht_report_expert_overlap, expert_chance);
    ht_report_bars(
        page, p, "Foretold by the layer before",
        "How often the expert that most often follows an expert is chosen indeed, mean over the experts before; "
        "line: the expert most often chosen, whatever was before.",
        "chosen", best_follower, most_chosen);
    ht_page_raw(page, "</div>\n");
    free(values);
}
