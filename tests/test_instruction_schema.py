"""Parsing a model's answer: every answer becomes a valid edit, or is refused with one of a few reasons."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from instruction_schema import OPERATIONS, BadAnswer, is_english, read_answer

CAPTION = "a brown dog asleep on a grey sofa"
EDIT = {
    "operation": "replace",
    "instruction": "swap the dog for a cat",
    "target_caption": "a brown cat asleep on a grey sofa",
    "object": "dog",
}


def answer(**changes) -> str:
    return json.dumps({name: value for name, value in (EDIT | changes).items() if value is not None})


def reason(text: str, caption: str = CAPTION, operation: str | None = "replace", **named) -> str:
    with pytest.raises(BadAnswer) as error:
        read_answer(text, caption, operation, **named)
    assert str(error.value) == error.value.reason
    return error.value.reason


@pytest.mark.parametrize(
    "text",
    [
        answer(),
        f"Sure! Here is the JSON:\n```json\n{answer()}\n```\nLet me know if {{that}} helps.",
        f"<think>the set {{dog, sofa}}</think>{answer()}",
        json.dumps(EDIT | {"scope": "local"}, indent=2),
        answer(instruction="  swap the dog\n for a cat "),
    ],
)
def test_one_object_is_found_in_whatever_is_around_it(text):
    assert read_answer(text, CAPTION, "replace").model_dump() == EDIT


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "answer: prose without JSON"),
        ("I would swap the dog for a cat.", "answer: prose without JSON"),
        (answer()[:60], "answer: broken JSON"),
        ("{" * 3000, "answer: broken JSON"),
        ('{"a":' * 1500, "answer: broken JSON"),
        (f"{answer()} or {answer(object='sofa')}", "answer: several JSON objects"),
        (answer() + " " * 9000, "answer: too long"),
        ("[1, 2]", "answer: prose without JSON"),
        (answer(operation="explode"), "operation: literal error"),
        (answer(operation="remove"), "operation: not the one asked for"),
        (answer(instruction=None), "instruction: missing"),
        (answer(instruction=7), "instruction: string type"),
        (answer(instruction=" x "), "instruction: string too short"),
        (answer(instruction="swap the dog " * 40), "instruction: string too long"),
        (answer(target_caption=None), "target_caption: missing"),
        (answer(target_caption="A brown  dog asleep on a GREY sofa."), "target_caption: the caption, unchanged"),
        (answer(target_caption="一只棕色的猫睡在沙发上"), "target_caption: another language"),
        (answer(instruction="замени собаку на кошку"), "instruction: another language"),
        (answer(instruction="Remplace le chien par un chat"), "instruction: another language"),
        (answer(instruction="swap the dog\u202e for a cat"), "instruction: not printable"),
        (answer(object="d\u0000g"), "object: not printable"),
        (answer(object=""), "object: missing"),
        (answer(instruction="make it \ud800"), "instruction: string unicode"),
    ],
)
def test_every_other_answer_has_a_reason(text, expected):
    assert reason(text) == expected


def test_captions_in_another_script_get_targets_in_it():
    chinese = answer(target_caption="一只棕色的猫睡在沙发上")
    assert read_answer(chinese, "一只棕色的狗睡在沙发上", "replace").target_caption.endswith("沙发上")
    assert reason(answer(), "一只棕色的狗睡在沙发上") == "target_caption: another language"


def test_a_no_op_keeps_the_caption():
    edit = read_answer(answer(operation="noop", instruction="keep the sofa grey"), CAPTION, "noop")
    assert edit.target_caption == CAPTION


def test_a_given_instruction_is_kept_and_its_operation_found():
    text = answer(instruction="ignored")
    edit = read_answer(text, CAPTION, None, instruction="ersetze den Hund")
    assert (edit.instruction, edit.operation) == ("ersetze den Hund", "replace")
    assert read_answer(answer(instruction=None), CAPTION, None, instruction="a cat, please").object == "dog"


def test_other_languages_can_be_allowed():
    text = answer(instruction="Remplace le chien par un chat")
    assert read_answer(text, CAPTION, "replace", language="any").instruction.startswith("Remplace")


ENGLISH = (
    "make it snow", "Add a hat.", "I would like the bicycle to stand on a beach.", "bigger dog", "remove the die",
    "Could you give the van a red roof?", "swap the cat for a dog", "paint the wall in blue and yellow",
)  # fmt: skip
FOREIGN = (
    "ersetze den Hund durch eine Katze", "cambia el perro por un gato", "verwijder het huis van de foto",
    "aggiungi un albero con la neve", "犬を猫に変えて", "θάλασσα στο φόντο", "lägg till ett träd med snö på",
)  # fmt: skip


@pytest.mark.parametrize("text", ENGLISH + FOREIGN)
def test_english_is_recognised(text):
    assert is_english(text) == (text in ENGLISH)


@settings(max_examples=80, deadline=None)
@given(st.one_of(st.text(max_size=300), st.text('{}[]",:ab\\ u0', max_size=120)), st.sampled_from((None, *OPERATIONS)))
def test_any_answer_is_an_edit_or_has_a_reason(text, operation):
    try:
        read_answer(text, CAPTION, operation)
    except BadAnswer as error:
        assert 5 < len(error.reason) < 60 and error.reason.isprintable()


@settings(max_examples=100, deadline=None)
@given(st.fixed_dictionaries({name: st.text(max_size=30) for name in EDIT}), st.text(max_size=40))
def test_accepted_answers_keep_every_rule(fields, caption):
    text = json.dumps(fields | {"operation": "add"})
    try:
        edit = read_answer(text, caption, "add", language="any")
    except BadAnswer:
        return
    assert edit.operation == "add" and edit.object and edit.target_caption.casefold() != caption.casefold()
    for value in (edit.instruction, edit.target_caption, edit.object):
        assert value.isprintable() and value == value.strip() and "  " not in value
