/* SPDX-License-Identifier: MIT
 *
 * What hearth asks of the operating system, one file per system behind it (os_linux.c). Nothing else includes system
 * headers. Threads: every function may be called from any thread. */
#ifndef HT_BASE_OS_H
#define HT_BASE_OS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/base/status.h"

double ht_os_now(void); /* seconds of a clock that never goes back */

/* A read-only mapping of a whole file. The descriptor stays open for reads beside the mapping. */
typedef struct ht_os_map {
    const uint8_t *data; /* NULL for an empty file */
    uint64_t bytes;
    int fd;
} ht_os_map;
ht_status ht_os_map_open(ht_os_map *m, const char *path, ht_error *err);
void ht_os_map_close(ht_os_map *m); /* zero-initialised objects too */
/* The file's size now; a mapping beyond it must not be touched. UINT64_MAX where it cannot be told. */
uint64_t ht_os_map_size_now(const ht_os_map *m);
/* By what a file is known, and that it was not written to. */
typedef struct ht_os_stamp { uint64_t bytes, device, inode; int64_t written_ns; } ht_os_stamp;
bool ht_os_stamp_fd(int fd, ht_os_stamp *out);
bool ht_os_stamp_path(const char *path, ht_os_stamp *out);
/* Reads exactly `bytes` from an offset; false: fewer are there, or the disk fails. */
bool ht_os_read_at(int fd, uint64_t offset, void *to, size_t bytes);
/* Of mapped memory. will_need: asks for reading it, without waiting. populate: reads what is missing and enters all in the page tables, blocking; false where touching
 * it would end the process (a cut file, a failing disk). large: asks for large pages, and so for large reads, where the
 * system has them for files; to be asked for only where all of it fits into memory. */
void ht_os_will_need(const void *p, size_t bytes);
bool ht_os_populate(const void *p, size_t bytes);
void ht_os_prefer_large(const void *p, size_t bytes);

/* Is there something at `path` that is no regular file (a device, a pipe, a folder), which must not be replaced by
 * one? */
bool ht_os_is_special(const char *path);

/* Address space whose pages are committed when first touched; zeroed; NULL where refused. */
void *ht_os_reserve(size_t bytes);
void ht_os_release(void *p, size_t bytes);
/* Gives the pages back; they read as zeros afterwards. p and bytes: multiples of ht_os_page. */
void ht_os_decommit(void *p, size_t bytes);
size_t ht_os_page(void);

/* Sequential read speed of the disk that holds `path`, bytes per second, the page cache passed by where the file system
 * allows; 0: not measurable. Reads at most 256 MiB, for at most half a second. */
double ht_os_disk_bandwidth(const char *path);

/* What the kernel tells a process of its processor's instructions (AT_HWCAP, AT_HWCAP2); 0 where it tells nothing. */
void ht_os_hwcap(uint64_t *hwcap, uint64_t *hwcap2);

/* A shared library by its path, or by its name among those of the system; NULL: not there, err says why. Its symbols
 * serve nobody else. symbol: NULL where it has none of that name. */
void *ht_os_lib_open(const char *path, ht_error *err);
void *ht_os_lib_symbol(void *lib, const char *name);
void ht_os_lib_close(void *lib); /* NULL is allowed */
/* The folder of the library, or program, that holds this code; without a slash at the end. */
bool ht_os_lib_folder(char *to, size_t bytes);

uint64_t ht_os_ram_total(void);     /* bytes; a cgroup's limit counted */
uint64_t ht_os_ram_available(void); /* what can be taken without swapping, a cgroup's limit counted */
uint64_t ht_os_peak_rss(void);

typedef struct ht_os_thread { uintptr_t handle; } ht_os_thread;
/* Runs fn(arg) in a new thread with all signals blocked, so that the application's handlers stay on its own threads. */
ht_status ht_os_thread_start(ht_os_thread *t, void (*fn)(void *), void *arg, const char *name);
void ht_os_thread_join(ht_os_thread *t);
void ht_os_yield(void);

/* A lock that sleeps. Zero-initialised is unlocked; nothing to destroy. */
typedef struct ht_os_mutex { _Atomic uint32_t state; } ht_os_mutex;
void ht_os_lock(ht_os_mutex *m);
bool ht_os_try_lock(ht_os_mutex *m); /* false: somebody holds it */
void ht_os_unlock(ht_os_mutex *m);

/* Sleeps while *word == expected, at most timeout_us (0: no limit); may wake for no reason. */
void ht_os_wait(_Atomic uint32_t *word, uint32_t expected, uint32_t timeout_us);
void ht_os_wake(_Atomic uint32_t *word, bool all);

#endif
