"""The random part by key hash: exactly so many, the same everywhere, nested; nobody is asked about the others."""

import json
import sys

import pytest
import subset
import writers
from subset import choose
from write_instructions import run
from writers import Answer

from tests.instruction_fixtures import config, crawl, sidecar


def left_out(folder) -> set[str]:
    lines = [line for path in folder.glob("*.subset.jsonl") for line in path.read_text().splitlines()[1:]]
    return {json.loads(line)["key"] for line in lines}


def test_exactly_n_are_kept_the_same_everywhere_and_nested(tmp_path):
    folder, split = crawl(tmp_path / "a", shards=4, samples=25), crawl(tmp_path / "b", shards=4, samples=25)
    assert choose(folder, 30, seed=0) == (30, 100)
    first = left_out(folder)
    assert len(first) == 70
    choose(split, 30, seed=0)
    assert left_out(split) == first
    choose(split, 60, seed=0)
    assert left_out(split) < first
    choose(split, 30, seed=1)
    assert left_out(split) != first
    header = json.loads((folder / "00000.subset.jsonl").read_text().splitlines()[0])
    assert header["schema"] == 1 and header["rules"]["subset"]["n"] == 30 and len(header["hash"]) == 64
    assert choose(folder, 100, seed=0) == (100, 100) and not left_out(folder)


def test_nobody_is_asked_about_the_others_and_a_later_subset_costs_only_what_is_new(tmp_path, monkeypatch):
    asked = []

    def write(self, asks):
        asked.extend(ask.key for ask in asks)
        return [Answer(self.answer(ask)) for ask in asks]

    monkeypatch.setattr(writers.StandInWriter, "write", write)
    folder = crawl(tmp_path, shards=2, samples=10)
    choose(folder, 8, seed=0)
    summary = run(config(folder))
    assert len(asked) == summary.written == 8 and not set(asked) & left_out(folder)
    assert summary.dropped == {"left out: subset": 12} and summary.bad_fraction == 0
    lines = sidecar(folder)[1] | sidecar(folder, 1)[1]
    assert {key for key, line in lines.items() if "dropped" in line} == left_out(folder)
    choose(folder, 13, seed=0)
    assert run(config(folder)).written == 13 and len(asked) == len(set(asked)) == 13
    choose(folder, 8, seed=0)
    assert run(config(folder)).shards == {"complete": 2} and len(asked) == 13


@pytest.mark.parametrize(("n", "message"), [("0", "--n: 0; at least 1"), ("99", "--n: 99, but .* holds 15 samples")])
def test_mistakes_are_one_line(tmp_path, monkeypatch, capsys, n, message):
    folder = crawl(tmp_path)
    monkeypatch.setattr(sys, "argv", ["subset.py", "--data", str(folder), "--n", n])
    with pytest.raises(SystemExit) as stopped:
        subset.main()
    assert stopped.value.code == 2
    with pytest.raises(ValueError, match=message):
        choose(folder, int(n), 0)
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
