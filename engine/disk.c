/* SPDX-License-Identifier: MIT
 * Units, their slots and their reads; see disk.h. Tables are made in disk_open.c, held weights are in disk_hold.c, units that
 * come in parts in disk_parts.c. */
#include "engine/disk.h"

#include <stdlib.h>
#include <string.h>

#include "engine/base/os.h"
#include "engine/disk_impl.h"

/* ---- slots ---- */

static ht_disk_unit *unit_of(const ht_disk *d, uint32_t layer, uint32_t expert)
{
    return &d->units[d->layers[layer].first + expert];
}

static ht_disk_unit *unit_by_id(const ht_disk *d, uint32_t id)
{
    return unit_of(d, id / d->n_expert, id % d->n_expert);
}

uint8_t *ht_disk_slot(const ht_disk *d, const ht_disk_unit *u)
{
    const ht_disk_class *c = &d->classes[d->layers[u->layer].class];
    return c->memory + (size_t)u->slot * c->bytes;
}

static uint8_t *slot_at(const ht_disk_class *c, uint32_t slot) { return c->memory + (size_t)slot * c->bytes; }

/* Gives committed slots that nobody uses back to the system, until at most `most` bytes are committed. */
static void trim(ht_disk *d, uint64_t most)
{
    for (uint32_t i = 0; i < d->n_classes; i++) {
        ht_disk_class *c = &d->classes[i];
        while (d->committed > most && c->n_warm) {
            const uint32_t slot = c->free[--c->n_warm];
            ht_os_decommit(slot_at(c, slot), c->bytes);
            c->free[c->n - ++c->n_cold] = slot;
            d->committed -= c->bytes;
        }
    }
}

static uint32_t take_slot(ht_disk *d, ht_disk_class *c)
{
    if (c->n_warm)
        return c->free[--c->n_warm];
    trim(d, d->budget > c->bytes ? d->budget - c->bytes : 0);
    d->committed += c->bytes;
    return c->free[c->n - c->n_cold--];
}

static void free_slot(ht_disk *d, ht_disk_unit *u)
{
    ht_disk_class *c = &d->classes[d->layers[u->layer].class];

    c->free[c->n_warm++] = u->slot;
    u->slot = UINT32_MAX;
    trim(d, d->budget);
}

/* ---- units come and go ---- */

uint32_t ht_disk_id(const ht_disk *d, const ht_disk_unit *u)
{
    return u->layer * d->n_expert + (uint32_t)(u - d->units) - d->layers[u->layer].first;
}

/* The policy has let go of it. */
static void leave(ht_disk *d, ht_disk_unit *u)
{
    d->used -= d->classes[d->layers[u->layer].class].bytes;
    u->presence = HT_ABSENT;
    u->failed = u->early = u->guess = false;
    ht_disk_drop_pieces(d, u);
    free_slot(d, u);
}

static void not_foreseen(ht_disk *d, ht_disk_unit *u)
{
    u->foreseen = u->early = u->guess = false;
    d->foreseen_bytes -= d->classes[d->layers[u->layer].class].bytes;
    ht_cache_pin(d->cache, ht_disk_id(d, u), false);
}

/* A unit whose reads did not succeed, and which no read touches any more. */
static void discard(ht_disk *d, ht_disk_unit *u)
{
    if (u->foreseen) {
        uint32_t i = 0;
        while (d->foreseen[i] != (uint32_t)(u - d->units))
            i++;
        d->foreseen[i] = d->foreseen[--d->n_foreseen];
        not_foreseen(d, u);
    }
    ht_cache_pin(d->cache, ht_disk_id(d, u), false);
    ht_cache_remove(d->cache, ht_disk_id(d, u));
    leave(d, u);
}

static void submit(ht_disk *d, ht_disk_unit *u, bool ahead)
{
    uint8_t *to = slot_at(&d->classes[d->layers[u->layer].class], u->slot);

    for (uint32_t i = 0; i < u->n_reads; i++) {
        ht_read *r = &u->read[i];
        r->to = to;
        to += ht_read_room(r->bytes);
        const int state = atomic_load_explicit(&r->state, memory_order_acquire);
        if (u->fresh || (state != HT_READ_DONE && state != HT_READ_QUEUED)) {
            atomic_store_explicit(&r->state, HT_READ_IDLE, memory_order_relaxed);
            ht_reader_submit(d->reader, r, ahead);
        }
    }
    u->fresh = false;
    uint32_t at = u->n_reads; /* pieces that were taken back */
    for (ht_read *r; (r = ht_disk_next_read(d, u, &at)) != NULL;)
        if (atomic_load_explicit(&r->state, memory_order_acquire) == HT_READ_IDLE)
            ht_reader_submit(d->reader, r, ahead);
}

/* What became of a coming unit; true: it is no longer on its way. */
static bool settle(ht_disk *d, ht_disk_unit *u)
{
    bool queued = false, done = true;

    uint32_t at = 0;

    for (ht_read *r; (r = ht_disk_next_read(d, u, &at)) != NULL;) {
        const int state = atomic_load_explicit(&r->state, memory_order_acquire);
        queued |= state == HT_READ_QUEUED;
        done &= state == HT_READ_DONE;
        u->failed |= state == HT_READ_FAILED;
    }
    if (queued)
        return false;
    if (done) {
        ht_disk_drop_pieces(d, u);
        u->presence = HT_HERE;
        ht_cache_pin(d->cache, ht_disk_id(d, u), false);
        return true;
    }
    if (u->pins && !u->failed) { /* was taken back, is wanted again */
        submit(d, u, false);
        return false;
    }
    if (u->pins)
        return false; /* whoever pins it is told */
    discard(d, u);
    return true;
}

static void not_ahead(ht_disk *d, ht_disk_unit *u)
{
    for (uint32_t r = 0; u->ahead && r < u->n_reads; r++)
        d->ahead_bytes -= u->read[r].bytes;
    u->ahead = false;
}

static void settle_all(ht_disk *d)
{
    for (uint32_t i = 0; i < d->n_coming;)
        if (settle(d, &d->units[d->coming[i]])) {
            not_ahead(d, &d->units[d->coming[i]]);
            d->coming[i] = d->coming[--d->n_coming];
        } else {
            i++;
        }
}

/* True: some read of it is still under way. */
static bool take_back(ht_disk *d, ht_disk_unit *u)
{
    bool left = false;
    uint32_t at = 0;

    for (ht_read *r; (r = ht_disk_next_read(d, u, &at)) != NULL;)
        if (atomic_load_explicit(&r->state, memory_order_acquire) == HT_READ_QUEUED)
            left |= !ht_reader_drop(d->reader, r);
    return left;
}

/* Waits until nothing is on its way but what is pinned; false: cancelled. What is under way is a few pieces, seconds of a slow
 * disk. */
static bool quiesce(ht_disk *d, const ht_cancel *cancel)
{
    for (;;) {
        uint32_t left = 0;
        settle_all(d);
        for (uint32_t i = 0; i < d->n_coming; i++) {
            ht_disk_unit *u = &d->units[d->coming[i]];
            if (u->pins)
                continue;
            take_back(d, u);
            left++;
        }
        if (!left)
            return true;
        if (cancel && atomic_load_explicit(&cancel->asked, memory_order_relaxed))
            return false;
        ht_reader_poll(d->reader, 1000);
    }
}

static void forget_unit(ht_disk *d, ht_disk_unit *u)
{
    not_foreseen(d, u);
    if (u->presence == HT_COMING && !u->pins)
        take_back(d, u);
}

/* layer UINT32_MAX: all. */
static void forget(ht_disk *d, uint32_t layer)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < d->n_foreseen; i++) {
        ht_disk_unit *u = &d->units[d->foreseen[i]];
        if (layer == UINT32_MAX || u->layer == layer) {
            if (u->foreseen)
                forget_unit(d, u);
        } else if (u->foreseen) {
            d->foreseen[n++] = d->foreseen[i];
        }
    }
    d->n_foreseen = n;
}

void ht_disk_is_coming(ht_disk *d, ht_disk_unit *u)
{
    if (u->presence != HT_HERE)
        return;
    u->presence = HT_COMING;
    ht_cache_pin(d->cache, ht_disk_id(d, u), true);
    d->coming[d->n_coming++] = (uint32_t)(u - d->units);
}

bool ht_disk_bring(ht_disk *d, ht_disk_unit *u, bool lane_ahead, bool uncertain)
{
    return ht_disk_bring_some(d, u, lane_ahead, uncertain, true);
}

bool ht_disk_bring_some(ht_disk *d, ht_disk_unit *u, bool lane_ahead, bool uncertain, bool whole)
{
    const uint32_t id = ht_disk_id(d, u);
    const uint32_t n = ht_cache_admit(d->cache, id, uncertain, d->leaving, d->n_units);

    if (n == UINT32_MAX)
        return false;
    for (uint32_t i = 0; i < n; i++)
        leave(d, unit_by_id(d, d->leaving[i]));
    ht_cache_pin(d->cache, id, true);
    u->slot = take_slot(d, &d->classes[d->layers[u->layer].class]);
    d->used += d->classes[d->layers[u->layer].class].bytes;
    u->presence = HT_COMING;
    u->fresh = true;
    ht_disk_begin_unit(d, u, whole);
    u->ahead = lane_ahead;
    for (uint32_t r = 0; lane_ahead && r < u->n_reads; r++)
        d->ahead_bytes += u->read[r].bytes;
    d->coming[d->n_coming++] = (uint32_t)(u - d->units);
    submit(d, u, lane_ahead);
    return true;
}

ht_status ht_disk_pin(ht_disk *d, uint32_t layer, uint32_t expert, bool whole, const ht_cancel *cancel)
{
    ht_disk_unit *u = unit_of(d, layer, expert);

    if (u->presence == HT_COMING)
        settle_all(d);
    const ht_presence was = u->presence;

    if (was == HT_ABSENT && !ht_disk_bring_some(d, u, false, false, whole)) {
        forget(d, UINT32_MAX); /* what is needed later yields */
        if (!quiesce(d, cancel))
            return HT_ECANCELLED;
        if (!ht_disk_bring_some(d, u, false, false, whole))
            return HT_ENOMEM;
    }
    if (was == HT_COMING && u->ahead) {
        for (uint32_t i = 0; i < u->n_reads; i++)
            if (atomic_load_explicit(&u->read[i].state, memory_order_acquire) == HT_READ_QUEUED)
                ht_reader_hurry(d->reader, &u->read[i]);
        not_ahead(d, u);
    }
    const bool all_here = was == HT_HERE && u->whole;
    if (whole && !u->failed && ht_disk_complete(d, u, ht_disk_slot(d, u)) != HT_OK) { /* thousands of reads are under way */
        u->pins++; /* not this one's */
        const bool waited = quiesce(d, cancel);
        u->pins--;
        if (!waited || ht_disk_complete(d, u, ht_disk_slot(d, u)) != HT_OK)
            return waited ? HT_ENOMEM : HT_ECANCELLED;
    }
    if (u->pins++ == 0) {
        ht_cache_pin(d->cache, ht_disk_id(d, u), true);
        d->counts.wanted++;
        d->counts.hits += all_here;
        d->counts.missed += !all_here || u->early;
        d->counts.used += u->guess;
        u->early = u->guess = false;
    }
    return HT_OK;
}

void ht_disk_keep(ht_disk *d, uint32_t layer, uint32_t expert, bool kept)
{
    ht_cache_pin(d->cache, ht_disk_id(d, unit_of(d, layer, expert)), kept);
}

void ht_disk_unpin(ht_disk *d, uint32_t layer, uint32_t expert)
{
    ht_disk_unit *u = unit_of(d, layer, expert);

    if (--u->pins == 0)
        ht_cache_pin(d->cache, ht_disk_id(d, u), false);
}

bool ht_disk_is_part(const ht_disk *d, uint32_t layer, uint32_t expert) { return !unit_of(d, layer, expert)->whole; }

ht_status ht_disk_parts(ht_disk *d, uint32_t layer, uint32_t expert, ht_part out[HT_N_ROLES], ht_error *err)
{
    ht_disk_unit *u = unit_of(d, layer, expert);

    if (u->presence != HT_HERE)
        settle_all(d);
    if (u->failed) {
        uint32_t at = 0;
        if (take_back(d, u)) /* told when no read of it is under way, so that the next pin begins anew */
            return HT_LATER;
        for (ht_read *r; (r = ht_disk_next_read(d, u, &at)) != NULL;)
            if (atomic_load_explicit(&r->state, memory_order_acquire) == HT_READ_FAILED)
                return ht_reader_wait(d->reader, r, 0, err);
        return HT_EIO;
    }
    if (u->presence != HT_HERE)
        return HT_LATER;
    for (uint32_t r = 0; r < HT_N_ROLES; r++) {
        out[r] = d->m->layers[layer].ffn.experts[expert][r];
        if (u->of[r] != UINT8_MAX)
            out[r].host = u->read[u->of[r]].data + u->at[r];
    }
    return HT_OK;
}

void ht_disk_poll(ht_disk *d, uint32_t wait_us)
{
    const double t0 = wait_us ? ht_os_now() : 0.0;

    ht_reader_poll(d->reader, wait_us);
    settle_all(d);
    if (wait_us)
        d->counts.wait_seconds += ht_os_now() - t0;
}

bool ht_disk_foresee(ht_disk *d, uint32_t layer, uint32_t expert, bool certain, bool whole)
{
    ht_disk_unit *u = unit_of(d, layer, expert);

    if (u->foreseen || u->pins)
        return true;
    const uint64_t bytes = d->classes[d->layers[layer].class].bytes;
    if (d->foreseen_bytes + bytes > d->budget / 4)
        return false;
    if (u->presence == HT_ABSENT) {
        if (!ht_disk_bring_some(d, u, true, !certain, whole))
            return false;
        u->early = true;
        u->guess = !certain;
        d->counts.foreseen += !certain;
    }
    u->foreseen = true;
    d->foreseen_bytes += bytes;
    ht_cache_pin(d->cache, ht_disk_id(d, u), true);
    d->foreseen[d->n_foreseen++] = (uint32_t)(u - d->units);
    return true;
}

void ht_disk_forget(ht_disk *d, uint32_t layer) { forget(d, layer); }

void ht_disk_pass_by(ht_disk *d, uint32_t layer, uint32_t expert, bool keep)
{
    ht_disk_unit *u = unit_of(d, layer, expert);

    d->counts.wanted++;
    d->counts.used += u->guess;
    u->early = u->guess = false;
    if (keep && u->foreseen && u->presence == HT_COMING)
        not_foreseen(d, u); /* its place in the list goes when the layer is forgotten */
}

void ht_disk_read_later(ht_disk *d, uint32_t layer, uint32_t expert)
{
    ht_disk_unit *u = unit_of(d, layer, expert);

    if (u->presence == HT_ABSENT && d->ahead_bytes + ht_disk_unit_bytes(d, layer) <= d->budget / 4)
        ht_disk_bring(d, u, true, true);
}

uint64_t ht_disk_foreseen_bytes(const ht_disk *d) { return d->ahead_bytes; }

/* ---- looking ---- */

void ht_disk_use(ht_disk *d, const ht_cluster *clusters, const uint32_t *counts, uint32_t n, uint32_t n_tokens)
{
    for (uint32_t i = 0; i < n; i++)
        d->leaving[i] = clusters[i].expert;
    if (n && n_tokens > 1 && counts)
        ht_cache_use_prompt(d->cache, clusters[0].layer, d->leaving, counts, n, n_tokens);
    else if (n)
        ht_cache_use(d->cache, clusters[0].layer, d->leaving, n, n_tokens > 1);
}

void ht_disk_remember(ht_disk *d, uint32_t layer, const uint32_t *experts, uint32_t n_tokens, uint32_t n_used)
{
    ht_cache_remember(d->cache, layer, experts, n_tokens, n_used);
}

uint64_t ht_disk_missed(const ht_disk *d) { return d->counts.missed; }

ht_presence ht_disk_presence(const ht_disk *d, uint32_t layer, uint32_t expert)
{
    return unit_of(d, layer, expert)->presence;
}

size_t ht_disk_unit_bytes(const ht_disk *d, uint32_t layer) { return d->classes[d->layers[layer].class].bytes; }

uint64_t ht_disk_budget(const ht_disk *d) { return d->budget; }

ht_disk_counts ht_disk_get_counts(const ht_disk *d)
{
    ht_disk_counts c = d->counts;
    c.bytes = ht_reader_get_info(d->reader).bytes;
    return c;
}

ht_reader_info ht_disk_reader_info(const ht_disk *d) { return ht_reader_get_info(d->reader); }

bool ht_disk_set_budget(ht_disk *d, uint64_t bytes, const ht_cancel *cancel)
{
    uint32_t n;

    if (bytes == d->budget)
        return true;
    forget(d, UINT32_MAX);
    if (!quiesce(d, cancel))
        return false;
    d->fill_at = 0; /* what was taken back is filled in later */
    d->budget = bytes;
    do {
        n = ht_cache_set_budget(d->cache, bytes, d->leaving, d->n_units);
        for (uint32_t i = 0; i < n && n != UINT32_MAX; i++)
            leave(d, unit_by_id(d, d->leaving[i]));
    } while (n == d->n_units);
    trim(d, bytes);
    return true;
}

ht_status ht_disk_check(const ht_disk *d, ht_error *err)
{
    ht_os_stamp now;

    for (uint32_t i = 0; i < d->n_files; i++) {
        const char *path = ht_gguf_path(d->m->gguf, i);
        const ht_os_stamp *was = &d->stamps[i];
        if (!ht_os_stamp_fd(ht_gguf_fd(d->m->gguf, i), &now))
            return ht_fail(err, HT_EIO, "%s: the file cannot be looked at any more", path);
        if (now.bytes != was->bytes || now.written_ns != was->written_ns)
            return ht_fail(err, HT_EIO, "%s: the file was changed while it was open", path);
    }
    return HT_OK;
}

ht_status ht_disk_rows(ht_disk *d, const ht_part *w, const int32_t *ids, uint32_t n, uint8_t *to, ht_error *err)
{
    uint32_t file = 0;
    uint64_t at = 0;

    if (!ht_gguf_locate(d->m->gguf, w->host, &file, &at))
        return ht_fail(err, HT_EINVAL, "rows of a matrix that is in no file");
    const int fd = ht_gguf_fd(d->m->gguf, file);
    for (uint32_t i = 0; i < n; i++) {
        const uint64_t from = at + (uint64_t)ids[i] * w->stride;
        if (!ht_os_read_at(fd, from, to + (size_t)i * w->stride, w->stride))
            return ht_fail_at(err, HT_EIO, from, "%s: %zu bytes at %llu cannot be read", ht_gguf_path(d->m->gguf, file),
                              w->stride, (unsigned long long)from);
    }
    return HT_OK;
}
