"""Read edit requests from files: one picture, a folder of pictures, or a JSONL with one request in each line.

Reading checks everything that can be checked without decoding a picture.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from regionedit.images import SUFFIXES, open_mask, require_mask_size
from regionedit.originals import open_source
from regionedit.records import Captions, EditRequest, Instruction

if TYPE_CHECKING:
    from PIL.Image import Image

FIELDS: dict[str, tuple[type, ...]] = {
    "image": (str,),
    "instruction": (str,),
    "instructions": (str, list, dict),
    "seed": (int,),
    "source_caption": (str,),
    "target_caption": (str,),
    "mask": (str,),
    "box": (str, list),
    "click": (str, list),
    "id": (str,),
}
"""The fields of a line -> the JSON types that they accept."""


@dataclass(frozen=True)
class RequestFile(EditRequest):
    """A request whose picture and mask are not opened yet: `image` and `mask` are paths."""

    image: Path
    mask: Path | None = None

    def open(self, max_pixels: int) -> EditRequest:
        """Decode picture and mask. Raises ValueError: a file that cannot be read, or a mask of another size."""
        picture = open_source(self.image, max_pixels)
        mask = open_mask(self.mask, max_pixels) if self.mask else None
        if mask is not None:
            require_mask_size(mask, picture)
        return self.with_pictures(picture, mask)

    def with_pictures(self, picture: Image, mask: Image | None) -> EditRequest:
        """The request with its decoded picture and mask."""
        return EditRequest(**vars(self) | {"image": picture, "mask": mask})


def read_requests(path: str | Path) -> list[RequestFile]:
    """Read a JSONL of requests.

    Each line is an object with `image` and `instruction` (or `instructions`: strings or {"text", "strength",
    "keyword"}), and optionally seed, source_caption, target_caption, mask, box ([x0, y0, x1, y1]), click ([x, y], or
    several of them) and id. Paths are relative to the JSONL. A request without id is named after its picture.

    Raises:
        ValueError: an unreadable file, an invalid line, a missing picture, a duplicate id; the message names file and
            line.
    """
    path = Path(path)
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"requests: {path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    return parse_requests(lines, path.parent, str(path))


def existing(field: str, name: str, folder: Path) -> Path:
    """The file that a field of a request names. Raises ValueError: no such file."""
    path = folder / name
    if not path.is_file():
        raise ValueError(f"{field}: {path}: no such file")
    return path


def parse_requests(
    lines: Sequence[str], folder: Path, source: str, find: Callable[[str, str, Path], Path] = existing
) -> list[RequestFile]:
    """The requests of JSON lines, as `read_requests` returns them.

    Args:
        source: where the lines come from, for messages.
        find: (field, the name given in it, `folder`) -> the file.
    """
    requests, first_seen = [], {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            request = parse_request(line, folder, find)
            if request.id and request.id in first_seen:
                raise ValueError(f"id: {request.id!r} is already used in line {first_seen[request.id]}")
        except ValueError as error:
            raise ValueError(f"{source}, line {number}: {error}") from None
        first_seen[request.id] = number
        requests.append(request)
    if not requests:
        raise ValueError(f"requests: {source} holds no request")
    return named(requests)


def folder_requests(folder: str | Path, like: RequestFile) -> list[RequestFile]:
    """One request for each picture of a folder, sorted by name; all fields but image and id come from `like`.

    Raises ValueError: no picture in the folder.
    """
    paths = sorted(p for p in Path(folder).iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    if not paths:
        raise ValueError(f"image: no picture in folder {folder} (looked for {', '.join(SUFFIXES)})")
    return named([replace(like, image=path, id="") for path in paths])


def parse_box(given: str | list) -> tuple[int, int, int, int]:
    """`x0,y0,x1,y1`, or a list of them, as four integers. Raises ValueError for anything else."""
    try:
        if not isinstance(given, str) and any(
            type(value) is not int for value in given
        ):  # `int` would take true and 1.5
            raise ValueError
        x0, y0, x1, y1 = map(int, given.split(",") if isinstance(given, str) else given)
    except ValueError:
        raise ValueError(f"box: {given!r} is not x0,y0,x1,y1 in whole pixels, for example 10,20,50,60") from None
    return x0, y0, x1, y1


def parse_click(text: str) -> tuple[tuple[int, int], ...]:
    """`x,y` or `x,y;x,y` as points. Raises ValueError for anything else."""
    try:
        return tuple((int(x), int(y)) for x, y in (point.split(",") for point in text.split(";")))
    except ValueError:
        raise ValueError(
            f"click: {text!r} is not x,y in whole pixels, or several: x,y;x,y, for example 30,40;35,60"
        ) from None


def split_instructions(text: str) -> list[str]:
    """Split a text at semicolons into instructions; an empty text is returned as it is, to be rejected later."""
    return [part.strip() for part in text.split(";") if part.strip()] or [text]


def parse_request(line: str, folder: Path, find: Callable[[str, str, Path], Path] = existing) -> RequestFile:
    """The request of one line; arguments as for `parse_requests`. Raises ValueError: the message names the field."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at character {error.pos}") from None
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    for name, value in row.items():
        if name not in FIELDS:
            raise ValueError(f"unknown field {name!r}; there are: {', '.join(FIELDS)}")
        if not isinstance(value, FIELDS[name]) or isinstance(value, bool):
            raise ValueError(f"{name}: {value!r} is not of type {' or '.join(kind.__name__ for kind in FIELDS[name])}")
    if "image" not in row or ("instruction" in row) == ("instructions" in row):
        raise ValueError("a request needs `image` and one of `instruction` and `instructions`")
    given = [row["instruction"]] if "instruction" in row else row["instructions"]
    return RequestFile(
        image=find("image", row["image"], folder),
        instructions=tuple(map(_instruction, given if isinstance(given, list) else [given])),
        seed=row.get("seed", 0),
        captions=Captions.given(row.get("source_caption", ""), row.get("target_caption", "")),
        mask=find("mask", row["mask"], folder) if "mask" in row else None,
        box=parse_box(row["box"]) if "box" in row else None,
        click=_click(row["click"]) if "click" in row else None,
        id=_file_name(row["id"]) if "id" in row else "",
    )


def _instruction(item) -> str | Instruction:
    if isinstance(item, str):
        return item
    with suppress(TypeError):  # not an object, or one with other keys
        made = Instruction(**item)
        if isinstance(made.text, str) and type(made.strength) in (int, float) and isinstance(made.keyword, str | None):
            return made
    raise ValueError(f"instructions: {item!r} is neither a string nor {{text, strength, keyword}}")


def _click(value: str | list) -> list | tuple:
    return parse_click(value) if isinstance(value, str) else value  # `EditRequest` checks a list


def _file_name(text: str) -> str:
    if not text or text.startswith(".") or any(c in text for c in "/\\\0") or len(text) > 200:
        raise ValueError(f"id: {text[:40]!r} cannot name a folder")
    return text


def named(requests: list[RequestFile]) -> list[RequestFile]:
    """Name requests without an id after their pictures: cat, cat_2, cat_3..."""
    taken = {request.id for request in requests}
    result = []
    for request in requests:
        name, count = request.id or request.image.stem, 1
        while not request.id and name in taken:
            count += 1
            name = f"{request.image.stem}_{count}"
        taken.add(name)
        result.append(replace(request, id=name))
    return result
