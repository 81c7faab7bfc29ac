/* SPDX-License-Identifier: MIT
 * A plan as a page: what lies where, layer by layer, what a token takes in each, and the figures as a table. */
#include <stdlib.h>

#include "offline_profiler/profile.h"
#include "offline_profiler/report.h"

static const char *const classes[3] = { "even", "two", "one" }; /* by hearth_tier; the style of bars is below */
static const char *const names[3] = { "disk", "RAM", "VRAM" };
static const char own_style[] = ".bar.even{fill:var(--soft);fill-opacity:.45}\n";

static double mib(uint64_t bytes)
{
    return (double)bytes / 1048576;
}

static void tile(ht_page *page, const char *what, const char *unit, double v, int decimals)
{
    ht_page_raw(page, "<div class=\"tile\"><b>");
    if (decimals)
        ht_page_add(page, "%.1f", v);
    else
        ht_page_add(page, "%.0f", v);
    ht_page_add(page, "%s</b><span>%s</span></div>\n", unit, what);
}

static hearth_plan_row row_of(const hearth_plan *p, uint32_t i)
{
    hearth_plan_row r = { .size = sizeof r };
    hearth_plan_get_row(p, i, &r);
    return r;
}

/* Bytes of a row by tier; the trunk's KV counted with it. */
static void bytes_of(const hearth_plan_row *r, double out[3])
{
    for (int t = 0; t < 3; t++)
        out[t] = mib(r->in_bytes[t]);
    out[r->trunk] += mib(r->trunk_bytes + r->kv_bytes);
}

/* Bars that stand on each other: the whole is drawn first, in the colour of what is on top. */
static void stack(const ht_chart *c, double x, const double *v, const char *const *class, const char *const *name, int n)
{
    for (int k = n - 1; k >= 0; k--) {
        double sum = 0;
        for (int j = 0; j <= k; j++)
            sum += v[j];
        if (v[k] > 0)
            ht_chart_bar(c, class[k], name[k], x, 0.8, sum, 0);
    }
}

static ht_axis layer_axis(uint32_t n)
{
    return (ht_axis){ .label = "layer (the output last)", .min = -0.6, .max = n - 0.4 };
}

static void places(ht_page *page, const hearth_plan *p, uint32_t n)
{
    static const char *const class[] = { "one", "two", "even" }, *const name[] = { "VRAM", "RAM", "disk" };
    double most = 0;

    for (uint32_t i = 0; i < n; i++) {
        const hearth_plan_row r = row_of(p, i);
        double v[3];
        bytes_of(&r, v);
        most = v[0] + v[1] + v[2] > most ? v[0] + v[1] + v[2] : most;
    }
    ht_chart c = ht_chart_begin(page, "What lies where", "Weights and KV cache of each layer, by tier.", layer_axis(n),
                                (ht_axis){ .label = "MiB", .max = most > 0 ? most * 1.08 : 1 });
    for (uint32_t i = 0; i < n; i++) {
        const hearth_plan_row r = row_of(p, i);
        double v[3];
        bytes_of(&r, v);
        const double order[3] = { v[2], v[1], v[0] };
        stack(&c, i, order, class, name, 3);
    }
    ht_chart_end(&c);
    ht_page_legend(page, 3, classes, names);
    ht_page_raw(page, "</figure>\n");
}

static void seconds(ht_page *page, const hearth_plan *p, uint32_t n)
{
    static const char *const class[] = { "two", "one", "even" }, *const name[] = { "attention, router, shared", "experts or block", "waiting for the disk" };
    double most = 0;

    for (int draw = 0; draw < 2; draw++) {
        ht_chart c = { 0 };
        if (draw)
            c = ht_chart_begin(page, "A token's time", "Predicted milliseconds of each layer; what the disk takes beyond the computing on top.",
                               layer_axis(n), (ht_axis){ .label = "ms", .max = most > 0 ? most * 1.08 : 1 });
        for (uint32_t i = 0; i < n; i++) {
            const hearth_plan_row r = row_of(p, i);
            const double work = r.cpu_seconds > r.gpu_seconds ? r.cpu_seconds : r.gpu_seconds;
            const double v[3] = { 1e3 * r.trunk_seconds, 1e3 * work, r.disk_seconds > work ? 1e3 * (r.disk_seconds - work) : 0 };
            most = v[0] + v[1] + v[2] > most ? v[0] + v[1] + v[2] : most;
            if (draw)
                stack(&c, i, v, class, name, 3);
        }
        if (draw)
            ht_chart_end(&c);
    }
    ht_page_legend(page, 3, class, name);
    ht_page_raw(page, "</figure>\n");
}

static void table(ht_page *page, const hearth_plan *p, uint32_t n)
{
    ht_page_raw(page, "<h2>Figures</h2>\n<div class=\"scroll\"><table><thead><tr><th>layer</th><th>attention</th><th>MiB</th>"
                      "<th>KV, MiB</th><th>pieces</th><th>in VRAM</th><th>in RAM</th><th>on disk</th><th>ms of a token</th></tr>"
                      "</thead><tbody>\n");
    for (uint32_t i = 0; i < n; i++) {
        const hearth_plan_row r = row_of(p, i);
        double work = r.cpu_seconds > r.gpu_seconds ? r.cpu_seconds : r.gpu_seconds;
        work = r.disk_seconds > work ? r.disk_seconds : work;
        if (r.output)
            ht_page_raw(page, "<tr><td>output</td>");
        else
            ht_page_add(page, "<tr><td>%u, %s</td>", i, r.mixture ? "mixture" : "dense");
        ht_page_add(page, "<td>%s</td><td>%.1f</td><td>%.1f</td><td>%u</td><td>%.1f</td><td>%.1f</td><td>%.1f</td><td>%.3f</td></tr>\n",
                    names[r.trunk], mib(r.trunk_bytes), mib(r.kv_bytes), r.pieces, mib(r.in_bytes[HEARTH_TIER_VRAM]),
                    mib(r.in_bytes[HEARTH_TIER_RAM]), mib(r.in_bytes[HEARTH_TIER_DISK]), 1e3 * (r.trunk_seconds + work));
    }
    ht_page_raw(page, "</tbody></table></div>\n");
}

hearth_status hearth_plan_report(const hearth_plan *p, const char *path, hearth_error *err)
{
    hearth_plan_info i = { .size = sizeof i };
    ht_page page = { 0 };

    hearth_plan_get_info(p, &i);
    ht_page_add(&page,
                "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
                "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">"
                "<title>Plan of %s</title>\n<style>\n",
                i.model);
    ht_page_raw(&page, ht_report_style);
    ht_report_colours(&page);
    ht_page_raw(&page, own_style);
    ht_page_add(&page, "</style></head>\n<body><main class=\"few\">\n<h1>Plan</h1><p class=\"soft\">%s: %s</p>\n", i.model,
                i.description);
    ht_page_add(&page, "<p class=\"facts\">%u thread%s, %s; weights by %s; context %u with %s keys and values; %s</p>\n<div class=\"tiles\">\n",
                i.threads, i.threads == 1 ? "" : "s", i.isa, i.io, i.n_ctx, i.kv_type,
                i.profiled ? "a profile says what is used how often" : "no profile: every expert counts alike");
    tile(&page, "tokens a second, generated", "", 1 / i.decode_seconds, 1);
    tile(&page, "tokens a second at the end of the context", "", 1 / i.decode_full_seconds, 1);
    tile(&page, "tokens a second, prompt", "", i.prompt_tokens / i.prompt_seconds, 0);
    tile(&page, "to the first token", " ms", 1e3 * i.prompt_seconds, 0);
    tile(&page, "RAM", " MiB", mib(i.ram_bytes), 0);
    if (i.vram_bytes)
        tile(&page, "VRAM", " MiB", mib(i.vram_bytes), 0);
    if (i.disk_bytes)
        tile(&page, "stay on disk", " MiB", mib(i.disk_bytes), 0);
    ht_page_raw(&page, "</div>\n<h2>Layers</h2>\n<div class=\"grid2\">\n");
    places(&page, p, i.n_rows);
    seconds(&page, p, i.n_rows);
    ht_page_raw(&page, "</div>\n");
    table(&page, p, i.n_rows);
    ht_page_raw(&page, "</main></body></html>\n");
    return (hearth_status)ht_page_close(&page, path, ht_profile_err(err));
}
