/* SPDX-License-Identifier: MIT
 * Inside the room gpu: a device opened through a driver, with its memory and events. Not for other rooms but tests. */
#ifndef HT_GPU_DEVICE_H
#define HT_GPU_DEVICE_H

#include "engine/base/os.h"
#include "gpu/driver.h"
#include "gpu/gpu.h"

typedef struct gpu_block { /* an allocation */
    uint64_t addr, bytes;
} gpu_block;

struct ht_gpu {
    const ht_gpu_driver *driver;
    void *dev;
    void *plugin; /* of ht_os_lib_open, or NULL */
    ht_gpu_info info;
    ht_os_mutex lock; /* over all below and every call of the driver */
    uint64_t limit, used, peak;
    gpu_block *block; /* [n_blocks], by address */
    uint32_t n_blocks, most_blocks;
    ht_gpu_event last;                   /* recorded so far */
    ht_gpu_event reached;                /* all up to here are */
    bool lost;
    ht_os_mutex staging_lock; /* over the pieces of uploads of weights (weights.c) */
    uint8_t *staging;
    bool staging_pinned;
    uint32_t n_execs;
};

/* Opens device `index` of a driver; plugin is closed with it. */
ht_status ht_gpu_open_driver(ht_gpu **out, const ht_gpu_driver *driver, void *plugin, const ht_gpu_params *p, ht_error *err);

/* Whether a table is of this build. */
bool ht_gpu_driver_fits(const ht_gpu_driver *d);

/* name, threads, size of arguments of every kernel. */
extern const ht_gpu_kernel_info ht_gpu_kernels[HT_N_GPU_KERNELS];
uint64_t ht_gpu_kernels_hash(void);

/* Between two looks at an event, `begin` being ht_os_now() at the first: busily for what a short submit takes, then with
 * pauses. */
void ht_gpu_pause(double begin);

/* Launches on the compute queue; grids beyond what devices take are EINVAL. */
ht_status ht_gpu_launch_kernel(ht_gpu *g, const ht_gpu_launch *l, ht_error *err);

/* The same plug-in search as ht_gpu_find, one driver: NULL with the reason in err. */
const ht_gpu_driver *ht_gpu_plugin_open(const char *name, const char *folder, void **plugin, ht_error *err);

#endif
