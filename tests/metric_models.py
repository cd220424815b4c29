"""Tiny random backbones of the metrics, of the real classes, beside those of tests/tiny_models.py."""

from pathlib import Path

import torch

from tests.tiny_models import WIDTH, seeded
from tests.tiny_tokenizers import CONTEXT, clip_tokenizer


def write_dino_224(folder: Path) -> Path:
    """A ViTModel of DINO's input size, 16 patches; without an image processor, which the protocol never asks."""
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=WIDTH,
        image_size=224,
        patch_size=56,
    )
    with seeded(2):
        ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


def write_dinov2(folder: Path) -> Path:
    """A Dinov2Model whose processor scales the shorter side to 32 and cuts the central 28."""
    from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

    config = Dinov2Config(
        hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=2, mlp_ratio=1, image_size=28, patch_size=14
    )
    with seeded(3):
        Dinov2Model(config).save_pretrained(folder)
    BitImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 28, "width": 28}).save_pretrained(folder)
    return folder


def write_pick_score(model_folder: Path, processor_folder: Path) -> str:
    """A CLIPModel and, elsewhere, its tokenizer and image processor, as PickScore's are; the field's value."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    tokenizer = clip_tokenizer()
    layers = {"hidden_size": WIDTH, "intermediate_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config=layers
        | {
            "vocab_size": len(tokenizer),
            "max_position_embeddings": CONTEXT,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config=layers | {"image_size": 32, "patch_size": 16},
        projection_dim=WIDTH,
    )
    with seeded(4):
        CLIPModel(config).save_pretrained(model_folder)
    tokenizer.save_pretrained(processor_folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(
        processor_folder
    )
    return f"{model_folder},{processor_folder}"


def random_features(net: str, pretrained: bool = False) -> torch.nn.Module:
    """In place of torchvision's downloaded backbones of LPIPS: the same class, seeded noise."""
    import torchvision

    with seeded(5):
        return getattr(torchvision.models, net)(weights=None).features
