"""Cached features: they give the same losses as computing them in training; outdated or foreign ones are refused."""

import pytest
import torch

from data_prep.cache_features import FeaturesConfig, cache_features
from regionedit import generators
from regionedit.command_line import load_config
from regionedit.config import TrainConfig
from regionedit.data.datamodule import PairsDataModule
from regionedit.data.features import FILES
from regionedit.data.marks import write_marks
from regionedit.data.shards import ShardReader
from regionedit.dtypes import resolve_training
from regionedit.encoders import FrozenCLIP
from regionedit.training import RegionTraining, run
from tests import tiny_models
from tests.shards import picture, write_shards


@pytest.fixture
def settings(tmp_path, tiny_arguments):
    write_shards(tmp_path / "train", sizes=(5, 3))
    return [*tiny_arguments, f"--data.train={tmp_path / 'train'}", f"--data.features={tmp_path / 'features'}"]


def cached(settings, *changes: str) -> FeaturesConfig:
    return load_config(FeaturesConfig, overrides=[*settings, "--device=cpu", "--batch=3", *changes])


def training(settings, *changes: str) -> TrainConfig:
    return resolve_training(load_config(TrainConfig, overrides=[*settings, *changes]), "cpu")


def losses(config: TrainConfig) -> dict[str, float]:
    """Loss terms of the first training step."""
    torch.manual_seed(0)
    module = RegionTraining(config)
    batch = next(iter(PairsDataModule(config.data, 0, 1).train_dataloader()))
    loss, terms = module.loss(module.step(batch, epoch=0), config.loss)
    return {"loss": loss.item()} | {name: value.mean().item() for name, value in terms.items()}


def check(config: TrainConfig) -> None:
    """The check that a training run makes before it loads a model."""
    data = PairsDataModule(config.data, 0, 1)
    data.setup()
    run._check_features(config, data.train)


@pytest.mark.parametrize("step", [[], ["--generator.masked_image=latent"], ["--step.gradient=latent"]], ids=str)
def test_losses_with_cached_features_equal_those_without(settings, step, monkeypatch, capsys):
    assert cache_features(cached(settings, "--storage=float32")) == 4
    assert capsys.readouterr().out == "features on cpu: generator in float32, CLIP in float32\n"
    plain = losses(training(settings, "--data.features=null", *step))
    calls = {"text": 0, "encode": 0}

    def counted(name, method):
        def call(self, *arguments):
            calls[name] += 1
            return method(self, *arguments)

        return call

    monkeypatch.setattr(FrozenCLIP, "encode_text", counted("text", FrozenCLIP.encode_text))
    encode = generators.StableDiffusion._encode_signed
    monkeypatch.setattr(generators.StableDiffusion, "_encode_signed", counted("encode", encode))
    config = training(settings, *step)
    check(config)
    assert losses(config) == pytest.approx(plain, rel=1e-5, abs=1e-6)
    masked_in_pixels = "--generator.masked_image=latent" not in step
    assert calls == {"text": 0, "encode": int(masked_in_pixels)}


def test_half_precision_is_close_and_an_unreadable_sample_is_left_out(settings, tmp_path):
    spoiled = {"k000001": {"png": b"no"}, "k000006": {"txt": b"\xff"}}
    write_shards(tmp_path / "train", sizes=(5, 3), change=lambda key, parts: parts | spoiled.get(key, {}))
    settings.append("--data.max_bad_fraction=0.5")
    cache_features(cached(settings))
    plain = losses(training(settings, "--data.features=null"))
    assert losses(training(settings)) == pytest.approx(plain, rel=5e-3, abs=5e-3)
    keys = {key for batch in PairsDataModule(training(settings).data, 0, 1).train_dataloader() for key in batch.keys}
    assert keys and not keys & set(spoiled)


def test_text_features_alone_are_enough_for_stored_proposals(settings, tmp_path):
    assert cache_features(cached(settings, "--latents=false")) == 2
    assert sorted(p.name for p in (tmp_path / "features").iterdir()) == [
        FILES["text"].format(f"0000{n}") for n in (0, 1)
    ]
    check(training(settings))
    batch = next(iter(PairsDataModule(training(settings).data, 0, 1).train_dataloader()))
    assert batch.source_text_BD.shape == (4, tiny_models.WIDTH) and batch.latents_BChw is None


def test_text_features_are_made_without_reading_a_picture(settings, monkeypatch):
    stored = ShardReader.stored

    def no_picture(self, part, sample):
        return stored(self, "none" if part == "picture" else part, sample)

    monkeypatch.setattr(ShardReader, "stored", no_picture)
    assert cache_features(cached(settings, "--latents=false")) == 2
    with pytest.raises(KeyError, match="none"):
        cache_features(cached(settings))


def test_running_again_writes_only_what_changed(settings, tmp_path):
    config = cached(settings, "--part=1", "--parts=2")
    assert cache_features(config) == 2
    assert cache_features(cached(settings)) == 2
    assert cache_features(cached(settings)) == 0
    sidecar = tmp_path / "train" / "00000.instructions.jsonl"
    sidecar.write_text(sidecar.read_text().replace("changed 3", "another 3"))
    assert cache_features(cached(settings)) == 2
    assert cache_features(cached(settings, "--storage=float32")) == 4


REFUSED = {
    "--encoders.dtype=bfloat16": "encoders.dtype 'float32', this run has 'bfloat16'",
    "--generator.size=16": "generator.size 32, this run has 16",
    "--data.image_size=16": "data.image_size 32, this run has 16",
    "--generator.dtype=bfloat16": "generator.dtype 'float32', this run has 'bfloat16'",
    "--generator.revision=abc": "generator.path .*, this run has .*abc",
}


def test_features_that_do_not_fit_the_run_are_refused(settings, tmp_path, tiny_judge_dir):
    """Made with other settings, or with another CLIP of the same name; none, a damaged file, a missing file."""
    with pytest.raises(ValueError, match="^data.features: .* holds no text or latents"):
        check(training(settings))
    cache_features(cached(settings))
    another_clip = {f"--encoders.clip=local-dir:{tiny_judge_dir}": "encoders.clip local-dir"}
    for change, message in (REFUSED | another_clip).items():
        with pytest.raises(ValueError, match=f"^data.features: .* was made with {message}") as error:
            check(training(settings, change))
        assert "\n" not in str(error.value)
    path = tmp_path / "features" / "00001.latents.safetensors"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ValueError, match="00001.latents.safetensors cannot be read; delete it"):
        check(training(settings))
    path.unlink()
    with pytest.raises(ValueError, match="00001.latents.safetensors is missing"):
        check(training(settings))


def test_another_caption_or_picture_stops_training(settings, tmp_path):
    def other(key, parts):
        return parts | {"png": picture(7 + int(key[1:]))}

    cache_features(cached(settings))
    write_shards(tmp_path / "train", sizes=(5, 3), change=other)
    with pytest.raises(ValueError, match="latents.safetensors was made from another picture of k00"):
        losses(training(settings))
    for sidecar in (tmp_path / "train").glob("*.instructions.jsonl"):
        sidecar.write_text(sidecar.read_text().replace('"changed ', '"otherwise '))
    with pytest.raises(ValueError, match="text_features.safetensors was made from another pair of captions of k00"):
        losses(training(settings))


def test_samples_marked_later_do_not_matter_and_unmarked_ones_stop_training(settings, tmp_path):
    marks = tmp_path / "train" / "00000.marks.jsonl"
    cache_features(cached(settings))
    write_marks(marks, {}, "h", {"k000002": ["a"]})
    losses(training(settings))
    cache_features(cached(settings))
    marks.unlink()
    with pytest.raises(ValueError, match="does not hold k000002; run cache_features.py again"):
        for batch in PairsDataModule(training(settings).data, 0, 1).train_dataloader():
            assert batch.keys


def test_a_wrong_argument_is_named(settings):
    for change, message in (
        ("--data.features=null", "^data.features: not set"),
        ("--part=1", "^part: 1 of 1"),
        ("--generator.name=instruct_pix2pix", "^latents: generator 'instruct_pix2pix' cannot use them"),
    ):
        with pytest.raises(ValueError, match=message):
            cache_features(cached(settings, change))
