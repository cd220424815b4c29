"""What the values of a mask file mean: which pixels its maker wants edited; a picture that is no mask is refused.

Shape letters: H W pixels, N a selection of pixels. Meanings are uint8 HW, 255 = edit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NEAR = 40
"""Colours whose channels differ by at most this belong together; lossy files scatter a flat colour less than this."""
SAME = 4
"""The same for lossless files, in which a stroke has one colour, up to rounding, and a picture many shades."""
MOST_IDS = 64
"""A map of numbers has at most this many different ones."""
SPOT = 16
"""Pixels of one colour that are an object of its own; edges of a stroke have fewer of each colour between."""
BUSY = 4.0
"""Mean difference of a grey pixel from its four neighbours above which the greys are a picture and no soft edge."""
GREY_OUT = "a mask has black and white areas; if these greys are meant, give mask_soft true"


@dataclass(frozen=True)
class Meaning:
    """Where to edit, and the words that say how the file was understood.

    Args:
        edit_HW: uint8, 255 = edit.
        words: for example "the transparent hole is edited".
    """

    edit_HW: np.ndarray
    words: str


def by_transparency(rgba_HW4: np.ndarray, picture_HW3: np.ndarray | None, lossy: bool) -> Meaning:
    """The meaning of a file with transparent parts: a picture with a hole, or strokes on a transparent layer.

    Args:
        picture_HW3: the picture that the mask belongs to, of the same size, or None if it is not known.

    Raises ValueError: both are possible.
    """
    alpha_HW = rgba_HW4[..., 3]
    strongest = int(alpha_HW.max())
    if strongest == 0:
        return Meaning(alpha_HW, "a layer without a stroke")
    opaque_HW = alpha_HW > strongest // 2
    few = sampled(alpha_HW)
    colours = main_colours(rgba_HW4[few][opaque_HW[few]][:, :3], NEAR if lossy else SAME)
    flat = len(colours) <= 8 and sum(share for _, share in colours) > 0.97
    rim = np.concatenate([opaque_HW[0], opaque_HW[-1], opaque_HW[:, 0], opaque_HW[:, -1]]).mean()
    copy = picture_HW3 is not None and _is_copy(rgba_HW4[few][..., :3], picture_HW3[few], opaque_HW[few])
    hole = Meaning(255 - alpha_HW, "the transparent hole is edited")
    if rim >= 0.5 and (copy or not flat):
        return hole
    if flat and rim < 0.9 and not (copy and len(colours) > 1):
        darkest = min(colour.max() for colour, _ in colours)
        whitest = max(colour.min() for colour, _ in colours)
        if len(colours) == 2 and darkest < NEAR and whitest > 255 - NEAR:
            white_HW = rgba_HW4[..., :3].min(-1) * (alpha_HW / 255)
            return Meaning(white_HW.round().astype(np.uint8), "white is edited, black and transparent parts are not")
        if strongest < 250:  # a translucent brush: where strokes overlap, alpha is higher, but all of them mean "here"
            return Meaning(_hard(alpha_HW > strongest // 4), "the strokes are edited")
        return Meaning(alpha_HW, "the strokes are edited")
    raise ValueError(
        "the opaque or the transparent part could be meant; give mask_is alpha to edit what is opaque, "
        "or inverted to edit what is transparent"
    )


def by_brightness(grey_HW: np.ndarray, rgb_HW3: np.ndarray | None, lossy: bool, soft: bool | None) -> Meaning:
    """The meaning of an opaque file: white on black, or one colour on black.

    Args:
        grey_HW: its brightness.
        rgb_HW3: its colours; None: it has none.

    Raises ValueError: a photograph or drawing, a map of colours or of numbers, or values too dark to mean anything.
    """
    if rgb_HW3 is not None:
        few_HW3 = rgb_HW3[sampled(grey_HW)].astype(int)
        coloured_HW = few_HW3.max(-1) - few_HW3.min(-1) > (NEAR if lossy else 16)
        if coloured_HW.mean() > 0.005 or coloured_HW.sum() > (few_HW3.max(-1) > NEAR).sum() / 2:
            return _one_colour(rgb_HW3, lossy, soft)
    if soft:
        return Meaning(grey_HW, "grey values are edited in part")
    distinct = np.flatnonzero(np.bincount(grey_HW.ravel(), minlength=256))
    brightest = int(distinct[-1])
    if brightest == 0:
        return Meaning(grey_HW, "black: nothing is edited")
    if brightest < 128:
        raise ValueError(
            f"the mask's brightest value is {brightest} of 255; save it with 255 = edit{_or_a_value(distinct, lossy)}"
        )
    if len(distinct) <= 2:
        return Meaning(_hard(grey_HW >= 128), "white is edited" if brightest == 255 else "the brighter value is edited")
    middle_HW = (grey_HW >= 32) & (grey_HW <= 223)
    if not lossy:
        refuse_numbers(grey_HW, distinct)
    if middle_HW.mean() > 0.2:
        extremes = ((grey_HW <= 8) | (grey_HW >= 247)).mean()
        if extremes < 0.25 or _texture(grey_HW, middle_HW) > BUSY:
            raise ValueError(f"a picture, not a mask; {GREY_OUT}")
    return _without_rings(grey_HW, "white is edited", lossy, soft)


def refuse_numbers(values_HW: np.ndarray, distinct: np.ndarray, merged: bool = False) -> None:
    """Raise ValueError if the values, as stored, number objects: areas of one value between black and white.

    Args:
        distinct: the values that occur, sorted.
        merged: whether some of them are equal with 8 bits; areas of values near black or white then count too.
    """
    top, few = max(255, int(distinct[-1])), len(distinct) <= MOST_IDS
    between_HW = (values_HW * (255 / top) > 8) & (values_HW * (255 / top) < 247)
    dark_HW = (values_HW > 0) & (values_HW * (255 / top) < 128)
    jumps = _jumps(values_HW, between_HW, 8 * top / 255)
    if (
        (_is_flat(values_HW, between_HW) and (jumps or (few and top == 255)))
        or (len(distinct) <= MOST_IDS // 2 and _is_flat(values_HW, dark_HW, 0.8))
        or (few and merged and _is_flat(values_HW, (values_HW > 0) & (values_HW < top)))
    ):
        raise ValueError(
            f"a map of numbers, not a mask; name the one to edit with mask_value (it has {_listed(distinct)}), or, if "
            "these are greys that edit in part, give mask_soft true"
        )


def by_numbers(values_HW: np.ndarray, wanted: tuple[int, ...], visible_HW: np.ndarray | None = None) -> Meaning:
    """The visible pixels with one of these numbers. Raises ValueError: a number that the file does not have."""
    visible_HW = np.ones_like(values_HW, bool) if visible_HW is None else visible_HW
    there = np.unique(values_HW[visible_HW])
    for number in wanted:
        if number not in there:
            raise ValueError(f"mask_value: {number} does not occur in the mask; it has {_listed(there)}")
    return Meaning(_hard(np.isin(values_HW, wanted) & visible_HW), f"the value {', '.join(map(str, wanted))} is edited")


def sampled(like_HW: np.ndarray) -> tuple[slice, slice]:
    """Every k-th row and column, about half a million pixels: enough to judge the colours of a large file."""
    step = max(1, round((like_HW.size / 500_000) ** 0.5))
    return slice(None, None, step), slice(None, None, step)


def main_colours(rgb_N3: np.ndarray, near: int = NEAR) -> list[tuple[np.ndarray, float]]:
    """The colours that cover at least 1 % of the pixels, with their shares, largest first; at most 64.

    Args:
        near: colours whose channels differ by at most this are one.
    """
    bins_N = (rgb_N3 >> 4 if near > 16 else rgb_N3).astype(int) @ (65536, 256, 1)
    _, first, counts = np.unique(bins_N, return_index=True, return_counts=True)
    found: list[tuple[np.ndarray, int]] = []
    for place in np.argsort(-counts, kind="stable")[:512]:
        colour = rgb_N3[first[place]].astype(int)
        known = next((k for k, (one, _) in enumerate(found) if np.abs(one - colour).max() <= near), None)
        if known is not None:
            found[known] = (found[known][0], found[known][1] + int(counts[place]))
        elif len(found) < MOST_IDS:
            found.append((colour, int(counts[place])))
    shares = [(colour, count / max(1, len(rgb_N3))) for colour, count in found]
    return sorted((one for one in shares if one[1] >= 0.01), key=lambda one: -one[1])


def _one_colour(rgb_HW3: np.ndarray, lossy: bool, soft: bool | None) -> Meaning:
    """One colour on black is a stroke; its soft edge keeps its values."""
    bright_HW = np.maximum(np.maximum(rgb_HW3[..., 0], rgb_HW3[..., 1]), rgb_HW3[..., 2])
    few = sampled(bright_HW)
    # Lossy files store colours at half the size, so that a stroke's edge is a ring of darker colours.
    painted_HW = bright_HW > (bright_HW.max() // 2 if lossy else NEAR)
    colours, small = main_colours(rgb_HW3[few].reshape(-1, 3)), []
    if not painted_HW.all() and (bright_HW[~painted_HW] <= NEAR).mean() > 0.85:
        (colour, share), *_ = main_colours(rgb_HW3[few][painted_HW[few]], 2 * NEAR if lossy else NEAR) or [
            (np.zeros(3), 0.0)
        ]
        if share > 0.9 or (len(colours) == 2 and share > 0.7):
            other = None if lossy else _another(rgb_HW3[painted_HW], colour)
            if other is None:
                scaled_HW = (bright_HW.astype(float) * (255 / colour.max())).clip(0, 255).round()
                return _without_rings(scaled_HW.astype(np.uint8), "the coloured strokes are edited", lossy, soft)
            small.append(other)
    colours = main_colours(rgb_HW3[few].reshape(-1, 3), SAME)
    if not lossy and len(colours) <= 32 and sum(share for _, share in colours) > 0.97:
        named = [*(colour for colour, _ in colours[:6]), *small]
        names = ", ".join(f"#{r:02x}{g:02x}{b:02x}" for r, g, b in named)
        raise ValueError(
            f"a map of {len(colours) + len(small)} colours, not a mask; name the one to edit: mask_value one of {names}"
        )
    raise ValueError("a picture, not a mask; save the mask with white where to edit and black elsewhere")


def _another(painted_N3: np.ndarray, colour: np.ndarray) -> np.ndarray | None:
    """A colour of a small area that is no shade of the stroke's colour, as a second object has it, or None."""
    shade_N3 = painted_N3.max(1, keepdims=True) * (colour / colour.max())
    others_M3 = painted_N3[np.abs(painted_N3 - shade_N3).max(1) > NEAR]
    distinct, counts = np.unique(others_M3, axis=0, return_counts=True)
    return distinct[counts.argmax()] if len(counts) and counts.max() >= SPOT else None


def _is_copy(first_HW3: np.ndarray, second_HW3: np.ndarray, where_HW: np.ndarray) -> bool:
    """Whether two pictures show the same where the selection is; recompressing one of them changes little."""
    differs_N = np.abs(first_HW3[where_HW].astype(int) - second_HW3[where_HW]).max(-1)
    return bool((differs_N <= 32).mean() > 0.9)


def _is_flat(grey_HW: np.ndarray, where_HW: np.ndarray, share: float = 0.3) -> bool:
    """Whether this share of the selected pixels lies in areas of one value, as numbered objects do and edges do not."""
    same_HW = np.zeros_like(where_HW)
    same_HW[:-1, :-1] = (grey_HW[:-1, :-1] == grey_HW[1:, :-1]) & (grey_HW[:-1, :-1] == grey_HW[:-1, 1:])
    selected = int(where_HW.sum())
    return selected > 0.1 * max(1, int((grey_HW > 0).sum())) and (same_HW & where_HW).sum() > share * selected


def _jumps(grey_HW: np.ndarray, where_HW: np.ndarray, least: float) -> bool:
    """Whether the selected pixels differ by more than `least` on average from those right neighbours that differ at
    all, as the borders of objects do and a wide soft edge does not."""
    steps_N = np.abs(np.diff(grey_HW.astype(int), axis=1))[where_HW[:, :-1]]
    return bool(steps_N.any() and steps_N[steps_N > 0].mean() > least)


def _without_rings(grey_HW: np.ndarray, words: str, lossy: bool, soft: bool | None) -> Meaning:
    """The meaning of these greys, cut at one half if most of them are close to black or white: rings around edges, left
    by JPEG or a sharp resampling before the file was saved without loss. Feathered masks have less than .6 of such
    greys for each other one, rings above 1."""
    counts = np.bincount(grey_HW.ravel(), minlength=256)
    rings = int(counts[1:9].sum() + counts[247:255].sum()) > int(counts[9:247].sum())
    if soft is None and not lossy and rings:
        return Meaning(_hard(grey_HW >= 128), f"{words}, its greys cut at one half")
    return Meaning(grey_HW, words)


def _texture(grey_HW: np.ndarray, where_HW: np.ndarray) -> float:
    around_HW = np.pad(grey_HW.astype(float), 1, mode="edge")
    mean_HW = (around_HW[:-2, 1:-1] + around_HW[2:, 1:-1] + around_HW[1:-1, :-2] + around_HW[1:-1, 2:]) / 4
    return float(np.abs(grey_HW - mean_HW)[where_HW].mean())


def _or_a_value(distinct: np.ndarray, lossy: bool) -> str:
    if lossy or len(distinct) > MOST_IDS:
        return ""
    return f", or name the value to edit with mask_value (it has {_listed(distinct)})"


def _listed(numbers: np.ndarray) -> str:
    return ", ".join(f"{number:.9g}" for number in numbers[:8]) + (", ..." if len(numbers) > 8 else "")


def _hard(edit_HW: np.ndarray) -> np.ndarray:
    return edit_HW.astype(np.uint8) * 255
