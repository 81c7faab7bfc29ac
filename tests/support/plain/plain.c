/* SPDX-License-Identifier: MIT
 *
 * Runs tests without Criterion: see criterion/criterion.h. The options that tools/run-tests uses are understood:
 * --filter SUITE/NAME (wildcards, @(a|b)), --tap=FILE, --timeout SECONDS; others are ignored.
 *
 * Threads: none here; tests may start their own, each in its child process. */
#include <fnmatch.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "criterion/criterion.h"

enum { EXIT_SKIP = 77 };

static plain_test *tests, **last = &tests;
static bool failed; /* in the child: an expectation did not hold */

void plain_add(plain_test *t)
{
    *last = t;
    last = &t->next;
}

static void say(const char *fmt, va_list ap)
{
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
}

void plain_fail(bool fatal, const char *file, int line, const char *what, const char *fmt, ...)
{
    va_list ap;
    fprintf(stderr, "%s:%d: %s:", file, line, what);
    va_start(ap, fmt);
    say(fmt, ap);
    va_end(ap);
    failed = true;
    if (fatal)
        exit(1);
}

void plain_skip(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    say(fmt, ap);
    va_end(ap);
    exit(EXIT_SKIP);
}

void plain_log(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    say(fmt, ap);
    va_end(ap);
}

static const plain_test *suite_of(const plain_test *t)
{
    for (const plain_test *s = tests; s; s = s->next)
        if (!s->name && strcmp(s->suite, t->suite) == 0)
            return s;
    return t;
}

/* A test in a child process of its own. */
static pid_t start(const plain_test *t, void *param, unsigned timeout)
{
    fflush(NULL);
    pid_t child = fork();
    if (child != 0)
        return child;
    const plain_test *s = suite_of(t);
    void (*init)(void) = t->init ? t->init : s->init, (*fini)(void) = t->fini ? t->fini : s->fini;
    alarm(timeout);
    if (init)
        init();
    if (t->run)
        t->run();
    else
        t->run_with(param);
    if (fini)
        fini();
    exit(failed ? 1 : 0);
}

/* The tests that run now: as many as there are processors, like Criterion. */
enum { MOST = 64 };
static struct {
    pid_t child;
    const plain_test *t;
} running[MOST];
static unsigned n_running, passed, bad;
static FILE *tap;

static void count(const plain_test *t, int status)
{
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    bool ok = code == 0 || code == EXIT_SKIP;
    if (tap)
        fprintf(tap, "%s - %s::%s%s\n", ok ? "ok" : "not ok", t->suite, t->name, code == EXIT_SKIP ? " # SKIP" : "");
    if (!ok)
        fprintf(stderr, "%s::%s: exit status %d\n", t->suite, t->name, code);
    *(ok ? &passed : &bad) += 1;
}

/* Waits until one of the children has ended. */
static void reap(void)
{
    int status = 0;
    pid_t child = wait(&status);
    for (unsigned i = 0; i < n_running; i++)
        if (running[i].child == child || child < 0) {
            count(running[i].t, child < 0 ? 1 << 8 : status);
            running[i] = running[--n_running];
            return;
        }
}

int main(int argc, char **argv)
{
    const char *filter = "*";
    unsigned timeout = 600;
    long jobs = sysconf(_SC_NPROCESSORS_ONLN);

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--filter") == 0 && i + 1 < argc)
            filter = argv[++i];
        else if (strcmp(argv[i], "--timeout") == 0 && i + 1 < argc)
            timeout = (unsigned)strtoul(argv[++i], NULL, 10);
        else if (strncmp(argv[i], "--tap=", 6) == 0)
            tap = fopen(argv[i] + 6, "w");
    }
    for (const plain_test *t = tests; t; t = t->next) {
        char full[256];
        if (!t->name || t->disabled)
            continue;
        snprintf(full, sizeof full, "%s/%s", t->suite, t->name);
        if (fnmatch(filter, full, FNM_EXTMATCH) != 0)
            continue;
        plain_params p = t->params ? t->params() : (plain_params){ 0, NULL, 1 };
        for (size_t i = 0; i < p.n; i++) {
            while (n_running && (n_running >= MOST || (long)n_running >= jobs))
                reap();
            pid_t child = start(t, (char *)p.data + i * p.size, timeout);
            if (child < 0) {
                count(t, 1 << 8);
                continue;
            }
            running[n_running].child = child;
            running[n_running++].t = t;
        }
    }
    while (n_running)
        reap();
    if (tap)
        fclose(tap);
    fprintf(stderr, "%u passed, %u failed\n", passed, bad);
    return bad != 0;
}
