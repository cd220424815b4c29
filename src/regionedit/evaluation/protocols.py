"""Protocols as data: how the numbers of a published table were computed, and how those of a result file were.

Each `configs/protocols/NAME.yaml` holds one protocol. `Protocol.block` describes an evaluation for summary.json; two
numbers are comparable only if their blocks agree.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, get_args

from regionedit.command_line import one_line
from regionedit.config import EvaluateConfig
from regionedit.evaluation import BENCHMARKS, METRICS
from regionedit.evaluation.backbones import Field
from regionedit.evaluation.benchmarks import Benchmark
from regionedit.evaluation.judge import JUDGED_BY, Judge

FOLDER = Path("configs/protocols")
BACKBONES = get_args(Field)  # the fields of EvaluateConfig that name networks of metrics
# Our rule for a caption filter may keep a few cases more or fewer than the authors' list: share of n that may differ.
N_TOLERANCE = 0.01

# Choices of the metrics that no protocol makes.
CONVENTIONS = {
    "psnr_of_identical_backgrounds": "one 8-bit level in one value",
    "changed_pixels": "mean over channels > 0.1, opened by 3 x 3",
    "landed": "change map without global shift (at most 8 px of 512), drift and JPEG noise; BPM's rules for boxes",
    "clip_instruction_rank": "among up to 100 instructions of the benchmark",
}


def column_heads(metrics: Iterable[str]) -> dict[str, str]:
    """Head -> metric, in order; if two metrics have the same title, the second head also has the metric's name."""
    heads: dict[str, str] = {}
    for name in metrics:
        title = METRICS[name].title if name in METRICS else name
        heads[f"{title} ({name})" if title in heads else title] = name
    return heads


def shipped_file(kind: str, name_or_path: str, folder: Path) -> Path:
    """`folder`/NAME.yaml, or a YAML file elsewhere. ValueError: it does not exist; the message names the choices."""
    path = Path(name_or_path)
    if path.suffix != ".yaml":
        path = folder / f"{name_or_path}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.yaml")))
        raise ValueError(f"{kind}: {path} does not exist; there are: {known or f'none in {folder.resolve()}'}")
    return path


@dataclass(frozen=True)
class Protocol:
    """One protocol.

    Args:
        name: the file's name without its suffix.
        benchmark: key of BENCHMARKS.
        note: who publishes with it.
        backbones: judge, dino, dinov2, pick_score, structure, lpips -> model; exactly those that the columns need.
        reference: the picture that edits are compared with.
        caption_filter: which cases are left out, and by what rule.
        resize: how pictures of another size are resized.
        n: number of cases in the real data, None if unknown.
        columns: published column title -> key of METRICS, in order.
        unstated: what the authors do not say -> what we do. Keys are other fields, backbones or columns.
        vlm_judge: fields of VlmJudgeConfig that decide the answers of the judge -> their values.
    """

    name: str
    benchmark: str
    note: str
    backbones: dict[str, str]
    reference: str
    caption_filter: str
    resize: str
    n: int | None
    columns: dict[str, str]
    unstated: dict[str, str] = field(default_factory=dict)
    vlm_judge: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, name_or_path: str | Path) -> Protocol:
        """Read `configs/protocols/NAME.yaml`, or a YAML file elsewhere.

        Raises:
            ValueError: no such file, or a field is missing, unknown, of a wrong type, or names something that does not
                exist; one line with file, field and choices.
        """
        import yaml

        path = shipped_file("protocol", name_or_path, FOLDER)
        try:
            values = yaml.safe_load(path.read_text())
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: not valid YAML: {one_line(error)}") from None
        try:
            return _build(path.stem, values)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    @classmethod
    def own(cls, benchmark_name: str, benchmark: Benchmark) -> Protocol:
        """The protocol of an evaluation without a published one: the benchmark's own facts and metrics."""
        facts = benchmark.protocol
        return cls(
            name="none",
            benchmark=benchmark_name,
            note="no published protocol was chosen",
            backbones={},
            reference=facts.get("reference", "as each metric says"),
            caption_filter=facts.get("caption_filter", "none"),
            resize=facts.get("resize", "as the benchmark does"),
            n=None,
            columns=column_heads(benchmark.metrics),
        )

    def apply(self, config: EvaluateConfig) -> EvaluateConfig:
        """The configuration with this protocol's networks. ValueError: the configuration has another benchmark."""
        if config.benchmark != self.benchmark:
            raise ValueError(f"protocol: {self.name} belongs to benchmark {self.benchmark}, not to {config.benchmark}")
        return replace(config, **self.backbones, vlm_judge=replace(config.vlm_judge, **self.vlm_judge))

    def block(self, config: EvaluateConfig, benchmark: Benchmark) -> dict[str, Any]:
        """The value of "protocol" in summary.json: the networks that were really used, and what was really read."""
        used = {METRICS[name].backbone for name in benchmark.metrics}
        judge = Judge.from_config(config.vlm_judge, benchmark.rubric)
        return {
            "name": self.name,
            **{name: getattr(config, name) for name in BACKBONES if name in used},
            **({"vlm_judge": judge.identity()} if judge else {}),
            "reference": self.reference,
            "caption_filter": self.caption_filter,
            "resize": self.resize,
            "n_expected": self.n,
            "n_found": len(benchmark),
            "counts": dict(benchmark.counts),
            "as_run": dict(benchmark.protocol),
            "grid": config.grid,
            "threshold": config.region.threshold,
            "headline_operations": list(benchmark.headline),
            "columns": self.columns,
            "conventions": CONVENTIONS,
        }

    def deviations(self, block: Mapping[str, Any]) -> list[str]:
        """One line for each difference between a result's block and this protocol; empty if they agree."""
        wanted = {"name": self.name} | self.backbones
        wanted |= {"reference": self.reference, "caption_filter": self.caption_filter, "resize": self.resize}
        lines = [f"{key}: {block.get(key)!r}, not {goal!r}" for key, goal in wanted.items() if block.get(key) != goal]
        judged = block.get("vlm_judge", {})
        lines += [
            f"vlm_judge.{key}: {judged.get(key)!r}, not {goal!r}"
            for key, goal in self.vlm_judge.items()
            if judged.get(key) != goal
        ]
        found = block.get("n_found")
        if self.n is not None and (found is None or abs(found - self.n) > N_TOLERANCE * self.n):
            lines.append(f"n: {found} cases, not {self.n}")
        return lines


def _build(name: str, values: Any) -> Protocol:
    """The protocol from the content of its file; messages begin with the field."""
    if not isinstance(values, dict):
        raise ValueError("not a protocol: expected `key: value` lines")
    known = {f.name: f for f in fields(Protocol) if f.name != "name"}
    for key in values:
        if key not in known:
            raise ValueError(_unknown(key, known))
    for key, known_field in known.items():
        if key not in values and known_field.default_factory is MISSING:
            raise ValueError(f"{key}: missing; a protocol has: {', '.join(known)}")
    for key, value in values.items():
        _require_type(key, value)
    protocol = Protocol(name=name, **values)
    if protocol.benchmark not in BENCHMARKS:
        raise ValueError(f"benchmark: no benchmark {protocol.benchmark!r}; there are: {', '.join(BENCHMARKS)}")
    if not protocol.columns:
        raise ValueError("columns: none; give `published title: metric` lines")
    for title, metric in protocol.columns.items():
        if metric not in METRICS:
            raise ValueError(f"columns.{title}: no metric {metric!r}; there are: {', '.join(METRICS)}")
    needed = {METRICS[metric].backbone for metric in protocol.columns.values()} - {None}
    for key in protocol.backbones:
        if key not in needed:
            raise ValueError(f"backbones.{key}: no column needs it; the columns need: {', '.join(sorted(needed))}")
    for key in sorted(needed - set(protocol.backbones)):
        raise ValueError(f"backbones.{key}: missing; the columns need: {', '.join(sorted(needed))}")
    allowed = [*known, *protocol.backbones, *protocol.columns]
    for key in protocol.vlm_judge:
        if key not in JUDGED_BY:
            raise ValueError(f"vlm_judge.{key}: not part of a protocol; there are: {', '.join(JUDGED_BY)}")
    for key in protocol.unstated:
        if key not in allowed:
            raise ValueError(f"unstated.{key}: neither field, backbone nor column; there are: {', '.join(allowed)}")
    return protocol


def _unknown(key: Any, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(key), list(known), n=1)
    return f"unknown key {key!r}; " + (f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}")


def _require_type(key: str, value: Any) -> None:
    if key == "n":
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value <= 0):
            raise ValueError(f"n: {value!r} is neither a number of cases nor null")
    elif key == "vlm_judge":
        if not isinstance(value, dict):
            raise ValueError("vlm_judge: expected `setting: value` lines")
    elif key in ("backbones", "columns", "unstated"):
        if not isinstance(value, dict) or not all(isinstance(v, str) and v for v in [*value, *value.values()]):
            raise ValueError(f"{key}: expected `name: text` lines")
    elif not isinstance(value, str) or not value.strip():
        raise ValueError(f"{key}: expected text, found {value!r}")
