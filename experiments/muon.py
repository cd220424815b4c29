"""Muon (Jordan et al. 2024): the update of a matrix is its momentum, made orthogonal; other weights follow AdamW.

`torch.optim.Muon` computes in bfloat16, which processors without it emulate: for a transformer with 0.8 million weights
a step of it took three times as long as this one in float32. Matrices of one shape share one batched product.

Shape letters: K matrices of one shape, R rows, C columns.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
STEPS = 5


class Muon(torch.optim.AdamW):
    """AdamW whose groups with `orthogonal: True` follow Muon.

    M = momentum M + (1 - momentum) G, W = W - lr (0.2 sqrt(max(R, C)) orthogonal((1 - momentum) G + momentum M) +
    weight_decay W); the factor gives an update the size of Adam's (Liu et al. 2025, arXiv 2502.16982).
    """

    def __init__(self, groups: list[dict], momentum: float = 0.95, **settings):
        self.momentum = momentum
        super().__init__([{"orthogonal": False} | group for group in groups], **settings)

    @torch.no_grad()
    def step(self) -> None:
        every = self.param_groups
        for group in every:
            if group["orthogonal"]:
                self._step_of_matrices(group)
        self.param_groups = [group for group in every if not group["orthogonal"]]
        try:
            super().step()
        finally:
            self.param_groups = every

    def _step_of_matrices(self, group: dict) -> None:
        by_shape: dict[tuple[int, int], list[nn.Parameter]] = {}
        for weight in group["params"]:
            if weight.grad is not None:
                by_shape.setdefault((len(weight), weight[0].numel()), []).append(weight)
        for (rows, columns), weights in by_shape.items():
            steps = []
            for weight in weights:
                moment = self.state[weight].setdefault("momentum", torch.zeros_like(weight))
                moment.lerp_(weight.grad, 1 - self.momentum)
                steps.append(weight.grad.lerp(moment, self.momentum).reshape(rows, columns))
            updates_KRC = orthogonal(torch.stack(steps)) * (0.2 * max(rows, columns) ** 0.5)
            for weight, update_RC in zip(weights, updates_KRC, strict=True):
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.sub_(update_RC.reshape(weight.shape), alpha=group["lr"])


def orthogonal(matrices_KRC: Tensor) -> Tensor:
    """About U V^T of each matrix U S V^T: its singular values become 0.7 to 1.2, by a Newton-Schulz iteration."""
    first, second, third = NEWTON_SCHULZ
    tall = matrices_KRC.shape[1] > matrices_KRC.shape[2]
    wide = matrices_KRC.mT if tall else matrices_KRC
    wide = wide / wide.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(STEPS):
        gram = wide @ wide.mT
        wide = first * wide + (second * gram + third * gram @ gram) @ wide
    return wide.mT if tall else wide
