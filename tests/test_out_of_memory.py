"""A device without memory for a batch: the batch is halved until it fits, and no picture changes by it."""

import logging

import numpy as np
import pytest
import torch
from PIL import Image

from regionedit.config import CropConfig
from regionedit.records import Captions, EditFailure, EditRequest, EditResult
from tests.stub_generators import stub_editor


def negative(images: torch.Tensor) -> torch.Tensor:
    return 1 - images


def request(seed: int, width: int = 20) -> EditRequest:
    picture = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, width, 3), np.uint8))
    return EditRequest(picture, "x", captions=Captions("a", "b"), box=(2, 3, 9, 11), seed=seed, id=f"p{seed}")


class Memory:
    """A painter for at most `most` pictures at once; keeps the size of each call."""

    def __init__(self, most: int):
        self.most, self.calls = most, []

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self.calls.append(len(images))
        if len(images) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nsee the documentation")
        return negative(images)


@pytest.mark.parametrize("most", [1, 2, 3, 5, 7])
def test_the_batch_is_halved_and_goes_on(most, caplog):
    asked = [request(seed) for seed in range(7)]
    memory = Memory(most)
    with caplog.at_level(logging.WARNING):
        got = stub_editor(memory, batch=7).edit_batch(asked)
    wanted = stub_editor(negative, batch=7).edit_batch(asked)
    assert all(isinstance(one, EditResult) for one in got)
    assert [one.image.tobytes() for one in got] == [one.image.tobytes() for one in wanted]
    assert [one.id for one in got] == [one.id for one in asked]
    assert sum(count for count in memory.calls if count <= most) == 7, "each picture is painted once"
    failed = [count for count in memory.calls if count > most]
    assert failed == [count for count in (7, 3) if count > most], "a size that failed is not tried again"
    assert len(caplog.records) == len(failed)


def test_every_window_and_every_step_is_reported_after_a_batch_was_halved():
    steps = []
    crop = CropConfig(context=1.0)
    editor = stub_editor(Memory(1), 16, lambda *given: steps.append(given[:2]), batch=2, crop=crop)
    asked = request(1, width=80)
    mask = Image.new("L", asked.image.size)
    mask.paste(255, (2, 2, 6, 6))
    mask.paste(255, (70, 5, 78, 9))
    result = editor.edit(EditRequest(asked.image, "x", captions=Captions("a", "b"), mask=mask))
    changed = np.asarray(result.image) != np.asarray(asked.image)
    assert np.array_equal(changed.any(-1), np.asarray(mask) > 0) and steps == [(1, 2), (2, 2)]


def test_a_single_picture_without_memory_fails_alone_with_one_line():
    def paint(images):
        if images.shape[-1] > 20:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return negative(images)

    got = stub_editor(paint).edit_batch([request(0), request(1, width=40), request(2)])
    assert [type(one) for one in got] == [EditResult, EditFailure, EditResult]
    assert got[1].reason == "out of memory with one window of 40x16 px: lower generator.size or set generator.dtype"
