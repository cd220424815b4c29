"""The public models' classes on the meta device, without weights: what CLIP projects, the sizes of all networks."""

import pytest
import torch
from safetensors.torch import load_file

from benchmarks import full_size_models
from regionedit.config import PredictorConfig, StableDiffusionConfig
from regionedit.region_predictor import RegionPredictor

B, N, D = 2, 256, 768
MIB = 2**20
TEXTS = ["a dog on a sofa", "a cat on a sofa"]


@pytest.fixture(scope="module")
def encoders():
    return full_size_models.frozen_encoders()


@pytest.fixture(scope="module")
def clip(encoders):
    return encoders[0]


@pytest.fixture(scope="module")
def instruction_encoder(encoders):
    return encoders[1]


@pytest.fixture(scope="module")
def generator():
    config = StableDiffusionConfig(size=512, num_inference_steps=1, guidance_scale=7.5, dtype="float32")
    return full_size_models.inpaint_generator(config)


def test_patches_are_projected_from_1024_to_768(clip):
    visual = clip.model.visual
    widths = []
    hook = visual.transformer.register_forward_hook(lambda _, inputs, __: widths.append(tuple(inputs[0].shape)))
    assert (clip.image_size, clip.grid, clip.dim) == (224, 16, D)
    assert tuple(visual.proj.shape) == (1024, D) and tuple(visual.ln_post.weight.shape) == (1024,)
    visual(clip.preprocess(torch.empty(B, 3, 512, 512, device="meta")))
    hook.remove()
    assert widths == [(B, N + 1, 1024)]
    seen = clip.encode_image(torch.empty(B, 3, 333, 777, device="meta"))
    assert seen.global_BD.shape == (B, D) and seen.patches_BND.shape == (B, N, D)
    assert clip.encode_text(TEXTS).shape == (B, D)
    assert type(visual.transformer.resblocks[0].mlp.gelu).__name__ == "QuickGELU", "OpenAI's weights need it"


def test_parameter_counts_are_the_published_ones(clip, instruction_encoder, generator):
    def millions(module):
        return round(sum(parameter.numel() for parameter in module.parameters()) / 1e6, 1)

    assert millions(clip.model.visual) == 304.0
    assert millions(instruction_encoder.model) == 109.6
    assert millions(generator.modules["unet"]) == 859.5
    assert millions(generator.modules["vae"]) == 83.7
    assert millions(generator.modules["text_encoder"]) == 123.1


@pytest.mark.parametrize("variant", ["default", "paper"])
def test_a_checkpoint_is_small_and_holds_only_what_is_trained(tmp_path, variant):
    """Checks the exported folder, and the size of what resuming needs, including both of Adam's moments."""
    learner = RegionPredictor.from_config(PredictorConfig(variant=variant), D, 16)
    learner.export(tmp_path)
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 40 * MIB
    saved = load_file(tmp_path / "model.safetensors")
    assert {name: t.shape for name, t in saved.items()} == {n: p.shape for n, p in learner.named_parameters()}
    optimizer = torch.optim.AdamW(learner.parameters())
    for parameter in learner.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    moments = [t for state in optimizer.state.values() for t in state.values()]
    held = sum(t.numel() * t.element_size() for t in [*learner.state_dict().values(), *moments])
    assert held <= 120e6
