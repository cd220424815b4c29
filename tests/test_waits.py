"""How often a training step makes Python wait for the GPU: counted on a stand-in, the meta device."""

from functools import partial

import pytest
from lightning.pytorch import Callback, Trainer

from regionedit.training import run, train
from tests.device_waits import OnMeta, Waits

slow = partial(pytest.param, marks=pytest.mark.slow)
STEADY = 2  # by this step everything has happened once


class Enough(Exception):
    pass


class Count(Callback):
    """Counts the waits of whole steps, from one to the next, and ends the run."""

    def __init__(self, waits: Waits):
        self.waits, self.by_step = waits, []

    def on_train_batch_start(self, trainer, module, batch, batch_index):
        self.by_step.append(list(self.waits.places))
        self.waits.places.clear()
        if trainer.global_step == STEADY + 2:
            raise Enough


@pytest.fixture
def waits_of(tiny_train, monkeypatch):
    """The waits of every step from the second to the fourth."""

    def run_on_meta(*changes: str) -> list[list[str]]:
        def trainer(**settings):
            del settings["accelerator"], settings["devices"]
            return Trainer(**settings, strategy=OnMeta())

        monkeypatch.setattr(run, "Trainer", trainer)
        with Waits() as waits:
            count = Count(waits)
            with pytest.raises(Enough):
                train(tiny_train("--max_steps=100", "--log.every_steps=1000", *changes), [count])
        return count.by_step[STEADY:]

    return run_on_meta


@pytest.mark.parametrize(
    "changes",
    [
        ["--step.gradient=composite", "--step.proposal_mask=predicted_hard", "--generator.guidance_scale=3"],
        slow(["--step.gradient=composite", "--step.proposal_mask=random_hard", "--data.micro_batch=1"]),
        slow(["--step.gradient=latent", "--step.proposal_mask=predicted_hard", "--memory.chunk=2"]),
        slow(["--step.gradient=full", "--step.proposal_mask=predicted", "--generator.guidance_scale=3"]),
    ],
    ids=str,
)
def test_a_step_waits_for_the_device_once(waits_of, changes):
    for places in waits_of(*changes):
        assert len(places) == 1, places
