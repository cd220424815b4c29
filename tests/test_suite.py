"""A suite: each system meets each benchmark, what fails is reported, and every cell can be computed from the rows."""

import functools
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

import evaluate as command
from regionedit.command_line import load_config
from regionedit.config import EvaluateConfig
from regionedit.evaluation import BENCHMARKS, entries, suite
from regionedit.records import EditCase, EditRequest
from tests.evaluation_folders import A, B, cells, evaluation, shown

SUITE = {
    "benchmarks": {"first": "shared.yaml --protocol ultraedit", "second": "shared.yaml --given_captions false"},
    "systems": {"ours": "ours.yaml --region.grow 5", "theirs": "pictures", "plain": "plain.yaml"},
    "against": "plain",
}
SHARED = {"benchmark": "emu_edit", "mask_source": "sam", "batch": 3, "baselines": ["identity"], "expected": {"l1": 1.0}}


@functools.cache
def read_once(config_class, path, *arguments):
    """A shared or a system's file, whose content is the same in each test; reading one takes half a second."""
    return load_config(config_class, path, arguments)


def read(config_class, path, arguments=()):
    fixed = path in ("shared.yaml", "ours.yaml", "plain.yaml")
    return (read_once if fixed else load_config)(config_class, path, *(arguments if fixed else [arguments]))


@pytest.fixture
def run(place, monkeypatch):
    """A function (*arguments, **changes of the suite) -> exit code; evaluations are noted in `run.done`, not made."""
    monkeypatch.setitem(BENCHMARKS, "emu_edit", lambda data, limit, ids: None)
    files = {"shared": SHARED | {"systems": {"x": "y.yaml"}}, "ours": {"region": {"grow": 1}}}
    files |= {"plain": {"mask_source": "everything"}}
    for name, values in files.items():
        Path(f"{name}.yaml").write_text(yaml.safe_dump(values))
    for benchmark in SUITE["benchmarks"]:
        Path("pictures", benchmark).mkdir(parents=True)

    def fake(config, marks):
        benchmark, system = Path(config.out).parts[-2:]
        run.done[benchmark, system] = config
        assert marks == "read", "a click of the case would replace the system's own way to find the region"
        if (benchmark, system) == run.fails:
            raise run.error
        name = "ultraedit" if config.protocol else "none"
        evaluation(Path(config.out), A if system == "ours" else B, name=name, **run.blocks.get(system, {}))
        summary = json.loads(Path(config.out, "summary.json").read_text()) | {"note": run.notes.get(system, "")}
        Path(config.out, "summary.json").write_text(json.dumps(summary))
        return summary

    def run(*arguments, stage="both", **changes):
        Path("suite.yaml").write_text(yaml.safe_dump(SUITE | changes, sort_keys=False))
        try:
            return suite.run_suite(replace(EvaluateConfig(), suite="suite.yaml", out="out", stage=stage), arguments)
        except ValueError as error:
            print(f"refused: {error}", file=sys.stderr)
            return 2

    monkeypatch.setattr(suite, "evaluate", fake)
    monkeypatch.setattr(suite, "load_config", read)
    monkeypatch.setattr(suite, "gc", SimpleNamespace(collect=lambda: None))  # takes half a second, and frees nothing
    run.done, run.fails, run.blocks, run.notes, run.error = {}, None, {}, {}, RuntimeError("broken")
    return run


def test_the_command_line_applies_to_every_evaluation(run, monkeypatch):
    Path("suite.yaml").write_text(yaml.safe_dump(SUITE, sort_keys=False))
    monkeypatch.setattr(sys, "argv", "evaluate.py --suite suite.yaml --out there --limit 7 --device cpu".split())
    assert command.main() == 0 and Path("there/second/comparison.tex").is_file() and Path("there/log.txt").is_file()
    assert {(config.limit, config.device, config.suite) for config in run.done.values()} == {(7, "cpu", None)}


def test_each_system_edits_each_benchmark_with_its_own_editor(run):
    assert run() == 0
    assert list(run.done) == [(b, s) for b in SUITE["benchmarks"] for s in SUITE["systems"]]
    ours, theirs, plain = (run.done["first", system] for system in SUITE["systems"])
    assert {(c.batch, c.protocol) for c in (ours, theirs, plain)} == {(3, "ultraedit")}
    assert all(c.baselines == ["identity"] and not c.systems and not c.expected for c in (ours, theirs, plain))
    assert (ours.mask_source, ours.region.grow, ours.pictures) == ("learned", 5, None)
    assert (plain.mask_source, plain.region.grow) == ("everything", 0)
    assert theirs.pictures == "pictures/first" and not run.done["second", "ours"].given_captions
    for benchmark in SUITE["benchmarks"]:
        written = {path.name for path in Path("out", benchmark).iterdir() if path.is_file()}
        assert written == {"comparison.md", "comparison.tex", "comparison.csv"}
    assert "Learnable Regions (5M) [1]" in Path("out/first/comparison.md").read_text()
    assert r"\caption{Comparison: emu\_edit, protocol ultraedit}" in Path("out/first/comparison.tex").read_text()


def test_what_fails_is_reported_and_the_others_go_on(run, capsys):
    run.fails = ("first", "theirs")
    assert run() == 1 and len(run.done) == 6
    printed = capsys.readouterr().err
    assert "evaluate.py: first, theirs: error: RuntimeError: broken" in printed
    assert "first: theirs: failed" in printed and "broken" in Path("out/first/theirs/log.txt").read_text()
    text = Path("out/first/comparison.md").read_text()
    assert "no result, see log.txt: theirs" in text and "| ours | 4 |" in text and "theirs − plain" not in text
    assert "theirs − plain" in Path("out/second/comparison.md").read_text()


def test_without_the_named_row_the_table_has_no_differences(run):
    run.fails = ("first", "plain")
    assert run() == 1
    text = Path("out/first/comparison.md").read_text()
    assert "no result, see log.txt: plain" in text and "†" not in text and "Paired" not in text


def test_ctrl_c_ends_the_suite(run):
    run.fails, run.error = ("first", "theirs"), KeyboardInterrupt()
    with pytest.raises(SystemExit, match="130"):
        run()
    assert len(run.done) == 2


def test_incomparable_evaluations_get_no_table(run, capsys):
    run.blocks = {"ours": {"judge": "L/14"}}
    assert run() == 1 and not Path("out/second/comparison.md").exists()
    assert re.search("second: not comparable: judge: .*'L/14' in ours", capsys.readouterr().err)


def test_only_editing_writes_no_tables(run):
    assert run(stage="edit") == 0 and len(run.done) == 6 and not Path("out/first/comparison.md").exists()


@pytest.mark.parametrize(
    ("mask_source", "kept"), [("sam", {"click", "box"}), ("everything", set()), ("learned", set())]
)
def test_a_mark_of_the_case_goes_only_to_a_system_that_reads_it(tmp_path, monkeypatch, mask_source, kept):
    given = []
    monkeypatch.setattr(entries, "edit_cases", lambda _, cases, __, prepare, *_1, **_2: given.append(prepare(cases[0])))
    request = EditRequest(Image.new("RGB", (8, 8)), "add a hat", click=(1, 2), box=(0, 0, 4, 4))
    config = EvaluateConfig(mask_source=mask_source, out=str(tmp_path))
    for all_marks, marks in ((False, kept), (True, {"click", "box"})):
        entries.own(config, None, [EditCase("a", request, "add")], None, all_marks)
        assert given.pop().marks == marks


def test_a_row_whose_region_comes_from_the_truth_says_so(run):
    run.notes = {"theirs": "the mask that drawn reads comes from the truth"}
    run()
    assert "- theirs: the mask that drawn reads comes from the truth" in Path("out/first/comparison.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "changes", "said"),
    [
        (["--generator.size", "64"], {}, "suite: --generator.size belongs to a system"),
        (["--pictures=folder"], {}, "suite: --pictures belongs to a system"),
        (["--config", "shared.yaml"], {}, "suite: leave --config out"),
        (
            [],
            {"against": "nobody"},
            "suite: suite.yaml: against: 'nobody' is no system; there are: ours, theirs, plain",
        ),
        ([], {"systems": {}}, "suite: suite.yaml: systems: none"),
        ([], {"systems": {"../x": "plain.yaml"}, "against": "../x"}, "systems: '../x' cannot name a folder"),
        ([], {"system": {"x": "plain.yaml"}}, "suite: suite.yaml: unknown key 'system'; did you mean 'systems'?"),
        ([], {"benchmarks": {"b": "shared.yaml --limi 3"}}, "suite: benchmarks.b: command line: unknown key 'limi'"),
        ([], {"benchmarks": {"first": "shared.yaml --protocol nil"}}, "suite: benchmarks.first: protocol: "),
        ([], {"benchmarks": {"first": "shared.yaml --benchmark nil"}}, "suite: benchmarks.first: benchmark: no"),
        ([], {"benchmarks": {"third": "shared.yaml"}}, "suite: systems.theirs: pictures has no folder 'third'"),
        ([], {"systems": {"ours": "lost.yaml"}, "against": "ours"}, "suite: systems.ours: "),
    ],
    ids=str,
)
def test_a_wrong_suite_is_refused_in_one_line_before_the_first_edit(run, capsys, arguments, changes, said):
    assert run(*arguments, **changes) == 2 and not run.done
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("refused: suite: ") and said in line


def test_an_unknown_suite_lists_those_there_are():
    with pytest.raises(ValueError, match="suite: configs/suites/papr.yaml does not exist; there are: paper"):
        suite.read_suite("papr")


def test_the_shipped_suite_is_sound():
    found = suite.read_suite("paper")
    for name, configs in suite.configurations(found, "out").items():
        assert {config.benchmark for config in configs.values()} == {name}
        assert all(config.protocol and not config.given_captions for config in configs.values())


def test_cells_and_marks_can_be_computed_from_the_rows(place):
    """Means, intervals and marks, with plain pandas and numpy."""
    rng = np.random.default_rng(3)
    hard = rng.normal(0.5, 0.2, 60)  # a case that is hard for one system is hard for the other
    better = {"clip_direction": hard + rng.normal(0.03, 0.02, 60), "dino": hard + rng.normal(0, 0.02, 60)}
    ids = [str(number) for number in range(60)]
    folders = [evaluation(place / "ours", better, ids), evaluation(place / "plain", dict.fromkeys(better, hard), ids)]
    table, paired = shown(*folders, against="plain").tables

    ours, plain = (pd.read_parquet(folder / "cases.parquet").set_index("id") for folder in folders)
    drawn = np.random.default_rng(1).integers(0, 60, (4000, 60))

    def bounds(values: pd.Series) -> np.ndarray:
        return np.percentile(values.to_numpy()[drawn].mean(1), [2.5, 97.5])

    for head, metric, clear in (("CLIPdir ↑", "clip_direction", True), ("DINO ↑", "dino", False)):
        mean, width, mark = re.fullmatch(r"([\d.]+) ±([\d.]+)( †)?", cells(table)["ours"][head]).groups()
        low, high = bounds(ours[metric])
        assert float(mean) == pytest.approx(ours[metric].mean(), abs=6e-5)
        assert float(width) == pytest.approx((high - low) / 2, rel=0.08)
        low, high = bounds(ours[metric] - plain[metric])
        assert (low > 0 or high < 0) == clear == (mark is not None)
        assert "†" not in cells(table)["plain"][head]
    overlap = bounds(ours["clip_direction"])[0] < plain["clip_direction"].mean()
    assert overlap, "the pairs must be what makes the difference clear"
    assert [row[0] for row in paired.rows] == ["ours − plain"] * 2
    assert paired.best == {(0, 3)} and float(paired.rows[0][3]) == pytest.approx(
        (ours["clip_direction"] - plain["clip_direction"]).mean(), abs=6e-5
    )


def test_only_differences_from_the_named_system_are_shown(place):
    folders = [evaluation(place / name, values) for name, values in (("a", A), ("b", B), ("c", A))]
    _, paired = shown(*folders, against="b").tables
    assert dict.fromkeys(row[0] for row in paired.rows) == {"a − b": None, "c − b": None} and paired.rules == {3}
    with pytest.raises(ValueError, match="^against: no 'd' here; there are: a, b, c"):
        shown(*folders, against="d")


def test_columns_over_some_operations_say_so_and_count_only_those(place):
    columns = {"IoU": "region_iou", "precision": "region_precision"}
    values = {"region_iou": [0.6, 0.8, 0.0, 0.0], "region_precision": [0.5, np.nan, 1, 1]}
    folder = evaluation(place / "ours", values, headline_operations=["add"], columns=columns)
    rows = pd.read_parquet(folder / "cases.parquet").assign(operation=["add", "add", "remove", "remove"])
    rows.to_parquet(folder / "cases.parquet")
    summary = json.loads((folder / "summary.json").read_text())
    for name, n in (("region_iou", 2), ("region_precision", 1)):
        summary["metrics"][name] |= {"n": n}
    (folder / "summary.json").write_text(json.dumps(summary))
    note = shown(folder).tables[0].note
    assert "IoU; precision: over the cases of add" in note
    assert "ours, precision: over 1 of 2 scored cases" in note and "ours, IoU" not in note
