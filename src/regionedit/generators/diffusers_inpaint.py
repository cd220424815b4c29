"""Any in-painting pipeline of diffusers, called unchanged; `inpaint_pipelines` lists how each class must be called.

Shape letters: B batch, R rows of the batch that one call generates, C channels, H W pixels.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Self

import torch
import torch.nn.functional as F

from regionedit.config.generators import check_strength
from regionedit.generators.base import Need, Watch, step_of_all
from regionedit.generators.device_memory import enough_memory
from regionedit.generators.inpaint_latents import decode, recording_predictions
from regionedit.generators.inpaint_pipelines import InpaintPipeline, hub_refusal, require_checkpoint, require_pipeline
from regionedit.generators.low_rank import add_low_rank
from regionedit.generators.pipelines import UNCHECKED, PipelineGenerator, modules_of, read_pipeline
from regionedit.images import to_pictures

if TYPE_CHECKING:
    from torch import Tensor

    from regionedit.config import DiffusersInpaintConfig

SCHEDULERS = {"ddim": "DDIMScheduler", "dpm": "DPMSolverMultistepScheduler", "lcm": "LCMScheduler"}
"""Schedulers that `generator.scheduler` can use instead of a U-Net's own; transformers keep theirs."""


class DiffusersInpaint(PipelineGenerator):
    """A frozen pipeline of one of the classes in `INPAINT_PIPELINES`.

    Each picture's noise comes from a random generator of its own, on the CPU. The pipelines binarize masks, and outside
    of them most return the source as the autoencoder reconstructs it. `how` says which arguments the class takes.

    Raises:
        ValueError: a strength outside (0, 1] or one that leaves no step; a scheduler that the class does not support.
    """

    def __init__(self, pipeline, how: InpaintPipeline, config: DiffusersInpaintConfig):
        require_sampling(type(pipeline), how, config)
        super().__init__(pipeline, config)
        self.how = how
        self.needs = how.needs
        self.strength = how.strength if config.strength is None else config.strength
        self.denoiser = pipeline.unet if hasattr(pipeline, "unet") else pipeline.transformer
        self.multiple = pipeline.vae_scale_factor * 2
        if hasattr(pipeline, "unet"):
            self.multiple = pipeline.vae_scale_factor * 2 ** (len(self.denoiser.config.block_out_channels) - 1)
        self.scheduler = self._scheduler()
        self.device = torch.device("cpu")
        pipeline.set_progress_bar_config(disable=True)

    @classmethod
    def needs_of(cls, config: DiffusersInpaintConfig) -> Need:
        """Raises ValueError: no pipeline class is known for this configuration."""
        return require_pipeline(config)[1].needs

    @classmethod
    def load(cls, config: DiffusersInpaintConfig) -> Self:
        """Read a pipeline from a folder or hub name in diffusers' layout."""
        import diffusers

        name, how = require_pipeline(config)
        kind = getattr(diffusers, name)
        require_sampling(kind, how, config)
        require_checkpoint(config, name, _components(kind))
        try:
            pipeline = read_pipeline(kind, config, **(UNCHECKED if config.safety_checker == "off" else {}))
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise hub_refusal(config.path, error) from error
        if how.reads_guidance_embeds:
            pipeline.transformer.register_to_config(guidance_embeds=False)
        if config.dtype == "float32" and hasattr(pipeline.vae.config, "force_upcast"):
            pipeline.vae.register_to_config(force_upcast=False)  # no upcast needed, and it warns at every call
        if config.lora is not None:
            add_low_rank(pipeline, config)
        if config.compile:
            (pipeline.unet if hasattr(pipeline, "unet") else pipeline.transformer).compile_repeated_blocks()
        return cls(pipeline, how, config)

    def using(self, config: DiffusersInpaintConfig) -> Self:
        for name in set(config.weights) - {"dtype"}:
            if getattr(config, name) != getattr(self.config, name):
                raise ValueError(f"generator.{name}: decided when the weights are loaded; load them again to change it")
        other = type(self)(self.pipeline, self.how, config)
        other.device = self.device
        return other

    def to(self, device: str | torch.device) -> Self:
        self.device = torch.device(device)
        with enough_memory(self.config, modules_of(self.pipeline), self.device):
            if self.config.offload == "none" or self.device.type == "cpu":
                self.pipeline.to(self.device)
            elif self.config.offload == "model":
                self.pipeline.enable_model_cpu_offload(device=self.device)
            else:
                self.pipeline.enable_sequential_cpu_offload(device=self.device)
        return self

    def generate(
        self,
        images_BCHW: Tensor,
        mask_B1HW: Tensor,
        texts: Sequence[str],
        seeds: Sequence[int],
        watch: Watch | None = None,
    ) -> Tensor:
        """Pictures with an empty region are returned unchanged, without a call of the pipeline.

        Raises:
            ValueError: the safety checker blacked out a result; the device has too little memory for one picture.
            torch.OutOfMemoryError: it has too little memory for several pictures at once.
        """
        made_BCHW = images_BCHW.float().clone()
        masked = [row for row, mask_1HW in enumerate(mask_B1HW) if mask_1HW.max() >= 0.5]
        calls = [masked] if self.how.batches and masked else [[row] for row in masked]
        for number, rows in enumerate(calls):
            on_step = watch and step_of_all(watch, number, len(calls), partial(_with_rows, made_BCHW, rows))
            memory = enough_memory(self.config, modules_of(self.pipeline), self.device)
            with memory if len(rows) == 1 else nullcontext():  # the editor halves a batch that does not fit
                made_BCHW[rows] = self._call_pipeline(
                    images_BCHW[rows], mask_B1HW[rows], [texts[r] for r in rows], [seeds[r] for r in rows], on_step
                ).to(made_BCHW)
        return made_BCHW

    def _call_pipeline(
        self,
        images_RCHW: Tensor,
        mask_R1HW: Tensor,
        texts: list[str],
        seeds: Sequence[int],
        on_step: Watch | None,
    ) -> Tensor:
        """One call of the pipeline: [R, C, H, W] in [0, 1]."""
        pipeline, how, config = self.pipeline, self.how, self.config
        height, width = images_RCHW.shape[-2:]
        working = how.working_size(height, width, pipeline.vae_scale_factor * 2)
        images_RCHW, mask_R1HW = images_RCHW.float(), self._whole_cells(mask_R1HW)
        arguments = {
            "prompt": texts,  # a new list: Z-Image writes its chat template into it
            "image": to_pictures(images_RCHW) if how.pil else images_RCHW,
            "mask_image": to_pictures(mask_R1HW) if how.pil else mask_R1HW,
            "height": height,
            "width": width,
            "strength": self.strength,
            "num_inference_steps": config.num_inference_steps,
            how.guidance: config.guidance_scale,
            "generator": [torch.Generator().manual_seed(seed) for seed in seeds],
            "output_type": "latent" if how.forgets_shift else "pt",
        }
        if how.negative is not None and config.guidance_scale > 1:
            arguments["negative_prompt"] = [how.negative] * len(texts)
        if how.keeps_size:
            arguments |= {"max_area": height * width, "_auto_resize": False}

        def on_step_end(pipeline, step: int, timestep: Tensor, tensors: dict) -> dict:
            on_step(step + 1, pipeline.num_timesteps, preview)
            return {}

        def preview() -> Tensor:
            """The clean pictures as the last step estimated them."""
            return _resized(decode(pipeline, how.latents, predicted.latents, *working), (height, width))

        try:
            with recording_predictions(pipeline, self.scheduler) as predicted:
                made = pipeline(**arguments, callback_on_step_end=on_step and on_step_end)
            self._refuse_blacked_out(made)
            if how.forgets_shift:
                return decode(pipeline, how.latents, made.images, *working)
            return _resized(made.images.float(), (height, width))
        finally:
            pipeline.maybe_free_model_hooks()  # offloading leaves parts on the device if a callback ends the edit

    def _whole_cells(self, mask_R1HW: Tensor) -> Tensor:
        """The mask with every latent cell that it touches filled.

        Pipelines read one pixel per cell, so thin strokes and single pixels would be lost.
        """
        mask_R1HW = (mask_R1HW >= 0.5).float()
        if not self.how.mask_cells:
            return mask_R1HW
        side = self.pipeline.vae_scale_factor * self.how.mask_cells
        return F.interpolate(F.max_pool2d(mask_R1HW, side), scale_factor=side, mode="nearest")

    def _refuse_blacked_out(self, made) -> None:
        flagged = getattr(made, "nsfw_content_detected", None) or []
        if any(flagged):
            raise ValueError(
                "generator.safety_checker: the model's safety checker blacked out the result; change the request or "
                "the seed, or set it to off if it is mistaken and you take responsibility for the results"
            )

    def _scheduler(self):
        """The checkpoint's own scheduler, or the one that `generator.scheduler` names, with the same settings."""
        import diffusers

        own = self.pipeline.scheduler
        if self.config.scheduler is None:
            return own
        return getattr(diffusers, SCHEDULERS[self.config.scheduler]).from_config(own.config)


def _with_rows(images_BCHW: Tensor, rows: list[int], part_RCHW: Tensor) -> Tensor:
    """A copy of the pictures with other ones in these rows."""
    changed_BCHW = images_BCHW.clone()
    changed_BCHW[rows] = part_RCHW.to(changed_BCHW)
    return changed_BCHW


def require_sampling(kind: type, how: InpaintPipeline, config: DiffusersInpaintConfig) -> None:
    """Reject sampling settings that cannot run, before any weights are read.

    Raises:
        ValueError: a strength outside (0, 1] or one that leaves no step; a scheduler that this class does not support.
    """
    strength = how.strength if config.strength is None else config.strength
    check_strength(strength)
    if int(config.num_inference_steps * strength) < 1:
        raise ValueError(
            f"generator.strength: {strength} of {config.num_inference_steps} steps is less than one; "
            "raise it or generator.num_inference_steps"
        )
    if config.scheduler is not None and (config.scheduler not in SCHEDULERS or "unet" not in _components(kind)):
        known = ", ".join(["null", *SCHEDULERS]) if "unet" in _components(kind) else "null, the checkpoint's own"
        raise ValueError(f"generator.scheduler: {config.scheduler!r} cannot be used with {kind.__name__}; use {known}")


def _components(kind: type) -> set[str]:
    """Names of the components that every pipeline of this class needs."""
    given = inspect.signature(kind.__init__).parameters.values()
    needed = {argument.name for argument in given if argument.default is inspect.Parameter.empty} - {"self"}
    return needed - {"safety_checker", "feature_extractor"}


def _resized(images_RCHW: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize from the size at which the pipeline works to the size of the input."""
    if tuple(images_RCHW.shape[-2:]) == size:
        return images_RCHW
    return F.interpolate(images_RCHW, size, mode="bicubic", antialias=True).clamp(0, 1)
