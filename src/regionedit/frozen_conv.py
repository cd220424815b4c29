"""Convolutions for frozen networks: they do not store their inputs, which only a gradient of the weights would need.

Shape letters: B batch, C channels, H W pixels, h w pixels of the output.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _Convolve(torch.autograd.Function):
    """The gradient of the input needs the weights and the input's shape, not the input itself."""

    @staticmethod
    def forward(ctx, input_BCHW: Tensor, weight: Tensor, bias: Tensor | None, geometry: tuple) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.shape, ctx.geometry = input_BCHW.shape, geometry
        return F.conv2d(input_BCHW, weight, bias, *geometry)

    @staticmethod
    def backward(ctx, gradient_BChw: Tensor) -> tuple[Tensor, None, None, None]:
        (weight,) = ctx.saved_tensors
        return torch.nn.grad.conv2d_input(ctx.shape, weight, gradient_BChw, *ctx.geometry), None, None, None


class FrozenConv2d(nn.Conv2d):
    """A Conv2d with frozen weights. PyTorch's own stores its input even then (arXiv 2404.12406)."""

    def forward(self, input: Tensor) -> Tensor:
        geometry = self.stride, self.padding, self.dilation, self.groups
        return _Convolve.apply(input, self.weight, self.bias, geometry)


def freeze_convolutions(network: nn.Module) -> int:
    """Turn every plain convolution of a frozen network into a FrozenConv2d; returns their number.

    Raises:
        ValueError: the weight of a convolution requires a gradient.
    """
    found = [m for m in network.modules() if type(m) is nn.Conv2d and m.padding_mode == "zeros"]
    for module in found:
        if module.weight.requires_grad:
            raise ValueError(
                "freeze_convolutions: a convolution's weight requires a gradient and thus its input; freeze it first"
            )
        module.__class__ = FrozenConv2d
    return len(found)
