"""Turn captions into the lines of a sidecar: make the requests, send them to the writer, validate its answers."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instruction_schema import BadAnswer, read_answer
from prompt_file import Prompt
from shard_captions import CaptionedSample
from write_config import WriteConfig
from writers import Ask, Writer, WriterSettingError, fraction, require_writer, seed_of

if TYPE_CHECKING:
    from PIL import Image

_BATCH = 64  # pictures that the describer gets at once


class InstructionLines:
    """Makes one sidecar line for each sample. The models are loaded on first use; `mix` is operation -> share."""

    def __init__(self, config: WriteConfig, prompt: Prompt, mix: dict[str, float]):
        self._config, self._prompt, self._mix = config, prompt, mix
        self._writer: Writer | None = None

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def write(self, tar: Path, samples: Sequence[CaptionedSample]) -> dict[str, dict]:
        """key -> line, for every sample; if two attempts fail, the line gives the reason.

        Args:
            tar: holds the pictures, which are read for samples without a caption.

        Raises:
            WriterError: the writer cannot go on; WriterSettingError if the writer or the describer cannot be loaded.
        """
        lines = {sample.key: dropped(sample.key, sample.problem) for sample in samples if sample.problem}
        todo = [sample for sample in samples if not sample.problem]
        todo = self._described(tar, todo, lines)
        for attempt in (0, 1):
            todo = self._write(todo, attempt, lines)
        return lines

    def _write(self, samples: Sequence[CaptionedSample], attempt: int, lines: dict[str, dict]) -> list[CaptionedSample]:
        """Add a line for each of these samples; returns the samples whose answers were invalid."""
        if not samples:
            return []
        if self._writer is None:
            self._writer = _loaded(require_writer(self._config.writer), self._config)
        asks = [self._request(sample, attempt) for sample in samples]
        bad = []
        for sample, ask, answer in zip(samples, asks, self._writer.write(asks), strict=True):
            try:
                if answer.failure:
                    raise BadAnswer(answer.failure)
                lines[sample.key] = self._line(sample, ask, answer.text)
            except BadAnswer as error:
                lines[sample.key] = dropped(sample.key, error.reason)
                bad.append(sample)
        return bad

    def _request(self, sample: CaptionedSample, attempt: int) -> Ask:
        seed, key = self._config.seed, sample.key
        operation, wording = None, ""
        if sample.instruction is None:
            operation = _pick(fraction(seed, key, "operation"), self._mix)
            wordings = self._prompt.wordings
            wording = wordings[int(fraction(seed, key, "wording") * len(wordings))]
        return Ask(
            key=key,
            caption=sample.caption,
            operation=operation,
            instruction=sample.instruction,
            messages=self._prompt.messages(
                operation=operation or "", wording=wording, caption=sample.caption, instruction=sample.instruction or ""
            ),
            seed=seed_of(seed, key, "sampling", attempt),
            attempt=attempt,
        )

    def _line(self, sample: CaptionedSample, ask: Ask, answer: str) -> dict:
        edit = read_answer(answer, ask.caption, ask.operation, ask.instruction, self._config.language)
        line = {"key": sample.key, "instruction": edit.instruction, "target_caption": edit.target_caption}
        if self._config.source != "captions":  # the tar does not hold this caption
            line["source_caption"] = sample.caption
        return line | {"operation": edit.operation, "object": edit.object}

    def _described(
        self, tar: Path, samples: Sequence[CaptionedSample], lines: dict[str, dict]
    ) -> list[CaptionedSample]:
        """The samples, each with a caption; the describer captions the pictures for which the shard has none."""
        ready = [sample for sample in samples if sample.caption is not None]
        missing = [sample for sample in samples if sample.caption is None]
        for start in range(0, len(missing), _BATCH):
            batch = []
            for sample in missing[start : start + _BATCH]:
                try:
                    batch.append((sample, _picture(tar, sample)))
                except BadAnswer as error:
                    lines[sample.key] = dropped(sample.key, error.reason)
            captions = self._describer.source_captions([picture for _, picture in batch])
            for (sample, _), caption in zip(batch, captions, strict=True):
                if isinstance(caption, ValueError):
                    lines[sample.key] = dropped(sample.key, "picture: cannot be described")
                else:
                    ready.append(replace(sample, caption=" ".join(caption.split())))
        return ready

    @cached_property
    def _describer(self) -> Any:
        from regionedit.describe import require_describer

        return _loaded(require_describer(self._config.describe.name), self._config.describe)


def _loaded(kind: Any, config: Any) -> Any:
    """Load a writer or a describer. WriterSettingError sets its errors apart from the ValueErrors of a bad shard."""
    try:
        return kind.load(config)
    except ValueError as error:
        raise WriterSettingError(str(error)) from None


def dropped(key: str, reason: str) -> dict:
    """The line of a sample that gets no instruction."""
    return {"key": key, "dropped": reason}


def _pick(number: float, mix: dict[str, float]) -> str:
    """The operation that a number in [0, 1) selects, according to the shares."""
    for name, share in mix.items():
        number -= share
        if number < 0:
            return name
    return name


def _picture(tar: Path, sample: CaptionedSample) -> Image.Image:
    """The sample's picture, upright RGB, of at most MAX_PIXELS."""
    from PIL import Image

    from regionedit.images import MAX_PIXELS, upright_rgb

    offset, length = sample.picture
    with tar.open("rb") as file:
        data = os.pread(file.fileno(), length, offset)
    try:
        picture = Image.open(io.BytesIO(data))
        small = picture.width * picture.height <= MAX_PIXELS
        picture = upright_rgb(picture) if small else None
    except Exception:  # decoders raise all kinds of errors on damaged files
        raise BadAnswer("picture: damaged") from None
    if picture is None:
        raise BadAnswer("picture: too large")
    return picture
