/* SPDX-License-Identifier: MIT
 * Reports: how often single neurons fire, as curves and as a map; see report.h. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "offline_profiler/report.h"

enum { POINTS = 160, BINS = 120 };

static const char *layer_name(char out[24], uint32_t i)
{
    snprintf(out, 24, "layer %u", i);
    return out;
}

static int descending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

/* Frequencies of each layer, most frequent first: [layer] rows of their own length. */
static float **sorted_layers(ht_page *page, const hearth_profile *p)
{
    float **rows = calloc(p->n_layer, sizeof *rows);
    for (uint32_t i = 0; rows && i < p->n_layer; i++) {
        const hearth_profile_layer *l = &p->layers[i];
        if (!l->frequency)
            continue;
        rows[i] = malloc(ht_report_count(l) * sizeof **rows);
        if (!rows[i]) {
            ht_page_fail(page);
            continue;
        }
        memcpy(rows[i], l->frequency, ht_report_count(l) * sizeof **rows);
        qsort(rows[i], ht_report_count(l), sizeof **rows, descending);
    }
    return rows;
}

static void frequency_curves(ht_page *page, const hearth_profile *p, float **rows)
{
    double least = 0.1, x[POINTS], y[POINTS];
    for (uint32_t i = 0; i < p->n_layer; i++) /* one token in all; rarer than 0.001 % is the edge */
        for (size_t j = 0; rows[i] && j < ht_report_count(&p->layers[i]); j++)
            if (rows[i][j] > 0.0f && (double)rows[i][j] < least)
                least = (double)rows[i][j];
    least = pow(10, floor(log10(least < 1e-5 ? 1e-5 : least)));
    ht_chart c =
        ht_chart_begin(page, "How often neurons fire",
                       "Neurons of each layer in the order of how often they fire; the steeper, the more uneven.",
                       (ht_axis){ .label = "neurons, most active first", .max = 1, .percent = true },
                       (ht_axis){ .label = "share of tokens", .min = least, .max = 1, .log = true, .percent = true });
    for (uint32_t i = 0; i < p->n_layer; i++) {
        size_t n = ht_report_count(&p->layers[i]);
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
    ht_chart c = ht_chart_begin(
        page, "How few do most of the work",
        "Share of a layer's activations that its most active neurons make up. Dashed: even use, and 80 %.",
        (ht_axis){ .label = "neurons, most active first", .max = 1, .percent = true },
        (ht_axis){ .label = "share of activations", .max = 1, .percent = true });
    ht_chart_line(&c, "even", "all neurons used alike", 2, even, even);
    ht_chart_line(&c, "even", "80 % of activations", 2, even, eighty);
    for (uint32_t i = 0; i < p->n_layer; i++) {
        size_t n = ht_report_count(&p->layers[i]), j = 0;
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
                 (int)(100 * ht_report_cover(page, p, i, 0.8) + 0.5));
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
    if (!values) {
        ht_page_fail(page);
        return;
    }
    for (uint32_t i = 0; i < p->n_layer; i++)
        for (uint32_t b = 0; b < bins; b++) {
            size_t n = ht_report_count(&p->layers[i]), from = n * b / bins, to = n * (b + 1) / bins;
            double sum = 0;
            for (size_t j = from; rows[i] && j < to; j++)
                sum += (double)rows[i][j];
            values[(size_t)i * bins + b] = rows[i] && to > from ? sum / (double)(to - from) : -1;
        }
    ht_page_heat(page, "Layers and ranks",
                 "Each row is a layer, its neurons from the most active to the least; colour is how often they fire.",
                 &(ht_heat){ .rows = p->n_layer,
                             .columns = bins,
                             .values = values,
                             .min = 1e-4,
                             .max = 1,
                             .log = true,
                             .row_label = "layer",
                             .column_label = "rank",
                             .first = "most active neuron",
                             .last = "least active",
                             .unit = "of tokens" });
    free(values);
}

void ht_report_neurons(ht_page *page, const hearth_profile *p)
{
    float **rows = ht_report_any_neurons(p) ? sorted_layers(page, p) : NULL;
    if (!rows) {
        if (ht_report_any_neurons(p))
            ht_page_fail(page);
        return;
    }
    ht_page_raw(page, "<h2>Neurons</h2>\n<div class=\"grid2\">\n");
    frequency_curves(page, p, rows);
    cumulative_curves(page, p, rows);
    rank_map(page, p, rows);
    ht_page_raw(page, "</div>\n");
    for (uint32_t i = 0; i < p->n_layer; i++)
        free(rows[i]);
    free((void *)rows);
}
