# SPDX-License-Identifier: MIT
"""Muon (Keller Jordan, 2024): momentum whose update of a matrix is replaced by the nearest orthogonal one, so that
every direction of the matrix learns at the same rate."""
import torch


def orthogonalise(g, dtype, steps=5):
    """g: [n, rows, cols] with rows <= cols -> about U V^T of each matrix. A quintic Newton-Schulz iteration; its
    coefficients were chosen by Muon's author for the steepest slope at zero, and tolerate bf16."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g.to(dtype)
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        s = x @ x.mT
        x = a * x + (b * s + c * (s @ s)) @ x
    return x.float()


class Muon(torch.optim.Optimizer):
    """Parameters are matrices, or stacks of them [n, rows, cols] (experts)."""

    def __init__(self, params, lr, momentum=0.95, weight_decay=0.05, dtype=torch.bfloat16):
        super().__init__(list(params), dict(lr=lr, momentum=momentum, weight_decay=weight_decay))
        self.dtype = dtype

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            by_shape = {}  # equal shapes go through one batched iteration: far fewer, larger products
            for p in group["params"]:
                by_shape.setdefault(p.shape, []).append(p)
            for shape, params in by_shape.items():
                grads = [p.grad for p in params]
                momenta = [self.state[p].setdefault("momentum", torch.zeros_like(p)) for p in params]
                torch._foreach_lerp_(momenta, grads, 1 - group["momentum"])
                update = torch.stack([g.lerp(m, group["momentum"]) for g, m in zip(grads, momenta)])  # Nesterov
                rows, cols = shape[-2:]
                matrices = update.view(-1, rows, cols)
                tall = rows > cols
                matrices = orthogonalise(matrices.mT if tall else matrices, self.dtype)
                update = (matrices.mT if tall else matrices).reshape(update.shape)
                scale = group["lr"] * max(1.0, rows / cols) ** 0.5
                torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(params, list(update.unbind(0)), alpha=-scale)
