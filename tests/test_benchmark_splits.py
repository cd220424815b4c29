"""Benchmark shards on disk and hub names: all layouts are found, incomplete ones refused, row groups read singly."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from regionedit.evaluation.benchmarks.emu_edit import HUB_NAME
from regionedit.evaluation.benchmarks.splits import Split, choose_split, read_splits
from tests.benchmark_fixtures import emu_row, table, write_emu_edit, write_gedit, write_parquet

ROWS = [emu_row(i) for i in range(7)]


def names_and_sizes(folder):
    return {split.name: len(split) for split in read_splits(folder, HUB_NAME)}


@pytest.mark.parametrize(
    ("files", "name"),
    [
        (
            ["data/test-00000-of-00002-64edd860175df28a.parquet", "data/test-00001-of-00002-0a14114eb2f63780.parquet"],
            "test",
        ),
        (["default/test/0000.parquet", "default/test/0001.parquet"], "test"),
        (["test-00000-of-00002.parquet", "test-00001-of-00002.parquet"], "test"),
        (["emu.parquet"], "emu"),
    ],
)
def test_shards_are_found_under_every_name_that_downloads_leave(files, name, tmp_path):
    for file in files:
        write_parquet(tmp_path / file, ROWS, ["image"])
    assert names_and_sizes(tmp_path) == {name: 7 * len(files)}


def test_arrow_shards_of_save_to_disk_are_read(tmp_path):
    for split in ("train", "test"):
        write_gedit(tmp_path / split)
    assert names_and_sizes(tmp_path) == {"test": 6, "train": 6}


def test_arrow_files_written_by_datasets_are_read(tmp_path):
    import datasets

    datasets.Dataset(table(ROWS, ["image"])).save_to_disk(tmp_path / "saved", num_shards=2)
    (split,) = read_splits(tmp_path / "saved", HUB_NAME)
    assert split.sizes == (4, 3)
    found = [(number, row["image"]["bytes"]) for number, row in split.rows(["image"], [5, 1])]
    assert found == [(number, ROWS[number]["image"]) for number in (1, 5)]


@pytest.mark.parametrize("wanted", [[], [0], [6], [2, 3, 4], [6, 0, 3, 3], range(7)])
@pytest.mark.parametrize("shards", [1, 2, 7])
def test_wanted_rows_come_once_in_order_from_any_shards(wanted, shards, tmp_path):
    (split,) = read_splits(write_emu_edit(tmp_path, ROWS, shards=shards), HUB_NAME)
    found = list(split.rows(["idx", "image"], wanted))
    assert found == [(n, {"idx": n, "image": {"bytes": ROWS[n]["image"], "path": None}}) for n in sorted(set(wanted))]


def test_shards_of_two_revisions_are_refused(tmp_path):
    write_emu_edit(tmp_path, ROWS, shards=3)
    stale = tmp_path / "data/test-00002-of-00003-0a14114eb2f63780.parquet"
    write_parquet(stale, ROWS[:1], ["image"])
    with pytest.raises(ValueError, match=r"test-00002-of-00003.* are the same shard of split 'test' from two rev"):
        read_splits(tmp_path, HUB_NAME)


def test_missing_shards_are_named(tmp_path):
    write_emu_edit(tmp_path, ROWS, shards=3)
    next(tmp_path.glob("data/test-00001*")).unlink()
    with pytest.raises(ValueError, match="split 'test' in .*data lacks 1 of 3 shards, the first is number 00001"):
        read_splits(tmp_path, HUB_NAME)


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_a_truncated_file_is_named(kind, tmp_path):
    write_gedit(tmp_path) if kind == "arrow" else write_emu_edit(tmp_path, ROWS)
    path = sorted(tmp_path.rglob(f"*.{kind}"))[-1]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=f"data: {path} is truncated: a half-finished download?"):
        read_splits(tmp_path, HUB_NAME)


def test_a_git_lfs_pointer_is_recognised(tmp_path):
    (tmp_path / "test-00000-of-00001.parquet").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\n")
    with pytest.raises(ValueError, match="is a Git LFS pointer, not the data: `git lfs pull`"):
        read_splits(tmp_path, HUB_NAME)


def test_several_splits_need_one_of_the_expected_size(tmp_path):
    write_emu_edit(tmp_path, ROWS, "a")
    write_emu_edit(tmp_path, ROWS[:2], "b")
    splits = read_splits(tmp_path, HUB_NAME)
    assert choose_split(splits, 2).name == "b"
    with pytest.raises(ValueError, match=r"no split has 5 rows, .* There are: a \(7 rows\), b \(2 rows\)"):
        choose_split(splits, 5)
    assert choose_split(splits[:1], 5).name == "a"


def test_pictures_are_bytes_structs_or_files(tmp_path):
    split = Split("test", (tmp_path / "test.parquet",), (1,))
    assert split.stored(b"x", "row 3") == (b"x", "row 3")
    assert split.stored({"bytes": b"x", "path": "p"}, "row 3") == (b"x", "row 3")
    assert split.stored({"bytes": None, "path": "p.png"}, "row 3") == (tmp_path / "p.png", "row 3")
    for nothing in (None, {"bytes": None, "path": None}):
        with pytest.raises(ValueError, match="^data: row 3 holds no picture"):
            split.stored(nothing, "row 3")


def test_a_hub_name_is_read_at_its_revision(tmp_path, monkeypatch):
    import datasets

    write_emu_edit(tmp_path / "hub", ROWS)
    asked = []

    def load_dataset(name, revision=None):
        asked.append((name, revision))
        files = {"validation": [str(p) for p in sorted((tmp_path / "hub").rglob("*.parquet"))]}
        return original("parquet", data_files=files, cache_dir=str(tmp_path / "cache"))

    original = datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    (split,) = read_splits("facebook/emu_edit_test_set@b31936a", HUB_NAME)
    assert asked == [("facebook/emu_edit_test_set", "b31936a")]
    assert (split.name, len(split), split.files[0].suffix) == ("validation", 7, ".arrow")
    assert [n for n, _ in split.rows(["image"], [2, 6])] == [2, 6]


def test_without_a_network_a_hub_name_says_how_to_use_a_local_copy(monkeypatch):
    """HF_HUB_OFFLINE=1 is set for all tests."""
    with pytest.raises(ValueError) as error:
        read_splits("facebook/emu_edit_test_set@b31936a", HUB_NAME)
    message = str(error.value)
    assert message.startswith("data: facebook/emu_edit_test_set@b31936a is not a folder, and the hub does not give it")
    assert "hf download facebook/emu_edit_test_set --repo-type dataset --revision b31936a --local-dir DIR" in message
    assert "\n" not in message


def test_what_is_neither_a_folder_nor_a_hub_name_is_refused(tmp_path):
    (tmp_path / "file.parquet").write_text("")
    for data in ("no_such_folder", "/no/such/folder", str(tmp_path / "file.parquet")):
        with pytest.raises(ValueError, match="is neither a folder of parquet files nor a hub name such as facebook"):
            read_splits(data, HUB_NAME)


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_only_one_row_group_is_in_memory_at_a_time(kind, tmp_path):
    large = table([{"image": bytes(200_000)}] * 40, ["image"])
    if kind == "parquet":
        pq.write_table(large, tmp_path / "test.parquet", row_group_size=2)
    else:
        with pa.ipc.new_stream(tmp_path / "test.arrow", large.schema) as stream:
            stream.write_table(large, max_chunksize=2)
    del large
    (split,) = read_splits(tmp_path, HUB_NAME)
    before, peak = pa.total_allocated_bytes(), 0
    for _, row in split.rows(["image"], range(40)):
        assert len(row["image"]["bytes"]) == 200_000
        peak = max(peak, pa.total_allocated_bytes() - before)
    assert peak < 2_500_000  # of 8,000,000
