"""Frozen networks that compare two pictures: DINO's keys for structure, LPIPS for appearance."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss, normalize

from regionedit.device import autocast_off
from regionedit.evaluation.embedders import IMAGENET_MEAN, IMAGENET_STD

LONGEST = 480 / 224  # largest longer side as a multiple of the shorter one


class Structure:
    """PIE-Bench's structure distance: how much the self-similarity of a ViT's last-layer keys differs.

    The self-similarity of a picture holds the cosines between the keys of all tokens (class token included, heads
    joined). The distance is the mean squared difference of the two matrices (Tumanyan et al. 2022, arXiv 2201.00424).
    Two details follow PIE-Bench's public code (PnPInversion, evaluation/matrics_calculator.py), to reproduce its
    numbers: pixels of 0 to 255 are normalised with ImageNet's statistics of [0, 1] pixels; and the shorter side is
    scaled to 224 (the longer to 480 at most) as a tensor, bilinear without antialiasing, which is the default of the
    torchvision 0.13 that the code names.

    Args:
        model: a transformers ViTModel (PIE-Bench uses facebook/dino-vitb8), on its device.
    """

    def __init__(self, model: nn.Module):
        self.model = model.eval().requires_grad_(False)
        # transformers 4 and 5 have different names for the projection to the keys.
        projections = [m for name, m in model.named_modules() if name.endswith(("k_proj", "attention.key"))]
        if not projections:
            raise ValueError("its layers have no keys; a ViT of transformers is needed")
        self.keys = projections[-1]
        size = model.config.image_size
        self.size = size if isinstance(size, int) else size[0]

    @torch.no_grad()
    def distance(self, a_CHW: Tensor, b_CHW: Tensor) -> float:
        """Distance of two RGB pictures of the same size with values in [0, 1]; 0 for equal pictures."""
        return float(mse_loss(self._self_similarity(a_CHW), self._self_similarity(b_CHW)))

    def _self_similarity(self, pixels_CHW: Tensor) -> Tensor:
        """[T, T] cosines between the keys of the T tokens."""
        from torchvision.transforms import InterpolationMode, functional

        pixels_CHW = functional.resize(
            pixels_CHW.to(self.model.device) * 255,
            self.size,
            InterpolationMode.BILINEAR,
            max_size=round(self.size * LONGEST),
            antialias=False,
        )
        pixels_CHW = functional.normalize(pixels_CHW, IMAGENET_MEAN, IMAGENET_STD)
        outputs = []
        hook = self.keys.register_forward_hook(lambda module, inputs, output: outputs.append(output))
        try:
            with autocast_off(self.model.device):
                self.model(pixel_values=pixels_CHW[None], interpolate_pos_encoding=True)
        finally:
            hook.remove()
        keys_TD = normalize(outputs[0][0].float(), dim=-1)
        return keys_TD @ keys_TD.T


class Lpips:
    """LPIPS of torchmetrics (Zhang et al. 2018, arXiv 1801.03924), as a number or as a map.

    Args:
        net: alex, vgg or squeeze.
        device: to run on.

    Raises:
        ValueError: no such network.
        OSError: the network's weights are not in torch's cache and cannot be downloaded.
    """

    def __init__(self, net: str, device: torch.device):
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        self.device = device
        self.net = LearnedPerceptualImagePatchSimilarity(net_type=net).net.to(device)

    def distance(self, a_CHW: Tensor, b_CHW: Tensor) -> float:
        """LPIPS of two RGB pictures of the same size with values in [0, 1]."""
        return float(self._compare(a_CHW, b_CHW, spatial=False))

    def map(self, a_CHW: Tensor, b_CHW: Tensor) -> Tensor:
        """[H, W]: the contribution of each pixel; the differences of every layer are upsampled bilinearly."""
        return self._compare(a_CHW, b_CHW, spatial=True)[0, 0].cpu()

    @torch.no_grad()
    def _compare(self, a_CHW: Tensor, b_CHW: Tensor, spatial: bool) -> Tensor:
        self.net.spatial = spatial
        with autocast_off(self.device):
            return self.net(a_CHW[None].to(self.device), b_CHW[None].to(self.device), normalize=True)
