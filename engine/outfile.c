/* SPDX-License-Identifier: MIT
 * Files that appear whole or not at all; see outfile.h. */
#include "engine/outfile.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/os.h"

static void forget(ht_outfile *o)
{
    free(o->path);
    free(o->part);
    *o = (ht_outfile){ 0 };
}

ht_status ht_outfile_open(ht_outfile *o, const char *path, ht_error *err)
{
    size_t n = strlen(path) + 32;
    bool direct = ht_os_is_special(path);

    *o = (ht_outfile){ 0 };
    o->path = strdup(path);
    o->part = direct ? NULL : malloc(n);
    if (!o->path || (!direct && !o->part)) {
        forget(o);
        return ht_fail(err, HT_ENOMEM, "%s: out of memory", path);
    }
    errno = 0;
    if (direct) {
        o->f = fopen(path, "wb");
    } else {
        /* "x": never into a file that another writer is still filling */
        for (int i = 0; i < 100 && !o->f && (i == 0 || errno == EEXIST); i++) {
            snprintf(o->part, n, "%s.%d.part", path, i);
            o->f = fopen(o->part, "wbxe");
        }
    }
    if (!o->f) {
        ht_status st = ht_fail(err, HT_EIO, "%s: cannot create: %s", path, strerror(errno));
        forget(o);
        return st;
    }
    return HT_OK;
}

ht_status ht_outfile_write(ht_outfile *o, const void *bytes, size_t n, ht_error *err)
{
    if (n > 0 && fwrite(bytes, 1, n, o->f) != n)
        return ht_fail(err, HT_EIO, "%s: cannot write: %s", o->path, strerror(errno));
    o->bytes += n;
    if (o->hash && n > 0)
        ht_hash_add(o->hash, bytes, n);
    return HT_OK;
}

ht_status ht_outfile_zeros(ht_outfile *o, uint64_t n, ht_error *err)
{
    static const char zeros[4096];

    while (n > 0) {
        size_t part = n < sizeof zeros ? (size_t)n : sizeof zeros;
        ht_status st = ht_outfile_write(o, zeros, part, err);
        if (st != HT_OK)
            return st;
        n -= part;
    }
    return HT_OK;
}

ht_status ht_outfile_close(ht_outfile *o, ht_error *err)
{
    /* a full disk often shows only now, when the last buffer goes out */
    bool good = fflush(o->f) == 0 && !ferror(o->f);
    int why = errno;

    if (fclose(o->f) != 0 && good) {
        why = errno;
        good = false;
    }
    o->f = NULL;
    if (good && o->part && rename(o->part, o->path) != 0) {
        why = errno;
        good = false;
    }
    if (!good) {
        ht_status st = ht_fail(err, HT_EIO, "%s: cannot write: %s", o->path, strerror(why));
        ht_outfile_abort(o);
        return st;
    }
    forget(o);
    return HT_OK;
}

void ht_outfile_abort(ht_outfile *o)
{
    if (o->f)
        fclose(o->f);
    if (o->part)
        remove(o->part);
    forget(o);
}
