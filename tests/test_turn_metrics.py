"""Sessions of several turns: change since the first picture, and change of scores from turn to turn."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from regionedit.evaluation import METRICS
from regionedit.evaluation.benchmarks.magicbrush import MagicBrushEveryTurn, MagicBrushMultiTurn, TurnHistory
from regionedit.evaluation.editing import turns
from regionedit.evaluation.outcomes import Outcome
from regionedit.evaluation.scoring import score_cases
from regionedit.evaluation.tables import changes_by_turn
from regionedit.evaluation.turn_metrics import change_by_turn
from tests.benchmark_fixtures import hole, save, write_magicbrush
from tests.metric_cases import case, flat, mask, paint, plain, value

pytestmark = pytest.mark.filterwarnings("ignore:data. .* the MagicBrush test set")


def test_change_is_counted_since_the_first_picture_and_outside_all_masks():
    """Two of eight columns are masked; in two others the picture differs by 51 of 255 levels."""
    first = flat(100)
    history = TurnHistory(first, mask((0, 0, 2, 8)))
    made = replace(case(flat(0)), truth=history)  # the turn's own source is of no concern
    found = Outcome(made, paint(paint(first, (0, 0, 2, 8), 255), (4, 0, 6, 8), 151))
    assert value(plain("accumulated_change"), found) == pytest.approx(0.2 * 2 / 6)
    assert value(plain("accumulated_change"), Outcome(made, first)) == 0
    everywhere = replace(made, truth=TurnHistory(first, mask((0, 0, 8, 8))))
    assert math.isnan(value(plain("accumulated_change"), Outcome(everywhere, first)))


def test_every_turn_is_scored_with_the_masks_of_the_turns_before(tmp_path):
    folder = write_magicbrush(tmp_path)
    save(hole((64, 48), (32, 24, 64, 48)), folder / "images/139/139-mask2.png")
    cases = {made.id: made for made in MagicBrushEveryTurn(folder)}
    assert list(cases) == [made.id for made in MagicBrushMultiTurn(folder)] and all(c.scored for c in cases.values())
    whole = Image.open(folder / "images/139/139-input.png").convert("RGB")
    for name, quarters in (("139_1", 1), ("139_iter_2", 2), ("139_iter_3", 2)):
        history = cases[name].truth
        assert history.first.tobytes() == whole.tobytes()
        assert (np.asarray(history.edited) > 0).mean() == quarters / 4
    assert (np.asarray(cases["139_iter_2"].truth_mask) > 0).mean() == 1 / 4  # its own mask alone
    assert [len(group) for group in turns(list(cases.values()), 9)] == [3, 2, 1]
    (folder / "images/139/139-mask2.png").unlink()
    edited = [made.truth.edited is not None for made in MagicBrushEveryTurn(folder) if made.id.startswith("139")]
    assert edited == [True, False, False]


def test_scores_are_compared_with_the_first_turn_of_the_same_session(tmp_path):
    """Session 139 has three turns, 149 two, 30 one."""
    cases = list(MagicBrushEveryTurn(write_magicbrush(tmp_path)))
    levels = {"139_1": 0, "30_1": 50, "149_1": 100, "139_iter_2": 10, "149_iter_2": 140, "139_iter_3": 30}

    def outcomes(chosen):
        for made in chosen:
            source = Image.new("RGB", made.request.image.size)
            made = replace(made, request=replace(made.request, image=source))
            failed = "no luck" if made.id == "149_1" else None
            yield Outcome(made, Image.new("RGB", source.size, (levels[made.id],) * 3), failed=failed)

    metrics = {"l1_source": plain("l1_source")}
    rows = score_cases(outcomes, cases, metrics, "", len(cases))
    assert rows["first"].tolist() == ["139_1", "30_1", "149_1", "139_1", "149_1", "139_1"]
    found = change_by_turn(rows, {"l1_source": METRICS["l1_source"]})
    assert {turn: (round(s["l1_source"]["mean"] * 255), s["l1_source"]["n"]) for turn, s in found.items()} == {
        "turn 2": (10, 1),  # session 149 has no score in its first turn
        "turn 3": (30, 1),
    }
    summary = {
        "benchmark": "magicbrush_every_turn",
        "protocol": {"columns": {"L1s": "l1_source"}},
        "change_by_turn": found,
    }
    assert changes_by_turn(summary).rows == (("turn 2 − turn 1 (n=1)", "0.039"), ("turn 3 − turn 1 (n=1)", "0.118"))
    assert changes_by_turn({**summary, "change_by_turn": {}}).rows == ()


def test_without_chains_there_is_nothing_to_compare(tmp_path):
    last = list(MagicBrushMultiTurn(write_magicbrush(tmp_path)))
    rows = score_cases(
        lambda chosen: (Outcome(c, c.request.image) for c in chosen), last, {"l1": plain("l1")}, "", len(last)
    )
    assert change_by_turn(rows, {"l1": METRICS["l1"]}) == {}
    assert change_by_turn(pd.DataFrame({"id": ["a"], "l1": [0.0]}), {}) == {}
