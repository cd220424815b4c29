"""Hide the seam between an edited region and the source around it.

Shape letters: B batch, C channels, H W pixels.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def match_border(edited_BCHW: Tensor, source_BCHW: Tensor, mask_B1HW: Tensor, pixels: float) -> Tensor:
    """Adjust an edited picture so that it meets the source without a step at the region's border.

    Just outside the region both pictures show the same content and differ only by the generator's error: the
    autoencoder's colour shift, detail lost in scaling. This difference is continued into the region by Laplace's
    equation and added, which keeps the edited picture's gradients (Poisson image editing, Perez et al. 2003). It
    vanishes at a depth of `pixels`; in Perez et al. it reaches everywhere. The source inside the region is not read.

    Args:
        edited_BCHW, source_BCHW: [0, 1]; the edited one is not blended yet.
        mask_B1HW: [0, 1]; outside is where it is 0.
        pixels: depth; 0 returns the edited picture unchanged.
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
        difference_HWC = (source_CHW - edited_CHW).permute(1, 2, 0).cpu().double().numpy() * ~inside_HW[..., None]
        correction_HWC = _solve_laplace(difference_HWC, band_HW)
        matched.append(edited_CHW + torch.from_numpy(correction_HWC).permute(2, 0, 1).to(edited_CHW))
    return torch.stack(matched).clamp(0, 1)


def _solve_laplace(values_HWC: np.ndarray, unknown_HW: np.ndarray) -> np.ndarray:
    """Solve Laplace's equation on the unknown pixels, given the values around them; 0 elsewhere, [H, W, C].

    The picture's border gives no boundary value: nothing flows across it.
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
        unknown = number >= 0
        np.add.at(degree, number[unknown], 1)
        known = unknown & (beside < 0)
        np.add.at(given, number[known], values[known])
        rows.append(number[unknown & (beside >= 0)])
        columns.append(beside[unknown & (beside >= 0)])
    row = np.concatenate([*rows, np.arange(count)])
    column = np.concatenate([*columns, np.arange(count)])
    entries = np.concatenate([np.full(len(row) - count, -1.0), degree])
    solution_HWC = np.zeros_like(values_HWC)
    solution_HWC[unknown_HW] = splu(coo_array((entries, (row, column)), (count, count)).tocsc()).solve(given)
    return solution_HWC
