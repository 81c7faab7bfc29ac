# SPDX-License-Identifier: MIT
"""A llama transformer whose gated feed-forward uses ReLU: ffn(x) = down(relu(gate(x)) * up(x)).

Where relu gives zero the neuron's up row and down column are not needed: that is what hearth skips. Training keeps
the active share low (train.py). Rotation is over adjacent pairs, llama.cpp's NORM pairing, so that the exported rows
of wq and wk stay in the order trained.

With n_experts the feed-forward is a mixture (experts.py) and the model is SmallThinker's (arXiv:2507.20984) without a
window: the router reads the layer's input, before its norm and the attention, and rotation is over the two halves of a
head, llama.cpp's NEOX pairing.
"""
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import nn

from experts import Experts, route


@dataclass
class Config:
    vocab: int = 4096
    d_model: int = 256
    n_layers: int = 6
    n_heads: int = 4
    n_kv_heads: int = 2
    d_ff: int = 1024  # of one expert in a mixture
    rope_base: float = 10000.0
    norm_eps: float = 1e-5
    n_experts: int = 0  # 0: no mixture
    n_experts_used: int = 0
    activation: str = "relu"  # of a dense feed-forward; "silu": no zeros, for measuring what thresholds cost there

    @property
    def d_head(self):
        return self.d_model // self.n_heads

    @property
    def neurons(self):
        """Of one layer."""
        return self.d_ff * max(1, self.n_experts)

    as_dict = asdict


class RMSNorm(nn.Module):
    def __init__(self, d, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(d)), eps

    def forward(self, x):
        x32 = x.float()  # the mean square in bf16 would lose the digits that matter
        return (x32 * torch.rsqrt(x32.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight).to(x.dtype)


def rope_table(n, d_head, base):
    """cos, sin: [n, d_head / 2]."""
    freq = base ** (-torch.arange(0, d_head, 2, dtype=torch.float64) / d_head)
    angle = torch.arange(n, dtype=torch.float64)[:, None] * freq
    return angle.cos().float(), angle.sin().float()


def rotate(x, cos, sin, halves):
    """x: [batch, time, heads, d_head], pairs (2i, 2i + 1), or with `halves` (i, i + d_head / 2)."""
    cos, sin = cos[:, None], sin[:, None]
    if halves:
        lo, hi = x.chunk(2, -1)
        return torch.cat((lo * cos - hi * sin, lo * sin + hi * cos), -1).to(x.dtype)
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2).to(x.dtype)


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c, d_kv = c, c.n_kv_heads * c.d_head
        self.wq = nn.Linear(c.d_model, c.d_model, bias=False)
        self.wk = nn.Linear(c.d_model, d_kv, bias=False)
        self.wv = nn.Linear(c.d_model, d_kv, bias=False)
        self.wo = nn.Linear(c.d_model, c.d_model, bias=False)

    def forward(self, x, cos, sin):
        b, t, _ = x.shape
        c, group = self.c, self.c.n_heads // self.c.n_kv_heads
        halves = c.n_experts > 0
        q = rotate(self.wq(x).view(b, t, c.n_heads, c.d_head), cos, sin, halves)
        k = rotate(self.wk(x).view(b, t, c.n_kv_heads, c.d_head), cos, sin, halves)
        v = self.wv(x).view(b, t, c.n_kv_heads, c.d_head)
        k, v = (z.repeat_interleave(group, dim=2) for z in (k, v))
        y = F.scaled_dot_product_attention(*(z.transpose(1, 2) for z in (q, k, v)), is_causal=True)
        return self.wo(y.transpose(1, 2).reshape(b, t, c.d_model))


class FeedForward(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.activation = {"relu": F.relu, "silu": F.silu}[c.activation]
        self.gate = nn.Linear(c.d_model, c.d_ff, bias=False)
        self.up = nn.Linear(c.d_model, c.d_ff, bias=False)
        self.down = nn.Linear(c.d_ff, c.d_model, bias=False)

    def forward(self, x):
        """-> output, act(gate)."""
        act = self.activation(self.gate(x))
        return self.down(act * self.up(x)), act


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.attn_norm, self.attn = RMSNorm(c.d_model, c.norm_eps), Attention(c)
        self.ffn_norm, self.ffn = RMSNorm(c.d_model, c.norm_eps), Experts(c) if c.n_experts else FeedForward(c)
        self.router = nn.Linear(c.d_model, c.n_experts, bias=False) if c.n_experts else None
        self.used = c.n_experts_used

    def forward(self, x, cos, sin):
        """-> output, relu(gate), Routing or None."""
        if not self.router:
            x = x + self.attn(self.attn_norm(x), cos, sin)
            y, act = self.ffn(self.ffn_norm(x))
            return x + y, act, None
        routing = route(self.router(x.flatten(0, 1)), self.used)
        x = x + self.attn(self.attn_norm(x), cos, sin)
        y, act = self.ffn(self.ffn_norm(x).flatten(0, 1), routing)
        return x + y.view_as(x), act, routing


class Model(nn.Module):
    def __init__(self, c, max_context=2048):
        super().__init__()
        self.c = c
        self.embed = nn.Embedding(c.vocab, c.d_model)  # the output matrix too (tied)
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.n_layers))
        self.norm = RMSNorm(c.d_model, c.norm_eps)
        cos, sin = rope_table(max_context, c.d_head, c.rope_base)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        for p in self.parameters():
            if p.dim() >= 2:
                nn.init.normal_(p, std=0.5 * p.shape[-1] ** -0.5)
        nn.init.normal_(self.embed.weight, std=0.02)
        for b in self.blocks:  # every block begins as the identity
            nn.init.zeros_(b.attn.wo.weight)
            nn.init.zeros_(b.ffn.down if c.n_experts else b.ffn.down.weight)

    def hidden(self, ids):
        """-> last hidden state after the norm; relu(gate) of every layer, [batch, time, d_ff] or, of a mixture's
        chosen experts, [batch * time, used, d_ff]; Routing of every layer, None where there is no mixture."""
        t = ids.shape[1]
        x, acts, routings = self.embed(ids), [], []
        for b in self.blocks:
            x, act, routing = b(x, self.cos[:t], self.sin[:t])
            acts.append(act)
            routings.append(routing)
        return self.norm(x), acts, routings

    def forward(self, ids):
        """-> logits [batch, time, vocab] in float32; relu(gate) and routing of every layer, as in hidden()."""
        h, acts, routings = self.hidden(ids)
        return F.linear(h, self.embed.weight).float(), acts, routings

    def loss(self, ids, targets):
        """-> cross entropy; mean of relu(gate) and density, each per layer; Routing.balance per layer, or None."""
        logits, acts, routings = self(ids)
        ce = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        mean_act = torch.stack([a.float().mean() for a in acts])
        density = torch.stack([(a > 0).float().mean() for a in acts])
        return ce, mean_act, density, torch.stack([r.balance for r in routings]) if self.c.n_experts else None
