# SPDX-License-Identifier: MIT
"""Where Hugging Face's `tokenizers` cuts text, for every pre-tokenizer rule: tests/data/tokenizer/splits.json.

    python -m venv /tmp/venv && /tmp/venv/bin/pip install tokenizers
    /tmp/venv/bin/python tools/gen/tokenizer_splits.py tests/data/tokenizer/splits.json [N_TEXTS [SEED]]

The expressions are those of each model family's tokenizer.json. With a binary as fourth argument (it reads lines
"RULE HEX" and writes the byte lengths of the words) nothing is written: the two are compared."""
import json
import random
import subprocess
import sys

from tokenizers import Regex
from tokenizers import pre_tokenizers as pre


def split(expression):
    return pre.Split(Regex(expression), "isolated", False)


def word(digits, apos="(?i:'s|'t|'re|'ve|'m|'ll|'d)|"):
    return split(apos + r"[^\r\n\p{L}\p{N}]?\p{L}+|" + digits
                 + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def cased(digits=r"\p{N}{1,3}", apos="(?i:'s|'t|'re|'ve|'m|'ll|'d)?", slash="/", but="", before=""):
    upper, lower = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}" + but + "]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}" + but + "]"
    lead = r"[^\r\n\p{L}\p{N}]?"
    return split(before + lead + upper + "*" + lower + "+" + apos + "|" + lead + upper + "+" + lower + "*" + apos + "|"
                 + digits + r"| ?[^\s\p{L}\p{N}]+[\r\n" + slash + r"]*|\s*[\r\n]+|\s+(?!\S)|\s+")


LETTERS = (
    r"A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373\u0376"
    r"\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f"
    r"\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77"
    r"\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d"
    r"\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4"
    r"\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139"
    r"\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d"
    r"\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a"
    r"\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2"
    r"\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943").encode().decode("unicode_escape")

GPT2 = split(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
BLOOM = split(r" ?[^(\s|[.,!?…。，、।۔،])]+")
CJK = split("[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+")
KANA = split("[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+")
PUNCT = ("[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+"
         "|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+")
DEEPSEEK3 = split(PUNCT + "[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+")
ONE_BY_ONE = pre.Digits(individual_digits=True)
APOS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|"

RULES = {
    "default": [split(r"[\p{P}\$\+<=>\^~\|]+"), GPT2, split(r"\p{N}+"), split("[0-9][0-9][0-9]")],
    "gpt-2": [GPT2],
    "llama-bpe": [word(r"\p{N}{1,3}")],
    "dbrx": [word(r"\p{N}{1,3}")],
    "glm4": [word(r"\p{N}{1,3}")],
    "jais-2": [split(APOS + r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
                     + "|".join(r"\s{%d}(?!\S)" % n for n in (512, 256, 128, 64, 32, 16, 8, 4))
                     + r"|\s{1,2}(?!\S)|\s{1}")],
    "qwen2": [word(r"\p{N}")],
    "qwen35": [split(APOS + r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|"
                     r"\s+(?!\S)|\s+")],
    "ufakzeka": [word(r"\p{N}", "")],
    "laguna": [split(r"[^\n]+|[\n]+"), word(r"\p{N}")],
    "seed-coder": [split(APOS + r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+")],
    "minicpm5": [split(r"\p{N}{1,3}"), word(r"\p{N}+")],
    "bailingmoe": [split(r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|"
                         r"\s*[\r\n]|\s+(?!\S)|\s+")],
    "exaone-moe": [split(APOS + r"[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|"
                         r"\s*[\r\n]|\s+(?!\S)|\s+")],
    "starcoder": [ONE_BY_ONE, GPT2],
    "falcon": [pre.Punctuation("contiguous"), GPT2, split("[0-9][0-9][0-9]")],
    "deepseek-llm": [split("[\r\n]"), split(r"\s?[" + LETTERS + "]+"), split(r"\s?[!-/:-~！-／：-～‘-‟　-。]+"),
                     split(r"\s+$"), CJK, pre.Digits(individual_digits=False)],
    "deepseek-coder": [split("[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"), CJK, ONE_BY_ONE],
    "deepseek-v3": [split(r"\p{N}{1,3}"), KANA, DEEPSEEK3],
    "spark2_5": [split(r"\p{N}{1,3}"), KANA, split(PUNCT + "|[\r\n]|\\s+(?!\\S)|\\s+"), split(r"\p{N}")],
    "afmoe": [split(r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))"),
              split("[\u4e00-\u9fff\u3400-\u4dbf\uf900-\ufaff\u3040-\u309f\u30a0-\u30ff\uff65-\uff9f\u2f00-\u2fdf"
                    "\u0e40-\u0e7f\u0e80-\u0eff\u1780-\u17ff\u1000-\u109f\uaa60-\uaa7f\ua9e0-\ua9ff\uac00-\ud7af"
                    "\u1100-\u11ff]+"), DEEPSEEK3],
    "youtu": [split("[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+"), cased(r"\p{N}")],
    "poro-chat": [BLOOM],
    "viking": [BLOOM, ONE_BY_ONE],
    "tekken": [cased(r"\p{N}", "")],
    "gpt-4o": [cased()],
    "granite-embed-multi-97m": [cased()],
    "tiny_aya": [split(r"\d{1,3}(?=(?:\d{3})*\b)"), cased()],
    "kimi-k2": [cased(slash="", but=r"&&[^\p{Han}]", before=r"[\p{Han}]+|")],
    "superbpe": [split(r"\p{N}+"), split(r"(?=(\d{3})+(?!\d))")],
    "chameleon": [split("<sentinel:[0-9]+>"), split("(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z"), split("([\t\n]|    |  )"),
                  ONE_BY_ONE, split(r"[\p{P}!-/:-@\[-`{-~]"), GPT2],
    "gemma4": [split(r"[^\n]+|[\n]+")],
    "sarvam-moe": [split(r"[^\n]+|[\n]+")],
    "whitespace": [split(r"\S+")],
}

ATOMS = (
    list("abcXYZéÉßñÀõøƀǅΑωЖдԱա") + ["ſ", "\u212a", "ı", "ﬁ", "ʰ", "ª", "ა", "Ა"]
    + list("0123456789²½Ⅷ٣४๓０Ⓐ") + ["𝟗", "〇", "十"] + [" "] * 12 + ["\n"] * 4
    + ["\r", "\r\n", "\t", "\v", "\f", "\x1c", "\x85", "\u00a0", "\u1680", "\u180e", "\u2003", "\u200b", "\u2028",
       "\u2029", "\u202f", "\u205f", "\u3000", "\ufeff"]
    + ["'s", "'S", "'t", "'T", "'re", "'RE", "'Re", "'ve", "'VE", "'m", "'M", "'ll", "'lL", "'LL", "'d", "'D", "'ſ",
       "’s", "'"]
    + list(".,!?;:-_()[]{}<>|/\\@#$%^&*+=~`\"") + list("…。，、।۔،¿—“”€©→≤ǃ")
    + list("我想在工作漢字日本語のカタカナヾ한국어ᄀㅏ") + list("々⺀㐀𠀀") + ["\uf900", "ｶ", "ﾞ"]
    + ["ក", "ា", "ន", "់", "नि", "म", "स्", "ते", "ไท", "ย", "ລາວ", "မြန်", "עִב", "مَر", "\u05b0", "\u0301", "\u0308",
       "\u20dd", "\u093f"]
    + ["😁", "🦙", "😶\u200d🌫\ufe0f", "👩🏽\u200d💻", "🇩🇪", "\u200d", "\ufe0f"]
    + ["\x00", "\x01", "\x7f", "\u0378", "\ue000", "\U0010ffff", "\ufffd"]
    + ["Hello", "world", "THE", "iPhone", "camelCase", "ABCdef", "ÀÉîô", "über", "ÜBER", "don't", "It's", "I'LL",
       "1234567", "12,345.67", "3.14", "2024-05-06", "IMGIMGABCZ", "<sentinel:12>", "foo_bar",
       "https://x.y/z?q=1&r=2", "    ", "\n\n\n", "  \n  "])


def texts(n, seed):
    rng = random.Random(seed)
    for _ in range(n):
        p = rng.random()
        pool = rng.sample(ATOMS, 3) if p < 0.15 else rng.sample(ATOMS, 2) if p < 0.3 else ATOMS
        yield "".join(rng.choice(pool) for _ in range(rng.choice([1, 2, 3, 4, 6, 8, 12, 20])))


def lengths(rule, text):
    return [len(w.encode()) for w, _ in pre.Sequence(RULES[rule]).pre_tokenize_str(text)]


def main():
    n = int(sys.argv[2]) if len(sys.argv) > 2 else 80
    all_texts = list(texts(n, int(sys.argv[3]) if len(sys.argv) > 3 else 20))
    if len(sys.argv) > 4:
        for rule in RULES:
            lines = "".join(f"{rule} {t.encode().hex()}\n" for t in all_texts)
            out = subprocess.run([sys.argv[4]], input=lines, capture_output=True, text=True, check=True).stdout
            bad = [t for t, got in zip(all_texts, out.split("\n")) if [int(x) for x in got.split()] != lengths(rule, t)]
            print(rule, len(bad), "of", n, "differ", [ascii(t) for t in bad[:3]])
        return
    data = {"texts": [t.encode().hex() for t in all_texts],
            "rules": {rule: [lengths(rule, t) for t in all_texts] for rule in RULES}}
    with open(sys.argv[1], "w", encoding="ascii") as f:
        f.write(json.dumps(data, separators=(",", ":")).replace('],"', '],\n"') + "\n")


main()
