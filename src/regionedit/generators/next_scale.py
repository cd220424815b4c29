"""Next-scale prediction (VAR, Tian et al. 2024) that keeps the source outside the region at every scale.

The source is encoded as token maps of growing size. At each scale the model samples a token for every cell, the
source's token replaces it outside the region, and the accumulated features are the input of the next scale. This is
the zero-shot editing of VAR's authors. The loop only needs a protocol, so it serves any model of this kind.

Shape letters: B batch, C channels, H W pixels, y x cells of the full grid, s cells on a scale's side, V codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self

import torch
import torch.nn.functional as F

from regionedit.command_line import one_line
from regionedit.generators.base import Generator
from regionedit.generators.next_scale_tokens import UNKNOWN
from regionedit.generators.noise import noise_seed

if TYPE_CHECKING:
    from torch import Tensor

    from regionedit.config import NextScaleConfig
    from regionedit.generators.base import Watch

COVERED = 0.0
"""A cell is repainted if the region covers more than this share of it."""


class ScaleWise(Protocol):
    """The interface of a next-scale model that the loop needs.

    Attributes:
        image_size: side of the pictures that it generates.
        sides: number of cells on the side of each scale, growing.
    """

    image_size: int
    sides: tuple[int, ...]

    def encode(self, images_BCHW: Tensor) -> list[Tensor]:
        """Token maps of pictures in [0, 1], int64 Bss for each scale."""

    def read(self, texts: Sequence[str], images_BCHW: Tensor, mask_B1HW: Tensor) -> Any:
        """The condition for `logits`: the texts ("" is no text) and, if the model uses them, the sources outside a mask
        of 0 and 1."""

    def start(self, count: int) -> Tensor:
        """The accumulated features before the first scale, BCyx."""

    def logits(self, scale: int, accumulated_BCyx: Tensor, known_Bss: Tensor, condition: Any) -> Tensor:
        """Logits of every cell of a scale, BssV, given the accumulated features `accumulated_BCyx`.

        Called once for each scale, in their order. `known_Bss` holds the tokens that are kept and UNKNOWN where one is
        to be sampled; a model may ignore it.
        """

    def accumulate(self, scale: int, accumulated_BCyx: Tensor, tokens_Bss: Tensor) -> Tensor:
        """The accumulated features after a scale, as a new BCyx."""

    def decode(self, accumulated_BCyx: Tensor) -> Tensor:
        """Pictures, BCHW in [0, 1]."""

    def to(self, device: str | torch.device) -> Self: ...


class NextScale(Generator):
    """A frozen next-scale model that repaints the cells of a region and keeps the source's tokens everywhere else.

    Raises:
        ValueError: a size that is not the model's.
    """

    needs = "target_caption"

    def __init__(self, model: ScaleWise, config: NextScaleConfig):
        if config.size != model.image_size:
            raise ValueError(
                f"generator.size: {config.size}, but this next-scale model only generates pictures of "
                f"{model.image_size} x {model.image_size} pixels; set it to {model.image_size}"
            )
        self.model, self.config = model, config
        self.size = self.multiple = model.image_size

    @classmethod
    def dtype_of(cls, config: NextScaleConfig, device: str | torch.device) -> str:
        """float32 for `auto`: NextScaleModel and VAR support no other precision."""
        return "float32" if config.dtype == "auto" else config.dtype

    @classmethod
    def load(cls, config: NextScaleConfig) -> Self:
        """Read a NextScaleModel folder or, with `generator.checkout`, the weights of that checkout's model."""
        if config.checkout is not None:
            from regionedit.generators.next_scale_checkouts import load_checkout

            return cls(load_checkout(config), config)
        from safetensors import SafetensorError

        from regionedit.generators.next_scale_model import NextScaleModel

        if config.dtype != "float32":
            raise ValueError(f"generator.dtype: {config.dtype}, but NextScaleModel supports only float32")
        try:
            model = NextScaleModel.load(config.path)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            raise ValueError(
                f"generator.path: no next-scale model could be loaded from {config.path!r}; it must be a folder "
                f"that NextScaleModel.save wrote: {one_line(error, 200)}"
            ) from error
        return cls(model, config)

    def using(self, config: NextScaleConfig) -> Self:
        return type(self)(self.model, config)

    def to(self, device: str | torch.device) -> Self:
        self.model.to(device)
        return self

    def generate(
        self,
        images_BCHW: Tensor,
        mask_B1HW: Tensor,
        texts: Sequence[str],
        seeds: Sequence[int],
        watch: Watch | None = None,
    ) -> Tensor:
        config = self.config
        sampling = config.guidance_scale, config.temperature, config.top_k
        edited_BCHW = repaint_scales(self.model, images_BCHW, mask_B1HW, texts, seeds, *sampling, watch)
        return edited_BCHW.to(images_BCHW)


def repaint_scales(
    model: ScaleWise,
    images_BCHW: Tensor,
    mask_B1HW: Tensor,
    texts: Sequence[str],
    seeds: Sequence[int],
    guidance: float = 1.0,
    temperature: float = 1.0,
    top_k: int = 0,
    watch: Watch | None = None,
) -> Tensor:
    """Pictures whose tokens outside the mask are all the source's: BCHW in [0, 1].

    Args:
        images_BCHW: the sources, [0, 1], at the model's size.
        mask_B1HW: [0, 1]; a pixel is repainted from one half on, because a token is either kept or sampled.
        seeds: one per picture; all random numbers of a picture come from its own seed.
        guidance: at the last scale; it grows from none at the first, as in VAR; 1 computes no branch without text.
    """
    count, scales = len(texts), len(model.sides)
    features_BCyx = model.start(count)
    images_BCHW = images_BCHW.to(features_BCyx)
    source = model.encode(images_BCHW)
    guided = guidance != 1
    hard_B1HW = (mask_B1HW.to(features_BCyx) >= 0.5).to(features_BCyx)
    if guided:
        both = [tensor.repeat(2, 1, 1, 1) for tensor in (images_BCHW, hard_B1HW)]
        condition = model.read([*texts, *[""] * count], *both)
    else:
        condition = model.read(texts, images_BCHW, hard_B1HW)
    for scale, source_Bss in enumerate(source):
        edited_Bss = edited_cells(hard_B1HW, model.sides[scale])
        known_Bss = source_Bss.masked_fill(edited_Bss, UNKNOWN)
        if guided:
            logits = model.logits(scale, features_BCyx.repeat(2, 1, 1, 1), known_Bss.repeat(2, 1, 1), condition)
            with_text_BssV, without_BssV = logits.chunk(2)
            strength = 1 + (guidance - 1) * scale / max(scales - 1, 1)
            logits_BssV = without_BssV + strength * (with_text_BssV - without_BssV)
        else:
            logits_BssV = model.logits(scale, features_BCyx, known_Bss, condition)
        sampled_Bss = draw(logits_BssV, [noise_seed(seed, scale) for seed in seeds], temperature, top_k)
        features_BCyx = model.accumulate(scale, features_BCyx, torch.where(edited_Bss, sampled_Bss, source_Bss))
        if watch is not None:
            watch(scale + 1, scales, lambda features=features_BCyx: model.decode(features))
    return model.decode(features_BCyx)


def edited_cells(mask_B1HW: Tensor, side: int, covered: float = COVERED) -> Tensor:
    """The cells of a scale of which the mask covers more than the share `covered`, bool Bss."""
    return F.adaptive_avg_pool2d(mask_B1HW, side)[:, 0] > covered


def draw(logits_BssV: Tensor, seeds: Sequence[int], temperature: float, top_k: int) -> Tensor:
    """Sample a token for each cell, int64 Bss, with its picture's seed: the largest sum of logit and Gumbel noise."""
    if temperature == 0:
        return logits_BssV.argmax(-1)
    logits_BssV = logits_BssV / temperature
    if 0 < top_k < logits_BssV.shape[-1]:
        lowest_Bss1 = logits_BssV.topk(top_k).values[..., -1:]
        logits_BssV = logits_BssV.masked_fill(logits_BssV < lowest_Bss1, -torch.inf)
    shape = logits_BssV.shape[1:]
    uniform = [torch.rand(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    gumbel_BssV = -(-torch.stack(uniform).clamp(min=1e-20).log()).log()
    return (logits_BssV + gumbel_BssV.to(logits_BssV)).argmax(-1)
