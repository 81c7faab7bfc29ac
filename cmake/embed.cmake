# SPDX-License-Identifier: MIT
# cmake -DIN=file -DOUT=file.c -DNAME=symbol -P embed.cmake: C code for a file's bytes, NAME, and their number, NAME_bytes.
# The hash tells compiler caches that the bytes are others.
file(SIZE ${IN} size)
file(SHA256 ${IN} hash)
file(WRITE ${OUT} "#include <stddef.h>
extern const char ${NAME}_hash[];
extern const size_t ${NAME}_bytes;
const char ${NAME}_hash[] = \"${hash}\";
const size_t ${NAME}_bytes = ${size};
__asm__(\".section .rodata\\n.balign 64\\n.globl ${NAME}\\n.hidden ${NAME}\\n${NAME}:\\n.incbin \\\"${IN}\\\"\\n.byte 0\\n.previous\\n\");
")
