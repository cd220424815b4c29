"""Public next-scale models from a checkout of their own code, on stand-ins with its signatures: Switti and VAR."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from regionedit.config import NextScaleConfig
from regionedit.generators import load_generator
from tests.next_scale_inputs import SIDE, box, pictures, tokens_of

# ---------------------------------------------------------------- Switti

STAND_IN = """
import torch
from torch import nn
import torch.nn.functional as F


class Quantizer(nn.Module):
    def __init__(self, sides):
        super().__init__()
        self.v_patch_nums, self.embedding = sides, nn.Embedding(11, 4)

    def get_next_autoregressive_input(self, si, SN, f_hat, h_BChw):
        f_hat.add_(F.interpolate(h_BChw, size=(self.v_patch_nums[-1],) * 2, mode="nearest"))
        return f_hat, None


class Vae(nn.Module):
    downsample = 8

    def __init__(self, sides):
        super().__init__()
        self.quantize = Quantizer(sides)

    def img_to_idxBl(self, inp_img_no_grad, v_patch_nums=None, noise_std=None):
        means = [F.adaptive_avg_pool2d(inp_img_no_grad, side)[:, 0].flatten(1) for side in self.quantize.v_patch_nums]
        return [(mean * 5 + 5).round().long() for mean in means]

    def fhat_to_img(self, f_hat):
        return F.interpolate(f_hat[:, :3], scale_factor=8).clamp(-1, 1)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x, cond_BD, attn_bias, crop_cond=None, context=None, context_attn_bias=None, freqs_cis=None):
        assert attn_bias is None and freqs_cis.shape[1] == x.shape[1]
        read = (context * context_attn_bias.exp()[..., None]).mean(1)
        told = cond_BD + read[:, :8] + 0.1 * crop_cond
        return x + torch.tanh(self.linear(x + told[:, None] + x.mean(1, keepdim=True)) + freqs_cis.real)


class Network(nn.Module):
    def __init__(self, use_ar):
        super().__init__()
        self.patch_nums, self.Cvae, self.D = (1, 2, 4), 4, 8
        self.rope, self.use_ar, self.use_crop_cond = True, use_ar, True
        self.word_embed, self.text_pooler, self.crop_proj = nn.Linear(4, 8), nn.Linear(6, 8), nn.Linear(8, 8)
        self.crop_embed = lambda told: torch.stack([told / 512.0, -told / 512.0], -1)
        self.pos_start, self.lvl_embed = nn.Parameter(torch.randn(1, 1, 8)), nn.Embedding(3, 8)
        self.register_buffer("lvl_1L", torch.tensor([[0] + [1] * 4 + [2] * 16]))
        self.freqs_cis = torch.randn(1, 21, 8, dtype=torch.complex64)
        self.blocks, self.head = nn.ModuleList([Block(), Block()]), nn.Linear(8, 11)

    def get_logits(self, h_or_h_and_residual, cond_BD):
        return 4 * self.head(h_or_h_and_residual * (1 + cond_BD[:, None]))


class Text(nn.Module):
    device = "cpu"


class SwittiPipeline:
    def __init__(self, switti, vae, text_encoder, text_encoder_2, device, dtype=torch.float32):
        self.switti, self.vae, self.text_encoder, self.text_encoder_2 = switti, vae, text_encoder, text_encoder_2
        self.device = device

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, torch_dtype=torch.bfloat16, device="cuda", reso=1024):
        if pretrained_model_name_or_path == "missing":
            raise OSError("no such weights")
        torch.manual_seed(3)
        network = Network(use_ar=pretrained_model_name_or_path == "ar")
        sides = (1, 2, 4) if reso == 32 else (1, 2, 8)
        return cls(network, Vae(sides), Text(), Text(), device, torch_dtype)

    def encode_prompt(self, prompt, null_prompt="", encode_null=True):
        count = [float(len(text)) for text in prompt]
        context = torch.tensor(count)[:, None, None].expand(-1, 5, 10) / 20
        bias = torch.tensor([[0.0, 0.0, 0.0, -torch.inf, -torch.inf]]).expand(len(prompt), -1)
        return context, context[:, 0, :6] + 0.3, bias
"""


SIZE_CONDITION = """
import torch


def get_crop_condition(heights, widths, base_size=512):
    return torch.tensor([[height, width, 0, 0] for height, width in zip(heights, widths)])
"""


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    models = tmp_path / "switti" / "models"
    models.mkdir(parents=True)
    (models / "__init__.py").write_text("")
    (models / "pipeline.py").write_text(STAND_IN)
    (models / "switti.py").write_text(SIZE_CONDITION)
    yield tmp_path / "switti"
    forget_models()


def forget_models():
    """Every checkout calls its package `models`."""
    for name in [name for name in sys.modules if name.split(".")[0] == "models"]:
        del sys.modules[name]


def switti(checkout, **changes):
    settings = {"path": "yresearch/Switti", "size": SIDE, "temperature": 0.0, **changes}
    return load_generator(NextScaleConfig(checkout=str(checkout), **settings))


@torch.no_grad()
def painted_by_hand(pipeline, text, guidance):
    """The whole picture, likeliest tokens, as the checkout's own loop takes its steps."""
    network, quantizer = pipeline.switti, pipeline.vae.quantize
    context, pooled, bias = pipeline.encode_prompt([text, ""], encode_null=False)
    pooled = network.text_pooler(pooled)
    size = network.crop_proj(network.crop_embed(torch.tensor([512, 512, 0, 0] * 2)).reshape(2, 8))
    levels, standing, done = network.lvl_embed(network.lvl_1L), torch.zeros(1, 4, 4, 4), 0
    x = pooled[:, None] + network.pos_start + levels[:, :1]
    for scale, side in enumerate(network.patch_nums):
        for block in network.blocks:
            x = block(x, pooled, None, size, context, bias, network.freqs_cis[:, done : done + side**2])
        done += side**2
        with_text, without = network.get_logits(x, pooled)
        t = (guidance - 1) * scale / 2
        tokens = ((1 + t) * with_text - t * without).argmax(-1)
        entries = quantizer.embedding(tokens).T.reshape(1, 4, side, side)
        standing, _ = quantizer.get_next_autoregressive_input(scale, 3, standing, entries)
        if scale < 2:
            following = network.patch_nums[scale + 1]
            pooled_here = F.interpolate(standing, size=(following, following), mode="area").flatten(2).transpose(1, 2)
            x = (network.word_embed(pooled_here) + levels[:, done : done + following**2]).repeat(2, 1, 1)
    return pipeline.vae.fhat_to_img(standing).add(1).mul(0.5)


def test_switti_paints_everything_as_its_own_loop_does(checkout):
    generator = switti(checkout, guidance_scale=5.0)
    assert str(checkout) not in sys.path
    everything = torch.ones(2, 1, SIDE, SIDE)
    made = generator.propose(pictures(), everything, ["a red circle", "a dog"], [1, 2])
    for b, text in enumerate(("a red circle", "a dog")):
        wanted = painted_by_hand(generator.model.pipeline, text, 5.0)[0]
        torch.testing.assert_close(made[b], wanted, rtol=1e-4, atol=1e-4)
    assert not torch.equal(made[0], made[1])


def test_switti_is_held_to_the_source_outside_the_region(checkout):
    generator, images, mask = switti(checkout), pictures(), box(8, 16, 8, 16)
    source = generator.model.encode(images)
    changed = 0
    for mine, theirs in zip(tokens_of(generator, images, mask), source, strict=True):
        touched = F.max_pool2d(mask, SIDE // mine.shape[1])[:, 0] > 0
        assert torch.equal(mine[~touched], theirs[~touched])
        changed += int((mine != theirs).sum())
    assert changed > 0


def test_a_checkout_that_cannot_serve_is_refused(checkout, tmp_path):
    with pytest.raises(ValueError, match="generator.checkout: .*has neither models/pipeline.py nor models/var.py"):
        switti(tmp_path)
    with pytest.raises(ValueError, match="generator.path: this is Switti AR"):
        switti(checkout, path="ar")
    with pytest.raises(ValueError, match="generator.path: no Switti could be read from 'missing'"):
        switti(checkout, path="missing")
    with pytest.raises(ValueError, match="generator.size: .*set it to 32"):
        switti(checkout, size=64)
    forget_models()
    Path(checkout / "models" / "switti.py").write_text("import a_package_that_is_not_here\n")
    with pytest.raises(ValueError, match="generator.checkout: .*a_package_that_is_not_here"):
        switti(checkout)


# ---------------------------------------------------------------- VAR by class

VQVAE = """
import torch
from torch import nn
import torch.nn.functional as F


class Quantizer(nn.Module):
    def __init__(self, codes, channels, sides):
        super().__init__()
        self.v_patch_nums, self.embedding = sides, nn.Embedding(codes, channels)

    def get_next_autoregressive_input(self, si, SN, f_hat, h_BChw):
        f_hat.add_(F.interpolate(h_BChw, size=(self.v_patch_nums[-1],) * 2, mode="nearest"))
        return f_hat, None


class VQVAE(nn.Module):
    downsample = 16

    def __init__(self, vocab_size=4096, z_channels=32, ch=128, share_quant_resi=4, v_patch_nums=(1,), test_mode=True):
        super().__init__()
        self.quantize = Quantizer(vocab_size, z_channels, v_patch_nums)

    def img_to_idxBl(self, inp_img_no_grad, v_patch_nums=None):
        means = [F.adaptive_avg_pool2d(inp_img_no_grad, side)[:, 0].flatten(1) for side in self.quantize.v_patch_nums]
        return [(mean * 50 + 50).round().long() for mean in means]

    def fhat_to_img(self, f_hat):
        return F.interpolate(f_hat[:, :3], scale_factor=16).clamp(-1, 1)
"""

VAR = """
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x, cond_BD, attn_bias):
        attended = attn_bias[0, 0].exp()  # the mean of what may be seen
        return x + torch.tanh(self.linear(attended @ x / attended.sum(1, keepdim=True)) + x + cond_BD[:, None])


class VAR(nn.Module):
    def __init__(self, vae_local, num_classes=1000, depth=16, embed_dim=1024, num_heads=16, shared_aln=False,
                 attn_l2_norm=False, patch_nums=(1,)):
        super().__init__()
        self.patch_nums, self.Cvae, self.num_classes = patch_nums, 32, num_classes
        self.word_embed, self.class_emb = nn.Linear(32, embed_dim), nn.Embedding(num_classes + 1, embed_dim)
        self.pos_start = nn.Parameter(torch.randn(1, 1, embed_dim))
        levels = torch.cat([torch.full((side**2,), level) for level, side in enumerate(patch_nums)])
        self.pos_1LC = nn.Parameter(torch.randn(1, len(levels), embed_dim))
        self.lvl_embed = nn.Embedding(len(patch_nums), embed_dim)
        self.register_buffer("lvl_1L", levels[None])
        bias = torch.where(levels[:, None] >= levels[None], 0.0, -torch.inf)
        self.register_buffer("attn_bias_for_masking", bias[None, None])
        self.shared_ada_lin = nn.Identity()
        self.blocks, self.head = nn.ModuleList(Block(embed_dim) for _ in range(depth)), nn.Linear(embed_dim, 4096)

    def get_logits(self, h_or_h_and_residual, cond_BD):
        return self.head(h_or_h_and_residual * (1 + cond_BD[:, None]))
"""


@pytest.fixture
def var(tmp_path):
    from safetensors.torch import save_file

    models = tmp_path / "VAR" / "models"
    models.mkdir(parents=True)
    for name, text in (("__init__", ""), ("vqvae", VQVAE), ("var", VAR)):
        (models / f"{name}.py").write_text(text)
    built: dict = {}
    for text in (VQVAE, VAR):
        exec(text, built)
    torch.manual_seed(4)
    sides = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
    vae = built["VQVAE"](v_patch_nums=sides)
    save_file(vae.state_dict(), tmp_path / "vae.safetensors")
    network = built["VAR"](vae, depth=2, embed_dim=128, patch_nums=sides)
    save_file(network.state_dict(), tmp_path / "var.safetensors")
    settings = {"checkout": str(tmp_path / "VAR"), "path": str(tmp_path), "size": 256, "guidance_scale": 2.5}
    yield NextScaleConfig(temperature=0.0, **settings)
    forget_models()


@torch.no_grad()
def test_var_predicts_every_scale_from_all_before_it(var):
    """The tokens that the loop took, in one pass over all scales at once, are the likeliest everywhere."""
    generator = load_generator(var)
    images, everything = torch.rand(1, 3, 256, 256), torch.ones(1, 1, 256, 256)
    tokens = tokens_of(generator, images, everything, ["207"], [1])
    network, quantizer = generator.model.network, generator.model.vae.quantize
    classes = network.class_emb(torch.tensor([207, 1000]))
    parts, standing = [classes[:, None] + network.pos_start], torch.zeros(1, 32, 16, 16)
    for scale, side in enumerate(network.patch_nums[1:]):
        entries = quantizer.embedding(tokens[scale]).permute(0, 3, 1, 2)
        standing = standing + F.interpolate(entries, size=(16, 16), mode="nearest")
        here = F.interpolate(standing, size=(side, side), mode="area").flatten(2).transpose(1, 2)
        parts.append(network.word_embed(here).repeat(2, 1, 1))
    x = torch.cat(parts, 1) + network.lvl_embed(network.lvl_1L) + network.pos_1LC
    for block in network.blocks:
        x = block(x, classes, network.attn_bias_for_masking)
    with_class, without = network.get_logits(x, classes)
    strength = 1.5 * network.lvl_1L[0][:, None] / 9
    likeliest = ((1 + strength) * with_class - strength * without).argmax(-1)
    agree = likeliest == torch.cat([part.flatten() for part in tokens])
    assert agree.float().mean() > 0.995  # ties of float32 apart
    assert len(likeliest.unique()) > 20


def test_var_is_held_to_the_source_and_reads_no_text(var):
    generator, images = load_generator(var), torch.rand(2, 3, 256, 256)
    mask = torch.zeros(2, 1, 256, 256)
    mask[..., 64:128, 64:128] = 1
    changed = 0
    source = generator.model.encode(images)
    for mine, theirs in zip(tokens_of(generator, images, mask, ["1", "999"], [1, 2]), source, strict=True):
        outside = F.adaptive_max_pool2d(mask, mine.shape[1])[:, 0] == 0
        assert torch.equal(mine[outside], theirs[outside])
        changed += int((mine != theirs).sum())
    assert changed > 0
    for text in ("a red circle", "1000", "-1", "2.5"):
        with pytest.raises(ValueError, match=f"target_caption: VAR .*reads no text.*not '{text}'"):
            generator.propose(images, mask, ["1", text], [1, 2])


def test_var_without_its_weights_is_refused(var, tmp_path):
    with pytest.raises(ValueError, match="generator.size: 64 in float32: VAR generates 256 or 512"):
        load_generator(dataclasses.replace(var, size=64))
    with pytest.raises(ValueError, match="generator.path: .*for 512 pixels"):
        load_generator(dataclasses.replace(var, size=512))
    with pytest.raises(ValueError, match="generator.path: .*has no vae.safetensors and var.safetensors"):
        load_generator(dataclasses.replace(var, path=str(tmp_path / "nothing")))
