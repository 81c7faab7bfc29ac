/* SPDX-License-Identifier: MIT
 *
 * hearth, the command: the table of commands, their help, and the way from argv into one of them. Each command lives
 * in a file of its own and uses the library through its two public headers only. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tools/commands.h"
#include "tools/console.h"
#ifdef HEARTH_HAVE_SYNTH
#include "tools/synth.h"

static const ht_command command_synth = {
    .name = "synth",
    .arguments = "SHAPE OUT.gguf --type T",
    .summary = "write a model with random weights of a known shape",
    .text = hearth_synth_help,
    .run_raw = hearth_cmd_synth,
};
#endif

static const ht_command *const commands[] = {
    &ht_command_run,      &ht_command_chat,     &ht_command_bench,      &ht_command_profile, &ht_command_perplexity,
    &ht_command_logits,   &ht_command_tokenize, &ht_command_detokenize, &ht_command_template, &ht_command_inspect,
    &ht_command_quantize,
#ifdef HEARTH_HAVE_SYNTH
    &command_synth,
#endif
    &ht_command_plan,      &ht_command_cache_sim, &ht_command_hardware,
};

enum { N_COMMANDS = sizeof commands / sizeof *commands };

/* Commands of later versions: refused by name, not guessed at. */
static const char *const later[] = { "serve", "convert" };

static const ht_command *find(const char *name)
{
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (!strcmp(commands[i]->name, name))
            return commands[i];
    return NULL;
}

static int no_such_command(const char *name)
{
    const char *names[N_COMMANDS + 2];
    for (size_t i = 0; i < sizeof later / sizeof *later; i++)
        if (!strcmp(later[i], name))
            return ht_usage_error("the command %s is not in this version", name);
    for (size_t i = 0; i < N_COMMANDS; i++)
        names[i] = commands[i]->name;
    names[N_COMMANDS] = "help";
    names[N_COMMANDS + 1] = "version";
    const char *near = ht_options_nearest(name, names, N_COMMANDS + 2);
    if (near)
        return ht_usage_error("there is no command %.80s; did you mean %s?", name, near);
    return ht_usage_error("there is no command %.80s; see: hearth help", name);
}

static void overview(FILE *to)
{
    fputs("hearth runs language models (GGUF files) on this machine.\n\nusage: hearth COMMAND [MODEL] [FLAGS]\n\n", to);
    for (size_t i = 0; i < N_COMMANDS; i++)
        fprintf(to, "  %-12s %s\n", commands[i]->name, commands[i]->summary);
    fprintf(to, "  %-12s %s\n  %-12s %s\n", "help", "this page, or every flag of a command: hearth help COMMAND",
            "version", "the version");
    fputs(
        "\nMODEL is the path of a GGUF file (of a split set, the first); left out, it is the small model that ships.\n"
        "Results go to stdout, everything else to stderr. Sizes are bytes, K/M/G = 1024^n.\n"
        "Exit status: 0 done, 1 failed at run time, 2 wrong usage, 3 the model file is not usable, 130 interrupted.\n",
        to);
}

static int help(const char *name)
{
    if (!name) {
        overview(stdout);
        return ht_stdout_done(HT_EXIT_OK);
    }
    if (!strcmp(name, "help") || !strcmp(name, "version")) {
        printf("usage: hearth %s\n", strcmp(name, "help") ? "version" : "help [COMMAND]");
        return ht_stdout_done(HT_EXIT_OK);
    }
    const ht_command *c = find(name);
    if (!c)
        return no_such_command(name);
    if (c->run_raw) {
        fputs(c->text, stdout);
        return ht_stdout_done(HT_EXIT_OK);
    }
    printf("usage: hearth %s %s\n\n%s\n", c->name, c->arguments, c->summary);
    if (c->text) {
        putchar('\n');
        ht_options_paragraph(c->text);
    }
    ht_options_help(c);
    return ht_stdout_done(HT_EXIT_OK);
}

int main(int argc, char **argv)
{
    char why[300];
    ht_options o;
    ht_console_start();
    if (argc < 2) {
        overview(stderr);
        return HT_EXIT_USAGE;
    }
    const char *name = argv[1];
    if (!strcmp(name, "help") || !strcmp(name, "--help") || !strcmp(name, "-h"))
        return help(argc > 2 ? argv[2] : NULL);
    if (!strcmp(name, "version") || !strcmp(name, "--version")) {
        printf("hearth %s\n", hearth_version());
        return ht_stdout_done(HT_EXIT_OK);
    }
    const ht_command *c = find(name);
    if (!c)
        return no_such_command(name);
    if (c->run_raw) {
        bool asked = argc > 2 && (!strcmp(argv[2], "--help") || !strcmp(argv[2], "-h"));
        return asked ? help(name) : c->run_raw(argc - 1, argv + 1);
    }
    if (!ht_options_parse(c, argc - 1, argv + 1, &o, why, sizeof why))
        return ht_usage_error("%s", why);
    if (o.help)
        return help(name);
    int status = ht_console_open(&o);
    if (!status)
        status = c->run(&o);
    ht_console_close();
    return status;
}
