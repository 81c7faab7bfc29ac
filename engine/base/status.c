/* SPDX-License-Identifier: MIT
 * Status texts and error sentences; see status.h. */
#include "engine/base/status.h"

#include <stdio.h>
#include <string.h>

static void fill(ht_error *err, ht_status st, uint64_t offset, const char *fmt, va_list ap)
{
    err->status = st;
    err->offset = offset;
    vsnprintf(err->text, sizeof err->text, fmt, ap);
    /* File bytes may have got into the sentence: a terminal must not obey them. */
    for (unsigned char *p = (unsigned char *)err->text; *p; p++)
        if (*p < 0x20 || *p == 0x7f)
            *p = '?';
}

ht_status ht_fail(ht_error *err, ht_status st, const char *fmt, ...)
{
    if (err) {
        va_list ap;
        va_start(ap, fmt);
        fill(err, st, UINT64_MAX, fmt, ap);
        va_end(ap);
    }
    return st;
}

ht_status ht_fail_at(ht_error *err, ht_status st, uint64_t offset, const char *fmt, ...)
{
    if (err) {
        va_list ap;
        va_start(ap, fmt);
        fill(err, st, offset, fmt, ap);
        va_end(ap);
        size_t n = strlen(err->text);
        snprintf(err->text + n, sizeof err->text - n, " (at byte %llu)", (unsigned long long)offset);
    }
    return st;
}

const char *ht_status_text(ht_status st)
{
    switch (st) {
#define X(name, value, text)                                                                                           \
    case HT_##name: return text;
        HT_STATUS_LIST(X)
#undef X
    }
    return "unknown status";
}
