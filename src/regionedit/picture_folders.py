"""Folders of pictures, and of masks that are named like them, as requests; and what was skipped, with the reason."""

from __future__ import annotations

import json
import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from regionedit.files import folder_key, write_atomic
from regionedit.images import SUFFIXES
from regionedit.request_files import RequestFile, named

MASK_ENDINGS = ("_mask", "-mask", ".mask")
NAME = "skipped.jsonl"


@dataclass(frozen=True)
class Skipped:
    """A file or folder for which no request was made."""

    path: Path
    reason: str


def folder_requests(
    folder: Path, like: RequestFile, masks: Path | None = None, out: Path | None = None
) -> tuple[list[RequestFile], list[Skipped]]:
    """One request for each picture of a folder and its subfolders, sorted by path, and what was skipped.

    All fields but image, mask and id come from `like`. A picture is named after its file, one in a subfolder after
    both: `a/cat.png` becomes `a_cat`. Hidden files and folders are left out, and results of earlier edits are skipped.

    Args:
        masks: folder of masks. The mask of `a/cat.jpg` is `a/cat.*` or `a/cat_mask.*` in it, with any picture's ending;
            pictures without a mask are skipped. If it is `folder` itself, only names with `_mask` count.
        out: where results are written; nothing in it is a picture to edit.

    Raises ValueError: no picture in the folder; two masks for one picture; no mask for any picture.
    """
    skipped: list[Skipped] = []
    apart = [path.resolve() for path in (out, masks) if path is not None and path.resolve() != folder.resolve()]
    pictures = sorted(_pictures(folder, apart, skipped))
    beside = masks_beside(pictures)
    pictures = [path for path in pictures if path not in beside]
    if not pictures:
        raise ValueError(f"image: no picture in folder {folder} (looked for {', '.join(SUFFIXES)})")
    requests = [replace(like, image=path, id="") for path in pictures]
    if masks is None:
        reason = f"the mask of another picture here; to use such masks, give --mask {folder}"
        skipped += [Skipped(path, reason) for path in beside]
    else:
        requests = _with_masks(requests, folder, masks, skipped)
    names = ["_".join(request.image.relative_to(folder).with_suffix("").parts) for request in requests]
    return named(requests, names), sorted(skipped, key=lambda one: one.path)


def masks_beside(pictures: Sequence[Path]) -> dict[Path, Path]:
    """The files that are named like another one with `_mask` at the end, each with the picture that it belongs to."""
    by_name = {(path.parent, folder_key(path.stem)): path for path in pictures}
    owners = {path: by_name.get((path.parent, _without_ending(folder_key(path.stem)))) for path in pictures}
    return {path: owner for path, owner in owners.items() if owner is not None}


def write_skipped(out: Path, skipped: list[Skipped]) -> None:
    """Write skipped.jsonl with a line for each skipped file; without any, an earlier one is deleted."""
    if not skipped:
        (out / NAME).unlink(missing_ok=True)
        return
    lines = [json.dumps({"path": str(one.path), "reason": one.reason}) + "\n" for one in skipped]
    write_atomic(out / NAME, "".join(lines).encode())


def _pictures(folder: Path, apart: list[Path], skipped: list[Skipped]) -> Iterator[Path]:

    def unreadable(error: OSError) -> None:
        skipped.append(Skipped(Path(error.filename), f"the folder cannot be read: {error.strerror}"))

    for place, folders, files in os.walk(folder, onerror=unreadable):
        here = Path(place)
        if here != folder and {"run.json", "result.png"} <= set(files):
            skipped.append(Skipped(here, "the result of an earlier edit"))
            folders.clear()
            continue
        links = [here / f for f in folders if (here / f).is_symlink() and not f.startswith(".")]
        skipped += [Skipped(link, "a link to a folder is not followed") for link in links]
        folders[:] = sorted(f for f in folders if not f.startswith(".") and (here / f).resolve() not in apart)
        for name in sorted(files):
            path = here / name
            if name.startswith("."):
                continue
            if name == "contact_sheet.png" and "failures.jsonl" in files:
                skipped.append(Skipped(path, "the contact sheet of earlier edits"))
            elif path.suffix.lower() in SUFFIXES:
                yield path
            else:
                skipped.append(Skipped(path, f"{path.suffix or 'no ending'}: not the ending of a picture"))


def _with_masks(requests: list[RequestFile], folder: Path, masks: Path, skipped: list[Skipped]) -> list[RequestFile]:
    """The requests that have a mask; pictures without a mask and masks without a picture are added to `skipped`.

    Raises ValueError: two masks for one picture, or no mask for any picture.
    """
    same = masks.resolve() == folder.resolve()
    by_name: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for path in sorted(_pictures(masks, [], [] if same else skipped)):
        stem = _without_ending(folder_key(path.stem)) or ("" if same else folder_key(path.stem))
        by_name[_place(path, masks), stem].append(path)
    with_mask, used = [], {request.image for request in requests}
    for request in requests:
        stem = request.image.stem
        candidates = by_name.get((_place(request.image, folder), folder_key(stem)), [])
        candidates = [p for p in candidates if stem in (p.stem, _without_ending(p.stem))] or candidates
        if len(candidates) > 1:
            both = " and ".join(str(path) for path in candidates[:2])
            raise ValueError(f"mask: {both} could both belong to {request.image}; keep one of them")
        if candidates:
            with_mask.append(replace(request, mask=candidates[0]))
        else:
            skipped.append(Skipped(request.image, f"no mask {stem}.* or {stem}_mask.* in {masks}"))
        used.update(candidates)
    if not with_mask:
        raise ValueError(f"mask: no file in {masks} is named like a picture in {folder}, with or without _mask")
    unused = {path for (_, stem), paths in by_name.items() if stem for path in paths} - used
    skipped += [Skipped(path, f"a mask without a picture in {folder}") for path in unused]
    return with_mask


def _place(path: Path, folder: Path) -> str:
    """The subfolder that a file lies in; accents may be written in two ways."""
    return unicodedata.normalize("NFC", str(path.parent.relative_to(folder)))


def _without_ending(stem: str) -> str:
    """The picture's name in that of a mask, or empty."""
    return next((stem.removesuffix(ending) for ending in MASK_ENDINGS if stem.endswith(ending)), "")
