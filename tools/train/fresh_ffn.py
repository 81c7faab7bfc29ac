# SPDX-License-Identifier: MIT
"""Starts a dense model with another activation: embedding, attention and norms of a trained one, feed-forward blocks
anew, so that nothing of the old activation's sparsity is left in their weights.

    python fresh_ffn.py --run RUN --gguf ../../models/hearth-story.gguf --activation silu    # RUN/start.pt

With it the loss that thresholds cost on a SiLU model is measured on real text (docs/predictors.md): the models that
ship use ReLU. RUN holds tokens.npz and tokenizer.json of tokenizer.py; then `train.py --start RUN/start.pt`.
"""
import argparse
from pathlib import Path

import torch

from export import load_gguf
from model import Config, Model


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--run", required=True, type=Path)
    ap.add_argument("--gguf", required=True, type=Path, help="the trained model, dense")
    ap.add_argument("--activation", default="silu", choices=["relu", "silu"])
    ap.add_argument("--seed", default=1, type=int)
    a = ap.parse_args()
    torch.manual_seed(a.seed)
    old = load_gguf(a.gguf)
    model = Model(Config(**old.c.as_dict() | dict(activation=a.activation)))
    missing, unexpected = model.load_state_dict({k: v for k, v in old.state_dict().items() if ".ffn." not in k},
                                                strict=False)
    assert not unexpected and all(".ffn." in k for k in missing)
    torch.save(dict(model=model.state_dict(), config=model.c.as_dict()), a.run / "start.pt")


if __name__ == "__main__":
    main()
