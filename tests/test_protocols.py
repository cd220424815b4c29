"""Protocols: every shipped file is sound, a wrong one is named in one line, and a result's block says what was done."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from regionedit.config import EvaluateConfig, RegionConfig, VlmJudgeConfig
from regionedit.evaluation import BENCHMARKS, METRICS
from regionedit.evaluation.protocols import CONVENTIONS, FOLDER, Protocol, column_heads
from tests.evaluation_folders import PROTOCOL

GOOD = PROTOCOL | {"benchmark": "microworld", "n": 3}
ABSENT = object()


class Cases:
    """As much of a benchmark as a protocol block reads."""

    metrics = ("l1", "clip_text", "dino")
    headline = ("remove",)
    protocol = {"reference": "what I read", "split": "test"}
    counts = {"rows": 5, "kept": 3}
    rubric = None

    def __len__(self) -> int:
        return 3


@pytest.fixture
def protocol() -> Protocol:
    return Protocol(name="theirs", **GOOD)


def write(path: Path, values) -> Path:
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_protocol_names_only_what_exists_and_its_benchmark_computes(path):
    protocol = Protocol.read(path.stem)
    assert protocol.name == path.stem and protocol == Protocol.read(path)
    assert set(protocol.columns.values()) <= set(BENCHMARKS[protocol.benchmark].metrics)


def test_a_protocol_is_read_in_the_order_of_its_file(tmp_path, protocol):
    assert Protocol.read(write(tmp_path / "theirs.yaml", GOOD)) == protocol
    assert list(protocol.columns) == ["CLIPdir", "CLIPout", "L1", "CLIPimg", "DINO"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"colums": {}}, "unknown key 'colums'; did you mean 'columns'?"),
        ({"name": "mine"}, "unknown key 'name'; "),
        ({"benchmark": "imagenet"}, "benchmark: no benchmark 'imagenet'; there are: microworld"),
        ({"columns": {"DINO": "dinno"}}, "columns.DINO: no metric 'dinno'; there are: region_iou"),
        ({"columns": {}}, "columns: none"),
        ({"columns": ["l1"]}, "columns: expected"),
        ({"n": 0}, "n: 0 is neither"),
        ({"n": "many"}, "n: 'many' is neither"),
        ({"n": True}, "n: True is neither"),
        ({"reference": None}, "reference: expected text, found None"),
        ({"resize": " "}, "resize: expected text"),
        ({"backbones": {"judge": "a"}}, "backbones.dino: missing; the columns need: dino, judge"),
        ({"backbones": GOOD["backbones"] | {"lpips": "alex"}}, "backbones.lpips: no column needs it"),
        ({"backbones": {"judge": "", "dino": "b"}}, "backbones: expected"),
        ({"vlm_judge": {"timeout": 9}}, "vlm_judge.timeout: not part of a protocol; there are: model, revision"),
        ({"vlm_judge": "gpt"}, "vlm_judge: expected `setting: value`"),
        ({"unstated": {"CLIPdr": "x"}}, "unstated.CLIPdr: neither field, backbone nor column"),
        *(({key: ABSENT}, f"{key}: missing; a protocol has: benchmark, note, ") for key in GOOD if key != "unstated"),
        ("- a", "not a protocol: expected `key: value`"),
        ("a: [", "not valid YAML"),
        ("", "not a protocol: expected"),
    ],
)
def test_a_wrong_protocol_is_refused_in_one_line_with_file_field_and_choices(tmp_path, change, said):
    path = tmp_path / "wrong.yaml"
    if isinstance(change, str):
        path.write_text(change)
    else:
        write(path, {key: value for key, value in (GOOD | change).items() if value is not ABSENT})
    with pytest.raises(ValueError) as error:
        Protocol.read(path)
    assert str(error.value).startswith(f"{path}: {said}") and "\n" not in str(error.value)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="^protocol: configs/protocols/mine.yaml does not exist; .*microworld"):
        Protocol.read("mine")


def test_applying_a_protocol_sets_its_networks_and_nothing_else(protocol):
    config = EvaluateConfig(limit=7)
    assert protocol.apply(config) == replace(config, judge="B/32", dino="vits16")


def test_a_protocol_of_another_benchmark_is_not_applied(protocol):
    with pytest.raises(ValueError, match="^protocol: theirs belongs to benchmark microworld, not to emu_edit"):
        protocol.apply(EvaluateConfig(benchmark="emu_edit"))


def test_the_block_says_what_was_really_used_and_read(protocol):
    config = EvaluateConfig(judge="tiny", dino="tinier", grid=4, region=RegionConfig(threshold=0.3), lpips="alex")
    assert protocol.block(config, Cases()) == {
        "name": "theirs",
        "judge": "tiny",
        "dino": "tinier",  # lpips is configured, but no metric of the benchmark uses it
        "reference": "source",
        "caption_filter": "identical",
        "resize": "bicubic",
        "n_expected": 3,
        "n_found": 3,
        "counts": {"rows": 5, "kept": 3},
        "as_run": {"reference": "what I read", "split": "test"},
        "grid": 4,
        "threshold": 0.3,
        "headline_operations": ["remove"],
        "columns": GOOD["columns"],
        "conventions": CONVENTIONS,
    }


def test_a_result_made_with_other_networks_or_cases_deviates(protocol):
    block = protocol.block(protocol.apply(EvaluateConfig()), Cases())
    assert protocol.deviations(block) == []
    lines = protocol.deviations(block | {"judge": "tiny", "n_found": 2})
    assert lines == ["judge: 'tiny', not 'B/32'", "n: 2 cases, not 3"]
    assert protocol.deviations({}) and protocol.deviations(block | {"name": "none"})
    large = replace(protocol, n=2834)  # a filter by rule may keep a few cases more or fewer
    assert large.deviations(block | {"n_found": 2840}) == []
    assert large.deviations(block | {"n_found": 3589}) == ["n: 3589 cases, not 2834"]


def test_without_a_published_protocol_the_benchmark_speaks_for_itself():
    own = Protocol.own("microworld", Cases())
    assert own.reference == "what I read" and list(own.columns.values()) == list(Cases.metrics)
    block = own.block(EvaluateConfig(), Cases())
    assert block["name"] == "none" and block["n_expected"] is None and block["judge"] == EvaluateConfig().judge


def test_columns_of_one_title_are_told_apart(monkeypatch):
    monkeypatch.setitem(METRICS, "l1_again", METRICS["l1"])
    assert column_heads(["l1", "l1_again", "unheard_of"]) == {
        "L1": "l1",
        "L1 (l1_again)": "l1_again",
        "unheard_of": "unheard_of",
    }


def test_a_protocol_sets_its_judge_and_leaves_the_users_server():
    protocol = Protocol.read("gedit_qwen")
    mine = VlmJudgeConfig(model="other", endpoint="http://here/v1", revision="main", concurrency=3)
    config = protocol.apply(EvaluateConfig(benchmark="gedit", vlm_judge=mine))
    judge = config.vlm_judge
    assert (judge.model, judge.picture_first, judge.temperature) == ("Qwen/Qwen2.5-VL-72B-Instruct-AWQ", True, 0)
    assert (judge.endpoint, judge.revision, judge.concurrency) == (mine.endpoint, "main", 3)

    class Judged(Cases):
        rubric = "viescore"

    block = protocol.block(config, Judged())
    lines = protocol.deviations(protocol.block(replace(config, vlm_judge=replace(judge, max_tokens=9)), Judged()))
    assert not [line for line in protocol.deviations(block) if "vlm_judge" in line]
    assert [line for line in lines if "vlm_judge" in line] == ["vlm_judge.max_tokens: 9, not 512"]
