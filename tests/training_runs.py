"""Of training runs: presets with tiny models, a batch, the command, a stop on the way, what was logged."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from lightning.pytorch import Callback

from regionedit.command_line import load_config, save_config
from regionedit.config import TrainConfig
from regionedit.data.datamodule import PairsDataModule
from tests.pairs import SIZE


def logged(config: TrainConfig, name: str = "train/loss") -> dict[int, float]:
    rows = [line.split(",") for line in (Path(config.out) / "metrics.csv").read_text().splitlines()[1:]]
    return {int(step): float(value) for step, key, value in rows if key == name}


def batch_for(config: TrainConfig):
    data = PairsDataModule(config.data, config.seed, config.max_steps)
    return next(iter(data.train_dataloader()))


class StopAt(Callback):
    """Sends this process a signal after a step."""

    def __init__(self, step: int, number: int = signal.SIGTERM):
        self.step, self.number = step, number

    def on_train_batch_start(self, trainer, module, batch, batch_index):
        if trainer.global_step == self.step - 1:
            os.kill(os.getpid(), self.number)


def command(config: TrainConfig, tmp_path: Path, *more: str) -> subprocess.Popen:
    save_config(config, tmp_path / "given.yaml")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        [sys.executable, "train.py", "--config", str(tmp_path / "given.yaml"), *more],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip


PRESETS = {path.stem.removeprefix("train_sd15_"): path for path in sorted(Path("configs").glob("train_sd15_*.yaml"))}


def tiny_preset(name: str, models: TrainConfig, decoder: Path, *changes: str) -> TrainConfig:
    """A preset as shipped but for models, sizes and torch.compile.

    Args:
        models: has the tiny encoders and the tiny generator.
        decoder: a tiny AutoencoderTiny, for the presets that name one.
    """
    approximate = load_config(TrainConfig, PRESETS[name]).generator.decoder
    return load_config(TrainConfig, PRESETS[name], [
        f"--encoders.clip={models.encoders.clip}", "--encoders.clip_pretrained=null",
        f"--encoders.instruction={models.encoders.instruction}", "--encoders.instruction_revision=null",
        f"--predictor.heads={1 if name == 'paper' else 4}",
        f"--generator.path={models.generator.path}", "--generator.revision=null", "--generator.variant=null",
        f"--generator.size={SIZE}", "--generator.decoder_revision=null",
        f"--generator.decoder={decoder if approximate else 'null'}", "--generator.compile=false",
        "--encoders.compile=false", f"--data.image_size={SIZE}", "--data.workers=0", *changes,
    ])  # fmt: skip
