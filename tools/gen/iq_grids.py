#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes engine/base/unpack_grids.c: the lattice points ("grids") of the IQ number formats as C tables.

The grids are part of the file format. They are read from the Python package `gguf` (MIT licence, class attributes of
gguf/quants.py), which holds them packed. Use:

    pip install gguf==0.19.0 numpy
    python3 tools/gen/iq_grids.py > engine/base/unpack_grids.c
"""
import sys
from importlib.metadata import version

import numpy as np
from gguf import quants

HEAD = """/* SPDX-License-Identifier: MIT
 *
 * The grids of the IQ number formats: entry i holds the magnitudes of 8 (or 4) neighbouring weights, one per byte, the
 * first in the lowest byte. Facts of the file format; generated, do not edit:
 *
 *     python3 tools/gen/iq_grids.py > engine/base/unpack_grids.c      (package gguf {version}, MIT licence)
 *
 * ht_grid_iq1 holds signed bytes, the grid's -1, 0, 1 times 8 (see unpack_iq.c).
 *
 * Owner: constants. Threads: any. */
#include "engine/base/unpack_impl.h"
"""


def table(cls, factor=1):
    cls.init_grid()
    grid = (cls.grid.reshape(cls.grid_shape) * factor).astype(np.int8).view(np.uint8)
    return grid.view("<u%d" % cls.grid_shape[1]).reshape(-1)


def emit(out, name, words, bits):
    per_line = 5 if bits == 64 else 9
    out.write("\nconst uint%d_t %s[%d] = {\n" % (bits, name, len(words)))
    for i in range(0, len(words), per_line):
        out.write("    " + " ".join("0x%0*x," % (bits // 4, int(w)) for w in words[i:i + per_line]) + "\n")
    out.write("};\n")


def main():
    out = sys.stdout
    out.write(HEAD.replace("{version}", version("gguf")))
    emit(out, "ht_grid_iq2_xxs", table(quants.IQ2_XXS), 64)
    emit(out, "ht_grid_iq2_xs", table(quants.IQ2_XS), 64)
    emit(out, "ht_grid_iq2_s", table(quants.IQ2_S), 64)
    emit(out, "ht_grid_iq1", table(quants.IQ1_S, 8), 64)
    emit(out, "ht_grid_iq3_xxs", table(quants.IQ3_XXS), 32)
    emit(out, "ht_grid_iq3_s", table(quants.IQ3_S), 32)


if __name__ == "__main__":
    main()
