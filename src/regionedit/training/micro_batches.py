"""The gradient of a rank's share of the global batch, a few samples at a time, before ranks exchange anything.

Every loss is per sample and noise is keyed by sample, so micro-batches give the losses and the gradient of the whole
batch; only the memory differs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from regionedit.config import LossConfig
from regionedit.data.batches import TrainBatch
from regionedit.device import autocast_off

if TYPE_CHECKING:
    from regionedit.training.module import RegionTraining

SHOWN = 8  # samples of a step whose pictures are kept


class NotFinite(RuntimeError):
    """A loss or a gradient is NaN or infinite; the message names the samples."""


class Part(NamedTuple):
    """One micro-batch: the samples' keys; its loss and its unweighted terms [B]; whether loss and gradient are finite,
    a bool scalar on the device."""

    keys: tuple[str, ...]
    loss: Tensor
    terms: dict[str, Tensor]
    finite: Tensor


class LocalGradient(NamedTuple):
    """The loss of a rank's samples, a scalar; its gradient by every trained parameter; P; the pictures of the first
    samples, [SHOWN, C, H, W] in [0, 1] at CLIP's size; the micro-batches."""

    loss: Tensor
    gradients: list[Tensor]
    probability_BN: Tensor
    pictures: dict[str, Tensor]
    parts: list[Part]

    @property
    def finite(self) -> Tensor:
        """Whether all losses and gradients are finite, a bool scalar on the device."""
        return torch.stack([part.finite for part in self.parts]).all()

    @property
    def terms(self) -> dict[str, Tensor]:
        """The means of the unweighted terms, scalars."""
        return {name: torch.cat([part.terms[name] for part in self.parts]).mean() for name in self.parts[0].terms}

    def attached(self, parameters: Sequence[Tensor]) -> Tensor:
        """The loss as a scalar whose backward pass gives the parameters these gradients, which it does not compute."""
        return _Attached.apply(self.loss, self.gradients, *parameters)

    def failure(self, step: int) -> NotFinite | None:
        """What is not finite, and for which samples; waits for the device."""
        for keys, loss, terms, finite in self.parts:
            if finite:
                continue
            bad = {name: value_B for name, value_B in terms.items() if not value_B.isfinite().all()}
            names = [*(() if loss.isfinite() else ("loss",)), *bad] or ["gradient"]
            if bad:
                wrong_B = ~torch.stack([*bad.values()]).isfinite().all(0)
                keys = tuple(key for key, wrong in zip(keys, wrong_B.tolist(), strict=True) if wrong)
            return NotFinite(f"step {step}: {', '.join(names)} not finite for samples {', '.join(keys)}")
        return None


def local_gradient(module: RegionTraining, batch: TrainBatch, weights: LossConfig, size: int) -> LocalGradient:
    """Run the step on `size` samples at a time (0: on all) and add up their gradients."""
    trained = module.trained
    parts, probabilities, pictures, total, gradients = [], [], {}, 0.0, []
    for part in _split(batch, size):
        step = module.step(part, module.current_epoch)
        loss, terms = module.loss(step, weights)
        share = len(part.keys) / len(batch.keys)
        with module.stage("gradient"), autocast_off(loss.device):
            found = torch.autograd.grad(loss * share, trained)
        loss = loss.detach()
        finite = torch.isfinite(loss) & torch.isfinite(get_total_norm(found))
        parts.append(Part(part.keys, loss, {name: value_B.detach() for name, value_B in terms.items()}, finite))
        total = total + share * loss
        gradients = [a + b for a, b in zip(gradients, found, strict=True)] if gradients else list(found)
        probabilities.append(step.outputs.probability_BN.detach())
        for name, shown in step.pictures.items():
            before = [pictures[name]] if name in pictures else []
            pictures[name] = torch.cat([*before, shown.detach()])[:SHOWN]
    return LocalGradient(total, gradients, torch.cat(probabilities), pictures, parts)


def _split(batch: TrainBatch, size: int) -> Iterator[TrainBatch]:
    count = len(batch.keys)
    if not size or size >= count:
        yield batch
        return
    values = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    for start in range(0, count, size):
        rows = slice(start, start + size)
        yield TrainBatch(**{name: _rows(value, rows) for name, value in values.items()})


def _rows(value: Sequence | dict[str, Tensor] | None, rows: slice) -> Sequence | dict[str, Tensor] | None:
    if isinstance(value, dict):
        return {name: tensor[rows] for name, tensor in value.items()}
    return None if value is None else value[rows]


class _Attached(torch.autograd.Function):
    """The identity of a loss, with gradients that were computed before."""

    @staticmethod
    def forward(ctx, loss: Tensor, gradients: list[Tensor], *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return loss.clone()

    @staticmethod
    def backward(ctx, by_loss: Tensor) -> tuple:
        return None, None, *(by_loss * gradient for gradient in ctx.gradients)
