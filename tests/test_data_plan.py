"""The plan gives every sample once, in an order that any process can compute; the manifest indexes shards once."""

import os
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regionedit.data.manifest import Manifest
from regionedit.data.plan import EpochPlan, EvenPlan
from tests.shards import picture, write_shards

plans = st.fixed_dictionaries(
    {
        "sizes": st.lists(st.integers(0, 40), min_size=1, max_size=12).filter(lambda sizes: sum(sizes) > 0),
        "seed": st.integers(0, 2**32 - 1),
        "epoch": st.integers(0, 1000),
        "block_shards": st.integers(1, 5),
    }
)


@settings(max_examples=60, deadline=None)
@given(plans, st.integers(1, 8), st.integers(1, 4))
def test_every_sample_but_the_dropped_is_read_once_by_one_rank(plan, share, ranks):
    global_batch = share * ranks
    total = sum(plan["sizes"])
    if total < global_batch:
        with pytest.raises(ValueError, match="data.global_batch"):
            EpochPlan(global_batch=global_batch, **plan)
        return
    plan = EpochPlan(global_batch=global_batch, **plan)
    per_rank = [
        [plan.sample(place) for position in range(len(plan)) for place in plan.places(position, rank, ranks)]
        for rank in range(ranks)
    ]
    assert {len(samples) for samples in per_rank} == {len(plan) * share}
    read = [sample for samples in per_rank for sample in samples]
    assert len(read) == len(set(read)) == total - plan.dropped
    assert plan.dropped < global_batch
    assert set(read) <= set(range(total))
    places = range(len(plan) * global_batch, total)
    assert set(read) | {plan.sample(place) for place in places} == set(range(total))


@settings(max_examples=30, deadline=None)
@given(plans, st.integers(1, 10), st.data())
def test_any_place_can_be_computed_directly(plan, global_batch, data):
    if sum(plan["sizes"]) < global_batch:
        return
    in_order = EpochPlan(global_batch=global_batch, **plan)
    order = [in_order.sample(place) for place in range(in_order.samples)]
    place = data.draw(st.integers(0, in_order.samples - 1))
    direct = EpochPlan(global_batch=global_batch, **plan)
    assert direct.sample(place) == order[place] and list(direct.candidates(place)) == order[place:] + order[:place]


def test_seed_and_epoch_change_the_order_and_shuffling_crosses_shards():
    def order(seed, epoch):
        plan = EpochPlan([100] * 6, seed=seed, global_batch=10, block_shards=3, epoch=epoch)
        return [plan.sample(place) for place in range(600)]

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1) != order(1, 0)
    assert len({sample // 100 for sample in order(0, 0)[:20]}) == 3
    assert set(order(0, 0)[:300]) != set(order(0, 1)[:300])


def test_even_plan_spreads_and_gives_every_rank_the_same_number():
    plan = EvenPlan(100, 10)
    assert [next(plan.candidates(place)) for place in range(plan.count)] == list(range(0, 100, 10))
    assert EvenPlan(7, 0, ranks=2).count == 6
    with pytest.raises(ValueError, match="too few for 8 ranks"):
        EvenPlan(7, 0, ranks=8)


def test_the_order_of_a_plan_never_changes():
    """Checkpoints depend on the order, so that this test must notice any change of the plan."""
    plan = EpochPlan([4, 4, 4], seed=1, global_batch=2, block_shards=2, epoch=2)
    assert [plan.sample(place) for place in range(12)] == [1, 0, 2, 7, 3, 6, 5, 4, 11, 10, 8, 9]


def test_manifest_points_at_every_part(tmp_path):
    folder = write_shards(tmp_path)
    manifest = Manifest.open(folder)
    assert len(manifest) == 16 and manifest.shards == ("00000", "00001", "00002")
    assert manifest.sizes.tolist() == [5, 7, 4]
    for sample, shard in ((0, "00000"), (5, "00001"), (15, "00002")):
        offset, length = manifest.columns["picture"][sample]
        assert (folder / f"{shard}.tar").read_bytes()[offset : offset + length] == picture(sample)
        assert manifest.key(sample) == f"k{sample:06d}"


def test_manifest_is_stored_and_reused_until_a_file_changes(tmp_path, monkeypatch):
    folder = write_shards(tmp_path / "a")
    first = Manifest.open(folder)
    monkeypatch.setattr("regionedit.data.manifest._build", lambda *args: pytest.fail("indexed again"))
    again = Manifest.open(folder)
    assert again.identity == first.identity and (again.keys == first.keys).all()
    assert all((again.columns[part] == first.columns[part]).all() for part in first.columns)
    monkeypatch.undo()
    os.utime(folder / "00000.tar")
    assert Manifest.open(folder).identity == first.identity
    (folder / "manifest.safetensors").write_bytes(b"half")
    assert Manifest.open(folder).identity == first.identity
    copy = shutil.copytree(folder, tmp_path / "b")
    assert Manifest.open(copy).identity == first.identity
    write_shards(folder, sizes=(5, 7, 5))
    assert Manifest.open(folder).identity != first.identity


def test_manifest_of_a_read_only_folder_is_stored_elsewhere(tmp_path, monkeypatch):
    folder = write_shards(tmp_path / "shards")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    real = __import__("regionedit.files", fromlist=["write_atomic"]).write_atomic

    def read_only(path, data):
        if path.parent == folder:
            raise OSError(30, "Read-only file system")
        real(path, data)

    monkeypatch.setattr("regionedit.data.manifest.write_atomic", read_only)
    Manifest.open(folder)
    assert not (folder / "manifest.safetensors").exists()
    monkeypatch.setattr("regionedit.data.manifest._build", lambda *args: pytest.fail("indexed again"))
    assert len(Manifest.open(folder)) == 16


def test_many_shards_are_indexed_by_several_processes_alike(tmp_path, monkeypatch):
    folder = write_shards(tmp_path, sizes=(2, 2, 0, 2, 2))  # an empty shard is no gap
    one = Manifest.open(folder)
    assert len(one) == 8
    (folder / "manifest.safetensors").unlink()
    monkeypatch.setattr("regionedit.data.manifest._MANY", 4)
    several = Manifest.open(folder)
    assert several.identity == one.identity and (several.keys == one.keys).all()
