"""Pre-trains the microworld's masked-token generator from scratch: first its tokenizer, then the transformer.

    python experiments/pretrain_masked_token.py --out OUT --part tokenizer --threads 1 --batch 8
    python experiments/pretrain_masked_token.py --out OUT --part transformer --threads 1

It is built from aMUSEd's classes: a VQ autoencoder with 16 x 16 tokens for 64 pixels, and a U-ViT that works at half
that size inside. The text encoder is the in-painter's, of CLIP's class, frozen, with an identity projection. Training
uses pictures and captions only. The tokens to predict are in a random region that is independent of what the picture
shows (for a quarter of the samples the whole picture); MaskGIT's cosine schedule decides the share of them that is
hidden. Text is dropped for one sample in ten. Two differences leave the interfaces unchanged: a quarter of the samples
have the whole region hidden, as at the first step of an edit, and unused codebook entries are moved to features of the
batch.

Shape letters: B pictures, C channels, H W pixels, y x tokens, K codebook entries, L text tokens, D text width.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
from pathlib import Path

import numpy as np
import torch
from diffusers import AmusedScheduler, UVit2DModel, VQModel
from diffusion import TEXT_WIDTH, token_ids
from known_edits import presence
from pretrain_autoencoder import held_out_pictures, mean_psnr, mean_rms
from pretrain_inpaint import TEXT_DROPOUT, draw_batch
from pretraining import Schedule, arithmetic, begin, finished_folder, plain_attention, train, two_part_arguments
from rich.progress import track
from safetensors.torch import load_file, save_file
from scene_pool import ScenePool, both_pools, common_pool
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from regionedit.config import MaskedTokenConfig
from regionedit.generators.masked_token import AESTHETIC_SCORE, MaskedToken, pipeline_class
from regionedit.masks import random_hard
from regionedit.microworld.scene import SIZE

CODES = 64
CODE_WIDTH = 8
CELL = 4  # side of a token in pixels
STEPS = {"tokenizer": 3300, "transformer": 10000}
CODEBOOK_WEIGHT = 0.25
REVIVE_EVERY = 100  # steps; an entry that was not used in them is moved
REVIVE_UNTIL = 0.7  # share of the steps in which entries are moved
ALL_HIDDEN = 0.25


def build_vqvae() -> VQModel:
    """Normalisations have one group: with eight, the backward pass takes twice the time of a whole step on a CPU."""
    return VQModel(
        block_out_channels=(16, 32, 48),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        norm_num_groups=1,
        latent_channels=16,
        sample_size=SIZE,
        num_vq_embeddings=CODES,
        vq_embed_dim=CODE_WIDTH,
        mid_block_add_attention=False,
        lookup_from_codebook=True,
    )


def build_transformer() -> UVit2DModel:
    return UVit2DModel(
        hidden_size=128,
        cond_embed_dim=TEXT_WIDTH,
        micro_cond_encode_dim=8,
        micro_cond_embed_dim=5 * 8,
        encoder_hidden_size=TEXT_WIDTH,
        vocab_size=CODES + 1,
        codebook_size=CODES,
        in_channels=64,
        block_out_channels=96,
        num_res_blocks=2,
        downsample=True,
        upsample=True,
        block_num_heads=4,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=256,
        sample_size=SIZE // CELL,
    )


def text_tower(folder: Path) -> CLIPTextModelWithProjection:
    """The text encoder in `folder`, frozen; its projection is the identity."""
    tower = CLIPTextModel.from_pretrained(folder, dtype=torch.float32)
    projected = CLIPTextModelWithProjection(CLIPTextConfig(**tower.config.to_dict() | {"projection_dim": TEXT_WIDTH}))
    projected.text_model.load_state_dict(tower.state_dict())
    torch.nn.init.eye_(projected.text_projection.weight)
    return projected.eval().requires_grad_(False)


def unit(pictures_BHWC: np.ndarray) -> Tensor:
    """uint8 BHWC -> float BCHW in [0, 1], channels last."""
    pictures_BCHW = torch.from_numpy(np.array(pictures_BHWC)).permute(0, 3, 1, 2).float() / 255
    return pictures_BCHW.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def token_map(vqvae: VQModel, pictures_BCHW: Tensor) -> Tensor:
    """Codebook indices, Byx."""
    latents_BCyx = vqvae.encode(pictures_BCHW).latents.float()
    return vqvae.quantize(latents_BCyx)[2][2].view(len(latents_BCyx), *latents_BCyx.shape[-2:])


@torch.no_grad()
def round_trip(vqvae: VQModel, pictures_BCHW: Tensor) -> dict[str, float]:
    """Mean peak signal-to-noise ratio over pictures, dB, and the number of codebook entries that they use."""
    back_BCHW = vqvae(pictures_BCHW).sample.clamp(0, 1)
    return {"psnr": mean_psnr(back_BCHW, pictures_BCHW), "codes": len(token_map(vqvae, pictures_BCHW).unique())}


def train_tokenizer(args: argparse.Namespace) -> None:
    """Loss: root-mean-square error of each picture, plus the codebook and commitment loss of diffusers' class."""
    vqvae, pool = build_vqvae().to(memory_format=torch.channels_last), common_pool(args.work, args.groups)
    held_out_BCHW = (held_out_pictures(256) / 2 + 0.5).contiguous(memory_format=torch.channels_last)
    used_K = torch.zeros(CODES)

    @torch.no_grad()
    def revive(latents_BCyx: Tensor) -> None:
        unused = (used_K == 0).nonzero()[:, 0]
        features = latents_BCyx.permute(0, 2, 3, 1).reshape(-1, CODE_WIDTH)
        vqvae.quantize.embedding.weight[unused] = features[torch.randperm(len(features))[: len(unused)]]
        used_K.zero_()

    def loss_of(step: int, share: float) -> Tensor:
        rows = np.random.default_rng([args.seed, 13, step]).choice(len(pool.pictures), args.batch, replace=False)
        pictures_BCHW = unit(pool.pictures[np.sort(rows)])
        with arithmetic():
            latents_BCyx = vqvae.encode(pictures_BCHW).latents
        latents_BCyx = latents_BCyx.float()
        if step % REVIVE_EVERY == 0 and share < REVIVE_UNTIL:
            revive(latents_BCyx)
        codes_BCyx, codebook_loss, (_, _, index) = vqvae.quantize(latents_BCyx)
        used_K.index_add_(0, index, torch.ones(len(index)))
        with arithmetic():
            back_BCHW = vqvae.decoder(vqvae.post_quant_conv(codes_BCyx))
        return mean_rms(back_BCHW, pictures_BCHW) + CODEBOOK_WEIGHT * codebook_loss

    steps, rate = args.steps or STEPS[args.part], args.learning_rate or 2e-3
    schedule = Schedule(steps, rate, weight_decay=0.0, betas=(0.9, 0.99), evaluate_every=90)
    state = args.work / f"masked_token_tokenizer_{args.seed}.safetensors"
    scores = train(vqvae, loss_of, schedule, state, args.seed, lambda: round_trip(vqvae, held_out_BCHW))
    weights = {name: tensor.contiguous() for name, tensor in vqvae.state_dict().items()}
    with finished_folder(args.work / "masked_token_tokenizer", scores) as folder:
        save_file(weights, folder / "vqvae.safetensors")


def pool_tokens(vqvae: VQModel, pool: ScenePool, batch: int = 64) -> Tensor:
    """The token maps of a pool's pictures, int16; made once, because every step needs some of them."""
    starts = track(range(0, len(pool.pictures), batch), description="tokens")
    return torch.cat([token_map(vqvae, unit(pool.pictures[i : i + batch])).short() for i in starts])


def hidden_tokens(mask_B1HW: Tensor) -> Tensor:
    """Which tokens are to be predicted, Byx: the share of the region's tokens that the cosine schedule hides."""
    region_Byx = F.max_pool2d(mask_B1HW, CELL)[:, 0] > 0
    share_B11 = torch.cos(torch.rand(len(mask_B1HW), 1, 1) * math.pi / 2)
    share_B11[torch.rand(len(mask_B1HW)) < ALL_HIDDEN] = 1
    return region_Byx & (torch.rand(region_Byx.shape) < share_B11)


def train_transformer(args: argparse.Namespace) -> None:
    """Loss: cross-entropy of the hidden tokens; see the module's docstring."""
    vqvae = build_vqvae()
    vqvae.load_state_dict(load_file(args.work / "masked_token_tokenizer" / "vqvae.safetensors"))
    vqvae = vqvae.eval().requires_grad_(False)
    tokenizer = CLIPTokenizer.from_pretrained(args.inpaint / "tokenizer")
    text_encoder, transformer = text_tower(args.inpaint / "text_encoder"), build_transformer()
    pools = both_pools(args.work, args.groups)
    tokens = [pool_tokens(vqvae.to(memory_format=torch.channels_last), pool) for pool in pools]
    conditions = torch.tensor([SIZE, SIZE, 0, 0, AESTHETIC_SCORE]).float().expand(args.batch, -1)

    def read(texts: list[str]) -> tuple[Tensor, Tensor]:
        with torch.no_grad(), arithmetic():
            output = text_encoder(token_ids(tokenizer, texts), output_hidden_states=True)
        return output.hidden_states[-2].float(), output.text_embeds.float()

    def loss_of(step: int, share: float) -> Tensor:
        which, batch = draw_batch(pools, share, args.seed + 200, step, args.batch // 4)
        seeds = [(args.seed * 1_000_003 + step) * 1_000 + b for b in range(args.batch)]
        wanted_Byx = tokens[which][batch.rows].long()
        hidden_Byx = hidden_tokens(random_hard(seeds, (SIZE, SIZE)))
        context_BLD, pooled_BD = read(["" if torch.rand(()) < TEXT_DROPOUT else c for c in batch.captions])
        with arithmetic(), plain_attention():
            logits_BKyx = transformer(
                wanted_Byx.masked_fill(hidden_Byx, CODES),
                encoder_hidden_states=context_BLD,
                pooled_text_emb=pooled_BD,
                micro_conds=conditions,
            )
        return F.cross_entropy(logits_BKyx.permute(0, 2, 3, 1)[hidden_Byx].float(), wanted_Byx[hidden_Byx])

    def pipeline():
        return pipeline_class()(  # a generator freezes its modules
            vqvae=copy.deepcopy(vqvae).to(memory_format=torch.contiguous_format),
            tokenizer=tokenizer,
            text_encoder=text_encoder,
            transformer=copy.deepcopy(transformer),
            scheduler=AmusedScheduler(mask_token_id=CODES),
        )

    def scores(count: int, steps: int) -> dict[str, float]:
        config = MaskedTokenConfig(num_inference_steps=steps, guidance_scale=args.guidance)
        return presence(MaskedToken(pipeline(), config), count)

    steps, rate = args.steps or STEPS[args.part], args.learning_rate or 3e-3
    schedule = Schedule(steps, rate, weight_decay=0.01, betas=(0.9, 0.99), evaluate_every=600, average=0.999, muon=True)
    state = args.work / f"masked_token_{args.seed}.safetensors"
    train(transformer, loss_of, schedule, state, args.seed, lambda: scores(96, 8))
    final = {f"present_{steps}_steps": scores(400, steps) for steps in (4, 8, 12)}
    held_out_BCHW = held_out_pictures(256) / 2 + 0.5
    final |= round_trip(vqvae, held_out_BCHW)
    print(json.dumps(final, indent=2))
    with finished_folder(args.out, final) as folder:
        pipeline().to(torch.float16).save_pretrained(folder)


def main() -> None:
    args, _ = begin(two_part_arguments(__doc__, batch=32, groups=8000))
    (train_tokenizer if args.part == "tokenizer" else train_transformer)(args)


if __name__ == "__main__":
    main()
