"""What every frozen generator promises.

Shape letters: B batch, C channels, H W pixels, h w pixels of fitted pictures, y x latent cells. Images are [0, 1];
masks are [0, 1] and 1 means edit.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, Self

import torch
import torch.nn.functional as F

from regionedit.device import autocast_off, pick_precision
from regionedit.images import fit, unfit
from regionedit.masks import composite

if TYPE_CHECKING:
    from torch import Tensor

    from regionedit.config import GeneratorConfig, SaversConfig
    from regionedit.images import Fit
    from regionedit.records import Captions, EditRequest, Region

Need = Literal["target_caption", "instruction"]

COMPARED_DRAWS = 8
"""Noise draws over which two texts are compared; DiffEdit takes 10."""

Watch = Callable[[int, int, Callable[[], "Tensor"]], None]
"""Told after a denoising step: its number from 1, how many there are, and how to see the clean pictures as they are
guessed now, BCHW in [0, 1], which costs a decoding. What it raises ends the edit."""

OUTLIERS = 3.0
"""Differences count as far as this many times a picture's mean, as in diffusers' DiffEdit."""


class Generator(ABC):
    """A frozen image generator that repaints the masked part of a picture as a text says.

    Its configured precision alone decides: autocast is off inside.

    Attributes:
        needs: which text it follows: the caption of the edited picture, or the instruction itself. Where that is a
            matter of the checkpoint, the class has none, and `needs_of` answers before anything is loaded.
        multiple: height and width that `generate` accepts are multiples of this.
        size: longer side, in pixels, at which it works; 0 keeps the picture's own.
    """

    needs: Need
    multiple: int
    size: int
    _watch: Watch | None = None

    @classmethod
    def needs_of(cls, config: GeneratorConfig) -> Need:
        """`needs` of what `load` would give; loads no weights."""
        return cls.needs

    @classmethod
    def precision_of(cls, config: GeneratorConfig, device: str | torch.device) -> str:
        """What `generator.precision` stands for on this device; loads no weights."""
        return pick_precision(config.precision, device)

    @classmethod
    @abstractmethod
    def load(cls, config: GeneratorConfig) -> Self:
        """Read the frozen weights, on the CPU; the precision is settled. Raises ValueError when `config.path` does not
        hold them."""

    @abstractmethod
    def using(self, config: GeneratorConfig) -> Self:
        """The same weights under other settings: steps, guidance, size. Raises ValueError: one that cannot be."""

    @contextmanager
    def watched(self, watch: Watch | None) -> Iterator[None]:
        """Inside, `watch` is told of every denoising step of `generate`; None: nobody is."""
        self._watch = watch
        try:
            yield
        finally:
            self._watch = None

    @abstractmethod
    def to(self, device: str | torch.device) -> Self:
        """Move the frozen weights; inputs are moved by the calls themselves."""

    @abstractmethod
    def generate(self, images_BCHW: Tensor, mask_B1HW: Tensor, texts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        """Raw output at a size that is already a multiple of `multiple`, BChw in [0, 1]; never called with gradient.

        Noise depends on the sample's own seed only, so that batch size and order never change a picture.
        """

    @torch.no_grad()
    def propose(self, images_BCHW: Tensor, mask_B1HW: Tensor, texts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        """The generator's raw pictures, not composed with the source: BCHW in [0, 1], the input's size, no gradient.

        Args:
            images_BCHW: [0, 1], any size.
            mask_B1HW: [0, 1], 1 = edit.
            texts: one per picture; captions of the edited pictures or instructions, see `needs`.
            seeds: one per picture, see `noise_seed`.
        """
        fitted_BChw, placed = fit(images_BCHW, self.size, self.multiple)
        mask_B1hw = fit_soft_mask(mask_B1HW, placed, fitted_BChw)
        with autocast_off(images_BCHW.device):
            return unfit(self.generate(fitted_BChw, mask_B1hw, texts, seeds), placed)

    def edit(
        self,
        images_BCHW: Tensor,
        region: Region,
        requests: Sequence[EditRequest],
        captions: Sequence[Captions | None],
        seeds: Sequence[int],
    ) -> Tensor:
        """Edited pictures, BCHW in [0, 1]; bit for bit the source where the region's mask is 0.

        Args:
            captions: read only by generators that need the target caption; otherwise entries may be None.

        Raises:
            ValueError: what the region lacks for these requests.
        """
        repainted_BCHW = self.repaint(images_BCHW, region, requests, captions, seeds)
        return composite(repainted_BCHW, images_BCHW, region.mask_B1HW)

    def repaint(
        self,
        images_BCHW: Tensor,
        region: Region,
        requests: Sequence[EditRequest],
        captions: Sequence[Captions | None],
        seeds: Sequence[int],
    ) -> Tensor:
        """What `edit` composes with the source: BCHW in [0, 1], no gradient.

        The generator is conditioned on the hard region (public in-painters know no soft masks); composing is soft.
        """
        if self.needs == "instruction":
            texts = [request.instruction for request in requests]
        else:
            texts = [caption.target for caption in captions]
        return self.propose(images_BCHW, (region.mask_B1HW > 0).float(), texts, seeds)


class DifferentiableGenerator(Generator):
    """A generator whose result can carry a gradient back to the mask."""

    @abstractmethod
    def latents_with_gradient(
        self,
        images_BCHW: Tensor,
        mask_B1HW: Tensor,
        texts: Sequence[str],
        seeds: Sequence[int],
        gradient: str,
        proposal_mask_B1HW: Tensor,
    ) -> Tensor:
        """The denoised latents that carry the gradient, BCyx, at a size that is already a multiple of `multiple`."""

    @abstractmethod
    def decode(self, latents_BCyx: Tensor) -> Tensor:
        """Pictures, BChw in [0, 1]; each from its own latent alone."""

    @abstractmethod
    def save(self, savers: SaversConfig) -> None:
        """Switch on what this generator has of them; once, before the first step."""

    def begin_with_gradient(
        self,
        images_BCHW: Tensor,
        mask_B1HW: Tensor,
        texts: Sequence[str],
        seeds: Sequence[int],
        gradient: Literal["latent", "last_step", "full"],
        proposal_mask_B1HW: Tensor | None = None,
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """`propose_with_gradient`, but for the last part, which takes most memory: the latents, BCyx, and what makes
        pictures of any number of their rows."""
        fitted_BChw, placed = fit(images_BCHW, self.size, self.multiple)
        mask_B1hw = fit_soft_mask(mask_B1HW, placed, fitted_BChw)
        proposal_mask_B1hw = mask_B1hw
        if proposal_mask_B1HW is not None:
            proposal_mask_B1hw = fit_soft_mask(proposal_mask_B1HW, placed, fitted_BChw)
        device = images_BCHW.device
        with autocast_off(device):
            latents_BCyx = self.latents_with_gradient(
                fitted_BChw, mask_B1hw, texts, seeds, gradient, proposal_mask_B1hw
            )

        def finish(rows_BCyx: Tensor) -> Tensor:
            with autocast_off(device):
                return unfit(self.decode(rows_BCyx).to(images_BCHW), placed)

        return latents_BCyx, finish

    def propose_with_gradient(
        self,
        images_BCHW: Tensor,
        mask_B1HW: Tensor,
        texts: Sequence[str],
        seeds: Sequence[int],
        gradient: Literal["latent", "last_step", "full"],
        proposal_mask_B1HW: Tensor | None = None,
    ) -> Tensor:
        """Edited pictures, BCHW in [0, 1], differentiable with respect to the mask.

        Args:
            mask_B1HW: [0, 1], soft, 1 = edit; the gradient goes here.
            gradient: `latent`: through the blend of latents and the decoder; `last_step`: also through the last
                denoising step; `full`: through the last `generator.gradient_steps` steps.
            proposal_mask_B1HW: for `latent` only, what conditions the generator instead of the mask.
        """
        latents_BCyx, finish = self.begin_with_gradient(
            images_BCHW, mask_B1HW, texts, seeds, gradient, proposal_mask_B1HW
        )
        return finish(latents_BCyx)


class TextComparer(ABC):
    """A generator that can say where two texts would paint different things."""

    @abstractmethod
    def compare_texts(
        self, images_BCHW: Tensor, first: Sequence[str], second: Sequence[str], seeds: Sequence[int]
    ) -> Tensor:
        """How much its predictions for the two texts differ at every place, [B, 1, H, W] in [0, 1].

        The absolute difference, averaged over several noise draws, relative to the picture's own mean; DiffEdit
        (Couairon et al. 2022).
        """


def relative_difference(differences_B1yx: Tensor, fitted_BChw: Tensor) -> Tensor:
    """Summed differences of latent cells as `compare_texts` gives them, [B, 1, h, w] of the fitted pictures."""
    most_B111 = OUTLIERS * differences_B1yx.mean((1, 2, 3), keepdim=True).clamp(min=1e-12)
    return F.interpolate((differences_B1yx / most_B111).clamp(max=1), fitted_BChw.shape[-2:], mode="bilinear")


def own_noise(seeds: Sequence[int], like_BCyx: Tensor) -> Tensor:
    """Normal noise drawn on the CPU for each sample alone, so that neither device nor batch changes it."""
    drawn = [torch.randn(like_BCyx.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(drawn).to(like_BCyx)


@contextmanager
def loading(field: str, what: str, path: str) -> Iterator[None]:
    """Inside, a library reads weights; what it raises becomes one line that names the field.

    Raises:
        ValueError: they could not be read.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{field}: no {what} could be loaded from {path!r}: {reason}") from error


def noise_seed(seed: int, *identity: str | int) -> int:
    """A seed for one picture's noise, the same on every machine: of (seed, case id), in training (seed, epoch, key)."""
    digest = hashlib.sha256(repr((seed, *identity)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def fit_soft_mask(mask_B1HW: Tensor, placed: Fit, fitted_BChw: Tensor) -> Tensor:
    """The mask in the fitted picture's frame, 0 in the padding.

    A pixel counts as much as the most edited of those it stands for, so that what is composed later lies inside what
    the generator was asked to paint. Soft masks stay soft and differentiable, hard ones hard.
    """
    inner = F.adaptive_max_pool2d(mask_B1HW.float(), (placed.inner_height, placed.inner_width))
    height, width = fitted_BChw.shape[-2:]
    return F.pad(inner, (0, width - placed.inner_width, 0, height - placed.inner_height))
