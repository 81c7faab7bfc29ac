/* SPDX-License-Identifier: MIT
 *
 * Status codes and the error sentence that travels with them.
 *
 * Every function of hearth that can fail returns an ht_status: HT_OK (0) or a negative code. The sentence goes into a
 * caller-owned ht_error (NULL is allowed: only the code is wanted). Nothing here allocates, prints or keeps state.
 * Threads: every function may be called from any thread; an ht_error belongs to one call at a time. */
#ifndef HT_BASE_STATUS_H
#define HT_BASE_STATUS_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

/* code, value, English. The same list as HEARTH_* of hearth.h, value for value. */
#define HT_STATUS_LIST(X)                                                                                              \
    X(OK, 0, "done")                                                                                                   \
    X(LATER, -1, "not there yet")                                                                                      \
    X(EINVAL, -2, "invalid argument")                                                                                  \
    X(ENOMEM, -3, "out of memory or over the memory budget")                                                           \
    X(EIO, -4, "reading or writing failed")                                                                            \
    X(EFORMAT, -5, "the file is damaged or is not what it claims to be")                                               \
    X(EUNSUPPORTED, -6, "not supported")                                                                               \
    X(ECANCELLED, -7, "cancelled")                                                                                     \
    X(EDEVICE, -8, "the device failed or is missing")                                                                  \
    X(EFULL, -9, "the context is full")                                                                                \
    X(EMISMATCH, -10, "made for another model")                                                                        \
    X(EBUSY, -11, "in use")

typedef enum ht_status {
#define X(name, value, text) HT_##name = value,
    HT_STATUS_LIST(X)
#undef X
} ht_status;

/* A sentence for people. For damaged files `offset` is the byte offset of the field at fault, UINT64_MAX where none
 * applies. */
typedef struct ht_error {
    ht_status status;
    uint64_t offset;
    char text[500];
} ht_error;

/* Fills err (when not NULL) and returns st, so that a failure reads: return ht_fail(err, HT_EIO, "%s: ...", path); */
ht_status ht_fail(ht_error *err, ht_status st, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* The same for a fault at a byte of a file: the sentence gets " (at byte OFFSET)" appended. */
ht_status ht_fail_at(ht_error *err, ht_status st, uint64_t offset, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* English text of a code; never NULL. */
const char *ht_status_text(ht_status st);

#endif
