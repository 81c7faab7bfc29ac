/* SPDX-License-Identifier: MIT
 * Reports: predictors, and what they cost; see report.h. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "offline_profiler/report.h"

static void predictor_lines(ht_page *page, const hearth_profile *p)
{
    static const char *const classes[] = { "one", "two" }, *const names[] = { "recall", "precision" };
    ht_chart c = ht_chart_begin(
        page, "Recall and precision",
        "Recall: share of the active neurons that the predictor names; precision: share of those it names "
        "that are active.",
        ht_report_layer_axis(p), (ht_axis){ .label = "share", .max = 1, .percent = true });
    for (uint32_t i = 0; i < p->n_layer; i++) {
        const hearth_profile_layer *l = &p->layers[i];
        char name[120];
        if (l->recall < 0.0f || l->precision < 0.0f)
            continue;
        snprintf(name, sizeof name, "layer %u, %.40s: recall %d.%d %%, precision %d.%d %%", i,
                 l->method ? l->method : "?", (int)(100 * (double)l->recall), (int)(1000 * (double)l->recall) % 10,
                 (int)(100 * (double)l->precision), (int)(1000 * (double)l->precision) % 10);
        ht_chart_dot(&c, "two", name, i, (double)l->precision, 4.5);
        ht_chart_dot(&c, "one", name, i, (double)l->recall, 4.5);
    }
    ht_chart_end(&c);
    ht_page_legend(page, 2, classes, names);
    ht_page_raw(page, "</figure>\n");
}

static void ahead_lines(ht_page *page, const hearth_profile *p)
{
    static const char *const classes[] = { "one", "two" }, *const names[] = { "recall", "precision" };
    ht_chart c = ht_chart_begin(
        page, "Looking ahead",
        "Active neurons of a layer foreseen from the input of the layer before, on text that this was not learnt from: for "
        "fetching early, no token depends on it. Recall: share of the active neurons that is foreseen; precision: share of those "
        "foreseen that is active.",
        ht_report_layer_axis(p), (ht_axis){ .label = "share", .max = 1, .percent = true });
    for (uint32_t i = 0; i < p->n_layer; i++) {
        const hearth_profile_layer *l = &p->layers[i];
        char name[120];
        if (l->ahead_recall < 0.0f || l->ahead_precision < 0.0f)
            continue;
        snprintf(name, sizeof name, "layer %u: recall %d.%d %%, precision %d.%d %%", i, (int)(100 * (double)l->ahead_recall),
                 (int)(1000 * (double)l->ahead_recall) % 10, (int)(100 * (double)l->ahead_precision),
                 (int)(1000 * (double)l->ahead_precision) % 10);
        ht_chart_dot(&c, "two", name, i, (double)l->ahead_precision, 4.5);
        ht_chart_dot(&c, "one", name, i, (double)l->ahead_recall, 4.5);
    }
    ht_chart_end(&c);
    ht_page_legend(page, 2, classes, names);
    ht_page_raw(page, "</figure>\n");
}

static double predicted_of(const hearth_profile_layer *l)
{
    return (double)l->predicted_density;
}
static double density_of(const hearth_profile_layer *l)
{
    return (double)l->density;
}

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
    if (!x || !y)
        ht_page_fail(c->page);
    else if (used)
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
    if (!sorted) {
        ht_page_fail(page);
        return;
    }
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
        "Each point is a setting, measured on text that it was not made from; the ringed one is chosen. Speed is "
        "counted in bytes of "
        "weights: what a dense token reads, over what this one reads.",
        (ht_axis){ .label = "times fewer bytes than dense", .min = fmax(0, slow - margin), .max = fast + margin },
        (ht_axis){ .label = "KL divergence, nat",
                   .min = pow(10, floor(log10(fmax(least, 1e-9)))),
                   .max = pow(10, ceil(log10(most))),
                   .log = true });
    loss_line(&c, sorted, p->n_points, true);
    loss_line(&c, sorted, p->n_points, false);
    for (uint32_t i = 0; i < p->n_points; i++) {
        const hearth_profile_point *q = &p->points[i];
        char name[160];
        if (q->speed <= 0.0f || q->kl_mean < 0.0f)
            continue;
        snprintf(name, sizeof name, "%d.%02d times fewer bytes than dense, mean KL %d.%04d nat%s", (int)q->speed,
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

/* Loss over density, where thresholds gave the curve. */
static void density_curve(ht_page *page, const hearth_profile *p)
{
    static const char *const classes[] = { "one", "two dashed" };
    static const char *const names[] = { "mean KL divergence", "99th percentile" };
    double *x = malloc((p->n_points + 1) * sizeof *x), *mean = malloc((p->n_points + 1) * sizeof *mean);
    double *p99 = malloc((p->n_points + 1) * sizeof *p99), least = 1e-2, most = 1e-3;
    uint32_t n = 0;

    if (!x || !mean || !p99)
        ht_page_fail(page);
    for (uint32_t i = 0; x && mean && p99 && i < p->n_points; i++) { /* few: sorted as they come */
        const hearth_profile_point *q = &p->points[i];
        uint32_t at = n;
        if (q->density < 0.0f || !(q->kl_mean > 0.0f) || !(q->kl_p99 > 0.0f))
            continue;
        for (; at > 0 && x[at - 1] > (double)q->density; at--) {
            x[at] = x[at - 1];
            mean[at] = mean[at - 1];
            p99[at] = p99[at - 1];
        }
        x[at] = (double)q->density;
        mean[at] = (double)q->kl_mean;
        p99[at] = (double)q->kl_p99;
        n++;
        least = fmin(least, (double)q->kl_mean);
        most = fmax(most, fmax((double)q->kl_p99, (double)q->kl_mean));
    }
    if (n) {
        ht_chart c = ht_chart_begin(
            page, "Loss against density",
            "What leaving out small neurons costs: share of the hidden units that stay, as it was aimed at, and the loss "
            "on text that the thresholds were not made from; the ringed point is chosen.",
            (ht_axis){ .label = "density", .max = 1, .percent = true },
            (ht_axis){ .label = "KL divergence, nat",
                       .min = pow(10, floor(log10(fmax(least, 1e-9)))),
                       .max = pow(10, ceil(log10(most))),
                       .log = true });
        ht_chart_line(&c, "two dashed", "99th percentile", n, x, p99);
        ht_chart_line(&c, "one", "mean", n, x, mean);
        for (uint32_t i = 0; i < p->n_points; i++) {
            const hearth_profile_point *q = &p->points[i];
            char name[160];
            if (q->density < 0.0f || !(q->kl_mean > 0.0f))
                continue;
            snprintf(name, sizeof name, "density %d %%: mean KL %d.%04d nat, %d.%d %% same likeliest token%s",
                     (int)(100 * (double)q->density + 0.5), (int)q->kl_mean, (int)(10000 * (double)q->kl_mean) % 10000,
                     (int)(100 * (double)q->top1_agreement), (int)(1000 * (double)q->top1_agreement) % 10,
                     i == p->chosen ? ", chosen" : "");
            ht_chart_dot(&c, i == p->chosen ? "one chosen" : "one", name, (double)q->density, (double)q->kl_mean,
                         i == p->chosen ? 7 : 4);
        }
        ht_chart_end(&c);
        ht_page_legend(page, 2, classes, names);
        ht_page_raw(page, "</figure>\n");
    }
    free(x);
    free(mean);
    free(p99);
}

/* How many layers are foretold how. */
static void kinds(ht_page *page, const hearth_profile *p)
{
    static const struct {
        const char *method, *is;
    } known[] = { { "exact", "computed gates, only zeros left out" },
                  { "sign", "signs of the weights" },
                  { "lowrank", "small matrices" },
                  { "threshold", "thresholds of gates and hidden units" } };
    char line[200];
    bool any = false;

    for (size_t k = 0; k < sizeof known / sizeof *known; k++) {
        uint32_t n = 0;
        for (uint32_t i = 0; i < p->n_layer; i++)
            n += p->layers[i].method && !strcmp(p->layers[i].method, known[k].method);
        if (!n)
            continue;
        snprintf(line, sizeof line, "%s%u layer%s by %s (%s)", any ? "; " : "<p>", n, n == 1 ? "" : "s",
                 known[k].method, known[k].is);
        ht_page_raw(page, line);
        any = true;
    }
    if (any)
        ht_page_raw(page, ".</p>\n");
}

void ht_report_predictors(ht_page *page, const hearth_profile *p)
{
    bool known = p->n_points > 0, sizes = false, recall = false, ahead = false;
    for (uint32_t i = 0; i < p->n_layer; i++) {
        recall |= p->layers[i].recall >= 0.0f;
        sizes |= p->layers[i].predicted_density >= 0.0f;
        ahead |= p->layers[i].ahead_recall >= 0.0f && p->layers[i].ahead_precision >= 0.0f;
    }
    if (!known && !recall && !sizes && !ahead)
        return;
    ht_page_raw(page, "<h2>Predictors</h2>\n");
    kinds(page, p);
    ht_page_raw(page, "<div class=\"grid2\">\n");
    if (recall)
        predictor_lines(page, p);
    if (sizes)
        ht_report_bars(page, p, "Named active",
                       "Share of the neurons that the predictor lets be computed; line: those that are active.",
                       "named", predicted_of, density_of);
    if (known) {
        loss_curve(page, p);
        density_curve(page, p);
    }
    if (ahead)
        ahead_lines(page, p);
    ht_page_raw(page, "</div>\n");
}
