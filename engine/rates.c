/* SPDX-License-Identifier: MIT
 * Measuring this machine through the executor that models run on; see rates.h.
 *
 * Every figure is the median of some passes over memory that is larger than the last-level cache (or that fits into it), in
 * the executor's own way: the time of a pass, no difference of small numbers but where two are fitted by a line. The
 * measuring thread is one of its own, bound like the thread that runs a model. */
#include "engine/rates.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/os.h"
#include "engine/base/reader.h"

enum { BUFFER = 768 << 20, LEAST_BUFFER = 16 << 20, CACHED = 4 << 20, K = HT_RATES_ROW, WIDE = 8192, PASSES = 7, PROMPT_PASSES = 3,
       LONG_OP = 4 << 20, SHORT_OP = 512 << 10, HEADS = 32, HEAD = 128, POSITIONS = 4096, PROMPT_ATTEND = 64 };
#define PATTERN 0x2c /* scales and floats made of it are plain numbers */

const uint32_t ht_rates_prompt_tokens[HT_RATES_PROMPTS] = { 16, 64, 512 };

typedef struct probe {
    ht_rates *r;
    const ht_topology *topology;
    const ht_rates_want *want;
    bool again, pin;
    bool (*progress)(void *user, const char *what, uint64_t done, uint64_t total);
    void *user;
    ht_error *err;
    ht_status st;
    uint64_t done, total;

    ht_exec *exec;
    uint8_t *weights; /* [buffer] */
    size_t buffer;
    uint8_t *work;    /* activations, results */
    size_t work_bytes;
    ht_act x;         /* [512][K] */
    float *y;
} probe;

void ht_rates_init(ht_rates *r, const ht_topology *t, uint32_t threads, ht_isa isa, bool f32)
{
    memset(r, 0, sizeof *r);
    snprintf(r->cpu, sizeof r->cpu, "%s", t->model);
    for (char *c = r->cpu; *c; c++) /* it becomes a line of a file */
        *c = *c < ' ' || *c > '~' ? '?' : *c;
    r->threads = threads;
    snprintf(r->isa, sizeof r->isa, "%s", ht_isa_name(isa));
    r->f32 = f32;
}

static bool has_type(const ht_rates *r, uint32_t type) { return r->types[type].read_bps > 0; }

static bool has_kv(const ht_rates *r, uint32_t type) { return r->kv[type].prompt_mps > 0; }

bool ht_rates_have(const ht_rates *r, const ht_rates_want *w)
{
    bool all = r->task_s > 0;

    for (uint32_t t = 0; t < HT_TYPE_MAX; t++)
        all = all && (!(w->types >> t & 1) || has_type(r, t)) && (!(w->kv >> t & 1) || has_kv(r, t));
    return all;
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, uint32_t n)
{
    qsort(v, n, sizeof *v, ascending);
    return v[n / 2];
}

/* Submits and waits; a cancelled or refused operation is this file's own mistake. */
static double timed(probe *p, const ht_op *ops, size_t n, size_t at_once)
{
    const double begin = ht_os_now();
    ht_event done = 0;

    for (size_t i = 0; i < n && p->st == HT_OK; i += at_once)
        if ((p->st = p->exec->ops->submit(p->exec, ops + i, n - i < at_once ? n - i : at_once, &done)) != HT_OK)
            ht_fail(p->err, p->st, "the executor does not run what is to be measured");
    if (p->st == HT_OK)
        p->st = p->exec->ops->wait(p->exec, done, NULL);
    return ht_os_now() - begin;
}

/* Products of matrices of op_bytes each that follow each other in `bytes` of memory; returns seconds of a pass. k: length of
 * their rows. *n_ops, *rows: how many matrices, and rows of each. */
static double products(probe *p, ht_type type, uint32_t k, size_t bytes, size_t op_bytes, uint32_t n_tok, uint32_t passes,
                       uint32_t *n_ops, uint32_t *rows)
{
    enum { MOST_OPS = 2048 };
    const size_t row = ht_type_row_bytes(ht_type_get(type), k);
    double seconds[PASSES];
    ht_op *ops = calloc(MOST_OPS, sizeof *ops);

    *rows = (uint32_t)(op_bytes / row / 16 * 16);
    *rows = *rows < 16 ? 16 : *rows > WIDE ? WIDE : *rows;
    *n_ops = (uint32_t)(bytes / (*rows * row));
    *n_ops = *n_ops < 1 ? 1 : *n_ops > MOST_OPS ? MOST_OPS : *n_ops;
    if (!ops) {
        p->st = ht_fail(p->err, HT_ENOMEM, "measuring");
        return 1.0;
    }
    for (uint32_t i = 0; i < *n_ops; i++) {
        ops[i] = (ht_op){ .kind = HT_OP_MATMUL, .n_tok = n_tok };
        ops[i].matmul = (ht_op_matmul){ .w = { .type = type, .n = *rows, .k = k, .stride = row,
                                               .host = p->weights + i * *rows * row },
                                        .x = p->x, .y = p->y, .y_stride = WIDE, .scale = 1.0f };
        ops[i].matmul.x.stride = k;
        if (ops[i].matmul.x.q8.stride)
            ops[i].matmul.x.q8.stride = k;
    }
    timed(p, ops, *n_ops, 16); /* warms up */
    for (uint32_t i = 0; i < passes && p->st == HT_OK; i++)
        seconds[i] = timed(p, ops, *n_ops, 16);
    free(ops);
    return p->st == HT_OK ? median(seconds, passes) : 1.0;
}

static bool step(probe *p, const char *what)
{
    if (p->st == HT_OK && p->progress && !p->progress(p->user, what, p->done, p->total))
        p->st = ht_fail(p->err, HT_ECANCELLED, "cancelled");
    p->done++;
    return p->st == HT_OK;
}

/* n operations again and again, a pass each; the median of a pass, by operation. */
static double per_op(probe *p, const ht_op *ops, uint32_t n, size_t at_once)
{
    double seconds[PASSES];

    timed(p, ops, n, at_once);
    for (uint32_t i = 0; i < PASSES && p->st == HT_OK; i++)
        seconds[i] = timed(p, ops, n, at_once);
    return p->st == HT_OK ? median(seconds, PASSES) / n : 1.0;
}

static ht_op tiny_norm(const probe *p, uint32_t k)
{
    ht_op op = { .kind = HT_OP_NORM, .n_tok = 1 };

    op.norm = (ht_op_norm){ .x = p->x.f, .x_stride = WIDE, .k = k, .group = k, .kind = HT_NORM_RMS, .eps = 1e-5f,
                            .out = { .f = p->y, .stride = WIDE } };
    return op;
}

/* What an operation more costs where weights come from memory: besides sharing it out its threads begin and end unevenly, and
 * the stream of reads breaks off. Matrices of half a mebibyte against those of four, by turns. */
static double broken_stream(probe *p)
{
    double seconds[2][PASSES];
    uint32_t n[2] = { 1, 1 }, rows;
    double bytes[2] = { 1.0, 1.0 };

    for (int i = 0; i < PASSES && p->st == HT_OK; i++)
        for (int k = 0; k < 2; k++) {
            seconds[k][i] = products(p, HT_Q8_0, K, p->buffer / 2, k ? SHORT_OP : LONG_OP, 1, 1, &n[k], &rows);
            bytes[k] = (double)n[k] * rows;
        }
    if (p->st != HT_OK)
        return 0.0;
    const double lengthy = median(seconds[0], PASSES) * bytes[1] / bytes[0], brief = median(seconds[1], PASSES);
    return (brief - lengthy) / (n[1] - n[0]);
}

/* Sharing out: products so small that computing them is nothing beside it. One round each: what the caller's waiting adds. */
static void measure_tasks(probe *p)
{
    enum { OPS = 256, ROWS = 512, SHORT_K = 64, TAILS = 8 };
    ht_op *ops = calloc(OPS, sizeof *ops);

    if (!ops) {
        p->st = ht_fail(p->err, HT_ENOMEM, "measuring");
        return;
    }
    for (uint32_t i = 0; i < OPS; i++) {
        ops[i] = (ht_op){ .kind = HT_OP_MATMUL, .n_tok = 1 };
        ops[i].matmul = (ht_op_matmul){ .w = { .type = HT_F32, .n = ROWS, .k = SHORT_K, .stride = SHORT_K * sizeof(float),
                                               .host = p->weights },
                                        .x = { .f = p->x.f, .stride = K }, .y = p->y, .y_stride = WIDE, .scale = 1.0f };
    }
    p->r->task_s = per_op(p, ops, OPS, 16);
    const double alone = per_op(p, ops, OPS, 1);
    double seconds[PASSES];
    for (uint32_t i = 0; i < PASSES && p->st == HT_OK; i++) {
        seconds[i] = 0;
        for (uint32_t j = 0; j < OPS / 4; j++)
            seconds[i] += timed(p, &ops[j], 1, 1);
    }
    const double waited = p->st == HT_OK ? median(seconds, PASSES) / (OPS / 4.0) : 1.0;
    p->r->wait_s = waited > alone ? waited - alone : 1e-7;
    /* Each task with seven small operations behind it. */
    for (uint32_t i = 0; i < OPS; i++)
        if (i % TAILS)
            ops[i] = tiny_norm(p, 64);
    const double small = per_op(p, ops, OPS, 16);
    for (uint32_t i = 0; i < OPS; i++)
        if (i % TAILS)
            ops[i] = tiny_norm(p, WIDE);
    const double wide = per_op(p, ops, OPS, 16);
    const double share = (TAILS - 1.0) / TAILS, op = (small - p->r->task_s / TAILS) / share;
    p->r->op_s = op > 5e-8 ? op : 5e-8;
    p->r->element_s = wide > small ? (wide - small) / share / (WIDE - 64) : 1e-11;
    free(ops);
    const double broken = broken_stream(p);
    p->r->task_s = broken > p->r->task_s ? broken < 1e-4 ? broken : 1e-4 : p->r->task_s;
}

/* A block without gate whose neurons are masked: none of them, then every other group of four. What the second takes longer
 * is the reading of rows here and there. */
static double measure_gather(probe *p, ht_type type)
{
    enum { NEURONS = 16384, PLACES = 4 };
    const ht_type_info *t = ht_type_get(type);
    const size_t row = ht_type_row_bytes(t, K), down = ht_type_row_bytes(t, NEURONS);
    const uint32_t outputs = 64;
    const size_t up_bytes = NEURONS * row;
    uint32_t *mask = (uint32_t *)(void *)(p->y + WIDE), places = (uint32_t)((p->buffer - outputs * down) / up_bytes);
    void *work = (uint8_t *)(p->y + WIDE) + 65536;
    float *h = (float *)(void *)((uint8_t *)work + 1048576);
    double seconds[2][PASSES];
    ht_op op[PLACES] = { 0 };
    ht_ffn_item item[PLACES] = { 0 };

    if (places == 0)
        return 0.0;
    places = places > PLACES ? PLACES : places;
    for (uint32_t i = 0; i < places; i++) {
        item[i].part[HT_ROLE_UP] = (ht_part){ .role = HT_ROLE_UP, .type = type, .n = NEURONS, .k = K, .stride = row,
                                              .host = p->weights + i * up_bytes };
        item[i].part[HT_ROLE_DOWN] = (ht_part){ .role = HT_ROLE_DOWN, .type = type, .n = outputs, .k = NEURONS, .stride = down,
                                                .host = p->weights + p->buffer - outputs * down };
        item[i].n_tokens = 1;
        op[i] = (ht_op){ .kind = HT_OP_FFN, .n_tok = 1 };
        op[i].ffn = (ht_op_ffn){ .items = &item[i], .n_items = 1, .n_ff = NEURONS, .d_model = outputs, .x = p->x,
                                 .act = HT_ACT_RELU2, .y = p->y, .y_stride = WIDE, .sparse = true, .mask = mask,
                                 .mask_stride = NEURONS / 32, .work = work };
        op[i].ffn.x.stride = K;
        if (op[i].ffn.x.q8.stride)
            op[i].ffn.x.q8.stride = K;
        op[i].ffn.h = (ht_act){ .f = h, .stride = NEURONS };
        if (p->x.q8.stride) {
            uint8_t *at = (uint8_t *)(h + NEURONS);
            op[i].ffn.h.q8 = (ht_q8){ .q = (int8_t *)at, .d = (float *)(void *)(at + NEURONS),
                                      .s = (int16_t *)(void *)(at + 2 * NEURONS), .stride = NEURONS };
        }
    }
    for (int some = 0; some < 2; some++) {
        for (uint32_t i = 0; i < NEURONS / 32; i++)
            mask[i] = some ? i % 2 ? 0x90908421u : 0x21480912u : 0; /* 8 and 8 of 32 */
        timed(p, op, places, 1);
        for (uint32_t i = 0; i < PASSES && p->st == HT_OK; i++)
            seconds[some][i] = timed(p, op, places, 1);
    }
    if (p->st != HT_OK)
        return 0.0;
    median(seconds[0], PASSES); /* the least of each: noise only adds, and would count twice in what they differ by */
    median(seconds[1], PASSES);
    const double took = seconds[1][0] - seconds[0][0];
    const double bytes = (double)places * (double)up_bytes / 4, most = p->r->types[type].read_bps;
    return took > 0 && bytes / took < most ? bytes / took : most;
}

/* The same products over usual pages and over large ones, by turns. */
static void measure_large(probe *p)
{
    uint8_t *usual = p->weights, *large = ht_os_reserve(p->buffer / 2);
    double seconds[2][PASSES / 3];
    uint32_t n, rows;

    p->r->large_gain = 1.0;
    if (!large)
        return;
    ht_os_prefer_large(large, p->buffer / 2);
    memset(large, PATTERN, p->buffer / 2);
    for (int i = 0; i < PASSES / 3 && p->st == HT_OK; i++)
        for (int k = 0; k < 2; k++) {
            p->weights = k ? large : usual;
            seconds[k][i] = products(p, HT_Q8_0, K, p->buffer / 2, LONG_OP, 1, 2, &n, &rows);
        }
    p->weights = usual;
    ht_os_release(large, p->buffer / 2);
    if (p->st != HT_OK)
        return;
    const double gain = median(seconds[0], PASSES / 3) / median(seconds[1], PASSES / 3);
    p->r->large_gain = gain < 1.0 ? 1.0 : gain > 2.0 ? 2.0 : gain;
}

static void measure_type(probe *p, ht_type type)
{
    ht_type_rates *r = &p->r->types[type];
    const size_t row = ht_type_row_bytes(ht_type_get(type), K);
    uint32_t n, rows;

    double s = products(p, type, K, p->buffer, LONG_OP, 1, PASSES, &n, &rows);
    double took = s - p->r->task_s * n, bytes = (double)n * rows * (double)row;
    const double read = bytes / (took > s / 2 ? took : s / 2);
    s = products(p, type, HT_RATES_SHORT_ROW, p->buffer / 2, LONG_OP, 1, PASSES, &n, &rows);
    took = s - p->r->task_s * n;
    bytes = (double)n * rows * (double)ht_type_row_bytes(ht_type_get(type), HT_RATES_SHORT_ROW);
    const double brief = bytes / (took > s / 2 ? took : s / 2);
    s = products(p, type, K, CACHED, CACHED / 2, 1, PASSES, &n, &rows);
    took = s - p->r->task_s * n;
    bytes = (double)n * rows * (double)row;
    const double cached = bytes / (took > s / 2 ? took : s / 2);
    for (uint32_t i = 0; i < HT_RATES_PROMPTS; i++) {
        const uint32_t n_tok = ht_rates_prompt_tokens[i];
        const size_t some = n_tok < 64 ? 32 << 20 : n_tok < 512 ? 8 << 20 : 2 << 20;
        s = products(p, type, K, some, 2 << 20, n_tok, PROMPT_PASSES, &n, &rows);
        r->prompt_mps[i] = (double)n * rows * K * n_tok / s;
    }
    if (p->st != HT_OK)
        return;
    r->read_bps = read;
    r->short_bps = brief < read ? brief : read;
    r->cached_bps = cached > read ? cached : read;
    r->gather_bps = measure_gather(p, type);
    if (r->gather_bps <= 0)
        r->gather_bps = read / 2;
}

/* Attention over n positions of a context that lies in `weights`. */
static double attend(probe *p, ht_type type, uint32_t n_kv, uint32_t n_tok, uint32_t n, uint32_t passes)
{
    const size_t k_row = ht_type_row_bytes(ht_type_get(type), HEAD);
    const size_t head = HT_KV_PAGE * k_row, page = 2 * n_kv * head;
    void *pages[POSITIONS / HT_KV_PAGE];
    double seconds[PASSES];
    ht_op op = { .kind = HT_OP_ATTEND, .n_tok = n_tok };

    for (uint32_t i = 0; i < n / HT_KV_PAGE; i++)
        pages[i] = p->weights + (i + 1) * page <= p->weights + p->buffer ? p->weights + i * page : p->weights;
    op.attend = (ht_op_attend){ .kv = { .pages = pages, .type = type, .n_kv = n_kv, .k_dim = HEAD, .v_dim = HEAD,
                                        .k_row_bytes = k_row, .v_row_bytes = k_row, .v_offset = n_kv * head },
                                .q = p->x.f, .q_stride = HEADS * HEAD, .n_head = HEADS, .scale = 0.01f, .pos0 = n - n_tok,
                                .out = { .f = p->y, .stride = HEADS * HEAD } };
    const size_t partial = (n + HT_ATTEND_SPAN - 1) / HT_ATTEND_SPAN * HEADS * HT_ATTEND_PARTIAL(HEAD);
    op.attend.partial = p->y + (size_t)n_tok * HEADS * HEAD;
    op.attend.n_partial = partial;
    timed(p, &op, 1, 1);
    for (uint32_t i = 0; i < passes && p->st == HT_OK; i++)
        seconds[i] = timed(p, &op, 1, 1);
    return p->st == HT_OK ? median(seconds, passes) : 1.0;
}

static void measure_kv(probe *p, ht_type type)
{
    memset(p->weights, 0, p->buffer);
    /* element + query for heads of their own, element + 8 query where eight share one. */
    const double per = (double)POSITIONS * 2 * HEAD;
    const double own = attend(p, type, HEADS, 1, POSITIONS, PASSES) / (per * HEADS);
    const double shared = attend(p, type, HEADS / 8, 1, POSITIONS, PASSES) / (per * (HEADS / 8.0));
    const double many = attend(p, type, HEADS / 4, PROMPT_ATTEND, POSITIONS / 2, PROMPT_PASSES);
    ht_kv_rates *r = &p->r->kv[type];

    if (p->st != HT_OK)
        return;
    r->query_s = shared > own ? (shared - own) / 7 : own / 100;
    r->element_s = own > r->query_s ? own - r->query_s : own / 100;
    r->prompt_mps = (double)PROMPT_ATTEND * (POSITIONS / 2.0 - PROMPT_ATTEND / 2.0) * HEADS * 2 * HEAD / many;
}

static ht_status open_probe(probe *p)
{
    const uint64_t free_bytes = ht_os_ram_available();
    const ht_cpu_params cpu = { .threads = p->r->threads, .isa = (ht_isa)ht_isa_by_name(p->r->isa), .max_k = 16384,
                                .max_head = HEAD, .pin = p->pin, .topology = p->topology };
    size_t at = 0;

    p->buffer = BUFFER;
    while (p->buffer > LEAST_BUFFER && p->buffer > free_bytes / 4)
        p->buffer /= 2;
    const size_t x_floats = (size_t)512 * K, y_floats = (size_t)512 * WIDE;
    p->work_bytes = x_floats * 4 + x_floats + x_floats / 8 + x_floats / 8 + y_floats * 4;
    p->weights = ht_os_reserve(p->buffer);
    p->work = ht_os_reserve(p->work_bytes);
    if (!p->weights || !p->work)
        return ht_fail(p->err, HT_ENOMEM, "%zu MiB to measure with", (p->buffer + p->work_bytes) >> 20);
    memset(p->weights, PATTERN, p->buffer);
    p->x.f = (float *)(void *)p->work;
    at += x_floats * 4;
    p->y = (float *)(void *)(p->work + at);
    at += y_floats * 4;
    p->x.stride = K;
    for (size_t i = 0; i < x_floats; i++)
        p->x.f[i] = 0.01f * (float)(i % 17) - 0.07f;
    if (!p->r->f32) {
        p->x.q8 = (ht_q8){ .q = (int8_t *)(p->work + at), .d = (float *)(void *)(p->work + at + x_floats),
                           .s = (int16_t *)(void *)(p->work + at + x_floats + x_floats / 8), .stride = K };
        memset(p->x.q8.q, 7, x_floats);
        for (size_t i = 0; i < x_floats / 32; i++)
            p->x.q8.d[i] = 0.01f;
        memset(p->x.q8.s, 0, x_floats / 8);
    }
    return ht_cpu_open(&p->exec, &cpu, p->err);
}

/* Reads that are under way, and how they are asked for. */
typedef struct disk_probe {
    ht_reader *r;
    ht_read reads[32];
    uint8_t *memory;
    size_t read_bytes, room;
    uint32_t at_once;
    bool rounds;
    uint64_t places, some, step, first; /* of the file's places `some` are read, over and over */
} disk_probe;

static bool wait_for(disk_probe *d, uint32_t i, uint64_t *done)
{
    ht_status st;

    if (!d->reads[i].to)
        return true;
    while ((st = ht_reader_wait(d->r, &d->reads[i], 1000000, NULL)) == HT_LATER)
        ;
    *done += st == HT_OK ? d->read_bytes : 0;
    d->reads[i].to = NULL;
    return st == HT_OK;
}

/* Reads `most` places, or for some seconds; bytes per second, 0 where a read fails. */
static double disk_pass(disk_probe *d, uint64_t most, double seconds)
{
    const double begin = ht_os_now();
    uint64_t done = 0;
    bool good = true;

    for (uint64_t taken = 0; good && taken < most && ht_os_now() - begin < seconds;) {
        for (uint32_t i = 0; good && i < d->at_once && taken < most; i++, taken++) {
            good = wait_for(d, i, &done);
            d->reads[i] = (ht_read){ .offset = (d->first + taken % d->some * d->step) % d->places * d->read_bytes,
                                     .bytes = d->read_bytes, .to = d->memory + i * d->room };
            ht_reader_submit(d->r, &d->reads[i], false);
        }
        for (uint32_t i = 0; d->rounds && i < d->at_once; i++)
            good = wait_for(d, i, &done) && good;
    }
    for (uint32_t i = 0; i < d->at_once; i++)
        good = wait_for(d, i, &done) && good;
    const double took = ht_os_now() - begin;
    return good && took > 0 ? (double)done / took : 0.0;
}

double ht_rates_disk(const char *path, bool direct, size_t read_bytes, uint32_t at_once, bool rounds)
{
    enum { MOST = 32, MOST_READ = 8 << 20, LEAST_READ = 64 << 10, MOST_MEMORY = 64 << 20, STRETCH = 192 << 20 };
    static const double FIRST = 0.8, AGAIN = 0.5; /* seconds */
    const ht_reader_params params = { .paths = &path, .n_paths = 1, .io = direct ? HT_IO_DIRECT : HT_IO_CACHED };
    ht_os_stamp stamp;
    double rate = 0.0;

    disk_probe *d = calloc(1, sizeof *d);
    if (!d)
        return 0.0;
    d->read_bytes = read_bytes < LEAST_READ ? LEAST_READ : read_bytes > MOST_READ ? MOST_READ : read_bytes;
    d->read_bytes -= d->read_bytes % HT_READ_ALIGN;
    d->at_once = at_once < 1 ? 1 : at_once > MOST ? MOST : at_once;
    while (d->at_once > 1 && d->at_once * d->read_bytes > MOST_MEMORY)
        d->at_once--;
    d->room = ht_read_room(d->read_bytes);
    d->rounds = rounds;
    if (ht_os_stamp_path(path, &stamp) && stamp.bytes >= d->read_bytes && ht_reader_open(&d->r, &params, NULL) == HT_OK &&
        (d->memory = ht_os_reserve(d->room * d->at_once)) != NULL) {
        ht_os_prefer_large(d->memory, d->room * d->at_once);
        d->places = stamp.bytes / d->read_bytes;
        d->some = STRETCH / d->read_bytes < d->places ? STRETCH / d->read_bytes : d->places;
        d->step = d->places * 382 / 1000 | 1; /* about the golden section */
        d->first = (uint64_t)(ht_os_now() * 1e6) % d->places;
        rate = disk_pass(d, d->some, FIRST);
        const double again = rate > 0 ? disk_pass(d, UINT64_MAX, AGAIN) : 0.0;
        rate = again > 0 ? 2.0 / (1.0 / rate + 1.0 / again) : rate;
    }
    ht_reader_close(d->r);
    if (d->memory)
        ht_os_release(d->memory, d->room * d->at_once);
    free(d);
    return rate;
}

static void measure_all(void *user)
{
    probe *p = user;

    if (p->pin)
        ht_topology_pin(p->topology, 0);
    if ((p->st = open_probe(p)) != HT_OK)
        return;
    if ((p->again || p->r->task_s <= 0) && step(p, "measuring the processor"))
        measure_tasks(p);
    if (p->again || p->r->large_gain <= 0)
        measure_large(p);
    for (uint32_t t = 0; t < HT_TYPE_MAX && p->st == HT_OK; t++)
        if (p->want->types >> t & 1 && ht_type_get(t) && (p->again || !has_type(p->r, t)) && step(p, "measuring the processor"))
            measure_type(p, (ht_type)t);
    for (uint32_t t = 0; t < HT_TYPE_MAX && p->st == HT_OK; t++)
        if (p->want->kv >> t & 1 && (p->again || !has_kv(p->r, t)) && step(p, "measuring the processor"))
            measure_kv(p, (ht_type)t);
}

ht_status ht_rates_measure(ht_rates *r, const ht_topology *t, const ht_rates_want *w, bool again,
                           bool (*progress)(void *user, const char *what, uint64_t done, uint64_t total), void *user,
                           ht_error *err)
{
    ht_rates fresh = *r; /* half of them measured is none */
    ht_os_thread thread;
    probe p = { .r = &fresh, .topology = t, .want = w, .again = again, .progress = progress, .user = user, .err = err,
                .total = 2, .pin = r->threads >= t->n_perf_cores && r->threads <= t->n_cores };

    for (uint64_t bits = w->types; bits; bits &= bits - 1)
        p.total++;
    for (uint64_t bits = w->kv; bits; bits &= bits - 1)
        p.total++;
    ht_status st = ht_os_thread_start(&thread, measure_all, &p, "hearth-rates");
    if (st != HT_OK)
        return ht_fail(err, st, "no thread to measure with");
    ht_os_thread_join(&thread);
    if (p.exec)
        p.exec->ops->close(p.exec);
    if (p.weights)
        ht_os_release(p.weights, p.buffer);
    if (p.work)
        ht_os_release(p.work, p.work_bytes);
    if (p.st == HT_OK && (again || fresh.memory_bps <= 0))
        fresh.memory_bps = ht_cpu_read_bandwidth(t, r->threads, p.buffer);
    if (p.st == HT_OK)
        *r = fresh;
    return p.st;
}
