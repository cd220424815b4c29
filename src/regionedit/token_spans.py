"""The tokens of each sub-instruction and of its keyword in the joint sentence.

The joint sentence is `EditRequest.instruction`: the sub-instructions joined with " and ". To find a position, the
tokenizer counts the tokens of the text before it; CLIP's tokenizer never joins letters across a space or a word's edge.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from regionedit.keywords import find_keyword, keyword_span

if TYPE_CHECKING:
    from regionedit.records import Instruction

JOINT = " and "


def joint(instructions: Sequence[Instruction]) -> str:
    """The sub-instructions as the one sentence that the generator reads."""
    return JOINT.join(instruction.text for instruction in instructions)


def sub_instruction_spans(instructions: Sequence[Instruction], tokenizer) -> list[range]:
    """Each sub-instruction's token positions in the padded joint sentence; the start token is position 0.

    Tokens beyond the tokenizer's limit have no position; a warning reports that text is cut off.
    """
    limit = tokenizer.model_max_length - 1  # the last position is the end token's
    spans = [_span(start, end, instructions, tokenizer) for start, end in _text_spans(instructions)]
    if spans[-1].stop > limit:
        warnings.warn(
            f"instruction of {spans[-1].stop + 1} tokens cut to the generator's {limit + 1}: "
            f"{joint(instructions)[:60]!r}...",
            stacklevel=2,
        )
    return [range(min(span.start, limit), min(span.stop, limit)) for span in spans]


def keyword_spans(instructions: Sequence[Instruction], tokenizer) -> list[range]:
    """The token positions of each sub-instruction's keyword: the given one, or the one that the rule of `keywords`
    finds.

    Raises:
        ValueError: a given keyword that is no word of its instruction, or one beyond the tokenizer's limit.
    """
    limit = tokenizer.model_max_length - 1
    spans = []
    for instruction, (begin, _) in zip(instructions, _text_spans(instructions), strict=True):
        keyword = find_keyword(instruction.text) if instruction.keyword is None else instruction.keyword
        start, end = keyword_span(instruction.text, keyword)
        span = _span(begin + start, begin + end, instructions, tokenizer)
        if span.stop > limit:
            raise ValueError(
                f"keyword: {keyword!r} ends at token {span.stop - 1}, but the generator reads {limit - 1} tokens of "
                "the joint instruction; shorten it, or give fewer instructions at once"
            )
        spans.append(span)
    return spans


def _text_spans(instructions: Sequence[Instruction]) -> list[tuple[int, int]]:
    """Start and end of each sub-instruction in the joint sentence, in characters."""
    spans, start = [], 0
    for instruction in instructions:
        spans.append((start, start + len(instruction.text)))
        start = spans[-1][1] + len(JOINT)
    return spans


def _span(start: int, end: int, instructions: Sequence[Instruction], tokenizer) -> range:
    """Token positions of a part of the joint sentence that begins and ends at the edge of a word."""
    sentence = joint(instructions)
    before, through = (
        # not verbose: transformers would warn about the length, which is checked here
        len(tokenizer(sentence[:position], add_special_tokens=False, verbose=False).input_ids)
        for position in (start, end)
    )
    return range(1 + before, 1 + through)
