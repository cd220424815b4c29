"""The records that editing, training and evaluation exchange; frozen, with shapes and ranges.

Shape letters: B batch, C channels, H W pixels, h w of a latent, N patches, D embedding width, K sub-instructions.
Images are float BCHW in [0, 1]; masks are float B1HW in [0, 1] and 1 means edit.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regionedit.mask_operations import operation_names

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image
    from torch import Tensor

MAX_INSTRUCTION = 1000  # characters


@dataclass(frozen=True)
class Captions:
    """The paper's t_o and t_e: what the picture shows, and what the edited picture should show."""

    source: str
    target: str

    @classmethod
    def given(cls, source: str, target: str) -> Captions | None:
        """The captions of a request; None if it gives neither."""
        return cls(source, target) if source or target else None


@dataclass(frozen=True)
class Instruction:
    """One sub-instruction of a request.

    Args:
        text: what to do, in words.
        strength: how strongly a generator that modulates attention follows it; 1 is neutral.
        keyword: the word that names the object, for mask sources that need one; None: it is found automatically.
    """

    text: str
    strength: float = 1.0
    keyword: str | None = None


@dataclass(frozen=True)
class EditRequest:
    """One picture and what to do with it.

    Args:
        image: any PIL picture; `originals.open_source` opens one with its full depth.
        instructions: a string, or a sequence of `Instruction`s; stored as a tuple of `Instruction`s.
        seed: any whole number; it alone decides the noise, so the same seed gives the same picture in any batch.
        captions: given captions skip the describer.
        mask: mode "L", 255 = edit, of the picture's size; `mask_files.open_mask` makes one of any file, and its
            `info["notes"]` become notes of the result.
        click: a point (x, y) on the object to edit, or several; stored as a tuple of points.
        box: (x0, y0, x1, y1); like clicks in pixels of the original picture.
        mask_operations: names of `mask_operations.OPERATIONS`, applied in this order to any region, given or found; a
            text with commas between them is stored as a tuple.
        id: case id; output files are named by it.

    Raises ValueError: a field that cannot be used; the message begins with its name.
    """

    image: Image
    instructions: tuple[Instruction, ...]
    seed: int = 0
    captions: Captions | None = None
    mask: Image | None = None
    click: tuple[tuple[int, int], ...] | None = None
    box: tuple[int, int, int, int] | None = None
    id: str = ""
    mask_operations: tuple[str, ...] = ()

    def __post_init__(self):
        given = [self.instructions] if isinstance(self.instructions, str) else self.instructions
        listed = tuple(Instruction(i) if isinstance(i, str) else i for i in given)
        if not listed:
            raise ValueError("instructions: at least one is needed")
        for instruction in listed:
            if not instruction.text.strip():
                raise ValueError("instruction: empty; say what to change, for example 'make the red circle blue'")
            if (length := len(instruction.text)) > MAX_INSTRUCTION:
                raise ValueError(f"instruction: {length} characters, at most {MAX_INSTRUCTION} are accepted")
        for text in (*(i.text for i in listed), *(vars(self.captions).values() if self.captions else ())):
            if bad := re.search("[\0\ud800-\udfff]", text):
                raise ValueError(f"text: {text[:60]!r} has a character that is none, {bad[0]!r}; remove it")
        object.__setattr__(self, "instructions", listed)
        object.__setattr__(self, "click", None if self.click is None else _points(self.click))
        object.__setattr__(self, "mask_operations", operation_names(self.mask_operations))

    @property
    def noise(self) -> int:
        """The seed as generators of noise take it, in [0, 2^63); PyTorch's on a CPU reads its lowest 32 bits."""
        return self.seed % 2**63

    @property
    def marks(self) -> frozenset[str]:
        """Which of mask, box and click the request has."""
        return frozenset(name for name in ("mask", "box", "click") if getattr(self, name) is not None)

    @property
    def instruction(self) -> str:
        """All instructions as one sentence."""
        return " and ".join(i.text for i in self.instructions)


def _points(given) -> tuple[tuple[int, int], ...]:
    """(x, y), or a sequence of points, as a tuple of points."""
    try:
        alone = all(isinstance(value, Integral) for value in given)
        points = [(x, y) for x, y in ([given] if alone else given)]
    except (TypeError, ValueError):  # something in it is not iterable, or not a pair
        points = []
    if not points or not all(isinstance(v, Integral) and not isinstance(v, bool) for point in points for v in point):
        raise ValueError(f"click: {given!r} is not a point (x, y) in whole pixels, nor several of them")
    return tuple((int(x), int(y)) for x, y in points)


@dataclass(frozen=True)
class Region:
    """Where to edit.

    Args:
        mask_B1HW: [0, 1], 1 = edit, at the image's own size.
        probability_B1HW: the probability map from which the mask was made, same size.
        per_instruction_BKHW: the part of the mask that belongs to each sub-instruction, or None; requests with fewer
            are padded with zeros. The union of the parts is the mask. They do not overlap, except those of
            `ip2p_attention`, where several keywords may attend to the same place.
        patches_BN: the probability map on the mask source's own square grid, before upsampling; None without such a
            grid.
        notes: for each picture a message to the user about its region, or empty; () if there are none at all.
        boxes: the boxes (x0, y0, x1, y1) in pixels of each picture's instructions, one per object; () without boxes.
    """

    mask_B1HW: Tensor
    probability_B1HW: Tensor
    per_instruction_BKHW: Tensor | None = None
    patches_BN: Tensor | None = None
    notes: tuple[str, ...] = ()
    boxes: tuple[tuple[tuple[tuple[int, int, int, int], ...], ...], ...] = ()


@dataclass(frozen=True, kw_only=True)
class FoundRegion:
    """The region of one request, and how it was found.

    Args:
        mask: mode "L", 255 = edit, at the picture's size.
        probability: the probability map from which the mask was made, float32 [H, W] in [0, 1].
        patches: the same on the mask source's own grid, float32 [side, side], or None.
        parts: with several instructions, each one's part of the mask, in their order; () if the parts are not known.
        captions: captions from the describer or the request, or None if nothing needed them.
        mask_source: the mask source or expression that found the region.
        note: message to the user, or empty: nothing to edit, transparency flattened, ...
        timings: seconds of each stage; requests that were edited together share them equally.
    """

    mask: Image
    probability: np.ndarray
    patches: np.ndarray | None = None
    parts: tuple[Image, ...] = ()
    captions: Captions | None = None
    mask_source: str
    note: str = ""
    timings: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class EditResult(FoundRegion):
    """One finished edit, with its region.

    Args:
        id: id of the request.
        source: the picture that was edited: its upright 8-bit RGB view, see `originals`.
        image: the edited picture, a view like `source`. Where `mask` is 0, both views and the stored pixels behind them
            (`originals.pixels_of`) are equal, bit for bit.
        record: everything needed to repeat the edit; plain values, written as run.json.
        format: `png`, or `source`: `save` also writes the result in the format of the source's file.
        layers: `save` also writes the edited region and the whole result as layers, see `result_files`.
    """

    id: str
    source: Image
    image: Image
    record: dict[str, Any]
    format: str = "png"
    layers: bool = False

    @property
    def share(self) -> float:
        """Share of the picture's pixels that the mask touches."""
        return 1 - self.mask.histogram()[0] / (self.mask.width * self.mask.height)

    def save(self, folder: str | Path) -> None:
        """Write result.png, mask.png, probability.png (16 bit), overlay.png and, last, run.json: all or none.

        result.png is like the source's file. With `format` "source", result.jpg, .webp or .tif is written too; with
        `layers`, layer.png and result.ora. Raises OSError: no room, no permission; nothing is left behind.
        """
        from regionedit.display import overlay
        from regionedit.files import write_together
        from regionedit.images import png, sixteen_bit
        from regionedit.result_files import OPTIONAL, picture_files

        files = picture_files(self.source, self.image, self.mask, self.format, self.layers) | {
            "mask.png": png(self.mask),
            "probability.png": png(sixteen_bit(self.probability)),
            "overlay.png": png(overlay(self.source, *(self.parts or [self.mask]))),
            "run.json": json.dumps(self.record, indent=2, ensure_ascii=False).encode(errors="backslashreplace"),
        }
        write_together(folder, files, obsolete=OPTIONAL)


@dataclass(frozen=True)
class EditFailure:
    """A request of a batch that could not be edited.

    Args:
        id: id of the request.
        reason: one line.
        error: the exception, or None if it was not kept.
    """

    id: str
    reason: str
    error: Exception | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class StepOutputs:
    """The tensors of one training step that loss terms can read.

    Args:
        probability_BN: P_region of eq. 3.
        projected_fused_BD: f_sem(F_Edited), eq. 4.
        projected_patches_BD: f_sem(F_img), eq. 5.
        source_BD, result_BD: CLIP image embeddings I_ori, I_res (None if no result is made, as F_res).
        source_patches_BND, result_patches_BND: projected CLIP patches F_img, F_res.
        source_text_BD, target_text_BD: CLIP text embeddings T_o, T_e.
        image_rounding, text_rounding: relative rounding of the products that gave the embeddings; see
            `losses.clip_direction`.
        regions_BKN, log_weights_BK, commitment: searched regions, see `losses.searched_region`.
    """

    probability_BN: Tensor
    projected_fused_BD: Tensor
    projected_patches_BD: Tensor
    source_BD: Tensor
    source_patches_BND: Tensor
    source_text_BD: Tensor
    target_text_BD: Tensor
    result_BD: Tensor | None = None
    result_patches_BND: Tensor | None = None
    image_rounding: float = 0.0
    text_rounding: float = 0.0
    regions_BKN: Tensor | None = None
    log_weights_BK: Tensor | None = None
    commitment: float = 0.0


@dataclass(frozen=True)
class EditCase:
    """One case of a benchmark.

    Args:
        id: unique within the benchmark.
        request: picture, instruction, given captions, seed.
        operation: replace, recolour, resize, remove, add, background, or the benchmark's own word.
        groups: groups that are reported separately, for example {"seen": "unseen", "objects": "3"}.
        truth_mask: mode "L", 255 = edit, or None.
        object_mask: mask of the object that the instruction names, in the source; mode "L", 255 = object, or None.
        truth_image: the true edited picture, or None.
        truth: data that only metrics may read, or None: in the microworld the `Edit` with both scenes, in sessions of
            which every turn is scored a `magicbrush.TurnHistory`.
        continues: id of the case whose edited picture is the input here, in a chain of turns; `request.image` is then
            the true source of this turn, for size and metrics. None: the request's own picture is edited.
        scored: false for a turn that is edited only because a later one continues it.
    """

    id: str
    request: EditRequest
    operation: str
    groups: dict[str, str] = field(default_factory=dict)
    truth_mask: Image | None = None
    object_mask: Image | None = None
    truth_image: Image | None = None
    truth: Any = None
    continues: str | None = None
    scored: bool = True
