"""The frozen networks of the metrics, by the field of EvaluateConfig that names them.

They run in float32 on the configured device. A run loads each of them once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

import torch

from regionedit.command_line import one_line
from regionedit.device import pick_device
from regionedit.encoders import FrozenCLIP
from regionedit.evaluation.embedders import DINO_SIZE, ClassToken, Clip, PickScore, dino_preprocess, own_preprocess
from regionedit.evaluation.pair_networks import Lpips, Structure

Field = Literal["judge", "dino", "dinov2", "pick_score", "structure", "lpips"]
Backbone = Clip | ClassToken | PickScore | Structure | Lpips
LPIPS_NETWORKS = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet1_1"}  # torchvision's names


@lru_cache(16)
def load_backbone(field: Field, name: str, device: str = "cpu") -> Backbone:
    """The network of a field of EvaluateConfig.

    Args:
        field: judge, dino, dinov2, pick_score, structure or lpips.
        name: the field's value. For judge (the CLIP of the metrics): `local-dir:FOLDER`, `hf-hub:OWNER/NAME`, or
            `ARCHITECTURE,TAG` of open_clip (`ViT-B-32,openai`). For pick_score: `model` or `model,processor`. For
            lpips: alex, vgg or squeeze. Otherwise a folder or hub name in transformers' layout.
        device: cpu, cuda, cuda:1, mps or auto.

    Raises:
        ValueError: the network cannot be loaded, or the device is missing; one line that names the field.
    """
    torch_device = pick_device(device)
    try:
        return _LOADERS[field](name, torch_device)
    except (OSError, ValueError) as error:
        raise ValueError(f"{field}: {name} cannot be loaded: {one_line(error)}") from None


def _clip(name: str, device: torch.device) -> Clip:
    if ":" not in name and "," not in name:
        raise ValueError(f"an architecture needs its weights' tag, such as {name},openai")
    return Clip(FrozenCLIP.load(*name.split(",", 1)).to(device))


def _dino(name: str, device: torch.device) -> ClassToken:
    model = _vit(name, device)
    size = model.config.image_size
    # DINO's protocol is defined at 224 px; a ViT of another size, such as the microworld's, uses its own preprocessing.
    preprocess = dino_preprocess() if size in (DINO_SIZE, (DINO_SIZE, DINO_SIZE)) else own_preprocess(_processor(name))
    return ClassToken(model, preprocess)


def _dinov2(name: str, device: torch.device) -> ClassToken:
    from transformers import AutoModel

    return ClassToken(_pretrained(AutoModel.from_pretrained, name, device), own_preprocess(_processor(name)))


def _pick_score(name: str, device: torch.device) -> PickScore:
    from transformers import AutoModel, AutoTokenizer

    weights, _, processor = name.partition(",")
    model = _pretrained(AutoModel.from_pretrained, weights, device)
    if not hasattr(model, "get_text_features"):
        raise ValueError("it is no CLIP of transformers")
    processor = processor or weights
    return PickScore(model, own_preprocess(_processor(processor)), AutoTokenizer.from_pretrained(processor))


def _structure(name: str, device: torch.device) -> Structure:
    return Structure(_vit(name, device))


def _lpips(name: str, device: torch.device) -> Lpips:
    if name not in LPIPS_NETWORKS:
        raise ValueError(f"there are: {', '.join(LPIPS_NETWORKS)}")
    try:
        return Lpips(name, device)
    except OSError as error:
        from torchvision.models import get_model_weights

        url = get_model_weights(LPIPS_NETWORKS[name]).DEFAULT.url
        cache = Path(torch.hub.get_dir()) / "checkpoints"
        raise OSError(f"{error}; without a network, put {url} into {cache}") from None


def _vit(name: str, device: torch.device) -> torch.nn.Module:
    from transformers import ViTModel

    return _pretrained(partial(ViTModel.from_pretrained, add_pooling_layer=False), name, device)


def _pretrained(from_pretrained: Callable, name: str, device: torch.device) -> torch.nn.Module:
    if name.startswith((".", "/", "~")) and not Path(name).is_dir():
        raise ValueError("no such folder")  # the hub's client would complain about an invalid name instead
    model, report = from_pretrained(name, output_loading_info=True, dtype=torch.float32)
    if report["missing_keys"]:
        # transformers would continue with random weights in their place.
        raise ValueError(f"its weights lack {min(report['missing_keys'])}")
    return model.to(device)


def _processor(name: str):
    from transformers import AutoImageProcessor

    # By default transformers 5 resizes tensors.
    return AutoImageProcessor.from_pretrained(name, backend="pil")


_LOADERS: dict[Field, Callable[[str, torch.device], Backbone]] = {
    "judge": _clip,
    "dino": _dino,
    "dinov2": _dinov2,
    "pick_score": _pick_score,
    "structure": _structure,
    "lpips": _lpips,
}
