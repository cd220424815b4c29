"""Which words an edit needs beside its request, and who writes them: what is given is never asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from regionedit.records import Captions

if TYPE_CHECKING:
    from regionedit.describe.base import Describer
    from regionedit.records import EditRequest


@dataclass(frozen=True)
class Needs:
    """What generator and mask source read.

    Args:
        source: the caption of the picture as it is.
        target: the caption of the edited picture.
        keywords: the word of each instruction that names the thing, and a language model is there to find it.
    """

    source: bool = False
    target: bool = False
    keywords: bool = False

    def lacks_captions(self, request: EditRequest) -> bool:
        given = request.captions or Captions("", "")
        return (self.target and not given.target.strip()) or (self.source and not given.source.strip())

    def lacks_keywords(self, request: EditRequest) -> bool:
        return self.keywords and any(instruction.keyword is None for instruction in request.instructions)

    def met(self, request: EditRequest) -> bool:
        """Nothing has to be asked."""
        return not self.lacks_captions(request) and not self.lacks_keywords(request)

    def captions(
        self, requests: Sequence[EditRequest], describer: Callable[[], Describer]
    ) -> list[tuple[Captions | None, bool]]:
        """For each request its captions, if it gives or needs any, and whether some of them were described.

        Raises:
            ValueError: one that cannot be described.
        """
        captions = [request.captions for request in requests]
        missing = [place for place, request in enumerate(requests) if self.lacks_captions(request)]
        if missing:
            texts = [tuple(i.text for i in requests[place].instructions) for place in missing]
            told = describer().describe([requests[place].image for place in missing], texts)
            for place, made in zip(missing, told, strict=True):
                given = captions[place] or Captions("", "")
                captions[place] = Captions(given.source or made.source, given.target or made.target)
        return [(caption, place in missing) for place, caption in enumerate(captions)]

    def worded(self, request: EditRequest, describer: Callable[[], Describer]) -> EditRequest:
        """The request with the keywords that the language model names; the others stay to be found by the rule."""
        if not self.lacks_keywords(request):
            return request
        named = [
            i if i.keyword is not None else replace(i, keyword=describer().keyword(i.text))
            for i in request.instructions
        ]
        return replace(request, instructions=tuple(named))
