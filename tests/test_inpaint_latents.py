"""The clean latent estimated after a step, for every kind of scheduler, and the working sizes of pipelines."""

import diffusers
import pytest
import torch

from regionedit.generators.inpaint_latents import recording_predictions
from regionedit.generators.inpaint_pipelines import INPAINT_PIPELINES

PREDICTIONS = {
    "DDIMScheduler": ("epsilon", "v_prediction", "sample"),
    "PNDMScheduler": ("epsilon", "v_prediction"),  # it does not support `sample`
    "DPMSolverMultistepScheduler": ("epsilon", "v_prediction", "sample"),
    "LCMScheduler": ("epsilon", "v_prediction", "sample"),
    "EulerDiscreteScheduler": ("epsilon", "v_prediction", "sample"),
}


class Pipeline:
    """The part of a pipeline that the estimate needs."""

    scheduler = "its own"


def estimate(scheduler, predict):
    """Run one step in the middle of a schedule on a noised known latent; returns the estimate and the known latent."""
    generator = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(2, 4, 8, 8, generator=generator) for _ in range(2))
    scheduler.set_timesteps(10)
    timestep = scheduler.timesteps[4]
    mix = scheduler.scale_noise if hasattr(scheduler, "scale_noise") else scheduler.add_noise
    order = (clean, timestep[None], noise) if hasattr(scheduler, "scale_noise") else (clean, noise, timestep[None])
    sample, pipeline = mix(*order), Pipeline()
    with recording_predictions(pipeline, scheduler) as predicted:
        assert pipeline.scheduler is scheduler and predicted.latents is None
        pipeline.scheduler.step(predict(clean, noise, timestep), timestep, sample, return_dict=False)
    assert pipeline.scheduler == "its own" and "step" not in vars(scheduler)
    return predicted.latents, clean


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, kind) for name, kinds in PREDICTIONS.items() for kind in kinds],
)
def test_a_perfect_prediction_gives_the_clean_latent(name, kind):
    """The scheduler adds the noise; the perfect prediction follows from the definitions."""
    settings = {"skip_prk_steps": True} if name == "PNDMScheduler" else {}
    scheduler = getattr(diffusers, name)(prediction_type=kind, **settings)

    def predict(clean, noise, timestep):
        alpha = scheduler.alphas_cumprod[int(timestep)]
        if name == "EulerDiscreteScheduler":  # its samples are x0 + s e; between whole timesteps s is interpolated
            alpha = 1 / (1 + scheduler.sigmas[4] ** 2)
        velocity = alpha**0.5 * noise - (1 - alpha) ** 0.5 * clean
        return {"epsilon": noise, "v_prediction": velocity, "sample": clean}[kind]

    predicted, clean = estimate(scheduler, predict)
    torch.testing.assert_close(predicted, clean, rtol=1e-3, atol=1e-3)


def test_a_perfect_flow_gives_the_clean_latent():
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    predicted, clean = estimate(scheduler, lambda clean, noise, timestep: noise - clean)
    torch.testing.assert_close(predicted, clean, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(1024, 1024), (640, 1000), (1536, 1024), (2048, 512)])
def test_sizes_are_the_pipelines_own(height, width):
    from diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_inpaint import calculate_dimensions

    wide, high, _ = calculate_dimensions(1024 * 1024, width / height)
    assert INPAINT_PIPELINES["QwenImageEditInpaintPipeline"].working_size(height, width, 16) == (high, wide)
    assert INPAINT_PIPELINES["FluxInpaintPipeline"].working_size(height, width, 16) == (height, width // 16 * 16)
    high, wide = INPAINT_PIPELINES["Flux2KleinInpaintPipeline"].working_size(height, width, 16)
    assert high % 16 == wide % 16 == 0 and high * wide <= 1024 * 1024
    if height * width <= 1024 * 1024:
        assert (high, wide) == (height, width // 16 * 16)
