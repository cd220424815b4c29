"""Pre-trains the microworld's in-painter from scratch: U-Net and text encoder, with an existing autoencoder.

    python experiments/pretrain_inpaint.py --out checkpoints/microworld/inpaint --threads 2

It is built like the public Stable Diffusion 1.5 in-painting checkpoint: nine input channels, epsilon prediction,
scaled-linear betas, an encoded masked picture, hard random masks that are independent of what the picture shows, and
text dropped for one sample in ten. It learns from pictures and captions only. Three differences leave the interfaces
unchanged. The text encoder, of CLIP's class, is trained as well. The loss weights masked places ten times as much as
others, and scales the weights of each sample to mean 1; otherwise small masks would hardly count. The whole picture is
masked more often than in public training, most often at the start, because whole pictures teach the meaning of words
fastest.

Shape letters: B pictures, C channels, H W pixels, h w latent pixels, L text tokens, D text width.
"""

from __future__ import annotations

import copy
import json
from functools import partial
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionInpaintPipeline
from diffusion import Denoising, build_scheduler, build_text_tower, build_tokenizer, build_unet, token_ids
from known_edits import presence, single_objects
from pretrain_autoencoder import LATENT_FACTOR, encode, held_out_pictures, load_autoencoder, pool_latents, psnr, signed
from pretraining import Schedule, arguments, arithmetic, begin, finished_folder, made_once, plain_attention, train
from rich.progress import track
from scene_pool import Batch, ScenePool, both_pools
from torch import Tensor, nn

from regionedit.config import StableDiffusionConfig
from regionedit.generators.stable_diffusion import StableDiffusion
from regionedit.masks import random_hard
from regionedit.microworld.scene import SIZE

TEXT_DROPOUT = 0.1
KEPT_WEIGHT = 0.1  # loss weight of places that are not masked, against masked ones
MASKS = 2  # random masks for every picture
# at the start and the end of training: share of samples with everything masked, of batches with few objects
WHOLE = (0.6, 0.2)
FEW_OBJECTS = (0.8, 0.2)


def masked_latents(autoencoder: AutoencoderKL, pool: ScenePool, seed: int, batch: int = 64) -> dict[str, Tensor]:
    """Latents of a pool's pictures with a random part, but never everything, masked.

    Returns:
        masked_BChw: latents of the parts that are not masked, half precision.
        mask_B1hw: where any pixel is masked, bool.
    """
    masked, masks = [], []
    for start in track(range(0, len(pool.pictures), batch), description="masked latents"):
        pictures_BCHW = signed(pool.pictures[start : start + batch])
        mask_B1HW = torch.cat([partial_mask(seed + start + b) for b in range(len(pictures_BCHW))])
        masked.append(encode(autoencoder, pictures_BCHW * (1 - mask_B1HW)).half().cpu())
        masks.append(nn.functional.max_pool2d(mask_B1HW, LATENT_FACTOR).bool())
    return {"masked_BChw": torch.cat(masked), "mask_B1hw": torch.cat(masks)}


def partial_mask(seed: int) -> Tensor:
    """A mask of `random_hard` that leaves a part of the picture, 11HW: of this seed, else of seed + 10^6, and so on."""
    mask_11HW = random_hard([seed], (SIZE, SIZE))
    return partial_mask(seed + 10**6) if mask_11HW.all() else mask_11HW


def between(ends: tuple[float, float], share: float) -> float:
    """A value that moves from the first end to the second as the share of the steps goes from 0 to 1."""
    return ends[0] + (ends[1] - ends[0]) * share


def draw_batch(
    pools: tuple[ScenePool, ScenePool], share: float, seed: int, step: int, groups: int
) -> tuple[int, Batch]:
    """A batch from one of `both_pools`, and the pool's index; half of the batches with few objects have brief captions.
    The choice comes from torch's global generator."""
    which = int(torch.rand(()) < between(FEW_OBJECTS, share))
    return which, pools[which].batch(seed, step, groups, brief=bool(which) and step % 2 == 0)


def main() -> None:
    parser = arguments(__doc__, steps=40000, learning_rate=1.5e-3)
    parser.add_argument("--autoencoder", type=Path, default=Path("outputs/microworld_models/autoencoder"))
    parser.add_argument("--batch", type=int, default=32, help="pictures per step, a multiple of 4")
    parser.add_argument("--groups", type=int, default=8000, help="groups of four scenes in the pool")
    args, state = begin(parser)
    device = args.device
    autoencoder = load_autoencoder(args.autoencoder, device)
    tokenizer, scheduler = build_tokenizer(), build_scheduler()
    learned = nn.ModuleDict({"unet": build_unet(9), "text_encoder": build_text_tower(tokenizer, 2)})
    learned.to(device, memory_format=torch.channels_last)
    denoising = Denoising(scheduler, device)
    pools = both_pools(args.work, args.groups)
    clean = [
        made_once(
            args.work, f"clean_{number}", autoencoder, lambda pool=pool: {"BChw": pool_latents(autoencoder, pool)}
        )
        for number, pool in enumerate(pools)
    ]
    masked = [
        [
            made_once(
                args.work,
                f"masked_{number}_{draw}",
                autoencoder,
                partial(masked_latents, autoencoder, pool, 10**9 * (MASKS * number + draw)),
            )
            for draw in range(MASKS)
        ]
        for number, pool in enumerate(pools)
    ]
    nothing_1Chw = encode(autoencoder, torch.zeros(1, 3, SIZE, SIZE))  # latents of a fully masked picture

    def loss_of(step: int, share: float) -> Tensor:
        which, batch = draw_batch(pools, share, args.seed + 100, step, args.batch // 4)
        part, rows = masked[which][int(torch.randint(MASKS, ()))], batch.rows
        whole_B111 = (torch.rand(args.batch) < between(WHOLE, share))[:, None, None, None].to(device)
        clean_BChw, masked_BChw = (x[rows].to(device).float() for x in (clean[which]["BChw"], part["masked_BChw"]))
        mask_B1hw = part["mask_B1hw"][rows].to(device) | whole_B111
        masked_BChw = torch.where(whole_B111, nothing_1Chw, masked_BChw)
        texts = ["" if torch.rand(()) < TEXT_DROPOUT else caption for caption in batch.captions]
        noise, time_B = torch.randn_like(clean_BChw), denoising.draw(args.batch)
        noisy_BChw = denoising.noised(clean_BChw, noise, time_B)
        inputs = torch.cat([noisy_BChw, mask_B1hw, masked_BChw], 1).contiguous(memory_format=torch.channels_last)
        with arithmetic(device=device):
            context_BLD = learned["text_encoder"](token_ids(tokenizer, texts).to(device))[0]  # causal
        with arithmetic(device=device), plain_attention():
            predicted = learned["unet"](inputs, time_B, encoder_hidden_states=context_BLD).sample
        weight_B1hw = KEPT_WEIGHT + (1 - KEPT_WEIGHT) * mask_B1hw.float()
        weight_B1hw = weight_B1hw / weight_B1hw.mean((1, 2, 3), keepdim=True)
        return denoising.loss(predicted, noise, time_B, weight_B1hw)

    def generator(**settings) -> StableDiffusion:
        modules = {name: copy.deepcopy(module) for name, module in learned.items()}  # a generator freezes its modules
        return StableDiffusion(modules | {"vae": autoencoder}, tokenizer, scheduler, StableDiffusionConfig(**settings))

    def scores(count: int, **settings) -> dict[str, float]:
        return {"single": single_objects(generator(**settings), count // 2)} | presence(generator(**settings), count)

    schedule = Schedule(
        args.steps, args.learning_rate, weight_decay=0.01, betas=(0.9, 0.99), average=0.9995, evaluate_every=600
    )
    final = train(learned, loss_of, schedule, state, args.seed, lambda: scores(120, num_inference_steps=8))
    final["guidance"] = {value: scores(400, num_inference_steps=8, guidance_scale=value) for value in (2.0, 3.0, 7.5)}
    final["psnr"] = psnr(autoencoder, held_out_pictures(256).to(device))
    print(json.dumps(final, indent=2))
    pipeline = StableDiffusionInpaintPipeline(
        vae=autoencoder,
        text_encoder=learned["text_encoder"],
        tokenizer=tokenizer,
        unet=learned["unet"],
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    with finished_folder(args.out, final) as folder:
        pipeline.to(torch.float16).save_pretrained(folder)


if __name__ == "__main__":
    main()
