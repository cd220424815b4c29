"""How a result was made: request, settings, hashes of the weights, packages. run.json stores it to repeat an edit."""

from __future__ import annotations

import functools
import hashlib
import json
import platform
import re
from dataclasses import asdict, fields
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regionedit.config import EditConfig
from regionedit.images import digest
from regionedit.originals import original_of, source_digest

if TYPE_CHECKING:
    from PIL.Image import Image

    from regionedit.records import EditRequest

PACKAGES = ("regionedit", "torch", "diffusers", "transformers", "open_clip_torch", "numpy", "pillow")
_FILES_WITH_A_COMMIT = ("config.json", "model_index.json", "open_clip_config.json")
NO_INFLUENCE = ("device", "batch", "max_pixels")  # settings that change no pixel of a result
# Settings that earlier versions did not have. A digest leaves them out while they are off, so that old ones stay valid.
OFF_AT_FIRST = ("layers", "margin", "register", "grow_if_cut", "sample_grow", "tone")
NO_INFLUENCE_ON_ANSWERS = (
    "device", "api_key_variable", "concurrency", "timeout", "attempts", "cache", "cache_entries",
)  # fmt: skip
SCHEMA = 2  # 1: the noise also depended on the id


def run_record(config: EditConfig, request: EditRequest, mask_source: str) -> dict[str, Any]:
    """The request, the settings and the models, as plain values.

    Args:
        request: its picture is upright RGB already.
        mask_source: the mask source or expression that finds the region; it may differ from the configured one.
    """
    return {
        "schema": SCHEMA,
        "id": request.id,
        "instructions": [asdict(instruction) for instruction in request.instructions],
        "seed": request.seed,
        "picture": {
            "path": request.image.info["path"],
            "size": list(request.image.size),
            "sha256": source_digest(request.image),
            "stored": original_of(request.image).description,
            "notes": request.image.info["notes"],
        },
        "mask_source": mask_source,
        "mask": request.mask and _mask(request.mask),
        "mask_operations": list(request.mask_operations),
        "box": request.box and list(request.box),
        "click": request.click and [list(point) for point in request.click],
        "settings": _settings(config),
        "models": _models(config, mask_source),
        "packages": packages(),
        "digest": request_digest(config, request, mask_source),
    }


def _mask(mask: Image) -> dict[str, Any]:
    """The given mask: its file, its pixels after reading, and how it was understood."""
    return {
        "path": mask.info.get("path", ""),
        "sha256": digest(mask.convert("L")),
        "notes": list(mask.info.get("notes", ())),
    }


def request_digest(config: EditConfig, request: EditRequest, mask_source: str) -> str:
    """SHA-256 of all that decides the result: picture, instructions, seed, captions, region, settings, weights."""
    settings = {name: value for name, value in _settings(config).items() if name not in (*NO_INFLUENCE, "mask_source")}
    settings["region"] = {k: v for k, v in settings["region"].items() if k != "vlm_box"}
    for section in ("crop", "region"):
        settings[section] = {k: v for k, v in settings[section].items() if v or k not in OFF_AT_FIRST}
    settings = {name: value for name, value in settings.items() if value or name not in OFF_AT_FIRST}
    settings["describe"] = _decisive(settings["describe"])
    if "vlm_box" in _names(mask_source):
        settings["region"]["vlm_box"] = _decisive(asdict(config.region.vlm_box))
    decides = {
        "picture": source_digest(request.image),
        "metadata": hashlib.sha256(repr(original_of(request.image).metadata).encode()).hexdigest(),
        "instructions": [asdict(instruction) for instruction in request.instructions],
        "seed": request.seed,
        "captions": request.captions and asdict(request.captions),
        "mask": request.mask and digest(request.mask.convert("L")),
        "box": request.box,
        "click": request.click,
        "mask_source": mask_source,
        "settings": settings,
        "models": _models(config, mask_source),
    }
    if request.mask_operations:  # not listed if there are none: digests of earlier versions stay valid
        decides["mask_operations"] = request.mask_operations
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def _decisive(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of a model that answers questions, without those that change no answer."""
    return {name: value for name, value in settings.items() if name not in NO_INFLUENCE_ON_ANSWERS}


def _names(mask_source: str) -> set[str]:
    """All names of an expression."""
    return set(re.findall(r"\w+", mask_source))


def _settings(config: EditConfig) -> dict[str, Any]:
    """The fields of `EditConfig` itself, without the additional arguments of a command."""
    values = asdict(config)
    return {f.name: values[f.name] for f in fields(EditConfig)}


def _models(config: EditConfig, mask_source: str) -> dict[str, dict]:
    """The weights that the edit uses."""
    encoders = config.encoders
    used = {"generator": identify(config.generator.path, config.generator.revision)}
    sources = _names(mask_source)
    if sources & {"learned", "clip_similarity", "box_search"}:
        used["clip"] = identify(encoders.clip, encoders.clip_pretrained)
    if "sam" in sources or config.region.refine != "none":
        used["sam"] = identify(config.region.sam)
    if "ip2p_attention" in sources and config.generator.name != "instruct_pix2pix":
        used["attention"] = identify(config.region.attention.path, config.region.attention.revision)
    if "learned" in sources:
        used["instruction"] = identify(encoders.instruction, encoders.instruction_revision)
        used["region"] = config.region.checkpoint and identify(config.region.checkpoint)
    describe = config.describe
    if describe.name in ("two_stage", "vlm"):
        used["vision"] = identify(describe.vision, describe.vision_revision)
    if describe.name == "two_stage":
        used["language"] = identify(describe.language, describe.language_revision)
    return used


@functools.cache
def packages() -> dict[str, str]:
    """Versions of Python and of every package that can change a pixel."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def identify(name: str, revision: str | None = None) -> dict[str, str | None]:
    """Identify the weights that a name refers to now.

    Args:
        name: a folder, a hub name, or a name known to its library; open_clip's `local-dir:` and `hf-hub:` are read.
        revision: as configured.

    Returns:
        `name` and `revision`; for a folder `sha256` over its files, for a cached hub name the `commit` it resolved to.
    """
    bare = name.removeprefix("local-dir:").removeprefix("hf-hub:")
    known: dict[str, str | None] = {"name": name, "revision": revision}
    if Path(bare).is_dir():
        return known | {"sha256": _folder_sha256(str(Path(bare).resolve()))}
    commit = _cached_commit(bare, revision)
    return known | ({"commit": commit} if commit else {})


@functools.cache
def _folder_sha256(folder: str) -> str:
    """One digest of names and contents; computed once per process, because weights can be gigabytes."""
    total = hashlib.sha256()
    for path in sorted(p for p in Path(folder).rglob("*") if p.is_file()):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    return total.hexdigest()


def _cached_commit(name: str, revision: str | None) -> str | None:
    if name.count("/") != 1 or name.startswith(("/", ".")):  # a folder that does not exist
        return None
    from huggingface_hub import try_to_load_from_cache

    for file in _FILES_WITH_A_COMMIT:
        found = try_to_load_from_cache(name, file, revision=revision)
        if isinstance(found, str):
            return Path(found).parent.name
    return None
