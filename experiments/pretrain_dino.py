"""Pre-trains a tiny self-supervised ViT that takes the place of DINO in the metric `dino`.

    python experiments/pretrain_dino.py --out checkpoints/microworld/dino --threads 1

Like DINO it is transformers' ViTModel and uses no captions or labels, but its objective is simpler: to match two crops
of one picture among crops of others (NT-Xent). Colour is hardly jittered, because colour identifies an object in this
world.

Shape letters: B pictures, C channels, H W pixels, D embedding width.
"""

from __future__ import annotations

from pathlib import Path

import torch
from measure import HeldOut, in_batches
from pretraining import Schedule, arguments, arithmetic, begin, finished_folder, plain_attention, save_half, train
from scene_pool import GROUP, MEAN, STD, common_pool, to_input
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import ViTConfig, ViTImageProcessor, ViTModel

from regionedit.microworld.scene import SIZE

TEMPERATURE = 0.2
GROUPS_PER_BATCH = 24
SMALLEST_CROP = 0.65  # of the picture's side


def configuration() -> ViTConfig:
    return ViTConfig(
        hidden_size=96, num_hidden_layers=3, num_attention_heads=3, intermediate_size=384, image_size=SIZE, patch_size=8
    )


def view(pictures_BCHW: Tensor) -> Tensor:
    """A random crop of each picture at full size, mirrored half of the time, and slightly lighter or darker."""
    count = len(pictures_BCHW)
    scale = torch.empty(count).uniform_(SMALLEST_CROP, 1.0)
    shift = (1 - scale)[:, None] * torch.empty(count, 2).uniform_(-1, 1)
    mirror = torch.randint(0, 2, (count,)) * 2 - 1
    affine = torch.zeros(count, 2, 3)
    affine[:, 0, 0], affine[:, 1, 1], affine[:, :, 2] = scale * mirror, scale, shift
    grid = F.affine_grid(affine, list(pictures_BCHW.shape), align_corners=False)
    cropped = F.grid_sample(pictures_BCHW, grid, padding_mode="reflection", align_corners=False)
    return cropped * torch.empty(count, 1, 1, 1).uniform_(0.9, 1.1)


class Student(nn.Module):
    """The ViT, and a projector that is dropped after training."""

    def __init__(self):
        super().__init__()
        config = configuration()
        self.vit = ViTModel(config, add_pooling_layer=False)
        width = config.hidden_size
        self.projector = nn.Sequential(nn.Linear(width, 256), nn.GELU(), nn.Linear(256, 64))

    def forward(self, pictures_BCHW: Tensor) -> Tensor:
        """Unit embeddings of the class token after the projector."""
        return F.normalize(self.projector(self.features(pictures_BCHW)), dim=-1)

    def features(self, pictures_BCHW: Tensor) -> Tensor:
        """Class token, BD."""
        return self.vit(pixel_values=pictures_BCHW).last_hidden_state[:, 0]


def contrast(a_BD: Tensor, b_BD: Tensor) -> Tensor:
    """NT-Xent: find each view's partner among all other views of the batch."""
    both = torch.cat([a_BD, b_BD]).float()
    logits = (both @ both.T / TEMPERATURE).fill_diagonal_(float("-inf"))
    partner = torch.arange(len(both)).roll(len(a_BD))
    return F.cross_entropy(logits, partner)


def scores_of(student: Student, held_out: HeldOut) -> dict[str, float]:
    """self_retrieval: share of held-out pictures whose second view has its first as nearest of all pictures;
    attribute_gap: how much nearer a picture is to its look-alike than to an unrelated one (cosine of class tokens)."""
    torch.manual_seed(0)
    pictures = to_input(held_out.pictures)
    plain = F.normalize(in_batches(student.features, pictures), dim=-1)
    first, second = (in_batches(student, view(pictures)) for _ in range(2))
    groups = plain.reshape(-1, GROUP, plain.shape[-1])
    alike = (groups[:, 0] * groups[:, 1]).sum(-1).mean()
    strange = (groups[:, 0] * groups.roll(1, 0)[:, 0]).sum(-1).mean()
    correct = (first @ second.T).argmax(1) == torch.arange(len(first))
    return {"self_retrieval": correct.float().mean().item(), "attribute_gap": (alike - strange).item()}


def save(vit: ViTModel, scores: dict[str, float], out: Path) -> None:
    """Write the folder that ViTModel and ViTImageProcessor load, in half precision."""
    with finished_folder(out, scores) as folder:
        save_half(vit, folder)
        size = {"height": SIZE, "width": SIZE}
        ViTImageProcessor(size=size, image_mean=[MEAN] * 3, image_std=[STD] * 3).save_pretrained(folder)


def main() -> None:
    parser = arguments(__doc__, steps=600, learning_rate=1e-3)
    parser.add_argument("--groups", type=int, default=16000, help="groups of four scenes in the pool")
    args, state = begin(parser)

    student = Student()
    pool = common_pool(args.work, args.groups)
    held_out = HeldOut(200)

    def loss_of(step: int, share: float) -> Tensor:
        pictures = to_input(pool.batch(args.seed, step, GROUPS_PER_BATCH).pictures)
        with arithmetic(), plain_attention():
            first, second = student(view(pictures)), student(view(pictures))
        return contrast(first, second)

    schedule = Schedule(args.steps, args.learning_rate, evaluate_every=60)
    final = train(student, loss_of, schedule, state, args.seed, lambda: scores_of(student, held_out))
    save(student.vit, final | {"threads": args.threads}, args.out)


if __name__ == "__main__":
    main()
