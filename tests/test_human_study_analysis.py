"""Analysing a human study: simulated preferences and biases are recovered, bad answers refused with their line."""

import json
import re

import numpy as np
import pytest

from regionedit.evaluation.human_study.__main__ import main
from regionedit.evaluation.human_study.analyse import analyse
from regionedit.evaluation.human_study.make import make
from regionedit.evaluation.human_study.tables import markdown
from tests.human_studies import SCORED, answer, drawn, read_rows, settings, write_key, write_systems  # noqa: F401


@pytest.fixture
def study(tmp_path):
    """A function that analyses the answers of a simulated rater about 8 cases."""

    def run(rate, names=("one", "two"), **changes) -> dict:
        key = write_key(tmp_path / "key.csv", names, **changes)
        return analyse(key, answer(key, tmp_path / "answers", rate), tmp_path / "analysis")

    return run


def number(row: dict) -> int:
    return int(row["case"].split("-")[1])


def test_raters_who_agree_have_alpha_1_and_the_planted_scores(study, tmp_path):
    """For `inside`, system one gets 1 + case mod 5 and system two always 4."""

    def rate(rater, row, question):
        return (1 + number(row) % 5 if row["system"] == "one" else 4) if question == "inside" else 1 + number(row) % 3

    found = study(rate, raters=6)
    one = found["scores"]["one"]["inside"]
    values = [1 + case % 5 for case in SCORED]
    assert (one["raters"], one["items"], one["answers"], one["missing"]) == (6, 8, 48, 0)
    assert one["mean"] == pytest.approx(np.mean(values)) and one["median"] == np.median(values)
    assert one["sd"] == pytest.approx(np.std(values * 6, ddof=1))
    assert one["low"] < one["mean"] < one["high"]
    assert one["alpha"] == {"level": "ordinal", "value": 1, "low": 1, "high": 1}
    assert one["fleiss_kappa"] == {"value": 1, "units": 8, "ratings": 6}
    two = found["scores"]["two"]["inside"]
    assert two["mean"] == 4 == two["low"] == two["high"] and two["sd"] == 0
    assert two["alpha"]["value"] is None and two["fleiss_kappa"]["value"] is None, "undefined without variation"
    assert found["scores_together"]["inside"]["alpha"]["value"] == 1
    assert found["seed"] == 3 and found["raters"] == [f"0{i}" for i in range(1, 7)] and found["repeats"] is None
    assert json.loads((tmp_path / "analysis" / "analysis.json").read_text()) == found


def test_random_ratings_have_alpha_0(study):
    dice = np.random.default_rng(0)
    found = study(lambda *_: dice.integers(1, 6), raters=14)
    for block in (*found["scores"]["one"].values(), *found["scores_together"].values()):
        assert abs(block["alpha"]["value"]) < 0.08 and abs(block["fleiss_kappa"]["value"]) < 0.08
        assert block["alpha"]["low"] < 0.04 < 0.1 + block["alpha"]["high"]
    assert all(side["A"]["low"] < 0 < side["A"]["high"] for side in found["sides"].values())


def test_a_picture_beside_another_opponent_is_another_unit_of_the_same_case(study):
    found = study(lambda rater, row, question: 1 + number(row) % 5, names=("one", "two", "three"), raters=3)
    one = found["scores"]["one"]["inside"]
    assert (one["items"], one["answers"], one["fleiss_kappa"]["units"]) == (8, 48, 16)
    assert found["scores_together"]["inside"]["fleiss_kappa"]["units"] == 48


def test_a_planted_preference_is_found(study):
    dice = np.random.default_rng(1)

    def rate(rater, row, question):
        return (row["system"] == "one") + (dice.normal() if question == "inside" else 0)

    found = study(rate, raters=20, design="forced_choice", trials=6)
    inside, followed = found["preferences"]
    chance = 0.7602  # probability that a normal variable with mean 1 and standard deviation sqrt 2 is above 0
    share = inside["shares"]["one"]
    assert share["low"] < chance < share["high"] and share["low"] > 0.5 and share["n"] == 120
    assert share["share"] + inside["shares"]["two"]["share"] == pytest.approx(1)
    assert (inside["raters"], inside["items"], inside["answers"]) == (20, 8, 120)
    assert inside["alpha"]["level"] == "nominal" and abs(inside["alpha"]["value"]) < 0.35
    assert followed["shares"]["one"]["share"] == 1 and followed["alpha"]["value"] is None
    assert found["preferences_overall"] == {}
    assert found["sides"]["followed"]["A"]["share"] == 0.5, "sides are balanced, so a sure rater shows no bias"


def test_pairs_of_three_systems_are_reported_singly_and_overall(study):
    worth = {"one": 2, "two": 1, "three": 0}
    found = study(lambda rater, row, question: worth[row["system"]], names=tuple(worth), design="forced_choice")
    pairs = {tuple(block["systems"]): block["shares"] for block in found["preferences"]}
    assert pairs.keys() == {("one", "two"), ("one", "three"), ("three", "two")}
    assert pairs["three", "two"]["two"]["share"] == 1 and pairs["three", "two"]["two"]["n"] == 32
    overall = {system: block["inside"]["share"] for system, block in found["preferences_overall"].items()}
    assert overall == {"one": 1, "two": 0.5, "three": 0}


@pytest.mark.parametrize("names, shown", [(("one", "two"), "pairs"), (("one", "two", "three"), "all")])
def test_a_preference_for_the_left_is_found(study, names, shown):
    dice = np.random.default_rng(3)

    def rate(rater, row, question):
        return dice.normal() + (question == "inside") * (row["position"] == "A")

    found = study(rate, names=names, shown=shown, raters=12, design="forced_choice")
    assert list(found["sides"]["inside"]) == {2: ["A"], 3: ["A", "B", "C"]}[len(names)]
    inside, followed = (found["sides"][name]["A"] for name in ("inside", "followed"))
    assert inside["low"] > inside["expected"] == 1 / len(names)
    assert followed["low"] < followed["expected"] < followed["high"]
    for block in found["preferences"]:
        assert sum(share["share"] for share in block["shares"].values()) == pytest.approx(1)


def test_higher_scores_on_the_left_are_found_and_a_better_system_is_not_mistaken_for_a_side(study):
    dice = np.random.default_rng(4)

    def rate(rater, row, question):
        left = question == "inside" and row["position"] == "A"
        return int(np.clip(2 + 2 * (row["system"] == "one") + left + dice.integers(-1, 1), 1, 5))

    found = study(rate, raters=12)
    inside, followed = (found["sides"][name]["A"] for name in ("inside", "followed"))
    assert inside["n"] == 96 and inside["low"] > 0.5 and abs(inside["difference"] - 1) < 0.25
    assert followed["low"] < 0 < followed["high"]
    assert followed["high"] - followed["low"] < 0.4, "differences between the systems do not widen it"


def test_repeats_show_whether_raters_agree_with_themselves(study):
    """Rater 01 answers by the system, rater 02 by the side; repeats with reversed sides reveal the difference."""

    def rate(rater, row, question):
        return row["system"] == "one" if rater == "01" else row["position"] == "A"

    found = study(rate, raters=2, design="forced_choice", repeats=2)
    for block in found["repeats"].values():
        assert {rater: share["share"] for rater, share in block["by_rater"].items()} == {"01": 1, "02": 0}
        assert (block["same"]["count"], block["same"]["n"]) == (2, 4)
    assert found["preferences"][0]["answers"] == 16, "a repeated trial does not count twice"


def test_repeats_on_the_scale_have_a_mean_difference(study):
    found = study(lambda rater, row, question: 4 if row["repeat_of"] and question == "inside" else 3, repeats=2)
    assert found["repeats"]["inside"]["mean_difference"] == 1 and found["repeats"]["inside"]["same"]["share"] == 0
    assert found["repeats"]["followed"]["mean_difference"] == 0 and found["repeats"]["followed"]["same"]["n"] == 16


def test_missing_answers_and_forms_are_counted(study):
    def rate(rater, row, question):
        if rater == "04" or (rater == "01" and row["system"] == "one" and question == "followed"):
            return None
        return 1 + (number(row) + int(rater)) % 5

    found = study(rate)
    assert found["raters"] == ["01", "02", "03"] and found["forms_without_answers"] == ["04"]
    assert (found["answers"], found["missing"]) == (3 * 32 - 8, 8)
    one = found["scores"]["one"]
    assert (one["followed"]["raters"], one["followed"]["answers"], one["followed"]["missing"]) == (2, 16, 8)
    assert one["inside"]["missing"] == 0 == found["scores"]["two"]["followed"]["missing"]
    assert found["sides"]["followed"]["A"]["n"] == 16, "half-answered pages do not count for the sides"


@pytest.fixture
def sheet(tmp_path):
    """The key of a likert study, and the lines of form 01's answers: system one gets 3 and 4, system two 4 and 3."""
    key = write_key(tmp_path / "key.csv")
    rated = {("one", "inside"): 3, ("one", "followed"): 4, ("two", "inside"): 4, ("two", "followed"): 3}
    first, *_ = answer(key, tmp_path / "answers", lambda rater, row, question: rated[row["system"], question])
    return key, first.read_text().splitlines()


def test_a_template_filled_in_by_hand_in_a_spreadsheet_is_read(tmp_path):
    """The sheet has a byte-order mark, semicolons and a column of notes; the other raters' rows are empty."""
    make(settings(tmp_path, write_systems(tmp_path, "9", ("one", "two"))))
    lines = (tmp_path / "study" / "template.csv").read_text().splitlines()
    lines = [line[:-1] + "3,4" if line.startswith("01,") else line for line in lines]
    path = tmp_path / "by_hand.csv"
    path.write_text("\ufeff" + "\r\n".join(line.replace(",", ";") + ";note" for line in lines), encoding="utf-8")
    found = analyse(tmp_path / "study" / "key.csv", [path], tmp_path / "analysis")
    assert found["answers"] == 32 and found["raters"] == ["01"] and found["missing"] == 0
    assert found["scores"]["one"]["inside"]["mean"] == 3 and found["scores"]["two"]["followed"]["mean"] == 4


def replaced(line: int, old: str, new: str):
    """A change of the answer sheet: `new` for what matches `old` in one line, counted from 1."""
    return lambda lines: [re.sub(old, new, text) if n == line else text for n, text in enumerate(lines, 1)]


@pytest.mark.parametrize(
    "change, message",
    [
        (replaced(1, "trial", "page"), "x.csv line 1: no column 'trial'; expected rater,"),
        (replaced(3, "-01-", "-77-"), "x.csv line 3: unknown trial '.*-77-"),
        (replaced(4, ",A,", ",C,"), "x.csv line 4: position 'C' is none of A, B"),
        (replaced(5, r"\d$", "6"), "x.csv line 5: followed: '6' is none of 1, 2, 3, 4, 5"),
        (replaced(5, r"\d,\d$", "2.5,4"), "x.csv line 5: inside: '2.5' is none of"),
        (replaced(3, "^01", ""), "x.csv line 3: the rater has no id"),
        (lambda lines: [*lines, lines[1]], "x.csv line 18: rater '01' has answered this in .*x.csv line 2"),
        (
            lambda lines: [*lines, lines[1].replace("-01-", "-02-")],
            "line 18: rater '01' .* form 02 here and form 01 in",
        ),
        (lambda lines: lines[:1], "answers: no answer in .*x.csv"),
        (lambda lines: [""], "x.csv line 1: no column 'rater'"),
    ],
)
def test_a_bad_answer_is_refused_with_file_and_line(sheet, change, message, tmp_path, capsys):
    key, lines = sheet
    (tmp_path / "x.csv").write_text("\n".join(change(lines)) + "\n")
    out = tmp_path / "analysis"
    assert main(["analyse", f"--key={key}", f"--out={out}", f"--answers={tmp_path / 'x.csv'}"]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and error.startswith("human_study analyse: error: ") and error.count("\n") == 1
    assert not out.exists()


def test_a_forced_choice_names_a_position_of_its_trial(tmp_path):
    key, path = write_key(tmp_path / "key.csv", design="forced_choice"), tmp_path / "x.csv"
    trial = read_rows(key)[0]["trial"]
    path.write_text(f"rater,trial,inside,followed\n01,{trial},b,C\n")
    with pytest.raises(ValueError, match="x.csv line 2: followed: 'C' is none of A, B"):
        analyse(key, [path], tmp_path / "analysis")
    path.write_text(f"rater,trial,inside,followed\n01,{trial},b,\n")
    assert analyse(key, [path], tmp_path / "analysis")["sides"]["inside"]["A"]["count"] == 0


@pytest.mark.parametrize("content", [None, "", "trial,rater\nx,1\n"])
def test_a_file_that_is_no_key_is_refused(content, tmp_path):
    if content is not None:
        (tmp_path / "key.csv").write_text(content)
    with pytest.raises(ValueError, match="^key: .*key.csv "):
        analyse(tmp_path / "key.csv", [tmp_path / "x.csv"], tmp_path / "analysis")


def test_the_tables_show_the_numbers_of_the_analysis(study, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "220")
    dice = np.random.default_rng(5)
    rate = lambda rater, row, question: int(np.clip(number(row) % 5 + 1 + dice.integers(0, 2), 1, 5))  # noqa: E731
    found = study(rate, names=("one", "[b]|two"), repeats=2)
    text = (tmp_path / "analysis" / "analysis.md").read_text()
    assert text == markdown(found)
    one = found["scores"]["one"]["inside"]
    mean = f"{one['mean']:.2f} [{one['low']:.2f}, {one['high']:.2f}]"
    assert f"| one | inside | 4 | 8 | 32 of 32 | {mean} | {one['sd']:.2f} |" in text
    assert f"{one['alpha']['value']:.2f} [{one['alpha']['low']:.2f}, {one['alpha']['high']:.2f}]" in text
    assert "| [b]\\|two | followed |" in text and "## Sides" in text and "## Repeated trials" in text
    answers = map(str, sorted((tmp_path / "answers").iterdir()))
    arguments = ["--key", str(tmp_path / "key.csv"), "--out", str(tmp_path / "again"), "--answers", *answers]
    assert main(["analyse", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "[b]|two" in printed and mean in printed
    assert (tmp_path / "again" / "analysis.md").read_text() == text
