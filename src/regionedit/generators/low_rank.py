"""Low-rank updates (LoRA), added to a pipeline's weights once, so that inference is not slower."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from regionedit.generators.base import loading

if TYPE_CHECKING:
    from torch import Tensor, nn

    from regionedit.config import DiffusersInpaintConfig

FILE = "pytorch_lora_weights.safetensors"
PARTS = ("unet", "transformer", "text_encoder", "text_encoder_2")
KOHYA = {"unet": "lora_unet_", "text_encoder": "lora_te_", "text_encoder_2": "lora_te2_"}
"""Prefixes in kohya's files, including LCM-LoRA's; the module's name follows, with `_` for `.`."""

ENDINGS = {".lora_down.weight": ".lora_up.weight", ".lora_A.weight": ".lora_B.weight"}
"""Endings of the two factors of an update."""


def add_low_rank(pipeline, config: DiffusersInpaintConfig) -> None:
    """Add the updates of `generator.lora` to the weights: W + alpha / rank * up @ down.

    Raises:
        ValueError: the file does not exist, or it updates modules that this pipeline does not have.
    """
    weights, modules, added = _read(config), _named(pipeline), 0
    for key, down in weights.items():
        ending = next(filter(key.endswith, ENDINGS), None)
        if ending is None:
            continue
        name = key.removesuffix(ending)
        up, alpha = weights.get(name + ENDINGS[ending]), weights.get(name + ".alpha")
        if up is None or name not in modules:
            raise ValueError(
                f"generator.lora: {config.lora} updates {name}, which {type(pipeline).__name__} does not have; "
                "use a LoRA that was made for this model"
            )
        _add(modules[name], down, up, 1.0 if alpha is None else float(alpha) / len(down), config)
        added += 1
    if not added:
        raise ValueError(f"generator.lora: {config.lora} holds no low-rank updates; give a LoRA in safetensors")


def _add(module: nn.Module, down: Tensor, up: Tensor, scale: float, config: DiffusersInpaintConfig) -> None:
    weight = module.weight
    update = up.float().flatten(1) @ down.float().flatten(1)
    if update.numel() != weight.numel():
        raise ValueError(
            f"generator.lora: an update in {config.lora} is {tuple(update.shape)} where the weight is "
            f"{tuple(weight.shape)}; use a LoRA that was made for this model"
        )
    with torch.no_grad():
        weight.copy_(weight.float() + scale * update.view(weight.shape))


def _named(pipeline) -> dict[str, nn.Module]:
    named = {}
    for part in PARTS:
        module = getattr(pipeline, part, None)
        for name, inner in module.named_modules() if module is not None else ():
            if isinstance(getattr(inner, "weight", None), torch.nn.Parameter):
                named[f"{part}.{name}"] = inner
                if part in KOHYA:
                    named[KOHYA[part] + name.replace(".", "_")] = inner
    return named


def _read(config: DiffusersInpaintConfig) -> dict[str, Tensor]:
    from huggingface_hub import hf_hub_download
    from safetensors.torch import load_file

    file = Path(config.lora)
    with loading("generator.lora", FILE, config.lora):
        if file.is_dir():
            file = file / FILE
        elif not file.exists():
            file = Path(hf_hub_download(config.lora, FILE, revision=config.lora_revision))
        return load_file(file)
