/* SPDX-License-Identifier: MIT
 * The file of a machine's figures: what is written is read, every damage is refused, another machine's is told apart. And that
 * measuring gives figures at all, however large. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/rates.h"

static ht_topology machine;

static ht_rates fresh(void)
{
    ht_rates r;
    snprintf(machine.model, sizeof machine.model, "A \"fast\"\tone");
    ht_rates_init(&r, &machine, 3, HT_ISA_REF, false);
    return r;
}

static ht_rates filled(void)
{
    ht_rates r = fresh();
    r.task_s = 2e-6;
    r.wait_s = 3e-6;
    r.op_s = 1.5e-7;
    r.element_s = 2.5e-10;
    r.memory_bps = 2e10;
    r.large_gain = 1.25;
    r.disk_direct_bps = 5e8;
    r.types[HT_Q4_0] = (ht_type_rates){ 1e10, 9e9, 4e10, 6e9, { 5e10, 6e10, 7e10 } };
    r.types[HT_MXFP4] = (ht_type_rates){ 2e10, 2e10, 3e10, 4e9, { 1e10, 2e10, 3e10 } };
    r.kv[HT_F16] = (ht_kv_rates){ 1e-10, 2e-12, 4e10 };
    r.gpu = (ht_gpu_rates){ .read_bps = 3e11, .prompt_mps = 1e13, .launch_s = 5e-6, .join_s = 1e-5, .hop_s = 8e-6,
                            .vram_bytes = 8ull << 30, .fixed_bytes = 300 << 20 };
    return r;
}

static char *text_of(const ht_rates *r, size_t *n)
{
    char path[] = "/tmp/hearth-rates-XXXXXX";
    const int fd = mkstemp(path);
    ht_error err;
    cr_assert_geq(fd, 0);
    close(fd);
    cr_assert_eq(ht_rates_write(r, path, &err), HT_OK, "%s", err.text);
    char *text = calloc(1, 8192);
    FILE *f = fopen(path, "rb");
    cr_assert(text && f);
    *n = fread(text, 1, 8191, f);
    fclose(f);
    ht_rates again = fresh();
    cr_expect_eq(ht_rates_read(&again, path, &err), HT_OK, "%s", err.text);
    unlink(path);
    cr_expect_eq(ht_rates_read(&again, path, &err), HT_EIO);
    cr_expect_eq(ht_rates_read(&again, "/dev/null", &err), HT_EIO);
    return text;
}

Test(rates, what_is_written_is_read)
{
    const ht_rates r = filled();
    ht_rates back = fresh();
    ht_error err;
    size_t n;
    char *text = text_of(&r, &n);

    cr_assert_eq(ht_rates_parse(&back, text, n, "file", &err), HT_OK, "%s", err.text);
    cr_expect_float_eq(back.task_s, r.task_s, 1e-14);
    cr_expect_float_eq(back.element_s, r.element_s, 1e-14);
    cr_expect_float_eq(back.types[HT_Q4_0].prompt_mps[2], 7e10, 1);
    cr_expect_float_eq(back.types[HT_MXFP4].gather_bps, 4e9, 1);
    cr_expect_float_eq(back.kv[HT_F16].query_s, 2e-12, 1e-15);
    cr_expect_float_eq(back.large_gain, 1.25, 1e-9);
    cr_expect_float_eq(back.gpu.join_s, 1e-5, 1e-14);
    cr_expect_eq(back.gpu.vram_bytes, r.gpu.vram_bytes);
    cr_expect_str_eq(back.cpu, "A \"fast\"?one");
    cr_expect(ht_rates_have(&back, &(ht_rates_want){ 1ull << HT_Q4_0 | 1ull << HT_MXFP4, 1ull << HT_F16 }));
    cr_expect_not(ht_rates_have(&back, &(ht_rates_want){ 1ull << HT_Q8_0, 0 }));
    cr_expect_not(ht_rates_have(&back, &(ht_rates_want){ 0, 1ull << HT_Q8_0 }));
    free(text);
}

Test(rates, others_are_told_apart)
{
    const ht_rates r = filled();
    ht_error err;
    size_t n;
    char *text = text_of(&r, &n);

    for (int i = 0; i < 4; i++) {
        ht_rates other = fresh();
        if (i == 0)
            other.threads = 4;
        else if (i == 1)
            other.f32 = true;
        else if (i == 2)
            snprintf(other.isa, sizeof other.isa, "avx2");
        else
            snprintf(other.cpu, sizeof other.cpu, "A \"fast\"?on");
        const ht_rates before = other;
        cr_expect_eq(ht_rates_parse(&other, text, n, "file", &err), HT_EMISMATCH, "%d: %s", i, err.text);
        cr_expect_arr_eq(&other, &before, sizeof other);
    }
    free(text);
}

Test(rates, every_damage_is_refused)
{
    static const char head[] = "hearth rates 1\nversion " HEARTH_VERSION "\ncpu A \"fast\"?one\nthreads 3\nisa ref\nprecision fast\n";
    static const char *const bad[] = {
        "", "end", "task_fs\nend\n", "task_fs 1 2\nend\n", "task_fs -1\nend\n", "task_fs 1e5\nend\n", "task_fs 0x10\nend\n",
        "task_fs 99999999999999999999\nend\n", "task_fs 1\ntask_fs 1\nend\n", "nothing 1\nend\n", "\nend\n", " \nend\n",
        "type Q9_9 read_bps 1 short_bps 1 cached_bps 1 gather_bps 1 prompt16_mps 1 prompt64_mps 1 prompt512_mps 1\nend\n",
        "type Q4_0 read_bps 1 short_bps 1 cached_bps 1 gather_bps 1 prompt16_mps 1 prompt64_mps 1\nend\n",
        "type Q4_0 read_bps 0 short_bps 1 cached_bps 1 gather_bps 1 prompt16_mps 1 prompt64_mps 1 prompt512_mps 1\nend\n",
        "type Q4_0 short_bps 1 read_bps 1 cached_bps 1 gather_bps 1 prompt16_mps 1 prompt64_mps 1 prompt512_mps 1\nend\n",
        "kv F16 element_fs 1 query_fs 1 prompt_mps 1\nkv F16 element_fs 1 query_fs 1 prompt_mps 1\nend\n",
        "gpu_vram_bytes x\nend\n", "end\nmore\n", "end\n\n",
    };
    ht_error err;
    char text[2000];

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ht_rates r = fresh();
        const ht_rates before = r;
        const int n = snprintf(text, sizeof text, "%s%s", head, bad[i]);
        cr_expect_eq(ht_rates_parse(&r, text, (size_t)n, "file", &err), HT_EFORMAT, "%s", bad[i]);
        cr_expect_arr_eq(&r, &before, sizeof r);
    }
}

/* No prefix of a file is one, and no flipped bit crashes. */
Test(rates, cut_and_flipped)
{
    const ht_rates r = filled();
    ht_error err;
    size_t n;
    char *text = text_of(&r, &n);

    for (size_t i = 0; i < n; i++) {
        ht_rates to = fresh();
        char *cut = malloc(i + 1); /* so that a read behind it is seen */
        cr_assert_not_null(cut);
        memcpy(cut, text, i);
        cr_expect_neq(ht_rates_parse(&to, cut, i, "file", &err), HT_OK, "%zu bytes", i);
        free(cut);
        for (int bit = 0; bit < 8; bit++) {
            text[i] ^= (char)(1 << bit);
            const ht_status st = ht_rates_parse(&to, text, n, "file", &err);
            cr_expect(st == HT_OK || st == HT_EFORMAT || st == HT_EMISMATCH);
            text[i] ^= (char)(1 << bit);
        }
    }
    free(text);
}

static bool stop(void *user, const char *what, uint64_t done, uint64_t total)
{
    (void)what;
    (void)done;
    (void)total;
    return ++*(int *)user < 2;
}

Test(rates, measuring_gives_figures)
{
    const ht_rates_want want = { 1ull << HT_Q4_0, 1ull << HT_F16 };
    ht_topology *t = calloc(1, sizeof *t);
    ht_rates r;
    ht_error err;
    int calls = 0;

    cr_assert_not_null(t);
    if (HEARTH_TEST_SANITIZE[0])
        cr_skip_test("a measurement under %s is minutes of nothing", HEARTH_TEST_SANITIZE);
    cr_assert_eq(ht_topology_read(t, &err), HT_OK, "%s", err.text);
    ht_rates_init(&r, t, 1, ht_isa_best(), false);
    cr_expect_eq(ht_rates_measure(&r, t, &want, false, stop, &calls, &err), HT_ECANCELLED);
    cr_expect_eq(r.task_s, 0);
    cr_assert_eq(ht_rates_measure(&r, t, &want, false, NULL, NULL, &err), HT_OK, "%s", err.text);
    cr_expect(ht_rates_have(&r, &want));
    cr_expect(r.task_s > 0 && r.wait_s > 0 && r.op_s > 0 && r.element_s > 0 && r.memory_bps > 0);
    cr_expect(r.types[HT_Q4_0].cached_bps >= r.types[HT_Q4_0].read_bps && r.types[HT_Q4_0].gather_bps > 0);
    cr_expect(r.kv[HT_F16].element_s > 0 && r.kv[HT_F16].query_s > 0 && r.kv[HT_F16].prompt_mps > 0);
    ht_topology_deinit(t);
    free(t);
}
