"""What the page does, without the page: open uploads, find regions, edit. One request at a time uses the models."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from regionedit.config import AppConfig
from regionedit.editor import Editor
from regionedit.images import open_mask, open_picture, require_inside, require_mask_size, to_pictures, to_tensor
from regionedit.records import EditFailure, EditRequest
from regionedit.web.sketch import Cut, Sketch
from regionedit.web.uploads import Uploads

if TYPE_CHECKING:
    from PIL.Image import Image

    from regionedit.records import EditResult
    from regionedit.web.settings import Settings

PREVIEW_EVERY = 0.25
"""Seconds between previews at least: each costs a decoding."""

Preview = Callable[[int, int, list["Image"] | None], None]
"""Told of a step: its number, how many there are, and the pictures as they look now, or None to save time."""


class Studio:
    """The functions behind the page and its API.

    Args:
        config: of the page.

    Raises:
        ValueError: a name in the configuration that nobody knows.
    """

    def __init__(self, config: AppConfig):
        self.config = config
        self.editor = Editor.from_config(config)
        self.lock = threading.Lock()
        self.uploads = Uploads()

    def warm_up(self) -> None:
        """Load what the first region and the first edit would wait for."""
        with self.lock:
            if "drawn" not in self.editor.config.mask_source:
                self.editor.models.mask_source(self.editor.config.mask_source, self._bare_region)
            _ = self.editor.models.generator, self.editor.models.describer

    # ------------------------------------------------------------ uploads

    def open(self, path: str | Path, name: str = "") -> Image:
        """An uploaded picture as upright RGB that knows the name of its file and nothing of this machine's folders.

        Raises:
            ValueError: too large in bytes or pixels, or no picture.
        """
        path, name = Path(path), name or Path(path).name
        try:
            self.check_size(path, name)
            picture = open_picture(path, self.config.max_pixels)
        except ValueError as error:
            raise ValueError(str(error).replace(str(path), f"picture {name!r}")) from None
        picture.info["path"] = name
        return picture

    def open_mask(self, path: str | Path, picture: Image) -> Image:
        """An uploaded mask of a picture, mode "L". Raises ValueError: as `open`, or of another size."""
        try:
            self.check_size(Path(path), "mask")
            mask = open_mask(path, self.config.max_pixels)
        except ValueError as error:
            raise ValueError(str(error).replace(str(path), "mask")) from None
        require_mask_size(mask, picture)
        return mask

    def check_size(self, path: Path, name: str) -> None:
        """Refuse a file of too many bytes, or one that is deleted already; it counts as read. Raises ValueError."""
        if not path.exists():
            raise ValueError(f"file {name!r}: it is no longer on the server; choose it again")
        self.uploads.read(path)
        megabytes = path.stat().st_size / 1e6
        if megabytes > self.config.max_megabytes:
            raise ValueError(f"file {name!r}: {megabytes:.1f} MB, at most {self.config.max_megabytes} are accepted")

    # ------------------------------------------------------------ regions

    @property
    def _bare_region(self):
        return replace(self.config.region, grow=0, feather=0.0)

    def find(self, settings: Settings, sketch: Sketch) -> Sketch:
        """The sketch with the region where the instruction would be carried out; corrections stay.

        Raises:
            ValueError: one sentence that names what is wrong.
        """
        settings.check(self.config)
        request = settings.request(sketch.picture)
        with self.lock:
            bare = Editor(replace(self.editor.config, region=self._bare_region), self.editor.models)
            return replace(sketch, found=bare.find(request), instruction=settings.instruction, given=False)

    def thing_at(self, picture: Image, point: Sequence[int]) -> Image:
        """The thing at a point (x, y), by Segment Anything, as a mask of mode "L"; empty where it finds none.

        Raises:
            ValueError: outside the picture; no Segment Anything on this machine.
        """
        request = EditRequest(picture, "select", click=tuple(int(value) for value in point))
        require_inside(picture.size, request.click)
        with self.lock:
            sam = self.editor.models.mask_source("sam", self._bare_region)
            return to_pictures(sam.find(to_tensor([picture]), [request], [None]).mask_B1HW)[0]

    # ------------------------------------------------------------ edits

    def edit(
        self, settings: Settings, sketch: Sketch, cut: Cut, preview: Preview | None = None, mask: Image | None = None
    ) -> list[EditResult]:
        """The variants of an edit; what a person saw as the region is where it happens.

        A region that nobody changed is left to the editor, whose result is then infer.py's, bit for bit.

        Args:
            preview: told of the steps; what it raises ends the edit.
            mask: takes the place of the sketch's region.

        Raises:
            ValueError: one sentence that names what is wrong.
        """
        settings.check(self.config)
        if mask is None and not sketch.is_own(cut, self.config.region):
            mask = sketch.mask(cut, self.config.region)
        config = settings.configuration(self.editor.config)
        if mask is not None:
            config = replace(config, region=self._bare_region)
        requests = [settings.request(sketch.picture, mask, variant) for variant in range(settings.variants)]
        with self.lock:
            editor = Editor(config, self.editor.models, preview and _throttled(preview))
            outcomes = editor.edit_batch(requests)
        for outcome in outcomes:
            if isinstance(outcome, EditFailure):
                raise ValueError(outcome.reason)
        return outcomes


def _throttled(preview: Preview):
    shown = time.monotonic()

    def watch(step, steps, guess):
        nonlocal shown
        pictures = None
        if step < steps and time.monotonic() - shown > PREVIEW_EVERY:
            pictures = to_pictures(guess())
            shown = time.monotonic()
        preview(step, steps, pictures)

    return watch
