# SPDX-License-Identifier: MIT
"""Starts a mixture of experts from a dense model (sparse upcycling, arXiv:2212.05055, with MoEfication's split of the
neurons, arXiv:2110.01786): what the dense run learned is not paid for again.

    python upcycle.py --run RUN --gguf ../../models/hearth-story.gguf     # writes RUN/start.pt for train.py --start

Embedding, attention and norms are taken over. The neurons of a layer are clustered by which tokens they work on, one
cluster an expert; the rest of an expert's places goes to the layer's busiest neurons, copied into every expert, so
that what nearly every token needs is there whichever experts are chosen. The router begins as a linear fit, on the
layer's input, of how much each cluster has to do.
"""
import argparse
from pathlib import Path

import numpy as np
import torch

from evaluate import bits_per_byte
from export import load_gguf
from model import Config, Model


def halves(rows, n_heads):
    """Rows of wq or wk from pairs (2i, 2i + 1) to pairs (i, i + d_head / 2)."""
    d_head = rows.shape[0] // n_heads
    return rows.view(n_heads, d_head // 2, 2, -1).transpose(1, 2).reshape(rows.shape)


@torch.no_grad()
def trace(model, ids):
    """-> per layer: the input [tokens, d_model], and each neuron's share in the output, |down column| * |act * up|
    [tokens, d_ff]."""
    out, inputs = [], []
    hooks = [b.register_forward_hook(lambda b, args, y: inputs.append(args[0])) for b in model.blocks]
    products = [b.ffn.down.register_forward_hook(
        lambda down, args, y: out.append(args[0].flatten(0, 1).abs() * down.weight.norm(dim=0)))
        for b in model.blocks]
    model(ids)
    for h in hooks + products:
        h.remove()
    return [(x.flatten(0, 1), m) for x, m in zip(inputs, out)]


def balanced_clusters(vectors, n, rounds=20):
    """Spherical k-means into n clusters of equal size: those that lose most by not getting their cluster choose first."""
    size = len(vectors) // n
    v = torch.nn.functional.normalize(vectors, dim=1)
    centre = v[torch.randperm(len(v))[:n]]
    for _ in range(rounds):
        likeness = v @ centre.T
        best = likeness.topk(2, dim=1).values
        cluster, room = [0] * len(v), [size] * n
        for i in (best[:, 1] - best[:, 0]).argsort().tolist():
            cluster[i] = next(e for e in likeness[i].argsort(descending=True).tolist() if room[e])
            room[cluster[i]] -= 1
        cluster = torch.tensor(cluster)
        centre = torch.nn.functional.normalize(torch.stack([v[cluster == e].mean(0) for e in range(n)]), dim=1)
    return cluster


@torch.no_grad()
def split(dense, x, mass, c):
    """One layer's feed-forward -> gate, up, down of the experts, and the router."""
    cluster = balanced_clusters(mass.T, c.n_experts)
    busiest = mass.sum(0).argsort(descending=True)
    members = []
    for e in range(c.n_experts):
        own = (cluster == e).nonzero().flatten()
        members.append(torch.cat([own, busiest[cluster[busiest] != e][:c.d_ff - len(own)]]))
    # A neuron that sits in one expert alone gets that expert's weight, about 1 / used; one that sits in all gets 1.
    copies = torch.bincount(torch.cat(members), minlength=mass.shape[1]).float()
    scale = torch.where(copies == 1, float(c.n_experts_used), 1.0)
    down = dense.down.weight * scale
    experts = [torch.stack([w[m] for m in members]) for w in (dense.gate.weight, dense.up.weight)]
    experts.append(torch.stack([down[:, m] for m in members]))
    work = torch.stack([mass[:, (cluster == e) & (copies == 1)].sum(1) for e in range(c.n_experts)], 1)
    work = (work - work.mean(0)) / work.std(0)
    ridge = 1e-3 * x.pow(2).sum() / x.shape[1] * torch.eye(x.shape[1])
    router = torch.linalg.solve(x.T @ x + ridge, x.T @ work).T
    return experts, router / (x @ router.T).std()


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--run", required=True, type=Path)
    ap.add_argument("--gguf", required=True, type=Path, help="the dense model")
    ap.add_argument("--experts", default=16, type=int)
    ap.add_argument("--used", default=2, type=int)
    ap.add_argument("--d-ff", default=128, type=int, help="neurons of one expert")
    ap.add_argument("--rows", default=24, type=int, help="rows of 512 tokens to look at")
    a = ap.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(1)
    dense = load_gguf(a.gguf)
    tokens = np.load(a.run / "tokens.npz")
    c = Config(**dense.c.as_dict() | dict(d_ff=a.d_ff, n_experts=a.experts, n_experts_used=a.used))
    model = Model(c)
    starts = np.random.default_rng(1).integers(0, len(tokens["ids"]) - 512, a.rows)
    ids = torch.from_numpy(tokens["ids"][starts[:, None] + np.arange(512)].astype(np.int64))
    kept = {k: v for k, v in dense.state_dict().items() if ".ffn." not in k}
    for name in kept:
        if name.endswith((".wq.weight", ".wk.weight")):
            kept[name] = halves(kept[name], c.n_heads if ".wq." in name else c.n_kv_heads)
    missing, unexpected = model.load_state_dict(kept, strict=False)
    assert not unexpected and all(".ffn." in k or ".router." in k for k in missing)
    for i, (block, (x, mass)) in enumerate(zip(model.blocks, trace(dense, ids))):
        with torch.no_grad():
            experts, router = split(dense.blocks[i].ffn, x, mass, c)
            for p, value in zip((block.ffn.gate, block.ffn.up, block.ffn.down), experts):
                p.copy_(value)
            block.router.weight.copy_(router)
        own = mass.mean(0).sort(descending=True).values.cumsum(0)
        print(f"layer {i}: the busiest {a.d_ff - mass.shape[1] // a.experts} neurons do "
              f"{own[a.d_ff - mass.shape[1] // a.experts] / own[-1]:.0%} of the work", flush=True)
    torch.save(dict(model=model.state_dict(), config=c.as_dict()), a.run / "start.pt")
    for name, m in (("dense", dense), ("mixture", model)):
        r = bits_per_byte(m, tokens["held_out"][:20481], 1, 512)
        print(f"{name}: {r['loss']:.4f} nats per token over {r['tokens']} held-out tokens", flush=True)


if __name__ == "__main__":
    main()
