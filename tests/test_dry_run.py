"""The way from captioned pictures to a table, as README and docs/ print its commands: proposals, training on two
processes, editing, evaluation. Tiny models stand in the Hugging Face cache under the public names."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

from data_prep.fetch_models import MODELS
from regionedit import masks
from regionedit.encoders import FrozenCLIP, FrozenInstructionEncoder
from regionedit.images import to_tensor
from regionedit.provenance import identify
from regionedit.region_predictor import RegionPredictor
from tests.benchmark_fixtures import flawed_emu_rows, write_emu_edit
from tests.documented_commands import ROOT, command
from tests.hub_cache import snapshot
from tests.pairs import write_pairs
from tests.tiny_models import GRID, write_clip, write_dino, write_inpaint, write_t5
from tests.typed_commands import Terminal

_, T5, INPAINT, *_ = MODELS
KEPT_ROWS = 6
"""Of `flawed_emu_rows`, those without flaws."""

CLIP = ["--encoders.clip=local-dir:models/clip", "--encoders.clip_pretrained=null"]
"""open_clip knows the architecture of ViT-L-14, so nothing tiny can have this name."""
SIZES = ["--generator.size=32", "--generator.num_inference_steps=2"]
TRAINING = [
    *CLIP, *SIZES, "--data.image_size=32", "--data.global_batch=4", "--data.held_out=0.2", "--data.workers=1",
    "--max_steps=4", "--log.every_steps=1", "--log.validate_every_steps=2", "--log.pictures_every_steps=4",
    "--predictor.heads=2", "--generator.compile=false", "--encoders.compile=false",
]  # fmt: skip
OUT, SCORES = "outputs/train_sd15_stored", "outputs/evaluate_emu_edit"
"""Where the configurations write."""


@pytest.fixture
def clone(tmp_path) -> Path:
    """A folder with the programs, and with data where pages and configurations look for it."""
    folder = tmp_path / "clone"
    folder.mkdir()
    for name in ("train.py", "infer.py", "evaluate.py", "data_prep"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "configs", folder / "configs")
    write_pairs(folder / "data/crawl", samples=12)
    write_emu_edit(folder / "data/emu_edit_test_set", flawed_emu_rows())
    noise = np.random.default_rng(1).integers(0, 255, (46, 62, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "photo.jpg", quality=95)
    mask = np.zeros((46, 62), np.uint8)
    mask[10:30, 20:50] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    return folder


@pytest.fixture
def terminal(clone, tmp_path) -> Terminal:
    """In that folder, with tiny models in the cache. Both CLIPs are folders; the protocol names the judge's."""
    cache = tmp_path / "hub"
    write_t5(snapshot(cache, T5.name, T5.revision))
    write_inpaint(snapshot(cache, INPAINT.name, INPAINT.revision), variant="fp16")
    write_clip(clone / "models/clip")
    write_clip(clone / "models/judge", seed=1, patch=16)
    path = clone / "configs/protocols/ultraedit.yaml"
    protocol = yaml.safe_load(path.read_text()) | {"n": KEPT_ROWS}
    write_dino(snapshot(cache, protocol["backbones"]["dino"], "0" * 40))
    protocol["backbones"]["judge"] = "local-dir:models/judge"
    path.write_text(yaml.safe_dump(protocol, sort_keys=False))
    return Terminal(clone, {"HF_HUB_CACHE": str(cache), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"})


@pytest.mark.timeout(600)  # on a busy machine; a few seconds a command on an idle one
def test_the_documented_way_from_pictures_to_a_table(clone, terminal):
    proposals = command("docs/training.md", "data_prep/make_proposals.py", "--part")
    terminal.run(*([*proposals, *TRAINING, "--parts=2", f"--part={part}"] for part in range(2)))
    made = sorted(path.name for path in (clone / "data/proposals").glob("*.tar"))
    assert made == ["00000.proposals.tar", "00001.proposals.tar"]

    training = command("docs/training.md", "train.py", "configs/train_sd15_stored.yaml")
    training += [*TRAINING, "--trainer.accelerator=cpu", "--trainer.devices=2"]
    (printed,) = terminal.run(training, processes=2)
    assert "train.py --config" not in printed, "every process repeats its command line"
    for once in ("training on cpu", "step 4: validation", "wrote outputs"):
        assert printed.count(once) == 1, f"{once!r} is not printed once for both processes: {printed}"
    assert "MEMBER: 2/2" in printed
    metrics = pd.read_csv(clone / OUT / "metrics.csv").pivot(index="step", columns="name", values="value")
    assert list(metrics["train/loss"].index) == [1, 2, 3, 4] and np.isfinite(metrics["train/loss"]).all()
    assert np.isfinite(metrics["validation/loss"][4]), "held-out samples have stored proposals"

    before = contents(clone / OUT)
    terminal.run(training, processes=2)
    assert contents(clone / OUT) == before, "a finished run has changed"

    photo = command("README.md", "infer.py", "--mask", "photo.jpg")
    request = [word for word in photo[photo.index("--image") :] if word not in ("--mask", "mask.png", "outputs/photo")]
    region = command("README.md", "infer.py", "--region.checkpoint", "configs/edit_sd15.yaml")
    assert region[-2:] == ["OUT/region_predictor", "..."]
    region[-2:] = [f"{OUT}/region_predictor", *request, "outputs/region"]
    scoring = command("docs/evaluation.md", "evaluate.py", "configs/evaluate_emu_edit.yaml")
    scoring += [f"--region.checkpoint={OUT}/region_predictor", "--generator.dtype=float32"]
    terminal.run(*([*words, *CLIP, *SIZES] for words in (photo, region, scoring)))
    drawn = unchanged_outside(clone / "outputs/photo", clone / "photo.jpg")
    assert np.array_equal(drawn, np.asarray(Image.open(clone / "mask.png")) > 0), "the drawn mask was not used"
    unchanged_outside(clone / "outputs/region", clone / "photo.jpg")
    from_the_trained_predictor(clone / "outputs/region", clone)

    finished = command("docs/evaluation.md", "evaluate.py", "--pictures", "FOLDER")
    finished[finished.index("FOLDER")] = f"{SCORES}/pictures"
    terminal.run(finished)
    ours, theirs = (pd.read_parquet(clone / folder / "cases.parquet") for folder in (SCORES, "outputs/theirs"))
    assert len(ours) == KEPT_ROWS and not ours["failed"].any()
    assert np.allclose(ours["clip_text"], theirs["clip_text"], atol=1e-6)
    assert (ours["outside_change"] == 0).all() and (ours["l1_source"] > 0).any()
    for name in ("tables.md", "tables.tex", "tables.csv", "report.html", "gallery.html"):
        assert (clone / SCORES / name).stat().st_size > 100
    (table,) = terminal.run(command("docs/evaluation.md", "regionedit.evaluation.compare", SCORES))
    assert "evaluate_emu_edit (captions given)" in table and "Learnable Regions (5M)" in table
    assert (clone / "outputs/comparison/comparison.tex").is_file()


def contents(run: Path) -> dict[str, bytes]:
    """Of the files of a training run, without its log."""
    return {str(p): p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name not in ("log.txt", "config.yaml")}


def unchanged_outside(edit: Path, source: Path) -> np.ndarray:
    """Where the edit's mask is, [H, W] bool; all other pixels are the source's, and something has changed inside."""
    result, original = (np.asarray(Image.open(path).convert("RGB")) for path in (edit / "result.png", source))
    mask = np.asarray(Image.open(edit / "mask.png").convert("L")) > 0
    assert 0 < mask.mean() < 1
    assert np.array_equal(result[~mask], original[~mask]) and (result[mask] != original[mask]).any()
    return mask


def from_the_trained_predictor(edit: Path, clone: Path) -> None:
    """The edit's probability is the trained predictor's, and its record has this predictor's hash."""
    record = json.loads((edit / "run.json").read_text())
    trained = clone / OUT / "region_predictor"
    assert record["mask_source"] == "learned"
    assert record["models"]["region"]["sha256"] == identify(str(trained))["sha256"]
    weights = torch.load(clone / OUT / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    predictor = RegionPredictor.from_pretrained(trained)
    assert all(torch.equal(weights[f"predictor.{name}"], value) for name, value in predictor.state_dict().items())
    clip = FrozenCLIP.load(f"local-dir:{clone / 'models/clip'}")
    t5 = FrozenInstructionEncoder.load(str(next((clone.parent / "hub").glob("*t5*/snapshots/*"))))
    picture_1CHW = to_tensor([Image.open(clone / "photo.jpg")])
    tokens = t5.encode([record["instructions"][0]["text"]])
    with torch.no_grad():
        P_BN = predictor(clip.encode_image(picture_1CHW).patches_BND, *tokens).probability_BN
    expected = masks.upsample(P_BN, GRID, tuple(picture_1CHW.shape[-2:]), "bilinear")[0, 0].numpy()
    found = np.asarray(Image.open(edit / "probability.png")) / 65535
    assert np.abs(found - expected).max() < 0.01
