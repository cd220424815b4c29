"""Which of diffusers' in-painting pipelines are supported, and how each differs from the others.

Taken from diffusers 0.42.1; a test compares what can be compared with the installed classes.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from regionedit.command_line import one_line

if TYPE_CHECKING:
    from regionedit.config import DiffusersInpaintConfig

MEGAPIXEL = 1024 * 1024


@dataclass(frozen=True)
class InpaintPipeline:
    """How one class is called.

    Args:
        needs: the text that it follows.
        strength: its own default: 1 starts from pure noise, below 1 the source remains partly visible.
        siblings: classes whose checkpoints hold the same components, for `generator.pipeline`.
        guidance: the argument that receives `generator.guidance_scale`.
        negative: text of the branch without the prompt, for a class that applies guidance only if it gets such a text.
        latents: layout of its latents, a key of `inpaint_latents.UNPACKERS`.
        mask_cells: side, in latent cells, of the squares that share one mask value; 0: it reads the mask per pixel.
        batches: one call can take several pictures; otherwise one call per picture.
        pil: it accepts only PIL pictures.
        area: it works at this many pixels, whatever the size of the input.
        most_pixels: it scales down inputs with more pixels than this.
        keeps_size: it has arguments that stop it from resizing to sizes of its own.
        forgets_shift: its final decoding omits the autoencoder's shift, so `DiffusersInpaint` decodes instead.
        reads_guidance_embeds: it reads this entry of its transformer's configuration, which checkpoints lack.
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
    reads_guidance_embeds: bool = False

    def working_size(self, height: int, width: int, multiple: int) -> tuple[int, int]:
        """Height and width at which it works for a picture of this size, by its own arithmetic."""
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
    "ChromaInpaintPipeline": InpaintPipeline("target_caption", 0.6, ("ChromaPipeline",), reads_guidance_embeds=True),
}


def require_pipeline(config: DiffusersInpaintConfig) -> tuple[str, InpaintPipeline]:
    """The class that `generator.pipeline` names or, if it is null, the checkpoint; loads no weights.

    Raises:
        ValueError: the named class is not in `INPAINT_PIPELINES`.
    """
    if config.pipeline is not None:
        if config.pipeline not in INPAINT_PIPELINES:
            raise ValueError(
                f"generator.pipeline: no in-painting pipeline {config.pipeline!r}; there are: "
                f"{', '.join(INPAINT_PIPELINES)}"
            )
        return config.pipeline, INPAINT_PIPELINES[config.pipeline]
    named = _index(config.path, config.revision)["_class_name"]
    if named not in INPAINT_PIPELINES:
        siblings = [name for name, entry in INPAINT_PIPELINES.items() if named in entry.siblings]
        fix = f"set generator.pipeline to {siblings[0]}" if siblings else f"use one of {', '.join(INPAINT_PIPELINES)}"
        raise ValueError(f"generator.path: {config.path} holds a {named}, not a known in-painting pipeline; {fix}")
    return named, INPAINT_PIPELINES[named]


def require_checkpoint(config: DiffusersInpaintConfig, name: str, components: set[str]) -> None:
    """Reject a checkpoint that lacks components of this class, before any weights are read.

    Raises:
        ValueError: names both classes, or the missing components.
    """
    index, folder = _index(config.path, config.revision), Path(config.path)
    fits = (name, *INPAINT_PIPELINES[name].siblings)
    if index["_class_name"] not in fits:
        raise ValueError(
            f"generator.path: {config.path} holds a {index['_class_name']}; {name} needs a checkpoint of "
            f"{' or '.join(fits)}"
        )
    present = {part for part, kind in index.items() if isinstance(kind, list) and kind[0] is not None}
    if folder.is_dir():
        components = components | present - ({"safety_checker"} if config.safety_checker == "off" else set())
        present = {part for part in present if (folder / part).is_dir()}
    if missing := sorted(components - present):
        raise ValueError(
            f"generator.path: {config.path} lacks {', '.join(missing)} of its {name}; download it again, for "
            f"example with `hf download`"
        )


def _index(path: str, revision: str | None) -> dict:
    """The model_index.json of a folder or hub name.

    Raises:
        ValueError: it does not exist, or the hub refuses access; says what to do.
    """
    file = Path(path) / "model_index.json"
    if Path(path).is_dir() and not file.exists():
        raise ValueError(f"generator.path: {path} has no model_index.json; give a folder in diffusers' layout")
    if not file.exists():
        file = _from_hub(path, revision)
    try:
        index = json.loads(file.read_text())
        return index | {"_class_name": str(index["_class_name"])}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"generator.path: model_index.json of {path} names no pipeline class; replace it") from error


@lru_cache
def _from_hub(path: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(hf_hub_download(path, "model_index.json", revision=revision))
    except LocalEntryNotFoundError as error:
        raise ValueError(
            f"generator.path: no folder {path!r} here, and the hub cannot be reached; give a folder, or run "
            f"`hf download {path}` on a machine with network access"
        ) from error
    except (RepositoryNotFoundError, EntryNotFoundError, OSError, ValueError) as error:
        raise hub_refusal(path, error) from error


def hub_refusal(path: str, error: Exception) -> ValueError:
    """An error of the hub, or of loading from it, as a message that says what the user can do."""
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, GatedRepoError) or status in (401, 403):
        return ValueError(
            f"generator.path: {path} requires you to accept its conditions: accept them on "
            f"https://huggingface.co/{path} and log in with `hf auth login`"
        )
    if isinstance(error, RepositoryNotFoundError | HFValidationError):
        return ValueError(
            f"generator.path: no folder and no model {path!r} on the hub; check the name, or log in with "
            "`hf auth login` if it is private"
        )
    return ValueError(f"generator.path: no in-painting pipeline could be loaded from {path!r}: {one_line(error, 200)}")
