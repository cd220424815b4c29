"""Previews of in-painting pipelines while they denoise: latents decoded into pictures.

Shape letters: B batch, C latent channels, y x latent cells, N cells in one sequence, D channels of such a cell.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING

import torch

from regionedit.generators.noise import clean_and_noise

if TYPE_CHECKING:
    from torch import Tensor


@contextmanager
def recording_predictions(pipeline, scheduler) -> Iterator[SimpleNamespace]:
    """Inside, the pipeline uses this scheduler, and every step stores the clean latents that it predicts.

    The value's `latents` are those of the last step, in the pipeline's own layout; None before the first. Pipelines do
    not expose what their network predicted; only the scheduler receives it.
    """
    predicted, step, own = SimpleNamespace(latents=None), scheduler.step, pipeline.scheduler

    @functools.wraps(step)  # pipelines inspect its signature to see if it takes a generator
    def recording_step(output: Tensor, timestep: Tensor, sample: Tensor, **settings):
        stepped = step(output, timestep, sample, **settings)
        predicted.latents = predict_clean(scheduler, output.float(), timestep, sample.float())
        return stepped

    scheduler.step, pipeline.scheduler = recording_step, scheduler
    try:
        yield predicted
    finally:
        del scheduler.step
        pipeline.scheduler = own


def predict_clean(scheduler, output: Tensor, timestep: Tensor, sample: Tensor) -> Tensor:
    """The clean latents according to one step's prediction; call it after that step.

    There are three kinds of schedulers: rectified flow, x = (1 - s) x0 + s e, where the network predicts e - x0; those
    that preserve variance, x = sqrt(a) x0 + sqrt(1 - a) e; and those whose samples grow with the noise, x / sqrt(a).
    """
    if not hasattr(scheduler, "alphas_cumprod"):
        return sample - scheduler.sigmas[scheduler.step_index - 1].to(sample) * output
    if scheduler.init_noise_sigma == 1:
        alpha = scheduler.alphas_cumprod[int(timestep)].to(sample)
    else:
        alpha = 1 / (1 + scheduler.sigmas[scheduler.step_index - 1].to(sample) ** 2)
        sample = sample * alpha**0.5
    return clean_and_noise(sample, output, alpha, scheduler.config.prediction_type)[0]


def decode(pipeline, layout: str, latents: Tensor, height: int, width: int) -> Tensor:
    """Pictures decoded from these latents, [B, 3, height, width] in [0, 1]."""
    vae = pipeline.vae
    latents = UNPACKERS[layout](pipeline, latents, height, width)
    overflows = vae.dtype == torch.float16 and getattr(vae.config, "force_upcast", False)  # SDXL's, by its config
    if overflows:
        vae.to(torch.float32)
    made = vae.decode(latents.to(vae.dtype)).sample
    if overflows:
        vae.to(torch.float16)
    return ((made[:, :, 0] if made.ndim == 5 else made).float() / 2 + 0.5).clamp(0, 1)


def _plain(pipeline, latents_BCyx: Tensor, height: int, width: int) -> Tensor:
    return _unscaled(pipeline.vae.config, latents_BCyx)


def _packed(pipeline, latents_BND: Tensor, height: int, width: int) -> Tensor:
    return _unscaled(
        pipeline.vae.config, pipeline._unpack_latents(latents_BND, height, width, pipeline.vae_scale_factor)
    )


def _patched(pipeline, latents_BND: Tensor, height: int, width: int) -> Tensor:
    """FLUX.2: each token is two by two cells, normalised by running statistics of the autoencoder."""
    statistics, side = pipeline.vae.bn, pipeline.vae_scale_factor * 2
    latents_BDyx = latents_BND.permute(0, 2, 1).unflatten(2, (height // side, width // side))
    deviation_D = (statistics.running_var + pipeline.vae.config.batch_norm_eps).sqrt().to(latents_BDyx)
    latents_BDyx = latents_BDyx * deviation_D[:, None, None] + statistics.running_mean.to(latents_BDyx)[:, None, None]
    return pipeline._unpatchify_latents(latents_BDyx)


def _unscaled(config, latents: Tensor) -> Tensor:
    """Undo the normalisation: by statistics of each channel where the autoencoder has them, else by scale and shift."""
    scale = config.get("scaling_factor") or 1
    if config.get("latents_mean") is None:
        return latents / scale + (config.get("shift_factor") or 0)
    mean, deviation = (
        torch.tensor(config[name]).to(latents).view(1, -1, *[1] * (latents.ndim - 2))
        for name in ("latents_mean", "latents_std")
    )
    return latents * deviation / scale + mean


UNPACKERS: dict[str, Callable[..., Tensor]] = {
    "plain": _plain,
    "packed": _packed,
    "packed_video": _packed,  # the same with a frame dimension, which only affects the shape of the statistics
    "patched": _patched,
}
