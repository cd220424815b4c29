"""Pictures as token maps of growing size, each encoding the residual of those before it, as in VAR (Tian et al. 2024).

The features of an autoencoder are approximated from coarse to fine. At every scale the residual is averaged over that
scale's cells, and each cell takes the nearest entry of one shared codebook. The entries are upsampled to the full grid,
smoothed by a convolution of that scale, and added to the accumulated features.

Shape letters: B pictures, C feature channels, D image channels, H W pixels, y x cells of the full grid, s cells on a
scale's side, V codes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

UNKNOWN = -1
"""Marks a token that is still to be sampled."""

NORM_GROUPS = 8
SMOOTHED = 0.5  # share of a scale's entries that passes its convolution; the rest is added unchanged


class Residual(nn.Module):
    """Two normalised 3 x 3 convolutions with a skip connection."""

    def __init__(self, width: int):
        super().__init__()
        self.first_norm, self.second_norm = (nn.GroupNorm(NORM_GROUPS, width) for _ in range(2))
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(F.silu(self.first_norm(x)))
        return x + self.second(F.silu(self.second_norm(hidden)))


class ScaleQuantizer(nn.Module):
    """Features to token maps and back.

    Args:
        channels: of the features.
        codes: entries of the codebook that all scales share.
        sides: cells on the side of each scale, growing; the last is the full grid's.

    Attributes:
        codebook_VC: the entries; a buffer, because moving averages update them, not a gradient.
    """

    def __init__(self, channels: int, codes: int, sides: Sequence[int]):
        super().__init__()
        self.sides = tuple(sides)
        self.register_buffer("codebook_VC", torch.randn(codes, channels))
        self.smooth = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in self.sides)

    def pooled(self, features_BCyx: Tensor, scale: int) -> Tensor:
        """Means over each cell of a scale, BCss."""
        return F.adaptive_avg_pool2d(features_BCyx, self.sides[scale])

    def nearest(self, features_BCss: Tensor) -> Tensor:
        """The code nearest to each cell, int64 Bss."""
        cells_BssC = features_BCss.permute(0, 2, 3, 1)
        # |a - b|^2 without |a|^2, which is the same for all codes
        distance_BssV = self.codebook_VC.square().sum(1) - 2 * cells_BssC @ self.codebook_VC.T
        return distance_BssV.argmin(-1)

    def spread(self, tokens_Bss: Tensor, scale: int) -> Tensor:
        """What a scale's tokens add to the full grid, BCyx."""
        entries_BCss = self.codebook_VC[tokens_Bss].permute(0, 3, 1, 2)
        if self.sides[scale] != self.sides[-1]:
            entries_BCss = F.interpolate(entries_BCss, (self.sides[-1],) * 2, mode="bicubic")
        return (1 - SMOOTHED) * entries_BCss + SMOOTHED * self.smooth[scale](entries_BCss)

    def tokens(self, features_BCyx: Tensor) -> list[Tensor]:
        """Token maps of all scales, int64 Bss each."""
        maps, accumulated_BCyx = [], torch.zeros_like(features_BCyx)
        for scale in range(len(self.sides)):
            tokens_Bss = self.nearest(self.pooled(features_BCyx - accumulated_BCyx, scale))
            accumulated_BCyx = accumulated_BCyx + self.spread(tokens_Bss, scale)
            maps.append(tokens_Bss)
        return maps


class TokenAutoencoder(nn.Module):
    """Convolutions from pictures in [-1, 1] to features at a quarter of the side and back, with a `ScaleQuantizer`.

    Args:
        widths: channels at half and at a quarter of the picture's side.
        channels, codes, sides: of the quantizer.
    """

    def __init__(self, widths: tuple[int, int], channels: int, codes: int, sides: Sequence[int]):
        super().__init__()
        half, quarter = widths
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(12, half, 3, padding=1),
            Residual(half),
            nn.Conv2d(half, quarter, 3, stride=2, padding=1),
            Residual(quarter),
            nn.GroupNorm(NORM_GROUPS, quarter),
            nn.SiLU(),
            nn.Conv2d(quarter, channels, 1),
        )
        self.quantizer = ScaleQuantizer(channels, codes, sides)
        self.decoder = nn.Sequential(
            nn.Conv2d(channels, quarter, 3, padding=1),
            Residual(quarter),
            Residual(quarter),
            nn.Conv2d(quarter, 4 * half, 1),
            nn.PixelShuffle(2),
            Residual(half),
            nn.GroupNorm(NORM_GROUPS, half),
            nn.SiLU(),
            nn.Conv2d(half, 12, 3, padding=1),
            nn.PixelShuffle(2),
        )
