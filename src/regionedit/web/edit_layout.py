"""The layout of the tab that edits one picture; `edit_tab` has its behaviour."""

from __future__ import annotations

from dataclasses import fields
from importlib import resources
from typing import TYPE_CHECKING, Any

from regionedit.web import messages
from regionedit.web.handlers import AT_ONCE
from regionedit.web.settings import Settings, offered

if TYPE_CHECKING:
    from regionedit.config import AppConfig

OPERATION_LABELS = {
    "invert": "Invert", "fill": "Fill holes", "largest": "Largest part", "hull": "Hull", "box": "Box",
}  # fmt: skip
"""Name of a mask operation -> its button's label."""

MASK_MEANINGS = [
    ("Mask: automatic", "auto"),
    ("Mask: opaque parts", "alpha"),
    ("Mask: bright parts", "luma"),
    ("Mask: dark or clear", "inverted"),
]


class EditLayout:
    """Adds the tab's components to the current Blocks.

    Args:
        examples: [picture file, instruction] of each example; if empty, the page shows no examples.

    Attributes:
        picture, view, region_line: the upload; the canvas with the region; the line that describes the region.
        operations: name of a mask operation -> its button.
        mask_file, mask_is: the upload of a mask, and what it means.
        form: field of `Settings` -> component, in the order of the fields.
        cut: sliders of threshold, grow and feather.
        find, edit, cancel: buttons.
        status: line with the progress of the edit.
        result: row that appears with the first edit and contains slider, gallery, downloads, difference and details.
    """

    def __init__(self, config: AppConfig, examples: list[list[str]]):
        import gradio as gr

        with gr.Row(equal_height=False):
            with gr.Column(min_width=320):
                self._add_inputs(config, examples)
            with gr.Column(min_width=320):
                self._add_region(config)
        with gr.Row(equal_height=False, visible=False) as self.result:
            self._add_result(config)

    def _add_inputs(self, config: AppConfig, examples: list[list[str]]) -> None:
        import gradio as gr

        self.picture = gr.Image(
            label="Picture",
            type="filepath",
            image_mode=None,
            height=260,
            elem_id="picture",
            buttons=["fullscreen"],
            placeholder="Drop a picture here, paste one, or click to choose",
        )
        instruction = gr.Textbox(
            label="What to change",
            placeholder="make the red circle blue",
            info="Several changes: separate them by semicolons.",
            lines=1,
            max_lines=4,
            elem_id="instruction",
        )
        with gr.Row():
            self.find = gr.Button("Find region", elem_id="find", min_width=120)
            self.edit = gr.Button("Edit", variant="primary", elem_id="edit", min_width=120)
            self.cancel = gr.Button("Cancel", variant="stop", visible=False, elem_id="cancel", min_width=120)
        self.status = gr.HTML(messages.line(""), elem_id="status")
        if examples:
            _add_examples(examples, self.picture, instruction)
        with gr.Accordion("Settings", open=False, elem_id="settings"):
            made = {"instruction": instruction, **_settings(config)}
        self.form = {field.name: made[field.name] for field in fields(Settings)}

    def _add_region(self, config: AppConfig) -> None:
        import gradio as gr

        region = config.region
        self.view = _region_canvas()
        self.region_line = gr.HTML(messages.line(""), elem_id="region-line")
        with gr.Row():
            self.cut = [
                gr.Slider(
                    0.02, 0.98, region.threshold, step=0.02, label="Threshold", elem_id="threshold", min_width=150
                ),
                gr.Slider(-40, 40, region.grow, step=1, label="Grow", elem_id="grow", min_width=150),
                gr.Slider(0, 40, region.feather, step=1, label="Feather", elem_id="feather", min_width=150),
            ]
        with gr.Row(elem_id="operations"):
            self.operations = {
                name: gr.Button(label, size="sm", min_width=60, elem_id=f"operation-{name}")
                for name, label in OPERATION_LABELS.items()
            }
        with gr.Row(equal_height=True):
            self.mask_file = gr.UploadButton(
                "Open a mask file", file_types=["image"], size="sm", elem_id="mask-file", min_width=120
            )
            self.mask_is = gr.Dropdown(
                MASK_MEANINGS, value="auto", show_label=False, container=False, elem_id="mask-is", min_width=150
            )

    def _add_result(self, config: AppConfig) -> None:
        import gradio as gr

        with gr.Column(min_width=320):
            self.slider = gr.ImageSlider(
                label="Before and after",
                slider_position=12,
                type="pil",
                format="png",
                interactive=False,
                max_height=480,
                elem_id="result",
                buttons=["fullscreen"],
            )
            self.gallery = gr.Gallery(
                label="Variants: choose one", format="png", columns=4, height=160, visible=False, elem_id="variants",
                buttons=[], allow_preview=False,
            )  # fmt: skip
            with gr.Row():
                self.download = gr.DownloadButton("Download PNG", interactive=False, elem_id="download", min_width=120)
                self.layers = gr.DownloadButton(
                    "Download layers (Krita, GIMP)", interactive=False, elem_id="layers", min_width=120,
                    visible=config.layers,
                )  # fmt: skip
        with gr.Column(min_width=320):
            self.difference = gr.Image(
                label="Difference: black is unchanged", format="png", interactive=False, height=300,
                elem_id="difference", buttons=["fullscreen"],
            )  # fmt: skip
            with gr.Accordion("How it was made", open=False):
                self.details = gr.JSON(show_label=False, elem_id="details")


def _region_canvas():
    """The picture to paint the region on, with the events `stroke`, `pick`, `undo` and `clear`.

    canvas.js has its behaviour, canvas.css its style. Gradio's own image editor sends whole layers for every stroke and
    needs WebGL; this one sends only the stroke's points.
    """
    import gradio as gr

    html, css, js = (
        resources.files(__package__).joinpath(f"canvas.{kind}").read_text() for kind in ("html", "css", "js")
    )
    return gr.HTML(value=None, html_template=html, css_template=css, js_on_load=js, elem_id="region")


def _add_examples(examples: list[list[str]], picture: Any, instruction: Any) -> None:
    """Add a row of example pictures; a click selects a picture and its instruction."""
    import gradio as gr

    dataset = gr.Dataset(
        components=[picture],
        samples=[[path] for path, _ in examples],
        type="index",
        label="Or start from an example",
        elem_id="examples",
    )
    dataset.click(lambda chosen: examples[chosen], dataset, [picture, instruction], **AT_ONCE)


def _settings(config: AppConfig) -> dict[str, Any]:
    """Add the components of all settings that have a default: field of `Settings` -> component."""
    import gradio as gr

    own, shown = Settings.of(config), offered(config)

    def slider(name: str, low: float, high: float, step: float, label: str, elem_id: str | None = None):
        return gr.Slider(
            low, high, getattr(own, name), step=step, label=label, elem_id=elem_id, min_width=120,
            visible=name in ("variants", *shown),
        )  # fmt: skip

    with gr.Row():
        seed = gr.Number(own.seed, label="Seed", precision=0, minimum=0, elem_id="seed", min_width=120)
        variants = slider("variants", 1, config.max_variants, 1, "Variants", "variants-wanted")
    with gr.Row():
        steps = slider("num_inference_steps", 1, config.max_steps, 1, "Steps", "steps")
        guidance = slider("guidance_scale", 1, 20, 0.1, "Text guidance")
    with gr.Row(visible=bool({"image_guidance_scale", "strength"} & {*shown})):
        image_guidance = slider("image_guidance_scale", 1, 5, 0.1, "Image guidance")
        strength = slider("strength", 0.05, 1, 0.05, "Noise at the start; 1 is pure noise")
    return {
        "seed": seed,
        "variants": variants,
        "num_inference_steps": steps,
        "guidance_scale": guidance,
        "image_guidance_scale": image_guidance,
        "strength": strength,
        "strengths": gr.Textbox(own.strengths, label="Strength of each change", placeholder="1; 1.5"),
        "source_caption": gr.Textbox(
            label="What the picture shows",
            info="Filled in when the region is found; you can correct it.",
            elem_id="source-caption",
        ),
        "target_caption": gr.Textbox(label="What the edited picture should show", elem_id="target-caption"),
    }
