"""Many nodes, many samples: nobody misses or repeats one, resuming costs nothing, other numbers of ranks go on."""

import os
import re
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest

from benchmarks.resume import DATA, made_up_manifest
from regionedit.data.loader import TrainLoader
from regionedit.data.plan import EpochPlan
from regionedit.region_predictor import RegionPredictor
from regionedit.training import Stopped, train
from tests.training_runs import StopAt, command, logged

NODES, GPUS, WORKERS = 64, 8, 8
RANKS = NODES * GPUS
SBATCH = sorted(Path("configs/slurm").glob("*.sbatch"))


@pytest.mark.parametrize("shards", [5_000, pytest.param(400_000, marks=pytest.mark.slow)])
def test_every_sample_is_read_once_on_64_nodes(shards):
    """An epoch of shards of 1,000: who reads which place at some steps, and what lies at all places."""
    plan = EpochPlan([1000] * shards, seed=3, global_batch=8 * RANKS, block_shards=8, epoch=1)
    for position in np.linspace(0, len(plan) - 1, 40, dtype=int).tolist():
        shares = [np.array(plan.places(position, rank, RANKS)) for rank in range(RANKS)]
        assert {len(share) for share in shares} == {8}
        everybody = np.sort(np.concatenate(shares))
        assert np.array_equal(everybody, np.arange(position * 8 * RANKS, (position + 1) * 8 * RANKS))
    read = np.zeros(plan.samples, bool)
    place = 0
    for block in range(-(-shards // 8)):
        samples = plan._block(block)
        assert not read[samples].any(), "a sample lies in two blocks"
        read[samples] = True
        assert plan.sample(place) == samples[0] and plan.sample(place + len(samples) - 1) == samples[-1]
        place += len(samples)
    assert read.all() and place == plan.samples and plan.dropped < 8 * RANKS


def test_the_millionth_step_of_five_million_samples_is_found_at_once(tmp_path):
    """benchmarks/resume.py measures it; here, that the position is the right one and nothing before it is read."""
    manifest = made_up_manifest(tmp_path)
    loader = TrainLoader(manifest, DATA, seed=0)
    read, original = [], loader._batches.dataset.reader.read
    loader._batches.dataset.reader.read = lambda sample: read.append(sample) or original(sample)
    loader.load_state_dict(loader.state_dict() | {"position": 1_000_000})
    next(iter(loader))
    epoch, position = divmod(1_000_000, len(loader))
    plan = EpochPlan(manifest.sizes, 0, DATA.global_batch, DATA.block_shards, epoch)
    assert read[: DATA.global_batch] == [plan.sample(place) for place in plan.places(position)]
    assert len(read) <= 2 * DATA.global_batch
    assert len(loader._batches.dataset._plan._shuffled) <= 2, "only the blocks of this batch are shuffled"


def test_another_number_of_processes_goes_on_at_the_right_sample(tiny_train, tmp_path):
    """Two steps on one process, then two on two, one sample at a time: losses and weights are those of four on one."""
    whole = tiny_train("--max_steps=4")
    parts = tiny_train("--max_steps=4", f"--out={tmp_path / 'parts'}")
    train(whole)
    with pytest.raises(Stopped):
        train(parts, [StopAt(2)])
    process = command(parts, tmp_path, "--trainer.devices=2", "--trainer.strategy=ddp", "--data.micro_batch=1")
    _, errors = process.communicate(timeout=250)
    assert process.returncode == 0, errors
    alone, together = logged(whole), logged(parts)
    assert sorted(together) == [1, 2, 3, 4]
    np.testing.assert_allclose(list(together.values()), list(alone.values()), rtol=1e-5)
    first, second = (RegionPredictor.from_pretrained(Path(c.out) / "region_predictor") for c in (whole, parts))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert (a - b).abs().max() < 1e-3


@pytest.mark.parametrize("path", SBATCH, ids=str)
def test_slurm_examples_are_scripts_that_name_what_exists(path):
    text = path.read_text()
    assert subprocess.run(["bash", "-n", path]).returncode == 0
    assert text.startswith("#!/bin/bash\n") and len(SBATCH) == 2
    for script in re.findall(r"python (\S+\.py)", text):
        assert Path(script).is_file()
    for config in re.findall(r"configs/train_\S+?\.yaml", text.replace("${preset}", "paper256")):
        assert Path(config).is_file()


@pytest.mark.parametrize(
    ("codes", "status", "requeued"),
    [((138, 138), 0, True), ((0, 0), 0, False), ((0, 1), 1, False), ((138, 1), 1, False), ((143, 143), 143, False)],
)
def test_slurm_queues_a_job_again_if_its_ranks_were_asked_to_stop(tmp_path, codes, status, requeued):
    """With a program in place of each of srun, scontrol and python. srun, as SLURM's, ends everything at once at the
    first bad exit code and returns the highest."""
    code = f"codes=({codes[0]} {codes[1]}); exit ${{codes[$SLURM_PROCID]}}"
    programs = {
        "bin/srun": '#!/bin/bash\nshift\nfor SLURM_PROCID in 0 1; do SLURM_PROCID=$SLURM_PROCID "$@" || exit; done',
        "bin/scontrol": '#!/bin/bash\necho "$@" > requeued',
        ".venv/bin/python": f"#!/bin/bash\nkill -USR1 $PPID\n{code}",
    }
    for name, text in programs.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "outputs").mkdir()
    names = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", "SLURM_NNODES": "1"}
    done = subprocess.run(["bash", Path("configs/slurm/train.sbatch").resolve()], cwd=tmp_path, env=os.environ | names)
    assert done.returncode == status
    assert (tmp_path / "requeued").exists() == requeued
    assert not requeued or (tmp_path / "requeued").read_text() == "requeue 7\n"


def test_the_ranks_of_the_slurm_example_end_with_the_code_that_it_reads():
    assert f"-eq {Stopped(signal.SIGUSR1).code} ]" in Path("configs/slurm/train.sbatch").read_text()
