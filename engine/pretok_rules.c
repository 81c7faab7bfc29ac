/* SPDX-License-Identifier: MIT
 *
 * The names of tokenizer.ggml.pre and the expressions behind them: for each model family those of its own
 * tokenizer.json (HF tokenizers: Split, Digits, Punctuation, ByteLevel), under the names that llama.cpp's converter
 * writes. Where llama.cpp only approximates an expression (cased letters beyond ASCII, Han), the family's own counts.
 *
 * Expressions avoid groups under a star, so that matching needs constant memory, and write out \s, because PCRE2 counts
 * U+180E among the spaces, which Unicode no longer does.
 *
 * Owner: constants. Threads: any. */
#include <string.h>

#include "engine/pretok.h"

#define WS "\\t-\\r \\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}"
#define S "[" WS "]"
#define BLANK                                                                                                          \
    "[\\t\\x{B}\\x{C} \\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}]"
#define SPACES "|" S "+(?![^" WS "])|" S "+"            /* the last space of a run goes to the word behind it */
#define LINES "|" S "*[\\r\\n]+" SPACES
/* 's 't 're 've 'm 'll 'd in either case; U+017F is an s too */
#define APOS "'(?:[sS\\x{17F}dDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])"
#define LEAD "[^\\r\\n\\p{L}\\p{N}]?"
#define OTHER " ?[^" WS "\\p{L}\\p{N}]+"
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
/* the same two without Han: written as complements, PCRE2 10.42 has no intersection of classes */
#define UPPER_NO_HAN "[^\\p{Ll}\\p{N}\\p{P}\\p{S}\\p{Z}\\p{C}\\p{sc:Han}]"
#define LOWER_NO_HAN "[^\\p{Lu}\\p{Lt}\\p{N}\\p{P}\\p{S}\\p{Z}\\p{C}\\p{sc:Han}]"
#define ASCII_PUNCT "[!-/:-@\\[-`{-~]"
#define HAN_KANA "[\\x{4E00}-\\x{9FA5}\\x{3040}-\\x{309F}\\x{30A0}-\\x{30FF}]+"
#define DEEPSEEK_CJK "[\\x{4E00}-\\x{9FA5}\\x{800}-\\x{4E00}\\x{AC00}-\\x{D7FF}]+"

#define GPT2 "'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+|" OTHER SPACES
#define LLAMA3(digits) APOS "|" LEAD "\\p{L}+|" digits "|" OTHER "[\\r\\n]*" LINES
#define QWEN2 LLAMA3("\\p{N}")
#define CASED(upper, lower, suffix, digits, slash)                                                                     \
    LEAD upper "*" lower "+" suffix "|" LEAD upper "+" lower "*" suffix "|" digits "|" OTHER "[\\r\\n" slash "]*" LINES
#define GPT4O CASED(UPPER, LOWER, "(?:" APOS ")?", "\\p{N}{1,3}", "/")
#define DEEPSEEK3                                                                                                      \
    ASCII_PUNCT "[A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*" LINES
#define BLOOM " ?[^(" WS "|.,!?\\x{2026}\\x{3002}\\x{FF0C}\\x{3001}\\x{964}\\x{6D4}\\x{60C})]+"

/* Letters with case, as Unicode 11 had them. */
#define DEEPSEEK_LETTERS                                                                                               \
    "[A-Za-z\\x{B5}\\x{C0}-\\x{D6}\\x{D8}-\\x{F6}\\x{F8}-\\x{1BA}\\x{1BC}-\\x{1BF}\\x{1C4}-\\x{293}"                   \
    "\\x{295}-\\x{2AF}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37B}-\\x{37D}\\x{37F}\\x{386}\\x{388}-\\x{38A}\\x{38C}"     \
    "\\x{38E}-\\x{3A1}\\x{3A3}-\\x{3F5}\\x{3F7}-\\x{481}\\x{48A}-\\x{52F}\\x{531}-\\x{556}\\x{10A0}-\\x{10C5}"         \
    "\\x{13A0}-\\x{13F5}\\x{13F8}-\\x{13FD}\\x{1C90}-\\x{1CBA}\\x{1CBD}-\\x{1CBF}\\x{1D00}-\\x{1D2B}"                  \
    "\\x{1D6B}-\\x{1D77}\\x{1D79}-\\x{1D9A}\\x{1E00}-\\x{1F15}\\x{1F18}-\\x{1F1D}\\x{1F20}-\\x{1F45}"                  \
    "\\x{1F48}-\\x{1F4D}\\x{1F50}-\\x{1F57}\\x{1F59}\\x{1F5B}\\x{1F5D}\\x{1F5F}-\\x{1F7D}\\x{1F80}-\\x{1FB4}"          \
    "\\x{1FB6}-\\x{1FBC}\\x{1FBE}\\x{1FC2}-\\x{1FC4}\\x{1FC6}-\\x{1FCC}\\x{1FD0}-\\x{1FD3}\\x{1FD6}-\\x{1FDB}"         \
    "\\x{1FE0}-\\x{1FEC}\\x{1FF2}-\\x{1FF4}\\x{1FF6}-\\x{1FFC}\\x{2102}\\x{2107}\\x{210A}-\\x{2113}\\x{2115}"          \
    "\\x{2119}-\\x{211D}\\x{2124}\\x{2126}\\x{2128}\\x{212A}-\\x{212D}\\x{212F}-\\x{2134}\\x{2139}"                    \
    "\\x{213C}-\\x{213F}\\x{2145}-\\x{2149}\\x{214E}\\x{2183}\\x{2184}\\x{2C00}-\\x{2C7B}\\x{2C7E}-\\x{2CE4}"          \
    "\\x{2CEB}-\\x{2CEE}\\x{2CF2}\\x{2CF3}\\x{A640}-\\x{A66D}\\x{A680}-\\x{A69B}\\x{A722}-\\x{A76F}"                   \
    "\\x{A771}-\\x{A787}\\x{A78B}-\\x{A78E}\\x{AB70}-\\x{ABBF}\\x{FB00}-\\x{FB06}\\x{FB13}-\\x{FB17}"                  \
    "\\x{FF21}-\\x{FF3A}\\x{FF41}-\\x{FF5A}\\x{10400}-\\x{1044F}\\x{104B0}-\\x{104D3}\\x{104D8}-\\x{104FB}"            \
    "\\x{10C80}-\\x{10CB2}\\x{10CC0}-\\x{10CF2}\\x{118A0}-\\x{118DF}\\x{1E900}-\\x{1E943}]+"

#define R(text) { HT_PRE_REGEX, text }

static const ht_pre_rule rules[] = {
    { " default ", 0,
      { R("[\\p{P}$+<=>^~|]+"), R(GPT2), R("\\p{N}+"), R("[0-9]{3}") } },
    { " gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert exaone4 jina-v1-en "
      "jina-v2-code roberta-bpe mpt olmo jais trillion granite-docling ", 0, { R(GPT2) } },
    { " llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano ",
      HT_PRE_IGNORE_MERGES | HT_PRE_ADD_BOS, { R(LLAMA3("\\p{N}{1,3}")) } },
    { " dbrx smaug-bpe ", 0, { R(LLAMA3("\\p{N}{1,3}")) } },
    { " glm4 chatglm-bpe ", HT_PRE_NO_BOS, { R(LLAMA3("\\p{N}{1,3}")) } },
    { " jais-2 ", 0,
      /* behind a blank the run was already searched for its end of line: it takes 512 at a time, and a run of millions
       * would be searched each time */
      { R(APOS "|" LEAD "\\p{L}+|\\p{N}{1,3}|" OTHER "[\\r\\n]*|(?<!" BLANK ")" S "*[\\r\\n]+|(?:" S "{512}|"
          S "{256}|" S "{128}|" S "{64}|" S "{32}|" S "{16}|" S "{8}|" S "{4}|" S "{1,2})(?![^" WS "])|" S) } },
    { " qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2 ", 0, { R(QWEN2) } },
    { " qwen35 ", 0,
      { R(APOS "|" LEAD "[\\p{L}\\p{M}]+|\\p{N}| ?[^" WS "\\p{L}\\p{M}\\p{N}]+[\\r\\n]*" LINES) } },
    { " ufakzeka ", 0, { R(LEAD "\\p{L}+|\\p{N}|" OTHER "[\\r\\n]*" LINES) } },
    { " laguna ", 0, { R("[^\\n]+|\\n+"), R(QWEN2) } },
    { " seed-coder ", 0,
      { R(APOS "|" LEAD "\\p{L}+|\\p{N}| ?[^" WS "\\p{L}\\p{N}\\r\\n]+" LINES) } },
    { " minicpm5 ", HT_PRE_IGNORE_MERGES, { R("\\p{N}{1,3}"), R(LLAMA3("\\p{N}+")) } },
    { " bailingmoe bailingmoe2 llada-moe ", 0,
      { R(APOS "|" LEAD "\\p{L}+|\\p{N}|" OTHER "[\\r\\n]*|" S "*[\\r\\n]" SPACES) } },
    { " exaone-moe ", 0,
      { R(APOS "|" LEAD "(?:\\p{L}\\p{M}*+(?: \\p{L}\\p{M}*+)*+)++|\\p{N}|" OTHER "[\\r\\n/]?|"
          S "*[\\r\\n]" SPACES) } },
    { " starcoder refact command-r smollm codeshell exaone minerva-7b mellum2 ", 0, { R("\\p{N}"), R(GPT2) } },
    { " falcon ", 0, { R("[\\p{P}$+<=>^~|`]+"), R(GPT2), R("[0-9]{3}") } },
    { " deepseek-llm ", 0,
      { R("[\\r\\n]"), R(S "?" DEEPSEEK_LETTERS),
        R(S "?[!-/:-~\\x{FF01}-\\x{FF0F}\\x{FF1A}-\\x{FF5E}\\x{2018}-\\x{201F}\\x{3000}-\\x{3002}]+"),
        R("(?<!" S ")" S "++\\z"), R(DEEPSEEK_CJK), R("\\p{N}+") } },
    { " deepseek-coder ", 0,
      { R("[\\r\\n]"), R(S "?\\p{L}+"), R(S "?\\p{P}+"), R(DEEPSEEK_CJK), R("\\p{N}") } },
    { " deepseek-v3 hunyuan-dense joyai-llm hy_v4 ", 0, { R("\\p{N}{1,3}"), R(HAN_KANA), R(DEEPSEEK3) } },
    { " spark2_5 ", 0,
      { R("\\p{N}{1,3}"), R(HAN_KANA),
        R(ASCII_PUNCT "[A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+|[\\r\\n]" SPACES),
        R("\\p{N}") } },
    { " afmoe ", 0,
      { { HT_PRE_THREES_ANY, NULL },
        R("[\\x{4E00}-\\x{9FFF}\\x{3400}-\\x{4DBF}\\x{F900}-\\x{FAFF}\\x{3040}-\\x{309F}\\x{30A0}-\\x{30FF}"
          "\\x{FF65}-\\x{FF9F}\\x{2F00}-\\x{2FDF}\\x{E40}-\\x{E7F}\\x{E80}-\\x{EFF}\\x{1780}-\\x{17FF}"
          "\\x{1000}-\\x{109F}\\x{AA60}-\\x{AA7F}\\x{A9E0}-\\x{A9FF}\\x{AC00}-\\x{D7AF}\\x{1100}-\\x{11FF}]+"),
        R(DEEPSEEK3) } },
    { " youtu ", HT_PRE_IGNORE_MERGES,
      { R("[\\x{AC00}-\\x{D7A3}\\x{3131}-\\x{318E}]+|[\\x{FF01}\\x{2026}\\x{201C}\\x{201D}\\x{2018}\\x{2019}\\x{2014}"
          "\\x{FF1A}\\x{FF1B}\\x{FF0C}\\x{3001}-\\x{303F}\\x{FE30}-\\x{FE4F}]+|[\\x{3105}-\\x{312F}]+|" HAN_KANA),
        R(CASED(UPPER, LOWER, "(?:" APOS ")?", "\\p{N}", "/")) } },
    { " poro-chat bloom gpt3-finnish ", 0, { R(BLOOM) } },
    { " viking ", 0, { R(BLOOM), R("\\p{N}") } },
    { " tekken ", HT_PRE_IGNORE_MERGES | HT_PRE_ADD_BOS, { R(CASED(UPPER, LOWER, "", "\\p{N}", "/")) } },
    { " gpt-4o llama4 kanana2 talkie minimax-m2 ", 0, { R(GPT4O) } },
    { " granite-embed-multi-97m ", HT_PRE_IGNORE_MERGES, { R(GPT4O) } },
    { " tiny_aya cohere2moe ", 0, { { HT_PRE_THREES_WORD, NULL }, R(GPT4O) } },
    { " kimi-k2 ", 0,
      { R("\\p{sc:Han}+|" CASED(UPPER_NO_HAN, LOWER_NO_HAN, "(?:" APOS ")?", "\\p{N}{1,3}", "")) } },
    { " superbpe ", 0, { R("\\p{N}+"), { HT_PRE_THREES_CUT, NULL } } },
    { " chameleon ", HT_PRE_ADD_BOS,
      { R("<sentinel:[0-9]+>"), R("IMGIMG[A-I]{1,4}Z"), R("[\\t\\n]|    |  "), R("\\p{N}"),
        R("[\\p{P}!-/:-@\\[-`{-~]"), R(GPT2) } },
    { " gemma4 granite-embed-multi-311m ", HT_PRE_RAW | HT_PRE_ESCAPE | HT_PRE_NEWLINES, { R("[^\\n]+|\\n+") } },
    { " sarvam-moe ", HT_PRE_RAW | HT_PRE_ESCAPE, { R("[^\\n]+|\\n+") } },
    { " whitespace ", HT_PRE_RAW, { R("[^" WS "]+") } },
};

const ht_pre_rule *ht_pre_rule_at(size_t i)
{
    return i < sizeof rules / sizeof *rules ? &rules[i] : NULL;
}

const ht_pre_rule *ht_pre_rule_find(const char *name, size_t n)
{
    if (n == 0 || memchr(name, ' ', n) || memchr(name, 0, n))
        return NULL;
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        for (const char *p = rules[i].names + 1; *p;) {
            size_t len = strcspn(p, " ");
            if (len == n && memcmp(p, name, n) == 0)
                return &rules[i];
            p += len + 1;
        }
    return NULL;
}
