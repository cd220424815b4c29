"""Models in the layout of the Hugging Face cache, where programs find them by their public names."""

from pathlib import Path


def snapshot(cache: Path, name: str, revision: str) -> Path:
    """The folder in a cache, not made yet, for the files of a repository at a commit, which becomes its `main`."""
    folder = cache / f"models--{name.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(revision)
    return folder / "snapshots" / revision
