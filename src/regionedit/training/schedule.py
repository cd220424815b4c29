"""What changes over a run: the learning rate, the weight of the entropy loss, the commitment to searched regions."""

from __future__ import annotations

import math
from dataclasses import replace

from regionedit.config import LossConfig, OptimizerConfig, SearchConfig


def loss_weights(settings: LossConfig, progress: float) -> LossConfig:
    """The loss weights at progress 0 to 1 of a run; only that of the entropy changes, see `entropy_until`."""
    if not settings.entropy_until:
        return settings
    return replace(settings, entropy=settings.entropy * max(0.0, 1 - progress / settings.entropy_until))


def commitment(settings: SearchConfig, progress: float) -> float:
    """The commitment of `losses.searched_region` at progress 0 to 1 of a run, see `commitment_until`."""
    if not settings.commitment_until:
        return settings.commitment
    return settings.commitment * min(1.0, progress / settings.commitment_until)


def learning_rate(settings: OptimizerConfig, step: int, progress: float) -> float:
    """Linear warm-up over `warmup_steps`, times a cosine from 1 to `final_lr` over progress 0 to 1."""
    warm = min(1.0, (step + 1) / max(1, settings.warmup_steps))
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return settings.lr * warm * (settings.final_lr + (1 - settings.final_lr) * cosine)
