"""The presets: they differ in named fields only, and each makes a step with tiny models of the same classes."""

from dataclasses import asdict

import pytest
import torch

from data_prep.search_regions import RegionsConfig, search_regions
from regionedit.command_line import load_config
from regionedit.config import TrainConfig
from regionedit.data.datamodule import PairsDataModule
from regionedit.data.features import region_settings
from regionedit.training import RegionTraining
from regionedit.training.run import _flat
from tests.pairs import SIZE
from tests.training_runs import PRESETS, tiny_preset

MAY_DIFFER = {
    "out", "generator.size", "generator.num_inference_steps", "generator.strength", "generator.decoder",
    "generator.decoder_revision",
    "generator.masked_image", "step.gradient", "step.proposal_mask", "memory.chunk", "memory.checkpoint",
    "generator.compile", "data.image_size", "data.features", "data.proposals",
}  # fmt: skip
OF_PAPER = {"predictor.variant", "predictor.heads", "loss.area", "loss.entropy"}
OF_SEARCH = {
    "max_steps", "initial_region", "data.train", "search.clusters", "search.boxes", "search.structure",
    "search.temperature", "search.commitment", "search.commitment_until", "search.generator.size",
    "search.generator.num_inference_steps", "search.generator.strength", "loss.region", "loss.beta", "loss.area",
    "loss.entropy", "loss.entropy_until", "optimizer.lr",
}  # fmt: skip
MORE = {"paper": OF_PAPER, "search": OF_SEARCH, "settle": OF_SEARCH}


def flat(name: str) -> dict:
    return _flat(asdict(load_config(TrainConfig, PRESETS[name])))


def test_presets_differ_in_named_fields_only():
    assert set(PRESETS) == {"paper", "paper256", "fast512", "max256", "exact512", "stored", "search", "settle"}
    first = flat("paper256")
    for name in PRESETS:
        differs = {field for field, value in flat(name).items() if value != first.get(field)}
        assert differs <= MAY_DIFFER | MORE.get(name, set()), name
        header = PRESETS[name].read_text().split("out:")[0]
        assert ("Beyond the paper: " in header) == (name != "paper"), f"{name} says how it differs from the paper"
    headers = {PRESETS[name].read_text().split("out:")[0] for name in PRESETS}
    assert len(headers) == len(PRESETS), "each says what it is for"


@pytest.mark.parametrize("models", ["sd15", "microworld"])
def test_the_second_training_continues_the_first_on_the_same_regions(models):
    first, second = (load_config(TrainConfig, f"configs/train_{models}_{name}.yaml") for name in ("search", "settle"))
    assert second.initial_region == f"{first.out}/region_predictor"
    assert region_settings(first) == region_settings(second) and first.data.features == second.data.features


def test_the_paper_to_the_letter_has_nothing_of_ours():
    paper, exact = flat("paper"), flat("exact512")
    assert {field for field, value in paper.items() if value != exact[field]} == OF_PAPER | {"out"}
    ours = [paper[f"loss.{name}"] for name in ("area", "entropy", "entropy_until", "total_variation")]
    assert (paper["predictor.variant"], ours) == ("paper", [0, 0, 0, 0])
    assert paper["step.estimator"] is None and paper["generator.decoder"] is None and paper["step.gradient"] == "full"
    generator = load_config(TrainConfig, PRESETS["paper"]).generator
    assert generator.masked_image == "latent"


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_makes_a_step(name, tiny_train, pairs, tiny_decoder_dir, tmp_path):
    """Everything as shipped but for models, sizes and folders; torch.compile is tested in test_memory.py."""
    preset = load_config(TrainConfig, PRESETS[name])
    proposals = pairs / "proposals" if preset.data.proposals else "null"
    features = tmp_path / "features" if preset.loss.region else "null"
    changes = [f"--data.train={pairs}", f"--data.proposals={proposals}", f"--data.features={features}"]
    changes += ["--data.global_batch=4", "--data.held_out=0.3", "--initial_region=null"]
    if preset.loss.region:
        changes += [f"--search.generator.size={SIZE}", "--search.generator.num_inference_steps=1"]
    config = tiny_preset(name, tiny_train(), tiny_decoder_dir, *changes)
    if preset.loss.region:
        search_regions(RegionsConfig(**vars(config), device="cpu"))
    module = RegionTraining(config)
    assert (module.frozen.generator is None) == (name in {"stored", "search", "settle"})
    if module.frozen.generator is not None:
        expected = "AutoencoderTiny" if preset.generator.decoder else "AutoencoderKL"
        assert type(module.frozen.generator.decoder).__name__ == expected
    data = PairsDataModule(config.data, config.seed, 1)
    batch, (held_out, *_) = next(iter(data.train_dataloader())), data.val_dataloader()
    assert held_out.keys and not {*held_out.keys} & {*map(data.train.key, range(len(data.train)))}
    loss, _ = module.loss(module.step(batch, 0), config.loss)
    loss.backward()
    assert all(p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in module.predictor.parameters())


def test_a_decoder_that_does_not_fit_is_refused(tiny_train, tiny_inpaint_dir, tmp_path):
    from tests.tiny_models import write_tiny_decoder

    with pytest.raises(ValueError, match="generator.decoder: no AutoencoderTiny"):
        RegionTraining(tiny_train("--generator.decoder=/nowhere"))
    other = write_tiny_decoder(tmp_path / "other", channels=16)
    with pytest.raises(ValueError, match="generator.decoder: .* 16 channels, those of .* have 4"):
        RegionTraining(tiny_train(f"--generator.decoder={other}"))


def test_the_tiny_decoder_decodes_the_librarys_way(tiny_train, tiny_decoder_dir):
    from diffusers import AutoencoderTiny

    module = RegionTraining(tiny_train(f"--generator.decoder={tiny_decoder_dir}"))
    latents_BChw = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = AutoencoderTiny.from_pretrained(tiny_decoder_dir).decode(latents_BChw).sample
    found = module.frozen.generator.decode(latents_BChw)
    assert found.shape == (2, 3, SIZE, SIZE)
    torch.testing.assert_close(found, (expected / 2 + 0.5).clamp(0, 1))
