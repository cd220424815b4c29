"""One run: check, build, fit, export. The same call again resumes where the last one stopped."""

from __future__ import annotations

import csv
import hashlib
import logging
import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning.pytorch.profilers import SimpleProfiler
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from regionedit.command_line import one_line, save_config
from regionedit.config import TrainConfig
from regionedit.config.renamed import under_present_names
from regionedit.data.datamodule import PairsDataModule
from regionedit.data.features import latent_settings, region_settings, require_features, text_settings
from regionedit.data.manifest import Manifest
from regionedit.device import say_unseen_gpu, unseen_gpu
from regionedit.dtypes import describe_dtypes, resolve_training
from regionedit.files import remove_leftovers
from regionedit.training.callbacks import LAST, Bar, LongCsv, Pictures, SaveAndStop, Scalars, WholeCheckpoints
from regionedit.training.module import RegionTraining, check_step
from regionedit.training.networks import Frozen, has_validation_loss
from regionedit.training.tokens import Tokenizers

MAY_CHANGE = (
    "out", "max_steps", "max_seconds", "initial_region", "log", "profile", "debug", "memory", "trainer",
    "generator.compile", "encoders.compile",
    "data.train", "data.allow_gaps", "data.validation", "data.validation_samples", "data.workers", "data.micro_batch",
    "data.max_bad_fraction", "data.features",
)  # fmt: skip
"""Settings that a resumed run may change; all others affect what is learnt. The loader compares the shards."""


def train(config: TrainConfig, watchers: Sequence[Callback] = (), frozen: Frozen | None = None) -> Path:
    """Train until `max_steps` or `max_seconds`, or resume the run in `config.out`.

    Args:
        watchers: callbacks that are called before the run's own.
        frozen: the frozen networks if they are loaded already; None loads them.

    Returns:
        The exported region_predictor/ folder.

    Raises:
        ValueError: a configuration that cannot work, or that differs from that of the run to resume; names the field.
        NotFinite: a loss or gradient is NaN or infinite.
        FailedElsewhere: another rank failed.
        Stopped: a signal stopped the run, and everything is saved.
    """
    check_step(config)
    _quieten()
    out = Path(config.out)
    last = out / "checkpoints" / LAST
    saved = _saved(last)
    trainer = _trainer(config, out, saved["global_step"] if saved else 0, watchers)  # refuses devices before all else
    device = trainer.strategy.root_device
    if device.type == "cpu" and config.trainer.get("accelerator") != "cpu":
        say_unseen_gpu()
    config = resolve_training(config, device)
    if saved:
        _check_same(config, saved)
    torch.set_float32_matmul_precision("high")
    seed_everything(config.seed, verbose=False)
    data = PairsDataModule(config.data, config.seed, config.max_steps)
    if rank_zero_only.rank == 0:
        data.setup()  # rejects unusable data before any model is loaded
        _check_features(config, data.train)
    module = RegionTraining(config, frozen)
    data.tokenize = Tokenizers(module.frozen, captions=config.data.features is None)
    if trainer.is_global_zero:
        remove_leftovers(out, below=True)
        save_config(config, out / "config.yaml")
        print(f"training {describe_dtypes(config, device)}")
    if saved and _finished(config, saved):
        module.load_state_dict(saved["state_dict"])
    else:
        trainer.fit(module, datamodule=data, ckpt_path=last if saved else None, weights_only=True)
    if trainer.is_global_zero:
        _export(config, module, out)
    return out / "region_predictor"


def _trainer(config: TrainConfig, out: Path, resumed_at: int, watchers: Sequence[Callback]) -> Trainer:
    log = config.log
    scalars = Scalars(log.every_steps, config.data.global_batch)
    callbacks = [
        *watchers,
        scalars,
        Bar(scalars),
        Pictures(out / "pictures", log.pictures_every_steps),
    ]
    if has_validation_loss(config):
        callbacks.append(ModelCheckpoint(out / "checkpoints", "best", "validation/loss", enable_version_counter=False))
    callbacks.append(SaveAndStop(out / "checkpoints", log.checkpoint_every_steps))
    loggers = [LongCsv(out / "metrics.csv", resumed_at), TensorBoardLogger(out, name="tensorboard", version="")]
    if log.wandb_project:
        identity = hashlib.sha256(str(out.resolve()).encode()).hexdigest()[:12]
        try:
            loggers.append(WandbLogger(out.name, out, id=identity, project=log.wandb_project, resume="allow"))
        except ModuleNotFoundError as error:
            raise ValueError("log.wandb_project: Weights & Biases is not installed; pip install wandb") from error
    settings: dict[str, Any] = {
        "max_steps": config.max_steps,
        "max_epochs": -1,
        "val_check_interval": log.validate_every_steps,
        "check_val_every_n_epoch": None,
        "limit_val_batches": 1.0 if config.data.validation or config.data.held_out else 0,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
        "logger": loggers,
        "callbacks": callbacks,
        "plugins": [WholeCheckpoints()],
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
        "default_root_dir": out,
    }
    if config.profile:
        settings["profiler"] = SimpleProfiler()
    refused = sorted((settings.keys() | {"accumulate_grad_batches"}) & config.trainer.keys())
    if refused:
        raise ValueError(
            f"trainer.{refused[0]}: set by this program; see log.*, max_steps, max_seconds, data.global_batch and "
            "data.micro_batch"
        )
    if str(config.trainer.get("precision", "32")).startswith("16"):
        raise ValueError(
            f"trainer.precision: {config.trainer['precision']!r} would concern the small predictor alone and underflow "
            "there; use 32-true or bf16-mixed, and generator.dtype for the generator"
        )
    try:
        trainer = Trainer(**settings, **config.trainer)
    except (TypeError, MisconfigurationException) as error:  # an unknown setting, or devices that do not exist
        raise ValueError(f"trainer: {unseen_gpu() or one_line(error, 200)}") from error
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # Agreement does it, without a wait of its own
    return trainer


def _saved(checkpoint: Path) -> dict[str, Any] | None:
    """The checkpoint to resume from, or None. Raises ValueError: it is damaged."""
    if not checkpoint.exists():
        return None
    try:
        return torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails in many ways
        raise ValueError(f"out: {checkpoint} is damaged ({type(error).__name__}); delete it to start again") from error


def _check_same(config: TrainConfig, saved: dict[str, Any]) -> None:
    """Raise ValueError if the run to resume was started with other settings; names the first field that differs."""
    now = _flat(asdict(config))
    started = under_present_names(_flat(saved["config"]))
    defaults = replace(TrainConfig(), generator=type(config.generator)())
    before = _flat(asdict(defaults)) | started  # fields newer than the run had their defaults
    for name in sorted(now):
        if before.get(name) != now.get(name) and not name.startswith(MAY_CHANGE):
            raise ValueError(
                f"{name}: is {now.get(name)!r}, but the run in {config.out} was started with {before.get(name)!r}; "
                "restore it, or choose another out"
            )


def _check_features(config: TrainConfig, manifest: Manifest) -> None:
    if config.data.features is None:
        return
    settings = {"text": text_settings(config.encoders)}
    if config.loss.region:
        settings["regions"] = region_settings(config)
    if config.step.gradient != "search" and config.data.proposals is None:
        settings["latents"] = latent_settings(config.generator, config.data.image_size)
    # samples without searched regions learn from the other loss terms alone
    some = () if config.step.gradient == "search" else ("regions",)
    require_features(Path(config.data.features), manifest, settings, some)


def _finished(config: TrainConfig, saved: dict[str, Any]) -> bool:
    return saved["global_step"] >= config.max_steps or 0 < config.max_seconds <= saved["seconds"]


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _export(config: TrainConfig, module: RegionTraining, out: Path) -> None:
    """region_predictor/ with the final weights, or with `log.export: best` those of the lowest validation loss."""
    best = out / "checkpoints" / "best.ckpt"
    chosen = best if config.log.export == "best" and best.exists() else out / "checkpoints" / LAST
    saved = torch.load(chosen, map_location="cpu", weights_only=True)
    module.load_state_dict(saved["state_dict"])
    encoders, generator = config.encoders, config.generator
    module.predictor.export(
        out / "region_predictor",
        trained_with=[
            f"CLIP: {encoders.clip}" + (f" ({encoders.clip_pretrained})" if encoders.clip_pretrained else ""),
            f"instruction encoder: {encoders.instruction}" + _at(encoders.instruction_revision),
            f"generator: {generator.path}" + _at(generator.revision),
        ],
        data=f"{_names(config.data.train)}: {saved['global_step']} steps of {config.data.global_batch} samples."
        + (f" Started from {config.initial_region}." if config.initial_region else ""),
        measured=_measured(out / "metrics.csv", saved["global_step"]),
    )


def _names(train: str | list[str]) -> str:
    return train if isinstance(train, str) else ", ".join(train)


def _at(revision: str | None) -> str:
    return f" at {revision}" if revision else ""


def _measured(metrics: Path, step: int) -> str:
    """Validation scores of the exported weights; empty if the run was too short to log any."""
    if not metrics.is_file():
        return ""
    with metrics.open(newline="") as file:
        rows = [row for row in csv.reader(file) if row[0] == str(step) and row[1].startswith("validation/")]
    return ", ".join(f"{name} {float(value):.3f}" for _, name, value in sorted(rows))


def _quieten() -> None:
    """Silence Lightning's advice that does not apply here, and let it say nothing twice."""
    if logging.getLogger().hasHandlers():  # the command's own, which also gets Lightning's messages
        logging.getLogger("lightning").handlers.clear()
    for name in ("utilities.rank_zero", "trainer.connectors.checkpoint_connector"):
        logging.getLogger(f"lightning.pytorch.{name}").setLevel(logging.WARNING)
    for text in (
        ".*does not have many workers.*",
        ".*You are trying to `self.log\\(\\)`.*",
        ".*Checkpoint directory .* exists and is not empty.*",
    ):
        warnings.filterwarnings("ignore", text)
