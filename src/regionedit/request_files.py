"""Read edit requests from files: a JSONL or CSV with one request in each line.

Reading checks everything that can be checked without decoding a picture.
"""

from __future__ import annotations

import json
import math
import os
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regionedit.files import LONGEST_NAME, folder_key, is_file
from regionedit.list_files import list_lines
from regionedit.mask_files import AUTO, MaskReading, open_mask
from regionedit.originals import open_source
from regionedit.records import Captions, EditRequest, Instruction
from regionedit.result_files import OPTIONAL

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
    "mask_is": (str,),
    "mask_soft": (bool,),
    "mask_value": (int, str),
    "mask_operations": (str, list),
    "box": (str, list),
    "click": (str, list),
    "id": (str,),
}
"""The fields of a line -> the JSON types that they accept."""

RESERVED = frozenset(("contact_sheet.png", "failures.jsonl", "skipped.jsonl", "log.txt"))
"""Files that stand beside the folders of the results, so that no folder can have such a name."""

WRITTEN = frozenset(("result.png", "mask.png", "probability.png", "overlay.png", *OPTIONAL))
"""Pictures of a result; see `EditResult.save`."""

QUOTED = re.compile(r"""(?<!\w)"[^"]*"(?!\w)|“[^”]*”|„[^“”]*[“”]|«[^»]*»|(?<!\w)'(?:[^']|\b'\b)*'(?!\w)""")
"""Text in quotes. An apostrophe, or the sign for inches after a number, opens no quote."""


@dataclass(frozen=True)
class RequestFile(EditRequest):
    """A request whose picture and mask are not opened yet: `image` and `mask` are paths, and `reading` is how to read
    the mask."""

    image: Path
    mask: Path | None = None
    reading: MaskReading = AUTO

    def open(self, max_pixels: int) -> EditRequest:
        """Decode picture and mask. Raises ValueError: as `open_source` and `open_mask`."""
        picture = open_source(self.image, max_pixels)
        mask = open_mask(self.mask, self.reading, picture, max_pixels) if self.mask else None
        return self.with_pictures(picture, mask)

    def with_pictures(self, picture: Image, mask: Image | None) -> EditRequest:
        """The request with its decoded picture and mask."""
        given = {name: value for name, value in vars(self).items() if name != "reading"}
        return EditRequest(**given | {"image": picture, "mask": mask})


def require_inputs_kept(request: RequestFile, folder: Path) -> None:
    """Refuse a picture or a mask that the result of its own request, written to `folder`, would overwrite.

    Raises ValueError.
    """
    for name, path in (("image", request.image), ("mask", request.mask)):
        if path is not None and path.name in WRITTEN and path.parent.resolve() == folder.resolve():
            raise ValueError(
                f"out: the result would overwrite the {name} {path}; give another --out, or rename the {name}"
            )


def read_requests(path: str | Path) -> list[RequestFile]:
    """Read a JSONL or CSV of requests.

    Each line is an object with `image` and `instruction` (or `instructions`: strings or {"text", "strength",
    "keyword"}), and optionally the other `FIELDS`: seed, source_caption, target_caption, mask, mask_is, mask_soft,
    mask_value, mask_operations, box ([x0, y0, x1, y1]), click ([x, y], or several of them) and id. Paths are relative
    to the file. A request without id is named after its picture. A CSV has the fields as its header; see
    `list_files.csv_lines`.

    Raises:
        ValueError: an unreadable file, an invalid line, a missing picture, a duplicate id; the message names file and
            line.
    """
    path = Path(path)
    return parse_requests(list_lines(path, f"requests: {path}"), path.parent, str(path))


def existing(field: str, name: str, folder: Path) -> Path:
    """The file that a field of a request names; accents may be written in two ways. Raises ValueError: no such file."""
    for written in (name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name)):
        if is_file(path := folder / written):
            return path
    raise ValueError(f"{field}: {folder / name}: no such file")


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
            key = folder_key(request.id)
            if request.id and key in first_seen:
                raise ValueError(f"id: {request.id!r} is already used in line {first_seen[key]}")
        except ValueError as error:
            raise ValueError(f"{source}, line {number}: {error}") from None
        first_seen[key] = number
        requests.append(request)
    if not requests:
        raise ValueError(f"requests: {source} holds no request")
    return named(requests)


def parse_box(given: str | list) -> tuple[int, int, int, int]:
    """`x0,y0,x1,y1`, or a list of them, as four integers. Raises ValueError for anything else."""
    try:
        if not isinstance(given, str) and {*map(type, given)} != {int}:  # `int` would take true and 1.5
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
    """Split a text at semicolons into instructions; a semicolon in quotes separates nothing. An empty text is returned
    as it is, to be rejected later."""
    if "\0" in text:  # it stands for hidden semicolons below; `EditRequest` refuses it
        return [text]
    hidden = QUOTED.sub(lambda found: found.group().replace(";", "\0"), text)
    return [part.strip().replace("\0", ";") for part in hidden.split(";") if part.strip()] or [text]


def parse_request(line: str, folder: Path, find: Callable[[str, str, Path], Path] = existing) -> RequestFile:
    """The request of one line; arguments as for `parse_requests`. Raises ValueError: the message names the field."""
    try:
        row = json.loads(line, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at character {error.pos}; a line is one whole object") from None
    except RecursionError:
        raise ValueError("not JSON that can be read: its brackets are nested too deeply") from None
    if not isinstance(row, dict):
        raise ValueError("not a JSON object; write each request as an object in a line of its own, without a list")
    for name, value in row.items():
        if name not in FIELDS:
            raise ValueError(f"unknown field {name!r}; there are: {', '.join(FIELDS)}")
        if not isinstance(value, FIELDS[name]) or isinstance(value, bool) != (FIELDS[name] == (bool,)):
            raise ValueError(f"{name}: {value!r} is not of type {' or '.join(kind.__name__ for kind in FIELDS[name])}")
    if "image" not in row or ("instruction" in row) == ("instructions" in row):
        raise ValueError("a request needs `image` and one of `instruction` and `instructions`")
    if "mask" in row and "box" in row:
        raise ValueError("mask, box: give one of them")
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
        mask_operations=row.get("mask_operations", ()),
        reading=mask_reading(row, "mask" in row),
    )


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; `json` alone would keep the last of two values for one name."""
    names = [name for name, _ in pairs]
    if double := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"{double}: given twice; keep one of them")
    return dict(pairs)


def mask_reading(given: Mapping[str, Any], with_mask: bool) -> MaskReading:
    """How to read the mask of a request, from its fields mask_is, mask_soft and mask_value.

    Raises ValueError: one of them without a mask, or as `MaskReading`.
    """
    default = vars(AUTO)
    fields = {name: given.get(name, default[name]) for name in default}
    fields["mask_value"] = str(fields["mask_value"])
    reading = MaskReading(**fields)
    if reading != AUTO and not with_mask:
        changed = next(name for name in default if vars(reading)[name] != default[name])
        raise ValueError(f"{changed}: it says how to read a mask; give a mask as well")
    return reading


def _instruction(item) -> str | Instruction:
    if isinstance(item, str):
        return item
    with suppress(TypeError):  # not an object, or one with other keys
        made = Instruction(**item)
        a_number = type(made.strength) in (int, float) and 0 <= made.strength < math.inf
        if a_number and isinstance(made.text, str) and isinstance(made.keyword, str | None):
            return made
    raise ValueError(f"instructions: {item!r} is neither a string nor {{text, strength from 0, keyword}}")


def _click(value: str | list) -> list | tuple:
    return parse_click(value) if isinstance(value, str) else value  # `EditRequest` checks a list


def _file_name(text: str) -> str:
    if (
        not text.isprintable()
        or text.strip()[:1] in ("", ".")
        or any(c in text for c in "/\\")
        or len(text.encode()) > 200
    ):
        raise ValueError(f"id: {text[:40]!r} cannot name a folder")
    if folder_key(text) in RESERVED:
        raise ValueError(f"id: {text!r} is the name of a file beside the results; choose another")
    return text


def named(requests: Sequence[RequestFile], names: Sequence[str] = ()) -> list[RequestFile]:
    """Name requests without an id after their pictures, or by `names`, one for each: cat, cat_2, cat_3...

    The names differ also on a disk that ignores case, and are short enough for a folder.
    """
    taken = {folder_key(request.id) for request in requests} | RESERVED
    result = []
    for place, request in enumerate(requests):
        own = names[place] if names else request.image.stem
        name, count = request.id or _shortened(own, ""), 1
        while not request.id and folder_key(name) in taken:
            count += 1
            name = _shortened(own, f"_{count}")
        taken.add(folder_key(name))
        result.append(replace(request, id=name))
    return result


def _shortened(name: str, ending: str) -> str:
    """The name with this ending, cut so that a folder can have it."""
    while len(os.fsencode(name + ending)) > LONGEST_NAME:
        name = name[:-1]
    return name + ending
