"""Which device a command takes: this process's own GPU, and what it says where torch cannot use the machine's GPU."""

import pytest
import torch

from regionedit import device
from regionedit.device import pick_device, say_unseen_gpu, unseen_gpu
from regionedit.training import train

OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.14  Release Build"
CLOSED = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}.104.05  Sat Aug 19 01:15:15 UTC 2026\nGCC version: 12.3.0"


@pytest.fixture
def gpu(tmp_path, monkeypatch):
    """A function that fakes this machine: an NVIDIA GPU with a driver, and a torch that does not see it."""
    say_unseen_gpu.cache_clear()

    def fake(driver: str | None, cuda: str | None = "13.2") -> None:
        (tmp_path / "nvidia0").touch()
        (tmp_path / "nvidiactl").touch()
        if driver:
            (tmp_path / "version").write_text(driver)
        monkeypatch.setattr(device, "DEVICE_FILES", str(tmp_path / "nvidia[0-9]*"))
        monkeypatch.setattr(device, "DRIVER_FILE", str(tmp_path / "version"))
        monkeypatch.setattr(torch.version, "cuda", cuda)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    yield fake
    say_unseen_gpu.cache_clear()


@pytest.mark.parametrize(
    ("driver", "cuda", "said"),
    [
        (CLOSED.format(535), "13.2", "CUDA 13.2 needs an NVIDIA driver of 580 or newer, this machine has 535;"),
        (OPEN, "13.0", "driver of 580 or newer, this machine has 550;"),
        (CLOSED.format(470), "12.6", "driver of 525 or newer, this machine has 470;"),
        (CLOSED.format(580), "13.2", "CUDA 13.2 does not start; run nvidia-smi;"),
        (None, "13.2", "CUDA 13.2 does not start"),
        (CLOSED.format(580), None, "it was built without CUDA;"),
    ],
)
def test_a_gpu_that_torch_does_not_see_is_told_in_one_line(gpu, capsys, driver, cuda, said):
    gpu(driver, cuda)
    assert said in unseen_gpu() and "see docs/install.md" in unseen_gpu()
    assert pick_device("auto").type == pick_device("auto").type == "cpu"
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err == f"warning: {unseen_gpu()}\n", "once in a process"
    with pytest.raises(ValueError, match="device: 'cuda' cannot be used here: this machine has an NVIDIA GPU"):
        pick_device("cuda")


@pytest.mark.parametrize("why", ["no GPU", "hidden", "seen"])
def test_nothing_is_said_without_a_reason(gpu, monkeypatch, tmp_path, capsys, why):
    gpu(CLOSED.format(535))
    if why == "no GPU":
        (tmp_path / "nvidia0").unlink()
    if why == "hidden":
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    if why == "seen":
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert unseen_gpu() == ""
    say_unseen_gpu()
    assert capsys.readouterr().err == ""


def test_training_stops_before_data_and_models_are_read(gpu, tiny_train, capsys):
    gpu(CLOSED.format(535))
    with pytest.raises(ValueError, match="^trainer: this machine has an NVIDIA GPU .* this machine has 535"):
        train(tiny_train("--trainer.accelerator=gpu", "--data.train=/nowhere", "--encoders.clip=local-dir:/nowhere"))
    with pytest.raises(ValueError, match="^data.train"):
        train(tiny_train("--trainer.accelerator=auto", "--data.train=/nowhere"))
    assert "warning: this machine has an NVIDIA GPU" in capsys.readouterr().err
    with pytest.raises(ValueError, match="^data.train"):
        train(tiny_train("--data.train=/nowhere"))
    assert capsys.readouterr().err == "", "the CPU was asked for"


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
