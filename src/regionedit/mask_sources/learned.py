"""The trained region predictor as a mask source."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Self

import torch
from torch.nn.utils.rnn import pad_sequence

from regionedit import masks
from regionedit.generators.base import loading
from regionedit.mask_sources.base import MaskSource, region_from_patches
from regionedit.region_predictor import RegionPredictor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from regionedit.config import RegionConfig
    from regionedit.encoders import FrozenCLIP, FrozenInstructionEncoder
    from regionedit.mask_sources.base import Encoders, LoadGenerator
    from regionedit.records import Captions, EditRequest, Region

UNTRAINED = (
    "region.checkpoint: this configuration has no trained predictor; these mask sources need none: drawn "
    "(--mask FILE or --box x0,y0,x1,y1), sam (--click x,y), clip_similarity and difference (--mask_source NAME); to "
    "train one, run `python train.py --config configs/train_sd15_paper256.yaml` and pass --region.checkpoint "
    "OUT/region_predictor"
)


class Learned(MaskSource):
    """P_region of eq. 3 for the instruction; several instructions are predicted one by one and their regions joined.

    Each instruction gets the pixels of the joined mask where its own probability is the highest.
    """

    def __init__(
        self, predictor: RegionPredictor, clip: FrozenCLIP, instruction: FrozenInstructionEncoder, config: RegionConfig
    ):
        self.predictor = predictor
        self.clip = clip
        self.instruction = instruction
        self.config = config
        self._encoded: dict[tuple[str, ...], tuple[Tensor, Tensor]] = {}  # shared by the copies that `using` makes

    @classmethod
    def load(cls, config: RegionConfig, encoders: Encoders, generator: LoadGenerator) -> Self:
        if config.checkpoint is None:
            raise ValueError(UNTRAINED)
        predictor = load_predictor("region.checkpoint", config.checkpoint)
        clip, instruction = encoders()
        check_fits("region.checkpoint", predictor, clip)
        return cls(predictor.to(clip.device).requires_grad_(False), clip, instruction, config)

    @torch.no_grad()
    def find(self, images_BCHW: Tensor, requests: Sequence[EditRequest], captions: Sequence[Captions | None]) -> Region:
        patches_BND = self.clip.encode_image(images_BCHW).patches_BND
        counts = [len(request.instructions) for request in requests]
        owners = [b for b, count in enumerate(counts) for _ in range(count)]
        texts = [instruction.text for request in requests for instruction in request.instructions]
        probability_RN = self.predictor(patches_BND[owners], *self._encode(texts)).probability_BN.cpu()
        size = tuple(images_BCHW.shape[-2:])
        single_BKN = pad_sequence(probability_RN.split(counts), batch_first=True)  # 0 for missing instructions
        region = region_from_patches(single_BKN.amax(1), self.clip.grid, size, self.config)
        if max(counts) == 1:
            return region
        maps_B1HW = [
            masks.upsample(maps_BN, self.clip.grid, size, self.config.upsample) for maps_BN in single_BKN.unbind(1)
        ]
        parts_BKHW = masks.divide(region.mask_B1HW, torch.cat(maps_B1HW, dim=1))
        return replace(region, per_instruction_BKHW=parts_BKHW)

    def _encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Like the encoder, but each distinct text is encoded once and the last call is cached: one instruction is
        often applied to hundreds of pictures."""
        distinct = tuple(dict.fromkeys(texts))
        if distinct not in self._encoded:
            self._encoded.clear()
            self._encoded[distinct] = self.instruction.encode(distinct)
        features_TMD, mask_TM = self._encoded[distinct]
        rows = [distinct.index(text) for text in texts]
        return features_TMD[rows], mask_TM[rows]


def load_predictor(field: str, path: str) -> RegionPredictor:
    """Load a predictor from a region_predictor/ folder or hub name.

    Raises:
        ValueError: nothing loadable there; names the configuration's field.
    """
    with loading(field, "region predictor", path):
        return RegionPredictor.from_pretrained(path).eval()


def check_fits(field: str, predictor: RegionPredictor, clip: FrozenCLIP) -> None:
    """Raises ValueError, which names the configuration's field: the predictor was trained with another CLIP."""
    if (predictor.dim, predictor.grid) != (clip.dim, clip.grid):
        raise ValueError(
            f"{field}: this predictor was trained for embeddings of width {predictor.dim} on a "
            f"{predictor.grid}x{predictor.grid} grid, but encoders.clip gives width {clip.dim} on "
            f"{clip.grid}x{clip.grid}; use the CLIP it was trained with, or train again"
        )
