"""The functions behind the page: open uploads, find regions, edit. One request at a time uses the models."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from regionedit.config import AppConfig
from regionedit.editor import Editor
from regionedit.images import require_inside, to_pictures, to_tensor
from regionedit.mask_files import AUTO, MaskReading, open_mask
from regionedit.originals import open_source
from regionedit.records import EditFailure, EditRequest
from regionedit.web.sketch import Cut, Sketch
from regionedit.web.uploads import Uploads

if TYPE_CHECKING:
    from PIL.Image import Image

    from regionedit.config import EditConfig
    from regionedit.records import EditResult
    from regionedit.web.settings import Settings

PREVIEW_EVERY = 0.25
"""Minimum seconds between previews: each preview decodes the latents."""

Preview = Callable[[int, int, list["Image"] | None], None]
"""Callback `(step, steps, pictures)` after every denoising step; `pictures`: a preview of each variant, or None."""


class Studio:
    """The editor, its lock and the uploads, shared by the page and its API.

    Args:
        config: configuration of the page.

    Raises ValueError: an unknown name in the configuration. Its methods raise it with one sentence for the user.
    """

    def __init__(self, config: AppConfig):
        self.config = config
        self.editor = Editor.from_config(config)
        self.lock = threading.Lock()
        self.uploads = Uploads()

    def warm_up(self) -> None:
        """Load the models of the first region and the first edit."""
        with self.lock:
            if "drawn" not in self.editor.config.mask_source:
                self.editor.models.mask_source(self.editor.config.mask_source, bare(self.editor.config))
            _ = self.editor.models.generator(self.editor.config), self.editor.models.describer(self.editor.config)

    def open(self, path: str | Path, name: str = "") -> Image:
        """Open an uploaded picture as `open_source`; it holds the name of its file but no folder of this machine."""
        path, name = Path(path), name or Path(path).name
        try:
            self.check_size(path, name)
            picture = open_source(path, self.config.max_pixels)
        except ValueError as error:
            raise ValueError(str(error).replace(str(path), f"picture {name!r}")) from None
        picture.info["path"] = name
        return picture

    def open_mask(self, path: str | Path, picture: Image, reading: MaskReading = AUTO, name: str = "") -> Image:
        """Open an uploaded mask of a picture, mode "L"; its notes say how it was read."""
        path, name = Path(path), name or Path(path).name
        try:
            self.check_size(path, name)
            mask = open_mask(path, reading, picture, self.config.max_pixels)
        except ValueError as error:
            raise ValueError(str(error).replace(str(path), repr(name))) from None
        mask.info["path"] = name
        return mask

    def check_size(self, path: Path, name: str) -> None:
        """Mark the file as read. Raises ValueError: too many bytes, or already deleted."""
        if not path.exists():
            raise ValueError(f"file {name!r}: it is no longer on the server; choose it again")
        self.uploads.read(path)
        megabytes = path.stat().st_size / 1e6
        if megabytes > self.config.max_megabytes:
            raise ValueError(f"file {name!r}: {megabytes:.1f} MB, at most {self.config.max_megabytes} are accepted")

    def find(self, settings: Settings, sketch: Sketch) -> Sketch:
        """The sketch with the region that is found for the instruction; corrections are kept."""
        settings.check(self.config)
        request = settings.request(sketch.picture)
        with self.lock:
            editor = Editor(bare(self.editor.config), self.editor.models)
            return replace(sketch, found=editor.find(request), instruction=settings.instruction, given=False)

    def object_at(self, picture: Image, point: Sequence[int]) -> Image:
        """The object at a point (x, y), found by Segment Anything: a mask of mode "L", empty if there is none."""
        request = EditRequest(picture, "select", click=tuple(int(value) for value in point))
        require_inside(picture.size, request.click)
        with self.lock:
            sam = self.editor.models.mask_source("sam", bare(self.editor.config))
            return to_pictures(sam.find(to_tensor([picture]), [request], [None]).mask_B1HW)[0]

    def edit(
        self,
        settings: Settings,
        sketch: Sketch,
        cut: Cut,
        preview: Preview | None = None,
        mask: Image | None = None,
        mask_operations: str = "",
    ) -> list[EditResult]:
        """Edit the region that the user sees; one result for each variant.

        If the user did not change the region, the editor finds it itself: the result equals infer.py's, bit for bit.

        Args:
            preview: callback after each step; an exception in it ends the edit.
            mask: replaces the sketch's region.
            mask_operations: names of operations on the region, separated by commas.
        """
        settings.check(self.config)
        if mask is None and not sketch.is_own(cut, self.config.region):
            mask = sketch.mask(cut, self.config.region)
        config = settings.configuration(self.editor.config)
        if mask is not None:
            config = bare(config)
        requests = [settings.request(sketch.picture, mask, variant) for variant in range(settings.variants)]
        requests = [replace(request, mask_operations=mask_operations) for request in requests]
        with self.lock:
            editor = Editor(config, self.editor.models, preview and _throttled(preview))
            outcomes = editor.edit_batch(requests)
        for outcome in outcomes:
            if isinstance(outcome, EditFailure):
                raise ValueError(outcome.reason)
        return outcomes


def bare(config: EditConfig) -> EditConfig:
    """The configuration without growing and feathering, which the page's sliders do instead."""
    return replace(config, region=replace(config.region, grow=0, feather=0.0))


def _throttled(preview: Preview):
    last = time.monotonic()

    def watch(step, steps, guess):
        nonlocal last
        pictures = None
        if step < steps and time.monotonic() - last > PREVIEW_EVERY:
            pictures = to_pictures(guess())
            last = time.monotonic()
        preview(step, steps, pictures)

    return watch
