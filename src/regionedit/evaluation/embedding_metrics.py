"""Cosines between a network's embeddings of the edited picture and a reference picture."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image
from torch import Tensor

from regionedit.evaluation.metrics import BackboneMetric, rgb
from regionedit.evaluation.outcomes import Outcome


class PictureSimilarity(BackboneMetric):
    """Cosine, in [-1, 1], of the class-token embeddings of the edited picture and a reference; 1 for equal pictures.

    Both pictures enter at their own sizes; the network's preprocessing resizes them.
    """

    higher_is_better = True

    def reference(self, outcome: Outcome) -> Image.Image:
        """The picture that the edited one is compared with."""
        raise NotImplementedError

    def score_all(self, outcomes: Sequence[Outcome]) -> Tensor:
        edited = [rgb(outcome.picture) for outcome in outcomes]
        reference = [rgb(self.reference(outcome)) for outcome in outcomes]
        both = self.network.unit_pictures(edited + reference)
        return (both[: len(edited)] * both[len(edited) :]).sum(-1)


class TargetSimilarity(PictureSimilarity):
    """The reference is the target picture."""

    needs = ("target pictures",)

    def reference(self, outcome: Outcome) -> Image.Image:
        return outcome.case.truth_image


class SourceSimilarity(PictureSimilarity):
    """The reference is the source picture, so this measures preservation. An unchanged picture scores 1."""

    def reference(self, outcome: Outcome) -> Image.Image:
        return outcome.case.request.image


class ClipImage(TargetSimilarity):
    """CLIP-I of MagicBrush: cosine of CLIP's embeddings of the edited and the target picture."""

    title = "CLIP img"
    backbone = "judge"


class ClipImageSource(SourceSimilarity):
    """CLIPimg of Emu Edit: cosine of CLIP's embeddings of the edited and the source picture."""

    title = "CLIP img source"
    backbone = "judge"


class Dino(TargetSimilarity):
    """DINO of MagicBrush: cosine of DINO v1's class tokens of the edited and the target picture."""

    title = "DINO"
    backbone = "dino"


class DinoSource(SourceSimilarity):
    """DINO of Emu Edit: cosine of DINO v1's class tokens of the edited and the source picture."""

    title = "DINO source"
    backbone = "dino"


class DinoV2(TargetSimilarity):
    """Cosine of DINOv2's class tokens of the edited and the target picture."""

    title = "DINOv2"
    backbone = "dinov2"


class DinoV2Source(SourceSimilarity):
    """Dino-I of FoI: cosine of DINOv2's class tokens of the edited and the source picture; FoI leaves the size open."""

    title = "DINOv2 source"
    backbone = "dinov2"
