"""The files of an edited picture: in its own format, and as layers for other programs.

An OpenRaster file is a ZIP of PNGs and a stack.xml, https://www.openraster.org; Krita and GIMP open it. Its layers,
laid over each other, show the result bit for bit, also where the source is translucent.

Shape letters: H W pixels, C channels: grey, grey and alpha, RGB, RGBA.
"""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np

from regionedit.images import png, smaller
from regionedit.originals import encoded, original_of, pixels_of, shown, source_format
from regionedit.picture_files import SUFFIX_OF, encode

if TYPE_CHECKING:
    from PIL.Image import Image

    from regionedit.picture_metadata import Metadata

LAYER, LAYERED = "layer.png", "result.ora"
OPTIONAL = (*(f"result.{suffix}" for suffix in SUFFIX_OF.values()), LAYER, LAYERED)
"""Files that only some edits have."""

THUMBNAIL = 256  # longest side of the thumbnail, in pixels
OVER, ATOP = "svg:src-over", "svg:src-atop"
"""How a layer is laid over those below; `ATOP` keeps the alpha of what is below."""


def picture_files(source: Image, result: Image, mask: Image, written: str, layers: bool) -> dict[str, bytes]:
    """Name -> content of result.png, of the result in the source's format if `written` is "source", and of the layers.

    Args:
        source, result: views as `originals` describes them.
        mask: mode "L", 255 = edited.
        written, layers: the settings `format` and `layers`.
    """
    files = {"result.png": encoded(result)}
    if written == "source" and (kind := source_format(result)[0]):
        files[f"result.{SUFFIX_OF[kind]}"] = encoded(result, kind)
    if layers:
        files |= {LAYER: layer_png(result, mask), LAYERED: open_raster(source, result, mask)}
    return files


def layer_png(result: Image, mask: Image) -> bytes:
    """The edited region as a PNG of the picture's size, RGBA with the result's depth; wholly transparent outside.

    Where the mask is above 0, it has the result's colour and alpha: soft edges are already blended with the source.

    Args:
        result: the edited picture, a view as `originals` describes it.
        mask: mode "L", above 0 = edited.
    """
    return _encoded(_region(result, mask), result)


def open_raster(source: Image, result: Image, mask: Image) -> bytes:
    """An OpenRaster file with three layers: the mask, hidden; the edited region; the source.

    Args:
        source, result: views as `originals` describes them.
        mask: mode "L", 255 = edited.
    """
    translucent = original_of(source).alpha_HW is not None
    region_HWC = _region(result, mask)
    if translucent:  # `ATOP` takes the alpha from the source, so the colour has to be laid on whole
        region_HWC[np.asarray(mask) > 0, 3] = np.iinfo(region_HWC.dtype).max
    merged = shown(pixels_of(result), original_of(result).white)
    layers = [
        ("mask (white was edited)", "hidden", OVER, png(mask)),
        ("edited region", "visible", ATOP if translucent else OVER, _encoded(region_HWC, result)),
        ("source", "visible", OVER, _encoded(_rgba(pixels_of(source)), source)),
    ]
    image = ElementTree.Element("image", version="0.0.5", w=str(result.width), h=str(result.height))
    stack = ElementTree.SubElement(image, "stack")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        _add(archive, "mimetype", b"image/openraster")  # first and not compressed, so that programs know the file
        for number, (name, visibility, operator, data) in enumerate(layers):
            file = f"data/layer{number}.png"
            _add(archive, file, data)
            attributes = {"name": name, "src": file, "x": "0", "y": "0", "opacity": "1.0"}
            attributes |= {"visibility": visibility, "composite-op": operator}
            ElementTree.SubElement(stack, "layer", attributes)
        _add(archive, "stack.xml", ElementTree.tostring(image, "utf-8", xml_declaration=True))
        _add(archive, "mergedimage.png", _encoded(_rgba(pixels_of(result)), result))
        _add(archive, "Thumbnails/thumbnail.png", png(smaller(merged, THUMBNAIL)))
    return buffer.getvalue()


def _region(result: Image, mask: Image) -> np.ndarray:
    """RGBA as stored where the mask is above 0, else all 0."""
    return np.where((np.asarray(mask) > 0)[..., None], _rgba(pixels_of(result)), 0).astype(pixels_of(result).dtype)


def _rgba(pixels_HWC: np.ndarray) -> np.ndarray:
    """Stored pixels with four channels; some programs read no grey layers."""
    channels = pixels_HWC.shape[2]
    alpha_HW = pixels_HWC[..., -1] if channels % 2 == 0 else np.iinfo(pixels_HWC.dtype).max
    colours_HWC = pixels_HWC[..., :3] if channels > 2 else pixels_HWC[..., [0, 0, 0]]
    return np.dstack([colours_HWC, np.broadcast_to(alpha_HW, pixels_HWC.shape[:2])]).astype(pixels_HWC.dtype)


def _encoded(pixels_HWC: np.ndarray, view: Image) -> bytes:
    return encode(pixels_HWC, _colours(view))


def _colours(view: Image) -> Metadata:
    """What the view's colours need to be shown as they are; the profile of a grey picture does not fit RGBA."""
    original = original_of(view)
    colours = original.metadata.without_description()
    return type(colours)(png_colour=colours.png_colour) if original.is_grey else colours


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    """Add a file: not compressed, because PNGs are, and without a date, so that equal results make equal files."""
    archive.writestr(zipfile.ZipInfo(name), data)
