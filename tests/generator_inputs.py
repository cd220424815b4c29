"""Small pictures and regions for generators, and what tests do with the raw output."""

import torch

from regionedit.masks import composite


def pictures(count=2, height=32, width=32):
    """Noise of 256 grey values in each channel, the same for every call."""
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0)).mul(255).round() / 255


def box(count=2, height=32, width=32, rows=None, columns=None):
    """A hard mask: of the given rows and columns (start, stop), or of the second quarter of both."""
    mask = torch.zeros(count, 1, height, width)
    top, bottom = rows or (height // 4, height // 2)
    left, right = columns or (width // 4, width // 2)
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


def edited(generator, images_BCHW, region, requests, captions, seeds):
    """Pictures that were repainted inside the region and composited with their sources."""
    return composite(generator.repaint(images_BCHW, region, requests, captions, seeds), images_BCHW, region.mask_B1HW)


def decoded(generator, *arguments):
    """The pictures of `differentiable_latents`."""
    latents_BCyx, decode = generator.differentiable_latents(*arguments)
    return decode(latents_BCyx)
