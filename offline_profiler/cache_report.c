/* SPDX-License-Identifier: MIT
 * Hit-rate curves of cache policies as a page: hits and bytes over the budget, and the figures as a table. */
#include <stdio.h>
#include <stdlib.h>

#include "offline_profiler/report.h"
#include "offline_profiler/routes.h"

enum { N_POLICIES = HEARTH_CACHE_RANDOM + 1 };

static const char *const classes[N_POLICIES] = { "two", "s4", "one", "s0 dashed", "even" };

static double share(uint64_t a, uint64_t b)
{
    return b ? (double)a / (double)b : 0;
}

/* One line per policy, over the budget as a share of all experts; y by `of`. */
static void curves(ht_page *page, const hearth_cache_result *results, size_t n, double all, ht_axis y, const char *title,
                   const char *note, double (*of)(const hearth_cache_result *))
{
    double greatest = 0, *px = malloc((n + 1) * sizeof *px), *py = malloc((n + 1) * sizeof *py);
    const char *used[N_POLICIES], *names[N_POLICIES];
    size_t n_used = 0;

    for (size_t i = 0; i < n; i++)
        greatest = (double)results[i].budget / all > greatest ? (double)results[i].budget / all : greatest;
    if (!px || !py) {
        ht_page_fail(page);
    } else {
        ht_chart c = ht_chart_begin(page, title, note, ht_report_share_axis("budget, of all experts", greatest), y);
        for (int p = 0; p < N_POLICIES; p++) {
            size_t points = 0;
            for (size_t i = 0; i < n; i++)
                if ((int)results[i].policy == p) {
                    px[points] = (double)results[i].budget / all;
                    py[points++] = of(&results[i]);
                }
            for (size_t i = 1; i < points; i++) /* by budget */
                for (size_t j = i; j > 0 && px[j] < px[j - 1]; j--) {
                    double x = px[j], v = py[j];
                    px[j] = px[j - 1];
                    py[j] = py[j - 1];
                    px[j - 1] = x;
                    py[j - 1] = v;
                }
            if (!points)
                continue;
            used[n_used] = classes[p];
            names[n_used++] = hearth_cache_policy_name((hearth_cache_policy)p);
            if (points > 1)
                ht_chart_line(&c, classes[p], names[n_used - 1], points, px, py);
            for (size_t i = 0; i < points; i++)
                ht_chart_dot(&c, classes[p], names[n_used - 1], px[i], py[i], 3);
        }
        ht_chart_end(&c);
        ht_page_legend(page, n_used, used, names);
        ht_page_raw(page, "</figure>\n");
    }
    free(px);
    free(py);
}

static double decode_hits(const hearth_cache_result *r)
{
    return share(r->decode_hits, r->decode_uses);
}

static double decode_reads(const hearth_cache_result *r)
{
    const uint64_t each = r->decode_uses > r->decode_hits ? r->decode_bytes / (r->decode_uses - r->decode_hits) : 0;
    return share(r->decode_bytes, each * r->decode_uses);
}

hearth_status hearth_routes_report(const hearth_routes *r, const hearth_cache_result *results, size_t n,
                                   const char *path, hearth_error *err)
{
    hearth_routes_info info = { .size = sizeof info };
    ht_page page = { 0 };
    hearth_routes_get_info(r, &info);
    const double all = info.expert_bytes ? (double)info.expert_bytes : 1;
    const ht_axis whole = { .label = "of experts used", .max = 1, .percent = true };

    ht_page_add(&page,
                "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
                "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">"
                "<title>Expert cache on %s</title>\n<style>\n",
                info.model);
    ht_page_raw(&page, ht_report_style);
    ht_report_colours(&page);
    ht_page_add(&page, "</style></head>\n<body><main class=\"few\">\n<h1>Expert cache</h1><p class=\"soft\">%s, %s</p>\n",
                info.model, info.architecture);
    ht_page_add(&page,
                "<p class=\"facts\">%u layers of %u experts, %u used; %.0f tokens of prompt and %.0f generated; all experts "
                "%.1f MiB</p>\n<h2>Hit rates</h2>\n<div class=\"grid2\">\n",
                info.n_layer, info.n_expert, info.n_used, (double)info.prompt_tokens, (double)info.generated_tokens,
                (double)info.expert_bytes / 1048576);
    curves(&page, results, n, all, whole, "Held when needed",
           "Share of the experts that generated tokens used that were in the cache.", decode_hits);
    curves(&page, results, n, all, whole, "Read from disk",
           "Bytes read for generated tokens, of what they would be without a cache.", decode_reads);
    ht_page_raw(&page, "</div>\n<h2>Figures</h2>\n<div class=\"scroll\"><table><thead><tr><th>policy</th><th>budget, MiB</th>"
                       "<th>of all</th><th>hits</th><th>hits of generated</th><th>MiB read per token</th></tr></thead>"
                       "<tbody>\n");
    for (size_t i = 0; i < n; i++)
        ht_page_add(&page, "<tr><td>%s</td><td>%.1f</td><td>%.1f %%</td><td>%.2f %%</td><td>%.2f %%</td><td>%.2f</td></tr>\n",
                    hearth_cache_policy_name(results[i].policy), (double)results[i].budget / 1048576,
                    100 * (double)results[i].budget / all, 100 * share(results[i].hits, results[i].uses),
                    100 * decode_hits(&results[i]),
                    share(results[i].decode_bytes, info.generated_tokens) / 1048576);
    ht_page_raw(&page, "</tbody></table></div>\n</main></body></html>\n");
    return (hearth_status)ht_page_close(&page, path, ht_profile_err(err));
}
