"""Training steps of the microworld's shipped models on this machine's CPU, for `benchmarks.train_step`.

A step's batch is always the same; loader and Trainer are left out, because benchmarks.loader and
benchmarks.two_processes measure them.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import torch
from lightning.pytorch.profilers import SimpleProfiler

from benchmarks.harness import medians, record
from regionedit.command_line import load_config
from regionedit.config import TrainConfig
from regionedit.data.batches import TrainBatch
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


class Timed:
    """A training step with its optimiser; every step uses the same batch."""

    def __init__(self, module: RegionTraining, batch: TrainBatch):
        self.module, self.batch = module, batch
        self.optimizer = module.configure_optimizers()

    def step(self) -> None:
        loss = self.module.training_step(self.batch, 0)["loss"]
        with self.module.stage("optimiser"):
            loss.backward()  # only hands over the gradients, which the stage `gradient` has computed
            torch.nn.utils.clip_grad_norm_(self.module.predictor.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()

    def rate(self, steps: int) -> float:
        """Pictures per second."""
        began = time.perf_counter()
        for _ in range(steps):
            self.step()
        return steps * len(self.batch.keys) / (time.perf_counter() - began)

    def shares(self, steps: int) -> str:
        """The share of each stage, from separate steps."""
        profiler = SimpleProfiler()
        self.module.stage = profiler.profile
        self.rate(steps)
        self.module.stage = nullcontext
        seconds = {name: sum(times) for name, times in profiler.recorded_durations.items()}
        return ", ".join(f"{name} {part / sum(seconds.values()):.0%}" for name, part in seconds.items())


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


def compare(rounds: int) -> None:
    """Time all systems in turns and record each beside the literal one."""
    torch.set_num_threads(1)
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
