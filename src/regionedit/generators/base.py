"""The interface of every frozen generator.

Shape letters: B batch, C channels, H W pixels, h w pixels of fitted pictures, y x latent cells. Images are [0, 1];
masks are [0, 1] and 1 means edit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, Self

import torch
import torch.nn.functional as F

from regionedit.command_line import one_line
from regionedit.device import autocast_off, pick_dtype
from regionedit.generators.noise import noise_seed, own_noise
from regionedit.resampling import fit, unfit

if TYPE_CHECKING:
    from torch import Tensor

    from regionedit.config import GeneratorConfig, MemoryConfig
    from regionedit.records import Captions, EditRequest, Region
    from regionedit.resampling import Fit

Need = Literal["target_caption", "instruction"]

Watch = Callable[[int, int, Callable[[], "Tensor"]], None]
"""Callback `(step, total, decode_preview)`, called after every denoising step. `step` counts from 1. `decode_preview()`
decodes the current estimate of the clean pictures, BCHW in [0, 1]. An exception in the callback ends the edit."""

COMPARED_DRAWS = 8  # noise draws that `compare_texts` averages over; DiffEdit uses 10
OUTLIERS = 3.0  # `compare_texts` clips differences at this multiple of their mean, as diffusers' DiffEdit


class Generator(ABC):
    """A frozen image generator that repaints the masked part of a picture according to a text.

    It computes in its configured precision: autocast is off inside.

    Attributes:
        needs: the text that it follows: the caption of the edited picture, or the instruction itself. If this depends
            on the checkpoint, the class has no such attribute, and `needs_of` finds it before any weights are loaded.
        multiple: `generate` accepts heights and widths that are multiples of this.
        size: the longer side, in pixels, at which it works; 0 keeps the picture's own size.
        tokenize: from texts to their ids [texts, L], for generators that also take `text_ids_BL`; needs no weights.
    """

    needs: Need
    multiple: int
    size: int
    tokenize: Callable[[Sequence[str]], Tensor] | None = None

    @classmethod
    def needs_of(cls, config: GeneratorConfig) -> Need:
        """`needs` of the generator that `load` would return; loads no weights."""
        return cls.needs

    @classmethod
    def dtype_of(cls, config: GeneratorConfig, device: str | torch.device) -> str:
        """The dtype that `generator.dtype` selects on this device, such as "float32"; loads no weights."""
        return pick_dtype(config.dtype, device)

    @classmethod
    @abstractmethod
    def load(cls, config: GeneratorConfig) -> Self:
        """Read the frozen weights onto the CPU; the caller has replaced a `config.dtype` of `auto`. Raises ValueError
        if `config.path` does not hold them."""

    @abstractmethod
    def using(self, config: GeneratorConfig) -> Self:
        """The same weights with other settings: steps, guidance, size. Raises ValueError if a setting cannot change."""

    @abstractmethod
    def to(self, device: str | torch.device) -> Self:
        """Move the frozen weights; each call moves its own inputs."""

    @abstractmethod
    def generate(
        self,
        images_BCHW: Tensor,
        mask_B1HW: Tensor,
        texts: Sequence[str],
        seeds: Sequence[int],
        watch: Watch | None = None,
    ) -> Tensor:
        """Raw output, BChw in [0, 1], for pictures whose size is a multiple of `multiple`; called without gradient.

        A sample's noise depends only on its own seed, so batch size and order never change a picture. `watch` is called
        after every denoising step.
        """

    @torch.no_grad()
    def propose(
        self,
        images_BCHW: Tensor,
        mask_B1HW: Tensor,
        texts: Sequence[str],
        seeds: Sequence[int],
        watch: Watch | None = None,
        **known: Tensor,
    ) -> Tensor:
        """The generator's raw pictures, not composited with the source: BCHW in [0, 1], the input's size, no gradient.

        Args:
            images_BCHW: [0, 1], any size.
            mask_B1HW: [0, 1], 1 = edit.
            texts: one per picture: captions of the edited pictures or instructions, see `needs`.
            seeds: one per picture, in [0, 2^63).
            watch: callback, called after every denoising step.
            known: what `generate` of this class takes instead of computing it, such as `source_latents_BChw`.
        """
        fitted_BChw, placement = fit(images_BCHW, self.size, self.multiple)
        mask_B1hw = fit_soft_mask(mask_B1HW, placement, fitted_BChw)
        with autocast_off(images_BCHW.device):
            return unfit(self.generate(fitted_BChw, mask_B1hw, texts, seeds, watch, **known), placement)

    def repaint(
        self,
        images_BCHW: Tensor,
        region: Region,
        requests: Sequence[EditRequest],
        captions: Sequence[Captions | None],
        seeds: Sequence[int],
        watch: Watch | None = None,
    ) -> Tensor:
        """The pictures that an edit composites with the source: BCHW in [0, 1], no gradient.

        The generator is conditioned on a hard mask, because public in-painters support no soft masks; compositing uses
        the soft mask.

        Args:
            region: of these pictures, at their size.
            captions: read by generators that need the target caption; for others the entries may be None.

        Raises:
            ValueError: the region lacks something that these requests need; the message says what.
        """
        texts = self.texts_of(requests, captions)
        return self.propose(images_BCHW, (region.mask_B1HW > 0).float(), texts, seeds, watch)

    def texts_of(self, requests: Sequence[EditRequest], captions: Sequence[Captions | None]) -> list[str]:
        """The text of each request that this generator follows, see `needs`."""
        if self.needs == "instruction":
            return [request.instruction for request in requests]
        return [caption.target for caption in captions]


class DifferentiableGenerator(Generator):
    """A generator whose output is differentiable with respect to the mask."""

    @abstractmethod
    def save_memory(self, memory: MemoryConfig) -> None:
        """Apply the memory settings that this generator supports; called once, before the first step."""

    @abstractmethod
    def differentiable_latents(
        self,
        images_BCHW: Tensor,
        mask_B1HW: Tensor,
        texts: Sequence[str],
        seeds: Sequence[int],
        gradient: Literal["latent", "last_step", "full"],
        proposal_mask_B1HW: Tensor | None = None,
        source_latents_BCyx: Tensor | None = None,
        text_ids_BL: Tensor | None = None,
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Denoised latents of edited pictures, and their decoder: it takes most memory, so a caller can decode a few.

        Args:
            images_BCHW: [0, 1], any size.
            mask_B1HW: [0, 1], soft, 1 = edit; the gradient goes here.
            gradient: what it passes through. `latent`: the blend of latents and the decoder; `last_step`: also the last
                denoising step; `full`: the last `generator.gradient_steps` steps.
            proposal_mask_B1HW: only for `latent`: the mask that conditions the generator instead of `mask_B1HW`.
            source_latents_BCyx: the pictures' latents; None: encode the pictures.
            text_ids_BL: the texts as `tokenize` makes them; None: tokenise them.

        Returns:
            The latents, BCyx, and a function that decodes any number of their rows into pictures.
        """


class TextComparer(Generator):
    """A generator that can predict where two texts would lead to different pictures."""

    @torch.no_grad()
    def compare_texts(
        self, images_BCHW: Tensor, first: Sequence[str], second: Sequence[str], seeds: Sequence[int]
    ) -> Tensor:
        """How much its predictions for the two texts differ at each pixel, [B, 1, H, W] in [0, 1].

        It averages the absolute difference over several noise draws, relative to the picture's own mean; DiffEdit
        (Couairon et al. 2022).
        """
        fitted_BChw, placement = fit(images_BCHW, self.size, self.multiple)
        with autocast_off(images_BCHW.device):
            clean_BCyx, predict = self._predictor(fitted_BChw, [*first, *second])
            total_B1yx = 0
            for draw in range(COMPARED_DRAWS):
                noise_BCyx = own_noise([noise_seed(seed, draw) for seed in seeds], clean_BCyx)
                one, other = predict(noise_BCyx).chunk(2)
                total_B1yx = total_B1yx + (one - other).abs().mean(1, keepdim=True).float()
        limit_B111 = OUTLIERS * total_B1yx.mean((1, 2, 3), keepdim=True).clamp(min=1e-12)
        map_B1hw = F.interpolate((total_B1yx / limit_B111).clamp(max=1), fitted_BChw.shape[-2:], mode="bilinear")
        return unfit(map_B1hw, placement).to(images_BCHW)

    @abstractmethod
    def _predictor(self, fitted_BChw: Tensor, texts: Sequence[str]) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """The clean latents of the pictures, and a function from noise to the U-Net's prediction.

        The function adds the noise to the latents at half of the schedule and predicts for all texts, whose number is a
        multiple of B."""


@contextmanager
def loading(field: str, what: str, path: str) -> Iterator[None]:
    """Inside, a library reads weights; its errors become one line that names the field.

    Raises:
        ValueError: the weights could not be read.
    """
    try:
        yield
    except Exception as error:  # libraries fail in many ways: safetensors, sizes that differ, missing files
        reason = one_line(error, 200)
        raise ValueError(f"{field}: no {what} could be loaded from {path!r}: {reason}") from error


def fit_soft_mask(mask_B1HW: Tensor, placed: Fit, fitted_BChw: Tensor) -> Tensor:
    """The mask in the coordinates of the fitted picture, 0 in the padding.

    Each pixel takes the maximum of the pixels that it replaces, so everything that is composited later lies inside what
    the generator repaints. Soft masks stay soft and differentiable, hard masks stay hard.
    """
    mask_B1HW = mask_B1HW.float()
    size = placed.inner_height, placed.inner_width
    # The maxima are gathered, because the pooling's own gradient has no deterministic version on a GPU.
    _, places_B1hw = F.adaptive_max_pool2d(mask_B1HW.detach(), size, return_indices=True)
    inner = mask_B1HW.flatten(2).gather(2, places_B1hw.flatten(2)).unflatten(2, size)
    height, width = fitted_BChw.shape[-2:]
    return F.pad(inner, (0, width - placed.inner_width, 0, height - placed.inner_height))


def step_of_all(watch: Watch, number: int, calls: int, whole: Callable[[Tensor], Tensor]) -> Watch:
    """The `watch` for one of several calls of a generator: it reports each step as a step of all calls.

    Args:
        number: of the call, from 0.
        calls: number of calls.
        whole: from the preview of this call to the preview of all pictures.
    """

    def report(step: int, steps: int, decode_preview: Callable[[], Tensor]) -> None:
        watch(number * steps + step, calls * steps, lambda: whole(decode_preview()))

    return report
