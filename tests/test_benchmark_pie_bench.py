"""PIE-Bench: run-length masks against their definition, the optional frame, and results by type of edit."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from regionedit.evaluation.benchmarks.pie_bench import PieBench, decode_mask
from tests.benchmark_fixtures import write_pie_bench


@pytest.fixture
def folder(tmp_path):
    return write_pie_bench(tmp_path / "pie")


@pytest.mark.parametrize("runs", [[1], [1, 2, 3], [-1, 2], [1, -2], [12, 1]])
def test_invalid_runs_are_refused(runs):
    with pytest.raises(ValueError, match="the mask has"):
        decode_mask(runs, size=(4, 3))


@settings(max_examples=60, deadline=None)
@given(data=st.data(), width=st.integers(1, 9), height=st.integers(1, 9))
def test_decoding_marks_exactly_the_pixels_of_the_runs(data, width, height):
    """Compares with the definition, pixel by pixel; runs may touch, overlap and leave the picture."""
    run = st.tuples(st.integers(0, width * height - 1), st.integers(0, 2 * width * height))
    runs = data.draw(st.lists(run, max_size=6))
    covered = {place for start, length in runs for place in range(start, start + length)}
    decoded = decode_mask([value for run in runs for value in run], size=(width, height))
    assert decoded.shape == (height, width) and decoded.dtype == bool
    assert decoded.ravel().tolist() == [place in covered for place in range(width * height)]


def test_prompts_lose_their_brackets_and_types_become_operations(folder):
    """A case without instruction gets the target prompt; the mask of a style edit covers everything."""
    benchmark = PieBench(folder)
    cases = list(benchmark)
    assert [case.operation for case in cases] == ["replace", "background", "style", "recolour"]
    assert [case.groups["local"] for case in cases] == ["yes", "no", "no", "yes"]
    assert len(PieBench.headline) == 8 and not {"background", "style"} & set(PieBench.headline)
    captions = cases[0].request.captions
    assert (captions.source, captions.target) == ("a red apple", "a green apple 0")
    assert [case.request.instruction for case in cases[::2]] == ["make the apple green", "a green apple 2"]
    assert benchmark.counts == {"cases": 4, "kept": 4, "without instruction, edited by the target prompt": 1}
    first, _, style, _ = (np.asarray(case.truth_mask) for case in cases)
    assert (first == 255).sum() == 60 and first[10:12, 20:50].all() and not first[0].any()
    assert (style == 255).all() and cases[0].truth_image is None


def test_an_empty_mask_is_counted_and_a_picture_of_another_size_gets_a_mask_of_its_size(folder):
    path = folder / "mapping_file.json"
    rows = json.loads(path.read_text())
    rows["000000000000"]["mask"] = []
    path.write_text(json.dumps(rows))
    picture = folder / "annotation_images" / rows["000000000003"]["image_path"]
    Image.open(picture).resize((256, 256)).save(picture)
    cases = PieBench(folder)
    masks = {case.id: case.truth_mask for case in cases}
    assert masks["000000000000"] is None
    assert masks["000000000003"].size == (256, 256)
    assert cases.counts["without mask: it covers nothing"] == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "mapping_file.json is not {key"),
        ("[]", "mapping_file.json is not {key"),
        ("{}", "mapping_file.json holds no case"),
        ('{"7": {"image_path": "x"}}', "mapping_file.json: 7 has no original_prompt; PIE-Bench's fields are: im"),
    ],
)
def test_an_unreadable_mapping_is_named(text, message, folder):
    (folder / "mapping_file.json").write_text(text)
    with pytest.raises(ValueError, match=f"^data: .*{message}"):
        PieBench(folder)


def test_missing_pictures_are_named(folder):
    next(folder.glob("annotation_images/8_change/*")).unlink()
    with pytest.raises(ValueError, match="1 of 4 pictures are missing, the first is .*8_change"):
        PieBench(folder)
