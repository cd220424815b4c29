"""Settings of infer.py: an edit, and what to edit."""

from __future__ import annotations

from dataclasses import dataclass

from regionedit.config.editing import EditConfig


@dataclass
class InferConfig(EditConfig):
    """`python infer.py --config FILE`: edit pictures.

    Args:
        image: a picture, or a folder of pictures.
        instruction: what to change, for example "make the red circle blue". For several, separate them by semicolons or
            give --instruction several times.
        requests: instead of image and instruction: a JSONL with the fields image, instruction or instructions, and
            optionally seed, source_caption, target_caption, mask, box, click, id; paths are relative to it.
        out: folder for the results.
        seed: seed of the noise; the same seed gives the same picture.
        source_caption: what the picture shows; if empty, the describer writes it where it is needed.
        target_caption: what the edited picture should show; if empty, the describer writes it where it is needed.
        mask: a drawn mask of the picture's size, white = edit; it replaces a mask_source that reads no masks.
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
    box: str = ""
    click: str = ""
    workers: int = 1
    debug: bool = False
