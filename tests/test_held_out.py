"""Validation held out of the training shards: chosen by the key alone, never trained on, with losses."""

import pytest

from regionedit.data.datamodule import PairsDataModule
from regionedit.data.held_out import key_hashes, split
from regionedit.data.loader import TrainLoader, ValidationLoader
from regionedit.data.manifest import Manifest
from regionedit.training.run import train
from tests.shards import write_shards
from tests.test_data import config, keys
from tests.training_runs import logged

SHARE = 0.25


def names(manifest: Manifest) -> set[str]:
    return {manifest.key(sample) for sample in range(len(manifest))}


def test_the_choice_depends_on_the_key_alone(tmp_path):
    small, large = (Manifest.open(write_shards(tmp_path / n, s)) for n, s in (("a", (9, 11)), ("b", (30, 40, 0, 30))))
    training, held_out = split(large, SHARE)
    assert names(training) | names(held_out) == names(large) and not names(training) & names(held_out)
    assert names(split(small, SHARE)[1]) == names(held_out) & names(small)  # other shards, fewer samples
    assert names(split(large, 0.1)[1]) < names(held_out)
    assert split(large, 0) == (large, None)
    assert training.sizes.sum() == len(training.keys) and training.sizes.tolist()[2] == 0
    identities = {m.identity for m in (large, training, held_out, split(large, 0.1)[0])}
    assert len(identities) == 4 and split(large, SHARE)[0].identity == training.identity


def test_about_the_share_is_held_out_independently_of_a_subset():
    many = [b"%09d" % n for n in range(20000)]
    chosen = key_hashes(many, b"held out\0") < 0.1 * 2.0**64
    in_subset = key_hashes(many, b"subset\0" + b"0\0") < 0.3 * 2.0**64
    assert chosen.mean() == pytest.approx(0.1, abs=0.01)
    assert chosen[in_subset].mean() == pytest.approx(0.1, abs=0.015)


def test_a_chosen_key_never_changes():
    """Resumed runs depend on it."""
    assert key_hashes([b"k000000"], b"held out\0").tolist() == [4847255940999032641]


def test_parts_point_at_the_same_bytes(tmp_path):
    manifest = Manifest.open(write_shards(tmp_path, (30, 40)))
    for part in split(manifest, SHARE):
        batches = ValidationLoader(part, config(tmp_path, validation_samples=0))
        for batch in batches:
            assert batch.source_captions == tuple(f"picture {int(key[1:])}" for key in batch.keys)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_no_rank_and_no_resumed_run_trains_on_what_is_held_out(tmp_path, ranks):
    data = config(write_shards(tmp_path, (30, 40)), held_out=SHARE)
    training, held_out = split(Manifest.open(tmp_path), SHARE)
    one, seen = TrainLoader(training, data, seed=3), []
    epochs = keys(one) + keys(one)
    for rank in range(ranks):
        loader = TrainLoader(training, data, 3, rank, ranks)
        loader.load_state_dict(one.state_dict() | {"position": 5})
        resumed = keys(loader) + keys(loader)
        seen.append(resumed[: len(epochs) - 5])
        validated = {k for batch in ValidationLoader(held_out, data, rank, ranks) for k in batch.keys}
        assert validated <= names(held_out) and not validated & {k for batch in resumed for k in batch}
    assert [set().union(*share) for share in zip(*seen, strict=True)] == [set(batch) for batch in epochs[5:]]
    for other in (Manifest.open(tmp_path), split(Manifest.open(tmp_path), 0.2)[0]):
        with pytest.raises(ValueError, match="^data.train: these are not the shards"):
            TrainLoader(other, data, 3).load_state_dict(one.state_dict())


@pytest.mark.parametrize("stored", [False, True])
def test_a_run_validates_on_what_it_holds_out(tiny_train, pairs, stored):
    more = [f"--data.proposals={pairs / 'proposals'}", "--step.proposal_mask=random_hard"] if stored else []
    settings = tiny_train("--data.held_out=0.3", "--log.validate_every_steps=1", "--log.export=best", *more)
    train(settings)
    assert set(logged(settings, "validation/loss")) == {1, 2}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"held_out": 1.0}, "^data.held_out: 1; give a share"),
        ({"held_out": 0.001}, "^data.held_out: 0.001 of 16 samples holds out none; raise it"),
        ({"held_out": 0.2, "validation": "x"}, r"^data.held_out: 0.2 of data.train .* other shards \(x\)"),
    ],
)
def test_a_wrong_share_is_named(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        PairsDataModule(config(write_shards(tmp_path), **changes), 0, 1).setup()
