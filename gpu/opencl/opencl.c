/* SPDX-License-Identifier: MIT
 *
 * The OpenCL plug-in: any device of OpenCL 1.2 or later, through the system's loader (libOpenCL.so.1), which is opened when
 * devices are asked for. Kernels are compiled by the device's own compiler when a device is opened, and kept on disk
 * (program.c).
 *
 * OpenCL 1.2 has no addresses: one is (number of the buffer << 40 | offset), taken apart for each launch. */
#include "gpu/opencl/opencl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/os.h"
#include "gpu/kernels/args.h"

#define HT_GPU_KERNEL(name, threads, args) { #name, threads, sizeof(args) },
static const ht_gpu_kernel_info kernels[HT_N_GPU_KERNELS] = {
#include "gpu/kernels/list.inc"
};
#undef HT_GPU_KERNEL

enum { MOST_DEVICES = 16, OFFSET_BITS = 40 };

/* ---- the vendor's library ---- */

struct cl_calls ht_cl;

static struct library {
    void *lib;
    cl_platform_id platform[MOST_DEVICES];
    cl_device_id device[MOST_DEVICES];
    uint32_t n;
} library;
static ht_os_mutex library_lock;

static const char *text_of(cl_int code)
{
    switch (code) {
    case CL_DEVICE_NOT_AVAILABLE: return "the device is not available";
    case CL_OUT_OF_RESOURCES: return "out of resources";
    case CL_OUT_OF_HOST_MEMORY: return "out of host memory";
    case CL_MEM_OBJECT_ALLOCATION_FAILURE: return "out of device memory";
    case CL_BUILD_PROGRAM_FAILURE: return "the kernels could not be compiled";
    case CL_INVALID_BUFFER_SIZE: return "a buffer of that size is not possible";
    default: return "error";
    }
}

ht_status ht_cl_fail(ht_error *err, const char *what, cl_int code)
{
    const bool memory = code == CL_OUT_OF_HOST_MEMORY || code == CL_MEM_OBJECT_ALLOCATION_FAILURE ||
                        code == CL_INVALID_BUFFER_SIZE;
    return ht_fail(err, memory ? HT_ENOMEM : HT_EDEVICE, "OpenCL, %s: %s (%d)", what, text_of(code), (int)code);
}

static ht_status load_calls(ht_error *err)
{
    library.lib = ht_os_lib_open("libOpenCL.so.1", err);
    if (!library.lib)
        return HT_EUNSUPPORTED;
#define CALL(name)                                                                                                     \
    *(void **)&ht_cl.name = ht_os_lib_symbol(library.lib, #name);                                                      \
    if (!ht_cl.name)                                                                                                   \
        return ht_fail(err, HT_EUNSUPPORTED, "libOpenCL.so.1 has no " #name);
    HT_CL_CALLS(CALL)
#undef CALL
    return HT_OK;
}

/* Devices that kernels can be compiled for. */
static void list_devices(void)
{
    cl_platform_id platform[MOST_DEVICES] = { NULL };
    cl_uint n_platforms = 0;

    if (ht_cl.clGetPlatformIDs(MOST_DEVICES, platform, &n_platforms) != CL_SUCCESS)
        return;
    for (cl_uint p = 0; p < n_platforms && p < MOST_DEVICES; p++) {
        cl_device_id dev[MOST_DEVICES] = { NULL };
        cl_uint n = 0;
        if (ht_cl.clGetDeviceIDs(platform[p], CL_DEVICE_TYPE_ALL, MOST_DEVICES, dev, &n) != CL_SUCCESS)
            continue;
        for (cl_uint i = 0; i < n && i < MOST_DEVICES && library.n < MOST_DEVICES; i++) {
            cl_bool compiler = CL_FALSE, available = CL_FALSE, little = CL_FALSE;
            ht_cl.clGetDeviceInfo(dev[i], CL_DEVICE_COMPILER_AVAILABLE, sizeof compiler, &compiler, NULL);
            ht_cl.clGetDeviceInfo(dev[i], CL_DEVICE_AVAILABLE, sizeof available, &available, NULL);
            ht_cl.clGetDeviceInfo(dev[i], CL_DEVICE_ENDIAN_LITTLE, sizeof little, &little, NULL);
            if (!compiler || !available || !little)
                continue;
            library.platform[library.n] = platform[p];
            library.device[library.n++] = dev[i];
        }
    }
}

static ht_status count(uint32_t *n, ht_error *err)
{
    ht_status st = HT_OK;

    *n = 0;
    ht_os_lock(&library_lock);
    if (!library.lib) {
        st = load_calls(err);
        if (st == HT_OK)
            list_devices();
        else if (library.lib) {
            ht_os_lib_close(library.lib);
            library.lib = NULL;
        }
    }
    if (st == HT_OK && library.n == 0)
        st = ht_fail(err, HT_EUNSUPPORTED, "OpenCL knows no device");
    *n = library.n;
    ht_os_unlock(&library_lock);
    return st;
}

static void text_info(cl_device_id d, cl_device_info what, char *to, size_t bytes)
{
    char text[512] = { 0 };

    if (ht_cl.clGetDeviceInfo(d, what, sizeof text - 1, text, NULL) != CL_SUCCESS)
        text[0] = 0;
    size_t n = strlen(text);
    n = n < bytes ? n : bytes - 1;
    memcpy(to, text, n);
    to[n] = 0;
}

static ht_status describe(uint32_t index, ht_gpu_info *out, ht_error *err)
{
    uint32_t n;
    ht_status st = count(&n, err);
    cl_ulong memory = 0, most = 0;
    cl_uint units = 0;
    cl_bool unified = CL_FALSE;
    cl_device_type type = 0;
    cl_device_fp_config fp = 0;

    if (st != HT_OK)
        return st;
    if (index >= n)
        return ht_fail(err, HT_EINVAL, "OpenCL has %u devices, number %u is not there", n, index);
    cl_device_id d = library.device[index];
    *out = (ht_gpu_info){ .driver = "opencl", .index = index };
    text_info(d, CL_DEVICE_NAME, out->name, sizeof out->name);
    text_info(d, CL_DEVICE_VERSION, out->version, sizeof out->version);
    ht_cl.clGetDeviceInfo(d, CL_DEVICE_GLOBAL_MEM_SIZE, sizeof memory, &memory, NULL);
    ht_cl.clGetDeviceInfo(d, CL_DEVICE_MAX_MEM_ALLOC_SIZE, sizeof most, &most, NULL);
    ht_cl.clGetDeviceInfo(d, CL_DEVICE_MAX_COMPUTE_UNITS, sizeof units, &units, NULL);
    ht_cl.clGetDeviceInfo(d, CL_DEVICE_HOST_UNIFIED_MEMORY, sizeof unified, &unified, NULL);
    ht_cl.clGetDeviceInfo(d, CL_DEVICE_TYPE, sizeof type, &type, NULL);
    ht_cl.clGetDeviceInfo(d, CL_DEVICE_SINGLE_FP_CONFIG, sizeof fp, &fp, NULL);
    out->memory_bytes = memory;
    out->most_bytes = most < 1ull << OFFSET_BITS ? most : 1ull << OFFSET_BITS;
    out->units = units;
    out->unified = unified;
    out->processor = type & CL_DEVICE_TYPE_CPU;
    out->exact = (fp & CL_FP_CORRECTLY_ROUNDED_DIVIDE_SQRT) && (fp & CL_FP_DENORM) && (fp & CL_FP_INF_NAN) &&
                 (fp & CL_FP_ROUND_TO_NEAREST);
    return HT_OK;
}

/* ---- a device ---- */

static void close_device(void *dev)
{
    opencl_device *d = dev;

    for (uint32_t q = 0; q < HT_GPU_QUEUES; q++)
        if (d->queue[q])
            ht_cl.clFinish(d->queue[q]);
    for (uint32_t i = 0; i < HT_GPU_EVENTS; i++)
        if (d->event[i])
            ht_cl.clReleaseEvent(d->event[i]);
    for (uint32_t i = 0; i < HT_N_GPU_KERNELS; i++)
        if (d->kernel[i])
            ht_cl.clReleaseKernel(d->kernel[i]);
    for (uint32_t i = 0; i < d->n_buffers; i++)
        if (d->buffer[i])
            ht_cl.clReleaseMemObject(d->buffer[i]);
    for (uint32_t i = 0; i < OPENCL_HOST_BLOCKS; i++)
        if (d->host[i].mem)
            ht_cl.clReleaseMemObject(d->host[i].mem);
    if (d->program)
        ht_cl.clReleaseProgram(d->program);
    for (uint32_t q = 0; q < HT_GPU_QUEUES; q++)
        if (d->queue[q])
            ht_cl.clReleaseCommandQueue(d->queue[q]);
    if (d->context)
        ht_cl.clReleaseContext(d->context);
    free(d->buffer);
    free(d);
}

static ht_status open_device(void **dev, const ht_gpu_open_args *args, ht_error *err)
{
    ht_gpu_info info = { 0 };
    ht_status st = describe(args->index, &info, err);
    cl_int code = CL_SUCCESS;

    *dev = NULL;
    if (st != HT_OK)
        return st;
    opencl_device *d = calloc(1, sizeof *d);
    if (!d)
        return ht_fail(err, HT_ENOMEM, "OpenCL device");
    d->device = library.device[args->index];
    d->exact = info.exact;
    d->context = ht_cl.clCreateContext(NULL, 1, &d->device, NULL, NULL, &code);
    if (!d->context) {
        st = ht_cl_fail(err, "context", code);
        goto fail;
    }
    for (uint32_t q = 0; q < HT_GPU_QUEUES; q++) {
        d->queue[q] = ht_cl.clCreateCommandQueue(d->context, d->device, 0, &code);
        if (!d->queue[q]) {
            st = ht_cl_fail(err, "queue", code);
            goto fail;
        }
    }
    if ((st = ht_cl_program(d, args->cache_dir, err)) != HT_OK)
        goto fail;
    for (uint32_t i = 0; i < HT_N_GPU_KERNELS; i++) {
        char name[64];
        snprintf(name, sizeof name, "ht_k_%s", kernels[i].name);
        d->kernel[i] = ht_cl.clCreateKernel(d->program, name, &code);
        if (!d->kernel[i]) {
            st = ht_cl_fail(err, kernels[i].name, code);
            goto fail;
        }
    }
    *dev = d;
    return HT_OK;

fail:
    close_device(d);
    return st;
}

/* ---- memory ---- */

static ht_status free_bytes(void *dev, uint64_t *bytes, ht_error *err)
{
    (void)dev;
    *bytes = 0;
    return ht_fail(err, HT_EUNSUPPORTED, "OpenCL cannot tell the free memory");
}

static ht_status alloc(void *dev, uint64_t bytes, uint64_t *addr, ht_error *err)
{
    opencl_device *d = dev;
    uint32_t i = 0;
    cl_int code = CL_SUCCESS;

    while (i < d->n_buffers && d->buffer[i])
        i++;
    if (i == d->n_buffers) {
        const uint32_t most = d->n_buffers ? 2 * d->n_buffers : 64;
        cl_mem *b = most <= 1u << 22 ? realloc(d->buffer, most * sizeof(cl_mem)) : NULL;
        if (!b)
            return ht_fail(err, HT_ENOMEM, "list of %u buffers", most);
        memset(b + d->n_buffers, 0, (most - d->n_buffers) * sizeof(cl_mem));
        d->buffer = b;
        d->n_buffers = most;
    }
    cl_mem m = ht_cl.clCreateBuffer(d->context, CL_MEM_READ_WRITE, bytes, NULL, &code);
    if (!m)
        return ht_cl_fail(err, "memory", code);
    /* Most drivers allocate when a buffer is first used; refusals are wanted now. */
    code = ht_cl.clEnqueueMigrateMemObjects(d->queue[HT_GPU_TRANSFER], 1, &m, CL_MIGRATE_MEM_OBJECT_CONTENT_UNDEFINED, 0,
                                            NULL, NULL);
    if (code == CL_SUCCESS)
        code = ht_cl.clFinish(d->queue[HT_GPU_TRANSFER]);
    if (code != CL_SUCCESS) {
        ht_cl.clReleaseMemObject(m);
        return code == CL_OUT_OF_RESOURCES ? ht_fail(err, HT_ENOMEM, "OpenCL: out of device memory")
                                           : ht_cl_fail(err, "memory", code);
    }
    d->buffer[i] = m;
    *addr = (uint64_t)(i + 1) << OFFSET_BITS;
    return HT_OK;
}

/* The buffer of an address, NULL where there is none; *offset within it. */
static cl_mem buffer_of(const opencl_device *d, uint64_t addr, uint64_t *offset)
{
    const uint64_t i = addr >> OFFSET_BITS;

    *offset = addr & ((1ull << OFFSET_BITS) - 1);
    return i && i <= d->n_buffers ? d->buffer[i - 1] : NULL;
}

static void free_memory(void *dev, uint64_t addr)
{
    opencl_device *d = dev;
    uint64_t offset;
    cl_mem m = buffer_of(d, addr, &offset);

    if (!m)
        return;
    ht_cl.clReleaseMemObject(m);
    d->buffer[(addr >> OFFSET_BITS) - 1] = NULL;
}

static ht_status host_alloc(void *dev, size_t bytes, void **p, ht_error *err)
{
    opencl_device *d = dev;
    uint32_t i = 0;
    cl_int code = CL_SUCCESS;

    while (i < OPENCL_HOST_BLOCKS && d->host[i].mem)
        i++;
    if (i == OPENCL_HOST_BLOCKS)
        return ht_fail(err, HT_ENOMEM, "more than %u blocks of host memory", i);
    cl_mem m = ht_cl.clCreateBuffer(d->context, CL_MEM_READ_WRITE | CL_MEM_ALLOC_HOST_PTR, bytes, NULL, &code);
    if (!m)
        return ht_cl_fail(err, "host memory", code);
    *p = ht_cl.clEnqueueMapBuffer(d->queue[HT_GPU_TRANSFER], m, CL_TRUE, CL_MAP_READ | CL_MAP_WRITE, 0, bytes, 0, NULL,
                                  NULL, &code);
    if (!*p) {
        ht_cl.clReleaseMemObject(m);
        return ht_cl_fail(err, "host memory", code);
    }
    d->host[i].mem = m;
    d->host[i].p = *p;
    return HT_OK;
}

static void host_free(void *dev, void *p)
{
    opencl_device *d = dev;

    for (uint32_t i = 0; i < OPENCL_HOST_BLOCKS; i++)
        if (d->host[i].mem && d->host[i].p == p) {
            ht_cl.clEnqueueUnmapMemObject(d->queue[HT_GPU_TRANSFER], d->host[i].mem, p, 0, NULL, NULL);
            ht_cl.clFinish(d->queue[HT_GPU_TRANSFER]);
            ht_cl.clReleaseMemObject(d->host[i].mem);
            d->host[i].mem = NULL;
        }
}

/* ---- queues ---- */

static ht_status done(ht_error *err, const char *what, cl_int code)
{
    return code == CL_SUCCESS ? HT_OK : ht_cl_fail(err, what, code);
}

static ht_status upload(void *dev, uint32_t queue, uint64_t to, const void *from, size_t bytes, ht_error *err)
{
    opencl_device *d = dev;
    uint64_t at;
    cl_mem m = buffer_of(d, to, &at);
    return done(err, "upload",
                ht_cl.clEnqueueWriteBuffer(d->queue[queue], m, CL_FALSE, at, bytes, from, 0, NULL, NULL));
}

static ht_status download(void *dev, uint32_t queue, void *to, uint64_t from, size_t bytes, ht_error *err)
{
    opencl_device *d = dev;
    uint64_t at;
    cl_mem m = buffer_of(d, from, &at);
    return done(err, "download",
                ht_cl.clEnqueueReadBuffer(d->queue[queue], m, CL_FALSE, at, bytes, to, 0, NULL, NULL));
}

static ht_status copy(void *dev, uint32_t queue, uint64_t to, uint64_t from, size_t bytes, ht_error *err)
{
    opencl_device *d = dev;
    uint64_t at, src_at;
    cl_mem m = buffer_of(d, to, &at), src = buffer_of(d, from, &src_at);
    return done(err, "copy", ht_cl.clEnqueueCopyBuffer(d->queue[queue], src, m, src_at, at, bytes, 0, NULL, NULL));
}

static ht_status launch(void *dev, uint32_t queue, const ht_gpu_launch *l, ht_error *err)
{
    opencl_device *d = dev;
    cl_ulong offset[16] = { 0 };

    if (l->kernel >= HT_N_GPU_KERNELS || l->args_bytes != kernels[l->kernel].args_bytes)
        return ht_fail(err, HT_EINVAL, "there is no kernel %u", l->kernel);
    cl_kernel k = d->kernel[l->kernel];
    const size_t local[3] = { kernels[l->kernel].threads, 1, 1 };
    const size_t global[3] = { local[0] * l->grid[0], l->grid[1], l->grid[2] };
    cl_int code = CL_SUCCESS;
    for (cl_uint i = 0; i < HT_GPU_PTRS && code == CL_SUCCESS; i++) {
        uint64_t at;
        cl_mem m = buffer_of(d, l->ptr[i], &at);
        if (l->ptr[i] && !m)
            return ht_fail(err, HT_EINVAL, "%s: address %u is in no buffer", kernels[l->kernel].name, i);
        offset[i] = at;
        code = ht_cl.clSetKernelArg(k, i, sizeof(cl_mem), &m);
    }
    if (code == CL_SUCCESS)
        code = ht_cl.clSetKernelArg(k, HT_GPU_PTRS, sizeof offset, offset);
    if (code == CL_SUCCESS)
        code = ht_cl.clSetKernelArg(k, HT_GPU_PTRS + 1, l->args_bytes, l->args);
    if (code == CL_SUCCESS)
        code = ht_cl.clEnqueueNDRangeKernel(d->queue[queue], k, 3, NULL, global, local, 0, NULL, NULL);
    return done(err, kernels[l->kernel].name, code);
}

static ht_status record(void *dev, uint32_t queue, uint32_t slot, ht_error *err)
{
    opencl_device *d = dev;
    cl_event e;
    const cl_int code = ht_cl.clEnqueueMarkerWithWaitList(d->queue[queue], 0, NULL, &e);

    if (code != CL_SUCCESS)
        return ht_cl_fail(err, "event", code);
    if (d->event[slot])
        ht_cl.clReleaseEvent(d->event[slot]);
    d->event[slot] = e;
    return done(err, "flush", ht_cl.clFlush(d->queue[queue]));
}

static ht_status query(void *dev, uint32_t slot, ht_error *err)
{
    opencl_device *d = dev;
    cl_int state = CL_COMPLETE;

    if (!d->event[slot])
        return HT_OK;
    const cl_int code =
        ht_cl.clGetEventInfo(d->event[slot], CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof state, &state, NULL);
    if (code != CL_SUCCESS || state < 0)
        return ht_fail(err, HT_EDEVICE, "OpenCL: what was queued failed (%d)", (int)(code != CL_SUCCESS ? code : state));
    return state == CL_COMPLETE ? HT_OK : HT_LATER;
}

static ht_status wait_for(void *dev, uint32_t slot, ht_error *err)
{
    opencl_device *d = dev;

    if (!d->event[slot])
        return HT_OK;
    ht_cl.clWaitForEvents(1, &d->event[slot]);
    return query(dev, slot, err);
}

static ht_status join(void *dev, uint32_t queue, uint32_t slot, ht_error *err)
{
    opencl_device *d = dev;

    if (!d->event[slot])
        return HT_OK;
    return done(err, "join", ht_cl.clEnqueueBarrierWithWaitList(d->queue[queue], 1, &d->event[slot], NULL));
}

static uint64_t hash(void) { return ht_gpu_hash_kernels(kernels, HT_N_GPU_KERNELS); }

__attribute__((visibility("default"))) const ht_gpu_driver ht_gpu_driver_table = {
    .abi = HT_GPU_ABI, .bytes = sizeof(ht_gpu_driver), .n_kernels = HT_N_GPU_KERNELS, .n_ptrs = HT_GPU_PTRS,
    .name = "opencl", .kernels_hash = hash, .count = count, .describe = describe, .open = open_device,
    .close = close_device, .free_bytes = free_bytes, .alloc = alloc, .free = free_memory, .host_alloc = host_alloc, .host_free = host_free,
    .upload = upload, .download = download, .copy = copy, .launch = launch, .record = record, .query = query,
    .wait = wait_for, .join = join,
};
