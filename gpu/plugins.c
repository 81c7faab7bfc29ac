/* SPDX-License-Identifier: MIT
 *
 * Finding plug-ins. They are looked for in the folder that the caller names, or else beside the library (or the program
 * that holds it), in `hearth` beside it, and in ../lib/hearth and ../HEARTH_LIBDIR/hearth seen from there, so that a
 * build, an unpacked archive and an installation all work. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpu/device.h"

#ifndef HEARTH_LIBDIR
#define HEARTH_LIBDIR "lib"
#endif

static const char *const names[] = { "cuda", "opencl" };
static const char *const places[] = { "", "/hearth", "/../lib/hearth", "/../" HEARTH_LIBDIR "/hearth" };

const ht_gpu_driver *ht_gpu_plugin_open(const char *name, const char *folder, void **plugin, ht_error *err)
{
    char here[3000], path[4096];
    const bool found = folder || ht_os_lib_folder(here, sizeof here);
    ht_error first = { 0 };

    *plugin = NULL;
    for (size_t i = 0; found && i < (folder ? 1 : sizeof places / sizeof *places); i++) {
        ht_error why;
        ht_os_stamp stamp;
        snprintf(path, sizeof path, "%s%s/hearth-%s.so", folder ? folder : here, folder ? "" : places[i], name);
        if (!ht_os_stamp_path(path, &stamp))
            continue;
        void *lib = ht_os_lib_open(path, &why);
        if (!lib) {
            first = first.status ? first : why;
            continue;
        }
        const ht_gpu_driver *d = ht_os_lib_symbol(lib, HT_GPU_DRIVER_SYMBOL);
        if (d && ht_gpu_driver_fits(d) && strcmp(d->name, name) == 0) {
            *plugin = lib;
            return d;
        }
        ht_os_lib_close(lib);
        if (!first.status)
            ht_fail(&first, HT_EMISMATCH, "%s belongs to another build of hearth", path);
    }
    if (first.status)
        ht_fail(err, first.status, "%s", first.text);
    else
        ht_fail(err, HT_EUNSUPPORTED, "the plug-in hearth-%s.so is not there", name);
    return NULL;
}

static void say_missing(ht_gpu_list *out, const char *name, const char *why)
{
    const size_t n = strlen(out->missing);
    snprintf(out->missing + n, sizeof out->missing - n, "%s%s: %s", n ? "; " : "", name, why);
}

void ht_gpu_find(ht_gpu_list *out, const char *folder)
{
    memset(out, 0, sizeof *out);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        ht_error err = { 0 };
        void *plugin;
        const ht_gpu_driver *d = ht_gpu_plugin_open(names[i], folder, &plugin, &err);
        uint32_t n = 0;
        if (!d || d->count(&n, &err) != HT_OK) {
            say_missing(out, names[i], err.text);
            ht_os_lib_close(plugin);
            continue;
        }
        for (uint32_t j = 0; j < n && out->n < HT_GPU_MOST; j++) {
            if (d->describe(j, &out->gpu[out->n], &err) == HT_OK)
                out->n++;
            else
                say_missing(out, names[i], err.text);
        }
        ht_os_lib_close(plugin);
    }
}

ht_status ht_gpu_open(ht_gpu **out, const ht_gpu_params *p, ht_error *err)
{
    void *plugin;
    uint32_t n;

    *out = NULL;
    const ht_gpu_driver *d = ht_gpu_plugin_open(p->driver, p->folder, &plugin, err);
    if (!d)
        return err ? err->status : HT_EUNSUPPORTED;
    ht_status st = d->count(&n, err);
    if (st == HT_OK && p->index >= n)
        st = ht_fail(err, HT_EINVAL, "%s has %u devices, number %u is not there", p->driver, n, p->index);
    if (st == HT_OK)
        st = ht_gpu_open_driver(out, d, plugin, p, err);
    if (st != HT_OK)
        ht_os_lib_close(plugin);
    return st;
}
