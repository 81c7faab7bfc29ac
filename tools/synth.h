/* SPDX-License-Identifier: MIT
 *
 * `hearth synth`: writes a model with random weights of a known shape.
 * Threads: one caller; the command starts and joins its own workers. */
#ifndef HEARTH_TOOLS_SYNTH_H
#define HEARTH_TOOLS_SYNTH_H

extern const char hearth_synth_help[];

/* argv[0] is "synth". Returns the exit status: 0 done, 1 failed at run time, 2 wrong usage. */
int hearth_cmd_synth(int argc, char **argv);

#endif
