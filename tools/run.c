/* SPDX-License-Identifier: MIT
 *
 * hearth run: completes a prompt, streaming. The prompt is taken byte for byte, BOS comes where the file asks for
 * it, and stdout gets the completion only. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/commands.h"
#include "tools/generate.h"

#define AT(member) offsetof(ht_options, member)

static const ht_flag own_flags[] = {
    { 'p', "prompt", "TEXT", HT_FLAG_TEXT, AT(prompt), 0, 0, NULL, NULL, "the prompt" },
    { 'f', "file", "FILE", HT_FLAG_TEXT, AT(file), 0, 0, NULL, NULL,
      "the prompt is in this file or pipe, byte for byte; - is stdin" },
    { 0, "special", NULL, HT_FLAG_SWITCH, AT(special), 0, 0, NULL, NULL,
      "texts of control tokens in the prompt are those tokens (otherwise plain text)" },
    { 0, "trace", "FILE", HT_FLAG_TEXT, AT(trace), 0, 0, NULL, NULL,
      "record which experts of a mixture every token takes, for `hearth cache-sim` and `hearth bench --routing-trace`" },
    { 0 },
};

static int generate(const ht_options *o, const ht_loaded *l, hearth_session *s, const hearth_token *ids, size_t n)
{
    ht_generation g = { .begin = ht_now() - ht_since_start() };
    hearth_sampler *sampler = NULL;
    uint64_t seed;
    int status = ht_load_sampler(&sampler, l, o, &seed);
    if (status)
        return status;
    status = ht_generation_run(&g, o, s, sampler, ids, n, &o->stops);
    if (!status) {
        if (o->json)
            status = ht_generation_report(&g, l, seed);
        else if (isatty(STDOUT_FILENO) && g.n_text && g.text[g.n_text - 1] != '\n')
            putchar('\n'); /* the shell's next prompt starts its own line */
        status = ht_stdout_done(status);
        if (isatty(STDERR_FILENO) || o->verbose)
            ht_generation_say(&g, l);
        if (g.why == HEARTH_STOP_CONTEXT)
            ht_say("the context of %u tokens is full; --ctx N makes it longer", hearth_session_context(s));
        if (!status && g.why == HEARTH_STOP_CANCEL)
            status = HT_EXIT_INTERRUPTED;
    }
    ht_generation_free(&g);
    hearth_sampler_close(&sampler);
    return status;
}

static int run(const ht_options *o)
{
    ht_load_how how = { .precision = HEARTH_PRECISION_FAST };
    ht_loaded l = { 0 };
    hearth_session *s = NULL;
    hearth_token *ids = NULL;
    hearth_error err = { 0 };
    hearth_routes *routes = NULL;
    size_t n_text = 0, n = 0;
    char *text = NULL;
    bool given;

    int status = ht_load_prompt(o, &text, &n_text, &given);
    if (status)
        return status;
    ht_interrupt_arm(true);
    if ((status = ht_load_check_output("--trace", o->trace, (const char *const[]){ o->positional[0], o->file }, 2)) ||
        (status = ht_load_model(&l, NULL, o, &how)))
        goto done;
    if (o->trace && hearth_routes_open(&routes, l.model, &err) != HEARTH_OK) {
        status = ht_usage_error("--trace: %s", err.text);
        goto done;
    }
    const char *prompt = text;
    if (!given) {
        prompt = l.info.demo_prompt;
        if (!prompt) {
            status = ht_usage_error("run needs a prompt: -p TEXT, -f FILE or - for stdin");
            goto done;
        }
        n_text = strlen(prompt);
        ht_say("no prompt given, so the model's own is used: %s", prompt);
    }
    if (hearth_tokenize(l.model, prompt, n_text, true, o->special, &ids, &n, &err) != HEARTH_OK) {
        status = ht_call_failed(&err, false);
        goto done;
    }
    if (!n) {
        status = ht_usage_error("the prompt is empty, and this model has no token that begins a text");
        goto done;
    }
    if ((status = ht_load_session(&s, &l, o, 0)))
        goto done;
    if (routes)
        hearth_routes_record(routes, s);
    status = generate(o, &l, s, ids, n);
    if (routes && (!status || status == HT_EXIT_INTERRUPTED) && hearth_routes_write(routes, o->trace, &err) != HEARTH_OK)
        status = ht_call_failed(&err, false);
done:
    hearth_session_close(&s);
    hearth_routes_close(&routes);
    hearth_free(ids);
    ht_load_close(&l);
    free(text);
    return status;
}

const ht_command ht_command_run = {
    .name = "run",
    .arguments = "[MODEL] -p TEXT | -f FILE | -",
    .summary = "complete a prompt (no chat template), streaming",
    .text =
        "The prompt is taken as it is, byte for byte, and BOS is put before it where the model asks for that. Only the "
        "completion goes to stdout. Without a prompt the model's own demonstration prompt is used, where it has one. "
        "Ctrl-C "
        "ends the generation and keeps what was made (exit status 130). On a terminal a last line on stderr tells the "
        "speed.",
    .max_positional = 1,
    .takes_stdin = true,
    .tables = { own_flags, ht_flags_sampling, ht_flags_model, ht_flags_talk },
    .run = run,
};
