"""The pre-training of the tiny frozen models: resuming, tokens, folders that their libraries load, honest scores."""

import re

import diffusion
import measure
import pretrain_autoencoder
import pretrain_clip
import pretrain_dino
import pretrain_ip2p as ip2p
import pretrain_t5
import pretraining
import pytest
import torch
import word_tokenizer as tokens
from torch import nn
from torch.nn import functional as F


def small_clip(tokenizer):
    config = pretrain_clip.configuration(8, len(tokenizer))["model_cfg"]
    text = {k: v for k, v in config["text_cfg"].items() if not k.startswith(("hf_", "tokenizer"))}
    torch.manual_seed(0)
    return pretrain_clip.CLIP(pretrain_clip.EMBED, config["vision_cfg"], text).eval()


@pytest.mark.parametrize("muon", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_resumed_optimizer_makes_the_same_step(tmp_path, layout, muon):
    schedule = pretraining.Schedule(steps=100, learning_rate=0.01, average=0.9, muon=muon)

    def fresh():
        return nn.Conv2d(4, 3, 3).to(memory_format=layout)

    def step(training, number):
        model, optimizer, averaged = training
        torch.manual_seed(number)
        model(torch.randn(2, 4, 8, 8)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        averaged.update(number + 1)

    def begun(model):
        return model, pretraining.optimizer_of(model, schedule), pretraining.Averaged(model, schedule.average)

    state = tmp_path / "state.safetensors"
    first = begun(fresh())
    step(first, 0)
    pretraining.save_state(state, first[0], first[1], {"step": 1, "seconds": 2.5}, first[2])
    step(first, 1)

    again = begun(fresh())
    assert pretraining.load_state(state, *again) == {"step": 1, "seconds": 2.5}
    step(again, 1)
    assert torch.equal(again[0].weight, first[0].weight)
    with first[2].used(), again[2].used():
        assert torch.equal(again[0].weight, first[0].weight)
    with pytest.raises(ValueError, match="holds another model"):
        pretraining.load_state(state, *begun(nn.Conv2d(5, 3, 3)))


def test_the_first_step_of_muon_is_orthogonal():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 9, bias=False))
    before = [p.detach().clone() for p in model.parameters()]
    optimizer = pretraining.optimizer_of(model, pretraining.Schedule(10, 0.1, weight_decay=0.0, muon=True))
    model(torch.randn(50, 6)).square().sum().backward()
    optimizer.step()
    weight, bias, other = ((old - new.detach()) / 0.1 for old, new in zip(before, model.parameters(), strict=True))
    for step, layer in ((weight, model[0]), (other, model[1])):
        left, _, right = torch.linalg.svd(layer.weight.grad, full_matrices=False)
        within = (left.mT @ step @ right.mT) / (0.2 * max(step.shape) ** 0.5)
        assert 0.6 < within.diagonal().min() and within.diagonal().max() < 1.3
        torch.testing.assert_close(within, within.diagonal().diag(), atol=1e-4, rtol=0)
    torch.testing.assert_close(bias.abs(), torch.ones(4))  # Adam's first step


def test_a_running_average_by_hand():
    averaged_of = pretraining.Averaged
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    averaged = averaged_of(model, 0.75)
    nn.init.ones_(model.weight)
    averaged.update(1)  # decay 1 / 11
    averaged.update(1000)  # decay 0.75
    with averaged.used():
        assert model.weight.item() == pytest.approx(0.75 * (10 / 11) + 0.25)
    assert model.weight.item() == 1


def test_half_precision_weights_alone_are_a_start(tmp_path):
    from safetensors.torch import save_file

    schedule, model = pretraining.Schedule(10, 0.01), nn.Linear(2, 1)
    weights = {f"model/{name}": weight.detach().half() for name, weight in nn.Linear(2, 1).state_dict().items()}
    save_file(weights, tmp_path / "state.safetensors", metadata={"position": '{"step": 3, "seconds": 60.0}'})
    training = model, pretraining.optimizer_of(model, schedule), pretraining.Averaged(model, 0.9)
    assert pretraining.load_state(tmp_path / "state.safetensors", *training)["step"] == 3
    assert model.weight.dtype == torch.float32 and torch.equal(model.weight.half(), weights["model/weight"])
    assert torch.equal(training[2].averages[0], model.weight)


def test_training_stops_after_its_steps_and_resumes(tmp_path):
    model, seen = nn.Linear(2, 1), []

    def loss_of(step, share):
        seen.append((step, share))
        return model(torch.ones(1, 2)).square().mean()

    def run(steps):
        schedule, state = pretraining.Schedule(steps, 0.01), tmp_path / "state.safetensors"
        return pretraining.train(model, loss_of, schedule, state, 0, lambda: {"score": 1.0})

    assert run(4)["steps"] == 4 and seen == [(0, 0.0), (1, 0.25), (2, 0.5), (3, 0.75)]
    weight = model.weight.clone()
    assert run(4)["steps"] == 4 and len(seen) == 4 and torch.equal(model.weight, weight)
    assert run(8)["steps"] == 8 and seen[4] == (4, 0.5)


def test_plain_attention_is_attention():
    query, key, value = (torch.randn(2, 3, 5, 4) for _ in range(3))
    mask = torch.full((5, 5), float("-inf")).triu(1)
    fused = F.scaled_dot_product_attention
    expected = fused(query, key, value, attn_mask=mask)
    with pretraining.plain_attention():
        torch.testing.assert_close(F.scaled_dot_product_attention(query, key, value, attn_mask=mask), expected)
        with pytest.raises(ValueError, match="is_causal"):
            F.scaled_dot_product_attention(query, key, value, is_causal=True)
    assert F.scaled_dot_product_attention is fused


def test_a_folder_is_written_whole_or_not_at_all(tmp_path):
    with pretraining.finished_folder(tmp_path / "model", {}) as folder:
        (folder / "a.txt").write_text("old")
    with pytest.raises(RuntimeError), pretraining.finished_folder(tmp_path / "model", {}) as folder:
        (folder / "a.txt").write_text("new")
        raise RuntimeError("interrupted")
    assert (tmp_path / "model" / "a.txt").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_every_word_of_the_grammar_is_one_token():
    tokenizer = tokens.build(tokens.words(), start=True, max_length=40)
    ids = tokenizer("Replace the RED circle, please").input_ids
    assert tokenizer.convert_ids_to_tokens(ids) == "<start> replace the red circle , <unk> </s>".split()
    assert max(ids) == ids[-1] == len(tokenizer) - 1 and tokenizer.pad_token_id == 0
    instructions = pretrain_t5.instructions
    texts = instructions(9, 0, 40) + instructions(9, 40, 40, unseen_phrasing=True)
    assert not any(tokenizer.unk_token_id in tokenizer(text).input_ids for text in texts)


def test_t5_is_never_shown_a_held_out_phrasing():
    from regionedit.microworld.grammar import PHRASINGS

    held_out = [re.sub(r"\{\w\}", ".+", p) for groups in PHRASINGS.values() for p in groups[1]]
    texts = pretrain_t5.instructions(pretrain_t5.TRAIN_SEED, 0, 300)
    assert not [t for t in texts for p in held_out if re.fullmatch(p, t)]


def test_word_order_reaches_the_t5_encoder_from_the_start():
    tokenizer = tokens.build(tokens.words(), start=False, max_length=77)
    torch.manual_seed(0)
    model = pretrain_t5.T5ForConditionalGeneration(pretrain_t5.configuration(tokenizer)).eval()
    pretrain_t5.strengthen_positions(model)
    texts = ["replace the red ring with a blue cross", "replace the blue cross with a red ring"]
    with torch.no_grad():
        states = model.encoder(tokenizer(texts, return_tensors="pt").input_ids).last_hidden_state
    named, new = states[0, 2:4], states[1, 6:8]  # "red ring" as the named and as the new object
    assert (named - new).norm() / named.norm() > 0.5


def test_scores_by_hand():
    images = torch.eye(4)
    texts = torch.eye(4)[[0, 2, 1, 3]]
    captions = ["a", "b", "c", "d"]
    assert measure.retrieval(images, texts, captions) == measure.hard_negatives(images, texts, captions) == 0.5
    assert measure.retrieval(images, texts, ["a", "b", "b", "d"]) == 1.0  # a caption that reads the same is right


def test_localisation_of_patches_that_know_and_that_do_not():
    import numpy as np

    scenes = [s for s in (g[0] for g in measure.HeldOut(12).groups) if len(s.things) > 1]
    names = sorted({f"a {t.color} {t.shape}" for s in scenes for t in s.things})
    words = torch.eye(len(names) + 1)  # the last one is for the background

    def encode(phrases):
        return torch.stack([words[names.index(p)] for p in phrases])

    knowing = torch.zeros(len(scenes), 64, len(names) + 1)
    for b, scene in enumerate(scenes):
        for thing, share in zip(scene.things, measure.cells(scene, 8), strict=True):
            knowing[b, :, names.index(f"a {thing.color} {thing.shape}")] += torch.from_numpy(share)
    knowing[..., -1] = 1 - knowing.sum(-1)
    scores = measure.localisation(scenes, knowing, encode)
    assert scores["patch_hit"] == scores["patch_pointing"] == 1.0 and scores["patch_iou"] > 0.75
    ignorant = torch.from_numpy(np.random.default_rng(0).normal(size=knowing.shape)).float()
    assert measure.localisation(scenes, ignorant, encode)["patch_hit"] < 0.5


def test_an_equal_caption_is_no_negative():
    similarity, scale = torch.ones(2, 2), torch.tensor(1.0)
    assert pretrain_clip.contrastive_loss(similarity, scale, ["same", "same"]).item() == 0
    assert pretrain_clip.contrastive_loss(similarity, scale, ["one", "two"]).item() == pytest.approx(0.6931, abs=1e-3)


def test_late_interaction_is_the_mean_over_words_of_the_best_patch():
    torch.manual_seed(0)
    patches = torch.randn(3, 5, 4)
    words = F.normalize(torch.randn(2, 6, 4), dim=-1)
    end = torch.tensor([3, 5])
    found = pretrain_clip.late_interaction(patches, words, end)
    for picture in range(3):
        for text in range(2):
            counted = words[text, 1 : end[text] + 1]  # neither the start token nor the padding
            best = [F.cosine_similarity(patches[picture], word[None]).max().item() for word in counted]
            assert found[picture, text].item() == pytest.approx(sum(best) / len(best), abs=1e-5)


def test_open_clip_loads_the_folder_from_anywhere(tmp_path, monkeypatch):
    import open_clip

    tokenizer = tokens.build(tokens.words(), start=True, max_length=pretrain_clip.CONTEXT)
    model = small_clip(tokenizer)
    pretrain_clip.save(model, tokenizer, 8, {"retrieval": 0.0}, tmp_path / "clip")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    name = f"local-dir:{tmp_path / 'clip'}"
    loaded, _, _ = open_clip.create_model_and_transforms(name)
    loaded.eval()
    captions = ["a red circle on a plain gray background", "a ring"]
    ids = open_clip.get_tokenizer(name)(captions)
    pictures = measure.HeldOut(1).pictures
    with torch.no_grad():
        text = pretrain_clip.encode_text(model, tokenizer(captions, padding=True, return_tensors="pt").input_ids)
        torch.testing.assert_close(loaded.encode_text(ids, normalize=True), text, atol=5e-3, rtol=0)
        whole, _ = pretrain_clip.encode_pictures(model, pictures)
        seen = loaded.encode_image(pretrain_clip.to_input(pictures), normalize=True)
        torch.testing.assert_close(seen, whole, atol=5e-3, rtol=0)


def test_transformers_loads_the_t5_and_the_vit(tmp_path):
    from transformers import AutoTokenizer, T5EncoderModel, T5ForConditionalGeneration, ViTImageProcessor, ViTModel

    tokenizer = tokens.build(tokens.words(), start=False, max_length=77)
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(pretrain_t5.configuration(tokenizer)).eval()
    inputs = tokenizer(["make the red circle blue"], return_tensors="pt")
    ids, mask = inputs.input_ids, inputs.attention_mask
    expected = model.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    pretrain_t5.save(model, tokenizer, {}, tmp_path / "t5")
    encoder = T5EncoderModel.from_pretrained(tmp_path / "t5").eval()
    assert encoder.dtype == torch.float32 and encoder.config.d_model == pretrain_t5.WIDTH
    again = AutoTokenizer.from_pretrained(tmp_path / "t5")(["Make the red circle blue"], return_tensors="pt")
    assert torch.equal(again.input_ids, ids)
    torch.testing.assert_close(encoder(ids, attention_mask=mask).last_hidden_state, expected, atol=2e-2, rtol=0)

    pretrain_dino.save(pretrain_dino.Student().vit, {}, tmp_path / "dino")
    vit = ViTModel.from_pretrained(tmp_path / "dino", add_pooling_layer=False)
    assert vit.dtype == torch.float32
    assert ViTImageProcessor.from_pretrained(tmp_path / "dino").size == {"height": 64, "width": 64}


def test_whitening_an_autoencoder_changes_its_latents_and_no_round_trip():
    from diffusers import AutoencoderKL

    whiten = pretrain_autoencoder.whiten
    torch.manual_seed(0)
    autoencoder = AutoencoderKL(block_out_channels=(8,), norm_num_groups=8, latent_channels=4)
    pictures_BCHW = torch.rand(4, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        before = autoencoder.decode(autoencoder.encode(pictures_BCHW).latent_dist.mode()).sample
        whiten(autoencoder, pictures_BCHW)
        latents = autoencoder.encode(pictures_BCHW).latent_dist.mode()
        after = autoencoder.decode(latents).sample
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(latents.std((0, 2, 3)), torch.ones(4), atol=1e-4, rtol=0)


def test_pairs_of_pictures_are_edits_of_the_whole_world():
    from diffusers import AutoencoderKL

    edits = [ip2p.pair(ip2p.PAIR_SEED, index) for index in range(200)]
    assert edits[7] == ip2p.pair(ip2p.PAIR_SEED, 7) and len({edit.operation for edit in edits}) == 8
    assert any(edit.unseen_pair for edit in edits) and any(edit.unseen_phrasing for edit in edits)
    autoencoder: AutoencoderKL = pretrain_autoencoder.build_autoencoder().eval()
    latents = ip2p.pair_latents(autoencoder, [edit for edit in edits if edit.operation == "replace"][:3])
    before_BChw, after_BChw, changed_B1hw = (latents[name] for name in ("before_BChw", "after_BChw", "changed_B1hw"))
    assert before_BChw.shape == after_BChw.shape == (3, 4, 16, 16)
    same_B1hw = (before_BChw == after_BChw).all(1, keepdim=True)
    assert 0 < changed_B1hw.float().mean() < 1
    assert not same_B1hw[changed_B1hw].all()


def test_what_an_instruct_pix2pix_is_not_given():
    """Nothing, no picture, all, nothing to do; where there is no text but a picture, that one stays."""
    no_text, no_picture, stays = ip2p.left_out(torch.tensor([0.0, 0.049, 0.05, 0.099, 0.1, 0.849, 0.851, 0.999]))
    assert no_text.tolist() == [True, True, False, False, False, False, True, True]
    assert no_picture.tolist() == [True, True, True, True, False, False, False, False]
    assert stays.tolist() == [False] * 6 + [True] * 2


def test_the_denoising_loss_by_hand():
    scheduler = diffusion.build_scheduler()
    denoising = diffusion.Denoising(scheduler, "cpu")
    clean, noise, time = torch.full((2, 1, 1, 1), 3.0), torch.full((2, 1, 1, 1), 0.5), torch.tensor([100, 999])
    alpha = scheduler.alphas_cumprod[time]
    noisy = denoising.noised(clean, noise, time).flatten()
    torch.testing.assert_close(noisy, alpha.sqrt() * 3 + (1 - alpha).sqrt() * 0.5)
    weight = torch.tensor([1.0, 2.0]).reshape(2, 1, 1, 1)
    loss = denoising.loss(noise + 2, noise, time, weight)
    assert alpha[1] < 1 / diffusion.HIGH_NOISE_WEIGHT  # so the second weight is clamped
    assert loss.item() == pytest.approx((4 / alpha[0].item() + 2 * 4 * diffusion.HIGH_NOISE_WEIGHT) / 2, rel=1e-5)
    torch.manual_seed(0)
    drawn = denoising.draw(4000)
    assert ((drawn >= 200) & (drawn <= 850)).float().mean() > 0.7 and drawn.min() < 50 and drawn.max() > 950


def test_what_stands_behind_the_last_word_is_compared_with_the_empty_text():
    silence = ip2p.silence
    ids, empty = torch.tensor([[0, 5, 9, 9]]), torch.zeros(1, 4, 2)
    states = torch.tensor([[[7.0, 7.0], [8.0, 8.0], [1.0, 3.0], [2.0, 0.0]]])  # the end token is 9
    assert silence(states, empty, ids, 9).item() == pytest.approx((1 + 9 + 4 + 0) / 4)
    assert silence(states, states, ids, 9).item() == 0
