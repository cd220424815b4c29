"""The measurement of where the loss pulls: an independent check of its parts, and one small run."""

import known_edits
import landscape
import pytest

from regionedit.config import EncodersConfig, LossConfig, StableDiffusionConfig
from regionedit.encoders import load_encoders
from regionedit.generators import load_generator


def test_one_small_run(tiny_clip_dir, tiny_t5_dir, tiny_inpaint_dir):
    clip, _ = load_encoders(EncodersConfig(clip=f"local-dir:{tiny_clip_dir}", instruction=str(tiny_t5_dir)))
    generator = load_generator(StableDiffusionConfig(path=str(tiny_inpaint_dir), size=32, num_inference_steps=1))
    known = known_edits.known_edits("validation", 0, range(3), ("remove",))
    found = landscape.measure(clip, generator, known, LossConfig())
    assert set(found) == {"random_hard", "everything", "true region, 6 px wider"}
    for row in found.values():
        assert row["loss"]["empty"]["clip_structure"] == row["loss"]["empty"]["area"] == 0
        assert row["loss"]["everything"]["area"] == 1
        assert 0 < row["loss"]["truth"]["area"] == pytest.approx(row["loss"]["elsewhere"]["area"])
        assert all(0 <= scores["iou_of_largest"] <= 1 for scores in row["gradient"].values())
