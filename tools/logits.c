/* SPDX-License-Identifier: MIT
 *
 * hearth logits: the raw logits after each position of a list of ids, written to a .npy file row by row as they are
 * made. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tools/commands.h"
#include "tools/npy.h"
#include "tools/report.h"

#define AT(member) offsetof(ht_options, member)

static const ht_flag own_flags[] = {
    { 0, "tokens", "LIST", HT_FLAG_TEXT, AT(tokens), 0, 0, NULL, NULL,
      "token ids as 1,2,3, or the path of a one-dimensional integer .npy file; no BOS is added" },
    { 'o', "output", "OUT.npy", HT_FLAG_TEXT, AT(out), 0, 0, NULL, NULL,
      "where the float32 array [n_tokens, n_vocab] is written" },
    { 0 },
};

typedef struct rows {
    FILE *f;
    size_t n_vocab, n;
} rows;

static bool on_logits(void *user, size_t index, const float *logits)
{
    rows *r = user;
    ht_console_progress(NULL, "logits", index + 1, r->n);
    return !ht_interrupted() && fwrite(logits, sizeof *logits, r->n_vocab, r->f) == r->n_vocab;
}

static int write_logits(const ht_options *o, const ht_loaded *l, hearth_session *s, const hearth_token *ids, size_t n)
{
    uint64_t shape[2] = { n, l->info.n_vocab };
    hearth_error err = { 0 };
    char part[4200];
    struct stat there;
    /* Beside its place until it is whole, for part of an array looks like an array; pipes and devices are written to.
     */
    const bool aside = (lstat(o->out, &there) || S_ISREG(there.st_mode)) &&
                       (size_t)snprintf(part, sizeof part, "%s.part", o->out) < sizeof part;
    const char *path = aside ? part : o->out;
    rows r = { fopen(path, "wb"), l->info.n_vocab, n };
    if (!r.f) {
        ht_complain("cannot write %s: %s", path, strerror(errno));
        return HT_EXIT_FAILED;
    }
    int status = HT_EXIT_OK;
    bool written = !ht_npy_write_head(r.f, shape, 2);
    if (written) {
        ht_interrupt_session(s);
        hearth_status st = hearth_session_feed(s, ids, n, on_logits, &r, &err);
        ht_interrupt_session(NULL);
        ht_console_progress_end();
        written = !ferror(r.f);
        if (st != HEARTH_OK && written)
            status = ht_call_failed(&err, false);
    }
    if (fclose(r.f))
        written = false;
    if (written && !status && aside && rename(part, o->out))
        written = false;
    if (!written) {
        ht_complain("cannot write %s", o->out);
        status = HT_EXIT_FAILED;
    }
    if (status && aside)
        ht_remove_file(part);
    return status;
}

/* What --json tells; without it nothing is printed. */
static int report(const ht_options *o, const ht_loaded *l, const hearth_session *s, size_t n)
{
    hearth_stats stats = { .size = sizeof stats };
    hearth_session_get_stats(s, &stats);
    cJSON *j = cJSON_CreateObject();
    ht_report_text(j, "output", o->out, strlen(o->out));
    cJSON_AddNumberToObject(j, "prompt_tokens", (double)n);
    ht_report_number(j, "prompt_tokens_per_s", stats.prompt_seconds > 0 ? (double)n / stats.prompt_seconds : NAN);
    cJSON_AddNumberToObject(j, "n_vocab", l->info.n_vocab);
    ht_report_model(j, l);
    return ht_report_print(j);
}

static int run(const ht_options *o)
{
    ht_load_how how = { .precision = HEARTH_PRECISION_F32 };
    ht_loaded l = { 0 };
    hearth_session *s = NULL;
    hearth_token *ids = NULL;
    size_t n = 0;

    if (!o->tokens || !o->out)
        return ht_usage_error("logits needs --tokens LIST and -o OUT.npy");
    int status = ht_load_tokens(o->tokens, &ids, &n);
    if (!status && !n)
        status = ht_usage_error("--tokens names no token");
    if (status)
        goto done;
    ht_interrupt_arm(true);
    if ((status = ht_load_model(&l, NULL, o, &how)))
        goto done;
    for (size_t i = 0; i < n; i++)
        if ((uint32_t)ids[i] >= l.info.n_vocab) {
            status = ht_usage_error("token %d is not in the vocabulary of %u", ids[i], l.info.n_vocab);
            goto done;
        }
    if ((status = ht_load_check_output("-o", o->out, &(const char *){ l.path }, 1)))
        goto done;
    if (!(status = ht_load_session(&s, &l, o, (uint32_t)n)))
        status = write_logits(o, &l, s, ids, n);
    if (!status && o->json)
        status = report(o, &l, s, n);
done:
    hearth_session_close(&s);
    ht_load_close(&l);
    free(ids);
    return status;
}

const ht_command ht_command_logits = {
    .name = "logits",
    .arguments = "[MODEL] --tokens LIST -o OUT.npy",
    .summary = "the raw logits after each position, as a .npy file",
    .text = "Writes float32 in C order, shape [n_tokens, n_vocab]; row i holds the logits after tokens 0 to i. The "
            "context is the "
            "number of ids given, and --precision is f32 unless given.",
    .max_positional = 1,
    .tables = { own_flags, ht_flags_model, ht_flags_talk },
    .idle = { ht_flags_sampling },
    .run = run,
};
