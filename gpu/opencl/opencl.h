/* SPDX-License-Identifier: MIT
 * Inside the OpenCL plug-in. */
#ifndef HT_GPU_OPENCL_H
#define HT_GPU_OPENCL_H

#define CL_TARGET_OPENCL_VERSION 120
#define CL_USE_DEPRECATED_OPENCL_1_2_APIS
#include <CL/cl.h>

#include "gpu/driver.h"

/* What is used of the vendor's library. */
#define HT_CL_CALLS(X)                                                                                                 \
    X(clGetPlatformIDs) X(clGetDeviceIDs) X(clGetDeviceInfo) X(clCreateContext) X(clReleaseContext)                    \
    X(clCreateCommandQueue) X(clReleaseCommandQueue) X(clFlush) X(clFinish) X(clCreateBuffer) X(clReleaseMemObject)    \
    X(clCreateProgramWithSource) X(clCreateProgramWithBinary) X(clBuildProgram) X(clGetProgramInfo)                    \
    X(clGetProgramBuildInfo) X(clReleaseProgram) X(clCreateKernel) X(clReleaseKernel) X(clSetKernelArg)                \
    X(clEnqueueNDRangeKernel) X(clEnqueueWriteBuffer) X(clEnqueueReadBuffer) X(clEnqueueCopyBuffer)                    \
    X(clEnqueueMapBuffer) X(clEnqueueUnmapMemObject) X(clEnqueueMigrateMemObjects) X(clEnqueueMarkerWithWaitList)      \
    X(clEnqueueBarrierWithWaitList) X(clGetEventInfo) X(clWaitForEvents) X(clReleaseEvent)

struct cl_calls {
#define CALL(name) __typeof__(name) *name;
    HT_CL_CALLS(CALL)
#undef CALL
};
extern struct cl_calls ht_cl;

enum { OPENCL_HOST_BLOCKS = 64 };

typedef struct opencl_device {
    cl_device_id device;
    cl_context context;
    cl_command_queue queue[HT_GPU_QUEUES];
    cl_program program;
    cl_kernel kernel[HT_N_GPU_KERNELS];
    cl_event event[HT_GPU_EVENTS];
    cl_mem *buffer; /* [n_buffers], NULL: free */
    uint32_t n_buffers;
    struct { cl_mem mem; void *p; } host[OPENCL_HOST_BLOCKS];
    bool exact;
} opencl_device;

/* EDEVICE, or ENOMEM where memory is what was refused. */
ht_status ht_cl_fail(ht_error *err, const char *what, cl_int code);

/* Builds d->program for d->device, from the cache where it is there. */
ht_status ht_cl_program(opencl_device *d, const char *cache_dir, ht_error *err);

#endif
