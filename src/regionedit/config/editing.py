"""Settings of editing: region, captions, cropping, and the edit as a whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from regionedit.config.models import MICROWORLD, EncodersConfig, GeneratorConfig


def _attention() -> GeneratorConfig:
    """FoI's settings for the microworld's InstructPix2Pix. Attention is read at the latent's full resolution; a quarter
    of it would be four cells."""
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
    """How the region of an edit is found and becomes a mask.

    Args:
        checkpoint: region_predictor/ folder or hub name, for the mask source `learned`; None: no predictor is trained
            yet.
        untrained: mask source or expression that replaces `learned` while there is no checkpoint; each result says so.
            None: `learned` fails with a message that says what to do.
        attention: the InstructPix2Pix whose attention `ip2p_attention` reads if the generator is another one.
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
        unfound: what to edit if a mask source that searches for an object finds nothing above the threshold: `nothing`
            returns the picture as it was, `everything` edits the whole picture; the result says so in both cases.
            `everything` is for generators that see the source, such as InstructPix2Pix: an in-painter would invent a
            new picture.
        grow: grows the mask, in pixels of the original picture; a negative value shrinks it. For any mask source.
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
    """Where captions come from if a request gives none.

    Args:
        name: key of DESCRIBERS: `given` (fail without captions), `microworld` (reads pixels and the instruction),
            `two_stage` (the paper's: `vision` writes the source caption, `language` the target caption), `vlm`
            (`vision` writes both at once, in half the memory), `endpoint` (as `vlm`, with a model behind HTTP).
        vision: a vision-language model: folder or hub name of an AutoModelForImageTextToText. The paper's is
            Qwen2.5-VL. `microworld`, for `two_stage` only: no model, captions are read from a microworld picture's
            pixels.
        vision_revision: pinned revision of a hub name.
        language: a language model: folder or hub name of an AutoModelForCausalLM. The paper's is Qwen2.5.
        language_revision: pinned revision of a hub name.
        device: device of these models: cpu, cuda, cuda:1, mps; auto takes a GPU if there is one.
        precision: precision of their weights; auto as for the generator.
        max_tokens: maximum length of an answer.
        picture_size: longer side, in pixels, of the picture that a vision-language model gets.
        endpoint: address of an OpenAI-compatible server up to /v1: vLLM, SGLang, llama.cpp or a hosted service.
        endpoint_model: the server's name for the model.
        api_key_variable: environment variable that holds the server's key; None: no key.
        concurrency: maximum number of questions sent to the server at the same time.
        timeout: seconds for one attempt.
        attempts: how often a question is sent to a server that is busy or does not answer.
        cache: folder that keeps the models' answers for later runs, by picture, instructions, model and prompt; any
            number of processes may share it. None: no cache.
        cache_entries: maximum number of answers in the cache; the oldest are deleted.
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
    """Crop and stitch: what the generator sees of a picture that is larger than `generator.size`.

    Args:
        context: side of the window around a region, as a multiple of the longer side of the region's box, at least 1; a
            window never has fewer pixels a side than `generator.size`, so that nothing is enlarged. 0: the whole
            picture, scaled down.
        match: hides the seam: the difference between edited picture and source just outside the region is removed over
            this many pixels into the region (Poisson image editing, within a band). 0: off.
    """

    context: float = 0.0
    match: float = 0.0


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
        batch: number of requests that are edited together.
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
