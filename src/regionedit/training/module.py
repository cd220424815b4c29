"""One training step, top to bottom: the generator proposes, the region blends, CLIP scores the result.

Shape letters: B batch, C channels, H W pixels, N patches, D embedding width, M instruction tokens.
Frozen networks are not part of the module's state: checkpoints and DDP contain only the predictor.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from regionedit import losses, masks
from regionedit.config import LossConfig, TrainConfig
from regionedit.data.batches import TrainBatch, scaled
from regionedit.encoders import ImageFeatures
from regionedit.generators import DifferentiableGenerator, noise_seed
from regionedit.proposal_masks import proposal_mask
from regionedit.records import StepOutputs
from regionedit.region_search import COSTS, weighted
from regionedit.training.agreement import Agreement
from regionedit.training.micro_batches import local_gradient
from regionedit.training.networks import Frozen, check_step, initial_predictor, load_frozen
from regionedit.training.result import Blend, encode_result
from regionedit.training.schedule import commitment, learning_rate, loss_weights
from regionedit.training.scores import RegionScores

VALIDATION_EPOCH = -1
"""The epoch in validation's noise seeds, so that its noise is always the same."""


class Step(NamedTuple):
    """What a step computes before its loss: the inputs of the loss terms; `source`, `proposal` and `composed`, each
    [B, C, H, W] in [0, 1] at CLIP's size; the surrogate loss of `encode_result`, or None."""

    outputs: StepOutputs
    pictures: dict[str, Tensor]
    surrogate_loss_B: Tensor | None


class Encoded(NamedTuple):
    """Pictures at CLIP's size, [B, C, H, W] in [0, 1]; their features; tokens of the instructions, [B, M, D], and their
    mask, [B, M]."""

    image_BCHW: Tensor
    features: ImageFeatures
    instruction: tuple[Tensor, Tensor]


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
        self.predictor = initial_predictor(config, clip)
        if config.loss.alpha == 0:  # DDP waits for the gradient of every trained weight; f_sem would get none
            self.predictor.semantic.requires_grad_(False)
        self.scores = RegionScores(config.step.threshold)
        self.agreement = Agreement()
        self.stage: Callable[[str], AbstractContextManager[None]] = nullcontext  # the trainer's profiler in a run
        self._seconds_before, self._started = 0.0, None
        self.completed = 0.0  # of the run, a share; SaveAndStop updates it after every step

    @property
    def trained(self) -> list[Tensor]:
        """The trained parameters."""
        return [p for p in self.predictor.parameters() if p.requires_grad]

    def configure_callbacks(self) -> list[Agreement]:
        """Lightning adds these after the trainer's own callbacks."""
        return [self.agreement]

    # ------------------------------------------------------------ the step

    def step(self, batch: TrainBatch, epoch: int, encoded: Encoded | None = None) -> Step:
        """From a batch to the inputs of all loss terms, in the paper's order; `encoded` if that is known already."""
        frozen, batch = self.frozen, scaled(batch)
        encoded = encoded or self._encode(batch)
        source = encoded.features
        with self.stage("encode"):
            source_text_BD, target_text_BD = self._captions(batch)
        with self.stage("predict"):  # eq. 1-3, and f_sem
            prediction = self.predictor(source.patches_BND, *encoded.instruction)
            projected_fused_BD = self.predictor.project(prediction.fused_BND)
            projected_patches_BD = self.predictor.project(source.patches_BND)
        outputs = StepOutputs(
            probability_BN=prediction.probability_BN,
            projected_fused_BD=projected_fused_BD,
            projected_patches_BD=projected_patches_BD,
            source_BD=source.global_BD,
            source_patches_BND=source.patches_BND,
            source_text_BD=source_text_BD,
            target_text_BD=target_text_BD,
            image_rounding=frozen.clip.image_rounding,
            text_rounding=frozen.clip.text_rounding,
        )
        if self.config.loss.region:
            outputs = replace(outputs, **self._searched(batch))
        if self.config.step.gradient == "search":
            return Step(outputs, self._regions_shown(encoded.image_BCHW, outputs), None)
        with self.stage("generate"):  # eq. 14-23
            blend = self._blend(batch, encoded.image_BCHW, prediction.probability_BN, epoch)
        with self.stage("result"):  # I_res and F_res
            result = encode_result(blend, frozen.clip, outputs, self.config.loss, self.config.memory.chunk)
        outputs = replace(outputs, result_BD=result.features.global_BD, result_patches_BND=result.features.patches_BND)
        proposal_BCHW = result.picture_BCHW if blend.proposal_BCHW is None else blend.proposal_BCHW
        pictures = {"source": encoded.image_BCHW, "proposal": proposal_BCHW, "composed": result.picture_BCHW}
        return Step(outputs, pictures, result.surrogate_loss_B)

    def loss(self, step: Step, weights: LossConfig) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean loss of a step and its unweighted terms [B], see `losses.total`.

        The surrogate loss adds 0 to the value, and to the gradient what `encode_result` has computed chunk by chunk.
        """
        loss, terms = losses.total(step.outputs, weights)
        return (loss if step.surrogate_loss_B is None else loss + step.surrogate_loss_B.mean()), terms

    def training_step(self, batch: TrainBatch, batch_index: int) -> dict[str, Any]:
        """The local gradient first, then the exchange with the other ranks; DDP only averages what is attached."""
        weights = loss_weights(self.config.loss, self.completed)
        local = local_gradient(self, batch, weights, self.config.data.micro_batch)
        self.agreement.exchange(self.seconds(), local.finite, lambda: local.failure(self.global_step))
        return {
            "loss": local.attached(self.trained),
            "terms": local.terms,
            "probability": local.probability_BN,
            "pictures": local.pictures,
        }

    def validation_step(self, batch: TrainBatch, batch_index: int) -> None:
        """Losses (with stored proposals or a generator), area, instruction swap; with true regions IoU and pointing."""
        batch = scaled(batch)
        encoded = self._encode(batch)
        patches_BND = encoded.features.patches_BND
        if self.frozen.generator is None and batch.proposals_BCHW is None and batch.searched_BKn is None:
            probability_BN = self.predictor(patches_BND, *encoded.instruction).probability_BN
        else:
            step = self.step(batch, VALIDATION_EPOCH, encoded)
            probability_BN = step.outputs.probability_BN
            self.scores.add_losses(*self.loss(step, self.config.loss))
        swapped = (tokens.roll(-1, 0) for tokens in encoded.instruction)
        swapped_BN = self.predictor(patches_BND, *swapped).probability_BN
        self.scores.add_regions(probability_BN, swapped_BN, batch, self.frozen.clip.grid)

    def on_validation_epoch_end(self) -> None:
        scores = self.scores.compute()
        named = {f"validation/{name}": value for name, value in scores.items()}
        self.log_dict(named | {"step": float(self.global_step)}, sync_dist=True)  # equal on all ranks already

    # ------------------------------------------------------------ parts of the step

    @torch.no_grad()
    def _encode(self, batch: TrainBatch) -> Encoded:
        """Pictures at CLIP's size, their features I_ori and F_img, and F_ins with its mask."""
        clip = self.frozen.clip
        with self.stage("encode"):
            image_BCHW = clip.stretch(batch.images_BCHW)
            tokens = batch.tokens and (batch.tokens["instruction_ids"], batch.tokens["instruction_mask"])
            instruction = self.frozen.instruction_encoder.encode(batch.instructions, tokens)
            return Encoded(image_BCHW, clip.encode_image(image_BCHW), instruction)

    def _captions(self, batch: TrainBatch) -> tuple[Tensor, Tensor]:
        """T_o and T_e, cached or computed."""
        if batch.source_text_BD is not None:
            return batch.source_text_BD, batch.target_text_BD
        tokens = batch.tokens or {}
        ids_BL = torch.cat([tokens["source_ids"], tokens["target_ids"]]) if "source_ids" in tokens else None
        return self.frozen.clip.encode_text(batch.source_captions + batch.target_captions, ids_BL).chunk(2)

    def _blend(self, batch: TrainBatch, source_BCHW: Tensor, probability_BN: Tensor, epoch: int) -> Blend:
        """Blend the generator's proposal into the source by P, so that the gradient follows `step.gradient`."""
        step, grid = self.config.step, self.frozen.clip.grid
        soft = step.estimator is None
        mask_BN = probability_BN if soft else masks.binarize(probability_BN, step.threshold, step.estimator)
        if step.gradient == "composite":  # eq. 23 in pixels, with the exact source
            proposal_BCHW = self.frozen.clip.stretch(self._propose(batch, probability_BN, epoch))
            mask_B1HW = masks.upsample(mask_BN, grid, source_BCHW.shape[-2:], step.upsample)
            blend_BCHW = masks.composite(proposal_BCHW, source_BCHW, mask_B1HW)
            return Blend(blend_BCHW, lambda rows_BCHW: rows_BCHW, proposal_BCHW)
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

    def _searched(self, batch: TrainBatch) -> dict[str, Any]:
        """The searched regions and their weights; where nothing was searched, every weight is 0."""
        search, patches, searched_BKn = self.config.search, self.frozen.clip.grid**2, batch.searched_BKn
        if searched_BKn is None:
            searched_BKn = batch.images_BCHW.new_full((len(batch.keys), 1, patches + len(COSTS)), torch.nan)
        regions_BKN, log_weights_BK = weighted(searched_BKn, search)
        chosen = {"regions_BKN": regions_BKN, "log_weights_BK": log_weights_BK}
        return chosen | {"commitment": commitment(search, self.completed)}

    def _regions_shown(self, image_BCHW: Tensor, outputs: StepOutputs) -> dict[str, Tensor]:
        """Pictures of a step that makes none: the best region in place of the proposal, P in place of the result."""
        best_BN = outputs.regions_BKN[torch.arange(len(image_BCHW)), outputs.log_weights_BK.argmax(1)]
        size, grid = image_BCHW.shape[-2:], self.frozen.clip.grid
        regions = {"proposal": best_BN, "composed": outputs.probability_BN}
        shown = {name: image_BCHW * masks.upsample(region_BN, grid, size) for name, region_BN in regions.items()}
        return {"source": image_BCHW} | shown

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

    # ------------------------------------------------------------ optimisation, by step or by time

    def configure_optimizers(self) -> torch.optim.Optimizer:
        settings = self.config.optimizer
        return torch.optim.AdamW(self.trained, lr=settings.lr, weight_decay=settings.weight_decay)

    def on_train_batch_start(self, batch: TrainBatch, batch_index: int) -> None:
        rate = learning_rate(self.config.optimizer, self.global_step, self.completed)
        for group in self.optimizers().param_groups:
            group["lr"] = rate

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None) -> None:
        limit = self.config.optimizer.gradient_clip
        self.gradient_norm = torch.nn.utils.clip_grad_norm_(self.predictor.parameters(), limit)

    def progress(self) -> float:
        """Completed share of the run, by steps or by time (`max_seconds`), whichever is larger; equal on all ranks."""
        by_steps = self.global_step / self.config.max_steps
        if not self.config.max_seconds:
            return by_steps
        return max(by_steps, self.agreement.seconds / self.config.max_seconds)

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
        self.agreement.seconds = self._seconds_before
        self.completed = self.progress()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["config"] = asdict(self.config)
        checkpoint["seconds"] = self.seconds()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._seconds_before = checkpoint["seconds"]
