"""Equations 4-11 and three regularisers; each term is a function that returns one float32 value per sample.

To add a term: write a function of `StepOutputs` that returns [B], put it into `TERMS`, give it a weight in
`config.LossConfig` and a line in `weights`.

Shape letters: B batch, N patches, D embedding width. Embeddings need not be normalised.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from regionedit.config import LossConfig
from regionedit.device import autocast_off
from regionedit.records import StepOutputs

NO_DIRECTION = 1e-5
"""A difference of two float32 embeddings that is this small relative to them is rounding, not a direction."""

CERTAIN = 4.5
"""With coarser products, a difference up to this multiple of `device.rounding` is rounding, too. With emulated TF32
and bfloat16 on the microworld, every gradient above this limit has a cosine of at least .95 to the float32 one; far
below it, it is up to a hundred times too short, or float32 has none (tests/test_rounding.py)."""

SMALLEST_NORM = 1e-6

SMALLEST_PROBABILITY = 1e-6


def semantic_alignment(projected_BD: Tensor, text_BD: Tensor) -> Tensor:
    """Eq. 4 with f_sem(F_Edited) and T_e, eq. 5 with f_sem(F_img) and T_o: cosine distance, [B] in [0, 2]."""
    return _cosine_distance(projected_BD, text_BD)


def clip_guidance(result_BD: Tensor, target_text_BD: Tensor) -> Tensor:
    """Eq. 7: cosine distance between I_res and T_e, [B] in [0, 2]."""
    return _cosine_distance(result_BD, target_text_BD)


def clip_direction(
    result_BD: Tensor,
    source_BD: Tensor,
    target_text_BD: Tensor,
    source_text_BD: Tensor,
    image_rounding: float = 0.0,
    text_rounding: float = 0.0,
    nothing: float = 0.0,
) -> Tensor:
    """Eq. 8: cosine distance between I_res - I_ori and T_e - T_o, [B] in [0, 2].

    If nothing was edited or both captions are the same, there is no direction to compare: the loss is `nothing`, and
    its gradient, which would be unbounded near a zero direction, is 0. The same holds where the difference is mostly
    rounding.

    Args:
        image_rounding, text_rounding: relative rounding of the products that gave the embeddings, `device.rounding`.
        nothing: 0 for training by the gradient; 1 for comparing regions, so that an empty one is not the best.
    """
    image_BD, still_B = _direction(result_BD, source_BD, image_rounding)
    text_BD, same_B = _direction(target_text_BD, source_text_BD, text_rounding)
    return torch.where(still_B | same_B, nothing, _cosine_distance(image_BD, text_BD))


def clip_structure(source_patches_BND: Tensor, result_patches_BND: Tensor) -> Tensor:
    """Eq. 9 in its mean form: squared Frobenius norm of Sim(F_img) - Sim(F_res), divided by N^2; [B] in [0, 4].

    The paper's sum grows with N^2 and would dominate every other term (256 patches: 65,536 times the mean).
    """
    with autocast_off(source_patches_BND.device):
        return (_similarity(source_patches_BND) - _similarity(result_patches_BND)).square().mean((1, 2))


def area(probability_BN: Tensor) -> Tensor:
    """Mean of P: how much is edited, [B] in [0, 1]."""
    return probability_BN.float().mean(1)


def entropy(probability_BN: Tensor) -> Tensor:
    """Mean of P (1 - P): how undecided P is, [B] in [0, 1/4]; a negative weight keeps P away from saturation."""
    probability_BN = probability_BN.float()
    return (probability_BN * (1 - probability_BN)).mean(1)


def total_variation(probability_BN: Tensor) -> Tensor:
    """Mean absolute difference between neighbouring patches of the square grid, [B] in [0, 1].

    Raises:
        ValueError: N is not a square number.
    """
    batch, patches = probability_BN.shape
    side = math.isqrt(patches)
    if side * side != patches:
        raise ValueError(f"probability_BN: {patches} patches do not form a square grid")
    grid = probability_BN.float().reshape(batch, side, side)
    steps = torch.cat([grid.diff(dim=1).flatten(1), grid.diff(dim=2).flatten(1)], dim=1)
    return steps.abs().sum(1) / max(steps.shape[1], 1)


def searched_region(
    probability_BN: Tensor, regions_BKN: Tensor, log_weights_BK: Tensor, commitment: float = 0.0
) -> Tensor:
    """How unlikely P makes the regions that the search found good, a mean over the N patches, [B] in [0, inf).

    With weights w that add up to 1 and c = commitment:

        L = -1 / (c N) log sum_k w_k p(region_k | P)^c,    p(region | P) = product of P where it is 1, 1 - P elsewhere

    For c = 1 this is the likelihood of a mixture: P may settle for one of several good regions. For c = 0 (the limit)
    it is the cross-entropy with the mean region: P covers them all.

    Args:
        regions_BKN: candidates, 0 or 1.
        log_weights_BK: log w; -inf for padding. A sample whose weights are all 0 has no loss.
    """
    logits_BN = torch.logit(probability_BN.float(), eps=SMALLEST_PROBABILITY)
    # log p of a patch is z m - softplus(z), with the logit z
    with autocast_off(logits_BN.device):
        fits_BK = (regions_BKN @ logits_BN[..., None])[..., 0] - F.softplus(logits_BN).sum(1, keepdim=True)
    patches = probability_BN.shape[1]
    if not commitment:
        return -(log_weights_BK.exp() * fits_BK).sum(1) / patches
    some_B = log_weights_BK.isfinite().any(1)
    log_weights_BK = log_weights_BK.masked_fill(~some_B[:, None], 0)
    return torch.where(some_B, -torch.logsumexp(log_weights_BK + commitment * fits_BK, 1) / (commitment * patches), 0)


TERMS: dict[str, Callable[[StepOutputs], Tensor]] = {
    "semantic_edited": lambda o: semantic_alignment(o.projected_fused_BD, o.target_text_BD),
    "semantic_original": lambda o: semantic_alignment(o.projected_patches_BD, o.source_text_BD),
    "clip_guidance": lambda o: clip_guidance(o.result_BD, o.target_text_BD),
    "clip_direction": lambda o: clip_direction(
        o.result_BD, o.source_BD, o.target_text_BD, o.source_text_BD, o.image_rounding, o.text_rounding
    ),
    "clip_structure": lambda o: clip_structure(o.source_patches_BND, o.result_patches_BND),
    "region": lambda o: searched_region(o.probability_BN, o.regions_BKN, o.log_weights_BK, o.commitment),
    "area": lambda o: area(o.probability_BN),
    "entropy": lambda o: entropy(o.probability_BN),
    "total_variation": lambda o: total_variation(o.probability_BN),
}
OF_THE_RESULT = ("clip_guidance", "clip_direction", "clip_structure")
"""The terms that read `result_BD` and `result_patches_BND`."""


def weights(config: LossConfig) -> dict[str, float]:
    """The weight of every term: alpha for eq. 6, beta for eq. 10 (both of eq. 11), regularisers as configured."""
    return {
        "semantic_edited": config.alpha,
        "semantic_original": config.alpha,
        "clip_guidance": config.beta * config.clip_guidance,
        "clip_direction": config.beta * config.clip_direction,
        "clip_structure": config.beta * config.clip_structure,
        "region": config.region,
        "area": config.area,
        "entropy": config.entropy,
        "total_variation": config.total_variation,
    }


def total(outputs: StepOutputs, config: LossConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """Eq. 11 and the regularisers.

    Returns:
        The loss, a scalar: the batch mean of the weighted sum; and every term with a weight other than 0, unweighted,
            [B].

    Raises:
        ValueError: every weight is 0.
    """
    used = {name: weight for name, weight in weights(config).items() if weight != 0}
    if not used:
        raise ValueError("loss: every weight is 0, nothing would be learnt; set one of alpha, beta, area, ...")
    terms = {name: TERMS[name](outputs) for name in used}
    loss_B = torch.stack([used[name] * value_B for name, value_B in terms.items()]).sum(0)
    return loss_B.mean(), terms


def of_the_result(outputs: StepOutputs, config: LossConfig) -> Tensor:
    """The weighted sum of the terms that depend on the blended picture, [B]: eq. 10, times its weight in eq. 11.

    `total` includes these terms too.
    """
    used = {name: weight for name, weight in weights(config).items() if weight and name in OF_THE_RESULT}
    nothing_B = 0.0 * outputs.result_BD.sum(1)  # has a gradient even if no term is used
    return sum((weight * TERMS[name](outputs) for name, weight in used.items()), nothing_B)


def _cosine_distance(first_BD: Tensor, second_BD: Tensor) -> Tensor:
    return 1 - F.cosine_similarity(first_BD.float(), second_BD.float(), dim=1)


def _direction(end_BD: Tensor, start_BD: Tensor, rounding: float) -> tuple[Tensor, Tensor]:
    """The difference, and where it vanishes, [B] bool; there a constant replaces it, so that no gradient is
    undefined."""
    end_BD, start_BD = end_BD.float(), start_BD.float()
    difference_BD = end_BD - start_BD
    scale_B = torch.maximum(end_BD.detach().norm(dim=1), start_BD.detach().norm(dim=1))
    none_B = difference_BD.detach().norm(dim=1) <= max(NO_DIRECTION, CERTAIN * rounding) * scale_B
    return torch.where(none_B[:, None], 1.0, difference_BD), none_B


def _similarity(patches_BND: Tensor) -> Tensor:
    """Sim(F): cosine between every two patches, [B, N, N]."""
    unit_BND = F.normalize(patches_BND.float(), dim=2, eps=SMALLEST_NORM)
    return unit_BND @ unit_BND.transpose(1, 2)
