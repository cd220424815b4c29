"""Measures Focus on Your Instruction (FoI) against known true regions: its attention masks, and each of its parts.

    python experiments/foi_study.py --out docs/study/foi.json

The microworld's InstructPix2Pix edits held-out pictures without FoI and with its parts, with the mask from its own
attention, the learned region or the true one. Scores are those of the raw pictures, before compositing: success rate
(`pixel_check`) and change outside the true region. Attention masks are scored by their IoU with the true region at
several thresholds, and by pointing.

Shape letters: B pictures, C channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from harness import options, rounded, show, write_json
from known_edits import BATCH, KnownEdits, by_operation, change_where, chunks, known_edits, successes
from pretrain_autoencoder import round_trip
from rich.progress import track
from torch import Tensor

from regionedit import masks
from regionedit.command_line import load_config
from regionedit.config import EditConfig
from regionedit.editor import Editor
from regionedit.generators import InstructPix2Pix, noise_seed
from regionedit.images import to_pictures
from regionedit.records import EditRequest, Instruction, Region
from regionedit.region_scores import LOCAL_OPERATIONS

CONFIG = ("configs/edit_foi_microworld.yaml", "edit config with the InstructPix2Pix")
THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)
PLAIN = {"modulation": False, "disentangle": False, "strength": 1.0}
FOI = {"modulation": True, "disentangle": True, "disentangle_until": 0.75, "strength": 0.8}
TO_THE_END = "FoI from pure noise, disentangled to the end"
UNDER_EVERY_MASK = ("FoI", TO_THE_END, "latents blended")  # other variants use only the true region
LASTING = FOI | {"strength": 1.0, "disentangle_until": 1.0}
# The variants of Figure 6 of the paper, and more.
VARIANTS: dict[str, dict] = {
    "plain": PLAIN,
    "plain from 80 % noise": PLAIN | {"strength": 0.8},
    "FoI": FOI,
    "FoI without modulation": FOI | {"modulation": False},
    "FoI without disentangling": FOI | {"disentangle": False},
    "FoI disentangled to the end": FOI | {"disentangle_until": 1.0},
    "FoI from pure noise": FOI | {"strength": 1.0},
    TO_THE_END: LASTING,
    "FoI from pure noise without modulation": FOI | {"strength": 1.0, "modulation": False},
    f"{TO_THE_END}, without modulation": LASTING | {"modulation": False},
    "latents blended": PLAIN | {"latent_blend": True},
    "plain, guidance 4": PLAIN | {"guidance_scale": 4.0},
    f"{TO_THE_END}, guidance 4": LASTING | {"guidance_scale": 4.0},
    "plain, guidance 7.5": PLAIN | {"guidance_scale": 7.5},
    f"{TO_THE_END}, guidance 7.5": LASTING | {"guidance_scale": 7.5},
}


def requests_for(pictures_BCHW: Tensor, instructions: Sequence[str | tuple[Instruction, ...]]) -> list[EditRequest]:
    """Requests for these pictures; the place in the list decides the noise."""
    pairs = zip(to_pictures(pictures_BCHW), instructions, strict=True)
    return [EditRequest(image, words, id=str(b)) for b, (image, words) in enumerate(pairs)]


def find(editor: Editor, name: str, known: KnownEdits) -> tuple[Tensor, Tensor]:
    """Masks and probabilities B1HW of a mask source that needs no captions."""
    source = editor.models.mask_source(name, editor.config)
    requests = requests_for(known.source_BCHW, known.instructions)
    regions = []
    for b in track(chunks(len(requests), BATCH), description=name):
        rows = slice(b.start, b.stop)
        regions.append(source.find(known.source_BCHW[rows], requests[rows], [None] * len(b)))
    return torch.cat([region.mask_B1HW for region in regions]), torch.cat([r.probability_B1HW for r in regions])


def repaint(
    generator: InstructPix2Pix,
    pictures_BCHW: Tensor,
    instructions: Sequence[str | tuple[Instruction, ...]],
    masks_BKHW: Tensor,
    what: str,
) -> Tensor:
    """Raw generated pictures, BCHW in [0, 1].

    Args:
        masks_BKHW: the mask of each of a picture's K instructions.
        what: title of the progress bar.
    """
    requests, generated = requests_for(pictures_BCHW, instructions), []
    for b in track(chunks(len(requests), BATCH), description=what):
        rows = slice(b.start, b.stop)
        mask_B1HW = masks_BKHW[rows].amax(1, keepdim=True)
        region = Region(mask_B1HW, mask_B1HW, per_instruction_BKHW=masks_BKHW[rows])
        seeds = [noise_seed(request.seed, request.id) for request in requests[rows]]
        generated.append(generator.repaint(pictures_BCHW[rows], region, requests[rows], [None] * len(b), seeds))
    return torch.cat(generated)


def scores(edited_BCHW: Tensor, known: KnownEdits, decoded_BCHW: Tensor) -> dict[str, float]:
    """Success rate, overall and by operation, and the mean absolute change outside the true region: from the source,
    and from the source after the autoencoder's round trip, which isolates the change that the model made."""
    success_B = successes(edited_BCHW, known)
    kept_B1HW = (known.truth_B1HW == 0).float()
    outside = change_where(kept_B1HW, edited_BCHW, known)
    own = change_where(kept_B1HW, edited_BCHW, replace(known, source_BCHW=decoded_BCHW))
    by = {f"success/{operation}": share for operation, share in by_operation(success_B, known).items()}
    means = {"success": float(success_B.mean()), "change_outside_truth": outside, "own_change_outside_truth": own}
    return means | by


def attention_scores(probability_B1HW: Tensor, truth_B1HW: Tensor) -> dict[str, float]:
    """IoU with the true region in pixels, by threshold, and how often the most probable pixel is inside it."""
    true_B1HW = (truth_B1HW > 0.5).float()
    highest_B = probability_B1HW.flatten(1).argmax(1)
    hit_B = true_B1HW.flatten(1).gather(1, highest_B[:, None])
    return {
        f"iou at {t}": float(masks.mask_iou((probability_B1HW > t).float(), true_B1HW).mean()) for t in THRESHOLDS
    } | {"highest place inside": float(hit_B.mean())}


def study(config: EditConfig, known: KnownEdits) -> dict[str, dict[str, dict[str, float]]]:
    """Scores of the attention maps by number of steps, and of the edits by mask and variant.

    Returns:
        {"attention": {steps: scores}, "edits": {variant and mask: scores}}
    """
    editor = Editor.from_config(config)
    pipeline = editor.models.generator(editor.config).pipeline

    def generator(changes: dict) -> InstructPix2Pix:
        return InstructPix2Pix(pipeline, replace(config.generator, **changes))

    own_B1HW, probability_B1HW = find(editor, "ip2p_attention", known)
    masks_by_name = {
        "attention": own_B1HW,
        "learned": find(editor, "learned", known)[0],
        "truth": (known.truth_B1HW > 0).float(),
    }
    attention = {"first step": attention_scores(probability_B1HW, known.truth_B1HW)}
    for steps in (2, 4):
        longer = replace(config, generator=replace(config.generator, mask_steps=steps))
        map_B1HW = find(Editor.from_config(longer), "ip2p_attention", known)[1]
        attention[f"first {steps} steps"] = attention_scores(map_B1HW, known.truth_B1HW)
    # the autoencoder's error, a lower limit of the change by any edit in latents
    decoded_BCHW = round_trip(pipeline.vae, known.source_BCHW * 2 - 1) / 2 + 0.5
    edits = {"the source, encoded and decoded": scores(decoded_BCHW, known, decoded_BCHW)}
    for name, changes in VARIANTS.items():
        for mask in masks_by_name if name in UNDER_EVERY_MASK else ("truth",):
            title = name if name.startswith("plain") else f"{name}, {mask}"
            edited_BCHW = repaint(generator(changes), known.source_BCHW, known.instructions, masks_by_name[mask], title)
            edits[title] = scores(edited_BCHW, known, decoded_BCHW)
    return {"attention": attention, "edits": edits}


def main() -> None:
    samples = (192, "validation edits of existing objects")
    args = options(__doc__, CONFIG, "docs/study/foi.json", samples).parse_args()
    config = load_config(EditConfig, args.config, ["--region.checkpoint", "checkpoints/microworld/region_predictor"])
    results = rounded(study(config, known_edits("validation", 13, range(args.samples), LOCAL_OPERATIONS)))
    write_json(args.out, results)
    for title, rows in results.items():
        show(title, rows)


if __name__ == "__main__":
    main()
