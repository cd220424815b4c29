"""The tiny Segment Anything: its prompts, what it learns from them, and the folder that the mask source loads."""

import numpy as np
import pretrain_sam as sam
import pytest
import torch
from PIL import Image

from regionedit.mask_sources.prompts import Prompt
from regionedit.mask_sources.segmenter import load_segmenter
from regionedit.microworld.renderer import coverage, render
from regionedit.microworld.scene import sample_scene
from regionedit.microworld.splits import scene_rng

CHECKPOINT = "checkpoints/microworld/sam"


@pytest.fixture(scope="module")
def scenes():
    return [sample_scene(scene_rng("pretrain", 9, index), allow_unseen=True, things=3) for index in range(12)]


def test_prompts_point_at_objects_and_clicks_on_nothing_have_no_answer(scenes):
    clicks = sam.draw_prompts(scenes, np.random.default_rng(0), boxed=False)
    nothing = 0
    for scene, points_QP2, masks_QHW in zip(scenes, clicks.points, clicks.masks, strict=True):
        objects_KHW = coverage(scene) > 0.5
        for (point,), mask_HW in zip(points_QP2.tolist(), masks_QHW.numpy() > 0, strict=True):
            here_K = objects_KHW[:, int(point[1]), int(point[0])]
            nothing += not here_K.any()
            expected = objects_KHW[here_K][0] if here_K.any() else np.zeros_like(mask_HW)
            assert np.array_equal(mask_HW, expected)
    assert clicks.boxes is None and 0 < nothing < len(scenes) * sam.PROMPTS / 2
    boxes = sam.draw_prompts(scenes, np.random.default_rng(0), boxed=True)
    assert boxes.boxes.min() >= 0 and boxes.boxes.max() <= 64 and (boxes.masks.sum((-2, -1)) > 0).all()
    sides = torch.stack([boxes.masks.amax(-2), boxes.masks.amax(-1)])  # columns, rows
    first = sides.argmax(-1)
    assert ((boxes.boxes[..., :2] - first.permute(1, 2, 0)).abs() <= sam.LOOSE).all()


def test_the_answers_quality_is_its_iou():
    logits = torch.full((1, 2, 1, 4, 4), -1.0)
    logits[0, 0, 0, :2] = 1  # 8 pixels
    masks = torch.zeros(1, 2, 4, 4)
    masks[0, 0, 1:3] = 1  # 8 pixels, 4 of them found
    assert sam.iou(logits, masks).tolist() == [[[pytest.approx(4 / 12)], [1.0]]]  # the second: rightly nothing


def test_every_part_that_is_used_learns(scenes):
    torch.manual_seed(0)
    model = sam.build()
    prompts = sam.draw_prompts(scenes[:2], np.random.default_rng(0), boxed=True)
    sam.loss(*sam.answer(model, sam.to_input(render(scenes[:2])), prompts), prompts.masks).backward()
    for name in ("vision_encoder", "prompt_encoder.point_embed", "mask_decoder"):
        gradients = [p.grad for n, p in model.named_parameters() if n.startswith(name) and p.grad is not None]
        assert gradients and any(g.abs().max() > 0 for g in gradients)
    frequencies = model.shared_image_embedding.positional_embedding
    assert not frequencies.requires_grad and 0.7 < frequencies.std() < 1.3


def test_the_folder_is_what_the_mask_source_loads(tmp_path):
    torch.manual_seed(0)
    sam.save(sam.build(), {"click_iou": 0.5}, tmp_path / "sam")
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 90, 3), dtype=np.uint8))
    found = load_segmenter(str(tmp_path / "sam")).segment(picture, Prompt(points=((10, 10),)))
    assert found.shape == (40, 90) and found.min() >= 0 and found.max() <= 1


@pytest.mark.microworld
def test_the_shipped_one_finds_the_object_under_a_click(scenes):
    segmenter = load_segmenter(CHECKPOINT)
    overlaps = []
    for scene, picture in zip(scenes, render(scenes), strict=True):
        for object_HW in coverage(scene) > 0.5:
            rows, columns = np.nonzero(object_HW)
            middle = int(np.hypot(rows - rows.mean(), columns - columns.mean()).argmin())  # of its own pixels
            click = Prompt(points=((int(columns[middle]), int(rows[middle])),))
            found = segmenter.segment(Image.fromarray(picture), click).numpy() > 0.5
            overlaps.append((found & object_HW).sum() / (found | object_HW).sum())
    assert np.mean(overlaps) > 0.8
