"""The frozen networks that only metrics use: a judge CLIP that no loss has seen, and a ViT in DINO's place.

Embeddings are unit vectors [D], float32. They are kept, because the same source and truth serve several metrics and
several editors.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from regionedit.encoders import FrozenCLIP
from regionedit.images import to_tensor


class Judge:
    """A CLIP that scores pictures and captions one at a time.

    Args:
        clip: an open_clip model, loaded as the training one is.
    """

    def __init__(self, clip: FrozenCLIP):
        self.clip = clip
        self.text = lru_cache(4096)(self._text)
        self._seen = lru_cache(4096)(self._embed)

    def picture(self, picture: Image.Image) -> Tensor:
        """Unit vector [D] of an RGB picture."""
        return self._seen(picture.size, picture.tobytes())

    @torch.no_grad()
    def _embed(self, size: tuple[int, int], pixels: bytes) -> Tensor:
        image_1CHW = to_tensor([Image.frombytes("RGB", size, pixels)])
        return normalize(self.clip.encode_image(image_1CHW).global_BD[0].float(), dim=0)

    @torch.no_grad()
    def _text(self, text: str) -> Tensor:
        return normalize(self.clip.encode_text([text])[0].float(), dim=0)


class Dino:
    """A transformers ViT with its own image processor; the class token describes the picture."""

    def __init__(self, model, processor):
        self.model = model.eval().requires_grad_(False)
        self.processor = processor
        self._seen = lru_cache(4096)(self._embed)

    def picture(self, picture: Image.Image) -> Tensor:
        """Unit vector [D] of an RGB picture."""
        return self._seen(picture.size, picture.tobytes())

    @torch.no_grad()
    def _embed(self, size: tuple[int, int], pixels: bytes) -> Tensor:
        inputs = self.processor(Image.frombytes("RGB", size, pixels), return_tensors="pt")
        return normalize(self.model(**inputs).last_hidden_state[0, 0].float(), dim=0)


@lru_cache(1)
def load_judge(name: str) -> Judge:
    """The judge of `EvaluateConfig.judge`.

    Raises:
        ValueError: no such model.
    """
    try:
        return Judge(FrozenCLIP.load(name))
    except ValueError as error:
        raise ValueError(f"judge: {name} cannot be loaded: {error}") from None


@lru_cache(1)
def load_dino(name: str) -> Dino:
    """The ViT of `EvaluateConfig.dino`, a folder or hub name.

    Raises:
        ValueError: no such model.
    """
    from transformers import AutoImageProcessor, ViTModel

    try:
        return Dino(ViTModel.from_pretrained(name, add_pooling_layer=False), AutoImageProcessor.from_pretrained(name))
    except OSError as error:
        raise ValueError(f"dino: {name} cannot be loaded: {' '.join(str(error).split())}") from None
