"""Several folders, patterns, gaps and other names: which shards `data.train` names, and in which order."""

import shutil

import pytest
import torch

from data_prep.cache_features import FeaturesConfig, cache_features
from data_prep.make_proposals import ProposalsConfig, make_proposals
from regionedit.command_line import load_config
from regionedit.config import TrainConfig
from regionedit.data.datamodule import PairsDataModule
from regionedit.data.loader import TrainLoader
from regionedit.data.manifest import Manifest
from regionedit.data.shard_names import shards_among
from regionedit.training.run import train
from tests.pairs import write_pairs
from tests.shards import write_shards
from tests.test_data import config, keys
from tests.training_runs import logged


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("10.tar 9.tar 00011.tar 9.truth.tar 9.proposals.tar notes.txt backup.tar", "9 10 00011"),
        ("cc3m-train-0001.tar cc3m-train-0000.tar", "cc3m-train-0000 cc3m-train-0001"),
        ("b-1.tar a-2.tar a-1.tar", "a-1 a-2 b-1"),
        ("train-00001-of-00003.tar train-00000-of-00003.tar", "train-00000-of-00003 train-00001-of-00003"),
    ],
)
def test_names_of_shards(names, expected):
    assert shards_among(names.split(), "x") == tuple(expected.split())


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("a-0000.tar a-0002.tar b-0001.tar", r"^x/a-0001.tar: missing shard \(1 of 4 are\).*set data.allow_gaps"),
        ("a-0.tar a-1.instructions.jsonl", r"^x/a-1.tar: missing shard"),
        ("t-0-of-9.tar t-2-of-9.tar", "^x/t-1-of-9.tar: missing shard"),
        ("a-1.tar a-01.tar", "two shards share a number"),
        ("backup.tar", "holds no shards"),
    ],
)
def test_wrong_names_of_shards(names, message):
    with pytest.raises(ValueError, match=message):
        shards_among(names.split(), "x")


def test_gaps_are_refused_or_allowed(tmp_path, caplog):
    folder = write_shards(tmp_path / "crawl")
    for gone in folder.glob("00001.*"):
        gone.unlink()
    with pytest.raises(ValueError, match="^data.train: .*00001.tar: missing shard .*data.allow_gaps"):
        PairsDataModule(config(folder), 0, 1).setup()
    data = PairsDataModule(config(folder, allow_gaps=True), 0, 1)
    data.setup()
    assert data.train.shards == ("00000", "00002") and "1 of 3 shards are missing, such as 00001.tar" in caplog.text
    for gone in folder.glob("00002.tar"):
        gone.unlink()
    assert Manifest.open(folder, allow_gaps=True).shards == ("00000",)


def test_a_pattern_takes_some_shards_in_its_order(tmp_path):
    folder = write_shards(tmp_path / "crawl")
    whole, part = Manifest.open(folder), Manifest.open(f"{folder}/{{00002,00000}}.tar")
    assert part.shards == ("00002", "00000") and part.keys.tolist() == [*whole.keys[12:], *whole.keys[:5]]
    same = Manifest.open([f"{folder}/00000.tar", f"{folder}/{{00001..00002}}.tar"])
    assert same.identity == whole.identity and same.shards == whole.shards
    assert Manifest.open(folder).identity == whole.identity  # a part does not replace the manifest of the whole
    with pytest.raises(ValueError, match=r"/00003.tar: missing shard \(2 of 4 are\)"):
        Manifest.open(f"{folder}/{{00001..00004}}.tar")
    assert Manifest.open(f"{folder}/{{00001..00004}}.tar", allow_gaps=True).shards == ("00001", "00002")
    with pytest.raises(ValueError, match="00007.tar: missing shard"):
        Manifest.open(f"{folder}/{{00007..00008}}.tar", allow_gaps=True)


def test_several_folders_with_the_same_names_and_keys(tmp_path):
    a, b = write_shards(tmp_path / "a", (5, 7)), write_shards(tmp_path / "b", (6,), suffix="jpg")
    both = Manifest.open([str(a), str(b)])
    assert both.shards == ("a/00000", "a/00001", "b/00000") and both.sizes.tolist() == [5, 7, 6]
    assert Manifest.open(f"{tmp_path}/{{a,b}}").identity == both.identity
    assert Manifest.open([str(b), str(a)]).identity != both.identity
    assert Manifest.open([str(shutil.copytree(a, tmp_path / "c")), str(b)]).identity == both.identity
    loader = TrainLoader(both, config(a), seed=0)
    seen = [key for batch in keys(loader) for key in batch]
    assert len(seen) == 16 and len(set(seen)) < 16  # of two crawls, some samples have the same key
    opened = {path.parent.name for path in loader._batches.dataset.reader._files}
    assert opened == {"a", "b"}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (["a", "a"], "a: named twice"),
        (["a", "a/00000.tar"], "a/00000.tar: named twice"),
        (["a/{00000,00000}.tar"], "a/00000.tar: named twice"),
        (["a", "other/a"], "a: two folders have this name"),
        (["a", "none"], "none: no such folder"),
    ],
)
def test_entries_that_do_not_go_together(tmp_path, entries, message):
    for name in ("a", "other/a"):
        write_shards(tmp_path / name)
    with pytest.raises(ValueError, match=message):
        Manifest.open([str(tmp_path / entry) for entry in entries])


def test_lists_and_patterns_on_the_command_line(tmp_path):
    for given, expected in (
        ("data/crawl", "data/crawl"),
        ("data/{a,b}", "data/{a,b}"),
        ("s3://b/{00000..00009}.tar", "s3://b/{00000..00009}.tar"),
        ("[data/a, data/b]", ["data/a", "data/b"]),
    ):
        assert load_config(TrainConfig, overrides=[f"--data.train={given}"]).data.train == expected
    (tmp_path / "x.yaml").write_text("data:\n  train: [data/a, 's3://b/{0..9}.tar']\n")
    assert load_config(TrainConfig, tmp_path / "x.yaml").data.train == ["data/a", "s3://b/{0..9}.tar"]


def test_a_run_on_two_folders_with_stored_proposals_and_features(tiny_train, tiny_arguments, tmp_path):
    """Files of shards with the same name lie in folders of their own; the run resumes after the folders have moved."""
    a, b = write_pairs(tmp_path / "a", shards=1), write_pairs(tmp_path / "b", shards=2)
    stored, features = tmp_path / "proposals", tmp_path / "features"
    settings = (
        f"--data.train=[{a}, {b}]", "--step.proposal_mask=random_hard", f"--data.proposals={stored}",
        f"--data.features={features}", "--generator.num_inference_steps=1",
    )  # fmt: skip
    base = [*tiny_arguments, *settings, "--device=cpu"]
    assert make_proposals(load_config(ProposalsConfig, overrides=base)) == 3
    assert cache_features(load_config(FeaturesConfig, overrides=[*base, "--latents=false"])) == 3
    assert {str(path.relative_to(stored)) for path in stored.rglob("*.tar")} == {
        f"{folder}/{shard}.proposals.tar" for folder, shard in (("a", "00000"), ("b", "00000"), ("b", "00001"))
    }
    train(tiny_train(*settings, "--max_steps=1"))
    moved = tmp_path / "moved"
    for folder in (a, b):
        shutil.copytree(folder, moved / folder.name)
        shutil.rmtree(folder)
    resumed = tiny_train(*settings, f"--data.train=[{moved / 'a'}, {moved / 'b'}]")
    train(resumed)
    assert set(logged(resumed)) == {1, 2} and torch.tensor([*logged(resumed).values()]).isfinite().all()
