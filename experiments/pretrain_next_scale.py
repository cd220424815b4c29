"""Pre-trains the microworld's next-scale model from scratch: first its tokenizer, then the transformer.

    python experiments/pretrain_next_scale.py --part tokenizer --out outputs/next_scale --threads 1
    python experiments/pretrain_next_scale.py --part transformer --out outputs/next_scale --threads 1

The tokens are like VAR's: an autoencoder's features, quantised from coarse to fine with one codebook, whose entries
follow the running mean of the features assigned to them. The transformer is trained to in-paint. Another picture is
pasted into the picture inside a random mask, which is independent of what the picture shows. Outside the mask, the
tokens of this mixture are given; inside it, the transformer predicts the tokens that lead from there to the picture of
the caption. The pasted picture comes from the same batch, half of the time a look-alike. A quarter of the masks covers
the whole picture, which is plain next-scale prediction. Training uses pictures and captions only: no masks of objects,
boxes or positions. The text encoder is the in-painter's, frozen.

Shape letters: B pictures, C channels, H W pixels, y x cells of the full grid, s cells on a scale's side, L cells of
all scales, V codes, K neighbours of a code.
"""

from __future__ import annotations

import argparse
import copy
import json

import numpy as np
import torch
from known_edits import by_operation, known_edits, pictures, presence, successes
from pretrain_autoencoder import held_out_pictures, mean_psnr, mean_rms, signed
from pretrain_inpaint import TEXT_DROPOUT, draw_batch
from pretraining import Schedule, arithmetic, begin, finished_folder, plain_attention, train, two_part_arguments
from safetensors.torch import load_file, save_file
from scene_pool import GROUP, both_pools, common_pool
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPTokenizer

from regionedit.config import NextScaleConfig
from regionedit.generators.next_scale import NextScale, edited_cells
from regionedit.generators.next_scale_model import Condition, NextScaleModel, NextScaleSizes, with_view
from regionedit.generators.next_scale_tokens import UNKNOWN, TokenAutoencoder
from regionedit.masks import composite, random_hard

COMMITMENT, QUANTIZATION = 0.25, 0.2
STEPS = {"tokenizer": 1100, "transformer": 4800}
FORGET = 0.99  # decay of the codebook's running means
RESTART_EVERY, RESTART_BELOW = 20, 0.3  # steps; an entry chosen less often per step is moved
COVERED = (0.0, 0.1, 0.25, 0.5)  # a cell is predicted if the mask covers more of it than one of these, drawn per batch
FINEST = 0.125  # share of a batch that trains the finest scale
WRONG, NEAREST = 0.15, 12  # up to this share of tokens becomes one of the nearest codes, to learn to mend mistakes


class Codebook(nn.Module):
    """The autoencoder, and the running means that its codebook follows."""

    def __init__(self, autoencoder: TokenAutoencoder):
        super().__init__()
        self.autoencoder = autoencoder
        codebook_VC = autoencoder.quantizer.codebook_VC
        self.register_buffer("chosen_V", torch.ones(len(codebook_VC)))
        self.register_buffer("sum_VC", codebook_VC.clone())

    @torch.no_grad()
    def follow(self, cells_LC: Tensor, tokens_L: Tensor, step: int) -> None:
        """Move every entry to the running mean of the cells that chose it, and unused entries to random cells."""
        codebook_VC = self.autoencoder.quantizer.codebook_VC
        chosen_V = torch.bincount(tokens_L, minlength=len(codebook_VC)).float()
        sum_VC = torch.zeros_like(codebook_VC).index_add_(0, tokens_L, cells_LC)
        self.chosen_V.lerp_(chosen_V, 1 - FORGET)
        self.sum_VC.lerp_(sum_VC, 1 - FORGET)
        if step % RESTART_EVERY == 0:
            unused = (self.chosen_V < RESTART_BELOW).nonzero()[:, 0] if step else torch.arange(len(codebook_VC))
            self.sum_VC[unused] = cells_LC[torch.randint(0, len(cells_LC), (len(unused),))]
            self.chosen_V[unused] = 1.0
        codebook_VC.copy_(self.sum_VC / self.chosen_V.clamp(min=1e-6)[:, None])


def train_tokenizer(args: argparse.Namespace) -> None:
    """Loss: root-mean-square error of each picture, plus the distance of its features to each scale's tokens."""
    sizes = NextScaleSizes()
    autoencoder = TokenAutoencoder(sizes.autoencoder_widths, sizes.channels, sizes.codes, sizes.sides)
    for smooth in autoencoder.quantizer.smooth:
        nn.init.dirac_(smooth.weight)
    learned, pool = Codebook(autoencoder), common_pool(args.work, args.groups)
    held_out_BCHW = held_out_pictures(256)

    def loss_of(step: int, share: float) -> Tensor:
        rows = np.random.default_rng([args.seed, 13, step]).choice(len(pool.pictures), args.batch, replace=False)
        pictures_BCHW = signed(pool.pictures[np.sort(rows)])
        with arithmetic():
            features_BCyx = autoencoder.encoder(pictures_BCHW)
        features_BCyx, quantizer = features_BCyx.float(), autoencoder.quantizer
        fixed_BCyx, quantised_BCyx, distance = features_BCyx.detach(), torch.zeros_like(features_BCyx), 0.0
        cells, chosen = [], []
        for scale in range(len(sizes.sides)):
            residual_BCss = quantizer.pooled(fixed_BCyx - quantised_BCyx.detach(), scale)
            tokens_Bss = quantizer.nearest(residual_BCss)
            quantised_BCyx = quantised_BCyx + quantizer.spread(tokens_Bss, scale)
            distance = distance + F.mse_loss(quantised_BCyx, fixed_BCyx)
            distance = distance + COMMITMENT * F.mse_loss(quantised_BCyx.detach(), features_BCyx)
            cells.append(residual_BCss.permute(0, 2, 3, 1).flatten(0, 2))
            chosen.append(tokens_Bss.flatten())
        with arithmetic():
            back_BCHW = autoencoder.decoder(quantised_BCyx + features_BCyx - fixed_BCyx)
        learned.follow(torch.cat(cells), torch.cat(chosen), step)
        return mean_rms(back_BCHW, pictures_BCHW) + QUANTIZATION * distance / len(sizes.sides)

    @torch.no_grad()
    def scores() -> dict[str, float]:
        back_BCHW = round_trip(autoencoder, held_out_BCHW)
        used = float((learned.chosen_V > RESTART_BELOW).float().mean())
        return {"psnr": mean_psnr(back_BCHW / 2, held_out_BCHW / 2), "used": used} | best_success(autoencoder, 100)

    steps, rate = args.steps or STEPS[args.part], args.learning_rate or 2e-3
    schedule = Schedule(steps, rate, weight_decay=0.0, betas=(0.9, 0.99), evaluate_every=90)
    state = args.work / f"next_scale_tokenizer_{args.seed}.safetensors"
    final = train(learned, loss_of, schedule, state, args.seed, scores)
    with finished_folder(args.work / "next_scale_tokenizer", final) as folder:
        save_file(autoencoder.state_dict(), folder / "model.safetensors")


@torch.no_grad()
def round_trip(autoencoder: TokenAutoencoder, pictures_BCHW: Tensor) -> Tensor:
    """Pictures in [-1, 1], reconstructed from their tokens."""
    maps = autoencoder.quantizer.tokens(autoencoder.encoder(pictures_BCHW))
    quantised_BCyx = sum(autoencoder.quantizer.spread(tokens_Bss, scale) for scale, tokens_Bss in enumerate(maps))
    return autoencoder.decoder(quantised_BCyx).clamp(-1, 1)


def best_success(autoencoder: TokenAutoencoder, count: int) -> dict[str, float]:
    """Success rate of the true results, reconstructed from their tokens and composited with the true mask."""
    known = known_edits("validation", 5, range(count), ("replace", "recolour", "remove", "add", "background"))
    target_BCHW = pictures([edit.target for edit in known.edits])
    back_BCHW = round_trip(autoencoder, target_BCHW * 2 - 1) / 2 + 0.5
    mask_B1HW = (known.truth_B1HW > 0.1).float()
    return by_operation(successes(composite(back_BCHW, known.source_BCHW, mask_B1HW), known), known)


def train_transformer(args: argparse.Namespace) -> None:
    """Loss: cross-entropy of the tokens to predict; see the module's docstring."""
    sizes = NextScaleSizes()
    text_encoder = CLIPTextModel.from_pretrained(args.inpaint / "text_encoder", dtype=torch.float32)
    model = NextScaleModel(sizes, text_encoder, CLIPTokenizer.from_pretrained(args.inpaint / "tokenizer"))
    model.autoencoder.load_state_dict(load_file(args.work / "next_scale_tokenizer" / "model.safetensors"))
    model.eval().requires_grad_(False)
    transformer = model.transformer.requires_grad_(True)
    pools = both_pools(args.work, args.groups)
    quantizer = model.autoencoder.quantizer
    near_VK = torch.cdist(quantizer.codebook_VC, quantizer.codebook_VC).topk(NEAREST, largest=False).indices

    # attention stays within a scale, so each can train on another number of pictures; the finest has most cells
    last = len(sizes.sides) - 1
    parts = ((args.batch, range(last)), (round(args.batch * FINEST), [last]))

    def features(pictures_BCHW: Tensor) -> Tensor:
        with torch.no_grad(), arithmetic():
            return model.autoencoder.encoder(pictures_BCHW).float()

    def loss_of(step: int, share: float) -> Tensor:
        _, batch = draw_batch(pools, share, args.seed + 200, step, args.batch // GROUP)
        seeds = [(args.seed * 1_000_003 + step) * 1_000 + 500 + b for b in range(args.batch)]
        wanted_BCHW = signed(batch.pictures)
        mask_B1HW = random_hard(seeds, wanted_BCHW.shape[-2:])
        pasted_BCHW = wanted_BCHW[pasted_rows(args.batch)]
        wanted_BCyx = features(wanted_BCHW)
        mixed_BCyx = features(composite(pasted_BCHW, wanted_BCHW, mask_B1HW))
        mixed = quantizer.tokens(mixed_BCyx)
        covered = COVERED[int(torch.randint(0, len(COVERED), ()))]
        quantised_BCyx, pooled, known, targets = torch.zeros_like(wanted_BCyx), [], [], []
        with torch.no_grad():
            wrong_B = WRONG * torch.rand(args.batch)[:, None, None]
            for scale, side in enumerate(sizes.sides):
                unknown_Bss = edited_cells(mask_B1HW, side, covered if scale < last else 0.0)
                target_Bss = quantizer.nearest(quantizer.pooled(wanted_BCyx - quantised_BCyx, scale))
                pooled.append(quantizer.pooled(quantised_BCyx, scale))
                known.append(mixed[scale].masked_fill(unknown_Bss, UNKNOWN))
                targets.append(target_Bss)
                near_Bss = near_VK[target_Bss, torch.randint(0, NEAREST, target_Bss.shape)]
                taken_Bss = torch.where(torch.rand(target_Bss.shape) < wrong_B, near_Bss, target_Bss)
                quantised_BCyx += quantizer.spread(torch.where(unknown_Bss, taken_Bss, mixed[scale]), scale)
            with arithmetic():
                text = model.read_texts(["" if torch.rand(()) < TEXT_DROPOUT else c for c in batch.captions])
        kept_B1yx = 1 - F.adaptive_max_pool2d(mask_B1HW, sizes.sides[-1])
        loss, total = 0.0, 0.0
        for rows, scales in parts:
            of_scales = [[maps[scale][:rows] for scale in scales] for maps in (pooled, known)]
            with arithmetic(), plain_attention():
                view_BNT = transformer.look(mixed_BCyx[:rows], kept_B1yx[:rows])
                condition = with_view(Condition(text.states_BNT[:rows], text.real_BN[:rows]), view_BNT)
                logits = transformer(scales, *of_scales, condition)
            for scale, logits_BssV in zip(scales, logits, strict=True):
                unknown_Bss = known[scale][:rows] == UNKNOWN
                wanted_L = targets[scale][:rows][unknown_Bss]
                # a cell has the weight 1 / side of its scale: between equal weights of cells and of scales
                nats = F.cross_entropy(logits_BssV[unknown_Bss].float(), wanted_L, reduction="sum")
                loss = loss + nats / sizes.sides[scale]
                total = total + len(wanted_L) / sizes.sides[scale]
        return loss / total

    def scores(count: int) -> dict[str, float]:
        config = NextScaleConfig(guidance_scale=args.guidance, temperature=args.temperature)
        return presence(NextScale(copy.deepcopy(model).requires_grad_(False), config), count)

    steps, rate = args.steps or STEPS[args.part], args.learning_rate or 1e-3
    schedule = Schedule(steps, rate, weight_decay=0.02, betas=(0.9, 0.99), evaluate_every=600)
    state = args.work / f"next_scale_transformer_{args.seed}.safetensors"
    train(transformer, loss_of, schedule, state, args.seed, lambda: scores(96))
    tokenizer_scores = json.loads((args.work / "next_scale_tokenizer" / "scores.json").read_text())
    final = {"present": scores(400), "tokenizer": tokenizer_scores}
    print(json.dumps(final, indent=2))
    with finished_folder(args.out, final) as folder:
        model.save(folder)


def pasted_rows(count: int) -> Tensor:
    """For each picture of a batch the index of another one, half of the time from its own group of look-alikes."""
    own = torch.arange(count)
    sibling = own // GROUP * GROUP + (own + torch.randint(1, GROUP, (count,))) % GROUP
    other = (own + torch.randint(GROUP, count - GROUP + 1, (count,))) % count
    return torch.where(torch.rand(count) < 0.5, sibling, other)


def main() -> None:
    parser = two_part_arguments(__doc__, batch=32, groups=16000)
    parser.add_argument("--temperature", type=float, default=0.2, help="token temperature of the held-out edits")
    args, _ = begin(parser)
    (train_tokenizer if args.part == "tokenizer" else train_transformer)(args)


if __name__ == "__main__":
    main()
