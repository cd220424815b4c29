"""Download the public models of edit_sd15, edit_foi and train_sd15_* at pinned revisions, for offline machines.

    make fetch-models            or   python data_prep/fetch_models.py --cache /shared/hub

They go to the Hugging Face cache, where the configurations find them without any change. Afterwards `HF_HUB_OFFLINE=1`
keeps every run off the network. About 9 GB, safetensors only. An interrupted download continues where it stopped.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Pinned:
    """One repository of the hub at one commit; `files` are patterns, the licence is shown at the download."""

    name: str
    revision: str
    files: tuple[str, ...]
    licence: str


MODELS = (
    Pinned(
        "timm/vit_large_patch14_clip_224.openai",  # where open_clip looks for ViT-L-14 with the tag openai
        "18d0535469bb561bf468d76c1d73aa35156c922b",
        ("open_clip_config.json", "open_clip_model.safetensors"),
        "MIT",
    ),
    Pinned(
        "google/flan-t5-base",
        "7bcac572ce56db69c1ea7c8af255c5d7c9672fc2",
        ("*.json", "spiece.model", "model.safetensors"),
        "Apache-2.0",
    ),
    Pinned(
        "stable-diffusion-v1-5/stable-diffusion-inpainting",
        "8a4288a76071f7280aedbdb3253bdb9e9d5d84bb",
        (
            "model_index.json", "scheduler/*.json", "tokenizer/*", "feature_extractor/*.json", "*/config.json",
            "text_encoder/model.fp16.safetensors", "unet/diffusion_pytorch_model.fp16.safetensors",
            "vae/diffusion_pytorch_model.fp16.safetensors",
        ),
        "CreativeML OpenRAIL-M, whose use restrictions also bind edited pictures",
    ),
    Pinned(
        "madebyollin/taesd",
        "614f76814bbe30edbe2e627ace1c2234c81a2c0e",
        ("config.json", "diffusion_pytorch_model.safetensors"),
        "MIT",
    ),
    Pinned(
        "timbrooks/instruct-pix2pix",
        "31519b5cb02a7fd89b906d88731cd4d6a7bbf88d",
        (
            "model_index.json", "scheduler/*.json", "tokenizer/*", "feature_extractor/*.json", "*/config.json",
            "text_encoder/model.safetensors", "unet/diffusion_pytorch_model.safetensors",
            "vae/diffusion_pytorch_model.safetensors",
        ),
        "MIT; its weights derive from Stable Diffusion 1.5 and share that one's restrictions",
    ),
)  # fmt: skip


def fetch(model: Pinned, cache: Path) -> Path:
    """Download one model into a cache; returns its folder there.

    open_clip always loads the branch `main` and takes no revision. If the cache has no `main` yet, it is therefore set
    to the pinned commit.
    """
    from huggingface_hub import snapshot_download

    folder = Path(
        snapshot_download(model.name, revision=model.revision, allow_patterns=list(model.files), cache_dir=cache)
    )
    main = folder.parents[1] / "refs" / "main"
    if not main.exists():
        main.parent.mkdir(parents=True, exist_ok=True)
        main.write_text(model.revision)
    return folder


def main(argv: list[str] | None = None) -> None:
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    from rich.console import Console

    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--cache", type=Path, default=Path(HF_HUB_CACHE), help="default: the Hugging Face cache")
    cache = parser.parse_args(argv).cache
    console = Console()
    try:
        for model in MODELS:
            console.print(f"[bold]{model.name}[/bold] at {model.revision[:8]} ({model.licence})", highlight=False)
            console.print(f"  {fetch(model, cache)}", highlight=False, soft_wrap=True)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        print(f"fetch_models.py: {model.name}: {' '.join(str(error).split())[:300]}", file=sys.stderr)
        raise SystemExit(1) from None
    if cache != Path(HF_HUB_CACHE):
        console.print(f"\nexport HF_HUB_CACHE={os.path.abspath(cache)}", highlight=False, soft_wrap=True)
    console.print("Set HF_HUB_OFFLINE=1 to stay off the network.")


if __name__ == "__main__":
    main()
