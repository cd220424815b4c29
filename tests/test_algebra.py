"""Expressions over mask sources: parsing, printing, evaluation, refusals, and the resulting regions."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from regionedit.config import RegionConfig
from regionedit.mask_sources import require_mask_source, wanted_mask_source
from regionedit.mask_sources.algebra import Name, Operation, parse
from regionedit.mask_sources.finder import Finder
from regionedit.records import EditRequest, Region
from tests.segmenters import must_not_load

NAMES = ("learned", "sam", "drawn", "difference")
EXPRESSIONS = st.recursive(
    st.sampled_from(NAMES).map(Name),
    lambda inner: st.builds(Operation, st.sampled_from("+-&"), inner, inner),
    max_leaves=12,
)


def bracketed(expression) -> str:
    """The expression with brackets around every operation, so that precedence does not matter."""
    if isinstance(expression, Name):
        return expression.name
    return f"({bracketed(expression.left)} {expression.sign} {bracketed(expression.right)})"


def python_value(text: str, values: dict[str, np.ndarray]) -> np.ndarray:
    """The value by Python's own parser. Python gives & the lowest precedence, so that `*` replaces it here."""

    class Value:
        def __init__(self, array):
            self.array = array

        def __add__(self, other):
            return Value(np.maximum(self.array, other.array))

        def __sub__(self, other):
            return Value(self.array * (1 - other.array))

        def __mul__(self, other):
            return Value(np.minimum(self.array, other.array))

    return eval(text.replace("&", "*"), {name: Value(array) for name, array in values.items()}).array


@given(EXPRESSIONS)
def test_a_printed_expression_parses_to_itself(expression):
    assert parse(str(expression)) == expression == parse(bracketed(expression))
    assert set(expression.names) <= set(NAMES) and len(set(expression.names)) == len(expression.names)


@given(EXPRESSIONS, st.integers(0, 2**32 - 1))
def test_every_expression_has_the_value_that_python_finds(expression, seed):
    rng = np.random.default_rng(seed)
    values = {name: rng.random((1, 1, 3, 4)).astype(np.float32) for name in NAMES}
    found = expression.evaluate({name: torch.from_numpy(array) for name, array in values.items()})
    assert np.allclose(found.numpy(), python_value(str(expression), values), atol=1e-6)
    assert found.min() >= 0 and found.max() <= 1


@given(st.text("ab+-&() ?", max_size=30))
def test_any_text_is_an_expression_or_refused_in_one_line(text):
    try:
        parse(text)
    except ValueError as error:
        assert str(error).startswith("mask_source: ") and "\n" not in str(error)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "name of a mask source or ( is missing at the end"),
        ("learned +", "is missing at the end"),
        ("learned + + sam", "at character 11, before '+'"),
        ("(learned", ") is missing at the end"),
        ("learned) + sam", "+, - or & is missing at character 8"),
        ("learned sam", "at character 9, before 'sam'"),
        ("learned * sam", "at character 9, before '*'"),
        ("(" * 2000, "brackets in brackets"),
        ("learned - dawn", "no mask source 'dawn'; there are: box_search, "),
    ],
)
def test_errors_name_the_position(text, says):
    with pytest.raises(ValueError) as caught:
        require_mask_source(text)
    assert says in str(caught.value)


def test_an_expression_needs_what_any_of_its_parts_needs():
    plan = require_mask_source("learned + difference")
    assert plan.captions_with("target_caption") == {"source", "target"} and not plan.marks
    assert not plan.captions_with("instruction")
    plan = require_mask_source("learned - drawn")
    assert not plan.captions_with("target_caption") and plan.marks == {"mask", "box"}
    assert require_mask_source("clip_similarity & sam").captions_with("instruction") == {"source"}


@pytest.mark.parametrize(
    ("configured", "marks", "wanted"),
    [
        ("learned", "", "learned"),
        ("learned", "mask", "drawn"),
        ("learned", "click", "sam"),
        ("learned", "click box", "sam"),
        ("drawn", "click", "sam"),
        ("sam", "mask", "sam"),
        ("learned - drawn", "mask", "learned - drawn"),
        ("learned - drawn", "", "learned - drawn"),
        ("learned - drawn", "click", "sam"),
        ("learned + sam - drawn", "mask click", "learned + sam - drawn"),
    ],
)
def test_no_mark_of_the_user_is_ignored(configured, marks, wanted):
    assert wanted_mask_source(configured, frozenset(marks.split())) == wanted


def request(size=(16, 12), box=(2, 2, 10, 8)) -> EditRequest:
    return EditRequest(Image.new("RGB", size), "x", box=box, id="a")


def test_regions_are_joined_as_masks_and_as_probabilities():
    images_BCHW = torch.zeros(1, 3, 12, 16)

    def found(text):
        return (
            require_mask_source(text)
            .load(RegionConfig(), must_not_load, must_not_load)
            .find(images_BCHW, [request()], [None])
        )

    assert found("everything - drawn").mask_B1HW.sum() == 16 * 12 - 8 * 6
    assert found("centre_box & drawn").mask_B1HW.sum() == 6 * 5
    assert found("centre_box + drawn").probability_B1HW.sum() == 8 * 6 + 8 * 6 - 6 * 5
    assert not found("drawn - drawn").mask_B1HW.any()
    grown = require_mask_source("everything - drawn").load(RegionConfig(grow=-1), must_not_load, must_not_load)
    assert grown.find(images_BCHW, [request()], [None]).mask_B1HW.sum() == 16 * 12 - 10 * 8


class Fixed:
    """A mask source that always finds the same region."""

    refinable = False

    def __init__(self, region: Region):
        self.region = region

    def find(self, images_BCHW, requests, captions):
        return self.region


def test_the_parts_of_several_instructions_are_cut_to_the_joined_mask():
    left, right = torch.zeros(1, 1, 4, 8), torch.zeros(1, 1, 4, 8)
    left[..., :3], right[..., 5:] = 1, 1
    both = Region(left + right, left + right, torch.cat([left, right], 1), notes=("one",))
    hole = Region(torch.ones(1, 1, 4, 8), torch.ones(1, 1, 4, 8), notes=("two",))
    hole.mask_B1HW[..., 3:] = 0
    parts = {"learned": Fixed(both), "drawn": Fixed(hole)}
    region = Finder(parse("learned - drawn"), parts, None, RegionConfig()).find(left, [request()], [None])
    assert not region.per_instruction_BKHW[:, 0].any() and torch.equal(region.per_instruction_BKHW[:, 1:], right)
    assert region.notes == ("one; two",) and region.patches_BN is None
