"""The metrics' frozen networks: preprocessing, the cache of embeddings, and errors for wrong names."""

from urllib.error import URLError

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision.models import SqueezeNet1_1_Weights

from regionedit.evaluation.backbones import load_backbone
from regionedit.evaluation.embedders import Remembered
from regionedit.images import to_tensor
from tests import metric_models
from tests.stored_pictures import noise

IMAGENET = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
OPENAI = np.array([0.48145466, 0.4578275, 0.40821073]), np.array([0.26862954, 0.26130258, 0.27577711])


def to_input(picture: Image.Image, mean, std) -> torch.Tensor:
    """A picture as the network's normalised input, [1, 3, H, W], by plain arithmetic."""
    values = (np.asarray(picture, np.float64) / 255 - np.asarray(mean)) / np.asarray(std)
    return torch.from_numpy(values.transpose(2, 0, 1)[None]).float()


@pytest.fixture(scope="module")
def judge(tiny_judge_dir):
    return load_backbone("judge", f"local-dir:{tiny_judge_dir}")


@pytest.fixture(scope="module")
def dino_224(tmp_path_factory):
    return load_backbone("dino", str(metric_models.write_dino_224(tmp_path_factory.mktemp("dino224"))))


@pytest.fixture
def dinov2(tmp_path):
    return load_backbone("dinov2", str(metric_models.write_dinov2(tmp_path)))


@pytest.fixture(scope="module")
def pick_score(tmp_path_factory):
    made = metric_models.write_pick_score(tmp_path_factory.mktemp("pick"), tmp_path_factory.mktemp("processor"))
    return load_backbone("pick_score", made)


@pytest.fixture
def lpips(monkeypatch):
    monkeypatch.setattr("torchmetrics.functional.image.lpips._get_tv_model_features", metric_models.random_features)
    load_backbone.cache_clear()
    yield load_backbone("lpips", "squeeze")
    load_backbone.cache_clear()


def features(backbone, pixels: torch.Tensor) -> torch.Tensor:
    """What the network itself makes of its normalised input."""
    with torch.no_grad():
        if hasattr(backbone, "clip"):
            return backbone.clip.model.encode_image(pixels)
        return backbone.model(pixels).last_hidden_state[:, 0]


@pytest.mark.parametrize(
    ("network", "size", "resized", "crop", "colours"),
    [
        ("judge", (90, 60), (48, 32), (8, 0, 40, 32), ([0.48, 0.46, 0.41], [0.27, 0.26, 0.28])),
        ("dino_224", (300, 200), (384, 256), (80, 16, 304, 240), IMAGENET),
        ("dinov2", (96, 64), (48, 32), (10, 2, 38, 30), OPENAI),
    ],
)
def test_pictures_are_scaled_by_pils_bicubic_filter_cropped_and_normalised(
    request, network, size, resized, crop, colours
):
    backbone, picture = request.getfixturevalue(network), noise(*size)
    expected = features(backbone, to_input(picture.resize(resized, Image.Resampling.BICUBIC).crop(crop), *colours))
    assert backbone.pictures([picture]) == pytest.approx(expected, abs=1e-4)


def test_a_vit_of_another_size_keeps_its_own_processor(tiny_dino_dir):
    """Its preprocessor_config.json resizes directly to the square (PIL, bilinear), with mean and std 0.5."""
    dino, picture = load_backbone("dino", str(tiny_dino_dir)), noise(90, 60)
    expected = features(dino, to_input(picture.resize((32, 32), Image.Resampling.BILINEAR), [0.5] * 3, [0.5] * 3))
    assert dino.pictures([picture]) == pytest.approx(expected, abs=1e-4)


@pytest.mark.microworld
def test_the_shipped_clip_and_dino_do_not_resize_microworld_pictures():
    judge = load_backbone("judge", "local-dir:checkpoints/microworld/judge")
    dino = load_backbone("dino", "checkpoints/microworld/dino")
    picture = noise(64, 64)
    with torch.no_grad():
        embedding = judge.clip.encode_image(to_tensor([picture])).global_BD
    assert judge.pictures([picture]) == pytest.approx(embedding, abs=1e-5)
    token = features(dino, to_input(picture, [0.5] * 3, [0.25] * 3))
    assert dino.pictures([picture]) == pytest.approx(token, abs=1e-5)


def test_a_batch_of_one_equals_a_batch_of_many_and_equal_pictures_are_bit_equal(judge):
    many = [noise(40 + i, 40, i) for i in range(40)]
    judge.pictures.known.clear()
    together = judge.pictures([*many, many[3].copy()])
    assert torch.equal(together[3], together[-1])
    judge.pictures.known.clear()
    alone = torch.cat([judge.pictures([picture]) for picture in many])
    assert alone == pytest.approx(together[:-1], abs=1e-5)


def test_known_items_are_not_embedded_again_and_batches_are_bounded():
    asked = []
    remembered = Remembered(lambda items: asked.append(len(items)) or torch.tensor(items)[:, None].float(), int)
    numbers = list(range(70))
    assert remembered(numbers + [3]).flatten().tolist() == [*numbers, 3]
    assert asked == [32, 32, 6]
    assert remembered([69, 0, 70]).flatten().tolist() == [69, 0, 70]
    assert asked[3:] == [1]


def test_only_the_latest_embeddings_are_kept():
    remembered = Remembered(lambda items: torch.tensor(items)[:, None].float(), int, kept=4)
    assert remembered(range(10)).flatten().tolist() == list(range(10))
    assert remembered([6]).tolist() == [[6]]
    assert remembered([10, 6, 9]).tolist() == [[10], [6], [9]]
    assert list(remembered.known) == [8, 6, 9, 10]
    assert remembered([8, 6, 9, 10, 7]).tolist() == [[8], [6], [9], [10], [7]]
    assert len(remembered.known) == len(remembered.table) == 4


def test_a_caption_over_the_context_is_cut_counted_and_warned_of_once(judge):
    judge.texts.known.clear()
    judge.cut.clear()
    fits, longer = "red " * 30, "red " * 31  # with start and end 32 and 33 tokens
    with pytest.warns(UserWarning, match="more than 32 tokens.*red red") as warned:
        rows = judge.texts([fits, longer, "blue " * 60, "a circle"])
    assert len(warned) == 1
    assert judge.cut == {longer, "blue " * 60}
    assert rows[1] == pytest.approx(rows[0], abs=1e-5)


def test_pick_score_is_clips_own_logit(pick_score):
    pictures, prompts = [noise(50, 40, 1), noise(40, 40, 2)], ["a red circle", "a blue square and a star"]
    found = pick_score.scores(pictures, prompts)
    cut = [pictures[0].resize((40, 32), Image.Resampling.BICUBIC).crop((4, 0, 36, 32))]
    cut.append(pictures[1].resize((32, 32), Image.Resampling.BICUBIC))
    tokens = pick_score.tokenizer(prompts, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = pick_score.model(
            pixel_values=torch.cat([to_input(c, *OPENAI) for c in cut]),
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
        ).logits_per_image
    assert found == pytest.approx(logits.diagonal(), abs=1e-3)


def test_pick_score_cuts_long_prompts(pick_score):
    with pytest.warns(UserWarning, match="more than 32 tokens"):
        assert pick_score.scores([noise(32, 32)], ["red " * 50]).isfinite().all()
    assert len(pick_score.cut) == 1


def test_structure_is_the_difference_of_key_similarities(dino_224, tmp_path):
    folder = metric_models.write_dino_224(tmp_path)
    structure = load_backbone("structure", str(folder))
    a, b = noise(300, 400, 1), noise(300, 400, 2)

    def similarity(picture: Image.Image) -> np.ndarray:
        pixels = torch.from_numpy(np.array(picture, np.float32).transpose(2, 0, 1))[None]
        small = F.interpolate(pixels, (298, 224), mode="bilinear")[0].numpy()  # 0 to 255, not antialiased
        mean, std = (np.array(values)[:, None, None] for values in IMAGENET)
        seen = torch.from_numpy((small - mean) / std)[None].float()
        with torch.no_grad():
            found = structure.model(seen, output_hidden_states=True, interpolate_pos_encoding=True)
            last = structure.model.layers[-1]
            keys = last.attention.k_proj(last.layernorm_before(found.hidden_states[-2]))[0].double().numpy()
        lengths = np.sqrt((keys**2).sum(1))
        return keys @ keys.T / np.outer(lengths, lengths)

    expected = ((similarity(a) - similarity(b)) ** 2).mean()
    found = structure.distance(to_tensor([a])[0], to_tensor([b])[0])
    assert expected > 1e-6
    assert found == pytest.approx(expected, rel=1e-3)
    assert structure.distance(to_tensor([a])[0], to_tensor([a])[0]) == 0


def test_lpips_takes_pictures_in_0_1_as_torchmetrics_does_in_minus_1_1(lpips):
    a, b = to_tensor([noise(64, 64, 1)]), to_tensor([noise(64, 64, 2)])
    found = lpips.distance(a[0], b[0])
    lpips.net.spatial = False
    assert found == pytest.approx(float(lpips.net(2 * a - 1, 2 * b - 1)), abs=1e-6)
    assert found > 0
    assert lpips.distance(a[0], a[0]) == 0
    assert lpips.map(a[0], b[0]).shape == (64, 64)
    assert float(lpips.map(a[0], b[0]).mean()) == pytest.approx(found, rel=0.1)


def test_lpips_without_its_weights_says_which_file_goes_where(monkeypatch):
    def no_network(net, pretrained=False):
        raise URLError("no network")

    monkeypatch.setattr("torchmetrics.functional.image.lpips._get_tv_model_features", no_network)
    load_backbone.cache_clear()
    name = SqueezeNet1_1_Weights.DEFAULT.url.rsplit("/", 1)[1]
    with pytest.raises(ValueError, match=rf"^lpips: squeeze cannot be loaded: .*{name} into .*checkpoints$"):
        load_backbone("lpips", "squeeze")


@pytest.mark.parametrize(
    ("field", "name", "says"),
    [
        ("judge", "local-dir:/nowhere", "not found"),
        ("judge", "ViT-B-32", "ViT-B-32,openai"),
        ("dino", "/nowhere", "no such folder"),
        ("dinov2", "/nowhere", "no such folder"),
        ("pick_score", "/nowhere,/nowhere", "no such folder"),
        ("structure", "/nowhere", "no such folder"),
        ("lpips", "resnet", "alex, vgg, squeeze"),
    ],
)
def test_a_backbone_that_cannot_be_loaded_is_named_in_one_line(field, name, says):
    with pytest.raises(ValueError, match=f"^{field}: {name} cannot be loaded: .*{says}") as error:
        load_backbone(field, name)
    assert "\n" not in str(error.value)


def test_a_vit_as_pick_score_and_incomplete_weights_are_refused(tiny_dino_dir, tmp_path):
    with pytest.raises(ValueError, match="^pick_score: .* it is no CLIP"):
        load_backbone("pick_score", str(tiny_dino_dir))
    with pytest.raises(ValueError, match="^dinov2: .* its weights lack pooler"):
        load_backbone("dinov2", str(metric_models.write_dino_224(tmp_path)))


def test_a_missing_device_is_named(tiny_dino_dir):
    with pytest.raises(ValueError, match="^device: 'cuda:99'"):
        load_backbone("dino", str(tiny_dino_dir), "cuda:99")
