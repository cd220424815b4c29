"""Flawed crawls: unreadable samples are dropped, unreadable shards fail, both are counted, and the rest is written."""

import tarfile

import pytest
import writers
from instruction_shard import ShardWriter
from write_instructions import run
from writers import Answer

from regionedit.data.manifest import Manifest
from tests.instruction_fixtures import CAPTIONS, config, crawl, sidecar, sidecars, write_crawl
from tests.shards import picture, write_tar


def test_bad_captions_are_dropped_and_counted(tmp_path):
    bad = [b"caf\xe9", b"", b" \n\t", b"a" * 1001, b"x" * 2_000_000, "\u200b\u202e".encode(), CAPTIONS[0]]
    summary = run(config(write_crawl(tmp_path, [bad])))
    reasons = {"caption: not UTF-8": 1, "caption: empty": 3, "caption: too long": 2}
    assert summary.dropped == reasons and summary.written == 1 and summary.bad_fraction == pytest.approx(6 / 7)
    assert len(Manifest.open(tmp_path)) == 1


def test_unpaired_samples_are_dropped_and_training_accepts_the_rest(tmp_path):
    parts = {"png": picture(0), "txt": b"a brown dog"}
    members = [("a", parts), ("b", {"txt": b"x"}), ("c", {"png": picture(0)}), ("d", parts | {"jpg": picture(0)})]
    write_tar(tmp_path / "00000.tar", members)
    summary = run(config(tmp_path))
    assert summary.dropped == {"unpaired: no picture": 1, "unpaired: two pictures": 1, "unpaired: no caption (.txt)": 1}
    manifest = Manifest.open(tmp_path)
    assert [manifest.key(sample) for sample in range(len(manifest))] == ["a"]


def test_a_name_that_is_not_utf8_fails_its_shard(tmp_path):
    with tarfile.open(tmp_path / "00000.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("caf\udce9.txt"))
    assert "00000.tar: the name of 'caf\\udce9' is not UTF-8" in run(config(tmp_path)).failed["00000"]


def test_a_truncated_shard_fails_alone(tmp_path):
    folder = crawl(tmp_path)
    tar = folder / "00001.tar"
    tar.write_bytes(tar.read_bytes()[:5000])
    summary = run(config(folder))
    assert summary.shards == {"written": 2, "failed": 1} and summary.bad_fraction == pytest.approx(1 / 3)
    assert "00001.tar: truncated shard" in summary.failed["00001"] and "truncated" in str(summary)
    assert sorted(sidecars(folder)) == ["00000.instructions.jsonl", "00002.instructions.jsonl"]


def test_a_shard_that_changes_while_it_is_read_is_read_again(tmp_path, monkeypatch):
    folder, times = crawl(tmp_path, shards=1), []

    def meddle(writer, ask):
        if ask.key.endswith("4") and len(times) < changes:
            times.append(1)
            write_crawl(folder, [[f"a new caption {len(times)}"] * 5])
        return Answer(writer.answer(ask))

    monkeypatch.setattr(writers.StandInWriter, "write", lambda self, asks: [meddle(self, ask) for ask in asks])
    changes = 1
    assert run(config(folder, mix={"style": 1.0})).shards == {"written": 1}
    assert "a new caption 1" in sidecar(folder)[1]["000000000"]["target_caption"]
    times, changes = [], 9
    write_crawl(folder, [["a caption"] * 5])
    summary = run(config(folder))
    assert summary.shards == {"failed": 1} and "changed while it was read" in summary.failed["00000"]
    assert "a new caption 1" in sidecar(folder)[1]["000000000"]["target_caption"]  # the old sidecar is kept


def test_a_worker_that_lost_its_claim_writes_nothing(tmp_path):
    folder = crawl(tmp_path, shards=1)
    worker = ShardWriter(config(folder))
    write = worker._lines.write

    def sleep_and_be_replaced(tar, samples):
        (folder / ".claims" / "00000.1").write_text("{}\n")
        return write(tar, samples)

    worker._lines.write = sleep_and_be_replaced
    assert worker("00000").state == "held" and not sidecars(folder)
