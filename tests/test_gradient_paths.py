"""The study of gradient paths to the mask: one small run, and each path computes what its name says."""

import gradient_paths
import known_edits
import pytest
import torch

from regionedit import masks
from regionedit.config import EncodersConfig, LossConfig, StableDiffusionConfig
from regionedit.encoders import load_encoders
from regionedit.generators import load_generator


@pytest.fixture
def generator(tiny_inpaint_dir):
    return load_generator(
        StableDiffusionConfig(path=str(tiny_inpaint_dir), size=64, num_inference_steps=2, masked_image="latent")
    )


@pytest.fixture
def known():
    return known_edits.known_edits("validation", 0, range(3), ("remove",))


def test_one_small_run(generator, known, tiny_clip_dir, tiny_t5_dir, monkeypatch):
    monkeypatch.setattr(gradient_paths, "SOFT", (0.5,))
    clip, _ = load_encoders(EncodersConfig(clip=f"local-dir:{tiny_clip_dir}", instruction=str(tiny_t5_dir)))
    found = gradient_paths.measure(clip, generator, known, LossConfig())
    assert len(found) == 7
    for row in found.values():
        for scores in row.values():
            assert -1 <= scores["cosine_of_seeds"] <= 1 and scores["size"] > 0 and 0 <= scores["iou_of_largest"] <= 1


def test_two_composites_differ_only_in_the_exact_or_decoded_source(generator, known):
    mask = torch.zeros_like(known.truth_B1HW)
    found = gradient_paths.paths(generator)
    assert torch.equal(found["composite, everything"](known, mask, [1, 2, 3]), known.source_BCHW)
    decoded = generator.decode(generator.source_latents(known.source_BCHW))
    assert torch.equal(found["composite, everything, decoded source"](known, mask, [1, 2, 3]), decoded)
    blend = found["latent blend, everything"](known, mask, [1, 2, 3])
    torch.testing.assert_close(blend, decoded, rtol=0, atol=1e-5)


def test_the_full_gradient_reaches_distant_pixels_and_the_composites_does_not(generator, known):
    """Derivative of distant pixels with respect to one mask cell: the composite depends on that cell only locally."""
    mask_BN = torch.full((3, 4), 0.5, requires_grad=True)
    mask_B1HW = masks.upsample(mask_BN, 2, (64, 64))
    found = gradient_paths.paths(generator)
    reach = {}
    for name in ("composite, everything", "full, the soft mask (the paper)"):
        lower_right = found[name](known, mask_B1HW, [1, 2, 3])[:, :, 40:, 40:].sum()
        (slope_BN,) = torch.autograd.grad(lower_right, mask_BN, retain_graph=True)
        reach[name] = slope_BN[:, 0].abs().max()
    assert reach["composite, everything"] == 0 < reach["full, the soft mask (the paper)"]
