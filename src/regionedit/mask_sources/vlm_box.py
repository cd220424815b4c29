"""Boxes that a vision-language model behind a chat endpoint draws around what an instruction is about.

Shape letters: B pictures of one size, K instructions, H W pixels. Boxes are (x0, y0, x1, y1), x1 and y1 excluded.
"""

from __future__ import annotations

import json
from math import ceil, floor
from typing import TYPE_CHECKING, Annotated, Self

import torch
from PIL import Image
from pydantic import AfterValidator, ConfigDict, Field, RootModel

from regionedit.describe.answers import Answer, Line, ask
from regionedit.describe.cache import AnswerCache
from regionedit.describe.chat import prompt
from regionedit.describe.endpoint import ChatEndpoint, require_endpoint
from regionedit.images import digest, smaller, to_pictures
from regionedit.mask_sources.base import MaskSource
from regionedit.masks import divide
from regionedit.records import Region

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from regionedit.config import RegionConfig
    from regionedit.describe.chat import Chat, ChatModel
    from regionedit.mask_sources.base import Encoders, LoadGenerator
    from regionedit.records import Captions, EditRequest

    Boxes = list[tuple[int, int, int, int]]

FIELD = "region.vlm_box"
FULL = 1000  # a normalised coordinate at the right or lower border
CELL = 28  # Qwen2.5-VL scales every picture to sides that are multiples of this
SMALLEST = 56  # and enlarges a picture with fewer pixels than a square of this side
DRIFT = 0.1
"""A box may extend beyond the picture by this share of its side, and is cut; farther out, the units are wrong."""

MOST = 50  # boxes in one answer
ADVICE = f"name the object in the instruction, mark it (--box, --mask), or set another {FIELD}.endpoint_model"

Number = Annotated[float, Field(allow_inf_nan=False)]
Corners = tuple[Number, Number, Number, Number]


def _with_area(corners: Corners) -> Corners:
    x0, y0, x1, y1 = corners
    if not (x0 < x1 and y0 < y1):
        raise ValueError(f"the box {x0:g},{y0:g},{x1:g},{y1:g} has no area")
    return corners


class BoxAnswer(Answer):
    """One box, in the form that Qwen's vision-language models are trained to answer in."""

    bbox_2d: Annotated[Corners, AfterValidator(_with_area)]
    label: Line | None = None


class BoxAnswers(RootModel[Annotated[list[BoxAnswer], Field(min_length=1, max_length=MOST)]]):
    """A whole answer: at least one box."""

    model_config = ConfigDict(strict=True, frozen=True)


class VlmBox(MaskSource):
    """The boxes of `region.vlm_box`'s model, one question for each instruction; needs no training and works with any
    generator.

    RePlan (arXiv 2512.16864) plans edits as such boxes. An answer that is no box is an error of its request, after a
    second attempt.
    """

    def __init__(self, model: ChatModel, config: RegionConfig):
        self.model = model
        self.config = config
        settings = config.vlm_box
        self.cache = AnswerCache(settings.cache, settings.cache_entries)
        self._known: dict[tuple[str, str], Boxes] = {}  # shared by the copies that `using` makes

    @classmethod
    def load(cls, config: RegionConfig, encoders: Encoders, generator: LoadGenerator) -> Self:
        require_endpoint(config.vlm_box, FIELD)
        if config.vlm_box.picture_size < SMALLEST:
            raise ValueError(f"{FIELD}.picture_size: {config.vlm_box.picture_size}, at least {SMALLEST} are needed")
        return cls(ChatEndpoint(config.vlm_box, FIELD), config)

    def find(self, images_BCHW: Tensor, requests: Sequence[EditRequest], captions: Sequence[Captions | None]) -> Region:
        pictures = to_pictures(images_BCHW)
        pairs = [(picture, i.text) for picture, one in zip(pictures, requests, strict=True) for i in one.instructions]
        answers = iter(self._boxes(pairs))
        boxes = tuple(tuple(tuple(next(answers)) for _ in request.instructions) for request in requests)
        count = max(map(len, boxes))
        claims_BKHW = torch.zeros(len(requests), count, *images_BCHW.shape[-2:])
        for b, of_picture in enumerate(boxes):
            for k, of_instruction in enumerate(of_picture):
                for x0, y0, x1, y1 in of_instruction:
                    claims_BKHW[b, k, y0:y1, x0:x1] = 1
        mask_B1HW = claims_BKHW.amax(1, keepdim=True)
        parts_BKHW = divide(mask_B1HW, claims_BKHW) if count > 1 else None
        return Region(mask_B1HW, mask_B1HW, parts_BKHW, boxes=boxes)

    def _boxes(self, pairs: Sequence[tuple[Image.Image, str]]) -> list[Boxes]:
        """The boxes for each picture and instruction, in pixels of the picture; each question is sent once.

        Raises ValueError: the first failure; the other answers are kept, so that their questions are not sent again.
        """
        keys = [(digest(picture), text) for picture, text in pairs]
        missing = {key: pair for key, pair in zip(keys, pairs, strict=True) if key not in self._known}
        for key in list(missing):
            if stored := self.cache.get(self._stored_under(key)):
                self._known[key] = [tuple(box) for box in json.loads(stored["boxes"])]
                del missing[key]
        chats = [self._chat(picture, text) for picture, text in missing.values()]
        answers = ask(self.model, chats, BoxAnswers, FIELD, "box")
        failures = []
        for (key, (picture, _)), chat, answer in zip(missing.items(), chats, answers, strict=True):
            if isinstance(answer, ValueError):
                advised = str(answer).startswith(f"{FIELD}.")  # the endpoint's errors say what to do
                failures.append(answer if advised else ValueError(f"{answer}; {ADVICE}"))
                continue
            try:
                self._known[key] = [self._in_pixels(box.bbox_2d, picture, chat.picture) for box in answer.root]
            except ValueError as error:
                failures.append(error)
                continue
            self.cache.put(self._stored_under(key), {"boxes": json.dumps(self._known[key])})
        if failures:
            raise failures[0]
        return [self._known[key] for key in keys]

    def _stored_under(self, key: tuple[str, str]) -> list:
        return ["boxes", *key, self.model.identity, self.config.vlm_box.coordinates, prompt("boxes").sha256]

    def _chat(self, picture: Image.Image, text: str) -> Chat:
        sent = smaller(picture, self.config.vlm_box.picture_size)
        if self.config.vlm_box.coordinates == "normalised":
            counted = f"from 0 to {FULL} over the picture's width and over its height, whatever its size"
        else:
            most = self.config.vlm_box.picture_size // CELL * CELL
            sides = [max(SMALLEST, min(round(side / CELL) * CELL, most)) for side in sent.size]
            sent = sent.resize(sides, Image.Resampling.BICUBIC)
            counted = f"in pixels; the picture is {sent.width} pixels wide and {sent.height} pixels high"
        return prompt("boxes").chat(sent, instruction=text, coordinates=counted)

    def _in_pixels(self, corners: Corners, picture: Image.Image, sent: Image.Image) -> tuple[int, int, int, int]:
        """A box as the model counts, in whole pixels of the picture that it touches.

        Raises ValueError: it lies far outside the picture.
        """
        normalised = self.config.vlm_box.coordinates == "normalised"
        units = (FULL, FULL) if normalised else sent.size
        beyond = any(
            not -DRIFT * units[axis % 2] <= at <= (1 + DRIFT) * units[axis % 2] for axis, at in enumerate(corners)
        )
        x0, y0, x1, y1 = (at / units[axis % 2] * picture.size[axis % 2] for axis, at in enumerate(corners))
        box = max(floor(x0), 0), max(floor(y0), 0), min(ceil(x1), picture.width), min(ceil(y1), picture.height)
        if beyond or not (box[0] < box[2] and box[1] < box[3]):
            given, other = ",".join(f"{at:g}" for at in corners), "pixels" if normalised else "normalised"
            raise ValueError(
                f"{FIELD}.coordinates: {self.model.identity['name']} gave the box {given} of a picture with "
                f"{units[0]}x{units[1]} units, outside of it; if the model counts otherwise, set {other}"
            )
        return box
