"""Which captions an editor was given in an evaluation, as its protocol block records it.

Emu Edit and others score an edit against a caption of the edited picture. An editor that was given this very caption
has an advantage over one that had to write it, as in the paper; the two may not share a column.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from regionedit.config import DescribeConfig, EvaluateConfig
from regionedit.evaluation.benchmarks import Benchmark
from regionedit.generators import require_generator
from regionedit.mask_sources import require_mask_source

GIVEN, DESCRIBED, NOT_READ, UNKNOWN = "given", "described", "not read", "unknown"
IN_NAMES = {GIVEN: " (captions given)", DESCRIBED: " (captions described)", NOT_READ: " (no captions)"}
NO_MODEL = "none"


def captions_used(config: EvaluateConfig, cases: Benchmark) -> dict[str, str]:
    """`captions`: given (the benchmark's, against which edits are scored), described, not read or unknown; `describer`.

    Finished pictures (`pictures`) have what the summary of their own run says, else unknown.
    """
    if config.pictures is not None:
        return _of_run(Path(config.pictures))
    needs = require_generator(config.generator.name).needs_of(config.generator)
    if not (require_mask_source(config.mask_source).captions_with(needs) or needs == "target_caption"):
        return {"captions": NOT_READ, "describer": NO_MODEL}
    captions = next(iter(cases)).request.captions if config.given_captions else None
    if captions is not None and captions.target:
        return {"captions": GIVEN, "describer": NO_MODEL}
    return {"captions": DESCRIBED, "describer": _described_by(config.describe)}


def in_name(block: Mapping[str, Any]) -> str:
    """What a row's name says of the captions; empty for evaluations before this was recorded."""
    return IN_NAMES.get(block.get("captions"), "")


def mixed(blocks: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Why evaluations may not share columns: some were given the captions, others described them. By name."""
    captions = {name: block.get("captions", UNKNOWN) for name, block in blocks.items()}
    given = [name for name, how in captions.items() if how == GIVEN]
    described = [name for name, how in captions.items() if how == DESCRIBED]
    if not (given and described):
        return []
    return [
        f"captions: {GIVEN!r} in {', '.join(given)}, {DESCRIBED!r} in {', '.join(described)}; an editor that was given "
        "the caption against which it is scored is not comparable with one that was not: set given_captions alike"
    ]


def _of_run(folder: Path) -> dict[str, str]:
    try:
        block = json.loads((folder / "summary.json").read_text())["protocol"]
    except (OSError, ValueError, KeyError, TypeError):
        block = {}
    return {name: block.get(name, UNKNOWN) for name in ("captions", "describer")}


def _described_by(describe: DescribeConfig) -> str:
    models: Sequence[str] = [
        str(value) for name in ("vision", "language", "endpoint_model") if (value := getattr(describe, name, None))
    ]
    return f"{describe.name}: {', '.join(models)}" if models else describe.name
