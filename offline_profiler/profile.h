/* SPDX-License-Identifier: MIT
 *
 * A profile in memory: what a profiler made or a file held. profile.c looks into it, profile_file.c reads and writes
 * it, report*.c draw it.
 *
 * Owner: every array belongs to the profile's chunks and ends with it. Threads: read-only once made. */
#ifndef HT_PROFILE_H
#define HT_PROFILE_H

#include "engine/base/status.h"
#include "offline_profiler/hearth_profiler.h"

struct hearth_profile {
    char model[33];
    char *name, *description, *created_by; /* never NULL */
    uint64_t tokens, text_bytes;
    uint32_t n_layer, window;
    bool density_only;
    hearth_profile_layer *layers; /* [n_layer] */
    hearth_profile_point *points;
    uint32_t n_points, chosen;
    void **chunks;
    size_t n_chunks, room;
};

/* NULL: out of memory. */
hearth_profile *ht_profile_new(uint32_t n_layer);
void *ht_profile_alloc(hearth_profile *p, size_t n, size_t size); /* zeroed; ends with the profile */
char *ht_profile_text(hearth_profile *p, const char *s, size_t n);

/* Keys of a profile, and its layers' tensors (declared, or their data), as profile_file.c writes them: for files that hold
 * one beside other things. */
hearth_status ht_profile_write_keys(hearth_writer *w, const hearth_profile *p, hearth_error *err);
hearth_status ht_profile_write_layers(hearth_writer *w, const hearth_profile *p, bool data, hearth_error *err);

/* The caller's error as ours: same layout, same values (checked in engine/hearth.c). */
static inline ht_error *ht_profile_err(hearth_error *e)
{
    return (ht_error *)(void *)e;
}

/* Copies a versioned struct of the caller's, and back; see engine/hearth.h on sizes. */
void ht_profile_params(void *dst, size_t bytes, const void *src);
void ht_profile_result(void *dst, const void *src, size_t bytes);

#endif
