"""Segment Anything (Kirillov et al. 2023) and SAM 2, frozen, run by transformers: one picture, many prompts.

Shape letters: H W pixels of the picture as it came, h w of SAM's own masks.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from regionedit.command_line import one_line
from regionedit.images import digest

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from regionedit.mask_sources.prompts import Prompt

PICKLES = (".pth", ".pt", ".ckpt", ".bin")
VERSIONS = {"sam": "Sam", "sam2": "Sam2", "sam2_video": "Sam2"}
"""`model_type` of a folder's config.json -> transformers' classes; SAM 2 is published with the one for videos."""


class Segmenter:
    """A frozen SamModel or Sam2Model with its processor; it caches the last picture's embedding, because encoding takes
    seconds and a prompt milliseconds."""

    def __init__(self, model, processor):
        self.model = model.eval().requires_grad_(False)
        self.processor = processor
        self._encoded: tuple[str, dict, object] | None = None

    def to(self, device: str | torch.device) -> Segmenter:
        """Move the frozen weights."""
        self.model.to(device)
        self._encoded = None
        return self

    @torch.no_grad()
    def segment(self, picture: Image, prompt: Prompt) -> Tensor:
        """Probability that each pixel belongs to the prompted object: [H, W] in [0, 1] on the CPU; threshold it at 1/2.

        SAM returns several masks (part, object, whole); the one with the highest IoU estimate is used.

        Args:
            picture: RGB, any size; SAM scales it to its own.
            prompt: in pixels of the picture; not empty.
        """
        inputs, embedding = self._encode(picture)
        frame = {name: inputs[name] for name in ("original_sizes", "reshaped_input_sizes") if name in inputs}
        # Prompts are scaled here and not by the processor, which would scale the whole picture again for each.
        input_sizes = inputs.get("reshaped_input_sizes", torch.tensor([inputs["pixel_values"].shape[-2:]]))
        height, width = (input_sizes[0] / inputs["original_sizes"][0]).tolist()
        prompts = {}
        if prompt.points:
            points = [[x * width, y * height] for x, y in prompt.points]
            prompts["input_points"] = torch.tensor([[points]], device=self.model.device, dtype=torch.float32)
        if prompt.box:
            x0, y0, x1, y1 = prompt.box
            box = [x0 * width, y0 * height, x1 * width, y1 * height]
            prompts["input_boxes"] = torch.tensor([[box]], device=self.model.device, dtype=torch.float32)
        output = self.model(image_embeddings=embedding, **prompts, multimask_output=True)
        best = int(output.iou_scores[0, 0].argmax())
        logits_11hw = output.pred_masks[0, :, best : best + 1].float().cpu()
        (logits_11HW,) = self.processor.post_process_masks([logits_11hw], **frame, binarize=False)
        return logits_11HW[0, 0].sigmoid()

    def _encode(self, picture: Image) -> tuple[dict, object]:
        """The processor's output for the picture, and its embedding; both are cached for the last picture."""
        key = digest(picture)
        if self._encoded is None or self._encoded[0] != key:
            inputs = self.processor(images=picture, return_tensors="pt")
            embedding = self.model.get_image_embeddings(inputs["pixel_values"].to(self.model.device, self.model.dtype))
            self._encoded = key, dict(inputs), embedding
        return self._encoded[1:]


def is_here(path: str) -> bool:
    """Whether a folder or hub name can be read without a download."""
    if Path(path).is_dir():
        return True
    from huggingface_hub import try_to_load_from_cache

    return path.count("/") == 1 and isinstance(try_to_load_from_cache(path, "config.json"), str)


@lru_cache(maxsize=1)  # the mask source `sam` and `region.refine` share one model
def load_segmenter(path: str) -> Segmenter:
    """Read a SAM or SAM 2 from a folder or hub name, onto the CPU.

    Raises:
        ValueError: a pickle, another model, or nothing loadable; the message says what to do.
    """
    import transformers

    if path.endswith(PICKLES):
        raise ValueError(
            f"region.sam: {path} is a pickle, which can run code while it is read; convert it once with transformers' "
            "own src/transformers/models/sam/convert_sam_to_hf.py and give the folder, or give facebook/sam-vit-huge, "
            "which holds the weights of sam_vit_h_4b8939.pth as safetensors"
        )
    try:
        kind = transformers.AutoConfig.from_pretrained(path).model_type
        if kind in VERSIONS:
            model, info = getattr(transformers, f"{VERSIONS[kind]}Model").from_pretrained(
                path, use_safetensors=True, output_loading_info=True
            )
            if info["missing_keys"]:  # transformers would use random weights in their place
                raise ValueError(f"{min(info['missing_keys'])} is missing")
            return Segmenter(model, getattr(transformers, f"{VERSIONS[kind]}Processor").from_pretrained(path))
    except Exception as error:  # folder, hub and safetensors fail in different ways; the message gives the name
        raise ValueError(
            f"region.sam: no SAM could be loaded from {path!r}: give a folder in transformers' own layout, with "
            "model.safetensors in it (`hf download facebook/sam-vit-huge --local-dir FOLDER`), or a hub name where "
            f"there is a network: {one_line(error, 200)}"
        ) from error
    raise ValueError(f"region.sam: {path!r} holds a model of type {kind!r}; {' and '.join(sorted(VERSIONS))} are known")
