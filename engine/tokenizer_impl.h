/* SPDX-License-Identifier: MIT
 *
 * What the files tokenizer*.c share: the opened vocabulary, its hash tables, and the scratch memory of one encode call.
 * Nobody else includes this; see tokenizer.h for the interface.
 *
 *   tokenizer_load.c     reads and checks the lists of the file, builds the tables below
 *   tokenizer_special.c  special ids, end-of-generation set, cutting text at special tokens
 *   tokenizer_merge.c    the merge loop that both families share, and its word cache
 *   tokenizer_queue.c    candidates of the merge loop, best first
 *   tokenizer_spm.c      SentencePiece BPE: escaping of spaces, cutting where no token can reach across
 *   tokenizer_bpe.c      BPE by rank: pre-tokenizer, words
 *   tokenizer_detok.c    ids to bytes
 *   pretok.c             pre-tokenizers
 *
 * Owner: ht_tokenizer owns all its arrays. Threads: built by one, then read-only; ht_tok_work belongs to one call. */
#ifndef HT_TOKENIZER_IMPL_H
#define HT_TOKENIZER_IMPL_H

#include <string.h>

#include "engine/pretok.h"
#include "engine/tokenizer.h"

/* Longer tokens than this exist in no vocabulary (the longest known are a few hundred bytes). */
enum { HT_TOK_MAX_TEXT = 65535 };

typedef enum ht_tok_kind {
    HT_TOK_SPM,       /* merges by score, spaces are U+2581, byte tokens <0xNN> */
    HT_TOK_BPE_BYTES, /* merges by rank over the 256 letters that stand for bytes */
    HT_TOK_BPE_RAW    /* merges by rank over UTF-8 characters, byte tokens <0xNN> */
} ht_tok_kind;

/* tokenizer.ggml.token_type */
typedef enum ht_tok_type {
    HT_TT_UNDEFINED, HT_TT_NORMAL, HT_TT_UNKNOWN, HT_TT_CONTROL, HT_TT_USER, HT_TT_UNUSED, HT_TT_BYTE
} ht_tok_type;

enum { HT_TF_END = 1, HT_TF_LSTRIP = 2, HT_TF_RSTRIP = 4 };

typedef struct ht_tok_span { uint32_t off, len; } ht_tok_span;     /* into ht_tokenizer.bytes */
typedef struct ht_tok_slot { uint32_t tag, id1; } ht_tok_slot;     /* id1: id + 1, 0 where free */
typedef struct ht_tok_merge { uint64_t pair; uint32_t rank, merged; } ht_tok_merge; /* pair: left + 1, right + 1 */

/* Special tokens of one length; longer ones are looked for first. */
typedef struct ht_tok_class {
    uint32_t len;
    uint32_t n_user;       /* user-defined ones among them: the only ones looked for unless `special` */
    uint8_t first[2][32];  /* bit set of first bytes: [0] user-defined ones, [1] all */
} ht_tok_class;

struct ht_tokenizer {
    ht_vocab_info info;
    ht_tok_kind kind;
    bool add_space_prefix;
    bool escape_spaces;  /* BPE_RAW with U+2581 for spaces */
    bool ignore_merges;  /* a word that is a token is that token */
    bool newline_words;  /* so for words of newlines only */
    ht_token eom;

    uint32_t n_texts;    /* >= info.n_vocab: texts that merges name but the vocabulary lacks get ids behind it */
    uint32_t cap_texts;
    ht_tok_span *text;   /* [cap_texts] as in the file */
    ht_tok_span *piece;  /* [n_vocab] as they read in text */
    uint8_t *type;       /* [n_vocab] ht_tok_type */
    uint8_t *flags;      /* [n_vocab] HT_TF_* */
    uint32_t *prio;      /* [n_vocab] SPM: smaller merges first; UINT32_MAX never */
    char *bytes;
    size_t n_bytes, cap_bytes;

    ht_tok_slot *slots;  /* open addressing by text, power of two */
    uint32_t slot_mask;
    ht_tok_merge *merges;
    uint32_t merge_mask; /* 0: no merges */

    int32_t byte_id[256];    /* BPE_BYTES: symbol of a byte (may lie behind n_vocab); else id of <0xNN> or -1 */
    uint32_t max_text;       /* longest text that a merge may give */
    uint8_t space_join[256]; /* SPM: some token has this byte before an inner U+2581 */

    ht_tok_class *classes;
    uint32_t n_classes;
    size_t max_piece;
    ht_pretok *pretok;
    char note[320];
};

/* ---- one encode call --------------------------------------------------------------------------------------------- */

/* A symbol of the merge loop; its text reaches to the start of the next. */
typedef struct ht_tok_sym {
    uint32_t start, prev, next; /* prev/next: index, UINT32_MAX at the ends */
    int32_t id;                 /* -1: no token; HT_SYM_DEAD: merged into its left neighbour */
} ht_tok_sym;

enum { HT_SYM_DEAD = -2 };

typedef struct ht_tok_cand { uint64_t key; uint32_t size, merged; } ht_tok_cand; /* key: priority, then left symbol */

/* Candidates of one priority, in order of position. */
typedef struct ht_tok_bucket {
    struct ht_tok_entry { uint32_t left, size, merged; } *e;
    size_t head, n, cap;
    uint32_t rank;
} ht_tok_bucket;

/* All candidates of a word, best first; see tokenizer_queue.c. */
typedef struct ht_tok_queue {
    ht_tok_cand *heap;
    size_t n_heap, cap_heap;
    bool by_rank; /* buckets are in use */
    ht_tok_bucket *buckets;
    size_t n_buckets, cap_buckets;
    uint32_t *map; /* open addressing by rank: bucket + 1 */
    uint32_t map_mask;
    uint64_t *active; /* heap of the buckets that hold something: rank, bucket */
    size_t n_active, cap_active;
} ht_tok_queue;

/* A word already seen in this call, one cache line. */
typedef struct ht_tok_seen {
    uint64_t word[3];
    uint8_t n, n_ids, pad[2];
    ht_token ids[9];
} ht_tok_seen;

typedef struct ht_tok_work {
    ht_token *ids;
    size_t n_ids, cap_ids;
    ht_tok_sym *syms;
    size_t cap_syms;
    ht_tok_queue queue;
    ht_tok_seen *seen; /* NULL: too little text to be worth it */
    char *buf;         /* escaped text of a fragment */
    size_t cap_buf;
} ht_tok_work;

enum { HT_TOK_SEEN = 4096 }; /* words remembered; 256 KiB */

bool ht_tok_push(ht_tok_work *w, ht_token id); /* false: no memory, in all of these */
bool ht_tok_merge_word(const ht_tokenizer *t, ht_tok_work *w, const char *text, uint32_t n);
void ht_tok_queue_begin(ht_tok_work *w, uint32_t n_symbols);
bool ht_tok_queue_add(ht_tok_work *w, ht_tok_cand c);
bool ht_tok_queue_pop(ht_tok_work *w, ht_tok_cand *c); /* false: empty */
void ht_tok_queue_free(ht_tok_work *w);
bool ht_tok_room(void **p, size_t *cap, size_t need, size_t item);
/* Text with ' ' as U+2581, and one in front where `prefix`, in w->buf. */
bool ht_tok_escape(ht_tok_work *w, const char *text, size_t n, bool prefix, size_t *n_out);
ht_status ht_tok_encode_spm(const ht_tokenizer *t, ht_tok_work *w, const char *text, size_t n, bool prefix,
                            ht_error *err);
ht_status ht_tok_encode_bpe(const ht_tokenizer *t, ht_tok_work *w, const char *text, size_t n, ht_error *err);

/* ---- vocabulary -------------------------------------------------------------------------------------------------- */

ht_status ht_tok_load(ht_tokenizer *t, const ht_gguf *g, ht_error *err);
ht_status ht_tok_load_special(ht_tokenizer *t, const ht_gguf *g, uint32_t pre_flags, ht_error *err);
ht_status ht_tok_build_pieces(ht_tokenizer *t, ht_error *err);
void ht_tok_note(ht_tokenizer *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Id by text, also one behind n_vocab; -1 where there is none. */
int32_t ht_tok_lookup(const ht_tokenizer *t, const char *s, size_t n);
/* Letter(s) of a byte in byte-level vocabularies; returns how many bytes. */
uint32_t ht_tok_letter(uint8_t byte, char out[2]);
const char *ht_tok_path(const ht_gguf *g);
/* ht_fail_at for a fault of a key's value; without an offset where the value came from an override. */
ht_status ht_tok_fail(ht_error *err, ht_status st, const ht_kv *kv, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* Text cut at special tokens: id >= 0 is a token, else text[start, end) is to be encoded. */
typedef struct ht_tok_frag { size_t start, end; ht_token id; } ht_tok_frag;
ht_status ht_tok_cut(const ht_tokenizer *t, const char *text, size_t n, bool special, ht_tok_frag **out, size_t *n_out,
                     ht_error *err);

/* ---- small things ------------------------------------------------------------------------------------------------ */

static inline bool ht_tok_is_special(uint8_t type)
{
    return type == HT_TT_CONTROL || type == HT_TT_USER || type == HT_TT_UNKNOWN;
}

/* Bytes of the UTF-8 character at p, 0 where the bytes are none (overlong, surrogates, cut off, beyond U+10FFFF). */
static inline uint32_t ht_tok_utf8(const uint8_t *p, size_t n)
{
    if (p[0] < 0x80)
        return 1;
    if (p[0] < 0xC2 || p[0] > 0xF4)
        return 0;
    if (n < 2 || (p[1] & 0xC0) != 0x80)
        return 0;
    if (p[0] < 0xE0)
        return 2;
    if (p[0] < 0xF0) {
        if ((p[0] == 0xE0 && p[1] < 0xA0) || (p[0] == 0xED && p[1] > 0x9F))
            return 0;
        return n >= 3 && (p[2] & 0xC0) == 0x80 ? 3 : 0;
    }
    if ((p[0] == 0xF0 && p[1] < 0x90) || (p[0] == 0xF4 && p[1] > 0x8F))
        return 0;
    return n >= 4 && (p[2] & 0xC0) == 0x80 && (p[3] & 0xC0) == 0x80 ? 4 : 0;
}

__extension__ typedef unsigned __int128 ht_tok_u128;

static inline uint64_t ht_tok_mum(uint64_t a, uint64_t b)
{
    ht_tok_u128 r = (ht_tok_u128)a * b;
    return (uint64_t)r ^ (uint64_t)(r >> 64);
}


static inline uint64_t ht_tok_hash(const char *p, size_t n)
{
    uint64_t h = n * 0x9E3779B97F4A7C15u;
    uint64_t a = 0, b = 0, v;

    while (n > 16) {
        uint64_t x, y;
        memcpy(&x, p, 8);
        memcpy(&y, p + 8, 8);
        h = ht_tok_mum(x ^ 0xA0761D6478BD642Fu, y ^ h ^ 0xE7037ED1A0B428DBu);
        p += 16;
        n -= 16;
    }
    /* overlapping loads: no loop over the last bytes */
    if (n >= 8) {
        memcpy(&a, p, 8);
        memcpy(&b, p + n - 8, 8);
    } else if (n >= 4) {
        uint32_t x, y;
        memcpy(&x, p, 4);
        memcpy(&y, p + n - 4, 4);
        a = x;
        b = y;
    } else if (n > 0) {
        a = (uint64_t)(uint8_t)p[0] | (uint64_t)(uint8_t)p[n / 2] << 8 | (uint64_t)(uint8_t)p[n - 1] << 16;
    }
    v = ht_tok_mum(a ^ 0x8EBC6AF09C88C6E3u ^ h, b ^ 0x589965CC75374CC3u);
    return ht_tok_mum(v ^ h, 0x1D8E4E27C47D124Fu);
}

static inline uint64_t ht_tok_pair_hash(uint64_t pair)
{
    return ht_tok_mum(pair ^ 0xA0761D6478BD642Fu, 0xE7037ED1A0B428DBu);
}

#endif
