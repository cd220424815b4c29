"""Pre-trains the microworld's in-painter from scratch: first its autoencoder, then U-Net and text encoder.

    python data_prep/microworld/pretrain_inpaint.py --part autoencoder --minutes 14 --threads 1 --batch 16
    python data_prep/microworld/pretrain_inpaint.py --part unet --minutes 58 --threads 1 --batch 16

Built as the public Stable Diffusion 1.5 in-painting checkpoint: nine input channels, epsilon prediction, scaled-linear
betas, CLIP's frozen text tower, the masked picture encoded, hard random masks drawn independently of what the picture
shows (a quarter of them everything), text dropped for one sample in ten. Pictures and captions only. One liberty that
changes no interface: the loss counts masked places four times as much as the others, and high noise more than low.

Shape letters: B pictures, C channels, H W pixels, h w latent pixels, L text tokens, D text width.
"""

from __future__ import annotations

import argparse
import copy
import json
import string
from pathlib import Path

import numpy as np
import text_tower
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionInpaintPipeline, UNet2DConditionModel
from known_edits import by_operation, chunks, known_edits, successes
from pretraining import Schedule, arithmetic, finished_folder, plain_attention, train
from rich.progress import track
from scene_pool import ScenePool, shape_group
from torch import Tensor
from transformers import CLIPTokenizer

from regionedit.config import GeneratorConfig
from regionedit.generators.stable_diffusion import StableDiffusion
from regionedit.masks import composite, dilate, random_hard
from regionedit.microworld.grammar import VOCABULARY
from regionedit.microworld.renderer import render
from regionedit.microworld.scene import SIZE, sample_scene
from regionedit.microworld.splits import scene_rng

LATENT_FACTOR = 4
CONTEXT = 40
TEXT_WIDTH = 128  # CLIP's
TEXT_DROPOUT = 0.1
MASKED_WEIGHT, KEPT_WEIGHT = 1.0, 0.25
HIGH_NOISE_WEIGHT = 200.0
DRILL = 1.2  # share of batches of few things, at the start; with one thing what the text says must be behind the mask


def build_autoencoder() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(16, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=4,
        sample_size=SIZE,
        mid_block_add_attention=False,
    )


def build_unet(in_channels: int = 9, finest: tuple[str, str] = ("DownBlock2D", "UpBlock2D")) -> UNet2DConditionModel:
    """The U-Net of the tiny generators; `finest` are its blocks on the full latent, on the way down and up."""
    return UNet2DConditionModel(
        sample_size=SIZE // LATENT_FACTOR,
        in_channels=in_channels,
        out_channels=4,
        block_out_channels=(64, 128),
        down_block_types=(finest[0], "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", finest[1]),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=2,  # diffusers reads this as the number of heads
        norm_num_groups=8,
    )


def build_tokenizer() -> CLIPTokenizer:
    """CLIP's own class, its byte pairs trained on the grammar's words. A character that never ends a word in training
    would become the unknown token, which for CLIP is the end of text; so each is shown once."""
    characters = [*string.ascii_lowercase, *string.digits, *string.punctuation]
    tokenizer = CLIPTokenizer().train_new_from_iterator([[*VOCABULARY, *characters]], vocab_size=700)
    tokenizer.model_max_length = CONTEXT
    return tokenizer


def build_scheduler(prediction: str) -> DDIMScheduler:
    """Scaled-linear betas; v prediction has them rescaled so that the last timestep is pure noise, as it needs."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction,
        rescale_betas_zero_snr=prediction == "v_prediction",
        timestep_spacing="trailing",
    )


def signed(pictures_BHWC: np.ndarray) -> Tensor:
    """uint8 BHWC -> float BCHW in [-1, 1]."""
    return torch.from_numpy(np.array(pictures_BHWC)).permute(0, 3, 1, 2).float() / 127.5 - 1


def held_out_pictures(count: int) -> Tensor:
    """Pictures from a stream that no pre-training draws from, float BCHW in [-1, 1]."""
    scenes = [sample_scene(scene_rng("pretrain", 2, i), allow_unseen=True) for i in range(count)]
    return signed(render(scenes))


@torch.no_grad()
def round_trip(autoencoder: AutoencoderKL, pictures_BCHW: Tensor) -> Tensor:
    """Pictures in [-1, 1], encoded and decoded."""
    return autoencoder.decode(autoencoder.encode(pictures_BCHW).latent_dist.mode()).sample.clamp(-1, 1)


def psnr(autoencoder: AutoencoderKL, pictures_BCHW: Tensor) -> float:
    """Mean over pictures of the peak signal-to-noise ratio of a round trip, dB."""
    back_BCHW = round_trip(autoencoder, pictures_BCHW)
    error_B = ((back_BCHW - pictures_BCHW) / 2).square().mean((1, 2, 3))
    return float((-10 * error_B.log10()).mean())


def train_autoencoder(args: argparse.Namespace) -> None:
    """Root-mean-square error of each picture (which PSNR measures) plus a little of the latent's divergence."""
    autoencoder, pool = build_autoencoder().to(memory_format=torch.channels_last), scene_pool(args)
    held_out_BCHW = held_out_pictures(256)

    def loss_of(step: int, share: float) -> Tensor:
        rows = np.random.default_rng([args.seed, 7, step]).choice(len(pool.pictures), args.batch, replace=False)
        pictures_BCHW = signed(pool.pictures[np.sort(rows)]).contiguous(memory_format=torch.channels_last)
        with arithmetic():
            posterior = autoencoder.encode(pictures_BCHW).latent_dist
            back_BCHW = autoencoder.decode(posterior.sample()).sample
        rms_B = ((back_BCHW.float() - pictures_BCHW).square().mean((1, 2, 3)) + 1e-5).sqrt()
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        divergence = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        return rms_B.mean() + 2e-5 * divergence

    schedule = Schedule(args.minutes, args.learning_rate or 2e-3, weight_decay=0.0, betas=(0.9, 0.99))
    state = args.work / f"autoencoder_{args.seed}.safetensors"
    scores = train(autoencoder, loss_of, schedule, state, args.seed, lambda: {"psnr": psnr(autoencoder, held_out_BCHW)})
    whiten(autoencoder.to(memory_format=torch.contiguous_format), held_out_BCHW)
    with finished_folder(args.work / "autoencoder") as folder:
        autoencoder.save_pretrained(folder)
        (folder / "scores.json").write_text(json.dumps(scores, indent=2) + "\n")


@torch.no_grad()
def whiten(autoencoder: AutoencoderKL, pictures_BCHW: Tensor) -> None:
    """Gives every latent channel mean 0 and deviation 1 on these pictures, by folding both into the 1 x 1 convolutions
    on either side of the latent: round trips stay the same, and noise hides all channels alike."""
    latents = autoencoder.encode(pictures_BCHW).latent_dist.mode()
    mean_C, deviation_C = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    channels = len(mean_C)
    before, after = autoencoder.quant_conv, autoencoder.post_quant_conv
    after.bias += after.weight[:, :, 0, 0] @ mean_C
    after.weight *= deviation_C[None, :, None, None]
    before.weight[:channels] /= deviation_C[:, None, None, None]
    before.bias[:channels] = (before.bias[:channels] - mean_C) / deviation_C
    before.bias[channels:] -= 2 * deviation_C.log()
    autoencoder.register_to_config(scaling_factor=1.0)


def presence(generator: StableDiffusion, count: int, truth_dilation: int = 2) -> dict[str, float]:
    """With the true mask (a few pixels wider), how often the request is there, by `pixel_check`, per operation."""
    known = known_edits("validation", 5, range(count), ("replace", "recolour", "remove", "add", "background"))
    mask_B1HW = dilate((known.truth_B1HW > 0.1).float(), truth_dilation)
    parts = ((known.rows(b), mask_B1HW[list(b)], b) for b in chunks(count, 32))
    proposal_BCHW = torch.cat([generator.propose(part.source_BCHW, m, part.target_captions, b) for part, m, b in parts])
    edited_BCHW = composite(proposal_BCHW, known.source_BCHW, mask_B1HW)
    return by_operation(successes(edited_BCHW, known), known)


@torch.no_grad()
def encode(autoencoder: AutoencoderKL, pictures_BCHW: Tensor) -> Tensor:
    """Scaled latents, float BChw."""
    with arithmetic():
        latents = autoencoder.encode(pictures_BCHW.contiguous(memory_format=torch.channels_last)).latent_dist.mode()
    return latents.float() * autoencoder.config.scaling_factor


def pool_latents(autoencoder: AutoencoderKL, pool: ScenePool, batch: int = 64) -> Tensor:
    """The latents of a pool's pictures, half precision; encoded once, because every step needs some of them."""
    starts = track(range(0, len(pool.pictures), batch), description="latents")
    return torch.cat([encode(autoencoder, signed(pool.pictures[i : i + batch])).half() for i in starts])


def train_unet(args: argparse.Namespace) -> None:
    """Epsilon prediction on hard random masks; see the module's docstring."""
    autoencoder = AutoencoderKL.from_pretrained(args.work / "autoencoder").eval().requires_grad_(False)
    autoencoder.to(memory_format=torch.channels_last)
    tokenizer, scheduler = build_tokenizer(), build_scheduler(args.prediction)
    text_encoder = text_tower.from_clip(text_tower.read_state(args.clip), tokenizer).requires_grad_(False)
    unet = build_unet().to(memory_format=torch.channels_last)
    alphas = scheduler.alphas_cumprod
    pools = scene_pool(args), ScenePool(args.work / f"drill_{args.groups // 2}.npy", args.groups // 2, make=shape_group)
    latents = [pool_latents(autoencoder, pool) for pool in pools]

    def context(texts: list[str]) -> Tensor:
        options = {"padding": "max_length", "max_length": CONTEXT, "truncation": True, "return_tensors": "pt"}
        with torch.no_grad(), arithmetic():
            return text_encoder(tokenizer(texts, **options).input_ids)[0]

    def loss_of(step: int, share: float) -> Tensor:
        drilled = int(torch.rand(()) < DRILL * (1 - share))
        batch = pools[drilled].batch(args.seed + 100, step, args.batch // 4, brief=bool(drilled) and step % 2 == 0)
        seeds = [(args.seed * 1_000_003 + step) * 1_000 + b for b in range(args.batch)]
        mask_B1HW = random_hard(seeds, (SIZE, SIZE))
        mask_B1hw = torch.nn.functional.max_pool2d(mask_B1HW, LATENT_FACTOR)
        clean_BChw = latents[drilled][batch.rows].float()
        masked_BChw = encode(autoencoder, signed(batch.pictures) * (1 - mask_B1HW))
        context_BLD = context(["" if torch.rand(()) < TEXT_DROPOUT else c for c in batch.captions])
        t = torch.randint(0, 1000, (args.batch,))
        alpha = alphas[t][:, None, None, None]
        noise = torch.randn_like(clean_BChw)
        noisy_BChw = alpha.sqrt() * clean_BChw + (1 - alpha).sqrt() * noise
        inputs = torch.cat([noisy_BChw, mask_B1hw, masked_BChw], 1).contiguous(memory_format=torch.channels_last)
        with arithmetic(), plain_attention():
            predicted = unet(inputs, t, encoder_hidden_states=context_BLD).sample
        weight = KEPT_WEIGHT + (MASKED_WEIGHT - KEPT_WEIGHT) * mask_B1hw
        if args.prediction == "v_prediction":
            wanted = alpha.sqrt() * noise - (1 - alpha).sqrt() * clean_BChw
        else:
            # what appears is decided at high noise, where an error in epsilon counts 1 / alpha as much in the picture
            wanted = noise
            weight = weight * (1 / alpha).clamp(max=HIGH_NOISE_WEIGHT)
        return (weight * (predicted.float() - wanted).square()).mean()

    def scores(count: int, steps: int) -> dict[str, float]:
        # a generator freezes its modules
        modules = {"unet": copy.deepcopy(unet), "vae": autoencoder, "text_encoder": text_encoder}
        return presence(StableDiffusion(modules, tokenizer, scheduler, GeneratorConfig(steps=steps)), count)

    schedule = Schedule(
        args.minutes, args.learning_rate or 1e-3, weight_decay=0.01, betas=(0.9, 0.99), evaluate_every=300
    )
    state = args.work / f"unet_{args.prediction}_{args.seed}.safetensors"
    train(unet, loss_of, schedule, state, args.seed, lambda: scores(96, 12))
    final = {f"present_{steps}_steps": scores(400, steps) for steps in (4, 8, 20)}
    final["psnr"] = psnr(autoencoder, held_out_pictures(256))
    print(json.dumps(final, indent=2))
    pipeline = StableDiffusionInpaintPipeline(
        vae=autoencoder,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    with finished_folder(args.out) as folder:
        pipeline.to(torch.float16).save_pretrained(folder)
        (folder / "scores.json").write_text(json.dumps(final, indent=2) + "\n")


def scene_pool(args: argparse.Namespace) -> ScenePool:
    return ScenePool(args.work / f"pool_{args.groups}.npy", args.groups)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("autoencoder", "unet"), required=True)
    parser.add_argument("--out", type=Path, default=Path("checkpoints/microworld/inpaint"), help="pipeline folder")
    parser.add_argument("--work", type=Path, default=Path("outputs/microworld_models"), help="pool and states")
    parser.add_argument(
        "--clip",
        type=Path,
        default=Path("outputs/microworld_models/clip_0.safetensors"),
        help="CLIP's training state, finished or not; its text tower reads the captions",
    )
    parser.add_argument("--prediction", choices=("epsilon", "v_prediction"), default="epsilon", help="of the U-Net")
    parser.add_argument("--minutes", type=float, required=True, help="wall time of training")
    parser.add_argument("--threads", type=int, default=2, help="torch threads")
    parser.add_argument("--seed", type=int, default=0, help="of weights and batches")
    parser.add_argument("--batch", type=int, default=32, help="pictures of a step, a multiple of 4")
    parser.add_argument("--learning_rate", type=float, default=0.0, help="0: 2e-3 for the autoencoder, 1e-3 else")
    parser.add_argument("--groups", type=int, default=16000, help="groups of four scenes in the pool")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    (train_autoencoder if args.part == "autoencoder" else train_unet)(args)


if __name__ == "__main__":
    main()
