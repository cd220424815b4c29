"""Training a region predictor: one step (module), its gradient (micro_batches), what ranks agree on (agreement),
validation scores (scores), callbacks, one run (run)."""

from regionedit.training.agreement import FailedElsewhere
from regionedit.training.callbacks import Stopped
from regionedit.training.micro_batches import NotFinite
from regionedit.training.module import RegionTraining, check_step
from regionedit.training.run import train

__all__ = ["FailedElsewhere", "NotFinite", "RegionTraining", "Stopped", "check_step", "train"]
