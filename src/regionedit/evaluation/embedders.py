"""Frozen networks that describe a picture or a text by one vector: CLIP, a ViT's class token, PickScore.

Pictures are resized by PIL, never as tensors: a resize without antialiasing moves a cosine by more than systems differ.
Embeddings are float32, not normalised, and kept by content, because one source serves several metrics and editors.

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

KEPT = 16384  # embeddings a network keeps of pictures and of texts: three pictures a case of the largest benchmark
TOGETHER = 32  # pictures or texts of one forward pass
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DINO_SIZE, DINO_RESIZE = 224, 256


class Remembered:
    """Embeddings by content: what is not known is embedded in batches, the most recently asked for are kept.

    Args:
        embed: up to `TOGETHER` items -> [n, D].
        key: what makes two items the same.
        kept: number of embeddings that are kept.
    """

    def __init__(self, embed: Callable[[list], Tensor], key: Callable[[object], Hashable], kept: int = KEPT):
        self.embed, self.key, self.kept = embed, key, kept
        self.known: OrderedDict[Hashable, int] = OrderedDict()  # to rows of `table`, the latest last
        self.table: Tensor | None = None

    def __call__(self, items: Sequence) -> Tensor:
        """[n, D] float32 on the CPU, not normalised; equal items have bit-equal rows."""
        keys = [self.key(item) for item in items]
        unknown = {key: item for key, item in zip(keys, items, strict=True) if key not in self.known}
        fresh = self._embed_all(list(unknown.values()))
        made = dict(zip(unknown, fresh, strict=True))
        found = torch.stack([made[key] if key in made else self.table[self.known[key]] for key in keys])
        for key in keys:
            if key not in made:
                self.known.move_to_end(key)
        for key, row in made.items():
            self._keep(key, row)
        return found

    @torch.no_grad()
    def _embed_all(self, items: list) -> list[Tensor]:
        """A row for each item."""
        parts = (items[start : start + TOGETHER] for start in range(0, len(items), TOGETHER))
        return [row for part in parts for row in self.embed(part).float().cpu()]

    def _keep(self, key: Hashable, row: Tensor) -> None:
        if self.table is None:
            # One table: thousands of small tensors between the pictures of each batch would tear the heap to pieces.
            self.table = torch.empty(self.kept, len(row))
        place = len(self.known) if len(self.known) < self.kept else self.known.popitem(last=False)[1]
        self.table[place] = row
        self.known[key] = place


class Clip:
    """The judge: an open_clip model with open_clip's own preprocessing.

    For OpenAI's models: resize to 224 on the shorter side, bicubic, centre crop, the model's mean and std. Training, by
    contrast, stretches the picture so that the patches cover all of it.

    Args:
        clip: as FrozenCLIP.load gives it, on its device.

    Attributes:
        pictures: RGB pictures -> [n, D], raw.
        texts: strings -> [n, D], raw; texts beyond the context length are cut, with a warning.
        cut: the texts that were cut.
    """

    def __init__(self, clip: FrozenCLIP):
        from open_clip.transform import PreprocessCfg, image_transform_v2

        self.clip = clip
        self.preprocess = image_transform_v2(PreprocessCfg(**clip.model.visual.preprocess_cfg), is_train=False)
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
        pixels_BCHW = torch.stack([self.preprocess(picture) for picture in pictures]).to(self.clip.device)
        with autocast_off(self.clip.device):
            return self.clip.model.encode_image(pixels_BCHW)

    def _texts(self, texts: list[str]) -> Tensor:
        tokenizer = self.clip.tokenizer
        length = tokenizer([""]).shape[1]
        # One place more: what stands there, if it is not padding, would be cut.
        last = tokenizer([*texts, ""], context_length=length + 1)[:, length]
        _warn_cut([t for t, token in zip(texts, last[:-1], strict=True) if token != last[-1]], length, self.cut)
        return self.clip.encode_text(texts)


class ClassToken:
    """A transformers ViT whose class token, after the last norm, describes the picture: DINO, DINOv2.

    Args:
        model: with `last_hidden_state`, on its device.
        preprocess: RGB picture -> [C, H, W].

    Attributes:
        pictures: RGB pictures -> [n, D], raw.
    """

    def __init__(self, model: nn.Module, preprocess: Callable[[Image.Image], Tensor]):
        self.model = model.eval().requires_grad_(False)
        self.preprocess = preprocess
        self.pictures = Remembered(self._pictures, digest)

    def unit_pictures(self, pictures: Sequence[Image.Image]) -> Tensor:
        """[n, D] unit vectors of RGB pictures."""
        return normalize(self.pictures(pictures), dim=-1)

    def _pictures(self, pictures: list[Image.Image]) -> Tensor:
        pixels_BCHW = torch.stack([self.preprocess(picture) for picture in pictures]).to(self.model.device)
        with autocast_off(self.model.device):
            return self.model(pixel_values=pixels_BCHW).last_hidden_state[:, 0]


class PickScore:
    """How much people would prefer a picture for a prompt (Kirstain et al. 2023, arXiv 2305.01569).

    Args:
        model: a transformers CLIPModel fine-tuned on preferences, on its device.
        preprocess: RGB picture -> [C, H, W].
        tokenizer: of the model's texts.
    """

    def __init__(self, model: nn.Module, preprocess: Callable[[Image.Image], Tensor], tokenizer):
        self.model = model.eval().requires_grad_(False)
        self.preprocess, self.tokenizer = preprocess, tokenizer
        self.pictures = Remembered(self._pictures, digest)
        self.texts = Remembered(self._texts, str)
        self.cut: set[str] = set()

    @torch.no_grad()
    def scores(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        """[n] exp(logit_scale) times the cosine of each picture and its own prompt."""
        cosines = (normalize(self.pictures(pictures), dim=-1) * normalize(self.texts(prompts), dim=-1)).sum(-1)
        return self.model.logit_scale.exp().cpu() * cosines

    def _pictures(self, pictures: list[Image.Image]) -> Tensor:
        pixels_BCHW = torch.stack([self.preprocess(picture) for picture in pictures]).to(self.model.device)
        with autocast_off(self.model.device):
            return _features(self.model.get_image_features(pixel_values=pixels_BCHW))

    def _texts(self, texts: list[str]) -> Tensor:
        length = self.model.config.text_config.max_position_embeddings
        whole = self.tokenizer(texts)["input_ids"]
        _warn_cut([t for t, tokens in zip(texts, whole, strict=True) if len(tokens) > length], length, self.cut)
        tokens = self.tokenizer(texts, padding=True, truncation=True, max_length=length, return_tensors="pt")
        tokens = tokens.to(self.model.device)
        with autocast_off(self.model.device):
            found = self.model.get_text_features(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
        return _features(found)


def dino_preprocess() -> Callable[[Image.Image], Tensor]:
    """The picture as the published DINO scores saw it: shorter side 256, bicubic, the central 224, ImageNet's colours.

    This is what MagicBrush's image_eval.py does, and not what the model's own processor would (straight to 224).
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
    """The picture as a transformers image processor gives it."""
    return lambda picture: processor(picture, return_tensors="pt")["pixel_values"][0]


def _features(found) -> Tensor:
    """get_*_features gives a tensor in transformers 4 and an output in transformers 5."""
    return found if isinstance(found, Tensor) else found.pooler_output


def _warn_cut(texts: Sequence[str], length: int, cut: set[str]) -> None:
    """Remember texts that are longer than the context, and say so the first time."""
    if texts and not cut:
        warnings.warn(f"captions of more than {length} tokens are cut, such as {texts[0][:60]!r}...", stacklevel=2)
    cut.update(texts)
