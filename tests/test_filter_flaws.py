"""The filter on damaged data, changing files, a full disk and wrong arguments."""

import os
import sys

import filter as filtering
import measurements
import pytest

from tests.crawls import read_reasons, sample, write_crawl


def test_a_truncated_shard_is_reported_and_the_others_are_marked(tmp_path, run_filter):
    folder = write_crawl(tmp_path, [{"a": sample(1)}, {"b": sample(2, "dog")}, {}])
    tar = folder / "00000.tar"
    tar.write_bytes(tar.read_bytes()[:9000])
    outcome = run_filter(folder)
    assert read_reasons(folder) == {"b": ["min_words"]} and not (folder / "00000.marks.jsonl").exists()
    assert list(outcome.broken) == ["00000"] and "truncated shard" in outcome.broken["00000"]
    assert outcome.too_bad(0.01).startswith("1 of 3 shards cannot be read") and outcome.too_bad(0.5) is None
    for tar in folder.glob("*.tar"):
        tar.write_bytes(b"no tar" * 1000)
    outcome = run_filter(folder)
    assert outcome.samples == 0 and "not an uncompressed tar" in outcome.too_bad(0.5)


def test_a_broken_sidecar_is_reported_in_one_line(tmp_path, run_filter):
    folder = write_crawl(tmp_path, [{"a": sample(1)}])
    for name in ("instructions", "subset", "marks"):
        path = folder / f"00000.{name}.jsonl"
        path.write_text("no JSON\n")
        with pytest.raises(ValueError, match=f"{path.name}.*header") as error:
            run_filter(folder)
        assert "\n" not in str(error.value)
        path.unlink()


def test_too_many_useless_samples_are_a_failure(tmp_path, run_filter):
    folder = write_crawl(tmp_path, [{"a": sample(1), "b": sample(2, " "), "c": sample(3, "dog")}])
    outcome = run_filter(folder)
    assert outcome.too_bad(0.01).startswith("1 of 3 samples cannot be used") and outcome.too_bad(0.34) is None


def test_a_shard_that_changes_while_it_is_read_is_read_again_or_reported(tmp_path, run_filter, monkeypatch):
    folder = write_crawl(tmp_path, [{"a": sample(1)}])
    read, changes = measurements._read, iter([True, False, True, True])

    def changing(tar, columns):
        found = read(tar, columns)
        if next(changes):
            os.utime(tar, ns=(0, tar.stat().st_mtime_ns + 1))
        return found

    monkeypatch.setattr(measurements, "_read", changing)
    assert measurements.measure(folder, "00000", ()) and len(measurements.load(folder, "00000")) == 1
    os.utime(folder / "00000.tar", ns=(0, 77))
    with pytest.raises(ValueError, match="00000.tar: changed while it was read"):
        measurements.measure(folder, "00000", ())


WRONG = {
    "--boilerplate=['(']": "boilerplate: '\\(' is not a regular expression",
    "--decontaminate.mine=nowhere": "decontaminate.mine: nowhere: no such folder",
    "--decontaminate.emu_edit=nowhere": "decontaminate.emu_edit: nowhere is neither a folder",
    "--near_duplicates=40": "near_duplicates: 40 bits",
    "--part=3": "part: 3 of 1",
    "--min_text_text=0.9 --max_text_text=0.8": "max_text_text: 0.8 is not above min_text_text, 0.9",
}


def test_a_wrong_argument_is_reported_in_one_line(tmp_path, run_filter):
    folder = write_crawl(tmp_path, [{"a": sample(1)}])
    for change, message in WRONG.items():
        with pytest.raises(ValueError, match=f"^{message}") as error:
            run_filter(folder, *change.split())
        assert "\n" not in str(error.value)


def test_the_command(tmp_path, monkeypatch, capsys):
    folder = write_crawl(tmp_path, [{"a": sample(1), "b": sample(2, "dog"), "c": sample(3) | {"jpg": b"no"}}])
    arguments = ["filter.py", "--config", "configs/filter.yaml", "--data", str(folder)]
    monkeypatch.setattr(sys, "argv", [*arguments, "--max_bad_fraction", "0.5"])
    filtering.main()
    printed = capsys.readouterr().out
    assert "2 of 3 samples are marked" in printed
    assert [line.split()[1] for line in printed.splitlines() if line.startswith("min_words")] == ["1"]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as stop:
        filtering.main()
    assert stop.value.code == 1 and "1 of 3 samples cannot be used" in capsys.readouterr().err
