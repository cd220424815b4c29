"""Frozen networks that embed a picture or a text as one vector: CLIP, a ViT's class token, PickScore.

PIL resizes the pictures, because resizing tensors without antialiasing changes a cosine by more than systems differ.
Embeddings are float32, not normalised, and cached by content, because several metrics and editors use the same source.

Shape letters: n pictures or texts, D embedding width.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import normalize

from regionedit.device import autocast_off
from regionedit.encoders import FrozenCLIP
from regionedit.images import digest

KEPT = 16384  # cached embeddings of pictures, and of texts: enough for three pictures a case of the largest benchmark
TOGETHER = 32  # pictures or texts in one forward pass
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DINO_SIZE, DINO_RESIZE = 224, 256


class Remembered:
    """A cache of embeddings by content: new items are embedded in batches, the most recently used are kept.

    Args:
        embed: up to `TOGETHER` items -> [n, D].
        key: item -> key; items with equal keys are the same.
        kept: capacity, in embeddings.
    """

    def __init__(self, embed: Callable[[list], Tensor], key: Callable[[object], Hashable], kept: int = KEPT):
        self.embed, self.key, self.kept = embed, key, kept
        self.known: OrderedDict[Hashable, int] = OrderedDict()  # key -> row of `table`, most recently used last
        self.table: Tensor | None = None

    def __call__(self, items: Sequence) -> Tensor:
        """[n, D] float32 on the CPU, not normalised; equal items have bit-equal rows."""
        keys = [self.key(item) for item in items]
        unknown = {key: item for key, item in zip(keys, items, strict=True) if key not in self.known}
        fresh = self._embed_all(list(unknown.values()))
        made = dict(zip(unknown, fresh, strict=True))
        rows = torch.stack([made[key] if key in made else self.table[self.known[key]] for key in keys])
        for key in keys:
            if key not in made:
                self.known.move_to_end(key)
        for key, row in made.items():
            self._keep(key, row)
        return rows

    @torch.no_grad()
    def _embed_all(self, items: list) -> list[Tensor]:
        """One row for each item."""
        parts = (items[start : start + TOGETHER] for start in range(0, len(items), TOGETHER))
        return [row for part in parts for row in self.embed(part).float().cpu()]

    def _keep(self, key: Hashable, row: Tensor) -> None:
        if self.table is None:
            # One table, because thousands of small tensors between the pictures of each batch would fragment the heap.
            self.table = torch.empty(self.kept, len(row))
        number = len(self.known) if len(self.known) < self.kept else self.known.popitem(last=False)[1]
        self.table[number] = row
        self.known[key] = number


class Embedder:
    """A network that embeds pictures and, if it has `_texts`, texts.

    Args:
        model: on its device.
        preprocess: RGB picture -> [C, H, W].

    Attributes:
        pictures, texts: RGB pictures, strings -> [n, D], raw; texts beyond the context length are cut, with a warning.
        cut: the texts that were cut.
    """

    def __init__(self, model: nn.Module, preprocess: Callable[[Image.Image], Tensor]):
        self.model = model.eval().requires_grad_(False)
        self.preprocess = preprocess
        self.pictures = Remembered(self._pictures, digest)
        self.texts = Remembered(self._texts, str)
        self.cut: set[str] = set()

    def unit_pictures(self, pictures: Sequence[Image.Image]) -> Tensor:
        """[n, D] unit vectors of RGB pictures."""
        return normalize(self.pictures(pictures), dim=-1)

    def unit_texts(self, texts: Sequence[str]) -> Tensor:
        """[n, D] unit vectors of texts."""
        return normalize(self.texts(texts), dim=-1)

    def _pictures(self, pictures: list[Image.Image]) -> Tensor:
        device = next(self.model.parameters()).device
        pixels_BCHW = torch.stack([self.preprocess(picture) for picture in pictures]).to(device)
        with autocast_off(device):
            return self._embed(pixels_BCHW)

    def _embed(self, pixels_BCHW: Tensor) -> Tensor:
        raise NotImplementedError

    def _texts(self, texts: list[str]) -> Tensor:
        raise NotImplementedError

    def _note_cut(self, texts: Sequence[str], length: int) -> None:
        """Add texts that are longer than the context to `cut`, and warn the first time."""
        if texts and not self.cut:
            shown = f"{texts[0][:60]!r}..."
            warnings.warn(f"captions of more than {length} tokens are cut, such as {shown}", stacklevel=2)
        self.cut.update(texts)


class Clip(Embedder):
    """The CLIP of the metrics: an open_clip model with open_clip's own preprocessing.

    For OpenAI's models this is: shorter side to 224, bicubic, centre crop, the model's mean and std. Training, by
    contrast, stretches the picture so that the patches cover all of it.

    Args:
        clip: from FrozenCLIP.load, on its device.
    """

    def __init__(self, clip: FrozenCLIP):
        from open_clip.transform import PreprocessCfg, image_transform_v2

        settings = PreprocessCfg(**clip.model.visual.preprocess_cfg)
        super().__init__(clip.model, image_transform_v2(settings, is_train=False))
        self.clip = clip

    def _embed(self, pixels_BCHW: Tensor) -> Tensor:
        return self.model.encode_image(pixels_BCHW)

    def _texts(self, texts: list[str]) -> Tensor:
        tokenizer = self.clip.tokenizer
        length = tokenizer([""]).shape[1]
        # Tokenised with one more position: a text with a token there, other than padding, is too long.
        last = tokenizer([*texts, ""], context_length=length + 1)[:, length]
        self._note_cut([t for t, token in zip(texts, last[:-1], strict=True) if token != last[-1]], length)
        return self.clip.encode_text(texts)


class ClassToken(Embedder):
    """A transformers ViT; the class token after the last norm is the embedding of the picture: DINO, DINOv2."""

    def _embed(self, pixels_BCHW: Tensor) -> Tensor:
        return self.model(pixel_values=pixels_BCHW).last_hidden_state[:, 0]


class PickScore(Embedder):
    """PickScore: how much people would prefer a picture for a prompt (Kirstain et al. 2023, arXiv 2305.01569).

    Args:
        model: a transformers CLIPModel fine-tuned on preferences, on its device.
        preprocess: RGB picture -> [C, H, W].
        tokenizer: of the model's texts.
    """

    def __init__(self, model: nn.Module, preprocess: Callable[[Image.Image], Tensor], tokenizer):
        super().__init__(model, preprocess)
        self.tokenizer = tokenizer

    @torch.no_grad()
    def scores(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        """[n] exp(logit_scale) times the cosine of each picture and its own prompt."""
        cosines = (self.unit_pictures(pictures) * self.unit_texts(prompts)).sum(-1)
        return self.model.logit_scale.exp().cpu() * cosines

    def _embed(self, pixels_BCHW: Tensor) -> Tensor:
        return _features(self.model.get_image_features(pixel_values=pixels_BCHW))

    def _texts(self, texts: list[str]) -> Tensor:
        length = self.model.config.text_config.max_position_embeddings
        whole = self.tokenizer(texts)["input_ids"]
        self._note_cut([t for t, tokens in zip(texts, whole, strict=True) if len(tokens) > length], length)
        tokens = self.tokenizer(texts, padding=True, truncation=True, max_length=length, return_tensors="pt")
        tokens = tokens.to(self.model.device)
        with autocast_off(self.model.device):
            given = self.model.get_text_features(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
        return _features(given)


def dino_preprocess() -> Callable[[Image.Image], Tensor]:
    """Preprocessing of the published DINO scores: shorter side 256, bicubic, centre crop 224, ImageNet's mean and std.

    MagicBrush's image_eval.py does this; the model's own processor would resize straight to 224.
    """
    from torchvision import transforms

    return transforms.Compose(
        [
            transforms.Resize(DINO_RESIZE, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(DINO_SIZE),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )


def own_preprocess(processor) -> Callable[[Image.Image], Tensor]:
    """The preprocessing of a transformers image processor."""
    return lambda picture: processor(picture, return_tensors="pt")["pixel_values"][0]


def _features(output) -> Tensor:
    """The embeddings from get_*_features, which returns a tensor in transformers 4 and an output in transformers 5."""
    return output if isinstance(output, Tensor) else output.pooler_output
