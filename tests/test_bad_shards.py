"""Damaged data: a bad sample is replaced and counted, a bad shard stops the run with one line."""

import io
import json

import pytest
from PIL import Image

from regionedit.config import DataConfig
from regionedit.data.loader import TrainLoader
from regionedit.data.manifest import Manifest
from tests.shards import line, picture, write_instructions, write_shards, write_tar


def loader(folder, rank=0, ranks=1, **changes) -> TrainLoader:
    settings = {"global_batch": 4, "image_size": 8, "workers": 0, "max_bad_fraction": 0.2} | changes
    return TrainLoader(Manifest.open(folder), DataConfig(train=str(folder), **settings), 0, rank, ranks)


def one_line(error) -> str:
    message = str(error.value)
    assert "\n" not in message and len(message) < 400
    return message


def noise_jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 60).convert("RGB").save(buffer, "JPEG")
    return buffer.getvalue()


SPOILED = {
    "truncated picture": {"png": noise_jpeg()[:700]},
    "not a picture": {"png": b"no picture at all"},
    "empty picture": {"png": b""},
    "caption is not UTF-8": {"txt": b"\xff\xfe\xfa"},
    "empty caption": {"txt": b" \n"},
}


@pytest.mark.parametrize("reason", SPOILED)
def test_a_bad_sample_is_replaced_by_the_next_of_the_plan_and_counted(tmp_path, reason):
    whole = loader(write_shards(tmp_path / "whole"))
    order = [whole.plan.sample(place) for place in range(16)]
    folder = write_shards(
        tmp_path / "spoiled", change=lambda key, parts: parts | (SPOILED[reason] if key == "k000006" else {})
    )
    spoiled = loader(folder)
    read = [int(key[1:]) for batch in spoiled for key in batch.keys]
    place = order.index(6)
    expected = list(order)
    expected[place] = order[(place + 1) % 16]
    assert read == expected
    assert spoiled.bad.counts == {("00001", reason): 1}
    assert spoiled.bad.report() == f"00001.tar: {reason} x1"


def test_replacements_do_not_depend_on_ranks_and_workers(tmp_path):
    bad = {"k000003", "k000004", "k000009"}
    folder = write_shards(tmp_path, change=lambda key, parts: parts | ({"png": b"x"} if key in bad else {}))
    alone = loader(folder)
    whole = [sorted(batch.keys) for batch in alone]
    assert not bad & {key for batch in whole for key in batch}
    assert sum(alone.bad.counts.values()) == 3
    shares = [[batch.keys for batch in loader(folder, rank, 2, workers=rank, max_bad_fraction=1)] for rank in range(2)]
    assert [sorted(a + b) for a, b in zip(*shares, strict=True)] == whole


@pytest.mark.parametrize("workers", [0, 1])
def test_too_many_bad_samples_stop_the_run_with_the_report(tmp_path, workers):
    bad = {"k000001", "k000002", "k000008", "k000009", "k000013"}
    folder = write_shards(tmp_path, change=lambda key, parts: parts | ({"png": b"x"} if key in bad else {}))
    spoiled = loader(folder, workers=workers)
    with pytest.raises(ValueError, match="^data.max_bad_fraction: 5 of 16 samples are bad, more than 0.2") as error:
        list(spoiled)
    assert "00000.tar: not a picture x2" in one_line(error)


def test_the_limit_is_for_each_epoch_and_at_least_one_sample_unless_it_is_zero(tmp_path):
    folder = write_shards(tmp_path, change=lambda key, parts: parts | ({"png": b"x"} if key == "k000001" else {}))
    train = loader(folder, max_bad_fraction=0.001)
    for _ in range(5):
        assert len(list(train)) == 4
    assert train.bad.counts == {("00000", "not a picture"): 5}
    with pytest.raises(ValueError, match="1 of 16 samples are bad, more than 0 of them"):
        list(loader(folder, max_bad_fraction=0.0))


def test_an_epoch_of_only_bad_samples_ends(tmp_path):
    folder = write_shards(tmp_path, change=lambda key, parts: parts | {"png": b"x"})
    with pytest.raises(ValueError, match=r"16 samples in a row cannot be read \(not a picture\)"):
        list(loader(folder, max_bad_fraction=1.0))


@pytest.mark.parametrize(
    ("gone", "indexed", "message"),
    [
        ("00001.tar", False, "00001.tar: missing shard .*restore it"),
        ("00001.tar", True, "00001.tar: missing shard .*restore it"),
        ("00001.*", False, r"00001.tar: missing shard \(1 of 3 are\)"),
        ("00002.*", True, "00002.tar: missing shard .*delete .*manifest.safetensors"),
        ("00001.instructions.jsonl", False, "00001.instructions.jsonl: missing"),
    ],
)
def test_a_missing_shard_or_sidecar_fails(tmp_path, gone, indexed, message):
    folder = write_shards(tmp_path)
    if indexed:
        Manifest.open(folder)
    for path in folder.glob(gone):
        path.unlink()
    with pytest.raises(ValueError, match=message) as error:
        Manifest.open(folder)
    one_line(error)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_shard_that_disappears_or_shrinks_during_training_stops_the_run(tmp_path, workers):
    folder = write_shards(tmp_path / "a", sizes=(16,))
    train = loader(folder, workers=workers)
    (folder / "00000.tar").write_bytes((folder / "00000.tar").read_bytes()[:2000])
    with pytest.raises(ValueError, match="00000.tar: truncated since it was indexed") as error:
        list(train)
    one_line(error)
    folder = write_shards(tmp_path / "b", sizes=(16,))
    train = loader(folder, workers=workers)
    (folder / "00000.tar").unlink()
    with pytest.raises(ValueError, match="00000.tar: missing shard"):
        list(train)


def test_a_truncated_shard_fails_wherever_it_was_cut(tmp_path):
    folder = write_shards(tmp_path, sizes=(3,))
    whole = (folder / "00000.tar").read_bytes()
    members = 3 * 3 * 1024  # a header block and a block of content for each
    for cut in (0, 100, 512, 600, 1024, 1536, 2048, members - 300, members, members + 512):
        (folder / "00000.tar").write_bytes(whole[:cut])
        with pytest.raises(ValueError, match="00000.tar: (truncated shard|not an uncompressed tar)") as error:
            Manifest.open(folder)
        one_line(error)
    (folder / "00000.tar").write_bytes(b"<html>404 not found</html>" * 100)
    with pytest.raises(ValueError, match="00000.tar: not an uncompressed tar"):
        Manifest.open(folder)
    (folder / "00000.tar").write_bytes(whole[: members + 1024])
    assert len(Manifest.open(folder)) == 3


def test_duplicate_keys_fail_within_and_across_shards(tmp_path):
    folder = write_shards(tmp_path, sizes=(3, 3))
    sample = {"png": picture(0), "txt": b"x"}
    write_tar(folder / "00000.tar", [("k000000", sample), ("k000001", sample), ("k000000", sample)])
    with pytest.raises(ValueError, match="00000.tar: duplicate key: k000000.png is there twice"):
        Manifest.open(folder)
    write_tar(folder / "00000.tar", [(f"k{number:06d}", sample) for number in (0, 1, 4)])
    entries = [{"key": f"k{n:06d}", "instruction": "a", "target_caption": "b"} for n in (0, 1, 4)]
    write_instructions(folder / "00000.instructions.jsonl", entries)
    with pytest.raises(ValueError, match="duplicate key k000004 in shards 00000 and 00001"):
        Manifest.open(folder)


def test_unpaired_keys_fail(tmp_path):
    folder = write_shards(tmp_path, sizes=(1,))
    for parts, message in (
        ({"txt": b"x"}, "unpaired key k000000: no picture"),
        ({"png": b"x"}, "unpaired key k000000: no caption"),
        ({"png": b"x", "jpg": b"x", "txt": b"x"}, "unpaired key k000000: two pictures"),
    ):
        write_tar(folder / "00000.tar", [("k000000", parts)])
        with pytest.raises(ValueError, match=message):
            Manifest.open(folder)


HEADER = {"schema": 1}


def sidecar(*lines) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in (HEADER, *lines))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            sidecar(line(0), line(1)),
            r"does not match its shard: 1 of 3 keys missing, 0 unknown \(k000002 is not in it\)",
        ),
        (
            sidecar(line(0), line(1), line(2), line(7)),
            r"0 of 3 keys missing, 1 unknown \(its k000007 is not in the shard\)",
        ),
        (sidecar(line(5), line(6), line(7)), "3 of 3 keys missing, 3 unknown"),
        (sidecar(line(0), line(1), line(1)), "duplicate key k000001"),
        (sidecar(line(0), line(1), line(2, instruction=" ")), "line 4: needs key, instruction and target_caption"),
        (sidecar(line(0), line(1), {"key": "k000002", "instruction": "a"}), "line 4: needs key"),
        (sidecar(line(0), line(1), ["k000002"]), "line 4: needs key"),
        (b"", "empty file"),
        (b'{"key": "k000000"}\n', "the first line must be a header"),
        (b'{"schema": 2}\n', "the first line must be a header"),
        (b'{"schema": 1}\n{"key": "k0000', "line 2: not JSON"),
    ],
)
def test_a_damaged_sidecar_fails(tmp_path, content, message):
    folder = write_shards(tmp_path, sizes=(3,))
    (folder / "00000.instructions.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        Manifest.open(folder)
    assert "00000.instructions.jsonl" in one_line(error)


def test_the_order_of_a_sidecar_does_not_matter(tmp_path):
    folder = write_shards(tmp_path)
    path = folder / "00001.instructions.jsonl"
    header, *lines = path.read_text().splitlines()
    path.write_text("\n".join([header, *reversed(lines)]))
    for batch in loader(folder):
        assert [f"change {int(key[1:])}" for key in batch.keys] == list(batch.instructions)
    assert json.loads(lines[0])["key"] == "k000005"


def test_truth_and_proposals_must_match_too(tmp_path):
    folder = write_shards(tmp_path / "a", truth=True)
    write_tar(folder / "00001.truth.tar", [("k000005", {"mask.png": picture(0), "objects.png": picture(0)})])
    with pytest.raises(ValueError, match="00001.truth.tar: does not match its shard: 6 of 7"):
        Manifest.open(folder, truth=True)
    assert len(Manifest.open(folder)) == 16
    (folder / "00001.truth.tar").unlink()
    with pytest.raises(ValueError, match="00001.truth.tar: missing"):
        Manifest.open(folder, truth=True)
    folder = write_shards(tmp_path / "b")
    with pytest.raises(ValueError, match="00000.proposals.tar: missing"):
        Manifest.open(folder, proposals=tmp_path)
