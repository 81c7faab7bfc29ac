/* SPDX-License-Identifier: MIT
 * What reports look like, in light and in dark. */
#include <math.h>

#include "offline_profiler/page.h"

const char ht_report_style[] =
    ":root{color-scheme:light dark;--bg:#fbfbfa;--card:#fff;--ink:#1d2126;--soft:#5d6670;--rule:#dfe3e6;--grid:#e9ecee;"
    "--accent:#b4470f;--second:#1f6f8b}\n"
    "@media(prefers-color-scheme:dark){:root{--bg:#14171a;--card:#1b1f23;--ink:#e4e7ea;--soft:#98a2ac;--rule:#2f353b;"
    "--grid:#272c31;--accent:#f59a5b;--second:#62bfd9}}\n"
    "*{box-sizing:border-box}\n"
    "body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,-apple-system,\"Segoe UI\",\"DejaVu "
    "Sans\",sans-serif}\n"
    "main{max-width:1180px;margin:0 auto;padding:32px 20px 60px}\n"
    "h1{font-size:27px;line-height:1.25;margin:0 0 4px;font-weight:650}\n"
    "h2{font-size:18px;margin:38px 0 12px;padding-top:14px;border-top:1px solid var(--rule);font-weight:650}\n"
    "h3{font-size:15px;margin:0;font-weight:650}\n"
    "p{margin:0}.soft,figcaption p,.facts{color:var(--soft)}.facts{font-size:13px;margin-top:6px}\n"
    "code{font-family:ui-monospace,\"DejaVu Sans Mono\",monospace;font-size:.92em}\n"
    ".tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(165px,1fr));gap:12px;margin-top:22px}\n"
    ".tile{background:var(--card);border:1px solid var(--rule);border-radius:8px;padding:12px 14px}\n"
    ".tile b{display:block;font-size:25px;font-weight:650;line-height:1.2}.tile "
    "span{font-size:13px;color:var(--soft)}\n"
    ".grid2{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(440px,100%),1fr));gap:16px}\n"
    "figure{margin:0;background:var(--card);border:1px solid var(--rule);border-radius:8px;padding:14px 16px 10px}\n"
    "figcaption p{font-size:13px;margin:1px 0 8px}.wide{grid-column:1/-1}\n"
    "figure>svg{display:block;width:100%;height:auto}\n"
    "svg text{fill:var(--soft);font-family:inherit}.tick{font-size:11.5px}.label{font-size:12px}\n"
    ".mid{text-anchor:middle}.end{text-anchor:end}\n"
    ".grid{stroke:var(--grid)}.axis{stroke:var(--soft);stroke-opacity:.6}\n"
    ".line{fill:none;stroke-width:1.8;stroke-linejoin:round;stroke-linecap:round}polyline.line:hover{stroke-width:3.6}"
    "\n"
    ".many polyline.line{stroke-width:1;stroke-opacity:.8}\n"
    ".even{stroke:var(--soft);stroke-dasharray:4 4;stroke-width:1.2}\n"
    ".one{stroke:var(--accent)}.two{stroke:var(--second)}.dashed{stroke-dasharray:6 4}\n"
    ".dot.one,.bar.one{fill:var(--accent)}.dot.two,.bar.two{fill:var(--second)}\n"
    ".dot{stroke:var(--card);stroke-width:1.2}.chosen{stroke:var(--ink);stroke-width:2.4}\n"
    ".bar{stroke:none}g:hover>.bar{filter:brightness(1.15)}.whisker{stroke:var(--ink);stroke-opacity:.45;stroke-width:"
    "1.2}\n"
    ".cells rect{shape-rendering:crispEdges}.cells rect:hover{stroke:var(--ink);stroke-width:1}\n"
    ".mark{stroke:var(--ink);stroke-width:1.8}\n"
    ".legend{display:flex;flex-wrap:wrap;gap:3px 14px;font-size:12.5px;color:var(--soft);margin:4px 0 "
    "2px;align-items:center}\n"
    ".legend span{display:inline-flex;align-items:center;gap:5px}.legend span svg{width:18px;height:10px}\n"
    ".legend .line{stroke-width:2.6}.scale svg{width:192px;height:12px}\n"
    ".scroll{overflow-x:auto;border:1px solid var(--rule);border-radius:8px;background:var(--card)}\n"
    "table{border-collapse:collapse;width:100%;font-size:13.5px;font-variant-numeric:tabular-nums}\n"
    "th,td{padding:5px 12px;text-align:right;white-space:nowrap}th{color:var(--soft);font-weight:550;border-bottom:1px "
    "solid var(--rule)}\n"
    "tbody tr:nth-child(even){background:color-mix(in srgb,var(--grid) 45%,transparent)}td:first-child,th:first-child{"
    "text-align:left}\n"
    "dl{display:grid;grid-template-columns:max-content 1fr;gap:4px 18px;font-size:13.5px;margin:0}dt{font-weight:600}"
    "dd{margin:0;color:var(--soft)}\n"
    "@media print{body{background:#fff}figure,.tile{break-inside:avoid}}\n";

typedef struct colour {
    double r, g, b;
} colour;

/* Through the anchors, evenly, in linear light: mixtures of sRGB values would be too dark. */
static colour mix(const colour *anchors, int n, double t)
{
    int i = (int)(t * (n - 1));
    i = i < n - 1 ? i : n - 2;
    double f = t * (n - 1) - i;
    const colour *a = &anchors[i], *b = &anchors[i + 1];
    const double from[3] = { a->r, a->g, a->b }, to[3] = { b->r, b->g, b->b };
    double out[3];
    for (int k = 0; k < 3; k++)
        out[k] = 255 * pow(pow(from[k] / 255, 2.2) * (1 - f) + pow(to[k] / 255, 2.2) * f, 1 / 2.2);
    return (colour){ out[0], out[1], out[2] };
}

static void ramps(ht_page *p, const colour *series, int n_series, const colour *heat, int n_heat)
{
    for (int i = 0; i < HT_PAGE_SERIES; i++) {
        colour c = mix(series, n_series, i / (HT_PAGE_SERIES - 1.0));
        ht_page_add(p, ".s%d{stroke:rgb(%.0f,%.0f,%.0f)}.bar.s%d{fill:rgb(%.0f,%.0f,%.0f);stroke:none}", i, c.r, c.g,
                    c.b, i, c.r, c.g, c.b);
    }
    for (int i = 0; i < HT_PAGE_HEAT; i++) {
        colour c = mix(heat, n_heat, i / (HT_PAGE_HEAT - 1.0));
        ht_page_add(p, ".h%d{fill:rgb(%.0f,%.0f,%.0f)}", i, c.r, c.g, c.b);
    }
}

void ht_report_colours(ht_page *p)
{
    /* Series: from blue by green to red-brown; heat: one direction of lightness, from the card's own colour. */
    static const colour light_series[] = { { 58, 48, 135 },  { 32, 108, 156 }, { 20, 146, 126 },
                                           { 150, 158, 40 }, { 222, 132, 30 }, { 178, 52, 40 } };
    static const colour dark_series[] = { { 142, 134, 236 }, { 92, 170, 234 }, { 70, 206, 178 },
                                          { 196, 212, 92 },  { 248, 180, 86 }, { 244, 116, 100 } };
    static const colour light_heat[] = {
        { 243, 245, 246 }, { 190, 219, 222 }, { 86, 163, 180 }, { 32, 100, 138 }, { 26, 44, 88 }
    };
    static const colour dark_heat[] = {
        { 33, 38, 43 }, { 40, 70, 96 }, { 42, 124, 140 }, { 122, 190, 132 }, { 250, 236, 150 }
    };
    ramps(p, light_series, 6, light_heat, 5);
    ht_page_raw(p, "\n@media(prefers-color-scheme:dark){");
    ramps(p, dark_series, 6, dark_heat, 5);
    ht_page_raw(p, "}\n");
}
