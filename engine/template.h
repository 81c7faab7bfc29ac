/* SPDX-License-Identifier: MIT
 *
 * Which template a conversation goes through, and what an answer's tool calls look like; the functions of hearth.h stand in
 * template.c. No state; any thread. */
#ifndef HT_TEMPLATE_H
#define HT_TEMPLATE_H

#include <stdbool.h>
#include <stddef.h>

#include "engine/base/status.h"

/* "User: …\nAssistant: …", for files without a template. */
extern const char ht_template_plain[];

/* The format in which a model with this template writes tool calls (toolcall.c has the list); "none" where it has none that
 * is known. */
const char *ht_tool_family(const char *chat_template, size_t n);

/* See hearth_tool_calls. */
ht_status ht_tool_calls(const char *family, const char *text, size_t n, char **json, size_t *n_json, ht_error *err);

#endif
