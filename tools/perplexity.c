/* SPDX-License-Identifier: MIT
 *
 * hearth perplexity: how well a model foretells a text, and how far its predictions are from another model's.
 *
 * The text's ids are cut into windows of --ctx, one after the other without overlap, the rest at the end left out.
 * Each is computed from an empty context; where the file asks for BOS it takes the place of the window's first
 * token. Of the positions from the middle of the window on, each but the last is scored by the token that follows
 * it. This is what llama.cpp's perplexity tool does, so that figures can be compared. With --against a second model
 * reads the same windows in step, a few positions at a time, so that no more than those logits are ever kept. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tools/commands.h"
#include "tools/report.h"

#define AT(member) offsetof(ht_options, member)

enum { STEP = 32 }; /* positions computed at once where two models are compared: their logits have to be kept */

static const ht_flag own_flags[] = {
    { 'f', "file", "TEXT", HT_FLAG_TEXT, AT(file), 0, 0, NULL, NULL, "the text is in this file or pipe; - is stdin" },
    { 'p', "prompt", "TEXT", HT_FLAG_TEXT, AT(prompt), 0, 0, NULL, NULL, "the text itself" },
    { 0, "ctx", "N", HT_FLAG_INTEGER, AT(ctx), 4, 1 << 30, NULL, NULL, "length of a window in tokens; default 512" },
    { 0, "windows", "N", HT_FLAG_INTEGER, AT(windows), 1, 1 << 30, NULL, NULL,
      "score the first N windows only; default: all of them" },
    { 0, "against", "MODEL2", HT_FLAG_TEXT, AT(against), 0, 0, NULL, NULL,
      "compare with the predictions of this model; dense: of the same one, exact: with --sparsity off, without --on-miss "
      "and --route-bias" },
    { 0 },
};

typedef struct sums {
    double nll, nll2; /* of the tokens scored */
    double nll_other;
    double kl;
    uint64_t n, same_top;
    double *kls; /* one per token scored, for the percentile */
    size_t kls_room;
} sums;

typedef struct score {
    sums *s;
    const hearth_token *next; /* next[i]: the token that follows position i of this feed */
    size_t n_vocab, n;        /* n: positions of the feed that are scored */
    float *kept;              /* logits of the other model for this feed, [STEP][n_vocab]; NULL where there is none */
    bool keeping;             /* this feed is the other model's */
    bool out_of_memory;
} score;

/* The greatest logit, and the logarithm of the sum of exp(logit - greatest). */
static size_t log_sum(const float *v, size_t n, double *log_of_sum)
{
    size_t best = 0;
    double sum = 0;
    for (size_t i = 1; i < n; i++)
        if (v[i] > v[best])
            best = i;
    for (size_t i = 0; i < n; i++)
        sum += (double)expf(v[i] - v[best]);
    *log_of_sum = log(sum);
    return best;
}

static bool add_comparison(score *c, const float *logits, const float *other, hearth_token next, double log_of_sum,
                           size_t best)
{
    sums *s = c->s;
    double log_other, kl = 0;
    size_t best_other = log_sum(other, c->n_vocab, &log_other);
    double shift = (double)other[best_other] + log_other, shift_own = (double)logits[best] + log_of_sum;
    /* KL(other || this): the other model is the one to be kept to. */
    for (size_t i = 0; i < c->n_vocab; i++) {
        double log_p = (double)other[i] - shift, log_q = (double)logits[i] - shift_own;
        if (log_p > -40)
            kl += (double)expf((float)log_p) * (log_p - log_q);
    }
    if (s->n == s->kls_room) {
        size_t room = 2 * s->kls_room + 4096;
        double *more = realloc(s->kls, room * sizeof *more);
        if (!more) {
            c->out_of_memory = true;
            return false;
        }
        s->kls = more;
        s->kls_room = room;
    }
    s->kls[s->n] = kl;
    s->kl += kl;
    s->same_top += best == best_other;
    s->nll_other += shift - (double)other[next];
    return true;
}

static bool on_logits(void *user, size_t index, const float *logits)
{
    score *c = user;
    if (index >= c->n)
        return true;
    if (c->keeping) {
        memcpy(c->kept + index * c->n_vocab, logits, c->n_vocab * sizeof *logits);
        return true;
    }
    double log_of_sum;
    size_t best = log_sum(logits, c->n_vocab, &log_of_sum);
    double nll = (double)logits[best] + log_of_sum - (double)logits[c->next[index]];
    if (c->kept && !add_comparison(c, logits, c->kept + index * c->n_vocab, c->next[index], log_of_sum, best))
        return false;
    c->s->nll += nll;
    c->s->nll2 += nll * nll;
    c->s->n++;
    return true;
}

/* One window through one or both models. */
static hearth_status window(hearth_session *s, hearth_session *other, const hearth_token *ids, size_t n, score *c,
                            hearth_error *err)
{
    size_t first = n / 2;
    hearth_status st = hearth_session_rewind(s, 0, err);
    if (st == HEARTH_OK && other)
        st = hearth_session_rewind(other, 0, err);
    if (st == HEARTH_OK && first)
        st = hearth_session_feed(s, ids, first, NULL, NULL, err);
    if (st == HEARTH_OK && other && first)
        st = hearth_session_feed(other, ids, first, NULL, NULL, err);
    /* The last token is only foretold, never read. */
    for (size_t at = first; at + 1 < n && st == HEARTH_OK; at += c->n) {
        c->n = n - 1 - at;
        if (other && c->n > STEP)
            c->n = STEP;
        c->next = ids + at + 1;
        if (other) {
            c->keeping = true;
            st = hearth_session_feed(other, ids + at, c->n, on_logits, c, err);
            c->keeping = false;
        }
        if (st == HEARTH_OK)
            st = hearth_session_feed(s, ids + at, c->n, on_logits, c, err);
    }
    return st;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print_experts(const ht_loaded *l, const hearth_stats *stats)
{
    char text[400];

    ht_report_stream_text(text, sizeof text, stats);
    if (!l->info.expert_bytes || !text[0] || !stats->single_passes)
        return;
    hearth_model_info now = { .size = sizeof now };
    hearth_model_get_info(l->model, &now);
    printf("%s\n%.1f of %.1f MiB of experts in memory, %.1f of stand-ins; %.1f KiB read per token\n", text,
           (double)now.expert_cache_bytes / 1048576, (double)now.expert_bytes / 1048576,
           (double)now.stand_in_bytes / 1048576, (double)stats->disk_bytes_read / 1024 / (double)stats->single_passes);
}

static int report(const ht_options *o, const ht_loaded *l, const ht_loaded *other, sums *s, const hearth_stats *stats,
                  size_t n_windows, size_t n_ctx)
{
    if (!s->n)
        return ht_usage_error("there is nothing to score");
    double n = (double)s->n, nll = s->nll / n, ppl = exp(nll);
    double variance = s->n > 1 ? (s->nll2 / n - nll * nll) / (n - 1) : NAN;
    double nll_stderr = variance >= 0 ? sqrt(variance) : variance < 0 ? 0 : NAN;
    double kl_mean = s->kl / n, kl_p99 = NAN, agree = (double)s->same_top / n;
    /* Where neurons are left out those count that were not. */
    uint64_t neurons = stats->neurons_total + stats->mask_neurons, in_prompts = stats->mask_predicted ? stats->mask_hit
                                                                                                      : stats->mask_active;
    uint64_t active = stats->neurons_active + in_prompts;
    double density = neurons ? (double)active / (double)neurons : NAN;
    if (other && s->n) {
        qsort(s->kls, s->n, sizeof *s->kls, ascending);
        kl_p99 = s->kls[(size_t)ceil(0.99 * n) - 1];
    }
    if (!o->json) {
        printf("perplexity %.4f +- %.4f  (nll %.6f +- %.6f nat per token, %llu tokens scored in %zu windows of %zu)\n",
               ppl, ppl * nll_stderr, nll, nll_stderr, (unsigned long long)s->n, n_windows, n_ctx);
        if (other)
            printf(
                "against %s\n  perplexity there   %.4f\n  kl_divergence_mean %.6g nat\n  kl_divergence_p99  %.6g nat\n"
                "  top1_agreement     %.4f\n",
                !strcmp(o->against, "dense") ? "dense" : other->path, exp(s->nll_other / n), kl_mean, kl_p99, agree);
        if (stats->mask_active)
            printf("density %.2f %%\n", 100 * density);
        print_experts(l, stats);
        if (stats->mask_predicted && stats->mask_active)
            printf("predictors: %.2f %% of neurons computed, recall %.2f %%, precision %.2f %%\n",
                   100 * (double)stats->mask_predicted / (double)stats->mask_neurons,
                   100 * (double)stats->mask_hit / (double)stats->mask_active,
                   100 * (double)stats->mask_hit / (double)stats->mask_predicted);
        return ht_stdout_done(HT_EXIT_OK);
    }
    cJSON *j = cJSON_CreateObject();
    ht_report_number(j, "perplexity", ppl);
    ht_report_number(j, "perplexity_stderr", ppl * nll_stderr);
    ht_report_number(j, "nll", nll);
    ht_report_number(j, "nll_stderr", nll_stderr);
    cJSON_AddNumberToObject(j, "tokens_scored", n);
    cJSON_AddNumberToObject(j, "windows", (double)n_windows);
    cJSON_AddNumberToObject(j, "ctx", (double)n_ctx);
    cJSON_AddNumberToObject(j, "prompt_tokens", (double)stats->prompt_tokens);
    ht_report_number(j, "prompt_tokens_per_s",
                     stats->prompt_seconds > 0 ? (double)stats->prompt_tokens / stats->prompt_seconds : NAN);
    ht_report_number(j, "activation_density", density);
    ht_report_number(j, "kl_divergence_mean", other ? kl_mean : NAN);
    ht_report_number(j, "kl_divergence_p99", other ? kl_p99 : NAN);
    ht_report_number(j, "top1_agreement", other ? agree : NAN);
    if (other) {
        ht_report_text(j, "against", o->against, strlen(o->against));
        ht_report_number(j, "perplexity_against", exp(s->nll_other / n));
    }
    ht_report_model(j, l);
    ht_report_recall(j, stats);
    ht_report_stream(j, l, stats);
    if (l->info.expert_bytes && stats->single_passes)
        cJSON_AddNumberToObject(j, "disk_bytes_read_per_token",
                                (double)stats->disk_bytes_read / (double)stats->single_passes);
    return ht_report_print(j);
}

/* The ids of the text, cut and scored. */
static int measure(const ht_options *o, const ht_loaded *l, const ht_loaded *other, hearth_token *ids, size_t n)
{
    size_t n_ctx = o->ctx.v > 0 ? (size_t)o->ctx.v : 512;
    if (n < n_ctx) {
        if (n < 4)
            return ht_usage_error("the text is too short to score: %zu tokens", n);
        ht_say("the text has %zu tokens, less than a window of %zu: one window of %zu", n, n_ctx, n);
        n_ctx = n;
    }
    size_t n_windows = n / n_ctx;
    if (o->windows.given && (uint64_t)o->windows.v < n_windows)
        n_windows = (size_t)o->windows.v;
    else if (o->windows.given && (uint64_t)o->windows.v > n_windows)
        ht_say("the text has %zu windows of %zu tokens, fewer than the %lld asked for", n_windows, n_ctx,
               (long long)o->windows.v);
    hearth_session *s = NULL, *s_other = NULL;
    hearth_error err = { 0 };
    hearth_stats stats = { .size = sizeof stats };
    sums total = { 0 };
    score c = { .s = &total, .n_vocab = l->info.n_vocab };
    ht_options sized = *o;
    sized.ctx = (ht_integer){ (int64_t)n_ctx, true };
    ht_options single = sized;
    if (ht_load_inexact(o) && !o->batch.given) /* only tokens one by one are not exact */
        single.batch = (ht_integer){ 1, true };
    int status = ht_load_session(&s, l, &single, 0);
    if (!status && other) {
        status = ht_load_session(&s_other, other, &sized, 0);
        if (!status && !(c.kept = malloc(STEP * c.n_vocab * sizeof *c.kept))) {
            ht_complain("out of memory");
            status = HT_EXIT_FAILED;
        }
    }
    ht_interrupt_session(s);
    for (size_t w = 0; w < n_windows && !status; w++) {
        hearth_token *first = ids + w * n_ctx;
        if (l->info.add_bos && l->info.bos >= 0)
            *first = l->info.bos;
        hearth_status st = window(s, s_other, first, n_ctx, &c, &err);
        if (st != HEARTH_OK && c.out_of_memory) {
            ht_complain("out of memory");
            status = HT_EXIT_FAILED;
        } else if (st != HEARTH_OK) {
            status = ht_call_failed(&err, false);
        } else {
            ht_detail("window %zu of %zu: perplexity so far %.4f", w + 1, n_windows, exp(total.nll / (double)total.n));
            if (!ht_console_progress(NULL, "perplexity", w + 1, n_windows))
                status = HT_EXIT_INTERRUPTED;
        }
    }
    ht_interrupt_session(NULL);
    ht_console_progress_end();
    if (status == HT_EXIT_INTERRUPTED && total.n)
        ht_complain("interrupted; perplexity of the first %llu tokens scored: %.4f", (unsigned long long)total.n,
                    exp(total.nll / (double)total.n));
    if (!status) {
        hearth_session_get_stats(s, &stats);
        status = report(o, l, other, &total, &stats, n_windows, n_ctx);
    }
    free(c.kept);
    free(total.kls);
    hearth_session_close(&s);
    hearth_session_close(&s_other);
    return status;
}

/* Stored bytes of a file's tensors; 0 where it cannot be read, which is told when it is opened as a model. */
static uint64_t tensor_bytes(const char *path)
{
    hearth_file *f = NULL;
    uint64_t sum = 0;
    if (hearth_file_open(&f, path, NULL) != HEARTH_OK)
        return 0;
    for (uint64_t i = 0; i < hearth_file_n_tensors(f); i++) {
        hearth_tensor t = { 0 };
        if (hearth_file_tensor(f, i, &t) == HEARTH_OK)
            sum += t.bytes;
    }
    hearth_file_close(&f);
    return sum;
}

/* --ram for two models, parts[0] and parts[1]: each has its weights and half of what both leave. Those of one file are
 * in memory once, as long as it is mapped. Where not even the weights fit, each has a share by its size. Returns whether both
 * are one file. */
static bool share_budget(const char *path, const char *other, uint64_t ram, uint64_t parts[2])
{
    struct stat a, b;
    const uint64_t w = tensor_bytes(path), w_other = tensor_bytes(other);
    const bool same = !stat(path, &a) && !stat(other, &b) && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
    const uint64_t both = same ? w : w + w_other;
    if (ram > both) {
        parts[0] = w + (ram - both) / 2;
        parts[1] = w_other + (ram - both) / 2;
    } else {
        parts[0] = same || !both ? ram / 2 : (uint64_t)((double)ram * (double)w / (double)both);
        parts[1] = ram - parts[0];
    }
    return same;
}

static int run(const ht_options *o)
{
    ht_load_how how = { .precision = HEARTH_PRECISION_FAST };
    ht_loaded l = { 0 }, other = { 0 };
    hearth_error err = { 0 };
    hearth_token *ids = NULL;
    size_t n_text = 0, n = 0;
    char *text = NULL;
    bool given;

    int status = ht_load_prompt(o, &text, &n_text, &given);
    if (!status && !given)
        status = ht_usage_error("perplexity needs a text: -f TEXT, - for stdin, or -p");
    if (status)
        return status;
    ht_interrupt_arm(true);
    ht_options shared = *o;
    uint64_t parts[2] = { o->ram.bytes, o->ram.bytes };
    bool dense = o->against && !strcmp(o->against, "dense"), same = false;
    if (o->against && o->ram.given) {
        if ((status = ht_load_path(o, l.path, sizeof l.path)))
            goto done;
        same = share_budget(l.path, dense ? l.path : o->against, o->ram.bytes, parts);
        ht_detail("of --ram %.1f MiB are for the model, %.1f MiB for the one it is compared with",
                  (double)parts[0] / (1 << 20), (double)parts[1] / (1 << 20));
    }
    shared.ram.bytes = parts[0];
    if ((status = ht_load_model(&l, NULL, &shared, &how)))
        goto done;
    if (same && strcmp(l.info.io, "mmap") != 0) { /* from the disk: each holds weights of its own */
        shared.ram.bytes = parts[0] = parts[1] = o->ram.bytes / 2;
        ht_load_close(&l);
        if ((status = ht_load_model(&l, NULL, &shared, &how)))
            goto done;
    }
    if (o->against) {
        how.dense = dense;
        how.no_profile = true;
        shared.ram.bytes = parts[1];
        if ((status = ht_load_model(&other, dense ? l.path : o->against, &shared, &how)))
            goto done;
        if (other.info.n_vocab != l.info.n_vocab) {
            ht_complain("%s has a vocabulary of %u tokens, %s one of %u: they cannot be compared", l.path,
                        l.info.n_vocab, other.path, other.info.n_vocab);
            status = HT_EXIT_FAILED;
            goto done;
        }
    }
    if (hearth_tokenize(l.model, text, n_text, true, false, &ids, &n, &err) != HEARTH_OK) {
        status = ht_call_failed(&err, false);
        goto done;
    }
    if (l.info.add_eos && n && ids[n - 1] == l.info.eos)
        n--; /* the text may go on */
    status = measure(o, &l, o->against ? &other : NULL, ids, n);
done:
    hearth_free(ids);
    ht_load_close(&other);
    ht_load_close(&l);
    free(text);
    return status;
}

const ht_command ht_command_perplexity = {
    .name = "perplexity",
    .arguments = "[MODEL] -f TEXT",
    .summary = "perplexity over a text, and the distance from another model",
    .text =
        "The text is read in windows of --ctx tokens that do not overlap, each begun with BOS (in place of its first "
        "token) "
        "where the file asks for it; the second half of each is scored, as llama.cpp does; --windows N stops after N "
        "of "
        "them. --against adds the mean and the 99th percentile of the KL divergence KL(MODEL2 || MODEL) in nat and the "
        "share of positions where both put the same token first; both models share --ram. With --on-miss or --route-bias "
        "tokens are computed one by one (--batch 1), as decoding would: in larger batches these have no effect.",
    .max_positional = 1,
    .takes_stdin = true,
    .tables = { own_flags, ht_flags_model, ht_flags_talk },
    .idle = { ht_flags_sampling },
    .run = run,
};
