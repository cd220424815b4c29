"""One edit, top to bottom: captions -> region -> generator -> blending at the original size -> result and record.

Shape letters: B pictures of one size, C channels, H W their pixels.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from regionedit.command_line import load_config, one_line
from regionedit.config import EditConfig
from regionedit.crop_and_stitch import paint, require_crop
from regionedit.cut_objects import cut_off, with_notes_on_cuts
from regionedit.describe import Needs, require_describer
from regionedit.device import pick_device
from regionedit.dtypes import describe_dtypes, resolve_editing
from regionedit.edit_steps import Located, Prepared
from regionedit.generators import Need, Watch, require_generator
from regionedit.images import to_tensor
from regionedit.mask_sources import grown, require_mask_source, wanted_mask_source, with_untrained
from regionedit.models import Models
from regionedit.originals import as_configured, file_notes, with_original
from regionedit.provenance import request_digest, run_record
from regionedit.records import EditFailure, EditRequest, EditResult, FoundRegion
from regionedit.results import compose, joined, maps, measured, one_after_another

if TYPE_CHECKING:
    from PIL.Image import Image

    from regionedit.results import Patch

PIXELS_TOGETHER = 16_000_000  # a batch has at most this many pixels in total, whatever `batch` says


class Editor:
    """Edits pictures as a configuration says. Pixels where the mask is 0 stay as they were, bit for bit.

    Args:
        config: the whole configuration; use `from_config`.
        models: the models of another editor, to share what it has loaded; None: load everything anew.
        watch: called after every denoising step, see `generators.Watch`; previews have the size of the sources.

    Raises ValueError: an unknown name in the configuration; it is found before anything is loaded.
    """

    def __init__(self, config: EditConfig, models: Models | None = None, watch: Watch | None = None):
        mask_source, self.untrained = with_untrained(config.mask_source, config.region)
        require_mask_source(mask_source)
        require_generator(config.generator.name)
        require_describer(config.describe.name).check(config.describe)
        require_crop(config.crop)
        device = models.device if models else pick_device(config.device)
        self.config = config = resolve_editing(replace(config, mask_source=mask_source), device)
        self.models = models or Models(device)
        self.watch = watch

    @property
    def computes(self) -> str:
        """Device and dtypes as a short text for the terminal."""
        return describe_dtypes(self.config, self.models.device)

    @classmethod
    def from_config(cls, config: EditConfig | str | Path) -> Editor:
        """An editor from a configuration or a YAML file. Raises ValueError: as the class, or the file is wrong."""
        return cls(config if isinstance(config, EditConfig) else load_config(EditConfig, config))

    def edit(self, request: EditRequest) -> EditResult:
        """Edit one picture.

        Raises:
            ValueError: the configuration or the request lacks something; the message is one line that names it.
            RuntimeError, OSError: a model failed, for example for lack of memory.
        """
        (outcome,) = self.edit_batch([request])
        if isinstance(outcome, EditFailure):
            raise outcome.error
        return outcome

    def find(self, request: EditRequest) -> FoundRegion:
        """The region that `edit` would edit, and its captions; a generator that only repaints is not loaded.

        If the describer fails on captions that only the generator reads, they are left out; the note gives the reason.

        Raises ValueError: as for `edit`.
        """
        started = self._start(request)
        caption_error = ""
        try:
            (prepared,) = self._prepare([started])
        except ValueError as error:
            if require_mask_source(started.mask_source).captions_with(self._generator_needs):
                raise
            caption_error, prepared = one_line(error, 500), started
        (found,) = self._found(self._locate([prepared]))
        return replace(found, note=joined(found.note, caption_error))

    def edit_batch(
        self, requests: Sequence[EditRequest], finished: Collection[int] = frozenset()
    ) -> list[EditResult | EditFailure]:
        """Edit many requests; pictures of one size are batched, and a request that fails does not stop the others.

        Args:
            finished: places of requests that were edited earlier. They have no outcome and are computed only in a batch
                with others, because the last bits of a result depend on its batch: so the others become what they would
                have been if all had been edited at once.

        Raises ValueError: something is missing in the configuration that every request needs.
        """
        if self.config.joint:
            return self._edit_once(requests, finished)
        outcomes = one_after_another(requests, self._edit_once, self._record)
        return [outcome for index, outcome in enumerate(outcomes) if index not in finished]

    def digest(self, request: EditRequest) -> str:
        """SHA-256 of everything that decides the result; run.json stores it, so that finished edits are recognised."""
        started = self._start(request)
        return request_digest(self.config, started.request, started.mask_source)

    def _record(self, request: EditRequest) -> dict[str, Any]:
        started = self._start(request)
        return run_record(self.config, started.request, started.mask_source)

    def _edit_once(
        self, requests: Sequence[EditRequest], finished: Collection[int] = frozenset()
    ) -> list[EditResult | EditFailure]:
        outcomes: dict[int, EditResult | EditFailure] = {}
        started: dict[int, Prepared] = {}
        for index, request in enumerate(requests):
            try:
                started[index] = self._start(request)
            except ValueError as error:
                outcomes[index] = EditFailure(request.id, one_line(error, 500), error)
        groups = [indices for indices in self._groups(started) if not set(indices) <= set(finished)]
        self._load([started[index] for indices in groups for index in indices])
        for indices in groups:
            outcomes |= zip(indices, self._edit_or_fail([started[index] for index in indices]), strict=True)
        return [outcomes[index] for index in range(len(requests)) if index not in finished]

    def _start(self, request: EditRequest) -> Prepared:
        view = as_configured(with_original(request.image), self.config.depth, self.config.strip_metadata)
        upright = replace(request, image=view)
        return Prepared(upright, upright, wanted_mask_source(self.config.mask_source, upright.marks))

    def _load(self, started: Sequence[Prepared]) -> None:
        """Load the models that these requests need, the region first, so that configuration errors appear here."""
        for name in sorted({one.mask_source for one in started}):
            self.models.mask_source(name, self.config)
        self.models.generator(self.config)
        if not all(self._needs(one.mask_source).met(one.request) for one in started):
            self.models.describer(self.config)

    def _groups(self, started: dict[int, Prepared]) -> Iterator[list[int]]:
        by_kind: dict[tuple, list[int]] = {}
        for index, one in started.items():
            by_kind.setdefault((one.request.image.size, one.mask_source), []).append(index)
        for (size, _), indices in by_kind.items():
            count = max(1, min(self.config.batch, PIXELS_TOGETHER // (size[0] * size[1])))
            yield from (indices[start : start + count] for start in range(0, len(indices), count))

    def _edit_or_fail(self, started: list[Prepared]) -> list[EditResult | EditFailure]:
        try:
            located = self._locate(self._prepare(started))
            return self._composite(*self._repaint_if_cut(located, self._paint(located)))
        except (ValueError, RuntimeError, OSError) as error:
            if len(started) == 1:
                return [EditFailure(started[0].request.id, one_line(error, 500), error)]
        return [outcome for one in started for outcome in self._edit_or_fail([one])]

    def _prepare(self, started: list[Prepared]) -> list[Prepared]:
        """Fill in the captions and keywords that generator and mask source read; given ones are never computed."""
        needs = self._needs(started[0].mask_source)
        describer = partial(self.models.describer, self.config)
        with self._stage("captions", started):
            results = needs.captions([one.request for one in started], describer)
            return [
                replace(
                    one,
                    full_request=needs.with_keywords(one.request, describer),
                    captions=captions,
                    captions_from=self.config.describe.name if described else captions and "given",
                )
                for one, (captions, described) in zip(started, results, strict=True)
            ]

    @torch.no_grad()
    def _locate(self, prepared: list[Prepared]) -> Located:
        """Find the regions; the pictures have one size and the requests one mask source."""
        requests, captions = [one.full_request for one in prepared], [one.captions for one in prepared]
        images_BCHW = to_tensor([request.image for request in requests])
        with self._stage("region", prepared):
            finder = self.models.mask_source(prepared[0].mask_source, self.config)
            region = finder.find(images_BCHW, requests, captions)
            region = replace(region, mask_B1HW=(region.mask_B1HW * 255).round() / 255)
        return Located(prepared, images_BCHW, region)

    @torch.no_grad()
    def _paint(self, located: Located, places: Sequence[int] | None = None) -> dict[int, list[Patch]]:
        """The repainted windows around each region, or those at `places`, by the request's place; no entry where the
        region is empty."""
        masks = enumerate(located.region.mask_B1HW)
        edited = [place for place, mask_1HW in masks if mask_1HW.any() and (places is None or place in places)]
        if not edited:
            return {}
        with self._stage("generate", [located.requests[place] for place in edited]):
            return paint(
                self.models.generator(self.config),
                located.images_BCHW,
                located.region,
                edited,
                [one.full_request for one in located.requests],
                [one.captions for one in located.requests],
                self.config.crop,
                self.config.batch,
                self.watch,
            )

    def _repaint_if_cut(
        self, located: Located, patches: dict[int, list[Patch]]
    ) -> tuple[Located, dict[int, list[Patch]]]:
        """`region.grow_if_cut`: what was cut off at its region's border is painted again, once, in a larger region."""
        pixels = self.config.region.grow_if_cut
        cut = cut_off(located.images_BCHW, located.region, patches) if pixels else []
        if not cut:
            return located, patches
        located = replace(located, region=grown(located.region, cut, pixels, self.config.region.feather))
        again = self._paint(located, cut)
        still = cut_off(located.images_BCHW, located.region, again)
        return replace(located, region=with_notes_on_cuts(located.region, cut, still, pixels)), patches | again

    def _found(self, located: Located) -> list[FoundRegion]:
        found = []
        region_maps = maps(located.region, [one.full_request for one in located.requests])
        for one, fields in zip(located.requests, region_maps, strict=True):
            untrained = self.untrained if one.mask_source == self.config.mask_source else ""
            fields["note"] = joined(untrained, fields["note"])
            found.append(FoundRegion(**fields, captions=one.captions, mask_source=one.mask_source, timings=one.timings))
        return found

    def _composite(self, located: Located, patches: dict[int, list[Patch]]) -> list[EditResult]:
        """Blend the patches into the sources at their own size."""
        found, pictures = self._found(located), [one.request.image for one in located.requests]
        with self._stage("composite", [located.requests[place] for place in patches]):
            for place, own_patches in patches.items():
                pictures[place] = compose(pictures[place], own_patches, found[place].mask, self.config.crop.match)
                notes = dict.fromkeys(patch.note for patch in own_patches)  # each note once
                found[place] = replace(found[place], note=joined(found[place].note, *notes))
        return [self._result(*row) for row in zip(located.requests, found, pictures, strict=True)]

    def _result(self, prepared: Prepared, found: FoundRegion, picture: Image) -> EditResult:
        request = prepared.request
        empty_note = "" if found.mask.getbbox() else "the region is empty: the picture is returned as it was"
        note = joined(empty_note, found.note, *file_notes(request.image, request.mask, found.mask, self.config.format))
        record = run_record(self.config, request, prepared.mask_source)
        fields = {"note": note, "source": request.image, "image": picture, "id": request.id, "record": record}
        result = EditResult(**vars(found) | fields, format=self.config.format, layers=self.config.layers)
        record.update(
            captions=found.captions and asdict(found.captions) | {"from": prepared.captions_from},
            instructions=[asdict(instruction) for instruction in prepared.full_request.instructions],
            **measured(result, str(self.models.device)),
        )
        return result

    @cached_property
    def _generator_needs(self) -> Need:
        return require_generator(self.config.generator.name).needs_of(self.config.generator)

    def _needs(self, mask_source: str) -> Needs:
        plan = require_mask_source(mask_source)
        captions_read = plan.captions_with(self._generator_needs)
        return Needs(
            source="source" in captions_read,
            target="target" in captions_read or self._generator_needs == "target_caption",
            keywords=plan.needs_keywords and require_describer(self.config.describe.name).names_keywords,
        )

    @contextmanager
    def _stage(self, name: str, requests: Sequence[Prepared]) -> Iterator[None]:
        """Time a stage; its duration is divided equally among the requests."""
        start = time.perf_counter()
        yield
        if self.models.device.type == "cuda":
            torch.cuda.synchronize(self.models.device)
        for one in requests:
            one.timings[name] = (time.perf_counter() - start) / len(requests)
