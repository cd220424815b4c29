"""The page's component for the region: a picture to paint on. canvas.js has its behaviour, canvas.css its style.

Gradio's own image editor sends whole layers for every stroke and needs WebGL; this one sends only the stroke's points.
"""

from __future__ import annotations

import base64
import io
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

LOSSLESS = 400_000
"""Pictures with at most this many pixels are sent as PNG, larger ones as JPEG."""


def region_canvas():
    """The component, with the events `stroke`, `pick`, `undo` and `clear`."""
    import gradio as gr

    html, css, js = (
        resources.files(__package__).joinpath(f"canvas.{kind}").read_text() for kind in ("html", "css", "js")
    )
    return gr.HTML(value=None, html_template=html, css_template=css, js_on_load=js, elem_id="region")


def canvas_value(shown: Image, size: tuple[int, int]) -> dict[str, Any]:
    """The value of the component.

    Args:
        shown: the picture to show, of any size.
        size: width and height of the original picture; strokes are in its pixels.
    """
    buffer = io.BytesIO()
    lossless = shown.width * shown.height <= LOSSLESS
    shown.save(buffer, "PNG" if lossless else "JPEG", **({} if lossless else {"quality": 88}))
    kind = "png" if lossless else "jpeg"
    source = f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return {"src": source, "width": size[0], "height": size[1]}
