/* SPDX-License-Identifier: MIT
 *
 * What a command shares with the person in front of it: messages, progress, interruption, time, exit status.
 *
 * Everything here goes to stderr or the --log file; stdout belongs to results. The state behind it is the process's own
 * (signal handlers need that), set up once by ht_console_open. Threads: the main thread, except the signal handler. */
#ifndef HT_TOOLS_CONSOLE_H
#define HT_TOOLS_CONSOLE_H

#include "engine/hearth.h"
#include "tools/options.h"

enum { HT_EXIT_OK = 0, HT_EXIT_FAILED = 1, HT_EXIT_USAGE = 2, HT_EXIT_MODEL = 3, HT_EXIT_INTERRUPTED = 130 };

/* Notes when the process started, fills the places of standard streams that were closed, so that no file opened
 * later is taken for one, and lets Ctrl-C end the process with its exit status; the first thing that main does. */
void ht_console_start(void);
/* Takes --quiet, --verbose and --log; returns an exit status. */
int ht_console_open(const ht_options *o);
void ht_console_close(void);

/* One line each: shown unless --quiet; shown with --verbose; always shown. All of them go to the log. */
void ht_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void ht_detail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void ht_complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Length of the UTF-8 character at p, 0 where there is none (overlong forms and surrogates are none); n > 0. */
size_t ht_utf8_character(const char *text, size_t n);
/* The same, and whether a terminal would show it: control characters, of eight bits too, are commands to one. */
size_t ht_shown_character(const char *p, size_t n, bool *shown);

/* Complains and returns HT_EXIT_USAGE. */
int ht_usage_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Complains of a failed call and returns the exit status for it; at_open: the call opened a model or file, so that
 * damage and lack of support mean that the file is not usable. */
int ht_call_failed(const hearth_error *err, bool at_open);

/* Flushes stdout and complains where it could not take everything; returns status, or 1. */
int ht_stdout_done(int status);

/* A hearth_progress_fn and a hearth_log_fn; progress shows only on a terminal and after the first half second. */
bool ht_console_progress(void *user, const char *what, uint64_t done, uint64_t total);
void ht_console_log(void *user, hearth_log_level level, const char *sentence);
/* Wipes a progress line that is still shown. */
void ht_console_progress_end(void);

/* Ctrl-C: from now on the first one cancels the session named last and sets the flag, the second one ends the process.
 * restart: system calls go on after it (writing must not lose bytes; only waiting for a line has to end), and SIGTERM is as
 * Ctrl-C: what was begun is ended in order. */
void ht_interrupt_arm(bool restart);
void ht_interrupt_session(hearth_session *s); /* NULL before the session is closed */
bool ht_interrupted(void);
void ht_interrupt_forget(void); /* chat: the answer was stopped, go on */

double ht_now(void);           /* seconds, monotonic */
double ht_since_start(void);   /* seconds since the process started */

#endif
