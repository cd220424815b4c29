"""What an edit knows after each of its steps: a request with its texts, then its region.

Shape letters: B pictures of one size, C channels, H W their pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from regionedit.records import Captions, EditRequest, Region


@dataclass(frozen=True)
class Prepared:
    """A request with everything that generator and mask source read; `Editor._prepare` fills in captions and keywords.

    Args:
        request: as given, with an upright RGB picture.
        full_request: the same with the keywords that a language model named.
        mask_source: the mask source for the request's marks.
        captions: given, described, or None if nothing reads them.
        captions_from: the describer, `given`, or None.
        timings: seconds of each stage so far; the later stages add theirs.
    """

    request: EditRequest
    full_request: EditRequest
    mask_source: str
    captions: Captions | None = None
    captions_from: str | None = None
    timings: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Located:
    """Prepared requests with one mask source and pictures of one size, and their regions.

    Args:
        images_BCHW: [0, 1], float32, on the CPU.
        region: its mask is rounded to 8 bits, so that pixels that are 0 in mask.png do not change.
    """

    requests: list[Prepared]
    images_BCHW: Tensor
    region: Region
