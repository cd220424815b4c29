"""Settings of infer.py: an edit, and what to edit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from regionedit.config.editing import EditConfig


@dataclass
class InferConfig(EditConfig):
    """`python infer.py --config FILE`: edit pictures.

    Args:
        image: a picture, or a folder of pictures; folders in it are searched as well.
        instruction: what to change, for example "make the red circle blue". For several, separate them by semicolons or
            give --instruction several times; a semicolon in quotes separates nothing.
        requests: instead of image and instruction: a JSONL or CSV file with the fields image, instruction or
            instructions, and optionally seed, source_caption, target_caption, mask, mask_is, mask_soft, mask_value,
            mask_operations, box, click, id; paths are relative to it.
        out: folder for the results.
        seed: seed of the noise; the same seed gives the same picture.
        source_caption: what the picture shows; if empty, the describer writes it where it is needed.
        target_caption: what the edited picture should show; if empty, the describer writes it where it is needed.
        mask: a drawn mask of the picture's size, or with a folder of pictures a folder of masks, which are named like
            their pictures or with `_mask` at the end; it replaces a mask_source that reads no masks. The result's note
            says how the mask was read; docs/pictures.md lists the kinds of files.
        mask_is: what the mask means. `auto` decides from the file and refuses one that can be read in two ways;
            `alpha`: what is opaque is edited; `luma`: what is bright and not transparent; `inverted`: what is
            transparent or, in a file without transparent parts, what is dark.
        mask_soft: whether grey values of the mask are edited in part; false: values of 128 and more are edited, the
            others are not. None: true in lossless files, false in JPEG and its like, where black and white are blurred.
        mask_value: edit exactly these values of the mask, which numbers or colours its objects: 3, or "3,7", or
            "#ff0000".
        mask_operations: applied to the region in this order, however it was found: invert, fill (its holes), largest
            (keep its largest part), hull (its convex hull), box (around it); for example "fill,largest".
        box: x0,y0,x1,y1 in pixels of the upright picture; it replaces a mask_source that reads no boxes.
        click: x,y in pixels of the upright picture, or several: "x,y;x,y"; Segment Anything (region.sam) finds the
            object there, unless mask_source reads clicks itself.
        workers: number of processes that share many requests, each with its own models; with several GPUs, one for
            each.
        debug: end with the stack trace of an error instead of one line; otherwise it is in log.txt in `out`.
    """

    image: str = ""
    instruction: str = ""
    requests: str = ""
    out: str = "outputs/edit"
    seed: int = 0
    source_caption: str = ""
    target_caption: str = ""
    mask: str = ""
    mask_is: Literal["auto", "alpha", "luma", "inverted"] = "auto"
    mask_soft: bool | None = None
    mask_value: str = ""
    mask_operations: str = ""
    box: str = ""
    click: str = ""
    workers: int = 1
    debug: bool = False
