/* SPDX-License-Identifier: MIT
 * Messages, progress, Ctrl-C and clocks of the command; see console.h. */
#include "tools/console.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static struct {
    bool quiet, verbose, terminal;
    FILE *log;
    double process_start;
    double progress_start, progress_shown; /* of the line being drawn; 0: none */
    char progress_what[40];
    bool stdout_told; /* that stdout could not be written */
} console;

/* What the signal handler touches. */
static _Atomic(hearth_session *) running;
static atomic_int interrupts;
static atomic_bool armed; /* something looks at `interrupts` */

/* ---- Time ---- */

double ht_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Linux tells a process's start in ticks of 10 ms since boot, which bounds it from both sides; the processor time
 * used so far bounds it once more, and is nearly all of it when nothing had to be read from disk. A tick that is
 * long ago means that something else ran in this process before exec: then only the processor time is believed. */
static void note_start(void)
{
    struct timespec boot, cpu;
    double now = ht_now(), used = 0, tick = 0;
    if (!clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu))
        used = (double)cpu.tv_sec + 1e-9 * (double)cpu.tv_nsec;
    if (used > 1)
        used = 0;
    console.process_start = now - used;
    FILE *f = fopen("/proc/self/stat", "r");
    if (!f)
        return;
    char line[1024];
    size_t n = fread(line, 1, sizeof line - 1, f);
    fclose(f);
    line[n] = 0;
    char *p = strrchr(line, ')'); /* the name before it may hold anything */
    int field = 2;
    for (; p && *p && field < 22; p++)
        field += *p == ' ';
    if (field == 22 && !clock_gettime(CLOCK_BOOTTIME, &boot)) {
        double hz = (double)sysconf(_SC_CLK_TCK);
        tick = ((double)strtoull(p, NULL, 10) + 1) / hz;
        double ago = (double)boot.tv_sec + 1e-9 * (double)boot.tv_nsec - tick;
        if (ago > used && ago < 0.5)
            console.process_start = now - ago;
    }
}

/* A file that takes the place of a closed stdout would get the results, and one in stderr's the messages. What
 * stands there now fails as the closed one would have: it can be written but not read, or read but not written. */
static void fill_streams(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
            open("/dev/null", fd == STDOUT_FILENO ? O_RDONLY : O_WRONLY); /* the lowest free number is this one */
}

static void on_interrupt(int sig);

void ht_console_start(void)
{
    struct sigaction a;
    note_start();
    fill_streams();
    memset(&a, 0, sizeof a);
    a.sa_handler = on_interrupt;
    sigemptyset(&a.sa_mask);
    sigaction(SIGINT, &a, NULL);
}

double ht_since_start(void)
{
    return ht_now() - console.process_start;
}

/* ---- Messages ---- */

size_t ht_utf8_character(const char *text, size_t n)
{
    static const uint32_t least[5] = { 0, 0, 0x80, 0x800, 0x10000 };
    const unsigned char *p = (const unsigned char *)text;
    if (p[0] < 0x80)
        return 1;
    size_t len = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : p[0] >= 0xc0 ? 2 : 0;
    if (!len || len > n)
        return 0;
    uint32_t c = p[0] & (0xffu >> (len + 1));
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (p[i] & 0x3f);
    }
    return c < least[len] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? 0 : len;
}

size_t ht_shown_character(const char *p, size_t n, bool *shown)
{
    size_t len = ht_utf8_character(p, n);
    unsigned char c = (unsigned char)p[0], next = len == 2 ? (unsigned char)p[1] : 0;
    *shown = len && !(c < 0x20 || c == 0x7f || (c == 0xc2 && next < 0xa0));
    return len ? len : 1;
}

/* Names and values in a message come from files and from the command line. */
static void mask(char *text)
{
    char *to = text;
    for (size_t i = 0, n = strlen(text); i < n;) {
        bool shown;
        size_t len = ht_shown_character(text + i, n - i, &shown);
        if (shown) {
            memmove(to, text + i, len);
            to += len;
        } else {
            *to++ = '?';
        }
        i += len;
    }
    *to = 0;
}

int ht_console_open(const ht_options *o)
{
    console.quiet = o->quiet;
    console.verbose = o->verbose && !o->quiet;
    console.terminal = isatty(STDERR_FILENO);
    if (o->log && !(console.log = fopen(o->log, "a"))) {
        ht_complain("cannot write the log %s", o->log);
        return HT_EXIT_FAILED;
    }
    return HT_EXIT_OK;
}

void ht_console_close(void)
{
    ht_console_progress_end();
    if (console.log)
        fclose(console.log);
    console.log = NULL;
}

static void tell(bool shown, const char *fmt, va_list ap)
{
    char text[1200];
    if (!shown && !console.log)
        return;
    vsnprintf(text, sizeof text, fmt, ap);
    mask(text);
    if (shown) {
        ht_console_progress_end();
        fprintf(stderr, "hearth: %s\n", text);
    }
    if (console.log) {
        fprintf(console.log, "%10.3f %s\n", ht_since_start(), text);
        if (fflush(console.log) || ferror(console.log)) {
            fclose(console.log);
            console.log = NULL;
            ht_complain("the log could not be written: it ends here");
        }
    }
}

void ht_say(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    tell(!console.quiet, fmt, ap);
    va_end(ap);
}

void ht_detail(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    tell(console.verbose, fmt, ap);
    va_end(ap);
}

void ht_complain(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    tell(true, fmt, ap);
    va_end(ap);
}

int ht_usage_error(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    tell(true, fmt, ap);
    va_end(ap);
    return HT_EXIT_USAGE;
}

int ht_call_failed(const hearth_error *err, bool at_open)
{
    if (err->status == HEARTH_ECANCELLED && ht_interrupted())
        return HT_EXIT_INTERRUPTED;
    ht_complain("%s", err->text[0] ? err->text : hearth_status_text(err->status));
    switch (err->status) {
    case HEARTH_EINVAL: return HT_EXIT_USAGE;
    case HEARTH_EFORMAT: return at_open ? HT_EXIT_MODEL : HT_EXIT_FAILED;
    case HEARTH_EUNSUPPORTED: return at_open ? HT_EXIT_MODEL : HT_EXIT_FAILED;
    default: return HT_EXIT_FAILED;
    }
}

int ht_stdout_done(int status)
{
    if (fflush(stdout) || ferror(stdout)) {
        if (!console.stdout_told)
            ht_complain("stdout could not be written");
        console.stdout_told = true;
        return status ? status : HT_EXIT_FAILED;
    }
    return status;
}

void ht_console_log(void *user, hearth_log_level level, const char *sentence)
{
    (void)user;
    if (level == HEARTH_LOG_WARN)
        ht_say("%s", sentence);
    else
        ht_detail("%s", sentence);
}

/* ---- Progress ---- */

void ht_console_progress_end(void)
{
    if (console.progress_shown > 0)
        fputs("\r\033[K", stderr);
    console.progress_start = console.progress_shown = 0;
}

bool ht_console_progress(void *user, const char *what, uint64_t done, uint64_t total)
{
    (void)user;
    bool go_on = !ht_interrupted();
    if (!console.terminal || console.quiet || !total)
        return go_on;
    double now = ht_now();
    if (console.progress_start <= 0 || strncmp(console.progress_what, what, sizeof console.progress_what - 1)) {
        ht_console_progress_end();
        console.progress_start = now;
        snprintf(console.progress_what, sizeof console.progress_what, "%s", what);
    }
    double spent = now - console.progress_start;
    if (done >= total) {
        ht_console_progress_end();
    } else if (spent > 0.5 && now - console.progress_shown > 0.1 && done) {
        double share = (double)done / (double)total, left = spent / share - spent;
        char bar[21];
        for (int i = 0; i < 20; i++)
            bar[i] = i < (int)(share * 20) ? '#' : '.';
        bar[20] = 0;
        fprintf(stderr, "\r\033[K%s [%s] %3.0f %%, ", what, bar, 100 * share);
        if (left >= 90)
            fprintf(stderr, "%.0f min left", left / 60);
        else
            fprintf(stderr, "%.0f s left", left);
        fflush(stderr);
        console.progress_shown = now;
    }
    return go_on;
}

/* ---- Interruption ---- */

static void on_interrupt(int sig)
{
    (void)sig;
    if (atomic_fetch_add(&interrupts, 1) > 0 || !atomic_load(&armed))
        _exit(HT_EXIT_INTERRUPTED);
    hearth_session *s = atomic_load(&running);
    if (s)
        hearth_session_cancel(s);
}

void ht_interrupt_arm(bool restart)
{
    struct sigaction a;
    memset(&a, 0, sizeof a);
    a.sa_handler = on_interrupt;
    a.sa_flags = restart ? SA_RESTART : 0;
    sigemptyset(&a.sa_mask);
    atomic_store(&armed, true);
    sigaction(SIGINT, &a, NULL);
    if (restart) /* not where Ctrl-C only ends a reply */
        sigaction(SIGTERM, &a, NULL);
}

void ht_interrupt_session(hearth_session *s)
{
    atomic_store(&running, s);
    /* Ctrl-C may have come between the flag's last test and now. */
    if (s && ht_interrupted())
        hearth_session_cancel(s);
}

bool ht_interrupted(void)
{
    return atomic_load(&interrupts) > 0;
}

void ht_interrupt_forget(void)
{
    atomic_store(&interrupts, 0);
}
