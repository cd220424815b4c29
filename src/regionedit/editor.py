"""One edit, top to bottom: captions -> region -> generator -> blending at the original size -> result and record.

Shape letters: B pictures of one size, C channels, H W their pixels.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from regionedit.command_line import load_config
from regionedit.config import EditConfig
from regionedit.crop_and_stitch import paint, require_crop
from regionedit.describe import Needs, require_describer
from regionedit.device import pick_device
from regionedit.generators import Need, Watch, require_generator
from regionedit.images import to_pictures, to_tensor, upright_rgb
from regionedit.mask_sources import require_mask_source, wanted_mask_source, with_untrained
from regionedit.models import Models
from regionedit.precision import describe_precision, settle_editing
from regionedit.provenance import request_digest, run_record
from regionedit.records import EditFailure, EditRequest, EditResult, FoundRegion, Region
from regionedit.results import as_one, compose, maps, next_step

if TYPE_CHECKING:
    from PIL.Image import Image

    from regionedit.records import Captions

PIXELS_TOGETHER = 16_000_000  # a batch has at most this many pixels in total, whatever `batch` says


@dataclass
class Draft:
    """State of a request between the stages; `worded` is the request with the keywords that a language model named."""

    request: EditRequest
    mask_source: str
    captions: Captions | None = None
    captions_from: str | None = None
    worded: EditRequest | None = None
    timings: dict[str, float] = field(default_factory=dict)


class Editor:
    """Edits pictures with the models and settings of a configuration. Pixels where the mask is 0 stay as they were, bit
    for bit.

    Args:
        config: the whole configuration; use `from_config`.
        models: models that another editor loaded for this configuration; settings such as steps and guidance may
            differ.
        watch: callback `(step, total, decode_preview)`, called after every denoising step; previews have the size of
            the sources; see `generators.Watch`.

    Raises:
        ValueError: an unknown name in the configuration; it is found before anything is loaded.
    """

    def __init__(self, config: EditConfig, models: Models | None = None, watch: Watch | None = None):
        mask_source, self.untrained = with_untrained(config.mask_source, config.region)
        require_mask_source(mask_source)
        require_generator(config.generator.name)
        require_describer(config.describe.name).check(config.describe)
        require_crop(config.crop)
        device = models.device if models else pick_device(config.device)
        self.config = config = settle_editing(replace(config, mask_source=mask_source), device)
        self.models = models or Models(config)
        self.watch = watch

    @property
    def computes(self) -> str:
        """Device and precision as a short text for the terminal."""
        return describe_precision(self.config, self.models.device)

    @classmethod
    def from_config(cls, config: EditConfig | str | Path) -> Editor:
        """An editor from a configuration or a YAML file."""
        return cls(config if isinstance(config, EditConfig) else load_config(EditConfig, config))

    def using(self, mask_source: str) -> Editor:
        """The same editor with another mask source; it shares the loaded models."""
        return Editor(replace(self.config, mask_source=mask_source), self.models)

    def edit(self, request: EditRequest) -> EditResult:
        """Edit one picture.

        Raises:
            ValueError: something is missing in the configuration or the request; the message is one line that names it.
        """
        done: list[EditResult] = []
        while len(done) < self._steps(request):
            draft = self._draft(self._next(request, done))
            self._load([draft])
            done += self._edit_together([draft])
        return self._whole(request, done)

    def find(self, request: EditRequest) -> FoundRegion:
        """The region that `edit` would edit, and the captions that it would use. A generator that only repaints is not
        loaded.

        If the describer fails on captions that only the generator reads, they are left out and the note gives the
        reason.

        Raises:
            ValueError: something is missing in the configuration or the request; the message is one line that names it.
        """
        draft = self._draft(request)
        finder = self.models.mask_source(draft.mask_source, self.config.region)
        caption_error = ""
        with self._stage("captions", [draft]):
            try:
                self._describe([draft])
            except ValueError as error:
                if require_mask_source(draft.mask_source).captions_with(self._generator_needs):
                    raise
                caption_error, draft.worded = _one_line(error), draft.request
        with torch.no_grad(), self._stage("region", [draft]):
            region = _as_saved(finder.find(to_tensor([draft.request.image]), [draft.worded], [draft.captions]))
        (region_maps,) = maps(region, [draft.request])
        untrained = self.untrained if draft.mask_source == self.config.mask_source else ""
        return FoundRegion(
            mask=to_pictures(region.mask_B1HW)[0],
            probability=region_maps["probability"],
            patches=region_maps["patches"],
            captions=draft.captions,
            mask_source=draft.mask_source,
            note="; ".join(filter(None, [untrained, region_maps["note"], caption_error])),
            timings=draft.timings,
        )

    def edit_batch(self, requests: Sequence[EditRequest]) -> list[EditResult | EditFailure]:
        """Edit many requests; pictures of one size are batched, and a request that fails does not stop the others.

        Raises:
            ValueError: something is missing in the configuration that every request needs.
        """
        done: list[list[EditResult]] = [[] for _ in requests]
        failed: dict[int, EditFailure] = {}
        for step in range(max(map(self._steps, requests), default=0)):
            indices = [p for p, r in enumerate(requests) if p not in failed and step < self._steps(r)]
            outcomes = self._edit_once([self._next(requests[p], done[p]) for p in indices])
            for index, outcome in zip(indices, outcomes, strict=True):
                if isinstance(outcome, EditFailure):
                    failed[index] = replace(outcome, reason=f"step {step + 1}: {outcome.reason}") if step else outcome
                else:
                    done[index].append(outcome)
        return [failed.get(index) or self._whole(request, done[index]) for index, request in enumerate(requests)]

    def _steps(self, request: EditRequest) -> int:
        return 1 if self.config.joint else len(request.instructions)

    def _next(self, request: EditRequest, done: list[EditResult]) -> EditRequest:
        return request if self._steps(request) == 1 else next_step(request, done)

    def _whole(self, request: EditRequest, done: list[EditResult]) -> EditResult:
        if self._steps(request) == 1:
            return done[0]
        draft = self._draft(request)
        return as_one(request, done, run_record(self.config, draft.request, draft.mask_source))

    # ------------------------------------------------------------ batches and failures

    def _edit_once(self, requests: Sequence[EditRequest]) -> list[EditResult | EditFailure]:
        outcomes: dict[int, EditResult | EditFailure] = {}
        drafts: dict[int, Draft] = {}
        for index, request in enumerate(requests):
            try:
                drafts[index] = self._draft(request)
            except ValueError as error:
                outcomes[index] = EditFailure(request.id, _one_line(error))
        self._load(drafts.values())
        for indices in self._groups(drafts):
            outcomes |= zip(indices, self._edit_or_fail([drafts[index] for index in indices]), strict=True)
        return [outcomes[index] for index in range(len(requests))]

    def digest(self, request: EditRequest) -> str:
        """SHA-256 of everything that decides the result; run.json stores it, so that finished edits are recognised."""
        draft = self._draft(request)
        return request_digest(self.config, draft.request, draft.mask_source)

    def _draft(self, request: EditRequest) -> Draft:
        return Draft(
            replace(request, image=upright_rgb(request.image)),
            mask_source=wanted_mask_source(self.config.mask_source, request.marks),
        )

    def _load(self, drafts) -> None:
        """Load the models that these requests need, the region first, so that configuration errors appear here."""
        for name in sorted({draft.mask_source for draft in drafts}):
            self.models.mask_source(name, self.config.region)
        _ = self.models.generator_with(self.config.generator)
        if not all(self._needs(draft.mask_source).met(draft.request) for draft in drafts):
            _ = self.models.describer

    def _groups(self, drafts: dict[int, Draft]) -> Iterator[list[int]]:
        by_kind: dict[tuple, list[int]] = {}
        for index, draft in drafts.items():
            by_kind.setdefault((draft.request.image.size, draft.mask_source), []).append(index)
        for (size, _), indices in by_kind.items():
            count = max(1, min(self.config.batch, PIXELS_TOGETHER // (size[0] * size[1])))
            yield from (indices[start : start + count] for start in range(0, len(indices), count))

    def _edit_or_fail(self, drafts: list[Draft]) -> list[EditResult | EditFailure]:
        try:
            return self._edit_together(drafts)
        except (ValueError, RuntimeError, OSError) as error:
            if len(drafts) == 1:
                return [EditFailure(drafts[0].request.id, _one_line(error))]
        return [outcome for draft in drafts for outcome in self._edit_or_fail([draft])]

    # ------------------------------------------------------------ the stages of an edit

    @torch.no_grad()
    def _edit_together(self, drafts: list[Draft]) -> list[EditResult]:
        """Edit requests whose pictures have one size and whose mask source is the same."""
        with self._stage("captions", drafts):
            self._describe(drafts)
        requests, captions = [draft.worded for draft in drafts], [draft.captions for draft in drafts]
        images_BCHW = to_tensor([request.image for request in requests])
        with self._stage("region", drafts):
            finder = self.models.mask_source(drafts[0].mask_source, self.config.region)
            region = _as_saved(finder.find(images_BCHW, requests, captions))
        edited = [index for index, mask_1HW in enumerate(region.mask_B1HW) if mask_1HW.any()]
        pictures, masks = [request.image for request in requests], to_pictures(region.mask_B1HW)
        if edited:
            with self._stage("generate", [drafts[index] for index in edited]):
                patches = paint(
                    self.models.generator_with(self.config.generator),
                    images_BCHW,
                    region,
                    edited,
                    requests,
                    captions,
                    self.config.crop,
                    self.config.batch,
                    self.watch,
                )
            with self._stage("composite", [drafts[index] for index in edited]):
                for index, patches_of_picture in patches.items():
                    pictures[index] = compose(pictures[index], patches_of_picture, masks[index], self.config.crop.match)
        return [self._result(*row) for row in zip(drafts, pictures, masks, maps(region, requests), strict=True)]

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

    def _describe(self, drafts: list[Draft]) -> None:
        """Fill in the captions and keywords that generator and mask source read; given ones are never computed."""
        needs = self._needs(drafts[0].mask_source)
        results = needs.captions([draft.request for draft in drafts], lambda: self.models.describer)
        for draft, (captions, described) in zip(drafts, results, strict=True):
            draft.captions = captions
            draft.captions_from = self.config.describe.name if described else captions and "given"
            draft.worded = needs.worded(draft.request, lambda: self.models.describer)

    def _result(self, draft: Draft, picture: Image, mask: Image, region_maps: dict) -> EditResult:
        request = draft.request
        empty_note = "" if mask.getbbox() else "the region is empty: the picture is returned as it was"
        untrained = self.untrained if draft.mask_source == self.config.mask_source else ""
        note = "; ".join(filter(None, [empty_note, untrained, region_maps["note"], *request.image.info["notes"]]))
        result = EditResult(
            id=request.id,
            image=picture,
            mask=mask,
            probability=region_maps["probability"],
            patches=region_maps["patches"],
            captions=draft.captions,
            timings=draft.timings,
            record=run_record(self.config, request, draft.mask_source),
            note=note,
            source=request.image,
            parts=region_maps["parts"],
        )
        result.record.update(
            captions=draft.captions and asdict(draft.captions) | {"from": draft.captions_from},
            instructions=[asdict(instruction) for instruction in draft.worded.instructions],
            edited_share=round(result.share, 6),
            note=note,
            device=str(self.models.device),
            seconds={stage: round(seconds, 4) for stage, seconds in draft.timings.items()},
        )
        return result

    @contextmanager
    def _stage(self, name: str, drafts: list[Draft]) -> Iterator[None]:
        """Time a stage; its duration is divided equally among the requests."""
        start = time.perf_counter()
        yield
        if self.models.device.type == "cuda":
            torch.cuda.synchronize(self.models.device)
        for draft in drafts:
            draft.timings[name] = (time.perf_counter() - start) / len(drafts)


def _as_saved(region: Region) -> Region:
    """Round the mask to 8 bits, so that the blending mask equals mask.png: pixels that are 0 there do not change."""
    return replace(region, mask_B1HW=(region.mask_B1HW * 255).round() / 255)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:500]
