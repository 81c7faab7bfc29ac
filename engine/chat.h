/* SPDX-License-Identifier: MIT
 *
 * Prompts of conversations for the common families of chat templates. The family is recognised by marks in the
 * file's own template; the text is what that family's template makes of plain user, assistant and system messages. A
 * file without a template, or with one of no known family, gets "User: …\nAssistant: ". No state; any thread. */
#ifndef HT_CHAT_H
#define HT_CHAT_H

#include <stdbool.h>
#include <stddef.h>

#include "engine/base/status.h"
#include "engine/hearth.h"

/* "chatml", "llama3", …, "plain". chat_template may be NULL. */
const char *ht_chat_family_name(const char *chat_template);
/* *out: malloc'ed, terminated too. HT_EINVAL: an unknown role. */
ht_status ht_chat_format(const char *chat_template, const hearth_message *messages, size_t n,
                         bool add_generation_prompt, char **out, size_t *len, ht_error *err);

#endif
