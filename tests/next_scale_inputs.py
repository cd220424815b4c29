"""Small pictures and regions for next-scale models, and what they accumulate."""

from __future__ import annotations

import torch

SIDE = 32


def pictures(count=2, seed=0):
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def box(top, bottom, left, right, count=2):
    mask = torch.zeros(count, 1, SIDE, SIDE)
    mask[..., top:bottom, left:right] = 1
    return mask


def tokens_of(generator, images, mask, texts=("a red circle", "a blue square"), seeds=(1, 2)):
    """What was accumulated at every scale."""
    token_maps, accumulate = [], generator.model.accumulate

    def recording(scale, accumulated, tokens):
        token_maps.append(tokens)
        return accumulate(scale, accumulated, tokens)

    generator.model.accumulate = recording
    generator.propose(images, mask, list(texts), list(seeds))
    generator.model.accumulate = accumulate
    return token_maps
