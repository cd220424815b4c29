"""The mask source that reads InstructPix2Pix's attention: tested with prepared attention maps and complete edits."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from regionedit.config import EditConfig, InstructPix2PixConfig, RegionConfig
from regionedit.describe import DESCRIBERS, Describer
from regionedit.editor import Editor
from regionedit.generators import InstructPix2Pix, load_generator
from regionedit.mask_sources import require_mask_source
from regionedit.mask_sources.ip2p_attention import Ip2pAttention
from regionedit.records import Captions, EditFailure, EditRequest, Instruction
from regionedit.token_spans import keyword_spans
from tests.stored_pictures import noise


class Looking(InstructPix2Pix):
    """A fake InstructPix2Pix that returns prepared attention maps with cells of 8 px; records its requests."""

    size, multiple = 0, 16

    def __init__(self, maps_BKrc):
        self.maps_BKrc = maps_BKrc

    def attend(self, images_BChw, requests, seeds):
        assert tuple(side // 8 for side in images_BChw.shape[-2:]) == tuple(self.maps_BKrc.shape[-2:])
        self.received = requests, seeds
        return self.maps_BKrc


def planted(batch, count, rows, columns, *places):
    maps = torch.full((batch, count, rows, columns), 0.01)
    for b, k, r, c in places:
        maps[b, k, r, c] = 0.9
    return maps


def requests(width, height, *instructions):
    return [EditRequest(Image.new("RGB", (width, height)), i, seed=7, id=str(n)) for n, i in enumerate(instructions)]


NEAREST = RegionConfig(upsample="nearest")


def test_the_region_is_where_each_keyword_gets_attention():
    maps = planted(2, 2, 8, 8, (0, 0, 2, 3), (0, 1, 6, 6), (1, 0, 4, 1))
    maps[1, 1] = 0  # the second request has one instruction
    looking = Looking(maps)
    batch = requests(64, 64, ("make the ring blue", "remove the star"), "add a hat")
    region = Ip2pAttention(looking, NEAREST).find(torch.rand(2, 3, 64, 64), batch, [None, None])
    expected = torch.zeros(2, 2, 64, 64)
    expected[0, 0, 16:24, 24:32] = expected[0, 1, 48:56, 48:56] = expected[1, 0, 32:40, 8:16] = 1
    assert torch.equal(region.per_instruction_BKHW, expected)
    assert torch.equal(region.mask_B1HW, expected.amax(1, keepdim=True))
    assert region.patches_BN.shape == (2, 64)
    assert region.patches_BN[0].topk(2).indices.sort().values.tolist() == [2 * 8 + 3, 6 * 8 + 6]
    assert looking.received == (batch, [7, 7])


def found(maps_BKrc, width, height, **changes):
    """The region of one picture whose attention is given."""
    source = Ip2pAttention(Looking(maps_BKrc), replace(NEAREST, **changes))
    return source.find(torch.rand(1, 3, height, width), requests(width, height, "x"), [None])


def test_threshold_and_dilation_apply_on_the_grid_of_cells():
    maps = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    sizes = [found(maps, 64, 64, threshold=threshold).mask_B1HW.sum() for threshold in (0.1, 0.4, 0.7)]
    assert sizes[0] > sizes[1] > sizes[2] > 0
    mask = found(planted(1, 1, 4, 8, (0, 0, 1, 2)), 64, 32, dilate=0.5).mask_B1HW
    assert mask.sum() == 16 * 16 and mask[..., 4:20, 12:28].all()


def test_padding_is_no_part_of_the_picture():
    """A picture of 20 x 40 px is padded to 32 x 48; of the 4 x 6 cells, row 3 and column 5 are padding only."""
    maps = planted(1, 1, 4, 6, (0, 0, 3, 5), (0, 0, 3, 0))
    maps[0, 0, 1, 2] = 0.3
    region = found(maps, 40, 20)
    expected = torch.zeros(1, 1, 20, 40)
    expected[..., 8:16, 16:24] = 1
    assert torch.equal(region.mask_B1HW, expected)
    assert region.patches_BN is None


def test_a_flat_map_is_an_empty_region():
    region = found(torch.full((1, 1, 4, 4), 1 / 77), 32, 32)
    assert not region.mask_B1HW.any() and not region.probability_B1HW.any()


def test_attention_is_read_while_another_generator_edits(tiny_edit_config):
    """The map is the same as when InstructPix2Pix itself edits, because both use the edit's seeds."""
    request = EditRequest(noise(32, 32), "make the circle blue", seed=3, captions=Captions("", "a blue circle"))
    painted = Editor(replace(tiny_edit_config, mask_source="ip2p_attention")).edit(request)
    looked = tiny_edit_config.region.attention
    itself = Editor(replace(tiny_edit_config, mask_source="ip2p_attention", generator=looked)).edit(request)
    assert np.array_equal(painted.probability, itself.probability) and painted.probability.any()
    assert painted.record["digest"] != itself.record["digest"] and "attention" in painted.record["models"]


def test_an_editor_without_a_trained_region_uses_it_and_says_so(tiny_edit_config):
    region = replace(tiny_edit_config.region, checkpoint=None, untrained="ip2p_attention", refine="auto")
    request = EditRequest(noise(32, 32), "make the circle blue", captions=Captions("", "a blue circle"))
    result = Editor(replace(tiny_edit_config, region=region)).edit(request)
    said = "no predictor is trained for these models (region.checkpoint): ip2p_attention finds the region"
    assert said in result.note
    drawn = Editor(replace(tiny_edit_config, region=region)).edit(replace(request, box=(2, 2, 9, 9)))
    assert "trained" not in drawn.note


def test_auto_refines_if_the_model_is_available_and_warns_if_not(tiny_edit_config, caplog):
    def load(sam):
        region = replace(tiny_edit_config.region, refine="auto", sam=sam)
        generator = load_generator(region.attention)
        return require_mask_source("ip2p_attention").load(region, lambda: pytest.fail("loaded"), lambda: generator)

    assert load(tiny_edit_config.region.sam).refiner is not None and not caplog.records
    assert load("nobody/sam-that-is-not-here").refiner is None
    assert "nobody/sam-that-is-not-here is not on this machine" in caplog.text


@pytest.fixture(scope="module")
def editor(tiny_ip2p_dir):
    generator = InstructPix2PixConfig(
        path=str(tiny_ip2p_dir),
        size=32,
        num_inference_steps=4,
        guidance_scale=7.5,
        strength=0.75,
        latent_blend=True,
        modulation=True,
        disentangle=True,
        attention_resolution=4,
    )
    return Editor.from_config(EditConfig("ip2p_attention", "cpu", generator=generator))


def test_one_edit_of_two_instructions_from_end_to_end(editor):
    picture = noise(40, 30)
    both = EditRequest(picture, ("make the circle blue", Instruction("remove the square", 2.0, "square")), id="both")
    one = EditRequest(picture, "add a star", id="one")
    wrong = EditRequest(picture, [Instruction("add a star", keyword="moon")], id="wrong")
    results = editor.edit_batch([both, one, wrong])
    reason = "keyword: 'moon' is no word of its instruction 'add a star'; give one that occurs in it"
    assert results[2] == EditFailure("wrong", reason)
    for result in results[:2]:
        source, edited, mask = (np.asarray(p) for p in (picture, result.image, result.mask))
        assert 0 < (mask > 0).mean() < 1
        assert np.array_equal(edited[mask == 0], source[mask == 0]) and not np.array_equal(edited, source)
    alone = editor.edit(both)
    assert np.array_equal(np.asarray(alone.mask), np.asarray(results[0].mask))
    assert np.abs(np.asarray(alone.image).astype(int) - np.asarray(results[0].image)).max() <= 1


class Naming(Describer):
    """A fake describer that returns a fixed keyword; records the instructions it received."""

    names_keywords = True

    def __init__(self, keyword):
        super().__init__()
        self.says, self.instructions = keyword, []

    def keyword(self, instruction):
        self.instructions.append(instruction)
        return self.says

    def source_captions(self, pictures):
        return ["a"] * len(pictures)

    def _write(self, keys, pictures):
        return [Captions("a", "b")] * len(keys)


@pytest.mark.parametrize(
    ("said", "given", "read"),
    [("circle blue", None, "circle blue"), (None, None, "circle"), ("circle", "blue", "blue")],
)
def test_a_language_model_names_the_object_unless_it_is_given(editor, said, given, read, monkeypatch):
    naming, spans, attend = Naming(said), [], InstructPix2Pix.attend
    monkeypatch.setattr(editor.models, "describer", lambda config: naming)
    monkeypatch.setitem(DESCRIBERS, "microworld", Naming)

    def watching(self, images, requests, seeds):
        spans.extend(keyword_spans(requests[0].instructions, self.pipeline.tokenizer))
        return attend(self, images, requests, seeds)

    monkeypatch.setattr(InstructPix2Pix, "attend", watching)
    text = "make the circle blue"
    request = EditRequest(Image.new("RGB", (32, 32), "red"), [Instruction(text, keyword=given)])
    result = editor.edit(request)
    assert naming.instructions == ([] if given else [text])
    tokenizer = editor.models.generator(editor.config).pipeline.tokenizer
    assert spans == keyword_spans([Instruction(text, keyword=read)], tokenizer)
    assert result.record["instructions"][0]["keyword"] == (given or said)
    assert result.record["digest"] == editor.digest(request)


def test_without_a_language_model_no_keyword_is_requested(editor, monkeypatch):
    monkeypatch.setattr(editor.models.describer(editor.config), "keyword", lambda _: pytest.fail("called"))
    editor.edit(EditRequest(Image.new("RGB", (32, 32), "red"), "make the circle blue"))
