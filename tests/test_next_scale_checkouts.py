"""Public next-scale models from a checkout of their own code, on stand-ins with its classes: Switti and VAR."""

import sys
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from regionedit.config import NextScaleConfig
from regionedit.generators import load_generator
from tests.generator_inputs import box, pictures, tokens_of

MODELS = """
import torch
import torch.nn.functional as F
from torch import nn


class Quantizer(nn.Module):
    def __init__(self, codes, channels, sides):
        super().__init__()
        self.v_patch_nums, self.embedding = sides, nn.Embedding(codes, channels)

    def get_next_autoregressive_input(self, si, SN, f_hat, h_BChw):
        f_hat.add_(F.interpolate(h_BChw, size=(self.v_patch_nums[-1],) * 2, mode="nearest"))  # in place, as theirs
        return f_hat, F.interpolate(f_hat, size=(self.v_patch_nums[min(si + 1, SN - 1)],) * 2, mode="area")


class VQVAE(nn.Module):
    downsample = 16

    def __init__(self, vocab_size, z_channels, ch, test_mode, share_quant_resi, v_patch_nums):
        super().__init__()
        self.quantize = Quantizer(vocab_size, z_channels, v_patch_nums)

    def img_to_idxBl(self, inp_img_no_grad, v_patch_nums=None):
        means = [F.adaptive_avg_pool2d(inp_img_no_grad, side)[:, 0].flatten(1) for side in self.quantize.v_patch_nums]
        return [(mean * 5 + 5).round().long() for mean in means]

    def fhat_to_img(self, f_hat):
        return F.interpolate(f_hat[:, :3], scale_factor=16).clamp(-1, 1)


class Attention(nn.Module):
    def kv_caching(self, enable):
        self.caching, self.cached = enable, None

    def forward(self, x):
        if self.caching:
            x = self.cached = x if self.cached is None else torch.cat([self.cached, x], 1)
        return x.mean(1, keepdim=True)


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.attn, self.linear = Attention(), nn.Linear(width, width)

    def forward(self, x, cond_BD, attn_bias):
        assert attn_bias is None
        return x + torch.tanh(self.linear(x + self.attn(x) + cond_BD[:, None]))


class Network(nn.Module):
    def __init__(self, codes, channels, width, sides, block=Block, depth=2):
        super().__init__()
        self.patch_nums, self.Cvae, levels = sides, channels, [torch.full((s * s,), k) for k, s in enumerate(sides)]
        self.word_embed, self.pos_start = nn.Linear(channels, width), nn.Parameter(torch.randn(1, 1, width))
        self.lvl_embed = nn.Embedding(len(sides), width)
        self.register_buffer("lvl_1L", torch.cat(levels)[None])
        self.blocks, self.head = nn.ModuleList(block(width) for _ in range(depth)), nn.Linear(width, codes)

    def get_logits(self, h_or_h_and_residual, cond_BD):
        return 4 * self.head(h_or_h_and_residual * (1 + cond_BD[:, None]))


def get_crop_condition(heights, widths, base_size=512):
    return torch.tensor([[height, width, 0, 0] for height, width in zip(heights, widths)])


class TextBlock(Block):
    def forward(self, x, cond_BD, attn_bias, crop_cond=None, context=None, context_attn_bias=None, freqs_cis=None):
        assert freqs_cis.shape[1] == x.shape[1]
        read = (context * context_attn_bias.exp()[..., None]).mean(1)
        return super().forward(x + freqs_cis.real, cond_BD + read + 0.1 * crop_cond, attn_bias)


class Switti(Network):
    def __init__(self, sides, use_ar):
        super().__init__(11, 4, 8, sides, TextBlock)
        self.rope, self.use_ar, self.use_crop_cond = True, use_ar, True
        self.text_pooler, self.crop_proj = nn.Linear(6, 8), nn.Linear(8, 8)
        self.crop_embed = lambda sizes: torch.stack([sizes / 512.0, -sizes / 512.0], -1)
        self.freqs_cis = torch.randn(1, self.lvl_1L.shape[1], 8, dtype=torch.complex64)


class SwittiPipeline:
    def __init__(self, switti, vae):
        self.switti, self.vae, self.text_encoder, self.text_encoder_2 = switti, vae, nn.Identity(), nn.Identity()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, torch_dtype=torch.bfloat16, device="cuda", reso=1024):
        if pretrained_model_name_or_path == "missing":
            raise OSError("no such weights")
        torch.manual_seed(3)
        network = Switti((1, 2, 4), use_ar=pretrained_model_name_or_path == "ar")
        return cls(network.to(torch_dtype), VQVAE(11, 4, 160, True, 4, (1, 2, reso // 16)).to(torch_dtype))

    def encode_prompt(self, prompt, null_prompt="", encode_null=True):
        assert not encode_null
        context = torch.tensor([float(len(text)) for text in prompt])[:, None, None].expand(-1, 5, 8) / 20
        bias = torch.tensor([[0.0, 0.0, 0.0, -torch.inf, -torch.inf]]).expand(len(prompt), -1)
        return context, context[:, 0, :6] + 0.3, bias


class VAR(Network):
    def __init__(self, vae_local, num_classes=1000, depth=16, embed_dim=1024, num_heads=16, shared_aln=False,
                 attn_l2_norm=False, patch_nums=(1,)):
        super().__init__(4096, 32, embed_dim, patch_nums, depth=depth)
        self.num_classes, self.class_emb = num_classes, nn.Embedding(num_classes + 1, embed_dim)
        self.pos_1LC, self.shared_ada_lin = nn.Parameter(torch.randn(1, self.lvl_1L.shape[1], embed_dim)), nn.Tanh()
"""
TEXTS = {"switti": ["a red circle", "a dog"], "switti_ar": ["a red circle", "a dog"], "var": ["207", "1"]}


@pytest.fixture
def configs(tmp_path):
    """A configuration for a stand-in of each public model, by name."""
    for name, modules in {"switti": ("pipeline", "switti"), "var": ("var", "vqvae")}.items():
        (tmp_path / name / "models").mkdir(parents=True)
        for module, text in {
            "__init__": "",
            "parts": MODELS,
            **dict.fromkeys(modules, "from models.parts import *"),
        }.items():
            (tmp_path / name / "models" / f"{module}.py").write_text(text)
    write_var_weights(tmp_path)
    switti = NextScaleConfig(checkout=str(tmp_path / "switti"), path="yresearch/Switti", size=64, temperature=0.0)
    var = replace(switti, checkout=str(tmp_path / "var"), path=str(tmp_path), size=256)
    yield {"switti": switti, "switti_ar": replace(switti, path="ar"), "var": var}
    for name in [name for name in sys.modules if name.split(".")[0] == "models"]:  # the package of every checkout
        del sys.modules[name]


def write_var_weights(folder):
    built: dict = {}
    exec(MODELS, built)
    sides = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
    torch.manual_seed(4)
    vae = built["VQVAE"](4096, 32, 160, True, 4, sides)
    save_file(vae.state_dict(), folder / "vae.safetensors")
    save_file(built["VAR"](vae, depth=2, embed_dim=128, patch_nums=sides).state_dict(), folder / "var.safetensors")


def prepared(name, model, texts):
    """The vector and the other arguments of every block, as the checkout's own loop computes them."""
    network = model.network
    if name == "var":
        vector = network.class_emb(torch.tensor([*map(int, texts), 1000, 1000]))
        return vector, {"cond_BD": network.shared_ada_lin(vector)}
    context, pooled, bias = model.pipeline.encode_prompt([*texts, "", ""], encode_null=False)
    vector = network.text_pooler(pooled)
    size = network.crop_proj(network.crop_embed(torch.tensor([512, 512, 0, 0] * 4)).reshape(4, 8))
    return vector, {"cond_BD": vector, "context": context, "context_attn_bias": bias, "crop_cond": size}


@torch.no_grad()
def own_loop(name, model, texts, guidance):
    """Whole pictures of the likeliest tokens, as the checkout's own loop takes its steps."""
    network, vae = model.network, model.vae
    vector, arguments = prepared(name, model, texts)
    positions = network.lvl_embed(network.lvl_1L)
    if name == "var":
        positions = positions + network.pos_1LC
    x, done = vector[:, None] + network.pos_start + positions[:, :1], 0
    accumulated = torch.zeros(2, network.Cvae, network.patch_nums[-1], network.patch_nums[-1])
    for block in network.blocks:
        block.attn.kv_caching(name != "switti")
    for scale, side in enumerate(network.patch_nums):
        here, done = slice(done, done + side**2), done + side**2
        for block in network.blocks:
            rotation = {} if name == "var" else {"freqs_cis": network.freqs_cis[:, here]}
            x = block(x=x, attn_bias=None, **arguments, **rotation)
        with_text, without = network.get_logits(x, vector).chunk(2)
        strength = (guidance - 1) * scale / (len(network.patch_nums) - 1)
        tokens = ((1 + strength) * with_text - strength * without).argmax(-1)
        entries = vae.quantize.embedding(tokens).transpose(1, 2).reshape(2, network.Cvae, side, side)
        accumulated, following = vae.quantize.get_next_autoregressive_input(
            scale, len(network.patch_nums), accumulated, entries
        )
        if done < positions.shape[1]:
            ahead = positions[:, done : done + network.patch_nums[scale + 1] ** 2]
            x = (network.word_embed(following.flatten(2).transpose(1, 2)) + ahead).repeat(2, 1, 1)
    return vae.fhat_to_img(accumulated).add(1).mul(0.5)


@pytest.mark.parametrize("name", TEXTS)
def test_the_whole_picture_equals_that_of_the_checkouts_own_loop(configs, name):
    """And with a region, the tokens outside are the source's."""
    config = replace(configs[name], guidance_scale=3.0)
    generator, images = load_generator(config), pictures(2, config.size, config.size)
    assert config.checkout not in sys.path
    wanted = own_loop(name, generator.model, TEXTS[name], 3.0)

    def stop(step, steps, preview):
        raise KeyboardInterrupt

    everything = torch.ones_like(images[:, :1])
    with pytest.raises(KeyboardInterrupt):  # an edit that was cancelled leaves no trace in the next one
        generator.propose(images, everything, TEXTS[name][::-1], [1, 2], stop)
    made = generator.propose(images, everything, TEXTS[name], [1, 2])
    assert ((made - wanted).abs() < 1e-4).float().mean() > 0.995  # ties of float32 apart
    assert not torch.equal(made[0], made[1])
    assert all(not block.attn.caching and block.attn.cached is None for block in generator.model.network.blocks)
    mask, source = box(2, config.size, config.size), generator.model.encode(images)
    tokens = tokens_of(generator, images, mask, TEXTS[name])
    outside = [F.adaptive_max_pool2d(mask, found.shape[1])[:, 0] == 0 for found in tokens]
    assert all(torch.equal(a[o], b[o]) for a, b, o in zip(tokens, source, outside, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(tokens, source, strict=True))


def test_var_reads_no_text(configs):
    generator, images = load_generator(configs["var"]), pictures(2, 256, 256)
    for text in ("a red circle", "1000", "-1", "2.5"):
        with pytest.raises(ValueError, match=f"target_caption: VAR .*reads no text.*not '{text}'"):
            generator.propose(images, torch.ones_like(images[:, :1]), ["1", text], [1, 2])


@pytest.mark.parametrize(
    ("name", "changes", "code", "says"),
    [
        ("switti", {"checkout": "/"}, {}, "generator.checkout: / has neither models/pipeline.py nor models/var.py"),
        ("switti", {"path": "missing"}, {}, "generator.path: 'missing' has no weights of yandex-research/.*no such"),
        ("switti", {"size": 128}, {}, "generator.size: .*generates 64 pixels.*built for 128; set it to 64"),
        ("var", {"size": 64}, {}, "generator.size: 64 in float32: VAR generates 256 or 512"),
        ("var", {"size": 512}, {}, "generator.path: .*no weights of FoundationVision/VAR .* for 512 pixels"),
        ("var", {"path": "/"}, {}, "generator.path: '/' has no weights of FoundationVision/VAR"),
        ("switti", {}, {"switti": "import not_here"}, "generator.checkout: .* must be .*/switti at commit.*not_here"),
        ("switti", {}, {"pipeline": "class Pipeline: ..."}, "generator.checkout: .* must be .*/switti at commit"),
        ("var", {}, {"var": "def VAR(vae): ..."}, "generator.checkout: .* must be FoundationVision/VAR at commit"),
    ],
)
def test_what_does_not_fit_the_checkout_is_refused(configs, name, changes, code, says, tmp_path):
    """Settings, weights, and another version of the code."""
    for file, text in code.items():
        (tmp_path / name / "models" / f"{file}.py").write_text(text)
    with pytest.raises(ValueError, match=says) as error:
        load_generator(replace(configs[name], **changes))
    assert "\n" not in str(error.value) and configs[name].checkout not in sys.path
