"""Which captions an editor was given: recorded, shown in the row's name, never mixed in one column."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from regionedit.command_line import load_config
from regionedit.config import EvaluateConfig
from regionedit.evaluation.compare import main
from regionedit.evaluation.editor_captions import captions_used
from regionedit.evaluation.finished_evaluations import IncomparableError
from regionedit.records import Captions
from tests.evaluation_folders import A, B, cells, evaluation, shown


def case(target: str = "a cat"):
    return SimpleNamespace(request=SimpleNamespace(captions=Captions("a dog", target)))


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("evaluate_emu_edit", {"captions": "given", "describer": "none"}),
        ("evaluate_emu_edit_ip2p", {"captions": "not read", "describer": "none"}),
        (
            "evaluate_emu_edit_two_stage",
            {
                "captions": "described",
                "describer": "two_stage: Qwen/Qwen2.5-VL-7B-Instruct, Qwen/Qwen2.5-7B-Instruct",
            },
        ),
    ],
)
def test_the_shipped_configurations_say_which_captions_they_use(file, expected):
    config = load_config(EvaluateConfig, f"configs/{file}.yaml")
    assert captions_used(config, [case()]) == expected


def test_a_benchmark_without_captions_is_described():
    config = load_config(EvaluateConfig, "configs/evaluate_emu_edit.yaml")
    assert captions_used(config, [case("")])["captions"] == "described"


def test_the_two_stage_configuration_differs_in_what_the_editor_is_told_only():
    given, described = (
        load_config(EvaluateConfig, f"configs/evaluate_emu_edit{name}.yaml") for name in ("", "_two_stage")
    )
    assert given == replace(described, out=given.out, given_captions=True, describe=given.describe)


def test_finished_pictures_have_what_their_own_run_says(tmp_path):
    config = load_config(EvaluateConfig, "configs/evaluate_emu_edit.yaml", [f"--pictures={tmp_path}"])
    assert captions_used(config, [case()]) == {"captions": "unknown", "describer": "unknown"}
    block = {"captions": "described", "describer": "vlm: x"}
    (tmp_path / "summary.json").write_text(json.dumps({"protocol": {"judge": "y"} | block}))
    assert captions_used(config, [case()]) == block


@pytest.mark.parametrize("between", [[], ["not read"], [None]])
def test_given_and_described_captions_never_share_a_column(place, capsys, between):
    hows = ["given", *between, "described"]
    folders = [evaluation(place / f"e{n}", A if n else B, captions=how) for n, how in enumerate(hows)]
    with pytest.raises(IncomparableError, match="captions: 'given' in e0, 'described' in e[12]; an editor"):
        shown(*folders)
    assert main([*map(str, folders)]) == 2 and "not comparable: captions:" in capsys.readouterr().err


def test_rows_are_named_by_the_captions_of_their_editor(place):
    folders = [
        evaluation(place / "ours", A, captions="described", describer="vlm: x"),
        evaluation(place / "ip2p", B, captions="not read", describer="none"),
        evaluation(place / "old", B),
    ]
    table = shown(*folders).tables[0]
    assert list(cells(table)) == ["ours (captions described)", "ip2p (no captions)", "old"]
    assert "captions differs" in table.note and "unknown in old" in table.note
    assert list(cells(shown(evaluation(place / "given", A, captions="given")).tables[0])) == ["given (captions given)"]


def test_published_rows_do_not_stand_beside_given_captions(place):
    table = shown(evaluation(place / "ours", A, captions="given"), published=True).tables[0]
    assert "ours: the editor was given the captions against which it is scored" in table.note
    assert [name for name in cells(table)] == ["ours (captions given)"]
    assert len(shown(evaluation(place / "theirs", A, captions="described"), published=True).tables[0].rows) > 1
