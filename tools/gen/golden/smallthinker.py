# SPDX-License-Identifier: MIT
"""SmallThinker (arXiv:2507.20984) in plain torch: transformers has no such model. The router reads the layer's input
before its norm; experts are ReLU-gated; where there is a window, layers 0, 4, 8 ... see everything, unrotated."""

import types

import torch
import torch.nn.functional as F


def config(**kw):
    c = dict(
        vocab_size=96,
        hidden_size=64,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=24,
        moe_ffn_hidden_size=40,
        moe_num_primary_experts=7,
        moe_num_active_primary_experts=3,
        softmax=True,
        window=24,
        rope_theta=1.5e6,
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        max_position_embeddings=512,
    )
    c.update(kw)
    return types.SimpleNamespace(**c)


def parameters(c):
    """Names (GGUF's, rows not permuted) and shapes."""
    d, e, ff = c.hidden_size, c.moe_num_primary_experts, c.moe_ffn_hidden_size
    q, kv = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
    out = {"token_embd.weight": (c.vocab_size, d), "output_norm.weight": (d,)}
    if not c.tie_word_embeddings:
        out["output.weight"] = (c.vocab_size, d)
    for i in range(c.num_hidden_layers):
        for n, s in dict(
            attn_norm=(d,),
            ffn_norm=(d,),
            attn_q=(q, d),
            attn_k=(kv, d),
            attn_v=(kv, d),
            attn_output=(d, q),
            ffn_gate_inp=(e, d),
            ffn_gate_exps=(e, ff, d),
            ffn_up_exps=(e, ff, d),
            ffn_down_exps=(e, d, ff),
        ).items():
            out[f"blk.{i}.{n}.weight"] = s
    return out


def norm(x, w, eps):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * w


def rotate(x, c):
    half = c.head_dim // 2
    freq = 1.0 / (c.rope_theta ** (torch.arange(half, dtype=torch.float32) / half))
    a = torch.arange(x.shape[1], dtype=torch.float32)[:, None] * freq
    lo, hi = x[..., :half], x[..., half:]
    return torch.cat([lo * a.cos() - hi * a.sin(), hi * a.cos() + lo * a.sin()], -1)


def logits(c, w, ids):
    x = w["token_embd.weight"][ids]
    n, nh, nkv, hd = len(ids), c.num_attention_heads, c.num_key_value_heads, c.head_dim
    age = torch.arange(n)[:, None] - torch.arange(n)[None]
    for i in range(c.num_hidden_layers):
        p = {n[len(f"blk.{i}.") : -len(".weight")]: a for n, a in w.items() if n.startswith(f"blk.{i}.")}
        scores, chosen = torch.topk(x @ p["ffn_gate_inp"].T, c.moe_num_active_primary_experts)
        weight = scores.softmax(-1) if c.softmax else scores.sigmoid() / scores.sigmoid().sum(-1, keepdim=True)
        everything = bool(c.window) and i % 4 == 0

        h = norm(x, p["attn_norm"], c.rms_norm_eps)
        q, k, v = ((h @ p[s].T).view(n, -1, hd).transpose(0, 1) for s in ("attn_q", "attn_k", "attn_v"))
        if not everything:
            q, k = rotate(q, c), rotate(k, c)
        k, v = (t.repeat_interleave(nh // nkv, 0) for t in (k, v))
        a = q @ k.transpose(1, 2) / hd**0.5
        hidden = (age < 0) | ((age >= c.window) if c.window and not everything else False)
        a = a.masked_fill(hidden, float("-inf")).softmax(-1) @ v
        x = x + a.transpose(0, 1).reshape(n, nh * hd) @ p["attn_output"].T

        h = norm(x, p["ffn_norm"], c.rms_norm_eps)
        y = torch.zeros_like(x)
        for t in range(n):
            for e, g in zip(chosen[t], weight[t]):
                z = F.relu(p["ffn_gate_exps"][e] @ h[t]) * (p["ffn_up_exps"][e] @ h[t])
                y[t] += g * (p["ffn_down_exps"][e] @ z)
        x = x + y
    x = norm(x, w["output_norm.weight"], c.rms_norm_eps)
    return x @ w["token_embd.weight" if c.tie_word_embeddings else "output.weight"].T


def keys(c):
    m = {
        "block_count": c.num_hidden_layers,
        "context_length": c.max_position_embeddings,
        "embedding_length": c.hidden_size,
        "attention.head_count": c.num_attention_heads,
        "attention.head_count_kv": c.num_key_value_heads,
        "rope.freq_base": c.rope_theta,
        "attention.layer_norm_rms_epsilon": c.rms_norm_eps,
        "attention.key_length": c.head_dim,
        "attention.value_length": c.head_dim,
        "expert_count": c.moe_num_primary_experts,
        "expert_used_count": c.moe_num_active_primary_experts,
        "expert_feed_forward_length": c.moe_ffn_hidden_size,
        "feed_forward_length": c.moe_ffn_hidden_size,
        "expert_gating_func": 1 if c.softmax else 2,
    }
    if c.window:
        m["attention.sliding_window"] = c.window
    return m
