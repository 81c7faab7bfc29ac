/* SPDX-License-Identifier: MIT
 * inspect on good files, and every command on files that are damaged: exit status 3, a sentence, soon. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/tools/command.h"

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

Test(inspect, json_names_everything)
{
    const char *model = shipped_model();
    outcome o = command_run("inspect", model, "--json"), t = command_run("inspect", model), d = command_run("inspect");
    cJSON *j = outcome_json(&o);
    cJSON *meta = cJSON_GetObjectItem(j, "metadata"), *tensors = cJSON_GetObjectItem(j, "tensors"), *e;
    bool architecture = false;
    cJSON_ArrayForEach(e, meta)
    {
        cr_assert(cJSON_IsString(cJSON_GetObjectItem(e, "type")));
        if (!strcmp(cJSON_GetStringValue(cJSON_GetObjectItem(e, "key")), "general.architecture"))
            architecture = cJSON_IsString(cJSON_GetObjectItem(e, "value"));
    }
    cr_assert(architecture);
    cr_assert_gt(cJSON_GetArraySize(tensors), 0);
    cJSON_ArrayForEach(e, tensors)
    {
        cr_assert_gt(json_number(e, "bytes"), 0);
        cr_assert_gt(cJSON_GetArraySize(cJSON_GetObjectItem(e, "shape")), 0);
        cr_assert(strstr(t.out, cJSON_GetStringValue(cJSON_GetObjectItem(e, "name"))));
    }
    cr_assert_eq(d.status, 0);
    cJSON_Delete(j);
    outcome_free(&o);
    outcome_free(&t);
    outcome_free(&d);
}

Test(inspect, json_arrays_are_arrays)
{
    outcome o = command_run("inspect", shipped_model(), "--json");
    cJSON *j = outcome_json(&o), *e;
    int strings = 0;
    cJSON_ArrayForEach(e, cJSON_GetObjectItem(j, "metadata"))
    {
        const char *type = cJSON_GetStringValue(cJSON_GetObjectItem(e, "type"));
        const cJSON *value = cJSON_GetObjectItem(e, "value");
        if (strncmp(type, "array", 5))
            continue;
        cr_assert(cJSON_IsArray(value), "%s", type);
        cr_assert_eq(cJSON_GetArraySize(value), json_number(e, "n"));
        if (strstr(type, "string") && ++strings)
            cr_assert(cJSON_IsString(cJSON_GetArrayItem(value, 0)));
    }
    cr_assert_gt(strings, 0);
    cJSON_Delete(j);
    outcome_free(&o);
}

Test(inspect, a_tensor_as_npy)
{
    shipped_model();
    const char *out = scratch_file("t.npy", NULL, 0);
    outcome o = command_run("inspect", "--tensor", "token_embd.weight", "-o", out);
    outcome j = command_run("inspect", "--tensor", "token_embd.weight", "--json");
    cr_assert_eq(o.status, 0, "%s", o.err);
    cr_assert_eq(o.n_out, 0);
    cJSON *object = outcome_json(&j), *shape = cJSON_GetObjectItem(object, "shape");
    cr_assert_eq(cJSON_GetArraySize(shape), 2);
    double rows = cJSON_GetArrayItem(shape, 0)->valuedouble, columns = cJSON_GetArrayItem(shape, 1)->valuedouble;
    char wanted[80];
    snprintf(wanted, sizeof wanted, "'shape': (%.0f, %.0f)", rows, columns);
    size_t n;
    char *npy = read_whole(out, &n);
    size_t head = 10 + (unsigned char)npy[8] + 256u * (unsigned char)npy[9];
    cr_assert(strstr(npy + 10, wanted), "%.100s", npy + 10);
    cr_assert_eq(n, head + (size_t)(rows * columns) * 4);
    double sum = 0;
    for (size_t i = head; i < n; i += 4) {
        float v;
        memcpy(&v, npy + i, 4);
        sum += fabs((double)v);
    }
    cr_assert(isfinite(sum) && sum > 0);
    free(npy);
    cJSON_Delete(object);
    outcome_free(&o);
    outcome_free(&j);
    o = command_run("inspect", "--tensor", "no.such.tensor");
    cr_assert_eq(o.status, 2);
    cr_assert(strstr(o.err, "no.such.tensor"));
    outcome_free(&o);
}

/* Exit status 3 from a command that opens the file, with one sentence and within seconds even under a sanitizer. */
static void unusable(const char *path, const char *what)
{
    static const char *const commands[][6] = {
        { "run", NULL, "-p", "x", NULL },
        { "tokenize", NULL, "-p", "x", NULL },
        { "perplexity", NULL, "-p", "x y z", NULL },
        { "inspect", NULL, NULL },
    };
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        const char *args[6];
        memcpy(args, commands[i], sizeof args);
        args[1] = path;
        double begin = seconds();
        outcome o = command_run_v(&(circumstances){ 0 }, args);
        cr_assert_eq(o.status, 3, "%s %s: status %d: %s", args[0], what, o.status, o.err);
        cr_assert_eq(o.n_out, 0);
        cr_assert_eq(strchr(o.err, '\n'), o.err + o.n_err - 1, "%s: one line was expected: %s", what, o.err);
        cr_assert_lt(seconds() - begin, 20);
        outcome_free(&o);
    }
}

Test(damage, cut_short)
{
    size_t n;
    char *whole = read_whole(shipped_model(), &n);
    const size_t lengths[] = { 0, 3, 4, 16, 23, 24, 100, 1000, 20000, n / 2, n - 1 };
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        char what[40];
        snprintf(what, sizeof what, "%zu bytes of %zu", lengths[i], n);
        unusable(scratch_file("cut.gguf", whole, lengths[i]), what);
    }
    free(whole);
}

Test(damage, other_files)
{
    static const char text[] = "This is no model, but it is long enough to be mistaken for one by a hasty reader.\n";
    unusable(scratch_file("text.gguf", text, sizeof text - 1), "text");
    char zeros[4096] = { 0 };
    unusable(scratch_file("zeros.gguf", zeros, sizeof zeros), "zeros");
    memcpy(zeros, "GGUF\x03", 5);
    memset(zeros + 8, 0xff, 16);
    unusable(scratch_file("counts.gguf", zeros, sizeof zeros), "absurd counts");
}

Test(damage, samples_of_the_classes)
{
    char folder[1000];
    snprintf(folder, sizeof folder, "%s/data/malformed/handcrafted", HEARTH_SHARED_DIR);
    DIR *d = opendir(folder);
    if (!d)
        cr_skip("there is no ../shared/data/malformed");
    for (struct dirent *e; (e = readdir(d));) {
        char path[2000];
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        if (!strncmp(e->d_name, "bad_", 4))
            unusable(path, e->d_name);
    }
    closedir(d);
}

Test(damage, a_container_without_a_model)
{
    /* GGUF version 3 with one key and nothing else. */
    static const char file[] = "GGUF\x03\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0"
                               "\x14\0\0\0\0\0\0\0general.architecture\x08\0\0\0\x04\0\0\0\0\0\0\0bert";
    const char *path = scratch_file("bert.gguf", file, sizeof file - 1);
    outcome o = command_run("inspect", path), r = command_run("run", path, "-p", "x");
    cr_assert_eq(o.status, 0, "%s", o.err);
    cr_assert(strstr(o.out, "bert"));
    cr_assert_eq(r.status, 3);
    cr_assert(strstr(r.err, "bert"), "%s", r.err);
    outcome_free(&o);
    outcome_free(&r);
}
