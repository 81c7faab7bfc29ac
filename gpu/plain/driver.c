/* SPDX-License-Identifier: MIT
 * The plain driver: see plain.h. Everything is done at once, events are reached as they are recorded. */
#include <stdlib.h>
#include <string.h>

#include "gpu/device.h"
#include "gpu/kernels/args.h"
#include "gpu/plain/plain.h"

typedef struct plain_device {
    bool backwards;
} plain_device;

static ht_status count(uint32_t *n, ht_error *err)
{
    (void)err;
    *n = 1;
    return HT_OK;
}

static ht_status describe(uint32_t index, ht_gpu_info *out, ht_error *err)
{
    (void)err;
    *out = (ht_gpu_info){ .name = "kernels in plain C", .driver = "plain", .version = "1", .index = index,
                          .memory_bytes = 1ull << 30, .free_bytes = 1ull << 30, .most_bytes = 1ull << 30, .units = 1,
                          .unified = true, .exact = true };
    return HT_OK;
}

static ht_status open_device(void **dev, bool backwards, ht_error *err)
{
    plain_device *d = calloc(1, sizeof *d);
    if (!d)
        return ht_fail(err, HT_ENOMEM, "plain device");
    d->backwards = backwards;
    *dev = d;
    return HT_OK;
}

static ht_status open_forwards(void **dev, const ht_gpu_open_args *args, ht_error *err)
{
    (void)args;
    return open_device(dev, false, err);
}

static ht_status open_backwards(void **dev, const ht_gpu_open_args *args, ht_error *err)
{
    (void)args;
    return open_device(dev, true, err);
}

static void close_device(void *dev) { free(dev); }

static ht_status free_bytes(void *dev, uint64_t *bytes, ht_error *err)
{
    (void)dev;
    *bytes = 0;
    return ht_fail(err, HT_EUNSUPPORTED, "there is no device memory");
}

static ht_status alloc(void *dev, uint64_t bytes, uint64_t *addr, ht_error *err)
{
    uint8_t *p = bytes > SIZE_MAX / 2 ? NULL : aligned_alloc(256, ((size_t)bytes + 255) & ~(size_t)255);

    (void)dev;
    if (!p)
        return ht_fail(err, HT_ENOMEM, "%llu bytes", (unsigned long long)bytes);
    memset(p, 0xff, (size_t)bytes); /* what nobody wrote is no number */
    *addr = (uint64_t)(uintptr_t)p;
    return HT_OK;
}

static void free_memory(void *dev, uint64_t addr)
{
    (void)dev;
    free((void *)(uintptr_t)addr);
}

static ht_status host_alloc(void *dev, size_t bytes, void **p, ht_error *err)
{
    (void)dev;
    *p = malloc(bytes);
    return *p ? HT_OK : ht_fail(err, HT_ENOMEM, "%zu bytes", bytes);
}

static void host_free(void *dev, void *p)
{
    (void)dev;
    free(p);
}

static ht_status upload(void *dev, uint32_t queue, uint64_t to, const void *from, size_t bytes, ht_error *err)
{
    (void)dev;
    (void)queue;
    (void)err;
    memcpy((void *)(uintptr_t)to, from, bytes);
    return HT_OK;
}

static ht_status download(void *dev, uint32_t queue, void *to, uint64_t from, size_t bytes, ht_error *err)
{
    (void)dev;
    (void)queue;
    (void)err;
    memcpy(to, (const void *)(uintptr_t)from, bytes);
    return HT_OK;
}

static ht_status copy(void *dev, uint32_t queue, uint64_t to, uint64_t from, size_t bytes, ht_error *err)
{
    return upload(dev, queue, to, (const void *)(uintptr_t)from, bytes, err);
}

static ht_status launch(void *dev, uint32_t queue, const ht_gpu_launch *l, ht_error *err)
{
    ht_plain_block b = { .backwards = ((const plain_device *)dev)->backwards };
    void *ptr[HT_GPU_PTRS];

    (void)queue;
    if (l->kernel >= HT_N_GPU_KERNELS)
        return ht_fail(err, HT_EINVAL, "there is no kernel %u", l->kernel);
    for (uint32_t i = 0; i < HT_GPU_PTRS; i++)
        ptr[i] = (void *)(uintptr_t)l->ptr[i];
    for (b.z = 0; b.z < l->grid[2]; b.z++)
        for (b.y = 0; b.y < l->grid[1]; b.y++)
            for (b.x = 0; b.x < l->grid[0]; b.x++)
                ht_plain_kernels[l->kernel](&b, ptr, l->args);
    return HT_OK;
}

static ht_status on_queue(void *dev, uint32_t queue, uint32_t slot, ht_error *err)
{
    (void)dev;
    (void)queue;
    (void)slot;
    (void)err;
    return HT_OK;
}

static ht_status on_event(void *dev, uint32_t slot, ht_error *err)
{
    return on_queue(dev, 0, slot, err);
}

#define DRIVER(open_fn)                                                                                                \
    {                                                                                                                  \
        .abi = HT_GPU_ABI, .bytes = sizeof(ht_gpu_driver), .n_kernels = HT_N_GPU_KERNELS, .n_ptrs = HT_GPU_PTRS,       \
        .kernels_hash = ht_gpu_kernels_hash, .name = "plain", .count = count, .describe = describe, .open = open_fn,                     \
        .close = close_device, .free_bytes = free_bytes, .alloc = alloc, .free = free_memory,                          \
        .host_alloc = host_alloc, .host_free = host_free,                                                              \
        .upload = upload, .download = download, .copy = copy, .launch = launch, .record = on_queue, .query = on_event, \
        .wait = on_event, .join = on_queue,                                                                            \
    }

const ht_gpu_driver ht_plain_driver = DRIVER(open_forwards);
const ht_gpu_driver ht_plain_backwards_driver = DRIVER(open_backwards);
