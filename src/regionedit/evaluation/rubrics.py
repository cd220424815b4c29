"""Questions to a vision-language model about an edit, and how its answers become scores.

`viescore`: VIEScore as GEdit-Bench uses it. Two questions, each answered by one or two numbers from 0 to 10: semantics
(source and edited picture; editing success and no over-editing) and quality (edited picture alone; naturalness and no
artifacts). A question's score is the smaller number; the overall score is the square root of the product. Published
code fills answers that it cannot read with random numbers from the second try on; here they are counted as unreadable.

`imgedit`: ImgEdit-Bench's rubric. One question whose prompt depends on the edit's type, answered by lines such as
`Prompt Compliance: 4` with numbers from 1 to 5; the score is their mean, rounded to two decimals. Published code drops
answers without such a line; here they are counted as unreadable.
"""

from __future__ import annotations

import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import ClassVar

from PIL import Image

from regionedit.evaluation.metrics import rgb
from regionedit.evaluation.outcomes import Outcome

PROMPTS = Path(__file__).with_name("rubric_prompts")
DELIMITER = "||V^=^V||"  # VIEScore's own; models put it around the JSON if their prompt has it


class Unreadable(ValueError):
    """An answer holds no score in the form that the rubric requests."""


@dataclass(frozen=True)
class Question:
    """One question to a judge about one edit.

    Args:
        name: key of the answer.
        text: the prompt with the instruction in it.
        prompt: SHA-256 of the prompt before the instruction is put in.
        pictures: RGB, in the order in which they are sent.
        parts: texts and pictures in the order of the message, where the rubric fixes it; else `text` and `pictures`.
        system: the system prompt; empty: none is sent.
    """

    name: str
    text: str
    prompt: str
    pictures: tuple[Image.Image, ...]
    parts: tuple[str | Image.Image, ...] = ()
    system: str = ""


class Rubric(ABC):
    """The questions about an edit and the reading of the answers.

    Attributes:
        preparation: how pictures are resized before they are sent, for the protocol.
        shipped: whether the prompts come with this package, and not from a file.
        prompts: name -> prompt with a placeholder for the instruction.
    """

    preparation: ClassVar[str]
    shipped: ClassVar[bool]
    prompts: Mapping[str, str]

    @abstractmethod
    def questions(self, outcome: Outcome) -> list[Question]:
        """The questions about an edit that has a picture. ValueError: the rubric has none for this case."""

    @abstractmethod
    def read(self, question: str, answer: str) -> float:
        """The score of one answer. Unreadable: there is none in it."""

    @abstractmethod
    def scores(self, answers: Mapping[str, float]) -> dict[str, float]:
        """Metric's part -> score, from the scores of all questions; `overall` is always one of them."""

    def identity(self) -> dict[str, str]:
        """What the protocol records: the preparation, and the hash of each prompt."""
        return {"preparation": self.preparation} | {f"prompt {name}": digest(p) for name, p in self.prompts.items()}


class VieScore(Rubric):
    """VIEScore's `tie` task without examples, from stepfun-ai/Step1X-Edit, GEdit-Bench/viescore."""

    preparation = "the edited picture resized to the source's size, bicubic"
    placeholder = "<instruction>"
    shipped = True

    def __init__(self, prompts: str | None = None):
        # Bytes, because the trailing spaces and line ends of the text belong to the protocol.
        self.prompts = {
            name: (PROMPTS / f"viescore_{name}.txt").read_bytes().decode() for name in ("semantics", "quality")
        }

    def questions(self, outcome: Outcome) -> list[Question]:
        request = outcome.case.request
        source, edited = rgb(request.image), rgb(outcome.picture, request.image.size)
        pictures = {"semantics": (source, edited), "quality": (edited,)}
        return [
            Question(name, prompt.replace(self.placeholder, request.instruction), digest(prompt), pictures[name])
            for name, prompt in self.prompts.items()
        ]

    def read(self, question: str, answer: str) -> float:
        numbers = _viescore_numbers(answer)
        if not 1 <= len(numbers) <= 2 or not all(_is_number(n) and 0 <= n <= 10 for n in numbers):
            raise Unreadable(f"{numbers} is not one or two numbers from 0 to 10")
        return float(min(numbers))

    def scores(self, answers: Mapping[str, float]) -> dict[str, float]:
        return dict(answers) | {"overall": math.sqrt(answers["semantics"] * answers["quality"])}


class ImgEdit(Rubric):
    """ImgEdit-Bench's nine prompts, from the file Benchmark/Basic/prompts.json of PKU-YuanGroup/ImgEdit.

    The repository has no licence, so the file is not shipped.
    """

    preparation = "none; pictures as stored"
    placeholder = "<edit_prompt>"
    shipped = False
    kinds = ("replace", "add", "adjust", "remove", "style", "action", "extract", "background", "compose")

    def __init__(self, prompts: str | None = None):
        where = "Benchmark/Basic/prompts.json of github.com/PKU-YuanGroup/ImgEdit"
        if prompts is None:
            raise ValueError(f"vlm_judge.prompts: give the file with the rubric, {where}")
        try:
            texts = json.loads(Path(prompts).read_text())
            self.prompts = {kind: texts[kind] for kind in self.kinds}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"vlm_judge.prompts: {prompts} is not {where}: {error!r}") from None
        if bare := [kind for kind, text in self.prompts.items() if self.placeholder not in text]:
            raise ValueError(f"vlm_judge.prompts: {prompts}: {bare[0]} has no {self.placeholder}")

    def questions(self, outcome: Outcome) -> list[Question]:
        request, kind = outcome.case.request, outcome.case.operation
        if kind not in self.prompts:
            raise ValueError(f"case {outcome.case.id}: the rubric has no prompt for {kind!r}")
        prompt = self.prompts[kind]
        text = prompt.replace(self.placeholder, request.instruction)
        return [Question("rubric", text, digest(prompt), (rgb(request.image), rgb(outcome.picture)))]

    def read(self, question: str, answer: str) -> float:
        pairs = [line.strip().split(": ") for line in answer.splitlines()]
        numbers = [float(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isascii() and pair[1].isdigit()]
        if not numbers or not all(1 <= number <= 5 for number in numbers):
            raise Unreadable("no line such as `Prompt Compliance: 4` with a number from 1 to 5")
        return round(sum(numbers) / len(numbers), 2)

    def scores(self, answers: Mapping[str, float]) -> dict[str, float]:
        return {"overall": answers["rubric"]}


RUBRICS: dict[str, type[Rubric]] = {"viescore": VieScore, "imgedit": ImgEdit}


@cache
def load_rubric(name: str, prompts: str | None) -> Rubric:
    """The rubric of this name. ValueError: its prompts are missing or wrong."""
    return RUBRICS[name](prompts)


def digest(prompt: str) -> str:
    """SHA-256 of a prompt."""
    return sha256(prompt.encode()).hexdigest()


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _viescore_numbers(answer: str) -> list:
    """The value of `score`, as VIEScore's `mllm_output_to_dict` finds it: in JSON, a bare list, or a bare number."""
    if answer.count(DELIMITER) == 2:
        text = answer.split(DELIMITER)[1]
    elif "{" in answer and "}" in answer:
        text = answer[answer.find("{") : answer.rfind("}") + 1]
    elif re.fullmatch(r"\[\d+, ?\d+\]", bare := answer[answer.find("[") : answer.rfind("]") + 1]):
        text = f'{{"score": {bare}}}'
    elif re.fullmatch(r"\s*(\d|10)\s*", answer):
        return [int(answer)]
    else:
        raise Unreadable("neither JSON nor a list of two numbers")
    try:
        score = json.loads(text.strip().replace("\n", ""))["score"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Unreadable("no JSON with `score`") from None
    return score if isinstance(score, list) else [score]
