/* SPDX-License-Identifier: MIT
 *
 * What goes wrong on a device: memory refused at every step, the device lost at every call, operations that name memory
 * which is not theirs. Each ends in an error, and with everything given back. */
#include <unistd.h>

#include "tests/gpu/bench.h"

/* ---- a driver that fails when it is told to ---- */

static ht_gpu_driver driver;
static long allocs_left, calls_left; /* until one fails; below 0: none does */

static ht_status refuse(void *dev, uint64_t bytes, uint64_t *addr, ht_error *err)
{
    if (allocs_left == 0)
        return ht_fail(err, HT_ENOMEM, "refused");
    allocs_left--;
    return ht_plain_driver.alloc(dev, bytes, addr, err);
}

/* A device that is lost stays so. */
static bool gone(void)
{
    if (calls_left > 0)
        calls_left--;
    return calls_left == 0;
}

#define LOSE(name, params, ...)                                                                                        \
    static ht_status lose_##name params                                                                                \
    {                                                                                                                  \
        return gone() ? ht_fail(err, HT_EDEVICE, "lost in " #name) : ht_plain_driver.name(__VA_ARGS__);                \
    }
LOSE(upload, (void *d, uint32_t q, uint64_t to, const void *from, size_t n, ht_error *err), d, q, to, from, n, err)
LOSE(download, (void *d, uint32_t q, void *to, uint64_t from, size_t n, ht_error *err), d, q, to, from, n, err)
LOSE(copy, (void *d, uint32_t q, uint64_t to, uint64_t from, size_t n, ht_error *err), d, q, to, from, n, err)
LOSE(launch, (void *d, uint32_t q, const ht_gpu_launch *l, ht_error *err), d, q, l, err)
LOSE(record, (void *d, uint32_t q, uint32_t slot, ht_error *err), d, q, slot, err)
LOSE(query, (void *d, uint32_t slot, ht_error *err), d, slot, err)

static ht_gpu *open_faulty(long allocs, long calls)
{
    const ht_gpu_params p = { .limit_bytes = 1 << 30 };
    ht_gpu *g;

    driver = ht_plain_driver;
    driver.alloc = refuse;
    driver.upload = lose_upload;
    driver.download = lose_download;
    driver.copy = lose_copy;
    driver.launch = lose_launch;
    driver.record = lose_record;
    driver.query = lose_query;
    allocs_left = allocs;
    calls_left = calls;
    cr_assert_eq(ht_gpu_open_driver(&g, &driver, NULL, &p, NULL), HT_OK);
    return g;
}

enum { N = 64, K = 64 };

/* Loads a matrix, computes with it, fetches the result. Everything is given back, however it ends. */
static ht_status use(ht_gpu *g)
{
    const ht_gpu_exec_params p = { .scratch_bytes = 4096 };
    ht_exec *x = NULL;
    uint64_t in = 0, out = 0;
    float *f = floats(K), result[N];
    uint8_t *w = weights(HT_F16, N, K);
    ht_part part = { .type = HT_F16, .n = N, .k = K, .stride = K * 2, .host = w }, dev = { 0 };
    ht_event done;
    ht_gpu_event e;

    ht_status st = ht_gpu_exec_open(&x, g, &p, NULL);
    if (st == HT_OK)
        st = ht_gpu_upload_part(g, &part, &dev, NULL);
    if (st == HT_OK)
        st = ht_gpu_alloc(g, K * 4, &in, NULL);
    if (st == HT_OK)
        st = ht_gpu_alloc(g, N * 4, &out, NULL);
    if (st == HT_OK)
        st = ht_gpu_upload(g, HT_GPU_COMPUTE, in, f, K * 4, NULL);
    if (st == HT_OK) {
        const ht_op op = { .kind = HT_OP_MATMUL, .n_tok = 1,
                           .matmul = { .w = dev, .x = { .f = ht_gpu_ptr(in), .stride = K }, .y = ht_gpu_ptr(out),
                                       .y_stride = N, .scale = 1.0f } };
        st = x->ops->submit(x, &op, 1, &done);
    }
    if (st == HT_OK)
        st = x->ops->wait(x, done, NULL);
    if (st == HT_OK)
        st = ht_gpu_copy(g, HT_GPU_COMPUTE, in, out, 4 * N, NULL);
    if (st == HT_OK)
        st = ht_gpu_download(g, HT_GPU_COMPUTE, result, in, 4 * N, NULL);
    if (st == HT_OK && (st = ht_gpu_record(g, HT_GPU_COMPUTE, &e, NULL)) == HT_OK)
        st = ht_gpu_wait(g, e, NULL);
    if (x)
        x->ops->close(x);
    ht_gpu_free(g, dev.device);
    ht_gpu_free(g, in);
    ht_gpu_free(g, out);
    cr_assert_eq(ht_gpu_used(g), 0, "%llu bytes are left", (unsigned long long)ht_gpu_used(g));
    free(w);
    free(f);
    return st;
}

Test(gpu_faults, no_memory)
{
    ht_status st = HT_ENOMEM;
    for (long n = 0; st != HT_OK; n++) {
        ht_gpu *g = open_faulty(n, -1);
        st = use(g);
        cr_assert(st == HT_OK || st == HT_ENOMEM, "%d at allocation %ld", st, n);
        cr_assert_not(ht_gpu_lost(g), "memory that is refused is no lost device");
        cr_assert_leq(n, 20);
        cr_assert(st != HT_OK || n >= 5, "only %ld allocations", n);
        ht_gpu_close(&g);
    }
}

Test(gpu_faults, over_the_limit)
{
    uint64_t limit = 0;
    for (ht_status st = HT_ENOMEM; st != HT_OK; limit += 4096) {
        ht_gpu *g = open_faulty(-1, -1);
        ht_gpu_set_limit(g, limit);
        st = use(g);
        cr_assert(st == HT_OK || st == HT_ENOMEM);
        cr_assert_leq(ht_gpu_peak(g), limit);
        if (limit == 0 && st != HT_OK)
            limit = 4 << 20; /* the executor's tables: what follows is tried in small steps */
        ht_gpu_close(&g);
        cr_assert_lt(limit, 8 << 20);
    }
}

Test(gpu_faults, device_lost)
{
    ht_status st = HT_EDEVICE;
    for (long n = 1; st != HT_OK; n++) {
        ht_gpu *g = open_faulty(-1, n);
        uint64_t a;
        st = use(g);
        cr_assert(st == HT_OK || st == HT_EDEVICE, "%d at call %ld", st, n);
        if (st == HT_EDEVICE) {
            ht_error err = { 0 };
            cr_assert(ht_gpu_lost(g));
            cr_assert_eq(ht_gpu_alloc(g, 256, &a, &err), HT_EDEVICE);
            cr_assert(strstr(err.text, "lost"), "%s", err.text);
            cr_assert_eq(use(g), HT_EDEVICE);
        }
        cr_assert_leq(n, 60);
        cr_assert(st != HT_OK || n >= 8, "only %ld calls", n);
        ht_gpu_close(&g);
    }
}

/* ---- operations that are refused ---- */

/* A list of two: the first is right, the second is not; neither runs. */
static void refused(bench *b, ht_op op, const char *what)
{
    float *y = none(b, 4), *x = some(b, 4);
    uint32_t before[4], after[4];
    const uint64_t at = (uint64_t)(uintptr_t)on(b, y);
    ht_op list[2] = { { .kind = HT_OP_ADD, .n_tok = 1,
                        .add = { .x = on(b, x), .y = ht_gpu_ptr(at), .k = 4, .ax = 1.0f } }, op };

    get(b->g, before, at, sizeof before);
    cr_assert_eq(b->gpu->ops->submit(b->gpu, list, 2, NULL), HT_EINVAL, "%s", what);
    settle(b->g);
    get(b->g, after, at, sizeof after);
    cr_assert_eq(memcmp(before, after, sizeof after), 0, "%s: what stood before ran", what);
}

Test(gpu_faults, refused)
{
    FOR_DEVICES(g) {
        bench b = begin(g);
        ht_part dev, q4;
        const ht_part w = matrix(&b, HT_F32, 8, 64, &dev);
        matrix(&b, HT_Q4_0, 8, 64, &q4);
        float *x = some(&b, 64), *y = none(&b, 64);
        const ht_op good = { .kind = HT_OP_MATMUL, .n_tok = 1,
                             .matmul = { .w = dev, .x = { .f = on(&b, x), .stride = 64 }, .y = on(&b, y), .y_stride = 8,
                                         .scale = 1.0f } };
        run(b.gpu, &good, 1);
        ht_op o = good;
        o.n_tok = 0;
        refused(&b, o, "no tokens");
        o = good;
        o.kind = HT_N_OPS;
        refused(&b, o, "no such operation");
        o = good;
        o.matmul.w = w; /* in host memory */
        refused(&b, o, "weights on the host");
        o = good;
        o.matmul.w.n = 1000;
        refused(&b, o, "more rows than there are");
        o = good;
        o.matmul.w.stride -= 4;
        refused(&b, o, "rows that overlap");
        o = good;
        o.matmul.w.device += 2;
        refused(&b, o, "rows that are not aligned");
        o = good;
        o.matmul.w.type = HT_IQ2_S;
        refused(&b, o, "a type without kernels");
        o = good;
        o.matmul.w.type = 63 + 64;
        refused(&b, o, "no type");
        o = good;
        o.matmul.x.f = NULL;
        refused(&b, o, "no activations");
        o = good;
        o.matmul.y = (float *)on(&b, y) + 60;
        refused(&b, o, "results beyond the end");
        o = good;
        o.n_tok = 2;
        refused(&b, o, "activations of one token for two");
        o = good;
        o.matmul.bias = x;
        refused(&b, o, "a bias on the host");
        o = good;
        o.matmul.w = q4;
        o.matmul.x.q8.stride = 64;
        refused(&b, o, "no 8-bit activations");
        o = good;
        o.matmul.w.order = (const uint32_t *)x;
        refused(&b, o, "a packed order");
        o = (ht_op){ .kind = HT_OP_NORM, .n_tok = 1,
                     .norm = { .x = on(&b, x), .x_stride = 64, .k = 64, .group = 48, .kind = HT_NORM_RMS,
                               .out = { .f = on(&b, y), .stride = 64 } } };
        refused(&b, o, "groups that do not fit");
        o = (ht_op){ .kind = HT_OP_ROPE, .n_tok = 1,
                     .rope = { .x = on(&b, x), .x_stride = 64, .n_head = 2, .head_dim = 32, .n_rot = 48,
                               .table = on(&b, y), .table_stride = 48 } };
        refused(&b, o, "more rotated than there is");
        o = (ht_op){ .kind = HT_OP_ROUTE, .n_tok = 1,
                     .route = { .logits = on(&b, x), .logits_stride = 64, .n_expert = 64, .k = 65, .ids = on(&b, y),
                                .weights = on(&b, y) } };
        refused(&b, o, "more experts than there are");
        o = (ht_op){ .kind = HT_OP_TRANSPOSE, .n_tok = 1 };
        refused(&b, o, "a transposition");
        o = (ht_op){ .kind = HT_OP_FFN, .n_tok = 1, .ffn = { .n_ff = 8, .d_model = 8 } };
        refused(&b, o, "a block of nothing");
        void *pages[1] = { on(&b, y) };
        o = (ht_op){ .kind = HT_OP_KV_WRITE, .n_tok = 1,
                     .kv_write = { .kv = { .pages = (void *const *)pages, .type = HT_F32, .n_kv = 1, .k_dim = 16,
                                           .v_dim = 16, .k_row_bytes = 64, .v_row_bytes = 64, .v_offset = 64 * 128 },
                                   .k = on(&b, x), .v = on(&b, x), .k_stride = 16, .v_stride = 16 } };
        refused(&b, o, "a page that is too small");
        run(b.gpu, &good, 1); /* and it goes on */
        end(&b);
    }
}

/* ---- the kernels kept on disk ---- */

Test(gpu_faults, program_cache)
{
    char folder[] = HEARTH_BUILD_DIR "/kernel-cache-test", command[400], file[300] = "";

    if (!have_opencl())
        cr_skip_test("without OpenCL");
    snprintf(command, sizeof command, "rm -rf %s && mkdir %s", folder, folder);
    cr_assert_eq(system(command), 0);
    const ht_gpu_params p = { .driver = "opencl", .limit_bytes = 1 << 20, .folder = HEARTH_BUILD_DIR, .cache_dir = folder };
    long bytes = 0;
    for (int i = 0; i < 4; i++) { /* made, used, cut, damaged */
        ht_gpu *g;
        ht_error err = { 0 };
        cr_assert_eq(ht_gpu_open(&g, &p, &err), HT_OK, "time %d: %s", i, err.text);
        ht_gpu_close(&g);
        snprintf(command, sizeof command, "ls %s/opencl-*.bin", folder);
        FILE *f = popen(command, "r");
        cr_assert_not_null(fgets(file, sizeof file, f), "nothing was kept");
        pclose(f);
        file[strcspn(file, "\n")] = 0;
        f = fopen(file, "r+b");
        cr_assert_not_null(f);
        char two[3] = "";
        if (i == 3)
            fseek(f, bytes / 2, SEEK_SET);
        cr_assert_eq(fread(two, 1, 2, f), 2);
        cr_assert_neq(memcmp(two, "?!", 2), 0, "not written anew where it was damaged");
        fseek(f, 0, SEEK_END); /* two programs of one source need not be of one length */
        cr_assert(i != 2 || ftell(f) > bytes / 2, "not written anew where it was cut");
        bytes = ftell(f);
        if (i == 1)
            cr_assert_eq(ftruncate(fileno(f), bytes / 2), 0);
        if (i == 2) {
            fseek(f, bytes / 2, SEEK_SET);
            fputs("?!", f);
        }
        fclose(f);
    }
    snprintf(command, sizeof command, "rm -rf %s", folder);
    cr_assert_eq(system(command), 0);
}
