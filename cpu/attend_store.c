/* SPDX-License-Identifier: MIT
 *
 * Writing keys and values into a page, 32 elements at a time: rounded as a row, then spread over the page's layout.
 * Owner: no state. Threads: any, one per position and head; neighbouring positions share cache lines. */
#include <string.h>

#include "cpu/attend.h"

enum { BLOCK = 32 };

/* n elements of `size` bytes to every 16th place. */
static void spread(const uint8_t *from, uint32_t n, uint32_t size, uint8_t *to)
{
    if (size == 1) {
        for (uint32_t i = 0; i < n; i++)
            to[(size_t)i * HT_KV_GROUP] = from[i];
    } else if (size == 2) {
        for (uint32_t i = 0; i < n; i++)
            memcpy(to + (size_t)i * HT_KV_GROUP * 2, from + (size_t)i * 2, 2);
    } else {
        for (uint32_t i = 0; i < n; i++)
            memcpy(to + (size_t)i * HT_KV_GROUP * 4, from + (size_t)i * 4, 4);
    }
}

void ht_attend_store_k(const ht_vec_kernels *vec, ht_type type, const float *x, uint32_t k_dim, uint8_t *k, uint32_t j)
{
    const uint32_t size = type == HT_F32 ? 4 : type == HT_F16 ? 2 : 1, lane = j % HT_KV_GROUP;
    uint8_t row[BLOCK * 4], *at = k + j / HT_KV_GROUP * ht_kv_group_bytes(type, k_dim);

    for (uint32_t i = 0; i < k_dim; i += BLOCK) {
        const uint32_t n = k_dim - i < BLOCK ? k_dim - i : BLOCK;
        vec->kv_store(type, x + i, n, row);
        if (size > 1) {
            spread(row, n, size, at + (size_t)lane * size);
            at += (size_t)n * size * HT_KV_GROUP;
        } else {
            memcpy(at + (size_t)lane * 2, row, 2);
            spread(row + 2, type == HT_Q8_0 ? 32 : 16, 1, at + HT_KV_K_HEAD + lane);
            at += type == HT_Q8_0 ? HT_KV_K_Q8 : HT_KV_K_Q4;
        }
    }
}

void ht_attend_store_v(const ht_vec_kernels *vec, ht_type type, const float *x, uint32_t v_dim, uint8_t *v, uint32_t j)
{
    const uint32_t size = type == HT_F32 ? 4 : type == HT_F16 ? 2 : 1;
    const size_t part = (size_t)HT_KV_GROUP * size; /* bytes of 16 dimensions */
    uint8_t row[BLOCK * 4];

    for (uint32_t i = 0; i < v_dim; i += BLOCK) {
        const uint32_t n = v_dim - i < BLOCK ? v_dim - i : BLOCK;
        memset(row, 0, sizeof row);
        vec->kv_store(type, x + i, n, row);
        if (size > 1) {
            uint8_t *to = v + (i / HT_KV_GROUP * (size_t)HT_KV_PAGE + j) * part;
            memcpy(to, row, part);
            if (n > HT_KV_GROUP)
                memcpy(to + HT_KV_PAGE * part, row + part, part);
        } else {
            uint8_t *to = v + i / BLOCK * (size_t)(type == HT_Q8_0 ? HT_KV_V_Q8 : HT_KV_V_Q4);
            memcpy(to + (size_t)j * 2, row, 2);
            to += HT_KV_V_HEAD + j * part;
            memcpy(to, row + 2, part);
            if (type == HT_Q8_0)
                memcpy(to + HT_KV_PAGE * part, row + 2 + part, part);
        }
    }
}
