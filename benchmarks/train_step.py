"""Pictures per second of training steps, with the share of each stage, compared with the paper taken literally.

    python -m benchmarks.train_step [--rounds 5]        the microworld's shipped models on this machine's CPU
    python -m benchmarks.train_step --full_size true    full size, random weights: a GPU, or one picture on a CPU

Literal means: the soft region conditions the generator, the gradient passes through every denoising step and the KL
decoder, and nothing is cached, without memory settings and without torch.compile. Weights have the same precision, and
sampling has the same number of steps, as in ours.

Microworld, `train_step_composite`: new proposals at each step, blended in pixels, with cached latents and captions;
`train_step_compiled`: the same with U-Net and decoder compiled (target: at least 3 times); `train_step_stored`: stored
proposals and cached captions (at least 12 times). The time for caching, storing and compiling is not included: each
system's first step is left out, and its seconds are printed. Figures are medians over rounds in which all take turns.

Full size, `train_step_{preset}_full_size`: each preset, with `--batch` pictures, then `full_size_step.literal` of
exact512 with as many pictures as fit, halved from `--baseline_batch` on. The step is that of `train()`, on a GPU with
its TF32, autocast and torch.compile; but the batch is always the same one, on the GPU already, and one process
exchanges no gradients. benchmarks.loader measures the loader. `--out` gets a table of pictures a second, peak memory,
the share of the GPU's peak (target: 40 % for paper256), host waits of a step and the share of each stage after every
system, so that it is there when the run is stopped; a system that fails gets its error as a row.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from lightning.pytorch.profilers import SimpleProfiler

from benchmarks.full_size_step import PRESETS, batch_for, build, literal, preset
from benchmarks.harness import medians, options, record
from benchmarks.step_cost import step_operations
from regionedit.command_line import load_config, one_line
from regionedit.config import TrainConfig
from regionedit.data.batches import TrainBatch
from regionedit.files import write_atomic
from regionedit.training import RegionTraining

BATCH, STEPS = 16, 4
SAME = ("--generator.masked_image=latent",)
LITERAL = ("--step.gradient=full", "--step.proposal_mask=predicted", "--memory.frozen_convolutions=false")
COMPOSITE = (*SAME, "--step.proposal_mask=predicted_hard", "--data.proposals=null")
MICROWORLD = {
    "literal": (*SAME, *LITERAL, "--data.proposals=null"),
    "composite": COMPOSITE,
    "compiled": (*COMPOSITE, "--generator.compile=true"),
    "stored": (),
}
PEAK_TFLOPS = {"A100": 312, "H100": 989, "H200": 989}
"""Dense bfloat16, from NVIDIA's data sheets."""


class Waiting(SimpleProfiler):
    """Lightning's profiler. On a GPU it waits until the work of a stage is done, so that times do not mix."""

    def start(self, action_name: str) -> None:
        wait_for_the_gpu()
        super().start(action_name)

    def stop(self, action_name: str) -> None:
        wait_for_the_gpu()
        super().stop(action_name)


def wait_for_the_gpu() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class Timed:
    """A training step with its optimiser; every step uses the same batch."""

    def __init__(self, module: RegionTraining, batch: TrainBatch):
        self.module, self.batch = module, batch
        self.optimizer = module.configure_optimizers()
        mixed = module.config.trainer.get("precision") == "bf16-mixed" and batch.images_BCHW.is_cuda
        self.autocast = partial(torch.autocast, "cuda", torch.bfloat16) if mixed else nullcontext

    def step(self) -> None:
        with self.autocast():
            loss = self.module.training_step(self.batch, 0)["loss"]
        with self.module.stage("optimiser"):
            loss.backward()  # only hands over the gradients, which the stage `gradient` has computed
            torch.nn.utils.clip_grad_norm_(self.module.predictor.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()

    def rate(self, steps: int) -> float:
        """Pictures per second."""
        wait_for_the_gpu()
        began = time.perf_counter()
        for _ in range(steps):
            self.step()
        wait_for_the_gpu()
        return steps * len(self.batch.keys) / (time.perf_counter() - began)

    def shares(self, steps: int) -> str:
        """The share of each stage, from separate steps, because timing the stages would slow down a GPU."""
        profiler = Waiting()
        self.module.stage = profiler.profile
        self.rate(steps)
        self.module.stage = nullcontext
        seconds = {name: sum(times) for name, times in profiler.recorded_durations.items()}
        return ", ".join(f"{name} {part / sum(seconds.values()):.0%}" for name, part in seconds.items())

    def host_waits(self) -> int:
        """How often a step makes Python wait for the GPU, as torch's own check counts it."""
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as noted:
                warnings.simplefilter("always")
                self.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return sum("synchronizing CUDA operation" in str(warning.message) for warning in noted)


class Measured(NamedTuple):
    """Pictures per second; peak GiB and host waits of a step, None on a CPU; the share of each stage."""

    rate: float
    peak: float | None
    waits: int | None
    stages: str


def microworld_step(changes: tuple[str, ...]) -> Timed:
    """The shipped models on random pictures."""
    config = load_config(TrainConfig, "configs/train_microworld.yaml", changes)
    stored = config.data.proposals is not None
    config = replace(config, data=replace(config.data, proposals=None))
    module = RegionTraining(config)
    size, clip, generator = config.data.image_size, module.frozen.clip, module.frozen.generator
    pictures_BCHW = torch.rand(2 * BATCH, 3, size, size, generator=torch.Generator().manual_seed(0))
    texts = tuple(f"change the red circle to a blue square {number}" for number in range(BATCH))
    cached = config.step.gradient == "composite"
    batch = TrainBatch(
        keys=texts,
        images_BCHW=pictures_BCHW[:BATCH],
        instructions=texts,
        source_captions=texts,
        target_captions=texts[::-1],
        proposals_BCHW=pictures_BCHW[BATCH:] if stored else None,
        source_text_BD=clip.encode_text(texts) if cached else None,
        target_text_BD=clip.encode_text(texts[::-1]) if cached else None,
        latents_BChw=generator.source_latents(pictures_BCHW[:BATCH]) if cached and not stored else None,
    )
    return Timed(module, batch)


def microworld(rounds: int) -> None:
    systems = {name: microworld_step(changes) for name, changes in MICROWORLD.items()}
    for name, system in systems.items():
        seconds = BATCH / system.rate(1)
        print(f"{name}: the first step takes {seconds:.1f} s")
    rates = [partial(system.rate, STEPS if name != "stored" else 4 * STEPS) for name, system in systems.items()]
    found = dict(zip(systems, medians(*rates, rounds=rounds), strict=True))
    for name, system in systems.items():
        print(f"{name}: {system.shares(STEPS)}")
    for name in ("composite", "compiled", "stored"):
        record(f"train_step_{name}", found[name], found["literal"], "pictures/s")


def full_size(batch: int, baseline_batch: int, out: Path) -> None:
    """Time all presets, then the literal baseline; write the table after each."""
    torch.set_float32_matmul_precision("high")  # as train() does
    device = "cuda" if torch.cuda.is_available() else "cpu"
    machine = torch.cuda.get_device_name() if device == "cuda" else None
    rows: dict[str, tuple[str, ...]] = {}
    rates: dict[str, float] = {}
    systems = {name: (partial(preset, name, compiled=device == "cuda"), batch) for name in PRESETS}
    systems["literal"] = (lambda: literal(preset("exact512")), baseline_batch)
    for name, (config, pictures) in systems.items():
        try:
            rates[name], *rows[name] = measured_row(config(), device, pictures, halve=name == "literal")
        except Exception as error:  # the other systems still count
            rows[name] = (str(pictures), f"{type(error).__name__}: {one_line(error, 80)}", *[""] * 4)
        write_atomic(out, table(rows, machine).encode())
    print(table(rows, machine))
    if "literal" in rates:
        for name in rates.keys() - {"literal"}:
            record(f"train_step_{name}_full_size", rates[name], rates["literal"], "pictures/s", machine)


def measured_row(config: TrainConfig, device: str, batch: int, halve: bool) -> tuple[float | str, ...]:
    """Pictures per second as a number, then the cells of the table after the preset's name.

    Args:
        halve: try again with half of the batch if it does not fit.
    """
    while True:
        try:
            found = full_size_rate(config, device, batch)
            break
        except torch.cuda.OutOfMemoryError:
            if not halve or batch == 1:
                raise
        torch.cuda.empty_cache()
        batch //= 2
    cells = [str(batch), f"{found.rate:.3g}", *[""] * 3, found.stages]
    if found.peak is not None:
        cells[2:5] = f"{found.peak:.1f}", _share_of_peak(config, found.rate), str(found.waits)
    return found.rate, *cells


def _share_of_peak(config: TrainConfig, rate: float) -> str:
    """The share of the GPU's peak that this rate uses; empty if the peak is not known."""
    known = next((t for part, t in PEAK_TFLOPS.items() if part in torch.cuda.get_device_name()), None)
    if known is None:
        return ""
    count = step_operations(config)
    ideal = count[torch.bfloat16] / known + count[torch.float32] / (known / 2)  # TF32 has half of bfloat16's rate
    return f"{ideal / 1e12 * rate:.0%}"


def table(rows: Mapping[str, Sequence[str]], machine: str | None) -> str:
    """The rows so far in Markdown."""
    lines = [f"Measured on {machine or 'this CPU'}, random weights, one process.", ""]
    lines += ["| preset | batch | pictures/s | peak GiB | of the peak | host waits | stages |", "|---" * 7 + "|"]
    lines += [f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()]
    return "\n".join(lines) + "\n"


def full_size_rate(config: TrainConfig, device: str, batch: int) -> Measured:
    module = build(config, device)
    system = Timed(module, batch_for(config, module, device, batch))
    if device != "cuda":
        return Measured(system.rate(1), None, None, system.shares(1))
    system.rate(2)
    torch.cuda.reset_peak_memory_stats()
    rate = system.rate(10)
    peak = torch.cuda.max_memory_allocated() / 2**30
    return Measured(rate, peak, system.host_waits(), system.shares(10))


def main() -> None:
    batch, baseline_batch = (32, 8) if torch.cuda.is_available() else (1, 1)
    parser = options(
        __doc__,
        rounds=(5, 1, "rounds of the microworld"),
        batch=(batch, 1, "pictures in a step, at full size"),
        baseline_batch=(baseline_batch, 1, "pictures in a step of the baseline, at full size"),
    )
    parser.add_argument("--full_size", choices=("true", "false"), default="false")
    parser.add_argument("--out", type=Path, default=Path("outputs/train_step.md"), help="table of --full_size true")
    given = parser.parse_args()
    if given.full_size == "true":
        full_size(given.batch, given.baseline_batch, given.out)
    else:
        torch.set_num_threads(1)
        microworld(given.rounds)


if __name__ == "__main__":
    main()
