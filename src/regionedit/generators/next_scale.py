"""Next-scale prediction (VAR, Tian et al. 2024), kept to the source outside the region at every scale.

The source becomes token maps of growing size. Scale by scale every cell's token is sampled, then the source's own is
put back where the region does not ask for the cell, and the accumulated features go on to the next scale: the zero-shot
editing that VAR's authors show, behind a protocol, so that the loop serves any model of the kind.

Shape letters: B batch, C channels, H W pixels, y x cells of the full grid, s cells on a scale's side, V codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self

import torch
import torch.nn.functional as F

from regionedit.generators.base import Generator, noise_seed

if TYPE_CHECKING:
    from torch import Tensor

    from regionedit.config import GeneratorConfig
    from regionedit.generators.base import Watch

UNKNOWN = -1
"""In a token map: to be sampled."""

COVERED = 0.0
"""A cell is asked for when the region covers more of it than this share."""


class ScaleWise(Protocol):
    """What the loop asks of a next-scale model.

    Attributes:
        image_size: side of the pictures it paints.
        sides: cells on the side of each scale, growing.
    """

    image_size: int
    sides: tuple[int, ...]

    def encode(self, images_BCHW: Tensor) -> list[Tensor]:
        """Token maps of pictures in [0, 1], int64 Bss for each scale."""

    def read(self, texts: Sequence[str], images_BCHW: Tensor, mask_B1HW: Tensor) -> Any:
        """What `logits` takes: the texts, "" for none, and, if the model looks at them, the sources outside the mask of
        0 and 1."""

    def start(self, count: int) -> Tensor:
        """What stands before the first scale, BCyx."""

    def logits(self, scale: int, standing_BCyx: Tensor, known_Bss: Tensor, condition: Any) -> Tensor:
        """Of every cell of a scale, BssV. `known_Bss` holds the tokens that stay, UNKNOWN where one is to be sampled;
        a model may pass over it."""

    def accumulate(self, scale: int, standing_BCyx: Tensor, tokens_Bss: Tensor) -> Tensor:
        """What stands after a scale, a new BCyx."""

    def decode(self, standing_BCyx: Tensor) -> Tensor:
        """Pictures, BCHW in [0, 1]."""

    def to(self, device: str | torch.device) -> Self: ...


class NextScale(Generator):
    """A frozen next-scale model that repaints the cells of a region and is held to the source everywhere else.

    Args:
        model: see `ScaleWise`.
        config: guidance, which rises from none at the first scale to its value at the last, as VAR's; token_temperature
            and top_k. It has no steps: each scale is one.

    Raises:
        ValueError: a size that is not the model's, or a setting outside its range.
    """

    needs = "target_caption"

    def __init__(self, model: ScaleWise, config: GeneratorConfig):
        if config.size != model.image_size:
            raise ValueError(
                f"generator.size: {config.size}, but this next-scale model paints {model.image_size} pixels a side and "
                f"nothing else; set it to {model.image_size}"
            )
        for setting, zero in (("token_temperature", "takes the likeliest token"), ("top_k", "leaves all tokens")):
            if getattr(config, setting) < 0:
                raise ValueError(f"generator.{setting}: {getattr(config, setting)} is negative; 0 {zero}")
        self.model, self.config = model, config
        self.size = self.multiple = model.image_size

    @classmethod
    def precision_of(cls, config: GeneratorConfig, device: str | torch.device) -> str:
        """float32 for `auto`: NextScaleModel and VAR have no other."""
        return "float32" if config.precision == "auto" else config.precision

    @classmethod
    def load(cls, config: GeneratorConfig) -> Self:
        """Read a NextScaleModel folder; with `generator.checkout`, the weights of that checkout's model."""
        if config.checkout is not None:
            from regionedit.generators.next_scale_checkouts import load_checkout

            return cls(load_checkout(config), config)
        from safetensors import SafetensorError

        from regionedit.generators.next_scale_model import NextScaleModel

        if config.precision != "float32":
            raise ValueError(f"generator.precision: {config.precision}: NextScaleModel computes in float32 alone")
        try:
            model = NextScaleModel.load(config.path)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            raise ValueError(
                f"generator.path: no next-scale model could be loaded from {config.path!r}, as NextScaleModel.save "
                f"writes one: {' '.join(str(error).split())[:200]}"
            ) from error
        return cls(model, config)

    def using(self, config: GeneratorConfig) -> Self:
        return type(self)(self.model, config)

    def to(self, device: str | torch.device) -> Self:
        self.model.to(device)
        return self

    def generate(self, images_BCHW: Tensor, mask_B1HW: Tensor, texts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        config = self.config
        return repaint_scales(
            self.model,
            images_BCHW,
            mask_B1HW,
            texts,
            seeds,
            config.guidance,
            config.token_temperature,
            config.top_k,
            self._watch,
        ).to(images_BCHW)


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
    """Pictures of which every token outside the mask is the source's: BCHW in [0, 1].

    Args:
        images_BCHW: the sources, [0, 1], at the model's size.
        mask_B1HW: [0, 1]; from one half on a pixel is repainted, for a token is kept or drawn and nothing between.
        seeds: one for each picture, which alone decide what is drawn for it.
        guidance: at the last scale; 1 computes no branch without text.
        watch: told after every scale.
    """
    count, scales = len(texts), len(model.sides)
    standing_BCyx = model.start(count)
    images_BCHW = images_BCHW.to(standing_BCyx)
    source = model.encode(images_BCHW)
    guided = guidance != 1
    hard_B1HW = (mask_B1HW.to(standing_BCyx) >= 0.5).to(standing_BCyx)
    if guided:
        both = [tensor.repeat(2, 1, 1, 1) for tensor in (images_BCHW, hard_B1HW)]
        condition = model.read([*texts, *[""] * count], *both)
    else:
        condition = model.read(texts, images_BCHW, hard_B1HW)
    for scale, source_Bss in enumerate(source):
        asked_Bss = asked_for(hard_B1HW, model.sides[scale])
        known_Bss = source_Bss.masked_fill(asked_Bss, UNKNOWN)
        if guided:
            logits = model.logits(scale, standing_BCyx.repeat(2, 1, 1, 1), known_Bss.repeat(2, 1, 1), condition)
            with_text_BssV, without_BssV = logits.chunk(2)
            strength = 1 + (guidance - 1) * scale / max(scales - 1, 1)
            logits_BssV = without_BssV + strength * (with_text_BssV - without_BssV)
        else:
            logits_BssV = model.logits(scale, standing_BCyx, known_Bss, condition)
        drawn_Bss = draw(logits_BssV, [noise_seed(seed, scale) for seed in seeds], temperature, top_k)
        standing_BCyx = model.accumulate(scale, standing_BCyx, torch.where(asked_Bss, drawn_Bss, source_Bss))
        if watch is not None:
            watch(scale + 1, scales, lambda standing=standing_BCyx: model.decode(standing))
    return model.decode(standing_BCyx)


def asked_for(mask_B1HW: Tensor, side: int, covered: float = COVERED) -> Tensor:
    """Cells of a scale of which the mask covers more than a share, bool Bss."""
    return F.adaptive_avg_pool2d(mask_B1HW, side)[:, 0] > covered


def draw(logits_BssV: Tensor, seeds: Sequence[int], temperature: float, top_k: int) -> Tensor:
    """A token for each cell, int64 Bss, by its own picture's seed: the largest sum of logit and Gumbel noise."""
    if temperature == 0:
        return logits_BssV.argmax(-1)
    logits_BssV = logits_BssV / temperature
    if 0 < top_k < logits_BssV.shape[-1]:
        least_Bss1 = logits_BssV.topk(top_k).values[..., -1:]
        logits_BssV = logits_BssV.masked_fill(logits_BssV < least_Bss1, -torch.inf)
    shape = logits_BssV.shape[1:]
    uniform = [torch.rand(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    gumbel_BssV = -(-torch.stack(uniform).clamp(min=1e-20).log()).log()
    return (logits_BssV + gumbel_BssV.to(logits_BssV)).argmax(-1)
