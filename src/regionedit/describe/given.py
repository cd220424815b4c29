"""No describer: every request has to bring its captions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from regionedit.describe.base import Describer

if TYPE_CHECKING:
    from PIL.Image import Image

    from regionedit.describe.base import CaptionKey
    from regionedit.records import Captions


class Given(Describer):
    """Describes nothing: every request has to bring its captions."""

    def source_captions(self, pictures: Sequence[Image]) -> list[str | ValueError]:
        return self._lacking(len(pictures))

    def _write(self, keys: Sequence[CaptionKey], pictures: Sequence[Image]) -> list[Captions | ValueError]:
        return self._lacking(len(keys))

    @staticmethod
    def _lacking(count: int) -> list[ValueError]:
        from regionedit.describe import DESCRIBERS

        others = ", ".join(name for name in DESCRIBERS if name != "given")
        lacking = ValueError(
            "captions: the request has none and describe.name is `given`; pass --target_caption (and "
            f"--source_caption for clip_similarity), or --describe.name {others}"
        )
        return [lacking] * count
