"""The cost plan: every amount recomputed by hand from round rates, and the stated source of each rate."""

import json

import pytest

from data_prep.estimate_cost import RATES, RESULTS, known_rates, main, plan

ROUND = {
    "success": 0.5, "download_rate": 1000, "shard_samples": 1000, "picture_kb": 97, "tar_kb": 3, "sidecar_bytes": 500,
    "measured_bytes": 200, "text_bytes": 4000, "latent_bytes": 10000, "output_tokens": 36, "llm_rate": 1000,
    "llm_share": 0.5, "filter_rate": 500, "filter_scale": 4, "loader_rate": 100, "cores": 20, "gpus": 10, "nodes": 2,
    "gpu_tflops": 100, "float32_tflops": 50, "utilisation": 0.5, "clip_tflop": 0.18, "features_tflop": 18,
    "proposal_tflop": 36, "proposals": 2, "paper256_tflop": 3.6, "fast512_tflop": 9, "max256_tflop": 1.8,
    "exact512_tflop": 18, "stored_tflop": 1.8, "epochs": 3, "proposal_kb": 125,
    "features_float32_tflop": 1.8, "paper256_float32_tflop": 0.9, "fast512_float32_tflop": 0.9,
    "max256_float32_tflop": 0.9, "exact512_float32_tflop": 1.8, "stored_float32_tflop": 1.8,
}  # fmt: skip
MILLION = {
    ("download", "links"): "2,000,000",
    ("download", "shards"): "1,000",
    ("download", "disk"): "100.0 GB",
    ("download", "hours"): "0.28 h",  # 2e6 / 2000 a second
    ("filter", "disk"): "0.2 GB",
    ("filter", "hours without models"): "0.11 h",  # 1e6 / (500 / 4 * 10 pairs of cores * 2 nodes)
    ("filter", "hours of CLIP"): "0.05 h",  # 0.18e6 TFLOP / 50 a GPU / 20 GPUs
    ("instructions", "disk"): "0.5 GB",
    ("instructions", "GPU-hours"): "20.00 h",  # 36e6 tokens / 500
    ("instructions", "hours"): "1.00 h",
    ("cache", "disk, captions"): "4.0 GB",
    ("cache", "disk, latents"): "10.0 GB",
    ("cache", "hours"): "5.50 h",  # (16.2e6 / 50 + 1.8e6 / 25) / 20
    ("proposals", "disk"): "250.0 GB",
    ("proposals", "GPU-hours"): "400 h",  # 72e6 / 50
    ("proposals", "hours"): "20.00 h",
    ("train", "pictures/s a GPU, paper256"): "11.1",  # 1 / (2.7 / 50 + 0.9 / 25)
    ("train", "GPU-hours, paper256"): "75.00 h",  # three epochs of 1e6 at that rate
    ("train", "hours, paper256"): "3.75 h",
    ("train", "pictures/s a GPU, fast512"): "5.05",
    ("train", "GPU-hours, fast512"): "165 h",
    ("train", "hours, fast512"): "8.25 h",
    ("train", "pictures/s a GPU, max256"): "18.5",
    ("train", "GPU-hours, max256"): "45.00 h",
    ("train", "hours, max256"): "2.25 h",
    ("train", "pictures/s a GPU, exact512"): "2.53",
    ("train", "GPU-hours, exact512"): "330 h",
    ("train", "hours, exact512"): "16.50 h",
    ("train", "pictures/s a GPU, stored"): "13.9",  # all of it in float32
    ("train", "GPU-hours, stored"): "60.00 h",
    ("train", "hours, stored"): "3.00 h",
    ("train", "GPU-hours, stored, with its proposals"): "460 h",
    ("train", "loader workers a GPU, stored"): "0.6",  # 25 / 1.8 samples a second, 25 a worker
}


def test_every_amount_by_hand(tmp_path):
    assert set(ROUND) == set(RATES)
    rates = known_rates(tmp_path / "none.json", ROUND)
    lines = plan(1_000_000, rates)
    assert {(line.stage, line.what): line.amount for line in lines} == MILLION
    uses = {(line.stage, line.what): set(line.uses) for line in lines}
    assert uses["download", "hours"] == {"success", "download_rate", "nodes"}
    assert uses["instructions", "GPU-hours"] == {"output_tokens", "llm_rate", "llm_share"}
    large = {(line.stage, line.what): line.amount for line in plan(400_000_000, rates)}
    assert large["download", "disk"] == "40.00 TB" and large["train", "hours, exact512"] == "6,600 h"


def test_measured_rates_win_over_assumed_ones_and_given_ones_over_both(tmp_path):
    found = {
        "filters_256": {"ours": 777.0, "machine": "2 cores"},
        "clip_scores": {"ours": 0.2, "machine": "counted on"},
    }
    path = tmp_path / "results.json"
    path.write_text(json.dumps(found))
    rest = {name: value for name, value in ROUND.items() if name not in ("filter_rate", "clip_tflop", "success")}
    rates = known_rates(path, rest)
    assert (rates["filter_rate"].value, rates["filter_rate"].kind) == (777.0, "measured")
    assert "2 cores" in rates["filter_rate"].source and rates["clip_tflop"].kind == "counted"
    assert (rates["success"].kind, rates["nodes"].kind) == ("assumed", "given")
    assert known_rates(path, ROUND)["filter_rate"].value == 500


def test_what_is_measured_or_counted_is_in_the_results():
    recorded = json.loads(RESULTS.read_text())
    for rate in RATES.values():
        assert rate.source and (rate.value is not None or "ours" in recorded[rate.benchmark])


def test_the_command_prints_both_plans_and_their_rates(capsys):
    main([])
    printed = capsys.readouterr().out
    assert "5,000,000 samples" in printed and "400,000,000 samples" in printed
    lines = [line for line in printed.splitlines() if line.startswith("  ")]
    assert all(any(kind in line for kind in ("measured", "counted", "assumed")) for line in lines)
    for name in RATES:
        assert any(line.split()[0] == name for line in lines), name


def test_a_wrong_argument_exits_2_and_is_named(capsys):
    for arguments, message in (
        (["--success", "0"], "success: 0, must be above 0"),
        (["--nodes", "nan"], "nodes: nan, must be above 0"),
        (["--samples", "0"], "--samples: 0, must be at least 1"),
        (["--results", "nowhere.json"], "filter_rate: not measured yet; run `make bench`, or give --filter_rate"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2 and message in capsys.readouterr().err
