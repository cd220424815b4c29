"""Loader processes tokenise and leave pictures as bytes; the training process does nothing for each picture."""

import os

import pytest
import torch

from regionedit import losses
from regionedit.data.batches import move, packed, scaled, unpacked
from regionedit.data.datamodule import PairsDataModule
from regionedit.training import RegionTraining, train
from regionedit.training.tokens import Tokenizers

PATHS = {
    "composite": (),
    "latent": ("--step.gradient=latent",),
    "full": ("--step.gradient=full", "--step.proposal_mask=predicted"),
    "unguided": ("--generator.guidance_scale=1",),
}


@pytest.mark.parametrize("path", PATHS)
def test_a_step_with_token_ids_equals_one_with_texts_and_tokenises_nothing(tiny_train, path):
    config = tiny_train(*PATHS[path], "--data.workers=1")
    module = RegionTraining(config)
    data = PairsDataModule(config.data, config.seed, config.max_steps)
    plain = next(iter(data.train_dataloader()))
    expected, _ = module.loss(module.step(plain, 0), config.loss)
    data.tokenize = Tokenizers(module.frozen, captions=True)
    batch = next(iter(data.train_dataloader()))
    assert plain.tokens is None and batch.keys == plain.keys
    assert set(batch.tokens) == {"instruction_ids", "instruction_mask", "source_ids", "target_ids", "generator_ids"}
    for network in module.frozen:
        network.tokenizer = network.tokenize = None
    if path != "unguided":
        module.frozen.generator._empty_1L = data.tokenize._generator([""])
    found, _ = module.loss(module.step(batch, 0), config.loss)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_pictures_stay_bytes_until_they_are_scaled_on_their_device(tiny_train):
    config = tiny_train()
    batch = next(iter(PairsDataModule(config.data, config.seed, 1).train_dataloader()))
    moved = move(batch, "meta")
    assert batch.images_BCHW.dtype == moved.images_BCHW.dtype == torch.uint8 and moved.images_BCHW.is_meta
    on_device = scaled(moved)
    assert on_device.images_BCHW.dtype == torch.float32 and on_device.images_BCHW.is_meta
    assert torch.equal(scaled(batch).images_BCHW, batch.images_BCHW.float() / 255)
    assert torch.equal(scaled(scaled(batch)).images_BCHW, scaled(batch).images_BCHW)


def test_a_loader_sends_one_tensor():
    content = {
        "images": torch.arange(2 * 3 * 5 * 5, dtype=torch.uint8).view(2, 3, 5, 5).flip(3),
        "mask": torch.tensor([[True, False, True]]),
        "ids": torch.arange(-3, 4),
        "text": torch.linspace(0, 1, 6).view(2, 3),
        "empty": torch.zeros(0, 4),
        "keys": ["a", "b"],
    }
    sent = packed(content)
    assert sum(isinstance(value, torch.Tensor) for value in sent.values()) == 1 and sent["keys"] == ["a", "b"]
    received = unpacked(sent)
    for name, value in content.items():
        if name != "keys":
            assert received[name].dtype == value.dtype and torch.equal(received[name], value), name


def test_a_run_tokenises_in_its_loader_processes_and_cached_captions_not_at_all(tiny_train, monkeypatch, tmp_path):
    log, main, original = tmp_path / "log", os.getpid(), Tokenizers.__call__

    def logged(self, *texts):
        tokens = original(self, *texts)
        with log.open("a") as file:
            file.write(f"{os.getpid() == main} {sorted(tokens)}\n")
        return tokens

    monkeypatch.setattr(Tokenizers, "__call__", logged)
    seen = []
    total = losses.total
    monkeypatch.setattr(losses, "total", lambda *args: seen.append(os.getpid() == main) or total(*args))
    train(tiny_train("--data.workers=1", "--max_steps=2"))
    assert seen == [True, True]
    lines = log.read_text().splitlines()
    assert len(lines) >= 2 and all(line.startswith("False") for line in lines)
    frozen = RegionTraining(tiny_train()).frozen
    tokens = Tokenizers(frozen._replace(generator=None), captions=False)(["make it red"], ["a ring"], ["a red ring"])
    assert set(tokens) == {"instruction_ids", "instruction_mask"}
