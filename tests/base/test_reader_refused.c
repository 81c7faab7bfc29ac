/* SPDX-License-Identifier: MIT
 *
 * Where the kernel or a filter of system calls refuses io_uring, threads read: the same bytes, no error. */
#include <criterion/criterion.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/base/reader.h"

/* From here on this process (a test is one of its own) gets `error` from one system call. */
static bool refuse(long call, int error)
{
    struct sock_filter f[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)call, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog p = { sizeof f / sizeof *f, f };
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &p) == 0;
}

static void read_with(long call, int error)
{
    char path[512];
    ht_error err;
    ht_reader *r;
    snprintf(path, sizeof path, HEARTH_BUILD_DIR "/test-reader-refused-%d", (int)getpid());
    FILE *f = fopen(path, "wb");
    cr_assert_not_null(f);
    for (int i = 0; i < 100000; i++)
        fputc(i * 7 >> 3 & 255, f);
    fclose(f);
    if (!refuse(call, error)) {
        remove(path);
        cr_skip("no filters of system calls here");
    }
    const char *list = path;
    ht_reader_params p = { .paths = &list, .n_paths = 1, .io = HT_IO_DIRECT, .piece = 8192 };
    cr_assert_eq(ht_reader_open(&r, &p, &err), HT_OK, "%s", err.text);
    cr_expect(!ht_reader_get_info(r).uring);
    ht_read x = { .offset = 99, .bytes = 90000, .to = aligned_alloc(HT_READ_ALIGN, ht_read_room(90000)) };
    cr_assert_not_null(x.to);
    ht_reader_submit(r, &x, false);
    ht_status st;
    while ((st = ht_reader_wait(r, &x, 100000, &err)) == HT_LATER)
        ;
    cr_assert_eq(st, HT_OK, "%s", err.text);
    for (int i = 0; i < 90000; i++)
        cr_assert_eq(x.data[i], ((i + 99) * 7 >> 3 & 255));
    ht_reader_close(r);
    free(x.to);
    remove(path);
}

Test(reader_refused, unknown_to_the_kernel)
{
    read_with(SYS_io_uring_setup, ENOSYS);
}

Test(reader_refused, forbidden)
{
    read_with(SYS_io_uring_setup, EPERM);
}

Test(reader_refused, no_locked_memory)
{
    read_with(SYS_io_uring_setup, ENOMEM);
}

Test(reader_refused, set_up_but_not_to_be_entered)
{
    read_with(SYS_io_uring_enter, EPERM);
}
