"""Lightning data module: training and validation loaders of this process's rank."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from regionedit.config import DataConfig
from regionedit.data.batches import TrainBatch, move
from regionedit.data.held_out import split
from regionedit.data.loader import Tokenize, TrainLoader, ValidationLoader
from regionedit.data.manifest import Manifest
from regionedit.data.plan import EpochPlan

log = logging.getLogger(__name__)


class PairsDataModule(LightningDataModule):
    """Training and validation pairs for Lightning; also usable without a Trainer.

    Args:
        max_steps: of the run; logged as a number of epochs.

    Attributes:
        tokenize: how loader processes tokenise the texts of training batches; None leaves that to the step.

    Raises:
        ValueError: from `setup` and the loaders; names data.train, data.validation, data.held_out or data.proposals.
    """

    def __init__(self, data: DataConfig, seed: int, max_steps: int):
        super().__init__()
        self.data, self.seed, self.max_steps = data, seed, max_steps
        self.train: Manifest | None = None
        self.validation: Manifest | None = None
        self.tokenize: Tokenize | None = None
        self._loaders: list[TrainLoader | ValidationLoader] = []

    def prepare_data(self) -> None:
        """Index the shards, once per node, before the other ranks need the manifests."""
        self.setup()

    def setup(self, stage: str | None = None) -> None:
        """Load the manifests, unless it has been done, and reject data from which no loader can be built."""
        if self.train is None:
            self.train, self.validation = self._open()
        EpochPlan(self.train.sizes, self.seed, self.data.global_batch, self.data.block_shards, epoch=0)

    def train_dataloader(self) -> TrainLoader:
        if self.train is None:
            self.setup()
        loader = TrainLoader(self.train, self.data, self.seed, *self._rank_and_size(), self.tokenize)
        epochs = self.max_steps / len(loader)
        rank_zero_info(
            f"{self.train.name}: {len(self.train)} samples, {len(loader)} steps of {self.data.global_batch} per epoch, "
            f"which drops {loader.plan.dropped} samples; {self.max_steps} steps are {epochs:.2f} epochs"
        )
        self._loaders.append(loader)
        return loader

    def val_dataloader(self) -> ValidationLoader | list:
        """The validation loader, or an empty list without `data.validation` and `data.held_out`."""
        if self.train is None:
            self.setup()
        if self.validation is None:
            return []
        loader = ValidationLoader(self.validation, self.data, *self._rank_and_size())
        self._loaders.append(loader)
        return loader

    def teardown(self, stage: str | None = None) -> None:
        """Log which samples this rank could not read."""
        for loader in self._loaders:
            if loader.bad.counts:
                log.warning("bad samples that were replaced: %s", loader.bad.report())
        self._loaders.clear()

    def transfer_batch_to_device(self, batch: TrainBatch, device: torch.device, dataloader_idx: int) -> TrainBatch:
        """Lightning cannot move a frozen dataclass itself."""
        return move(batch, device)

    def _open(self) -> tuple[Manifest, Manifest | None]:
        data = self.data
        if data.held_out and data.validation:
            raise ValueError(
                f"data.held_out: {data.held_out:g} of data.train is held out, but data.validation names other shards "
                f"({data.validation}); set data.validation to null, or data.held_out to 0"
            )
        gaps = data.allow_gaps
        train = _named(
            "data.train", Manifest.open, data.train, proposals=data.proposals, marks=data.marks, allow_gaps=gaps
        )
        if not data.validation:
            return split(train, data.held_out)
        return train, _named("data.validation", Manifest.open, data.validation, truth=True, marks=data.marks)

    def _rank_and_size(self) -> tuple[int, int]:
        trainer = self.trainer
        return (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)


def _named(field: str, open_manifest: Callable[..., Manifest], *args, **kwargs) -> Manifest:
    try:
        return open_manifest(*args, **kwargs)
    except ValueError as error:
        raise ValueError(f"{field}: {error}") from None
