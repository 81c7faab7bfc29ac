/* SPDX-License-Identifier: MIT
 *
 * hearth's offline profiler: runs text through a model and keeps what it learns of its neurons and experts. The second
 * public header of the library, beside hearth.h, whose rules on errors, structs, threads and callbacks hold here too.
 *
 * A profiler belongs to a model; it reads text in windows, each from an empty context, and gathers statistics. A
 * profile is what came of it: made by a profiler, written to and read from a file (docs/profile.md), drawn as a page.
 * Nothing here prints or reads the environment. What the words mean:
 *
 *   active      a hidden unit of a feed-forward block that is not zero, as the down projection gets it
 *   density     share of the neurons computed for a token (of a mixture: those of the experts chosen) that are active
 *   frequency   share of tokens on which a neuron is active, of a mixture whether or not its expert was chosen
 *   magnitude   mean of |hidden unit| over the tokens on which it is active
 *   overlap     share of a token's active neurons that were active on the token before it in the text
 *   union       share of all neurons of a layer, all experts, that are active on at least one of N consecutive tokens
 *
 * Owner: what an open or read function returns is closed by the caller. Threads: one object, one thread at a time. */
#ifndef HEARTH_PROFILER_H
#define HEARTH_PROFILER_H

#include "engine/hearth.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hearth_profile hearth_profile;
typedef struct hearth_profiler hearth_profiler;

/* ---- Profiling --------------------------------------------------------------------------------------------------- */

typedef struct hearth_profiler_params {
    size_t size;
    uint64_t max_tokens; /* of the text; 0: 200,000 */
    uint32_t
        window;     /* tokens computed in one context, BOS included; 0: 512, or the trained length where that is less */
    uint32_t batch; /* as hearth_session_params has it: changes speed only */
    hearth_kv_type kv_type;
    bool density_only;    /* density, overlap, unions and routing, but nothing for single neurons: a small file */
    const char *part;     /* path where the state is kept from one sitting to the next; NULL: nowhere */
    uint64_t part_tokens; /* it is saved each time so many tokens are done; 0: 16,384 */
    bool restart;         /* begins anew although there is a part */
    hearth_progress_fn *progress; /* "profiling", tokens done, of how many */
    void *progress_user;
} hearth_profiler_params;
#define HEARTH_PROFILER_PARAMS_INIT                                                                                    \
    {                                                                                                                  \
        .size = sizeof(hearth_profiler_params)                                                                         \
    }

/* The model must outlive the profiler. Fails as hearth_session_open does. */
HEARTH_API hearth_status hearth_profiler_open(hearth_profiler **out, hearth_model *m,
                                              const hearth_profiler_params *params, hearth_error *err);
HEARTH_API void hearth_profiler_close(hearth_profiler **p);

/* Reads n bytes of text, once per profiler. Where `part` is there it goes on from it: results have the bits of a run
 * that was never interrupted. Cancelled (by progress, or hearth_session_cancel of its session) it saves the part, fails
 * with ECANCELLED, and what was done can be made a profile all the same; the part stays until the caller removes it.
 * Fails: EMISMATCH (the part is of another model, text or setting), EFORMAT (the part is damaged), EINVAL (no token in
 * the text), EIO, ENOMEM. */
HEARTH_API hearth_status hearth_profiler_run(hearth_profiler *p, const char *text, size_t n, hearth_error *err);

typedef struct hearth_profiler_state {
    size_t size;             /* set by the caller */
    uint64_t tokens;         /* that count so far, of earlier sittings too */
    uint64_t tokens_total;   /* that there are to do */
    uint64_t tokens_resumed; /* of them from earlier sittings */
    double seconds;          /* of this sitting */
    uint64_t bytes;          /* memory of the statistics */
} hearth_profiler_state;
HEARTH_API hearth_status hearth_profiler_get_state(const hearth_profiler *p, hearth_profiler_state *state);
/* To be cancelled, from any thread or a signal handler; lives as long as the profiler. */
HEARTH_API hearth_session *hearth_profiler_session(hearth_profiler *p);
/* A profile of what is done so far. EINVAL: nothing is. */
HEARTH_API hearth_status hearth_profiler_profile(hearth_profiler *p, hearth_profile **out, hearth_error *err);

/* ---- Profiles ---------------------------------------------------------------------------------------------------- */

enum { HEARTH_PROFILE_UNIONS = 7 }; /* of 1, 2, 4, … 64 consecutive tokens */

typedef struct hearth_profile_info {
    size_t size;       /* set by the caller */
    const char *model; /* fingerprint; valid as long as the profile, like every pointer here */
    const char *name, *description, *created_by; /* "" where unknown */
    uint64_t tokens, text_bytes;
    uint32_t n_layer, window;
    bool density_only;
    double density;            /* over all neurons computed */
    uint32_t n_points, chosen; /* of the curve of loss against speed; chosen == n_points: none is */
} hearth_profile_info;

/* What is known of a layer; negative numbers and NULL: not known. */
typedef struct hearth_profile_layer {
    size_t size;                     /* set by the caller */
    uint32_t n_ff, n_expert, n_used; /* neurons of an expert; a dense block is one expert, always used */
    float density, density_spread;   /* mean over tokens, and standard deviation */
    float overlap;
    float unions[HEARTH_PROFILE_UNIONS];
    const float *frequency, *magnitude; /* [n_expert][n_ff] */
    /* mixtures */
    float expert_overlap;          /* share of a token's experts that the token before had too */
    const float *expert_frequency; /* [n_expert] share of tokens that choose it */
    uint32_t n_before, n_next;     /* experts of the mixture before this one, and how many followers of each are kept */
    const float *next_expert;      /* [n_before][n_next] most frequent first; ids are exact */
    const float *next_share;       /* [n_before][n_next] share of the tokens of that expert that choose this one here */
    /* the block that some mixtures have beside them */
    uint32_t shared_n_ff; /* 0: none */
    float shared_density, shared_overlap;
    const float *shared_frequency, *shared_magnitude; /* [shared_n_ff] */
    /* how its active neurons are foretold */
    const char *method; /* "exact", "sign", "lowrank", "threshold"; NULL: not known */
    float recall, precision, predicted_density;
    const float
        *threshold; /* [n_expert][n_ff] of the predictor's score, NULL: no predictor. -INFINITY: always computed */
    uint32_t rank, inputs;      /* of a low-rank predictor; inputs: the width of the model */
    const float *low_a, *low_b; /* [rank][inputs], [n_ff][rank]: set by training, left out where a profile is read */
    /* [n_expert] of method "threshold": neurons are zero where |act(gate)| is below the one, or |hidden unit| below the other */
    const float *gate_threshold, *hidden_threshold;
    /* look-ahead: its active neurons foreseen from the input of the block before, for fetching early; no token depends on it */
    float ahead_recall, ahead_precision, ahead_density; /* density: share of the neurons that is foreseen */
    uint32_t ahead_rank;                                /* of its matrices; 0: there are none, or they were not read back */
    const float *ahead_a, *ahead_b, *ahead_threshold;   /* [rank][inputs], [n_ff][rank], [n_ff]: as low_a and low_b */
} hearth_profile_layer;

/* A point of the curve of loss against speed. Negative: not known. */
typedef struct hearth_profile_point {
    float kl_mean, kl_p99; /* nat, against the dense model on held-out text */
    float top1_agreement;
    float weight_bytes_per_token;
    float speed;   /* of the dense model's, as bytes read tell it */
    float density; /* share of hidden units that are not zero, as it was aimed at; thresholds only */
} hearth_profile_point;

/* ---- Predictors -------------------------------------------------------------------------------------------------- */

typedef struct hearth_train_params {
    size_t size;
    const hearth_model_params *model; /* how the model is opened again for trials; NULL: defaults */
    double quality; /* loss that may be spent: mean KL divergence in nat against the dense model; 0: 0.01. The 99th
                     * percentile stays below 25 times as much, the share of tokens whose likeliest successor is
                     * another below 3 times */
    double density; /* 0: what `quality` allows. Else thresholds are made that leave this share of the hidden units, whatever
                     * the loss: 0.05 to 1 */
    uint64_t sample_tokens;       /* to learn from, spread over the text; 0: 8192, or what 1 GiB and some minutes hold */
    uint64_t check_tokens;        /* held-out tokens scored at each trial; 0: 4096, or what 512 MiB of logits hold */
    const char *scratch;          /* path for trial profiles; removed at the end */
    hearth_progress_fn *progress; /* "learning", "measuring" */
    void *progress_user;
} hearth_train_params;
#define HEARTH_TRAIN_PARAMS_INIT                                                                                       \
    {                                                                                                                  \
        .size = sizeof(hearth_train_params)                                                                            \
    }

/* Finds a predictor for every layer: where the activation has zeros, which kind costs fewest bytes, and the thresholds of
 * its scores; where it has none (or a density is asked for), thresholds of gates and hidden units, shared out among layers
 * by what they do to the blocks' outputs. The loss on `held_out`, scored token by token as decoding would compute it, stays
 * within `quality` (docs/predictors.md). path: the model's file; m: the same, open. The profile gets methods, thresholds and
 * the curve of every trial; where it fails the statistics stay. Samples, logits and trials take memory of their own
 * that no budget covers: about 2 GiB at most, and a second model's tables. Fails: EMISMATCH (a profile of another
 * model), EUNSUPPORTED (hidden units that are more than act(gate) times up: a norm, biases), EINVAL (texts too short, a
 * density out of range), ECANCELLED, EIO, ENOMEM. */
HEARTH_API hearth_status hearth_profile_train(hearth_profile *p, hearth_model *m, const char *path,
                                              const hearth_train_params *params, const char *text, size_t n,
                                              const char *held_out, size_t n_held_out, hearth_error *err);

/* Fits the look-ahead of every dense block whose activation has zeros, but the first: small matrices that foresee nine tenths of
 * its active neurons from the input of the block before, and what they do on samples that they were not fitted to. For fetching
 * weights early, whatever the sparsity; no token depends on it. A text too short, a model without such blocks: nothing is
 * foreseen, and HEARTH_OK. progress: "learning", "looking ahead". Takes some ten seconds for each layer of a model with 7 billion
 * weights, and 1 GiB at most beside some copies of a block's gates. Fails: EMISMATCH (a profile of another model), ECANCELLED, EIO,
 * ENOMEM. */
HEARTH_API hearth_status hearth_profile_look_ahead(hearth_profile *p, hearth_model *m, const char *text, size_t n,
                                                   hearth_progress_fn *progress, void *user, hearth_error *err);

/* Reads a profile and checks every byte of it. model: the fingerprint that it must be of, NULL: any. Fails: EFORMAT
 * (damaged, or no profile), EUNSUPPORTED (of a newer version), EMISMATCH (of another model), EIO, ENOMEM. */
HEARTH_API hearth_status hearth_profile_read(hearth_profile **out, const char *path, const char *model,
                                             hearth_error *err);
/* The file appears whole or not at all. */
HEARTH_API hearth_status hearth_profile_write(const hearth_profile *p, const char *path, hearth_error *err);
HEARTH_API void hearth_profile_close(hearth_profile **p);
HEARTH_API hearth_status hearth_profile_get_info(const hearth_profile *p, hearth_profile_info *info);
HEARTH_API hearth_status hearth_profile_get_layer(const hearth_profile *p, uint32_t layer, hearth_profile_layer *out);
HEARTH_API hearth_status hearth_profile_get_point(const hearth_profile *p, uint32_t i, hearth_profile_point *out);
/* The smallest share of the neurons of a layer (UINT32_MAX: of all layers together) that makes up `share` of all
 * activations; negative where single neurons are not known or nothing ever fired. With even use it would be `share`. */
HEARTH_API double hearth_profile_cover(const hearth_profile *p, uint32_t layer, double share);
/* One HTML page that needs nothing beside it: curves, heat maps and tables, light and dark. */
HEARTH_API hearth_status hearth_profile_report(const hearth_profile *p, const char *path, hearth_error *err);

/* ---- Packed models ----------------------------------------------------------------------------------------------- */

typedef struct hearth_pack_params {
    size_t size;
    double quality; /* that the profile's predictors were made for (hearth_train_params): they go with the model, and
                     * HEARTH_SPARSITY_AUTO uses them; 0: they stay out, and the model is only ever computed exactly */
    hearth_progress_fn *progress; /* "packing", bytes done, of how many */
    void *progress_user;
} hearth_pack_params;
#define HEARTH_PACK_PARAMS_INIT                                                                                        \
    {                                                                                                                  \
        .size = sizeof(hearth_pack_params)                                                                             \
    }

/* Writes a model that needs nothing beside it, laid out for sparse execution and for reading from disk (docs/pack.md):
 * feed-forward blocks as stretches of experts, groups of neurons that fire often first, and the profile. Logits keep their
 * bits. Blocks whose down projection has no neuron-major form stay as they are. path: the model's file; m: the same, open.
 * Memory: some MiB. The file appears whole or not at all. Fails: EMISMATCH (a profile of another model), EINVAL (the file is
 * packed already), EUNSUPPORTED (no block can be packed, a weight is no finite number), ECANCELLED, EIO, ENOMEM. */
HEARTH_API hearth_status hearth_profile_pack(const hearth_profile *p, hearth_model *m, const char *path,
                                             const hearth_pack_params *params, const char *out, hearth_error *err);
/* Whether a model's file can be packed, before anything is learnt for it: all that hearth_profile_pack refuses but weights that are no
 * finite numbers. Fails as it does. */
HEARTH_API hearth_status hearth_pack_check(const hearth_model *m, const char *path, hearth_error *err);
/* The way back: the plain file that a packed one was made from, the same metadata and tensors in the same order, byte for
 * byte (a split set becomes one file; gaps between tensors are those of this writer). Fails: EINVAL (no packed model),
 * EFORMAT (damaged: the sum of the source's bytes does not come out), EUNSUPPORTED, ECANCELLED, EIO, ENOMEM. */
HEARTH_API hearth_status hearth_unpack(const char *path, const char *out, hearth_progress_fn *progress, void *user,
                                       hearth_error *err);

/* ---- Other widths ------------------------------------------------------------------------------------------------ */

enum { HEARTH_QUANTISE_POINTS = 24, HEARTH_QUANTISE_WIDTHS = 8 };

typedef struct hearth_quantise_params {
    size_t size;
    const char *type;      /* of matrices: "q4_k" */
    bool pure;             /* the output matrix too; else it keeps at least 6 bits */
    uint32_t threads;      /* 0: as many as a model would get */
    uint64_t ram_bytes;    /* for the models of trials; 0: what is free */
    hearth_progress_fn *progress; /* "encoding", bytes; "trying experts", trials; "measuring", trials */
    void *progress_user;
    /* A width for each expert of a mixture (EdgeMoE, arXiv:2308.14352, section 4.2). */
    bool per_expert;
    const char *const *widths; /* [n_widths] types that experts may be lowered to; NULL: those below `type` of its family */
    size_t n_widths;
    double quality;        /* mean KL divergence in nat that the whole file may have against the input, or 0 */
    uint64_t target_bytes; /* of the tensors of the file, where quality is 0 */
    const char *text, *held_out; /* experts are tried on the first, the result is measured on the second */
    size_t n_text, n_held_out;
    uint64_t sample_tokens, check_tokens; /* 0: 1024 and 4096 */
} hearth_quantise_params;
#define HEARTH_QUANTISE_PARAMS_INIT { .size = sizeof(hearth_quantise_params) }

/* A share of the experts lowered, in order of what it costs. Measured on the held-out text against the input. */
typedef struct hearth_quantise_point {
    uint64_t bytes;     /* of all tensors */
    uint32_t lowered;   /* steps taken: an expert lowered to the next width that pays is one step */
    double kl_mean, kl_p99, top1_agreement;
    bool chosen;
} hearth_quantise_point;

typedef struct hearth_quantise_result {
    size_t size;            /* set by the caller */
    uint64_t bytes_in, bytes_out, weights; /* of tensors; elements that were encoded */
    uint32_t tensors, encoded, fallbacks;  /* fallbacks: rows are no whole blocks of the type, another was taken */
    const char *fallback;   /* name of such a type, NULL: none */
    uint32_t n_points;
    hearth_quantise_point points[HEARTH_QUANTISE_POINTS]; /* by bytes, falling */
    uint32_t n_widths;
    const char *widths[HEARTH_QUANTISE_WIDTHS]; /* the first is `type` */
    uint64_t experts[HEARTH_QUANTISE_WIDTHS];   /* how many got it */
} hearth_quantise_result;

/* Writes the model `in` (a split set: all of it) as one file with weights of another type. Matrices are encoded; vectors, routers,
 * convolutions and what cannot be decoded are copied, as is what has the type already. Rows that are no whole blocks of the type
 * get one of 32, else f16. Experts of one stacked tensor that get different widths are written as a tensor each,
 * blk.N.ffn_up.E.weight, as older files have them. Metadata is kept.
 * Fails: EUNSUPPORTED (no such type; a packed model), EINVAL (no mixture, no bound, a text too short), EFORMAT (a weight that is
 * no finite number), EIO, ENOMEM, ECANCELLED; the file then does not appear. Any thread; blocks. */
HEARTH_API hearth_status hearth_quantise(const char *in, const char *out, const hearth_quantise_params *params,
                                         hearth_quantise_result *result, hearth_error *err);

/* ---- Routing ----------------------------------------------------------------------------------------------------- */

/* Which experts a model took for each token, recorded: a text file (docs/experts.md) that replays through cache policies
 * without the model, and through any other mixture of fitting shape. */
typedef struct hearth_routes hearth_routes;

/* An empty record of this model's shape. EINVAL: the model has no mixture; EIO: its fingerprint cannot be read. */
HEARTH_API hearth_status hearth_routes_open(hearth_routes **out, const hearth_model *m, hearth_error *err);
/* Fails: EFORMAT with the line at fault, EIO, ENOMEM. */
HEARTH_API hearth_status hearth_routes_read(hearth_routes **out, const char *path, hearth_error *err);
/* The file appears whole or not at all. */
HEARTH_API hearth_status hearth_routes_write(const hearth_routes *r, const char *path, hearth_error *err);
HEARTH_API void hearth_routes_close(hearth_routes **r);
/* From now on the record gets every choice of the session (hearth_session_route): passes of several tokens as prompt, passes
 * of one as generated. The record outlives the session's computing. A call that cannot be recorded for lack of memory fails
 * with ECANCELLED. */
HEARTH_API hearth_status hearth_routes_record(hearth_routes *r, hearth_session *s);
/* From now on the session's router is overruled: each token takes the experts of the next generated token of the record, from
 * its first on, and from the first again after the last. Layers are matched by number; of more experts than the session's
 * model uses the heaviest are taken. Weights: the router's own for these experts (softmax of their logits), with the sum of the
 * weights that it had given. The record may be of another model (hearth_routes_info tells which). EMISMATCH: it has fewer
 * layers or experts used, or more experts, or no generated token. */
HEARTH_API hearth_status hearth_routes_replay(hearth_routes *r, hearth_session *s, const hearth_model *m,
                                              hearth_error *err);

typedef struct hearth_routes_info {
    size_t size; /* set by the caller */
    const char *model, *architecture; /* as recorded; valid as long as the record */
    uint32_t n_layer, n_expert, n_used;
    uint64_t prompt_tokens, generated_tokens, expert_bytes; /* of all experts together */
    const char *fingerprint; /* of the model that it was recorded from; "": the record does not tell */
} hearth_routes_info;
HEARTH_API hearth_status hearth_routes_get_info(const hearth_routes *r, hearth_routes_info *info);

typedef enum hearth_cache_policy { HEARTH_CACHE_LRU, HEARTH_CACHE_LFU, HEARTH_CACHE_HEAT, HEARTH_CACHE_BELADY,
                                   HEARTH_CACHE_RANDOM } hearth_cache_policy;
/* "lru", "lfu", "heat", "belady", "random"; NULL where there is none. */
HEARTH_API const char *hearth_cache_policy_name(hearth_cache_policy p);

typedef struct hearth_cache_result {
    size_t size;   /* set by the caller */
    hearth_cache_policy policy;
    uint64_t budget;
    uint64_t uses, hits, bytes;                      /* prompt and generated tokens; bytes: read for misses */
    uint64_t decode_uses, decode_hits, decode_bytes; /* generated tokens alone */
    uint64_t first_uses, first_hits; /* of the first 16 of these */
} hearth_cache_result;
/* Replays a record through a cache of `budget` bytes: a prompt is one batch, each layer and expert once in first-seen order;
 * then by token, layer and slot. Experts of one layer and token are held together where the budget allows it. earlier (NULL
 * allowed, r allowed): as a second start: what a heat file keeps of a replay of that record, of the same shape, is known, and the
 * cache is filled with the hottest. EMISMATCH: it is of another shape. */
HEARTH_API hearth_status hearth_routes_simulate(const hearth_routes *r, hearth_cache_policy policy, uint64_t budget,
                                                const hearth_routes *earlier, hearth_cache_result *out, hearth_error *err);
/* Hit-rate curves of these results as one HTML page that needs nothing beside it. */
HEARTH_API hearth_status hearth_routes_report(const hearth_routes *r, const hearth_cache_result *results, size_t n,
                                              const char *path, hearth_error *err);

typedef enum hearth_foresight { HEARTH_FORESEE_PREVIOUS, HEARTH_FORESEE_FREQUENCY, HEARTH_FORESEE_PATH,
                                HEARTH_FORESEE_SIMILAR } hearth_foresight;
HEARTH_API const char *hearth_foresight_name(hearth_foresight f); /* NULL where there is none */
/* How many of a layer's experts are foreseen while the layer before is computed, learning as the record goes on, over the
 * generated tokens behind the first quarter. PREVIOUS: the token before took it, then the most recent. FREQUENCY: the most
 * used so far. PATH: took it most often when the layer before took what it took now (EdgeMoE, arXiv:2308.14352, pairs of
 * layers). SIMILAR: what the tokens took whose experts in the layers before were most like this one's. */
typedef struct hearth_foresight_result {
    size_t size; /* set by the caller */
    hearth_foresight kind;
    uint64_t uses, hits[3];       /* experts used; of these among the k, 1.5 k and 2 k foreseen first */
    uint64_t foreseen_bytes[3], used_bytes; /* all that were foreseen; all that were used */
} hearth_foresight_result;
HEARTH_API hearth_status hearth_routes_foresee(const hearth_routes *r, hearth_foresight kind,
                                               hearth_foresight_result *out, hearth_error *err);

/* ---- Plans ------------------------------------------------------------------------------------------------------- */

/* Draws a plan as a page of its own, without anything from outside: what lies where, layer by layer, and the seconds of a token.
 * Fails: EIO, ENOMEM. */
HEARTH_API hearth_status hearth_plan_report(const hearth_plan *p, const char *path, hearth_error *err);

#ifdef __cplusplus
}
#endif
#endif
