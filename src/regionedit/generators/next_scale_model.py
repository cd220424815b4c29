"""A small text-conditioned next-scale model: an autoencoder with token maps, and a transformer that predicts them.

For each cell of a scale, the transformer receives the features accumulated from the earlier scales and, outside the
region, the cell's known token. Cells attend to their own scale, to the caption, and to a coarse view of the source
outside the region. Without this view the first scales could not know which parts of the caption the picture already
shows. Cells do not attend to earlier scales but receive their sum, as in Switti (Voronov et al. 2024), so nothing is
cached between scales.

A folder holds `config.json`, `model.safetensors`, and CLIP's text encoder as `text_encoder/` and `tokenizer/`.

Shape letters: B pictures, C feature channels, H W pixels, y x cells of the full grid, s cells on a scale's side, L
cells of several scales, N text tokens and cells of the view, T text width, D width, V codes.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regionedit.generators.next_scale_tokens import UNKNOWN, TokenAutoencoder


@dataclass(frozen=True)
class NextScaleSizes:
    """Sizes of the model, as stored in `config.json`.

    Args:
        image_size: side of the pictures, four times the last of `sides`.
        sides: cells on the side of each scale.
        codes, channels: entries of the codebook and their width.
        autoencoder_widths: channels at half and at a quarter of the picture's side.
        width, layers, heads, mlp: of the transformer; `mlp` is the hidden width.
        text_width: of the text encoder.
        view: cells on the side of the view of the source outside the region.
    """

    image_size: int = 64
    sides: tuple[int, ...] = (1, 2, 4, 8, 16)
    codes: int = 256
    channels: int = 16
    autoencoder_widths: tuple[int, int] = (32, 64)
    width: int = 128
    layers: int = 4
    heads: int = 4
    mlp: int = 320
    text_width: int = 128
    view: int = 8


class Condition(NamedTuple):
    """What cells attend to: states of the text and of the view, BNT, and a mask that is False for padding, BN."""

    states_BNT: Tensor
    real_BN: Tensor


class Block(nn.Module):
    """Self-attention within each scale, cross-attention to text and view, and an MLP on every cell."""

    def __init__(self, sizes: NextScaleSizes):
        super().__init__()
        width = sizes.width
        self.heads = sizes.heads
        self.self_norm, self.cross_norm, self.mlp_norm = (nn.LayerNorm(width) for _ in range(3))
        self.query_key_value, self.self_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(sizes.text_width, 2 * width)
        self.cross_out = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, sizes.mlp), nn.Linear(sizes.mlp, width)

    def forward(self, x_BLD: Tensor, lengths: Sequence[int], condition: Condition) -> Tensor:
        qkv = self.query_key_value(self.self_norm(x_BLD)).split(lengths, 1)
        mixed = [F.scaled_dot_product_attention(*map(self._by_head, part.chunk(3, -1))) for part in qkv]
        x_BLD = x_BLD + self.self_out(torch.cat([part.transpose(1, 2).flatten(2) for part in mixed], 1))
        key, value = self.key_value(condition.states_BNT).chunk(2, -1)
        padding_BN = ~condition.real_BN
        bias = torch.zeros_like(padding_BN, dtype=x_BLD.dtype).masked_fill(padding_BN, -1e4)[:, None, None]
        attended = F.scaled_dot_product_attention(
            self._by_head(self.query(self.cross_norm(x_BLD))), self._by_head(key), self._by_head(value), attn_mask=bias
        )
        x_BLD = x_BLD + self.cross_out(attended.transpose(1, 2).flatten(2))
        return x_BLD + self.down(F.gelu(self.up(self.mlp_norm(x_BLD))))

    def _by_head(self, x_BLD: Tensor) -> Tensor:
        return x_BLD.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class ScaleTransformer(nn.Module):
    """Predicts the code of every cell of a scale."""

    def __init__(self, sizes: NextScaleSizes):
        super().__init__()
        self.sides = sizes.sides
        self.standing = nn.Linear(sizes.channels, sizes.width)  # of accumulated features; checkpoints store this name
        self.known = nn.Embedding(sizes.codes + 1, sizes.width)  # the last row: unknown
        self.positions = nn.ParameterList(nn.Parameter(0.02 * torch.randn(side**2, sizes.width)) for side in self.sides)
        self.view = nn.Linear(sizes.channels + 1, sizes.text_width)
        self.view_positions = nn.Parameter(0.02 * torch.randn(sizes.view**2, sizes.text_width))
        self.blocks = nn.ModuleList(Block(sizes) for _ in range(sizes.layers))
        self.norm = nn.LayerNorm(sizes.width)
        self.head = nn.Linear(sizes.width, sizes.codes)
        self.apply(self._initialize)

    @staticmethod
    def _initialize(module: nn.Module) -> None:
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02 if isinstance(module, nn.Embedding) else module.in_features**-0.5)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
        if isinstance(module, Block):
            for layer in (module.self_out, module.cross_out, module.down):
                nn.init.normal_(layer.weight, std=0.3 * layer.in_features**-0.5)

    def look(self, features_BCyx: Tensor, kept_B1yx: Tensor) -> Tensor:
        """The coarse view, BNT, of a picture's features where `kept_B1yx` is 1."""
        side = round(len(self.view_positions) ** 0.5)
        masked_BCyx = torch.cat([features_BCyx * kept_B1yx, kept_B1yx], 1)
        cells_BNC = F.adaptive_avg_pool2d(masked_BCyx, side).flatten(2).transpose(1, 2)
        return self.view(cells_BNC) + self.view_positions

    def forward(
        self, scales: Sequence[int], pooled: Sequence[Tensor], known: Sequence[Tensor], condition: Condition
    ) -> list[Tensor]:
        """Logits of some scales, each predicted on its own, BssV.

        Args:
            scales: their indices.
            pooled: for each, the features accumulated from earlier scales, averaged over its cells, BCss.
            known: for each, its tokens, Bss; UNKNOWN where they are to be predicted.
        """
        cells = []
        for scale, pooled_BCss, known_Bss in zip(scales, pooled, known, strict=True):
            tokens_BL = known_Bss.flatten(1)
            tokens_BL = tokens_BL.masked_fill(tokens_BL == UNKNOWN, self.known.num_embeddings - 1)
            accumulated_BLD = self.standing(pooled_BCss.flatten(2).transpose(1, 2))
            cells.append(accumulated_BLD + self.known(tokens_BL) + self.positions[scale])
        lengths = [part.shape[1] for part in cells]
        x_BLD = torch.cat(cells, 1)
        for block in self.blocks:
            x_BLD = block(x_BLD, lengths, condition)
        parts = self.head(self.norm(x_BLD)).split(lengths, 1)
        return [part.unflatten(1, (self.sides[scale],) * 2) for part, scale in zip(parts, scales, strict=True)]


def with_view(text: Condition, view_BNT: Tensor) -> Condition:
    """The text's states, followed by the view's."""
    real_BN = text.real_BN.new_ones(view_BNT.shape[:2])
    return Condition(torch.cat([text.states_BNT, view_BNT], 1), torch.cat([text.real_BN, real_BN], 1))


class NextScaleModel(nn.Module):
    """The shipped next-scale model, which implements `next_scale.ScaleWise`.

    Args:
        sizes: its sizes.
        text_encoder, text_tokenizer: transformers' CLIPTextModel and CLIPTokenizer.
    """

    def __init__(self, sizes: NextScaleSizes, text_encoder: nn.Module, text_tokenizer):
        super().__init__()
        self.sizes, self.sides, self.image_size = sizes, sizes.sides, sizes.image_size
        self.autoencoder = TokenAutoencoder(sizes.autoencoder_widths, sizes.channels, sizes.codes, sizes.sides)
        self.transformer = ScaleTransformer(sizes)
        self.text_encoder, self.text_tokenizer = text_encoder, text_tokenizer

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read a folder that `save` wrote, in float32 on the CPU.

        Raises:
            OSError, ValueError, RuntimeError: a file is missing, or holds something else.
        """
        from safetensors.torch import load_file
        from transformers import CLIPTextModel, CLIPTokenizer

        folder = Path(folder)
        stored = json.loads((folder / "config.json").read_text())
        if stored.pop("class", None) != cls.__name__:
            raise ValueError(f"{folder / 'config.json'} is not that of a {cls.__name__}")
        sizes = NextScaleSizes(**{k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()})
        text_encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
        model = cls(sizes, text_encoder, CLIPTokenizer.from_pretrained(folder / "tokenizer"))
        weights = load_file(folder / "model.safetensors")
        model.load_state_dict({k: v.float() for k, v in weights.items()} | model._text_weights())
        return model.eval().requires_grad_(False)

    def save(self, folder: str | Path, dtype: torch.dtype = torch.float16) -> None:
        """Write a folder for `load`; the text encoder gets a folder of its own."""
        from safetensors.torch import save_file

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        stored = {"class": type(self).__name__} | asdict(self.sizes)
        (folder / "config.json").write_text(json.dumps(stored, indent=2) + "\n")
        own = {k: v.to(dtype).contiguous() for k, v in self.state_dict().items() if k not in self._text_weights()}
        save_file(own, folder / "model.safetensors")
        copy.deepcopy(self.text_encoder).to(dtype).save_pretrained(folder / "text_encoder")
        self.text_tokenizer.save_pretrained(folder / "tokenizer")

    def _text_weights(self) -> dict[str, Tensor]:
        return {f"text_encoder.{name}": tensor for name, tensor in self.text_encoder.state_dict().items()}

    def encode(self, images_BCHW: Tensor) -> list[Tensor]:
        return self.autoencoder.quantizer.tokens(self.autoencoder.encoder(images_BCHW * 2 - 1))

    def read_texts(self, texts: Sequence[str]) -> Condition:
        """The texts, without a view; "" is no text."""
        options = {"padding": True, "truncation": True, "return_tensors": "pt"}
        tokens = self.text_tokenizer(list(texts), **options).to(self.transformer.head.weight.device)
        states_BNT = self.text_encoder(tokens.input_ids)[0]  # causal: padding after the text does not change it
        return Condition(states_BNT, tokens.attention_mask.bool())

    def read(self, texts: Sequence[str], images_BCHW: Tensor, mask_B1HW: Tensor) -> Condition:
        """The texts, and the view of the sources outside a mask of 0 and 1."""
        kept_B1yx = 1 - F.adaptive_max_pool2d(mask_B1HW, self.sides[-1])
        view_BNT = self.transformer.look(self.autoencoder.encoder(images_BCHW * 2 - 1), kept_B1yx)
        return with_view(self.read_texts(texts), view_BNT)

    def start(self, count: int) -> Tensor:
        side, device = self.sides[-1], self.transformer.head.weight.device
        return torch.zeros(count, self.sizes.channels, side, side, device=device)

    def logits(self, scale: int, accumulated_BCyx: Tensor, known_Bss: Tensor, condition: Condition) -> Tensor:
        """Logits of every cell of a scale, BssV, in float32."""
        pooled_BCss = self.autoencoder.quantizer.pooled(accumulated_BCyx, scale)
        return self.transformer([scale], [pooled_BCss], [known_Bss], condition)[0].float()

    def accumulate(self, scale: int, accumulated_BCyx: Tensor, tokens_Bss: Tensor) -> Tensor:
        return accumulated_BCyx + self.autoencoder.quantizer.spread(tokens_Bss, scale)

    def decode(self, accumulated_BCyx: Tensor) -> Tensor:
        return (self.autoencoder.decoder(accumulated_BCyx) / 2 + 0.5).clamp(0, 1)
