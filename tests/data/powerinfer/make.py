#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Small PowerInfer models (docs/powerinfer.md) with random weights, and what plain numpy makes of them. Per name:

    NAME.gguf         the model, container "PWRI", with the vocabulary of golden/llama.gguf
    NAME-logits.npy   logits of IDS at positions 3, 7, 11, ...: its predictors choose the neurons
    NAME-dense.npy    the same with every neuron
    NAME-counts.npy   of the first, over all layers and positions: neurons, active, predicted, both

The reference computes in float64 from the weights as the file holds them. A seed is refused where a predictor's score
lies so near the threshold that float32 could fall on the other side.

Use: python3 make.py      (in this folder; pip install gguf numpy)
"""
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as Q
from gguf import GGUFReader, GGUFValueType, GGUFWriter
from gguf.quants import dequantize, quantize

HERE = Path(__file__).parent
VOCAB = 384
IDS = (np.arange(24) * 89 + 7) % VOCAB
MARGIN = 2e-4

MODELS = {
    # name: architecture, sizes, predictor ranks by layer, threshold (None: not in the file), weight type, seed
    "llama": dict(arch="llama", d=64, ff=160, heads=4, kv=2, ranks=[32, 64], threshold=0.25, type=Q.Q4_0, seed=1),
    "bamboo": dict(arch="bamboo", d=64, ff=150, heads=4, kv=1, ranks=[20, 7], threshold=None, type=Q.F16, seed=1),
    "falcon": dict(arch="falcon", d=64, ff=160, heads=4, kv=2, ranks=[32, 32], threshold=0.0, type=Q.Q8_0, seed=1),
    "opt": dict(arch="opt", d=64, ff=160, heads=4, kv=4, ranks=[33, 32], threshold=-0.5, type=Q.Q5_0, seed=1),
}


class Maker:
    def __init__(self, path, p, seed):
        self.p, self.w, self.rng = p, GGUFWriter(path, p["arch"]), np.random.default_rng(seed)
        self.t = {}

    def matrix(self, name, k, n, scale=1.0, type=None):
        a = (self.rng.standard_normal((n, k)) * scale / np.sqrt(k)).astype(np.float32)
        type = self.p["type"] if type is None else type
        if k % 32 and type not in (Q.F32, Q.F16):
            type = Q.F16
        data = a.astype(np.float16) if type == Q.F16 else a if type == Q.F32 else quantize(a, type)
        self.w.add_tensor(name, data, raw_dtype=type)
        self.t[name] = dequantize(data, type).astype(np.float64)

    def vector(self, name, n, mean, spread):
        a = (mean + spread * self.rng.standard_normal(n)).astype(np.float32)
        self.w.add_tensor(name, a)
        self.t[name] = a.astype(np.float64)

    def norm(self, name, bias):
        self.vector(name + ".weight", self.p["d"], 1.0, 0.1)
        if bias:
            self.vector(name + ".bias", self.p["d"], 0.0, 0.1)


def build(path, p, seed):
    m = Maker(path, p, seed)
    w, d, ff, arch = m.w, p["d"], p["ff"], p["arch"]
    layer_norm = arch in ("falcon", "opt")
    kv_width = d // p["heads"] * p["kv"]
    w.add_block_count(len(p["ranks"]))
    w.add_context_length(128)
    w.add_embedding_length(d)
    w.add_feed_forward_length(ff)
    w.add_head_count(p["heads"])
    w.add_head_count_kv(p["kv"])
    if layer_norm:
        w.add_layer_norm_eps(1e-5)
    else:
        w.add_layer_norm_rms_eps(1e-5)
        w.add_rope_dimension_count(d // p["heads"])
    if p["threshold"] is not None:
        w.add_float32("powerinfer.sparse_threshold", p["threshold"])
    r = GGUFReader(HERE.parent / "golden" / "llama.gguf")
    for key, f in r.fields.items():
        if key.startswith("tokenizer."):
            if f.types[0] == GGUFValueType.ARRAY:
                strings = f.types[-1] == GGUFValueType.STRING
                v = [bytes(f.parts[i]) if strings else f.parts[i].item() for i in f.data]
                w.add_key_value(key, v, f.types[0], f.types[-1])
            else:
                part = f.parts[f.data[0]]
                w.add_key_value(key, bytes(part) if f.types[0] == GGUFValueType.STRING else part.item(), f.types[0])
    m.matrix("token_embd.weight", d, VOCAB, np.sqrt(d), Q.Q8_0)
    if arch == "opt":
        m.matrix("position_embd.weight", d, 64 + 2, np.sqrt(d) / 2, Q.F16)
    else:
        m.matrix("output.weight", d, VOCAB, 1.0, Q.Q8_0)
    m.norm("output_norm", layer_norm)
    for i, rank in enumerate(p["ranks"]):
        b = f"blk.{i}."
        m.norm(b + "attn_norm", layer_norm)
        if arch == "falcon":
            m.norm(b + "attn_norm_2", True)
            m.matrix(b + "attn_qkv.weight", d, d + 2 * kv_width)
        else:
            m.norm(b + "ffn_norm", layer_norm)
            for n, width in ("q", d), ("k", kv_width), ("v", kv_width):
                m.matrix(b + f"attn_{n}.weight", d, width)
                if arch == "opt":
                    m.vector(b + f"attn_{n}.bias", width, 0.0, 0.2)
        m.matrix(b + "attn_output.weight", d, d)
        m.matrix(b + "ffn_up.weight", d, ff)
        if not layer_norm:
            m.matrix(b + "ffn_gate.weight", d, ff)
        m.matrix(b + "ffn_down_t.weight", d, ff)
        if arch == "opt":
            m.vector(b + "attn_output.bias", d, 0.0, 0.1)
            m.vector(b + "ffn_up.bias", ff, -0.3, 0.3)
            m.vector(b + "ffn_down_t.bias", d, 0.0, 0.1)
        m.matrix(b + "fc1.weight", d, rank)
        m.matrix(b + "fc2.weight", rank, ff, 2.0)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    with open(path, "r+b") as f:
        f.write(b"PWRI")
    return m.t


def norm(x, t, name, rms):
    if rms:
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(1e-5)) * t[name + ".weight"]
    y = x - x.mean(-1, keepdims=True)
    y = y / np.sqrt((y * y).mean(-1, keepdims=True) + np.float32(1e-5))
    return y * t[name + ".weight"] + t[name + ".bias"]


def rope(x, neox):  # [tokens, heads, dim]
    n, _, dim = x.shape
    angle = np.arange(n)[:, None, None] * 10000.0 ** (-np.arange(0, dim, 2) / dim)
    c, s = np.cos(angle), np.sin(angle)
    a, b = (x[..., : dim // 2], x[..., dim // 2 :]) if neox else (x[..., 0::2], x[..., 1::2])
    u, v = a * c - b * s, a * s + b * c
    return np.concatenate([u, v], -1) if neox else np.stack([u, v], -1).reshape(x.shape)


def attention(x, t, b, p):
    n, d, heads, kv = len(x), p["d"], p["heads"], p["kv"]
    dim = d // heads
    bias = lambda name: t.get(b + name + ".bias", 0.0)
    if p["arch"] == "falcon":
        qkv = x @ t[b + "attn_qkv.weight"].T
        q, k, v = np.split(qkv, [d, d + kv * dim], 1)
    else:
        q, k, v = (x @ t[b + f"attn_{c}.weight"].T + bias(f"attn_{c}") for c in "qkv")
    q, k, v = (a.reshape(n, -1, dim) for a in (q, k, v))
    if p["arch"] != "opt":
        q, k = (rope(a, p["arch"] == "falcon") for a in (q, k))
    k, v = (np.repeat(a, heads // kv, 1) for a in (k, v))
    s = np.einsum("ihc,jhc->hij", q, k) / np.sqrt(dim)
    s = np.where(np.tril(np.ones((n, n), bool)), s, -np.inf)
    s = np.exp(s - s.max(-1, keepdims=True))
    y = np.einsum("hij,jhc->ihc", s / s.sum(-1, keepdims=True), v).reshape(n, -1)
    return y @ t[b + "attn_output.weight"].T + bias("attn_output")


def feed_forward(x, before, t, b, p, predict, counts):
    up = x @ t[b + "ffn_up.weight"].T + t.get(b + "ffn_up.bias", 0.0)
    relu = lambda a: np.maximum(a, 0.0)
    if p["arch"] == "llama":
        h = relu(x @ t[b + "ffn_gate.weight"].T) * up
    elif p["arch"] == "bamboo":
        h = relu(x @ t[b + "ffn_gate.weight"].T) * relu(up)
    else:
        h = relu(up)
    if predict:
        score = relu(before @ t[b + "fc1.weight"].T) @ t[b + "fc2.weight"].T
        limit = p["threshold"] or 0.0
        if abs(score - limit).min() < MARGIN:
            raise ValueError("a score too near the threshold")
        keep = ~(score < limit)
        counts += [h.size, (h != 0).sum(), keep.sum(), (keep & (h != 0)).sum()]
        h = np.where(keep, h, 0.0)
    return h @ t[b + "ffn_down_t.weight"] + t.get(b + "ffn_down_t.bias", 0.0)


def logits(t, p, predict):
    rms = p["arch"] in ("llama", "bamboo")
    counts = np.zeros(4, np.int32)
    x = t["token_embd.weight"][IDS]
    if p["arch"] == "opt":
        x = x + t["position_embd.weight"][np.arange(len(IDS)) + 2]
    for i in range(len(p["ranks"])):
        b = f"blk.{i}."
        if p["arch"] == "falcon":
            a = attention(norm(x, t, b + "attn_norm_2", rms), t, b, p)
            x = x + a + feed_forward(norm(x, t, b + "attn_norm", rms), x, t, b, p, predict, counts)
        else:
            x = x + attention(norm(x, t, b + "attn_norm", rms), t, b, p)
            x = x + feed_forward(norm(x, t, b + "ffn_norm", rms), x, t, b, p, predict, counts)
    out = t.get("output.weight", t["token_embd.weight"])
    return (norm(x, t, "output_norm", rms) @ out.T).astype(np.float32), counts


def main():
    np.save(HERE / "tokens.npy", IDS.astype(np.int32))
    for name, p in MODELS.items():
        for seed in range(p["seed"], p["seed"] + 100):
            t = build(HERE / (name + ".gguf"), p, seed)
            try:
                sparse, counts = logits(t, p, True)
                break
            except ValueError:
                continue
        dense, _ = logits(t, p, False)
        np.save(HERE / f"{name}-logits.npy", sparse[3::4])
        np.save(HERE / f"{name}-dense.npy", dense[3::4])
        np.save(HERE / f"{name}-counts.npy", counts)
        apart = abs(sparse - dense).max() / dense.std()
        print(f"{name}: seed {seed}, neurons/active/predicted/both {counts}, predicted differs by {apart:.2f} std")


if __name__ == "__main__":
    main()
