"""Token ids of a batch's texts, made by loader processes, so that the training process does not wait for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regionedit.encoders import instruction_tokens

if TYPE_CHECKING:
    from torch import Tensor

    from regionedit.training.networks import Frozen


class Tokenizers:
    """The tokenizers of the frozen networks, without their weights; calls are repeatable.

    Args:
        captions: whether a step encodes both captions; False with cached features.
    """

    def __init__(self, frozen: Frozen, captions: bool):
        self._captions = frozen.clip.tokenizer if captions else None
        encoder = frozen.instruction_encoder
        self._instructions = encoder.tokenizer, encoder.max_tokens
        self._generator = frozen.generator and frozen.generator.tokenize
        self._by_instruction = self._generator is not None and frozen.generator.needs == "instruction"

    def __call__(self, instructions: list[str], sources: list[str], targets: list[str]) -> dict[str, Tensor]:
        """`instruction_ids` and `instruction_mask` [B, M]; `source_ids` and `target_ids` [B, L] of the captions;
        `generator_ids` [B, L] of the texts that the generator follows. The last three only where a step needs them."""
        ids_BM, mask_BM = instruction_tokens(*self._instructions, instructions)
        tokens = {"instruction_ids": ids_BM, "instruction_mask": mask_BM}
        if self._captions is not None:
            tokens["source_ids"], tokens["target_ids"] = self._captions(sources), self._captions(targets)
        if self._generator is not None:
            tokens["generator_ids"] = self._generator(instructions if self._by_instruction else targets)
        return tokens
