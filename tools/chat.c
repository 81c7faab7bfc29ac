/* SPDX-License-Identifier: MIT
 *
 * hearth chat: a conversation with the file's own chat template.
 *
 * Every turn formats and tokenises the whole conversation and compares the ids with those that the session holds:
 * what agrees from the start stays in the KV cache, the rest is computed. So nothing needs to be known of where a
 * template puts what, and an answer that tokenises differently when it is read back costs a few tokens, not
 * correctness. */
#include <errno.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef HEARTH_HAVE_LIBEDIT
#include <histedit.h>
#endif

#include "tools/commands.h"
#include "tools/generate.h"

#define AT(member) offsetof(ht_options, member)

static const ht_flag own_flags[] = {
    { 'p', "prompt", "TEXT", HT_FLAG_TEXT, AT(prompt), 0, 0, NULL, NULL, "ask this once and leave" },
    { 'f', "file", "FILE", HT_FLAG_TEXT, AT(file), 0, 0, NULL, NULL,
      "ask what is in this file once and leave; - is stdin" },
    { 0, "system", "TEXT", HT_FLAG_TEXT, AT(system), 0, 0, NULL, NULL, "a system message before the conversation" },
    { 0 },
};

typedef struct chat {
    const ht_options *o;
    ht_loaded l;
    hearth_session *s;
    hearth_sampler *sampler;
    uint64_t seed;
    ht_texts stops;
    hearth_message *messages; /* contents and roles: contents are malloc'ed, roles are constants */
    size_t n_messages, room;
    hearth_token *held; /* the ids that the session holds */
    size_t n_held;
    ht_generation g;
    bool shortened; /* said once that old messages are dropped */
} chat;

/* ---- The conversation ---- */

static int out_of_memory(void)
{
    ht_complain("out of memory");
    return HT_EXIT_FAILED;
}

static int add_message(chat *c, const char *role, const char *text, size_t n)
{
    if (c->n_messages == c->room) {
        size_t room = 2 * c->room + 16;
        hearth_message *more = realloc(c->messages, room * sizeof *more);
        if (!more)
            return out_of_memory();
        c->messages = more;
        c->room = room;
    }
    char *content = malloc(n + 1);
    if (!content)
        return out_of_memory();
    /* Messages are strings: a zero byte would end one early. */
    for (size_t i = 0; i < n; i++)
        content[i] = text[i] ? text[i] : ' ';
    content[n] = 0;
    c->messages[c->n_messages++] = (hearth_message){ role, content };
    return HT_EXIT_OK;
}

static void drop_messages(chat *c, size_t first, size_t n)
{
    for (size_t i = first; i < first + n; i++)
        free((void *)c->messages[i].content);
    memmove(c->messages + first, c->messages + first + n, (c->n_messages - first - n) * sizeof *c->messages);
    c->n_messages -= n;
}

/* Ids of the whole conversation and of the head of the answer. */
static int conversation_ids(chat *c, hearth_token **ids, size_t *n)
{
    hearth_error err = { 0 };
    const hearth_model_info *info = &c->l.info;
    char *text = NULL;
    size_t n_text = 0;
    if (hearth_chat_format(c->l.model, c->messages, c->n_messages, true, &text, &n_text, &err) != HEARTH_OK) {
        ht_complain("%s", err.text);
        return HT_EXIT_FAILED;
    }
    hearth_status st = hearth_tokenize(c->l.model, text, n_text, true, true, ids, n, &err);
    hearth_free(text);
    if (st != HEARTH_OK)
        return ht_call_failed(&err, false);
    if (info->add_eos && *n && (*ids)[*n - 1] == info->eos)
        --*n; /* the answer is still to come */
    /* Templates write BOS themselves, and the file asks for it as well. */
    if (*n > 1 && info->bos >= 0 && (*ids)[0] == info->bos && (*ids)[1] == info->bos)
        memmove(*ids, *ids + 1, --*n * sizeof **ids);
    return HT_EXIT_OK;
}

/* Drops the oldest question and answer until the conversation leaves an answer a quarter of the context. */
static int fitting_ids(chat *c, hearth_token **ids, size_t *n)
{
    size_t context = hearth_session_context(c->s), first = c->n_messages && !strcmp(c->messages[0].role, "system");
    for (;;) {
        int status = conversation_ids(c, ids, n);
        if (status || *n <= context - context / 4 || c->n_messages <= first + 1)
            return status;
        if (!c->shortened)
            ht_say("the conversation outgrows the context of %zu tokens; its oldest messages are dropped", context);
        c->shortened = true;
        hearth_free(*ids);
        *ids = NULL;
        drop_messages(c, first, c->n_messages - first >= 3 ? 2 : 1);
    }
}

/* Takes the session back to what it shares with ids; *at is where feeding goes on, one token before the end at most. */
static int share_prefix(chat *c, const hearth_token *ids, size_t n, size_t *at)
{
    hearth_error err = { 0 };
    size_t position = hearth_session_position(c->s), same = 0;
    if (c->n_held > position)
        c->n_held = position;
    while (same < c->n_held && same + 1 < n && c->held[same] == ids[same])
        same++;
    if (same < position && c->l.info.recurrent)
        same = 0;
    if (same < position && hearth_session_rewind(c->s, (uint32_t)same, &err) != HEARTH_OK) {
        same = 0;
        if (hearth_session_rewind(c->s, 0, &err) != HEARTH_OK)
            return ht_call_failed(&err, false);
    }
    c->n_held = *at = same;
    return HT_EXIT_OK;
}

static int remember(chat *c, const hearth_token *ids, size_t n, const hearth_token *more, size_t n_more)
{
    hearth_token *held = realloc(c->held, (n + n_more + 1) * sizeof *held);
    if (!held)
        return out_of_memory();
    memcpy(held, ids, n * sizeof *held);
    if (n_more)
        memcpy(held + n, more, n_more * sizeof *held);
    c->held = held;
    c->n_held = n + n_more;
    return HT_EXIT_OK;
}

enum { HT_CHAT_TOO_LONG = -1 }; /* instead of an exit status */

/* One question, one answer. An answer that Ctrl-C stopped stays in the conversation as far as it went. */
static int ask(chat *c, const char *question, size_t n_question)
{
    hearth_token *ids = NULL;
    size_t n = 0, at = 0;
    c->g.begin = ht_now();
    int status = add_message(c, "user", question, n_question);
    if (!status)
        status = fitting_ids(c, &ids, &n);
    if (!status && !n) {
        ht_complain("the conversation has no tokens");
        status = HT_EXIT_FAILED;
    }
    if (!status && n >= hearth_session_context(c->s)) { /* the conversation goes on without it */
        ht_complain("the message makes %zu tokens, which the context of %u does not hold (--ctx); it is left out", n,
                    hearth_session_context(c->s));
        drop_messages(c, c->n_messages - 1, 1);
        hearth_free(ids);
        c->g.why = HEARTH_STOP_CONTEXT;
        return HT_CHAT_TOO_LONG;
    }
    if (!status)
        status = share_prefix(c, ids, n, &at);
    if (!status)
        status = ht_generation_run(&c->g, c->o, c->s, c->sampler, ids + at, n - at, &c->stops);
    if (!status)
        status = remember(c, ids, n, c->g.ids, c->g.n_ids);
    hearth_free(ids);
    if (status)
        return status;
    if (c->o->json)
        status = ht_generation_report(&c->g, &c->l, c->seed);
    else
        putchar('\n');
    status = ht_stdout_done(status);
    if (isatty(STDERR_FILENO) || c->o->verbose)
        ht_generation_say(&c->g, &c->l);
    if (c->g.why == HEARTH_STOP_CONTEXT)
        ht_say("the context of %u tokens is full", hearth_session_context(c->s));
    if (!status)
        status = add_message(c, "assistant", c->g.text ? c->g.text : "", c->g.n_text);
    return status;
}

/* ---- Lines ---- */

typedef struct reader {
    char *line;
    size_t room;
#ifdef HEARTH_HAVE_LIBEDIT
    EditLine *edit;
    History *history;
#endif
} reader;

#ifdef HEARTH_HAVE_LIBEDIT
static char *prompt_text(EditLine *e)
{
    static char text[] = "> ";
    (void)e;
    return text;
}
#endif

static void reader_open(reader *r)
{
    memset(r, 0, sizeof *r);
#ifdef HEARTH_HAVE_LIBEDIT
    if (!isatty(STDIN_FILENO))
        return;
    setlocale(LC_CTYPE, ""); /* libedit needs the terminal's encoding; numbers stay as they are */
    HistEvent event;
    r->edit = el_init("hearth", stdin, stderr, stderr);
    r->history = r->edit ? history_init() : NULL;
    if (r->edit) {
        el_set(r->edit, EL_PROMPT, prompt_text);
        el_set(r->edit, EL_EDITOR, "emacs");
    }
    if (r->history) {
        history(r->history, &event, H_SETSIZE, 500);
        el_set(r->edit, EL_HIST, history, r->history);
    }
#endif
}

static void reader_close(reader *r)
{
#ifdef HEARTH_HAVE_LIBEDIT
    if (r->history)
        history_end(r->history);
    if (r->edit)
        el_end(r->edit);
#endif
    free(r->line);
}

/* The next line without its end, or NULL at the end of input or on Ctrl-C. */
static const char *reader_line(reader *r, size_t *n)
{
    ssize_t got;
#ifdef HEARTH_HAVE_LIBEDIT
    if (r->edit) {
        int count = 0;
        HistEvent event;
        const char *typed = el_gets(r->edit, &count);
        if (!typed || count <= 0)
            return NULL;
        if (typed[0] != '\n' && r->history)
            history(r->history, &event, H_ENTER, typed);
        if ((size_t)count + 1 > r->room) {
            char *more = realloc(r->line, (size_t)count + 1);
            if (!more)
                return NULL;
            r->line = more;
            r->room = (size_t)count + 1;
        }
        memcpy(r->line, typed, (size_t)count);
        got = count;
        r->line[got] = 0;
    } else
#endif
    {
        if (isatty(STDIN_FILENO))
            fputs("> ", stderr);
        got = getline(&r->line, &r->room, stdin);
        if (got < 0)
            return NULL;
    }
    while (got > 0 && (r->line[got - 1] == '\n' || r->line[got - 1] == '\r'))
        r->line[--got] = 0;
    *n = (size_t)got;
    return r->line;
}

/* ---- The command ---- */

static int reset(chat *c)
{
    size_t system = c->n_messages && !strcmp(c->messages[0].role, "system");
    drop_messages(c, system, c->n_messages - system);
    hearth_sampler_close(&c->sampler); /* it remembers what was said, for the repeat penalty */
    ht_say("the conversation starts anew");
    return ht_load_sampler(&c->sampler, &c->l, c->o, &c->seed);
}

static int converse(chat *c)
{
    reader r;
    size_t n = 0;
    int status = HT_EXIT_OK;
    bool person = isatty(STDIN_FILENO);
    reader_open(&r);
    if (person)
        ht_say("%s; /help tells the commands, Ctrl-C stops an answer", c->l.info.description);
    while (!status) {
        ht_interrupt_arm(false); /* Ctrl-C has to end the waiting */
        const char *line = reader_line(&r, &n);
        ht_interrupt_arm(true);
        if (!line) {
            if (person)
                fputc('\n', stderr);
            status = ht_interrupted() ? HT_EXIT_INTERRUPTED : HT_EXIT_OK;
            break;
        }
        if (!strcmp(line, "/quit") || !strcmp(line, "/exit"))
            break;
        if (!strcmp(line, "/reset"))
            status = reset(c);
        else if (!strcmp(line, "/help"))
            fputs("/reset  forget the conversation\n/quit   leave (so does Ctrl-D)\nCtrl-C  stop the answer; once "
                  "more: leave\n",
                  stderr);
        else if (n)
            status = ask(c, line, n);
        if (status == HT_CHAT_TOO_LONG)
            status = HT_EXIT_OK;
        if (ht_interrupted()) {
            if (!person) {
                status = status ? status : HT_EXIT_INTERRUPTED;
                break;
            }
            ht_interrupt_forget();
            hearth_session_uncancel(c->s);
        }
    }
    reader_close(&r);
    return status;
}

static int run(const ht_options *o)
{
    ht_load_how how = { .precision = HEARTH_PRECISION_FAST };
    chat c = { .o = o, .stops = o->stops };
    char *text = NULL;
    size_t n_text = 0;
    bool given;

    int status = ht_load_prompt(o, &text, &n_text, &given);
    if (status)
        return status;
    ht_interrupt_arm(true);
    if ((status = ht_load_model(&c.l, NULL, o, &how)) || (status = ht_load_session(&c.s, &c.l, o, 0)) ||
        (status = ht_load_sampler(&c.sampler, &c.l, o, &c.seed)))
        goto done;
    if (!c.l.info.has_chat_template) {
        ht_say("this file has no chat template: the conversation is written as User: and Assistant:");
        if (c.stops.n < HT_MAX_TEXTS)
            c.stops.v[c.stops.n++] = "\nUser:";
    }
    if (o->system)
        status = add_message(&c, "system", o->system, strlen(o->system));
    if (!status && given) {
        status = ask(&c, text, n_text);
        if (status == HT_CHAT_TOO_LONG)
            status = HT_EXIT_FAILED;
        if (!status && c.g.why == HEARTH_STOP_CANCEL)
            status = HT_EXIT_INTERRUPTED;
    } else if (!status) {
        status = converse(&c);
    }
done:
    if (c.n_messages)
        drop_messages(&c, 0, c.n_messages);
    free(c.messages);
    free(c.held);
    ht_generation_free(&c.g);
    hearth_sampler_close(&c.sampler);
    hearth_session_close(&c.s);
    ht_load_close(&c.l);
    free(text);
    return status;
}

const ht_command ht_command_chat = {
    .name = "chat",
    .arguments = "[MODEL] [-p TEXT]",
    .summary = "talk with a model through its own chat template",
    .text = "Reads questions line by line, from a terminal with line editing. /help tells what else can be typed. Only "
            "the replies "
            "go to stdout. A file without a template gets the form User: and Assistant:, which is said once. "
            "Old messages are dropped when the context would not leave room for an answer.",
    .max_positional = 1,
    .takes_stdin = true,
    .tables = { own_flags, ht_flags_sampling, ht_flags_model, ht_flags_talk },
    .run = run,
};
