"""Editing: where the region comes from, where captions come from, one edit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from regionedit.config.models import MICROWORLD, EncodersConfig, GeneratorConfig


def _attention() -> GeneratorConfig:
    """FoI's settings for the microworld's InstructPix2Pix; its whole latent is read, a quarter would be four cells."""
    return GeneratorConfig(
        name="instruct_pix2pix",
        path=f"{MICROWORLD}/ip2p",
        steps=10,
        start=0.8,
        guidance=2.5,
        attention_resolution=16,
    )


@dataclass
class RegionConfig:
    """How a probability map becomes the mask of an edit.

    Args:
        checkpoint: region_predictor/ folder or hub name, for the mask source `learned`; None: not trained yet.
        untrained: mask source, or expression of several, that takes the place of `learned` while there is no
            checkpoint; each result says so. None: asking for `learned` fails, and says what to do.
        attention: the InstructPix2Pix that `ip2p_attention` reads where the generator is another one.
        threshold: P above it is edited.
        dilate: grows the mask, in patches of the predictor's grid, fractions allowed; learned masks are core-tight.
        feather: softens the mask's edge, in pixels of the original picture, inwards only.
        upsample: how the grid becomes a picture-sized mask.
        sam: Segment Anything, of the mask source `sam` and of `refine`: folder or hub name of a SAM or SAM 2 in
            transformers' layout.
        refine: `sam` makes every region that was found object-tight: SAM is asked for the thing at the region's peak,
            within its box. Regions that a person drew, and those that look at nothing, stay as they are. `auto` does
            so where the model is on this machine, and says so where it is not.
        unfound: what is edited where a mask source that looks for a thing finds nothing above the threshold: `nothing`
            returns the picture as it was, `everything` edits the whole of it; either way the result says so. For
            generators that see the source, such as InstructPix2Pix: an in-painter would invent a new picture.
        grow: grows the mask, in pixels of the original picture; negative shrinks it. For any mask source.
    """

    checkpoint: str | None = f"{MICROWORLD}/region_predictor"
    untrained: str | None = None
    attention: GeneratorConfig = field(default_factory=_attention)
    threshold: float = 0.5
    dilate: float = 0.0
    feather: float = 0.0
    upsample: Literal["nearest", "bilinear"] = "bilinear"
    sam: str = f"{MICROWORLD}/sam"
    refine: Literal["none", "sam", "auto"] = "none"
    unfound: Literal["nothing", "everything"] = "nothing"
    grow: int = 0


@dataclass
class DescribeConfig:
    """Where captions come from when a request gives none.

    Args:
        name: key of DESCRIBERS: `given` (fail without), `microworld` (reads pixels and the instruction), `two_stage`
            (the paper: `vision` tells what the picture shows, `language` what it shall show), `vlm` (`vision` tells
            both at once, in half the memory), `endpoint` (the same from a model behind HTTP).
        vision: a vision-language model: folder or hub name of an AutoModelForImageTextToText. The paper's is
            Qwen2.5-VL. `microworld`, for `two_stage` only: no model, a microworld picture is read from its pixels.
        vision_revision: pinned revision of a hub name.
        language: a language model: folder or hub name of an AutoModelForCausalLM. The paper's is Qwen2.5.
        language_revision: pinned revision of a hub name.
        device: of these models: cpu, cuda, cuda:1, mps; auto takes what is there.
        precision: of their weights; auto as for the generator.
        max_tokens: longest answer.
        picture_size: longer side of a picture as a vision-language model is shown it, in pixels.
        endpoint: address of an OpenAI-compatible server up to /v1: vLLM, SGLang, llama.cpp or a hosted service.
        endpoint_model: the name that the server knows the model by.
        api_key_variable: environment variable that holds the server's key; None where it wants none.
        concurrency: questions that wait for the server at one time.
        timeout: seconds for one attempt.
        attempts: how often a question is put to a server that is busy or does not answer.
        cache: folder where answers of models are kept for later runs, by picture, instructions, model and prompt; any
            number of processes may share it. None keeps none.
        cache_entries: the oldest answers make room for more than these.
    """

    name: str = "microworld"
    vision: str = "microworld"
    vision_revision: str | None = None
    language: str = f"{MICROWORLD}/qwen"
    language_revision: str | None = None
    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    max_tokens: int = 256
    picture_size: int = 768
    endpoint: str = ""
    endpoint_model: str = ""
    api_key_variable: str | None = None
    concurrency: int = 8
    timeout: float = 60.0
    attempts: int = 5
    cache: str | None = "outputs/captions"
    cache_entries: int = 100_000


@dataclass
class CropConfig:
    """Crop and stitch: what the generator is shown of a picture that is larger than `generator.size`.

    Args:
        context: side of the window around a region, in longer sides of the region's box, at least 1; a window never has
            fewer pixels a side than `generator.size`, so that nothing is enlarged. 0: the whole picture, made smaller.
        match: pixels, into the region, over which the difference of the edited picture and the source just outside of
            it is taken back; hides a seam (Poisson image editing, within a band). 0: not at all.
    """

    context: float = 0.0
    match: float = 0.0


@dataclass
class EditConfig:
    """`python infer.py --config FILE`: edit pictures.

    Args:
        mask_source: key of MASK_SOURCES, or an expression of several: `learned + sam - drawn`, with `+` for either, `-`
            for without, `&` for both, and brackets. A request that is marked otherwise than it reads is edited there:
            where it was drawn, or by `sam` where it was clicked.
        joint: several instructions of one request are joined into one edit; false makes them one after another, each
            on the result of the one before and with captions of its own: given ones speak of the whole edit.
        device: cpu, cuda, cuda:1, mps; auto takes what is there.
        max_pixels: larger pictures are refused.
        batch: requests edited together.
    """

    mask_source: str = "learned"
    joint: bool = True
    device: str = "auto"
    max_pixels: int = 50_000_000
    batch: int = 16
    encoders: EncodersConfig = field(default_factory=EncodersConfig)
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    region: RegionConfig = field(default_factory=RegionConfig)
    describe: DescribeConfig = field(default_factory=DescribeConfig)
    crop: CropConfig = field(default_factory=CropConfig)
