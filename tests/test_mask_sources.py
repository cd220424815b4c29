"""One contract over MASK_SOURCES: B1HW in [0, 1], 1 = edit, at the picture's own size."""

import pytest
import torch
from PIL import Image

from regionedit.config import EncodersConfig, RegionConfig, VlmBoxConfig
from regionedit.encoders import ImageFeatures, load_encoders
from regionedit.generators import GENERATORS, TextComparer, noise_seed
from regionedit.mask_sources import MASK_SOURCES, require_mask_source, with_untrained
from regionedit.mask_sources.base import region_from_patches
from regionedit.mask_sources.box_search import BoxSearch, boxes
from regionedit.mask_sources.clip_similarity import similarity
from regionedit.mask_sources.finder import finish
from regionedit.records import Captions, EditRequest
from regionedit.region_predictor import RegionPredictor
from tests import tiny_models
from tests.chat_servers import serving
from tests.segmenters import must_not_load

COMPARERS = [name for name, kind in GENERATORS.items() if issubclass(kind, TextComparer)]
"""Generators that every source can be used with."""

CASES = [(n, g) for n, kind in MASK_SOURCES.items() for g in (COMPARERS if kind.uses_generator else COMPARERS[:1])]


@pytest.fixture(scope="module")
def encoders(tiny_clip_dir, tiny_t5_dir):
    made = load_encoders(EncodersConfig(clip=f"local-dir:{tiny_clip_dir}", instruction=str(tiny_t5_dir)))
    return lambda: made


@pytest.fixture(scope="module")
def generators(tiny_generator):
    follower = tiny_generator("instruct_pix2pix", attention_resolution=4)  # it has no attention at another resolution
    return {"stable_diffusion": tiny_generator("stable_diffusion"), "instruct_pix2pix": follower}


@pytest.fixture(scope="module")
def boxes_endpoint():
    with serving(lambda body, before: '[{"bbox_2d": [100, 100, 600, 700]}]') as server:
        yield VlmBoxConfig(endpoint=server.url, endpoint_model="m", cache=None)


@pytest.fixture
def source(encoders, generators, tiny_region_dir, tiny_sam_dir, boxes_endpoint):
    attention = generators["instruct_pix2pix"].config
    models = {"checkpoint": str(tiny_region_dir), "sam": str(tiny_sam_dir), "attention": attention}
    models["vlm_box"] = boxes_endpoint

    def load(name, generator="stable_diffusion"):
        return require_mask_source(name).load(RegionConfig(**models), encoders, lambda: generators[generator])

    return load


def requests(width: int, height: int, count: int = 2, instructions="make the circle blue") -> list[EditRequest]:
    mask = Image.new("L", (width, height))
    mask.paste(255, (0, 0, max(1, width // 2), max(1, height // 2)))
    picture = Image.new("RGB", (width, height), "red")
    return [EditRequest(picture, instructions, mask=mask, id=str(i)) for i in range(count)]


def pictures(width: int, height: int, count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


CAPTIONS = [Captions("a red circle", "a blue circle"), Captions("a green square on gray", "a square")]


@pytest.mark.parametrize("size", [(51, 38), (1, 1), (7, 90)])
@pytest.mark.parametrize(("name", "generator"), CASES)
def test_contract(name, generator, size, source):
    """Size, range and device of the maps; the batch changes nothing."""
    images_BCHW, batch, loaded = pictures(*size), requests(*size), source(name, generator)
    region = loaded.find(images_BCHW, batch, CAPTIONS)
    for map_B1HW in (region.mask_B1HW, region.probability_B1HW):
        assert map_B1HW.shape == (2, 1, size[1], size[0])
        assert map_B1HW.dtype == torch.float32 and map_B1HW.device.type == "cpu" and not map_B1HW.requires_grad
        assert torch.isfinite(map_B1HW).all() and map_B1HW.min() >= 0 and map_B1HW.max() <= 1
    if region.patches_BN is not None:
        assert region.patches_BN.shape == (2, tiny_models.GRID**2)
    alone = loaded.find(images_BCHW[1:], batch[1:], CAPTIONS[1:])
    assert torch.allclose(alone.probability_B1HW[0], region.probability_B1HW[1], atol=1e-5)


def test_several_instructions_join_their_regions(source):
    texts = ("make the circle blue", "remove the square")
    images_BCHW = pictures(24, 24, 2)
    batch = [EditRequest(Image.new("RGB", (24, 24)), texts), EditRequest(Image.new("RGB", (24, 24)), texts[0])]
    region = source("learned").find(images_BCHW, batch, [None, None])
    parts_BKHW = region.per_instruction_BKHW
    assert parts_BKHW.shape == (2, 2, 24, 24)
    assert torch.equal(parts_BKHW.amax(1, keepdim=True), region.mask_B1HW) and ((parts_BKHW > 0).sum(1) <= 1).all()
    alone = [
        source("learned").find(images_BCHW[:1], [EditRequest(Image.new("RGB", (24, 24)), text)], [None])
        for text in texts
    ]
    joined = torch.maximum(*(region.patches_BN for region in alone))
    assert torch.allclose(region.patches_BN[:1], joined, atol=1e-5)
    assert not parts_BKHW[1, 1].any() and set(parts_BKHW.unique().tolist()) <= {0.0, 1.0}


def test_threshold_dilation_and_feather():
    patches_BN = torch.zeros(1, 16)
    patches_BN[0, 5] = 0.9
    at = {"grid": 4, "size": (32, 32)}

    def masked(**config):
        config = RegionConfig(upsample="nearest", **config)
        return finish(region_from_patches(patches_BN, **at, config=config), config).mask_B1HW

    assert masked().sum() == 64 and masked(threshold=0.95).sum() == 0
    assert masked(dilate=1).sum() == 9 * 64
    assert masked(dilate=0.25).sum() == 12 * 12  # patches of 8 pixels grow by 2 on every side
    wide = region_from_patches(patches_BN, 4, (16, 32), RegionConfig(upsample="nearest", dilate=0.5))
    assert wide.mask_B1HW.sum() == (4 + 2 * 2) * (8 + 2 * 4)
    soft = masked(feather=3.0)
    assert soft.max() == 1 and soft.sum() < 64 and ((soft > 0) == (masked() > 0)).all()


def test_similarity_is_stretched_to_zero_and_one_in_each_picture():
    values = similarity(torch.randn(3, 16, 8), torch.randn(3, 8))
    assert torch.allclose(values.amin(1), torch.zeros(3)) and torch.allclose(values.amax(1), torch.ones(3))
    assert not similarity(torch.ones(1, 16, 8), torch.ones(1, 8)).any()


def test_texts_that_say_the_same_differ_nowhere(source):
    same = [Captions("a red circle", "a red circle")] * 2
    assert not source("difference").find(pictures(32, 32), requests(32, 32), same).probability_B1HW.any()
    changed = source("difference").find(pictures(32, 32), requests(32, 32), CAPTIONS).probability_B1HW
    assert changed.max() > 0.3 and changed.std() > 0


def test_difference_needs_a_generator_that_compares_texts():
    with pytest.raises(ValueError, match="mask_source: 'difference' .* object cannot.*stable_diffusion"):
        require_mask_source("difference").load(RegionConfig(), must_not_load, object)


class RedPainter:
    """Paints everything red, whatever the text says."""

    def texts_of(self, requests, captions):
        return [caption.target for caption in captions]

    def propose(self, images_BCHW, mask_B1HW, texts, seeds):
        return torch.zeros_like(images_BCHW).index_fill(1, torch.tensor(0), 1.0)


class RedLover:
    """A CLIP whose first coordinate is the redness of one corner, whose second is that of all other places."""

    image_rounding = text_rounding = 0.0

    def encode_image(self, images_BCHW):
        red_BHW = images_BCHW[:, 0] - images_BCHW[:, 1]
        corner_B = red_BHW[:, :16, :16].sum((1, 2))
        global_BD = torch.stack([corner_B, red_BHW.sum((1, 2)) - corner_B, torch.full_like(corner_B, 0.1)], 1)
        return ImageFeatures(global_BD, global_BD[:, None])

    def encode_text(self, texts):
        return torch.tensor([[0.0, 0.0, 1.0] if text == "nothing" else [1.0, 0.0, 0.0] for text in texts])


def test_the_best_box_is_where_clip_likes_the_proposal():
    found = BoxSearch(RedLover(), RedPainter()).find(
        torch.zeros(1, 3, 64, 64), requests(64, 64, 1), [Captions("nothing", "a red corner")]
    )
    assert found.mask_B1HW[0, 0, :16, :16].all() and found.mask_B1HW.sum() == 16 * 16


def test_boxes_stand_at_every_eighth_and_are_never_empty():
    assert len(boxes((64, 64))) == 49 + 36 + 25
    assert {float(box.sum()) for box in boxes((64, 64))} == {16.0**2, 24.0**2, 32.0**2}
    assert (boxes((1, 3)).flatten(1).sum(1) > 0).all()


def test_a_generator_that_follows_instructions_is_asked_with_and_without_it(source, generators):
    """No captions are read; between a text and itself nothing differs."""
    images_BCHW, none = pictures(32, 32), [None, None]
    found = source("difference", "instruct_pix2pix").find(images_BCHW, requests(32, 32), none).probability_B1HW
    assert found.max() > 0.3 and found.std() > 0
    assert not generators["instruct_pix2pix"].compare_texts(images_BCHW, ["x", ""], ["x", ""], [0, 1]).any()


def test_the_generators_opinion_is_the_mean_difference_of_its_predictions(generators):
    """By hand: at half of the schedule, eight noises of the sample's own, clipped at three times the picture's mean."""
    generator = generators["instruct_pix2pix"]
    pipeline, image_BCHW = generator.pipeline, pictures(32, 32, 1)
    latent = pipeline.vae.encode(image_BCHW * 2 - 1).latent_dist.mode()
    alpha = pipeline.scheduler.alphas_cumprod[500]
    ids = pipeline.tokenizer(["", "add a star"], padding="max_length", return_tensors="pt").input_ids
    context = pipeline.text_encoder(ids)[0]
    differences = 0
    for draw in range(8):
        noise = torch.randn(latent.shape[1:], generator=torch.Generator().manual_seed(noise_seed(5, draw)))
        unet_input = alpha.sqrt() * latent * pipeline.vae.config.scaling_factor + (1 - alpha).sqrt() * noise
        unet_input = torch.cat([unet_input, latent], 1)
        one, other = (pipeline.unet(unet_input, 500, encoder_hidden_states=c[None]).sample for c in context)
        differences = differences + (one - other).abs().mean(1)
    expected = (differences / (3 * differences.mean())).clamp(max=1)
    found = generator.compare_texts(image_BCHW, [""], ["add a star"], [5])
    expected = torch.nn.functional.interpolate(expected[None], (32, 32), mode="bilinear")
    assert torch.allclose(found, expected, atol=1e-4)


def test_another_source_stands_in_while_nothing_is_trained():
    region = RegionConfig(checkpoint=None, untrained="ip2p_attention + sam")
    said = "no predictor is trained for these models (region.checkpoint): ip2p_attention + sam finds the region"
    assert with_untrained("learned", region) == ("ip2p_attention + sam", said)
    assert with_untrained("drawn & learned", region) == ("drawn & (ip2p_attention + sam)", said)
    for text, other in (
        ("drawn", region),
        ("learned", RegionConfig(checkpoint="x", untrained="sam")),
        ("learned", RegionConfig(checkpoint=None)),
    ):
        assert with_untrained(text, other) == (text, "")


def test_no_checkpoint_an_empty_folder_and_one_of_another_clip_are_refused(tmp_path, encoders):
    with pytest.raises(ValueError, match="region.checkpoint.*drawn.*clip_similarity.*train.py"):
        require_mask_source("learned").load(RegionConfig(checkpoint=None), must_not_load, must_not_load)
    here = RegionConfig(checkpoint=str(tmp_path))
    with pytest.raises(ValueError, match=f"region.checkpoint.*{tmp_path}") as caught:
        require_mask_source("learned").load(here, encoders, must_not_load)
    assert "\n" not in str(caught.value)
    RegionPredictor(dim=tiny_models.WIDTH, grid=5).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="region.checkpoint.*5x5.*4x4"):
        require_mask_source("learned").load(here, encoders, must_not_load)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, "needs a drawn mask"),
        ({"mask": Image.new("L", (5, 5))}, "mask: 5x5"),
        ({"box": (4, 4, 4, 8)}, "no area"),
        ({"box": (50, 0, 60, 5)}, "outside"),
        ({"box": (0, 0, 5, 5), "mask": Image.new("L", (10, 10))}, "one of them"),
    ],
)
def test_drawn_refuses(changes, says, source):
    with pytest.raises(ValueError, match=says):
        request = EditRequest(Image.new("RGB", (10, 10)), "x", **changes)
        source("drawn").find(torch.zeros(1, 3, 10, 10), [request], [None])


def test_a_box_is_cut_to_the_picture(source):
    request = EditRequest(Image.new("RGB", (10, 8)), "x", box=(6, -3, 99, 2))
    mask_B1HW = source("drawn").find(torch.zeros(1, 3, 8, 10), [request], [None]).mask_B1HW
    assert mask_B1HW.sum() == 8 and mask_B1HW[0, 0, :2, 6:].all()
