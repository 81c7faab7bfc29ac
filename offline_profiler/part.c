/* SPDX-License-Identifier: MIT
 * Unfinished runs as files; see part.h. */
#include "offline_profiler/part.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/hash.h"

static const char magic[8] = { 'h', 'e', 'a', 'r', 't', 'h', 'p', 't' };
enum { VERSION = 1 };

typedef struct stream {
    FILE *f;
    ht_hash hash;
} stream;

static bool put(void *user, void *bytes, size_t n)
{
    stream *s = user;
    ht_hash_add(&s->hash, bytes, n);
    return fwrite(bytes, 1, n, s->f) == n;
}

static bool get(void *user, void *bytes, size_t n)
{
    stream *s = user;
    return fread(bytes, 1, n, s->f) == n;
}

/* Everything but magic, version and checksum. */
static bool head(ht_part_state *state, ht_stats_io *io, void *user)
{
    return io(user, state->model, 32) && io(user, state->settings, sizeof state->settings) &&
           io(user, &state->tokens, sizeof state->tokens) && io(user, &state->windows, sizeof state->windows);
}

ht_status ht_part_save(const char *path, const ht_part_state *state, const ht_stats *stats, ht_error *err)
{
    ht_part_state copy = *state;
    uint32_t version = VERSION;
    uint64_t sum[2];
    stream s;
    char first[8];
    size_t n = strlen(path) + 5;
    char *fresh = malloc(n);

    if (!fresh)
        return ht_fail(err, HT_ENOMEM, "%s: out of memory", path);
    snprintf(fresh, n, "%s.new", path);
    errno = 0;
    s.f = fopen(fresh, "wbe");
    ht_hash_begin(&s.hash, 0);
    memcpy(first, magic, sizeof first);
    bool good = s.f && put(&s, first, sizeof first) && put(&s, &version, sizeof version) && head(&copy, put, &s) &&
                ht_stats_save(stats, put, &s);
    ht_hash_end(&s.hash, sum);
    good = good && fwrite(sum, 1, sizeof sum, s.f) == sizeof sum;
    int why = errno;
    if (s.f && fclose(s.f) != 0 && good) {
        good = false;
        why = errno;
    }
    if (good && rename(fresh, path) != 0) {
        good = false;
        why = errno;
    }
    if (!good && s.f)
        remove(fresh);
    free(fresh);
    return good ? HT_OK : ht_fail(err, HT_EIO, "%s: cannot write: %s", path, strerror(why));
}

/* Reads the file to its end and compares; leaves it after magic and version. */
static ht_status check(FILE *f, const char *path, ht_error *err)
{
    uint8_t buffer[1 << 14], tail[16];
    uint32_t version;
    uint64_t h[2];
    size_t n, held = 0;
    ht_hash hash;

    ht_hash_begin(&hash, 0);
    while ((n = fread(buffer, 1, sizeof buffer - sizeof tail, f)) > 0) { /* the last 16 bytes wait in tail */
        uint8_t joined[sizeof buffer];
        memcpy(joined, tail, held);
        memcpy(joined + held, buffer, n);
        n += held;
        held = n < sizeof tail ? n : sizeof tail;
        ht_hash_add(&hash, joined, n - held);
        memcpy(tail, joined + n - held, held);
    }
    if (ferror(f))
        return ht_fail(err, HT_EIO, "%s: cannot read: %s", path, strerror(errno));
    ht_hash_end(&hash, h);
    rewind(f);
    if (fread(buffer, 1, sizeof magic, f) != sizeof magic || memcmp(buffer, magic, sizeof magic) ||
        fread(&version, 1, sizeof version, f) != sizeof version)
        return ht_fail(err, HT_EFORMAT, "%s: this is no unfinished profile", path);
    if (held != sizeof tail || memcmp(tail, h, sizeof tail) != 0)
        return ht_fail(err, HT_EFORMAT, "%s: the unfinished profile is damaged", path);
    if (version != VERSION)
        return ht_fail(err, HT_EUNSUPPORTED, "%s: the unfinished profile is of another version of this program", path);
    return HT_OK;
}

ht_status ht_part_load(const char *path, ht_part_state *want, ht_stats *stats, bool *found, ht_error *err)
{
    static const uint64_t most_bytes = (uint64_t)1 << 32;
    ht_part_state state = { 0 };
    stream s = { 0 };
    ht_status st;

    *found = false;
    errno = 0;
    s.f = fopen(path, "rbe");
    if (!s.f)
        return errno == ENOENT ? HT_OK : ht_fail(err, HT_EIO, "%s: cannot read: %s", path, strerror(errno));
    if ((st = check(s.f, path, err)) != HT_OK)
        goto done;
    if (!head(&state, get, &s)) {
        st = ht_fail(err, HT_EFORMAT, "%s: the unfinished profile is damaged", path);
    } else if (memcmp(state.model, want->model, 32) != 0) {
        st = ht_fail(err, HT_EMISMATCH, "%s: the unfinished profile is of another model (%.32s, this one is %s)", path,
                     state.model, want->model);
    } else if (memcmp(state.settings, want->settings, sizeof state.settings) != 0) {
        st = ht_fail(err, HT_EMISMATCH, "%s: the unfinished profile is of another text or other settings", path);
    } else if ((st = ht_stats_load(stats, get, &s, most_bytes, err)) == HT_OK) {
        want->tokens = state.tokens;
        want->windows = state.windows;
        *found = true;
    }
done:
    fclose(s.f);
    return st;
}
