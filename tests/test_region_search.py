"""The search for regions: its candidates, its judge, the files it writes, and learning from them."""

import math

import pytest
import torch
import torch.nn.functional as F

from data_prep.make_proposals import ProposalsConfig, make_proposals
from data_prep.search_regions import RegionsConfig, search_regions
from regionedit.command_line import load_config
from regionedit.config import SearchConfig, TrainConfig, generator_of_search
from regionedit.data.datamodule import PairsDataModule
from regionedit.data.features import FILES
from regionedit.dtypes import resolve_training
from regionedit.encoders import ImageFeatures
from regionedit.region_search import candidate_regions, most_candidates, rewards, search
from regionedit.training import RegionTraining, run, train

GRID, SIZE = 8, 32
CONFIG = SearchConfig(clusters=[2, 3], boxes=2, batch=3, structure=0.1)


def half_and_half() -> torch.Tensor:
    """A picture whose left half is dark and whose right half is bright, [C, H, W]."""
    return torch.cat([torch.zeros(3, SIZE, SIZE // 2), torch.ones(3, SIZE, SIZE // 2)], 2)


def patches(image_CHW: torch.Tensor) -> torch.Tensor:
    return F.adaptive_avg_pool2d(image_CHW, GRID).flatten(1).T


def test_candidates_are_everything_clusters_and_boxes_of_the_sample():
    image_CHW = half_and_half()
    found = candidate_regions(patches(image_CHW), image_CHW, "a", CONFIG)
    half_N = (patches(image_CHW)[:, 0] > 0.5).float()
    for expected_N in (torch.ones(GRID**2), half_N, 1 - half_N):
        assert (found == expected_N).all(1).sum() == 1
    assert set(found.unique().tolist()) == {0.0, 1.0} and found.sum(1).min() > 0
    assert torch.equal(found, candidate_regions(patches(image_CHW), image_CHW, "a", CONFIG))
    assert len(found) != len(other := candidate_regions(patches(image_CHW), image_CHW, "b", CONFIG)) or (
        not torch.equal(found, other)
    ), "boxes belong to the sample"
    assert 3 * len(found) + 1 <= most_candidates(CONFIG)


def test_small_candidates_are_grown_by_a_patch():
    image_CHW = torch.zeros(3, SIZE, SIZE)
    image_CHW[:, 8:12, 8:12] = 1.0  # one patch
    found = candidate_regions(patches(image_CHW), image_CHW, "a", SearchConfig(clusters=[2], boxes=0))
    assert sorted(found.sum(1).tolist()) == [5, 63, 64], "the patch and its four neighbours, the rest, everything"


class RedPainter:
    """Paints the region red."""

    needs = "target_caption"

    def propose(self, images_BCHW, mask_B1HW, texts, seeds):
        assert len(set(seeds)) == len(seeds) == len(images_BCHW) and set(texts) == {"the right is red"}
        red_BCHW = torch.zeros_like(images_BCHW).index_fill(1, torch.tensor(0), 1.0)
        return torch.where(mask_B1HW > 0, red_BCHW, torch.rand(images_BCHW.shape))


class RightIsRed:
    """A CLIP that sees how red the right half is, and how red the left one is, which no caption asks for."""

    grid, device = GRID, torch.device("cpu")
    image_rounding = text_rounding = 0.0
    model = type("Model", (), {"logit_scale": torch.tensor(math.log(10.0))})

    def stretch(self, images_BCHW):
        return images_BCHW

    def encode_image(self, images_BCHW):
        red_BHW = images_BCHW[:, 0] - images_BCHW[:, 1]
        halves = [half.mean((1, 2)) for half in red_BHW.chunk(2, dim=2)]
        global_BD = torch.stack([*halves, torch.full_like(halves[0], 0.5)], 1)
        return ImageFeatures(global_BD, F.adaptive_avg_pool2d(images_BCHW, GRID).flatten(2).transpose(1, 2) + 0.1)

    def encode_text(self, texts):
        return torch.tensor([[0.0, 1.0, 0.5] if text == "the right is red" else [0.0, 0.0, 0.5] for text in texts])


def test_the_best_reward_has_the_region_that_the_caption_asks_for():
    image_CHW = half_and_half()
    pictures, pair = torch.stack([image_CHW, image_CHW]), ("a picture", "the right is red")
    first, second = search(pictures, [pair] * 2, ["make it red"] * 2, ["a", "b"], RightIsRed(), RedPainter(), CONFIG)
    for regions_KN, costs_K3 in (first, second):
        reward_1K = rewards(costs_K3[None], regions_KN[None], CONFIG)
        assert torch.equal(regions_KN[reward_1K.argmax()], (patches(image_CHW)[:, 0] > 0.5).float())
        assert not regions_KN[0].any() and costs_K3[0, 1] == 1, "an empty region has no direction"
        assert costs_K3[0, 2] == 0 and (costs_K3 >= 0).all() and len(regions_KN) <= most_candidates(CONFIG)


def test_rewards_weigh_costs_and_the_logarithm_of_the_area():
    config = SearchConfig(preference=0.5, direction=2.0, structure=3.0, size=0.1)
    costs_1K3 = torch.tensor([[[0.2, 0.4, 0.1], [math.nan] * 3]])
    found_1K = rewards(costs_1K3, torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]), config)
    assert found_1K[0].tolist() == pytest.approx([-(0.1 + 0.8 + 0.3) - 0.1 * math.log(0.52), -math.inf])


@pytest.fixture
def given(tmp_path, tiny_arguments) -> list[str]:
    return [
        *tiny_arguments, f"--data.features={tmp_path / 'features'}", "--generator.num_inference_steps=1",
        "--search.clusters=[2]", "--search.boxes=1", "--step.gradient=search", "--loss.beta=0", "--loss.region=1",
        "--data.micro_batch=2",
    ]  # fmt: skip


def test_a_region_learns_from_what_the_search_wrote(tmp_path, given):
    searched = load_config(RegionsConfig, overrides=[*given, "--device=cpu"])
    assert search_regions(searched) == 2 and search_regions(searched) == 0
    (tmp_path / "features" / FILES["regions"].format("00001")).unlink()
    assert search_regions(searched) == 1, "only what is missing"
    config = load_config(TrainConfig, overrides=given)
    module = RegionTraining(config)
    assert module.frozen.generator is None
    batch = next(iter(PairsDataModule(config.data, 0, 1).train_dataloader()))
    assert batch.searched_BKn.shape == (4, most_candidates(config.search), module.frozen.clip.grid**2 + 3)
    step = module.step(batch, 0)
    loss, terms = module.loss(step, config.loss)
    assert set(terms) == {"semantic_edited", "semantic_original", "region", "area", "entropy"}
    loss.backward()
    assert all(p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in module.predictor.parameters())
    assert {name: picture.shape for name, picture in step.pictures.items()}.keys() == {"source", "proposal", "composed"}
    assert (train(config) / "model.safetensors").is_file()


def test_searched_regions_and_stored_proposals_teach_together(tmp_path, given):
    """Each with its own settings of the generator; both losses reach the predictor. Not every shard was searched."""
    given += ["--step.gradient=composite", "--step.proposal_mask=everything", "--loss.beta=1", "--loss.alpha=0"]
    given += ["--search.generator.num_inference_steps=1", "--generator.num_inference_steps=2"]
    search_regions(load_config(RegionsConfig, overrides=[*given, "--device=cpu"]))
    given += [f"--data.proposals={tmp_path / 'proposals'}"]
    make_proposals(load_config(ProposalsConfig, overrides=[*given, "--device=cpu"]))
    (tmp_path / "features" / FILES["regions"].format("00001")).unlink()
    for alone in (["--loss.beta=0"], ["--loss.region=0"], []):
        config = load_config(TrainConfig, overrides=[*given, "--loss.area=0", "--loss.entropy=0", *alone])
        module = RegionTraining(config)
        batch = next(iter(PairsDataModule(config.data, 0, 1).train_dataloader()))
        loss, terms = module.loss(module.step(batch, 0), config.loss)
        assert ("region" in terms, "clip_direction" in terms) == (config.loss.region == 1, config.loss.beta == 1)
        if "region" in terms:
            searched = batch.searched_BKn[..., -1].isfinite().any(1)
            assert 0 < searched.sum() < len(searched) and torch.equal(terms["region"] != 0, searched)
        loss.backward()
        gradient = module.predictor.mlp[-1].weight.grad
        assert gradient.isfinite().all() and gradient.abs().sum() > 0
    assert (train(config) / "model.safetensors").is_file()
    with pytest.raises(ValueError, match="search.generator.*unexpected keyword argument 'steps'"):
        generator_of_search(load_config(TrainConfig, overrides=[*given, "--search.generator.steps=1"]))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["--data.features=null"], "data.features: not set"),
        (["--loss.beta=1"], "loss.beta, loss.region"),
        (["--loss.region=0"], "loss.beta, loss.region"),
        (["--log.export=best"], "log.export"),
    ],
)
def test_a_search_that_cannot_be_learned_from_is_refused_before_models_are_loaded(given, changes, said):
    with pytest.raises(ValueError, match=said):
        train(load_config(TrainConfig, overrides=[*given, *changes]))


def test_regions_of_another_search_are_refused(tmp_path, given):
    search_regions(load_config(RegionsConfig, overrides=[*given, "--device=cpu"]))
    for changes, said in (
        (["--search.boxes=2"], "search.boxes 1, this run has 2; run search_regions.py"),
        (["--generator.num_inference_steps=3"], "generator.num_inference_steps 1, this run has 3"),
        ([f"--data.features={tmp_path}"], "holds no regions .* run search_regions.py"),
    ):
        config = resolve_training(load_config(TrainConfig, overrides=[*given, *changes]), "cpu")
        with pytest.raises(ValueError, match=said):
            data = PairsDataModule(config.data, 0, 1)
            data.setup()
            run._check_features(config, data.train)
