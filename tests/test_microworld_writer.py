"""The microworld's grammar as a writer, against the scenes and edits that the microworld itself makes."""

import json
from dataclasses import replace

import pytest
from microworld_writer import CaptionParts, MicroworldWriter
from write_config import MIX, WriteConfig
from writers import Ask

from regionedit.microworld.commands import parse
from regionedit.microworld.grammar import CAPTIONS, OPERATIONS
from regionedit.microworld.scene import UNSEEN_PAIRS
from regionedit.microworld.splits import sample

EDITS = [sample("train", 0, index, OPERATIONS) for index in range(400)]


def ask(caption: str, operation: str | None = "replace", instruction: str | None = None, seed: int = 0) -> Ask:
    return Ask("k", caption, operation, instruction, [], seed, 0)


def write(*asks: Ask) -> list[dict]:
    answers = MicroworldWriter.load(WriteConfig()).write(asks)
    assert not any(answer.failure for answer in answers), answers
    return [json.loads(answer.text) for answer in answers]


def test_captions_are_taken_apart_and_put_together_again():
    captions = [text for edit in EDITS for text in (edit.source_caption, edit.target_caption)]
    assert len({CaptionParts.read(caption).template for caption in captions}) == len(CAPTIONS)
    for caption in captions:
        assert str(CaptionParts.read(caption)) == caption
    assert str(CaptionParts.read("an empty striped gray background")) == "an empty striped gray background"
    assert str(CaptionParts.read("an empty background")) == "an empty background"


@pytest.mark.parametrize(
    "caption", ["", "a dog", "a red circle", "a red circle on a gray background", "a red dog on a background"]
)
def test_other_captions_are_refused(caption):
    with pytest.raises(ValueError, match="not a caption of the microworld"):
        CaptionParts.read(caption)
    answer = MicroworldWriter.load(WriteConfig()).write([ask(caption)])[0]
    assert answer.failure == "microworld: not a caption of the microworld"


def test_a_given_instruction_changes_the_caption_as_the_microworld_itself_changes_it():
    """The microworld makes both captions from scenes; here the second is made from the first, in words alone."""
    checked = set()
    for edit in EDITS:
        named = " ".join(filter(None, parse(edit.instruction).named or ()))
        if named not in edit.source_caption:
            assert edit.operation == "noop"  # the writer refuses what the caption does not name
            continue
        made = write(ask(edit.source_caption, None, edit.instruction))[0]
        if edit.operation == "resize":
            thing = edit.source.things[edit.named]
            assert made["operation"] == "recolour" and made["object"].endswith(thing.shape)
        else:
            assert made["operation"] == {"global": "style"}.get(edit.operation, edit.operation)
        has_relation = any(thing.relations for thing in CaptionParts.read(edit.source_caption).things)
        if edit.operation != "add" or not has_relation:  # a microworld caption names one relation at most, the new one
            checked.add(edit.operation)
            assert made["target_caption"] == edit.target_caption, edit
    assert checked == set(OPERATIONS)


def test_an_instruction_that_names_nothing_in_the_caption_is_refused():
    caption = "a red circle on a plain gray background"
    answers = MicroworldWriter.load(WriteConfig()).write(
        [ask(caption, None, "remove the blue ring"), ask(caption, None, "turn it into a poem")]
    )
    assert [a.failure for a in answers] == ["microworld: the caption does not name it", "microworld: not its grammar"]


@pytest.mark.parametrize("operation", MIX)
def test_what_is_invented_means_what_the_target_caption_says(operation):
    for index, edit in enumerate(EDITS[:80]):
        before = CaptionParts.read(edit.source_caption)
        made = write(ask(edit.source_caption, operation, seed=index))[0]
        after = CaptionParts.read(made["target_caption"])
        command = parse(made["instruction"])
        assert made["operation"] == operation
        assert command.kind == {"style": "global", "noop": "recolour"}.get(operation, operation)
        assert (made["target_caption"] == edit.source_caption) == (operation == "noop")
        old, new = {t.pair for t in before.things}, {t.pair for t in after.things}
        if operation == "background":
            assert new == old and after.ground == command.ground != before.ground
        elif operation == "style":
            assert replace(after, look="", template=before.template) == before and after.look == command.look
        elif operation == "noop":
            assert " ".join(command.named) in edit.source_caption
        elif operation == "add":
            assert new - old == {command.new} and old < new
            assert after.things[-1].relations[0][0] == command.relation
        else:
            gone = before.find(command.named).pair
            came = {"replace": {command.new}, "recolour": {(command.color, gone[1])}, "remove": set()}[operation]
            assert old - new == {gone} and new - old == came
            assert not any(gone == other for thing in after.things for _, other in thing.relations)
        assert not (new - old) & UNSEEN_PAIRS


def test_a_seed_decides_alone_and_what_was_written_can_be_edited_again():
    caption = EDITS[3].source_caption
    one, two, other = write(*(ask(caption, "add", seed=seed) for seed in (5, 5, 6)))
    assert one == two != other
    CaptionParts.read(write(ask(one["target_caption"], "remove"))[0]["target_caption"])


def test_nothing_can_be_removed_from_nothing():
    empty = ask("an empty plain gray background", "remove")
    answers = MicroworldWriter.load(WriteConfig()).write([empty, replace(empty, operation="background")])
    assert answers[0].failure == "microworld: nothing to remove" and answers[1].text
