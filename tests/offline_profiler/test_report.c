/* SPDX-License-Identifier: MIT
 *
 * Reports: a page that is well-formed, asks nothing of a network, escapes what comes from files, and has the parts that
 * the profile knows of and no others. */
#include <locale.h>

#include "tests/offline_profiler/profile_sample.h"

static hearth_error err;

static char *page_of(const hearth_profile *p)
{
    const char *path = util_path("report.html");
    size_t n;
    cr_assert_eq(hearth_profile_report(p, path, &err), HEARTH_OK, "%s", err.text);
    char *page = util_read(path, &n);
    cr_assert_eq(strlen(page), n, "a zero byte");
    remove(path);
    return page;
}

static bool is_void(const char *tag)
{
    return !strncmp(tag, "meta", 4) || !strncmp(tag, "!DOCTYPE", 8);
}

/* Every tag is closed by its own name, every attribute is quoted, every & is an entity. */
static void expect_well_formed(const char *page)
{
    char open[64][24];
    int depth = 0;
    for (const char *p = page; *p; p++) {
        if (*p == '&')
            cr_assert(!strncmp(p, "&lt;", 4) || !strncmp(p, "&gt;", 4) || !strncmp(p, "&amp;", 5) ||
                          !strncmp(p, "&quot;", 6) || !strncmp(p, "&#39;", 5),
                      "'%.20s'", p);
        if (!strncmp(p, "<style>", 7)) {
            p = strstr(p, "</style>") + 7;
            continue;
        }
        if (*p != '<')
            continue;
        const char *name = p + 1 + (p[1] == '/'), *end = strchr(p, '>');
        size_t n = strcspn(name, " />");
        int quotes = 0;
        cr_assert(end && n > 0 && n < 24, "'%.40s'", p);
        for (const char *q = p; q < end; q++)
            quotes += *q == '"';
        cr_assert(quotes % 2 == 0 && !memchr(p + 1, '<', (size_t)(end - p - 1)), "'%.80s'", p);
        if (p[1] == '/') {
            cr_assert(depth > 0 && strlen(open[depth - 1]) == n && !strncmp(open[depth - 1], name, n),
                      "</%.*s> closes <%s>", (int)n, name, depth > 0 ? open[depth - 1] : "");
            depth--;
        } else if (end[-1] != '/' && !is_void(name)) {
            cr_assert_lt(depth, 64);
            snprintf(open[depth++], sizeof open[0], "%.*s", (int)n, name);
        }
        p = end;
    }
    cr_assert_eq(depth, 0, "<%s> is left open", depth ? open[depth - 1] : "");
}

static void expect_parts(const char *page, bool neurons, bool experts, bool predictors)
{
    cr_expect_eq(strstr(page, "<h2>Neurons</h2>") != NULL, neurons);
    cr_expect_eq(strstr(page, "<h2>Experts</h2>") != NULL, experts);
    cr_expect_eq(strstr(page, "<h2>Predictors</h2>") != NULL, predictors);
    cr_expect(predictors || !strstr(page, "Loss against density"));
    cr_expect(strstr(page, "<h2>Layers</h2>") && strstr(page, "<table>") && strstr(page, "prefers-color-scheme:dark"));
    cr_expect(!strstr(page, "http") && !strstr(page, "<script") && !strstr(page, "<link") && !strstr(page, "url(") &&
                  !strstr(page, "@import"),
              "the page asks for something");
    cr_expect(!strstr(page, "nan") && !strstr(page, "inf\"") && !strstr(page, "=\"-\""), "a number is none");
}

Test(report, has_the_parts_that_are_known)
{
    for (int mixture = 0; mixture < 2; mixture++)
        for (int predicted = 0; predicted < 2; predicted++)
            for (uint32_t n_layer = 1; n_layer < 100; n_layer = 3 * n_layer + 1) {
                hearth_profile *p = sample_profile(n_layer, 48, mixture ? 8 : 1, predicted);
                char *page = page_of(p);
                expect_well_formed(page);
                expect_parts(page, true, mixture && n_layer > 1, predicted);
                free(page);
                hearth_profile_close(&p);
            }
}

/* Nothing for single neurons; then a profile that knows next to nothing. */
Test(report, of_little)
{
    hearth_profile *p = sample_profile(3, 40, 1, false);
    for (uint32_t i = 0; i < 3; i++)
        p->layers[i].frequency = p->layers[i].magnitude = NULL;
    char *page = page_of(p);
    expect_well_formed(page);
    expect_parts(page, false, false, false);
    free(page);
    hearth_profile_close(&p);
    p = ht_profile_new(2);
    page = page_of(p);
    expect_well_formed(page);
    expect_parts(page, false, false, false);
    free(page);
    hearth_profile_close(&p);
}

Test(report, of_extremes)
{
    hearth_profile *p = sample_profile(2, 1, 1, true);
    for (uint32_t i = 0; i < 2; i++) {
        float *none = ht_profile_alloc(p, 1, sizeof *none);
        p->layers[i].frequency = p->layers[i].magnitude = none;
        p->layers[i].density = p->layers[i].overlap = 0;
    }
    for (uint32_t i = 0; i < p->n_points; i++)
        p->points[i] = (hearth_profile_point){ .kl_mean = i == 0 ? 0 : -1, .kl_p99 = -1, .speed = 1 };
    char *page = page_of(p);
    expect_well_formed(page);
    expect_parts(page, true, false, true);
    free(page);
    hearth_profile_close(&p);
}

Test(report, escapes_what_comes_from_files)
{
    static const char name[] = "<script>alert('x')</script> & \"quotes\" \x01\x1b[31m", bad[] = "\"><img src=x>";
    hearth_profile *p = sample_profile(2, 40, 1, true);
    p->name = ht_profile_text(p, name, strlen(name));
    p->description = ht_profile_text(p, bad, strlen(bad));
    p->created_by = ht_profile_text(p, bad, strlen(bad));
    for (uint32_t i = 0; i < 2; i++)
        p->layers[i].method = ht_profile_text(p, bad, strlen(bad));
    char *page = page_of(p);
    expect_well_formed(page);
    cr_expect(!strstr(page, "<script") && !strstr(page, "<img") && !strchr(page, 0x1b) && !strchr(page, 1));
    cr_expect_not_null(strstr(page, "&lt;script&gt;"));
    free(page);
    hearth_profile_close(&p);
}

/* Where the decimal point is a comma, if the machine has such a locale. */
Test(report, is_the_same_in_every_locale)
{
    static const char *const locales[] = { "de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8", "ru_RU.UTF-8" };
    hearth_profile *p = sample_profile(3, 40, 4, true);
    char *page = page_of(p);
    for (size_t i = 0; i < sizeof locales / sizeof *locales; i++)
        if (setlocale(LC_ALL, locales[i])) {
            char *other = page_of(p);
            cr_expect_str_eq(page, other);
            free(other);
        }
    free(page);
    hearth_profile_close(&p);
}
