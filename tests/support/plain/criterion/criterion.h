/* SPDX-License-Identifier: MIT
 *
 * A stand-in for Criterion's header where Criterion itself cannot run: under the thread sanitizer its way of
 * starting test processes (memory at fixed addresses, threads in the parent) fails. The same names for what hearth's
 * tests use of it; every test is a forked child of a parent without threads. See plain.c. */
#ifndef HT_TESTS_PLAIN_CRITERION_H
#define HT_TESTS_PLAIN_CRITERION_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef struct plain_params {
    size_t size;
    void *data;
    size_t n;
} plain_params;

typedef struct plain_test {
    const char *suite, *name;
    void (*run)(void);
    void (*run_with)(void *);
    plain_params (*params)(void);
    /* What a test or suite may set. */
    void (*init)(void), (*fini)(void);
    double timeout;
    bool disabled;
    const char *description;
    struct plain_test *next;
} plain_test;

void plain_add(plain_test *t);  /* name NULL: a suite */
void plain_fail(bool fatal, const char *file, int line, const char *what, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
void plain_skip(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
void plain_log(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#define PLAIN_ADD(id, ...)                                                                                             \
    static plain_test id = { __VA_ARGS__ };                                                                            \
    __attribute__((constructor)) static void id##_add(void) { plain_add(&id); }

#define Test(s, t, ...)                                                                                                \
    static void s##_##t##_run(void);                                                                                   \
    PLAIN_ADD(s##_##t##_test, .suite = #s, .name = #t, .run = s##_##t##_run, ##__VA_ARGS__)                            \
    static void s##_##t##_run(void)
#define TestSuite(s, ...) PLAIN_ADD(s##_suite, .suite = #s, ##__VA_ARGS__)
#define ParameterizedTestParameters(s, t) static plain_params s##_##t##_params(void)
#define ParameterizedTest(param, s, t, ...)                                                                            \
    static void s##_##t##_run(param);                                                                                  \
    static void s##_##t##_with(void *p)                                                                                \
    {                                                                                                                  \
        s##_##t##_run(p);                                                                                              \
    }                                                                                                                  \
    PLAIN_ADD(s##_##t##_test, .suite = #s, .name = #t, .run_with = s##_##t##_with, .params = s##_##t##_params,         \
              ##__VA_ARGS__)                                                                                           \
    static void s##_##t##_run(param)
#define cr_make_param_array(type, array, count, ...) ((plain_params){ sizeof(type), (void *)(array), (count) })

#define PLAIN_CHECK(fatal, cond, what, ...)                                                                            \
    do {                                                                                                               \
        if (!(cond))                                                                                                   \
            plain_fail(fatal, __FILE__, __LINE__, what, " " __VA_ARGS__);                                              \
    } while (0)

#define cr_assert(c, ...) PLAIN_CHECK(true, (c), #c, __VA_ARGS__)
#define cr_assert_not(c, ...) PLAIN_CHECK(true, !(c), "not " #c, __VA_ARGS__)
#define cr_assert_eq(a, b, ...) PLAIN_CHECK(true, (a) == (b), #a " == " #b, __VA_ARGS__)
#define cr_assert_neq(a, b, ...) PLAIN_CHECK(true, (a) != (b), #a " != " #b, __VA_ARGS__)
#define cr_assert_lt(a, b, ...) PLAIN_CHECK(true, (a) < (b), #a " < " #b, __VA_ARGS__)
#define cr_assert_leq(a, b, ...) PLAIN_CHECK(true, (a) <= (b), #a " <= " #b, __VA_ARGS__)
#define cr_assert_gt(a, b, ...) PLAIN_CHECK(true, (a) > (b), #a " > " #b, __VA_ARGS__)
#define cr_assert_geq(a, b, ...) PLAIN_CHECK(true, (a) >= (b), #a " >= " #b, __VA_ARGS__)
#define cr_assert_null(a, ...) PLAIN_CHECK(true, (a) == NULL, #a " is null", __VA_ARGS__)
#define cr_assert_not_null(a, ...) PLAIN_CHECK(true, (a) != NULL, #a " is not null", __VA_ARGS__)
#define cr_assert_str_eq(a, b, ...) PLAIN_CHECK(true, strcmp(a, b) == 0, #a " equals " #b, __VA_ARGS__)
#define cr_assert_float_eq(a, b, e, ...)                                                                               \
    PLAIN_CHECK(true, fabs((double)(a) - (double)(b)) <= (e), #a " near " #b, __VA_ARGS__)
#define cr_assert_arr_eq(a, b, n, ...) PLAIN_CHECK(true, memcmp(a, b, n) == 0, #a " equals " #b, __VA_ARGS__)
#define cr_assert_fail(...) plain_fail(true, __FILE__, __LINE__, "reached", " " __VA_ARGS__)

#define cr_expect(c, ...) PLAIN_CHECK(false, (c), #c, __VA_ARGS__)
#define cr_expect_not(c, ...) PLAIN_CHECK(false, !(c), "not " #c, __VA_ARGS__)
#define cr_expect_eq(a, b, ...) PLAIN_CHECK(false, (a) == (b), #a " == " #b, __VA_ARGS__)
#define cr_expect_neq(a, b, ...) PLAIN_CHECK(false, (a) != (b), #a " != " #b, __VA_ARGS__)
#define cr_expect_lt(a, b, ...) PLAIN_CHECK(false, (a) < (b), #a " < " #b, __VA_ARGS__)
#define cr_expect_leq(a, b, ...) PLAIN_CHECK(false, (a) <= (b), #a " <= " #b, __VA_ARGS__)
#define cr_expect_gt(a, b, ...) PLAIN_CHECK(false, (a) > (b), #a " > " #b, __VA_ARGS__)
#define cr_expect_geq(a, b, ...) PLAIN_CHECK(false, (a) >= (b), #a " >= " #b, __VA_ARGS__)
#define cr_expect_null(a, ...) PLAIN_CHECK(false, (a) == NULL, #a " is null", __VA_ARGS__)
#define cr_expect_not_null(a, ...) PLAIN_CHECK(false, (a) != NULL, #a " is not null", __VA_ARGS__)
#define cr_expect_str_eq(a, b, ...) PLAIN_CHECK(false, strcmp(a, b) == 0, #a " equals " #b, __VA_ARGS__)
#define cr_expect_str_neq(a, b, ...) PLAIN_CHECK(false, strcmp(a, b) != 0, #a " differs from " #b, __VA_ARGS__)
#define cr_expect_float_eq(a, b, e, ...)                                                                               \
    PLAIN_CHECK(false, fabs((double)(a) - (double)(b)) <= (e), #a " near " #b, __VA_ARGS__)
#define cr_expect_arr_eq(a, b, n, ...) PLAIN_CHECK(false, memcmp(a, b, n) == 0, #a " equals " #b, __VA_ARGS__)

#define cr_skip(...) plain_skip(" " __VA_ARGS__)
#define cr_skip_test(...) plain_skip(" " __VA_ARGS__)
#define cr_log_info(...) plain_log(__VA_ARGS__)
#define cr_log_warn(...) plain_log(__VA_ARGS__)

#endif
