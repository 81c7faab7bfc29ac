/* SPDX-License-Identifier: MIT
 * JSON and the process's counters; see report.h. */
#include "tools/report.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- JSON ---- */

size_t ht_report_quote(char *out, const char *text, size_t n)
{
    char *q = out;
    *q++ = '"';
    for (size_t i = 0; i < n;) {
        const unsigned char *p = (const unsigned char *)text + i;
        size_t len = ht_utf8_character(text + i, n - i);
        if (!len) {
            memcpy(q, "\xef\xbf\xbd", 3);
            q += 3;
            i++;
        } else if (*p == '"' || *p == '\\') {
            *q++ = '\\';
            *q++ = (char)*p;
            i++;
        } else if (*p < 0x20 || *p == 0x7f || (*p == 0xc2 && p[1] < 0xa0)) {
            q += snprintf(q, 7, "\\u%04x", len == 2 ? p[1] : *p); /* U+0080 to U+009F are their second byte */
            i += len;
        } else {
            memcpy(q, p, len);
            q += len;
            i += len;
        }
    }
    *q++ = '"';
    return (size_t)(q - out);
}

void ht_report_text(cJSON *object, const char *name, const char *text, size_t n)
{
    /* cJSON's own strings end at a zero byte, which a model may well produce. */
    char *out = malloc(6 * n + 3);
    if (!out) {
        cJSON_AddNullToObject(object, name);
        return;
    }
    out[ht_report_quote(out, text, n)] = 0;
    cJSON_AddRawToObject(object, name, out);
    free(out);
}

void ht_report_number(cJSON *object, const char *name, double v)
{
    if (isfinite(v))
        cJSON_AddNumberToObject(object, name, v);
    else
        cJSON_AddNullToObject(object, name);
}

void ht_report_positive(cJSON *object, const char *name, double v)
{
    ht_report_number(object, name, v > 0 ? v : NAN);
}

void ht_report_tokens(cJSON *object, const char *name, const hearth_token *ids, size_t n)
{
    /* Spelled here: an array of a million cJSON nodes is a hundred times its text. */
    char *out = malloc(12 * n + 3);
    if (!out) {
        cJSON_AddNullToObject(object, name);
        return;
    }
    size_t used = 0;
    out[used++] = '[';
    for (size_t i = 0; i < n; i++)
        used += (size_t)sprintf(out + used, i ? ",%" PRId32 : "%" PRId32, ids[i]);
    out[used++] = ']';
    out[used] = 0;
    cJSON_AddRawToObject(object, name, out);
    free(out);
}

void ht_report_model(cJSON *object, const ht_loaded *l)
{
    ht_report_text(object, "model", l->path, strlen(l->path));
    ht_report_text(object, "description", l->info.description, strlen(l->info.description));
    cJSON_AddStringToObject(object, "device", l->info.device ? l->info.device : "cpu");
    cJSON_AddNumberToObject(object, "threads", l->info.threads);
    cJSON_AddStringToObject(object, "isa", l->info.isa ? l->info.isa : "");
    cJSON_AddNumberToObject(object, "load_ms", l->load_ms);
    cJSON_AddNumberToObject(object, "peak_rss_bytes", (double)hearth_peak_rss());
    cJSON_AddNumberToObject(object, "peak_vram_bytes", 0);
    cJSON_AddNumberToObject(object, "weight_bytes_per_token", (double)l->info.weight_bytes_per_token);
    double disk = ht_disk_bytes_read();
    ht_report_number(object, "disk_bytes_read", disk >= 0 ? disk : NAN);
    static const char *const unmeasured[] = { "predictor_recall", "predictor_precision", "expert_hit_rate",
                                              "expert_prefetch_hit_rate" };
    for (size_t i = 0; i < sizeof unmeasured / sizeof *unmeasured; i++)
        cJSON_AddNullToObject(object, unmeasured[i]);
}

static double share(uint64_t n, uint64_t of) { return of ? (double)n / (double)of : NAN; }

void ht_report_stream(cJSON *object, const ht_loaded *l, const hearth_stats *s)
{
    if (!l->info.expert_bytes)
        return;
    if (s->experts_wanted)
        cJSON_ReplaceItemInObject(object, "expert_hit_rate",
                                  cJSON_CreateNumber(share(s->experts_hit, s->experts_wanted)));
    if (s->experts_foreseen)
        cJSON_ReplaceItemInObject(object, "expert_prefetch_hit_rate",
                                  cJSON_CreateNumber(share(s->experts_foreseen_hit, s->experts_foreseen)));
    cJSON_ReplaceItemInObject(object, "disk_bytes_read", cJSON_CreateNumber((double)s->disk_bytes_read));
    cJSON_AddNumberToObject(object, "io_wait_seconds", s->io_wait_seconds);
    if (s->experts_guessed)
        cJSON_AddNumberToObject(object, "expert_guess_recall", share(s->experts_guessed_right, s->experts_guessed));
    size_t n = sizeof s->layers_missing / sizeof *s->layers_missing;
    while (n && !s->layers_missing[n - 1])
        n--;
    cJSON *missing = n ? cJSON_AddArrayToObject(object, "layers_missing") : NULL;
    for (size_t i = 0; missing && i < n; i++)
        cJSON_AddItemToArray(missing, cJSON_CreateNumber((double)s->layers_missing[i]));
    hearth_model_info now = { .size = sizeof now };
    if (l->model && hearth_model_get_info(l->model, &now) == HEARTH_OK) /* sessions take from it */
        cJSON_AddNumberToObject(object, "expert_cache_bytes", (double)now.expert_cache_bytes);
    cJSON_AddNumberToObject(object, "stand_in_bytes", (double)l->info.stand_in_bytes);
    cJSON_AddNumberToObject(object, "stand_in_uses", (double)s->experts_stood_in);
    cJSON_AddNumberToObject(object, "experts_skipped", (double)s->experts_skipped);
    ht_report_number(object, "skipped_weight_share", s->mixtures ? s->skipped_share / (double)s->mixtures : NAN);
    cJSON_AddNumberToObject(object, "experts_rerouted", (double)s->experts_rerouted);
}

void ht_report_since(hearth_stats *after, const hearth_stats *before)
{
    after->experts_wanted -= before->experts_wanted;
    after->experts_hit -= before->experts_hit;
    after->experts_foreseen -= before->experts_foreseen;
    after->experts_foreseen_hit -= before->experts_foreseen_hit;
    after->disk_bytes_read -= before->disk_bytes_read;
    after->io_wait_seconds -= before->io_wait_seconds;
    after->experts_stood_in -= before->experts_stood_in;
    after->experts_skipped -= before->experts_skipped;
    after->experts_rerouted -= before->experts_rerouted;
    after->mixtures -= before->mixtures;
    after->skipped_share -= before->skipped_share;
    after->experts_guessed -= before->experts_guessed;
    after->experts_guessed_right -= before->experts_guessed_right;
    for (size_t i = 0; i < sizeof after->layers_missing / sizeof *after->layers_missing; i++)
        after->layers_missing[i] -= before->layers_missing[i];
}

void ht_report_add(hearth_stats *sum, const hearth_stats *s)
{
    sum->experts_wanted += s->experts_wanted;
    sum->experts_hit += s->experts_hit;
    sum->experts_foreseen += s->experts_foreseen;
    sum->experts_foreseen_hit += s->experts_foreseen_hit;
    sum->disk_bytes_read += s->disk_bytes_read;
    sum->io_wait_seconds += s->io_wait_seconds;
    sum->experts_stood_in += s->experts_stood_in;
    sum->experts_skipped += s->experts_skipped;
    sum->experts_rerouted += s->experts_rerouted;
    sum->mixtures += s->mixtures;
    sum->skipped_share += s->skipped_share;
    sum->experts_guessed += s->experts_guessed;
    sum->experts_guessed_right += s->experts_guessed_right;
    for (size_t i = 0; i < sizeof s->layers_missing / sizeof *s->layers_missing; i++)
        sum->layers_missing[i] += s->layers_missing[i];
}

void ht_report_stream_text(char *text, size_t bytes, const hearth_stats *s)
{
    char foreseen[60] = "", inexact[120] = "";

    text[0] = 0;
    if (!s->experts_wanted && !s->disk_bytes_read)
        return;
    if (s->experts_foreseen)
        snprintf(foreseen, sizeof foreseen, ", %.0f %% of %llu read ahead were needed",
                 100 * share(s->experts_foreseen_hit, s->experts_foreseen), (unsigned long long)s->experts_foreseen);
    if (s->experts_stood_in)
        snprintf(inexact, sizeof inexact, ", %.1f %% computed from stand-ins", 100 * share(s->experts_stood_in, s->experts_wanted));
    else if (s->experts_skipped)
        snprintf(inexact, sizeof inexact, ", %.1f %% left out (%.2f %% of the weight)",
                 100 * share(s->experts_skipped, s->experts_wanted),
                 s->mixtures ? 100 * s->skipped_share / (double)s->mixtures : 0.0);
    if (s->experts_rerouted)
        snprintf(inexact + strlen(inexact), sizeof inexact - strlen(inexact), ", %.1f %% taken because they were",
                 100 * share(s->experts_rerouted, s->experts_wanted));
    snprintf(text, bytes, "experts: %.1f %% at hand, %.1f MB from disk, %.2f s waiting for it%s%s",
             s->experts_wanted ? 100 * share(s->experts_hit, s->experts_wanted) : 0.0, (double)s->disk_bytes_read / 1e6,
             s->io_wait_seconds, inexact, foreseen);
}

int ht_report_print(cJSON *object)
{
    char *text = object ? cJSON_PrintUnformatted(object) : NULL;
    cJSON_Delete(object);
    if (!text) {
        ht_complain("out of memory");
        return HT_EXIT_FAILED;
    }
    puts(text);
    cJSON_free(text);
    return ht_stdout_done(HT_EXIT_OK);
}

/* ---- The machine's counters ---- */

static bool read_counter(const char *zone, unsigned i, const char *what, uint64_t *v)
{
    char path[128];
    snprintf(path, sizeof path, "/sys/class/powercap/%s:%u/%s", zone, i, what);
    FILE *f = fopen(path, "r");
    bool ok = f && fscanf(f, "%" SCNu64, v) == 1;
    if (f)
        fclose(f);
    return ok;
}

void ht_energy_open(ht_energy *e)
{
    memset(e, 0, sizeof *e);
    /* Top-level zones are the packages (and psys on some laptops, which contains them and is left out by stopping at
     * the first zone whose name is not a package's). */
    for (; e->n < sizeof e->last / sizeof *e->last; e->n++) {
        char path[128], name[32] = "";
        snprintf(path, sizeof path, "/sys/class/powercap/intel-rapl:%u/name", e->n);
        FILE *f = fopen(path, "r");
        if (!f)
            break;
        bool package = fscanf(f, "%31s", name) == 1 && !strncmp(name, "package", 7);
        fclose(f);
        if (!package || !read_counter("intel-rapl", e->n, "energy_uj", &e->last[e->n]))
            break;
    }
}

double ht_energy_read(ht_energy *e)
{
    for (unsigned i = 0; i < e->n; i++) {
        uint64_t now, range = 0;
        if (!read_counter("intel-rapl", i, "energy_uj", &now))
            return -1;
        if (now < e->last[i])
            read_counter("intel-rapl", i, "max_energy_range_uj", &range);
        e->joules += 1e-6 * (double)(now + range - e->last[i]);
        e->last[i] = now;
    }
    return e->n ? e->joules : -1;
}

double ht_disk_bytes_read(void)
{
    FILE *f = fopen("/proc/self/io", "r");
    char line[128];
    double v = -1;
    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, "read_bytes:", 11))
            v = (double)strtoull(line + 11, NULL, 10);
    if (f)
        fclose(f);
    return v;
}

void ht_report_recall(cJSON *object, const hearth_stats *s)
{
    if (!s->mask_predicted)
        return;
    if (s->mask_active)
        cJSON_ReplaceItemInObject(object, "predictor_recall",
                                  cJSON_CreateNumber((double)s->mask_hit / (double)s->mask_active));
    cJSON_ReplaceItemInObject(object, "predictor_precision",
                              cJSON_CreateNumber((double)s->mask_hit / (double)s->mask_predicted));
}
