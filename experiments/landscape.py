"""Do the CLIP losses lead to the true region? Their gradient and value, for proposals made under different masks.

    python experiments/landscape.py --out docs/study/landscape.json

No region is trained here. For held-out pictures with known true regions, proposals are generated under several masks.
A constant soft mask m then blends them, and -dL/dm is compared with the true region: does it point at the named object,
and are its largest cells the true ones? The loss itself is compared between correct and wrong regions.

Shape letters: B pictures, C channels, H W pixels, N patches.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from harness import options, show, write_json
from known_edits import BATCH, KnownEdits, chunks, known_edits, proposals
from rich.progress import track
from torch import Tensor

from regionedit import losses, masks
from regionedit.command_line import load_config
from regionedit.config import LossConfig, TrainConfig
from regionedit.encoders import FrozenCLIP, load_encoders
from regionedit.generators import Generator, load_generator
from regionedit.microworld.edits import Edit
from regionedit.microworld.renderer import coverage
from regionedit.microworld.scene import SIZE
from regionedit.region_scores import LOCAL_OPERATIONS
from regionedit.training.scores import pointing

SOFT = (0.5, 0.2)  # constant masks at which the gradient is taken
CONFIG = ("configs/train_microworld.yaml", "training config with models and loss weights")
SAMPLES = (192, "validation edits of existing objects")


Compose = Callable[[range, Tensor], Tensor]
"""Rows of the known edits, and their mask B1HW with gradient -> blended pictures BCHW."""


def clip_terms(clip: FrozenCLIP, known: KnownEdits, composed_BCHW: Tensor) -> dict[str, Tensor]:
    """The three CLIP losses of eq. 7-9 for blended pictures, each [B]."""
    source, result = clip.encode_image(known.source_BCHW), clip.encode_image(composed_BCHW)
    source_text_BD, target_text_BD = clip.encode_text(known.source_captions + known.target_captions).chunk(2)
    return {
        "clip_guidance": losses.clip_guidance(result.global_BD, target_text_BD),
        "clip_direction": losses.clip_direction(result.global_BD, source.global_BD, target_text_BD, source_text_BD),
        "clip_structure": losses.clip_structure(source.patches_BND, result.patches_BND),
    }


def mask_gradient(
    clip: FrozenCLIP, known: KnownEdits, config: LossConfig, compose: Compose, soft: float, what: str
) -> Tensor:
    """-dL/dm at the constant mask m = soft, [B, N]."""
    weights, gradients = losses.weights(config), []
    for b in track(chunks(len(known.edits), BATCH), description=f"{what}, m = {soft}"):
        mask_BN = torch.full((len(b), clip.grid**2), soft, requires_grad=True)
        composed_BCHW = compose(b, masks.upsample(mask_BN, clip.grid, (SIZE, SIZE)))
        terms = clip_terms(clip, known.rows(b), composed_BCHW)
        loss = torch.stack([weights[name] * value_B for name, value_B in terms.items()]).sum(0).sum()
        gradients.append(-torch.autograd.grad(loss, mask_BN)[0])
    return torch.cat(gradients)


def directions(known: KnownEdits, gradient_BN: Tensor, grid: int) -> dict[str, Tensor]:
    """Does a gradient point at the named object, and are its largest cells the true ones? Each [B]."""
    truth_BN = known.true_cells(grid)
    return {
        "pointing": pointing(gradient_BN, tuple(named_first(edit) for edit in known.edits), grid),
        "iou_of_largest": masks.mask_iou(largest(gradient_BN, truth_BN.sum(1)), truth_BN),
    }


def measure(clip: FrozenCLIP, generator: Generator, known: KnownEdits, config: LossConfig) -> dict[str, dict]:
    """All measurements, by proposal mask."""
    truth_BN, size = known.true_cells(clip.grid), (SIZE, SIZE)
    batches = chunks(len(known.edits), BATCH)
    conditions = {
        "random_hard": masks.random_hard(range(len(known.edits)), size),
        "everything": torch.ones_like(known.truth_B1HW),
        "true region, 6 px wider": masks.dilate((known.truth_B1HW > 0.1).float(), 6),
    }
    results = {}
    for name, condition_B1HW in conditions.items():
        proposal_BCHW = proposals(generator, known.source_BCHW, condition_B1HW, known.target_captions)

        def compose(b: range, mask_B1HW: Tensor, proposal_BCHW=proposal_BCHW) -> Tensor:
            rows = slice(b.start, b.stop)
            return masks.composite(proposal_BCHW[rows], known.source_BCHW[rows], mask_B1HW)

        row: dict[str, dict] = {"gradient": {}, "loss": {}}
        for soft in SOFT:
            scores = directions(known, mask_gradient(clip, known, config, compose, soft, name), clip.grid)
            row["gradient"][str(soft)] = {what: float(score_B.nanmean()) for what, score_B in scores.items()}
        regions = {
            "empty": torch.zeros_like(truth_BN),
            "truth": truth_BN,
            "everything": torch.ones_like(truth_BN),
            "elsewhere": truth_BN.roll(truth_BN.shape[1] // 2 - clip.grid // 2, 1),
        }
        with torch.no_grad():
            for where, region_BN in regions.items():
                mask_B1HW = masks.upsample(region_BN.float(), clip.grid, size)
                by_batch = [clip_terms(clip, known.rows(b), compose(b, mask_B1HW[list(b)])) for b in batches]
                row["loss"][where] = {k: float(torch.cat([t[k] for t in by_batch]).mean()) for k in by_batch[0]}
                row["loss"][where]["area"] = float(region_BN.float().mean())
        results[name] = row
    return results


def largest(values_BN: Tensor, counts_B: Tensor) -> Tensor:
    """The `counts_B` largest cells of every row, bool [B, N]."""
    rank_BN = values_BN.argsort(1, descending=True).argsort(1)
    return rank_BN < counts_B[:, None]


def named_first(edit: Edit) -> Tensor:
    """The pixels of each object, bool [K, H, W], the named one first."""
    covered = coverage(edit.source) > 0.5
    order = [edit.named, *(k for k in range(len(covered)) if k != edit.named)]
    return torch.from_numpy(covered[order])


def by_mask(scores: dict[str, dict[str, float]]) -> dict[str, float]:
    """{m: {score: value}} as one row of a table."""
    return {f"m = {m}: {name.replace('_', ' ')}": value for m, row in scores.items() for name, value in row.items()}


def main() -> None:
    args = options(__doc__, CONFIG, "docs/study/landscape.json", SAMPLES).parse_args()
    config = load_config(TrainConfig, args.config)
    clip, _ = load_encoders(config.encoders)
    known = known_edits("validation", 11, range(args.samples), LOCAL_OPERATIONS)
    results = measure(clip, load_generator(config.generator), known, config.loss)
    write_json(args.out, results)
    show("where -dL/dm points", {name: by_mask(row["gradient"]) for name, row in results.items()})
    show(
        "loss terms",
        {f"{name}; {where}": terms for name, row in results.items() for where, terms in row["loss"].items()},
    )


if __name__ == "__main__":
    main()
