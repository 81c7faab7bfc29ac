# SPDX-License-Identifier: MIT
"""Cuts the vocabularies out of the golden models: tests/data/tokenizer/*.gguf and the cases that belong to them.

    tools/gen/tokenizer_vocabs.py ../shared/golden tests/data/tokenizer

Plain Python, no packages. The golden models were made for this project (see their MANIFEST.md)."""
import json
import struct
import sys
from pathlib import Path

SIZE = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


def skip(b, at, kind):
    """Byte behind a value of that kind."""
    if kind == 8:
        return at + 8 + struct.unpack_from("<Q", b, at)[0]
    if kind == 9:
        elem, n = struct.unpack_from("<IQ", b, at)
        at += 12
        if elem in SIZE:
            return at + n * SIZE[elem]
        for _ in range(n):
            at = skip(b, at, elem)
        return at
    return at + SIZE[kind]


def vocabulary(path):
    b = path.read_bytes()
    version, _, n_kv = struct.unpack_from("<IQQ", b, 4)
    at, kept = 24, []
    for _ in range(n_kv):
        start = at
        n = struct.unpack_from("<Q", b, at)[0]
        key = b[at + 8:at + 8 + n].decode()
        at += 8 + n
        at = skip(b, at + 4, struct.unpack_from("<I", b, at)[0])
        if key in ("general.architecture", "general.name") or (
                key.startswith("tokenizer.") and key != "tokenizer.chat_template"):
            kept.append(b[start:at])
    return b"GGUF" + struct.pack("<IQQ", version, 0, len(kept)) + b"".join(kept)


def main():
    golden, out = Path(sys.argv[1]), Path(sys.argv[2])
    for cases in sorted((golden / "tokenizer").glob("*.json")):
        data = json.loads(cases.read_text())
        (out / f"{cases.stem}.gguf").write_bytes(vocabulary(golden / data["gguf"]))
        packed = {"gguf": f"{cases.stem}.gguf", "note": data["note"],
                  "cases": [{"text": c["text"], "ids": c["ids"]} for c in data["cases"]]}
        (out / f"{cases.stem}.json").write_text(json.dumps(packed, separators=(",", ":")) + "\n")
    (out / "gemma4.gguf").write_bytes(vocabulary(golden / "gemma4" / "model.gguf"))


main()
