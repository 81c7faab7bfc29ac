#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Packs golden models into this folder, small enough to live with the tests. Per name:

    NAME.gguf            the model; matrices that are float32 in the source become float16 where that loses nothing (the
                         golden weights are exact in both), but for `llama`, which keeps its float32
    NAME-tokens-S.npy    the sequences, whole
    NAME-logits-S.npy    the reference's logits of positions 7, 15, 23, ... only
    quant-*              the Q2_K model of quant-llama as it is, its sequence, its logits at those positions

Use: python3 make.py GOLDEN OUT NAME...      (pip install gguf numpy)
"""
import shutil
import sys
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter


def value(field):
    if field.types[0] == GGUFValueType.ARRAY:
        if field.types[-1] == GGUFValueType.STRING:
            return [bytes(field.parts[i]) for i in field.data]
        return [field.parts[i].item() for i in field.data]
    part = field.parts[field.data[0]]
    return bytes(part) if field.types[0] == GGUFValueType.STRING else part.item()


def pack(source, out, shrink):
    r = GGUFReader(source)
    arch = str(bytes(r.fields["general.architecture"].parts[-1]), "utf-8")
    w = GGUFWriter(out, arch)
    for key, field in r.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        sub = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
        w.add_key_value(key, value(field), field.types[0], sub)
    for t in r.tensors:
        data = np.array(t.data)
        matrix = len(t.shape) > 1 and not any(s in t.name for s in ("ffn_gate_inp", "ssm_conv1d", "_norm"))
        if shrink and matrix and t.tensor_type == GGMLQuantizationType.F32:
            half = data.astype(np.float16)
            if np.array_equal(half.astype(np.float32), data):
                w.add_tensor(t.name, half)
                continue
        w.add_tensor(t.name, data, raw_dtype=t.tensor_type)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def main():
    golden, out = Path(sys.argv[1]), Path(sys.argv[2])
    for name in sys.argv[3:]:
        source = golden / name / "model.gguf"
        small = golden / name / "model-tq2_0.gguf"
        pack(small if small.exists() else source, out / (name + ".gguf"), name != "llama")
        for s in (0, 1):
            np.save(out / f"{name}-tokens-{s}.npy", np.load(golden / name / f"tokens-{s}.npy"))
            np.save(out / f"{name}-logits-{s}.npy", np.load(golden / name / f"logits-{s}.npy")[7::8])
    quant = golden / "quant-llama"
    shutil.copyfile(quant / "Q2_K.gguf", out / "quant-Q2_K.gguf")
    np.save(out / "quant-tokens-0.npy", np.load(quant / "tokens-0.npy"))
    np.save(out / "quant-Q2_K-logits-0.npy", np.load(quant / "Q2_K-logits-0.npy")[7::8])


if __name__ == "__main__":
    main()
