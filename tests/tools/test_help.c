/* SPDX-License-Identifier: MIT
 * What a user is told: help, versions, refusals, suggestions, and the exit status 2 that goes with wrong usage. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "tests/tools/command.h"

static const char *const built[] = { "run",        "chat",    "bench", "perplexity", "logits", "tokenize",
                                     "detokenize", "inspect", "synth", "hardware",   "help",   "version",
                                     "profile",    "quantize", "cache-sim", "plan", "template" };
static const char *const later[] = { "serve", "convert" };

#define COUNT(a) (sizeof(a) / sizeof *(a))

/* Whether a line of text begins with two spaces and the word. */
static bool lists(const char *text, const char *word)
{
    char start[40];
    snprintf(start, sizeof start, "\n  %s ", word);
    return strstr(text, start);
}

static void refused(const char *const *args, const char *name)
{
    outcome o = command_run_v(&(circumstances){ 0 }, args);
    cr_assert_eq(o.status, 2, "%s %s: status %d", args[0], args[1] ? args[1] : "", o.status);
    cr_assert_eq(o.n_out, 0, "stdout has: %s", o.out);
    cr_assert(strstr(o.err, name), "'%s' is not named in: %s", name, o.err);
    outcome_free(&o);
}

#define REFUSED(name, ...) refused((const char *const[]){ __VA_ARGS__, NULL }, name)

Test(help, lists_what_is_built_and_nothing_else)
{
    outcome o = command_run("help");
    cr_assert_eq(o.status, 0);
    cr_assert_eq(o.n_err, 0);
    for (size_t i = 0; i < COUNT(built); i++)
        cr_assert(lists(o.out, built[i]), "%s is missing", built[i]);
    for (size_t i = 0; i < COUNT(later); i++)
        cr_assert_not(lists(o.out, later[i]), "%s is listed", later[i]);
    outcome_free(&o);
}

Test(help, every_command_has_a_page)
{
    for (size_t i = 0; i < COUNT(built); i++) {
        outcome o = command_run("help", built[i]), h = command_run(built[i], "--help");
        cr_assert_eq(o.status, 0, "%s", built[i]);
        cr_assert(strstr(o.out, built[i]));
        if (strcmp(built[i], "help") && strcmp(built[i], "version")) {
            cr_assert_eq(h.status, 0, "%s --help", built[i]);
            cr_assert_str_eq(o.out, h.out);
        }
        outcome_free(&o);
        outcome_free(&h);
    }
}

Test(help, every_shared_flag_is_documented)
{
    static const char *const flags[] = {
        "--threads", "--device",   "--vram",     "--ram",   "--precision", "--deterministic",
        "--io",      "--sparsity", "--override", "--isa",   "--ctx",       "--kv-type",
        "-n N",      "--temp",     "--top-k",    "--top-p", "--min-p",     "--repeat-penalty",
        "--seed",    "--stop",     "--json",     "--quiet", "--verbose",   "--log",
        "--batch",   "--prefetch", "--on-miss",  "--route-bias"
    };
    static const char *const commands[] = { "run", "chat", "bench", "perplexity", "logits" };
    for (size_t c = 0; c < COUNT(commands); c++) {
        outcome o = command_run("help", commands[c]);
        for (size_t i = 0; i < COUNT(flags); i++) {
            bool own = !strcmp(commands[c], "bench") && flags[i][1] == 'n'; /* a list there */
            cr_assert(own || strstr(o.out, flags[i]) || !strcmp(flags[i], "-n N"), "%s does not document %s",
                      commands[c], flags[i]);
        }
        cr_assert_not(strstr(o.out, "cuda"));
        outcome_free(&o);
    }
}

Test(help, version)
{
    outcome o = command_run("version"), p = command_run("--version");
    cr_assert_eq(o.status, 0);
    cr_assert(!strncmp(o.out, "hearth ", 7));
    cr_assert_str_eq(o.out, p.out);
    outcome_free(&o);
    outcome_free(&p);
}

Test(help, nothing_typed_is_wrong_usage)
{
    outcome o = command_run_v(&(circumstances){ 0 }, (const char *const[]){ NULL });
    cr_assert_eq(o.status, 2);
    cr_assert_eq(o.n_out, 0);
    cr_assert(strstr(o.err, "usage: hearth"));
    outcome_free(&o);
}

Test(refusals, commands_of_later_versions)
{
    for (size_t i = 0; i < COUNT(later); i++) {
        REFUSED(later[i], later[i]);
        REFUSED(later[i], "help", later[i]);
    }
}

Test(refusals, unknown_commands_with_a_suggestion)
{
    REFUSED("inspect", "inspct");
    REFUSED("perplexity", "perp");
    REFUSED("tokenize", "tokenise");
    REFUSED("hearth help", "xyzzy");
}

Test(refusals, unknown_flags_with_a_suggestion)
{
    REFUSED("--threads", "run", "--thread", "2", "-p", "x");
    REFUSED("--temp", "run", "--temperature", "0", "-p", "x");
    REFUSED("--repeat-penalty", "chat", "--repeat-penalti", "1");
    REFUSED("hearth help run", "run", "--zzzzzz");
    REFUSED("-q", "run", "-q");
}

Test(refusals, values_of_later_versions_by_name)
{
    REFUSED("cuda", "run", "--device", "cuda", "-p", "x");
    REFUSED("cuda:1", "run", "--device", "cuda:1", "-p", "x");
    REFUSED("opencl", "bench", "--device=opencl");
}

Test(refusals, values_that_make_no_sense)
{
    REFUSED("--threads", "run", "--threads", "0", "-p", "x");
    REFUSED("--threads", "run", "--threads", "two", "-p", "x");
    REFUSED("--ram", "run", "--ram", "5X", "-p", "x");
    REFUSED("--ram", "run", "--ram", "-1", "-p", "x");
    REFUSED("--sparsity", "run", "--sparsity", "maybe", "-p", "x");
    REFUSED("--io", "run", "--io", "tape", "-p", "x");
    REFUSED("--prefetch", "run", "--prefetch", "maybe", "-p", "x");
    REFUSED("--on-miss", "run", "--on-miss", "guess", "-p", "x");
    REFUSED("--on-miss", "run", "--on-miss", "wait:1", "-p", "x");
    REFUSED("--on-miss", "run", "--on-miss", "low:q9", "-p", "x");
    REFUSED("--on-miss", "run", "--on-miss", "skip:", "-p", "x");
    REFUSED("--on-miss", "run", "--on-miss", "skip:1.5", "-p", "x");
    REFUSED("--route-bias", "run", "--route-bias", "-1", "-p", "x");
    REFUSED("no value", "run", "--override", "llama.context_length=abc", "-p", "x");
    REFUSED("bogus", "run", "--override", "llama.hidden_activation=bogus", "-p", "x");
    REFUSED("fatrelu:x", "logits", "--override", "llama.hidden_activation=fatrelu:x", "--tokens", "1", "-o", "/dev/null");
    REFUSED("KEY=VALUE", "run", "--override", "llama.context_length", "-p", "x");
    REFUSED("--kv-type", "run", "--kv-type", "f8", "-p", "x");
    REFUSED("--precision", "run", "--precision", "f64", "-p", "x");
    REFUSED("--top-p", "run", "--top-p", "1.5", "-p", "x");
    REFUSED("--temp", "run", "--temp", "nan", "-p", "x");
    REFUSED("-n", "run", "-n", "1.5", "-p", "x");
    REFUSED("--ctx", "run", "--ctx", "0", "-p", "x");
    REFUSED("-p", "run", "-p");
    REFUSED("--json", "run", "--json=yes", "-p", "x");
    REFUSED("-p", "bench", "-p", "512,");
    REFUSED("--threads", "bench", "--threads", "0");
    REFUSED("one more", "run", "a.gguf", "b.gguf", "-p", "x");
    REFUSED("exclude", "tokenize", "-p", "x", "-f", "y");
    REFUSED("--tokens", "logits", "-o", "x.npy");
    REFUSED("--tokens", "logits", "--tokens", "1,-2", "-o", "/dev/null");
    REFUSED("--tensor", "inspect", "-o", "x.npy");
    REFUSED("-p", "tokenize");
    REFUSED("-o", "profile", "--pack", "-p", "x");
}
