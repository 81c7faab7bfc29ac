/* SPDX-License-Identifier: MIT
 * The command in an odd shell: standard streams that are closed, Ctrl-C before there is anything to save, names with
 * control characters. */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/tools/command.h"

/* Runs `"$0" <line>` in sh, $0 being the command and $1 a file. */
static outcome in_shell(const char *line, const char *file)
{
    circumstances c = { .program = "/bin/sh" };
    char text[400];
    snprintf(text, sizeof text, "exec \"$0\" %s", line);
    return command_run_with(&c, "-c", text, HEARTH_BIN, file);
}

Test(streams, closed_stdin_is_not_the_model)
{
    shipped_model();
    outcome o = in_shell("tokenize - <&-", NULL);
    cr_assert_eq(o.status, 1, "status %d", o.status);
    cr_assert(strstr(o.err, "stdin"), "%s", o.err);
    outcome_free(&o);
    o = in_shell("chat -n 2 <&-", NULL); /* once it took the model file, opened as 0, for what was typed */
    cr_assert_eq(o.n_out, 0);
    cr_assert_null(strstr(o.err, "context"), "%s", o.err);
    outcome_free(&o);
}

Test(streams, what_was_to_go_to_closed_ones_is_in_no_file)
{
    shipped_model();
    const char *plain = scratch_file("plain.npy", NULL, 0), *closed = scratch_file("closed.npy", NULL, 0);
    outcome o = in_shell("logits --tokens 5,6 -o \"$1\"", plain);
    cr_assert_eq(o.status, 0, "%s", o.err);
    outcome_free(&o);
    o = in_shell("logits --tokens 5,6 --json --verbose -o \"$1\" >&- 2>&-", closed);
    cr_assert_eq(o.status, 1, "status %d", o.status); /* the JSON could not be written */
    size_t n, m;
    char *a = read_whole(plain, &n), *b = read_whole(closed, &m);
    cr_assert_eq(n, m);
    cr_assert_eq(memcmp(a, b, n), 0);
    free(a);
    free(b);
    outcome_free(&o);
}

Test(streams, a_full_disk_is_told_once)
{
    shipped_model();
    circumstances c = { .stdout_to = "/dev/full" };
    outcome o = command_run_with(&c, "run", "-p", "Once", "-n", "2", "--json");
    cr_assert_eq(o.status, 1);
    const char *first = strstr(o.err, "stdout");
    cr_assert(first && !strstr(first + 1, "stdout"), "%s", o.err);
    outcome_free(&o);
}

Test(interrupt, waiting_for_input_ends_with_130)
{
    int input[2], status = 0;
    cr_assert_eq(pipe(input), 0);
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (!pid) {
        dup2(input[0], STDIN_FILENO);
        close(input[0]);
        close(input[1]);
        execl(HEARTH_BIN, "hearth", "tokenize", "-", (char *)NULL);
        _exit(99);
    }
    close(input[0]);
    nanosleep(&(struct timespec){ .tv_nsec = 500000000 }, NULL);
    kill(pid, SIGINT);
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    close(input[1]);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 130, "status %x", (unsigned)status);
}

Test(terminal, no_command_to_it_in_messages)
{
    static const char *const lines[][3] = {
        { "run", "--temp", "\x1b[31m" },
        { "ru\x1b[31m", NULL, NULL },
        { "run", "--no\x1b[31m", NULL },
        { "inspect",
          "\xc2\x9b"
          "31m",
          NULL },
        { "inspect",
          "\x9b"
          "31m\r",
          NULL },
        { "inspect", "--tensor", "a\nb\x07" },
        { "synth", "\x1b]0;x\x07", "o.gguf" },
        { "help", "\x1b[2J", NULL },
    };
    shipped_model();
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        outcome o =
            command_run_v(&(circumstances){ 0 }, (const char *const[]){ lines[i][0], lines[i][1], lines[i][2], NULL });
        cr_assert_neq(o.status, 0);
        cr_assert_gt(o.n_err, 0);
        for (size_t k = 0; k < o.n_err; k++) {
            unsigned char c = (unsigned char)o.err[k];
            bool last = k + 1 == o.n_err;
            cr_assert((c >= 0x20 && c < 0x7f) || (last && c == '\n'), "line %zu: byte %02x in %s", i, c, o.err);
        }
        outcome_free(&o);
    }
    /* What is meant to be read stays as it is. */
    outcome o = command_run("inspect", "/nowhere/h\xc3\xa9 \xe6\x97\xa5.gguf");
    cr_assert(strstr(o.err, "h\xc3\xa9 \xe6\x97\xa5.gguf"), "%s", o.err);
    outcome_free(&o);
}
