"""Pre-trains the microworld's InstructPix2Pix on rendered pairs of pictures, before and after an edit.

    python data_prep/microworld/pretrain_ip2p.py --out checkpoints/microworld/ip2p --threads 1

It is the one model here that is shown edited pictures, because its own recipe needs them (Brooks et al. 2023); no mask,
no box and no place. Built as the public checkpoint: an eight-channel U-Net that sees noisy latent and source latent,
epsilon prediction, scaled-linear betas; picture, or picture and text, are dropped for one sample in twenty each. Three
liberties change no interface. Its text tower starts as CLIP's, but learns along: the public one has read instructions,
ours only captions. The loss counts places where the pictures differ more than the others, and high noise more than low.
And where no text is given, the picture is to stay as it is (the public recipe asks for the edited one there too): a
sixth of the edits here change the whole background, so that a guess at an unknown edit would repaint it.

The autoencoder is the one of `pretrain_inpaint.py --part autoencoder`. Cross-attention works on the full 16 x 16
latent, so that its maps can be held against the truth at 64 pixels.

Shape letters: B pictures, C channels, H W pixels, h w latent pixels, L text tokens, D text width.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    EulerAncestralDiscreteScheduler,
    StableDiffusionInstructPix2PixPipeline,
    UNet2DConditionModel,
)
from known_edits import by_operation, change_where, chunks, known_edits, successes
from pretrain_inpaint import CONTEXT, LATENT_FACTOR, build_scheduler, build_unet, encode, signed
from pretraining import Schedule, arguments, arithmetic, begin, finished_folder, plain_attention, train
from rich.progress import track
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from regionedit.config import GeneratorConfig
from regionedit.generators.instruct_pix2pix import InstructPix2Pix
from regionedit.microworld.edits import Edit, sample_edit
from regionedit.microworld.renderer import render
from regionedit.microworld.scene import sample_scene
from regionedit.microworld.splits import scene_rng

PAIR_SEED = 3  # of the split "pretrain"; the scene pools and the held-out pictures have 0, 1 and 2
UNSEEN_PHRASING = 0.25
DROP = 0.05  # share of samples without picture, and without both
UNASKED = 0.15  # share of samples without text: nothing changes
CHANGED_WEIGHT = 5.0
HIGH_NOISE_WEIGHT = 50.0
GUIDANCE = 2.5  # of the held-out edits, as in configs/edit_ip2p_microworld.yaml
TOGETHER = 64


def pair(seed: int, index: int) -> Edit:
    """A random edit of the whole world, all pairs and phrasings included, as for the other frozen models."""
    rng = scene_rng("pretrain", seed, index)
    while True:
        unseen = bool(rng.random() < UNSEEN_PHRASING)
        edit = sample_edit(sample_scene(rng, allow_unseen=True), rng, unseen_phrasing=unseen)
        if edit is not None:
            return edit


class Pairs:
    """Edits and the latents of their pictures, made once.

    Attributes:
        instructions: of the edits.
        before_BChw, after_BChw: latents, half precision.
        changed_B1hw: 1 where any pixel differs, else 0.
    """

    def __init__(self, autoencoder: AutoencoderKL, count: int):
        edits = [pair(PAIR_SEED, index) for index in track(range(count), description="edits")]
        self.instructions = [edit.instruction for edit in edits]
        before, after, changed = [], [], []
        for start in track(range(0, count, TOGETHER), description="latents"):
            part = edits[start : start + TOGETHER]
            first, second = render([edit.source for edit in part]), render([edit.target for edit in part])
            before.append(encode(autoencoder, signed(first)).half())
            after.append(encode(autoencoder, signed(second)).half())
            differs_BHW = torch.from_numpy((first != second).any(-1))
            changed.append(nn.functional.max_pool2d(differs_BHW[:, None].half(), LATENT_FACTOR))
        self.before_BChw, self.after_BChw, self.changed_B1hw = torch.cat(before), torch.cat(after), torch.cat(changed)


def left_out(draws_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Which samples are given no text, no picture, and are to stay as they are, bool [B]; from draws in [0, 1)."""
    no_picture, stays_B = draws_B < 2 * DROP, draws_B >= 1 - UNASKED
    return (draws_B < DROP) | stays_B, no_picture, stays_B


def success(generator: InstructPix2Pix, count: int) -> dict[str, float]:
    """How often the request is there, by `pixel_check`, per operation, with no region; and how much changes outside."""
    known = known_edits("validation", 5, range(count))
    everywhere_B1HW = torch.ones_like(known.truth_B1HW)
    edited_BCHW = torch.cat(
        [
            generator.propose(part.source_BCHW, everywhere_B1HW[list(b)], part.instructions, b)
            for b in chunks(count, 32)
            for part in (known.rows(b),)
        ]
    )
    outside = change_where((known.truth_B1HW == 0).float(), edited_BCHW, known)
    return by_operation(successes(edited_BCHW, known), known) | {"outside": outside}


def main() -> None:
    parser = arguments(__doc__, minutes=145.0, learning_rate=1e-3)
    parser.add_argument("--autoencoder", type=Path, default=Path("outputs/microworld_models/autoencoder"))
    parser.add_argument("--inpaint", type=Path, default=Path("checkpoints/microworld/inpaint"), help="has CLIP's tower")
    parser.add_argument("--start", type=Path, help="pipeline folder whose U-Net and text tower learn on")
    parser.add_argument("--pairs", type=int, default=48000, help="edits in memory")
    parser.add_argument("--batch", type=int, default=16)
    args, state = begin(parser)
    autoencoder = AutoencoderKL.from_pretrained(args.autoencoder).eval().requires_grad_(False)
    autoencoder.to(memory_format=torch.channels_last)
    tokenizer = CLIPTokenizer.from_pretrained(args.inpaint / "tokenizer")
    if args.start:
        unet = UNet2DConditionModel.from_pretrained(args.start / "unet", torch_dtype=torch.float32)
    else:
        unet = build_unet(8, ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D"))
    tower = (args.start or args.inpaint) / "text_encoder"
    learned = nn.ModuleDict(
        {
            "unet": unet.to(memory_format=torch.channels_last),
            "text_encoder": CLIPTextModel.from_pretrained(tower, dtype=torch.float32),
        }
    )
    scheduler = build_scheduler("epsilon")
    pairs = Pairs(autoencoder, args.pairs)

    def tokens(texts: list[str]) -> Tensor:
        options = {"padding": "max_length", "max_length": CONTEXT, "truncation": True, "return_tensors": "pt"}
        return tokenizer(texts, **options).input_ids

    def loss_of(step: int, share: float) -> Tensor:
        rows = np.random.default_rng([args.seed, 11, step]).choice(len(pairs.instructions), args.batch, replace=False)
        no_text, no_picture, stays_B = left_out(torch.rand(args.batch))
        texts = ["" if none else pairs.instructions[row] for row, none in zip(rows, no_text.tolist(), strict=True)]
        stays_B111 = stays_B[:, None, None, None]
        clean_BChw = torch.where(stays_B111, pairs.before_BChw[rows], pairs.after_BChw[rows]).float()
        changed_B1hw = pairs.changed_B1hw[rows].float() * ~stays_B111
        source_BChw = pairs.before_BChw[rows].float() * ~no_picture[:, None, None, None]
        t = torch.randint(0, 1000, (args.batch,))
        alpha = scheduler.alphas_cumprod[t][:, None, None, None]
        noise = torch.randn_like(clean_BChw)
        noisy_BChw = alpha.sqrt() * clean_BChw + (1 - alpha).sqrt() * noise
        inputs = torch.cat([noisy_BChw, source_BChw], 1).contiguous(memory_format=torch.channels_last)
        with arithmetic():
            context_BLD = learned["text_encoder"](tokens(texts))[0]  # causal, which plain_attention does not do
        with arithmetic(), plain_attention():
            predicted = learned["unet"](inputs, t, encoder_hidden_states=context_BLD).sample
        # what appears is decided at high noise, where an error in epsilon counts 1 / alpha as much in the picture
        weight = (1 + CHANGED_WEIGHT * changed_B1hw) * (1 / alpha).clamp(max=HIGH_NOISE_WEIGHT)
        return (weight * (predicted.float() - noise).square()).mean()

    def pipeline() -> StableDiffusionInstructPix2PixPipeline:
        modules = copy.deepcopy(learned)  # a generator freezes its modules
        return StableDiffusionInstructPix2PixPipeline(
            vae=autoencoder,
            text_encoder=modules["text_encoder"],
            tokenizer=tokenizer,
            unet=modules["unet"],
            scheduler=EulerAncestralDiscreteScheduler.from_config(scheduler.config),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )

    def scores(count: int, steps: int) -> dict[str, float]:
        return success(InstructPix2Pix(pipeline(), GeneratorConfig(steps=steps, guidance=GUIDANCE)), count)

    schedule = Schedule(args.minutes, args.learning_rate, weight_decay=0.01, betas=(0.9, 0.99), evaluate_every=600)
    train(learned, loss_of, schedule, state, args.seed, lambda: scores(64, 10))
    final = scores(400, 10)
    print(json.dumps(final, indent=2))
    with finished_folder(args.out) as folder:
        pipeline().to(torch.float16).save_pretrained(folder)
        (folder / "scores.json").write_text(json.dumps(final, indent=2) + "\n")


if __name__ == "__main__":
    main()
