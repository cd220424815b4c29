"""The layout of the tab that edits one picture; `edit_tab` has its behaviour."""

from __future__ import annotations

from dataclasses import dataclass, fields
from importlib import resources
from typing import TYPE_CHECKING, Any

from regionedit.web import messages
from regionedit.web.handlers import AT_ONCE
from regionedit.web.settings import Settings, offered

if TYPE_CHECKING:
    from regionedit.config import AppConfig


@dataclass(frozen=True)
class Form:
    """The components for the fields of `Settings`, under the same names."""

    instruction: Any
    strengths: Any
    seed: Any
    num_inference_steps: Any
    guidance_scale: Any
    image_guidance_scale: Any
    strength: Any
    variants: Any
    source_caption: Any
    target_caption: Any

    def components(self) -> list:
        """All components, in the order of the fields of `Settings`."""
        return [getattr(self, field.name) for field in fields(Settings)]


@dataclass(frozen=True)
class EditLayout:
    """The tab's components.

    Args:
        picture, view, region_line: the upload; the canvas with the region; the line that describes the region.
        form: the settings.
        cut: sliders of threshold, grow and feather.
        find, edit, cancel: buttons.
        status: line with the progress of the edit.
        result: row that appears with the first edit and contains slider, difference, gallery, download and details.
    """

    picture: Any
    view: Any
    region_line: Any
    form: Form
    cut: list
    find: Any
    edit: Any
    cancel: Any
    status: Any
    result: Any
    slider: Any
    difference: Any
    gallery: Any
    download: Any
    details: Any


def edit_layout(config: AppConfig, examples: list[list[str]]) -> EditLayout:
    """Add the tab to the current Blocks.

    Args:
        examples: [picture file, instruction] of each example; if empty, the page shows no examples.
    """
    import gradio as gr

    own = Settings.of(config)
    with gr.Row(equal_height=False):
        with gr.Column(min_width=320):
            picture = gr.Image(
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
                find = gr.Button("Find region", elem_id="find", min_width=120)
                edit = gr.Button("Edit", variant="primary", elem_id="edit", min_width=120)
                cancel = gr.Button("Cancel", variant="stop", visible=False, elem_id="cancel", min_width=120)
            status = gr.HTML(messages.line(""), elem_id="status")
            if examples:
                _examples(examples, picture, instruction)
            form = _settings(config, own, instruction)
        with gr.Column(min_width=320):
            view = _region_canvas()
            region_line = gr.HTML(messages.line(""), elem_id="region-line")
            with gr.Row():
                cut = _cut(config)
    with gr.Row(equal_height=False, visible=False) as result:
        with gr.Column(min_width=320):
            slider = gr.ImageSlider(
                label="Before and after",
                slider_position=12,
                type="pil",
                format="png",
                interactive=False,
                max_height=480,
                elem_id="result",
                buttons=["fullscreen"],
            )
            gallery = gr.Gallery(
                label="Variants: choose one", format="png", columns=4, height=160, visible=False, elem_id="variants",
                buttons=[], allow_preview=False,
            )  # fmt: skip
            download = gr.DownloadButton("Download PNG", interactive=False, elem_id="download")
        with gr.Column(min_width=320):
            changed = gr.Image(
                label="Difference: black is unchanged", format="png", interactive=False, height=300,
                elem_id="difference", buttons=["fullscreen"],
            )  # fmt: skip
            with gr.Accordion("How it was made", open=False):
                details = gr.JSON(show_label=False, elem_id="details")
    return EditLayout(
        picture=picture,
        view=view,
        region_line=region_line,
        form=form,
        cut=cut,
        find=find,
        edit=edit,
        cancel=cancel,
        status=status,
        result=result,
        slider=slider,
        difference=changed,
        gallery=gallery,
        download=download,
        details=details,
    )


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


def _examples(examples: list[list[str]], picture: Any, instruction: Any) -> None:
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


def _cut(config: AppConfig) -> list:
    import gradio as gr

    region = config.region
    return [
        gr.Slider(0.02, 0.98, region.threshold, step=0.02, label="Threshold", elem_id="threshold", min_width=150),
        gr.Slider(-40, 40, region.grow, step=1, label="Grow", elem_id="grow", min_width=150),
        gr.Slider(0, 40, region.feather, step=1, label="Feather", elem_id="feather", min_width=150),
    ]


def _settings(config: AppConfig, own: Settings, instruction: Any) -> Form:
    """Add the folded section of all settings that have a default."""
    import gradio as gr

    shown = offered(config)
    with gr.Accordion("Settings", open=False, elem_id="settings"):
        with gr.Row():
            seed = gr.Number(own.seed, label="Seed", precision=0, minimum=0, elem_id="seed", min_width=120)
            variants = gr.Slider(
                1,
                config.max_variants,
                own.variants,
                step=1,
                label="Variants",
                elem_id="variants-wanted",
                min_width=120,
            )
        with gr.Row():
            steps = gr.Slider(
                1,
                config.max_steps,
                own.num_inference_steps,
                step=1,
                label="Steps",
                elem_id="steps",
                min_width=120,
                visible="num_inference_steps" in shown,
            )
            guidance = gr.Slider(1, 20, own.guidance_scale, step=0.1, label="Text guidance", min_width=120)
        with gr.Row(visible=bool({"image_guidance_scale", "strength"} & {*shown})):
            image_guidance = gr.Slider(
                1,
                5,
                own.image_guidance_scale,
                step=0.1,
                label="Image guidance",
                min_width=120,
                visible="image_guidance_scale" in shown,
            )
            noise = gr.Slider(
                0.05,
                1,
                own.strength,
                step=0.05,
                label="Noise at the start; 1 is pure noise",
                min_width=120,
                visible="strength" in shown,
            )
        strengths = gr.Textbox(own.strengths, label="Strength of each change", placeholder="1; 1.5")
        source = gr.Textbox(
            label="What the picture shows",
            info="Filled in when the region is found; you can correct it.",
            elem_id="source-caption",
        )
        target = gr.Textbox(label="What the edited picture should show", elem_id="target-caption")
    return Form(instruction, strengths, seed, steps, guidance, image_guidance, noise, variants, source, target)
