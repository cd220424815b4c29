"""Compares gradient paths from the picture back to the mask, before any training: direction and noise.

    python experiments/gradient_paths.py --out docs/study/gradient_paths.json

For held-out pictures with known true regions, a constant soft mask m goes through every path, and -dL/dm of the CLIP
losses is compared with the true region, as in landscape.py: does it point at the named object, and are its largest
cells the true ones? Two seeds of the generator's noise give two gradients; their cosine, after subtracting the mean of
each row, shows how much of the gradient does not depend on the noise. All paths use two steps and latent masking, as
the paper's literal gradient does.

Shape letters: B pictures, C channels, H W pixels, N patches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from harness import options, show, write_json
from known_edits import KnownEdits, known_edits
from landscape import CONFIG, SAMPLES, SOFT, by_mask, directions, mask_gradient
from torch import Tensor

from regionedit import masks
from regionedit.command_line import load_config
from regionedit.config import LossConfig, TrainConfig
from regionedit.encoders import FrozenCLIP, load_encoders
from regionedit.generators import DifferentiableGenerator, load_generator, noise_seed
from regionedit.region_scores import LOCAL_OPERATIONS

SEEDS = (0, 1)

GradientPath = Callable[[KnownEdits, Tensor, list[int]], Tensor]
"""Known edits, mask B1HW with gradient, seeds of the noise -> pictures BCHW."""


def paths(generator: DifferentiableGenerator) -> dict[str, GradientPath]:
    """Compositions by name; the first is that of the shipped recipe, the last follows the paper to the letter."""

    def composite(conditioned: Callable[[Tensor], Tensor], decoded: bool = False) -> GradientPath:
        def run(part: KnownEdits, mask_B1HW: Tensor, seeds: list[int]) -> Tensor:
            source_BCHW, condition_B1HW = part.source_BCHW, conditioned(mask_B1HW.detach())
            proposal_BCHW = generator.propose(source_BCHW, condition_B1HW, part.target_captions, seeds)
            if decoded:
                with torch.no_grad():
                    source_BCHW = generator.decode(generator.source_latents(source_BCHW))
            return masks.composite(proposal_BCHW, source_BCHW, mask_B1HW)

        return run

    def through(gradient: str, conditioned: Callable[[Tensor], Tensor | None]) -> GradientPath:
        def run(part: KnownEdits, mask_B1HW: Tensor, seeds: list[int]) -> Tensor:
            condition = conditioned(mask_B1HW)
            latents, decode = generator.differentiable_latents(
                part.source_BCHW, mask_B1HW, part.target_captions, seeds, gradient, condition
            )
            return decode(latents)

        return run

    def same(mask_B1HW: Tensor) -> Tensor:
        return mask_B1HW

    return {
        "composite, everything": composite(torch.ones_like),
        "composite, everything, decoded source": composite(torch.ones_like, decoded=True),
        "composite, the soft mask": composite(same),
        "latent blend, everything": through("latent", torch.ones_like),
        "latent blend, the soft mask": through("latent", same),
        "last step, the soft mask": through("last_step", lambda _: None),
        "full, the soft mask (the paper)": through("full", lambda _: None),
    }


def measure(
    clip: FrozenCLIP, generator: DifferentiableGenerator, known: KnownEdits, config: LossConfig
) -> dict[str, dict[str, dict[str, float]]]:
    """{path: {m: pointing, IoU of the largest cells, cosine between two seeds, mean absolute gradient}}"""
    results: dict[str, dict] = {}
    for name, path in paths(generator).items():
        results[name] = {}
        for soft in SOFT:
            gradients = []
            for seed in SEEDS:

                def compose(b: range, mask_B1HW: Tensor, path=path, seed=seed) -> Tensor:
                    return path(known.rows(b), mask_B1HW, [noise_seed(seed, i) for i in b])

                gradients.append(mask_gradient(clip, known, config, compose, soft, name))
            centred = [gradient_BN - gradient_BN.mean(1, keepdim=True) for gradient_BN in gradients]
            scores = [directions(known, gradient_BN, clip.grid) for gradient_BN in gradients]
            results[name][str(soft)] = {what: _mean(*(by_seed[what] for by_seed in scores)) for what in scores[0]} | {
                "cosine_of_seeds": _mean(F.cosine_similarity(*centred)),
                "size": _mean(*(gradient_BN.abs().mean(1) for gradient_BN in gradients)),
            }
    return results


def _mean(*values_B: Tensor) -> float:
    return round(float(torch.cat(values_B).nanmean()), 4)


def main() -> None:
    args = options(__doc__, CONFIG, "docs/study/gradient_paths.json", SAMPLES).parse_args()
    config = load_config(TrainConfig, args.config)
    clip, _ = load_encoders(config.encoders)
    generator = load_generator(replace(config.generator, num_inference_steps=2, masked_image="latent"))
    known = known_edits("validation", 11, range(args.samples), LOCAL_OPERATIONS)
    results = measure(clip, generator, known, config.loss)
    write_json(args.out, results)
    show("where -dL/dm points", {name: by_mask(row) for name, row in results.items()})


if __name__ == "__main__":
    main()
