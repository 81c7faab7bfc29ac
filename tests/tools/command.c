/* SPDX-License-Identifier: MIT
 * Running the command under test; see command.h. */
#include "tests/tools/command.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

enum { MAX_ARGS = 40, PATIENCE_S = 300 };

typedef struct stream {
    int fd;
    char *data;
    size_t n, room;
} stream;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Takes what is there; false at the end. */
static bool drain(stream *s)
{
    if (s->n + 65536 + 1 > s->room) {
        s->room = 2 * s->room + 2 * 65536;
        s->data = realloc(s->data, s->room);
        cr_assert_not_null(s->data);
    }
    ssize_t got = read(s->fd, s->data + s->n, 65536);
    if (got <= 0)
        return got < 0 && errno == EINTR;
    s->n += (size_t)got;
    return true;
}

static void shut(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static pid_t start(const circumstances *c, const char *const *args, int in[2], int out[2], int err[2])
{
    const char *argv[MAX_ARGS + 2] = { c->program ? c->program : HEARTH_BIN };
    for (size_t i = 0; args[i]; i++) {
        cr_assert_lt(i, MAX_ARGS);
        argv[i + 1] = args[i];
    }
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    if (c->input)
        posix_spawn_file_actions_adddup2(&actions, in[0], 0);
    else
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    if (c->stdout_to)
        posix_spawn_file_actions_addopen(&actions, 1, c->stdout_to, O_WRONLY, 0);
    else
        posix_spawn_file_actions_adddup2(&actions, out[1], 1);
    posix_spawn_file_actions_adddup2(&actions, err[1], 2);
    /* A test runner may ignore or block what a shell would not. */
    sigset_t none, defaults;
    sigemptyset(&none);
    sigemptyset(&defaults);
    sigaddset(&defaults, SIGPIPE);
    sigaddset(&defaults, SIGINT);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &defaults);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    pid_t pid;
    int failed = posix_spawn(&pid, argv[0], &actions, &attributes, (char *const *)argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    cr_assert_eq(failed, 0, "%s: %s", argv[0], strerror(failed));
    return pid;
}

outcome command_run_v(const circumstances *c, const char *const *args)
{
    int in[2], out[2], err[2];
    cr_assert(!pipe2(in, O_CLOEXEC) && !pipe2(out, O_CLOEXEC) && !pipe2(err, O_CLOEXEC));
    signal(SIGPIPE, SIG_IGN); /* the command may leave without reading its input */
    pid_t pid = start(c, args, in, out, err);
    shut(&in[0]);
    shut(&out[1]);
    shut(&err[1]);
    if (!c->input)
        shut(&in[1]);
    else
        fcntl(in[1], F_SETFL, O_NONBLOCK);

    stream o = { .fd = out[0] }, e = { .fd = err[0] };
    size_t written = 0;
    bool interrupted = false, hung = false;
    double deadline = now() + PATIENCE_S;
    while ((o.fd >= 0 || e.fd >= 0) && !hung) {
        if (in[1] >= 0 && written == c->n_input)
            shut(&in[1]);
        struct pollfd p[3] = { { o.fd, POLLIN, 0 }, { e.fd, POLLIN, 0 }, { in[1], POLLOUT, 0 } };
        int ready = poll(p, 3, 1000);
        hung = ready <= 0 && now() > deadline;
        if (ready <= 0)
            continue;
        if (p[2].revents) {
            ssize_t put = write(in[1], c->input + written, c->n_input - written);
            if (put > 0)
                written += (size_t)put;
            else if (errno != EAGAIN && errno != EINTR)
                shut(&in[1]);
        }
        if (p[0].revents && !drain(&o))
            shut(&o.fd);
        if (p[1].revents && !drain(&e))
            shut(&e.fd);
        if (c->interrupt_after && o.n >= c->interrupt_after && !interrupted) {
            interrupted = true;
            kill(pid, SIGINT);
        }
        if (c->close_after && o.n >= c->close_after)
            shut(&o.fd);
    }
    shut(&in[1]);
    shut(&o.fd);
    shut(&e.fd);
    if (hung)
        kill(pid, SIGKILL);
    int status;
    while (waitpid(pid, &status, 0) < 0)
        cr_assert_eq(errno, EINTR);
    outcome r = {
        .out = o.data ? o.data : calloc(1, 1), .err = e.data ? e.data : calloc(1, 1), .n_out = o.n, .n_err = e.n
    };
    r.out[r.n_out] = 0;
    r.err[r.n_err] = 0;
    r.status = hung ? -1 : WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
    return r;
}

void outcome_free(outcome *o)
{
    free(o->out);
    free(o->err);
    *o = (outcome){ 0 };
}

cJSON *outcome_json(const outcome *o)
{
    const char *end = NULL;
    cr_assert_eq(o->status, 0, "status %d: %s", o->status, o->err);
    cJSON *j = cJSON_ParseWithOpts(o->out, &end, false);
    cr_assert_not_null(j, "no JSON: %.300s", o->out);
    cr_assert_str_eq(end, "\n", "something follows the JSON: %.100s", end);
    return j;
}

double json_number(const cJSON *j, const char *name)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(j, name);
    cr_assert(cJSON_IsNumber(v), "%s is no number", name);
    return v->valuedouble;
}

const char *shipped_model(void)
{
    static const char path[] = HEARTH_MODEL_DIR "/hearth-story.gguf";
    if (access(path, R_OK) != 0)
        cr_skip("there is no model in models/");
    return path;
}

const char *scratch_file(const char *name, const void *content, size_t n)
{
    static char paths[4][300];
    static unsigned turn;
    char folder[100];
    char *path = paths[turn++ % 4];
    snprintf(folder, sizeof folder, "/tmp/hearth-test-%d", (int)getpid());
    mkdir(folder, 0700);
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    remove(path);
    if (content) {
        FILE *f = fopen(path, "wb");
        cr_assert_not_null(f);
        cr_assert_eq(fwrite(content, 1, n, f), n);
        fclose(f);
    }
    return path;
}

char *read_whole(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    cr_assert_not_null(f, "%s", path);
    fseek(f, 0, SEEK_END);
    long size = ftell(f);
    rewind(f);
    char *data = malloc((size_t)size + 1);
    cr_assert_not_null(data);
    cr_assert_eq(fread(data, 1, (size_t)size, f), (size_t)size);
    fclose(f);
    data[size] = 0;
    *n = (size_t)size;
    return data;
}
