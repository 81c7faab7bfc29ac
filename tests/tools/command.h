/* SPDX-License-Identifier: MIT
 *
 * Runs the hearth command that was just built, as a user's shell would, and keeps what it wrote and how it ended. */
#ifndef HT_TEST_COMMAND_H
#define HT_TEST_COMMAND_H

#include <stdbool.h>
#include <stddef.h>

#include <cjson/cJSON.h>

typedef struct outcome {
    int status;  /* exit status; 1000 + signal where one ended it; -1 where it hung and was killed */
    char *out, *err; /* zero-terminated */
    size_t n_out, n_err;
} outcome;

/* What a run gets besides its arguments; zero is nothing. */
typedef struct circumstances {
    const char *input; /* bytes for stdin; NULL: /dev/null */
    size_t n_input;
    size_t interrupt_after; /* sends SIGINT once so many bytes came on stdout; 0: never */
    size_t close_after;     /* closes our end of stdout once so many bytes came; 0: never */
    const char *program;    /* NULL: HEARTH_BIN */
    const char *stdout_to;  /* a file in place of the pipe */
} circumstances;

/* Arguments end with NULL. The caller frees with outcome_free. */
outcome command_run_v(const circumstances *c, const char *const *args);
#define command_run(...) command_run_v(&(circumstances){ 0 }, (const char *const[]){ __VA_ARGS__, NULL })
#define command_run_with(c, ...) command_run_v((c), (const char *const[]){ __VA_ARGS__, NULL })
void outcome_free(outcome *o);

/* stdout as JSON; fails the test where it is none. cJSON_Delete. */
cJSON *outcome_json(const outcome *o);
/* A member that has to be a number. */
double json_number(const cJSON *j, const char *name);

/* Skips the test, saying so, where the model that ships is not there; else its path (static). */
const char *shipped_model(void);

/* Path of a new file in a folder of this test process; the content is written where it is not NULL. Static buffers,
 * four. */
const char *scratch_file(const char *name, const void *content, size_t n);
char *read_whole(const char *path, size_t *n);

#endif
