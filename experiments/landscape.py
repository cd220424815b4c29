"""Do the CLIP losses lead to the true region? Their gradient and value, for proposals made under different masks.

    python experiments/landscape.py --out docs/study/landscape.json

No region is trained here. For held-out pictures with known true regions, proposals are generated under several masks.
A constant soft mask m then blends them, and -dL/dm is compared with the true region: does it point at the named object,
and are its largest cells the true ones? The loss itself is compared between correct and wrong regions.

Shape letters: B pictures, C channels, H W pixels, N patches.
"""

from __future__ import annotations

import torch
from harness import options, show, write_json
from known_edits import BATCH, KnownEdits, chunks, known_edits, proposals
from torch import Tensor

from regionedit import losses, masks
from regionedit.command_line import load_config
from regionedit.config import LossConfig, TrainConfig
from regionedit.encoders import FrozenCLIP, load_encoders
from regionedit.generators import Generator, load_generator
from regionedit.microworld.edits import Edit
from regionedit.microworld.renderer import coverage
from regionedit.region_scores import LOCAL_OPERATIONS, TRUTH_COVERAGE
from regionedit.training.scores import pointing

SOFT = (0.5, 0.2)  # constant masks at which the gradient is taken
CONFIG = ("configs/train_microworld.yaml", "training config with models and loss weights")
SAMPLES = (192, "validation edits of existing objects")


def clip_terms(clip: FrozenCLIP, known: KnownEdits, proposal_BCHW: Tensor, mask_BN: Tensor) -> dict[str, Tensor]:
    """The three CLIP losses of eq. 7-9 for one batch blended with a mask on the grid, each [B]."""
    composed_BCHW = masks.composite(proposal_BCHW, known.source_BCHW, masks.upsample(mask_BN, clip.grid, (64, 64)))
    return clip_terms_of(clip, known, composed_BCHW)


def clip_terms_of(clip: FrozenCLIP, known: KnownEdits, composed_BCHW: Tensor) -> dict[str, Tensor]:
    """The same for pictures that are already blended."""
    source, result = clip.encode_image(known.source_BCHW), clip.encode_image(composed_BCHW)
    source_text_BD, target_text_BD = clip.encode_text(known.source_captions + known.target_captions).chunk(2)
    return {
        "clip_guidance": losses.clip_guidance(result.global_BD, target_text_BD),
        "clip_direction": losses.clip_direction(result.global_BD, source.global_BD, target_text_BD, source_text_BD),
        "clip_structure": losses.clip_structure(source.patches_BND, result.patches_BND),
    }


def weighted(terms: dict[str, Tensor], config: LossConfig) -> Tensor:
    used = losses.weights(config)
    return torch.stack([used[name] * value_B for name, value_B in terms.items()]).sum(0)


def measure(clip: FrozenCLIP, generator: Generator, known: KnownEdits, config: LossConfig) -> dict[str, dict]:
    """All measurements, by proposal mask."""
    truth_BN = masks.downsample(known.truth_B1HW, clip.grid) > TRUTH_COVERAGE
    objects = tuple(named_first(e) for e in known.edits)
    batches = chunks(len(known.edits), BATCH)
    conditions = {
        "random_hard": masks.random_hard(range(len(known.edits)), (64, 64)),
        "everything": torch.ones_like(known.truth_B1HW),
        "true region, 6 px wider": masks.dilate((known.truth_B1HW > 0.1).float(), 6),
    }
    results = {}
    for name, condition_B1HW in conditions.items():
        proposal_BCHW = proposals(generator, known.source_BCHW, condition_B1HW, known.target_captions)

        def terms(mask_BN: Tensor, b: range, proposal_BCHW=proposal_BCHW):
            return clip_terms(clip, known.rows(b), proposal_BCHW[list(b)], mask_BN[list(b)])

        row: dict[str, dict] = {"gradient": {}, "loss": {}}
        for soft in SOFT:
            mask_BN = torch.full(truth_BN.shape, soft, requires_grad=True)
            gradient_BN = -torch.autograd.grad(
                sum(weighted(terms(mask_BN, b), config).sum() for b in batches), mask_BN
            )[0]
            row["gradient"][str(soft)] = {
                "pointing": float(pointing(gradient_BN, objects, clip.grid).nanmean()),
                "iou_of_largest": float(masks.mask_iou(largest(gradient_BN, truth_BN.sum(1)), truth_BN).mean()),
            }
        regions = {
            "empty": torch.zeros_like(truth_BN),
            "truth": truth_BN,
            "everything": torch.ones_like(truth_BN),
            "elsewhere": truth_BN.roll(truth_BN.shape[1] // 2 - clip.grid // 2, 1),
        }
        with torch.no_grad():
            for where, region_BN in regions.items():
                by_batch = [terms(region_BN.float(), b) for b in batches]
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
