"""Training skips the samples that a sidecar drops, whatever the tar holds, and prefers the sidecar's captions."""

import pytest

from regionedit.data.manifest import Manifest
from regionedit.data.shards import ShardReader
from tests.shards import line, picture, write_instructions, write_shards, write_tar


def gone(number: int, why: str = "caption: empty") -> dict:
    return {"key": f"k{number:06d}", "dropped": why}


def keys(manifest: Manifest) -> list[str]:
    return [manifest.key(sample) for sample in range(len(manifest))]


def test_dropped_samples_are_left_out_and_change_the_manifests_identity(tmp_path):
    folder = write_shards(tmp_path, sizes=(3, 2))
    path = folder / "00000.instructions.jsonl"
    write_instructions(path, [line(0), line(1), line(2)])
    whole = Manifest.open(folder)
    write_instructions(path, [line(0), gone(1), line(2)])
    manifest = Manifest.open(folder)
    assert keys(manifest) == ["k000000", "k000002", "k000003", "k000004"] and manifest.sizes.tolist() == [2, 2]
    reader = ShardReader(manifest, size=8)
    assert [reader.read(n).source_caption for n in range(4)] == [f"picture {n}" for n in (0, 2, 3, 4)]
    reader.close()
    write_instructions(path, [line(0), gone(1, "another reason"), line(2)])
    assert len({whole.identity, manifest.identity, Manifest.open(folder).identity}) == 3


def test_a_dropped_sample_may_be_unpaired_and_absent_from_other_sidecars(tmp_path):
    folder = write_shards(tmp_path, sizes=(3,), truth=True)
    sample = {"png": picture(0), "txt": b"x"}
    write_tar(folder / "00000.tar", [("k000000", sample), ("k000001", {"txt": b"x"}), ("k000002", sample)])
    write_instructions(folder / "00000.instructions.jsonl", [line(0), gone(1), line(2)])
    truth = {"mask.png": picture(0), "objects.png": picture(0)}
    for members in ([0, 1, 2], [0, 2]):
        write_tar(folder / "00000.truth.tar", [(f"k{n:06d}", truth) for n in members])
        assert keys(Manifest.open(folder, truth=True)) == ["k000000", "k000002"]
    write_tar(folder / "00000.truth.tar", [(f"k{n:06d}", truth) for n in (0, 2, 7)])
    with pytest.raises(ValueError, match="1 unknown"):
        Manifest.open(folder, truth=True)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([line(0), gone(1)], "1 of 3 keys missing"),
        ([line(0), gone(1), line(2), gone(9)], "1 unknown"),
        ([line(0), gone(1), gone(1), line(2)], "duplicate key k000001"),
        ([line(0), gone(1, " "), line(2)], "line 3: needs key and dropped"),
        (
            [line(0), line(1, source_caption=""), line(2)],
            "line 3: needs key, instruction, target_caption and source_cap",
        ),
        ([line(0), gone(1) | {"key": 7}, line(2)], "line 3: needs key and dropped"),
    ],
)
def test_lines_of_dropped_samples_are_checked_as_well(tmp_path, entries, message):
    folder = write_shards(tmp_path, sizes=(3,))
    write_instructions(folder / "00000.instructions.jsonl", entries)
    with pytest.raises(ValueError, match=message):
        Manifest.open(folder)


def test_a_sidecars_source_caption_replaces_the_tars(tmp_path):
    folder = write_shards(tmp_path, sizes=(2,), change=lambda key, parts: parts | {"txt": b"make it \xe9"})
    write_instructions(folder / "00000.instructions.jsonl", [line(0, source_caption="a dog"), line(1)])
    reader = ShardReader(Manifest.open(folder), size=8)
    assert reader.read(0).source_caption == "a dog"
    with pytest.raises(Exception, match="not UTF-8"):
        reader.read(1)
    reader.close()


def test_a_shard_may_lose_all_its_samples(tmp_path):
    folder = write_shards(tmp_path, sizes=(2, 3))
    write_instructions(folder / "00000.instructions.jsonl", [gone(0), gone(1)])
    manifest = Manifest.open(folder)
    assert manifest.sizes.tolist() == [0, 3] and len(manifest.keys) == 3
