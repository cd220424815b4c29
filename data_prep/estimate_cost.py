"""Estimate what a data set of N samples costs: shards, disk space, hours and GPU-hours of every stage.

    python data_prep/estimate_cost.py                                  # 5 million and 400 million
    python data_prep/estimate_cost.py --samples 1000000 --nodes 2 --llm_rate 12000

The estimate follows from named rates. Rates that this repository has measured or counted are read from
benchmarks/results.json (`make bench` renews them). All others are assumptions with a stated source, and an argument can
replace each. Every line names the rates it depends on. A plan is not a measurement: no stage has been run at this size.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from regionedit.command_line import errors_in_one_line

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results.json"
OURS = "ours"
PRESETS = ("paper256", "fast512", "max256", "exact512", "stored")


@dataclass(frozen=True)
class Rate:
    """One number that the plan depends on.

    Args:
        value: None if it has to be measured.
        source: where it is from.
        kind: measured, counted, assumed or given.
        benchmark: name of the result in results.json that replaces the value, or empty.
    """

    value: float | None
    unit: str
    source: str
    kind: str = "assumed"
    benchmark: str = ""


RATES = {
    "success": Rate(0.5, "of the links", "github.com/rom1504/img2dataset/issues/439: 50 to 75 % late in 2024"),
    "download_rate": Rate(1389, "links/s a node", "img2dataset's README: 100 million links in 20 hours on one machine"),
    "shard_samples": Rate(2000, "samples a shard", OURS),
    "picture_kb": Rate(75, "kB a picture", f"{OURS}: JPEG of 512 px"),
    "tar_kb": Rate(3, "kB a sample", f"{OURS}: three tar headers, caption, .json, in blocks of 512 bytes"),
    "sidecar_bytes": Rate(400, "bytes a sample", f"{OURS}: instruction and target caption as JSON"),
    "measured_bytes": Rate(180, "bytes a sample", f"{OURS}: hashes, sizes and caption that the filter keeps"),
    "text_bytes": Rate(3072, "bytes a sample", "two captions, 768 numbers each, float16", "counted"),
    "latent_bytes": Rate(32768, "bytes a sample", "4 x 64 x 64 numbers, float16, at 512 px", "counted"),
    "proposal_kb": Rate(90, "kB a proposal", f"{OURS}: PNG of 224 px with its mask"),
    "output_tokens": Rate(60, "tokens a caption", OURS),
    "llm_rate": Rate(
        5500, "output tokens/s a GPU", "github.com/NVIDIA/TensorRT-LLM/issues/2648: a user's A100 80 GB, Llama 3 8B"
    ),
    "llm_share": Rate(0.5, "of that rate", f"{OURS}: longer prompts, structured output, another engine"),
    "filter_rate": Rate(None, "pictures/s on 2 cores", "256 px", benchmark="filters_256"),
    "filter_scale": Rate(4, "times the work", f"{OURS}: 512 px have four times the pixels of 256"),
    "loader_rate": Rate(None, "samples/s a worker", "256 px", benchmark="loader_jpeg_256"),
    "cores": Rate(128, "cores a node", "NVIDIA DGX A100 data sheet"),
    "gpus": Rate(8, "GPUs a node", "NVIDIA DGX A100 data sheet"),
    "nodes": Rate(1, "nodes", OURS),
    "gpu_tflops": Rate(312, "TFLOP/s a GPU", "NVIDIA A100 data sheet, bfloat16, dense"),
    "float32_tflops": Rate(156, "TFLOP/s a GPU", "NVIDIA A100 data sheet, TF32, dense: how training computes float32"),
    "utilisation": Rate(0.4, "of these peaks", OURS),
    "clip_tflop": Rate(None, "TFLOP a sample", "ViT-L/14", benchmark="clip_scores"),
    "features_tflop": Rate(None, "TFLOP a sample", "captions and latent at 512 px", benchmark="features"),
    "features_float32_tflop": Rate(
        None, "of them in float32", "captions, as training encodes them", benchmark="features_float32"
    ),
    "proposal_tflop": Rate(None, "TFLOP a proposal", "20 guided steps at 512 px", benchmark="proposal"),
    "proposals": Rate(1, "proposals a sample", OURS),
    **{
        f"{name}_tflop": Rate(None, "TFLOP a sample", f"configs/train_sd15_{name}.yaml", benchmark=f"step_{name}")
        for name in PRESETS
    },
    **{
        f"{name}_float32_tflop": Rate(
            None, "of them in float32", f"configs/train_sd15_{name}.yaml", benchmark=f"step_{name}_float32"
        )
        for name in PRESETS
    },
    "epochs": Rate(1, "epochs", OURS),
}


@dataclass(frozen=True)
class Line:
    """One line of a plan.

    Args:
        uses: names of the rates that it depends on.
    """

    stage: str
    what: str
    amount: str
    uses: tuple[str, ...]


class _RecordingRates(dict):
    """The rates' values; records which ones were read."""

    def __init__(self, rates: Mapping[str, Rate]):
        super().__init__({name: rate.value for name, rate in rates.items()})
        self.read: list[str] = []

    def __getitem__(self, name: str) -> float:
        self.read.append(name)
        return super().__getitem__(name)


def known_rates(results: Path, given: Mapping[str, float]) -> dict[str, Rate]:
    """All rates: given ones first, then measured ones, then assumptions.

    Raises:
        ValueError: a rate is not positive, or has not been measured yet; names the argument.
    """
    measured = json.loads(results.read_text()) if results.exists() else {}
    rates = {}
    for name, rate in RATES.items():
        if name in given:
            rate = replace(rate, value=given[name], source="an argument", kind="given")
        elif rate.benchmark in measured:
            found = measured[rate.benchmark]
            kind = "counted" if found["machine"].startswith("counted") else "measured"
            machine = "" if kind == "counted" else f", {found['machine']}"
            source = f"{rate.benchmark} in benchmarks/results.json, {rate.source}{machine}"
            rate = replace(rate, value=found["ours"], source=source, kind=kind)
        if rate.value is None:
            raise ValueError(f"{name}: not measured yet; run `make bench`, or give --{name}")
        if not (rate.value > 0 and math.isfinite(rate.value)):
            raise ValueError(f"{name}: {rate.value:g}, must be above 0")
        rates[name] = rate
    return rates


def plan(samples: int, rates: Mapping[str, Rate]) -> list[Line]:
    """The plan for one number of samples."""
    r = _RecordingRates(rates)
    lines: list[Line] = []

    def add(stage: str, what: str, compute: Callable[[], float], form: Callable[[float], str]) -> None:
        r.read = []
        amount = form(compute())
        lines.append(Line(stage, what, amount, tuple(dict.fromkeys(r.read))))

    def gpu_seconds(name: str) -> float:
        """Of a sample's features or step: each dtype's operations at its own rate."""
        float32 = r[f"{name}_float32_tflop"]
        ideal = (r[f"{name}_tflop"] - float32) / r["gpu_tflops"] + float32 / r["float32_tflops"]
        return ideal / r["utilisation"]

    def gpu_hours(name: str) -> float:
        return samples * gpu_seconds(name) / 3600

    def bfloat16_hours(tflop: float) -> float:
        return samples * tflop / (r["gpu_tflops"] * r["utilisation"]) / 3600

    def on_nodes(hours_of_gpus: float) -> float:
        return hours_of_gpus / (r["gpus"] * r["nodes"])

    def llm() -> float:
        return samples * r["output_tokens"] / (r["llm_rate"] * r["llm_share"]) / 3600

    add("download", "links", lambda: samples / r["success"], _count)
    add("download", "shards", lambda: math.ceil(samples / r["shard_samples"]), _count)
    add("download", "disk", lambda: samples * (r["picture_kb"] + r["tar_kb"]) * 1e3, _disk)
    add("download", "hours", lambda: samples / r["success"] / (r["download_rate"] * r["nodes"]) / 3600, _hours)
    add("filter", "disk", lambda: samples * r["measured_bytes"], _disk)
    add(
        "filter",
        "hours without models",
        lambda: samples * r["filter_scale"] / (r["filter_rate"] * r["cores"] / 2 * r["nodes"]) / 3600,
        _hours,
    )
    add("filter", "hours of CLIP", lambda: on_nodes(bfloat16_hours(r["clip_tflop"])), _hours)
    add("instructions", "disk", lambda: samples * r["sidecar_bytes"], _disk)
    add("instructions", "GPU-hours", llm, _hours)
    add("instructions", "hours", lambda: on_nodes(llm()), _hours)
    add("cache", "disk, captions", lambda: samples * r["text_bytes"], _disk)
    add("cache", "disk, latents", lambda: samples * r["latent_bytes"], _disk)
    add("cache", "hours", lambda: on_nodes(gpu_hours("features")), _hours)
    add("proposals", "disk", lambda: samples * r["proposals"] * r["proposal_kb"] * 1e3, _disk)
    add("proposals", "GPU-hours", lambda: r["proposals"] * bfloat16_hours(r["proposal_tflop"]), _hours)
    add("proposals", "hours", lambda: on_nodes(r["proposals"] * bfloat16_hours(r["proposal_tflop"])), _hours)
    for preset in PRESETS:
        add("train", f"pictures/s a GPU, {preset}", lambda name=preset: 1 / gpu_seconds(name), _rate)
        add("train", f"GPU-hours, {preset}", lambda name=preset: r["epochs"] * gpu_hours(name), _hours)
        add("train", f"hours, {preset}", lambda name=preset: on_nodes(r["epochs"] * gpu_hours(name)), _hours)
    add(
        "train",
        "GPU-hours, stored, with its proposals",
        lambda: r["epochs"] * gpu_hours("stored") + r["proposals"] * bfloat16_hours(r["proposal_tflop"]),
        _hours,
    )
    add(
        "train",
        "loader workers a GPU, stored",
        lambda: 1 / gpu_seconds("stored") * r["filter_scale"] / r["loader_rate"],
        lambda workers: f"{workers:.1f}",
    )
    return lines


def _count(value: float) -> str:
    return f"{round(value):,}"


def _disk(size: float) -> str:
    return f"{size / 1e12:.2f} TB" if size >= 1e12 else f"{size / 1e9:.1f} GB"


def _rate(per_second: float) -> str:
    return f"{per_second:.3g}"


def _hours(hours: float) -> str:
    return f"{hours:,.0f} h" if hours >= 100 else f"{hours:.2f} h"


def _print(plans: Mapping[int, list[Line]], rates: Mapping[str, Rate]) -> None:
    for samples, lines in plans.items():
        print(f"\n{samples:,} samples\n")
        for line in lines:
            by_kind = [
                f"{kind}: {', '.join(names)}"
                for kind in ("measured", "counted", "given", "assumed")
                if (names := [name for name in line.uses if rates[name].kind == kind])
            ]
            print(f"  {line.stage:<13}{line.what:<39}{line.amount:>16}   {'; '.join(by_kind)}")
    print("\nThe rates behind it; each name is also an argument\n")
    for name, rate in rates.items():
        print(f"  {name:<25}{rate.value:>10,.5g} {rate.unit:<22}{rate.kind}: {rate.source}")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--samples", type=int, nargs="+", default=[5_000_000, 400_000_000])
    parser.add_argument("--results", type=Path, default=RESULTS, help="file with the measured rates")
    for name, rate in RATES.items():
        parser.add_argument(f"--{name}", type=float, help=f"{rate.unit}; {rate.source}".replace("%", "%%"))
    arguments = parser.parse_args(argv)
    given = {name: value for name in RATES if (value := getattr(arguments, name)) is not None}
    if few := [samples for samples in arguments.samples if samples < 1]:
        parser.error(f"--samples: {few[0]}, must be at least 1")
    with errors_in_one_line("estimate_cost.py"):
        rates = known_rates(arguments.results, given)
    _print({samples: plan(samples, rates) for samples in arguments.samples}, rates)


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # so that `| head` is not an error
    main()
