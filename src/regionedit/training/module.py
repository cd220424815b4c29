"""One training step, top to bottom: the generator proposes, the region blends, CLIP scores the result.

Shape letters: B batch, C channels, H W pixels, N patches, D embedding width, M instruction tokens.
Frozen networks are not part of the module's state: checkpoints and DDP contain only the predictor.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from functools import partial
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from regionedit import losses, masks
from regionedit.config import LossConfig, TrainConfig
from regionedit.data.batches import scaled
from regionedit.generators import DifferentiableGenerator, noise_seed
from regionedit.proposal_masks import proposal_mask
from regionedit.records import StepOutputs, TrainBatch
from regionedit.training.networks import Frozen, check_step, load_frozen, load_predictor
from regionedit.training.result import Blend, Source, encode_result
from regionedit.training.schedule import learning_rate, loss_weights
from regionedit.training.scores import RegionScores

VALIDATION_EPOCH = -1
"""The epoch in validation's noise seeds, so that its noise is always the same."""


class Step(NamedTuple):
    """What a step computes before its loss: the inputs of the loss terms; `source`, `proposal` and `composed`, each
    [B, C, H, W] in [0, 1] at CLIP's size; the surrogate loss of `encode_result`, or None."""

    outputs: StepOutputs
    pictures: dict[str, Tensor]
    surrogate_loss_B: Tensor | None


class NotFinite(RuntimeError):
    """A loss or a gradient is NaN or infinite; the message names the samples."""


class RegionTraining(LightningModule):
    """Trains a region predictor on captioned pictures; all other networks are frozen.

    Args:
        config: the whole configuration; `data` and `trainer` mainly concern other modules.
        frozen: the networks of `encoders` and `generator` if they are loaded already; None loads them.

    Raises:
        ValueError: a configuration or a checkpoint that does not fit; names the field.
    """

    def __init__(self, config: TrainConfig, frozen: Frozen | None = None):
        super().__init__()
        check_step(config)
        self.config = config
        self.frozen = frozen or load_frozen(config)  # in a tuple, so that they do not become submodules
        clip, generator = self.frozen.clip, self.frozen.generator
        if isinstance(generator, DifferentiableGenerator):
            generator.save_memory(config.memory)
        if "clip" in config.memory.checkpoint:
            clip.checkpoint()
        self.predictor = load_predictor(config, clip.dim, clip.grid)
        if config.loss.alpha == 0:  # DDP waits for the gradient of every trained weight; f_sem would get none
            self.predictor.semantic.requires_grad_(False)
        self.scores = RegionScores(config.step.threshold)
        self.stage: Callable[[str], AbstractContextManager[None]] = nullcontext  # the trainer's profiler in a run
        self._seconds_before, self._started = 0.0, None

    # ------------------------------------------------------------ the step

    def step(self, batch: TrainBatch, epoch: int) -> Step:
        """From a batch to the inputs of all loss terms, in the paper's order."""
        frozen, batch = self.frozen, scaled(batch)
        tokens = batch.tokens and (batch.tokens["instruction_ids"], batch.tokens["instruction_mask"])
        with self.stage("encode"), torch.no_grad():
            source = self._encode(batch)
            instruction_BMD, instruction_mask_BM = frozen.instruction_encoder.encode(batch.instructions, tokens)
        with self.stage("predict"):  # eq. 1-3, and f_sem
            prediction = self.predictor(source.features.patches_BND, instruction_BMD, instruction_mask_BM)
            projected_fused_BD = self.predictor.project(prediction.fused_BND)
            projected_patches_BD = self.predictor.project(source.features.patches_BND)
        with self.stage("generate"):  # eq. 14-23
            blend = self._blend(batch, source.image_BCHW, prediction.probability_BN, epoch)
        with self.stage("result"):  # I_res and F_res
            result = encode_result(blend, frozen.clip, source, self.config.loss, self.config.memory.chunk)
        outputs = StepOutputs(
            probability_BN=prediction.probability_BN,
            projected_fused_BD=projected_fused_BD,
            projected_patches_BD=projected_patches_BD,
            source_BD=source.features.global_BD,
            result_BD=result.features.global_BD,
            source_patches_BND=source.features.patches_BND,
            result_patches_BND=result.features.patches_BND,
            source_text_BD=source.source_text_BD,
            target_text_BD=source.target_text_BD,
            image_rounding=source.image_rounding,
            text_rounding=source.text_rounding,
        )
        proposal_BCHW = result.picture_BCHW if blend.proposal_BCHW is None else blend.proposal_BCHW
        pictures = {"source": source.image_BCHW, "proposal": proposal_BCHW, "composed": result.picture_BCHW}
        return Step(outputs, pictures, result.surrogate_loss_B)

    def loss(self, step: Step, weights: LossConfig) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean loss of a step and its unweighted terms [B], see `losses.total`.

        The surrogate loss adds 0 to the value, and to the gradient what `encode_result` has computed chunk by chunk.
        """
        loss, terms = losses.total(step.outputs, weights)
        return (loss if step.surrogate_loss_B is None else loss + step.surrogate_loss_B.mean()), terms

    def training_step(self, batch: TrainBatch, batch_index: int) -> dict[str, Any]:
        step = self.step(batch, self.current_epoch)
        loss, terms = self.loss(step, loss_weights(self.config.loss, self.progress()))
        self._require_finite(batch, {"loss": loss, **terms})
        self._keys = batch.keys
        return {
            "loss": loss,
            "terms": {name: value_B.detach().mean() for name, value_B in terms.items()},
            "probability": step.outputs.probability_BN.detach(),
            "pictures": {name: picture.detach() for name, picture in step.pictures.items()},
        }

    def validation_step(self, batch: TrainBatch, batch_index: int) -> None:
        """Losses (if a generator is loaded), area, instruction swap; with true regions also IoU and pointing."""
        clip, instruction_encoder, generator = self.frozen
        batch = scaled(batch)
        patches_BND = clip.encode_image(clip.stretch(batch.images_BCHW)).patches_BND
        swapped = batch.instructions[1:] + batch.instructions[:1]
        probability_BN, swapped_BN = (
            self.predictor(patches_BND, *instruction_encoder.encode(texts)).probability_BN
            for texts in (batch.instructions, swapped)
        )
        self.scores.add_regions(probability_BN, swapped_BN, batch, clip.grid)
        if generator is not None:
            self.scores.add_losses(*self.loss(self.step(batch, VALIDATION_EPOCH), self.config.loss))

    def on_validation_epoch_end(self) -> None:
        scores = self.scores.compute()
        named = {f"validation/{name}": value for name, value in scores.items()}
        self.log_dict(named | {"step": float(self.global_step)}, sync_dist=True)  # equal on all ranks already

    # ------------------------------------------------------------ parts of the step

    def _encode(self, batch: TrainBatch) -> Source:
        """I_ori and F_img of the pictures; T_o and T_e, cached or computed."""
        clip = self.frozen.clip
        image_BCHW = clip.stretch(batch.images_BCHW)
        features = clip.encode_image(image_BCHW)
        texts = batch.source_text_BD, batch.target_text_BD
        if texts[0] is None:
            ids_BL = (batch.tokens or {}).get("caption_ids")
            texts = clip.encode_text(batch.source_captions + batch.target_captions, ids_BL).chunk(2)
        return Source(image_BCHW, features, *texts, clip.image_rounding, clip.text_rounding)

    def _blend(self, batch: TrainBatch, source_BCHW: Tensor, probability_BN: Tensor, epoch: int) -> Blend:
        """Blend the generator's proposal into the source by P, so that the gradient follows `step.gradient`."""
        step, grid = self.config.step, self.frozen.clip.grid
        mask_BN = probability_BN
        if step.estimator is not None:
            mask_BN = masks.binarize(probability_BN, step.threshold, step.estimator)
        if step.gradient == "composite":  # eq. 23 in pixels, with the exact source
            proposal_BCHW = self.frozen.clip.stretch(self._propose(batch, probability_BN, epoch))
            mask_B1HW = masks.upsample(mask_BN, grid, source_BCHW.shape[-2:], step.upsample)
            return Blend(masks.composite(proposal_BCHW, source_BCHW, mask_B1HW), _identity, proposal_BCHW)
        mask_B1HW = masks.upsample(mask_BN, grid, batch.images_BCHW.shape[-2:], step.upsample)
        latents_BCyx, decode = self.frozen.generator.differentiable_latents(
            batch.images_BCHW,
            mask_B1HW,
            *self._texts_and_seeds(batch, epoch),
            step.gradient,
            self._proposal_mask(batch, probability_BN, epoch) if step.gradient == "latent" else None,
            batch.latents_BChw,
            (batch.tokens or {}).get("generator_ids"),
        )
        return Blend(latents_BCyx, lambda rows_BCyx: self.frozen.clip.stretch(decode(rows_BCyx)))

    def _propose(self, batch: TrainBatch, probability_BN: Tensor, epoch: int) -> Tensor:
        """Stored or new proposals, without gradient."""
        if batch.proposals_BCHW is not None:
            return batch.proposals_BCHW
        mask_B1HW = self._proposal_mask(batch, probability_BN, epoch)
        known = {"source_latents_BChw": batch.latents_BChw, "text_ids_BL": (batch.tokens or {}).get("generator_ids")}
        known = {name: value for name, value in known.items() if value is not None}
        return self.frozen.generator.propose(
            batch.images_BCHW, mask_B1HW, *self._texts_and_seeds(batch, epoch), **known
        )

    def _proposal_mask(self, batch: TrainBatch, probability_BN: Tensor, epoch: int) -> Tensor:
        size = tuple(batch.images_BCHW.shape[-2:])
        seeds = partial(self._seeds, batch.keys, epoch)
        return proposal_mask(probability_BN, self.frozen.clip.grid, size, self.config.step, seeds)

    def _seeds(self, keys: tuple[str, ...], epoch: int, purpose: str) -> list[int]:
        """Derived from (seed, epoch, sample key), never from the rank or the position in the batch."""
        return [noise_seed(self.config.seed, epoch, key, purpose) for key in keys]

    def _texts_and_seeds(self, batch: TrainBatch, epoch: int) -> tuple[tuple[str, ...], list[int]]:
        texts = batch.instructions if self.frozen.generator.needs == "instruction" else batch.target_captions
        return texts, self._seeds(batch.keys, epoch, "noise")

    def _require_finite(self, batch: TrainBatch, values: dict[str, Tensor]) -> None:
        if torch.isfinite(values["loss"]):
            return
        bad = {name: value for name, value in values.items() if not torch.isfinite(value).all()}
        per_sample = [value for value in bad.values() if value.ndim]
        keys = batch.keys
        if per_sample:
            wrong_B = ~torch.isfinite(torch.stack(per_sample)).all(0)
            keys = [key for key, wrong in zip(batch.keys, wrong_B.tolist(), strict=True) if wrong]
        raise NotFinite(f"step {self.global_step}: {', '.join(bad)} not finite for samples {', '.join(keys)}")

    # ------------------------------------------------------------ optimisation, by step or by time

    def configure_optimizers(self) -> torch.optim.Optimizer:
        settings = self.config.optimizer
        trained = [p for p in self.predictor.parameters() if p.requires_grad]
        return torch.optim.AdamW(trained, lr=settings.lr, weight_decay=settings.weight_decay)

    def on_train_batch_start(self, batch: TrainBatch, batch_index: int) -> None:
        rate = learning_rate(self.config.optimizer, self.global_step, self.progress())
        for group in self.optimizers().param_groups:
            group["lr"] = rate

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None) -> None:
        norm = torch.nn.utils.clip_grad_norm_(self.predictor.parameters(), self.config.optimizer.gradient_clip)
        if not torch.isfinite(norm) and self.trainer.precision != "16-mixed":  # 16-mixed skips such a step
            raise NotFinite(f"step {self.global_step}: gradient not finite for samples {', '.join(self._keys)}")
        self.gradient_norm = norm

    def progress(self) -> float:
        """Completed share of the run, by steps or by time (`max_seconds`), whichever is larger; equal on all ranks."""
        by_steps = self.global_step / self.config.max_steps
        if not self.config.max_seconds:
            return by_steps
        seconds = self.seconds()
        if self.trainer.world_size > 1:
            seconds = float(self.trainer.strategy.reduce(torch.tensor(seconds, device=self.device), reduce_op="mean"))
        return max(by_steps, seconds / self.config.max_seconds)

    def seconds(self) -> float:
        """Seconds of training so far, over all resumptions."""
        return self._seconds_before + (time.monotonic() - self._started if self._started else 0.0)

    # ------------------------------------------------------------ Lightning hooks

    def setup(self, stage: str) -> None:
        self.stage = self.trainer.profiler.profile
        for network in self.frozen:
            if network is not None:
                network.to(self.trainer.strategy.root_device)

    def on_train_start(self) -> None:
        self._started = time.monotonic()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["config"] = asdict(self.config)
        checkpoint["seconds"] = self.seconds()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._seconds_before = checkpoint["seconds"]


def _identity(rows_BCHW: Tensor) -> Tensor:
    return rows_BCHW
