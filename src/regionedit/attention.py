"""Cross-attention of a diffusers U-Net: record it for each word, and restrict it to a region.

Focus on Your Instruction (FoI, Guo & Lin 2024), eq. 2-7; equation numbers in this file are that paper's. A guidance
batch holds B samples with text and picture (I, T), then B with the picture alone (I, 0), then B with neither.

Shape letters: B samples, S samples of the guidance batch, E heads, Q queries (cells of a layer's grid, row by row),
N text tokens, D channels of a head, C channels of a layer, K sub-instructions, r c rows and columns of a grid,
h w rows and columns of the latent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROUNDS = 3
"""gamma of eq. 2."""

BLUR = (0.5, 3)
"""Standard deviation and width of the Gaussian filter before eq. 2, those of Attend-and-Excite."""

NO_SUB_INSTRUCTION = -1
"""Owner of a token of no sub-instruction: start, end and padding tokens, and the words between two instructions."""


# ---------------------------------------------------------------- eq. 2: the attention to a word becomes a map


def keyword_map(attention_BKrc: Tensor) -> Tensor:
    """Eq. 2 without the threshold: attention [B, K, r, c] becomes maps [B, K, r, c] in [0, 1], each with maximum 1.

    The map is smoothed, then squared and min-max normalised three times. A flat map becomes zeros.
    """
    map_BKrc = _smooth(attention_BKrc.float())
    for _ in range(ROUNDS):
        map_BKrc = _normalise(map_BKrc**2)
    return map_BKrc


def _smooth(map_BKrc: Tensor) -> Tensor:
    """Gaussian filter with reflected borders; a map with a single row or column repeats its border instead."""
    deviation, width = BLUR
    reach = width // 2
    weight_w = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=map_BKrc.device) / deviation) ** 2)
    weight_w = (weight_w / weight_w.sum()).to(map_BKrc)
    maps = map_BKrc.flatten(0, 1)[:, None]
    mode = "reflect" if min(map_BKrc.shape[-2:]) > reach else "replicate"
    maps = F.pad(maps, (reach,) * 4, mode=mode)
    maps = F.conv2d(F.conv2d(maps, weight_w.view(1, 1, -1, 1)), weight_w.view(1, 1, 1, -1))
    return maps.reshape(map_BKrc.shape)


def _normalise(map_BKrc: Tensor) -> Tensor:
    low = map_BKrc.amin((2, 3), keepdim=True)
    span = map_BKrc.amax((2, 3), keepdim=True) - low
    # Float32 has seven digits: a map whose values differ by less counts as flat.
    flat = span <= 1e-6 * (span + low)
    return torch.where(flat, 0, (map_BKrc - low) / torch.where(flat, 1, span))


# ---------------------------------------------------------------- eq. 3-7: restrict attention to its region


def strengthening(time: float) -> float:
    """Eq. 7, xi(t), for the timestep normalised to [0, 1]: 1 is pure noise."""
    return 0.05 * time**4


def modulate(x: Tensor, y: Tensor, mask: Tensor, alpha: Tensor, xi: float) -> Tensor:
    """Eq. 3 and 6: attention probabilities [B, E, Q, N].

    The paper does not say over what the maximum of eq. 6 is taken. Here it is taken over the tokens, for each head and
    query: a word's logit can at most rise to that of the token to which the query attends most. A maximum over the
    whole map would raise all words at queries that attend to no token in particular.

    Args:
        x: logits of the (I, T) branch, [B, E, Q, N], already divided by sqrt(d) (eq. 3 is linear up to its softmax).
        y: those of the (I, 0) branch.
        mask: M, [0, 1], [B, 1, Q, N].
        alpha: strength of each token's sub-instruction, [B, 1, 1, N].
        xi: of eq. 7.
    """
    raised = x + alpha * xi * (x.amax(-1, keepdim=True) - x)
    return torch.lerp(y, raised, mask).softmax(-1)


class Handler(Protocol):
    """A function that replaces a cross-attention layer; `own` computes the layer's unchanged output."""

    def __call__(self, layer: nn.Module, hidden_SQC: Tensor, context_SND: Tensor, own: Callable) -> Tensor: ...


class Modulation:
    """Applies eq. 3-7 to every cross-attention layer of the (I, T) branch; the other branches do not change.

    Masks are resampled to the grid of each layer by nearest neighbour. They stay hard, so that every logit is either X
    or Y, and do not grow in coarse layers.

    A token without sub-instruction uses the union of the sample's masks and is not strengthened: outside all regions a
    query attends exactly as without an instruction; inside one it attends to the start and end tokens as usual.

    Args:
        masks_BKhw: one mask per sub-instruction at the latent's resolution, [0, 1], 1 = edit.
        owners: per sample, the sub-instruction of each of its N tokens, or `NO_SUB_INSTRUCTION`.
        strengths: per sample, alpha of each sub-instruction; 1 is neutral.
    """

    def __init__(self, masks_BKhw: Tensor, owners: Sequence[Sequence[int]], strengths: Sequence[Sequence[float]]):
        self.size = tuple(masks_BKhw.shape[-2:])
        self.masks_BKhw = torch.cat([masks_BKhw.float(), masks_BKhw.float().amax(1, keepdim=True)], 1)
        self.owner_BN = torch.tensor(owners, device=masks_BKhw.device) % self.masks_BKhw.shape[1]  # -1 is the union
        alpha = [
            [0.0 if k == NO_SUB_INSTRUCTION else own_strengths[k] for k in owner]
            for owner, own_strengths in zip(owners, strengths, strict=True)
        ]
        self.alpha_B11N = torch.tensor(alpha, device=masks_BKhw.device)[:, None, None]
        self._masks_by_grid: dict[tuple[int, int], Tensor] = {}

    def at(self, time: float) -> Handler:
        """The handler for one denoising step, at a timestep normalised to [0, 1]."""
        xi = strengthening(time)

        def handle(layer: nn.Module, hidden_SQC: Tensor, context_SND: Tensor, own: Callable) -> Tensor:
            count = len(self.owner_BN)
            unchanged = own(hidden_SQC[count:], context_SND[count:])
            query, key = _logit_factors(layer, hidden_SQC[: 2 * count], context_SND[: 2 * count])
            x, y = (query @ key.transpose(-1, -2)).chunk(2)
            mask_B1QN = self._token_masks(layer_grid(hidden_SQC.shape[1], self.size))
            attention = modulate(x, y, mask_B1QN, self.alpha_B11N, xi)
            value = _split_heads(layer, layer.to_v(context_SND[:count]))
            mixed = (attention.to(value.dtype) @ value).transpose(1, 2).flatten(2)
            changed = layer.to_out[1](layer.to_out[0](mixed))
            return torch.cat([changed, unchanged])

        return handle

    def _token_masks(self, grid: tuple[int, int]) -> Tensor:
        """M of eq. 3 for one layer, [B, 1, Q, N]: every token has the mask of its sub-instruction."""
        if grid not in self._masks_by_grid:
            masks_BKQ = F.interpolate(self.masks_BKhw, grid, mode="nearest-exact").flatten(2)
            index_BNQ = self.owner_BN[:, :, None].expand(-1, -1, masks_BKQ.shape[-1])
            self._masks_by_grid[grid] = masks_BKQ.gather(1, index_BNQ).transpose(1, 2)[:, None]
        return self._masks_by_grid[grid]


# ---------------------------------------------------------------- record attention


class Recorder:
    """Records the cross-attention of the first B samples, averaged over heads, layers and steps; changes no output.

    It reads only layers with the requested grid and keeps only a running sum.

    Args:
        batch: B; in a guidance batch the first B samples are the (I, T) branch.
        latent: rows and columns of the latent.
        grid: rows and columns of the layers to read.
    """

    def __init__(self, batch: int, latent: tuple[int, int], grid: tuple[int, int]):
        self.batch, self.latent, self.grid = batch, latent, grid
        self._sum_BQN: Tensor | None = None
        self._count = 0
        self._grids: set[tuple[int, int]] = set()

    def __call__(self, layer: nn.Module, hidden_SQC: Tensor, context_SND: Tensor, own: Callable) -> Tensor:
        grid = layer_grid(hidden_SQC.shape[1], self.latent)
        self._grids.add(grid)
        if grid == self.grid:
            query, key = _logit_factors(layer, hidden_SQC[: self.batch], context_SND[: self.batch])
            attention_BQN = (query @ key.transpose(-1, -2)).softmax(-1).mean(1)
            self._sum_BQN = attention_BQN if self._sum_BQN is None else self._sum_BQN + attention_BQN
            self._count += 1
        return own(hidden_SQC, context_SND)

    def maps_BNrc(self) -> Tensor:
        """The average, [B, N, r, c] in [0, 1]: how much every cell attends to every token.

        Raises:
            ValueError: no layer has the requested grid; the message lists the grids that exist.
        """
        if self._sum_BQN is None:
            existing = ", ".join(f"{rows}x{columns}" for rows, columns in sorted(self._grids, reverse=True))
            raise ValueError(
                f"generator.attention_resolution: the U-Net has no cross-attention on a grid of {self.grid[0]}x"
                f"{self.grid[1]} cells for this picture; it has: {existing}; give the longer side of one of these"
            )
        return (self._sum_BQN / self._count).transpose(1, 2).unflatten(2, self.grid)


# ---------------------------------------------------------------- inside diffusers


@contextmanager
def attached(unet: nn.Module, handler: Handler) -> Iterator[None]:
    """Replace every cross-attention layer (attn2) of a U-Net by `handler`; on exit, also after an error, the layers get
    their own processors back."""
    originals = unet.attn_processors
    replaced = {
        name: _Processor(handler, original) if name.endswith("attn2.processor") else original
        for name, original in originals.items()
    }
    try:
        unet.set_attn_processor(replaced)
        yield
    finally:
        unet.set_attn_processor(originals)


class _Processor:
    """Adapts a handler to the calling convention of diffusers' attention processors."""

    def __init__(self, handler: Handler, original: Callable):
        self.handler = handler
        self.original = original

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None):
        def own(hidden_SQC: Tensor, context_SND: Tensor) -> Tensor:
            return self.original(attn, hidden_SQC, context_SND, attention_mask, temb)

        return self.handler(attn, hidden_states, encoder_hidden_states, own)


def layer_grid(queries: int, latent: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of a layer with `queries` queries: those of the latent, both divided by the same power of two.

    Raises:
        ValueError: no such power exists, because the latent's sides are not multiples of what the U-Net needs.
    """
    rows, columns = latent
    while rows * columns > queries and rows % 2 == 0 and columns % 2 == 0:
        rows, columns = rows // 2, columns // 2
    if rows * columns != queries:
        raise ValueError(f"latent: a layer of {queries} queries does not divide {latent[0]}x{latent[1]} evenly")
    return rows, columns


def _logit_factors(layer: nn.Module, hidden_SQC: Tensor, context_SND: Tensor) -> tuple[Tensor, Tensor]:
    """Float32 queries, divided by sqrt(d), and keys, [S, E, Q, D] and [S, E, N, D]; their product is the logits."""
    query = _split_heads(layer, layer.to_q(hidden_SQC)).float() * layer.scale
    return query, _split_heads(layer, layer.to_k(context_SND)).float()


def _split_heads(layer: nn.Module, values_SQC: Tensor) -> Tensor:
    return values_SQC.unflatten(2, (layer.heads, -1)).transpose(1, 2)
