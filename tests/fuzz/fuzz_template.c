/* SPDX-License-Identifier: MIT
 *
 * libFuzzer target of chat templates. The first byte says what the rest is:
 *   even  a template, rendered over a small conversation
 *   odd   an answer, taken apart by the family that the second byte names
 *
 * Owner: nothing outlives a call. Threads: one. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "engine/hearth.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char *const families[] = { "hermes", "qwen3-coder", "seed", "minimax", "glm4.5", "chatglm4", "llama3", "pythonic",
                                            "lfm2", "mistral", "deepseek", "kimi", "harmony", "granite", "command-r", "nemotron",
                                            "yandex", "functionary" };
    static const char talk[] = "{\"messages\": [{\"role\": \"system\", \"content\": \"S\"}, {\"role\": \"user\", \"content\": \"\\u00fc x\"}, "
                               "{\"role\": \"assistant\", \"content\": null, \"tool_calls\": [{\"id\": \"123456789\", \"function\": {\"name\": "
                               "\"f\", \"arguments\": {\"a\": 1.5, \"b\": [true, {}]}}}]}], \"add_generation_prompt\": true, \"n\": 3}";
    hearth_error err = { 0 };
    char *text = NULL;
    size_t len = 0;
    hearth_status st;
    if (n < 2)
        return 0;
    if (data[0] & 1) {
        st = hearth_tool_calls(NULL, families[data[1] % (sizeof families / sizeof *families)], (const char *)data + 2, n - 2, &text,
                               &len, &err);
    } else {
        hearth_template_params p = HEARTH_TEMPLATE_PARAMS_INIT;
        p.text = (const char *)data + 1;
        p.n_text = n - 1;
        p.json = talk;
        p.n_json = sizeof talk - 1;
        p.max_steps = 200000;
        p.max_bytes = 16u << 20;
        p.now = 1;
        st = hearth_template_render(NULL, &p, &text, &len, &err);
    }
    if (st != HEARTH_OK ? !err.text[0] : !text || strlen(text) > len)
        abort();
    hearth_free(text);
    return 0;
}
