/* SPDX-License-Identifier: MIT
 *
 * The CUDA plug-in: NVIDIA devices from compute capability 7.5 on, through the driver's own library (libcuda.so.1), which is
 * opened when devices are asked for. No runtime library, no cuBLAS: the kernels are a fat binary in here (kernels.cu).
 * Every call makes the device's primary context current and puts back what was: the program around may use CUDA too. */
#include <cuda.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/os.h"
#include "gpu/driver.h"
#include "gpu/kernels/args.h"

extern const unsigned char ht_cuda_kernels[];

#define HT_GPU_KERNEL(name, threads, args) { #name, threads, sizeof(args) },
static const ht_gpu_kernel_info kernels[HT_N_GPU_KERNELS] = {
#include "gpu/kernels/list.inc"
};
#undef HT_GPU_KERNEL

enum { LEAST_MAJOR = 7, LEAST_MINOR = 5 };

/* ---- the driver's library ---- */

/* The header gives some names a version; the library has them under that. */
#define CALLS(X)                                                                                                       \
    X(cuInit) X(cuDriverGetVersion) X(cuGetErrorString) X(cuDeviceGetCount) X(cuDeviceGet) X(cuDeviceGetName)          \
    X(cuDeviceTotalMem) X(cuDeviceGetAttribute) X(cuDevicePrimaryCtxRetain) X(cuDevicePrimaryCtxRelease)               \
    X(cuCtxPushCurrent) X(cuCtxPopCurrent) X(cuMemGetInfo) X(cuMemAlloc) X(cuMemFree) X(cuMemHostAlloc)                \
    X(cuMemFreeHost) X(cuMemcpyHtoDAsync) X(cuMemcpyDtoHAsync) X(cuMemcpyDtoDAsync) X(cuStreamCreate)                  \
    X(cuStreamDestroy) X(cuStreamSynchronize) X(cuStreamWaitEvent) X(cuEventCreate) X(cuEventDestroy) X(cuEventRecord) \
    X(cuEventQuery) X(cuEventSynchronize) X(cuModuleLoadData) X(cuModuleUnload) X(cuModuleGetFunction)                 \
    X(cuLaunchKernel)
#define CAT2(a, b) a##b
#define CAT(a, b) CAT2(a, b)
#define TEXT2(x) #x
#define TEXT(x) TEXT2(x)
#define CU(name) CAT(call_, name)

#define X(name) static __typeof__(name) *CAT(call_, name);
CALLS(X)
#undef X

static struct library {
    void *lib;
    int n;
} library;
static ht_os_mutex library_lock;

static ht_status fail(ht_error *err, const char *what, CUresult code)
{
    const char *text = NULL;

    CU(cuGetErrorString)(code, &text);
    return ht_fail(err, code == CUDA_ERROR_OUT_OF_MEMORY ? HT_ENOMEM : HT_EDEVICE, "CUDA, %s: %s (%d)", what,
                   text ? text : "error", (int)code);
}

static ht_status done(ht_error *err, const char *what, CUresult code)
{
    return code == CUDA_SUCCESS ? HT_OK : fail(err, what, code);
}

static ht_status load(ht_error *err)
{
    library.lib = ht_os_lib_open("libcuda.so.1", err);
    if (!library.lib)
        return HT_EUNSUPPORTED;
#define X(name)                                                                                                        \
    *(void **)&CU(name) = ht_os_lib_symbol(library.lib, TEXT(name));                                                   \
    if (!CU(name))                                                                                                     \
        return ht_fail(err, HT_EUNSUPPORTED, "NVIDIA's driver is too old: it has no " TEXT(name));
    CALLS(X)
#undef X
    const CUresult code = CU(cuInit)(0);
    if (code == CUDA_ERROR_NO_DEVICE)
        return ht_fail(err, HT_EUNSUPPORTED, "NVIDIA's driver finds no device");
    if (code != CUDA_SUCCESS)
        return fail(err, "start", code);
    return done(err, "devices", CU(cuDeviceGetCount)(&library.n));
}

static ht_status count(uint32_t *n, ht_error *err)
{
    ht_status st = HT_OK;

    *n = 0;
    ht_os_lock(&library_lock);
    if (!library.lib && (st = load(err)) != HT_OK) {
        ht_os_lib_close(library.lib);
        library.lib = NULL;
    }
    if (st == HT_OK && library.n <= 0)
        st = ht_fail(err, HT_EUNSUPPORTED, "NVIDIA's driver finds no device");
    if (st == HT_OK)
        *n = (uint32_t)library.n;
    ht_os_unlock(&library_lock);
    return st;
}

static int attribute(CUdevice d, CUdevice_attribute what)
{
    int v = 0;
    return CU(cuDeviceGetAttribute)(&v, what, d) == CUDA_SUCCESS ? v : 0;
}

static ht_status describe(uint32_t index, ht_gpu_info *out, ht_error *err)
{
    uint32_t n;
    CUdevice d;
    size_t bytes = 0;
    int driver = 0;
    ht_status st = count(&n, err);

    if (st != HT_OK)
        return st;
    if (index >= n)
        return ht_fail(err, HT_EINVAL, "CUDA has %u devices, number %u is not there", n, index);
    if ((st = done(err, "device", CU(cuDeviceGet)(&d, (int)index))) != HT_OK)
        return st;
    *out = (ht_gpu_info){ .driver = "cuda", .index = index, .exact = true };
    CU(cuDeviceGetName)(out->name, sizeof out->name, d);
    CU(cuDeviceTotalMem)(&bytes, d);
    CU(cuDriverGetVersion)(&driver);
    out->memory_bytes = out->most_bytes = bytes;
    out->units = (uint32_t)attribute(d, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
    out->unified = attribute(d, CU_DEVICE_ATTRIBUTE_INTEGRATED);
    snprintf(out->version, sizeof out->version, "CUDA %d.%d, compute capability %d.%d", driver / 1000, driver % 1000 / 10,
             attribute(d, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR),
             attribute(d, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR));
    return HT_OK;
}

/* ---- a device ---- */

typedef struct cuda_device {
    CUdevice device;
    CUcontext context;
    CUmodule module;
    CUstream queue[HT_GPU_QUEUES];
    CUevent event[HT_GPU_EVENTS];
    CUfunction kernel[HT_N_GPU_KERNELS];
} cuda_device;

static void enter(const cuda_device *d) { CU(cuCtxPushCurrent)(d->context); }

static void leave(void)
{
    CUcontext c;
    CU(cuCtxPopCurrent)(&c);
}

/* One call with the device's context. */
#define WITHIN(d, err, what, call)                                                                                     \
    do {                                                                                                               \
        enter(d);                                                                                                      \
        const CUresult code_ = (call);                                                                                 \
        leave();                                                                                                       \
        return done(err, what, code_);                                                                                 \
    } while (0)

static void close_device(void *dev)
{
    cuda_device *d = dev;

    if (d->context) {
        enter(d);
        for (uint32_t q = 0; q < HT_GPU_QUEUES; q++)
            if (d->queue[q]) {
                CU(cuStreamSynchronize)(d->queue[q]);
                CU(cuStreamDestroy)(d->queue[q]);
            }
        for (uint32_t i = 0; i < HT_GPU_EVENTS; i++)
            if (d->event[i])
                CU(cuEventDestroy)(d->event[i]);
        if (d->module)
            CU(cuModuleUnload)(d->module);
        leave();
        CU(cuDevicePrimaryCtxRelease)(d->device);
    }
    free(d);
}

/* Queues, events, kernels, the context being current. */
static ht_status fill(cuda_device *d, ht_error *err)
{
    ht_status st = HT_OK;

    for (uint32_t q = 0; q < HT_GPU_QUEUES && st == HT_OK; q++)
        st = done(err, "queue", CU(cuStreamCreate)(&d->queue[q], CU_STREAM_NON_BLOCKING));
    for (uint32_t i = 0; i < HT_GPU_EVENTS && st == HT_OK; i++)
        st = done(err, "event", CU(cuEventCreate)(&d->event[i], CU_EVENT_DISABLE_TIMING));
    if (st == HT_OK)
        st = done(err, "kernels", CU(cuModuleLoadData)(&d->module, ht_cuda_kernels));
    for (uint32_t i = 0; i < HT_N_GPU_KERNELS && st == HT_OK; i++) {
        char name[64];
        snprintf(name, sizeof name, "ht_k_%s", kernels[i].name);
        st = done(err, kernels[i].name, CU(cuModuleGetFunction)(&d->kernel[i], d->module, name));
    }
    return st;
}

static ht_status open_device(void **dev, const ht_gpu_open_args *args, ht_error *err)
{
    cuda_device *d = calloc(1, sizeof *d);
    ht_status st;

    *dev = NULL;
    if (!d)
        return ht_fail(err, HT_ENOMEM, "CUDA device");
    if ((st = done(err, "device", CU(cuDeviceGet)(&d->device, (int)args->index))) != HT_OK)
        goto fail;
    const int major = attribute(d->device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
    const int minor = attribute(d->device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
    if (major * 10 + minor < LEAST_MAJOR * 10 + LEAST_MINOR) {
        st = ht_fail(err, HT_EUNSUPPORTED, "the GPU has compute capability %d.%d, %d.%d is needed", major, minor,
                     LEAST_MAJOR, LEAST_MINOR);
        goto fail;
    }
    if ((st = done(err, "context", CU(cuDevicePrimaryCtxRetain)(&d->context, d->device))) != HT_OK) {
        d->context = NULL;
        goto fail;
    }
    enter(d);
    st = fill(d, err);
    leave();
    if (st != HT_OK)
        goto fail;
    *dev = d;
    return HT_OK;

fail:
    close_device(d);
    return st;
}

/* ---- memory ---- */

static ht_status free_bytes(void *dev, uint64_t *bytes, ht_error *err)
{
    const cuda_device *d = dev;
    size_t left = 0, all;

    enter(d);
    const CUresult code = CU(cuMemGetInfo)(&left, &all);
    leave();
    *bytes = left;
    return done(err, "free memory", code);
}

static ht_status alloc(void *dev, uint64_t bytes, uint64_t *addr, ht_error *err)
{
    CUdeviceptr p = 0;

    enter(dev);
    const CUresult code = CU(cuMemAlloc)(&p, bytes);
    leave();
    *addr = p;
    return done(err, "memory", code);
}

static void free_memory(void *dev, uint64_t addr)
{
    enter(dev);
    CU(cuMemFree)(addr);
    leave();
}

static ht_status host_alloc(void *dev, size_t bytes, void **p, ht_error *err)
{
    WITHIN(dev, err, "host memory", CU(cuMemHostAlloc)(p, bytes, 0));
}

static void host_free(void *dev, void *p)
{
    enter(dev);
    CU(cuMemFreeHost)(p);
    leave();
}

/* ---- queues ---- */

static ht_status upload(void *dev, uint32_t queue, uint64_t to, const void *from, size_t bytes, ht_error *err)
{
    const cuda_device *d = dev;
    WITHIN(d, err, "upload", CU(cuMemcpyHtoDAsync)(to, from, bytes, d->queue[queue]));
}

static ht_status download(void *dev, uint32_t queue, void *to, uint64_t from, size_t bytes, ht_error *err)
{
    const cuda_device *d = dev;
    WITHIN(d, err, "download", CU(cuMemcpyDtoHAsync)(to, from, bytes, d->queue[queue]));
}

static ht_status copy(void *dev, uint32_t queue, uint64_t to, uint64_t from, size_t bytes, ht_error *err)
{
    const cuda_device *d = dev;
    WITHIN(d, err, "copy", CU(cuMemcpyDtoDAsync)(to, from, bytes, d->queue[queue]));
}

static ht_status launch(void *dev, uint32_t queue, const ht_gpu_launch *l, ht_error *err)
{
    const cuda_device *d = dev;
    void *param[HT_GPU_PTRS + 1];
    uint64_t ptr[HT_GPU_PTRS];

    if (l->kernel >= HT_N_GPU_KERNELS || l->args_bytes != kernels[l->kernel].args_bytes)
        return ht_fail(err, HT_EINVAL, "there is no kernel %u", l->kernel);
    memcpy(ptr, l->ptr, sizeof ptr);
    for (uint32_t i = 0; i < HT_GPU_PTRS; i++)
        param[i] = &ptr[i];
    param[HT_GPU_PTRS] = (void *)(uintptr_t)l->args; /* copied by the call */
    WITHIN(d, err, kernels[l->kernel].name,
           CU(cuLaunchKernel)(d->kernel[l->kernel], l->grid[0], l->grid[1], l->grid[2], kernels[l->kernel].threads, 1, 1,
                              l->shared_bytes, d->queue[queue], param, NULL));
}

static ht_status record(void *dev, uint32_t queue, uint32_t slot, ht_error *err)
{
    const cuda_device *d = dev;
    WITHIN(d, err, "event", CU(cuEventRecord)(d->event[slot], d->queue[queue]));
}

static ht_status query(void *dev, uint32_t slot, ht_error *err)
{
    const cuda_device *d = dev;

    enter(d);
    const CUresult code = CU(cuEventQuery)(d->event[slot]);
    leave();
    return code == CUDA_ERROR_NOT_READY ? HT_LATER : done(err, "what was queued", code);
}

static ht_status wait_for(void *dev, uint32_t slot, ht_error *err)
{
    const cuda_device *d = dev;
    WITHIN(d, err, "what was queued", CU(cuEventSynchronize)(d->event[slot]));
}

static ht_status join(void *dev, uint32_t queue, uint32_t slot, ht_error *err)
{
    const cuda_device *d = dev;
    WITHIN(d, err, "join", CU(cuStreamWaitEvent)(d->queue[queue], d->event[slot], 0));
}

static uint64_t hash(void) { return ht_gpu_hash_kernels(kernels, HT_N_GPU_KERNELS); }

__attribute__((visibility("default"))) const ht_gpu_driver ht_gpu_driver_table = {
    .abi = HT_GPU_ABI, .bytes = sizeof(ht_gpu_driver), .n_kernels = HT_N_GPU_KERNELS, .n_ptrs = HT_GPU_PTRS,
    .name = "cuda", .kernels_hash = hash, .count = count, .describe = describe, .open = open_device,
    .close = close_device, .free_bytes = free_bytes, .alloc = alloc, .free = free_memory, .host_alloc = host_alloc,
    .host_free = host_free, .upload = upload, .download = download, .copy = copy, .launch = launch, .record = record,
    .query = query, .wait = wait_for, .join = join,
};
