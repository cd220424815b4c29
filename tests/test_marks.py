"""Samples that training leaves out: marked ones, and those that a sidecar drops; the others are still themselves."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.make_proposals import ProposalsConfig, make_proposals
from regionedit.command_line import load_config
from regionedit.config import DataConfig
from regionedit.data.datamodule import PairsDataModule
from regionedit.data.manifest import Manifest
from regionedit.data.marks import read_header, read_marks, write_marks
from regionedit.data.shards import ShardReader
from tests.shards import line, picture, write_instructions, write_shards, write_tar

ALL = [f"k{number:06d}" for number in range(16)]


def keys(manifest: Manifest) -> list[str]:
    return [manifest.key(sample) for sample in range(len(manifest))]


@pytest.mark.parametrize("name", ["00001.marks.jsonl", "00001.subset.jsonl"])
def test_marked_samples_are_left_out_and_the_others_are_still_themselves(tmp_path, name):
    folder = write_shards(tmp_path)
    before = Manifest.open(folder)
    write_marks(folder / name, {"min_side": 9}, "h", {"k000006": ["min_side"], "k000011": ["min_side"]})
    after = Manifest.open(folder)
    assert keys(after) == [key for key in ALL if key not in ("k000006", "k000011")]
    assert after.sizes.tolist() == [5, 5, 4] and after.identity != before.identity
    reader = ShardReader(after, 8)
    for sample, key in enumerate(keys(after)):
        read = reader.read(sample)
        number = int(key[1:])
        assert (read.picture_HWC[0, 0, 0], read.instruction) == (number, f"change {number}")
    assert Manifest.open(folder, marks=False).identity == before.identity
    (folder / name).unlink()
    assert Manifest.open(folder).identity == before.identity


def test_both_files_of_a_shard_count_and_an_empty_one_changes_nothing(tmp_path):
    folder = write_shards(tmp_path)
    before = Manifest.open(folder).identity
    write_marks(folder / "00000.marks.jsonl", {}, "h", {})
    assert Manifest.open(folder).identity == before
    write_marks(folder / "00000.marks.jsonl", {}, "h", {"k000001": ["a"]})
    write_marks(folder / "00000.subset.jsonl", {}, "h", {"k000001": ["b"], "k000003": ["b"]})
    assert [key for key in ALL if key not in keys(Manifest.open(folder))] == ["k000001", "k000003"]


def test_what_is_wrong_with_a_marked_sample_does_not_matter(tmp_path):
    """No caption, and no instruction either: without its mark the shard is refused."""

    def spoil(key, parts):
        return {"json": b"{}"} if key == "k000002" else parts

    folder = write_shards(tmp_path, sizes=(5,), change=spoil)
    sidecar = folder / "00000.instructions.jsonl"
    sidecar.write_text("".join(line for line in sidecar.open() if "k000002" not in line))
    with pytest.raises(ValueError, match="k000002"):
        Manifest.open(folder)
    write_marks(folder / "00000.marks.jsonl", {}, "h", {"k000002": ["unpaired"]})
    assert keys(Manifest.open(folder)) == ["k000000", "k000001", "k000003", "k000004"]


def test_truth_is_left_out_with_its_sample(tmp_path):
    folder = write_shards(tmp_path, truth=True)
    write_marks(folder / "00002.marks.jsonl", {}, "h", {"k000012": ["a"]})
    assert len(Manifest.open(folder, truth=True).columns["mask"]) == 15


def test_training_follows_data_marks(tmp_path):
    folder = write_shards(tmp_path)
    write_marks(folder / "00000.marks.jsonl", {}, "h", {key: ["a"] for key in ALL[:5]})
    for marks, samples in ((True, 11), (False, 16)):
        data = DataConfig(train=str(folder), validation=str(folder), global_batch=4, workers=0, marks=marks)
        module = PairsDataModule(data, 0, 1)
        module.setup()
        assert (len(module.train), len(module.validation)) == (samples, samples)


def test_proposals_made_before_the_marks_still_serve(tmp_path, tiny_arguments):
    folder = write_shards(tmp_path / "train", sizes=(4,))
    changes = [f"--data.train={folder}", f"--data.proposals={tmp_path / 'proposals'}", "--device=cpu"]
    changes += ["--step.proposal_mask=everything"]
    make_proposals(load_config(ProposalsConfig, overrides=[*tiny_arguments, *changes]))
    write_marks(folder / "00000.marks.jsonl", {}, "h", {"k000001": ["a"]})
    assert len(Manifest.open(folder, proposals=tmp_path / "proposals")) == 3


BROKEN = {
    "": "first line must be a header",
    "[]\n": "first line must be a header",
    '{"schema": 2}\n': "first line must be a header",
    '{"schema": 1}\nno\n': "line 2: not a mark",
    '{"schema": 1}\n{"key": "k000000"}\n': "line 2: not a mark",
    '{"schema": 1}\n{"key": 1, "reasons": []}\n': "line 2: not a mark",
    '{"schema": 1}\n{"key": "k000000", "reasons": [1]}\n': "line 2: not a mark",
    '{"schema": 1}\n{"key": "other", "reasons": ["a"]}\n': "does not match its shard: 1 of its keys.*other",
}


@pytest.mark.parametrize("content", BROKEN, ids=str)
def test_a_broken_file_of_marks_is_refused_in_one_line(tmp_path, content):
    folder = write_shards(tmp_path)
    (folder / "00000.marks.jsonl").write_text(content)
    with pytest.raises(ValueError, match=f"00000.marks.jsonl.*{BROKEN[content]}") as error:
        Manifest.open(folder)
    assert "\n" not in str(error.value)


@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(st.text(min_size=1), st.lists(st.text(), max_size=3)),
    st.dictionaries(st.text(), st.none() | st.integers() | st.text()),
)
def test_marks_are_read_as_they_were_written(tmp_path_factory, marks, rules):
    path = tmp_path_factory.getbasetemp() / "any.marks.jsonl"
    write_marks(path, rules, "digest", marks)
    assert read_marks(path) == {key: tuple(reasons) for key, reasons in marks.items()}
    assert read_header(path) == {"schema": 1, "rules": json.loads(json.dumps(rules)), "hash": "digest"}


def gone(number: int, why: str = "caption: empty") -> dict:
    return {"key": f"k{number:06d}", "dropped": why}


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
