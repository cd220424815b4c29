"""Eq. 12: the noise levels that sampling visits."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def trailing_schedule(alphas_cumprod: Tensor, steps: int) -> list[tuple[int, float, float]]:
    """`steps` denoising steps from the last trained timestep to the clean latent.

    Args:
        alphas_cumprod: cumulative products of 1 - beta, [T], as trained.
        steps: 1 to T.

    Returns:
        (timestep, its alpha, alpha after the step), the last one ending at alpha 1.

    Raises:
        ValueError: `steps` outside 1 to T.
    """
    trained = len(alphas_cumprod)
    if not 1 <= steps <= trained:
        raise ValueError(f"generator.num_inference_steps: {steps} is outside 1 to {trained}")
    timesteps = [round(trained - place * trained / steps) - 1 for place in range(steps)]
    alphas = [*(float(alphas_cumprod[timestep]) for timestep in timesteps), 1.0]
    return [(timestep, *pair) for timestep, pair in zip(timesteps, pairwise(alphas), strict=True)]
