"""Stored proposals: whole shards or none, the same whatever the batch, and training reads them."""

import dataclasses
import io
import json
import tarfile

import pytest
import torch
from PIL import Image

from data_prep.make_proposals import ProposalsConfig, make_proposals
from regionedit import generators
from regionedit.command_line import load_config
from regionedit.config import StableDiffusionConfig
from regionedit.data import rounds
from regionedit.data.datamodule import PairsDataModule
from regionedit.training import check_step
from tests.shards import write_shards


@pytest.fixture
def make(tmp_path, tiny_arguments):
    folder = write_shards(tmp_path / "train", sizes=(5, 3))
    places = [f"--data.train={folder}", f"--data.proposals={tmp_path / 'proposals'}"]
    base = [*tiny_arguments, *places, "--generator.num_inference_steps=1", "--step.proposal_mask=random_hard"]
    return lambda *changes: load_config(ProposalsConfig, overrides=[*base, "--device=cpu", *changes])


def members(path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


def test_each_shard_gets_its_proposals_and_training_reads_them(make, tmp_path, capsys):
    config = make("--batch=4")
    assert make_proposals(config) == 2
    assert "proposals on cpu in float32\n" in capsys.readouterr().out
    first = members(tmp_path / "proposals" / "00000.proposals.tar")
    assert list(first)[:2] == ["k000000.png", "k000000.mask.png"] and len(first) == 10
    assert Image.open(io.BytesIO(first["k000000.png"])).size == (32, 32)
    masks = [Image.open(io.BytesIO(data)) for name, data in first.items() if "mask" in name]
    assert all(mask.mode == "L" and {value for _, value in mask.getcolors()} <= {0, 255} for mask in masks)
    data = dataclasses.replace(config.data, global_batch=4)
    batch = next(iter(PairsDataModule(data, 0, 1).train_dataloader()))
    assert batch.proposals_BCHW.shape == batch.images_BCHW.shape
    stored = members(tmp_path / "proposals" / "00000.proposals.tar") | members(
        tmp_path / "proposals" / "00001.proposals.tar"
    )
    expected = torch.tensor(list(Image.open(io.BytesIO(stored[f"{batch.keys[0]}.png"])).convert("RGB").getdata()))
    assert torch.equal(batch.proposals_BCHW[0].flatten(1).T.int(), expected.int())


def test_batch_and_parts_change_nothing(make, tmp_path):
    make_proposals(make("--batch=4"))
    for part in ("0", "1"):
        changes = [f"--data.proposals={tmp_path / 'parts'}", "--batch=1", "--parts=2", f"--part={part}"]
        assert make_proposals(make(*changes)) == 1
    for name in ("00000.proposals.tar", "00001.proposals.tar"):
        together, apart = (members(tmp_path / folder / name) for folder in ("proposals", "parts"))
        assert together.keys() == apart.keys()
        for key, data in together.items():
            a, b = (Image.open(io.BytesIO(d)).convert("RGB").tobytes() for d in (data, apart[key]))
            assert max(abs(x - y) for x, y in zip(a, b, strict=True)) <= 1


def test_an_interrupted_run_leaves_no_half_shard_and_goes_on(make, tmp_path, monkeypatch):
    config, calls = make("--batch=2"), []
    original = generators.StableDiffusion.propose

    def propose(self, *arguments):
        calls.append(1)
        if len(calls) == 5:  # in the second shard
            raise KeyboardInterrupt
        return original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(generators.StableDiffusion, "propose", propose)
        with pytest.raises(KeyboardInterrupt):
            make_proposals(config)
    assert sorted(p.name for p in (tmp_path / "proposals").iterdir()) == ["00000.proposals.tar", "proposals.json"]
    assert make_proposals(config) == 1
    assert make_proposals(config) == 0


def test_other_settings_are_refused(make):
    make_proposals(make())
    for change, message in (
        (["--generator.num_inference_steps=2"], "generator.num_inference_steps: is 2, but .* made with 1"),
        (["--data.proposals=null"], "data.proposals"),
        (["--part=2", "--parts=2"], "part: 2 of 2"),
        (["--step.proposal_mask=predicted_hard"], "^step.proposal_mask: 'predicted_hard'.*everything"),
    ):
        with pytest.raises(ValueError, match=message):
            make_proposals(make(*change))


def test_proposals_that_were_begun_before_a_setting_existed_go_on(make, tmp_path):
    make_proposals(make())
    kept = tmp_path / "proposals" / "proposals.json"
    settings = json.loads(kept.read_text())
    del settings["generator.latent_blend"]
    kept.write_text(json.dumps(settings))
    make_proposals(make())
    kept.write_text(json.dumps(settings | {"generator.latent_blend": False}))
    with pytest.raises(ValueError, match="generator.latent_blend"):
        make_proposals(make())


def test_an_unreadable_picture_gets_an_empty_proposal(make, tmp_path):
    def spoil(key, parts):
        return parts | {"png": b"not a picture"} if key == "k000002" else parts

    write_shards(tmp_path / "train", sizes=(5,), change=spoil)
    config = make()
    make_proposals(config)
    stored = members(tmp_path / "proposals" / "00000.proposals.tar")
    assert stored["k000002.png"] == b"" and stored["k000001.png"]
    data = dataclasses.replace(config.data, global_batch=8, max_bad_fraction=0.5)
    batch = next(iter(PairsDataModule(data, 0, 1).train_dataloader()))
    assert "k000002" not in batch.keys


def test_everything_can_be_stored_and_training_refuses_it_under_another_mask(make, tmp_path):
    make_proposals(make("--step.proposal_mask=everything"))
    stored = members(tmp_path / "proposals" / "00000.proposals.tar")
    masks = [Image.open(io.BytesIO(data)) for name, data in stored.items() if "mask" in name]
    assert all(mask.getextrema() == (255, 255) for mask in masks)
    check_step(make("--step.proposal_mask=everything"))
    with pytest.raises(ValueError, match="step.proposal_mask: is 'random_hard', but .* made with 'everything'"):
        check_step(make("--step.proposal_mask=random_hard"))


def test_every_epoch_reads_the_next_round_and_waits_for_it(make, tmp_path, monkeypatch):
    """Rounds differ, a longer run of the same settings adds to them, and training goes round in order."""
    make_proposals(make())
    first = (tmp_path / "proposals" / "00000.proposals.tar").read_bytes()
    config = make("--data.proposal_rounds=3", "--data.global_batch=8")
    data = PairsDataModule(config.data, 0, 1).train_dataloader()
    next(iter(data))  # round 0 is there

    waits = []

    def make_the_others(seconds):
        waits.append(seconds)
        assert make_proposals(config) == 4

    monkeypatch.setattr(rounds.time, "sleep", make_the_others)
    batches = [next(iter(data)) for _ in range(6)]
    assert len(waits) == 1 and (tmp_path / "proposals" / "00000.proposals.tar").read_bytes() == first
    by_key = [
        dict(zip(batch.keys, batch.proposals_BCHW.flatten(1).tolist(), strict=True)) for batch in batches
    ]  # of epochs 1, 2, 3, ...
    assert by_key[0] == by_key[3] and by_key[1] == by_key[4] and by_key[2] == by_key[5]
    assert all(by_key[0][key] != by_key[1][key] != by_key[2][key] for key in by_key[0])
    state = data.state_dict()
    again = PairsDataModule(dataclasses.replace(config.data, workers=1), 0, 1).train_dataloader()
    again.load_state_dict(state)
    resumed, went_on = next(iter(again)), next(iter(data))
    assert resumed.keys == went_on.keys and torch.equal(resumed.proposals_BCHW, went_on.proposals_BCHW)


def test_proposals_are_painted_at_the_generators_size_and_kept_at_clips(make, tmp_path, monkeypatch):
    seen = []
    original = generators.StableDiffusion.propose
    monkeypatch.setattr(
        generators.StableDiffusion,
        "propose",
        lambda self, images_BCHW, *rest: seen.append(images_BCHW.shape[-1]) or original(self, images_BCHW, *rest),
    )
    make_proposals(make("--generator.size=64", "--data.image_size=16"))
    stored = members(tmp_path / "proposals" / "00000.proposals.tar")
    assert set(seen) == {64}
    assert {Image.open(io.BytesIO(data)).size for data in stored.values()} == {(16, 16)}


def test_rounds_without_proposals_are_refused(make):
    for changes in (["--data.proposal_rounds=0"], ["--data.proposal_rounds=2", "--data.proposals=null"]):
        with pytest.raises(ValueError, match="data.proposal_rounds"):
            check_step(make("--step.gradient=composite", *changes))


@pytest.mark.parametrize("masked_image", ["pixel", "latent"])
def test_under_a_whole_mask_nothing_of_the_source_is_encoded(tiny_inpaint_dir, masked_image, monkeypatch):
    """And the picture is the one that encoding all of it gives."""
    generator = generators.load_generator(
        StableDiffusionConfig(path=str(tiny_inpaint_dir), size=32, num_inference_steps=2, masked_image=masked_image)
    )
    images, everything = torch.rand(2, 3, 32, 32), torch.ones(2, 1, 32, 32)
    encoded, encode = [], generator._encode_signed
    monkeypatch.setattr(generator, "_encode_signed", lambda signed: encoded.append(len(signed)) or encode(signed))
    quick = generator.propose(images, everything, ["a", "b"], [1, 2])
    assert encoded == ([1] if masked_image == "pixel" else [])
    monkeypatch.setattr("regionedit.generators.stable_diffusion._everything", lambda mask: False)
    plain = generator.propose(images, everything, ["a", "b"], [1, 2])
    assert (quick - plain).abs().max() < 1e-5 and sum(encoded) >= 2
