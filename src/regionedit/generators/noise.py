"""The noise of diffusion models: its seeds, its levels, and how a prediction splits a latent into picture and noise.

Shape letters: B batch, C latent channels, y x latent cells, T trained timesteps.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import torch

from regionedit.device import send

if TYPE_CHECKING:
    from torch import Tensor


def noise_seed(seed: int, *identity: str | int) -> int:
    """A seed made of others, the same on every machine: in training (seed, epoch, key), in evaluation (seed, id)."""
    digest = hashlib.sha256(repr((seed, *identity)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def own_noise(seeds: Sequence[int], like_BCyx: Tensor) -> Tensor:
    """Normal noise, drawn on the CPU from each sample's own seed, so that neither device nor batch changes it."""
    drawn = [torch.randn(like_BCyx.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return send(torch.stack(drawn), like_BCyx.device).to(like_BCyx.dtype)


def noised(clean_BCyx: Tensor, noise_BCyx: Tensor, alpha: float) -> Tensor:
    """Latents with noise at the level of a timestep, BCyx; `alpha` is its cumulative product, in [0, 1]."""
    return alpha**0.5 * clean_BCyx + (1 - alpha) ** 0.5 * noise_BCyx


def clean_and_noise(
    latent: Tensor, predicted: Tensor, alpha: float | Tensor, kind: Literal["epsilon", "v_prediction", "sample"]
) -> tuple[Tensor, Tensor]:
    """The clean latent and the noise that a prediction implies, both of the latent's shape.

    Args:
        latent: with noise at the level `alpha`, see `noised`.
        kind: what the network predicts, a scheduler's `prediction_type`.
    """
    signal, noise = alpha**0.5, (1 - alpha) ** 0.5
    if kind == "epsilon":
        return (latent - noise * predicted) / signal, predicted
    if kind == "v_prediction":
        return signal * latent - noise * predicted, signal * predicted + noise * latent
    return predicted, (latent - signal * predicted) / noise


def trailing_schedule(alphas_cumprod: Tensor, steps: int, strength: float = 1.0) -> list[tuple[int, float, float]]:
    """Eq. 12: denoising steps from the last trained timestep to the clean latent, where alpha is 1.

    Args:
        alphas_cumprod: cumulative products of 1 - beta, [T], as trained.
        strength: share of the steps that runs, the last ones; at least one step runs.

    Returns:
        For each step its timestep, the timestep's alpha, and alpha after the step.

    Raises:
        ValueError: `steps` outside 1 to T.
    """
    trained = len(alphas_cumprod)
    if not 1 <= steps <= trained:
        raise ValueError(f"generator.num_inference_steps: {steps} is outside 1 to {trained}")
    timesteps = [round(trained - place * trained / steps) - 1 for place in range(steps)]
    alphas = [*(float(alphas_cumprod[timestep]) for timestep in timesteps), 1.0]
    schedule = [(timestep, *pair) for timestep, pair in zip(timesteps, pairwise(alphas), strict=True)]
    return schedule[-max(1, round(steps * strength)) :]
