"""The data loaders, alone and in Lightning: exact epochs, disjoint shares for ranks, exact resume."""

import io
import multiprocessing
import os
import subprocess
import time

import lightning
import numpy as np
import pytest
import torch
from PIL import Image

from regionedit.config import DataConfig
from regionedit.data import shards as reading
from regionedit.data.batches import move, scaled
from regionedit.data.datamodule import PairsDataModule
from regionedit.data.loader import TrainLoader, ValidationLoader
from regionedit.data.manifest import Manifest
from tests.shards import picture, write_shards, write_tar


def config(folder, **changes) -> DataConfig:
    return DataConfig(
        **{"train": str(folder), "validation": None, "global_batch": 4, "image_size": 8, "workers": 0} | changes
    )


def loader(folder, rank=0, ranks=1, seed=3, **changes) -> TrainLoader:
    return TrainLoader(Manifest.open(folder), config(folder, **changes), seed, rank, ranks)


def keys(batches) -> list[tuple[str, ...]]:
    return [batch.keys for batch in batches]


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_batch_holds_what_the_shards_hold(tmp_path, suffix):
    folder = write_shards(tmp_path, suffix=suffix)
    batch = next(iter(loader(folder, image_size=16)))
    assert batch.images_BCHW.shape == (4, 3, 16, 16) and batch.images_BCHW.dtype == torch.uint8
    for b, key in enumerate(batch.keys):
        number = int(key[1:])
        assert batch.source_captions[b] == f"picture {number}"
        assert batch.instructions[b] == f"change {number}"
        assert batch.target_captions[b] == f"changed {number}"
        assert abs(batch.images_BCHW[b, 0].float().mean().item() - number) < (0.01 if suffix == "png" else 4)
    assert batch.proposals_BCHW is None and batch.truth_mask_B1HW is None and batch.object_masks is None
    assert batch.operations == ()


def test_training_never_reads_truth_even_if_the_folder_has_it(tmp_path):
    folder = write_shards(tmp_path, truth=True)
    Manifest.open(folder, truth=True)
    train = loader(folder)
    batch = next(iter(train))
    assert batch.truth_mask_B1HW is None and batch.object_masks is None and batch.operations == ()
    opened = train._batches.dataset.reader._files.values()
    assert not any("truth" in os.readlink(f"/proc/self/fd/{file}") for file in opened)


def test_validation_is_the_same_each_time_and_has_truth(tmp_path):
    folder = write_shards(tmp_path, truth=True)
    manifest = Manifest.open(folder, truth=True)
    validation = ValidationLoader(manifest, config(folder, validation_samples=10))
    assert len(validation) == 3
    first, second = list(validation), list(validation)
    assert keys(first) == keys(second) and sum(len(batch.keys) for batch in first) == 10
    batch = first[0]
    assert batch.truth_mask_B1HW.shape == (4, 1, 8, 8)
    assert scaled(batch).truth_mask_B1HW[0, 0].sum() == 16
    assert [m.shape for m in batch.object_masks] == [(2, 8, 8)] * 4 and batch.object_masks[0].dtype == torch.bool
    assert batch.object_masks[0].flatten(1).sum(1).tolist() == [16, 4]
    assert batch.operations == ("recolour",) * 4
    shares = [keys(ValidationLoader(manifest, config(folder, validation_samples=10), r, 2)) for r in range(2)]
    assert {k for s in shares for b in s for k in b} == {k for b in keys(first) for k in b}


def test_stored_proposals_are_read_with_their_samples_also_of_some_of_the_shards(tmp_path):
    whole, part = write_shards(tmp_path / "whole"), write_shards(tmp_path / "part", sizes=(5, 7))
    stored = tmp_path / "proposals"
    stored.mkdir()
    for shard, start, size in ((0, 0, 5), (1, 5, 7), (2, 12, 4)):
        members = [(f"k{n:06d}", {"png": picture(n + 100)}) for n in range(start, start + size)]
        write_tar(stored / f"{shard:05d}.proposals.tar", members)
    for _ in range(2):  # the second time from the stored manifests
        assert [len(Manifest.open(folder, proposals=stored)) for folder in (whole, part)] == [16, 12]
    batch = next(iter(TrainLoader(Manifest.open(whole, proposals=stored), config(whole), 0)))
    difference = (batch.proposals_BCHW.float() - batch.images_BCHW.float())[:, 0]
    assert torch.allclose(difference, torch.full_like(difference, 100))


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ranks_share_each_global_batch(tmp_path, ranks):
    folder = write_shards(tmp_path)
    whole = [set(batch) for batch in keys(loader(folder))]
    shares = [keys(loader(folder, rank, ranks)) for rank in range(ranks)]
    assert [set().union(*(share[i] for share in shares)) for i in range(len(whole))] == whole
    assert len(set().union(*whole)) == 16


def test_resume_at_every_position_is_exact(tmp_path):
    folder = write_shards(tmp_path, sizes=(5, 7, 6))
    train = loader(folder)
    uninterrupted, states = [], [train.state_dict()]
    for _ in range(3):
        for batch in train:
            uninterrupted.append(batch.keys)
            states.append(train.state_dict())
    assert len(uninterrupted) == 12 and [s["position"] for s in states] == list(range(13))
    for position, state in enumerate(states[:-1]):
        resumed = loader(folder)
        resumed.load_state_dict(state)
        rest = keys(resumed)
        while len(rest) < 12 - position:
            rest += keys(resumed)
        assert rest == uninterrupted[position:]


def test_workers_change_nothing(tmp_path):
    folder = write_shards(tmp_path, sizes=(5, 7, 6))
    alone = loader(folder)
    expected = keys(alone) + keys(alone)
    one = loader(folder, workers=1)
    iterator = iter(one)
    seen = [next(iterator).keys, next(iterator).keys]
    two = loader(folder, workers=2)
    two.load_state_dict(one.state_dict())
    assert seen + keys(two) + keys(two) == expected
    iterator.close()
    assert seen + keys(one) == expected[: len(one)]  # the abandoned iterator's prefetched batches are not lost


def test_two_ranks_continue_where_one_stopped(tmp_path):
    folder = write_shards(tmp_path)
    one = loader(folder)
    iterator = iter(one)
    next(iterator)
    shares = []
    for rank in range(2):
        share = loader(folder, rank, 2)
        share.load_state_dict(one.state_dict())
        shares.append(keys(share))
    assert [set(a + b) for a, b in zip(*shares, strict=True)] == [set(batch.keys) for batch in iterator]


def test_a_state_of_another_order_is_refused(tmp_path):
    state = loader(write_shards(tmp_path / "a")).state_dict()
    folder, others = write_shards(tmp_path / "b"), write_shards(tmp_path / "c", sizes=(5, 7, 5))
    for shards, changes, message in (
        (folder, {"seed": 4}, "^seed: 4 differs from the 3"),
        (folder, {"global_batch": 8}, "^data.global_batch: 8 differs from the 4"),
        (folder, {"block_shards": 2}, "^data.block_shards: 2 differs from the 8"),
        (others, {}, "^data.train: these are not the shards"),
    ):
        with pytest.raises(ValueError, match=message):
            loader(shards, **changes).load_state_dict(state)


def test_too_few_samples_and_ranks_that_cannot_share(tmp_path):
    folder = write_shards(tmp_path, sizes=(3,))
    with pytest.raises(ValueError, match="data.global_batch: one step takes 4 samples, but the shards hold 3"):
        loader(folder)
    with pytest.raises(ValueError, match="4 cannot be shared equally by 3 ranks; 6 can"):
        loader(folder, 0, 3)


def test_workers_outlive_a_signal_to_the_whole_job(tmp_path):
    train = loader(write_shards(tmp_path, sizes=(20,)), workers=2, global_batch=2)
    iterator = iter(train)
    next(iterator), next(iterator)  # one batch from each worker, so that both have started
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    for worker in workers:
        for name in ("-TERM", "-INT", "-USR1"):
            subprocess.run(["kill", name, str(worker.pid)], check=True)
    assert len(list(iterator)) == 8
    next(iter(train))
    started = time.monotonic()
    for worker in multiprocessing.active_children():
        worker.terminate()
        worker.join()
    assert time.monotonic() - started < 3


def test_reading_does_not_touch_the_global_random_state(tmp_path):
    train = loader(write_shards(tmp_path))
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    next(iter(train))
    assert torch.equal(torch.rand(3), expected)


def test_move_moves_every_tensor(tmp_path):
    folder = write_shards(tmp_path, truth=True)
    batch = next(iter(ValidationLoader(Manifest.open(folder, truth=True), config(folder))))
    moved = move(batch, "meta")
    assert moved.images_BCHW.is_meta and moved.truth_mask_B1HW.is_meta and moved.object_masks[0].is_meta
    assert moved.keys == batch.keys


@pytest.mark.parametrize(("side", "decoded"), [(90, 90), (130, 65), (300, 75), (1000, 125)])
def test_a_large_jpeg_is_decoded_at_reduced_scale_and_looks_the_same(side, decoded, monkeypatch):
    rng, buffer, seen = np.random.default_rng(0), io.BytesIO(), []
    shown = Image.fromarray(rng.integers(0, 255, (12, 12, 3), dtype=np.uint8)).resize((side, side + 40))
    shown.save(buffer, "JPEG", quality=95)
    expected = shown.resize((32, 32), Image.Resampling.BICUBIC, reducing_gap=3.0)
    upright = reading.upright_rgb
    monkeypatch.setattr(reading, "upright_rgb", lambda picture: seen.append(picture.size[0]) or upright(picture))
    found = reading._picture(buffer.getvalue(), 32)
    assert found.shape == (32, 32, 3) and seen == [decoded]
    assert np.abs(found - np.asarray(expected, np.float32)).mean() < 3


class Recorder(lightning.LightningModule):
    """Remembers which samples it has seen."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen = []

    def training_step(self, batch, index):
        self.seen.append(batch.keys)
        return (self.weight * scaled(batch).images_BCHW.mean()).sum()

    def validation_step(self, batch, index):
        assert batch.truth_mask_B1HW is not None

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


QUIET = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")


def test_datamodule_resumes_in_lightning_within_and_at_the_end_of_an_epoch(tmp_path):
    folder = write_shards(tmp_path / "train", sizes=(5, 7, 6))
    validation = write_shards(tmp_path / "validation", sizes=(6,), truth=True)

    def run(steps, resume=None, workers=0):
        module = Recorder()
        data = PairsDataModule(config(folder, validation=str(validation), workers=workers), seed=3, max_steps=steps)
        trainer = lightning.Trainer(
            default_root_dir=tmp_path,
            accelerator="cpu",
            max_steps=steps,
            max_epochs=-1,
            val_check_interval=3,
            check_val_every_n_epoch=None,
            **dict.fromkeys(QUIET, False),
        )
        trainer.fit(module, data, ckpt_path=resume, weights_only=True)
        path = tmp_path / f"{steps}.ckpt"
        trainer.save_checkpoint(path)
        return module.seen, path

    expected, _ = run(10)
    assert len(expected) == 10 and len({k for batch in expected[:4] for k in batch}) == 16
    for steps in (1, 3, 4, 5, 8, 9):  # epochs have four steps, validations come after every third
        seen, path = run(steps)
        assert seen == expected[:steps]
        rest, _ = run(10, path, workers=1 if steps == 5 else 0)
        assert seen + rest == expected, steps


def test_datamodule_names_the_field(tmp_path):
    with pytest.raises(ValueError, match=r"^data.train: .*no such folder"):
        PairsDataModule(config(tmp_path / "none"), 0, 1).train_dataloader()
    folder = write_shards(tmp_path / "train")
    with pytest.raises(ValueError, match="^data.global_batch: one step takes 17 samples"):
        PairsDataModule(config(folder, global_batch=17), 0, 1).setup()
    data = config(folder, validation=str(tmp_path))
    with pytest.raises(ValueError, match=r"^data.validation: .*no shards"):
        PairsDataModule(data, 0, 1).setup()
    assert PairsDataModule(config(folder), 0, 1).val_dataloader() == []
