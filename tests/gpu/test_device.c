/* SPDX-License-Identifier: MIT
 * Device memory: limits, ranges, transfers, events, and what is said when something is wrong. */
#include "tests/gpu/gpu_test.h"

Test(gpu_device, transfers)
{
    FOR_DEVICES(g) {
        uint8_t a[1000], b[1000] = { 0 };
        for (size_t i = 0; i < sizeof a; i++)
            a[i] = (uint8_t)(i * 7);
        const uint64_t x = put(g, a, sizeof a), y = put(g, NULL, sizeof a);
        cr_assert_eq(ht_gpu_copy(g, HT_GPU_COMPUTE, y + 16, x + 100, 500, NULL), HT_OK);
        get(g, b, y + 16, 500);
        cr_assert_arr_eq(b, a + 100, 500);
        get(g, b, y + 516, 4);
        cr_assert_eq(b[0], 0xff, "behind the copy");
    }
}

Test(gpu_device, limit)
{
    for (where w = PLAIN; w < N_WHERE; w++) {
        if (w == OPENCL && !have_opencl())
            continue;
        ht_gpu *g = open_limited(w, 10000);
        ht_error err = { 0 };
        uint64_t a, b;
        cr_assert_eq(ht_gpu_alloc(g, 5000, &a, &err), HT_OK);
        cr_assert_eq(ht_gpu_used(g), 5120, "rounded up to 256");
        cr_assert_eq(ht_gpu_alloc(g, 5000, &b, &err), HT_ENOMEM);
        cr_assert(strstr(err.text, "limit"), "%s", err.text);
        cr_assert_eq(b, 0);
        cr_assert_eq(ht_gpu_alloc(g, 4881, &b, &err), HT_ENOMEM, "rounded up it is too much");
        cr_assert_eq(ht_gpu_alloc(g, 4864, &b, &err), HT_OK);
        cr_assert_eq(ht_gpu_room(g, a), 5120);
        cr_assert_eq(ht_gpu_room(g, a + 5000), 120);
        cr_assert_eq(ht_gpu_room(g, a + 5120), a + 5120 == b ? 4864 : 0, "allocations may be neighbours");
        cr_assert_eq(ht_gpu_room(g, a - 1), 0);
        ht_gpu_free(g, a);
        ht_gpu_free(g, a + 8); /* no allocation: nothing happens */
        ht_gpu_free(g, 0);
        cr_assert_eq(ht_gpu_used(g), 4864);
        cr_assert_eq(ht_gpu_peak(g), 5120 + 4864);
        ht_gpu_set_limit(g, 100);
        cr_assert_eq(ht_gpu_alloc(g, 1, &a, &err), HT_ENOMEM);
        cr_assert_eq(ht_gpu_alloc(g, 0, &a, &err), HT_EINVAL);
        cr_assert_eq(ht_gpu_alloc(g, UINT64_MAX, &a, &err), HT_EINVAL);
        ht_gpu_close(&g);
        cr_assert_null(g);
        ht_gpu_close(&g);
    }
}

Test(gpu_device, ranges)
{
    FOR_DEVICES(g) {
        uint8_t b[600] = { 0 };
        const uint64_t x = put(g, b, 512), y = put(g, b, 512);
        if (x + 512 != y)
            cr_assert_eq(ht_gpu_upload(g, 0, x + 512, b, 1, NULL), HT_EINVAL);
        cr_assert_eq(ht_gpu_upload(g, 0, x + 12, b, 501, NULL), HT_EINVAL);
        cr_assert_eq(ht_gpu_download(g, 0, b, x, 600, NULL), HT_EINVAL);
        cr_assert_eq(ht_gpu_download(g, 0, b, 0, 1, NULL), HT_EINVAL);
        cr_assert_eq(ht_gpu_copy(g, 0, x, y + 1, 512, NULL), HT_EINVAL);
        cr_assert_eq(ht_gpu_copy(g, 0, x + 1, y, 512, NULL), HT_EINVAL);
        cr_assert_eq(ht_gpu_upload(g, HT_GPU_QUEUES, x, b, 1, NULL), HT_EINVAL);
        cr_assert_eq(ht_gpu_upload(g, 0, x, b, 0, NULL), HT_OK);
        cr_assert_eq(ht_gpu_wait(g, 1000000, NULL), HT_EINVAL, "never recorded");
    }
}

Test(gpu_device, events)
{
    FOR_DEVICES(g) {
        ht_gpu_event e[2 * HT_GPU_EVENTS + 3], last = 0;
        const uint64_t x = put(g, NULL, 64);
        uint32_t n = 0, got;
        for (uint32_t i = 0; i < sizeof e / sizeof *e; i++) {
            cr_assert_eq(ht_gpu_upload(g, i % 2, x, &n, 4, NULL), HT_OK);
            cr_assert_eq(ht_gpu_record(g, i % 2, &e[i], NULL), HT_OK);
            cr_assert_gt(e[i], last);
            last = e[i];
        }
        cr_assert_eq(ht_gpu_join(g, HT_GPU_COMPUTE, last, NULL), HT_OK);
        for (uint32_t i = 0; i < sizeof e / sizeof *e; i++)
            cr_assert_eq(ht_gpu_wait(g, e[i], NULL), HT_OK);
        cr_assert_eq(ht_gpu_reached(g, e[0], NULL), HT_OK);
        get(g, &got, x, 4);
        cr_assert_eq(got, 0);
    }
}

Test(gpu_device, measure)
{
    FOR_DEVICES(g) {
        ht_gpu_figures f;
        ht_error err = { 0 };
        const uint64_t used = ht_gpu_used(g);
        ht_gpu_set_limit(g, 12 << 20); /* plain C is slow */
        cr_assert_eq(ht_gpu_measure(g, &f, &err), HT_OK, "%s", err.text);
        cr_assert(f.read_bps > 0 && f.upload_bps > 0 && f.download_bps > 0 && f.submit_s > 0 && f.launch_s > 0);
        cr_assert_eq(ht_gpu_used(g), used);
        cr_assert_leq(ht_gpu_peak(g), 12 << 20);
        cr_log_info("%s: reads %.2f GB/s, up %.2f, down %.2f; a submit %.1f us, a launch %.1f", ht_gpu_about(g)->name,
                    1e-9 * f.read_bps, 1e-9 * f.upload_bps, 1e-9 * f.download_bps, 1e6 * f.submit_s, 1e6 * f.launch_s);
        ht_gpu_set_limit(g, 1 << 20);
        cr_assert_eq(ht_gpu_measure(g, &f, &err), HT_ENOMEM);
        cr_assert_eq(ht_gpu_used(g), used);
    }
}

Test(gpu_device, find)
{
    ht_gpu_list list;

    ht_gpu_find(&list, "/nowhere");
    cr_assert_eq(list.n, 0);
    cr_assert(strstr(list.missing, "hearth-cuda.so") && strstr(list.missing, "hearth-opencl.so"), "%s", list.missing);
    ht_gpu_find(&list, HEARTH_BUILD_DIR);
    for (uint32_t i = 0; i < list.n; i++) {
        cr_assert(list.gpu[i].name[0] && list.gpu[i].driver[0] && list.gpu[i].most_bytes);
        cr_log_info("%s %u: %s (%s)", list.gpu[i].driver, list.gpu[i].index, list.gpu[i].name, list.gpu[i].version);
    }
    cr_assert(!strstr(list.missing, "hearth-opencl.so belongs"), "%s", list.missing); /* the target that builds this builds that */
    cr_log_info("missing: %s", list.missing);
    ht_gpu *g;
    ht_error err = { 0 };
    cr_assert_eq(ht_gpu_open(&g, &(ht_gpu_params){ .driver = "abacus" }, &err), HT_EUNSUPPORTED);
    if (have_opencl()) {
        ht_gpu_params p = { .driver = "opencl", .index = 99, .folder = HEARTH_BUILD_DIR };
        cr_assert_eq(ht_gpu_open(&g, &p, &err), HT_EINVAL, "%s", err.text);
    }
}

/* Launches that cannot be right never reach a driver. */
Test(gpu_device, launch_is_checked)
{
    FOR_DEVICES(g) {
        add_args a = { 0 };
        ht_gpu_launch l = { .kernel = HT_K_add, .grid = { 1, 1, 1 }, .args = &a, .args_bytes = sizeof a };
        cr_assert_eq(ht_gpu_launch_kernel(g, &l, NULL), HT_OK, "k is 0: nothing is touched");
        l.args_bytes--;
        cr_assert_eq(ht_gpu_launch_kernel(g, &l, NULL), HT_EINVAL);
        l.args_bytes++;
        l.grid[1] = 0;
        cr_assert_eq(ht_gpu_launch_kernel(g, &l, NULL), HT_EINVAL);
        l.grid[1] = 65536;
        cr_assert_eq(ht_gpu_launch_kernel(g, &l, NULL), HT_EINVAL);
        l.grid[1] = 1;
        l.kernel = HT_N_GPU_KERNELS;
        cr_assert_eq(ht_gpu_launch_kernel(g, &l, NULL), HT_EINVAL);
        settle(g);
    }
}
