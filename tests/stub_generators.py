"""A generator without weights, for tests of what an edit does with a generator's output."""

from collections.abc import Callable
from dataclasses import replace

import torch

from regionedit.config import EditConfig
from regionedit.editor import Editor
from regionedit.generators import Generator
from regionedit.models import Models

Paint = Callable[[torch.Tensor], torch.Tensor]


class StubGenerator(Generator):
    """Paints with a function from pictures to pictures, BCHW in [0, 1], in one step."""

    needs = "target_caption"
    multiple = 1

    def __init__(self, paint: Paint, size: int = 0):
        self.paint, self.size = paint, size

    @classmethod
    def load(cls, config):
        raise NotImplementedError

    def using(self, config):
        return self

    def to(self, device):
        return self

    def generate(self, images_BCHW, mask_B1HW, texts, seeds, watch=None):
        painted_BCHW = self.paint(images_BCHW)
        if watch:
            watch(1, 1, lambda: painted_BCHW)
        return painted_BCHW


class StubModels(Models):
    """Models of which only the generator can be used."""

    def __init__(self, generator: Generator):
        super().__init__(torch.device("cpu"))
        self.stub = generator

    def generator(self, config):
        return self.stub


def stub_editor(paint: Paint, size: int = 0, watch=None, **changes) -> Editor:
    """An editor of drawn regions with this generator; `changes` are fields of `EditConfig`."""
    config = replace(EditConfig(), device="cpu", mask_source="drawn", **changes)
    return Editor(config, StubModels(StubGenerator(paint, size)), watch)
