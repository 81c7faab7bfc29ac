/* SPDX-License-Identifier: MIT
 *
 * Special tokens, turn ends, white space that they swallow, byte fallback, gemma4, and the streaming detokeniser, on
 * vocabularies small enough to work the results out by hand. */
#include "tests/engine/test_tokenizer.h"

#define SP "\xE2\x96\x81" /* U+2581 */

static void check(const ht_tokenizer *t, const char *text, bool special, const char *want)
{
    char *got = encode_text(t, text, special);
    cr_assert_str_eq(got, want, "'%s' (special %d): %s, wanted %s", text, special, got, want);
    free(got);
}

static void check_piece(const ht_tokenizer *t, ht_token id, bool special, const char *want)
{
    const char *s;
    size_t n = ht_tokenizer_piece(t, id, special, &s);
    cr_assert(n == strlen(want) && memcmp(s, want, n) == 0, "token %d reads '%.*s', wanted '%s'", (int)id, (int)n, s,
              want);
}

/* ---- SentencePiece ----------------------------------------------------------------------------------------------- */

/*                                    0        1      2       3        4        5    6    7     8     9       10 */
static const char *const spm_texts[] = { "<unk>", "<s>", "</s>", "<0x0A>", "<0xC3>", "a", "b", "ab", SP, SP "a", "ba",
                                         /* 11      12        13       14       15 */
                                         "<|end|>", "<user>", "<user>x", SP SP, "<0xff>", NULL };
static const int32_t spm_types[] = { 2, 3, 3, 6, 6, 1, 1, 1, 1, 1, 1, 3, 4, 4, 1, 6 };
static const float spm_scores[] = { 0, 0, 0, 0, 0, -9, -9, -1, -8, -2, -1, 0, 0, 0, -7, 0 };

static void spm_build(build *x)
{
    build_text(x, "tokenizer.ggml.model", "llama");
    build_texts(x, "tokenizer.ggml.tokens", spm_texts);
    build_numbers(x, "tokenizer.ggml.token_type", HT_KV_I32, spm_types, 16, 4);
    build_numbers(x, "tokenizer.ggml.scores", HT_KV_F32, spm_scores, 16, 4);
}

static ht_tokenizer *spm_open(build *x)
{
    ht_tokenizer *t;
    ht_error err = { 0 };
    cr_assert_eq(build_open(x, &t, &err), HT_OK, "%s", err.text);
    return t;
}

Test(tokenizer_special, spm)
{
    build x = { 0 };
    spm_build(&x);
    ht_tokenizer *t = spm_open(&x);
    const ht_vocab_info *v = ht_tokenizer_info(t);

    cr_assert(v->n_vocab == 16 && v->bos == 1 && v->eos == 2 && v->unk == 0 && v->pad == -1);
    cr_assert(v->add_bos && !v->add_eos);
    check(t, "", false, "");
    check(t, "a", false, "9");
    check(t, "ab", false, "8 7");      /* -1 before -2: the best pair first */
    check(t, "aba", false, "8 7 5");   /* ab and ba are equal: the left one */
    check(t, "bab", false, "8 10 6");
    check(t, " a", false, "8 9");      /* the pair of spaces (-7) loses to the space with its word (-2) */
    check(t, "  ", false, "14 8");
    check(t, "a\nb", false, "9 3 6");
    check(t, "\xC3", false, "8 4");    /* no character: its byte */
    check(t, "\xC3\xA9", false, "8 0");/* é: one of its bytes has no token, so it is unknown, once */
    check(t, "\xFF" "a", false, "8 15 5");
    /* special tokens are text unless asked for; user-defined ones never are, the longest first */
    check(t, "<s>", false, "8 0 0 0");
    check(t, "<s>a", true, "1 9");
    check(t, "a<user>a", false, "9 12 9");
    check(t, "a<user>xa", false, "9 13 9");
    check(t, "a<|end|></s>", true, "9 11 2");
    check_piece(t, 9, false, " a");
    check_piece(t, 3, false, "\n");
    check_piece(t, 15, false, "\xFF");
    check_piece(t, 1, false, "");
    check_piece(t, 1, true, "<s>");
    check_piece(t, 12, false, "<user>");
    check_piece(t, 16, true, "");
    check_piece(t, -1, true, "");
    cr_assert_eq(ht_tokenizer_find(t, "ab", 2), 7);
    cr_assert_eq(ht_tokenizer_find(t, "abc", 3), -1);
    cr_assert_eq(ht_tokenizer_find(t, "", 0), -1);
    cr_assert(ht_tokenizer_is_end(t, 2) && ht_tokenizer_is_end(t, 11) && !ht_tokenizer_is_end(t, 1));
    cr_assert(!ht_tokenizer_is_end(t, -1) && !ht_tokenizer_is_end(t, 16));
    cr_assert(ht_tokenizer_is_control(t, 1) && !ht_tokenizer_is_control(t, 12) && !ht_tokenizer_is_control(t, 99));
    cr_assert_eq(v->eot, 11);
    ht_tokenizer_close(&t);
    cr_assert_null(t);
    ht_tokenizer_close(&t);
}

Test(tokenizer_special, spm_without_prefix)
{
    build x = { 0 };
    spm_build(&x);
    build_bool(&x, "tokenizer.ggml.add_space_prefix", false);
    build_bool(&x, "tokenizer.ggml.add_bos_token", false);
    build_bool(&x, "tokenizer.ggml.add_eos_token", true);
    ht_tokenizer *t = spm_open(&x);
    ht_detok d = { 0 };
    char out[64];

    cr_assert(!ht_tokenizer_info(t)->add_bos && ht_tokenizer_info(t)->add_eos);
    check(t, "a", false, "5");
    check(t, "<s>a", true, "1 5");
    cr_assert_eq(ht_detok_push(t, &d, 9, false, out, sizeof out), 2); /* the space is the text's own */
    ht_tokenizer_close(&t);
}

Test(tokenizer_special, phi3_swallows_white_space)
{
    build x = { 0 };
    spm_build(&x);
    build_text(&x, "general.name", "My Phi-3 mini");
    ht_tokenizer *t = spm_open(&x);

    check(t, "a<|end|> \n a", true, "9 11 9");
    check(t, "a<s> a", true, "9 1 8 9"); /* not so <s> */
    check(t, "a<|end|> \n ", true, "9 11");
    ht_tokenizer_close(&t);
}

Test(tokenizer_special, stream)
{
    build x = { 0 };
    spm_build(&x);
    ht_tokenizer *t = spm_open(&x);
    ht_detok d = { 0 };
    char out[64];

    cr_assert_eq(ht_detok_push(t, &d, 1, false, out, sizeof out), 0); /* BOS: nothing, and the text has not begun */
    cr_assert_eq(ht_detok_push(t, &d, 9, false, out, sizeof out), 1); /* " a" at the start: the space goes */
    cr_assert_eq(out[0], 'a');
    cr_assert_eq(ht_detok_push(t, &d, 9, false, out, sizeof out), 2);
    cr_assert_eq(ht_detok_push(t, &d, 4, false, out, sizeof out), 0); /* C3 may become a character */
    cr_assert_eq(ht_detok_push(t, &d, 4, false, out, sizeof out), 1); /* the first C3 never will */
    cr_assert_eq(out[0], '\xC3');
    cr_assert_eq(ht_detok_push(t, &d, 5, false, out, sizeof out), 2);
    cr_assert(memcmp(out, "\xC3" "a", 2) == 0);
    cr_assert_eq(ht_detok_push(t, &d, 15, false, out, sizeof out), 1); /* FF: at once */
    cr_assert_eq(ht_detok_push(t, &d, 4, false, out, sizeof out), 0);
    cr_assert_eq(ht_detok_flush(&d, out, sizeof out), 1);
    cr_assert_eq(ht_detok_flush(&d, out, sizeof out), 0);
    cr_assert_eq(ht_detok_push(t, &d, 4, false, out, 0), 0); /* no room: nothing is written */
    cr_assert_eq(ht_detok_push(t, &d, 4, false, out, 0), 0);
    ht_tokenizer_close(&t);
}

/* ---- byte pairs -------------------------------------------------------------------------------------------------- */

/* "\u0120" is the letter of the space, "\u010A" of the line feed */
static const char *const bpe_texts[] = { /* 0 */ "a", "b", "c", "\xC4\xA0", "\xC4\x8A", /* 5 */ "ab", "abc", "bc",
                                         "\xC4\xA0" "a", "<|im_end|>", /* 10 */ "<|end|>", "<|return|>", "<|call|>",
                                         "[X]", "", /* 15 */ "\xC3\x83", "\xC2\xA9", "cab", NULL };
static const int32_t bpe_types[] = { 1, 1, 1, 1, 1, 1, 1, 1, 1, 4, 3, 3, 3, 4, 1, 1, 1, 1 };
/* the second names a token that is not there: it merges, and its bytes are put out */
static const char *const bpe_merges[] = { "b c", "c c", "a b", "\xC4\xA0 a", "ab c", "nonsense", " x", NULL };

static ht_tokenizer *bpe_open(const char *pre)
{
    build x = { 0 };
    build_text(&x, "tokenizer.ggml.model", "gpt2");
    build_text(&x, "tokenizer.ggml.pre", pre);
    build_texts(&x, "tokenizer.ggml.tokens", bpe_texts);
    build_numbers(&x, "tokenizer.ggml.token_type", HT_KV_I32, bpe_types, 18, 4);
    build_texts(&x, "tokenizer.ggml.merges", bpe_merges);
    build_id(&x, "tokenizer.ggml.eos_token_id", 10);
    return spm_open(&x);
}

Test(tokenizer_special, bpe)
{
    ht_tokenizer *t = bpe_open("gpt-2");

    check(t, "abc", false, "0 7"); /* rank 0 is b c */
    check(t, "ab a", false, "5 8");
    check(t, "accb", false, "0 2 2 1");
    check(t, "ab\n", false, "5 4");
    check(t, "cab", false, "2 5");
    check(t, "\xC3\xA9", false, "15 16");
    check(t, "ax", false, "0"); /* x is no token, and there is no unknown one */
    check(t, "[X]a", false, "13 0");
    check(t, "<|end|>", true, "10");
    check_piece(t, 8, false, " a");
    check_piece(t, 15, false, "\xC3");
    check_piece(t, 14, false, "[EMPTY_14]");
    cr_assert_eq(ht_tokenizer_find(t, "[EMPTY_14]", 10), 14);
    /* a turn end that a converter wrote as user-defined is a control token; <|end|> only parts messages here, but the
     * file calls it EOS */
    check(t, "<|im_end|>", true, "9");
    cr_assert(ht_tokenizer_is_control(t, 9) && ht_tokenizer_is_end(t, 9) && ht_tokenizer_is_end(t, 11));
    cr_assert(ht_tokenizer_is_end(t, 12) && ht_tokenizer_is_end(t, 10) && !ht_tokenizer_is_end(t, 13));
    ht_tokenizer_close(&t);

    t = bpe_open("llama-bpe"); /* a word that is a token needs no merges; BOS is not named: it is not added */
    check(t, "cab", false, "17");
    check(t, "abc", false, "6");
    cr_assert(!ht_tokenizer_info(t)->add_bos);
    cr_assert_not_null(ht_tokenizer_note(t));
    ht_tokenizer_close(&t);
}

Test(tokenizer_special, harmony_end_parts_messages)
{
    static const char *const texts[] = { "a", "<|end|>", "<|return|>", "<|call|>", NULL };
    static const char *const merges[] = { NULL };
    static const int32_t types[] = { 1, 3, 3, 3 };
    build x = { 0 };

    build_text(&x, "tokenizer.ggml.model", "gpt2");
    build_text(&x, "tokenizer.ggml.pre", "gpt-4o");
    build_texts(&x, "tokenizer.ggml.tokens", texts);
    build_numbers(&x, "tokenizer.ggml.token_type", HT_KV_I32, types, 4, 4);
    build_texts(&x, "tokenizer.ggml.merges", merges);
    build_id(&x, "tokenizer.ggml.eos_token_id", 2);
    ht_tokenizer *t = spm_open(&x);
    cr_assert(!ht_tokenizer_is_end(t, 1) && ht_tokenizer_is_end(t, 2) && ht_tokenizer_is_end(t, 3));
    cr_assert_eq(ht_tokenizer_info(t)->eot, -1);
    ht_tokenizer_close(&t);
}

Test(tokenizer_special, fill_in_the_middle_is_not_plain_text)
{
    static const char *const texts[] = { "<", "<|fim_middle|>", "<|file_sep|>", "<other>", NULL };
    static const char *const merges[] = { NULL };
    static const int32_t types[] = { 1, 4, 4, 4 };
    build x = { 0 };

    build_text(&x, "tokenizer.ggml.model", "gpt2");
    build_text(&x, "tokenizer.ggml.pre", "qwen2");
    build_texts(&x, "tokenizer.ggml.tokens", texts);
    build_numbers(&x, "tokenizer.ggml.token_type", HT_KV_I32, types, 4, 4);
    build_texts(&x, "tokenizer.ggml.merges", merges);
    ht_tokenizer *t = spm_open(&x);
    check(t, "<|fim_middle|><other>", false, "0 3");
    check(t, "<|fim_middle|><|file_sep|>", true, "1 2");
    cr_assert(!ht_tokenizer_is_end(t, 1) && ht_tokenizer_is_end(t, 2) && !ht_tokenizer_is_end(t, 3));
    ht_tokenizer_close(&t);
}

Test(tokenizer_special, gemma4)
{
    static const char *const texts[] = { /* 0 */ "<pad>", "<eos>", "<bos>", "<unk>", "<0xC3>", /* 5 */ "<0xA9>", SP,
                                         "a", "b", SP "a", /* 10 */ "\n", "\n\n", SP "ab", "</s>", "<|tool_response>",
                                         /* 15 */ "<turn|>", "a\n", "\xE6\x88\x91", NULL };
    static const char *const merges[] = { SP " a", SP "a b", "a \n", "\n \n", NULL };
    static const int32_t types[] = { 3, 3, 3, 2, 6, 6, 1, 1, 1, 1, 1, 1, 1, 4, 3, 3, 1, 1 };
    build x = { 0 };

    build_text(&x, "tokenizer.ggml.model", "gemma4");
    build_texts(&x, "tokenizer.ggml.tokens", texts);
    build_numbers(&x, "tokenizer.ggml.token_type", HT_KV_I32, types, 18, 4);
    build_texts(&x, "tokenizer.ggml.merges", merges);
    build_id(&x, "tokenizer.ggml.bos_token_id", 2);
    build_id(&x, "tokenizer.ggml.eos_token_id", 1);
    build_bool(&x, "tokenizer.ggml.add_bos_token", false); /* it is needed all the same */
    ht_tokenizer *t = spm_open(&x);

    cr_assert(ht_tokenizer_info(t)->add_bos);
    check(t, "a ab", false, "7 12");
    check(t, " a", false, "9");
    check(t, "a\n\nb", false, "7 11 8");    /* newlines stand apart */
    check(t, "\n\n\n", false, "11 10");
    check(t, "\xC3\xA9\xE6\x88\x91", false, "4 5 17");
    check(t, "\xC3" "a", false, "4 7");
    check_piece(t, 12, false, " ab");
    cr_assert(ht_tokenizer_is_end(t, 15) && ht_tokenizer_is_end(t, 14) && !ht_tokenizer_is_end(t, 13));
    ht_tokenizer_close(&t);
}
