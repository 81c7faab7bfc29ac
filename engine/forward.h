/* SPDX-License-Identifier: MIT
 *
 * Computing: from token ids to logits. A forward object holds everything that one pass needs besides weights and
 * sequence state: activations for up to `batch` tokens, rotation tables, lists of experts. All memory at open; a pass
 * allocates nothing. layer.c writes a layer as operations for an executor; forward.c strings layers together.
 *
 * Owner: ht_forward_open/close; model, store and executor outlive it. Threads: one at a time. */
#ifndef HT_FORWARD_H
#define HT_FORWARD_H

#include "engine/base/exec.h"
#include "engine/hearth.h"
#include "engine/mem.h"
#include "engine/state.h"
#include "engine/store.h"

/* What a layer's feed-forward blocks did in passes of one token. */
typedef struct ht_layer_load {
    _Atomic uint64_t n_active, n_neurons;
    uint64_t seen_active, seen_neurons; /* when the density was brought up to date */
    float density;                      /* share of active neurons lately; -1: nothing is known */
} ht_layer_load;

/* What was not exact in passes of one token of a streamed mixture (engine/miss.h). */
typedef struct ht_missed {
    uint64_t mixtures;                    /* layers with a router, each once a pass */
    uint64_t stood_in, skipped, rerouted; /* experts */
    double skipped_share;                 /* summed up over mixtures, of 1 each */
} ht_missed;
enum { HT_MISS_MOST = 256 }; /* experts of a token, of models whose choice is biased */

typedef struct ht_forward {
    const ht_model *m;
    ht_exec *exec;
    ht_store *store;
    const ht_mem *mem;
    bool f32;              /* activations stay float32 for every weight type */
    uint32_t batch, rope_ctx; /* most tokens per pass; the context length by which longrope chooses its factors */
    uint32_t logit_rows;   /* most rows of logits per round */
    void *memory;
    size_t bytes;

    float *x;              /* [batch][d_model] the residual stream */
    ht_act xn, ao, h, gathered, inner; /* normed input, attention output, hidden units, experts' inputs, delta output */
    float *y, *y2;         /* [batch][d_model] a block's output */
    float *q, *qn, *k, *v; /* [batch][…] */
    float *conv_in, *conv_out, *z, *ba;
    float *router;         /* [batch][n_expert] */
    float *shared_gate;    /* [batch] */
    uint32_t *expert_ids;  /* [batch][n_used] */
    float *expert_weights;
    uint32_t *item_tokens; /* [batch * n_used] */
    float *item_weights;
    ht_ffn_item *items;    /* [n_layer + max_expert + max_used]: one per layer for dense and shared blocks, then the
                            * experts', then those of a token in the order in which they arrive */
    ht_cluster *clusters;  /* [max_expert] */
    uint32_t *item_counts; /* [max_expert] tokens of the pass that chose each of them */
    int32_t *rows;         /* [batch] of the learnt positions */
    ht_ticket ticket;      /* of the experts of the layer that is computed, or was computed last */
    uint32_t slots;        /* rows of h and of gathered */
    float *rope;           /* [n_ropes][batch][n_rot] */
    size_t *rope_at;       /* [n_ropes] first float of each table */
    float *logits;         /* [logit_rows][n_vocab] */

    uint32_t *mask;        /* [slots][mask_words] of a feed-forward block's hidden units; where neurons are foretold, or [max_used]
                            * where experts come in parts */
    uint32_t mask_words;
    float *scores;         /* [batch][max_ff], low-rank predictors */
    ht_act low;            /* [batch][max_rank] */
    ht_act before;         /* [batch][d_model] the residual stream, for predictors that read it */
    void *predict_work;

    /* Streamed models. */
    int32_t *embed_ids;    /* [batch] rows of the embedding read from the file: where it is not held */
    uint8_t *embed_rows;
    ht_act guess;          /* [1][d_model]: this layer's state, normed as the next one's */
    float *guess_router, *guess_weights;
    uint32_t *guess_ids;   /* [max_used] */
    uint32_t guessed;      /* the layer they are of; 0: none */
    float *miss_scores;    /* [max_expert] */
    bool *miss_low;        /* [max_used] of a token: computed from a stand-in */
    ht_missed missed;
    float *open;           /* [max_used][max_ff] of experts that come in parts: their gates */
    uint8_t *masked;       /* [max_used] such an expert's row of mask says which neurons are here */
    bool streaming;        /* more of the ticket may be asked for while others compute */
    double tick_at;        /* ht_os_now() when reads are looked at again */
    uint32_t *foretold_ids; /* [max_used] those that were acted upon; of layer `foretold`, 0: none */
    uint32_t foretold;

    ht_mask_counts counts;                /* of passes of several */

    hearth_trace_fn *trace; /* who listens to feed-forward blocks; NULL: nobody */
    void *trace_user;
    hearth_route_fn *route; /* who is asked about a mixture's choice; NULL: nobody */
    void *route_user;
    uint32_t pass_pos;      /* position of the pass's first token */

    bool sparse;           /* passes of one token leave out what is zero */
    void *ffn_work;        /* ht_op_ffn.work */
    ht_layer_load *loads;  /* [n_layer] */
    _Atomic uint64_t n_bytes; /* of weights that feed-forward blocks read in passes of one token */
    uint64_t n_single;        /* such passes */
} ht_forward;

/* Called with n rows of logits, the first being that of token `first` of the pass; false: cancel. */
typedef bool ht_logits_fn(void *user, uint32_t first, uint32_t n, const float *logits);

uint64_t ht_forward_bytes(const ht_model *m, bool streamed, bool f32, bool sparse, uint32_t batch,
                          uint32_t logit_rows);
ht_status ht_forward_open(ht_forward *f, const ht_model *m, ht_store *store, ht_exec *exec, const ht_mem *mem, bool f32,
                          bool sparse, uint32_t batch, uint32_t rope_ctx, uint32_t logit_rows, ht_error *err);
void ht_forward_close(ht_forward *f);

/* Computes n <= batch tokens at s->pos, for which the state has room, and moves s->pos on. on_logits NULL: only the
 * last token's logits, in f->logits. HT_ECANCELLED leaves the position as it was, but a recurrent state is then
 * spoilt. */
ht_status ht_forward_run(ht_forward *f, ht_state *s, const int32_t *ids, uint32_t n, ht_logits_fn *on_logits,
                         void *user, const ht_cancel *cancel, ht_error *err);

/* After a pass of one token: builds a piece of a neuron-major part where it would have been used. At most some
 * milliseconds of work. */
void ht_forward_tend(ht_forward *f);

/* Whether a down projection is faster from its neuron-major part than from the file's rows, by the share of neurons that
 * was active lately (-1: not known). Both give the same bits. */
bool ht_layer_prefers_neurons(const ht_neuron_block *b, float density);

/* ht_cancel.tick of who computes with `forward`, in layer_stream.c. */
void ht_stream_tick(void *forward);

/* One layer of a pass, in layer.c: queued when it returns, done at the event. */
ht_status ht_layer_run(ht_forward *f, ht_state *s, uint32_t il, uint32_t n, const ht_cancel *cancel, ht_event *done,
                       ht_error *err);

#endif
