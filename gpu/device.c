/* SPDX-License-Identifier: MIT
 *
 * A device: its driver's calls behind a lock, allocations counted and known by address, events numbered. Once the driver
 * says that the device is lost, nothing but freeing and closing reaches it any more. */
#include "gpu/device.h"

#include <stdlib.h>
#include <string.h>

#include "engine/base/types.h"
#include "gpu/kernels/args.h"

#define HT_GPU_KERNEL(name, threads, args) { #name, threads, sizeof(args) },
const ht_gpu_kernel_info ht_gpu_kernels[HT_N_GPU_KERNELS] = {
#include "gpu/kernels/list.inc"
};
#undef HT_GPU_KERNEL

enum { ALIGN = 256 };

uint64_t ht_gpu_kernels_hash(void)
{
    return ht_gpu_hash_kernels(ht_gpu_kernels, HT_N_GPU_KERNELS);
}

bool ht_gpu_driver_fits(const ht_gpu_driver *d)
{
    return d->abi == HT_GPU_ABI && d->bytes == sizeof *d && d->n_kernels == HT_N_GPU_KERNELS &&
           d->n_ptrs == HT_GPU_PTRS && d->kernels_hash() == ht_gpu_kernels_hash();
}

/* What a call said, remembered where it is the end of the device. */
static ht_status said(ht_gpu *g, ht_status st)
{
    if (st == HT_EDEVICE)
        g->lost = true;
    return st;
}

static ht_status usable(const ht_gpu *g, ht_error *err)
{
    return g->lost ? ht_fail(err, HT_EDEVICE, "%s was lost", g->info.name) : HT_OK;
}

/* Runs a driver's call under the lock, unless the device is lost. */
#define CALL(g, err, call)                                                                                             \
    do {                                                                                                               \
        ht_os_lock(&(g)->lock);                                                                                        \
        st = usable(g, err);                                                                                           \
        if (st == HT_OK)                                                                                               \
            st = said(g, (call));                                                                                      \
        ht_os_unlock(&(g)->lock);                                                                                      \
    } while (0)

ht_status ht_gpu_open_driver(ht_gpu **out, const ht_gpu_driver *driver, void *plugin, const ht_gpu_params *p, ht_error *err)
{
    const ht_gpu_open_args args = { .index = p->index, .cache_dir = p->cache_dir };
    ht_gpu *g = calloc(1, sizeof *g);
    ht_status st;

    *out = NULL;
    if (!g)
        return ht_fail(err, HT_ENOMEM, "GPU device");
    g->driver = driver;
    g->limit = p->limit_bytes;
    if ((st = driver->describe(p->index, &g->info, err)) != HT_OK ||
        (st = driver->open(&g->dev, &args, err)) != HT_OK) {
        free(g);
        return st;
    }
    if (driver->free_bytes(g->dev, &g->info.free_bytes, NULL) != HT_OK)
        g->info.free_bytes = 0;
    g->plugin = plugin;
    *out = g;
    return HT_OK;
}

void ht_gpu_close(ht_gpu **gp)
{
    ht_gpu *g = *gp;

    if (!g)
        return;
    if (g->staging_pinned)
        g->driver->host_free(g->dev, g->staging);
    else
        free(g->staging);
    for (uint32_t i = 0; i < g->n_blocks; i++)
        g->driver->free(g->dev, g->block[i].addr);
    g->driver->close(g->dev);
    ht_os_lib_close(g->plugin);
    free(g->block);
    free(g);
    *gp = NULL;
}

const ht_gpu_info *ht_gpu_about(const ht_gpu *g) { return &g->info; }

/* The lock of a device that is otherwise only read. */
static ht_os_mutex *lock_of(const ht_gpu *g) { return &((ht_gpu *)(uintptr_t)g)->lock; }

#define READ(g, type, value)                                                                                           \
    ht_os_lock(lock_of(g));                                                                                            \
    const type read_value = (value);                                                                                   \
    ht_os_unlock(lock_of(g));                                                                                          \
    return read_value

bool ht_gpu_lost(const ht_gpu *g) { READ(g, bool, g->lost); }
uint64_t ht_gpu_used(const ht_gpu *g) { READ(g, uint64_t, g->used); }
uint64_t ht_gpu_peak(const ht_gpu *g) { READ(g, uint64_t, g->peak); }
uint64_t ht_gpu_limit(const ht_gpu *g) { READ(g, uint64_t, g->limit); }

void ht_gpu_set_limit(ht_gpu *g, uint64_t bytes)
{
    ht_os_lock(&g->lock);
    g->limit = bytes;
    ht_os_unlock(&g->lock);
}

/* ---- memory ---- */

/* The first block whose address is above addr. */
static uint32_t above(const ht_gpu *g, uint64_t addr)
{
    uint32_t lo = 0, hi = g->n_blocks;

    while (lo < hi) {
        const uint32_t mid = (lo + hi) / 2;
        if (g->block[mid].addr <= addr)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static uint64_t room(const ht_gpu *g, uint64_t addr)
{
    const uint32_t i = above(g, addr);
    const gpu_block *b = i ? &g->block[i - 1] : NULL;
    return b && addr - b->addr < b->bytes ? b->bytes - (addr - b->addr) : 0;
}

uint64_t ht_gpu_room(const ht_gpu *g, uint64_t addr) { READ(g, uint64_t, room(g, addr)); }

static ht_status grow(ht_gpu *g, ht_error *err)
{
    const uint32_t most = g->most_blocks ? 2 * g->most_blocks : 64;
    gpu_block *b = realloc(g->block, most * sizeof *b);

    if (!b)
        return ht_fail(err, HT_ENOMEM, "list of %u allocations", most);
    g->block = b;
    g->most_blocks = most;
    return HT_OK;
}

static ht_status alloc(ht_gpu *g, uint64_t bytes, uint64_t *addr, ht_error *err)
{
    ht_status st = usable(g, err);

    if (st != HT_OK)
        return st;
    if (g->used > g->limit || bytes > g->limit - g->used)
        return ht_fail(err, HT_ENOMEM, "%llu bytes of device memory beside %llu in use are over the limit of %llu",
                       (unsigned long long)bytes, (unsigned long long)g->used, (unsigned long long)g->limit);
    if (bytes > g->info.most_bytes)
        return ht_fail(err, HT_ENOMEM, "%llu bytes in one piece: %s gives %llu at most", (unsigned long long)bytes,
                       g->info.name, (unsigned long long)g->info.most_bytes);
    if (g->n_blocks == g->most_blocks && (st = grow(g, err)) != HT_OK)
        return st;
    if ((st = said(g, g->driver->alloc(g->dev, bytes, addr, err))) != HT_OK)
        return st;
    const uint32_t at = above(g, *addr);
    memmove(g->block + at + 1, g->block + at, (g->n_blocks - at) * sizeof *g->block);
    g->block[at] = (gpu_block){ *addr, bytes };
    g->n_blocks++;
    g->used += bytes;
    g->peak = g->used > g->peak ? g->used : g->peak;
    return HT_OK;
}

ht_status ht_gpu_alloc(ht_gpu *g, uint64_t bytes, uint64_t *addr, ht_error *err)
{
    *addr = 0;
    if (bytes == 0 || bytes > UINT64_MAX - ALIGN)
        return ht_fail(err, HT_EINVAL, "an allocation of %llu bytes", (unsigned long long)bytes);
    ht_os_lock(&g->lock);
    const ht_status st = alloc(g, (bytes + ALIGN - 1) / ALIGN * ALIGN, addr, err);
    ht_os_unlock(&g->lock);
    return st;
}

void ht_gpu_free(ht_gpu *g, uint64_t addr)
{
    ht_os_lock(&g->lock);
    const uint32_t i = above(g, addr);
    if (addr && i && g->block[i - 1].addr == addr) {
        g->driver->free(g->dev, addr);
        g->used -= g->block[i - 1].bytes;
        memmove(g->block + i - 1, g->block + i, (g->n_blocks - i) * sizeof *g->block);
        g->n_blocks--;
    }
    ht_os_unlock(&g->lock);
}

void *ht_gpu_host_alloc(ht_gpu *g, size_t bytes)
{
    void *p = NULL;
    ht_status st;

    CALL(g, NULL, g->driver->host_alloc(g->dev, bytes, &p, NULL));
    return st == HT_OK ? p : NULL;
}

void ht_gpu_host_free(ht_gpu *g, void *p)
{
    if (!p)
        return;
    ht_os_lock(&g->lock);
    g->driver->host_free(g->dev, p);
    ht_os_unlock(&g->lock);
}

/* ---- transfers and events ---- */

static ht_status in_range(const ht_gpu *g, uint32_t queue, uint64_t addr, uint64_t bytes, ht_error *err)
{
    if (queue < HT_GPU_QUEUES && room(g, addr) >= bytes)
        return HT_OK;
    return ht_fail(err, HT_EINVAL, "a transfer of %llu bytes leaves its allocation", (unsigned long long)bytes);
}

ht_status ht_gpu_upload(ht_gpu *g, uint32_t queue, uint64_t to, const void *from, size_t bytes, ht_error *err)
{
    ht_status st;
    CALL(g, err,
         (st = in_range(g, queue, to, bytes, err)) != HT_OK || !bytes
             ? st
             : g->driver->upload(g->dev, queue, to, from, bytes, err));
    return st;
}

ht_status ht_gpu_download(ht_gpu *g, uint32_t queue, void *to, uint64_t from, size_t bytes, ht_error *err)
{
    ht_status st;
    CALL(g, err,
         (st = in_range(g, queue, from, bytes, err)) != HT_OK || !bytes
             ? st
             : g->driver->download(g->dev, queue, to, from, bytes, err));
    return st;
}

ht_status ht_gpu_copy(ht_gpu *g, uint32_t queue, uint64_t to, uint64_t from, size_t bytes, ht_error *err)
{
    ht_status st;
    CALL(g, err,
         (st = in_range(g, queue, from, bytes, err)) != HT_OK || (st = in_range(g, queue, to, bytes, err)) != HT_OK || !bytes
             ? st
             : g->driver->copy(g->dev, queue, to, from, bytes, err));
    return st;
}

/* Event e has slot e % HT_GPU_EVENTS. Queues are not ordered, so each is asked for itself; where as many later ones were
 * recorded that its slot is used again, it was waited for then. */
static bool forgotten(const ht_gpu *g, ht_gpu_event e) { return e == 0 || e + HT_GPU_EVENTS <= g->last; }

static ht_status record(ht_gpu *g, uint32_t queue, ht_gpu_event *event, ht_error *err)
{
    const ht_gpu_event e = g->last + 1;
    const uint32_t slot = (uint32_t)(e % HT_GPU_EVENTS);
    ht_status st = queue < HT_GPU_QUEUES ? HT_OK : ht_fail(err, HT_EINVAL, "there is no queue %u", queue);

    if (st == HT_OK && e > HT_GPU_EVENTS)
        st = g->driver->wait(g->dev, slot, err);
    if (st == HT_OK && (st = g->driver->record(g->dev, queue, slot, err)) == HT_OK)
        *event = g->last = e;
    return st;
}

ht_status ht_gpu_record(ht_gpu *g, uint32_t queue, ht_gpu_event *event, ht_error *err)
{
    ht_status st;
    CALL(g, err, record(g, queue, event, err));
    return st;
}

static ht_status known(const ht_gpu *g, ht_gpu_event e, ht_error *err)
{
    return e <= g->last ? HT_OK : ht_fail(err, HT_EINVAL, "event %llu was not recorded", (unsigned long long)e);
}

ht_status ht_gpu_reached(ht_gpu *g, ht_gpu_event event, ht_error *err)
{
    ht_status st;
    CALL(g, err,
         (st = known(g, event, err)) != HT_OK || forgotten(g, event)
             ? st
             : g->driver->query(g->dev, (uint32_t)(event % HT_GPU_EVENTS), err));
    return st;
}

void ht_gpu_pause(double begin)
{
    _Atomic uint32_t never = 0;

    if (ht_os_now() - begin < 2e-3)
        ht_os_yield();
    else
        ht_os_wait(&never, 0, 50);
}

/* Asked again and again, for a driver's own way to wait would keep other threads from the device meanwhile. */
ht_status ht_gpu_wait(ht_gpu *g, ht_gpu_event event, ht_error *err)
{
    const double begin = ht_os_now();
    ht_status st;

    while ((st = ht_gpu_reached(g, event, err)) == HT_LATER)
        ht_gpu_pause(begin);
    return st;
}

ht_status ht_gpu_join(ht_gpu *g, uint32_t queue, ht_gpu_event event, ht_error *err)
{
    ht_status st;
    CALL(g, err,
         (st = known(g, event, err)) != HT_OK || forgotten(g, event) || queue >= HT_GPU_QUEUES
             ? (queue < HT_GPU_QUEUES ? st : HT_EINVAL)
             : g->driver->join(g->dev, queue, (uint32_t)(event % HT_GPU_EVENTS), err));
    return st;
}

ht_status ht_gpu_launch_kernel(ht_gpu *g, const ht_gpu_launch *l, ht_error *err)
{
    ht_status st;

    if (l->kernel >= HT_N_GPU_KERNELS || l->args_bytes != ht_gpu_kernels[l->kernel].args_bytes || !l->grid[0] ||
        !l->grid[1] || !l->grid[2] || l->grid[0] > INT32_MAX || l->grid[1] > 65535 || l->grid[2] > 65535)
        return ht_fail(err, HT_EINVAL, "kernel %u cannot be launched so", l->kernel);
    CALL(g, err, g->driver->launch(g->dev, HT_GPU_COMPUTE, l, err));
    return st;
}
