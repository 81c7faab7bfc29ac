/* SPDX-License-Identifier: MIT
 *
 * Special tokens: their ids from keys and from well-known names, the tokens at which generation ends, and cutting text
 * at special tokens before anything else happens to it.
 *
 * Cutting follows the field's reference: longer tokens are looked for first, over the whole text, and what they leave
 * is searched for shorter ones. All tokens of one length are looked for in one pass.
 *
 * Owner: fills the ht_tokenizer of its caller; ht_tok_cut returns malloc'ed memory. Threads: any. */
#include <stdlib.h>

#include "engine/tokenizer_impl.h"

/* DeepSeek's spelling: full-width bars, U+2581 between words. */
#define FULL(a, b) "<\xEF\xBD\x9C" a "\xE2\x96\x81" b "\xEF\xBD\x9C>"

/* Turn ends, in the order in which they are taken for eot where the file names none. */
static const char *const eot_names[] = {
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>", "<EOT>", "_<EOT>",
    "[EOT]", FULL("end\xE2\x96\x81" "of", "sentence"), "<end_of_utterance>",
};

/* Generation ends at these too. */
static const char *const end_names[] = {
    "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "</s>", "<|eom_id|>", "[EOS]", "<eos>", "<turn|>",
    "<|tool_response>", "[e~[",
    /* fill in the middle: padding, and the beginning of another file */
    "<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]", "<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>",
    "<reponame>", "<|file_sep|>",
};

/* These must not come out of plain text either, whatever type the file gives them. */
static const char *const fim_names[] = {
    "<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<PRE>", "\xE2\x96\x81<PRE>", "<|code_prefix|>", "<|prefix|>",
    "<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<SUF>", "\xE2\x96\x81<SUF>", "<|code_suffix|>", "<|suffix|>",
    "<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<MID>", "\xE2\x96\x81<MID>", "<|code_middle|>", "<|middle|>",
    FULL("fim", "begin"), FULL("fim", "hole"), FULL("fim", "end"),
};

/* A token of that name which is no ordinary word; -1 where there is none. */
static ht_token named(const ht_tokenizer *t, const char *name)
{
    int32_t id = ht_tok_lookup(t, name, strlen(name));

    if (id < 0 || (uint32_t)id >= t->info.n_vocab)
        return -1;
    return t->type[id] == HT_TT_CONTROL || t->type[id] == HT_TT_USER || t->type[id] == HT_TT_UNKNOWN ? id : -1;
}

static bool has_types(const ht_tokenizer *t)
{
    for (uint32_t i = 0; i < t->info.n_vocab; i++)
        if (t->type[i] != HT_TT_NORMAL)
            return true;
    return false;
}

static void mark_end(ht_tokenizer *t, ht_token id)
{
    if (id < 0)
        return;
    t->flags[id] |= HT_TF_END;
    /* some converters wrote turn ends as user-defined: then any text could end a turn */
    if (t->type[id] == HT_TT_USER)
        t->type[id] = HT_TT_CONTROL;
}

static void find_ends(ht_tokenizer *t)
{
    ht_vocab_info *v = &t->info;

    for (size_t i = 0; i < sizeof eot_names / sizeof *eot_names; i++) {
        ht_token id = named(t, eot_names[i]);
        if (id >= 0 && v->eot < 0)
            v->eot = id;
        mark_end(t, id);
    }
    for (size_t i = 0; i < sizeof end_names / sizeof *end_names; i++)
        mark_end(t, named(t, end_names[i]));
    for (size_t i = 0; i < sizeof fim_names / sizeof *fim_names; i++) {
        ht_token id = named(t, fim_names[i]);
        if (id >= 0 && t->type[id] == HT_TT_USER)
            t->type[id] = HT_TT_CONTROL;
    }
    if (t->eom < 0)
        t->eom = named(t, "<|eom_id|>");
    /* Where whole turns end with return or call, <|end|> only separates the messages of one. */
    ht_token end = named(t, "<|end|>");
    bool call = named(t, "<|call|>") >= 0 || named(t, "<|calls|>") >= 0;
    if (end >= 0 && call && (named(t, "<|return|>") >= 0 || named(t, "<|flush|>") >= 0)) {
        t->flags[end] &= (uint8_t)~HT_TF_END;
        if (v->eot == end)
            v->eot = -1;
    }
    /* gemma4 has </s> as an HTML tag */
    ht_token s = named(t, "</s>");
    if (s >= 0 && named(t, "<|tool_response>") >= 0 && s != v->eos) {
        t->flags[s] &= (uint8_t)~HT_TF_END;
        t->type[s] = HT_TT_NORMAL;
    }
    mark_end(t, v->eos);
    mark_end(t, v->eot);
    mark_end(t, t->eom);
}

/* ---- ids --------------------------------------------------------------------------------------------------------- */

static ht_status read_id(ht_tokenizer *t, const ht_gguf *g, const char *key, bool strict, ht_token *id, ht_error *err)
{
    const ht_kv *kv = ht_gguf_find(g, key);
    int64_t v = 0;

    if (*id >= 0 && (uint32_t)*id >= t->info.n_vocab)
        *id = -1;
    if (!kv)
        return HT_OK;
    if (kv->type == HT_KV_ARRAY || kv->type == HT_KV_BOOL || !ht_kv_int(kv, 0, &v))
        return ht_tok_fail(err, HT_EFORMAT, kv, "%s: key '%s' is no integer", ht_tok_path(g), key);
    if (v == -1 || v == UINT32_MAX) {
        *id = -1;
        return HT_OK;
    }
    if (v >= 0 && v < t->info.n_vocab) {
        *id = (ht_token)v;
        return HT_OK;
    }
    if (strict)
        return ht_tok_fail(err, HT_EFORMAT, kv, "%s: key '%s' is %lld, the vocabulary has %u tokens",
                          ht_tok_path(g), key, (long long)v, (unsigned)t->info.n_vocab);
    ht_tok_note(t, "key '%s' is %lld, outside of the vocabulary: ignored", key, (long long)v);
    *id = -1;
    return HT_OK;
}

/* Is `part` in s? `fold`: s is compared in lower case. */
static bool contains(ht_str s, const char *part, bool fold)
{
    size_t n = strlen(part);

    for (size_t i = 0; i + n <= s.n; i++) {
        size_t k = 0;
        for (; k < n; k++) {
            char c = s.s[i + k];
            if (fold && c >= 'A' && c <= 'Z')
                c = (char)(c - 'A' + 'a');
            if (c != part[k])
                break;
        }
        if (k == n)
            return true;
    }
    return false;
}

static void set_flag(ht_tokenizer *t, const char *name, uint8_t flag, bool on)
{
    int32_t id = ht_tok_lookup(t, name, strlen(name));

    if (id >= 0 && (uint32_t)id < t->info.n_vocab)
        t->flags[id] = (uint8_t)(on ? t->flags[id] | flag : t->flags[id] & ~flag);
}

/* White space that special tokens swallow; files do not say, so it goes by the names of the models. */
static ht_status find_strips(ht_tokenizer *t, const ht_gguf *g, ht_error *err)
{
    ht_str name = { "", 0 }, pre = { "", 0 };
    ht_status st;

    if ((st = ht_gguf_str(g, "general.name", &name, err)) != HT_OK ||
        (st = ht_gguf_str(g, "tokenizer.ggml.pre", &pre, err)) != HT_OK)
        return st;
    if (contains(pre, "jina-v2-de", false) || contains(pre, "jina-v2-es", false) ||
        contains(pre, "jina-v2-code", false)) {
        set_flag(t, "<mask>", HT_TF_LSTRIP, true);
    } else if (contains(name, "phi-3", true) || contains(name, "phi3", true)) {
        for (uint32_t i = 0; i < t->info.n_vocab; i++)
            if (ht_tok_is_special(t->type[i]))
                t->flags[i] |= HT_TF_RSTRIP;
        set_flag(t, "</s>", HT_TF_RSTRIP, true);
        set_flag(t, "<unk>", HT_TF_RSTRIP, false);
        set_flag(t, "<s>", HT_TF_RSTRIP, false);
        set_flag(t, "<|endoftext|>", HT_TF_RSTRIP, false);
    } else if (contains(name, "modern-bert", true)) {
        set_flag(t, "[MASK]", HT_TF_LSTRIP, true);
    }
    return HT_OK;
}

static ht_status find_classes(ht_tokenizer *t, ht_error *err)
{
    size_t cap = 0;

    for (uint32_t i = 0; i < t->info.n_vocab; i++) {
        if (!ht_tok_is_special(t->type[i]))
            continue;
        uint32_t len = t->text[i].len, lo = 0, hi = t->n_classes;
        while (lo < hi) { /* longest first */
            uint32_t mid = (lo + hi) / 2;
            if (t->classes[mid].len > len)
                lo = mid + 1;
            else
                hi = mid;
        }
        if (lo == t->n_classes || t->classes[lo].len != len) {
            if (!ht_tok_room((void **)&t->classes, &cap, (size_t)t->n_classes + 1, sizeof *t->classes))
                return ht_fail(err, HT_ENOMEM, "tokenizer: out of memory");
            memmove(t->classes + lo + 1, t->classes + lo, (t->n_classes - lo) * sizeof *t->classes);
            t->classes[lo] = (ht_tok_class){ .len = len };
            t->n_classes++;
        }
        uint8_t first = (uint8_t)t->bytes[t->text[i].off];
        t->classes[lo].first[1][first >> 3] |= (uint8_t)(1u << (first & 7));
        if (t->type[i] == HT_TT_USER) {
            t->classes[lo].first[0][first >> 3] |= (uint8_t)(1u << (first & 7));
            t->classes[lo].n_user++;
        }
    }
    return HT_OK;
}

ht_status ht_tok_load_special(ht_tokenizer *t, const ht_gguf *g, uint32_t pre_flags, ht_error *err)
{
    ht_vocab_info *v = &t->info;
    ht_status st;

    v->bos = v->eos = v->eot = v->unk = v->pad = t->eom = -1;
    if (t->kind == HT_TOK_SPM) {
        v->bos = 1;
        v->eos = 2;
        v->unk = 0;
        v->add_bos = true;
    } else if (ht_tok_lookup(t, "<|endoftext|>", 13) == 11) {
        v->eos = 11; /* old files of Falcon name no ids */
        v->bos = pre_flags & HT_PRE_NO_BOS ? -1 : 11;
    }
    if (pre_flags & HT_PRE_ADD_BOS)
        v->add_bos = true;
    if ((st = read_id(t, g, "tokenizer.ggml.bos_token_id", true, &v->bos, err)) != HT_OK ||
        (st = read_id(t, g, "tokenizer.ggml.eos_token_id", true, &v->eos, err)) != HT_OK ||
        (st = read_id(t, g, "tokenizer.ggml.eot_token_id", true, &v->eot, err)) != HT_OK ||
        (st = read_id(t, g, "tokenizer.ggml.eom_token_id", true, &t->eom, err)) != HT_OK ||
        (st = read_id(t, g, "tokenizer.ggml.unknown_token_id", true, &v->unk, err)) != HT_OK ||
        /* real files name padding tokens they do not have */
        (st = read_id(t, g, "tokenizer.ggml.padding_token_id", false, &v->pad, err)) != HT_OK ||
        (st = ht_gguf_bool(g, "tokenizer.ggml.add_bos_token", &v->add_bos, err)) != HT_OK ||
        (st = ht_gguf_bool(g, "tokenizer.ggml.add_eos_token", &v->add_eos, err)) != HT_OK)
        return st;
    if (t->newline_words) /* gemma4 needs it, and files were written that say otherwise */
        v->add_bos = true;
    if (v->add_bos && v->bos < 0) {
        ht_tok_note(t, "a BOS token is to be added but the file names none");
        v->add_bos = false;
    }
    if (v->add_eos && v->eos < 0) {
        ht_tok_note(t, "an EOS token is to be added but the file names none");
        v->add_eos = false;
    }
    if (has_types(t))
        find_ends(t);
    mark_end(t, v->eos);
    mark_end(t, v->eot);
    mark_end(t, t->eom);
    if ((st = find_strips(t, g, err)) != HT_OK)
        return st;
    return find_classes(t, err);
}

/* ---- cutting ----------------------------------------------------------------------------------------------------- */

typedef struct frags {
    ht_tok_frag *f;
    size_t n, cap;
} frags;

static bool frag_add(frags *fs, size_t start, size_t end, ht_token id)
{
    if (id < 0 && start == end)
        return true;
    if (!ht_tok_room((void **)&fs->f, &fs->cap, fs->n + 1, sizeof *fs->f))
        return false;
    fs->f[fs->n++] = (ht_tok_frag){ start, end, id };
    return true;
}

static bool blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* First token of this class in text[at, end); its place, or end. */
static size_t class_find(const ht_tokenizer *t, const ht_tok_class *c, bool special, const char *text, size_t at,
                         size_t end, ht_token *id)
{
    const uint8_t *first = c->first[special];

    for (; at + c->len <= end; at++) {
        uint8_t b = (uint8_t)text[at];
        if (!(first[b >> 3] & 1u << (b & 7)))
            continue;
        int32_t found = ht_tok_lookup(t, text + at, c->len);
        if (found >= 0 && (uint32_t)found < t->info.n_vocab &&
            (t->type[found] == HT_TT_USER || (special && ht_tok_is_special(t->type[found])))) {
            *id = found;
            return at;
        }
    }
    return end;
}

ht_status ht_tok_cut(const ht_tokenizer *t, const char *text, size_t n, bool special, ht_tok_frag **out, size_t *n_out,
                     ht_error *err)
{
    frags now = { NULL, 0, 0 }, next = { NULL, 0, 0 };

    if (!frag_add(&now, 0, n, -1))
        goto no_memory;
    for (uint32_t k = 0; k < t->n_classes; k++) {
        const ht_tok_class *c = &t->classes[k];
        bool hit = false;
        if (!special && c->n_user == 0)
            continue;
        next.n = 0;
        for (size_t i = 0; i < now.n; i++) {
            ht_tok_frag f = now.f[i];
            ht_token id = -1;
            size_t at;
            if (f.id >= 0) {
                if (hit && !frag_add(&next, f.start, f.end, f.id))
                    goto no_memory;
                continue;
            }
            size_t from = f.start;
            while ((at = class_find(t, c, special, text, from, f.end, &id)) < f.end) {
                size_t left = at, right = at + c->len;
                if (!hit) { /* only now is a second list needed: what stands before is taken over */
                    hit = true;
                    for (size_t j = 0; j < i; j++)
                        if (!frag_add(&next, now.f[j].start, now.f[j].end, now.f[j].id))
                            goto no_memory;
                }
                while (t->flags[id] & HT_TF_LSTRIP && left > from && blank(text[left - 1]))
                    left--;
                while (t->flags[id] & HT_TF_RSTRIP && right < f.end && blank(text[right]))
                    right++;
                if (!frag_add(&next, from, left, -1) || !frag_add(&next, at, at + c->len, id))
                    goto no_memory;
                from = right;
            }
            if (hit && !frag_add(&next, from, f.end, -1))
                goto no_memory;
        }
        if (hit) {
            frags swap = now;
            now = next;
            next = swap;
        }
    }
    free(next.f);
    *out = now.f;
    *n_out = now.n;
    return HT_OK;

no_memory:
    free(now.f);
    free(next.f);
    return ht_fail(err, HT_ENOMEM, "tokenizer: out of memory for %zu bytes of text", n);
}
