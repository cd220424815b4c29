"""Models' answers: strict parsing, one retry, failure in one line; and the prompts with their versions."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regionedit.describe.answers import BothCaptions, Keyword, SourceCaption, TargetCaption, ask, read_answer
from regionedit.describe.chat import FOLDER, Chat, ChatModel, prompt
from regionedit.mask_sources.vlm_box import BoxAnswer

CHAT = Chat("system", "user")


class Scripted(ChatModel):
    """Answers each chat from a prepared list; records every request and whether it was a retry."""

    identity = {"name": "scripted"}

    def __init__(self, script):
        self.script = {question: iter(answers) for question, answers in script.items()}
        self.questions = []

    def answer(self, chats, again=False):
        self.questions += [(chat.user, again) for chat in chats]
        return [next(self.script[chat.user]) for chat in chats]


@pytest.mark.parametrize(
    "text",
    [
        '{"target_caption": "a cat"}',
        ' \n{"target_caption":" a cat "}\n',
        '```json\n{"target_caption": "a cat"}\n```',
        '```\n{"target_caption": "a cat"}```',
    ],
)
def test_a_single_json_object_is_accepted(text):
    assert read_answer(text, TargetCaption) == TargetCaption(target_caption="a cat")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a cat",
        'Sure! {"target_caption": "a cat"}',
        '{"target_caption": "a cat"} I kept the rest.',
        '{"target_caption": "a ca',
        '{"target_caption": ""}',
        '{"target_caption": "  "}',
        '{"target_caption": null}',
        '{"target_caption": ["a cat"]}',
        '{"target_caption": 3}',
        '{"target_caption": "a cat", "mood": "happy"}',
        '{"caption": "a cat"}',
        '[{"target_caption": "a cat"}]',
        '{"target_caption": "a cat\\nand a dog"}',
        json.dumps({"target_caption": "a" * 1001}),
        json.dumps({"target_caption": "a"}) + " " * 20_000 + "x",
        "```json\n```",
    ],
)
def test_anything_else_is_refused_in_one_line(text):
    with pytest.raises(ValueError) as error:
        read_answer(text, TargetCaption)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60) | st.builds(json.dumps, st.recursive(st.none() | st.text(), st.lists, max_leaves=4)))
def test_no_text_crashes_the_parser(text):
    try:
        answer = read_answer(text, Keyword)
    except ValueError as error:
        assert "\n" not in str(error)
    else:
        assert answer.keyword and json.loads(text.strip().strip("`").removeprefix("json"))["keyword"]


@settings(max_examples=40, deadline=None)
@given(st.text(st.characters(codec="utf-8", min_codepoint=32), min_size=1, max_size=40).filter(str.strip))
def test_any_line_survives_the_parser(caption):
    assert read_answer(json.dumps({"keyword": caption}), Keyword).keyword == caption.strip()


def test_an_invalid_answer_is_retried_once():
    good, bad, late = '{"keyword": "ring"}', "a ring", '{"keyword": "late"}'
    model = Scripted({"one": [good], "two": [bad, late], "three": [bad, bad]})
    one, two, three = ask(model, [Chat("", name) for name in ("one", "two", "three")], Keyword)
    assert one.keyword == "ring" and two.keyword == "late"
    assert isinstance(three, ValueError) and "scripted gave no keyword" in str(three) and "'a ring'" in str(three)
    assert model.questions == [("one", False), ("two", False), ("three", False), ("two", True), ("three", True)]


def test_a_failed_request_is_not_retried():
    gone = ValueError("describe.endpoint: given up")
    model = Scripted({"user": [gone]})
    assert ask(model, [CHAT], Keyword) == [gone]
    assert ask(Scripted({}), [], Keyword) == []


FIELDS = {
    "source_caption": (SourceCaption, {}),
    "target_caption": (TargetCaption, {"caption": "a cat", "instruction": "x"}),
    "both_captions": (BothCaptions, {"instruction": "x"}),
    "keyword": (Keyword, {"instruction": "x"}),
    "boxes": (BoxAnswer, {"instruction": "x", "coordinates": "in pixels"}),
}


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.txt")))
def test_every_prompt_requests_the_fields_of_its_schema(name):
    kind, words = FIELDS[name]
    chat = prompt(name).chat(**words)
    form = '"bbox_2d": [x0, y0, x1, y1]'
    assert all(f'"{field}": "..."' in chat.system.replace(form, '"bbox_2d": "..."') for field in kind.model_fields)
    assert all(word in chat.user for word in words.values()) and "$" not in chat.user


def test_placeholders_in_values_are_not_substituted():
    chat = prompt("target_caption").chat(caption="$instruction {x} $$", instruction="say $caption")
    assert chat.user == "Caption: $instruction {x} $$\nInstruction: say $caption"
