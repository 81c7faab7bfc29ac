# SPDX-License-Identifier: MIT
"""Trains the model on RUN/tokens.npz (see tokenizer.py); checkpoints, log and the final weights go to RUN.

    nice -n 10 python train.py --run RUN --minutes 75
    python train.py --run RUN --minutes 30 --resume        # goes on from RUN/checkpoint.pt
    python train.py --run RUN --minutes 75 --start RUN/start.pt     # a mixture, from upcycle.py

The schedule is a function of progress, a number that goes from 0 to 1. With --steps N each step is 1/N of it. With
--minutes the share per step is planned again and again from the recent step time and the wall time left, so that a
process stopped for a while (SIGSTOP) or slowed down by neighbours still ends on time, with its learning rate at 0.

Sparsity: the loss carries lambda * mean(relu(gate)) of every layer, and a controller moves lambda so that the density
(share of relu(gate) > 0) follows a target that falls from 30 % to --density. The mean is penalised, not the count:
the count has no gradient. Of a mixture only the chosen experts' neurons count, and the loss carries --balance times the
load-balancing term of every layer (experts.py).
"""
import argparse
import csv
import math
import os
import signal
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from evaluate import bits_per_byte
from model import Config, Model
from muon import Muon


class Windows:
    """Training rows in random order. An epoch is all documents, each `weight` times, shuffled, in a row, cut into
    rows of `context` tokens; the order depends on (seed, epoch) alone, so a resumed run goes on exactly."""

    def __init__(self, tokens, context, rows, seed, epoch=0, at=0):
        self.ids, self.offsets, self.weights = tokens["ids"], tokens["offsets"], tokens["weights"]
        self.context, self.rows, self.seed, self.epoch, self.at = context, rows, seed, epoch, at
        self.shuffle()

    def shuffle(self):
        rng = np.random.default_rng([self.seed, self.epoch])
        docs = rng.permutation(np.repeat(np.arange(len(self.weights)), self.weights))
        self.stream = np.concatenate([self.ids[self.offsets[d]:self.offsets[d + 1]] for d in docs])
        self.order = rng.permutation((len(self.stream) - 1) // self.context)

    def next(self):
        if self.at + self.rows > len(self.order):
            self.epoch, self.at = self.epoch + 1, 0
            self.shuffle()
        starts = self.order[self.at:self.at + self.rows, None] * self.context
        self.at += self.rows
        batch = torch.from_numpy(self.stream[starts + np.arange(self.context + 1)].astype(np.int64))
        return batch[:, :-1].contiguous(), batch[:, 1:].contiguous()


class DensityController:
    """lambda = exp(integral + gain * error), error = log(density / target): multiplicative, since the lambda that
    is needed is not known within orders of magnitude.

    A layer's share of lambda goes with its density: with one lambda for all, the layers that are sparse by nature
    went on towards zero (3 % after 600 steps) while the first stayed at 34 %."""

    def __init__(self, target, n_layers, begin=0.30, state=None):
        self.target, self.begin, self.integral, self.error = target, begin, math.log(0.03), 0.0
        self.density = torch.full((n_layers,), 0.5)  # running means
        self.__dict__.update(state or {})

    def aim(self, progress):
        """From `begin` to the target over the first third, geometrically: most of the run adapts to the final density."""
        return self.target * (self.begin / self.target) ** max(0.0, 1 - progress / 0.33)

    def update(self, density, progress):
        self.density = self.density.lerp(density, 0.1)
        self.error = math.log(max(self.density.mean().item(), 1e-3) / self.aim(progress))
        self.error = max(-1.0, min(1.0, self.error))
        self.integral = max(math.log(1e-3), min(math.log(30.0), self.integral + 0.03 * self.error))

    @property
    def weight(self):
        return min(30.0, math.exp(self.integral + self.error))

    def weights(self):
        """Per layer, to multiply mean(relu(gate))."""
        share = (self.density / self.density.mean()).clamp(0.1, 2.0)
        return self.weight / len(share) * share


def rate(progress, step, warmup, decay_from):
    """Share of the peak learning rate: a linear start, flat, then linear to zero."""
    return min(1.0, (step + 1) / warmup) * min(1.0, max(0.0, 1 - progress) / (1 - decay_from))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--run", required=True, type=Path)
    how_long = ap.add_mutually_exclusive_group(required=True)
    how_long.add_argument("--minutes", type=float, help="wall time, pauses included")
    how_long.add_argument("--steps", type=int)
    ap.add_argument("--resume", action="store_true")
    ap.add_argument("--seed", default=1, type=int)
    ap.add_argument("--threads", default=2, type=int)
    ap.add_argument("--batch-tokens", default=8192, type=int)
    ap.add_argument("--context", default=512, type=int)
    ap.add_argument("--long-context", default=1024, type=int, help="context of the last part of the run")
    ap.add_argument("--long-from", default=2.0, type=float, help="progress at which it begins; above 1: never")
    ap.add_argument("--density", default=0.065, type=float, help="target; what is reached is reported")
    ap.add_argument("--density-begin", default=0.30, type=float)
    ap.add_argument("--balance", default=0.01, type=float, help="weight of a mixture's load balancing, per layer")
    ap.add_argument("--lr-muon", default=0.02, type=float)
    ap.add_argument("--lr-adam", default=0.004, type=float)
    ap.add_argument("--decay-from", default=0.3, type=float, help="progress at which the learning rate begins to fall")
    ap.add_argument("--warmup", default=100, type=int, help="steps")
    ap.add_argument("--eager", action="store_true", help="no torch.compile: on a busy machine it takes many minutes")
    ap.add_argument("--float32", action="store_true", help="no bf16: for processors without AMX or AVX512-BF16")
    ap.add_argument("--start", type=Path, help="weights to begin with, in place of random ones")
    ap.add_argument("--checkpoint-minutes", default=4.0, type=float)
    ap.add_argument("--pid-file", type=Path, help="where to write the process id, for whoever wants to pause the run")
    a = ap.parse_args()
    began = time.monotonic()
    if a.pid_file:
        a.pid_file.write_text(f"{os.getpid()}\n")
    torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
    tokens = dict(np.load(a.run / "tokens.npz"))
    source = a.run / "checkpoint.pt" if a.resume else a.start
    c = torch.load(source, weights_only=False) if source else None
    model = Model(Config(**c["config"]) if c else Config())
    if c:
        model.load_state_dict(c["model"])
    # A router's rows are as many directions as experts: equal steps in all of them are not what it needs.
    by_adam = lambda name, p: p.dim() < 2 or "embed" in name or "router" in name
    matrices = [p for n, p in model.named_parameters() if not by_adam(n, p)]
    others = [p for n, p in model.named_parameters() if by_adam(n, p)]
    optimisers = [Muon(matrices, a.lr_muon, dtype=torch.float32 if a.float32 else torch.bfloat16),
                  torch.optim.AdamW(others, a.lr_adam, betas=(0.9, 0.95), weight_decay=0.0, fused=True)]
    average = [p.detach().clone() for p in model.parameters()]  # of the last 200 steps: usable at any moment
    step, progress, trained_s, seen, data_at = 0, 0.0, 0.0, 0, (0, 0)
    controller = DensityController(a.density, model.c.n_layers, a.density_begin)
    if a.resume:
        average = c["average"]
        for o, state in zip(optimisers, c["optimisers"]):
            o.load_state_dict(state)
        step, progress, trained_s, seen, data_at = (c[k] for k in ("step", "progress", "trained_s", "seen", "data_at"))
        controller = DensityController(a.density, model.c.n_layers, a.density_begin,
                                       c["controller"] | {"target": a.density})

    def windows(context, epoch, at):
        return Windows(tokens, context, a.batch_tokens // context, a.seed, epoch, at)

    context = a.long_context if progress >= a.long_from else a.context
    rows = windows(context, *data_at)
    # One compilation per context length.
    loss_of = model.loss if a.eager else torch.compile(model.loss, dynamic=False)
    log = open(a.run / "log.csv", "a" if a.resume else "w", newline="")
    writer = csv.writer(log)
    if not a.resume:
        writer.writerow("step progress tokens seconds loss held_out_bpb density lambda lr_share step_s".split() +
                        ["balance"] * (model.c.n_experts > 0))

    def held_out():
        """Bits per byte with the averaged weights, put in place for the moment."""
        with torch.no_grad():
            kept = [p.detach().clone() for p in model.parameters()]
            torch._foreach_copy_(list(model.parameters()), average)
            bpb = bits_per_byte(model, tokens["held_out"], int(tokens["held_out_bytes"]), 512,
                                autocast=not a.float32)["bpb"]
            torch._foreach_copy_(list(model.parameters()), kept)
        return bpb

    def save(name="checkpoint.pt"):
        state = dict(model=model.state_dict(), average=average, optimisers=[o.state_dict() for o in optimisers],
                     step=step, progress=progress, trained_s=trained_s, seen=seen, data_at=(rows.epoch, rows.at),
                     controller=controller.__dict__, config=model.c.as_dict(), context=max(context, a.context),
                     seed=a.seed)
        torch.save(state, a.run / "checkpoint.tmp")  # renamed when whole: a kill leaves the old one
        os.replace(a.run / "checkpoint.tmp", a.run / name)

    stop = []
    for s in (signal.SIGINT, signal.SIGTERM):
        signal.signal(s, lambda *_: stop.append(1))
    times, losses, densities, balances, saved = [], [], [], [], time.monotonic()
    while progress < 1 and not stop:
        t0 = time.monotonic()
        want = a.long_context if progress >= a.long_from else a.context
        if want != context:
            context, rows = want, windows(want, rows.epoch + 1, 0)
            times.clear()
        share = rate(progress, step, a.warmup, a.decay_from)
        for o, peak in zip(optimisers, (a.lr_muon, a.lr_adam)):
            for g in o.param_groups:
                g["lr"] = peak * share
        ids, targets = rows.next()
        with torch.autocast("cpu", torch.bfloat16, enabled=not a.float32):
            loss, mean_act, density, balance = loss_of(ids, targets)
        total = loss + (controller.weights() * mean_act).sum() if model.c.activation == "relu" else loss
        if balance is not None:
            total = total + a.balance * balance.sum()
            balances.append(balance.detach())
        total.backward()
        for o in optimisers:
            o.step()
        model.zero_grad(set_to_none=True)
        controller.update(density, progress)
        torch._foreach_lerp_(average, [p.detach() for p in model.parameters()], 1 / min(step + 1, 200))
        step, seen = step + 1, seen + a.batch_tokens
        took = time.monotonic() - t0
        # The mean, for neighbours that come and go slow many steps several times over and the median would promise
        # too many; capped, so that one long pause counts as one slow step.
        times = times[-149:] + [min(took, 20.0)]
        usual = statistics.mean(times)
        trained_s += times[-1]
        if a.steps:
            progress = min(1.0, step / a.steps)
        elif len(times) >= 10:  # the first steps of a context compile
            steps_left = (a.minutes * 60 - (time.monotonic() - began)) / usual
            progress = 1.0 if steps_left <= 1 else min(1.0, progress + (1 - progress) / steps_left)
        losses.append(loss.item())
        densities.append(density)
        if step % 50 == 0 or progress >= 1:
            due = time.monotonic() - saved > a.checkpoint_minutes * 60 or progress >= 1
            bpb = f"{held_out():.4f}" if due else ""
            layers = torch.stack(densities).mean(0)
            row = [step, f"{progress:.4f}", seen, f"{trained_s:.0f}", f"{np.mean(losses):.4f}", bpb,
                   " ".join(f"{d:.3f}" for d in layers.tolist()), f"{controller.weight:.4f}", f"{share:.3f}",
                   f"{usual:.3f}"]
            if balances:
                row.append(" ".join(f"{b:.2f}" for b in torch.stack(balances).mean(0).tolist()))
            writer.writerow(row)
            log.flush()
            print(f"step {row[0]} progress {row[1]} tokens {seen / 1e6:.1f}M loss {row[4]} bpb {row[5] or '-'} density "
                  f"{layers.mean():.3f} [{row[6]}] lambda {row[7]} lr {row[8]} {row[9]} s/step"
                  f"{f' balance [{row[10]}]' if balances else ''}", flush=True)
            losses.clear(), densities.clear(), balances.clear()
            if due:
                save()
                saved = time.monotonic()
    save()
    print(f"stopped at step {step}, {seen} tokens, {trained_s:.0f} s of training", flush=True)


if __name__ == "__main__":
    main()
