"""What generators share that run the networks of one of diffusers' pipelines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import torch

from regionedit.generators.base import Generator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from regionedit.config import PipelineConfig

UNCHECKED = {"safety_checker": None, "requires_safety_checker": False}
"""Arguments that load a pipeline without its safety checker."""


class PipelineGenerator(Generator):
    """A generator that runs the frozen modules of one of diffusers' pipelines."""

    def __init__(self, pipeline, config: PipelineConfig):
        self.pipeline = pipeline
        self.config = config
        self.size = config.size
        for module in modules_of(pipeline):
            module.eval().requires_grad_(False)

    def using(self, config: PipelineConfig) -> Self:
        return type(self)(self.pipeline, config)

    def to(self, device: str | torch.device) -> Self:
        self.pipeline.to(device)
        return self


def read_pipeline(kind: type, config: PipelineConfig, **arguments: Any):
    """A pipeline of one of diffusers' classes, from a folder or hub name, on the CPU."""
    return kind.from_pretrained(
        config.path,
        revision=config.revision,
        variant=config.variant,
        use_safetensors=True,
        dtype=getattr(torch, config.dtype),
        **arguments,
    )


def modules_of(pipeline) -> list[torch.nn.Module]:
    """The networks of one of diffusers' pipelines."""
    return [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]


def token_ids(tokenizer, texts: Sequence[str]) -> Tensor:
    """Ids of the texts, padded or cut to the tokenizer's own length, [texts, L]."""
    length = tokenizer.model_max_length
    return tokenizer(
        list(texts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    ).input_ids
