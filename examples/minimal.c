/* SPDX-License-Identifier: MIT
 * The smallest useful program: completes a prompt with a model.   cc minimal.c $(pkg-config --cflags --libs hearth) */
#include <hearth.h>
#include <stdio.h>
#include <string.h>

static bool show(void *user, hearth_token token, const char *text, size_t n)
{
    (void)user;
    (void)token;
    fwrite(text, 1, n, stdout);
    fflush(stdout);
    return true;
}

int main(int argc, char **argv)
{
    hearth_model *model = NULL;
    hearth_session *session = NULL;
    hearth_sampler *sampler = NULL;
    hearth_token *ids = NULL;
    hearth_error err = { 0 };
    size_t n = 0;

    if (argc != 3)
        return fprintf(stderr, "usage: minimal MODEL.gguf PROMPT\n"), 2;
    hearth_model_info info = { .size = sizeof info };
    hearth_sampler_params sampling = HEARTH_SAMPLER_PARAMS_INIT;
    hearth_generate_params generation = HEARTH_GENERATE_PARAMS_INIT;
    sampling.temperature = 0.8f;
    sampling.top_p = 0.95f;
    generation.max_tokens = 100;
    generation.on_token = show;

    hearth_status st = hearth_model_open(&model, argv[1], NULL, &err);
    if (st == HEARTH_OK)
        st = hearth_session_open(&session, model, NULL, &err);
    if (st == HEARTH_OK)
        st = hearth_model_get_info(model, &info);
    if (st == HEARTH_OK)
        st = hearth_sampler_open(&sampler, &sampling, info.n_vocab, &err);
    if (st == HEARTH_OK)
        st = hearth_tokenize(model, argv[2], strlen(argv[2]), true, false, &ids, &n, &err);
    if (st == HEARTH_OK)
        st = hearth_generate(session, sampler, ids, n, &generation, NULL, &err);
    puts(st == HEARTH_OK ? "" : err.text);
    hearth_free(ids);
    hearth_sampler_close(&sampler);
    hearth_session_close(&session);
    hearth_model_close(&model);
    return st != HEARTH_OK;
}
