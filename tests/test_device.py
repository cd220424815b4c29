"""Which GPU a process takes, with faked environments: torchrun, srun, a script under sbatch, started by hand."""

import pytest
import torch

from data_prep.cache_features import FeaturesConfig
from data_prep.make_proposals import ProposalsConfig
from regionedit.config import AppConfig, EvaluateConfig, InferConfig
from regionedit.device import pick_device


@pytest.fixture
def machine(monkeypatch):
    """Puts a number of GPUs, none by default, and environment variables in place."""

    def fake(gpus: int = 0, **environment: str) -> None:
        for name in ("LOCAL_RANK", "SLURM_LOCALID", "SLURM_STEP_NUM_TASKS"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        empty = torch.empty
        monkeypatch.setattr(torch, "empty", lambda *sizes, device: empty(*sizes, device="cpu" if gpus else device))

    return fake


@pytest.mark.parametrize("name", ["auto", "cuda"])
@pytest.mark.parametrize(
    ("gpus", "environment", "part", "index"),
    [
        (8, {}, 0, 0),
        (8, {}, 5, 5),
        (4, {}, 6, 2),
        (8, {"LOCAL_RANK": "3", "SLURM_LOCALID": "1"}, 5, 3),
        (8, {"SLURM_LOCALID": "3", "SLURM_STEP_NUM_TASKS": "8"}, 0, 3),
        (8, {"SLURM_LOCALID": "0", "SLURM_STEP_NUM_TASKS": "8"}, 5, 0),
        (8, {"SLURM_LOCALID": "3"}, 5, 3),
        (8, {"SLURM_LOCALID": "0"}, 5, 5),  # a script under sbatch starts the parts itself
        (1, {"SLURM_LOCALID": "3", "SLURM_STEP_NUM_TASKS": "8"}, 0, 0),  # SLURM shows each task one GPU
        (1, {"LOCAL_RANK": "3"}, 0, 0),
    ],
)
def test_each_process_takes_its_own_gpu(machine, name, gpus, environment, part, index):
    machine(gpus, **environment)
    assert pick_device(name, part) == torch.device("cuda", index)


def test_an_index_that_is_asked_for_stays(machine):
    machine(8, LOCAL_RANK="3")
    assert pick_device("cuda:6", 5) == torch.device("cuda:6")
    assert pick_device("cpu", 5) == torch.device("cpu")


def test_without_a_gpu_auto_is_the_cpu_and_cuda_is_refused(machine, monkeypatch):
    machine(0, LOCAL_RANK="3")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert pick_device("auto", 5) == torch.device("cpu")
    with pytest.raises(ValueError, match="device: 'cuda' cannot be used here"):
        pick_device("cuda")


@pytest.mark.parametrize("config", [ProposalsConfig, FeaturesConfig, InferConfig, EvaluateConfig, AppConfig])
def test_every_command_takes_auto_by_default(config):
    assert config().device == "auto"
