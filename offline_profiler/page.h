/* SPDX-License-Identifier: MIT
 *
 * A page of HTML and SVG as it grows in memory, and the few kinds of chart that reports are made of. Text from outside
 * is escaped wherever it goes; numbers are spelled with a point whatever the locale. Colours are classes of the style
 * sheet (report_style.c), which has two sets of them: s0 to s11 for series, h0 to h15 for heat, low to high.
 *
 * Running out of memory sticks: the page is then refused at its end. Owner: ht_page_close. Threads: one. */
#ifndef HT_PAGE_H
#define HT_PAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/base/status.h"

enum { HT_PAGE_SERIES = 12, HT_PAGE_HEAT = 16 };

typedef struct ht_page {
    char *s;
    size_t n, room;
    bool failed;
} ht_page;

/* For a part that is left out because memory ran out: the page is refused at its end. */
static inline void ht_page_fail(ht_page *p)
{
    p->failed = true;
}
void ht_page_raw(ht_page *p, const char *markup);
/* Of printf it knows %s (escaped), %d, %u, %.Nf and %%. */
void ht_page_add(ht_page *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Writes it under that name, whole or not at all, and frees it. */
ht_status ht_page_close(ht_page *p, const char *path, ht_error *err);

/* ---- Charts ---- */

typedef struct ht_axis {
    const char *label;
    double min, max;     /* log: min > 0 */
    bool log, percent;   /* percent: 0.1 reads 10 % */
    const double *ticks; /* NULL: chosen */
    uint32_t n_ticks;
} ht_axis;

typedef struct ht_chart {
    ht_page *page;
    double left, top, width, height; /* of the plot within the drawing */
    ht_axis x, y;
} ht_chart;

/* A figure with a title, a sentence under it, and the axes; ht_chart_end closes it. */
ht_chart ht_chart_begin(ht_page *p, const char *title, const char *note, ht_axis x, ht_axis y);
/* A line through n points; those outside of the axes are put on their edge. name: what a pointer on it is told. */
void ht_chart_line(const ht_chart *c, const char *class, const char *name, size_t n, const double *x, const double *y);
void ht_chart_dot(const ht_chart *c, const char *class, const char *name, double x, double y, double radius);
/* A bar from 0 to y, centred at x, and a thin whisker to y + spread where spread > 0. width: in units of x. */
void ht_chart_bar(const ht_chart *c, const char *class, const char *name, double x, double width, double y,
                  double spread);
/* A short mark across a bar. */
void ht_chart_mark(const ht_chart *c, const char *class, const char *name, double x, double width, double y);
void ht_chart_end(ht_chart *c);

/* Names of series under a chart: classes and names. */
void ht_page_legend(ht_page *p, size_t n, const char *const *classes, const char *const *names);
/* The same for layers 0 to n - 1, a few of them named. */
void ht_page_layers(ht_page *p, uint32_t n_layer);
/* The series class of layer i of n. */
const char *ht_page_layer_class(char out[8], uint32_t i, uint32_t n);

typedef struct ht_heat {
    uint32_t rows, columns;
    const double *values; /* [rows][columns], negative: nothing there */
    double min, max;      /* of the scale */
    bool log;
    const char *row_label, *column_label;
    const char *first, *last; /* what stands under the first and the last column */
    const char *unit;         /* of values in what a pointer is told: "of tokens" */
    double chance;            /* > 0: values read as multiples of it, else as percent */
} ht_heat;
void ht_page_heat(ht_page *p, const char *title, const char *note, const ht_heat *h);

extern const char ht_report_style[];
void ht_report_colours(ht_page *p); /* the classes s0… and h0… for light and dark */

#endif
