"""Settings of training: the step, its memory, the losses, the data, the run."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from regionedit.config.generators import GENERATOR_CONFIGS, GeneratorConfig, StableDiffusionConfig
from regionedit.config.models import EncodersConfig, PredictorConfig


@dataclass
class StepConfig:
    """How a training step blends the proposal into the source, and along which path the gradient flows.

    Args:
        gradient: `composite` (default: blend in pixels at CLIP's size, no gradient through the generator), `latent`
            (blend the latents, decode), `last_step` or `full` (also through the U-Net, appendix A); or `search`: no
            picture is made, P learns the regions that data_prep/search_regions.py has found (`data.features`).
        proposal_mask: what conditions the proposal: `predicted` (soft, the paper's), `predicted_hard` (thresholded and
            dilated), `random_hard` (boxes and blobs), `everything`.
        explore: share of samples whose proposal repaints the whole picture instead of `predicted_hard`: the requested
            change then appears everywhere, so that the gradient can move a misplaced region to the object.
        dilate: patches by which a hard predicted mask is dilated before it conditions the proposal.
        estimator: how P becomes the blending mask in training; None leaves it soft. Not given in the paper.
        threshold: threshold of the hard mask, in training and at inference. Not given in the paper.
        upsample: how the patch grid is interpolated to the picture's size.
    """

    gradient: Literal["composite", "latent", "last_step", "full", "search"] = "composite"
    proposal_mask: Literal["predicted", "predicted_hard", "random_hard", "everything"] = "predicted_hard"
    explore: float = 0.5
    dilate: int = 1
    estimator: Literal["straight_through"] | None = None
    threshold: float = 0.5
    upsample: Literal["nearest", "bilinear"] = "nearest"


@dataclass
class SearchConfig:
    """How data_prep/search_regions.py finds good regions, and how P learns them (`step.gradient: search`).

    Args:
        clusters: numbers of clusters into which CLIP's patches are divided; each cluster is a candidate region.
        boxes: number of random boxes that are candidates too, because no cluster shows where a new object could go.
        batch: pictures that are generated or encoded together.
        preference: weight of -log of the probability that CLIP gives to the target caption against the source caption.
        direction: weight of eq. 8, with 1 for a region in which nothing changes.
        structure: weight of eq. 9 in its mean form.
        size: weight of log(area + 0.02): doubling a region costs the same at every size.
        temperature: by how much a reward must be higher for a candidate to weigh e times as much.
        commitment: 0: the loss is lowest if P covers all good candidates; 1: covering one of them is enough, see
            `losses.searched_region`.
        commitment_until: share of the run over which the commitment rises linearly from 0, so that P does not choose a
            candidate before the predictor has learned the instructions. 0 keeps the commitment as it is.
        generator: settings of `generator` that differ while searching, e.g. {num_inference_steps: 2}.
    """

    clusters: list[int] = field(default_factory=lambda: [2, 3, 5])
    boxes: int = 4
    batch: int = 64
    preference: float = 0.3
    direction: float = 1.0
    structure: float = 2.0
    size: float = 0.05
    temperature: float = 0.05
    commitment: float = 0.0
    commitment_until: float = 0.0
    generator: dict[str, Any] = field(default_factory=dict)


@dataclass
class MemoryConfig:
    """Memory settings of a training step. They do not change what is learnt: the gradient differs only by rounding.

    Args:
        chunk: how many pictures are decoded and passed through CLIP at a time, forward and backward; 0 for all at once.
        frozen_convolutions: the generator's convolutions do not store their inputs, which only trained weights would
            need.
        checkpoint: networks whose activations are recomputed in the backward pass instead of stored: `unet`,
            `autoencoder`, `clip`. Saves more memory, costs their forward pass once more.
    """

    chunk: int = 0
    frozen_convolutions: bool = True
    checkpoint: list[Literal["unet", "autoencoder", "clip"]] = field(default_factory=list)


@dataclass
class LossConfig:
    """Weights of eq. 10 and 11 and of the regularisers; a weight of 0 switches a term off. Not given in the paper.

    Args:
        alpha: weight of L_semAlign, eq. 11.
        beta: weight of L_CLIP, eq. 11.
        clip_guidance: lambda_g, eq. 7.
        clip_direction: lambda_d, eq. 8.
        clip_structure: lambda_s, eq. 9 in its mean form (squared Frobenius norm / N^2).
        region: weight of the searched regions in `data.features`; `step.gradient: search` needs it.
        area: weight of mean(P).
        entropy: weight of mean(P (1 - P)); a negative weight keeps P away from saturation.
        entropy_until: share of the run over which the entropy weight falls linearly to 0, so that P can reach 0 or 1.
            0 keeps the weight as it is.
        total_variation: weight of the mean absolute difference between neighbouring patches of P.
    """

    alpha: float = 0.1
    beta: float = 1.0
    clip_guidance: float = 1.0
    clip_direction: float = 1.0
    clip_structure: float = 2.0
    region: float = 0.0
    area: float = 0.5
    entropy: float = -1.0
    entropy_until: float = 0.0
    total_variation: float = 0.0


@dataclass
class OptimizerConfig:
    """AdamW with warm-up and cosine decay. Not given in the paper.

    Args:
        lr: peak learning rate.
        weight_decay: decoupled (AdamW).
        warmup_steps: linear warm-up.
        final_lr: share of the peak rate at the end of the cosine; 1 keeps the rate constant.
        gradient_clip: largest gradient norm.
    """

    lr: float = 1e-3
    weight_decay: float = 0.0
    warmup_steps: int = 20
    final_lr: float = 0.05
    gradient_clip: float = 1.0


@dataclass
class DataConfig:
    """Where the training pairs are and how they are read.

    Args:
        train: folder of shards `{shard}.tar` with sidecars `{shard}.instructions.jsonl`, or a pattern with braces
            (`data/crawl/{00000..00331}.tar`), or a URL of either that fsspec can read (`s3://bucket/crawl`), or a list
            of them. Shards behind a URL are read by ranges of bytes, in the same order as local ones.
        allow_gaps: only warn if shard numbers or shards of a pattern are missing.
        validation: the same, or None; truth sidecars are read if present.
        held_out: share of the samples of `train` that is held out for validation, chosen by a hash of the key and read
            without truth. Needs `validation: null`. The same samples in every run, under any seed and number of ranks.
        proposals: folder of stored proposals `{shard}.proposals.tar`, or None: each step makes its own.
        proposal_rounds: how many proposals are stored for each sample: `proposals` itself holds the first of each, its
            folders `round_1`, `round_2`, ... the others. Every epoch reads the next round, and after the last one the
            first again. Training waits for a round that is still being made, so both can run at the same time.
        marks: leave out the samples that `{shard}.marks.jsonl` or `{shard}.subset.jsonl` lists, if there are
            such files.
        features: folder of cached features of these shards, `{shard}.text_features.safetensors` and
            `{shard}.latents.safetensors`, or None: each step computes them. With `loss.region` it also holds
            `{shard}.regions.safetensors`. Features of other models or settings are refused.
        global_batch: samples of one optimiser step over all ranks. The paper: 256.
        micro_batch: at most so many samples are in a GPU's memory at a time; 0 for its whole share of the global batch.
            Does not change what is learnt: losses and gradients differ only by rounding.
        image_size: pictures are resized to this square.
        workers: loader processes per rank.
        block_shards: number of shards that are shuffled together.
        max_bad_fraction: share of unreadable samples above which the run fails.
        validation_samples: how many are used, 0 for all.
    """

    train: list[str] | str = "data/microworld/train"
    allow_gaps: bool = False
    validation: str | None = "data/microworld/validation"
    held_out: float = 0.0
    proposals: str | None = None
    proposal_rounds: int = 1
    marks: bool = True
    features: str | None = None
    global_batch: int = 16
    micro_batch: int = 0
    image_size: int = 64
    workers: int = 1
    block_shards: int = 8
    max_bad_fraction: float = 0.001
    validation_samples: int = 256


@dataclass
class LogConfig:
    """What a run logs and saves.

    Args:
        every_steps: interval of the scalars.
        pictures_every_steps: interval of the picture grid: source, probability, blend and proposal.
        validate_every_steps: interval of validation; scores with truth are added where truth exists.
        checkpoint_every_steps: interval of resumable checkpoints.
        export: the weights that become region_predictor/: the `last`, or the `best` by validation loss, which uses no
            truth.
        wandb_project: also log to this project of Weights & Biases (pip install wandb); None: TensorBoard and CSV only.
    """

    every_steps: int = 10
    pictures_every_steps: int = 200
    validate_every_steps: int = 200
    checkpoint_every_steps: int = 200
    export: Literal["last", "best"] = "last"
    wandb_project: str | None = None


@dataclass
class TrainConfig:
    """`python train.py --config FILE`: train a region predictor from captioned pictures.

    Args:
        out: folder of the run: checkpoints, logs, pictures, region_predictor/. Run again to resume.
        seed: seed of initialisation, order and noise.
        max_seconds: stop (and finish cleanly) after this many seconds of training, 0 for no limit; the schedule then
            follows time.
        max_steps: optimiser steps, the schedule's length.
        initial_region: start from this region_predictor/ folder instead of from scratch.
        profile: print at the end the time spent in each stage of a step and in Lightning's own actions. On a GPU, which
            runs asynchronously, these times mislead; set `trainer.profiler` to pytorch there.
        debug: print the stack trace of an error; otherwise one line is printed, and the stack trace of an unexpected
            error is in log.txt in `out`.
        trainer: passed to lightning.Trainer as it is: accelerator, devices, num_nodes, precision, strategy...
    """

    out: str = "outputs/train"
    seed: int = 0
    max_steps: int = 1000
    max_seconds: float = 0.0
    initial_region: str | None = None
    encoders: EncodersConfig = field(default_factory=EncodersConfig)
    predictor: PredictorConfig = field(default_factory=PredictorConfig)
    generator: GeneratorConfig = field(default_factory=StableDiffusionConfig, metadata={"choices": GENERATOR_CONFIGS})
    step: StepConfig = field(default_factory=StepConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    data: DataConfig = field(default_factory=DataConfig)
    log: LogConfig = field(default_factory=LogConfig)
    profile: bool = False
    debug: bool = False
    trainer: dict[str, Any] = field(default_factory=dict)


def generator_of_search(config: TrainConfig) -> GeneratorConfig:
    """The generator's settings with the changes of `search.generator`.

    Raises:
        ValueError: one of them does not exist.
    """
    try:
        return replace(config.generator, **config.search.generator)
    except TypeError as error:
        raise ValueError(f"search.generator: {config.search.generator}: {error}") from None
