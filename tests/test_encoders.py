"""Frozen encoders: features against a computation by hand, frozen weights, and errors in loading."""

import shutil

import open_clip
import pytest
import torch
from transformers import AutoTokenizer, T5EncoderModel

from regionedit.config import EncodersConfig
from regionedit.encoders import FrozenCLIP, FrozenInstructionEncoder, load_encoders
from tests import tiny_models


@pytest.fixture(scope="module")
def clip(tiny_clip_dir):
    return FrozenCLIP.load(f"local-dir:{tiny_clip_dir}")


@pytest.fixture(scope="module")
def t5(tiny_t5_dir):
    return FrozenInstructionEncoder.load(str(tiny_t5_dir))


@pytest.fixture
def pictures():
    return torch.rand(3, 3, tiny_models.IMAGE_SIZE, tiny_models.IMAGE_SIZE, generator=torch.Generator().manual_seed(0))


def test_image_features_by_hand(clip, pictures):
    """Every step of the ViT written out: patches pass through the same ln_post and projection as the class token."""
    visual = clip.model.visual
    mean, deviation = (torch.tensor(v)[:, None, None] for v in ([0.48, 0.46, 0.41], [0.27, 0.26, 0.28]))
    pixels = (pictures - mean) / deviation
    tokens = visual.conv1(pixels).flatten(2).transpose(1, 2)
    tokens = torch.cat([visual.class_embedding.expand(3, 1, -1), tokens], 1) + visual.positional_embedding
    tokens = visual.transformer(visual.ln_pre(tokens))
    projected = visual.ln_post(tokens) @ visual.proj
    seen = clip.encode_image(pictures)
    assert torch.allclose(seen.global_BD, projected[:, 0], atol=1e-5)
    assert torch.allclose(seen.patches_BND, projected[:, 1:], atol=1e-5)
    assert tokens.shape[-1] == 2 * clip.dim and seen.patches_BND.shape == (3, clip.grid**2, clip.dim)


def test_features_of_texts_are_open_clips_own(clip, tiny_clip_dir):
    name = f"local-dir:{tiny_clip_dir}"
    model = open_clip.create_model(name)
    model.eval()
    texts = ["a red circle", "a blue square on a plain gray background"]
    with torch.no_grad():
        expected = model.encode_text(open_clip.get_tokenizer(name)(texts))
        assert torch.allclose(clip.encode_text(texts), expected, atol=1e-6)


def test_a_gradient_reaches_the_pictures_but_no_weight(clip, pictures):
    pictures = torch.nn.functional.interpolate(pictures, (50, 41)).requires_grad_()
    seen = clip.encode_image(pictures)
    (seen.global_BD.sum() + seen.patches_BND.square().sum()).backward()
    assert torch.isfinite(pictures.grad).all() and pictures.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in clip.parameters())


def test_preprocessing_stretches_and_stays_in_range(clip):
    black_and_white = torch.zeros(1, 3, 100, 37)
    black_and_white[..., 50:, :] = 1
    pixels = clip.preprocess(black_and_white) * clip.std_C11 + clip.mean_C11
    assert pixels.shape[-2:] == (clip.image_size,) * 2
    assert pixels.min() > -1e-6 and pixels.max() < 1 + 1e-6
    half = clip.image_size // 2
    assert torch.allclose(pixels[..., : half - 2, :], torch.zeros(()), atol=0.05)
    assert torch.allclose(pixels[..., half + 2 :, :], torch.ones(()), atol=0.05)


@pytest.mark.parametrize("which", ["clip", "t5"])
def test_encoders_stay_frozen(which, request):
    encoder = request.getfixturevalue(which)
    encoder.train()
    assert not encoder.training and not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_instruction_features_are_t5s_own(t5, tiny_t5_dir):
    text = "change the red circle to a blue square"
    tokens = AutoTokenizer.from_pretrained(tiny_t5_dir)(text, return_tensors="pt")
    model = T5EncoderModel.from_pretrained(tiny_t5_dir).eval()
    features, mask = t5.encode([text])
    with torch.no_grad():
        assert torch.allclose(features, model(**tokens).last_hidden_state, atol=1e-6)
    assert mask.dtype == torch.bool and mask.all() and features.shape[-1] == t5.dim


def test_padding_changes_no_instruction(t5):
    short, long = "remove the star", "change the large red circle on the right to a small blue square"
    features, mask = t5.encode([short, long])
    alone, alone_mask = t5.encode([short])
    tokens = alone_mask.sum()
    assert mask[0].sum() == tokens < mask.shape[1]
    assert torch.allclose(features[0, :tokens], alone[0], atol=1e-6)


def test_long_texts_are_cut_and_an_instruction_with_a_warning(clip, tiny_t5_dir):
    assert clip.encode_text(["red " * 1000]).shape == (1, clip.dim)
    encoder = FrozenInstructionEncoder.load(str(tiny_t5_dir), max_tokens=6)
    with pytest.warns(UserWarning, match=r"21 tokens cut to 6 \(encoders.max_instruction_tokens\)"):
        features, mask = encoder.encode(["red " * 20, "remove the star"])
    assert features.shape[1] == 6 and mask.sum(1).tolist() == [6, 4]


def test_bfloat16_weights_give_float32_features_nearby(clip, t5, tiny_clip_dir, tiny_t5_dir, pictures):
    config = EncodersConfig(
        clip=f"local-dir:{tiny_clip_dir}", instruction=str(tiny_t5_dir), dtype="bfloat16", max_instruction_tokens=9
    )
    half_clip, half_t5 = load_encoders(config)
    assert half_clip.model.visual.conv1.weight.dtype == torch.bfloat16
    pairs = [
        (half_clip.encode_image(pictures).patches_BND, clip.encode_image(pictures).patches_BND),
        (half_clip.encode_text(["a red star"]), clip.encode_text(["a red star"])),
        (half_t5.encode(["remove the star"])[0], t5.encode(["remove the star"])[0]),
    ]
    for half, full in pairs:
        assert half.dtype == torch.float32
        assert torch.cosine_similarity(half.flatten(1), full.flatten(1)).min() > 0.99


def test_texts_can_have_a_precision_of_their_own(clip, t5, tiny_clip_dir, tiny_t5_dir, pictures, monkeypatch):
    names = {"clip": f"local-dir:{tiny_clip_dir}", "instruction": str(tiny_t5_dir)}
    narrow_clip, narrow_t5 = load_encoders(EncodersConfig(**names, dtype="float32", text_dtype="bfloat16"))
    assert torch.equal(narrow_clip.encode_image(pictures).global_BD, clip.encode_image(pictures).global_BD)
    assert (narrow_clip.image_rounding, narrow_clip.text_rounding) == (2.0**-24, 2.0**-8)
    texts = ["a red square", "a blue ring on a table"]
    found_BD, exact_BD = narrow_clip.encode_text(texts), clip.encode_text(texts)
    assert found_BD.dtype == torch.float32 and not torch.equal(found_BD, exact_BD)
    assert ((found_BD - exact_BD).norm(dim=1) < 0.01 * exact_BD.norm(dim=1)).all()
    assert narrow_t5.model.dtype == torch.bfloat16 and narrow_t5.encode(texts)[0].dtype == torch.float32
    wide_clip, wide_t5 = load_encoders(EncodersConfig(**names, dtype="bfloat16", text_dtype="float32"))
    assert (wide_clip.image_rounding, wide_clip.text_rounding) == (2.0**-8, 2.0**-24)
    torch.testing.assert_close(wide_clip.encode_text(texts), exact_BD, rtol=1e-4, atol=1e-5)
    assert wide_t5.model.dtype == torch.float32
    assert wide_clip.to(torch.bfloat16).text_rounding == 2.0**-8, "it follows the weights"
    with monkeypatch.context() as patch:  # every step asks for it
        patch.setattr(wide_clip.model, "named_parameters", None)
        assert wide_clip.image_rounding == wide_clip.text_rounding == 2.0**-8


def test_compiling_reaches_every_layer_of_the_image_tower(tiny_clip_dir, tiny_t5_dir, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module, **how: compiled.append((module, how)))
    names = {"clip": f"local-dir:{tiny_clip_dir}", "instruction": str(tiny_t5_dir)}
    clip, _ = load_encoders(EncodersConfig(**names, compile=True))
    assert [module for module, _ in compiled] == list(clip.model.visual.transformer.resblocks)
    assert all(how == {"dynamic": False} for _, how in compiled)
    compiled.clear()
    load_encoders(EncodersConfig(**names))
    assert not compiled


def test_autocast_does_not_lower_the_configured_precision(clip, pictures):
    with torch.autocast("cpu", torch.bfloat16):
        inside = clip.encode_image(pictures).patches_BND
    assert torch.equal(inside, clip.encode_image(pictures).patches_BND)


def test_missing_models_and_a_clip_without_weights_give_one_clear_line(tmp_path, tiny_clip_dir):
    shutil.copy(tiny_clip_dir / "open_clip_config.json", tmp_path)
    for name in (f"local-dir:{tmp_path}/nowhere", f"local-dir:{tmp_path}", "ViT-Z-99"):
        with pytest.raises(ValueError, match=f"^encoders.clip: cannot load '{name}'"):
            FrozenCLIP.load(name)
    for folder in (tmp_path / "nowhere", tiny_clip_dir):
        with pytest.raises(ValueError, match="^encoders.instruction: cannot load a T5 from"):
            FrozenInstructionEncoder.load(str(folder))


def test_another_model_in_place_of_the_t5_is_refused(tiny_dino_dir, tiny_t5_dir, tmp_path):
    for folder in (tiny_dino_dir, tiny_t5_dir):
        for file in folder.iterdir():
            if not (folder == tiny_t5_dir and file.name == "model.safetensors"):
                (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ValueError, match="encoders.instruction: .* holds no T5 encoder"):
        FrozenInstructionEncoder.load(str(tmp_path))


def test_widths_must_agree(tmp_path, tiny_clip_dir):
    wide = tiny_models.write_t5(tmp_path / "wide", width=48)
    with pytest.raises(ValueError, match="48 wide.*32 wide after projection"):
        load_encoders(EncodersConfig(clip=f"local-dir:{tiny_clip_dir}", instruction=str(wide)))


def test_patches_are_row_by_row(clip, pictures):
    """A change of the patch at row 1, column 2 changes feature 1 * grid + 2 the most."""
    patch = tiny_models.PATCH
    changed = pictures.clone()
    changed[:, :, patch : 2 * patch, 2 * patch : 3 * patch] = 0
    moved = (clip.encode_image(changed).patches_BND - clip.encode_image(pictures).patches_BND).norm(dim=-1)
    assert (moved.argmax(1) == clip.grid + 2).all()
