"""Evaluations from end to end with tiny models: Emu Edit and MagicBrush in their exact format, up to a comparison."""

from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from rich.console import Console

from data_prep.microworld import click_cases
from data_prep.microworld.pack import pack
from regionedit.config import EvaluateConfig
from regionedit.evaluation import BENCHMARKS, compare
from regionedit.evaluation.run import evaluate
from tests.benchmark_fixtures import flawed_emu_rows, write_emu_edit, write_magicbrush

QUIET = Console(quiet=True)


@pytest.fixture
def config(tiny_edit_config, tiny_judge_dir, tiny_dino_dir, tmp_path) -> EvaluateConfig:
    edit = {name: getattr(tiny_edit_config, name) for name in ("encoders", "region", "device")}
    return EvaluateConfig(
        **edit,
        generator=replace(tiny_edit_config.generator, guidance_scale=1.0),
        mask_source="everything",
        judge=f"local-dir:{tiny_judge_dir}",
        dino=str(tiny_dino_dir),
        out=str(tmp_path / "out"),
        baselines=["identity"],
    )


@pytest.mark.filterwarnings("ignore:.*rows of the Emu Edit", "ignore:captions of more")
def test_emu_edit_from_parquet_to_a_comparison(config, tmp_path, capsys):
    """A published protocol decides networks and columns, and a missed expected number is reported."""
    write_emu_edit(tmp_path / "emu", flawed_emu_rows())
    protocol = yaml.safe_load(open("configs/protocols/ultraedit.yaml"))
    protocol["backbones"] = {"judge": config.judge, "dino": config.dino}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(protocol, sort_keys=False))
    ours = replace(
        config,
        benchmark="emu_edit",
        data=str(tmp_path / "emu"),
        judge="local-dir:/nowhere",
        protocol=str(tmp_path / "tiny.yaml"),
        expected={"clip_text": 9.0},
        tolerance=0.5,
    )
    console = Console(record=True, width=120, file=(tmp_path / "printed").open("w"))
    summary = evaluate(ours, console)
    assert "expected 9.0000 ± 0.5: OUTSIDE" in console.export_text()
    assert summary["protocol"]["name"] == "tiny" and summary["protocol"]["n_expected"] == 2834
    assert summary["protocol"]["judge"] == config.judge
    assert list(summary["protocol"]["columns"])[:2] == ["CLIPdir", "CLIPout"]
    assert "| CLIPout | L1 |" in (tmp_path / "out" / "tables.md").read_text()
    unchanged = summary["baselines"]["identity"]["metrics"]
    assert summary["n"] == 6 and summary["failed"] == 0
    assert unchanged["l1_source"]["mean"] == 0 and unchanged["clip_image_source"]["mean"] == pytest.approx(1, abs=1e-6)
    assert summary["metrics"]["l1_source"]["mean"] > 0.01
    assert summary["protocol"]["counts"]["kept"] == 6
    rows = pd.read_parquet(tmp_path / "out" / "cases.parquet")
    assert rows["clip_text"].mean() == pytest.approx(summary["metrics"]["clip_text"]["mean"], abs=1e-9)
    theirs = replace(ours, pictures=str(tmp_path / "out" / "pictures"), out=str(tmp_path / "theirs"))
    again = evaluate(theirs, QUIET)
    regions = {"outside_change"}  # needs the predicted region, and a folder of pictures has none
    assert again["metrics"] == {k: v for k, v in summary["metrics"].items() if k not in regions}
    folders = [str(tmp_path / name) for name in ("out", "theirs")]
    assert compare.main([*folders, "--out", str(tmp_path / "comparison"), "--paired", "--published"]) == 0
    assert "InstructPix2Pix" in capsys.readouterr().out
    assert (tmp_path / "comparison" / "comparison.tex").read_text().count("tabular") >= 2
    for name in ("tables.md", "tables.tex", "tables.csv", "report.html", "gallery.html"):
        assert (tmp_path / "out" / name).stat().st_size > 100


@pytest.mark.filterwarnings("ignore:.*MagicBrush test set", "ignore:captions of more")
def test_magicbrush_chains_edited_by_two_processes_score_as_by_one(config, tmp_path, monkeypatch):
    write_magicbrush(tmp_path / "brush")
    # One at a time: in another batch, a picture may differ by one level.
    whole = replace(config, benchmark="magicbrush_multi_turn", data=str(tmp_path / "brush"), batch=1)
    summary = evaluate(whole, QUIET)
    shared = replace(whole, out=str(tmp_path / "shared"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(ValueError, match="stage: 2 processes"):
            evaluate(shared, QUIET)
        edited = evaluate(replace(shared, stage="edit"), QUIET)
        assert edited["n"] > 0 and edited["failed"] == 0
    monkeypatch.delenv("WORLD_SIZE")
    assert evaluate(replace(shared, stage="score"), QUIET)["metrics"] == summary["metrics"]
    assert summary["n"] == 3  # final turns only
    pictures = {path.name: path.read_bytes() for path in (tmp_path / "out" / "pictures").iterdir()}
    assert pictures == {path.name: path.read_bytes() for path in (tmp_path / "shared" / "pictures").iterdir()}


def test_mask_blended_inference_equals_its_baseline_inside_the_mask(config, tiny_edit_config, tmp_path):
    """A click gives the mask; the blended picture equals the baseline inside the mask and the source outside."""
    pack("test", 30, tmp_path / "test", workers=1, seed=0, shard_size=100)
    assert click_cases.write_cases(tmp_path / "test", 1, tmp_path / "clicks") == 3
    follower = replace(tiny_edit_config.region.attention, guidance_scale=2.0, size=64, num_inference_steps=1)
    plain = replace(tiny_edit_config, mask_source="everything", generator=follower)
    (tmp_path / "plain.yaml").write_text(yaml.safe_dump(asdict(plain)))
    blend = replace(
        config,
        benchmark="folder",
        data=str(tmp_path / "clicks"),
        mask_source="sam",
        generator=follower,
        systems={"baseline": str(tmp_path / "plain.yaml")},
    )
    summary = evaluate(blend, QUIET)
    assert summary["failed"] == 0 and summary["systems"]["baseline"]["n"] == 3
    out = tmp_path / "out"
    rows = pd.read_parquet(out / "systems" / "baseline" / "cases.parquet").set_index("id")
    for case in BENCHMARKS["folder"](tmp_path / "clicks"):
        blended, baseline, mask, everywhere = (
            np.asarray(Image.open(out / place / f"{case.id}.png"), int)
            for place in ("pictures", "systems/baseline/pictures", "masks", "systems/baseline/masks")
        )
        source = np.asarray(case.request.image, int)
        assert (everywhere == 255).all() and 0 < (mask > 0).mean() < 1
        assert np.array_equal(blended[mask == 0], source[mask == 0])
        assert np.abs(blended - baseline)[mask == 255].max() <= 1
        changed = np.abs(baseline - source).mean(-1) / 255 > 0.1
        expected = (changed & (mask > 127)).sum() / (changed | (mask > 127)).sum()
        assert rows.loc[case.id, "change_iou_focus"] == pytest.approx(expected, abs=1e-3)
        assert rows.loc[case.id, "seconds"] > 0
