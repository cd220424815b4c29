"""Mark the samples of a folder of shards that training shall leave out: rules of a YAML, nothing is deleted.

    python data_prep/filter.py --config configs/filter.yaml --data data/crawl
    python data_prep/filter.py --config configs/filter.yaml --data data/crawl --parts 8 --part 0   # on 8 machines, then
    python data_prep/filter.py --config configs/filter.yaml --data data/crawl                      # once, to decide

Every shard is measured once (`{shard}.measured.safetensors`); deciding reads only that, so that other rules take
seconds. `{shard}.marks.jsonl` then names what is left out and why, `filter.json` counts the reasons, and training
leaves marked samples out (`data.marks`). Delete the .marks.jsonl files to have everything back. Run again to go on;
shards that did not change are skipped.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
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
from regionedit.data.index import find_shards
from regionedit.data.marks import MARKS, SUBSET, read_header, read_marks, write_marks
from regionedit.files import write_atomic

COUNTS = "filter.json"


@dataclass
class Outcome:
    """What filtering a folder came to.

    Args:
        shards: how many could be read.
        written: how many of them got new marks.
        samples: that were decided; none where only a part of the shards was measured.
        marked: samples with any mark.
        reasons: samples by reason; one sample may have several.
        broken: why shards could not be read, by name.
    """

    shards: int = 0
    written: int = 0
    samples: int = 0
    marked: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)

    def too_bad(self, limit: float) -> str | None:
        """Why the run must not pass for a good one, or None."""
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
    """Measure what is not measured yet, and mark.

    Raises:
        ValueError: no shards; a rule or an argument that cannot be applied; names the field.
        OSError: no room, no permission; what is finished stays, nothing is left half.
    """
    _check(config)
    folder, outcome = Path(config.data), Outcome()
    shards = find_shards(folder)[config.part :: config.parts]
    with ProcessPoolExecutor(config.workers) as pool:
        digests = _measure_all(pool, folder, shards, config, outcome)
        outcome.shards = len(digests)
        if config.parts > 1:
            return outcome
        scores = _clip_scores(folder, digests, config)
        jobs = {shard: (folder, shard, config, scores.get(shard, {})) for shard in digests}
        seen = dict(_each(pool, _look, jobs, "applying the rules"))
    tests = {name: benchmark_hashes(name, Path(path)) for name, path in config.decontaminate.items()}
    if digests:
        _decide(folder, {shard: seen[shard] for shard in digests}, digests, config, tests, outcome)
    counts = {
        "samples": outcome.samples,
        "marked": outcome.marked,
        "reasons": outcome.reasons,
        "broken": outcome.broken,
    }
    write_atomic(folder / COUNTS, json.dumps(counts | {"rules": config.rules()}, indent=2).encode())
    return outcome


def _decide(
    folder: Path,
    seen: dict[str, tuple[dict[str, np.ndarray], Crowd]],
    digests: dict[str, str],
    config: FilterConfig,
    tests: dict[str, np.ndarray],
    outcome: Outcome,
) -> None:
    """Compare all samples with each other and with the test pictures, and write every shard's marks."""
    ends = np.cumsum([len(found.keys) for _, found in seen.values()])
    shared = shared_reasons(_together([found for _, found in seen.values()]), config, tests)
    parts = {reason: np.split(marked, ends[:-1]) for reason, marked in shared.items()}
    for place, (shard, (reasons, found)) in enumerate(seen.items()):
        everything = reasons | {reason: marked[place] for reason, marked in parts.items()}
        _mark(folder, shard, found.keys, everything, config, digests[shard], outcome)


def _check(config: FilterConfig) -> None:
    if not 0 <= config.part < config.parts:
        raise ValueError(f"part: {config.part} of {config.parts} parts; they count from 0")
    if config.workers < 1:
        raise ValueError(f"workers: {config.workers}, must be at least 1")
    if config.near_duplicates is not None and not 0 <= config.near_duplicates <= 15:
        raise ValueError(
            f"near_duplicates: {config.near_duplicates} bits; 0 to 15, beyond which pictures are not alike"
        )
    if config.max_text_text is not None and config.min_text_text is not None:
        if config.max_text_text <= config.min_text_text:
            raise ValueError(f"max_text_text: {config.max_text_text} leaves nothing above {config.min_text_text}")
    compile_boilerplate(config.boilerplate)


def _measure_all(
    pool: Executor, folder: Path, shards: tuple[str, ...], config: FilterConfig, outcome: Outcome
) -> dict[str, str]:
    """Digests of the measurements of the shards that can be read, in their order."""
    jobs = {shard: (folder, shard, config.columns) for shard in shards}
    digests = {}
    for shard, (digest, problem) in _each(pool, _measure, jobs, "measuring"):
        if problem:
            outcome.broken[shard] = problem
        else:
            digests[shard] = digest
    outcome.broken = dict(sorted(outcome.broken.items()))
    return {shard: digests[shard] for shard in shards if shard in digests}


def _measure(folder: Path, shard: str, columns: tuple[str, ...]) -> tuple[str, str]:
    """The digest of a shard's measurements, or what is wrong with the shard."""
    try:
        return measure(folder, shard, columns), ""
    except ValueError as error:
        return "", str(error)


def _clip_scores(folder: Path, digests: dict[str, str], config: FilterConfig) -> dict[str, dict[str, np.ndarray]]:
    if not config.needs_clip:
        return {}
    from clip_scores import ClipScores

    clip = ClipScores(config)
    shards = track(digests.items(), "asking CLIP", console=Console(stderr=True))
    return {shard: clip.measure(folder, shard, digest, _load(folder, shard)) for shard, digest in shards}


def _load(folder: Path, shard: str) -> Measurements:
    """Measurements with the captions that training will read."""
    return load(folder, shard).with_captions(read_instructions(folder, shard).captions())


def _look(
    folder: Path, shard: str, config: FilterConfig, scores: dict[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], Crowd]:
    """The rules that look at a sample alone, and what the others need of this shard."""
    found = _load(folder, shard)
    reasons = own_reasons(found, config, scores)
    half = np.ascontiguousarray(found.sha256[:, :16])
    subset = folder / SUBSET.format(shard)
    not_chosen = read_marks(subset) if subset.is_file() else {}
    out = np.array([key in not_chosen for key in found.names()], bool)
    out |= np.any(list(reasons.values()), axis=0)
    return reasons, Crowd(found.keys, half.view("V16")[:, 0], found.hashes, found.has_hash, out)


def _together(parts: list[Crowd]) -> Crowd:
    fields = ("keys", "sha256", "hashes", "has_hash", "out")
    return Crowd(*(np.concatenate([getattr(part, name) for part in parts]) for name in fields))


def _mark(
    folder: Path,
    shard: str,
    keys: np.ndarray,
    reasons: dict[str, np.ndarray],
    config: FilterConfig,
    digest: str,
    outcome: Outcome,
) -> None:
    """Write a shard's marks, unless it has the same already, and count them."""
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
    """Results of the jobs as they come, each with its name."""
    running = {pool.submit(work, *job): name for name, job in jobs.items()}
    try:
        for future in track(as_completed(running), what, len(running), console=Console(stderr=True)):
            yield running[future], future.result()
    except BaseException:  # do not finish thousands of shards before the error is told
        pool.shutdown(wait=False, cancel_futures=True)
        raise


def _tell(outcome: Outcome, config: FilterConfig) -> None:
    """The counts, a line for each rule."""
    if config.parts > 1:
        print(f"measured part {config.part} of {config.parts}; run without --parts to decide")
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
    try:
        with errors_in_one_line("filter.py"):
            outcome = filter_shards(config)
    except KeyboardInterrupt:
        print("filter.py: stopped; run the same command to go on", file=sys.stderr)
        raise SystemExit(130) from None
    _tell(outcome, config)
    for reason in outcome.broken.values():
        print(f"filter.py: not marked: {reason}", file=sys.stderr)
    if problem := outcome.too_bad(config.max_bad_fraction):
        print(f"filter.py: {problem} (max_bad_fraction {config.max_bad_fraction:g})", file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    main()
