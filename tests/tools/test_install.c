/* SPDX-License-Identifier: MIT
 * What `cmake --install` leaves: a command that finds its model, a library that others can build against, nothing
 * exported beyond hearth.h. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/tools/command.h"

static const char program[] = "#include <hearth_profiler.h>\n#include <stdio.h>\nint main(void)\n{\n    hearth_error err;\n    "
                              "hearth_profile *p = 0;\n    if (hearth_profile_read(&p, \"/nowhere\", 0, &err) != "
                              "HEARTH_EIO)\n        return 2;\n"
                              "    hearth_model *m = 0;\n    puts(hearth_version());\n"
                              "    return hearth_model_open(&m, \"/nowhere\", 0, &err) == HEARTH_EIO ? 0 : 1;\n}\n";

static void shell(const char *format, const char *a, const char *b)
{
    char command[2000];
    snprintf(command, sizeof command, format, a, b);
    outcome o = command_run_with((&(circumstances){ .program = "/bin/sh" }), "-c", command);
    cr_assert_eq(o.status, 0, "%s: %s%s", command, o.out, o.err);
    outcome_free(&o);
}

Test(install, everything_in_its_place)
{
    if (HEARTH_TEST_SANITIZE[0])
        cr_skip("the installation is that of the release build");
    char prefix[300], path[400];
    snprintf(prefix, sizeof prefix, "%s.d", scratch_file("prefix", NULL, 0));
    shell("cmake --install %s --prefix %s", HEARTH_BUILD_DIR, prefix);
    snprintf(path, sizeof path, "%s/bin/hearth", prefix);
    circumstances installed = { .program = path };
    outcome v = command_run_with(&installed, "version");
    cr_assert_eq(v.status, 0);
    outcome_free(&v);
    if (*shipped_model()) {
        outcome o = command_run_with(&installed, "run", "-p", "Once", "-n", "2", "--json");
        cJSON *j = outcome_json(&o);
        cr_assert(strstr(cJSON_GetStringValue(cJSON_GetObjectItem(j, "model")), prefix), "%s", o.out);
        cJSON_Delete(j);
        outcome_free(&o);
    }
    /* C99 against the shared library through pkg-config, and as C++ where a compiler is at hand. */
    const char *source = scratch_file("program.c", program, sizeof program - 1);
    shell("cd %s && PC=$(dirname $(find . -name hearth.pc)) && L=$(dirname $(find $PWD -name libhearth.so)) && "
          "cc -std=c99 -Wall -Wextra -Wpedantic -Werror %s -o use $(PKG_CONFIG_PATH=$PC pkg-config --cflags --libs "
          "hearth) && "
          "LD_LIBRARY_PATH=$L ./use",
          prefix, source);
    shell(
        "cd %s && if command -v c++ > /dev/null; then c++ -x c++ -Wall -Wextra -Werror -fsyntax-only -Iinclude %s; fi",
        prefix, source);
    shell("cd %s && nm -D --defined-only $(find . -name libhearth.so) | awk '$2 != \"A\" && $3 !~ /^hearth_/ { print; "
          "n++ } END { exit n > 0 }' %s",
          prefix, "< /dev/null");
    shell("mkdir -p %s/find%s", prefix, "");
    char lists[1000];
    snprintf(lists, sizeof lists,
             "cmake_minimum_required(VERSION 3.16)\nproject(use C)\nfind_package(hearth REQUIRED)\n"
             "add_executable(use %s)\ntarget_link_libraries(use hearth::hearth)\n"
             "add_executable(use_static %s)\ntarget_link_libraries(use_static hearth::hearth_static)\n",
             source, source);
    snprintf(path, sizeof path, "%s/find/CMakeLists.txt", prefix);
    FILE *f = fopen(path, "w");
    cr_assert_not_null(f);
    fputs(lists, f);
    fclose(f);
    shell("cd %s/find && cmake -S . -B out -DCMAKE_PREFIX_PATH=%s > log 2>&1 || { cat log; exit 1; }; cmake --build "
          "out > log 2>&1 || { cat log; exit 1; }; "
          "out/use && out/use_static",
          prefix, prefix);
    shell("rm -rf %s %s", prefix, "");
}
