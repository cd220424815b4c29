"""Next-scale prediction: what stays the source's, against loops and numbers by hand."""

import shutil
from dataclasses import replace

import known_edits
import pytest
import torch
import torch.nn.functional as F

from regionedit.config import NextScaleConfig
from regionedit.generators import load_generator, noise_seed
from regionedit.generators.next_scale import draw, edited_cells, repaint_scales
from regionedit.generators.next_scale_model import NextScaleModel
from regionedit.generators.next_scale_tokens import ScaleQuantizer
from regionedit.masks import composite, dilate
from tests.generator_inputs import box, pictures, tokens_of

SIDE = 32


@pytest.fixture
def generator(tiny_generator):
    return tiny_generator("next_scale")


class Toy:
    """Four pixels, token maps of one and of two by two cells, three codes worth -1, 0 and 1. Its logits are a table."""

    image_size, sides = 2, (1, 2)
    worth = torch.tensor([-1.0, 0.0, 1.0])
    table = {"": torch.tensor([0.0, 0.5, 0.0]), "up": torch.tensor([0.0, 0.0, 2.0]), "down": torch.tensor([3.0, 0, 0])}

    def encode(self, images):
        first = torch.ones(len(images), 1, 1, dtype=torch.int64)
        return [first, (images[:, 0].round() + 1).long()]

    def read(self, texts, images, mask):
        return torch.stack([self.table[text] for text in texts])

    def start(self, count):
        return torch.zeros(count, 1, 2, 2)

    def logits(self, scale, accumulated, known, texts):
        side = self.sides[scale]
        # what stands already counts too, so that a wrong accumulation shows
        return (
            texts[:, None, None].expand(-1, side, side, -1)
            + F.adaptive_avg_pool2d(accumulated, side)[:, 0, ..., None] * self.worth
        )

    def accumulate(self, scale, accumulated, tokens):
        return accumulated + F.interpolate(self.worth[tokens][:, None], (2, 2))

    def decode(self, accumulated):
        return accumulated.expand(-1, 3, -1, -1)


@pytest.mark.parametrize("guidance", [1.0, 2.5])
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_the_loop_equals_one_written_by_hand(guidance, temperature):
    images = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]).expand(3, 2, 2).expand(2, 3, 2, 2)
    mask = torch.tensor([[1.0, 0.0], [0.0, 0.0]]).expand(2, 1, 2, 2)
    texts, seeds = ["up", "down"], [5, 9]
    made = repaint_scales(Toy(), images, mask, texts, seeds, guidance, temperature)
    for b, (text, seed) in enumerate(zip(texts, seeds, strict=True)):
        first = Toy.table[text]  # the first scale is not guided, and its only cell holds a pixel of the mask
        if temperature:
            noise = torch.rand(1, 1, 3, generator=torch.Generator().manual_seed(noise_seed(seed, 0)))
            first = first / temperature - (-noise[0, 0].log()).log()
        accumulated = Toy.worth[first.argmax()] * torch.ones(2, 2)
        bent = Toy.table[""] + guidance * (Toy.table[text] - Toy.table[""]) + accumulated[0, 0] * Toy.worth
        if temperature:
            noise = torch.rand(2, 2, 3, generator=torch.Generator().manual_seed(noise_seed(seed, 1)))
            bent = bent / temperature - (-noise[0, 0].log()).log()
        second = torch.tensor([[Toy.worth[bent.argmax()], 0.0], [0.0, 1.0]])  # the source's but for one cell
        assert torch.equal(made[b, 0], accumulated + second)


@pytest.mark.parametrize("place", [(8, 16, 8, 16), (0, 5, 27, 32), (13, 14, 17, 18), (0, 32, 0, 16)])
def test_tokens_outside_the_region_are_the_sources_at_every_scale(generator, place):
    images, mask = pictures(), box(rows=place[:2], columns=place[2:])
    source = generator.model.encode(images)
    changed = 0
    for scale, (mine, theirs) in enumerate(zip(tokens_of(generator, images, mask), source, strict=True)):
        cell = SIDE // generator.model.sides[scale]
        touched = F.max_pool2d(mask, cell)[:, 0] > 0
        assert torch.equal(mine[~touched], theirs[~touched])
        changed += int((mine != theirs).sum())
    assert changed > 0


def test_without_a_region_the_quantised_source_comes_back(generator):
    images = pictures()
    made = generator.propose(images, torch.zeros(2, 1, SIDE, SIDE), ["a", "b"], [1, 2])
    autoencoder = generator.model.autoencoder
    left, accumulated = autoencoder.encoder(images * 2 - 1), 0
    for scale in range(4):
        pooled = F.avg_pool2d(left, 8 >> scale)
        tokens = torch.cdist(pooled.permute(0, 2, 3, 1).flatten(1, 2), autoencoder.quantizer.codebook_VC).argmin(-1)
        added = autoencoder.quantizer.spread(tokens.unflatten(1, (1 << scale, 1 << scale)), scale)
        left, accumulated = left - added, accumulated + added
    wanted = (autoencoder.decoder(accumulated) / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(made, wanted, rtol=1e-5, atol=1e-5)


def test_the_residual_quantizer_by_hand():
    quantizer = ScaleQuantizer(channels=1, codes=3, sides=(1, 2))
    quantizer.codebook_VC.copy_(torch.tensor([[-1.0], [0.0], [2.0]]))
    for smooth in quantizer.smooth:  # half of an entry goes through the convolution: here three times itself, and 1
        torch.nn.init.dirac_(smooth.weight)
        smooth.weight.data *= 3
        torch.nn.init.ones_(smooth.bias)
    with torch.no_grad():
        # mean 1.3, nearest 2, which adds 2 / 2 + (3 * 2 + 1) / 2 = 4.5; left -2.5, -2.5, -4.5, -3.3 and 0 for each: -1
        one, two = quantizer.tokens(torch.tensor([[[[2.0, 2.0], [0.0, 1.2]]]]))
        assert one.tolist() == [[[2]]] and two.tolist() == [[[0, 0], [0, 0]]]
        # mean -1.5, nearest -1, which adds -1.5; left 1.5, -.7, .4, -1.2
        one, two = quantizer.tokens(torch.tensor([[[[0.0, -2.2], [-1.1, -2.7]]]]))
        assert one.tolist() == [[[0]]] and two.tolist() == [[[2, 0], [1, 0]]]
        torch.testing.assert_close(quantizer.spread(two, 1)[0, 0], torch.tensor([[4.5, -1.5], [0.5, -1.5]]))


def test_cells_are_edited_where_the_region_covers_them():
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., 0, 0] = 1
    assert edited_cells(mask, 2).tolist() == [[[True, False], [False, False]]]
    assert edited_cells(mask, 2, 0.25).sum() == 0 and edited_cells(mask, 1).all()


def test_sampling_follows_temperature_and_top_k():
    logits = torch.tensor([0.6, 0.3, 0.1]).log().expand(1, 50, 50, 3)
    warm, cold, two = (
        draw(logits, [3], *how).flatten().bincount(minlength=3) / 2500 for how in ((1.0, 0), (0.5, 0), (1.0, 2))
    )
    assert (warm - torch.tensor([0.6, 0.3, 0.1])).abs().max() < 0.04
    assert (cold - torch.tensor([0.36, 0.09, 0.01]) / 0.46).abs().max() < 0.04
    assert (two - torch.tensor([2 / 3, 1 / 3, 0])).abs().max() < 0.04 and two[2] == 0
    assert draw(logits, [3], 0.0, 0).sum() == 0


def test_without_guidance_there_is_one_branch(tiny_generator, generator):
    sizes = []
    hook = generator.model.transformer.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[2][0])))
    for guidance in (1.0, 3.0):
        tiny_generator("next_scale", guidance_scale=guidance).propose(pictures(), box(), ["a", "b"], [1, 2])
    hook.remove()
    assert sizes == [2] * 4 + [4] * 4


def test_settings_that_cannot_be_are_refused(generator):
    for changes, named in (
        ({"size": 64}, "generator.size: 64"),
        ({"size": 0}, "generator.size: 0"),
        ({"temperature": -1.0}, "generator.temperature: -1.0 is negative"),
        ({"top_k": -1}, "generator.top_k: -1 is negative; 0 leaves all tokens"),
    ):
        with pytest.raises(ValueError, match=named):
            generator.using(replace(generator.config, **changes))
    with pytest.raises(ValueError, match="generator.dtype: bfloat16"):
        load_generator(replace(generator.config, dtype="bfloat16"))


def test_saving_and_loading_keep_the_model(generator, tmp_path):
    generator.model.save(tmp_path, torch.float32)
    again, before = NextScaleModel.load(tmp_path).state_dict(), generator.model.state_dict()
    assert again.keys() == before.keys() and all(torch.equal(v, before[k]) for k, v in again.items())
    assert str(tmp_path) not in "".join(path.read_text() for path in tmp_path.rglob("*.json"))
    shutil.rmtree(tmp_path / "text_encoder")
    with pytest.raises(ValueError, match="generator.path: ") as error:
        load_generator(NextScaleConfig(path=str(tmp_path), size=SIDE))
    assert "\n" not in str(error.value)


@pytest.mark.microworld
def test_the_shipped_model_removes_things_that_the_caption_leaves_out():
    """With the true region, a few pixels wider; from the source's caption it paints something there instead."""
    generator = load_generator(NextScaleConfig(path="checkpoints/microworld/next_scale", temperature=0.2))
    known = known_edits.known_edits("validation", 5, range(24), ("remove",))
    mask = dilate((known.truth_B1HW > 0.1).float(), 2)
    shares = []
    for captions in (known.target_captions, known.source_captions):
        made = generator.propose(known.source_BCHW, mask, captions, range(24))
        edited = composite(made, known.source_BCHW, mask)
        shares.append(known_edits.successes(edited, known).mean())
    assert shares[0] >= 0.55 and shares[0] - shares[1] >= 0.2
