"""Stand-ins for models: a loader that must not be called, and a SAM that segments the microworld, where every thing is
a connected patch of colour on a calm ground."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import label

from regionedit.mask_sources.prompts import Prompt


def must_not_load():
    """Takes the place of a loader; fails the test that calls it."""
    pytest.fail("loaded")


class ColourSegmenter:
    """The interface of `Segmenter`: the connected thing under the points, or most of which lies in the box.

    Args:
        ground: pixels whose colour is this near to the picture's corner are ground.
    """

    def __init__(self, ground: float = 60.0):
        self.ground = ground
        self.prompts: list[Prompt] = []

    def to(self, device):
        return self

    def segment(self, picture: Image.Image, prompt: Prompt) -> torch.Tensor:
        self.prompts.append(prompt)
        pixels = np.asarray(picture).astype(float)
        things, count = label(np.abs(pixels - pixels[0, 0]).sum(-1) > self.ground)
        inside = np.zeros(things.shape, bool)
        if prompt.box:
            x0, y0, x1, y1 = prompt.box
            inside[y0:y1, x0:x1] = True
        numbers = {things[y, x] for x, y in prompt.points}
        if prompt.box and numbers <= {0}:
            numbers = {n for n in range(1, count + 1) if inside[things == n].mean() > 0.5}
        return torch.from_numpy(np.isin(things, list(numbers - {0})).astype(np.float32))
