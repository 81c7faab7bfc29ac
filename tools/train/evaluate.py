# SPDX-License-Identifier: MIT
"""Held-out figures of a checkpoint or of an exported GGUF (dequantised to float32): bits per byte, density per layer
and how uneven the neurons are.

    python evaluate.py --run RUN [--weights average|last] [--gguf ../../models/hearth-story.gguf] [--context 512]
"""
import argparse
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from model import Config, Model


def load_checkpoint(path, weights="average"):
    c = torch.load(path, weights_only=False)
    model = Model(Config(**c["config"]))
    model.load_state_dict(c["model"])
    if weights == "average":
        with torch.no_grad():
            for p, value in zip(model.parameters(), c["average"]):
                p.copy_(value)
    return model.eval(), c


@torch.no_grad()
def bits_per_byte(model, ids, n_bytes, context, autocast=False):
    """Every token of `ids` is predicted once, in rows of `context` that do not overlap: the first tokens of a row
    have little to go by, so a longer context also scores better by having fewer of them.

    -> bpb, loss (nats per token), and per layer: active [neurons] counts over n tokens; nats per position in the row.
    Of a mixture also `load` [layer, expert]: how many tokens chose it, and `kept`: the share of an expert choice that
    the token before made too.
    """
    ids = torch.from_numpy(ids.astype(np.int64))
    n = (len(ids) - 1) // context * context
    x, y = ids[:n].view(-1, context), ids[1:n + 1].view(-1, context)
    tail = (ids[n:-1][None], ids[n + 1:][None]) if n < len(ids) - 1 else None
    nats, active, positions = 0.0, 0, torch.zeros(context)
    load, kept, pairs = torch.zeros(model.c.n_layers, model.c.n_experts), torch.zeros(model.c.n_layers), 0
    batches = [*zip(x.split(8), y.split(8))] + ([tail] if tail else [])
    for bx, by in batches:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logits, acts, routings = model(bx)
        ce = F.cross_entropy(logits.flatten(0, 1), by.flatten(), reduction="none").view(by.shape)
        nats += ce.sum().item()
        positions[:ce.shape[1]] += ce.sum(0)
        if not model.c.n_experts:
            active = active + torch.stack([(a > 0).sum((0, 1)) for a in acts])
            continue
        counts = torch.zeros(model.c.n_layers, model.c.n_experts, model.c.d_ff, dtype=torch.int64)
        for i, (a, r) in enumerate(zip(acts, routings)):
            counts[i].index_add_(0, r.chosen.flatten(), (a > 0).flatten(0, 1).long())
            load[i] += torch.bincount(r.chosen.flatten(), minlength=model.c.n_experts)
            chosen = F.one_hot(r.chosen, model.c.n_experts).sum(1).view(*bx.shape, -1)
            kept[i] += (chosen[:, 1:] * chosen[:, :-1]).sum() / model.c.n_experts_used
        pairs += bx.shape[0] * (bx.shape[1] - 1)
        active = active + counts.flatten(1)
    tokens = len(ids) - 1
    return dict(load=load, kept=kept / max(1, pairs), bpb=nats / math.log(2) / n_bytes, loss=nats / tokens, active=active, tokens=tokens,
                positions=positions / max(1, len(x)))


def skew(active):
    """Share of neurons that makes 80 % of all activations, most active first. Even use would give 0.80."""
    counts = active.flatten().sort(descending=True).values.double().cumsum(0)
    return (int((counts < 0.8 * counts[-1]).sum()) + 1) / len(counts)


def half_covers(counts):
    """Share of all counts that the busier half makes. Even use would give 0.50."""
    counts = counts.flatten().double().sort(descending=True).values
    return (counts[:len(counts) // 2].sum() / counts.sum()).item()


def report(name, r, c):
    """Density is the share of relu(gate) above zero among the neurons computed: of a mixture, the chosen experts'."""
    share = c.n_experts_used / c.n_experts if c.n_experts else 1.0
    density = r["active"].double().mean(1) / r["tokens"] / share
    print(f"{name}: {r['bpb']:.4f} bits per byte, {r['loss']:.4f} nats per token over {r['tokens']} tokens")
    print(f"  density per layer {' '.join(f'{d:.2%}' for d in density)}, mean {density.mean():.2%}")
    print(f"  share of neurons that makes 80 % of activations: per layer "
          f"{' '.join(f'{skew(a):.1%}' for a in r['active'])}, whole model {skew(r['active']):.1%}")
    print(f"  the busier half of the neurons makes: per layer "
          f"{' '.join(f'{half_covers(a):.1%}' for a in r['active'])}, whole model {half_covers(r['active']):.1%}")
    print(f"  neurons never active: {(r['active'] == 0).double().mean():.2%}", flush=True)
    if c.n_experts:
        share = r["load"] / r["load"].sum(1, keepdim=True)
        print(f"  of all neurons of a layer, chosen or not, {density.mean() * c.n_experts_used / c.n_experts:.2%} active")
        print(f"  load of an expert, 1 is even: least {' '.join(f'{s.min() * c.n_experts:.2f}' for s in share)}, most "
              f"{' '.join(f'{s.max() * c.n_experts:.2f}' for s in share)}; the busier half of the experts gets "
              f"{' '.join(f'{half_covers(s):.1%}' for s in share)}")
        print(f"  experts that the token before chose too: {' '.join(f'{k:.1%}' for k in r['kept'])}, by chance "
              f"{c.n_experts_used / c.n_experts:.1%}", flush=True)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--run", required=True, type=Path)
    ap.add_argument("--weights", default="average", choices=["average", "last"])
    ap.add_argument("--gguf", type=Path, help="evaluate this file instead of the checkpoint")
    ap.add_argument("--context", default=512, type=int)
    ap.add_argument("--positions", action="store_true", help="loss by position, to see whether a context holds")
    a = ap.parse_args()
    torch.set_num_threads(2)
    if a.gguf:
        from export import load_gguf
        model = load_gguf(a.gguf)
    else:
        model, c = load_checkpoint(a.run / "checkpoint.pt", a.weights)
        print(f"checkpoint: step {c['step']}, {c['seen']} tokens, {c['trained_s']:.0f} s, {a.weights} weights")
    tokens = np.load(a.run / "tokens.npz")
    r = bits_per_byte(model, tokens["held_out"], int(tokens["held_out_bytes"]), a.context)
    report("held-out children's text", r, model.c)
    if a.positions:
        step = max(1, a.context // 8)
        print("  nats by position:", ", ".join(f"{i}+ {r['positions'][i:i + step].mean():.3f}"
                                              for i in range(0, a.context, step)))
    report("tinystories_dev (another style, never trained on)",
           bits_per_byte(model, tokens["tiny"], int(tokens["tiny_bytes"]), a.context), model.c)


if __name__ == "__main__":
    main()
