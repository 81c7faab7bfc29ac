# SPDX-License-Identifier: MIT
"""A mixture of ReLU-gated experts whose cost is that of the experts chosen: rows are put in order of their expert, and
each expert is three matrix products over its own rows. Nothing is padded and no token is dropped.

The two operations are opaque to torch.compile with shapes that do not depend on the routing, so that everything
around them compiles once."""
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn


@torch.library.custom_op("hearth::permute", mutates_args=())
def permute(x: torch.Tensor, order: torch.Tensor, inverse: torch.Tensor) -> torch.Tensor:
    """x[order]. As indexing its gradient would be a sum of scattered rows; a permutation's is a gather."""
    return x.index_select(0, order)


permute.register_fake(lambda x, order, inverse: torch.empty_like(x))
permute.register_autograd(lambda ctx, g: (permute(g.contiguous(), ctx.inverse, ctx.order), None, None),
                          setup_context=lambda ctx, inputs, output: ctx.__dict__.update(order=inputs[1],
                                                                                       inverse=inputs[2]))


@torch.library.custom_op("hearth::grouped", mutates_args=())
def grouped(x: torch.Tensor, w: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """x: [rows, in] in order of the expert, w: [expert, out, in], ends: where each expert's rows end -> [rows, out]."""
    y, begin = x.new_empty(x.shape[0], w.shape[1]), 0
    for e, end in enumerate(ends.tolist()):
        torch.mm(x[begin:end], w[e].T, out=y[begin:end])
        begin = end
    return y


@torch.library.custom_op("hearth::grouped_backward", mutates_args=())
def grouped_backward(g: torch.Tensor, x: torch.Tensor, w: torch.Tensor,
                     ends: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    dx, dw, begin = torch.empty_like(x), torch.empty_like(w), 0
    for e, end in enumerate(ends.tolist()):  # no rows: a product over nothing is zero
        torch.mm(g[begin:end], w[e], out=dx[begin:end])
        torch.mm(g[begin:end].T, x[begin:end], out=dw[e])
        begin = end
    return dx, dw


grouped.register_fake(lambda x, w, ends: x.new_empty(x.shape[0], w.shape[1]))
grouped_backward.register_fake(lambda g, x, w, ends: (torch.empty_like(x), torch.empty_like(w)))
grouped.register_autograd(lambda ctx, g: (*grouped_backward(g.contiguous(), *ctx.saved_tensors), None),
                          setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs))


class Routing(NamedTuple):
    """Which experts the tokens of a layer go to."""
    chosen: torch.Tensor   # [tokens, used]
    weight: torch.Tensor   # [tokens, used], their sum is 1
    balance: torch.Tensor  # scalar: 1 when experts share the load and the probability evenly, more otherwise


def route(logits, used):
    """Softmax over all, the `used` largest, scaled to a sum of 1: the same as a softmax over those alone.

    balance = n * sum over experts of (share of the choices) * (mean probability), Switch Transformers' equation 4
    (arXiv:2101.03961); the shares have no gradient, the probabilities have."""
    logits = logits.float()
    top, chosen = logits.topk(used)
    n = logits.shape[-1]
    share = F.one_hot(chosen, n).float().mean((0, 1))
    return Routing(chosen, top.softmax(-1), n * (share.detach() * logits.softmax(-1).mean(0)).sum())


class Experts(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.n, self.used = c.n_experts, c.n_experts_used
        self.gate = nn.Parameter(torch.empty(c.n_experts, c.d_ff, c.d_model))
        self.up = nn.Parameter(torch.empty(c.n_experts, c.d_ff, c.d_model))
        self.down = nn.Parameter(torch.empty(c.n_experts, c.d_model, c.d_ff))

    def forward(self, x, routing):
        """x: [tokens, d_model] -> output, relu(gate) of the chosen experts [tokens, used, d_ff]."""
        tokens, d = x.shape
        expert = routing.chosen.flatten()
        order = expert.argsort(stable=True)
        inverse = order.argsort()
        ends = F.one_hot(expert, self.n).sum(0).cumsum(0)
        rows = permute(x[:, None].expand(-1, self.used, -1).reshape(-1, d), order, inverse)
        act = F.relu(grouped(rows, self.gate, ends))
        weight = permute(routing.weight.reshape(-1, 1).to(x.dtype), order, inverse)
        y = grouped(act * grouped(rows, self.up, ends) * weight, self.down, ends)
        y = permute(y, inverse, order).view(tokens, self.used, d).sum(1)
        return y, permute(act, inverse, order).view(tokens, self.used, -1)
