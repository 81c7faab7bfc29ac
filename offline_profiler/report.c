/* SPDX-License-Identifier: MIT
 *
 * A profile as a page: figures of the whole, curves and maps of the neurons, a chart for each statistic of the layers,
 * experts where there are some, predictors and what they cost where the profile knows, and everything as a table. A
 * part that the profile knows nothing of is left out. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "offline_profiler/report.h"

bool ht_report_any_neurons(const hearth_profile *p)
{
    for (uint32_t i = 0; i < p->n_layer; i++)
        if (p->layers[i].frequency)
            return true;
    return false;
}

double ht_report_cover(ht_page *page, const hearth_profile *p, uint32_t layer, double share)
{
    double cover = hearth_profile_cover(p, layer, share);
    uint32_t first = layer == UINT32_MAX ? 0 : layer, end = layer == UINT32_MAX ? p->n_layer : layer + 1;
    for (uint32_t i = first; cover < 0 && i < end; i++)
        for (size_t k = 0; p->layers[i].frequency && k < ht_report_count(&p->layers[i]); k++)
            if (p->layers[i].frequency[k] > 0.0f) {
                ht_page_fail(page); /* it is known: only memory was missing */
                return cover;
            }
    return cover;
}

static double never_active(const hearth_profile_layer *l)
{
    size_t n = 0;
    for (size_t i = 0; l->frequency && i < ht_report_count(l); i++)
        n += l->frequency[i] <= 0.0f;
    return l->frequency && ht_report_count(l) ? (double)n / (double)ht_report_count(l) : -1;
}

static void tile(ht_page *p, double v, const char *text)
{
    if (v < 0)
        return;
    ht_page_add(p,
                v < 0.0995 ? "<div class=\"tile\"><b>%.2f %%</b><span>%s</span></div>\n"
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
            sum += (double)v * (double)ht_report_count(&p->layers[i]);
            weight += (double)ht_report_count(&p->layers[i]);
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
        all += (double)ht_report_count(&p->layers[i]);
    const char *name = p->name[0] ? p->name : "a model without a name";
    ht_page_add(page,
                "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
                "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">"
                "<title>Profile of %s</title>\n<style>\n",
                name);
    ht_page_raw(page, ht_report_style);
    ht_report_colours(page);
    ht_page_add(page, "</style></head>\n<body><main class=\"%s\">\n<h1>%s</h1><p class=\"soft\">%s</p>\n",
                p->n_layer > 16 ? "many" : "few", name, p->description);
    ht_page_add(
        page, "<p class=\"facts\">%.0f tokens of %.1f KB of text in windows of %u, by %s; model <code>%s</code></p>\n",
        (double)p->tokens, (double)p->text_bytes / 1024, p->window, p->created_by, p->model);
    ht_page_raw(page, "<div class=\"tiles\">\n");
    tile(page, info.density, "of the neurons computed for a token are active");
    tile(page, ht_report_cover(page, p, UINT32_MAX, 0.8), "of all neurons make up 80 % of all activations");
    tile(page, mean_of(p, offsetof(hearth_profile_layer, overlap)), "of active neurons were active a token before");
    tile(page, mean_of(p, offsetof(hearth_profile_layer, unions[3])), "of all neurons are active within 8 tokens");
    ht_page_add(page, "<div class=\"tile\"><b>%.0f</b><span>neurons in %u layers</span></div>\n</div>\n", all,
                p->n_layer);
}

/* ---- Table ---- */

static void share_cell(ht_page *page, double v)
{
    if (v < 0)
        ht_page_raw(page, "<td>–</td>");
    else
        ht_page_add(page, "<td>%.1f %%</td>", 100 * v);
}

static void table(ht_page *page, const hearth_profile *p)
{
    bool mixture = false, shared = false, neuron = ht_report_any_neurons(p), predicted = false;
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
        ht_page_add(page, "<tr><td>%u</td><td>%.0f</td>", i, (double)ht_report_count(l));
        if (mixture && l->n_expert > 1)
            ht_page_add(page, "<td>%u of %u</td>", l->n_used, l->n_expert);
        else if (mixture)
            ht_page_raw(page, "<td>–</td>");
        if (mixture)
            share_cell(page, ht_report_expert_overlap(l));
        share_cell(page, (double)l->density);
        share_cell(page, (double)l->density_spread);
        share_cell(page, (double)l->overlap);
        share_cell(page, (double)l->unions[3]);
        share_cell(page, (double)l->unions[6]);
        if (neuron) {
            share_cell(page, ht_report_cover(page, p, i, 0.8));
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
    "<dt>active</dt><dd>a neuron whose hidden unit is not zero after activation; what is zero needs no further "
    "weights</dd>"
    "<dt>density</dt><dd>share of the neurons computed for a token that are active (of a mixture: those of the experts "
    "chosen)</dd>"
    "<dt>spread</dt><dd>standard deviation of the density from token to token</dd>"
    "<dt>overlap</dt><dd>share of a token's active neurons that were active on the token before</dd>"
    "<dt>union of N</dt><dd>share of all neurons of the layer, all experts, that one of N consecutive tokens needs</dd>"
    "<dt>80 % by</dt><dd>the smallest share of neurons that makes up 80 % of all activations; 80 % if all were used "
    "alike</dd>"
    "</dl>\n</main></body></html>\n";

hearth_status hearth_profile_report(const hearth_profile *p, const char *path, hearth_error *err)
{
    ht_page page = { 0 };
    head(&page, p);
    ht_report_neurons(&page, p);
    ht_report_layers(&page, p);
    ht_report_experts(&page, p);
    ht_report_predictors(&page, p);
    table(&page, p);
    ht_page_raw(&page, words);
    return (hearth_status)ht_page_close(&page, path, ht_profile_err(err));
}
