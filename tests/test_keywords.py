"""The word that names the object, and the tokens that it and its instruction have in the joint sentence."""

import pytest

from regionedit.keywords import find_keyword, keyword_span
from regionedit.records import EditRequest, Instruction
from regionedit.token_spans import joint, keyword_spans, sub_instruction_spans
from tests.tiny_tokenizers import CONTEXT, clip_tokenizer


@pytest.mark.parametrize(
    ("text", "keyword"),
    [
        ("make the jacket red", "jacket"),
        ("replace the cat with a dog", "cat"),
        ("add a hat to the man", "hat"),
        ("turn the sky into night", "sky"),
        ("remove the car", "car"),
        ("Remove the T-shirt, please", "t-shirt"),
        ("change the color of the car to blue", "car"),
        ("put a square in place of the circle", "circle"),
        ("insert a dog instead of the cat", "cat"),
        ("get rid of the circle", "circle"),
        ("take away the ring", "ring"),
        ("the ring should be blue", "ring"),
        ("there should be a star above the ring", "star"),
        ("there should be no circle", "circle"),
        ("swap the large red circle for a green square", "circle"),
        ("make the fire hydrant yellow", "hydrant"),
        ("make the jacket shiny", "jacket"),
        ("make her hair blonde", "hair"),
        ("make the man a pirate", "man"),
        ("have the dog jump", "dog"),
        ("let the dog wear a hat", "dog"),
        ("put sunglasses on the dog", "sunglasses"),
        ("give the man sunglasses", "sunglasses"),
        ("use a plain gray background", "background"),
        ("change the background of the picture to a beach", "background"),
        ("make the left eye blue", "eye"),
        ("Turn on the lights", "lights"),
        ("turn him into a zombie", "zombie"),
        ("make it snowy", "snowy"),
        ("make it look like winter", "winter"),
        ("make it red", "red"),
        ("no people", "people"),
    ],
)
def test_the_rule_finds(text, keyword):
    assert find_keyword(text) == keyword
    start, end = keyword_span(text, keyword)
    assert text[start:end].lower() == keyword


@pytest.mark.parametrize("text", ["???", "  ", "!"])
def test_without_a_word_there_is_no_keyword(text):
    with pytest.raises(ValueError, match="keyword: the instruction"):
        find_keyword(text)


@pytest.mark.parametrize("keyword", ["dog", "ca", "", "at"])
def test_a_keyword_that_is_no_word_of_the_instruction_is_refused(keyword):
    with pytest.raises(ValueError, match=f"keyword: '{keyword}' is no word of its instruction 'replace the cat'"):
        keyword_span("replace the cat", keyword)


@pytest.fixture(scope="module")
def tokenizer():
    return clip_tokenizer()


def said(tokenizer, instructions, span):
    ids = tokenizer(joint(instructions)).input_ids
    return tokenizer.decode(ids[span.start : span.stop]).strip()


def test_spans_hold_the_tokens_of_their_words(tokenizer):
    instructions = (
        Instruction("Make the circle blue."),
        Instruction("remove the extraordinary pentagon", keyword="Pentagon"),
        Instruction("add a hat"),
    )
    assert joint(instructions) == EditRequest(None, instructions).instruction
    subs = sub_instruction_spans(instructions, tokenizer)
    said_subs = [said(tokenizer, instructions, span).replace(" .", ".") for span in subs]
    assert said_subs == ["make the circle blue.", "remove the extraordinary pentagon", "add a hat"]
    words = keyword_spans(instructions, tokenizer)
    assert [said(tokenizer, instructions, span) for span in words] == ["circle", "pentagon", "hat"]
    assert len(words[0]) == 1 < len(words[1]), "a word of several tokens has all of them"
    assert subs[0].start == 1 and subs[1].start - subs[0].stop == 1


def test_what_is_cut_is_told_and_a_keyword_in_it_is_an_error(tokenizer):
    limit = CONTEXT - 1
    long = Instruction("remove " + "the " * limit + "circle", keyword="circle")
    with pytest.warns(UserWarning, match=rf"instruction of \d+ tokens cut to the generator's {CONTEXT}"):
        spans = sub_instruction_spans([long, Instruction("add a ring")], tokenizer)
    assert spans == [range(1, limit), range(limit, limit)]
    with pytest.raises(ValueError, match=f"keyword: 'circle' ends at token 33, .* reads {limit - 1} "):
        keyword_spans([long], tokenizer)
    with pytest.raises(ValueError, match="keyword: 'ring' ends"):
        keyword_spans([Instruction(long.text, keyword="remove"), Instruction("add a ring")], tokenizer)
    assert keyword_spans([Instruction(long.text, keyword="remove")], tokenizer) == [range(1, 2)]
