/* SPDX-License-Identifier: MIT
 * Where a model's big and long-lived memory comes from: the application's allocator or the C library. Threads: as the
 * application's allocator; the library calls it from the thread that called the library. */
#ifndef HT_MEM_H
#define HT_MEM_H

#include <stddef.h>

typedef struct ht_mem {
    void *user;
    void *(*alloc)(void *user, size_t bytes, size_t align);
    void (*free)(void *user, void *p, size_t bytes);
} ht_mem;

const ht_mem *ht_mem_default(void);
/* Not zeroed. */
void *ht_mem_alloc(const ht_mem *m, size_t bytes);
void ht_mem_free(const ht_mem *m, void *p, size_t bytes); /* p NULL allowed */

#endif
