/* SPDX-License-Identifier: MIT
 * Shared libraries opened at run time. */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/os.h"

void *ht_os_lib_open(const char *path, ht_error *err)
{
    void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);

    if (!lib) {
        const char *why = dlerror();
        ht_fail(err, HT_EUNSUPPORTED, "%s", why ? why : path);
    }
    return lib;
}

void *ht_os_lib_symbol(void *lib, const char *name) { return dlsym(lib, name); }

void ht_os_lib_close(void *lib)
{
    if (lib)
        dlclose(lib);
}

bool ht_os_lib_folder(char *to, size_t bytes)
{
    Dl_info info;
    char *path = dladdr((const void *)(uintptr_t)&ht_os_lib_folder, &info) && info.dli_fname ? realpath(info.dli_fname, NULL)
                                                                                          : NULL;
    /* Of a program that was started by its bare name the loader knows that name only. */
    if (!path)
        path = realpath("/proc/self/exe", NULL);
    char *slash = path ? strrchr(path, '/') : NULL;
    const bool ok = slash && (size_t)(slash - path) < bytes;
    if (ok) {
        memcpy(to, path, (size_t)(slash - path));
        to[slash - path] = 0;
    }
    free(path);
    return ok;
}
