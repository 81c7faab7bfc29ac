/* SPDX-License-Identifier: MIT
 *
 * A text that grows. Start from { 0 }. Owner: who holds it frees `s`. Threads: one at a time. */
#ifndef HT_ENGINE_TEXT_H
#define HT_ENGINE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct ht_text {
    char *s; /* [n] and a 0 behind them; NULL before the first put */
    size_t n, cap;
    bool failed; /* out of memory: nothing was added since */
} ht_text;

static inline void ht_text_put(ht_text *t, const char *s, size_t n)
{
    if (t->failed)
        return;
    if (n > SIZE_MAX / 2 - t->n - 1) {
        t->failed = true;
        return;
    }
    if (t->n + n + 1 > t->cap) {
        const size_t cap = (t->n + n + 1) * 2;
        char *p = realloc(t->s, cap);
        if (!p) {
            t->failed = true;
            return;
        }
        t->s = p;
        t->cap = cap;
    }
    memcpy(t->s + t->n, s, n);
    t->n += n;
    t->s[t->n] = 0;
}

#endif
