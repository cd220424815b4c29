"""Editing-Mask: 200 pictures with the region that an edit should change, made to measure mask accuracy."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from regionedit.evaluation.benchmarks.base import (
    BACKGROUND,
    LANDED,
    OUTSIDE,
    REGIONS,
    kept_ids,
    require_unique,
    resized_to,
)
from regionedit.evaluation.benchmarks.layout import found_in, require_files, require_finished
from regionedit.evaluation.benchmarks.pictures import BRIGHT, MaskedBenchmark, bright, open_rgb, open_stored
from regionedit.images import SUFFIXES
from regionedit.records import Captions, EditCase, EditRequest

LIST = "Editing-Mask_list.txt"
LISTS = (LIST, f"dataset_txt/{LIST}", f"../../dataset_txt/{LIST}")
IMAGES = ("image", "images", "dataset/Editing-Mask/image", "dataset/Editing-Mask/images")
MASKS = ("mask", "masks", "dataset/Editing-Mask/mask", "dataset/Editing-Mask/masks")
IMAGENET = re.compile(r"ILSVRC2012_val_\d{3}(\d{5})\.JPEG")
ARTICLE = re.compile(r"(an?|the) ", re.IGNORECASE)


@dataclass(frozen=True)
class Line:
    """One line of the list.

    Args:
        id: the number of an Imagen picture, or the last five digits of an ImageNet file, as in the authors' scripts.
        stem: of the picture's file.
        caption: the caption of the picture; for ImageNet it is made from the class.
        source, target: the phrase to replace, and its replacement.
        origin: imagen or imagenet.
    """

    id: str
    stem: str
    caption: str
    source: str
    target: str
    origin: str


class EditingMask(MaskedBenchmark):
    """The benchmark of InstDiffEdit (arXiv 2401.07709; github.com/xiaotianqing/InstDiffEdit).

    The folder is the authors' repository with `dataset/Editing-Mask.zip` unpacked beside it, or any folder that holds
    `Editing-Mask_list.txt`, `image/` and `mask/`. Half of the list's lines are
    `id <> caption <> source phrase <> target phrase` (pictures by Imagen), half `file <> source class <> target class`
    (ImageNet); the latter get the caption "a {class}", the authors' own prompt. The instruction is made from the two
    phrases. A mask has the name of its picture, with or without `-mask`; white is the region to edit.
    """

    metrics = (
        *REGIONS,
        "change_iou",
        *LANDED,
        *OUTSIDE,
        *BACKGROUND,
        "clip_text",
        "clip_direction",
        "l1_source",
        "clip_image_source",
    )
    protocol = resized_to("source") | {
        "captions": "the caption with its phrase exchanged; 'a {class}' for ImageNet pictures",
        "truth_mask": BRIGHT,
    }

    def __init__(self, folder: str | Path, limit: int = 0, ids: str | Path | None = None):
        super().__init__(folder, limit, ids)
        index, images, masks = _layout(Path(folder))
        lines = _lines(index)
        names = [line.id for line in lines]
        require_unique(names, index)
        listed = kept_ids(names, ids)
        kept = [line for line in lines if line.id in listed]
        self.kept = kept[: limit or None]
        self.images, self.masks = _by_stem(images), _by_stem(masks)
        require_files({self.images.get(line.stem, images / f"{line.stem}.jpg") for line in self.kept}, "pictures")
        if not any(self._mask_path(line) for line in self.kept):
            raise ValueError(
                f"data: {masks} has no mask of these pictures, such as {lines[0].stem}.png; found: {found_in(masks)}"
            )
        self._counts = {"lines": len(lines), "kept": len(kept)}

    def _case(self, line: Line) -> EditCase:
        image = open_rgb(self.images[line.stem], str(self.images[line.stem]))
        captions = Captions(line.caption, exchange(line.caption, line.source, line.target))
        return EditCase(
            id=line.id,
            request=EditRequest(image, f"change {line.source} to {line.target}", captions=captions, id=line.id),
            operation="replace",
            groups={"origin": line.origin},
            truth_mask=self._mask(line.id, lambda: self._truth(line, image.size)),
        )

    def _mask_path(self, line: Line) -> Path | None:
        stems = (f"{stem}{end}" for stem in (line.stem, line.id) for end in ("", "-mask", "_mask"))
        return next((self.masks[stem] for stem in stems if stem in self.masks), None)

    def _truth(self, line: Line, size: tuple[int, int]) -> Image.Image:
        path = self._mask_path(line)
        if path is None:
            raise ValueError("its file is missing")
        return bright(open_stored(path, str(path)), size)


def exchange(caption: str, source: str, target: str) -> str:
    """The caption with `source` replaced by `target`, without doubling an article ("a a cat")."""
    before, match, after = caption.partition(source)
    if not match:
        return target
    if ARTICLE.match(target):
        before = re.sub(rf"\b{ARTICLE.pattern}$", "", before, flags=re.IGNORECASE)
    return before + target + after


def _layout(folder: Path) -> tuple[Path, Path, Path]:
    """Paths of the list, the pictures' folder and the masks' folder."""
    if not folder.is_dir():
        raise ValueError(f"data: {folder} is not a folder; expected the Editing-Mask data: {LIST}, image/, mask/")
    require_finished(folder)
    paths = []
    for what, places in ((LIST, LISTS), ("image/", IMAGES), ("mask/", MASKS)):
        path = next((folder / place for place in places if (folder / place).exists()), None)
        if path is None:
            packed = " (is dataset/Editing-Mask.zip still packed?)" if what != LIST else ""
            raise ValueError(
                f"data: {folder} has no {what}{packed}; expected the Editing-Mask data: {LIST}, image/, mask/; found: "
                f"{found_in(folder)}"
            )
        paths.append(path)
    return tuple(paths)


def _lines(index: Path) -> list[Line]:
    lines = []
    for number, text in enumerate(index.read_text(encoding="utf-8").splitlines(), 1):
        if not text.strip():
            continue
        fields = [field.strip() for field in text.split("<>")]
        name = IMAGENET.fullmatch(fields[0])
        if len(fields) == 4:
            lines.append(Line(fields[0], fields[0], *fields[1:], origin="imagen"))
        elif len(fields) == 3 and name:
            source, target = (f"a {field}" for field in fields[1:])
            lines.append(Line(name[1], Path(fields[0]).stem, source, source, target, origin="imagenet"))
        else:
            raise ValueError(
                f"data: {index} line {number} is neither `id <> caption <> source phrase <> target phrase` nor "
                f"`ImageNet file <> source class <> target class`: {text[:60]!r}"
            )
    if not lines:
        raise ValueError(f"data: {index} holds no line")
    return lines


def _by_stem(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES}
