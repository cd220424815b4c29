"""Training data of the microworld's language model: questions in the form of the prompts, and correct answers in JSON.

A lesson is a pure function of its stream and number.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from regionedit.microworld import commands
from regionedit.microworld.edits import Edit, sample_edit
from regionedit.microworld.grammar import PHRASINGS
from regionedit.microworld.scene import sample_scene
from regionedit.microworld.splits import scene_rng

TRAIN_SEED, HELD_OUT_SEED = 6, 7  # disjoint streams of the split "pretrain"
# the operations that the instruction writer has in the microworld
WRITER_OPERATIONS = ("replace", "recolour", "add", "remove", "background", "style", "noop")
WORDINGS = (  # the instruction writer's style hints, which the grammar ignores
    "plain", "short", "polite", "as a question", "as a wish", "detailed", "casual", "describe the result",
)  # fmt: skip


@dataclass(frozen=True)
class Lesson:
    """A question and its answer. In task 2 many answers are correct; this is one of them."""

    question: str
    answer: str


def edit_of(seed: int, index: int, operation: str | None = None) -> tuple[Edit, np.random.Generator]:
    """Edit number `index` of a stream; a quarter use phrasings that the region predictor is never trained on."""
    rng = scene_rng("pretrain", seed, index)
    unseen = bool(rng.random() < 0.25)
    edit = None
    while edit is None:
        edit = sample_edit(sample_scene(rng, allow_unseen=True), rng, operation, unseen_phrasing=unseen)
    return edit, rng


def target_lesson(seed: int, index: int) -> Lesson:
    """Task 1: the target caption. Half of the captions have the wording of the microworld's describer, which reads
    pixels; half of those have two instructions."""
    edit, rng = edit_of(seed, index)
    source, target, instruction = edit.source_caption, edit.target_caption, edit.instruction
    if rng.random() < 0.5:
        texts = [instruction]
        if rng.random() < 0.5 and (second := sample_edit(edit.target, rng)) is not None:
            texts.append(second.instruction)
        try:
            source, target = commands.captions_of(edit.source, *map(commands.parse, texts))
            instruction = "; ".join(texts)
        except ValueError:  # the second names an object that the first removed
            pass
    if edit.operation == "resize" and rng.random() < 0.5:  # describers seldom mention the size of an object
        thing = edit.source.things[edit.named]
        source = source.replace(f"{thing.size_word} {thing.color} {thing.shape}", f"{thing.color} {thing.shape}")
    return Lesson(f"Caption: {source}\nInstruction: {instruction}", json.dumps({"target_caption": target}))


def written_edit(seed: int, index: int, operation: str | None = None) -> tuple[Edit, dict[str, str], str]:
    """An edit in the form of the instruction writer, with an operation of `WRITER_OPERATIONS`, and a style hint.

    The writer counts a change of size as `recolour`, like any change of an attribute, and calls a change of the whole
    picture `style`. `noop` requests the colour that an object already has.
    """
    if operation is None:
        operation = WRITER_OPERATIONS[int(scene_rng("pretrain", seed, index).integers(len(WRITER_OPERATIONS)))]
    own = {"recolour": "resize" if index % 4 == 0 else "recolour", "noop": "recolour", "style": "global"}
    edit, rng = edit_of(seed, index, own.get(operation, operation))
    instruction, target = edit.instruction, edit.target_caption
    if operation == "noop":
        thing = edit.source.things[edit.named]
        phrasings = PHRASINGS["recolour"][0] + PHRASINGS["recolour"][1]
        words = {"a": f"{thing.color} {thing.shape}", "c": thing.color}
        instruction = phrasings[int(rng.integers(len(phrasings)))].format(**words)
        target = edit.source_caption
    answer = {"operation": operation, "instruction": instruction, "target_caption": target}
    return edit, answer | {"object": commands.parse(instruction).keyword}, str(rng.choice(WORDINGS))


def instruction_lesson(seed: int, index: int, operation: str | None = None) -> Lesson:
    """Task 2: write an instruction."""
    edit, answer, wording = written_edit(seed, index, operation)
    question = {"operation": answer["operation"], "wording": wording, "caption": edit.source_caption}
    return Lesson(json.dumps(question), json.dumps(answer))


def given_lesson(seed: int, index: int) -> Lesson:
    """Task 3: complete a given instruction."""
    edit, answer, _ = written_edit(seed, index)
    question = {"instruction": answer.pop("instruction"), "caption": edit.source_caption}
    return Lesson(json.dumps(question), json.dumps(answer))


def keyword_lesson(seed: int, index: int) -> Lesson:
    """Task 4: the keyword."""
    edit, _ = edit_of(seed, index)
    return Lesson(f"Instruction: {edit.instruction}", json.dumps({"keyword": commands.parse(edit.instruction).keyword}))


def lessons(seed: int, start: int, count: int) -> list[Lesson]:
    """Lessons number start, start + 1, ... of a stream, with the tasks in turn."""
    kinds = [target_lesson] * 7 + [instruction_lesson] * 8 + [given_lesson] * 3 + [keyword_lesson] * 2
    return [kinds[index % len(kinds)](seed, index) for index in range(start, start + count)]
