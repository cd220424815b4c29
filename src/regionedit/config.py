"""The whole configuration as typed dataclasses; `command_line` reads them from files and arguments. Imports no torch.

A YAML under configs/ lists only what differs from the defaults here. The defaults are the microworld's.
"Not given in the paper" marks what the paper leaves open.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

MICROWORLD = "checkpoints/microworld"


@dataclass
class EncodersConfig:
    """The frozen encoders.

    Args:
        clip: open_clip model: `local-dir:FOLDER`, `hf-hub:OWNER/NAME`, or an architecture name such as ViT-L-14.
        clip_pretrained: open_clip tag for an architecture name (openai); None for the other two forms.
        instruction: folder or hub name of a T5 encoder, whose width equals CLIP's projection (768 in the paper).
        instruction_revision: pinned revision of a hub name.
        max_instruction_tokens: longer instructions are cut, with a warning.
        precision: of the frozen encoders' weights; losses are always float32.
    """

    clip: str = f"local-dir:{MICROWORLD}/clip"
    clip_pretrained: str | None = None
    instruction: str = f"{MICROWORLD}/t5"
    instruction_revision: str | None = None
    max_instruction_tokens: int = 77
    precision: Literal["float32", "bfloat16"] = "float32"


@dataclass
class PredictorConfig:
    """The region predictor, equations 1-3 and f_sem.

    Args:
        variant: `default`, or `paper`: eq. 1-3 to the letter (no residual, no norm, no positions, one head).
        heads: attention heads of the default variant.
        residual: add each attention's input to its output.
        norm: LayerNorm before each attention and the MLP.
        positions: learned position per patch.
        mlp_width: hidden width of the region head; 0 means the embedding width.
        initial_probability: P of an untrained predictor, by the head's bias.
    """

    variant: Literal["default", "paper"] = "default"
    heads: int = 4
    residual: bool = True
    norm: bool = True
    positions: bool = True
    mlp_width: int = 0
    initial_probability: float = 0.5


@dataclass
class GeneratorConfig:
    """The frozen generator.

    Args:
        name: key of GENERATORS.
        path: folder or hub name in diffusers' layout.
        revision: pinned revision of a hub name.
        variant: of its weight files, such as fp16 where only those are safetensors; None for the plain ones.
        size: pictures are fitted to this many pixels on the longer side before generation; 0 keeps their size.
        steps: denoising steps. Not given in the paper.
        gradient_steps: the last steps that carry gradient with `gradient: full`; 0 for all. Not given in the paper.
        guidance: classifier-free guidance scale w_cfg, eq. 19; 1 switches it off. Not given in the paper.
        image_guidance: how closely `instruct_pix2pix` keeps to the source; above 1.
        masked_image: what the U-Net sees of the source: `pixel` masks before encoding (how the public checkpoint was
            trained), `latent` masks the latent (eq. 16 to the letter).
        blend: put the noised source back outside the mask after every step (eq. 22, 23).
        precision: of the frozen weights.
        start: `instruct_pix2pix` alone, like all that follow: share of noise at the start. 1 is pure noise; below, the
            source's noised latent, and as much smaller a share of the steps runs. Focus on Your Instruction (FoI): 0.8.
        latent_blend: outside the region the latent is the source's, noised to the level of the step, at every step.
        modulation: FoI's eq. 3: each sub-instruction is attended to inside its own region only.
        modulation_until: share of the steps that run after which modulation ends. FoI: 1.
        disentangle: FoI's eq. 9: text guidance inside the region only.
        disentangle_until: share of the steps that run after which it ends. FoI: 0.75.
        mask_steps: first steps whose attention the mask source `ip2p_attention` reads; modulation starts after them, so
            that 0 modulates every step with a region from elsewhere. FoI: 1.
        attention_resolution: cells on the longer side of the attention that is read; 0: a quarter of the latent's side,
            FoI's 16 at 512 px.
    """

    name: str = "stable_diffusion"
    path: str = f"{MICROWORLD}/inpaint"
    revision: str | None = None
    variant: str | None = None
    size: int = 64
    steps: int = 8
    gradient_steps: int = 0
    guidance: float = 3.0
    image_guidance: float = 1.5
    masked_image: Literal["pixel", "latent"] = "pixel"
    blend: bool = True
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    start: float = 1.0
    latent_blend: bool = False
    modulation: bool = False
    modulation_until: float = 1.0
    disentangle: bool = False
    disentangle_until: float = 0.75
    mask_steps: int = 1
    attention_resolution: int = 0


@dataclass
class StepConfig:
    """How one training step composes and what carries the gradient.

    Args:
        gradient: `composite` (default: blend in pixels at CLIP's size, no gradient through the generator), `latent`
            (blend the latents, decode), `last_step` or `full` (also through the U-Net, appendix A).
        proposal_mask: what conditions the proposal: `predicted` (soft, the paper's), `predicted_hard` (thresholded and
            dilated), `random_hard` (boxes and blobs), `everything`, `half` (study only).
        explore: share of samples whose proposal is made with a mask of everything instead of `predicted_hard`: it shows
            the requested change everywhere, so that a region can move to where it fits.
        dilate: patches by which a hard predicted mask is dilated before it conditions the proposal.
        estimator: how P becomes the composing mask in training: None leaves it soft. Not given in the paper.
        threshold: of the hard mask, in training and at inference. Not given in the paper.
        upsample: how the grid becomes a picture-sized mask.
    """

    gradient: Literal["composite", "latent", "last_step", "full"] = "composite"
    proposal_mask: Literal["predicted", "predicted_hard", "random_hard", "everything", "half"] = "predicted_hard"
    explore: float = 0.5
    dilate: int = 1
    estimator: Literal["straight_through", "binary_concrete"] | None = None
    threshold: float = 0.5
    upsample: Literal["nearest", "bilinear"] = "nearest"


@dataclass
class LossConfig:
    """Weights of eq. 10 and 11 and of the regularisers; a weight of 0 switches a term off. Not given in the paper.

    Args:
        alpha: of L_semAlign, eq. 11.
        beta: of L_CLIP, eq. 11.
        clip_guidance: lambda_g, eq. 7.
        clip_direction: lambda_d, eq. 8.
        clip_structure: lambda_s, eq. 9 in its mean form (squared Frobenius norm / N^2).
        area: of mean(P).
        entropy: of mean(P (1 - P)); a negative weight keeps P away from saturation.
        entropy_until: share of the run over which the entropy weight falls to 0 on a straight line; P can settle then.
            0 keeps the weight as it is.
        total_variation: of the mean absolute difference between neighbouring patches of P.
    """

    alpha: float = 0.1
    beta: float = 1.0
    clip_guidance: float = 1.0
    clip_direction: float = 1.0
    clip_structure: float = 2.0
    area: float = 0.5
    entropy: float = -1.0
    entropy_until: float = 0.0
    total_variation: float = 0.0


@dataclass
class OptimizerConfig:
    """Adam with warm-up and cosine decay. Not given in the paper.

    Args:
        lr: peak learning rate.
        weight_decay: decoupled (AdamW).
        warmup_steps: linear warm-up.
        final_lr: share of the peak that is left at the end of the cosine; 1 keeps the rate constant.
        gradient_clip: largest gradient norm.
    """

    lr: float = 1e-3
    weight_decay: float = 0.0
    warmup_steps: int = 20
    final_lr: float = 0.05
    gradient_clip: float = 1.0


@dataclass
class DataConfig:
    """Where the pairs are and how they are read.

    Args:
        train: folder of shards `{shard:05d}.tar` with sidecars `{shard:05d}.instructions.jsonl`.
        validation: the same, or None; truth sidecars are read where present.
        proposals: folder of stored proposals `{shard:05d}.proposals.tar`, or None: each step makes its own.
        marks: leave out the samples that `{shard:05d}.marks.jsonl` or `{shard:05d}.subset.jsonl` names, where there are
            such files.
        features: folder of cached features of these shards, `{shard:05d}.text_features.safetensors` and
            `{shard:05d}.latents.safetensors`, or None: each step computes them. Features made otherwise are refused.
        global_batch: samples of one optimiser step over all ranks. The paper: 256.
        image_size: pictures are resized to this square.
        workers: loader processes per rank.
        block_shards: shards that are shuffled together.
        max_bad_fraction: share of unreadable samples above which the run fails.
        validation_samples: how many are used, 0 for all.
    """

    train: str = "data/microworld/train"
    validation: str | None = "data/microworld/validation"
    proposals: str | None = None
    marks: bool = True
    features: str | None = None
    global_batch: int = 16
    image_size: int = 64
    workers: int = 1
    block_shards: int = 8
    max_bad_fraction: float = 0.001
    validation_samples: int = 256


@dataclass
class LogConfig:
    """What a run leaves behind.

    Args:
        every_steps: scalars.
        pictures_every_steps: the grid of source, probability, composed and proposal.
        validate_every_steps: validation without truth, and with it where there is truth.
        checkpoint_every_steps: resumable checkpoints.
        export: the weights that become region_predictor/: the `last`, or the `best` by validation loss, which knows no
            truth.
        wandb_project: log there too (pip install wandb), None for TensorBoard and CSV only.
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
        seed: of initialisation, order and noise.
        max_seconds: stop (and finish cleanly) after this many seconds of training, 0 for no limit; the schedule then
            follows time.
        max_steps: optimiser steps, the schedule's length.
        initial_region: start from this region_predictor/ folder instead of from scratch.
        trainer: passed to lightning.Trainer as it is: accelerator, devices, num_nodes, precision, strategy...
    """

    out: str = "outputs/train"
    seed: int = 0
    max_steps: int = 1000
    max_seconds: float = 0.0
    initial_region: str | None = None
    encoders: EncodersConfig = field(default_factory=EncodersConfig)
    predictor: PredictorConfig = field(default_factory=PredictorConfig)
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    step: StepConfig = field(default_factory=StepConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    data: DataConfig = field(default_factory=DataConfig)
    log: LogConfig = field(default_factory=LogConfig)
    trainer: dict[str, Any] = field(default_factory=dict)


def _attention() -> GeneratorConfig:
    """FoI's settings for the microworld's InstructPix2Pix; its whole latent is read, a quarter would be four cells."""
    return GeneratorConfig(
        name="instruct_pix2pix",
        path=f"{MICROWORLD}/ip2p",
        steps=10,
        start=0.8,
        guidance=4.0,
        attention_resolution=16,
    )


@dataclass
class RegionConfig:
    """How a probability map becomes the mask of an edit.

    Args:
        checkpoint: region_predictor/ folder or hub name, for the mask source `learned`; None: not trained yet.
        untrained: mask source, or expression of several, that takes the place of `learned` while there is no
            checkpoint; each result says so. None: asking for `learned` fails, and says what to do.
        attention: the InstructPix2Pix that `ip2p_attention` reads where the generator is another one.
        threshold: P above it is edited.
        dilate: grows the mask, in patches of the predictor's grid, fractions allowed; learned masks are core-tight.
        feather: softens the mask's edge, in pixels of the original picture, inwards only.
        upsample: how the grid becomes a picture-sized mask.
        sam: Segment Anything, of the mask source `sam` and of `refine`: folder or hub name of a SAM or SAM 2 in
            transformers' layout.
        refine: `sam` makes every region that was found object-tight: SAM is asked for the thing at the region's peak,
            within its box. Regions that a person drew, and those that look at nothing, stay as they are. `auto` does
            so where the model is on this machine, and says so where it is not.
        grow: grows the mask, in pixels of the original picture; negative shrinks it. For any mask source.
        jitter: moves the mask by up to so many pixels in each direction, at random by the request's seed: a study
            option, to see what an inexact mask costs.
    """

    checkpoint: str | None = f"{MICROWORLD}/region_predictor"
    untrained: str | None = None
    attention: GeneratorConfig = field(default_factory=_attention)
    threshold: float = 0.5
    dilate: float = 0.0
    feather: float = 0.0
    upsample: Literal["nearest", "bilinear"] = "bilinear"
    sam: str = f"{MICROWORLD}/sam"
    refine: Literal["none", "sam", "auto"] = "none"
    grow: int = 0
    jitter: int = 0


@dataclass
class DescribeConfig:
    """Where captions come from when a request gives none.

    Args:
        name: key of DESCRIBERS: `given` (fail without), `microworld` (reads pixels and the instruction), `two_stage`
            (the paper: `vision` tells what the picture shows, `language` what it shall show), `vlm` (`vision` tells
            both at once, in half the memory), `endpoint` (the same from a model behind HTTP).
        vision: a vision-language model: folder or hub name of an AutoModelForImageTextToText. The paper's is
            Qwen2.5-VL. `microworld`, for `two_stage` only: no model, a microworld picture is read from its pixels.
        vision_revision: pinned revision of a hub name.
        language: a language model: folder or hub name of an AutoModelForCausalLM. The paper's is Qwen2.5.
        language_revision: pinned revision of a hub name.
        device: of these models: cpu, cuda, cuda:1, mps; auto takes what is there.
        precision: of their weights.
        max_tokens: longest answer.
        picture_size: longer side of a picture as a vision-language model is shown it, in pixels.
        endpoint: address of an OpenAI-compatible server up to /v1: vLLM, SGLang, llama.cpp or a hosted service.
        endpoint_model: the name that the server knows the model by.
        api_key_variable: environment variable that holds the server's key; None where it wants none.
        concurrency: questions that wait for the server at one time.
        timeout: seconds for one attempt.
        attempts: how often a question is put to a server that is busy or does not answer.
        cache: folder where answers of models are kept for later runs, by picture, instructions, model and prompt; any
            number of processes may share it. None keeps none.
        cache_entries: the oldest answers make room for more than these.
    """

    name: str = "microworld"
    vision: str = "microworld"
    vision_revision: str | None = None
    language: str = f"{MICROWORLD}/qwen"
    language_revision: str | None = None
    device: str = "auto"
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    max_tokens: int = 256
    picture_size: int = 768
    endpoint: str = ""
    endpoint_model: str = ""
    api_key_variable: str | None = None
    concurrency: int = 8
    timeout: float = 60.0
    attempts: int = 5
    cache: str | None = "outputs/captions"
    cache_entries: int = 100_000


@dataclass
class EditConfig:
    """`python infer.py --config FILE`: edit pictures.

    Args:
        mask_source: key of MASK_SOURCES, or an expression of several: `learned + sam - drawn`, with `+` for either, `-`
            for without, `&` for both, and brackets. A request that is marked otherwise than it reads is edited there:
            where it was drawn, or by `sam` where it was clicked.
        joint: several instructions of one request are joined into one edit; false makes them one after another, each
            on the result of the one before and with captions of its own: given ones speak of the whole edit.
        device: cpu, cuda, cuda:1, mps; auto takes what is there.
        max_pixels: larger pictures are refused.
        batch: requests edited together.
    """

    mask_source: str = "learned"
    joint: bool = True
    device: str = "auto"
    max_pixels: int = 50_000_000
    batch: int = 16
    encoders: EncodersConfig = field(default_factory=EncodersConfig)
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    region: RegionConfig = field(default_factory=RegionConfig)
    describe: DescribeConfig = field(default_factory=DescribeConfig)


@dataclass
class AppConfig(EditConfig):
    """`python app.py`: edit, compare and correct regions in a browser.

    Args:
        host: address to listen on: 127.0.0.1 serves this machine alone, 0.0.0.0 everyone who can reach it.
        port: 0 takes the first free one from 7860 on.
        share: a public address through Gradio's servers, for as long as the command runs.
        password_variable: environment variable with a password that everyone has to give, with any name; None: none.
        examples: a JSONL of requests (as for infer.py) that are offered as examples, or None.
        systems: name -> an infer.py configuration that can be compared with the page's own; arguments may follow the
            file's name.
        judge: the CLIP that scores comparisons, as for evaluate.py; None: they are not scored by one.
        max_megabytes: of one uploaded file.
        max_steps, max_variants, max_pictures: of one request: denoising steps, variants, pictures of a batch.
        queue: requests that may wait; more are turned away.
    """

    host: str = "127.0.0.1"
    port: int = 0
    share: bool = False
    password_variable: str | None = None
    examples: str | None = None
    systems: dict[str, str] = field(default_factory=dict)
    judge: str | None = None
    max_megabytes: int = 20
    max_steps: int = 100
    max_variants: int = 4
    max_pictures: int = 500
    queue: int = 64


@dataclass
class EvaluateConfig(EditConfig):
    """`python evaluate.py --config FILE`: a benchmark, an editor, scores.

    Args:
        benchmark: key of BENCHMARKS.
        data: the benchmark's folder.
        out: receives pictures/, masks/, probability/, cases.parquet, summary.json, report.html, examples.png. Run
            again to go on.
        stage: `edit` only makes pictures (several processes share the cases: torchrun or srun), `score` only reads
            finished ones, `both` does one after the other in a single process.
        pictures: score these finished pictures, named by case id, instead of editing; or the `out` of another run.
        limit: first cases only, 0 for all.
        ids: a file with the ids of the cases to keep, a JSON list or one a line, or None.
        protocol: a published protocol of configs/protocols/, or a file like those: it decides the metrics' networks and
            the columns. None: the benchmark's own metrics with the networks below.
        expected: metric -> published mean that this run should give again, told at the end.
        tolerance: how far from it counts as given again.
        regions_only: find regions and score them; no generator is loaded and nothing is edited.
        given_captions: the editor gets the benchmark's captions; false lets the describer write them.
        grid: side of the grid on which regions are scored; 0: the predictor's, which is that of encoders.clip.
        baselines: rivals whose regions are scored beside the editor's own, keys of BASELINES.
        edited_baselines: those of them that also edit, with the same generator.
        systems: name -> an infer.py configuration that edits the same cases, in a row of its own; arguments may follow
            the file's name, such as `configs/edit_microworld.yaml --mask_source sam`.
        systems_limit: the first cases only for them, 0 for all; their table shows this run over the same cases.
        validation: shards with truth on which the baseline clip_similarity chooses its threshold, or None.
        validation_samples: how many of them.
        ceiling: a summary.json of the same predictor trained with masks, shown in the table, or None.
        training_log: metrics.csv of the training run whose curves the report shows, or None.
        judge: the CLIP of the metrics, which no loss has seen: `local-dir:FOLDER`, `hf-hub:OWNER/NAME`, or open_clip's
            `ARCHITECTURE,TAG` such as ViT-B-32,openai.
        dino: the ViT of the metric dino.
        dinov2: the ViT of the metric dinov2, or None: not computed. Likewise:
        pick_score: model and processor of PickScore, `model` or `model,processor`.
        structure: the ViT whose keys measure the structure distance.
        lpips: the network of LPIPS: alex, vgg or squeeze.
    """

    benchmark: str = "microworld"
    data: str = "data/microworld/test"
    out: str = "outputs/evaluate"
    stage: Literal["both", "edit", "score"] = "both"
    pictures: str | None = None
    limit: int = 0
    ids: str | None = None
    protocol: str | None = None
    expected: dict[str, float] = field(default_factory=dict)
    tolerance: float = 0.01
    regions_only: bool = False
    given_captions: bool = True
    grid: int = 0
    baselines: list[str] = field(default_factory=list)
    edited_baselines: list[str] = field(default_factory=list)
    systems: dict[str, str] = field(default_factory=dict)
    systems_limit: int = 0
    validation: str | None = None
    validation_samples: int = 512
    ceiling: str | None = None
    training_log: str | None = None
    judge: str = f"local-dir:{MICROWORLD}/judge"
    dino: str = f"{MICROWORLD}/dino"
    dinov2: str | None = None
    pick_score: str | None = None
    structure: str | None = None
    lpips: str | None = None
