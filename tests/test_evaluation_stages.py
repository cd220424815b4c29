"""Editing and scoring as separate stages: chains of turns, shares of several processes, and resuming."""

import json
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from PIL import Image

from regionedit.evaluation.editing import Share, edit_cases, turns
from regionedit.evaluation.metrics import Measure, Settings
from regionedit.evaluation.outcomes import CaseFolder, Outcome
from regionedit.evaluation.scoring import ScoreLog, score_cases
from regionedit.generators import noise_seed
from regionedit.records import EditCase, EditFailure, EditRequest


def case(name: str, continues: str | None = None, scored: bool = True) -> EditCase:
    request = EditRequest(Image.new("RGB", (8, 8), "white"), "paint it", id=name)
    return EditCase(name, request, "replace", continues=continues, scored=scored)


def sessions(lengths: list[int]) -> list[EditCase]:
    """Chains of these lengths, ordered by turn; only the last turn of each chain is scored."""
    return [
        case(f"{s}-{t}", f"{s}-{t - 1}" if t else None, scored=t == lengths[s] - 1)
        for t in range(max(lengths, default=0))
        for s in range(len(lengths))
        if t < lengths[s]
    ]


LENGTHS = st.lists(st.integers(1, 4), min_size=1, max_size=12)


@examples(max_examples=40, deadline=None)
@given(LENGTHS, st.integers(1, 5))
def test_shares_cover_every_case_once_and_never_split_a_chain(lengths, processes):
    cases = sessions(lengths)
    shares = [[c.id for c in Share(place, processes).pick(cases)] for place in range(processes)]
    assert sorted(sum(shares, [])) == sorted(c.id for c in cases)
    homes = {name: place for place, share in enumerate(shares) for name in share}
    assert all(homes[c.id] == homes[c.continues] for c in cases if c.continues)


@examples(max_examples=40, deadline=None)
@given(LENGTHS, st.integers(1, 7))
def test_no_group_holds_a_case_and_the_one_it_continues(lengths, size):
    groups = list(turns(sessions(lengths), size))
    assert [c.id for group in groups for c in group] == [c.id for c in sessions(lengths)]
    for group in groups:
        assert 0 < len(group) <= size
        assert not {c.continues for c in group} & {c.id for c in group}


@pytest.mark.parametrize(
    ("variables", "share"),
    [
        ({}, Share()),
        ({"RANK": "2", "WORLD_SIZE": "4"}, Share(2, 4)),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "3"}, Share(1, 3)),
    ],
)
def test_a_process_learns_its_share_from_its_launcher(variables, share, monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert Share.of_this_process() == share


class Darker:
    """A fake editor that subtracts 100 from every pixel value and fails for the ids in `fails`."""

    def __init__(self, fails: tuple[str, ...] = ()):
        self.fails, self.edited, self.seeds = fails, [], []
        self.config = type("Config", (), {"batch": 4})

    def digest(self, request: EditRequest) -> str:
        return f"{request.id} {request.image.getpixel((0, 0))}"

    def edit_batch(self, requests, finished):
        chosen = [request for place, request in enumerate(requests) if place not in finished]
        self.edited += [request.id for request in chosen]
        self.seeds += [request.seed for request in chosen]
        return [EditFailure(r.id, "no luck") if r.id in self.fails else self._edit(r) for r in chosen]

    def _edit(self, request: EditRequest):
        made = request.image.point(lambda value: value - 100)
        return type("Result", (), {"id": request.id, "image": made, "record": {"digest": self.digest(request)}})


def edit(editor: Darker, cases: list[EditCase], folder: CaseFolder) -> None:
    edit_cases(editor, cases, folder, lambda case: case.request, "editing", save_regions=False)


def test_each_case_has_a_seed_of_its_own_whatever_its_place(tmp_path):
    cases, first, second = sessions([1, 1, 1]), Darker(), Darker()
    edit(first, cases, CaseFolder(tmp_path / "a"))
    edit(second, cases[::-1], CaseFolder(tmp_path / "b"))
    assert first.seeds == second.seeds[::-1] == [noise_seed(0, case.id) for case in cases]


def test_a_turn_edits_the_result_of_the_turn_before(tmp_path):
    cases, folder, editor = sessions([3, 1]), CaseFolder(tmp_path), Darker()
    edit(editor, cases, folder)
    assert folder.picture("0-0").getpixel((0, 0)) == (155,) * 3
    assert folder.picture("0-1").getpixel((0, 0)) == (55,) * 3
    assert [o.case.id for o in folder.outcomes(cases)] == ["1-0", "0-2"]  # only final turns are scored
    edit(editor, cases, folder)
    assert len(editor.edited) == 4  # nothing is edited twice


def test_a_turn_without_the_one_before_fails_with_the_reason_and_a_second_run_repairs_it(tmp_path):
    cases, folder = sessions([2, 2]), CaseFolder(tmp_path)
    edit(Darker(fails=("1-0",)), cases, folder)
    assert folder.failure("1-0") == "no luck" and "1-0, has no picture" in folder.failure("1-1")
    assert {o.case.id: o.failed for o in folder.outcomes(cases)} == {"0-1": None, "1-1": folder.failure("1-1")}
    edit(Darker(), cases, folder)
    assert folder.failure("1-0") is None and all(o.failed is None for o in folder.outcomes(cases))


@dataclass(frozen=True, kw_only=True)
class Brightness(Measure):
    """Scores the first pixel's brightness; records which cases it scored."""

    asked: ClassVar[list[str]] = []

    def score(self, outcome: Outcome, settings: Settings) -> float:
        self.asked.append(outcome.case.id)
        return outcome.picture.getpixel((0, 0))[0] / 255


def score(folder: CaseFolder, cases: list[EditCase], path, depends: dict):
    Brightness.asked = []
    metric = Brightness(title="bright").metric(Settings())
    log = ScoreLog(path, depends, folder.stamp)
    rows = score_cases(folder.outcomes, cases, {"brightness": metric}, "scoring", len(cases), log)
    return rows, metric, list(Brightness.asked)


def test_a_killed_scoring_continues_where_it_stopped(tmp_path):
    cases, folder, path = [case(f"{i:02d}") for i in range(40)], CaseFolder(tmp_path), tmp_path / "scores.jsonl"
    edit(Darker(), cases, folder)
    whole, metric, asked = score(folder, cases, path, {"a": 1})
    assert len(asked) == 40 and whole["brightness"].tolist() == pytest.approx([155 / 255] * 40)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:33]) + lines[33][:20])  # killed within a line
    again, resumed, asked = score(folder, cases, path, {"a": 1})
    assert asked == [f"{i:02d}" for i in range(32, 40)]
    assert again.equals(whole) and torch.equal(resumed.values(), metric.values())
    assert path.read_text().splitlines() == [line.strip() for line in lines]


def test_a_changed_picture_and_another_protocol_are_scored_again(tmp_path):
    cases, folder, path = [case(f"{i}") for i in range(3)], CaseFolder(tmp_path), tmp_path / "scores.jsonl"
    edit(Darker(), cases, folder)
    score(folder, cases, path, {"a": 1})
    Image.new("RGB", (16, 16), "black").save(tmp_path / "pictures" / "1.png")
    rows, _, asked = score(folder, cases, path, {"a": 1})
    assert asked == ["1"] and rows["brightness"].iloc[1] == 0 and rows["note"].iloc[1] == "16x16, the source has 8x8"
    assert score(folder, cases, path, {"a": 2})[2] == ["0", "1", "2"]
    assert json.loads(path.read_text().splitlines()[0]) == {"a": 2}


def test_a_failed_case_keeps_its_place_without_a_score(tmp_path):
    cases, folder = [case(f"{i}") for i in range(3)], CaseFolder(tmp_path)
    edit(Darker(fails=("1",)), cases, folder)
    rows, metric, _ = score(folder, [*cases, replace(case("9"), scored=False)], tmp_path / "s.jsonl", {})
    assert rows["id"].tolist() == ["0", "1", "2"] and rows["failed"].isna().tolist() == [True, False, True]
    assert metric.values().isnan().tolist() == [False, True, False]
