/* SPDX-License-Identifier: MIT
 *
 * hearth: language models on the machine a person owns. The one public header of the library.
 *
 * What to know before the first function
 *  - Objects: a model (weights, vocabulary; opened once, shared) and sessions (one conversation each: KV cache,
 *    position). A file is a GGUF seen as a container only; a writer makes one; a sampler picks tokens.
 *  - Errors: every function that can fail returns a hearth_status, HEARTH_OK (0) or negative, and fills the caller's
 *    hearth_error with one sentence (NULL is allowed). Out-parameters are written on HEARTH_OK only, unless said
 *    otherwise; the handle that an open function makes is NULL where it fails.
 *  - Structs that are passed in begin with their own size: set it with the _INIT macro or by hand. Later versions
 *    append members; members beyond the size given take their defaults. Zero is the default of every member.
 *  - The library never prints, exits, aborts, installs signal handlers, reads the environment or changes process-wide
 *    state. It keeps no global mutable state: any number of models live side by side.
 *  - Threads: different objects may be used at the same time from different threads, sessions of one model included
 *    (their work is then done one after the other). One object is used by one thread at a time, except
 *    hearth_session_cancel, which any thread may call at any moment. Callbacks run on the calling thread, inside the
 *    call that they belong to.
 *  - Memory: budgets are contracts; out of memory is HEARTH_ENOMEM and leaves the objects usable.
 *  - Text is UTF-8; bytes that are not are passed through. The locale must not matter and does not. */
#ifndef HEARTH_H
#define HEARTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define HEARTH_API __attribute__((visibility("default")))
#else
#define HEARTH_API
#endif

/* ---- Status ------------------------------------------------------------------------------------------------------ */

typedef enum hearth_status {
    HEARTH_OK = 0,
    HEARTH_LATER = -1,        /* not there yet */
    HEARTH_EINVAL = -2,       /* an argument makes no sense */
    HEARTH_ENOMEM = -3,       /* out of memory, or over the budget given */
    HEARTH_EIO = -4,          /* a file could not be read or written */
    HEARTH_EFORMAT = -5,      /* the file is damaged, or not what it claims to be */
    HEARTH_EUNSUPPORTED = -6, /* a file or option this version cannot run; the sentence names it */
    HEARTH_ECANCELLED = -7,
    HEARTH_EDEVICE = -8,
    HEARTH_EFULL = -9,        /* the context is full */
    HEARTH_EMISMATCH = -10,   /* made for another model */
    HEARTH_EBUSY = -11
} hearth_status;

typedef struct hearth_error {
    hearth_status status;
    uint64_t offset; /* byte offset of the field at fault in a damaged file, else UINT64_MAX */
    char text[500];  /* one sentence, no newline, no control characters */
} hearth_error;

HEARTH_API const char *hearth_status_text(hearth_status st);
HEARTH_API const char *hearth_version(void);

/* ---- Callbacks and memory ---------------------------------------------------------------------------------------- */

typedef enum hearth_log_level { HEARTH_LOG_INFO, HEARTH_LOG_WARN } hearth_log_level;
typedef void hearth_log_fn(void *user, hearth_log_level level, const char *sentence);
/* done of total (bytes or tokens, `what` says); return false to cancel. */
typedef bool hearth_progress_fn(void *user, const char *what, uint64_t done, uint64_t total);

/* Where the big memory of sessions comes from (KV cache, recurrent state, activations); NULL: the C library. Both
 * functions are needed. alloc returns memory aligned to `align` (a power of two) or NULL. */
typedef struct hearth_allocator {
    void *user;
    void *(*alloc)(void *user, size_t bytes, size_t align);
    void (*free)(void *user, void *p, size_t bytes);
} hearth_allocator;

/* Frees strings and arrays that functions of this header return. NULL allowed. */
HEARTH_API void hearth_free(void *p);

/* ---- Models ------------------------------------------------------------------------------------------------------ */

typedef int32_t hearth_token;
typedef struct hearth_model hearth_model;
typedef struct hearth_session hearth_session;

typedef enum hearth_precision { HEARTH_PRECISION_FAST, HEARTH_PRECISION_F32 } hearth_precision;
/* OFF computes every neuron. EXACT and AUTO skip those of ReLU-like models that are zero: same bits. EXACT prepares for
 * that when the model opens (a second, neuron-major copy of the down projections, where ram_bytes allows it); AUTO as it
 * sees, token by token, that it pays. A file that brings predictors is run with them under AUTO, as hearth_model_predict
 * would, and tokens may differ: a PowerInfer model (docs/powerinfer.md) and a packed model that was made with a quality
 * (docs/pack.md); OFF and EXACT leave them alone. */
typedef enum hearth_sparsity { HEARTH_SPARSITY_AUTO, HEARTH_SPARSITY_OFF, HEARTH_SPARSITY_EXACT } hearth_sparsity;
/* Where weights come from. MMAP: the mapped file, which the system pages in. DIRECT and CACHED: memory of the model's own,
 * filled by reads that pass the system's page cache by, or go through it; experts (and blocks of dense models) that do not
 * fit into ram_bytes come from the file as they are needed. AUTO: MMAP, with reading ahead, where all fits, else the
 * faster of the other two. Packed models and PowerInfer's are MMAP in this version, whatever is asked. Changes no bit of any
 * result. */
typedef enum hearth_io { HEARTH_IO_AUTO, HEARTH_IO_MMAP, HEARTH_IO_DIRECT, HEARTH_IO_CACHED } hearth_io;
/* Reading experts before they are known to be needed, by a guess. AUTO: as long as it pays. */
typedef enum hearth_prefetch { HEARTH_PREFETCH_AUTO, HEARTH_PREFETCH_OFF, HEARTH_PREFETCH_ON } hearth_prefetch;
/* What a token does about experts of a streamed mixture that are not in memory. WAIT: for the disk; results are exact. LOW: computes
 * from a copy at fewer bits that is held in memory, made when the model opens, and the expert itself is read for later tokens. SKIP:
 * leaves the lightest of them out, as far as skip_share allows. With LOW and SKIP results depend on what was in memory, and no
 * longer repeat. Prompts (passes of several tokens) are exact whatever is asked. */
typedef enum hearth_on_miss { HEARTH_MISS_WAIT, HEARTH_MISS_LOW, HEARTH_MISS_SKIP } hearth_on_miss;
typedef enum hearth_kv_type { HEARTH_KV_F16, HEARTH_KV_F32, HEARTH_KV_Q8_0, HEARTH_KV_Q4_0 } hearth_kv_type;

typedef struct hearth_model_params {
    size_t size;
    uint32_t threads;           /* compute threads; 0: performance cores that the process may use */
    hearth_precision precision; /* F32: activations and KV stay float32 for every weight type */
    hearth_sparsity sparsity;
    hearth_io io;
    bool deterministic;         /* results independent of batch size too (this version: always so) */
    bool vocab_only;            /* tokenizer and metadata only: any file with a vocabulary opens */
    uint64_t ram_bytes;         /* budget for weights, KV cache and scratch, shared by all sessions of the model:
                                 * each sets its whole context aside when it opens; 0: what is free, less a reserve */
    const char *isa;            /* at most this SIMD level: "ref", "avx2", …; NULL: best found */
    const char *const *overrides; /* "KEY=VALUE" each, as if the file said so */
    size_t n_overrides;
    hearth_log_fn *log;
    void *log_user;
    hearth_progress_fn *progress;
    void *progress_user;
    const hearth_allocator *allocator; /* borrowed until the model is closed */
    bool ignore_predictors;     /* of a PowerInfer model under AUTO: its own are not used */
    hearth_prefetch prefetch;
    hearth_on_miss on_miss;
    const char *stand_in;       /* LOW: type of the copies, "q2_k" where NULL; matrices that it does not suit get the next wider */
    float skip_share;           /* SKIP: share of the router's weights that a layer may leave out of a token, to 1; 0: 0.1 */
    float route_bias;           /* experts in memory are preferred: this share of the range of the router's scores is added to
                                 * theirs for the choice (arXiv:2412.00099); 0: exact. As SKIP, results depend on the cache */
} hearth_model_params;
#define HEARTH_MODEL_PARAMS_INIT { .size = sizeof(hearth_model_params) }

/* Opens a GGUF file (the first of a split set opens all). The weights are mapped, not copied, and read ahead of the first
 * pass by threads of the model's own, as far as they fit into ram_bytes and free memory (io MMAP: left to the pager).
 * A file must not be cut while it is open: each pass looks at its size first and fails with EIO, as it does where reading
 * ahead met a failing disk, but a cut or a fault in the middle of a pass ends the process (SIGBUS), for the library
 * installs no signal handlers.
 * Fails: EIO, EFORMAT (damaged), EUNSUPPORTED (architecture, type or tokenizer named), ENOMEM, EINVAL. */
HEARTH_API hearth_status hearth_model_open(hearth_model **out, const char *path, const hearth_model_params *params,
                                           hearth_error *err);
/* Sessions must be closed first. NULL and *NULL are allowed; *m becomes NULL. */
HEARTH_API void hearth_model_close(hearth_model **m);

/* From now on the model's feed-forward blocks compute the neurons that the predictors of this profile name and take the
 * others as zero: faster, and no longer the same tokens (hearth_profiler.h, docs/predictors.md). Before any session is open.
 * They take the place of predictors that the file brings itself.
 * Fails: EMISMATCH (a profile of another model), EINVAL (it holds no predictor, or foretells zeros that the activation does
 * not have, or the model was opened with sparsity OFF or for its vocabulary only), EBUSY (a session is open, or predictors
 * are in use already), EFORMAT, EUNSUPPORTED, EIO, ENOMEM; the model then stays as it was. */
HEARTH_API hearth_status hearth_model_predict(hearth_model *m, const char *profile, hearth_error *err);

/* Of a model that is streamed from disk: keeps in a file, from run to run, which experts are used most. Read now, if it is
 * there, and slots are filled by it behind the computing; written now and then and when the model closes. A file that is
 * damaged or of another model is told to the log callback and written anew. Nothing happens for models that are not
 * streamed. Fails: ENOMEM, EIO (the model's file has been cut). */
HEARTH_API hearth_status hearth_model_heat(hearth_model *m, const char *path, hearth_error *err);

/* Of a mixture that is streamed from disk: what a profile (hearth_profiler.h) knows of how often experts are chosen is where the
 * cache begins, for a model that has no heat of its own yet: call it before hearth_model_heat. Changes no token. Nothing
 * happens for models that are not streamed, nor with a profile that counted no experts. Fails: EMISMATCH (a profile of another
 * model), EFORMAT, EUNSUPPORTED, EIO, ENOMEM; the model then stays as it was. */
HEARTH_API hearth_status hearth_model_hints(hearth_model *m, const char *profile, hearth_error *err);

/* The thread that calls computes too, beside the model's own. Those are bound to processors where that helps; this
 * binds the calling thread alike, to the processor left for it (bind false: lets it run anywhere again). For
 * programs that own the thread; unbind it before the model is closed. False: nothing was changed. */
HEARTH_API bool hearth_bind_thread(const hearth_model *m, bool bind);

typedef struct hearth_model_info {
    size_t size;               /* set by the caller */
    const char *architecture;  /* valid as long as the model, like every string here */
    const char *name;          /* general.name or "" */
    const char *description;   /* "llama, 6 layers, d 256, Q8_0" */
    uint32_t n_vocab, n_ctx_train, n_layer, d_model, n_expert, n_expert_used;
    uint64_t n_params, weight_bytes;
    uint64_t weight_bytes_per_token; /* stored bytes that one decoding step reads, one row of the embedding included */
    hearth_token bos, eos, eot;      /* -1: none */
    bool add_bos, add_eos;
    uint32_t threads;
    const char *isa;
    const char *device;        /* "cpu" */
    bool has_chat_template;    /* the file has one */
    const char *chat_family;   /* how it writes calls of tools, as hearth_tool_family; "plain" where there is no template */
    float temperature, top_p, repeat_penalty; /* the file's own suggestion (hearth.sampling.*); negative: none */
    const char *demo_prompt;   /* hearth.demo_prompt, or NULL */
    bool recurrent;            /* has state that cannot be rewound */
    hearth_precision precision;
    uint64_t neuron_bytes;     /* memory set aside for down projections in neuron-major form, beside weight_bytes */
    bool packed;               /* laid out for sparse execution (docs/pack.md): neuron-major already */
    float pack_quality;        /* of a packed model: the loss that its own predictors may spend; negative: it has none */
    bool predicts;             /* predictors are in use */
    bool own_predictors;       /* the file's own predictors choose the neurons (under AUTO) */
    /* Of a model that is streamed from disk, else 0: weights that are held in memory, what there is now for experts, and
     * what all of them would take. */
    uint64_t held_bytes, expert_cache_bytes, expert_bytes;
    const char *io;            /* "mmap"; "direct" or "cached": streamed */
    uint64_t stand_in_bytes;   /* of experts' copies at fewer bits (HEARTH_MISS_LOW), in memory beside all else */
} hearth_model_info;
HEARTH_API hearth_status hearth_model_get_info(const hearth_model *m, hearth_model_info *info);

/* What a profile belongs to: 32 hexadecimal digits and a terminator, made of the architecture's metadata (overrides
 * counted), of names, types and shapes of all tensors and of samples of their bytes. The file's path and name, the order
 * of what it holds, whether it is split, and the vocabulary do not matter; another quantisation of the same model is
 * another model. Reads 2 KiB of each tensor at most: milliseconds, and of a file that is not in the page cache as long as
 * the disk takes for some hundred small reads side by side. Fails: EIO where the file has been cut. */
HEARTH_API hearth_status hearth_model_fingerprint(const hearth_model *m, char out[33], hearth_error *err);

/* ---- Weights of feed-forward blocks ------------------------------------------------------------------------------ */

typedef struct hearth_block_info {
    size_t size;               /* set by the caller */
    uint32_t n_ff, n_expert, n_used, shared_n_ff; /* a dense block is one expert, always used; n_ff: neurons of an expert */
    bool gated;
    const char *activation;    /* "relu", "relu2", "fatrelu", "drelu", "silu", …; valid as long as the model */
    float activation_param;    /* FATReLU's threshold */
    bool has_zeros;            /* the activation gives exact zeros: neurons can be skipped */
    uint64_t row_bytes;        /* stored bytes of a neuron's gate row (its up row where there is no gate) */
    bool plain;                /* nothing is added to the gate's product, hidden units are act(gate) times up: no bias, no norm */
    uint64_t expert_bytes;     /* stored bytes of one expert's matrices (of a dense block: of the block) */
} hearth_block_info;
HEARTH_API hearth_status hearth_model_get_block(const hearth_model *m, uint32_t layer, hearth_block_info *info);

typedef enum hearth_role { HEARTH_ROLE_GATE, HEARTH_ROLE_UP, HEARTH_ROLE_DOWN } hearth_role;
/* dst = rows [first, first + n) of a matrix of an expert as float32: of gate and up a row is a neuron's [d_model], of down
 * an output's [n_ff]. EINVAL: there is no such row. Any thread. */
HEARTH_API hearth_status hearth_model_read_rows(const hearth_model *m, uint32_t layer, uint32_t expert, hearth_role role,
                                                uint32_t first, uint32_t n, float *dst, hearth_error *err);

/* Takes other weights for a matrix of an expert, for trials: n bytes of rows of any type, in the matrix's own shape, borrowed
 * until it is replaced again or the model is closed. data NULL: the file's own again. Between calls on sessions, of a model that was
 * opened with sparsity OFF and whose weights are all in memory. Fails: EINVAL (no such matrix, another size, another way of
 * opening), ENOMEM. */
HEARTH_API hearth_status hearth_model_replace(hearth_model *m, uint32_t layer, uint32_t expert, hearth_role role,
                                              const char *type, const void *data, size_t n, hearth_error *err);

/* ---- Text and tokens --------------------------------------------------------------------------------------------- */

/* Ids of n bytes of text. add_bos: also BOS (and EOS) as the file asks. special: control tokens in the text are
 * recognised. *ids: hearth_free. */
HEARTH_API hearth_status hearth_tokenize(const hearth_model *m, const char *text, size_t n, bool add_bos, bool special,
                                         hearth_token **ids, size_t *n_ids, hearth_error *err);
/* Text of ids, not terminated; *text: hearth_free. special: control tokens are spelled out. */
HEARTH_API hearth_status hearth_detokenize(const hearth_model *m, const hearth_token *ids, size_t n_ids, bool special,
                                           char **text, size_t *n, hearth_error *err);
/* Whether generation ends at this token. */
HEARTH_API bool hearth_token_is_end(const hearth_model *m, hearth_token id);

typedef struct hearth_message { const char *role, *content; } hearth_message;
/* The prompt that the model's chat template makes of a conversation; a model without one gets "User: …\nAssistant: ". A
 * template that refuses a system message gets it as the beginning of the first user's. To be tokenised with special = true.
 * *text: hearth_free. Fails as hearth_template_render does. */
HEARTH_API hearth_status hearth_chat_format(const hearth_model *m, const hearth_message *messages, size_t n_messages,
                                            bool add_generation_prompt, char **text, size_t *n, hearth_error *err);

/* Chat templates (docs/templates.md): Jinja as chat-template libraries run it, in a sandbox of its own. */
typedef struct hearth_template_params {
    size_t size;
    const char *text;           /* a template in place of the model's; NULL: the model's */
    size_t n_text;
    const char *name;           /* a named template of the file ("tool_use"); NULL: the one without a name */
    /* The conversation: JSON, either an array of messages or an object with `messages`, `tools`, `add_generation_prompt` and any
     * other variables of the template. What it names wins over the members below and over the model's own (bos_token,
     * eos_token, unk_token, pad_token). NULL: none, messages are needed then. */
    const char *json;
    size_t n_json;
    const hearth_message *messages;
    size_t n_messages;
    const char *tools;          /* JSON array of tools as templates want them, terminated; NULL: none */
    bool add_generation_prompt;
    int64_t now;                /* what strftime_now tells: seconds since 1970, in local time; 0: now, in UTC */
    uint64_t max_steps;         /* 0: 30 million */
    uint64_t max_bytes;         /* 0: 256 MiB, and 64 for each byte of the input */
} hearth_template_params;
#define HEARTH_TEMPLATE_PARAMS_INIT { .size = sizeof(hearth_template_params) }
/* m may be NULL where a template is given. *text: terminated too, hearth_free. Any thread. Fails: EINVAL (the template refuses the
 * conversation, or does what its values do not allow: the sentence says what, and the line), EUNSUPPORTED (a construct that is not
 * known, or a limit), EFORMAT (template or JSON is damaged), ENOMEM. */
HEARTH_API hearth_status hearth_template_render(const hearth_model *m, const hearth_template_params *params, char **text, size_t *n,
                                                hearth_error *err);

/* How a model writes calls of tools into its answers, found by its template: "hermes", "llama3", "mistral", … (docs/templates.md
 * has the list); "none" where no known format is found. */
HEARTH_API const char *hearth_tool_family(const char *chat_template, size_t n);
/* Takes an answer apart: *json is {"content": text, "reasoning_content": text, "tool_calls": [{"name": …, "arguments": {…}, "id": …}]},
 * members without a value left out but for content. family NULL: that of the model's template (m may be NULL otherwise). What
 * looks like a call but is none stays in the content. *json: terminated too, hearth_free. Any thread. Fails: EINVAL (no such
 * family), EUNSUPPORTED (a limit), ENOMEM. */
HEARTH_API hearth_status hearth_tool_calls(const hearth_model *m, const char *family, const char *text, size_t n, char **json,
                                           size_t *n_json, hearth_error *err);

/* ---- Sessions ---------------------------------------------------------------------------------------------------- */

typedef struct hearth_session_params {
    size_t size;
    uint32_t n_ctx;  /* 0: the trained length, or what fits the budget */
    hearth_kv_type kv_type; /* under HEARTH_PRECISION_F32 always float32 */
    uint32_t batch;  /* most tokens computed at once when reading a prompt; 0: chosen. Changes no bit of any result */
} hearth_session_params;
#define HEARTH_SESSION_PARAMS_INIT { .size = sizeof(hearth_session_params) }

HEARTH_API hearth_status hearth_session_open(hearth_session **out, hearth_model *m, const hearth_session_params *params,
                                             hearth_error *err);
HEARTH_API void hearth_session_close(hearth_session **s);

/* Called for each position in order with its logits [n_vocab], valid during the call; return false to cancel. It
 * must not compute on, open or close sessions of the same model: the model is busy until it returns. */
typedef bool hearth_logits_fn(void *user, size_t index, const float *logits);

/* Appends tokens to the conversation and computes them. on_logits NULL: only the last position's logits are
 * computed, read them with hearth_session_logits. Fails: EFULL before anything is computed, ECANCELLED (position
 * then is that of the last chunk completed), EINVAL for ids out of range. */
HEARTH_API hearth_status hearth_session_feed(hearth_session *s, const hearth_token *ids, size_t n,
                                             hearth_logits_fn *on_logits, void *user, hearth_error *err);
/* Logits after the last token fed, [n_vocab]; NULL before the first. Valid until the next call on this session. */
HEARTH_API const float *hearth_session_logits(const hearth_session *s);
HEARTH_API uint32_t hearth_session_position(const hearth_session *s);
HEARTH_API uint32_t hearth_session_context(const hearth_session *s);
/* Forgets everything after position n. Models with recurrent state can only go back to 0: EUNSUPPORTED otherwise. */
HEARTH_API hearth_status hearth_session_rewind(hearth_session *s, uint32_t n, hearth_error *err);
/* Makes the call in progress on this session end soon with ECANCELLED. Any thread, also from a signal handler. The
 * request stays until the next hearth_session_uncancel. */
HEARTH_API void hearth_session_cancel(hearth_session *s);
HEARTH_API void hearth_session_uncancel(hearth_session *s);

/* One feed-forward block for the tokens of a pass that it computed; of a mixture one expert. Pointers are valid during
 * the call. */
typedef struct hearth_trace {
    size_t size;
    uint32_t layer, n_layer;
    uint32_t expert;        /* 0 in a dense block, HEARTH_TRACE_SHARED for the shared expert beside a mixture */
    uint32_t d_model, n_ff; /* n_ff: neurons of this block or expert */
    uint32_t n_tokens;      /* of the pass, that this block computed */
    uint32_t n_pass;        /* of the pass: at most the session's batch */
    uint32_t position;      /* in the conversation, of the pass's first token */
    const uint32_t *tokens; /* [n_tokens] places in the pass, ascending; NULL: all of them in order */
    const float *input;     /* row t: the normed input of token t of the pass, [d_model] */
    size_t input_stride;    /* floats from row to row */
    const float *hidden;    /* row i: the hidden units of the i-th of these tokens, [n_ff], as the down projection takes
                             * them: after activation, times up, and after the norm that few models have there */
    size_t hidden_stride;
    /* Mixtures, of the whole pass; NULL in dense blocks. */
    uint32_t n_expert, n_used;
    const float *router_logits;  /* [n_pass][n_expert] */
    const uint32_t *expert_ids;  /* [n_pass][n_used], ascending within a token */
    const float *expert_weights; /* [n_pass][n_used] */
} hearth_trace;
#define HEARTH_TRACE_SHARED UINT32_MAX
/* Return false to cancel the call that computes: it fails with ECANCELLED. Must not compute on, open or close sessions of
 * the same model. */
typedef bool hearth_trace_fn(void *user, const hearth_trace *t);
/* Listens to every feed-forward block that this session computes from now on: layers in order, the experts that were
 * chosen ascending, the shared one last. fn NULL: no longer. Layers are then waited for one by one, and no neuron is
 * skipped but those that predictors take as zero; results keep their bits. */
HEARTH_API hearth_status hearth_session_trace(hearth_session *s, hearth_trace_fn *fn, void *user);

/* Which experts of a mixture the tokens of a pass take, once per layer and pass, after the router and before any expert is
 * fetched. Pointers are valid during the call. */
typedef struct hearth_route {
    size_t size;
    uint32_t layer, n_layer, n_expert, n_used;
    uint32_t n_pass;   /* tokens of the pass: several of a prompt, one where text is generated */
    uint32_t position; /* in the conversation, of the pass's first token */
    const float *router_logits; /* [n_pass][n_expert] */
    uint32_t *expert_ids;       /* [n_pass][n_used], ascending within a token. They and the weights may be changed; the call */
    float *expert_weights;      /* that computes fails with EINVAL where they then are out of range or not ascending */
} hearth_route;
/* Return false to cancel the call that computes: it fails with ECANCELLED. Must not compute on, open or close sessions of
 * the same model. */
typedef bool hearth_route_fn(void *user, const hearth_route *r);
/* Listens to, or takes the place of, the routing of this session from now on. Lighter than a trace: nothing more is waited
 * for, written or computed. fn NULL: no longer. */
HEARTH_API hearth_status hearth_session_route(hearth_session *s, hearth_route_fn *fn, void *user);

typedef struct hearth_stats {
    size_t size;                   /* set by the caller */
    uint64_t prompt_tokens, generated_tokens;
    double prompt_seconds, decode_seconds; /* decode: from the first token picked to the last */
    double first_token_seconds;    /* from the start of hearth_generate to the first token picked */
    uint64_t neurons_active, neurons_total; /* non-zero intermediate units over all that were computed in decoding */
    uint64_t kv_bytes, scratch_bytes;      /* committed now, of this session */
    uint64_t weight_bytes_read;            /* in passes of one token: skipped rows of feed-forward blocks are not in it */
    /* Of passes of several tokens (prompts, texts scored), which compute every neuron: neurons and those not zero; with
     * predictors also those predicted, and those of both. Recall is hit / active, precision hit / predicted. With
     * thresholds those count as predicted whose gate is large enough, as both those that were not set to zero. */
    uint64_t mask_neurons, mask_active, mask_predicted, mask_hit;
    uint64_t thread_scratch_bytes;         /* of the model's threads, shared by its sessions */
    uint64_t single_passes;                /* such passes: decoding steps, and prompts of one token */
    /* Models streamed from disk, 0 for others. Experts (and dense blocks) that passes of one token needed, and of them those
     * that were in memory; those read ahead because the next layer's router was guessed, and of them those needed. */
    uint64_t experts_wanted, experts_hit, experts_foreseen, experts_foreseen_hit;
    uint64_t disk_bytes_read;              /* by this session's passes */
    double io_wait_seconds;                /* in these passes, with nothing to compute */
    /* What was not exact in passes of one token: experts computed from stand-ins, left out, and taken because they were at hand
     * where the router alone had taken others; the share of a layer's weights that was left out, summed up over layers with a
     * router, and how many of these there were. */
    uint64_t experts_stood_in, experts_skipped, experts_rerouted, mixtures;
    double skipped_share;
    /* Layers of passes of one token, by how many of the experts that they needed had to be read for them, foreseen or not; the
     * last: 16 or more. */
    uint64_t layers_missing[17];
    uint64_t experts_guessed, experts_guessed_right; /* of layers whose router was guessed: experts used, and of them guessed */
} hearth_stats;
HEARTH_API hearth_status hearth_session_get_stats(const hearth_session *s, hearth_stats *stats);

/* ---- Sampling and generation ------------------------------------------------------------------------------------- */

typedef struct hearth_sampler hearth_sampler;
typedef struct hearth_sampler_params {
    size_t size;
    float temperature;    /* 0: greedy */
    uint32_t top_k;       /* 0: off */
    float top_p, min_p;   /* 0: off (top_p >= 1 too) */
    float repeat_penalty; /* 0 or 1: off; over the last repeat_window tokens */
    uint32_t repeat_window; /* 0: 64 */
    uint64_t seed;
} hearth_sampler_params;
#define HEARTH_SAMPLER_PARAMS_INIT { .size = sizeof(hearth_sampler_params) }
HEARTH_API hearth_status hearth_sampler_open(hearth_sampler **out, const hearth_sampler_params *params,
                                             uint32_t n_vocab, hearth_error *err);
HEARTH_API void hearth_sampler_close(hearth_sampler **p);
/* Picks from logits [n_vocab] (unchanged) and remembers the choice for the penalty. */
HEARTH_API hearth_token hearth_sampler_pick(hearth_sampler *p, const float *logits);

/* One token and the text that it completes (whole UTF-8 characters, n may be 0). Return false to stop. token -1: the
 * text still held back at the end. */
typedef bool hearth_generate_fn(void *user, hearth_token token, const char *text, size_t n);

typedef enum hearth_stop_reason { HEARTH_STOP_END, HEARTH_STOP_LENGTH, HEARTH_STOP_TEXT, HEARTH_STOP_CALLER,
                                  HEARTH_STOP_CONTEXT, HEARTH_STOP_CANCEL } hearth_stop_reason;

typedef struct hearth_generate_params {
    size_t size;
    uint32_t max_tokens;      /* 0: to the end of text or of the context */
    const char *const *stops; /* texts at which to stop; they are not delivered */
    size_t n_stops;
    bool ignore_end;          /* go on after end-of-text tokens (benchmarks) */
    hearth_generate_fn *on_token;
    void *user;
} hearth_generate_params;
#define HEARTH_GENERATE_PARAMS_INIT { .size = sizeof(hearth_generate_params) }

/* Feeds ids (may be 0 after an earlier feed), then generates. Every token delivered is part of the session
 * afterwards. A full context ends with HEARTH_OK and HEARTH_STOP_CONTEXT; cancelling with HEARTH_OK and
 * HEARTH_STOP_CANCEL. */
HEARTH_API hearth_status hearth_generate(hearth_session *s, hearth_sampler *p, const hearth_token *ids, size_t n_ids,
                                         const hearth_generate_params *params, hearth_stop_reason *why,
                                         hearth_error *err);

/* ---- Files as containers ----------------------------------------------------------------------------------------- */

typedef struct hearth_file hearth_file;
HEARTH_API hearth_status hearth_file_open(hearth_file **out, const char *path, hearth_error *err);
HEARTH_API void hearth_file_close(hearth_file **f);
HEARTH_API uint32_t hearth_file_version(const hearth_file *f);
/* Whether the file is one of PowerInfer's: the same layout under the name "PWRI" (docs/powerinfer.md). */
HEARTH_API bool hearth_file_powerinfer(const hearth_file *f);
HEARTH_API uint32_t hearth_file_parts(const hearth_file *f); /* files of the split set */
HEARTH_API uint64_t hearth_file_bytes(const hearth_file *f); /* all parts together */

typedef struct hearth_meta {
    const char *key;   /* terminated copy, as long as the file is open */
    const char *type;  /* "u32", "string", "array of f32", … */
    uint64_t n;        /* elements of an array, 1 otherwise */
} hearth_meta;
HEARTH_API uint64_t hearth_file_n_meta(const hearth_file *f);
HEARTH_API hearth_status hearth_file_meta(const hearth_file *f, uint64_t i, hearth_meta *out);
/* Index of a key, or -1. */
HEARTH_API int64_t hearth_file_find_meta(const hearth_file *f, const char *key);
/* The value as text, at most max_elements of an array (then ", …"); strings verbatim. *text: hearth_free. */
HEARTH_API hearth_status hearth_file_meta_text(const hearth_file *f, uint64_t i, uint64_t max_elements, char **text,
                                               size_t *n);
/* Every element of an array in order, as the text that hearth_file_meta_text would make of it (strings verbatim, not
 * terminated), valid during the call; return false to stop, which is HEARTH_ECANCELLED. HEARTH_EINVAL where i is no
 * array. */
typedef bool hearth_meta_fn(void *user, const char *text, size_t n);
HEARTH_API hearth_status hearth_file_meta_each(const hearth_file *f, uint64_t i, hearth_meta_fn *element, void *user);

/* Elements [first, first + n) of a number or an array of numbers; booleans are 0 and 1, integers beyond 2^53 are
 * rounded. HEARTH_EINVAL: another kind, or fewer elements. */
HEARTH_API hearth_status hearth_file_meta_numbers(const hearth_file *f, uint64_t i, uint64_t first, uint64_t n,
                                                  double *out);

typedef struct hearth_tensor {
    const char *name;  /* terminated copy, as long as the file is open */
    const char *type;  /* "Q4_K" */
    uint32_t n_dims;
    uint64_t ne[4];    /* GGUF order: ne[0] is the row length */
    uint64_t bytes, offset;
    bool readable;     /* hearth_file_read can decode its type */
} hearth_tensor;
HEARTH_API uint64_t hearth_file_n_tensors(const hearth_file *f);
/* A packed model (docs/pack.md) stands for tensors of a plain one: *n of them, which are described, found by name and read
 * like the others under indices from hearth_file_n_tensors on (their offset is that of their stretch). Fails: EFORMAT,
 * EUNSUPPORTED (what the file says of its packing is damaged, or newer), *n is 0 then. */
HEARTH_API hearth_status hearth_file_packed(const hearth_file *f, uint64_t *n, hearth_error *err);
HEARTH_API hearth_status hearth_file_tensor(const hearth_file *f, uint64_t i, hearth_tensor *out);
HEARTH_API int64_t hearth_file_find_tensor(const hearth_file *f, const char *name);
/* dst[0..n) = elements [first, first + n) of tensor i as float32 (integer tensors are converted); first and n are
 * multiples of the type's block or end at the tensor's end. */
HEARTH_API hearth_status hearth_file_read(const hearth_file *f, uint64_t i, uint64_t first, uint64_t n, float *dst,
                                          hearth_error *err);

/* dst = the stored bytes of rows [first, first + n) of tensor i, rows of all dimensions counted on, as a plain file has
 * them. EINVAL: there are no such rows; EUNSUPPORTED: a type of unknown geometry. */
HEARTH_API hearth_status hearth_file_read_raw(const hearth_file *f, uint64_t i, uint64_t first, uint64_t n, void *dst,
                                              hearth_error *err);
/* The stored bytes themselves, as long as the file is open and not cut; NULL: none, or a tensor that is packed. */
HEARTH_API const void *hearth_file_data(const hearth_file *f, uint64_t i);

/* Reads the whole file and compares it with the checksum that hearth_writer_seal put at its end. EFORMAT: it differs, or
 * there is none. */
HEARTH_API hearth_status hearth_file_verify(const hearth_file *f, hearth_error *err);

/* Writing. Order: open, metadata, all tensor declarations, then the data of each tensor in that order, close. The file
 * appears under its name only when close succeeds; abort leaves nothing. */
typedef struct hearth_writer hearth_writer;
HEARTH_API hearth_status hearth_writer_open(hearth_writer **out, const char *path, hearth_error *err);
HEARTH_API hearth_status hearth_writer_set_u32(hearth_writer *w, const char *key, uint32_t v);
HEARTH_API hearth_status hearth_writer_set_u64(hearth_writer *w, const char *key, uint64_t v);
HEARTH_API hearth_status hearth_writer_set_f32(hearth_writer *w, const char *key, float v);
HEARTH_API hearth_status hearth_writer_set_bool(hearth_writer *w, const char *key, bool v);
HEARTH_API hearth_status hearth_writer_set_str(hearth_writer *w, const char *key, const char *v);
HEARTH_API hearth_status hearth_writer_set_f32s(hearth_writer *w, const char *key, const float *v, size_t n);
HEARTH_API hearth_status hearth_writer_set_i32s(hearth_writer *w, const char *key, const int32_t *v, size_t n);
HEARTH_API hearth_status hearth_writer_set_strs(hearth_writer *w, const char *key, const char *const *v, size_t n);
/* All metadata of a file, in its order, but split.* and keys that begin with one of n_except texts. */
HEARTH_API hearth_status hearth_writer_copy(hearth_writer *w, const hearth_file *f, const char *const *except,
                                            size_t n_except);
/* A tensor as another file has it, of whatever type; its bytes come by hearth_writer_raw. */
HEARTH_API hearth_status hearth_writer_declare_like(hearth_writer *w, const hearth_file *f, uint64_t i, hearth_error *err);
/* type: a name as "q4_k", or "i8" and "i32" for hearth_writer_raw alone; EUNSUPPORTED where it cannot be written, EINVAL where ne[0] is no multiple of its block. */
HEARTH_API hearth_status hearth_writer_declare(hearth_writer *w, const char *name, const char *type, uint32_t n_dims,
                                               const uint64_t *ne, hearth_error *err);
/* A last tensor, "hearth.checksum", by which hearth_file_verify knows damage to any byte of the file. */
HEARTH_API hearth_status hearth_writer_seal(hearth_writer *w);
/* The next n elements of the tensors in order, encoded to the declared type; n ends on a row (ne[0]). */
HEARTH_API hearth_status hearth_writer_data(hearth_writer *w, const float *src, uint64_t n, hearth_error *err);
/* The same already encoded (n bytes, whole rows): for callers that encode in several threads with hearth_encode. */
HEARTH_API hearth_status hearth_writer_raw(hearth_writer *w, const void *src, size_t n, hearth_error *err);
HEARTH_API hearth_status hearth_writer_close(hearth_writer **w, hearth_error *err);
HEARTH_API void hearth_writer_abort(hearth_writer **w);
/* Encodes n elements (whole rows) to a type; *bytes is how many were written; dst NULL: only counts. Any thread. */
HEARTH_API hearth_status hearth_encode(const char *type, const float *src, uint64_t n, void *dst, size_t *bytes);

/* ---- The machine ------------------------------------------------------------------------------------------------- */

typedef struct hearth_gpu {
    char name[128], driver[16]; /* of the plug-in: "cuda", "opencl" */
    char version[64];           /* of the vendor's software */
    uint32_t index;             /* among the plug-in's devices */
    uint32_t units;             /* multiprocessors, compute units */
    uint64_t memory_bytes, most_bytes; /* all; of one allocation */
    uint32_t unified;           /* 1: it shares the host's memory */
    uint32_t processor;         /* 1: it is the processor itself, behind OpenCL */
    uint32_t exact;             /* 1: it rounds as IEEE 754 says, and so gives the processor's bits */
    uint32_t reserved[5];
} hearth_gpu;

typedef struct hearth_hardware {
    size_t size;               /* set by the caller */
    char cpu[128];
    uint32_t packages, cores, performance_cores, hardware_threads, numa_nodes; /* that this process may use */
    uint32_t default_threads;
    const char *isa;           /* SIMD level chosen */
    char isa_all[96];          /* all levels that run here, space-separated */
    uint64_t l1d_bytes, l2_bytes, l3_bytes; /* of one core; L3 as shared */
    uint64_t ram_total_bytes, ram_available_bytes; /* a cgroup's limit counted */
    /* measured, bytes per second, 1 thread and default_threads; 0: not measured */
    double memory_read_bps_1, memory_read_bps_all;
    double disk_read_bps;      /* measured on `path`, page cache bypassed where possible; 0: not measured */
    char gpus[256];            /* one sentence */
    uint32_t n_gpus;           /* devices that a plug-in reaches, whatever is computed on them; at most 8 are told */
    hearth_gpu gpu[8];
    char gpus_missing[512];    /* plug-ins that are not there or find nothing, each with its reason; empty: none */
} hearth_hardware;
/* measure: take about a second to measure bandwidths; path: a file (or NULL) whose disk is measured. */
HEARTH_API hearth_status hearth_hardware_read(hearth_hardware *hw, bool measure, const char *path, hearth_error *err);
/* Peak resident memory of this process in bytes so far, 0 where unreadable. */
HEARTH_API uint64_t hearth_peak_rss(void);

/* What this machine's processors and disk do, measured through the code that models run on. Of figures that were not measured 0. */
typedef struct hearth_type_rates {
    const char *type;                 /* "Q4_0" */
    double read_bytes_per_s;          /* weights from memory, one token */
    double short_bytes_per_s;         /* the same, rows of 512 elements in place of 2,048 */
    double cached_bytes_per_s;        /* weights that the last-level cache holds */
    double gathered_bytes_per_s;      /* rows picked here and there */
    double prompt_macs_per_s[3];      /* multiply-adds with 16, 64, 512 tokens at once */
} hearth_type_rates;
typedef struct hearth_kv_rates {
    const char *type;
    double element_seconds, query_seconds; /* a token, per position, KV head and element of K and V: of the element, and of each
                                            * head that shares it */
    double prompt_macs_per_s;
} hearth_kv_rates;
typedef struct hearth_rates {
    size_t size;               /* set by the caller */
    char cpu[128];
    uint32_t threads;
    char isa[24];
    hearth_precision precision;
    double task_seconds, wait_seconds, op_seconds, element_seconds; /* docs/plan.md */
    double memory_bytes_per_s;
    double disk_direct_bytes_per_s, disk_cached_bytes_per_s;
    uint32_t n_types, n_kv;
    hearth_type_rates types[40];
    hearth_kv_rates kv[4];
} hearth_rates;

typedef struct hearth_rates_params {
    size_t size;
    uint32_t threads;           /* 0: performance cores that the process may use */
    hearth_precision precision;
    const char *isa;            /* at most this SIMD level; NULL: best found */
    const char *path;           /* a small text file that keeps the figures: read, and written where something was measured; one of
                                 * another machine or version, or a damaged one, is replaced. NULL: none */
    const char *disk;           /* a file whose disk is measured; NULL: none is */
    bool again;                 /* measures although the file has it */
    bool stored_only;           /* measures nothing: what the file has */
    hearth_progress_fn *progress;
    void *progress_user;
} hearth_rates_params;
#define HEARTH_RATES_PARAMS_INIT { .size = sizeof(hearth_rates_params) }
/* The figures of common types of weights and KV caches, and those of others that the file has. Takes some seconds where they are
 * measured. Fails: EIO (the file cannot be read or written), with stored_only EFORMAT and EMISMATCH too; EINVAL, ENOMEM, ECANCELLED. */
HEARTH_API hearth_status hearth_rates_read(hearth_rates *out, const hearth_rates_params *params, hearth_error *err);

/* ---- Plans ------------------------------------------------------------------------------------------------------- */

/* Where every layer and expert of a model would be, and how fast that is, before the model is loaded: docs/plan.md. */
typedef struct hearth_plan hearth_plan;

typedef enum hearth_tier { HEARTH_TIER_DISK, HEARTH_TIER_RAM, HEARTH_TIER_VRAM } hearth_tier;
HEARTH_API const char *hearth_tier_name(hearth_tier t); /* "disk", "ram", "vram" */

/* What a profile (hearth_profiler.h) knows of a layer; negative and NULL: nothing. Borrowed during the call. */
typedef struct hearth_plan_use {
    double density, expert_overlap;
    const float *expert_frequency; /* [n_expert] */
    const float *frequency;        /* [n_expert][n_ff] */
} hearth_plan_use;

typedef struct hearth_plan_params {
    size_t size;
    uint32_t n_ctx;         /* 0: the trained length, or what fits */
    hearth_kv_type kv_type;
    uint32_t batch;         /* as hearth_session_params has it */
    uint32_t prompt_tokens; /* of which the time to the first token is foretold; 0: 512 */
    uint32_t depth;         /* positions that the context holds when a token is made */
    uint64_t vram_bytes;
    const char *const *pins; /* "blk.0-7=vram", "experts=disk" */
    size_t n_pins;
    const hearth_plan_use *uses; /* [n_uses]; NULL: no profile */
    uint32_t n_uses;
    const char *rates;      /* the file of hearth_rates_params.path */
    bool stored_only;       /* measures nothing; what is missing in the file is EINVAL */
} hearth_plan_params;
#define HEARTH_PLAN_PARAMS_INIT { .size = sizeof(hearth_plan_params) }

/* Opens the model's metadata only; of its parameters threads, precision, sparsity, io, ram_bytes, isa, overrides and progress count.
 * Figures of this machine that the file of rates has not are measured, and where experts would come from disk, that disk. Of the
 * weights some small vectors are read. Fails: ENOMEM where the budget holds no plan: the sentence says how much is missing, and what
 * helps; EINVAL (a pin); as hearth_model_open and hearth_rates_read do. */
HEARTH_API hearth_status hearth_plan_open(hearth_plan **out, const char *path, const hearth_model_params *model,
                                          const hearth_plan_params *params, hearth_error *err);
HEARTH_API void hearth_plan_close(hearth_plan **p);

typedef struct hearth_plan_info {
    size_t size;               /* set by the caller */
    const char *model;         /* general.name, or the file's; valid as long as the plan, like every string here */
    const char *description, *device, *isa, *io; /* io: "mmap", or "direct", "cached": streamed from disk */
    uint32_t n_rows;           /* layers, and the output projection as the last */
    uint32_t threads, n_ctx, depth, prompt_tokens, batch;
    const char *kv_type;
    uint64_t ram_budget_bytes, vram_budget_bytes;
    uint64_t ram_bytes, vram_bytes, disk_bytes; /* taken; disk: weights that stay there */
    uint64_t kv_bytes;         /* of the whole context */
    uint64_t weight_bytes, weight_bytes_per_token, fixed_bytes; /* fixed: tables, scratch */
    double disk_bytes_per_token;   /* expected */
    double decode_seconds, decode_full_seconds; /* of a token at `depth`, and at the end of the context */
    double prompt_seconds;         /* of prompt_tokens, until the first token */
    double disk_bytes_per_s;       /* that reading is counted with; 0: nothing is read */
    bool profiled;
} hearth_plan_info;
HEARTH_API hearth_status hearth_plan_get_info(const hearth_plan *p, hearth_plan_info *info);

typedef struct hearth_plan_row {
    size_t size;               /* set by the caller */
    bool output, mixture;
    hearth_tier trunk;         /* attention with its KV cache, norms, router, shared expert; of the output its matrix */
    uint64_t trunk_bytes, kv_bytes;
    uint32_t pieces, in[3];    /* experts, or runs of a dense block; by hearth_tier */
    uint64_t in_bytes[3];
    double trunk_seconds, cpu_seconds, gpu_seconds, disk_seconds; /* of a token; of pieces */
} hearth_plan_row;
/* i: a layer, or n_rows - 1 for the output. */
HEARTH_API hearth_status hearth_plan_get_row(const hearth_plan *p, uint32_t i, hearth_plan_row *row);
/* The tiers of the pieces of a row, [pieces]; valid as long as the plan. */
HEARTH_API const uint8_t *hearth_plan_pieces(const hearth_plan *p, uint32_t i);

/* All of it as JSON (docs/plan.md has its names), terminated; hearth_free. */
HEARTH_API hearth_status hearth_plan_json(const hearth_plan *p, char **text, size_t *n, hearth_error *err);

#ifdef __cplusplus
}
#endif
#endif
