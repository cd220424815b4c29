"""Pre-trains a tiny Segment Anything on rendered scenes: it turns a click or a box into the object's mask.

    python experiments/pretrain_sam.py --out checkpoints/microworld/sam --threads 1

It is transformers' SamModel, as the public one is, at toy size. Like the public one it is trained on masks of objects,
which no model that helps to train a region has seen; it serves the mask source `sam` and `region.refine`, never a
training. A click has one meaning here, so all three masks of an answer are trained on the same target (cross-entropy
and Dice loss); the model also learns to predict the IoU of each.

Shape letters: B pictures, C channels, H W pixels, Q prompts for a picture, P points of a prompt, M masks of an answer.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from pretraining import Schedule, arguments, arithmetic, begin, finished_folder, plain_attention, save_half, train
from scene_pool import GROUP, HELD_OUT_SEED, MEAN, STD, common_pool, scene_group, to_input
from torch import Tensor
from torch.nn import functional as F
from transformers import SamConfig, SamImageProcessor, SamModel, SamProcessor

from regionedit.microworld.renderer import coverage, render
from regionedit.microworld.scene import SIZE, Scene

WIDTH, PATCH = 64, 4
PICTURES, PROMPTS = 16, 3  # pictures in a batch, prompts for each of them
NOWHERE = 0.15  # share of clicks on the background, whose mask is empty
LOOSE = 8.0  # pixels by which a box may miss each side of the object: a cell of the region predictor's grid
HELD_OUT = 200


def configuration() -> SamConfig:
    return SamConfig(
        vision_config={
            "hidden_size": WIDTH,
            "output_channels": WIDTH,
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "image_size": SIZE,
            "patch_size": PATCH,
            "mlp_dim": 2 * WIDTH,
            "num_pos_feats": WIDTH // 2,
            "global_attn_indexes": [1, 3],
            "window_size": 8,
            "initializer_range": 0.02,
        },
        prompt_encoder_config={"hidden_size": WIDTH, "image_size": SIZE, "patch_size": PATCH},
        mask_decoder_config={
            "hidden_size": WIDTH,
            "mlp_dim": 2 * WIDTH,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "iou_head_hidden_dim": WIDTH,
            "attention_downsample_rate": 1,
        },
    )


def build() -> SamModel:
    """An untrained model. The random frequencies of its positions stay as initialised, with deviation 1 as in the
    original. transformers initialises them with half the width as deviation, because it expects trained weights; then
    the encodings of neighbouring positions have nothing in common."""
    model = SamModel(configuration())
    with torch.no_grad():
        model.shared_image_embedding.positional_embedding.normal_().requires_grad_(False)
    return model


class Prompts(NamedTuple):
    """Prompts, and the masks that answer them.

    Args:
        points: float BQP2, x and y in pixels.
        boxes: float BQ4, x0 y0 x1 y1, or None: clicks only.
        masks: float BQHW, 1 = the object; empty for a click on the background.
    """

    points: Tensor
    boxes: Tensor | None
    masks: Tensor


def draw_prompts(scenes: list[Scene], rng: np.random.Generator, boxed: bool) -> Prompts:
    """Random prompts for objects of these scenes: a click on each, or a loose box with a click in it."""
    points = np.zeros((len(scenes), PROMPTS, 1, 2), np.float32)
    boxes = np.zeros((len(scenes), PROMPTS, 4), np.float32)
    masks = np.zeros((len(scenes), PROMPTS, SIZE, SIZE), np.float32)
    for b, scene in enumerate(scenes):
        objects_KHW = coverage(scene) > 0.5
        for q in range(PROMPTS):
            object_HW = objects_KHW[rng.integers(len(objects_KHW))]
            if not boxed and rng.random() < NOWHERE:
                points[b, q, 0] = _pixel(~objects_KHW.any(0), rng)
                continue
            masks[b, q] = object_HW
            points[b, q, 0] = _pixel(object_HW, rng)
            rows, columns = np.flatnonzero(object_HW.any(1)), np.flatnonzero(object_HW.any(0))
            tight = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
            loose = tight + rng.uniform(-LOOSE, LOOSE, 4) * rng.random()
            boxes[b, q] = np.clip(loose, 0, SIZE)
    return Prompts(torch.from_numpy(points), torch.from_numpy(boxes) if boxed else None, torch.from_numpy(masks))


def _pixel(mask_HW: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """The centre of a random pixel of a mask, (x, y)."""
    rows, columns = np.nonzero(mask_HW)
    index = rng.integers(len(rows))
    return columns[index] + 0.5, rows[index] + 0.5


def answer(model: SamModel, pictures_BCHW: Tensor, prompts: Prompts) -> tuple[Tensor, Tensor]:
    """Logits BQMHW of three masks for each prompt, and the predicted IoU of each, BQM."""
    labels_BQP = torch.ones(prompts.points.shape[:3], dtype=torch.long)
    output = model(
        pixel_values=pictures_BCHW,
        input_points=prompts.points,
        input_labels=labels_BQP,
        input_boxes=prompts.boxes,
        multimask_output=True,
    )
    return output.pred_masks.float(), output.iou_scores.float()


def iou(logits_BQMHW: Tensor, masks_BQHW: Tensor) -> Tensor:
    """IoU of each mask, BQM; 1 where both are empty."""
    found, truth = logits_BQMHW > 0, masks_BQHW[:, :, None] > 0.5
    union = (found | truth).sum((-2, -1))
    return torch.where(union > 0, (found & truth).sum((-2, -1)) / union.clamp(min=1), 1.0)


def loss(logits_BQMHW: Tensor, expected_BQM: Tensor, masks_BQHW: Tensor) -> Tensor:
    """Cross-entropy and Dice loss of every mask, and the squared error of every predicted IoU."""
    truth = masks_BQHW[:, :, None].expand_as(logits_BQMHW)
    found = logits_BQMHW.sigmoid()
    dice_BQM = 1 - (2 * (found * truth).sum((-2, -1)) + 1) / (found.sum((-2, -1)) + truth.sum((-2, -1)) + 1)
    error = F.binary_cross_entropy_with_logits(logits_BQMHW, truth)
    return 3 * error + dice_BQM.mean() + F.mse_loss(expected_BQM, iou(logits_BQMHW.detach(), masks_BQHW))


def scores_of(model: SamModel, scenes: list[Scene], pictures_BHWC: np.ndarray) -> dict[str, float]:
    """Mean IoU of the mask with the highest predicted IoU, for a click on an object and for one with a loose box; and
    the share of clicks on the background that find less than 18 pixels, the smallest object."""
    scores = {}
    for name, boxed in (("click_iou", False), ("box_iou", True)):
        ious, nothing = [], []
        rng = np.random.default_rng(0)
        for start in range(0, len(scenes), 50):
            prompts = draw_prompts(scenes[start : start + 50], rng, boxed)
            with torch.inference_mode():
                logits, expected = answer(model, to_input(pictures_BHWC[start : start + 50]), prompts)
            chosen = logits.gather(2, expected.argmax(-1)[:, :, None, None, None].expand(-1, -1, 1, SIZE, SIZE))
            real = prompts.masks.sum((-2, -1)) > 0
            ious.append(iou(chosen, prompts.masks)[:, :, 0][real])
            nothing.append((chosen[:, :, 0] > 0).sum((-2, -1))[~real] < 18)
        scores[name] = torch.cat(ious).mean().item()
        if not boxed:
            scores["nothing_found"] = torch.cat(nothing).float().mean().item()
    return scores


def save(model: SamModel, scores: dict[str, float], out: Path) -> None:
    """Write the folder that SamModel and SamProcessor load, in half precision."""
    with finished_folder(out, scores) as folder:
        save_half(model, folder)
        sides = {"height": SIZE, "width": SIZE}
        processor = SamImageProcessor(
            size={"longest_edge": SIZE}, pad_size=sides, image_mean=[MEAN] * 3, image_std=[STD] * 3
        )
        SamProcessor(processor).save_pretrained(folder)


def main() -> None:
    parser = arguments(__doc__, steps=2900, learning_rate=1e-3)
    parser.add_argument("--groups", type=int, default=16000, help="groups of four scenes in the pool")
    args, state = begin(parser)

    model = build()
    pool = common_pool(args.work, args.groups)
    scenes = [scene_group(HELD_OUT_SEED, index)[0] for index in range(HELD_OUT)]
    pictures = render(scenes)

    def loss_of(step: int, share: float) -> Tensor:
        rng = np.random.default_rng([args.seed, 11, step])
        batch = pool.batch(args.seed, step, PICTURES // GROUP)
        scenes_B = [pool.groups[row // GROUP][row % GROUP] for row in batch.rows]
        kept = [index for index, scene in enumerate(scenes_B) if scene.things]
        prompts = draw_prompts([scenes_B[index] for index in kept], rng, boxed=bool(step % 2))
        with arithmetic(), plain_attention():
            logits, expected = answer(model, to_input(batch.pictures[kept]), prompts)
        return loss(logits, expected, prompts.masks)

    schedule = Schedule(args.steps, args.learning_rate, evaluate_every=60)
    final = train(model, loss_of, schedule, state, args.seed, lambda: scores_of(model, scenes, pictures))
    save(model, final | {"threads": args.threads}, args.out)


if __name__ == "__main__":
    main()
