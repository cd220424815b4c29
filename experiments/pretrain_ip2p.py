"""Pre-trains the microworld's InstructPix2Pix on rendered pairs of pictures before and after an edit.

    python experiments/pretrain_ip2p.py --out checkpoints/microworld/ip2p --threads 2

It is the only model here that is trained on edited pictures, because its method needs them (Brooks et al. 2023); it
gets no masks, boxes or positions. It is built like the public checkpoint: an eight-channel U-Net for noisy latent and
source latent, epsilon prediction, scaled-linear betas; the picture, or picture and text, are dropped for one sample in
twenty each. Four differences leave the interfaces unchanged:

- The text encoder, of CLIP's class, is trained as well, because captions teach no instructions.
- The loss weights places where the two pictures differ more than others.
- Without a text, the target is the unchanged source (in the public recipe, the edited picture): many edits here change
  the whole picture, so a guess at an unknown edit would repaint all of it.
- The text states behind the last word are trained to carry no information. CLIP's text encoder is causal, so the end
  token and the padding could carry all of it, and the words, whose attention Focus on Your Instruction reads to find
  the region, would get none.

The autoencoder is that of `pretrain_autoencoder.py`. Cross-attention works on the full 16 x 16 latent, so that its maps
can be compared with the true region at 64 pixels.

Shape letters: B pictures, C channels, H W pixels, h w latent pixels, L text tokens, D text width.
"""

from __future__ import annotations

import copy
import json
from functools import partial
from pathlib import Path

import torch
from diffusers import AutoencoderKL, EulerAncestralDiscreteScheduler, StableDiffusionInstructPix2PixPipeline
from diffusion import Denoising, build_scheduler, build_text_tower, build_tokenizer, build_unet, token_ids
from known_edits import by_operation, change_where, known_edits, proposals, successes
from pretrain_autoencoder import LATENT_FACTOR, encode, load_autoencoder, signed
from pretraining import Schedule, arguments, arithmetic, begin, finished_folder, made_once, plain_attention, train
from rich.progress import track
from scene_pool import with_random_look
from torch import Tensor, nn

from regionedit.config import InstructPix2PixConfig
from regionedit.generators.instruct_pix2pix import InstructPix2Pix
from regionedit.microworld.edits import Edit, sample_edit
from regionedit.microworld.grammar import OPERATIONS
from regionedit.microworld.renderer import render
from regionedit.microworld.scene import sample_scene
from regionedit.microworld.splits import scene_rng

PAIR_SEED = 3  # of the split "pretrain"; the scene pools and the held-out pictures use 0, 1 and 2
UNSEEN_PHRASING = 0.25
# share of each operation among the draws; those that are hard to generate are more frequent. About half of the drawn
# additions do not fit into their picture and are replaced by another draw
MIX = {
    "replace": 0.19,
    "recolour": 0.09,
    "resize": 0.1,
    "remove": 0.06,
    "add": 0.32,
    "background": 0.18,
    "global": 0.04,
    "noop": 0.02,
}
DROP = 0.05  # share of samples without the picture, and without picture and text
UNCHANGED = 0.15  # share of samples without text, whose target is the unchanged source
CHANGED_WEIGHT = 5.0
SILENCE_WEIGHT = 0.1
GUIDANCE = 1.5  # for the held-out edits, as in configs/edit_ip2p_microworld.yaml
TOGETHER = 64


def pair(seed: int, index: int) -> Edit:
    """A random edit of the whole world, with all pairs, looks and phrasings, as for the other frozen models."""
    rng = scene_rng("pretrain", seed, index)
    while True:
        unseen = bool(rng.random() < UNSEEN_PHRASING)
        scene = with_random_look(sample_scene(rng, allow_unseen=True), rng)
        edit = sample_edit(scene, rng, str(rng.choice(list(MIX), p=list(MIX.values()))), unseen_phrasing=unseen)
        if edit is not None:
            return edit


def pair_latents(autoencoder: AutoencoderKL, edits: list[Edit]) -> dict[str, Tensor]:
    """Latents of the pictures of edits.

    Returns:
        before_BChw, after_BChw: latents, half precision.
        changed_B1hw: where any pixel differs, bool.
    """
    before, after, changed = [], [], []
    for start in track(range(0, len(edits), TOGETHER), description="latents"):
        part = edits[start : start + TOGETHER]
        first, second = render([edit.source for edit in part]), render([edit.target for edit in part])
        before.append(encode(autoencoder, signed(first)).half().cpu())
        after.append(encode(autoencoder, signed(second)).half().cpu())
        differs_BHW = torch.from_numpy((first != second).any(-1))
        changed.append(nn.functional.max_pool2d(differs_BHW[:, None].half(), LATENT_FACTOR).bool())
    return {"before_BChw": torch.cat(before), "after_BChw": torch.cat(after), "changed_B1hw": torch.cat(changed)}


def left_out(draws_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Which samples get no text, which no picture, and which have the unchanged source as target, each bool [B];
    from draws in [0, 1)."""
    no_picture, stays_B = draws_B < 2 * DROP, draws_B >= 1 - UNCHANGED
    return (draws_B < DROP) | stays_B, no_picture, stays_B


def success(generator: InstructPix2Pix, count: int) -> dict[str, float]:
    """Success rate of each operation without a region, by `pixel_check`, and the change outside the true region."""
    known = known_edits("validation", 5, range(count), OPERATIONS)
    everywhere_B1HW = torch.ones_like(known.truth_B1HW)
    edited_BCHW = proposals(generator, known.source_BCHW, everywhere_B1HW, known.instructions)
    outside = change_where((known.truth_B1HW == 0).float(), edited_BCHW, known)
    return by_operation(successes(edited_BCHW, known), known) | {"outside": outside}


def silence(states_BLD: Tensor, empty_1LD: Tensor, ids_BL: Tensor, end_token: int) -> Tensor:
    """Mean squared difference between the text states behind the last word and those of an empty text there."""
    behind_BL = (ids_BL == end_token).cumsum(1) > 0
    return (states_BLD - empty_1LD.detach()).square().mean(-1)[behind_BL].mean()


def main() -> None:
    parser = arguments(__doc__, steps=40000, learning_rate=1e-3)
    parser.add_argument("--autoencoder", type=Path, default=Path("outputs/microworld_models/autoencoder"))
    parser.add_argument("--pairs", type=int, default=64000, help="edits in memory")
    parser.add_argument("--batch", type=int, default=32)
    args, state = begin(parser)
    device = args.device
    autoencoder = load_autoencoder(args.autoencoder, device)
    tokenizer, scheduler = build_tokenizer(), build_scheduler()
    learned = nn.ModuleDict(
        {
            "unet": build_unet(8, ("CrossAttnDownBlock2D", "UpBlock2D")),
            "text_encoder": build_text_tower(tokenizer, 1),
        }
    )
    learned.to(device, memory_format=torch.channels_last)
    denoising = Denoising(scheduler, device)
    edits = [pair(PAIR_SEED, index) for index in track(range(args.pairs), description="edits")]
    latents = made_once(args.work, f"pairs_{args.pairs}", autoencoder, partial(pair_latents, autoencoder, edits))
    before_BChw, after_BChw, changed_B1hw = (latents[name] for name in ("before_BChw", "after_BChw", "changed_B1hw"))
    empty_1L = token_ids(tokenizer, [""])

    def loss_of(step: int, share: float) -> Tensor:
        rows = torch.randint(0, len(edits), (args.batch,))
        no_text, no_picture, stays_B = left_out(torch.rand(args.batch))
        texts = ["" if none else edits[row].instruction for row, none in zip(rows, no_text.tolist(), strict=True)]
        stays_B111 = stays_B[:, None, None, None]
        clean_BChw = torch.where(stays_B111, before_BChw[rows], after_BChw[rows]).to(device).float()
        changes_B1hw = (changed_B1hw[rows] & ~stays_B111).to(device)
        source_BChw = (before_BChw[rows] * ~no_picture[:, None, None, None]).to(device).float()
        noise, time_B = torch.randn_like(clean_BChw), denoising.draw(args.batch)
        noisy_BChw = denoising.noised(clean_BChw, noise, time_B)
        inputs = torch.cat([noisy_BChw, source_BChw], 1).contiguous(memory_format=torch.channels_last)
        ids_BL = torch.cat([token_ids(tokenizer, texts), empty_1L]).to(device)
        with arithmetic(device=device):
            states_BLD = learned["text_encoder"](ids_BL)[0]  # causal: no plain_attention
        context_BLD, empty_1LD = states_BLD[:-1], states_BLD[-1:]
        with arithmetic(device=device), plain_attention():
            predicted = learned["unet"](inputs, time_B, encoder_hidden_states=context_BLD).sample
        weight_B1hw = 1 + CHANGED_WEIGHT * changes_B1hw
        weight_B1hw = weight_B1hw / weight_B1hw.mean((1, 2, 3), keepdim=True)
        silence_loss = silence(context_BLD, empty_1LD, ids_BL[:-1], tokenizer.eos_token_id)
        return denoising.loss(predicted, noise, time_B, weight_B1hw) + SILENCE_WEIGHT * silence_loss

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
        return success(
            InstructPix2Pix(pipeline(), InstructPix2PixConfig(num_inference_steps=steps, guidance_scale=GUIDANCE)),
            count,
        )

    schedule = Schedule(
        args.steps,
        args.learning_rate,
        weight_decay=0.01,
        betas=(0.9, 0.99),
        evaluate_every=600,
        average=0.999,
        muon=True,
    )
    train(learned, loss_of, schedule, state, args.seed, lambda: scores(128, 10))
    final = scores(400, 10)
    print(json.dumps(final, indent=2))
    with finished_folder(args.out, final) as folder:
        pipeline().to(torch.float16).save_pretrained(folder)


if __name__ == "__main__":
    main()
