/* SPDX-License-Identifier: MIT
 *
 * Runs a fuzz target over files and folders given: the corpus as an ordinary test, with any compiler. Every file is
 * handed over in a block of its exact size, so that a sanitizer sees each byte read beyond. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static int run_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    long n = -1;

    if (f && fseek(f, 0, SEEK_END) == 0)
        n = ftell(f);
    uint8_t *p = n >= 0 ? malloc(n ? (size_t)n : 1) : NULL;
    if (!p || fseek(f, 0, SEEK_SET) != 0 || fread(p, 1, (size_t)n, f) != (size_t)n) {
        fprintf(stderr, "%s: cannot read\n", path);
        free(p);
        if (f)
            fclose(f);
        return -1;
    }
    fclose(f);
    fprintf(stderr, "%s\n", path); /* before the run: after a crash it is the last line */
    LLVMFuzzerTestOneInput(p, (size_t)n);
    free(p);
    return 1;
}

/* Files run, or -1. */
static int run_path(const char *path)
{
    struct stat sb;
    struct dirent *e;
    int done = 0;

    if (stat(path, &sb) != 0 || !S_ISDIR(sb.st_mode))
        return run_file(path);
    DIR *d = opendir(path);
    if (!d)
        return -1;
    while (done >= 0 && (e = readdir(d))) {
        char inner[4096];
        if (e->d_name[0] == '.')
            continue;
        snprintf(inner, sizeof inner, "%s/%s", path, e->d_name);
        int n = run_path(inner);
        done = n < 0 ? n : done + n;
    }
    closedir(d);
    return done;
}

int main(int argc, char **argv)
{
    int done = 0;

    for (int i = 1; i < argc && done >= 0; i++) {
        int n = run_path(argv[i]);
        done = n < 0 ? n : done + n;
    }
    if (done <= 0) {
        fprintf(stderr, "no files were run\n");
        return 1;
    }
    printf("%d files\n", done);
    return 0;
}
