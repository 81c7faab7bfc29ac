# SPDX-License-Identifier: MIT
"""Writes text with an exported model in PyTorch: for choosing the suggested sampling and the samples of the card.

    python sample.py --run RUN --gguf ../../models/hearth-story.gguf -p "Once upon a time" --seeds 1 2 3
"""
import argparse
from pathlib import Path

import torch
from tokenizers import Tokenizer

from export import DEMO_PROMPT, SAMPLING, load_gguf
from tokenizer import BOS, EOS


@torch.no_grad()
def generate(model, ids, n, temperature, top_p, repeat_penalty, seed, eos, last_n=64):
    """The usual order: penalty over the last 64 tokens, temperature, nucleus. No KV cache: the model is small."""
    rng = torch.Generator().manual_seed(seed)
    ids = list(ids)
    for _ in range(n):
        logits = model(torch.tensor([ids[-512:]]))[0][0, -1]
        recent = torch.tensor(sorted(set(ids[-last_n:])))
        v = logits[recent]
        logits[recent] = torch.where(v > 0, v / repeat_penalty, v * repeat_penalty)
        if temperature == 0:
            ids.append(int(logits.argmax()))
        else:
            p, order = torch.softmax(logits / temperature, -1).sort(descending=True)
            p[p.cumsum(0) - p >= top_p] = 0  # the token that crosses top_p stays
            ids.append(int(order[torch.multinomial(p, 1, generator=rng)]))
        if ids[-1] == eos:
            break
    return ids


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--run", required=True, type=Path)
    ap.add_argument("--gguf", required=True, type=Path)
    ap.add_argument("-p", "--prompt", default=DEMO_PROMPT)
    ap.add_argument("-n", default=200, type=int)
    ap.add_argument("--temperature", default=SAMPLING["temperature"], type=float)
    ap.add_argument("--top-p", default=SAMPLING["top_p"], type=float)
    ap.add_argument("--repeat-penalty", default=SAMPLING["repeat_penalty"], type=float)
    ap.add_argument("--seeds", default=[1], type=int, nargs="+")
    a = ap.parse_args()
    torch.set_num_threads(2)
    model, tok = load_gguf(a.gguf), Tokenizer.from_file(str(a.run / "tokenizer.json"))
    bos, eos = tok.token_to_id(BOS), tok.token_to_id(EOS)
    prompt = [bos, *tok.encode(a.prompt).ids]
    for seed in a.seeds:
        ids = generate(model, prompt, a.n, a.temperature, a.top_p, a.repeat_penalty, seed, eos)
        print(f"--- seed {seed}\n{tok.decode(ids)}{'  [end of text]' if ids[-1] == eos else ''}", flush=True)


if __name__ == "__main__":
    main()
