"""Clicks, boxes and scribbles through Segment Anything; regions made tight by it; what every mask gets at the end."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from regionedit.config import RegionConfig
from regionedit.editor import Editor
from regionedit.images import to_tensor
from regionedit.mask_sources import prompts, require_mask_source
from regionedit.mask_sources.prompts import Prompt
from regionedit.mask_sources.refine import Refiner
from regionedit.mask_sources.sam import Sam
from regionedit.mask_sources.segmenter import Segmenter, load_segmenter
from regionedit.masks import divide, grow, mask_iou
from regionedit.microworld.renderer import coverage, render
from regionedit.microworld.scene import Background, Scene, Thing
from regionedit.records import Captions, EditRequest, Region
from tests.segmenters import ColourSegmenter, must_not_load
from tests.stored_pictures import noise
from tests.tiny_sams import write_sam2

SCENE = Scene(Background("gray", "plain"), (Thing("circle", "red", 18, 20, 9), Thing("square", "blue", 46, 44, 10)))
CAPTIONS = Captions("a red circle", "a blue circle")
PICTURE = Image.fromarray(render([SCENE])[0])
SILHOUETTES = torch.from_numpy(coverage(SCENE) > 0.5).float()[:, None]  # [things, 1, H, W]
IMAGE_BCHW = to_tensor([PICTURE])


@pytest.fixture(scope="module")
def tiny_sam2_dir(tmp_path_factory):
    return write_sam2(tmp_path_factory.mktemp("sam2"))


@pytest.fixture(params=["tiny_sam_dir", "tiny_sam2_dir"])
def segmenter(request) -> Segmenter:
    return load_segmenter(str(request.getfixturevalue(request.param)))


@pytest.fixture
def stand_in(monkeypatch) -> ColourSegmenter:
    """Takes SAM's place wherever it would be loaded."""
    made = ColourSegmenter()
    for user in ("sam", "finder"):
        monkeypatch.setattr(f"regionedit.mask_sources.{user}.load_segmenter", lambda path: made)
    return made


@pytest.mark.parametrize(
    "prompt", [Prompt(((30, 20), (5, 5))), Prompt((), (3, 4, 20, 30)), Prompt(((9, 9),), (3, 4, 20, 30))]
)
def test_the_answer_is_that_of_the_processors_own_road(prompt, segmenter):
    picture = noise(51, 38)
    arguments = {}
    if prompt.points:
        arguments["input_points"] = [[[[float(x), float(y)] for x, y in prompt.points]]]
    if prompt.box:
        arguments["input_boxes"] = [[[float(side) for side in prompt.box]]]
    read = segmenter.processor(images=picture, **arguments, return_tensors="pt")
    frame = {name: read.pop(name) for name in ("original_sizes", "reshaped_input_sizes") if name in read}
    with torch.no_grad():
        answer = segmenter.model(**{name: value.float() for name, value in read.items()})
    (all_masks,) = segmenter.processor.post_process_masks(answer.pred_masks, **frame, binarize=False)
    best = int(answer.iou_scores[0, 0].argmax())
    assert torch.allclose(segmenter.segment(picture, prompt), all_masks[0, best].sigmoid(), atol=1e-5)


def test_a_frozen_model_encodes_a_picture_once_for_many_prompts(segmenter, monkeypatch):
    encoded, real = [], segmenter.model.get_image_embeddings
    monkeypatch.setattr(segmenter.model, "get_image_embeddings", lambda *a: encoded.append(1) or real(*a))
    first, second = noise(40, 30, seed=1), noise(40, 30, seed=2)
    for picture in (first, first.copy(), second, first):
        segmenter.segment(picture, Prompt(((3, 3),)))
    assert len(encoded) == 3
    assert not any(p.requires_grad for p in segmenter.model.parameters()) and not segmenter.model.training


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("models/sam_vit_h_4b8939.pth", "is a pickle.*convert_sam_to_hf.py.*facebook/sam-vit-huge"),
        ("nobody/no-such-sam", "region.sam: .*'nobody/no-such-sam'.*hf download facebook/sam-vit-huge"),
        ("{empty}", "region.sam: no SAM could be loaded from '{empty}'"),
        ("{dino}", "holds a model of type 'vit'; sam and sam2 and sam2_video"),
    ],
)
def test_weights_that_cannot_be_used(path, says, tmp_path, tiny_dino_dir):
    places = {"empty": str(tmp_path), "dino": str(tiny_dino_dir)}
    with pytest.raises(ValueError, match=says.format(**places)) as caught:
        load_segmenter(path.format(**places))
    assert "\n" not in str(caught.value)


def test_one_click_and_several_are_kept_as_points():
    clicks = [EditRequest(PICTURE, "x", click=click).click for click in ((3, 4), [3, 4], ((3, 4), (5, 6)), [(3, 4)])]
    assert clicks == [((3, 4),), ((3, 4),), ((3, 4), (5, 6)), ((3, 4),)]
    assert EditRequest(PICTURE, "x").click is None
    assert EditRequest(PICTURE, "x", click=(np.int64(3), 4)).marks == {"click"}


@pytest.mark.parametrize("click", [(), (3,), (3, 4, 5), (3.5, 4), ((3, 4), 5), "3,4", 3])
def test_what_is_no_click(click):
    with pytest.raises(ValueError, match="click: "):
        EditRequest(PICTURE, "x", click=click)


def test_prompts_of_marks():
    mask = Image.new("L", (64, 64))
    mask.paste(255, (10, 30, 50, 34))
    scribble = prompts.of_request(EditRequest(PICTURE, "x", mask=mask))
    assert scribble.box == (10, 30, 50, 34) and len(scribble.points) == prompts.SCRIBBLE_POINTS
    assert len(set(scribble.points)) == 5 and all(mask.getpixel(point) for point in scribble.points)
    xs = sorted(x for x, _ in scribble.points)
    assert xs[0] < 15 and xs[-1] > 44  # they span the stroke
    assert prompts.of_request(EditRequest(PICTURE, "x", click=(3, 4), mask=mask)) == Prompt(((3, 4),))
    assert prompts.of_request(EditRequest(PICTURE, "x", click=(3, 4), box=(0, 0, 99, 9))) == Prompt(
        ((3, 4),), (0, 0, 64, 9)
    )
    assert not prompts.of_request(EditRequest(PICTURE, "x", mask=Image.new("L", (64, 64))))
    one_pixel = Image.new("L", (64, 64))
    one_pixel.putpixel((7, 8), 255)
    assert prompts.of_request(EditRequest(PICTURE, "x", mask=one_pixel)) == Prompt(((7, 8),), (7, 8, 8, 9))


@pytest.mark.parametrize(
    ("marks", "says"),
    [
        ({}, "needs a click.*--click x,y.*--box.*--mask"),
        ({"click": (64, 3)}, "click: 64,3 lies outside the 64x64 picture"),
        ({"click": ((3, 3), (3, -1))}, "click: 3,-1 lies outside"),
        ({"box": (70, 0, 80, 5)}, "box: .* outside"),
        ({"mask": Image.new("L", (9, 9))}, "mask: 9x9"),
    ],
)
def test_marks_that_cannot_be_used(marks, says):
    with pytest.raises(ValueError, match=says):
        Sam(ColourSegmenter()).find(IMAGE_BCHW, [EditRequest(PICTURE, "x", **marks)], [None])


def test_the_peak_of_a_plateau_is_its_middle():
    mask = np.zeros((9, 11), bool)
    mask[2:7, 3:8] = True
    assert prompts.of_region(mask, mask.astype(float)) == Prompt(((5, 4),), (3, 2, 8, 7))
    probability = mask * 0.6
    probability[3, 7], probability[0, 0] = 0.7, 0.9  # what lies outside the region is not its peak
    assert prompts.of_region(mask, probability).points == ((7, 3),)
    assert not prompts.of_region(np.zeros((3, 3), bool), np.ones((3, 3)))


@pytest.mark.parametrize("marks", [{"click": (18, 20)}, {"box": (8, 10, 29, 31)}, {"click": ((18, 20), (20, 22))}])
def test_a_click_takes_the_whole_thing(marks):
    region = Sam(ColourSegmenter()).find(IMAGE_BCHW, [EditRequest(PICTURE, "x", **marks)], [None])
    assert region.mask_B1HW.dtype == torch.float32 and set(region.mask_B1HW.unique().tolist()) == {0.0, 1.0}
    assert mask_iou(region.mask_B1HW, SILHOUETTES[:1]) > 0.85


def test_a_click_goes_through_the_editor(tiny_edit_config, stand_in):
    editor = Editor.from_config(tiny_edit_config)
    request = EditRequest(PICTURE, "x", captions=CAPTIONS, click=(18, 20))
    result = editor.edit(request)
    assert result.record["mask_source"] == "sam" and result.record["click"] == [[18, 20]]
    assert result.record["models"]["sam"]["sha256"] and "region" not in result.record["models"]
    assert json.dumps(result.record)
    outside = np.asarray(result.mask) == 0
    assert 0 < result.share < 0.15 and np.array_equal(np.asarray(result.image)[outside], np.asarray(PICTURE)[outside])
    assert editor.digest(request) != editor.digest(replace(request, click=(19, 20)))
    nothing = editor.edit(replace(request, click=(1, 1)))
    assert nothing.share == 0 and "region is empty" in nothing.note


def test_an_expression_goes_through_the_editor(tiny_edit_config, stand_in):
    editor = Editor.from_config(replace(tiny_edit_config, mask_source="centre_box + sam - drawn"))
    mask = Image.new("L", (64, 64))
    mask.paste(255, (0, 0, 64, 32))
    result = editor.edit(EditRequest(PICTURE, "x", captions=CAPTIONS, click=(46, 44), mask=mask))
    wanted = (SILHOUETTES[1, 0] > 0).numpy()
    wanted[16:48, 16:48] = True
    wanted[:32] = False
    found = np.asarray(result.mask) > 0
    assert (found & wanted).sum() / (found | wanted).sum() > 0.97 and not found[:32].any()
    assert result.record["mask_source"] == "centre_box + sam - drawn" and "sam" in result.record["models"]


def coarse(things: tuple[int, ...]) -> Region:
    """Patches of 8 pixels, one wider than the things they touch, as a grid of patches would have it."""
    maps = torch.nn.functional.max_pool2d(SILHOUETTES[list(things)], 8).amax(0, keepdim=True)
    mask_B1HW = grow(torch.nn.functional.interpolate(maps, scale_factor=8), 4)
    return Region(mask_B1HW, mask_B1HW * 0.9)


def test_a_coarse_region_becomes_the_thing_it_lies_on():
    before = coarse((0,))
    after = Refiner(ColourSegmenter()).refine(IMAGE_BCHW, before)
    assert mask_iou(before.mask_B1HW, SILHOUETTES[:1]) < 0.6 and mask_iou(after.mask_B1HW, SILHOUETTES[:1]) > 0.85
    assert torch.equal(after.probability_B1HW, before.probability_B1HW) and after.notes == ("",)


def test_each_instruction_is_made_tight_by_itself():
    both = [coarse((0,)).mask_B1HW, coarse((1,)).mask_B1HW]
    mask_B1HW = torch.maximum(*both)
    before = Region(mask_B1HW, mask_B1HW, divide(mask_B1HW, torch.cat(both, 1)))
    after = Refiner(ColourSegmenter()).refine(IMAGE_BCHW, before)
    for k in (0, 1):
        assert mask_iou(after.per_instruction_BKHW[:, k], SILHOUETTES[k]) > 0.85
    assert torch.equal(after.per_instruction_BKHW.amax(1, keepdim=True), after.mask_B1HW)


def test_a_region_that_sam_does_not_confirm_is_kept_and_says_so():
    corner = torch.zeros(1, 1, 64, 64)
    corner[..., 52:, :12] = 1
    empty = Region(torch.zeros_like(corner), torch.ones_like(corner))
    segmenter = ColourSegmenter()
    kept = Refiner(segmenter).refine(IMAGE_BCHW, Region(corner, corner, notes=("before",)))
    assert torch.equal(kept.mask_B1HW, corner) and kept.notes[0].startswith("before; refine: the region was kept")
    assert not Refiner(segmenter).refine(IMAGE_BCHW, empty).mask_B1HW.any() and len(segmenter.prompts) == 1


def test_what_the_user_marked_and_fixed_regions_are_not_made_tight(stand_in):
    for text in ("drawn", "everything", "centre_box", "sam"):
        assert require_mask_source(text).load(RegionConfig(refine="sam"), must_not_load, must_not_load).refiner is None


def test_what_refining_says_reaches_the_result(tiny_edit_config, stand_in):
    region = replace(tiny_edit_config.region, refine="sam", threshold=0.0)
    editor = Editor.from_config(replace(tiny_edit_config, region=region))
    flat = Image.new("RGB", (32, 32), "gray")
    result = editor.edit(EditRequest(flat, "x", captions=CAPTIONS))
    assert "refine: the region was kept" in result.note and result.share == 1
