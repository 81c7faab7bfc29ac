# SPDX-License-Identifier: MIT
"""Writes a checkpoint as GGUF v3 with Q8_0 matrices, checks it, and stores what the C engine is tested against.

    python export.py --run RUN --out ../../models/hearth-story.gguf --reference ../../tests/data/story

A mixture is written as `smallthinker`, whose experts are ReLU-gated in every engine that knows it. Without a window in
the file all its layers see everything and are rotated, which is what model.py computes."""
import argparse
import json
import math
from pathlib import Path

import gguf
import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

from evaluate import load_checkpoint
from model import Config, Model
from tokenizer import BOS, EOS

Q8_0 = gguf.GGMLQuantizationType.Q8_0
# Found by reading stories at each setting (models/README.md): lower temperatures circle, higher ones lose the thread.
SAMPLING = dict(temperature=0.7, top_p=0.95, repeat_penalty=1.2)
DEMO_PROMPT = "Once upon a time there was an old woman who lived in"

# Our own sentences: the reference must not carry pieces of the training or held-out text.
REFERENCE_TEXT = ("## The Lamp on the Hill\n\nOnce upon a time an old lamp stood on a hill, and every night it asked the "
                  "moon, \"Will you lend me a little light?\" The moon only smiled.")


def tensor_names(c):
    """GGUF name -> name in model.py."""
    names = {"token_embd.weight": "embed.weight", "output_norm.weight": "norm.weight"}  # no output.weight: tied
    layer = {"attn_norm": "attn_norm.weight", "attn_q": "attn.wq.weight", "attn_k": "attn.wk.weight",
             "attn_v": "attn.wv.weight", "attn_output": "attn.wo.weight", "ffn_norm": "ffn_norm.weight"}
    if c.n_experts:
        layer |= {"ffn_gate_inp": "router.weight", "ffn_gate_exps": "ffn.gate", "ffn_up_exps": "ffn.up",
                  "ffn_down_exps": "ffn.down"}
    else:
        layer |= {"ffn_gate": "ffn.gate.weight", "ffn_up": "ffn.up.weight", "ffn_down": "ffn.down.weight"}
    for i in range(c.n_layers):
        names |= {f"blk.{i}.{theirs}.weight": f"blocks.{i}.{ours}" for theirs, ours in layer.items()}
    return names


def write_gguf(path, model, tokenizer, context, about):
    c = model.c
    w = gguf.GGUFWriter(path, "smallthinker" if c.n_experts else "llama")
    w.add_name(Path(path).stem)
    w.add_description(about)
    w.add_license("MIT")
    w.add_size_label(f"{sum(p.numel() for p in model.parameters()) / 1e6:.0f}M")
    w.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    w.add_quantization_version(gguf.GGML_QUANT_VERSION)
    w.add_block_count(c.n_layers)
    w.add_context_length(context)
    w.add_embedding_length(c.d_model)
    w.add_feed_forward_length(c.d_ff)
    w.add_head_count(c.n_heads)
    w.add_head_count_kv(c.n_kv_heads)
    w.add_layer_norm_rms_eps(c.norm_eps)
    w.add_rope_dimension_count(c.d_head)
    w.add_rope_freq_base(c.rope_base)
    w.add_vocab_size(c.vocab)
    if c.n_experts:
        w.add_expert_count(c.n_experts)
        w.add_expert_used_count(c.n_experts_used)
        w.add_expert_feed_forward_length(c.d_ff)
        w.add_expert_gating_func(gguf.ExpertGatingFuncType.SOFTMAX)
    else:
        w.add_string("llama.hidden_activation", c.activation)

    spec = json.loads(tokenizer.to_str())["model"]
    by_id = sorted(spec["vocab"], key=spec["vocab"].get)
    bos, eos = tokenizer.token_to_id(BOS), tokenizer.token_to_id(EOS)
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("gpt-2")
    w.add_token_list(by_id)
    w.add_token_types([gguf.TokenType.CONTROL if i in (bos, eos) else gguf.TokenType.NORMAL for i in range(len(by_id))])
    w.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in spec["merges"]])
    w.add_bos_token_id(bos)
    w.add_eos_token_id(eos)
    w.add_add_bos_token(True)
    w.add_add_eos_token(False)
    for key, value in SAMPLING.items():
        w.add_float32(f"hearth.sampling.{key}", value)
    w.add_string("hearth.demo_prompt", DEMO_PROMPT)

    state = model.state_dict()
    for name, ours in tensor_names(c).items():
        x = state[ours].float().numpy()
        # A router is small, and a rounded one sends tokens elsewhere.
        if x.ndim >= 2 and not ours.endswith("router.weight"):
            w.add_tensor(name, gguf.quants.quantize(x, Q8_0), raw_dtype=Q8_0)
        else:
            w.add_tensor(name, x)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def load_gguf(path):
    """The file's weights, dequantised to float32, in model.py's model. Reads everything back from the file, so that
    what is checked is what was written."""
    r = gguf.GGUFReader(path)
    arch = r.fields["general.architecture"].contents()

    def value(key, default=None):
        field = r.fields.get(f"{arch}.{key}")
        return field.contents() if field or default is None else default

    c = Config(vocab=value("vocab_size"), d_model=value("embedding_length"), n_layers=value("block_count"),
               n_heads=value("attention.head_count"), n_kv_heads=value("attention.head_count_kv"),
               d_ff=value("feed_forward_length"), rope_base=value("rope.freq_base"),
               norm_eps=value("attention.layer_norm_rms_epsilon"), n_experts=value("expert_count", 0),
               n_experts_used=value("expert_used_count", 0), activation=value("hidden_activation", "relu"))
    model, names = Model(c), tensor_names(c)
    state = {names[t.name]: torch.from_numpy(np.array(gguf.quants.dequantize(t.data, t.tensor_type)))
             for t in r.tensors}
    model.load_state_dict(state)
    return model.eval()


def plain(tokenizer):
    """The same tokenizer that takes the text of special tokens for text, as an engine does with user input."""
    spec = json.loads(tokenizer.to_str())
    spec["added_tokens"] = []
    return Tokenizer.from_str(json.dumps(spec))


TOKENIZER_TEXTS = [
    "", " ", "  ", "\n", "\n\n", "\t", " \n ", "a", "Hello, world!", "Once upon a time there was a little girl.",
    "It's John's; they've said we'll, I'd, you're, I'm.", "IT'S SHOUTED", "don 't", "  two  spaces   three   here",
    "trailing space ", " leading space", "line one\nline two\r\nline three\n", "## A Title\n\nText below it.",
    "1 12 123 1234 12345 3.14159 1,000,000", "x=1+2*3/(4-5)%6;", "\"Quoted,\" he said--and left...", "_emphasis_ **bold**",
    "na\u00efve caf\u00e9 \u00c6sop \u00fcber", "\u0417\u0434\u0440\u0430\u0432\u0441\u0442\u0432\u0443\u0439, \u043c\u0438\u0440", "\u4f60\u597d\uff0c\u4e16\u754c", "\u0645\u0631\u062d\u0628\u0627", "\U0001f600\U0001f44d\U0001f3fd \u2764\ufe0f",
    "\u00a0nbsp\u2003em space\u3000wide", "\u2018curly\u2019 \u201cquotes\u201d \u2014 dash", "e\u0301 combining", "\u0660\u0661\u0662 \u00b2\u00b3 \u00bd \u2167",
    "zero\u0000byte", "The quick brown fox jumps over the lazy dog", "supercalifragilisticexpialidocious", "aaaaaaaaaaaaaaaa",
    "<|bos|>not special<|eos|>", "a'b'c''s 's", "\u2028line separator\u0085next line",
]


def store_reference(folder, model, tokenizer, n):
    folder.mkdir(parents=True, exist_ok=True)
    ids = np.array([tokenizer.token_to_id(BOS), *tokenizer.encode(REFERENCE_TEXT).ids][:n], np.int32)
    assert len(ids) == n, f"the reference text has only {len(ids)} tokens"
    with torch.no_grad():
        logits = model(torch.from_numpy(ids.astype(np.int64))[None])[0][0].numpy()
    np.save(folder / "tokens.npy", ids)
    np.save(folder / "logits.npy", np.ascontiguousarray(logits, np.float32))
    p = plain(tokenizer)
    cases = [dict(text=t, special=False, ids=p.encode(t).ids) for t in TOKENIZER_TEXTS]
    cases += [dict(text=t, special=True, ids=tokenizer.encode(t).ids)
              for t in ("<|bos|>Once upon a time", "The end.<|eos|>", "<|eos|><|bos|>", "a <|bos|> b")]
    lines = ",\n".join("  " + json.dumps(c) for c in cases)
    (folder / "tokenizer.json").write_text(f"[\n{lines}\n]\n")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--run", required=True, type=Path)
    ap.add_argument("--out", required=True, type=Path)
    ap.add_argument("--reference", type=Path, help="folder for tokens.npy, logits.npy, tokenizer.json")
    ap.add_argument("--reference-tokens", default=48, type=int)
    ap.add_argument("--weights", default="average", choices=["average", "last"])
    a = ap.parse_args()
    torch.set_num_threads(2)
    model, c = load_checkpoint(a.run / "checkpoint.pt", a.weights)
    tokenizer = Tokenizer.from_file(str(a.run / "tokenizer.json"))
    about = ("A small story writer trained on public-domain children's books and classics by hearth's tools/train. " +
             ("Its gated feed-forward uses ReLU and was trained to be sparse." if model.c.activation == "relu" else
              f"Its gated feed-forward uses {model.c.activation}."))
    if model.c.n_experts:
        about += (f" A mixture: of {model.c.n_experts} experts a layer a token uses {model.c.n_experts_used}.")
    write_gguf(a.out, model, tokenizer, c["context"], about)

    read_back = load_gguf(a.out)
    held = np.load(a.run / "tokens.npz")["held_out"][:256].astype(np.int64)
    with torch.no_grad():
        p, q = (F.log_softmax(m(torch.from_numpy(held)[None])[0][0], -1) for m in (model, read_back))
    kl = F.kl_div(q, p, log_target=True, reduction="none").sum(-1)
    top1 = (p.argmax(-1) == q.argmax(-1)).float().mean()
    print(f"{a.out.name}: {a.out.stat().st_size} bytes, step {c['step']}, context {c['context']}; Q8_0 against the float "
          f"checkpoint over {len(held)} tokens: mean KL {kl.mean():.2e}, largest {kl.max():.2e}, top-1 agreement "
          f"{top1:.3f}")
    assert math.isfinite(kl.max()) and kl.mean() < 0.01, "the exported weights do not compute what was trained"
    if a.reference:
        store_reference(a.reference, read_back, tokenizer, a.reference_tokens)


if __name__ == "__main__":
    main()
