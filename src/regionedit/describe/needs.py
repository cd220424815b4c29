"""Which captions and keywords an edit needs, and how missing ones are written; given ones are never computed."""

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
    """What generator and mask source read: the captions of the picture as it is (source) and edited (target), and the
    word of each instruction that names the object, if a language model can find it."""

    source: bool = False
    target: bool = False
    keywords: bool = False

    def lacks_captions(self, request: EditRequest) -> bool:
        given = request.captions or Captions("", "")
        return (self.target and not given.target.strip()) or (self.source and not given.source.strip())

    def lacks_keywords(self, request: EditRequest) -> bool:
        return self.keywords and any(instruction.keyword is None for instruction in request.instructions)

    def met(self, request: EditRequest) -> bool:
        """Whether the request gives everything that is needed."""
        return not self.lacks_captions(request) and not self.lacks_keywords(request)

    def captions(
        self, requests: Sequence[EditRequest], describer: Callable[[], Describer]
    ) -> list[tuple[Captions | None, bool]]:
        """For each request its captions, if it gives or needs any, and whether the describer wrote some of them.

        Raises:
            ValueError: a request that the describer cannot caption.
        """
        captions = [request.captions for request in requests]
        missing = [index for index, request in enumerate(requests) if self.lacks_captions(request)]
        if missing:
            texts = [tuple(i.text for i in requests[index].instructions) for index in missing]
            described = describer().describe([requests[index].image for index in missing], texts)
            for index, made in zip(missing, described, strict=True):
                given = captions[index] or Captions("", "")
                captions[index] = Captions(given.source or made.source, given.target or made.target)
        return [(caption, index in missing) for index, caption in enumerate(captions)]

    def with_keywords(self, request: EditRequest, describer: Callable[[], Describer]) -> EditRequest:
        """The request with the keywords that the language model names; the rule of `keywords` finds the others
        later."""
        if not self.lacks_keywords(request):
            return request
        named = [
            i if i.keyword is not None else replace(i, keyword=describer().keyword(i.text))
            for i in request.instructions
        ]
        return replace(request, instructions=tuple(named))
