"""Equations 1-3 and f_sem: from a picture's patches and an instruction to the probability that a patch is edited.

Independent of Lightning, the frozen encoders and the generator; contains only trained parameters.

Shape letters: B batch, N patches (row by row), M instruction tokens, D embedding width, h heads.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from huggingface_hub import PyTorchModelHubMixin, hf_hub_download
from safetensors.torch import load_file, save
from torch import Tensor, nn

from regionedit.config import PredictorConfig
from regionedit.files import write_together

WEIGHTS = "model.safetensors"

LOGIT_LIMIT = 15.0
"""Logits are clamped to +-15 in float32. The sigmoid's slope is 3e-7 there, so no useful gradient is cut off, and P
stays strictly between 0 and 1."""

FIRST_BLOCK = ("cross_attention.", "self_attention.", "fused_norm.")

MODEL_CARD = """---
{{ card_data }}
---

# Region predictor

Predicts which patches of a picture an instruction asks to edit. It reads CLIP's patch features and the instruction's
T5 features and returns one probability per patch. It was trained on captioned pictures alone, without masks or edited
pairs.

```python
from regionedit.region_predictor import RegionPredictor

predictor = RegionPredictor.from_pretrained("FOLDER OR OWNER/NAME")
prediction = predictor(patches_BND, instruction_BMD, instruction_mask_BM)
prediction.probability_BN  # 1 = edit, row by row
```

It works only with the encoders that it was trained with.

## Trained with
{% for line in trained_with or ["not recorded"] %}
- {{ line }}{% endfor %}

## Data
{{ data or "Captioned pictures with machine-written instructions and target captions. Their source was not recorded." }}

## Measured
{{ measured or "Not recorded." }}

## Limits
- It inherits CLIP's limits: instructions that need a deeper understanding of the picture ("move the cat to the sofa")
  may fail.
- In dense scenes the region may be inaccurate, and among several similar objects the wrong one may be selected.
- The region is a grid of patches; it cannot outline anything smaller than a patch.
- A predictor trained on the microworld knows only rendered shapes, no photographs.

## Fairness
CLIP, T5 and the generator of an edit were trained on pictures and texts of the web and have their biases. These affect
which person or object a region covers and what is generated there. Do not use the model to judge, single out or
misrepresent people, and check results before you publish them.

## Licences
These weights: Apache-2.0. The models that they need have licences of their own: CLIP ViT-L/14 of OpenAI: MIT;
FLAN-T5-base: Apache-2.0; Stable Diffusion 1.5 in-painting: CreativeML OpenRAIL-M, whose use restrictions also bind
edited pictures.
The microworld's encoders and generator: Apache-2.0.
"""


@dataclass(frozen=True)
class RegionPrediction:
    """Output of the predictor for B pictures.

    Args:
        fused_BND: F_Edited, eq. 1, of the last block.
        refined_BND: F_imgRegion, eq. 2, of the last block.
        logits_BN: the MLP's output before the sigmoid of eq. 3, float32, within +-LOGIT_LIMIT.
    """

    fused_BND: Tensor
    refined_BND: Tensor
    logits_BN: Tensor

    @property
    def probability_BN(self) -> Tensor:
        """P_region of eq. 3, float32 in (0, 1), 1 = edit."""
        return torch.sigmoid(self.logits_BN)


class Attention(nn.Module):
    """Softmax(Q K^T / sqrt(D / h)) V with bias-free projections, as in eq. 1 and 2 (there h = 1)."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)

    def forward(self, x_BND: Tensor, context_BMD: Tensor, mask_BM: Tensor | None = None) -> Tensor:
        """Attention output of every patch, [B, N, D]. Context tokens where the mask is False are ignored."""
        query = self._split(self.query(x_BND))
        key = self._split(self.key(context_BMD))
        value = self._split(self.value(context_BMD))
        mask = None if mask_BM is None else mask_BM[:, None, None, :]
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2).flatten(2)

    def _split(self, x_BND: Tensor) -> Tensor:
        return x_BND.unflatten(2, (self.heads, -1)).transpose(1, 2)


class Block(nn.Module):
    """Equations 1 and 2: each patch attends to the instruction, then to all patches.

    Args:
        first: its input is normalised already.
    """

    def __init__(self, dim: int, heads: int, residual: bool, norm: bool, first: bool):
        super().__init__()
        self.residual = residual
        self.input_norm = nn.LayerNorm(dim) if norm and not first else nn.Identity()
        self.cross_attention = Attention(dim, heads)
        self.fused_norm = nn.LayerNorm(dim) if norm else nn.Identity()
        self.self_attention = Attention(dim, heads)

    def forward(self, x_BND: Tensor, instruction_BMD: Tensor, mask_BM: Tensor | None) -> tuple[Tensor, Tensor]:
        """F_Edited and F_imgRegion, both [B, N, D]."""
        fused_BND = self.cross_attention(self.input_norm(x_BND), instruction_BMD, mask_BM)
        fused_BND = fused_BND + x_BND if self.residual else fused_BND
        normed_BND = self.fused_norm(fused_BND)
        refined_BND = self.self_attention(normed_BND, normed_BND)
        return fused_BND, refined_BND + fused_BND if self.residual else refined_BND


class RegionPredictor(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="regionedit",
    license="apache-2.0",
    tags=["image-editing", "region", "clip"],
    model_card_template=MODEL_CARD,
):
    """Blocks of cross-attention to the instruction and self-attention among patches, then an MLP per patch.

    Args:
        dim: width D of patch and instruction features, 768 in the paper.
        grid: patches a side of the training pictures. On another square grid (a CLIP of the same family at a higher
            resolution) the learned positions are interpolated.
        variant, heads, residual, norm, positions, mlp_width, initial_probability, blocks: see
            `config.PredictorConfig`. The config.json of a predictor with one block may have no `blocks`.

    Residual, norm and positions together more than double the IoU after 100 supervised steps (.67 against .29 on an 8x8
    grid). Trained through the generator, 1,500 steps, one seed: .51 with all three, .26 without residual (for about the
    first 50 steps every patch then has the same value), .53 without norm, .54 without positions, .04 with none.

    Raises:
        ValueError: a width that the heads do not divide, an unknown variant, a probability outside (0, 1).
    """

    def __init__(
        self,
        dim: int = 768,
        grid: int = 16,
        variant: Literal["default", "paper"] = "default",
        heads: int = 4,
        residual: bool = True,
        norm: bool = True,
        positions: bool = True,
        mlp_width: int = 0,
        initial_probability: float = 0.5,
        blocks: int = 1,
    ):
        super().__init__()
        if variant not in ("default", "paper"):
            raise ValueError(f"predictor.variant: {variant!r} is unknown; use 'default' or 'paper'")
        if variant == "paper":
            heads, residual, norm, positions, blocks = 1, False, False, False, 1
        if heads < 1 or dim % heads:
            raise ValueError(f"predictor.heads: {heads} heads do not divide a width of {dim}")
        if not 0 < initial_probability < 1:
            raise ValueError(f"predictor.initial_probability: {initial_probability} is not between 0 and 1")
        if blocks < 1:
            raise ValueError(f"predictor.blocks: {blocks} is not at least 1")
        self.dim, self.grid = dim, grid
        self.position_ND = nn.Parameter(0.02 * torch.randn(grid * grid, dim)) if positions else None
        self.patch_norm, self.instruction_norm, self.refined_norm = (
            nn.LayerNorm(dim) if norm else nn.Identity() for _ in range(3)
        )
        self.blocks = nn.ModuleList(Block(dim, heads, residual, norm, first=number == 0) for number in range(blocks))
        self.mlp = nn.Sequential(nn.Linear(dim, mlp_width or dim), nn.GELU(), nn.Linear(mlp_width or dim, 1))
        nn.init.normal_(self.mlp[-1].weight, std=0.02)
        nn.init.constant_(self.mlp[-1].bias, math.log(initial_probability / (1 - initial_probability)))
        self.semantic = nn.Linear(dim, dim)
        self.register_load_state_dict_pre_hook(_name_first_block)

    @classmethod
    def from_config(cls, config: PredictorConfig, dim: int, grid: int) -> RegionPredictor:
        """An untrained predictor for encoders of width `dim` whose patches form a square of `grid` a side."""
        return cls(dim, grid, **vars(config))

    @classmethod
    def _from_pretrained(
        cls, *, model_id: str, revision, cache_dir, force_download, local_files_only, token, **arguments
    ) -> RegionPredictor:
        """`from_pretrained` calls this after reading config.json. The mixin's own version would leave a missing weight
        random, fall back to pickle and print."""
        file = Path(model_id) / WEIGHTS
        if not Path(model_id).is_dir():
            file = hf_hub_download(
                model_id,
                WEIGHTS,
                revision=revision,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
                token=token,
            )
        predictor = cls(**arguments)
        predictor.load_state_dict(load_file(file))
        return predictor.eval()

    def forward(
        self, patches_BND: Tensor, instruction_BMD: Tensor, instruction_mask_BM: Tensor | None = None
    ) -> RegionPrediction:
        """Equations 1-3.

        Args:
            patches_BND: F_img, projected patch features.
            instruction_BMD: F_ins.
            instruction_mask_BM: bool, True for real tokens, at least one in every row; None: all are real.

        Raises:
            ValueError: features of another width than the predictor's, or patches that do not form a square.
        """
        widths = patches_BND.shape[2], instruction_BMD.shape[2]
        if widths != (self.dim, self.dim):
            raise ValueError(
                f"predictor: made for features {self.dim} wide, got patches of {widths[0]} and instruction tokens of "
                f"{widths[1]}"
            )
        x_BND = self.patch_norm(patches_BND)
        if self.position_ND is not None:
            x_BND = x_BND + self._positions(x_BND.shape[1])
        instruction_BMD = self.instruction_norm(instruction_BMD)
        refined_BND = x_BND
        for block in self.blocks:
            fused_BND, refined_BND = block(refined_BND, instruction_BMD, instruction_mask_BM)
        logits_BN = self.mlp(self.refined_norm(refined_BND)).squeeze(2)
        return RegionPrediction(fused_BND, refined_BND, logits_BN.float().clamp(-LOGIT_LIMIT, LOGIT_LIMIT))

    def project(self, features_BND: Tensor) -> Tensor:
        """f_sem of eq. 4 and 5: the mean patch, mapped linearly into CLIP's space, [B, D]; not normalised."""
        return self.semantic(features_BND.mean(1))

    def export(self, folder: str | Path, trained_with: Sequence[str] = (), data: str = "", measured: str = "") -> None:
        """Write config.json, README.md (the model card) and model.safetensors, replacing what is there, all or none.

        The card says what the predictor was trained with (a line for each frozen model), on what, and its results.

        Raises:
            OSError: no room or no permission; the message names the folder.
        """
        card = self.generate_model_card(trained_with=list(trained_with), data=data, measured=measured)
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        config = json.dumps(self._hub_mixin_config, sort_keys=True, indent=2)
        write_together(
            folder, {"config.json": config.encode(), "README.md": str(card).encode(), WEIGHTS: save(weights)}
        )

    def _positions(self, patches: int) -> Tensor:
        """The learned positions, interpolated if the pictures have another number of patches."""
        if patches == len(self.position_ND):
            return self.position_ND
        side = math.isqrt(patches)
        if side * side != patches:
            raise ValueError(f"predictor: learned positions need a square grid, got {patches} patches")
        grid_1Dgg = self.position_ND.T.unflatten(1, (self.grid, self.grid))[None]
        return F.interpolate(grid_1Dgg, (side, side), mode="bicubic", align_corners=False).flatten(2)[0].T


def _name_first_block(predictor: RegionPredictor, weights: dict[str, Tensor], prefix: str, *_) -> None:
    """Weights that were stored before there were several blocks name the first block's layers without `blocks.0.`."""
    for name in [name for name in weights if name.removeprefix(prefix).startswith(FIRST_BLOCK)]:
        weights[f"{prefix}blocks.0.{name.removeprefix(prefix)}"] = weights.pop(name)
