"""Pre-trains the autoencoder of the microworld's diffusion models: pictures to 16 x 16 latents with four channels.

    python experiments/pretrain_autoencoder.py --out outputs/microworld_models/autoencoder --threads 1

Shape letters: B pictures, C channels, H W pixels, h w latent pixels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from pretraining import Schedule, arguments, arithmetic, begin, finished_folder, train
from rich.progress import track
from scene_pool import ScenePool, common_pool, scene_group
from torch import Tensor

from regionedit.microworld.renderer import render
from regionedit.microworld.scene import SIZE

LATENT_FACTOR = 4
HELD_OUT_PICTURES = 2  # seed of the stream; the scene pools use 0 and 1
DIVERGENCE_WEIGHT = 5e-5


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


def load_autoencoder(folder: Path, device: str) -> AutoencoderKL:
    """The trained autoencoder, frozen."""
    autoencoder = AutoencoderKL.from_pretrained(folder).eval().requires_grad_(False)
    return autoencoder.to(device, memory_format=torch.channels_last)


def signed(pictures_BHWC: np.ndarray) -> Tensor:
    """uint8 BHWC -> float BCHW in [-1, 1]."""
    return torch.from_numpy(np.array(pictures_BHWC)).permute(0, 3, 1, 2).float() / 127.5 - 1


def held_out_pictures(count: int) -> Tensor:
    """Pictures from a stream that no pre-training uses, float BCHW in [-1, 1]."""
    return signed(render([scene_group(HELD_OUT_PICTURES, index)[0] for index in range(count)]))


@torch.no_grad()
def round_trip(autoencoder: AutoencoderKL, pictures_BCHW: Tensor) -> Tensor:
    """Pictures in [-1, 1], encoded and decoded."""
    return autoencoder.decode(autoencoder.encode(pictures_BCHW).latent_dist.mode()).sample.clamp(-1, 1)


def psnr(autoencoder: AutoencoderKL, pictures_BCHW: Tensor) -> float:
    """Mean over pictures of the peak signal-to-noise ratio of a round trip, dB."""
    back_BCHW = round_trip(autoencoder, pictures_BCHW)
    return mean_psnr(back_BCHW / 2, pictures_BCHW / 2)


def mean_psnr(back_BCHW: Tensor, pictures_BCHW: Tensor) -> float:
    """Mean over pictures of the peak signal-to-noise ratio, dB, where 1 is the peak."""
    error_B = (back_BCHW - pictures_BCHW).square().mean((1, 2, 3))
    return float((-10 * error_B.log10()).mean())


def mean_rms(back_BCHW: Tensor, pictures_BCHW: Tensor) -> Tensor:
    """Mean over pictures of the root-mean-square error, a scalar with a gradient everywhere."""
    return ((back_BCHW.float() - pictures_BCHW).square().mean((1, 2, 3)) + 1e-5).sqrt().mean()


@torch.no_grad()
def whiten(autoencoder: AutoencoderKL, pictures_BCHW: Tensor) -> None:
    """Give every latent channel mean 0 and standard deviation 1 on these pictures, by folding both into the 1 x 1
    convolutions on either side of the latent: round trips stay the same, and noise hides all channels equally."""
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


@torch.no_grad()
def encode(autoencoder: AutoencoderKL, pictures_BCHW: Tensor) -> Tensor:
    """Scaled latents, float BChw, on the autoencoder's device."""
    with arithmetic(device=autoencoder.device.type):
        latents = autoencoder.encode(
            pictures_BCHW.to(autoencoder.device, memory_format=torch.channels_last)
        ).latent_dist.mode()
    return latents.float() * autoencoder.config.scaling_factor


def pool_latents(autoencoder: AutoencoderKL, pool: ScenePool, batch: int = 64) -> Tensor:
    """Latents of a pool's pictures in half precision; encoded once, because every step needs some of them."""
    starts = track(range(0, len(pool.pictures), batch), description="latents")
    return torch.cat([encode(autoencoder, signed(pool.pictures[i : i + batch])).half().cpu() for i in starts])


def main() -> None:
    """Loss: root-mean-square error of each picture (which PSNR measures), plus a little of the latent's divergence."""
    parser = arguments(__doc__, steps=3500, learning_rate=2e-3)
    parser.add_argument("--batch", type=int, default=16, help="pictures per step")
    parser.add_argument("--groups", type=int, default=16000, help="groups of four scenes in the pool")
    args, state = begin(parser)
    autoencoder = build_autoencoder().to(args.device, memory_format=torch.channels_last)
    pool = common_pool(args.work, args.groups)
    held_out_BCHW = held_out_pictures(256).to(args.device)

    def loss_of(step: int, share: float) -> Tensor:
        rows = np.random.default_rng([args.seed, 7, step]).choice(len(pool.pictures), args.batch, replace=False)
        pictures_BCHW = signed(pool.pictures[np.sort(rows)]).to(args.device, memory_format=torch.channels_last)
        with arithmetic(device=args.device):
            posterior = autoencoder.encode(pictures_BCHW).latent_dist
            back_BCHW = autoencoder.decode(posterior.sample()).sample
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        divergence = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        return mean_rms(back_BCHW, pictures_BCHW) + DIVERGENCE_WEIGHT * divergence

    schedule = Schedule(args.steps, args.learning_rate, weight_decay=0.0, betas=(0.9, 0.99), average=0.999)
    scores = train(autoencoder, loss_of, schedule, state, args.seed, lambda: {"psnr": psnr(autoencoder, held_out_BCHW)})
    whiten(autoencoder.to(memory_format=torch.contiguous_format), held_out_BCHW)
    with finished_folder(args.out, scores) as folder:
        autoencoder.save_pretrained(folder)


if __name__ == "__main__":
    main()
