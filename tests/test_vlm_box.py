"""The mask source `vlm_box`: what it asks an endpoint, how it reads boxes, and what it makes of anything else."""

import asyncio
import base64
import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from aiohttp import web
from PIL import Image

from regionedit.config import RegionConfig, VlmBoxConfig
from regionedit.describe import endpoint
from regionedit.editor import Editor
from regionedit.images import to_tensor
from regionedit.mask_sources import require_mask_source
from regionedit.records import Captions, EditRequest
from regionedit.results import changed_outside
from tests.chat_servers import serving
from tests.segmenters import ColourSegmenter, must_not_load
from tests.stub_generators import stub_editor

CAPTIONS = Captions("a red box", "a black box")
PICTURE = Image.new("RGB", (200, 100), "gray")
for place, colour in (((20, 30, 60, 80), "red"), ((120, 10, 160, 60), "blue")):
    PICTURE.paste(colour, place)
LOOSE_RED, LOOSE_BLUE = (10, 20, 70, 90), (110, 0, 170, 70)


def text_of(body) -> str:
    return body["messages"][1]["content"][1]["text"]


def sent_picture(body) -> Image.Image:
    data = body["messages"][1]["content"][0]["image_url"]["url"].split(",")[1]
    return Image.open(io.BytesIO(base64.b64decode(data)))


def boxes(*corners, **more) -> str:
    return json.dumps([{"bbox_2d": list(c), **more} for c in corners])


def normalised(*corners, size=PICTURE.size) -> str:
    return boxes(*([at * 1000 / size[axis % 2] for axis, at in enumerate(c)] for c in corners))


def region_config(url: str, region: dict | None = None, **changes) -> RegionConfig:
    asks = {"endpoint": url, "endpoint_model": "some-vlm", "cache": None, "attempts": 2} | changes
    return RegionConfig(vlm_box=VlmBoxConfig(**asks), **(region or {}))


def find(url: str, *requests: EditRequest, source: str = "vlm_box", region: dict | None = None, **changes):
    finder = require_mask_source(source).load(region_config(url, region, **changes), must_not_load, must_not_load)
    asked = requests or (EditRequest(PICTURE, "make the red box green"),)
    return finder.find(to_tensor([one.image for one in asked]), asked, [None] * len(asked))


def inside(*corners, size=PICTURE.size) -> torch.Tensor:
    mask_HW = torch.zeros(size[::-1])
    for x0, y0, x1, y1 in corners:
        mask_HW[y0:y1, x0:x1] = 1
    return mask_HW


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(endpoint, "BACKOFF", 0.01)
    monkeypatch.setattr(endpoint, "LONGEST_WAIT", 0.05)


@pytest.mark.parametrize("form", ["{}", "```json\n{}\n```", "\n {} \n"])
def test_normalised_coordinates(form):
    with serving(lambda body, before: form.replace("{}", boxes((100, 200, 350, 900), label="a red box"))) as server:
        region = find(server.url)
    assert torch.equal(region.mask_B1HW[0, 0], inside((20, 20, 70, 90)))
    (body,) = server.bodies
    assert body["model"] == "some-vlm" and body["temperature"] == 0 and sent_picture(body).size == PICTURE.size
    assert "make the red box green" in text_of(body) and "from 0 to 1000" in text_of(body)
    assert "bbox_2d" in body["messages"][0]["content"]


@pytest.mark.parametrize(
    ("size", "side", "sent"),
    [
        ((200, 100), 768, (196, 112)),
        ((1000, 500), 280, (280, 140)),
        ((9, 60), 768, (56, 56)),
        ((1000, 500), 780, (756, 392)),
    ],
)
def test_pixels_are_those_of_the_picture_that_was_sent(size, side, sent):
    """It has sides that a Qwen2.5-VL does not scale again; half of its width is half of the picture's."""
    picture = Image.new("RGB", size)
    with serving(lambda body, before: boxes((0, 0, sent[0] / 2, sent[1]))) as server:
        region = find(server.url, EditRequest(picture, "x"), coordinates="pixels", picture_size=side)
    (body,) = server.bodies
    assert sent_picture(body).size == sent
    assert f"{sent[0]} pixels wide and {sent[1]} pixels high" in text_of(body)
    assert torch.equal(region.mask_B1HW[0, 0], inside((0, 0, -(-size[0] // 2), size[1]), size=size))


def test_a_box_is_rounded_outwards_and_a_small_drift_beyond_the_picture_is_cut():
    with serving(lambda body, before: boxes((-30, 501, 12, 1060))) as server:
        assert torch.equal(find(server.url).mask_B1HW[0, 0], inside((0, 50, 3, 100)))


def test_each_instruction_is_one_question_and_has_its_own_boxes():
    answers = {"red": normalised(LOOSE_RED), "blue": normalised(LOOSE_BLUE, (0, 0, 20, 20))}

    def respond(body, before):
        return next(answer for word, answer in answers.items() if word in text_of(body))

    asked = [EditRequest(PICTURE, ("recolour the red box", "remove the blue box")), EditRequest(PICTURE, "a red box")]
    with serving(respond) as server:
        region = find(server.url, *asked)
    first, second = region.per_instruction_BKHW
    assert torch.equal(first[1], inside(LOOSE_BLUE, (0, 0, 20, 20)) * (1 - first[0])) and not second[1].any()
    assert torch.equal(first[0], inside(LOOSE_RED)) and torch.equal(second[0], inside(LOOSE_RED))
    assert torch.equal(region.mask_B1HW, region.per_instruction_BKHW.amax(1, keepdim=True)) and len(server.bodies) == 3


def test_each_box_is_refined_by_sam_and_combined_like_any_other_source(monkeypatch):
    monkeypatch.setattr("regionedit.mask_sources.finder.load_segmenter", lambda path: ColourSegmenter())
    mask = Image.new("L", PICTURE.size)
    mask.paste(255, (0, 0, 40, 100))
    with serving(lambda body, before: normalised(LOOSE_RED, LOOSE_BLUE)) as server:
        refined = find(server.url, region={"refine": "sam"})
        joined = find(server.url, EditRequest(PICTURE, "x", mask=mask), source="vlm_box - drawn")
        grown = find(server.url, region={"grow": 3})
    things = inside((20, 30, 60, 80), (120, 10, 160, 60))
    assert torch.equal(refined.mask_B1HW[0, 0], things) and refined.notes == ("",)
    assert torch.equal(joined.mask_B1HW[0, 0], inside((40, 20, 70, 90), LOOSE_BLUE))
    assert torch.equal(grown.mask_B1HW[0, 0], inside((7, 17, 73, 93), (107, 0, 173, 73)))


def editor(region: RegionConfig, mask_source: str = "vlm_box") -> Editor:
    """An editor that paints black; only its generator is no real one."""
    made = stub_editor(torch.zeros_like, region=region)
    return Editor(replace(made.config, mask_source=mask_source), made.models)


def test_it_goes_through_the_editor_and_its_settings_decide_the_digest_only_where_it_is_used():
    request = EditRequest(PICTURE, "x", captions=CAPTIONS)
    with serving(lambda body, before: normalised(LOOSE_RED)) as server:
        same, other = {"timeout": 9.0, "attempts": 7}, {"coordinates": "pixels"}
        found, slower, pixels = (region_config(server.url, **changes) for changes in ({}, same, other))
        result = editor(found).edit(request)
        digests = [editor(region).digest(request) for region in (found, slower, pixels)]
        unused = {editor(region, "everything").digest(request) for region in (found, pixels)}
    assert result.mask.getbbox() == LOOSE_RED and result.record["mask_source"] == "vlm_box"
    assert changed_outside(PICTURE, result.image, result.mask) == 0
    assert not np.asarray(result.image.crop(LOOSE_RED)).any()
    assert digests[0] == digests[1] != digests[2] and len(unused) == 1


PROSE = "Sure! The red box is on the left of the picture."
FIX = "name the object in the instruction, mark it (--box, --mask), or set another region.vlm_box.endpoint_model"


@pytest.mark.parametrize(
    "answer",
    [
        "", PROSE, PROSE * 500, "[]", "{}", "null", "[1, 2, 3, 4]", "[[1, 2, 3, 4]]", boxes((1, 2, 3)),
        boxes((1, 2, 3, 4, 5)), boxes((10, 10, 10, 20)), boxes((30, 10, 20, 20)), boxes((0, 0, float("nan"), 5)),
        '[{"bbox_2d": ["1", "2", "3", "4"]}]', '[{"bbox_2d": [1, 2, 3, 4], "why": "x"}]', '[{"label": "x"}]',
        boxes((1, 2, 30, 40)) + " as you asked", boxes(*[(0, 0, 5, 5)] * 51), boxes((1, 2, 30, 40))[:-5],
        '[{"bbox_2d": [true, 0, 5, 5]}]', boxes((0, 0, 5, 5), label="a\nb"),
    ],
)  # fmt: skip
def test_an_answer_that_is_no_box_is_one_line_after_a_second_attempt(answer):
    with serving(lambda body, before: answer) as server, pytest.raises(ValueError) as caught:
        find(server.url)
    said = str(caught.value)
    assert said.startswith("region.vlm_box: some-vlm gave no box: ") and said.endswith(FIX)
    assert "\n" not in said and len(said) < 500
    assert [body["temperature"] > 0 for body in server.bodies] == [False, True]


@pytest.mark.parametrize(("coordinates", "other"), [("normalised", "pixels"), ("pixels", "normalised")])
def test_a_box_far_outside_shows_that_the_units_are_wrong(coordinates, other):
    far = boxes((100, 100, 1500, 700))
    with serving(lambda body, before: far) as server, pytest.raises(ValueError) as caught:
        find(server.url, coordinates=coordinates)
    said = str(caught.value)
    assert said.startswith("region.vlm_box.coordinates: ") and said.endswith(f"set {other}") and "1500" in said


def test_a_server_that_fails_or_delays_is_one_line_that_names_the_field():
    async def hang(body, before):
        await asyncio.sleep(30)

    with serving(lambda body, before: web.Response(status=503)) as server, pytest.raises(ValueError) as busy:
        find(server.url)
    with serving(lambda body, before: web.Response(status=401)) as server, pytest.raises(ValueError) as refused:
        find(server.url)
    with serving(hang) as server, pytest.raises(ValueError) as slow:
        find(server.url, timeout=0.2)
    with pytest.raises(ValueError) as gone:
        find(server.url)
    said = [str(one.value) for one in (busy, refused, slow, gone)]
    assert all(text.startswith("region.vlm_box.endpoint: ") and "\n" not in text for text in said)
    assert "given up after 2 attempts: status 503" in said[0] and said[1].endswith(
        "set region.vlm_box.api_key_variable"
    )
    assert "no answer within 0.2 s" in said[2] and "given up after 2 attempts" in said[3]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"endpoint": ""}, r"^region\.vlm_box\.endpoint: '' is no address"),
        ({"endpoint_model": ""}, r"^region\.vlm_box\.endpoint_model: empty"),
        ({"picture_size": 55}, r"^region\.vlm_box\.picture_size: 55, at least 56"),
        ({"api_key_variable": "NO_SUCH_KEY"}, r"^region\.vlm_box\.api_key_variable: .*NO_SUCH_KEY"),
    ],
)
def test_settings_that_lack_something_are_refused_when_it_is_loaded(changes, says):
    with pytest.raises(ValueError, match=says):
        require_mask_source("vlm_box").load(region_config("http://x/v1", **changes), must_not_load, must_not_load)


def test_one_picture_that_fails_stops_no_other_and_no_answered_question_is_asked_again():
    other = PICTURE.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    asked = [EditRequest(p, "x", captions=CAPTIONS, id=name) for p, name in ((PICTURE, "a"), (other, "b"))]

    def respond(body, before):
        seen = sent_picture(body).convert("RGB").getpixel((30, 40))
        return normalised(LOOSE_RED) if seen == (255, 0, 0) else PROSE

    with serving(respond) as server:
        good, bad = editor(region_config(server.url)).edit_batch(asked)
    assert good.mask.getbbox() == LOOSE_RED and bad.reason.startswith("region.vlm_box: some-vlm gave no box")
    assert len([body for body in server.bodies if sent_picture(body).getpixel((30, 40))[0] == 255]) == 1


def test_answers_are_kept_on_disk_for_the_same_question_only(tmp_path):
    cache = str(tmp_path / "boxes")
    with serving(lambda body, before: normalised(LOOSE_RED)) as server:
        regions = [find(server.url, cache=cache) for _ in range(2)]
        find(server.url, EditRequest(PICTURE, "another"), cache=cache)
        find(server.url, cache=cache, picture_size=100)
    assert len(server.bodies) == 3 and torch.equal(regions[0].mask_B1HW, regions[1].mask_B1HW)
    assert regions[0].boxes == regions[1].boxes == (((LOOSE_RED,),),)
