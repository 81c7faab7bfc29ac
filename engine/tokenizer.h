/* SPDX-License-Identifier: MIT
 *
 * Text to token ids and back, as the file's own vocabulary says (tokenizer.ggml.*): SentencePiece BPE ("llama"),
 * byte-level BPE ("gpt2", split by the pre-tokenizer that tokenizer.ggml.pre names), gemma-4's ("gemma4").
 *
 * Owner: the tokenizer copies what it needs; it outlives the ht_gguf. Threads: an open tokenizer is read-only, any
 * number of threads may use it. All ids and strings of the file are checked at open. */
#ifndef HT_TOKENIZER_H
#define HT_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/base/status.h"
#include "engine/gguf.h"

typedef int32_t ht_token;

typedef struct ht_tokenizer ht_tokenizer;

/* What the vocabulary says of its special tokens; -1 where there is none. */
typedef struct ht_vocab_info {
    uint32_t n_vocab;
    ht_token bos, eos, eot, unk, pad;
    bool add_bos, add_eos;
} ht_vocab_info;

ht_status ht_tokenizer_open(ht_tokenizer **out, const ht_gguf *g, ht_error *err);
void ht_tokenizer_close(ht_tokenizer **t);
const ht_vocab_info *ht_tokenizer_info(const ht_tokenizer *t);
uint64_t ht_tokenizer_bytes(const ht_tokenizer *t); /* memory that its tables take */
/* What a person should know of how the file was read (an unknown pre-tokenizer, say); NULL where all is well. */
const char *ht_tokenizer_note(const ht_tokenizer *t);

/* Token ids of n bytes of text. No BOS/EOS is added. special: control tokens written in the text are recognised
 * (user-defined tokens always are). *ids is malloc'ed by the call and freed by the caller; invalid UTF-8 is
 * tokenised byte by byte, never refused. Work is O(n log n) at most, for any input. */
ht_status ht_tokenizer_encode(const ht_tokenizer *t, const char *text, size_t n, bool special, ht_token **ids,
                              size_t *n_ids, ht_error *err);

/* Bytes of one token, as they appear in the middle of a text (a leading space of SentencePiece pieces included).
 * Control tokens give nothing unless special. Returns the length; *bytes is valid as long as the tokenizer. */
size_t ht_tokenizer_piece(const ht_tokenizer *t, ht_token id, bool special, const char **bytes);

/* Whether generation ends at this token (eos, eot, eom, and the other end-of-turn tokens that files declare or
 * imply). */
bool ht_tokenizer_is_end(const ht_tokenizer *t, ht_token id);
bool ht_tokenizer_is_control(const ht_tokenizer *t, ht_token id);
/* Id of a token by its exact text, or -1. */
ht_token ht_tokenizer_find(const ht_tokenizer *t, const char *text, size_t n);

/* Streaming detokeniser: holds back the bytes of an unfinished UTF-8 character. Plain data, zero-initialise it.
 * `first`: the stream starts a text, so the space that SentencePiece puts before the first word is dropped. */
typedef struct ht_detok {
    char held[4];
    uint8_t n_held;
    bool started;
} ht_detok;

/* Appends the text that id completes to out (cap bytes; ht_tokenizer_max_piece() + 8 is always enough) and returns how
 * many bytes; only whole characters (or bytes that can never become one). */
size_t ht_detok_push(const ht_tokenizer *t, ht_detok *d, ht_token id, bool special, char *out, size_t cap);
/* What is still held when the stream ends. */
size_t ht_detok_flush(ht_detok *d, char *out, size_t cap);
size_t ht_tokenizer_max_piece(const ht_tokenizer *t);

#endif
