/* SPDX-License-Identifier: MIT
 *
 * The kernels for an OpenCL device: compiled from source by its own compiler, and kept in a file of the cache folder
 * under the hash of source, options, device and its software. The file: the 8 bytes "HTCL0001", u64 bytes, u64 hash of
 * what follows, the program. A file that is damaged, or that the device refuses, is compiled anew. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpu/opencl/opencl.h"

extern const unsigned char ht_opencl_source[];
extern const size_t ht_opencl_source_bytes;

enum { MOST_BYTES = 256 << 20, HEAD = 24 };
static const char magic[8] = "HTCL0001";

static uint64_t hash(uint64_t h, const void *p, size_t n)
{
    const uint8_t *b = p;
    for (size_t i = 0; i < n; i++)
        h = (h ^ b[i]) * 0x100000001b3u;
    return h;
}

static uint64_t hash_info(uint64_t h, cl_device_id d, cl_device_info what)
{
    char text[512] = { 0 };
    ht_cl.clGetDeviceInfo(d, what, sizeof text, text, NULL);
    return hash(h, text, strlen(text) + 1);
}

static ht_status build(opencl_device *d, const char *options, ht_error *err)
{
    const cl_int code = ht_cl.clBuildProgram(d->program, 1, &d->device, options, NULL, NULL);
    char log[400] = { 0 };
    size_t n = 0;

    if (code == CL_SUCCESS)
        return HT_OK;
    ht_cl.clGetProgramBuildInfo(d->program, d->device, CL_PROGRAM_BUILD_LOG, 0, NULL, &n);
    char *all = n && n < MOST_BYTES ? calloc(1, n + 1) : NULL;
    if (all && ht_cl.clGetProgramBuildInfo(d->program, d->device, CL_PROGRAM_BUILD_LOG, n, all, NULL) == CL_SUCCESS) {
        const char *at = strstr(all, "error");
        snprintf(log, sizeof log, "%s", at ? at : all);
    }
    free(all);
    for (char *c = log; *c; c++)
        *c = *c == '\n' ? ' ' : *c;
    return ht_fail(err, HT_EDEVICE, "OpenCL: the kernels could not be compiled (%d): %s", (int)code, log);
}

/* The program in a file of the cache; false: there is none that can be used. */
static bool load(opencl_device *d, const char *path, const char *options)
{
    FILE *f = fopen(path, "rb");
    unsigned char head[HEAD], *p = NULL;
    uint64_t bytes, sum;
    bool ok = false;
    cl_int code = CL_SUCCESS, status = CL_SUCCESS;

    if (!f)
        return false;
    if (fread(head, 1, HEAD, f) == HEAD && !memcmp(head, magic, sizeof magic)) {
        memcpy(&bytes, head + 8, 8);
        memcpy(&sum, head + 16, 8);
        p = bytes && bytes < MOST_BYTES ? malloc((size_t)bytes) : NULL;
        ok = p && fread(p, 1, (size_t)bytes, f) == bytes && hash(0, p, (size_t)bytes) == sum;
    }
    fclose(f);
    if (ok) {
        const size_t n = (size_t)bytes;
        const unsigned char *from = p;
        d->program = ht_cl.clCreateProgramWithBinary(d->context, 1, &d->device, &n, &from, &status, &code);
        ok = d->program && code == CL_SUCCESS && build(d, options, NULL) == HT_OK;
        if (!ok && d->program) {
            ht_cl.clReleaseProgram(d->program);
            d->program = NULL;
        }
    }
    free(p);
    return ok;
}

/* Another process may write the same file: each writes its own and renames it. */
static void store(const opencl_device *d, const char *path)
{
    size_t n = 0;
    char part[4200];
    unsigned char head[HEAD];

    if (ht_cl.clGetProgramInfo(d->program, CL_PROGRAM_BINARY_SIZES, sizeof n, &n, NULL) != CL_SUCCESS || !n ||
        n >= MOST_BYTES)
        return;
    unsigned char *p = malloc(n), *to[1] = { p };
    if (p && ht_cl.clGetProgramInfo(d->program, CL_PROGRAM_BINARIES, sizeof to, to, NULL) == CL_SUCCESS) {
        const uint64_t bytes = n, sum = hash(0, p, n);
        memcpy(head, magic, 8);
        memcpy(head + 8, &bytes, 8);
        memcpy(head + 16, &sum, 8);
        snprintf(part, sizeof part, "%s.%p.part", path, (const void *)d);
        FILE *f = fopen(part, "wb");
        if (f) {
            const bool written = fwrite(head, 1, HEAD, f) == HEAD && fwrite(p, 1, n, f) == n;
            if (fclose(f) != 0 || !written || rename(part, path) != 0)
                remove(part);
        }
    }
    free(p);
}

ht_status ht_cl_program(opencl_device *d, const char *cache_dir, ht_error *err)
{
    const char *options = d->exact ? "-cl-std=CL1.2 -cl-fp32-correctly-rounded-divide-sqrt" : "-cl-std=CL1.2";
    const char *source = (const char *)ht_opencl_source;
    char path[4096];
    cl_int code = CL_SUCCESS;

    uint64_t h = hash(0xcbf29ce484222325u, ht_opencl_source, ht_opencl_source_bytes);
    h = hash(h, options, strlen(options) + 1);
    h = hash_info(h, d->device, CL_DEVICE_NAME);
    h = hash_info(h, d->device, CL_DEVICE_VERSION);
    h = hash_info(h, d->device, CL_DRIVER_VERSION);
    const bool cached =
        cache_dir && snprintf(path, sizeof path, "%s/opencl-%016" PRIx64 ".bin", cache_dir, h) < (int)sizeof path;
    if (cached && load(d, path, options))
        return HT_OK;
    d->program = ht_cl.clCreateProgramWithSource(d->context, 1, &source, &ht_opencl_source_bytes, &code);
    if (!d->program)
        return ht_cl_fail(err, "kernels", code);
    const ht_status st = build(d, options, err);
    if (st == HT_OK && cached)
        store(d, path);
    return st;
}
