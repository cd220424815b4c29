"""Whether the edited picture matches the texts: similarities of CLIP and PickScore.

Shape letters: n cases, D embedding width, U distinct instructions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import cosine_similarity
from torchmetrics.utilities import dim_zero_cat

from regionedit.evaluation.metrics import NAN, BackboneMetric, edited_pixels, rgb
from regionedit.evaluation.outcomes import Outcome

CANDIDATES = 100  # as in the R-precision of text-to-image work: the true text among 100
NO_DIRECTION = 1e-4  # captions whose embeddings differ by less than this share of their norm count as equal


class ClipText(BackboneMetric):
    """CLIP-T of MagicBrush, CLIPout of Emu Edit: cosine of CLIP's embeddings of edited picture and target caption.

    In [-1, 1]. MagicBrush's figures use its local descriptions as target captions.
    """

    title = "CLIP text"
    higher_is_better = True
    backbone = "judge"
    needs = ("target captions",)

    def text(self, outcome: Outcome) -> str:
        """The text that the picture is compared with."""
        return outcome.case.request.captions.target

    def picture(self, outcome: Outcome) -> Image.Image:
        """The picture that the text is compared with."""
        return rgb(outcome.picture)

    def score_all(self, outcomes: Sequence[Outcome]) -> Tensor:
        pictures = self.network.unit_pictures([self.picture(outcome) for outcome in outcomes])
        return (pictures * self.network.unit_texts([self.text(outcome) for outcome in outcomes])).sum(-1)


class ClipInstruction(ClipText):
    """Cosine of CLIP's embeddings of the edited picture and the instruction, in [-1, 1]."""

    title = "CLIP instr."
    needs = ()

    def text(self, outcome: Outcome) -> str:
        return outcome.case.request.instruction


class ClipInstructionRank(BackboneMetric):
    """Rank of the case's own instruction among up to 100 candidates, by cosine with the edited picture; 1 is the best.

    The candidates are the own instruction and the next 99 distinct ones (ignoring case and extra spaces) in the order
    of the cases, continuing at the first case after the last. Every case has equally many, whichever cases failed and
    however they were batched. With fewer distinct instructions all are candidates; with a single one there is no rank.
    Among equal cosines the own instruction comes first. An unrelated picture has an expected rank of half the number of
    candidates plus a half.
    """

    title = "instr. rank"
    higher_is_better = False
    backbone = "judge"

    def __init__(self, network):
        super().__init__(network)
        for state in ("pictures", "instructions", "names"):
            self.add_state(state, default=[], dist_reduce_fx="cat")

    def update(self, outcomes: Sequence[Outcome]) -> None:
        if self.network is None:
            return super().update(outcomes)
        ready = [self.is_ready(outcome) for outcome in outcomes]
        instructions = [outcome.case.request.instruction for outcome in outcomes]
        texts_nD = self.network.unit_texts(instructions)
        pictures_nD = torch.full_like(texts_nD, NAN)
        if any(ready):
            edited = [rgb(outcome.picture) for outcome, is_ready in zip(outcomes, ready, strict=True) if is_ready]
            pictures_nD[torch.tensor(ready)] = self.network.unit_pictures(edited)
        self.pictures.append(pictures_nD)
        self.instructions.append(texts_nD)
        self.names.append(torch.tensor([_text_hash(text) for text in instructions]))
        return None

    def values(self) -> Tensor:
        if self.network is None:
            return super().values()
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


class ClipDirection(BackboneMetric):
    """CLIPdir: cosine between the change of the picture and the change of the captions, in [-1, 1].

    A change is a difference of normalised embeddings, as in InstructPix2Pix's metrics/clip_similarity.py (definition of
    Gal et al. 2022, arXiv 2108.00946). An unchanged picture scores 0; captions that do not differ have no
    direction: NaN.
    """

    title = "CLIP dir."
    higher_is_better = True
    backbone = "judge"
    needs = ("source captions", "target captions")

    def embed_pictures(self, pictures: Sequence[Image.Image]) -> Tensor:
        """[n, D] embeddings; their differences are the directions."""
        return self.network.unit_pictures(pictures)

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """[n, D] embeddings; their differences are the directions."""
        return self.network.unit_texts(texts)

    def score_all(self, outcomes: Sequence[Outcome]) -> Tensor:
        captions = [outcome.case.request.captions for outcome in outcomes]
        sources = [rgb(outcome.case.request.image) for outcome in outcomes]
        # Embedded in one call, so that equal pictures and equal texts have bit-equal embeddings.
        pictures = self.embed_pictures([rgb(outcome.picture) for outcome in outcomes] + sources)
        texts = self.embed_texts([c.target for c in captions] + [c.source for c in captions])
        picture_change_nD = pictures[: len(sources)] - pictures[len(sources) :]
        text_change_nD = texts[: len(captions)] - texts[len(captions) :]
        no_direction = text_change_nD.norm(dim=-1) <= NO_DIRECTION * texts[: len(captions)].norm(dim=-1)
        same = [c.source.strip().lower() == c.target.strip().lower() for c in captions]
        cosines = cosine_similarity(picture_change_nD, text_change_nD, dim=-1)
        return cosines.masked_fill(no_direction | torch.tensor(same), NAN)


class ClipDirectionRaw(ClipDirection):
    """CLIPdir from differences of raw embeddings, not normalised, in [-1, 1].

    The public script of the UltraEdit protocol computes this (NEP, evaluations/editing/emuedit_eval.py). It weights
    pictures and texts by the norms of their embeddings, so its numbers differ from `clip_direction`.
    """

    title = "CLIP dir. raw"

    def embed_pictures(self, pictures: Sequence[Image.Image]) -> Tensor:
        return self.network.pictures(pictures)

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        return self.network.texts(texts)


class ClipWhole(ClipText):
    """CLIP similarity, whole, of PIE-Bench: 100 times the cosine with the target caption, at least 0.

    This is the CLIPScore of torchmetrics (Hessel et al. 2021, arXiv 2104.08718, without its factor of 2.5).
    """

    title = "CLIP whole"

    def score_all(self, outcomes: Sequence[Outcome]) -> Tensor:
        return (100 * super().score_all(outcomes)).clamp(min=0)


class ClipEdited(ClipWhole):
    """CLIP similarity, edited, of PIE-Bench: `clip_whole` of the picture that is black outside the mask.

    The mask has PIE-Bench's frame of one pixel.
    """

    title = "CLIP edited"
    needs = ("masks", "target captions")

    def picture(self, outcome: Outcome) -> Image.Image:
        picture = rgb(outcome.picture, outcome.case.request.image.size)
        return Image.fromarray(np.asarray(picture) * edited_pixels(outcome, frame=True)[..., None].astype(np.uint8))


class PickScore(BackboneMetric):
    """PickScore of the edited picture for the target caption: exp(logit_scale), about 100, times the cosine.

    FoI's table shows the soft-max of these scores over the compared systems, case by case, and so depends on which
    systems are compared; `compare` computes it. That the prompt is the target caption is our reading of the paper.
    """

    title = "PickScore"
    higher_is_better = True
    backbone = "pick_score"
    needs = ("target captions",)

    def score_all(self, outcomes: Sequence[Outcome]) -> Tensor:
        prompts = [outcome.case.request.captions.target for outcome in outcomes]
        return self.network.scores([rgb(outcome.picture) for outcome in outcomes], prompts)


def _text_hash(text: str) -> int:
    """A hash of a text that ignores case and extra spaces."""
    return int.from_bytes(hashlib.sha256(" ".join(text.lower().split()).encode()).digest()[:7], "big")
