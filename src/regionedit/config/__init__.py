"""The whole configuration as typed dataclasses; `command_line` reads them from files and arguments. Imports no torch.

A YAML under configs/ lists only what differs from these defaults, which are the microworld's. "Not given in the paper"
marks settings that the paper does not specify.
"""

from regionedit.config.app import AppConfig
from regionedit.config.editing import CropConfig, DescribeConfig, EditConfig, RegionConfig
from regionedit.config.evaluation import EvaluateConfig
from regionedit.config.models import MICROWORLD, EncodersConfig, GeneratorConfig, PredictorConfig
from regionedit.config.training import (
    DataConfig,
    LogConfig,
    LossConfig,
    OptimizerConfig,
    SaversConfig,
    StepConfig,
    TrainConfig,
)

__all__ = [
    "AppConfig",
    "CropConfig",
    "DataConfig",
    "DescribeConfig",
    "EditConfig",
    "EncodersConfig",
    "EvaluateConfig",
    "GeneratorConfig",
    "LogConfig",
    "LossConfig",
    "MICROWORLD",
    "OptimizerConfig",
    "PredictorConfig",
    "RegionConfig",
    "SaversConfig",
    "StepConfig",
    "TrainConfig",
]
