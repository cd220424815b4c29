"""Similarities of embeddings: of the edited picture to a reference picture, and to the texts.

Shape letters: n cases, D embedding width, U distinct instructions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import cosine_similarity
from torchmetrics.utilities import dim_zero_cat

from regionedit.evaluation.backbones import Field
from regionedit.evaluation.metrics import (
    NAN,
    CaseMetric,
    Measure,
    Reference,
    Settings,
    edited_pixels,
    reference_picture,
    rgb,
)
from regionedit.evaluation.outcomes import Outcome

CANDIDATES = 100  # as in the R-precision of text-to-image work: the true text among 100
NO_DIRECTION = 1e-4  # captions whose embeddings differ by less than this share of their norm count as equal


@dataclass(frozen=True, kw_only=True)
class PictureSimilarity(Measure):
    """Cosine, in [-1, 1], of the embeddings of the edited picture and a reference; 1 for equal pictures.

    Both pictures enter at their own sizes; the network's preprocessing resizes them.
    """

    reference: Reference

    def score_all(self, outcomes: Sequence[Outcome], settings: Settings) -> Tensor:
        edited = [rgb(outcome.picture) for outcome in outcomes]
        reference = [rgb(reference_picture(outcome, self.reference)) for outcome in outcomes]
        both = settings.network.unit_pictures(edited + reference)
        return (both[: len(edited)] * both[len(edited) :]).sum(-1)


@dataclass(frozen=True, kw_only=True)
class TextSimilarity(Measure):
    """Cosine, in [-1, 1], of CLIP's embeddings of the edited picture and a text.

    Args:
        text: the target caption, or the instruction.
        percent: 100 times the cosine, at least 0: the CLIPScore of torchmetrics (Hessel et al. 2021, arXiv 2104.08718,
            without its factor of 2.5).
        inside_mask: the picture is black outside the mask, which has PIE-Bench's frame of one pixel.
    """

    text: Literal["target", "instruction"] = "target"
    percent: bool = False
    inside_mask: bool = False
    backbone: Field | None = "judge"

    def score_all(self, outcomes: Sequence[Outcome], settings: Settings) -> Tensor:
        pictures = settings.network.unit_pictures([self._picture(outcome) for outcome in outcomes])
        cosines = (pictures * settings.network.unit_texts([self._text(outcome) for outcome in outcomes])).sum(-1)
        return (100 * cosines).clamp(min=0) if self.percent else cosines

    def _text(self, outcome: Outcome) -> str:
        request = outcome.case.request
        return request.instruction if self.text == "instruction" else request.captions.target

    def _picture(self, outcome: Outcome) -> Image.Image:
        if not self.inside_mask:
            return rgb(outcome.picture)
        picture = rgb(outcome.picture, outcome.case.request.image.size)
        return Image.fromarray(np.asarray(picture) * edited_pixels(outcome, frame=True)[..., None].astype(np.uint8))


@dataclass(frozen=True, kw_only=True)
class Direction(Measure):
    """Cosine, in [-1, 1], of the change of the picture and the change of the captions.

    An unchanged picture scores 0; captions that do not differ have no direction: NaN.

    Args:
        unit: true: a change is a difference of normalised embeddings; false: of raw ones.
    """

    unit: bool = True
    needs: tuple[str, ...] = ("source captions", "target captions")
    backbone: Field | None = "judge"

    def score_all(self, outcomes: Sequence[Outcome], settings: Settings) -> Tensor:
        network = settings.network
        embed_pictures = network.unit_pictures if self.unit else network.pictures
        embed_texts = network.unit_texts if self.unit else network.texts
        captions = [outcome.case.request.captions for outcome in outcomes]
        sources = [rgb(outcome.case.request.image) for outcome in outcomes]
        # Embedded in one call, so that equal pictures and equal texts have bit-equal embeddings.
        pictures = embed_pictures([rgb(outcome.picture) for outcome in outcomes] + sources)
        texts = embed_texts([c.target for c in captions] + [c.source for c in captions])
        picture_change_nD = pictures[: len(sources)] - pictures[len(sources) :]
        text_change_nD = texts[: len(captions)] - texts[len(captions) :]
        no_direction = text_change_nD.norm(dim=-1) <= NO_DIRECTION * texts[: len(captions)].norm(dim=-1)
        same = [c.source.strip().lower() == c.target.strip().lower() for c in captions]
        cosines = cosine_similarity(picture_change_nD, text_change_nD, dim=-1)
        return cosines.masked_fill(no_direction | torch.tensor(same), NAN)


@dataclass(frozen=True, kw_only=True)
class PickScore(Measure):
    """PickScore of the edited picture for the target caption: exp(logit_scale), about 100, times the cosine.

    FoI's table shows the soft-max of these scores over the compared systems, case by case, and so depends on which
    systems are compared; `compare` computes it. That the prompt is the target caption is our reading of the paper.
    """

    needs: tuple[str, ...] = ("target captions",)
    backbone: Field | None = "pick_score"

    def score_all(self, outcomes: Sequence[Outcome], settings: Settings) -> Tensor:
        prompts = [outcome.case.request.captions.target for outcome in outcomes]
        return settings.network.scores([rgb(outcome.picture) for outcome in outcomes], prompts)


@dataclass(frozen=True, kw_only=True)
class InstructionRank(Measure):
    """Rank of the case's own instruction among up to 100 candidates, by cosine with the edited picture; 1 is the best.

    The candidates are the own instruction and the next 99 distinct ones (ignoring case and extra spaces) in the order
    of the cases, continuing at the first case after the last. Every case has equally many, whichever cases failed and
    however they were batched. With fewer distinct instructions all are candidates; with a single one there is no rank.
    Among equal cosines the own instruction comes first. An unrelated picture has an expected rank of half the number of
    candidates plus a half.
    """

    higher_is_better: bool | None = False
    backbone: Field | None = "judge"

    def metric(self, settings: Settings) -> CaseMetric:
        return InstructionRanks(self, settings) if settings.network else CaseMetric(self, settings)


class InstructionRanks(CaseMetric):
    """Collects the embeddings of all cases, because a rank depends on the other cases' instructions."""

    def __init__(self, measure: Measure, settings: Settings):
        super().__init__(measure, settings)
        for state in ("pictures", "instructions", "names"):
            self.add_state(state, default=[], dist_reduce_fx="cat")

    def update(self, outcomes: Sequence[Outcome]) -> None:
        ready = [self.is_ready(outcome) for outcome in outcomes]
        instructions = [outcome.case.request.instruction for outcome in outcomes]
        texts_nD = self.settings.network.unit_texts(instructions)
        pictures_nD = torch.full_like(texts_nD, NAN)
        if any(ready):
            edited = [rgb(outcome.picture) for outcome, is_ready in zip(outcomes, ready, strict=True) if is_ready]
            pictures_nD[torch.tensor(ready)] = self.settings.network.unit_pictures(edited)
        self.pictures.append(pictures_nD)
        self.instructions.append(texts_nD)
        self.names.append(torch.tensor([_text_hash(text) for text in instructions]))

    def values(self) -> Tensor:
        pictures_nD, texts_nD = dim_zero_cat(self.pictures), dim_zero_cat(self.instructions)
        _, first, own = np.unique(dim_zero_cat(self.names).numpy(), return_index=True, return_inverse=True)
        order = np.argsort(first)  # distinct instructions in order of appearance
        texts_UD = texts_nD[first[order]]
        position = np.argsort(order)[own]  # of each case's own instruction among them
        count = len(texts_UD)
        ranks = torch.full((len(pictures_nD),), NAN, dtype=torch.float64)
        if count > 1:
            following = np.arange(min(CANDIDATES, count))
            for i, picture_D in enumerate(pictures_nD):
                if not picture_D.isnan().any():
                    cosines = texts_UD[(position[i] + following) % count] @ picture_D
                    ranks[i] = 1 + int((cosines[1:] > cosines[0]).sum())
        return ranks


def _text_hash(text: str) -> int:
    """A hash of a text that ignores case and extra spaces."""
    return int.from_bytes(hashlib.sha256(" ".join(text.lower().split()).encode()).digest()[:7], "big")
