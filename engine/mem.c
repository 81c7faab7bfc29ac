/* SPDX-License-Identifier: MIT
 * The default allocator; see mem.h. */
#include "engine/mem.h"

#include <stdlib.h>

static void *default_alloc(void *user, size_t bytes, size_t align)
{
    (void)user;
    return aligned_alloc(align, (bytes + align - 1) / align * align);
}

static void default_free(void *user, void *p, size_t bytes)
{
    (void)user;
    (void)bytes;
    free(p);
}

const ht_mem *ht_mem_default(void)
{
    static const ht_mem mem = { NULL, default_alloc, default_free };
    return &mem;
}

void *ht_mem_alloc(const ht_mem *m, size_t bytes) { return m->alloc(m->user, bytes ? bytes : 64, 64); }

void ht_mem_free(const ht_mem *m, void *p, size_t bytes)
{
    if (p)
        m->free(m->user, p, bytes ? bytes : 64);
}
