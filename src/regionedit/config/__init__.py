"""The whole configuration as typed dataclasses; `command_line` reads them from files and arguments. Imports no torch.

A YAML under configs/ lists only what differs from these defaults, which are the microworld's. "Not given in the paper"
marks settings that the paper does not specify.
"""

# ruff: noqa: F401 (these are the names that other modules import)

from regionedit.config.app import AppConfig
from regionedit.config.describers import (
    DESCRIBE_CONFIGS,
    ChatEndpointConfig,
    DescribeConfig,
    EndpointConfig,
    GivenConfig,
    MicroworldConfig,
    ModelDescriberConfig,
    TwoStageConfig,
    VlmBoxConfig,
    VlmConfig,
)
from regionedit.config.editing import CropConfig, EditConfig, RegionConfig
from regionedit.config.evaluation import EvaluateConfig, SuiteConfig
from regionedit.config.generators import (
    GENERATOR_CONFIGS,
    DiffusersInpaintConfig,
    GeneratorConfig,
    InstructPix2PixConfig,
    MaskedTokenConfig,
    NextScaleConfig,
    PipelineConfig,
    StableDiffusionConfig,
)
from regionedit.config.infer import InferConfig
from regionedit.config.judges import PairJudgeConfig, VlmJudgeConfig
from regionedit.config.models import MICROWORLD, EncodersConfig, PredictorConfig
from regionedit.config.training import (
    DataConfig,
    LogConfig,
    LossConfig,
    MemoryConfig,
    OptimizerConfig,
    SearchConfig,
    StepConfig,
    TrainConfig,
    generator_of_search,
)
