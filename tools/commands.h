/* SPDX-License-Identifier: MIT
 * The commands, one file each; main.c lists them, and synth.h's. */
#ifndef HT_TOOLS_COMMANDS_H
#define HT_TOOLS_COMMANDS_H

#include "tools/options.h"

extern const ht_command ht_command_run, ht_command_chat, ht_command_bench, ht_command_perplexity, ht_command_logits,
    ht_command_tokenize, ht_command_detokenize, ht_command_inspect, ht_command_hardware,
    ht_command_profile, ht_command_quantize, ht_command_cache_sim,
    ht_command_plan, ht_command_template;

#endif
