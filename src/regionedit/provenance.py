"""What made a result: which weights, byte for byte, and which packages."""

from __future__ import annotations

import functools
import hashlib
import platform
from importlib import metadata
from pathlib import Path

PACKAGES = ("regionedit", "torch", "diffusers", "transformers", "open_clip_torch", "numpy", "pillow")
_FILES_WITH_A_COMMIT = ("config.json", "model_index.json", "open_clip_config.json")


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
    """Say which weights a name stands for now.

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
    """One digest over names and contents; read once in a process, because weights can be gigabytes."""
    total = hashlib.sha256()
    for path in sorted(p for p in Path(folder).rglob("*") if p.is_file()):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    return total.hexdigest()


def _cached_commit(name: str, revision: str | None) -> str | None:
    if name.count("/") != 1:
        return None
    from huggingface_hub import try_to_load_from_cache

    for file in _FILES_WITH_A_COMMIT:
        found = try_to_load_from_cache(name, file, revision=revision)
        if isinstance(found, str):
            return Path(found).parent.name
    return None
