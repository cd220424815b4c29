"""Packing the microworld: identical bytes, resumable, disjoint splits, and no truth where a learner reads."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.microworld.pack import main, pack
from regionedit.config import DataConfig
from regionedit.data.batches import scaled
from regionedit.data.loader import TrainLoader, ValidationLoader
from regionedit.data.manifest import Manifest
from regionedit.evaluation.benchmarks import Microworld
from regionedit.microworld.grammar import OPERATIONS
from regionedit.microworld.renderer import render
from regionedit.microworld.splits import sample
from regionedit.microworld.truth import truth_mask


def packed(out: Path, split: str = "train", samples: int = 25, workers: int = 1, seed: int = 0) -> Path:
    pack(split, samples, out, workers, seed, shard_size=10)
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def splits(tmp_path_factory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("packed")
    return {split: packed(out / split, split) for split in ("train", "validation", "test")}


def test_training_shards_hold_no_truth(splits):
    names = {path.name for path in splits["train"].iterdir()}
    shards = ("00000", "00001", "00002")
    assert names == {f"{shard}.{suffix}" for shard in shards for suffix in ("tar", "instructions.jsonl")}
    for shard in shards:
        with tarfile.open(splits["train"] / f"{shard}.tar") as tar:
            members = {member.name: tar.extractfile(member).read() for member in tar}
        keys = {name.split(".")[0] for name in members}
        assert set(members) == {f"{key}.{suffix}" for key in keys for suffix in ("png", "txt", "json")}
        for key in keys:
            about = json.loads(members[f"{key}.json"])
            sizes = {"width", "height", "original_width", "original_height"}
            assert set(about) == {"key", "caption", "status", "sha256"} | sizes
            assert about["caption"] == members[f"{key}.txt"].decode() and about["key"] == key
            assert {about[size] for size in sizes} == {64}
            picture = Image.open(io.BytesIO(members[f"{key}.png"]))
            assert picture.mode == "RGB" and picture.size == (64, 64) and not picture.info
        header, *lines = (splits["train"] / f"{shard}.instructions.jsonl").read_text().splitlines()
        assert json.loads(header)["schema"] == 1
        assert {json.loads(line)["key"] for line in lines} == keys
        assert all(set(json.loads(line)) == {"key", "instruction", "target_caption"} for line in lines)


def test_a_training_batch_is_what_the_world_says(splits):
    data = DataConfig(train=str(splits["train"]), global_batch=5, workers=0)
    batch = next(iter(TrainLoader(Manifest.open(splits["train"]), data, seed=0)))
    for b, key in enumerate(batch.keys):
        shard, place = int(key[-9:-4]), int(key[-4:])
        edit = sample("train", 0, shard * 10 + place)
        assert (batch.instructions[b], batch.source_captions[b]) == (edit.instruction, edit.source_caption)
        assert batch.target_captions[b] == edit.target_caption
        pixels = (scaled(batch).images_BCHW[b].permute(1, 2, 0) * 255).round().byte().numpy()
        assert (pixels == render([edit.source])[0]).all()


def test_validation_truth_lies_beside_the_shards(splits):
    folder = splits["validation"]
    with tarfile.open(folder / "00000.tar") as tar:
        assert {name.split(".", 1)[1] for name in tar.getnames()} == {"png", "txt", "json"}
    data = DataConfig(validation=str(folder), workers=0, validation_samples=0)
    batches = list(ValidationLoader(Manifest.open(folder, truth=True), data))
    assert sum(len(batch.keys) for batch in batches) == 25
    for batch in batches:
        for b, key in enumerate(batch.keys):
            edit = sample("validation", 0, int(key[-9:-4]) * 10 + int(key[-4:]))
            assert batch.operations[b] == edit.operation
            assert np.abs(scaled(batch).truth_mask_B1HW[b, 0].numpy() - truth_mask(edit)).max() <= 0.5 / 255 + 1e-6
            things = len(edit.source.things)
            unnamed = edit.named is None
            assert len(batch.object_masks[b]) == things + unnamed
            assert batch.object_masks[b].flatten(1).any(1).tolist() == [not unnamed] + [True] * (things - 1 + unnamed)


def test_the_benchmark_reads_what_was_packed(splits):
    folder = splits["test"]
    cases = list(Microworld(folder))
    assert len(cases) == 25 and {path.name for path in folder.iterdir()} == {
        *("cases.jsonl", "packing.json", "pictures", "truth", "masks")
    }
    for number, case in enumerate(cases):
        edit = sample("test", 0, number)
        assert case.truth == edit and case.request.instruction == edit.instruction
        assert case.operation == edit.operation and case.operation in OPERATIONS
        source, target = render([edit.source, edit.target])
        assert (np.asarray(case.request.image) == source).all() and (np.asarray(case.truth_image) == target).all()
        assert np.abs(np.asarray(case.truth_mask) / 255 - truth_mask(edit)).max() <= 0.5 / 255 + 1e-6
        assert case.groups["objects"] == str(len(edit.source.things))
        assert case.groups["seen"] == ("unseen" if edit.unseen_pair else "seen")


def test_splits_share_no_key_and_no_picture(splits):
    def found(split):
        manifest = Manifest.open(splits[split])
        pictures = set()
        for sample_number, shard in enumerate(np.repeat(manifest.shards, manifest.sizes)):
            offset, length = manifest.columns["picture"][sample_number]
            pictures.add(manifest.path("picture", shard).read_bytes()[offset : offset + length])
        return {key.decode() for key in manifest.keys}, pictures

    cases = [json.loads(line)["id"] for line in (splits["test"] / "cases.jsonl").read_text().splitlines()]
    test = set(cases), {path.read_bytes() for path in (splits["test"] / "pictures").iterdir()}
    everything = [found("train"), found("validation"), test]
    for kind in range(2):
        parts = [parts[kind] for parts in everything]
        assert [len(part) for part in parts] == [25, 25, 25]
        assert len(set().union(*parts)) == 75


def test_training_shows_no_unseen_pair_or_phrasing(splits):
    """The words of the shards themselves; test cases do show unseen ones."""
    from regionedit.microworld.scene import UNSEEN_PAIRS

    text = "".join(path.read_text() for path in splits["train"].glob("*.jsonl"))
    for shard in splits["train"].glob("*.tar"):
        with tarfile.open(shard) as tar:
            text += "".join(tar.extractfile(m).read().decode() for m in tar if m.name.endswith(".txt"))
    assert not [pair for pair in UNSEEN_PAIRS if " ".join(pair) in text]
    groups = [json.loads(line)["groups"] for line in (splits["test"] / "cases.jsonl").read_text().splitlines()]
    assert {group["phrasing"] for group in groups} == {"seen", "unseen"}


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_workers_do_not_change_a_byte(tmp_path, splits, split):
    def bytes_of(folder):
        return {name: data for name, data in contents(folder).items() if not name.startswith("manifest")}

    assert bytes_of(packed(tmp_path / split, split, workers=2)) == bytes_of(splits[split])


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_second_run_completes_what_is_lacking_and_touches_nothing_else(tmp_path, split):
    def times():
        return {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}

    out = packed(tmp_path / "out", split)
    whole, before = contents(out), times()
    packed(out, split)
    assert times() == before
    for name in {"validation": ("00001.tar",), "test": ("packing.json", "cases.jsonl")}[split]:
        (out / name).unlink()
    (out / ".00002.tar.99999.part").write_bytes(b"half")
    packed(out, split)
    assert contents(out) == whole


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_killed_run_is_continued_to_the_same_bytes(tmp_path, split):
    out = tmp_path / "killed"
    arguments = ["--split", split, "--samples", "2000", "--out", str(out), "--shard_size", "50", "--workers", "1"]
    command = [sys.executable, "data_prep/microworld/pack.py", *arguments]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    progress = "*.jsonl"
    deadline = time.monotonic() + 60
    while len(list(out.glob(progress))) < 2:
        assert time.monotonic() < deadline and running.poll() is None
        time.sleep(0.01)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    made = sorted(out.glob("*.tar" if split == "train" else "cases-*.jsonl"))
    assert 0 < len(made) < 40
    first = made[0].stat().st_mtime_ns
    samples = len(made) * 50 + 30
    for path in (out, tmp_path / "whole"):
        pack(split, samples, path, 1, 0, 50)
    assert contents(out) == contents(tmp_path / "whole")
    if split == "train":
        assert made[0].stat().st_mtime_ns == first
        assert len(Manifest.open(out)) == samples


def test_another_packing_is_not_mixed_in(splits):
    before = contents(splits["train"])
    for changes, message in (
        ({"seed": 1}, r"00000.instructions.jsonl is of another packing \(seed 0, not 1\); remove it"),
        ({"split": "validation"}, r"another packing \(split train, not validation\)"),
        ({"samples": 15}, "--out: .* holds 00002.tar, which is more than --samples 15"),
        ({"samples": 0}, "--samples: 0 is not in 1"),
        ({"workers": 0}, "--workers: 0 is not in 1"),
    ):
        with pytest.raises(ValueError, match=message):
            packed(splits["train"], **changes)
    assert contents(splits["train"]) == before


def test_more_samples_extend_full_shards_and_another_seed_is_another_world(tmp_path, splits):
    packed(tmp_path / "out", samples=20, seed=1)
    extended = contents(packed(tmp_path / "out", samples=25, seed=1))
    assert extended == contents(packed(tmp_path / "at_once", samples=25, seed=1))
    assert not set(extended.values()) & set(contents(splits["train"]).values())


def test_a_bad_argument_is_one_line_and_exit_code_2(tmp_path, capsys, monkeypatch):
    arguments = ["pack.py", "--split", "train", "--samples", "10", "--out", str(tmp_path), "--shard_size", "20000"]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert capsys.readouterr().err == "pack.py: error: --shard_size: 20000 is not in 1..10000\n"
