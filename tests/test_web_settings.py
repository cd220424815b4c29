"""What a person sets becomes a request, within the page's limits; a record gives the settings back."""

from dataclasses import replace

import pytest
from PIL import Image

from regionedit.config import AppConfig
from regionedit.records import Captions
from regionedit.web.settings import Settings, case_id

CONFIG = AppConfig()
PLAIN = Settings("make the ring blue")


def test_a_request():
    picture = Image.new("RGB", (8, 8))
    picture.info["path"] = "my photo.jpeg"
    settings = Settings("make the ring blue; remove the cross", "1; 2.5", seed=7, target_caption=" a blue ring ")
    request = settings.request(picture, variant=2)
    assert [(i.text, i.strength) for i in request.instructions] == [
        ("make the ring blue", 1.0),
        ("remove the cross", 2.5),
    ]
    assert (request.seed, request.id, request.captions) == (9, "my_photo", Captions("", "a blue ring"))
    assert PLAIN.request(picture).captions is None


def test_the_generator_gets_its_settings():
    config = replace(PLAIN, num_inference_steps=20, guidance_scale=5.0).configuration(CONFIG)
    assert (config.generator.num_inference_steps, config.generator.guidance_scale) == (20, 5.0)
    assert config.generator.path == CONFIG.generator.path


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_inference_steps", 0),
        ("num_inference_steps", 10_000),
        ("num_inference_steps", None),
        ("seed", -1),
        ("variants", 99),
        ("guidance_scale", float("nan")),
        ("strength", 0),
        ("instruction", "x" * 10_000),
        ("target_caption", "x" * 10_000),
    ],
)
def test_what_is_outside_the_limits_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"^{name}: "):
        replace(PLAIN, **{name: value}).check(CONFIG)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"strengths": "1; 2"}, "^strengths: "),
        ({"strengths": "strong"}, "^strengths: "),
        ({"strengths": "-1"}, "^strengths: "),
        ({"strengths": "99"}, "^strengths: "),
        ({"instruction": "a; " * 20}, "at most 8"),
    ],
)
def test_instructions_and_strengths_that_do_not_fit(change, said):
    with pytest.raises(ValueError, match=said):
        replace(PLAIN, **change).instructions()


OLD_RECORD = {"settings": {"generator": {"steps": 8}}, "captions": None, "instructions": [], "seed": 0}


@pytest.mark.parametrize(
    "record", [{}, {"settings": 3}, {"settings": {"generator": {}}}, {"instructions": "x"}, OLD_RECORD]
)
def test_a_record_that_is_none(record):
    with pytest.raises(ValueError, match="^record: "):
        Settings.of_record(record)


@pytest.mark.parametrize(
    ("path", "name"),
    [("a.png", "a"), ("../../etc/passwd", "passwd"), ("", "picture"), ("x.y.jpeg", "x.y"), ("<b>.png", "b")],
)
def test_a_case_is_called_after_its_file(path, name):
    assert case_id(path) == name
