"""Mark the samples in a folder of shards that training shall leave out, by the rules of a YAML; deletes nothing.

    python data_prep/filter.py --config configs/filter.yaml --data data/crawl
    python data_prep/filter.py --config configs/filter.yaml --data data/crawl --parts 8 --part 0   # on 8 machines, then
    python data_prep/filter.py --config configs/filter.yaml --data data/crawl                      # once, to decide

Every shard is measured once (`{shard}.measured.safetensors`). The rules read only this file, so that applying other
rules takes seconds. `{shard}.marks.jsonl` then names the samples to leave out and why, `filter.json` counts the
reasons, and training skips the marked samples (`data.marks`). Delete the .marks.jsonl files to use all samples again.
Run the command again to continue after an interruption; unchanged shards are skipped.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
from benchmark_pictures import benchmark_hashes
from caption_rules import compile_boilerplate
from filter_config import FilterConfig
from filter_rules import Crowd, own_reasons, shared_reasons
from measurements import FLAWS, Measurements, load, measure
from rich.console import Console
from rich.progress import track
from sidecars import read_instructions

from regionedit.command_line import errors_in_one_line, parse_command
from regionedit.data.index import check_part
from regionedit.data.marks import MARKS, SUBSET, read_header, read_marks, write_marks
from regionedit.data.shard_names import find_shards
from regionedit.files import write_atomic

COUNTS = "filter.json"


@dataclass
class Outcome:
    """The result of filtering a folder.

    Args:
        shards: number of readable shards.
        written: number of shards that got new marks.
        samples: samples that the rules were applied to; 0 if only a part of the shards was measured.
        marked: samples with at least one mark.
        reasons: number of samples by reason; a sample can have several.
        broken: for each unreadable shard, why it cannot be read.
    """

    shards: int = 0
    written: int = 0
    samples: int = 0
    marked: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)

    def too_bad(self, limit: float) -> str | None:
        """Why the command must end with an error, or None."""
        shards = self.shards + len(self.broken)
        if len(self.broken) > limit * shards:
            return (
                f"{len(self.broken)} of {shards} shards cannot be read, the first: {next(iter(self.broken.values()))}"
            )
        useless = sum(self.reasons.get(flaw, 0) for flaw in FLAWS)
        if useless > limit * self.samples:
            return f"{useless} of {self.samples} samples cannot be used under any rules, see {COUNTS}"
        return None


def filter_shards(config: FilterConfig) -> Outcome:
    """Measure the shards that are not measured yet, apply the rules and write the marks.

    Raises:
        ValueError: no shards; a rule or an argument that cannot be applied; names the field.
        OSError: no space or no permission; finished files are kept, and no file is left incomplete.
    """
    check_part(config.part, config.parts)
    _check(config)
    folder, outcome = Path(config.data), Outcome()
    shards = find_shards(folder, allow_gaps=True)[config.part :: config.parts]
    with ProcessPoolExecutor(config.workers) as pool:
        measured = dict(_each(pool, _measure, {s: (folder, s, config.columns) for s in shards}, "measuring"))
        outcome.broken = {shard: measured[shard][1] for shard in shards if measured[shard][1]}
        digests = {shard: measured[shard][0] for shard in shards if shard not in outcome.broken}
        outcome.shards = len(digests)
        if config.parts > 1:
            return outcome
        scores = _clip_scores(folder, digests, config)
        jobs = {shard: (folder, shard, config, scores.get(shard, {})) for shard in digests}
        results = dict(_each(pool, _apply_own_rules, jobs, "applying the rules"))
    tests = {name: benchmark_hashes(name, Path(path)) for name, path in config.decontaminate.items()}
    crowds = [results[shard][1] for shard in digests]
    shared = shared_reasons(_concatenate(crowds), config, tests) if crowds else {}
    start = 0
    for shard, digest in digests.items():
        reasons, found = results[shard]
        end = start + len(found.keys)
        everything = reasons | {reason: marked[start:end] for reason, marked in shared.items()}
        _mark(folder, shard, found.keys, everything, config, digest, outcome)
        start = end
    counts = {name: getattr(outcome, name) for name in ("samples", "marked", "reasons", "broken")}
    write_atomic(folder / COUNTS, json.dumps(counts | {"rules": config.rules()}, indent=2).encode())
    return outcome


def _check(config: FilterConfig) -> None:
    if config.workers < 1:
        raise ValueError(f"workers: {config.workers}, must be at least 1")
    if config.near_duplicates is not None and not 0 <= config.near_duplicates <= 15:
        raise ValueError(
            f"near_duplicates: {config.near_duplicates} bits; give 0 to 15, pictures further apart are not alike"
        )
    if config.max_text_text is not None and config.min_text_text is not None:
        if config.max_text_text <= config.min_text_text:
            raise ValueError(
                f"max_text_text: {config.max_text_text} is not above min_text_text, {config.min_text_text}, so that no "
                "target caption could pass both; raise it"
            )
    compile_boilerplate(config.boilerplate)


def _measure(folder: Path, shard: str, columns: tuple[str, ...]) -> tuple[str, str]:
    """The digest of a shard's measurements, and what is wrong with the shard; one of the two is empty."""
    try:
        return measure(folder, shard, columns), ""
    except ValueError as error:
        return "", str(error)


def _clip_scores(folder: Path, digests: dict[str, str], config: FilterConfig) -> dict[str, dict[str, np.ndarray]]:
    if not config.needs_clip:
        return {}
    from clip_scores import ClipScores

    clip = ClipScores(config)
    shards = track(digests.items(), "scoring with CLIP", console=Console(stderr=True))
    return {shard: clip.measure(folder, shard, digest, _load(folder, shard)) for shard, digest in shards}


def _load(folder: Path, shard: str) -> Measurements:
    """A shard's measurements, with the captions that training will read."""
    return load(folder, shard).with_captions(read_instructions(folder, shard).captions())


def _apply_own_rules(
    folder: Path, shard: str, config: FilterConfig, scores: dict[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], Crowd]:
    """Apply the rules that need one sample only; also returns the data that the comparing rules need of this shard."""
    found = _load(folder, shard)
    reasons = own_reasons(found, config, scores)
    half = np.ascontiguousarray(found.sha256[:, :16])
    not_chosen = read_marks(folder / SUBSET.format(shard))
    out = np.array([key in not_chosen for key in found.names()], bool)
    out |= np.any(list(reasons.values()), axis=0)
    return reasons, Crowd(found.keys, half.view("V16")[:, 0], found.hashes, found.has_hash, out)


def _concatenate(parts: list[Crowd]) -> Crowd:
    return Crowd(*(np.concatenate([getattr(part, own.name) for part in parts]) for own in fields(Crowd)))


def _mark(
    folder: Path,
    shard: str,
    keys: np.ndarray,
    reasons: dict[str, np.ndarray],
    config: FilterConfig,
    digest: str,
    outcome: Outcome,
) -> None:
    """Write a shard's marks, unless the file already holds the same ones, and count them."""
    table = np.stack(list(reasons.values()))
    names = np.array(list(reasons))
    marked = np.flatnonzero(table.any(0))
    marks = {keys[place].decode(errors="surrogateescape"): names[table[:, place]].tolist() for place in marked}
    decides = json.dumps([config.rules(), digest, marks]).encode()
    identity = hashlib.sha256(decides).hexdigest()
    path = folder / MARKS.format(shard)
    if read_header(path).get("hash") != identity:
        write_marks(path, config.rules(), identity, marks)
        outcome.written += 1
    outcome.samples += len(keys)
    outcome.marked += len(marked)
    for name, row in zip(reasons, table, strict=True):
        outcome.reasons[name] = outcome.reasons.get(name, 0) + int(row.sum())


def _each(pool: Executor, work: Callable, jobs: dict[str, tuple], what: str) -> Iterator[tuple[str, object]]:
    """Run the jobs in the pool and yield (name, result) as each finishes."""
    running = {pool.submit(work, *job): name for name, job in jobs.items()}
    try:
        for future in track(as_completed(running), what, len(running), console=Console(stderr=True)):
            yield running[future], future.result()
    except BaseException:  # report the error now, not after thousands of further shards
        pool.shutdown(wait=False, cancel_futures=True)
        raise


def _print_counts(outcome: Outcome, config: FilterConfig) -> None:
    """Print the counts, one line for each rule."""
    if config.parts > 1:
        print(f"measured part {config.part} of {config.parts}; run without --parts to apply the rules")
        return
    rules = config.rules()
    width = max(map(len, outcome.reasons), default=0)
    for reason, count in outcome.reasons.items():
        share = count / outcome.samples if outcome.samples else 0
        rule = rules.get(reason, "")
        print(f"{reason:<{width}}  {count:>9,}  {share:7.2%}  {rule if not isinstance(rule, list) else ''}".rstrip())
    print(
        f"{outcome.marked:,} of {outcome.samples:,} samples are marked in {outcome.shards:,} shards "
        f"({outcome.written:,} written now), {outcome.samples - outcome.marked:,} stay"
    )


def main() -> None:
    config = parse_command(FilterConfig)
    with errors_in_one_line("filter.py"):
        outcome = filter_shards(config)
    _print_counts(outcome, config)
    for reason in outcome.broken.values():
        print(f"filter.py: not marked: {reason}", file=sys.stderr)
    if problem := outcome.too_bad(config.max_bad_fraction):
        print(f"filter.py: {problem} (max_bad_fraction {config.max_bad_fraction:g})", file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    main()
