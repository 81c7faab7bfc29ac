/* SPDX-License-Identifier: MIT
 *
 * Error sentences: cut to size, free of control characters, offsets appended. */
#include <criterion/criterion.h>
#include <string.h>

#include "engine/base/status.h"
#include "engine/hearth.h"

Test(status, sentences)
{
    ht_error e;
    cr_expect_eq(ht_fail(&e, HT_EIO, "%s: %d", "file", 7), HT_EIO);
    cr_expect_str_eq(e.text, "file: 7");
    cr_expect(e.status == HT_EIO && e.offset == UINT64_MAX);
    cr_expect_eq(ht_fail_at(&e, HT_EFORMAT, 123, "key %s is bad", "a\nb\x1b[2J\x7f"), HT_EFORMAT);
    cr_expect_str_eq(e.text, "key a?b?[2J? is bad (at byte 123)");
    cr_expect_eq(e.offset, 123);
    cr_expect_eq(ht_fail(NULL, HT_ENOMEM, "nobody listens"), HT_ENOMEM);
    cr_expect_eq(ht_fail_at(NULL, HT_EFORMAT, 0, "nobody listens"), HT_EFORMAT);
}

Test(status, long_sentences_are_cut)
{
    char text[2000];
    ht_error e;
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = 0;
    ht_fail(&e, HT_EIO, "%s", text);
    cr_expect_eq(strlen(e.text), sizeof e.text - 1);
    ht_fail_at(&e, HT_EFORMAT, UINT64_MAX - 1, "%s", text);
    cr_expect(strlen(e.text) < sizeof e.text);
}

Test(status, texts)
{
    for (int st = 0; st >= -11; st--) {
        cr_expect_str_eq(ht_status_text((ht_status)st), hearth_status_text((hearth_status)st));
        cr_expect(strcmp(ht_status_text((ht_status)st), "unknown status") != 0, "%d", st);
        for (int other = 0; other > st; other--)
            cr_expect(strcmp(ht_status_text((ht_status)st), ht_status_text((ht_status)other)) != 0, "%d and %d", st,
                      other);
    }
    cr_expect_str_eq(hearth_status_text((hearth_status)77), "unknown status");
}
