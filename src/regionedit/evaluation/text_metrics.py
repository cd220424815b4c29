"""Does the edited picture show what was asked for? CLIP and PickScore between pictures and texts.

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
NO_DIRECTION = 1e-4  # captions whose embeddings differ by less than this share of their length say the same


class ClipText(BackboneMetric):
    """CLIP-T of MagicBrush, CLIPout of Emu Edit: cosine of the judge's embeddings of edited picture and target caption.

    In [-1, 1]. MagicBrush's figures are with its local descriptions as target captions.
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
    """Cosine of the judge's embeddings of the edited picture and the instruction, in [-1, 1]."""

    title = "CLIP instr."
    needs = ()

    def text(self, outcome: Outcome) -> str:
        return outcome.case.request.instruction


class ClipInstructionRank(BackboneMetric):
    """Place of the case's own instruction by its cosine with the edited picture among up to 100; 1 is the best.

    The candidates are the own instruction and the 99 distinct ones (case and spaces aside) that come next in the order
    of the cases, going on at the first after the last: every case has equally many, whatever failed and however the
    cases were batched. Fewer distinct instructions are all candidates; a single one has no rank. Of equal cosines the
    own one is first. A picture that knows nothing of the text expects half of the candidates plus a half.
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
        told = [outcome.case.request.instruction for outcome in outcomes]
        texts_nD = self.network.unit_texts(told)
        pictures_nD = torch.full_like(texts_nD, NAN)
        if any(ready):
            seen = [rgb(outcome.picture) for outcome, is_ready in zip(outcomes, ready, strict=True) if is_ready]
            pictures_nD[torch.tensor(ready)] = self.network.unit_pictures(seen)
        self.pictures.append(pictures_nD)
        self.instructions.append(texts_nD)
        self.names.append(torch.tensor([_name(text) for text in told]))
        return None

    def values(self) -> Tensor:
        if self.network is None:
            return super().values()
        pictures_nD, texts_nD = dim_zero_cat(self.pictures), dim_zero_cat(self.instructions)
        _, first, own = np.unique(dim_zero_cat(self.names).numpy(), return_index=True, return_inverse=True)
        order = np.argsort(first)  # distinct instructions as they came
        texts_UD = texts_nD[first[order]]
        place = np.argsort(order)[own]  # of each case's own instruction among them
        count = len(texts_UD)
        ranks = torch.full((len(pictures_nD),), NAN, dtype=torch.float64)
        if count > 1:
            following = np.arange(min(CANDIDATES, count))
            for i, picture_D in enumerate(pictures_nD):
                if not picture_D.isnan().any():
                    cosines = texts_UD[(place[i] + following) % count] @ picture_D
                    ranks[i] = 1 + int((cosines[1:] > cosines[0]).sum())
        return ranks


class ClipDirection(BackboneMetric):
    """CLIPdir: cosine between the change of the picture and the change of the captions, in [-1, 1].

    Differences of normalised embeddings, as InstructPix2Pix's metrics/clip_similarity.py has it (the definition of
    Gal et al. 2022, arXiv 2108.00946). A picture that did not change scores 0; captions that do not differ have no
    direction: NaN.
    """

    title = "CLIP dir."
    higher_is_better = True
    backbone = "judge"
    needs = ("source captions", "target captions")

    def embed_pictures(self, pictures: Sequence[Image.Image]) -> Tensor:
        """[n, D] whose differences are directions."""
        return self.network.unit_pictures(pictures)

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """[n, D] whose differences are directions."""
        return self.network.unit_texts(texts)

    def score_all(self, outcomes: Sequence[Outcome]) -> Tensor:
        captions = [outcome.case.request.captions for outcome in outcomes]
        sources = [rgb(outcome.case.request.image) for outcome in outcomes]
        # Asked for together, so that equal pictures and equal texts have bit-equal embeddings.
        pictures = self.embed_pictures([rgb(outcome.picture) for outcome in outcomes] + sources)
        texts = self.embed_texts([c.target for c in captions] + [c.source for c in captions])
        seen_nD = pictures[: len(sources)] - pictures[len(sources) :]
        told_nD = texts[: len(captions)] - texts[len(captions) :]
        says_nothing = told_nD.norm(dim=-1) <= NO_DIRECTION * texts[: len(captions)].norm(dim=-1)
        same = [c.source.strip().lower() == c.target.strip().lower() for c in captions]
        return cosine_similarity(seen_nD, told_nD, dim=-1).masked_fill(says_nothing | torch.tensor(same), NAN)


class ClipDirectionRaw(ClipDirection):
    """CLIPdir from differences of embeddings as they come, not normalised, in [-1, 1].

    What the public script of the UltraEdit protocol computes (NEP, evaluations/editing/emuedit_eval.py); it weighs
    pictures and texts by the lengths of their embeddings and is another number than `clip_direction`.
    """

    title = "CLIP dir. raw"

    def embed_pictures(self, pictures: Sequence[Image.Image]) -> Tensor:
        return self.network.pictures(pictures)

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        return self.network.texts(texts)


class ClipWhole(ClipText):
    """CLIP similarity, whole, of PIE-Bench: 100 times the cosine with the target caption, not below 0.

    The CLIPScore of torchmetrics (Hessel et al. 2021, arXiv 2104.08718, without its factor of 2.5).
    """

    title = "CLIP whole"

    def score_all(self, outcomes: Sequence[Outcome]) -> Tensor:
        return (100 * super().score_all(outcomes)).clamp(min=0)


class ClipEdited(ClipWhole):
    """CLIP similarity, edited, of PIE-Bench: as `clip_whole`, of the picture with everything outside the mask black.

    The mask has PIE-Bench's frame of one pixel.
    """

    title = "CLIP edited"
    needs = ("masks", "target captions")

    def picture(self, outcome: Outcome) -> Image.Image:
        picture = rgb(outcome.picture, outcome.case.request.image.size)
        return Image.fromarray(np.asarray(picture) * edited_pixels(outcome, frame=True)[..., None].astype(np.uint8))


class PickScore(BackboneMetric):
    """PickScore of the edited picture for the target caption: exp(logit_scale), about 100, times the cosine.

    FoI's table is the soft-max of these over the systems compared, case by case, and so depends on who takes part; that
    is done when results are put side by side. That the prompt is the target caption is our reading of the paper.
    """

    title = "PickScore"
    higher_is_better = True
    backbone = "pick_score"
    needs = ("target captions",)

    def score_all(self, outcomes: Sequence[Outcome]) -> Tensor:
        prompts = [outcome.case.request.captions.target for outcome in outcomes]
        return self.network.scores([rgb(outcome.picture) for outcome in outcomes], prompts)


def _name(text: str) -> int:
    """A number that stands for a text, case and spaces aside."""
    return int.from_bytes(hashlib.sha256(" ".join(text.lower().split()).encode()).digest()[:7], "big")
