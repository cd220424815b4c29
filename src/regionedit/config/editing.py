"""Settings of editing: region, cropping, and the edit as a whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from regionedit.config.describers import DESCRIBE_CONFIGS, DescribeConfig, MicroworldConfig, VlmBoxConfig
from regionedit.config.generators import (
    GENERATOR_CONFIGS,
    GeneratorConfig,
    InstructPix2PixConfig,
    StableDiffusionConfig,
)
from regionedit.config.models import MICROWORLD, EncodersConfig


def _attention() -> InstructPix2PixConfig:
    """FoI's settings for the microworld's InstructPix2Pix. Attention is read at the latent's full resolution; a quarter
    of it would be four cells."""
    return InstructPix2PixConfig(num_inference_steps=10, strength=0.8, guidance_scale=2.5, attention_resolution=16)


@dataclass
class RegionConfig:
    """How the region of an edit is found and becomes a mask.

    Args:
        checkpoint: region_predictor/ folder or hub name, for the mask source `learned`; None: no predictor is trained
            yet.
        untrained: mask source or expression that replaces `learned` while there is no checkpoint; each result says so.
            None: `learned` fails with a message that says what to do.
        attention: the InstructPix2Pix whose attention `ip2p_attention` reads if the generator is another one.
        vlm_box: the vision-language model of the mask source `vlm_box`.
        threshold: pixels with a probability P above it are edited.
        dilate: grows the mask by this many patches of the predictor's grid, fractions allowed; learned masks tend to
            cover only the core of an object.
        feather: softens the mask's edge, in pixels of the original picture, inwards only.
        upsample: how the patch grid is interpolated to the picture's size.
        sam: Segment Anything for the mask source `sam` and for `refine`: folder or hub name of a SAM or SAM 2 in
            transformers' layout.
        refine: `sam` tightens every found region to an object: SAM segments the object at the region's peak, within its
            box. Regions that the user marked and fixed regions stay as they are. `auto` does so if the model is on this
            machine, and logs a warning if it is not.
        if_empty: what to edit if a mask source that searches for an object finds nothing above the threshold: `nothing`
            returns the picture as it was, `everything` edits the whole picture; the result says so in both cases.
            `everything` is for generators that see the source, such as InstructPix2Pix: an in-painter would invent a
            new picture.
        whole_above: if the mean of P is above this, the editor edits the whole picture, and the result says so; for
            an instruction about most of the picture, P is seldom above the threshold everywhere. 1: never.
        nothing_below: if nothing is found and the mean of P is below this, the editor takes the picture to be as
            requested and edits nothing, whatever `if_empty` is; the result says so. 0: never.
        grow: grows the mask, in pixels of the original picture; a negative value shrinks it. For any mask source.
        grow_if_cut: if the region's border cuts off a new object, the editor grows the region by this many pixels of
            the original picture and repaints it once; a note says so. It also applies to regions that the user drew.
            0: off.
    """

    checkpoint: str | None = f"{MICROWORLD}/region_predictor"
    untrained: str | None = None
    attention: InstructPix2PixConfig = field(default_factory=_attention)
    vlm_box: VlmBoxConfig = field(default_factory=VlmBoxConfig)
    threshold: float = 0.5
    dilate: float = 0.0
    feather: float = 0.0
    upsample: Literal["nearest", "bilinear"] = "bilinear"
    sam: str = f"{MICROWORLD}/sam"
    refine: Literal["none", "sam", "auto"] = "none"
    if_empty: Literal["nothing", "everything"] = "nothing"
    whole_above: float = 1.0
    nothing_below: float = 0.0
    grow: int = 0
    grow_if_cut: int = 0


@dataclass
class CropConfig:
    """Crop and stitch: what the generator sees of a picture that is larger than `generator.size`.

    Args:
        context: side of the window around a region, as a multiple of the longer side of the region's box, at least 1; a
            window never has fewer pixels a side than `generator.size`, so that nothing is enlarged. 0: the whole
            picture, scaled down, unless `margin` is set.
        margin: the window extends beyond the region's box by at least this many pixels of the picture on each side; for
            a fixed amount of surroundings, set `context` to 0.
        sample_grow: the generator repaints a mask that is wider than the region by this many pixels of the picture on
            each side, for example so that a small region has room for what it paints; only the region itself is blended
            in. 0: the same mask for both.
        match: hides the seam: the difference between edited picture and source just outside the region is removed over
            this many pixels into the region (Poisson image editing, within a band). 0: off.
        tone: undoes a change of brightness, contrast or colour cast that the generator has made to the whole picture:
            each colour channel of what was painted is scaled and shifted as fits the generator's output to the source
            in a rim of this many pixels around the repainted part. 0: off.
        register: measures by how much the generator has shifted or zoomed the whole picture, outside the region and
            against the source, and undoes it before the output is blended in, if that brings both pictures nearer to
            each other there. For generators such as InstructPix2Pix and Qwen-Image-Edit that repaint the
            whole picture; a note of the result says what was undone.
    """

    context: float = 0.0
    margin: int = 0
    sample_grow: int = 0
    match: float = 0.0
    tone: int = 0
    register: bool = False


@dataclass
class EditConfig:
    """`python infer.py --config FILE`: edit pictures.

    Args:
        mask_source: key of MASK_SOURCES, or an expression of several: `learned + sam - drawn`, with `+` for either, `-`
            for without, `&` for both, and brackets. If a request has marks that it does not read, `sam` (for a click)
            or `drawn` (for a mask or box) replaces it.
        joint: join the instructions of one request into one edit; false edits one after another, each on the previous
            result and with captions of its own, because given captions describe the whole edit.
        device: cpu, cuda, cuda:1, mps; auto takes a GPU if there is one.
        max_pixels: larger pictures are refused.
        depth: `source` keeps the depth of the picture's file outside the region, or refuses a file whose depth cannot
            be kept; `8` edits and writes every picture with 8 bits a channel.
        format: `png` writes result.png; `source` also writes the result in the format of the picture's file, as JPEG
            (which is compressed anew, so that pixels outside the region change a little), WebP or TIFF (exact).
        layers: also write the edited region on transparency (layer.png), and an OpenRaster file for Krita or GIMP with
            the source, the edited region and the mask as layers (result.ora).
        strip_metadata: write no EXIF, XMP and resolution into the result; the colour profile stays.
        batch: number of requests that are edited together.
    """

    mask_source: str = "learned"
    joint: bool = True
    device: str = "auto"
    max_pixels: int = 50_000_000
    depth: Literal["source", 8] = "source"
    format: Literal["png", "source"] = "png"
    layers: bool = False
    strip_metadata: bool = False
    batch: int = 16
    encoders: EncodersConfig = field(default_factory=EncodersConfig)
    generator: GeneratorConfig = field(default_factory=StableDiffusionConfig, metadata={"choices": GENERATOR_CONFIGS})
    region: RegionConfig = field(default_factory=RegionConfig)
    describe: DescribeConfig = field(default_factory=MicroworldConfig, metadata={"choices": DESCRIBE_CONFIGS})
    crop: CropConfig = field(default_factory=CropConfig)

    def __post_init__(self):
        for name in ("batch", "max_pixels"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)}, at least 1 is needed")
