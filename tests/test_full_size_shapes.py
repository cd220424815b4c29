"""A training step at the public models' sizes, on the meta device: checks every shape without weights or memory.

ViT-L/14 at 224 px, FLAN-T5-base, Stable Diffusion 1.5 in-painting at 512 px.
"""

import pytest
import torch
from safetensors.torch import load_file

from benchmarks import full_size_models
from regionedit import losses, masks
from regionedit.config import LossConfig, PredictorConfig, StableDiffusionConfig
from regionedit.records import StepOutputs
from regionedit.region_predictor import RegionPredictor
from tests.edits import decoded

B, N, M, D = 2, 256, 77, 768
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


def pictures(height=512, width=512):
    return torch.empty(B, 3, height, width, device="meta")


def predictor(variant):
    with torch.device("meta"):
        return RegionPredictor.from_config(PredictorConfig(variant=variant), D, 16)


def test_patches_are_projected_from_1024_to_768(clip):
    visual = clip.model.visual
    widths = []
    hook = visual.transformer.register_forward_hook(lambda _, inputs, __: widths.append(tuple(inputs[0].shape)))
    assert (clip.image_size, clip.grid, clip.dim) == (224, 16, D)
    assert tuple(visual.proj.shape) == (1024, D) and tuple(visual.ln_post.weight.shape) == (1024,)
    visual(clip.preprocess(pictures()))
    hook.remove()
    assert widths == [(B, N + 1, 1024)]
    seen = clip.encode_image(pictures(333, 777))
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


def test_one_training_step_has_the_right_shapes(clip, instruction_encoder):
    source, text_BD = clip.encode_image(pictures()), clip.encode_text(TEXTS)
    instruction_BMD, mask_BM = instruction_encoder.encode(TEXTS)
    assert instruction_BMD.shape == (B, M, D) and mask_BM.shape == (B, M)
    for learner in (predictor("default"), predictor("paper")):
        prediction = learner(source.patches_BND, instruction_BMD, mask_BM)
        assert prediction.fused_BND.shape == prediction.refined_BND.shape == (B, N, D)
        assert prediction.probability_BN.shape == (B, N)
        mask_B1HW = masks.upsample(prediction.probability_BN, clip.grid, (224, 224))
        composed_BCHW = masks.composite(pictures(224, 224), pictures(224, 224), mask_B1HW)
        assert composed_BCHW.shape == (B, 3, 224, 224)
        result = clip.encode_image(composed_BCHW)
        outputs = StepOutputs(
            probability_BN=prediction.probability_BN,
            projected_fused_BD=learner.project(prediction.fused_BND),
            projected_patches_BD=learner.project(source.patches_BND),
            source_BD=source.global_BD,
            result_BD=result.global_BD,
            source_patches_BND=source.patches_BND,
            result_patches_BND=result.patches_BND,
            source_text_BD=text_BD,
            target_text_BD=text_BD,
        )
        loss, terms = losses.total(outputs, LossConfig(total_variation=0.1))
        assert loss.shape == () and {value.shape for value in terms.values()} == {(B,)}
        loss.backward()
        assert all(parameter.grad.shape == parameter.shape for parameter in learner.parameters())
    assert all(parameter.grad is None for parameter in clip.parameters())


def test_the_generator_keeps_the_pictures_size(generator):
    seen = []
    hook = generator.unet.register_forward_pre_hook(
        lambda _, positional, named: seen.append((positional[0].shape, named["encoder_hidden_states"].shape)),
        with_kwargs=True,
    )
    made = generator.propose(pictures(300, 600), pictures(300, 600)[:, :1], TEXTS, [0, 1])
    hook.remove()
    assert made.shape == (B, 3, 300, 600)
    assert seen == [((2 * B, 9, 32, 64), (2 * B, 77, 768))]


def test_the_gradient_through_the_last_step_reaches_the_probability(generator):
    probability_BN = torch.empty(B, N, device="meta", requires_grad=True)
    mask_B1HW = masks.upsample(probability_BN, 16, (128, 128))
    made = decoded(generator, pictures(128, 128), mask_B1HW, TEXTS, [0, 1], "last_step")
    assert made.shape == (B, 3, 128, 128)
    made.sum().backward()
    assert probability_BN.grad.shape == (B, N)


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
