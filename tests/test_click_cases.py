"""Cases with clicks, made from the packed benchmark: the benchmark `folder` reads them, and clicks hit the object."""

from collections import Counter

import numpy as np

from data_prep.microworld import click_cases
from data_prep.microworld.pack import pack
from regionedit.evaluation.benchmarks import BENCHMARKS
from regionedit.microworld.renderer import coverage


def test_every_click_hits_its_object(tmp_path, capsys):
    pack("test", 40, tmp_path / "test", workers=1, seed=0, shard_size=100)
    arguments = ["--data", str(tmp_path / "test"), "--each", "2", "--out", str(tmp_path / "clicks")]
    assert click_cases.main(arguments) == 0 and "6 cases" in capsys.readouterr().out
    packed = {case.id: case for case in BENCHMARKS["microworld"](tmp_path / "test")}
    cases = list(BENCHMARKS["folder"](tmp_path / "clicks"))
    assert Counter(case.operation for case in cases) == dict.fromkeys(click_cases.KINDS, 2)
    for case in cases:
        known = packed[case.id]
        ((x, y),) = case.request.click
        assert coverage(known.truth.source)[known.truth.named][y, x] > 0.5
        assert case.request.mask is None and case.request.instruction == known.request.instruction
        assert np.array_equal(np.asarray(case.truth_image), np.asarray(known.truth_image))
        assert np.array_equal(np.asarray(case.truth_mask) > 127, np.asarray(known.truth_mask) > 127)


def test_a_folder_without_the_benchmark_is_named(tmp_path, capsys):
    assert click_cases.main(["--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "cases.jsonl does not exist" in line and not (tmp_path / "out").exists()
