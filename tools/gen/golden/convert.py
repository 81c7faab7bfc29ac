# SPDX-License-Identifier: MIT
"""Hugging Face state dict and config -> GGUF file, for the architectures hearth runs: the layout rules that llama.cpp's
converter follows (names, q/k row order, +1 norms, fused and stacked matrices), written from the facts that
../shared/golden/FACTS.md holds. Development only; see shapes.py."""

import math
import re

import numpy as np
from gguf import GGML_QUANT_SIZES, GGUFWriter, quants
from gguf import GGMLQuantizationType as T

# GGUF architecture, and what the converter does to its tensors.
PERMUTED = {"llama", "arcee", "smollm3", "granite", "granitemoe"}  # q and k rows interleaved for pairwise rotation
PLUS_ONE = {"gemma", "gemma2", "gemma3", "nemotron", "qwen3next", "qwen35", "qwen35moe"}  # norms stored as 1 + w
LAYER_NORM = {"nemotron", "starcoder2", "jais2"}
# post_attention_layernorm keeps its name
POST_NORM = {"gemma2", "gemma3", "olmo2", "exaone4", "seed_oss", "glm4moe", "qwen3next", "qwen35", "qwen35moe",
             "gpt-oss"}

NAMES = {
    "input_layernorm": "attn_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.qkv_proj": "attn_qkv",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "self_attn.attn_sub_norm": "attn_sub_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.ffn_sub_norm": "ffn_sub_norm",
    "mlp.gate": "ffn_gate_inp",
    "mlp.router": "ffn_gate_inp",
    "block_sparse_moe.router": "ffn_gate_inp",
    "mlp.shared_expert.gate_proj": "ffn_gate_shexp",
    "mlp.shared_expert.up_proj": "ffn_up_shexp",
    "mlp.shared_expert.down_proj": "ffn_down_shexp",
    "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
    "shared_mlp.output_linear": "ffn_down_shexp",
    "post_self_attn_layernorm": "post_attention_norm",
    "post_mlp_layernorm": "post_ffw_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
    "mlp.shared_experts.gate_proj": "ffn_gate_shexp",
    "mlp.shared_experts.up_proj": "ffn_up_shexp",
    "mlp.shared_experts.down_proj": "ffn_down_shexp",
    "linear_attn.norm": "ssm_norm",
    "linear_attn.out_proj": "ssm_out",
    "linear_attn.in_proj_ba": "ssm_ba",
    "linear_attn.in_proj_a": "ssm_alpha",
    "linear_attn.in_proj_b": "ssm_beta",
    "linear_attn.in_proj_qkv": "attn_qkv",
    "linear_attn.in_proj_z": "attn_gate",
}


def interleave(w, heads):
    """Rows of each head from [two halves][d/2] to [d/2][two halves]."""
    return w.reshape(heads, 2, -1, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def tiled(w, axis, n_k, n_v, dim):
    """Value heads from 'by key head' to 'key head runs fastest' along an axis of n_v * dim elements."""
    shape = w.shape
    w = w.reshape(*shape[:axis], n_k, n_v // n_k, dim, *shape[axis + 1 :])
    return w.swapaxes(axis, axis + 1).reshape(shape)


def split_qkvz(w, c):
    """qwen3next's in_proj_qkvz: per key head q, k, its value heads' v, their z -> [q; k; v] and z."""
    nk, dk, dv = c.linear_num_key_heads, c.linear_key_head_dim, c.linear_value_head_dim
    per = c.linear_num_value_heads // nk * dv
    w = w.reshape(nk, 2 * dk + 2 * per, -1)
    q, k, v, z = (p.reshape(-1, w.shape[2]) for p in np.split(w, [dk, 2 * dk, 2 * dk + per], axis=1))
    return np.concatenate([q, k, v]), z


def layer_tensors(arch, c, name, w):
    """(GGUF name without 'blk.N.', array) pairs of one Hugging Face tensor of a layer."""
    base, _, kind = name.rpartition(".")
    if kind not in ("weight", "bias"):
        base, kind = name, "weight"
    nh, nkv = c.num_attention_heads, getattr(c, "num_key_value_heads", None)
    nkv = nkv or nh
    nk, nv = getattr(c, "linear_num_key_heads", 0), getattr(c, "linear_num_value_heads", 0)
    dv = getattr(c, "linear_value_head_dim", 0)
    tile = arch in ("qwen35", "qwen35moe") and nk != nv

    if arch in PERMUTED and base in ("self_attn.q_proj", "self_attn.k_proj"):
        w = interleave(w, nh if base[10] == "q" else nkv)
    if arch in PLUS_ONE and kind == "weight" and re.search(r"norm$", base) and base != "linear_attn.norm":
        w = w + 1
    if base == "post_attention_layernorm":
        return [(("post_attention_norm." if arch in POST_NORM else "ffn_norm.") + kind, w)]
    if base.endswith("e_score_correction_bias"):
        return [("exp_probs_b.bias", w.reshape(-1))]
    if base == "self_attn.sinks":
        return [("attn_sinks.weight", w)]
    if base.endswith(".experts.gate_up_proj") and arch == "gpt-oss":  # [e, in, 2 out], gate and up alternate
        w = w.swapaxes(1, 2)
        return [("ffn_gate_exps.weight", w[:, ::2]), ("ffn_up_exps.weight", w[:, 1::2])]
    if base.endswith(".experts.gate_up_proj_bias"):
        return [("ffn_gate_exps.bias", w[:, ::2]), ("ffn_up_exps.bias", w[:, 1::2])]
    if base.endswith(".experts.down_proj_bias"):
        return [("ffn_down_exps.bias", w)]
    if base.endswith(".experts.gate_up_proj"):
        half = w.shape[1] // 2
        return [("ffn_gate_exps.weight", w[:, :half]), ("ffn_up_exps.weight", w[:, half:])]
    if base.endswith(".experts.down_proj"):
        return [("ffn_down_exps.weight", w.swapaxes(1, 2) if arch == "gpt-oss" else w)]
    if base == "shared_mlp.input_linear":
        half = w.shape[0] // 2
        return [("ffn_gate_shexp.weight", w[:half]), ("ffn_up_shexp.weight", w[half:])]
    if base == "linear_attn.in_proj_qkvz":
        qkv, z = split_qkvz(w, c)
        return [("attn_qkv.weight", qkv), ("attn_gate.weight", z)]
    if base == "linear_attn.A_log":
        w = -np.exp(w)
        return [("ssm_a", tiled(w, 0, nk, nv, 1) if tile else w)]
    if base == "linear_attn.dt_bias":
        return [("ssm_dt.bias", tiled(w, 0, nk, nv, 1) if tile else w)]
    if base in ("linear_attn.conv1d", "linear_attn.in_proj_qkv"):
        w = w.squeeze(1) if w.ndim == 3 else w
        if tile:
            at = 2 * nk * c.linear_key_head_dim
            w = np.concatenate([w[:at], tiled(w[at:], 0, nk, nv, dv)])
        return [("ssm_conv1d.weight" if base.endswith("conv1d") else "attn_qkv.weight", w)]
    if tile and base in ("linear_attn.in_proj_a", "linear_attn.in_proj_b"):
        w = tiled(w, 0, nk, nv, 1)
    if tile and base == "linear_attn.in_proj_z":
        w = tiled(w, 0, nk, nv, dv)
    if tile and base == "linear_attn.out_proj":
        w = tiled(w, 1, nk, nv, dv)
    return [(NAMES[base] + "." + kind, w)]


def head_dim(c):
    return getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads


def rope_of(c):
    """The rope parameters of the (global) layers."""
    p = c.rope_parameters
    return p.get("full_attention", p)


def metadata(arch, c):
    """Keys without 'ARCH.'."""

    def g(name, default=None):
        return getattr(c, name, default)

    hd, rope = head_dim(c), rope_of(c)
    ff = g("intermediate_size")
    m = {
        "block_count": c.num_hidden_layers,
        "context_length": c.max_position_embeddings,
        "embedding_length": c.hidden_size,
        "feed_forward_length": ff,
        "attention.head_count": c.num_attention_heads,
        "attention.head_count_kv": g("num_key_value_heads") or c.num_attention_heads,
        "rope.freq_base": float(rope["rope_theta"]),
    }
    if arch in LAYER_NORM:
        m["attention.layer_norm_epsilon"] = float(g("norm_eps") or g("norm_epsilon") or g("layer_norm_eps"))
    else:
        m["attention.layer_norm_rms_epsilon"] = float(c.rms_norm_eps)
    if arch == "nemotron":
        m["rope.dimension_count"] = int(rope["partial_rotary_factor"] * c.hidden_size) // c.num_attention_heads
        m["rope.scaling.type"] = "none"
    if "head_dim" in c.to_dict() and g("head_dim") and arch not in ("phi3",):
        m["attention.key_length"] = m["attention.value_length"] = hd
    if arch in ("llama", "arcee", "smollm3", "granite", "granitemoe"):
        m["rope.dimension_count"] = hd
        m["vocab_size"] = c.vocab_size
    if arch in ("qwen3next", "qwen35", "qwen35moe"):
        m["rope.dimension_count"] = int(hd * rope["partial_rotary_factor"])
        m["full_attention_interval"] = g("full_attention_interval", 4)
        m["ssm.conv_kernel"] = c.linear_conv_kernel_dim
        m["ssm.state_size"] = c.linear_key_head_dim
        m["ssm.group_count"] = c.linear_num_key_heads
        m["ssm.time_step_rank"] = c.linear_num_value_heads
        m["ssm.inner_size"] = c.linear_num_value_heads * c.linear_value_head_dim
    if arch == "phi3":
        m["rope.dimension_count"] = int(rope.get("partial_rotary_factor", 1.0) * hd)
        m["rope.scaling.original_context_length"] = c.original_max_position_embeddings
        m["attention.sliding_window"] = g("sliding_window") or 0
    if arch in ("glm4", "glm4moe"):
        m["rope.dimension_count"] = int(hd * rope["partial_rotary_factor"])
    if arch in ("glm4moe", "dots1"):
        m["expert_gating_func"] = 2
        m["expert_weights_scale"] = float(c.routed_scaling_factor)
        m["expert_weights_norm"] = c.norm_topk_prob
        m["expert_group_count"], m["expert_group_used_count"] = c.n_group, c.topk_group
    n_exp = g("num_local_experts") or g("num_experts") or g("n_routed_experts") or g("moe_num_experts")
    if n_exp:
        m["expert_count"] = n_exp
        m["expert_used_count"] = g("moe_k") or c.num_experts_per_tok
        if g("moe_intermediate_size"):
            m["expert_feed_forward_length"] = c.moe_intermediate_size
        if arch == "gpt-oss":
            m["expert_feed_forward_length"] = ff
        if g("shared_expert_intermediate_size"):
            m["expert_shared_feed_forward_length"] = c.shared_expert_intermediate_size
        if g("shared_intermediate_size"):
            m["expert_shared_feed_forward_length"] = c.shared_intermediate_size
    if arch in ("granite", "granitemoe"):
        m["attention.scale"] = float(c.attention_multiplier)
        m["embedding_scale"] = float(c.embedding_multiplier)
        m["residual_scale"] = float(c.residual_multiplier)
        m["logit_scale"] = float(c.logits_scaling)
    if arch in ("gemma2", "gemma3", "gpt-oss"):
        m["attention.sliding_window"] = c.sliding_window
    if arch == "gemma2":
        m["attn_logit_softcapping"] = float(c.attn_logit_softcapping)
        m["final_logit_softcapping"] = float(c.final_logit_softcapping)
    if arch == "gemma3":
        m["rope.freq_base_swa"] = float(c.rope_parameters["sliding_attention"]["rope_theta"])
    if arch in ("olmo2", "exaone4") and g("sliding_window"):
        m["attention.sliding_window"] = c.sliding_window
        m["attention.sliding_window_pattern"] = [t == "sliding_attention" for t in c.layer_types]
    kind = rope.get("rope_type", "default")
    if kind in ("linear", "yarn"):
        m["rope.scaling.type"] = kind
        m["rope.scaling.factor"] = float(rope["factor"])
    if kind == "yarn":
        m["rope.scaling.original_context_length"] = rope["original_max_position_embeddings"]
        for key in ("beta_fast", "beta_slow"):
            if rope.get(key) is not None:
                m["rope.scaling.yarn_" + key] = float(rope[key])
        if rope.get("attention_factor") is not None:
            m["rope.scaling.yarn_attn_factor"] = float(rope["attention_factor"])
    if kind == "longrope":
        orig = c.original_max_position_embeddings
        m["rope.scaling.attn_factor"] = math.sqrt(1 + math.log(c.max_position_embeddings / orig) / math.log(orig))
    return m


def rope_tensors(c):
    rope, d = rope_of(c), head_dim(c)
    if rope.get("rope_type") == "longrope":
        return [
            ("rope_factors_long.weight", np.array(rope["long_factor"], np.float32)),
            ("rope_factors_short.weight", np.array(rope["short_factor"], np.float32)),
        ]
    if rope.get("rope_type") != "llama3":
        return []
    orig, lo, hi, factor = (
        rope[k] for k in ("original_max_position_embeddings", "low_freq_factor", "high_freq_factor", "factor")
    )
    out = []
    for i in range(d // 2):
        wave = 2 * math.pi * rope["rope_theta"] ** (2 * i / d)
        smooth = (orig / wave - lo) / (hi - lo)
        out.append(1.0 if wave < orig / hi else factor if wave > orig / lo else 1 / ((1 - smooth) / factor + smooth))
    return [("rope_freqs.weight", np.array(out, np.float32))]


def file_type(name, w, ftype):
    """Vectors, norms, routers and convolutions stay float32; MXFP4 is for experts."""
    keep = w.ndim < 2 or re.search(r"norm|gate_inp|conv1d|\.bias|ssm_a|sinks|rope_f", name)
    if keep or ftype == "F32":
        return T.F32
    want = getattr(T, "MXFP4" if ftype == "MXFP4" and "_exps" in name else "BF16" if ftype == "MXFP4" else ftype)
    return want if w.shape[-1] % GGML_QUANT_SIZES[want][0] == 0 else T.F16


def gguf_tensors(arch, c, state):
    """All tensors of the file as float32 arrays."""
    out = {}
    for name, w in state.items():
        w = np.asarray(w, dtype=np.float32)
        m = re.fullmatch(r"model\.layers\.(\d+)\.(.*)", name)
        if m:
            for n, a in layer_tensors(arch, c, m[2], w):
                out[f"blk.{m[1]}.{n}"] = a
        elif name == "lm_head.weight":
            if not c.tie_word_embeddings:
                out["output.weight"] = w
        elif name == "model.embed_tokens.weight":
            out["token_embd.weight"] = w
        else:
            assert name in ("model.norm.weight", "model.norm.bias"), name
            plus = arch in PLUS_ONE and name.endswith("weight")
            out[name.replace("model.norm", "output_norm")] = w + 1 if plus else w
    out.update(rope_tensors(c))
    return out


def write(path, arch, keys, tensors, ftype):
    w = GGUFWriter(path, arch)
    for k, v in keys.items():
        k = f"{arch}.{k}"
        if isinstance(v, bool):
            w.add_bool(k, v)
        elif isinstance(v, int):
            w.add_uint32(k, v)
        elif isinstance(v, float):
            w.add_float32(k, v)
        elif isinstance(v, str):
            w.add_string(k, v)
        else:
            w.add_array(k, v)
    for name, a in tensors.items():
        a = np.ascontiguousarray(a, dtype=np.float32)
        t = file_type(name, a, ftype)
        w.add_tensor(name, quants.quantize(a, t) if t != T.F32 else a, raw_dtype=t)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
