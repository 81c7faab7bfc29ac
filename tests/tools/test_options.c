/* SPDX-License-Identifier: MIT
 * The option parser by itself: sizes, suggestions, forms of flags, flags that hide others. */
#include <criterion/criterion.h>
#include <string.h>

#include "tools/options.h"

static const ht_flag own[] = {
    { 'p', "prompt", "TEXT", HT_FLAG_TEXT, offsetof(ht_options, prompt), 0, 0, NULL, NULL, "x" },
    { 0, "threads", "LIST", HT_FLAG_TEXT, offsetof(ht_options, list_threads), 0, 0, NULL, NULL, "x" },
    { 0 },
};

static const ht_command command = {
    .name = "try",
    .arguments = "[MODEL]",
    .max_positional = 1,
    .takes_stdin = true,
    .tables = { own, ht_flags_model, ht_flags_talk },
    .idle = { ht_flags_sampling },
};

static bool parse(ht_options *o, char *why, const char *const *args)
{
    char *argv[20] = { (char *)"try" };
    int n = 1;
    for (; *args; args++)
        argv[n++] = (char *)*args;
    return ht_options_parse(&command, n, argv, o, why, 200);
}

#define PARSE(...) parse(&o, why, (const char *const[]){ __VA_ARGS__, NULL })

Test(options, sizes)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {
        { "0", 0 },           { "512", 512 },         { "1k", 1024 },         { "1K", 1024 }, { "512M", 512ull << 20 },
        { "6G", 6ull << 30 }, { "1.5G", 3ull << 29 }, { "2GiB", 2ull << 30 }, { "7B", 7 },    { "1T", 1ull << 40 }
    };
    static const char *const bad[] = {
        "", "G", "-1", "1X", "1GG", "1 G", "nan", "inf", "1e30", "0x10", "99999999999999G"
    };
    uint64_t v = 0;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        cr_assert(ht_options_size(good[i].text, &v), "%s", good[i].text);
        cr_assert_eq(v, good[i].bytes, "%s", good[i].text);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_assert_not(ht_options_size(bad[i], &v), "%s", bad[i]);
}

Test(options, nearest)
{
    static const char *const names[] = { "run", "chat", "bench", "inspect", "tokenize", "detokenize" };
    cr_assert_str_eq(ht_options_nearest("inspct", names, 6), "inspect");
    cr_assert_str_eq(ht_options_nearest("rnu", names, 6), "run");
    cr_assert_str_eq(ht_options_nearest("tokenise", names, 6), "tokenize");
    cr_assert_null(ht_options_nearest("quux", names, 6));
    cr_assert_null(ht_options_nearest("", names, 6));
    char longest[2000];
    memset(longest, 'a', sizeof longest);
    longest[sizeof longest - 1] = 0;
    cr_assert_null(ht_options_nearest(longest, names, 6));
}

Test(options, forms)
{
    ht_options o;
    char why[200];
    cr_assert(PARSE("m.gguf", "-p", "--json", "--ram=2G", "--top-k", "7", "--override", "a=b", "--override", "c=d"));
    cr_assert_str_eq(o.positional[0], "m.gguf");
    cr_assert_str_eq(o.prompt, "--json"); /* what follows a flag with a value is the value */
    cr_assert_not(o.json);
    cr_assert_eq(o.ram.bytes, 2ull << 30);
    cr_assert_eq(o.top_k.v, 7);
    cr_assert_eq(o.overrides.n, 2);
    cr_assert_str_eq(o.overrides.v[1], "c=d");
    cr_assert(PARSE("-n128", "-ptext", "--", "-odd.gguf"));
    cr_assert_eq(o.n_predict.v, 128);
    cr_assert_str_eq(o.prompt, "text");
    cr_assert_str_eq(o.positional[0], "-odd.gguf");
    cr_assert(PARSE("-"));
    cr_assert(o.from_stdin);
    cr_assert_eq(o.n_positional, 0);
    cr_assert(PARSE("-p", "x", "--help", "--no-such"));
    cr_assert(o.help);
    cr_assert_not(PARSE("-p", "x", "--no-such"));
}

Test(options, own_flags_hide_shared_ones)
{
    ht_options o;
    char why[200];
    cr_assert(PARSE("--threads", "1,2"));
    cr_assert_str_eq(o.list_threads, "1,2");
    cr_assert_not(o.threads.given);
}

Test(options, too_many)
{
    ht_options o;
    char why[200];
    cr_assert_not(PARSE("a", "b"));
    cr_assert(strstr(why, "'b'"));
    char *argv[2 * HT_MAX_TEXTS + 4] = { (char *)"try" };
    int n = 1;
    for (int i = 0; i < HT_MAX_TEXTS + 1; i++) {
        argv[n++] = (char *)"--stop";
        argv[n++] = (char *)"x";
    }
    cr_assert_not(ht_options_parse(&command, n, argv, &o, why, sizeof why));
    cr_assert(strstr(why, "--stop"));
}
