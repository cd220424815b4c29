"""Which of diffusers' in-painting pipelines can be driven, and how each differs from the others.

Read off diffusers 0.42.1; a test compares what can be compared with the installed classes.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from regionedit.config import GeneratorConfig

MEGAPIXEL = 1024 * 1024


@dataclass(frozen=True)
class InpaintPipeline:
    """How one class is called.

    Args:
        needs: the text it follows.
        strength: its own default: 1 starts from pure noise, below it the source shines through.
        siblings: classes whose checkpoints hold the same components, for `generator.pipeline`.
        guidance: the argument that `generator.guidance` goes to.
        negative: text of the branch without the prompt, for a class that guides only where one is given.
        latents: how its latents are laid out, a key of `inpaint_latents.UNPACKERS`.
        mask_cells: latent cells on a side that share one value of its mask; 0: it reads the mask's pixels.
        batches: several pictures in one call; otherwise they are taken one by one.
        pil: it takes PIL pictures only.
        area: it works at this many pixels, whatever it is given.
        most_pixels: it scales down what has more.
        keeps_size: arguments that stop it from scaling to sizes of its own.
        forgets_shift: its last decoding leaves out the autoencoder's shift, so that we decode.
        asks_guidance: it asks its transformer's configuration for `guidance_embeds`, which that does not have.
    """

    needs: Literal["target_caption", "instruction"]
    strength: float
    siblings: tuple[str, ...] = ()
    guidance: Literal["guidance_scale", "true_cfg_scale"] = "guidance_scale"
    negative: str | None = None
    latents: Literal["plain", "packed", "packed_video", "patched"] = "packed"
    mask_cells: int = 1
    batches: bool = True
    pil: bool = False
    area: int = 0
    most_pixels: int = 0
    keeps_size: bool = False
    forgets_shift: bool = False
    asks_guidance: bool = False

    def working_size(self, height: int, width: int, multiple: int) -> tuple[int, int]:
        """Pixels at which it works when it is given a picture of this size, by its own arithmetic."""
        if self.area:
            wide = math.sqrt(self.area * (width / height))
            height, width = (round(side / 32) * 32 for side in (wide / (width / height), wide))
        elif self.most_pixels and height * width > self.most_pixels:
            scale = math.sqrt(self.most_pixels / (height * width))
            height, width = int(height * scale), int(width * scale)
        return height // multiple * multiple, width // multiple * multiple


INPAINT_PIPELINES: dict[str, InpaintPipeline] = {
    "StableDiffusionInpaintPipeline": InpaintPipeline(
        "target_caption", 1.0, ("StableDiffusionPipeline",), latents="plain"
    ),
    "StableDiffusionXLInpaintPipeline": InpaintPipeline(
        "target_caption", 0.9999, ("StableDiffusionXLPipeline",), latents="plain"
    ),
    "StableDiffusion3InpaintPipeline": InpaintPipeline(
        "target_caption", 0.6, ("StableDiffusion3Pipeline",), latents="plain", forgets_shift=True
    ),
    "FluxFillPipeline": InpaintPipeline("target_caption", 1.0, mask_cells=0),
    "FluxInpaintPipeline": InpaintPipeline("target_caption", 0.6, ("FluxPipeline",)),
    "FluxKontextInpaintPipeline": InpaintPipeline("instruction", 1.0, ("FluxKontextPipeline",), keeps_size=True),
    "Flux2KleinInpaintPipeline": InpaintPipeline(
        "instruction", 0.8, ("Flux2KleinPipeline",), latents="patched", mask_cells=2, most_pixels=MEGAPIXEL
    ),
    "QwenImageInpaintPipeline": InpaintPipeline(
        "target_caption", 0.6, ("QwenImagePipeline",), "true_cfg_scale", negative=" ", latents="packed_video"
    ),
    "QwenImageEditInpaintPipeline": InpaintPipeline(
        "instruction",
        0.6,
        ("QwenImageEditPipeline",),
        "true_cfg_scale",
        negative=" ",
        latents="packed_video",
        batches=False,
        pil=True,
        area=MEGAPIXEL,
    ),
    "ZImageInpaintPipeline": InpaintPipeline("target_caption", 1.0, ("ZImagePipeline",), latents="plain"),
    "ChromaInpaintPipeline": InpaintPipeline("target_caption", 0.6, ("ChromaPipeline",), asks_guidance=True),
}


def require_pipeline(config: GeneratorConfig) -> tuple[str, InpaintPipeline]:
    """The class that `generator.pipeline` names or, where it is null, the checkpoint; loads no weights.

    Raises:
        ValueError: no such class in the table, or a checkpoint that says of itself that it is something else.
    """
    if config.pipeline is not None:
        if config.pipeline not in INPAINT_PIPELINES:
            raise ValueError(
                f"generator.pipeline: no in-painting pipeline {config.pipeline!r}; there are: "
                f"{', '.join(INPAINT_PIPELINES)}"
            )
        return config.pipeline, INPAINT_PIPELINES[config.pipeline]
    found = _index(config.path, config.revision)["_class_name"]
    if found not in INPAINT_PIPELINES:
        siblings = [name for name, entry in INPAINT_PIPELINES.items() if found in entry.siblings]
        way = f"set generator.pipeline to {siblings[0]}" if siblings else f"use one of {', '.join(INPAINT_PIPELINES)}"
        raise ValueError(f"generator.path: {config.path} holds a {found}, which in-paints nothing; {way}")
    return found, INPAINT_PIPELINES[found]


def require_checkpoint(config: GeneratorConfig, name: str, components: set[str]) -> None:
    """Refuse, before any weights are read, a checkpoint that does not hold this class's components.

    Raises:
        ValueError: names both classes, or what is missing.
    """
    index, folder = _index(config.path, config.revision), Path(config.path)
    fits = (name, *INPAINT_PIPELINES[name].siblings)
    if index["_class_name"] not in fits:
        raise ValueError(
            f"generator.path: {config.path} holds a {index['_class_name']}; {name} needs a checkpoint of "
            f"{' or '.join(fits)}"
        )
    there = {part for part, kind in index.items() if isinstance(kind, list) and kind[0] is not None}
    if folder.is_dir():
        components = components | there - ({"safety_checker"} if config.safety_checker == "off" else set())
        there = {part for part in there if (folder / part).is_dir()}
    if missing := sorted(components - there):
        raise ValueError(
            f"generator.path: {config.path} lacks {', '.join(missing)} of its {name}; get it again, for example with "
            f"`hf download`"
        )


def _index(path: str, revision: str | None) -> dict:
    """The model_index.json in a folder or under a hub name.

    Raises:
        ValueError: there is none, or the hub does not give it out; says what to do.
    """
    place = Path(path) / "model_index.json"
    if Path(path).is_dir() and not place.exists():
        raise ValueError(f"generator.path: {path} has no model_index.json; give a folder in diffusers' layout")
    if not place.exists():
        place = _from_hub(path, revision)
    try:
        index = json.loads(place.read_text())
        return index | {"_class_name": str(index["_class_name"])}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"generator.path: model_index.json of {path} names no pipeline class; get it again") from error


@lru_cache
def _from_hub(path: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(hf_hub_download(path, "model_index.json", revision=revision))
    except LocalEntryNotFoundError as error:
        raise ValueError(
            f"generator.path: no folder {path!r} here, and the hub cannot be reached; give a folder, or run "
            f"`hf download {path}` where there is a network"
        ) from error
    except (RepositoryNotFoundError, EntryNotFoundError, OSError, ValueError) as error:
        raise hub_refusal(path, error) from error


def hub_refusal(path: str, error: Exception) -> ValueError:
    """What a person can do about an error of the hub's or of loading from it."""
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, GatedRepoError) or status in (401, 403):
        return ValueError(
            f"generator.path: {path} is given to those who accept its conditions: accept them on "
            f"https://huggingface.co/{path} and log in with `hf auth login`"
        )
    if isinstance(error, RepositoryNotFoundError | HFValidationError):
        return ValueError(
            f"generator.path: no folder and no model {path!r} at the hub; check the name, or log in with "
            "`hf auth login` if it is private"
        )
    return ValueError(
        f"generator.path: no in-painting pipeline could be loaded from {path!r}: {' '.join(str(error).split())[:200]}"
    )
