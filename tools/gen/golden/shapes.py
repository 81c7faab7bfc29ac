# SPDX-License-Identifier: MIT
"""Tiny models of many shapes with their reference logits (transformers, float32, eager attention), as the golden models
in ../shared/golden were made. Development only: needs torch, transformers >= 5 and gguf.

    python shapes.py OUT            writes OUT/NAME/{model-TYPE.gguf,tokens-N.npy,logits-N.npy} for every shape
    python shapes.py OUT NAME...    only these
    python shapes.py --pack OUT     the small ones of tests/data/shapes: OUT/NAME.gguf and OUT/NAME-LENGTH.npy

In a packed file of logits are positions 0, n/2, n-2 and n-1 of the sequence that tokens() gives. Weights are exact in
bfloat16 and half, so that F32, F16 and BF16 files share one reference; lm_head, where there is one, is scaled so that
logits have a standard deviation of about 2."""

import os
import sys

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import convert
import smallthinker
from shapes_list import PACKED, SHAPES

BASE = dict(
    vocab_size=101,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=512,
    pad_token_id=None,
    bos_token_id=1,
    eos_token_id=2,
    tie_word_embeddings=False,
)


def tokens(n, vocab):
    """A fixed sequence that tests/engine/test_shapes.c can make as well."""
    i = np.arange(n, dtype=np.int64)
    return ((i * i * 7 + i * 13 + 5) % 65521 % vocab).astype(np.int32)


def exact(w):
    """Nearest bfloat16 that is a normal half too."""
    w = w.to(torch.bfloat16).float()
    return torch.where(w.abs() < 2.0**-14, torch.zeros_like(w), w)


def fill(name, w, arch, gen):
    """Random weights for a tensor, of a size that keeps every part of the model audible in the logits."""
    r = torch.randn(w.shape, generator=gen)
    if name.endswith("A_log"):
        return exact(r * 0.7)
    if "norm" in name and name.endswith("weight"):
        shift = 0.0 if arch in convert.PLUS_ONE and "linear_attn.norm" not in name else 1.0
        return torch.round((shift + 0.25 * r) * 64) / 64  # exact after the converter's + 1 as well
    if w.dim() == 1 or "bias" in name:
        return exact(r * 0.3)
    if "embed_tokens" in name or "token_embd" in name:
        return exact(r * 0.8)
    if "conv1d" in name:
        return exact(r * 0.5)
    fan_in = w.shape[1] if arch == "gpt-oss" and "experts" in name else w.shape[-1]
    return exact(r * (1.6 if any(s in name for s in ("q_proj", "k_proj", "qkv")) else 1.1) / fan_in**0.5)


def mxfp4_exact(w):
    """gpt-oss experts [e, in, out] rounded to what MXFP4 blocks along `in` can hold."""
    a = np.ascontiguousarray(w.numpy().swapaxes(1, 2))
    a = convert.quants.dequantize(convert.quants.quantize(a, convert.T.MXFP4), convert.T.MXFP4)
    return torch.from_numpy(np.ascontiguousarray(a.swapaxes(1, 2)))


def reference(hf, arch, spec, mxfp4, gen, first_ids):
    """(function from ids to logits, GGUF keys, GGUF tensors) of a model with random weights."""
    if hf == "smallthinker":
        c = smallthinker.config(**spec)
        w = {n: fill(n, torch.empty(s), arch, gen) for n, s in smallthinker.parameters(c).items()}
        return lambda ids: smallthinker.logits(c, w, ids), smallthinker.keys(c), {n: a.numpy() for n, a in w.items()}
    c = AutoConfig.for_model(hf, **{**BASE, **spec})
    model = AutoModelForCausalLM.from_config(c, attn_implementation="eager").float().eval()
    state = {n: fill(n, w, arch, gen) for n, w in model.state_dict().items()}
    for n in state:
        if mxfp4 and n.endswith(("gate_up_proj", "down_proj")):
            state[n] = mxfp4_exact(state[n])
    if c.tie_word_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state)
    if not c.tie_word_embeddings:
        state["lm_head.weight"] *= 2.0 ** round(np.log2(2.0 / model(first_ids[None]).logits.std().item()))
        model.load_state_dict(state)
    tensors = convert.gguf_tensors(arch, c, {n: w.numpy() for n, w in state.items()})
    return lambda ids: model(ids[None]).logits[0], convert.metadata(arch, c), tensors


def make(out, name, spec, pack):
    spec = dict(spec)
    arch, hf, drop = spec.pop("arch"), spec.pop("hf"), spec.pop("drop", [])
    ftypes, lengths = spec.pop("ftypes", ["F16" if pack else "F32"]), spec.pop("lengths", [48, 64])
    gen = torch.Generator().manual_seed(sum(name.encode()) * 7919)
    vocab = spec.get("vocab_size", 96 if hf == "smallthinker" else BASE["vocab_size"])
    ids = [torch.from_numpy(tokens(n, vocab).astype(np.int64)) for n in lengths]
    with torch.no_grad():
        run, keys, tensors = reference(hf, arch, spec, "MXFP4" in ftypes, gen, ids[-1])
        logits = [run(i).numpy().astype(np.float32) for i in ids]
    keys = {k: v for k, v in keys.items() if k not in drop}
    if pack:
        path = f"{out}/{name}.gguf"
        convert.write(path, arch, keys, tensors, ftypes[0])
        for n, r in zip(lengths, logits):
            np.save(f"{out}/{name}-{n}.npy", r[[0, n // 2, max(n - 2, 0), n - 1]])
    else:
        os.makedirs(f"{out}/{name}", exist_ok=True)
        for t in ftypes:
            path = f"{out}/{name}/model-{t.lower()}.gguf"
            convert.write(path, arch, keys, tensors, t)
        for n, (i, r) in enumerate(zip(ids, logits)):
            np.save(f"{out}/{name}/tokens-{n}.npy", i.numpy().astype(np.int32))
            np.save(f"{out}/{name}/logits-{n}.npy", r)
    print(
        f"{name:24s} {arch:14s} {os.path.getsize(path):8d} bytes, std " + " ".join(f"{r.std():.2f}" for r in logits),
        flush=True,
    )


def main(args):
    torch.set_num_threads(1)
    pack = args[:1] == ["--pack"]
    args = args[1:] if pack else args
    if not args:
        sys.exit(__doc__)
    known = PACKED if pack else SHAPES
    os.makedirs(args[0], exist_ok=True)
    for name in args[1:] or known:
        make(args[0], name, known[name], pack)


if __name__ == "__main__":
    main(sys.argv[1:])
