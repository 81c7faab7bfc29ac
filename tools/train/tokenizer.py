# SPDX-License-Identifier: MIT
"""Trains the byte-level BPE (GPT-2 pre-tokenizer, so any engine's "gpt-2" splitter fits) and encodes the text.

    python tokenizer.py --data ../../../shared/data/text --run RUN

Writes RUN/tokenizer.json and RUN/tokens.npz (ids, document offsets, weights, held-out ids and their byte count).
"""
import argparse
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

import data

BOS, EOS = "<|bos|>", "<|eos|>"  # ids 0 and 1


def train(texts, vocab):
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tok.decoder = decoders.ByteLevel()
    # The whole byte alphabet is in the vocabulary: there is no unknown token, any input has an encoding.
    tok.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=[BOS, EOS], min_frequency=2, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return tok


def encode_documents(tok, texts):
    """-> (ids of all documents in a row, each as bos text eos, and the offsets where they begin)."""
    bos, eos = tok.token_to_id(BOS), tok.token_to_id(EOS)
    docs = [np.array([bos, *e.ids, eos], np.uint16) for e in tok.encode_batch(texts)]
    return np.concatenate(docs), np.cumsum([0] + [len(d) for d in docs])


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--data", default=Path(__file__).parents[2] / "../shared/data/text", type=Path)
    ap.add_argument("--run", required=True, type=Path, help="folder for everything a run writes, outside the tree")
    ap.add_argument("--vocab", default=4096, type=int)
    a = ap.parse_args()
    a.run.mkdir(parents=True, exist_ok=True)
    training, held_out = data.load(a.data)
    # A document of weight 3 counts threefold for the merges too: the vocabulary fits what is generated.
    tok = train((text for weight, text in training for _ in range(weight)), a.vocab)
    tok.save(str(a.run / "tokenizer.json"))
    ids, offsets = encode_documents(tok, [text for _, text in training])
    held, _ = encode_documents(tok, held_out)
    tiny, _ = encode_documents(tok, [data.tiny_stories(a.data)])
    n_bytes = lambda texts: sum(len(t.encode()) for t in texts)
    np.savez(a.run / "tokens.npz", ids=ids, offsets=offsets, weights=np.array([w for w, _ in training]),
             held_out=held, held_out_bytes=n_bytes(held_out), tiny=tiny,
             tiny_bytes=n_bytes([data.tiny_stories(a.data)]))
    per_epoch = sum(w * int(n) for (w, _), n in zip(training, np.diff(offsets)))
    print(f"documents {len(training)}, tokens {len(ids)} once, {per_epoch} per weighted epoch, "
          f"{n_bytes(t for _, t in training) / len(ids):.2f} bytes per token; held out {len(held)} tokens, "
          f"{n_bytes(held_out)} bytes, {n_bytes(held_out) / len(held):.2f} bytes per token")


if __name__ == "__main__":
    main()
