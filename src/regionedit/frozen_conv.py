"""Convolutions of frozen networks that keep no input for a gradient which no weight wants.

Shape letters: B batch, C channels, H W pixels, h w pixels of the output.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _Convolve(torch.autograd.Function):
    """The way back to the input needs the weights and the input's shape, not the input."""

    @staticmethod
    def forward(ctx, input_BCHW: Tensor, weight: Tensor, bias: Tensor | None, where: tuple) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.shape, ctx.where = input_BCHW.shape, where
        return F.conv2d(input_BCHW, weight, bias, *where)

    @staticmethod
    def backward(ctx, gradient_BChw: Tensor) -> tuple[Tensor, None, None, None]:
        (weight,) = ctx.saved_tensors
        return torch.nn.grad.conv2d_input(ctx.shape, weight, gradient_BChw, *ctx.where), None, None, None


class FrozenConv2d(nn.Conv2d):
    """A Conv2d whose weights do not learn. PyTorch's own keeps its input all the same (arXiv 2404.12406)."""

    def forward(self, input: Tensor) -> Tensor:
        where = self.stride, self.padding, self.dilation, self.groups
        return _Convolve.apply(input, self.weight, self.bias, where)


def forget_inputs(network: nn.Module) -> int:
    """Make every plain convolution of a frozen network a FrozenConv2d; returns how many.

    Raises:
        ValueError: one of their weights learns.
    """
    found = [m for m in network.modules() if type(m) is nn.Conv2d and m.padding_mode == "zeros"]
    for module in found:
        if module.weight.requires_grad:
            raise ValueError("forget_inputs: the weight of a convolution learns and needs its input; freeze it first")
        module.__class__ = FrozenConv2d
    return len(found)
