"""Training a region predictor: one step (module), validation scores (scores), callbacks, one run (run)."""

from regionedit.training.callbacks import Stopped
from regionedit.training.module import NotFinite, RegionTraining, check_step
from regionedit.training.run import train

__all__ = ["NotFinite", "RegionTraining", "Stopped", "check_step", "train"]
