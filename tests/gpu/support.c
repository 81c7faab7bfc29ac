/* SPDX-License-Identifier: MIT
 * See gpu_test.h. */
#include "tests/gpu/gpu_test.h"

const char *const where_name[N_WHERE] = { "plain", "backwards", "opencl" };

static const char *plugin_folder(void) { return HEARTH_BUILD_DIR; }

bool have_opencl(void)
{
    static int known = -1;

    /* Vendors' libraries are not built for address and thread sanitizers. */
    if (known < 0 && HEARTH_TEST_SANITIZE[0] && strcmp(HEARTH_TEST_SANITIZE, "undefined") != 0)
        known = 0;
    if (known < 0) {
        void *plugin;
        uint32_t n = 0;
        ht_error err = { 0 };
        const ht_gpu_driver *d = ht_gpu_plugin_open("opencl", plugin_folder(), &plugin, &err);
        ht_gpu_info info = { 0 };
        known = d && d->count(&n, &err) == HT_OK && n > 0 && d->describe(0, &info, &err) == HT_OK && info.exact;
        if (!known)
            cr_log_info("without OpenCL: %s", err.text[0] ? err.text : "the device does not round exactly");
        ht_os_lib_close(plugin);
    }
    return known;
}

ht_gpu *open_limited(where w, uint64_t limit)
{
    ht_gpu_params p = { .driver = "opencl", .limit_bytes = limit, .folder = plugin_folder(), .cache_dir = HEARTH_BUILD_DIR };
    ht_gpu *g = NULL;
    ht_error err = { 0 };
    ht_status st = w == OPENCL ? ht_gpu_open(&g, &p, &err)
                               : ht_gpu_open_driver(&g, w == PLAIN ? &ht_plain_driver : &ht_plain_backwards_driver, NULL,
                                                    &p, &err);

    cr_assert_eq(st, HT_OK, "%s: %s", where_name[w], err.text);
    return g;
}

ht_gpu *open_gpu(where w)
{
    seed(1);
    return open_limited(w, 1u << 30);
}

void put_at(ht_gpu *g, uint64_t addr, const void *p, size_t bytes)
{
    ht_error err = { 0 };
    cr_assert_eq(ht_gpu_upload(g, HT_GPU_COMPUTE, addr, p, bytes, &err), HT_OK, "%s", err.text);
    settle(g);
}

uint64_t put(ht_gpu *g, const void *p, size_t bytes)
{
    ht_error err = { 0 };
    uint64_t addr;

    cr_assert_eq(ht_gpu_alloc(g, bytes, &addr, &err), HT_OK, "%s", err.text);
    void *none = p ? NULL : malloc(bytes);
    if (none)
        memset(none, 0xff, bytes);
    put_at(g, addr, p ? p : none, bytes);
    free(none);
    return addr;
}

void get(ht_gpu *g, void *p, uint64_t addr, size_t bytes)
{
    ht_error err = { 0 };
    cr_assert_eq(ht_gpu_download(g, HT_GPU_COMPUTE, p, addr, bytes, &err), HT_OK, "%s", err.text);
    settle(g);
}

void settle(ht_gpu *g)
{
    ht_error err = { 0 };
    ht_gpu_event e;
    cr_assert_eq(ht_gpu_record(g, HT_GPU_COMPUTE, &e, &err), HT_OK, "%s", err.text);
    cr_assert_eq(ht_gpu_wait(g, e, &err), HT_OK, "%s", err.text);
}

static uint64_t state = 1;

void seed(uint64_t s) { state = s; }

float rnd(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (float)(int32_t)(state >> 32) * 0x1p-31f;
}

float *floats(size_t n)
{
    float *p = malloc((n + 1) * sizeof *p);
    for (size_t i = 0; i < n; i++)
        p[i] = rnd();
    return p;
}

/* Where the half floats of a block of a type are that must be moderate. */
static void mend_scales(ht_type type, uint8_t *block, const ht_type_info *t)
{
    const uint16_t h = ht_f32_to_f16(0.01f + 0.01f * rnd());
    const size_t end = t->block_bytes - 2u;

    switch (type) {
    case HT_MXFP4: block[0] = (uint8_t)(118 + (block[0] & 7)); break;
    case HT_Q2_K: memcpy(block + 80, &h, 2); memcpy(block + 82, &h, 2); break;
    case HT_Q3_K: case HT_Q6_K: case HT_TQ1_0: case HT_TQ2_0: memcpy(block + end, &h, 2); break;
    case HT_IQ1_M: /* its scale is spread over the upper nibbles of the last 8 bytes */
        for (uint32_t i = 0; i < 4; i++)
            block[48 + 2 * i + 1] = (uint8_t)((block[49 + 2 * i] & 15) | (h >> (4 * i) & 15) << 4);
        break;
    default:
        memcpy(block, &h, 2);
        if (type == HT_Q4_1 || type == HT_Q5_1 || type == HT_Q4_K || type == HT_Q5_K)
            memcpy(block + 2, &h, 2);
    }
}

uint8_t *weights(ht_type type, uint32_t n, uint32_t k)
{
    const ht_type_info *t = ht_type_get(type);
    const size_t row = ht_type_row_bytes(t, k);
    uint8_t *w = malloc(n * row + 64);
    float *f = floats(k);

    for (uint32_t r = 0; r < n; r++) {
        if (ht_type_can_quantise(type) || !t->quantised) {
            for (uint32_t i = 0; i < k; i++)
                f[i] = rnd();
            if (type == HT_F32)
                memcpy(w + r * row, f, row);
            else
                ht_type_quantise(type, f, k, w + r * row);
            continue;
        }
        for (size_t i = 0; i < row; i++)
            w[r * row + i] = (uint8_t)(int)(rnd() * 127.0f);
        for (uint32_t b = 0; b < k / t->block; b++)
            mend_scales(type, w + r * row + (size_t)b * t->block_bytes, t);
    }
    free(f);
    return w;
}

ht_exec *open_cpu(void)
{
    ht_exec *x;
    ht_error err;
    ht_cpu_params p = { .threads = 2, .isa = ht_isa_best(), .max_k = 8192, .max_head = 256 };
    cr_assert_eq(ht_cpu_open(&x, &p, &err), HT_OK, "%s", err.text);
    return x;
}

void run(ht_exec *x, const ht_op *ops, size_t n)
{
    ht_event done;
    cr_assert_eq(x->ops->submit(x, ops, n, &done), HT_OK, "operation %d of %s", ops[0].kind, x->ops->name);
    cr_assert_eq(x->ops->wait(x, done, NULL), HT_OK);
}

void same(const float *got, const float *want, size_t n, const char *what)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t a, b;
        memcpy(&a, got + i, 4);
        memcpy(&b, want + i, 4);
        cr_assert(a == b || (got[i] != got[i] && want[i] != want[i]), "%s: element %zu is %.9g, not %.9g", what, i,
                  (double)got[i], (double)want[i]);
    }
}
