#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Packs golden/quant (one file per number format) into quant.gguf, small enough to live with the tests:

    tensors TYPE        the quantised rows (8 x 512), byte for byte
    tensor source       the float32 rows before quantisation
    rows.TYPE u64[8]    FNV-1a hash (64 bits) over the bytes of each row of the reference's float32 values

Use: python3 make.py GOLDEN/quant quant.gguf      (pip install gguf numpy)
"""
import sys
from pathlib import Path

import numpy as np
from gguf import GGUFReader, GGUFValueType, GGUFWriter


def fnv(data):
    h = 0xCBF29CE484222325
    for b in data:
        h = (h ^ b) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return h


def main():
    source, out = Path(sys.argv[1]), sys.argv[2]
    w = GGUFWriter(out, "none")
    rows = np.load(source / "source-f32.npy")
    w.add_tensor("source", rows)
    for path in sorted(source.glob("*.gguf")):
        t = GGUFReader(path).tensors[0]
        name = path.stem
        if name == "NVFP4":  # not computed with
            continue
        values = np.load(path.with_suffix(".npy")).astype("<f4")
        w.add_key_value("rows." + name, [fnv(r.tobytes()) for r in values], GGUFValueType.ARRAY, GGUFValueType.UINT64)
        w.add_tensor(name, np.array(t.data), raw_dtype=t.tensor_type)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


if __name__ == "__main__":
    main()
