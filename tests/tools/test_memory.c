/* SPDX-License-Identifier: MIT
 *
 * A model larger than the memory of its group of processes (cgroup) answers as it does with room to spare. Needs the
 * right to make a memory cgroup; skipped, saying so, where there is none. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/tools/command.h"

static bool put(const char *dir, const char *name, const char *value)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    int fd = open(path, O_WRONLY | O_CLOEXEC); /* never created: these files are the kernel's */
    if (fd < 0)
        return false;
    bool good = write(fd, value, strlen(value)) == (ssize_t)strlen(value);
    close(fd);
    return good;
}

/* A group limited to so many bytes, of either version of cgroups; false where none can be made. */
static bool make_group(char dir[128], const char *bytes)
{
    static const char *const kinds[][2] = { { "/sys/fs/cgroup/memory", "memory.limit_in_bytes" },
                                            { "/sys/fs/cgroup", "memory.max" } };
    for (size_t i = 0; i < 2; i++) {
        snprintf(dir, 128, "%s/hearth-test-%d", kinds[i][0], (int)getpid());
        if (mkdir(dir, 0755) != 0)
            continue;
        if (put(dir, kinds[i][1], bytes))
            return true;
        rmdir(dir);
    }
    return false;
}

Test(memory, file_larger_than_the_memory)
{
    enum { LIMIT = 64 << 20 };
    char group[128], script[256];
    struct stat st;
    const char *model = scratch_file("large.gguf", NULL, 0);
    static const char *const ask[] = { "run", "", "-p", "Hello", "-n", "3", "--temp", "0", "--batch", "16",
                                       "--ctx", "64", "--threads", "2", "--json", NULL };
    const char *free_args[16], *bound_args[20];

    if (HEARTH_TEST_SANITIZE[0])
        cr_skip_test("sanitizers take more memory than the group would have");
    if (!make_group(group, "67108864"))
        cr_skip_test("no memory cgroup can be made here: a file larger than the memory was not tried");
    outcome made = command_run("synth", "llama-1.1b", model, "--type", "q8_0", "--layers", "3", "--vocab", "2048");
    cr_assert_eq(made.status, 0, "%s", made.err);
    outcome_free(&made);
    cr_assert(stat(model, &st) == 0 && st.st_size > 2 * (long)LIMIT, "%lld bytes", (long long)st.st_size);

    memcpy(free_args, ask, sizeof ask);
    free_args[1] = model;
    outcome want = command_run_v(&(circumstances){ 0 }, free_args);
    cr_assert_eq(want.status, 0, "%s", want.err);

    /* Pages belong to the group that first read them: the next run must read them itself. */
    int fd = open(model, O_RDONLY | O_CLOEXEC);
    cr_assert(fd >= 0 && fsync(fd) == 0 && posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) == 0);
    close(fd);
    snprintf(script, sizeof script, "echo $$ > %s/cgroup.procs && exec \"$0\" \"$@\"", group);
    bound_args[0] = "-c";
    bound_args[1] = script;
    bound_args[2] = HEARTH_BIN;
    memcpy(bound_args + 3, free_args, sizeof free_args);
    outcome got = command_run_v(&(circumstances){ .program = "/bin/sh" }, bound_args);
    rmdir(group);
    remove(model);
    cr_assert_eq(got.status, 0, "status %d: %s", got.status, got.err);
    cJSON *a = outcome_json(&want), *b = outcome_json(&got);
    cr_expect(cJSON_Compare(cJSON_GetObjectItem(a, "tokens"), cJSON_GetObjectItem(b, "tokens"), true), "%s", got.out);
    /* Shared libraries and pages that others read first are resident, and not of the group. */
    cr_expect(json_number(b, "peak_rss_bytes") <= LIMIT + (16 << 20), "%.0f bytes resident", json_number(b, "peak_rss_bytes"));
    cJSON_Delete(a);
    cJSON_Delete(b);
    outcome_free(&want);
    outcome_free(&got);
}
