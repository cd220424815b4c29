"""Process one shard: claim it, read it, write its instructions, and save its sidecar atomically."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from claims import ClaimLost, Claims
from instruction_lines import InstructionLines, dropped
from prompt_file import load_prompt
from shard_captions import ShardCaptions, read_captions
from write_config import WriteConfig, operation_mix
from writers import TRANSIENT, WriterError, require_writer

from regionedit.data.index import SCHEMA
from regionedit.data.marks import SUBSET, read_marks
from regionedit.files import write_atomic

Job = tuple[str, int | None]  # shard, and the dead claim on it that may be taken over
LEFT_OUT = "left out: subset"  # the user chose a subset; this reason does not count as bad
_PROMPTS = {"captions": "instructions", "pictures": "instructions", "instructions": "target_captions"}


@dataclass(frozen=True)
class ShardResult:
    """The result for one shard.

    Args:
        state: `written` now, `complete` already, `held` by another worker, or `failed`.
        samples: number of keys in its tar.
        written: number of samples with an instruction.
        dropped: for the other samples, reason -> count.
        new: samples processed now.
        problem: why the shard failed, in one line.
    """

    shard: str
    state: str
    samples: int = 0
    written: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    new: int = 0
    problem: str = ""


class ShardWriter:
    """Writes sidecars; every worker process has one. Raises ValueError: an unusable setting; names it."""

    def __init__(self, config: WriteConfig):
        if _needs_describer(config) and config.describe.name == "given":
            raise ValueError(
                "describe.name: `given` cannot describe pictures; choose another describer, or set caption_column"
            )
        prompt, mix = load_prompt(config.prompt or _PROMPTS[config.source]), operation_mix(config)
        self._config, self._data = config, Path(config.data)
        self._lines = InstructionLines(config, prompt, mix)
        self._claims = Claims(self._data, config.stale_seconds)
        self._header = _header(config, prompt.digest, mix)

    def close(self) -> None:
        self._lines.close()

    def __call__(self, shard: str, over: int | None = None) -> ShardResult:
        """Write one shard's sidecar, unless it is complete or another worker holds the shard.

        Args:
            over: a dead claim that may be taken over.

        Raises:
            WriterError: the writer cannot go on.
        """
        tar = self._data / f"{shard}.tar"
        try:
            before, captions = _stamp(tar), read_captions(tar, self._config)
            result = self._complete(shard, captions)
            if result is not None:
                return result
            claim = self._claims.take(shard, over)
            if claim is None:
                return ShardResult(shard, "held")
            with claim:
                result = self._complete(shard, captions)  # another worker may have finished it in the meantime
                if result is not None:
                    return result
                for _ in range(2):
                    lines, new = self._write(shard, tar, captions)
                    after = _stamp(tar)
                    if after == before:
                        claim.check()
                        write_atomic(self._sidecar(shard), _jsonl([self._head(captions), *lines]))
                        return _result(shard, "written", lines, new)
                    before, captions = after, read_captions(tar, self._config)
            raise ValueError(f"{tar}: changed while it was read; run again when it is complete")
        except ClaimLost:
            return ShardResult(shard, "held")
        except WriterError:
            raise
        except ValueError as error:
            return ShardResult(shard, "failed", problem=str(error))

    def _write(self, shard: str, tar: Path, captions: ShardCaptions) -> tuple[list[dict], int]:
        """A line for every key, in the tar's order, and the number of new lines."""
        lines = {key: dropped(key, LEFT_OUT) for key in self._left_out(shard)} | (self._known(shard, captions) or {})
        new = self._lines.write(tar, [sample for sample in captions.samples if sample.key not in lines])
        return [new.get(sample.key) or lines[sample.key] for sample in captions.samples], len(new)

    def _complete(self, shard: str, captions: ShardCaptions) -> ShardResult | None:
        """The result if the shard's sidecar is already complete, or None."""
        known = self._known(shard, captions)
        if known is None or any(sample.key not in known for sample in captions.samples):
            return None
        return _result(shard, "complete", [known[sample.key] for sample in captions.samples], 0)

    def _known(self, shard: str, captions: ShardCaptions) -> dict[str, dict] | None:
        """key -> line for the lines that need not be written again; None if the whole sidecar is missing or outdated.

        Lines that failed because of the endpoint, and lines left out by another subset, are written again.
        """
        left_out = self._left_out(shard)
        try:
            header, *lines = (json.loads(line) for line in self._sidecar(shard).read_bytes().splitlines())
            if header != self._head(captions):
                return None
            reasons = {line["key"]: line.get("dropped", "") for line in lines}
            again = {key for key, reason in reasons.items() if reason.startswith(TRANSIENT)}
            again |= {key for key, reason in reasons.items() if reason == LEFT_OUT and key not in left_out}
            return {line["key"]: line for line in lines if line["key"] not in again}
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def _head(self, captions: ShardCaptions) -> dict[str, Any]:
        """The header of this shard's sidecar: everything that decides what is written for a caption."""
        return self._header | {"shard": captions.digest}

    def _left_out(self, shard: str) -> Mapping[str, object]:
        """The keys that subset.py leaves out; no request is made for them."""
        return read_marks(self._data / SUBSET.format(shard))

    def _sidecar(self, shard: str) -> Path:
        return self._data / f"{shard}.instructions.jsonl"


def _header(config: WriteConfig, prompt: str, mix: dict[str, float]) -> dict[str, Any]:
    """The settings that decide the lines of every shard; not when, where or by how many processes they are written."""
    given: dict[str, Any] = {"mix": mix}
    if config.source == "instructions":
        given = {"instruction_column": config.instruction_column, "caption_column": config.caption_column}
    if _needs_describer(config):
        given |= {"describe": asdict(config.describe)}
    return {
        "schema": SCHEMA,
        "writer": config.writer,
        **require_writer(config.writer).identity(config),
        "prompt": prompt,
        "sampling": asdict(config.sampling),
        "seed": config.seed,
        "source": config.source,
        **given,
        "language": config.language,
        "longest_caption": config.longest_caption,
    }


def _needs_describer(config: WriteConfig) -> bool:
    """True if a describer writes the captions from the pictures."""
    return config.source == "pictures" or (config.source == "instructions" and config.caption_column is None)


def _result(shard: str, state: str, lines: Sequence[dict], new: int) -> ShardResult:
    reasons = Counter(line["dropped"] for line in lines if "dropped" in line)
    return ShardResult(shard, state, len(lines), len(lines) - reasons.total(), dict(reasons), new)


def _stamp(path: Path) -> tuple[int, int, int]:
    """Size, modification time and inode: they change when the file does."""
    try:
        found = path.stat()
    except FileNotFoundError:
        raise ValueError(f"{path}: missing; restore it") from None
    return found.st_size, found.st_mtime_ns, found.st_ino


def _jsonl(lines: Sequence[dict]) -> bytes:
    encode = json.JSONEncoder(ensure_ascii=False).encode
    return "".join(f"{encode(line)}\n" for line in lines).encode()
