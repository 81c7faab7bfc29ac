/* SPDX-License-Identifier: MIT
 *
 * What this machine's processors and disk do, as measured: the figures that plans are made of (engine/plan_model.c).
 *
 * They are measured through the real executor, on memory of the same kind as weights lie in, and belong to a processor, a
 * number of threads, a SIMD level, a precision and a version of hearth. A small text file keeps them from run to run:
 *
 *   hearth rates 1                  first line
 *   version 0.1.0                   the key, five lines: all of them have to match
 *   cpu AMD EPYC 7763
 *   threads 8
 *   isa avx2
 *   precision fast                  or f32
 *   task_fs 2100000000              single figures; _fs: femtoseconds, _bps: bytes per second, _mps: multiply-adds per second
 *   type Q4_0 read_bps 23000000000 short_bps … cached_bps … gather_bps … prompt16_mps … prompt64_mps … prompt512_mps …
 *   kv F16 element_fs … query_fs … prompt_mps …
 *   end                             last line
 *
 * Numbers are whole and decimal, so that no locale matters. A line that is unknown, twice there or out of range, and a file
 * that ends early, are EFORMAT: the figures are then measured anew.
 *
 * Owner: plain data, the caller's. Threads: measuring takes as many as it is told, for tenths of a second; one at a time. */
#ifndef HT_RATES_H
#define HT_RATES_H

#include "cpu/cpu.h"
#include "engine/base/status.h"

enum { HT_RATES_PROMPTS = 3 }; /* of ht_rates_prompt_tokens */
enum { HT_RATES_ROW = 2048, HT_RATES_SHORT_ROW = 512 };
extern const uint32_t ht_rates_prompt_tokens[HT_RATES_PROMPTS]; /* 16, 64, 512 */

/* Of one weight type; 0: not measured. */
typedef struct ht_type_rates {
    double read_bps;   /* weights per second, one token, from memory; rows of 2,048 elements */
    double short_bps;  /* the same, rows of 512: what begins and ends a row takes its share */
    double cached_bps; /* the same where the last-level cache holds them */
    double gather_bps; /* rows picked here and there, from memory */
    double prompt_mps[HT_RATES_PROMPTS];
} ht_type_rates;

/* Attention to one type of KV cache. A token takes, per position and KV head, (k_dim + v_dim) * (element_s + query_s * heads
 * that share it). */
typedef struct ht_kv_rates {
    double element_s, query_s;
    double prompt_mps; /* many tokens: a multiply-add is one element of K or V and one head of a token */
} ht_kv_rates;

/* Of a graphics card; all zero: there is none. Every bandwidth is that of one token's weights. */
typedef struct ht_gpu_rates {
    double read_bps;    /* weights in its memory */
    double prompt_mps;
    double launch_s;    /* of a kernel */
    double join_s;      /* both sides wait for each other and add up */
    double hop_s;       /* the residual stream changes sides */
    uint64_t vram_bytes, fixed_bytes; /* free for us; of them taken by its context and staging */
} ht_gpu_rates;

typedef struct ht_rates {
    char cpu[128];
    uint32_t threads;
    char isa[24];
    bool f32;
    /* Of one token. task: sharing out one operation among the threads; wait: until the caller is told that all is done,
     * and begins anew; op: a small operation that one thread does beside; element: of it, per float. */
    double task_s, wait_s, op_s, element_s;
    double memory_bps; /* plain reading, all threads */
    double large_gain; /* what large pages (slots of streamed models) are read faster by: 1 or more; rates of types are those of the
                        * usual ones, in which files are mapped */
    /* The disk, reads of some mebibytes. 0: not measured. */
    double disk_direct_bps, disk_cached_bps;
    ht_type_rates types[HT_TYPE_MAX];
    ht_kv_rates kv[HT_TYPE_MAX]; /* F32, F16, Q8_0, Q4_0 */
    ht_gpu_rates gpu;
} ht_rates;

/* The key; nothing is measured. isa: at most this level. */
void ht_rates_init(ht_rates *r, const ht_topology *t, uint32_t threads, ht_isa isa, bool f32);

typedef struct ht_rates_want {
    uint64_t types; /* a bit per ht_type: weights */
    uint64_t kv;
} ht_rates_want;

/* Whether all that is wanted is there. */
bool ht_rates_have(const ht_rates *r, const ht_rates_want *w);
/* Measures what is wanted and not there (again: all that is wanted). About a second for what does not depend on types, half of one
 * for each type; takes 1.2 GiB at most, less where little is free. progress (NULL allowed): false cancels. Fails: ENOMEM, ECANCELLED. */
ht_status ht_rates_measure(ht_rates *r, const ht_topology *t, const ht_rates_want *w, bool again,
                           bool (*progress)(void *user, const char *what, uint64_t done, uint64_t total), void *user,
                           ht_error *err);

/* How fast a file's disk gives reads of read_bytes, at_once of them under way; rounds: the next ones are asked for when all have
 * come, as a token's experts are, else one by one. Scattered places of 192 MiB, twice, the mean of both: what a streamed model
 * reads it reads again and again, and the disks of virtual machines have caches of their own, of nobody knows which size. A second.
 * direct: past the page cache. 0: it cannot be told. */
double ht_rates_disk(const char *path, bool direct, size_t read_bytes, uint32_t at_once, bool rounds);

/* rates_file.c. Reads figures of r's key into r, those that are in the file. EMISMATCH: of another machine, setting or version;
 * EFORMAT; EIO: cannot be read. r stays as it was where it fails. */
ht_status ht_rates_read(ht_rates *r, const char *path, ht_error *err);
/* The same from n bytes of text. */
ht_status ht_rates_parse(ht_rates *out, const char *text, size_t n, const char *path, ht_error *err);
ht_status ht_rates_write(const ht_rates *r, const char *path, ht_error *err);

#endif
