/* SPDX-License-Identifier: MIT
 * Charts as SVG: axes, lines, bars, heat; see page.h. Drawings are 560 units wide and scale with the page. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "offline_profiler/page.h"

enum { WIDTH = 560, HEIGHT = 330, LEFT = 64, RIGHT = 24, TOP = 12, BOTTOM = 46, MOST_TICKS = 12 };

/* ---- Axes ---- */

/* Where v lies on an axis, 0 to 1. */
static double along(const ht_axis *a, double v)
{
    v = v < a->min ? a->min : v > a->max ? a->max : v;
    if (a->log)
        return log(v / a->min) / log(a->max / a->min);
    return a->max > a->min ? (v - a->min) / (a->max - a->min) : 0;
}

static double at_x(const ht_chart *c, double v)
{
    return c->left + c->width * along(&c->x, v);
}
static double at_y(const ht_chart *c, double v)
{
    return c->top + c->height * (1 - along(&c->y, v));
}

/* Few round numbers over an axis. */
static uint32_t choose_ticks(const ht_axis *a, double ticks[MOST_TICKS])
{
    uint32_t n = 0;
    if (a->ticks) {
        n = a->n_ticks < MOST_TICKS ? a->n_ticks : MOST_TICKS;
        memcpy(ticks, a->ticks, n * sizeof *ticks);
        return n;
    }
    if (a->log) {
        int first = (int)ceil(log10(a->min) - 1e-9), last = (int)floor(log10(a->max) + 1e-9);
        int step = (last - first) / 6 + 1;
        for (int e = first; e <= last && n < MOST_TICKS; e += step)
            ticks[n++] = pow(10, e);
        return n;
    }
    double span = a->max - a->min, step = pow(10, floor(log10(span / 4)));
    step *= span / step > 25 ? 10 : span / step > 12 ? 5 : span / step > 8 ? 2 : 1;
    int first = (int)ceil(a->min / step - 1e-9), last = (int)floor(a->max / step + 1e-9);
    for (int i = first; i <= last && n < MOST_TICKS; i++)
        ticks[n++] = i * step;
    return n;
}

/* A number as briefly as it can be told. */
static void put_value(ht_page *p, const ht_axis *a, double v)
{
    double shown = a->percent ? 100 * v : v, size = fabs(shown);
    int decimals = 0;
    for (double rest = size; decimals < 6 && fabs(rest - floor(rest + 0.5)) > 1e-6 * (rest + 1e-3); decimals++)
        rest *= 10;
    switch (decimals) {
    case 0: ht_page_add(p, "%.0f", shown); break;
    case 1: ht_page_add(p, "%.1f", shown); break;
    case 2: ht_page_add(p, "%.2f", shown); break;
    case 3: ht_page_add(p, "%.3f", shown); break;
    case 4: ht_page_add(p, "%.4f", shown); break;
    default: ht_page_add(p, "%.5f", shown); break;
    }
    if (a->percent)
        ht_page_raw(p, " %");
}

static void head(ht_page *p, const char *title, const char *note)
{
    ht_page_add(p, "<figure><figcaption><h3>%s</h3><p>%s</p></figcaption>\n", title, note);
}

ht_chart ht_chart_begin(ht_page *p, const char *title, const char *note, ht_axis x, ht_axis y)
{
    ht_chart c = { p, LEFT, TOP, WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM, x, y };
    double ticks[MOST_TICKS], bottom = c.top + c.height;

    head(p, title, note);
    ht_page_add(p, "<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"%s\">\n", WIDTH, HEIGHT, title);
    uint32_t n = choose_ticks(&c.y, ticks);
    for (uint32_t i = 0; i < n; i++) {
        double v = at_y(&c, ticks[i]);
        ht_page_add(p, "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>", c.left,
                    c.left + c.width, v, v);
        ht_page_add(p, "<text class=\"tick end\" x=\"%.1f\" y=\"%.1f\">", c.left - 7, v + 4);
        put_value(p, &c.y, ticks[i]);
        ht_page_raw(p, "</text>\n");
    }
    n = choose_ticks(&c.x, ticks);
    for (uint32_t i = 0; i < n; i++) {
        double v = at_x(&c, ticks[i]);
        ht_page_add(p, "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>", v, v, bottom,
                    bottom + 4);
        ht_page_add(p, "<text class=\"tick mid\" x=\"%.1f\" y=\"%.1f\">", v, bottom + 18);
        put_value(p, &c.x, ticks[i]);
        ht_page_raw(p, "</text>\n");
    }
    ht_page_add(p, "<line class=\"axis\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>", c.left, c.left + c.width,
                bottom, bottom);
    ht_page_add(p, "<text class=\"label mid\" x=\"%.1f\" y=\"%.1f\">%s</text>", c.left + c.width / 2, bottom + 38,
                c.x.label);
    ht_page_add(p, "<text class=\"label mid\" transform=\"translate(13 %.1f) rotate(-90)\">%s</text>\n",
                c.top + c.height / 2, c.y.label);
    return c;
}

void ht_chart_end(ht_chart *c)
{
    ht_page_raw(c->page, "</svg>\n");
}

static void name_of(ht_page *p, const char *name)
{
    if (name)
        ht_page_add(p, "<title>%s</title>", name);
}

void ht_chart_line(const ht_chart *c, const char *class, const char *name, size_t n, const double *x, const double *y)
{
    ht_page_add(c->page, "<polyline class=\"line %s\" points=\"", class);
    for (size_t i = 0; i < n; i++)
        ht_page_add(c->page, "%.1f,%.1f ", at_x(c, x[i]), at_y(c, y[i]));
    ht_page_raw(c->page, "\">");
    name_of(c->page, name);
    ht_page_raw(c->page, "</polyline>\n");
}

void ht_chart_dot(const ht_chart *c, const char *class, const char *name, double x, double y, double radius)
{
    ht_page_add(c->page, "<circle class=\"dot %s\" cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\">", class, at_x(c, x), at_y(c, y),
                radius);
    name_of(c->page, name);
    ht_page_raw(c->page, "</circle>\n");
}

void ht_chart_bar(const ht_chart *c, const char *class, const char *name, double x, double width, double y,
                  double spread)
{
    double left = at_x(c, x - width / 2), right = at_x(c, x + width / 2), top = at_y(c, y), bottom = c->top + c->height;
    ht_page_add(c->page, "<g><rect class=\"bar %s\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" rx=\"1.5\"/>",
                class, left, top, right - left, bottom - top);
    if (spread > 0)
        ht_page_add(c->page, "<line class=\"whisker\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>",
                    (left + right) / 2, (left + right) / 2, at_y(c, y - spread), at_y(c, y + spread));
    name_of(c->page, name);
    ht_page_raw(c->page, "</g>\n");
}

void ht_chart_mark(const ht_chart *c, const char *class, const char *name, double x, double width, double y)
{
    ht_page_add(c->page, "<line class=\"mark %s\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\">", class,
                at_x(c, x - width / 2), at_x(c, x + width / 2), at_y(c, y), at_y(c, y));
    name_of(c->page, name);
    ht_page_raw(c->page, "</line>\n");
}

/* ---- Legends ---- */

void ht_page_legend(ht_page *p, size_t n, const char *const *classes, const char *const *names)
{
    ht_page_raw(p, "<p class=\"legend\">");
    for (size_t i = 0; i < n; i++)
        ht_page_add(p,
                    "<span><svg viewBox=\"0 0 18 10\"><line class=\"line %s\" x1=\"1\" x2=\"17\" y1=\"5\" "
                    "y2=\"5\"/></svg>%s</span>",
                    classes[i], names[i]);
    ht_page_raw(p, "</p>\n");
}

const char *ht_page_layer_class(char out[8], uint32_t i, uint32_t n)
{
    uint32_t step = n > 1 ? (i * (HT_PAGE_SERIES - 1) + (n - 1) / 2) / (n - 1) : 0;
    snprintf(out, 8, "s%u", step < HT_PAGE_SERIES ? step : HT_PAGE_SERIES - 1);
    return out;
}

void ht_page_layers(ht_page *p, uint32_t n_layer)
{
    uint32_t named = n_layer < 10 ? n_layer : 7;
    ht_page_raw(p, "<p class=\"legend\">");
    for (uint32_t i = 0; i < named; i++) {
        uint32_t layer = named > 1 ? i * (n_layer - 1) / (named - 1) : 0;
        char class[8];
        ht_page_add(p,
                    "<span><svg viewBox=\"0 0 18 10\"><line class=\"line %s\" x1=\"1\" x2=\"17\" y1=\"5\" "
                    "y2=\"5\"/></svg>layer %u</span>",
                    ht_page_layer_class(class, layer, n_layer), layer);
    }
    ht_page_raw(p, "</p>\n");
}

/* ---- Heat ---- */

static uint32_t heat_class(const ht_heat *h, double v)
{
    ht_axis a = { .min = h->min, .max = h->max, .log = h->log };
    double t = along(&a, v) * HT_PAGE_HEAT;
    return t < 0 ? 0 : t < HT_PAGE_HEAT ? (uint32_t)t : HT_PAGE_HEAT - 1;
}

static void heat_value(ht_page *p, const ht_heat *h, double v)
{
    if (h->chance > 0)
        ht_page_add(p, "%.2f x even", v);
    else
        ht_page_add(p, v < 0.0995 ? "%.2f %%" : "%.1f %%", 100 * v);
}

static void heat_rows(ht_page *p, const ht_heat *h, double left, double top, double cell, double row)
{
    /* What a pointer is told doubles a page's size: very large maps go without. */
    bool told = (uint64_t)h->rows * h->columns <= 12000;
    ht_page_raw(p, "<g class=\"cells\">\n");
    for (uint32_t r = 0; r < h->rows; r++) {
        uint32_t every = h->rows > 24 ? (h->rows + 15) / 16 : 1;
        if (r % every == 0)
            ht_page_add(p, "<text class=\"tick end\" x=\"%.1f\" y=\"%.1f\">%u</text>", left - 7,
                        top + row * (r + 0.5) + 4, r);
        for (uint32_t c = 0; c < h->columns; c++) {
            double v = h->values[(size_t)r * h->columns + c];
            if (v < 0)
                continue;
            ht_page_add(p, "<rect class=\"h%u\" x=\"%.2f\" y=\"%.1f\" width=\"%.2f\" height=\"%.1f\"", heat_class(h, v),
                        left + cell * c, top + row * r, cell + 0.3, row - (row > 6 ? 1 : 0));
            if (told) {
                ht_page_add(p, "><title>%s %u, %s %u: ", h->row_label, r, h->column_label, c);
                heat_value(p, h, v);
                ht_page_add(p, " %s</title></rect>", h->unit);
            } else {
                ht_page_raw(p, "/>");
            }
        }
        ht_page_raw(p, "\n");
    }
    ht_page_raw(p, "</g>\n");
}

void ht_page_heat(ht_page *p, const char *title, const char *note, const ht_heat *h)
{
    double left = LEFT, width = 2.0 * WIDTH - LEFT - RIGHT, row = h->rows <= 12 ? 22 : h->rows <= 40 ? 12 : 7;
    double height = row * h->rows, total = TOP + height + BOTTOM;

    ht_page_raw(p, "<div class=\"wide\">");
    head(p, title, note);
    ht_page_add(p, "<svg viewBox=\"0 0 %d %.0f\" role=\"img\" aria-label=\"%s\">\n", 2 * WIDTH, total, title);
    heat_rows(p, h, left, TOP, width / h->columns, row);
    ht_page_add(p, "<text class=\"tick\" x=\"%.1f\" y=\"%.1f\">%s</text>", left, TOP + height + 18, h->first);
    ht_page_add(p, "<text class=\"tick end\" x=\"%.1f\" y=\"%.1f\">%s</text>", left + width, TOP + height + 18,
                h->last);
    ht_page_add(p, "<text class=\"label mid\" x=\"%.1f\" y=\"%.1f\">%s</text>", left + width / 2, TOP + height + 34,
                h->column_label);
    ht_page_add(p, "<text class=\"label mid\" transform=\"translate(13 %.1f) rotate(-90)\">%s</text>\n",
                TOP + height / 2, h->row_label);
    ht_page_raw(p, "</svg>\n<p class=\"legend scale\"><span>");
    heat_value(p, h, h->min);
    ht_page_add(p, "</span><svg viewBox=\"0 0 %d 12\">", 12 * HT_PAGE_HEAT);
    for (int i = 0; i < HT_PAGE_HEAT; i++)
        ht_page_add(p, "<rect class=\"h%d\" x=\"%d\" y=\"0\" width=\"12.5\" height=\"12\"/>", i, 12 * i);
    ht_page_raw(p, "</svg><span>");
    heat_value(p, h, h->max);
    ht_page_add(p, " %s</span></p></figure></div>\n", h->unit);
}
