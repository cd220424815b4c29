"""The seam between an edited region and the source around it.

Shape letters: B batch, C channels, H W pixels.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def match_border(edited_BCHW: Tensor, source_BCHW: Tensor, mask_B1HW: Tensor, pixels: float) -> Tensor:
    """An edited picture that leaves the source without a step at the region's border, to hide the seam.

    Just outside the region both pictures show the same thing, so that they differ there by the generator's error alone:
    an autoencoder's colours, what scaling lost. That difference is continued inwards by Laplace's equation and added,
    which keeps the edited picture's gradients (Poisson image editing, Perez et al. 2003), and is gone at a depth of
    `pixels`, where Perez' reaches everywhere. Nothing of the source inside the region is read.

    Args:
        edited_BCHW, source_BCHW: [0, 1]; the edited one not yet composed.
        mask_B1HW: [0, 1]; outside is where it is 0.
        pixels: depth; 0 gives the edited picture back as it is.
    """
    from scipy.ndimage import distance_transform_edt

    if pixels <= 0:
        return edited_BCHW
    matched = []
    for edited_CHW, source_CHW, mask_HW in zip(edited_BCHW, source_BCHW, mask_B1HW[:, 0], strict=True):
        inside_HW = (mask_HW > 0).cpu().numpy()
        if inside_HW.all():
            matched.append(edited_CHW)
            continue
        band_HW = inside_HW & (distance_transform_edt(inside_HW) <= pixels)
        apart_HWC = (source_CHW - edited_CHW).permute(1, 2, 0).cpu().double().numpy() * ~inside_HW[..., None]
        added_HWC = _continued(apart_HWC, band_HW)
        matched.append(edited_CHW + torch.from_numpy(added_HWC).permute(2, 0, 1).to(edited_CHW))
    return torch.stack(matched).clamp(0, 1)


def _continued(values_HWC: np.ndarray, unknown_HW: np.ndarray) -> np.ndarray:
    """Laplace's equation on the unknown pixels, the values around them given; 0 elsewhere, [H, W, C].

    The picture's own border is no boundary: no value flows across it.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.linalg import splu

    count = int(unknown_HW.sum())
    number_HW = np.full(unknown_HW.shape, -1)
    number_HW[unknown_HW] = np.arange(count)
    degree, given = np.zeros(count), np.zeros((count, values_HWC.shape[2]))
    rows, columns = [], []
    for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
        here = [slice(None), slice(None)]
        there = [slice(None), slice(None)]
        here[axis] = slice(None, -1) if step > 0 else slice(1, None)
        there[axis] = slice(1, None) if step > 0 else slice(None, -1)
        number, beside, values = number_HW[*here], number_HW[*there], values_HWC[*there]
        asked = number >= 0
        np.add.at(degree, number[asked], 1)
        known = asked & (beside < 0)
        np.add.at(given, number[known], values[known])
        rows.append(number[asked & (beside >= 0)])
        columns.append(beside[asked & (beside >= 0)])
    row = np.concatenate([*rows, np.arange(count)])
    column = np.concatenate([*columns, np.arange(count)])
    entries = np.concatenate([np.full(len(row) - count, -1.0), degree])
    continued_HWC = np.zeros_like(values_HWC)
    continued_HWC[unknown_HW] = splu(coo_array((entries, (row, column)), (count, count)).tocsc()).solve(given)
    return continued_HWC
