"""Searches for the region of an edit without any gradient: many candidates, a proposal under each, CLIP compares.

A single proposal for the whole picture changes the layout of everything, but the gradient through it treats each patch
as if all others stayed as they are. Here each candidate region, from nothing to everything, gets a proposal of its own,
which repaints just that region; CLIP then sees the whole result. No mask or box of an object is known: candidates are
clusters of CLIP's patches, and boxes.

Shape letters: B batch, K candidates, N patches of the grid, D embedding width, C channels, H W pixels.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from scipy.cluster.vq import kmeans2
from torch import Tensor

from regionedit import losses, masks
from regionedit.generators import noise_seed

if TYPE_CHECKING:
    from regionedit.config import SearchConfig
    from regionedit.encoders import FrozenCLIP
    from regionedit.generators import Generator

COSTS = ("preference", "direction", "structure")
"""What `search` measures of each candidate's result: -log of the probability that CLIP gives to the target caption
against the source caption, in [0, inf); eq. 8, and 1 where nothing changes or both captions are the same, in [0, 2];
eq. 9 in its mean form, in [0, 4]."""

LARGEST_PARTS = 2  # connected parts of a cluster that are candidates beside the cluster
COLOUR = 3.0  # weight of a patch's mean colour beside its unit CLIP feature, in clustering
SMALL = 0.3  # candidates of at most this share of the picture are dilated by a patch, so that an object's rim is inside
SAME = 0.8  # a candidate with at least this IoU with a larger one, except the whole picture, is left out
CHANGED = (0.06, 0.15)  # each adds a version of a candidate: its patches where proposal and source differ by more


class Candidates(NamedTuple):
    """Candidate regions of one picture, [K, N] of 0 and 1, and their COSTS, [K, 3]; the first is empty."""

    regions_KN: Tensor
    costs_K3: Tensor


@torch.no_grad()
def search(
    images_BCHW: Tensor,
    captions: Sequence[tuple[str, str]],
    instructions: Sequence[str],
    keys: Sequence[str],
    clip: FrozenCLIP,
    generator: Generator,
    config: SearchConfig,
) -> Iterator[Candidates]:
    """The candidates of each picture and their costs, on the CPU.

    Args:
        images_BCHW: [0, 1].
        captions: source and target caption of each picture.
        keys: of the samples; noise and boxes depend on them and on nothing else.
    """
    source_BCHW = clip.stretch(images_BCHW).to(clip.device)
    features = clip.encode_image(source_BCHW)
    texts_B2D = clip.encode_text([caption for pair in captions for caption in pair]).unflatten(0, (-1, 2))
    by_instruction = generator.needs == "instruction"
    for row, key in enumerate(keys):
        painted_KN = candidate_regions(features.patches_BND[row].cpu(), source_BCHW[row].cpu(), key, config)
        text = instructions[row] if by_instruction else captions[row][1]
        proposals = []
        for part_KN in painted_KN.split(config.batch):
            images_KCHW = images_BCHW[row].expand(len(part_KN), -1, -1, -1)
            mask_K1HW = masks.upsample(part_KN, clip.grid, tuple(images_BCHW.shape[-2:]))
            seeds = [noise_seed(0, key, "search", number) for number in range(len(part_KN))]
            proposals.append(clip.stretch(generator.propose(images_KCHW, mask_K1HW, [text] * len(part_KN), seeds)))
        proposals_KCHW = torch.cat(proposals).to(clip.device)
        change_KN = _by_patch((proposals_KCHW - source_BCHW[row]).abs().mean(1, keepdim=True), clip.grid)[..., 0].cpu()
        regions = [torch.zeros(1, clip.grid**2), painted_KN]
        regions += [((change_KN > least) & (painted_KN > 0)).float() for least in CHANGED]
        of_painted = torch.arange(len(painted_KN)).repeat(len(regions) - 1)
        proposal_of = torch.cat([of_painted[:1], of_painted])
        yield _with_costs(
            torch.cat(regions), proposal_of, proposals_KCHW, source_BCHW[row], texts_B2D[row], clip, config.batch
        )


def candidate_regions(patches_ND: Tensor, image_CHW: Tensor, key: str, config: SearchConfig) -> Tensor:
    """The regions that are repainted for one picture: everything, clusters and their parts, boxes; [K, N] of 0 and 1.

    Args:
        patches_ND: projected CLIP patches.
        image_CHW: [0, 1], at CLIP's size.
        key: decides the boxes.
    """
    side = int(len(patches_ND) ** 0.5)
    colour_N3 = _by_patch(image_CHW[None], side)[0]
    points_N = torch.cat([F.normalize(patches_ND.float(), dim=1), COLOUR * colour_N3], 1).double().numpy()
    found = [np.ones((side, side), bool)]
    for count in config.clusters:
        with warnings.catch_warnings(action="ignore"):  # an empty cluster is no candidate, and nothing to report
            cluster = kmeans2(points_N, count, iter=12, minit="++", seed=0)[1].reshape(side, side)
        for number in range(count):
            of_cluster = cluster == number
            parts, amount = ndimage.label(of_cluster)
            found.append(of_cluster)
            if count > 2 and amount > 1:
                found += sorted((parts == part for part in range(1, amount + 1)), key=lambda part: -part.sum())[
                    :LARGEST_PARTS
                ]
    rng = np.random.default_rng(noise_seed(0, key, "boxes"))
    for _ in range(config.boxes):
        height, width = rng.integers(side // 4, side // 2 + 1, 2)
        top, left = rng.integers(0, side - height + 1), rng.integers(0, side - width + 1)
        box = np.zeros((side, side), bool)
        box[top : top + height, left : left + width] = True
        found.append(box)
    grown = [ndimage.binary_dilation(each) if each.mean() <= SMALL else each for each in found if each.any()]
    everything, *others = sorted(grown, key=np.sum, reverse=True)
    different = [everything]
    for each in others:
        if not each.all() and all((each & kept).sum() < SAME * (each | kept).sum() for kept in different[1:]):
            different.append(each)
    return torch.from_numpy(np.stack(different).reshape(len(different), -1)).float()


def most_candidates(config: SearchConfig) -> int:
    """The largest number of candidates that `search` gives for a picture."""
    parts = sum(count for count in config.clusters if count > 2) * LARGEST_PARTS
    return 1 + (1 + len(CHANGED)) * (1 + sum(config.clusters) + parts + config.boxes)


def rewards(costs_BK3: Tensor, regions_BKN: Tensor, config: SearchConfig) -> Tensor:
    """How good each candidate is, [B, K]: the weighted costs and a scale-free prior on size, with a minus sign.

    reward = -(preference, direction, structure) . weights - size * log(area + 0.02). A region twice as large costs the
    same at every size, so that no object is too small and no background too large. Padding, whose costs are NaN, gets
    -inf.
    """
    weights_3 = torch.tensor([config.preference, config.direction, config.structure]).to(costs_BK3)
    rewards_BK = -(costs_BK3 @ weights_3) - config.size * torch.log(regions_BKN.mean(2) + 0.02)
    return rewards_BK.masked_fill(rewards_BK.isnan(), -torch.inf)


def weighted(searched_BKn: Tensor, config: SearchConfig) -> tuple[Tensor, Tensor]:
    """The candidates of stored searches, [B, K, N] of 0 and 1, and the logs of their weights, [B, K].

    The weights are the soft-max of the rewards, with `search.temperature`. Padding has the weight 0; so have all
    candidates of a sample without a search.

    Args:
        searched_BKn: regions and their COSTS side by side, n = N + 3; the costs of padding are NaN.
    """
    regions_BKN, costs_BK3 = searched_BKn.tensor_split([-len(COSTS)], dim=2)
    log_weights_BK = F.log_softmax(rewards(costs_BK3, regions_BKN, config) / config.temperature, dim=1)
    return regions_BKN.nan_to_num(0), log_weights_BK.masked_fill(log_weights_BK.isnan(), -torch.inf)


def _with_costs(
    regions_KN: Tensor,
    proposal_of: Tensor,
    proposals_KCHW: Tensor,
    source_CHW: Tensor,
    texts_2D: Tensor,
    clip: FrozenCLIP,
    batch: int,
) -> Candidates:
    """Blend each region's own proposal into the source there, and measure the COSTS of the result."""
    source = clip.encode_image(source_CHW[None])
    scale = clip.model.logit_scale.exp().float()
    source_text_1D, target_text_1D = texts_2D[:1], texts_2D[1:]
    roundings = clip.image_rounding, clip.text_rounding
    costs = []
    for part in torch.arange(len(regions_KN)).split(batch):
        mask_K1HW = masks.upsample(regions_KN[part], clip.grid, tuple(source_CHW.shape[-2:])).to(source_CHW)
        sources_KCHW = source_CHW.expand(len(part), -1, -1, -1)
        result = clip.encode_image(masks.composite(proposals_KCHW[proposal_of[part]], sources_KCHW, mask_K1HW))
        towards_K = F.cosine_similarity(result.global_BD, target_text_1D) - F.cosine_similarity(
            result.global_BD, source_text_1D
        )
        direction_K = losses.clip_direction(
            result.global_BD, source.global_BD, target_text_1D, source_text_1D, *roundings, nothing=1.0
        )
        structure_K = losses.clip_structure(source.patches_BND, result.patches_BND)
        costs.append(torch.stack([-F.logsigmoid(scale * towards_K), direction_K, structure_K], 1))
    return Candidates(regions_KN, torch.cat(costs).float().cpu())


def _by_patch(image_BCHW: Tensor, side: int) -> Tensor:
    """Mean over each patch, [B, N, C]."""
    return F.adaptive_avg_pool2d(image_BCHW.float(), side).flatten(2).transpose(1, 2)
