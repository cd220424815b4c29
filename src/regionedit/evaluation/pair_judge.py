"""python -m regionedit.evaluation.pair_judge: which of two evaluations' pictures a vision-language model prefers.

PVC-Judge of GEdit-Bench v2 (arXiv 2603.28547) sees the source and two edits, and names the one that better keeps what
the instruction leaves unchanged, or a tie. Such judges favour a place, so each case is judged in both orders. A system
wins if both answers name it and loses if both name the other; other readable answers make a tie. Cases without two
readable answers or without both pictures stay in the shares, under names of their own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from regionedit.command_line import parse_command, run_command
from regionedit.config import PairJudgeConfig
from regionedit.evaluation import BENCHMARKS
from regionedit.evaluation.export import markdown
from regionedit.evaluation.finished_evaluations import Evaluation, read_evaluations
from regionedit.evaluation.judge import Judge, ask, counts, require_key
from regionedit.evaluation.metrics import rgb
from regionedit.evaluation.outcomes import CaseFolder, Outcome
from regionedit.evaluation.rubrics import Question, Rubric, Unreadable, digest
from regionedit.evaluation.scoring import interval
from regionedit.evaluation.tables import TextTable, bracketed, print_table, terminal
from regionedit.files import write_together
from regionedit.images import digest as picture_digest
from regionedit.records import EditCase

WHERE = "src/prompts/assets/vlm/assessment/visual_consistency/pairwise/v1.yaml of ZhangqiJiang07/GEditBench_v2"
RESULTS = ("win", "tie", "loss", "unanswered", "no picture")
OF_SCORE = {1: "win", 0: "tie", -1: "loss"}
ORDERS = {"system first": 1, "against first": -1}  # question -> the score of an answer that names image A
# Image A, image B and a tie, under the names that the published script reads.
WINNERS = {"image a": 1, "image_a": 1, "a": 1, "image b": -1, "image_b": -1, "b": -1}
WINNERS |= dict.fromkeys(("tie", "equal", "both", "none"), 0)


@dataclass(frozen=True)
class Pair(Outcome):
    """Two edits of a case: `picture` is the system's, `other` that of the one it is compared with."""

    other: Image.Image | None = None

    @cached_property
    def shown(self) -> list[str]:
        """Hashes of source, the system's picture, instruction and the other picture."""
        return [*super().shown, picture_digest(self.other)]


class PairFolder(CaseFolder):
    """The answers about pairs of pictures, in `folder`; the pictures are in two other folders."""

    def __init__(self, folder: str | Path, one: CaseFolder, other: CaseFolder):
        super().__init__(folder)
        self.pair = one, other

    def outcomes(self, cases: Iterable[EditCase]) -> Iterator[Pair]:
        """A pair for each scored case; it fails if one of the two has no picture."""
        for case in cases:
            for one, other in zip(*(folder.outcomes([case]) for folder in self.pair), strict=True):
                failed = one.failed if one.failed is not None else other.failed
                answers = self.answers(case.id)
                yield Pair(case, picture=one.picture, answers=answers, failed=failed, other=other.picture)


class PairRubric(Rubric):
    """PVC-Judge's prompt and its message as the repository's script builds it.

    The repository has no licence, so the prompt file is not shipped. `compared` is part of the judge's identity.
    """

    preparation = "none; pictures as stored"
    placeholder = "{{ instruction }}"
    shipped = False

    def __init__(self, prompts: str | None, compared: Mapping[str, str]):
        if prompts is None:
            raise ValueError(f"vlm_judge.prompts: give the file with the prompt, {WHERE}")
        try:
            text = Path(prompts).read_text()
            file = yaml.safe_load(text)
            self.system = file["system_prompt"]
            self.parts: list[str | int] = []
            for part in map(_part, file["user_prompt"]):
                after_picture = isinstance(part, str) and self.parts and isinstance(self.parts[-1], int)
                self.parts += ["\n", part] if after_picture else [part]  # the script's separator
        except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
            raise ValueError(f"vlm_judge.prompts: {prompts} is not {WHERE}: {error!r}") from None
        places = sorted(part for part in self.parts if isinstance(part, int))
        if places != [0, 1, 2] or self.placeholder not in text:
            raise ValueError(f"vlm_judge.prompts: {prompts} lacks a picture or {self.placeholder}; take {WHERE}")
        self.prompts, self.compared = {"pair": text}, compared

    def questions(self, outcome: Pair) -> list[Question]:
        request, prompt = outcome.case.request, digest(self.prompts["pair"])
        source, one, other = rgb(request.image), rgb(outcome.picture), rgb(outcome.other)
        questions = []
        for name, pictures in zip(ORDERS, ((source, one, other), (source, other, one)), strict=True):
            parts = (
                pictures[part] if isinstance(part, int) else part.replace(self.placeholder, request.instruction)
                for part in self.parts
            )
            questions.append(Question(name, "", prompt, pictures, tuple(parts), self.system))
        return questions

    def read(self, question: str, answer: str) -> float:
        """1 if the answer names the system's picture, -1 if it names the other one, 0 for a tie."""
        try:
            named = json.loads(answer[answer.find("{") : answer.rfind("}") + 1])["winner"]
            return ORDERS[question] * WINNERS[named.strip().lower()]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise Unreadable("no JSON with `winner`") from None

    def scores(self, answers: Mapping[str, float]) -> dict[str, float]:
        """`overall`: 1 win, 0 tie, -1 loss; `swayed`: 1 if both answers name the same place, else 0."""
        one, other = answers.values()
        return {"overall": one if one == other else 0, "swayed": int(one * other < 0)}

    def identity(self) -> dict[str, str]:
        return super().identity() | self.compared


def judge_pairs(config: PairJudgeConfig) -> dict[str, Any]:
    """Ask, if there is a server, and write to `out` what the stored answers say.

    Returns:
        The content of pair_judge.json: `shares` has mean, interval and n of each of RESULTS over all scored cases;
        `swayed` counts the cases in which both answers name the same place.

    Raises:
        ValueError: a wrong setting, or evaluations of different cases; one line that names it.
    """
    one, other = read_evaluations([config.system, config.against])
    benchmark = one.summary["benchmark"]
    compared = {"benchmark": benchmark, "system": one.name, "against": other.name}
    judge = Judge(config.vlm_judge, "pair", PairRubric(config.vlm_judge.prompts, compared))
    require_key(config.vlm_judge)
    settings, pictures = _finished(one)
    folder = PairFolder(config.out, pictures, _finished(other)[1])
    if benchmark != other.summary["benchmark"] or set(one.rows.index) != set(other.rows.index):
        raise ValueError(f"against: {other.name} was not evaluated on the cases of {one.name}")
    cases = BENCHMARKS[benchmark](settings["data"], settings["limit"], settings["ids"])
    if config.vlm_judge.endpoint:
        ask(judge, folder, cases, f"judging: {one.name} and {other.name}")
    results, scores = {}, {}
    for pair in folder.outcomes(cases):
        found = judge.scores(pair) if pair.failed is None else None
        if found is not None:
            scores[pair.case.id] = found
        answered = OF_SCORE[found["overall"]] if found else "unanswered"
        results[pair.case.id] = answered if pair.failed is None else "no picture"
    if not scores:
        raise ValueError(f"vlm_judge.endpoint: needed, because {config.out} has no answers about these pictures")
    shares = {name: interval(np.array([r == name for r in results.values()], float)) for name in RESULTS}
    swayed = sum(found.get("swayed", 0) for found in scores.values())
    content = {**compared, "n": len(results), "shares": shares, "swayed": swayed}
    content |= {"answers": counts(judge, folder, scores), "judge": judge.identity(), "cases": results}
    text = json.dumps(content, indent=1, allow_nan=False)
    write_together(
        config.out, {"pair_judge.json": text.encode(), "pair_judge.md": markdown([_table(content)]).encode()}
    )
    return content


def _table(content: dict[str, Any]) -> TextTable:
    answers = ", ".join(f"{count} {what}" for what, count in content["answers"].items())
    note = "Shares of all cases with 95 % bootstrap intervals; win and loss: both orders name the same system.\n"
    note += f"Cases in which both orders name the same place: {content['swayed']}. Answers: {answers}."
    cells = [bracketed(share["mean"], share["low"], share["high"], 3) for share in content["shares"].values()]
    row = (content["system"], content["against"], str(content["n"]), *cells)
    title = f"{content['benchmark']}: pairs judged by {content['judge']['model']}"
    return TextTable(title, note, ("system", "against", "n", *RESULTS), (row,), names=2)


def _part(part: Mapping[str, Any]) -> str | int:
    """A text without its last line end, as in the published script; or 0 for the source, 1 and 2 for images A and B."""
    if "text" in part:
        return part["text"].removesuffix("\n")
    return 0 if part["image"]["source"] == "input_image" else 1 + part["image"]["index"]


def _finished(evaluation: Evaluation) -> tuple[dict[str, Any], CaseFolder]:
    """The settings of an evaluation, and its pictures. ValueError: the settings or the rows were not kept."""
    folder = evaluation.folder
    if evaluation.rows is None or not (folder / "config.yaml").is_file():
        raise ValueError(f"{folder}: config.yaml or cases.parquet is missing; run the evaluation again")
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    given = settings["pictures"]
    return settings, CaseFolder(folder) if given is None else CaseFolder.of_pictures(given, folder)


def main(argv: Sequence[str] | None = None) -> int:
    """0: judged. 2: a wrong setting, in one line."""
    config = parse_command(PairJudgeConfig, argv)
    return run_command(
        "pair_judge", lambda: print_table(_table(judge_pairs(config)), terminal()), config.out, debug=False
    )


if __name__ == "__main__":
    raise SystemExit(main())
