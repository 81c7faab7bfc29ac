#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes the seeds of fuzz_model into a folder: whole models of a few kilobytes, one for each kind of block that a layer can
hold. Weights are small random numbers; the vocabulary is a SentencePiece one of 40 tokens.

Use: python3 make_models.py tests/fuzz/corpus/model      (pip install gguf numpy)
Those that are packed, packed-*.gguf, are made from these: hearth profile NAME.gguf -p TEXT --ctx 16 --pack -o packed-NAME.gguf
"""
import sys
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as T
from gguf import GGUFWriter, quants

D, FF, VOCAB = 32, 32, 40
rng = np.random.default_rng(1)


class Model:
    def __init__(self, folder, name, arch, layers=1):
        self.path = Path(folder) / (name + ".gguf")
        self.w = GGUFWriter(self.path, arch)
        self.arch, self.layers = arch, layers
        self.u32("block_count", layers)
        self.u32("context_length", 64)
        self.u32("embedding_length", D)
        self.u32("feed_forward_length", FF)
        self.u32("attention.head_count", 2)
        self.u32("attention.head_count_kv", 1)
        self.f32("attention.layer_norm_rms_epsilon", 1e-5)

    def u32(self, key, v):
        self.w.add_uint32(f"{self.arch}.{key}", v)

    def f32(self, key, v):
        self.w.add_float32(f"{self.arch}.{key}", v)

    def mat(self, name, *shape, t=T.Q4_0):
        """shape as in the file: columns first."""
        x = (rng.standard_normal(shape[::-1]) * 0.2).astype(np.float32)
        if t == T.F16:
            self.w.add_tensor(name, x.astype(np.float16))
        elif t == T.F32:
            self.w.add_tensor(name, x)
        else:
            self.w.add_tensor(name, quants.quantize(x, t), raw_dtype=t)

    def vec(self, name, n):
        self.w.add_tensor(name, (1 + rng.standard_normal(n) * 0.1).astype(np.float32))

    def vocab(self):
        self.w.add_tokenizer_model("llama")
        tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in (10, 32, 97)] + ["\u2581"]
        tokens += [chr(97 + i) for i in range(26)] + ["\u2581the", "he", "th", "an", "nd", "and", "in"]
        kinds = [2, 3, 3] + [6] * 3 + [1] * (VOCAB - 6)
        self.w.add_token_list(tokens)
        self.w.add_token_scores([-float(i) for i in range(VOCAB)])
        self.w.add_token_types(kinds)
        self.w.add_bos_token_id(1)
        self.w.add_eos_token_id(2)

    def attention(self, il, q_rows=D):
        b = f"blk.{il}."
        self.vec(b + "attn_norm.weight", D)
        self.mat(b + "attn_q.weight", D, q_rows)
        self.mat(b + "attn_k.weight", D, D // 2)
        self.mat(b + "attn_v.weight", D, D // 2)
        self.mat(b + "attn_output.weight", D, D)

    def ffn(self, il, gate=True):
        b = f"blk.{il}."
        self.vec(b + "ffn_norm.weight", D)
        if gate:
            self.mat(b + "ffn_gate.weight", D, FF)
        self.mat(b + "ffn_up.weight", D, FF)
        self.mat(b + "ffn_down.weight", FF, D)

    def experts(self, il, n, t=T.Q4_0):
        b = f"blk.{il}."
        self.u32("expert_count", n)
        self.u32("expert_used_count", 2)
        self.u32("expert_feed_forward_length", FF)
        self.mat(b + "ffn_gate_inp.weight", D, n, t=T.F32)
        for role in ("gate", "up"):
            self.mat(b + f"ffn_{role}_exps.weight", D, FF, n, t=t)
        self.mat(b + "ffn_down_exps.weight", FF, D, n, t=t)

    def powerinfer(self, il, rank, gate=True):
        """A down projection with a row per neuron, and a predictor."""
        b = f"blk.{il}."
        if gate:
            self.vec(b + "ffn_norm.weight", D)
            self.mat(b + "ffn_gate.weight", D, FF)
        self.mat(b + "ffn_up.weight", D, FF)
        self.mat(b + "ffn_down_t.weight", D, FF)
        self.mat(b + "fc1.weight", D, rank)
        self.mat(b + "fc2.weight", rank, FF, t=T.Q4_0 if rank % 32 == 0 else T.F16)

    def done(self, tied=True, magic=b"GGUF"):
        self.mat("token_embd.weight", D, VOCAB, t=T.Q8_0)
        self.vec("output_norm.weight", D)
        if not tied:
            self.mat("output.weight", D, VOCAB)
        self.vocab()
        self.w.write_header_to_file()
        self.w.write_kv_data_to_file()
        self.w.write_tensors_to_file()
        self.w.close()
        with open(self.path, "r+b") as f:
            f.write(magic)


def main():
    folder = sys.argv[1]
    m = Model(folder, "llama", "llama", 2)
    for il in range(2):
        m.attention(il)
        m.ffn(il)
    m.w.add_string("llama.rope.scaling.type", "yarn")
    m.f32("rope.scaling.factor", 4)
    m.u32("rope.scaling.original_context_length", 32)
    m.done(tied=False)

    m = Model(folder, "mixture", "qwen2moe")
    m.attention(0)
    m.vec("blk.0.ffn_norm.weight", D)
    m.experts(0, 4)
    m.mat("blk.0.ffn_gate_shexp.weight", D, FF)
    m.mat("blk.0.ffn_up_shexp.weight", D, FF)
    m.mat("blk.0.ffn_down_shexp.weight", FF, D)
    m.vec("blk.0.ffn_gate_inp_shexp.weight", D)
    m.done()

    m = Model(folder, "sinks", "gpt-oss")
    m.attention(0)
    m.vec("blk.0.attn_q.bias", D)
    m.vec("blk.0.attn_sinks.weight", 2)
    m.vec("blk.0.post_attention_norm.weight", D)
    m.experts(0, 3, T.F16)
    for role in ("gate", "up", "down"):
        m.mat(f"blk.0.ffn_{role}_exps.bias", FF, 3, t=T.F32)
    m.vec("blk.0.ffn_gate_inp.bias", 3)
    m.u32("attention.sliding_window", 3)
    m.done()

    for name, arch in (("delta", "qwen3next"), ("delta-tiled", "qwen35")):
        m = Model(folder, name, arch, 2)
        for key, v in (("conv_kernel", 4), ("state_size", 8), ("group_count", 2), ("time_step_rank", 4), ("inner_size", 32)):
            m.u32("ssm." + key, v)
        m.vec("blk.0.attn_norm.weight", D)
        m.mat("blk.0.attn_qkv.weight", D, 64)
        m.mat("blk.0.attn_gate.weight", D, 32)
        if arch == "qwen3next":
            m.mat("blk.0.ssm_ba.weight", D, 8)
        else:
            m.mat("blk.0.ssm_alpha.weight", D, 4)
            m.mat("blk.0.ssm_beta.weight", D, 4)
        m.mat("blk.0.ssm_out.weight", 32, D)
        m.mat("blk.0.ssm_conv1d.weight", 4, 64, t=T.F32)
        m.vec("blk.0.ssm_dt.bias", 4)
        m.vec("blk.0.ssm_a", 4)
        m.vec("blk.0.ssm_norm.weight", 8)
        m.attention(1, q_rows=2 * D)
        for il in range(2):
            m.vec(f"blk.{il}.post_attention_norm.weight", D)
            m.mat(f"blk.{il}.ffn_gate.weight", D, FF)
            m.mat(f"blk.{il}.ffn_up.weight", D, FF)
            m.mat(f"blk.{il}.ffn_down.weight", FF, D)
        m.vec("blk.1.attn_q_norm.weight", D // 2)
        m.vec("blk.1.attn_k_norm.weight", D // 2)
        m.done()

    m = Model(folder, "fused", "phi3")
    m.vec("blk.0.attn_norm.weight", D)
    m.mat("blk.0.attn_qkv.weight", D, 2 * D)
    m.mat("blk.0.attn_output.weight", D, D)
    m.vec("blk.0.ffn_norm.weight", D)
    m.mat("blk.0.ffn_up.weight", D, 2 * FF)
    m.mat("blk.0.ffn_down.weight", FF, D)
    m.vec("rope_factors_long.weight", D // 4)
    m.vec("rope_factors_short.weight", D // 4)
    m.u32("rope.scaling.original_context_length", 4)
    m.u32("attention.sliding_window", 2)
    m.done()

    m = Model(folder, "caps", "gemma2", 2)
    for il in range(2):
        m.attention(il)
        m.vec(f"blk.{il}.post_attention_norm.weight", D)
        m.ffn(il)
        m.vec(f"blk.{il}.post_ffw_norm.weight", D)
    m.f32("attn_logit_softcapping", 50)
    m.f32("final_logit_softcapping", 30)
    m.u32("attention.sliding_window", 2)
    m.done()

    m = Model(folder, "sub-norms", "bitnet")
    m.attention(0)
    m.vec("blk.0.attn_sub_norm.weight", D)
    m.ffn(0)
    m.vec("blk.0.ffn_sub_norm.weight", FF)
    m.done()

    m = Model(folder, "ungated", "nemotron")
    m.f32("attention.layer_norm_epsilon", 1e-5)
    m.u32("rope.dimension_count", 8)
    m.attention(0)
    m.vec("blk.0.attn_norm.bias", D)
    m.ffn(0, gate=False)
    m.done()

    m = Model(folder, "powerinfer", "llama", 2)
    m.w.add_float32("powerinfer.sparse_threshold", 0.1)
    for il, rank in enumerate((32, 5)):
        m.attention(il)
        m.powerinfer(il, rank)
    m.done(tied=False, magic=b"PWRI")

    m = Model(folder, "powerinfer-parallel", "falcon")
    m.f32("attention.layer_norm_epsilon", 1e-5)
    m.vec("blk.0.attn_norm.weight", D)
    m.vec("blk.0.attn_norm_2.weight", D)
    m.mat("blk.0.attn_qkv.weight", D, 2 * D)
    m.mat("blk.0.attn_output.weight", D, D)
    m.powerinfer(0, 32, gate=False)
    m.done(magic=b"PWRI")

    m = Model(folder, "positions", "gpt2")
    m.f32("attention.layer_norm_epsilon", 1e-5)
    m.mat("position_embd.weight", D, 20, t=T.F16)
    m.attention(0)
    m.ffn(0, gate=False)
    m.done()


if __name__ == "__main__":
    main()
